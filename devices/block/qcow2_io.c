/* The bytes of an image's file, tables as whole sectors, and iovec arithmetic. Any thread; no locks. */
#include "devices/block/qcow2_internal.h"

#include <stdlib.h>
#include <string.h>

const uint8_t qcow2_zeroes[65536];

int qcow2_file_read(struct qcow2 *image, uint64_t offset, void *data, size_t size)
{
    struct iovec iov = { data, size };

    return size ? image->file.ops->read(image->file.opaque, offset, &iov, 1) : 0;
}

int qcow2_file_write(struct qcow2 *image, uint64_t offset, const void *data, size_t size)
{
    struct iovec iov = { (void *)data, size };

    return size ? image->file.ops->write(image->file.opaque, offset, &iov, 1) : 0;
}

int qcow2_file_flush(struct qcow2 *image)
{
    return image->file.ops->flush(image->file.opaque);
}

int qcow2_file_size(struct qcow2 *image, uint64_t *size)
{
    return image->file.ops->size(image->file.opaque, size);
}

int qcow2_file_zero(struct qcow2 *image, uint64_t offset, uint64_t size)
{
    int result = image->file.ops->zero ? image->file.ops->zero(image->file.opaque, offset, size, false) : -ENOTSUP;

    if (result != -ENOTSUP && result != -EOPNOTSUPP)
        return result;
    for (uint64_t done = 0, part; done < size; done += part) {
        part = MIN(size - done, sizeof(qcow2_zeroes));
        result = qcow2_file_write(image, offset + done, qcow2_zeroes, part);
        if (result)
            return result;
    }
    return 0;
}

int qcow2_write_entries(struct qcow2 *image, uint64_t base, const uint64_t *table, uint64_t entries,
                        struct qcow2_dirty_range range)
{
    uint64_t end = ALIGN_UP(range.end, HEADER_SECTOR);
    uint8_t buffer[8 * HEADER_SECTOR];

    for (uint64_t at = ALIGN_DOWN(range.start, HEADER_SECTOR); at < end;) {
        uint64_t part = MIN(end - at, sizeof(buffer));
        int result;

        for (uint64_t i = 0; i < part / 8; i++)
            put_be64(buffer + i * 8, at / 8 + i < entries ? table[at / 8 + i] : 0);
        result = qcow2_file_write(image, base + at, buffer, part);
        if (result)
            return result;
        at += part;
    }
    return 0;
}

uint64_t qcow2_iov_size(const struct iovec *iov, unsigned count)
{
    uint64_t size = 0;

    for (unsigned i = 0; i < count; i++)
        size += iov[i].iov_len;
    return size;
}

unsigned qcow2_iov_part(const struct iovec *iov, unsigned count, uint64_t skip, uint64_t *size, struct iovec *part,
                        unsigned max)
{
    uint64_t left = *size;
    unsigned used = 0;

    for (unsigned i = 0; i < count && left && used < max; i++) {
        uint64_t length = iov[i].iov_len;

        if (skip >= length) {
            skip -= length;
            continue;
        }
        part[used].iov_base = (uint8_t *)iov[i].iov_base + skip;
        part[used].iov_len = MIN(length - skip, left);
        left -= part[used++].iov_len;
        skip = 0;
    }
    *size -= left;
    return used;
}

void qcow2_iov_zero(const struct iovec *iov, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        memset(iov[i].iov_base, 0, iov[i].iov_len);
}

void qcow2_iov_copy(const struct iovec *iov, unsigned count, const uint8_t *data)
{
    for (unsigned i = 0; i < count; i++) {
        memcpy(iov[i].iov_base, data, iov[i].iov_len);
        data += iov[i].iov_len;
    }
}
