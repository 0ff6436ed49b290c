/* Debug registers: hardware breakpoints and single-stepping (SDM Vol. 3B chapter 18).
 *
 * What an engine does. While cpu_needs_stepping() holds it executes instruction by instruction:
 *   1. unless RF is set: bits = debug_check_fetch(address); if bits, deliver them with debug_raise (a fault);
 *   2. debug_step_begin(), execute, debug_step_end() if the instruction completed (or a REP iteration did).
 * Data accesses call debug_check_data while cpu->data_breakpoints. What these find is collected in cpu->pending_debug,
 * which cpu_handle_events delivers as a trap at the next instruction boundary. */
#ifndef EIDOLON_CPU_DEBUG_H
#define EIDOLON_CPU_DEBUG_H

#include "cpu/cpu.h"

enum {
    DR6_BD = 1 << 13,
    DR6_BS = 1 << 14,
    DR6_BT = 1 << 15,
    DR6_RESET = 0xffff0ff0u,
    DR7_RESET = 0x400,
    DR7_GD = 1 << 13,
};

static inline bool cpu_needs_stepping(const struct cpu *cpu)
{
    return unlikely((cpu->rflags & (FLAG_TF | FLAG_RF)) ||
                    (cpu->code_breakpoints | cpu->data_breakpoints | cpu->io_breakpoints));
}

/* DR6 bits (B0..B3) of the enabled instruction breakpoints at a linear address. */
uint64_t debug_check_fetch(const struct cpu *cpu, gva_t gva);
/* Fills cpu->fault with a #DB that reports `bits`; returns -1. */
int debug_raise(struct cpu *cpu, uint64_t bits);
/* Notes matching data and I/O breakpoints in pending_debug. */
void debug_check_data(struct cpu *cpu, gva_t gva, unsigned size, bool write);
void debug_check_io(struct cpu *cpu, uint16_t port, unsigned size);
/* After DR7 or CR4.DE changed: recomputes data_, code_ and io_breakpoints. */
void debug_update(struct cpu *cpu);

static inline void debug_step_begin(struct cpu *cpu)
{
    cpu->step_trap = cpu->rflags & FLAG_TF;
}
/* The instruction has retired: RF ends, and the single-step trap becomes pending. `keep_rf`: IRET has set RF for the
 * instruction after it; an iteration of a repeated string instruction, but the last, leaves it set. */
static inline void debug_step_end(struct cpu *cpu, bool keep_rf)
{
    if (!keep_rf)
        cpu->rflags &= ~(uint64_t)FLAG_RF;
    if (cpu->step_trap)
        cpu->pending_debug |= DR6_BS;
    cpu->step_trap = false;
}

#endif
