/* Registers at the start of each run, and the memory: anchors point into the data pages, mostly well inside, sometimes to
 * an edge, now and then to where an access faults. No state. */
#include "tests/stress/stress.h"

#include <string.h>

#include "cpu/decode/insn.h"

/* ---- Memory ---- */

static void fill_constants(uint8_t *page)
{
    struct rng rng = { 0x636f6e73 };

    for (unsigned i = 0; i < 16; i++) {
        uint32_t mxcsr = 0x1f80 | (i & 3) << 13 | (i & 4 ? 0x8000 : 0) | (i & 8 ? 0x40 : 0);
        uint16_t fcw = (uint16_t)(0x037f ^ (i & 3) << 10 ^ (i & 4 ? 0x100 : 0) ^ (i & 8 ? 0x200 : 0));
        memcpy(page + CONST_MXCSR + i * 4, &mxcsr, 4);
        memcpy(page + CONST_FCW + i * 2, &fcw, 2);
    }
    for (unsigned i = 0; i < 32; i++)
        memcpy(page + CONST_INDICES4 + i * 4, &(int32_t){ (int32_t)rng_below(&rng, 256) - 128 }, 4);
    for (unsigned i = 0; i < 16; i++)
        memcpy(page + CONST_INDICES8 + i * 8, &(int64_t){ (int64_t)rng_below(&rng, 256) - 128 }, 8);
    for (unsigned i = CONST_PATTERN; i < STRESS_CONST_SIZE; i += 32)
        fill_lanes(&rng, page + i, 32, NULL);
}

void stress_memory(uint32_t pattern, uint8_t *memory)
{
    struct rng rng = { 0x73747265737300 + pattern };

    for (unsigned i = STRESS_DATA_OFFSET; i < STRESS_CHANGEABLE; i += 32)
        fill_lanes(&rng, memory + i, 32, NULL);
    fill_constants(memory + STRESS_CONST_OFFSET);
}

/* ---- Registers ---- */

static uint64_t pick_anchor(const struct program *program, struct rng *rng)
{
    unsigned kind = rng_below(rng, 200);
    uint64_t edge = STRESS_DATA + (1 + rng_below(rng, 3)) * PAGE_SIZE;

    if (kind < 100)
        return STRESS_DATA + 0x800 + 64 * rng_below(rng, 0xc0);
    if (kind < 140)
        return STRESS_DATA + 0x800 + rng_below(rng, 0x3000);
    if (kind < 160)
        return edge + 16 * rng_below(rng, 9) - 64;
    if (kind < 175)
        return edge + rng_below(rng, 129) - 64;
    if (kind < 180 && !program->moves_strings)
        return STRESS_DATA_ALIAS + 0x400 + 16 * rng_below(rng, 0x180);
    if (kind < 184) /* read-only */
        return STRESS_DATA + STRESS_DATA_SIZE + 16 * rng_below(rng, 0x100);
    if (kind < 187)
        return STRESS_DATA + STRESS_DATA_SIZE + rng_below(rng, 129) - 64;
    if (kind < 189)
        return STRESS_DATA + rng_below(rng, 129) - 64;
    if (kind < 191)
        return STRESS_DATA + STRESS_DATA_SIZE + STRESS_CONST_SIZE + rng_below(rng, 129) - 64;
    if (kind < 197) /* a page with code: far enough from it */
        return STRESS_CODE + ((program->end + 0xcff) & ~0xffull) + 16 * rng_below(rng, 16);
    if (kind < 198)
        return rng_below(rng, 0x1000);
    if (kind < 199)
        return 0x7fffffffffffull + 1 - rng_below(rng, 256);
    return 0x8000000000000000ull >> rng_below(rng, 16) | (STRESS_DATA + 0x800);
}

static uint64_t pick_stack(struct rng *rng)
{
    unsigned kind = rng_below(rng, 100);

    if (kind < 80)
        return STRESS_STACK + 0x1400 + 16 * rng_below(rng, 0x100);
    if (kind < 92) /* at the edge of a page, aligned to 8 or not */
        return STRESS_STACK + 0x2000 + 8 * rng_below(rng, 12) - 32 + (rng_chance(rng, 25) ? rng_below(rng, 8) : 0);
    if (kind < 96)
        return STRESS_STACK + 0x1600 + rng_below(rng, 0x800);
    if (kind < 98) /* no room */
        return STRESS_STACK + 8 * rng_below(rng, 32);
    return STRESS_STACK + STRESS_STACK_SIZE - 8 * rng_below(rng, 32);
}

static uint64_t pick_value(const struct program *program, unsigned reg, struct rng *rng)
{
    switch (program->registers[reg].kind) {
    case REGISTER_ANCHOR:
        return pick_anchor(program, rng);
    case REGISTER_ANCHOR32:
        return (uint32_t)pick_anchor(program, rng) | (rng_chance(rng, 50) ? 1ull : rng_next(rng)) << 32;
    case REGISTER_INDEX:
        return (uint64_t)((int64_t)rng_below(rng, 128) - 64);
    case REGISTER_STACK:
    case REGISTER_FRAME:
        return pick_stack(rng);
    default:
        return corner_integer(rng);
    }
}

static void pick_vectors(struct machine_state *state, struct rng *rng)
{
    for (unsigned i = 0; i < 16; i++) {
        fill_lanes(rng, state->ymm[i], 32, NULL);
        if (!native_has_avx())
            memset(state->ymm[i] + 16, 0, 16);
    }
    generate_x87(rng, &state->fx);
    generate_mxcsr(rng, &state->fx);
    if (rng_chance(rng, 85)) /* no exception ends it */
        state->fx.mxcsr |= 0x1f80;
    if (rng_chance(rng, 85)) {
        state->fx.fcw |= 0x3f;
        state->fx.fsw &= 0x7f7f;
    }
}

static void pick_state(struct machine_state *state, const struct program *program, struct rng *rng)
{
    memset(state, 0, sizeof(*state));
    for (unsigned i = 0; i < 16; i++)
        state->gpr[i] = pick_value(program, i, rng);
    pick_vectors(state, rng);
    state->rflags = 2 | FLAG_IF | (rng_next(rng) & FLAGS_ARITH);
    if (rng_chance(rng, 4))
        state->rflags |= FLAG_DF;
    if (rng_chance(rng, 2))
        state->rflags |= FLAG_AC;
    state->rip = STRESS_CODE + program->start;
    state->fs_base = STRESS_FS_BASE;
    state->gs_base = STRESS_GS_BASE;
}

/* Where the access of some instruction through an anchor begins, from the anchor, and its size. */
static bool pick_access(const struct program *program, struct rng *rng, unsigned *reg, int64_t *disp, unsigned *size)
{
    unsigned first = rng_below(rng, program->count);

    for (unsigned i = 0; i < program->count; i++) {
        const struct item *item = &program->items[(first + i) % program->count];
        struct insn insn;
        if (insn_decode(item->bytes, item->length, CODE64, &insn) != DECODE_OK)
            continue;
        for (unsigned j = 0; j < insn.operand_count; j++) {
            if (insn.operands[j].kind != OPERAND_MEM || insn.mem.base >= 16 || insn.mem.index != REG_NONE ||
                program->registers[insn.mem.base].kind != REGISTER_ANCHOR || !insn.operands[j].size)
                continue;
            *reg = insn.mem.base;
            *disp = insn.mem.disp;
            *size = insn.operands[j].size;
            return true;
        }
    }
    return false;
}

/* The registers of the first run, but one anchor is such that an access comes to the very end of the page where it was,
 * or a byte or more beyond. What the first run has left behind is used again, almost. */
static bool aim_at_edge(struct machine_state *state, const struct machine_state *first, const struct program *program,
                        struct rng *rng)
{
    unsigned reg, size;
    int64_t disp;

    if (!pick_access(program, rng, &reg, &disp, &size))
        return false;
    *state = *first;
    uint64_t end = ((first->gpr[reg] + (uint64_t)disp) & ~(PAGE_SIZE - 1ull)) + PAGE_SIZE;
    unsigned beyond = rng_chance(rng, 60) ? rng_below(rng, 3) : rng_below(rng, size + 1);
    state->gpr[reg] = end - size + beyond - (uint64_t)disp;
    return true;
}

void generate_states(struct stress_case *test, const struct program *program, struct rng *rng)
{
    test->pattern = rng_below(rng, 4);
    test->runs = 1 + rng_below(rng, STRESS_RUNS);
    for (unsigned i = 0; i < test->runs; i++)
        if (!i || rng_chance(rng, 50) || !aim_at_edge(&test->state[i], &test->state[0], program, rng))
            pick_state(&test->state[i], program, rng);
}
