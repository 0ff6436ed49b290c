/* Direct boot: reads the files, finds out what the kernel is, and places it with the
 * firmware tables. One protocol per file: linux_bzimage.c, pvh.c, multiboot.c.
 *
 * Everything read from the files is hostile: sizes and addresses are checked before use. Frontend's thread,
 * before the CPUs run or while they are stopped for a reset. */
#include "firmware/boot_internal.h"
#include "firmware/memory_map.h"

#include "base/host_memory.h"
#include "devices/board/machine.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define KERNEL_FILE_MAX (1024 * MIB)

bool boot_write(struct physmem *mem, gpa_t address, const void *data, uint64_t size)
{
    void *ram = physmem_ram_pointer(mem, address, size);

    if (ram)
        host_memory_will_write(ram, size);
    return physmem_write(mem, address, data, size);
}

/* ---- Checks that the protocols share ---- */

bool boot_is_ram(const struct boot_config *config, uint64_t address, uint64_t size)
{
    struct memory_map map;

    memory_map_build(&map, config->low_ram, config->high_ram);
    for (unsigned i = 0; i < map.count; i++) {
        const struct memory_range *range = &map.ranges[i];

        if (range->type == MEMORY_USABLE && address >= range->address && address - range->address <= range->size &&
            size <= range->size - (address - range->address))
            return true;
    }
    return false;
}

int boot_elf_check_ram(const struct boot_image *image, struct error *err)
{
    const struct boot_config *config = &image->config;
    const struct elf_image *elf = &image->elf;

    for (unsigned i = 0; i < elf->segment_count; i++) {
        const struct elf_segment *segment = &elf->segments[i];

        if (boot_is_ram(config, segment->address, segment->memory_size))
            continue;
        if (elf->low >= MIB && elf->high <= Q35_LOW_RAM_MAX)
            return error_set(err, ENOMEM,
                             "-kernel %s: it needs memory up to %llu MiB, the guest has %llu MiB (raise -m)",
                             config->kernel, (unsigned long long)((elf->high + MIB - 1) / MIB),
                             (unsigned long long)((config->low_ram + config->high_ram) / MIB));
        return error_set(err, EINVAL, "-kernel %s: it wants to be loaded at 0x%llx..0x%llx, where there is no memory",
                         config->kernel, (unsigned long long)segment->address,
                         (unsigned long long)(segment->address + segment->memory_size - 1));
    }
    return 0;
}

int boot_place_error(const char *what, uint64_t address, struct error *err)
{
    return error_set(err, EFAULT, "cannot write %s to guest memory at 0x%llx", what, (unsigned long long)address);
}

gpa_t boot_initrd_address(const struct boot_image *image, uint64_t floor, uint64_t limit, struct error *err)
{
    const struct boot_config *config = &image->config;
    uint64_t top = MIN(config->low_ram, limit), size = image->initrd.size, address;

    floor = ALIGN_UP(MAX(floor, MIB), PAGE_SIZE);
    address = size <= top ? ALIGN_DOWN(top - size, PAGE_SIZE) : 0;
    if (address >= floor)
        return address;
    error_set(err, ENOMEM, "-initrd %s: %llu KiB do not fit in memory beside the kernel, there are %llu KiB (raise -m)",
              config->initrd, (unsigned long long)((size + 1023) / KIB),
              (unsigned long long)(top > floor ? (top - floor) / KIB : 0));
    return 0;
}

/* ---- Loading ---- */

static void unload(struct boot_image *image)
{
    bool keep = image->kernel.once || image->initrd.once;

    for (unsigned i = 0; i < image->module_count; i++)
        keep |= image->modules[i].file.once;
    if (keep)
        return;
    boot_file_free(&image->kernel);
    boot_file_free(&image->initrd);
    for (unsigned i = 0; i < image->module_count; i++) {
        boot_file_free(&image->modules[i].file);
        free(image->modules[i].command_line);
    }
    image->module_count = 0;
    image->loaded = false;
}

static int recognize(struct boot_image *image, struct error *err)
{
    static int (*const loaders[])(struct boot_image * image, struct error * err) = {
        linux_load,
        multiboot_load,
        pvh_load,
    };

    for (unsigned i = 0; i < ARRAY_SIZE(loaders); i++) {
        int result = loaders[i](image, err);

        if (result <= 0)
            return result;
    }
    return error_set(err, EINVAL, "-kernel %s: not a Linux bzImage, PVH or multiboot image%s", image->config.kernel,
                     image->kernel.size == 0 ? " (file is empty)" : "");
}

static int load(struct boot_image *image, struct error *err)
{
    const struct boot_config *config = &image->config;
    int result = boot_file_read(&image->kernel, "-kernel", config->kernel, KERNEL_FILE_MAX, err);

    if (!result)
        result = recognize(image, err);
    /* A multiboot kernel has read its modules itself. */
    if (!result && config->initrd && image->kind != BOOT_MULTIBOOT) {
        result = boot_file_read(&image->initrd, "-initrd", config->initrd, MAX(config->low_ram, MIB), err);
        if (result == -EFBIG)
            result = error_set(err, EFBIG, "-initrd %s: the file is bigger than the guest's memory (raise -m)",
                               config->initrd);
        if (!result && image->initrd.size == 0)
            result = error_set(err, EINVAL, "-initrd %s: the file is empty", config->initrd);
        if (!result && initrd_check(image->initrd.data, image->initrd.size, err))
            result = error_prefix(err, -EINVAL, "-initrd %s", config->initrd);
    }
    image->loaded = result == 0;
    return result;
}

static char *copy_string(const char *text)
{
    return text ? strdup(text) : NULL;
}

struct boot_image *boot_image_load(const struct boot_config *config, struct error *err)
{
    struct boot_image *image = calloc(1, sizeof(*image));

    if (!image) {
        error_set(err, ENOMEM, "-kernel %s: out of memory", config->kernel);
        return NULL;
    }
    image->config = *config;
    image->config.kernel = copy_string(config->kernel);
    image->config.initrd = copy_string(config->initrd);
    image->config.append = strdup(config->append ? config->append : "");
    if (load(image, err)) {
        boot_image_destroy(image);
        return NULL;
    }
    return image;
}

static int place(struct boot_image *image, struct physmem *mem, gpa_t rsdp, struct boot_cpu_state *state,
                 struct error *err)
{
    switch (image->kind) {
    case BOOT_PVH:
        return pvh_place(image, mem, rsdp, state, err);
    case BOOT_MULTIBOOT:
        return multiboot_place(image, mem, state, err);
    default:
        return linux_place(image, mem, rsdp, state, err);
    }
}

int boot_image_place(struct boot_image *image, struct physmem *mem, struct boot_cpu_state *state, struct error *err)
{
    struct firmware_tables_config tables = {
        .low_ram = image->config.low_ram,
        .high_ram = image->config.high_ram,
        .cpu_count = image->config.cpu_count,
        .i440fx = image->config.i440fx,
        .texts = image->config.texts,
    };
    gpa_t rsdp;
    int result = image->loaded ? 0 : load(image, err);

    memcpy(tables.uuid, image->config.uuid, sizeof(tables.uuid));
    if (!result)
        result = firmware_tables_place(mem, &tables, &rsdp, err);
    if (!result)
        result = place(image, mem, rsdp, state, err);
    unload(image);
    return result;
}

void boot_image_destroy(struct boot_image *image)
{
    if (!image)
        return;
    image->kernel.once = image->initrd.once = false;
    for (unsigned i = 0; i < image->module_count; i++)
        image->modules[i].file.once = false;
    unload(image);
    boot_file_close(&image->kernel);
    boot_file_close(&image->initrd);
    for (unsigned i = 0; i < MULTIBOOT_MODULES_MAX; i++)
        boot_file_close(&image->modules[i].file);
    free((char *)image->config.kernel);
    free((char *)image->config.initrd);
    free((char *)image->config.append);
    free(image);
}
