/* Calls and returns (docs/design.md, "Soundness", lines 6 and 7): a translator that predicts where a return goes must
 * notice when the code behind the call has changed, when its page is another or gone, when the privilege level has
 * changed, and when the return address never came from a call. SDM Vol. 1 6.4; Vol. 2A CALL; Vol. 2B RET; Vol. 3A 4.6,
 * 8.1.3. */
#include "soundness.h"

#define LARGE (WINDOW + WINDOW_SIZE) /* a 2 MiB page for deep stacks */

/* ---- Line 6: code behind a call site changes before the return ---- */

/* RAX: the instruction behind the call site, in the user's view of the code page. */
static void patch_from_handler(struct regs *regs)
{
    FRAME8(CODE_FRAME + (regs->rax - UCODE_PAGE))[1] += 4;
}

static void patched_call_sites(void)
{
    /* the callee writes its round into the immediate behind the call */
    HOT("soundness-06-patch-after-call-site", KERNEL, ,
        "xor ecx, ecx; xor r8d, r8d; 1: call 3f; 2: mov ebx, 5; add r8d, ebx; inc ecx; cmp ecx, 100; jne 1b; jmp 4f;"
        "3: mov [rip+2b+1], cl; ret; 4:");
    HOT("soundness-06-patch-after-call-site-sometimes", KERNEL, ,
        "xor ecx, ecx; xor r8d, r8d; mov byte ptr [rip+2f+1], 0; 1: call 3f; 2: mov ebx, 5; add r8d, ebx; inc ecx; "
        "cmp ecx, 100; jne 1b; jmp 4f; 3: test cl, 7; jnz 5f; mov [rip+2b+1], cl; 5: ret; 4:");
    HOT("soundness-06-patch-after-call-site-through-alias", KERNEL, ,
        "xor ecx, ecx; xor r8d, r8d; 1: call 3f; 2: mov ebx, 5; add r8d, ebx; inc ecx; cmp ecx, 100; jne 1b; jmp 4f;"
        "3: lea rdx, [rip+2b+1]; add rdx, r9; mov [rdx], cl; ret; 4:",
        .r9 = CODE_FRAME - (word)CODE_PAGE);
    HOT("soundness-06-patch-after-indirect-call-site", KERNEL, ,
        "lea rsi, [rip+3f]; xor ecx, ecx; xor r8d, r8d; 1: call rsi; 2: mov ebx, 5; add r8d, ebx; inc ecx; "
        "cmp ecx, 100; jne 1b; jmp 4f; 3: mov [rip+2b+1], cl; ret; 4:",
        .hide = 1 << 6);
    HOT("soundness-06-patch-three-levels", KERNEL, ,
        "xor ecx, ecx; xor r8d, r8d; 1: call 3f; 2: mov ebx, 5; add r8d, ebx; inc ecx; cmp ecx, 60; jne 1b; jmp 9f;"
        "3: call 4f; 5: mov edx, 5; add r8d, edx; ret; 4: call 6f; 7: mov esi, 5; add r8d, esi; ret;"
        "6: mov [rip+2b+1], cl; mov [rip+5b+1], cl; mov [rip+7b+1], cl; ret; 9:");
    /* at the bottom of a recursion the one place changes to which a thousand calls return */
    HOT("soundness-06-patch-under-recursion", KERNEL, ,
        "mov byte ptr [rip+2f+3], 1; xor r8d, r8d; mov ecx, 200; call 1f; jmp 4f; 1: dec ecx; jz 3f; call 1b;"
        "2: add r8d, 0x01; ret; 3: mov byte ptr [rip+2b+3], 7; ret; 4:");
    HOT("soundness-06-patch-to-other-instruction", KERNEL, ,
        "mov word ptr [rip+2f], 0x9090; call 1f; 2: .byte 0x90, 0x90; jmp 3f; 1: mov word ptr [rip+2b], 0x0b0f; ret; "
        "3:");
    HOT("soundness-06-patch-before-ret-by-two-calls", KERNEL, ,
        "mov byte ptr [rip+2f+1], 5; call 1f; 2: mov ebx, 5; jmp 3f; 1: call 4f; nop; ret; 4: mov byte ptr [rip+2b+1], "
        "9;"
        "ret; 3:");
    HOT("soundness-06-patch-by-kernel", USER, handlers[BP] = patch_from_handler,
        "mov byte ptr [rip+2f+1], 5; call 1f; 2: mov ebx, 5; jmp 3f; 1: lea rax, [rip+2b]; int3; ret; 3:", .hide = 1);
}

/* Two hundred call sites: the callee patches the one that it was called from. */
static void many_call_sites(void)
{
    struct emitter e = { FRAME_A, 0 };

    for (unsigned i = 0; i < 200; i++) {
        emit8(&e, 0xff); /* call rsi */
        emit8(&e, 0xd6);
        emit8(&e, 0xbb); /* mov ebx, 5 */
        emit32(&e, 5);
        emit8(&e, 0x41); /* add r8d, ebx */
        emit8(&e, 0x01);
        emit8(&e, 0xd8);
    }
    emit_end(&e);
    map(PAGE_A, FRAME_A, P | W);
    begin("soundness-06-patch-two-hundred-call-sites");
    PLACE("mov rdx, [rsp]; mov [rdx+1], cl; ret");
    for (word value = 1; value < 6; value++)
        say(" %d", AGAIN(KERNEL, .rip = PAGE_A, .rsi = CODE_PAGE, .rcx = value, .r8 = 0).r8);
    done();
}

/* The caller in a page of its own, twice: call rsi; mov ebx, VALUE; int 0x40. */
static void put_callers(void)
{
    put_code(FRAME_A, CODE("call rsi; mov ebx, 5"));
    put_code(FRAME_B, CODE("call rsi; mov ebx, 9"));
    map(PAGE_A, FRAME_A, P | W);
    flush_tlb();
}

#define CALLER(name, setup, text, entry)                                                                               \
    HOT(name, KERNEL, setup, text, .rip = PAGE_A, .rsi = CODE_PAGE, .rdi = (word)pte(PAGE_A), .rbp = PAGE_A,           \
        .rdx = (entry), .hide = 1 << 7)

static void set_smep(void)
{
    put_callers();
    write_cr4(read_cr4() | CR4_SMEP);
}

static void caller_pages(void)
{
    CALLER("soundness-06-caller-page-remapped", put_callers(), "mov [rdi], rdx; invlpg [rbp]; ret", FRAME_B | P | W);
    CALLER("soundness-06-caller-page-remapped-cr3", put_callers(),
           "mov [rdi], rdx; mov rax, cr3; mov cr3, rax; xor eax, "
           "eax; ret",
           FRAME_B | P | W);
    CALLER("soundness-06-caller-page-absent", put_callers(), "mov [rdi], rdx; invlpg [rbp]; ret", 0);
    CALLER("soundness-06-caller-page-no-execute", put_callers(), "mov [rdi], rdx; invlpg [rbp]; ret",
           FRAME_A | P | W | NX);
    CALLER("soundness-06-caller-page-read-only", put_callers(), "mov [rdi], rdx; invlpg [rbp]; ret", FRAME_A | P);
    CALLER("soundness-06-caller-page-patched", put_callers(), "mov byte ptr [rbp+3], 7; ret", FRAME_A | P | W);
    if (has_leaf7_b(7))
        CALLER("soundness-06-caller-page-becomes-user", set_smep(), "mov [rdi], rdx; invlpg [rbp]; ret",
               FRAME_A | P | W | U);
    else
        absent("soundness-06-caller-page-becomes-user", "SMEP");
}

/* The callee switches to an address space where the caller's address is another page. */
static void other_space(void)
{
    static u64 roots[2][512] __attribute__((aligned(PAGE)));
    static u64 lower[2][3][512] __attribute__((aligned(PAGE)));
    const word va = BIT(39) + 0x5000;
    word old = read_cr3();

    put_callers();
    for (unsigned s = 0; s < 2; s++) {
        for (unsigned i = 0; i < 512; i++)
            roots[s][i] = *pml4e((u64)i << 39);
        roots[s][1] = (u64)(word)lower[s][0] | P | W | U;
        lower[s][0][0] = (u64)(word)lower[s][1] | P | W | U;
        lower[s][1][0] = (u64)(word)lower[s][2] | P | W | U;
        lower[s][2][5] = (s ? FRAME_B : FRAME_A) | P | W | U;
    }
    begin("soundness-06-callee-switches-address-space");
    PLACE("mov cr3, rdi; ret");
    for (unsigned i = 0; i < 8; i++) {
        write_cr3((word)roots[i >> 1 & 1]);
        say(" %d", AGAIN(KERNEL, .rip = va, .rsi = CODE_PAGE, .rdi = (word)roots[i & 1]).rbx);
    }
    write_cr3(old);
    done();
}

/* ---- Line 7: privilege levels ---- */

static void set_syscall(word kernel_offset)
{
    wrmsr(MSR_STAR, (u64)(UCS - 16) << 48 | (u64)KCS << 32);
    wrmsr(MSR_LSTAR, CODE_PAGE + kernel_offset);
    wrmsr(MSR_FMASK, 0);
}

/* The user calls, and is in a system call when the kernel goes to the user's return address by `how`. */
static void to_user_address(const char *name, struct code how, word cr4)
{
    begin(name);
    put_code(CODE_FRAME, CODE("call 1f; int 0x40; 1: mov rdx, [rsp]; syscall"));
    put_code(CODE_FRAME + 0x800, how);
    set_syscall(0x800);
    write_cr4(cr4);
    for (unsigned i = 0; i < 4; i++) {
        struct regs out = AGAIN(USER, .r12 = STACK_TOP);

        say(" %s", event_name(out.vector));
        if (out.vector == PG)
            say("(%x)", out.error);
        say(":%x:%x", out.cs, out.rip);
    }
    done();
}

static void supervisor_returns(void)
{
    static const char *const names[] = { "soundness-07-supervisor-ret-to-user-smep",
                                         "soundness-07-supervisor-jmp-to-user-smep",
                                         "soundness-07-supervisor-call-to-user-smep",
                                         "soundness-07-supervisor-iret-to-user-page-smep" };
    word cr4 = read_cr4();
    struct code codes[] = {
        CODE("mov rsp, r12; push rdx; ret"),
        CODE("mov rsp, r12; jmp rdx"),
        CODE("mov rsp, r12; call rdx"),
        CODE("mov rsp, r12; mov eax, ss; push rax; push r12; pushfq; mov eax, cs; push rax; push rdx; iretq"),
    };

    to_user_address("soundness-07-supervisor-ret-to-user", codes[0], cr4);
    for (unsigned i = 0; i < ARRAY_SIZE(names); i++) {
        if (has_leaf7_b(7))
            to_user_address(names[i], codes[i], cr4 | CR4_SMEP);
        else
            absent(names[i], "SMEP");
    }
}

/* The user recurses ten levels deep with a system call on the way down and up; the kernel does with calls what it
 * likes. */
static void user_returns(const char *name, struct code kernel)
{
    begin(name);
    put_code(CODE_FRAME,
             CODE("mov ebx, 10; xor r8d, r8d; call 1f; jmp 3f; 1: syscall; dec ebx; jz 2f; call 1b; inc r8d; "
                  "2: syscall; inc r8d; ret; 3:"));
    put_code(CODE_FRAME + 0x800, kernel);
    set_syscall(0x800);
    for (unsigned i = 0; i < 3; i++) {
        struct regs out = AGAIN(USER, .r12 = STACK_TOP, .r15 = UDATA);

        say(" %s r8=%d r9=%d", event_name(out.vector), out.r8, out.r9);
    }
    done();
}

static void kernels_between(void)
{
    user_returns("soundness-07-user-ret-after-kernel",
                 CODE("mov r13, rsp; mov rsp, r12; mov r9d, 5; call 1f; jmp 2f; 1: dec r9d; jz 3f; call 1b; 3: ret; 2: "
                      "mov rsp, r13; sysretq"));
    user_returns("soundness-07-user-ret-after-unbalanced-kernel",
                 CODE(
                     "mov r13, rsp; mov rsp, r12; mov r9d, 50; 1: call 2f; 2: dec r9d; jnz 1b; mov rsp, r13; sysretq"));
    user_returns(
        "soundness-07-user-ret-after-kernel-thread-switch",
        CODE("mov r13, rsp; mov rsp, r12; lea rax, [rip+1f]; push rax; sub rsp, 0x100; push rax; mov [r12-0x200], "
             "rsp; mov r9, rsp; ret; 1: xchg r9, rsp; mov rsp, r13; sysretq"));
}

static void nothing(struct regs *regs)
{
    (void)regs;
}

/* Leaves two calls at once, as an unwinder does. */
static void unwind(struct regs *regs)
{
    regs->rip = FRAME64(USTACK_FRAME)[(regs->rsp + 8 - USTACK) / 8];
    regs->rsp += 16;
}

static void odd_returns(void)
{
    HOT("soundness-07-return-address-patched", USER, ,
        "mov ecx, 50; xor r8d, r8d; 5: call 1f; 6: inc r8d; jmp 3f; 1: test cl, 1; jz 4f; lea rax, [rip+2f]; "
        "mov [rsp], rax; 4: ret; 2: add r8d, 0x100; 3: dec ecx; jnz 5b",
        .hide = 1);
    HOT("soundness-07-return-address-incremented", USER, ,
        "mov ecx, 50; xor r8d, r8d; 5: call 1f; inc r8d; nop; dec ecx; jnz 5b; jmp 3f; 1: test cl, 1; jz 4f; "
        "add qword ptr [rsp], 3; 4: ret; 3:");
    HOT("soundness-07-return-address-patched-through-alias", KERNEL, map(PAGE_A, STACK_FRAME + 0x1000, P | W),
        "mov ecx, 50; xor r8d, r8d; 5: call 1f; inc r8d; nop; dec ecx; jnz 5b; jmp 3f; 1: add qword ptr [rsi], 3; ret; "
        "3:",
        .rsi = PAGE_A + 0xff8);
    HOT("soundness-07-return-into-an-instruction", USER, ,
        "xor r8d, r8d; call 1f; .byte 0xb8; inc r8d; .byte 0x90, 0x90; jmp 2f; 1: inc qword ptr [rsp]; ret; 2:");
    HOT("soundness-07-longjmp", USER, ,
        "mov rbx, rsp; mov ecx, 300; 1: mov edx, 40; call 2f; ud2; 2: dec edx; jz 3f; call 2b; ud2; 3: mov rsp, rbx; "
        "dec ecx; jnz 1b",
        .hide = 8);
    HOT("soundness-07-coroutines", USER, ,
        /* two stacks that give control to each other through a call */
        "lea rax, [rip+4f]; mov [rsi], rax; mov rbx, rsi; mov ecx, 5000; xor r8d, r8d; xor r9d, r9d;"
        "1: call 3f; inc r8d; dec ecx; jnz 1b; jmp 5f; 3: xchg rsp, rbx; ret;"
        "4: call 3b; inc r9d; jmp 4b; 5:",
        .rsi = UDATA + 0x800, .hide = 1 | 8);
    HOT("soundness-07-stack-switch-with-equal-depth", USER, ,
        "mov ecx, 100; xor r8d, r8d; 1: call 2f; inc r8d; dec ecx; jnz 1b; jmp 4f; 2: mov rax, [rsp]; mov rdx, rsp; "
        "mov rsp, rsi; push rdx; lea r9, [rip+3f]; push r9; mov rdx, rax; ret; 3: add r8d, 0x100; pop rsp; ret; 4:",
        .rsi = UDATA + 0x800, .hide = 1 | 4 | 1 << 9);
    HOT("soundness-07-call-pop", USER, ,
        "mov ecx, 20000; xor r8d, r8d; 1: call 2f; 2: pop rax; lea rdx, [rip+2b]; "
        "cmp rax, rdx; setz dl; movzx edx, dl; add r8d, edx; dec ecx; jnz 1b",
        .hide = 1);
    HOT("soundness-07-push-ret", USER, ,
        "mov ecx, 20000; xor r8d, r8d; 1: lea rax, [rip+2f]; push rax; ret; ud2; "
        "2: inc r8d; dec ecx; jnz 1b",
        .hide = 1);
    HOT("soundness-07-retpoline", USER, ,
        "mov ecx, 5000; xor r8d, r8d; 1: lea rax, [rip+4f]; call 2f; 3: pause; lfence; "
        "jmp 3b; 2: mov [rsp], rax; ret; 4: inc r8d; dec ecx; jnz 1b",
        .hide = 1);
    HOT("soundness-07-calls-that-never-return", USER, ,
        "mov rbx, rsp; mov ecx, 200000; xor r8d, r8d; 1: call 2f; ud2; 2: mov rsp, rbx; inc r8d; dec ecx; jnz 1b",
        .hide = 8);
    HOT("soundness-07-ret-imm16", USER, ,
        "mov ecx, 1000; xor r8d, r8d; 1: push 1; push 2; call 2f; inc r8d; dec ecx; jnz 1b; jmp 3f; 2: ret 16; 3:");
    HOT("soundness-07-call-through-stack", USER, ,
        "mov ecx, 100; lea rax, [rip+2f]; push rax; xor r8d, r8d; 1: call [rsp]; dec ecx; jnz 1b; jmp 3f; 2: mov rdx, "
        "[rsp];"
        "push [rsp]; pop [rsp]; cmp rdx, [rsp]; setz dl; movzx edx, dl; add r8d, edx; ret; 3: pop rax",
        .hide = 1);
    HOT("soundness-07-far-returns-between", USER, ,
        "mov ecx, 200; xor r8d, r8d; 1: call 2f; inc r8d; dec ecx; jnz 1b; jmp 4f; 2: push 0x2b; lea rax, [rip+3f]; "
        "push rax; .byte 0x48, 0xcb; 3: ret; 4:",
        .hide = 1);
    HOT("soundness-07-interrupts-between", USER, handlers[BP] = nothing,
        "mov ecx, 200; xor r8d, r8d; 1: call 2f; inc r8d; dec ecx; jnz 1b; jmp 4f; 2: int3; call 3f; ret; 3: int3; "
        "ret; 4:");
    HOT("soundness-07-interrupt-on-another-stack", USER, handlers[BP] = nothing,
        "xor r8d, r8d; call 1f; add r8d, 1; jmp 3f; 1: mov rax, [rsp]; lea rsp, [rsp-0x100]; mov [rsp], rax; call 2f; "
        "add r8d, 0x10; ret; 2: int3; add r8d, 0x100; ret; 3:",
        .hide = 1);
    HOT("soundness-07-unwinding-by-handler", USER, handlers[BP] = unwind,
        "mov ecx, 200; xor r8d, r8d; 1: call 2f; inc r8d; dec ecx; jnz 1b; jmp 4f; 2: call 3f; ud2; 3: int3; ud2; 4:");
    HOT("soundness-07-pop-rsp", USER, ,
        "mov rbx, rsp; mov ecx, 500; xor r8d, r8d; lea rax, [rip+1f]; mov [rsi+8], rax; lea rdx, [rsi+8]; mov [rsi], "
        "rdx; "
        "2: mov rsp, rsi; pop rsp; ret; ud2; 1: inc r8d; dec ecx; jnz 2b; mov rsp, rbx",
        .rsi = UDATA + 0x800, .hide = 1 | 4 | 8);
    TRY32("soundness-07-compatibility-recursion", USER32,
          "mov ecx, 1500; xor eax, eax; call 1f; jmp 3f; 1: inc eax; dec ecx; jz 2f; call 1b; inc edx; 2: ret; 3:",
          .rdx = 0);
}

static void large_stack(void)
{
    *pde(LARGE) = FREE_FRAME | P | W | U | PS;
    flush_tlb();
}

static void fill_rets(void)
{
    large_stack();
    /* 10,000 times the address of the RET at the code page's beginning, then of what is behind it */
    for (word i = 0; i < 10000; i++)
        FRAME64(FREE_FRAME)[i] = UCODE_PAGE;
    FRAME64(FREE_FRAME)[10000] = UCODE_PAGE + 1;
}

static void deep(void)
{
    HOT("soundness-07-recursion-100000-levels", USER, large_stack(),
        "mov ecx, 100000; xor eax, eax; xor edx, edx; call 1f; jmp 2f; 1: inc eax; dec ecx; jz 3f; call 1b; 3: inc "
        "edx; ret;"
        "2:",
        .rsp = LARGE + 0x200000);
    HOT("soundness-07-recursion-by-pointer", USER, large_stack(),
        "mov ecx, 100000; xor eax, eax; xor edx, edx; lea rsi, [rip+1f]; call rsi; jmp 2f; 1: inc eax; dec ecx; jz 3f; "
        "call rsi; 3: inc edx; ret; 2:",
        .rsp = LARGE + 0x200000, .hide = 1 << 6);
    HOT("soundness-07-recursion-by-pointer-kernel", KERNEL, large_stack(),
        "mov ecx, 100000; xor eax, eax; xor edx, edx; lea rsi, [rip+1f]; call rsi; jmp 2f; 1: inc eax; dec ecx; jz 3f; "
        "call rsi; 3: inc edx; ret; 2:",
        .rsp = LARGE + 0x200000, .hide = 1 << 6);
    HOT("soundness-07-mutual-recursion", USER, large_stack(),
        "mov ecx, 60000; xor eax, eax; xor edx, edx; lea rsi, [rip+4f]; call 1f; jmp 2f;"
        "1: inc eax; dec ecx; jz 3f; call rsi; add edx, 2; 3: ret;"
        "4: dec ecx; jz 5f; push rcx; call 1b; pop rbx; call 6f; 5: ret; 6: inc edx; ret; 2:",
        .rsp = LARGE + 0x200000, .hide = 1 << 6);
    HOT("soundness-07-fibonacci", USER, ,
        "mov edi, 18; call 1f; jmp 3f; 1: cmp edi, 2; jae 2f; mov eax, edi; ret; 2: push rdi; dec edi; call 1b; pop "
        "rdi; "
        "push rax; sub edi, 2; call 1b; pop rdx; add eax, edx; ret; 3:",
        .rdx = 0);
    HOT("soundness-07-chain-of-rets", USER, fill_rets(), "ret; mov ecx, 7", .rsp = LARGE);
}

/* A stack that grows page by page while its owner recurses: the push of the call faults, the handler maps. */
static void demand_paged(void)
{
    map_pages(FREE, 0, 200, 0);
    flush_tlb();
    handlers[PG] = map_one;
}

static void growing(void)
{
    HOT("soundness-07-stack-grows-under-calls", USER, demand_paged(),
        "mov ecx, 50000; xor eax, eax; xor edx, edx; call 1f; jmp 2f; 1: inc eax; dec ecx; jz 3f; call 1b; 3: inc edx; "
        "ret;"
        "2:",
        .rsp = FREE + 110 * PAGE);
}

void cases(void)
{
    patched_call_sites();
    many_call_sites();
    caller_pages();
    other_space();
    supervisor_returns();
    kernels_between();
    odd_returns();
    deep();
    growing();
}
