/* See model.h. The tables of the manual are kept as text: for each kind of entry the fields
 * that are reserved, spelled as there ("51:M": from MAXPHYADDR to 51). The three modes are written out step by step. */
#include "model.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Tables 4-4 to 4-6 (32-bit), 4-9 to 4-11 (PAE), 4-15 to 4-20 (4-level). XD without NXE is handled apart. */
static const char pde32_4mb[] = "21:M-19";
static const char pde32_table[] = "";
static const char pte32[] = "";
static const char pde_pae_2mb[] = "62:M 20:13";
static const char pde_pae_table[] = "62:M";
static const char pte_pae[] = "62:M";
static const char pml4e[] = "51:M 7:7";
static const char pdpte_1gb[] = "51:M 29:13";
static const char pdpte_table[] = "51:M";
static const char pdpte_no_1gb[] = "51:M 7:7";
static const char pde_2mb[] = "51:M 20:13";
static const char pde_table[] = "51:M";
static const char pte[] = "51:M";

static int bit(uint64_t value, int n)
{
    return (int)(value >> n & 1);
}

static int parse_number(const char *text, int m)
{
    if (text[0] == 'M')
        return m + (text[1] == '-' ? -atoi(text + 2) : 0);
    return atoi(text);
}

static bool sets_reserved(const struct model_controls *controls, uint64_t entry, const char *fields)
{
    int m = (int)controls->maxphyaddr;

    if (controls->mode == MODEL_32BIT && m > 40)
        m = 40;
    if (controls->mode != MODEL_32BIT && !controls->nxe && bit(entry, 63))
        return true;
    while (*fields) {
        int high = parse_number(fields, m);
        int low = parse_number(strchr(fields, ':') + 1, m);
        for (int n = low; n <= high; n++)
            if (bit(entry, n))
                return true;
        fields += strcspn(fields, " ");
        fields += *fields == ' ';
    }
    return false;
}

struct translation_state {
    const struct model_controls *controls;
    uint64_t (*read)(void *opaque, uint64_t address, unsigned size);
    void *opaque;
    unsigned entry_size;
    uint64_t entries[4], addresses[4];
    unsigned used;
    bool not_present, reserved;
    uint64_t base, page_size;
};

static uint64_t fetch(struct translation_state *state, uint64_t table, uint64_t index)
{
    uint64_t address = table + index * state->entry_size;
    uint64_t entry = state->read(state->opaque, address, state->entry_size);

    state->addresses[state->used] = address;
    state->entries[state->used++] = entry;
    return entry;
}

/* True: go on below this entry. */
static bool usable(struct translation_state *state, uint64_t entry, const char *fields)
{
    if (!bit(entry, 0))
        state->not_present = true;
    else if (sets_reserved(state->controls, entry, fields))
        state->reserved = true;
    return !state->not_present && !state->reserved;
}

static uint64_t field(uint64_t value, int high, int low)
{
    uint64_t result = 0;

    for (int n = low; n <= high; n++)
        result |= (uint64_t)bit(value, n) << (n - low);
    return result;
}

/* 4.3 */
static void translate_32bit(struct translation_state *state, uint64_t address)
{
    uint64_t pde = fetch(state, field(state->controls->cr3, 31, 12) << 12, field(address, 31, 22));

    if (state->controls->pse && bit(pde, 7)) {
        if (!usable(state, pde, pde32_4mb))
            return;
        state->base = field(pde, 31, 22) << 22 | field(pde, 20, 13) << 32;
        state->page_size = 4 << 20;
        return;
    }
    if (!usable(state, pde, pde32_table))
        return;
    uint64_t entry = fetch(state, field(pde, 31, 12) << 12, field(address, 21, 12));
    if (!usable(state, entry, pte32))
        return;
    state->base = field(entry, 31, 12) << 12;
    state->page_size = 4096;
}

/* 4.4 */
static void translate_pae(struct translation_state *state, uint64_t address)
{
    uint64_t pdpte = state->controls->pdpte[field(address, 31, 30)];

    if (!bit(pdpte, 0)) {
        state->not_present = true;
        return;
    }
    uint64_t pde = fetch(state, field(pdpte, 51, 12) << 12, field(address, 29, 21));
    if (bit(pde, 7)) {
        if (!usable(state, pde, pde_pae_2mb))
            return;
        state->base = field(pde, 51, 21) << 21;
        state->page_size = 2 << 20;
        return;
    }
    if (!usable(state, pde, pde_pae_table))
        return;
    uint64_t entry = fetch(state, field(pde, 51, 12) << 12, field(address, 20, 12));
    if (!usable(state, entry, pte_pae))
        return;
    state->base = field(entry, 51, 12) << 12;
    state->page_size = 4096;
}

/* 4.5 */
static void translate_4level(struct translation_state *state, uint64_t address)
{
    uint64_t top = fetch(state, field(state->controls->cr3, 51, 12) << 12, field(address, 47, 39));
    if (!usable(state, top, pml4e))
        return;
    uint64_t pdpte = fetch(state, field(top, 51, 12) << 12, field(address, 38, 30));
    if (bit(pdpte, 7) && state->controls->page_1gib) {
        if (!usable(state, pdpte, pdpte_1gb))
            return;
        state->base = field(pdpte, 51, 30) << 30;
        state->page_size = 1 << 30;
        return;
    }
    if (!usable(state, pdpte, state->controls->page_1gib ? pdpte_table : pdpte_no_1gb))
        return;
    uint64_t pde = fetch(state, field(pdpte, 51, 12) << 12, field(address, 29, 21));
    if (bit(pde, 7)) {
        if (!usable(state, pde, pde_2mb))
            return;
        state->base = field(pde, 51, 21) << 21;
        state->page_size = 2 << 20;
        return;
    }
    if (!usable(state, pde, pde_table))
        return;
    uint64_t entry = fetch(state, field(pde, 51, 12) << 12, field(address, 20, 12));
    if (!usable(state, entry, pte))
        return;
    state->base = field(entry, 51, 12) << 12;
    state->page_size = 4096;
}

/* 4.6.1, in the order of the manual's list. */
static bool access_permitted(const struct model_controls *c, const struct model_access *a, bool user_address,
                             bool every_rw, bool any_xd)
{
    if (!a->user) {
        if (!a->write && !a->fetch) { /* data reads */
            if (!user_address)
                return true;
            return !c->smap || a->ac;
        }
        if (a->write) {
            if (!user_address)
                return c->wp ? every_rw : true;
            if (c->wp)
                return every_rw && (!c->smap || a->ac);
            return !c->smap || a->ac;
        }
        if (!user_address) /* fetches */
            return c->mode == MODEL_32BIT || !c->nxe || !any_xd;
        if (c->smep)
            return false;
        return c->mode == MODEL_32BIT || !c->nxe || !any_xd;
    }
    if (!user_address)
        return false;
    if (a->write)
        return every_rw;
    if (a->fetch)
        return c->mode == MODEL_32BIT || !c->nxe || !any_xd;
    return true;
}

/* 4.6.2 */
static bool key_permits(const struct model_controls *c, const struct model_access *a, bool user_address, uint64_t leaf)
{
    if (c->mode != MODEL_4LEVEL || a->fetch)
        return true;
    if (user_address ? !c->pke : !c->pks)
        return true;
    uint32_t rights = user_address ? c->pkru : c->pkrs;
    int key = (int)field(leaf, 62, 59);
    int ad = (int)(rights >> (2 * key) & 1), wd = (int)(rights >> (2 * key + 1) & 1);
    if (ad)
        return false;
    if (a->write && wd && (a->user || c->wp))
        return false;
    return true;
}

/* 4.7 */
static uint32_t fault_error(const struct model_controls *c, const struct model_access *a, bool present, bool reserved,
                            bool key)
{
    bool fetches_shown = c->smep || (c->mode != MODEL_32BIT && c->nxe);

    return (present ? 1u : 0) | (a->write ? 2u : 0) | (a->user ? 4u : 0) | (reserved ? 8u : 0) |
           (a->fetch && fetches_shown ? 16u : 0) | (key ? 32u : 0);
}

struct model_outcome model_translate(const struct model_controls *controls, const struct model_access *access,
                                     uint64_t (*read)(void *opaque, uint64_t address, unsigned size), void *opaque)
{
    struct translation_state state = { .controls = controls, .read = read, .opaque = opaque };
    struct model_outcome outcome = { 0 };

    state.entry_size = controls->mode == MODEL_32BIT ? 4 : 8;
    if (controls->mode == MODEL_32BIT)
        translate_32bit(&state, access->address);
    else if (controls->mode == MODEL_PAE)
        translate_pae(&state, access->address);
    else
        translate_4level(&state, access->address);

    if (state.not_present || state.reserved) {
        outcome.fault = true;
        outcome.error = fault_error(controls, access, !state.not_present, state.reserved, false);
        return outcome;
    }
    bool user_address = true, every_rw = true, any_xd = false;
    for (unsigned i = 0; i < state.used; i++) {
        user_address = user_address && bit(state.entries[i], 2);
        every_rw = every_rw && bit(state.entries[i], 1);
        any_xd = any_xd || bit(state.entries[i], 63);
    }
    uint64_t leaf = state.entries[state.used - 1];
    bool key = key_permits(controls, access, user_address, leaf);
    if (!access_permitted(controls, access, user_address, every_rw, any_xd) || !key) {
        outcome.fault = true;
        outcome.error = fault_error(controls, access, true, false, !key);
        return outcome;
    }
    outcome.page_size = state.page_size;
    outcome.physical = state.base + access->address % state.page_size;
    outcome.global = controls->pge && bit(leaf, 8);
    outcome.dirty = bit(leaf, 6) || access->write;
    for (unsigned i = 0; i < state.used; i++) { /* 4.8 */
        uint64_t value = state.entries[i] | 1u << 5;
        if (i == state.used - 1 && access->write)
            value |= 1u << 6;
        if (value != state.entries[i])
            outcome.changes[outcome.change_count++] =
                (struct model_change){ state.addresses[i], value, state.entry_size };
    }
    return outcome;
}
