/* Which engine a test runs on: EIDOLON_ENGINE=interp (the default) or jit. The same steps on either, so that a test
 * that was written for one serves the other. */
#ifndef EIDOLON_TESTS_COMMON_ENGINE_H
#define EIDOLON_TESTS_COMMON_ENGINE_H

#include "cpu/interp/interp_internal.h"

/* Ends the program with a message if the name is unknown. */
const struct engine *test_engine(void);
bool test_engine_is_jit(void);

/* One instruction at cpu_rip, events not looked at. A fault is left in cpu->fault (STEP_FAULT, nothing committed). What is
 * returned otherwise says only that it ran: engines differ in which of STEP_NEXT, STEP_BRANCH and STEP_END they say. */
enum step test_step_no_deliver(struct cpu *cpu);
/* The same, and delivers the fault. *executed, if not NULL, grows by the instructions that cpu->stats.instructions does
 * not count. */
enum step test_step(struct cpu *cpu, uint64_t *executed);
/* A block of the engine's own choice. */
enum step test_step_block(struct cpu *cpu, uint64_t *executed);
/* The whole of one instruction, all repetitions of a string instruction included (at most `rounds` parts). */
enum step test_step_whole(struct cpu *cpu, unsigned rounds);

#endif
