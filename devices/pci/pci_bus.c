/* A PCI bus: finds the function that a configuration cycle addresses, and carries
 * interrupt messages. Device lock held. */
#include "devices/pci/pci_internal.h"

#include "base/log.h"

#include <errno.h>
#include <stdio.h>
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
    if (bus && bus->named.owner)
        device_bus_remove(bus->env, &bus->named);
    free(bus);
}

int pci_bus_set_name(struct pci_bus *bus, const char *id, struct error *err)
{
    int result;

    /* Whether there is room depends on addr=: pci_device_attach() says. */
    bus->named = (struct device_bus){ .kind = "PCI", .owner = bus };
    snprintf(bus->named.id, sizeof(bus->named.id), "%s", id);
    result = device_bus_add(bus->env, &bus->named, err);
    if (result)
        bus->named.owner = NULL;
    return result;
}

/* The bridges' registers say where a bus is. They are the guest's, and may name several buses alike, or none: the first
 * that answers wins. A tree of devices has no loops, whatever the numbers are. */
static struct pci_bus *find_below(struct pci_bus *bus, unsigned number)
{
    for (unsigned devfn = 0; devfn < ARRAY_SIZE(bus->functions); devfn++) {
        const struct pci_device *pci = bus->functions[devfn];
        struct pci_bus *found;

        if (!pci || !pci->secondary || number < pci->config[PCI_SECONDARY_BUS] ||
            number > pci->config[PCI_SUBORDINATE_BUS])
            continue;
        if (number == pci->config[PCI_SECONDARY_BUS])
            return pci->secondary;
        found = find_below(pci->secondary, number);
        if (found)
            return found;
    }
    return NULL;
}

struct pci_device *pci_bus_find(struct pci_bus *bus, unsigned bus_number, uint8_t devfn)
{
    if (bus_number)
        bus = find_below(bus, bus_number);
    return bus ? bus->functions[devfn] : NULL;
}

void pci_bus_send_msi(struct pci_bus *bus, uint64_t address, uint32_t data)
{
    while (bus->bridge)
        bus = bus->bridge->bus;
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
