/* The machine stops after every write to the file. Whatever had reached the disk by then (all of it, or a random part of what was not
 * flushed, torn at sectors), the image has no errors but leaks, holds everything that was flushed, and each sector is as it was at
 * some time since the last flush. */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/qcow2/memory_file.h"

#define SECTORS     512 /* of the disk */
#define OPERATIONS  60
#define MAX_HISTORY 4000

/* A change of a sector, as the guest saw it. 0: zeroes; -1: the backing file's pattern; else every byte is the low byte, and the first
 * four the number. */
struct version {
    unsigned sector;
    int value;
    size_t step; /* when it began: steps of the file before it */
};

struct world {
    struct memory_file file, before;
    struct qcow2 *image;
    struct version history[MAX_HISTORY * 40];
    size_t count;
    size_t flushed_step[OPERATIONS + 2],
        flushed_count[OPERATIONS + 2]; /* when a flush was done, and the history it covers */
    unsigned flushes;
    uint64_t random, backing_size;
    int next_value;
};

static int open_pattern(void *opaque, const char *name, const char *format, struct qcow2_backing *backing,
                        struct error *err)
{
    (void)name, (void)format, (void)err;
    *backing = (struct qcow2_backing){ &pattern_backing_ops, opaque };
    return 0;
}

static void note(struct world *w, unsigned sector, int value)
{
    cr_assert(w->count < ARRAY_SIZE(w->history));
    w->history[w->count++] = (struct version){ sector, value, w->file.step_count };
}

static void fill(uint8_t *sector, int value, unsigned n)
{
    if (value < 0) {
        for (unsigned i = 0; i < 512; i++)
            sector[i] = pattern_backing_byte((uint64_t)n * 512 + i);
        return;
    }
    memset(sector, value, 512);
    memcpy(sector, &value, 4);
}

static struct qcow2 *open_image(struct world *w, struct memory_file *file, unsigned flags)
{
    struct qcow2_backing_opener opener = { open_pattern, &w->backing_size };
    struct qcow2_file handle = memory_file_get(file);
    struct qcow2 *image;
    struct error err = { "" };

    cr_assert_eq(qcow2_open(&handle, &opener, flags, &image, &err), 0, "%s", err.text);
    return image;
}

/* ---- The guest ---- */

static void guest_write(struct world *w, unsigned sector, unsigned count)
{
    uint8_t *data = malloc(count * 512);
    int value = w->next_value++;

    for (unsigned i = 0; i < count; i++) {
        note(w, sector + i, value);
        fill(data + i * 512, value, sector + i);
    }
    cr_assert_eq(qcow2_write(w->image, sector * 512ull, &(struct iovec){ data, count * 512 }, 1), 0);
    free(data);
}

static void guest_operation(struct world *w)
{
    unsigned sector = test_random(&w->random) % SECTORS;
    unsigned count = 1 + test_random(&w->random) % MIN(SECTORS - sector, 40);
    unsigned kind = test_random(&w->random) % 16;
    size_t covered = w->count;

    if (kind < 9) {
        guest_write(w, sector, count);
    } else if (kind < 11) {
        for (unsigned i = 0; i < count; i++)
            note(w, sector + i, 0);
        cr_assert_eq(qcow2_write_zeroes(w->image, sector * 512ull, count * 512ull, kind & 1), 0);
    } else if (kind < 13) {
        /* Only whole clusters go; the others keep what they have. Which is which the history need not know. */
        for (unsigned i = 0; i < count; i++)
            note(w, sector + i, -2);
        cr_assert_eq(qcow2_discard(w->image, sector * 512ull, count * 512ull), 0);
    } else {
        cr_assert_eq(qcow2_flush(w->image), 0);
        w->flushed_step[w->flushes] = w->file.step_count;
        w->flushed_count[w->flushes++] = covered;
    }
}

/* ---- After the crash ---- */

static bool matches(const uint8_t *sector, int value, unsigned n)
{
    uint8_t expected[512];

    fill(expected, value, n);
    return !memcmp(sector, expected, 512);
}

/* May the sector be like this, if the crash was at `step`? */
static bool allowed(const struct world *w, const uint8_t *data, unsigned sector, size_t step)
{
    size_t covered = 0;
    bool discarded = false;

    for (unsigned i = 0; i < w->flushes; i++) {
        if (w->flushed_step[i] <= step)
            covered = w->flushed_count[i];
    }
    for (size_t i = w->count; i-- > 0;) {
        const struct version *v = &w->history[i];

        if (v->sector != sector || v->step > step)
            continue;
        if (v->value == -2) { /* zeroes, or what was there before */
            discarded = true;
            if (matches(data, 0, sector))
                return true;
            continue;
        }
        if (matches(data, v->value, sector))
            return true;
        if (i < covered)
            return false;
    }
    (void)discarded;
    return matches(data, w->backing_size > sector * 512ull ? -1 : 0, sector);
}

static void check_crashed(struct world *w, struct memory_file *crashed, size_t step, uint64_t random, bool lazy)
{
    static uint8_t disk[SECTORS * 512];
    struct qcow2_check_result result;
    struct error err = { "" };
    struct qcow2 *image;

    if (!lazy) {
        image = open_image(w, crashed, QCOW2_CHECK | QCOW2_READ_ONLY);
        cr_assert_eq(qcow2_check(image, 0, NULL, NULL, &result, &err), 0, "%s", err.text);
        cr_assert(!result.errors && !result.check_errors, "step %zu random %llx: %llu errors", step,
                  (unsigned long long)random, (unsigned long long)result.errors);
        qcow2_close(image);
    }
    image = open_image(w, crashed, 0);
    cr_assert_eq(qcow2_check(image, 0, NULL, NULL, &result, &err), 0, "%s", err.text);
    cr_assert(!result.errors && !result.check_errors);
    cr_assert_eq(qcow2_read(image, 0, &(struct iovec){ disk, sizeof(disk) }, 1), 0);
    for (unsigned i = 0; i < SECTORS; i++)
        cr_assert(allowed(w, disk + i * 512, i, step), "step %zu random %llx: sector %u has %02x", step,
                  (unsigned long long)random, i, disk[i * 512 + 5]);
    /* And it can be written again without harm. */
    memset(disk, 0x77, sizeof(disk));
    cr_assert_eq(qcow2_write(image, 0, &(struct iovec){ disk, sizeof(disk) }, 1), 0);
    cr_assert_eq(qcow2_close(image), 0);
}

static void run_world(const struct qcow2_create_options *options, unsigned flags, uint64_t seed, uint64_t backing_size,
                      const char *prepared)
{
    struct world *w = calloc(1, sizeof(*w));
    struct memory_file crashed;
    struct qcow2_file file;
    struct error err = { "" };

    memory_file_init(&w->file);
    memory_file_init(&w->before);
    memory_file_init(&crashed);
    w->random = seed;
    w->next_value = 1;
    w->backing_size = backing_size;
    if (prepared) {
        FILE *stream = fopen(prepared, "rb");
        uint8_t *data = malloc(4 * MIB);
        size_t size = stream ? fread(data, 1, 4 * MIB, stream) : 0;

        cr_assert(size, "%s", prepared);
        memory_file_set(&w->file, data, size);
        free(data);
        fclose(stream);
    } else {
        file = memory_file_get(&w->file);
        cr_assert_eq(qcow2_create(&file, options, &err), 0, "%s", err.text);
    }
    memory_file_set(&w->before, w->file.data, w->file.size);
    w->file.record = true;
    w->image = open_image(w, &w->file, flags);
    for (unsigned i = 0; i < OPERATIONS; i++)
        guest_operation(w);
    cr_assert_eq(qcow2_close(w->image), 0);
    for (size_t step = 0; step <= w->file.step_count; step++) {
        for (unsigned n = 0; n < 3; n++) {
            uint64_t random = n ? test_random(&w->random) | 1 : 0;

            memory_file_crash(&w->file, &w->before, step, random, &crashed);
            check_crashed(w, &crashed, step, random, options && options->lazy_refcounts);
        }
    }
    memory_file_free(&w->file);
    memory_file_free(&w->before);
    memory_file_free(&crashed);
    free(w);
}

Test(crash, small_clusters)
{
    for (uint64_t seed = 1; seed <= 3; seed++)
        run_world(&(struct qcow2_create_options){ .size = SECTORS * 512, .cluster_size = 512 }, 0, seed, 0, NULL);
}

Test(crash, refcounts_64_bits)
{
    run_world(&(struct qcow2_create_options){ .size = SECTORS * 512, .cluster_size = 512, .refcount_bits = 64 }, 0, 11,
              0, NULL);
}

Test(crash, clusters_of_4k_unmap)
{
    for (uint64_t seed = 1; seed <= 3; seed++)
        run_world(&(struct qcow2_create_options){ .size = SECTORS * 512, .cluster_size = 4096 }, QCOW2_UNMAP, seed, 0,
                  NULL);
}

Test(crash, version_2)
{
    run_world(&(struct qcow2_create_options){ .size = SECTORS * 512, .cluster_size = 2048, .version = 2 }, QCOW2_UNMAP,
              21, 0, NULL);
}

Test(crash, lazy_refcounts)
{
    for (uint64_t seed = 31; seed <= 33; seed++)
        run_world(&(struct qcow2_create_options){ .size = SECTORS * 512, .cluster_size = 1024, .lazy_refcounts = true },
                  0, seed, 0, NULL);
}

Test(crash, backing)
{
    for (uint64_t seed = 41; seed <= 43; seed++)
        run_world(&(struct qcow2_create_options){ .size = SECTORS * 512,
                                                  .cluster_size = 4096,
                                                  .backing_name = "pattern",
                                                  .backing_format = "raw" },
                  0, seed, 300 * 512, NULL);
}

/* Clusters and tables that a snapshot shares: QEMU makes it, as the library takes none. The model has zeroes there, so nothing is
 * written before the snapshot but zeroes that lie in clusters of their own. */
Test(crash, snapshot)
{
    char folder[] = "/tmp/qcow2-crash-XXXXXX", command[600], path[64];

    cr_assert(mkdtemp(folder));
    snprintf(path, sizeof(path), "%s/image", folder);
    snprintf(command, sizeof(command),
             "qemu-img create -q -f qcow2 -o cluster_size=2k %s %u && qemu-io -c 'write -P 0 0 200k' %s >/dev/null && "
             "qemu-img snapshot -c one %s",
             path, SECTORS * 512, path, path);
    cr_assert_eq(system(command), 0, "package qemu-utils is needed");
    for (uint64_t seed = 51; seed <= 53; seed++)
        run_world(NULL, 0, seed, 0, path);
    snprintf(command, sizeof(command), "rm -r %s", folder);
    cr_assert_eq(system(command), 0);
}
