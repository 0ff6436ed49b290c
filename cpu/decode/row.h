/* The one table's shape: a row for each instruction form. Decoder, encoder,
 * interpreter, JIT and test generators read it; nothing repeats it.
 *
 * The rows are in the .def files of this folder, one file for each opcode map:
 *   onebyte.def 0f.def 0f38.def 0f3a.def x87.def
 *   vex_0f.def vex_0f38.def vex_0f3a.def evex_0f.def evex_0f38.def evex_0f3a.def evex_map56.def
 *
 *   ROW(mnemonic, opcode, PREFIX(..), MODRM(..), OPS(..), FLAGS(read, written, undefined),
 *       ATTR(..), feature, exception_class, handler, jit_class)
 *
 * The tokens are explained in row_macros.h; docs/instructions.md tells how to add one. */
#ifndef EIDOLON_CPU_DECODE_ROW_H
#define EIDOLON_CPU_DECODE_ROW_H

#include "base/types.h"

enum insn_map {
    MAP_ONEBYTE,
    MAP_0F,
    MAP_0F38,
    MAP_0F3A,
    MAP_X87,
    MAP_VEX_0F,
    MAP_VEX_0F38,
    MAP_VEX_0F3A,
    MAP_EVEX_0F,
    MAP_EVEX_0F38,
    MAP_EVEX_0F3A,
    MAP_EVEX_5,
    MAP_EVEX_6,
    MAP_COUNT
};

/* clang-format off */
/* Mandatory prefix. ANY: 66/F2/F3 do not select the row (66 is the operand size, F2/F3 are
 * REP or ignored). NP: none of them. */
enum insn_prefix { PREFIX_ANY, PREFIX_NP, PREFIX_66, PREFIX_F3, PREFIX_F2, PREFIX_NP_66 /* NP or 66: F2/F3 select others */ };

/* What ModRM has to look like. */
enum insn_modrm {
    MODRM_NONE,    /* no ModRM byte */
    MODRM_ANY,
    MODRM_MEM,     /* mod != 3 */
    MODRM_REG,     /* mod == 3 */
    MODRM_EXT,     /* + digit: /0../7, any mod */
    MODRM_EXT_MEM, /* + digit, mod != 3 */
    MODRM_EXT_REG, /* + digit, mod == 3 */
    MODRM_BYTE,    /* + exact byte (0F 01 C1 ...) */
    MODRM_PLUSR,   /* no ModRM; the low 3 opcode bits are a register: the row stands for 8 opcodes */
};

/* Operand types: SDM Vol. 2D appendix A.2 letters (addressing, then size).
 *   E: ModRM.rm register or memory   G: ModRM.reg GPR        M: ModRM.rm, memory only
 *   R: ModRM.rm, register only       I: immediate            J: relative branch
 *   S: ModRM.reg segment             C, D: control, debug    O: moffs
 *   V: ModRM.reg vector              W: ModRM.rm vector or memory  U: ModRM.rm vector register
 *   H: VEX.vvvv vector               L: immediate[7:4] vector
 *   P: ModRM.reg MMX                 Q: ModRM.rm MMX or memory     N: ModRM.rm MMX register
 *   B: VEX.vvvv GPR                  Z: register in the opcode (PLUSR)
 *   X, Y: string source DS:rSI, destination ES:rDI
 *   KG, KH, KE(reg or mem), KR: opmask in reg, vvvv, rm
 * sizes: b 1, w 2, d 4, q 8, dq 16, qq 32, o 64, v 2/4/8 by operand size, z 2/4 (4 at 8),
 *   y 4/8, p far pointer 4/6/10, s 6/10 descriptor table, x by vector length, hx half, qx quarter, ex eighth,
 *   ss 4 sd 8 scalar in vector, m no fixed size, t 10 x87 */
enum operand_type {
    OT_NONE,
#define OPERAND_TYPE(name) OT_##name,
#include "cpu/decode/operand_types.def"
#undef OPERAND_TYPE
    OT_COUNT
};

enum { ACCESS_R = 1, ACCESS_W = 2, ACCESS_RW = 3, ACCESS_NONE = 0 /* address only: lea, nop, prefetch */,
       ACCESS_CW = 4 /* conditional write (cmov to memory does not exist; bsf, cmpxchg) adds to R/W */ };

struct operand_spec {
    uint8_t type;   /* enum operand_type */
    uint8_t access;
    bool implicit;  /* fixed by the opcode and not named in the assembly text */
};

/* RFLAGS as in the register. */
#define FLAG_CF 0x1u
#define FLAG_PF 0x4u
#define FLAG_AF 0x10u
#define FLAG_ZF 0x40u
#define FLAG_SF 0x80u
#define FLAG_TF 0x100u
#define FLAG_IF 0x200u
#define FLAG_DF 0x400u
#define FLAG_OF 0x800u
#define FLAG_IOPL 0x3000u
#define FLAG_NT 0x4000u
#define FLAG_RF 0x10000u
#define FLAG_VM 0x20000u
#define FLAG_AC 0x40000u
#define FLAG_VIF 0x80000u
#define FLAG_VIP 0x100000u
#define FLAG_ID 0x200000u
#define FLAGS_ARITH (FLAG_CF | FLAG_PF | FLAG_AF | FLAG_ZF | FLAG_SF | FLAG_OF)

enum {
    ATTR_LOCK = 1 << 0,     /* LOCK is legal with a memory destination */
    ATTR_REP = 1 << 1,      /* REP means something (ins outs movs lods stos) */
    ATTR_REPZ = 1 << 2,     /* REPE/REPNE (cmps scas) */
    ATTR_NO64 = 1 << 3,     /* #UD in 64-bit mode */
    ATTR_ONLY64 = 1 << 4,   /* this row only in 64-bit mode */
    ATTR_D64 = 1 << 5,      /* operand size defaults to 64 in 64-bit mode, 32 not encodable (push, pop) */
    ATTR_F64 = 1 << 6,      /* operand size forced to 64 in 64-bit mode (near branches; 66 ignored as Intel does) */
    ATTR_CPL0 = 1 << 7,     /* #GP(0) unless CPL is 0 */
    ATTR_IOPL = 1 << 8,     /* IOPL-sensitive */
    ATTR_PROTECTED = 1 << 9, /* #UD in real and virtual-8086 mode */
    ATTR_VEX_L0 = 1 << 10, ATTR_VEX_L1 = 1 << 11, /* VEX.L / EVEX.L'L must be; neither: any (x) */
    ATTR_VEX_L2 = 1 << 12,
    ATTR_VEX_LIG = 1 << 13, /* L ignored */
    ATTR_W0 = 1 << 14, ATTR_W1 = 1 << 15, /* REX.W / VEX.W / EVEX.W must be; neither: ignored or operand size */
    ATTR_VSIB = 1 << 16,
    ATTR_EVEX_MASK = 1 << 17, ATTR_EVEX_ZERO = 1 << 18, /* {k} and {z} legal */
    ATTR_EVEX_BCST = 1 << 19, ATTR_EVEX_ER = 1 << 20, ATTR_EVEX_SAE = 1 << 21,
    ATTR_IGNORE66 = 1 << 22, /* 66 does not change the operand size (CRC32's F2+66 does; most 0F rows with NP) */
    ATTR_NO67 = 1 << 23,
    ATTR_BRANCH = 1 << 24,   /* changes RIP: ends a block */
    ATTR_END = 1 << 25,      /* ends a block for another reason (mode, interrupts, serialising) */
    ATTR_UNDOCUMENTED = 1 << 26,
    ATTR_NO16 = 1 << 27,     /* invalid with 16-bit addressing (VSIB, tiles) */
    /* Size of an element of the memory operand (or, without one, of the destination): what EVEX broadcast
     * repeats and what one mask bit or one gathered element stands for. Two bits: log2 of 1, 2, 4, 8. */
    ATTR_ELEM1 = 0, ATTR_ELEM2 = 1 << 28, ATTR_ELEM4 = 2 << 28, ATTR_ELEM8 = 3 << 28,
    ATTR_ELEM_SHIFT = 28,
    /* EVEX disp8*N (SDM Vol. 2A 2.7.5): N is the size of the memory operand (the element with broadcast); with
     * ATTR_EVEX_N_ELEM (compress, expand, gather, scatter), the size of an element. */
    ATTR_EVEX_N_ELEM = 1 << 30,
    ATTR_W0_64 = 1u << 31,   /* W must be 0 in 64-bit mode, is ignored elsewhere (vmovd beside vmovq) */
};

/* Exception classes: which checks the engine makes before the semantics.
 * SDM Vol. 2A 2.5 (SSE types), 2.4 (VEX types 1 to 14), 2.8 (EVEX). */
enum exception_class {
    EXC_NONE,
    EXC_X87,        /* #NM on CR0.EM|TS, #MF pending */
    EXC_X87_NOWAIT, /* #NM, no #MF check (fninit fnstcw fnstsw fnclex fnsave fnstenv) */
    EXC_MMX,        /* #UD on EM, #NM on TS, #MF pending */
    EXC_SSE_INT_MMX, /* cvtpi2ps and kin: SSE checks + #MF */
    EXC_SSE,        /* SSE, no memory alignment rule, no SIMD FP exceptions */
    EXC_SSE_ALIGNED, /* #GP if the memory operand is not 16-byte aligned (types 1, 4 legacy) */
    EXC_SSE_FP, EXC_SSE_FP_ALIGNED, /* + #XM (types 2, 3) */
    EXC_VEX,        /* #UD unless CR4.OSXSAVE and XCR0[2:1]=3; #NM on TS */
    EXC_VEX_ALIGNED, /* vmovaps and kin: alignment by vector length (type 1) */
    EXC_VEX_FP,     /* + #XM (types 2, 3) */
    EXC_VEX_GATHER, /* type 12 */
    EXC_VEX_GPR,    /* type 13: BMI, no CR4/XCR0 checks but VEX needs protected mode */
    EXC_VEX_ZEROUPPER, /* type 8 */
    EXC_OPMASK,     /* VEX-encoded mask instructions (K20, K21) */
    EXC_EVEX, EXC_EVEX_ALIGNED, EXC_EVEX_FP, EXC_EVEX_GATHER,
    EXC_AMX,
    EXC_COUNT
};

enum cpu_feature {
#define FEATURE_BASE(id) FEATURE_##id,
#define FEATURE(id, name, leaf, subleaf, reg, bit) FEATURE_##id,
#include "cpu/features.def"
#undef FEATURE
    FEATURE_COUNT
};

enum insn_handler {
#define HANDLER(name) HANDLER_##name,
#include "cpu/decode/handlers.def"
#undef HANDLER
    HANDLER_COUNT
};

/* How the translator will treat the row (design, section 4). */
enum jit_class {
    JIT_VERBATIM,  /* bytes may be copied if no memory operand and only pinned registers */
    JIT_MEM,       /* the same, and with a memory operand: check, then op [host] */
    JIT_STACK,     /* push, pop, enter, leave ... */
    JIT_CONTROL,   /* branches, calls, returns */
    JIT_STRING,
    JIT_HELPER,    /* calls the interpreter's handler */
    JIT_END,       /* calls the handler and ends the block */
    JIT_CLASS_COUNT
};

struct insn_row {
    const char *mnemonic;
    uint8_t map, opcode, prefix, modrm, modrm_value; /* digit or exact byte */
    struct operand_spec operands[6]; /* INSN_MAX_OPERANDS */
    uint32_t flags_read, flags_written, flags_undefined;
    uint32_t attributes;
    uint16_t feature;
    uint8_t exception_class;
    uint16_t handler;
    uint8_t jit_class;
};

extern const struct insn_row insn_rows[];
extern const unsigned insn_row_count;

/* clang-format on */

#endif
