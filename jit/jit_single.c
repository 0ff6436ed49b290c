/* Single blocks: translated, run once without chaining, thrown away. For tests and the lockstep engine.
 *
 * vCPU thread only. */
#include "jit/jit_internal.h"

enum step jit_enter_single(struct jit *jit, struct jit_block *block, unsigned *executed)
{
    struct cpu *cpu = jit->cpu;

    jit->vpage = cpu->cpu_rip & PAGE_MASK;
    jit->t0 = cpu->cpu_rip;
    jit->flags_ax = ax_of_flags(cpu->rflags);
    jit->single_limit = block->insn_count;
    jit->single_block = block;
    jit->single_executed = 0;
    jit->group_missed = false;
    jit->exit_step = STEP_RESYNC;
    jit_load_flags(jit);
    jit->enter(jit->code.execute + block->hot);
    *executed = jit->single_executed;
    jit->single_limit = 0;
    jit->single_block = NULL;
    return jit->exit_step;
}

/* Translates what is at cpu_rip (target), runs it, and throws it away. STEP_EXIT: it cannot be translated. */
static enum step translate_and_run(struct jit *jit, const struct mmu_target *target, jit_mode_t mode,
                                   unsigned max_instructions, unsigned *executed)
{
    struct emitter hot = jit->hot, cold = jit->cold;
    uint32_t sites = jit->site_count;
    enum step step = STEP_EXIT;

    jit_page_acquire(jit, target->gpa);
    size_t used = jit->arena_used;
    struct jit_block *block =
        jit_translate(jit, target->gpa, target->host, PAGE_SIZE - (target->gpa & ~PAGE_MASK), mode, max_instructions);
    if (block)
        step = jit_enter_single(jit, block, executed);
    jit->hot = hot;
    jit->cold = cold;
    jit->site_count = sites;
    jit->arena_used = used;
    jit->generation++; /* predecoded instructions of the block are void */
    jit_page_release_if_empty(jit, target->gpa);
    return step;
}

enum step jit_run_single(struct jit *jit, unsigned max_instructions, unsigned *executed)
{
    struct cpu *cpu = jit->cpu;
    struct fault fault;
    struct mmu_target target;
    jit_mode_t mode = jit_current_mode(cpu) | MODE_SINGLE;
    bool user = cpu->cpl == 3;

    if (jit->flush_wanted)
        jit_cache_flush(jit);
    jit_cache_make_room(jit);
    if ((cpu->code_size == CODE64 && !is_canonical(cpu->cpu_rip)) ||
        mmu_translate(&cpu->mmu, cpu->cpu_rip, MMU_EXECUTE, user ? MMU_USER : MMU_SUPERVISOR, &target, &fault) ||
        !target.host)
        return interp_step_no_deliver(cpu);
    enum step step = translate_and_run(jit, &target, mode, max_instructions, executed);
    if (step == STEP_NEXT && jit->group_missed && !*executed)
        step = translate_and_run(jit, &target, mode | MODE_NO_GROUPS, max_instructions, executed);
    return step == STEP_EXIT ? interp_step_no_deliver(cpu) : step;
}
