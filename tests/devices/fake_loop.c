/* See fake_loop.h. One loop per process is enough: Criterion runs each test in its own. */
#include "fake_loop.h"

#include <poll.h>
#include <stdlib.h>

struct event_loop {
    struct clock *clock;
};

struct fd_watch {
    struct fd_watch *next;
    int fd;
    unsigned events;
    bool removed;
    void (*fn)(void *opaque, unsigned ready);
    void *opaque;
};

#define MAX_TIMERS 64

static struct {
    uint64_t now;
    int64_t wall_adjust;
    struct timer *timers[MAX_TIMERS]; /* index 0 unused */
    uint64_t run;
    struct fd_watch *watches;
    struct event_loop loop;
} fake;

/* ---- Clock ---- */

void clock_init(struct clock *clock)
{
    *clock = (struct clock){ .tsc_khz = FAKE_TSC_KHZ };
}
uint64_t clock_host_ns(void)
{
    return fake.now;
}
uint64_t clock_now_ns(const struct clock *clock)
{
    (void)clock;
    return fake.now;
}
uint64_t clock_wall_ns(void)
{
    return FAKE_WALL_START + fake.now + (uint64_t)fake.wall_adjust;
}
uint64_t clock_tsc(const struct clock *clock)
{
    (void)clock;
    return fake.now * 2;
}

uint64_t clock_tsc_to_ns(const struct clock *clock, uint64_t tsc)
{
    (void)clock;
    return tsc / 2; /* rounds down, as a careless clock might */
}

uint64_t fake_time(void)
{
    return fake.now;
}
void fake_wall_adjust(int64_t ns)
{
    fake.wall_adjust += ns;
}
uint64_t fake_timers_run(void)
{
    return fake.run;
}
void fake_time_skip(uint64_t ns)
{
    fake.now += ns;
}

void fake_loop_restart(void)
{
    if (fake.watches || fake_timers_armed())
        abort();
    fake.now = fake.run = 0;
    fake.wall_adjust = 0;
}

/* ---- Timers ---- */

void timer_init(struct timer *timer, struct event_loop *loop, void (*fn)(void *opaque), void *opaque)
{
    *timer = (struct timer){ .loop = loop, .fn = fn, .opaque = opaque };
}

void timer_arm(struct timer *timer, uint64_t deadline_ns)
{
    timer->deadline_ns = deadline_ns;
    for (unsigned i = 1; !timer->heap_index; i++) {
        if (i == MAX_TIMERS)
            abort();
        if (!fake.timers[i]) {
            fake.timers[i] = timer;
            timer->heap_index = i;
        }
    }
}

void timer_disarm(struct timer *timer)
{
    if (timer->heap_index)
        fake.timers[timer->heap_index] = NULL;
    timer->heap_index = 0;
}

bool timer_armed(const struct timer *timer)
{
    return timer->heap_index != 0;
}

static struct timer *earliest(void)
{
    struct timer *best = NULL;

    for (unsigned i = 1; i < MAX_TIMERS; i++) {
        if (fake.timers[i] && (!best || fake.timers[i]->deadline_ns < best->deadline_ns))
            best = fake.timers[i];
    }
    return best;
}

unsigned fake_timers_armed(void)
{
    unsigned count = 0;

    for (unsigned i = 1; i < MAX_TIMERS; i++)
        count += fake.timers[i] != NULL;
    return count;
}

void fake_time_to(uint64_t ns)
{
    struct timer *timer;

    while ((timer = earliest()) && timer->deadline_ns <= MAX(ns, fake.now)) {
        if (timer->deadline_ns > fake.now)
            fake.now = timer->deadline_ns;
        timer_disarm(timer);
        fake.run++;
        timer->fn(timer->opaque);
    }
    if (ns > fake.now)
        fake.now = ns;
}

void fake_time_advance(uint64_t ns)
{
    fake_time_to(fake.now + ns);
}

/* ---- Loop ---- */

struct event_loop *event_loop_create(struct clock *clock, struct error *err)
{
    (void)err;
    fake.loop.clock = clock;
    return &fake.loop;
}

void event_loop_destroy(struct event_loop *loop)
{
    (void)loop;
}
int event_loop_run(struct event_loop *loop)
{
    (void)loop;
    return 0;
}
void event_loop_stop(struct event_loop *loop)
{
    (void)loop;
}
struct clock *event_loop_clock(struct event_loop *loop)
{
    return loop->clock;
}
void event_loop_lock(struct event_loop *loop)
{
    (void)loop;
}
void event_loop_unlock(struct event_loop *loop)
{
    (void)loop;
}

/* Nobody competes for it here. */
pthread_mutex_t *event_loop_mutex(struct event_loop *loop)
{
    static pthread_mutex_t lock = PTHREAD_RECURSIVE_MUTEX_INITIALIZER_NP;

    (void)loop;
    return &lock;
}

void event_loop_post(struct event_loop *loop, void (*fn)(void *opaque), void *opaque)
{
    (void)loop;
    fn(opaque);
}

int event_loop_on_signal(struct event_loop *loop, int signum, void (*fn)(void *opaque, int signum), void *opaque,
                         struct error *err)
{
    (void)loop, (void)signum, (void)fn, (void)opaque, (void)err;
    return 0;
}

/* ---- Watches ---- */

struct fd_watch *fd_watch_add(struct event_loop *loop, int fd, unsigned events,
                              void (*fn)(void *opaque, unsigned ready), void *opaque, struct error *err)
{
    struct fd_watch *watch = calloc(1, sizeof(*watch));

    (void)loop, (void)err;
    *watch = (struct fd_watch){ .next = fake.watches, .fd = fd, .events = events, .fn = fn, .opaque = opaque };
    fake.watches = watch;
    return watch;
}

void fd_watch_change(struct fd_watch *watch, unsigned events)
{
    watch->events = events;
}

void fd_watch_remove(struct fd_watch *watch)
{
    for (struct fd_watch **link = &fake.watches; *link; link = &(*link)->next) {
        if (*link == watch) {
            *link = watch->next;
            break;
        }
    }
    free(watch);
}

/* One callback a call: it may remove any watch. */
unsigned fake_loop_poll(int timeout_ms)
{
    struct pollfd fds[8];
    struct fd_watch *watches[8];
    unsigned count = 0;

    for (struct fd_watch *watch = fake.watches; watch && count < 8; watch = watch->next) {
        if (!watch->events)
            continue;
        fds[count] = (struct pollfd){ .fd = watch->fd };
        fds[count].events =
            (short)((watch->events & FD_READABLE ? POLLIN : 0) | (watch->events & FD_WRITABLE ? POLLOUT : 0));
        watches[count++] = watch;
    }
    if (!count || poll(fds, count, timeout_ms) <= 0)
        return 0;
    for (unsigned i = 0; i < count; i++) {
        unsigned ready = (fds[i].revents & (POLLIN | POLLHUP) ? FD_READABLE : 0) |
                         (fds[i].revents & (POLLOUT | POLLERR) ? FD_WRITABLE : 0);

        if (ready & watches[i]->events) {
            watches[i]->fn(watches[i]->opaque, ready & watches[i]->events);
            return 1;
        }
    }
    return 0;
}
