/* Many threads on one image. Each owns every eighth sector, so that all of them meet in every cluster, and knows what its sectors hold;
 * others flush, and do their own I/O through qcow2_map(). */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "tests/qcow2/memory_file.h"

#define THREADS    8
#define SECTORS    2048
#define OPERATIONS 1500

struct shared {
    struct qcow2 *image;
    struct memory_file *file;
    _Atomic bool stop;
    _Atomic unsigned mapped;
    uint64_t backing_size;
};

struct owner {
    struct shared *shared;
    unsigned number;
    uint8_t content[SECTORS];
    bool written[SECTORS]; /* else it is the backing file's */
    unsigned wrong;
};

static int open_pattern(void *opaque, const char *name, const char *format, struct qcow2_backing *backing,
                        struct error *err)
{
    (void)name, (void)format, (void)err;
    *backing = (struct qcow2_backing){ &pattern_backing_ops, opaque };
    return 0;
}

static void check_sector(struct owner *owner, unsigned sector)
{
    uint64_t offset = sector * 512ull;
    uint8_t data[512], expected = owner->content[sector];
    struct iovec iov = { data, sizeof(data) };

    owner->wrong += qcow2_read(owner->shared->image, offset, &iov, 1) != 0;
    for (unsigned i = 0; i < sizeof(data); i++) {
        if (!owner->written[sector])
            expected = offset + i < owner->shared->backing_size ? pattern_backing_byte(offset) : 0;
        owner->wrong += data[i] != expected;
    }
}

/* As the block layer does: where it lies in the file, and the file's own functions. */
static bool write_mapped(struct owner *owner, unsigned sector, struct iovec *iov)
{
    struct qcow2_file file = memory_file_get(owner->shared->file);
    struct qcow2_extent extent;
    struct qcow2_pin pin;

    if (qcow2_map(owner->shared->image, sector * 512ull, 512, true, &pin, &extent))
        return false;
    owner->wrong += file.ops->write(file.opaque, extent.host_offset, iov, 1) != 0;
    qcow2_unpin(owner->shared->image, &pin);
    owner->shared->mapped++;
    return true;
}

static void *own(void *opaque)
{
    struct owner *owner = opaque;
    uint64_t random = owner->number + 1;

    for (unsigned n = 0; n < OPERATIONS; n++) {
        unsigned sector = test_random(&random) % (SECTORS / THREADS) * THREADS + owner->number;
        uint8_t data[512], value = (uint8_t)test_random(&random);
        struct iovec iov = { data, sizeof(data) };
        unsigned kind = test_random(&random) % 8;

        memset(data, value, sizeof(data));
        if (kind < 2) {
            check_sector(owner, sector);
            continue;
        }
        if (kind == 2) {
            value = 0;
            owner->wrong += qcow2_write_zeroes(owner->shared->image, sector * 512ull, 512, true) != 0;
        } else if (kind < 5 || !write_mapped(owner, sector, &iov)) {
            owner->wrong += qcow2_write(owner->shared->image, sector * 512ull, &iov, 1) != 0;
        }
        owner->content[sector] = value;
        owner->written[sector] = true;
    }
    return NULL;
}

/* Zeroes and discards behind the owners' part, so that clusters come and go. */
static void *disturb(void *opaque)
{
    struct shared *shared = opaque;
    uint64_t random = 99;
    uint8_t data[4096];

    memset(data, 0x55, sizeof(data));
    while (!shared->stop) {
        uint64_t offset = SECTORS * 512ull + test_random(&random) % 64 * 4096;

        switch (test_random(&random) % 8) {
        case 0:
            qcow2_flush(shared->image);
            break;
        case 1:
        case 2:
            qcow2_discard(shared->image, offset, 16384);
            break;
        case 3:
            qcow2_write_zeroes(shared->image, offset, 8192, true);
            break;
        default:
            qcow2_write(shared->image, offset, &(struct iovec){ data, sizeof(data) }, 1);
            break;
        }
    }
    return NULL;
}

static void run(const struct qcow2_create_options *options, uint64_t backing_size)
{
    static struct owner owners[THREADS];
    struct shared shared = { .backing_size = backing_size };
    struct qcow2_backing_opener opener = { open_pattern, &shared.backing_size };
    struct memory_file memory;
    struct qcow2_file file = memory_file_get(&memory);
    struct qcow2_check_result result;
    struct error err = { "" };
    pthread_t threads[THREADS], disturber;

    memory_file_init(&memory);
    shared.file = &memory;
    cr_assert_eq(qcow2_create(&file, options, &err), 0, "%s", err.text);
    cr_assert_eq(qcow2_open(&file, &opener, QCOW2_UNMAP, &shared.image, &err), 0, "%s", err.text);
    memset(owners, 0, sizeof(owners));
    pthread_create(&disturber, NULL, disturb, &shared);
    for (unsigned i = 0; i < THREADS; i++) {
        owners[i].shared = &shared;
        owners[i].number = i;
        pthread_create(&threads[i], NULL, own, &owners[i]);
    }
    for (unsigned i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    shared.stop = true;
    pthread_join(disturber, NULL);
    for (unsigned i = 0; i < THREADS; i++) {
        for (unsigned sector = i; sector < SECTORS; sector += THREADS)
            check_sector(&owners[i], sector);
        cr_assert_eq(owners[i].wrong, 0, "thread %u: %u bytes or calls", i, owners[i].wrong);
    }
    cr_assert(shared.mapped > 100, "only %u went through qcow2_map", shared.mapped);
    cr_assert_eq(qcow2_check(shared.image, 0, NULL, NULL, &result, &err), 0);
    cr_assert(!result.errors && !result.leaks && !result.check_errors, "%llu errors, %llu leaks",
              (unsigned long long)result.errors, (unsigned long long)result.leaks);
    cr_assert_eq(qcow2_close(shared.image), 0);
    memory_file_free(&memory);
}

#define SIZE (SECTORS * 512 + 512 * KIB)

Test(threads, small_clusters)
{
    run(&(struct qcow2_create_options){ .size = SIZE, .cluster_size = 512 }, 0);
}

Test(threads, clusters_of_16k)
{
    run(&(struct qcow2_create_options){ .size = SIZE, .cluster_size = 16384 }, 0);
}

Test(threads, clusters_of_64k_with_backing)
{
    run(&(struct qcow2_create_options){ .size = SIZE, .backing_name = "pattern", .backing_format = "raw" },
        700 * 512 + 100);
}
