/* Runs code as translated code does: with the guest's vector, mask and x87 registers in the host's. It must leave them as
 * they are, or have them parked before. */
#ifndef EIDOLON_TESTS_GPREGS_LIVE_H
#define EIDOLON_TESTS_GPREGS_LIVE_H

#include "cpu/cpu.h"

enum live_result {
    LIVE_KEPT,    /* the registers are live to the end, and unchanged */
    LIVE_PARKED,  /* parked, with the right values */
    LIVE_CHANGED, /* wrong: live to the end, but not what they were, or something was written to cpu->vector */
    LIVE_LATE,    /* wrong: parked when they had been changed already */
    LIVE_LEFT,    /* wrong: code that may change them was called without parking: live_name */
};

/* Calls fn(argument) on `cpu`'s thread with registers that depend on `seed`. fn is compiled like the code under test.
 * What is wrong is described in live_text. */
enum live_result live_run(struct cpu *cpu, void (*fn)(void *argument), void *argument, uint64_t seed);
extern char live_text[256];

/* leaving.c, for the emulator, and live.c, for tests: called before code that may change vector registers. */
void live_leaving(const char *name);

#endif
