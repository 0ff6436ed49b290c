/* A board: everything between the CPUs and the outside. Created by the frontend, which
 * also owns the CPUs. */
#ifndef EIDOLON_DEVICES_BOARD_MACHINE_H
#define EIDOLON_DEVICES_BOARD_MACHINE_H

#include "devices/char/chardev.h"
#include "devices/core/device.h"

struct lapic;
struct fw_cfg;
struct rtc;

#define Q35_ECAM_BASE   0xb0000000ull /* MMCONFIG, 256 MiB */
#define Q35_ECAM_SIZE   0x10000000ull
#define PC_LOW_RAM_MAX  0x80000000ull /* RAM below 4 GiB ends here at most; the rest is at 4 GiB */
#define Q35_LOW_RAM_MAX PC_LOW_RAM_MAX
#define BIOS_SIZE_MAX   (16 * MIB)
#define LAPIC_BASE      0xfee00000ull
#define IOAPIC_BASE     0xfec00000ull
#define HPET_BASE       0xfed00000ull
#define ACPI_PM_BASE    0x600 /* as firmware sets PMBASE, and we do where there is none */
#define ACPI_SCI_IRQ    9

/* How the board signals one vCPU. Any thread. */
struct board_cpu_ops {
    void (*set_intr)(void *cpu, bool level);
    void (*nmi)(void *cpu);
    void (*init)(void *cpu);
    void (*sipi)(void *cpu, uint8_t vector);
    void (*smi)(void *cpu);
};

struct board_config {
    uint64_t ram_size;
    unsigned cpu_count;
    struct chardev *serial[4]; /* NULL: port not there */
    struct chardev *debugcon;  /* NULL: none; at debugcon_port, 0 = 0xe9 */
    uint16_t debugcon_port;
    const struct board_cpu_ops *cpu_ops;
    void **cpus;         /* opaque handles, by APIC id */
    int64_t rtc_base_ns; /* wall clock at start (UTC) */
    uint8_t uuid[16];
    /* Firmware runs from the reset vector. False: a kernel is started directly, and the board is as firmware would have
     * left it. */
    bool firmware;
    /* Firmware has put the ACPI registers there, which the FADT must say; may be NULL. Device lock held. */
    void (*acpi_moved)(void *machine_opaque, uint16_t pm_base);
};

struct board {
    struct device_env env;
    struct board_config config;
    struct lapic **lapics; /* by APIC id */
    struct fw_cfg *fw_cfg;
    struct rtc *rtc;
    struct device *devices; /* list, newest first */
    void (*reset_done)(
        struct board *board);          /* after the devices' own resets: what firmware would set up; may be NULL */
    void (*free)(struct board *board); /* after the devices are gone */
    uint64_t low_ram, high_ram;        /* bytes below and above 4 GiB */
};

/* `mem` is empty (RAM allocated, not mapped): the board maps it. */
struct board *board_create_q35(struct event_loop *loop, struct clock *clock, struct physmem *mem,
                               struct port_space *ports, const struct board_config *config,
                               const struct machine_ops *machine, void *machine_opaque, struct error *err);
struct board *board_create_i440fx(struct event_loop *loop, struct clock *clock, struct physmem *mem,
                                  struct port_space *ports, const struct board_config *config,
                                  const struct machine_ops *machine, void *machine_opaque, struct error *err);
int board_add_device(struct board *board, const char *device_option,
                     struct error *err); /* a -device value; messages do not repeat it */
/* Devices for the drives with if=ide, scsi and virtio that none of -device uses. After those. */
int board_add_drives(struct board *board, struct error *err);
/* What has bootindex=, into the boot order. After all devices. */
int board_collect_boot_order(struct board *board, struct error *err);
/* The firmware: a ROM that ends at 4 GiB, copied; or the drives with if=pflash as flash memory, the first one ending there,
 * each next one below. board_add_flash() returns how many there are, 0 if none, or -errno. Before the machine runs. */
int board_set_bios(struct board *board, const uint8_t *data, uint64_t size, struct error *err);
int board_add_flash(struct board *board, struct error *err);
void board_set_a20(struct board *board, bool enabled); /* what machine_ops->set_a20 ends in */
void board_reset(struct board *board);
void board_destroy(struct board *board);

#endif
