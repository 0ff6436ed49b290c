/* FXSAVE and XSAVE areas: byte for byte what the host writes, and state as the host loads it. */
#include <criterion/criterion.h>
#include <string.h>

#include "cpu/interp/interp_fast.h"
#include "mmu/paging_bits.h"
#include "tests/hostop/fixture.h"

#define SEED 0x5eed0513
#define AREA 1024

struct form {
    const char *name, *bytes;
    size_t length;
};
#define FORM(name, bytes)                                                                                              \
    {                                                                                                                  \
        name, bytes, sizeof(bytes) - 1                                                                                 \
    }

static void random_state(uint64_t *seed, struct fixture *f, struct native_state *native)
{
    struct fxsave_area *fx = &native->fx;
    memset(native, 0, sizeof(*native));
    random_fill(seed, native->vec, sizeof(native->vec));
    fx->fcw = (uint16_t)((random_next(seed) & 0xf00) | 0x7f);
    fx->fsw = (uint16_t)(random_next(seed) & 0x7f3f);
    fx->ftw = (uint8_t)random_next(seed);
    fx->fop = random_next(seed) & 0x7ff;
    fx->fip = random_next(seed) & 0x7fffffffffff;
    fx->fdp = random_next(seed) & 0x7fffffffffff;
    for (unsigned i = 0; i < 8; i++)
        random_fill(seed, fx->st[i], 10);
    native->use_x87 = 1;
    native->mxcsr = fx->mxcsr = random_next(seed) & 0xffff;
    fx->mxcsr_mask = f->cpu->vector.fx.mxcsr_mask;
    f->cpu->vector.fx = *fx;
    for (unsigned i = 0; i < 16; i++) {
        memset(f->cpu->vector.vec[i], 0, 64);
        memcpy(f->cpu->vector.vec[i], native->vec[i], 32);
    }
    /* fxrstor in native_run must load the same xmm registers */
    for (unsigned i = 0; i < 16; i++)
        memcpy(fx->xmm[i], native->vec[i], 16);
}

static void compare_state(const char *name, const struct fixture *f, const struct native_state *native)
{
    const struct fxsave_area *ours = &f->cpu->vector.fx, *host = &native->fx;
    cr_assert_eq(ours->fcw, host->fcw, "%s: fcw %x, host %x", name, ours->fcw, host->fcw);
    cr_assert_eq(ours->fsw, host->fsw, "%s: fsw %x, host %x", name, ours->fsw, host->fsw);
    cr_assert_eq(ours->ftw, host->ftw, "%s: ftw", name);
    cr_assert_eq(ours->fop, host->fop, "%s: fop", name);
    cr_assert_eq(ours->fip, host->fip, "%s: fip %lx, host %lx", name, ours->fip, host->fip);
    cr_assert_eq(ours->fdp, host->fdp, "%s: fdp", name);
    for (unsigned i = 0; i < 8; i++)
        cr_assert(!memcmp(ours->st[i], host->st[i], 10), "%s: st%u", name, i);
    cr_assert_eq(ours->mxcsr, host->mxcsr, "%s: mxcsr %x, host %x", name, ours->mxcsr, host->mxcsr);
    for (unsigned i = 0; i < 16; i++)
        cr_assert(!memcmp(f->cpu->vector.vec[i], native->vec[i], 32), "%s: ymm%u", name, i);
}

static void set_mask(struct fixture *f, struct native_state *native, uint64_t mask)
{
    native->rax = f->cpu->gpr[REG_RAX] = mask;
    native->rdx = f->cpu->gpr[REG_RDX] = 0;
}

/* The host's XCR0 may have more components than the guest's: the mask keeps them out. */
static bool comparable(const struct fixture *f)
{
    return host_has_avx() && cpu_has(f->cpu, FEATURE_XSAVEC) && cpu_has(f->cpu, FEATURE_XSAVEOPT);
}

Test(xsave, saves_as_the_host)
{
    static const struct form forms[] = {
        FORM("fxsave", "\x0f\xae\x03"),       FORM("fxsave64", "\x48\x0f\xae\x03"),   FORM("xsave", "\x0f\xae\x23"),
        FORM("xsave64", "\x48\x0f\xae\x23"),  FORM("xsaveopt64", "\x48\x0f\xae\x33"), FORM("xsavec", "\x0f\xc7\x23"),
        FORM("xsavec64", "\x48\x0f\xc7\x23"),
    };
    static const gva_t places[] = { DATA, DATA + 0x1000 - 512, MMIO_LIKE_PAGE };
    static uint8_t memory[AREA] __attribute__((aligned(64)));
    uint64_t seed = SEED;
    struct fixture *f = fixture_create();
    for (unsigned round = 0; comparable(f) && round < 700; round++) {
        const struct form *form = &forms[round % ARRAY_SIZE(forms)];
        gva_t gva = places[random_next(&seed) % 3];
        struct native_state native;
        random_state(&seed, f, &native);
        random_fill(&seed, memory, sizeof(memory));
        for (unsigned i = 0; i < AREA; i++)
            *fixture_memory(f, gva + i) = memory[i];
        set_mask(f, &native, random_next(&seed) & 7);
        native.rbx = (uint64_t)(uintptr_t)memory;
        f->cpu->gpr[REG_RBX] = gva;
        cr_assert_eq(fixture_run(f, form->bytes, form->length), STEP_NEXT);
        native_run(&native, form->bytes, form->length);
        for (unsigned i = 0; i < AREA; i++)
            cr_assert_eq(*fixture_memory(f, gva + i), memory[i],
                         "%s mask %lx: byte %u: %02x, host %02x (seed %x round %u)", form->name, native.rax, i,
                         *fixture_memory(f, gva + i), memory[i], SEED, round);
    }
    fixture_destroy(f);
}

/* Random areas with a valid header, standard or compacted. */
static void random_area(uint64_t *seed, uint8_t area[AREA], bool compacted)
{
    uint64_t header[8] = { random_next(seed) & 7 };
    struct fxsave_area head;
    random_fill(seed, area, AREA);
    memcpy(&head, area, sizeof(head));
    head.fip &= 0x7fffffffffff;
    head.fdp &= 0x7fffffffffff;
    head.mxcsr &= 0xffff;
    head.fcw |= 0x3f; /* no pending exception: the next instruction of native_run would not care, but FNINIT ... */
    memcpy(area, &head, sizeof(head));
    if (compacted) {
        header[1] = XCOMP_BV_COMPACTED | (random_next(seed) & 7);
        header[0] &= header[1];
    }
    memcpy(area + XSAVE_LEGACY_SIZE, header, sizeof(header));
}

Test(xsave, loads_as_the_host)
{
    static const struct form forms[] = {
        FORM("fxrstor", "\x0f\xae\x0b"),
        FORM("fxrstor64", "\x48\x0f\xae\x0b"),
        FORM("xrstor", "\x0f\xae\x2b"),
        FORM("xrstor64", "\x48\x0f\xae\x2b"),
    };
    static uint8_t memory[AREA] __attribute__((aligned(64)));
    uint64_t seed = SEED + 1;
    struct fixture *f = fixture_create();
    for (unsigned round = 0; comparable(f) && round < 800; round++) {
        const struct form *form = &forms[round % ARRAY_SIZE(forms)];
        gva_t gva = round & 4 ? DATA : DATA + 0x1000 - 256;
        struct native_state native;
        random_state(&seed, f, &native);
        random_area(&seed, memory, random_next(&seed) & 1);
        for (unsigned i = 0; i < AREA; i++)
            *fixture_memory(f, gva + i) = memory[i];
        set_mask(f, &native, random_next(&seed) & 7);
        native.rbx = (uint64_t)(uintptr_t)memory;
        f->cpu->gpr[REG_RBX] = gva;
        cr_assert_eq(fixture_run(f, form->bytes, form->length), STEP_NEXT, "%s: vector %u", form->name,
                     f->cpu->fault.vector);
        native_run(&native, form->bytes, form->length);
        compare_state(form->name, f, &native);
    }
    fixture_destroy(f);
}

static void put_header(struct fixture *f, unsigned index, uint64_t value)
{
    memcpy(fixture_memory(f, DATA + XSAVE_LEGACY_SIZE + 8 * index), &value, 8);
}

static enum step try_xrstor(struct fixture *f, uint64_t xstate_bv, uint64_t xcomp_bv, unsigned extra, uint32_t mxcsr,
                            uint64_t mask)
{
    memset(fixture_memory(f, DATA), 0, AREA);
    memcpy(fixture_memory(f, DATA + 24), &mxcsr, 4);
    put_header(f, 0, xstate_bv);
    put_header(f, 1, xcomp_bv);
    if (extra)
        put_header(f, extra, 1);
    f->cpu->gpr[REG_RBX] = DATA;
    f->cpu->gpr[REG_RAX] = mask;
    f->cpu->gpr[REG_RDX] = 0;
    return RUN(f, "\x48\x0f\xae\x2b");
}

/* Each line was tried on a processor. */
Test(xsave, header_and_mxcsr_checks)
{
    const uint64_t c = XCOMP_BV_COMPACTED;
    static const struct {
        uint64_t xstate_bv, xcomp_bv;
        unsigned extra;
        uint32_t mxcsr;
        uint64_t mask;
        bool fault;
    } cases[] = {
        { 7, 0, 0, 0x1f80, 7, false },
        { 7, 0, 2, 0x1f80, 7, true },
        { 7, 0, 3, 0x1f80, 7, false },
        { 7, 0, 7, 0x1f80, 7, false },
        { 7, 1, 0, 0x1f80, 7, true },
        { 7 | 1 << 20, 0, 0, 0x1f80, 7, true },
        { 7, c | 3, 0, 0x1f80, 7, true },
        { 3, c | 7, 7, 0x1f80, 7, true },
        { 3, c | 7 | 1 << 20, 0, 0x1f80, 7, true },
        { 0, 0, 0, 0xffffffff, 7, true },
        { 0, 0, 0, 0xffffffff, 1, false },
        { 4, 0, 0, 0xffffffff, 4, true },
        { 0, c | 7, 0, 0xffffffff, 7, false },
        { 3, c | 7, 0, 0xffffffff, 4, false },
        { 3, c | 7, 0, 0xffffffff, 2, true },
        { 4, c | 7, 0, 0xffffffff, 6, false },
    };
    struct fixture *f = fixture_create();
    (void)c;
    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        enum step step =
            try_xrstor(f, cases[i].xstate_bv, cases[i].xcomp_bv, cases[i].extra, cases[i].mxcsr, cases[i].mask);
        cr_assert_eq(step, cases[i].fault ? STEP_FAULT : STEP_NEXT, "case %u", i);
        if (cases[i].fault)
            cr_assert_eq(f->cpu->fault.vector, VECTOR_GP);
    }
    /* MXCSR: 1F80H when the compacted form initialises SSE, untouched when only AVX is asked for */
    f->cpu->vector.fx.mxcsr = 0x1fbf;
    try_xrstor(f, 5, c | 7, 0, 0, 7);
    cr_assert_eq(f->cpu->vector.fx.mxcsr, 0x1f80);
    f->cpu->vector.fx.mxcsr = 0x1fbf;
    try_xrstor(f, 7, c | 7, 0, 0x1f80, 4);
    cr_assert_eq(f->cpu->vector.fx.mxcsr, 0x1fbf);
    try_xrstor(f, 0, 0, 0, 0x1f80, 4);
    cr_assert_eq(f->cpu->vector.fx.mxcsr, 0x1f80);
    fixture_destroy(f);
}

Test(xsave, initial_state_is_not_written)
{
    struct fixture *f = fixture_create();
    uint64_t header[2];
    f->cpu->gpr[REG_RBX] = DATA;
    f->cpu->gpr[REG_RAX] = 7;
    f->cpu->gpr[REG_RDX] = 0;
    memset(fixture_memory(f, DATA), 0xcc, AREA);
    cr_assert_eq(RUN(f, "\x48\x0f\xc7\x23"), STEP_NEXT); /* xsavec64 */
    memcpy(header, fixture_memory(f, DATA + XSAVE_LEGACY_SIZE), 16);
    cr_assert(header[0] == 0 && header[1] == (XCOMP_BV_COMPACTED | 7));
    cr_assert_eq(*fixture_memory(f, DATA), 0xcc);
    cr_assert_eq(*fixture_memory(f, DATA + 24), 0xcc);
    f->cpu->vector.fx.mxcsr = 0x1fa0; /* makes SSE count as in use for XSAVEC */
    cr_assert_eq(RUN(f, "\x48\x0f\xc7\x23"), STEP_NEXT);
    memcpy(header, fixture_memory(f, DATA + XSAVE_LEGACY_SIZE), 16);
    cr_assert(header[0] == 2 && *fixture_memory(f, DATA + 24) == 0xa0 && *fixture_memory(f, DATA + 160) == 0);
    memset(fixture_memory(f, DATA), 0xcc, AREA);
    cr_assert_eq(RUN(f, "\x48\x0f\xae\x33"), STEP_NEXT); /* xsaveopt64: but not for XSAVEOPT, which writes MXCSR only */
    memcpy(header, fixture_memory(f, DATA + XSAVE_LEGACY_SIZE), 16);
    cr_assert(header[0] == 0xccccccccccccccc8 && *fixture_memory(f, DATA + 24) == 0xa0 &&
              *fixture_memory(f, DATA + 160) == 0xcc);
    fixture_destroy(f);
}

Test(xsave, faults)
{
    struct fixture *f = fixture_create();
    struct cpu *cpu = f->cpu;
    cpu->gpr[REG_RAX] = 7;
    cpu->gpr[REG_RBX] = DATA + 16;
    cr_assert_eq(RUN(f, "\x0f\xae\x23"), STEP_FAULT); /* xsave: 64-byte alignment */
    cr_assert_eq(cpu->fault.vector, VECTOR_GP);
    cr_assert_eq(RUN(f, "\x0f\xae\x03"), STEP_NEXT); /* fxsave: 16 */
    cpu->gpr[REG_RBX] = DATA + 8;
    cr_assert_eq(RUN(f, "\x0f\xae\x03"), STEP_FAULT);
    cr_assert_eq(cpu->fault.vector, VECTOR_GP);
    cpu->cpl = 3;
    cpu->gpr[REG_RBX] = DATA;
    cr_assert_eq(RUN(f, "\x0f\xc7\x2b"), STEP_FAULT); /* xsaves */
    cr_assert_eq(cpu->fault.vector, VECTOR_GP);
    cpu->cpl = 0;
    memset(cpu->vector.vec[1], 1, 32);
    cpu->gpr[REG_RBX] = READ_ONLY_PAGE - 576; /* the AVX component is in the next page */
    memset(fixture_memory(f, READ_ONLY_PAGE - 576), 0, 576);
    cr_assert_eq(RUN(f, "\x0f\xae\x23"), STEP_FAULT);
    cr_assert_eq(cpu->fault.vector, VECTOR_PF);
    cr_assert_eq(cpu->fault.address & PAGE_MASK, READ_ONLY_PAGE);
    for (unsigned i = 0; i < 576; i++)
        cr_assert_eq(*fixture_memory(f, READ_ONLY_PAGE - 576 + i), 0, "byte %u was written", i);
    fixture_destroy(f);
}

/* XSAVES, XRSTORS round trip, with PKRU. */
Test(xsave, supervisor_round_trip)
{
    struct fixture *f = fixture_create();
    struct cpu *cpu = f->cpu;
    uint64_t seed = SEED;
    struct native_state native;
    cpu->xcr0 = 7 | XSTATE_BIT_PKRU;
    random_state(&seed, f, &native);
    cpu_set_pkru(cpu, 0x0000000c);
    cpu->gpr[REG_RAX] = cpu->gpr[REG_RDX] = 0xffffffff;
    cpu->gpr[REG_RBX] = DATA;
    memset(fixture_memory(f, DATA), 0, AREA);
    struct vector_state before = cpu->vector;
    cr_assert_eq(RUN(f, "\x48\x0f\xc7\x2b"), STEP_NEXT);
    cr_assert_eq(*fixture_memory(f, DATA + xstate_compacted_offset(cpu->xcr0, 9)), 0x0c);
    vector_state_reset(&cpu->vector);
    cpu_set_pkru(cpu, 0);
    cr_assert_eq(RUN(f, "\x48\x0f\xc7\x1b"), STEP_NEXT);
    cr_assert(!memcmp(&before, &cpu->vector, offsetof(struct vector_state, fx)));
    cr_assert(!memcmp(before.fx.st, cpu->vector.fx.st, sizeof(before.fx.st)));
    cr_assert_eq(before.fx.mxcsr, cpu->vector.fx.mxcsr);
    cr_assert_eq(cpu->pkru, 0x0c);
    fixture_destroy(f);
}

/* A page with key 1, in the TLB already, follows each PKRU that XRSTOR loads, the initial one included. */
Test(xsave, pkru_takes_effect_at_once)
{
    enum { KEYED = DATA + 0x2000, PAGE_TABLE = 0x4000, PKRU_OFFSET = 2688, HEADER = 512 };
    struct fixture *f = fixture_create();
    struct cpu *cpu = f->cpu;
    uint8_t *image = fixture_memory(f, DATA);
    uint64_t entry = KEYED | 7 | 1ull << 59, value = 0;

    physmem_write(f->physmem, PAGE_TABLE + 8 * (KEYED >> 12), &entry, 8);
    cpu_set_cr4(cpu, cpu->cr4 | CR4_PKE);
    cpu->xcr0 = 3 | XSTATE_BIT_PKRU;
    memset(image, 0, 4096);
    for (unsigned round = 0; round < 3; round++) {
        static const struct {
            uint32_t pkru;
            bool read, write;
        } steps[] = { { 0, true, true }, { 1 << 2, false, false }, { 2 << 2, true, false }, { 0, true, true } };

        for (unsigned i = 0; i < ARRAY_SIZE(steps); i++) {
            memcpy(image + PKRU_OFFSET, &steps[i].pkru, 4);
            image[HEADER + 1] = steps[i].pkru || round == 1 ? XSTATE_BIT_PKRU >> 8 : 0;
            cpu->gpr[REG_RAX] = XSTATE_BIT_PKRU;
            cpu->gpr[REG_RDX] = 0;
            cpu->gpr[REG_RBX] = DATA;
            cr_assert_eq(RUN(f, "\x0f\xae\x2b"), STEP_NEXT);
            cr_assert_eq(!load(cpu, KEYED, &value, 8, false), steps[i].read, "PKRU %x, read", steps[i].pkru);
            if (!steps[i].read)
                cr_assert_eq(cpu->fault.error, PF_PRESENT | PF_PKEY);
            cr_assert_eq(!store(cpu, KEYED, &value, 8, false), steps[i].write, "PKRU %x, write", steps[i].pkru);
        }
    }
    fixture_destroy(f);
}

Test(xsave, sizes)
{
    cr_assert_eq(xstate_standard_size(3), 576);
    cr_assert_eq(xstate_standard_size(7), 832);
    cr_assert_eq(xstate_standard_size(0xe7), 2688);
    cr_assert_eq(xstate_standard_size(0x2e7), 2696);
    cr_assert_eq(xstate_compacted_size(7 | 1 << 9), 840);
    cr_assert_eq(xstate_compacted_offset(0xe0, 7), 576 + 64 + 512);
}
