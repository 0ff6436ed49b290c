/* What decoder, encoder and the table's tests share: operand types taken apart, and the
 * index from opcode to rows. */
#ifndef EIDOLON_CPU_DECODE_INTERNAL_H
#define EIDOLON_CPU_DECODE_INTERNAL_H

#include "cpu/decode/insn.h"

/* Where an operand type finds its operand. The memory-or-register ones are in the order
 * of their register kinds. */
/* clang-format off */
enum operand_class {
    OC_NONE,
    OC_RM_GPR, OC_RM_VEC, OC_RM_MMX, OC_RM_MASK,                     /* ModRM.rm, memory if mod != 3 */
    OC_RM_MEM, OC_RM_VSIB, OC_RM_SIB,                                /* memory only; with a SIB byte */
    OC_RM_GPR_ONLY, OC_RM_VEC_ONLY, OC_RM_MMX_ONLY, OC_RM_MASK_ONLY, OC_RM_TMM, OC_RM_ST, /* register only */
    OC_REG_GPR, OC_REG_VEC, OC_REG_MMX, OC_REG_MASK, OC_REG_SEG, OC_REG_CR, OC_REG_DR, OC_REG_TMM,
    OC_VVVV_GPR, OC_VVVV_VEC, OC_VVVV_MASK, OC_VVVV_TMM,
    OC_IS4_VEC,                                                      /* imm8[7:4] */
    OC_OPCODE_GPR,                                                   /* low three opcode bits */
    OC_IMM, OC_IMM_SIGNED, OC_IMM2, OC_REL, OC_FAR, OC_MOFFS,
    OC_CONST,                                                        /* imm has the value of `reg` */
    OC_STRING,                                                       /* memory at [reg]: string source or destination */
    OC_FIXED_MEM,                                                    /* memory at [reg] (+ AL for xlat) */
    OC_FIXED_GPR, OC_FIXED_HIGH, OC_FIXED_SEG, OC_FIXED_VEC, OC_FIXED_ST,
};
/* clang-format on */

/* clang-format off */
/* Sizes that depend on the instruction follow the fixed ones (0..64). */
enum operand_size_code {
    OZ_V = 65, /* operand size */
    OZ_Z,      /* 2 or 4 */
    OZ_Y,      /* 4 or 8 */
    OZ_A,      /* address size */
    OZ_P,      /* far pointer: operand size + 2 */
    OZ_S,      /* descriptor table register: 6 or 10 */
    OZ_2V,     /* bound */
    OZ_X, OZ_HX, OZ_QX, OZ_EX, /* vector length and its half, quarter, eighth */
};
/* clang-format on */

struct operand_info {
    uint8_t class;
    uint8_t size;     /* of a memory operand (enum operand_size_code) */
    uint8_t reg_size; /* of a register */
    uint8_t reg;      /* fixed ones: number */
};

extern const struct operand_info operand_infos[OT_COUNT];
unsigned operand_size_by_rule(unsigned size_code, const struct insn *insn);
static inline unsigned operand_size_bytes(unsigned size_code, const struct insn *insn)
{
    if (size_code < OZ_V)
        return size_code;
    return size_code == OZ_V ? insn->operand_size : operand_size_by_rule(size_code, insn);
}

/* One way to match an opcode. The list of an opcode (and ModRM slot) is sorted: the first
 * match is the row. */
struct decode_candidate {
    uint16_t row;
    uint8_t prefixes; /* bit per NP, 66, F3, F2 */
    uint8_t modes_w;  /* bit per code_size * 2 + W */
    uint8_t lengths;  /* bit per vector length 0, 1, 2, 3 */
};

struct decode_entry {
    uint16_t first; /* split: index of the opcode's 72 slots; else of its candidates */
    uint8_t count;  /* not split: candidates */
    bool split;     /* ModRM takes part: slot = reg for memory forms, 8 + low 6 bits for register forms */
    bool has_modrm;
};

struct decode_slot {
    uint16_t first;
    uint8_t count;
};

struct decode_index {
    struct decode_entry entries[MAP_COUNT][256];
    struct decode_slot *slots;
    struct decode_candidate *candidates;
};

#define DECODE_SLOTS 72
static inline unsigned decode_slot_number(uint8_t modrm)
{
    return modrm < 0xc0 ? modrm >> 3 & 7 : 8 + (modrm & 0x3f);
}

/* Built at first use, never changed afterwards. Any thread. */
const struct decode_index *decode_index_get(void);

/* Does the row have a ModRM byte? */
static inline bool row_has_modrm(const struct insn_row *row)
{
    return row->modrm != MODRM_NONE && row->modrm != MODRM_PLUSR;
}

static inline bool map_is_vex(unsigned map)
{
    return map >= MAP_VEX_0F && map <= MAP_VEX_0F3A;
}
static inline bool map_is_evex(unsigned map)
{
    return map >= MAP_EVEX_0F;
}

/* ModRM.mod of the row is ignored, rm is always a register (mov to and from CR and DR). */
bool row_ignores_mod(const struct insn_row *row);

/* The effective operand size (SDM Vol. 1 3.6, Vol. 2A 2.2.1.2; Intel's near branches ignore 66 in
 * 64-bit mode). */
unsigned row_operand_size(const struct insn_row *row, enum code_size code_size, bool prefix_66, bool w);

#endif
