/* What every PCI-to-PCI bridge does: bus numbers, windows, secondary reset (PCI-to-PCI Bridge Architecture 1.2, chapter 3).
 *
 *   18h primary, secondary, subordinate bus | 1ch I/O base, limit (4 KiB) | 20h memory base, limit (1 MiB)
 *   24h prefetchable base, limit, 28h, 2ch their high halves | 3eh bridge control: 6 reset of the secondary bus
 *
 * A function's BAR is in the memory map if the windows of all bridges above it let it through: what changes a window has
 * all BARs below looked at again. Device lock held. */
#include "devices/pci/pci_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* ---- Windows ---- */

struct window {
    uint64_t first, last;
};

static struct window io_window(const uint8_t *config)
{
    return (struct window){
        .first = (uint64_t)(config[PCI_IO_BASE] & 0xf0) << 8 | (uint64_t)pci_get_word(config + PCI_IO_BASE_HIGH) << 16,
        .last = (uint64_t)(config[PCI_IO_LIMIT] & 0xf0) << 8 |
                (uint64_t)pci_get_word(config + PCI_IO_LIMIT_HIGH) << 16 | 0xfff,
    };
}

static struct window memory_window(const uint8_t *config)
{
    return (struct window){
        .first = (uint64_t)(pci_get_word(config + PCI_MEMORY_BASE) & 0xfff0) << 16,
        .last = (uint64_t)(pci_get_word(config + PCI_MEMORY_LIMIT) & 0xfff0) << 16 | 0xfffff,
    };
}

static struct window prefetch_window(const uint8_t *config)
{
    return (struct window){
        .first = (uint64_t)(pci_get_word(config + PCI_PREFETCH_BASE) & 0xfff0) << 16 |
                 (uint64_t)pci_get_long(config + PCI_PREFETCH_BASE_HIGH) << 32,
        .last = (uint64_t)(pci_get_word(config + PCI_PREFETCH_LIMIT) & 0xfff0) << 16 | 0xfffff |
                (uint64_t)pci_get_long(config + PCI_PREFETCH_LIMIT_HIGH) << 32,
    };
}

static bool inside(struct window window, uint64_t first, uint64_t last)
{
    return first >= window.first && last <= window.last;
}

static bool forwards(const struct pci_device *bridge, bool io, uint64_t first, uint64_t last)
{
    const uint8_t *config = bridge->config;
    uint16_t command = pci_get_word(config + PCI_COMMAND);

    if (io)
        return (command & PCI_COMMAND_IO) && inside(io_window(config), first, last);
    return (command & PCI_COMMAND_MEMORY) &&
           (inside(memory_window(config), first, last) || inside(prefetch_window(config), first, last));
}

bool pci_bridges_forward(const struct pci_device *pci, bool io, uint64_t first, uint64_t last)
{
    for (const struct pci_bus *bus = pci->bus; bus && bus->bridge; bus = bus->bridge->bus) {
        if (!forwards(bus->bridge, io, first, last))
            return false;
    }
    return true;
}

bool pci_bridges_master(const struct pci_device *pci)
{
    for (const struct pci_bus *bus = pci->bus; bus && bus->bridge; bus = bus->bridge->bus) {
        if (!(bus->bridge->config[PCI_COMMAND] & PCI_COMMAND_MASTER))
            return false;
    }
    return true;
}

/* ---- What is behind ---- */

static void for_each_below(struct pci_bus *bus, void (*fn)(struct pci_device *pci))
{
    for (unsigned devfn = 0; devfn < ARRAY_SIZE(bus->functions); devfn++) {
        struct pci_device *pci = bus->functions[devfn];

        if (!pci)
            continue;
        fn(pci);
        if (pci->secondary)
            for_each_below(pci->secondary, fn);
    }
}

static void reset_below(struct pci_device *pci)
{
    device_reset(&pci->device);
}

void pci_bridge_update(struct pci_device *pci)
{
    for_each_below(pci->secondary, pci_bars_update);
}

void pci_bridge_config_written(struct pci_device *pci, unsigned offset, unsigned size)
{
    uint16_t control = pci_get_word(pci->config + PCI_BRIDGE_CONTROL);

    if (pci_ranges_overlap(offset, size, PCI_BRIDGE_CONTROL, 2)) {
        bool held = control & PCI_BRIDGE_CONTROL_RESET;

        if (held && !pci->bridge_in_reset)
            for_each_below(pci->secondary, reset_below);
        pci->bridge_in_reset = held;
    }
    if (pci_ranges_overlap(offset, size, PCI_COMMAND, 2) || pci_ranges_overlap(offset, size, PCI_IO_BASE, 0x18))
        pci_bridge_update(pci);
}

/* ---- Life ---- */

static void fill_registers(struct pci_device *pci)
{
    uint8_t *config = pci->config, *mask = pci->write_mask;

    config[PCI_HEADER_TYPE] = (config[PCI_HEADER_TYPE] & 0x80) | 1;
    memset(config + PCI_PRIMARY_BUS, 0, PCI_CAPABILITIES - PCI_PRIMARY_BUS);
    memset(mask + PCI_PRIMARY_BUS, 0xff, 3);
    mask[PCI_IO_BASE] = mask[PCI_IO_LIMIT] = 0xf0;
    config[PCI_IO_BASE] = config[PCI_IO_LIMIT] = 0x01; /* 32-bit addresses */
    pci_set_word(pci->clear_mask + PCI_SECONDARY_STATUS, 0xf900);
    pci_set_long(mask + PCI_MEMORY_BASE, 0xfff0fff0);
    pci_set_long(mask + PCI_PREFETCH_BASE, 0xfff0fff0);
    pci_set_long(config + PCI_PREFETCH_BASE, 0x00010001); /* 64-bit addresses */
    memset(mask + PCI_PREFETCH_BASE_HIGH, 0xff, 8);
    memset(mask + PCI_IO_BASE_HIGH, 0xff, 4);
    pci_set_word(mask + PCI_BRIDGE_CONTROL, 0x005f);
}

int pci_bridge_init(struct pci_device *pci, const char *id, bool single_slot, struct error *err)
{
    struct pci_bus *bus = calloc(1, sizeof(*bus));
    int result;

    if (!bus)
        return error_set(err, ENOMEM, "no memory for a PCI bus");
    bus->env = pci->device.env;
    bus->bridge = pci;
    bus->single_slot = single_slot;
    result = pci_bus_set_name(bus, id, err);
    if (result) {
        free(bus);
        return result;
    }
    pci->secondary = bus;
    fill_registers(pci);
    return 0;
}

void pci_bridge_destroy(struct pci_device *pci)
{
    if (!pci->secondary)
        return;
    pci_bus_destroy(pci->secondary);
    pci->secondary = NULL;
}
