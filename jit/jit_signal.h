/* Host signals in translated code. A header without cpu/decode/insn.h, whose names <ucontext.h> has too. */
#ifndef EIDOLON_JIT_JIT_SIGNAL_H
#define EIDOLON_JIT_JIT_SIGNAL_H

#include "base/types.h"

struct jit;
struct jit_signal_region {
    struct jit *jit;
    uintptr_t code, code_size;   /* the executable view */
    uintptr_t guard, guard_size; /* below the return stack */
    uintptr_t thunk_fault;
    uint64_t return_base;
};

#define JIT_SIGILL 4 /* SIGILL: <signal.h> has names of registers that are the translator's, too */

void jit_signal_install(void);                                      /* once per process */
void jit_signal_set_region(const struct jit_signal_region *region); /* of this thread */

/* jit_signal_glue.c, called by the handler */
void jit_signal_return_stack_lost(struct jit *jit);
/* False: no guest instruction is there. */
bool jit_signal_note_fault(struct jit *jit, int number, uintptr_t pc, const long long *registers);
void jit_signal_report(const struct jit *jit, uintptr_t pc, const long long *registers);

#endif
