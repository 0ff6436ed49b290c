/* Configuration mechanism 1: ports CF8 and CFC of a host bridge. */
#ifndef EIDOLON_DEVICES_PCI_PCI_HOST_H
#define EIDOLON_DEVICES_PCI_PCI_HOST_H

#include "devices/pci/pci.h"

struct pci_host {
    struct pci_bus *bus;
    uint32_t address; /* CONFIG_ADDRESS: the bridge's reset clears it, its state saves it */
};

int pci_host_attach(struct pci_host *host, struct pci_bus *bus, struct port_space *ports, struct error *err);
void pci_host_detach(struct pci_host *host, struct port_space *ports);

#endif
