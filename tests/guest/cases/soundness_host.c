/* Instructions that would tell about the host if they were executed as they are (docs/design.md, "Soundness", line 15):
 * descriptor tables, selectors, segment bases, identifiers, the pointers of the last x87 instruction, and instructions
 * that the guest's CPUID does not offer though the host may have them. SDM Vol. 1 8.1.8, 10.5.1; Vol. 2 (each
 * instruction's page). */
#include "soundness.h"

/* ---- Tables and selectors ---- */

static void tables(enum mode mode, const char *suffix)
{
    struct {
        u16 limit;
        u64 base;
    } __attribute__((packed)) table;
    word data = mode == USER ? UDATA : DATA, frame = mode == USER ? UDATA_FRAME : DATA_FRAME;

    begin(name_of("soundness-15-sgdt%s", suffix));
    PLACE("mov rax, [rbx]; sgdt [rbx]; sidt [rbx+16]; mov rcx, [rbx]");
    for (unsigned i = 0; i < 3; i++) {
        struct regs out = AGAIN(mode, .rbx = data);

        for (unsigned n = 0; n < 2; n++) {
            for (unsigned byte = 0; byte < 10; byte++)
                ((u8 *)&table)[byte] = FRAME8(frame)[16 * n + byte];
            say(" %x:%d", (word)table.limit, (word)(table.base == (n ? (word)idt : (word)gdt)));
        }
        (void)out;
    }
    done();
    gdt[SCRATCH / 8] = descriptor((u32)(word)gdt, 0xff, 0x82, 0); /* an LDT */
    gdt[SCRATCH / 8 + 1] = 0;
    __asm__ volatile("lldt %w0" : : "r"(SCRATCH));
    HOT(name_of("soundness-15-selectors%s", suffix), mode, ,
        "xor eax, eax; sldt eax; str ecx; smsw rdx; mov ebp, cs; mov esi, ss; mov edi, ds; mov r8d, es; mov r9d, fs; "
        "mov r10d, gs; sldt [rbx]; str [rbx+2]; smsw [rbx+4]; mov [rbx+6], cs; mov r11, [rbx]; push fs; pop r12",
        .rbx = data);
    write_cr4(read_cr4() | CR4_UMIP);
    if (has_leaf7_c(2)) {
        PLACE("sgdt [rbx]");
        begin(name_of("soundness-15-umip%s", suffix));
        say(" %s", event_name(AGAIN(mode, .rbx = data).vector));
        PLACE("sldt eax");
        say(" %s", event_name(AGAIN(mode, .rbx = data).vector));
        PLACE("smsw eax");
        say(" %s", event_name(AGAIN(mode, .rbx = data).vector));
        PLACE("str [rbx]");
        say(" %s", event_name(AGAIN(mode, .rbx = data).vector));
        done();
    } else {
        absent(name_of("soundness-15-umip%s", suffix), "UMIP");
    }
}

/* LAR, LSL, VERR and VERW over descriptors of every kind, all with the same piece of code. */
static void descriptors(enum mode mode, const char *suffix)
{
    static const struct {
        const char *name;
        u8 type, flags;
        u32 limit;
    } kinds[] = {
        { "data", 0x93, FLAG_G | FLAG_D, 0xfffff },
        { "user-data", 0xf3, 0, 0x1234 },
        { "read-only", 0xf1, FLAG_D, 0x42 },
        { "expand-down", 0xf7, FLAG_D, 0x42 },
        { "code", 0xfb, FLAG_L, 0xfff },
        { "execute-only", 0xf9, FLAG_D, 0xfff },
        { "conforming", 0x9f, FLAG_L, 0x777 },
        { "not-present", 0x73, FLAG_D, 0x99 },
        { "ldt", 0xe2, 0, 0x55 },
        { "tss", 0xe9, 0, 0x67 },
        { "busy-tss", 0x8b, FLAG_G, 0x1 },
        { "interrupt-gate", 0xee, 0, 0 },
        { "reserved", 0xe0, 0, 0x10 },
    };

    begin(name_of("soundness-15-descriptors%s", suffix));
    PLACE("mov eax, 0x5555; mov ecx, eax; lar eax, bx; setz dl; lsl ecx, bx; setz dh; verr bx; setz sil; verw bx; setz "
          "dil;"
          "movzx edx, dx; movzx esi, sil; movzx edi, dil; mov [rbp], rbx; lar r8d, [rbp]; lsl r9, [rbp]");
    for (unsigned i = 0; i < ARRAY_SIZE(kinds); i++) {
        struct regs out;

        gdt[SCRATCH / 8] = descriptor(0, kinds[i].limit, kinds[i].type, kinds[i].flags);
        gdt[SCRATCH / 8 + 1] = 0;
        out = AGAIN(mode, .rbx = mode == USER ? SCRATCH | 3 : SCRATCH, .rbp = mode == USER ? UDATA : DATA, .r8 = 0,
                    .r9 = 0);
        say(" %s=%x,%x,%x,%d%d", kinds[i].name, out.rax, out.rcx, out.rdx, out.rsi, out.rdi);
        if (out.rax != 0x5555 && (out.r8 != out.rax || (out.rcx != 0x5555 && out.r9 != out.rcx)))
            say("(memory: %x,%x)", out.r8, out.r9);
    }
    done();
    begin(name_of("soundness-15-selector-range%s", suffix));
    {
        struct tally tally = { 0 };

        PLACE("lar eax, bx; setz dl; lsl ecx, bx; setz dh; movzx edx, dx");
        for (word selector = 0; selector < 0x10000; selector += selector < 0x140 ? 1 : 0x333) {
            struct regs out = AGAIN(mode, .rbx = selector, .rax = 0x77, .rcx = 0x77);
            int valid = selector >= 8 && selector < TSS_SELECTOR + 8 && !(selector & 4), readable = 0;
            u64 d = valid ? gdt[selector / 8] : 0;
            unsigned dpl = d >> 45 & 3, rpl = selector & 3, cpl = mode == USER ? 3 : 0;

            readable = valid && (d >> 40 & 0x80) && dpl >= rpl && dpl >= cpl;
            if (wrong(&tally, out.rdx == (readable ? 0x101u : 0u) &&
                                  out.rax == (readable ? (d >> 32 & 0x00f0ff00) : 0x77) &&
                                  (readable || out.rcx == 0x77)))
                say(" [%x: %x %x %x]", selector, out.rdx, out.rax, out.rcx);
        }
        end_tally(&tally);
    }
}

/* ---- Identifiers and bases ---- */

static void set_gs_bases(void)
{
    write_cr4(read_cr4() | CR4_FSGSBASE);
    wrmsr(MSR_GS_BASE, 0x1111);
    wrmsr(MSR_KERNEL_GS_BASE, 0x7777);
}

static void identifiers(void)
{
    if (has_leaf7_c(22)) {
        wrmsr(0xc0000103, 0x12345678);
        HOT("soundness-15-rdpid", USER, , "rdpid rax; mov rcx, [rbx]; rdpid r9; xor ecx, ecx", .rbx = UDATA);
    } else {
        absent("soundness-15-rdpid", "RDPID");
    }
    if (cpuid(0x80000001, 0).d >> 27 & 1) {
        wrmsr(0xc0000103, 0x9abcdef0);
        HOT("soundness-15-rdtscp", USER, , "rdtscp; mov r8, rcx; mov r9, [rbx]; rdtscp; xor eax, eax; xor edx, edx",
            .rbx = UDATA, .hide = 1 << 9);
    } else {
        absent("soundness-15-rdtscp", "RDTSCP");
    }
    if (has_leaf7_b(0)) {
        write_cr4(read_cr4() | CR4_FSGSBASE);
        wrmsr(MSR_FS_BASE, 0x123456789ab);
        wrmsr(MSR_GS_BASE, UDATA);
        FRAME64(UDATA_FRAME)[2] = 0x2222;
        HOT("soundness-15-rdfsbase", USER, wrmsr(MSR_GS_BASE, UDATA),
            "rdfsbase rax; rdgsbase rcx; mov rdx, gs:[16]; lea r8, [rcx+8]; wrgsbase r8; mov r9, gs:[8]; rdgsbase r10; "
            "wrfsbase rdi; rdfsbase r11; wrfsbase rax; mov esi, gs");
        HOT("soundness-15-swapgs", KERNEL, set_gs_bases(), "swapgs; rdgsbase rax; swapgs; rdgsbase rcx");
        HOT("soundness-15-rdfsbase-off", USER, , "rdfsbase rax");
        HOT("soundness-15-wrgsbase-off", KERNEL, , "wrgsbase rax");
    } else {
        absent("soundness-15-rdfsbase", "FSGSBASE");
        absent("soundness-15-swapgs", "FSGSBASE");
        absent("soundness-15-rdfsbase-off", "FSGSBASE");
        absent("soundness-15-wrgsbase-off", "FSGSBASE");
    }
    if (has_leaf1_c(26)) {
        set_xcr0(3);
        HOT("soundness-15-xgetbv", USER, , "xor ecx, ecx; xgetbv; mov r8, rax; mov ecx, 5; xgetbv");
        set_xcr0(has_leaf1_c(28) ? 7 : 3);
    } else {
        absent("soundness-15-xgetbv", "XSAVE");
    }
    HOT("soundness-15-rdpmc", USER, , "mov ecx, 0x40000000; rdpmc");
    HOT("soundness-15-rdmsr", USER, , "mov ecx, 0x10; rdmsr");
    HOT("soundness-15-user-reads-cr", USER, , "mov rax, cr4");
    HOT("soundness-15-user-reads-dr", USER, , "mov rax, dr7");
    write_cr4(read_cr4() | CR4_TSD);
    HOT("soundness-15-rdtsc-with-tsd", USER, , "rdtsc");
}

/* ---- The pointers of the last x87 instruction ---- */

/* The guest's own, or nothing (processors with FCS/FDS deprecated and FIP saved only for exceptions write zeros). */
static int own(u64 pointer, u64 from, u64 size)
{
    return pointer == 0 || pointer - from < size;
}

static void x87_pointers(void)
{
    static const char *const ways[] = { "fxsave64", "fxsave", "fnstenv", "fnsave", "xsave64" };
    struct code codes[] = {
        CODE("fninit; fld dword ptr [rbx]; mov rax, [rbx]; fxsave64 [rdi]"),
        CODE("fninit; fld dword ptr [rbx]; mov rax, [rbx]; fxsave [rdi]"),
        CODE("fninit; fld dword ptr [rbx]; mov rax, [rbx]; fnstenv [rdi]"),
        CODE("fninit; fld dword ptr [rbx]; mov rax, [rbx]; fnsave [rdi]"),
        CODE("fninit; fld dword ptr [rbx]; mov ecx, 7; mov eax, ecx; xor edx, edx; xsave64 [rdi]"),
    };

    for (unsigned i = 0; i < ARRAY_SIZE(ways); i++) {
        const char *name = name_of("soundness-15-fip-%s", ways[i]);
        int environment = i == 2 || i == 3, wide = i == 0 || i == 4;
        u64 fip, fdp;

        if (i == 4 && !has_leaf1_c(26)) {
            absent(name, "XSAVE");
            continue;
        }
        begin(name);
        put_code(CODE_FRAME, codes[i]);
        for (unsigned n = 0; n < 3; n++) {
            fill(UDATA_FRAME, 0, PAGE);
            AGAIN(USER, .rbx = UDATA + 0x800, .rdi = UDATA);
            fip = environment ? FRAME32(UDATA_FRAME)[3] : FRAME64(UDATA_FRAME)[1];
            fdp = environment ? FRAME32(UDATA_FRAME)[5] : FRAME64(UDATA_FRAME)[2];
            if (!wide) { /* 32 bits, and a selector above */
                word fcs = environment ? FRAME32(UDATA_FRAME)[4] & 0xffff : fip >> 32 & 0xffff;
                word fds = environment ? FRAME32(UDATA_FRAME)[6] & 0xffff : fdp >> 32 & 0xffff;

                say(" %d%d", (word)(fcs == 0 || fcs == (UCS | 3)), (word)(fds == 0 || fds == (UDS | 3)));
                fip = (u32)fip;
                fdp = (u32)fdp;
            }
            say(" fip=%d fdp=%d", (word)own(fip, UCODE_PAGE, 64), (word)own(fdp, UDATA + 0x800, 4));
            if (!own(fip, UCODE_PAGE, 64) || !own(fdp, UDATA + 0x800, 4))
                say("[%X %X]", fip, fdp);
        }
        done();
    }
    RUN(USER, "fninit");
    begin("soundness-15-fip-of-exception"); /* unmasked and pending */
    put_code(CODE_FRAME,
             CODE("fninit; mov word ptr [rdi], 0x37b; fldcw [rdi]; fld1; fldz; fdivp; nop; fnstenv [rdi]; fninit"));
    for (unsigned n = 0; n < 3; n++) {
        fill(UDATA_FRAME, 0, 64);
        AGAIN(USER, .rdi = UDATA);
        say(" %d", (word)own(FRAME32(UDATA_FRAME)[3], UCODE_PAGE + 13, 1));
    }
    done();
    begin("soundness-15-fip-restored");
    put_code(CODE_FRAME, CODE("fldenv [rbx]; fnstenv [rdi]; fxsave64 [rdi+0x40]; fninit"));
    for (unsigned n = 0; n < 3; n++) {
        fill(UDATA_FRAME, 0, PAGE);
        FRAME32(UDATA_FRAME + 0x800)[0] = 0x37f;
        FRAME32(UDATA_FRAME + 0x800)[2] = 0xffff;
        FRAME32(UDATA_FRAME + 0x800)[3] = 0x11223344;
        FRAME32(UDATA_FRAME + 0x800)[5] = 0x55667788;
        AGAIN(USER, .rbx = UDATA + 0x800, .rdi = UDATA);
        say(" %d%d", (word)own(FRAME32(UDATA_FRAME)[3], 0x11223344, 1),
            (word)own(FRAME32(UDATA_FRAME)[5], 0x55667788, 1));
    }
    done();
}

/* ---- What CPUID does not offer is undefined ---- */

struct offered {
    const char *name;
    struct code (*code)(void);
    u32 leaf, subleaf, reg, bit;
    enum mode mode;
};

#define OFFERED(X)                                                                                                     \
    X(clzero, "mov rax, rbx; .byte 0x0f, 0x01, 0xfc", 0x80000008, 0, 1, 0, USER)                                       \
    X(rdpru, "xor ecx, ecx; .byte 0x0f, 0x01, 0xfd", 0x80000008, 0, 1, 4, USER)                                        \
    X(monitorx, "mov rax, rbx; xor ecx, ecx; xor edx, edx; .byte 0x0f, 0x01, 0xfa", 0x80000001, 0, 2, 29, USER)        \
    X(monitor, "mov rax, rbx; xor ecx, ecx; xor edx, edx; .byte 0x0f, 0x01, 0xc8", 1, 0, 2, 3, KERNEL)                 \
    X(umonitor, ".byte 0xf3, 0x0f, 0xae, 0xf3", 7, 0, 2, 5, USER)                                                      \
    X(tpause, "xor eax, eax; xor edx, edx; xor ecx, ecx; .byte 0x66, 0x0f, 0xae, 0xf1", 7, 0, 2, 5, USER)              \
    X(umwait, "xor eax, eax; xor edx, edx; xor ecx, ecx; .byte 0xf2, 0x0f, 0xae, 0xf1", 7, 0, 2, 5, USER)              \
    X(xbegin, ".byte 0xc7, 0xf8, 0, 0, 0, 0", 7, 0, 1, 11, USER)                                                       \
    X(xend, ".byte 0x0f, 0x01, 0xd5", 7, 0, 1, 11, USER)                                                               \
    X(xtest, ".byte 0x0f, 0x01, 0xd6", 7, 0, 1, 11, USER)                                                              \
    X(xsusldtrk, ".byte 0xf2, 0x0f, 0x01, 0xe8", 7, 0, 3, 16, USER)                                                    \
    X(movdiri, ".byte 0x0f, 0x38, 0xf9, 0x03", 7, 0, 2, 27, USER)                                                      \
    X(movdir64b, "mov rax, rbx; .byte 0x66, 0x0f, 0x38, 0xf8, 0x03", 7, 0, 2, 28, USER)                                \
    X(enqcmd, "mov rax, rbx; .byte 0xf2, 0x0f, 0x38, 0xf8, 0x03", 7, 0, 2, 29, USER)                                   \
    X(serialize, ".byte 0x0f, 0x01, 0xe8", 7, 0, 3, 14, USER)                                                          \
    X(ptwrite, ".byte 0xf3, 0x0f, 0xae, 0xe0", 0x14, 0, 1, 4, USER)                                                    \
    X(rdpid, ".byte 0xf3, 0x0f, 0xc7, 0xf8", 7, 0, 2, 22, USER)                                                        \
    X(rdrand, ".byte 0x0f, 0xc7, 0xf0", 1, 0, 2, 30, USER)                                                             \
    X(rdseed, ".byte 0x0f, 0xc7, 0xf8", 7, 0, 1, 18, USER)                                                             \
    X(invpcid, "xor eax, eax; .byte 0x66, 0x0f, 0x38, 0x82, 0x03", 7, 0, 1, 10, KERNEL)                                \
    X(pconfig, "mov eax, 99; .byte 0x0f, 0x01, 0xc5", 7, 0, 3, 18, KERNEL)                                             \
    X(encls, ".byte 0x0f, 0x01, 0xcf", 7, 0, 1, 2, KERNEL)                                                             \
    X(vmxoff, ".byte 0x0f, 0x01, 0xc4", 1, 0, 2, 5, KERNEL)                                                            \
    X(vmrun, ".byte 0x0f, 0x01, 0xd8", 0x80000001, 0, 2, 2, KERNEL)                                                    \
    X(getsec, ".byte 0x0f, 0x37", 1, 0, 2, 6, KERNEL)                                                                  \
    X(xop, ".byte 0x8f, 0xe8, 0x78, 0xa2, 0xc0, 0x00", 0x80000001, 0, 2, 11, USER)                                     \
    X(tbm, ".byte 0x8f, 0xe9, 0x78, 0x01, 0xc8", 0x80000001, 0, 2, 21, USER)                                           \
    X(fma4, ".byte 0xc4, 0xe3, 0xf9, 0x69, 0xc0, 0x00", 0x80000001, 0, 2, 16, USER)                                    \
    X(lwp, ".byte 0x8f, 0xe9, 0x78, 0x12, 0xc0", 0x80000001, 0, 2, 15, USER)                                           \
    X(now3d, ".byte 0x0f, 0x0f, 0xc0, 0x9e", 0x80000001, 0, 3, 31, USER)                                               \
    X(femms, ".byte 0x0f, 0x0e", 0x80000001, 0, 3, 31, USER)                                                           \
    X(sse4a, ".byte 0x66, 0x0f, 0x79, 0xc1", 0x80000001, 0, 2, 6, USER)                                                \
    X(gfni, ".byte 0x66, 0x0f, 0x38, 0xcf, 0xc1", 7, 0, 2, 8, USER)                                                    \
    X(vaes, ".byte 0xc4, 0xe2, 0x7d, 0xdc, 0xc0", 7, 0, 2, 9, USER)                                                    \
    X(aes, ".byte 0x66, 0x0f, 0x38, 0xdc, 0xc0", 1, 0, 2, 25, USER)                                                    \
    X(pclmul, ".byte 0x66, 0x0f, 0x3a, 0x44, 0xc0, 0x00", 1, 0, 2, 1, USER)                                            \
    X(sha, ".byte 0x0f, 0x38, 0xc8, 0xc1", 7, 0, 1, 29, USER)                                                          \
    X(adx, ".byte 0xf3, 0x0f, 0x38, 0xf6, 0xc1", 7, 0, 1, 19, USER)                                                    \
    X(movbe, ".byte 0x0f, 0x38, 0xf0, 0x03", 1, 0, 2, 22, USER)                                                        \
    X(popcnt, ".byte 0xf3, 0x0f, 0xb8, 0xc1", 1, 0, 2, 23, USER)                                                       \
    X(crc32, ".byte 0xf2, 0x0f, 0x38, 0xf1, 0xc1", 1, 0, 2, 20, USER)                                                  \
    X(fma, ".byte 0xc4, 0xe2, 0x79, 0x98, 0xc1", 1, 0, 2, 12, USER)                                                    \
    X(f16c, ".byte 0xc4, 0xe2, 0x79, 0x13, 0xc1", 1, 0, 2, 29, USER)                                                   \
    X(bmi2, ".byte 0xc4, 0xe2, 0xf3, 0xf5, 0xc0", 7, 0, 1, 8, USER)                                                    \
    X(avx512, ".byte 0x62, 0xf1, 0x7c, 0x48, 0x58, 0xc0", 7, 0, 1, 16, USER)                                           \
    X(kmov, ".byte 0xc5, 0xf8, 0x92, 0xc0", 7, 0, 1, 16, USER)                                                         \
    X(amx, ".byte 0xc4, 0xe2, 0x78, 0x49, 0xc0", 7, 0, 3, 24, USER)                                                    \
    X(avx_vnni, ".byte 0xc4, 0xe2, 0x7d, 0x50, 0xc0", 7, 1, 0, 4, USER)                                                \
    X(clflushopt, ".byte 0x66, 0x0f, 0xae, 0x3b", 7, 0, 1, 23, USER)                                                   \
    X(clwb, ".byte 0x66, 0x0f, 0xae, 0x33", 7, 0, 1, 24, USER)                                                         \
    X(cmpxchg16b, ".byte 0x48, 0x0f, 0xc7, 0x0b", 1, 0, 2, 13, USER)                                                   \
    X(rdtscp, ".byte 0x0f, 0x01, 0xf9", 0x80000001, 0, 3, 27, USER)                                                    \
    X(xsaveopt, ".byte 0x0f, 0xae, 0x33", 13, 1, 0, 0, USER)                                                           \
    X(xsavec, ".byte 0x0f, 0xc7, 0x23", 13, 1, 0, 1, USER)                                                             \
    X(xsaves, ".byte 0x0f, 0xc7, 0x2b", 13, 1, 0, 3, KERNEL)                                                           \
    X(senduipi, ".byte 0xf3, 0x0f, 0xc7, 0xf0", 7, 0, 3, 5, USER)                                                      \
    X(loadiwkey, ".byte 0xf3, 0x0f, 0x38, 0xdc, 0xc1", 7, 0, 2, 23, KERNEL)                                            \
    X(hreset, ".byte 0xf3, 0x0f, 0x3a, 0xf0, 0xc0, 0x00", 7, 1, 0, 22, KERNEL)                                         \
    X(rdssp_wrss, ".byte 0x0f, 0x38, 0xf6, 0x03", 7, 0, 2, 7, USER)
#define X(id, text, leaf, subleaf, reg, bit, mode)                                                                     \
    static struct code offer_##id(void)                                                                                \
    {                                                                                                                  \
        return CODE(text);                                                                                             \
    }
OFFERED(X)
#undef X
#define X(id, text, leaf, subleaf, reg, bit, mode) { #id, offer_##id, leaf, subleaf, reg, bit, mode },
static const struct offered all_offered[] = { OFFERED(X) };
#undef X

static u32 feature_word(const struct offered *o)
{
    struct cpuid leaf = cpuid(o->leaf, o->subleaf);
    u32 words[] = { leaf.a, leaf.b, leaf.c, leaf.d };

    return cpuid(o->leaf & 0x80000000, 0).a < o->leaf ? 0 : words[o->reg];
}

/* #UD exactly where CPUID says no. Each is a case, so that what another emulator does differently can be named. */
static void offered_or_undefined(void)
{
    for (unsigned i = 0; i < ARRAY_SIZE(all_offered); i++) {
        const struct offered *o = &all_offered[i];
        int is_offered = feature_word(o) >> o->bit & 1, agree = 1;

        begin(name_of("soundness-15-offered-or-undefined-%s", o->name));
        if (has_leaf1_c(26))
            set_xcr0(has_leaf1_c(28) ? 7 : 3);
        put_code(CODE_FRAME, o->code());
        for (unsigned n = 0; n < 2; n++) {
            word vector = AGAIN(o->mode, .rbx = o->mode == USER ? UDATA : DATA, .rcx = 0, .rdx = 0).vector;

            /* AVX-512 and AMX also need XCR0, which is not set here */
            if (is_offered && (o->code == offer_avx512 || o->code == offer_kmov || o->code == offer_amx))
                continue;
            agree &= (vector == UD) == !is_offered;
        }
        say(" agree=%d", (word)agree);
        done();
    }
}

void cases(void)
{
    RUN(KERNEL, "fninit");
    tables(KERNEL, "");
    tables(USER, "-user");
    descriptors(KERNEL, "");
    descriptors(USER, "-user");
    identifiers();
    x87_pointers();
    offered_or_undefined();
}
