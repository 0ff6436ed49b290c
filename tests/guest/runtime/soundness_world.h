/* What the random tests beside a model share (soundness_groups, soundness_loops, soundness_strings): a world of a few
 * pages with rights, filled at random, and the machine that a model works on: registers, flags, the bytes of those
 * pages, their accessed and dirty bits, and the fault that ends a probe. An image writes down what its own instructions
 * do; difference() says whether the engine did the same. SDM Vol. 1 3.4.3; Vol. 3A 4.6 to 4.8. */
#ifndef TESTS_GUEST_RUNTIME_SOUNDNESS_WORLD_H
#define TESTS_GUEST_RUNTIME_SOUNDNESS_WORLD_H

#include "soundness.h"

/* ---- Worlds ---- */

enum rights { ABSENT = '-', READ_ONLY = 'r', READ_WRITE = 'w', SUPERVISOR = 's', OPEN_BUS = 'o' };
enum { MAX_PAGES = 7 };

struct place {
    u64 va;
    u64 *entry; /* its page table entry */
};

/* A page for each letter of `rights`; there are as many frames. */
struct world {
    const char *name;
    enum mode mode;
    char frames[MAX_PAGES + 1]; /* '0' is FREE_FRAME; several pages may show one */
    char rights[MAX_PAGES + 1];
    const struct place *places; /* where the pages are; NULL: in a row, from FREE on */
};

/* What the model has in the frames, and as A and D in the entries (pages, as bits). */
static u8 shadow[MAX_PAGES][PAGE] __attribute__((aligned(8)));
static unsigned shadow_accessed, shadow_dirty;

static inline int user(const struct world *w)
{
    return w->mode == USER || w->mode == USER32;
}

static inline int compat(const struct world *w)
{
    return w->mode == USER32 || w->mode == KERNEL32;
}

/* The number of the page; MAX_PAGES, which has no rights, if the world ends before it. */
static inline unsigned page_of(const struct world *w, u64 va)
{
    u64 page = (va - FREE) / PAGE;

    if (w->places)
        for (page = 0; w->rights[page] && va - w->places[page].va >= PAGE;)
            page++;
    return page < MAX_PAGES && w->rights[page] ? (unsigned)page : MAX_PAGES;
}

static inline u64 *entry_of(const struct world *w, unsigned page)
{
    return w->places ? w->places[page].entry : pte(FREE + page * PAGE);
}

static inline word frame_of(const struct world *w, unsigned page)
{
    return (word)(w->frames[page] - '0');
}

static inline void map_world(const struct world *w)
{
    for (unsigned n = 0; w->rights[n]; n++) {
        u64 frame = w->rights[n] == OPEN_BUS ? NOWHERE : FREE_FRAME + frame_of(w, n) * PAGE;
        u64 flags = P | (w->rights[n] != READ_ONLY ? W : 0) | (w->rights[n] != SUPERVISOR ? U : 0);

        *(volatile u64 *)entry_of(w, n) = w->rights[n] == ABSENT ? 0 : frame | flags;
    }
    shadow_accessed = shadow_dirty = 0;
    flush_tlb();
}

/* All of it as at the beginning, with other contents. */
static inline void set_world(const struct world *w, u64 *seed)
{
    for (unsigned n = 0; w->rights[n]; n++)
        for (unsigned at = 0; at < PAGE; at += 8) {
            u64 value = random64(seed);

            FRAME64(FREE_FRAME + n * PAGE)[at / 8] = value;
            __builtin_memcpy(&shadow[n][at], &value, 8);
        }
    map_world(w);
}

static inline void clear_bits(const struct world *w)
{
    for (unsigned n = 0; w->rights[n]; n++) {
        *(volatile u64 *)entry_of(w, n) &= ~(u64)(A | D);
        invalidate(w->places ? w->places[n].va : FREE + n * PAGE);
    }
    shadow_accessed = shadow_dirty = 0;
}

/* ---- The machine ---- */

struct machine {
    union { /* rip: at the end, where it has to be */
        struct regs state;
        u64 regs[16];
    };
    word undefined; /* status flags */
    struct outcome outcome;
    unsigned maybe_accessed, maybe_dirty; /* pages, as bits: by an access that faults */
};

static inline struct machine start_machine(const struct regs *in)
{
    return (struct machine){ .state = *in, .outcome = { VECTOR_DONE, 0, 0 } };
}

/* The first byte that cannot be accessed is where the fault comes. What is done to the bits of its page, and of those
 * before it, is up to the processor; but D is not for a page that nothing may be written to. */
static inline int faults(const struct world *w, struct machine *m, u64 va, unsigned size, int write)
{
    unsigned pages = 0, in_page;

    for (unsigned i = 0; i < size; i += in_page) {
        unsigned page = page_of(w, va + i);
        enum rights r = w->rights[page];

        in_page = PAGE - (va + i) % PAGE;
        if (r == READ_WRITE || r == OPEN_BUS || (r == READ_ONLY && !write) || (r == SUPERVISOR && !user(w))) {
            pages |= 1u << page;
            continue;
        }
        m->outcome = (struct outcome){ PG, (r && r != ABSENT) | (word)write << 1 | (word)user(w) << 2, va + i };
        m->maybe_accessed |= pages | 1u << page | 1u << page_of(w, va + size - 1);
        m->maybe_dirty |= write ? pages : 0;
        return 1;
    }
    shadow_accessed |= pages;
    shadow_dirty |= write ? pages : 0;
    return 0;
}

/* NULL: nobody is there, on an open bus. */
static inline u8 *model_byte(const struct world *w, u64 va)
{
    unsigned page = page_of(w, va);

    return w->rights[page] == OPEN_BUS ? 0 : &shadow[frame_of(w, page)][va % PAGE];
}

/* Of and to what does not fault. */
static inline u64 read_model(const struct world *w, u64 va, unsigned size)
{
    u64 value = 0;

    for (unsigned i = 0; i < size; i++) {
        const u8 *byte = model_byte(w, va + i);

        value |= (u64)(byte ? *byte : 0xff) << 8 * i;
    }
    return value;
}

static inline void write_model(const struct world *w, u64 va, unsigned size, u64 value)
{
    for (unsigned i = 0; i < size; i++) {
        u8 *byte = model_byte(w, va + i);

        if (byte)
            *byte = (u8)(value >> 8 * i);
    }
}

/* ---- Its arithmetic ---- */

/* The flags of a result, and CF, AF, OF of the carries out of each bit. */
static inline void set_flags(struct machine *m, u64 result, u64 carries, unsigned size, int borrow)
{
    unsigned top = 8 * size - 1, parity = (u8)result;
    word flags;

    parity ^= parity >> 4;
    parity ^= parity >> 2;
    parity ^= parity >> 1;
    flags = (result ? 0 : ZF) | (result >> top & 1 ? SF : 0) | (parity & 1 ? 0 : PF);
    flags |= ((carries >> top & 1) ^ (word)borrow ? CF : 0) | ((carries >> 3 & 1) ^ (word)borrow ? AF : 0);
    flags |= ((carries >> top) ^ (carries >> (top - 1))) & 1 ? OF : 0;
    m->state.rflags = (m->state.rflags & ~(word)STATUS) | flags;
    m->undefined = 0;
}

static inline u64 add(struct machine *m, u64 a, u64 b, int carry, unsigned size)
{
    u64 sum = (a + b + (u64)carry) & mask_of(size);

    set_flags(m, sum, (a & b) | ((a | b) & ~sum), size, 0);
    return sum;
}

static inline u64 subtract(struct machine *m, u64 a, u64 b, int borrow, unsigned size)
{
    u64 difference = (a - b - (u64)borrow) & mask_of(size);

    set_flags(m, difference, (a & ~b) | ((a | ~b) & ~difference), size, 1);
    return difference;
}

/* INC and DEC: CF stays. */
static inline u64 step_by(struct machine *m, u64 a, int by, unsigned size)
{
    word carry = m->state.rflags & CF;
    u64 result = by > 0 ? add(m, a, 1, 0, size) : subtract(m, a, 1, 0, size);

    m->state.rflags = (m->state.rflags & ~(word)CF) | carry;
    return result;
}

static inline u64 bitwise_and(struct machine *m, u64 a, u64 b, unsigned size)
{
    u64 result = a & b & mask_of(size);

    set_flags(m, result, 0, size, 0);
    m->undefined = AF;
    return result;
}

static inline void write_reg(struct machine *m, unsigned reg, u64 value, unsigned size)
{
    u64 mask = mask_of(size);

    m->regs[reg] = size == 4 ? (u32)value : (m->regs[reg] & ~mask) | (value & mask);
}

/* ---- The comparison ---- */

/* Unrolled: nearly all of these images' instructions are here, and some engines are slow. */
static inline int same_memory(const struct world *w)
{
    u64 different = 0;

    for (unsigned n = 0; w->rights[n]; n++) {
        const u64 *want = (const u64 *)(const void *)shadow[n];

        for (unsigned at = 0; at < PAGE / 8; at += 8) {
            volatile u64 *is = FRAME64(FREE_FRAME + n * PAGE) + at;

            different |= (is[0] ^ want[at]) | (is[1] ^ want[at + 1]) | (is[2] ^ want[at + 2]) | (is[3] ^ want[at + 3]);
            different |=
                (is[4] ^ want[at + 4]) | (is[5] ^ want[at + 5]) | (is[6] ^ want[at + 6]) | (is[7] ^ want[at + 7]);
        }
    }
    return !different;
}

/* Set for what was done, and for nothing that was not reached. What is up to the processor stays as it is. */
static inline int same_bits(const struct world *w, const struct machine *m)
{
    unsigned accessed = 0, dirty = 0;

    for (unsigned n = 0; w->rights[n]; n++) {
        accessed |= (*entry_of(w, n) & A ? 1u : 0) << n;
        dirty |= (*entry_of(w, n) & D ? 1u : 0) << n;
    }
    shadow_accessed |= accessed & m->maybe_accessed;
    shadow_dirty |= dirty & m->maybe_dirty;
    return accessed == shadow_accessed && dirty == shadow_dirty;
}

/* What the engine did otherwise than the model; NULL: nothing. */
static inline const char *difference(const struct world *w, const struct machine *m, const struct regs *out)
{
    if (!same_outcome(&m->outcome, out))
        return "event";
    if (out->rip != m->state.rip)
        return "position";
    for (unsigned i = 0; i < 16; i++)
        if ((&out->rax)[i] != m->regs[i])
            return "register";
    if ((out->rflags ^ m->state.rflags) & (STATUS | DF) & ~m->undefined)
        return "flags";
    if (!same_memory(w))
        return "memory";
    return same_bits(w, m) ? 0 : "bits";
}

#endif
