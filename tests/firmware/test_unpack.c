/* Kernels that come out in many pieces: every format, cut anywhere, into guest memory. */
#include "tests/firmware/guest.h"
#include "tests/firmware/images.h"

#include "firmware/elf_image.h"
#include "firmware/unpack.h"

#include <criterion/criterion.h>
#include <elf.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define BIG (19 * MIB + 12345) /* three pieces of lz4, twenty of the others */

static uint64_t next_random(uint64_t *state)
{
    *state = *state * 6364136223846793005ull + 1442695040888963407ull;
    return *state >> 33;
}

/* Compressible, but not everywhere the same. */
static struct image big_image(void)
{
    struct image image = { malloc(BIG), BIG };
    uint64_t random = 1;

    for (size_t i = 0; i < BIG; i++)
        image.data[i] = i % 64 ? (uint8_t)(i / 4096) : (uint8_t)next_random(&random);
    memcpy(image.data, ELFMAG, SELFMAG);
    return image;
}

struct taken {
    const struct image *whole;
    size_t position, stop_after;
    unsigned pieces;
};

static int take(void *opaque, const uint8_t *data, size_t size, struct error *err)
{
    struct taken *taken = opaque;

    (void)err;
    cr_assert_leq(taken->position + size, taken->whole->size);
    cr_assert(!memcmp(data, taken->whole->data + taken->position, size), "other bytes behind 0x%zx", taken->position);
    taken->position += size;
    taken->pieces++;
    return taken->stop_after && taken->position >= taken->stop_after ? 77 : 0;
}

Test(unpack, every_format_in_pieces)
{
    struct image image = big_image();

    for (enum packing packing = 0; packing < PACK_COUNT; packing++) {
        struct image packed = image_pack(&image, packing);
        struct taken taken = { .whole = &image };
        struct error err = { 0 };
        int result = unpack(packed.data, packed.size, 1024 * MIB, take, &taken, &err);

        if (packing == PACK_UNKNOWN) {
            cr_assert_eq(result, -ENOTSUP);
        } else {
            cr_assert_eq(result, 0, "packing %d: %s", packing, err.text);
            cr_assert_eq(taken.position, image.size);
            cr_assert_geq(taken.pieces, packing == PACK_NONE ? 1 : 3);
        }
        image_free(&packed);
    }
    image_free(&image);
}

Test(unpack, head)
{
    struct image image = big_image();

    for (enum packing packing = 0; packing < PACK_UNKNOWN; packing++) {
        struct image packed = image_pack(&image, packing);
        struct taken taken = { .whole = &image };
        struct error err = { 0 };

        cr_assert_eq(unpack_head(packed.data, packed.size, take, &taken, &err), 0, "packing %d: %s", packing, err.text);
        cr_assert_eq(taken.pieces, 1);
        cr_assert_eq(taken.position, MIB, "packing %d: %zu bytes", packing, taken.position);
        image_free(&packed);
    }
    image_free(&image);
}

Test(unpack, sink_fails)
{
    struct image image = big_image();

    for (enum packing packing = 0; packing < PACK_UNKNOWN; packing++) {
        struct image packed = image_pack(&image, packing);
        struct taken taken = { .whole = &image, .stop_after = 1 };
        struct error err = { 0 };

        cr_assert_eq(unpack(packed.data, packed.size, 1024 * MIB, take, &taken, &err), 77);
        cr_assert_eq(taken.pieces, 1);
        image_free(&packed);
    }
    image_free(&image);
}

Test(unpack, limit_and_truncation)
{
    struct image image = big_image();

    for (enum packing packing = 0; packing < PACK_UNKNOWN; packing++) {
        struct image packed = image_pack(&image, packing);
        struct taken taken = { .whole = &image };
        struct error err = { 0 };

        cr_assert_eq(unpack(packed.data, packed.size, BIG - 1, take, &taken, &err), -EFBIG, "packing %d", packing);
        if (packing == PACK_NONE) {
            image_free(&packed);
            continue;
        }
        taken = (struct taken){ .whole = &image };
        cr_assert_eq(unpack(packed.data, packed.size / 2, 1024 * MIB, take, &taken, &err), -EINVAL, "packing %d",
                     packing);
        cr_assert_not_null(strstr(err.text, "damaged or truncated"), "%s", err.text);
        image_free(&packed);
    }
    image_free(&image);
}

/* ---- Segments cut into pieces ---- */

#define PLACED (4 * MIB)

static void random_segments(struct elf_image *elf, uint64_t *random)
{
    *elf = (struct elf_image){ .segment_count = 1 + next_random(random) % 5 };
    for (unsigned i = 0; i < elf->segment_count; i++) {
        struct elf_segment *segment = &elf->segments[i];

        segment->offset = next_random(random) % (900 * KIB);
        segment->file_size = next_random(random) % 3 ? next_random(random) % (100 * KIB) : 0;
        segment->address = MIB + i * 512 * KIB + next_random(random) % KIB;
        segment->memory_size = segment->file_size + next_random(random) % (20 * KIB);
    }
}

Test(unpack, segments_cut_anywhere)
{
    struct image image = big_image();
    uint8_t *expected = malloc(PLACED), *placed = malloc(PLACED);
    struct guest guest;

    guest_create(&guest, 16 * MIB);
    for (uint64_t seed = 1; seed <= 100; seed++) {
        uint64_t random = seed, position = 0, size;
        struct elf_image elf;

        random_segments(&elf, &random);
        memset(expected, 0xcc, PLACED);
        cr_assert(physmem_write(guest.mem, MIB, expected, PLACED));
        for (unsigned i = 0; i < elf.segment_count; i++) {
            const struct elf_segment *segment = &elf.segments[i];

            memset(expected + segment->address - MIB, 0, segment->memory_size);
            memcpy(expected + segment->address - MIB, image.data + segment->offset, segment->file_size);
        }
        cr_assert(elf_image_place_zeros(&elf, guest.mem));
        for (; position < elf_image_file_end(&elf); position += size) {
            size = next_random(&random) % (seed % 2 ? 5000 : 300000);
            cr_assert(elf_image_place_piece(&elf, position, image.data + position, size, guest.mem));
        }
        physmem_read(guest.mem, MIB, placed, PLACED);
        cr_assert(!memcmp(placed, expected, PLACED), "seed %lu", seed);
    }
    guest_destroy(&guest);
    free(expected);
    free(placed);
    image_free(&image);
}

/* The kernel inside ends before its segment does: found when it is placed. */
Test(unpack, segment_behind_the_end)
{
    struct image image = image_bzimage(PACK_NONE);
    struct guest guest;
    struct boot_cpu_state state;
    struct error err = { 0 };
    Elf64_Phdr *segment = (Elf64_Phdr *)(image.data + 0xe00 + sizeof(Elf64_Ehdr));

    cr_assert_eq(segment->p_filesz, TEST_KERNEL_BYTES);
    segment->p_filesz += 4096;
    segment->p_memsz += 4096;
    guest_create(&guest, 64 * MIB);
    char *name = temporary_file(image.data, image.size);
    struct boot_config config = { .kernel = name, .low_ram = guest.low_ram, .cpu_count = 1 };
    struct boot_image *loaded = boot_image_load(&config, &err);
    cr_assert_not_null(loaded, "%s", err.text);
    cr_assert_eq(boot_image_place(loaded, guest.mem, &state, &err), -EINVAL);
    cr_assert_not_null(strstr(err.text, "the kernel in it is truncated"), "%s", err.text);
    cr_assert_not_null(strstr(err.text, name), "%s", err.text);
    boot_image_destroy(loaded);
    unlink(name);
    free(name);
    image_free(&image);
    guest_destroy(&guest);
}
