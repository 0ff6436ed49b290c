/* ACPI PCI hot-plug of the pc board's root bus: registers at port 0xae00, as the DSDT (firmware/dsdt_pc.asl) uses them. */
#ifndef EIDOLON_DEVICES_BOARD_ACPI_PCIHP_H
#define EIDOLON_DEVICES_BOARD_ACPI_PCIHP_H

#include "devices/board/acpi_pm.h"
#include "devices/pci/pci.h"

#define ACPI_PCIHP_BASE 0xae00
#define ACPI_PCIHP_SIZE 0x18
#define ACPI_PCIHP_GPE  1

struct acpi_pcihp;
/* Watches env->pci_bus. Begins with a struct device. */
struct acpi_pcihp *acpi_pcihp_create(struct device_env *env, struct acpi_pm *pm, struct error *err);
/* Asks the guest to give the slot up; env->unplugged() is called for its functions when it has. */
void acpi_pcihp_request_unplug(struct acpi_pcihp *hp, unsigned slot);

#endif
