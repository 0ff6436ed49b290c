/* Pieces of code that compilers and people write and that a translator treats in a way of its own: several accesses
 * through one register, flags that live across memory accesses, stack frames, strings, divisions. No state. */
#include "cpu/decode/insn.h"
#include "tests/stress/stress.h"

#include <string.h>

static unsigned any_register(struct generator *g)
{
    return rng_below(g->rng, 16);
}

static unsigned size_4_or_8(struct generator *g)
{
    return rng_chance(g->rng, 60) ? 8 : 4;
}

/* add or adc sbb and sub xor cmp of two registers; the result is a free one. */
static void add_alu(struct generator *g)
{
    unsigned op = rng_below(g->rng, 8);
    add_reg_reg(g, op << 3 | 1, size_4_or_8(g), pick_free(g), any_register(g));
}

/* ---- Memory ---- */

/* As structs and stack frames are accessed: one base, several displacements. */
static void idiom_group(struct generator *g)
{
    unsigned count = 2 + rng_below(g->rng, 5);

    g->last_anchor = pick_register(g, REGISTER_ANCHOR);
    g->last_disp = (int32_t)rng_below(g->rng, 128) - 64;
    if (g->last_anchor < 0)
        return;
    for (unsigned i = 0; i < count; i++) {
        unsigned kind = rng_below(g->rng, 10);
        if (kind < 6)
            add_handler(g, WISH_GROUP, HANDLER_mov, HANDLER_movsxd);
        else if (kind < 9)
            add_handler(g, WISH_GROUP, HANDLER_add, HANDLER_dec);
        else
            add_straight(g, 1);
    }
}

static void consume_flags(struct generator *g)
{
    switch (rng_below(g->rng, 6)) {
    case 0:
        add_handler(g, rng_chance(g->rng, 70) ? WISH_REGISTER : WISH_ANY, HANDLER_setcc, HANDLER_setcc);
        break;
    case 1:
        add_handler(g, WISH_ANY, HANDLER_cmovcc, HANDLER_cmovcc);
        break;
    case 2: /* adc, sbb */
        add_handler(g, WISH_ANY, HANDLER_adc, HANDLER_sbb);
        break;
    case 3:
        add_handler(g, WISH_REGISTER, HANDLER_rcl, HANDLER_rcr);
        break;
    case 4:
        if (register_is_free(g, REG_RAX)) {
            ADD(g, 0x9f); /* lahf */
            break;
        }      /* fallthrough */
    default: { /* a branch over an instruction or two */
        struct item *branch = ADD(g, (uint8_t)(0x70 | rng_below(g->rng, 16)), 0);
        unsigned index = (unsigned)(branch - g->program->items);
        add_straight(g, 1 + rng_below(g->rng, 2));
        if (branch != &g->sink) {
            branch = &g->program->items[index];
            branch->fix = FIX_BRANCH;
            branch->fix_offset = branch->fix_size = 1;
            branch->flow = FLOW_BRANCH;
            branch->target = branch->flow_target = (int16_t)g->program->count;
        }
        break;
    }
    }
}

static void idiom_flags(struct generator *g)
{
    unsigned count = 1 + rng_below(g->rng, 3);

    switch (rng_below(g->rng, 7)) {
    case 6: /* cmp, test of bytes without REX: half of them are AH and its kin */
        ADD(g, rng_chance(g->rng, 60) ? 0x38 : 0x84, (uint8_t)(0xc0 | rng_below(g->rng, 64)));
        break;
    case 0:
        add_reg_imm(g, 7, size_4_or_8(g), any_register(g), (int32_t)corner_integer(g->rng)); /* cmp */
        break;
    case 4:
    case 5: /* of any size, AH and its kin too */
        add_handler(g, WISH_REGISTER, HANDLER_add, HANDLER_neg);
        break;
    case 1:
        add_reg_reg(g, 0x85, size_4_or_8(g), any_register(g), any_register(g)); /* test */
        break;
    case 2:
        add_alu(g);
        break;
    default:
        add_handler(g, WISH_MEMORY, HANDLER_add, HANDLER_dec);
        break;
    }
    for (unsigned i = 0; i < count; i++)
        add_handler(g, rng_chance(g->rng, 30) ? WISH_GROUP : WISH_MEMORY, HANDLER_mov, HANDLER_movsxd);
    consume_flags(g);
}

/* A pointer moves on, or another register gets it. */
static void idiom_pointer(struct generator *g)
{
    int reg = pick_register(g, REGISTER_ANCHOR), other = pick_register(g, REGISTER_ANCHOR);
    int32_t step = g->loop_depth ? (int32_t)rng_below(g->rng, 33) - 16 : (int32_t)rng_below(g->rng, 129) - 64;

    if (reg < 0 || g->loop_depth > 1)
        return;
    if (rng_chance(g->rng, 70))
        step &= ~15;
    switch (rng_below(g->rng, 7)) {
    case 6: /* cmp, test of bytes without REX: half of them are AH and its kin */
        ADD(g, rng_chance(g->rng, 60) ? 0x38 : 0x84, (uint8_t)(0xc0 | rng_below(g->rng, 64)));
        break;
    case 0:
        add_reg_imm(g, 0, 8, (unsigned)reg, step);
        break;
    case 1:
        add_reg_imm(g, 5, 8, (unsigned)reg, step);
        break;
    case 2: { /* lea reg, [reg + disp8] */
        uint8_t bytes[5] = { (uint8_t)(0x48 | (reg >= 8 ? 5 : 0)), 0x8d, (uint8_t)(0x40 | (reg & 7) << 3 | (reg & 7)) };
        unsigned n = 3;
        if ((reg & 7) == REG_RSP)
            bytes[n++] = 0x24;
        bytes[n++] = (uint8_t)step;
        add_bytes(g, bytes, n);
        break;
    }
    case 3:
        add_reg_reg(g, 0x89, 8, (unsigned)reg, (unsigned)other); /* mov */
        break;
    case 4:
        add_reg_reg(g, 0x87, 8, (unsigned)reg, (unsigned)other); /* xchg */
        break;
    default: /* inc, dec */
        add_reg_reg(g, 0xff, 8, (unsigned)reg, rng_below(g->rng, 2));
        break;
    }
}

/* A free register becomes a small number: it cannot be told from before that it is one, so another index is set. */
static void idiom_index(struct generator *g)
{
    int reg = pick_register(g, REGISTER_INDEX);
    unsigned from = pick_free(g);

    if (reg < 0)
        return;
    if (rng_chance(g->rng, 50)) {
        add_reg_reg(g, 0x89, 4, (unsigned)reg, from);
        add_reg_imm(g, 4, 4, (unsigned)reg, 0x3f); /* and */
    } else {                                       /* movsx r64, r8; sar r64, 1 */
        uint8_t rex = (uint8_t)(0x48 | (reg >= 8 ? 4 : 0) | (from >= 8 ? 1 : 0));
        ADD(g, rex, 0x0f, 0xbe, (uint8_t)(0xc0 | (reg & 7) << 3 | (from & 7)));
        add_reg_reg(g, 0xd1, 8, (unsigned)reg, 7);
    }
}

/* ---- Stack ---- */

static void add_push(struct generator *g, unsigned reg)
{
    if (reg >= 8)
        ADD(g, 0x41, (uint8_t)(0x50 | (reg & 7)));
    else
        ADD(g, (uint8_t)(0x50 | reg));
}

static void add_pop(struct generator *g, unsigned reg)
{
    if (reg >= 8)
        ADD(g, 0x41, (uint8_t)(0x58 | (reg & 7)));
    else
        ADD(g, (uint8_t)(0x58 | reg));
}

static void push_something(struct generator *g)
{
    unsigned kind = rng_below(g->rng, 10);
    uint32_t imm = (uint32_t)corner_integer(g->rng);

    if (kind < 7) {
        add_push(g, any_register(g));
    } else if (kind < 8) {
        ADD(g, 0x6a, (uint8_t)imm);
    } else if (kind < 9) {
        ADD(g, 0x68, (uint8_t)imm, (uint8_t)(imm >> 8), (uint8_t)(imm >> 16), (uint8_t)(imm >> 24));
    } else { /* push [rip + data] */
        struct item *item = ADD(g, 0xff, 0x35, 0, 0, 0, 0);
        item->fix = FIX_RELATIVE;
        item->fix_offset = 2;
        item->fix_size = 4;
        item->target = TARGET_ADDRESS;
        item->addend = (int64_t)(STRESS_DATA + 0x100 + rng_below(g->rng, 0x3e00));
    }
}

/* As many pops as pushes, or RSP moved instead. */
static void idiom_stack(struct generator *g)
{
    unsigned count = 1 + rng_below(g->rng, 5);

    if (!g->has_stack)
        return;
    for (unsigned i = 0; i < count; i++)
        push_something(g);
    if (rng_chance(g->rng, 50)) {
        bool before = g->in_subroutine;
        g->in_subroutine = true; /* nothing unbalanced in between */
        add_straight(g, 1 + rng_below(g->rng, 3));
        g->in_subroutine = before;
    }
    if (rng_chance(g->rng, 40)) {
        unsigned dropped = 1 + rng_below(g->rng, count);
        if (rng_chance(g->rng, 50))
            add_reg_imm(g, 0, 8, REG_RSP, (int32_t)dropped * 8);
        else
            ADD(g, 0x48, 0x8d, 0x64, 0x24, (uint8_t)(dropped * 8)); /* lea rsp, [rsp + n] */
        count -= dropped;
    }
    for (unsigned i = 0; i < count; i++)
        add_pop(g, pick_free(g));
}

/* RSP saved, moved, and put back: what is known about it changes. */
static void idiom_stack_pointer(struct generator *g)
{
    unsigned reg = pick_free(g), kind = rng_below(g->rng, 4);
    int8_t step = (int8_t)(-8 * (int)rng_below(g->rng, 5)); /* down: above there may be a return address */

    if (!g->has_stack || !register_is_free(g, reg) || g->loop_depth > 1)
        return;
    if (kind == 0) {
        ADD(g, 0x54); /* push rsp */
        push_something(g);
        add_pop(g, reg);
        ADD(g, 0x5c);       /* pop rsp */
    } else if (kind == 1) { /* lea reg, [rsp + step]; push reg; pop rsp; lea rsp, [rsp - step] */
        ADD(g, (uint8_t)(0x48 | (reg >= 8 ? 4 : 0)), 0x8d, (uint8_t)(0x44 | (reg & 7) << 3), 0x24, (uint8_t)step);
        add_push(g, reg);
        ADD(g, 0x5c);
        push_something(g);
        add_pop(g, reg);
        ADD(g, 0x48, 0x8d, 0x64, 0x24, (uint8_t)-step);
    } else { /* another stack, for a while; what is in between does not touch reg */
        uint8_t *kind_of_reg = &g->program->registers[reg].kind;
        if (kind == 2)
            add_reg_reg(g, 0x89, 8, reg, REG_RSP); /* mov reg, rsp */
        else
            add_mov_imm(g, reg, STRESS_STACK + 0x600 + 8 * rng_below(g->rng, 64));
        if (kind == 2)
            add_mov_imm(g, REG_RSP, STRESS_STACK + 0x600 + 8 * rng_below(g->rng, 64));
        else
            add_reg_reg(g, 0x87, 8, REG_RSP, reg); /* xchg */
        *kind_of_reg = REGISTER_TAKEN;
        push_something(g);
        add_pop(g, pick_free(g));
        *kind_of_reg = REGISTER_FREE;
        add_reg_reg(g, kind == 2 ? 0x89 : 0x87, 8, REG_RSP, reg);
    }
}

/* push rbp; mov rbp, rsp; sub rsp, n; accesses; leave */
static void idiom_frame(struct generator *g)
{
    uint8_t *kind = &g->program->registers[REG_RBP].kind;
    unsigned size = 16 * (1 + rng_below(g->rng, 8));

    if (!g->has_stack || *kind != REGISTER_FREE)
        return;
    if (rng_chance(g->rng, 25)) {
        ADD(g, 0xc8, (uint8_t)size, 0, 0); /* enter size, 0 */
    } else {
        add_push(g, REG_RBP);
        add_reg_reg(g, 0x89, 8, REG_RBP, REG_RSP);
        add_reg_imm(g, 5, 8, REG_RSP, (int32_t)size);
    }
    *kind = REGISTER_FRAME;
    for (unsigned i = 0; i < 1 + size / 32; i++) {
        int32_t disp = -(int32_t)(1 + rng_below(g->rng, size));
        unsigned reg = rng_chance(g->rng, 50) ? any_register(g) : pick_free(g);
        bool load = register_is_free(g, reg) && rng_chance(g->rng, 50);
        uint8_t rex = (uint8_t)(0x40 | (rng_chance(g->rng, 50) ? 8 : 0) | (reg >= 8 ? 4 : 0));
        ADD(g, rex, load ? 0x8b : 0x89, (uint8_t)(0x45 | (reg & 7) << 3), (uint8_t)disp);
    }
    *kind = REGISTER_FREE;
    if (rng_chance(g->rng, 60)) {
        ADD(g, 0xc9); /* leave */
    } else {
        add_reg_reg(g, 0x89, 8, REG_RSP, REG_RBP);
        add_pop(g, REG_RBP);
    }
}

/* PUSHF, and POPF of something that does not trap. */
static void idiom_pushf(struct generator *g)
{
    if (!g->has_stack)
        return;
    if (rng_chance(g->rng, 50)) {
        uint32_t flags = (uint32_t)rng_next(g->rng) & ~FLAG_TF;
        if (rng_chance(g->rng, 85))
            flags &= ~FLAG_AC;
        ADD(g, 0x68, (uint8_t)flags, (uint8_t)(flags >> 8), (uint8_t)(flags >> 16), (uint8_t)(flags >> 24));
        ADD(g, 0x9d);
    } else {
        ADD(g, 0x9c);
        if (rng_chance(g->rng, 50)) /* xor byte [rsp], arithmetic flags */
            ADD(g, 0x80, 0x34, 0x24, (uint8_t)(rng_next(g->rng) & 0xd5));
        if (rng_chance(g->rng, 70))
            ADD(g, 0x9d);
        else
            add_pop(g, pick_free(g));
    }
}

/* ---- Fixed registers ---- */

/* lea reg, [anchor + disp]: a free register gets an address, for a while. */
static bool add_address(struct generator *g, unsigned reg)
{
    int anchor = pick_register(g, REGISTER_ANCHOR);
    int32_t disp = (int32_t)rng_below(g->rng, 0x400) - 0x200;

    if (g->program->registers[reg].kind == REGISTER_ANCHOR)
        return true;
    if (anchor < 0 || !register_is_free(g, reg))
        return false;
    add_reg_reg(g, 0x89, 8, reg, (unsigned)anchor);
    add_reg_imm(g, 0, 8, reg, disp);
    return true;
}

static void idiom_string(struct generator *g)
{
    static const uint8_t opcodes[] = { 0xa4, 0xa5, 0xa6, 0xa7, 0xaa, 0xab, 0xac, 0xad, 0xae, 0xaf };
    uint8_t opcode = opcodes[rng_below(g->rng, sizeof(opcodes))], bytes[4];
    unsigned rep = rng_below(g->rng, 4), n = 0;
    bool source = opcode < 0xaa || opcode == 0xac || opcode == 0xad, destination = (opcode & 0xfe) != 0xac;

    if ((rep && !register_is_free(g, REG_RCX)) || ((opcode & 0xfe) == 0xac && !register_is_free(g, REG_RAX)))
        return;
    if ((source && !add_address(g, REG_RSI)) || (destination && !add_address(g, REG_RDI)))
        return;
    if (rep)
        add_mov_imm(g, REG_RCX, rng_below(g->rng, rng_chance(g->rng, 90) ? 12 : 48))->group = (uint16_t)++g->groups;
    if (opcode <= 0xa5) /* what comes of moves that overlap by an alias is the processor's choice */
        g->program->moves_strings = true;
    if (rng_chance(g->rng, 30))
        ADD(g, rng_chance(g->rng, 50) ? 0xfc : 0xfd); /* cld, std */
    if (rep)
        bytes[n++] = rep == 1 ? 0xf2 : 0xf3;
    if (opcode & 1) {
        unsigned width = rng_below(g->rng, 3);
        if (width)
            bytes[n++] = width == 1 ? 0x66 : 0x48;
        if (n == 2 && bytes[1] == 0x66) /* 66 first or second: both are seen */
            bytes[1] = bytes[0], bytes[0] = 0x66;
    }
    bytes[n++] = opcode;
    add_bytes(g, bytes, n)->group = (uint16_t)(rep ? g->groups : 0);
    if (rng_chance(g->rng, 50))
        ADD(g, 0xfc);
}

static void idiom_division(struct generator *g)
{
    unsigned size = size_4_or_8(g), divisor = any_register(g), digit = 6 + rng_below(g->rng, 2);

    if (!register_is_free(g, REG_RAX) || !register_is_free(g, REG_RDX) || divisor == REG_RAX || divisor == REG_RDX)
        return;
    if (register_is_free(g, divisor) && rng_chance(g->rng, 90))
        add_reg_imm(g, 1, size, divisor, 1 + (int32_t)rng_below(g->rng, 100)); /* or: not 0 */
    if (register_is_free(g, divisor) && rng_chance(g->rng, 5))
        add_reg_reg(g, 0x31, size, divisor, divisor); /* but now and then */
    if (register_is_free(g, divisor) || rng_chance(g->rng, 10)) {
        if (digit == 7)
            ADD(g, (uint8_t)(size == 8 ? 0x48 : 0x40), 0x99); /* cdq, cqo */
        else
            add_reg_reg(g, 0x31, 4, REG_RDX, REG_RDX);
        add_reg_reg(g, 0xf7, size, divisor, digit);
    }
}

/* Shifts by CL, RCX as data and as what JRCXZ looks at. */
static void idiom_count(struct generator *g)
{
    static const uint8_t digits[] = { 0, 1, 2, 3, 4, 5, 7 };
    unsigned size = size_4_or_8(g);

    if (register_is_free(g, REG_RCX) && rng_chance(g->rng, 60))
        add_mov_imm(g, REG_RCX, rng_chance(g->rng, 20) ? 0 : rng_below(g->rng, 80));
    switch (rng_below(g->rng, 4)) {
    case 0: /* rcx shifted by itself, if it may be */
        add_reg_reg(g, 0xd3, size, register_is_free(g, REG_RCX) ? REG_RCX : pick_free(g), digits[rng_below(g->rng, 7)]);
        break;
    case 1:
        add_reg_reg(g, 0xd3, size, pick_free(g), digits[rng_below(g->rng, 7)]);
        break;
    case 2:
        add_handler(g, WISH_MEMORY, HANDLER_rol, HANDLER_shrd);
        break;
    default:
        add_handler(g, WISH_ANY, HANDLER_adcx, HANDLER_shrx);
        break;
    }
}

/* VEX.128.map2 (0F 38) of three registers. */
static void add_vex_regs(struct generator *g, uint8_t prefix, uint8_t opcode, unsigned reg, unsigned vvvv, unsigned rm)
{
    bool wide = rng_chance(g->rng, 60);

    ADD(g, 0xc4, (uint8_t)((reg < 8) << 7 | 1 << 6 | (rm < 8) << 5 | 2),
        (uint8_t)(wide << 7 | (~vvvv & 15) << 3 | prefix), opcode, (uint8_t)(0xc0 | (reg & 7) << 3 | (rm & 7)));
}

/* Rows of instructions with up to three operands among the registers that a translator may keep in memory, each using what
 * the one before has left. */
static void idiom_rows(struct generator *g)
{
    static const uint8_t registers[] = { 9, 10, 11, 15, 1 };
    /* shlx sarx shrx bextr, bzhi pext pdep, andn, mulx: prefix (0: none, 1: 66, 2: F3, 3: F2) and opcode */
    static const uint8_t ops[][2] = { { 1, 0xf7 }, { 2, 0xf7 }, { 3, 0xf7 }, { 0, 0xf7 }, { 0, 0xf5 },
                                      { 2, 0xf5 }, { 3, 0xf5 }, { 0, 0xf2 }, { 3, 0xf6 } };
    unsigned count = 2 + rng_below(g->rng, 4);

    while (count--) {
        unsigned r[3];
        for (unsigned n = 0; n < 3; n++)
            r[n] = rng_chance(g->rng, 85) ? registers[rng_below(g->rng, sizeof(registers))] : any_register(g);
        if (!register_is_free(g, r[0]))
            continue;
        const uint8_t *op = ops[rng_below(g->rng, ARRAY_SIZE(ops))];
        if (rng_chance(g->rng, 35))
            add_reg_reg(g, rng_below(g->rng, 8) << 3 | 1, size_4_or_8(g), r[0], r[1]);
        else if (op[1] != 0xf6 || register_is_free(g, r[1])) /* mulx writes both */
            add_vex_regs(g, op[0], op[1], r[0], r[1], r[2]);
    }
}

/* AH and its kin between their low halves. */
static void idiom_partial(struct generator *g)
{
    unsigned count = 2 + rng_below(g->rng, 3);

    for (unsigned i = 0; i < count; i++) {
        unsigned rm = rng_below(g->rng, 8), reg = rng_below(g->rng, 8), op = rng_below(g->rng, 9);
        if (!register_is_free(g, rm & 3) || !register_is_free(g, reg & 3))
            continue;
        ADD(g, op == 8 ? 0x88 : (uint8_t)(op << 3), (uint8_t)(0xc0 | reg << 3 | rm)); /* 4 to 7: ah ch dh bh */
        if (rng_chance(g->rng, 30))
            add_handler(g, WISH_ANY, HANDLER_movzx, HANDLER_movsx);
    }
}

/* FS and GS bases: to near where they are. */
static void idiom_segment_base(struct generator *g)
{
    unsigned reg = pick_free(g);
    bool fs = rng_chance(g->rng, 50);

    if (!native_has_fsgsbase() || !register_is_free(g, reg))
        return;
    add_mov_imm(g, reg, (fs ? STRESS_FS_BASE : STRESS_GS_BASE) + 16 * rng_below(g->rng, 16));
    ADD(g, 0xf3, (uint8_t)(0x48 | (reg >= 8 ? 1 : 0)), 0x0f, 0xae, (uint8_t)(0xd0 | (fs ? 0 : 8) | (reg & 7)));
}

/* Indices from the table, then vpgatherdd or vpgatherqq. */
static void idiom_gather(struct generator *g)
{
    int base = pick_register(g, REGISTER_ANCHOR);
    unsigned index = rng_below(g->rng, 8), to = rng_below(g->rng, 8), mask = rng_below(g->rng, 8);
    bool wide = rng_chance(g->rng, 50);

    if (base < 0 || base == REG_RBP || base == REG_R13 || !__builtin_cpu_supports("avx2") || index == to ||
        index == mask || to == mask)
        return;
    struct item *item = ADD(g, 0xc5, 0xfe, 0x6f, (uint8_t)(5 | index << 3), 0, 0, 0, 0); /* vmovdqu ymm, [rip] */
    item->fix = FIX_RELATIVE;
    item->fix_offset = item->fix_size = 4;
    item->target = TARGET_ADDRESS;
    item->addend =
        (int64_t)(STRESS_DATA + STRESS_DATA_SIZE +
                  (wide ? CONST_INDICES8 + 8 * rng_below(g->rng, 12) : CONST_INDICES4 + 4 * rng_below(g->rng, 24)));
    ADD(g, 0xc4, (uint8_t)(0xc2 | (base >= 8 ? 0 : 0x20)), (uint8_t)((wide ? 0x80 : 0) | (~mask & 15) << 3 | 5),
        (uint8_t)(wide ? 0x91 : 0x90), (uint8_t)(4 | to << 3), (uint8_t)(0x80 | index << 3 | (base & 7)));
}

/* ---- Choice ---- */

void add_idiom(struct generator *g)
{
    static void (*const idioms[])(struct generator *) = {
        idiom_group,   idiom_group,    idiom_group,         idiom_group, idiom_flags,        idiom_flags,
        idiom_flags,   idiom_pointer,  idiom_index,         idiom_stack, idiom_stack,        idiom_frame,
        idiom_pushf,   idiom_string,   idiom_string,        idiom_count, idiom_segment_base, idiom_gather,
        idiom_partial, idiom_division, idiom_stack_pointer, idiom_rows,
    };
    idioms[rng_below(g->rng, ARRAY_SIZE(idioms))](g);
}
