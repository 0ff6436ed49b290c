/* The driver: sequences on the host and on our engine, and what differs, made as small as it gets.
 *
 *   EIDOLON_ENGINE        interp or jit
 *   EIDOLON_STRESS_CASES  sequences in each test (default below)
 *   EIDOLON_SEED          another seed
 *   EIDOLON_STRESS_CASE   only this case number; its code is shown
 *   EIDOLON_STRESS_SHOW   failures that are shown (default 3)
 *   EIDOLON_STRESS_WHOLE  failures are not made smaller
 *
 * Two Criterion tests run side by side, with sequences of their own: one with TLBs as they are, one with four entries. */
#include <criterion/criterion.h>

#include <capstone/capstone.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/insn/compare_state.h"
#include "tests/stress/minimise.h"
#include "tests/stress/stress.h"

#define BATCH         32
#define DEFAULT_CASES 30000
#define DEFAULT_SEED  0x57e55
#define FLUSH_EVERY   512 /* cases: what is cached goes now and then */
#define TEXT_SIZE     16384
#define FAILURES      4 /* of a batch that are looked at */

struct stress {
    struct native *native;
    struct stress_guest *guest;
    unsigned l1_entries;
    struct row_choice choice;
    struct program programs[BATCH];
    struct stress_results *ours;
    csh capstone;
    uint64_t seed, only_case;
    unsigned shown, show;
    bool whole;
    struct {
        uint64_t cases, runs, items, ended, hung, different, unstable;
        uint64_t vectors[32];
    } total;
};

static uint64_t env_number(const char *name, uint64_t fallback)
{
    const char *text = getenv(name);
    return text && *text ? strtoull(text, NULL, 0) : fallback;
}

/* ---- What is shown ---- */

static void show_code(const struct stress *s, const struct program *program, const uint8_t *code)
{
    for (unsigned i = 0; i < program->count; i++) {
        const struct item *item = &program->items[i];
        cs_insn *text = NULL;
        if (item->dropped)
            continue;
        fprintf(stderr, "  %llx ", (unsigned long long)STRESS_CODE + item->offset);
        for (unsigned j = 0; j < 11; j++)
            fprintf(stderr, j < item->length ? " %02x" : "   ", code[(item->offset + j) % STRESS_CODE_SIZE]);
        if (cs_disasm(s->capstone, code + item->offset, item->length, STRESS_CODE + item->offset, 1, &text)) {
            fprintf(stderr, "  %s %s", text->mnemonic, text->op_str);
            cs_free(text, 1);
        } else {
            fprintf(stderr, "  %s", code[item->offset] == STRESS_FILLING ? "(end)" : "?");
        }
        fprintf(stderr, "\n");
    }
}

static void show_state(const struct machine_state *state)
{
    for (unsigned i = 0; i < 16; i++)
        fprintf(stderr, "%s%s %llx%s", i % 6 ? " " : "    ", gpr_names[i], (unsigned long long)state->gpr[i],
                i % 6 == 5 ? "\n" : "");
    fprintf(stderr, " rflags %llx mxcsr %x fcw %x fsw %x\n", (unsigned long long)state->rflags, state->fx.mxcsr,
            state->fx.fcw, state->fx.fsw);
}

static const char *engine_name(void)
{
    const char *name = getenv("EIDOLON_ENGINE");
    return name && *name ? name : "interp";
}

static void show_failure(struct stress *s, const struct program *original, const struct stress_case *test, int run,
                         const char *text)
{
    static struct program program;
    static struct stress_case smaller;
    static char small_text[TEXT_SIZE];
    struct oracle oracle = { .native = s->native, .l1_entries = s->l1_entries };
    bool reduced;

    program = *original;
    smaller = *test;
    fprintf(stderr, "case 0x%llx (seed 0x%llx, %s, TLB limit %u) differs in run %d:\n",
            (unsigned long long)test->number, (unsigned long long)s->seed, engine_name(), s->l1_entries, run + 1);
    reduced = !s->whole && minimise(&oracle, &program, &smaller);
    if (reduced)
        run = oracle_try(&oracle, &program, &smaller, small_text, sizeof(small_text));
    else if (!s->whole)
        fprintf(stderr, "  (not when it runs alone: what ran before matters)\n");
    show_code(s, &program, smaller.code);
    fprintf(stderr, "%s", reduced && run >= 0 ? small_text : text);
    for (unsigned i = 0; i < smaller.runs; i++) {
        fprintf(stderr, "  run %u, memory %u:\n", i + 1, smaller.pattern);
        show_state(&smaller.state[i]);
    }
}

/* ---- Cases ---- */

static bool make_case(struct stress *s, unsigned index, uint64_t number)
{
    struct stress_case *test = native_case(s->native, index);
    struct program *program = &s->programs[index];
    struct rng rng = { ~number };

    if (!generate_program(program, number, &s->choice))
        return false;
    test->number = number;
    generate_states(test, program, &rng);
    return program_assemble(program, test->code);
}

static void account(struct stress *s, const struct program *program, const struct stress_case *test,
                    const struct stress_results *host)
{
    s->total.cases++;
    s->total.items += program->count;
    for (unsigned i = 0; i < test->runs; i++) {
        const struct stress_result *result = &host->run[i];
        const struct item *item = program_find(program, result->state.rip);
        s->total.runs++;
        if (result->outcome.vector == OUTCOME_HANG && s->total.hung++ < s->show)
            fprintf(stderr, "case 0x%llx hangs on the host in run %u\n", (unsigned long long)test->number, i + 1);
        if (item && item->flow == FLOW_STOP)
            s->total.ended++;
        else if (result->outcome.vector < ARRAY_SIZE(s->total.vectors))
            s->total.vectors[result->outcome.vector]++;
    }
}

struct failure {
    struct stress_case test;
    struct stress_results host;
    unsigned index;
};

/* Does the host do the same again? Not always: rarely, a processor executes what was there before code was changed. */
static bool host_agrees_with_itself(struct stress *s, const struct failure *failure)
{
    static char text[TEXT_SIZE];

    memcpy(native_case(s->native, 0), &failure->test, sizeof(failure->test));
    native_start(s->native, 1);
    native_finish(s->native);
    return stress_compare(&failure->test, &s->programs[failure->index], &failure->host, native_result(s->native, 0),
                          text, sizeof(text)) < 0;
}

static void take_failure(struct stress *s, const struct failure *failure)
{
    static char text[TEXT_SIZE];
    const struct program *program = &s->programs[failure->index];
    int run = stress_compare(&failure->test, program, &failure->host, &s->ours[failure->index], text, sizeof(text));

    if (!host_agrees_with_itself(s, failure)) {
        s->total.unstable++;
        fprintf(stderr, "case 0x%llx: the host differs from itself in run %d; left out\n%s",
                (unsigned long long)failure->test.number, run + 1, text);
        return;
    }
    s->total.different++;
    if (s->shown++ < s->show)
        show_failure(s, program, &failure->test, run, text);
}

static void run_batch(struct stress *s, unsigned count)
{
    static char text[TEXT_SIZE];
    static struct failure failures[FAILURES];
    unsigned failed = 0;

    native_start(s->native, count);
    for (unsigned i = 0; i < count; i++) { /* meanwhile, here */
        if ((s->total.cases + i) % FLUSH_EVERY == 0)
            stress_guest_flush(s->guest);
        stress_guest_run(s->guest, native_case(s->native, i), &s->ours[i]);
    }
    native_finish(s->native);
    for (unsigned i = 0; i < count; i++) {
        const struct stress_case *test = native_case(s->native, i);
        const struct stress_results *host = native_result(s->native, i);
        if (s->only_case)
            show_code(s, &s->programs[i], test->code);
        account(s, &s->programs[i], test, host);
        if (stress_compare(test, &s->programs[i], host, &s->ours[i], text, sizeof(text)) < 0)
            continue;
        if (failed == FAILURES)
            s->total.different++;
        else
            failures[failed++] = (struct failure){ .test = *test, .host = *host, .index = i };
    }
    for (unsigned i = 0; i < failed; i++) /* what the batch shares with the child is overwritten from here on */
        take_failure(s, &failures[i]);
}

static void run_cases(struct stress *s, uint64_t cases)
{
    struct rng rng = { s->seed * 0x10001 + s->l1_entries };
    unsigned n = 0;

    for (uint64_t i = 0; i < cases; i++) {
        if (make_case(s, n, s->only_case ? s->only_case : rng_next(&rng)))
            n++;
        if (n && (n == BATCH || i + 1 == cases || s->only_case)) {
            run_batch(s, n);
            n = 0;
        }
        if (s->only_case)
            break;
    }
}

static void report(const struct stress *s)
{
    fprintf(stderr,
            "tests/stress (%s, TLB limit %u): %llu sequences, %llu runs, %.1f instructions each, %llu ran to the end",
            engine_name(), s->l1_entries, (unsigned long long)s->total.cases, (unsigned long long)s->total.runs,
            (double)s->total.items / (double)MAX(s->total.cases, 1ull), (unsigned long long)s->total.ended);
    for (unsigned i = 0; i < ARRAY_SIZE(s->total.vectors); i++)
        if (s->total.vectors[i])
            fprintf(stderr, ", %llu vector %u", (unsigned long long)s->total.vectors[i], i);
    fprintf(stderr, ", %llu hung, %llu left out; seed 0x%llx\n", (unsigned long long)s->total.hung,
            (unsigned long long)s->total.unstable, (unsigned long long)s->seed);
}

static void run_test(unsigned l1_entries)
{
    static struct stress stress;
    struct stress *s = &stress;

    s->l1_entries = l1_entries;
    s->seed = env_number("EIDOLON_SEED", DEFAULT_SEED);
    s->only_case = env_number("EIDOLON_STRESS_CASE", 0);
    s->show = (unsigned)env_number("EIDOLON_STRESS_SHOW", 3);
    s->whole = getenv("EIDOLON_STRESS_WHOLE");
    s->native = native_create(&stress_native_job, BATCH); /* forks: before anything else has been set up */
    s->guest = stress_guest_create(l1_entries);
    s->ours = calloc(BATCH, sizeof(*s->ours));
    cr_assert(s->ours);
    cr_assert(cs_open(CS_ARCH_X86, CS_MODE_64, &s->capstone) == CS_ERR_OK);
    row_choice_init(&s->choice, stress_guest_model(s->guest));
    run_cases(s, env_number("EIDOLON_STRESS_CASES", DEFAULT_CASES));
    report(s);
    row_choice_free(&s->choice);
    cs_close(&s->capstone);
    free(s->ours);
    stress_guest_destroy(s->guest);
    native_destroy(s->native);
    cr_assert(s->total.cases && s->total.ended, "nothing ran");
    cr_assert(s->total.unstable <= 3 + s->total.runs / 100000, "the host is no oracle");
    cr_assert(!s->total.different, "%llu of %llu sequences differ from the host (seed 0x%llx)",
              (unsigned long long)s->total.different, (unsigned long long)s->total.cases, (unsigned long long)s->seed);
}

Test(stress, full_tlb, .timeout = 7200)
{
    run_test(0);
}

Test(stress, tiny_tlb, .timeout = 7200)
{
    run_test(4);
}
