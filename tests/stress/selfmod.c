/* Code that changes code: the next instruction, one further ahead, one behind (in a loop), through the alias; immediates,
 * opcodes, branch conditions; and code that is written back as it was. The changed instruction is one of the sequence's
 * own, and whatever it becomes keeps to the rules of stress.h. SDM Vol. 3A 8.1.3. No state. */
#include "cpu/decode/insn.h"
#include "tests/stress/stress.h"

#include <string.h>

/* What is changed: an item, and bytes of it. */
struct victim {
    int16_t item;
    uint8_t offset, size;
};

static int16_t index_of(const struct generator *g, const struct item *item)
{
    return item == &g->sink ? -1 : (int16_t)(item - g->program->items);
}

/* op r32, imm32: all of the immediate may become anything. */
static struct victim victim_immediate(struct generator *g)
{
    static const uint8_t digits[] = { 0, 1, 2, 3, 4, 5, 6, 7 };
    unsigned reg = pick_free(g);
    uint8_t bytes[7] = { (uint8_t)(0x40 | (reg >= 8 ? 1 : 0)) };
    uint32_t imm = (uint32_t)rng_next(g->rng);
    unsigned n = 1;

    if (rng_chance(g->rng, 50)) {
        bytes[n++] = (uint8_t)(0xb8 | (reg & 7)); /* mov */
    } else {
        bytes[n++] = 0x81;
        bytes[n++] = (uint8_t)(0xc0 | digits[rng_below(g->rng, sizeof(digits))] << 3 | (reg & 7));
    }
    memcpy(bytes + n, &imm, 4);
    struct item *item = add_bytes(g, bytes, n + 4);
    return (struct victim){ index_of(g, item), (uint8_t)n, 4 };
}

/* op r, r: the operation may become another. */
static struct victim victim_operation(struct generator *g, uint8_t *other)
{
    struct item *item = add_reg_reg(g, rng_below(g->rng, 8) << 3 | 1, 8, pick_free(g), rng_below(g->rng, 16));

    *other = (uint8_t)(rng_below(g->rng, 8) << 3 | 1);
    item->flags_read |= FLAG_CF; /* of any of them */
    item->flags_written &= ~FLAG_AF;
    item->flags_undefined |= FLAG_AF;
    return (struct victim){ index_of(g, item), 1, 1 };
}

/* clc, stc, cmc, cld, nop: one byte becomes another. */
static struct victim victim_byte(struct generator *g, uint8_t *other)
{
    static const uint8_t bytes[] = { 0xf8, 0xf9, 0xf5, 0xfc, 0x90 };
    struct item *item = ADD(g, bytes[rng_below(g->rng, sizeof(bytes))]);

    *other = bytes[rng_below(g->rng, sizeof(bytes))];
    item->flags_read |= FLAG_CF;
    item->flags_written &= ~FLAG_CF;
    return (struct victim){ index_of(g, item), 0, 1 };
}

/* jcc over an instruction: the condition is inverted. */
static struct victim victim_branch(struct generator *g, uint8_t *other)
{
    uint8_t condition = (uint8_t)rng_below(g->rng, 16);
    struct item *item = ADD(g, 0x0f, (uint8_t)(0x80 | condition), 0, 0, 0, 0);
    int16_t index = index_of(g, item);

    *other = 0x80 | (condition ^ 1);
    add_straight(g, 1);
    if (index >= 0) {
        item->fix = FIX_BRANCH;
        item->fix_offset = 2;
        item->fix_size = 4;
        item->flow = FLOW_BRANCH;
        item->target = item->flow_target = (int16_t)g->program->count;
    }
    return (struct victim){ index, 1, 1 };
}

/* mov [rip + x], reg or imm; or an operation on what is there. */
static struct item *add_store(struct generator *g, unsigned size, uint64_t value, bool anything)
{
    uint8_t bytes[16];
    unsigned n = 0, reg = rng_below(g->rng, 16), rex = 0x40;
    bool byte = size == 1, operation = anything && rng_chance(g->rng, 35);

    if (anything && rng_chance(g->rng, 60)) { /* from a register, whatever it holds */
        rex |= reg >= 8 ? 4 : 0;
        bytes[n++] = (uint8_t)rex;
        bytes[n++] = (uint8_t)((operation ? rng_below(g->rng, 7) << 3 : 0x88) | !byte);
        bytes[n++] = (uint8_t)(5 | (reg & 7) << 3);
    } else {
        bytes[n++] = byte ? 0xc6 : 0xc7;
        bytes[n++] = 5;
    }
    unsigned field = n;
    memset(bytes + n, 0, 4);
    n += 4;
    if (bytes[0] == 0xc6 || bytes[0] == 0xc7) {
        memcpy(bytes + n, &value, size);
        n += size;
    }
    struct item *item = add_bytes(g, bytes, n);
    item->fix = FIX_RELATIVE;
    item->fix_offset = (uint8_t)field;
    item->fix_size = 4;
    return item;
}

static bool has_serialize(const struct generator *g)
{
    for (unsigned i = 0; i < g->choice->count[ROWS_INTEGER]; i++)
        if (g->choice->rows[ROWS_INTEGER][i]->handler == HANDLER_serialize)
            return true;
    return false;
}

/* The store first, its victim after it, with nothing or a little in between; or the other way round, in loops. */
static void add_store_and_victim(struct generator *g)
{
    unsigned kind = rng_below(g->rng, 4);
    bool behind = g->loop_depth && rng_chance(g->rng, 40);
    bool alias = rng_chance(g->rng, 15) && has_serialize(g);
    uint8_t other = 0;
    struct victim victim = { .item = -1 };
    int16_t store = -1;
    uint16_t group = (uint16_t)++g->groups;

    if (g->program->count + 8 > STRESS_ITEMS)
        return;
    for (unsigned half = 0; half < 2; half++) {
        if ((half == 0) != behind) {
            store = index_of(g, add_store(g, kind == 0 ? (rng_chance(g->rng, 60) ? 4 : 1) : 1, rng_next(g->rng),
                                          kind == 0));
            if (alias)                                   /* what has been fetched is only compared by linear address */
                ADD(g, 0x0f, 0x01, 0xe8)->group = group; /* serialize */
        } else {
            victim = kind == 0   ? victim_immediate(g)
                     : kind == 1 ? victim_operation(g, &other)
                     : kind == 2 ? victim_byte(g, &other)
                                 : victim_branch(g, &other);
        }
        if (half == 0 && rng_chance(g->rng, 50))
            add_straight(g, 1 + rng_below(g->rng, 3));
    }
    if (store < 0 || victim.item < 0)
        return;
    struct item *item = &g->program->items[store];
    item->target = victim.item;
    item->addend = victim.offset;
    if (kind == 0 && item->bytes[0] == 0xc6) /* any byte of the four */
        item->addend += rng_below(g->rng, 4);
    if (kind != 0)
        item->bytes[item->length - 1] = other;
    if (alias)
        item->addend += (int64_t)(STRESS_CODE_ALIAS - STRESS_CODE);
    item->group = group;
    g->program->items[victim.item].group = group;
}

/* xor dword [rip + x], imm: only the last of four bytes changes; the others may belong to what comes before it. */
static void add_wide_store(struct generator *g)
{
    uint16_t group = (uint16_t)++g->groups;
    struct item *store = ADD(g, 0x81, 0x35, 0, 0, 0, 0, 0, 0, 0, (uint8_t)(1 + rng_below(g->rng, 255)));
    int16_t index = index_of(g, store);

    if (rng_chance(g->rng, 60))
        add_straight(g, 1 + rng_below(g->rng, 3));
    struct victim victim = victim_immediate(g);
    if (index < 0 || victim.item < 0)
        return;
    store = &g->program->items[index];
    store->fix = FIX_RELATIVE;
    store->fix_offset = 2;
    store->fix_size = 4;
    store->target = victim.item;
    store->addend = victim.offset - 3 + (int64_t)rng_below(g->rng, 2);
    store->group = g->program->items[victim.item].group = group;
}

/* Some bytes of code are read and written back. */
static void add_rewrite(struct generator *g)
{
    static const uint8_t sizes[] = { 2, 4, 8 };
    unsigned size = sizes[rng_below(g->rng, 3)], reg = pick_free(g);
    int16_t first = (int16_t)g->program->count;
    int16_t target = (int16_t)(first > 4 ? first - (int)rng_below(g->rng, 4) : first);
    int64_t addend = (int64_t)rng_below(g->rng, 12) - 4;
    uint16_t group = (uint16_t)++g->groups;

    if (!register_is_free(g, reg) || g->program->count + 3 > STRESS_ITEMS)
        return;
    add_rip(g, 0, 0x8b, size, reg, target, addend)->group = group;
    add_rip(g, 0, 0x89, size, reg, target, addend)->group = group;
}

void add_selfmod(struct generator *g)
{
    unsigned kind = rng_below(g->rng, 10);

    if (kind < 2)
        add_rewrite(g);
    else if (kind < 4)
        add_wide_store(g);
    else
        add_store_and_victim(g);
}
