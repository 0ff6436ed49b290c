/* The interpreter engine: the run loop, exceptions at instruction boundaries, events between blocks,
 * single steps, and the listener that keeps decoded blocks coherent with memory.
 *
 * cpu_rip is the start of the running block while a handler runs and exact everywhere else. The vCPU's
 * thread runs all of this; listeners may be called on other threads, which then queue
 * work for it. */
#include "cpu/interp/interp_block.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/host_memory.h"

#define ARENA_SIZE (64 * MIB)

/* ---- The table ---- */

iop_fn *const interp_handlers[HANDLER_COUNT] = {
#define HANDLER(name) [HANDLER_##name] = interp_##name,
#include "cpu/decode/handlers.def"
#undef HANDLER
};

/* ---- Stand-ins ---- */

enum step interp_op_block_end(struct cpu *cpu, const struct iop *op)
{
    cpu->cpu_rip = iop_ip(cpu, op);
    return (enum step)STEP_BLOCK_END;
}

enum step interp_op_stale(struct cpu *cpu, const struct iop *op)
{
    (void)cpu;
    (void)op;
    return STEP_RESYNC;
}

enum step interp_op_invalid(struct cpu *cpu, const struct iop *op)
{
    (void)op;
    return step_fault(cpu, VECTOR_UD, 0);
}

enum step interp_op_too_long(struct cpu *cpu, const struct iop *op)
{
    (void)op;
    return step_fault(cpu, VECTOR_GP, 0);
}

enum step interp_op_privileged(struct cpu *cpu, const struct iop *op)
{
    (void)op;
    return step_fault(cpu, VECTOR_GP, 0);
}

enum step interp_ud(struct cpu *cpu, const struct iop *op)
{
    (void)op;
    return step_fault(cpu, VECTOR_UD, 0);
}

/* A row that is in the table but not here yet: never silently wrong. */
enum step interp_unimplemented(struct cpu *cpu, const struct iop *op)
{
    cpu->stats.unimplemented++;
    log_event(unimp, "%s at %016llx is not implemented: #UD\n", op->insn.row->mnemonic,
              (unsigned long long)iop_ip(cpu, op));
    return step_fault(cpu, VECTOR_UD, 0);
}

/* ---- Running ---- */

/* Runs ops from block->ops until one does not return STEP_NEXT; leaves cpu_rip exact (for a fault: at the
 * instruction). *last is the instruction that ended it. */
static enum step run_block(struct cpu *cpu, struct block *block, const struct iop **last)
{
    const struct iop *op = block->ops;
    enum step step;

    while (likely((step = op->fn(cpu, op)) == STEP_NEXT))
        op++;
    *last = op;
    cpu->stats.blocks_run++;
    cpu->stats.instructions += (uint64_t)(op - block->ops);
    switch ((int)step) {
    case STEP_BLOCK_END:
        return STEP_NEXT;
    case STEP_END:
    case STEP_HALT:
        cpu->cpu_rip = iop_next_ip(cpu, op);
        break;
    case STEP_FAULT:
    case STEP_RESYNC:
        cpu->cpu_rip = iop_ip(cpu, op);
        return step;
    default: /* BRANCH, REPEAT, EXIT: set by the handler */
        break;
    }
    cpu->stats.instructions++;
    return step;
}

/* One instruction with the debug facilities (cpu/debug.h); the fault, if any, is not delivered. */
static enum step step_instruction(struct interp *interp)
{
    struct cpu *cpu = interp->cpu;
    gva_t linear = cpu->code_size == CODE64 ? cpu->cpu_rip : (uint32_t)(cpu->segs[SEG_CS].base + cpu->cpu_rip);
    uint64_t hits = cpu->rflags & FLAG_RF ? 0 : debug_check_fetch(cpu, linear);
    const struct iop *op;

    if (hits) {
        debug_raise(cpu, hits);
        return STEP_FAULT;
    }
    struct block *block = interp_block_find(interp, true);
    if (!block)
        return STEP_FAULT;
    debug_step_begin(cpu);
    enum step step = run_block(cpu, block, &op);
    if (step != STEP_FAULT && step != STEP_RESYNC)
        debug_step_end(cpu, step == STEP_REPEAT ||
                                (block->ops[0].insn.row && block->ops[0].insn.row->handler == HANDLER_iret));
    if (cpu->debug_shadow && cpu->code_breakpoints)
        cpu->rflags |= FLAG_RF; /* MOV SS suppresses an instruction breakpoint on the next one (SDM Vol. 3A 6.8.3) */
    return step;
}

enum step interp_step_no_deliver(struct cpu *cpu)
{
    return step_instruction(cpu->interp);
}

enum step interp_step(struct cpu *cpu)
{
    enum step step = step_instruction(cpu->interp);
    return step == STEP_FAULT ? cpu_deliver_exception(cpu) : step;
}

bool interp_attention_needed(const struct cpu *cpu)
{
    return atomic_load_explicit(&cpu->events, memory_order_relaxed) || cpu->pending_debug || cpu->interrupt_shadow ||
           cpu->debug_shadow || cpu->activity != CPU_RUNNING;
}

bool interp_attend(struct cpu *cpu)
{
    do {
        if (cpu_handle_events(cpu) == STEP_EXIT)
            return false;
        if (cpu->activity != CPU_RUNNING) {
            cpu_wait_for_event(cpu);
            if (cpu->activity == CPU_SHUTDOWN && !atomic_load(&cpu->events))
                return false;
        }
    } while (cpu->activity != CPU_RUNNING);
    return true;
}

/* `single`: no more than one instruction, as after an interrupt shadow. */
static enum step run_some(struct interp *interp, bool single)
{
    struct cpu *cpu = interp->cpu;
    const struct iop *op;

    if (unlikely(single || cpu_needs_stepping(cpu)))
        return step_instruction(interp);
    struct block *block = interp_block_find(interp, false);
    if (unlikely(!block))
        return STEP_FAULT;
    log_event(exec, "vCPU %u: %016llx\n", cpu->index, (unsigned long long)cpu->cpu_rip);
    return run_block(cpu, block, &op);
}

static enum cpu_exit interp_run(struct cpu *cpu)
{
    struct interp *interp = cpu->interp;
    enum cpu_exit reason = CPU_EXIT_STOPPED;

    for (;;) {
        bool shadow = cpu->interrupt_shadow || cpu->debug_shadow;
        if (unlikely(interp_attention_needed(cpu)) && !interp_attend(cpu)) {
            if (cpu->activity == CPU_SHUTDOWN)
                reason = CPU_EXIT_TRIPLE_FAULT; /* delivering the event faulted three times */
            break;
        }
        enum step step = run_some(interp, shadow);
        if (unlikely(step == STEP_FAULT))
            step = cpu_deliver_exception(cpu);
        if (unlikely(step == STEP_EXIT)) {
            reason = CPU_EXIT_TRIPLE_FAULT;
            break;
        }
    }
    return reason;
}

enum step interp_step_block(struct cpu *cpu)
{
    struct cpu *before = cpu_thread_enter(cpu);
    enum step step = run_some(cpu->interp, false);
    if (step == STEP_FAULT)
        step = cpu_deliver_exception(cpu);
    cpu_thread_leave(before);
    return step;
}

/* ---- Coherence with memory ---- */

static void map_changed(void *opaque)
{
    struct cpu *cpu = opaque;
    if (cpu_on_own_thread(cpu)) {
        mmu_flush_all(&cpu->mmu);
        block_invalidate_all(cpu->interp);
    }
    cpu_event_set(cpu, CPU_EVENT_FLUSH_TLB);
}

/* Work for another thread's vCPU; if there is no memory to queue it, everything goes. */
static void queue_page_work(struct cpu *cpu, void (*fn)(struct cpu *cpu, void *opaque), gpa_t page)
{
    if (cpu_queue_work(cpu, fn, (void *)(uintptr_t)page))
        cpu_event_set(cpu, CPU_EVENT_FLUSH_TLB);
}

/* From another thread (DMA) only the page travels; the range matters for a vCPU's own stores. */
static void drop_page_code(struct cpu *cpu, void *opaque)
{
    block_invalidate_range(cpu->interp, (gpa_t)(uintptr_t)opaque, PAGE_SIZE);
}

static void code_written(void *opaque, gpa_t gpa, uint64_t size)
{
    struct cpu *cpu = opaque;
    if (cpu_on_own_thread(cpu)) {
        block_invalidate_range(cpu->interp, gpa, size);
        return;
    }
    for (gpa_t page = gpa & PAGE_MASK; page < gpa + size; page += PAGE_SIZE)
        queue_page_work(cpu, drop_page_code, page);
}

static void write_tracking(void *opaque, gpa_t page)
{
    struct cpu *cpu = opaque;
    if (cpu_on_own_thread(cpu)) {
        mmu_drop_write_tags(&cpu->mmu, page);
        return;
    }
    mmu_post_drop_write_tags(&cpu->mmu, page);
    cpu_event_set(cpu, CPU_EVENT_WORK);
}

/* ---- Life ---- */

static void interp_free(struct interp *interp)
{
    if (interp) {
        free(interp->single);
        free(interp->crossing_blocks);
    }
    free(interp);
}

static int interp_create(struct cpu *cpu, struct error *err)
{
    struct interp *interp = calloc(1, sizeof(*interp));
    struct host_region arena;

    if (!interp || !(interp->single = calloc(1, SINGLE_BLOCK_SIZE)) ||
        !(interp->crossing_blocks = calloc(CROSSING_CACHE_SIZE, SINGLE_BLOCK_SIZE))) {
        interp_free(interp);
        return error_set(err, ENOMEM, "no memory for the interpreter");
    }
    int result = host_memory_anonymous(&arena, ARENA_SIZE, err);
    if (result < 0) {
        interp_free(interp);
        return result;
    }
    interp->cpu = cpu;
    interp->arena = arena.base;
    interp->arena_size = arena.size;
    cpu->interp = interp;
    physmem_add_listener(cpu->physmem, &(struct physmem_listener){ .map_changed = map_changed,
                                                                   .code_written = code_written,
                                                                   .write_tracking = write_tracking,
                                                                   .opaque = cpu });
    return 0;
}

static void interp_destroy(struct cpu *cpu)
{
    struct interp *interp = cpu->interp;

    physmem_remove_listener(cpu->physmem, cpu);
    block_invalidate_all(interp); /* releases its pages */
    host_memory_free(&(struct host_region){ .base = interp->arena, .size = interp->arena_size, .fd = -1 });
    interp_free(interp);
    cpu->interp = NULL;
}

static void interp_flush(struct cpu *cpu)
{
    block_invalidate_all(cpu->interp);
}

const struct engine interp_engine = {
    .name = "interp",
    .create = interp_create,
    .destroy = interp_destroy,
    .run = interp_run,
    .flush = interp_flush,
};
