/* Code that changes: by its own stores, through another mapping, across page ends, by page tables, by DMA. x86 keeps
 * code coherent with stores to its physical address (SDM Vol. 3A 8.1.3, 11.6): a store through the same linear
 * address is seen by the next instruction, one through an alias after a branch or serialising instruction, which all
 * cases here have.
 *
 * The pieces patch an immediate, so that the result says which version ran. */
#include "guest.h"

#define PAGE_A  FREE
#define PAGE_B  (FREE + PAGE)
#define FRAME_A FREE_FRAME
#define FRAME_B (FREE_FRAME + PAGE)

/* ---- By the code's own stores ---- */

static void same_page(void)
{
    TRY("self-next-instruction", KERNEL, "mov byte ptr [rip+1f+1], 7; 1: mov eax, 5");
    TRY("self-far-ahead-in-block", KERNEL, "mov byte ptr [rip+1f+1], 7; nop; nop; nop; add ecx, 0; 1: mov eax, 5");
    TRY("self-previous-instruction-in-loop", KERNEL,
        "mov ecx, 2; 1: mov eax, 5; mov byte ptr [rip+1b+1], 7; dec ecx; jnz 1b");
    TRY("self-own-immediate", KERNEL, "1: mov byte ptr [rip+1b+6], 9; mov al, [rip+1b+6]");
    TRY("self-change-length", KERNEL, "mov byte ptr [rip+1f], 0x90; 1: .byte 0xb8; inc ebx; inc ebx; nop; nop");
    TRY("self-with-rep-stos", KERNEL,
        "lea rdi, [rip+1f]; mov ecx, 3; mov al, 0x90; rep stosb; 1: inc ebx; nop; inc edx", .hide = 1 << 7);
    TRY("self-with-movs", KERNEL,
        "lea rdi, [rip+1f+1]; lea rsi, [rip+2f]; movsb; 1: mov eax, 5; jmp 3f; 2: .byte 7; 3:",
        .hide = 1 << 7 | 1 << 6);
    TRY("self-with-locked-add", KERNEL, "lock add byte ptr [rip+1f+1], 2; 1: mov eax, 5");
    TRY("self-with-xchg", KERNEL, "mov cl, 7; xchg [rip+1f+1], cl; 1: mov eax, 5");
    TRY("self-with-cmpxchg", KERNEL, "mov eax, 5; mov cl, 7; cmpxchg [rip+1f+1], cl; 1: mov edx, 5");
    TRY("self-with-sse-store", KERNEL,
        "movdqu xmm0, [rip+2f]; movdqu [rip+1f], xmm0; 1: .fill 16, 1, 0xf4; jmp 3f; 2: .fill 14, 1, 0x90; inc ebx; "
        "3:");
    TRY("self-with-x87-store", KERNEL, "fninit; fldz; fstp dword ptr [rip+1f+1]; 1: mov eax, 0x12345678");
    TRY("self-with-push", KERNEL,
        "lea rsp, [rip+1f+9]; mov rax, 0x9090909090909090; push rax; 1: nop; hlt; hlt; hlt; hlt; hlt; hlt; hlt; hlt; "
        "nop",
        .hide = 1 | 1 << 4);
    TRY("self-with-bts", KERNEL, "bts dword ptr [rip+1f+1], 1; 1: mov eax, 5");
    TRY("self-with-setcc", KERNEL, "cmp eax, eax; setz [rip+1f+1]; 1: mov eax, 5");
    TRY("self-with-pop-memory", KERNEL,
        "push 0x90; mov rcx, [rip+1f]; mov cl, 0x43; push rcx; pop qword ptr [rip+1f]; pop rax; 1: .byte 0x40, 0xff, "
        "0xc3, 0x90, 0x90, 0x90, 0x90, 0x90",
        .hide = 2);
    TRY("self-many-patches-of-one-block", KERNEL,
        "mov ecx, 300; xor eax, eax; 1: add eax, 1; inc byte ptr [rip+1b+2]; and byte ptr [rip+1b+2], 0x7f; dec ecx; "
        "jnz 1b");
    TRY("self-data-beside-code-does-not-hurt", KERNEL,
        "mov ecx, 1000; 1: inc dword ptr [rip+2f]; dec ecx; jnz 1b; jmp 3f; 2: .long 0; 3: mov eax, [rip+2b]");
    TRY("self-patch-then-call", KERNEL,
        "call 1f; mov byte ptr [rip+1f+1], 7; mov ebx, eax; call 1f; jmp 2f; 1: mov eax, 5; ret; 2:");
    TRY("self-patch-behind-call-site", KERNEL,
        "call 1f; 2: mov ebx, 5; jmp 3f; 1: mov byte ptr [rip+2b+1], 7; ret; 3:");
    TRY("self-patch-callee-return", KERNEL, "call 1f; inc ebx; jmp 2f; 1: mov byte ptr [rip+3f], 0xc3; 3: hlt; 2:");
    TRY("self-faulting-store-does-not-patch", USER, "mov rax, 1; mov [rbx], al; 1: mov eax, 5", .rbx = CODE_PAGE);
}

/* A routine in a page of its own: mov eax, 5; ret. */
static void put_routine(u64 frame, u8 value)
{
    static const u8 routine[] = { 0xb8, 5, 0, 0, 0, 0xc3 };

    for (unsigned i = 0; i < sizeof(routine); i++)
        FRAME8(frame)[i] = routine[i];
    FRAME8(frame)[1] = value;
}

static void other_page(void)
{
    put_routine(FRAME_A, 5);
    map(PAGE_A, FRAME_A, P | W);
    TRY("other-page", KERNEL, "call rsi; mov ebx, eax; mov byte ptr [rsi+1], 7; call rsi", .rsi = PAGE_A);
    put_routine(FRAME_A, 5);
    map(PAGE_A, FRAME_A, P | W);
    map(PAGE_B, FRAME_A, P | W);
    TRY("other-page-through-alias", KERNEL, "call rsi; mov ebx, eax; mov byte ptr [rdi+1], 7; call rsi", .rsi = PAGE_A,
        .rdi = PAGE_B);
    put_routine(FRAME_A, 5);
    map(PAGE_A, FRAME_A, P);
    map(PAGE_B, FRAME_A, P | W);
    TRY("other-page-read-only-code-writable-alias", KERNEL, "call rsi; mov ebx, eax; mov byte ptr [rdi+1], 7; call rsi",
        .rsi = PAGE_A, .rdi = PAGE_B);
    put_routine(FRAME_A, 5);
    map(PAGE_A, FRAME_A, P | W);
    TRY("other-page-through-identity", KERNEL, "call rsi; mov ebx, eax; mov byte ptr [rdi+1], 7; call rsi",
        .rsi = PAGE_A, .rdi = FRAME_A);
    put_routine(FRAME_A, 5);
    map(PAGE_A, FRAME_A, P | W | U);
    map(PAGE_B, FRAME_A, P | W);
    TRY("other-page-user-and-kernel-views", KERNEL,
        "call rsi; mov ebx, eax; mov byte ptr [rdi+1], 7; call rsi; call rdi", .rsi = PAGE_A, .rdi = PAGE_B);
    put_routine(FRAME_A, 5);
    map(PAGE_A, FRAME_A, P | W);
    TRY("other-page-write-before-first-run", KERNEL, "mov byte ptr [rsi+1], 7; call rsi", .rsi = PAGE_A);
    put_routine(FRAME_A, 5);
    map(PAGE_A, FRAME_A, P | W);
    TRY("other-page-many-rounds", KERNEL,
        "xor ebx, ebx; mov ecx, 200; 1: mov [rsi+1], cl; call rsi; add ebx, eax; dec ecx; jnz 1b", .rsi = PAGE_A);
    put_routine(FRAME_A, 5);
    map(PAGE_A, FRAME_A, P | W);
    TRY("other-page-jump-into-middle", KERNEL,
        "mov word ptr [rsi+1], 0x9090; mov word ptr [rsi+3], 0x9090; lea rdi, [rsi+1]; call rdi; call rsi",
        .rsi = PAGE_A, .rdi = 0);
    /* the same frame written while a page table says read-only for the code's address, by a page-crossing store */
    put_routine(FRAME_B, 5);
    map(PAGE_A, FRAME_A, P | W);
    map(PAGE_B, FRAME_B, P | W);
    TRY("other-page-crossing-store", KERNEL, "call rsi; mov ebx, eax; mov dword ptr [rsi-2], 0x07b8b8b8; call rsi",
        .rsi = PAGE_B);
    /* A page table with code in it: `add eax, ebx; ret` is also the entry of a present page, and when a walk sets its
     * accessed bit it becomes `and eax, ebx; ret`. */
    fill(FRAME_A, 0, 8);
    FRAME8(FRAME_A)[0] = 0x03;
    FRAME8(FRAME_A)[1] = FRAME8(FRAME_A)[2] = 0xc3;
    map(PAGE_A, FRAME_A, P | W);
    *pde(WINDOW + WINDOW_SIZE) = FRAME_A | P | W;
    TRY("other-page-patched-by-a-page-walk", KERNEL, "call rsi; mov edx, eax; mov rcx, [rdi]; call rsi", .rsi = PAGE_A,
        .rdi = WINDOW + WINDOW_SIZE, .rcx = 0);
}

/* ---- Page tables ---- */

static void remapping(void)
{
    put_routine(FRAME_A, 5);
    put_routine(FRAME_B, 6);
    map(PAGE_A, FRAME_A, P | W);
    begin("remap-invlpg");
    {
        struct regs out = RUN(KERNEL, "call rsi", .rsi = PAGE_A);

        say(" first=%x", out.rax);
        map(PAGE_A, FRAME_B, P | W);
        out = RUN(KERNEL, "invlpg [rsi]; call rsi", .rsi = PAGE_A);
        say(" second=%x", out.rax);
        map(PAGE_A, FRAME_A, P | W);
        out = RUN(KERNEL, "mov rax, cr3; mov cr3, rax; call rsi", .rsi = PAGE_A);
        say(" third=%x", out.rax);
    }
    done();
    put_routine(FRAME_A, 5);
    put_routine(FRAME_B, 6);
    map(PAGE_A, FRAME_A, P | W);
    TRY("remap-inside-the-running-code", KERNEL, "call rsi; mov ebx, eax; mov [rdi], rdx; invlpg [rsi]; call rsi",
        .rsi = PAGE_A, .rdi = (word)pte(PAGE_A), .rdx = FRAME_B | P | W, .hide = 1 << 7);
    put_routine(FRAME_A, 5);
    map(PAGE_A, FRAME_A, P | W);
    TRY("remap-to-absent", KERNEL, "call rsi; mov ebx, eax; mov qword ptr [rdi], 0; invlpg [rsi]; call rsi",
        .rsi = PAGE_A, .rdi = (word)pte(PAGE_A), .hide = 1 << 7);
    put_routine(FRAME_A, 5);
    map(PAGE_A, FRAME_A, P | W);
    TRY("remap-to-no-execute", KERNEL, "call rsi; mov ebx, eax; bts qword ptr [rdi], 63; invlpg [rsi]; call rsi",
        .rsi = PAGE_A, .rdi = (word)pte(PAGE_A), .hide = 1 << 7);
    /* the code removes its own page: the next fetch must fault */
    map(PAGE_A, FRAME_A, P | W);
    {
        struct code code = CODE("mov qword ptr [rdi], 0; invlpg [rsi]; mov eax, 5");

        for (const u8 *from = code.start; from < code.end; from++)
            FRAME8(FRAME_A)[from - code.start] = *from;
    }
    TRY("remap-own-page-to-absent", KERNEL, "jmp rsi", .rsi = PAGE_A, .rdi = (word)pte(PAGE_A), .hide = 1 << 7);
    map(PAGE_A, FRAME_A, P | W);
    {
        struct code code = CODE("mov [rdi], rdx; invlpg [rsi]; mov eax, 5");

        for (const u8 *from = code.start; from < code.end; from++) {
            FRAME8(FRAME_A)[from - code.start] = *from;
            FRAME8(FRAME_B)[from - code.start] = *from;
        }
        FRAME8(FRAME_B)[7] = 9; /* the immediate of the instruction after INVLPG */
    }
    TRY("remap-own-page-to-other-frame", KERNEL, "jmp rsi", .rsi = PAGE_A, .rdi = (word)pte(PAGE_A),
        .rdx = FRAME_B | P | W, .hide = 1 << 7);
    /* two address spaces, the same address */
    begin("remap-two-page-table-roots");
    {
        static u64 roots[2][512] __attribute__((aligned(PAGE)));
        word old = read_cr3();

        put_routine(FRAME_A, 5);
        put_routine(FRAME_B, 6);
        for (unsigned j = 0; j < 512; j++)
            roots[0][j] = roots[1][j] = *pml4e((u64)j << 39); /* one set of lower tables: only CR3 loads tell */
        for (unsigned i = 0; i < 6; i++) {
            map(PAGE_A, i & 1 ? FRAME_B : FRAME_A, P | W);
            write_cr3((word)roots[i & 1]);
            say(" %x", RUN(KERNEL, "call rsi", .rsi = PAGE_A).rax);
        }
        write_cr3(old);
    }
    done();
}

/* ---- Instructions that lie in two pages ---- */

/* mov eax, 0x04030201; ret: the opcode in the first page, the rest as given in the second */
static void put_straddling(unsigned first_bytes)
{
    static const u8 bytes[] = { 0xb8, 1, 2, 3, 4, 0xc3 };

    for (unsigned i = 0; i < sizeof(bytes); i++) {
        unsigned at = PAGE - first_bytes + i;

        FRAME8(at < PAGE ? FRAME_A : FRAME_B)[at % PAGE] = bytes[i];
    }
    map(PAGE_A, FRAME_A, P | W);
    map(PAGE_B, FRAME_B, P | W);
}

static void straddling(void)
{
    for (unsigned n = 1; n <= 4; n++) {
        put_straddling(n);
        TRY(name_of("straddle-%d", (word)n), KERNEL, "call rsi", .rsi = PAGE_B - n);
        put_straddling(n);
        map(PAGE_B, 0, 0);
        TRY(name_of("straddle-%d-second-absent", (word)n), KERNEL, "call rsi", .rsi = PAGE_B - n);
        put_straddling(n);
        map(PAGE_B, FRAME_B, P | W | NX);
        TRY(name_of("straddle-%d-second-no-execute", (word)n), KERNEL, "call rsi", .rsi = PAGE_B - n);
    }
    put_straddling(1);
    TRY("straddle-patch-second", KERNEL, "call rsi; mov ebx, eax; mov byte ptr [rsi+2], 0x77; call rsi",
        .rsi = PAGE_B - 1);
    put_straddling(1);
    TRY("straddle-patch-first", KERNEL, "call rsi; mov ebx, eax; mov byte ptr [rsi], 0xbf; call rsi",
        .rsi = PAGE_B - 1);
    put_straddling(2);
    map(PAGE_A + 2 * PAGE, FRAME_B, P | W);
    TRY("straddle-patch-second-through-alias", KERNEL, "call rsi; mov ebx, eax; mov byte ptr [rdi], 0x77; call rsi",
        .rsi = PAGE_B - 2, .rdi = PAGE_A + 2 * PAGE);
    put_straddling(1);
    for (unsigned i = 0; i < 8; i++)
        FRAME8(FRAME_B + PAGE)[i] = FRAME8(FRAME_B)[i];
    FRAME8(FRAME_B + PAGE)[0] = 0x99;
    TRY("straddle-remap-second", KERNEL, "call rsi; mov ebx, eax; mov [rdi], rdx; invlpg [rsi+1]; call rsi",
        .rsi = PAGE_B - 1, .rdi = (word)pte(PAGE_B), .rdx = (FRAME_B + PAGE) | P | W, .hide = 1 << 7);
    put_straddling(1);
    TRY("straddle-unmap-second", KERNEL, "call rsi; mov ebx, eax; mov qword ptr [rdi], 0; invlpg [rsi+1]; call rsi",
        .rsi = PAGE_B - 1, .rdi = (word)pte(PAGE_B), .hide = 1 << 7);
    put_straddling(1);
    FRAME8(FRAME_A + 2 * PAGE)[PAGE - 1] = 0xbf; /* mov edi */
    TRY("straddle-remap-first", KERNEL, "call rsi; mov ebx, eax; mov [rdi], rdx; invlpg [rsi]; call rsi",
        .rsi = PAGE_B - 1, .rdi = (word)pte(PAGE_A), .rdx = (FRAME_A + 2 * PAGE) | P | W);
    put_straddling(1);
    TRY("straddle-in-loop-with-patches", KERNEL,
        "xor ebx, ebx; mov ecx, 100; 1: mov [rsi+1], cl; call rsi; movzx eax, al; add ebx, eax; dec ecx; jnz 1b",
        .rsi = PAGE_B - 1);
    /* the same physical pages in the other order somewhere else */
    put_straddling(1);
    FRAME8(FRAME_B)[PAGE - 1] = 0xbb; /* mov ebx, ...: continues in frame A */
    FRAME8(FRAME_A)[0] = 0x55;
    FRAME8(FRAME_A)[1] = FRAME8(FRAME_A)[2] = FRAME8(FRAME_A)[3] = 0;
    FRAME8(FRAME_A)[4] = 0xc3;
    map(PAGE_A + 4 * PAGE, FRAME_B, P | W);
    map(PAGE_A + 5 * PAGE, FRAME_A, P | W);
    TRY("straddle-two-pairs-of-the-same-frames", KERNEL, "call rsi; call rdi; call rsi", .rsi = PAGE_B - 1,
        .rdi = PAGE_A + 5 * PAGE - 1);
}

/* ---- DMA: the fw_cfg device writes guest memory (QEMU docs/specs/fw_cfg) ---- */

static u32 swap32(u32 v)
{
    return __builtin_bswap32(v);
}

static int fw_cfg_dma(u16 key, u64 address, u32 length)
{
    static struct {
        u32 control, length;
        u64 address;
    } command __attribute__((aligned(16)));
    volatile u32 *control = &command.control;

    command.length = swap32(length);
    command.address = __builtin_bswap64(address);
    *control = swap32((u32)key << 16 | 8 | 2); /* select, read */
    outl(0x514, 0);
    outl(0x518, swap32((u32)(word)&command));
    while (*control & swap32(~1u))
        ;
    return *control == 0;
}

static void dma(void)
{
    begin("dma-signature");
    fill(FRAME_A, 0, 8);
    say(" %d", (word)fw_cfg_dma(0, FRAME_A, 4));
    for (unsigned i = 0; i < 4; i++)
        say("%c", FRAME8(FRAME_A)[i]);
    done();
    /* "QEMU" over the immediate of a routine that has run */
    put_routine(FRAME_A, 5);
    map(PAGE_A, FRAME_A, P | W);
    begin("dma-over-code");
    say(" before=%x", RUN(KERNEL, "call rsi", .rsi = PAGE_A).rax);
    fw_cfg_dma(0, FRAME_A + 1, 4);
    say(" after=%x", RUN(KERNEL, "call rsi", .rsi = PAGE_A).rax);
    done();
    put_straddling(1);
    begin("dma-over-straddling-code");
    say(" before=%x", RUN(KERNEL, "call rsi", .rsi = PAGE_B - 1).rax);
    fw_cfg_dma(0, FRAME_B, 4);
    say(" after=%x", RUN(KERNEL, "call rsi", .rsi = PAGE_B - 1).rax);
    done();
    /* a transfer that covers both frames of cached code: the bytes behind the item read as zero */
    put_routine(FRAME_A, 5);
    put_routine(FRAME_B, 6);
    map(PAGE_A, FRAME_A, P | W);
    map(PAGE_B, FRAME_B, P | W);
    begin("dma-over-two-pages");
    say(" before=%x,%x", RUN(KERNEL, "call rsi", .rsi = PAGE_A).rax, RUN(KERNEL, "call rsi", .rsi = PAGE_B).rax);
    fw_cfg_dma(0, FRAME_A + 2, PAGE - 2 + 2);
    FRAME8(FRAME_A)[5] = 0xc3;
    FRAME8(FRAME_B)[0] = 0xb8;
    say(" after=%x,%x", RUN(KERNEL, "call rsi", .rsi = PAGE_A).rax, RUN(KERNEL, "call rsi", .rsi = PAGE_B).rax);
    done();
    begin("dma-to-nowhere");
    say(" %d", (word)fw_cfg_dma(0, NOWHERE, 4));
    done();
    begin("dma-to-device-registers");
    fw_cfg_dma(0, 0xfee00300, 4);
    say(" survived");
    done();
}

void cases(void)
{
    same_page();
    other_page();
    remapping();
    straddling();
    dma();
}
