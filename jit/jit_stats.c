/* -d jitstats: what the translator did. vCPU thread, parked. */
#include <stdio.h>
#include <stdlib.h>

#include "base/log.h"
#include "jit/jit_internal.h"

void jit_count_in_c(struct jit *jit, const struct iop *op, enum jit_in_c reason)
{
    if (op->insn.row)
        jit_op_stats_in_c(&jit->op_stats, op->insn.row, reason);
}

void jit_set_tools(struct cpu *cpu, struct jit_tools *tools)
{
    if (cpu->engine == &jit_engine && tools && (jit_tools_wanted(tools) || log_enabled(LOG_exec))) {
        struct jit *jit = jit_of(cpu);
        struct jit_tools_code thunks = { jit->code.execute, jit->code.thunks_size };
        jit->tools = tools;
        jit_tools_add_code(tools, &thunks, "thunks");
    }
}

void jit_report_block(struct jit *jit, const struct jit_block *block)
{
    struct mem_page page = physmem_lookup(jit->cpu->physmem, block->gpa);
    struct jit_tools_block report = {
        .gva = jit->cpu->cpu_rip,
        .gpa = block->gpa,
        .user = (block->mode >> MODE_CPL_SHIFT & 3) == 3,
        .bits = block->mode & MODE_CODE64 ? 64 : 32,
        .guest = page.host ? page.host + (block->gpa & ~PAGE_MASK) : NULL,
        .guest_size = page.host ? block->guest_bytes : 0,
        .hot = { jit->code.execute + block->hot, block->hot_size },
        .cold = { jit->code.execute + block->cold, block->cold_size },
    };

    jit_tools_add_block(jit->tools, jit->cpu, &report);
}

/* The host faulted in translated code, but the guest's instruction there does not fault: the translation is wrong, or what it relies
 * on. Nothing that follows could be trusted. */
void jit_die_of_stray_fault(struct jit *jit, const struct jit_block *block)
{
    struct cpu *cpu = jit->cpu;

    jit_park(cpu);
    jit_signal_report(jit, jit->fault_pc, jit->fault_registers);
    log_print(LOG_cpu_reset,
              "eidolon: host signal %d in the block at guest-physical %llx, host code %x to %x. The state behind the "
              "instruction:\n",
              jit->fault_signal, (unsigned long long)block->gpa, block->hot, block->hot + block->hot_size);
    cpu_log_state(cpu, LOG_cpu_reset);
    log_print(LOG_cpu_reset, "eidolon: a fault of translated code that the guest's code does not have: this is a bug "
                             "in Eidolon's translator; "
                             "-accel lockstep may find its cause, -accel interp does without it\n");
    fflush(NULL);
    abort();
}

void jit_log_entry(struct jit *jit, const struct jit_block *block)
{
    const struct cpu *cpu = jit->cpu;
    char name[JIT_TOOLS_NAME_SIZE] = "";

    if (jit->tools)
        jit_tools_block_name(jit->tools, jit->cpu, cpu->cpu_rip, block->gpa, jit_mode_cpl(block->mode) == 3, name,
                             sizeof(name));
    log_event(exec, "vCPU %u: %016llx %s\n", cpu->index, (unsigned long long)cpu->cpu_rip, name);
}

static double per(uint64_t a, uint64_t b)
{
    return b ? (double)a / (double)b : 0;
}

/* Why translated code was left for the engine. */
static void log_exits(const struct cpu *cpu, const struct jit_stats *s)
{
    static const char *const causes[] = {
        [STEP_NEXT] = "attention",    [STEP_FAULT] = "fault",   [STEP_BRANCH] = "nothing translated",
        [STEP_END] = "state changed", [STEP_REPEAT] = "repeat", [STEP_RESYNC] = "resync",
        [STEP_HALT] = "halt",         [STEP_EXIT] = "shutdown",
    };

    log_vprint(LOG_jitstats, "vCPU %u: exits %llu:", cpu->index, (unsigned long long)s->exits);
    for (unsigned step = 0; step < ARRAY_SIZE(causes); step++)
        if (s->exits_by_step[step])
            log_vprint(LOG_jitstats, " %s %llu", causes[step], (unsigned long long)s->exits_by_step[step]);
    log_vprint(LOG_jitstats, "\n");
}

static void log_counters(const struct cpu *cpu, const struct jit *jit)
{
    const struct jit_stats *s = &jit->stats;

    log_vprint(LOG_jitstats,
               "vCPU %u: %llu blocks of %.1f instructions and %.1f bytes; hot %.2f, cold %.2f bytes a guest byte\n",
               cpu->index, (unsigned long long)s->blocks, per(s->guest_insns, s->blocks),
               per(s->guest_bytes, s->blocks), per(s->hot_bytes, s->guest_bytes), per(s->cold_bytes, s->guest_bytes));
    double ns = (double)s->translate_cycles * 1e6 / (double)cpu->clock->tsc_khz;
    log_vprint(LOG_jitstats, "vCPU %u: translating %.0f ns an instruction, %.1f ms in all\n", cpu->index,
               ns / (double)MAX(s->guest_insns, 1u), ns / 1e6);
#define LINE(value, name) log_vprint(LOG_jitstats, "vCPU %u: " name " %llu\n", cpu->index, (unsigned long long)(value))
    LINE(s->lookups, "lookups in C");
    LINE(s->links, "links");
    LINE(s->invalidated, "blocks invalidated");
    LINE(s->cache_flushes, "code cache flushes");
    LINE(s->evictions, "code cache evictions");
    LINE(s->mispredicted, "site misses (predictions of a TLB entry that failed)");
    LINE(s->site_misses, "L1 TLB misses, and accesses that cross a page");
    LINE(cpu->mmu.stats.l2_hits, "L2 TLB hits");
    LINE(cpu->mmu.stats.walks, "page walks");
    LINE(s->hashed, "sites that predict no more");
    LINE(s->group_clones, "groups left by way of C");
    LINE(s->ungrouped, "groups dissolved");
    LINE(s->loops, "loops");
    LINE(s->helpers, "handler calls");
    LINE(s->slow_accesses, "accesses in C");
    LINE(s->faults, "faults");
    LINE(s->host_faults, "host faults");
    LINE(s->polls, "polls that found something");
    LINE(s->parks, "vector state parked");
    LINE(s->salts, "address space numbers");
    LINE(s->interpreted, "blocks interpreted");
#undef LINE
    log_exits(cpu, s);
    uint64_t in_c = s->helpers + s->slow_accesses + s->host_faults + cpu->stats.instructions;
    log_vprint(LOG_jitstats,
               "vCPU %u: executed %llu instructions, %llu of them in C (%.4f %%), %llu of those interpreted\n",
               cpu->index, (unsigned long long)(jit->executed + cpu->stats.instructions), (unsigned long long)in_c,
               100 * per(in_c, jit->executed + cpu->stats.instructions), (unsigned long long)cpu->stats.instructions);
}

void jit_log_stats(const struct cpu *cpu)
{
    if (cpu->engine != &jit_engine)
        return;
    struct jit *jit = jit_of(cpu);
    if (log_enabled(LOG_jitstats))
        log_counters(cpu, jit);
    if (!jit->op_stats.counts)
        return;
    jit->op_stats.executed = jit->executed + cpu->stats.instructions;
    if (log_enabled(LOG_jitstats))
        jit_op_stats_print(&jit->op_stats, LOG_jitstats, 40);
    if (log_enabled(LOG_op_stats))
        jit_op_stats_print(&jit->op_stats, LOG_op_stats, 0);
}
