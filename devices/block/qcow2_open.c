/* Opening and closing. What the tables say is checked as far as it can be without reading all of them: offsets are aligned and inside
 * of the file, no two tables lie in the same place. An image that fails this may be read, but writing is refused.
 *
 * Memory: the L1 table (up to 32 MiB) and the refcount table (8 MiB) as a whole, each as the header says, but never more than the file is
 * long; 16 to 64 bytes for each L2 table and refcount block; caches. */
#include "devices/block/qcow2_internal.h"

#include <stdlib.h>
#include <string.h>

/* ---- Tables ---- */

int qcow2_read_table(struct qcow2 *image, uint64_t offset, uint64_t entries, uint64_t **table, struct error *err)
{
    uint64_t file_size, size = entries * 8;
    int result = qcow2_file_size(image, &file_size);

    *table = NULL;
    if (result)
        return error_set(err, -result, "the size of the file: %s", strerror(-result));
    if (entries && (offset & (image->cluster_size - 1) || !offset || offset > file_size || size > file_size - offset))
        return error_set(err, EINVAL, "the table at 0x%llx with %llu entries is not inside of the file",
                         (unsigned long long)offset, (unsigned long long)entries);
    *table = malloc(size + 8);
    if (!*table)
        return error_set(err, ENOMEM, "no memory for a table of %llu bytes", (unsigned long long)size);
    result = qcow2_file_read(image, offset, *table, size);
    if (result) {
        free(*table);
        *table = NULL;
        return error_set(err, -result, "the table at 0x%llx: %s", (unsigned long long)offset, strerror(-result));
    }
    for (uint64_t i = 0; i < entries; i++)
        (*table)[i] = __builtin_bswap64((*table)[i]);
    return 0;
}

static int read_l1(struct qcow2 *image, struct error *err)
{
    uint64_t needed = clusters_for(image, image->info.size);
    int result;

    needed = needed / image->l2_entries + !!(needed % image->l2_entries);
    image->l1_size = get_be32(image->header + HEADER_L1_SIZE);
    image->l1_offset = get_be64(image->header + HEADER_L1_OFFSET);
    if (image->l1_size * 8 > MAX_L1_BYTES)
        return error_set(err, EFBIG, "an L1 table of %llu entries is too big", (unsigned long long)image->l1_size);
    if (image->l1_size < needed)
        return error_set(err, EINVAL, "the L1 table has %llu entries, the virtual size needs %llu",
                         (unsigned long long)image->l1_size, (unsigned long long)needed);
    result = qcow2_read_table(image, image->l1_offset, image->l1_size, &image->l1, err);
    return result ? error_prefix(err, result, "L1") : 0;
}

static int read_reftable(struct qcow2 *image, struct error *err)
{
    uint64_t bytes = (uint64_t)get_be32(image->header + HEADER_REFTABLE_CLUSTERS) << image->cluster_bits;
    int result;

    image->reftable_offset = get_be64(image->header + HEADER_REFTABLE_OFFSET);
    if (bytes > MAX_REFTABLE_BYTES)
        return error_set(err, EFBIG, "a refcount table of %llu bytes is too big", (unsigned long long)bytes);
    if (!bytes)
        return error_set(err, EINVAL, "there is no refcount table");
    image->reftable_entries = bytes / 8;
    result = qcow2_read_table(image, image->reftable_offset, image->reftable_entries, &image->reftable, err);
    return result ? error_prefix(err, result, "refcounts") : 0;
}

/* ---- What is where ---- */

static int add_table(struct qcow2 *image, uint64_t offset, uint64_t size, uint64_t file_size, const char *what,
                     struct error *err)
{
    int result = 0;

    if (offset & (image->cluster_size - 1) || offset >= file_size ||
        size > ALIGN_UP(file_size, image->cluster_size) - offset)
        return error_set(err, EINVAL, "the %s at 0x%llx is not inside of the file", what, (unsigned long long)offset);
    result = qcow2_metadata_add(image, offset, size);
    if (result == -EEXIST)
        return error_set(err, EINVAL, "the %s at 0x%llx lies over other metadata", what, (unsigned long long)offset);
    return result ? error_set(err, -result, "no memory") : 0;
}

static int add_all_tables(struct qcow2 *image, struct error *err)
{
    uint64_t file_size;
    int result = qcow2_file_size(image, &file_size);

    if (!result)
        result = add_table(image, 0, image->cluster_size, file_size, "header", err);
    if (!result && image->l1_size)
        result = add_table(image, image->l1_offset, image->l1_size * 8, file_size, "L1 table", err);
    if (!result)
        result =
            add_table(image, image->reftable_offset, image->reftable_entries * 8, file_size, "refcount table", err);
    if (!result && image->info.snapshot_count)
        result =
            add_table(image, image->snapshots_offset, image->snapshot_table_size, file_size, "snapshot table", err);
    for (unsigned i = 0; i < image->info.snapshot_count && !result; i++) {
        if (image->snapshot_l1_sizes[i] * 8ull > MAX_L1_BYTES)
            result = error_set(err, EFBIG, "the L1 table of snapshot %u is too big", i);
        else if (image->snapshot_l1_sizes[i])
            result = add_table(image, image->snapshot_l1_offsets[i], image->snapshot_l1_sizes[i] * 8ull, file_size,
                               "L1 table of a snapshot", err);
    }
    for (uint64_t i = 0; i < image->l1_size && !result; i++) {
        if (image->l1[i] & OFFSET_MASK)
            result = add_table(image, image->l1[i] & OFFSET_MASK, image->cluster_size, file_size, "L2 table", err);
    }
    for (uint64_t i = 0; i < image->reftable_entries && !result; i++) {
        if (image->reftable[i] & REFTABLE_MASK)
            result = add_table(image, image->reftable[i] & REFTABLE_MASK, image->cluster_size, file_size,
                               "refcount block", err);
    }
    return result;
}

static void free_tables(struct qcow2 *image)
{
    free(image->l1);
    free(image->reftable);
    free(image->full_slices);
    image->l1 = image->reftable = image->full_slices = NULL;
    qcow2_set_free(&image->metadata);
    qcow2_snapshots_free(image);
    image->l1_dirty = image->reftable_dirty = (struct qcow2_dirty_range){ 0 };
}

/* Also after a repair. */
int qcow2_reload(struct qcow2 *image, struct error *err)
{
    int result;

    free_tables(image);
    qcow2_cache_clear(&image->l2);
    qcow2_cache_clear(&image->refcounts);
    image->pending_count = 0;
    image->free_hint = 0;
    image->compressed_next = image->compressed_end = 0;
    atomic_store(&image->size, image->info.size);
    result = qcow2_file_size(image, &image->high_water);
    if (result)
        return error_set(err, -result, "the size of the file: %s", strerror(-result));
    if ((result = read_l1(image, err)) || (result = read_reftable(image, err)))
        return result;
    image->full_slice_count = image->reftable_entries * (image->cluster_size / image->refcounts.slice_size);
    image->full_slices = calloc(image->full_slice_count / 64 + 1, 8);
    if (!image->full_slices)
        return error_set(err, ENOMEM, "no memory");
    if ((result = qcow2_snapshots_read(image, err)))
        return result;
    result = add_all_tables(image, err);
    if (result && result != -ENOMEM && image->flags & (QCOW2_READ_ONLY | QCOW2_CHECK)) {
        atomic_store(&image->corrupt, true); /* the check says more; whoever reads gets what can be found */
        result = 0;
    }
    return result;
}

/* ---- Open ---- */

static int open_backing(struct qcow2 *image, const struct qcow2_backing_opener *opener, struct error *err)
{
    int result;

    if (!image->backing_name || image->flags & QCOW2_NO_BACKING)
        return 0;
    if (!opener)
        return error_set(err, EINVAL, "the image has a backing file ('%s'), which cannot be opened here",
                         image->backing_name);
    result = opener->open(opener->opaque, image->backing_name, image->backing_format, &image->backing, err);
    if (result)
        return error_prefix(err, result, "backing file '%s'", image->backing_name);
    image->has_backing = true;
    image->backing_size = image->backing.ops->size(image->backing.opaque);
    return 0;
}

static int init(struct qcow2 *image, struct error *err)
{
    uint32_t slice = (uint32_t)MIN(image->cluster_size, QCOW2_SLICE_SIZE);
    uint64_t l2_bytes = (clusters_for(image, image->info.size) + image->l2_entries) * image->l2_entry_size;
    int result = qcow2_cache_init(&image->l2, slice, MIN(l2_bytes, QCOW2_L2_CACHE_BYTES));

    if (!result)
        result = qcow2_cache_init(&image->refcounts, slice, QCOW2_REFCOUNT_CACHE_BYTES);
    return result ? error_set(err, -result, "no memory for caches") : 0;
}

static int check_writable(struct qcow2 *image, struct error *err)
{
    struct qcow2_check_result check;
    int result;

    if (image->flags & (QCOW2_READ_ONLY | QCOW2_CHECK))
        return 0;
    if (image->info.extended_l2)
        return error_set(err, ENOTSUP, "images with extended L2 entries can only be read");
    if (image->info.corrupt)
        return error_set(err, EACCES,
                         "the image is marked corrupt: it can be read, or repaired (eidolon-img check -r all)");
    if (!image->info.dirty)
        return 0;
    /* Not closed properly, with lazy refcounts. */
    image->flags |= QCOW2_CHECK;
    result = qcow2_check(image, QCOW2_FIX_LEAKS | QCOW2_FIX_ERRORS, NULL, NULL, &check, err);
    image->flags &= ~(unsigned)QCOW2_CHECK;
    if (!result && (check.errors || check.check_errors))
        result = error_set(err, EIO, "the image was not closed properly and cannot be repaired");
    return result;
}

int qcow2_open(const struct qcow2_file *file, const struct qcow2_backing_opener *opener, unsigned flags,
               struct qcow2 **opened, struct error *err)
{
    struct qcow2 *image = calloc(1, sizeof(*image));
    int result;

    *opened = NULL;
    if (!image)
        return error_set(err, ENOMEM, "no memory for an image");
    image->file = *file;
    image->flags = flags;
    image->info.read_only = flags & QCOW2_READ_ONLY;
    pthread_mutex_init(&image->meta, NULL);
    pthread_mutex_init(&image->fast, NULL);
    pthread_mutex_init(&image->decompress_lock, NULL);
    pthread_cond_init(&image->pins_changed, NULL);
    if (!(result = qcow2_header_read(image, err)) && !(result = init(image, err)) &&
        !(result = qcow2_reload(image, err)) && !(result = check_writable(image, err)) &&
        !(result = open_backing(image, opener, err))) {
        *opened = image;
        return 0;
    }
    image->file.ops = NULL; /* stays the caller's */
    qcow2_close(image);
    return result;
}

/* ---- Close ---- */

static int finish(struct qcow2 *image)
{
    bool dirty = image->info.dirty;
    int result;

    if (atomic_load(&image->corrupt)) {
        if (image->info.version < 3 || image->flags & QCOW2_CHECK)
            return -EIO;
        put_be64(image->header + HEADER_INCOMPATIBLE, image->incompatible | QCOW2_INCOMPATIBLE_CORRUPT);
        qcow2_header_write(image);
        qcow2_file_flush(image);
        return -EIO;
    }
    pthread_mutex_lock(&image->meta);
    result = qcow2_commit_stable(image);
    image->info.dirty = false; /* refcounts are not kept back any more */
    if (!result)
        result = qcow2_commit_stable(image);
    if (!result)
        result = qcow2_file_flush(image);
    if (!result && dirty) {
        put_be64(image->header + HEADER_INCOMPATIBLE, image->incompatible & ~(uint64_t)QCOW2_INCOMPATIBLE_DIRTY);
        result = qcow2_header_write(image);
        if (!result)
            result = qcow2_file_flush(image);
    }
    pthread_mutex_unlock(&image->meta);
    return result;
}

int qcow2_close(struct qcow2 *image)
{
    int result = 0;

    if (image->file.ops && !(image->flags & QCOW2_READ_ONLY) && atomic_load(&image->write_prepared))
        result = finish(image);
    if (image->has_backing && image->backing.ops->close)
        image->backing.ops->close(image->backing.opaque);
    if (image->file.ops && image->file.ops->close)
        image->file.ops->close(image->file.opaque);
    free_tables(image);
    qcow2_cache_free(&image->l2);
    qcow2_cache_free(&image->refcounts);
    qcow2_compressed_forget(image, 0);
    free(image->pending);
    free(image->backing_name);
    free(image->backing_format);
    pthread_mutex_destroy(&image->meta);
    pthread_mutex_destroy(&image->fast);
    pthread_mutex_destroy(&image->decompress_lock);
    pthread_cond_destroy(&image->pins_changed);
    free(image);
    return result;
}

const struct qcow2_info *qcow2_info(const struct qcow2 *image)
{
    return &image->info;
}

uint64_t qcow2_size(const struct qcow2 *image)
{
    return atomic_load_explicit(&image->size, memory_order_relaxed);
}
