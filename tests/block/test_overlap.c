/* Requests that overlap while they are under way: partial writes to one cluster of an overlay must all survive, sectors are
 * never torn or invented, and what the core is told to keep apart stays apart. */
#include "rig.h"

#include "devices/block/block_file.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define DEPTH 64

TestSuite(block_overlap, .init = rig_start, .fini = rig_stop, .timeout = 120);

static uint64_t start_seed(void)
{
    const char *text = getenv("EIDOLON_SEED");
    uint64_t seed = text ? strtoull(text, NULL, 0) : (uint64_t)getpid() * 0x9e3779b97f4a7c15ull | 1;

    fprintf(stderr, "EIDOLON_SEED=0x%llx\n", (unsigned long long)seed);
    return seed;
}

/* ---- Every sector by a request of its own, all at once ---- */

/* Sectors in random order, DEPTH at a time; each cluster is hit by many writers. */
static void write_sectors(struct block *block, uint64_t size, uint64_t *seed)
{
    uint64_t count = size / SECTOR_SIZE;
    uint32_t *order = malloc(count * sizeof(*order));
    struct rig_request *requests = calloc(DEPTH, sizeof(*requests));
    uint8_t *data = malloc(DEPTH * SECTOR_SIZE);

    for (uint64_t i = 0; i < count; i++)
        order[i] = (uint32_t)i;
    for (uint64_t i = 0; i < count; i++) { /* mostly near each other, so that they meet in a cluster */
        uint64_t near = i + rig_random(seed) % 200, j = MIN(near, count - 1);
        uint32_t swap = order[i];

        order[i] = order[j];
        order[j] = swap;
    }
    for (uint64_t i = 0; i < count + DEPTH; i++) {
        struct rig_request *request = &requests[i % DEPTH];

        if (i >= DEPTH && i - DEPTH < count)
            cr_assert_eq(rig_wait(request), 0);
        if (i >= count)
            continue;
        request->data = data + i % DEPTH * SECTOR_SIZE;
        memset(request->data, (int)(order[i] % 251) + 1, SECTOR_SIZE);
        request->iov[0] = (struct iovec){ .iov_base = request->data, .iov_len = SECTOR_SIZE };
        request->request = (struct block_request){ .op = BLOCK_WRITE,
                                                   .offset = (uint64_t)order[i] * SECTOR_SIZE,
                                                   .size = SECTOR_SIZE,
                                                   .iov = request->iov,
                                                   .iov_count = 1 };
        rig_submit(block, request);
    }
    free(order);
    free(requests);
    free(data);
}

static void check_sectors(struct block *block, uint64_t size)
{
    uint8_t *data = malloc(size), expected[SECTOR_SIZE];

    cr_assert_eq(rig_do(block, BLOCK_READ, 0, data, size, 0), 0);
    for (uint64_t i = 0; i < size / SECTOR_SIZE; i++) {
        memset(expected, (int)(i % 251) + 1, SECTOR_SIZE);
        cr_assert_eq(memcmp(data + i * SECTOR_SIZE, expected, SECTOR_SIZE), 0, "sector %llu", (unsigned long long)i);
    }
    free(data);
}

Test(block_overlap, partial_writes_of_overlay_clusters)
{
    static const char *const options[] = { "aio=io_uring", "aio=threads", "aio=threads,cache=none" };
    uint64_t seed = start_seed(), size = 1 * MIB + 9 * SECTOR_SIZE;
    const char *path = rig_file("disk", size);

    for (size_t i = 0; i < ARRAY_SIZE(options); i++) {
        if (strstr(options[i], "io_uring") && !aio_ring_possible())
            continue;
        struct block *block = rig_drive("if=none,id=disk,format=raw,snapshot=on,%s,file=%s", options[i], path);

        write_sectors(block, size, &seed);
        check_sectors(block, size);
        rig_restart_registry();
    }
}

/* 4096-byte direct I/O: eight guest sectors share one of the disk's. */
static struct block *disk_of_big_sectors(uint64_t size)
{
    struct block *block = rig_drive("if=none,id=disk,format=raw,cache=none,file=%s", rig_file("disk", size));
    struct file_node *file = container_of(block->root->file, struct file_node, node);

    if (file->alignment < 4096) {
        file->alignment = 4096;
        file->buffered_fd = open(file->node.filename, O_RDWR);
        file->node.granularity = block->root->granularity = 4096;
    }
    return block;
}

Test(block_overlap, sectors_of_one_direct_block)
{
    uint64_t seed = start_seed(), size = 300 * KIB;
    struct block *block = disk_of_big_sectors(size);

    write_sectors(block, size, &seed);
    check_sectors(block, size);
}

/* ---- Writers that do overlap ---- */

#define AREA    (256 * KIB)
#define WRITERS 24

struct writer {
    struct rig_request rig;
    uint8_t *data;
};

/* Each sector must be wholly of one of the writers that covered it. */
static void check_area(struct block *block, const struct writer *writers, const uint8_t *before)
{
    uint8_t *data = malloc(AREA);

    cr_assert_eq(rig_do(block, BLOCK_READ, 0, data, AREA, 0), 0);
    for (uint64_t at = 0; at < AREA; at += SECTOR_SIZE) {
        bool covered = false, found = false;

        for (unsigned i = 0; i < WRITERS; i++) {
            const struct block_request *request = &writers[i].rig.request;

            if (at < request->offset || at >= request->offset + request->size)
                continue;
            covered = true;
            found |= !memcmp(data + at, writers[i].data + (at - request->offset), SECTOR_SIZE);
        }
        if (!covered)
            found = !memcmp(data + at, before + at, SECTOR_SIZE);
        cr_assert(found, "sector %llu has what nobody wrote", (unsigned long long)(at / SECTOR_SIZE));
    }
    free(data);
}

static void overlapping_writers(struct block *block, uint64_t *seed, unsigned rounds)
{
    struct writer *writers = calloc(WRITERS, sizeof(*writers));
    uint8_t *before = malloc(AREA);

    for (unsigned i = 0; i < WRITERS; i++)
        writers[i].data = malloc(AREA);
    for (unsigned round = 0; round < rounds; round++) {
        cr_assert_eq(rig_do(block, BLOCK_READ, 0, before, AREA, 0), 0);
        for (unsigned i = 0; i < WRITERS; i++) {
            struct block_request *request = &writers[i].rig.request;
            uint64_t size = (1 + rig_random(seed) % (AREA / SECTOR_SIZE)) * SECTOR_SIZE;

            *request = (struct block_request){ .op = BLOCK_WRITE, .size = size, .iov_count = 1 };
            request->offset = rig_random(seed) % ((AREA - size) / SECTOR_SIZE + 1) * SECTOR_SIZE;
            memset(writers[i].data, (int)(round * WRITERS + i), size);
            writers[i].rig.iov[0] = (struct iovec){ .iov_base = writers[i].data, .iov_len = size };
            request->iov = writers[i].rig.iov;
            rig_submit(block, &writers[i].rig);
        }
        for (unsigned i = 0; i < WRITERS; i++)
            cr_assert_eq(rig_wait(&writers[i].rig), 0);
        check_area(block, writers, before);
    }
    for (unsigned i = 0; i < WRITERS; i++)
        free(writers[i].data);
    free(writers);
    free(before);
}

Test(block_overlap, writers_of_an_overlay)
{
    uint64_t seed = start_seed();

    for (unsigned i = 0; i < 20; i++) { /* only the first round of each meets unwritten clusters */
        overlapping_writers(rig_drive("if=none,id=disk,format=raw,snapshot=on,file=%s", rig_file("disk", AREA)), &seed,
                            3);
        rig_restart_registry();
    }
}

Test(block_overlap, writers_of_big_sectors)
{
    uint64_t seed = start_seed();

    overlapping_writers(disk_of_big_sectors(AREA), &seed, 20);
}

/* ---- The core's service ---- */

struct slow_node {
    struct block_node node;
    pthread_mutex_t lock;
    unsigned in_region[16], most; /* per 4 KiB; guarded by lock */
    bool conflict;
};

static int slow_run(struct block_node *node, const struct block_transfer *transfer)
{
    struct slow_node *slow = container_of(node, struct slow_node, node);
    uint64_t first = transfer->offset / 4096, last = (transfer->offset + transfer->size - 1) / 4096;
    bool exclusive = transfer->op == BLOCK_WRITE_ZEROES;

    if (transfer->op == BLOCK_FLUSH)
        return 0;
    pthread_mutex_lock(&slow->lock);
    for (uint64_t i = first; i <= last; i++) {
        slow->conflict |= exclusive ? slow->in_region[i] != 0 : slow->in_region[i] >= 1000;
        slow->in_region[i] += exclusive ? 1000 : 1;
        slow->most = MAX(slow->most, slow->in_region[i] % 1000);
    }
    pthread_mutex_unlock(&slow->lock);
    usleep(1000);
    pthread_mutex_lock(&slow->lock);
    for (uint64_t i = first; i <= last; i++)
        slow->in_region[i] -= exclusive ? 1000 : 1;
    pthread_mutex_unlock(&slow->lock);
    return 0;
}

static bool slow_serialises(struct block_node *node, const struct block_transfer *transfer)
{
    (void)node;
    return transfer->op == BLOCK_WRITE_ZEROES;
}

static void slow_close(struct block_node *node)
{
    pthread_mutex_destroy(&container_of(node, struct slow_node, node)->lock);
}

static const struct block_driver slow_driver = {
    .name = "slow", .run = slow_run, .close = slow_close, .serialises = slow_serialises
};

Test(block_overlap, serialised_requests_run_alone)
{
    struct block *block = rig_drive("if=none,id=disk,media=cdrom");
    struct slow_node *slow = calloc(1, sizeof(*slow));
    struct rig_request *requests = calloc(DEPTH, sizeof(*requests));
    uint64_t seed = start_seed();
    uint8_t *data = calloc(1, 64 * KIB);

    pthread_mutex_init(&slow->lock, NULL);
    slow->node = (struct block_node){ .driver = &slow_driver, .size = 64 * KIB, .granularity = 4096, .references = 1 };
    block->root = &slow->node;
    block->info.size = 64 * KIB;
    block->info.read_only = false;
    for (unsigned round = 0; round < 20; round++) {
        for (unsigned i = 0; i < DEPTH; i++) {
            uint64_t size = (1 + rig_random(&seed) % 16) * SECTOR_SIZE;

            requests[i].request = (struct block_request){
                .op = rig_random(&seed) % 4 ? BLOCK_READ : BLOCK_WRITE_ZEROES,
                .offset = rig_random(&seed) % ((64 * KIB - size) / SECTOR_SIZE + 1) * SECTOR_SIZE,
                .size = size,
                .iov = requests[i].iov,
                .iov_count = 1,
            };
            requests[i].iov[0] = (struct iovec){ .iov_base = data, .iov_len = size };
            rig_submit(block, &requests[i]);
        }
        for (unsigned i = 0; i < DEPTH; i++)
            cr_assert_eq(rig_wait(&requests[i]), 0);
    }
    cr_assert(!slow->conflict);
    cr_assert_gt(slow->most, 1); /* what may run together did */
    free(requests);
    free(data);
}
