/* What lapic.c (interrupts), lapic_timer.c and lapic_registers.c share. Device lock held. */
#ifndef EIDOLON_DEVICES_IRQ_LAPIC_INTERNAL_H
#define EIDOLON_DEVICES_IRQ_LAPIC_INTERNAL_H

#include "devices/irq/lapic.h"

/* Register offsets in the xAPIC page; x2APIC MSR 0x800 + offset / 16 (SDM Vol. 3A tables 11-1 and 11-6). */
enum {
    LAPIC_ID = 0x020,
    LAPIC_VERSION = 0x030,
    LAPIC_TPR = 0x080,
    LAPIC_APR = 0x090,
    LAPIC_PPR = 0x0a0,
    LAPIC_EOI = 0x0b0,
    LAPIC_RRD = 0x0c0,
    LAPIC_LDR = 0x0d0,
    LAPIC_DFR = 0x0e0,
    LAPIC_SVR = 0x0f0,
    LAPIC_ISR = 0x100,
    LAPIC_TMR = 0x180,
    LAPIC_IRR = 0x200,
    LAPIC_ESR = 0x280,
    LAPIC_ICR_LOW = 0x300,
    LAPIC_ICR_HIGH = 0x310,
    LAPIC_LVT_TIMER = 0x320,
    LAPIC_LVT_ERROR = 0x370,
    LAPIC_INITIAL_COUNT = 0x380,
    LAPIC_CURRENT_COUNT = 0x390,
    LAPIC_DIVIDE = 0x3e0,
    LAPIC_SELF_IPI = 0x3f0,
};

enum {
    MSR_APIC_BASE = 0x1b,
    MSR_TSC_DEADLINE = 0x6e0,
    MSR_X2APIC_FIRST = 0x800,
    MSR_X2APIC_LAST = 0x8ff,
    APIC_BASE_BSP = 1 << 8,
    APIC_BASE_X2APIC = 1 << 10,
    APIC_BASE_ENABLE = 1 << 11,
    SVR_ENABLE = 1 << 8,
    SVR_NO_EOI_BROADCAST = 1 << 12,
    LVT_VECTOR = 0xff,
    LVT_MODE = 7 << 8,
    LVT_PENDING = 1 << 12,
    LVT_POLARITY = 1 << 13,
    LVT_REMOTE_IRR = 1 << 14,
    LVT_LEVEL = 1 << 15,
    LVT_MASKED = 1 << 16,
    LVT_TIMER_MODE = 3 << 17,
    LVT_ONE_SHOT = 0,
    LVT_PERIODIC = 1 << 17,
    LVT_TSC_DEADLINE = 2 << 17,
    ESR_SEND_ILLEGAL_VECTOR = 1 << 5,
    ESR_RECEIVE_ILLEGAL_VECTOR = 1 << 6,
    ESR_ILLEGAL_REGISTER = 1 << 7,
};

static inline bool lapic_hardware_enabled(const struct lapic *lapic)
{
    return lapic->base & APIC_BASE_ENABLE;
}
static inline bool lapic_is_x2apic(const struct lapic *lapic)
{
    return lapic->base & APIC_BASE_X2APIC;
}

/* lapic.c */
void lapic_update(struct lapic *lapic); /* recomputes the output to the CPU */
void lapic_end_of_interrupt(struct lapic *lapic);
void lapic_raise_error(struct lapic *lapic, uint32_t esr_bit);
void lapic_deliver_lvt(struct lapic *lapic, enum lapic_lvt n); /* the LVT entry's event happened */
void lapic_send_ipi(struct lapic *lapic);                      /* what the ICR says */
void lapic_lint_changed(struct lapic *lapic);                  /* LINT0's LVT entry or enabling changed */
void lapic_reset_registers(struct lapic *lapic);               /* all but IA32_APIC_BASE */

/* lapic_timer.c */
void lapic_timer_setup(struct lapic *lapic);
void lapic_timer_stop(struct lapic *lapic);
void lapic_timer_set_count(struct lapic *lapic, uint32_t count);
void lapic_timer_set_divide(struct lapic *lapic, uint32_t divide);
void lapic_timer_set_lvt(struct lapic *lapic, uint32_t value);
uint32_t lapic_timer_current(const struct lapic *lapic);
void lapic_timer_set_deadline(struct lapic *lapic, uint64_t tsc);
void lapic_timer_restore(struct lapic *lapic);

#endif
