/* What the files of the translator share.
 *
 * Registers in translated code (host_of_guest below):
 *   rsp              the return stack: host return addresses, paired with guest calls
 *   rcx r11 r15      scratch: T1, T0 and A0 (the addend of the block's main group of accesses; free elsewhere)
 *   r9, r10          guest rcx and rsp
 *   the other ten    the guest register of the same number
 *   guest r9 r10 r11 r15 live in struct cpu
 * Arithmetic flags are in the host's RFLAGS, DF is clear; the rest of RFLAGS is in cpu->rflags. Everything else that code
 * addresses is RIP-relative: struct cpu and struct jit lie within 2 GiB of it. */
#ifndef EIDOLON_JIT_JIT_INTERNAL_H
#define EIDOLON_JIT_JIT_INTERNAL_H

#include "jit/jit.h"
#include "jit/jit_emit.h"
#include "jit/jit_op_stats.h"
#include "jit/jit_signal.h"
#include "jit/jit_tools.h"

#ifndef EIDOLON_ALWAYS_PARK
#define EIDOLON_ALWAYS_PARK 0 /* sanitizers: their runtime uses vector registers */
#endif

#define NOT_PINNED 0xff
extern const uint8_t host_of_guest[16];

static inline bool is_pinned(unsigned guest)
{
    return host_of_guest[guest] != NOT_PINNED;
}

/* ---- Mode: what a translation depends on besides the bytes ---- */
enum {
    MODE_CODE64 = 1 << 0,
    MODE_PRIVILEGE_SHIFT = 1, /* enum mmu_privilege, 2 bits */
    MODE_CPL_SHIFT = 3,       /* 2 bits */
    MODE_SSE = 1 << 5,        /* SSE instructions may be executed: no #NM, no #UD */
    MODE_AVX = 1 << 6,
    MODE_X87 = 1 << 7,
    MODE_NO_GROUPS = 1 << 8, /* no access shares another's check */
    MODE_CROSSING = 1 << 10, /* one instruction, in two pages */
    MODE_TSC = 1 << 11,      /* RDTSC and RDTSCP may be executed */
    MODE_FSGSBASE = 1 << 12,
    MODE_KEY = 0xff | MODE_TSC | MODE_FSGSBASE, /* what the CPU's state determines */
    MODE_SINGLE = 1 << 9,                       /* unchained and limited in length: jit_step_block; never cached */
};
typedef uint16_t jit_mode_t;

/* ---- Blocks ---- */

#define BLOCK_MAX_INSNS  48
#define BLOCK_MAX_LINKS  48
#define BLOCK_HOT_MAX    (16 * KIB)
#define BLOCK_COLD_MAX   (16 * KIB)
#define BLOCK_RECORD_MAX (8 * KIB)

/* Where a guest instruction begins, in the page and in the host code. */
struct insn_mark {
    uint16_t host;        /* offset from the block's hot code */
    uint8_t offset;       /* from the block's guest start */
    uint8_t flags_source; /* 1 + instruction whose flags the guest's are, while the host's are not; 0: they are */
};

/* An instruction that set the flags with which a block is left. A copy: its page may be written before it is needed. */
struct replay {
    uint8_t length;
    uint8_t bytes[INSN_MAX_LENGTH];
};
#define REPLAYS_MAX 16

/* A direct jump or call out of a block. Blocks and links are named by their offsets in the metadata arena, 0: none. */
struct link {
    uint32_t target;         /* block that it leads to; none: to its stub */
    uint32_t next_to_target; /* list of links to one block */
    uint32_t named_by; /* what names this link in that list: `incoming` of the block, or `next_to_target` of another */
    uint32_t patch;    /* offset in the code region of the rel32 */
    union {
        uint32_t stub;    /* in the page: offset of the cold stub */
        uint32_t compare; /* far: offset of the imm32 that the salt's number is compared with */
    };
    uint32_t counter;        /* far: site that counts misses down to the next link */
    uint16_t page_offset;    /* of the guest target */
    uint16_t flag_registers; /* flag_kind was set, and the instruction needs these registers; 0: it was not */
    bool far;                /* to another page */
    bool no_groups;          /* leads to a translation without groups */
    bool flags_elsewhere;    /* it is taken with flags that saved_flags and flag_kind tell of, as at replay_entry */
};

/* Behind its marks lie, in this order, `links`, `continuations` (offsets of the return points of its calls), `replays` and, of a block whose
 * one instruction lies in two pages (MODE_CROSSING), a struct crossing; replays[0] has that instruction's bytes. Offsets are in the
 * code region. */
struct crossing {
    gpa_t second_page;
    struct jit_block *next_in_second;
};
struct jit_block {
    struct jit_block *next_in_page;
    gpa_t gpa;
    uint32_t hot, cold;      /* hot: direct jumps of the same page arrive there */
    uint32_t indirect_entry; /* the same after setting vpage from T0; 0: not needed yet */
    uint32_t incoming;       /* links */
    uint16_t hot_size, cold_size;
    uint16_t replay_entry; /* from `hot`: behind what saves the flags, for links with fitting flag_registers; 0: none */
    uint16_t entry_writes; /* registers that are written before flags from before are no longer of interest */
    jit_mode_t mode;
    uint8_t guest_bytes; /* extent, looked-at bytes included */
    uint8_t insn_count, link_count, call_count, replay_count;
    bool valid, loop_tried;
    struct insn_mark marks[];
};

static inline struct link *jit_links(const struct jit_block *block)
{
    return (struct link *)ALIGN_UP((uintptr_t)&block->marks[block->insn_count + 1], 4);
}
static inline uint32_t *jit_continuations(const struct jit_block *block)
{
    return (uint32_t *)(jit_links(block) + block->link_count);
}
static inline struct replay *jit_replays(const struct jit_block *block)
{
    return (struct replay *)(jit_continuations(block) + block->call_count);
}
static inline struct crossing *jit_crossing(const struct jit_block *block)
{
    return (struct crossing *)ALIGN_UP((uintptr_t)(jit_replays(block) + block->replay_count), 8);
}
static inline gpa_t jit_second_page(const struct jit_block *block) /* 0: none */
{
    return block->mode & MODE_CROSSING ? jit_crossing(block)->second_page : 0;
}

#define PAGE_VIEWS 4
struct code_page {
    struct code_page *next;
    /* Where the page was entered: at one address for a salt (far links rely on it). */
    struct {
        uint32_t number;
        gva_t vpage;
    } views[PAGE_VIEWS];
    unsigned next_view;
    uint64_t swept; /* generation when its lists were last rid of dropped blocks */
    gpa_t page;
    uint64_t covered; /* bit n: a block may have bytes at 64 * n to 64 * n + 63 */
    struct jit_block *blocks;
    struct jit_block *crossing; /* blocks that begin in another page and end in this one: next_in_second */
};

/* What lies before each call of a thunk in a cold stub; the return address leads to it (jit_emit_stub.c). */
struct stub_info {
    uint16_t back; /* bytes from here to the block's offset in the metadata arena; 0: no block */
    uint8_t insn;  /* index in the block */
    uint8_t kind;  /* enum stub_kind | STUB_* */
} __attribute__((packed));
enum {
    STUB_KIND = 15,
    STUB_HAS_ALTERNATIVE = 16, /* GROUP: behind the jump back lies one to the translation without groups */
    STUB_FALLING = 32,         /* an exit behind the last instruction, not its own */
    STUB_FIRST_READS = 64,     /* GROUP_WRITE: the first access reads */
    STUB_STORES_VECTOR = 128,  /* WRITE: a vector register's lower part, nothing else; group_first is its number */
};
struct access_info { /* READ, WRITE, GROUP_* */
    uint32_t site;
    uint16_t limit; /* PAGE_SIZE - size of the access (or of the group's range) */
    uint8_t
        group_first; /* GROUP: address of the first access minus the lowest address of the group; STORES_VECTOR: register */
    uint8_t flags_source;
    struct stub_info stub;
} __attribute__((packed));
struct link_info {
    uint8_t link; /* index in the block */
    uint8_t flags_source;
    struct stub_info stub;
} __attribute__((packed));
struct far_info {
    int32_t distance; /* of the target from vpage */
    uint32_t counter; /* site */
    uint8_t link;
    struct stub_info stub;
} __attribute__((packed));
struct poll_info {
    int32_t distance; /* of the address from vpage */
    uint8_t flags_source;
    struct stub_info stub;
} __attribute__((packed));
#define FLAGS_SAVED    0xff /* flags_source: they are in jit->saved_flags */
#define FLAGS_ENTRY    0xfe /* those that the block was entered with: jit->flag_kind says where from */
#define STUB_CALL_SIZE 5
#define STUB_JUMP_SIZE 5

enum stub_kind {
    STUB_READ,
    STUB_WRITE,
    STUB_GROUP_READ,  /* range, readable */
    STUB_GROUP_WRITE, /* range, writable; the first access may be a read */
    STUB_LINK,
    STUB_FAR_LINK, /* to another page, `distance` bytes from vpage */
    STUB_HELPER,   /* the instruction is executed by its handler */
    STUB_LOOKUP,   /* T0: address that has no entry in the jump cache */
    STUB_POLL,     /* attention at a branch: rip is in T0 */
    STUB_POLL_AT,  /* the same, rip is `distance` bytes from vpage */
    STUB_ENTERED,  /* -d exec */
    STUB_DONE,     /* MODE_SINGLE: the block's end; rip is in T0 */
};

/* ---- Per vCPU ---- */

#define CROSSING_MAX 64 /* bytes of an access: a whole vector */

/* What is remembered by virtual address holds for a mode and an address space, which have a number (salt) together. */
struct mode_salt {
    uint32_t number; /* 0: none */
    uint32_t space;  /* 0: all, for supervisor code in global pages */
    jit_mode_t mode;
};
#define SALTS 64

/* Part of the return stack that is set aside while another mode runs. */
struct kept_stack {
    uint64_t sp; /* 0: none */
    struct mode_salt owner;
};

/* What SYSCALL and SYSRET need in thunks (jit_thunk_system.c): worked out in C when a system call was made the long way, valid until
 * something of it changes. `code` and `stack`: attributes, selector and `flat` of CS and SS. */
struct system_call {
    uint64_t valid;
    uint64_t lstar, sentinel;
    uint64_t kernel_code, kernel_stack, user_code, user_stack;
    uint64_t salt, negative_salt;
    uint32_t negative_number;
    struct mode_salt kernel;
};

/* Index of thunk_string: these, and the logarithm of the element's size. */
enum {
    STRING_MOVE = 1, /* MOVS; else STOS */
    STRING_REPEATED = 2,
    STRING_WIDE = 4, /* 64-bit addresses, else 32-bit */
    STRING_SIZE_SHIFT = 3,
    STRING_THUNKS = 4 << STRING_SIZE_SHIFT,
};

/* What STAC and CLAC need in thunks: supervisor code in one address space with AC clear [0] and set [1]. Both numbers are 0 until a switch was
 * made in C, and again when one of the two is not valid any more. */
struct access_side {
    uint64_t salt, negative_salt;
    uint32_t negative_number;
    struct mode_salt current;
};
struct access_switch {
    struct access_side sides[2];
};

#define JUMP_CACHE_SIZE (1u << 14)

/* What T0 is when thunk_access is called. */
enum access_form {
    FORM_XORED,   /* address ^ tag; T1: the predicted entry */
    FORM_OFFSET,  /* address - tag of the entry that the site predicts */
    FORM_ADDRESS, /* the address */
    ACCESS_FORMS
};

#define SITE_MISSES_START ((uint16_t)-256)
#define HABITS_SIZE       8192
enum { HABIT_HASHED = 1, /* not predicted */ HABIT_ALONE = 2 /* leads no group */ };
#define ADDEND_SLOTS      8
#define RETURN_STACK_SIZE (256 * KIB)
/* ~guest address, host address; the guard page begins at a multiple, so that the push meets it, never the call. */
#define RETURN_FRAME      16
#define CODE_DEFAULT      (27 * MIB)
#define SEGMENTS_MAX      8
#define SEGMENT_MIN       (128 * KIB)
#define PAGES_MAX         65536 /* with code */
#define SITES_MAX         (1u << 19)
#define BLOCK_LINES       16384
#define BLOCK_LINE        16
#define PAGE_BUCKETS      4096

/* Instructions that handlers execute, predecoded. */
struct iop_entry {
    gpa_t gpa;
    const struct jit_block *block;
    uint64_t generation;
    struct iop op;
};

struct jit_stats {
    uint64_t blocks, guest_insns, guest_bytes, hot_bytes, cold_bytes, translate_cycles;
    uint64_t lookups, links, invalidated, cache_flushes, evictions, site_misses, hashed, group_clones, ungrouped, loops,
        mispredicted;
    uint64_t exits_by_step[STEP_EXIT + 1];
    uint64_t helpers, slow_accesses, faults, host_faults, polls, exits, parks, salts, interpreted;
    uint64_t executed; /* counted by translated code, with -d jitstats */
};

struct jit {
    /* What generated code and thunks use: near the code. */
    uint64_t vpage; /* guest-virtual address of the page that the running block is in (its RIP & ~0xfff) */
    uint64_t salt, negative_salt;
    uint32_t negative_number; /* minus the salt's number, for far links */
    uint64_t interrupts;      /* RFLAGS.IF, in its place, while translated code runs: cpu->rflags has an old one */
    uint64_t flags_base;      /* what PUSHF pushes besides IF and the arithmetic flags */
    uint64_t tsc_offset;      /* guest TSC minus the host's */
    /* Low half: RFLAGS by PUSHFQ, where checks are about to clobber them. High half: at the entry of a block that clobbers the flags
     * it finds, where they are. 0: in the low half (PUSHFQ leaves it so); else block | index of the instruction in its `replays`,
     * whose operands are still what they were. */
    uint32_t saved_flags, flag_kind;
    uint64_t arithmetic_mask, sysret_flags_mask, upper_half_mask, direction_mask, pke_mask;
    uint64_t bit_masks[3]; /* of the number of a bit in 2, 4, 8 bytes */
    struct system_call system_call;
    struct access_switch access_switch;
    struct kept_stack user_stack, outer_stack; /* below a change of privilege; below one of AC */
    struct mode_salt current;
    uint64_t offset_mask; /* for pext: the page number */
    uint64_t half_space;  /* for emit_canonical_check */
    uint64_t jump_mask;
    uint64_t origin; /* A0 at the last lookup: block | instruction that jumped; ~return address of its stub; or 0 */
    uint64_t t0, t1, a0, flags_ax, tmp, flags_tmp, rax, r15, saved_ax;
    uint64_t addends[ADDEND_SLOTS];
    uint8_t crossing[2 * CROSSING_MAX]
        __attribute__((aligned(CROSSING_MAX))); /* bytes of two pages that an instruction reads */
    uint64_t return_sp, c_sp;
    const uint8_t *stub; /* return address of the stub that called */
    const void *resume;
    uint64_t executed;
    /* Host code by guest address: minus (address + salt), and where its block begins. The index: jump_mask's bits of the sum. */
    uint64_t jump_keys[JUMP_CACHE_SIZE];
    const void *jump_hosts[JUMP_CACHE_SIZE];

    struct cpu *cpu;
    struct emitter hot, cold;
    struct {
        uint8_t *write;
        const uint8_t *execute;
        size_t size;
        size_t thunks_size;
        size_t hot_size; /* of the hot part; the rest is cold */
    } code;
    struct tlb_entry **sites;  /* SITES_MAX, near the code */
    uint16_t *site_misses;     /* SITES_MAX; thunk_access counts up to 0: then C looks whether prediction is any good */
    uint32_t *site_times;      /* SITES_MAX; time stamp, in units of 256, when the count began */
    gpa_t habits[HABITS_SIZE]; /* instructions whose accesses are translated another way: address << 2 | HABIT_* */
    uint32_t site_count;
    uint8_t *return_stack; /* RETURN_STACK_SIZE with a guard page below */
    uint64_t return_base;  /* the empty stack's pointer */
    void *mapping;
    size_t mapping_size;

    /* Thunks: execution addresses */
    const uint8_t *thunk_slow, *thunk_far, *thunk_poll, *thunk_missed, *thunk_lookup, *thunk_lookup_direct,
        *thunk_return_empty, *thunk_return_invalid, *thunk_fault;
    const uint8_t *thunk_syscall, *thunk_sysret, *thunk_stac, *thunk_clac;
    const uint8_t *thunk_string[STRING_THUNKS];                   /* NULL: none */
    const uint8_t *thunk_access[2][ACCESS_FORMS][MMU_PRIVILEGES]; /* [write] */
    uint64_t (*enter)(const void *target);

    /* Metadata */
    uint8_t *arena;
    size_t arena_size, arena_used;
    /* Blocks by address and mode: each belongs into one line, at any place. Arena offset / 64 << 8 | part of the hash; 0: free. */
    uint32_t by_address[BLOCK_LINES][BLOCK_LINE] __attribute__((aligned(64)));
    struct code_page *pages[PAGE_BUCKETS];
    struct jit_block **by_code; /* by segments, in order of their hot code */
    size_t by_code_size;
    struct code_page *page_pool; /* PAGES_MAX */
    uint32_t page_count;         /* of the pool, taken */
    struct code_page *free_pages;
    /* Code, records and sites are used and dropped by segments. */
    unsigned segment, segment_count;
    struct {
        const uint8_t *hot, *cold;
        size_t arena, sites, blocks;
    } segment_end;
    uint32_t block_counts[SEGMENTS_MAX]; /* in by_code */
    struct {
        size_t hot, cold, arena;
    } populated;                     /* up to these offsets the host's pages are there */
    uint64_t generation;             /* grows whenever blocks are dropped for lack of room, or all are */
    uint64_t exec_global_generation; /* of the mmu, that salts belong to */
    uint32_t salt_number;
    uint64_t exec_space_generation;
    struct mode_salt salts[SALTS];
    bool supervisor_local; /* supervisor code was found in pages that are not global */
    struct iop_entry iops[1024];
    struct jit_block *single_block, *found;
    unsigned single_executed;
    bool group_missed; /* the single block was left because an access of a group needs to be made on its own */
    struct jit_signal_region signal_region;
    unsigned soft_limit; /* a block of so many instructions ends at the next branch */
    bool is_low;         /* all of this is below 2 GiB: [register * 8 + address] can be encoded */
    bool has_bmi2, has_avx, has_stats, flush_wanted;
    bool logs_entries; /* -d exec */
    unsigned single_limit;
    enum step exit_step;
    uint64_t fault_pc;
    int fault_signal;
    long long fault_registers[16];   /* as in ucontext_t, rip left out */
    struct translation *translation; /* scratch of jit_translate.c */
    struct jit_tools *tools;         /* NULL: nobody is told of new blocks */
    struct jit_op_stats op_stats;    /* counts NULL: not wanted */
    struct lockstep *lockstep;       /* NULL: another engine */
    /* For the lockstep engine: chained code is left after `budget` blocks, and at every fault. */
    bool slices;
    uint64_t budget, stray_faults; /* stray: host signals that were no fault of the instruction */
    struct jit_sabotage *sabotage; /* NULL: no bugs on purpose */
    struct jit_stats stats;
};

static inline struct jit *jit_of(const struct cpu *cpu)
{
    return cpu->engine_data;
}

static inline unsigned jit_habits(const struct jit *jit, gpa_t gpa)
{
    gpa_t known = jit->habits[gpa % HABITS_SIZE];
    return known >> 2 == gpa ? known & 3 : 0;
}

/* jit_cache.c */
static inline void *jit_record(const struct jit *jit, uint32_t offset)
{
    return jit->arena + offset;
}

int jit_cache_create(struct jit *jit, struct error *err);
void jit_cache_destroy(struct jit *jit);
void jit_cache_carve(struct jit *jit);
void *jit_arena_take(struct jit *jit, size_t size);
bool jit_cache_has_room(const struct jit *jit); /* for a block, in this segment */
void jit_cache_make_room(struct jit *jit); /* by dropping the oldest segment; not while a block of it will be resumed */
void jit_cache_flush(struct jit *jit);     /* everything; not while a block of it will be resumed */
/* second_page: of a block that lies in two pages, else 0. */
struct jit_block *jit_block_find(struct jit *jit, gpa_t gpa, jit_mode_t mode, gpa_t second_page);
void jit_block_insert(struct jit *jit, struct jit_block *block);
struct jit_block *jit_block_by_pc(const struct jit *jit, const uint8_t *pc);
struct code_page *jit_page_of(struct jit *jit, gpa_t gpa); /* NULL: holds no code */
void jit_link(struct jit *jit, struct link *link, struct jit_block *target);
void jit_invalidate(struct jit *jit, gpa_t gpa, uint64_t size);
void jit_block_drop(struct jit *jit, struct jit_block *block); /* it is not found any more; its page stays acquired */
void jit_page_acquire(struct jit *jit, gpa_t gpa);
void jit_page_release_if_empty(struct jit *jit, gpa_t gpa);
uint32_t jit_new_salt(struct jit *jit); /* a number that nothing was remembered under; not 0 */
void jit_use_salt(struct jit *jit, uint32_t number);
void jit_empty_return_stack(struct jit *jit);

/* jit_thunk.c */
void jit_thunks_create(struct jit *jit);

/* Looks the guest address in T0 up. Falls through on a hit, with its index in T1 and T0 as it was; flags are kept. The two rel32 are of
 * jumps that the caller leads on: nothing found; attention wanted. */
struct probe {
    uint8_t *missed, *attention;
};
struct probe jit_emit_probe(struct jit *jit, struct emitter *e, bool any_address); /* any: it may be not canonical */
struct host_operand jit_probe_target(struct jit *jit); /* of jmp or call on a hit, if jit->is_low */
bool jit_can_probe(const struct jit *jit);
/* T0: the guest address of that offset in the current page. */
void jit_emit_page_address(const struct jit *jit, struct emitter *e, int64_t page_offset, bool code64);
/* Leaves for the guest address in T0; `origin`: jit->origin. */
void jit_emit_jump_by_lookup(const struct jit *jit, struct emitter *e, uint32_t origin);
void jit_emit_l1_entry(struct jit *jit, struct emitter *e, unsigned privilege);
unsigned jit_jump_index(const struct jit *jit, uint64_t key);

/* jit_thunk_system.c */
void jit_system_thunks_create(struct jit *jit);
void jit_system_call_prepare(struct jit *jit); /* a SYSCALL was executed; state is the kernel's */

/* jit_thunk_string.c */
struct insn;
void jit_string_thunks_create(struct jit *jit);
const uint8_t *jit_string_thunk(const struct jit *jit, const struct insn *insn); /* NULL: its handler executes it */

/* jit_translate.c */
int jit_translate_create(struct jit *jit, struct error *err);
void jit_translate_destroy(struct jit *jit);
/* The block at gpa, whose bytes (`available` of them) are at host. NULL: not even one instruction fits. */
struct jit_block *jit_translate(struct jit *jit, gpa_t gpa, const uint8_t *host, size_t available, jit_mode_t mode,
                                unsigned max_insns);
/* The same for a loop that begins at gpa, several iterations at a time; NULL: no such loop. */
struct jit_block *jit_translate_loop(struct jit *jit, gpa_t gpa, const uint8_t *host, jit_mode_t mode);

/* Where jumps that were looked up arrive, with the guest address in T0. Takes 32 bytes of cold code the first time. */
const uint8_t *jit_indirect_entry(struct jit *jit, struct jit_block *block);

/* jit_context.c */
static inline unsigned jit_mode_cpl(jit_mode_t mode)
{
    return mode >> MODE_CPL_SHIFT & 3;
}
/* Brings the jump cache's salt and the return stack into line with the CPU's mode and execute mappings. */
jit_mode_t jit_sync_context(struct jit *jit);
void jit_supervisor_is_local(struct jit *jit);             /* its code was found in pages that are not global */
void jit_note_view(struct jit *jit, gpa_t gpa, gva_t rip); /* the page at gpa is entered at rip */
/* STAC or CLAC was executed in C: `from` was the current salt before. */
void jit_access_switch_prepare(struct jit *jit, const struct mode_salt *from);

/* jit_runtime.c: called by thunks. Returns where to go on; NULL: leave to the engine. */
const void *jit_slow(struct cpu *cpu, const uint8_t *stub);
const void *jit_fault(struct cpu *cpu, const uint8_t *unused);
jit_mode_t jit_current_mode(const struct cpu *cpu);
/* Host code for cpu_rip (exact); NULL: not translatable, or a fault (*faulted). */
const void *jit_find_entry(struct jit *jit, bool *faulted);
bool jit_can_run(const struct cpu *cpu);
/* What translated code has of RFLAGS beside the host's flags, and the TSC's offset. */
void jit_load_flags(struct jit *jit);
struct jit_fetched {
    const uint8_t *host; /* NULL: not RAM or ROM */
    gpa_t gpa;
};
bool jit_fetch(struct cpu *cpu, gva_t rip, struct jit_fetched *f); /* for executing; false: cpu->fault */

/* jit_vector.c */
void jit_park(struct cpu *cpu);
void jit_store_vector(const struct cpu *cpu, unsigned reg, uint8_t *to, unsigned size);
void jit_unpark(struct cpu *cpu);

/* jit_signal_glue.c */
void jit_signal_enter(struct jit *jit); /* this thread runs jit's code from now on */

/* jit_memory.c */
int jit_memory_create(struct cpu *cpu, struct jit **jit, struct error *err);
void jit_memory_destroy(struct jit *jit);

/* jit_coherence.c */
void jit_listen(struct jit *jit);

bool jit_attention_due(const struct cpu *cpu);

/* jit_single.c */
enum step jit_run_single(struct jit *jit, unsigned max_instructions, unsigned *executed);
/* Runs a block that was translated with MODE_SINGLE, at cpu_rip. */
enum step jit_enter_single(struct jit *jit, struct jit_block *block, unsigned *executed);

/* jit_lockstep_watch.c */
struct insn;
bool jit_runs_once(const struct insn *insn); /* it has effects, or a result, that cannot be had again */
/* With `slices`: leaves such an instruction to the interpreter, with the fault of one that is withheld. */
bool jit_lockstep_withholds(struct jit *jit, const struct insn *insn);

/* jit_stats.c */
void jit_die_of_stray_fault(struct jit *jit, const struct jit_block *block) __attribute__((noreturn)); /* at cpu_rip */
void jit_count_in_c(struct jit *jit, const struct iop *op, enum jit_in_c reason);
void jit_report_block(struct jit *jit, const struct jit_block *block); /* to jit->tools */
void jit_log_entry(struct jit *jit, const struct jit_block *block);    /* -d exec; at cpu_rip */

/* jit_flags.c: the guest's arithmetic flags, from the instruction that produced them, whose operands are unchanged. */
uint64_t jit_replay_flags(const struct cpu *cpu, const struct insn *insn);
/* As LAHF and SETO AL leave them in AX. */
static inline uint64_t flags_of_ax(uint64_t ax)
{
    return (ax >> 8 & (FLAG_SF | FLAG_ZF | FLAG_AF | FLAG_PF | FLAG_CF)) | (ax & 1) << 11;
}
static inline uint64_t ax_of_flags(uint64_t flags)
{
    return (flags & (FLAG_SF | FLAG_ZF | FLAG_AF | FLAG_PF | FLAG_CF)) << 8 | (flags >> 11 & 1);
}

#endif
