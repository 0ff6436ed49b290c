/* Control registers, debug registers, MSRs, privileged and undefined instructions: what is refused and how.
 * SDM Vol. 2 (each instruction's exception lists), Vol. 3A 2.5, 2.8, 9.4, 11.11, 11.12; Vol. 4. */
#include "guest.h"

#define NONCANONICAL_HALVES .rax = 0, .rdx = 0x8000

/* ---- MSRs ---- */

static void unknown_msrs(void)
{
    TRY("msr-unknown-read", KERNEL, "rdmsr", .rcx = 0x12345678);
    TRY("msr-unknown-write", KERNEL, "wrmsr", .rcx = 0x12345678);
    TRY("msr-unknown-read-low", KERNEL, "rdmsr", .rcx = 0x7f);
    TRY("msr-unknown-read-high", KERNEL, "rdmsr", .rcx = 0xffffffff);
    TRY("msr-unknown-read-c000", KERNEL, "rdmsr", .rcx = 0xc0001234);
    TRY("msr-index-upper-half-ignored", KERNEL, "rdmsr; xor eax, eax; xor edx, edx; mov rcx, 0",
        .rcx = 0x5500000000000010);
    TRY("msr-read-clears-upper-halves", KERNEL, "rdmsr", .rax = ~0ul, .rdx = ~0ul, .rcx = MSR_KERNEL_GS_BASE);
    TRY("msr-read-user", USER, "rdmsr", .rcx = 0x10);
    TRY("msr-write-user", USER, "wrmsr", .rcx = 0x10);
    TRY("msr-unknown-user", USER, "rdmsr", .rcx = 0x12345678);
}

static void msr_values(void)
{
    static const struct {
        const char *name;
        u32 msr;
    } bases[] = {
        { "fs-base", MSR_FS_BASE },
        { "gs-base", MSR_GS_BASE },
        { "kernel-gs-base", MSR_KERNEL_GS_BASE },
        { "lstar", MSR_LSTAR },
        { "cstar", MSR_CSTAR },
        { "sysenter-eip", MSR_SYSENTER_EIP },
        { "sysenter-esp", MSR_SYSENTER_ESP },
    };

    for (unsigned i = 0; i < ARRAY_SIZE(bases); i++) {
        u64 old = rdmsr(bases[i].msr);

        OPEN(name_of("msr-%s-noncanonical", bases[i].name), KERNEL, "wrmsr", .rcx = bases[i].msr, NONCANONICAL_HALVES);
        say(" kept=%d", (word)(rdmsr(bases[i].msr) == old));
        wrmsr(bases[i].msr, old);
        done();
    }
    TRY("msr-fs-base-canonical-high", KERNEL, "wrmsr; rdmsr", .rcx = MSR_FS_BASE, .rax = 0, .rdx = 0xffff8000);
    TRY("msr-efer-reserved-bit-1", KERNEL, "rdmsr; or eax, 2; wrmsr", .rcx = MSR_EFER, .rax = 0xd01, .rdx = 0);
    TRY("msr-efer-reserved-bit-63", KERNEL, "rdmsr; or edx, 0x80000000; wrmsr", .rcx = MSR_EFER, .rax = 0xd01);
    TRY("msr-efer-lme-while-paging", KERNEL, "rdmsr; and eax, 0xfffffeff; wrmsr", .rcx = MSR_EFER, .rax = 0xd01);
    TRY("msr-efer-lma-is-ignored", KERNEL, "rdmsr; and eax, 0xfffffbff; wrmsr; rdmsr", .rcx = MSR_EFER, .rdx = 0);
    TRY("msr-pat-reserved-type-2", KERNEL, "wrmsr", .rcx = 0x277, .rax = 0x02, .rdx = 0);
    TRY("msr-pat-reserved-bits", KERNEL, "wrmsr", .rcx = 0x277, .rax = 0x08, .rdx = 0);
    TRY("msr-pat-valid", KERNEL, "mov ebx, eax; wrmsr; rdmsr", .rcx = 0x277, .rax = 0x07040600, .rdx = 0x05010007);
    wrmsr(0x277, 0x0007040600070406);
    TRY("msr-mtrr-def-type-reserved", KERNEL, "wrmsr", .rcx = 0x2ff, .rax = 0x02, .rdx = 0);
    TRY("msr-mtrr-fixed-reserved-type", KERNEL, "wrmsr", .rcx = 0x250, .rax = 0x03, .rdx = 0);
    TRY("msr-mtrrcap-is-read-only", KERNEL, "wrmsr", .rcx = 0xfe, .rax = 0, .rdx = 0);
    TRY("msr-apic-base-reserved", KERNEL, "rdmsr; or eax, 1; wrmsr", .rcx = MSR_APIC_BASE, .rax = 0xfee00901, .rdx = 0);
    TRY("msr-apic-base-beyond-width", KERNEL, "rdmsr; or edx, 0x80000; wrmsr", .rcx = MSR_APIC_BASE, .rax = 0xfee00900);
    TRY("msr-x2apic-while-xapic", KERNEL, "rdmsr", .rcx = 0x802);
    TRY("msr-mcg-ctl-not-all-ones", KERNEL, "wrmsr", .rcx = 0x17b, .rax = 5, .rdx = 0);
    TRY("msr-mc0-status-not-zero", KERNEL, "wrmsr", .rcx = 0x401, .rax = 1, .rdx = 0);
    TRY("msr-debugctl-reserved", KERNEL, "wrmsr", .rcx = 0x1d9, .rax = 0x00f00000, .rdx = 0);
    if (cpuid(0x80000001, 0).d >> 27 & 1)
        TRY("msr-tsc-aux-upper-half", KERNEL, "wrmsr", .rcx = 0xc0000103, .rax = 0, .rdx = 1);
    else
        absent("msr-tsc-aux-upper-half", "RDTSCP");
    TRY("msr-star-any-value", KERNEL, "wrmsr; rdmsr", .rcx = MSR_STAR, .rax = 0x89abcdef, .rdx = 0x01234567);
    TRY("msr-fmask-upper-half", KERNEL, "wrmsr; rdmsr", .rcx = MSR_FMASK, .rax = 0x47700, .rdx = 0);
}

/* ---- Control registers ---- */

static void control_registers(void)
{
    TRY("cr0-upper-half", KERNEL, "mov rax, cr0; bts rax, 32; mov cr0, rax", .hide = 1);
    TRY("cr0-pg-without-pe", KERNEL, "mov rax, cr0; and eax, 0xfffffffe; mov cr0, rax");
    TRY("cr0-nw-without-cd", KERNEL, "mov rax, cr0; or eax, 0x20000000; mov cr0, rax");
    TRY("cr0-paging-off-in-64-bit-code", KERNEL, "mov rax, cr0; btr rax, 31; mov cr0, rax");
    TRY("cr0-et-is-fixed", KERNEL, "mov rax, cr0; btr rax, 4; mov cr0, rax; mov rax, cr0");
    TRY("cr0-undefined-bits-read-zero", KERNEL,
        "mov rax, cr0; or eax, 0x1fc0; mov cr0, rax; mov rax, cr0; and eax, 0x1fc0");
    TRY("cr0-user", USER, "mov rax, cr0");
    TRY("cr1", KERNEL, "mov rax, cr1");
    TRY("cr5", KERNEL, "mov cr5, rax");
    TRY("cr15", KERNEL, "mov rax, cr15");
    TRY("cr2-any-value", KERNEL, "mov cr2, rax; mov rbx, cr2", .rax = 0x123456789abcdef0);
    TRY("cr3-bit-51", KERNEL, "mov rax, cr3; bts rax, 51; mov cr3, rax; xor eax, eax", .rax = 0, .hide = 1);
    TRY("cr3-bit-63-without-pcide", KERNEL, "mov rcx, cr3; bts rcx, 63; xor eax, eax; mov cr3, rcx; mov ecx, 0",
        .rcx = 0, .hide = 2);
    TRY("cr4-reserved-bit-15", KERNEL, "mov rax, cr4; bts rax, 15; mov cr4, rax; xor eax, eax", .rax = 0, .hide = 1);
    TRY("cr4-reserved-bit-31", KERNEL, "mov rax, cr4; bts rax, 31; mov cr4, rax; xor eax, eax", .rax = 0, .hide = 1);
    TRY("cr4-reserved-bit-63", KERNEL, "mov rax, cr4; bts rax, 63; mov cr4, rax; xor eax, eax", .rax = 0, .hide = 1);
    TRY("cr4-pae-off-in-long-mode", KERNEL, "mov rax, cr4; btr rax, 5; mov cr4, rax; xor eax, eax", .rax = 0,
        .hide = 1);
    TRY("cr4-user", USER, "mov cr4, rax");
    TRY("cr8-value", KERNEL, "mov cr8, rax; mov rbx, cr8; xor ecx, ecx; mov cr8, rcx", .rax = 0xf);
    TRY("cr8-too-large", KERNEL, "mov cr8, rax", .rax = 0x10);
    TRY("cr8-upper-half", KERNEL, "mov cr8, rax", .rax = BIT(40));
    TRY("cr8-user", USER, "mov rax, cr8");
    if (cpuid(0x80000001, 0).c >> 4 & 1)
        absent("cr0-lock-is-not-cr8", "AltMovCr8 is there");
    else
        TRY("cr0-lock-is-not-cr8", KERNEL, "lock; mov rax, cr0");
    if (has_leaf1_c(17)) {
        TRY("cr4-pcide-with-pcid-in-cr3", KERNEL,
            "mov rcx, cr3; or rcx, 1; mov cr3, rcx; mov rdx, cr4; bts rdx, 17; mov cr4, rdx; ud2", .rcx = 0, .rdx = 0,
            .hide = 6);
        TRY("cr0-pg-off-with-pcide", KERNEL,
            "mov rdx, cr4; bts rdx, 17; mov cr4, rdx; mov rax, cr0; btr rax, 31; mov cr0, rax", .hide = 4);
    } else {
        absent("cr4-pcide-with-pcid-in-cr3", "PCID");
        absent("cr0-pg-off-with-pcide", "PCID");
    }
    TRY("lmsw-cannot-clear-pe", KERNEL, "lmsw ax; smsw eax; and eax, 0xf", .rax = 0);
    TRY("lmsw-sets-ts", KERNEL, "lmsw ax; smsw eax; and eax, 0xf", .rax = 0x8);
    TRY("lmsw-user", USER, "lmsw ax");
    TRY("smsw-user-without-umip", USER, "smsw rax; shr rax, 16; mov rbx, 0", .rax = ~0ul);
    TRY("clts-user", USER, "clts");
}

static void descriptor_registers(void)
{
    TRY("lgdt-user", USER, "lgdt [rsp]");
    TRY("lidt-user", USER, "lidt [rsp]");
    TRY("lldt-user", USER, "lldt ax");
    TRY("ltr-user", USER, "ltr ax");
    TRY("lgdt-register-form", KERNEL, ".byte 0x0f, 0x01, 0xd7");
    TRY("lgdt-noncanonical-base", KERNEL, "push rax; push rax; mov word ptr [rsp+6], 0xff; lgdt [rsp+6]",
        .rax = NON_CANONICAL);
    TRY("lidt-noncanonical-base", KERNEL, "push rax; push rax; mov word ptr [rsp+6], 0xff; lidt [rsp+6]",
        .rax = NON_CANONICAL);
    TRY("lgdt-noncanonical-address", KERNEL, "lgdt [rax]", .rax = NON_CANONICAL);
    TRY("ltr-null", KERNEL, "ltr ax", .rax = 0);
    TRY("ltr-busy", KERNEL, "ltr ax", .rax = TSS_SELECTOR);
    TRY("ltr-code-segment", KERNEL, "ltr ax", .rax = KCS);
    TRY("ltr-beyond-gdt", KERNEL, "ltr ax", .rax = 0x1000);
    TRY("ltr-in-ldt", KERNEL, "ltr ax", .rax = TSS_SELECTOR | 4);
    gdt[SCRATCH / 8] = descriptor(0, 0x67, 0x09, 0);
    TRY("ltr-not-present", KERNEL, "ltr ax", .rax = SCRATCH);
    gdt[SCRATCH / 8] = descriptor(0, 0x67, 0x89, 0);
    gdt[SCRATCH / 8 + 1] = 0x8000;
    TRY("ltr-noncanonical-base", KERNEL, "ltr ax", .rax = SCRATCH);
    gdt[SCRATCH / 8] = descriptor(0, 0x67, 0x81, 0);
    TRY("ltr-16-bit-tss-in-long-mode", KERNEL, "ltr ax", .rax = SCRATCH);
    gdt[SCRATCH / 8] = gdt[TSS_SELECTOR / 8] & ~BIT(41);
    OPEN("ltr-sets-busy", KERNEL, "ltr ax; str ebx", .rax = SCRATCH);
    say(" type=%x", (word)(gdt[SCRATCH / 8] >> 40 & 0xff));
    done();
    TRY("lldt-null", KERNEL, "lldt ax; sldt ebx", .rax = 3);
    TRY("lldt-code-segment", KERNEL, "lldt ax", .rax = KCS);
    gdt[SCRATCH / 8] = descriptor(0, 0xff, 0x02, 0);
    TRY("lldt-not-present", KERNEL, "lldt ax", .rax = SCRATCH);
    gdt[SCRATCH / 8] = descriptor(0, 0xff, 0x82, 0);
    TRY("lldt-valid", KERNEL, "lldt ax; sldt ebx", .rax = SCRATCH);
    gdt[SCRATCH / 8] = descriptor(0, 0xff, 0x82, 0);
    gdt[SCRATCH / 8 + 1] = 0x8000;
    TRY("lldt-noncanonical-base", KERNEL, "lldt ax", .rax = SCRATCH);
    if (has_leaf7_c(2)) {
        word cr4 = read_cr4() | CR4_UMIP;

        write_cr4(cr4);
        TRY("umip-smsw", USER, "smsw eax");
        write_cr4(cr4);
        TRY("umip-sgdt", USER, "sgdt [rsp]");
        write_cr4(cr4);
        TRY("umip-sidt", USER, "sidt [rsp]");
        write_cr4(cr4);
        TRY("umip-sldt", USER, "sldt eax");
        write_cr4(cr4);
        TRY("umip-str", USER, "str eax");
        write_cr4(cr4);
        TRY("umip-kernel", KERNEL, "str eax; sldt ebx");
        write_cr4(cr4);
        TRY("umip-before-page-fault", USER, "sgdt [rax]", .rax = HOLE);
    } else {
        static const char *const names[] = { "smsw", "sgdt", "sidt", "sldt", "str", "kernel", "before-page-fault" };

        for (unsigned i = 0; i < ARRAY_SIZE(names); i++)
            absent(name_of("umip-%s", names[i]), "UMIP");
    }
}

/* ---- Debug registers: SDM Vol. 3B 18.2 ---- */

static void debug_registers(void)
{
    TRY("dr6-fixed-bits", KERNEL, "mov dr6, rax; mov rbx, dr6", .rax = 0);
    TRY("dr6-all-ones", KERNEL, "mov dr6, rax; mov rbx, dr6; and ebx, 0xffff17ff", .rax = 0xffffffff);
    TRY("dr6-upper-half", KERNEL, "mov dr6, rax", .rax = BIT(32));
    TRY("dr7-fixed-bits", KERNEL, "mov dr7, rax; mov rbx, dr7", .rax = 0);
    TRY("dr7-reserved-bits", KERNEL, "mov dr7, rax; mov rbx, dr7; and ebx, 0xf7ff", .rax = 0xd400);
    TRY("dr7-upper-half", KERNEL, "mov dr7, rax", .rax = BIT(32));
    TRY("dr0-full-width", KERNEL, "mov dr0, rax; mov rbx, dr0; xor ecx, ecx; mov dr0, rcx", .rax = 0x123456789abcdef0);
    TRY("dr4-is-dr6-without-de", KERNEL, "mov rax, dr4; mov rbx, dr5");
    write_cr4(read_cr4() | CR4_DE);
    TRY("dr4-with-de", KERNEL, "mov rax, dr4");
    write_cr4(read_cr4() | CR4_DE);
    TRY("dr5-with-de", KERNEL, "mov dr5, rax");
    TRY("dr8", KERNEL, ".byte 0x44, 0x0f, 0x21, 0xc0");
    TRY("dr0-user", USER, ".byte 0x0f, 0x21, 0xc0");
    write_dr7(0x2400);
    OPEN("dr7-general-detect", KERNEL, "nop; mov rax, dr3");
    say(" dr6=%x dr7=%x", read_dr6(), read_dr7());
    done();
    write_dr7(0x2400);
    OPEN("dr7-general-detect-user", USER, ".byte 0x0f, 0x21, 0xd8");
    RUN(KERNEL, "mov rax, dr7"); /* #DB clears GD */
    done();
}

/* ---- Privileged instructions ---- */

static void privileged(void)
{
    TRY("user-hlt", USER, "hlt");
    TRY("user-cli", USER, "cli");
    TRY("user-sti", USER, "sti");
    TRY("user-invd", USER, "invd");
    TRY("user-wbinvd", USER, "wbinvd");
    TRY("user-invlpg", USER, "invlpg [rax]", .rax = NON_CANONICAL);
    TRY("user-swapgs", USER, "swapgs");
    TRY("user-in", USER, "in al, 0x80");
    TRY("user-out", USER, "out 0x80, al");
    TRY("user-xsetbv", USER, "xsetbv", .rcx = 0);
    TRY("user-sysret", USER, "sysretq");
    wrmsr(MSR_EFER, rdmsr(MSR_EFER) & ~1ull);
    TRY("user-sysret-without-sce", USER, "sysretq");
    TRY("user-sysexit", USER, ".byte 0x0f, 0x35");
    TRY("user-iret-to-ring-0", USER, "push 0x10; push rsp; pushfq; push 8; push rax; iretq");
    TRY("user-rdpmc", USER, "rdpmc", .rcx = 0);
    TRY("kernel-rdpmc-absent-counter", KERNEL, "rdpmc", .rcx = 0x1000);
    TRY("invlpg-noncanonical-is-nop", KERNEL, "invlpg [rax]", .rax = NON_CANONICAL);
    TRY("invlpg-register", KERNEL, ".byte 0x0f, 0x01, 0xfb");
    TRY("rsm-outside-smm", KERNEL, "rsm");
    TRY("user-rsm", USER, "rsm");
    write_cr4(read_cr4() | CR4_TSD);
    TRY("tsd-user-rdtsc", USER, "rdtsc");
    write_cr4(read_cr4() | CR4_TSD);
    TRY("tsd-user-rdtscp", USER, "rdtscp");
    write_cr4(read_cr4() | CR4_TSD);
    TRY("tsd-kernel-rdtsc", KERNEL, "rdtsc; xor eax, eax; xor edx, edx");
    TRY("vmcall-or-vmlaunch", KERNEL, "vmlaunch");
    TRY("vmrun", KERNEL, ".byte 0x0f, 0x01, 0xd8");
    TRY("clac-user", USER, "clac");
    TRY("stac-user", USER, "stac");
    TRY("xgetbv-index-2", KERNEL, "xgetbv", .rcx = 2);
    TRY("xsetbv-index-1", KERNEL, "xsetbv", .rcx = 1, .rax = 1, .rdx = 0);
    TRY("xsetbv-without-x87", KERNEL, "xsetbv", .rcx = 0, .rax = 2, .rdx = 0);
    TRY("xsetbv-avx-without-sse", KERNEL, "xsetbv", .rcx = 0, .rax = 5, .rdx = 0);
    TRY("xsetbv-reserved", KERNEL, "xsetbv", .rcx = 0, .rax = 1, .rdx = 0x40000000);
    write_cr4(read_cr4() & ~(word)CR4_OSXSAVE);
    TRY("xgetbv-without-osxsave", KERNEL, "xgetbv", .rcx = 0);
    write_cr4(read_cr4() & ~(word)CR4_OSXSAVE);
    TRY("xsetbv-without-osxsave-user", USER, "xsetbv", .rcx = 0);
}

static void fs_gs_bases(void)
{
    if (!has_leaf7_b(0)) {
        absent("fsgsbase-off", "FSGSBASE");
        absent("fsgsbase-user", "FSGSBASE");
        absent("fsgsbase-noncanonical", "FSGSBASE");
        absent("fsgsbase-32-bit-write", "FSGSBASE");
        absent("fsgsbase-compat", "FSGSBASE");
        return;
    }
    TRY("fsgsbase-off", KERNEL, "rdfsbase rax");
    write_cr4(read_cr4() | CR4_FSGSBASE);
    TRY("fsgsbase-user", USER, "wrfsbase rax; rdfsbase rbx; wrgsbase rcx; rdgsbase rdx", .rax = UDATA);
    write_cr4(read_cr4() | CR4_FSGSBASE);
    TRY("fsgsbase-noncanonical", USER, "wrgsbase rax", .rax = NON_CANONICAL);
    write_cr4(read_cr4() | CR4_FSGSBASE);
    TRY("fsgsbase-32-bit-write", USER, "wrfsbase eax; rdfsbase rbx", .rax = 0xffffffff80000000);
    write_cr4(read_cr4() | CR4_FSGSBASE);
    TRY32("fsgsbase-compat", USER32, ".byte 0xf3, 0x0f, 0xae, 0xc0");
    TRY("swapgs-exchanges", KERNEL, "swapgs; mov rax, 0x1111; rdmsr; xor edx, edx", .rcx = MSR_GS_BASE, .rdx = 0);
}

/* ---- Undefined instructions ---- */

static void undefined(void)
{
    TRY("ud2", KERNEL, "ud2");
    TRY("ud0", KERNEL, ".byte 0x0f, 0xff, 0xc0");
    TRY("ud1", KERNEL, ".byte 0x0f, 0xb9, 0xc0");
    TRY("ud-into-64", USER, ".byte 0xce");
    TRY("ud-push-es-64", USER, ".byte 0x06");
    TRY("ud-pop-ds-64", USER, ".byte 0x1f");
    TRY("ud-daa-64", USER, ".byte 0x27");
    TRY("ud-aaa-64", USER, ".byte 0x37");
    TRY("ud-pusha-64", USER, ".byte 0x60");
    TRY("ud-popa-64", USER, ".byte 0x61");
    TRY("ud-group1-82-64", USER, ".byte 0x82, 0xc0, 0");
    TRY("ud-far-call-direct-64", USER, ".byte 0x9a, 0, 0, 0, 0, 8, 0");
    TRY("ud-far-jmp-direct-64", USER, ".byte 0xea, 0, 0, 0, 0, 8, 0");
    TRY("ud-aam-64", USER, ".byte 0xd4, 0");
    TRY("ud-salc-64", USER, ".byte 0xd6");
    TRY("ud-mov-cs", KERNEL, ".byte 0x8e, 0xc8");
    TRY("ud-mov-seg-6", KERNEL, ".byte 0x8e, 0xf0");
    TRY("ud-mov-from-seg-7", KERNEL, ".byte 0x8c, 0xf8");
    TRY("ud-lea-register", USER, ".byte 0x8d, 0xc0");
    TRY("ud-group4-2", USER, ".byte 0xfe, 0xd0");
    TRY("ud-group5-7", USER, ".byte 0xff, 0xf8");
    TRY("ud-far-jmp-register", USER, ".byte 0xff, 0xe8");
    TRY("ud-pop-group1a-1", USER, ".byte 0x8f, 0xc8");
    TRY("ud-mov-c7-1", USER, ".byte 0xc7, 0xc8, 0, 0, 0, 0");
    TRY("ud-group8-0", USER, ".byte 0x0f, 0xba, 0xc0, 0");
    TRY("ud-cmpxchg8b-register", USER, ".byte 0x0f, 0xc7, 0xc8");
    TRY("ud-0f-04", USER, ".byte 0x0f, 0x04");
    TRY("ud-0f-0a", USER, ".byte 0x0f, 0x0a");
    TRY("ud-0f-24", USER, ".byte 0x0f, 0x24, 0xc0");
    TRY("ud-0f-a6", USER, ".byte 0x0f, 0xa6, 0xc0");
    TRY("ud-before-page-fault", USER, ".byte 0xfe, 0x10", .rax = HOLE);
    TRY32("ud-compat-arpl-is-valid", USER32, "arpl ax, cx", .rax = 8, .rcx = 3, .show = ZF);
}

/* LOCK: only on some read-modify-write forms with a memory destination (SDM Vol. 2A LOCK). */
static void lock_prefix(void)
{
    TRY("lock-add-memory", USER, "lock add dword ptr [rsp], 1");
    TRY("lock-inc-memory", USER, "lock inc byte ptr [rsp]");
    TRY("lock-xchg-memory", USER, "lock xchg [rsp], eax; xor eax, eax");
    TRY("lock-btc-memory", USER, "lock btc dword ptr [rsp], 3", .show = 0);
    TRY("lock-cmpxchg16b", USER, "lock cmpxchg16b [rsp]", .rax = 0, .rdx = 0, .rbx = 0, .rcx = 0, .rsp = USTACK + 0x100,
        .show = ZF);
    TRY("lock-add-register", USER, ".byte 0xf0, 0x01, 0xc8");
    TRY("lock-add-load-form", USER, ".byte 0xf0, 0x03, 0x04, 0x24");
    TRY("lock-mov-memory", USER, ".byte 0xf0, 0x89, 0x04, 0x24");
    TRY("lock-cmp-memory", USER, ".byte 0xf0, 0x39, 0x04, 0x24");
    TRY("lock-cmp-immediate", USER, ".byte 0xf0, 0x83, 0x3c, 0x24, 0x00");
    TRY("lock-test-memory", USER, ".byte 0xf0, 0x85, 0x04, 0x24");
    TRY("lock-bt-memory", USER, ".byte 0xf0, 0x0f, 0xba, 0x24, 0x24, 1");
    TRY("lock-shl-memory", USER, ".byte 0xf0, 0xd1, 0x24, 0x24");
    TRY("lock-mul-memory", USER, ".byte 0xf0, 0xf7, 0x24, 0x24");
    TRY("lock-push", USER, ".byte 0xf0, 0x50");
    TRY("lock-nop", USER, ".byte 0xf0, 0x90");
    TRY("lock-jmp", USER, ".byte 0xf0, 0xeb, 0x00");
    TRY("lock-movs", USER, ".byte 0xf0, 0xa4");
    TRY("lock-sse", USER, ".byte 0xf0, 0x0f, 0x58, 0xc1");
    TRY("lock-x87", USER, ".byte 0xf0, 0xd9, 0xe8");
    TRY("lock-vex", USER, ".byte 0xf0, 0xc5, 0xf8, 0x58, 0xc1");
    TRY("lock-int3", USER, ".byte 0xf0, 0xcc");
    TRY("lock-hlt-user-ud-before-gp", USER, ".byte 0xf0, 0xf4");
    TRY("lock-mov-cr0-user", USER, ".byte 0xf0, 0x0f, 0x22, 0xc0");
    TRY("lock-illegal-before-page-fault", USER, ".byte 0xf0, 0x89, 0x00", .rax = HOLE);
    TRY("lock-legal-page-fault", USER, ".byte 0xf0, 0x01, 0x08", .rax = HOLE);
}

/* An instruction longer than 15 bytes is #GP(0) (SDM Vol. 2A 2.3.11; Vol. 3A 6.15 interrupt 13). */
static void length_limit(void)
{
    TRY("length-15", USER, ".fill 14, 1, 0x66; nop");
    TRY("length-16", USER, ".fill 15, 1, 0x66; nop");
    TRY("length-15-with-operand", USER, ".fill 8, 1, 0x2e; .byte 0x81, 0x04, 0x24, 1, 0, 0, 0");
    TRY("length-16-with-operand", USER, ".fill 9, 1, 0x2e; .byte 0x81, 0x04, 0x24, 1, 0, 0, 0");
    TRY("length-16-undefined", USER, ".fill 15, 1, 0x66; ud2");
    map(UCODE_PAGE + PAGE, 0, 0);
    flush_tlb();
    TRY("length-15-up-to-absent-page", USER, ".fill 14, 1, 0x66; nop; .byte 0x90", .code_at = PAGE - 15);
    map(UCODE_PAGE + PAGE, 0, 0);
    flush_tlb();
    TRY("length-prefixes-to-absent-page", USER, ".fill 16, 1, 0x66", .code_at = PAGE - 14);
    map(UCODE_PAGE + PAGE, 0, 0);
    flush_tlb();
    TRY("length-16-before-absent-page", USER, ".fill 16, 1, 0x66", .code_at = PAGE - 15);
    TRY("rex-before-legacy-prefix-is-ignored", USER, ".byte 0x48, 0x66, 0x89, 0xc8", .rax = ~0ul, .rcx = 0);
    TRY("vex-after-rex", USER, ".byte 0x48, 0xc5, 0xf8, 0x58, 0xc1");
    TRY("vex-after-66", USER, ".byte 0x66, 0xc5, 0xf8, 0x58, 0xc1");
}

static void arithmetic(void)
{
    TRY("div-by-zero", USER, "div rcx", .rcx = 0);
    TRY("div-overflow", USER, "div ecx", .rcx = 1, .rdx = 1);
    TRY("div-overflow-by-one", USER, "div cl", .rax = 0x100, .rcx = 1);
    TRY("div-largest-quotient", USER, "div cl", .rax = 0xff, .rcx = 1);
    TRY("idiv-minimum-by-minus-one", USER, "idiv ecx", .rax = 0x80000000, .rdx = 0xffffffff, .rcx = 0xffffffff);
    TRY("idiv-minimum-by-one", USER, "idiv ecx", .rax = 0x80000000, .rdx = 0xffffffff, .rcx = 1);
    TRY("idiv-128-bit-overflow", USER, "idiv rcx", .rax = 0, .rdx = 1, .rcx = 2);
    TRY("div-memory-page-fault-first", USER, "div qword ptr [rcx]", .rcx = HOLE);
}

void cases(void)
{
    unknown_msrs();
    msr_values();
    control_registers();
    descriptor_registers();
    debug_registers();
    privileged();
    fs_gs_bases();
    undefined();
    lock_prefix();
    length_limit();
    arithmetic();
}
