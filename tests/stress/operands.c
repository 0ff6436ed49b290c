/* Memory operands: through anchors, beside RIP, absolute, in FS and GS, with 32-bit addresses; where code lies.
 * Nothing outside the test's pages and the gaps around them: see stress.h. No state. */
#include "cpu/decode/insn.h"
#include "tests/stress/stress.h"

#define NEAR 0x300 /* how far from the sequence its own page is used for data */

struct wanted {
    struct generator *g;
    struct insn *insn;
    unsigned size, alignment;
    bool writes;
    struct place *place;
};

static int32_t aligned(const struct wanted *w, int32_t value)
{
    return value & -(int32_t)w->alignment;
}

static int32_t between(struct generator *g, int32_t first, int32_t last)
{
    return first + (int32_t)rng_below(g->rng, (unsigned)(last - first + 1));
}

/* ---- Addresses ---- */

static uint64_t pick_address(const struct wanted *w)
{
    struct generator *g = w->g;
    unsigned kind = rng_below(g->rng, 100);
    uint64_t edge = STRESS_DATA + (1 + rng_below(g->rng, 3)) * PAGE_SIZE;

    if (!w->writes && kind < 10)
        return STRESS_DATA + STRESS_DATA_SIZE + CONST_PATTERN + (uint64_t)aligned(w, between(g, 0, 0xc00));
    if (kind < 76)
        return STRESS_DATA + 0x100 + (uint64_t)aligned(w, between(g, 0, STRESS_DATA_SIZE - 0x200));
    if (kind < 90) /* across two pages, or just not */
        return edge - (uint64_t)between(g, 0, (int32_t)w->size);
    if (kind < 94)
        return STRESS_DATA_ALIAS + (uint64_t)aligned(w, between(g, 0, 0x1fc0));
    if (kind < 96)
        return STRESS_DATA + STRESS_DATA_SIZE - (uint64_t)between(g, 0, (int32_t)w->size);
    if (kind < 97) /* the end of what may be read; the beginning; nothing there */
        return STRESS_DATA + STRESS_DATA_SIZE + STRESS_CONST_SIZE - (uint64_t)between(g, 0, (int32_t)w->size);
    if (kind < 98)
        return STRESS_DATA - (uint64_t)between(g, 0, (int32_t)w->size);
    return STRESS_STACK + STRESS_STACK_SIZE - 0x100 + (uint64_t)aligned(w, between(g, 0, 0xc0));
}

/* ---- Forms ---- */

static void set_memory(const struct wanted *w, unsigned base, unsigned index, unsigned scale, int64_t disp)
{
    struct insn *insn = w->insn;

    insn->mem.base = (uint8_t)base;
    insn->mem.index = (uint8_t)index;
    insn->mem.scale = (uint8_t)scale;
    insn->mem.disp = disp;
    insn->mem.disp_bytes = rng_chance(w->g->rng, 8) && base != REG_NONE && base != REG_RIP ? 4 : 0;
    insn->mem.segment = SEG_DS;
    insn->segment_prefix = 0;
    insn->address_size = 8;
    insn->prefix_67 = false;
}

static void use_address32(const struct wanted *w)
{
    w->insn->address_size = 4;
    w->insn->prefix_67 = true;
}

static int32_t pick_displacement(const struct wanted *w, unsigned base)
{
    struct generator *g = w->g;
    unsigned kind = g->program->registers[base].kind;

    if (kind == REGISTER_STACK || kind == REGISTER_FRAME) { /* where no return address is */
        if (w->writes)
            return aligned(w, rng_chance(g->rng, 70) ? between(g, -0x180, -0x60) : between(g, 0x140, 0x1c0));
        return aligned(w, between(g, -0x80, 0x180));
    }
    if ((int)base == g->last_anchor && (g->wish == WISH_GROUP || rng_chance(g->rng, 50)))
        return aligned(w, g->last_disp + between(g, -48, 48));
    if (rng_chance(g->rng, 15))
        return 0;
    return aligned(w, rng_chance(g->rng, 65) ? between(g, -128, 127) : between(g, -0x400, 0x400));
}

static int pick_base(struct generator *g)
{
    int base = -1;

    if (g->last_anchor >= 0 && (g->wish == WISH_GROUP || rng_chance(g->rng, 40)))
        return g->last_anchor;
    if (rng_chance(g->rng, 12))
        base = pick_register(g, rng_chance(g->rng, 60) ? REGISTER_STACK : REGISTER_FRAME);
    return base >= 0 ? base : pick_register(g, REGISTER_ANCHOR);
}

static bool by_anchor(const struct wanted *w)
{
    struct generator *g = w->g;
    int base = pick_base(g), index = REG_NONE;
    unsigned scale = 0;

    if (base < 0)
        return false;
    int32_t disp = pick_displacement(w, (unsigned)base);
    if (g->wish != WISH_GROUP && w->alignment == 1 && rng_chance(g->rng, 25)) {
        index = pick_register(g, REGISTER_INDEX);
        if (index < 0)
            index = REG_NONE;
        else
            scale = rng_below(g->rng, 4);
    }
    bool swap = index != REG_NONE && !scale && base != REG_RSP && rng_chance(g->rng, 50);
    set_memory(w, (unsigned)(swap ? index : base), (unsigned)(swap ? base : index), scale, disp);
    if (g->program->registers[base].kind == REGISTER_ANCHOR && index == REG_NONE) {
        g->last_anchor = base;
        g->last_disp = disp;
    }
    return true;
}

static bool by_anchor32(const struct wanted *w)
{
    struct generator *g = w->g;
    int base = pick_register(g, rng_chance(g->rng, 70) ? REGISTER_ANCHOR32 : REGISTER_ANCHOR);
    int index = w->alignment == 1 && rng_chance(g->rng, 30) ? pick_register(g, REGISTER_INDEX) : -1;

    if (base < 0)
        return false;
    set_memory(w, (unsigned)base, index < 0 ? REG_NONE : (unsigned)index, index < 0 ? 0 : rng_below(g->rng, 4),
               pick_displacement(w, (unsigned)base));
    use_address32(w);
    return true;
}

/* disp32 is sign-extended: all pages are below 2 GiB. */
static bool by_absolute(const struct wanted *w)
{
    set_memory(w, REG_NONE, REG_NONE, 0, (int64_t)pick_address(w));
    if (rng_chance(w->g->rng, 10))
        use_address32(w);
    return true;
}

static bool by_rip(const struct wanted *w)
{
    set_memory(w, REG_RIP, REG_NONE, 0, 0);
    *w->place = (struct place){
        .fix = FIX_RELATIVE, .fix_size = 4, .target = TARGET_ADDRESS, .addend = (int64_t)pick_address(w)
    };
    if (rng_chance(w->g->rng, 6))
        use_address32(w);
    return true;
}

static bool by_segment(const struct wanted *w)
{
    struct generator *g = w->g;
    int index = rng_chance(g->rng, 60) && w->alignment == 1 ? pick_register(g, REGISTER_INDEX) : -1;
    enum segment segment = rng_chance(g->rng, 50) ? SEG_FS : SEG_GS;

    if (!native_has_fsgsbase())
        return false;
    /* without a base: what is negative is not possible with 32-bit addresses */
    set_memory(w, index < 0 ? REG_NONE : (unsigned)index, REG_NONE, 0,
               aligned(w, between(g, index < 0 ? 0 : -256, 1024)));
    w->insn->mem.segment = segment;
    w->insn->segment_prefix = (uint8_t)(segment + 1);
    if (index < 0 && rng_chance(g->rng, 15))
        use_address32(w);
    return true;
}

/* Data beside the code, in its pages, by their own address or by the other. */
static bool by_code_page(const struct wanted *w)
{
    struct generator *g = w->g;
    bool behind = rng_chance(g->rng, 60);
    int32_t distance = behind ? between(g, 16, NEAR) : between(g, -NEAR, -(int32_t)w->size);

    set_memory(w, REG_RIP, REG_NONE, 0, 0);
    *w->place = (struct place){
        .fix = FIX_RELATIVE, .fix_size = 4, .target = behind ? TARGET_END : TARGET_START, .addend = distance
    };
    if (rng_chance(g->rng, 15))
        w->place->addend += (int64_t)(STRESS_CODE_ALIAS - STRESS_CODE);
    return true;
}

/* Reads an instruction. */
static bool by_code(const struct wanted *w)
{
    struct generator *g = w->g;

    if (w->writes || !g->program->count)
        return false;
    set_memory(w, REG_RIP, REG_NONE, 0, 0);
    *w->place = (struct place){ .fix = FIX_RELATIVE,
                                .fix_size = 4,
                                .target = (int16_t)rng_below(g->rng, g->program->count),
                                .addend = between(g, -2, 3) };
    return true;
}

bool place_operand(struct generator *g, struct insn *insn, unsigned size, unsigned alignment, bool writes,
                   struct place *place)
{
    struct wanted w = { .g = g, .insn = insn, .size = size, .alignment = alignment, .writes = writes, .place = place };
    unsigned kind = rng_below(g->rng, 100);

    if (rng_chance(g->rng, 3))
        w.alignment = 1; /* misaligned: #GP for some */
    *place = (struct place){ .fix = FIX_NONE };
    if (g->wish == WISH_GROUP)
        return by_anchor(&w);
    if (kind < 60)
        return by_anchor(&w);
    if (kind < 66)
        return by_anchor32(&w);
    if (kind < 78)
        return by_rip(&w);
    if (kind < 83)
        return by_absolute(&w);
    if (kind < 90)
        return by_segment(&w);
    if (kind < 96)
        return by_code_page(&w);
    return by_code(&w);
}
