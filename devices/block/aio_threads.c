/* Worker threads for what blocks: everything but plain reads and writes of files, and those too where the host has no
 * io_uring (containers often forbid it).
 *
 * A thread is made when there is work and no idle thread, up to MAX_THREADS; it goes after some seconds without work. */
#include "devices/block/block_internal.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <time.h>

#define MAX_THREADS  64
#define IDLE_SECONDS 10

struct aio_pool {
    pthread_mutex_t lock;
    pthread_cond_t work, gone;
    struct block_io *first, **end; /* guarded by lock, as all that follows */
    unsigned threads, idle, queued;
    bool stopping;
};

/* With the lock held: waits for work. NULL: the thread should go. */
static struct block_io *next_io(struct aio_pool *pool)
{
    struct block_io *io;
    struct timespec until;
    int ret = 0;

    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += IDLE_SECONDS;
    while (!pool->first && !pool->stopping && ret != ETIMEDOUT) {
        pool->idle++;
        ret = pthread_cond_timedwait(&pool->work, &pool->lock, &until);
        pool->idle--;
    }
    io = pool->first;
    if (io) {
        pool->first = io->next;
        if (!pool->first)
            pool->end = &pool->first;
        io->next = NULL;
        pool->queued--;
    }
    return io;
}

static void *worker(void *opaque)
{
    struct aio_pool *pool = opaque;
    struct block_io *io;

    pthread_mutex_lock(&pool->lock);
    while ((io = next_io(pool))) {
        pthread_mutex_unlock(&pool->lock);
        block_io_finish(io, block_io_run(io));
        pthread_mutex_lock(&pool->lock);
    }
    if (!--pool->threads)
        pthread_cond_signal(&pool->gone);
    pthread_mutex_unlock(&pool->lock);
    return NULL;
}

/* Signals are for the main thread. */
static int create_thread(struct aio_pool *pool)
{
    static const int own[] = { SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP, SIGABRT };
    pthread_attr_t attributes;
    sigset_t blocked, old;
    pthread_t thread;
    int ret;

    sigfillset(&blocked);
    for (size_t i = 0; i < ARRAY_SIZE(own); i++)
        sigdelset(&blocked, own[i]);
    pthread_attr_init(&attributes);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    pthread_sigmask(SIG_SETMASK, &blocked, &old);
    ret = pthread_create(&thread, &attributes, worker, pool);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    pthread_attr_destroy(&attributes);
    if (!ret)
        pthread_setname_np(thread, "block");
    return ret;
}

void aio_pool_submit(struct aio_pool *pool, struct block_io *io)
{
    bool alone = false;

    io->next = NULL;
    pthread_mutex_lock(&pool->lock);
    *pool->end = io;
    pool->end = &io->next;
    pool->queued++;
    if (pool->queued > pool->idle && pool->threads < MAX_THREADS) {
        pool->threads++;
        if (create_thread(pool)) {
            pool->threads--;
            alone = !pool->threads;
        }
    }
    if (alone) { /* not even one thread: slow is better than never */
        pool->first = NULL;
        pool->end = &pool->first;
        pool->queued = 0;
    } else {
        pthread_cond_signal(&pool->work);
    }
    pthread_mutex_unlock(&pool->lock);
    if (alone)
        block_io_finish(io, block_io_run(io));
}

struct aio_pool *aio_pool_create(void)
{
    struct aio_pool *pool = calloc(1, sizeof(*pool));
    pthread_condattr_t attributes;

    if (!pool)
        return NULL;
    pool->end = &pool->first;
    pthread_mutex_init(&pool->lock, NULL);
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&pool->work, &attributes);
    pthread_cond_init(&pool->gone, &attributes);
    pthread_condattr_destroy(&attributes);
    return pool;
}

void aio_pool_destroy(struct aio_pool *pool)
{
    if (!pool)
        return;
    pthread_mutex_lock(&pool->lock);
    pool->stopping = true;
    pthread_cond_broadcast(&pool->work);
    while (pool->threads)
        pthread_cond_wait(&pool->gone, &pool->lock);
    pthread_mutex_unlock(&pool->lock);
    pthread_cond_destroy(&pool->work);
    pthread_cond_destroy(&pool->gone);
    pthread_mutex_destroy(&pool->lock);
    free(pool);
}
