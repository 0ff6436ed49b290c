/* The table against itself: rows are consistent, no two overlap without one being a special case of the other, and the
 * index gives the narrower one. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#include "cpu/decode/decode_internal.h"

/* ---- Single rows ---- */

static bool is_memory_class(unsigned class)
{
    return (class >= OC_RM_GPR && class <= OC_RM_SIB) || class == OC_MOFFS || class == OC_STRING ||
           class == OC_FIXED_MEM;
}

static bool may_have_memory(const struct insn_row *row)
{
    bool register_only = row->modrm == MODRM_REG || row->modrm == MODRM_EXT_REG || row->modrm == MODRM_BYTE;

    for (unsigned i = 0; i < INSN_MAX_OPERANDS; i++) {
        unsigned class = operand_infos[row->operands[i].type].class;
        if (class == OC_MOFFS || class == OC_STRING || class == OC_FIXED_MEM)
            return true;
        if (is_memory_class(class) && !register_only)
            return true;
    }
    return false;
}

static const char *fault_of_row(const struct insn_row *row)
{
    uint32_t a = row->attributes;
    unsigned first_class = operand_infos[row->operands[0].type].class;
    bool ended = false;

    for (unsigned i = 0; i < INSN_MAX_OPERANDS; i++) {
        unsigned type = row->operands[i].type;
        if (type != OT_NONE && (ended || operand_infos[type].class == OC_NONE))
            return "operand without a class, or behind a gap";
        ended |= type == OT_NONE;
    }
    if (row->flags_written & row->flags_undefined)
        return "flags both defined and undefined";
    if ((a & ATTR_NO64) && (a & ATTR_ONLY64))
        return "in no mode";
    if (((a & ATTR_W0) != 0) + ((a & ATTR_W1) != 0) + ((a & ATTR_W0_64) != 0) > 1)
        return "W both 0 and 1";
    if (row->modrm == MODRM_PLUSR && (row->opcode & 7))
        return "PLUSR not at a multiple of 8";
    if ((row->modrm == MODRM_EXT || row->modrm == MODRM_EXT_MEM || row->modrm == MODRM_EXT_REG) && row->modrm_value > 7)
        return "digit above 7";
    if (row->modrm == MODRM_BYTE && row->modrm_value < 0xc0)
        return "exact ModRM byte of a memory form";
    if ((a & ATTR_LOCK) && !(row->operands[0].access & ACCESS_W))
        return "LOCK without a destination";
    if ((a & ATTR_LOCK) && !is_memory_class(first_class))
        return "LOCK, but the first operand is never memory";
    if (row->jit_class == JIT_VERBATIM && may_have_memory(row) && row->handler != HANDLER_lea &&
        row->handler != HANDLER_nop)
        return "VERBATIM with a memory operand";
    if ((row->jit_class == JIT_CONTROL) && !(a & ATTR_BRANCH))
        return "CONTROL that does not branch";
    if ((a & ATTR_BRANCH) && row->jit_class != JIT_CONTROL && row->jit_class != JIT_END)
        return "a branch that is neither CONTROL nor END";
    if ((a & (ATTR_EVEX_MASK | ATTR_EVEX_ZERO | ATTR_EVEX_BCST | ATTR_EVEX_ER | ATTR_EVEX_SAE)) &&
        !map_is_evex(row->map))
        return "EVEX attributes outside EVEX";
    if (map_is_evex(row->map) && (row->prefix == PREFIX_ANY || row->prefix == PREFIX_NP_66))
        return "EVEX without a definite prefix";
    if ((a & ATTR_EVEX_ZERO) && !(a & ATTR_EVEX_MASK))
        return "zeroing without masking";
    return NULL;
}

Test(rows, each_is_consistent)
{
    unsigned faults = 0;

    for (unsigned i = 0; i < insn_row_count; i++) {
        const struct insn_row *row = &insn_rows[i];
        const char *fault = fault_of_row(row);
        if (!fault)
            continue;
        fprintf(stderr, "row %u, %s (map %u, opcode %02x): %s\n", i, row->mnemonic, row->map, row->opcode, fault);
        faults++;
    }
    cr_assert_eq(faults, 0);
}

/* decode_index.c relies on it. */
Test(rows, are_in_the_order_of_the_maps)
{
    for (unsigned i = 1; i < insn_row_count; i++)
        cr_assert_leq(insn_rows[i - 1].map, insn_rows[i].map, "row %u, %s", i, insn_rows[i].mnemonic);
}

/* ---- Pairs of rows ---- */

/* What a row matches: for every mode, W, vector length, mandatory prefix and ModRM slot. Written from the description in
 * row_macros.h, not from the index. */
static bool matches(const struct insn_row *row, enum code_size mode, bool w, unsigned length, unsigned prefix,
                    unsigned modrm)
{
    static const uint8_t prefixes[] = {
        [PREFIX_ANY] = 15, [PREFIX_NP] = 1, [PREFIX_66] = 2, [PREFIX_F3] = 4, [PREFIX_F2] = 8, [PREFIX_NP_66] = 3
    };
    uint32_t a = row->attributes, lengths = a & (ATTR_VEX_L0 | ATTR_VEX_L1 | ATTR_VEX_L2);
    unsigned digit = modrm >> 3 & 7;
    bool memory = modrm < 0xc0;

    if (a & (mode == CODE64 ? ATTR_NO64 : ATTR_ONLY64))
        return false;
    if (w && ((a & ATTR_W0) || ((a & ATTR_W0_64) && mode == CODE64)))
        return false;
    if (!w && (a & ATTR_W1))
        return false;
    if (lengths && !(a & ATTR_VEX_LIG) && !(lengths & ATTR_VEX_L0 << length))
        return false;
    if (!(prefixes[row->prefix] >> prefix & 1))
        return false;
    switch (row->modrm) {
    case MODRM_MEM:
        return memory;
    case MODRM_REG:
        return !memory;
    case MODRM_EXT:
        return digit == row->modrm_value;
    case MODRM_EXT_MEM:
        return memory && digit == row->modrm_value;
    case MODRM_EXT_REG:
        return !memory && digit == row->modrm_value;
    case MODRM_BYTE:
        return modrm == row->modrm_value;
    default:
        return true;
    }
}

struct overlap {
    bool both, only_a, only_b;
};

static struct overlap compare_rows(const struct insn_row *a, const struct insn_row *b)
{
    struct overlap o = { false, false, false };

    for (unsigned mode = 0; mode < 3; mode++)
        for (unsigned w = 0; w < 2; w++)
            for (unsigned length = 0; length < 3; length++)
                for (unsigned prefix = 0; prefix < 4; prefix++)
                    for (unsigned modrm = 0x80; modrm < 0x100; modrm++) {
                        bool in_a = matches(a, (enum code_size)mode, w, length, prefix, modrm);
                        bool in_b = matches(b, (enum code_size)mode, w, length, prefix, modrm);
                        o.both |= in_a && in_b;
                        o.only_a |= in_a && !in_b;
                        o.only_b |= in_b && !in_a;
                    }
    return o;
}

static bool same_opcode(const struct insn_row *a, const struct insn_row *b)
{
    if (a->modrm == MODRM_PLUSR)
        return (b->opcode & 0xf8) == a->opcode;
    return a->opcode == (b->modrm == MODRM_PLUSR ? a->opcode & 0xf8 : b->opcode) &&
           (b->modrm != MODRM_PLUSR || (a->opcode & 0xf8) == b->opcode);
}

Test(rows, overlap_only_as_special_cases)
{
    unsigned faults = 0;

    for (unsigned i = 0; i < insn_row_count; i++) {
        for (unsigned k = i + 1; k < insn_row_count && insn_rows[k].map == insn_rows[i].map; k++) {
            const struct insn_row *a = &insn_rows[i], *b = &insn_rows[k];
            struct overlap o;
            if (!same_opcode(a, b))
                continue;
            if (a->opcode == 0x90 && a->map == MAP_ONEBYTE && (a->modrm == MODRM_PLUSR || b->modrm == MODRM_PLUSR))
                continue; /* NOP and XCHG rAX: told apart by REX.B */
            o = compare_rows(a, b);
            if (!o.both || o.only_a != o.only_b)
                continue;
            fprintf(stderr, "rows %u, %s and %u, %s (map %u, opcode %02x) overlap\n", i, a->mnemonic, k, b->mnemonic,
                    a->map, a->opcode);
            faults++;
        }
    }
    cr_assert_eq(faults, 0);
}

/* ---- The index ---- */

/* Of all rows that match, the one that matches least. */
Test(rows, index_gives_the_narrowest)
{
    const struct decode_index *index = decode_index_get();
    unsigned faults = 0;

    for (unsigned map = 0; map < MAP_COUNT; map++) {
        for (unsigned opcode = 0; opcode < 256; opcode++) {
            const struct decode_entry *entry = &index->entries[map][opcode];
            for (unsigned slot = 0; slot < (entry->split ? DECODE_SLOTS : 1u); slot++) {
                unsigned first = entry->split ? index->slots[entry->first + slot].first : entry->first;
                unsigned count = entry->split ? index->slots[entry->first + slot].count : entry->count;
                for (unsigned i = 0; i < count; i++) {
                    for (unsigned k = i + 1; k < count; k++) {
                        const struct insn_row *a = &insn_rows[index->candidates[first + i].row];
                        const struct insn_row *b = &insn_rows[index->candidates[first + k].row];
                        struct overlap o = compare_rows(a, b);
                        if (o.both && o.only_a && !o.only_b && !(map == MAP_ONEBYTE && opcode == 0x90) && faults++ < 10)
                            fprintf(stderr, "%s hides %s (map %u, opcode %02x)\n", a->mnemonic, b->mnemonic, map,
                                    opcode);
                    }
                }
            }
        }
    }
    cr_assert_eq(faults, 0);
}

/* Within one mode all rows of an opcode agree whether there is a ModRM byte: the decoder reads it before it knows the row. */
Test(rows, agree_about_modrm)
{
    for (unsigned i = 0; i < insn_row_count; i++)
        for (unsigned k = i + 1; k < insn_row_count && insn_rows[k].map == insn_rows[i].map; k++)
            if (same_opcode(&insn_rows[i], &insn_rows[k]))
                cr_assert_eq(row_has_modrm(&insn_rows[i]), row_has_modrm(&insn_rows[k]), "%s and %s (opcode %02x)",
                             insn_rows[i].mnemonic, insn_rows[k].mnemonic, insn_rows[i].opcode);
}
