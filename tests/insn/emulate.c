/* Our side: a guest in 64-bit user mode with the child's address space, set up without any guest kernel. One
 * instruction is executed; a fault is looked at, not delivered. */
#include "tests/common/engine.h"
#include "tests/common/user_guest.h"
#include "tests/insn/insn_test.h"

#include <stdlib.h>
#include <string.h>

#define CODE_GPA 0x100000
#define DATA_GPA 0x101000

struct emulated {
    struct user_guest guest;
    uint8_t *data;
    uint8_t pattern[DATA_SIZE];
};

struct emulated *emulated_create(void)
{
    struct emulated *e = calloc(1, sizeof(*e));

    if (!e)
        abort();
    user_guest_init(&e->guest, native_has_avx(), native_has_fsgsbase());
    user_guest_map(&e->guest, CODE_BASE, CODE_GPA, USER_GUEST_WRITE | USER_GUEST_EXECUTE);
    for (uint64_t i = 0; i < DATA_SIZE; i += PAGE_SIZE)
        user_guest_map(&e->guest, DATA_BASE + i, DATA_GPA + i, i < DATA_WRITABLE ? USER_GUEST_WRITE : 0);
    memory_pattern(e->pattern);
    e->data = physmem_ram_pointer(e->guest.physmem, DATA_GPA, DATA_SIZE);
    memcpy(e->data, e->pattern, DATA_SIZE);
    return e;
}

void emulated_destroy(struct emulated *e)
{
    user_guest_free(&e->guest);
    free(e);
}

const struct cpuid_model *emulated_model(const struct emulated *e)
{
    return e->guest.model;
}

/* ---- One case ---- */

static void load_state(struct cpu *cpu, const struct machine_state *state)
{
    memcpy(cpu->gpr, state->gpr, sizeof(state->gpr));
    cpu->cpu_rip = state->rip;
    cpu_set_rflags(cpu, state->rflags);
    cpu->segs[SEG_FS].base = state->fs_base;
    cpu->segs[SEG_GS].base = state->gs_base;
    memset(cpu->vector.vec, 0, sizeof(cpu->vector.vec));
    for (unsigned i = 0; i < 16; i++)
        memcpy(cpu->vector.vec[i], state->ymm[i], 32);
    memcpy(&cpu->vector.fx, &state->fx, sizeof(state->fx));
    cpu->interrupt_shadow = false;
    cpu->pending_debug = 0;
    cpu->cr2 = 0;
}

static void store_state(const struct cpu *cpu, struct machine_state *state)
{
    memcpy(state->gpr, cpu->gpr, sizeof(state->gpr));
    state->rip = cpu->cpu_rip;
    state->rflags = cpu->rflags;
    state->fs_base = cpu->segs[SEG_FS].base;
    state->gs_base = cpu->segs[SEG_GS].base;
    for (unsigned i = 0; i < 16; i++)
        memcpy(state->ymm[i], cpu->vector.vec[i], 32);
    memcpy(&state->fx, &cpu->vector.fx, sizeof(state->fx));
}

void emulated_run(struct emulated *e, const struct insn_case *test, struct insn_result *result)
{
    struct cpu *cpu = e->guest.cpu;

    memcpy(e->data, e->pattern, DATA_WRITABLE);
    memory_patch_apply(test, e->data);
    physmem_write(e->guest.physmem, CODE_GPA + test->code_offset, test->bytes,
                  MIN(sizeof(test->bytes), PAGE_SIZE - test->code_offset));
    load_state(cpu, &test->state);
    enum step step = test_step_whole(cpu, 1000);
    /* Where a branch goes is fetched from, to see the fault there. */
    if (step != STEP_FAULT && cpu->cpu_rip - CODE_BASE >= PAGE_SIZE && test->branches)
        step = test_step_whole(cpu, 1000);
    result->outcome = (struct outcome){ .vector = OUTCOME_NONE };
    if (step == STEP_FAULT)
        result->outcome = (struct outcome){
            .vector = cpu->fault.vector,
            .error = cpu->fault.error,
            .cr2 = cpu->fault.vector == VECTOR_PF ? cpu->fault.address : 0,
        };
    store_state(cpu, &result->state);
    memory_find_change(test, e->pattern, e->data, result);
}
