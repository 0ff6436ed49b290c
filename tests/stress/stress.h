/* tests/stress: random sequences of instructions, run on the host CPU (in a forked child) and by an engine, compared in
 * everything that they may change.
 *
 *   program.c      a sequence as items with symbolic targets: layout, undefined flags, dropping of parts
 *   generate.c     its structure: straight code, branches, loops, calls
 *   instruction.c  one instruction of the table whose operands keep to the rules below
 *   operands.c     memory operands
 *   idioms.c       short pieces of code that random choice would not come up with
 *   selfmod.c      code that reads and changes code
 *   values.c       registers at the start
 *   native_stress.c  the child's part (tests/insn/native.c)
 *   emulate.c      the guest: user mode beneath a kernel of nothing but exception handlers
 *   compare.c, minimise.c, stress_test.c
 *
 * The rules. A sequence has a few registers that hold addresses ("anchors") or small numbers ("indices", loop counters).
 * They are only changed in ways that keep them so. All memory operands go through them, or are relative to RIP, or
 * absolute. So nothing is hit but these pages, the same in child and guest, and what lies around them, which is not mapped:
 *
 *   CODE        4 pages, read, write and execute
 *   DATA        4 pages read-write, one read-only
 *   STACK       3 pages read-write
 *   SLOTS       1 page read-write: loop counters, addresses of code
 *   CODE_ALIAS  CODE again, without execute
 *   DATA_ALIAS  two pages of DATA again, in the other order
 *   DATA_HIGH   4 GiB above DATA, its pages in reverse order: where an address goes that is not cut to 32 bits
 */
#ifndef EIDOLON_TESTS_STRESS_STRESS_H
#define EIDOLON_TESTS_STRESS_STRESS_H

#include "tests/insn/insn_test.h"

#define STRESS_CODE       0x13572000ull
#define STRESS_DATA       0x2468a000ull
#define STRESS_STACK      0x61b4e000ull
#define STRESS_SLOTS      0x3c9f1000ull
#define STRESS_CODE_ALIAS 0x2f13d000ull
#define STRESS_DATA_ALIAS 0x5a3c7000ull
#ifdef __SANITIZE_ADDRESS__ /* its shadow memory is there; nothing goes there but by mistake */
#define STRESS_HAS_HIGH 0
#else
#define STRESS_HAS_HIGH 1
#endif
#define STRESS_DATA_HIGH    (STRESS_DATA + 0x100000000ull)
#define STRESS_CODE_SIZE    0x4000u
#define STRESS_DATA_SIZE    0x4000u
#define STRESS_CONST_SIZE   0x1000u /* read-only, behind DATA */
#define STRESS_STACK_SIZE   0x3000u
#define STRESS_SLOTS_SIZE   0x1000u
#define STRESS_FS_BASE      (STRESS_DATA + 0x1200)
#define STRESS_GS_BASE      (STRESS_DATA + 0x2e40)
/* Memory in one piece: as the child's file and the guest's RAM hold it. */
#define STRESS_DATA_OFFSET  STRESS_CODE_SIZE
#define STRESS_STACK_OFFSET (STRESS_DATA_OFFSET + STRESS_DATA_SIZE)
#define STRESS_SLOTS_OFFSET (STRESS_STACK_OFFSET + STRESS_STACK_SIZE)
#define STRESS_CHANGEABLE   (STRESS_SLOTS_OFFSET + STRESS_SLOTS_SIZE)
#define STRESS_CONST_OFFSET STRESS_CHANGEABLE
#define STRESS_MEMORY       (STRESS_CONST_OFFSET + STRESS_CONST_SIZE)
/* What fills CODE around the sequence: PUSH ES, invalid in 64-bit mode. Arriving there is how a sequence ends. */
#define STRESS_FILLING      0x06

/* The read-only page: tables of values that may be loaded into special registers, then patterns. */
enum {
    CONST_MXCSR = 0x000,    /* 16 dwords */
    CONST_FCW = 0x040,      /* 16 words */
    CONST_INDICES4 = 0x80,  /* 32 dwords, -32 to 31: for gathers */
    CONST_INDICES8 = 0x100, /* 16 qwords */
    CONST_PATTERN = 0x180,
};

#define STRESS_RUNS     4   /* of one sequence, each with registers of its own */
#define STRESS_ITEMS    160 /* of a program */
#define STRESS_GPRS_ALL 0xffffu

/* ---- Programs: program.c ---- */

/* How some bytes of an item depend on where other items are. */
enum fix_kind {
    FIX_NONE,
    FIX_BRANCH, /* distance from the end of this item to the target */
    FIX_RELATIVE, /* the same, of 4 bytes, in a RIP-relative operand: also to what is not an item (target == TARGET_ADDRESS) */
    FIX_ABSOLUTE, /* the target's address */
};
enum { TARGET_ADDRESS = -1 /* addend is the address */, TARGET_START = -2, TARGET_END = -3 };

enum item_flow { FLOW_NEXT, FLOW_BRANCH, FLOW_JUMP, FLOW_CALL, FLOW_RETURN, FLOW_STOP };

struct item {
    uint8_t bytes[16];
    uint8_t length;
    uint8_t fix, fix_offset, fix_size;
    int16_t target; /* item number, or TARGET_* */
    int64_t addend;
    uint8_t flow;
    int16_t flow_target; /* of BRANCH, JUMP, CALL */
    uint16_t group;      /* items with the same one, if not 0, are dropped together */
    bool dropped;
    bool entry;                                          /* the fix's target is where something will jump to */
    uint32_t flags_read, flags_written, flags_undefined; /* as in the table */
    uint32_t offset;                                     /* in CODE, after program_assemble */
    uint32_t undefined;                                  /* flags that may be undefined before it */
};

struct program {
    struct item items[STRESS_ITEMS];
    unsigned count;
    uint32_t start; /* offset of the first item in CODE */
    uint32_t end;   /* behind the last */
    /* Of the registers: the rules above. */
    struct {
        uint8_t kind; /* enum register_kind */
    } registers[16];
    uint32_t undefined_anywhere;
    bool moves_strings; /* MOVS: no anchor points into DATA_ALIAS */
};

enum register_kind {
    REGISTER_FREE,
    REGISTER_ANCHOR,   /* an address of data */
    REGISTER_ANCHOR32, /* its low half is: only for 32-bit addressing */
    REGISTER_INDEX,    /* -64 to 63 */
    REGISTER_STACK,    /* RSP of a program with a stack */
    REGISTER_FRAME,    /* RBP, pointing into the stack */
    REGISTER_TAKEN,    /* a loop counter */
};

/* Bytes of all items to code[]. False: something does not fit. */
bool program_assemble(struct program *program, uint8_t *code);
/* Fills in `undefined` of all items. False: some item reads a flag that may be undefined, *where says which. */
bool program_check_flags(struct program *program, unsigned *where);
/* The item at a linear address; NULL: none begins there. */
const struct item *program_find(const struct program *program, uint64_t address);
/* Puts an item before another one; what branched there goes to the new one if `redirect`. */
bool program_insert(struct program *program, unsigned before, const struct item *item);

/* ---- Cases ---- */

struct stress_case {
    uint64_t number;
    uint32_t pattern; /* of memory */
    uint32_t runs;
    struct machine_state state[STRESS_RUNS];
    uint8_t code[STRESS_CODE_SIZE];
};

struct stress_result {
    struct outcome outcome;
    struct machine_state state;
    uint8_t memory[STRESS_CHANGEABLE];
};
struct stress_results {
    struct stress_result run[STRESS_RUNS];
};

/* ---- generate.c, instruction.c, operands.c, idioms.c, selfmod.c ---- */

/* Rows that a test runs, by sort. */
enum row_sort { ROWS_INTEGER, ROWS_VECTOR, ROWS_X87, ROWS_MMX, ROWS_FAULTING, ROW_SORTS };
struct row_choice {
    const struct insn_row **rows[ROW_SORTS];
    unsigned count[ROW_SORTS];
};
void row_choice_init(struct row_choice *choice, const struct cpuid_model *model);
void row_choice_free(struct row_choice *choice);

struct generator {
    struct rng *rng;
    struct program *program;
    const struct row_choice *choice;
    bool has_stack;
    unsigned loop_depth, loops, groups, slots;
    unsigned subroutines; /* how many calls wait for theirs */
    struct {
        int16_t address, call; /* items whose target comes later: the same one, or that which makes the address */
        uint16_t taken;        /* registers that the subroutine may not change: loop counters around the call */
    } calls[4];
    bool in_subroutine;
    unsigned weights[ROW_SORTS]; /* of straight code */
    /* The last anchor operand: the next one may be near it. */
    int last_anchor; /* -1: none */
    int32_t last_disp;
    /* What add_row has to come up with. */
    enum operand_wish { WISH_ANY, WISH_MEMORY, WISH_GROUP /* through last_anchor */, WISH_REGISTER } wish;
    struct item sink; /* takes what there is no room for */
};

/* The whole sequence; false (rarely): try another number. */
bool generate_program(struct program *program, uint64_t number, const struct row_choice *choice);

bool register_is_free(const struct generator *g, unsigned reg);
int pick_register(struct generator *g, enum register_kind kind); /* -1: there is none */
unsigned pick_free(struct generator *g);                         /* free, or RAX if none is */
/* Adds an item of these bytes; flags and flow come from the table. If there is no room, it goes nowhere. */
struct item *add_bytes(struct generator *g, const uint8_t *bytes, unsigned length);
#define ADD(g, ...) add_bytes(g, (const uint8_t[]){ __VA_ARGS__ }, sizeof((const uint8_t[]){ __VA_ARGS__ }))

/* instruction.c: one instruction of a row, operands as the rules want. NULL: none came of it. */
struct item *add_row(struct generator *g, const struct insn_row *row);
struct item *add_random(struct generator *g, enum row_sort sort);
/* A row with one of these handlers. */
struct item *add_handler(struct generator *g, enum operand_wish wish, unsigned first, unsigned last);
/* "op r64, r64" and friends by opcode: REX chosen for size 4 or 8. */
struct item *add_reg_reg(struct generator *g, unsigned opcode, unsigned size, unsigned rm, unsigned reg);
struct item *add_reg_imm(struct generator *g, unsigned digit, unsigned size, unsigned rm, int32_t imm);
struct item *add_mov_imm(struct generator *g, unsigned reg, uint64_t value);
/* opcode with an address relative to RIP: lea, mov ... `map` 0 or 0x0f. */
struct item *add_rip(struct generator *g, unsigned map, unsigned opcode, unsigned size, unsigned reg, int target,
                     int64_t addend);

/* operands.c: makes the memory operand lie where it may. False: this form cannot. */
struct place {
    uint8_t fix, fix_size;
    int16_t target;
    int64_t addend;
};
bool place_operand(struct generator *g, struct insn *insn, unsigned size, unsigned alignment, bool writes,
                   struct place *place);

/* idioms.c, selfmod.c: each adds a few items. */
void add_idiom(struct generator *g);
void add_selfmod(struct generator *g);
/* generate.c */
void add_straight(struct generator *g, unsigned count);

/* ---- values.c ---- */
void generate_states(struct stress_case *test, const struct program *program, struct rng *rng);
void stress_memory(uint32_t pattern, uint8_t *memory); /* STRESS_MEMORY bytes; CODE is not touched */

/* ---- native_stress.c ---- */
extern const struct native_job stress_native_job;

/* ---- emulate.c ---- */
struct stress_guest;
struct stress_guest *stress_guest_create(unsigned l1_entries);
void stress_guest_destroy(struct stress_guest *guest);
const struct cpuid_model *stress_guest_model(const struct stress_guest *guest);
/* Everything cached goes: translations, TLBs. */
void stress_guest_flush(struct stress_guest *guest);
void stress_guest_run(struct stress_guest *guest, const struct stress_case *test, struct stress_results *results);

/* ---- compare.c ---- */
/* The first run that differs, with the differences in text; -1: none. */
int stress_compare(const struct stress_case *test, const struct program *program, const struct stress_results *native,
                   const struct stress_results *ours, char *text, size_t size);

#endif
