/* Requests: checked, kept apart where they must be, sent to the ring or the worker threads, delivered on the loop.
 *
 *   block_submit ── start ──┬── launch ──> ring or worker thread ── block_io_finish ──> block_context_complete
 *                           └── waits for what overlaps ──^   (waiting ones start)            │ loop
 *                                                                        block_deliver <──────┘
 *
 * Invariants: done() is called once for each request, by the loop (or a drain), never by block_submit(). No lock is held
 * while done() runs but the loop's. A block's lock and a context's are never held together.
 *
 * Threads: submission any; worker threads and the ring's owner finish; delivery is the loop's. */
#include "devices/block/block_internal.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"

/* ---- What must not overlap ---- */

static bool overlaps(const struct block_io *a, const struct block_io *b)
{
    return (a->serialising || b->serialising) && a->first < b->end && b->first < a->end;
}

/* Block's lock held. `end`: the waiting ones before it are older. */
static bool must_wait(const struct block *block, const struct block_io *io, const struct block_io *end)
{
    for (const struct block_io *other = block->running; other; other = other->running_next) {
        if (overlaps(io, other))
            return true;
    }
    for (const struct block_io *other = block->waiting; other != end; other = other->next) {
        if (overlaps(io, other))
            return true;
    }
    return false;
}

static void add_running(struct block *block, struct block_io *io)
{
    io->running_next = block->running;
    io->running_link = &block->running;
    if (block->running)
        block->running->running_link = &io->running_next;
    block->running = io;
}

/* Moves the waiting ones that may start into a list of their own. Block's lock held. */
static struct block_io *take_startable(struct block *block)
{
    struct block_io *first = NULL, **end = &first, **link = &block->waiting;

    while (*link) {
        struct block_io *io = *link;

        if (must_wait(block, io, io)) {
            link = &io->next;
            continue;
        }
        *link = io->next;
        io->next = NULL;
        *end = io;
        end = &io->next;
        add_running(block, io);
    }
    block->waiting_end = link;
    return first;
}

/* ---- Start ---- */

void block_io_unmap(struct block_io *io)
{
    struct block_node *pinned = io->extent.pinned;

    io->extent.pinned = NULL;
    if (pinned)
        pinned->driver->unmap(pinned, &io->extent);
}

static bool suits(const struct block_transfer *transfer, const struct block_extent *extent)
{
    uint64_t mask = extent->alignment - 1;

    if ((extent->offset | transfer->size) & mask)
        return false;
    for (unsigned i = 0; mask && i < transfer->iov_count; i++) {
        if (((uintptr_t)transfer->iov[i].iov_base | transfer->iov[i].iov_len) & mask)
            return false;
    }
    return true;
}

static bool ring_can_do(struct block_io *io)
{
    const struct block_transfer *transfer = &io->transfer;
    struct block_node *root = io->block->root;

    if (io->finished || (transfer->op != BLOCK_READ && transfer->op != BLOCK_WRITE) || transfer->iov_count > IOV_MAX ||
        transfer->size > INT_MAX || !root->driver->map || !root->driver->map(root, transfer, &io->extent))
        return false;
    if (suits(transfer, &io->extent))
        return true;
    block_io_unmap(io);
    return false;
}

static void launch(struct block_io *io)
{
    struct block_context *context = io->block->context;

    if (context->ring && ring_can_do(io)) {
        pthread_mutex_lock(&context->lock);
        aio_ring_submit(context->ring, io, io->block->plugged > 0);
        pthread_mutex_unlock(&context->lock);
        return;
    }
    aio_pool_submit(context->registry->pool, io);
}

/* Runs at once, or when what it must not meet is over. */
static void start(struct block_io *io)
{
    struct block *block = io->block;
    struct block_node *root = block->root;
    uint64_t granularity = root->granularity;
    bool wait;

    if (!granularity || !io->transfer.size) {
        launch(io);
        return;
    }
    io->tracked = true;
    io->first = ALIGN_DOWN(io->transfer.offset, granularity);
    io->end = ALIGN_UP(io->transfer.offset + io->transfer.size, granularity);
    io->serialising = root->driver->serialises && root->driver->serialises(root, &io->transfer);
    pthread_mutex_lock(&block->lock);
    wait = must_wait(block, io, NULL);
    if (wait) {
        *block->waiting_end = io;
        block->waiting_end = &io->next;
    } else {
        add_running(block, io);
    }
    pthread_mutex_unlock(&block->lock);
    if (!wait)
        launch(io);
}

/* ---- Writes in special circumstances ---- */

static bool iov_is_zero(const struct block_transfer *transfer)
{
    for (unsigned i = 0; i < transfer->iov_count; i++) {
        const uint8_t *bytes = transfer->iov[i].iov_base;
        size_t length = transfer->iov[i].iov_len;

        if (length && (bytes[0] || memcmp(bytes, bytes + 1, length - 1)))
            return false;
    }
    return true;
}

/* An image whose format was guessed to be raw must not get another format's header from the guest, which would then be
 * obeyed the next time (backing files may name any file of the host). A copy is checked and written, since the guest may
 * change its memory meanwhile. */
static int check_first_sector(struct block_io *io)
{
    struct block_transfer *transfer = &io->transfer;
    struct block_slice rest;
    const char *format;

    io->first_sector = aligned_alloc(PAGE_SIZE, PAGE_SIZE);
    if (!io->first_sector)
        return -ENOMEM;
    block_iov_copy_from(transfer->iov, transfer->iov_count, 0, io->first_sector, SECTOR_SIZE);
    format = block_probe(io->first_sector, SECTOR_SIZE);
    if (strcmp(format, "raw")) {
        log_warn("drive '%s': the guest's write of a %s header to block 0 was refused: the format of %s was guessed. "
                 "Say format=raw to allow it",
                 io->block->id, format, io->block->root->filename);
        return -EPERM;
    }
    if (block_slice_init(&rest, transfer->iov, transfer->iov_count, SECTOR_SIZE, transfer->size - SECTOR_SIZE))
        return -ENOMEM;
    io->own_iov = calloc(rest.count + 1, sizeof(*io->own_iov));
    if (io->own_iov) {
        io->own_iov[0] = (struct iovec){ .iov_base = io->first_sector, .iov_len = SECTOR_SIZE };
        memcpy(io->own_iov + 1, rest.iov, rest.count * sizeof(*rest.iov));
        transfer->iov = io->own_iov;
        transfer->iov_count = rest.count + 1;
    }
    block_slice_free(&rest);
    return io->own_iov ? 0 : -ENOMEM;
}

static int prepare_write(struct block_io *io)
{
    struct block *block = io->block;
    struct block_transfer *transfer = &io->transfer;

    if (block->flags.detect_zeroes != BLOCK_DETECT_OFF && transfer->size && iov_is_zero(transfer)) {
        transfer->op = BLOCK_WRITE_ZEROES;
        if (block->flags.detect_zeroes == BLOCK_DETECT_UNMAP)
            transfer->flags |= BLOCK_MAY_UNMAP;
        return 0;
    }
    if (block->probed_raw && !transfer->offset && transfer->size)
        return check_first_sector(io);
    return 0;
}

/* ---- Submission ---- */

static bool iov_has(const struct block_transfer *transfer)
{
    uint64_t size = 0;

    for (unsigned i = 0; i < transfer->iov_count; i++) {
        if (__builtin_add_overflow(size, transfer->iov[i].iov_len, &size))
            return false;
    }
    return size == transfer->size;
}

static int check(const struct block *block, const struct block_transfer *transfer)
{
    if (!block->root)
        return -ENOMEDIUM;
    if (transfer->op > BLOCK_WRITE_ZEROES)
        return -EINVAL;
    if (transfer->op != BLOCK_READ && transfer->op != BLOCK_FLUSH && block->info.read_only)
        return -EROFS;
    if (transfer->op == BLOCK_FLUSH)
        return 0;
    if ((transfer->offset | transfer->size) & (SECTOR_SIZE - 1))
        return -EINVAL;
    if (transfer->offset > block->info.size || transfer->size > block->info.size - transfer->offset)
        return -EIO;
    if ((transfer->op == BLOCK_READ || transfer->op == BLOCK_WRITE) && !iov_has(transfer))
        return -EINVAL;
    return 0;
}

/* 0: go on. 1: nothing is to be done. -errno: it cannot. */
static int prepare(struct block_io *io)
{
    struct block *block = io->block;
    struct block_transfer *transfer = &io->transfer;
    int ret = check(block, transfer);

    if (ret)
        return ret;
    switch (transfer->op) {
    case BLOCK_FLUSH:
        transfer->offset = transfer->size = 0;
        return block->flags.no_flush || block->info.read_only;
    case BLOCK_DISCARD:
        return !transfer->size || !block->flags.unmap;
    case BLOCK_WRITE:
    case BLOCK_WRITE_ZEROES:
        if (!transfer->size)
            return 1;
        if (!__atomic_load_n(&block->info.write_cache, __ATOMIC_RELAXED))
            transfer->flags |= BLOCK_FUA;
        if (block->flags.no_flush)
            transfer->flags &= ~(unsigned)BLOCK_FUA;
        if (!block->flags.unmap)
            transfer->flags &= ~(unsigned)BLOCK_MAY_UNMAP;
        return transfer->op == BLOCK_WRITE ? prepare_write(io) : 0;
    case BLOCK_READ:
        return !transfer->size;
    }
    return -EINVAL;
}

static void free_io(struct block_io *io)
{
    free(io->own_iov);
    free(io->first_sector);
    free(io);
}

static struct block_io *make_io(struct block *block, struct block_request *request)
{
    struct block_io *io = calloc(1, sizeof(*io));

    if (!io)
        return NULL;
    io->block = block;
    io->request = request;
    io->transfer = (struct block_transfer){
        .op = request->op,
        .flags = request->flags,
        .offset = request->offset,
        .size = request->size,
        .iov = request->iov,
        .iov_count = request->iov_count,
    };
    return io;
}

/* Again: a request that had failed and stopped the machine. */
static void submit(struct block *block, struct block_request *request)
{
    struct block_io *io = make_io(block, request);
    int ret = io ? prepare(io) : -ENOMEM;

    if (!ret) {
        start(io);
        return;
    }
    request->result = ret < 0 ? ret : 0;
    if (io)
        free_io(io);
    block_context_complete(block->context, request);
}

void block_submit(struct block *block, struct block_request *request)
{
    request->block = block;
    request->started_ns = clock_host_ns();
    pthread_mutex_lock(&block->lock);
    block->under_way++;
    pthread_mutex_unlock(&block->lock);
    submit(block, request);
}

void block_plug(struct block *block)
{
    pthread_mutex_lock(&block->context->lock);
    block->plugged++;
    pthread_mutex_unlock(&block->context->lock);
}

void block_unplug(struct block *block)
{
    struct block_context *context = block->context;

    pthread_mutex_lock(&context->lock);
    if (!--block->plugged && context->ring)
        aio_ring_flush(context->ring);
    pthread_mutex_unlock(&context->lock);
}

/* ---- Completion ---- */

int block_io_run(struct block_io *io)
{
    return block_node_run(io->block->root, &io->transfer);
}

void block_io_finish(struct block_io *io, int result)
{
    struct block *block = io->block;
    struct block_io *startable = NULL, *next;

    io->result = result;
    if (io->tracked) {
        pthread_mutex_lock(&block->lock);
        *io->running_link = io->running_next;
        if (io->running_next)
            io->running_next->running_link = io->running_link;
        if (block->waiting)
            startable = take_startable(block);
        pthread_mutex_unlock(&block->lock);
    }
    for (; startable; startable = next) {
        next = startable->next;
        startable->next = NULL;
        launch(startable);
    }
    if (io->finished) {
        io->finished(io, io->finished_opaque);
        return;
    }
    io->request->result = result;
    block_context_complete(block->context, io->request);
    free_io(io);
}

static const char *operation_name(enum block_op op)
{
    static const char *const names[] = { "reading", "writing", "flushing", "discarding", "zeroing" };

    return names[op];
}

static enum block_on_error error_policy(const struct block *block, const struct block_request *request)
{
    enum block_on_error policy = request->op == BLOCK_READ ? block->info.on_read_error : block->info.on_write_error;

    /* What the guest got wrong is not the host's trouble. */
    if (request->result == -EINVAL || request->result == -EROFS || request->result == -ENOMEDIUM ||
        request->result == -EPERM)
        return BLOCK_ERROR_REPORT;
    if (policy == BLOCK_ERROR_ENOSPC)
        policy = request->result == -ENOSPC ? BLOCK_ERROR_STOP : BLOCK_ERROR_REPORT;
    if (policy == BLOCK_ERROR_STOP && !block->registry->stop)
        policy = BLOCK_ERROR_REPORT;
    return policy;
}

static void stop_machine(struct block *block, struct block_request *request)
{
    struct block_registry *registry = block->registry;
    char reason[512];

    request->next = NULL;
    pthread_mutex_lock(&block->lock);
    *block->stopped_end = request;
    block->stopped_end = &request->next;
    pthread_mutex_unlock(&block->lock);
    snprintf(reason, sizeof(reason), "drive '%s': %s %s: %s", block->id, operation_name(request->op),
             block->root ? block->root->filename : "", strerror(-request->result));
    registry->stop(registry->stop_opaque, reason);
}

static void call_done(struct block *block, struct block_request *request)
{
    pthread_mutex_lock(&block->lock);
    block->under_way--;
    pthread_mutex_unlock(&block->lock);
    request->done(request); /* may free it, and release the drive */
}

void block_deliver(struct block *block, struct block_request *request)
{
    if (request->result < 0) {
        switch (error_policy(block, request)) {
        case BLOCK_ERROR_STOP:
            stop_machine(block, request);
            return;
        case BLOCK_ERROR_IGNORE:
            request->result = 0;
            break;
        default:
            break;
        }
        if (request->result < 0)
            log_event(device, "drive '%s': %s %llu bytes at %llu: %s\n", block->id, operation_name(request->op),
                      (unsigned long long)request->size, (unsigned long long)request->offset,
                      strerror(-request->result));
    }
    call_done(block, request);
}

static struct block_request *take_stopped(struct block *block)
{
    struct block_request *first;

    pthread_mutex_lock(&block->lock);
    first = block->stopped;
    block->stopped = NULL;
    block->stopped_end = &block->stopped;
    pthread_mutex_unlock(&block->lock);
    return first;
}

void block_registry_resume(struct block_registry *registry)
{
    for (struct block *block = registry->blocks; block; block = block->next) {
        struct block_request *next;

        for (struct block_request *request = take_stopped(block); request; request = next) {
            next = request->next;
            submit(block, request);
        }
    }
}

static bool idle(struct block *block)
{
    unsigned under_way;

    pthread_mutex_lock(&block->lock);
    under_way = block->under_way;
    pthread_mutex_unlock(&block->lock);
    return !under_way;
}

void block_drain(struct block *block)
{
    struct block_context *context = block->context;
    struct pollfd poll_fd = { .fd = context->event_fd, .events = POLLIN };

    for (;;) {
        struct block_request *next;

        block_context_run(context, block); /* sends what waits in a batch, too */
        for (struct block_request *request = take_stopped(block); request; request = next) {
            next = request->next;
            call_done(block, request);
        }
        if (idle(block))
            return;
        /* The time limit: another thread may have read the event that was for us. */
        poll(&poll_fd, 1, 10);
    }
}

/* ---- Without a loop ---- */

struct execution {
    pthread_mutex_t lock;
    pthread_cond_t cond;
    bool finished;
};

static void execution_finished(struct block_io *io, void *opaque)
{
    struct execution *execution = opaque;

    (void)io;
    pthread_mutex_lock(&execution->lock);
    execution->finished = true;
    pthread_cond_signal(&execution->cond);
    pthread_mutex_unlock(&execution->lock);
}

int block_execute(struct block *block, enum block_op op, uint64_t offset, void *buffer, uint64_t size, unsigned flags)
{
    struct execution execution = { .lock = PTHREAD_MUTEX_INITIALIZER, .cond = PTHREAD_COND_INITIALIZER };
    struct iovec iov = { .iov_base = buffer, .iov_len = size };
    struct block_request request = {
        .op = op, .flags = flags, .offset = offset, .size = size, .iov = &iov, .iov_count = 1
    };
    struct block_io *io = make_io(block, &request);
    int ret;

    if (!io)
        return -ENOMEM;
    io->finished = execution_finished;
    io->finished_opaque = &execution;
    ret = prepare(io);
    if (!ret) {
        start(io);
        pthread_mutex_lock(&execution.lock);
        while (!execution.finished)
            pthread_cond_wait(&execution.cond, &execution.lock);
        pthread_mutex_unlock(&execution.lock);
        ret = io->result;
    }
    free_io(io);
    return ret < 0 ? ret : 0;
}
