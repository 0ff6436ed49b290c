/* See engine.h. Any thread that runs the vCPU. */
#include "tests/common/engine.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "jit/jit.h"

#define BLOCK_INSTRUCTIONS 64 /* a translated block never has more */

bool test_engine_is_jit(void)
{
    const char *name = getenv("EIDOLON_ENGINE");

    if (!name || !*name || !strcmp(name, "interp"))
        return false;
    if (!strcmp(name, "jit"))
        return true;
    fprintf(stderr, "EIDOLON_ENGINE=%s: unknown engine; there are interp and jit\n", name);
    exit(2);
}

const struct engine *test_engine(void)
{
    return test_engine_is_jit() ? &jit_engine : &interp_engine;
}

static bool runs_jit(const struct cpu *cpu)
{
    return cpu->engine == &jit_engine;
}

enum step test_step_no_deliver(struct cpu *cpu)
{
    return runs_jit(cpu) ? jit_step_block(cpu, 1, NULL) : interp_step_no_deliver(cpu);
}

static enum step translated_step(struct cpu *cpu, unsigned instructions, uint64_t *executed)
{
    uint64_t interpreted = cpu->stats.instructions, rip = cpu->cpu_rip;
    unsigned translated = 0;
    enum step step = jit_step_block(cpu, instructions, &translated);

    if (step == STEP_FAULT && cpu->cpu_rip == rip)
        translated = 0; /* whoever ran it */
    if (executed && cpu->stats.instructions == interpreted)
        *executed += translated;
    return step == STEP_FAULT ? cpu_deliver_exception(cpu) : step;
}

enum step test_step(struct cpu *cpu, uint64_t *executed)
{
    return runs_jit(cpu) ? translated_step(cpu, 1, executed) : interp_step(cpu);
}

enum step test_step_block(struct cpu *cpu, uint64_t *executed)
{
    return runs_jit(cpu) ? translated_step(cpu, BLOCK_INSTRUCTIONS, executed) : interp_step_block(cpu);
}

enum step test_step_whole(struct cpu *cpu, unsigned rounds)
{
    enum step step = STEP_REPEAT;

    while ((step == STEP_REPEAT || step == STEP_RESYNC) && rounds--) {
        unsigned executed = 1;
        step = runs_jit(cpu) ? jit_step_block(cpu, 1, &executed) : interp_step_no_deliver(cpu);
        if (step == STEP_NEXT && !executed)
            step = STEP_REPEAT;
    }
    return step;
}
