/* The directory of internal snapshots: for `info`, for the check of references, and so that their tables are not written over. Taking
 * and loading snapshots is not done here. Specification: "Snapshots". */
#include "devices/block/qcow2_internal.h"

#include <stdlib.h>
#include <string.h>

#define ENTRY_SIZE 40 /* the fixed part */

void qcow2_snapshots_free(struct qcow2 *image)
{
    for (unsigned i = 0; image->snapshots && i < image->info.snapshot_count; i++) {
        free(image->snapshots[i].id);
        free(image->snapshots[i].name);
    }
    free(image->snapshots);
    free(image->snapshot_l1_offsets);
    free(image->snapshot_l1_sizes);
    image->snapshots = NULL;
    image->snapshot_l1_offsets = NULL;
    image->snapshot_l1_sizes = NULL;
    image->info.snapshots = NULL;
    image->info.snapshot_count = 0;
}

static int read_string(struct qcow2 *image, uint64_t offset, uint16_t size, char **text)
{
    *text = calloc(1, (size_t)size + 1);
    return *text ? qcow2_file_read(image, offset, *text, size) : -ENOMEM;
}

static int read_entry(struct qcow2 *image, unsigned n, uint64_t *at)
{
    struct qcow2_snapshot_info *snapshot = &image->snapshots[n];
    uint8_t fixed[ENTRY_SIZE], extra[24] = { 0 };
    uint32_t extra_size;
    uint16_t id_size, name_size;
    int result = qcow2_file_read(image, *at, fixed, sizeof(fixed));

    if (result)
        return result;
    image->snapshot_l1_offsets[n] = get_be64(fixed);
    image->snapshot_l1_sizes[n] = get_be32(fixed + 8);
    id_size = get_be16(fixed + 12);
    name_size = get_be16(fixed + 14);
    extra_size = get_be32(fixed + 36);
    if (extra_size > MAX_SNAPSHOT_EXTRA)
        return -EINVAL;
    result = qcow2_file_read(image, *at + ENTRY_SIZE, extra, MIN(extra_size, sizeof(extra)));
    if (!result)
        result = read_string(image, *at + ENTRY_SIZE + extra_size, id_size, &snapshot->id);
    if (!result)
        result = read_string(image, *at + ENTRY_SIZE + extra_size + id_size, name_size, &snapshot->name);
    snapshot->date_seconds = get_be32(fixed + 16);
    snapshot->date_ns = get_be32(fixed + 20);
    snapshot->vm_clock_ns = get_be64(fixed + 24);
    snapshot->vm_state_size = extra_size >= 8 ? get_be64(extra) : get_be32(fixed + 32);
    snapshot->disk_size = extra_size >= 16 ? get_be64(extra + 8) : image->info.size;
    snapshot->icount = extra_size >= 24 ? get_be64(extra + 16) : UINT64_MAX;
    *at = ALIGN_UP(*at + ENTRY_SIZE + extra_size + id_size + name_size, 8);
    return result;
}

int qcow2_snapshots_read(struct qcow2 *image, struct error *err)
{
    uint32_t count = get_be32(image->header + HEADER_SNAPSHOTS);
    uint64_t at = get_be64(image->header + HEADER_SNAPSHOTS_OFFSET), file_size, start = at;
    int result;

    if (!count)
        return 0;
    if (count > MAX_SNAPSHOTS)
        return error_set(err, EFBIG, "%u snapshots are more than there can be", count);
    result = qcow2_file_size(image, &file_size);
    if (result || at & (image->cluster_size - 1) || !at || at >= file_size ||
        file_size - at < (uint64_t)count * ENTRY_SIZE)
        return error_set(err, EINVAL, "the snapshot table is not inside of the file");
    image->snapshots = calloc(count, sizeof(*image->snapshots));
    image->snapshot_l1_offsets = calloc(count, sizeof(uint64_t));
    image->snapshot_l1_sizes = calloc(count, sizeof(uint32_t));
    image->info.snapshots = image->snapshots;
    image->info.snapshot_count = count;
    if (!image->snapshots || !image->snapshot_l1_offsets || !image->snapshot_l1_sizes)
        return error_set(err, ENOMEM, "no memory for %u snapshots", count);
    for (unsigned i = 0; i < count; i++) {
        result = read_entry(image, i, &at);
        if (!result && (at > ALIGN_UP(file_size, 8) || at - start > MAX_SNAPSHOT_TABLE))
            result = -EINVAL;
        if (result)
            return error_set(err, -result, "snapshot %u cannot be read: %s", i, strerror(-result));
    }
    image->snapshots_offset = start;
    image->snapshot_table_size = at - start;
    return 0;
}
