/* The encoder: struct insn -> bytes, by the same rows as the decoder.
 *
 * Every field that an operand, mem or an immediate names is rebuilt from there, so that a caller may change registers and
 * addresses of a decoded instruction. (SDM Vol. 2A chapter 2.)
 *
 * Any thread; no state. */
#include <string.h>

#include "cpu/decode/decode_internal.h"

struct encoder {
    const struct insn *insn;
    const struct insn_row *row;
    uint8_t modrm, sib, opcode;
    bool has_sib, failed;
    bool w, rex_needed, rex_forbidden;
    uint8_t r, x, b; /* bits 3 and 4 of the register numbers in ModRM.reg, SIB.index or rm, rm or base */
    uint8_t vvvv;
    uint8_t disp_bytes;
    int64_t disp; /* as encoded: EVEX disp8 already divided by N */
    uint8_t *p;
};

static void emit(struct encoder *e, int64_t value, unsigned size)
{
    memcpy(e->p, &value, size); /* little-endian host: the only one we run on */
    e->p += size;
}

/* A register number for an 8-bit operand needs REX for spl bpl sil dil, and forbids it for ah ch dh bh. */
static unsigned gpr_number(struct encoder *e, const struct operand *o)
{
    if (o->kind == OPERAND_GPR_HIGH) {
        e->rex_forbidden = true;
        return o->reg + 4u;
    }
    if (o->size == 1 && o->reg >= 4)
        e->rex_needed = true;
    return o->reg;
}

static void set_reg_field(struct encoder *e, unsigned number)
{
    e->modrm = (uint8_t)((e->modrm & 0xc7) | (number & 7) << 3);
    e->r = number & 0x18;
}

static void set_rm_field(struct encoder *e, const struct operand *o, unsigned number)
{
    e->modrm = (uint8_t)(0xc0 | (e->modrm & 0x38) | (number & 7));
    e->b = number & 8;
    if (o->kind == OPERAND_VEC && e->insn->vex.kind == 4)
        e->x = (number & 16) >> 1;
}

static bool fits(int64_t value, unsigned size)
{
    return size == 8 || (value >= -(1ll << (size * 8 - 1)) && value < 1ll << (size * 8 - 1));
}

/* N of EVEX disp8 * N; 1 for everything else. */
static int64_t displacement_unit(const struct encoder *e, const struct operand *o)
{
    if (e->insn->vex.kind != 4)
        return 1;
    if (e->row->attributes & ATTR_EVEX_N_ELEM)
        return 1 << (e->row->attributes >> ATTR_ELEM_SHIFT & 3);
    return o->size ? o->size : 1;
}

/* Chooses mod and the displacement's size. `wide`: 2 or 4. `base_needs_disp`: mod 0 would mean something else. */
static void set_displacement(struct encoder *e, const struct operand *o, unsigned wide, bool base_needs_disp)
{
    const struct insn *insn = e->insn;
    int64_t unit = displacement_unit(e, o), disp = insn->mem.disp;
    bool short_fits = disp % unit == 0 && fits(disp / unit, 1);
    unsigned bytes = insn->mem.disp_bytes;

    if (!bytes && (disp || base_needs_disp))
        bytes = short_fits ? 1 : wide;
    if (bytes > 1)
        bytes = wide;
    if (bytes == 1 && !short_fits)
        e->failed = true;
    if (bytes == wide && !fits(disp, wide))
        e->failed = true;
    e->disp_bytes = (uint8_t)bytes;
    e->disp = bytes == 1 ? disp / unit : disp;
    e->modrm = (uint8_t)((e->modrm & 0x3f) | (bytes == 0 ? 0 : bytes == 1 ? 0x40 : 0x80));
}

static void set_disp_only(struct encoder *e, unsigned bytes)
{
    e->modrm &= 0x3f;
    e->disp_bytes = (uint8_t)bytes;
    e->disp = e->insn->mem.disp;
    if (!fits(e->disp, bytes))
        e->failed = true;
}

static void set_memory16(struct encoder *e, const struct operand *o)
{
    static const uint8_t pairs[8][2] = {
        { REG_RBX, REG_RSI },  { REG_RBX, REG_RDI },  { REG_RBP, REG_RSI },  { REG_RBP, REG_RDI },
        { REG_RSI, REG_NONE }, { REG_RDI, REG_NONE }, { REG_RBP, REG_NONE }, { REG_RBX, REG_NONE },
    };
    const struct insn *insn = e->insn;

    if (insn->mem.base == REG_NONE && insn->mem.index == REG_NONE) {
        e->modrm = (e->modrm & 0x38) | 6;
        set_disp_only(e, 2);
        return;
    }
    for (unsigned rm = 0; rm < 8; rm++) {
        if (pairs[rm][0] == insn->mem.base && pairs[rm][1] == insn->mem.index && !insn->mem.scale) {
            e->modrm = (uint8_t)((e->modrm & 0x38) | rm);
            set_displacement(e, o, 2, rm == 6);
            return;
        }
    }
    e->failed = true;
}

static void set_sib(struct encoder *e)
{
    const struct insn *insn = e->insn;
    unsigned index = insn->mem.vsib || insn->mem.index != REG_NONE ? insn->mem.index : REG_RSP;

    if (!insn->mem.vsib && insn->mem.index == REG_RSP)
        e->failed = true;
    e->has_sib = true;
    e->modrm |= 4;
    e->sib = (uint8_t)(insn->mem.scale << 6 | (index & 7) << 3 | (insn->mem.base == REG_NONE ? 5 : insn->mem.base & 7));
    e->x = index & 0x18; /* bit 4: V' */
}

static void set_memory32(struct encoder *e, const struct operand *o, bool force_sib)
{
    const struct insn *insn = e->insn;
    unsigned base = insn->mem.base;
    bool has_index = insn->mem.vsib || insn->mem.index != REG_NONE;

    e->modrm &= 0x38;
    if (base == REG_RIP) {
        e->modrm |= 5;
        e->failed |= insn->code_size != CODE64 || has_index;
        set_disp_only(e, 4);
        return;
    }
    if (base != REG_NONE)
        e->b = base & 8;
    /* No base: in 64-bit mode only with a SIB byte, since without it the form is RIP-relative. */
    if (has_index || force_sib || (base == REG_NONE ? insn->code_size == CODE64 : (base & 7) == REG_RSP))
        set_sib(e);
    else
        e->modrm |= base == REG_NONE ? 5 : base & 7;
    if (base == REG_NONE)
        set_disp_only(e, 4);
    else
        set_displacement(e, o, 4, (base & 7) == REG_RBP);
}

static void set_rm(struct encoder *e, const struct operand *o, unsigned class)
{
    if (o->kind != OPERAND_MEM) {
        set_rm_field(e, o, o->kind == OPERAND_GPR || o->kind == OPERAND_GPR_HIGH ? gpr_number(e, o) : o->reg);
        return;
    }
    if (e->insn->address_size == 2)
        set_memory16(e, o);
    else
        set_memory32(e, o, class == OC_RM_SIB);
}

/* Fields that the operands determine. Immediates come last, in emit_immediates. */
static void set_fields(struct encoder *e)
{
    for (unsigned i = 0; i < INSN_MAX_OPERANDS && e->row->operands[i].type != OT_NONE; i++) {
        const struct operand *o = &e->insn->operands[i];
        unsigned class = operand_infos[e->row->operands[i].type].class, number;
        switch (class) {
        case OC_RM_GPR:
        case OC_RM_VEC:
        case OC_RM_MMX:
        case OC_RM_MASK:
        case OC_RM_MEM:
        case OC_RM_VSIB:
        case OC_RM_SIB:
        case OC_RM_GPR_ONLY:
        case OC_RM_VEC_ONLY:
        case OC_RM_MMX_ONLY:
        case OC_RM_MASK_ONLY:
        case OC_RM_TMM:
        case OC_RM_ST:
            set_rm(e, o, class);
            break;
        case OC_REG_GPR:
            set_reg_field(e, gpr_number(e, o));
            break;
        case OC_REG_VEC:
        case OC_REG_MMX:
        case OC_REG_MASK:
        case OC_REG_SEG:
        case OC_REG_CR:
        case OC_REG_DR:
        case OC_REG_TMM:
            set_reg_field(e, o->reg);
            break;
        case OC_VVVV_GPR:
        case OC_VVVV_VEC:
        case OC_VVVV_MASK:
        case OC_VVVV_TMM:
            e->vvvv = o->reg;
            break;
        case OC_OPCODE_GPR:
            number = gpr_number(e, o);
            e->opcode = (uint8_t)(e->row->opcode | (number & 7));
            e->b = number & 8;
            break;
        default:
            break;
        }
    }
}

static bool has_modrm_memory(const struct encoder *e)
{
    for (unsigned i = 0; i < e->insn->operand_count; i++) {
        unsigned class = operand_infos[e->row->operands[i].type].class;
        if (e->insn->operands[i].kind == OPERAND_MEM && class <= OC_RM_SIB)
            return true;
    }
    return false;
}

/* The segment that the address has without a prefix. */
static enum segment default_segment(const struct encoder *e)
{
    if (has_modrm_memory(e) && (e->insn->mem.base == REG_RSP || e->insn->mem.base == REG_RBP))
        return SEG_SS;
    return SEG_DS;
}

static void emit_segment_prefix(struct encoder *e)
{
    static const uint8_t bytes[SEG_COUNT] = { 0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65 };
    const struct insn *insn = e->insn;
    unsigned kept = insn->segment_prefix, wanted = insn->mem.segment;
    bool destination_only = insn->mem.base == REG_RDI && !has_modrm_memory(e) && wanted == SEG_ES;

    if (!insn_has_memory(insn) || destination_only) {
        if (kept)
            emit(e, bytes[kept - 1], 1);
    } else if (insn->code_size == CODE64 && wanted < SEG_FS) {
        if (kept && kept - 1 < SEG_FS) /* does nothing, was there */
            emit(e, bytes[kept - 1], 1);
    } else if (wanted != default_segment(e) || kept == wanted + 1) {
        emit(e, bytes[wanted], 1);
    }
}

/* 66, by the operand size that is wanted. */
static bool needs_66(struct encoder *e)
{
    const struct insn *insn = e->insn;
    bool w = e->w && insn->code_size == CODE64;

    if (e->row->prefix == PREFIX_66)
        return true;
    if (e->row->prefix == PREFIX_NP)
        return false;
    if (row_operand_size(e->row, insn->code_size, insn->prefix_66, w) == insn->operand_size)
        return insn->prefix_66;
    e->failed |= row_operand_size(e->row, insn->code_size, !insn->prefix_66, w) != insn->operand_size;
    return !insn->prefix_66;
}

static void emit_address_prefix(struct encoder *e)
{
    static const uint8_t defaults[] = { [CODE16] = 2, [CODE32] = 4, [CODE64] = 8 };
    const struct insn *insn = e->insn;

    if (insn->address_size != defaults[insn->code_size])
        emit(e, 0x67, 1);
    if (insn->code_size == CODE64 ? insn->address_size < 4 : insn->address_size > 4)
        e->failed = true;
}

/* REX.W, VEX.W, EVEX.W */
static bool wanted_w(const struct insn *insn, const struct insn_row *row)
{
    bool given = insn->vex.kind ? insn->vex.w : insn->rex >> 3 & 1;

    if (row->attributes & ATTR_W1)
        return true;
    if (row->attributes & ATTR_W0)
        return false;
    if (insn->code_size != CODE64)
        return insn->vex.kind && given;
    if (row->attributes & ATTR_W0_64)
        return false;
    if (row->attributes & (ATTR_D64 | ATTR_F64))
        return given;
    return insn->operand_size == 8;
}

static void emit_legacy(struct encoder *e)
{
    static const uint8_t rep_bytes[] = { [REP_F3] = 0xf3, [REP_F2] = 0xf2 };
    const struct insn *insn = e->insn;
    unsigned rep = e->row->prefix == PREFIX_F3 ? REP_F3 : e->row->prefix == PREFIX_F2 ? REP_F2 : REP_NONE;
    unsigned rex = e->w << 3 | e->r >> 1 | e->x >> 2 | e->b >> 3;

    if (e->row->prefix == PREFIX_ANY)
        rep = insn->rep;
    if (insn->lock)
        emit(e, 0xf0, 1);
    if (needs_66(e))
        emit(e, 0x66, 1);
    if (rep)
        emit(e, rep_bytes[rep], 1);
    if (rex || e->rex_needed) {
        e->failed |= e->rex_forbidden || insn->code_size != CODE64;
        emit(e, 0x40 | rex, 1);
    }
    if (e->row->map == MAP_0F || e->row->map == MAP_0F38 || e->row->map == MAP_0F3A)
        emit(e, 0x0f, 1);
    if (e->row->map == MAP_0F38 || e->row->map == MAP_0F3A)
        emit(e, e->row->map == MAP_0F38 ? 0x38 : 0x3a, 1);
}

static unsigned vex_pp(const struct insn_row *row)
{
    return row->prefix == PREFIX_66 ? 1 : row->prefix == PREFIX_F3 ? 2 : row->prefix == PREFIX_F2 ? 3 : 0;
}

static void emit_vex(struct encoder *e)
{
    unsigned low = (~e->vvvv & 15u) << 3 | (e->insn->vex.l & 1u) << 2 | vex_pp(e->row);
    unsigned rxb = (e->r & 8 ? 0 : 0x80) | (e->x & 8 ? 0 : 0x40) | (e->b & 8 ? 0 : 0x20);

    if (e->insn->vex.kind == 2 && e->row->map == MAP_VEX_0F && !e->w && (rxb & 0x60) == 0x60) {
        emit(e, 0xc5, 1);
        emit(e, (rxb & 0x80) | low, 1);
        return;
    }
    emit(e, 0xc4, 1);
    emit(e, rxb | (e->row->map - MAP_VEX_0F + 1u), 1);
    emit(e, (e->w ? 0x80 : 0) | low, 1);
}

static void emit_evex(struct encoder *e)
{
    static const uint8_t maps[MAP_COUNT] = {
        [MAP_EVEX_0F] = 1, [MAP_EVEX_0F38] = 2, [MAP_EVEX_0F3A] = 3, [MAP_EVEX_5] = 5, [MAP_EVEX_6] = 6
    };
    const struct insn *insn = e->insn;
    bool rounding = insn->vex.b && e->modrm >= 0xc0;
    /* V' is bit 4 of vvvv or of a VSIB index */
    bool v_high = insn->mem.vsib ? e->x & 16 : e->vvvv & 16;

    emit(e, 0x62, 1);
    emit(e,
         (e->r & 8 ? 0 : 0x80) | (e->x & 8 ? 0 : 0x40) | (e->b & 8 ? 0 : 0x20) | (e->r & 16 ? 0 : 0x10) |
             maps[e->row->map],
         1);
    emit(e, (e->w ? 0x80 : 0) | (~e->vvvv & 15u) << 3 | 4 | vex_pp(e->row), 1);
    emit(e,
         (insn->vex.z ? 0x80 : 0) | (rounding ? insn->vex.rc : insn->vex.l) << 5 | (insn->vex.b ? 0x10 : 0) |
             (v_high ? 0 : 8) | insn->vex.aaa,
         1);
}

/* Zero-extended immediates are given so or sign-extended: both are taken. */
static void emit_value(struct encoder *e, int64_t value, unsigned size, bool is_signed)
{
    if (!fits(value, size) && (is_signed || (uint64_t)value >> (size * 8)))
        e->failed = true;
    emit(e, value, size);
}

static void emit_immediates(struct encoder *e)
{
    const struct insn *insn = e->insn;

    for (unsigned i = 0; i < INSN_MAX_OPERANDS && e->row->operands[i].type != OT_NONE; i++) {
        const struct operand_info *info = &operand_infos[e->row->operands[i].type];
        unsigned size = operand_size_bytes(info->reg_size, insn);
        switch (info->class) {
        case OC_IMM:
            emit_value(e, insn->imm, size, false);
            break;
        case OC_IMM_SIGNED:
        case OC_REL:
            emit_value(e, insn->imm, size, true);
            break;
        case OC_IMM2:
            emit_value(e, insn->imm2, size, false);
            break;
        case OC_MOFFS:
            emit_value(e, insn->mem.disp, insn->address_size, false);
            break;
        case OC_IS4_VEC: /* bit 7 does not count outside 64-bit mode */
            emit(e, insn->operands[i].reg << 4 | (insn->imm & (insn->code_size == CODE64 ? 0xf : 0x8f)), 1);
            break;
        case OC_FAR:
            emit_value(e, insn->imm, size - 2, false);
            emit_value(e, insn->imm2, 2, false);
            break;
        default:
            break;
        }
    }
}

size_t insn_encode(const struct insn *insn, uint8_t *bytes)
{
    const struct insn_row *row = insn->row;
    uint8_t buffer[48]; /* longer than what all parts can come to */
    struct encoder e = { .insn = insn, .row = row, .modrm = insn->modrm, .opcode = row->opcode, .p = buffer };
    size_t length;

    e.w = wanted_w(insn, row);
    /* Register forms: what no operand names stays as decoded; the row fixes a digit or the whole byte. */
    if (row->modrm == MODRM_EXT || row->modrm == MODRM_EXT_MEM || row->modrm == MODRM_EXT_REG)
        e.modrm = (uint8_t)((e.modrm & 0xc7) | row->modrm_value << 3);
    else if (row->modrm == MODRM_BYTE)
        e.modrm = row->modrm_value;
    set_fields(&e);
    emit_segment_prefix(&e);
    emit_address_prefix(&e);
    if (map_is_evex(row->map))
        emit_evex(&e);
    else if (map_is_vex(row->map))
        emit_vex(&e);
    else
        emit_legacy(&e);
    emit(&e, e.opcode, 1);
    if (row_has_modrm(row))
        emit(&e, e.modrm, 1);
    if (e.has_sib)
        emit(&e, e.sib, 1);
    emit(&e, e.disp, e.disp_bytes);
    emit_immediates(&e);
    length = (size_t)(e.p - buffer);
    if (e.failed || length > INSN_MAX_LENGTH)
        return 0;
    memcpy(bytes, buffer, length);
    return length;
}
