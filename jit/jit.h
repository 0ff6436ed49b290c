/* The translator: guest blocks to host code (docs/design.md, section 5). */
#ifndef EIDOLON_JIT_JIT_H
#define EIDOLON_JIT_JIT_H

#include <stdio.h>

#include "cpu/cpu.h"
#include "cpu/interp/interp_internal.h"

extern const struct engine jit_engine;
extern const struct engine lockstep_engine, lockstep_blocks_engine; /* compare chained code, or single blocks */

/* For tests and the lockstep engine: runs one translated block of at most `max_instructions` at cpu_rip (exact), unchained;
 * events are not looked at. State is exact and parked on return: STEP_NEXT (cpu_rip is the next instruction's), STEP_FAULT
 * with cpu->fault filled and not delivered (cpu_rip is the instruction's), or what a handler returned (STEP_HALT, STEP_EXIT).
 * *executed, if not NULL: how many instructions retired, a faulting one not counted. What cannot be translated (16-bit code)
 * is interpreted. */
enum step jit_step_block(struct cpu *cpu, unsigned max_instructions, unsigned *executed);

/* Who is told of new blocks (NULL: nobody); before the vCPU runs. Without effect on other engines. */
struct jit_tools;
void jit_set_tools(struct cpu *cpu, struct jit_tools *tools);

/* Prints what -d jitstats and -d op_stats ask for. Without effect on other engines. */
void jit_log_stats(const struct cpu *cpu);

#endif
