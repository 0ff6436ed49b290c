/* From an offset on the disk to where its bytes are: L1 and L2 tables. Specification: "Cluster mapping", "Extended L2 Entries".
 *
 * Looking something up that is in memory takes `fast` alone, so it goes on while another thread writes metadata. Extents are put
 * together from neighbouring entries of one slice. What an entry says is not believed: an offset that is not aligned, or (for writing)
 * one that lies in metadata, makes the image corrupt. */
#include "devices/block/qcow2_internal.h"

#include <string.h>

static uint64_t entries_per_slice(const struct qcow2 *image)
{
    return image->l2.slice_size / image->l2_entry_size;
}

uint64_t qcow2_slice_reach(const struct qcow2 *image, uint64_t offset)
{
    uint64_t covered = entries_per_slice(image) << image->cluster_bits;

    return covered - offset % covered;
}

/* Where in the file the slice for `offset` is; 0: there is no table. */
static int slice_offset(struct qcow2 *image, uint64_t offset, uint64_t *found)
{
    uint64_t cluster = cluster_of(image, offset), index = cluster / image->l2_entries, table;

    *found = 0;
    if (index >= image->l1_size)
        return 0;
    table = image->l1[index] & OFFSET_MASK;
    if (!table)
        return 0;
    if (table & (image->cluster_size - 1))
        return qcow2_mark_corrupt(image, "L1 entry %llu is not aligned", (unsigned long long)index);
    *found = table + ALIGN_DOWN(cluster % image->l2_entries * image->l2_entry_size, image->l2.slice_size);
    return 0;
}

/* ---- One unit: a cluster or a subcluster ---- */

struct unit {
    enum qcow2_kind kind;
    uint64_t host; /* DATA, ZERO with space */
    bool in_place;
};

static int classify_extended(struct qcow2 *image, uint64_t entry, uint64_t bitmap, uint64_t offset, struct unit *unit)
{
    unsigned n = (unsigned)(offset >> image->unit_bits & 31);
    bool data = bitmap >> n & 1, zero = bitmap >> (32 + n) & 1;

    if (data && (zero || !(entry & OFFSET_MASK)))
        return qcow2_mark_corrupt(image, "subcluster bitmap of 0x%llx is wrong", (unsigned long long)offset);
    unit->kind = data ? QCOW2_DATA : zero ? QCOW2_ZERO : QCOW2_UNALLOCATED;
    unit->host = unit->kind == QCOW2_UNALLOCATED || !unit->host ? 0 : unit->host + ((uint64_t)n << image->unit_bits);
    unit->in_place = false; /* such images are not written */
    return 0;
}

static int classify(struct qcow2 *image, const uint8_t *data, uint64_t offset, struct unit *unit)
{
    uint64_t entry = get_be64(data), host = entry & OFFSET_MASK;

    *unit = (struct unit){ .kind = QCOW2_UNALLOCATED };
    if (entry & FLAG_COMPRESSED) {
        unit->kind = QCOW2_COMPRESSED;
        unit->host = entry;
        return 0;
    }
    if (host & (image->cluster_size - 1))
        return qcow2_mark_corrupt(image, "the entry of 0x%llx is not aligned", (unsigned long long)offset);
    unit->host = host;
    unit->in_place = host && (entry & FLAG_COPIED);
    if (image->info.extended_l2)
        return classify_extended(image, entry, get_be64(data + 8), offset, unit);
    if (entry & FLAG_ZERO) {
        if (image->info.version < 3)
            return qcow2_mark_corrupt(image, "a zero cluster in an image of version 2");
        unit->kind = QCOW2_ZERO;
    } else if (host) {
        unit->kind = QCOW2_DATA;
    }
    return 0;
}

static bool continues(const struct qcow2_extent *extent, const struct unit *unit)
{
    if (unit->kind != extent->kind || unit->in_place != extent->in_place || unit->kind == QCOW2_COMPRESSED)
        return false;
    if (unit->kind == QCOW2_DATA || (unit->kind == QCOW2_ZERO && extent->host_offset))
        return unit->host == extent->host_offset + extent->size;
    return unit->kind != QCOW2_ZERO || !unit->host;
}

/* Units from the one that holds `offset` on; the extent begins at that unit's start until the caller cuts it. */
static int collect(struct qcow2 *image, const struct qcow2_slice *slice, uint64_t offset, uint64_t size,
                   struct qcow2_extent *extent)
{
    uint64_t unit_size = 1ull << image->unit_bits, at = ALIGN_DOWN(offset, unit_size), end = offset + size;

    extent->size = 0;
    for (; at < end; at += unit_size) {
        uint64_t index = cluster_of(image, at) % entries_per_slice(image);
        struct unit unit;
        int result = classify(image, slice->data + index * image->l2_entry_size, at, &unit);

        if (result)
            return result;
        if (!extent->size) {
            extent->kind = unit.kind;
            extent->host_offset = unit.host;
            extent->in_place = unit.in_place;
        } else if (!continues(extent, &unit)) {
            break;
        }
        extent->size += unit_size;
    }
    return 0;
}

static void cut_to_backing(const struct qcow2 *image, uint64_t offset, struct qcow2_extent *extent)
{
    if (extent->kind != QCOW2_UNALLOCATED || !image->has_backing || offset >= image->backing_size)
        return;
    extent->kind = QCOW2_BACKING;
    extent->size = MIN(extent->size, image->backing_size - offset);
}

/* `fast` or meta held. -EAGAIN: not in memory. */
static int lookup_cached(struct qcow2 *image, uint64_t offset, uint64_t size, struct qcow2_extent *extent)
{
    uint64_t where, skip = offset & ((1ull << image->unit_bits) - 1);
    struct qcow2_slice *slice;
    int result = slice_offset(image, offset, &where);

    if (result)
        return result;
    size = MIN(size, qcow2_slice_reach(image, offset));
    *extent = (struct qcow2_extent){ .kind = QCOW2_UNALLOCATED, .size = size };
    if (where) {
        slice = qcow2_cache_find(&image->l2, where);
        if (!slice)
            return -EAGAIN;
        result = collect(image, slice, offset, size, extent);
        if (result)
            return result;
        extent->size = MIN(extent->size - skip, size);
        if (extent->kind == QCOW2_DATA || (extent->kind == QCOW2_ZERO && extent->host_offset))
            extent->host_offset += skip;
    }
    cut_to_backing(image, offset, extent);
    return 0;
}

static int load_slice(struct qcow2 *image, uint64_t where, struct qcow2_slice **slice)
{
    uint64_t file_size;
    int result = qcow2_file_size(image, &file_size);

    if (!result && where >= file_size)
        result =
            qcow2_mark_corrupt(image, "an L2 table at 0x%llx is past the end of the file", (unsigned long long)where);
    return result ? result : qcow2_cache_get(image, &image->l2, where, slice);
}

int qcow2_lookup(struct qcow2 *image, uint64_t offset, uint64_t size, struct qcow2_extent *extent)
{
    struct qcow2_slice *slice;
    uint64_t where;
    int result;

    pthread_mutex_lock(&image->fast);
    result = lookup_cached(image, offset, size, extent);
    pthread_mutex_unlock(&image->fast);
    if (result != -EAGAIN)
        return result;
    pthread_mutex_lock(&image->meta);
    result = slice_offset(image, offset, &where);
    if (!result && where)
        result = load_slice(image, where, &slice);
    if (!result) {
        pthread_mutex_lock(&image->fast);
        result = lookup_cached(image, offset, size, extent);
        pthread_mutex_unlock(&image->fast);
    }
    pthread_mutex_unlock(&image->meta);
    return result == -EAGAIN ? -EIO : result;
}

/* ---- For callers that do the I/O themselves ---- */

int qcow2_map(struct qcow2 *image, uint64_t offset, uint64_t size, bool for_write, struct qcow2_pin *pin,
              struct qcow2_extent *extent)
{
    uint64_t disk_size = qcow2_size(image);
    int result;

    if (!size || offset >= disk_size)
        return -EINVAL;
    if (for_write && (!atomic_load(&image->write_prepared) || atomic_load(&image->corrupt)))
        return -EAGAIN;
    size = MIN(size, disk_size - offset);
    pthread_mutex_lock(&image->fast);
    result = lookup_cached(image, offset, size, extent);
    if (!result && for_write &&
        (extent->kind != QCOW2_DATA || !extent->in_place ||
         qcow2_metadata_overlaps(image, extent->host_offset, extent->size)))
        result = -EAGAIN;
    if (!result && pin && extent->kind == QCOW2_DATA && !qcow2_range_try_shared(image, pin, offset, extent->size))
        result = -EAGAIN;
    pthread_mutex_unlock(&image->fast);
    return result;
}

int qcow2_extent(struct qcow2 *image, uint64_t offset, uint64_t size, struct qcow2_extent *extent)
{
    uint64_t disk_size = qcow2_size(image);

    if (!size || offset >= disk_size)
        return -EINVAL;
    return qcow2_lookup(image, offset, MIN(size, disk_size - offset), extent);
}

/* ---- Changing entries: meta held ---- */

int qcow2_entry_get(struct qcow2 *image, uint64_t offset, uint64_t *entry)
{
    uint64_t where, index = cluster_of(image, offset) % entries_per_slice(image);
    struct qcow2_slice *slice;
    int result = slice_offset(image, offset, &where);

    *entry = 0;
    if (result || !where)
        return result;
    result = load_slice(image, where, &slice);
    if (!result)
        *entry = get_be64(slice->data + index * image->l2_entry_size);
    return result;
}

static int fill_table(struct qcow2 *image, uint64_t to, uint64_t from)
{
    uint8_t buffer[8192];
    uint64_t part = MIN(image->cluster_size, sizeof(buffer));
    int result = 0;

    memset(buffer, 0, sizeof(buffer));
    for (uint64_t done = 0; done < image->cluster_size && !result; done += part) {
        if (from)
            result = qcow2_file_read(image, from + done, buffer, part);
        if (!result)
            result = qcow2_file_write(image, to + done, buffer, part);
    }
    return result;
}

/* A table of our own for L1 entry `index`: empty, or a copy of the one that snapshots use too. That one is never dirty in memory, as
 * nobody writes to it. */
static int make_table(struct qcow2 *image, uint64_t index)
{
    uint64_t old = image->l1[index] & OFFSET_MASK, table, count;
    bool fresh;
    int result = qcow2_pending_reserve(image, 2);

    if (!result)
        result = qcow2_alloc(image, 1, true, &table, &count, &fresh);
    if (result)
        return result;
    result = fill_table(image, table, old);
    if (!result)
        result = qcow2_metadata_add(image, table, image->cluster_size);
    if (result) {
        qcow2_free_unused(image, table, 1);
        return result;
    }
    qcow2_cache_forget(image, &image->l2, table, image->cluster_size);
    pthread_mutex_lock(&image->fast);
    image->l1[index] = table | FLAG_COPIED;
    pthread_mutex_unlock(&image->fast);
    if (image->l1_dirty.end == image->l1_dirty.start)
        image->l1_dirty = (struct qcow2_dirty_range){ index * 8, index * 8 + 8 };
    image->l1_dirty.start = MIN(image->l1_dirty.start, index * 8);
    image->l1_dirty.end = MAX(image->l1_dirty.end, index * 8 + 8);
    return old ? qcow2_free_later(image, cluster_of(image, old), 1) : 0;
}

int qcow2_entry_prepare(struct qcow2 *image, uint64_t offset, struct qcow2_slice **slice, uint32_t *position)
{
    uint64_t cluster = cluster_of(image, offset), index = cluster / image->l2_entries, where;
    int result;

    if (index >= image->l1_size)
        return -EIO;
    if (!(image->l1[index] & FLAG_COPIED) || !(image->l1[index] & OFFSET_MASK)) {
        result = make_table(image, index);
        if (result)
            return result;
    }
    result = slice_offset(image, offset, &where);
    if (!result)
        result = load_slice(image, where, slice);
    *position = (uint32_t)(cluster % entries_per_slice(image) * image->l2_entry_size);
    return result;
}

void qcow2_entry_set(struct qcow2 *image, struct qcow2_slice *slice, uint32_t position, uint64_t entry)
{
    pthread_mutex_lock(&image->fast);
    put_be64(slice->data + position, entry);
    qcow2_slice_dirty(&image->l2, slice, position, 8);
    pthread_mutex_unlock(&image->fast);
}
