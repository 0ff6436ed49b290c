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

#define RETRIES_MAX  8
#define SLICE_BLOCKS 32

/* ---- Running once ---- */

static enum step run_once(struct lockstep *ls, enum lockstep_reason reason)
{
    ls->not_compared[reason]++;
    ls->memory.stale = true;
    ls->jit->system_call.valid = 0; /* it may be WRMSR */
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

bool lockstep_is_unfinished(enum step step)
{
    return step == STEP_FAULT || step == STEP_REPEAT;
}

static void run_translated(struct lockstep *ls, const struct lockstep_plan *plan, struct lockstep_outcome *out)
{
    uint64_t stray_faults = ls->jit->stray_faults;

    *out = (struct lockstep_outcome){ 0 };
    out->step = jit_enter_single(ls->jit, plan->block, &out->executed);
    out->fault = ls->cpu->fault;
    out->host_fault = ls->jit->stray_faults != stray_faults;
}

static gva_t next_rip(const struct cpu *cpu, const struct iop *op)
{
    return (cpu->cpu_rip + op->insn.length) & iop_ip_mask(op);
}

bool lockstep_interpret(struct lockstep *ls, const struct lockstep_op *op, struct lockstep_outcome *out)
{
    struct cpu *cpu = ls->cpu;
    gva_t next = next_rip(cpu, &op->iop);

    ls->last = op->iop.insn;
    out->last = &ls->last;
    if (unlikely(lockstep_withholds(ls, &op->iop.insn, !out->executed))) {
        out->step = STEP_FAULT;
        return false;
    }
    if (out->undefined && op->iop.insn.row && (op->iop.insn.row->flags_read & out->undefined))
        out->leaked = true;
    while ((out->step = op->iop.fn(cpu, &op->iop)) == STEP_REPEAT && out->executed < out->complete)
        cpu->rflags &= ~(uint64_t)FLAG_RF;
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
    unsigned tries = MIN(translated->executed + lockstep_is_unfinished(translated->step), (unsigned)plan->count);

    *out = (struct lockstep_outcome){ .step = STEP_NEXT, .complete = translated->executed };
    while (tries-- && lockstep_interpret(ls, &plan->ops[out->executed], out))
        ;
    cpu_park_vectors(ls->cpu);
    out->fault = ls->cpu->fault;
}

/* ---- Comparing ---- */

static bool faults_equal(const struct fault *a, const struct fault *b)
{
    return a->vector == b->vector && a->error == b->error && (a->vector != VECTOR_PF || a->address == b->address);
}

static bool outcomes_equal(const struct lockstep_outcome *translated, const struct lockstep_outcome *interpreted)
{
    bool unfinished = lockstep_is_unfinished(translated->step) || lockstep_is_unfinished(interpreted->step);

    if (translated->host_fault || translated->executed != interpreted->executed ||
        (unfinished && translated->step != interpreted->step))
        return false;
    return translated->step != STEP_FAULT || faults_equal(&translated->fault, &interpreted->fault);
}

#define ENTRY_A 0x20
#define ENTRY_D 0x40

/* A walk may set A for an access that is not made, and D if the block was left before it, to make it in another way. The return address of
 * a call that faults because of its target may have been stored: processors do it, the interpreter does not. */
static struct lockstep_tolerance tolerance(const struct lockstep *ls, const struct lockstep_outcome *out)
{
    struct lockstep_tolerance t = { .entry_bits = ENTRY_A };

    if (ls->jit->group_missed || out->step == STEP_FAULT)
        t.entry_bits |= ENTRY_D;
    if (out->step == STEP_FAULT && out->last && out->last->row &&
        (out->last->row->handler == HANDLER_call || out->last->row->handler == HANDLER_call_ind)) {
        t.size = out->last->operand_size;
        t.gva = ls->cpu->gpr[REG_RSP] - t.size;
    }
    return t;
}

static bool all_equal(struct lockstep *ls, const struct lockstep_outcome *translated,
                      const struct lockstep_outcome *out)
{
    struct lockstep_tolerance tolerated = tolerance(ls, out);

    return outcomes_equal(translated, out) && lockstep_state_equal(&ls->translated, &ls->interpreted, out->undefined) &&
           lockstep_memory_equal(ls, &tolerated);
}

/* A repeated string instruction stops when an event comes, which the translator alone may have seen, at a place that depends on the TLB. */
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

static void fail(struct lockstep *ls, const struct lockstep_plan *plan, const struct lockstep_outcome *translated,
                 const struct lockstep_outcome *interpreted)
{
    unsigned most = MAX(translated->executed, interpreted->executed) + 1;

    ls->failed = true;
    if (!ls->quiet)
        lockstep_report(ls, plan, translated, interpreted);
    ls->memory.phase = PHASE_FREE;
    if (plan || ls->again)
        return;
    lockstep_state_restore(ls->cpu, &ls->before);
    lockstep_memory_undo(ls);
    lockstep_slice_again(ls, most);
}

bool lockstep_run_both(struct lockstep *ls, const struct lockstep_plan *plan, struct lockstep_outcome *out)
{
    struct cpu *cpu = ls->cpu;
    struct lockstep_outcome translated;

    drop_x87_pointers(cpu);
    for (unsigned tries = 0;; tries++) {
        lockstep_state_save(cpu, &ls->before);
        lockstep_memory_begin(ls);
        if (plan)
            run_translated(ls, plan, &translated);
        else
            lockstep_slice_translated(ls, &translated);
        lockstep_state_save(cpu, &ls->translated);
        lockstep_state_restore(cpu, &ls->before);
        lockstep_memory_turn(ls);
        if (plan)
            run_interpreted(ls, plan, &translated, out);
        else
            lockstep_slice_interpreted(ls, &translated, out);
        lockstep_state_save(cpu, &ls->interpreted);
        if (likely(all_equal(ls, &translated, out))) {
            lockstep_memory_end(ls);
            return true;
        }
        bool full = ls->memory.full, leaked = out->leaked && !plan, event = may_have_met_event(ls, &translated, out);
        if (!full && !leaked && !event)
            break;
        ls->repeated++;
        lockstep_state_restore(cpu, &ls->before);
        lockstep_memory_undo(ls);
        if (leaked) {
            ls->leaked++;
            ls->by_blocks = out->executed;
            *out = (struct lockstep_outcome){ .step = STEP_NEXT };
            return true;
        }
        if (full || tries == RETRIES_MAX) { /* they need not have come to the end of the room at the same time */
            ls->memory.withheld = full ? REASON_PAGES : REASON_EVENT;
            *out = (struct lockstep_outcome){ .step = STEP_FAULT, .fault = { .vector = VECTOR_WITHHELD } };
            return true;
        }
    }
    fail(ls, plan, &translated, out);
    return false;
}

/* ---- A step ---- */

/* What is to be done after both have agreed. Nothing was executed, and not for a fault: false. */
static bool finish_step(struct lockstep *ls, const struct lockstep_outcome *out, enum step *step)
{
    ls->steps++;
    ls->compared += out->executed;
    ls->cpu->stats.instructions += out->executed;
    *step = out->step;
    if (out->step == STEP_REPEAT)
        return true;
    if (out->step != STEP_FAULT)
        return out->executed;
    if (out->fault.vector != VECTOR_WITHHELD) {
        *step = deliver(ls);
        return true;
    }
    /* The instruction may be a repeated one that has done a part: no interrupt before it is interpreted. But one that stores the
     * x87 pointers has done nothing: the next step begins with it. */
    *step = ls->memory.withheld == REASON_NONE ? STEP_NEXT : run_once(ls, ls->memory.withheld);
    return true;
}

/* `limit`: no more instructions than that. */
static enum step step_block(struct lockstep *ls, unsigned limit)
{
    enum lockstep_reason reason;
    struct lockstep_outcome out;
    enum step step;

    for (jit_mode_t more = 0;; more = MODE_NO_GROUPS) {
        struct lockstep_plan *plan = lockstep_plan_find(ls, limit, more, &reason);
        if (!plan)
            return reason == REASON_NONE ? deliver(ls) : run_once(ls, reason);
        if (!lockstep_run_both(ls, plan, &out))
            return STEP_EXIT;
        if (finish_step(ls, &out, &step))
            return step;
        if (!ls->jit->group_missed || more)
            return run_once(ls, REASON_UNTRANSLATED);
    }
}

static enum step step_slice(struct lockstep *ls)
{
    struct lockstep_outcome out;
    enum step step;

    if (ls->by_blocks) {
        uint64_t before = ls->compared;
        step = step_block(ls, BLOCK_MAX_INSNS);
        ls->by_blocks -= MIN(ls->compared - before, ls->by_blocks);
        return step;
    }
    if (!lockstep_run_both(ls, NULL, &out))
        return STEP_EXIT;
    return finish_step(ls, &out, &step) ? step : step_block(ls, BLOCK_MAX_INSNS);
}

/* `shadow`: one instruction before interrupts are looked at. */
static enum step step_once(struct lockstep *ls, bool shadow)
{
    if (!jit_can_run(ls->cpu))
        return run_once(ls, REASON_MODE);
    if (shadow || !ls->in_slices)
        return step_block(ls, shadow ? 1 : BLOCK_MAX_INSNS);
    return step_slice(ls);
}

static enum cpu_exit lockstep_run(struct cpu *cpu)
{
    struct lockstep *ls = jit_of(cpu)->lockstep;

    jit_signal_enter(ls->jit);
    ls->memory.stale = true; /* loaders, resets */
    ls->jit->system_call.valid = 0;
    for (;;) {
        bool shadow = cpu->interrupt_shadow || cpu->debug_shadow;
        atomic_store(&cpu->quiet, 1);
        if (unlikely(interp_attention_needed(cpu))) {
            ls->memory.stale = true;
            if (!interp_attend(cpu))
                return cpu->activity == CPU_SHUTDOWN ? CPU_EXIT_TRIPLE_FAULT : CPU_EXIT_STOPPED;
        }
        if (unlikely(step_once(ls, shadow) == STEP_EXIT))
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

static int create(struct cpu *cpu, bool in_slices, struct error *err)
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
    ls->in_slices = ls->jit->slices = in_slices;
    ls->budget = SLICE_BLOCKS;
    ls->jit->has_stats |= in_slices; /* instructions are counted */
    lockstep_watch(ls);
    return 0;
}

static int create_slices(struct cpu *cpu, struct error *err)
{
    return create(cpu, true, err);
}

static int create_blocks(struct cpu *cpu, struct error *err)
{
    return create(cpu, false, err);
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
    .create = create_slices,
    .destroy = lockstep_destroy,
    .run = lockstep_run,
    .flush = lockstep_flush,
};

const struct engine lockstep_blocks_engine = {
    .name = "lockstep-blocks",
    .create = create_blocks,
    .destroy = lockstep_destroy,
    .run = lockstep_run,
    .flush = lockstep_flush,
};
