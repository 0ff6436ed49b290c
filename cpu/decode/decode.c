/* The decoder: bytes -> struct insn, by the one table.
 *
 * Order of work (SDM Vol. 2A 2.1-2.7): legacy prefixes and REX; opcode map or VEX / EVEX payload; row by opcode,
 * mandatory prefix, ModRM, W and L; checks that need no more bytes; displacement; operands and immediates.
 *
 * Any thread; no state but the index. Never reads past `available` or 15 bytes. */
#include <string.h>

#include "cpu/decode/decode_internal.h"

/* Numbers of the mandatory prefixes in decode_candidate.prefixes; VEX.pp counts the same way. */
enum { MP_NONE, MP_66, MP_F3, MP_F2 };

struct decoder {
    const uint8_t *start, *p, *end;
    struct insn *insn;
    uint8_t rex_r, rex_x, rex_b; /* 0 or 8; with EVEX, R' in bit 4 of rex_r */
    uint8_t v_high;              /* EVEX V': 0 or 16 */
    uint8_t vvvv;                /* all four bits, also outside 64-bit mode */
    uint8_t w, l, mp, map;
    bool memory;       /* ModRM.rm is a memory operand */
    bool override;     /* a segment prefix that counts */
    bool opcode_known; /* got as far as the row */
};

enum prefix_kind { NOT_PREFIX, LEGACY_66, LEGACY_67, LEGACY_F2, LEGACY_F3, LEGACY_LOCK, LEGACY_SEGMENT, REX };

/* clang-format off */
static const uint8_t prefix_kinds[256] = {
    [0x26] = LEGACY_SEGMENT, [0x2e] = LEGACY_SEGMENT, [0x36] = LEGACY_SEGMENT, [0x3e] = LEGACY_SEGMENT,
    [0x64] = LEGACY_SEGMENT, [0x65] = LEGACY_SEGMENT, [0x66] = LEGACY_66, [0x67] = LEGACY_67,
    [0xf0] = LEGACY_LOCK, [0xf2] = LEGACY_F2, [0xf3] = LEGACY_F3,
    [0x40] = REX, REX, REX, REX, REX, REX, REX, REX, REX, REX, REX, REX, REX, REX, REX, REX,
};
/* clang-format on */

static void note_segment(struct decoder *d, uint8_t byte)
{
    struct insn *insn = d->insn;
    enum segment seg = byte == 0x64 ? SEG_FS : byte == 0x65 ? SEG_GS : (enum segment)(byte >> 3 & 3);

    /* In 64-bit mode ES, CS, SS, DS overrides are as if absent: an FS or GS before them still counts. */
    if (insn->code_size == CODE64 && seg < SEG_FS) {
        if (!d->override)
            insn->segment_prefix = (uint8_t)(seg + 1);
        return;
    }
    d->override = true;
    insn->segment_prefix = (uint8_t)(seg + 1);
}

/* Leaves d->p at the first byte that is not a prefix. REX counts only if it is the last. */
static enum decode_status read_prefixes(struct decoder *d)
{
    struct insn *insn = d->insn;
    uint8_t rex = 0;

    /* Most have none, or REX alone: two branches that are foretold, instead of a jump by table. */
    if (likely(d->end - d->p >= 2)) {
        if (prefix_kinds[d->p[0]] == NOT_PREFIX)
            return DECODE_OK;
        if (prefix_kinds[d->p[0]] == REX && insn->code_size == CODE64 && prefix_kinds[d->p[1]] == NOT_PREFIX) {
            insn->rex = *d->p++;
            return DECODE_OK;
        }
    }
    for (; d->p < d->end; d->p++) {
        uint8_t byte = *d->p;
        switch (prefix_kinds[byte]) {
        case NOT_PREFIX:
            insn->rex = rex;
            return DECODE_OK;
        case LEGACY_66:
            insn->prefix_66 = true;
            break;
        case LEGACY_67:
            insn->prefix_67 = true;
            break;
        case LEGACY_F2:
            insn->rep = REP_F2;
            break;
        case LEGACY_F3:
            insn->rep = REP_F3;
            break;
        case LEGACY_LOCK:
            insn->lock = true;
            break;
        case LEGACY_SEGMENT:
            note_segment(d, byte);
            break;
        case REX:
            if (insn->code_size != CODE64)
                return DECODE_OK;
            rex = byte;
            continue;
        }
        rex = 0;
    }
    return DECODE_TRUNCATED;
}

/* d->p is behind C4, C5 or 62 and the second byte is there. (SDM Vol. 2A 2.3.5, 2.7.1; the bits are stored inverted.) */
static enum decode_status read_vex(struct decoder *d, uint8_t first)
{
    struct insn *insn = d->insn;
    bool long_mode = insn->code_size == CODE64;
    unsigned count = first == 0xc5 ? 1 : first == 0xc4 ? 2 : 3;
    uint8_t b0, b1;

    if (insn->lock || insn->rep || insn->prefix_66 || insn->rex)
        return DECODE_INVALID;
    b0 = d->p[0];
    if (first == 0xc4 && ((b0 & 0x1f) == 0 || (b0 & 0x1f) > 3))
        return DECODE_INVALID;
    if (first == 0x62 && ((b0 & 8) || (b0 & 7) == 0 || (b0 & 7) == 4 || (b0 & 7) == 7))
        return DECODE_INVALID;
    if ((size_t)(d->end - d->p) < count) {
        d->p = d->end;
        return DECODE_TRUNCATED;
    }
    d->rex_r = long_mode ? (~b0 & 0x80) >> 4 : 0;
    insn->vex.kind = (uint8_t)(count + 1);
    if (first == 0xc5) {
        b1 = b0;
        d->map = MAP_VEX_0F;
    } else {
        b1 = d->p[1];
        d->rex_x = long_mode ? (~b0 & 0x40) >> 3 : 0;
        d->rex_b = long_mode ? (~b0 & 0x20) >> 2 : 0;
        d->w = b1 >> 7;
        d->map = (uint8_t)(MAP_VEX_0F + (b0 & 0x1f) - 1);
    }
    /* Outside 64-bit mode the fourth bit does not count, but has to be 1 (inverted: 0) if vvvv is not used. */
    d->vvvv = ~b1 >> 3 & 15;
    insn->vex.vvvv = long_mode ? d->vvvv : d->vvvv & 7;
    d->mp = b1 & 3;
    d->l = b1 >> 2 & 1;
    if (first == 0x62) {
        static const uint8_t maps[] = { 0, MAP_EVEX_0F, MAP_EVEX_0F38, MAP_EVEX_0F3A, 0, MAP_EVEX_5, MAP_EVEX_6 };
        uint8_t b2 = d->p[2];
        if (!(b1 & 4))
            return DECODE_INVALID;
        d->map = maps[b0 & 7];
        d->l = b2 >> 5 & 3;
        insn->vex.aaa = b2 & 7;
        insn->vex.z = b2 >> 7;
        insn->vex.b = b2 >> 4 & 1;
        d->v_high = (~b2 & 8) << 1;
        if (long_mode)
            d->rex_r |= ~b0 & 0x10;
        else if (d->v_high)
            return DECODE_INVALID;
    }
    insn->vex.w = d->w;
    d->p += count;
    return DECODE_OK;
}

/* Opcode byte and map. */
static enum decode_status read_opcode(struct decoder *d)
{
    struct insn *insn = d->insn;
    uint8_t byte = *d->p++;

    d->map = MAP_ONEBYTE;
    d->mp = insn->rep == REP_F2 ? MP_F2 : insn->rep == REP_F3 ? MP_F3 : insn->prefix_66 ? MP_66 : MP_NONE;
    if (likely(byte != 0x0f)) {
        if ((byte & 0xf8) == 0xd8) {
            d->map = MAP_X87;
        } else if (unlikely(byte == 0xc4 || byte == 0xc5 || byte == 0x62)) {
            /* Outside 64-bit mode LES, LDS and BOUND unless their ModRM would name a register. */
            if (d->p == d->end)
                return DECODE_TRUNCATED;
            if (insn->code_size == CODE64 || *d->p >= 0xc0) {
                enum decode_status status = read_vex(d, byte);
                if (status != DECODE_OK)
                    return status;
                if (d->p == d->end)
                    return DECODE_TRUNCATED;
                byte = *d->p++;
                insn->opcode = byte;
                return DECODE_OK;
            }
        }
    } else {
        if (d->p == d->end)
            return DECODE_TRUNCATED;
        byte = *d->p++;
        d->map = MAP_0F;
        if (byte == 0x38 || byte == 0x3a) {
            d->map = byte == 0x38 ? MAP_0F38 : MAP_0F3A;
            if (d->p == d->end)
                return DECODE_TRUNCATED;
            byte = *d->p++;
        }
    }
    d->w = insn->rex >> 3 & 1;
    d->rex_r = (insn->rex & 4) << 1;
    d->rex_x = (insn->rex & 2) << 2;
    d->rex_b = (insn->rex & 1) << 3;
    insn->opcode = byte;
    return DECODE_OK;
}

/* Picks the row; reads ModRM if the opcode has one. */
static enum decode_status find_row(struct decoder *d)
{
    const struct decode_index *index = decode_index_get();
    struct insn *insn = d->insn;
    const struct decode_entry *entry = &index->entries[d->map][insn->opcode];
    unsigned first = entry->first, count = entry->count, mode_w = insn->code_size * 2u + d->w, length = d->l;

    d->opcode_known = true;
    if (entry->has_modrm) {
        if (d->p == d->end)
            return DECODE_TRUNCATED;
        insn->has_modrm = true;
        insn->modrm = *d->p++;
        if (entry->split) {
            const struct decode_slot *slot = &index->slots[first + decode_slot_number(insn->modrm)];
            first = slot->first;
            count = slot->count;
        }
        /* Rounding control takes the place of the vector length, which is 512 then. */
        if (insn->vex.b && insn->modrm >= 0xc0) {
            insn->vex.rc = d->l;
            length = d->l = 2;
        }
    }
    for (const struct decode_candidate *c = &index->candidates[first]; count--; c++) {
        if (!(c->prefixes >> d->mp & 1) || !(c->modes_w >> mode_w & 1) || !(c->lengths >> length & 1))
            continue;
        insn->row = &insn_rows[c->row];
        /* 90 is NOP, but XCHG r8, rAX with REX.B, and PAUSE with F3 whatever REX.B is */
        if (unlikely(insn->opcode == 0x90 && d->map == MAP_ONEBYTE && d->rex_b) && insn->row->handler == HANDLER_nop)
            continue;
        return DECODE_OK;
    }
    return DECODE_INVALID;
}

/* LOCK needs a row that allows it and a memory destination (SDM Vol. 2A, LOCK). VEX and EVEX fields that a row does
 * not use have fixed values (SDM Vol. 2A 2.3.5.6, 2.7.11). */
static bool fields_are_legal(const struct decoder *d)
{
    const struct insn *insn = d->insn;
    uint32_t attributes = insn->row->attributes;
    bool vvvv_used = false;

    if (insn->lock && (!(attributes & ATTR_LOCK) || !d->memory))
        return false;
    if (!insn->vex.kind)
        return true;
    for (unsigned i = 0; i < INSN_MAX_OPERANDS; i++) {
        unsigned class = operand_infos[insn->row->operands[i].type].class;
        vvvv_used |= class >= OC_VVVV_GPR && class <= OC_VVVV_TMM;
    }
    if (!vvvv_used && d->vvvv)
        return false;
    if (insn->vex.kind != 4)
        return true;
    if (!vvvv_used && d->v_high && !(attributes & ATTR_VSIB))
        return false;
    if (insn->vex.b && !(attributes & (d->memory ? ATTR_EVEX_BCST : ATTR_EVEX_ER | ATTR_EVEX_SAE)))
        return false;
    if (insn->vex.aaa ? !(attributes & ATTR_EVEX_MASK) : (attributes & ATTR_VSIB) != 0)
        return false;
    if (insn->vex.z) {
        bool to_memory = d->memory && operand_infos[insn->row->operands[0].type].class <= OC_RM_SIB;
        if (!(attributes & ATTR_EVEX_ZERO) || !insn->vex.aaa || to_memory)
            return false;
    }
    return true;
}

static bool fetch(struct decoder *d, unsigned size, int64_t *value)
{
    if (unlikely((size_t)(d->end - d->p) < size))
        return false;
    switch (size) {
    case 1:
        *value = (int8_t)*d->p;
        break;
    case 2: {
        int16_t v;
        memcpy(&v, d->p, 2);
        *value = v;
        break;
    }
    case 4: {
        int32_t v;
        memcpy(&v, d->p, 4);
        *value = v;
        break;
    }
    case 8:
        memcpy(value, d->p, 8);
        break;
    default:
        break;
    }
    d->p += size;
    return true;
}

/* 16-bit addressing: SDM Vol. 2A table 2-1. */
static bool read_memory16(struct decoder *d)
{
    static const uint8_t bases[8] = { REG_RBX, REG_RBX, REG_RBP, REG_RBP, REG_RSI, REG_RDI, REG_RBP, REG_RBX };
    static const uint8_t indexes[8] = { REG_RSI, REG_RDI, REG_RSI, REG_RDI, REG_NONE, REG_NONE, REG_NONE, REG_NONE };
    struct insn *insn = d->insn;
    unsigned mod = insn->modrm >> 6, rm = insn->modrm & 7;

    insn->mem.base = bases[rm];
    insn->mem.index = indexes[rm];
    insn->mem.disp_bytes = (uint8_t)(mod == 1 ? 1 : mod == 2 ? 2 : 0);
    if (mod == 0 && rm == 6) {
        insn->mem.base = REG_NONE;
        insn->mem.disp_bytes = 2;
    }
    if (!d->override)
        insn->mem.segment = insn->mem.base == REG_RBP ? SEG_SS : SEG_DS;
    return !insn->mem.disp_bytes || fetch(d, insn->mem.disp_bytes, &insn->mem.disp);
}

/* 32- and 64-bit addressing: SDM Vol. 2A tables 2-2, 2-3, 2.2.1.6 (RIP-relative), 2.3.12 (VSIB). */
static bool read_memory32(struct decoder *d)
{
    struct insn *insn = d->insn;
    unsigned mod = insn->modrm >> 6, rm = insn->modrm & 7;
    uint8_t base = (uint8_t)(rm | d->rex_b);

    insn->mem.index = REG_NONE;
    insn->mem.disp_bytes = (uint8_t)(mod == 1 ? 1 : mod == 2 ? 4 : 0);
    if (rm == 4) {
        if (d->p == d->end)
            return false;
        insn->has_sib = true;
        insn->sib = *d->p++;
        unsigned index = (insn->sib >> 3 & 7u) | d->rex_x;
        base = (uint8_t)((insn->sib & 7) | d->rex_b);
        if (insn->mem.vsib || index != REG_RSP) {
            insn->mem.index = (uint8_t)(insn->mem.vsib ? index | d->v_high : index);
            insn->mem.scale = insn->sib >> 6;
        }
        rm = insn->sib & 7;
    }
    if (mod == 0 && rm == 5) {
        base = insn->code_size == CODE64 && !insn->has_sib ? REG_RIP : REG_NONE;
        insn->mem.disp_bytes = 4;
    }
    insn->mem.base = base;
    if (!d->override)
        insn->mem.segment = base == REG_RSP || base == REG_RBP ? SEG_SS : SEG_DS;
    return !insn->mem.disp_bytes || fetch(d, insn->mem.disp_bytes, &insn->mem.disp);
}

static bool set_gpr(struct decoder *d, struct operand *o, unsigned reg, unsigned size)
{
    o->size = (uint16_t)size;
    o->kind = OPERAND_GPR;
    o->reg = (uint8_t)reg;
    if (size == 1 && reg >= 4 && reg < 8 && !d->insn->rex && !d->insn->vex.kind) {
        o->kind = OPERAND_GPR_HIGH;
        o->reg = (uint8_t)(reg - 4);
    }
    return reg < 16; /* EVEX.R' has to be unused with general registers */
}

static bool set_vector(struct decoder *d, struct operand *o, unsigned reg, unsigned size)
{
    o->kind = OPERAND_VEC;
    o->reg = (uint8_t)reg;
    o->size = (uint16_t)size;
    o->vec_bytes = (uint8_t)MAX(size, 16u);
    return reg < 16 || d->insn->vex.kind == 4;
}

static bool set_small(struct operand *o, unsigned kind, unsigned reg, unsigned size)
{
    o->kind = (uint8_t)kind;
    o->reg = (uint8_t)reg;
    o->size = (uint16_t)size;
    return reg < 8;
}

/* ModRM.rm as a register. */
static bool set_rm_register(struct decoder *d, struct operand *o, unsigned class, unsigned size)
{
    unsigned rm = d->insn->modrm & 7;

    switch (class) {
    case OC_RM_GPR:
    case OC_RM_GPR_ONLY:
        return set_gpr(d, o, rm | d->rex_b, size);
    case OC_RM_VEC:
    case OC_RM_VEC_ONLY:
        /* EVEX.X extends a register operand by its fifth bit */
        return set_vector(d, o, rm | d->rex_b | (d->insn->vex.kind == 4 ? d->rex_x << 1 : 0), size);
    case OC_RM_MMX:
    case OC_RM_MMX_ONLY:
        return set_small(o, OPERAND_MMX, rm, size);
    case OC_RM_MASK:
    case OC_RM_MASK_ONLY:
        return set_small(o, OPERAND_MASK, rm, size);
    case OC_RM_ST:
        return set_small(o, OPERAND_ST, rm, size);
    case OC_RM_TMM:
        return set_small(o, OPERAND_TMM, rm | d->rex_b, size);
    default:
        return false;
    }
}

/* ModRM.reg. */
static bool set_reg(struct decoder *d, struct operand *o, unsigned class, unsigned size)
{
    unsigned reg = d->insn->modrm >> 3 & 7, extended = reg | d->rex_r;

    switch (class) {
    case OC_REG_GPR:
        return set_gpr(d, o, extended, size);
    case OC_REG_VEC:
        return set_vector(d, o, extended, size);
    case OC_REG_MMX:
        return set_small(o, OPERAND_MMX, reg, size);
    case OC_REG_MASK:
        return set_small(o, OPERAND_MASK, extended, size);
    case OC_REG_TMM:
        return set_small(o, OPERAND_TMM, extended, size);
    case OC_REG_SEG: /* REX.R is ignored; CS cannot be loaded */
        return set_small(o, OPERAND_SEG, reg, size) && reg < SEG_COUNT && !(reg == SEG_CS && (o->access & ACCESS_W));
    case OC_REG_CR:
        set_small(o, OPERAND_CR, extended, size);
        return extended == 0 || (extended >= 2 && extended <= 4) || extended == 8;
    case OC_REG_DR:
        return set_small(o, OPERAND_DR, extended, size);
    default:
        return false;
    }
}

static bool set_vvvv(struct decoder *d, struct operand *o, unsigned class, unsigned size)
{
    unsigned vvvv = d->insn->vex.vvvv | d->v_high;

    switch (class) {
    case OC_VVVV_GPR:
        return set_gpr(d, o, vvvv, size);
    case OC_VVVV_VEC:
        return set_vector(d, o, vvvv, size);
    case OC_VVVV_MASK:
        return set_small(o, OPERAND_MASK, vvvv, size);
    default:
        return set_small(o, OPERAND_TMM, vvvv, size);
    }
}

static void set_memory(struct operand *o, unsigned size)
{
    o->kind = OPERAND_MEM;
    o->size = (uint16_t)size;
}

/* The ModRM memory operand; its size gives EVEX's disp8 * N (SDM Vol. 2A 2.7.5). */
static void set_modrm_memory(struct decoder *d, struct operand *o, unsigned size)
{
    struct insn *insn = d->insn;
    uint32_t attributes = insn->row->attributes;
    unsigned element = 1u << (attributes >> ATTR_ELEM_SHIFT & 3);

    if (insn->vex.b || insn->mem.vsib)
        size = element;
    set_memory(o, size);
    if (insn->vex.kind == 4 && insn->mem.disp_bytes == 1)
        insn->mem.disp *= attributes & ATTR_EVEX_N_ELEM ? element : size;
}

/* Memory whose address is no ModRM operand: moffs, string operands, [rBX + AL] and the like. */
static bool set_other_memory(struct decoder *d, struct operand *o, unsigned class, const struct operand_info *info,
                             unsigned size)
{
    struct insn *insn = d->insn;

    set_memory(o, size);
    if (class == OC_STRING) {
        o->reg = info->reg;
        /* insn.mem describes the source of MOVS and CMPS; their destination is always ES:rDI. */
        if (info->reg == REG_RDI && insn->mem.base == REG_RSI)
            return true;
        insn->mem.base = info->reg;
        insn->mem.index = REG_NONE;
        insn->mem.segment = SEG_ES;
        if (info->reg == REG_RSI)
            insn->mem.segment = d->override ? insn->segment_prefix - 1 : SEG_DS;
        return true;
    }
    if (!d->override)
        insn->mem.segment = SEG_DS;
    insn->mem.index = REG_NONE;
    if (class == OC_FIXED_MEM) {
        insn->mem.base = info->reg;
        return true;
    }
    insn->mem.base = REG_NONE;
    insn->mem.disp_bytes = insn->address_size;
    if (!fetch(d, insn->address_size, &insn->mem.disp))
        return false;
    if (insn->address_size < 8) /* an offset, not a displacement: not signed */
        insn->mem.disp &= insn->address_size == 4 ? 0xffffffff : 0xffff;
    return true;
}

static int64_t zero_extend(int64_t value, unsigned size)
{
    return size == 8 ? value : value & (int64_t)((1ull << (size * 8)) - 1);
}

static bool set_immediate(struct decoder *d, struct operand *o, unsigned class, const struct operand_info *info,
                          unsigned size)
{
    struct insn *insn = d->insn;
    unsigned encoded = operand_size_bytes(info->reg_size, insn);

    o->kind = OPERAND_IMM;
    o->size = (uint16_t)size;
    switch (class) {
    case OC_IMM:
        if (!fetch(d, encoded, &insn->imm))
            return false;
        insn->imm = zero_extend(insn->imm, encoded);
        return true;
    case OC_IMM_SIGNED:
        return fetch(d, encoded, &insn->imm);
    case OC_IMM2:
        if (!fetch(d, encoded, &insn->imm2))
            return false;
        insn->imm2 = zero_extend(insn->imm2, encoded);
        return true;
    case OC_REL:
        o->kind = OPERAND_REL;
        return fetch(d, encoded, &insn->imm);
    case OC_FAR:
        o->kind = OPERAND_FAR;
        if (!fetch(d, encoded - 2, &insn->imm) || !fetch(d, 2, &insn->imm2))
            return false;
        insn->imm = zero_extend(insn->imm, encoded - 2);
        insn->imm2 = zero_extend(insn->imm2, 2);
        return true;
    default: /* OC_CONST */
        insn->imm = info->reg;
        return true;
    }
}

/* A register in imm8[7:4]; bit 7 does not count outside 64-bit mode. */
static bool set_is4(struct decoder *d, struct operand *o, unsigned size)
{
    if (!fetch(d, 1, &d->insn->imm))
        return false;
    d->insn->imm &= 0xff;
    return set_vector(d, o, (unsigned)d->insn->imm >> 4 & (d->insn->code_size == CODE64 ? 15 : 7), size);
}

static void set_fixed(struct operand *o, unsigned class, const struct operand_info *info, unsigned size)
{
    static const uint8_t kinds[] = {
        [OC_FIXED_GPR] = OPERAND_GPR, [OC_FIXED_HIGH] = OPERAND_GPR_HIGH, [OC_FIXED_SEG] = OPERAND_SEG,
        [OC_FIXED_VEC] = OPERAND_VEC, [OC_FIXED_ST] = OPERAND_ST,
    };
    o->kind = kinds[class];
    o->reg = info->reg;
    o->size = (uint16_t)size;
    if (class == OC_FIXED_VEC)
        o->vec_bytes = 16;
}

/* One operand. Out of bytes: *truncated is set and the result false. False alone: no such register. */
static bool set_operand(struct decoder *d, struct operand *o, unsigned type, bool *truncated)
{
    const struct operand_info *info = &operand_infos[type];
    unsigned class = info->class;

    switch (class) {
    case OC_RM_GPR:
    case OC_RM_VEC:
    case OC_RM_MMX:
    case OC_RM_MASK:
    case OC_RM_MEM:
    case OC_RM_VSIB:
    case OC_RM_SIB:
        if (class == OC_RM_SIB && !d->insn->has_sib)
            return false;
        if (!d->memory)
            return set_rm_register(d, o, class, operand_size_bytes(info->reg_size, d->insn));
        set_modrm_memory(d, o, operand_size_bytes(info->size, d->insn));
        return true;
    case OC_RM_GPR_ONLY:
    case OC_RM_VEC_ONLY:
    case OC_RM_MMX_ONLY:
    case OC_RM_MASK_ONLY:
    case OC_RM_TMM:
    case OC_RM_ST:
        return !d->memory && set_rm_register(d, o, class, operand_size_bytes(info->reg_size, d->insn));
    case OC_REG_GPR:
    case OC_REG_VEC:
    case OC_REG_MMX:
    case OC_REG_MASK:
    case OC_REG_SEG:
    case OC_REG_CR:
    case OC_REG_DR:
    case OC_REG_TMM:
        return set_reg(d, o, class, operand_size_bytes(info->reg_size, d->insn));
    case OC_VVVV_GPR:
    case OC_VVVV_VEC:
    case OC_VVVV_MASK:
    case OC_VVVV_TMM:
        return set_vvvv(d, o, class, operand_size_bytes(info->reg_size, d->insn));
    case OC_OPCODE_GPR:
        return set_gpr(d, o, (d->insn->opcode & 7u) | d->rex_b, operand_size_bytes(info->reg_size, d->insn));
    case OC_FIXED_GPR:
    case OC_FIXED_HIGH:
    case OC_FIXED_SEG:
    case OC_FIXED_VEC:
    case OC_FIXED_ST:
        set_fixed(o, class, info, operand_size_bytes(info->reg_size, d->insn));
        return true;
    case OC_IS4_VEC:
        *truncated = !set_is4(d, o, operand_size_bytes(info->reg_size, d->insn));
        return !*truncated;
    case OC_STRING:
    case OC_FIXED_MEM:
    case OC_MOFFS:
        *truncated = !set_other_memory(d, o, class, info, operand_size_bytes(info->size, d->insn));
        return !*truncated;
    default:
        *truncated = !set_immediate(d, o, class, info, operand_size_bytes(info->size, d->insn));
        return !*truncated;
    }
}

/* Registers that must differ: destination, index and mask of a gather (SDM Vol. 2C, VGATHERDPS), the tiles of a
 * product (Vol. 2B, TDPBSSD), destination and sources of a complex multiplication (Vol. 2C, VFMULCPH). */
static bool registers_are_legal(const struct insn *insn)
{
    const struct operand *o = insn->operands;

    if (o[0].kind == OPERAND_TMM && insn->operand_count == 3)
        return o[0].reg != o[1].reg && o[0].reg != o[2].reg && o[1].reg != o[2].reg;
    if (insn->row->map == MAP_EVEX_6 && (insn->opcode & 0x7e) == 0x56) /* vfcmaddcph vfmaddcph vfcmulcph vfmulcph ... */
        return o[0].reg != o[1].reg && (o[2].kind == OPERAND_MEM || o[0].reg != o[2].reg);
    if (!insn->mem.vsib)
        return true;
    if (insn->vex.kind == 4)
        return o[0].kind != OPERAND_VEC || o[0].reg != insn->mem.index;
    return o[0].reg != insn->mem.index && o[0].reg != o[2].reg && o[2].reg != insn->mem.index;
}

static enum decode_status read_operands(struct decoder *d)
{
    struct insn *insn = d->insn;
    const struct insn_row *row = insn->row;

    for (unsigned i = 0; i < INSN_MAX_OPERANDS && row->operands[i].type != OT_NONE; i++) {
        bool truncated = false;
        insn->operands[i].access = row->operands[i].access;
        if (!set_operand(d, &insn->operands[i], row->operands[i].type, &truncated))
            return truncated ? DECODE_TRUNCATED : DECODE_INVALID;
        insn->operand_count = (uint8_t)(i + 1);
    }
    /* Merge-masking keeps what the mask leaves out. Compares into mask registers clear it. */
    if (insn->vex.aaa && !insn->vex.z && (insn->operands[0].access & ACCESS_W) &&
        insn->operands[0].kind != OPERAND_MASK)
        insn->operands[0].access |= insn->operands[0].kind == OPERAND_MEM ? ACCESS_CW : ACCESS_R | ACCESS_CW;
    return registers_are_legal(insn) ? DECODE_OK : DECODE_INVALID;
}

static enum decode_status decode_body(struct decoder *d)
{
    struct insn *insn = d->insn;
    enum decode_status status = read_opcode(d);

    if (status == DECODE_OK)
        status = find_row(d);
    if (status != DECODE_OK)
        return status;
    insn->vex.l = d->l;
    insn->operand_size =
        (uint8_t)row_operand_size(insn->row, insn->code_size, insn->prefix_66, d->w && insn->code_size == CODE64);
    insn->address_size = (uint8_t)(insn->code_size == CODE64                        ? (insn->prefix_67 ? 4 : 8)
                                   : (insn->code_size == CODE32) != insn->prefix_67 ? 4
                                                                                    : 2);
    d->memory = insn->has_modrm && insn->modrm < 0xc0 && !row_ignores_mod(insn->row);
    if (!fields_are_legal(d))
        return DECODE_INVALID;
    if (d->override)
        insn->mem.segment = (uint8_t)(insn->segment_prefix - 1);
    if (d->memory) {
        insn->mem.vsib = (insn->row->attributes & ATTR_VSIB) != 0;
        if (insn->address_size == 2 && (insn->row->attributes & ATTR_NO16))
            return DECODE_INVALID;
        if (insn->mem.vsib && (insn->address_size == 2 || (insn->modrm & 7) != 4))
            return DECODE_INVALID;
        if (!(insn->address_size == 2 ? read_memory16(d) : read_memory32(d)))
            return DECODE_TRUNCATED;
    }
    return read_operands(d);
}

/* Out of bytes behind the opcode: is there any continuation that is valid? Displacements and immediates do not matter to validity;
 * ModRM and SIB do. Three index registers, since a gather excludes two. */
static bool could_become_valid(const uint8_t *bytes, size_t count, enum code_size code_size)
{
    static const uint8_t fillers[] = { 0x00, 0x08, 0x10 };
    uint8_t longer[INSN_MAX_LENGTH];
    struct insn insn;

    for (unsigned i = 0; i < 256 * ARRAY_SIZE(fillers); i++) {
        memset(longer, fillers[i / 256], sizeof(longer));
        memcpy(longer, bytes, count);
        longer[count] = (uint8_t)i;
        if (insn_decode(longer, sizeof(longer), code_size, &insn) != DECODE_INVALID)
            return true;
    }
    return false;
}

enum decode_status insn_decode(const uint8_t *bytes, size_t available, enum code_size code_size, struct insn *insn)
{
    size_t count = MIN(available, (size_t)INSN_MAX_LENGTH);
    struct decoder d = { .start = bytes, .p = bytes, .end = bytes + count, .insn = insn };
    enum decode_status status;

    memset(insn, 0, sizeof(*insn));
    insn->code_size = (uint8_t)code_size;
    insn->mem.segment = SEG_DS;
    insn->mem.base = insn->mem.index = REG_NONE;
    status = read_prefixes(&d);
    if (status == DECODE_OK)
        status = decode_body(&d);
    insn->length = (uint8_t)(d.p - d.start);
    if (likely(status == DECODE_OK) || status == DECODE_INVALID)
        return status;
    insn->length = (uint8_t)count;
    if (count == INSN_MAX_LENGTH)
        return DECODE_TOO_LONG;
    /* Before the opcode something valid can always follow, or nearly so: the next byte tells. */
    return !d.opcode_known || could_become_valid(bytes, count, code_size) ? DECODE_TRUNCATED : DECODE_INVALID;
}
