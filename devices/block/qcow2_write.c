/* Writing. What is allocated and ours alone is written in place, with its range shared; everything else gets new clusters, with
 * its range held alone:
 *
 *     clusters are allocated (meta)
 *     what is around the data in its first and last cluster is read, and written together with the data; no lock is held
 *     the L2 entries refer to the new clusters, the old ones wait to become free (meta)
 *
 * A request is done in pieces; one that fails in between has written those before. */
#include "devices/block/qcow2_internal.h"

#include <stdlib.h>
#include <string.h>

int qcow2_write_check(struct qcow2 *image, uint64_t offset, uint64_t size)
{
    uint64_t disk_size = qcow2_size(image);

    if (image->flags & QCOW2_READ_ONLY)
        return -EACCES;
    if (atomic_load(&image->corrupt))
        return -EIO;
    if (offset > disk_size || size > disk_size - offset)
        return -EIO;
    return atomic_load(&image->write_prepared) ? 0 : qcow2_prepare_write(image);
}

/* ---- New clusters ---- */

/* The piece [offset, offset + size) that is written to `clusters` clusters at `host`. */
struct allocation {
    uint64_t offset, size;
    uint64_t start; /* of its first cluster, on the disk */
    uint64_t host, clusters;
    bool fresh;           /* reads as zeroes */
    bool reuse;           /* it is the space of a zero cluster: nothing new, nothing to free */
    enum qcow2_kind kind; /* of what was there */
};

static int allocate(struct qcow2 *image, const struct qcow2_extent *extent, struct allocation *a)
{
    uint64_t wanted = clusters_for(image, a->offset + a->size - a->start);
    int result;

    a->kind = extent->kind;
    if (extent->kind == QCOW2_ZERO && extent->host_offset && extent->in_place) {
        a->reuse = true;
        a->host = cluster_start(image, extent->host_offset);
        a->clusters = wanted;
        pthread_mutex_lock(&image->fast);
        result = qcow2_metadata_overlaps(image, a->host, wanted << image->cluster_bits) ? -EIO : 0;
        pthread_mutex_unlock(&image->fast);
        return result ? qcow2_mark_corrupt(image, "0x%llx is mapped to metadata", (unsigned long long)a->offset) : 0;
    }
    pthread_mutex_lock(&image->meta);
    result = qcow2_alloc(image, wanted, false, &a->host, &a->clusters, &a->fresh);
    pthread_mutex_unlock(&image->meta);
    if (!result)
        a->size = MIN(a->size, a->start + (a->clusters << image->cluster_bits) - a->offset);
    return result;
}

/* Around what is written: old content, or nothing if that is zeroes and the new clusters are zeroes too. */
static int write_filled(struct qcow2 *image, const struct allocation *a, const struct iovec *iov, unsigned count)
{
    uint64_t head = a->offset - a->start, end = a->start + (a->clusters << image->cluster_bits);
    uint64_t tail = end - (a->offset + a->size);
    bool below = image->has_backing && a->start < image->backing_size; /* the cluster's beginning may be there */
    bool zeroes = a->kind == QCOW2_ZERO || (a->kind == QCOW2_UNALLOCATED && !below);
    struct iovec all[QCOW2_IOV + 2];
    uint8_t *buffer;
    unsigned used = 0;
    int result = 0;

    if ((!head && !tail) || (zeroes && a->fresh))
        return image->file.ops->write(image->file.opaque, a->host + head, iov, count);
    buffer = zeroes ? calloc(1, head + tail) : malloc(head + tail);
    if (!buffer)
        return -ENOMEM;
    if (!zeroes && head)
        result = qcow2_read_locked(image, a->start, buffer, head);
    if (!result && !zeroes && tail)
        result = qcow2_read_locked(image, a->offset + a->size, buffer + head, tail);
    if (!result) {
        if (head)
            all[used++] = (struct iovec){ buffer, head };
        memcpy(all + used, iov, count * sizeof(*iov));
        used += count;
        if (tail)
            all[used++] = (struct iovec){ buffer + head, tail };
        result = image->file.ops->write(image->file.opaque, a->host, all, used);
    }
    free(buffer);
    return result;
}

/* Entries of one slice: a piece never reaches beyond. Fails before anything is changed or not at all. */
static int link_clusters(struct qcow2 *image, const struct allocation *a)
{
    struct qcow2_slice *slice;
    uint32_t position;
    int result = qcow2_pending_reserve(image, a->clusters + 3);

    if (!result)
        result = qcow2_entry_prepare(image, a->start, &slice, &position);
    for (uint64_t i = 0; i < a->clusters && !result; i++) {
        uint64_t old = get_be64(slice->data + position);

        qcow2_entry_set(image, slice, position, (a->host + (i << image->cluster_bits)) | FLAG_COPIED);
        if (!a->reuse)
            qcow2_free_entry_later(image, old); /* there is room */
        position += image->l2_entry_size;
    }
    return result;
}

static int write_new(struct qcow2 *image, struct allocation *a, const struct iovec *iov, unsigned count, uint64_t skip)
{
    struct iovec part[QCOW2_IOV];
    uint64_t size = a->size;
    unsigned used = qcow2_iov_part(iov, count, skip, &size, part, QCOW2_IOV);
    int result;

    /* More elements than fit: the piece ends earlier, and clusters behind it are not needed. */
    a->size = size;
    result = write_filled(image, a, part, used);
    pthread_mutex_lock(&image->meta);
    if (!result)
        result = link_clusters(image, a);
    if (result && !a->reuse)
        qcow2_free_unused(image, a->host, a->clusters);
    pthread_mutex_unlock(&image->meta);
    return result;
}

/* The range of the piece is held alone. */
static int write_alone(struct qcow2 *image, uint64_t offset, uint64_t *size, const struct iovec *iov, unsigned count,
                       uint64_t skip)
{
    struct allocation a = { .offset = offset, .start = cluster_start(image, offset) };
    struct iovec part[QCOW2_IOV];
    struct qcow2_extent extent;
    unsigned used;
    int result = qcow2_lookup(image, offset, *size, &extent);

    if (result)
        return result;
    *size = MIN(*size, extent.size);
    used = qcow2_iov_part(iov, count, skip, size, part, QCOW2_IOV);
    if (extent.kind == QCOW2_DATA && extent.in_place) { /* somebody was faster */
        pthread_mutex_lock(&image->fast);
        result = qcow2_metadata_overlaps(image, extent.host_offset, *size) ? -EIO : 0;
        pthread_mutex_unlock(&image->fast);
        if (result)
            return qcow2_mark_corrupt(image, "0x%llx is mapped to metadata", (unsigned long long)offset);
        return image->file.ops->write(image->file.opaque, extent.host_offset, part, used);
    }
    a.size = *size;
    result = allocate(image, &extent, &a);
    *size = a.size;
    return result ? result : write_new(image, &a, iov, count, skip);
}

static int write_piece(struct qcow2 *image, uint64_t offset, uint64_t *size, const struct iovec *iov, unsigned count,
                       uint64_t skip)
{
    struct qcow2_pin pin;
    struct qcow2_extent extent;
    uint64_t wanted = MIN(*size, qcow2_slice_reach(image, offset));
    int result;

    qcow2_range_lock(image, &pin, offset, wanted, false);
    result = qcow2_map(image, offset, wanted, true, NULL, &extent);
    if (!result) {
        struct iovec part[QCOW2_IOV];
        unsigned used;

        *size = extent.size;
        used = qcow2_iov_part(iov, count, skip, size, part, QCOW2_IOV);
        result = image->file.ops->write(image->file.opaque, extent.host_offset, part, used);
    }
    qcow2_range_unlock(image, &pin);
    if (result != -EAGAIN)
        return result;
    *size = MIN(wanted, QCOW2_MAX_PIECE);
    qcow2_range_lock(image, &pin, offset, *size, true);
    result = write_alone(image, offset, size, iov, count, skip);
    qcow2_range_unlock(image, &pin);
    return result;
}

int qcow2_write(struct qcow2 *image, uint64_t offset, const struct iovec *iov, unsigned count)
{
    uint64_t total = qcow2_iov_size(iov, count), part;
    int result = qcow2_write_check(image, offset, total);

    for (uint64_t done = 0; done < total && !result; done += part) {
        part = total - done;
        result = write_piece(image, offset + done, &part, iov, count, done);
    }
    return result;
}

/* ---- Compressed clusters ---- */

/* Room for `size` bytes, behind the compressed cluster before if it fits: a host cluster is counted once for each compressed one in it. */
static int allocate_bytes(struct qcow2 *image, uint64_t size, uint64_t *offset)
{
    uint64_t found, count, value, room = image->compressed_end - image->compressed_next;
    bool fresh;
    int result;

    if (room && image->compressed_next) {
        result = qcow2_refcount_get(image, cluster_of(image, image->compressed_next), &value);
        if (result)
            return result;
        if (!value || value >= qcow2_refcount_max(image))
            room = 0;
    }
    if (!room || room < size) {
        result = qcow2_alloc(image, 1, true, &found, &count, &fresh);
        if (result)
            return result;
        image->high_water = MAX(image->high_water, found + image->cluster_size);
        /* Goes on from the cluster before if this one is its neighbour, and can be counted once more. */
        if (!room || found != image->compressed_end)
            image->compressed_next = found;
        image->compressed_end = found + image->cluster_size;
        if (cluster_of(image, image->compressed_next) == cluster_of(image, found)) {
            *offset = found;
            image->compressed_next = found + size;
            return 0;
        }
    }
    *offset = image->compressed_next;
    result = qcow2_refcount_add(image, cluster_of(image, *offset), 1, 1);
    image->compressed_next = *offset + size;
    return result;
}

static int put_compressed(struct qcow2 *image, uint64_t offset, const uint8_t *data, uint64_t size)
{
    unsigned x = 62 - (image->cluster_bits - 8);
    struct qcow2_slice *slice;
    uint64_t host, sectors, old;
    uint32_t position;
    int result;

    pthread_mutex_lock(&image->meta);
    result = allocate_bytes(image, size, &host);
    pthread_mutex_unlock(&image->meta);
    if (result)
        return result;
    if (host + size > 1ull << MIN(x, 56))
        result = -EFBIG;
    else
        result = qcow2_file_write(image, host, data, size);
    sectors = (host + size - 1) / 512 - host / 512;
    pthread_mutex_lock(&image->meta);
    if (!result)
        result = qcow2_pending_reserve(image, 4);
    if (!result)
        result = qcow2_entry_prepare(image, offset, &slice, &position);
    if (!result) {
        old = get_be64(slice->data + position);
        qcow2_entry_set(image, slice, position, host | sectors << x | FLAG_COMPRESSED);
        if (old)
            qcow2_free_entry_later(image, old);
    } else {
        qcow2_refcount_add(image, cluster_of(image, host),
                           cluster_of(image, host + size - 1) - cluster_of(image, host) + 1, -1);
        image->compressed_next = image->compressed_end = 0;
    }
    pthread_mutex_unlock(&image->meta);
    return result;
}

int qcow2_write_compressed(struct qcow2 *image, uint64_t offset, const void *data, size_t size)
{
    struct iovec iov = { (void *)data, size };
    uint8_t *padded, *out;
    struct qcow2_pin pin;
    ssize_t length;
    int result = qcow2_write_check(image, offset, size);

    if (result)
        return result;
    if (offset & (image->cluster_size - 1) || (size != image->cluster_size && offset + size != qcow2_size(image)) ||
        size > image->cluster_size || !size)
        return -EINVAL;
    padded = calloc(2, image->cluster_size);
    if (!padded)
        return -ENOMEM;
    out = padded + image->cluster_size;
    memcpy(padded, data, size);
    length = qcow2_compress(image, padded, out);
    if (length == -ENOSPC) {
        result = qcow2_write(image, offset, &iov, 1);
    } else if (length < 0) {
        result = (int)length;
    } else {
        qcow2_range_lock(image, &pin, offset, size, true);
        result = put_compressed(image, offset, out, (uint64_t)length);
        qcow2_range_unlock(image, &pin);
    }
    free(padded);
    return result;
}

/* ---- Preallocation ---- */

static int allocate_run(struct qcow2 *image, uint64_t offset, uint64_t want, enum qcow2_preallocation mode,
                        uint64_t *done)
{
    struct allocation a = { .offset = offset, .start = offset };
    uint64_t size;
    int result;

    pthread_mutex_lock(&image->meta);
    result = qcow2_alloc(image, want, false, &a.host, &a.clusters, &a.fresh);
    pthread_mutex_unlock(&image->meta);
    if (result)
        return result;
    size = a.clusters << image->cluster_bits;
    if (mode == QCOW2_PREALLOC_FALLOC)
        result = image->file.ops->allocate ? image->file.ops->allocate(image->file.opaque, a.host, size) : -ENOTSUP;
    if (!result && (mode == QCOW2_PREALLOC_FULL || !a.fresh)) {
        for (uint64_t at = 0; at < size && !result; at += MIN(sizeof(qcow2_zeroes), size - at))
            result = qcow2_file_write(image, a.host + at, qcow2_zeroes, MIN(sizeof(qcow2_zeroes), size - at));
    }
    pthread_mutex_lock(&image->meta);
    if (!result)
        result = link_clusters(image, &a);
    if (result)
        qcow2_free_unused(image, a.host, a.clusters);
    pthread_mutex_unlock(&image->meta);
    *done = size;
    return result;
}

/* Unallocated clusters of [offset, end) get space that reads as zeroes. */
int qcow2_preallocate(struct qcow2 *image, uint64_t offset, uint64_t end, enum qcow2_preallocation mode)
{
    struct qcow2_extent extent;
    uint64_t file_size, want, done;
    int result = qcow2_write_check(image, 0, 0);

    offset = cluster_start(image, offset);
    while (offset < end && !result) {
        result = qcow2_lookup(image, offset, MIN(end - offset, qcow2_slice_reach(image, offset)), &extent);
        if (result)
            break;
        if (extent.kind != QCOW2_UNALLOCATED) {
            offset = cluster_end(image, offset + extent.size);
            continue;
        }
        want = MIN(clusters_for(image, extent.size), QCOW2_MAX_PENDING / 2);
        result = allocate_run(image, offset, want, mode, &done);
        offset += done;
    }
    if (result)
        return result;
    /* Programs that take the size of the file for the end of the image shall see all of it. */
    result = qcow2_file_size(image, &file_size);
    if (!result && file_size < image->high_water && image->file.ops->truncate)
        result = image->file.ops->truncate(image->file.opaque, image->high_water);
    return result;
}
