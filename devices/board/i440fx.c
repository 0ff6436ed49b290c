/* The pc board: Intel 82441FX host bridge with PIIX3 and PIIX4 functions, as QEMU's machine of that name. What is not on the
 * PCI bus is in pc.c.
 *
 * PCI has no interrupts of its own here: pin p of slot s is PIRQ (s + p - 1) & 3, and the ISA bridge routes the four PIRQs to
 * ISA interrupts, which the 8259 pair and the IOAPIC both get. */
#include "devices/board/pc_internal.h"
#include "devices/storage/ata.h"

#include "devices/board/acpi_pcihp.h"
#include "devices/pci/i440fx.h"

#include <errno.h>

#define PM_DEVFN PCI_DEVFN(1, 3)

/* _PRT in firmware/dsdt_pc.asl says the same. */
static unsigned pirq_map(void *opaque, uint8_t devfn, unsigned pin)
{
    (void)opaque;
    return (PCI_SLOT(devfn) + pin + 3) & 3;
}

static const struct pci_bus_ops i440fx_pci_ops = { .pirq_set = pc_pirq_set, .pirq_map = pirq_map, .msi = pc_send_msi };

static struct pci_device *pm_function(struct pc *pc)
{
    return pci_bus_find(pc->board.env.pci_bus, 0, PM_DEVFN);
}

static int create_pci(struct pc *pc, struct error *err)
{
    struct device_env *env = &pc->board.env;

    if (!pc_own(pc, i440fx_create(env, &pc->shadow, err)) ||
        !pc_own(pc, pc->isa_bridge = piix3_create(env, pc_pirq_reroute, pc, err)) ||
        !pc_own(pc, piix_ide_create(env, PCI_DEVFN(1, 1), err)) ||
        !pc_own(pc, piix4_pm_create(env, pc_pm_base_changed, pc, err)))
        return -ENOMEM;
    return 0;
}

static int create_hotplug(struct pc *pc, struct error *err)
{
    return pc_own(pc, acpi_pcihp_create(&pc->board.env, pc->pm, err)) ? 0 : -ENOMEM;
}

static void set_serial_ports(struct pc *pc, bool com1, bool com2)
{
    piix4_pm_set_serial_ports(pm_function(pc), com1, com2);
}

static void set_up(struct pc *pc)
{
    i440fx_set_up(pci_bus_find(pc->board.env.pci_bus, 0, 0));
    piix3_set_up(pc->isa_bridge);
    piix4_pm_set_up(pm_function(pc));
}

static const struct pc_chipset i440fx_chipset = {
    .root_bus = "pci.0",
    .pci_ops = &i440fx_pci_ops,
    .pm_kind = ACPI_PM_PIIX4,
    .pirq_to_gsi = false,
    .create_pci = create_pci,
    .pirq_route = piix3_pirq_route,
    .create_hotplug = create_hotplug,
    .set_serial_ports = set_serial_ports,
    .set_up = set_up,
};

struct board *board_create_i440fx(struct event_loop *loop, struct clock *clock, struct physmem *mem,
                                  struct port_space *ports, const struct board_config *config,
                                  const struct machine_ops *machine, void *machine_opaque, struct error *err)
{
    return pc_create(&i440fx_chipset, loop, clock, mem, ports, config, machine, machine_opaque, err);
}
