/* I/O threads: see io_thread.h.
 *
 * Deferred items run from a "check" handle: libuv calls it once for each round, after all descriptors' callbacks, and without
 * any lock of ours. The device lock is taken there by a timed wait: somebody who holds it may be waiting for this very
 * thread (io_thread_wait()); then the items stay, and the thread goes round again.
 *
 * Threads: as each function says. The list of items is guarded by the loop's lock; an item is taken off and run with the device
 * lock held throughout, so that io_thread_cancel(), which needs both, never meets one that is half done. */
#include "base/io_thread.h"

#include <errno.h>
#include <semaphore.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/event_loop_internal.h"

#define LOCK_PATIENCE_NS 1000000

/* The sanitizer knows only the older of the two functions; a step of the wall clock may make it wait longer. */
#ifdef __SANITIZE_THREAD__
#define LOCK_CLOCK                     CLOCK_REALTIME
#define lock_until(lock, clock, until) pthread_mutex_timedlock(lock, until)
#else
#define LOCK_CLOCK                     CLOCK_MONOTONIC
#define lock_until(lock, clock, until) pthread_mutex_clocklock(lock, clock, until)
#endif

struct io_thread {
    struct event_loop *loop, *main_loop;
    pthread_t thread;
    uv_check_t check;
    struct io_deferred *first, **last; /* guarded by the loop's lock */
    _Atomic unsigned waiters;          /* hold the device lock until a round is over */
    pthread_mutex_t round_lock;
    pthread_cond_t round_done;
    uint64_t rounds; /* guarded by round_lock */
};

struct event_loop *io_thread_loop(struct io_thread *thread)
{
    return thread->loop;
}

static void nothing(void *opaque)
{
    (void)opaque;
}

/* ---- After a round ---- */

/* False: somebody who has it waits for us. */
static bool take_device_lock(struct io_thread *thread)
{
    pthread_mutex_t *lock = event_loop_mutex(thread->main_loop);

    while (pthread_mutex_trylock(lock)) {
        struct timespec until;

        if (atomic_load(&thread->waiters))
            return false;
        clock_gettime(LOCK_CLOCK, &until);
        until.tv_nsec += LOCK_PATIENCE_NS;
        if (until.tv_nsec >= 1000000000) {
            until.tv_nsec -= 1000000000;
            until.tv_sec++;
        }
        if (lock_until(lock, LOCK_CLOCK, &until) == 0)
            break;
    }
    return true;
}

static struct io_deferred *take_items(struct io_thread *thread)
{
    struct io_deferred *items;

    event_loop_lock(thread->loop);
    items = thread->first;
    thread->first = NULL;
    thread->last = &thread->first;
    for (struct io_deferred *item = items; item; item = item->next)
        item->queued = false;
    event_loop_unlock(thread->loop);
    return items;
}

static bool has_items(struct io_thread *thread)
{
    bool any;

    event_loop_lock(thread->loop);
    any = thread->first != NULL;
    event_loop_unlock(thread->loop);
    return any;
}

static void round_over(uv_check_t *check)
{
    struct io_thread *thread = check->data;

    if (has_items(thread) && take_device_lock(thread)) {
        struct io_deferred *next;

        for (struct io_deferred *item = take_items(thread); item; item = next) {
            next = item->next; /* fn may defer it again */
            item->fn(item->opaque);
        }
        event_loop_unlock(thread->main_loop);
    }
    pthread_mutex_lock(&thread->round_lock);
    thread->rounds++;
    pthread_cond_broadcast(&thread->round_done);
    pthread_mutex_unlock(&thread->round_lock);
}

void io_thread_defer(struct io_thread *thread, struct io_deferred *item)
{
    if (item->queued)
        return;
    item->queued = true;
    item->next = NULL;
    *thread->last = item;
    thread->last = &item->next;
    if (!pthread_equal(pthread_self(), thread->thread))
        event_loop_post(thread->loop, nothing, NULL);
}

void io_thread_cancel(struct io_thread *thread, struct io_deferred *item)
{
    event_loop_lock(thread->loop);
    if (item->queued) {
        struct io_deferred **link = &thread->first;

        while (*link != item)
            link = &(*link)->next;
        *link = item->next;
        if (thread->last == &item->next)
            thread->last = link;
        item->queued = false;
    }
    event_loop_unlock(thread->loop);
}

static bool ask(struct io_thread *thread, bool (*done)(void *opaque), void *opaque)
{
    bool yes;

    event_loop_lock(thread->loop);
    yes = done(opaque);
    event_loop_unlock(thread->loop);
    return yes;
}

void io_thread_wait(struct io_thread *thread, bool (*done)(void *opaque), void *opaque)
{
    atomic_fetch_add(&thread->waiters, 1);
    for (;;) {
        uint64_t seen;

        pthread_mutex_lock(&thread->round_lock);
        seen = thread->rounds;
        pthread_mutex_unlock(&thread->round_lock);
        if (ask(thread, done, opaque))
            break;
        pthread_mutex_lock(&thread->round_lock);
        while (thread->rounds == seen)
            pthread_cond_wait(&thread->round_done, &thread->round_lock);
        pthread_mutex_unlock(&thread->round_lock);
    }
    atomic_fetch_sub(&thread->waiters, 1);
    event_loop_post(thread->loop, nothing, NULL); /* items that had to stay */
}

/* ---- Life ---- */

static void say_running(void *opaque)
{
    sem_post(opaque);
}

static void *thread_main(void *opaque)
{
    struct io_thread *thread = opaque;

    event_loop_run(thread->loop);
    return NULL;
}

/* Returns when the loop runs: from then on it knows its thread. */
static int start(struct io_thread *thread, const char *name, struct error *err)
{
    static const int faults[] = { SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP, SIGABRT };
    sigset_t blocked, old;
    char short_name[16];
    sem_t running;
    int ret;

    sigfillset(&blocked); /* signals are the main thread's */
    for (size_t i = 0; i < ARRAY_SIZE(faults); i++)
        sigdelset(&blocked, faults[i]);
    sem_init(&running, 0, 0);
    event_loop_post(thread->loop, say_running, &running);
    pthread_sigmask(SIG_SETMASK, &blocked, &old);
    ret = pthread_create(&thread->thread, NULL, thread_main, thread);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (ret)
        return error_set(err, ret, "I/O thread '%s': %s", name, strerror(ret));
    while (sem_wait(&running))
        ;
    sem_destroy(&running);
    snprintf(short_name, sizeof(short_name), "IO %.12s", name);
    pthread_setname_np(thread->thread, short_name);
    return 0;
}

struct io_thread *io_thread_create(const char *name, struct event_loop *main_loop, struct error *err)
{
    struct io_thread *thread = calloc(1, sizeof(*thread));

    if (!thread) {
        error_set(err, ENOMEM, "out of memory");
        return NULL;
    }
    thread->main_loop = main_loop;
    thread->last = &thread->first;
    pthread_mutex_init(&thread->round_lock, NULL);
    pthread_cond_init(&thread->round_done, NULL);
    thread->loop = event_loop_create(event_loop_clock(main_loop), err);
    if (!thread->loop)
        goto free_thread;
    uv_check_init(&thread->loop->uv, &thread->check);
    thread->check.data = thread;
    uv_check_start(&thread->check, round_over);
    if (start(thread, name, err))
        goto close_loop;
    return thread;

close_loop:
    uv_close((uv_handle_t *)&thread->check, NULL);
    event_loop_destroy(thread->loop);
free_thread:
    pthread_cond_destroy(&thread->round_done);
    pthread_mutex_destroy(&thread->round_lock);
    free(thread);
    return NULL;
}

void io_thread_destroy(struct io_thread *thread)
{
    if (!thread)
        return;
    event_loop_stop(thread->loop);
    pthread_join(thread->thread, NULL);
    uv_close((uv_handle_t *)&thread->check, NULL);
    event_loop_destroy(thread->loop);
    pthread_cond_destroy(&thread->round_done);
    pthread_mutex_destroy(&thread->round_lock);
    free(thread);
}
