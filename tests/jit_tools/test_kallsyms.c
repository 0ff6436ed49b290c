/* The symbol table inside a Linux kernel: made by the test in both layouts, damaged, hostile; and that of the real
 * kernel of the boot tests, if it has been fetched (build/guest/vmlinuz).
 *
 * EIDOLON_SEED for the random damage. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "firmware/boot.h"
#include "jit/jit_kallsyms.h"
#include "kallsyms_maker.h"

static void expect_at(const struct jit_symbols *symbols, gva_t address, const char *expected)
{
    uint64_t offset = 0;
    const char *name = jit_symbols_find(symbols, address, &offset);
    char text[300];

    snprintf(text, sizeof(text), name ? "%s+0x%llx" : "-", name, (unsigned long long)offset);
    cr_expect_str_eq(text, expected, "0x%llx is %s, not %s", (unsigned long long)address, text, expected);
}

Test(kallsyms, layouts)
{
    for (enum kallsyms_layout layout = KALLSYMS_OLD; layout <= KALLSYMS_NEW_RELATIVE; layout++) {
        struct jit_symbols *symbols = jit_symbols_create();
        struct kallsyms_image *image = kallsyms_make(layout);
        char longest[200] = "";
        size_t count = jit_kallsyms_read(symbols, image->bytes, KALLSYMS_IMAGE_SIZE, KALLSYMS_BASE + 0x1234);

        cr_assert_eq(count, KALLSYMS_COUNT, "layout %d: %zu", layout, count);
        jit_symbols_finish(symbols);
        expect_at(symbols, KALLSYMS_BASE, "_text+0x0");
        expect_at(symbols, kallsyms_address(7), "func_7+0x0");
        expect_at(symbols, kallsyms_address(999) - 1, "func_998+0xf");
        expect_at(symbols, kallsyms_address(9) + 3, "-"); /* an object */
        memset(longest, 'q', 150);
        strcat(longest, "+0x5");
        expect_at(symbols, kallsyms_address(77) + 5, longest);
        expect_at(symbols, 3 * 8, "-"); /* per-CPU offsets are no code */
        expect_at(symbols, kallsyms_address(3),
                  layout == KALLSYMS_NEW_RELATIVE ? "func_3+0x0" : "entry_SYSCALL_64+0x20");
        jit_symbols_destroy(symbols);
        free(image);
    }
}

/* Tables that do not belong to the kernel that the address is in (an old kernel's, after kexec). */
Test(kallsyms, elsewhere)
{
    struct kallsyms_image *image = kallsyms_make(KALLSYMS_OLD);
    struct jit_symbols *symbols = jit_symbols_create();

    cr_expect_eq(jit_kallsyms_read(symbols, image->bytes, KALLSYMS_IMAGE_SIZE, KALLSYMS_BASE - 1), 0);
    cr_expect_eq(jit_kallsyms_read(symbols, image->bytes, KALLSYMS_IMAGE_SIZE, KALLSYMS_BASE + 0x20000000), 0);
    jit_symbols_destroy(symbols);
    free(image);
}

/* Images that end, and that begin, in the midst of the tables. With AddressSanitizer, the test of bounds. */
Test(kallsyms, cut)
{
    for (enum kallsyms_layout layout = KALLSYMS_OLD; layout <= KALLSYMS_NEW_RELATIVE; layout++) {
        struct kallsyms_image *image = kallsyms_make(layout);

        for (size_t cut = 1; cut < image->used - 0x2000; cut += 61) {
            size_t size = image->used - 0x2000 - cut;
            struct jit_symbols *symbols = jit_symbols_create();
            uint8_t *part = malloc(size);

            memcpy(part, image->bytes + 0x2000, size);
            cr_expect_eq(jit_kallsyms_read(symbols, part, size, KALLSYMS_BASE), 0, "layout %d, %zu bytes", layout,
                         size);
            memcpy(part, image->bytes + image->used - size, size);
            cr_expect_eq(jit_kallsyms_read(symbols, part, size, KALLSYMS_BASE), 0, "layout %d, last %zu bytes", layout,
                         size);
            free(part);
            jit_symbols_destroy(symbols);
        }
        free(image);
    }
}

Test(kallsyms, damaged)
{
    const char *given = getenv("EIDOLON_SEED");
    unsigned seed = given ? (unsigned)strtoul(given, NULL, 0) : 20230602;
    unsigned read = 0;

    srand(seed);
    for (unsigned round = 0; round < 1000; round++) {
        struct jit_symbols *symbols = jit_symbols_create();
        struct kallsyms_image *image = kallsyms_make(round % 4);
        size_t begin = 0x2000, length = image->used - begin;

        for (int change = rand() % 6; change >= 0; change--)
            image->bytes[begin + (size_t)rand() % length] = (uint8_t)rand();
        size_t count = jit_kallsyms_read(symbols, image->bytes, KALLSYMS_IMAGE_SIZE, KALLSYMS_BASE);
        cr_assert(count == 0 || count == KALLSYMS_COUNT, "seed %u, round %u: %zu", seed, round, count);
        read += count != 0;
        jit_symbols_finish(symbols);
        jit_symbols_destroy(symbols);
        free(image);
    }
    /* Both happen: damage in offsets and names' letters goes unseen. */
    cr_assert(read > 100 && read < 900, "seed %u: %u", seed, read);
}

/* A guest that fills its memory with what looks like the beginning of a table costs time in proportion to its size,
 * no more. */
Test(kallsyms, hostile, .timeout = 60)
{
    const size_t size = 16 * MIB;
    struct jit_symbols *symbols = jit_symbols_create();
    struct kallsyms_image *image = kallsyms_make(KALLSYMS_OLD);
    uint8_t *memory = malloc(size);
    uint64_t start, ns;

    /* digits, digits, digits */
    for (size_t i = 0; i < size; i += 20)
        memcpy(memory + i,
               "0\0"
               "1\0"
               "2\0"
               "3\0"
               "4\0"
               "5\0"
               "6\0"
               "7\0"
               "8\0"
               "9",
               MIN((size_t)20, size - i));
    start = clock_host_ns();
    cr_expect_eq(jit_kallsyms_read(symbols, memory, MIB, KALLSYMS_BASE),
                 0); /* a small part: ASan's memmem looks at all of it */
    ns = clock_host_ns() - start;
    cr_expect_lt(ns, 10000000000ull, "%llu ms", (unsigned long long)(ns / 1000000));

    /* Good tokens; before them, at each 16 bytes, a count, which is also part of a symbol of 15 tokens: names that
     * are good for as long as the count says, wherever one begins, but never end where they should. */
    const size_t tokens = 12 * MIB;

    for (size_t i = 0; i < tokens; i += 16)
        memcpy(memory + i, "\x0f\1\1\1\1\1\1\1\x00\x00\x08\x00\x00\x00\x00\x00", 16);
    memcpy(memory + tokens, image->bytes + image->tokens, 2 * KIB);
    start = clock_host_ns();
    cr_expect_eq(jit_kallsyms_read(symbols, memory, size, KALLSYMS_BASE), 0);
    ns = clock_host_ns() - start;
    cr_expect_lt(ns, 10000000000ull, "%llu ms", (unsigned long long)(ns / 1000000));
    jit_symbols_destroy(symbols);
    free(memory);
    free(image);
}

/* ---- The real thing ---- */

#define KERNEL_GPA  0x1000000
#define KERNEL_GVA  0xffffffff81000000ull
#define KERNEL_SIZE (40 * MIB)

Test(kallsyms, debian)
{
    struct boot_config config = {
        .kernel = EIDOLON_GUEST "/vmlinuz", .append = "", .low_ram = 128 * MIB, .cpu_count = 1
    };
    static const char *const names[] = { "entry_SYSCALL_64", "asm_exc_page_fault", "schedule", "wake_up_process",
                                         "do_syscall_64" };
    struct jit_symbols *symbols = jit_symbols_create();
    pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    uint8_t *memory = malloc(KERNEL_SIZE);
    struct boot_cpu_state state;
    struct boot_image *image;
    struct physmem *mem;
    unsigned found = 0;
    struct error err;
    size_t count;

    if (access(config.kernel, R_OK))
        cr_skip_test("%s is not there: ./dev guest", config.kernel);
    mem = physmem_create(config.low_ram, &lock, &err);
    cr_assert(mem && memory && physmem_add_ram(mem, 0, config.low_ram, 0, "ram", &err), "%s", err.text);
    image = boot_image_load(&config, &err);
    cr_assert(image && !boot_image_place(image, mem, &state, &err), "%s", err.text);
    cr_assert(physmem_read(mem, KERNEL_GPA, memory, KERNEL_SIZE));
    count = jit_kallsyms_read(symbols, memory, KERNEL_SIZE, KERNEL_GVA);
    cr_assert_gt(count, 50000, "%zu symbols", count);
    jit_symbols_finish(symbols);
    for (gva_t address = KERNEL_GVA; address < KERNEL_GVA + 24 * MIB; address += 16) {
        uint64_t offset;
        const char *name = jit_symbols_find(symbols, address, &offset);

        for (size_t i = 0; name && !offset && i < ARRAY_SIZE(names); i++)
            found += !strcmp(name, names[i]);
    }
    cr_expect_eq(found, ARRAY_SIZE(names), "%u of them", found);
    boot_image_destroy(image);
    physmem_destroy(mem);
    jit_symbols_destroy(symbols);
    free(memory);
}
