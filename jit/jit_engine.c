/* The jit engine: life, and the run loop around translated code.
 *
 * The interpreter lies beneath: it executes what is not translated (16-bit and segmented code, single
 * steps), and its handlers execute single instructions for the translator.
 *
 * The vCPU's thread, with the vector state parked. */
#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/host_cpu.h"
#include "base/host_memory.h"
#include "jit/jit_internal.h"

/* ---- Running ---- */

static enum step step_untranslated(struct jit *jit, bool single)
{
    jit->stats.interpreted++;
    jit->system_call.valid = 0; /* it may write MSRs and control registers */
    return single ? interp_step(jit->cpu) : interp_step_block(jit->cpu);
}

static enum step run_translated(struct jit *jit)
{
    bool faulted;
    const void *entry = jit_find_entry(jit, &faulted);

    if (faulted)
        return cpu_deliver_exception(jit->cpu);
    if (!entry)
        return step_untranslated(jit, false);
    jit_load_flags(jit);
    jit->enter(entry);
    return jit->exit_step;
}

static enum cpu_exit jit_run(struct cpu *cpu)
{
    struct jit *jit = jit_of(cpu);
    enum cpu_exit reason = CPU_EXIT_STOPPED;

    jit_signal_enter(jit);
    jit->system_call.valid = 0; /* MSRs may have been changed from outside */
    for (;;) {
        bool shadow = cpu->interrupt_shadow || cpu->debug_shadow;
        /* Before the events are looked at: whatever is set from now on clears it again. */
        atomic_store(&cpu->quiet, 1);
        if (unlikely(interp_attention_needed(cpu)) && !interp_attend(cpu)) {
            if (cpu->activity == CPU_SHUTDOWN)
                reason = CPU_EXIT_TRIPLE_FAULT;
            break;
        }
        enum step step;
        if (unlikely(shadow || !jit_can_run(cpu)))
            step = step_untranslated(jit, shadow);
        else
            step = run_translated(jit);
        if (unlikely(step == STEP_EXIT)) {
            reason = CPU_EXIT_TRIPLE_FAULT;
            break;
        }
    }
    return reason;
}

/* One block into code that is thrown away afterwards. */
enum step jit_step_block(struct cpu *cpu, unsigned max_instructions, unsigned *executed)
{
    struct jit *jit = jit_of(cpu);
    unsigned ignored;

    if (!executed)
        executed = &ignored;
    *executed = 1;
    jit_signal_enter(jit);
    struct cpu *before = cpu_thread_enter(cpu);
    enum step step = jit_can_run(cpu) ? jit_run_single(jit, max_instructions, executed) : interp_step_no_deliver(cpu);
    cpu_thread_leave(before);
    return step;
}

/* ---- Life ---- */

/* A compiler in the guest, which is nearly all cold code, took 1.95, 2.03 and 2.35 s with 1, 4 and 8; loops hardly notice. */
#define SOFT_LIMIT 4

static void free_jit(struct jit *jit)
{
    jit_translate_destroy(jit);
    jit_cache_destroy(jit);
    jit_op_stats_destroy(&jit->op_stats);
    jit_memory_destroy(jit);
}

/* Bits of an address that make the index of the jump cache: 14 of those in which the targets of one program differ most. */
#define JUMP_INDEX_BITS 0x1f3feull
_Static_assert(__builtin_popcountll(JUMP_INDEX_BITS) == 14 && JUMP_CACHE_SIZE == 1 << 14, "jump cache");

static void set_constants(struct jit *jit)
{
    jit->offset_mask = PAGE_MASK;
    jit->half_space = 1ull << 47;
    jit->arithmetic_mask = FLAGS_ARITH;
    jit->upper_half_mask = 0xffff800000000000ull;
    jit->direction_mask = FLAG_DF;
    jit->pke_mask = 1 << 22; /* CR4.PKE */
    for (unsigned n = 0; n < ARRAY_SIZE(jit->bit_masks); n++)
        jit->bit_masks[n] = (16u << n) - 1;
    jit->has_bmi2 = (host_cpuid(7, 0).ebx >> 8 & 1) && !getenv("EIDOLON_JIT_NO_BMI2");
    jit->has_avx = host_has_avx();
    jit->is_low = (uintptr_t)jit + sizeof(*jit) < BIT(31);
    jit->jump_mask = JUMP_INDEX_BITS;
    jit->soft_limit = SOFT_LIMIT;
    jit->salt_number = 0xffc0; /* so that every longer run sees them begin again */
}

static int jit_create(struct cpu *cpu, struct error *err)
{
    struct jit *jit;
    int result = interp_engine.create(cpu, err);

    if (result < 0)
        return result;
    result = jit_memory_create(cpu, &jit, err);
    if (result < 0) {
        interp_engine.destroy(cpu);
        return result;
    }
    set_constants(jit);
    jit->has_stats = log_enabled(LOG_jitstats) || log_enabled(LOG_op_stats);
    jit->hot = (struct emitter){ jit->code.write, jit->code.execute - jit->code.write };
    jit_thunks_create(jit);
    if ((result = jit_cache_create(jit, err)) < 0 || (result = jit_translate_create(jit, err)) < 0) {
        free_jit(jit);
        interp_engine.destroy(cpu);
        return result;
    }
    jit->return_base = (uint64_t)(uintptr_t)(jit->return_stack + RETURN_STACK_SIZE - 64);
    *(uint64_t *)jit->return_base = (uint64_t)(uintptr_t)jit->thunk_return_empty;
    jit_empty_return_stack(jit);
    jit->logs_entries = log_enabled(LOG_exec);
    if (jit->has_stats && (result = jit_op_stats_create(&jit->op_stats)) < 0) {
        free_jit(jit);
        interp_engine.destroy(cpu);
        return error_set(err, ENOMEM, "no memory for statistics");
    }
    cpu->engine_data = jit;
    cpu->park_vectors = jit_park;
    jit_signal_install();
    jit_listen(jit);
    return 0;
}

static void jit_destroy(struct cpu *cpu)
{
    struct jit *jit = jit_of(cpu);

    jit->tools = NULL;          /* what they know is of use after the end */
    jit_cache_flush(jit);       /* releases its pages */
    interp_engine.destroy(cpu); /* and removes the listeners of this CPU */
    free_jit(jit);
    cpu->engine_data = NULL;
    cpu->park_vectors = NULL;
}

static void jit_flush(struct cpu *cpu)
{
    interp_engine.flush(cpu);
    jit_cache_flush(jit_of(cpu));
}

const struct engine jit_engine = {
    .name = "jit",
    .create = jit_create,
    .destroy = jit_destroy,
    .run = jit_run,
    .flush = jit_flush,
};
