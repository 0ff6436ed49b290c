/* Stubs against the host: every way in which operands reach a stub, with random values. */
#include <criterion/criterion.h>
#include <string.h>

#include "tests/hostop/fixture.h"

#define SEED 0x5eed0001

struct form {
    const char *name, *bytes;
    size_t length;
};
#define FORM(name, bytes)                                                                                              \
    {                                                                                                                  \
        name, bytes, sizeof(bytes) - 1                                                                                 \
    }

/* Memory operands are [rbx] or [rbx + 16]. */
static const struct form forms[] = {
    FORM("addps xmm1, xmm2", "\x0f\x58\xca"),
    FORM("addps xmm9, xmm12", "\x45\x0f\x58\xcc"),
    FORM("addps xmm1, xmm1", "\x0f\x58\xc9"),
    FORM("addps xmm3, [rbx]", "\x0f\x58\x1b"),
    FORM("sqrtss xmm5, xmm6", "\xf3\x0f\x51\xee"),
    FORM("movss xmm1, xmm2", "\xf3\x0f\x10\xca"),
    FORM("movss xmm1, [rbx]", "\xf3\x0f\x10\x0b"),
    FORM("movss [rbx], xmm1", "\xf3\x0f\x11\x0b"),
    FORM("movups [rbx+16], xmm15", "\x44\x0f\x11\x7b\x10"),
    FORM("movaps xmm0, xmm15", "\x41\x0f\x28\xc7"),
    FORM("movlps xmm1, [rbx]", "\x0f\x12\x0b"),
    FORM("movhps [rbx], xmm1", "\x0f\x17\x0b"),
    FORM("paddb xmm1, [rbx]", "\x66\x0f\xfc\x0b"),
    FORM("pshufd xmm1, xmm2, 0x1b", "\x66\x0f\x70\xca\x1b"),
    FORM("shufps xmm1, [rbx], 0x4e", "\x0f\xc6\x0b\x4e"),
    FORM("psrlw xmm3, 3", "\x66\x0f\x71\xd3\x03"),
    FORM("pslldq xmm11, 5", "\x66\x41\x0f\x73\xfb\x05"),
    FORM("cmpltpd xmm1, xmm2", "\x66\x0f\xc2\xca\x01"),
    FORM("cvtsi2ss xmm1, eax", "\xf3\x0f\x2a\xc8"),
    FORM("cvtsi2sd xmm1, rdx", "\xf2\x48\x0f\x2a\xca"),
    FORM("cvtsi2sd xmm1, [rbx]", "\xf2\x0f\x2a\x0b"),
    FORM("cvttss2si rcx, xmm2", "\xf3\x48\x0f\x2c\xca"),
    FORM("cvtsd2si ecx, [rbx]", "\xf2\x0f\x2d\x0b"),
    FORM("movd xmm1, ecx", "\x66\x0f\x6e\xc9"),
    FORM("movq rax, xmm1", "\x66\x48\x0f\x7e\xc8"),
    FORM("movd [rbx], xmm1", "\x66\x0f\x7e\x0b"),
    FORM("movmskps eax, xmm9", "\x41\x0f\x50\xc1"),
    FORM("pmovmskb ecx, xmm3", "\x66\x0f\xd7\xcb"),
    FORM("pinsrw xmm2, ecx, 5", "\x66\x0f\xc4\xd1\x05"),
    FORM("pinsrb xmm2, [rbx], 7", "\x66\x0f\x3a\x20\x13\x07"),
    FORM("pextrw edx, xmm2, 3", "\x66\x0f\xc5\xd2\x03"),
    FORM("pextrb [rbx], xmm2, 3", "\x66\x0f\x3a\x14\x13\x03"),
    FORM("pextrq rax, xmm2, 1", "\x66\x48\x0f\x3a\x16\xd0\x01"),
    FORM("ucomiss xmm1, xmm2", "\x0f\x2e\xca"),
    FORM("comisd xmm1, [rbx]", "\x66\x0f\x2f\x0b"),
    FORM("ptest xmm1, xmm2", "\x66\x0f\x38\x17\xca"),
    FORM("pshufb xmm1, xmm2", "\x66\x0f\x38\x00\xca"),
    FORM("blendvps xmm1, xmm2, xmm0", "\x66\x0f\x38\x14\xca"),
    FORM("pblendvb xmm1, [rbx], xmm0", "\x66\x0f\x38\x10\x0b"),
    FORM("roundpd xmm1, xmm2, 3", "\x66\x0f\x3a\x09\xca\x03"),
    FORM("dpps xmm1, xmm2, 0xff", "\x66\x0f\x3a\x40\xca\xff"),
    FORM("pcmpestri xmm1, xmm2, 0x0c", "\x66\x0f\x3a\x61\xca\x0c"),
    FORM("pcmpestrm xmm1, [rbx], 0x40", "\x66\x0f\x3a\x60\x0b\x40"),
    FORM("pcmpistri xmm1, xmm2, 0x18", "\x66\x0f\x3a\x63\xca\x18"),
    FORM("pcmpistrm xmm1, xmm2, 0x44", "\x66\x0f\x3a\x62\xca\x44"),
    FORM("aesenc xmm1, xmm2", "\x66\x0f\x38\xdc\xca"),
    FORM("pclmulqdq xmm1, xmm2, 0x11", "\x66\x0f\x3a\x44\xca\x11"),
    FORM("sha256rnds2 xmm1, xmm2, xmm0", "\x0f\x38\xcb\xca"),
    FORM("vaddps xmm1, xmm2, xmm3", "\xc5\xe8\x58\xcb"),
    FORM("vaddps ymm1, ymm2, ymm3", "\xc5\xec\x58\xcb"),
    FORM("vaddpd ymm9, ymm12, [rbx]", "\xc5\x1d\x58\x0b"),
    FORM("vaddss xmm1, xmm2, xmm3", "\xc5\xea\x58\xcb"),
    FORM("vmovups [rbx], ymm3", "\xc5\xfc\x11\x1b"),
    FORM("vmovdqu ymm3, [rbx+16]", "\xc5\xfe\x6f\x5b\x10"),
    FORM("vextractf128 xmm1, ymm2, 1", "\xc4\xe3\x7d\x19\xd1\x01"),
    FORM("vextractf128 [rbx], ymm2, 1", "\xc4\xe3\x7d\x19\x13\x01"),
    FORM("vinsertf128 ymm1, ymm2, xmm3, 1", "\xc4\xe3\x6d\x18\xcb\x01"),
    FORM("vblendvps ymm1, ymm2, ymm3, ymm4", "\xc4\xe3\x6d\x4a\xcb\x40"),
    FORM("vpblendvb xmm1, xmm2, [rbx], xmm9", "\xc4\xe3\x69\x4c\x0b\x90"),
    FORM("vpsrlw ymm1, ymm2, 3", "\xc5\xf5\x71\xd2\x03"),
    FORM("vpermq ymm1, ymm2, 0x1b", "\xc4\xe3\xfd\x00\xca\x1b"),
    FORM("vfmadd231ps ymm1, ymm2, ymm3", "\xc4\xe2\x6d\xb8\xcb"),
    FORM("vfmadd213sd xmm1, xmm2, [rbx]", "\xc4\xe2\xe9\xa9\x0b"),
    FORM("vptest ymm1, ymm2", "\xc4\xe2\x7d\x17\xca"),
    FORM("vcvtsi2sd xmm1, xmm2, rdx", "\xc4\xe1\xeb\x2a\xca"),
    FORM("vcvttsd2si rax, xmm1", "\xc4\xe1\xfb\x2c\xc1"),
    FORM("vpcmpestri xmm1, xmm2, 0x0c", "\xc4\xe3\x79\x61\xca\x0c"),
    FORM("vpcmpistrm xmm1, xmm2, 0x44", "\xc4\xe3\x79\x62\xca\x44"),
    FORM("vcvtps2ph [rbx], ymm1, 4", "\xc4\xe3\x7d\x1d\x0b\x04"),
    FORM("vmovd eax, xmm1", "\xc5\xf9\x7e\xc8"),
    FORM("vpmovmskb eax, ymm1", "\xc5\xfd\xd7\xc1"),
    FORM("vbroadcastss ymm1, [rbx]", "\xc4\xe2\x7d\x18\x0b"),
    FORM("vaesenc ymm1, ymm2, ymm3", "\xc4\xe2\x6d\xdc\xcb"),
};

static bool host_has_form(const struct fixture *f)
{
    /* the CPU model is "max": what the host has */
    return cpu_has(f->cpu, f->op.insn.row->feature);
}

static void randomise(uint64_t *seed, struct fixture *f, struct native_state *native, uint8_t memory[64])
{
    struct cpu *cpu = f->cpu;
    memset(native, 0, sizeof(*native));
    random_fill(seed, native->vec, sizeof(native->vec));
    for (unsigned i = 0; i < 16; i++) { /* numbers near one, so that arithmetic is not all NaN */
        if (random_next(seed) & 1)
            for (unsigned j = 3; j < 32; j += 4)
                native->vec[i][j] = 0x3f | (uint8_t)(random_next(seed) & 0x80);
    }
    random_fill(seed, memory, 64);
    native->rax = random_next(seed) & 0x1f;
    native->rcx = random_next(seed);
    native->rdx = random_next(seed) & 0x1f;
    native->mxcsr = 0x1f80 | (random_next(seed) & 0xe040) | (random_next(seed) & 0x3f);
    native->rflags = 0x202 | (random_next(seed) & FLAGS_ARITH);
    for (unsigned i = 0; i < 16; i++) {
        memcpy(cpu->vector.vec[i], native->vec[i], 32);
        memset(cpu->vector.vec[i] + 32, 0xa5, 32);
    }
    cpu->vector.fx.mxcsr = native->mxcsr;
    cpu->rflags = native->rflags;
    cpu->gpr[REG_RAX] = native->rax;
    cpu->gpr[REG_RCX] = native->rcx;
    cpu->gpr[REG_RDX] = native->rdx;
}

static void compare(const struct form *form, struct fixture *f, const struct native_state *native,
                    const uint8_t *native_memory, gva_t gva)
{
    struct cpu *cpu = f->cpu;
    for (unsigned i = 0; i < 16; i++)
        cr_assert(!memcmp(cpu->vector.vec[i], native->vec[i], 32), "%s: ymm%u differs (seed %x)", form->name, i, SEED);
    cr_assert_eq(cpu->vector.fx.mxcsr, native->mxcsr, "%s: mxcsr %x, host %x", form->name, cpu->vector.fx.mxcsr,
                 native->mxcsr);
    cr_assert_eq(cpu->rflags & FLAGS_ARITH, native->rflags & FLAGS_ARITH, "%s: flags", form->name);
    cr_assert_eq(cpu->gpr[REG_RAX], native->rax, "%s: rax %lx, host %lx", form->name, cpu->gpr[REG_RAX], native->rax);
    cr_assert_eq(cpu->gpr[REG_RCX], native->rcx, "%s: rcx %lx, host %lx", form->name, cpu->gpr[REG_RCX], native->rcx);
    cr_assert_eq(cpu->gpr[REG_RDX], native->rdx, "%s: rdx", form->name);
    for (unsigned i = 0; i < 64; i++)
        cr_assert_eq(*fixture_memory(f, gva + i), native_memory[i], "%s: memory byte %u", form->name, i);
}

/* At three places: in the middle of a page, across two pages, in a page whose stores take the slow path. */
static void run_form(const struct form *form, uint64_t *seed)
{
    static const gva_t places[] = { DATA, DATA + 0x1000 - 16, MMIO_LIKE_PAGE };
    static uint8_t memory[64] __attribute__((aligned(64)));
    struct fixture *f = fixture_create();
    for (unsigned round = 0; round < 30; round++) {
        gva_t gva = places[round % ARRAY_SIZE(places)];
        struct native_state native;
        uint8_t before[64];
        randomise(seed, f, &native, memory);
        for (unsigned i = 0; i < 64; i++)
            *fixture_memory(f, gva + i) = memory[i];
        memcpy(before, memory, 64);
        native.rbx = (uint64_t)(uintptr_t)memory;
        f->cpu->gpr[REG_RBX] = gva;
        enum step step = fixture_run(f, form->bytes, form->length);
        if (!host_has_form(f))
            break;
        cr_assert_eq(step, STEP_NEXT, "%s: step %d, vector %d", form->name, step, f->cpu->fault.vector);
        native_run(&native, form->bytes, form->length);
        compare(form, f, &native, memory, gva);
    }
    fixture_destroy(f);
}

Test(stubs, agree_with_the_host)
{
    uint64_t seed = SEED;
    for (unsigned i = 0; i < ARRAY_SIZE(forms); i++)
        run_form(&forms[i], &seed);
}

Test(stubs, upper_parts)
{
    struct fixture *f = fixture_create();
    uint8_t *one = f->cpu->vector.vec[1];
    memset(one, 0xff, 64);
    cr_assert_eq(RUN(f, "\x0f\x57\xc9"), STEP_NEXT); /* xorps xmm1, xmm1 */
    cr_assert(one[0] == 0 && one[15] == 0 && one[16] == 0xff && one[63] == 0xff,
              "legacy SSE leaves bits 511:128 alone");
    memset(one, 0xff, 64);
    cr_assert_eq(RUN(f, "\xc5\xf0\x57\xc9"), STEP_NEXT); /* vxorps xmm1, xmm1, xmm1 */
    for (unsigned i = 0; i < 64; i++)
        cr_assert_eq(one[i], 0, "VEX zeroes byte %u", i);
    memset(one, 0xff, 64);
    cr_assert_eq(RUN(f, "\xc5\xfc\x28\xc9"), STEP_NEXT); /* vmovaps ymm1, ymm1 */
    cr_assert(one[31] == 0xff && one[32] == 0 && one[63] == 0);
    fixture_destroy(f);
}

Test(stubs, are_shared_by_encodings_of_one_form)
{
    struct fixture *f = fixture_create();
    const void *stubs[3];
    RUN(f, "\x0f\x58\xca"); /* addps xmm1, xmm2 */
    stubs[0] = f->op.stub;
    RUN(f, "\x45\x0f\x58\xcc"); /* addps xmm9, xmm12 */
    stubs[1] = f->op.stub;
    f->cpu->gpr[REG_RBX] = DATA;
    RUN(f, "\x0f\x58\x1b"); /* addps xmm3, [rbx] */
    stubs[2] = f->op.stub;
    cr_assert(stubs[0] == stubs[1] && stubs[0] != stubs[2]);
    fixture_destroy(f);
}

/* Outside 64-bit mode W does not widen a GPR, and registers 8 to 15 are left alone. */
Test(stubs, modes_of_32_bits)
{
    struct fixture *f = fixture_create();
    struct cpu *cpu = f->cpu;
    cpu->gpr[REG_RCX] = 0x1111111122222222;
    memset(cpu->vector.vec, 0xff, sizeof(cpu->vector.vec));
    cr_assert_eq(RUN32(f, "\xc4\xe1\xf9\x6e\xc1"), STEP_NEXT); /* vmovd xmm0, ecx with W = 1 */
    uint64_t low;
    memcpy(&low, cpu->vector.vec[0], 8);
    cr_assert_eq(low, 0x22222222);
    cr_assert_eq(RUN32(f, "\xc4\xe1\xf9\x7e\xc1"), STEP_NEXT); /* vmovd ecx, xmm0 with W = 1 */
    cr_assert_eq(cpu->gpr[REG_RCX], 0x22222222);
    cr_assert_eq(RUN32(f, "\xc5\xf8\x77"), STEP_NEXT); /* vzeroupper */
    cr_assert(cpu->vector.vec[7][16] == 0 && cpu->vector.vec[8][16] == 0xff);
    cpu->gpr[REG_RBX] = DATA;
    memset(fixture_memory(f, DATA), 0, 512);
    cr_assert_eq(RUN32(f, "\x0f\xae\x03"), STEP_NEXT); /* fxsave */
    cr_assert(*fixture_memory(f, DATA + 160 + 7 * 16) == 0xff && *fixture_memory(f, DATA + 160 + 8 * 16) == 0);
    memset(fixture_memory(f, DATA + 160), 0x55, 256);
    cr_assert_eq(RUN32(f, "\x0f\xae\x0b"), STEP_NEXT); /* fxrstor */
    cr_assert(cpu->vector.vec[7][0] == 0x55 && cpu->vector.vec[8][0] == 0xff);
    fixture_destroy(f);
}

static const struct form mmx_forms[] = {
    FORM("paddb mm1, mm2", "\x0f\xfc\xca"),
    FORM("paddb mm1, [rbx]", "\x0f\xfc\x0b"),
    FORM("movq [rbx], mm7", "\x0f\x7f\x3b"),
    FORM("movd mm3, ecx", "\x0f\x6e\xd9"),
    FORM("movq rax, mm3", "\x48\x0f\x7e\xd8"),
    FORM("pshufw mm1, mm2, 0x1b", "\x0f\x70\xca\x1b"),
    FORM("psrlw mm1, 3", "\x0f\x71\xd1\x03"),
    FORM("pmovmskb eax, mm1", "\x0f\xd7\xc1"),
    FORM("cvtpi2ps xmm0, mm2", "\x0f\x2a\xc2"),
    FORM("cvtpi2ps xmm0, [rbx]", "\x0f\x2a\x03"),
    FORM("cvtpi2pd xmm0, [rbx]", "\x66\x0f\x2a\x03"),
    FORM("cvttps2pi mm2, xmm0", "\x0f\x2c\xd0"),
    FORM("movq2dq xmm0, mm2", "\xf3\x0f\xd6\xc2"),
    FORM("movdq2q mm2, xmm0", "\xf2\x0f\xd6\xd0"),
    FORM("emms", "\x0f\x77"),
};

static void compare_x87(const char *name, const struct fxsave_area *ours, const struct fxsave_area *host)
{
    cr_assert_eq(ours->fcw, host->fcw, "%s: fcw %x, host %x", name, ours->fcw, host->fcw);
    cr_assert_eq(ours->fsw, host->fsw, "%s: fsw %x, host %x", name, ours->fsw, host->fsw);
    cr_assert_eq(ours->ftw, host->ftw, "%s: ftw %x, host %x", name, ours->ftw, host->ftw);
    for (unsigned i = 0; i < 8; i++)
        cr_assert(!memcmp(ours->st[i], host->st[i], 10), "%s: st%u", name, i);
}

Test(stubs, mmx_agrees_with_the_host)
{
    static uint8_t memory[64] __attribute__((aligned(64)));
    uint64_t seed = SEED;
    struct fixture *f = fixture_create();
    for (unsigned i = 0; i < ARRAY_SIZE(mmx_forms) * 10; i++) {
        const struct form *form = &mmx_forms[i % ARRAY_SIZE(mmx_forms)];
        struct native_state native;
        randomise(&seed, f, &native, memory);
        native.use_x87 = 1;
        native.fx.fcw = 0x37f;
        native.fx.fsw = random_next(&seed) & 0x7f00;
        native.fx.ftw = (uint8_t)random_next(&seed);
        for (unsigned n = 0; n < 8; n++)
            random_fill(&seed, native.fx.st[n], 10);
        uint32_t mask = f->cpu->vector.fx.mxcsr_mask;
        f->cpu->vector.fx = native.fx;
        f->cpu->vector.fx.mxcsr = native.mxcsr;
        f->cpu->vector.fx.mxcsr_mask = mask;
        memcpy(fixture_memory(f, DATA), memory, 64);
        native.rbx = (uint64_t)(uintptr_t)memory;
        f->cpu->gpr[REG_RBX] = DATA;
        cr_assert_eq(fixture_run(f, form->bytes, form->length), STEP_NEXT, "%s", form->name);
        native_run(&native, form->bytes, form->length);
        compare_x87(form->name, &f->cpu->vector.fx, &native.fx);
        cr_assert(!memcmp(f->cpu->vector.vec[0], native.vec[0], 16), "%s: xmm0", form->name);
        cr_assert_eq(f->cpu->gpr[REG_RAX], native.rax, "%s: rax", form->name);
        cr_assert_eq(f->cpu->vector.fx.mxcsr, native.mxcsr, "%s: mxcsr", form->name);
        cr_assert(!memcmp(fixture_memory(f, DATA), memory, 64), "%s: memory", form->name);
    }
    fixture_destroy(f);
}
