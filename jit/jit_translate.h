/* What the passes of the translator share: decode and classify (jit_decode.c), analyse (jit_analyse.c), emit (jit_translate.c
 * and the jit_emit_*.c files). */
#ifndef EIDOLON_JIT_JIT_TRANSLATE_H
#define EIDOLON_JIT_JIT_TRANSLATE_H

#include "jit/jit_internal.h"

/* How an instruction is translated. */
enum insn_kind {
    KIND_NATIVE, /* executed by the host, registers and memory operand replaced as needed */
    KIND_NOTHING,
    KIND_LEA,
    KIND_PUSH, /* register, immediate, memory */
    KIND_POP,  /* register */
    KIND_LEAVE,
    KIND_SYSTEM, /* system instructions that need no C: jit_emit_system.c */
    KIND_BITS,   /* BT, BTS, BTR, BTC of a bit string in memory: jit_emit_bits.c */
    KIND_JCC,
    KIND_LOOP, /* loop loope loopne jcxz */
    KIND_JMP,
    KIND_CALL,
    KIND_RET,
    KIND_JMP_INDIRECT,
    KIND_CALL_INDIRECT,
    KIND_HELPER,     /* the interpreter's handler; goes on in the block */
    KIND_HELPER_END, /* the handler, then the engine looks around */
};

#define NO_GPR  0xff
#define NO_SLOT 0xff

/* A register operand that the encoding names, wherever it names it. */
enum { ROLE_REG, ROLE_RM, ROLE_VVVV, ROLE_OPCODE, ROLE_COUNT };

struct tinsn {
    struct insn insn;
    const uint8_t *bytes;
    uint16_t page_offset; /* of the instruction */
    uint8_t kind;
    uint8_t gpr[ROLE_COUNT];    /* guest registers, NO_GPR: none */
    uint8_t access[ROLE_COUNT]; /* ACCESS_* */
    uint8_t size[ROLE_COUNT];
    bool rm_is_cell_sized; /* ROLE_RM is an E operand: of one size in a register and in memory */
    bool again; /* JCC, JMP that ends an iteration of an unrolled loop but the last: goes on behind it if it is taken */
    bool high_byte;             /* names AH, CH, DH or BH: no REX */
    bool has_memory;            /* an operand in memory that is accessed */
    bool reads_rcx, writes_rcx; /* implicitly */
    uint8_t memory_access;
    uint8_t memory_size;
    uint16_t reads, writes; /* guest GPRs, implicit and address registers included */
    uint32_t flags_read;    /* needed, or kept in part */
    uint32_t flags_set;     /* overwritten for certain, undefined ones included */
    uint32_t flags_changed; /* perhaps overwritten */

    /* Stack accesses and others by value: address = value of `base_value` + offset */
    uint8_t group;        /* index of the group that the access belongs to, NO_SLOT: none */
    bool group_leader;    /* makes the check */
    int32_t group_offset; /* of the access, relative to the group's value */
    bool first_reads;     /* leads a group that writes, and reads itself */
    bool own_check;       /* of an access that no other's check covers */
    bool needs_flags;     /* all of them have to be right before it */
    bool sets_flags;      /* all of them, for certain */
    bool save_flags;      /* PUSHFQ before it: its check, and others, will clobber flags that cannot be made again */
    bool can_clobber;     /* its check may clobber the host's flags */
    bool restore_flags;   /* the guest's flags must be made again after its check, before it */
    uint8_t exit_source;  /* branches: 1 + instruction that set the flags, if exit_registers tell them; 0 */
    uint16_t exit_registers;
    uint8_t flags_source; /* 1 + instruction that the guest's flags come from, during its check, if not the host's; 0 */
};

/* Accesses that lie close together off one value share one check. */
struct group {
    int32_t low, high; /* offsets [low, high) */
    uint8_t first, last, count;
    bool write;
    uint8_t slot; /* where the addend lives: NO_SLOT: A0, else index in jit->addends */
};

struct exit_site {
    uint32_t patch; /* offset of a rel32 in hot or cold code */
    uint32_t stub;
    uint16_t page_offset;
    bool no_groups, flags_elsewhere;
    uint16_t flag_registers;
    uint32_t compare, counter; /* far links */
};

struct translation {
    struct jit *jit;
    jit_mode_t mode;
    bool code64;
    gpa_t gpa;
    const uint8_t *host; /* bytes at gpa */
    unsigned count;
    struct tinsn insns[BLOCK_MAX_INSNS + 1];
    struct group groups[BLOCK_MAX_INSNS];
    unsigned group_count;
    /* The next instruction, from each on, that needs or sets the flags; count: none. */
    uint8_t flags_until[BLOCK_MAX_INSNS + 1];
    bool uses_a0;         /* some group's address is in A0 */
    unsigned guest_bytes; /* of the instructions */
    bool unrolled;
    bool ends_in_branch; /* the last instruction does not fall through */
    bool next_crosses;   /* the instruction behind the block lies in two pages */
    size_t available;    /* bytes at `host`: to the end of the page, or of a crossing instruction */
    /* emission */
    uint8_t held[2];   /* the unpinned registers whose values T0 and T1 have, too; NO_GPR: none (jit_emit_native.c) */
    unsigned current;  /* instruction being emitted */
    bool falling;      /* the exit behind the last instruction is, not one of its own */
    bool stale_at_end; /* at the end of the block the host's flags are not the guest's: made again from stale_source */
    uint8_t stale_source; /* as flags_source */
    uint8_t end_source;   /* as exit_source, at the end */
    uint16_t end_registers;
    bool entry_window; /* checks clobber the flags of the entry (FLAGS_ENTRY), until all are set again */
    uint16_t entry_writes;
    uint8_t replays[REPLAYS_MAX]; /* instructions */
    unsigned replay_count;
    uint8_t kind_set;        /* 1 + instruction that flag_kind tells of here; 0 */
    uint16_t kind_registers; /* that it needs */
    uint8_t *replay_entry;
    struct jit_block *block; /* its address is known before it is filled */
    uint32_t block_offset;
    struct exit_site links[BLOCK_MAX_LINKS];
    unsigned link_count;
    uint32_t continuations[BLOCK_MAX_INSNS];
    unsigned call_count;
    struct insn_mark marks[BLOCK_MAX_INSNS + 1];
    uint8_t *hot_start, *cold_start;
    unsigned counting_bytes; /* of hot code: what counts executed instructions, which the statistics leave out */
};

/* jit_decode.c */
/* 0: the first instruction crosses the page's end. */
unsigned translation_decode(struct translation *t, unsigned max_insns);
/* Several iterations of a loop that begins here; false: there is none. */
bool translation_decode_loop(struct translation *t);
/* jit_analyse.c */
void translation_analyse(struct translation *t);
/* CMP, TEST of registers, and their like: executing it again changes nothing but flags. */
bool can_execute_again(const struct tinsn *i);
/* C may be told of it, or execute it: its access is checked, or what it computes may fault. */
bool may_be_seen_at(const struct tinsn *i);

/* jit_emit_memory.c */
/* Resolves the memory operand of the current instruction: emits address and check, returns what to use as the host operand. `extra`:
 * registers that must not be used by it besides pinned ones... (T1 must be free for the caller: the operand then uses T0 only). */
struct host_operand emit_memory(struct translation *t, struct tinsn *i, bool t1_free);
/* The same for a stack access of `size` at guest rsp + offset. */
struct host_operand emit_stack_access(struct translation *t, struct tinsn *i, int32_t offset, unsigned size, bool write,
                                      bool t1_free);
/* The host register that has its value. */
unsigned emit_guest_register(struct translation *t, unsigned guest, unsigned scratch);
struct host_operand guest_cell(const struct translation *t, unsigned guest);
/* The same in two steps: the address into T0 (T1 may be used), then its check. T1 is free afterwards. */
void emit_address(struct translation *t, const struct tinsn *i);
struct host_operand emit_checked_address(struct translation *t, const struct tinsn *i);

/* jit_emit_stub.c: all in cold code */
struct stub_access {
    unsigned kind; /* with STUB_* */
    unsigned site, span, group_first;
    const uint8_t *thunk;
};
void emit_cold_header(struct translation *t);
const uint8_t *emit_stub(struct translation *t, enum stub_kind kind, const uint8_t *thunk);
/* What lies before falls into it. */
const uint8_t *emit_stub_inline(struct translation *t, enum stub_kind kind, const uint8_t *thunk);
const uint8_t *emit_stub_poll(struct translation *t, int64_t page_offset, unsigned flags_source);
const uint8_t *emit_stub_link(struct translation *t, unsigned flags_source); /* link_count */
const uint8_t *emit_stub_far_link(struct translation *t, int64_t page_offset, unsigned counter);
const uint8_t *emit_stub_access(struct translation *t, const struct stub_access *access, bool is_inline);

/* jit_emit_native.c */
void emit_native(struct translation *t, struct tinsn *i);
void emit_verbatim(struct translation *t, const struct tinsn *i); /* as it is: only identically pinned registers */
bool native_is_identical(const struct tinsn *i);
bool native_is_possible(const struct tinsn *i); /* enough scratch registers, encodable */
void emit_lea_insn(struct translation *t, struct tinsn *i);
void forget_held(struct translation *t); /* T0 and T1 were, or may be, clobbered */
/* The instruction with other operands. rm: a host register, or memory. */
struct rewrite {
    bool rm_is_memory;
    uint8_t reg, rm, vvvv, opcode_reg; /* host registers; 0xff: as in the original */
    struct host_operand memory;
};
void emit_rewritten(struct emitter *e, const struct insn *insn, const uint8_t *bytes, const struct rewrite *w);

/* jit_emit_control.c */
void emit_stack(struct translation *t, struct tinsn *i);
void emit_control(struct translation *t, struct tinsn *i);
void emit_helper(struct translation *t, struct tinsn *i);
/* The rel32 just written will lead to the block at page_offset of the same page. flags_source: where the flags are then. */
void add_link(struct translation *t, struct emitter *from, unsigned page_offset, unsigned flags_source);
static inline bool links_left(const struct translation *t)
{
    return t->link_count < BLOCK_MAX_LINKS;
}
/* Leaves the block for the guest address page_offset (relative to the page of the block; may lie outside of it). */
/* Tells the target of the exit that follows where its flags come from. */
void emit_flag_kind(struct translation *t, unsigned source, uint16_t registers);
void emit_exit_to(struct translation *t, int64_t page_offset, bool poll);
void emit_exit_by_lookup(struct translation *t, unsigned page_offset); /* the instruction there lies in two pages */

/* jit_emit_system.c */
bool system_is_inline(const struct translation *t, const struct tinsn *i);
void emit_system(struct translation *t, struct tinsn *i);
bool system_may_leave(const struct tinsn *i); /* KIND_SYSTEM: C may be needed after all */
/* Of SYSCALL, SYSRET, STAC, CLAC; NULL: none. */
const uint8_t *system_thunk(const struct translation *t, const struct tinsn *i);
void emit_pushf_value(struct translation *t); /* the image of RFLAGS into T1; T0 is used */

/* jit_emit_bits.c */
bool bits_are_inline(const struct translation *t, const struct tinsn *i);
void emit_bits(struct translation *t, struct tinsn *i);

/* jit_translate.c */
/* source: flags_source; executes CMP or TEST once more, or takes the saved ones. */
void emit_flags_again(struct translation *t, unsigned source);

#endif
