/* Metadata goes to the file here, in an order that a crash may cut anywhere:
 *
 *     refcount blocks (counts of what was allocated)
 *       -- flush --      only if there are new blocks
 *     refcount table (new blocks)
 *       -- flush --      the guest's data lies in new clusters now, and they are counted
 *     L2 tables, L1 table (a new L2 table's first content was written when it was made, so it is before the flush)
 *       -- flush --      the caller's
 *     what nothing refers to any more is counted down (in memory; written by the next commit), then may be allocated
 *
 * So a crash leaves leaks at most: clusters that are counted and not referred to. With lazy refcounts the first two steps wait until
 * the image is closed; the dirty bit in the header, stable before the first of them was skipped, says so. `meta` is held. */
#include "devices/block/qcow2_internal.h"

static int write_reftable(struct qcow2 *image)
{
    int result;

    if (image->reftable_dirty.start == image->reftable_dirty.end)
        return 0;
    result = qcow2_file_flush(image);
    if (!result)
        result = qcow2_write_entries(image, image->reftable_offset, image->reftable, image->reftable_entries,
                                     image->reftable_dirty);
    if (!result)
        image->reftable_dirty = (struct qcow2_dirty_range){ 0 };
    return result;
}

static int write_l1(struct qcow2 *image)
{
    int result = qcow2_write_entries(image, image->l1_offset, image->l1, image->l1_size, image->l1_dirty);

    if (!result)
        image->l1_dirty = (struct qcow2_dirty_range){ 0 };
    return result;
}

int qcow2_commit(struct qcow2 *image, bool *need_flush)
{
    bool tables = image->l2.dirty || image->l1_dirty.end != image->l1_dirty.start;
    int result;

    *need_flush = false;
    if (atomic_load(&image->corrupt))
        return -EIO;
    if (!tables && !image->refcounts.dirty && image->reftable_dirty.end == image->reftable_dirty.start)
        return 0;
    *need_flush = true;
    if (!image->info.dirty || image->reftable_dirty.end != image->reftable_dirty.start) {
        result = qcow2_cache_write(image, &image->refcounts);
        if (!result)
            result = write_reftable(image);
        if (result)
            return result;
    }
    if (!tables)
        return 0;
    result = qcow2_file_flush(image);
    if (!result)
        result = qcow2_cache_write(image, &image->l2);
    if (!result && image->l1_dirty.end != image->l1_dirty.start)
        result = write_l1(image);
    return result;
}

int qcow2_flush(struct qcow2 *image)
{
    bool need_flush, changed = !(image->flags & QCOW2_READ_ONLY);
    int result = 0;

    if (changed) {
        pthread_mutex_lock(&image->meta);
        result = image->pending_count ? qcow2_commit_stable(image) : qcow2_commit(image, &need_flush);
        pthread_mutex_unlock(&image->meta);
        /* Without waiting clusters the flush is outside of the lock: others may look and allocate meanwhile. */
        if (!result)
            result = qcow2_file_flush(image);
    }
    return result;
}
