/* A periodic interrupt, for images that test where and how interrupts are taken in code that does not end by itself. */
#ifndef TESTS_GUEST_RUNTIME_SOUNDNESS_TICKS_H
#define TESTS_GUEST_RUNTIME_SOUNDNESS_TICKS_H

#include "apic.h"
#include "soundness.h"

/* KHZ: the count for 1 kHz; the timers of this board and of QEMU's count nanoseconds. */
enum { TICK = 0x50, END_AT = 0xff0, KHZ = 1000000 };

/* For handlers: the interrupted probe ends here. */
static inline void end_probe(struct regs *regs)
{
    regs->rip = (regs->cs & 3 ? UCODE_PAGE : CODE_PAGE) + END_AT;
    regs->rflags &= ~(word)(IF | TF);
}

/* The handler has to say EOI. */
static inline void start_ticks(handler_fn *handler, u32 period)
{
    handlers[TICK] = handler;
    set_gate_type(TICK, KCS, TYPE_INTERRUPT_GATE, 1); /* the probes' stack pointers are wild */
    FRAME8(CODE_FRAME)[END_AT] = 0xcd;                /* INT 0x40: the same in 32-bit code */
    FRAME8(CODE_FRAME)[END_AT + 1] = 0x40;
    reset_apic();
    *apic(APIC_TIMER) = PERIODIC | TICK;
    *apic(APIC_COUNT) = period;
}

static inline void stop_ticks(void)
{
    reset_apic();
    handlers[TICK] = count; /* one may be pending still */
    open_window();
    open_window();
}

#endif
