/* x87 against the host: arithmetic, deferred exceptions, environments. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#include "tests/hostop/fixture.h"

#define SEED 0x5eed0087

struct form {
    const char *name, *bytes;
    size_t length;
};
#define FORM(name, bytes)                                                                                              \
    {                                                                                                                  \
        name, bytes, sizeof(bytes) - 1                                                                                 \
    }

static const struct form forms[] = {
    FORM("fadd st, st1", "\xd8\xc1"),
    FORM("fadd m32", "\xd8\x03"),
    FORM("fadd m64", "\xdc\x03"),
    FORM("fiadd m16", "\xde\x03"),
    FORM("fmulp", "\xde\xc9"),
    FORM("fdiv st3, st", "\xdc\xfb"),
    FORM("fsubr m64", "\xdc\x2b"),
    FORM("fld m32", "\xd9\x03"),
    FORM("fld m64", "\xdd\x03"),
    FORM("fld m80", "\xdb\x2b"),
    FORM("fld st3", "\xd9\xc3"),
    FORM("fild m16", "\xdf\x03"),
    FORM("fild m32", "\xdb\x03"),
    FORM("fild m64", "\xdf\x2b"),
    FORM("fbld", "\xdf\x23"),
    FORM("fst m32", "\xd9\x13"),
    FORM("fstp m32", "\xd9\x1b"),
    FORM("fst m64", "\xdd\x13"),
    FORM("fstp m64", "\xdd\x1b"),
    FORM("fstp m80", "\xdb\x3b"),
    FORM("fist m16", "\xdf\x13"),
    FORM("fistp m32", "\xdb\x1b"),
    FORM("fistp m64", "\xdf\x3b"),
    FORM("fisttp m32", "\xdb\x0b"),
    FORM("fbstp", "\xdf\x33"),
    FORM("fxch st5", "\xd9\xcd"),
    FORM("fchs", "\xd9\xe0"),
    FORM("fabs", "\xd9\xe1"),
    FORM("fxam", "\xd9\xe5"),
    FORM("ftst", "\xd9\xe4"),
    FORM("fldpi", "\xd9\xeb"),
    FORM("fsqrt", "\xd9\xfa"),
    FORM("fsin", "\xd9\xfe"),
    FORM("fpatan", "\xd9\xf3"),
    FORM("fyl2x", "\xd9\xf1"),
    FORM("frndint", "\xd9\xfc"),
    FORM("fprem", "\xd9\xf8"),
    FORM("fscale", "\xd9\xfd"),
    FORM("fxtract", "\xd9\xf4"),
    FORM("fincstp", "\xd9\xf7"),
    FORM("ffree st2", "\xdd\xc2"),
    FORM("ffreep st1", "\xdf\xc1"),
    FORM("fcomi st2", "\xdb\xf2"),
    FORM("fucomip st1", "\xdf\xe9"),
    FORM("fcmovb st3", "\xda\xc3"),
    FORM("fcmovnbe st3", "\xdb\xd3"),
    FORM("fcompp", "\xde\xd9"),
    FORM("fnop", "\xd9\xd0"),
    FORM("fucom st4", "\xdd\xe4"),
    FORM("fcom m32", "\xd8\x13"),
    FORM("f2xm1", "\xd9\xf0"),
    FORM("fptan", "\xd9\xf2"),
    /* control */
    FORM("fninit", "\xdb\xe3"),
    FORM("fnclex", "\xdb\xe2"),
    FORM("fldcw", "\xd9\x2b"),
    FORM("fnstcw", "\xd9\x3b"),
    FORM("fnstsw", "\xdd\x3b"),
    FORM("fnstsw ax", "\xdf\xe0"),
    FORM("fnstenv", "\xd9\x33"),
    FORM("fnstenv16", "\x66\xd9\x33"),
    FORM("fnsave", "\xdd\x33"),
    FORM("fnsave16", "\x66\xdd\x33"),
    FORM("fldenv", "\xd9\x23"),
    FORM("fldenv16", "\x66\xd9\x23"),
    FORM("frstor", "\xdd\x23"),
    FORM("frstor16", "\x66\xdd\x23"),
    FORM("feni", "\xdb\xe0"),
};

static void random_register(uint64_t *seed, uint8_t st[16])
{
    uint64_t significand = random_next(seed) | 1ull << 63;
    uint16_t exponent = (uint16_t)(0x3fff - 20 + random_next(seed) % 40) | (uint16_t)(random_next(seed) << 15);
    switch (random_next(seed) % 10) {
    case 0:
        significand = exponent = 0;
        break;
    case 1:
        exponent |= 0x7fff;
        break; /* NaN */
    case 2:
        exponent |= 0x7fff, significand = 1ull << 63;
        break;
    case 3:
        exponent &= 0x8000, significand >>= 1;
        break; /* denormal */
    case 4:
        significand >>= 1;
        break; /* unnormal */
    case 5:
        exponent = (uint16_t)(random_next(seed));
        break;
    default:
        break;
    }
    memset(st, 0, 16);
    memcpy(st, &significand, 8);
    memcpy(st + 8, &exponent, 2);
}

static void random_x87(uint64_t *seed, struct fxsave_area *fx)
{
    memset(fx, 0, sizeof(*fx));
    bool masked = random_next(seed) & 1;
    fx->fcw = (uint16_t)((random_next(seed) & 0xf00) | 0x40 | (masked ? 0x3f : random_next(seed) & 0x3f));
    fx->fsw = (uint16_t)((random_next(seed) & 0x7f00) | (masked ? random_next(seed) & 0x3f : 0));
    fx->ftw = (uint8_t)(random_next(seed) | random_next(seed) | random_next(seed));
    fx->fop = random_next(seed) & 0x7ff;
    fx->fip = random_next(seed) & 0x7fffffffffff;
    fx->fdp = random_next(seed) & 0x7fffffffffff;
    for (unsigned i = 0; i < 8; i++)
        random_register(seed, fx->st[i]);
}

static void random_memory(uint64_t *seed, uint8_t memory[128])
{
    random_fill(seed, memory, 128);
    switch (random_next(seed) % 4) {
    case 0: {
        double d = (double)(int64_t)random_next(seed) / 65536;
        memcpy(memory, &d, 8);
        break;
    }
    case 1: {
        float s = (float)(int64_t)random_next(seed) / 3;
        memcpy(memory, &s, 4);
        break;
    }
    case 2:
        random_register(seed, memory);
        break;
    default:
        break;
    }
}

enum { CONTROL_FORMS = 15 }; /* the last ones of forms[] */

static bool is_control(const struct form *form)
{
    return form >= forms + ARRAY_SIZE(forms) - CONTROL_FORMS;
}

/* FIP and the environment's copy of it differ by nature: the host's become ours before the comparison. */
static void compare(const struct form *form, struct fixture *f, struct native_state *native,
                    const struct fxsave_area *before, const uint8_t *host_memory, gva_t gva, unsigned round)
{
    const struct fxsave_area *ours = &f->cpu->vector.fx, *host = &native->fx;
    cr_assert_eq(ours->fcw, host->fcw, "%s: fcw %x, host %x", form->name, ours->fcw, host->fcw);
    cr_assert_eq(ours->fsw, host->fsw, "%s: fsw %x, host %x, before %x fcw %x (seed %x round %u)", form->name,
                 ours->fsw, host->fsw, before->fsw, before->fcw, SEED, round);
    cr_assert_eq(ours->ftw, host->ftw, "%s: ftw %x, host %x", form->name, ours->ftw, host->ftw);
    cr_assert_eq(ours->fop, host->fop, "%s: fop %x, host %x", form->name, ours->fop, host->fop);
    for (unsigned i = 0; i < 8; i++)
        cr_assert(!memcmp(ours->st[i], host->st[i], 10), "%s: st%u (seed %x round %u)", form->name, i, SEED, round);
    if (!is_control(form)) {
        cr_assert_eq(ours->fip, f->cpu->cpu_rip, "%s: fip", form->name);
        if (host->fdp == before->fdp)
            cr_assert_eq(ours->fdp, before->fdp, "%s: fdp", form->name);
        else
            cr_assert_eq(ours->fdp, gva, "%s: fdp %lx", form->name, ours->fdp);
    } else {
        cr_assert_eq(ours->fip, host->fip, "%s: fip %lx, host %lx", form->name, ours->fip, host->fip);
        cr_assert_eq(ours->fdp, host->fdp, "%s: fdp", form->name);
    }
    for (unsigned i = 0; i < 128; i++)
        cr_assert_eq(*fixture_memory(f, gva + i), host_memory[i], "%s: byte %u: %02x, host %02x (round %u)", form->name,
                     i, *fixture_memory(f, gva + i), host_memory[i], round);
    cr_assert_eq(f->cpu->rflags & FLAGS_ARITH, native->rflags & FLAGS_ARITH, "%s: flags", form->name);
    cr_assert_eq(f->cpu->gpr[REG_RAX], native->rax, "%s: rax", form->name);
}

Test(x87, agrees_with_the_host)
{
    static const gva_t places[] = { DATA, DATA + 0x1000 - 3, MMIO_LIKE_PAGE };
    static uint8_t memory[128] __attribute__((aligned(64)));
    uint64_t seed = SEED;
    struct fixture *f = fixture_create();
    for (unsigned round = 0; round < ARRAY_SIZE(forms) * 60; round++) {
        const struct form *form = &forms[round % ARRAY_SIZE(forms)];
        gva_t gva = places[random_next(&seed) % 3];
        struct native_state native = { .use_x87 = 1, .mxcsr = 0x1f80, .rbx = (uint64_t)(uintptr_t)memory };
        random_memory(&seed, memory);
        random_x87(&seed, &native.fx);
        native.rflags = 0x202 | (random_next(&seed) & FLAGS_ARITH);
        native.rax = f->cpu->gpr[REG_RAX] = random_next(&seed);
        f->cpu->gpr[REG_RBX] = gva;
        f->cpu->rflags = native.rflags;
        native.fx.mxcsr_mask = f->cpu->vector.fx.mxcsr_mask;
        native.fx.mxcsr = 0x1f80;
        f->cpu->vector.fx = native.fx;
        struct fxsave_area before = native.fx;
        for (unsigned i = 0; i < 128; i++)
            *fixture_memory(f, gva + i) = memory[i];
        cr_assert_eq(fixture_run(f, form->bytes, form->length), STEP_NEXT, "%s: vector %u", form->name,
                     f->cpu->fault.vector);
        native_run(&native, form->bytes, form->length);
        compare(form, f, &native, &before, memory, gva, round);
    }
    fixture_destroy(f);
}

Test(x87, a_faulting_store_does_not_pop)
{
    struct fixture *f = fixture_create();
    struct fxsave_area *fx = &f->cpu->vector.fx;
    RUN(f, "\xd9\xeb"); /* fldpi */
    uint16_t fsw = fx->fsw;
    f->cpu->gpr[REG_RBX] = READ_ONLY_PAGE - 4;
    cr_assert_eq(RUN(f, "\xdd\x1b"), STEP_FAULT); /* fstp qword [rbx] */
    cr_assert_eq(f->cpu->fault.vector, VECTOR_PF);
    cr_assert_eq(fx->fsw, fsw);
    cr_assert_eq(fx->ftw, 0x80);
    f->cpu->gpr[REG_RBX] = DATA;
    cr_assert_eq(RUN(f, "\xdd\x1b"), STEP_NEXT);
    double pi;
    memcpy(&pi, fixture_memory(f, DATA), 8);
    cr_assert_eq(pi, 3.14159265358979323846);
    cr_assert_eq(fx->ftw, 0);
    fixture_destroy(f);
}

Test(x87, host_x87_state_is_clean_afterwards)
{
    struct fixture *f = fixture_create();
    struct fxsave_area host;
    f->cpu->vector.fx.fcw = 0x040;
    RUN(f, "\xd9\xee"); /* fldz */
    RUN(f, "\xd9\xe8"); /* fld1 */
    RUN(f, "\xde\xf1"); /* fdivrp: 1/0 or 0/1 */
    __asm__ volatile("fxsave64 %0" : "=m"(host));
    cr_assert_eq(host.fcw, 0x37f);
    cr_assert_eq(host.fsw & 0xbf, 0);
    cr_assert_eq(host.ftw, 0);
    long double x = 2;
    cr_assert_eq((int)(x * x), 4);
    fixture_destroy(f);
}
