/* One-shot nanosecond timers: a binary heap over one timerfd.
 *
 * The heap is guarded by the device lock; vCPU threads arm timers too (APIC timer), so the loop's
 * thread may be asleep in epoll meanwhile: timerfd_settime wakes it, with no other message. To save
 * system calls the timerfd is only moved when the earliest deadline gets earlier; when that was put
 * off, the loop wakes up once for nothing and programs the true one. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "base/event_loop_internal.h"

#define NEVER UINT64_MAX

int timer_heap_init(struct timer_heap *heap, struct error *err)
{
    *heap = (struct timer_heap){ .programmed_ns = NEVER };
    heap->fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    if (heap->fd < 0)
        return error_set(err, errno, "timerfd: %s", strerror(errno));
    return 0;
}

void timer_heap_destroy(struct timer_heap *heap)
{
    for (unsigned i = 1; i <= heap->count; i++)
        heap->slots[i]->heap_index = 0;
    free(heap->slots);
    if (heap->fd >= 0)
        close(heap->fd);
}

static void heap_put(struct timer_heap *heap, unsigned index, struct timer *timer)
{
    heap->slots[index] = timer;
    timer->heap_index = index;
}

static void heap_up(struct timer_heap *heap, unsigned index, struct timer *timer)
{
    while (index > 1 && heap->slots[index / 2]->deadline_ns > timer->deadline_ns) {
        heap_put(heap, index, heap->slots[index / 2]);
        index /= 2;
    }
    heap_put(heap, index, timer);
}

static void heap_down(struct timer_heap *heap, unsigned index, struct timer *timer)
{
    for (unsigned child; (child = index * 2) <= heap->count; index = child) {
        if (child < heap->count && heap->slots[child + 1]->deadline_ns < heap->slots[child]->deadline_ns)
            child++;
        if (heap->slots[child]->deadline_ns >= timer->deadline_ns)
            break;
        heap_put(heap, index, heap->slots[child]);
    }
    heap_put(heap, index, timer);
}

static void heap_remove(struct timer_heap *heap, struct timer *timer)
{
    unsigned index = timer->heap_index;
    struct timer *last = heap->slots[heap->count--];

    timer->heap_index = 0;
    if (last == timer)
        return;
    if (index > 1 && heap->slots[index / 2]->deadline_ns > last->deadline_ns)
        heap_up(heap, index, last);
    else
        heap_down(heap, index, last);
}

static void heap_insert(struct timer_heap *heap, struct timer *timer)
{
    if (heap->count + 1 >= heap->capacity) {
        unsigned capacity = heap->capacity ? heap->capacity * 2 : 32;
        struct timer **slots = realloc(heap->slots, capacity * sizeof(*slots));

        if (!slots)
            abort(); /* a few hundred bytes: the host is beyond help, and a lost timer hangs the guest */
        heap->slots = slots;
        heap->capacity = capacity;
    }
    heap_up(heap, ++heap->count, timer);
}

/* Sets the timerfd to the earliest deadline. `exactly`: also when that is later than what it is set to. */
static void heap_program(struct event_loop *loop, bool exactly)
{
    struct timer_heap *heap = &loop->timers;
    uint64_t deadline = heap->count ? heap->slots[1]->deadline_ns : NEVER;
    struct itimerspec spec = { 0 };
    uint64_t host_ns;

    if (deadline == heap->programmed_ns || (!exactly && deadline > heap->programmed_ns))
        return;
    heap->programmed_ns = deadline;
    if (deadline != NEVER) {
        /* Host time, at least 1 because 0 disarms; capped where time_t still works. */
        host_ns = deadline + loop->clock->ns_base;
        if (host_ns < deadline || host_ns > (uint64_t)INT64_MAX)
            host_ns = INT64_MAX;
        if (host_ns == 0)
            host_ns = 1;
        spec.it_value.tv_sec = (time_t)(host_ns / 1000000000u);
        spec.it_value.tv_nsec = (long)(host_ns % 1000000000u);
    }
    timerfd_settime(heap->fd, TFD_TIMER_ABSTIME, &spec, NULL);
}

void timer_heap_expired(void *opaque, unsigned ready)
{
    struct event_loop *loop = opaque;
    struct timer_heap *heap = &loop->timers;
    uint64_t count, now = clock_now_ns(loop->clock);

    (void)ready;
    if (read(heap->fd, &count, sizeof(count)) < 0 && errno != EAGAIN)
        return;
    heap->programmed_ns = NEVER; /* fired */
    /* Bounded: a callback that re-arms for the past runs again on the next turn of the loop. */
    for (unsigned budget = heap->count; budget && heap->count; budget--) {
        struct timer *timer = heap->slots[1];

        if (timer->deadline_ns > now)
            break;
        heap_remove(heap, timer);
        timer->fn(timer->opaque);
    }
    heap_program(loop, true);
}

void timer_init(struct timer *timer, struct event_loop *loop, void (*fn)(void *opaque), void *opaque)
{
    *timer = (struct timer){ .loop = loop, .fn = fn, .opaque = opaque };
}

void timer_arm(struct timer *timer, uint64_t deadline_ns)
{
    struct timer_heap *heap = &timer->loop->timers;

    if (timer->heap_index)
        heap_remove(heap, timer);
    timer->deadline_ns = deadline_ns;
    heap_insert(heap, timer);
    heap_program(timer->loop, false);
}

void timer_disarm(struct timer *timer)
{
    if (!timer->heap_index)
        return;
    heap_remove(&timer->loop->timers, timer);
    /* The timerfd stays: it wakes the loop once for nothing, which is cheaper than a system call here. */
}

bool timer_armed(const struct timer *timer)
{
    return timer->heap_index != 0;
}
