/* QCOW2 images of any content: opened or refused with a message, read, written, checked, repaired. Nothing crashes, hangs, or takes
 * memory or file size without bound; and unless the image is damaged, what was written is read.
 *
 * Input: u8 flags (1 read only, 2 check first, 4 repair, 8 the rest of the input is the image itself), u8 which valid image, u8 how many
 * changes to it (u16 offset, u8 value; or in a header field: offset 0xff00 | field, u64), then operations. */
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "tests/fuzz/fuzz.h"
#include "tests/qcow2/memory_file.h"

#define MAX_OPERATIONS 40
#define FILE_LIMIT     (8 * MIB)
#define MAX_PIECE      (256 * KIB)

enum { READ_ONLY = 1, CHECK = 2, REPAIR = 4, RAW = 8 };

static struct memory_file templates[8];
static uint8_t buffer[MAX_PIECE];
static uint64_t below_size = 200 * KIB;

static int open_below(void *opaque, const char *name, const char *format, struct qcow2_backing *backing,
                      struct error *err)
{
    (void)opaque, (void)format;
    if (strcmp(name, "below"))
        return error_set(err, 2, "no such file");
    *backing = (struct qcow2_backing){ &pattern_backing_ops, &below_size };
    return 0;
}

static const struct qcow2_backing_opener opener = { open_below, NULL };

/* ---- Valid images ---- */

static void make_template(struct memory_file *memory, const struct qcow2_create_options *options)
{
    struct qcow2_file file;
    struct qcow2 *image;
    struct error err = { "" };
    uint32_t cluster;

    memory_file_init(memory);
    file = memory_file_get(memory);
    fuzz_need(!qcow2_create(&file, options, &err) && !qcow2_open(&file, &opener, 0, &image, &err), &err);
    cluster = qcow2_info(image)->cluster_size;
    memset(buffer, 0x11, sizeof(buffer));
    for (unsigned i = 0; i < 6; i++)
        FUZZ_CHECK(!qcow2_write(image, i * 7 * 3000ull, &(struct iovec){ buffer, 5000 }, 1));
    for (unsigned i = 0; i < 3; i++)
        FUZZ_CHECK(
            !qcow2_write_compressed(image, options->size / 2 / cluster * cluster + i * cluster, buffer, cluster));
    FUZZ_CHECK(!qcow2_write_zeroes(image, 0, cluster, options->version == 3));
    FUZZ_CHECK(!qcow2_close(image));
}

void fuzz_setup(void)
{
    static const struct qcow2_create_options options[] = {
        { .size = 512 * KIB, .cluster_size = 512 },
        { .size = MIB, .cluster_size = 4096, .lazy_refcounts = true },
        { .size = MIB, .cluster_size = 4096, .version = 2 },
        { .size = MIB, .cluster_size = 2048, .zstd = true, .refcount_bits = 1 },
        { .size = MIB, .cluster_size = 1024, .refcount_bits = 64 },
        { .size = MIB, .cluster_size = 4096, .backing_name = "below", .backing_format = "raw" },
        { .size = 500 * KIB, .cluster_size = 65536 },
        { .size = 256 * KIB, .cluster_size = 512, .preallocation = QCOW2_PREALLOC_METADATA },
    };

    for (unsigned i = 0; i < ARRAY_SIZE(templates); i++)
        make_template(&templates[i], &options[i]);
}

/* ---- One input ---- */

static void damage(struct memory_file *memory, struct fuzz_input *input, unsigned changes)
{
    for (unsigned i = 0; i < changes; i++) {
        uint64_t offset = fuzz_u16(input);

        if (offset >= 0xff00) { /* a header field, all of it */
            uint64_t value = __builtin_bswap64(fuzz_u64(input));

            memcpy(memory->data + (offset & 0x7f), &value, sizeof(value));
        } else {
            memory->data[offset % memory->size] = fuzz_u8(input);
        }
    }
}

static void operation(struct qcow2 *image, struct fuzz_input *input, bool damaged)
{
    uint8_t op = fuzz_u8(input), value = fuzz_u8(input);
    uint64_t size = qcow2_size(image), offset = fuzz_u32(input), length = 1 + fuzz_u16(input) % (MAX_PIECE - 1);
    struct iovec iov = { buffer, length };
    struct qcow2_extent extent;
    struct qcow2_pin pin;
    struct error err;

    if (size > length)
        offset %= size - length;
    switch (op % 10) {
    case 0:
    case 1:
        qcow2_read(image, offset, &iov, 1);
        break;
    case 2:
    case 3:
    case 4:
        memset(buffer, value, length);
        if (qcow2_write(image, offset, &iov, 1))
            break;
        memset(buffer, ~value, length);
        FUZZ_CHECK(!qcow2_read(image, offset, &iov, 1) || damaged);
        for (uint64_t i = 0; i < length && !damaged; i++)
            FUZZ_CHECK(buffer[i] == value);
        break;
    case 5:
        qcow2_discard(image, offset, length);
        break;
    case 6:
        qcow2_write_zeroes(image, offset, length, value & 1);
        break;
    case 7:
        qcow2_flush(image);
        break;
    case 8:
        if (!qcow2_map(image, offset, length, value & 1, &pin, &extent)) {
            FUZZ_CHECK(extent.size && extent.size <= length);
            if (extent.kind == QCOW2_DATA)
                qcow2_unpin(image, &pin);
        }
        break;
    default:
        if (value < 32)
            qcow2_resize(image, offset / 512 * 512 % (16 * MIB), true, QCOW2_PREALLOC_OFF, &err);
        else if (length >= qcow2_info(image)->cluster_size)
            qcow2_write_compressed(image, ALIGN_DOWN(offset, qcow2_info(image)->cluster_size), buffer,
                                   qcow2_info(image)->cluster_size);
        break;
    }
}

static void use(struct memory_file *memory, uint8_t flags, struct fuzz_input *input, bool damaged)
{
    struct qcow2_file file = memory_file_get(memory);
    struct qcow2_check_result result;
    struct error err = { "" };
    struct qcow2 *image;

    if (flags & CHECK) {
        if (!qcow2_open(&file, &opener, QCOW2_CHECK | QCOW2_NO_BACKING, &image, &err)) {
            if (qcow2_check(image, flags & REPAIR ? QCOW2_FIX_ERRORS : 0, NULL, NULL, &result, &err))
                FUZZ_CHECK(err.text[0]);
            else
                FUZZ_CHECK(damaged || (!result.errors && !result.leaks && !result.check_errors));
            qcow2_close(image);
        } else {
            FUZZ_CHECK(err.text[0]);
        }
        err.text[0] = '\0';
    }
    if (qcow2_open(&file, &opener, flags & READ_ONLY ? QCOW2_READ_ONLY : 0, &image, &err)) {
        FUZZ_CHECK(err.text[0]);
        return;
    }
    for (unsigned i = 0; i < MAX_OPERATIONS && input->size; i++)
        operation(image, input, damaged);
    FUZZ_CHECK(!qcow2_close(image) || damaged);
}

void fuzz_one(struct fuzz_input input)
{
    uint8_t flags = fuzz_u8(&input), which = fuzz_u8(&input) % ARRAY_SIZE(templates), changes = fuzz_u8(&input);
    struct memory_file memory;

    memory_file_init(&memory);
    memory.limit = FILE_LIMIT;
    if (flags & RAW) {
        memory_file_set(&memory, input.data, input.size);
    } else {
        memory_file_set(&memory, templates[which].data, templates[which].size);
        damage(&memory, &input, changes);
        if (flags & 16)
            memory.size = 1 + fuzz_u16(&input) % memory.size;
    }
    use(&memory, flags, &input, changes || flags & (RAW | 16));
    memory_file_free(&memory);
}

/* ---- Seeds ---- */

#define SEEDS_EACH 6

bool fuzz_make_seed(unsigned n, struct fuzz_seed *seed)
{
    uint64_t random = n + 1;
    unsigned changes = n % SEEDS_EACH < 2 ? 0 : 1 + fuzz_random(&random) % 4;

    if (n >= SEEDS_EACH * ARRAY_SIZE(templates))
        return false;
    fuzz_add_u8(seed, (uint8_t)(fuzz_random(&random) & (READ_ONLY | CHECK | REPAIR) & (n & 1 ? 0xff : ~READ_ONLY)));
    fuzz_add_u8(seed, (uint8_t)(n / SEEDS_EACH));
    fuzz_add_u8(seed, (uint8_t)changes);
    for (unsigned i = 0; i < changes; i++) {
        fuzz_add_u16(seed, (uint16_t)(fuzz_random(&random) & 1 ? 0xff00 | fuzz_random(&random) % 112
                                                               : fuzz_random(&random) % 0x8000));
        fuzz_add_u64(seed, 1ull << fuzz_random(&random) % 64);
    }
    for (unsigned i = 0; i < 200; i++)
        fuzz_add_u8(seed, (uint8_t)fuzz_random(&random));
    return true;
}
