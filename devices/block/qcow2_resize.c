/* Another virtual size. Growing: the new part must read as zeroes, whatever lies there: the rest of the last cluster, what a backing file
 * has, what a snapshot's machine state left behind. Then the header. Shrinking: the header first, then what is behind becomes free, so
 * that a crash leaves leaks at most. Only one thread uses the image. */
#include "devices/block/qcow2_internal.h"

#include <stdlib.h>
#include <string.h>

static int write_header(struct qcow2 *image)
{
    int result = qcow2_header_write(image);

    return result ? result : qcow2_file_flush(image);
}

/* A bigger L1 table elsewhere; the old one is free once the header refers to the new one. */
static int grow_l1(struct qcow2 *image, uint64_t entries)
{
    uint64_t count = clusters_for(image, entries * 8), old_size = image->l1_size, old_offset = image->l1_offset, offset,
             found;
    uint64_t *table = calloc(entries + 1, 8);
    bool fresh;
    int result = table ? qcow2_commit_stable(image) : -ENOMEM;

    if (!result)
        result = count * 2 > image->refblock_entries ? qcow2_alloc_table(image, count, &offset)
                                                     : qcow2_alloc(image, count, true, &offset, &found, &fresh);
    if (result)
        goto out;
    memcpy(table, image->l1, old_size * 8);
    /* The whole last cluster: what follows the table reads as zeroes. */
    result = qcow2_write_entries(image, offset, table, entries,
                                 (struct qcow2_dirty_range){ 0, count << image->cluster_bits });
    if (!result)
        result = qcow2_commit_stable(image); /* counts */
    if (!result)
        result = qcow2_file_flush(image);
    if (!result)
        result = qcow2_metadata_add(image, offset, entries * 8);
    if (result)
        goto out;
    put_be32(image->header + HEADER_L1_SIZE, (uint32_t)entries);
    put_be64(image->header + HEADER_L1_OFFSET, offset);
    result = write_header(image);
    if (result) {
        qcow2_mark_corrupt(image, "the header cannot be written: %s", strerror(-result));
        goto out;
    }
    pthread_mutex_lock(&image->fast);
    free(image->l1);
    image->l1 = table;
    image->l1_size = entries;
    image->l1_offset = offset;
    table = NULL;
    pthread_mutex_unlock(&image->fast);
    if (old_size) {
        qcow2_metadata_remove(image, old_offset, old_size * 8);
        result = qcow2_free_later(image, cluster_of(image, old_offset), clusters_for(image, old_size * 8));
    }
out:
    free(table);
    return result;
}

/* What is behind the end already and would become visible. */
static int clear_new_part(struct qcow2 *image, uint64_t old_size, uint64_t size)
{
    uint64_t edge = MIN(cluster_end(image, old_size), size), below;
    int result =
        qcow2_drop(image, cluster_end(image, old_size), cluster_end(image, size) - cluster_end(image, old_size));

    atomic_store(&image->size, size); /* so that it can be written */
    if (!result && edge > old_size)
        result = qcow2_write_zeroes(image, old_size, edge - old_size, false);
    below = image->has_backing ? MIN(image->backing_size, size) : 0;
    if (!result && below > edge)
        result = qcow2_write_zeroes(image, edge, below - edge, true);
    return result;
}

static int grow(struct qcow2 *image, uint64_t size, enum qcow2_preallocation preallocation, struct error *err)
{
    uint64_t clusters = clusters_for(image, size), old_size = qcow2_size(image);
    uint64_t entries = clusters / image->l2_entries + !!(clusters % image->l2_entries);
    int result = 0;

    if (entries * 8 > MAX_L1_BYTES)
        return error_set(err, EFBIG, "%llu bytes are too big for clusters of %llu bytes", (unsigned long long)size,
                         (unsigned long long)image->cluster_size);
    if (entries > image->l1_size) {
        pthread_mutex_lock(&image->meta);
        result = grow_l1(image, entries);
        pthread_mutex_unlock(&image->meta);
    }
    if (!result)
        result = clear_new_part(image, old_size, size);
    if (!result && preallocation != QCOW2_PREALLOC_OFF)
        result = qcow2_preallocate(image, old_size, size, preallocation);
    if (!result)
        result = qcow2_flush(image);
    if (result)
        atomic_store(&image->size, old_size);
    return result ? error_set(err, -result, "%s", strerror(-result)) : 0;
}

/* L2 tables of which nothing is left. */
static int free_tables_behind(struct qcow2 *image, uint64_t size)
{
    uint64_t clusters = clusters_for(image, size),
             first = clusters / image->l2_entries + !!(clusters % image->l2_entries);
    int result = 0;

    for (uint64_t i = first; i < image->l1_size && !result; i++) {
        uint64_t table = image->l1[i] & OFFSET_MASK;

        if (!table)
            continue;
        result = qcow2_pending_reserve(image, 1);
        if (result)
            break;
        qcow2_cache_forget(image, &image->l2, table, image->cluster_size);
        if (image->l1[i] & FLAG_COPIED)
            qcow2_metadata_remove(image, table, image->cluster_size);
        pthread_mutex_lock(&image->fast);
        image->l1[i] = 0;
        pthread_mutex_unlock(&image->fast);
        if (image->l1_dirty.end == image->l1_dirty.start)
            image->l1_dirty = (struct qcow2_dirty_range){ i * 8, i * 8 + 8 };
        image->l1_dirty.end = i * 8 + 8;
        result = qcow2_free_later(image, cluster_of(image, table), 1);
    }
    return result;
}

/* The file ends behind the last cluster that is in use. */
static int cut_file(struct qcow2 *image)
{
    uint64_t file_size, cluster, value = 0;
    int result = qcow2_file_size(image, &file_size);

    for (cluster = clusters_for(image, file_size); cluster && !result && !value;) {
        cluster--;
        result = qcow2_refcount_get(image, cluster, &value);
    }
    cluster++;
    if (result || cluster << image->cluster_bits >= file_size)
        return result;
    result = image->file.ops->truncate(image->file.opaque, cluster << image->cluster_bits);
    if (!result)
        image->high_water = cluster << image->cluster_bits;
    return result == -ENOTSUP || result == -EINVAL ? 0 : result;
}

static int shrink_to(struct qcow2 *image, uint64_t size, uint64_t old_size, struct error *err)
{
    int result;

    put_be64(image->header + HEADER_SIZE, size);
    result = write_header(image);
    if (!result) {
        image->info.size = size;
        atomic_store(&image->size, size);
        result = qcow2_drop(image, cluster_end(image, size), cluster_end(image, old_size) - cluster_end(image, size));
    }
    pthread_mutex_lock(&image->meta);
    if (!result)
        result = qcow2_commit_stable(image); /* the entries in the tables that go: snapshots may share them */
    if (!result)
        result = free_tables_behind(image, size);
    if (!result)
        result = qcow2_commit_stable(image);
    if (!result)
        result = qcow2_commit_stable(image); /* counted down; now written */
    if (!result)
        result = cut_file(image);
    pthread_mutex_unlock(&image->meta);
    return result ? error_set(err, -result, "%s", strerror(-result)) : 0;
}

int qcow2_resize(struct qcow2 *image, uint64_t size, bool shrink, enum qcow2_preallocation preallocation,
                 struct error *err)
{
    uint64_t old_size = qcow2_size(image);
    int result = qcow2_write_check(image, 0, 0);

    if (result)
        return error_set(err, -result, "the image cannot be written: %s", strerror(-result));
    if (size > MAX_DISK_SIZE || size % 512)
        return error_set(err, EINVAL, "the size must be a multiple of 512 up to 2^61 bytes");
    if (image->info.snapshot_count && image->info.version < 3)
        return error_set(err, ENOTSUP, "an image of version 2 with snapshots cannot be resized");
    if (size < old_size && !shrink)
        return error_set(err, EINVAL, "the image would become smaller, which deletes what is behind");
    if (size < old_size && preallocation != QCOW2_PREALLOC_OFF)
        return error_set(err, EINVAL, "nothing can be preallocated when the image becomes smaller");
    if (size < old_size)
        return shrink_to(image, size, old_size, err);
    if (size == old_size)
        return 0;
    result = grow(image, size, preallocation, err);
    if (result)
        return result;
    put_be64(image->header + HEADER_SIZE, size);
    result = write_header(image);
    image->info.size = size;
    return result ? error_set(err, -result, "%s", strerror(-result)) : 0;
}
