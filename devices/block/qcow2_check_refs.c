/* The check's first half: who refers to which cluster. Each L2 table is read once, however many snapshots share it, and all tables
 * together may not be longer than the file; so time and memory are bounded by the file's size, whatever it says. */
#include "devices/block/qcow2_check.h"

#include <stdlib.h>
#include <string.h>

uint32_t qcow2_check_counter(const struct check *check, uint64_t cluster)
{
    const uint32_t *chunk = cluster < check->clusters ? check->chunks[cluster / COUNTER_CHUNK] : NULL;

    return chunk ? chunk[cluster % COUNTER_CHUNK] : 0;
}

int qcow2_check_set_counter(struct check *check, uint64_t cluster, uint32_t value)
{
    uint32_t **chunk = &check->chunks[cluster / COUNTER_CHUNK];

    if (!*chunk && !value)
        return 0;
    if (!*chunk) {
        if (check->chunks_used >= MAX_COUNTER_CHUNKS)
            return -ENOMEM;
        *chunk = calloc(COUNTER_CHUNK, sizeof(**chunk));
        if (!*chunk)
            return -ENOMEM;
        check->chunks_used++;
    }
    (*chunk)[cluster % COUNTER_CHUNK] = value;
    return 0;
}

int qcow2_check_refer(struct check *check, uint64_t offset, uint64_t size, uint32_t times, const char *what)
{
    uint64_t first = cluster_of(check->image, offset), last = cluster_of(check->image, offset + size - 1);

    if (!size)
        return 0;
    if (offset > MAX_HOST_OFFSET || size > MAX_HOST_OFFSET || last >= check->clusters) {
        qcow2_check_line(check, "ERROR %s at 0x%llx is past the end of the file", what, (unsigned long long)offset);
        check->result->errors++;
        return 0;
    }
    for (uint64_t cluster = first; cluster <= last; cluster++) {
        uint64_t value = (uint64_t)qcow2_check_counter(check, cluster) + times;
        int result = qcow2_check_set_counter(check, cluster, (uint32_t)MIN(value, UINT32_MAX));

        if (result)
            return result;
    }
    return 0;
}

/* ---- L2 tables, by offset ---- */

static struct check_table *place_of(struct check *check, uint64_t offset)
{
    size_t at = (offset * 0x9e3779b97f4a7c15ull >> 20) & (check->table_capacity - 1);

    while (check->tables[at].offset && check->tables[at].offset != offset)
        at = (at + 1) & (check->table_capacity - 1);
    return &check->tables[at];
}

static int grow_tables(struct check *check)
{
    struct check_table *old = check->tables;
    size_t old_capacity = check->table_capacity;

    check->table_capacity = old_capacity ? old_capacity * 2 : 64;
    check->tables = calloc(check->table_capacity, sizeof(*old));
    if (!check->tables) {
        check->tables = old;
        check->table_capacity = old_capacity;
        return -ENOMEM;
    }
    for (size_t i = 0; i < old_capacity; i++) {
        if (old[i].offset)
            *place_of(check, old[i].offset) = old[i];
    }
    free(old);
    return 0;
}

static int add_l2(struct check *check, uint64_t offset, uint32_t l1_number)
{
    struct check_table *table;
    int result = check->table_count * 2 >= check->table_capacity ? grow_tables(check) : 0;

    if (result)
        return result;
    table = place_of(check, offset);
    if (table->offset && table->last_l1 == l1_number) {
        qcow2_check_line(check, "ERROR L2 table at 0x%llx is used twice by one L1 table", (unsigned long long)offset);
        check->result->errors++;
        return 0;
    }
    check->table_count += !table->offset;
    table->offset = offset;
    table->references++;
    table->last_l1 = l1_number;
    table->active |= l1_number == 0;
    return qcow2_check_refer(check, offset, check->image->cluster_size, 1, "L2 table");
}

/* ---- L1 tables ---- */

/* A table of `entries` host-endian values, NULL with the error counted if it cannot be. */
static int load_table(struct check *check, uint64_t offset, uint64_t entries, const char *what, uint64_t **table)
{
    struct error err = { "" };
    int result;

    *table = NULL;
    check->l1_bytes += entries * 8;
    if (check->l1_bytes > check->file_size) {
        qcow2_check_line(check, "ERROR %s at 0x%llx: tables overlap", what, (unsigned long long)offset);
        check->result->errors++;
        return 0;
    }
    result = qcow2_read_table(check->image, offset, entries, table, &err);
    if (result == -ENOMEM)
        return result;
    if (result) {
        qcow2_check_line(check, "ERROR %s: %s", what, err.text);
        check->result->errors++;
        return 0;
    }
    return qcow2_check_refer(check, offset, entries * 8, 1, what);
}

static int count_l1(struct check *check, uint64_t offset, uint64_t entries, uint32_t number)
{
    uint64_t *table;
    int result = entries ? load_table(check, offset, entries, "L1 table", &table) : 0;

    if (!entries || !table)
        return result;
    for (uint64_t i = 0; i < entries && !result; i++) {
        uint64_t l2 = table[i] & OFFSET_MASK;

        if (!l2)
            continue;
        if (l2 & (check->image->cluster_size - 1)) {
            qcow2_check_line(check, "ERROR L1 entry %llu is not aligned", (unsigned long long)i);
            check->result->errors++;
            continue;
        }
        result = add_l2(check, l2, number);
    }
    free(table);
    return result;
}

/* ---- L2 tables ---- */

static int count_entry(struct check *check, const struct check_table *table, uint64_t entry, uint64_t *next)
{
    struct qcow2 *image = check->image;
    struct qcow2_check_result *r = check->result;
    uint64_t offset = entry & OFFSET_MASK, size = image->cluster_size;

    if (entry & FLAG_COMPRESSED) {
        if (entry & FLAG_COPIED) {
            qcow2_check_line(check, "ERROR a compressed cluster has the flag COPIED: 0x%llx",
                             (unsigned long long)entry);
            r->errors++;
        }
        qcow2_compressed_extent(image, entry, &offset, &size);
        if (table->active) {
            r->allocated_clusters++;
            r->compressed_clusters++;
            r->fragmented_clusters++;
        }
        return qcow2_check_refer(check, offset, size, table->references, "compressed cluster");
    }
    if (!offset)
        return 0;
    if (offset & (image->cluster_size - 1)) {
        qcow2_check_line(check, "ERROR offset 0x%llx of a cluster is not aligned", (unsigned long long)offset);
        r->errors++;
        return 0;
    }
    if (image->info.version < 3 && entry & FLAG_ZERO) {
        qcow2_check_line(check, "ERROR zero cluster 0x%llx in an image of version 2", (unsigned long long)offset);
        r->errors++;
    }
    if (table->active) {
        r->allocated_clusters++;
        r->fragmented_clusters += *next && offset != *next;
        *next = offset + image->cluster_size;
    }
    return qcow2_check_refer(check, offset, size, table->references, "cluster");
}

static int count_l2(struct check *check, const struct check_table *table, uint8_t *buffer)
{
    struct qcow2 *image = check->image;
    uint64_t next = 0;
    int result;

    if (table->offset >= check->file_size)
        return 0; /* counted as an error already */
    result = qcow2_file_read(image, table->offset, buffer, image->cluster_size);
    if (result) {
        qcow2_check_line(check, "ERROR L2 table at 0x%llx: %s", (unsigned long long)table->offset, strerror(-result));
        check->result->check_errors++;
        return 0;
    }
    for (uint64_t i = 0; i < image->l2_entries && !result; i++)
        result = count_entry(check, table, get_be64(buffer + i * image->l2_entry_size), &next);
    return result;
}

/* ---- Bitmaps ---- */

static int count_bitmap(struct check *check, const uint8_t *entry)
{
    uint64_t offset = get_be64(entry), entries = get_be32(entry + 8), *table;
    int result = entries ? load_table(check, offset, entries, "bitmap table", &table) : 0;

    if (!entries || !table)
        return result;
    for (uint64_t i = 0; i < entries && !result; i++) {
        uint64_t data = table[i] & OFFSET_MASK;

        if (data & (check->image->cluster_size - 1))
            check->result->errors++;
        else if (data)
            result = qcow2_check_refer(check, data, check->image->cluster_size, 1, "bitmap cluster");
    }
    free(table);
    return result;
}

static int count_bitmaps(struct check *check)
{
    struct qcow2 *image = check->image;
    uint64_t size = image->bitmap_directory_size, at = 0;
    uint8_t *directory;
    int result;

    if (!image->bitmap_count || !image->info.bitmaps)
        return 0;
    if (image->bitmap_directory_offset > check->file_size || size > check->file_size - image->bitmap_directory_offset) {
        qcow2_check_line(check, "ERROR the bitmap directory is past the end of the file");
        check->result->errors++;
        return 0;
    }
    directory = malloc(size);
    if (!directory)
        return -ENOMEM;
    result = qcow2_file_read(image, image->bitmap_directory_offset, directory, size);
    if (!result)
        result = qcow2_check_refer(check, image->bitmap_directory_offset, size, 1, "bitmap directory");
    for (uint32_t i = 0; i < image->bitmap_count && !result; i++) {
        uint64_t length =
            at + 24 <= size ? 24ull + get_be16(directory + at + 18) + get_be32(directory + at + 20) : UINT64_MAX / 2;

        if (at + length > size) {
            qcow2_check_line(check, "ERROR the bitmap directory is too short");
            check->result->errors++;
            break;
        }
        result = count_bitmap(check, directory + at);
        at += ALIGN_UP(length, 8);
    }
    free(directory);
    return result;
}

int qcow2_check_count_references(struct check *check)
{
    struct qcow2 *image = check->image;
    uint8_t *buffer = malloc(image->cluster_size);
    int result = buffer ? qcow2_check_refer(check, 0, image->cluster_size, 1, "header") : -ENOMEM;

    if (!result)
        result = count_l1(check, image->l1_offset, image->l1_size, 0);
    if (!result && image->info.snapshot_count)
        result = qcow2_check_refer(check, image->snapshots_offset, image->snapshot_table_size, 1, "snapshot table");
    for (unsigned i = 0; i < image->info.snapshot_count && !result; i++)
        result = count_l1(check, image->snapshot_l1_offsets[i], image->snapshot_l1_sizes[i], i + 1);
    if (!result)
        result = count_bitmaps(check);
    for (size_t i = 0; i < check->table_capacity && !result; i++) {
        if (check->tables[i].offset)
            result = count_l2(check, &check->tables[i], buffer);
    }
    free(buffer);
    return result;
}
