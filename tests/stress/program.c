/* A sequence as items: where each one comes to lie, which flags may be undefined before it, insertion and dropping.
 * See stress.h. No state. */
#include "tests/stress/stress.h"

#include <string.h>

#include "cpu/decode/row.h"

#define ROUNDS 8 /* of the layout: widening a branch moves what comes after it */

static unsigned next_live(const struct program *program, unsigned index)
{
    while (index < program->count && program->items[index].dropped)
        index++;
    return index;
}

/* ---- Layout ---- */

static uint32_t item_offset(const struct program *program, unsigned index)
{
    index = next_live(program, index);
    return index < program->count ? program->items[index].offset : program->end;
}

static uint64_t target_address(const struct program *program, const struct item *item)
{
    switch (item->target) {
    case TARGET_ADDRESS:
        return (uint64_t)item->addend;
    case TARGET_START:
        return STRESS_CODE + program->start + (uint64_t)item->addend;
    case TARGET_END:
        return STRESS_CODE + program->end + (uint64_t)item->addend;
    default:
        return STRESS_CODE + item_offset(program, (unsigned)item->target) + (uint64_t)item->addend;
    }
}

static void place_items(struct program *program)
{
    uint32_t offset = program->start;

    for (unsigned i = 0; i < program->count; i++) {
        struct item *item = &program->items[i];
        item->offset = offset;
        if (!item->dropped)
            offset += item->length;
    }
    program->end = offset;
}

/* jcc and jmp with 8 bits of distance get 32. The others (LOOP, JRCXZ) have no such form. */
static bool widen(struct item *item)
{
    uint8_t opcode = item->bytes[0];

    if (item->fix_offset != 1 || (opcode != 0xeb && (opcode & 0xf0) != 0x70))
        return false;
    if (opcode == 0xeb) {
        item->bytes[0] = 0xe9;
        item->fix_offset = 1;
    } else {
        item->bytes[0] = 0x0f;
        item->bytes[1] = 0x80 | (opcode & 15);
        item->fix_offset = 2;
    }
    item->fix_size = 4;
    item->length = (uint8_t)(item->fix_offset + 4);
    return true;
}

static int64_t fix_value(const struct program *program, const struct item *item)
{
    uint64_t target = target_address(program, item);
    return (int64_t)(item->fix == FIX_ABSOLUTE ? target : target - (STRESS_CODE + item->offset + item->length));
}

static bool fix_fits(const struct item *item, int64_t value)
{
    if (item->fix_size == 1)
        return value == (int8_t)value;
    return item->fix_size == 8 || value == (int32_t)value;
}

static bool place_all(struct program *program)
{
    for (unsigned round = 0; round < ROUNDS; round++) {
        bool changed = false;
        place_items(program);
        for (unsigned i = 0; i < program->count; i++) {
            struct item *item = &program->items[i];
            if (item->dropped || item->fix == FIX_NONE || fix_fits(item, fix_value(program, item)))
                continue;
            if (!widen(item))
                return false;
            changed = true;
        }
        if (!changed)
            return true;
    }
    return false;
}

bool program_assemble(struct program *program, uint8_t *code)
{
    memset(code, STRESS_FILLING, STRESS_CODE_SIZE);
    if (!place_all(program) || program->end > STRESS_CODE_SIZE)
        return false;
    for (unsigned i = 0; i < program->count; i++) {
        struct item *item = &program->items[i];
        if (item->dropped)
            continue;
        if (item->fix != FIX_NONE) {
            int64_t value = fix_value(program, item);
            memcpy(item->bytes + item->fix_offset, &value, item->fix_size);
        }
        memcpy(code + item->offset, item->bytes, item->length);
    }
    return true;
}

const struct item *program_find(const struct program *program, uint64_t address)
{
    for (unsigned i = 0; i < program->count; i++)
        if (!program->items[i].dropped && STRESS_CODE + program->items[i].offset == address)
            return &program->items[i];
    return NULL;
}

/* ---- Undefined flags: what may be undefined before an item is the union over all ways to it ---- */

static bool flow_to(struct program *program, unsigned index, uint32_t undefined)
{
    struct item *item;

    index = next_live(program, index);
    if (index >= program->count)
        return false;
    item = &program->items[index];
    if (!(undefined & ~item->undefined))
        return false;
    item->undefined |= undefined;
    return true;
}

/* A return may go to behind any call. */
static bool flow_behind_calls(struct program *program, uint32_t undefined)
{
    bool changed = false;

    for (unsigned i = 0; i < program->count; i++)
        if (!program->items[i].dropped && program->items[i].flow == FLOW_CALL)
            changed |= flow_to(program, i + 1, undefined);
    return changed;
}

static bool flow_out(struct program *program, unsigned index)
{
    const struct item *item = &program->items[index];
    uint32_t undefined = (item->undefined & ~item->flags_written) | item->flags_undefined;

    switch (item->flow) {
    case FLOW_NEXT:
        return flow_to(program, index + 1, undefined);
    case FLOW_BRANCH: {
        bool changed = flow_to(program, index + 1, undefined);
        return flow_to(program, (unsigned)item->flow_target, undefined) || changed;
    }
    case FLOW_JUMP:
    case FLOW_CALL:
        return flow_to(program, (unsigned)item->flow_target, undefined);
    case FLOW_RETURN:
        return flow_behind_calls(program, undefined);
    default:
        return false;
    }
}

bool program_check_flags(struct program *program, unsigned *where)
{
    bool changed;

    for (unsigned i = 0; i < program->count; i++)
        program->items[i].undefined = 0;
    do {
        changed = false;
        for (unsigned i = 0; i < program->count; i++)
            if (!program->items[i].dropped)
                changed |= flow_out(program, i);
    } while (changed);
    program->undefined_anywhere = 0;
    for (unsigned i = 0; i < program->count; i++) {
        const struct item *item = &program->items[i];
        if (item->dropped)
            continue;
        program->undefined_anywhere |= item->undefined | item->flags_undefined;
        if (item->undefined & item->flags_read) {
            *where = i;
            return false;
        }
    }
    return true;
}

/* ---- Changes ---- */

static void move_target(int16_t *target, unsigned before, bool redirect)
{
    if (*target > (int)before || (*target == (int)before && !redirect))
        ++*target;
}

bool program_insert(struct program *program, unsigned before, const struct item *item)
{
    if (program->count == STRESS_ITEMS)
        return false;
    memmove(&program->items[before + 1], &program->items[before], (program->count - before) * sizeof(*item));
    program->items[before] = *item;
    program->count++;
    for (unsigned i = 0; i < program->count; i++) {
        struct item *other = &program->items[i];
        if (i == before)
            continue;
        /* What a self-modifying store hits is the very item that was meant. */
        if (other->fix != FIX_NONE && other->target >= 0)
            move_target(&other->target, before, other->fix == FIX_BRANCH || other->entry);
        if (other->flow == FLOW_BRANCH || other->flow == FLOW_JUMP || other->flow == FLOW_CALL)
            move_target(&other->flow_target, before, true);
    }
    return true;
}
