/* The check's second half: counts as they are in the file beside the references that were found, flags, repairs, results. One thread uses
 * the image. A count that is too high is a leak: space is lost, nothing else. One that is too low is an error: the cluster would be
 * given away while in use. */
#include "devices/block/qcow2_check.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_LINES 1000 /* a hostile image shall not fill the terminal for hours */

void qcow2_check_line(struct check *check, const char *format, ...)
{
    struct qcow2_check_result *r = check->result;
    char line[256];
    va_list args;

    if (!check->report || r->errors + r->leaks + r->check_errors > MAX_LINES)
        return;
    va_start(args, format);
    vsnprintf(line, sizeof(line), format, args);
    va_end(args);
    check->report(check->opaque, r->errors + r->leaks + r->check_errors == MAX_LINES ? "... and more" : line);
}

/* ---- Counts ---- */

static int compare_one(struct check *check, uint8_t *block, uint64_t index, uint64_t cluster, bool *changed)
{
    struct qcow2_check_result *r = check->result;
    uint64_t stored = qcow2_refcount_load(block, check->image->refcount_order, index),
             found = qcow2_check_counter(check, cluster);
    bool leak = stored > found, fix = check->fix & (leak ? QCOW2_FIX_LEAKS : QCOW2_FIX_ERRORS);

    if (stored) {
        uint64_t end = (cluster + 1) << check->image->cluster_bits;

        if (!fix || found)
            r->image_end_offset = MAX(r->image_end_offset, end);
    }
    if (leak && cluster >= clusters_for(check->image,
                                        check->file_size)) { /* no space is lost there; so QEMU does not count it */
        *changed |= fix;
        if (fix)
            qcow2_refcount_store(block, check->image->refcount_order, index, stored = found);
    } else if (stored != found) {
        fix = fix && found <= qcow2_refcount_max(check->image);
        qcow2_check_line(check, "%s cluster %llu refcount=%llu reference=%llu",
                         fix    ? "Repairing"
                         : leak ? "Leaked"
                                : "ERROR",
                         (unsigned long long)cluster, (unsigned long long)stored, (unsigned long long)found);
        *(leak ? &r->leaks : &r->errors) += 1;
        if (fix) {
            *(leak ? &r->leaks_fixed : &r->errors_fixed) += 1;
            qcow2_refcount_store(block, check->image->refcount_order, index, found);
            *changed = true;
            stored = found;
        }
    }
    return cluster < check->clusters ? qcow2_check_set_counter(check, cluster, (uint32_t)MIN(stored, UINT32_MAX)) : 0;
}

static int compare_block(struct check *check, uint64_t table_index, uint8_t *block)
{
    struct qcow2 *image = check->image;
    uint64_t offset = image->reftable[table_index] & REFTABLE_MASK;
    bool changed = false;
    int result = qcow2_file_read(image, offset, block, image->cluster_size);

    if (result) {
        qcow2_check_line(check, "ERROR refcount block at 0x%llx: %s", (unsigned long long)offset, strerror(-result));
        check->result->check_errors++;
        return 0;
    }
    for (uint64_t i = 0; i < image->refblock_entries && !result; i++)
        result = compare_one(check, block, i, table_index * image->refblock_entries + i, &changed);
    if (!result && changed)
        result = qcow2_file_write(image, offset, block, image->cluster_size);
    return result;
}

/* No block: nothing there may be in use. */
static int compare_missing(struct check *check, uint64_t table_index)
{
    uint64_t first = table_index * check->image->refblock_entries, end = first + check->image->refblock_entries;

    for (uint64_t cluster = first; cluster < MIN(end, check->clusters);) {
        uint32_t found = qcow2_check_counter(check, cluster);

        if (!check->chunks[cluster / COUNTER_CHUNK]) {
            cluster = ALIGN_UP(cluster + 1, COUNTER_CHUNK);
            continue;
        }
        if (found) {
            check->result->errors++;
            qcow2_check_line(check, "ERROR cluster %llu refcount=0 reference=%u", (unsigned long long)cluster, found);
            check->rebuild = true;
            if (!(check->fix & QCOW2_FIX_ERRORS))
                qcow2_check_set_counter(check, cluster, 0); /* as it is in the file */
        }
        cluster++;
    }
    return 0;
}

static bool usable(const struct check *check, uint64_t offset)
{
    return !(offset & (check->image->cluster_size - 1)) && offset < check->file_size;
}

/* The table's own references, before anything is compared. */
static int count_blocks(struct check *check)
{
    struct qcow2 *image = check->image;
    int result = qcow2_check_refer(check, image->reftable_offset, image->reftable_entries * 8, 1, "refcount table");

    for (uint64_t i = 0; i < image->reftable_entries && !result; i++) {
        uint64_t offset = image->reftable[i] & REFTABLE_MASK;

        if (!offset)
            continue;
        if (!usable(check, offset)) {
            qcow2_check_line(check, "ERROR refcount block %llu is not inside of the file", (unsigned long long)i);
            check->result->errors++;
            check->rebuild = true;
            continue;
        }
        if (qcow2_check_counter(check, cluster_of(image, offset))) {
            qcow2_check_line(check, "ERROR refcount block %llu lies where something else is", (unsigned long long)i);
            check->result->errors++;
            check->rebuild = true;
        }
        result = qcow2_check_refer(check, offset, image->cluster_size, 1, "refcount block");
    }
    return result;
}

int qcow2_check_refcounts(struct check *check)
{
    struct qcow2 *image = check->image;
    uint64_t blocks = check->clusters / image->refblock_entries + 1;
    bool doubtful = check->result->errors || check->result->check_errors;
    uint8_t *block;
    int result = count_blocks(check);

    /* References that could not be read may be to what seems to be lost: then nothing is freed. Nor is anything written to a block that
     * may be something else. */
    if (doubtful)
        check->fix &= ~(unsigned)QCOW2_FIX_LEAKS;

    for (uint64_t i = 0; i < blocks && !result; i++) {
        uint64_t offset = i < image->reftable_entries ? image->reftable[i] & REFTABLE_MASK : 0;

        if (!offset || !usable(check, offset))
            result = compare_missing(check, i);
    }
    if (check->rebuild && (doubtful || !(check->fix & QCOW2_FIX_ERRORS)))
        check->fix = 0;
    if (result || (check->rebuild && check->fix))
        return result; /* all of them are made anew, from the references */
    block = malloc(image->cluster_size);
    if (!block)
        return -ENOMEM;
    for (uint64_t i = 0; i < image->reftable_entries && !result; i++) {
        uint64_t offset = image->reftable[i] & REFTABLE_MASK;

        if (offset && usable(check, offset))
            result = compare_block(check, i, block);
    }
    free(block);
    return result;
}

/* ---- COPIED: the count in the file is exactly one ---- */

static bool wrong_flag(struct check *check, uint64_t entry, uint64_t offset, const char *what)
{
    uint32_t count = qcow2_check_counter(check, cluster_of(check->image, offset));
    bool fix = check->fix & QCOW2_FIX_ERRORS;

    if ((count == 1) == !!(entry & FLAG_COPIED))
        return false;
    check->result->errors++;
    check->result->errors_fixed += fix;
    qcow2_check_line(check, "%s flag COPIED of %s 0x%llx, refcount=%u", fix ? "Repairing" : "ERROR", what,
                     (unsigned long long)offset, count);
    return fix;
}

static int copied_in_table(struct check *check, uint64_t offset, uint8_t *buffer)
{
    struct qcow2 *image = check->image;
    bool changed = false;
    int result = qcow2_file_read(image, offset, buffer, image->cluster_size);

    for (uint64_t i = 0; i < image->l2_entries && !result; i++) {
        uint64_t entry = get_be64(buffer + i * image->l2_entry_size), host = entry & OFFSET_MASK;

        if (entry & FLAG_COMPRESSED || !host || host & (image->cluster_size - 1) ||
            cluster_of(image, host) >= check->clusters)
            continue;
        if (wrong_flag(check, entry, host, "cluster")) {
            put_be64(buffer + i * image->l2_entry_size, entry ^ FLAG_COPIED);
            changed = true;
        }
    }
    return !result && changed ? qcow2_file_write(image, offset, buffer, image->cluster_size) : result;
}

int qcow2_check_copied(struct check *check)
{
    struct qcow2 *image = check->image;
    uint8_t *buffer = malloc(image->cluster_size);
    bool changed = false;
    int result = buffer ? 0 : -ENOMEM;

    for (uint64_t i = 0; i < image->l1_size && !result; i++) {
        uint64_t offset = image->l1[i] & OFFSET_MASK;

        if (!offset || !usable(check, offset))
            continue;
        if (wrong_flag(check, image->l1[i], offset, "L2 table")) {
            image->l1[i] ^= FLAG_COPIED;
            changed = true;
        }
        result = copied_in_table(check, offset, buffer);
    }
    free(buffer);
    if (!result && changed)
        result = qcow2_write_entries(image, image->l1_offset, image->l1, image->l1_size,
                                     (struct qcow2_dirty_range){ 0, image->l1_size * 8 });
    return result;
}

/* ---- All of it ---- */

static int run(struct check *check)
{
    struct qcow2 *image = check->image;
    int result = qcow2_file_size(image, &check->file_size);

    if (result)
        return result;
    /* QEMU's images may refer to one cluster past the end. */
    check->clusters = clusters_for(image, check->file_size) + 1;
    if (check->clusters > MAX_CHECK_CLUSTERS)
        return -EFBIG;
    check->chunk_count = check->clusters / COUNTER_CHUNK + 1;
    check->chunks = calloc(check->chunk_count, sizeof(*check->chunks));
    if (!check->chunks)
        return -ENOMEM;
    check->result->total_clusters = clusters_for(image, image->info.size);
    result = qcow2_check_count_references(check);
    if (!result)
        result = qcow2_check_refcounts(check);
    if (!result && check->rebuild && check->fix)
        result = qcow2_check_rebuild(check);
    if (!result)
        result = qcow2_check_copied(check);
    return result;
}

static int check_once(struct qcow2 *image, unsigned fix, void (*report)(void *opaque, const char *line), void *opaque,
                      struct qcow2_check_result *result)
{
    struct check check = { .image = image, .fix = fix, .report = report, .opaque = opaque, .result = result };
    int status;

    *result = (struct qcow2_check_result){ 0 };
    status = run(&check);
    for (uint64_t i = 0; check.chunks && i < check.chunk_count; i++)
        free(check.chunks[i]);
    free(check.chunks);
    free(check.tables);
    return status;
}

static int clear_marks(struct qcow2 *image, const struct qcow2_check_result *result, unsigned fix)
{
    uint64_t clear = 0;
    int status;

    if (result->errors || result->check_errors || image->info.version < 3)
        return 0;
    if (fix & QCOW2_FIX_ERRORS)
        clear = QCOW2_INCOMPATIBLE_CORRUPT;
    if (!result->leaks || fix & QCOW2_FIX_ERRORS)
        clear |= QCOW2_INCOMPATIBLE_DIRTY;
    if (!(image->incompatible & clear))
        return 0;
    image->incompatible &= ~clear;
    put_be64(image->header + HEADER_INCOMPATIBLE, image->incompatible);
    status = qcow2_header_write(image);
    image->info.dirty = image->incompatible & QCOW2_INCOMPATIBLE_DIRTY;
    image->info.corrupt = image->incompatible & QCOW2_INCOMPATIBLE_CORRUPT;
    return status ? status : qcow2_file_flush(image);
}

int qcow2_check(struct qcow2 *image, unsigned fix, void (*report)(void *opaque, const char *line), void *opaque,
                struct qcow2_check_result *result, struct error *err)
{
    struct qcow2_check_result after;
    int status = 0;

    if (fix && image->flags & QCOW2_READ_ONLY)
        return error_set(err, EACCES, "the image is open for reading only");
    if (fix & QCOW2_FIX_ERRORS)
        fix |= QCOW2_FIX_LEAKS;
    /* The first one lets clusters become free, the second one writes that. */
    for (unsigned i = 0; i < 2 && !status && !(image->flags & QCOW2_READ_ONLY) && !atomic_load(&image->corrupt); i++)
        status = qcow2_flush(image);
    if (!status)
        status = check_once(image, fix, report, opaque, result);
    if (!status && fix) {
        status = qcow2_file_flush(image);
        if (!status && qcow2_reload(image, err))
            return -EIO;
        if (!status)
            status = check_once(image, 0, NULL, NULL, &after);
        if (!status) {
            after.errors_fixed = result->errors > after.errors ? result->errors - after.errors : 0;
            after.leaks_fixed = result->leaks > after.leaks ? result->leaks - after.leaks : 0;
            *result = after;
            if (!after.errors && !after.check_errors)
                atomic_store(&image->corrupt, false);
            status = clear_marks(image, result, fix);
        }
    }
    return status ? error_set(err, -status, "the check failed: %s", strerror(-status)) : 0;
}
