/* Where interrupt lines lead on a PC with both controllers: ISA interrupt n is input n of the 8259 pair and of the
 * IOAPIC, except that ISA interrupt 0 (timer) is IOAPIC pin 2 (MADT override) and that there is no interrupt 2
 * (cascade). */
#ifndef EIDOLON_DEVICES_IRQ_ISA_IRQ_H
#define EIDOLON_DEVICES_IRQ_ISA_IRQ_H

#include "devices/core/device.h"
#include "devices/irq/ioapic.h"
#include "devices/irq/pic.h"

struct isa_irq_router {
    struct pic *pic;
    struct ioapic *ioapic;
};

/* Fills env->isa_irq[] and env->gsi[]. gsi lines reach the IOAPIC only. `router` is kept by the lines. Several
 * devices on one line (PCI interrupts, SCI) must be combined by whoever wires them: see struct irq_or. */
void isa_irq_wire(struct isa_irq_router *router, struct device_env *env, struct pic *pic, struct ioapic *ioapic);

/* Wired-or of up to 64 level sources onto one line. */
struct irq_or {
    struct irq_line out;
    uint64_t sources;
};
/* The line that source n drives. */
struct irq_line irq_or_input(struct irq_or *combine, unsigned n);

#endif
