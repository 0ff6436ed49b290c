/* -d jitstats: what the translator did. vCPU thread, parked. */
#include "base/log.h"
#include "jit/jit_internal.h"

void jit_count_in_c(struct jit *jit, const struct iop *op, enum jit_in_c reason)
{
    if (op->insn.row)
        jit_op_stats_in_c(&jit->op_stats, op->insn.row, reason);
}

void jit_set_tools(struct cpu *cpu, struct jit_tools *tools)
{
    if (cpu->engine == &jit_engine && tools && jit_tools_wanted(tools)) {
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

static double per(uint64_t a, uint64_t b)
{
    return b ? (double)a / (double)b : 0;
}

static void log_counters(const struct cpu *cpu, const struct jit *jit)
{
    const struct jit_stats *s = &jit->stats;

    log_vprint(LOG_jitstats, "vCPU %u: %llu blocks of %.1f instructions and %.1f bytes; hot %.2f, cold %.2f bytes a guest byte\n",
               cpu->index, (unsigned long long)s->blocks, per(s->guest_insns, s->blocks), per(s->guest_bytes, s->blocks),
               per(s->hot_bytes, s->guest_bytes), per(s->cold_bytes, s->guest_bytes));
    double ns = (double)s->translate_cycles * 1e6 / (double)cpu->clock->tsc_khz;
    log_vprint(LOG_jitstats, "vCPU %u: translating %.0f ns an instruction, %.1f ms in all\n", cpu->index,
               ns / (double)MAX(s->guest_insns, 1u), ns / 1e6);
#define LINE(name) log_vprint(LOG_jitstats, "vCPU %u: " #name " %llu\n", cpu->index, (unsigned long long)s->name)
    LINE(lookups);
    LINE(links);
    LINE(invalidated);
    LINE(cache_flushes);
    LINE(evictions);
    LINE(site_misses);
    LINE(hashed);
    LINE(group_clones);
    LINE(ungrouped);
    LINE(loops);
    LINE(helpers);
    LINE(slow_accesses);
    LINE(faults);
    LINE(host_faults);
    LINE(polls);
    LINE(exits);
    LINE(parks);
    LINE(salts);
    LINE(interpreted);
#undef LINE
    uint64_t in_c = s->helpers + s->slow_accesses + s->host_faults + cpu->stats.instructions;
    log_vprint(LOG_jitstats, "vCPU %u: executed %llu instructions, %llu of them in C (%.4f %%), %llu of those interpreted\n",
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
