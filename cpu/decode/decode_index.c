/* The index from (map, opcode, ModRM) to the rows that may match, most special first.
 *
 * Built from insn_rows once, at first use, by whichever thread comes first; read-only from
 * then on. Candidate lists of neighbouring ModRM slots that are equal share their storage. */
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/vector_guard.h"
#include "cpu/decode/decode_internal.h"

#define MAX_LIST 64

/* A row with a larger number matches fewer encodings. */
static unsigned row_rank(const struct insn_row *row)
{
    static const uint8_t modrm_rank[] = {
        [MODRM_PLUSR] = 0, [MODRM_NONE] = 1,    [MODRM_ANY] = 0,     [MODRM_MEM] = 1,  [MODRM_REG] = 1,
        [MODRM_EXT] = 2,   [MODRM_EXT_MEM] = 3, [MODRM_EXT_REG] = 3, [MODRM_BYTE] = 4,
    };
    static const uint8_t prefix_rank[] = {
        [PREFIX_ANY] = 0, [PREFIX_NP_66] = 1, [PREFIX_NP] = 2, [PREFIX_66] = 2, [PREFIX_F3] = 2, [PREFIX_F2] = 2,
    };
    return modrm_rank[row->modrm] * 4u + prefix_rank[row->prefix];
}

static bool row_matches_slot(const struct insn_row *row, unsigned slot)
{
    bool memory = slot < 8;
    unsigned digit = memory ? slot : (slot - 8) >> 3;

    switch (row->modrm) {
    case MODRM_ANY:
        return true;
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
        return !memory && slot - 8 == (row->modrm_value & 0x3fu);
    default:
        return false;
    }
}

static bool row_matches_opcode(const struct insn_row *row, unsigned opcode)
{
    return row->opcode == (row->modrm == MODRM_PLUSR ? opcode & 0xf8 : opcode);
}

static struct decode_candidate candidate_from_row(unsigned number)
{
    static const uint8_t prefix_masks[] = {
        [PREFIX_ANY] = 0xf, [PREFIX_NP_66] = 0x3, [PREFIX_NP] = 1, [PREFIX_66] = 2, [PREFIX_F3] = 4, [PREFIX_F2] = 8,
    };
    const struct insn_row *row = &insn_rows[number];
    struct decode_candidate c = { .row = (uint16_t)number, .prefixes = prefix_masks[row->prefix] };
    unsigned all_lengths = ATTR_VEX_L0 | ATTR_VEX_L1 | ATTR_VEX_L2, lengths = row->attributes & all_lengths;

    for (unsigned mode = CODE16; mode <= CODE64; mode++) {
        unsigned w = 3;
        if (row->attributes & (mode == CODE64 ? ATTR_NO64 : ATTR_ONLY64))
            continue;
        if ((row->attributes & ATTR_W0) || ((row->attributes & ATTR_W0_64) && mode == CODE64))
            w = 1;
        else if (row->attributes & ATTR_W1)
            w = 2;
        c.modes_w |= (uint8_t)(w << (mode * 2));
    }
    if (!map_is_vex(row->map) && !map_is_evex(row->map))
        c.lengths = 0xf;
    else if (row->attributes & ATTR_VEX_LIG)
        c.lengths = map_is_vex(row->map) ? 3 : 7;
    else if (!lengths)
        c.lengths = map_is_vex(row->map) ? 3 : 7;
    else
        c.lengths = (uint8_t)(lengths / ATTR_VEX_L0);
    return c;
}

struct builder {
    struct decode_index *index;
    size_t candidate_count, candidate_capacity, slot_count, slot_capacity;
};

static void *grow(void *array, size_t count, size_t *capacity, size_t add, size_t element)
{
    if (count + add <= *capacity)
        return array;
    *capacity = (count + add) * 2;
    array = realloc(array, *capacity * element);
    if (!array)
        abort(); /* a few hundred KiB at start: nothing can be done without */
    return array;
}

static unsigned add_list(struct builder *b, const uint16_t *rows, unsigned count)
{
    struct decode_index *index = b->index;
    unsigned first = (unsigned)b->candidate_count;

    index->candidates = grow(index->candidates, first, &b->candidate_capacity, count + 1, sizeof(*index->candidates));
    for (unsigned i = 0; i < count; i++)
        index->candidates[first + i] = candidate_from_row(rows[i]);
    b->candidate_count += count;
    return first;
}

static void build_opcode(struct builder *b, unsigned map, unsigned opcode, const uint16_t *rows, unsigned count)
{
    struct decode_entry *entry = &b->index->entries[map][opcode];
    uint16_t list[MAX_LIST], previous[MAX_LIST];
    unsigned previous_count = 0, previous_first = 0;

    for (unsigned i = 0; i < count; i++) {
        const struct insn_row *row = &insn_rows[rows[i]];
        entry->has_modrm |= row_has_modrm(row);
        entry->split |= row_has_modrm(row) && row->modrm != MODRM_ANY;
    }
    if (!entry->split) {
        entry->count = (uint8_t)count;
        entry->first = (uint16_t)add_list(b, rows, count);
        return;
    }
    entry->first = (uint16_t)b->slot_count;
    b->index->slots = grow(b->index->slots, b->slot_count, &b->slot_capacity, DECODE_SLOTS, sizeof(*b->index->slots));
    for (unsigned slot = 0; slot < DECODE_SLOTS; slot++) {
        unsigned n = 0;
        for (unsigned i = 0; i < count; i++)
            if (row_matches_slot(&insn_rows[rows[i]], slot))
                list[n++] = rows[i];
        if (n != previous_count || memcmp(list, previous, n * sizeof(*list)) != 0) {
            memcpy(previous, list, n * sizeof(*list));
            previous_first = add_list(b, list, n);
            previous_count = n;
        }
        b->index->slots[b->slot_count++] = (struct decode_slot){ (uint16_t)previous_first, (uint8_t)n };
    }
}

static void build(struct decode_index *index)
{
    struct builder b = { .index = index };
    unsigned first = 0, end = 0;

    for (unsigned map = 0; map < MAP_COUNT; map++) {
        /* insn_rows is in the order of the maps (tests/decode checks that). */
        for (first = end; end < insn_row_count && insn_rows[end].map == map; end++)
            ;
        for (unsigned opcode = 0; opcode < 256; opcode++) {
            uint16_t rows[MAX_LIST];
            unsigned count = 0;
            for (unsigned i = first; i < end; i++) {
                if (!row_matches_opcode(&insn_rows[i], opcode))
                    continue;
                if (count == MAX_LIST)
                    abort(); /* a fault of the table, met by every run */
                unsigned at = count++;
                for (; at > 0 && row_rank(&insn_rows[rows[at - 1]]) < row_rank(&insn_rows[i]); at--)
                    rows[at] = rows[at - 1];
                rows[at] = (uint16_t)i;
            }
            if (count)
                build_opcode(&b, map, opcode, rows, count);
        }
    }
}

/* The one piece of state here: a cache of what insn_rows says. */
static struct decode_index index_storage;
static pthread_once_t index_once = PTHREAD_ONCE_INIT;
static _Atomic bool index_ready; /* release after building, acquire before use */

static void build_once(void)
{
    build(&index_storage);
    atomic_store_explicit(&index_ready, true, memory_order_release);
}

const struct decode_index *decode_index_get(void)
{
    if (unlikely(!atomic_load_explicit(&index_ready, memory_order_acquire))) {
        vector_guard();
        pthread_once(&index_once, build_once);
    }
    return &index_storage;
}
