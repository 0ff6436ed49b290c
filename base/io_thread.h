/* A thread with an event loop of its own, for device work that must not wait for vCPUs nor make them wait: -object
 * iothread, and the one that virtio-blk devices share by default.
 *
 * Its loop has a lock of its own. Lock order: the device lock, then the thread's; so nothing on the thread takes the device
 * lock while the loop's lock is held (in any callback of the loop). What needs the device lock (interrupts, the machine)
 * is deferred: it runs on the thread after the round of callbacks, with the device lock and without the loop's. */
#ifndef EIDOLON_BASE_IO_THREAD_H
#define EIDOLON_BASE_IO_THREAD_H

#include "base/event_loop.h"

struct io_thread;

/* `main_loop`: whose lock is the device lock. The thread runs when this returns. */
struct io_thread *io_thread_create(const char *name, struct event_loop *main_loop, struct error *err);
/* Stops and joins; whatever used the loop is gone. Device lock not held. */
void io_thread_destroy(struct io_thread *thread);
struct event_loop *io_thread_loop(struct io_thread *thread);

/* Embedded in its owner; zeroed, with fn and opaque set. */
struct io_deferred {
    void (*fn)(void *opaque); /* device lock held, the loop's not */
    void *opaque;
    struct io_deferred *next;
    bool queued;
};
/* fn will be called once after this round of callbacks, however often this is called. Any thread, the loop's lock held. */
void io_thread_defer(struct io_thread *thread, struct io_deferred *item);
/* It is not called any more after this. Device lock held; takes the loop's. */
void io_thread_cancel(struct io_thread *thread, struct io_deferred *item);

/* Waits, with the device lock held, until done(opaque) is true, which is asked with the loop's lock held each time the
 * thread has finished a round. Meanwhile deferred items stay where they are. Not on the thread itself. */
void io_thread_wait(struct io_thread *thread, bool (*done)(void *opaque), void *opaque);

#endif
