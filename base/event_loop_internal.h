/* What event_loop.c (threads, watches, posts, signals) and timer.c (the heap) share. */
#ifndef EIDOLON_BASE_EVENT_LOOP_INTERNAL_H
#define EIDOLON_BASE_EVENT_LOOP_INTERNAL_H

#include <stdatomic.h>
#include <uv.h>

#include "base/event_loop.h"

/* Binary heap by deadline; slot 0 is unused so that heap_index 0 can mean "not armed".
 * Guarded by the device lock. */
struct timer_heap {
    struct timer **slots;
    unsigned count, capacity;
    int fd;                 /* timerfd, CLOCK_MONOTONIC, absolute */
    uint64_t programmed_ns; /* guest time that fd is set to; UINT64_MAX: disarmed */
};

struct post;

struct event_loop {
    uv_loop_t uv;
    struct clock *clock;
    pthread_mutex_t lock; /* the device lock */
    struct timer_heap timers;
    struct fd_watch *timer_watch;
    struct fd_watch *watches; /* all of them; guarded by lock */
    pthread_t thread;         /* that runs the loop */

    uv_async_t async;
    atomic_bool stop_requested;
    pthread_mutex_t post_lock;
    struct post *post_first, **post_last; /* guarded by post_lock */
};

int timer_heap_init(struct timer_heap *heap, struct error *err);
void timer_heap_destroy(struct timer_heap *heap);
void timer_heap_expired(void *opaque, unsigned ready); /* fd_watch callback; opaque: the loop */

#endif
