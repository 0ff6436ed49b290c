/* The pair of 8259A interrupt controllers of a PC, with the ELCR of its chip set (Intel 8259A data sheet; 82371 ELCR).
 * Ports 0x20, 0x21, 0xa0, 0xa1, 0x4d0, 0x4d1. INTR goes to LINT0 of the local APICs. */
#ifndef EIDOLON_DEVICES_IRQ_PIC_H
#define EIDOLON_DEVICES_IRQ_PIC_H

#include "devices/core/device.h"
#include "devices/irq/apic_bus.h"

struct pic_chip {
    uint8_t lines; /* levels of the inputs */
    uint8_t irr, isr, imr;
    uint8_t elcr;        /* 1 = level triggered */
    uint8_t vector_base; /* ICW2 */
    uint8_t lowest;      /* the input of lowest priority; 7 after ICW1 */
    uint8_t icw_step;    /* next ICW to come (2, 3, 4); 0 = operating */
    uint8_t icw1, icw3, icw4;
    bool read_isr; /* OCW3: what a read of port 0 gives */
    bool poll;     /* OCW3: next read is a poll */
    bool special_mask, rotate_aeoi;
    bool output;
};

struct pic {
    struct device device;
    struct apic_bus *bus;
    struct pic_chip chip[2]; /* master, slave */
};

struct pic *pic_create(struct device_env *env, struct apic_bus *bus, struct error *err);
void pic_destroy(struct pic *pic);
void pic_set_irq(void *pic, unsigned irq, bool level); /* fits struct irq_line; 0..15 */
uint8_t pic_acknowledge(struct pic *pic);              /* INTA: the vector, spurious if there is none */

#endif
