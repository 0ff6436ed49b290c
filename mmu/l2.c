/* L2: a large set-associative TLB behind the L1 arrays that keeps the translations of several
 * address spaces, so that a switch back to one refills L1 without a walk.
 *
 * Why a hashed cache and not trees of shadow tables: memory is bounded from the start, a miss costs two probes,
 * and an address space is dropped in no time. Every entry carries the number of its space; a
 * PCID owns one number at a time, and all global pages share one. To drop a PCID is to give it a
 * new number; to drop everything is to raise the lowest number that still counts. The entries left behind
 * match nothing and are overwritten. When the 24-bit numbers run out, all is cleared once.
 *
 * Large pages are kept as such, in tables of their own: one entry for 2 MiB (a 4 MiB page is
 * two), one for 1 GiB. So INVLPG finds the whole page at its address.
 *
 * What is kept is what the paging structures said (rights of all levels together), not what it means: control
 * registers, privilege and protection keys are applied when L1 is filled. Host addresses are
 * not kept: the map of physical memory can change without L2 knowing.
 *
 * Threads: the owner of the struct mmu. SDM Vol. 3A 4.10. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "mmu/mmu_internal.h"

#define L2_WAYS       4
#define L2_SPACE_BITS 24
#define L2_SPACE_MASK (BIT(L2_SPACE_BITS) - 1)
#define L2_PCIDS      4096

/*  key:   63..12 address of the page | 11 valid | 10..7 pkey | 6..5 size | 4 G | 3 D | 2..0 RIGHT_*
 *  value: 63..24 gpa of the page >> 12 | 23..0 number of the space                          */
struct l2_entry {
    uint64_t key, value;
};
enum {
    L2_DIRTY = 1 << 3,
    L2_GLOBAL = 1 << 4,
    L2_SIZE_SHIFT = 5,
    L2_PKEY_SHIFT = 7,
    L2_VALID = 1 << 11,
};

struct l2_table {
    struct l2_entry *entries;
    uint32_t set_mask;
    uint8_t shift; /* of the pages in this table */
    bool used;     /* anything inserted since it was cleared */
    uint32_t next_way;
};

struct l2_space {
    gpa_t root;
    uint32_t number; /* counts if it is at least the lowest that does */
};

enum { TABLE_4K, TABLE_2M, TABLE_1G, TABLE_COUNT };

struct mmu_l2 {
    struct l2_table tables[TABLE_COUNT];
    uint32_t next_number, lowest_number;
    uint32_t current, global; /* numbers */
    uint64_t resets;
    struct l2_space spaces[L2_PCIDS];
};

static const struct {
    uint8_t shift, set_bits;
} table_sizes[TABLE_COUNT] = { { 12, 13 }, { 21, 8 }, { 30, 4 } }; /* 512, 16 and 1 KiB */

static unsigned table_of_size(unsigned size_code)
{
    return size_code == PAGE_4K ? TABLE_4K : size_code == PAGE_1G ? TABLE_1G : TABLE_2M;
}

static struct l2_entry *table_set(const struct l2_table *table, gva_t gva, uint32_t number)
{
    uint64_t page = gva >> table->shift;

    /* Neighbouring pages in neighbouring sets; spaces spread over all of them. */
    return &table->entries[((page ^ page >> 13 ^ number * 0x9e3779b1u >> 8) & table->set_mask) * L2_WAYS];
}

static struct l2_entry *table_find(const struct l2_table *table, gva_t gva, uint32_t number)
{
    struct l2_entry *set = table_set(table, gva, number);
    uint64_t page = gva >> table->shift << table->shift;

    for (unsigned way = 0; way < L2_WAYS; way++)
        if ((set[way].key & (PAGE_MASK | L2_VALID)) == (page | L2_VALID) && (set[way].value & L2_SPACE_MASK) == number)
            return &set[way];
    return NULL;
}

bool l2_lookup(const struct mmu_l2 *l2, gva_t gva, struct translation *translation)
{
    /* Global pages are nearly always in the upper half, where kernels live. */
    uint32_t first = gva >> 63 ? l2->global : l2->current, second = gva >> 63 ? l2->current : l2->global;

    for (unsigned i = 0; i < TABLE_COUNT; i++) {
        const struct l2_table *table = &l2->tables[i];
        if (!table->used)
            continue;
        const struct l2_entry *entry = table_find(table, gva, first);
        if (!entry)
            entry = table_find(table, gva, second);
        if (!entry)
            continue;
        gva_t offset = gva & (BIT(table->shift) - 1) & PAGE_MASK;
        *translation = (struct translation){
            .gpa = (entry->value >> L2_SPACE_BITS << PAGE_SHIFT) + offset,
            .rights = entry->key & (RIGHT_WRITE | RIGHT_USER | RIGHT_NO_EXECUTE),
            .pkey = entry->key >> L2_PKEY_SHIFT & 15,
            .size_code = entry->key >> L2_SIZE_SHIFT & 3,
            .dirty = entry->key & L2_DIRTY,
            .global = entry->key & L2_GLOBAL,
        };
        return true;
    }
    return false;
}

void l2_insert(struct mmu_l2 *l2, gva_t gva, const struct translation *translation)
{
    struct l2_table *table = &l2->tables[table_of_size(translation->size_code)];
    uint32_t number = translation->global ? l2->global : l2->current;
    uint64_t offset_mask = BIT(table->shift) - 1;
    struct l2_entry *entry = table_find(table, gva, number);

    if (!entry) {
        struct l2_entry *set = table_set(table, gva, number);
        entry = &set[table->next_way++ % L2_WAYS];
        for (unsigned way = 0; way < L2_WAYS; way++)
            if (!(set[way].key & L2_VALID))
                entry = &set[way];
    }
    entry->key = (gva & ~offset_mask) | L2_VALID | translation->rights | (translation->dirty ? L2_DIRTY : 0) |
                 (translation->global ? L2_GLOBAL : 0) | (uint64_t)translation->size_code << L2_SIZE_SHIFT |
                 (uint64_t)translation->pkey << L2_PKEY_SHIFT;
    entry->value = (translation->gpa & ~offset_mask) >> PAGE_SHIFT << L2_SPACE_BITS | number;
    table->used = true;
}

static void remove_number(struct mmu_l2 *l2, gva_t gva, uint32_t number)
{
    for (unsigned i = 0; i < TABLE_COUNT; i++) {
        const struct l2_table *table = &l2->tables[i];
        struct l2_entry *entry = table->used ? table_find(table, gva, number) : NULL;
        if (entry)
            entry->key = 0;
        if (i != TABLE_2M || !table->used)
            continue;
        /* the other half of a 4 MiB page */
        entry = table_find(table, gva ^ BIT(21), number);
        if (entry && (entry->key >> L2_SIZE_SHIFT & 3) == PAGE_4M)
            entry->key = 0;
    }
}

void l2_remove(struct mmu_l2 *l2, gva_t gva)
{
    remove_number(l2, gva, l2->current);
    remove_number(l2, gva, l2->global);
}

void l2_remove_pcid(struct mmu_l2 *l2, unsigned pcid, gva_t gva)
{
    const struct l2_space *space = &l2->spaces[pcid % L2_PCIDS];

    if (space->number >= l2->lowest_number)
        remove_number(l2, gva, space->number);
}

/* ---- Address spaces ---- */

static void l2_clear(struct mmu_l2 *l2)
{
    for (unsigned i = 0; i < TABLE_COUNT; i++) {
        struct l2_table *table = &l2->tables[i];
        /* also if not `used`: numbers begin again, and old entries must not match them */
        memset(table->entries, 0, ((size_t)table->set_mask + 1) * L2_WAYS * sizeof(struct l2_entry));
        table->used = false;
    }
    memset(l2->spaces, 0, sizeof(l2->spaces));
    l2->lowest_number = 1;
    l2->global = 1;
    l2->current = 2; /* nobody's, until l2_select */
    l2->next_number = 3;
    l2->resets++;
}

static uint32_t new_number(struct mmu_l2 *l2)
{
    if (l2->next_number > L2_SPACE_MASK)
        l2_clear(l2);
    return l2->next_number++;
}

bool l2_select(struct mmu_l2 *l2, unsigned pcid, gpa_t root, bool keep)
{
    struct l2_space *space = &l2->spaces[pcid % L2_PCIDS];
    bool same = keep && space->root == root && space->number >= l2->lowest_number && space->number == l2->current;

    if (!keep || space->root != root || space->number < l2->lowest_number) {
        uint32_t number = new_number(l2);
        *space = (struct l2_space){ root, number };
    }
    l2->current = space->number;
    return same;
}

uint32_t l2_current(const struct mmu_l2 *l2)
{
    return l2->current;
}

uint64_t l2_resets(const struct mmu_l2 *l2)
{
    return l2->resets;
}

void l2_flush_pcid(struct mmu_l2 *l2, unsigned pcid)
{
    l2->spaces[pcid % L2_PCIDS].number = 0;
}

void l2_flush(struct mmu_l2 *l2, bool globals)
{
    if (globals) {
        for (unsigned i = 0; i < TABLE_COUNT; i++)
            l2->tables[i].used = false; /* their entries match no number below */
        l2->global = new_number(l2);
    }
    l2->lowest_number = l2->next_number;
}

struct mmu_l2 *l2_create(struct error *err)
{
    struct mmu_l2 *l2 = calloc(1, sizeof(*l2));

    for (unsigned i = 0; l2 && i < TABLE_COUNT; i++) {
        struct l2_table *table = &l2->tables[i];
        table->shift = table_sizes[i].shift;
        table->set_mask = (1u << table_sizes[i].set_bits) - 1;
        table->entries = calloc((size_t)L2_WAYS << table_sizes[i].set_bits, sizeof(struct l2_entry));
        if (!table->entries) {
            l2_destroy(l2);
            l2 = NULL;
        }
    }
    if (!l2)
        error_set(err, ENOMEM, "out of memory for the TLB");
    else
        l2_clear(l2);
    return l2;
}

void l2_destroy(struct mmu_l2 *l2)
{
    if (!l2)
        return;
    for (unsigned i = 0; i < TABLE_COUNT; i++)
        free(l2->tables[i].entries);
    free(l2);
}
