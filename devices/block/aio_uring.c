/* One io_uring for each event loop that drives are attached to. Only reads and writes go through it: what the kernel
 * would hand to a thread of its own anyway (fsync, fallocate) is as well off with ours.
 *
 * At most DEPTH requests are in the ring, so that completions always have a place; the rest waits here. A completion
 * that is not the whole transfer, or says that the ring cannot do it, becomes -EAGAIN: a worker thread repeats the request,
 * where short transfers, odd errors and the end of the file are dealt with once, in block_file.c.
 *
 * The context's lock is held in all but create and destroy. io_uring(7). */
#include <liburing.h> /* before <sys/mount.h> and its kin */

#include "devices/block/block_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/uio.h>
#include <unistd.h>

#define DEPTH 256

struct aio_ring {
    struct io_uring uring;
    int event_fd;
    unsigned in_flight;
    unsigned unsubmitted; /* entries that the kernel has not seen */
    struct block_io *pending, **pending_end;
};

static int init(struct io_uring *uring, unsigned entries)
{
    struct io_uring_params params = { .flags = IORING_SETUP_CLAMP };
    int ret = io_uring_queue_init_params(entries, uring, &params);

    if (ret)
        return ret;
    /* Without it, a buffered request would block submission. 5.6 and later have both. */
    if (!(params.features & IORING_FEAT_RW_CUR_POS) || !(params.features & IORING_FEAT_NODROP)) {
        io_uring_queue_exit(uring);
        return -ENOSYS;
    }
    io_uring_ring_dontfork(uring);
    return 0;
}

bool aio_ring_possible(void)
{
    struct io_uring uring;
    int ret = init(&uring, 1);

    if (ret) {
        errno = -ret;
        return false;
    }
    io_uring_queue_exit(&uring);
    return true;
}

struct aio_ring *aio_ring_create(int event_fd)
{
    struct aio_ring *ring = calloc(1, sizeof(*ring));
    int ret;

    if (!ring)
        return NULL;
    ring->pending_end = &ring->pending;
    ring->event_fd = event_fd;
    ret = init(&ring->uring, DEPTH);
    if (!ret) {
        ret = io_uring_register_eventfd(&ring->uring, event_fd);
        if (ret)
            io_uring_queue_exit(&ring->uring);
    }
    if (ret) {
        free(ring);
        errno = -ret;
        return NULL;
    }
    return ring;
}

void aio_ring_destroy(struct aio_ring *ring)
{
    if (!ring)
        return;
    io_uring_queue_exit(&ring->uring);
    free(ring);
}

/* What the kernel does not take now (no memory) stays in the ring and goes with the next submission or completion, or when
 * the loop comes round again. */
void aio_ring_flush(struct aio_ring *ring)
{
    while (ring->unsubmitted) {
        int ret = io_uring_submit(&ring->uring);

        if (ret == -EINTR)
            continue;
        if (ret <= 0) {
            uint64_t one = 1;
            ssize_t ignored = write(ring->event_fd, &one, sizeof(one));

            (void)ignored;
            return;
        }
        ring->unsubmitted -= MIN((unsigned)ret, ring->unsubmitted);
    }
}

static bool put(struct aio_ring *ring, struct block_io *io)
{
    const struct block_transfer *transfer = &io->transfer;
    struct io_uring_sqe *sqe;

    if (ring->in_flight == DEPTH)
        return false;
    sqe = io_uring_get_sqe(&ring->uring);
    if (!sqe)
        return false;
    if (transfer->op == BLOCK_READ)
        io_uring_prep_readv(sqe, io->extent.fd, transfer->iov, transfer->iov_count, io->extent.offset);
    else
        io_uring_prep_writev2(sqe, io->extent.fd, transfer->iov, transfer->iov_count, io->extent.offset,
                              transfer->flags & BLOCK_FUA ? RWF_DSYNC : 0);
    io_uring_sqe_set_data(sqe, io);
    ring->in_flight++;
    ring->unsubmitted++;
    return true;
}

void aio_ring_submit(struct aio_ring *ring, struct block_io *io, bool plugged)
{
    io->next = NULL;
    if (ring->pending || !put(ring, io)) {
        *ring->pending_end = io;
        ring->pending_end = &io->next;
        plugged = false;
    }
    if (!plugged)
        aio_ring_flush(ring);
}

static void put_pending(struct aio_ring *ring)
{
    while (ring->pending && put(ring, ring->pending)) {
        ring->pending = ring->pending->next;
        if (!ring->pending)
            ring->pending_end = &ring->pending;
    }
    aio_ring_flush(ring);
}

struct block_io *aio_ring_reap(struct aio_ring *ring)
{
    struct io_uring_cqe *cqe;
    struct block_io *io;

    if (io_uring_peek_cqe(&ring->uring, &cqe) || !cqe) {
        put_pending(ring);
        return NULL;
    }
    io = io_uring_cqe_get_data(cqe);
    /* Errors of the medium are final; all else is for block_file.c to judge. */
    if (cqe->res >= 0 && (uint64_t)cqe->res == io->transfer.size)
        io->result = 0;
    else if (cqe->res == -EIO)
        io->result = -EIO;
    else
        io->result = -EAGAIN;
    io_uring_cqe_seen(&ring->uring, cqe);
    ring->in_flight--;
    return io;
}
