/* Discard and zeroes: whole clusters by their L2 entries, parts of clusters by writing. A range is held alone while its entries
 * change. What becomes free waits until the tables are in the file (qcow2_refcount.c). */
#include "devices/block/qcow2_internal.h"

enum change { CHANGE_DISCARD, CHANGE_ZERO, CHANGE_ZERO_UNMAP, CHANGE_DROP };

/* The entry that takes the place of `old`. *keep: its clusters stay (or there are none). */
static uint64_t changed_entry(const struct qcow2 *image, uint64_t old, enum change change, bool *keep)
{
    bool allocated = old & (OFFSET_MASK | FLAG_COMPRESSED), v3 = image->info.version >= 3;

    *keep = false;
    if (change == CHANGE_DROP)
        return 0;
    if (change == CHANGE_ZERO && (old & FLAG_COPIED) && !(old & FLAG_COMPRESSED) && (old & OFFSET_MASK)) {
        *keep = true;
        return old | FLAG_ZERO;
    }
    if (!image->has_backing && !allocated)
        return old & FLAG_ZERO;
    return v3 ? FLAG_ZERO : 0; /* version 2: there is nothing below */
}

/* Version 2 has no zero clusters: what has a backing file cannot say "zeroes". */
static bool can_change(const struct qcow2 *image, enum change change)
{
    if (change == CHANGE_DROP || image->info.version >= 3)
        return true;
    return !image->has_backing && change != CHANGE_ZERO;
}

static int change_slice(struct qcow2 *image, uint64_t offset, uint64_t end, enum change change)
{
    struct qcow2_slice *slice;
    uint32_t position;
    uint64_t entry;
    int result;

    /* No table: nothing to free; with nothing below there are zeroes already. */
    result = qcow2_entry_get(image, offset, &entry);
    if (result)
        return result;
    if (!(image->l1[cluster_of(image, offset) / image->l2_entries] & OFFSET_MASK) &&
        (change == CHANGE_DROP || !image->has_backing))
        return 0;
    result = qcow2_pending_reserve(image, clusters_for(image, end - offset) + 3);
    if (!result)
        result = qcow2_entry_prepare(image, offset, &slice, &position);
    for (; offset < end && !result; offset += image->cluster_size, position += image->l2_entry_size) {
        uint64_t old = get_be64(slice->data + position), new;
        bool keep;

        new = changed_entry(image, old, change, &keep);
        if (new == old)
            continue;
        if ((old & OFFSET_MASK & (image->cluster_size - 1)) && !(old & FLAG_COMPRESSED))
            return qcow2_mark_corrupt(image, "the entry of 0x%llx is not aligned", (unsigned long long)offset);
        qcow2_entry_set(image, slice, position, new);
        if (!keep)
            result = qcow2_free_entry_later(image, old);
    }
    return result;
}

/* Where to go on: over L2 tables that do not exist, if there is nothing to do for them. A disk may be 2^61 bytes long. */
static uint64_t skip_empty(struct qcow2 *image, uint64_t offset, uint64_t end, enum change change)
{
    uint64_t covered = image->l2_entries << image->cluster_bits;

    if (image->has_backing && change != CHANGE_DROP)
        return offset;
    pthread_mutex_lock(&image->fast);
    while (offset < end && offset / covered < image->l1_size && !(image->l1[offset / covered] & OFFSET_MASK))
        offset = ALIGN_DOWN(offset, covered) + covered;
    pthread_mutex_unlock(&image->fast);
    return offset;
}

/* Whole clusters. */
static int change_clusters(struct qcow2 *image, uint64_t offset, uint64_t end, enum change change)
{
    int result = 0;

    while (!result && (offset = skip_empty(image, offset, end, change)) < end) {
        uint64_t part = MIN(end - offset, qcow2_slice_reach(image, offset));
        struct qcow2_pin pin;

        if (cluster_of(image, offset) / image->l2_entries >= image->l1_size)
            break;
        qcow2_range_lock(image, &pin, offset, part, true);
        pthread_mutex_lock(&image->meta);
        result = change_slice(image, offset, offset + part, change);
        pthread_mutex_unlock(&image->meta);
        qcow2_range_unlock(image, &pin);
        offset += part;
    }
    return result;
}

/* The clusters that are in [offset, offset + size) as a whole; the disk's last one needs only its part that exists. */
static void whole_clusters(const struct qcow2 *image, uint64_t offset, uint64_t size, uint64_t *first, uint64_t *last)
{
    *first = cluster_end(image, offset);
    *last =
        offset + size == qcow2_size(image) ? cluster_end(image, offset + size) : cluster_start(image, offset + size);
}

int qcow2_discard(struct qcow2 *image, uint64_t offset, uint64_t size)
{
    uint64_t first, last;
    int result = qcow2_write_check(image, offset, size);

    whole_clusters(image, offset, size, &first, &last);
    if (result || first >= last || !can_change(image, CHANGE_DISCARD))
        return result;
    return change_clusters(image, first, last, CHANGE_DISCARD);
}

int qcow2_drop(struct qcow2 *image, uint64_t offset, uint64_t size)
{
    return change_clusters(image, offset, offset + size, CHANGE_DROP);
}

static int write_zero_bytes(struct qcow2 *image, uint64_t offset, uint64_t size)
{
    int result = 0;

    while (size && !result) {
        struct qcow2_extent extent;
        struct iovec iov = { (void *)qcow2_zeroes, MIN(size, sizeof(qcow2_zeroes)) };

        result = qcow2_lookup(image, offset, iov.iov_len, &extent);
        if (result)
            break;
        iov.iov_len = MIN(iov.iov_len, extent.size);
        if (extent.kind != QCOW2_ZERO && extent.kind != QCOW2_UNALLOCATED)
            result = qcow2_write(image, offset, &iov, 1);
        offset += iov.iov_len;
        size -= iov.iov_len;
    }
    return result;
}

int qcow2_write_zeroes(struct qcow2 *image, uint64_t offset, uint64_t size, bool may_unmap)
{
    enum change change = may_unmap ? CHANGE_ZERO_UNMAP : CHANGE_ZERO;
    uint64_t first, last;
    int result = qcow2_write_check(image, offset, size);

    if (result)
        return result;
    whole_clusters(image, offset, size, &first, &last);
    if (first >= last || !can_change(image, change))
        return write_zero_bytes(image, offset, size);
    result = write_zero_bytes(image, offset, first - offset);
    if (!result)
        result = change_clusters(image, first, last, change);
    if (!result && last < offset + size)
        result = write_zero_bytes(image, last, offset + size - last);
    return result;
}
