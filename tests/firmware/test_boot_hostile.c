/* Damaged images: truncated anywhere, bits flipped, fields replaced by extreme values. Loading and placing may succeed
 * or fail with a message, but never crash (run under asan and ubsan) and never take long. */
#include "tests/firmware/guest.h"
#include "tests/firmware/images.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static uint64_t next_random(uint64_t *state)
{
    uint64_t z = (*state += 0x9e3779b97f4a7c15ull);

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
}

static uint64_t seed(void)
{
    const char *text = getenv("EIDOLON_TEST_SEED");

    return text ? strtoull(text, NULL, 0) : 1;
}

static void try(struct guest *guest, const uint8_t *data, size_t size, uint64_t iteration)
{
    char *name = temporary_file(data, size);
    struct boot_config config = { .kernel = name, .append = "quiet", .low_ram = guest->low_ram, .cpu_count = 1 };
    struct boot_cpu_state state;
    struct error err = { 0 };
    struct boot_image *image = boot_image_load(&config, &err);

    if (image && boot_image_place(image, guest->mem, &state, &err) == 0)
        err.text[0] = 1;
    cr_assert(err.text[0], "seed %lu, iteration %lu: failed without a message", seed(), iteration);
    boot_image_destroy(image);
    unlink(name);
    free(name);
}

static void damage(uint8_t *data, size_t size, size_t header, uint64_t *random)
{
    static const uint32_t extremes[] = { 0, 1, 0x7fffffff, 0x80000000, 0xffffffff, 0xfffff000, 0x10000 };
    unsigned changes = 1 + next_random(random) % 6;

    while (changes--) {
        size_t range = next_random(random) % 4 ? MIN(header, size) : size;
        size_t at = next_random(random) % range;

        if (next_random(random) % 2) {
            data[at] ^= 1 << next_random(random) % 8;
        } else if (at + 4 <= size) {
            at &= ~(size_t)3;
            memcpy(data + at, &extremes[next_random(random) % ARRAY_SIZE(extremes)], 4);
        }
    }
}

static void hammer(struct image image, size_t header, unsigned rounds)
{
    struct guest guest;
    uint64_t random = seed();
    uint8_t *copy = malloc(image.size);

    guest_create(&guest, 48 * MIB);
    for (unsigned i = 0; i < rounds; i++) {
        size_t size = next_random(&random) % 4 ? image.size : 1 + next_random(&random) % image.size;

        memcpy(copy, image.data, image.size);
        if (size == image.size || i % 2)
            damage(copy, size, header, &random);
        try(&guest, copy, size, i);
    }
    free(copy);
    image_free(&image);
    guest_destroy(&guest);
}

Test(boot_hostile, bzimage)
{
    for (enum packing packing = 0; packing < PACK_COUNT; packing++)
        hammer(image_bzimage(packing), 0x300, 60);
}

/* Damage in the payload alone, which the bzImage header does not stop. */
Test(boot_hostile, payload)
{
    for (enum packing packing = 0; packing < PACK_COUNT; packing++) {
        struct guest guest;
        uint64_t random = seed() + packing;

        guest_create(&guest, 48 * MIB);
        for (unsigned i = 0; i < 60; i++) {
            struct image image = image_bzimage(packing);

            damage(image.data + 0xe00, image.size - 0xe00, 200, &random);
            try(&guest, image.data, image.size, i);
            image_free(&image);
        }
        guest_destroy(&guest);
    }
}

Test(boot_hostile, elf_and_multiboot)
{
    hammer(image_elf64(true), 0x900, 300);
    hammer(image_elf32_multiboot(), 0x220, 300);
    hammer(image_raw_multiboot(0x200000), 0x140, 300);
}

/* A real kernel, if EIDOLON_TEST_KERNEL names one. */
Test(boot_hostile, real_kernel)
{
    const char *path = getenv("EIDOLON_TEST_KERNEL");
    FILE *file = path ? fopen(path, "rb") : NULL;
    struct image image = { 0 };

    if (!file)
        cr_skip_test("EIDOLON_TEST_KERNEL names no kernel");
    fseek(file, 0, SEEK_END);
    image.size = ftell(file);
    rewind(file);
    image.data = malloc(image.size);
    cr_assert_eq(fread(image.data, 1, image.size, file), image.size);
    fclose(file);
    hammer(image, 0x300, 25);
}
