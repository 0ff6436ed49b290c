/* The structure of a sequence: straight code, branches over some of it, loops that end, calls, jumps through registers
 * and memory; subroutines behind its end. Then flags: where one is read that may be undefined, an instruction that
 * defines all is put in front. No state. */
#include "cpu/decode/insn.h"
#include "tests/stress/stress.h"

#include <string.h>

#define MAX_INSTRUCTIONS 60

static void add_block(struct generator *g, unsigned budget, unsigned depth);

/* ---- Straight code ---- */

static enum row_sort pick_sort(struct generator *g)
{
    unsigned total = 0, at;

    for (unsigned i = 0; i < ROW_SORTS; i++)
        total += g->weights[i];
    at = rng_below(g->rng, total);
    for (unsigned i = 0; i < ROW_SORTS; i++) {
        if (at < g->weights[i])
            return i;
        at -= g->weights[i];
    }
    return ROWS_INTEGER;
}

void add_straight(struct generator *g, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        add_random(g, pick_sort(g));
}

/* ---- Branches ---- */

static int16_t index_of(const struct generator *g, const struct item *item)
{
    return item == &g->sink ? -1 : (int16_t)(item - g->program->items);
}

static void set_flow(struct generator *g, int16_t index, enum item_flow flow, int16_t target)
{
    if (index < 0)
        return;
    struct item *item = &g->program->items[index];
    item->flow = (uint8_t)flow;
    item->flow_target = target;
    item->target = target;
}

/* A branch of the given opcode bytes, to be aimed later. */
static int16_t add_branch(struct generator *g, unsigned opcode, bool wide)
{
    struct item *item;

    if (wide && opcode == 0xeb)
        item = ADD(g, 0xe9, 0, 0, 0, 0);
    else if (wide)
        item = ADD(g, 0x0f, (uint8_t)(opcode + 0x10), 0, 0, 0, 0);
    else
        item = ADD(g, (uint8_t)opcode, 0);
    item->fix = FIX_BRANCH;
    item->fix_size = wide ? 4 : 1;
    item->fix_offset = (uint8_t)(item->length - item->fix_size);
    return index_of(g, item);
}

static int16_t here(const struct generator *g)
{
    return (int16_t)g->program->count;
}

/* if, if else */
static void add_if(struct generator *g, unsigned budget, unsigned depth)
{
    int16_t branch = add_branch(g, 0x70 | rng_below(g->rng, 16), rng_chance(g->rng, 15)), jump;

    add_block(g, 1 + rng_below(g->rng, budget), depth + 1);
    if (rng_chance(g->rng, 60)) {
        set_flow(g, branch, FLOW_BRANCH, here(g));
        return;
    }
    jump = add_branch(g, 0xeb, rng_chance(g->rng, 15));
    set_flow(g, branch, FLOW_BRANCH, here(g));
    add_block(g, 1 + rng_below(g->rng, budget), depth + 1);
    set_flow(g, jump, FLOW_JUMP, here(g));
}

static void add_jrcxz(struct generator *g, unsigned budget, unsigned depth)
{
    struct item *item = rng_chance(g->rng, 20) ? ADD(g, 0x67, 0xe3, 0) : ADD(g, 0xe3, 0);
    int16_t branch = index_of(g, item);

    item->fix = FIX_BRANCH;
    item->fix_size = 1;
    item->fix_offset = (uint8_t)(item->length - 1);
    add_block(g, 1 + rng_below(g->rng, MIN(budget, 4u)), depth + 1);
    set_flow(g, branch, FLOW_BRANCH, here(g));
}

/* lea reg, [rip + target]: the target is where the code goes on, after a few instructions that are jumped over. */
static void add_indirect_jump(struct generator *g)
{
    unsigned reg = pick_free(g), kind = rng_below(g->rng, 3);
    uint16_t group = (uint16_t)++g->groups;
    int64_t slot = (int64_t)(STRESS_SLOTS + 8 * (g->slots++ % 256));
    int16_t lea, jump;

    if (!register_is_free(g, reg) || (kind == 2 && !g->has_stack) || g->program->count + 12 > STRESS_ITEMS)
        return;
    lea = index_of(g, add_rip(g, 0, 0x8d, 8, reg, 0, 0));
    if (kind == 0) {
        jump = index_of(g, add_reg_reg(g, 0xff, 8, reg, 4)); /* jmp reg */
    } else if (kind == 1) {
        add_rip(g, 0, 0x89, 8, reg, TARGET_ADDRESS, slot)->group = group;
        jump = index_of(g, add_rip(g, 0, 0xff, 4, 4, TARGET_ADDRESS, slot)); /* jmp [rip + slot] */
    } else {
        ADD(g, (uint8_t)(0x40 | (reg >= 8 ? 1 : 0)), (uint8_t)(0x50 | (reg & 7)))->group = group;
        jump = index_of(g, ADD(g, 0xc3));
    }
    add_straight(g, rng_below(g->rng, 3));
    g->program->items[lea].target = here(g);
    g->program->items[lea].entry = true;
    g->program->items[lea].group = g->program->items[jump].group = group;
    g->program->items[jump].flow = FLOW_JUMP;
    g->program->items[jump].flow_target = here(g);
}

/* To where no code is: the last thing that happens. */
static void add_wild_jump(struct generator *g)
{
    unsigned reg = pick_free(g);
    uint64_t targets[] = { rng_below(g->rng, PAGE_SIZE),
                           1ull << 63 >> rng_below(g->rng, 15),
                           0x800000000000ull,
                           ~0ull << 46 | 0x1000,
                           STRESS_DATA + 0x800,
                           STRESS_CODE + STRESS_CODE_SIZE,
                           STRESS_CODE_ALIAS + 0x100 };
    int64_t slot = (int64_t)(STRESS_SLOTS + 8 * (g->slots++ % 256));

    if (!register_is_free(g, reg))
        return;
    add_mov_imm(g, reg, targets[rng_below(g->rng, ARRAY_SIZE(targets))]);
    unsigned digit = g->has_stack ? 2 + 2 * rng_below(g->rng, 2) : 4; /* call, jmp */
    switch (rng_below(g->rng, g->has_stack ? 4 : 2)) {
    case 0:
        add_reg_reg(g, 0xff, 8, reg, digit)->flow = FLOW_STOP;
        break;
    case 1:
        add_rip(g, 0, 0x89, 8, reg, TARGET_ADDRESS, slot);
        add_rip(g, 0, 0xff, 4, digit, TARGET_ADDRESS, slot)->flow = FLOW_STOP;
        break;
    default: /* push; ret */
        ADD(g, (uint8_t)(0x40 | (reg >= 8 ? 1 : 0)), (uint8_t)(0x50 | (reg & 7)));
        if (rng_chance(g->rng, 50))
            ADD(g, 0xc3)->flow = FLOW_STOP;
        else
            ADD(g, 0xc2, (uint8_t)(8 * rng_below(g->rng, 4)), 0)->flow = FLOW_STOP;
        break;
    }
}

/* ---- Loops: what counts is set in front and changed by nothing else; all of it stays or goes together ---- */

struct loop {
    uint16_t group;
    unsigned kind, count;
    int reg;
    int64_t slot;
    int16_t head;
};

static void loop_enter(struct generator *g, struct loop *loop)
{
    loop->group = (uint16_t)++g->groups;
    loop->count = 1 + rng_below(g->rng, g->loops > 1 ? 3 : 7);
    loop->slot = (int64_t)(STRESS_SLOTS + 0x800 + 8 * (g->slots++ % 128));
    loop->kind = rng_below(g->rng, 5);
    loop->reg = loop->kind == 4 ? -1 : loop->kind == 3 && register_is_free(g, REG_RCX) ? REG_RCX : (int)pick_free(g);
    if (loop->reg >= 0 && !register_is_free(g, (unsigned)loop->reg))
        loop->kind = 4, loop->reg = -1;
    if (loop->kind == 3 && loop->reg != REG_RCX)
        loop->kind = 0;
    if (loop->reg >= 0) {
        add_mov_imm(g, (unsigned)loop->reg, loop->kind == 2 ? 0 : loop->count)->group = loop->group;
        g->program->registers[loop->reg].kind = REGISTER_TAKEN;
    } else { /* mov dword [rip + slot], count */
        struct item *item = ADD(g, 0xc7, 0x05, 0, 0, 0, 0, (uint8_t)loop->count, 0, 0, 0);
        item->fix = FIX_RELATIVE;
        item->fix_offset = 2;
        item->fix_size = 4;
        item->target = TARGET_ADDRESS;
        item->addend = loop->slot;
        item->group = loop->group;
    }
    loop->head = here(g);
}

static void loop_leave(struct generator *g, struct loop *loop)
{
    unsigned opcode = 0x75; /* jnz */
    int16_t branch;

    switch (loop->kind) {
    case 0: /* dec */
        add_reg_reg(g, 0xff, 4 + 4 * rng_below(g->rng, 2), (unsigned)loop->reg, 1)->group = loop->group;
        break;
    case 1: /* sub */
        add_reg_imm(g, 5, 4, (unsigned)loop->reg, 1)->group = loop->group;
        break;
    case 2: /* add, cmp */
        add_reg_imm(g, 0, 4, (unsigned)loop->reg, 1)->group = loop->group;
        add_reg_imm(g, 7, 4, (unsigned)loop->reg, (int32_t)loop->count)->group = loop->group;
        opcode = rng_chance(g->rng, 50) ? 0x72 : 0x7c; /* jb, jl */
        break;
    case 3:
        opcode = rng_chance(g->rng, 70) ? 0xe2 : rng_chance(g->rng, 50) ? 0xe1 : 0xe0;
        break;
    default: /* sub dword [rip + slot], 1; or dec */
        if (rng_chance(g->rng, 50)) {
            add_rip(g, 0, 0xff, 4, 1, TARGET_ADDRESS, loop->slot)->group = loop->group;
        } else {
            struct item *item = ADD(g, 0x83, 0x2d, 0, 0, 0, 0, 1);
            item->fix = FIX_RELATIVE;
            item->fix_offset = 2;
            item->fix_size = 4;
            item->target = TARGET_ADDRESS;
            item->addend = loop->slot;
            item->group = loop->group;
        }
        break;
    }
    branch = add_branch(g, opcode, opcode < 0x80 && rng_chance(g->rng, 10));
    set_flow(g, branch, FLOW_BRANCH, loop->head);
    if (branch >= 0)
        g->program->items[branch].group = loop->group;
    if (loop->reg >= 0)
        g->program->registers[loop->reg].kind = REGISTER_FREE;
}

static void add_loop(struct generator *g, unsigned budget, unsigned depth)
{
    struct loop loop;
    int16_t leave = -1;

    if (g->loop_depth >= 2 || g->program->count + 40 > STRESS_ITEMS)
        return;
    loop_enter(g, &loop);
    g->loop_depth++;
    g->loops++;
    add_block(g, 1 + rng_below(g->rng, MIN(budget, 8u)), depth + 1);
    if (rng_chance(g->rng, 15)) {
        leave = add_branch(g, 0x70 | rng_below(g->rng, 16), false);
        add_block(g, 1 + rng_below(g->rng, 3), depth + 1);
    }
    g->loop_depth--;
    loop_leave(g, &loop);
    set_flow(g, leave, FLOW_BRANCH, here(g));
}

/* ---- Calls ---- */

static uint16_t registers_taken(const struct generator *g)
{
    uint16_t taken = 0;
    for (unsigned i = 0; i < 16; i++)
        taken |= (uint16_t)((g->program->registers[i].kind == REGISTER_TAKEN) << i);
    return taken;
}

static void set_taken(struct generator *g, uint16_t mask, enum register_kind kind)
{
    for (unsigned i = 0; i < 16; i++)
        if (mask >> i & 1)
            g->program->registers[i].kind = (uint8_t)kind;
}

static void add_call(struct generator *g)
{
    unsigned reg = pick_free(g), kind = rng_below(g->rng, 4);
    uint16_t group = (uint16_t)++g->groups;
    int64_t slot = (int64_t)(STRESS_SLOTS + 8 * (g->slots++ % 256));
    struct item *item;

    if (!g->has_stack || g->in_subroutine || g->subroutines == ARRAY_SIZE(g->calls) || !register_is_free(g, reg) ||
        g->program->count + 30 > STRESS_ITEMS)
        return;
    if (kind < 2) {
        item = ADD(g, 0xe8, 0, 0, 0, 0);
        item->fix = FIX_BRANCH;
        item->fix_offset = 1;
        item->fix_size = 4;
        item->flow = FLOW_CALL;
        g->calls[g->subroutines].address = g->calls[g->subroutines].call = index_of(g, item);
    } else {
        item = add_rip(g, 0, 0x8d, 8, reg, 0, 0);
        item->entry = true;
        item->group = group;
        g->calls[g->subroutines].address = index_of(g, item);
        if (kind == 2) {
            item = add_reg_reg(g, 0xff, 8, reg, 2); /* call reg */
        } else {
            add_rip(g, 0, 0x89, 8, reg, TARGET_ADDRESS, slot)->group = group;
            item = add_rip(g, 0, 0xff, 4, 2, TARGET_ADDRESS, slot);
        }
        item->flow = FLOW_CALL;
        item->group = group;
        g->calls[g->subroutines].call = index_of(g, item);
    }
    g->calls[g->subroutines++].taken = registers_taken(g);
}

/* call the next instruction; pop: where am I? No return ever matches this call. */
static void add_call_pop(struct generator *g)
{
    uint16_t group = (uint16_t)++g->groups;
    unsigned reg = pick_free(g);
    struct item *item;

    if (!g->has_stack || !register_is_free(g, reg) || g->program->count + 4 > STRESS_ITEMS)
        return;
    item = ADD(g, 0xe8, 0, 0, 0, 0);
    item->fix = FIX_BRANCH;
    item->fix_offset = 1;
    item->fix_size = 4;
    item->group = group;
    set_flow(g, index_of(g, item), FLOW_JUMP, here(g));
    ADD(g, (uint8_t)(0x40 | (reg >= 8 ? 1 : 0)), (uint8_t)(0x58 | (reg & 7)))->group = group;
}

/* How a subroutine ends: a return; one that finds another address than the one that was pushed; a return that drops
 * nothing, by immediate. */
static void add_return(struct generator *g)
{
    struct item *item;

    if (rng_chance(g->rng, 15)) { /* add qword [rsp], 0: the address is written, and stays */
        ADD(g, 0x48, 0x83, 0x04, 0x24, 0);
    } else if (rng_chance(g->rng, 10)) { /* pop reg; jmp reg */
        unsigned reg = pick_free(g);
        uint16_t group = (uint16_t)++g->groups;
        if (register_is_free(g, reg)) {
            ADD(g, (uint8_t)(0x40 | (reg >= 8 ? 1 : 0)), (uint8_t)(0x58 | (reg & 7)))->group = group;
            item = add_reg_reg(g, 0xff, 8, reg, 4);
            item->flow = FLOW_RETURN;
            item->group = group;
            return;
        }
    }
    item = rng_chance(g->rng, 10) ? ADD(g, 0xc2, 0, 0) : ADD(g, 0xc3);
    item->flow = FLOW_RETURN;
}

static void add_subroutines(struct generator *g)
{
    for (unsigned i = 0; i < g->subroutines; i++) {
        g->program->items[g->calls[i].address].target = here(g);
        g->program->items[g->calls[i].call].flow_target = here(g);
        g->in_subroutine = true;
        set_taken(g, g->calls[i].taken, REGISTER_TAKEN);
        add_block(g, 1 + rng_below(g->rng, 5), 1);
        add_return(g);
        set_taken(g, g->calls[i].taken, REGISTER_FREE);
    }
}

/* ---- All of it ---- */

static void add_block(struct generator *g, unsigned budget, unsigned depth)
{
    unsigned last = g->program->count + budget;

    while (g->program->count < last && g->program->count + 10 < STRESS_ITEMS) {
        unsigned kind = rng_below(g->rng, 100), before = g->program->count;
        if (kind < 55 || depth > 3)
            add_straight(g, 1);
        else if (kind < 80)
            add_idiom(g);
        else if (kind < 86)
            add_if(g, MIN(budget, 8u), depth);
        else if (kind < 87)
            add_jrcxz(g, budget, depth);
        else if (kind < 91)
            add_loop(g, budget, depth);
        else if (kind < 94)
            add_call(g);
        else if (kind < 95)
            add_call_pop(g);
        else if (kind < 97)
            add_indirect_jump(g);
        else
            add_selfmod(g);
        if (g->program->count == before && rng_chance(g->rng, 2))
            break; /* nothing comes of this choice of registers */
    }
}

static void assign(struct generator *g, enum register_kind kind, bool stack_pointer)
{
    static const uint8_t preferred[] = { REG_RCX, REG_R9, REG_R10, REG_R11, REG_R15, REG_RSP };
    for (unsigned i = 0; i < 20; i++) {
        unsigned reg = rng_chance(g->rng, 35) ? preferred[rng_below(g->rng, sizeof(preferred))] : rng_below(g->rng, 16);
        if (register_is_free(g, reg) && (stack_pointer || reg != REG_RSP)) {
            g->program->registers[reg].kind = (uint8_t)kind;
            return;
        }
    }
}

static void assign_registers(struct generator *g)
{
    unsigned anchors = 1 + rng_below(g->rng, 3), indices = rng_below(g->rng, 3);

    memset(g->program->registers, 0, sizeof(g->program->registers));
    g->has_stack = rng_chance(g->rng, 70);
    if (g->has_stack) {
        g->program->registers[REG_RSP].kind = REGISTER_STACK;
        if (rng_chance(g->rng, 30))
            g->program->registers[REG_RBP].kind = REGISTER_FRAME;
    }
    for (unsigned i = 0; i < anchors; i++)
        assign(g, REGISTER_ANCHOR, true);
    for (unsigned i = 0; i < indices; i++)
        assign(g, REGISTER_INDEX, false);
    if (rng_chance(g->rng, 30))
        assign(g, REGISTER_ANCHOR32, true);
}

/* In how far it is integer code, vector code ... */
static void pick_weights(struct generator *g)
{
    static const unsigned weights[][ROW_SORTS] = {
        /* integer, vector, x87, MMX, faulting */
        { 100, 4, 2, 1, 0 }, { 100, 30, 8, 3, 0 }, { 50, 100, 5, 5, 0 }, { 60, 30, 60, 20, 0 }, { 100, 10, 3, 1, 1 },
    };
    unsigned kind = rng_below(g->rng, 10);
    memcpy(g->weights, weights[kind < 4 ? 0 : kind < 7 ? 1 : kind < 8 ? 2 : kind < 9 ? 3 : 4], sizeof(g->weights));
}

static void pick_start(struct program *program, struct rng *rng)
{
    unsigned kind = rng_below(rng, 10);

    program->start = kind < 5   ? 0x180 + rng_below(rng, 0x600)
                     : kind < 9 ? (1 + rng_below(rng, 2)) * PAGE_SIZE - rng_below(rng, 300) /* across pages */
                                : 0x800 + rng_below(rng, 0x1800);
}

/* An instruction that defines all arithmetic flags and changes nothing else. */
static struct item definer(struct generator *g)
{
    struct program *program = g->program;
    unsigned count = program->count;
    struct item item;

    if (rng_chance(g->rng, 60))
        item = *add_reg_reg(g, 0x39, 8, rng_below(g->rng, 16), rng_below(g->rng, 16)); /* cmp */
    else                                                                               /* cmp; add or sub of 0 */
        item = *add_reg_imm(g,
                            rng_chance(g->rng, 50)   ? 7
                            : rng_chance(g->rng, 50) ? 0
                                                     : 5,
                            8, rng_below(g->rng, 16), 0);
    program->count = count;
    return item;
}

static bool define_flags(struct generator *g)
{
    unsigned where;

    while (!program_check_flags(g->program, &where)) {
        struct item item = definer(g);
        if (!program_insert(g->program, where, &item))
            return false;
    }
    return true;
}

/* Moves all of it so that one instruction lies across a page's end: preferably one that is going to be changed. */
static void straddle(struct program *program, struct rng *rng)
{
    unsigned chosen = rng_below(rng, program->count);

    for (unsigned i = 0; i < program->count; i++) {
        const struct item *item = &program->items[(chosen + i) % program->count];
        if (item->group && item->fix == FIX_RELATIVE && item->target >= 0 && !item->entry) {
            chosen = (unsigned)item->target;
            break;
        }
    }
    const struct item *item = &program->items[chosen];
    if (item->length < 2)
        return;
    uint32_t split = item->offset + 1 + rng_below(rng, item->length - 1u);
    program->start += (uint32_t)PAGE_SIZE - split % PAGE_SIZE;
    if (program->start > 3 * PAGE_SIZE)
        program->start -= PAGE_SIZE;
}

bool generate_program(struct program *program, uint64_t number, const struct row_choice *choice)
{
    struct rng rng = { number };
    struct generator g = { .rng = &rng, .program = program, .choice = choice, .last_anchor = -1 };
    unsigned budget = 2 + rng_below(&rng, rng_chance(&rng, 50) ? 20 : MAX_INSTRUCTIONS - 1);
    uint8_t code[STRESS_CODE_SIZE];

    program->count = 0;
    program->moves_strings = false;
    pick_start(program, &rng);
    assign_registers(&g);
    pick_weights(&g);
    add_block(&g, budget, 0);
    if (rng_chance(&rng, 4))
        add_wild_jump(&g);
    ADD(&g, STRESS_FILLING)->flow = FLOW_STOP;
    add_subroutines(&g);
    ADD(&g, STRESS_FILLING)->flow = FLOW_STOP;
    if (g.sink.length) /* there was too much of it: targets may be missing */
        return false;
    if (!define_flags(&g) || !program_assemble(program, code))
        return false;
    if (!rng_chance(&rng, 30))
        return true;
    straddle(program, &rng);
    return program_assemble(program, code);
}
