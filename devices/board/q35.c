/* The q35 board: Intel Q35 host bridge and ICH9 south bridge, as QEMU's machine of that name.
 *
 *   0 .. 9ffff             RAM                     fec00000   IOAPIC
 *   a0000 .. bffff         VGA window: unassigned  fed00000   HPET
 *   c0000 .. low RAM end   RAM                     fee00000   interrupt messages (the local APIC page is the CPU's)
 *   b0000000 .. bfffffff   ECAM                    100000000  rest of the RAM
 *
 * Interrupts: ISA interrupt n is 8259 input n and IOAPIC pin n (0: pin 2). PCI's PIRQ A..H are IOAPIC pins 16..23,
 * and also whatever ISA interrupts the LPC bridge routes them to. Lines with several drivers are wired-or'ed here:
 * source 0 is the ISA device, 1 the SCI, 2.. the PIRQs.
 *
 * Kernels are started without a BIOS, so q35_reset_done() leaves the interrupt controllers as a BIOS would.
 * Device lock held, or before the machine runs. */
#include "devices/board/acpi_pm.h"
#include "devices/board/board_internal.h"
#include "devices/board/fw_cfg.h"
#include "devices/board/i8042.h"
#include "devices/board/machine.h"
#include "devices/board/reset_ports.h"
#include "devices/char/debugcon.h"
#include "devices/char/uart16550.h"
#include "devices/irq/apic_bus.h"
#include "devices/irq/isa_irq.h"
#include "devices/irq/lapic.h"
#include "devices/pci/pci.h"
#include "devices/timer/hpet.h"
#include "devices/timer/pit.h"
#include "devices/timer/rtc.h"

#include <errno.h>
#include <stdlib.h>

#define MSI_WINDOW_SIZE 0x100000ull
#define VGA_HOLE        0xa0000ull
#define VGA_HOLE_END    0xc0000ull
#define HIGH_RAM_BASE   0x100000000ull

enum { OR_ISA = 0, OR_SCI = 1, OR_PIRQ = 2 };

struct q35 {
    struct board board;
    struct apic_bus apic_bus;
    struct isa_irq_router router;
    struct irq_or isa_or[16];
    struct irq_line pirq_lines[PCI_PIRQ_COUNT][16];
    uint8_t pirq_levels;            /* bit per PIRQ */
    int pirq_route[PCI_PIRQ_COUNT]; /* ISA interrupt, or -1 */
    struct pci_device *lpc;
    struct mem_region *msi_window;
};

/* ---- Interrupt routing ---- */

static void pirq_set(void *opaque, unsigned pirq, bool level)
{
    struct q35 *q35 = opaque;
    int irq = q35->pirq_route[pirq];

    q35->pirq_levels = (q35->pirq_levels & ~(1u << pirq)) | (unsigned)level << pirq;
    irq_line_set(&q35->board.env.gsi[16 + pirq], level);
    if (irq >= 0)
        irq_line_set(&q35->pirq_lines[pirq][irq], level);
}

/* Slots 0..24 rotate over E..H; the chip set's own slots use A..D straight. \_SB.PCI0._PRT says the same. */
static unsigned pirq_map(void *opaque, uint8_t devfn, unsigned pin)
{
    unsigned slot = PCI_SLOT(devfn);

    (void)opaque;
    return slot < 25 ? 4 + ((slot + pin) & 3) : pin & 3;
}

static void pirq_reroute(void *opaque)
{
    struct q35 *q35 = opaque;

    for (unsigned pirq = 0; pirq < PCI_PIRQ_COUNT; pirq++) {
        int old = q35->pirq_route[pirq], irq = ich9_lpc_pirq_route(q35->lpc, pirq);
        bool level = q35->pirq_levels >> pirq & 1;

        if (irq == old)
            continue;
        if (old >= 0)
            irq_line_set(&q35->pirq_lines[pirq][old], false);
        q35->pirq_route[pirq] = irq;
        if (irq >= 0)
            irq_line_set(&q35->pirq_lines[pirq][irq], level);
    }
}

static void send_msi(void *opaque, uint64_t address, uint32_t data)
{
    struct q35 *q35 = opaque;

    if (address >= LAPIC_BASE && address < LAPIC_BASE + MSI_WINDOW_SIZE)
        apic_bus_msi(&q35->apic_bus, address, data);
    else
        physmem_write(q35->board.env.mem, address, &data, sizeof(data)); /* an ordinary write, as on the wire */
}

static const struct pci_bus_ops q35_pci_ops = { .pirq_set = pirq_set, .pirq_map = pirq_map, .msi = send_msi };

static uint64_t msi_window_read(void *opaque, uint64_t offset, unsigned size)
{
    (void)opaque, (void)offset, (void)size;
    return ~0ull;
}

static void msi_window_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
    struct q35 *q35 = opaque;

    if (size == 4)
        apic_bus_msi(&q35->apic_bus, LAPIC_BASE + offset, value);
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
    board->low_ram = MIN(size, Q35_LOW_RAM_MAX);
    board->high_ram = size - board->low_ram;
    if (!physmem_add_ram(mem, 0, VGA_HOLE, 0, "ram-low", err) ||
        !physmem_add_ram(mem, VGA_HOLE_END, board->low_ram - VGA_HOLE_END, VGA_HOLE_END, "ram", err))
        return -ENOMEM;
    if (board->high_ram && !physmem_add_ram(mem, HIGH_RAM_BASE, board->high_ram, board->low_ram, "ram-high", err))
        return -ENOMEM;
    return 0;
}

/* ---- Devices ---- */

/* Takes the result of a create function; false if that failed. */
static bool own(struct q35 *q35, void *device)
{
    if (device)
        board_own(&q35->board, device);
    return device != NULL;
}

static int create_interrupts(struct q35 *q35, struct error *err)
{
    struct device_env *env = &q35->board.env;
    const struct board_config *config = &q35->board.config;
    struct ioapic *ioapic;
    struct pic *pic;

    if (apic_bus_init(&q35->apic_bus, config->cpu_count, err))
        return -ENOMEM;
    q35->board.lapics = q35->apic_bus.lapics;
    if (!own(q35, pic = pic_create(env, &q35->apic_bus, err)) ||
        !own(q35, ioapic = ioapic_create(env, &q35->apic_bus, IOAPIC_BASE, err)))
        return -ENOMEM;
    for (unsigned i = 0; i < config->cpu_count; i++) {
        if (!own(q35, lapic_create(env, i, &q35->apic_bus, config->cpu_ops, config->cpus[i], err)))
            return -ENOMEM;
    }
    isa_irq_wire(&q35->router, env, pic, ioapic);
    for (unsigned irq = 0; irq < 16; irq++) {
        q35->isa_or[irq].out = env->isa_irq[irq];
        env->isa_irq[irq] = irq_or_input(&q35->isa_or[irq], OR_ISA);
        for (unsigned pirq = 0; pirq < PCI_PIRQ_COUNT; pirq++)
            q35->pirq_lines[pirq][irq] = irq_or_input(&q35->isa_or[irq], OR_PIRQ + pirq);
    }
    q35->msi_window = physmem_add_mmio(env->mem, LAPIC_BASE, MSI_WINDOW_SIZE, &msi_window_ops, q35, "msi", err);
    return q35->msi_window ? 0 : -ENOMEM;
}

static int create_pci(struct q35 *q35, struct error *err)
{
    struct device_env *env = &q35->board.env;

    env->pci_bus = pci_bus_create(env, &q35_pci_ops, q35);
    if (!env->pci_bus)
        return error_set(err, ENOMEM, "no memory for the PCI bus");
    for (unsigned pirq = 0; pirq < PCI_PIRQ_COUNT; pirq++)
        q35->pirq_route[pirq] = -1;
    if (!own(q35, mch_create(env, err)))
        return -ENOMEM;
    q35->lpc = ich9_lpc_create(env, pirq_reroute, q35, err);
    return own(q35, q35->lpc) ? 0 : -ENOMEM;
}

static int create_legacy(struct q35 *q35, struct error *err)
{
    struct board *board = &q35->board;
    struct device_env *env = &board->env;
    struct irq_line sci = irq_or_input(&q35->isa_or[ACPI_SCI_IRQ], OR_SCI), pit_line, rtc_line;
    struct hpet *hpet = hpet_create(env, HPET_BASE, err);
    struct pit *pit;
    struct rtc *rtc;

    if (!own(q35, hpet))
        return -ENOMEM;
    pit_line = hpet_pit_line(hpet);
    rtc_line = hpet_rtc_line(hpet);
    if (!own(q35, pit = pit_create(env, &pit_line, err)) ||
        !own(q35, rtc = rtc_create(env, &rtc_line, board->config.rtc_base_ns, err)) ||
        !own(q35, acpi_pm_create(env, ACPI_PM_BASE, &sci, err)) || !own(q35, i8042_create(env, err)) ||
        !own(q35, reset_ports_create(env, pit, err)))
        return -ENOMEM;
    rtc_set_memory(rtc, board->low_ram, board->high_ram, board->config.cpu_count);
    return 0;
}

static int create_consoles(struct q35 *q35, struct error *err)
{
    struct device_env *env = &q35->board.env;
    const struct board_config *config = &q35->board.config;
    uint16_t port = config->debugcon_port ? config->debugcon_port : DEBUGCON_DEFAULT_PORT;

    for (unsigned i = 0; i < ARRAY_SIZE(config->serial); i++) {
        if (config->serial[i] && !own(q35, uart16550_create(env, i, config->serial[i], err)))
            return -ENOMEM;
    }
    ich9_lpc_set_enabled(q35->lpc,
                         LPC_EN_KBC | (config->serial[0] ? LPC_EN_COM1 : 0) | (config->serial[1] ? LPC_EN_COM2 : 0));
    if (config->debugcon && !own(q35, debugcon_create(env, port, config->debugcon, err)))
        return -ENOMEM;
    return 0;
}

static int create_fw_cfg(struct q35 *q35, struct error *err)
{
    struct board *board = &q35->board;
    /* struct e820_entry: address, length, type; packed, little-endian. Only RAM: firmware knows the rest. */
    struct __attribute__((packed)) {
        uint64_t address, length;
        uint32_t type;
    } e820[2] = {
        { 0, board->low_ram, 1 },
        { HIGH_RAM_BASE, board->high_ram, 1 },
    };
    struct fw_cfg *fw_cfg = fw_cfg_create(&board->env, err);
    static const uint8_t no_uuid[16];
    int result;

    if (!own(q35, fw_cfg))
        return -ENOMEM;
    board->fw_cfg = fw_cfg;
    result = fw_cfg_add_u64(fw_cfg, FW_CFG_RAM_SIZE, board->low_ram + board->high_ram, err);
    result = result ?: fw_cfg_add(fw_cfg, FW_CFG_UUID, no_uuid, sizeof(no_uuid), err);
    result = result ?: fw_cfg_add_u16(fw_cfg, FW_CFG_NB_CPUS, board->config.cpu_count, err);
    result = result ?: fw_cfg_add_u16(fw_cfg, FW_CFG_MAX_CPUS, board->config.cpu_count, err);
    result = result ?: fw_cfg_add_u16(fw_cfg, FW_CFG_NOGRAPHIC, 1, err);
    result = result ?: fw_cfg_add_u16(fw_cfg, FW_CFG_BOOT_MENU, 0, err);
    result = result ?: fw_cfg_add_u32(fw_cfg, FW_CFG_IRQ0_OVERRIDE, 1, err);
    result = result ?: fw_cfg_add_file(fw_cfg, "etc/e820", e820, board->high_ram ? 40 : 20, err);
    return result ?: fw_cfg_add_file(fw_cfg, "bootorder", "", 1, err);
}

/* ---- The board ---- */

static void q35_reset_done(struct board *board)
{
    struct q35 *q35 = container_of(board, struct q35, board);

    for (unsigned i = 0; i < board->config.cpu_count; i++)
        lapic_set_virtual_wire(board->lapics[i]);
    /* ELCR: the SCI and the interrupts that PCI is routed to are level triggered. */
    port_space_write(board->env.ports, 0x4d0, 1, 0);
    port_space_write(board->env.ports, 0x4d1, 1, 1 << (9 - 8) | 1 << (10 - 8) | 1 << (11 - 8));
    pirq_reroute(q35);
}

static void q35_free(struct board *board)
{
    struct q35 *q35 = container_of(board, struct q35, board);

    if (q35->msi_window)
        physmem_remove(q35->msi_window);
    pci_bus_destroy(board->env.pci_bus);
    apic_bus_destroy(&q35->apic_bus);
    free(q35);
}

struct board *board_create_q35(struct event_loop *loop, struct clock *clock, struct physmem *mem,
                               struct port_space *ports, const struct board_config *config,
                               const struct machine_ops *machine, void *machine_opaque, struct error *err)
{
    struct q35 *q35 = calloc(1, sizeof(*q35));
    struct board *board;

    if (!q35) {
        error_set(err, ENOMEM, "no memory for the machine");
        return NULL;
    }
    board = &q35->board;
    board->env = (struct device_env){
        .loop = loop,
        .clock = clock,
        .mem = mem,
        .ports = ports,
        .machine = machine,
        .machine_opaque = machine_opaque,
    };
    board->config = *config;
    board->reset_done = q35_reset_done;
    board->free = q35_free;
    /* The host bridge comes before the reset ports: port 0xcf9 lies inside its 0xcf8..0xcfb. */
    if (map_ram(board, err) || create_interrupts(q35, err) || create_pci(q35, err) || create_legacy(q35, err) ||
        create_consoles(q35, err) || create_fw_cfg(q35, err)) {
        board_destroy(board);
        return NULL;
    }
    board_reset(board);
    return board;
}
