/* Generators of encodings; see generate.h. Fields that the row fixes are set so, and then
 * sometimes disturbed, so that the illegal neighbourhood is tried as well. */
#include "generate.h"

#include <stdlib.h>
#include <string.h>

uint64_t random_next(struct random *random)
{
    /* splitmix64 */
    uint64_t z = random->state += 0x9e3779b97f4a7c15ull;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ z >> 27) * 0x94d049bb133111ebull;
    return z ^ z >> 31;
}

static bool one_in(struct random *random, unsigned n)
{
    return random_below(random, n) == 0;
}

struct writer {
    struct random *random;
    uint8_t *p;
};

static void put(struct writer *w, unsigned byte)
{
    *w->p++ = (uint8_t)byte;
}

static void put_legacy_prefixes(struct writer *w, const struct insn_row *row)
{
    static const uint8_t segments[] = { 0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65 };
    static const uint8_t mandatory[] = { [PREFIX_66] = 0x66, [PREFIX_F3] = 0xf3, [PREFIX_F2] = 0xf2 };
    bool vex = row->map >= MAP_VEX_0F;

    if (one_in(w->random, 8))
        put(w, segments[random_below(w->random, sizeof(segments))]);
    if (one_in(w->random, 8))
        put(w, 0x67);
    if (one_in(w->random, (row->attributes & ATTR_LOCK) ? 4 : 40))
        put(w, 0xf0);
    if (!vex && (row->prefix == PREFIX_ANY || row->prefix == PREFIX_NP_66) && one_in(w->random, 4))
        put(w, 0x66);
    if (one_in(w->random, (row->attributes & (ATTR_REP | ATTR_REPZ)) ? 2 : 24))
        put(w, 0xf2 + random_below(w->random, 2));
    if (one_in(w->random, 24))
        put(w, 0x66);
    if (!vex && row->prefix < sizeof(mandatory) && mandatory[row->prefix])
        put(w, mandatory[row->prefix]);
    if (one_in(w->random, 40))
        put(w, segments[random_below(w->random, sizeof(segments))]);
}

static bool random_w(struct writer *w, const struct insn_row *row)
{
    if (one_in(w->random, 16))
        return random_below(w->random, 2);
    if (row->attributes & ATTR_W1)
        return true;
    if (row->attributes & (ATTR_W0 | ATTR_W0_64))
        return false;
    return random_below(w->random, 2);
}

static unsigned random_length(struct writer *w, const struct insn_row *row, unsigned lengths)
{
    static const uint32_t attributes[] = { ATTR_VEX_L0, ATTR_VEX_L1, ATTR_VEX_L2 };

    for (unsigned tries = 0; tries < 8; tries++) {
        unsigned l = random_below(w->random, lengths);
        if (l < 3 && (row->attributes & attributes[l]))
            return l;
    }
    return random_below(w->random, lengths);
}

static bool uses_vvvv(const struct insn_row *row)
{
    for (unsigned i = 0; i < INSN_MAX_OPERANDS; i++) {
        switch (row->operands[i].type) {
        case OT_By:
        case OT_Bv:
        case OT_Hx:
        case OT_Hdq:
        case OT_Hqq:
        case OT_Ho:
        case OT_Hss:
        case OT_Hsd:
        case OT_Hsh:
        case OT_Hq:
        case OT_KHb:
        case OT_KHw:
        case OT_KHd:
        case OT_KHq:
        case OT_KH:
        case OT_TH:
            return true;
        default:
            break;
        }
    }
    return false;
}

static void put_vex(struct writer *w, const struct insn_row *row, enum code_size code_size)
{
    static const uint8_t pp[] = {
        [PREFIX_ANY] = 0, [PREFIX_NP] = 0, [PREFIX_66] = 1, [PREFIX_F3] = 2, [PREFIX_F2] = 3, [PREFIX_NP_66] = 0
    };
    unsigned vvvv = uses_vvvv(row) || one_in(w->random, 32) ? random_below(w->random, 16) : 15;
    unsigned low = pp[row->prefix] | random_length(w, row, 2) << 2 | vvvv << 3;
    unsigned high = random_below(w->random, 8) << 5;
    bool wide = random_w(w, row);

    if (code_size != CODE64)
        high |= 0xc0;
    if (row->map == MAP_VEX_0F && !wide && one_in(w->random, 2)) {
        put(w, 0xc5);
        put(w, (high & 0x80) | low | (code_size == CODE64 ? 0 : 0x40));
        return;
    }
    put(w, 0xc4);
    put(w, high | (row->map - MAP_VEX_0F + 1));
    put(w, (wide ? 0x80 : 0) | low);
}

static void put_evex(struct writer *w, const struct insn_row *row, enum code_size code_size)
{
    static const uint8_t pp[] = {
        [PREFIX_ANY] = 0, [PREFIX_NP] = 0, [PREFIX_66] = 1, [PREFIX_F3] = 2, [PREFIX_F2] = 3, [PREFIX_NP_66] = 0
    };
    static const uint8_t maps[MAP_COUNT] = {
        [MAP_EVEX_0F] = 1, [MAP_EVEX_0F38] = 2, [MAP_EVEX_0F3A] = 3, [MAP_EVEX_5] = 5, [MAP_EVEX_6] = 6
    };
    bool has_vvvv = uses_vvvv(row) || one_in(w->random, 32);
    unsigned b0 = maps[row->map] | random_below(w->random, 16) << 4, b1, b2;

    if (code_size != CODE64)
        b0 |= 0xc0;
    b1 = pp[row->prefix] | 4 | (has_vvvv ? random_below(w->random, 16) : 15) << 3 | (random_w(w, row) ? 0x80 : 0);
    b2 = random_length(w, row, 4) << 5 | (has_vvvv || (row->attributes & ATTR_VSIB) ? random_below(w->random, 2) : 1)
                                             << 3;
    if (one_in(w->random, 3) || (row->attributes & ATTR_VSIB))
        b2 |= random_below(w->random, 8);
    if (one_in(w->random, 4))
        b2 |= 0x80;
    if (one_in(w->random, row->attributes & (ATTR_EVEX_BCST | ATTR_EVEX_ER | ATTR_EVEX_SAE) ? 3 : 32))
        b2 |= 0x10;
    if (one_in(w->random, 40))
        b1 ^= 1u << random_below(w->random, 8);
    put(w, 0x62);
    put(w, b0);
    put(w, b1);
    put(w, b2);
}

static void put_modrm(struct writer *w, const struct insn_row *row)
{
    unsigned modrm = random_below(w->random, 256);
    unsigned digit = row->modrm_value << 3;

    switch (row->modrm) {
    case MODRM_NONE:
    case MODRM_PLUSR:
        return;
    case MODRM_MEM:
        modrm = (modrm & 0x3f) | random_below(w->random, 3) << 6;
        break;
    case MODRM_REG:
        modrm |= 0xc0;
        break;
    case MODRM_EXT:
        modrm = (modrm & 0xc7) | digit;
        break;
    case MODRM_EXT_MEM:
        modrm = (modrm & 7) | digit | random_below(w->random, 3) << 6;
        break;
    case MODRM_EXT_REG:
        modrm = (modrm & 7) | digit | 0xc0;
        break;
    case MODRM_BYTE:
        modrm = row->modrm_value;
        break;
    default:
        break;
    }
    if ((row->attributes & ATTR_VSIB) && !one_in(w->random, 16))
        modrm = (modrm & ~7u) | 4;
    put(w, modrm);
}

void generate_noise(struct random *random, uint8_t *bytes)
{
    for (unsigned i = 0; i < GENERATED_BYTES; i += 8) {
        uint64_t value = random_next(random);
        memcpy(bytes + i, &value, 8);
    }
}

void generate_row(struct random *random, const struct insn_row *row, enum code_size code_size, uint8_t *bytes)
{
    struct writer w = { random, bytes };

    generate_noise(random, bytes);
    if (row->map < MAP_VEX_0F || one_in(random, 4))
        put_legacy_prefixes(&w, row);
    if (row->map < MAP_VEX_0F) {
        bool wide = random_w(&w, row);
        if (code_size == CODE64 && (wide || one_in(random, 2)))
            put(&w, 0x40 | (wide ? 8 : 0) | random_below(random, 8));
        if (row->map == MAP_0F || row->map == MAP_0F38 || row->map == MAP_0F3A)
            put(&w, 0x0f);
        if (row->map == MAP_0F38 || row->map == MAP_0F3A)
            put(&w, row->map == MAP_0F38 ? 0x38 : 0x3a);
    } else if (row->map < MAP_EVEX_0F) {
        put_vex(&w, row, code_size);
    } else {
        put_evex(&w, row, code_size);
    }
    put(&w, row->opcode + (row->modrm == MODRM_PLUSR ? random_below(random, 8) : 0));
    put_modrm(&w, row);
}

unsigned case_count(unsigned fallback)
{
    const char *percent = getenv("EIDOLON_DECODE_CASES");

    return percent ? (unsigned)((uint64_t)fallback * strtoul(percent, NULL, 0) / 100) : fallback;
}

uint64_t case_seed(void)
{
    const char *seed = getenv("EIDOLON_SEED");

    return seed ? strtoull(seed, NULL, 0) : 0x5eed;
}
