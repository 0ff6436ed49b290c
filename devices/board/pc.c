/* What every PC board has: memory, interrupt controllers, timers, keyboard controller, serial ports, fw_cfg. The chips on
 * the PCI bus are in q35.c and i440fx.c.
 *
 *   0 .. 9ffff             RAM                     fec00000   IOAPIC
 *   a0000 .. bffff         VGA window: unassigned  fed00000   HPET
 *   c0000 .. fffff         shadow RAM              fee00000   interrupt messages (the local APIC page is the CPU's)
 *   100000 .. low RAM end  RAM                     100000000  rest of the RAM
 *   4 GiB - size .. 4 GiB  firmware ROM, if the machine starts with one
 *
 * Interrupts: ISA interrupt n is 8259 input n and IOAPIC pin n (0: pin 2). PIRQs go to the ISA interrupts that the
 * bridge routes them to. Lines with several drivers are wired-or'ed here: source 0 is the ISA device, 1 the SCI, 2.. the PIRQs.
 *
 * Every device comes out of its reset as hardware does. Where a kernel is started without firmware, reset_done() then
 * does to the chip set what firmware would have done. Device lock held, or before the machine runs. */
#include "devices/board/pc_internal.h"

#include "devices/block/block.h"
#include "devices/board/fw_cfg.h"
#include "devices/board/i8042.h"
#include "devices/board/pflash.h"
#include "devices/board/reset_ports.h"
#include "devices/char/debugcon.h"
#include "devices/char/uart16550.h"
#include "devices/core/boot_order.h"
#include "devices/irq/lapic.h"
#include "devices/timer/hpet.h"
#include "devices/timer/pit.h"
#include "devices/timer/rtc.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MSI_WINDOW_SIZE 0x100000ull
#define VGA_HOLE        0xa0000ull
#define VGA_HOLE_END    0xc0000ull
#define HIGH_RAM_BASE   0x100000000ull

enum { OR_ISA = 0, OR_SCI = 1, OR_PIRQ = 2 };

bool pc_own(struct pc *pc, void *device)
{
    if (device)
        board_own(&pc->board, device);
    return device != NULL;
}

/* ---- Interrupt routing ---- */

void pc_pirq_set(void *opaque, unsigned pirq, bool level)
{
    struct pc *pc = opaque;
    int irq = pc->pirq_route[pirq];

    pc->pirq_levels = (pc->pirq_levels & ~(1u << pirq)) | (unsigned)level << pirq;
    if (pc->chipset->pirq_to_gsi)
        irq_line_set(&pc->board.env.gsi[16 + pirq], level);
    if (irq >= 0)
        irq_line_set(&pc->pirq_lines[pirq][irq], level);
}

void pc_pirq_reroute(void *opaque)
{
    struct pc *pc = opaque;

    for (unsigned pirq = 0; pirq < PCI_PIRQ_COUNT && pc->isa_bridge; pirq++) {
        int old = pc->pirq_route[pirq], irq = pc->chipset->pirq_route(pc->isa_bridge, pirq);
        bool level = pc->pirq_levels >> pirq & 1;

        if (irq == old)
            continue;
        if (old >= 0)
            irq_line_set(&pc->pirq_lines[pirq][old], false);
        pc->pirq_route[pirq] = irq;
        if (irq >= 0)
            irq_line_set(&pc->pirq_lines[pirq][irq], level);
    }
}

void pc_send_msi(void *opaque, uint64_t address, uint32_t data)
{
    struct pc *pc = opaque;

    if (address >= LAPIC_BASE && address < LAPIC_BASE + MSI_WINDOW_SIZE)
        apic_bus_msi(&pc->apic_bus, address, data);
    else
        physmem_write(pc->board.env.mem, address, &data, sizeof(data)); /* an ordinary write, as on the wire */
}

static uint64_t msi_window_read(void *opaque, uint64_t offset, unsigned size)
{
    (void)opaque, (void)offset, (void)size;
    return ~0ull;
}

static void msi_window_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
    struct pc *pc = opaque;

    if (size == 4)
        apic_bus_msi(&pc->apic_bus, LAPIC_BASE + offset, value);
}

static const struct io_ops msi_window_ops = {
    .read = msi_window_read,
    .write = msi_window_write,
    .min_size = 4,
    .max_size = 4,
};

/* ---- Memory ---- */

static int map_ram(struct board *board, struct error *err)
{
    struct physmem *mem = board->env.mem;
    uint64_t size = board->config.ram_size & PAGE_MASK;

    if (size < MIB)
        return error_set(err, EINVAL, "-m: this machine needs at least 1 MiB of memory");
    board->low_ram = MIN(size, PC_LOW_RAM_MAX);
    board->high_ram = size - board->low_ram;
    if (!physmem_add_ram(mem, 0, VGA_HOLE, 0, "ram-low", err) ||
        !physmem_add_ram(mem, VGA_HOLE_END, board->low_ram - VGA_HOLE_END, VGA_HOLE_END, "ram", err))
        return -ENOMEM;
    if (board->high_ram && !physmem_add_ram(mem, HIGH_RAM_BASE, board->high_ram, board->low_ram, "ram-high", err))
        return -ENOMEM;
    return 0;
}

/* The gate forces address line 20 low, which shows where code relies on it: just above 1 MiB. */
static int map_a20_wrap(struct pc *pc, struct error *err)
{
    pc->a20_wrap = physmem_add_ram(pc->board.env.mem, MIB, VGA_HOLE, 0, "a20-wrap", err);
    if (!pc->a20_wrap)
        return -ENOMEM;
    physmem_set_enabled(pc->a20_wrap, false);
    return 0;
}

int board_set_bios(struct board *board, const uint8_t *data, uint64_t size, struct error *err)
{
    struct pc *pc = container_of(board, struct pc, board);

    if (!size || size % (64 * KIB) || size > BIOS_SIZE_MAX)
        return error_set(err, EINVAL, "%llu bytes: firmware is a multiple of 64 KiB, at most 16 MiB",
                         (unsigned long long)size);
    pc->bios = physmem_add_rom(board->env.mem, 4 * GIB - size, size, data, size, "bios", err);
    if (!pc->bios)
        return -ENOMEM;
    shadow_ram_set_rom(&pc->shadow, data, size);
    return 0;
}

int board_add_flash(struct board *board, struct error *err)
{
    struct pc *pc = container_of(board, struct pc, board);
    struct block_registry *blocks = board->env.blocks;
    struct block *block;
    uint64_t end = 4 * GIB;
    int count = 0;

    while (blocks && (block = block_next_unclaimed(blocks, BLOCK_IF_PFLASH))) {
        uint64_t size = block_info(block)->size;
        char id[32];
        struct pflash *pflash;

        snprintf(id, sizeof(id), "system.flash%d", count);
        if (4 * GIB - end + size > PFLASH_SIZE_MAX)
            return error_set(err, EINVAL, "if=pflash: more than 8 MiB of flash memory");
        pflash = pflash_create(&board->env, block, end, id, err);
        if (!pc_own(pc, pflash))
            return -EINVAL;
        end -= pflash_size(pflash);
        if (count++ == 0)
            shadow_ram_set_rom(&pc->shadow, pflash_bytes(pflash), pflash_size(pflash));
    }
    return count;
}

void board_set_a20(struct board *board, bool enabled)
{
    struct pc *pc = container_of(board, struct pc, board);

    if (pc->a20_wrap)
        physmem_set_enabled(pc->a20_wrap, !enabled);
}

/* ---- Devices ---- */

static int create_interrupts(struct pc *pc, struct error *err)
{
    struct device_env *env = &pc->board.env;
    const struct board_config *config = &pc->board.config;
    struct ioapic *ioapic;
    struct pic *pic;

    if (apic_bus_init(&pc->apic_bus, config->cpu_count, err))
        return -ENOMEM;
    pc->board.lapics = pc->apic_bus.lapics;
    if (!pc_own(pc, pic = pic_create(env, &pc->apic_bus, err)) ||
        !pc_own(pc, ioapic = ioapic_create(env, &pc->apic_bus, IOAPIC_BASE, err)))
        return -ENOMEM;
    for (unsigned i = 0; i < config->cpu_count; i++) {
        if (!pc_own(pc, lapic_create(env, i, &pc->apic_bus, config->cpu_ops, config->cpus[i], err)))
            return -ENOMEM;
    }
    isa_irq_wire(&pc->router, env, pic, ioapic);
    for (unsigned irq = 0; irq < 16; irq++) {
        pc->isa_or[irq].out = env->isa_irq[irq];
        env->isa_irq[irq] = irq_or_input(&pc->isa_or[irq], OR_ISA);
        for (unsigned pirq = 0; pirq < PCI_PIRQ_COUNT; pirq++)
            pc->pirq_lines[pirq][irq] = irq_or_input(&pc->isa_or[irq], OR_PIRQ + pirq);
    }
    pc->msi_window = physmem_add_mmio(env->mem, LAPIC_BASE, MSI_WINDOW_SIZE, &msi_window_ops, pc, "msi", err);
    return pc->msi_window ? 0 : -ENOMEM;
}

static int create_pci(struct pc *pc, struct error *err)
{
    struct device_env *env = &pc->board.env;

    env->pci_bus = pci_bus_create(env, pc->chipset->pci_ops, pc);
    if (!env->pci_bus)
        return error_set(err, ENOMEM, "no memory for the PCI bus");
    if (pci_bus_set_name(env->pci_bus, pc->chipset->root_bus, err))
        return -EINVAL;
    for (unsigned pirq = 0; pirq < PCI_PIRQ_COUNT; pirq++)
        pc->pirq_route[pirq] = -1;
    return pc->chipset->create_pci(pc, err);
}

void pc_pm_base_changed(void *opaque, uint16_t base)
{
    struct pc *pc = opaque;

    uint16_t before = pc->pm ? pc->pm->base : base;

    if (before == base)
        return;
    acpi_pm_move(pc->pm, base, NULL);
    if (base && pc->board.config.acpi_moved)
        pc->board.config.acpi_moved(pc->board.env.machine_opaque, base);
}

static int create_legacy(struct pc *pc, struct error *err)
{
    struct board *board = &pc->board;
    struct device_env *env = &board->env;
    struct irq_line sci = irq_or_input(&pc->isa_or[ACPI_SCI_IRQ], OR_SCI), pit_line, rtc_line;
    struct hpet *hpet = hpet_create(env, HPET_BASE, err);
    struct pit *pit;
    struct rtc *rtc;

    if (!pc_own(pc, hpet))
        return -ENOMEM;
    pit_line = hpet_pit_line(hpet);
    rtc_line = hpet_rtc_line(hpet);
    if (!pc_own(pc, pit = pit_create(env, &pit_line, err)) ||
        !pc_own(pc, rtc = rtc_create(env, &rtc_line, board->config.rtc_base_ns, err)) ||
        !pc_own(pc, pc->pm = acpi_pm_create(env, pc->chipset->pm_kind, 0, &sci, err)) ||
        !pc_own(pc, i8042_create(env, err)) || !pc_own(pc, reset_ports_create(env, pit, err)))
        return -ENOMEM;
    board->rtc = rtc;
    rtc_set_memory(rtc, board->low_ram, board->high_ram, board->config.cpu_count);
    return pc->chipset->create_hotplug ? pc->chipset->create_hotplug(pc, err) : 0;
}

static int create_consoles(struct pc *pc, struct error *err)
{
    struct device_env *env = &pc->board.env;
    const struct board_config *config = &pc->board.config;
    uint16_t port = config->debugcon_port ? config->debugcon_port : DEBUGCON_DEFAULT_PORT;

    for (unsigned i = 0; i < ARRAY_SIZE(config->serial); i++) {
        if (config->serial[i] && !pc_own(pc, uart16550_create(env, i, config->serial[i], err)))
            return -ENOMEM;
    }
    if (pc->chipset->set_serial_ports)
        pc->chipset->set_serial_ports(pc, config->serial[0], config->serial[1]);
    if (config->debugcon && !pc_own(pc, debugcon_create(env, port, config->debugcon, err)))
        return -ENOMEM;
    return 0;
}

static int create_fw_cfg(struct pc *pc, struct error *err)
{
    struct board *board = &pc->board;
    /* struct e820_entry: address, length, type; packed, little-endian. Only RAM: firmware knows the rest. */
    struct __attribute__((packed)) {
        uint64_t address, length;
        uint32_t type;
    } e820[2] = {
        { 0, board->low_ram, 1 },
        { HIGH_RAM_BASE, board->high_ram, 1 },
    };
    struct fw_cfg *fw_cfg = fw_cfg_create(&board->env, err);
    const uint64_t numa[2] = { 0 }; /* no nodes */
    int result;

    if (!pc_own(pc, fw_cfg))
        return -ENOMEM;
    board->fw_cfg = fw_cfg;
    result = fw_cfg_add_u64(fw_cfg, FW_CFG_RAM_SIZE, board->low_ram + board->high_ram, err);
    result = result ?: fw_cfg_add(fw_cfg, FW_CFG_UUID, board->config.uuid, sizeof(board->config.uuid), err);
    result = result ?: fw_cfg_add_u16(fw_cfg, FW_CFG_NB_CPUS, board->config.cpu_count, err);
    result = result ?: fw_cfg_add_u16(fw_cfg, FW_CFG_MAX_CPUS, board->config.cpu_count, err);
    result = result ?: fw_cfg_add_u16(fw_cfg, FW_CFG_NOGRAPHIC, 1, err);
    result = result ?: fw_cfg_add(fw_cfg, FW_CFG_NUMA, numa, sizeof(numa), err);
    result = result ?: fw_cfg_add_u32(fw_cfg, FW_CFG_IRQ0_OVERRIDE, 1, err);
    return result ?: fw_cfg_add_file(fw_cfg, "etc/e820", e820, board->high_ram ? 40 : 20, err);
}

/* ---- The board ---- */

static void reset_done(struct board *board)
{
    struct pc *pc = container_of(board, struct pc, board);

    pc_pirq_reroute(pc);
    if (board->config.firmware)
        return;
    for (unsigned i = 0; i < board->config.cpu_count; i++)
        lapic_set_virtual_wire(board->lapics[i]);
    /* ELCR: the SCI and the interrupts that PCI is routed to are level triggered. */
    port_space_write(board->env.ports, 0x4d0, 1, 0);
    port_space_write(board->env.ports, 0x4d1, 1, 1 << (9 - 8) | 1 << (10 - 8) | 1 << (11 - 8));
    pc->chipset->set_up(pc);
}

static void pc_free(struct board *board)
{
    struct pc *pc = container_of(board, struct pc, board);

    if (pc->msi_window)
        physmem_remove(pc->msi_window);
    if (pc->a20_wrap)
        physmem_remove(pc->a20_wrap);
    if (pc->bios)
        physmem_remove(pc->bios);
    shadow_ram_destroy(&pc->shadow);
    pci_bus_destroy(board->env.pci_bus);
    apic_bus_destroy(&pc->apic_bus);
    boot_order_free(&board->env);
    free(pc);
}

struct board *pc_create(const struct pc_chipset *chipset, struct event_loop *loop, struct clock *clock,
                        struct physmem *mem, struct port_space *ports, const struct board_config *config,
                        const struct machine_ops *machine, void *machine_opaque, struct error *err)
{
    struct pc *pc = calloc(1, sizeof(*pc));
    struct board *board;

    if (!pc) {
        error_set(err, ENOMEM, "no memory for the machine");
        return NULL;
    }
    pc->chipset = chipset;
    board = &pc->board;
    board->env = (struct device_env){
        .loop = loop,
        .clock = clock,
        .mem = mem,
        .ports = ports,
        .machine = machine,
        .machine_opaque = machine_opaque,
        .unplugged = board_unplugged,
    };
    board->config = *config;
    board->reset_done = reset_done;
    board->free = pc_free;
    /* The host bridge comes before the reset ports: port 0xcf9 lies inside its 0xcf8..0xcfb. */
    if (map_ram(board, err) || shadow_ram_init(&pc->shadow, mem, err) || map_a20_wrap(pc, err) ||
        create_interrupts(pc, err) || create_pci(pc, err) || create_legacy(pc, err) || create_consoles(pc, err) ||
        create_fw_cfg(pc, err)) {
        board_destroy(board);
        return NULL;
    }
    board_reset(board);
    return board;
}
