/* Multiboot 1 (specification 0.6.96): kernels with a header in their first 8 KiB, as ELF or with load
 * addresses in the header (the "a.out kludge"). Entered in protected mode, EAX = magic, EBX = information.
 *
 *   header:  magic 0x1badb002, flags, checksum; with flag 16: header_addr, load_addr, load_end_addr,
 *            bss_end_addr, entry_addr
 *
 * -initrd is a comma-separated list of modules, each a file name and, after a blank, arguments; ",," is a comma.
 * Information and modules go behind the kernel. */
#include "firmware/boot_internal.h"
#include "firmware/memory_map.h"

#include "devices/board/machine.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define HEADER_MAGIC  0x1badb002u
#define LOADER_MAGIC  0x2badb002u
#define HEADER_SEARCH 8192u
#define LOADER_NAME   "eidolon"

enum { HEADER_REQUIRED = 0xffff, HEADER_KNOWN = 7, HEADER_ADDRESSES = 1 << 16 };
enum {
    INFO_MEMORY = 1 << 0,
    INFO_COMMAND_LINE = 1 << 2,
    INFO_MODULES = 1 << 3,
    INFO_MEMORY_MAP = 1 << 6,
    INFO_LOADER_NAME = 1 << 9,
};

struct multiboot_info {
    uint32_t flags, mem_lower, mem_upper, boot_device, command_line, modules_count, modules, symbols[4];
    uint32_t memory_map_length, memory_map, drives_length, drives, config_table, loader_name, apm_table;
};
struct multiboot_module {
    uint32_t start, end, command_line, reserved;
};
struct multiboot_memory {
    uint32_t size; /* of what follows */
    uint64_t address, length;
    uint32_t type;
} __attribute__((packed));
_Static_assert(sizeof(struct multiboot_info) == 72 && sizeof(struct multiboot_memory) == 24, "multiboot ABI");

/* ---- Loading ---- */

/* Offset of the header, or -1. */
static int64_t find_header(const struct boot_file *file, uint32_t header[8])
{
    for (size_t offset = 0; offset + 12 <= MIN(file->size, (size_t)HEADER_SEARCH); offset += 4) {
        memset(header, 0, 32);
        memcpy(header, file->data + offset, MIN((size_t)32, file->size - offset));
        if (header[0] == HEADER_MAGIC && header[0] + header[1] + header[2] == 0)
            return offset;
    }
    return -1;
}

static int raw_layout(struct boot_image *image, const uint32_t header[8], uint64_t offset, struct error *err)
{
    struct multiboot_layout *layout = &image->multiboot;
    const char *name = image->config.kernel;
    uint32_t header_address = header[3], load = header[4], load_end = header[5], bss_end = header[6];
    uint64_t before = (uint64_t)header_address - load;

    if (header_address < load || before > offset)
        return error_set(err, EINVAL, "-kernel %s: the multiboot header's addresses contradict its place in the file",
                         name);
    layout->raw = true;
    layout->file_offset = offset - before;
    layout->load = load;
    layout->load_size = image->kernel.size - layout->file_offset;
    layout->entry = header[7];
    if (load_end) {
        if (load_end < load)
            return error_set(err, EINVAL, "-kernel %s: the multiboot header's load_end_addr is below load_addr", name);
        if (load_end - load > layout->load_size)
            return error_set(err, EINVAL, "-kernel %s: truncated multiboot image: %zu bytes, its header says %llu",
                             name, image->kernel.size, (unsigned long long)(layout->file_offset + (load_end - load)));
        layout->load_size = load_end - load;
    }
    layout->end = MAX((uint64_t)bss_end, layout->load + layout->load_size);
    if (!boot_is_ram(&image->config, layout->load, layout->end - layout->load))
        return error_set(err, ENOMEM, "-kernel %s: it wants to be loaded at 0x%llx..0x%llx, where there is no memory",
                         name, (unsigned long long)layout->load, (unsigned long long)(layout->end - 1));
    return 0;
}

static int elf_layout(struct boot_image *image, struct error *err)
{
    struct error reason;
    int result = elf_image_parse(&image->elf, image->kernel.data, image->kernel.size, &reason);

    if (result)
        return error_set(err, -result, "-kernel %s: multiboot kernel without load addresses, and %s",
                         image->config.kernel, reason.text);
    result = boot_elf_check_ram(image, err);
    if (result)
        return result;
    image->multiboot.entry = elf_image_physical_entry(&image->elf);
    image->multiboot.end = image->elf.high;
    if (image->multiboot.end > Q35_LOW_RAM_MAX || image->multiboot.entry > UINT32_MAX)
        return error_set(err, EINVAL, "-kernel %s: a multiboot kernel must lie below 2 GiB", image->config.kernel);
    return 0;
}

static int add_module(struct boot_image *image, const char *text, struct error *err)
{
    struct boot_module *module = &image->modules[image->module_count];
    char *path;
    int result;

    if (image->module_count == MULTIBOOT_MODULES_MAX)
        return error_set(err, E2BIG, "-initrd: more than %d modules", MULTIBOOT_MODULES_MAX);
    path = strndup(text, strcspn(text, " "));
    module->command_line = strdup(text);
    if (!path || !module->command_line) {
        free(path);
        return error_set(err, ENOMEM, "-initrd: out of memory");
    }
    image->module_count++;
    result = boot_file_read(&module->file, "-initrd", path, MAX(image->config.low_ram, MIB), err);
    free(path);
    return result;
}

static int load_modules(struct boot_image *image, struct error *err)
{
    const char *in = image->config.initrd;
    char *text = in ? malloc(strlen(in) + 1) : NULL;
    size_t length = 0;
    int result = 0;

    if (!in)
        return 0;
    if (!text)
        return error_set(err, ENOMEM, "-initrd: out of memory");
    while (!result && *in) {
        bool end = false;

        if (in[0] == ',' && in[1] == ',')
            in++;
        else
            end = in[0] == ',';
        if (!end)
            text[length++] = *in;
        in++;
        if (end || !*in) {
            text[length] = 0;
            length = 0;
            result = add_module(image, text, err);
        }
    }
    free(text);
    return result;
}

int multiboot_load(struct boot_image *image, struct error *err)
{
    uint32_t header[8];
    int64_t offset = find_header(&image->kernel, header);
    int result;

    if (offset < 0)
        return 1;
    image->kind = BOOT_MULTIBOOT;
    memset(&image->multiboot, 0, sizeof(image->multiboot));
    image->multiboot.flags = header[1];
    if (header[1] & HEADER_REQUIRED & ~HEADER_KNOWN)
        return error_set(err, EINVAL, "-kernel %s: its multiboot header requires unknown features (flags 0x%x)",
                         image->config.kernel, header[1]);
    result = header[1] & HEADER_ADDRESSES ? raw_layout(image, header, offset, err) : elf_layout(image, err);
    return result ? result : load_modules(image, err);
}

/* ---- Placing ---- */

/* A bump allocator behind the kernel. */
struct cursor {
    struct boot_image *image;
    struct physmem *mem;
    uint64_t next;
};

/* The address, or 0 and an error. */
static uint32_t put(struct cursor *cursor, const void *data, uint64_t size, uint64_t align, const char *what,
                    struct error *err)
{
    uint64_t address = ALIGN_UP(cursor->next, align);

    if (!boot_is_ram(&cursor->image->config, address, size)) {
        error_set(err, ENOMEM, "-kernel %s: no memory behind the kernel for %s (raise -m)",
                  cursor->image->config.kernel, what);
        return 0;
    }
    if (!boot_write(cursor->mem, address, data, size)) {
        boot_place_error(what, address, err);
        return 0;
    }
    cursor->next = address + size;
    return address;
}

static int put_modules(struct cursor *cursor, struct multiboot_info *info, struct error *err)
{
    struct boot_image *image = cursor->image;
    struct multiboot_module list[MULTIBOOT_MODULES_MAX] = { 0 };

    for (unsigned i = 0; i < image->module_count; i++) {
        const struct boot_module *module = &image->modules[i];

        list[i].command_line = put(cursor, module->command_line, strlen(module->command_line) + 1, 4, "a module", err);
        if (!list[i].command_line)
            return -ENOMEM;
        list[i].start = put(cursor, module->file.data, module->file.size, PAGE_SIZE, "a module", err);
        if (!list[i].start)
            return -ENOMEM;
        list[i].end = list[i].start + module->file.size;
    }
    if (!image->module_count)
        return 0;
    info->flags |= INFO_MODULES;
    info->modules_count = image->module_count;
    info->modules = put(cursor, list, image->module_count * sizeof(list[0]), 16, "the module list", err);
    return info->modules ? 0 : -ENOMEM;
}

static int put_memory_map(struct cursor *cursor, struct multiboot_info *info, struct error *err)
{
    struct multiboot_memory list[MEMORY_MAP_MAX];
    struct memory_map map;

    memory_map_build(&map, cursor->image->config.low_ram, cursor->image->config.high_ram);
    for (unsigned i = 0; i < map.count; i++)
        list[i] = (struct multiboot_memory){ 20, map.ranges[i].address, map.ranges[i].size, map.ranges[i].type };
    info->flags |= INFO_MEMORY | INFO_MEMORY_MAP;
    info->mem_lower = MEMORY_LOW_END / KIB;
    info->mem_upper = (cursor->image->config.low_ram - MIB) / KIB;
    info->memory_map_length = map.count * sizeof(list[0]);
    info->memory_map = put(cursor, list, info->memory_map_length, 16, "the memory map", err);
    return info->memory_map ? 0 : -ENOMEM;
}

/* "kernel arguments": the file's name comes first, as GRUB does it. */
static int put_strings(struct cursor *cursor, struct multiboot_info *info, struct error *err)
{
    const struct boot_config *config = &cursor->image->config;
    size_t size = strlen(config->kernel) + 1 + strlen(config->append) + 1;
    char *text = malloc(size);

    if (!text)
        return error_set(err, ENOMEM, "-append: out of memory");
    snprintf(text, size, "%s%s%s", config->kernel, *config->append ? " " : "", config->append);
    info->flags |= INFO_COMMAND_LINE | INFO_LOADER_NAME;
    info->command_line = put(cursor, text, strlen(text) + 1, 4, "the command line", err);
    free(text);
    info->loader_name = put(cursor, LOADER_NAME, sizeof(LOADER_NAME), 4, "the loader's name", err);
    return info->command_line && info->loader_name ? 0 : -ENOMEM;
}

static bool place_kernel(const struct boot_image *image, struct physmem *mem)
{
    const struct multiboot_layout *layout = &image->multiboot;
    uint64_t loaded = layout->load + layout->load_size;

    if (!layout->raw)
        return elf_image_place(&image->elf, image->kernel.data, mem);
    return boot_write(mem, layout->load, image->kernel.data + layout->file_offset, layout->load_size) &&
           physmem_zero(mem, loaded, layout->end - loaded);
}

int multiboot_place(struct boot_image *image, struct physmem *mem, struct boot_cpu_state *state, struct error *err)
{
    /* A kernel below 640 KiB still gets its information above 1 MiB, where there is room. */
    struct cursor cursor = { image, mem, ALIGN_UP(MAX(image->multiboot.end, MIB), PAGE_SIZE) };
    struct multiboot_info info = { 0 };
    uint64_t gdt, address;
    int result;

    if (!place_kernel(image, mem))
        return boot_place_error("the kernel", image->multiboot.raw ? image->multiboot.load : image->elf.low, err);
    gdt = cursor.next;
    cursor.next += 64;
    if (!boot_is_ram(&image->config, gdt, 64) || !boot_place_gdt(mem, gdt, false))
        return error_set(err, ENOMEM, "-kernel %s: no memory behind the kernel (raise -m)", image->config.kernel);
    result = put_strings(&cursor, &info, err);
    if (!result)
        result = put_memory_map(&cursor, &info, err);
    if (!result)
        result = put_modules(&cursor, &info, err);
    if (result)
        return result;
    address = put(&cursor, &info, sizeof(info), 16, "the boot information", err);
    if (!address)
        return -ENOMEM;
    boot_state_protected32(state, image->multiboot.entry);
    state->gdt_base = gdt;
    state->rsp = 0;
    state->rax = LOADER_MAGIC;
    state->rbx = address;
    return 0;
}
