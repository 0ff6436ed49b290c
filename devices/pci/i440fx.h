/* The i440FX chip set's own functions, wired by the board. */
#ifndef EIDOLON_DEVICES_PCI_I440FX_H
#define EIDOLON_DEVICES_PCI_I440FX_H

#include "devices/pci/pci.h"

struct shadow_ram;

/* 00:00.0: ports CF8 and CFC, PAM registers. _set_up(): as firmware leaves it. */
struct device *i440fx_create(struct device_env *env, struct shadow_ram *shadow, struct error *err);
void i440fx_set_up(struct pci_device *host);

/* 00:01.0, the PIIX3's ISA bridge. route(opaque): the routing of PIRQs may have changed. */
struct pci_device *piix3_create(struct device_env *env, void (*route)(void *opaque), void *opaque, struct error *err);
void piix3_set_up(struct pci_device *bridge);
/* The PIRQ's ISA interrupt, or -1 if that is off. */
int piix3_pirq_route(const struct pci_device *bridge, unsigned pirq);

/* 00:01.3, the PIIX4's power management. pm_base(opaque, base): the ACPI registers' place may have changed; 0: nowhere. */
struct pci_device *piix4_pm_create(struct device_env *env, void (*pm_base)(void *opaque, uint16_t base), void *opaque,
                                   struct error *err);
void piix4_pm_set_up(struct pci_device *pm);
/* What the DSDT reports. Before the machine runs. */
void piix4_pm_set_serial_ports(struct pci_device *pm, bool com1, bool com2);

#endif
