/* IOAPIC: 82093AA with 24 pins, version 0x20 (EOI register), at IOAPIC_BASE. Lines are logical (asserted or not): the
 * polarity bits are kept but have no effect, as the board's lines have no polarity of their own. */
#ifndef EIDOLON_DEVICES_IRQ_IOAPIC_H
#define EIDOLON_DEVICES_IRQ_IOAPIC_H

#include "devices/core/device.h"
#include "devices/irq/apic_bus.h"

#define IOAPIC_PINS 24

struct ioapic {
    struct device device;
    struct apic_bus *bus;
    struct mem_region *region;
    uint8_t select, id;
    uint64_t redirection[IOAPIC_PINS];
    uint32_t level;   /* input pins */
    uint32_t pending; /* requests that were not delivered yet */
};

struct ioapic *ioapic_create(struct device_env *env, struct apic_bus *bus, gpa_t base, struct error *err);
void ioapic_destroy(struct ioapic *ioapic);
void ioapic_set_irq(void *ioapic, unsigned pin, bool level); /* fits struct irq_line */
void ioapic_eoi(struct ioapic *ioapic, uint8_t vector);

#endif
