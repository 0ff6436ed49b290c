/* The event loop of the main thread: libuv underneath, with the device lock around every callback.
 *
 * Threads: event_loop_post, event_loop_stop and the lock functions may be called from any thread; timers (timer.c)
 * and fd watches from any thread that holds the device lock; the rest on the loop's thread. libuv's handles are touched on
 * the loop's thread only (they are not thread-safe, and the loop polls without the lock): a watch is a wish,
 * recorded under the lock, which the loop's thread makes true.
 *
 * The lock is held while a callback runs and free while the loop polls, so vCPUs get at the devices. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "base/event_loop_internal.h"
#include "base/log.h"

struct post {
    struct post *next;
    void (*fn)(void *opaque);
    void *opaque;
};

struct fd_watch {
    struct event_loop *loop;
    struct fd_watch *next, **link; /* in loop->watches */
    /* poll, or idle for what epoll refuses (regular files, /dev/null): those are always ready. */
    union {
        uv_handle_t handle;
        uv_poll_t poll;
        uv_idle_t idle;
    } u;
    int fd;
    bool always_ready;
    bool initialized; /* u is a handle of the loop */
    bool queued;      /* watch_posted() is on its way */
    bool removed;
    unsigned events;
    void (*fn)(void *opaque, unsigned ready);
    void *opaque;
};

struct signal_watch {
    uv_signal_t handle; /* first: freed through it */
    struct event_loop *loop;
    void (*fn)(void *opaque, int signum);
    void *opaque;
};

static void free_signal_watch(uv_handle_t *handle)
{
    free(handle->data);
}

static void free_watch(struct fd_watch *watch)
{
    *watch->link = watch->next;
    if (watch->next)
        watch->next->link = watch->link;
    free(watch);
}

static void free_closed_watch(uv_handle_t *handle)
{
    free_watch(handle->data);
}

static bool on_loop_thread(const struct event_loop *loop)
{
    return pthread_equal(pthread_self(), loop->thread);
}

/* ---- Posts and stop ---- */

static void run_posts(uv_async_t *async)
{
    struct event_loop *loop = async->data;
    struct post *post, *next;

    pthread_mutex_lock(&loop->post_lock);
    post = loop->post_first;
    loop->post_first = NULL;
    loop->post_last = &loop->post_first;
    pthread_mutex_unlock(&loop->post_lock);

    event_loop_lock(loop);
    for (; post; post = next) {
        next = post->next;
        post->fn(post->opaque);
        free(post);
    }
    event_loop_unlock(loop);
    if (atomic_load_explicit(&loop->stop_requested, memory_order_acquire)) /* pairs with event_loop_stop */
        uv_stop(&loop->uv);
}

void event_loop_post(struct event_loop *loop, void (*fn)(void *opaque), void *opaque)
{
    struct post *post = malloc(sizeof(*post));

    if (!post)
        abort(); /* losing a post would hang the guest without a word */
    *post = (struct post){ .fn = fn, .opaque = opaque };
    pthread_mutex_lock(&loop->post_lock);
    *loop->post_last = post;
    loop->post_last = &post->next;
    pthread_mutex_unlock(&loop->post_lock);
    uv_async_send(&loop->async);
}

void event_loop_stop(struct event_loop *loop)
{
    atomic_store_explicit(&loop->stop_requested, true, memory_order_release); /* pairs with run_posts */
    uv_async_send(&loop->async);
}

/* ---- Life ---- */

static int init_lock(pthread_mutex_t *lock)
{
    pthread_mutexattr_t attr;
    int ret = pthread_mutexattr_init(&attr);

    if (ret)
        return ret;
    pthread_mutexattr_settype(&attr, PTHREAD_MUTEX_RECURSIVE);
    ret = pthread_mutex_init(lock, &attr);
    pthread_mutexattr_destroy(&attr);
    return ret;
}

struct event_loop *event_loop_create(struct clock *clock, struct error *err)
{
    struct event_loop *loop = calloc(1, sizeof(*loop));
    int ret;

    if (!loop) {
        error_set(err, ENOMEM, "no memory for the event loop");
        return NULL;
    }
    loop->clock = clock;
    loop->thread = pthread_self();
    loop->post_last = &loop->post_first;
    pthread_mutex_init(&loop->post_lock, NULL);
    init_lock(&loop->lock);
    ret = uv_loop_init(&loop->uv);
    if (ret) {
        error_set(err, -ret, "event loop: %s", uv_strerror(ret));
        goto free_loop;
    }
    ret = uv_async_init(&loop->uv, &loop->async, run_posts);
    if (ret) {
        error_set(err, -ret, "event loop: %s", uv_strerror(ret));
        goto close_uv;
    }
    loop->async.data = loop;
    if (timer_heap_init(&loop->timers, err))
        goto close_async;
    loop->timer_watch = fd_watch_add(loop, loop->timers.fd, FD_READABLE, timer_heap_expired, loop, err);
    if (!loop->timer_watch)
        goto close_timers;
    return loop;

close_timers:
    timer_heap_destroy(&loop->timers);
close_async:
    uv_close((uv_handle_t *)&loop->async, NULL);
    uv_run(&loop->uv, UV_RUN_NOWAIT);
close_uv:
    uv_loop_close(&loop->uv);
free_loop:
    pthread_mutex_destroy(&loop->lock);
    pthread_mutex_destroy(&loop->post_lock);
    free(loop);
    return NULL;
}

static void close_handle(uv_handle_t *handle, void *arg)
{
    (void)arg;
    if (!uv_is_closing(handle))
        uv_close(handle, handle->type == UV_SIGNAL  ? free_signal_watch
                         : handle->type == UV_ASYNC ? NULL
                                                    : free_closed_watch);
}

void event_loop_destroy(struct event_loop *loop)
{
    struct post *next;

    if (!loop)
        return;
    uv_walk(&loop->uv, close_handle, NULL);
    uv_run(&loop->uv, UV_RUN_DEFAULT);
    uv_loop_close(&loop->uv);
    while (loop->watches) /* wishes that were never granted */
        free_watch(loop->watches);
    timer_heap_destroy(&loop->timers);
    for (struct post *post = loop->post_first; post; post = next) {
        next = post->next;
        free(post);
    }
    pthread_mutex_destroy(&loop->lock);
    pthread_mutex_destroy(&loop->post_lock);
    free(loop);
}

int event_loop_run(struct event_loop *loop)
{
    loop->thread = pthread_self();
    /* uv_stop from another thread's request may come before we run: look first. */
    while (!atomic_load_explicit(&loop->stop_requested, memory_order_acquire))
        uv_run(&loop->uv, UV_RUN_DEFAULT);
    atomic_store_explicit(&loop->stop_requested, false, memory_order_relaxed);
    return 0;
}

struct clock *event_loop_clock(struct event_loop *loop)
{
    return loop->clock;
}

void event_loop_lock(struct event_loop *loop)
{
    pthread_mutex_lock(&loop->lock);
}

void event_loop_unlock(struct event_loop *loop)
{
    pthread_mutex_unlock(&loop->lock);
}

pthread_mutex_t *event_loop_mutex(struct event_loop *loop)
{
    return &loop->lock;
}

/* ---- File descriptors ---- */

static void watch_ready(struct fd_watch *watch, unsigned ready)
{
    struct event_loop *loop = watch->loop;

    event_loop_lock(loop);
    if (!watch->removed && (ready & watch->events))
        watch->fn(watch->opaque, ready & watch->events);
    event_loop_unlock(loop);
}

static int start_watch(struct fd_watch *watch);

static void poll_ready(uv_poll_t *poll, int status, int events)
{
    struct fd_watch *watch = poll->data;
    unsigned ready = 0;

    if (status < 0) {
        ready = watch->events; /* error or hang-up: the reader's read() tells it which */
    } else {
        if (events & (UV_READABLE | UV_DISCONNECT))
            ready |= FD_READABLE;
        if (events & UV_WRITABLE)
            ready |= FD_WRITABLE;
    }
    watch_ready(watch, ready);
    /* libuv has stopped the handle; but there may be data to read in front of the error. */
    if (status < 0) {
        event_loop_lock(watch->loop);
        if (!watch->removed)
            start_watch(watch);
        event_loop_unlock(watch->loop);
    }
}

static void idle_ready(uv_idle_t *idle)
{
    struct fd_watch *watch = idle->data;

    watch_ready(watch, watch->events);
}

/* epoll takes pipes, sockets, terminals, event and timer fds, and refuses the rest with EPERM. */
static bool can_poll(int fd)
{
    struct epoll_event event = { .events = EPOLLIN };
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    bool refused;

    if (epoll < 0)
        return true;
    refused = epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) && errno == EPERM;
    close(epoll);
    return !refused;
}

static int start_watch(struct fd_watch *watch)
{
    int events = 0;

    if (watch->always_ready)
        return watch->events ? uv_idle_start(&watch->u.idle, idle_ready) : uv_idle_stop(&watch->u.idle);
    if (watch->events & FD_READABLE)
        events |= UV_READABLE;
    if (watch->events & FD_WRITABLE)
        events |= UV_WRITABLE;
    return events ? uv_poll_start(&watch->u.poll, events, poll_ready) : uv_poll_stop(&watch->u.poll);
}

/* Loop's thread: makes the handle what the watch wishes. May free the watch. */
static int apply_watch(struct fd_watch *watch)
{
    uv_loop_t *uv = &watch->loop->uv;
    int ret;

    if (watch->removed) {
        if (watch->initialized)
            uv_close(&watch->u.handle, free_closed_watch);
        else
            free_watch(watch);
        return 0;
    }
    if (!watch->initialized) {
        ret = watch->always_ready ? uv_idle_init(uv, &watch->u.idle) : uv_poll_init(uv, &watch->u.poll, watch->fd);
        if (ret)
            return ret;
        watch->u.handle.data = watch;
        watch->initialized = true;
    }
    return start_watch(watch);
}

static void watch_posted(void *opaque)
{
    struct fd_watch *watch = opaque;
    bool removed = watch->removed;
    int fd = watch->fd, ret;

    watch->queued = false;
    ret = apply_watch(watch);
    if (ret && !removed)
        log_warn("cannot watch file descriptor %d: %s", fd, uv_strerror(ret));
}

static int update_watch(struct fd_watch *watch)
{
    if (watch->queued)
        return 0; /* what is on its way will see the new wish */
    if (on_loop_thread(watch->loop))
        return apply_watch(watch);
    watch->queued = true;
    event_loop_post(watch->loop, watch_posted, watch);
    return 0;
}

struct fd_watch *fd_watch_add(struct event_loop *loop, int fd, unsigned events,
                              void (*fn)(void *opaque, unsigned ready), void *opaque, struct error *err)
{
    struct fd_watch *watch = calloc(1, sizeof(*watch));
    int ret;

    if (!watch) {
        error_set(err, ENOMEM, "no memory to watch a file descriptor");
        return NULL;
    }
    *watch = (struct fd_watch){
        .loop = loop,
        .next = loop->watches,
        .link = &loop->watches,
        .fd = fd,
        .events = events,
        .fn = fn,
        .opaque = opaque,
    };
    if (loop->watches)
        loop->watches->link = &watch->next;
    loop->watches = watch;
    if (fcntl(fd, F_GETFD) < 0) {
        ret = -errno;
    } else {
        watch->always_ready = !can_poll(fd);
        ret = update_watch(watch);
    }
    if (ret) {
        error_set(err, -ret, "cannot watch file descriptor %d: %s", fd, uv_strerror(ret));
        fd_watch_remove(watch);
        return NULL;
    }
    return watch;
}

void fd_watch_change(struct fd_watch *watch, unsigned events)
{
    if (watch->events == events)
        return;
    watch->events = events;
    update_watch(watch);
}

void fd_watch_remove(struct fd_watch *watch)
{
    if (!watch || watch->removed)
        return;
    watch->removed = true;
    update_watch(watch);
}

/* ---- Signals ---- */

static void signal_arrived(uv_signal_t *handle, int signum)
{
    struct signal_watch *watch = handle->data;

    event_loop_lock(watch->loop);
    watch->fn(watch->opaque, signum);
    event_loop_unlock(watch->loop);
}

int event_loop_on_signal(struct event_loop *loop, int signum, void (*fn)(void *opaque, int signum), void *opaque,
                         struct error *err)
{
    struct signal_watch *watch = calloc(1, sizeof(*watch));
    int ret;

    if (!watch)
        return error_set(err, ENOMEM, "no memory to watch a signal");
    watch->loop = loop;
    watch->fn = fn;
    watch->opaque = opaque;
    ret = uv_signal_init(&loop->uv, &watch->handle);
    if (ret) {
        free(watch);
        return error_set(err, -ret, "signal %d: %s", signum, uv_strerror(ret));
    }
    watch->handle.data = watch;
    ret = uv_signal_start(&watch->handle, signal_arrived, signum);
    if (ret) {
        uv_close((uv_handle_t *)&watch->handle, free_signal_watch);
        return error_set(err, -ret, "signal %d: %s", signum, uv_strerror(ret));
    }
    return 0;
}
