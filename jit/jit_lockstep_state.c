/* The CPU's state for the lockstep engine: kept, put back, compared.
 *
 * Excepted from comparison: flags that the table calls undefined, and the last x87 instruction's address, operand and
 * opcode (FIP, FDP, FOP), which are the host's own business while translated code runs (docs/design.md, section 9).
 *
 * Vector state is parked. vCPU thread only. */
#include "jit/jit_lockstep.h"

#include <string.h>

/* `events` and `quiet` belong to other threads too. */
#define SHARED_FIRST offsetof(struct cpu, events)
#define SHARED_END   offsetof(struct cpu, cpl)

void lockstep_state_save(const struct cpu *cpu, struct lockstep_state *state)
{
    memcpy(state->bytes, cpu, offsetof(struct cpu, mmu));
}

void lockstep_state_restore(struct cpu *cpu, const struct lockstep_state *state)
{
    uint8_t *to = (uint8_t *)cpu;

    memcpy(to, state->bytes, SHARED_FIRST);
    memcpy(to + SHARED_END, state->bytes + SHARED_END, offsetof(struct cpu, mmu) - SHARED_END);
}

static const struct cpu *as_cpu(const struct lockstep_state *state)
{
    return (const struct cpu *)(const void *)state->bytes;
}

static bool range_equal(const struct cpu *a, const struct cpu *b, size_t first, size_t end)
{
    return !memcmp((const uint8_t *)a + first, (const uint8_t *)b + first, end - first);
}

static bool segment_equal(const struct segment_register *a, const struct segment_register *b)
{
    return a->base == b->base && a->limit == b->limit && a->attributes == b->attributes && a->selector == b->selector &&
           a->flat == b->flat;
}

/* Member by member: padding may differ. */
static bool segments_equal(const struct cpu *a, const struct cpu *b)
{
    for (unsigned seg = 0; seg < SEG_COUNT; seg++)
        if (!segment_equal(&a->segs[seg], &b->segs[seg]))
            return false;
    return segment_equal(&a->ldtr, &b->ldtr) && segment_equal(&a->tr, &b->tr) && a->gdtr.base == b->gdtr.base &&
           a->gdtr.limit == b->gdtr.limit && a->idtr.base == b->idtr.base && a->idtr.limit == b->idtr.limit;
}

static bool x87_equal(const struct fxsave_area *a, const struct fxsave_area *b)
{
    if (a->fcw != b->fcw || a->fsw != b->fsw || a->ftw != b->ftw || a->mxcsr != b->mxcsr)
        return false;
    for (unsigned i = 0; i < 8; i++)
        if (memcmp(a->st[i], b->st[i], 10))
            return false;
    return true;
}

static bool system_equal(const struct cpu *a, const struct cpu *b)
{
    size_t mode = offsetof(struct cpu, cpl), segs = offsetof(struct cpu, segs), cr0 = offsetof(struct cpu, cr0);
    size_t fault = offsetof(struct cpu, fault);

    if (!range_equal(a, b, mode, segs) || !range_equal(a, b, cr0, offsetof(struct cpu, pkru)) || a->pkru != b->pkru ||
        !range_equal(a, b, offsetof(struct cpu, msrs), fault) || a->pending_debug != b->pending_debug)
        return false;
    return range_equal(a, b, segs, cr0) || segments_equal(a, b);
}

bool lockstep_state_equal(const struct lockstep_state *left, const struct lockstep_state *right, uint64_t undefined)
{
    const struct cpu *a = as_cpu(left), *b = as_cpu(right);

    return !memcmp(a->gpr, b->gpr, sizeof(a->gpr)) && !((a->rflags ^ b->rflags) & ~undefined) &&
           !memcmp(a->vector.vec, b->vector.vec, sizeof(a->vector.vec)) &&
           !memcmp(a->vector.mask, b->vector.mask, sizeof(a->vector.mask)) && x87_equal(&a->vector.fx, &b->vector.fx) &&
           system_equal(a, b);
}
