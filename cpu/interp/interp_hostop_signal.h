/* Recovery from faults in host-op stubs. A header of its own, since <ucontext.h> and cpu/decode/insn.h
 * have names in common (REG_RAX ...). */
#ifndef EIDOLON_CPU_INTERP_INTERP_HOSTOP_SIGNAL_H
#define EIDOLON_CPU_INTERP_INTERP_HOSTOP_SIGNAL_H

#include "base/types.h"

#define HOSTOP_STUB_SIZE 128 /* room for one stub; its last byte is the offset of its exit path */

/* Bits 31:0 of a stub's result. */
enum hostop_outcome {
    HOSTOP_DONE,
    HOSTOP_FP_EXCEPTION, /* SIGFPE: an unmasked exception */
    HOSTOP_ILLEGAL,      /* SIGILL */
    HOSTOP_BAD_ACCESS,   /* SIGSEGV, SIGBUS */
};

/* Diverts SIGFPE, SIGSEGV, SIGBUS and SIGILL raised in [begin, begin + size) to the exit path of the stub, with
 * an enum hostop_outcome in rax; what was installed before gets all others. Once per process, before the
 * first stub runs. */
void hostop_install_signals(const uint8_t *begin, size_t size);

#endif
