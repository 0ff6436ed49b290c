/* Shared between the PCI files; not for devices. */
#ifndef EIDOLON_DEVICES_PCI_PCI_INTERNAL_H
#define EIDOLON_DEVICES_PCI_PCI_INTERNAL_H

#include "devices/pci/pci.h"

struct pci_bus {
    struct device_env *env;
    const struct pci_bus_ops *ops;
    void *opaque;
    struct pci_device *functions[256];
    unsigned pirq_drivers[PCI_PIRQ_COUNT]; /* functions that hold each PIRQ up */
};

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
