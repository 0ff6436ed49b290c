/* The CPU fuzzer (tests/fuzz/fuzz_cpu.c), as it is, but with live vector registers: the linker sends its calls of what the
 * translator calls too through here. Compiled like the code under test. One thread. */
#include "cpu/interp/interp_internal.h"
#include "tests/fuzz/fuzz.h"
#include "tests/gpregs/live.h"

typedef enum step step_fn(struct cpu *cpu);

struct step_call {
    struct cpu *cpu;
    step_fn *fn;
    enum step step;
};

static void call_step(void *opaque)
{
    struct step_call *call = opaque;
    call->step = call->fn(call->cpu);
}

static enum step step_live(struct cpu *cpu, step_fn *fn, const char *name)
{
    struct step_call call = { .cpu = cpu, .fn = fn };
    uint64_t rip = cpu->cpu_rip;

    if (cpu_on_own_thread(cpu)) /* from within another one of these */
        return fn(cpu);
    if (live_run(cpu, call_step, &call, rip ^ cpu->stats.instructions << 20) > LIVE_PARKED)
        FUZZ_FAIL("%s at %llx: %s", name, (unsigned long long)rip, live_text);
    return call.step;
}

/* What the rig's devices begin with. */
uint64_t __real_fuzz_random(uint64_t *state);
uint64_t __wrap_fuzz_random(uint64_t *state);
uint64_t __wrap_fuzz_random(uint64_t *state)
{
    live_leaving("a device");
    return __real_fuzz_random(state);
}

#define STEP(name)                                                                                                     \
    step_fn __real_##name, __wrap_##name;                                                                              \
    enum step __wrap_##name(struct cpu *cpu)                                                                           \
    {                                                                                                                  \
        return step_live(cpu, __real_##name, #name);                                                                   \
    }
STEP(interp_step)
STEP(interp_step_no_deliver)
STEP(interp_step_block)
STEP(cpu_deliver_exception)
STEP(cpu_handle_events)
