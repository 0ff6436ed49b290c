/* The event loop of the main thread (libuv underneath), nanosecond timers, file
 * descriptor watches, and the device lock.
 *
 * The device lock guards the state of all devices. The loop holds it while any
 * callback runs; vCPU threads take it around MMIO and port I/O (struct io_space
 * does that for them). It is recursive. Everything below but event_loop_post and
 * event_loop_stop is called with the device lock held (or before the loop runs). */
#ifndef EIDOLON_BASE_EVENT_LOOP_H
#define EIDOLON_BASE_EVENT_LOOP_H

#include <pthread.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/types.h"

struct event_loop;

struct event_loop *event_loop_create(struct clock *clock, struct error *err);
void event_loop_destroy(struct event_loop *loop);
int event_loop_run(struct event_loop *loop);   /* until event_loop_stop */
void event_loop_stop(struct event_loop *loop); /* any thread, async */
struct clock *event_loop_clock(struct event_loop *loop);

void event_loop_lock(struct event_loop *loop);
void event_loop_unlock(struct event_loop *loop);
pthread_mutex_t *event_loop_mutex(struct event_loop *loop);

/* Runs fn(opaque) on the loop's thread soon, with the lock held. Any thread. */
void event_loop_post(struct event_loop *loop, void (*fn)(void *opaque), void *opaque);

/* One-shot timer on guest time (clock_now_ns). Precision: that of timerfd, not of
 * libuv's milliseconds. Embedded in its owner. */
struct timer {
    struct event_loop *loop;
    void (*fn)(void *opaque);
    void *opaque;
    uint64_t deadline_ns;
    unsigned heap_index; /* 0 = not armed */
};
void timer_init(struct timer *timer, struct event_loop *loop, void (*fn)(void *opaque), void *opaque);
void timer_arm(struct timer *timer, uint64_t deadline_ns); /* re-arms if armed; past = at once */
void timer_disarm(struct timer *timer);
bool timer_armed(const struct timer *timer);

enum { FD_READABLE = 1, FD_WRITABLE = 2 };
struct fd_watch;
/* fn gets the FD_* bits that are ready; level triggered. */
struct fd_watch *fd_watch_add(struct event_loop *loop, int fd, unsigned events,
                              void (*fn)(void *opaque, unsigned ready), void *opaque, struct error *err);
void fd_watch_change(struct fd_watch *watch, unsigned events); /* 0 pauses */
void fd_watch_remove(struct fd_watch *watch);

/* Signal callback on the loop's thread (SIGINT, SIGTERM, SIGWINCH ...). */
int event_loop_on_signal(struct event_loop *loop, int signum, void (*fn)(void *opaque, int signum), void *opaque,
                         struct error *err);

#endif
