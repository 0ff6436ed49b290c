/* STOS and MOVS, plain and repeated, without C. A block's cold stub calls the thunk of the operation and element size, with the record
 * of an instruction that its handler executes: where anything is not as usual the thunk goes on as that stub, with rCX, rSI and rDI as far as
 * they were brought, and the handler does the rest. Faults, MMIO, pages that are tracked, elements that cross a page, DF = 1 and
 * what is to be seen between two iterations are the handler's alone.
 *
 * A repeated one goes page by page: the elements up to the end of the source's and the destination's page, by the host's own
 * instruction or, if they are few, one at a time; then it looks at cpu->quiet and at the TLB again. The host's instructions go by
 * elements in the same order, and guest pages that are one page have one host address, so operands that overlap come out as they
 * would for the guest. Code pages have no write tags: a block is never written while it runs.
 *
 * Registers: rCX, rSI and rDI are changed; flags are kept. On the return stack; nothing is pushed there, since its guard page may be
 * next. SDM Vol. 1 7.3.9, Vol. 2 MOVS, STOS, REP. */
#include <stddef.h>

#include "jit/jit_translate.h"

/* So many elements are moved one at a time: below that the host's instruction takes longer to begin (20 to 30 cycles; one store a
 * cycle). Not for bytes: if REP MOVSB is slow to begin, the guest's CPUID says so too. */
#define FEW_ELEMENTS 16

#define GUEST_RCX HOST_R9

struct string_thunk {
    struct jit *jit;
    struct emitter *e;
    bool move, repeated, wide; /* wide: 64-bit addresses */
    unsigned shift;            /* size of an element is 1 << shift */
    uint8_t *slow[8];          /* rel32 of jumps to C */
    unsigned slow_count;
};

/* ---- Pieces ---- */

/* Addresses and counts in the guest's registers have the width of the address size. */
static void emit_copy_register(const struct string_thunk *s, unsigned to, unsigned from)
{
    emit_rr(s->e, s->wide, 0x8b, to, from);
}

static void emit_cmova(struct emitter *e, bool wide, unsigned to, unsigned from)
{
    emit8(e, 0x40 | (wide ? 8u : 0u) | (to & 8 ? 4u : 0u) | (from & 8 ? 1u : 0u));
    emit_bytes(e, "\x0f\x47", 2);
    emit8(e, 0xc0 | (to & 7) << 3 | (from & 7));
}

/* ADD 0, AND 4, SUB 5, CMP 7: r64, imm32 */
static void emit_group_imm(struct emitter *e, unsigned operation, unsigned reg, int32_t value)
{
    emit8(e, 0x48 | reg >> 3);
    emit8(e, 0x81);
    emit8(e, 0xc0 | operation << 3 | (reg & 7));
    emit32(e, (uint32_t)value);
}

/* SHL 4, SHR 5: r32 */
static void emit_shift_imm(struct emitter *e, unsigned operation, unsigned reg, unsigned count)
{
    if (!count)
        return;
    emit8(e, 0x40 | reg >> 3);
    emit8(e, 0xc1);
    emit8(e, 0xc0 | operation << 3 | (reg & 7));
    emit8(e, count);
}

/* mov [base], reg or mov reg, [base] of an element */
static void emit_element(const struct string_thunk *s, bool load, unsigned reg, unsigned base)
{
    if (s->shift == 1)
        emit8(s->e, 0x66);
    emit_rm(s->e, s->shift == 3, (load ? 0x8au : 0x88u) | (s->shift ? 1u : 0u), reg, host_base(base, 0));
}

static void emit_jcc_slow(struct string_thunk *s, unsigned cc)
{
    emit8(s->e, 0x0f);
    emit8(s->e, 0x80 | cc);
    emit32(s->e, 0);
    s->slow[s->slow_count++] = s->e->p - 4;
}

static void emit_flags_away(const struct string_thunk *s)
{
    emit_store(s->e, host_at(&s->jit->rax), HOST_RAX);
    emit_flags_to_ax(s->e);
    emit_store(s->e, host_at(&s->jit->flags_ax), HOST_RAX);
}

static void emit_flags_back(const struct string_thunk *s)
{
    emit_load(s->e, HOST_RAX, host_at(&s->jit->flags_ax));
    emit_flags_from_ax(s->e);
    emit_load(s->e, HOST_RAX, host_at(&s->jit->rax));
}

/* The guest's address in `reg`: T1 becomes its host address, T0 its offset in the page. `scratch` is clobbered. */
static void emit_host_address(struct string_thunk *s, unsigned reg, bool write, unsigned scratch)
{
    struct emitter *e = s->e;
    struct cpu *cpu = s->jit->cpu;
    struct host_operand privilege = host_at(&cpu->privilege);
    int32_t tag = write ? offsetof(struct tlb_entry, tag_w) : offsetof(struct tlb_entry, tag_r);
    int32_t host = write ? offsetof(struct tlb_entry, host_w) : offsetof(struct tlb_entry, host_r);

    emit8(e, 0x40 | (scratch & 8 ? 4u : 0u)); /* movzx scratch, byte [privilege] */
    emit_bytes(e, "\x0f\xb6", 2);
    emit_modrm_memory(e, scratch, &privilege, 0);
    emit_shift_imm(e, 4, scratch, __builtin_ctz(sizeof(cpu->mmu.l1[0])));
    emit_copy_register(s, T0, reg);
    jit_emit_l1_entry(s->jit, e, 0);
    emit_lea(e, T1, host_base_index(T1, scratch, 0));
    emit_rm(e, true, 0x33, T0, host_base(T1, tag)); /* xor */
    emit_cmp_imm(e, T0, (int32_t)(PAGE_SIZE - (1u << s->shift)));
    emit_jcc_slow(s, CC_A);
    emit_load(e, T1, host_base(T1, host));
    emit_rr(e, true, 0x03, T1, T0); /* add */
}

/* `count`: the elements from offset `offset` to the end of the page, if the guest's count is not lower. */
static void emit_run_length(const struct string_thunk *s, unsigned count, unsigned offset)
{
    struct emitter *e = s->e;

    emit_mov_imm32(e, count, PAGE_SIZE);
    emit_rr(e, false, 0x2b, count, offset); /* sub */
    emit_shift_imm(e, 5, count, s->shift);
    emit_rr(e, s->wide, 0x3b, count, GUEST_RCX); /* cmp */
    emit_cmova(e, s->wide, count, GUEST_RCX);
}

/* The guest's registers after `count` elements. */
static void emit_advance(const struct string_thunk *s, unsigned count)
{
    struct host_operand to = { .base = HOST_RDI, .index = (uint8_t)count, .scale = (uint8_t)s->shift };
    struct host_operand from = { .base = HOST_RSI, .index = (uint8_t)count, .scale = (uint8_t)s->shift };

    emit_rr(s->e, s->wide, 0x2b, GUEST_RCX, count); /* sub */
    emit_rm(s->e, s->wide, 0x8d, HOST_RDI, to);     /* lea */
    if (s->move)
        emit_rm(s->e, s->wide, 0x8d, HOST_RSI, from);
}

static void emit_host_string(const struct string_thunk *s)
{
    emit8(s->e, 0xf3);
    if (s->shift == 1)
        emit8(s->e, 0x66);
    if (s->shift == 3)
        emit8(s->e, 0x48);
    emit8(s->e, (s->move ? 0xa4u : 0xaau) | (s->shift ? 1u : 0u));
}

static void emit_back(struct emitter *e, unsigned opcode, const uint8_t *target) /* short branch backwards */
{
    emit8(e, opcode);
    emit8(e, (unsigned)(target - (emit_here(e) + 1)));
}

/* ---- Runs: T1 is the host address of the destination ---- */

/* A0: elements; RAX: the value. */
static void emit_fill(const struct string_thunk *s)
{
    struct emitter *e = s->e;
    uint8_t *many = NULL, *done = NULL;

    if (s->shift) {
        emit_group_imm(e, 7, A0, FEW_ELEMENTS);
        many = emit_short(e, 0x70 | CC_A);
        const uint8_t *next = emit_here(e);
        emit_element(s, false, HOST_RAX, T1);
        emit_lea(e, T1, host_base(T1, 1 << s->shift));
        emit_bytes(e, "\x41\xff\xcf", 3); /* dec r15d */
        emit_back(e, 0x70 | CC_NE, next);
        done = emit_short(e, OPCODE_JMP8);
        emit_short_here(e, many);
    }
    emit_mov_rr(e, T0, HOST_RDI);
    emit_mov_rr(e, HOST_RDI, T1);
    emit_mov32_rr(e, HOST_RCX, A0);
    emit_host_string(s);
    emit_mov_rr(e, HOST_RDI, T0);
    if (done)
        emit_short_here(e, done);
}

/* RAX: elements; A0: host address of the source. */
static void emit_move(const struct string_thunk *s)
{
    struct emitter *e = s->e;
    uint8_t *many = NULL, *done = NULL;

    if (s->shift) {
        emit_cmp_imm(e, HOST_RAX, FEW_ELEMENTS);
        many = emit_short(e, 0x70 | CC_A);
        const uint8_t *next = emit_here(e);
        emit_element(s, true, T0, A0);
        emit_element(s, false, T0, T1);
        emit_lea(e, A0, host_base(A0, 1 << s->shift));
        emit_lea(e, T1, host_base(T1, 1 << s->shift));
        emit_bytes(e, "\xff\xc8", 2); /* dec eax */
        emit_back(e, 0x70 | CC_NE, next);
        done = emit_short(e, OPCODE_JMP8);
        emit_short_here(e, many);
    }
    emit_mov_rr(e, T0, HOST_RDI);
    emit_mov_rr(e, HOST_RDI, T1);
    emit_mov32_rr(e, HOST_RCX, HOST_RAX);
    emit_mov_rr(e, HOST_RAX, HOST_RSI);
    emit_mov_rr(e, HOST_RSI, A0);
    emit_host_string(s);
    emit_mov_rr(e, HOST_RSI, HOST_RAX);
    emit_mov_rr(e, HOST_RDI, T0);
    if (done)
        emit_short_here(e, done);
}

/* ---- Thunks ---- */

/* What lies in one page, of each operand. */
static void emit_run(struct string_thunk *s)
{
    struct emitter *e = s->e;

    if (s->move) {
        emit_host_address(s, HOST_RSI, false, HOST_RAX);
        emit_mov_rr(e, A0, T1);
    }
    emit_host_address(s, HOST_RDI, true, HOST_RAX);
    if (!s->move)
        emit_load(e, HOST_RAX, host_at(&s->jit->rax));
    if (!s->repeated) {
        if (s->move)
            emit_element(s, true, HOST_RAX, A0);
        emit_element(s, false, HOST_RAX, T1);
        emit_rm(e, s->wide, 0x8d, HOST_RDI, host_base(HOST_RDI, 1 << s->shift));
        if (s->move)
            emit_rm(e, s->wide, 0x8d, HOST_RSI, host_base(HOST_RSI, 1 << s->shift));
        return;
    }
    if (!s->move) {
        emit_run_length(s, A0, T0);
        emit_advance(s, A0);
        emit_fill(s);
        return;
    }
    emit_mov32_rr(e, HOST_RAX, A0); /* the higher of the two offsets */
    emit_group_imm(e, 4, HOST_RAX, (int32_t)~PAGE_MASK);
    emit_rr(e, false, 0x3b, HOST_RAX, T0);
    emit_cmova(e, false, T0, HOST_RAX);
    emit_run_length(s, HOST_RAX, T0);
    emit_advance(s, HOST_RAX);
    emit_move(s);
}

static const uint8_t *emit_thunk(struct string_thunk *s)
{
    struct emitter *e = s->e;
    const uint8_t *none = emit_here(e);
    struct host_operand direction = host_at((const uint8_t *)&s->jit->flags_base + 1);

    s->slow_count = 0;
    emit8(e, 0xc3);
    const uint8_t *start = emit_here(e);
    if (s->repeated && s->wide) {
        emit_mov_rr(e, T1, GUEST_RCX);
        emit_back(e, OPCODE_JRCXZ, none);
    }
    emit_flags_away(s);
    emit8(e, 0xf6); /* test byte [flags_base + 1], DF >> 8 */
    emit_modrm_memory(e, 0, &direction, 1);
    emit8(e, FLAG_DF >> 8);
    emit_jcc_slow(s, CC_NE);
    if (s->repeated && !s->wide) { /* no elements: registers may be zero-extended all the same */
        emit_rr(e, false, 0x85, GUEST_RCX, GUEST_RCX);
        emit_jcc_slow(s, CC_E);
    }
    const uint8_t *again = emit_here(e);
    emit_run(s);
    if (s->repeated) {
        emit_rr(e, s->wide, 0x85, GUEST_RCX, GUEST_RCX); /* test */
        uint8_t *done = emit_short(e, 0x70 | CC_E);
        emit_cmp32_imm8(e, host_at(&s->jit->cpu->quiet), 0);
        emit_jcc(e, CC_NE, again);
        emit8(e, 0xe9);
        emit32(e, 0);
        s->slow[s->slow_count++] = e->p - 4;
        emit_short_here(e, done);
    }
    emit_flags_back(s);
    emit8(e, 0xc3);
    for (unsigned n = 0; n < s->slow_count; n++)
        emit_patch_rel32(s->slow[n], e->delta, emit_here(e));
    emit_flags_back(s);
    emit_jmp(e, s->jit->thunk_slow); /* the return address is that of the stub */
    return start;
}

void jit_string_thunks_create(struct jit *jit)
{
    struct string_thunk s = { .jit = jit, .e = &jit->hot };

    if (!jit->is_low)
        return;
    for (unsigned n = 0; n < ARRAY_SIZE(jit->thunk_string); n++) {
        s.move = n & STRING_MOVE;
        s.repeated = n & STRING_REPEATED;
        s.wide = n & STRING_WIDE;
        s.shift = n >> STRING_SIZE_SHIFT;
        if (s.wide || s.shift < 3)
            jit->thunk_string[n] = emit_thunk(&s);
    }
}

const uint8_t *jit_string_thunk(const struct jit *jit, const struct insn *insn)
{
    bool move = insn->row && insn->row->handler == HANDLER_movs;
    bool wide = insn->code_size == CODE64;

    if (!insn->row || (!move && insn->row->handler != HANDLER_stos) || insn->address_size != (wide ? 8 : 4))
        return NULL;
    if (move && insn->segment_prefix && (!wide || insn->segment_prefix - 1 >= SEG_FS))
        return NULL;
    unsigned shift = (unsigned)__builtin_ctz(insn->operands[0].size);
    return jit->thunk_string[(move ? STRING_MOVE : 0) | (insn->rep != REP_NONE ? STRING_REPEATED : 0) |
                             (wide ? STRING_WIDE : 0) | shift << STRING_SIZE_SHIFT];
}
