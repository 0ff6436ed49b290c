/* What the q35 and the i440FX board have in common: everything but the chips on their PCI bus. */
#ifndef EIDOLON_DEVICES_BOARD_PC_INTERNAL_H
#define EIDOLON_DEVICES_BOARD_PC_INTERNAL_H

#include "devices/board/acpi_pm.h"
#include "devices/board/board_internal.h"
#include "devices/board/shadow_ram.h"
#include "devices/irq/apic_bus.h"
#include "devices/irq/isa_irq.h"
#include "devices/pci/pci.h"

struct pc;

/* How a board differs. */
struct pc_chipset {
    const char *root_bus; /* as -device ...,bus= names it */
    const struct pci_bus_ops *pci_ops;
    enum acpi_pm_kind pm_kind;
    bool pirq_to_gsi; /* PIRQ A..H are IOAPIC pins 16..23 as well */
    /* Host bridge and what is built in; sets pc->isa_bridge. After the interrupt controllers, before legacy devices. */
    int (*create_pci)(struct pc *pc, struct error *err);
    /* The PIRQ's ISA interrupt as the bridge routes it, or -1. */
    int (*pirq_route)(const struct pci_device *isa_bridge, unsigned pirq);
    /* What needs the ACPI registers; may be NULL. */
    int (*create_hotplug)(struct pc *pc, struct error *err);
    void (*set_serial_ports)(struct pc *pc, bool com1, bool com2); /* for the DSDT; may be NULL */
    /* After a reset, for a kernel that starts without firmware: the chip set as firmware leaves it. */
    void (*set_up)(struct pc *pc);
};

struct pc {
    struct board board;
    const struct pc_chipset *chipset;
    struct apic_bus apic_bus;
    struct isa_irq_router router;
    struct irq_or isa_or[16];
    struct irq_line pirq_lines[PCI_PIRQ_COUNT][16];
    uint8_t pirq_levels;            /* bit per PIRQ */
    int pirq_route[PCI_PIRQ_COUNT]; /* ISA interrupt, or -1 */
    struct pci_device *isa_bridge;
    struct acpi_pm *pm;
    struct shadow_ram shadow;
    struct mem_region *bios, *msi_window, *a20_wrap;
};

struct board *pc_create(const struct pc_chipset *chipset, struct event_loop *loop, struct clock *clock,
                        struct physmem *mem, struct port_space *ports, const struct board_config *config,
                        const struct machine_ops *machine, void *machine_opaque, struct error *err);
/* Takes the result of a create function; false if that failed. */
bool pc_own(struct pc *pc, void *device);

/* For the chip sets: struct pci_bus_ops and hooks of bridges, `opaque` is the struct pc. */
void pc_pirq_set(void *opaque, unsigned pirq, bool level);
void pc_pirq_reroute(void *opaque);
void pc_send_msi(void *opaque, uint64_t address, uint32_t data);
void pc_pm_base_changed(void *opaque, uint16_t base);

#endif
