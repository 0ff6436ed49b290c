/* Reference counts: the two-level table in the file, allocation of clusters, and clusters on their way to being free. `meta` is held
 * by all callers. Specification: "Host cluster management".
 *
 * A cluster that nothing refers to any more keeps its count until the tables that referred to it are in the file: it waits in
 * `pending`, qcow2_commit_stable() counts it down, and only then can it be allocated again.
 *
 * A new refcount block lies in the first cluster that it describes: that one is free for sure and needs no other block. */
#include "devices/block/qcow2_internal.h"

#include <stdlib.h>
#include <string.h>

/* ---- One count ---- */

uint64_t qcow2_refcount_max(const struct qcow2 *image)
{
    return UINT64_MAX >> (64 - (1u << image->refcount_order));
}

uint64_t qcow2_refcount_load(const uint8_t *block, unsigned order, uint64_t index)
{
    unsigned bits = 1u << order;

    switch (order) {
    case 3:
        return block[index];
    case 4:
        return get_be16(block + index * 2);
    case 5:
        return get_be32(block + index * 4);
    case 6:
        return get_be64(block + index * 8);
    default:
        return block[index * bits / 8] >> (index * bits % 8) & ((1u << bits) - 1);
    }
}

void qcow2_refcount_store(uint8_t *block, unsigned order, uint64_t index, uint64_t value)
{
    unsigned bits = 1u << order, shift = index * bits % 8;

    switch (order) {
    case 3:
        block[index] = (uint8_t)value;
        break;
    case 4:
        put_be16(block + index * 2, (uint16_t)value);
        break;
    case 5:
        put_be32(block + index * 4, (uint32_t)value);
        break;
    case 6:
        put_be64(block + index * 8, value);
        break;
    default:
        block += index * bits / 8;
        *block = (uint8_t)((*block & ~(((1u << bits) - 1) << shift)) | value << shift);
        break;
    }
}

static uint64_t per_slice(const struct qcow2 *image)
{
    return (uint64_t)image->refcounts.slice_size * 8 >> image->refcount_order;
}

/* The slice that counts `cluster`, NULL if there is no block for it. */
static int get_slice(struct qcow2 *image, uint64_t cluster, struct qcow2_slice **slice, uint64_t *index)
{
    uint64_t table_index = cluster / image->refblock_entries, in_block = cluster % image->refblock_entries, offset;

    *slice = NULL;
    *index = in_block % per_slice(image);
    if (table_index >= image->reftable_entries)
        return 0;
    offset = image->reftable[table_index] & REFTABLE_MASK;
    if (!offset)
        return 0;
    if (offset & (image->cluster_size - 1))
        return qcow2_mark_corrupt(image, "refcount table entry %llu is not aligned", (unsigned long long)table_index);
    offset += in_block / per_slice(image) * image->refcounts.slice_size;
    return qcow2_cache_get(image, &image->refcounts, offset, slice);
}

int qcow2_refcount_get(struct qcow2 *image, uint64_t cluster, uint64_t *value)
{
    struct qcow2_slice *slice;
    uint64_t index;
    int result = get_slice(image, cluster, &slice, &index);

    *value = !result && slice ? qcow2_refcount_load(slice->data, image->refcount_order, index) : 0;
    return result;
}

static void mark_slice(struct qcow2 *image, uint64_t cluster, bool full)
{
    uint64_t n = cluster / per_slice(image);

    if (n >= image->full_slice_count)
        return;
    if (full)
        image->full_slices[n / 64] |= 1ull << n % 64;
    else
        image->full_slices[n / 64] &= ~(1ull << n % 64);
}

int qcow2_refcount_add(struct qcow2 *image, uint64_t cluster, uint64_t count, int delta)
{
    for (uint64_t i = 0; i < count; i++) {
        struct qcow2_slice *slice;
        uint64_t index, value;
        int result = get_slice(image, cluster + i, &slice, &index);

        if (!result && !slice)
            result = qcow2_mark_corrupt(image, "cluster %llu has no refcount block", (unsigned long long)(cluster + i));
        if (result)
            return result;
        value = qcow2_refcount_load(slice->data, image->refcount_order, index);
        if (delta > 0 ? value >= qcow2_refcount_max(image) : !value)
            return qcow2_mark_corrupt(image, "cluster %llu: refcount %llu is wrong", (unsigned long long)(cluster + i),
                                      (unsigned long long)value);
        value += (uint64_t)(int64_t)delta;
        qcow2_refcount_store(slice->data, image->refcount_order, index, value);
        qcow2_slice_dirty(&image->refcounts, slice, (uint32_t)(index << image->refcount_order >> 3), 1);
        if (!value) {
            image->free_hint = MIN(image->free_hint, cluster + i);
            mark_slice(image, cluster + i, false);
        }
    }
    return 0;
}

/* ---- Tables that grow ---- */

static void set_table_entry(struct qcow2 *image, uint64_t index, uint64_t offset)
{
    struct qcow2_dirty_range *dirty = &image->reftable_dirty;

    image->reftable[index] = offset;
    if (dirty->end == dirty->start)
        *dirty = (struct qcow2_dirty_range){ index * 8, index * 8 + 8 };
    dirty->start = MIN(dirty->start, index * 8);
    dirty->end = MAX(dirty->end, index * 8 + 8);
}

/* A block for what has none: in its own first cluster. It is empty in the file first; the table entry follows at the next commit. */
static int add_block(struct qcow2 *image, uint64_t table_index)
{
    uint64_t cluster = table_index * image->refblock_entries, offset = cluster << image->cluster_bits;
    struct qcow2_slice *slice;
    int result;

    if (qcow2_metadata_overlaps(image, offset, image->cluster_size))
        return qcow2_mark_corrupt(image, "metadata at 0x%llx has no refcount", (unsigned long long)offset);
    for (uint64_t done = 0; done < image->cluster_size; done += MIN(image->cluster_size, sizeof(qcow2_zeroes))) {
        result = qcow2_file_write(image, offset + done, qcow2_zeroes, MIN(image->cluster_size, sizeof(qcow2_zeroes)));
        if (result)
            return result;
    }
    image->high_water = MAX(image->high_water, offset + image->cluster_size);
    qcow2_cache_forget(image, &image->refcounts, offset, image->cluster_size);
    result = qcow2_cache_get(image, &image->refcounts, offset, &slice);
    if (!result)
        result = qcow2_metadata_add(image, offset, image->cluster_size);
    if (result)
        return result;
    qcow2_refcount_store(slice->data, image->refcount_order, 0, 1);
    qcow2_slice_dirty(&image->refcounts, slice, 0, 1);
    set_table_entry(image, table_index, offset);
    return 0;
}

/* Sizes of a table that replaces the full one: `table` clusters, `blocks` behind it that count both. */
static int plan_table(const struct qcow2 *image, uint64_t *table, uint64_t *blocks)
{
    uint64_t per_cluster = image->cluster_size / 8, bytes = MAX_REFTABLE_BYTES;

    *table = clusters_for(image, image->reftable_entries * 8 * 3 / 2 + image->cluster_size);
    do {
        *blocks = (*table + image->refblock_entries) / image->refblock_entries;
        while (*table + *blocks > *blocks * image->refblock_entries)
            (*blocks)++;
        if (image->reftable_entries + *blocks <= *table * per_cluster)
            return *table * image->cluster_size <= bytes ? 0 : -EFBIG;
        (*table)++;
    } while (*table * image->cluster_size <= bytes);
    return -EFBIG;
}

static int write_new_blocks(struct qcow2 *image, uint64_t offset, uint64_t used, uint64_t blocks)
{
    uint8_t *block = malloc(image->cluster_size);
    int result = block ? 0 : -ENOMEM;

    for (uint64_t i = 0; i < blocks && !result; i++) {
        memset(block, 0, image->cluster_size);
        for (uint64_t n = 0; n < image->refblock_entries && i * image->refblock_entries + n < used; n++)
            qcow2_refcount_store(block, image->refcount_order, n, 1);
        result = qcow2_file_write(image, offset + i * image->cluster_size, block, image->cluster_size);
    }
    free(block);
    return result;
}

static int resize_full_bitmap(struct qcow2 *image)
{
    uint64_t slices = image->reftable_entries * (image->cluster_size / image->refcounts.slice_size);
    uint64_t *bitmap = calloc(slices / 64 + 1, 8);

    if (!bitmap)
        return -ENOMEM;
    if (image->full_slices)
        memcpy(bitmap, image->full_slices, (image->full_slice_count / 64 + 1) * 8);
    free(image->full_slices);
    image->full_slices = bitmap;
    image->full_slice_count = slices;
    return 0;
}

/* The table covers all clusters that are in use, and is full: a bigger one goes right behind them. Blocks and table are stable
 * before the header refers to them; then the old table is free. */
static int grow_table(struct qcow2 *image)
{
    uint64_t first = image->reftable_entries * image->refblock_entries, offset = first << image->cluster_bits;
    uint64_t table_clusters, blocks, entries, old_offset = image->reftable_offset,
                                              old_entries = image->reftable_entries;
    uint64_t *table;
    uint8_t saved[HEADER_SECTOR];
    bool need_flush;
    int result = plan_table(image, &table_clusters, &blocks);

    if (result)
        return result;
    /* What is pending for the old table goes there first: a crash must find one that is complete. */
    result = qcow2_commit(image, &need_flush);
    if (result)
        return result;
    if (qcow2_metadata_overlaps(image, offset, (table_clusters + blocks) * image->cluster_size))
        return qcow2_mark_corrupt(image, "metadata at 0x%llx or behind has no refcount", (unsigned long long)offset);
    entries = table_clusters * image->cluster_size / 8;
    table = calloc(entries, 8);
    if (!table)
        return -ENOMEM;
    memcpy(table, image->reftable, old_entries * 8);
    for (uint64_t i = 0; i < blocks; i++)
        table[old_entries + i] = offset + (table_clusters + i) * image->cluster_size;
    result = write_new_blocks(image, offset + table_clusters * image->cluster_size, table_clusters + blocks, blocks);
    if (!result)
        result = qcow2_write_entries(image, offset, table, entries, (struct qcow2_dirty_range){ 0, entries * 8 });
    if (!result)
        result = qcow2_file_flush(image);
    if (!result)
        result = qcow2_metadata_add(image, offset, (table_clusters + blocks) * image->cluster_size);
    if (result) {
        free(table);
        return result;
    }
    memcpy(saved, image->header, sizeof(saved));
    put_be64(image->header + HEADER_REFTABLE_OFFSET, offset);
    put_be32(image->header + HEADER_REFTABLE_CLUSTERS, (uint32_t)table_clusters);
    result = qcow2_header_write(image);
    if (!result)
        result = qcow2_file_flush(image);
    if (result) { /* which table is valid now nobody knows: both stay */
        memcpy(image->header, saved, sizeof(saved));
        free(table);
        return qcow2_mark_corrupt(image, "the header cannot be written: %s", strerror(-result));
    }
    free(image->reftable);
    image->reftable = table;
    image->reftable_entries = entries;
    image->reftable_offset = offset;
    image->high_water = MAX(image->high_water, offset + (table_clusters + blocks) * image->cluster_size);
    qcow2_cache_forget(image, &image->refcounts, offset + table_clusters * image->cluster_size,
                       blocks * image->cluster_size);
    qcow2_metadata_remove(image, old_offset, old_entries * 8);
    result = resize_full_bitmap(image);
    return result ? result
                  : qcow2_refcount_add(image, cluster_of(image, old_offset), clusters_for(image, old_entries * 8), -1);
}

/* Room for a table that is bigger than what one block describes: behind all blocks, and the new blocks behind the table. */
int qcow2_alloc_table(struct qcow2 *image, uint64_t count, uint64_t *offset)
{
    uint64_t first_block, blocks = 1, start;
    int result;

    while (count + blocks > blocks * image->refblock_entries)
        blocks++;
    for (;;) {
        first_block = image->reftable_entries;
        while (first_block && !(image->reftable[first_block - 1] & REFTABLE_MASK))
            first_block--;
        if (first_block + blocks <= image->reftable_entries)
            break;
        result = grow_table(image);
        if (result)
            return result;
    }
    start = (first_block * image->refblock_entries) << image->cluster_bits;
    *offset = start;
    if (start + ((count + blocks) << image->cluster_bits) > MAX_HOST_OFFSET)
        return -EFBIG;
    if (qcow2_metadata_overlaps(image, start, (count + blocks) << image->cluster_bits))
        return qcow2_mark_corrupt(image, "metadata at 0x%llx or behind has no refcount", (unsigned long long)start);
    start += count << image->cluster_bits;
    result = write_new_blocks(image, start, count + blocks, blocks);
    if (!result)
        result = qcow2_metadata_add(image, start, blocks << image->cluster_bits);
    if (result)
        return result;
    qcow2_cache_forget(image, &image->refcounts, start, blocks << image->cluster_bits);
    image->high_water = MAX(image->high_water, start + (blocks << image->cluster_bits));
    for (uint64_t i = 0; i < blocks; i++)
        set_table_entry(image, first_block + i, start + (i << image->cluster_bits));
    return 0;
}

/* ---- Allocation ---- */

/* How many clusters from `cluster` on are free, up to `want`, or (0) where to look next. */
static int free_run(struct qcow2 *image, uint64_t cluster, uint64_t want, uint64_t *run, uint64_t *next)
{
    struct qcow2_slice *slice;
    uint64_t index, n = cluster / per_slice(image), end;
    int result;

    *run = 0;
    if (cluster / image->refblock_entries >= image->reftable_entries) {
        *next = cluster;
        return grow_table(image);
    }
    if (n < image->full_slice_count && image->full_slices[n / 64] >> n % 64 & 1) {
        *next = (n + 1) * per_slice(image);
        return 0;
    }
    result = get_slice(image, cluster, &slice, &index);
    if (!result && !slice) {
        *next = cluster;
        return add_block(image, cluster / image->refblock_entries);
    }
    if (result)
        return result;
    end = per_slice(image);
    while (index < end && qcow2_refcount_load(slice->data, image->refcount_order, index))
        index++;
    *next = n * per_slice(image) + index;
    if (index == end) {
        if (cluster % per_slice(image) == 0)
            mark_slice(image, cluster, true);
        return 0;
    }
    while (index < end && *run < want && !qcow2_refcount_load(slice->data, image->refcount_order, index)) {
        (*run)++;
        index++;
    }
    return 0;
}

/* A run that goes on over the end of a slice is put together; `first` is where it begins. */
static int find_free(struct qcow2 *image, uint64_t want, bool exact, uint64_t *first, uint64_t *count)
{
    uint64_t at = image->free_hint, total = 0;
    bool hint = true;

    for (;;) {
        uint64_t run, next;
        int result = free_run(image, at, want - total, &run, &next);

        if (result)
            return result;
        if (next >= MAX_HOST_OFFSET >> image->cluster_bits)
            return -EFBIG;
        if (total && (next != at || !run)) { /* what came before ends here; or a table was made here */
            if (!exact)
                break;
            total = 0;
        }
        if (run) {
            if (!total)
                *first = next;
            if (hint)
                image->free_hint = next;
            hint = false;
            total += run;
            if (total >= want)
                break;
        }
        at = next + run;
    }
    *count = total;
    return 0;
}

int qcow2_alloc(struct qcow2 *image, uint64_t want, bool exact, uint64_t *offset, uint64_t *count, bool *fresh)
{
    uint64_t first = 0, found = 0;
    int result = find_free(image, want, exact, &first, &found);

    if (result)
        return result;
    *offset = first << image->cluster_bits;
    *count = found;
    if (qcow2_metadata_overlaps(image, *offset, found << image->cluster_bits))
        return qcow2_mark_corrupt(image, "metadata at 0x%llx or behind has no refcount", (unsigned long long)*offset);
    result = qcow2_refcount_add(image, first, found, 1);
    if (result)
        return result;
    *fresh = *offset >= image->high_water;
    image->high_water = MAX(image->high_water, *offset + (found << image->cluster_bits));
    if (image->free_hint == first)
        image->free_hint = first + found;
    return 0;
}

/* ---- Freeing ---- */

static void discard_free(struct qcow2 *image, uint64_t cluster, uint64_t count)
{
    if ((image->flags & QCOW2_UNMAP) && image->file.ops->discard && count)
        image->file.ops->discard(image->file.opaque, cluster << image->cluster_bits, count << image->cluster_bits);
}

void qcow2_free_unused(struct qcow2 *image, uint64_t offset, uint64_t count)
{
    qcow2_refcount_add(image, cluster_of(image, offset), count, -1);
}

/* Makes sure that so many qcow2_free_later() cannot fail. */
int qcow2_pending_reserve(struct qcow2 *image, uint64_t count)
{
    if (!image->pending) {
        image->pending = malloc(QCOW2_MAX_PENDING * sizeof(*image->pending));
        if (!image->pending)
            return -ENOMEM;
    }
    return image->pending_count + count <= QCOW2_MAX_PENDING ? 0 : qcow2_commit_stable(image);
}

int qcow2_free_later(struct qcow2 *image, uint64_t cluster, uint64_t count)
{
    struct qcow2_pending *last;
    int result;

    if (image->pending_count) {
        last = &image->pending[image->pending_count - 1];
        if (last->cluster + last->count == cluster) {
            last->count += count;
            return 0;
        }
    }
    result = qcow2_pending_reserve(image, 1);
    if (result)
        return result;
    image->pending[image->pending_count++] = (struct qcow2_pending){ cluster, count };
    return 0;
}

void qcow2_compressed_extent(const struct qcow2 *image, uint64_t entry, uint64_t *offset, uint64_t *size)
{
    unsigned x = 62 - (image->cluster_bits - 8);
    uint64_t sectors = (entry >> x & ((1ull << (image->cluster_bits - 8)) - 1)) + 1;

    *offset = entry & ((1ull << x) - 1) & (MAX_HOST_OFFSET - 1);
    *size = sectors * 512 - (*offset & 511);
}

int qcow2_free_entry_later(struct qcow2 *image, uint64_t entry)
{
    uint64_t offset = entry & OFFSET_MASK, size = image->cluster_size;

    if (entry & FLAG_COMPRESSED) {
        qcow2_compressed_forget(image, entry);
        qcow2_compressed_extent(image, entry, &offset, &size);
        /* The cluster that the next compressed data would share may become free. */
        image->compressed_next = image->compressed_end = 0;
    } else if (!offset) {
        return 0;
    }
    return qcow2_free_later(image, cluster_of(image, offset),
                            cluster_of(image, offset + size - 1) - cluster_of(image, offset) + 1);
}

/* After a commit and a flush: nothing in the file refers to them. */
static int apply_pending(struct qcow2 *image)
{
    size_t done = 0;
    int result = 0;

    for (; done < image->pending_count && !result; done++) {
        struct qcow2_pending *run = &image->pending[done];
        uint64_t start = run->cluster, value;

        result = qcow2_refcount_add(image, run->cluster, run->count, -1);
        for (uint64_t i = 0; i < run->count && !result && (image->flags & QCOW2_UNMAP); i++) {
            result = qcow2_refcount_get(image, run->cluster + i, &value);
            if (result || value) {
                discard_free(image, start, run->cluster + i - start);
                start = run->cluster + i + 1;
            }
        }
        if (!result)
            discard_free(image, start, run->cluster + run->count - start);
    }
    image->pending_count = 0; /* what could not be counted down is lost until a check: a leak, no more */
    return result;
}

int qcow2_commit_stable(struct qcow2 *image)
{
    bool need_flush;
    int result = qcow2_commit(image, &need_flush);

    if (!result && (need_flush || image->pending_count))
        result = qcow2_file_flush(image);
    return result ? result : apply_pending(image);
}
