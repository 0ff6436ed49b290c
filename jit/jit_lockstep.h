/* What the files of the lockstep engine share. How it works is told at the head of jit_lockstep.c. */
#ifndef EIDOLON_JIT_JIT_LOCKSTEP_H
#define EIDOLON_JIT_JIT_LOCKSTEP_H

#include "base/host_memory.h"
#include "jit/jit_disassemble.h"
#include "jit/jit_internal.h"

/* ---- What is not compared ---- */

/* REASON(name, text): instructions that run once, on the interpreter. */
#define LOCKSTEP_REASONS(REASON)                                                                                       \
    REASON(PORT, "port I/O")                                                                                           \
    REASON(MMIO, "accesses to devices' memory")                                                                        \
    REASON(CLOCK, "clocks and random numbers")                                                                         \
    REASON(MSR, "model-specific registers")                                                                            \
    REASON(CONTROL, "control and debug registers, TLB invalidation, HLT, CPUID, hypercalls")                           \
    REASON(MODE, "code that the translator leaves to the interpreter (16-bit, segmented, single-stepped)")             \
    REASON(UNTRANSLATED, "blocks that the translator left without executing anything")                                 \
    REASON(PAGES, "instructions that write to too many pages")                                                         \
    REASON(EVENT, "instructions in whose neighbourhood an event interrupted a repeated string instruction")

enum lockstep_reason {
#define REASON(name, text) REASON_##name,
    LOCKSTEP_REASONS(REASON)
#undef REASON
        REASON_COUNT,
    REASON_NONE = REASON_COUNT
};
enum lockstep_reason lockstep_reason_of(const struct insn *insn); /* REASON_NONE: may be run twice */

/* The fault of an access that is to be made once, by nobody else than the interpreter. */
enum { VECTOR_WITHHELD = 0xff };

/* ---- State ---- */

/* struct cpu as far as `mmu`. */
struct lockstep_state {
    uint8_t bytes[offsetof(struct cpu, mmu)] __attribute__((aligned(64)));
};
void lockstep_state_save(const struct cpu *cpu, struct lockstep_state *state);
void lockstep_state_restore(struct cpu *cpu, const struct lockstep_state *state);
/* Bits of `undefined` (RFLAGS) may differ. */
bool lockstep_state_equal(const struct lockstep_state *a, const struct lockstep_state *b, uint64_t undefined);

/* ---- Memory ---- */

#define LOCKSTEP_PAGES_KEPT  3 /* whose write tags survive from block to block, so that checks hit as well as miss */
#define LOCKSTEP_PAGES_MAX   64
#define LOCKSTEP_WALKS_MAX   64
#define LOCKSTEP_ENTRIES_MAX 64
#define LOCKSTEP_TAGS_MAX    6

/* A page of RAM that the vCPU may write to by itself. */
struct lockstep_page {
    uint8_t *host;
    gpa_t gpa;
    uint8_t *window; /* where the vCPU writes to it: the page between two that nobody may access */
    uint8_t *before; /* contents before the block */
    uint8_t *after;  /* contents after the translated block, valid in [low, high) */
    unsigned low, high;
    uint64_t used; /* number of the step that last wrote to it, or entered it */
    struct {
        gva_t page;
        uint8_t privilege;
    } tags[LOCKSTEP_TAGS_MAX];
    unsigned tag_count; /* may be higher than there is room: then all are looked for */
};

enum lockstep_phase { PHASE_FREE, PHASE_TRANSLATED, PHASE_INTERPRETED };

struct lockstep_memory {
    enum lockstep_phase phase;
    bool stale;                    /* `before` is not what memory holds */
    bool missed_walks;             /* more walks than there was room to remember */
    bool full;                     /* a page could not enter the set */
    enum lockstep_reason withheld; /* of the last access that was */
    uint64_t step;
    unsigned page_count, walk_count, entry_count;
    struct lockstep_page pages[LOCKSTEP_PAGES_MAX];
    gva_t walks[LOCKSTEP_WALKS_MAX];
    uint8_t *entries[LOCKSTEP_ENTRIES_MAX]; /* of page tables: A or D was set by a walk */
    struct host_region images;
    uint8_t *ram, *read_only; /* guest RAM, and another view of it */
    uint64_t ram_size;
    int ram_fd;
    uint8_t *windows;
    struct mmu_watch watch;
};

/* ---- Blocks ---- */

struct lockstep_op {
    struct iop iop;
    uint32_t leaves_undefined, defines; /* flags */
};

struct lockstep_plan {
    struct lockstep_plan *next;
    gpa_t gpa, second_page; /* second_page: of the one instruction that crosses a page, else 0 */
    uint64_t generation;
    struct jit_block *block;
    jit_mode_t mode;
    uint8_t limit, count;
    struct lockstep_op ops[];
};

#define LOCKSTEP_BUCKETS 65536
#define LOCKSTEP_ARENA   (512 * MIB)

#define LOCKSTEP_TRACE 64

struct lockstep_trace {
    gva_t rip;
    gpa_t gpa;
    jit_mode_t mode;
    unsigned count; /* instructions executed */
};

struct lockstep_outcome {
    enum step step;
    unsigned executed;       /* instructions that retired */
    bool host_fault;         /* translated code raised a signal that the instruction does not account for */
    struct fault fault;      /* STEP_FAULT */
    uint64_t undefined;      /* flags */
    bool leaked;             /* undefined flags may have got elsewhere */
    const struct insn *last; /* that was tried; of the interpreter only */
    unsigned complete;       /* instructions that it has to finish, even if a repeated one is interrupted by an event */
};

struct lockstep {
    struct cpu *cpu;
    struct jit *jit;
    struct lockstep_state before, translated, interpreted;
    struct lockstep_memory memory;
    struct lockstep_plan *plans[LOCKSTEP_BUCKETS];
    struct host_region arena;
    size_t arena_used;
    bool in_slices;       /* chained code is compared, many blocks at once */
    bool again;           /* a slice that differed is run again */
    bool quiet;           /* differences are not reported: somebody looks for the place of one */
    unsigned budget;      /* blocks in a slice */
    uint64_t slice_start; /* jit->executed then */
    struct insn last;
    struct lockstep_trace trace[LOCKSTEP_TRACE]; /* what the interpreter executed of a slice: a ring */
    unsigned trace_count;
    uint64_t by_blocks; /* instructions of a slice that are compared again, block by block */
    uint64_t compared, steps, exceptions, repeated, leaked, not_compared[REASON_COUNT];
    bool failed; /* a difference has been reported */
};

/* jit_lockstep.c. plan: NULL: a slice of chained code. */
bool lockstep_run_both(struct lockstep *ls, const struct lockstep_plan *plan, struct lockstep_outcome *out);
bool lockstep_is_unfinished(enum step step); /* has the last instruction not retired? */
/* One instruction; true: it retired, and the next one in memory follows it. */
bool lockstep_interpret(struct lockstep *ls, const struct lockstep_op *op, struct lockstep_outcome *out);

/* jit_lockstep_slice.c */
void lockstep_slice_translated(struct lockstep *ls, struct lockstep_outcome *out);
void lockstep_slice_interpreted(struct lockstep *ls, const struct lockstep_outcome *translated,
                                struct lockstep_outcome *out);
/* After a difference in a slice, with the state before it: does it show with fewer blocks, and with blocks that are not chained? */
void lockstep_slice_again(struct lockstep *ls, uint64_t instructions);

/* jit_lockstep_watch.c */
bool lockstep_stores_x87_pointers(const struct insn *insn);
bool lockstep_withholds(struct lockstep *ls, const struct insn *insn, bool first);

/* jit_lockstep_plan.c: what to run at cpu_rip: at most `limit` instructions, `more`: MODE_NO_GROUPS or 0. NULL: *reason says why
 * the instruction at cpu_rip has to be run once; REASON_NONE: fetching it faults, cpu->fault is filled. */
struct lockstep_plan *lockstep_plan_find(struct lockstep *ls, unsigned limit, jit_mode_t more,
                                         enum lockstep_reason *reason);

/* jit_lockstep_memory.c */
int lockstep_memory_create(struct lockstep *ls, struct error *err);
void lockstep_memory_destroy(struct lockstep *ls);
void lockstep_memory_begin(struct lockstep *ls);
void lockstep_memory_turn(struct lockstep *ls); /* keeps what the translated block wrote, and undoes it */
/* Has the interpreter written the same? `tolerated`: where it need not have. */
struct lockstep_tolerance {
    uint8_t entry_bits; /* that walks set in table entries */
    gva_t gva;          /* `size` bytes that a faulting instruction may have written */
    unsigned size;
};
bool lockstep_memory_equal(struct lockstep *ls, const struct lockstep_tolerance *tolerated);
void lockstep_memory_undo(struct lockstep *ls); /* to how it was before the block */
void lockstep_memory_end(struct lockstep *ls);
bool lockstep_page_enter(struct lockstep_memory *memory, uint8_t *host, gpa_t gpa);
/* jit_lockstep_watch.c */
void lockstep_watch(struct lockstep *ls);

/* jit_lockstep_report.c */
void lockstep_report(struct lockstep *ls, const struct lockstep_plan *plan, const struct lockstep_outcome *translated,
                     const struct lockstep_outcome *interpreted); /* plan: NULL: a slice */
void lockstep_say(const char *text);
void lockstep_summary(const struct lockstep *ls);

#endif
