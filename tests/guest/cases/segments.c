/* Protected mode without paging: segment limits and types, privilege levels, gates, the TSS's stacks, error codes,
 * and the instructions that 64-bit mode does not have. SDM Vol. 3A chapters 3, 5, 6; Vol. 2. */
#include "guest.h"

enum { LDS = 0x48, /* SCRATCH: the segment under test */ LCS = 0x50 };

/* Data segment LDS of the user's level with this base, limit and type. */
static void set_data(u32 base, u32 limit, u8 type, u8 flags)
{
    gdt[LDS / 8] = descriptor(base, limit, type, flags);
}

/* ---- Limits ---- */

static void limits(void)
{
    set_data(DATA, 0xf, 0xf3, FLAG_D);
    TRY("limit-last-byte", USER, "mov ds, ecx; mov al, [0xf]", .rcx = LDS | 3, .rax = 0);
    set_data(DATA, 0xf, 0xf3, FLAG_D);
    TRY("limit-one-beyond", USER, "mov ds, ecx; mov al, [0x10]", .rcx = LDS | 3);
    set_data(DATA, 0xf, 0xf3, FLAG_D);
    TRY("limit-dword-across", USER, "mov ds, ecx; mov eax, [0xd]", .rcx = LDS | 3);
    set_data(DATA, 0xf, 0xf3, FLAG_D);
    TRY("limit-dword-last", USER, "mov ds, ecx; mov eax, [0xc]", .rcx = LDS | 3, .rax = 0);
    set_data(DATA, 0xf, 0xf3, FLAG_D);
    TRY("limit-write", USER, "mov ds, ecx; mov [0xd], eax", .rcx = LDS | 3);
    set_data(DATA, 0xf, 0xf3, FLAG_D);
    TRY("limit-rmw", USER, "mov ds, ecx; inc dword ptr [0xd]", .rcx = LDS | 3);
    set_data(DATA, 0xf, 0xf3, FLAG_D);
    TRY("limit-sse", USER, "mov ds, ecx; movups xmm0, [1]", .rcx = LDS | 3);
    set_data(DATA, 0xf, 0xf3, FLAG_D);
    TRY("limit-sse-fits", USER, "mov ds, ecx; movups xmm0, [0]", .rcx = LDS | 3);
    set_data(DATA, 0xf, 0xf3, FLAG_D);
    TRY("limit-x87", USER, "mov ds, ecx; fninit; fld tbyte ptr [7]", .rcx = LDS | 3);
    set_data(DATA, 0xf, 0xf3, FLAG_D);
    TRY("limit-string", USER, "mov es, ecx; rep stosb", .rcx = LDS | 3, .rdi = 0x8);
    set_data(DATA, 0xf, 0xf3, FLAG_D);
    TRY("limit-string-count", USER, "mov es, ecx; mov ecx, 8; rep stosd", .rcx = LDS | 3, .rdi = 0x4);
    set_data(DATA, 0xf, 0xf3, FLAG_D);
    TRY("limit-string-backwards-wraps", USER, "mov es, ecx; mov ecx, 8; rep stosd", .rcx = LDS | 3, .rdi = 0x4,
        .rflags = 2 | DF);
    set_data(DATA, 1, 0xf3, FLAG_D | FLAG_G);
    TRY("limit-granular", USER, "mov ds, ecx; mov al, [0x1fff]; mov al, [0x2000]", .rcx = LDS | 3, .rax = 0);
    set_data(DATA, 0, 0xf3, FLAG_D | FLAG_G);
    TRY("limit-0-granular-is-4k", USER, "mov ds, ecx; mov al, [0xfff]; mov al, [0x1000]", .rcx = LDS | 3, .rax = 0);
    set_data(DATA, 0xff, 0xf7, FLAG_D);
    TRY("expand-down-below", USER, "mov ds, ecx; mov al, [0xff]", .rcx = LDS | 3);
    set_data(DATA, 0xff, 0xf7, FLAG_D);
    TRY("expand-down-above", USER, "mov ds, ecx; mov al, [0x100]", .rcx = LDS | 3, .rax = 0);
    set_data(DATA, 0xff, 0xf7, FLAG_D);
    TRY("expand-down-across", USER, "mov ds, ecx; mov eax, [0xfe]", .rcx = LDS | 3);
    set_data(DATA, 0xff, 0xf7, 0);
    TRY("expand-down-16-bit-top", USER, "mov ds, ecx; mov al, [0xffff]; mov al, [0x10000]", .rcx = LDS | 3, .rax = 0);
    set_data(DATA, 0xfffff, 0xf7, FLAG_G | FLAG_D);
    TRY("expand-down-full-limit-is-empty", USER, "mov ds, ecx; mov al, [0xfffffff0]", .rcx = LDS | 3);
    set_data(0xfffff000, 0xfffff, 0xf3, FLAG_G | FLAG_D);
    TRY("base-plus-offset-wraps", USER, "mov ds, ecx; mov al, [ebx]", .rcx = LDS | 3, .rbx = DATA + 0x1000, .rax = 0);
    TRY("16-bit-address-wraps", USER, "mov ds, ecx; .byte 0x67; mov al, [bx+di]", .rcx = UDS | 3, .rbx = 0xffff,
        .rdi = 0x11, .hide = 1);
    set_data(DATA, 0xf, 0xf3, FLAG_D);
    TRY("stack-limit-push", USER, "mov ss, ecx; push eax", .rcx = LDS | 3, .rsp = 0x14);
    set_data(DATA, 0xf, 0xf3, FLAG_D);
    TRY("stack-limit-push-fits", USER, "mov ss, ecx; push eax", .rcx = LDS | 3, .rsp = 0x10);
    set_data(DATA, 0xf, 0xf3, FLAG_D);
    TRY("stack-limit-pop", USER, "mov ss, ecx; pop eax", .rcx = LDS | 3, .rsp = 0xe);
    set_data(DATA, 0xf, 0xf3, FLAG_D);
    TRY("stack-limit-bp", USER, "mov ss, ecx; mov eax, [ebp]", .rcx = LDS | 3, .rbp = 0x10);
    set_data(DATA, 0xf, 0xf3, FLAG_D);
    TRY("stack-limit-call", USER, "mov ss, ecx; call 1f; 1:", .rcx = LDS | 3, .rsp = 0x14);
    set_data(DATA, 0xf, 0xf3, FLAG_D);
    TRY("stack-limit-enter", USER, "mov ss, ecx; enter 0x10, 0", .rcx = LDS | 3, .rsp = 0x8);
    set_data(DATA, 0xff, 0xf7, FLAG_D);
    TRY("stack-expand-down", USER, "mov ss, ecx; push eax; push eax", .rcx = LDS | 3, .rsp = 0x104);
    set_data(STACK, 0xffff, 0xf3, 0);
    TRY("stack-16-bit-push-wraps", USER, "mov ss, ecx; push eax; push eax", .rcx = LDS | 3, .rsp = 0x12340004);
    set_data(STACK, 0xffff, 0xf3, 0);
    TRY("stack-16-bit-keeps-upper-esp", USER, "mov ss, ecx; push eax; pop edx", .rcx = LDS | 3, .rsp = 0x12341004);
    set_data(STACK, 0xffff, 0xf3, 0);
    TRY("stack-16-bit-pusha", USER, "mov ss, ecx; pusha; popa", .rcx = LDS | 3, .rsp = 0x12341004);
}

static void types(void)
{
    set_data(DATA, 0xff, 0xf1, FLAG_D);
    TRY("type-read-only-read", USER, "mov ds, ecx; mov al, [0]", .rcx = LDS | 3, .rax = 0);
    set_data(DATA, 0xff, 0xf1, FLAG_D);
    TRY("type-read-only-write", USER, "mov ds, ecx; mov [0], al", .rcx = LDS | 3);
    set_data(DATA, 0xff, 0xf1, FLAG_D);
    TRY("type-read-only-rmw", USER, "mov ds, ecx; lock inc dword ptr [0]", .rcx = LDS | 3);
    TRY("type-code-write", USER, "mov cs:[ebx], al", .rbx = DATA);
    TRY("type-code-read", USER, "mov al, cs:[ebx]", .rbx = DATA, .rax = 0);
    gdt[LCS / 8] = descriptor(0, 0xfffff, 0xf9, FLAG_G | FLAG_D);
    TRY("type-execute-only-read", AS_GIVEN, "mov al, cs:[ebx]", .cs = LCS | 3, .ss = UDS | 3, .rbx = DATA);
    TRY("type-null-ds", USER, "mov ds, ecx; mov al, [ebx]", .rcx = 0, .rbx = DATA);
    TRY("type-null-es-string", USER, "mov es, ecx; stosb", .rcx = 3, .rdi = DATA);
    TRY("type-null-fs", USER, "mov fs, ecx; mov al, fs:[ebx]", .rcx = 0, .rbx = DATA);
    TRY("type-null-ds-lea-is-fine", USER, "mov ds, ecx; lea eax, [ebx]", .rcx = 0);
    TRY("type-load-null-ss", USER, "mov ss, ecx", .rcx = 0);
    TRY("type-load-ss-code", USER, "mov ss, ecx", .rcx = UCS | 3);
    set_data(DATA, 0xff, 0xf1, FLAG_D);
    TRY("type-load-ss-read-only", USER, "mov ss, ecx", .rcx = LDS | 3);
    set_data(DATA, 0xff, 0x73, FLAG_D);
    TRY("type-load-ss-not-present", USER, "mov ss, ecx", .rcx = LDS | 3);
    set_data(DATA, 0xff, 0x73, FLAG_D);
    TRY("type-load-ds-not-present", USER, "mov ds, ecx", .rcx = LDS | 3);
    gdt[LCS / 8] = descriptor(0, 0xfffff, 0xf9, FLAG_G | FLAG_D);
    TRY("type-load-ds-execute-only", USER, "mov ds, ecx", .rcx = LCS | 3);
    TRY("type-load-ds-inner", USER, "mov ds, ecx", .rcx = KDS);
    TRY("type-load-cs", KERNEL, ".byte 0x8e, 0xc8");
    set_data(DATA, 0xff, 0xf2, FLAG_D);
    OPEN("type-accessed-bit", USER, "mov fs, ecx", .rcx = LDS | 3);
    say(" type=%x", (word)(gdt[LDS / 8] >> 40 & 0xff));
    done();
    set_data(DATA, 0xff, 0xf3, FLAG_D);
    TRY("type-descriptor-is-cached", KERNEL,
        "mov fs, ecx; mov dword ptr [ebx], 0; mov dword ptr [ebx+4], 0; mov al, fs:[0]", .rcx = LDS,
        .rbx = (word)&gdt[LDS / 8], .rax = 0, .hide = 8);
    TRY("type-lds", USER, "push ecx; push edx; lds ebx, [esp]; pop edx; pop ecx; mov eax, ds", .rcx = UDS | 3,
        .rdx = 0x1234);
    TRY("type-lds-bad-selector", USER, "push ecx; push edx; lds ebx, [esp]", .rcx = 0x1003, .rdx = 0x1234);
    TRY("type-lds-register", USER, ".byte 0xc5, 0xc0");
    TRY("type-les-16", USER, "push 0x00231234; .byte 0x66; les bx, [esp]", .rbx = 0x55555555);
}

/* ---- LDT ---- */

static u64 ldt[4] __attribute__((aligned(16)));

static void local_table(void)
{
    ldt[1] = descriptor(DATA, 0xff, 0xf3, FLAG_D);
    gdt[LCS / 8] = descriptor((u32)ldt, sizeof(ldt) - 1, 0x82, 0);
    TRY("ldt-data", KERNEL, "lldt ax; mov fs, ecx; mov al, fs:[0xff]; mov ebx, fs", .rax = LCS, .rcx = 0xf, .hide = 1);
    gdt[LCS / 8] = descriptor((u32)ldt, sizeof(ldt) - 1, 0x82, 0);
    TRY("ldt-beyond-limit", KERNEL, "lldt ax; mov fs, ecx", .rax = LCS, .rcx = 0x27);
    gdt[LCS / 8] = descriptor((u32)ldt, 14, 0x82, 0);
    TRY("ldt-partly-beyond-limit", KERNEL, "lldt ax; mov fs, ecx", .rax = LCS, .rcx = 0xf);
    TRY("ldt-absent", KERNEL, "mov fs, ecx", .rcx = 0xf);
    gdt[LCS / 8] = descriptor((u32)ldt, sizeof(ldt) - 1, 0x82, 0);
    TRY("ldt-index-0-is-not-null", KERNEL, "lldt ax; mov fs, ecx", .rax = LCS, .rcx = 0x4);
    TRY("lldt-in-ldt", KERNEL, "lldt ax", .rax = 0xc);
}

/* ---- Code segments ---- */

/* INT 0x40 where a transfer leads. */
static void put_target_at(word address)
{
    *FRAME8(address) = 0xcd;
    *FRAME8(address + 1) = 0x40;
}

static void code_segments(void)
{
    gdt[LCS / 8] = descriptor(0, 0xfffff, 0x9f, FLAG_G | FLAG_D);
    TRY("conforming-far-jmp-keeps-cpl", USER, ".byte 0xea; .long 0x1000007; .word 0x53; mov eax, cs");
    gdt[LCS / 8] = descriptor(0, 0xfffff, 0x9f, FLAG_G | FLAG_D);
    TRY("conforming-far-call-keeps-cpl", USER, ".byte 0x9a; .long 0x1000007; .word 0x50; pop eax; pop ecx");
    gdt[LCS / 8] = descriptor(0, 0xfffff, 0xff, FLAG_G | FLAG_D);
    TRY("conforming-outer-from-inner", KERNEL, ".byte 0xea; .long 0x1000007; .word 0x53");
    gdt[LCS / 8] = descriptor(0, 0xfffff, 0x9f, FLAG_G | FLAG_D);
    TRY("conforming-read-as-data-from-user", USER, "mov ds, ecx; mov al, [ebx]", .rcx = LCS | 3, .rbx = DATA, .rax = 0);
    gdt[LCS / 8] = descriptor(CODE_PAGE, 0x10, 0xfb, FLAG_D);
    TRY("code-base-and-limit", USER, ".byte 0xea; .long 7; .word 0x53; nop; nop; mov eax, cs");
    gdt[LCS / 8] = descriptor(CODE_PAGE, 8, 0xfb, FLAG_D);
    TRY("code-run-over-limit", USER, ".byte 0xea; .long 7; .word 0x53; nop; nop; nop");
    gdt[LCS / 8] = descriptor(CODE_PAGE, 8, 0xfb, FLAG_D);
    TRY("code-instruction-over-limit", USER, ".byte 0xea; .long 7; .word 0x53; mov eax, 5");
    gdt[LCS / 8] = descriptor(CODE_PAGE, 0xff, 0xfb, FLAG_D);
    TRY("code-jmp-over-limit", USER, ".byte 0xea; .long 7; .word 0x53; jmp eax", .rax = 0x100);
    gdt[LCS / 8] = descriptor(CODE_PAGE, 0xff, 0xfb, FLAG_D);
    TRY("code-call-over-limit", USER, ".byte 0xea; .long 7; .word 0x53; call eax", .rax = 0x100);
    gdt[LCS / 8] = descriptor(CODE_PAGE, 0xff, 0xfb, FLAG_D);
    TRY("code-ret-over-limit", USER, ".byte 0xea; .long 7; .word 0x53; push eax; ret", .rax = 0x100);
    gdt[LCS / 8] = descriptor(CODE_PAGE, 0xff, 0xfb, FLAG_D);
    TRY("code-far-jmp-over-limit", USER, ".byte 0xea; .long 0x100; .word 0x53");
    gdt[LCS / 8] = descriptor(CODE_PAGE, 0xffff, 0xfb, 0);
    TRY("code-16-bit", USER,
        ".byte 0xea; .long 7; .word 0x53; .code16; mov ax, 0x1234; push ax; pop cx; mov ebx, 0x12345678; .code32",
        .rax = ~0ul);
    gdt[LCS / 8] = descriptor(CODE_PAGE, 0xffff, 0xfb, 0);
    TRY("code-16-bit-near-ret", USER,
        ".byte 0xea; .long 7; .word 0x53; .code16; push 0x0b; ret; nop; .code32; inc eax");
    gdt[LCS / 8] = descriptor(CODE_PAGE, 0xffff, 0xfb, 0);
    TRY("code-16-bit-addressing", USER,
        ".byte 0xea; .long 7; .word 0x53; .code16; mov bx, 0x1000; lea ax, [bx+si+0xf000]; .code32", .rsi = 5);
    put_target_at(0x7004);
    TRY("operand-16-jmp-truncates-eip", USER, ".byte 0x66, 0xe9, 0x00, 0x70");
    put_target_at(0x7010);
    TRY("far-jmp-16-bit-operand", USER, ".byte 0x66, 0xea; .word 0x7010, 0x2b");
    TRY("far-call-and-ret", USER, ".byte 0x9a; .long 0x1000009; .word 0x2b; jmp 1f; retf; 1:");
    TRY("far-jmp-null", USER, ".byte 0xea; .long 0x1000007; .word 0");
    TRY("far-jmp-data", USER, ".byte 0xea; .long 0x1000007; .word 0x23");
    TRY("far-jmp-rpl-0-from-user", USER, ".byte 0xea; .long 0x1000007; .word 0x28");
    TRY("far-jmp-inner", USER, ".byte 0xea; .long 0x1000007; .word 8");
    TRY("far-jmp-outer", KERNEL, ".byte 0xea; .long 0x1000007; .word 0x2b");
    gdt[LCS / 8] = descriptor(0, 0xfffff, 0x7b, FLAG_G | FLAG_D);
    TRY("far-jmp-not-present", USER, ".byte 0xea; .long 0x1000007; .word 0x53");
}

/* ---- Gates and stacks ---- */

static void set_call_gate(u16 selector, u16 code, u32 offset, u8 type, u8 parameters)
{
    gdt[selector / 8] =
        (offset & 0xffff) | (u64)code << 16 | (u64)parameters << 32 | (u64)type << 40 | (u64)(offset >> 16) << 48;
}

enum { TARGET = CODE_PAGE + 0x200 };
#define CALL_GATE ".byte 0x9a; .long 0; .word 0x53;"

static void put_target(void)
{
    put_target_at(TARGET);
}

static void set_inner_stack(unsigned level, u32 esp, u16 ss)
{
    u32 wide = ss;

    __builtin_memcpy(tss + 4 + 8 * level, &esp, 4);
    __builtin_memcpy(tss + 8 + 8 * level, &wide, 4);
}

static void call_gates(void)
{
    put_target();
    set_call_gate(LCS, KCS, TARGET, 0xec, 0);
    set_inner_stack(0, STACK_TOP, KDS);
    OPEN("gate-to-ring-0", USER, CALL_GATE);
    say(" frame:");
    for (unsigned i = 0; i < 4; i++)
        say(" %x", (word)*FRAME32(STACK_TOP - 16 + 4 * i));
    done();
    set_call_gate(LCS, KCS, TARGET, 0xec, 3);
    set_inner_stack(0, STACK_TOP, KDS);
    OPEN("gate-with-parameters", USER, "push 3; push 2; push 1;" CALL_GATE);
    say(" frame:");
    for (unsigned i = 0; i < 7; i++)
        say(" %x", (word)*FRAME32(STACK_TOP - 28 + 4 * i));
    done();
    set_data(USTACK, 0xf, 0xf3, FLAG_D);
    set_call_gate(LCS, KCS, TARGET, 0xec, 3);
    set_inner_stack(0, STACK_TOP, KDS);
    TRY("gate-parameters-beyond-caller-stack", AS_GIVEN, "mov ss, ecx;" CALL_GATE, .cs = UCS | 3, .ss = UDS | 3,
        .rcx = LDS | 3, .rsp = 8);
    set_call_gate(LCS, KCS, TARGET, 0xe4, 0);
    put_target_at(TARGET & 0xffff);
    TRY("gate-16-bit-offset-is-16-bits", USER, CALL_GATE, .hide = 1 << 4);
    set_call_gate(LCS, KCS, TARGET, 0x8c, 0);
    TRY("gate-dpl-0-from-user", USER, CALL_GATE);
    set_call_gate(LCS, KCS, TARGET, 0x6c, 0);
    TRY("gate-not-present", USER, CALL_GATE);
    set_call_gate(LCS, 0, TARGET, 0xec, 0);
    TRY("gate-null-code", USER, CALL_GATE);
    set_call_gate(LCS, KDS, TARGET, 0xec, 0);
    TRY("gate-data-segment", USER, CALL_GATE);
    set_call_gate(LCS, UCS, TARGET, 0xec, 0);
    TRY("gate-same-level", USER, CALL_GATE);
    set_call_gate(LCS, UCS, TARGET, 0x8c, 0);
    TRY("gate-to-outer-level", KERNEL, ".byte 0x9a; .long 0; .word 0x50");
    set_call_gate(LCS, KCS, TARGET, 0xec, 0);
    TRY("gate-jmp-to-inner", USER, ".byte 0xea; .long 0; .word 0x53");
    set_call_gate(LCS, UCS, TARGET, 0xec, 0);
    TRY("gate-jmp-same-level", USER, ".byte 0xea; .long 0; .word 0x53");
    gdt[LDS / 8] = descriptor(0, 0xff, TYPE_CODE, FLAG_D);
    set_call_gate(LCS, LDS, TARGET, 0xec, 0);
    TRY("gate-offset-beyond-limit", USER, CALL_GATE);
    gdt[LDS / 8] = descriptor(0, 0xfffff, 0x1b, FLAG_G | FLAG_D);
    set_call_gate(LCS, LDS, TARGET, 0xec, 0);
    TRY("gate-code-not-present", USER, CALL_GATE);
    gdt[LDS / 8] = descriptor(0, 0xfffff, 0x20 | TYPE_CODE, FLAG_G | FLAG_D);
    set_call_gate(LCS, LDS, TARGET, 0xec, 0);
    set_inner_stack(1, STACK_TOP, (TSS_SELECTOR + 8) | 1);
    OPEN("gate-to-ring-1", USER, CALL_GATE);
    say(" frame:");
    for (unsigned i = 0; i < 4; i++)
        say(" %x", (word)*FRAME32(STACK_TOP - 16 + 4 * i));
    done();
}

static void inner_stacks(void)
{
    static const struct {
        const char *name;
        u16 ss;
        u64 descriptor;
    } rows[] = {
        { "null", 0, 0 },
        { "rpl", KDS | 1, 0 },
        { "dpl", UDS, 0 },
        { "code", KCS, 0 },
        { "beyond", 0x1000, 0 },
        { "ldt", 4, 0 },
        { "read-only", LDS, 0x00cf91000000ffff },
        { "not-present", LDS, 0x00cf13000000ffff },
        { "too-small", LDS, 0x004093000000000f },
    };

    for (unsigned i = 0; i < ARRAY_SIZE(rows); i++) {
        put_target();
        set_call_gate(LCS, KCS, TARGET, 0xec, 0);
        gdt[LDS / 8] = rows[i].descriptor;
        set_inner_stack(0, STACK_TOP, rows[i].ss);
        set_gate(0x45, TARGET, LCS + 8, 0x60 | TYPE_INTERRUPT_GATE, 0);
        gdt[LCS / 8 + 1] = descriptor(0, 0xfffff, 0x20 | TYPE_CODE, FLAG_G | FLAG_D);
        set_inner_stack(1, STACK_TOP, rows[i].ss ? rows[i].ss | 1 : 0);
        /* level 1's stack is bad; exceptions go to level 0, whose stack is good */
        set_inner_stack(0, STACK_TOP, KDS);
        if (rows[i].descriptor)
            gdt[LDS / 8] |= 1ull << 45;
        TRY(name_of("inner-stack-%s-by-interrupt", rows[i].name), USER, "int 0x45");
        put_target();
        gdt[LDS / 8] = rows[i].descriptor | (rows[i].descriptor ? 1ull << 45 : 0);
        gdt[LCS / 8 + 1] = descriptor(0, 0xfffff, 0x20 | TYPE_CODE, FLAG_G | FLAG_D);
        set_call_gate(LCS, LCS + 8, TARGET, 0xec, 0);
        set_inner_stack(1, STACK_TOP, rows[i].ss ? rows[i].ss | 1 : 0);
        TRY(name_of("inner-stack-%s-by-call", rows[i].name), USER, CALL_GATE);
    }
    /* the place of SS1:ESP1 is beyond the TSS limit */
    put_target();
    gdt[TSS_SELECTOR / 8] = descriptor((u32)tss, 11, 0x89, 0);
    __asm__ volatile("ltr %w0" : : "r"(TSS_SELECTOR));
    gdt[LCS / 8] = descriptor(0, 0xfffff, 0x20 | TYPE_CODE, FLAG_G | FLAG_D);
    set_gate(0x45, TARGET, LCS, 0x60 | TYPE_INTERRUPT_GATE, 0);
    TRY("inner-stack-beyond-tss", USER, "int 0x45");
}

static void interrupts(void)
{
    struct regs out;

    out = OPEN("int-from-user-frame", USER, "int 0x40", .rflags = 2 | CF | DF);
    say(" %x %x", ((const u32 *)out.frame)[1], ((const u32 *)out.frame)[4]);
    done();
    TRY("int-dpl-0-from-user", USER, "int 0x45");
    set_gate_type(0x45, KCS, 0x60 | 0x0e, 0);
    TRY("int-not-present", USER, "int 0x45");
    load_idt(0x45 * 8 - 1);
    TRY("int-beyond-idt", USER, "int 0x45");
    set_gate_type(0x45, KCS, 0x60 | 0x8c, 0);
    TRY("int-call-gate-type", USER, "int 0x45");
    set_gate_type(0x45, 0, 0x60 | TYPE_INTERRUPT_GATE, 0);
    TRY("int-null-code", USER, "int 0x45");
    set_gate_type(0x45, UDS, 0x60 | TYPE_INTERRUPT_GATE, 0);
    TRY("int-data-code", USER, "int 0x45");
    set_gate_type(0x45, UCS, TYPE_INTERRUPT_GATE, 0);
    TRY("int-outer-code", KERNEL, "int 0x45");
    gdt[LCS / 8] = descriptor(0, 0xfffff, 0x9f, FLAG_G | FLAG_D);
    put_target();
    set_gate(0x45, TARGET, LCS, 0x60 | TYPE_INTERRUPT_GATE, 0);
    TRY("int-conforming-keeps-cpl", USER, "int 0x45");
    set_gate_type(UD, KCS, 0x0e, 0);
    TRY("fault-ud-then-np", USER, "ud2");
    set_gate_type(GP, KCS, 0x0e, 0);
    TRY("fault-gp-then-np", USER, "hlt");
    set_gate_type(DE, 0, TYPE_INTERRUPT_GATE, 0);
    TRY("fault-de-then-gp", USER, "div ecx", .rcx = 0);
    TRY("into-not-taken", USER, "into");
    TRY("into-taken", USER, "mov al, 0x7f; inc al; into");
    set_gate_type(OV, KCS, TYPE_INTERRUPT_GATE, 0);
    TRY("into-gate-dpl-0", USER, "mov al, 0x7f; inc al; into");
    TRY("bound-inside", USER, "push 5; push 2; bound ecx, [esp]", .rcx = 3);
    TRY("bound-below", USER, "push 5; push 2; bound ecx, [esp]", .rcx = 1);
    TRY("bound-above-signed", USER, "push 5; push -2; bound ecx, [esp]", .rcx = 6);
    TRY("bound-negative", USER, "push 5; push -2; bound ecx, [esp]", .rcx = (word)-2);
    TRY("bound-limit-fault", USER, "mov ds, edx; bound ecx, [ebx]", .rdx = 0);
    TRY("aam-0", USER, "aam 0");
    TRY("aad", USER, "aad", .rax = 0x0205);
    TRY("arpl-raises", USER, "arpl ax, cx", .rax = 0x10, .rcx = 3, .show = ZF);
    TRY("arpl-keeps", USER, "arpl ax, cx", .rax = 0x13, .rcx = 1, .show = ZF);
    TRY("salc", USER, "stc; .byte 0xd6", .rax = 0);
    TRY("pusha-popa-skips-esp", USER, "pusha; mov dword ptr [esp+12], 0; popa");
    TRY("pushf-popf-16", USER, "pushfw; popfw");
}

static void returns(void)
{
    TRY("iret-to-ring-3", KERNEL, "push eax; push ebx; push ecx; push edx; push esi; iretd; nop", .rax = UDS | 3,
        .rbx = USTACK_TOP, .rcx = 2, .rdx = UCS | 3, .rsi = CODE_PAGE + 6);
    TRY("iret-same-level-pops-three", KERNEL, "push ecx; push edx; push esi; iretd; nop", .rcx = 2, .rdx = KCS,
        .rsi = CODE_PAGE + 4);
    TRY("iret-beyond-limit", KERNEL, "push ecx; push edx; push esi; iretd", .rcx = 2, .rdx = LCS, .rsi = 0x100);
    gdt[LCS / 8] = descriptor(0, 0xff, TYPE_CODE, FLAG_D);
    TRY("iret-offset-beyond-limit", KERNEL, "push ecx; push edx; push esi; iretd", .rcx = 2, .rdx = LCS, .rsi = 0x100);
    TRY("iret-null", KERNEL, "push ecx; push edx; push esi; iretd", .rcx = 2, .rdx = 0, .rsi = 0);
    TRY("iret-inner", USER, "push ecx; push edx; push esi; iretd", .rcx = 2, .rdx = KCS, .rsi = CODE_PAGE);
    TRY("iret-ss-null", KERNEL, "push eax; push ebx; push ecx; push edx; push esi; iretd", .rax = 3, .rbx = USTACK_TOP,
        .rcx = 2, .rdx = UCS | 3, .rsi = CODE_PAGE + 6);
    TRY("iret-ss-wrong-rpl", KERNEL, "push eax; push ebx; push ecx; push edx; push esi; iretd", .rax = UDS,
        .rbx = USTACK_TOP, .rcx = 2, .rdx = UCS | 3, .rsi = CODE_PAGE + 6);
    put_target_at(0x7020);
    TRY("iret-16-bit-operand", KERNEL, "pushw cx; pushw dx; pushw si; iretw", .rcx = 2, .rdx = KCS, .rsi = 0x7020);
    set_data(USTACK, 0xffff, 0xf3, 0);
    TRY("iret-to-16-bit-stack-keeps-upper-esp", KERNEL, "push eax; push ebx; push ecx; push edx; push esi; iretd; nop",
        .rax = LDS | 3, .rbx = 0x1100, .rcx = 2, .rdx = UCS | 3, .rsi = CODE_PAGE + 6);
    TRY("retf-to-ring-3-releases-parameters", KERNEL,
        "push eax; push ebx; push ecx; push ecx; push edx; push esi; retf 8; nop", .rax = UDS | 3,
        .rbx = USTACK_TOP - 64, .rdx = UCS | 3, .rsi = CODE_PAGE + 9);
    TRY("retf-nulls-inner-segments", KERNEL, "mov ds, ebp; push eax; push ebx; push edx; push esi; retf; mov eax, ds",
        .rax = UDS | 3, .rbx = USTACK_TOP, .rdx = UCS | 3, .rsi = CODE_PAGE + 7, .rbp = KDS);
    TRY("retf-inner", USER, "push edx; push esi; retf", .rdx = KCS, .rsi = 0);
    TRY("popf-user", USER, "push eax; popfd", .rax = 2 | IF | IOPL3 | ID | AC);
    TRY("popf-kernel", KERNEL, "push eax; popfd; pushfd; pop eax", .rax = 2 | IOPL3 | ID);
    TRY("cli-iopl-1-at-ring-3", USER, "cli", .rflags = 2 | 1 << 12);
    TRY("in-user", USER, "in al, 0x80");
}

static void queries(void)
{
    for (unsigned type = 0; type < 16; type++) {
        gdt[LDS / 8] = descriptor(0, 0x1234, (u8)(0x80 | type), 0);
        TRY(name_of("lar-system-%x", (word)type), KERNEL, "lar eax, ecx", .rcx = LDS, .show = ZF);
        gdt[LDS / 8] = descriptor(0, 0x1234, (u8)(0x80 | type), 0);
        TRY(name_of("lsl-system-%x", (word)type), KERNEL, "lsl eax, ecx", .rcx = LDS, .show = ZF);
    }
    set_data(0, 0x1234, 0x9b, FLAG_G);
    TRY("lsl-granular", KERNEL, "lsl eax, ecx", .rcx = LDS, .show = ZF);
    set_data(0, 0xfffff, 0x93, FLAG_G);
    TRY("lsl-16-bit-operand", KERNEL, "lsl ax, cx", .rcx = LDS, .rax = 0x12340000, .show = ZF);
    set_data(0, 0, 0x9f, 0);
    TRY("verw-code", KERNEL, "verw cx", .rcx = LDS, .show = ZF);
    set_data(0, 0, 0x98, 0);
    TRY("verr-execute-only", KERNEL, "verr cx", .rcx = LDS, .show = ZF);
    TRY("verr-memory-limit", USER, "mov ds, ecx; verr word ptr [ebx]", .rcx = 0, .rbx = DATA);
    TRY("sldt-str-user", USER, "sldt ax; str cx", .rax = ~0ul);
    TRY("sgdt-24-bit-base", KERNEL, ".byte 0x66; sgdt [ebx]; mov eax, [ebx+2]; shr eax, 24", .rbx = DATA);
    TRY("lgdt-24-bit-base", KERNEL,
        "sgdt [ebx]; mov eax, [ebx+2]; or dword ptr [ebx+2], 0xff000000; .byte 0x66; lgdt [ebx]; sgdt [ebx]; xor eax, "
        "[ebx+2]",
        .rbx = DATA);
}

static void mode_switches(void)
{
    TRY("cr0-pg-without-pe", KERNEL, "mov eax, cr0; and eax, 0x7ffffffe; or eax, 0x80000000; mov cr0, eax", .hide = 1);
    TRY("cr0-nw-without-cd", KERNEL, "mov eax, cr0; or eax, 0x20000000; mov cr0, eax", .hide = 1);
    wrmsr(MSR_EFER, 0x100);
    TRY("cr0-pg-with-lme-without-pae", KERNEL, "mov eax, cr0; or eax, 0x80000000; mov cr0, eax", .hide = 1);
    wrmsr(MSR_EFER, 0x100);
    gdt[LCS / 8] = descriptor(0, 0xfffff, TYPE_CODE, FLAG_G | FLAG_L);
    TRY("cr4-pcide-outside-long-mode", KERNEL, "mov eax, cr4; bts eax, 17; mov cr4, eax", .hide = 1);
    if (!is_amd())
        TRY("syscall-in-32-bit-mode-intel", USER, "syscall");
    TRY("swapgs-in-32-bit-mode", KERNEL, ".byte 0x0f, 0x01, 0xf8");
    TRY("rex-is-inc", USER, ".byte 0x40, 0x48");
    TRY("mov-cr8-needs-rex", KERNEL, ".byte 0x44, 0x0f, 0x20, 0xc0", .hide = 1);
    wrmsr(MSR_SYSENTER_CS, KCS);
    wrmsr(MSR_SYSENTER_ESP, STACK_TOP - 0x40);
    wrmsr(MSR_SYSENTER_EIP, TARGET);
    put_target();
    TRY("sysenter", USER, "sysenter", .rflags = 2 | CF, .show = CF);
    TRY("sysexit", KERNEL, "sysexit", .rcx = USTACK_TOP, .rdx = CODE_PAGE + 2);
    TRY("sysexit-user", USER, "sysexit", .rcx = USTACK_TOP, .rdx = CODE_PAGE + 2);
    wrmsr(MSR_SYSENTER_CS, 0);
    TRY("sysenter-null", USER, "sysenter");
}

void cases(void)
{
    limits();
    types();
    local_table();
    code_segments();
    call_gates();
    inner_stacks();
    interrupts();
    returns();
    queries();
    mode_switches();
}
