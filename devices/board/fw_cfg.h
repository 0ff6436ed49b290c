/* fw_cfg: the channel by which firmware and guests read configuration from the machine
 * (QEMU's interface, docs/specs/fw_cfg): selector 0x510, data 0x511, DMA 0x514. */
#ifndef EIDOLON_DEVICES_BOARD_FW_CFG_H
#define EIDOLON_DEVICES_BOARD_FW_CFG_H

#include "devices/core/device.h"

struct fw_cfg;

#define FW_CFG_IO_BASE       0x510
#define FW_CFG_FILE_NAME_MAX 56 /* with the terminating NUL */

/* Well-known items. */
enum {
    FW_CFG_SIGNATURE = 0x00,
    FW_CFG_ID = 0x01,
    FW_CFG_UUID = 0x02,
    FW_CFG_RAM_SIZE = 0x03,
    FW_CFG_NOGRAPHIC = 0x04,
    FW_CFG_NB_CPUS = 0x05,
    FW_CFG_MACHINE_ID = 0x06,
    FW_CFG_KERNEL_ADDR = 0x07,
    FW_CFG_KERNEL_SIZE = 0x08,
    FW_CFG_KERNEL_CMDLINE = 0x09,
    FW_CFG_INITRD_ADDR = 0x0a,
    FW_CFG_INITRD_SIZE = 0x0b,
    FW_CFG_BOOT_DEVICE = 0x0c,
    FW_CFG_NUMA = 0x0d,
    FW_CFG_BOOT_MENU = 0x0e,
    FW_CFG_MAX_CPUS = 0x0f,
    FW_CFG_KERNEL_DATA = 0x11,
    FW_CFG_INITRD_DATA = 0x12,
    FW_CFG_CMDLINE_ADDR = 0x13,
    FW_CFG_CMDLINE_SIZE = 0x14,
    FW_CFG_CMDLINE_DATA = 0x15,
    FW_CFG_SETUP_ADDR = 0x16,
    FW_CFG_SETUP_SIZE = 0x17,
    FW_CFG_SETUP_DATA = 0x18,
    FW_CFG_FILE_DIR = 0x19,
    FW_CFG_FILE_FIRST = 0x20,
    FW_CFG_IRQ0_OVERRIDE = 0x8002,
};

struct fw_cfg *fw_cfg_create(struct device_env *env, struct error *err); /* begins with a struct device */

/* Each copies `data`. Adding a key or name again replaces its contents. 0 or -errno. */
int fw_cfg_add(struct fw_cfg *fw_cfg, uint16_t key, const void *data, size_t size, struct error *err);
int fw_cfg_add_u16(struct fw_cfg *fw_cfg, uint16_t key, uint16_t value, struct error *err);
int fw_cfg_add_u32(struct fw_cfg *fw_cfg, uint16_t key, uint32_t value, struct error *err);
int fw_cfg_add_u64(struct fw_cfg *fw_cfg, uint16_t key, uint64_t value, struct error *err);
int fw_cfg_add_file(struct fw_cfg *fw_cfg, const char *name, const void *data, size_t size, struct error *err);

#endif
