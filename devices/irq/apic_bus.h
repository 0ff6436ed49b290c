/* What connects the interrupt controllers: messages from IOAPIC, MSI and other local APICs to local APICs, EOI
 * broadcasts back to the IOAPIC, and the 8259's INTR wire to every LINT0 (virtual wire mode).
 * One per machine, owned by the board. Device lock held for every call. */
#ifndef EIDOLON_DEVICES_IRQ_APIC_BUS_H
#define EIDOLON_DEVICES_IRQ_APIC_BUS_H

#include "base/error.h"
#include "base/irq_line.h"
#include "base/types.h"

struct lapic;
struct ioapic;
struct pic;

/* SDM Vol. 3A 11.6.1, delivery mode. */
enum apic_delivery {
    APIC_FIXED = 0,
    APIC_LOWEST_PRIORITY = 1,
    APIC_SMI = 2,
    APIC_NMI = 4,
    APIC_INIT = 5,
    APIC_SIPI = 6,
    APIC_EXTINT = 7,
};

struct apic_message {
    uint32_t destination;
    uint8_t vector;
    uint8_t mode; /* enum apic_delivery */
    bool logical;
    bool level; /* trigger mode */
    bool wide;  /* 32-bit destination (sent by an x2APIC); otherwise 8-bit, 0xff is everyone */
};

struct apic_bus {
    struct lapic **lapics; /* by initial APIC id; NULL where there is none */
    unsigned count;
    unsigned next_lowest; /* lowest priority: where the search starts, so that equals take turns */
    struct ioapic *ioapic;
    struct pic *pic;
    bool extint; /* level of the 8259's INTR output */
};

/* Room for APIC ids below `count`. lapic_create, ioapic_create and pic_create register themselves. */
int apic_bus_init(struct apic_bus *bus, unsigned count, struct error *err);
void apic_bus_destroy(struct apic_bus *bus);

/* How many local APICs took the message. */
unsigned apic_bus_deliver(struct apic_bus *bus, const struct apic_message *message);
/* A write to 0xfee00000..0xfeefffff from a device (SDM Vol. 3A 11.11). */
void apic_bus_msi(struct apic_bus *bus, uint64_t address, uint32_t data);
/* EOI of a level-triggered interrupt. */
void apic_bus_eoi(struct apic_bus *bus, uint8_t vector);
/* The 8259 pair's INTR output. */
void apic_bus_set_extint(struct apic_bus *bus, bool level);
/* NMI button, SERR: LINT1 of every local APIC. */
void apic_bus_pulse_nmi(struct apic_bus *bus);

#endif
