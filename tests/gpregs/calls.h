/* What translated code calls, as functions that live_run can call: calls.c is compiled like the code under test. */
#ifndef EIDOLON_TESTS_GPREGS_CALLS_H
#define EIDOLON_TESTS_GPREGS_CALLS_H

#include "cpu/interp/interp_internal.h"

struct call {
    struct cpu *cpu;
    struct physmem *mem;
    /* Arguments, of those who take some. */
    gva_t gva;
    enum mmu_access access;
    enum mmu_privilege privilege;
    enum segment segment;
    uint16_t selector;
    uint8_t vector;
    unsigned size;
    uint64_t value;
    /* What came back. */
    struct mmu_target target;
    struct fault fault;
    int result;
    enum step step;
};

void call_translate(void *call);
void call_deliver_exception(void *call);
void call_deliver_interrupt(void *call);
void call_handle_events(void *call);
void call_load_segment(void *call);
void call_code_acquire(void *call);
void call_code_release(void *call);
void call_written(void *call);
void call_read(void *call);
void call_write(void *call);
void call_mmio_read(void *call);
void call_mmio_write(void *call);
void call_flush_all(void *call);
void call_run_pending(void *call);
void call_log(void *call);
void call_warn(void *call);
void call_step(void *call);       /* one instruction, not delivered */
void call_step_block(void *call); /* decodes one if there is none */
/* memcpy, memmove, memset, memcmp, and a structure that is copied and one that is cleared, of a size for which the
 * compiler makes up calls */
void call_memory(void *call);

#endif
