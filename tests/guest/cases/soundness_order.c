/* What may not be moved, joined or remembered (docs/design.md, "Soundness", lines 4, 5 and 11): accesses on both sides
 * of an instruction that changes rights or translations, accesses that are never reached, the same code at two
 * privilege levels and in two modes, large pages. SDM Vol. 3A 4.6 to 4.10. */
#include "soundness.h"

static int has_smap(void)
{
    return has_leaf7_b(7) && has_leaf7_b(20);
}

/* Frame A counts up from 0xa00, frame B from 0xb00, eight bytes each. */
static void number_frames(void)
{
    for (unsigned i = 0; i < PAGE / 8; i++) {
        FRAME64(FRAME_A)[i] = 0xa00 + i;
        FRAME64(FRAME_B)[i] = 0xb00 + i;
    }
}

static void remap(u64 flags_a)
{
    map(PAGE_A, FRAME_A, flags_a);
    map(PAGE_B, 0, 0);
    invalidate(PAGE_A);
    invalidate(PAGE_B);
    number_frames();
}

/* ---- Line 4: what stands between two accesses off one base ---- */

static void barriers(void)
{
    const word entry = (word)pte(PAGE_A), to_b = FRAME_B | P | W, dead = 1 << 7; /* RDI holds an address of the image */
    word cr0 = read_cr0(), cr3 = read_cr3(), cr4 = read_cr4();

    HOT("soundness-04-invlpg-between-loads", KERNEL, remap(P | W),
        "mov rax, [rbx]; mov [rdi], rdx; invlpg [rbx]; mov rcx, [rbx+8]", .rbx = PAGE_A, .rdi = entry, .rdx = to_b,
        .hide = dead);
    OPEN_HOT("soundness-04-invlpg-between-stores", KERNEL, remap(P | W),
             "mov [rbx], rax; mov [rdi], rdx; invlpg [rbx]; mov [rbx+8], rcx", .rbx = PAGE_A, .rdi = entry, .rdx = to_b,
             .hide = dead);
    say(" a=%x,%x b=%x,%x", (word)FRAME64(FRAME_A)[0], (word)FRAME64(FRAME_A)[1], (word)FRAME64(FRAME_B)[0],
        (word)FRAME64(FRAME_B)[1]);
    done();
    HOT("soundness-04-invlpg-then-absent", KERNEL, remap(P | W),
        "mov rax, [rbx]; mov qword ptr [rdi], 0; invlpg [rbx]; mov rcx, [rbx+8]", .rbx = PAGE_A, .rdi = entry,
        .hide = dead);
    HOT("soundness-04-invlpg-then-read-only", KERNEL, remap(P | W),
        "mov [rbx], rax; and byte ptr [rdi], 0xfd; invlpg [rbx]; mov rcx, [rbx+8]; mov [rbx+16], rcx", .rbx = PAGE_A,
        .rdi = entry, .hide = dead);
    HOT("soundness-04-invlpg-between-pushes", KERNEL, (remap(P | W), FRAME64(FRAME_B)[9] = 0),
        "mov r8, rsp; mov rsp, rbx; push rax; mov [rdi], rdx; invlpg [rbx]; push rcx; pop rsi; pop rbp; mov rsp, r8",
        .rbx = PAGE_A + 0x50, .rdi = entry, .rdx = to_b, .hide = dead | 1 << 8);
    HOT("soundness-04-cr3-between-loads", KERNEL, remap(P | W),
        "mov rax, [rbx]; mov [rdi], rdx; mov cr3, r8; mov rcx, [rbx+8]", .rbx = PAGE_A, .rdi = entry, .rdx = to_b,
        .r8 = cr3, .hide = dead | 1 << 8);
    HOT("soundness-04-pge-between-loads", KERNEL, remap(P | W | G),
        "mov rax, [rbx]; mov [rdi], rdx; mov cr4, r8; mov rcx, [rbx+8]; mov cr4, r9", .rbx = PAGE_A, .rdi = entry,
        .rdx = to_b, .r8 = cr4 & ~(word)CR4_PGE, .r9 = cr4, .hide = dead | 3 << 8);
    HOT("soundness-04-wp-between-stores", KERNEL, (remap(P), write_cr0(cr0)),
        "mov cr0, r9; mov [rbx], eax; mov cr0, r8; mov edx, [rbx]; mov [rbx+8], ecx", .rbx = PAGE_A, .r8 = cr0,
        .r9 = cr0 & ~(word)CR0_WP, .hide = 3 << 8);
    if (has_smap()) {
        word smap = cr4 | CR4_SMAP;

        HOT("soundness-04-clac-between-loads", KERNEL, (remap(P | W | U), write_cr4(smap)),
            "stac; mov eax, [rbx]; mov ecx, [rbx+8]; clac; mov edx, [rbx+16]", .rbx = PAGE_A);
        HOT("soundness-04-clac-between-stores", KERNEL, (remap(P | W | U), write_cr4(smap)),
            "stac; mov [rbx], eax; clac; mov [rbx+8], ecx", .rbx = PAGE_A);
        HOT("soundness-04-popf-between-loads", KERNEL, (remap(P | W | U), write_cr4(smap)),
            "push r8; popfq; mov eax, [rbx]; push r9; popfq; mov ecx, [rbx+8]", .rbx = PAGE_A, .r8 = 2 | AC, .r9 = 2);
        HOT("soundness-04-smap-between-loads", KERNEL, (remap(P | W | U), write_cr4(cr4)),
            "mov eax, [rbx]; mov cr4, r8; mov ecx, [rbx+8]", .rbx = PAGE_A, .r8 = smap, .hide = 1 << 8);
    } else {
        absent("soundness-04-clac-between-loads", "SMAP");
        absent("soundness-04-clac-between-stores", "SMAP");
        absent("soundness-04-popf-between-loads", "SMAP");
        absent("soundness-04-smap-between-loads", "SMAP");
    }
    if (has_leaf7_c(3)) {
        HOT("soundness-04-wrpkru-between-accesses", USER, (remap(P | W | U | 3ull << 59), write_cr4(cr4 | CR4_PKE)),
            "xor eax, eax; wrpkru; mov r8, [rbx]; mov [rbx+8], r8; mov eax, 0x80; wrpkru; mov r9, [rbx+16]; mov "
            "[rbx+24], r9",
            .rbx = PAGE_A, .rcx = 0, .rdx = 0);
        write_cr4(read_cr4() | CR4_PKE);
        __asm__ volatile("wrpkru" : : "a"(0), "c"(0), "d"(0));
        write_cr4(cr4);
    } else {
        absent("soundness-04-wrpkru-between-accesses", "PKU");
    }
}

/* A handler in the middle of a group changes what the rest of it meets. */
static void take_page_away(struct regs *regs)
{
    (void)regs;
    map(PAGE_A, FRAME_B, P | U);
    invalidate(PAGE_A);
}

static void set_handler(void)
{
    remap(P | W | U);
    handlers[BP] = take_page_away;
}

static u32 swap32(u32 v)
{
    return __builtin_bswap32(v);
}

/* fw_cfg: the item "signature" goes to the second quadword of frame A. */
static struct {
    u32 control, length;
    u64 address;
} dma_command __attribute__((aligned(16)));

static void set_dma(void)
{
    remap(P | W);
    dma_command.control = swap32(8 | 2);
    dma_command.length = swap32(4);
    dma_command.address = __builtin_bswap64(FRAME_A + 8);
    outl(0x514, 0);
}

static void devices_between(void)
{
    HOT("soundness-04-handler-between-accesses", USER, set_handler(),
        "mov rax, [rbx]; mov [rbx], rcx; int3; mov rdx, [rbx+8]; mov [rbx+16], rcx", .rbx = PAGE_A);
    HOT("soundness-04-dma-between-loads", KERNEL, set_dma(),
        "mov rcx, [rbx+8]; out dx, eax; 1: cmp dword ptr [rdi], 0; jne 1b; mov rbp, [rbx+8]", .rbx = PAGE_A,
        .rdi = (word)&dma_command, .rax = swap32((u32)(word)&dma_command), .rdx = 0x518, .hide = 1 << 7 | 1);
    /* an index register and a data register: the order of the accesses shows */
    HOT("soundness-04-device-registers", KERNEL, map(PAGE_A, 0xfec00000, P | W),
        "mov dword ptr [rbx], 0x10; mov [rbx+0x10], eax; mov dword ptr [rbx], 0x12; mov [rbx+0x10], ecx;"
        "mov dword ptr [rbx], 0x10; mov edx, [rbx+0x10]; mov dword ptr [rbx], 0x12; mov esi, [rbx+0x10]",
        .rbx = PAGE_A, .rax = 0x10055, .rcx = 0x10066);
    HOT("soundness-04-memory-then-device", KERNEL,
        (map(PAGE_A, FRAME_A, P | W), map(PAGE_B, 0xfec00000, P | W), invalidate(PAGE_B)),
        "mov [rbx-8], rax; mov dword ptr [rbx], 0x10; mov ecx, [rbx+0x10]; mov rdx, [rbx-8]; mov dword ptr [rbx], 0x12;"
        "mov esi, [rbx+0x10]; mov [rbx-8], rsi; add ecx, [rbx-8]",
        .rbx = PAGE_B);
}

/* The base changes in the middle, in ways that are easily missed. */
static void changing_bases(void)
{
    const word b = PAGE_A + 0x100;

    HOT("soundness-04-base-loaded", KERNEL, (remap(P | W), FRAME64(FRAME_A)[32] = b + 0x40),
        "mov rbx, [rbx]; mov eax, [rbx]; mov ecx, [rbx+8]", .rbx = b);
    HOT("soundness-04-base-low-byte", KERNEL, remap(P | W),
        "mov eax, [rbx]; mov bl, 0xf0; mov ecx, [rbx]; mov bh, 2;"
        "mov edx, [rbx]",
        .rbx = b);
    HOT("soundness-04-base-16-bits", KERNEL, remap(P | W), "mov eax, [rbx]; mov bx, 0x408; mov ecx, [rbx]", .rbx = b);
    HOT("soundness-04-base-upper-half-cleared", KERNEL, remap(P | W), "mov ebx, ebx; mov eax, [rbx]; mov ecx, [rbx+8]",
        .rbx = b | 0xfffff00000000000);
    HOT("soundness-04-base-conditional", KERNEL, remap(P | W),
        "mov eax, [rbx]; cmp eax, 0xa20; cmovz rbx, r8; mov ecx, [rbx]; cmovnz rbx, r9; mov edx, [rbx]", .rbx = b,
        .r8 = b + 0x80, .r9 = HOLE);
    HOT("soundness-04-base-exchanged", KERNEL, remap(P | W),
        "mov eax, [rbx]; xchg rbx, r8; mov ecx, [rbx]; xadd rbx, r8; mov edx, [r8]", .rbx = b, .r8 = b + 0x80);
    HOT("soundness-04-base-by-string", KERNEL, remap(P | W),
        "mov eax, [rsi]; lodsq; mov ecx, [rsi]; scasq;"
        "mov edx, [rdi+8]; movsq; mov r8, [rsi]",
        .rsi = b, .rdi = b + 0x200);
    HOT("soundness-04-base-by-cpuid", KERNEL, remap(P | W),
        "mov r8, rbx; mov rdi, [rbx]; xor eax, eax; cpuid; and ebx, 8; add rbx, r8; mov r9, [rbx]; sub r9, [r8]; shl "
        "r9, 3; add r9, r8; cmp r9, rbx; setz al; movzx eax, al",
        .rbx = b, .rcx = 0, .hide = 2 | 4 | 8 | 1 << 9);
    HOT("soundness-04-base-by-implicit-stack", KERNEL, remap(P | W),
        "mov r8, rsp; mov rsp, rbx; mov rax, [rsp]; pop rcx; mov rdx, [rsp]; push 7; mov rsi, [rsp]; mov rsp, r8",
        .rbx = b, .hide = 1 << 8);
}

/* ---- Line 4: what is not reached is not touched ---- */

static void pair(void)
{
    map(PAGE_A, FRAME_A, P | W | U);
    map(PAGE_B, FRAME_B, P | W | U);
    invalidate(PAGE_A);
    invalidate(PAGE_B);
    number_frames();
}

#define NOT_REACHED(name, text, ...)                                                                                   \
    do {                                                                                                               \
        OPEN_HOT("soundness-04-not-reached-" name, USER, pair(), text, .rbx = PAGE_B, ##__VA_ARGS__);                  \
        say(" first=%x second=%x memory=%x,%x", (word)(*pte(PAGE_A) & (A | D)), (word)(*pte(PAGE_B) & (A | D)),        \
            (word)FRAME64(FRAME_A)[511], (word)FRAME64(FRAME_B)[0]);                                                   \
        done();                                                                                                        \
    } while (0)

static void not_reached(void)
{
    NOT_REACHED("store-behind-ud2", "mov [rbx-8], rax; ud2; mov [rbx], rcx");
    NOT_REACHED("load-behind-ud2", "mov [rbx-8], rax; ud2; mov rcx, [rbx]");
    NOT_REACHED("store-behind-division", "mov rax, [rbx-8]; div ebp; mov [rbx-8], rcx", .rbp = 0);
    NOT_REACHED("store-behind-branch", "mov rax, [rbx-8]; test rax, rax; jnz 1f; mov [rbx-8], rcx; 1:");
    NOT_REACHED("store-behind-fault", "mov rax, [rbx-8]; mov rcx, [rdi]; mov [rbx-8], rcx", .rdi = HOLE);
    NOT_REACHED("store-behind-interrupt", "mov [rbx-8], rax; int3; mov [rbx], rcx");
    NOT_REACHED("store-behind-privilege", "mov rax, [rbx-8]; hlt; mov [rbx-8], rcx");
    NOT_REACHED("loads-only", "mov rax, [rbx-8]; mov rcx, [rbx-16]; mov rdx, [rbx-24]");
    NOT_REACHED("store-not-executed-by-rep", "mov rax, [rbx-8]; xor ecx, ecx; lea rdi, [rbx-8]; rep stosb");
    NOT_REACHED("store-behind-crossing-load", "mov rax, [rbx-4]; ud2; mov [rbx-4], rcx");
}

/* Prologues and epilogues: flags and stack pointer are exact when the stack ends in the middle. */
static void stack_pair(void)
{
    pair();
    map(PAGE_A, 0, 0);
    invalidate(PAGE_A);
}

static void stack_upper_absent(void)
{
    pair();
    map(PAGE_B, 0, 0);
    invalidate(PAGE_B);
}

static void stacks(void)
{
    const word flags = CF | ZF | SF | OF | PF | AF;

    HOT("soundness-04-pushes-into-absent", USER, stack_pair(), "push rax; push rcx; push rdx", .rsp = PAGE_B + 16);
    HOT("soundness-04-prologue-into-absent", USER, stack_pair(),
        "push rbp; mov rbp, rsp; sub rsp, 0x20; mov [rbp-8], rax;"
        "mov [rbp-16], rcx",
        .rsp = PAGE_B + 16, .show = flags);
    HOT("soundness-04-call-into-absent", USER, stack_pair(), "push rax; call 1f; 1: nop", .rsp = PAGE_B + 8);
    HOT("soundness-04-pops-into-absent", USER, stack_upper_absent(), "pop rax; pop rcx; pop rdx", .rsp = PAGE_B - 16);
    HOT("soundness-04-epilogue-into-absent", USER, stack_upper_absent(),
        "add rsp, 0x20; pop rbx; pop rbp; pop r12; ret", .rsp = PAGE_B - 0x28, .show = flags);
    HOT("soundness-04-epilogue-add-crosses", USER, stack_upper_absent(), "add rsp, 0x28; pop rbx; pop rbp; ret",
        .rsp = PAGE_B - 0x28, .show = flags);
    HOT("soundness-04-leave-ret-into-absent", USER, stack_upper_absent(), "leave; ret", .rbp = PAGE_B - 8);
    HOT("soundness-04-push-memory-faulting-source", USER, stack_pair(), "push rax; push [rbx]; push rcx", .rbx = HOLE,
        .rsp = PAGE_B + 16);
    HOT("soundness-04-pop-memory-faulting-destination", USER, stack_upper_absent(), "pop [rbx]; pop rax", .rbx = HOLE,
        .rsp = PAGE_B - 8);
}

/* ---- Line 5: the same code, seen from two privilege levels and in several modes ---- */

static void say_short(const struct regs *out)
{
    say(" %s", event_name(out->vector));
    if (out->vector == PG)
        say("(%x)", out->error);
}

/* Kernel and user in turns, four times, with nothing flushed in between. */
static void in_turns(const char *name, const char *kind, u64 flags, word cr0, word cr4, word kernel_flags)
{
    begin(name_of("soundness-05-%s-%s", name, kind));
    write_cr0(cr0);
    write_cr4(cr4);
    map(PAGE_A, FRAME_A, flags);
    for (unsigned i = 0; i < 8; i++) {
        struct regs out = AGAIN(i & 1 ? USER : KERNEL, .rbx = PAGE_A, .rflags = i & 1 ? 2 : kernel_flags);

        say_short(&out);
    }
    done();
}

static void privilege(void)
{
    word cr0 = read_cr0(), cr4 = read_cr4();

    for (unsigned write = 0; write < 2; write++) {
        const char *kind = write ? "store" : "load";

        if (write)
            PLACE("mov [rbx], rax; add [rbx+8], rax");
        else
            PLACE("mov rcx, [rbx]; add rcx, [rbx+8]");
        in_turns("supervisor-page", kind, P | W, cr0, cr4, 2);
        in_turns("user-page", kind, P | W | U, cr0, cr4, 2);
        in_turns("user-read-only-without-wp", kind, P | U, cr0 & ~(word)CR0_WP, cr4, 2);
        if (has_smap()) {
            in_turns("user-page-smap", kind, P | W | U, cr0, cr4 | CR4_SMAP, 2);
            in_turns("user-page-smap-ac", kind, P | W | U, cr0, cr4 | CR4_SMAP, 2 | AC);
        } else {
            absent(name_of("soundness-05-user-page-smap-%s", kind), "SMAP");
            absent(name_of("soundness-05-user-page-smap-ac-%s", kind), "SMAP");
        }
    }
    if (has_smap()) { /* the third kind of access: a supervisor's with AC set */
        PLACE("mov rcx, [rbx]; add rcx, [rbx+8]; mov [rbx], rax");
        write_cr4(cr4 | CR4_SMAP);
        map(PAGE_A, FRAME_A, P | W | U);
        begin("soundness-05-user-page-smap-ac-in-turns");
        for (unsigned i = 0; i < 8; i++) {
            struct regs out = AGAIN(KERNEL, .rbx = PAGE_A, .rflags = i & 1 ? 2 : 2 | AC);

            say_short(&out);
        }
        done();
    } else {
        absent("soundness-05-user-page-smap-ac-in-turns", "SMAP");
    }
    /* the very same linear address: user code that the kernel runs, too */
    PLACE("mov rcx, [rbx]");
    map(PAGE_A, FRAME_A, P | W);
    begin("soundness-05-same-linear-address");
    for (unsigned i = 0; i < 8; i++) {
        struct regs out = i & 1 ? AGAIN(USER, .rbx = PAGE_A, .rip = UCODE_PAGE)
                                : AGAIN(AS_GIVEN, .cs = KCS, .ss = KDS, .rbx = PAGE_A, .rip = UCODE_PAGE);

        say_short(&out);
    }
    done();
    PLACE("mov rcx, [rbx]");
    begin("soundness-05-privileged-instruction");
    put_code(CODE_FRAME, CODE("mov rax, cr2; mov ecx, 1"));
    for (unsigned i = 0; i < 6; i++) {
        struct regs out = AGAIN(i & 1 ? USER : KERNEL);

        say_short(&out);
    }
    done();
}

/* The same bytes in 64-bit, compatibility and 16-bit code. */
static void modes(void)
{
    /* 48 05 ...: REX.W add rax, imm32; or dec eax; add eax, imm32. 66 b8 ...: 16 or 32 bits of immediate */
    PLACE(".byte 0x90, 0x48, 0x05, 1, 0, 0, 0; .byte 0x66, 0xb9, 0x90, 0x90; .byte 0x90, 0x90; .byte 0x41, 0x90");
    gdt[SCRATCH / 8] = descriptor(UCODE_PAGE, 0xffff, 0x60 | TYPE_CODE, 0);
    begin("soundness-05-same-bytes-in-three-modes");
    for (unsigned i = 0; i < 9; i++) {
        struct regs out = i % 3 == 0 ? AGAIN(USER, .rax = 0x100000000)
                          : i % 3 == 1
                              ? AGAIN(USER32, .rax = 0x100)
                              : AGAIN(AS_GIVEN, .cs = SCRATCH | 3, .ss = UDS | 3, .rsp = 0x100, .rax = 0x100, .rip = 1);

        say(" %s:%x,%x", event_name(out.vector), out.rax, out.rcx);
    }
    done();
    /* flat and based data segments under the same code */
    put_code(CODE_FRAME, CODE32("mov eax, [ebx]; mov ecx, [ebx+8]"));
    remap(P | W | U);
    gdt[SCRATCH / 8] = descriptor(PAGE_A, 0xfffff, 0x60 | TYPE_DATA, FLAG_G | FLAG_D);
    begin("soundness-05-flat-and-based-segments");
    for (unsigned i = 0; i < 6; i++) {
        struct regs out = i & 1 ? AGAIN(USER32, .rbx = 0x80, .ds = SCRATCH | 3) : AGAIN(USER32, .rbx = PAGE_A + 0x100);

        say(" %s:%x,%x", event_name(out.vector), out.rax, out.rcx);
    }
    done();
    /* FS bases under the same code */
    PLACE("mov rax, fs:[rbx]; mov rcx, fs:[rbx+8]");
    remap(P | W | U);
    begin("soundness-05-segment-bases");
    for (unsigned i = 0; i < 6; i++) {
        struct regs out;

        wrmsr(MSR_FS_BASE, i & 1 ? PAGE_A : PAGE_A + 0x100 - BIT(40));
        out = AGAIN(USER, .rbx = i & 1 ? 0x80 : BIT(40));
        say(" %s:%x,%x", event_name(out.vector), out.rax, out.rcx);
    }
    done();
}

/* ---- Line 11: large pages, and tables that changed while they were elsewhere ---- */

/* Page i of the first frame answers 0x1000 + i, of the second 0x2000 + i: to loads at offset 8, and to calls. */
#define LARGE_A FREE_FRAME
#define LARGE_B (FREE_FRAME + 0x200000)

static void fill_large(void)
{
    for (word i = 0; i < 1024; i++) {
        word pa = LARGE_A + i * PAGE, value = i < 512 ? 0x1000 + i : 0x2000 + (i - 512);

        FRAME64(pa)[1] = FRAME64(pa)[2] = value;
        FRAME8(pa)[0] = 0xb8; /* mov eax, value; ret */
        FRAME8(pa)[1] = (u8)value;
        FRAME8(pa)[2] = (u8)(value >> 8);
        FRAME8(pa)[3] = FRAME8(pa)[4] = 0;
        FRAME8(pa)[5] = 0xc3;
    }
}

/* Every 4 KiB piece through one site each: loads, stores, calls. What the loads found in sum, and the calls. */
static void touch_pieces(enum mode mode, word large, word rflags, int calls)
{
    struct regs out = AGAIN(mode, .rbx = large, .rcx = 512, .rax = 0, .rdx = 0, .rsi = (word)calls, .rflags = rflags);

    if (out.vector == VECTOR_DONE)
        say(" %x/%x", out.r8, out.rdx);
    else
        say_event(&out);
}

#define PLACE_TOUCH()                                                                                                  \
    PLACE("xor r8d, r8d; 1: add r8, [rbx+8]; mov rax, [rbx+16]; mov [rbx+16], rax; test esi, esi; jz 2f; call rbx;"    \
          "add rdx, rax; 2: add rbx, 0x1000; dec ecx; jnz 1b")

/* With SMAP the kernel's accesses, AC set, are those of a third kind. Between the touches nothing but what is asked for
 * flushes anything. */
static void large_page(const char *name, int smap, u64 flags, word invalidated)
{
    const word large = WINDOW + WINDOW_SIZE;

    if (smap && !has_smap()) {
        absent(name, "SMAP");
        return;
    }
    begin(name);
    fill_large();
    PLACE_TOUCH();
    if (smap)
        write_cr4(read_cr4() | CR4_SMAP);
    for (unsigned round = 0; round < 3; round++) {
        *pde(large) = (round & 1 ? LARGE_B : LARGE_A) | P | W | U | PS | flags;
        if (invalidated)
            invalidate(large + invalidated * (round + 1) % 0x200000);
        else if (flags & G)
            flush_tlb();
        else
            write_cr3(read_cr3());
        touch_pieces(USER, large, 2, 1);
        touch_pieces(KERNEL, large, smap ? 2 | AC : 2, 1);
    }
    done();
}

/* What each piece does after the large page has become a table with exceptions. */
static void large_page_split(void)
{
    static u64 table[512] __attribute__((aligned(PAGE)));
    const word large = WINDOW + WINDOW_SIZE;

    begin("soundness-11-large-page-split");
    fill_large();
    PLACE_TOUCH();
    *pde(large) = LARGE_A | P | W | U | PS;
    invalidate(large);
    touch_pieces(USER, large, 2, 1);
    touch_pieces(KERNEL, large, 2, 0);
    for (word i = 0; i < 512; i++)
        table[i] = (LARGE_A + i * PAGE) | P | U | (i == 78 ? 0 : W) | (i == 300 ? NX : 0);
    table[77] = 0;
    table[79] &= ~(u64)U;
    table[511] = (LARGE_B + 5 * PAGE) | P | W | U;
    *pde(large) = (word)table | P | W | U;
    invalidate(large + 5 * PAGE);
    PLACE("mov rax, [rbx+8]; mov [rbx+16], rax; call rbx");
    for (word i = 0; i < 512; i++) {
        struct regs out = AGAIN(USER, .rbx = large + i * PAGE);

        if (out.vector != VECTOR_DONE || out.rax != 0x1000 + i) {
            say(" %d:", i);
            say_short(&out);
            if (out.vector == VECTOR_DONE)
                say("=%x", out.rax);
        }
    }
    done();
}

static void large_pages(void)
{
    static const struct {
        const char *name;
        u64 flags;
        word invalidated; /* offset for INVLPG; 0: by CR3 or CR4.PGE */
    } ways[] = {
        { "invlpg", 0, 0x123456 },
        { "invlpg-last-byte", 0, 0x1fffff },
        { "invlpg-global", G, 0x7f001 },
        { "cr3", 0, 0 },
        { "pge", G, 0 },
    };

    for (unsigned i = 0; i < 2 * ARRAY_SIZE(ways); i++)
        large_page(name_of("soundness-11-large-page-%s%s", ways[i / 2].name, i & 1 ? "-smap" : ""), (int)i & 1,
                   ways[i / 2].flags, ways[i / 2].invalidated);
    large_page_split();
}

/* Four address spaces that share everything but one table each. Tables are edited while another space is in use, with
 * no INVLPG: the CR3 load has to do. With PCIDs too, as long as bit 63 of CR3 is clear (SDM Vol. 3A 4.10.4.1). */
static void edited_while_inactive(const char *name, int pcid)
{
    static u64 roots[4][512] __attribute__((aligned(PAGE)));
    static u64 lower[4][3][512] __attribute__((aligned(PAGE)));
    const word va = BIT(39) + 0x5000;
    word old = read_cr3(), contents[4] = { 0 };
    struct tally tally = { 0 };
    u64 seed = 7;

    if (pcid && !has_leaf1_c(17)) {
        absent(name, "PCID");
        return;
    }
    begin(name);
    fill_large();
    PLACE("mov rcx, [rbx+8]; call rbx");
    if (pcid)
        write_cr4(read_cr4() | CR4_PCIDE);
    for (unsigned s = 0; s < 4; s++) {
        for (unsigned i = 0; i < 512; i++)
            roots[s][i] = *pml4e((u64)i << 39);
        roots[s][1] = (u64)(word)lower[s][0] | P | W | U;
        lower[s][0][0] = (u64)(word)lower[s][1] | P | W | U;
        lower[s][1][0] = (u64)(word)lower[s][2] | P | W | U;
        lower[s][2][5] = LARGE_A | P | W | U;
    }
    for (unsigned round = 0; round < 300; round++) {
        u64 r = random64(&seed);
        unsigned to = r % 4, edited = (r >> 8) % 4;
        struct regs out;

        if (edited != to || (r >> 16) % 2) { /* never the one in use: each round begins in the first space */
            contents[edited] = (r >> 24) % 512;
            lower[edited][2][5] = (LARGE_A + contents[edited] * PAGE) | P | W | U;
        }
        write_cr3((word)roots[to] | (pcid ? to + 1 : 0));
        out = AGAIN((r >> 40) % 2 ? USER : KERNEL, .rbx = va, .rax = 0);
        if (wrong(&tally, out.vector == VECTOR_DONE && out.rcx == 0x1000 + contents[to] && out.rax == out.rcx)) {
            say(" [round %d:", (word)round);
            say_event(&out);
            say(" %x]", out.rcx);
        }
        write_cr3(old);
    }
    end_tally(&tally);
}

/* INVLPG drops all entries of the paging-structure caches: another page of a replaced table, not used so far, is the
 * new table's (SDM Vol. 3A 4.10.4.1). */
static void structure_caches(void)
{
    static u64 other[512] __attribute__((aligned(PAGE)));

    begin("soundness-11-invlpg-drops-structure-caches");
    number_frames();
    PLACE("mov rcx, [rbx]");
    map(PAGE_A, FRAME_A, P | W | U);
    map(PAGE_B, FRAME_A, P | W | U);
    say(" %x", AGAIN(USER, .rbx = PAGE_A + 8).rcx);
    for (unsigned i = 0; i < 512; i++)
        other[i] = *pte(WINDOW + i * PAGE);
    other[PAGE_B >> 12 & 511] = FRAME_B | P | W | U;
    *pde(WINDOW) = (u64)(word)other | P | W | U;
    invalidate(PAGE_A);
    say(" %x", AGAIN(USER, .rbx = PAGE_B + 8).rcx);
    done();
}

void cases(void)
{
    barriers();
    devices_between();
    changing_bases();
    not_reached();
    stacks();
    privilege();
    modes();
    large_pages();
    edited_while_inactive("soundness-11-tables-edited-while-inactive", 0);
    edited_while_inactive("soundness-11-tables-edited-while-inactive-pcid", 1);
    structure_caches();
}
