/* What far returns and IRET share (interp_far.c): the checks of what was popped, and the commit. */
#ifndef EIDOLON_CPU_INTERP_INTERP_FAR_H
#define EIDOLON_CPU_INTERP_INTERP_FAR_H

#include "cpu/interp/interp_internal.h"
#include "cpu/system_internal.h"

int far_check_offset(struct cpu *cpu, const struct segment_register *cs, uint64_t offset);
bool far_reserved_code(const struct cpu *cpu, const struct descriptor *d);
/* CS of a return: its RPL is the privilege level that is returned to. 0 or -1. */
int far_check_return_code(struct cpu *cpu, uint16_t selector, uint64_t offset, struct segment_register *cs);
/* SS of a return to `cs`. 0 or -1. */
int far_check_return_stack(struct cpu *cpu, uint16_t selector, const struct segment_register *cs,
                           struct segment_register *ss);
/* ss == NULL: the stack segment stays, only the pointer changes. */
void far_return_commit(struct cpu *cpu, const struct segment_register *cs, uint64_t ip,
                       const struct segment_register *ss, uint64_t sp);

#endif
