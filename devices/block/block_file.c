/* Files and block devices of the host: reading, writing, holes. Opening them is block_file_open.c's.
 *
 * Without a cache (cache.direct=on, O_DIRECT) addresses and sizes must be multiples of `alignment`. What lies in the wrong
 * place in memory goes through a bounce buffer. What is not a multiple on disk (512-byte sectors on a disk of 4096) goes
 * through the page cache, by a descriptor of its own, and to the disk at once; the core keeps what overlaps in the
 * same 4096 bytes away meanwhile (granularity, serialises), or direct writes would be overtaken by a stale page.
 *
 * Reads beyond the end of the file are zeroes: an image may have been cut short, or end inside a sector.
 * Any thread, any number at once. */
#include "devices/block/block_file.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#define BOUNCE_SIZE (1 * MIB)

static const uint8_t zeroes[64 * KIB] __attribute__((aligned(4096)));

/* No place for what is written: one error for the host's several. */
static int write_error(int error)
{
    return error == EDQUOT || error == EFBIG ? -ENOSPC : -error;
}

/* ---- Plain transfers: the whole of a list, whatever the kernel takes at once ---- */

static ssize_t transfer_once(int fd, const struct iovec *iov, unsigned count, off_t offset, bool write, bool *fua)
{
    int entries = (int)MIN(count, (unsigned)IOV_MAX);
    ssize_t ret;

    do {
        if (write)
            ret = pwritev2(fd, iov, entries, offset, *fua ? RWF_DSYNC : 0);
        else
            ret = preadv(fd, iov, entries, offset);
    } while (ret < 0 && errno == EINTR);
    if (ret < 0 && *fua && (errno == EOPNOTSUPP || errno == ENOSYS)) {
        *fua = false; /* the caller syncs */
        return transfer_once(fd, iov, count, offset, write, fua);
    }
    return ret;
}

static int transfer_all(int fd, const struct block_transfer *transfer, bool write)
{
    bool fua = write && transfer->flags & BLOCK_FUA, want_sync = fua;
    uint64_t done = 0;

    while (done < transfer->size) {
        struct block_slice rest;
        ssize_t count;

        if (block_slice_init(&rest, transfer->iov, transfer->iov_count, done, transfer->size - done))
            return -ENOMEM;
        count = transfer_once(fd, rest.iov, rest.count, (off_t)(transfer->offset + done), write, &fua);
        if (count < 0)
            count = write ? write_error(errno) : -errno;
        block_slice_free(&rest);
        if (count < 0)
            return (int)count;
        if (!count) {
            if (write)
                return -EIO;
            block_iov_zero(transfer->iov, transfer->iov_count, done, transfer->size - done);
            return 0;
        }
        done += (uint64_t)count;
    }
    if (want_sync && !fua && fdatasync(fd))
        return -errno;
    return 0;
}

/* ---- O_DIRECT ---- */

static bool memory_is_aligned(const struct block_transfer *transfer, uint32_t alignment)
{
    for (unsigned i = 0; i < transfer->iov_count; i++) {
        if (((uintptr_t)transfer->iov[i].iov_base | transfer->iov[i].iov_len) & (alignment - 1))
            return false;
    }
    return true;
}

static int transfer_bounced(int fd, const struct block_transfer *transfer, bool write)
{
    uint64_t room = MIN(transfer->size, BOUNCE_SIZE);
    void *buffer = aligned_alloc(PAGE_SIZE, ALIGN_UP(room, PAGE_SIZE));
    int ret = buffer ? 0 : -ENOMEM;

    for (uint64_t done = 0, size; !ret && done < transfer->size; done += size) {
        struct iovec iov = { .iov_base = buffer };
        struct block_transfer part = *transfer;

        size = iov.iov_len = part.size = MIN(transfer->size - done, room);
        part.offset = transfer->offset + done;
        part.iov = &iov;
        part.iov_count = 1;
        if (write)
            block_iov_copy_from(transfer->iov, transfer->iov_count, done, buffer, size);
        ret = transfer_all(fd, &part, write);
        if (!ret && !write)
            block_iov_copy_to(transfer->iov, transfer->iov_count, done, buffer, size);
    }
    free(buffer);
    return ret;
}

static bool misplaced(const struct file_node *file, const struct block_transfer *transfer)
{
    return (transfer->offset | transfer->size) & (file->alignment - 1);
}

static int transfer(struct file_node *file, const struct block_transfer *transfer, bool write)
{
    if (misplaced(file, transfer)) {
        int ret = transfer_all(file->buffered_fd, transfer, write);

        return !ret && write && fdatasync(file->buffered_fd) ? -errno : ret;
    }
    if (!memory_is_aligned(transfer, file->alignment))
        return transfer_bounced(file->fd, transfer, write);
    return transfer_all(file->fd, transfer, write);
}

/* ---- Holes, zeroes, flushes ---- */

static int punch(struct file_node *file, uint64_t offset, uint64_t size)
{
    int ret;

    do {
        ret = fallocate(file->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)offset, (off_t)size);
    } while (ret && errno == EINTR);
    return ret ? -errno : 0;
}

static bool not_offered(int ret)
{
    return ret == -EOPNOTSUPP || ret == -ENOSYS || ret == -EINVAL || ret == -ENODEV || ret == -ENOTTY;
}

/* Discarding is a hint: a host that cannot leaves the data. */
static int discard(struct file_node *file, const struct block_transfer *transfer)
{
    int ret;

    if (!file->node.can_discard)
        return 0;
    if (file->is_device) {
        uint64_t range[2] = { transfer->offset, transfer->size };

        ret = ioctl(file->fd, BLKDISCARD, range) ? -errno : 0;
    } else {
        ret = punch(file, transfer->offset, transfer->size);
    }
    return not_offered(ret) ? 0 : ret;
}

static int write_zeroes_in_full(struct file_node *file, const struct block_transfer *transfer_in)
{
    struct iovec iov[16];
    int ret = 0;

    for (uint64_t done = 0; !ret && done < transfer_in->size;) {
        struct block_transfer part = { .op = BLOCK_WRITE, .offset = transfer_in->offset + done, .iov = iov };

        while (part.iov_count < ARRAY_SIZE(iov) && done + part.size < transfer_in->size) {
            size_t length = MIN(transfer_in->size - done - part.size, sizeof(zeroes));

            iov[part.iov_count++] = (struct iovec){ .iov_base = (void *)zeroes, .iov_len = length };
            part.size += length;
        }
        ret = transfer(file, &part, true);
        done += part.size;
    }
    return ret;
}

static int write_zeroes(struct file_node *file, const struct block_transfer *transfer)
{
    off_t offset = (off_t)transfer->offset, size = (off_t)transfer->size;
    int ret = -EOPNOTSUPP;

    if (transfer->flags & BLOCK_MAY_UNMAP && atomic_load_explicit(&file->can_punch, memory_order_relaxed)) {
        ret = punch(file, transfer->offset, transfer->size);
        if (not_offered(ret))
            atomic_store_explicit(&file->can_punch, false, memory_order_relaxed);
    }
    if (not_offered(ret) && atomic_load_explicit(&file->can_zero, memory_order_relaxed)) {
        do {
            ret = fallocate(file->fd, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, offset, size) ? -errno : 0;
        } while (ret == -EINTR);
        if (not_offered(ret))
            atomic_store_explicit(&file->can_zero, false, memory_order_relaxed);
    }
    if (not_offered(ret))
        ret = write_zeroes_in_full(file, transfer);
    if (ret)
        return ret == -EDQUOT || ret == -EFBIG ? -ENOSPC : ret;
    return transfer->flags & BLOCK_FUA && fdatasync(file->fd) ? -errno : 0;
}

/* After a failure the kernel has dropped what it could not write and would report the next sync as a success. */
static int flush(struct file_node *file)
{
    int ret;

    if (atomic_load_explicit(&file->flush_failed, memory_order_relaxed))
        return -EIO;
    do {
        ret = fdatasync(file->fd) ? -errno : 0;
    } while (ret == -EINTR);
    if (ret && !file->node.flags.direct)
        atomic_store_explicit(&file->flush_failed, true, memory_order_relaxed);
    return ret == -EDQUOT ? -ENOSPC : ret;
}

static int file_run(struct block_node *node, const struct block_transfer *what)
{
    struct file_node *file = container_of(node, struct file_node, node);

    switch (what->op) {
    case BLOCK_READ:
        return transfer(file, what, false);
    case BLOCK_WRITE:
        return transfer(file, what, true);
    case BLOCK_FLUSH:
        return flush(file);
    case BLOCK_DISCARD:
        return discard(file, what);
    case BLOCK_WRITE_ZEROES:
        return write_zeroes(file, what);
    }
    return -EINVAL;
}

static int file_get_size(struct block_node *node, uint64_t *size)
{
    struct file_node *file = container_of(node, struct file_node, node);
    struct stat status;

    if (file->is_device) {
        *size = node->size;
        return 0;
    }
    if (fstat(file->fd, &status))
        return -errno;
    *size = (uint64_t)status.st_size;
    return 0;
}

static int file_truncate(struct block_node *node, uint64_t size)
{
    struct file_node *file = container_of(node, struct file_node, node);

    if (file->is_device)
        return size <= node->size ? 0 : -ENOSPC;
    return ftruncate(file->fd, (off_t)size) ? write_error(errno) : 0;
}

static int file_allocate(struct block_node *node, uint64_t offset, uint64_t size)
{
    struct file_node *file = container_of(node, struct file_node, node);

    if (file->is_device)
        return offset + size <= node->size ? 0 : -ENOSPC;
    return fallocate(file->fd, 0, (off_t)offset, (off_t)size) ? write_error(errno) : 0;
}

static bool file_map(struct block_node *node, const struct block_transfer *what, struct block_extent *extent)
{
    struct file_node *file = container_of(node, struct file_node, node);

    *extent = (struct block_extent){ .fd = file->fd, .offset = what->offset, .alignment = file->alignment };
    return node->flags.aio != BLOCK_AIO_THREADS;
}

static bool file_serialises(struct block_node *node, const struct block_transfer *what)
{
    struct file_node *file = container_of(node, struct file_node, node);

    return what->op != BLOCK_READ && misplaced(file, what);
}

/* The two differ in what they open only. */
#define FILE_DRIVER(NAME)                                                                                              \
    {                                                                                                                  \
        .name = NAME, .size = sizeof(struct file_node), .protocol = true, .open = block_file_open,                     \
        .close = block_file_close, .run = file_run, .map = file_map, .get_size = file_get_size,                        \
        .truncate = file_truncate, .allocate = file_allocate, .serialises = file_serialises,                           \
    }

const struct block_driver block_file_driver = FILE_DRIVER("file");
const struct block_driver block_host_device_driver = FILE_DRIVER("host_device");
