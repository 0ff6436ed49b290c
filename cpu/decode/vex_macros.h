/* Shapes that the VEX and EVEX rows share: ROW with the columns that never vary filled in. The tokens are those of
 * row_macros.h, except that operands are a plain list in parentheses, and attributes stand without ATTR().
 *
 *   VEC         executed by the host, no arithmetic flags
 *   VECF        the same, and it writes all six of them: comis, ptest, testps, pcmp?str?
 *   VECI        integer instruction: the 128-bit form is AVX, the 256-bit form AVX2 (SDM Vol. 1 14.3)
 *   VECI_SHIFT  the same, destination in vvvv, count in the immediate, opcode extension in ModRM.reg
 *   BMI         general registers, VEX-encoded (exception type 13)
 *   OPMASK, OPMASKF  k registers; OPMASKF writes flags
 *   AMX         tiles: rows for the decoder only */
#ifndef EIDOLON_CPU_DECODE_VEX_MACROS_H
#define EIDOLON_CPU_DECODE_VEX_MACROS_H

#define VEC(mnemonic, opcode, prefix, modrm, operands, attr, feature, exc)                                             \
    ROW(mnemonic, opcode, PREFIX(prefix), MODRM(modrm), OPS operands, FLAGS(0, 0, 0), ATTR(attr), feature, exc, vec,   \
        MEM)
#define VECF(mnemonic, opcode, prefix, modrm, operands, attr, feature, exc)                                            \
    ROW(mnemonic, opcode, PREFIX(prefix), MODRM(modrm), OPS operands, FLAGS(0, OSZAPC, 0), ATTR(attr), feature, exc,   \
        vec_flags, MEM)
#define VECI(mnemonic, opcode, prefix, modrm, operands)                                                                \
    VEC(mnemonic, opcode, prefix, modrm, operands, VEX_L0, AVX, VEX)                                                   \
    VEC(mnemonic, opcode, prefix, modrm, operands, VEX_L1, AVX2, VEX)
#define VECI_SHIFT(mnemonic, opcode, digit)                                                                            \
    ROW(mnemonic, opcode, PREFIX(66), MODRM(EXT_REG, digit), OPS(W(Hx), R(Ux), R(Ib)), FLAGS(0, 0, 0), ATTR(VEX_L0),   \
        AVX, VEX, vec, MEM)                                                                                            \
    ROW(mnemonic, opcode, PREFIX(66), MODRM(EXT_REG, digit), OPS(W(Hx), R(Ux), R(Ib)), FLAGS(0, 0, 0), ATTR(VEX_L1),   \
        AVX2, VEX, vec, MEM)
#define BMI(name, opcode, prefix, operands, flags, feature)                                                            \
    ROW(name, opcode, PREFIX(prefix), MODRM(ANY), OPS operands, FLAGS flags, ATTR(VEX_L0), feature, VEX_GPR, name, MEM)
#define BMI_EXT(name, opcode, digit, operands, flags, feature)                                                         \
    ROW(name, opcode, PREFIX(NP), MODRM(EXT, digit), OPS operands, FLAGS flags, ATTR(VEX_L0), feature, VEX_GPR, name,  \
        MEM)
#define OPMASK(mnemonic, opcode, prefix, modrm, operands, attr, feature)                                               \
    ROW(mnemonic, opcode, PREFIX(prefix), MODRM(modrm), OPS operands, FLAGS(0, 0, 0), ATTR(attr), feature, OPMASK,     \
        opmask, HELPER)
#define OPMASKF(mnemonic, opcode, prefix, modrm, operands, attr, feature)                                              \
    ROW(mnemonic, opcode, PREFIX(prefix), MODRM(modrm), OPS operands, FLAGS(0, OSZAPC, 0), ATTR(attr), feature,        \
        OPMASK, opmask, HELPER)
#define MASKMOV(mnemonic, opcode, operands, attr, feature)                                                             \
    ROW(mnemonic, opcode, PREFIX(66), MODRM(MEM), OPS operands, FLAGS(0, 0, 0), ATTR(attr), feature, VEX, maskmov,     \
        HELPER)
#define GATHER(mnemonic, opcode, operands, attr)                                                                       \
    ROW(mnemonic, opcode, PREFIX(66), MODRM(MEM), OPS operands, FLAGS(0, 0, 0), ATTR(attr), AVX2, VEX_GATHER, gather,  \
        HELPER)
#define AMX(mnemonic, opcode, prefix, modrm, operands, feature)                                                        \
    ROW(mnemonic, opcode, PREFIX(prefix), MODRM modrm, OPS operands, FLAGS(0, 0, 0), ATTR(VEX_L0 | W0 | ONLY64),       \
        feature, AMX, unimplemented, HELPER)

/* EVEX: rows for the decoder only, until the engines have opmasks and 512-bit registers. MZ: {k} and {z} legal. */
#define MZ (EVEX_MASK | EVEX_ZERO)
#define EVEX(mnemonic, opcode, prefix, modrm, operands, attr, feature, exc)                                            \
    ROW(mnemonic, opcode, PREFIX(prefix), MODRM(modrm), OPS operands, FLAGS(0, 0, 0), ATTR(attr), feature, exc,        \
        unimplemented, HELPER)
#define EVEXF(mnemonic, opcode, prefix, modrm, operands, attr, feature, exc)                                           \
    ROW(mnemonic, opcode, PREFIX(prefix), MODRM(modrm), OPS operands, FLAGS(0, OSZAPC, 0), ATTR(attr), feature, exc,   \
        unimplemented, HELPER)
#define EVEX_SHIFT(mnemonic, opcode, digit, attr, feature)                                                             \
    ROW(mnemonic, opcode, PREFIX(66), MODRM(EXT, digit), OPS(W(Hx), R(Wx), R(Ib)), FLAGS(0, 0, 0), ATTR(attr),         \
        feature, EVEX, unimplemented, HELPER)
#define EVEX_VSIB(mnemonic, opcode, operands, attr)                                                                    \
    ROW(mnemonic, opcode, PREFIX(66), MODRM(MEM), OPS operands, FLAGS(0, 0, 0),                                        \
        ATTR(attr | VSIB | NO16 | EVEX_MASK | EVEX_N_ELEM), AVX512F, EVEX_GATHER, unimplemented, HELPER)
#define EVEX_IN(map, mnemonic, opcode, prefix, modrm, operands, attr, feature, exc)                                    \
    ROW_IN(map, mnemonic, opcode, PREFIX(prefix), MODRM(modrm), OPS operands, FLAGS(0, 0, 0), ATTR(attr), feature,     \
           exc, unimplemented, HELPER)
#define EVEXF_IN(map, mnemonic, opcode, prefix, modrm, operands, attr, feature, exc)                                   \
    ROW_IN(map, mnemonic, opcode, PREFIX(prefix), MODRM(modrm), OPS operands, FLAGS(0, OSZAPC, 0), ATTR(attr),         \
           feature, exc, unimplemented, HELPER)

#endif
