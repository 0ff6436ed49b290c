/* -kernel together with firmware (-bios or flash drives): the firmware gets the files through fw_cfg, as from QEMU, and
 * starts the kernel: OVMF by itself, SeaBIOS with the option ROM linuxboot_dma.bin of the distribution. Kernels that need BIOS
 * services (ipxe.lkrn) start only this way. Linux Documentation/arch/x86/boot.rst. Main thread, before the machine runs. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "devices/board/fw_cfg.h"
#include "devices/core/boot_order.h"
#include "devices/core/rom_file.h"
#include "frontend/vm_internal.h"

#define FILE_MAX       (1024 * MIB)
#define OPTION_ROM     "linuxboot_dma.bin"
#define OPTION_ROM_MAX (64 * KIB)
#define SETUP_ADDRESS  0x10000u
#define TEXT_ADDRESS   0x20000u
#define KERNEL_ADDRESS 0x100000u

/* Offsets in the setup header. */
enum {
    SETUP_SECTS = 0x1f1,
    HEADER_MAGIC = 0x202,
    PROTOCOL = 0x206,
    LOADER_TYPE = 0x210,
    LOAD_FLAGS = 0x211,
    RAMDISK_ADDRESS = 0x218,
    RAMDISK_SIZE = 0x21c,
    HEAP_END = 0x224,
    TEXT_POINTER = 0x228,
    RAMDISK_MAX = 0x22c,
    HEADER_END = 0x250,
};
enum { LOADED_HIGH = 1 << 0, CAN_USE_HEAP = 1 << 7, LOADER_QEMU = 0xb0 };

static uint32_t get32(const uint8_t *at)
{
    uint32_t value;

    memcpy(&value, at, sizeof(value));
    return value;
}

static void put32(uint8_t *at, uint32_t value)
{
    memcpy(at, &value, sizeof(value));
}

static int add_blob(struct fw_cfg *fw_cfg, uint16_t address_key, uint32_t address, uint16_t size_key, uint16_t data_key,
                    const void *data, uint64_t size, struct error *err)
{
    int ret = fw_cfg_add_u32(fw_cfg, address_key, address, err);

    ret = ret ?: fw_cfg_add_u32(fw_cfg, size_key, (uint32_t)size, err);
    return ret ?: fw_cfg_add(fw_cfg, data_key, data, size, err);
}

static int add_initrd(struct vm *vm, uint8_t *header, struct error *err)
{
    uint32_t protocol = header[PROTOCOL] | header[PROTOCOL + 1] << 8;
    uint64_t limit = protocol >= 0x203 ? get32(header + RAMDISK_MAX) : 0x37ffffff, size, address;
    uint8_t *data;
    int ret = rom_file_read(vm->settings->initrd, FILE_MAX, &data, &size, err);

    if (ret)
        return error_prefix(err, ret, "-initrd");
    limit = MIN(limit + 1, vm->board->low_ram - 128 * KIB); /* firmware keeps its tables at the very end */
    address = size < limit ? ALIGN_DOWN(limit - size, PAGE_SIZE) : 0;
    if (address < 2 * KERNEL_ADDRESS)
        ret = error_set(err, ENOMEM, "-initrd %s: it does not fit in memory (raise -m)", vm->settings->initrd);
    put32(header + RAMDISK_ADDRESS, (uint32_t)address);
    put32(header + RAMDISK_SIZE, (uint32_t)size);
    ret = ret
              ?: add_blob(vm->board->fw_cfg, FW_CFG_INITRD_ADDR, (uint32_t)address, FW_CFG_INITRD_SIZE,
                          FW_CFG_INITRD_DATA, data, size, err);
    free(data);
    return ret;
}

static int add_kernel(struct vm *vm, uint8_t *data, uint64_t size, struct error *err)
{
    struct fw_cfg *fw_cfg = vm->board->fw_cfg;
    const char *text = vm->settings->append ? vm->settings->append : "";
    uint64_t setup;
    int ret = 0;

    if (size < HEADER_END || memcmp(data + HEADER_MAGIC, "HdrS", 4))
        return error_set(err, EINVAL, "not a Linux bzImage, which is all that firmware can start");
    setup = ((data[SETUP_SECTS] ? data[SETUP_SECTS] : 4u) + 1u) * 512u;
    if (setup >= size || setup > TEXT_ADDRESS - SETUP_ADDRESS || !(data[LOAD_FLAGS] & LOADED_HIGH))
        return error_set(err, EINVAL, "its setup header makes no sense");
    data[LOADER_TYPE] = LOADER_QEMU;
    data[LOAD_FLAGS] |= CAN_USE_HEAP;
    data[HEAP_END] = 0x00;
    data[HEAP_END + 1] = 0xfe; /* up to the command line, less 0x200 */
    put32(data + TEXT_POINTER, TEXT_ADDRESS);
    if (vm->settings->initrd)
        ret = add_initrd(vm, data, err);
    ret = ret
              ?: add_blob(fw_cfg, FW_CFG_CMDLINE_ADDR, TEXT_ADDRESS, FW_CFG_CMDLINE_SIZE, FW_CFG_CMDLINE_DATA, text,
                          strlen(text) + 1, err);
    ret = ret
              ?: add_blob(fw_cfg, FW_CFG_SETUP_ADDR, SETUP_ADDRESS, FW_CFG_SETUP_SIZE, FW_CFG_SETUP_DATA, data, setup,
                          err);
    return ret
               ?: add_blob(fw_cfg, FW_CFG_KERNEL_ADDR, KERNEL_ADDRESS, FW_CFG_KERNEL_SIZE, FW_CFG_KERNEL_DATA,
                           data + setup, size - setup, err);
}

/* OVMF looks at the items itself, and leaves ROMs of this kind alone. */
static int add_option_rom(struct vm *vm, struct error *err)
{
    uint8_t *data;
    uint64_t size;
    int ret;

    if (!rom_file_exists(OPTION_ROM))
        return 0;
    ret = rom_file_read(OPTION_ROM, OPTION_ROM_MAX, &data, &size, err);
    if (ret)
        return ret;
    ret = fw_cfg_add_file(vm->board->fw_cfg, "genroms/" OPTION_ROM, data, size, err);
    free(data);
    return ret ?: boot_order_add(&vm->board->env, 0, "/rom@genroms/" OPTION_ROM, err);
}

int vm_offer_kernel(struct vm *vm, struct error *err)
{
    uint8_t *data;
    uint64_t size;
    int ret = rom_file_read(vm->settings->kernel, FILE_MAX, &data, &size, err);

    ret = ret ?: add_kernel(vm, data, size, err);
    free(data);
    if (ret)
        return error_prefix(err, ret, "-kernel %s", vm->settings->kernel);
    return add_option_rom(vm, err);
}
