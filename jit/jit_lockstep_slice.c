/* Slices: chained code as the jit engine runs it, compared with the interpreter after a number of blocks. Links, return
 * stack, jump cache, flags that are handed from block to block, system calls without C: all that is only there when blocks follow
 * one another is part of what is compared. For this the translator counts instructions as it does for statistics, and looks at a budget
 * at the beginning of each block (emit_budget).
 *
 * A slice ends when the budget is spent, at an instruction that must not be run twice, at a fault, and wherever translated
 * code returns to its engine. The interpreter follows: as many instructions, wherever they lead.
 *
 * If there is a difference, the same instructions are run again from the same state: with one block, two and so on, which tells the
 * first that is wrong, and unchained.
 *
 * Vector state is parked. vCPU thread only. */
#include "jit/jit_lockstep.h"

/* ---- The translator ---- */

void lockstep_slice_translated(struct lockstep *ls, struct lockstep_outcome *out)
{
    struct jit *jit = ls->jit;
    uint64_t stray_faults = jit->stray_faults;
    bool faulted;

    *out = (struct lockstep_outcome){ .step = STEP_NEXT };
    const void *entry = jit_find_entry(jit, &faulted);
    if (!entry)
        return;
    jit->budget = ls->budget;
    ls->slice_start = jit->executed;
    jit_load_flags(jit);
    jit->enter(entry);
    out->step = jit->exit_step;
    bool retired = !lockstep_is_unfinished(out->step) && out->step != STEP_RESYNC;
    out->executed = (unsigned)(jit->executed - ls->slice_start) - !retired;
    out->fault = ls->cpu->fault;
    out->host_fault = jit->stray_faults != stray_faults;
}

/* ---- The interpreter ---- */

static void note_trace(struct lockstep *ls, const struct lockstep_plan *plan, gva_t rip, unsigned count)
{
    struct lockstep_trace *entry = &ls->trace[ls->trace_count++ % LOCKSTEP_TRACE];

    *entry = (struct lockstep_trace){ rip, plan->gpa, plan->mode & MODE_KEY, count };
}

/* Executes at most `tries` instructions of the plan; false: that is the end. A store may change the plan's own code: what
 * follows is looked up again. */
static bool follow_plan(struct lockstep *ls, const struct lockstep_plan *plan, unsigned tries,
                        struct lockstep_outcome *out)
{
    struct cpu *cpu = ls->cpu;
    gva_t rip = cpu->cpu_rip;
    unsigned before = out->executed;
    bool goes_on = true;

    for (unsigned i = 0; goes_on && plan->block->valid && i < MIN(tries, (unsigned)plan->count); i++) {
        cpu->interrupt_shadow = cpu->debug_shadow = false; /* as between any two instructions: nothing was due */
        unsigned executed = out->executed;
        goes_on = lockstep_interpret(ls, &plan->ops[i], out);
        if (out->executed == executed)
            break;
    }
    note_trace(ls, plan, rip, out->executed - before);
    return out->executed != before && !lockstep_is_unfinished(out->step) && out->step != STEP_RESYNC;
}

/* An instruction that no plan begins with. */
static void try_withheld(struct lockstep *ls, enum lockstep_reason reason, struct lockstep_outcome *out)
{
    ls->memory.withheld = reason;
    out->step = STEP_FAULT;
    out->fault = (struct fault){ .vector = VECTOR_WITHHELD };
}

void lockstep_slice_interpreted(struct lockstep *ls, const struct lockstep_outcome *translated,
                                struct lockstep_outcome *out)
{
    unsigned wanted = translated->executed + lockstep_is_unfinished(translated->step);

    *out = (struct lockstep_outcome){ .step = STEP_NEXT, .complete = translated->executed };
    ls->trace_count = 0;
    while (out->executed < wanted) {
        enum lockstep_reason reason;
        const struct lockstep_plan *plan = lockstep_plan_find(ls, BLOCK_MAX_INSNS, 0, &reason);
        if (!plan && reason != REASON_NONE) {
            try_withheld(ls, reason, out);
            return;
        }
        if (!plan || !follow_plan(ls, plan, wanted - out->executed, out))
            break;
    }
    cpu_park_vectors(ls->cpu);
    out->fault = ls->cpu->fault;
}

/* ---- After a difference ---- */

static void with_fewer_blocks(struct lockstep *ls)
{
    struct lockstep_outcome out;
    unsigned all = ls->budget;

    ls->quiet = true;
    for (ls->budget = 1; ls->budget < all; ls->budget++) {
        bool equal = lockstep_run_both(ls, NULL, &out);
        lockstep_state_restore(ls->cpu, &ls->before);
        lockstep_memory_undo(ls);
        if (!equal)
            break;
    }
    ls->quiet = false;
    if (ls->budget == all) {
        lockstep_say("run again, with fewer blocks: no difference");
        return;
    }
    lockstep_say("run again, with the fewest blocks that make a difference:");
    lockstep_run_both(ls, NULL, &out);
    lockstep_state_restore(ls->cpu, &ls->before);
    lockstep_memory_undo(ls);
}

static void unchained(struct lockstep *ls, uint64_t instructions)
{
    uint64_t executed = 0;
    jit_mode_t more = 0;

    lockstep_say("run again, unchained:");
    while (executed < instructions) {
        enum lockstep_reason reason;
        struct lockstep_outcome out;
        const struct lockstep_plan *plan = lockstep_plan_find(ls, BLOCK_MAX_INSNS, more, &reason);
        if (!plan)
            break;
        if (!lockstep_run_both(ls, plan, &out))
            return;
        executed += out.executed;
        if (lockstep_is_unfinished(out.step) || (!out.executed && more))
            break;
        more = out.executed ? 0 : MODE_NO_GROUPS;
    }
    lockstep_say("no difference when blocks are not chained");
}

void lockstep_slice_again(struct lockstep *ls, uint64_t instructions)
{
    if (ls->again)
        return;
    ls->again = true;
    with_fewer_blocks(ls);
    unchained(ls, instructions);
}
