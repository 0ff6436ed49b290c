/* Faults of vector instructions: their order, and that nothing is committed before them. */
#include <criterion/criterion.h>
#include <string.h>

#include "tests/hostop/fixture.h"

#define EXPECT_FAULT(f, bytes, vector_, error_)                                                                        \
    do {                                                                                                               \
        cr_assert_eq(RUN(f, bytes), STEP_FAULT);                                                                       \
        cr_assert_eq((f)->cpu->fault.vector, vector_, "vector %u, expected %u", (f)->cpu->fault.vector, vector_);      \
        cr_assert_eq((f)->cpu->fault.error, error_, "error %x", (f)->cpu->fault.error);                                \
    } while (0)

enum { MXCSR_ZE = 1 << 2, MXCSR_ZM = 1 << 9, MXCSR_PE = 1 << 5, MXCSR_PM = 1 << 12 };

static void set_floats(uint8_t *vec, float value)
{
    for (unsigned i = 0; i < 8; i++)
        memcpy(vec + 4 * i, &value, 4);
}

Test(faults, unmasked_simd_exception)
{
    struct fixture *f = fixture_create();
    struct cpu *cpu = f->cpu;
    uint8_t before[64];
    for (unsigned round = 0; round < 1000; round++) { /* recovery leaves everything in order */
        set_floats(cpu->vector.vec[1], 1);
        set_floats(cpu->vector.vec[2], 0);
        memcpy(before, cpu->vector.vec[1], 64);
        cpu->vector.fx.mxcsr = MXCSR_RESET & ~MXCSR_ZM;
        EXPECT_FAULT(f, "\x0f\x5e\xca", VECTOR_XM, 0); /* divps xmm1, xmm2 */
        cr_assert_eq(cpu->vector.fx.mxcsr, (MXCSR_RESET & ~MXCSR_ZM) | MXCSR_ZE);
        cr_assert(!memcmp(before, cpu->vector.vec[1], 64));
        EXPECT_FAULT(f, "\xc5\xf4\x5e\xca", VECTOR_XM, 0); /* vdivps ymm1, ymm1, ymm2 */
        cr_assert(!memcmp(before, cpu->vector.vec[1], 64));
    }
    cpu->cr4 &= ~(uint64_t)(1 << 10); /* OSXMMEXCPT */
    EXPECT_FAULT(f, "\x0f\x5e\xca", VECTOR_UD, 0);
    uint32_t host;
    __asm__ volatile("stmxcsr %0" : "=m"(host));
    cr_assert_eq(host & ~0x3fu, 0x1f80, "the host's MXCSR is %x", host);
    fixture_destroy(f);
}

Test(faults, a_signal_elsewhere_goes_to_the_handler_before)
{
    cr_assert(signal_probe_install());
    struct fixture *f = fixture_create();
    RUN(f, "\x0f\x58\xca");
    cr_assert(signal_probe_divide_by_zero());
    fixture_destroy(f);
}

Test(faults, alignment_before_page_fault)
{
    struct fixture *f = fixture_create();
    struct cpu *cpu = f->cpu;
    cpu->gpr[REG_RBX] = ABSENT_PAGE + 8;
    EXPECT_FAULT(f, "\x0f\x28\x0b", VECTOR_GP, 0);     /* movaps xmm1, [rbx] */
    EXPECT_FAULT(f, "\x0f\x58\x0b", VECTOR_GP, 0);     /* addps */
    EXPECT_FAULT(f, "\xc5\xf8\x29\x0b", VECTOR_GP, 0); /* vmovaps [rbx], xmm1 */
    EXPECT_FAULT(f, "\x0f\x10\x0b", VECTOR_PF, 0);     /* movups: no alignment */
    EXPECT_FAULT(f, "\xc5\xf0\x58\x0b", VECTOR_PF, 0); /* vaddps xmm1, xmm1, [rbx]: none either */
    cr_assert_eq(cpu->fault.address, ABSENT_PAGE + 8);
    cpu->gpr[REG_RBX] = ABSENT_PAGE + 16;
    EXPECT_FAULT(f, "\x0f\x28\x0b", VECTOR_PF, 0);
    EXPECT_FAULT(f, "\xc5\xfc\x28\x0b", VECTOR_GP, 0); /* vmovaps ymm1: 32 bytes */
    cpu->gpr[REG_RBX] = 0x8000000000000000ull;
    EXPECT_FAULT(f, "\x0f\x28\x0b", VECTOR_GP, 0);
    fixture_destroy(f);
}

Test(faults, a_faulting_store_leaves_no_trace)
{
    struct fixture *f = fixture_create();
    struct cpu *cpu = f->cpu;
    set_floats(cpu->vector.vec[1], 1.1f);
    cpu->gpr[REG_RBX] = READ_ONLY_PAGE - 8;
    memset(fixture_memory(f, READ_ONLY_PAGE - 8), 0x77, 8);
    EXPECT_FAULT(f, "\xc4\xe3\x7d\x1d\x0b\x00", VECTOR_PF,
                 PF_PRESENT | PF_WRITE); /* vcvtps2ph [rbx], ymm1, 0: inexact */
    cr_assert_eq(cpu->fault.address, READ_ONLY_PAGE);
    cr_assert_eq(cpu->vector.fx.mxcsr, MXCSR_RESET | MXCSR_PE); /* but this, as on the host */
    for (unsigned i = 0; i < 8; i++)
        cr_assert_eq(*fixture_memory(f, READ_ONLY_PAGE - 8 + i), 0x77);
    cpu->vector.fx.mxcsr = MXCSR_RESET & ~MXCSR_PM;
    cpu->gpr[REG_RBX] = MMIO_LIKE_PAGE;
    memset(fixture_memory(f, MMIO_LIKE_PAGE), 0x77, 16);
    EXPECT_FAULT(f, "\xc4\xe3\x7d\x1d\x0b\x04", VECTOR_XM, 0);
    cr_assert_eq(cpu->vector.fx.mxcsr, (MXCSR_RESET & ~MXCSR_PM) | MXCSR_PE);
    cr_assert_eq(*fixture_memory(f, MMIO_LIKE_PAGE), 0x77);
    fixture_destroy(f);
}

Test(faults, exception_classes)
{
    struct fixture *f = fixture_create();
    struct cpu *cpu = f->cpu;
    const uint64_t cr0 = cpu->cr0, cr4 = cpu->cr4;

    cpu->cr0 = cr0 | 8; /* TS */
    EXPECT_FAULT(f, "\x0f\x58\xca", VECTOR_NM, 0);
    EXPECT_FAULT(f, "\xc5\xe8\x58\xcb", VECTOR_NM, 0);
    EXPECT_FAULT(f, "\x0f\xfc\xca", VECTOR_NM, 0); /* paddb mm1, mm2 */
    EXPECT_FAULT(f, "\xd8\xc1", VECTOR_NM, 0);     /* fadd st, st(1) */
    EXPECT_FAULT(f, "\xdb\xe3", VECTOR_NM, 0);     /* fninit */
    EXPECT_FAULT(f, "\x0f\xae\x13", VECTOR_NM, 0); /* ldmxcsr [rbx] */
    EXPECT_FAULT(f, "\x0f\xae\x03", VECTOR_NM, 0); /* fxsave [rbx] */
    EXPECT_FAULT(f, "\x0f\xae\x23", VECTOR_NM, 0); /* xsave [rbx] */
    cr_assert_eq(RUN(f, "\x9b"), STEP_NEXT);       /* fwait: MP is clear */
    cpu->cr0 = cr0 | 8 | 2;
    EXPECT_FAULT(f, "\x9b", VECTOR_NM, 0);
    cpu->cr0 = cr0 | 4; /* EM */
    EXPECT_FAULT(f, "\x0f\x58\xca", VECTOR_UD, 0);
    EXPECT_FAULT(f, "\x0f\xfc\xca", VECTOR_UD, 0);
    EXPECT_FAULT(f, "\xd8\xc1", VECTOR_NM, 0);
    cr_assert_eq(RUN(f, "\xc5\xe8\x58\xcb"), STEP_NEXT); /* VEX does not look at EM */
    cpu->cr0 = cr0;

    cpu->cr4 = cr4 & ~(uint64_t)(1 << 9); /* OSFXSR */
    EXPECT_FAULT(f, "\x0f\x58\xca", VECTOR_UD, 0);
    cr_assert_eq(RUN(f, "\xc5\xe8\x58\xcb"), STEP_NEXT);
    cpu->cr4 = cr4 & ~(uint64_t)(1 << 18); /* OSXSAVE */
    EXPECT_FAULT(f, "\xc5\xe8\x58\xcb", VECTOR_UD, 0);
    EXPECT_FAULT(f, "\x0f\xae\x23", VECTOR_UD, 0);
    cpu->cr4 = cr4;
    cpu->xcr0 = 3;
    EXPECT_FAULT(f, "\xc5\xe8\x58\xcb", VECTOR_UD, 0);
    EXPECT_FAULT(f, "\xc5\xf8\x77", VECTOR_UD, 0); /* vzeroupper */
    cpu->xcr0 = 7;
    cpu->vector.fx.fcw = 0x37e;
    cpu->vector.fx.fsw = 0x8081; /* an unmasked exception is pending */
    EXPECT_FAULT(f, "\x9b", VECTOR_MF, 0);
    EXPECT_FAULT(f, "\xd8\xc1", VECTOR_MF, 0);
    EXPECT_FAULT(f, "\x0f\xfc\xca", VECTOR_MF, 0);
    EXPECT_FAULT(f, "\xd9\x2b", VECTOR_MF, 0);     /* fldcw [rbx] */
    EXPECT_FAULT(f, "\x0f\x2a\xca", VECTOR_MF, 0); /* cvtpi2ps xmm1, mm2 */
    cpu->gpr[REG_RBX] = DATA;
    cr_assert_eq(RUN(f, "\x0f\x2a\x0b"), STEP_NEXT); /* cvtpi2ps xmm1, [rbx]: no MMX register */
    cr_assert_eq(RUN(f, "\xdf\xe0"), STEP_NEXT);     /* fnstsw ax */
    cr_assert_eq(cpu->gpr[REG_RAX], 0x8081);
    cr_assert_eq(RUN(f, "\xdb\xe0"), STEP_NEXT);     /* feni */
    cr_assert_eq(RUN(f, "\x0f\x58\xca"), STEP_NEXT); /* addps is not concerned */
    cr_assert_eq(RUN(f, "\xdb\xe2"), STEP_NEXT);     /* fnclex */
    cr_assert_eq(RUN(f, "\x9b"), STEP_NEXT);
    fixture_destroy(f);
}

Test(faults, mxcsr_reserved_bits)
{
    struct fixture *f = fixture_create();
    struct cpu *cpu = f->cpu;
    uint32_t value = 0x10000;
    cpu->gpr[REG_RBX] = DATA;
    memcpy(fixture_memory(f, DATA), &value, 4);
    EXPECT_FAULT(f, "\x0f\xae\x13", VECTOR_GP, 0);
    value = 0xffff;
    memcpy(fixture_memory(f, DATA), &value, 4);
    cr_assert_eq(RUN(f, "\x0f\xae\x13"), STEP_NEXT);
    cr_assert_eq(cpu->vector.fx.mxcsr, 0xffff);
    cr_assert_eq(RUN(f, "\xc5\xf8\xae\x5b\x08"), STEP_NEXT); /* vstmxcsr [rbx+8] */
    memcpy(&value, fixture_memory(f, DATA + 8), 4);
    cr_assert_eq(value, 0xffff);
    fixture_destroy(f);
}
