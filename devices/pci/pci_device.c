/* A PCI function: configuration space with write masks, capabilities, INTx and DMA.
 *
 * Configuration space is bytes with two masks beside them: bits that the guest may change, and bits
 * that writing one clears. What follows from a change (BARs move, INTx is cut off, MSI is sent) is worked
 * out after the bytes have been updated, so that the bytes are always the truth.
 *
 * All with the device lock held. PCI Local Bus Specification 3.0, chapter 6. */
#include "devices/pci/pci_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

void pci_set_byte(uint8_t *config, uint8_t value)
{
    *config = value;
}

void pci_set_word(uint8_t *config, uint16_t value)
{
    config[0] = value;
    config[1] = value >> 8;
}

void pci_set_long(uint8_t *config, uint32_t value)
{
    pci_set_word(config, value);
    pci_set_word(config + 2, value >> 16);
}

uint16_t pci_get_word(const uint8_t *config)
{
    return config[0] | config[1] << 8;
}

uint32_t pci_get_long(const uint8_t *config)
{
    return pci_get_word(config) | (uint32_t)pci_get_word(config + 2) << 16;
}

static void fill_header(struct pci_device *pci, const struct pci_identity *identity)
{
    uint8_t *config = pci->config;
    bool plain = !identity->subsystem_vendor && !identity->subsystem;

    pci_set_word(config + PCI_VENDOR_ID, identity->vendor);
    pci_set_word(config + PCI_DEVICE_ID, identity->device);
    config[PCI_REVISION] = identity->revision;
    config[PCI_CLASS_PROG] = identity->class_code;
    pci_set_word(config + PCI_CLASS_DEVICE, identity->class_code >> 8);
    pci_set_word(config + PCI_SUBSYSTEM_VENDOR, plain ? 0x1af4 : identity->subsystem_vendor);
    pci_set_word(config + PCI_SUBSYSTEM_ID, plain ? 0x1100 : identity->subsystem);

    pci_set_word(pci->write_mask + PCI_COMMAND, PCI_COMMAND_IO | PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER |
                                                    PCI_COMMAND_PARITY | PCI_COMMAND_SERR | PCI_COMMAND_INTX_DISABLE);
    /* The error bits of the status register: none of them is ever set, but they are write-one-to-clear. */
    pci_set_word(pci->clear_mask + PCI_STATUS, 0xf900);
    pci->write_mask[PCI_CACHE_LINE] = 0xff;
    pci->write_mask[PCI_LATENCY] = identity->express ? 0 : 0xff;
    pci->write_mask[PCI_INTERRUPT_LINE] = 0xff;
}

static int find_free_slot(const struct pci_bus *bus)
{
    /* Slot 0 of the root is the host bridge's, 31 the south bridge's. */
    if (bus->single_slot)
        return bus->functions[0] ? -1 : 0;
    for (int slot = 1; slot < (bus->bridge ? 32 : 31); slot++) {
        bool free = true;

        for (int function = 0; function < 8; function++)
            free &= bus->functions[PCI_DEVFN(slot, function)] == NULL;
        if (free)
            return PCI_DEVFN(slot, 0);
    }
    return -1;
}

/* There is another function in the slot: function 0 says so, also after a reset. */
static void set_multifunction(struct pci_device *first, unsigned function)
{
    if (first && function) {
        first->config[PCI_HEADER_TYPE] |= 0x80;
        first->initial[PCI_HEADER_TYPE] |= 0x80;
    }
}

int pci_device_attach(struct pci_device *pci, struct pci_bus *bus, int devfn, const struct pci_identity *identity,
                      struct error *err)
{
    if (devfn > 255)
        return error_set(err, EINVAL, "PCI address %x is out of range", devfn);
    if (devfn < 0)
        devfn = find_free_slot(bus);
    if (devfn < 0)
        return error_set(err, ENOSPC, "no free slot on the PCI bus%s%s", bus->named.owner ? " " : "", bus->named.id);
    if (bus->single_slot && PCI_SLOT(devfn))
        return error_set(err, EINVAL, "addr=%x: the bus %s has only slot 0", PCI_SLOT(devfn), bus->named.id);
    if (bus->functions[devfn])
        return error_set(err, EBUSY, "PCI address %02x.%x is in use by %s", PCI_SLOT(devfn), PCI_FUNCTION(devfn),
                         bus->functions[devfn]->device.type->name);

    pci->bus = bus;
    pci->devfn = devfn;
    pci->config_size = identity->express ? PCIE_CONFIG_SIZE : PCI_CONFIG_SIZE;
    pci->capability_end = 0x40;
    fill_header(pci, identity);
    /* Others in the slot are only looked for if function 0 says that there are several. */
    if (PCI_FUNCTION(devfn) || bus->functions[devfn | 1])
        pci->config[PCI_HEADER_TYPE] |= 0x80;
    bus->functions[devfn] = pci;
    memcpy(pci->initial, pci->config, sizeof(pci->initial));
    set_multifunction(bus->functions[devfn & ~7], PCI_FUNCTION(devfn));
    if (bus->plugged)
        bus->plugged(bus, pci, true);
    return 0;
}

/* The bus that bus=ID names. */
static struct pci_bus *bus_of_option(struct pci_device *pci, struct option_list *options, struct error *err)
{
    struct device_env *env = pci->device.env;

    if (options && options_get(options, "bus")) {
        struct device_bus *named = device_bus_of_option(env, "PCI", options, err);

        return named ? named->owner : NULL;
    }
    if (!env->pci_bus)
        error_set(err, ENODEV, "this machine has no PCI bus");
    return env->pci_bus;
}

/* addr=SLOT[.FUNCTION]: hex, with or without 0x. */
static int parse_address(const char *text, int *devfn, struct error *err)
{
    unsigned long slot, function = 0;
    char *end;

    *devfn = -1;
    if (!text)
        return 0;
    slot = strtoul(text, &end, 16);
    if (end != text && *end == '.' && end[1] >= '0' && end[1] <= '7')
        function = strtoul(end + 1, &end, 16);
    if (end == text || *end || slot > 31 || function > 7)
        return error_set(err, EINVAL, "addr=%s: expected SLOT[.FUNCTION], slot 0 to 1f, function 0 to 7", text);
    *devfn = PCI_DEVFN(slot, function);
    return 0;
}

int pci_device_attach_option(struct pci_device *pci, struct option_list *options, const struct pci_identity *identity,
                             struct error *err)
{
    struct pci_bus *bus = bus_of_option(pci, options, err);
    bool multifunction = false;
    int devfn, result;

    if (!bus)
        return -ENODEV;
    result = parse_address(options ? options_get(options, "addr") : NULL, &devfn, err);
    if (!result && options)
        result = options_get_bool(options, "multifunction", false, &multifunction, err);
    if (!result)
        result = pci_device_attach(pci, bus, devfn, identity, err);
    if (result)
        return result;
    if (multifunction)
        pci->config[PCI_HEADER_TYPE] |= 0x80;
    result = pci_rom_add(pci, options, identity, err);
    if (result)
        pci_device_detach(pci);
    return result;
}

void pci_device_detach(struct pci_device *pci)
{
    if (!pci->bus)
        return;
    if (pci->bus->plugged)
        pci->bus->plugged(pci->bus, pci, false);
    pci_intx_set(pci, false);
    pci_bars_unmap(pci);
    pci_msi_free(pci);
    pci_rom_free(pci);
    pci->bus->functions[pci->devfn] = NULL;
    pci->bus = NULL;
}

void pci_device_seal(struct pci_device *pci)
{
    memcpy(pci->initial, pci->config, sizeof(pci->initial));
}

void pci_device_reset(struct pci_device *pci)
{
    pci->intx_asserted = false;
    memcpy(pci->config, pci->initial, sizeof(pci->config));
    pci_msi_reset(pci);
    pci_bars_update(pci);
    pci_intx_update(pci);
}

/* ---- Configuration space ---- */

uint32_t pci_device_config_read(struct pci_device *pci, unsigned offset, unsigned size)
{
    uint32_t value = 0;

    if (offset + size > pci->config_size)
        return 0xffffffffu >> (32 - 8 * size);
    if (pci->config_reading)
        pci->config_reading(pci, offset, size);
    for (unsigned i = 0; i < size; i++)
        value |= (uint32_t)pci->config[offset + i] << (8 * i);
    return value;
}

static bool touches_bars(unsigned offset, unsigned size)
{
    return pci_ranges_overlap(offset, size, PCI_BAR0, 24) || pci_ranges_overlap(offset, size, PCI_ROM_ADDRESS, 4) ||
           pci_ranges_overlap(offset, size, PCI_COMMAND, 2);
}

void pci_device_config_write(struct pci_device *pci, unsigned offset, unsigned size, uint32_t value)
{
    if (offset + size > pci->config_size)
        return;
    for (unsigned i = 0; i < size; i++) {
        uint8_t byte = value >> (8 * i), mask = pci->write_mask[offset + i];
        uint8_t *config = &pci->config[offset + i];

        *config = (*config & ~mask) | (byte & mask);
        *config &= ~(byte & pci->clear_mask[offset + i]);
    }
    if (touches_bars(offset, size))
        pci_bars_update(pci);
    pci_msi_config_written(pci, offset, size);
    pci_intx_update(pci);
    if (pci->config_written)
        pci->config_written(pci, offset, size);
}

int pci_capability_add(struct pci_device *pci, uint8_t id, unsigned size, struct error *err)
{
    unsigned offset = ALIGN_UP(pci->capability_end, 4);

    if (offset + size > PCI_CONFIG_SIZE)
        return error_set(err, ENOSPC, "no room for PCI capability 0x%02x", id);
    memset(pci->config + offset, 0, size);
    memset(pci->write_mask + offset, 0, size);
    memset(pci->clear_mask + offset, 0, size);
    pci->config[offset] = id;
    pci->config[offset + 1] = pci->config[PCI_CAPABILITIES];
    pci->config[PCI_CAPABILITIES] = offset;
    pci->config[PCI_STATUS] |= PCI_STATUS_CAPABILITIES;
    /* 256 would wrap to 0; 255 is never handed out, because offsets are aligned. */
    pci->capability_end = MIN(offset + size, 255u);
    return offset;
}

/* ---- INTx ---- */

void pci_set_interrupt_pin(struct pci_device *pci, unsigned pin)
{
    pci->config[PCI_INTERRUPT_PIN] = pin;
}

void pci_intx_update(struct pci_device *pci)
{
    struct pci_bus *bus = pci->bus;
    unsigned pin = pci->config[PCI_INTERRUPT_PIN], pirq;
    uint8_t devfn = pci->devfn;
    bool drive;

    if (pci->intx_asserted)
        pci->config[PCI_STATUS] |= PCI_STATUS_INTERRUPT;
    else
        pci->config[PCI_STATUS] &= ~PCI_STATUS_INTERRUPT;
    drive = pci->intx_asserted && pin && !(pci_get_word(pci->config + PCI_COMMAND) & PCI_COMMAND_INTX_DISABLE) &&
            !pci_msi_enabled(pci) && !pci_msix_enabled(pci);
    if (drive == pci->intx_driven || !bus)
        return;
    pci->intx_driven = drive;
    /* On its way up, a bridge's slots take its pins by turns (PCI-to-PCI Bridge Architecture 1.2, 9.1). */
    for (pin--; bus->bridge; bus = bus->bridge->bus) {
        pin = (pin + PCI_SLOT(devfn)) & 3;
        devfn = bus->bridge->devfn;
    }
    pirq = bus->ops->pirq_map(bus->opaque, devfn, pin) % PCI_PIRQ_COUNT;
    if (drive && bus->pirq_drivers[pirq]++ == 0)
        bus->ops->pirq_set(bus->opaque, pirq, true);
    else if (!drive && --bus->pirq_drivers[pirq] == 0)
        bus->ops->pirq_set(bus->opaque, pirq, false);
}

void pci_intx_set(struct pci_device *pci, bool level)
{
    pci->intx_asserted = level;
    pci_intx_update(pci);
}

/* ---- DMA ---- */

static bool may_dma(const struct pci_device *pci)
{
    return (pci->config[PCI_COMMAND] & PCI_COMMAND_MASTER) && pci_bridges_master(pci);
}

bool pci_dma_read(struct pci_device *pci, gpa_t gpa, void *buffer, uint64_t size)
{
    if (may_dma(pci))
        return physmem_read(pci->device.env->mem, gpa, buffer, size);
    memset(buffer, 0xff, size);
    return false;
}

bool pci_dma_write(struct pci_device *pci, gpa_t gpa, const void *buffer, uint64_t size)
{
    return may_dma(pci) && physmem_write(pci->device.env->mem, gpa, buffer, size);
}
