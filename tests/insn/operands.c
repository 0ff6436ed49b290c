/* Where operands lie: register values such that addresses fall into the data pages, at their edges or, now and then,
 * outside; counts, divisors, string lengths and branch targets that reach the interesting cases.
 *
 * No address is left to chance: the child has other memory than these pages (a sanitizer's shadow is a large part
 * of its address space), which must not be hit. */
#include "cpu/decode/insn.h"
#include "tests/insn/insn_test.h"

#include <string.h>

struct placer {
    struct insn_case *test;
    struct rng *rng;
    struct insn *insn;
    uint32_t fixed; /* GPRs whose values are taken */
    uint64_t next_ip;
};

/* ---- Memory ---- */

void memory_pattern(uint8_t *data)
{
    struct rng rng = { 0x6d656d6f7279 };
    for (unsigned i = 0; i < DATA_SIZE; i += 8)
        memcpy(data + i, &(uint64_t){ rng_next(&rng) }, 8);
}

void memory_patch_apply(const struct insn_case *test, uint8_t *data)
{
    for (unsigned i = 0; i < PATCH_MAX; i++)
        memcpy(data + test->patch[i].offset, test->patch[i].bytes, test->patch[i].size);
}

/* Only the writable part can change. */
void memory_find_change(const struct insn_case *test, const uint8_t *pattern, const uint8_t *data,
                        struct insn_result *result)
{
    uint8_t before[DATA_WRITABLE];
    uint32_t first = 0, last = DATA_WRITABLE;

    memcpy(before, pattern, sizeof(before));
    memory_patch_apply(test, before);
    result->change_first = result->change_size = 0;
    if (!memcmp(before, data, sizeof(before)))
        return;
    while (before[first] == data[first])
        first++;
    while (before[last - 1] == data[last - 1])
        last--;
    result->change_first = first;
    result->change_size = last - first;
    memcpy(result->change, data + first, MIN(last - first, CHANGE_MAX));
}

static void patch_memory(struct placer *p, unsigned n, uint64_t address, unsigned size)
{
    struct memory_patch *patch = &p->test->patch[n];
    uint64_t offset = address - DATA_BASE;

    patch->size = 0;
    if (offset >= DATA_WRITABLE)
        return;
    patch->offset = (uint32_t)offset;
    patch->size = (uint32_t)MIN(MIN(size, PATCH_SIZE), DATA_WRITABLE - offset);
    fill_lanes(p->rng, patch->bytes, patch->size, p->test->row->mnemonic);
}

/* An address for an operand of `size` bytes. */
static uint64_t pick_address(struct placer *p, unsigned size)
{
    unsigned kind = rng_below(p->rng, 100);
    unsigned room = size ? size : 1;

    if (kind < 55) /* aligned to its size or more */
        return DATA_BASE + 0x800 + rng_below(p->rng, 64) * 64;
    if (kind < 72)
        return DATA_BASE + 0x200 + rng_below(p->rng, 0x1b00);
    if (kind < 82) /* across the two pages */
        return DATA_BASE + PAGE_SIZE - rng_below(p->rng, room + 1);
    if (kind < 85) /* the end of what may be written */
        return DATA_BASE + DATA_WRITABLE - rng_below(p->rng, room + 1);
    if (kind < 88)
        return DATA_BASE + DATA_WRITABLE + rng_below(p->rng, 64) * 16;
    if (kind < 92) /* the end of what may be read */
        return DATA_BASE + DATA_SIZE - rng_below(p->rng, room + 1);
    if (kind < 95) /* the beginning */
        return DATA_BASE - rng_below(p->rng, room + 1);
    if (kind < 97)
        return DATA_BASE + DATA_SIZE + rng_below(p->rng, 4000);
    if (kind < 98)
        return rng_below(p->rng, 4096);
    if (kind < 99) /* the edge of the canonical range (Linux keeps its last page free), and what is not canonical */
        return 0x7fffffffffffull + 1 - rng_below(p->rng, MIN(room, 1024u) + 1);
    return 0x8000000000000000ull >> rng_below(p->rng, 16) | (DATA_BASE + 0x800);
}

static void set_gpr(struct placer *p, unsigned reg, uint64_t value)
{
    p->test->state.gpr[reg] = value;
    p->fixed |= 1u << reg;
}

static bool gpr_free(const struct placer *p, unsigned reg)
{
    return !(p->fixed >> reg & 1);
}

/* Rewrites the displacement; the instruction keeps its meaning but for that. */
static void set_displacement(struct placer *p, int64_t value)
{
    struct insn_case *test = p->test;
    for (unsigned i = 0; i < test->disp_size; i++)
        test->bytes[test->disp_offset + i] = (uint8_t)((uint64_t)value >> (8 * i));
    insn_decode(test->bytes, INSN_MAX_LENGTH, CODE64, p->insn);
}

static uint64_t segment_base(const struct placer *p)
{
    unsigned segment = p->insn->segment_prefix;
    return segment == SEG_FS + 1 ? FS_BASE : segment == SEG_GS + 1 ? GS_BASE : 0;
}

static void set_address_register(struct placer *p, unsigned reg, uint64_t value)
{
    if (p->insn->address_size == 4) /* what is above does not count */
        value = (uint32_t)value | (rng_chance(p->rng, 50) ? rng_next(p->rng) << 32 : 0);
    set_gpr(p, reg, value);
}

static void place_vsib(struct placer *p)
{
    struct machine_state *state = &p->test->state;
    bool wide = false;

    for (size_t i = 0; i < ARRAY_SIZE(p->insn->row->operands); i++)
        wide |= p->insn->row->operands[i].type == OT_MVq;
    for (unsigned i = 0; i < (wide ? 4 : 8); i++) {
        int64_t index = (int64_t)rng_below(p->rng, 200) - 100;
        if (rng_chance(p->rng, 2))
            index = wide ? (int64_t)(1ull << 60 | rng_next(p->rng)) : 0x01000000;
        memcpy(state->ymm[p->insn->mem.index & 15] + i * (wide ? 8 : 4), &index, wide ? 8 : 4);
    }
    if (p->insn->mem.base != REG_NONE)
        set_address_register(p, p->insn->mem.base, pick_address(p, 4) - (uint64_t)p->insn->mem.disp - segment_base(p));
    else
        set_displacement(p, (int64_t)(DATA_BASE + 0x1000 - segment_base(p)));
}

/* Makes the ModRM (or moffs) operand lie at a chosen address, as nearly as the form allows. */
static void place_memory(struct placer *p, unsigned size)
{
    struct insn *insn = p->insn;
    uint64_t linear = pick_address(p, size), want = linear - segment_base(p);
    uint64_t disp = (uint64_t)insn->mem.disp;
    unsigned base = insn->mem.base, index = insn->mem.index;

    if (insn->mem.vsib) {
        place_vsib(p);
        return;
    }
    if (insn->address_size == 4 && size >= 28 && (want & UINT32_MAX) + size > UINT32_MAX)
        want = DATA_BASE + 0x1000 - segment_base(p); /* parts of images wrap around at 4 GiB, ours do not */
    if (base == REG_RIP) {
        set_displacement(p, (int64_t)(want - p->next_ip));
    } else if (base == REG_NONE && index == REG_NONE) {
        set_displacement(p, (int64_t)want);
    } else if (index == REG_NONE) {
        set_address_register(p, base, want - disp);
    } else if (base == index) {
        set_address_register(p, base, (want - disp) / (1 + (1ull << insn->mem.scale)));
    } else if (base == REG_NONE) {
        uint64_t value = rng_below(p->rng, 64);
        set_address_register(p, index, value);
        set_displacement(p, (int64_t)(want - (value << insn->mem.scale)));
    } else {
        uint64_t value = rng_chance(p->rng, 80) ? rng_below(p->rng, 64) - 32ull : corner_integer(p->rng);
        set_address_register(p, index, value);
        set_address_register(p, base, want - disp - (value << insn->mem.scale));
    }
    /* What came out of it, for the contents. */
    uint64_t ea = (uint64_t)insn->mem.disp;
    if (base == REG_RIP)
        ea += p->next_ip;
    else if (base != REG_NONE)
        ea += p->test->state.gpr[base];
    if (index != REG_NONE)
        ea += p->test->state.gpr[index] << insn->mem.scale;
    if (insn->address_size == 4)
        ea = (uint32_t)ea;
    p->test->operand_address = ea + segment_base(p);
    patch_memory(p, 0, p->test->operand_address, MAX(size, 16u));
}

/* ---- Particular instructions ---- */

static bool row_has(const struct insn_row *row, enum operand_type first, enum operand_type last)
{
    for (size_t i = 0; i < ARRAY_SIZE(row->operands); i++)
        if (row->operands[i].type >= first && row->operands[i].type <= last)
            return true;
    return false;
}

static void place_strings(struct placer *p)
{
    const struct insn_row *row = p->insn->row;
    unsigned count = rng_chance(p->rng, 90) ? rng_below(p->rng, 12) : rng_below(p->rng, 40);
    bool down = rng_chance(p->rng, 40);

    if (down)
        p->test->state.rflags |= FLAG_DF;
    set_address_register(p, REG_RCX, count);
    if (row_has(row, OT_Xb, OT_Xz)) {
        uint64_t linear = pick_address(p, 8);
        set_address_register(p, REG_RSI, linear - segment_base(p));
        patch_memory(p, 0, down ? linear - 56 : linear, 64);
    }
    if (row_has(row, OT_Yb, OT_Yz)) {
        uint64_t linear = pick_address(p, 8);
        set_address_register(p, REG_RDI, linear);
        patch_memory(p, 1, down ? linear - 56 : linear, 64);
        if (rng_chance(p->rng, 50)) /* equal stretches, for the comparing ones */
            memcpy(p->test->patch[1].bytes, p->test->patch[0].bytes, p->test->patch[1].size);
        else if (rng_chance(p->rng, 50))
            memset(p->test->patch[1].bytes, (uint8_t)p->test->state.gpr[REG_RAX], p->test->patch[1].size);
    }
}

static void place_stack(struct placer *p)
{
    if (gpr_free(p, REG_RSP))
        set_gpr(p, REG_RSP,
                rng_chance(p->rng, 80) ? DATA_BASE + 0x1000 + rng_below(p->rng, 0x100) * 8 : pick_address(p, 8));
    if (gpr_free(p, REG_RBP))
        set_gpr(p, REG_RBP,
                rng_chance(p->rng, 80) ? DATA_BASE + 0x600 + rng_below(p->rng, 0x100) * 8 : pick_address(p, 8));
}

/* An instruction pointer to go to: our filling, another page, nowhere. */
static uint64_t pick_target(struct placer *p)
{
    unsigned kind = rng_below(p->rng, 20);
    if (kind == 0)
        return DATA_BASE + rng_below(p->rng, 0x2000);
    if (kind == 1)
        return CODE_BASE + PAGE_SIZE + rng_below(p->rng, 100);
    if (kind == 2)
        return corner_integer(p->rng) | 0x800000000000ull;
    return CODE_BASE + 3000 + rng_below(p->rng, 1000);
}

static void place_return(struct placer *p)
{
    uint64_t target = pick_target(p), rsp = p->test->state.gpr[REG_RSP];
    patch_memory(p, 1, rsp, 8);
    memcpy(p->test->patch[1].bytes, &target, MIN(p->test->patch[1].size, 8u));
}

static void place_relative(struct placer *p)
{
    struct insn_case *test = p->test;
    unsigned size = row_has(p->insn->row, OT_Jb, OT_Jb) ? 1 : 4;
    int64_t distance = rng_below(p->rng, 100); /* in front: filling */

    if (size == 4 && rng_chance(p->rng, 10)) /* pages that do not execute, or are not there */
        distance = (int64_t)((rng_chance(p->rng, 50) ? DATA_BASE : CODE_BASE + PAGE_SIZE) + rng_below(p->rng, 100) -
                             p->next_ip);
    else if (rng_chance(p->rng, 50))
        distance = -(int64_t)test->length - 1 - (int64_t)rng_below(p->rng, size == 1 ? 100 : 400);
    for (unsigned i = 0; i < size; i++)
        test->bytes[test->length - size + i] = (uint8_t)((uint64_t)distance >> (8 * i));
    insn_decode(test->bytes, INSN_MAX_LENGTH, CODE64, p->insn);
    if (gpr_free(p, REG_RCX) && rng_chance(p->rng, 60)) /* loop, jrcxz */
        set_gpr(p, REG_RCX, rng_below(p->rng, 3) | (rng_chance(p->rng, 20) ? 1ull << 32 : 0));
}

static void place_indirect(struct placer *p)
{
    uint64_t target = pick_target(p);
    if (p->insn->operands[0].kind == OPERAND_GPR) {
        if (gpr_free(p, p->insn->operands[0].reg))
            set_gpr(p, p->insn->operands[0].reg, target);
    } else {
        memcpy(p->test->patch[0].bytes, &target, MIN(p->test->patch[0].size, 8u));
    }
}

/* A dividend whose quotient fits, most of the time: quotient * divisor + remainder. */
static void place_division(struct placer *p)
{
    const struct operand *o = &p->insn->operands[0];
    unsigned size = o->size;
    struct machine_state *state = &p->test->state;
    __int128 divisor = 0;
    uint64_t raw = 0;
    bool sign = p->insn->row->handler == HANDLER_idiv;

    if (!gpr_free(p, REG_RAX) || !gpr_free(p, REG_RDX) || rng_chance(p->rng, 25))
        return;
    if (o->kind == OPERAND_MEM)
        memcpy(&raw, p->test->patch[0].bytes, MIN(size, p->test->patch[0].size));
    else
        raw = state->gpr[o->reg] >> (o->kind == OPERAND_GPR_HIGH ? 8 : 0);
    unsigned unused = 64 - size * 8;
    divisor = sign ? (__int128)((int64_t)(raw << unused) >> unused) : (__int128)(raw << unused >> unused);
    uint64_t q = corner_integer(p->rng), r = corner_integer(p->rng);
    __int128 quotient = sign ? (__int128)((int64_t)(q << unused) >> unused) : (__int128)(q << unused >> unused);
    unsigned __int128 dividend = (unsigned __int128)quotient * (unsigned __int128)divisor;
    if (divisor)
        dividend += r % (uint64_t)(divisor < 0 ? -divisor : divisor);
    if (size == 1) {
        state->gpr[REG_RAX] = (state->gpr[REG_RAX] & ~0xffffull) | (uint16_t)dividend;
    } else {
        uint64_t mask = ~0ull >> unused;
        state->gpr[REG_RAX] = (state->gpr[REG_RAX] & ~mask) | ((uint64_t)dividend & mask);
        state->gpr[REG_RDX] = (state->gpr[REG_RDX] & ~mask) | ((uint64_t)(dividend >> size * 8) & mask);
    }
}

/* A bit string in memory: the register is a signed bit offset. */
static void place_bit_offset(struct placer *p)
{
    const struct operand *o = &p->insn->operands[1];
    if (p->insn->operands[0].kind != OPERAND_MEM || o->kind != OPERAND_GPR)
        return;
    if (!gpr_free(p, o->reg)) { /* also part of the address */
        if (p->insn->address_size == 4)
            p->test->state.gpr[o->reg] = (uint32_t)p->test->state.gpr[o->reg];
        return;
    }
    set_gpr(p, o->reg, (uint64_t)((int64_t)rng_below(p->rng, 4096) - 2048));
    if (rng_chance(p->rng, 10) && o->size != 8) /* the upper part does not count */
        p->test->state.gpr[o->reg] = (uint16_t)p->test->state.gpr[o->reg] | rng_next(p->rng) << (o->size * 8);
    else if (rng_chance(p->rng, 5))
        set_gpr(p, o->reg, 1ull << 62); /* not canonical */
}

/* Half of the comparisons succeed. */
static void place_compare_exchange(struct placer *p)
{
    struct machine_state *state = &p->test->state;
    const struct operand *o = &p->insn->operands[0];
    const uint8_t *memory = p->test->patch[0].bytes;
    unsigned handler = p->insn->row->handler;
    unsigned size = handler == HANDLER_cmpxchg8b ? 4 : handler == HANDLER_cmpxchg16b ? 8 : 0;

    if (rng_chance(p->rng, 50) || !gpr_free(p, REG_RAX))
        return;
    if (size) {
        memcpy(&state->gpr[REG_RAX], memory, size);
        if (gpr_free(p, REG_RDX))
            memcpy(&state->gpr[REG_RDX], memory + size, size);
    } else if (o->kind == OPERAND_MEM) {
        memcpy(&state->gpr[REG_RAX], memory, o->size);
    } else if (o->kind == OPERAND_GPR) {
        state->gpr[REG_RAX] = state->gpr[o->reg];
    }
}

static void place_count(struct placer *p)
{
    static const uint8_t counts[] = { 0, 1, 2, 7, 8, 9, 15, 16, 17, 24, 31, 32, 33, 47, 63, 64, 65, 0x80, 0xff };
    uint64_t count = rng_chance(p->rng, 60) ? counts[rng_below(p->rng, ARRAY_SIZE(counts))] : rng_below(p->rng, 80);
    if (gpr_free(p, REG_RCX))
        p->test->state.gpr[REG_RCX] = (p->test->state.gpr[REG_RCX] & ~0xffull) | count;
    for (unsigned i = 0; i < p->insn->operand_count; i++) {
        if (p->insn->operands[i].kind != OPERAND_IMM || p->insn->row->operands[i].type == OT_One)
            continue;
        p->test->bytes[p->test->length - 1] = (uint8_t)count;
        insn_decode(p->test->bytes, INSN_MAX_LENGTH, CODE64, p->insn);
    }
}

/* A frame that fits into the data pages. */
static void place_frame(struct placer *p)
{
    uint8_t *bytes = p->test->bytes + p->test->length - 3; /* size, then nesting level */
    if (rng_chance(p->rng, 10))
        return;
    bytes[0] = (uint8_t)rng_next(p->rng);
    bytes[1] = (uint8_t)rng_below(p->rng, 3);
    insn_decode(p->test->bytes, INSN_MAX_LENGTH, CODE64, p->insn);
}

/* MOVDIR64B: the other address is in a register, and wants alignment. */
static void place_destination(struct placer *p)
{
    const struct operand *o = &p->insn->operands[0];
    uint64_t address = rng_chance(p->rng, 90) ? DATA_BASE + 64 * rng_below(p->rng, 0x80) : pick_address(p, 64);
    if (o->kind == OPERAND_GPR && gpr_free(p, o->reg))
        set_address_register(p, o->reg, address);
}

/* What POPF may load: not the trap flag, it would trap in the child's own code. */
static void place_flags(struct placer *p)
{
    uint32_t flags = (uint32_t)rng_next(p->rng) & ~FLAG_TF;
    uint64_t *rsp = &p->test->state.gpr[REG_RSP];
    if (*rsp - DATA_BASE > DATA_WRITABLE - 8 && *rsp - DATA_BASE < DATA_SIZE) /* what is there may have TF set */
        *rsp = DATA_BASE + DATA_SIZE;
    patch_memory(p, 1, p->test->state.gpr[REG_RSP], 8);
    memcpy(p->test->patch[1].bytes, &flags, MIN(p->test->patch[1].size, 4u));
}

/* Operands without a size in the row. */
static unsigned image_size(unsigned handler)
{
    switch (handler) {
    case HANDLER_fxsave:
    case HANDLER_fxrstor:
        return 512;
    case HANDLER_fnsave:
    case HANDLER_frstor:
        return 108;
    case HANDLER_fnstenv:
    case HANDLER_fldenv:
        return 28;
    default:
        return 1;
    }
}

/* MXCSR and FXSAVE images whose reserved bits are clear, most of the time. */
static void place_images(struct placer *p)
{
    struct memory_patch *patch = &p->test->patch[0];
    unsigned handler = p->insn->row->handler;
    struct fx_image image;

    if (rng_chance(p->rng, 10))
        return;
    generate_mxcsr(p->rng, &image);
    if (handler == HANDLER_ldmxcsr)
        memcpy(patch->bytes, &image.mxcsr, MIN(patch->size, 4u));
    if (handler != HANDLER_fxrstor || patch->size < 32)
        return;
    generate_x87(p->rng, &image);
    memcpy(patch->bytes, &image, 8);
    memcpy(patch->bytes + 24, &image.mxcsr, 4);
}

static void place_special(struct placer *p)
{
    const struct insn_row *row = p->insn->row;

    switch (row->handler) {
    case HANDLER_div:
    case HANDLER_idiv:
        place_division(p);
        break;
    case HANDLER_bt:
    case HANDLER_bts:
    case HANDLER_btr:
    case HANDLER_btc:
        place_bit_offset(p);
        break;
    case HANDLER_cmpxchg:
    case HANDLER_cmpxchg8b:
    case HANDLER_cmpxchg16b:
        place_compare_exchange(p);
        break;
    case HANDLER_rol:
    case HANDLER_ror:
    case HANDLER_rcl:
    case HANDLER_rcr:
    case HANDLER_shl:
    case HANDLER_shr:
    case HANDLER_sar:
    case HANDLER_shld:
    case HANDLER_shrd:
        place_count(p);
        break;
    case HANDLER_jmp_ind:
    case HANDLER_call_ind:
        place_indirect(p);
        break;
    case HANDLER_ret:
    case HANDLER_ret_imm:
        place_return(p);
        break;
    case HANDLER_enter:
        place_frame(p);
        break;
    case HANDLER_movdir64b:
        place_destination(p);
        break;
    case HANDLER_popf:
        place_flags(p);
        break;
    case HANDLER_ldmxcsr:
    case HANDLER_fxrstor:
        place_images(p);
        break;
    default:
        break;
    }
}

/* ---- All of it ---- */

static void fill_state(struct placer *p)
{
    struct machine_state *state = &p->test->state;
    uint64_t r = rng_next(p->rng);

    for (unsigned i = 0; i < 16; i++) {
        state->gpr[i] = corner_integer(p->rng);
        if (rng_chance(p->rng, 40))
            fill_lanes(p->rng, state->ymm[i], 32, p->test->row->mnemonic);
        else {
            fill_lanes(p->rng, state->ymm[i], 16, p->test->row->mnemonic);
            fill_lanes(p->rng, state->ymm[i] + 16, 16, p->test->row->mnemonic);
        }
        if (!native_has_avx())
            memset(state->ymm[i] + 16, 0, 16);
    }
    memset(&state->fx, 0, sizeof(state->fx));
    generate_x87(p->rng, &state->fx);
    generate_mxcsr(p->rng, &state->fx);
    state->rflags = 2 | FLAG_IF | (r & FLAGS_ARITH);
    if (rng_chance(p->rng, 5))
        state->rflags |= FLAG_DF;
    if (rng_chance(p->rng, 6)) /* CR0.AM is set, here and by Linux: misaligned accesses raise #AC */
        state->rflags |= FLAG_AC;
    state->rip = CODE_BASE + p->test->code_offset;
    state->fs_base = FS_BASE;
    state->gs_base = GS_BASE;
}

void generate_state(struct insn_case *test, struct rng *rng, struct insn *insn)
{
    struct placer p = { .test = test, .rng = rng, .insn = insn };
    p.next_ip = CODE_BASE + test->code_offset + test->length;
    test->patch[0].size = test->patch[1].size = 0;
    test->operand_address = 0;
    fill_state(&p);
    if (!test->decoded)
        return;
    if (row_has(insn->row, OT_Xb, OT_Yz))
        place_strings(&p);
    for (unsigned i = 0; i < insn->operand_count; i++) {
        unsigned type = insn->row->operands[i].type;
        if (insn->operands[i].kind != OPERAND_MEM || (type >= OT_Xb && type <= OT_Yz))
            continue;
        if (type == OT_BXAL || type == OT_DIdq || type == OT_DIq || type == OT_AXm) {
            uint64_t linear = pick_address(&p, 16);
            unsigned reg = type == OT_BXAL ? REG_RBX : type == OT_AXm ? REG_RAX : REG_RDI;
            set_address_register(&p, reg, linear - segment_base(&p));
            patch_memory(&p, 0, linear, 64);
        } else {
            place_memory(&p, insn->operands[i].size ? insn->operands[i].size : image_size(insn->row->handler));
        }
        break;
    }
    if (insn->row->handler >= HANDLER_push && insn->row->handler <= HANDLER_ret_far_imm) /* stack and control flow */
        place_stack(&p);
    if (row_has(insn->row, OT_Jb, OT_Jz))
        place_relative(&p);
    place_special(&p);
}
