/* What firmware gets: its image, and through fw_cfg and CMOS memory the description of the machine that it reads: tables,
 * boot order, -fw_cfg files. A kernel that is started directly gets the fw_cfg files too. Main thread, before the machine
 * runs; vm_set_boot_order() with the vCPUs stopped.
 *
 * Names and formats of the files are QEMU's, as SeaBIOS and OVMF read them. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/options.h"
#include "devices/board/fw_cfg.h"
#include "devices/core/boot_order.h"
#include "devices/core/rom_file.h"
#include "devices/timer/rtc.h"
#include "frontend/vm_internal.h"

#define DEFAULT_BIOS   "bios-256k.bin"
#define FW_CFG_MAX     (256 * MIB)
#define SERIAL_CONSOLE 0x3f8

int vm_load_firmware(struct vm *vm, struct error *err)
{
    const char *name = vm->settings->bios ? vm->settings->bios : DEFAULT_BIOS;
    uint8_t *data;
    uint64_t size;
    int ret;

    ret = board_add_flash(vm->board, err);
    if (ret < 0)
        return ret;
    if (ret > 0 && vm->settings->bios)
        return error_set(err, EINVAL, "-bios %s: the firmware is in the drives with if=pflash already", name);
    if (ret > 0)
        vm->firmware = vm->board->config.firmware = true;
    if (ret > 0 || !vm->firmware)
        return 0;
    ret = rom_file_read(name, BIOS_SIZE_MAX, &data, &size, err);
    if (!ret) {
        ret = board_set_bios(vm->board, data, size, err);
        free(data);
    }
    return ret ? error_prefix(err, ret, vm->settings->bios ? "-bios %s" : "firmware %s", name) : 0;
}

/* ---- Boot order ---- */

/* CMOS 3dh: second, first device; 38h: third, and bit 0: do not check for a floppy's signature. */
static unsigned order_nibble(const char *order, unsigned index)
{
    if (index >= strlen(order))
        return 0;
    switch (order[index]) {
    case 'a':
    case 'b':
        return 1;
    case 'c':
        return 2;
    case 'd':
        return 3;
    default:
        return order[index] >= 'n' ? 4 : 0;
    }
}

void vm_set_boot_order(struct vm *vm, bool first)
{
    const struct boot_settings *boot = &vm->settings->boot;
    const char *order = first && boot->once[0] ? boot->once : boot->order[0] ? boot->order : "cad";

    rtc_set_cmos(vm->board->rtc, 0x3d, (uint8_t)(order_nibble(order, 1) << 4 | order_nibble(order, 0)));
    rtc_set_cmos(vm->board->rtc, 0x38, (uint8_t)(order_nibble(order, 2) << 4));
}

static int add_boot_settings(struct vm *vm, struct error *err)
{
    const struct boot_settings *boot = &vm->settings->boot;
    struct fw_cfg *fw_cfg = vm->board->fw_cfg;
    int ret = fw_cfg_add_u16(fw_cfg, FW_CFG_BOOT_MENU, boot->menu, err);
    char *order = NULL;
    size_t size;

    vm_set_boot_order(vm, true);
    if (!ret)
        ret = boot_order_text(&vm->board->env, boot->strict, &order, &size, err);
    if (!ret && order)
        ret = fw_cfg_add_file(fw_cfg, "bootorder", order, size, err);
    free(order);
    if (!ret && boot->splash_time_ms >= 0)
        ret = fw_cfg_add_file(fw_cfg, "etc/boot-menu-wait", &(uint16_t){ (uint16_t)boot->splash_time_ms }, 2, err);
    if (!ret) /* -1: for ever */
        ret = fw_cfg_add_file(fw_cfg, "etc/boot-fail-wait", &(uint32_t){ (uint32_t)boot->reboot_timeout_ms }, 4, err);
    return ret;
}

/* ---- Files ---- */

static int add_user_file(struct vm *vm, const char *text, struct error *err)
{
    struct fw_cfg *fw_cfg = vm->board->fw_cfg;
    struct option_list list;
    const char *name, *file, *string;
    uint8_t *data = NULL;
    uint64_t size;
    int ret = options_parse(&list, text, "name", err);

    if (ret)
        return ret;
    name = options_get(&list, "name");
    file = options_get(&list, "file");
    string = options_get(&list, "string");
    if (!name || !*name)
        ret = error_set(err, EINVAL, "name= is missing");
    else if (!file == !string)
        ret = error_set(err, EINVAL, "one of file= and string= is needed");
    else
        ret = options_check_all_used(&list, "", err);
    if (!ret && string)
        ret = fw_cfg_add_file(fw_cfg, name, string, strlen(string), err);
    if (!ret && file && !(ret = rom_file_read(file, FW_CFG_MAX, &data, &size, err)))
        ret = fw_cfg_add_file(fw_cfg, name, data, size, err);
    if (!ret && strncmp(name, "opt/", 4))
        settings_note(vm->settings, "-fw_cfg %s: names outside of opt/ are the machine's own", name);
    free(data);
    options_free(&list);
    return ret;
}

static int add_machine_files(struct vm *vm, struct error *err)
{
    /* By ACPI sleep state; bit 7: it is there. S3 and S4 are not. */
    static const uint8_t system_states[6] = { 0x80, 0, 0, 1, 2, 0x80 };
    struct fw_cfg *fw_cfg = vm->board->fw_cfg;
    uint64_t reserved_end = ALIGN_UP(4 * GIB + vm->board->high_ram, GIB); /* 64-bit BARs go behind it */
    int ret = fw_cfg_add_file(fw_cfg, "etc/system-states", system_states, sizeof(system_states), err);

    if (!ret && vm->board->high_ram)
        ret = fw_cfg_add_file(fw_cfg, "etc/reserved-memory-end", &reserved_end, sizeof(reserved_end), err);
    /* There is no screen: firmware's text goes to the first serial port, if there is one. */
    if (!ret && vm->firmware && vm->serial[0])
        ret = fw_cfg_add_file(fw_cfg, "etc/sercon-port", &(uint16_t){ SERIAL_CONSOLE }, 2, err);
    return ret;
}

static int add_tables(struct vm *vm, uint16_t pm_base, struct error *err)
{
    struct firmware_tables_config tables = {
        .low_ram = vm->board->low_ram,
        .high_ram = vm->board->high_ram,
        .cpu_count = vm->cpu_count,
        .i440fx = vm->settings->machine_i440fx,
        .pm_base = pm_base,
        .texts = &vm->settings->smbios,
    };

    memcpy(tables.uuid, vm->settings->uuid, sizeof(tables.uuid));
    vm->pm_base = pm_base;
    return firmware_tables_add_fw_cfg(vm->board->fw_cfg, &tables, err);
}

/* Firmware puts the ACPI registers where it likes, and asks for the tables afterwards. */
void vm_acpi_moved(void *opaque, uint16_t pm_base)
{
    struct vm *vm = opaque;
    struct error err;

    if (vm->pm_base && vm->pm_base != pm_base && add_tables(vm, pm_base, &err))
        fprintf(stderr, "eidolon: ACPI tables: %s\n", err.text);
}

int vm_describe_machine(struct vm *vm, struct error *err)
{
    int ret = vm->firmware && vm->settings->kernel ? vm_offer_kernel(vm, err) : 0;

    if (!ret)
        ret = add_boot_settings(vm, err);
    if (!ret)
        ret = add_machine_files(vm, err);
    if (!ret && vm->firmware)
        ret = add_tables(vm, ACPI_PM_BASE, err);
    for (size_t i = 0; i < vm->settings->fw_cfgs.count && !ret; i++) {
        ret = add_user_file(vm, vm->settings->fw_cfgs.items[i], err);
        if (ret)
            return error_prefix(err, ret, "-fw_cfg %s", vm->settings->fw_cfgs.items[i]);
    }
    return ret;
}
