/* The event loop: timers in order and on time, also armed from other threads; posts; watches of pipes, files and
 * /dev/null; the device lock around callbacks. */
#include <criterion/criterion.h>
#include <fcntl.h>
#include <pthread.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/event_loop.h"

#define COUNT 500

static struct clock guest_clock;
static struct event_loop *loop;
static struct error err;

static void set_up(void)
{
    guest_clock = (struct clock){ .tsc_khz = 1000000, .ns_base = clock_host_ns() };
    loop = event_loop_create(&guest_clock, &err);
    cr_assert_not_null(loop, "%s", err.text);
}

static void tear_down(void)
{
    event_loop_destroy(loop);
}

TestSuite(event_loop, .init = set_up, .fini = tear_down, .timeout = 20);

struct shot {
    struct timer timer;
    uint64_t deadline;
};
static uint64_t last_deadline;
static unsigned fired;

static void fire(void *opaque)
{
    struct shot *shot = opaque;
    uint64_t now = clock_now_ns(&guest_clock);

    cr_assert(!timer_armed(&shot->timer));
    cr_assert_geq(now, shot->deadline);
    cr_assert_geq(shot->deadline, last_deadline);
    last_deadline = shot->deadline;
    fired++;
}

static void stop(void *opaque)
{
    (void)opaque;
    event_loop_stop(loop);
}

Test(event_loop, timers_fire_in_order_and_disarmed_ones_do_not)
{
    static struct shot shots[COUNT];
    struct timer end;
    uint64_t x = 1, now = clock_now_ns(&guest_clock);
    unsigned armed = 0;

    for (unsigned i = 0; i < COUNT; i++) {
        x ^= x << 13, x ^= x >> 7, x ^= x << 17;
        timer_init(&shots[i].timer, loop, fire, &shots[i]);
        timer_arm(&shots[i].timer, now + x % 500000000); /* re-armed below */
        shots[i].deadline = now + x % 50000000;
        timer_arm(&shots[i].timer, shots[i].deadline);
    }
    for (unsigned i = 0; i < COUNT; i += 3) {
        timer_disarm(&shots[i].timer);
        timer_disarm(&shots[i].timer);
    }
    for (unsigned i = 0; i < COUNT; i++)
        armed += timer_armed(&shots[i].timer);
    timer_init(&end, loop, stop, NULL);
    timer_arm(&end, now + 60000000);
    event_loop_run(loop);
    cr_assert_eq(fired, armed);
    cr_assert_geq(clock_now_ns(&guest_clock), now + 60000000);
}

static struct timer again;
static unsigned again_count;

static void rearm_in_the_past(void *opaque)
{
    (void)opaque;
    if (++again_count < 1000)
        timer_arm(&again, 0);
}

Test(event_loop, timer_that_always_rearms_in_the_past_does_not_starve_others)
{
    struct timer end;

    timer_init(&again, loop, rearm_in_the_past, NULL);
    timer_init(&end, loop, stop, NULL);
    timer_arm(&again, 0);
    timer_arm(&end, clock_now_ns(&guest_clock) + 1000000);
    event_loop_run(loop);
    cr_assert_gt(again_count, 0);
}

Test(event_loop, far_deadlines)
{
    struct timer far, end;

    timer_init(&far, loop, rearm_in_the_past, NULL);
    timer_init(&end, loop, stop, NULL);
    timer_arm(&far, UINT64_MAX);
    timer_arm(&end, clock_now_ns(&guest_clock) + 1000000);
    event_loop_run(loop);
    cr_assert(timer_armed(&far));
    timer_arm(&far, UINT64_MAX - 1);
    timer_disarm(&far);
}

static void *arm_from_thread(void *opaque)
{
    struct timer *timer = opaque;

    usleep(20000); /* the loop is asleep in epoll by now */
    event_loop_lock(loop);
    timer_arm(timer, clock_now_ns(&guest_clock) + 1000000);
    event_loop_unlock(loop);
    return NULL;
}

Test(event_loop, another_thread_arms_while_the_loop_sleeps)
{
    struct timer timer, late;
    pthread_t thread;

    timer_init(&timer, loop, stop, NULL);
    timer_init(&late, loop, stop, NULL);
    timer_arm(&late, clock_now_ns(&guest_clock) + 15000000000);
    pthread_create(&thread, NULL, arm_from_thread, &timer);
    event_loop_run(loop);
    pthread_join(thread, NULL);
    cr_assert(timer_armed(&late));
}

static unsigned posted, order_errors;

static void count_post(void *opaque)
{
    order_errors += (uintptr_t)opaque != posted;
    posted++;
    cr_assert_eq(pthread_mutex_trylock(event_loop_mutex(loop)), 0); /* recursive: it is ours */
    event_loop_unlock(loop);
    if (posted == COUNT)
        event_loop_stop(loop);
}

static void *post_many(void *opaque)
{
    (void)opaque;
    for (uintptr_t i = 0; i < COUNT; i++)
        event_loop_post(loop, count_post, (void *)i);
    return NULL;
}

Test(event_loop, posts_arrive_in_order)
{
    pthread_t thread;

    pthread_create(&thread, NULL, post_many, NULL);
    event_loop_run(loop);
    pthread_join(thread, NULL);
    cr_assert_eq(posted, COUNT);
    cr_assert_eq(order_errors, 0);
}

static struct fd_watch *watch;
static unsigned char bytes[64];
static ssize_t bytes_read = -2;
static int watched_fd;

static void readable(void *opaque, unsigned ready)
{
    (void)opaque;
    cr_assert_eq(ready, FD_READABLE);
    bytes_read = read(watched_fd, bytes, sizeof(bytes));
    fd_watch_remove(watch);
    event_loop_stop(loop);
}

static void watch_and_run(int fd)
{
    watched_fd = fd;
    watch = fd_watch_add(loop, fd, FD_READABLE, readable, NULL, &err);
    cr_assert_not_null(watch, "%s", err.text);
    event_loop_run(loop);
    close(fd);
}

Test(event_loop, watches_a_pipe)
{
    int fds[2];

    cr_assert_eq(pipe(fds), 0);
    cr_assert_eq(write(fds[1], "abc", 3), 3);
    watch_and_run(fds[0]);
    cr_assert_eq(bytes_read, 3);
    close(fds[1]);
}

Test(event_loop, watches_a_pipe_that_was_closed)
{
    int fds[2];

    cr_assert_eq(pipe(fds), 0);
    close(fds[1]);
    watch_and_run(fds[0]);
    cr_assert_eq(bytes_read, 0);
}

Test(event_loop, watches_what_epoll_refuses)
{
    watch_and_run(open("/dev/null", O_RDONLY));
    cr_assert_eq(bytes_read, 0);
    watch_and_run(open("/proc/self/exe", O_RDONLY));
    cr_assert_eq(bytes_read, 64);
}

static void *watch_from_thread(void *opaque)
{
    usleep(20000); /* the loop is asleep in epoll by now */
    event_loop_lock(loop);
    watched_fd = *(int *)opaque;
    watch = fd_watch_add(loop, watched_fd, 0, readable, NULL, &err);
    fd_watch_change(watch, FD_READABLE);
    event_loop_unlock(loop);
    return NULL;
}

Test(event_loop, another_thread_adds_a_watch)
{
    int fds[2];
    pthread_t thread;

    cr_assert_eq(pipe(fds), 0);
    cr_assert_eq(write(fds[1], "abc", 3), 3);
    pthread_create(&thread, NULL, watch_from_thread, fds);
    event_loop_run(loop);
    pthread_join(thread, NULL);
    cr_assert_eq(bytes_read, 3);
}

static void *add_and_remove(void *opaque)
{
    for (int i = 0; i < 200; i++) {
        event_loop_lock(loop);
        struct fd_watch *mine = fd_watch_add(loop, *(int *)opaque, FD_READABLE, readable, NULL, &err);
        if (i % 3)
            fd_watch_change(mine, 0);
        fd_watch_remove(mine);
        event_loop_unlock(loop);
        if (i % 7 == 0)
            usleep(100);
    }
    event_loop_stop(loop);
    return NULL;
}

Test(event_loop, another_thread_adds_and_removes)
{
    int fds[2];
    pthread_t thread;

    cr_assert_eq(pipe(fds), 0);
    pthread_create(&thread, NULL, add_and_remove, fds);
    event_loop_run(loop);
    pthread_join(thread, NULL);
}

static unsigned never_called;

static void never(void *opaque, unsigned ready)
{
    (void)opaque, (void)ready;
    never_called++;
}

Test(event_loop, paused_and_bad_watches)
{
    struct timer end;
    struct fd_watch *null = fd_watch_add(loop, open("/dev/null", O_RDONLY), FD_READABLE, never, NULL, &err);

    cr_assert_not_null(null);
    fd_watch_change(null, 0);
    timer_init(&end, loop, stop, NULL);
    timer_arm(&end, clock_now_ns(&guest_clock) + 5000000);
    event_loop_run(loop);
    cr_assert_eq(never_called, 0);
    cr_assert_null(fd_watch_add(loop, 999, FD_READABLE, never, NULL, &err));
}

Test(event_loop, stop_before_run)
{
    event_loop_stop(loop);
    cr_assert_eq(event_loop_run(loop), 0);
}

static unsigned reads;

static void read_all(void *opaque, unsigned ready)
{
    int fd = *(int *)opaque;
    char byte;

    (void)ready;
    if (read(fd, &byte, 1) == 1)
        reads++;
    else
        event_loop_stop(loop);
}

/* A peer that closes with unread data in front of it leaves an error behind the data: all of that is read. */
Test(event_loop, data_in_front_of_an_error)
{
    int fds[2];

    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
    cr_assert_eq(write(fds[0], "unread", 6), 6);
    cr_assert_eq(write(fds[1], "abc", 3), 3);
    close(fds[1]);
    watch = fd_watch_add(loop, fds[0], FD_READABLE, read_all, &fds[0], &err);
    event_loop_run(loop);
    cr_assert_eq(reads, 3);
    fd_watch_remove(watch);
    close(fds[0]);
}
