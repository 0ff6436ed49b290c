/* Instruction bytes for a table row: prefixes, REX or VEX fields, ModRM, SIB and displacement chosen at random within
 * what the row says, sometimes outside of it. The encoder is not used, so that it is no source of blind spots;
 * the decoder then says what the bytes are. */
#include "cpu/decode/insn.h"
#include "tests/insn/insn_test.h"

#include <string.h>

#define ATTEMPTS 60 /* for one case: many bytes belong to other rows */

struct builder {
    struct insn_case *test;
    struct rng *rng;
    const struct insn_row *row;
    uint8_t bytes[40];
    unsigned n;
};

static void emit(struct builder *b, unsigned byte)
{
    b->bytes[b->n++] = (uint8_t)byte;
}

static bool row_has_type(const struct insn_row *row, enum operand_type first, enum operand_type last)
{
    for (size_t i = 0; i < ARRAY_SIZE(row->operands); i++)
        if (row->operands[i].type >= first && row->operands[i].type <= last)
            return true;
    return false;
}

static bool row_is_vsib(const struct insn_row *row)
{
    return row->attributes & ATTR_VSIB;
}

/* ---- ModRM, SIB, displacement ---- */

static void emit_displacement(struct builder *b, unsigned size)
{
    int32_t value = (int32_t)(rng_next(b->rng) >> 32) >> (8 + rng_below(b->rng, 20));
    b->test->disp_offset = (uint8_t)b->n;
    b->test->disp_size = (uint8_t)size;
    for (unsigned i = 0; i < size; i++)
        emit(b, (uint32_t)((int64_t)value >> (8 * i)));
}

static void emit_memory(struct builder *b, unsigned reg)
{
    unsigned mod = rng_below(b->rng, 3), rm = row_is_vsib(b->row) ? 4 : rng_below(b->rng, 8);
    unsigned sib_base = 0;

    emit(b, mod << 6 | reg << 3 | rm);
    if (rm == 4) {
        unsigned sib = (unsigned)rng_next(b->rng) & 0xff;
        if (rng_chance(b->rng, 20))
            sib = (sib & 0xc7) | 0x20; /* no index */
        sib_base = sib & 7;
        emit(b, sib);
    }
    if (mod == 1)
        emit_displacement(b, 1);
    else if (mod == 2 || (mod == 0 && (rm == 5 || (rm == 4 && sib_base == 5))))
        emit_displacement(b, 4);
}

static void emit_modrm(struct builder *b)
{
    const struct insn_row *row = b->row;
    unsigned reg = (unsigned)rng_below(b->rng, 8);
    bool memory = rng_chance(b->rng, 55);

    switch (row->modrm) {
    case MODRM_NONE:
    case MODRM_PLUSR:
        return;
    case MODRM_BYTE:
        emit(b, row->modrm_value);
        return;
    case MODRM_MEM:
    case MODRM_EXT_MEM:
        memory = true;
        break;
    case MODRM_REG:
    case MODRM_EXT_REG:
        memory = false;
        break;
    default:
        break;
    }
    if (row->modrm == MODRM_EXT || row->modrm == MODRM_EXT_MEM || row->modrm == MODRM_EXT_REG)
        reg = row->modrm_value;
    if (row_has_type(row, OT_Sw, OT_Sw))
        reg = rng_below(b->rng, 6);
    if (memory)
        emit_memory(b, reg);
    else
        emit(b, 0xc0 | reg << 3 | rng_below(b->rng, 8));
}

/* ---- Prefixes ---- */

static void shuffle(struct rng *rng, uint8_t *bytes, unsigned count)
{
    for (unsigned i = count; i > 1; i--) {
        unsigned j = rng_below(rng, i);
        uint8_t t = bytes[i - 1];
        bytes[i - 1] = bytes[j];
        bytes[j] = t;
    }
}

static unsigned optional_prefixes(struct builder *b, uint8_t *list)
{
    static const uint8_t segments[] = { 0x26, 0x2e, 0x36, 0x3e };
    unsigned n = 0;

    if (native_has_fsgsbase() && rng_chance(b->rng, 10))
        list[n++] = rng_chance(b->rng, 50) ? 0x64 : 0x65;
    else if (rng_chance(b->rng, 4))
        list[n++] = segments[rng_below(b->rng, 4)];
    if (rng_chance(b->rng, 8))
        list[n++] = 0x67;
    return n;
}

static void emit_legacy_prefixes(struct builder *b)
{
    const struct insn_row *row = b->row;
    uint8_t list[8];
    unsigned n = optional_prefixes(b, list);
    bool string = row->attributes & (ATTR_REP | ATTR_REPZ), lock = false;

    if (row->prefix == PREFIX_66 ||
        ((row->prefix == PREFIX_ANY || row->prefix == PREFIX_NP_66) && rng_chance(b->rng, 25)) ||
        (row->prefix >= PREFIX_F3 && row->prefix <= PREFIX_F2 && rng_chance(b->rng, 15)))
        list[n++] = 0x66;
    if (rng_chance(b->rng, row->attributes & ATTR_LOCK ? 25 : 1)) {
        list[n++] = 0xf0;
        lock = true;
    }
    if (row->prefix == PREFIX_F3 || row->prefix == PREFIX_F2)
        list[n++] = row->prefix == PREFIX_F3 ? 0xf3 : 0xf2;
    else if (row->prefix == PREFIX_ANY && !lock && row->handler != HANDLER_xchg && rng_chance(b->rng, string ? 60 : 2))
        list[n++] = rng_chance(b->rng, 50) ? 0xf3 : 0xf2; /* beside LOCK they would be HLE hints */
    shuffle(b->rng, list, n);
    for (unsigned i = 0; i < n; i++)
        emit(b, list[i]);
}

static void emit_rex(struct builder *b)
{
    unsigned w = (unsigned)rng_below(b->rng, 2);
    if (b->row->attributes & ATTR_W0)
        w = rng_chance(b->rng, 3);
    if (b->row->attributes & ATTR_W1)
        w = rng_chance(b->rng, 97);
    if (w || rng_chance(b->rng, 55))
        emit(b, 0x40 | w << 3 | rng_below(b->rng, 8));
}

/* ---- Whole instructions ---- */

static void emit_legacy(struct builder *b)
{
    const struct insn_row *row = b->row;

    emit_legacy_prefixes(b);
    emit_rex(b);
    if (row->map != MAP_ONEBYTE && row->map != MAP_X87)
        emit(b, 0x0f);
    if (row->map == MAP_0F38)
        emit(b, 0x38);
    if (row->map == MAP_0F3A)
        emit(b, 0x3a);
    emit(b, row->modrm == MODRM_PLUSR ? row->opcode | rng_below(b->rng, 8) : row->opcode);
    emit_modrm(b);
}

static unsigned vex_l(struct builder *b)
{
    unsigned attributes = b->row->attributes;
    if (attributes & ATTR_VEX_L0)
        return attributes & ATTR_VEX_L1 ? rng_below(b->rng, 2) : rng_chance(b->rng, 2);
    return attributes & ATTR_VEX_L1 ? rng_chance(b->rng, 98) : rng_below(b->rng, 2);
}

static void emit_vex(struct builder *b)
{
    static const uint8_t pp[] = { [PREFIX_NP] = 0, [PREFIX_66] = 1, [PREFIX_F3] = 2, [PREFIX_F2] = 3 };
    const struct insn_row *row = b->row;
    uint8_t list[4];
    unsigned n = optional_prefixes(b, list);
    unsigned w = row->attributes & ATTR_W0   ? rng_chance(b->rng, 2)
                 : row->attributes & ATTR_W1 ? rng_chance(b->rng, 98)
                                             : rng_below(b->rng, 2);
    bool uses_vvvv = row_has_type(row, OT_By, OT_Bv) || row_has_type(row, OT_Hx, OT_Hq) ||
                     row_has_type(row, OT_KHb, OT_KHq) || row_has_type(row, OT_KH, OT_KH) ||
                     row_has_type(row, OT_TH, OT_TH);
    unsigned vvvv = uses_vvvv || rng_chance(b->rng, 1) ? rng_below(b->rng, 16) : 15;
    unsigned map = row->map - MAP_VEX_0F + 1, last = vvvv << 3 | vex_l(b) << 2 | pp[row->prefix];

    if (rng_chance(b->rng, 1))
        list[n++] = (uint8_t[]){ 0x66, 0xf2, 0xf3, 0xf0, 0x48 }[rng_below(b->rng, 5)]; /* #UD before VEX */
    for (unsigned i = 0; i < n; i++)
        emit(b, list[i]);
    if (map == 1 && !w && rng_chance(b->rng, 50)) {
        emit(b, 0xc5);
        emit(b, rng_below(b->rng, 2) << 7 | last);
    } else {
        emit(b, 0xc4);
        emit(b, rng_below(b->rng, 8) << 5 | map);
        emit(b, w << 7 | last);
    }
    emit(b, row->opcode);
    emit_modrm(b);
}

static void emit_immediates(struct builder *b)
{
    uint64_t value = corner_integer(b->rng);
    if (row_has_type(b->row, OT_Ob, OT_Ov)) {
        b->test->disp_offset = (uint8_t)b->n;
        b->test->disp_size = memchr(b->bytes, 0x67, b->n) ? 4 : 8;
    }
    for (unsigned i = 0; i < 8; i++)
        emit(b, (unsigned)(value >> (8 * i)));
}

static void choose_place(struct insn_case *test, struct rng *rng)
{
    test->code_offset = (uint16_t)(512 + rng_below(rng, 2048));
    if (test->branches || !test->decoded)
        return;
    if (rng_chance(rng, 2)) /* the last bytes are on a page that is not there */
        test->code_offset = (uint16_t)(PAGE_SIZE - 1 - rng_below(rng, test->length));
    else if (rng_chance(rng, 1))
        test->code_offset = (uint16_t)(PAGE_SIZE - test->length);
}

/* Bytes for the row; false if this attempt gave an encoding that belongs to another row. An encoding that
 * our decoder rejects is kept now and then, to see that the host rejects it too. */
bool generate_bytes(struct insn_case *test, struct rng *rng, struct insn *insn)
{
    struct builder b = { .test = test, .rng = rng, .row = test->row };

    test->disp_size = 0;
    if (test->row->map >= MAP_VEX_0F)
        emit_vex(&b);
    else
        emit_legacy(&b);
    unsigned without_immediate = b.n;
    emit_immediates(&b);
    if (without_immediate + 8 > INSN_MAX_LENGTH && b.n > 22)
        return false;
    memset(test->bytes, 0xcc, sizeof(test->bytes));
    memcpy(test->bytes, b.bytes, MIN(b.n, INSN_MAX_LENGTH));
    enum decode_status status = insn_decode(test->bytes, INSN_MAX_LENGTH, CODE64, insn);
    test->branches = test->row->attributes & ATTR_BRANCH;
    test->decoded = NULL;
    test->length = INSN_MAX_LENGTH;
    if (status == DECODE_OK) {
        if (insn->row != test->row)
            return false;
        test->decoded = insn->row;
        test->length = insn->length;
        memset(test->bytes + test->length, 0xcc, sizeof(test->bytes) - test->length);
    } else {
        /* The host must find it invalid too. Not often; and no valid instruction may follow by chance. */
        if (status != DECODE_INVALID || !(test->row->attributes & ATTR_NO64 || rng_chance(rng, 20)))
            return false;
        memset(test->bytes + MIN(without_immediate, 14u), 0xcc, sizeof(test->bytes) - MIN(without_immediate, 14u));
        if (insn_decode(test->bytes, INSN_MAX_LENGTH, CODE64, insn) != DECODE_INVALID)
            return false;
    }
    choose_place(test, rng);
    return true;
}

bool generate_case(struct insn_case *test, const struct insn_row *row, uint64_t number)
{
    struct rng rng = { number };
    struct insn insn;

    test->number = number;
    test->row = row;
    for (unsigned i = 0; i < ATTEMPTS; i++) {
        if (!generate_bytes(test, &rng, &insn))
            continue;
        generate_state(test, &rng, &insn);
        return true;
    }
    return false;
}
