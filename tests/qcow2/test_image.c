/* The library's promises one by one: what qcow2_map says and refuses, auto-clear bits, failing writes, full disks, images whose tables
 * send the guest's writes into metadata, limits of memory. */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "devices/block/qcow2_internal.h"
#include "tests/qcow2/memory_file.h"

static struct memory_file memory;
static uint8_t data[MIB];

static struct qcow2 *make(const struct qcow2_create_options *options)
{
    struct qcow2_file file = memory_file_get(&memory);
    struct error err = { "" };
    struct qcow2 *image;

    memory_file_init(&memory);
    cr_assert_eq(qcow2_create(&file, options, &err), 0, "%s", err.text);
    cr_assert_eq(qcow2_open(&file, NULL, 0, &image, &err), 0, "%s", err.text);
    return image;
}

static struct qcow2 *reopen(struct qcow2 *image, unsigned flags)
{
    struct qcow2_file file = memory_file_get(&memory);
    struct error err = { "" };

    if (image)
        cr_assert_eq(qcow2_close(image), 0);
    cr_assert_eq(qcow2_open(&file, NULL, flags, &image, &err), 0, "%s", err.text);
    return image;
}

static int write_at(struct qcow2 *image, uint64_t offset, uint64_t size, uint8_t byte)
{
    memset(data, byte, size);
    return qcow2_write(image, offset, &(struct iovec){ data, size }, 1);
}

static bool reads(struct qcow2 *image, uint64_t offset, uint64_t size, uint8_t byte)
{
    memset(data, ~byte, size);
    if (qcow2_read(image, offset, &(struct iovec){ data, size }, 1))
        return false;
    for (uint64_t i = 0; i < size; i++) {
        if (data[i] != byte)
            return false;
    }
    return true;
}

static void check_clean(struct qcow2 *image, uint64_t leaks)
{
    struct qcow2_check_result result;

    cr_assert_eq(qcow2_check(image, 0, NULL, NULL, &result, NULL), 0);
    cr_assert_eq(result.errors + result.check_errors, 0);
    cr_assert_eq(result.leaks, leaks);
}

Test(image, map)
{
    struct qcow2 *image = make(&(struct qcow2_create_options){ .size = MIB, .cluster_size = 4096 });
    struct qcow2_extent extent;
    struct qcow2_pin pin;

    cr_assert_eq(qcow2_map(image, 0, MIB, false, &pin, &extent), 0);
    cr_assert(extent.kind == QCOW2_UNALLOCATED && extent.size == MIB);
    cr_assert_eq(qcow2_map(image, 0, 512, true, &pin, &extent), -EAGAIN, "nothing to write to");
    cr_assert_eq(write_at(image, 8192, 12288, 1), 0);
    cr_assert_eq(qcow2_map(image, 9000, MIB, true, &pin, &extent), 0);
    cr_assert(extent.kind == QCOW2_DATA && extent.in_place && extent.size == 8192 + 12288 - 9000);
    cr_assert_eq(memory.data[extent.host_offset], 1);
    qcow2_unpin(image, &pin);
    cr_assert_eq(qcow2_write_zeroes(image, 8192, 4096, false), 0);
    cr_assert_eq(qcow2_map(image, 8192, 4096, false, NULL, &extent), 0);
    cr_assert(extent.kind == QCOW2_ZERO && extent.host_offset);
    cr_assert_eq(qcow2_map(image, MIB, 512, false, NULL, &extent), -EINVAL);
    image = reopen(image, 0);
    cr_assert_eq(qcow2_map(image, 8192, 512, false, NULL, &extent), -EAGAIN, "the table is not in memory");
    cr_assert(reads(image, 12288, 4096, 1));
    cr_assert_eq(qcow2_map(image, 12288, 512, false, NULL, &extent), 0);
    cr_assert_eq(qcow2_map(image, 12288, 512, true, NULL, &extent), -EAGAIN,
                 "the first write goes through the library");
    cr_assert_eq(qcow2_close(image), 0);
    memory_file_free(&memory);
}

static void *discard_first(void *opaque)
{
    cr_assert_eq(qcow2_discard(opaque, 0, 4096), 0);
    return NULL;
}

/* A cluster that somebody has pinned is not given away. */
Test(image, pin)
{
    struct qcow2 *image = make(&(struct qcow2_create_options){ .size = MIB, .cluster_size = 4096 });
    struct qcow2_extent extent;
    struct qcow2_pin pin;
    pthread_t thread;

    cr_assert_eq(write_at(image, 0, 4096, 1), 0);
    cr_assert_eq(qcow2_map(image, 0, 512, true, &pin, &extent), 0);
    pthread_create(&thread, NULL, discard_first, image);
    while (!image->pin_waiters)
        sched_yield();
    cr_assert_eq(qcow2_map(image, 0, 512, false, NULL, &extent), 0);
    cr_assert_eq(extent.kind, QCOW2_DATA, "still there");
    qcow2_unpin(image, &pin);
    pthread_join(thread, NULL);
    cr_assert(reads(image, 0, 4096, 0));
    cr_assert_eq(qcow2_close(image), 0);
    memory_file_free(&memory);
}

/* Any write may fail; the image stays whole, and works again when writes do. */
Test(image, failing_writes)
{
    for (unsigned n = 1; n < 60; n++) {
        struct qcow2 *image = make(&(struct qcow2_create_options){ .size = 256 * KIB, .cluster_size = 512 });

        cr_assert_eq(write_at(image, 0, 1000, 9), 0);
        cr_assert_eq(qcow2_flush(image), 0);
        memory.writes_until_failure = n;
        write_at(image, 500, 3000, 1);
        qcow2_flush(image);
        qcow2_discard(image, 1024, 2048);
        qcow2_flush(image);
        write_at(image, 100000, 70000, 2);
        qcow2_flush(image);
        memory.writes_until_failure = 0;
        if (!atomic_load(&image->corrupt)) {
            struct qcow2_check_result result;

            cr_assert_eq(write_at(image, 0, 1000, 3), 0, "after failure %u", n);
            cr_assert_eq(qcow2_flush(image), 0);
            cr_assert_eq(qcow2_check(image, 0, NULL, NULL, &result, NULL), 0);
            cr_assert_eq(result.errors + result.check_errors, 0, "after failure %u", n);
            cr_assert(reads(image, 0, 1000, 3));
            cr_assert_eq(qcow2_close(image), 0);
        } else {
            qcow2_close(image);
        }
        memory_file_free(&memory);
    }
}

Test(image, full_disk)
{
    struct qcow2 *image = make(&(struct qcow2_create_options){ .size = 8 * MIB, .cluster_size = 4096 });
    uint64_t done = 0;
    int result;

    memory.limit = 2 * MIB;
    while (!(result = write_at(image, done, 65536, 7)))
        done += 65536;
    cr_assert_eq(result, -ENOSPC);
    cr_assert(done > MIB);
    cr_assert_eq(qcow2_flush(image), 0);
    check_clean(image, 0);
    memory.limit = 64 * MIB;
    cr_assert_eq(write_at(image, done, 65536, 7), 0);
    cr_assert_eq(qcow2_close(image), 0);
    image = reopen(NULL, 0);
    for (uint64_t at = 0; at <= done; at += 65536)
        cr_assert(reads(image, at, 65536, 7));
    cr_assert_eq(qcow2_close(image), 0);
    memory_file_free(&memory);
}

/* An L2 entry sends the guest's writes to `where`: nothing is written there, and the image is marked. */
static void hostile_entry(uint64_t where)
{
    struct qcow2 *image = make(&(struct qcow2_create_options){ .size = MIB, .cluster_size = 4096 });
    struct qcow2_extent extent;
    uint8_t before[4096];
    uint64_t l2;

    cr_assert_eq(write_at(image, 0, 8192, 1), 0);
    cr_assert_eq(qcow2_flush(image), 0);
    l2 = image->l1[0] & OFFSET_MASK;
    qcow2_close(image);
    if (where == UINT64_MAX)
        where = l2;
    put_be64(memory.data + l2, where | FLAG_COPIED);
    memcpy(before, memory.data + where, sizeof(before));
    image = reopen(NULL, 0);
    cr_assert_eq(write_at(image, 0, 512, 0x66), -EIO);
    cr_assert_eq(qcow2_map(image, 0, 512, true, NULL, &extent), -EAGAIN);
    cr_assert_eq(write_at(image, 65536, 512, 0x66), -EIO, "nothing is written any more");
    cr_assert_eq(qcow2_close(image), -EIO);
    put_be64(memory.data + HEADER_INCOMPATIBLE,
             get_be64(memory.data + HEADER_INCOMPATIBLE) ^ QCOW2_INCOMPATIBLE_CORRUPT);
    cr_assert(!memcmp(before, memory.data + where, sizeof(before)));
    memory_file_free(&memory);
}

Test(image, hostile_entries)
{
    hostile_entry(4096);       /* refcount table */
    hostile_entry(8192);       /* refcount block */
    hostile_entry(12288);      /* L1 table */
    hostile_entry(UINT64_MAX); /* the L2 table itself */
}

/* A refcount of 0 for what is in use: not given to anybody. */
Test(image, hostile_refcount)
{
    struct qcow2 *image = make(&(struct qcow2_create_options){ .size = MIB, .cluster_size = 4096 });

    qcow2_close(image);
    memset(memory.data + 8192, 0, 8); /* of the first four clusters: header and tables */
    image = reopen(NULL, 0);
    cr_assert_eq(write_at(image, 0, 512, 0x66), -EIO);
    cr_assert_eq(qcow2_close(image), -EIO);
    cr_assert_eq(get_be32(memory.data), QCOW2_MAGIC);
    memory_file_free(&memory);
}

Test(image, autoclear)
{
    struct qcow2 *image = make(&(struct qcow2_create_options){ .size = MIB, .cluster_size = 4096 });

    qcow2_close(image);
    put_be64(memory.data + HEADER_AUTOCLEAR, 1ull << 40);
    image = reopen(NULL, 0);
    cr_assert(reads(image, 0, 4096, 0));
    image = reopen(image, 0);
    cr_assert_eq(get_be64(memory.data + HEADER_AUTOCLEAR), 1ull << 40, "reading changes nothing");
    cr_assert_eq(write_at(image, 0, 512, 1), 0);
    cr_assert_eq(get_be64(memory.data + HEADER_AUTOCLEAR), 0);
    cr_assert_eq(qcow2_close(image), 0);
    memory_file_free(&memory);
}

/* A disk of which every second sector is written takes no more memory than the caches may. */
Test(image, bounded_cache)
{
    struct qcow2 *image = make(&(struct qcow2_create_options){ .size = 16 * MIB, .cluster_size = 512 });

    image->l2.limit = QCOW2_MIN_SLICES;
    image->refcounts.limit = QCOW2_MIN_SLICES;
    for (uint64_t at = 0; at < 16 * MIB; at += 8192)
        cr_assert_eq(write_at(image, at, 512, (uint8_t)(at / 8192)), 0);
    cr_assert(image->l2.count <= QCOW2_MIN_SLICES && image->refcounts.count <= QCOW2_MIN_SLICES);
    for (uint64_t at = 0; at < 16 * MIB; at += 8192)
        cr_assert(reads(image, at, 512, (uint8_t)(at / 8192)));
    check_clean(image, 0);
    cr_assert_eq(qcow2_close(image), 0);
    memory_file_free(&memory);
}

Test(image, read_only)
{
    struct qcow2 *image = make(&(struct qcow2_create_options){ .size = MIB });
    uint8_t *before;
    uint64_t size;

    cr_assert_eq(write_at(image, 0, 512, 5), 0);
    image = reopen(image, QCOW2_READ_ONLY);
    before = malloc(size = memory.size);
    memcpy(before, memory.data, size);
    cr_assert_eq(write_at(image, 0, 512, 6), -EACCES);
    cr_assert_eq(qcow2_discard(image, 0, 65536), -EACCES);
    cr_assert_eq(qcow2_flush(image), 0);
    cr_assert(reads(image, 0, 512, 5));
    cr_assert_eq(qcow2_close(image), 0);
    cr_assert(memory.size == size && !memcmp(before, memory.data, size));
    free(before);
    memory_file_free(&memory);
}
