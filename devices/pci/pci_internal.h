/* Shared between the PCI files; not for devices. */
#ifndef EIDOLON_DEVICES_PCI_PCI_INTERNAL_H
#define EIDOLON_DEVICES_PCI_PCI_INTERNAL_H

#include "devices/core/bus.h"
#include "devices/pci/pci.h"

/* Header type 1. */
enum {
    PCI_PRIMARY_BUS = 0x18,
    PCI_SECONDARY_BUS = 0x19,
    PCI_SUBORDINATE_BUS = 0x1a,
    PCI_IO_BASE = 0x1c,
    PCI_IO_LIMIT = 0x1d,
    PCI_SECONDARY_STATUS = 0x1e,
    PCI_MEMORY_BASE = 0x20,
    PCI_MEMORY_LIMIT = 0x22,
    PCI_PREFETCH_BASE = 0x24,
    PCI_PREFETCH_LIMIT = 0x26,
    PCI_PREFETCH_BASE_HIGH = 0x28,
    PCI_PREFETCH_LIMIT_HIGH = 0x2c,
    PCI_IO_BASE_HIGH = 0x30,
    PCI_IO_LIMIT_HIGH = 0x32,
    PCI_BRIDGE_CONTROL = 0x3e,
};
enum { PCI_BRIDGE_CONTROL_RESET = 1 << 6 };

struct pci_bus {
    struct device_env *env;
    struct pci_device *bridge; /* NULL: the root */
    bool single_slot;          /* behind a root port: only device 0 */
    struct device_bus named;   /* in env->buses, if it has an id */
    /* A function came (true) or is about to go; for hot-plug. May be NULL. */
    void (*plugged)(struct pci_bus *bus, struct pci_device *pci, bool there);
    void *plugged_opaque;
    struct pci_device *functions[256];
    /* Of the root only. */
    const struct pci_bus_ops *ops;
    void *opaque;
    unsigned pirq_drivers[PCI_PIRQ_COUNT]; /* functions that hold each PIRQ up */
};

/* pci_bridge.c */
/* Would the bridges between the function and the root pass accesses to [first, last] on? */
bool pci_bridges_forward(const struct pci_device *pci, bool io, uint64_t first, uint64_t last);
/* May the function be a bus master, all bridges considered? */
bool pci_bridges_master(const struct pci_device *pci);

/* pci_rom.c: properties romfile= and rombar=; the ROM of `identity` if there are none. */
int pci_rom_add(struct pci_device *pci, struct option_list *options, const struct pci_identity *identity,
                struct error *err);
void pci_rom_free(struct pci_device *pci);

/* pci_bar.c: the guest has written a BAR, the ROM address or the command register. */
void pci_bars_update(struct pci_device *pci);
void pci_bars_unmap(struct pci_device *pci);

/* pci_msi.c: config space [offset, offset + size) was written. */
void pci_msi_config_written(struct pci_device *pci, unsigned offset, unsigned size);
void pci_msi_reset(struct pci_device *pci);
void pci_msi_free(struct pci_device *pci);

/* pci_device.c: INTx follows the command register, the status bit and MSI enable bits. */
void pci_intx_update(struct pci_device *pci);

static inline bool pci_ranges_overlap(unsigned a, unsigned a_size, unsigned b, unsigned b_size)
{
    return a < b + b_size && b < a + a_size;
}

#endif
