/* The tokens that rows of the .def files are written in. Included only by tables.c (and by
 * tests that read the rows again), since the names are short.
 *
 *   ROW(mnemonic, opcode, PREFIX(..), MODRM(..), OPS(..), FLAGS(read, written, undefined),
 *       ATTR(..), feature, exception_class, handler, jit_class)
 *
 *   mnemonic   bare word (stringified)
 *   opcode     0x00..0xff: the last opcode byte. MODRM(PLUSR): the first of the eight
 *   PREFIX     ANY | NP | 66 | F3 | F2 | NP_66               -> enum insn_prefix
 *   MODRM      NONE | ANY | MEM | REG | PLUSR                 -> enum insn_modrm
 *              EXT, digit | EXT_MEM, digit | EXT_REG, digit | BYTE, 0xc1
 *   OPS        up to INSN_MAX_OPERANDS, in the assembly text's (Intel) order. Each is an access letter with an
 *              operand type of operand_types.def:
 *                R(x) read   W(x) written   RW(x) both   N(x) neither (address only)
 *                CW(x) perhaps written    RCW(x) read, perhaps written
 *              and RI WI RWI NI CWI RCWI: the same for operands that the assembly text does not name
 *   FLAGS      three sets, see FL_ below (OSZAPC subsets in this order, or 0): read, written with a defined
 *              value, left undefined. The last two are disjoint. A flag that may stay as it was (shift by CL)
 *              is in `read` as well
 *   ATTR       0, or names below joined with | (ATTR_ without the prefix)
 *   feature    cpu/features.def id (BASE, SSE2, AVX2 ...)
 *   exception_class, handler, jit_class: enum exception_class / handlers.def / enum jit_class without EXC_, HANDLER_, JIT_
 *
 * Examples:
 *   ROW(add,  0x01, PREFIX(ANY), MODRM(ANY), OPS(RW(Ev), R(Gv)), FLAGS(0, OSZAPC, 0), ATTR(LOCK), BASE, NONE, add, MEM)
 *   ROW(and,  0x80, PREFIX(ANY), MODRM(EXT, 4), OPS(RW(Eb), R(Ib)), FLAGS(0, OSZPC, A), ATTR(LOCK), BASE, NONE, and, MEM)
 *   ROW(cpuid, 0xa2, PREFIX(ANY), MODRM(NONE), OPS(RWI(EAX), RWI(ECX), WI(EBX), WI(EDX)), FLAGS(0, 0, 0), ATTR(0), BASE, NONE, cpuid, HELPER)
 *   ROW(blendvps, 0x14, PREFIX(66), MODRM(ANY), OPS(RW(Vdq), R(Wdq), RI(XMM0)), FLAGS(0, 0, 0), ATTR(0), SSE41, SSE_ALIGNED, vec, MEM)
 *   ROW(vaddps, 0x58, PREFIX(NP), MODRM(ANY), OPS(W(Vx), R(Hx), R(Wx)), FLAGS(0, 0, 0), ATTR(0), AVX, VEX_FP, vec, MEM)
 *   ROW(vaddps, 0x58, PREFIX(NP), MODRM(ANY), OPS(W(Vx), R(Hx), R(Wx)), FLAGS(0, 0, 0),
 *       ATTR(W0 | ELEM4 | EVEX_MASK | EVEX_ZERO | EVEX_BCST | EVEX_ER), AVX512F, EVEX_FP, vec, MEM)
 *   ROW(vmovd, 0x6e, PREFIX(66), MODRM(ANY), OPS(W(Vdq), R(Ed)), FLAGS(0, 0, 0), ATTR(VEX_L0 | W0_64), AVX, VEX, vec, MEM)
 *   ROW(vmovq, 0x6e, PREFIX(66), MODRM(ANY), OPS(W(Vdq), R(Eq)), FLAGS(0, 0, 0), ATTR(VEX_L0 | W1 | ONLY64), AVX, VEX, vec, MEM)
 *   ROW(andn, 0xf2, PREFIX(NP), MODRM(ANY), OPS(W(Gy), R(By), R(Ey)), FLAGS(0, OSZC, AP), ATTR(VEX_L0), BMI1, VEX_GPR, andn, MEM)
 *   ROW(vgatherdps, 0x92, PREFIX(66), MODRM(MEM), OPS(RW(Vx), R(MVd), RW(Hx)), FLAGS(0, 0, 0), ATTR(W0 | VSIB), AVX2, VEX_GATHER, gather, HELPER)
 *
 * What the decoder does with them:
 *   - Two rows may match the same bytes only if one is a special case of the other; the narrower one wins.
 *   - ATTR_W0 / W1: REX.W, VEX.W or EVEX.W must be so, in every mode. W0_64: must be 0 in 64-bit mode and is
 *     ignored elsewhere (forms whose W is the width of a GPR). Neither: ignored, or the size of `y` operands.
 *   - VEX and EVEX rows without an H, B or KH operand need vvvv = 1111b. With ATTR_VSIB and EVEX: aaa = 0 is invalid,
 *     V' extends the index.
 *   - VEX_L0 | VEX_L1 joined: either of the two. None of VEX_L0, L1, L2, LIG: `x` operands by vector length (VEX: 128 or 256;
 *     EVEX: 128, 256 or 512).
 *   - ELEM1, 2, 4, 8: size of an element of the memory operand (or the destination), for broadcast and masking.
 *   - EVEX disp8 is scaled by the size of the memory operand; by ELEM when broadcasting and with EVEX_N_ELEM.
 *   - EVEX rounding (ER, SAE; b = 1 with a register operand): rows without LIG have vector length 512.
 *   - EVEX prefix selection is by pp: NP, 66, F3, F2 (ANY and NP_66 are for legacy maps).
 *   - Rows of evex_map56.def are written ROW_IN(MAP_EVEX_5, mnemonic, ...) and ROW_IN(MAP_EVEX_6, mnemonic, ...). */

/* clang-format off */
/* Flag sets. Add what is missing, in the order OSZAPC. */
enum {
    FL_0 = 0,
    FL_O = FLAG_OF, FL_S = FLAG_SF, FL_Z = FLAG_ZF, FL_A = FLAG_AF, FL_P = FLAG_PF, FL_C = FLAG_CF,
    FL_OSZAPC = FLAGS_ARITH,
    FL_OSZAP = FL_OSZAPC & ~FL_C,
    FL_OSZPC = FL_OSZAPC & ~FL_A,
    FL_OSAPC = FL_OSZAPC & ~FL_Z,
    FL_OSZAC = FL_OSZAPC & ~FL_P,
    FL_OZAPC = FL_OSZAPC & ~FL_S,
    FL_OSZC = FL_O | FL_S | FL_Z | FL_C,
    FL_OSAP = FL_O | FL_S | FL_A | FL_P,
    FL_OSAC = FL_O | FL_S | FL_A | FL_C,
    FL_OSPC = FL_O | FL_S | FL_P | FL_C,
    FL_SZAPC = FL_OSZAPC & ~FL_O,
    FL_OSZP = FL_O | FL_S | FL_Z | FL_P,
    FL_SZAP = FL_S | FL_Z | FL_A | FL_P,
    FL_OAPC = FL_O | FL_A | FL_P | FL_C,
    FL_OSZ = FL_O | FL_S | FL_Z,
    FL_OSC = FL_O | FL_S | FL_C,
    FL_OAC = FL_O | FL_A | FL_C,
    FL_OZC = FL_O | FL_Z | FL_C,
    FL_OC = FL_O | FL_C,
    FL_OS = FL_O | FL_S,
    FL_SAP = FL_S | FL_A | FL_P,
    FL_SZP = FL_S | FL_Z | FL_P,
    FL_SZPC = FL_S | FL_Z | FL_P | FL_C,
    FL_OA = FL_O | FL_A,
    FL_SZ = FL_S | FL_Z,
    FL_SC = FL_S | FL_C,
    FL_ZPC = FL_Z | FL_P | FL_C,
    FL_ZC = FL_Z | FL_C,
    FL_PC = FL_P | FL_C,
    FL_AC = FL_A | FL_C, /* auxiliary carry and carry, not alignment check: that is ACF */
    FL_AP = FL_A | FL_P,
    FL_OSA = FL_O | FL_S | FL_A,
    FL_CF = FL_C, FL_PF = FL_P, FL_AF = FL_A, FL_ZF = FL_Z, FL_SF = FL_S, FL_OF = FL_O,
    FL_DF_OSZAPC = FLAG_DF | FLAGS_ARITH, /* cmps, scas: a REP count of 0 leaves the flags */
    FL_DF = FLAG_DF, FL_IF = FLAG_IF, FL_ACF = FLAG_AC,
    FL_ALL = 0x3f7fd5, /* everything that PUSHF and IRET see */
};

/* ATTR_* without the prefix. */
enum {
    LOCK = ATTR_LOCK, REP = ATTR_REP, REPZ = ATTR_REPZ, NO64 = ATTR_NO64, ONLY64 = ATTR_ONLY64, D64 = ATTR_D64,
    F64 = ATTR_F64, CPL0 = ATTR_CPL0, IOPL = ATTR_IOPL, PROTECTED = ATTR_PROTECTED, VEX_L0 = ATTR_VEX_L0,
    VEX_L1 = ATTR_VEX_L1, VEX_L2 = ATTR_VEX_L2, VEX_LIG = ATTR_VEX_LIG, W0 = ATTR_W0, W1 = ATTR_W1,
    VSIB = ATTR_VSIB, EVEX_MASK = ATTR_EVEX_MASK, EVEX_ZERO = ATTR_EVEX_ZERO, EVEX_BCST = ATTR_EVEX_BCST,
    EVEX_ER = ATTR_EVEX_ER, EVEX_SAE = ATTR_EVEX_SAE, IGNORE66 = ATTR_IGNORE66, NO67 = ATTR_NO67,
    BRANCH = ATTR_BRANCH, END = ATTR_END, UNDOCUMENTED = ATTR_UNDOCUMENTED, NO16 = ATTR_NO16,
    ELEM1 = ATTR_ELEM1, ELEM2 = ATTR_ELEM2, ELEM4 = ATTR_ELEM4, ELEM8 = ATTR_ELEM8, EVEX_N_ELEM = ATTR_EVEX_N_ELEM,
    W0_64 = ATTR_W0_64,
};

#define R(type)    { OT_##type, ACCESS_R, false }
#define W(type)    { OT_##type, ACCESS_W, false }
#define RW(type)   { OT_##type, ACCESS_RW, false }
#define N(type)    { OT_##type, ACCESS_NONE, false }
#define CW(type)   { OT_##type, ACCESS_W | ACCESS_CW, false }
#define RCW(type)  { OT_##type, ACCESS_RW | ACCESS_CW, false }
#define RI(type)   { OT_##type, ACCESS_R, true }
#define WI(type)   { OT_##type, ACCESS_W, true }
#define RWI(type)  { OT_##type, ACCESS_RW, true }
#define NI(type)   { OT_##type, ACCESS_NONE, true }
#define CWI(type)  { OT_##type, ACCESS_W | ACCESS_CW, true }
#define RCWI(type) { OT_##type, ACCESS_RW | ACCESS_CW, true }

#define PREFIX(name) PREFIX_##name
#define MODRM_1(name) MODRM_##name, 0
#define MODRM_2(name, value) MODRM_##name, value
#define MODRM_PICK(a, b, pick, ...) pick
#define MODRM(...) MODRM_PICK(__VA_ARGS__, MODRM_2, MODRM_1, 0)(__VA_ARGS__)
#define OPS(...) { __VA_ARGS__ }
#define FLAGS(read, written, undefined) FL_##read, FL_##written, FL_##undefined
#define ATTR(set) (set)

/* An element of insn_rows. */
#define ROW_IN(map, mnemonic, opcode, prefix, modrm, ops, flags, attr, feature, exception, handler, jit)             \
    { #mnemonic, map, opcode, prefix, modrm, ops, flags, attr, FEATURE_##feature, EXC_##exception, HANDLER_##handler, \
      JIT_##jit },
#define ROW(mnemonic, opcode, prefix, modrm, ops, flags, attr, feature, exception, handler, jit)                     \
    { #mnemonic, ROW_MAP, opcode, prefix, modrm, ops, flags, attr, FEATURE_##feature, EXC_##exception,                \
      HANDLER_##handler, JIT_##jit },
/* clang-format on */
