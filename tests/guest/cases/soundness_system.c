/* System instructions that a translator executes without its interpreter (docs/design.md, "Soundness"): STAC and CLAC, which change the
 * privilege of data accesses under calls, returns and interrupts; bases, selectors, control registers, DF; bit strings in memory. Most
 * cases go round a loop, so that what an engine does from the second time on is seen. SDM Vol. 3A 4.6, 5.8.8; Vol. 2. */
#include "soundness.h"

#define LARGE (WINDOW + WINDOW_SIZE) /* a 2 MiB page for deep stacks */

/* ---- Line 4: the two sides of STAC and CLAC ---- */

/* PAGE_A is the user's. */
static void user_page(void)
{
    word smap = has_leaf7_b(20) ? CR4_SMAP : 0;

    map(PAGE_A, FRAME_A, P | W | U);
    map(PAGE_B, 0, 0);
    invalidate(PAGE_A);
    invalidate(PAGE_B);
    for (unsigned i = 0; i < PAGE / 8; i++)
        FRAME64(FRAME_A)[i] = i + 1;
    write_cr4(read_cr4() | smap);
}

#define AC_CASE(name, text, ...)                                                                                       \
    HOT(name, KERNEL, user_page(), text, .rbx = PAGE_A, .rdi = DATA, .r8 = 0, .r9 = 0, .hide = 1 << 7, ##__VA_ARGS__)

static void access_rights(void)
{
    AC_CASE("soundness-04-stac-clac-loop",
            "mov ecx, 200; xor eax, eax; 1: stac; add rax, [rbx]; clac; add [rdi], eax; dec ecx; jnz 1b; stac; "
            "mov rdx, [rbx]; clac");
    AC_CASE("soundness-04-load-after-clac",
            "mov ecx, 50; 1: stac; add rax, [rbx]; clac; dec ecx; jnz 1b; mov rdx, [rbx]");
    AC_CASE("soundness-04-store-after-clac",
            "mov ecx, 50; 1: stac; mov [rbx], rax; clac; dec ecx; jnz 1b; mov [rbx+8], rax");
    AC_CASE("soundness-04-push-after-clac",
            "mov rbp, rsp; mov ecx, 50; 1: stac; lea rsp, [rbx+0x100]; push rax; pop rax; clac; mov rsp, rbp; dec ecx; "
            "jnz 1b; lea rsp, [rbx+0x100]; push rax",
            .hide = 1 << 7 | 1 << 5);
    AC_CASE("soundness-04-bits-after-clac",
            "mov ecx, 50; mov eax, 70; 1: stac; bts [rbx], rax; clac; dec ecx; jnz 1b; btr [rbx], rax");
    AC_CASE("soundness-04-selector-after-clac",
            "mov ecx, 50; 1: stac; mov [rbx], ds; clac; dec ecx; jnz 1b; mov [rbx+8], ds");
    AC_CASE("soundness-04-one-piece-of-code-in-both",
            "mov ecx, 50; 1: stac; call 2f; clac; dec ecx; jnz 1b; call 2f; jmp 3f; 2: add rax, [rbx]; ret; 3:");
    AC_CASE("soundness-04-one-loop-in-both",
            "mov ecx, 100; stac; 1: add rax, [rbx]; dec ecx; jnz 1b; clac; mov ecx, 7; xor edx, edx; jmp 1b");
    AC_CASE("soundness-04-stac-twice",
            "mov ecx, 20; 1: stac; stac; pushfq; pop rax; clac; clac; pushfq; pop rdx; dec ecx; jnz 1b; "
            "and eax, 0x40000; and edx, 0x40000");
    AC_CASE("soundness-04-stac-popf",
            "mov ecx, 40; 1: push 2; popfq; stac; add r8, [rbx]; pushfq; clac; popfq; add r8, [rbx+8]; push 2; popfq; "
            "test cl, 1; jz 2f; stac; 2: clac; dec ecx; jnz 1b; mov rdx, [rbx]");
    AC_CASE(
        "soundness-04-stac-without-smap",
        "mov rax, cr4; btr rax, 21; mov cr4, rax; mov ecx, 20; 1: stac; add r8, [rbx]; clac; add r8, [rbx]; dec ecx; "
        "jnz 1b; bts rax, 21; mov cr4, rax; mov rdx, [rbx]",
        .hide = 1 << 7 | 1);
    HOT("soundness-04-stac-user", USER, , "mov ecx, 3; 1: dec ecx; jnz 1b; stac");
    HOT("soundness-04-clac-user", USER, , "mov ecx, 3; 1: dec ecx; jnz 1b; clac");
}

/* ---- Lines 6 and 7: calls, returns, events ---- */

static void flip_ac(struct regs *regs)
{
    regs->rflags ^= AC;
}

static void switch_inside(struct regs *regs)
{
    __asm__ volatile("clac; stac; clac; stac; clac" : : : "cc", "memory");
    regs->rbp++;
}

static void page_comes(void)
{
    user_page();
    handlers[PG] = map_one;
    for (unsigned i = 1; i < 9; i++) {
        map(PAGE_A + i * PAGE, 0, 0);
        invalidate(PAGE_A + i * PAGE);
        *FRAME64(FRAME_A + i * PAGE) = i * 0x100;
    }
}

static void large_stack(void)
{
    user_page();
    *pde(LARGE) = FREE_FRAME | P | W | PS;
    flush_tlb();
}

static void access_calls(void)
{
    AC_CASE("soundness-07-callee-sets-ac",
            "mov ecx, 50; 1: call 2f; add rax, [rbx]; clac; dec ecx; jnz 1b; jmp 3f; 2: stac; ret; 3: mov rdx, [rbx]");
    AC_CASE("soundness-07-one-callee-by-pointer",
            "lea rsi, [rip+2f]; mov ecx, 50; 1: stac; mov edx, 1; call rsi; clac; xor edx, edx; call rsi; dec ecx; "
            "jnz 1b; mov edx, 1; call rsi; jmp 3f; 2: test edx, edx; jz 4f; add rax, [rbx]; 4: ret; 3:",
            .hide = 1 << 7 | 1 << 6);
    /* what follows the call has been run with AC set, and the page is known there */
    AC_CASE("soundness-07-callee-clears-ac",
            "mov ecx, 50; 1: stac; lea rsi, [rip+3f]; cmp ecx, 1; jne 4f; lea rsi, [rip+2f]; "
            "4: call rsi; add rax, [rbx]; clac; dec ecx; jnz 1b; jmp 5f; 2: clac; 3: ret; 5:",
            .hide = 1 << 7 | 1 << 6);
    AC_CASE("soundness-07-callee-clears-and-sets-ac",
            "mov ecx, 50; 1: stac; call 2f; add rax, [rbx]; clac; dec ecx; jnz 1b; jmp 3f; 2: clac; call 4f; stac; "
            "4: ret; 3: call 2b; add rax, [rbx]; clac; mov rdx, [rbx]");
    AC_CASE("soundness-07-ac-in-recursion",
            "mov ecx, 300; call 1f; jmp 5f; 1: test cl, 1; jz 2f; stac; jmp 3f; 2: clac; 3: dec ecx; jz 4f; call 1b; "
            "inc r8d; pushfq; pop rax; bt eax, 18; adc r9d, 0; test r8b, 4; jz 4f; stac; 4: ret; 5: clac; and eax, "
            "0x40000");
    HOT("soundness-07-ac-in-deep-recursion", KERNEL, large_stack(),
        "mov ecx, 60000; xor eax, eax; xor edx, edx; call 1f; jmp 2f; 1: inc eax; stac; clac; dec ecx; jz 3f; "
        "call 1b; stac; 3: inc edx; clac; ret; 2:",
        .rsp = LARGE + 0x200000);
}

static void access_events(void)
{
    HOT("soundness-07-interrupt-keeps-ac", KERNEL, (user_page(), handlers[BP] = go_on),
        "mov ecx, 50; 1: stac; int3; add r8, [rbx]; call 2f; clac; int3; dec ecx; jnz 1b; pushfq; pop rax; "
        "mov rdx, [rbx]; 2: int3; add r8, [rbx+8]; ret",
        .rbx = PAGE_A, .r8 = 0);
    HOT("soundness-07-interrupt-flips-ac", KERNEL, (user_page(), handlers[BP] = flip_ac),
        "mov ecx, 50; 1: int3; add r8, [rbx]; int3; call 2f; dec ecx; jnz 1b; mov rdx, [rbx]; "
        "2: int3; add r8, [rbx+8]; call 3f; 3: int3; lea rsp, [rsp+8]; ret",
        .rbx = PAGE_A, .r8 = 0);
    HOT("soundness-07-interrupt-switches-ac", KERNEL, (user_page(), handlers[BP] = switch_inside),
        "mov ecx, 50; 1: stac; int3; add r8, [rbx]; call 2f; clac; int3; dec ecx; jnz 1b; mov rdx, [rbx]; "
        "2: int3; add r8, [rbx+8]; ret",
        .rbx = PAGE_A, .r8 = 0, .rbp = 0);
    HOT("soundness-07-fault-with-ac-set", KERNEL, page_comes(),
        "mov ecx, 8; 1: add rbx, 0x1000; stac; add r8, [rbx]; clac; dec ecx; jnz 1b; stac; call 2f; 2: clac; pop rax; "
        "mov rdx, [rdi]",
        .rbx = PAGE_A, .rdi = DATA, .r8 = 0, .hide = 5 | 1 << 7);
}

/* A user that calls and makes system calls; AC and the mask decide what the kernel may read. */
static void system_calls(const char *name, word user_flags, word mask, struct code kernel)
{
    begin(name);
    put_code(CODE_FRAME,
             CODE("mov ebx, 10; xor r8d, r8d; call 1f; jmp 3f; 1: syscall; dec ebx; jz 2f; call 1b; inc r8d; "
                  "2: syscall; inc r8d; ret; 3: pushfq; pop rax"));
    put_code(CODE_FRAME + 0x800, kernel);
    wrmsr(MSR_STAR, (u64)(UCS - 16) << 48 | (u64)KCS << 32);
    wrmsr(MSR_LSTAR, CODE_PAGE + 0x800);
    wrmsr(MSR_FMASK, mask);
    wrmsr(MSR_EFER, rdmsr(MSR_EFER) | 1);
    user_page();
    for (unsigned i = 0; i < 3; i++) {
        struct regs out = AGAIN(USER, .r12 = STACK_TOP, .r15 = PAGE_A, .rdx = 0, .r9 = 0, .rflags = 2 | user_flags);

        say(" %s r8=%d r9=%d", event_name(out.vector), out.r8, out.r9);
        if (out.vector == PG)
            say("(%x) cs=%x", out.error, out.cs);
        else
            say(" ac=%d", (word)(out.rflags >> 18 & 1));
    }
    done();
}

static void access_system_calls(void)
{
    const word usual = STATUS | IF | DF | TF | AC;
    struct code reads = CODE("mov r13, rsp; mov rsp, r12; stac; add r9, [r15]; clac; mov rsp, r13; sysretq");
    struct code calls = CODE("mov r13, rsp; mov rsp, r12; call 1f; jmp 3f; 1: stac; call 2f; clac; ret; "
                             "2: add r9, [r15]; ret; 3: mov rsp, r13; sysretq");
    struct code late = CODE("mov r13, rsp; mov rsp, r12; stac; add r9, [r15]; clac; cmp r9d, 7; jb 1f; add r9, [r15]; "
                            "1: mov rsp, r13; sysretq");
    struct code plain = CODE("add r9, [r15]; sysretq");
    struct code leaves =
        CODE("mov r13, rsp; mov rsp, r12; stac; call 1f; mov rsp, r13; sysretq; 1: add r9, [r15]; ret");

    system_calls("soundness-07-system-call-reads", 0, usual, reads);
    system_calls("soundness-07-system-call-calls", 0, usual, calls);
    system_calls("soundness-07-system-call-reads-after-clac", 0, usual, late);
    system_calls("soundness-07-system-call-leaves-with-ac", 0, usual, leaves);
    system_calls("soundness-07-system-call-ac-masked", AC, usual, plain);
    system_calls("soundness-07-system-call-ac-not-masked", AC, usual & ~(word)AC, plain);
    system_calls("soundness-07-system-call-ac-masked-reads", AC, usual, reads);
    system_calls("soundness-07-system-call-ac-not-masked-reads", AC, usual & ~(word)AC, reads);
}

/* The caller in a page of its own, which is another one when the callee returns. */
static void put_callers(void)
{
    user_page();
    put_code(FRAME_A, CODE("call rsi; mov ebx, 5"));
    put_code(FRAME_B, CODE("call rsi; mov ebx, 9"));
    map(PAGE_B, FRAME_A, P | W);
    flush_tlb();
}

#define CALLER(name, text, entry)                                                                                      \
    HOT(name, KERNEL, put_callers(), text, .rip = PAGE_B, .rsi = CODE_PAGE, .rdi = (word)pte(PAGE_B), .rbp = PAGE_B,   \
        .rdx = (entry), .hide = 1 << 7)

static void access_code(void)
{
    CALLER("soundness-06-caller-page-remapped-with-ac", "stac; mov [rdi], rdx; invlpg [rbp]; clac; ret",
           FRAME_B | P | W);
    CALLER("soundness-06-caller-page-remapped-before-ac", "mov [rdi], rdx; invlpg [rbp]; stac; clac; ret",
           FRAME_B | P | W);
    CALLER("soundness-06-caller-page-remapped-ret-with-ac", "mov [rdi], rdx; stac; invlpg [rbp]; ret", FRAME_B | P | W);
    CALLER("soundness-06-caller-page-absent-with-ac", "stac; mov [rdi], rdx; invlpg [rbp]; clac; ret", 0);
    HOT("soundness-06-patch-across-stac", KERNEL, user_page(),
        "mov ecx, 9; xor eax, eax; 1: mov byte ptr [rip+2f+2], cl; stac; 2: add eax, 5; clac; dec ecx; jnz 1b");
    HOT("soundness-08-stac-at-page-end", KERNEL, user_page(), "stac; mov rax, [rbx]; clac", .rbx = PAGE_A,
        .code_at = 0xffd);
    HOT("soundness-08-stac-across-page-end", KERNEL, user_page(), "stac; mov rax, [rbx]; clac", .rbx = PAGE_A,
        .code_at = 0xffe);
}

static void access_flags(void)
{
    HOT("soundness-10-flags-across-stac", KERNEL, user_page(),
        "mov ecx, 100; xor r8d, r8d; xor r9d, r9d; 1: cmp ecx, 50; stac; adc r8d, 0; cmp ecx, 30; clac; adc r9d, 0; "
        "cmp ecx, 20; stac; pushfq; pop rax; jz 2f; clac; jo 2f; dec ecx; jnz 1b; 2: pushfq; pop rdx",
        .show = STATUS);
    HOT("soundness-16-pushf-after-stac", KERNEL, user_page(),
        "mov ecx, 20; 1: push 0x202403; popfq; stac; pushfq; pop rax; clac; pushfq; pop rdx; dec ecx; jnz 1b; cld");
    HOT("soundness-14-loop-of-stac", KERNEL, (user_page(), handlers[BP] = go_on),
        "mov ecx, 20000; 1: stac; clac; dec ecx; jnz 1b; int3");
}

/* ---- FS and GS bases ---- */

static void bases(void)
{
    static const u64 values[] = {
        0,       0x7fffffffffff, 0x800000000000,     0xffff7fffffffffff, 0xffff800000000000, ~0ull,
        0x10000, 0xffffffff,     0x8000000000000000, 0x0001000000000000, 0xfffe800000000000
    };

    write_cr4(read_cr4() | CR4_FSGSBASE);
    for (unsigned i = 0; i < ARRAY_SIZE(values); i++) {
        HOT(name_of("soundness-15-wrfsbase-%X", values[i]), USER, write_cr4(read_cr4() | CR4_FSGSBASE),
            "wrfsbase rbx; rdfsbase rax; wrfsbase edi; rdfsbase rdx; xor edi, edi; wrfsbase rdi",
            .rbx = (word)values[i], .rdi = (word)~values[i], .hide = 1 << 7);
        HOT(name_of("soundness-15-wrgsbase-%X", values[i]), KERNEL, write_cr4(read_cr4() | CR4_FSGSBASE),
            "wrgsbase r9; rdgsbase r10; wrgsbase r11d; rdgsbase rdx; xor edi, edi; wrgsbase rdi", .r9 = (word)values[i],
            .r11 = (word)~values[i], .hide = 1 << 7);
    }
    HOT("soundness-04-wrfsbase-between-loads", USER, (user_page(), write_cr4(read_cr4() | CR4_FSGSBASE)),
        "mov ecx, 5; 1: wrfsbase rbx; mov rax, fs:[8]; wrfsbase rdi; add rdx, fs:[16]; mov r8, fs:[0]; wrfsbase rbx; "
        "mov r9, fs:[0]; dec ecx; jnz 1b; xor edi, edi; wrfsbase rdi; sub rax, [rbx+8]; sub r9, [rbx]; sub r8, "
        "[rbx+64]",
        .rbx = PAGE_A, .rdi = PAGE_A + 64, .rdx = 0);
    HOT("soundness-15-wrfsbase-disabled", USER, write_cr4(read_cr4() & ~(word)CR4_FSGSBASE), "wrfsbase rbx");
}

/* ---- Selectors, control registers, protection keys ---- */

static void two_pages(u64 second)
{
    map(PAGE_A, FRAME_A, P | W | U);
    map(PAGE_B, second ? FRAME_B : 0, second);
    invalidate(PAGE_A);
    invalidate(PAGE_B);
    fill(FRAME_A, 0x5a, 2 * PAGE);
}

#define SELECTOR_CASE(name, second, text, ...)                                                                         \
    (OPEN_HOT(name, USER, two_pages(second), text, .rbx = PAGE_A, ##__VA_ARGS__),                                      \
     say(" memory=%X,%X", FRAME64(FRAME_B)[-1], FRAME64(FRAME_B)[0]), done())

static void selectors(void)
{
    SELECTOR_CASE("soundness-03-selector-at-page-end", 0, "mov [rbx+0xffe], cs");
    SELECTOR_CASE("soundness-03-selector-across-page-end", P | W | U, "mov [rbx+0xfff], ss");
    SELECTOR_CASE("soundness-03-selector-into-absent", 0, "mov [rbx+0xfff], ss");
    SELECTOR_CASE("soundness-03-selector-into-read-only", P | U, "mov [rbx+0xfff], ss");
    SELECTOR_CASE("soundness-03-selector-rex-w", P | W | U,
                  ".byte 0x48; mov word ptr [rbx+0xffa], ds; cmp eax, 0x11; "
                  "mov [rbx+0x1001], es; setz al");
    HOT("soundness-20-selector-to-registers", USER, ,
        "mov rax, -1; mov r9, -1; mov rcx, -1; mov r10, -1; mov r11, -1; mov ax, cs; mov r9w, ss; mov ecx, cs; "
        "mov r10, ss; mov r11w, cs");
}

static void control_registers(void)
{
    HOT("soundness-15-cr0-user", USER, , "mov rax, cr0");
    HOT("soundness-15-cr2-user", USER, , "mov rax, cr2");
    HOT("soundness-15-cr3-user", USER, , "mov rax, cr3");
    HOT("soundness-15-cr4-user", USER, , "mov r9, cr4");
    HOT("soundness-20-control-registers", KERNEL, write_cr2(0x123456789abc),
        "mov rax, cr0; mov r9, cr2; mov r10, cr3; sub r10, rdi; mov rdx, cr4; sub rdx, rsi; mov rcx, cr2; and eax, "
        "0x80000001",
        .rdi = read_cr3(), .rsi = read_cr4(), .hide = 3 << 6);
    HOT("soundness-20-cr2-after-fault", KERNEL, (two_pages(0), handlers[PG] = map_one),
        "mov eax, [rbx+0x1008]; mov rdx, cr2; sub rdx, rbx; mov rcx, cr2; mov cr2, rdi; mov r9, cr2", .rbx = PAGE_A,
        .hide = 2);
}

static void protection_keys(void)
{
    word cr4 = read_cr4();

    HOT("soundness-15-rdpkru-disabled", USER, write_cr4(cr4), "xor ecx, ecx; rdpkru");
    HOT("soundness-15-wrpkru-disabled", USER, write_cr4(cr4), "xor eax, eax; xor ecx, ecx; cdq; wrpkru");
    if (!has_leaf7_c(3)) {
        absent("soundness-15-rdpkru", "PKU");
        absent("soundness-15-rdpkru-ecx", "PKU");
        absent("soundness-15-rdpkru-ecx-upper", "PKU");
        absent("soundness-15-wrpkru-same", "PKU");
        absent("soundness-15-wrpkru-same-ecx", "PKU");
        absent("soundness-15-wrpkru-same-edx", "PKU");
        absent("soundness-15-wrpkru-keeps-flags", "PKU");
        return;
    }
    HOT("soundness-15-rdpkru", USER, write_cr4(cr4 | CR4_PKE),
        "mov rdx, -1; xor ecx, ecx; rdpkru; mov ebx, eax; xor eax, eax; cdq; wrpkru; mov eax, 0x5c0; wrpkru; mov rax, "
        "-1; rdpkru; mov r9d, eax; xor eax, eax; wrpkru");
    HOT("soundness-15-rdpkru-ecx", USER, write_cr4(cr4 | CR4_PKE), "mov ecx, 1; rdpkru");
    HOT("soundness-15-rdpkru-ecx-upper", USER, write_cr4(cr4 | CR4_PKE), "mov rcx, rbx; rdpkru", .rbx = BIT(32));
    /* the value that is there already; only the lower halves count */
    HOT("soundness-15-wrpkru-same", USER, write_cr4(cr4 | CR4_PKE),
        "mov rax, rbx; mov rcx, rbx; mov rdx, rbx; wrpkru; wrpkru; mov eax, 0x5c0; wrpkru; wrpkru; rdpkru; mov r9d, "
        "eax; "
        "xor eax, eax; wrpkru",
        .rbx = BIT(32));
    HOT("soundness-15-wrpkru-same-ecx", USER, write_cr4(cr4 | CR4_PKE), "xor eax, eax; mov ecx, 1; cdq; wrpkru");
    HOT("soundness-15-wrpkru-same-edx", USER, write_cr4(cr4 | CR4_PKE),
        "xor eax, eax; xor ecx, ecx; mov edx, 1; wrpkru");
    HOT("soundness-15-wrpkru-keeps-flags", USER, write_cr4(cr4 | CR4_PKE),
        "xor eax, eax; xor ecx, ecx; cdq; mov r8d, 0x80000000; add r8d, r8d; wrpkru; setc r9b; seto r10b; setz r11b; "
        "pushfq; "
        "pop r12");
}

static void directions(void)
{
    HOT("soundness-16-std-cld", USER, ,
        "mov ecx, 20; 1: lea rsi, [rbx+0x100]; std; lodsb; std; lodsw; pushfq; pop rax; cld; lodsd; pushfq; pop rdx; "
        "cld; sub rsi, rbx; dec ecx; jnz 1b; std; pushfq; pop r8; cld",
        .rbx = UDATA);
    HOT("soundness-16-std-then-fault", USER, , "mov ecx, 20; 1: std; cmp eax, 0x11; cld; std; dec ecx; jnz 1b; ud2",
        .show = STATUS);
    HOT("soundness-16-cld-keeps-flags", USER, ,
        "mov ecx, 100; xor r8d, r8d; 1: cmp ecx, 50; cld; adc r8d, 0; cmp ecx, 40; std; adc r8d, 0; cmp ecx, 30; cld; "
        "adc r8d, 0; dec ecx; jnz 1b",
        .show = STATUS);
}

static void serialize(void)
{
    if (!(cpuid(7, 0).d >> 14 & 1)) {
        absent("soundness-06-patch-before-serialize", "SERIALIZE");
        return;
    }
    HOT("soundness-06-patch-before-serialize", KERNEL, ,
        "mov ecx, 9; xor eax, eax; 1: mov byte ptr [rip+2f+2], cl; cmp ecx, 5; .byte 0x0f, 0x01, 0xe8; adc r8d, 0; "
        "2: add eax, 5; dec ecx; jnz 1b",
        .r8 = 0);
}

/* ---- Bit strings ---- */

static void bit_strings(void)
{
    static const char *const names[] = { "bt", "bts", "btr", "btc" };
    struct code codes[] = { CODE("bt [rbx+rsi*2+8], rax; adc r8d, 0; lock bts [rbx], edi; bt [rbx], r9w"),
                            CODE("bts [rbx+rsi*2+8], rax; adc r8d, 0; lock bts [rbx], edi; bts [rbx], r9w"),
                            CODE("btr [rbx+rsi*2+8], rax; adc r8d, 0; lock btr [rbx], edi; btr [rbx], r9w"),
                            CODE("btc [rbx+rsi*2+8], rax; adc r8d, 0; lock btc [rbx], edi; btc [rbx], r9w") };
    u64 seed;

    for (unsigned op = 0; op < 4; op++) {
        u64 sum = 0;

        seed = 1 + op;
        begin(name_of("soundness-03-bit-string-%s", names[op]));
        put_code(CODE_FRAME, codes[op]);
        two_pages(P | W | U);
        for (unsigned n = 0; n < 400; n++) {
            long long distance = (long long)(random64(&seed) % 60000) - 30000;
            word low = (word)(random64(&seed) % 60000) - 30000, narrow = random64(&seed);
            struct regs out = AGAIN(USER, .rbx = PAGE_A + 0x1000 + (random64(&seed) & 63), .rsi = 0,
                                    .rax = (word)distance, .rdi = low, .r9 = narrow, .r8 = 0);
            sum = sum * 33 + out.vector + (out.vector == PG ? out.cr2 : 0) + (out.rflags & CF) + out.r8;
        }
        for (unsigned i = 0; i < 2 * PAGE / 8; i++)
            sum = sum * 33 + FRAME64(FRAME_A)[i];
        say(" sum=%X", sum);
        done();
    }
}

static void bit_string_cases(void)
{
    HOT("soundness-03-bit-string-negative", USER, two_pages(P | W | U), "bts [rbx], rax; mov rdx, [rbx-8]",
        .rbx = PAGE_B, .rax = (word)-1);
    HOT("soundness-03-bit-string-absent", USER, two_pages(0), "bts [rbx+0xff8], rax; bts [rbx+0xff8], rdx",
        .rbx = PAGE_A, .rax = 63, .rdx = 64);
    HOT("soundness-03-bit-string-before-the-page", USER, two_pages(0), "bts dword ptr [rbx], edx", .rbx = PAGE_A,
        .rdx = (word)-1);
    HOT("soundness-03-bit-string-read-only", USER, (two_pages(P | U), 0), "bt [rbx], rax; mov ecx, 7; btr [rbx], rax",
        .rbx = PAGE_B, .rax = 100);
    HOT("soundness-18-bit-string-across-page-end", USER, two_pages(P | W | U),
        "lock btc [rbx+0xffd], rax; mov rdx, [rbx+0xffd]", .rbx = PAGE_A, .rax = 60);
    HOT("soundness-10-bit-string-keeps-zf", USER, two_pages(P | W | U),
        "mov ecx, 50; xor r8d, r8d; 1: cmp ecx, 20; bts [rbx], rcx; jnz 2f; inc r8d; 2: test ecx, ecx; btr [rbx+8], "
        "ecx; "
        "setz al; add r8b, al; cmp ecx, 10; mov [rbx+0x100], ecx; btc [rbx+0x200], cx; jz 3f; 3: dec ecx; jnz 1b",
        .rbx = PAGE_A, .show = ZF);
    HOT("soundness-02-bit-string-32-bit-address", USER, two_pages(P | W | U),
        "bts dword ptr [ebx], eax; mov rdx, [rbx+0x20]; mov rcx, [rbx]", .rbx = PAGE_A, .rax = 0x107);
    HOT("soundness-20-bit-string-registers", USER, two_pages(P | W | U),
        "bts [r9], r10; bts [r11+rcx], r15; bts [rsp-0x80], r9w; bts [rip+1f], r12; bt qword ptr [rip+1f], r12; setc "
        "al; "
        "mov rdx, [rbx]; jmp 2f; 1: .byte 0,0,0,0,0,0,0,0; 2:",
        .rbx = PAGE_A, .r9 = PAGE_A, .r10 = 3, .r11 = PAGE_A - 0x22, .r15 = 9, .r12 = 5);
}

void cases(void)
{
    if (has_leaf7_b(7) && has_leaf7_b(20)) {
        access_rights();
        access_calls();
        access_events();
        access_system_calls();
        access_code();
        access_flags();
    } else {
        absent("soundness-04-stac-clac-loop", "SMAP");
    }
    bases();
    selectors();
    control_registers();
    protection_keys();
    directions();
    serialize();
    bit_strings();
    bit_string_cases();
}
