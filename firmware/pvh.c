/* PVH: an ELF kernel with a Xen note that gives its 32-bit entry point (Xen
 * docs/misc/pvh.pandoc, xen/include/public/arch-x86/hvm/start_info.h). Entered in protected mode without paging,
 * EBX = struct hvm_start_info. */
#include "firmware/boot_internal.h"
#include "firmware/memory_map.h"

#include <errno.h>
#include <string.h>

#define HVM_START_MAGIC 0x336ec578u

struct hvm_start_info {
    uint32_t magic, version, flags, module_count;
    uint64_t modules, command_line, rsdp, memory_map;
    uint32_t memory_map_entries, reserved;
};
struct hvm_module {
    uint64_t address, size, command_line, reserved;
};
struct hvm_memory_entry {
    uint64_t address, size;
    uint32_t type, reserved;
};
_Static_assert(sizeof(struct hvm_start_info) == 56 && sizeof(struct hvm_memory_entry) == 24, "PVH ABI");

enum { INFO_MODULES = 64, INFO_MEMORY_MAP = 128 }; /* offsets from BOOT_PARAMS */

int pvh_load(struct boot_image *image, struct error *err)
{
    const struct boot_config *config = &image->config;
    const struct boot_file *file = &image->kernel;
    struct error reason;
    int result;

    if (!elf_image_is_elf(file->data, file->size))
        return 1;
    result = elf_image_parse(&image->elf, file->data, file->size, &reason);
    if (result)
        return error_set(err, -result, "-kernel %s: not a kernel that can be started: %s", config->kernel, reason.text);
    if (!image->elf.has_pvh_entry)
        return error_set(err, EINVAL,
                         "-kernel %s: an ELF file without a PVH entry note (build Linux with CONFIG_PVH=y, "
                         "or use its bzImage) and without a multiboot header",
                         config->kernel);
    if (image->elf.pvh_entry > UINT32_MAX)
        return error_set(err, EINVAL, "-kernel %s: its PVH entry point 0x%llx is not below 4 GiB", config->kernel,
                         (unsigned long long)image->elf.pvh_entry);
    if (strlen(config->append) >= BOOT_COMMAND_LINE_MAX)
        return error_set(err, E2BIG, "-append: the command line is %zu bytes long, at most %llu fit",
                         strlen(config->append), BOOT_COMMAND_LINE_MAX - 1);
    image->kind = BOOT_PVH;
    return boot_elf_check_ram(image, err);
}

static bool place_info(const struct boot_image *image, struct physmem *mem, gpa_t rsdp, gpa_t initrd)
{
    const char *command_line = image->config.append;
    struct hvm_module module = { .address = initrd, .size = image->initrd.size };
    struct hvm_memory_entry entries[MEMORY_MAP_MAX] = { 0 };
    struct memory_map map;
    struct hvm_start_info info = {
        .magic = HVM_START_MAGIC,
        .version = 1,
        .module_count = initrd ? 1 : 0,
        .modules = initrd ? BOOT_PARAMS + INFO_MODULES : 0,
        .command_line = BOOT_COMMAND_LINE,
        .rsdp = rsdp,
        .memory_map = BOOT_PARAMS + INFO_MEMORY_MAP,
    };

    memory_map_build(&map, image->config.low_ram, image->config.high_ram);
    info.memory_map_entries = map.count;
    for (unsigned i = 0; i < map.count; i++)
        entries[i] = (struct hvm_memory_entry){ map.ranges[i].address, map.ranges[i].size, map.ranges[i].type, 0 };
    return physmem_write(mem, BOOT_PARAMS, &info, sizeof(info)) &&
           physmem_write(mem, BOOT_PARAMS + INFO_MODULES, &module, sizeof(module)) &&
           physmem_write(mem, BOOT_PARAMS + INFO_MEMORY_MAP, entries, sizeof(entries)) &&
           physmem_write(mem, BOOT_COMMAND_LINE, command_line, strlen(command_line) + 1);
}

int pvh_place(struct boot_image *image, struct physmem *mem, gpa_t rsdp, struct boot_cpu_state *state,
              struct error *err)
{
    gpa_t initrd = 0;

    if (image->initrd.size) {
        initrd = boot_initrd_address(image, image->elf.high, MEMORY_HIGH_BASE, err);
        if (!initrd)
            return -ENOMEM;
        if (!boot_write(mem, initrd, image->initrd.data, image->initrd.size))
            return boot_place_error("the initrd", initrd, err);
    }
    if (!elf_image_place(&image->elf, image->kernel.data, mem))
        return boot_place_error("the kernel", image->elf.low, err);
    if (!place_info(image, mem, rsdp, initrd) || !boot_place_gdt(mem, BOOT_GDT, false))
        return boot_place_error("the start information", BOOT_PARAMS, err);
    boot_state_protected32(state, image->elf.pvh_entry);
    state->rbx = BOOT_PARAMS;
    return 0;
}
