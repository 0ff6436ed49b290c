/* All reference counts anew, from what was found to refer to clusters: for images whose refcount table or blocks are lost. They go
 * behind the end of the file, where nothing can be hurt, and the header refers to them last. */
#include "devices/block/qcow2_check.h"

#include <stdlib.h>
#include <string.h>

/* The old table and blocks are not in use any more. */
static int forget_old(struct check *check)
{
    struct qcow2 *image = check->image;
    uint64_t first = cluster_of(image, image->reftable_offset),
             count = clusters_for(image, image->reftable_entries * 8);
    int result = 0;

    for (uint64_t i = 0; i < count && !result; i++) {
        uint32_t counter = qcow2_check_counter(check, first + i);

        result = counter ? qcow2_check_set_counter(check, first + i, counter - 1) : 0;
    }
    for (uint64_t i = 0; i < image->reftable_entries && !result; i++) {
        uint64_t offset = image->reftable[i] & REFTABLE_MASK, cluster = cluster_of(image, offset);

        if (offset && !(offset & (image->cluster_size - 1)) && offset < check->file_size &&
            qcow2_check_counter(check, cluster))
            result = qcow2_check_set_counter(check, cluster, qcow2_check_counter(check, cluster) - 1);
    }
    return result;
}

static bool block_needed(const struct check *check, uint64_t index, uint64_t first_new, uint64_t end_new)
{
    uint64_t start = index * check->image->refblock_entries, end = start + check->image->refblock_entries;

    if (start < end_new && end > first_new)
        return true;
    for (uint64_t cluster = start; cluster < MIN(end, check->clusters); cluster++) {
        if (!check->chunks[cluster / COUNTER_CHUNK])
            cluster = ALIGN_UP(cluster + 1, COUNTER_CHUNK) - 1;
        else if (qcow2_check_counter(check, cluster))
            return true;
    }
    return false;
}

struct plan {
    uint64_t first, table_clusters, blocks, table_entries; /* in clusters; the blocks first, then the table */
};

static int make_plan(const struct check *check, struct plan *plan)
{
    const struct qcow2 *image = check->image;
    uint64_t total = 1, end, blocks;

    plan->first = check->clusters;
    do { /* more blocks need more blocks; this ends, as one block counts many */
        end = plan->first + total;
        plan->table_entries = end / image->refblock_entries + 1;
        blocks = 0;
        for (uint64_t i = 0; i < plan->table_entries; i++)
            blocks += block_needed(check, i, plan->first, end);
        plan->table_clusters = clusters_for(image, plan->table_entries * 8);
        plan->blocks = blocks;
        if (plan->table_clusters * image->cluster_size > MAX_REFTABLE_BYTES)
            return -EFBIG;
        if (blocks + plan->table_clusters <= total)
            return 0;
        total = blocks + plan->table_clusters;
    } while (true);
}

static int write_blocks(struct check *check, const struct plan *plan, uint64_t *table)
{
    struct qcow2 *image = check->image;
    uint64_t end = plan->first + plan->blocks + plan->table_clusters, used = 0;
    uint8_t *block = malloc(image->cluster_size);
    int result = block ? 0 : -ENOMEM;

    for (uint64_t i = 0; i < plan->table_entries && !result; i++) {
        uint64_t first = i * image->refblock_entries;

        if (used >= plan->blocks || !block_needed(check, i, plan->first, end))
            continue;
        memset(block, 0, image->cluster_size);
        for (uint64_t n = 0; n < image->refblock_entries; n++) {
            uint64_t cluster = first + n, count = qcow2_check_counter(check, cluster);

            if (cluster >= plan->first && cluster < end)
                count = 1;
            if (count > qcow2_refcount_max(image))
                result = -ERANGE;
            qcow2_refcount_store(block, image->refcount_order, n, count);
        }
        table[i] = (plan->first + used++) << image->cluster_bits;
        if (!result)
            result = qcow2_file_write(image, table[i], block, image->cluster_size);
    }
    free(block);
    return result;
}

int qcow2_check_rebuild(struct check *check)
{
    struct qcow2 *image = check->image;
    struct plan plan;
    uint64_t *table = NULL, offset;
    int result = forget_old(check);

    if (!result)
        result = make_plan(check, &plan);
    if (result)
        return result;
    table = calloc(plan.table_clusters * image->cluster_size, 1);
    if (!table)
        return -ENOMEM;
    offset = (plan.first + plan.blocks) << image->cluster_bits;
    result = write_blocks(check, &plan, table);
    if (!result)
        result = qcow2_write_entries(image, offset, table, plan.table_entries,
                                     (struct qcow2_dirty_range){ 0, plan.table_clusters * image->cluster_size });
    if (!result)
        result = qcow2_file_flush(image);
    free(table);
    if (result)
        return result;
    put_be64(image->header + HEADER_REFTABLE_OFFSET, offset);
    put_be32(image->header + HEADER_REFTABLE_CLUSTERS, (uint32_t)plan.table_clusters);
    result = qcow2_header_write(image);
    qcow2_check_line(check, "Repairing all reference counts: they are at 0x%llx now", (unsigned long long)offset);
    return result ? result : qcow2_file_flush(image);
}
