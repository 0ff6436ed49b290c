/* Base address registers: where a function's ranges appear in the port space and in
 * physical memory (PCI Local Bus Specification 3.0, 6.2.5).
 *
 *   I/O     31..2 address | 1 0 | 0 1
 *   memory  31..4 address | 3 prefetch | 2..1 type: 00 32-bit, 10 64-bit | 0 0
 *   ROM     31..11 address | 10..1 0 | 0 enable
 *
 * Sizing works through the write mask: the low address bits are not writable, so that what the guest reads
 * back after writing ones is the size. A BAR of address 0, or one whose range wraps, is decoded nowhere:
 * such values appear while a guest sizes it. */
#include "devices/pci/pci_internal.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

static unsigned bar_offset(unsigned index)
{
    return index == PCI_BAR_ROM ? PCI_ROM_ADDRESS : PCI_BAR0 + 4 * index;
}

int pci_bar_register(struct pci_device *pci, unsigned index, enum pci_bar_kind kind, bool prefetch, uint64_t size,
                     const struct io_ops *ops, void *opaque, const char *name, struct error *err)
{
    unsigned offset = bar_offset(index);
    uint64_t smallest = kind == PCI_BAR_IO ? 4 : index == PCI_BAR_ROM ? 2048 : 16;
    struct pci_bar *bar;

    if (index >= PCI_BAR_COUNT || (kind == PCI_BAR_MEM64 && index > 4) ||
        (index == PCI_BAR_ROM && kind != PCI_BAR_MEM32) || (size & (size - 1)) || size < smallest ||
        (kind == PCI_BAR_IO && size > 256) || (kind == PCI_BAR_MEM32 && size > 0x80000000u))
        return error_set(err, EINVAL, "%s: BAR %u cannot be %llu bytes", name, index, (unsigned long long)size);

    bar = &pci->bars[index];
    *bar = (struct pci_bar){ .kind = kind, .prefetch = prefetch, .size = size, .ops = ops, .opaque = opaque };
    snprintf(bar->name, sizeof(bar->name), "%s", name);
    pci_set_long(pci->write_mask + offset, ~(size - 1));
    switch (kind) {
    case PCI_BAR_IO:
        pci_set_long(pci->config + offset, 1);
        break;
    case PCI_BAR_MEM64:
        pci_set_long(pci->write_mask + offset + 4, ~(size - 1) >> 32);
        pci_set_long(pci->config + offset, 4 | (prefetch ? 8 : 0));
        break;
    default:
        pci_set_long(pci->config + offset, prefetch ? 8 : 0);
        if (index == PCI_BAR_ROM)
            pci->write_mask[offset] |= 1;
        break;
    }
    return 0;
}

/* Where the registers say that the BAR is; false: not decoded. */
static bool bar_wanted(const struct pci_device *pci, unsigned index, uint64_t *address)
{
    const struct pci_bar *bar = &pci->bars[index];
    const uint8_t *config = pci->config + bar_offset(index);
    uint16_t command = pci_get_word(pci->config + PCI_COMMAND);
    uint64_t value = pci_get_long(config), last;

    if (bar->kind == PCI_BAR_NONE)
        return false;
    if (index == PCI_BAR_ROM && !(value & 1))
        return false;
    if (bar->kind == PCI_BAR_MEM64)
        value |= (uint64_t)pci_get_long(config + 4) << 32;
    value &= ~(bar->size - 1);
    last = value + bar->size - 1;
    *address = value;
    if (value == 0 || last < value)
        return false;
    if (bar->kind == PCI_BAR_IO)
        return (command & PCI_COMMAND_IO) && last <= 0xffff && pci_bridges_forward(pci, true, value, last);
    if (bar->kind == PCI_BAR_MEM32 && last >= 0xffffffffu)
        return false;
    /* Physical addresses have at most 52 bits. */
    return (command & PCI_COMMAND_MEMORY) && last < (1ull << 52) && pci_bridges_forward(pci, false, value, last);
}

static void bar_unmap(struct pci_device *pci, struct pci_bar *bar)
{
    if (!bar->mapped)
        return;
    if (bar->kind == PCI_BAR_IO)
        port_space_remove(pci->device.env->ports, bar->address, bar->size, bar->opaque);
    else
        physmem_remove(bar->region);
    bar->region = NULL;
    bar->mapped = false;
}

static void bar_map(struct pci_device *pci, struct pci_bar *bar, uint64_t address)
{
    struct device_env *env = pci->device.env;

    if (bar->kind == PCI_BAR_IO) {
        bar->mapped = port_space_add(env->ports, address, bar->size, bar->ops, bar->opaque, bar->name, NULL) == 0;
    } else {
        bar->region = physmem_add_mmio(env->mem, address, bar->size, bar->ops, bar->opaque, bar->name, NULL);
        bar->mapped = bar->region != NULL;
    }
    bar->address = address;
}

void pci_bars_update(struct pci_device *pci)
{
    for (unsigned i = 0; i < PCI_BAR_COUNT; i++) {
        struct pci_bar *bar = &pci->bars[i];
        uint64_t address = 0;
        bool wanted = bar_wanted(pci, i, &address);

        if (wanted == bar->mapped && (!wanted || address == bar->address))
            continue;
        bar_unmap(pci, bar);
        if (wanted)
            bar_map(pci, bar, address);
    }
}

void pci_bars_unmap(struct pci_device *pci)
{
    for (unsigned i = 0; i < PCI_BAR_COUNT; i++)
        bar_unmap(pci, &pci->bars[i]);
}

bool pci_bar_address(const struct pci_device *pci, unsigned index, uint64_t *address)
{
    if (index >= PCI_BAR_COUNT || !pci->bars[index].mapped)
        return false;
    *address = pci->bars[index].address;
    return true;
}
