/* Masked moves and gathers: values against the host, faults per element. */
#include <criterion/criterion.h>
#include <string.h>

#include "tests/hostop/fixture.h"

#define SEED 0x5eed3a5c

struct form {
    const char *name, *bytes;
    size_t length;
};
#define FORM(name, bytes)                                                                                              \
    {                                                                                                                  \
        name, bytes, sizeof(bytes) - 1                                                                                 \
    }

static const struct form forms[] = {
    FORM("vmaskmovps xmm1, xmm2, [rbx]", "\xc4\xe2\x69\x2c\x0b"),
    FORM("vmaskmovps ymm1, ymm2, [rbx]", "\xc4\xe2\x6d\x2c\x0b"),
    FORM("vmaskmovpd ymm1, ymm2, [rbx]", "\xc4\xe2\x6d\x2d\x0b"),
    FORM("vmaskmovps [rbx], ymm2, ymm1", "\xc4\xe2\x6d\x2e\x0b"),
    FORM("vmaskmovpd [rbx], xmm2, xmm1", "\xc4\xe2\x69\x2f\x0b"),
    FORM("vpmaskmovd ymm1, ymm2, [rbx]", "\xc4\xe2\x6d\x8c\x0b"),
    FORM("vpmaskmovq ymm1, ymm2, [rbx]", "\xc4\xe2\xed\x8c\x0b"),
    FORM("vpmaskmovd [rbx], ymm2, ymm1", "\xc4\xe2\x6d\x8e\x0b"),
    FORM("vpmaskmovq [rbx], xmm2, xmm1", "\xc4\xe2\xe9\x8e\x0b"),
    FORM("vgatherdps ymm1, [rbx+ymm3], ymm2", "\xc4\xe2\x6d\x92\x0c\x1b"),
    FORM("vgatherdpd ymm1, [rbx+xmm3*2], ymm2", "\xc4\xe2\xed\x92\x0c\x5b"),
    FORM("vgatherqps xmm1, [rbx+ymm3], xmm2", "\xc4\xe2\x6d\x93\x0c\x1b"),
    FORM("vgatherqps xmm1, [rbx+xmm3], xmm2", "\xc4\xe2\x69\x93\x0c\x1b"),
    FORM("vpgatherqq xmm1, [rbx+xmm3*4], xmm2", "\xc4\xe2\xe9\x91\x0c\x9b"),
    FORM("vpgatherdd xmm1, [rbx+xmm3+1], xmm2", "\xc4\xe2\x69\x90\x4c\x1b\x01"),
};

/* Indices into 1 KiB around the middle of the buffer, positive and negative, of both widths. */
static void random_indices(uint64_t *seed, uint8_t vec[32], bool wide)
{
    for (unsigned i = 0; i < 8; i++) {
        int32_t index = (int32_t)(random_next(seed) % 240) - 120;
        if (wide && i & 1)
            index = 0; /* replaced below */
        memcpy(vec + 4 * i, &index, 4);
        if (wide && i & 1) {
            int32_t low;
            memcpy(&low, vec + 4 * (i - 1), 4);
            memset(vec + 4 * i, low < 0 ? 0xff : 0, 4);
        }
    }
}

Test(masked, agrees_with_the_host)
{
    static uint8_t memory[2048] __attribute__((aligned(64)));
    static const gva_t places[] = { DATA, DATA + 0x1000 - 1036, MMIO_LIKE_PAGE };
    uint64_t seed = SEED;
    struct fixture *f = fixture_create();
    for (unsigned round = 0; round < ARRAY_SIZE(forms) * 60; round++) {
        const struct form *form = &forms[round % ARRAY_SIZE(forms)];
        gva_t gva = places[random_next(&seed) % 3];
        struct native_state native = { .mxcsr = 0x1f80, .rbx = (uint64_t)(uintptr_t)memory + 1024, .rflags = 0x202 };
        random_fill(&seed, native.vec, sizeof(native.vec));
        random_indices(&seed, native.vec[3], strstr(form->name, "gatherq"));
        random_fill(&seed, memory, sizeof(memory));
        for (unsigned i = 0; i < 16; i++) {
            memset(f->cpu->vector.vec[i], 0, 64);
            memcpy(f->cpu->vector.vec[i], native.vec[i], 32);
        }
        for (unsigned i = 0; i < sizeof(memory); i++)
            *fixture_memory(f, gva + i) = memory[i];
        f->cpu->gpr[REG_RBX] = gva + 1024;
        cr_assert_eq(fixture_run(f, form->bytes, form->length), STEP_NEXT, "%s: vector %u", form->name,
                     f->cpu->fault.vector);
        if (!cpu_has(f->cpu, f->op.insn.row->feature))
            continue;
        native_run(&native, form->bytes, form->length);
        for (unsigned i = 0; i < 16; i++)
            cr_assert(!memcmp(f->cpu->vector.vec[i], native.vec[i], 32), "%s: ymm%u (seed %x round %u)", form->name, i,
                      SEED, round);
        for (unsigned i = 0; i < sizeof(memory); i++)
            cr_assert_eq(*fixture_memory(f, gva + i), memory[i], "%s: byte %u", form->name, i);
    }
    fixture_destroy(f);
}

static void set_mask(struct fixture *f, unsigned reg, unsigned selected)
{
    for (unsigned i = 0; i < 8; i++)
        memset(f->cpu->vector.vec[reg] + 4 * i, selected >> i & 1 ? 0xff : 0, 4);
}

Test(masked, only_selected_elements_fault)
{
    struct fixture *f = fixture_create();
    struct cpu *cpu = f->cpu;
    cpu->gpr[REG_RBX] = ABSENT_PAGE - 16;
    set_mask(f, 2, 0x0f);
    cr_assert_eq(RUN(f, "\xc4\xe2\x6d\x2c\x0b"), STEP_NEXT); /* vmaskmovps ymm1, ymm2, [rbx] */
    cr_assert_eq(RUN(f, "\xc4\xe2\x6d\x2e\x0b"), STEP_NEXT); /* vmaskmovps [rbx], ymm2, ymm1 */
    set_mask(f, 2, 0x1f);
    memset(cpu->vector.vec[1], 0x11, 32);
    cr_assert_eq(RUN(f, "\xc4\xe2\x6d\x2c\x0b"), STEP_FAULT);
    cr_assert_eq(cpu->fault.vector, VECTOR_PF);
    cr_assert_eq(cpu->fault.address, ABSENT_PAGE);
    cr_assert_eq(cpu->vector.vec[1][0], 0x11, "nothing is loaded");
    memset(fixture_memory(f, ABSENT_PAGE - 16), 0, 16);
    cr_assert_eq(RUN(f, "\xc4\xe2\x6d\x2e\x0b"), STEP_FAULT);
    cr_assert_eq(*fixture_memory(f, ABSENT_PAGE - 16), 0, "nothing is stored");
    set_mask(f, 2, 0);
    cpu->gpr[REG_RBX] = 0x8000000000000000ull; /* not canonical, not accessed */
    cr_assert_eq(RUN(f, "\xc4\xe2\x6d\x2c\x0b"), STEP_NEXT);
    fixture_destroy(f);
}

Test(masked, maskmovdqu_and_maskmovq)
{
    struct fixture *f = fixture_create();
    struct cpu *cpu = f->cpu;
    cpu->gpr[REG_RDI] = ABSENT_PAGE - 16;
    memset(fixture_memory(f, ABSENT_PAGE - 16), 0, 16);
    memset(cpu->vector.vec[1], 0x33, 16);
    memset(cpu->vector.vec[2], 0, 16);
    cpu->vector.vec[2][0] = cpu->vector.vec[2][5] = cpu->vector.vec[2][15] = 0x80;
    cr_assert_eq(RUN(f, "\x66\x0f\xf7\xca"), STEP_NEXT); /* maskmovdqu xmm1, xmm2 */
    static const uint8_t expected[16] = { [0] = 0x33, [5] = 0x33, [15] = 0x33 };
    cr_assert(!memcmp(fixture_memory(f, ABSENT_PAGE - 16), expected, 16));
    /* quadwords are looked up whatever the mask says, as the host does */
    cpu->gpr[REG_RDI] = ABSENT_PAGE - 8;
    cpu->vector.vec[2][15] = 0;
    cr_assert_eq(RUN(f, "\x66\x0f\xf7\xca"), STEP_FAULT);
    cr_assert_eq(cpu->fault.address, ABSENT_PAGE);
    /* maskmovq mm1, mm2 */
    cpu->vector.fx.fsw = 0x1800; /* TOP = 3: MMn is ST(n - 3) */
    memset(cpu->vector.fx.st[6], 0x44, 8);
    memset(cpu->vector.fx.st[7], 0x80, 8);
    cr_assert_eq(RUN(f, "\x0f\xf7\xca"), STEP_NEXT);
    cr_assert_eq(*fixture_memory(f, ABSENT_PAGE - 1), 0x44);
    cr_assert(cpu->vector.fx.fsw == 0 && cpu->vector.fx.ftw == 0xff && cpu->vector.fx.st[1][0] == 0x44);
    fixture_destroy(f);
}

Test(masked, a_gather_stops_and_goes_on)
{
    struct fixture *f = fixture_create();
    struct cpu *cpu = f->cpu;
    static const int32_t indices[8] = { 0, 4, 8, 0x1000, 12, 0, 0, 0 };
    uint32_t value;
    for (unsigned i = 0; i < 4; i++) {
        value = 0x100 + i;
        memcpy(fixture_memory(f, ABSENT_PAGE - 0x1000 + 4 * i), &value, 4);
    }
    cpu->gpr[REG_RBX] = ABSENT_PAGE - 0x1000;
    memcpy(cpu->vector.vec[3], indices, 32);
    memset(cpu->vector.vec[1], 0xee, 64);
    set_mask(f, 2, 0x1d);                                         /* elements 0, 2, 3, 4 */
    cr_assert_eq(RUN(f, "\xc4\xe2\x6d\x92\x0c\x1b"), STEP_FAULT); /* vgatherdps ymm1, [rbx+ymm3], ymm2 */
    cr_assert_eq(cpu->fault.vector, VECTOR_PF);
    cr_assert_eq(cpu->fault.address, ABSENT_PAGE);
    const uint32_t *dst = (const uint32_t *)cpu->vector.vec[1], *mask = (const uint32_t *)cpu->vector.vec[2];
    cr_assert(dst[0] == 0x100 && dst[1] == 0xeeeeeeee && dst[2] == 0x102 && dst[3] == 0xeeeeeeee &&
              dst[4] == 0xeeeeeeee);
    cr_assert(!mask[0] && !mask[2] && mask[3] == 0xffffffff && mask[4] == 0xffffffff);
    cpu->gpr[REG_RBX] = ABSENT_PAGE - 0x2000; /* where the fourth one exists */
    memcpy(fixture_memory(f, ABSENT_PAGE - 0x2000 + 12), &value, 4);
    cr_assert_eq(RUN(f, "\xc4\xe2\x6d\x92\x0c\x1b"), STEP_NEXT);
    cr_assert(dst[0] == 0x100 && dst[3] == 0x100 && dst[4] == value && !mask[3] && !mask[4]);
    cr_assert_eq(cpu->vector.vec[1][32], 0);
    fixture_destroy(f);
}
