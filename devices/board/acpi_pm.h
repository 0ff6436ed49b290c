/* ACPI fixed hardware of the ICH9 (ACPI 6.4 chapter 4.8; ICH9 data sheet 13.8): PM1a event and control blocks,
 * 24-bit PM timer, GPE0, SMI command port. Reports to isa_irq[ACPI_SCI_IRQ].
 * The PIIX4's is the same with the general-purpose events elsewhere. */
#ifndef EIDOLON_DEVICES_BOARD_ACPI_PM_H
#define EIDOLON_DEVICES_BOARD_ACPI_PM_H

#include "devices/core/device.h"

/* For the FADT. */
enum {
    ACPI_PM1_EVT = 0x00, /* 4 bytes */
    ACPI_PM1_CNT = 0x04, /* 2 bytes */
    ACPI_PM_TMR = 0x08,  /* 4 bytes; 24 bits count: TMR_VAL_EXT is clear */
    ACPI_GPE0 = 0x20,    /* ICH9: 16 bytes: 8 status, 8 enable */
    ACPI_PM_SIZE = 0x80,
    ACPI_PIIX4_PM_SIZE = 0x40,
    ACPI_PIIX4_GPE0 = 0xafe0, /* 4 bytes: 2 status, 2 enable; not in the block */
    ACPI_SMI_CMD = 0xb2,
    ACPI_ENABLE_COMMAND = 0x02,
    ACPI_DISABLE_COMMAND = 0x03,
    ACPI_PIIX4_ENABLE_COMMAND = 0xf1,
    ACPI_PIIX4_DISABLE_COMMAND = 0xf0,
    ACPI_S5_SLP_TYP = 0, /* \_S5 = Package { 0, 0, 0, 0 } */
};
#define ACPI_PM_TIMER_HZ 3579545ull

/* Where registers lie, and what the SMI command port understands. */
enum acpi_pm_kind { ACPI_PM_ICH9, ACPI_PM_PIIX4 };

struct acpi_pm {
    struct device device;
    enum acpi_pm_kind kind;
    uint16_t base; /* 0: not mapped */
    uint16_t pm1_status, pm1_enable, pm1_control;
    uint8_t gpe_status[8], gpe_enable[8];
    uint32_t smi_enable, smi_status;
    uint8_t apm_control, apm_status;
    uint64_t timer_toggles; /* changes of the PM timer's top bit that are accounted for in TMR_STS */
    struct timer timer;
    struct irq_line sci;
};

/* base: where the block is at first; 0: nowhere, until a bridge's PMBASE is written. */
struct acpi_pm *acpi_pm_create(struct device_env *env, enum acpi_pm_kind kind, uint16_t base,
                               const struct irq_line *sci, struct error *err);
void acpi_pm_destroy(struct acpi_pm *pm);
int acpi_pm_move(struct acpi_pm *pm, uint16_t base, struct error *err); /* PMBASE written; 0 unmaps */
void acpi_pm_power_button(struct acpi_pm *pm);
void acpi_pm_gpe(struct acpi_pm *pm, unsigned n); /* general-purpose event n happened */

#endif
