/* The driver: for every row of the table, cases on the host and on our engine, and what differs.
 *
 *   EIDOLON_INSN_CASES  cases a row (default below)
 *   EIDOLON_SEED        another seed
 *   EIDOLON_INSN_ROW    only rows with this mnemonic, or this row number
 *   EIDOLON_INSN_CASE   only this case number (of one row)
 *   EIDOLON_INSN_VERBOSE  a line for each row
 *
 * The rows are dealt out to a few Criterion tests, which run side by side. */
#include <criterion/criterion.h>

#include <capstone/capstone.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cpu/decode/row.h"
#include "tests/insn/insn_test.h"

#define BATCH         128
#define DEFAULT_CASES 500
#define DEFAULT_SEED  0x1d01
#define SLICES        4
#define SHOWN_PER_ROW (unsigned)env_number("EIDOLON_INSN_SHOW", 2)

struct run {
    struct native *native;
    struct emulated *emulated;
    struct insn_result *ours; /* BATCH of them */
    csh capstone;
    uint64_t seed, only_case;
    unsigned cases;
    const char *only_row;
    bool verbose;
    struct {
        uint64_t cases, faults, invalid;
        unsigned rows, excluded, rows_failed, rows_empty;
    } total;
};

static uint64_t env_number(const char *name, uint64_t fallback)
{
    const char *text = getenv(name);
    return text && *text ? strtoull(text, NULL, 0) : fallback;
}

/* ---- Which rows ---- */

static bool row_selected(const struct run *run, unsigned index)
{
    char *end;
    if (!run->only_row)
        return true;
    unsigned long number = strtoul(run->only_row, &end, 0);
    return *end ? !strcmp(run->only_row, insn_rows[index].mnemonic) : number == index;
}

/* ---- Cases ---- */

static uint64_t case_number(const struct run *run, unsigned row, unsigned index)
{
    struct rng rng = { run->seed * 0x10001 + ((uint64_t)row << 32) + index };
    return rng_next(&rng);
}

static void show_failure(const struct run *run, const struct insn_case *test, const char *text)
{
    static const char *const names[] = { "rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
                                         "r8",  "r9",  "r10", "r11", "r12", "r13", "r14", "r15" };
    cs_insn *disassembly = NULL;
    fprintf(stderr, "row %u (%s), case 0x%llx, seed 0x%llx:", (unsigned)(test->row - insn_rows), test->row->mnemonic,
            (unsigned long long)test->number, (unsigned long long)run->seed);
    for (unsigned i = 0; i < test->length; i++)
        fprintf(stderr, " %02x", test->bytes[i]);
    if (cs_disasm(run->capstone, test->bytes, sizeof(test->bytes), test->state.rip, 1, &disassembly)) {
        fprintf(stderr, "  %s %s", disassembly->mnemonic, disassembly->op_str);
        cs_free(disassembly, 1);
    }
    fprintf(stderr, "%s\n%s", test->decoded ? "" : "  (invalid in our table)", text);
    if (test->operand_address)
        fprintf(stderr, "  operand at %llx\n", (unsigned long long)test->operand_address);
    for (unsigned i = 0; i < 16; i++)
        fprintf(stderr, "%s%s %llx%s", i % 8 ? " " : "  ", names[i], (unsigned long long)test->state.gpr[i],
                i % 8 == 7 ? "\n" : "");
    for (unsigned i = 0; run->verbose && i < 16; i++) {
        uint64_t words[4];
        memcpy(words, test->state.ymm[i], sizeof(words));
        fprintf(stderr, "  ymm%-2u %016llx %016llx %016llx %016llx\n", i, (unsigned long long)words[3],
                (unsigned long long)words[2], (unsigned long long)words[1], (unsigned long long)words[0]);
    }
}

struct row_result {
    unsigned made, completed, faulted, invalid, different;
};

static void run_batch(struct run *run, unsigned count, struct row_result *r)
{
    const struct insn_case *cases = native_case(run->native, 0);
    char text[16384];

    native_start(run->native, count);
    for (unsigned i = 0; i < count; i++) /* meanwhile, here */
        emulated_run(run->emulated, &cases[i], &run->ours[i]);
    native_finish(run->native);
    for (unsigned i = 0; i < count; i++) {
        const struct insn_result *host = native_result(run->native, i);
        if (host->outcome.vector == OUTCOME_NONE)
            r->completed++;
        else
            r->faulted++;
        r->invalid += !cases[i].decoded;
        if (!compare_results(&cases[i], host, &run->ours[i], text, sizeof(text)))
            continue;
        if (r->different++ < SHOWN_PER_ROW)
            show_failure(run, &cases[i], text);
    }
}

static void run_row(struct run *run, unsigned index, struct row_result *r)
{
    struct insn_case *cases = native_case(run->native, 0);
    unsigned n = 0;

    for (unsigned i = 0; i < run->cases; i++) {
        uint64_t number = run->only_case ? run->only_case : case_number(run, index, i);
        if (generate_case(&cases[n], &insn_rows[index], number)) {
            r->made++;
            n++;
        }
        if (n == BATCH || (n && i + 1 == run->cases)) {
            run_batch(run, n, r);
            n = 0;
        }
        if (run->only_case)
            break;
    }
    if (n)
        run_batch(run, n, r);
}

static void account(struct run *run, unsigned index, const struct row_result *r)
{
    const struct insn_row *row = &insn_rows[index];

    run->total.rows++;
    run->total.cases += r->made;
    run->total.faults += r->faulted;
    run->total.invalid += r->invalid;
    if (run->verbose)
        fprintf(stderr, "row %4u %-16s %5u cases %5u completed %5u faulted %4u invalid %5u different\n", index,
                row->mnemonic, r->made, r->completed, r->faulted, r->invalid, r->different);
    if (r->different) {
        run->total.rows_failed++;
        fprintf(stderr, "row %u (%s, map %u opcode %02x): %u of %u cases differ\n", index, row->mnemonic, row->map,
                row->opcode, r->different, r->made);
    } else if (!r->made) {
        run->total.rows_empty++;
        fprintf(stderr, "row %u (%s, map %u opcode %02x): no case could be made\n", index, row->mnemonic, row->map,
                row->opcode);
    }
}

static void run_slice(unsigned slice)
{
    struct run run = {
        .seed = env_number("EIDOLON_SEED", DEFAULT_SEED),
        .cases = (unsigned)env_number("EIDOLON_INSN_CASES", DEFAULT_CASES),
        .only_row = getenv("EIDOLON_INSN_ROW"),
        .only_case = env_number("EIDOLON_INSN_CASE", 0),
        .verbose = getenv("EIDOLON_INSN_VERBOSE"),
    };

    run.native = native_create(&insn_native_job, BATCH); /* forks: before anything else has been set up */
    run.emulated = emulated_create();
    run.ours = calloc(BATCH, sizeof(*run.ours));
    cr_assert(run.ours);
    cr_assert(cs_open(CS_ARCH_X86, CS_MODE_64, &run.capstone) == CS_ERR_OK);
    for (unsigned i = slice; i < insn_row_count; i += SLICES) {
        if (!row_selected(&run, i))
            continue;
        const char *reason = row_skip_reason(&insn_rows[i], emulated_model(run.emulated));
        if (reason) {
            run.total.excluded++;
            if (run.verbose)
                fprintf(stderr, "row %4u %-16s not run: %s\n", i, insn_rows[i].mnemonic, reason);
            continue;
        }
        struct row_result result = { 0 };
        run_row(&run, i, &result);
        account(&run, i, &result);
    }
    cs_close(&run.capstone);
    free(run.ours);
    emulated_destroy(run.emulated);
    native_destroy(run.native);
    fprintf(stderr, "tests/insn %u/%u: %u rows run, %u not; %llu cases, %llu faulted, %llu invalid; seed 0x%llx\n",
            slice + 1, SLICES, run.total.rows, run.total.excluded, (unsigned long long)run.total.cases,
            (unsigned long long)run.total.faults, (unsigned long long)run.total.invalid, (unsigned long long)run.seed);
    cr_assert(!run.total.rows_failed && !run.total.rows_empty,
              "%u rows differ from the host, %u rows have no case (seed 0x%llx)", run.total.rows_failed,
              run.total.rows_empty, (unsigned long long)run.seed);
}

Test(insn, slice1, .timeout = 900)
{
    run_slice(0);
}

Test(insn, slice2, .timeout = 900)
{
    run_slice(1);
}

Test(insn, slice3, .timeout = 900)
{
    run_slice(2);
}

Test(insn, slice4, .timeout = 900)
{
    run_slice(3);
}
