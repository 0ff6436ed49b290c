/* The local APIC and the IOAPIC, for images that need interrupts. */
#ifndef TESTS_GUEST_RUNTIME_APIC_H
#define TESTS_GUEST_RUNTIME_APIC_H

#include "guest.h"

enum {
    APIC_ID = 0x20,
    APIC_VERSION = 0x30,
    APIC_TPR = 0x80,
    APIC_PPR = 0xa0,
    APIC_EOI = 0xb0,
    APIC_LDR = 0xd0,
    APIC_DFR = 0xe0,
    APIC_SPURIOUS = 0xf0,
    APIC_ISR = 0x100,
    APIC_IRR = 0x200,
    APIC_ESR = 0x280,
    APIC_ICR = 0x300,
    APIC_ICR_HIGH = 0x310,
    APIC_TIMER = 0x320,
    APIC_LINT0 = 0x350,
    APIC_LINT1 = 0x360,
    APIC_ERROR = 0x370,
    APIC_COUNT = 0x380,
    APIC_CURRENT = 0x390,
    APIC_DIVIDE = 0x3e0,
};
enum {
    MASKED = 1 << 16,
    PERIODIC = 1 << 17,
    DEADLINE = 2 << 17,
    SELF = 1 << 18,
    NMI_DELIVERY = 4 << 8,
    EXTINT = 7 << 8
};

static inline volatile u32 *apic(unsigned offset)
{
    return FRAME32(0xfee00000 + offset);
}
static inline int apic_bit(unsigned base, unsigned vector)
{
    return *apic(base + vector / 32 * 16) >> vector % 32 & 1;
}

static volatile word counts[256], last_vector, order;

static inline void count(struct regs *regs)
{
    counts[regs->vector]++;
    last_vector = regs->vector;
    order = order << 8 | regs->vector;
    *apic(APIC_EOI) = 0;
}

static inline void expect_vector(unsigned vector)
{
    handlers[vector] = count;
    counts[vector] = 0;
    order = 0;
}

static inline void open_window(void)
{
    __asm__ volatile("sti; nop; nop; cli" : : : "memory");
}

/* The end of a case with handlers: what is still pending is handled while they are there. */
static inline void drained(void)
{
    for (unsigned i = 0; i < 4; i++)
        open_window();
    done();
}

/* Interrupts on, until `counts[vector]` has reached n; gives up after some seconds of guest time. */
static inline int wait_count(unsigned vector, word n)
{
    for (u64 start = rdtsc(); counts[vector] < n;) {
        open_window();
        if (rdtsc() - start > 20000000000ull)
            return 0;
    }
    return 1;
}

static inline void wait_ticks(u32 ticks)
{
    /* a masked one-shot run of the APIC timer measures time */
    u32 lvt = *apic(APIC_TIMER);

    *apic(APIC_TIMER) = MASKED | 0x50;
    *apic(APIC_COUNT) = ticks;
    while (*apic(APIC_CURRENT))
        ;
    *apic(APIC_TIMER) = lvt;
}

static inline void reset_apic(void)
{
    *apic(APIC_SPURIOUS) = 0x1ff;
    *apic(APIC_TPR) = 0;
    *apic(APIC_TIMER) = MASKED | 0x50;
    *apic(APIC_COUNT) = 0;
    *apic(APIC_DIVIDE) = 0xb; /* by 1 */
    *apic(APIC_LINT0) = MASKED;
    *apic(APIC_LINT1) = MASKED;
    *apic(APIC_ERROR) = MASKED | 0x5e;
    *apic(APIC_ESR) = 0;
}

static inline void self_ipi(u32 vector)
{
    *apic(APIC_ICR) = SELF | vector;
}

/* ---- IOAPIC ---- */

static inline u32 ioapic_read(u8 reg)
{
    *FRAME32(0xfec00000) = reg;
    return *FRAME32(0xfec00010);
}

static inline void ioapic_write(u8 reg, u32 value)
{
    *FRAME32(0xfec00000) = reg;
    *FRAME32(0xfec00010) = value;
}

static inline void route(unsigned pin, u32 low)
{
    ioapic_write((u8)(0x11 + 2 * pin), 0);
    ioapic_write((u8)(0x10 + 2 * pin), low);
}

static inline void reset_interrupt_controllers(void)
{
    reset_apic();
    for (unsigned pin = 0; pin < 24; pin++)
        route(pin, MASKED);
}

#endif
