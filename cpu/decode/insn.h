/* A decoded instruction, and the decoder and encoder. Works from the one table
 * (cpu/decode/row.h); knows no CPU state but the code size.
 *
 * Any thread; no state. */
#ifndef EIDOLON_CPU_DECODE_INSN_H
#define EIDOLON_CPU_DECODE_INSN_H

#include "base/types.h"
#include "cpu/decode/row.h"

#define INSN_MAX_LENGTH   15
#define INSN_MAX_OPERANDS 6 /* pcmpestri with its implicit ones */

/* clang-format off */
/* Register numbers in memory operands and for GPRs: 0..15 in encoding order
 * (rax rcx rdx rbx rsp rbp rsi rdi r8..r15). */
enum {
    REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
    REG_R8, REG_R9, REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15,
    REG_NONE = 16, /* no base / no index: reads as zero */
    REG_RIP = 17,  /* base of a RIP-relative operand */
};

enum segment { SEG_ES, SEG_CS, SEG_SS, SEG_DS, SEG_FS, SEG_GS, SEG_COUNT };

enum operand_kind {
    OPERAND_NONE,
    OPERAND_GPR,    /* reg 0..15, size 1, 2, 4, 8 (a 1-byte one is the low byte) */
    OPERAND_GPR_HIGH, /* ah ch dh bh: reg is 0..3, size 1 */
    OPERAND_SEG,    /* reg: enum segment */
    OPERAND_CR, OPERAND_DR, /* reg 0..15 */
    OPERAND_ST,     /* x87 stack register, reg 0..7 relative to TOP */
    OPERAND_MMX,    /* reg 0..7 */
    OPERAND_VEC,    /* reg 0..31; size 16, 32, 64 (xmm, ymm, zmm), or less: scalar part used */
    OPERAND_MASK,   /* k0..k7 */
    OPERAND_BND, OPERAND_TMM,
    OPERAND_MEM,    /* the instruction's memory operand (insn.mem); size in bytes, 0: no fixed size. String operands have
                     * REG_RSI or REG_RDI in reg; of MOVS and CMPS, which have two, mem describes rSI, the other is ES:rDI */
    OPERAND_IMM,    /* insn.imm (or insn.imm2 for the second one), sign-extended to size as the row says */
    OPERAND_REL,    /* branch displacement, in insn.imm, relative to the next instruction */
    OPERAND_FAR,    /* ptr16:16/32: offset in insn.imm, selector in insn.imm2 */
};

struct operand {
    uint8_t kind;    /* enum operand_kind */
    uint8_t reg;
    uint8_t access;  /* ACCESS_* of the row */
    uint8_t vec_bytes; /* OPERAND_VEC: the whole register's width (16, 32, 64), as named in assembly */
    uint16_t size;   /* bytes that the operand occupies */
};

enum rep_prefix { REP_NONE, REP_F3, REP_F2 };
enum code_size { CODE16, CODE32, CODE64 };

struct insn {
    const struct insn_row *row;
    uint8_t length;
    uint8_t code_size;      /* enum code_size it was decoded for */
    uint8_t operand_size;   /* effective: 2, 4, 8 (1 for byte forms: see operands) */
    uint8_t address_size;   /* effective: 2, 4, 8 */
    uint8_t rep;            /* enum rep_prefix: the last F2/F3 present, mandatory or not */
    bool lock, prefix_66, prefix_67;
    uint8_t rex;            /* the whole REX byte or 0 */
    uint8_t segment_prefix; /* enum segment + 1, or 0 */
    uint8_t opcode, modrm;
    bool has_modrm, has_sib;
    uint8_t sib;
    struct {                /* VEX, EVEX (XOP never: #UD) */
        uint8_t kind;       /* 0 none, 2 / 3: VEX2 / VEX3, 4: EVEX */
        uint8_t l;          /* 0: 128, 1: 256, 2: 512 */
        uint8_t w, vvvv;    /* vvvv already inverted, 0..31 */
        uint8_t aaa;        /* EVEX opmask */
        bool z, b;          /* EVEX zeroing, broadcast / rounding */
        uint8_t rc;         /* EVEX.L'L as it was, where b makes it a rounding mode (l is 2 then) */
    } vex;
    uint8_t operand_count;
    struct {                /* valid if some operand is OPERAND_MEM */
        uint8_t base, index; /* REG_*; index of VSIB: vector register 0..31 (16 is one, not REG_NONE) */
        uint8_t scale;      /* log2; 0 without an index */
        uint8_t segment;    /* effective, default rules applied */
        uint8_t disp_bytes; /* as encoded: 0, 1, 2, 4, 8 */
        bool vsib;
        int64_t disp;       /* sign-extended, EVEX disp8*N scaled; moffs: the whole address */
    } mem;
    struct operand operands[INSN_MAX_OPERANDS];
    int64_t imm, imm2;
};

enum decode_status {
    DECODE_OK,
    DECODE_TRUNCATED, /* more bytes are needed than were given */
    DECODE_INVALID,   /* #UD (unknown, illegal prefix, LOCK, mode) */
    DECODE_TOO_LONG,  /* more than 15 bytes: #GP */
};

/* Decodes at most `available` bytes. Says whether the encoding is valid in this code size
 * for a CPU with every feature (CPUID gating, CPL and CR checks are the engine's). With
 * DECODE_INVALID and DECODE_TOO_LONG, insn->length is the number of bytes looked at.
 * (SDM Vol. 2A chapter 2, Vol. 2D appendix A.) */
enum decode_status insn_decode(const uint8_t *bytes, size_t available, enum code_size code_size, struct insn *insn);

/* Encodes `insn` (as the decoder would fill it: row, operands, mem, imm, sizes, prefixes)
 * into at most 15 bytes; returns the length, 0 if it cannot be encoded. Canonical choices:
 * mem.disp_bytes when it is nonzero, else the shortest displacement; VEX2 only if kind is 2 and it suffices;
 * prefixes that do nothing may be dropped. Register numbers, mem and imm may have been changed since decoding:
 * REX, ModRM, SIB and VEX bits follow them; `modrm` counts only in fields that no operand names.
 * decode(encode(insn)) gives the same row, operands, mem and immediates. */
size_t insn_encode(const struct insn *insn, uint8_t *bytes);

static inline bool insn_has_memory(const struct insn *insn)
{
    for (unsigned i = 0; i < insn->operand_count; i++)
        if (insn->operands[i].kind == OPERAND_MEM)
            return true;
    return false;
}

/* Intel-syntax text, for logs when capstone is not wanted. Returns buffer. */
const char *insn_format(const struct insn *insn, char *buffer, size_t size);

/* clang-format on */

#endif
