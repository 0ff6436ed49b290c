/* One instruction of the table: bytes as tests/insn makes them, then its registers and its memory operand changed so that
 * the rules of stress.h hold. Also the few instructions that idioms spell out. No state. */
#include "cpu/decode/insn.h"
#include "tests/stress/stress.h"

#include <stdlib.h>
#include <string.h>

#define ATTEMPTS 12
#define MARK     0x13579bdf /* a displacement to be replaced */

/* ---- Which rows ---- */

static bool row_touches_strings(const struct insn_row *row)
{
    for (size_t i = 0; i < ARRAY_SIZE(row->operands); i++)
        if (row->operands[i].type >= OT_Xb && row->operands[i].type <= OT_Yz)
            return true;
    return false;
}

/* Not for random choice: control flow, strings and stack frames are idioms; images of x87 and vector state contain
 * addresses of code; gathers need their indices tamed. */
static bool row_is_special(const struct insn_row *row)
{
    if (row->attributes & (ATTR_BRANCH | ATTR_VSIB | ATTR_NO64))
        return true;
    switch (row->handler) {
    case HANDLER_enter:
    case HANDLER_leave:
    case HANDLER_popf:
    case HANDLER_wrfsbase:
    case HANDLER_wrgsbase:
    case HANDLER_fxsave:
    case HANDLER_fxrstor:
    case HANDLER_fnsave:
    case HANDLER_frstor:
    case HANDLER_fnstenv:
    case HANDLER_fldenv:
    case HANDLER_movdir64b:
        return true;
    default:
        return row->handler >= HANDLER_xsave || row_touches_strings(row);
    }
}

static bool row_faults(const struct insn_row *row)
{
    return (row->attributes & ATTR_CPL0) || row->handler == HANDLER_ud ||
           ((row->attributes & ATTR_IOPL) && row->handler != HANDLER_pushf);
}

static enum row_sort row_sort(const struct insn_row *row)
{
    if (row_faults(row))
        return ROWS_FAULTING;
    if (row->map == MAP_X87 || row->exception_class == EXC_X87 || row->exception_class == EXC_X87_NOWAIT)
        return ROWS_X87;
    if (row->exception_class == EXC_MMX || row->exception_class == EXC_SSE_INT_MMX)
        return ROWS_MMX;
    return row->exception_class == EXC_NONE || row->exception_class == EXC_VEX_GPR ? ROWS_INTEGER : ROWS_VECTOR;
}

void row_choice_init(struct row_choice *choice, const struct cpuid_model *model)
{
    memset(choice, 0, sizeof(*choice));
    for (unsigned sort = 0; sort < ROW_SORTS; sort++)
        if (!(choice->rows[sort] = calloc(insn_row_count, sizeof(*choice->rows[sort]))))
            abort();
    for (unsigned i = 0; i < insn_row_count; i++) {
        const struct insn_row *row = &insn_rows[i];
        if (!row_is_special(row) && !row_skip_reason(row, model))
            choice->rows[row_sort(row)][choice->count[row_sort(row)]++] = row;
    }
}

void row_choice_free(struct row_choice *choice)
{
    for (unsigned sort = 0; sort < ROW_SORTS; sort++)
        free(choice->rows[sort]);
}

/* ---- Items ---- */

/* Which flags an instruction really reads, writes for certain, leaves undefined. The row of a shift says what holds for
 * any count; REP CMPS may compare nothing. */
static void set_flags(struct item *item, const struct insn *insn)
{
    const struct insn_row *row = insn->row;
    uint32_t kept = 0;

    item->flags_read = row->flags_read;
    item->flags_written = row->flags_written;
    item->flags_undefined = row->flags_undefined & ~row->flags_written;
    if (row->handler >= HANDLER_rol && row->handler <= HANDLER_shrd) {
        uint64_t count = 2; /* unknown */
        bool known = false;
        for (unsigned i = 1; i < insn->operand_count; i++)
            if (insn->operands[i].kind == OPERAND_IMM) {
                count = (uint64_t)insn->imm & (insn->operands[0].size == 8 ? 63 : 31);
                known = true;
            }
        item->flags_read &= row->handler == HANDLER_rcl || row->handler == HANDLER_rcr ? FLAG_CF : 0;
        if (!known || !count)
            kept = row->flags_written;
        if (known && !count)
            item->flags_undefined = 0;
    } else if (row->handler == HANDLER_cmps || row->handler == HANDLER_scas) {
        item->flags_read &= FLAG_DF;
        kept = insn->rep ? row->flags_written : 0;
    }
    item->flags_written &= ~kept;
    item->flags_read &= FLAGS_ARITH;
}

struct item *add_bytes(struct generator *g, const uint8_t *bytes, unsigned length)
{
    struct program *program = g->program;
    struct item *item = program->count < STRESS_ITEMS ? &program->items[program->count++] : &g->sink;
    struct insn insn;

    memset(item, 0, sizeof(*item));
    memcpy(item->bytes, bytes, length);
    item->length = (uint8_t)length;
    if (insn_decode(bytes, length, CODE64, &insn) == DECODE_OK)
        set_flags(item, &insn);
    return item;
}

/* ---- Registers ---- */

bool register_is_free(const struct generator *g, unsigned reg)
{
    return g->program->registers[reg].kind == REGISTER_FREE;
}

int pick_register(struct generator *g, enum register_kind kind)
{
    unsigned found[16], n = 0;

    for (unsigned i = 0; i < 16; i++)
        if (g->program->registers[i].kind == kind)
            found[n++] = i;
    return n ? (int)found[rng_below(g->rng, n)] : -1;
}

unsigned pick_free(struct generator *g)
{
    int reg = pick_register(g, REGISTER_FREE);
    return reg < 0 ? 0 : (unsigned)reg;
}

static bool is_register(const struct operand *o)
{
    return o->kind == OPERAND_GPR || o->kind == OPERAND_GPR_HIGH;
}

/* Results go to free registers. False: one is fixed and not free. */
static bool adapt_results(struct generator *g, struct insn *insn, bool *changed)
{
    for (unsigned i = 0; i < insn->operand_count; i++) {
        struct operand *o = &insn->operands[i];
        if (!is_register(o) || !(o->access & (ACCESS_W | ACCESS_CW)) || register_is_free(g, o->reg))
            continue;
        if (insn->row->operands[i].implicit)
            return false;
        int reg = pick_register(g, REGISTER_FREE);
        if (reg < 0 || (o->kind == OPERAND_GPR_HIGH && reg > 3))
            return false;
        o->reg = (uint8_t)reg;
        *changed = true;
    }
    return true; /* registers that the opcode fixes stay what they are: add_changed notices */
}

/* ---- Memory operands ---- */

static const struct operand *memory_operand(const struct insn *insn)
{
    for (unsigned i = 0; i < insn->operand_count; i++)
        if (insn->operands[i].kind == OPERAND_MEM)
            return &insn->operands[i];
    return NULL;
}

static unsigned alignment_of(const struct insn *insn, const struct operand *o)
{
    switch (insn->row->exception_class) {
    case EXC_SSE_ALIGNED:
    case EXC_SSE_FP_ALIGNED:
    case EXC_VEX_ALIGNED:
        return MAX(o->size, 1u);
    default:
        return insn->row->handler == HANDLER_cmpxchg16b ? 16 : 1;
    }
}

static bool is_bit_string(const struct insn *insn)
{
    return insn->row->handler >= HANDLER_bt && insn->row->handler <= HANDLER_btc &&
           insn->operands[0].kind == OPERAND_MEM && insn->operands[1].kind == OPERAND_GPR;
}

/* Values for special registers come from tables, most of the time. */
static bool place_constant(struct generator *g, struct insn *insn, struct place *place)
{
    bool mxcsr = insn->row->handler == HANDLER_ldmxcsr;

    insn->mem.base = REG_RIP;
    insn->mem.index = REG_NONE;
    insn->mem.scale = 0;
    insn->mem.segment = SEG_DS;
    insn->segment_prefix = 0;
    insn->address_size = 8;
    insn->prefix_67 = false;
    *place = (struct place){ .fix = FIX_RELATIVE, .fix_size = 4, .target = TARGET_ADDRESS };
    place->addend = (int64_t)(STRESS_DATA + STRESS_DATA_SIZE + (mxcsr ? CONST_MXCSR : CONST_FCW) +
                              rng_below(g->rng, 16) * (mxcsr ? 4 : 2));
    return true;
}

static bool adapt_memory(struct generator *g, struct insn *insn, struct place *place, bool *changed)
{
    const struct operand *o = memory_operand(insn);
    unsigned type;

    if (!o)
        return g->wish != WISH_MEMORY && g->wish != WISH_GROUP;
    if (g->wish == WISH_REGISTER)
        return false;
    if (o->access == ACCESS_NONE && insn->row->handler != HANDLER_clflush)
        return g->wish == WISH_ANY; /* no access: any address will do */
    type = insn->row->operands[o - insn->operands].type;
    if (type == OT_BXAL || type == OT_DIdq || type == OT_DIq || type == OT_AXm) {
        unsigned reg = type == OT_BXAL ? REG_RBX : type == OT_AXm ? REG_RAX : REG_RDI;
        return g->program->registers[reg].kind == REGISTER_ANCHOR && !insn->segment_prefix;
    }
    *changed = true;
    if (type == OT_Ob || type == OT_Ov) { /* a whole address in the instruction */
        insn->mem.disp = (int64_t)(STRESS_DATA + 0x100 + rng_below(g->rng, STRESS_DATA_SIZE - 0x200));
        insn->segment_prefix = 0;
        insn->mem.segment = SEG_DS;
        return g->wish != WISH_GROUP;
    }
    if (!o->size && insn->row->handler != HANDLER_clflush)
        return false;
    if (is_bit_string(insn)) {
        int index = pick_register(g, REGISTER_INDEX);
        if (index < 0)
            return false;
        insn->operands[1].reg = (uint8_t)index;
    }
    if ((insn->row->handler == HANDLER_ldmxcsr || insn->row->handler == HANDLER_fldcw) && rng_chance(g->rng, 90))
        return place_constant(g, insn, place);
    return place_operand(g, insn, MAX(o->size, 1u), alignment_of(insn, o), o->access & ACCESS_W, place);
}

/* ---- Rows ---- */

static bool row_allowed_here(struct generator *g, const struct insn_row *row)
{
    switch (row->handler) {
    case HANDLER_push:
    case HANDLER_push_seg:
    case HANDLER_pop:
    case HANDLER_pushf: /* the stack stays balanced where that matters */
        return g->has_stack && !g->in_subroutine && !g->loop_depth;
    case HANDLER_div:
    case HANDLER_idiv: /* most would be #DE */
        return rng_chance(g->rng, 4);
    case HANDLER_fninit:
        return rng_chance(g->rng, 30);
    default:
        return true;
    }
}

/* Encodes it and finds the displacement that is to be filled in. */
static struct item *add_changed(struct generator *g, struct insn *insn, const struct place *place)
{
    uint8_t bytes[INSN_MAX_LENGTH];
    struct insn again;
    int32_t mark = MARK;

    if (place->fix != FIX_NONE)
        insn->mem.disp = mark;
    unsigned length = (unsigned)insn_encode(insn, bytes);
    if (!length || insn_decode(bytes, length, CODE64, &again) != DECODE_OK || again.row != insn->row)
        return NULL;
    for (unsigned i = 0; i < insn->operand_count; i++)
        if (insn->operands[i].kind != again.operands[i].kind || insn->operands[i].reg != again.operands[i].reg)
            return NULL;
    const uint8_t *field = place->fix == FIX_NONE ? NULL : memmem(bytes, length, &mark, sizeof(mark));
    if (place->fix != FIX_NONE && !field)
        return NULL;
    struct item *item = add_bytes(g, bytes, length);
    if (field) {
        item->fix = place->fix;
        item->fix_size = place->fix_size;
        item->fix_offset = (uint8_t)(field - bytes);
        item->target = place->target;
        item->addend = place->addend;
    }
    return item;
}

struct item *add_row(struct generator *g, const struct insn_row *row)
{
    struct insn_case scratch = { .row = row };
    struct insn insn;

    if (!row_allowed_here(g, row))
        return NULL;
    for (unsigned i = 0; i < ATTEMPTS; i++) {
        struct place place = { .fix = FIX_NONE };
        bool changed = false;
        if (!generate_bytes(&scratch, g->rng, &insn) || !scratch.decoded)
            continue;
        if (!adapt_memory(g, &insn, &place, &changed) || !adapt_results(g, &insn, &changed))
            continue;
        struct item *item = changed ? add_changed(g, &insn, &place) : add_bytes(g, scratch.bytes, scratch.length);
        if (item)
            return item;
    }
    return NULL;
}

struct item *add_random(struct generator *g, enum row_sort sort)
{
    const struct row_choice *choice = g->choice;

    if (!choice->count[sort])
        return NULL;
    return add_row(g, choice->rows[sort][rng_below(g->rng, choice->count[sort])]);
}

struct item *add_handler(struct generator *g, enum operand_wish wish, unsigned first, unsigned last)
{
    const struct row_choice *choice = g->choice;
    enum operand_wish before = g->wish;
    struct item *item = NULL;

    g->wish = wish;
    for (unsigned i = 0; i < 400 && !item; i++) {
        const struct insn_row *row = choice->rows[ROWS_INTEGER][rng_below(g->rng, choice->count[ROWS_INTEGER])];
        if (row->handler >= first && row->handler <= last)
            item = add_row(g, row);
    }
    g->wish = before;
    return item;
}

/* ---- Spelt out ---- */

struct item *add_reg_reg(struct generator *g, unsigned opcode, unsigned size, unsigned rm, unsigned reg)
{
    unsigned rex = 0x40 | (size == 8 ? 8 : 0) | (reg >= 8 ? 4 : 0) | (rm >= 8 ? 1 : 0);
    return ADD(g, (uint8_t)rex, (uint8_t)opcode, (uint8_t)(0xc0 | (reg & 7) << 3 | (rm & 7)));
}

struct item *add_reg_imm(struct generator *g, unsigned digit, unsigned size, unsigned rm, int32_t imm)
{
    uint8_t bytes[7] = { (uint8_t)(0x40 | (size == 8 ? 8 : 0) | (rm >= 8 ? 1 : 0)) };
    bool narrow = imm == (int8_t)imm && rng_chance(g->rng, 80);

    bytes[1] = narrow ? 0x83 : 0x81;
    bytes[2] = (uint8_t)(0xc0 | digit << 3 | (rm & 7));
    memcpy(bytes + 3, &imm, 4);
    return add_bytes(g, bytes, narrow ? 4 : 7);
}

struct item *add_mov_imm(struct generator *g, unsigned reg, uint64_t value)
{
    bool wide = value >> 32 || rng_chance(g->rng, 15);
    uint8_t bytes[10] = { (uint8_t)(0x40 | (wide ? 8 : 0) | (reg >= 8 ? 1 : 0)), (uint8_t)(0xb8 | (reg & 7)) };

    memcpy(bytes + 2, &value, 8);
    return add_bytes(g, bytes, wide ? 10 : 6);
}

struct item *add_rip(struct generator *g, unsigned map, unsigned opcode, unsigned size, unsigned reg, int target,
                     int64_t addend)
{
    uint8_t bytes[10];
    unsigned n = 0;

    if (size == 2)
        bytes[n++] = 0x66;
    bytes[n++] = (uint8_t)(0x40 | (size == 8 ? 8 : 0) | (reg >= 8 ? 4 : 0));
    if (map)
        bytes[n++] = (uint8_t)map;
    bytes[n++] = (uint8_t)opcode;
    bytes[n++] = (uint8_t)(5 | (reg & 7) << 3);
    memset(bytes + n, 0, 4);
    struct item *item = add_bytes(g, bytes, n + 4);
    item->fix = FIX_RELATIVE;
    item->fix_offset = (uint8_t)n;
    item->fix_size = 4;
    item->target = (int16_t)target;
    item->addend = addend;
    return item;
}
