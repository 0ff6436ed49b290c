/* tests/insn: the host CPU is the oracle. A generated instruction runs once natively, in a forked child, and once on
 * our engine; everything that it may change is compared.
 *
 *   generate.c  instruction bytes for a table row
 *   operands.c  where operands lie: addresses, counts, branch targets
 *   values.c    what they hold: corner values
 *   native.c, native_run.S  the child (also of tests/stress)
 *   native_insn.c  what it does with a case
 *   emulate.c   the guest: 64-bit user mode, the same pages at the same addresses
 *   compare.c, compare_state.c  what is compared and what is not
 *   rows.c, excluded.def  rows that the host cannot or must not execute, with reasons
 *   insn_test.c the driver
 *
 * The address space, the same in the child and in the guest:
 *
 *   CODE_BASE            execute + write (child), execute only for the guest's own stores
 *   CODE_BASE + 4K       not mapped
 *   DATA_BASE - 4K       not mapped
 *   DATA_BASE            read-write, two pages
 *   DATA_BASE + 8K       read-only, one page
 *   DATA_BASE + 12K      not mapped
 */
#ifndef EIDOLON_TESTS_INSN_INSN_TEST_H
#define EIDOLON_TESTS_INSN_INSN_TEST_H

#include "base/types.h"
#include "tests/insn/native.h"

struct insn; /* cpu/decode/insn.h is not included: its REG_* names clash with <signal.h> */
struct insn_row;
struct cpuid_model;

/* Not at or a power of two away from powers of two, which are frequent among register values. */
#define CODE_BASE     0x13572000ull
#define DATA_BASE     0x2468a000ull
#define DATA_WRITABLE 0x2000ull
#define DATA_SIZE     0x3000ull
#define FS_BASE       (DATA_BASE + 0x400)
#define GS_BASE       (DATA_BASE + 0xc00)

#define PATCH_MAX  2
#define PATCH_SIZE 128

/* Memory is a fixed pattern with up to two places overwritten. */
struct memory_patch {
    uint32_t offset; /* from DATA_BASE */
    uint32_t size;
    uint8_t bytes[PATCH_SIZE];
};

struct insn_case {
    uint64_t number;                /* seed of everything in the case */
    const struct insn_row *row;     /* that it was generated for */
    const struct insn_row *decoded; /* what our decoder makes of the bytes; NULL: invalid */
    uint8_t bytes[16];
    uint8_t length; /* as our decoder sees it; invalid ones: all the bytes */
    uint16_t code_offset;
    bool branches;                  /* nothing is placed behind it: wherever it goes traps */
    uint64_t operand_address;       /* linear, of the ModRM operand; 0: none */
    uint8_t disp_offset, disp_size; /* of the displacement in bytes[]; size 0: none */
    struct memory_patch patch[PATCH_MAX];
    struct machine_state state;
};

#define CHANGE_MAX 1024
struct insn_result {
    struct outcome outcome;
    struct machine_state state;
    /* The bytes of memory that differ from the initial contents: from `first` to `last`. */
    uint32_t change_first, change_size; /* size 0: nothing */
    uint8_t change[CHANGE_MAX];         /* at most CHANGE_MAX of them */
};

/* ---- Random numbers: splitmix64 ---- */
struct rng {
    uint64_t state;
};
static inline uint64_t rng_next(struct rng *rng)
{
    uint64_t z = (rng->state += 0x9e3779b97f4a7c15ull);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
}
static inline unsigned rng_below(struct rng *rng, unsigned n)
{
    return (unsigned)((rng_next(rng) >> 32) * n >> 32);
}
static inline bool rng_chance(struct rng *rng, unsigned percent)
{
    return rng_below(rng, 100) < percent;
}

/* ---- generate.c ---- */
/* A whole case from its number; false if no bytes for the row could be found. */
bool generate_case(struct insn_case *test, const struct insn_row *row, uint64_t number);
/* Only bytes for test->row; false if this attempt gave those of another row. Fills all of *test but patches and state. */
bool generate_bytes(struct insn_case *test, struct rng *rng, struct insn *insn);

/* ---- operands.c, values.c ---- */
/* Fills registers and memory. May change the displacement or the immediate in bytes[], and *insn with them, so that
 * the operand lies where it is wanted. */
void generate_state(struct insn_case *test, struct rng *rng, struct insn *insn);
void fill_lanes(struct rng *rng, uint8_t *bytes, unsigned size, const char *mnemonic);
uint64_t corner_integer(struct rng *rng);
void generate_x87(struct rng *rng, struct fx_image *fx);
void generate_mxcsr(struct rng *rng, struct fx_image *fx);
void memory_pattern(uint8_t *data); /* DATA_SIZE bytes */
void memory_patch_apply(const struct insn_case *test, uint8_t *data);
void memory_find_change(const struct insn_case *test, const uint8_t *pattern, const uint8_t *data,
                        struct insn_result *result);

/* ---- native_insn.c: one instruction in the child of native.c ---- */
extern const struct native_job insn_native_job;

/* ---- rows.c ---- */
/* Why the row is not run, neither here nor in tests/stress; NULL if it is. */
const char *row_skip_reason(const struct insn_row *row, const struct cpuid_model *model);

/* ---- emulate.c ---- */
struct emulated;
struct emulated *emulated_create(void);
void emulated_destroy(struct emulated *emulated);
const struct cpuid_model *emulated_model(const struct emulated *emulated);
void emulated_run(struct emulated *emulated, const struct insn_case *test, struct insn_result *result);

/* ---- compare.c ---- */
/* Lists every difference in text (a line each); false if there is none. */
bool compare_results(const struct insn_case *test, const struct insn_result *native, const struct insn_result *emulated,
                     char *text, size_t size);

#endif
