/* Control transfers in long mode: near and far branches to bad places, call gates, system calls and returns,
 * compatibility mode, segment loads. SDM Vol. 2; Vol. 3A 5.8; where AMD's processors differ (APM Vol. 3), the case's
 * name ends in the vendor's. */
#include "guest.h"

#define ON_USER_PAGE(n) (UCODE_PAGE + (n))

/* A name for what the vendors do differently. */
static const char *of_vendor(const char *name)
{
    return name_of("%s-%s", name, is_amd() ? "amd" : "intel");
}

/* ---- Near branches ---- */

static void near_branches(void)
{
    TRY("near-jmp-register-noncanonical", USER, "jmp rax", .rax = NON_CANONICAL);
    TRY("near-jmp-memory-noncanonical", USER, "mov [rsp], rax; jmp [rsp]", .rax = NON_CANONICAL);
    TRY("near-call-register-noncanonical", USER, "call rax", .rax = NON_CANONICAL);
    TRY("near-call-noncanonical-kernel", KERNEL, "call rax", .rax = 0x7fffffffffffffff);
    TRY("near-ret-noncanonical", USER, "mov [rsp], rax; ret", .rax = NON_CANONICAL);
    TRY("near-ret-imm-noncanonical", USER, "mov [rsp], rax; ret 16", .rax = NON_CANONICAL);
    TRY("near-jmp-absent-page", USER, "jmp rax", .rax = HOLE);
    TRY("near-call-absent-page", USER, "call rax", .rax = HOLE);
    TRY("near-jmp-supervisor-page", USER, "jmp rax", .rax = DATA);
    map(LOW_END, FREE_FRAME, P | W | U);
    *FRAME8(FREE_FRAME + PAGE - 1) = 0x90;
    TRY("near-run-off-low-end", USER, "jmp rax", .rax = LOW_END + PAGE - 1);
    map(LOW_END, FREE_FRAME, P | W | U);
    *FRAME8(FREE_FRAME + PAGE - 1) = 0xb0; /* mov al, imm8: the immediate is not there */
    TRY("near-instruction-across-low-end", USER, "jmp rax", .rax = LOW_END + PAGE - 1);
    map(LOW_END, FREE_FRAME, P | W | U);
    *FRAME8(FREE_FRAME + PAGE - 2) = 0xeb; /* jmp +0x10 */
    *FRAME8(FREE_FRAME + PAGE - 1) = 0x10;
    TRY("near-relative-jmp-past-low-end", USER, "jmp rax", .rax = LOW_END + PAGE - 2);
    map(LOW_END, FREE_FRAME, P | W | U);
    *FRAME8(FREE_FRAME + PAGE - 2) = 0x75; /* jnz +0x10 */
    TRY("near-jcc-not-taken-past-low-end", USER, "cmp eax, eax; jmp rax", .rax = LOW_END + PAGE - 2);
    if (!is_amd()) {
        TRY("near-66h-jmp-keeps-64-bits-intel", USER, ".byte 0x66, 0xe9, 0, 0, 0, 0");
        TRY("near-66h-ret-keeps-64-bits-intel", USER,
            "lea rax, [rip+1f]; mov [rsp], rax; .byte 0x66, 0xc3; 1:", .hide = 1);
    }
    TRY("near-loop-32-bit-count", USER, ".byte 0x67; loop 1f; 1:", .rcx = BIT(32) | 1);
    TRY("near-jrcxz-upper-half", USER, "jrcxz 1f; mov eax, 5; 1:", .rcx = BIT(32));
    TRY("near-jecxz-upper-half", USER, "jecxz 1f; mov eax, 5; 1:", .rcx = BIT(32));
}

/* ---- Far branches ---- */

#define FAR_OPERAND "mov [rsp], edi; mov [rsp+4], esi;"

static u64 far_target(word selector)
{
    /* the code behind a far transfer: INT 0x40 at offset 0x100 of the page that the selector's level may use */
    *FRAME8(CODE_FRAME + 0x100) = 0xcd;
    *FRAME8(CODE_FRAME + 0x101) = 0x40;
    return (selector & 3 ? UCODE_PAGE : CODE_PAGE) + 0x100;
}

static void set_call_gate(unsigned selector, u64 target, u16 code, u8 type)
{
    gdt[selector / 8] = (target & 0xffff) | (u64)code << 16 | (u64)type << 40 | (target >> 16 & 0xffff) << 48;
    gdt[selector / 8 + 1] = target >> 32;
}

#define FAR(name, how, text, selector, ...)                                                                            \
    TRY(name, how, FAR_OPERAND text, .rdi = far_target((how) == USER ? 3 : 0), .rsi = (selector), ##__VA_ARGS__)

static void far_branches(void)
{
    FAR("far-jmp-same-code", KERNEL, "jmp fword ptr [rsp]", KCS);
    FAR("far-jmp-to-compat", KERNEL, "jmp fword ptr [rsp]", KCS32);
    FAR("far-jmp-null", KERNEL, "jmp fword ptr [rsp]", 0);
    FAR("far-jmp-null-rpl-3", USER, "jmp fword ptr [rsp]", 3);
    FAR("far-jmp-data", KERNEL, "jmp fword ptr [rsp]", KDS);
    FAR("far-jmp-beyond-gdt", KERNEL, "jmp fword ptr [rsp]", 0x2000);
    FAR("far-jmp-user-to-kernel-code", USER, "jmp fword ptr [rsp]", KCS);
    FAR("far-jmp-kernel-to-user-code", KERNEL, "jmp fword ptr [rsp]", UCS | 3);
    FAR("far-jmp-user-to-compat", USER, "jmp fword ptr [rsp]", UCS32 | 3);
    FAR("far-jmp-rpl-above-cpl", KERNEL, "jmp fword ptr [rsp]", KCS | 1);
    FAR("far-jmp-tss", KERNEL, "jmp fword ptr [rsp]", TSS_SELECTOR);
    gdt[SCRATCH / 8] = descriptor(0, 0xfffff, 0x1b, FLAG_G | FLAG_L);
    FAR("far-jmp-not-present", KERNEL, "jmp fword ptr [rsp]", SCRATCH);
    gdt[SCRATCH / 8] = descriptor(0, 0xfffff, 0x9f, FLAG_G | FLAG_L);
    FAR("far-jmp-conforming-from-user", USER, "jmp fword ptr [rsp]", SCRATCH);
    gdt[SCRATCH / 8] = descriptor(0, 0xff, TYPE_CODE, FLAG_D);
    FAR("far-jmp-compat-limit", KERNEL, "jmp fword ptr [rsp]", SCRATCH);
    gdt[SCRATCH / 8] = descriptor(0, 0xfffff, TYPE_CODE, FLAG_G | FLAG_L | FLAG_D);
    FAR("far-jmp-l-and-d", KERNEL, "jmp fword ptr [rsp]", SCRATCH);
    FAR("far-call-same-code", KERNEL, "call fword ptr [rsp]", KCS);
    FAR("far-call-data", USER, "call fword ptr [rsp]", UDS | 3);
    if (!is_amd())
        TRY("far-jmp-64-noncanonical-intel", KERNEL, "mov [rsp], rdi; mov [rsp+8], esi; rex.w jmp fword ptr [rsp]",
            .rdi = NON_CANONICAL, .rsi = KCS);
    TRY("far-jmp-operand-absent", USER, "jmp fword ptr [rax]", .rax = HOLE);

    set_call_gate(SCRATCH, far_target(0), KCS, 0xec);
    FAR("gate-call-user-to-kernel", USER, "call fword ptr [rsp]", SCRATCH | 3, .hide = 1 << 4);
    set_call_gate(SCRATCH, far_target(0), KCS, 0xec);
    FAR("gate-jmp-user-to-kernel", USER, "jmp fword ptr [rsp]", SCRATCH | 3);
    set_call_gate(SCRATCH, far_target(0), KCS, 0x8c);
    FAR("gate-call-dpl-0-from-user", USER, "call fword ptr [rsp]", SCRATCH | 3);
    set_call_gate(SCRATCH, far_target(0), KCS, 0x8c);
    FAR("gate-call-same-level", KERNEL, "call fword ptr [rsp]", SCRATCH);
    set_call_gate(SCRATCH, far_target(0), KCS, 0x8c);
    FAR("gate-jmp-same-level", KERNEL, "jmp fword ptr [rsp]", SCRATCH);
    set_call_gate(SCRATCH, far_target(0), KCS, 0x6c);
    FAR("gate-call-not-present", USER, "call fword ptr [rsp]", SCRATCH | 3);
    set_call_gate(SCRATCH, far_target(0), KCS32, 0xec);
    FAR("gate-call-to-compat", USER, "call fword ptr [rsp]", SCRATCH | 3);
    set_call_gate(SCRATCH, far_target(0), 0, 0xec);
    FAR("gate-call-null-code", USER, "call fword ptr [rsp]", SCRATCH | 3);
    set_call_gate(SCRATCH, far_target(0), KDS, 0xec);
    FAR("gate-call-data-segment", USER, "call fword ptr [rsp]", SCRATCH | 3);
    set_call_gate(SCRATCH, NON_CANONICAL, KCS, 0xec);
    FAR("gate-call-noncanonical", USER, "call fword ptr [rsp]", SCRATCH | 3);
    set_call_gate(SCRATCH, far_target(0), KCS, 0xec);
    gdt[SCRATCH / 8 + 1] |= BIT(40);
    FAR("gate-call-upper-type-not-zero", USER, "call fword ptr [rsp]", SCRATCH | 3);
    set_call_gate(SCRATCH, far_target(0), KCS, 0xe4);
    FAR("gate-call-16-bit-type", USER, "call fword ptr [rsp]", SCRATCH | 3);
    set_call_gate(0xf8, far_target(0), KCS, 0xec);
    FAR("gate-call-upper-half-beyond-gdt", USER, "call fword ptr [rsp]", 0xf8 | 3, .hide = 1 << 4);
    set_call_gate(SCRATCH, far_target(0), KCS, 0xec);
    __builtin_memcpy(tss + 4, &(u64){ HOLE }, 8);
    FAR("gate-call-stack-absent", USER, "call fword ptr [rsp]", SCRATCH | 3);
    set_call_gate(SCRATCH, far_target(0), KCS, 0xec);
    __builtin_memcpy(tss + 4, &(u64){ NON_CANONICAL + 64 }, 8);
    FAR("gate-call-stack-noncanonical", USER, "call fword ptr [rsp]", SCRATCH | 3);
}

/* What a call gate pushes, seen from inside. */
static void gate_frame(void)
{
    const volatile u64 *frame;
    struct regs out;

    set_call_gate(SCRATCH, far_target(0), KCS, 0xec);
    __builtin_memcpy(tss + 4, &(u64){ STACK_TOP }, 8);
    out = OPEN("gate-call-frame", USER, FAR_OPERAND "call fword ptr [rsp]", .rdi = 0, .rsi = SCRATCH | 3);
    frame = (const volatile u64 *)out.rsp;
    say(" ip+%x cs=%x sp=%x ss=%x at=%x", (word)frame[0] - UCODE_PAGE, (word)frame[1], (word)frame[2], (word)frame[3],
        STACK_TOP - out.rsp);
    done();
    set_call_gate(SCRATCH, far_target(0), KCS, 0xec);
    __builtin_memcpy(tss + 4, &(u64){ STACK_TOP }, 8);
    *FRAME8(CODE_FRAME + 0x100) = 0x48; /* retfq */
    *FRAME8(CODE_FRAME + 0x101) = 0xcb;
    TRY("gate-call-and-return", USER, FAR_OPERAND "call fword ptr [rsp]; mov eax, 0x99", .rdi = 0, .rsi = SCRATCH | 3);
}

/* Pushes CS and RIP from rdx, rsi; SS and RSP from rax, rbx. */
#define RETF     "push rdx; push rsi; rex.w retf; nop"
#define RETF_OUT "push rax; push rbx; push rdx; push rsi; rex.w retf; nop"

static void far_returns(void)
{
    TRY("retf-same-level", KERNEL, RETF, .rdx = KCS, .rsi = CODE_PAGE + 4);
    TRY("retf-to-user", KERNEL, RETF_OUT, .rax = UDS | 3, .rbx = USTACK_TOP, .rdx = UCS | 3, .rsi = ON_USER_PAGE(6));
    TRY("retf-to-user-compat", KERNEL, RETF_OUT, .rax = UDS | 3, .rbx = USTACK_TOP, .rdx = UCS32 | 3,
        .rsi = ON_USER_PAGE(6));
    TRY("retf-to-user-null-ss", KERNEL, RETF_OUT, .rax = 3, .rbx = USTACK_TOP, .rdx = UCS | 3, .rsi = ON_USER_PAGE(6));
    TRY("retf-to-user-null-ss-compat", KERNEL, RETF_OUT, .rax = 3, .rbx = USTACK_TOP, .rdx = UCS32 | 3,
        .rsi = ON_USER_PAGE(6));
    TRY("retf-noncanonical", KERNEL, RETF, .rdx = KCS, .rsi = NON_CANONICAL);
    TRY("retf-null", KERNEL, RETF, .rdx = 0, .rsi = CODE_PAGE + 4);
    TRY("retf-inward", USER, RETF, .rdx = KCS, .rsi = CODE_PAGE);
    TRY("retf-cs-dpl-not-rpl", KERNEL, RETF_OUT, .rax = UDS | 3, .rbx = USTACK_TOP, .rdx = KCS | 3,
        .rsi = ON_USER_PAGE(6));
    TRY("retf-ss-dpl", KERNEL, RETF_OUT, .rax = KDS | 3, .rbx = USTACK_TOP, .rdx = UCS | 3, .rsi = ON_USER_PAGE(6));
    TRY("retf-imm-releases-both-stacks", KERNEL,
        "push rax; push rbx; push rcx; push rcx; push rdx; push rsi; rex.w retf 16", .rax = UDS | 3,
        .rbx = USTACK_TOP - 64, .rdx = UCS | 3, .rsi = ON_USER_PAGE(10));
}

/* ---- Fast system calls ---- */

static void fast_calls(void)
{
    wrmsr(MSR_STAR, (u64)(UCS32 | 3) << 48 | (u64)KCS << 32);
    wrmsr(MSR_LSTAR, CODE_PAGE + 0x200);
    wrmsr(MSR_CSTAR, CODE_PAGE + 0x200);
    wrmsr(MSR_FMASK, IF | TF | DF | AC | NT | CF);
    *FRAME8(CODE_FRAME + 0x200) = 0xcd;
    *FRAME8(CODE_FRAME + 0x201) = 0x40;
    TRY("syscall-state", USER, "syscall", .rflags = 2 | CF | PF | ZF | IF | DF | AC | ID, .show = STATUS);
    TRY("syscall-from-kernel", KERNEL, "syscall");
    TRY("syscall-rf-and-tf", USER, "syscall", .rflags = 2 | RF, .show = RF);
    wrmsr(MSR_EFER, rdmsr(MSR_EFER) & ~1ull);
    TRY("syscall-without-sce", USER, "syscall");
    if (!is_amd())
        TRY32("syscall-from-compat-intel", USER32, "syscall");
    wrmsr(MSR_STAR, (u64)(UCS32 | 3) << 48 | (u64)(KCS | 3) << 32);
    TRY("syscall-star-rpl-is-dropped", USER, "syscall");
    wrmsr(MSR_STAR, (u64)(UCS32 | 3) << 48 | (u64)KCS << 32);
    gdt[KCS / 8] = descriptor(0, 0xfffff, TYPE_CODE, FLAG_G | FLAG_L); /* (the descriptors are not looked at) */
    TRY("sysret-to-64", KERNEL, "sysretq", .rcx = ON_USER_PAGE(3),
        .r11 = 2 | CF | IF | RF | VM | NT | IOPL3 | ID | 0x8008, .show = CF);
    TRY("sysret-to-compat", KERNEL, ".byte 0x0f, 0x07", .rcx = ON_USER_PAGE(2), .r11 = 2);
    TRY("sysret-to-compat-upper-half", KERNEL, ".byte 0x0f, 0x07", .rcx = BIT(40) | ON_USER_PAGE(2), .r11 = 2);
    if (!is_amd())
        TRY("sysret-noncanonical-intel", KERNEL, "sysretq", .rcx = NON_CANONICAL, .r11 = 2);
    else
        TRY("sysret-noncanonical-amd", KERNEL, "sysretq", .rcx = NON_CANONICAL, .r11 = 2);
    TRY("sysret-keeps-rsp", KERNEL, "sysretq", .rcx = ON_USER_PAGE(3), .r11 = 2, .rsp = STACK_TOP - 8);
    TRY("sysret-from-user", USER, "sysretq", .rcx = ON_USER_PAGE(3), .r11 = 2);
    wrmsr(MSR_EFER, rdmsr(MSR_EFER) & ~1ull);
    TRY("sysret-without-sce", KERNEL, "sysretq", .rcx = ON_USER_PAGE(3), .r11 = 2);
    if (!is_amd())
        TRY32("sysret-from-compat-intel", KERNEL32, ".byte 0x0f, 0x07");

    wrmsr(MSR_SYSENTER_CS, KCS);
    wrmsr(MSR_SYSENTER_ESP, STACK_TOP - 0x40);
    wrmsr(MSR_SYSENTER_EIP, CODE_PAGE + 0x200);
    if (!is_amd()) {
        TRY("sysenter-intel", USER, "sysenter", .rflags = 2 | IF | DF | CF, .show = CF);
        TRY32("sysenter-from-compat-intel", USER32, "sysenter");
        TRY("sysenter-cs-rpl-is-dropped-intel", USER, "sysenter");
        wrmsr(MSR_SYSENTER_CS, 3);
        TRY("sysenter-null-cs-intel", USER, "sysenter");
        wrmsr(MSR_SYSENTER_CS, KCS);
        TRY("sysexit-to-64-intel", KERNEL, ".byte 0x48, 0x0f, 0x35", .rdx = ON_USER_PAGE(3), .rcx = USTACK_TOP);
        TRY("sysexit-to-compat-intel", KERNEL, ".byte 0x0f, 0x35", .rdx = ON_USER_PAGE(2), .rcx = USTACK_TOP);
        TRY("sysexit-to-compat-upper-halves-intel", KERNEL, ".byte 0x0f, 0x35", .rdx = BIT(40) | ON_USER_PAGE(2),
            .rcx = BIT(40) | USTACK_TOP);
        TRY("sysexit-noncanonical-rip-intel", KERNEL, ".byte 0x48, 0x0f, 0x35", .rdx = NON_CANONICAL,
            .rcx = USTACK_TOP);
        TRY("sysexit-noncanonical-rsp-intel", KERNEL, ".byte 0x48, 0x0f, 0x35", .rdx = ON_USER_PAGE(3),
            .rcx = NON_CANONICAL);
        TRY("sysexit-from-user-intel", USER, ".byte 0x48, 0x0f, 0x35", .rdx = ON_USER_PAGE(3), .rcx = USTACK_TOP);
        wrmsr(MSR_SYSENTER_CS, 0);
        TRY("sysexit-null-cs-intel", KERNEL, ".byte 0x48, 0x0f, 0x35", .rdx = ON_USER_PAGE(3), .rcx = USTACK_TOP);
    } else {
        TRY(of_vendor("sysenter"), USER, "sysenter");
        TRY(of_vendor("sysexit"), KERNEL, ".byte 0x48, 0x0f, 0x35", .rdx = ON_USER_PAGE(3), .rcx = USTACK_TOP);
    }
}

/* ---- Segment registers ---- */

static void segment_loads(void)
{
    TRY("seg-load-ds-null", USER, "mov ds, ecx; mov eax, ds", .rcx = 0);
    TRY("seg-load-ds-null-rpl-3", USER, "mov ds, ecx; mov eax, ds", .rcx = 3);
    TRY("seg-load-ds-kernel-from-user", USER, "mov ds, ecx", .rcx = KDS);
    TRY("seg-load-ds-rpl-above-dpl", KERNEL, "mov ds, ecx", .rcx = KDS | 3);
    TRY("seg-load-ds-beyond-gdt", USER, "mov ds, ecx", .rcx = 0x1003);
    TRY("seg-load-ds-ldt-absent", USER, "mov ds, ecx", .rcx = 0x7);
    TRY("seg-load-ds-system-descriptor", KERNEL, "mov ds, ecx", .rcx = TSS_SELECTOR);
    TRY("seg-load-es-readable-code", USER, "mov es, ecx; mov eax, es", .rcx = UCS | 3);
    gdt[SCRATCH / 8] = descriptor(0, 0xfffff, 0xf9, FLAG_G | FLAG_L);
    TRY("seg-load-es-unreadable-code", USER, "mov es, ecx", .rcx = SCRATCH | 3);
    gdt[SCRATCH / 8] = descriptor(0, 0xfffff, 0x73, FLAG_G | FLAG_D);
    TRY("seg-load-fs-not-present", USER, "mov fs, ecx", .rcx = SCRATCH | 3);
    gdt[SCRATCH / 8] = descriptor(0, 0xfffff, 0x9f, FLAG_G | FLAG_L);
    TRY("seg-load-ds-conforming-code-inner", USER, "mov ds, ecx; mov eax, ds", .rcx = SCRATCH | 3);
    gdt[SCRATCH / 8] = descriptor(UDATA, 0xf, 0xf2, 0);
    OPEN("seg-load-fs-base-limit-ignored", USER, "mov fs, ecx; mov eax, fs:[0x20]", .rcx = SCRATCH | 3);
    say(" type=%x", (word)(gdt[SCRATCH / 8] >> 40 & 0xff));
    done();
    TRY("seg-load-ss-null-user", USER, "mov ss, ecx", .rcx = 0);
    TRY("seg-load-ss-null-kernel", KERNEL, "mov ss, ecx; mov eax, ss", .rcx = 0);
    TRY("seg-load-ss-null-kernel-rpl", KERNEL, "mov ss, ecx", .rcx = 1);
    TRY32("seg-load-ss-null-compat-32", KERNEL32, "mov ss, ecx", .rcx = 0);
    TRY("seg-load-ss-wrong-rpl", USER, "mov ss, ecx", .rcx = UDS);
    TRY("seg-load-ss-wrong-dpl", KERNEL, "mov ss, ecx", .rcx = UDS);
    TRY("seg-load-ss-code", USER, "mov ss, ecx", .rcx = UCS | 3);
    gdt[SCRATCH / 8] = descriptor(0, 0xfffff, 0xf1, FLAG_G | FLAG_D);
    TRY("seg-load-ss-read-only", USER, "mov ss, ecx", .rcx = SCRATCH | 3);
    gdt[SCRATCH / 8] = descriptor(0, 0xfffff, 0x73, FLAG_G | FLAG_D);
    TRY("seg-load-ss-not-present", USER, "mov ss, ecx", .rcx = SCRATCH | 3);
    TRY("seg-pop-fs-bad-keeps-rsp", USER, "push rcx; pop fs", .rcx = 0x1003);
    TRY("seg-pop-gs-upper-bits-ignored", USER, "push rcx; pop gs; mov eax, gs", .rcx = 0x7fff0000 | UDS | 3);
    TRY("seg-push-fs-writes", USER, "mov fs, ecx; push rdx; pop rdx; push fs; pop rax", .rcx = UDS | 3, .rdx = ~0ul);
    TRY("seg-lss", USER, "mov [rsp-16], edx; mov [rsp-12], ecx; lss eax, [rsp-16]", .rcx = UDS | 3, .rdx = 0x1234);
    TRY("seg-mov-from-seg-64", USER, "mov rax, ss", .rax = ~0ul);
    TRY("seg-mov-from-seg-16", USER, "mov ax, ss", .rax = ~0ul);
    gdt[SCRATCH / 8] = descriptor(0, 0xfffff, 0xf2, FLAG_G | FLAG_D);
    map(DATA, 0, 0);
    OPEN("seg-accessed-bit-set-once", USER, "mov ds, ecx", .rcx = SCRATCH | 3);
    say(" type=%x", (word)(gdt[SCRATCH / 8] >> 40 & 0xff));
    done();
}

static void segment_queries(void)
{
    static const struct {
        const char *name;
        word selector;
        u64 descriptor;
    } rows[] = {
        { "null", 0, 0 },           { "kernel-code", KCS, 0 }, { "user-data", UDS | 3, 0 },
        { "tss", TSS_SELECTOR, 0 }, { "beyond", 0x1000, 0 },
    };

    for (unsigned i = 0; i < ARRAY_SIZE(rows); i++) {
        TRY(name_of("lar-user-%s", rows[i].name), USER, "lar eax, ecx", .rcx = rows[i].selector, .show = ZF);
        TRY(name_of("lar-kernel-%s", rows[i].name), KERNEL, "lar eax, ecx; and eax, 0xfffffdff",
            .rcx = rows[i].selector, .show = 0);
        TRY(name_of("lsl-kernel-%s", rows[i].name), KERNEL, "lsl eax, ecx", .rcx = rows[i].selector, .show = ZF);
        TRY(name_of("verr-user-%s", rows[i].name), USER, "verr cx", .rcx = rows[i].selector, .show = ZF);
        TRY(name_of("verw-kernel-%s", rows[i].name), KERNEL, "verw cx", .rcx = rows[i].selector, .show = ZF);
    }
    static const struct {
        const char *name;
        u8 type;
    } types[] = {
        { "16-bit-tss", 0x81 },      { "ldt", 0x82 },        { "16-bit-call-gate", 0x84 }, { "task-gate", 0x85 },
        { "16-bit-int-gate", 0x86 }, { "reserved-8", 0x88 }, { "call-gate", 0x8c },        { "int-gate", 0x8e },
    };

    for (unsigned i = 0; i < ARRAY_SIZE(types); i++) {
        gdt[SCRATCH / 8] = descriptor(0, 0x1234, types[i].type, 0);
        gdt[SCRATCH / 8 + 1] = 0;
        TRY(name_of("lar-%s", types[i].name), KERNEL, "lar eax, ecx", .rcx = SCRATCH, .show = ZF);
        gdt[SCRATCH / 8] = descriptor(0, 0x1234, types[i].type, 0);
        gdt[SCRATCH / 8 + 1] = 0;
        TRY(name_of("lsl-%s", types[i].name), KERNEL, "lsl eax, ecx", .rcx = SCRATCH, .show = ZF);
    }
    gdt[SCRATCH / 8] = descriptor(0, 0x12345, 0x12, FLAG_G);
    TRY("lsl-not-present-granular", KERNEL, "lsl rax, rcx", .rcx = SCRATCH, .rax = ~0ul, .show = ZF);
    gdt[SCRATCH / 8] = descriptor(0, 0x12345, 0x9e, FLAG_G);
    TRY("verr-conforming-from-user", USER, "verr cx", .rcx = SCRATCH | 3, .show = ZF);
    gdt[SCRATCH / 8] = descriptor(0, 0x12345, 0xf8, FLAG_G);
    TRY("verr-execute-only", USER, "verr cx", .rcx = SCRATCH | 3, .show = ZF);
}

/* ---- Compatibility mode ---- */

static void compatibility(void)
{
    TRY32("compat-inc-is-not-rex", USER32, "inc eax; dec ecx");
    TRY32("compat-push-pop", USER32, "push eax; pop ecx; pusha; popa");
    TRY32("compat-aam-zero", USER32, "aam 0");
    TRY32("compat-into", USER32, "into; mov al, 0x7f; add al, 1; into");
    TRY32("compat-bound", USER32, "push 5; push 2; bound ecx, [esp]", .rcx = 9);
    TRY32("compat-bound-inside", USER32, "push 5; push 2; bound ecx, [esp]; pop edx; pop edx", .rcx = 5);
    TRY32("compat-bound-register", USER32, ".byte 0x62, 0xc8");
    TRY32("compat-daa", USER32, "mov al, 0x9a; daa", .show = CF);
    TRY32("compat-les", USER32, "push ecx; push edx; les ebx, [esp]; pop edx; pop ecx", .rcx = UDS | 3);
    TRY32("compat-far-jmp-to-64", USER32, ".byte 0xea; .long 0x40010000 + 7; .word 0x2b; inc dword ptr [eax]");
    TRY32("compat-address-wraps", USER32, "mov eax, [ebx+ecx]", .rbx = 0xffffffff, .rcx = UDATA + 1);
    TRY32("compat-moffs-is-32-bit", USER32, "mov eax, ds:[0x40050000]; nop");
    TRY32("compat-upper-half-of-address-ignored", USER32, "mov eax, [ebx]", .rbx = BIT(32) | UDATA);
    TRY32("compat-call-ret", USER32, "call 1f; jmp 2f; 1: ret; 2:");
    TRY32("compat-swapgs", KERNEL32, ".byte 0x0f, 0x01, 0xf8");
    TRY32("compat-cmpxchg16b-is-8b", USER32, ".byte 0x0f, 0xc7, 0x0c, 0x24", .rax = 0, .rdx = 0, .rsp = USTACK + 64,
          .show = ZF);
    TRY32("compat-sysexit-null", USER32, ".byte 0x0f, 0x35");
    TRY32("compat-iret-same", USER32, "pushfd; push cs; call 1f; 1: add dword ptr [esp], 5; iretd; nop; mov eax, 7");
    gdt[SCRATCH / 8] = descriptor(UDATA, 0xf, 0xf3, FLAG_D);
    TRY32("compat-data-limit", USER32, "mov ds, ecx; mov al, [0xf]; mov al, [0x10]", .rcx = SCRATCH | 3, .rax = 0);
    gdt[SCRATCH / 8] = descriptor(UDATA, 0xf, 0xf3, FLAG_D);
    TRY32("compat-data-limit-crossing", USER32, "mov ds, ecx; mov eax, [0xd]", .rcx = SCRATCH | 3, .rax = 0);
    gdt[SCRATCH / 8] = descriptor(UDATA, 0xf, 0xf3, FLAG_D);
    TRY32("compat-ss-limit-is-ss-fault", USER32, "mov ss, ecx; mov eax, [esp]", .rcx = SCRATCH | 3, .rsp = 0x10);
    gdt[SCRATCH / 8] = descriptor(UDATA, 0xfffff, 0xf1, FLAG_D);
    TRY32("compat-read-only-data", USER32, "mov ds, ecx; mov eax, [0]; mov [0], eax", .rcx = SCRATCH | 3);
    gdt[SCRATCH / 8] = descriptor(UDATA, 0xff, 0xf7, FLAG_D);
    TRY32("compat-expand-down", USER32, "mov ds, ecx; mov eax, [0x100]; mov eax, [0xff]", .rcx = SCRATCH | 3, .rax = 0);
    TRY32("compat-null-ds", USER32, "mov ds, ecx; mov eax, [0]", .rcx = 0);
    TRY32("compat-write-code-segment", USER32, "mov cs:[0x40010000], eax");
    gdt[SCRATCH / 8] = descriptor(0, 0xfffff, 0xf9, FLAG_G | FLAG_D);
    TRY32("compat-execute-only-code", USER32, ".byte 0xea; .long 0x40010007; .word 0x4b; mov eax, cs:[0x40010000]");
    gdt[SCRATCH / 8] = descriptor(UCODE_PAGE, 8, 0xfb, FLAG_D);
    TRY32("compat-code-limit", USER32, ".byte 0xea; .long 7; .word 0x4b; nop; nop; nop; nop");
    gdt[SCRATCH / 8] = descriptor(UCODE_PAGE, 8, 0xfb, FLAG_D);
    TRY32("compat-code-limit-inside-instruction", USER32, ".byte 0xea; .long 7; .word 0x4b; mov eax, 1");
    gdt[SCRATCH / 8] = descriptor(UCODE_PAGE, 0xfff, 0xfb, 0);
    OPEN_CODE("compat-16-bit-code", USER32,
              CODE32(".byte 0xea; .long 7; .word 0x4b; .code16; mov ax, 0x1234; push ax; pop cx; .code32"),
              .rax = 0xffffffff);
    done();
}

void cases(void)
{
    near_branches();
    far_branches();
    gate_frame();
    far_returns();
    fast_calls();
    segment_loads();
    segment_queries();
    compatibility();
}
