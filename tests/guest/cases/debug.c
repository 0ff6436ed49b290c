/* Single-stepping, breakpoints, the flags that steer them, and what PUSHF, POPF and the shadows do. SDM Vol. 3B 18.2,
 * 18.3; Vol. 3A 6.8. */
#include "guest.h"

/* DR6 and DR7 without their fixed bits. */
static void say_dr6(void)
{
    say(" dr6=%x", read_dr6() & 0xe00f);
}

#define STEP(name, how, text, ...)                                                                                     \
    do {                                                                                                               \
        OPEN(name, how, text, ##__VA_ARGS__);                                                                          \
        say_dr6();                                                                                                     \
        done();                                                                                                        \
    } while (0)

/* ---- TF ---- */

static void single_step(void)
{
    STEP("step-nop", USER, "nop; nop", .rflags = 2 | TF);
    STEP("step-kernel", KERNEL, "nop; nop", .rflags = 2 | TF);
    STEP("step-jump", USER, "jmp 1f; nop; 1: nop", .rflags = 2 | TF);
    STEP("step-call", USER, "call 1f; nop; 1: nop", .rflags = 2 | TF);
    STEP("step-conditional-not-taken", USER, "jz 1f; nop; 1: nop", .rflags = 2 | TF);
    STEP("step-rep-movsb", USER, "rep movsb; nop", .rsi = UDATA, .rdi = UDATA + 64, .rcx = 3, .rflags = 2 | TF);
    STEP("step-rep-movsb-last", USER, "rep movsb; nop", .rsi = UDATA, .rdi = UDATA + 64, .rcx = 1, .rflags = 2 | TF);
    STEP("step-rep-count-0", USER, "rep movsb; nop", .rsi = UDATA, .rdi = UDATA + 64, .rcx = 0, .rflags = 2 | TF);
    STEP("step-repne-scasb", USER, "repne scasb; nop", .rdi = UDATA, .rax = 0, .rcx = 5, .rflags = 2 | TF);
    STEP("step-rep-stosq", USER, "rep stosq; nop", .rdi = UDATA, .rax = 0, .rcx = 0x100, .rflags = 2 | TF);
    STEP("step-rep-insb", KERNEL, "rep insb; nop", .rdi = DATA, .rdx = 0x2f0, .rcx = 4, .rflags = 2 | TF);
    STEP("step-popf-sets-tf", USER, "push rax; popfq; nop; nop; nop", .rax = 2 | TF);
    *FRAME64(USTACK_FRAME) = 2 | TF;
    STEP("step-popf-keeps-tf", USER, "popfq; nop; nop", .rsp = USTACK, .rflags = 2 | TF);
    *FRAME64(USTACK_FRAME) = 2;
    STEP("step-popf-clears-tf-traps-once-more", USER, "popfq; nop; nop", .rsp = USTACK, .rflags = 2 | TF);
    OPEN("step-pushf-image", USER, "pushfq; nop", .rflags = 2 | TF);
    say(" image=%x", (word)*FRAME64(USTACK_FRAME + 0x2000 - 8));
    done();
    STEP("step-mov-ss-shadow", KERNEL, "mov ss, ecx; nop; nop", .rcx = KDS, .rflags = 2 | TF);
    STEP("step-mov-ss-then-rep", KERNEL, "mov ss, ecx; rep movsb; nop", .rcx = KDS, .rsi = DATA, .rdi = DATA + 64,
         .rflags = 2 | TF);
    STEP("step-mov-ds-no-shadow", USER, "mov ds, ecx; nop; nop", .rcx = UDS | 3, .rflags = 2 | TF);
    *FRAME64(USTACK_FRAME + 0x100) = (u64)(UDS | 3) << 32;
    STEP("step-lss-no-shadow", USER, "lss eax, [rsp]; nop; nop", .rsp = USTACK + 0x100, .rflags = 2 | TF);
    STEP("step-sti-no-debug-shadow", KERNEL, "sti; cli; nop", .rflags = 2 | TF);
    STEP("step-cpuid", USER, "cpuid; nop", .rflags = 2 | TF, .rax = 0x40001234, .hide = 0xf);
    STEP("step-fault-first", USER, "ud2; nop", .rflags = 2 | TF);
    STEP("step-page-fault-first", USER, "mov al, [rax]; nop", .rax = HOLE, .rflags = 2 | TF);
    STEP("step-int3", USER, "int3; nop", .rflags = 2 | TF);
    STEP("step-int1", USER, ".byte 0xf1; nop", .rflags = 2 | TF);
    STEP("step-mov-cr3", KERNEL, "mov rax, cr3; mov cr3, rax; nop", .rflags = 2 | TF, .hide = 1);
    STEP("step-wrmsr", KERNEL, "wrmsr; nop", .rcx = MSR_KERNEL_GS_BASE, .rax = 0, .rdx = 0, .rflags = 2 | TF);
    STEP("step-enter-leave", USER, "enter 16, 0; leave", .rflags = 2 | TF);
    STEP("step-x87", USER, "fninit; nop", .rflags = 2 | TF);
    STEP("step-sse", USER, "pxor xmm0, xmm0; nop", .rflags = 2 | TF);
    STEP("step-fs-load", USER, "mov fs, ecx; nop", .rcx = UDS | 3, .rflags = 2 | TF);
    STEP("step-self-jump", USER, "1: jmp 1b", .rflags = 2 | TF);
    STEP("step-iret-sets-tf", KERNEL, "push rax; push rbx; push rcx; push rdx; push rsi; iretq; nop; nop; nop",
         .rax = KDS, .rbx = STACK_TOP, .rcx = 2 | TF, .rdx = KCS, .rsi = CODE_PAGE + 8);
    STEP("step-port-out", KERNEL, "out 0x80, al; nop", .rflags = 2 | TF);
    wrmsr(MSR_STAR, (u64)(UCS32 | 3) << 48 | (u64)KCS << 32);
    wrmsr(MSR_LSTAR, CODE_PAGE + 0x200);
    *FRAME8(CODE_FRAME + 0x200) = 0x90;
    *FRAME8(CODE_FRAME + 0x201) = 0x90;
    wrmsr(MSR_FMASK, TF);
    *FRAME8(CODE_FRAME + 0x202) = 0xcd;
    *FRAME8(CODE_FRAME + 0x203) = 0x40;
    STEP("step-syscall-masked", USER, "syscall", .rflags = 2 | TF);
    wrmsr(MSR_FMASK, 0);
    STEP("step-syscall-unmasked", USER, "syscall", .rflags = 2 | TF);
    STEP("step-sysret-loads-tf", KERNEL, "sysretq; nop; nop", .rcx = UCODE_PAGE + 3, .r11 = 2 | TF);
    STEP("step-sticky-dr6", USER, "nop; nop", .rflags = 2 | TF);
    write_dr6(0xffff0ff5);
    STEP("step-keeps-other-dr6-bits", USER, "nop; nop", .rflags = 2 | TF);
}

/* RF in the frame: SDM Vol. 3A 6.8.3, Vol. 3B 18.3.1.1. */
static void resume_flag(void)
{
    TRY("rf-step-trap", USER, "nop; nop", .rflags = 2 | TF, .show = RF);
    TRY("rf-step-mid-rep", USER, "rep movsb; nop", .rsi = UDATA, .rdi = UDATA + 64, .rcx = 3, .rflags = 2 | TF,
        .show = RF);
    TRY("rf-cleared-after-one-instruction", USER, "nop; int3", .rflags = 2 | RF, .show = RF);
    TRY("rf-kept-by-fault", USER, "ud2", .rflags = 2 | RF, .show = RF);
    OPEN("rf-pushf-image", USER, "pushfq; nop", .rflags = 2 | RF);
    say(" image=%x", (word)*FRAME64(USTACK_FRAME + 0x2000 - 8));
    done();
    *FRAME64(USTACK_FRAME + 8) = 2 | RF;
    TRY("rf-popf-cannot-set", USER, "popfq; int3", .rsp = USTACK + 8, .show = RF);
}

/* ---- Instruction breakpoints ---- */

static void set_breakpoint(unsigned n, word address, unsigned type, unsigned length_code)
{
    word dr7 = read_dr7() | 2u << (2 * n) | (word)(type | length_code << 2) << (16 + 4 * n);

    switch (n) {
    case 0:
        write_dr0(address);
        break;
    case 1:
        write_dr1(address);
        break;
    case 2:
        write_dr2(address);
        break;
    default:
        write_dr3(address);
    }
    write_dr7(dr7);
}

enum { EXECUTE = 0, WRITE = 1, IO = 2, ACCESS = 3, LEN1 = 0, LEN2 = 1, LEN8 = 2, LEN4 = 3 };

static void code_breakpoints(void)
{
    set_breakpoint(0, UCODE_PAGE, EXECUTE, LEN1);
    STEP("break-code-first", USER, "nop; nop");
    set_breakpoint(1, UCODE_PAGE + 1, EXECUTE, LEN1);
    STEP("break-code-second", USER, "nop; inc eax");
    set_breakpoint(2, UCODE_PAGE + 1, EXECUTE, LEN1);
    STEP("break-code-not-in-the-middle", USER, "mov eax, 5; nop");
    set_breakpoint(3, UCODE_PAGE + 2, EXECUTE, LEN1);
    STEP("break-code-on-jump-target", USER, "jmp 1f; 1: nop");
    set_breakpoint(0, UCODE_PAGE, EXECUTE, LEN1);
    STEP("break-code-rf-suppresses", USER, "nop; nop", .rflags = 2 | RF);
    set_breakpoint(0, UCODE_PAGE + 1, EXECUTE, LEN1);
    STEP("break-code-rf-only-one-instruction", USER, "nop; nop", .rflags = 2 | RF);
    set_breakpoint(0, UCODE_PAGE, EXECUTE, LEN1);
    TRY("break-code-frame-rf", USER, "nop", .show = RF);
    set_breakpoint(0, UCODE_PAGE, EXECUTE, LEN1);
    STEP("break-code-before-page-fault", USER, "mov al, [rax]", .rax = HOLE);
    set_breakpoint(0, UCODE_PAGE, EXECUTE, LEN1);
    STEP("break-code-before-undefined", USER, "ud2");
    set_breakpoint(0, UCODE_PAGE + 1, EXECUTE, LEN1);
    STEP("break-code-and-step", USER, "nop; nop", .rflags = 2 | TF);
    set_breakpoint(0, UCODE_PAGE, EXECUTE, LEN1);
    set_breakpoint(1, UCODE_PAGE, EXECUTE, LEN1);
    STEP("break-code-two-at-once", USER, "nop");
    set_breakpoint(0, UCODE_PAGE + 2, EXECUTE, LEN1);
    STEP("break-code-rep-only-once", USER, "nop; nop; rep movsb", .rsi = UDATA, .rdi = UDATA + 64, .rcx = 4);
    set_breakpoint(0, CODE_PAGE + 2, EXECUTE, LEN1);
    STEP("break-code-after-mov-ss-is-lost", KERNEL, "mov ss, ecx; nop; nop", .rcx = KDS);
    set_breakpoint(0, HOLE, EXECUTE, LEN1);
    STEP("break-code-on-absent-page", USER, "jmp rax", .rax = HOLE);
    set_breakpoint(0, UCODE_PAGE, EXECUTE, LEN1);
    write_dr7(read_dr7() & ~2ull);
    STEP("break-code-disabled", USER, "nop");
    write_dr0(UCODE_PAGE);
    write_dr7(0x401);
    STEP("break-code-local-enable", USER, "nop");
    set_breakpoint(0, UCODE_PAGE + 5, EXECUTE, LEN1);
    STEP("break-code-in-loop", USER, "mov ecx, 3; 1: dec ecx; jnz 1b");
}

/* ---- Data breakpoints: traps after the access ---- */

#define DATA_STEP(name, text, address, type, length, ...)                                                              \
    do {                                                                                                               \
        set_breakpoint(0, address, type, length);                                                                      \
        STEP(name, USER, text "; nop; nop", ##__VA_ARGS__);                                                            \
    } while (0)

static void data_breakpoints(void)
{
    DATA_STEP("break-write", "mov [rbx], al", UDATA, WRITE, LEN1, .rbx = UDATA);
    DATA_STEP("break-write-not-on-read", "mov al, [rbx]", UDATA, WRITE, LEN1, .rbx = UDATA);
    DATA_STEP("break-access-on-read", "mov cl, [rbx]", UDATA, ACCESS, LEN1, .rbx = UDATA, .rcx = 0);
    DATA_STEP("break-access-on-write", "mov [rbx], al", UDATA, ACCESS, LEN1, .rbx = UDATA);
    DATA_STEP("break-access-not-on-fetch", "nop", UCODE_PAGE, ACCESS, LEN1);
    DATA_STEP("break-write-1-inside-dword", "mov [rbx], eax", UDATA + 3, WRITE, LEN1, .rbx = UDATA);
    DATA_STEP("break-write-1-behind-dword", "mov [rbx], eax", UDATA + 4, WRITE, LEN1, .rbx = UDATA);
    DATA_STEP("break-write-1-before-dword", "mov [rbx], eax", UDATA, WRITE, LEN1, .rbx = UDATA + 1);
    DATA_STEP("break-write-4-by-last-byte", "mov [rbx], al", UDATA, WRITE, LEN4, .rbx = UDATA + 3);
    DATA_STEP("break-write-4-next-byte", "mov [rbx], al", UDATA, WRITE, LEN4, .rbx = UDATA + 4);
    DATA_STEP("break-write-4-unaligned-address", "mov [rbx], al", UDATA + 2, WRITE, LEN4, .rbx = UDATA);
    DATA_STEP("break-write-2-unaligned-address", "mov [rbx], al", UDATA + 1, WRITE, LEN2, .rbx = UDATA + 2);
    DATA_STEP("break-write-8", "mov [rbx], al", UDATA, WRITE, LEN8, .rbx = UDATA + 7);
    DATA_STEP("break-write-8-next-byte", "mov [rbx], al", UDATA, WRITE, LEN8, .rbx = UDATA + 8);
    DATA_STEP("break-rmw", "inc dword ptr [rbx]", UDATA, WRITE, LEN4, .rbx = UDATA);
    DATA_STEP("break-locked-rmw", "lock inc dword ptr [rbx]", UDATA, WRITE, LEN4, .rbx = UDATA);
    DATA_STEP("break-xchg", "xchg [rbx], eax", UDATA, ACCESS, LEN4, .rbx = UDATA, .hide = 1);
    DATA_STEP("break-push", "push rax", USTACK_TOP - 8, WRITE, LEN8);
    DATA_STEP("break-pop-reads", "pop rax", USTACK_TOP, ACCESS, LEN8, .hide = 1);
    DATA_STEP("break-call", "call 1f; 1: nop", USTACK_TOP - 8, WRITE, LEN8);
    DATA_STEP("break-ret", "push rax; lea rax, [rip+1f]; mov [rsp], rax; ret; 1: nop", USTACK_TOP - 8, ACCESS, LEN8);
    DATA_STEP("break-stos-rep", "rep stosb", UDATA + 2, WRITE, LEN1, .rdi = UDATA, .rcx = 5);
    DATA_STEP("break-movs-source", "rep movsb", UDATA + 2, ACCESS, LEN1, .rsi = UDATA, .rdi = UDATA + 64, .rcx = 5);
    DATA_STEP("break-vector-store", "movups [rbx], xmm0", UDATA + 15, WRITE, LEN1, .rbx = UDATA);
    DATA_STEP("break-vector-load", "movups xmm0, [rbx]", UDATA + 15, ACCESS, LEN1, .rbx = UDATA);
    DATA_STEP("break-x87-store", "fninit; fldz; fstp tbyte ptr [rbx]", UDATA + 9, WRITE, LEN1, .rbx = UDATA);
    DATA_STEP("break-fxsave", "fxsave [rbx]", UDATA + 0x1ff - 0x60, WRITE, LEN1, .rbx = UDATA);
    DATA_STEP("break-not-on-faulting-write", "mov [rbx], al", HOLE, WRITE, LEN1, .rbx = HOLE);
    DATA_STEP("break-cmpxchg-failing", "cmpxchg [rbx], cl", UDATA, WRITE, LEN1, .rbx = UDATA, .rax = 0x77, .hide = 1);
    DATA_STEP("break-lea-is-no-access", "lea rax, [rbx]", UDATA, ACCESS, LEN1, .rbx = UDATA);
    DATA_STEP("break-prefetch-is-no-access", "prefetcht0 [rbx]", UDATA, ACCESS, LEN1, .rbx = UDATA);
    DATA_STEP("break-cross-page", "mov [rbx], rax", UDATA + PAGE, WRITE, LEN1, .rbx = UDATA + PAGE - 4);
    DATA_STEP("break-and-step", "mov [rbx], al", UDATA, WRITE, LEN1, .rbx = UDATA, .rflags = 2 | TF);
    DATA_STEP("break-linear-not-physical", "mov [rbx], al", UDATA, WRITE, LEN1, .rbx = UDATA + PAGE);
    set_breakpoint(1, UDATA, WRITE, LEN1);
    set_breakpoint(3, UDATA + 4, WRITE, LEN1);
    STEP("break-two-by-one-write", USER, "mov [rbx], rax; nop; nop", .rbx = UDATA);
    *FRAME32(DATA_FRAME + 0x10) = KDS;
    set_breakpoint(0, DATA + 0x10, ACCESS, LEN2);
    STEP("break-on-mov-ss-memory", KERNEL, "mov ss, [rbx]; nop; nop", .rbx = DATA + 0x10);
    *FRAME32(DATA_FRAME + 0x10) = KDS;
    set_breakpoint(0, DATA + 0x10, ACCESS, LEN2);
    begin("break-on-mov-ss-then-int3"); /* held over the INT3: reported at the first instruction of its handler */
    {
        struct regs out = RUN(KERNEL, "mov ss, [rbx]; int3; nop", .rbx = DATA + 0x10);

        say(" %s in-handler=%d", event_name(out.vector), (word)(out.rip < WINDOW));
        say_dr6();
    }
    done();
}

static void io_breakpoints(void)
{
    write_cr4(read_cr4() | CR4_DE);
    set_breakpoint(0, 0x80, IO, LEN1);
    STEP("break-io-out", KERNEL, "out 0x80, al; nop; nop");
    write_cr4(read_cr4() | CR4_DE);
    set_breakpoint(0, 0x80, IO, LEN1);
    STEP("break-io-in", KERNEL, "in al, 0x80; nop", .hide = 1);
    write_cr4(read_cr4() | CR4_DE);
    set_breakpoint(0, 0x80, IO, LEN4);
    STEP("break-io-length-4", KERNEL, "out 0x83, al; nop; nop");
    write_cr4(read_cr4() | CR4_DE);
    set_breakpoint(0, 0x80, IO, LEN4);
    STEP("break-io-length-4-beyond", KERNEL, "out 0x84, al; nop; nop");
    write_cr4(read_cr4() | CR4_DE);
    set_breakpoint(0, 0x2f0, IO, LEN1);
    STEP("break-io-rep-outsb", KERNEL, "rep outsb; nop", .rdx = 0x2f0, .rsi = DATA, .rcx = 3);
    write_cr4(read_cr4() | CR4_DE);
    set_breakpoint(0, 0x80, IO, LEN1);
    STEP("break-io-not-memory", KERNEL, "mov al, [rbx]; nop", .rbx = DATA + 0x80, .rax = 0);
}

/* ---- POPF and PUSHF by privilege: SDM Vol. 2B table 4-16 ---- */

static void popf(void)
{
    const word all = 0x3f7fd7 & ~(word)(TF | VM);

    TRY("popf-user", USER, "push rax; popfq", .rax = all, .show = STATUS);
    TRY("popf-user-iopl-3", USER, "push rax; popfq", .rax = all & ~(word)IOPL3, .rflags = 2 | IOPL3, .show = STATUS);
    TRY("popf-kernel", KERNEL, "push rax; popfq", .rax = all, .show = STATUS);
    TRY("popf-kernel-vm-rf", KERNEL, "push rax; popfq; pushfq; pop rax", .rax = VM | RF | 2);
    TRY("popfw-leaves-upper", USER, "push rax; popfw; pop cx; pop cx; pop cx", .rax = 2 | CF, .rflags = 2 | ID,
        .show = CF);
    TRY("popf-reserved-bits", USER, "push rax; popfq; pushfq; pop rax", .rax = ~(word)(TF | 0xff0000));
    TRY("popf-noncanonical-stack", USER, "popfq", .rsp = NON_CANONICAL);
    TRY("pushf-reserved-bits", USER, "pushfq; pop rax");
    TRY("sti-user-iopl-3", USER, "sti; pushfq; pop rax; cli", .rflags = 2 | IOPL3);
    TRY("cli-user-iopl-0", USER, "cli", .rflags = 2 | IF);
    TRY("sahf", USER, "mov ah, 0xff; sahf; lahf", .show = STATUS);
    TRY("ac-flag-with-popf", USER, "push rax; popfq", .rax = 2 | AC);
}

/* ---- The trap flag inside a handler ---- */

static word steps;

static void count_step(struct regs *regs)
{
    steps++;
    if (steps == 200)
        regs->rflags &= ~(word)TF;
}

static void counted_steps(void)
{
    steps = 0;
    handlers[DB] = count_step;
    OPEN("step-count-straight", USER, "nop; nop; nop; nop; mov eax, 1; add eax, eax; push rax; pop rax",
         .rflags = 2 | TF);
    say(" steps=%d", steps);
    done();
    steps = 0;
    handlers[DB] = count_step;
    OPEN("step-count-loop", USER, "mov ecx, 10; 1: dec ecx; jnz 1b", .rflags = 2 | TF);
    say(" steps=%d", steps);
    done();
    steps = 0;
    handlers[DB] = count_step;
    OPEN("step-count-rep", USER, "mov ecx, 10; rep stosb; nop", .rdi = UDATA, .rflags = 2 | TF);
    say(" steps=%d", steps);
    done();
    steps = 0;
    handlers[DB] = count_step;
    OPEN("step-count-repe-cmps", USER, "mov ecx, 10; repe cmpsb; nop", .rdi = UDATA, .rsi = UDATA, .rflags = 2 | TF,
         .show = ZF);
    say(" steps=%d", steps);
    done();
    steps = 0;
    handlers[DB] = count_step;
    OPEN("step-count-mov-ss", KERNEL, "mov ss, ecx; nop; mov ss, ecx; nop; nop", .rcx = KDS, .rflags = 2 | TF);
    say(" steps=%d", steps);
    done();
    steps = 0;
    handlers[DB] = count_step;
    set_breakpoint(0, UDATA, WRITE, LEN8);
    OPEN("break-count-rep-stos", USER, "mov ecx, 10; rep stosb; nop", .rdi = UDATA);
    say(" steps=%d", steps);
    done();
}

void cases(void)
{
    single_step();
    resume_flag();
    code_breakpoints();
    data_breakpoints();
    io_breakpoints();
    popf();
    counted_steps();
}
