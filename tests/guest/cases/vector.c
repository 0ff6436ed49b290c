/* x87, SSE and AVX: what makes them unavailable, their exceptions, alignment, FXSAVE and XSAVE. SDM Vol. 1 8.7, 11.5,
 * 13; Vol. 2A 2.4 to 2.6 (exception classes); Vol. 3A 2.5, 13. */
#include "guest.h"

static int has_avx(void)
{
    return has_leaf1_c(28);
}
static int has_xsave(void)
{
    return has_leaf1_c(26);
}

/* ---- CR0.EM, TS, MP; CR4.OSFXSR ---- */

static void availability(void)
{
    static const struct {
        const char *name;
        word set, clear, cr4_clear;
    } states[] = {
        { "ts", CR0_TS, 0, 0 },
        { "em", CR0_EM, 0, 0 },
        { "em-ts", CR0_EM | CR0_TS, 0, 0 },
        { "ts-no-mp", CR0_TS, CR0_MP, 0 },
        { "no-osfxsr", 0, 0, CR4_OSFXSR },
        { "no-osfxsr-ts", CR0_TS, 0, CR4_OSFXSR },
    };
    word cr0 = read_cr0(), cr4 = read_cr4();

    for (unsigned i = 0; i < ARRAY_SIZE(states); i++) {
#define SET_STATE()                                                                                                    \
    write_cr4(cr4 & ~states[i].cr4_clear);                                                                             \
    write_cr0((cr0 | states[i].set) & ~states[i].clear)
#define STATE_CASE(suffix, text)                                                                                       \
    SET_STATE();                                                                                                       \
    TRY(name_of("%s-" suffix, states[i].name), USER, text, .hide = 1)
        STATE_CASE("x87", "fld1");
        STATE_CASE("wait", "fwait");
        STATE_CASE("mmx", "movd mm0, eax");
        STATE_CASE("emms", "emms");
        STATE_CASE("sse", "xorps xmm0, xmm0");
        STATE_CASE("sse-load", "movaps xmm0, [rsp]");
        STATE_CASE("sse-memory-fault", "movaps xmm0, [0x40060000]");
        STATE_CASE("ldmxcsr", "push 0x1f80; ldmxcsr [rsp]; pop rax");
        STATE_CASE("fxsave", "fxsave [rsp-0x400]");
        STATE_CASE("fninit", "fninit");
        STATE_CASE("fnstsw", "fnstsw ax");
        STATE_CASE("prefetch", "prefetcht0 [rsp]");
        STATE_CASE("movnti", "movnti [rsp], eax");
        STATE_CASE("lfence", "lfence; sfence; mfence");
        STATE_CASE("pause", "pause");
        STATE_CASE("cvt-mmx", "cvtps2pi mm0, xmm0; emms");
        if (has_xsave()) {
            STATE_CASE("xsave", "xsave [rsp-0x1000]");
            STATE_CASE("xgetbv", "xgetbv; xor eax, eax");
        } else {
            absent(name_of("%s-xsave", states[i].name), "XSAVE");
            absent(name_of("%s-xgetbv", states[i].name), "XSAVE");
        }
    }
}

/* VEX instructions: CR4.OSXSAVE, XCR0, TS; EM and OSFXSR do not matter. */
static void avx_availability(void)
{
    static const char *const names[] = { "avx-no-osxsave",
                                         "avx-xcr0-sse-only",
                                         "avx-ts",
                                         "avx-em",
                                         "avx-no-osfxsr",
                                         "avx-ok",
                                         "avx-unaligned-movaps",
                                         "avx-unaligned-add",
                                         "avx-lock",
                                         "avx-xcr0-x87-only-sse",
                                         "avx-mxcsr-exception" };
    word cr4 = read_cr4();

    if (!has_avx()) {
        for (unsigned i = 0; i < ARRAY_SIZE(names); i++)
            absent(names[i], "AVX");
        return;
    }
#define XCR0(value) __asm__ volatile("xsetbv" : : "a"(value), "c"(0), "d"(0))
    write_cr4(cr4 & ~(word)CR4_OSXSAVE);
    TRY(names[0], USER, "vxorps xmm0, xmm0, xmm0");
    XCR0(3);
    TRY(names[1], USER, "vxorps xmm0, xmm0, xmm0");
    XCR0(7);
    write_cr0(read_cr0() | CR0_TS);
    TRY(names[2], USER, "vxorps xmm0, xmm0, xmm0");
    write_cr0(read_cr0() | CR0_EM);
    TRY(names[3], USER, "vxorps xmm0, xmm0, xmm0");
    write_cr4(cr4 & ~(word)CR4_OSFXSR);
    TRY(names[4], USER, "vxorps xmm0, xmm0, xmm0");
    TRY(names[5], USER, "vpcmpeqd ymm0, ymm0, ymm0; vmovd eax, xmm0; vzeroupper");
    TRY(names[6], USER, "vmovaps ymm0, [rsp+16]", .rsp = USTACK + 0x100);
    TRY(names[7], USER, "vaddps ymm0, ymm0, [rsp+1]", .rsp = USTACK + 0x100);
    TRY(names[8], USER, ".byte 0xf0; vxorps xmm0, xmm0, xmm0");
    XCR0(1);
    TRY(names[9], USER, "xorps xmm0, xmm0");
    XCR0(7);
    TRY(names[10], USER, "push 0x1f00; ldmxcsr [rsp]; vxorps xmm1, xmm1, xmm1; vdivss xmm0, xmm1, xmm1");
    XCR0(has_avx() ? 7 : 3);
}

/* ---- #MF: pending x87 exceptions, reported by the next waiting instruction ---- */

static void x87_exceptions(void)
{
#define UNMASK "fninit; push 0x360; fldcw [rsp]; pop rax;" /* all unmasked but precision */
    TRY("mf-divide-by-zero-at-next", USER, UNMASK "fld1; fldz; fdivp; nop; fld1", .hide = 1);
    TRY("mf-at-fwait", USER, UNMASK "fld1; fldz; fdivp; nop; fwait", .hide = 1);
    TRY("mf-not-at-fnstsw", USER, UNMASK "fld1; fldz; fdivp; fnstsw ax; and eax, 0x84", .hide = 0);
    TRY("mf-not-at-fnclex", USER, UNMASK "fld1; fldz; fdivp; fnclex; fwait", .hide = 1);
    TRY("mf-not-at-fninit", USER, UNMASK "fld1; fldz; fdivp; fninit; fld1", .hide = 1);
    TRY("mf-not-at-fnsave", USER, UNMASK "fld1; fldz; fdivp; fnsave [rsp-0x200]; fld1", .hide = 1);
    TRY("mf-at-mmx", USER, UNMASK "fld1; fldz; fdivp; movd mm0, eax", .hide = 1);
    TRY("mf-at-emms", USER, UNMASK "fld1; fldz; fdivp; emms", .hide = 1);
    TRY("mf-not-at-sse", USER, UNMASK "fld1; fldz; fdivp; xorps xmm0, xmm0; nop; fwait", .hide = 1);
    TRY("mf-at-cvtpi2ps", USER, UNMASK "fld1; fldz; fdivp; cvtpi2ps xmm0, mm0", .hide = 1);
    TRY("mf-not-at-fxsave", USER, UNMASK "fld1; fldz; fdivp; fxsave [rsp-0x400]; nop; fwait", .hide = 1);
    TRY("mf-stack-underflow", USER, "fninit; push 0x37e; fldcw [rsp]; pop rax; fadd st, st(1); fwait", .hide = 1);
    TRY("mf-stack-overflow", USER,
        "fninit; push 0x37e; fldcw [rsp]; pop rax;"
        "fld1; fld1; fld1; fld1; fld1; fld1; fld1; fld1; fld1; fwait",
        .hide = 1);
    TRY("mf-by-fldcw-unmasking", USER, "fninit; fld1; fldz; fdivp; push 0x37b; fldcw [rsp]; pop rax; fwait", .hide = 1);
    TRY("mf-by-fldenv-unmasking", USER,
        "fninit; fld1; fldz; fdivp; fnstenv [rsp-64]; mov byte ptr [rsp-64], 0x7b; fldenv [rsp-64]; fwait", .hide = 1);
    TRY("mf-before-page-fault", USER, UNMASK "fld1; fldz; fdivp; fld dword ptr [rbx]", .rbx = HOLE, .hide = 1);
    RUN(USER, "fninit");
}

/* ---- #XM ---- */

static void sse_exceptions(void)
{
#define MXCSR(value) "push " #value "; ldmxcsr [rsp];"
    TRY("xm-divide-by-zero", USER,
        MXCSR(0x1d80) "mov eax, 0x3f800000; movd xmm0, eax; xorps xmm1, xmm1; divss xmm0, xmm1");
    TRY("xm-invalid", USER, MXCSR(0x1f00) "xorps xmm0, xmm0; divss xmm0, xmm0");
    TRY("xm-masked", USER, MXCSR(0x1f80) "xorps xmm0, xmm0; divss xmm0, xmm0; stmxcsr [rsp]; mov eax, [rsp]");
    TRY("xm-flag-set-by-ldmxcsr-is-silent", USER, MXCSR(0x1f01) "xorps xmm0, xmm0; addss xmm0, xmm0");
    TRY("xm-destination-unchanged", USER,
        MXCSR(0x1f00) "mov eax, 0x1234; movd xmm0, eax; xorps xmm1, xmm1; divss xmm1, xmm1");
    write_cr4(read_cr4() & ~(word)CR4_OSXMM);
    TRY("xm-without-osxmmexcpt", USER, MXCSR(0x1f00) "xorps xmm0, xmm0; divss xmm0, xmm0");
    TRY("xm-sqrt-negative", USER, MXCSR(0x1f00) "mov eax, 0xbf800000; movd xmm0, eax; sqrtss xmm0, xmm0");
    TRY("xm-convert-overflow", USER, MXCSR(0x1f00) "mov eax, 0x7f000000; movd xmm0, eax; cvttss2si ecx, xmm0");
    TRY("xm-comiss-qnan-is-fine", USER, MXCSR(0x1f00) "mov eax, 0x7fc00000; movd xmm0, eax; ucomiss xmm0, xmm0",
        .show = ZF | PF | CF);
    TRY("xm-comiss-signals", USER, MXCSR(0x1f00) "mov eax, 0x7fc00000; movd xmm0, eax; comiss xmm0, xmm0");
    TRY("xm-page-fault-first", USER, MXCSR(0x1f00) "xorps xmm0, xmm0; divss xmm0, [rbx]", .rbx = HOLE);
    TRY("mxcsr-reserved-bit", USER, "push 0x11f80; ldmxcsr [rsp]");
    TRY("mxcsr-absent-page", USER, "ldmxcsr [rbx]", .rbx = HOLE);
    TRY("mxcsr-daz-is-allowed", USER, "push 0x1fc0; ldmxcsr [rsp]; stmxcsr [rsp]; pop rax");
    RUN(USER, "push 0x1f80; ldmxcsr [rsp]");
}

/* ---- Alignment ---- */

static void alignment(void)
{
    TRY("align-movaps", USER, "movaps xmm0, [rbx]", .rbx = UDATA + 8);
    TRY("align-movaps-store", USER, "movaps [rbx], xmm0", .rbx = UDATA + 1);
    TRY("align-movups", USER, "movups xmm0, [rbx]", .rbx = UDATA + 1);
    TRY("align-sse-operand", USER, "addps xmm0, [rbx]", .rbx = UDATA + 4);
    TRY("align-scalar-operand", USER, "addss xmm0, [rbx]", .rbx = UDATA + 1);
    TRY("align-before-page-fault", USER, "movaps xmm0, [rbx]", .rbx = HOLE + 8);
    TRY("align-noncanonical", USER, "movaps xmm0, [rbx]", .rbx = NON_CANONICAL + 8);
    TRY("align-stack-segment", USER, "movaps xmm0, [rbp]", .rbp = UDATA + 8);
    TRY("align-movntdq", USER, "movntdq [rbx], xmm0", .rbx = UDATA + 8);
    TRY("align-maskmovdqu", USER, "pxor xmm1, xmm1; maskmovdqu xmm0, xmm1", .rdi = UDATA + 1);
    TRY("align-cmpxchg16b", USER, "cmpxchg16b [rbx]", .rbx = UDATA + 8);
    TRY("align-cmpxchg16b-before-page-fault", USER, "cmpxchg16b [rbx]", .rbx = HOLE + 8);
    TRY("align-fxsave", USER, "fxsave [rbx]", .rbx = UDATA + 8);
    TRY("align-fxrstor", USER, "fxrstor [rbx]", .rbx = UDATA + 8);
    TRY("align-fxsave-before-page-fault", USER, "fxsave [rbx]", .rbx = HOLE + 8);
    if (has_xsave()) {
        TRY("align-xsave", USER, "xsave [rbx]", .rbx = UDATA + 16);
        TRY("align-xrstor", USER, "xrstor [rbx]", .rbx = UDATA + 16);
    } else {
        absent("align-xsave", "XSAVE");
        absent("align-xrstor", "XSAVE");
    }
    /* #AC: CPL 3, CR0.AM and EFLAGS.AC (SDM Vol. 3A 6.15, interrupt 17) */
    TRY("ac-word-read", USER, "mov ax, [rbx]", .rbx = UDATA + 1, .rflags = 2 | AC);
    TRY("ac-dword-read", USER, "mov eax, [rbx]", .rbx = UDATA + 2, .rflags = 2 | AC);
    TRY("ac-qword-at-4", USER, "mov rax, [rbx]", .rbx = UDATA + 4, .rflags = 2 | AC);
    TRY("ac-aligned", USER, "mov rax, [rbx]; mov eax, [rbx+4]; mov ax, [rbx+2]; mov al, [rbx+1]; xor eax, eax",
        .rbx = UDATA, .rflags = 2 | AC);
    TRY("ac-write", USER, "mov [rbx], eax", .rbx = UDATA + 2, .rflags = 2 | AC);
    TRY("ac-push", USER, "push rax", .rsp = USTACK + 4, .rflags = 2 | AC);
    TRY("ac-kernel", KERNEL, "mov eax, [rbx]; xor eax, eax", .rbx = DATA + 2, .rflags = 2 | AC);
    TRY("ac-before-page-fault", USER, "mov eax, [rbx]", .rbx = HOLE + 2, .rflags = 2 | AC);
    TRY("ac-locked", USER, "lock inc dword ptr [rbx]", .rbx = UDATA + 2, .rflags = 2 | AC);
    TRY("ac-byte-never", USER, "mov al, [rbx]", .rbx = UDATA + 1, .rax = 0, .rflags = 2 | AC);
    TRY("ac-movs", USER, "movsd", .rsi = UDATA + 2, .rdi = UDATA + 64, .rflags = 2 | AC);
    write_cr0(read_cr0() & ~(word)CR0_AM);
    TRY("ac-without-am", USER, "mov eax, [rbx]; xor eax, eax", .rbx = UDATA + 2, .rflags = 2 | AC);
}

/* ---- FXSAVE, XSAVE ---- */

static void save_areas(void)
{
    fill(UDATA_FRAME, 0, 0x1000);
    TRY("fxrstor-mxcsr-reserved", USER, "fxsave [rbx]; mov dword ptr [rbx+24], 0x80001f80; fxrstor [rbx]",
        .rbx = UDATA);
    TRY("fxrstor-ok", USER, "fxsave [rbx]; fxrstor [rbx]", .rbx = UDATA);
    TRY("fxsave-absent", USER, "fxsave [rbx]", .rbx = HOLE);
    TRY("fxrstor-read-is-not-a-write", USER, "fxrstor [rbx]", .rbx = HOLE);
    if (!has_xsave()) {
        absent("xsave", "XSAVE");
        return;
    }
    fill(UDATA_FRAME, 0, 0x1000);
    TRY("xrstor-all-initial", USER, "xrstor [rbx]", .rbx = UDATA, .rax = 3, .rdx = 0);
    fill(UDATA_FRAME, 0, 0x1000);
    *FRAME64(UDATA_FRAME + 512) = BIT(62);
    TRY("xrstor-xstate-bv-beyond-xcr0", USER, "xrstor [rbx]", .rbx = UDATA, .rax = 3, .rdx = 0);
    fill(UDATA_FRAME, 0, 0x1000);
    *FRAME64(UDATA_FRAME + 512 + 16) = 1;
    TRY("xrstor-header-reserved", USER, "xrstor [rbx]", .rbx = UDATA, .rax = 3, .rdx = 0);
    fill(UDATA_FRAME, 0, 0x1000);
    *FRAME64(UDATA_FRAME + 512 + 8) = 1;
    TRY("xrstor-xcomp-bv-without-compaction", USER, "xrstor [rbx]", .rbx = UDATA, .rax = 3, .rdx = 0);
    fill(UDATA_FRAME, 0, 0x1000);
    *FRAME64(UDATA_FRAME + 512) = 2;
    *FRAME32(UDATA_FRAME + 24) = 0xffff0000;
    TRY("xrstor-mxcsr-reserved", USER, "xrstor [rbx]", .rbx = UDATA, .rax = 3, .rdx = 0);
    fill(UDATA_FRAME, 0, 0x1000);
    *FRAME64(UDATA_FRAME + 512) = 2;
    *FRAME32(UDATA_FRAME + 24) = 0xffff0000;
    TRY("xrstor-mxcsr-not-asked-for", USER, "xrstor [rbx]", .rbx = UDATA, .rax = 1, .rdx = 0);
    TRY("xrstor-absent", USER, "xrstor [rbx]", .rbx = HOLE, .rax = 3, .rdx = 0);
    TRY("xsave-lock", USER, ".byte 0xf0, 0x0f, 0xae, 0x23", .rbx = UDATA);
    fill(UDATA_FRAME, 0xcc, 0x1000);
    OPEN("xsave-only-x87", USER, "fninit; fld1; xsave [rbx]; fninit", .rbx = UDATA, .rax = 1, .rdx = 0);
    say(" fcw=%x bv&3=%x xmm0=%x", (word)*FRAME32(UDATA_FRAME) & 0xffff, (word)(*FRAME64(UDATA_FRAME + 512) & 3),
        (word)*FRAME32(UDATA_FRAME + 160));
    done();
    fill(UDATA_FRAME, 0, 0x1000);
    TRY("xrstor-user-cannot-set-pkru-when-off", USER, "xrstor [rbx]", .rbx = UDATA, .rax = 0xffffffff,
        .rdx = 0xffffffff);
    if (has_xsave() && (cpuid(13, 1).a & 2)) {
        fill(UDATA_FRAME, 0, 0x1000);
        *FRAME64(UDATA_FRAME + 512 + 8) = BIT(63) | BIT(61);
        TRY("xrstor-compacted-unknown-component", USER, "xrstor [rbx]", .rbx = UDATA, .rax = 3, .rdx = 0);
        fill(UDATA_FRAME, 0, 0x1000);
        OPEN("xsavec-writes-xcomp-bv", USER, "xsavec [rbx]", .rbx = UDATA, .rax = 3, .rdx = 0);
        say(" xcomp=%x", (word)*FRAME64(UDATA_FRAME + 512 + 8));
        done();
        TRY("align-xsavec", USER, "xsavec [rbx]", .rbx = UDATA + 32, .rax = 3, .rdx = 0);
    } else {
        absent("xrstor-compacted-unknown-component", "XSAVEC");
        absent("xsavec-writes-xcomp-bv", "XSAVEC");
        absent("align-xsavec", "XSAVEC");
    }
}

void cases(void)
{
    RUN(KERNEL, "fninit"); /* after a reset the register stack is full (SDM Vol. 3A table 9-1) */
    availability();
    avx_availability();
    x87_exceptions();
    sse_exceptions();
    alignment();
    save_areas();
}
