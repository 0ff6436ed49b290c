/* Reading. Each piece (an extent, at most QCOW2_IOV elements) has its range shared while its I/O runs. */
#include "devices/block/qcow2_internal.h"

#include <string.h>

static int read_extent(struct qcow2 *image, uint64_t offset, const struct qcow2_extent *extent, const struct iovec *iov,
                       unsigned count)
{
    switch (extent->kind) {
    case QCOW2_DATA:
        return image->file.ops->read(image->file.opaque, extent->host_offset, iov, count);
    case QCOW2_BACKING:
        return image->backing.ops->read(image->backing.opaque, offset, iov, count);
    case QCOW2_COMPRESSED:
        return qcow2_compressed_read(image, offset, iov, count);
    default:
        qcow2_iov_zero(iov, count);
        return 0;
    }
}

static int read_piece(struct qcow2 *image, uint64_t offset, const struct iovec *iov, unsigned count, uint64_t skip,
                      uint64_t *size)
{
    struct iovec part[QCOW2_IOV];
    struct qcow2_extent extent;
    unsigned used;
    int result;

    result = qcow2_lookup(image, offset, *size, &extent);
    if (result)
        return result;
    *size = extent.size;
    used = qcow2_iov_part(iov, count, skip, size, part, QCOW2_IOV);
    return read_extent(image, offset, &extent, part, used);
}

int qcow2_read(struct qcow2 *image, uint64_t offset, const struct iovec *iov, unsigned count)
{
    uint64_t total = qcow2_iov_size(iov, count), disk_size = qcow2_size(image), part;

    if (offset > disk_size || total > disk_size - offset)
        return -EIO;
    for (uint64_t done = 0; done < total; done += part) {
        struct qcow2_pin pin;
        int result;

        part = MIN(total - done, qcow2_slice_reach(image, offset + done));
        qcow2_range_lock(image, &pin, offset + done, part, false);
        result = read_piece(image, offset + done, iov, count, done, &part);
        qcow2_range_unlock(image, &pin);
        if (result)
            return result;
    }
    return 0;
}

int qcow2_read_locked(struct qcow2 *image, uint64_t offset, void *data, uint64_t size)
{
    struct iovec iov = { data, size };
    uint64_t disk_size = qcow2_size(image), inside = offset < disk_size ? MIN(size, disk_size - offset) : 0, part;

    memset((uint8_t *)data + inside, 0, size - inside);
    for (uint64_t done = 0; done < inside; done += part) {
        int result;

        part = inside - done;
        result = read_piece(image, offset + done, &iov, 1, done, &part);
        if (result)
            return result;
    }
    return 0;
}
