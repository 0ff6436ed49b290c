/* The table of instructions that ran in C: order, totals, shares, limit. */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "elf_maker.h"
#include "jit/jit_op_stats.h"

static const struct insn_row *row_of(const char *mnemonic, unsigned nth)
{
    for (unsigned i = 0; i < insn_row_count; i++)
        if (!strcmp(insn_rows[i].mnemonic, mnemonic) && !nth--)
            return &insn_rows[i];
    cr_assert_fail("there is no row %s", mnemonic);
    return NULL;
}

static char *print(const struct jit_op_stats *stats, unsigned limit)
{
    char path[TEMP_PATH], *text;
    struct error err;

    cr_assert_eq(log_set_file(temp_file(path, "", 0), &err), 0);
    jit_op_stats_print(stats, LOG_op_stats, limit);
    text = file_contents(path, NULL);
    unlink(path);
    return text;
}

static void count(struct jit_op_stats *stats, const struct insn_row *row, unsigned translated, unsigned helper,
                  unsigned slow, unsigned fault)
{
    while (translated--)
        jit_op_stats_translated(stats, row);
    while (helper--)
        jit_op_stats_in_c(stats, row, JIT_IN_C_HELPER);
    while (slow--)
        jit_op_stats_in_c(stats, row, JIT_IN_C_SLOW_ACCESS);
    while (fault--)
        jit_op_stats_in_c(stats, row, JIT_IN_C_FAULT);
}

Test(op_stats, table)
{
    struct jit_op_stats stats;
    char *text;

    cr_assert_eq(jit_op_stats_create(&stats), 0);
    count(&stats, row_of("nop", 0), 500, 0, 0, 0);
    count(&stats, row_of("cpuid", 0), 3, 7, 0, 0);
    count(&stats, row_of("sgdt", 0), 1, 2, 3, 4);
    count(&stats, row_of("wrmsr", 0), 2, 7, 0, 0);
    stats.executed = 10000;
    text = print(&stats, 0);
    cr_expect_str_eq(text,
                     "instructions translated 506, run in C 23: helpers 16, slow accesses 3, faults 4\n"
                     "that is 0.2300 % of 10000 instructions executed; those of untranslated code come on top\n"
                     "  translated       helper  slow access        fault     in C  instruction\n"
                     "           1            2            3            4 0.0900 %  sgdt (0f 01 /0)\n"
                     "           3            7            0            0 0.0700 %  cpuid (0f a2)\n"
                     "           2            7            0            0 0.0700 %  wrmsr (0f 30)\n"
                     "         500            0            0            0 0.0000 %  nop (90)\n",
                     "%s", text);
    free(text);
    text = print(&stats, 2);
    cr_expect(strstr(text, "cpuid") && !strstr(text, "wrmsr") && strstr(text, "and 2 more"), "%s", text);
    free(text);
    text = print(&stats, 4);
    cr_expect_null(strstr(text, "more"), "%s", text);
    free(text);
    jit_op_stats_destroy(&stats);
}

Test(op_stats, nothing)
{
    struct jit_op_stats stats;
    char *text;

    cr_assert_eq(jit_op_stats_create(&stats), 0);
    text = print(&stats, 0);
    cr_expect(strstr(text, "translated 0, run in C 0"), "%s", text);
    cr_expect_null(strchr(text, '%'), "%s", text); /* nothing is a share of nothing */
    free(text);
    jit_op_stats_destroy(&stats);
}
