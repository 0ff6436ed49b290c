/* A PCI bus: finds the function that a configuration cycle addresses, and carries
 * interrupt messages. Device lock held. */
#include "devices/pci/pci_internal.h"

#include "base/log.h"

#include <stdlib.h>

struct pci_bus *pci_bus_create(struct device_env *env, const struct pci_bus_ops *ops, void *opaque)
{
    struct pci_bus *bus = calloc(1, sizeof(*bus));

    if (!bus)
        return NULL;
    bus->env = env;
    bus->ops = ops;
    bus->opaque = opaque;
    return bus;
}

void pci_bus_destroy(struct pci_bus *bus)
{
    free(bus);
}

struct pci_device *pci_bus_find(struct pci_bus *bus, unsigned bus_number, uint8_t devfn)
{
    return bus_number == 0 ? bus->functions[devfn] : NULL;
}

void pci_bus_send_msi(struct pci_bus *bus, uint64_t address, uint32_t data)
{
    bus->ops->msi(bus->opaque, address, data);
}

uint32_t pci_bus_config_read(struct pci_bus *bus, unsigned bus_number, uint8_t devfn, unsigned offset, unsigned size)
{
    struct pci_device *pci = pci_bus_find(bus, bus_number, devfn);

    if (!pci)
        return 0xffffffffu >> (32 - 8 * size);
    return pci_device_config_read(pci, offset, size);
}

void pci_bus_config_write(struct pci_bus *bus, unsigned bus_number, uint8_t devfn, unsigned offset, unsigned size,
                          uint32_t value)
{
    struct pci_device *pci = pci_bus_find(bus, bus_number, devfn);

    if (pci)
        pci_device_config_write(pci, offset, size, value);
    else
        log_event(guest_errors, "pci: write to absent function %02x:%02x.%x, register 0x%x\n", bus_number,
                  PCI_SLOT(devfn), PCI_FUNCTION(devfn), offset);
}
