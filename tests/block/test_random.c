/* Random reads, writes, discards, zeroes and flushes, several at a time, beside a model in memory, through every back end
 * and cache mode. Requests that are under way together do not overlap, so that the model knows the result; test_overlap.c
 * has those that do. EIDOLON_SEED repeats a run, EIDOLON_OPERATIONS makes it longer. */
#include "rig.h"

#include "devices/block/block_file.h"

#include <criterion/parameterized.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SIZE     (5 * MIB + 3 * SECTOR_SIZE) /* not whole clusters or pages */
#define MAX_SIZE (300 * KIB)
#define DEPTH    12

TestSuite(block_random, .init = rig_start, .fini = rig_stop, .timeout = 120);

static uint8_t model[SIZE];

struct worker {
    struct rig_request rig;
    uint8_t *allocation;
    bool active;
};

static uint64_t setting(const char *name, uint64_t fallback)
{
    const char *text = getenv(name);

    return text ? strtoull(text, NULL, 0) : fallback;
}

/* ---- One operation ---- */

static bool is_free(const struct worker *workers, uint64_t offset, uint64_t size)
{
    for (unsigned i = 0; i < DEPTH; i++) {
        const struct block_request *other = &workers[i].rig.request;

        if (workers[i].active && offset < other->offset + other->size && other->offset < offset + size)
            return false;
    }
    return true;
}

/* Scatters the data: 1 to 8 pieces; one time in two at odd addresses and with odd lengths, as guests may. */
static void make_pieces(struct worker *worker, uint64_t *seed)
{
    struct block_request *request = &worker->rig.request;
    bool odd = rig_random(seed) & 1;
    uint64_t left = request->size;
    uint8_t *at = worker->rig.data = worker->allocation + (odd ? rig_random(seed) % 100 : 0);

    request->iov = worker->rig.iov;
    request->iov_count = 0;
    for (unsigned count = 1 + (unsigned)(rig_random(seed) % 8); left; count--) {
        uint64_t third = odd ? 1 + rig_random(seed) % left : ALIGN_UP(left / 3, 4096);
        uint64_t length = count == 1 ? left : MIN(left, third);

        worker->rig.iov[request->iov_count++] = (struct iovec){ .iov_base = at, .iov_len = length };
        at += length;
        left -= length;
    }
}

static void choose(struct worker *worker, const struct worker *workers, bool discards, uint64_t *seed)
{
    static const enum block_op ops[] = { BLOCK_READ,  BLOCK_READ,  BLOCK_READ,         BLOCK_WRITE, BLOCK_WRITE,
                                         BLOCK_WRITE, BLOCK_WRITE, BLOCK_WRITE_ZEROES, BLOCK_FLUSH, BLOCK_DISCARD };
    struct block_request *request = &worker->rig.request;

    *request = (struct block_request){ .op = ops[rig_random(seed) % ARRAY_SIZE(ops)] };
    if (request->op == BLOCK_DISCARD && !discards)
        request->op = BLOCK_READ;
    if (request->op == BLOCK_FLUSH)
        return;
    do {
        bool small = rig_random(seed) & 1;

        request->size = (1 + rig_random(seed) % ((small ? 16 * KIB : MAX_SIZE) / SECTOR_SIZE)) * SECTOR_SIZE;
        request->offset = rig_random(seed) % ((SIZE - request->size) / SECTOR_SIZE + 1) * SECTOR_SIZE;
        if (rig_random(seed) % 20 == 0)
            request->offset = SIZE - request->size; /* the end is where mistakes are */
    } while (!is_free(workers, request->offset, request->size));
    request->flags = (rig_random(seed) % 4 ? 0 : BLOCK_FUA) | (rig_random(seed) & 1 ? BLOCK_MAY_UNMAP : 0);
    if (request->op == BLOCK_READ)
        request->flags = 0;
    make_pieces(worker, seed);
    if (request->op == BLOCK_WRITE) {
        uint64_t value = rig_random(seed);

        for (uint64_t i = 0; i < request->size; i++)
            worker->rig.data[i] = rig_random(seed) % 8 ? (uint8_t)(value >> (i & 7)) : 0;
        if (rig_random(seed) % 8 == 0)
            memset(worker->rig.data, 0, request->size); /* for detect-zeroes */
    } else {
        memset(worker->rig.data, 0x5a, request->size);
    }
}

/* A discarded sector has its old content or is zero; which, the model learns here. */
static void check_discarded(struct block *block, uint64_t offset, uint64_t size)
{
    static const uint8_t zeroes[SECTOR_SIZE];
    uint8_t *data = malloc(size);

    cr_assert_eq(rig_do(block, BLOCK_READ, offset, data, size, 0), 0);
    for (uint64_t i = 0; i < size; i += SECTOR_SIZE) {
        cr_assert(!memcmp(data + i, zeroes, SECTOR_SIZE) || !memcmp(data + i, model + offset + i, SECTOR_SIZE),
                  "sector %llu after a discard", (unsigned long long)((offset + i) / SECTOR_SIZE));
    }
    memcpy(model + offset, data, size);
    free(data);
}

static void check(struct block *block, const struct worker *worker)
{
    const struct block_request *request = &worker->rig.request;

    cr_assert_eq(request->result, 0, "operation %d at %llu: %s", request->op, (unsigned long long)request->offset,
                 strerror(-request->result));
    switch (request->op) {
    case BLOCK_READ:
        cr_assert_eq(memcmp(worker->rig.data, model + request->offset, request->size), 0, "read of %llu at %llu",
                     (unsigned long long)request->size, (unsigned long long)request->offset);
        break;
    case BLOCK_WRITE:
        memcpy(model + request->offset, worker->rig.data, request->size);
        break;
    case BLOCK_WRITE_ZEROES:
        memset(model + request->offset, 0, request->size);
        break;
    case BLOCK_DISCARD:
        check_discarded(block, request->offset, request->size);
        break;
    case BLOCK_FLUSH:
        break;
    }
}

/* ---- Many ---- */

static void compare_all(struct block *block)
{
    uint8_t *data = malloc(SIZE);

    cr_assert_eq(block_execute(block, BLOCK_READ, 0, data, SIZE, 0), 0);
    cr_assert_eq(memcmp(data, model, SIZE), 0);
    free(data);
}

static void run(struct block *block, bool discards, unsigned count, uint64_t *seed)
{
    struct worker workers[DEPTH] = { 0 };

    for (unsigned i = 0; i < DEPTH; i++)
        workers[i].allocation = aligned_alloc(4096, ALIGN_UP(MAX_SIZE + 4096, 4096));
    for (unsigned i = 0, active = 0; i < count || active;) {
        struct worker *worker = &workers[rig_random(seed) % DEPTH];

        if (worker->active) {
            rig_wait(&worker->rig);
            check(block, worker);
            worker->active = false;
            active--;
        } else if (i < count) {
            choose(worker, workers, discards, seed);
            rig_submit(block, &worker->rig);
            worker->active = true;
            active++;
            i++;
        }
    }
    for (unsigned i = 0; i < DEPTH; i++)
        free(workers[i].allocation);
}

struct config {
    char options[160];
    bool snapshot, slow;
};

ParameterizedTestParameters(block_random, back_ends)
{
    static struct config configs[] = {
        { "aio=io_uring,cache=writeback,discard=unmap" },
        { "aio=io_uring,cache=none,discard=unmap" },
        { "aio=io_uring,cache=writethrough", .slow = true },
        { "aio=io_uring,cache=directsync,discard=unmap", .slow = true },
        { "aio=io_uring,cache=unsafe" },
        { "aio=native,cache=none" },
        { "aio=threads,cache=writeback,discard=unmap" },
        { "aio=threads,cache=none,discard=unmap" },
        { "aio=threads,cache=writethrough", .slow = true },
        { "aio=threads,cache=directsync", .slow = true },
        { "aio=threads,cache=unsafe,discard=unmap" },
        { "aio=threads,detect-zeroes=on" },
        { "aio=io_uring,detect-zeroes=unmap,discard=unmap" },
        { "aio=io_uring,snapshot=on", .snapshot = true },
        { "aio=threads,snapshot=on", .snapshot = true },
        { "aio=io_uring,snapshot=on,cache=none", .snapshot = true },
        { "aio=threads,snapshot=on,cache=none,detect-zeroes=on", .snapshot = true },
    };

    return cr_make_param_array(struct config, configs, ARRAY_SIZE(configs));
}

static bool host_lacks(const struct config *config)
{
    return strstr(config->options, "io_uring") && !aio_ring_possible();
}

ParameterizedTest(struct config *config, block_random, back_ends)
{
    uint64_t seed = setting("EIDOLON_SEED", (uint64_t)getpid() * 0x9e3779b97f4a7c15ull | 1), first = seed;
    unsigned count = (unsigned)setting("EIDOLON_OPERATIONS", config->slow ? 150 : 1500);
    const char *path = rig_file("disk", SIZE);
    uint8_t *after = malloc(SIZE);
    struct block *block;

    if (host_lacks(config))
        rig_skip("no io_uring here");
    fprintf(stderr, "%s: EIDOLON_SEED=0x%llx\n", config->options, (unsigned long long)first);
    rig_pattern(model, 0, SIZE);
    block = rig_drive("if=none,id=disk,format=raw,file=%s,%s", path, config->options);
    cr_assert_eq(block_info(block)->size, SIZE);
    run(block, true, count, &seed);
    compare_all(block);
    rig_restart_registry();

    /* What the file has now: all of it, or with an overlay nothing. */
    FILE *file = fopen(path, "r");
    if (config->snapshot)
        rig_pattern(model, 0, SIZE);
    cr_assert_eq(fread(after, 1, SIZE, file), SIZE);
    cr_assert_eq(memcmp(after, model, SIZE), 0);
    fclose(file);
    free(after);
}

/* ---- qcow2 ---- */

struct image {
    char create[40], options[60]; /* no pointers: parameters reach another process */
};

ParameterizedTestParameters(block_random, qcow2_images)
{
    static struct image images[] = {
        { "", "aio=io_uring,discard=unmap" },
        { "", "aio=threads,discard=unmap" },
        { "", "aio=io_uring,cache=none" },
        { "-o cluster_size=4096", "aio=io_uring,discard=unmap" },
        { "-o lazy_refcounts=on", "aio=io_uring,detect-zeroes=unmap,discard=unmap" },
        { "-b base -F raw", "aio=io_uring,discard=unmap" },
        { "-b base -F raw", "aio=threads,cache=none,discard=unmap" },
        { "-b base -F raw", "aio=io_uring,snapshot=on" },
    };

    return cr_make_param_array(struct image, images, ARRAY_SIZE(images));
}

/* qemu-img makes the image, checks it afterwards, and reads from it what the guest wrote. */
ParameterizedTest(struct image *image, block_random, qcow2_images)
{
    uint64_t seed = setting("EIDOLON_SEED", (uint64_t)getpid() * 0x9e3779b97f4a7c15ull | 1), first = seed;
    bool backed = *image->create && strstr(image->create, "-b base"), temporary = strstr(image->options, "snapshot");
    uint8_t *after = malloc(SIZE);
    char output[4096];
    FILE *file;

    if (!block_driver_find("qcow2") || !rig_have("qemu-img") ||
        (strstr(image->options, "io_uring") && !aio_ring_possible()))
        rig_skip("no qcow2, no qemu-utils or no io_uring here");
    fprintf(stderr, "qcow2 %s %s: EIDOLON_SEED=0x%llx\n", image->create, image->options, (unsigned long long)first);
    rig_file("base", SIZE);
    memset(model, 0, SIZE);
    if (backed)
        rig_pattern(model, 0, SIZE);
    cr_assert_eq(rig_shell(output, "cd '%s' && qemu-img create -q -f qcow2 %s disk %llu", rig_folder, image->create,
                           (unsigned long long)SIZE),
                 0, "%s", output);
    run(rig_drive("if=none,id=disk,file=%s,%s", rig_path("disk"), image->options), true,
        (unsigned)setting("EIDOLON_OPERATIONS", 800), &seed);
    compare_all(block_find(rig_registry, "disk"));
    rig_restart_registry();
    if (temporary)
        rig_pattern(model, 0, SIZE);
    cr_assert_eq(rig_shell(output, "cd '%s' && qemu-img check disk && qemu-img convert -O raw disk copy", rig_folder),
                 0, "%s", output);
    file = fopen(rig_path("copy"), "r");
    cr_assert_eq(fread(after, 1, SIZE, file), SIZE);
    cr_assert_eq(memcmp(after, model, SIZE), 0);
    fclose(file);
    free(after);
}

/* A disk of 4096-byte sectors under cache=none, as O_DIRECT sees it: what is smaller goes another way. */
Test(block_random, misplaced_requests)
{
    uint64_t seed = setting("EIDOLON_SEED", (uint64_t)getpid() | 1);
    struct file_node *file;
    struct block *block = rig_drive("if=none,id=disk,format=raw,cache=none,file=%s", rig_file("disk", SIZE));

    fprintf(stderr, "EIDOLON_SEED=0x%llx\n", (unsigned long long)seed);
    rig_pattern(model, 0, SIZE);
    file = container_of(block->root->file, struct file_node, node);
    if (file->alignment < 4096) {
        file->alignment = 4096;
        file->buffered_fd = open(file->node.filename, O_RDWR);
        file->node.granularity = block->root->granularity = 4096;
    }
    run(block, true, 600, &seed);
    compare_all(block);
}

/* The random test must be able to fail: a single bit. */
Test(block_random, a_wrong_bit_is_seen)
{
    struct block *block = rig_drive("if=none,id=disk,format=raw,file=%s", rig_file("disk", SIZE));
    uint8_t *data = malloc(SIZE);

    rig_pattern(model, 0, SIZE);
    model[SIZE / 2] ^= 1;
    cr_assert_eq(rig_do(block, BLOCK_READ, 0, data, SIZE, 0), 0);
    cr_assert_neq(memcmp(data, model, SIZE), 0);
    free(data);
}
