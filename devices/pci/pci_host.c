/* Configuration mechanism 1 (PCI 3.0 section 3.2.2.3.2). Device lock held.
 *
 *   CONFIG_ADDRESS (CF8)  31 enable | 30..24 0 | 23..16 bus | 15..8 device, function | 7..2 register | 0 0 */
#include "devices/pci/pci_host.h"

static uint64_t address_read(void *opaque, uint64_t offset, unsigned size)
{
    struct pci_host *host = opaque;

    /* Only dword accesses are the register; others go to whatever I/O is there: nothing (3.2.2.3.2). */
    return offset == 0 && size == 4 ? host->address : 0xffffffffu;
}

static void address_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
    struct pci_host *host = opaque;

    if (offset == 0 && size == 4)
        host->address = value & 0x80fffffc;
}

static uint64_t data_read(void *opaque, uint64_t offset, unsigned size)
{
    struct pci_host *host = opaque;
    uint32_t address = host->address;

    if (!(address >> 31))
        return 0xffffffffu;
    return pci_bus_config_read(host->bus, address >> 16 & 0xff, address >> 8, (address & 0xfc) + offset, size);
}

static void data_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
    struct pci_host *host = opaque;
    uint32_t address = host->address;

    if (address >> 31)
        pci_bus_config_write(host->bus, address >> 16 & 0xff, address >> 8, (address & 0xfc) + offset, size, value);
}

static const struct io_ops address_ops = { .read = address_read, .write = address_write, .min_size = 1, .max_size = 4 };
static const struct io_ops data_ops = { .read = data_read, .write = data_write, .min_size = 1, .max_size = 4 };

int pci_host_attach(struct pci_host *host, struct pci_bus *bus, struct port_space *ports, struct error *err)
{
    int result;

    host->bus = bus;
    result = port_space_add(ports, 0xcf8, 4, &address_ops, host, "pci-config-address", err);
    return result ? result : port_space_add(ports, 0xcfc, 4, &data_ops, host, "pci-config-data", err);
}

void pci_host_detach(struct pci_host *host, struct port_space *ports)
{
    port_space_remove(ports, 0xcf8, 4, host);
    port_space_remove(ports, 0xcfc, 4, host);
}
