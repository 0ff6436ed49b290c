/* Where completions meet an event loop: one eventfd for the ring and the worker threads, a list of what is complete, and
 * a watch that delivers it. The loop's lock is held in block_context_run(); worker threads never take it, so whoever holds
 * it may wait for them (block_drain). */
#include "devices/block/block_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

static void signal_event(struct block_context *context)
{
    uint64_t one = 1;
    ssize_t ignored = write(context->event_fd, &one, sizeof(one));

    (void)ignored; /* a full counter is readable too */
}

void block_context_complete(struct block_context *context, struct block_request *request)
{
    bool first;

    request->next = NULL;
    pthread_mutex_lock(&context->lock);
    first = !context->completed;
    *context->completed_end = request;
    context->completed_end = &request->next;
    if (first) /* while the lock is held: after that, the context may go with its last request */
        signal_event(context);
    pthread_mutex_unlock(&context->lock);
}

/* What the ring has done goes to the list of the completed, or once more to a thread. */
static void reap_ring(struct block_context *context)
{
    for (;;) {
        struct block_io *io;

        pthread_mutex_lock(&context->lock);
        io = context->ring ? aio_ring_reap(context->ring) : NULL;
        pthread_mutex_unlock(&context->lock);
        if (!io)
            return;
        block_io_unmap(io);
        if (io->result == -EAGAIN)
            aio_pool_submit(context->registry->pool, io);
        else
            block_io_finish(io, io->result);
    }
}

static struct block_request *take_completed(struct block_context *context, const struct block *only)
{
    struct block_request **link, *request;

    pthread_mutex_lock(&context->lock);
    for (link = &context->completed; *link && only && (*link)->block != only; link = &(*link)->next)
        ;
    request = *link;
    if (request) {
        *link = request->next;
        if (!*link)
            context->completed_end = link;
    }
    pthread_mutex_unlock(&context->lock);
    return request;
}

void block_context_run(struct block_context *context, const struct block *only)
{
    struct block_request *request, *last;
    uint64_t count;
    ssize_t ignored = read(context->event_fd, &count, sizeof(count));

    (void)ignored;
    reap_ring(context);
    /* As far as the list goes now: done() may submit what completes at once, and others want the loop too. One by one,
     * since done() may drain. */
    pthread_mutex_lock(&context->lock);
    last = context->completed ? container_of(context->completed_end, struct block_request, next) : NULL;
    pthread_mutex_unlock(&context->lock);
    while (last && (request = take_completed(context, only))) {
        bool is_last = request == last;

        block_deliver(request->block, request);
        if (is_last)
            break;
    }
    pthread_mutex_lock(&context->lock);
    if (context->completed)
        signal_event(context);
    pthread_mutex_unlock(&context->lock);
}

static void event_ready(void *opaque, unsigned ready)
{
    (void)ready;
    block_context_run(opaque, NULL);
}

static void destroy(struct block_context *context)
{
    aio_ring_destroy(context->ring);
    if (context->event_fd >= 0)
        close(context->event_fd);
    pthread_mutex_destroy(&context->lock);
    free(context);
}

static struct block_context *create(struct block_registry *registry, struct event_loop *loop, struct error *err)
{
    struct block_context *context = calloc(1, sizeof(*context));

    if (!context) {
        error_set(err, ENOMEM, "out of memory");
        return NULL;
    }
    context->registry = registry;
    context->completed_end = &context->completed;
    pthread_mutex_init(&context->lock, NULL);
    context->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (context->event_fd < 0) {
        error_set(err, errno, "eventfd: %s", strerror(errno));
        destroy(context);
        return NULL;
    }
    context->ring = aio_ring_create(context->event_fd);
    event_loop_lock(loop);
    context->watch = fd_watch_add(loop, context->event_fd, FD_READABLE, event_ready, context, err);
    event_loop_unlock(loop);
    if (!context->watch) {
        destroy(context);
        return NULL;
    }
    context->loop = loop;
    context->next = registry->contexts;
    registry->contexts = context;
    return context;
}

struct block_context *block_context_get(struct block_registry *registry, struct event_loop *loop, struct error *err)
{
    struct block_context *context;

    for (context = registry->contexts; context && context->loop != loop; context = context->next)
        ;
    if (!context)
        context = create(registry, loop, err);
    if (context)
        context->users++;
    return context;
}

/* The loop may go after this. Its thread may still be in poll(), so the descriptor stays open until the registry goes. */
void block_context_put(struct block_context *context)
{
    struct event_loop *loop = context->loop;

    if (--context->users)
        return;
    event_loop_lock(loop);
    fd_watch_remove(context->watch);
    event_loop_unlock(loop);
    context->watch = NULL;
    context->loop = NULL;
}

void block_contexts_destroy(struct block_registry *registry)
{
    struct block_context *next;

    for (struct block_context *context = registry->contexts; context; context = next) {
        next = context->next;
        destroy(context);
    }
    registry->contexts = NULL;
}
