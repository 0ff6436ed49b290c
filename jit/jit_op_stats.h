/* Which instructions the guest's code consists of, and which of them ran in C instead of in translated code: a
 * counter for each row of the instruction table. For -d op_stats and -d jitstats. */
#ifndef EIDOLON_JIT_JIT_OP_STATS_H
#define EIDOLON_JIT_JIT_OP_STATS_H

#include "base/log.h"
#include "base/types.h"
#include "cpu/decode/row.h"

/* Why C ran. */
enum jit_in_c {
    JIT_IN_C_HELPER,      /* the instruction is not translated: its handler is called */
    JIT_IN_C_SLOW_ACCESS, /* a memory access left the fast path: TLB refill, MMIO, tracked page */
    JIT_IN_C_FAULT,       /* it raised an exception */
    JIT_IN_C_REASONS
};

struct jit_op_counts {
    uint64_t translated;
    uint64_t in_c[JIT_IN_C_REASONS];
};

/* One per vCPU, touched by its thread only. */
struct jit_op_stats {
    uint64_t executed;            /* instructions: what the shares are of; 0: not known */
    struct jit_op_counts *counts; /* insn_row_count of them: counts[row - insn_rows] */
};

int jit_op_stats_create(struct jit_op_stats *stats); /* zeroed; 0 or -ENOMEM */
void jit_op_stats_destroy(struct jit_op_stats *stats);

static inline void jit_op_stats_translated(struct jit_op_stats *stats, const struct insn_row *row)
{
    stats->counts[row - insn_rows].translated++;
}
static inline void jit_op_stats_in_c(struct jit_op_stats *stats, const struct insn_row *row, enum jit_in_c reason)
{
    stats->counts[row - insn_rows].in_c[reason]++;
}

/* Prints totals and the `limit` instructions (0: all) that ran most often in C; of the same number, those that were
 * translated most often come first. */
void jit_op_stats_print(const struct jit_op_stats *stats, enum log_category category, unsigned limit);

#endif
