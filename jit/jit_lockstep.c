/* The lockstep engine: every block runs on the translator, is undone, and runs on the interpreter; then registers, memory
 * and exceptions are compared. The first difference ends the program with a report (jit_lockstep_report.c). What the
 * interpreter has done is what counts for the guest.
 *
 * A step:
 *   1. The block at cpu_rip is translated, unchained (MODE_SINGLE), up to the first instruction that must not be run twice:
 *      port I/O, clocks, MSRs, control registers (jit_lockstep_plan.c). Such an instruction is run once, by the interpreter.
 *   2. Its translation runs. An access to a device's memory faults with VECTOR_WITHHELD before it is made, and ends the block
 *      like any fault. State and the pages that were written are kept, and put back as they were (jit_lockstep_memory.c).
 *   3. The interpreter's handlers execute as many instructions as the translation says that it has, and if that ended with a
 *      fault, one more, which has to fault with the same vector, error code and address.
 *   4. All registers, and all pages that either has written, are compared.
 *   5. A fault is delivered, once: exceptions, like interrupts, are delivered by the same code for all engines. A withheld
 *      access is made, by the interpreter.
 *
 * TLB: both runs share it. What the translator's run walked for is dropped before the interpreter's. Interrupts are looked at
 * between blocks only. One vCPU: nobody else may write to memory during a step, so devices that do that on a thread of their
 * own would be seen as differences.
 *
 * The vCPU's thread, with the vector state parked. */
#include "jit/jit_lockstep.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define RETRIES_MAX 8

/* ---- Running once ---- */

static enum step run_once(struct lockstep *ls, enum lockstep_reason reason)
{
    ls->not_compared[reason]++;
    ls->memory.stale = true;
    ls->cpu->stats.instructions++;
    return interp_step(ls->cpu);
}

static enum step deliver(struct lockstep *ls)
{
    ls->memory.stale = true;
    ls->exceptions++;
    return cpu_deliver_exception(ls->cpu);
}

/* ---- Running twice ---- */

static void run_translated(struct lockstep *ls, const struct lockstep_plan *plan, struct lockstep_outcome *out)
{
    uint64_t host_faults = ls->jit->stats.host_faults;

    *out = (struct lockstep_outcome){ 0 };
    out->step = jit_enter_single(ls->jit, plan->block, &out->executed);
    out->fault = ls->cpu->fault;
    out->host_fault = ls->jit->stats.host_faults != host_faults && out->step != STEP_FAULT;
}

/* Has the last instruction not retired? */
static bool is_unfinished(enum step step)
{
    return step == STEP_FAULT || step == STEP_REPEAT;
}

static gva_t next_rip(const struct cpu *cpu, const struct iop *op)
{
    return (cpu->cpu_rip + op->insn.length) & iop_ip_mask(op);
}

/* One instruction; true: it retired, and the next one of the plan follows it. */
static bool interpret_one(struct cpu *cpu, const struct lockstep_op *op, struct lockstep_outcome *out)
{
    gva_t next = next_rip(cpu, &op->iop);

    out->step = op->iop.fn(cpu, &op->iop);
    switch (out->step) {
    case STEP_NEXT:
    case STEP_END:
    case STEP_HALT:
        cpu->cpu_rip = next;
        break;
    case STEP_BRANCH:
        break;
    default:
        return false;
    }
    out->undefined = (out->undefined & ~(uint64_t)op->defines) | op->leaves_undefined;
    out->executed++;
    return cpu->cpu_rip == next;
}

static void run_interpreted(struct lockstep *ls, const struct lockstep_plan *plan,
                            const struct lockstep_outcome *translated, struct lockstep_outcome *out)
{
    struct cpu *cpu = ls->cpu;
    unsigned tries = MIN(translated->executed + is_unfinished(translated->step), (unsigned)plan->count);

    *out = (struct lockstep_outcome){ .step = STEP_NEXT };
    while (tries-- && interpret_one(cpu, &plan->ops[out->executed], out))
        ;
    cpu_park_vectors(cpu);
    out->fault = cpu->fault;
}

static bool faults_equal(const struct fault *a, const struct fault *b)
{
    return a->vector == b->vector && a->error == b->error && (a->vector != VECTOR_PF || a->address == b->address);
}

static bool outcomes_equal(const struct lockstep_outcome *translated, const struct lockstep_outcome *interpreted)
{
    bool unfinished = is_unfinished(translated->step) || is_unfinished(interpreted->step);

    if (translated->host_fault || translated->executed != interpreted->executed ||
        (unfinished && translated->step != interpreted->step))
        return false;
    return translated->step != STEP_FAULT || faults_equal(&translated->fault, &interpreted->fault);
}

#define ENTRY_A 0x20
#define ENTRY_D 0x40

/* A walk may set A for an access that is not made, and D if the block was left before it, to make it in another way. The return address of
 * a call that faults because of its target may have been stored: processors do it, the interpreter does not. */
static struct lockstep_tolerance tolerance(const struct lockstep *ls, const struct lockstep_plan *plan,
                                           const struct lockstep_outcome *out)
{
    struct lockstep_tolerance t = { .entry_bits = ENTRY_A };

    if (ls->jit->group_missed || out->step == STEP_FAULT)
        t.entry_bits |= ENTRY_D;
    if (out->step == STEP_FAULT && out->executed < plan->count) {
        const struct insn *insn = &plan->ops[out->executed].iop.insn;
        if (insn->row && (insn->row->handler == HANDLER_call || insn->row->handler == HANDLER_call_ind)) {
            t.size = insn->operand_size;
            t.gva = ls->cpu->gpr[REG_RSP] - t.size;
        }
    }
    return t;
}

static bool memory_equal(struct lockstep *ls, const struct lockstep_plan *plan, const struct lockstep_outcome *out)
{
    struct lockstep_tolerance tolerated = tolerance(ls, plan, out);

    return lockstep_memory_equal(ls, &tolerated);
}

/* A repeated string instruction stops when an event comes, which one of the two may have seen only. */
static bool may_have_met_event(const struct lockstep *ls, const struct lockstep_outcome *a,
                               const struct lockstep_outcome *b)
{
    return (a->step == STEP_REPEAT || b->step == STEP_REPEAT) && atomic_load(&ls->cpu->events);
}

/* The x87 pointers are not kept by translated code: nobody sees old ones. */
static void drop_x87_pointers(struct cpu *cpu)
{
    struct fxsave_area *fx = &cpu->vector.fx;

    fx->fop = 0;
    fx->fip = fx->fdp = 0;
}

/* True: both agree, and *out is what happened. */
static bool run_both(struct lockstep *ls, const struct lockstep_plan *plan, struct lockstep_outcome *out)
{
    struct cpu *cpu = ls->cpu;
    struct lockstep_outcome translated;

    drop_x87_pointers(cpu);
    for (unsigned tries = 0;; tries++) {
        lockstep_state_save(cpu, &ls->before);
        lockstep_memory_begin(ls);
        run_translated(ls, plan, &translated);
        lockstep_state_save(cpu, &ls->translated);
        lockstep_state_restore(cpu, &ls->before);
        lockstep_memory_turn(ls);
        run_interpreted(ls, plan, &translated, out);
        lockstep_state_save(cpu, &ls->interpreted);
        if (likely(outcomes_equal(&translated, out) &&
                   lockstep_state_equal(&ls->translated, &ls->interpreted, out->undefined) &&
                   memory_equal(ls, plan, out))) {
            lockstep_memory_end(ls);
            return true;
        }
        if (tries == RETRIES_MAX || !may_have_met_event(ls, &translated, out))
            break;
        ls->repeated++;
        lockstep_state_restore(cpu, &ls->before);
        lockstep_memory_undo(ls);
    }
    ls->failed = true;
    lockstep_report(ls, plan, &translated, out);
    ls->memory.phase = PHASE_FREE;
    return false;
}

static enum step step_once(struct lockstep *ls, bool single, jit_mode_t more);

static enum step compare_block(struct lockstep *ls, const struct lockstep_plan *plan)
{
    struct lockstep_outcome out;

    if (!run_both(ls, plan, &out))
        return STEP_EXIT;
    ls->blocks++;
    ls->compared += out.executed;
    ls->cpu->stats.instructions += out.executed;
    if (out.step == STEP_FAULT && out.fault.vector == VECTOR_WITHHELD)
        return run_once(ls, ls->memory.withheld);
    if (out.step == STEP_FAULT)
        return deliver(ls);
    if (!out.executed && ls->jit->group_missed)
        return step_once(ls, plan->limit == 1, MODE_NO_GROUPS);
    if (!out.executed && out.step != STEP_REPEAT)
        return run_once(ls, REASON_UNTRANSLATED);
    return out.step;
}

/* `single`: no more than one instruction, as after an interrupt shadow. */
static enum step step_once(struct lockstep *ls, bool single, jit_mode_t more)
{
    enum lockstep_reason reason;

    if (!jit_can_run(ls->cpu))
        return run_once(ls, REASON_MODE);
    struct lockstep_plan *plan = lockstep_plan_find(ls, single ? 1 : BLOCK_MAX_INSNS, more, &reason);
    if (plan)
        return compare_block(ls, plan);
    return reason == REASON_NONE ? deliver(ls) : run_once(ls, reason);
}

static enum cpu_exit lockstep_run(struct cpu *cpu)
{
    struct lockstep *ls = jit_of(cpu)->lockstep;

    jit_signal_enter(ls->jit);
    ls->memory.stale = true; /* loaders, resets */
    for (;;) {
        bool shadow = cpu->interrupt_shadow || cpu->debug_shadow;
        if (unlikely(interp_attention_needed(cpu))) {
            ls->memory.stale = true;
            if (!interp_attend(cpu))
                return cpu->activity == CPU_SHUTDOWN ? CPU_EXIT_TRIPLE_FAULT : CPU_EXIT_STOPPED;
        }
        if (unlikely(step_once(ls, shadow, 0) == STEP_EXIT))
            return ls->failed ? CPU_EXIT_ERROR : CPU_EXIT_TRIPLE_FAULT;
    }
}

/* ---- Life ---- */

static void free_lockstep(struct lockstep *ls)
{
    ls->cpu->mmu.watch = NULL;
    lockstep_memory_destroy(ls);
    if (ls->arena.base)
        host_memory_free(&ls->arena);
    free(ls);
}

static int lockstep_create(struct cpu *cpu, struct error *err)
{
    if (cpu->index)
        return error_set(err, EINVAL, "-accel lockstep compares one vCPU only: -smp 1");
    struct lockstep *ls = aligned_alloc(64, ALIGN_UP(sizeof(*ls), 64));
    if (!ls)
        return error_set(err, ENOMEM, "no memory for the lockstep engine");
    memset(ls, 0, sizeof(*ls));
    ls->cpu = cpu;
    int ret = lockstep_memory_create(ls, err);
    if (!ret)
        ret = host_memory_anonymous(&ls->arena, LOCKSTEP_ARENA, err);
    if (!ret)
        ret = jit_engine.create(cpu, err);
    if (ret) {
        free_lockstep(ls);
        return ret;
    }
    ls->jit = jit_of(cpu);
    ls->jit->lockstep = ls;
    lockstep_watch(ls);
    return 0;
}

static void lockstep_destroy(struct cpu *cpu)
{
    struct lockstep *ls = jit_of(cpu)->lockstep;

    lockstep_summary(ls);
    jit_engine.destroy(cpu);
    free_lockstep(ls);
}

static void lockstep_flush(struct cpu *cpu)
{
    jit_engine.flush(cpu);
}

const struct engine lockstep_engine = {
    .name = "lockstep",
    .create = lockstep_create,
    .destroy = lockstep_destroy,
    .run = lockstep_run,
    .flush = lockstep_flush,
};
