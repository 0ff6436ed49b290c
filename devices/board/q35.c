/* The q35 board: Intel Q35 host bridge and ICH9 south bridge, as QEMU's machine of that name. What is not on the PCI bus is
 * in pc.c.
 *
 *   b0000000 .. bfffffff   ECAM, where firmware puts it
 *
 * PCI's PIRQ A..H are IOAPIC pins 16..23, and also whatever ISA interrupts the LPC bridge routes them to. */
#include "devices/board/pc_internal.h"
#include "devices/storage/ata.h"

#include <errno.h>

/* Slots 0..24 rotate over E..H; the chip set's own slots use A..D straight. \_SB.PCI0._PRT says the same. */
static unsigned pirq_map(void *opaque, uint8_t devfn, unsigned pin)
{
    unsigned slot = PCI_SLOT(devfn);

    (void)opaque;
    return slot < 25 ? 4 + ((slot + pin) & 3) : pin & 3;
}

static const struct pci_bus_ops q35_pci_ops = { .pirq_set = pc_pirq_set, .pirq_map = pirq_map, .msi = pc_send_msi };

static int create_pci(struct pc *pc, struct error *err)
{
    static const struct ich9_lpc_hooks hooks = { .route = pc_pirq_reroute, .pm_base = pc_pm_base_changed };
    struct device_env *env = &pc->board.env;

    if (!pc_own(pc, mch_create(env, &pc->shadow, err)))
        return -ENOMEM;
    pc->isa_bridge = ich9_lpc_create(env, &hooks, pc, err);
    if (!pc_own(pc, pc->isa_bridge))
        return -ENOMEM;
    return pc_own(pc, ahci_create(env, PCI_DEVFN(31, 2), err)) ? 0 : -ENOMEM;
}

static void set_serial_ports(struct pc *pc, bool com1, bool com2)
{
    ich9_lpc_set_enabled(pc->isa_bridge, LPC_EN_KBC | (com1 ? LPC_EN_COM1 : 0) | (com2 ? LPC_EN_COM2 : 0));
}

static void set_up(struct pc *pc)
{
    mch_set_up(pci_bus_find(pc->board.env.pci_bus, 0, 0));
    ich9_lpc_set_up(pc->isa_bridge);
}

static const struct pc_chipset q35_chipset = {
    .root_bus = "pcie.0",
    .pci_ops = &q35_pci_ops,
    .pm_kind = ACPI_PM_ICH9,
    .pirq_to_gsi = true,
    .create_pci = create_pci,
    .pirq_route = ich9_lpc_pirq_route,
    .set_serial_ports = set_serial_ports,
    .set_up = set_up,
};

struct board *board_create_q35(struct event_loop *loop, struct clock *clock, struct physmem *mem,
                               struct port_space *ports, const struct board_config *config,
                               const struct machine_ops *machine, void *machine_opaque, struct error *err)
{
    return pc_create(&q35_chipset, loop, clock, mem, ports, config, machine, machine_opaque, err);
}
