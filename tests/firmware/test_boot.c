/* Every boot protocol with a synthetic kernel: what is in memory, and in which state the CPU starts. */
#include "tests/firmware/guest.h"
#include "tests/firmware/images.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static struct guest guest;

static void setup(void)
{
    guest_create(&guest, 64 * MIB);
}

static void teardown(void)
{
    guest_destroy(&guest);
}

TestSuite(boot, .init = setup, .fini = teardown);

static struct boot_config config_for(const char *kernel)
{
    return (
        struct boot_config){ .kernel = kernel, .low_ram = guest.low_ram, .high_ram = guest.high_ram, .cpu_count = 1 };
}

static void boot(const struct image *image, struct boot_config *config, struct boot_cpu_state *state)
{
    char *name = temporary_file(image->data, image->size);
    struct boot_image *loaded;
    struct error err = { 0 };

    config->kernel = name;
    loaded = boot_image_load(config, &err);
    cr_assert_not_null(loaded, "%s", err.text);
    /* Twice, as at a reset: the second placing reads the file again, which may have been replaced meanwhile (a package
     * upgrade on the host must not take the kernel from under a guest that reboots). */
    cr_assert_eq(boot_image_place(loaded, guest.mem, state, &err), 0, "%s", err.text);
    unlink(name);
    physmem_zero(guest.mem, MIB, 32 * MIB);
    cr_assert_eq(boot_image_place(loaded, guest.mem, state, &err), 0, "%s", err.text);
    boot_image_destroy(loaded);
    free(name);
}

static void fails(const void *data, size_t size, struct boot_config *config, const char *expected)
{
    char *name = temporary_file(data, size);
    struct error err = { 0 };

    config->kernel = name;
    cr_assert_null(boot_image_load(config, &err), "loaded, but '%s' was expected", expected);
    cr_assert_not_null(strstr(err.text, expected), "'%s' was expected in: %s", expected, err.text);
    unlink(name);
    free(name);
}

static uint32_t read32(gpa_t address)
{
    uint32_t value = 0;

    cr_assert(physmem_read(guest.mem, address, &value, 4));
    return value;
}

static void check_pattern(gpa_t address, unsigned from)
{
    for (unsigned i = from; i < TEST_KERNEL_BYTES; i++) {
        uint8_t byte;

        physmem_read(guest.mem, address + i, &byte, 1);
        cr_assert_eq(byte, pattern(i), "byte 0x%x is 0x%02x", i, byte);
    }
    for (unsigned i = 0; i < TEST_KERNEL_BSS; i += 4)
        cr_assert_eq(read32(address + TEST_KERNEL_BYTES + i), 0);
}

Test(boot, linux_of_every_compression)
{
    for (enum packing packing = 0; packing < PACK_COUNT; packing++) {
        struct image image = image_bzimage(packing);
        struct boot_config config = config_for(NULL);
        struct boot_cpu_state state;

        config.append = "console=ttyS0 quiet";
        boot(&image, &config, &state);
        cr_assert_eq(state.mode, BOOT_MODE_LONG64);
        cr_assert_eq(state.rsi, 0x10000);
        if (packing == PACK_UNKNOWN) {
            cr_assert_eq(state.rip, TEST_KERNEL_ADDRESS + 0x200);
        } else {
            cr_assert_eq(state.rip, TEST_KERNEL_ADDRESS + 0x40, "packing %d: rip %lx", packing, state.rip);
            check_pattern(TEST_KERNEL_ADDRESS, 0);
        }
        image_free(&image);
    }
}

Test(boot, linux_zero_page)
{
    struct image image = image_bzimage(PACK_ZSTD);
    struct boot_config config = config_for(NULL);
    struct boot_cpu_state state;
    char text[32], *initrd = temporary_file("an initrd of no known format", 28);
    uint32_t address;

    config.append = "console=ttyS0 quiet";
    config.initrd = initrd;
    boot(&image, &config, &state);
    physmem_read(guest.mem, read32(0x10000 + 0x228), text, 20);
    cr_assert_str_eq(text, "console=ttyS0 quiet");
    address = read32(0x10000 + 0x218);
    cr_assert_eq(address, 64 * MIB - 4096);
    cr_assert_eq(read32(0x10000 + 0x21c), 28);
    physmem_read(guest.mem, address, text, 28);
    cr_assert_eq(memcmp(text, "an initrd of no known format", 28), 0);
    cr_assert_eq(read32(0x10000 + 0x202), 0x53726448, "the setup header is copied");
    cr_assert_eq(read32(0x10000 + 0x210) & 0xff, 0xff, "the loader's type is set");
    cr_assert_eq(read32(0x10000 + 0x1e8) & 0xff, 5, "entries of the memory map");
    cr_assert_eq(read32(0x10000 + 0x2d0 + 3 * 20), 0x100000);
    cr_assert_eq(read32(0x10000 + 0x2d0 + 3 * 20 + 8), 63 * MIB);
    cr_assert_eq(read32(0x10000 + 0x070), 0xf0000, "RSDP");
    cr_assert_eq(state.cr0, 0x80000011);
    cr_assert_eq(state.cr4, 0x20);
    cr_assert_eq(state.efer, 0x500);
    cr_assert_eq(state.cs.selector, 0x10);
    cr_assert_eq(state.data.selector, 0x18);
    /* Identity: the page directory entry of the kernel's first 2 MiB. */
    cr_assert_eq(read32(state.cr3) & 1, 1);
    cr_assert_eq(read32(0xb000 + 8 * 8), TEST_KERNEL_ADDRESS | 0x83);
    image_free(&image);
    unlink(initrd);
    free(initrd);
}

Test(boot, linux_own_entry_if_asked)
{
    struct image image = image_bzimage(PACK_GZIP);
    struct boot_config config = config_for(NULL);
    struct boot_cpu_state state;

    config.no_unpack = true;
    boot(&image, &config, &state);
    cr_assert_eq(state.rip, TEST_KERNEL_ADDRESS + 0x200);
    image.data[0x236] = 0; /* no 64-bit entry: 32-bit protocol */
    boot(&image, &config, &state);
    cr_assert_eq(state.mode, BOOT_MODE_PROTECTED32);
    cr_assert_eq(state.rip, TEST_KERNEL_ADDRESS);
    image_free(&image);
}

Test(boot, pvh)
{
    struct image image = image_elf64(true);
    struct boot_config config = config_for(NULL);
    struct boot_cpu_state state;

    config.append = "x=y";
    boot(&image, &config, &state);
    check_pattern(TEST_KERNEL_ADDRESS, 0);
    cr_assert_eq(state.mode, BOOT_MODE_PROTECTED32);
    cr_assert_eq(state.rip, TEST_KERNEL_ADDRESS + 0x123);
    cr_assert_eq(read32(state.rbx), 0x336ec578);
    cr_assert_eq(read32(state.rbx + 32), 0xf0000, "RSDP");
    cr_assert_eq(read32(read32(state.rbx + 24)), 0x00793d78, "command line 'x=y'");
    cr_assert_eq(read32(state.rbx + 48), 5, "memory map entries");
    image_free(&image);
}

Test(boot, multiboot_elf_with_modules)
{
    struct image image = image_elf32_multiboot();
    struct boot_config config = config_for(NULL);
    struct boot_cpu_state state;
    char *one = temporary_file("first", 5), *two = temporary_file("second", 6), list[256], text[64];
    uint32_t modules;

    snprintf(list, sizeof(list), "%s with,, comma,%s", one, two);
    config.initrd = list;
    config.append = "argument";
    boot(&image, &config, &state);
    check_pattern(0x100000, 0);
    cr_assert_eq(state.rip, 0x100040);
    cr_assert_eq(state.rax, 0x2badb002);
    cr_assert_eq(state.mode, BOOT_MODE_PROTECTED32);
    cr_assert_eq(read32(state.rbx) & 0x4d, 0x4d, "flags 0x%x", read32(state.rbx));
    cr_assert_eq(read32(state.rbx + 4), 639, "lower memory is 0x9fc00 bytes");
    cr_assert_eq(read32(state.rbx + 8), 63 * 1024);
    cr_assert_eq(read32(state.rbx + 20), 2, "modules");
    modules = read32(state.rbx + 24);
    cr_assert_eq(read32(modules) % 4096, 0);
    cr_assert_eq(read32(modules + 4) - read32(modules), 5);
    physmem_read(guest.mem, read32(modules), text, 5);
    cr_assert_eq(memcmp(text, "first", 5), 0);
    physmem_read(guest.mem, read32(modules + 8), text, sizeof(text));
    cr_assert(strstr(text, " with, comma"), "%s", text);
    physmem_read(guest.mem, read32(modules + 16), text, 6);
    cr_assert_eq(memcmp(text, "second", 6), 0);
    physmem_read(guest.mem, read32(state.rbx + 16), text, sizeof(text));
    cr_assert(strstr(text, " argument"));
    unlink(one), unlink(two);
    free(one), free(two);
    image_free(&image);
}

Test(boot, multiboot_with_addresses)
{
    struct image image = image_raw_multiboot(0x200000);
    struct boot_config config = config_for(NULL);
    struct boot_cpu_state state;

    boot(&image, &config, &state);
    check_pattern(0x200000, 0x200);
    cr_assert_eq(state.rip, 0x200080);
    image_free(&image);
}

Test(boot, messages)
{
    struct boot_config config = config_for(NULL);
    struct image image = image_bzimage(PACK_LZ4), elf = image_elf64(false), raw = image_raw_multiboot(0x3fff000);
    struct image low = image_raw_multiboot(0xa0000);
    char *empty = temporary_file("", 0), *tmp = temporary_file("x", 1);
    char line[300];
    struct error err = { 0 };

    fails("", 0, &config, "not a Linux bzImage, PVH or multiboot image (file is empty)");
    fails("hello, world\n", 13, &config, "not a Linux bzImage, PVH or multiboot image");
    fails(image.data, image.size / 2, &config, "truncated bzImage");
    fails(elf.data, elf.size, &config, "without a PVH entry note");
    fails(elf.data, elf.size - 1, &config, "truncated");
    fails(raw.data, raw.size, &config, "where there is no memory");
    fails(low.data, low.size, &config, "where there is no memory");

    memset(line, 'x', sizeof(line));
    line[299] = 0;
    config.append = line;
    fails(image.data, image.size, &config,
          "-append: the command line is 299 bytes long, this kernel takes at most 255");
    config.append = NULL;
    config.initrd = "/nonexistent/initrd";
    fails(image.data, image.size, &config, "-initrd /nonexistent/initrd: No such file");
    config.initrd = empty;
    fails(image.data, image.size, &config, "the file is empty");
    config.initrd = tmp;
    config.low_ram = 8 * MIB;
    fails(image.data, image.size, &config, "raise -m");
    config.low_ram = guest.low_ram;
    image.data[0x206] = 5;
    fails(image.data, image.size, &config, "too old");

    config.kernel = "/tmp";
    cr_assert_null(boot_image_load(&config, &err));
    cr_assert(strstr(err.text, "-kernel /tmp: it is a directory"), "%s", err.text);
    config.kernel = "/dev/null";
    cr_assert_null(boot_image_load(&config, &err));
    cr_assert(strstr(err.text, "-kernel /dev/null: it is a device, not a file"), "%s", err.text);
    unlink(empty), unlink(tmp);
    free(empty), free(tmp);
    image_free(&image), image_free(&elf), image_free(&raw), image_free(&low);
}

/* A member of a cpio archive in the new ASCII format; data may be empty. Bytes written. */
static size_t put_cpio(uint8_t *out, const char *name, const char *data)
{
    char header[111];
    size_t name_size = strlen(name) + 1, size = strlen(data), start = ALIGN_UP(110 + name_size, 4);

    snprintf(header, sizeof(header), "070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x", 1, 0x81a4, 0, 0, 1,
             0, (unsigned)size, 0, 0, 0, 0, (unsigned)name_size, 0);
    memcpy(out, header, 110);
    memcpy(out + 110, name, name_size);
    memcpy(out + start, data, size);
    return ALIGN_UP(start + size, 4);
}

Test(boot, truncated_initrds)
{
    struct image image = image_bzimage(PACK_NONE), cpio = { calloc(1, 1024), 0 };
    struct boot_config config = config_for(NULL);

    cpio.size = put_cpio(cpio.data, "init", "#!/bin/sh");
    cpio.size += put_cpio(cpio.data + cpio.size, "TRAILER!!!", "");
    cpio.size = ALIGN_UP(cpio.size, 512);
    for (enum packing packing = PACK_NONE; packing <= PACK_LZ4; packing++) {
        struct image packed = image_pack(&cpio, packing);
        char *whole, *cut;
        struct boot_cpu_state state;

        if (packing >= PACK_XZ)
            packed.size -= 4; /* only kernels have the size appended */
        whole = temporary_file(packed.data, packed.size);
        cut = temporary_file(packed.data, packing == PACK_NONE ? 118 : packed.size - 5);
        config.initrd = whole;
        boot(&image, &config, &state);
        config.initrd = cut;
        fails(image.data, image.size, &config, "is truncated or damaged");
        unlink(whole), unlink(cut);
        free(whole), free(cut);
        image_free(&packed);
    }
    image_free(&cpio);
    image_free(&image);
}

/* The end mark of an archive may have data too, and then that must be there. */
Test(boot, initrd_whose_last_member_is_cut)
{
    struct image image = image_bzimage(PACK_NONE), cpio = { calloc(1, 1024), 0 };
    struct boot_config config = config_for(NULL);
    struct boot_cpu_state state;
    char *whole, *cut;

    cpio.size = put_cpio(cpio.data, "init", "#!/bin/sh");
    cpio.size += put_cpio(cpio.data + cpio.size, "TRAILER!!!", "12345678");
    whole = temporary_file(cpio.data, cpio.size);
    cut = temporary_file(cpio.data, cpio.size - 1);
    config.initrd = whole;
    boot(&image, &config, &state);
    config.initrd = cut;
    fails(image.data, image.size, &config, "the cpio archive is truncated or damaged");
    unlink(whole), unlink(cut);
    free(whole), free(cut);
    image_free(&cpio);
    image_free(&image);
}

Test(boot, bzimage_payload_must_lie_in_the_file)
{
    struct image image = image_bzimage(PACK_GZIP);
    struct boot_config config = config_for(NULL);
    uint32_t setup = 5 * 512, code = (uint32_t)image.size - setup, offset;
    uint32_t bad[][2] = {
        { 0x400, code - 0x400 + 1 },
        { 0x400, 0xffffffff },
        { code + 1, 1 },
        { code, 1 },
        { 0xfffff000, 0x10 },
        { 0xfffff000, 0x2000 },
        { 0x80000000, 0x80000000 },
        { 0xffffffff, 0xffffffff },
    };
    struct boot_cpu_state state;

    memcpy(&offset, image.data + 0x248, 4);
    cr_assert_eq(offset, bad[0][0]);
    memcpy(image.data + 0x24c, &(uint32_t){ code - offset }, 4); /* padding included: up to the last byte */
    boot(&image, &config, &state);
    cr_assert_eq(state.rip, TEST_KERNEL_ADDRESS + 0x40);
    for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
        memcpy(image.data + 0x248, bad[i], 8);
        fails(image.data, image.size, &config, "truncated bzImage: the kernel in it ends at byte");
    }
    image_free(&image);
}

/* The header at 0x100 of image_raw_multiboot with other flags. */
static void set_multiboot_flags(struct image *image, uint32_t flags)
{
    uint32_t header[3] = { 0x1badb002, flags, -(0x1badb002 + flags) };

    memcpy(image->data + 0x100, header, sizeof(header));
}

/* Specification 3.1.2: flags 0 to 15 are requirements, those above are not. */
Test(boot, multiboot_refuses_unknown_requirements)
{
    struct image image = image_raw_multiboot(0x200000);
    struct boot_config config = config_for(NULL);
    struct boot_cpu_state state;

    for (unsigned bit = 3; bit < 16; bit++) {
        set_multiboot_flags(&image, 1 << 16 | 3 | 1u << bit);
        fails(image.data, image.size, &config, "its multiboot header requires unknown features");
    }
    set_multiboot_flags(&image, 0xfffe0000 | 1 << 16 | 3);
    boot(&image, &config, &state);
    image_free(&image);
}

Test(boot, multiboot_image_must_have_what_its_header_says)
{
    enum { LOAD = 0x200000, LOAD_END = 0x114 };
    struct image image = image_raw_multiboot(LOAD);
    struct boot_config config = config_for(NULL);
    struct boot_cpu_state state;
    uint32_t end = LOAD + TEST_KERNEL_BYTES;

    memcpy(image.data + LOAD_END, &end, 4);
    boot(&image, &config, &state);
    check_pattern(LOAD, 0x200);
    fails(image.data, image.size - 1, &config, "truncated multiboot image");
    end++;
    memcpy(image.data + LOAD_END, &end, 4);
    fails(image.data, image.size, &config, "truncated multiboot image");
    end = LOAD - 1;
    memcpy(image.data + LOAD_END, &end, 4);
    fails(image.data, image.size, &config, "load_end_addr is below load_addr");
    image_free(&image);
}
