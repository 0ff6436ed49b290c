/* -d jitstats: what the translator did. vCPU thread, parked. */
#include "base/log.h"
#include "jit/jit_internal.h"

void jit_count_in_c(struct jit *jit, const struct iop *op)
{
    (void)jit;
    (void)op;
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

void jit_log_stats(const struct cpu *cpu)
{
    const struct jit *jit = jit_of(cpu);
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
    LINE(site_misses);
    LINE(group_clones);
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
    log_vprint(LOG_jitstats, "vCPU %u: executed %llu\n", cpu->index, (unsigned long long)jit->executed);
}
