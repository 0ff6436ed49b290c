/* Linux bzImage (Documentation/arch/x86/boot.rst, zero-page.rst).
 *
 * By default the compressed kernel inside is unpacked here, piece by piece (its headers once before, to know where it
 * goes), and its ELF segments are put where they are linked, which is what the kernel's own decompressor would do but
 * for the choice of a random address: without it, relocations (which follow the ELF file) need not be applied. It is
 * entered at its startup_64 in long mode with identity page tables.
 * A compression that we do not know, or no_unpack, starts the bzImage at its own entry and the guest unpacks.
 *
 *   file:  boot sector + setup: (setup_sects + 1) * 512 bytes | protected-mode code, syssize * 16 bytes
 *          payload_offset and payload_length point into the second part
 *
 * Offsets below are those of the setup header in the file and in the zero page (struct boot_params). */
#include "firmware/boot_internal.h"
#include "firmware/memory_map.h"
#include "firmware/unpack.h"

#include <elf.h>
#include <errno.h>
#include <string.h>

enum {
    HDR_SETUP_SECTS = 0x1f1,
    HDR_SYSSIZE = 0x1f4,
    HDR_BOOT_FLAG = 0x1fe,
    HDR_JUMP_LENGTH = 0x201,
    HDR_MAGIC = 0x202,
    HDR_VERSION = 0x206,
    HDR_TYPE_OF_LOADER = 0x210,
    HDR_LOADFLAGS = 0x211,
    HDR_CODE32_START = 0x214,
    HDR_RAMDISK_IMAGE = 0x218,
    HDR_RAMDISK_SIZE = 0x21c,
    HDR_CMD_LINE_PTR = 0x228,
    HDR_INITRD_ADDR_MAX = 0x22c,
    HDR_RELOCATABLE = 0x234,
    HDR_XLOADFLAGS = 0x236,
    HDR_CMDLINE_SIZE = 0x238,
    HDR_PAYLOAD_OFFSET = 0x248,
    HDR_PAYLOAD_LENGTH = 0x24c,
    HDR_PREF_ADDRESS = 0x258,
    HDR_INIT_SIZE = 0x260,
    HDR_END_MAX = 0x290,

    PARAMS_ACPI_RSDP = 0x070,
    PARAMS_E820_ENTRIES = 0x1e8,
    PARAMS_E820 = 0x2d0,
    PARAMS_SIZE = 4096,

    LOADFLAG_LOADED_HIGH = 1,
    XLOADFLAG_KERNEL_64 = 1,
    LOADER_UNDEFINED = 0xff,
    ENTRY64_OFFSET = 0x200,
};
#define SETUP_SECTOR 512u
#define UNPACKED_MAX (1024 * MIB)

static uint32_t get32(const struct boot_file *file, unsigned offset)
{
    uint32_t value = 0;

    if (offset + 4 <= file->size)
        memcpy(&value, file->data + offset, 4);
    return value;
}

static unsigned version(const struct boot_file *file)
{
    return get32(file, HDR_VERSION) & 0xffff;
}

static uint64_t setup_size(const struct boot_file *file)
{
    unsigned sectors = file->data[HDR_SETUP_SECTS];

    return ((sectors ? sectors : 4) + 1) * SETUP_SECTOR;
}

static uint64_t pref_address(const struct boot_file *file)
{
    if (version(file) < 0x20a)
        return MIB;
    return get32(file, HDR_PREF_ADDRESS) | (uint64_t)get32(file, HDR_PREF_ADDRESS + 4) << 32;
}

/* Memory that the kernel needs from its load address on, before it looks at the memory map. */
static uint64_t init_size(const struct boot_file *file)
{
    uint64_t code = file->size - setup_size(file);

    return version(file) < 0x20a ? code * 4 : MAX(code, (uint64_t)get32(file, HDR_INIT_SIZE));
}

static uint64_t load_address(const struct boot_file *file)
{
    return file->data[HDR_RELOCATABLE] && version(file) >= 0x20a ? pref_address(file) : MIB;
}

/* ---- Loading ---- */

static const uint8_t *payload(const struct boot_file *file)
{
    return file->data + setup_size(file) + get32(file, HDR_PAYLOAD_OFFSET);
}

/* Takes the beginning of the unpacked kernel. */
static int take_head(void *opaque, const uint8_t *data, size_t size, struct error *err)
{
    struct boot_image *image = opaque;

    image->unpacks =
        !elf_image_parse_head(&image->elf, data, size, err) && image->elf.is_64 && image->elf.machine == EM_X86_64;
    return 0;
}

/* 0: image->elf is ready; 1: not possible, start the bzImage itself. */
static int look_inside(struct boot_image *image, struct error *err)
{
    struct boot_file *file = &image->kernel;
    uint64_t start = setup_size(file) + get32(file, HDR_PAYLOAD_OFFSET), length = get32(file, HDR_PAYLOAD_LENGTH);
    int result;

    image->unpacks = false;
    if (image->config.no_unpack || version(file) < 0x208 || length == 0)
        return 1;
    if (start > file->size || length > file->size - start)
        return error_set(err, EINVAL,
                         "-kernel %s: truncated bzImage: the kernel in it ends at byte %llu, the file at %zu",
                         image->config.kernel, (unsigned long long)(start + length), file->size);
    result = unpack_head(payload(file), length, take_head, image, err);
    if (result < 0 && result != -ENOTSUP)
        return error_prefix(err, result, "-kernel %s", image->config.kernel);
    if (!image->unpacks)
        image->elf = (struct elf_image){ 0 };
    return image->unpacks ? 0 : 1;
}

static int check_memory(const struct boot_image *image, struct error *err)
{
    const struct boot_file *file = &image->kernel;
    uint64_t base = load_address(file), size = init_size(file);

    if (image->kind == BOOT_LINUX_ELF)
        return boot_elf_check_ram(image, err);
    if (boot_is_ram(&image->config, base, size))
        return 0;
    return error_set(err, ENOMEM, "-kernel %s: it needs memory up to %llu MiB, the guest has %llu MiB (raise -m)",
                     image->config.kernel, (unsigned long long)((base + size + MIB - 1) / MIB),
                     (unsigned long long)((image->config.low_ram + image->config.high_ram) / MIB));
}

static int check_header(const struct boot_image *image, struct error *err)
{
    const struct boot_file *file = &image->kernel;
    const char *name = image->config.kernel;
    uint64_t code = (uint64_t)get32(file, HDR_SYSSIZE) * 16, command_line_max;

    if (version(file) < 0x206)
        return error_set(err, EINVAL, "-kernel %s: boot protocol %u.%02u is too old, 2.06 is needed", name,
                         version(file) >> 8, version(file) & 0xff);
    if (!(file->data[HDR_LOADFLAGS] & LOADFLAG_LOADED_HIGH))
        return error_set(err, EINVAL, "-kernel %s: it is a zImage, a bzImage is needed", name);
    /* syssize may count padding that is not in the file. */
    if (file->size < HDR_END_MAX || file->size <= setup_size(file) || file->size + 64 < setup_size(file) + code)
        return error_set(err, EINVAL, "-kernel %s: truncated bzImage: %zu bytes, its header says %llu", name,
                         file->size, (unsigned long long)(setup_size(file) + code));
    command_line_max = MIN(get32(file, HDR_CMDLINE_SIZE), BOOT_COMMAND_LINE_MAX - 1);
    if (strlen(image->config.append) > command_line_max)
        return error_set(err, E2BIG, "-append: the command line is %zu bytes long, this kernel takes at most %llu",
                         strlen(image->config.append), (unsigned long long)command_line_max);
    return 0;
}

int linux_load(struct boot_image *image, struct error *err)
{
    const struct boot_file *file = &image->kernel;
    int result;

    if (file->size < HDR_VERSION + 2 || memcmp(file->data + HDR_MAGIC, "HdrS", 4) ||
        (get32(file, HDR_BOOT_FLAG) & 0xffff) != 0xaa55)
        return 1;
    result = check_header(image, err);
    if (result)
        return result;
    result = look_inside(image, err);
    if (result < 0)
        return result;
    if (result == 0)
        image->kind = BOOT_LINUX_ELF;
    else if (version(file) >= 0x20c && (get32(file, HDR_XLOADFLAGS) & XLOADFLAG_KERNEL_64))
        image->kind = BOOT_LINUX_ENTRY64;
    else
        image->kind = BOOT_LINUX_ENTRY32;
    return check_memory(image, err);
}

/* ---- Placing ---- */

static void put32(uint8_t *params, unsigned offset, uint32_t value)
{
    memcpy(params + offset, &value, 4);
}

static void fill_memory_map(uint8_t *params, const struct boot_config *config)
{
    struct memory_map map;

    memory_map_build(&map, config->low_ram, config->high_ram);
    params[PARAMS_E820_ENTRIES] = map.count;
    for (unsigned i = 0; i < map.count; i++) {
        uint8_t *entry = params + PARAMS_E820 + 20 * i;

        memcpy(entry, &map.ranges[i].address, 8);
        memcpy(entry + 8, &map.ranges[i].size, 8);
        memcpy(entry + 16, &map.ranges[i].type, 4);
    }
}

/* The zero page: the file's setup header, and zeros where we have nothing to say. */
static int place_params(const struct boot_image *image, struct physmem *mem, gpa_t rsdp, gpa_t initrd,
                        struct error *err)
{
    const struct boot_file *file = &image->kernel;
    const char *command_line = image->config.append;
    uint8_t params[PARAMS_SIZE] = { 0 };
    unsigned header_end = MIN(HDR_MAGIC + file->data[HDR_JUMP_LENGTH], (int)HDR_END_MAX);

    memcpy(params + HDR_SETUP_SECTS, file->data + HDR_SETUP_SECTS, header_end - HDR_SETUP_SECTS);
    params[HDR_TYPE_OF_LOADER] = LOADER_UNDEFINED;
    put32(params, HDR_CMD_LINE_PTR, BOOT_COMMAND_LINE);
    if (initrd) {
        put32(params, HDR_RAMDISK_IMAGE, initrd);
        put32(params, HDR_RAMDISK_SIZE, image->initrd.size);
    }
    if (image->kind != BOOT_LINUX_ELF)
        put32(params, HDR_CODE32_START, load_address(file));
    memcpy(params + PARAMS_ACPI_RSDP, &rsdp, 8);
    fill_memory_map(params, &image->config);
    if (!physmem_write(mem, BOOT_PARAMS, params, sizeof(params)))
        return boot_place_error("the boot parameters", BOOT_PARAMS, err);
    if (!physmem_write(mem, BOOT_COMMAND_LINE, command_line, strlen(command_line) + 1))
        return boot_place_error("the command line", BOOT_COMMAND_LINE, err);
    return 0;
}

struct placing {
    const struct elf_image *elf;
    struct physmem *mem;
    uint64_t position;
};

static int place_piece(void *opaque, const uint8_t *data, size_t size, struct error *err)
{
    struct placing *placing = opaque;
    uint64_t position = placing->position;

    placing->position += size;
    if (elf_image_place_piece(placing->elf, position, data, size, placing->mem))
        return 0;
    return boot_place_error("the kernel", placing->elf->low, err);
}

static int place_unpacked(const struct boot_image *image, struct physmem *mem, struct error *err)
{
    const struct boot_file *file = &image->kernel;
    struct placing placing = { &image->elf, mem, 0 };
    int result;

    if (!elf_image_place_zeros(&image->elf, mem))
        return boot_place_error("the kernel", image->elf.low, err);
    result = unpack(payload(file), get32(file, HDR_PAYLOAD_LENGTH), UNPACKED_MAX, place_piece, &placing, err);
    if (!result && placing.position < elf_image_file_end(&image->elf))
        result =
            error_set(err, EINVAL, "the kernel in it is truncated: a segment ends at byte %llu, the kernel at %llu",
                      (unsigned long long)elf_image_file_end(&image->elf), (unsigned long long)placing.position);
    return result ? error_prefix(err, result, "-kernel %s", image->config.kernel) : 0;
}

static int place_kernel(const struct boot_image *image, struct physmem *mem, struct error *err)
{
    const struct boot_file *file = &image->kernel;
    uint64_t start = setup_size(file);

    if (image->kind == BOOT_LINUX_ELF)
        return place_unpacked(image, mem, err);
    if (!boot_write(mem, load_address(file), file->data + start, file->size - start))
        return boot_place_error("the kernel", load_address(file), err);
    return 0;
}

static int place_initrd(const struct boot_image *image, struct physmem *mem, gpa_t *address, struct error *err)
{
    const struct boot_file *file = &image->kernel;
    uint64_t end = MAX(image->elf.high, load_address(file) + init_size(file));

    *address = 0;
    if (!image->initrd.size)
        return 0;
    *address = boot_initrd_address(image, end, (uint64_t)get32(file, HDR_INITRD_ADDR_MAX) + 1, err);
    if (!*address)
        return -ENOMEM;
    if (!boot_write(mem, *address, image->initrd.data, image->initrd.size))
        return boot_place_error("the initrd", *address, err);
    return 0;
}

static void enter(const struct boot_image *image, struct boot_cpu_state *state)
{
    uint64_t base = load_address(&image->kernel);

    if (image->kind == BOOT_LINUX_ELF)
        boot_state_long64(state, elf_image_physical_entry(&image->elf));
    else if (image->kind == BOOT_LINUX_ENTRY64)
        boot_state_long64(state, base + ENTRY64_OFFSET);
    else
        boot_state_protected32(state, base);
    state->rsi = BOOT_PARAMS;
}

int linux_place(struct boot_image *image, struct physmem *mem, gpa_t rsdp, struct boot_cpu_state *state,
                struct error *err)
{
    gpa_t initrd;
    int result = place_initrd(image, mem, &initrd, err);

    if (!result)
        result = place_kernel(image, mem, err);
    if (!result)
        result = place_params(image, mem, rsdp, initrd, err);
    if (result)
        return result;
    if (!boot_place_gdt(mem, BOOT_GDT, image->kind != BOOT_LINUX_ENTRY32) || !boot_place_identity_tables(mem))
        return boot_place_error("the page tables", BOOT_PML4, err);
    enter(image, state);
    return 0;
}
