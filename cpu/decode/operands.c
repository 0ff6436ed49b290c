/* Operand types taken apart: where each operand is encoded and how wide it is.
 * Constant data. (SDM Vol. 2D appendix A.2.) */
#include "cpu/decode/decode_internal.h"

/* clang-format off */
#define RM(name, size) [OT_##name] = { OC_RM_GPR, size, size, 0 }
#define REG(name, size) [OT_##name] = { OC_REG_GPR, size, size, 0 }
#define RONLY(name, size) [OT_##name] = { OC_RM_GPR_ONLY, size, size, 0 }
#define MIXED(name, reg_size, mem_size) [OT_##name] = { OC_RM_GPR, mem_size, reg_size, 0 }
#define MEM(name, size) [OT_##name] = { OC_RM_MEM, size, 0, 0 }
#define FIXED(name, size, number) [OT_##name] = { OC_FIXED_GPR, size, size, number }
#define SEGMENT(name) [OT_##name] = { OC_FIXED_SEG, 2, 2, SEG_##name }
#define VEC(class, name, size) [OT_##name] = { class, size, size, 0 }

const struct operand_info operand_infos[OT_COUNT] = {
    RM(Eb, 1), RM(Ew, 2), RM(Ed, 4), RM(Eq, 8), RM(Ev, OZ_V), RM(Ey, OZ_Y), RM(Ez, OZ_Z),
    REG(Gb, 1), REG(Gw, 2), REG(Gd, 4), REG(Gq, 8), REG(Gv, OZ_V), REG(Gy, OZ_Y), REG(Gz, OZ_Z), REG(Ga, OZ_A),
    RONLY(Rb, 1), RONLY(Rw, 2), RONLY(Rd, 4), RONLY(Rq, 8), RONLY(Rv, OZ_V), RONLY(Ry, OZ_Y), RONLY(Ra, OZ_A),
    MIXED(RdMb, 4, 1), MIXED(RdMw, 4, 2), MIXED(RyMb, OZ_Y, 1), MIXED(RyMw, OZ_Y, 2), MIXED(RvMw, OZ_V, 2),
    MEM(Mb, 1), MEM(Mw, 2), MEM(Md, 4), MEM(Mq, 8), MEM(Mv, OZ_V), MEM(My, OZ_Y), MEM(Mz, OZ_Z), MEM(Mt, 10),
    MEM(Mdq, 16), MEM(Mqq, 32), MEM(Mo, 64), MEM(Mx, OZ_X), MEM(Mhx, OZ_HX), MEM(Mp, OZ_P), MEM(Ms, OZ_S),
    MEM(Mm, 0), MEM(Ma, OZ_2V),
    [OT_By] = { OC_VVVV_GPR, OZ_Y, OZ_Y, 0 }, [OT_Bv] = { OC_VVVV_GPR, OZ_V, OZ_V, 0 },
    [OT_Zb] = { OC_OPCODE_GPR, 1, 1, 0 }, [OT_Zv] = { OC_OPCODE_GPR, OZ_V, OZ_V, 0 },
    [OT_Zy] = { OC_OPCODE_GPR, OZ_Y, OZ_Y, 0 },
    [OT_Sw] = { OC_REG_SEG, 2, 2, 0 }, [OT_Cy] = { OC_REG_CR, OZ_Y, OZ_Y, 0 }, [OT_Dy] = { OC_REG_DR, OZ_Y, OZ_Y, 0 },
    [OT_Ob] = { OC_MOFFS, 1, 1, 0 }, [OT_Ov] = { OC_MOFFS, OZ_V, OZ_V, 0 },
    /* immediates: `size` is the operand's, `reg_size` the encoded one */
    [OT_Ib] = { OC_IMM, 1, 1, 0 }, [OT_Ibs] = { OC_IMM_SIGNED, OZ_V, 1, 0 }, [OT_Iw] = { OC_IMM, 2, 2, 0 },
    [OT_Iz] = { OC_IMM_SIGNED, OZ_V, OZ_Z, 0 }, [OT_Iv] = { OC_IMM, OZ_V, OZ_V, 0 }, [OT_Ib2] = { OC_IMM2, 1, 1, 0 },
    [OT_Jb] = { OC_REL, 1, 1, 0 }, [OT_Jz] = { OC_REL, OZ_Z, OZ_Z, 0 }, [OT_Ap] = { OC_FAR, OZ_P, OZ_P, 0 },
    [OT_One] = { OC_CONST, 1, 0, 1 }, [OT_Three] = { OC_CONST, 1, 0, 3 },
    [OT_Xb] = { OC_STRING, 1, 1, REG_RSI }, [OT_Xv] = { OC_STRING, OZ_V, OZ_V, REG_RSI },
    [OT_Xz] = { OC_STRING, OZ_Z, OZ_Z, REG_RSI },
    [OT_Yb] = { OC_STRING, 1, 1, REG_RDI }, [OT_Yv] = { OC_STRING, OZ_V, OZ_V, REG_RDI },
    [OT_Yz] = { OC_STRING, OZ_Z, OZ_Z, REG_RDI },
    [OT_BXAL] = { OC_FIXED_MEM, 1, 0, REG_RBX }, [OT_DIdq] = { OC_FIXED_MEM, 16, 0, REG_RDI },
    [OT_DIq] = { OC_FIXED_MEM, 8, 0, REG_RDI }, [OT_AXm] = { OC_FIXED_MEM, 0, 0, REG_RAX },
    FIXED(AL, 1, REG_RAX), FIXED(AX, 2, REG_RAX), FIXED(EAX, 4, REG_RAX), FIXED(rAXv, OZ_V, REG_RAX),
    FIXED(rAXy, OZ_Y, REG_RAX), FIXED(rAXz, OZ_Z, REG_RAX), [OT_AH] = { OC_FIXED_HIGH, 1, 1, REG_RAX },
    FIXED(CL, 1, REG_RCX), FIXED(CX, 2, REG_RCX), FIXED(ECX, 4, REG_RCX), FIXED(rCXa, OZ_A, REG_RCX),
    FIXED(DX, 2, REG_RDX), FIXED(EDX, 4, REG_RDX), FIXED(rDXv, OZ_V, REG_RDX), FIXED(rDXy, OZ_Y, REG_RDX), FIXED(EBX, 4, REG_RBX),
    FIXED(rBXv, OZ_V, REG_RBX), FIXED(rCXv, OZ_V, REG_RCX),
    SEGMENT(ES), SEGMENT(CS), SEGMENT(SS), SEGMENT(DS), SEGMENT(FS), SEGMENT(GS),
    [OT_XMM0] = { OC_FIXED_VEC, 16, 16, 0 },
    [OT_ST0] = { OC_FIXED_ST, 10, 10, 0 }, [OT_STi] = { OC_RM_ST, 10, 10, 0 },
    VEC(OC_REG_VEC, Vx, OZ_X), VEC(OC_REG_VEC, Vdq, 16), VEC(OC_REG_VEC, Vqq, 32), VEC(OC_REG_VEC, Vo, 64),
    VEC(OC_REG_VEC, Vq, 8), VEC(OC_REG_VEC, Vd, 4), VEC(OC_REG_VEC, Vss, 4), VEC(OC_REG_VEC, Vsd, 8),
    VEC(OC_REG_VEC, Vsh, 2), VEC(OC_REG_VEC, Vhx, OZ_HX), VEC(OC_REG_VEC, Vqx, OZ_QX), VEC(OC_REG_VEC, Vex, OZ_EX),
    VEC(OC_VVVV_VEC, Hx, OZ_X), VEC(OC_VVVV_VEC, Hdq, 16), VEC(OC_VVVV_VEC, Hqq, 32), VEC(OC_VVVV_VEC, Ho, 64),
    VEC(OC_VVVV_VEC, Hss, 4), VEC(OC_VVVV_VEC, Hsd, 8), VEC(OC_VVVV_VEC, Hsh, 2), VEC(OC_VVVV_VEC, Hq, 8),
    VEC(OC_RM_VEC, Wx, OZ_X), VEC(OC_RM_VEC, Wdq, 16), VEC(OC_RM_VEC, Wqq, 32), VEC(OC_RM_VEC, Wo, 64),
    VEC(OC_RM_VEC, Wq, 8), VEC(OC_RM_VEC, Wd, 4), VEC(OC_RM_VEC, Ww, 2), VEC(OC_RM_VEC, Wb, 1),
    VEC(OC_RM_VEC, Wss, 4), VEC(OC_RM_VEC, Wsd, 8), VEC(OC_RM_VEC, Wsh, 2), VEC(OC_RM_VEC, Whx, OZ_HX),
    VEC(OC_RM_VEC, Wqx, OZ_QX), VEC(OC_RM_VEC, Wex, OZ_EX),
    VEC(OC_RM_VEC_ONLY, Ux, OZ_X), VEC(OC_RM_VEC_ONLY, Udq, 16), VEC(OC_RM_VEC_ONLY, Uqq, 32),
    VEC(OC_RM_VEC_ONLY, Uo, 64), VEC(OC_RM_VEC_ONLY, Uq, 8), VEC(OC_RM_VEC_ONLY, Ud, 4),
    VEC(OC_IS4_VEC, Lx, OZ_X), VEC(OC_IS4_VEC, Ldq, 16), VEC(OC_IS4_VEC, Lqq, 32),
    VEC(OC_REG_MMX, Pq, 8), VEC(OC_REG_MMX, Pd, 4), VEC(OC_RM_MMX, Qq, 8), VEC(OC_RM_MMX, Qd, 4),
    VEC(OC_RM_MMX_ONLY, Nq, 8),
    VEC(OC_REG_MASK, KGb, 1), VEC(OC_REG_MASK, KGw, 2), VEC(OC_REG_MASK, KGd, 4), VEC(OC_REG_MASK, KGq, 8),
    VEC(OC_VVVV_MASK, KHb, 1), VEC(OC_VVVV_MASK, KHw, 2), VEC(OC_VVVV_MASK, KHd, 4), VEC(OC_VVVV_MASK, KHq, 8),
    VEC(OC_RM_MASK, KEb, 1), VEC(OC_RM_MASK, KEw, 2), VEC(OC_RM_MASK, KEd, 4), VEC(OC_RM_MASK, KEq, 8),
    VEC(OC_RM_MASK_ONLY, KRb, 1), VEC(OC_RM_MASK_ONLY, KRw, 2), VEC(OC_RM_MASK_ONLY, KRd, 4),
    VEC(OC_RM_MASK_ONLY, KRq, 8), VEC(OC_REG_MASK, KG, 8), VEC(OC_VVVV_MASK, KH, 8),
    [OT_MVd] = { OC_RM_VSIB, 4, 0, 0 }, [OT_MVq] = { OC_RM_VSIB, 8, 0, 0 },
    /* tiles: 16 rows of 64 bytes */
    [OT_TG] = { OC_REG_TMM, 0, 0, 0 }, [OT_TE] = { OC_RM_TMM, 0, 0, 0 }, [OT_TH] = { OC_VVVV_TMM, 0, 0, 0 },
    [OT_Msib] = { OC_RM_SIB, 0, 0, 0 },
};
/* clang-format on */

/* clang-format off */
unsigned operand_size_by_rule(unsigned size_code, const struct insn *insn)
{
    switch (size_code) {
    case OZ_Z: return insn->operand_size == 2 ? 2 : 4;
    case OZ_Y: return insn->operand_size == 8 ? 8 : 4;
    case OZ_A: return insn->address_size;
    case OZ_P: return insn->operand_size + 2u;
    case OZ_S: return insn->code_size == CODE64 ? 10 : 6;
    case OZ_2V: return insn->operand_size * 2u;
    case OZ_X: return 16u << insn->vex.l;
    case OZ_HX: return 8u << insn->vex.l;
    case OZ_QX: return 4u << insn->vex.l;
    case OZ_EX: return 2u << insn->vex.l;
    default: return size_code;
    }
}
/* clang-format on */

bool row_ignores_mod(const struct insn_row *row)
{
    if (row->modrm != MODRM_ANY)
        return false;
    for (unsigned i = 0; i < INSN_MAX_OPERANDS; i++) {
        unsigned class = operand_infos[row->operands[i].type].class;
        if (class >= OC_RM_GPR_ONLY && class <= OC_RM_ST)
            return true;
    }
    return false;
}

unsigned row_operand_size(const struct insn_row *row, enum code_size code_size, bool prefix_66, bool w)
{
    if (row->prefix == PREFIX_66 || (row->attributes & ATTR_IGNORE66))
        prefix_66 = false;
    if (code_size == CODE64) {
        if (w || (row->attributes & ATTR_F64))
            return 8;
        if (prefix_66)
            return 2;
        return row->attributes & ATTR_D64 ? 8 : 4;
    }
    return (code_size == CODE32) != prefix_66 ? 4 : 2;
}
