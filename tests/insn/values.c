/* What registers and memory hold: corner values of integers and of every floating-point format, and random ones. */
#include "tests/insn/insn_test.h"

#include <string.h>

static const uint64_t integer_corners[] = {
    0,
    1,
    2,
    3,
    7,
    8,
    0x7f,
    0x80,
    0x81,
    0xff,
    0x100,
    0x7fff,
    0x8000,
    0xffff,
    0x10000,
    0x7fffffff,
    0x80000000,
    0x80000001,
    0xffffffff,
    0x100000000,
    0x7fffffffffffffff,
    0x8000000000000000,
    0x8000000000000001,
    ~0ull,
    ~1ull,
    0xaaaaaaaaaaaaaaaa,
    0x5555555555555555,
    0x0123456789abcdef,
    0xff00ff00ff00ff00,
    0xfffffffffffffff0,
};

static const uint16_t half_corners[] = {
    0x0000, 0x8000, 0x3c00, 0xbc00, 0x0001, 0x8001, 0x03ff, 0x0400,
    0x7bff, 0xfbff, 0x7c00, 0xfc00, 0x7e00, 0x7d01, 0xfe55,
};

static const uint32_t single_corners[] = {
    0x00000000, 0x80000000, 0x3f800000, 0xbf800000, 0x00000001, 0x80000001, 0x007fffff, 0x00800000, 0x80800000,
    0x7f7fffff, 0xff7fffff, 0x7f800000, 0xff800000, 0x7fc00000, 0xffc00000, 0x7f800001, 0xffa00000, 0x7fc12345,
    0x4f000000, 0xcf000000, 0x4effffff, 0x5f000000, 0xdf000000, 0x3f000000, 0x3fc00000, 0x40200000, 0xbf000000,
    0x4b000001, 0x33800000, 0x34000000, 0x477fe000, 0x477ff000, 0x38800000, 0x387fffff, 0x33000000,
    /* the last five: around what a half can hold */
};

static const uint64_t double_corners[] = {
    0x0000000000000000, 0x8000000000000000, 0x3ff0000000000000, 0xbff0000000000000, 0x0000000000000001,
    0x8000000000000001, 0x000fffffffffffff, 0x0010000000000000, 0x8010000000000000, 0x7fefffffffffffff,
    0xffefffffffffffff, 0x7ff0000000000000, 0xfff0000000000000, 0x7ff8000000000000, 0xfff8000000000000,
    0x7ff0000000000001, 0xfff4000000000000, 0x7ff8000012345678, 0x41e0000000000000, 0xc1e0000000000000,
    0x41dfffffffc00000, 0x43e0000000000000, 0xc3e0000000000000, 0x3fe0000000000000, 0x3ff8000000000000,
    0x4004000000000000, 0xbfe0000000000000, 0x4330000000000001, 0x36a0000000000000, 0x47efffffe0000000,
    0x47effffff0000000, 0x3810000000000000, 0x380fffffffffffff,
};

/* sign and exponent, significand: pseudo-denormals, unnormals, pseudo-infinities and pseudo-NaNs too */
static const struct {
    uint16_t high;
    uint64_t low;
} extended_corners[] = {
    { 0x0000, 0 },
    { 0x8000, 0 },
    { 0x3fff, 1ull << 63 },
    { 0xbfff, 1ull << 63 },
    { 0x0000, 1 },
    { 0x8000, 1 },
    { 0x0000, 0x7fffffffffffffff },
    { 0x0001, 1ull << 63 },
    { 0x7ffe, ~0ull },
    { 0xfffe, ~0ull },
    { 0x7fff, 1ull << 63 },
    { 0xffff, 1ull << 63 },
    { 0x7fff, 3ull << 62 },
    { 0xffff, 3ull << 62 },
    { 0x7fff, (1ull << 63) + 1 },
    { 0xffff, (1ull << 63) + 0x123456 },
    { 0x0000, 1ull << 63 },
    { 0x3fff, 1 },
    { 0x4000, 0x4000000000000000 },
    { 0x7fff, 0 },
    { 0x7fff, 0x4000000000000000 },
    { 0x3ffe, 1ull << 63 },
    { 0x4000, 0xc90fdaa22168c235 },
    { 0x403e, 1ull << 63 },
    { 0xc03e, 1ull << 63 },
    { 0x401e, 1ull << 63 },
    { 0xc01e, 1ull << 63 },
    { 0x400e, 1ull << 63 },
    { 0x403e, ~0ull },
    { 0x3fff, 0x8000000000000001 },
    { 0x43fe, 0xfffffffffffff800 },
    { 0x43fe, ~0ull },
    { 0x3c01, 1ull << 63 },
    { 0x3c00, ~0ull },
    { 0x407f, ~0ull },
    { 0x3f81, 1ull << 63 },
    { 0x3f6a, 1ull << 63 },
    { 0x403a, 0xde0b6b3a763fffff },
    { 0x403a, 0xde0b6b3a76400000 }, /* 10^18 - 1/16, 10^18: FBSTP */
};

uint64_t corner_integer(struct rng *rng)
{
    switch (rng_below(rng, 8)) {
    case 0:
    case 1:
    case 2:
        return integer_corners[rng_below(rng, ARRAY_SIZE(integer_corners))];
    case 3:
        return 1ull << rng_below(rng, 64);
    case 4:
        return (1ull << rng_below(rng, 64)) - 1;
    case 5:
        return rng_next(rng) >> rng_below(rng, 64);
    case 6:
        return (uint64_t)((int64_t)rng_next(rng) >> rng_below(rng, 64));
    default:
        return rng_next(rng);
    }
}

/* A finite number of ordinary size, so that sums and products mean something. */
static uint64_t ordinary(struct rng *rng, unsigned exponent_bits, unsigned fraction_bits)
{
    uint64_t bias = (1ull << (exponent_bits - 1)) - 1, r = rng_next(rng);
    uint64_t exponent = bias - 8 + rng_below(rng, 24);
    uint64_t fraction = r >> (64 - fraction_bits);
    if (rng_chance(rng, 30)) /* few significant bits: exact results */
        fraction &= ~0ull << (fraction_bits - 3);
    return (r & 1) << (exponent_bits + fraction_bits) | exponent << fraction_bits | fraction;
}

static uint16_t half_value(struct rng *rng)
{
    unsigned kind = rng_below(rng, 10);
    return kind < 5   ? half_corners[rng_below(rng, ARRAY_SIZE(half_corners))]
           : kind < 8 ? (uint16_t)ordinary(rng, 5, 10)
                      : (uint16_t)rng_next(rng);
}

static uint32_t single_value(struct rng *rng)
{
    unsigned kind = rng_below(rng, 10);
    return kind < 5   ? single_corners[rng_below(rng, ARRAY_SIZE(single_corners))]
           : kind < 8 ? (uint32_t)ordinary(rng, 8, 23)
                      : (uint32_t)rng_next(rng);
}

static uint64_t double_value(struct rng *rng)
{
    unsigned kind = rng_below(rng, 10);
    return kind < 5   ? double_corners[rng_below(rng, ARRAY_SIZE(double_corners))]
           : kind < 8 ? ordinary(rng, 11, 52)
                      : rng_next(rng);
}

static void extended_value(struct rng *rng, uint8_t *bytes)
{
    unsigned kind = rng_below(rng, 10), i = rng_below(rng, ARRAY_SIZE(extended_corners));
    uint16_t high = extended_corners[i].high;
    uint64_t low = extended_corners[i].low;
    if (kind >= 8) {
        high = (uint16_t)rng_next(rng);
        low = rng_next(rng);
    } else if (kind >= 4) {
        high = (uint16_t)((rng_next(rng) & 0x8000) | (0x3fff - 20 + rng_below(rng, 90)));
        low = rng_next(rng) | 1ull << 63;
        if (kind >= 6) /* an integer or so */
            low &= ~0ull << rng_below(rng, 63);
    }
    memcpy(bytes, &low, 8);
    memcpy(bytes + 8, &high, 2);
}

enum lanes {
    LANES_RANDOM,
    LANES_HALF,
    LANES_SINGLE,
    LANES_DOUBLE,
    LANES_EXTENDED,
    LANES_DECIMAL,
    LANES_BYTE,
    LANES_WORD,
    LANES_DWORD,
    LANES_QWORD,
    LANES_EQUAL,
    LANES_COUNT
};

static enum lanes choose_lanes(struct rng *rng, const char *mnemonic)
{
    static const struct {
        const char *name;
        enum lanes lanes;
    } hints[] = {
        { "ph", LANES_HALF },   { "ps", LANES_SINGLE }, { "ss", LANES_SINGLE },
        { "pd", LANES_DOUBLE }, { "sd", LANES_DOUBLE },
    };
    if (mnemonic && rng_chance(rng, 75)) {
        if (!strcmp(mnemonic, "fbstp") || !strcmp(mnemonic, "fbld"))
            return LANES_DECIMAL;
        if (mnemonic[0] == 'f') /* x87 operands: any of these */
            return (enum lanes[]){ LANES_SINGLE, LANES_DOUBLE, LANES_EXTENDED, LANES_WORD,
                                   LANES_DWORD }[rng_below(rng, 5)];
        for (size_t i = 0; i < ARRAY_SIZE(hints); i++)
            if (strstr(mnemonic, hints[i].name))
                return hints[i].lanes;
    }
    return rng_below(rng, LANES_COUNT);
}

static uint64_t lane_value(struct rng *rng, enum lanes lanes)
{
    switch (lanes) {
    case LANES_HALF:
        return half_value(rng);
    case LANES_SINGLE:
        return single_value(rng);
    case LANES_DOUBLE:
        return double_value(rng);
    case LANES_DECIMAL:
        return rng_below(rng, 10) | rng_below(rng, rng_chance(rng, 5) ? 16 : 10) << 4;
    default:
        return corner_integer(rng);
    }
}

void fill_lanes(struct rng *rng, uint8_t *bytes, unsigned size, const char *mnemonic)
{
    static const uint8_t widths[LANES_COUNT] = {
        [LANES_RANDOM] = 8,    [LANES_HALF] = 2,    [LANES_SINGLE] = 4, [LANES_DOUBLE] = 8,
        [LANES_EXTENDED] = 10, [LANES_DECIMAL] = 1, [LANES_BYTE] = 1,   [LANES_WORD] = 2,
        [LANES_DWORD] = 4,     [LANES_QWORD] = 8,   [LANES_EQUAL] = 8
    };
    enum lanes lanes = choose_lanes(rng, mnemonic);
    uint64_t same = corner_integer(rng);

    for (unsigned i = 0; i < size; i += widths[lanes]) {
        uint8_t lane[16];
        uint64_t value = lanes == LANES_RANDOM ? rng_next(rng) : lanes == LANES_EQUAL ? same : lane_value(rng, lanes);
        memcpy(lane, &value, 8);
        if (lanes == LANES_EXTENDED)
            extended_value(rng, lane);
        memcpy(bytes + i, lane, MIN(widths[lanes], size - i));
    }
}

void generate_mxcsr(struct rng *rng, struct fx_image *fx)
{
    uint32_t value = 0x1f80 | (uint32_t)rng_below(rng, 4) << 13;
    if (rng_chance(rng, 30))
        value |= (rng_next(rng) & 0x8040); /* FZ, DAZ */
    if (rng_chance(rng, 30))
        value &= ~((uint32_t)rng_next(rng) & 0x1f80); /* unmasked */
    if (rng_chance(rng, 50))
        value |= rng_next(rng) & 0x3f; /* sticky flags: unmasked ones too, that raises nothing */
    fx->mxcsr = value;
    fx->mxcsr_mask = 0xffff;
}

void generate_x87(struct rng *rng, struct fx_image *fx)
{
    static const uint16_t precisions[] = { 0x300, 0x300, 0x200, 0x000, 0x100 };
    uint16_t fcw = (uint16_t)(0x7f | precisions[rng_below(rng, ARRAY_SIZE(precisions))] | rng_below(rng, 4) << 10);
    uint16_t fsw = (uint16_t)(rng_below(rng, 8) << 11 | (rng_next(rng) & 0x4700));

    if (rng_chance(rng, 25))
        fcw &= (uint16_t) ~(rng_next(rng) & 0x3f);
    if (rng_chance(rng, 40))
        fsw |= rng_next(rng) & 0x7f;
    if (rng_chance(rng, 90)) /* nothing pending */
        fsw &= (uint16_t)(0xffc0 | fcw);
    if (fsw & ~fcw & 0x3f)
        fsw |= 0x8080; /* ES and B follow the flags and masks: FXRSTOR computes them in any case */
    fx->fcw = fcw;
    fx->fsw = fsw;
    fx->ftw = rng_chance(rng, 70) ? 0xff : rng_chance(rng, 20) ? 0 : (uint8_t)rng_next(rng);
    for (unsigned i = 0; i < 8; i++) {
        memset(fx->st[i], 0, 16);
        if (rng_chance(rng, 85))
            extended_value(rng, fx->st[i]);
        else /* as MMX leaves it */
            memset(fx->st[i] + 8, 0xff, 2), memcpy(fx->st[i], &(uint64_t){ rng_next(rng) }, 8);
    }
}
