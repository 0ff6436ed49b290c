/* Counts and prints which instructions were translated and which ran in C. The rows of one instruction are told apart
 * by map, opcode and ModRM digit: a mnemonic alone would hide that only one form of it is slow.
 *
 * Threads: the vCPU's; printing when it has stopped, or on it. */
#include "jit/jit_op_stats.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

static const char *const map_names[MAP_COUNT] = {
    [MAP_ONEBYTE] = "",
    [MAP_0F] = "0f ",
    [MAP_0F38] = "0f38 ",
    [MAP_0F3A] = "0f3a ",
    [MAP_X87] = "",
    [MAP_VEX_0F] = "vex.0f ",
    [MAP_VEX_0F38] = "vex.0f38 ",
    [MAP_VEX_0F3A] = "vex.0f3a ",
    [MAP_EVEX_0F] = "evex.0f ",
    [MAP_EVEX_0F38] = "evex.0f38 ",
    [MAP_EVEX_0F3A] = "evex.0f3a ",
    [MAP_EVEX_5] = "evex.5 ",
    [MAP_EVEX_6] = "evex.6 ",
};

int jit_op_stats_create(struct jit_op_stats *stats)
{
    *stats = (struct jit_op_stats){ .counts = calloc(insn_row_count, sizeof(*stats->counts)) };
    return stats->counts ? 0 : -ENOMEM;
}

void jit_op_stats_destroy(struct jit_op_stats *stats)
{
    free(stats->counts);
    stats->counts = NULL;
}

static uint64_t all_in_c(const struct jit_op_counts *counts)
{
    uint64_t sum = 0;

    for (unsigned i = 0; i < JIT_IN_C_REASONS; i++)
        sum += counts->in_c[i];
    return sum;
}

static int compare(const void *a, const void *b, void *opaque)
{
    const struct jit_op_stats *stats = opaque;
    const unsigned x = *(const unsigned *)a, y = *(const unsigned *)b;
    uint64_t x_in_c = all_in_c(&stats->counts[x]), y_in_c = all_in_c(&stats->counts[y]);

    if (x_in_c != y_in_c)
        return x_in_c > y_in_c ? -1 : 1;
    if (stats->counts[x].translated != stats->counts[y].translated)
        return stats->counts[x].translated > stats->counts[y].translated ? -1 : 1;
    return x < y ? -1 : x > y;
}

/* "sgdt 0f 01 /0", as the manual writes it */
static void row_name(const struct insn_row *row, char *text, size_t size)
{
    static const char *const prefixes[] = {
        [PREFIX_66] = "66 ", [PREFIX_F3] = "f3 ", [PREFIX_F2] = "f2 ", [PREFIX_NP_66] = ""
    };
    const char *prefix = prefixes[row->prefix] ? prefixes[row->prefix] : "";
    char modrm[8] = "";

    if (row->modrm == MODRM_EXT || row->modrm == MODRM_EXT_MEM || row->modrm == MODRM_EXT_REG)
        snprintf(modrm, sizeof(modrm), " /%u", row->modrm_value);
    else if (row->modrm == MODRM_BYTE)
        snprintf(modrm, sizeof(modrm), " %02x", row->modrm_value);
    else if (row->modrm == MODRM_PLUSR)
        snprintf(modrm, sizeof(modrm), "+r");
    snprintf(text, size, "%s (%s%s%02x%s)", row->mnemonic, prefix, map_names[row->map], row->opcode, modrm);
}

static void print_totals(const struct jit_op_stats *stats, enum log_category category)
{
    struct jit_op_counts total = { 0 };
    uint64_t in_c;

    for (unsigned i = 0; i < insn_row_count; i++) {
        total.translated += stats->counts[i].translated;
        for (unsigned reason = 0; reason < JIT_IN_C_REASONS; reason++)
            total.in_c[reason] += stats->counts[i].in_c[reason];
    }
    in_c = all_in_c(&total);
    log_vprint(category,
               "instructions translated %" PRIu64 ", run in C %" PRIu64 ": helpers %" PRIu64 ", slow accesses %" PRIu64
               ", faults %" PRIu64 "\n",
               total.translated, in_c, total.in_c[JIT_IN_C_HELPER], total.in_c[JIT_IN_C_SLOW_ACCESS],
               total.in_c[JIT_IN_C_FAULT]);
    if (stats->executed)
        log_vprint(category,
                   "that is %.4f %% of %" PRIu64 " instructions executed; those of untranslated code come on top\n",
                   100.0 * (double)in_c / (double)stats->executed, stats->executed);
}

static void print_rows(const struct jit_op_stats *stats, enum log_category category, const unsigned *order,
                       unsigned count)
{
    log_vprint(category, "%12s %12s %12s %12s %8s  %s\n", "translated", "helper", "slow access", "fault", "in C",
               "instruction");
    for (unsigned i = 0; i < count; i++) {
        const struct jit_op_counts *counts = &stats->counts[order[i]];
        char name[64], share[16] = "-";

        row_name(&insn_rows[order[i]], name, sizeof(name));
        if (stats->executed)
            snprintf(share, sizeof(share), "%.4f %%", 100.0 * (double)all_in_c(counts) / (double)stats->executed);
        log_vprint(category, "%12" PRIu64 " %12" PRIu64 " %12" PRIu64 " %12" PRIu64 " %8s  %s\n", counts->translated,
                   counts->in_c[JIT_IN_C_HELPER], counts->in_c[JIT_IN_C_SLOW_ACCESS], counts->in_c[JIT_IN_C_FAULT],
                   share, name);
    }
}

void jit_op_stats_print(const struct jit_op_stats *stats, enum log_category category, unsigned limit)
{
    unsigned *order = calloc(insn_row_count, sizeof(*order)), count = 0;

    if (!order) {
        log_vprint(category, "out of memory: no table of instructions\n");
        return;
    }
    for (unsigned i = 0; i < insn_row_count; i++) {
        if (stats->counts[i].translated || all_in_c(&stats->counts[i]))
            order[count++] = i;
    }
    qsort_r(order, count, sizeof(*order), compare, (void *)stats);
    print_totals(stats, category);
    print_rows(stats, category, order, limit ? MIN(limit, count) : count);
    if (limit && limit < count)
        log_vprint(category, "%12s and %u more (-d op_stats prints all)\n", "", count - limit);
    free(order);
}
