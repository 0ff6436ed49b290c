/* I/O threads: callbacks run there, deferred items run once a round with the device lock and without the loop's, and whoever waits with
 * the device lock held does not wait for ever. Read guards: what is removed is not used any more. */
#include <criterion/criterion.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/io_thread.h"
#include "base/read_guard.h"

static struct clock guest_clock;
static struct event_loop *main_loop;
static struct io_thread *thread;
static struct error err;

static void set_up(void)
{
    guest_clock = (struct clock){ .tsc_khz = 1000000, .ns_base = clock_host_ns() };
    main_loop = event_loop_create(&guest_clock, &err);
    thread = io_thread_create("test", main_loop, &err);
    cr_assert_not_null(thread, "%s", err.text);
}

static void tear_down(void)
{
    io_thread_destroy(thread);
    event_loop_destroy(main_loop);
}

TestSuite(io_thread, .init = set_up, .fini = tear_down, .timeout = 20);

static void wait_for(const atomic_uint *counter, unsigned value)
{
    for (unsigned i = 0; atomic_load(counter) < value; i++) {
        cr_assert_lt(i, 20000, "%u of %u", atomic_load(counter), value);
        usleep(500);
    }
}

static atomic_uint posts, deferred, wrong;
static struct io_deferred item;
static pthread_t poster;

/* Is the lock free for another thread? Asked from a thread of its own, since it is recursive. */
static void *try_lock(void *lock)
{
    bool got = pthread_mutex_trylock(lock) == 0;

    if (got)
        pthread_mutex_unlock(lock);
    return got ? lock : NULL;
}

static bool is_free(struct event_loop *loop)
{
    pthread_t other;
    void *result;

    pthread_create(&other, NULL, try_lock, event_loop_mutex(loop));
    pthread_join(other, &result);
    return result != NULL;
}

static void on_deferred(void *opaque)
{
    if (!pthread_equal(pthread_self(), poster) || is_free(main_loop) || !is_free(io_thread_loop(thread)))
        atomic_fetch_add(&wrong, 1);
    atomic_fetch_add((atomic_uint *)opaque, 1);
}

static void on_post(void *opaque)
{
    poster = pthread_self();
    if (!is_free(main_loop) || is_free(io_thread_loop(thread)))
        atomic_fetch_add(&wrong, 1);
    io_thread_defer(thread, opaque);
    io_thread_defer(thread, opaque);
    atomic_fetch_add(&posts, 1);
}

Test(io_thread, deferred_items)
{
    item = (struct io_deferred){ .fn = on_deferred, .opaque = &deferred };
    for (unsigned i = 1; i <= 50; i++) {
        event_loop_post(io_thread_loop(thread), on_post, &item);
        wait_for(&deferred, i);
    }
    cr_assert_eq(atomic_load(&deferred), 50, "once a round");
    cr_assert_eq(atomic_load(&wrong), 0);
    cr_assert(!pthread_equal(poster, pthread_self()));
    /* From another thread, with the loop's lock. */
    event_loop_lock(io_thread_loop(thread));
    io_thread_defer(thread, &item);
    event_loop_unlock(io_thread_loop(thread));
    wait_for(&deferred, 51);
}

Test(io_thread, cancelled_items)
{
    item = (struct io_deferred){ .fn = on_deferred, .opaque = &deferred };
    for (unsigned i = 0; i < 200; i++) {
        unsigned before;

        event_loop_post(io_thread_loop(thread), on_post, &item);
        if (i % 3)
            wait_for(&posts, i + 1);
        event_loop_lock(main_loop);
        wait_for(&posts, i + 1);
        io_thread_cancel(thread, &item);
        before = atomic_load(&deferred);
        usleep(100);
        cr_assert_eq(atomic_load(&deferred), before, "it runs with the device lock, which we hold");
        event_loop_unlock(main_loop);
        usleep(100);
        cr_assert_eq(atomic_load(&deferred), before, "not after it was cancelled");
    }
}

static bool enough_posts(void *opaque)
{
    return atomic_load(&posts) >= *(unsigned *)opaque;
}

/* The thread wants the device lock; we have it and want the thread to go on. */
Test(io_thread, waiting_with_the_device_lock)
{
    item = (struct io_deferred){ .fn = on_deferred, .opaque = &deferred };
    for (unsigned i = 0; i < 40; i++) {
        unsigned target = 2 * i + 2;

        event_loop_lock(main_loop);
        event_loop_post(io_thread_loop(thread), on_post, &item);
        usleep(i % 4 * 300);
        event_loop_post(io_thread_loop(thread), on_post, &item);
        io_thread_wait(thread, enough_posts, &target);
        cr_assert_eq(atomic_load(&deferred), i, "deferred items wait for the lock");
        event_loop_unlock(main_loop);
        wait_for(&deferred, i + 1);
    }
}

/* ---- Read guards ---- */

static struct read_guard guard;
static _Atomic(unsigned *) shared;
static atomic_bool stop;
static atomic_uint bad, reads;

static void *reader(void *opaque)
{
    while (!atomic_load(&stop)) {
        unsigned index = read_guard_enter(&guard);
        unsigned *value = atomic_load(&shared);
        if (value && *value != 0x600d)
            atomic_fetch_add(&bad, 1);
        read_guard_leave(&guard, index);
        atomic_fetch_add(&reads, 1);
    }
    return opaque;
}

Test(read_guard, removed_things_are_not_seen, .timeout = 20)
{
    pthread_t readers[3];

    for (unsigned i = 0; i < 3; i++)
        pthread_create(&readers[i], NULL, reader, NULL);
    for (unsigned i = 0; i < 3000; i++) {
        unsigned *value = malloc(sizeof(*value));

        *value = 0x600d;
        atomic_store(&shared, value);
        if (i % 100 == 0)
            usleep(100);
        atomic_store(&shared, NULL);
        read_guard_wait(&guard);
        *value = 0xdead;
        free(value);
    }
    atomic_store(&stop, true);
    for (unsigned i = 0; i < 3; i++)
        pthread_join(readers[i], NULL);
    cr_assert_eq(atomic_load(&bad), 0);
    cr_assert_gt(atomic_load(&reads), 1000);
}
