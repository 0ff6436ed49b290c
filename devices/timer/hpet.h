/* HPET (IA-PC HPET specification 1.0a): three 64-bit comparators, periodic, legacy replacement. 100 MHz counter. */
#ifndef EIDOLON_DEVICES_TIMER_HPET_H
#define EIDOLON_DEVICES_TIMER_HPET_H

#include "devices/core/device.h"

#define HPET_TIMERS      3
#define HPET_NS_PER_TICK 10
#define HPET_BLOCK_ID                                                                                                  \
    (0x8086a000u | (HPET_TIMERS - 1) << 8 | 1) /* low half of the capabilities, as the ACPI table wants it */

struct hpet;
struct hpet_timer {
    struct hpet *hpet;
    struct timer timer;
};

/* Registers of a comparator: what is saved. */
struct hpet_comparator {
    uint64_t config, comparator;
    uint64_t period;      /* periodic mode: added to the comparator at each match */
    uint64_t next_match;  /* 64-bit counter value, also in 32-bit mode; in the past: no match is due any more */
    uint64_t deadline_ns; /* saved state: when the next match is to be reported; 0 = never */
};

struct hpet {
    struct device device;
    struct mem_region *region;
    uint64_t config, status;
    uint64_t counter; /* value while halted; value at start_ns while running */
    uint64_t start_ns;
    struct hpet_comparator comparators[HPET_TIMERS];
    struct hpet_timer timers[HPET_TIMERS];
    struct irq_line legacy_out[2]; /* ISA interrupts 0 and 8 */
    bool legacy_in[2];             /* what PIT and RTC drive */
};

/* env->isa_irq and env->gsi must be wired before. */
struct hpet *hpet_create(struct device_env *env, gpa_t base, struct error *err);
void hpet_destroy(struct hpet *hpet);
/* The interrupt lines for the 8254 and the RTC: they pass through the HPET, which takes them over in legacy
 * replacement mode. */
struct irq_line hpet_pit_line(struct hpet *hpet);
struct irq_line hpet_rtc_line(struct hpet *hpet);

#endif
