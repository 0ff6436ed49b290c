/* tests/insn: the host CPU is the oracle. A generated instruction runs once natively, in a forked child, and once on
 * our engine; everything that it may change is compared.
 *
 *   generate.c  instruction bytes for a table row
 *   operands.c  where operands lie: addresses, counts, branch targets
 *   values.c    what they hold: corner values
 *   native.c, native_run.S  the child
 *   emulate.c   the guest: 64-bit user mode, the same pages at the same addresses
 *   compare.c   what is compared and what is not
 *   excluded.def  rows that the host cannot or must not execute, with reasons
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

struct insn; /* cpu/decode/insn.h is not included: its REG_* names clash with <signal.h> */
struct insn_row;

/* Not at or a power of two away from powers of two, which are frequent among register values. */
#define CODE_BASE     0x13572000ull
#define DATA_BASE     0x2468a000ull
#define DATA_WRITABLE 0x2000ull
#define DATA_SIZE     0x3000ull
#define FS_BASE       (DATA_BASE + 0x400)
#define GS_BASE       (DATA_BASE + 0xc00)

/* FXSAVE image: SDM Vol. 1 table 10-2. */
struct fx_image {
    uint16_t fcw, fsw;
    uint8_t ftw, reserved;
    uint16_t fop;
    uint64_t fip, fdp;
    uint32_t mxcsr, mxcsr_mask;
    uint8_t st[8][16];
    uint8_t xmm[16][16];
    uint8_t rest[96];
} __attribute__((aligned(64)));
_Static_assert(sizeof(struct fx_image) == 512, "FXSAVE image");

/* Offsets are used by native_run.S. */
struct machine_state {
    struct fx_image fx;        /* 0; its xmm part is not used */
    uint8_t ymm[16][32];       /* 512 */
    uint64_t gpr[16];          /* 1024, in encoding order */
    uint64_t rip;              /* 1152 */
    uint64_t rflags;           /* 1160 */
    uint64_t fs_base, gs_base; /* 1168, 1176 */
};
_Static_assert(offsetof(struct machine_state, ymm) == 512 && offsetof(struct machine_state, gpr) == 1024 &&
                   offsetof(struct machine_state, rip) == 1152 && offsetof(struct machine_state, gs_base) == 1176,
               "native_run.S");

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

/* An execution that never came back: no vector has this number. */
enum { OUTCOME_NONE = 0xff, OUTCOME_HANG = 0xfe, OUTCOME_DIED = 0xfd };

#define CHANGE_MAX 1024
struct insn_result {
    uint8_t vector; /* OUTCOME_NONE: completed */
    bool completed; /* the child got as far as writing this */
    uint32_t error;
    uint64_t cr2; /* if vector is #PF */
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

/* ---- native.c ---- */
struct native;
bool native_has_avx(void);
bool native_has_fsgsbase(void);
struct native *native_create(unsigned batch);
void native_destroy(struct native *native);
struct insn_case *native_cases(struct native *native); /* `batch` of them, shared with the child */
struct insn_result *native_results(struct native *native);
void native_start(struct native *native, unsigned count); /* runs cases [0, count) in the child */
void native_finish(struct native *native);                /* waits for it */

/* ---- emulate.c ---- */
struct emulated;
struct emulated *emulated_create(void);
void emulated_destroy(struct emulated *emulated);
bool emulated_has(const struct emulated *emulated, unsigned feature);
void emulated_run(struct emulated *emulated, const struct insn_case *test, struct insn_result *result);

/* ---- compare.c ---- */
/* Lists every difference in text (a line each); false if there is none. */
bool compare_results(const struct insn_case *test, const struct insn_result *native, const struct insn_result *emulated,
                     char *text, size_t size);
/* Why the row is not run; NULL if it is. */
const char *row_excluded(const struct insn_row *row);

#endif
