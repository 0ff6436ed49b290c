/* Code across page ends, code at many addresses, code that changes (docs/design.md, "Soundness", lines 8 and 9, and
 * what must hold beside them): the same frame followed by different frames, a thousand views of one page, page tables
 * that change under running code, more code than any cache holds. SDM Vol. 3A 4.10, 8.1.3, 11.6. */
#include "soundness.h"

#define OTHER   (FREE + 4 * PAGE) /* a second view of the first frame, with another frame behind it */
#define FRAME_1 (FREE_FRAME + PAGE)
#define FRAME_2 (FREE_FRAME + 2 * PAGE)
#define FRAME_3 (FREE_FRAME + 3 * PAGE)
#define CALLEE  (FREE + 8 * PAGE)

/* ---- Line 8: what lies across a page end depends on both frames ---- */

/* Bytes that begin `before` bytes ahead of the border; the answer, in EAX, comes from the second frame. */
struct border {
    const char *name;
    unsigned before;
    const char *bytes;
    unsigned length;
    unsigned answer_at; /* offset in the second frame of the byte that tells the frames apart */
};

#define BORDER(name, before, bytes, answer)                                                                            \
    {                                                                                                                  \
        name, before, bytes, sizeof(bytes) - 1, answer                                                                 \
    }
static const struct border borders[] = {
    BORDER("fall-through", 3,
           "\x31\xc0\x90"
           "\xb8\1\0\0\0\xcd\x40",
           1),
    BORDER("instruction-1", 1, "\xb8\1\0\0\0\xcd\x40", 0),
    BORDER("instruction-2", 2, "\xb8\0\1\0\0\xcd\x40", 0),
    BORDER("instruction-3", 3, "\xb8\0\0\1\0\xcd\x40", 0),
    BORDER("instruction-4", 4, "\xb8\0\0\0\1\xcd\x40", 0),
    BORDER("two-instructions", 4, "\x31\xc0\xb0\1\x04\1\xcd\x40", 1),
    BORDER("prefixes-only", 3, "\x2e\x2e\x48\xc7\xc0\1\0\0\0\xcd\x40", 2),
    BORDER("fifteen-bytes", 14, "\x2e\x2e\x2e\x2e\x2e\x48\xb8\0\0\0\0\0\0\0\1\xcd\x40", 0),
    BORDER("jump", 5,
           "\xe9\x10\0\0\0"
           "0123456789abcdef"
           "\xb8\1\0\0\0\xcd\x40",
           17),
    BORDER("jump-straddles", 2,
           "\xe9\x10\0\0\0"
           "0123456789abcdef"
           "\xb8\1\0\0\0\xcd\x40",
           20),
    BORDER("short-jump", 2,
           "\xeb\x10"
           "0123456789abcdef"
           "\xb8\1\0\0\0\xcd\x40",
           17),
    BORDER("branch-taken", 8,
           "\x31\xc0\x0f\x84\x10\0\0\0"
           "0123456789abcdef"
           "\xb8\1\0\0\0\xcd\x40",
           17),
    BORDER("branch-not-taken", 4,
           "\x31\xc0\x75\x10"
           "\xb8\1\0\0\0\xcd\x40",
           1),
    BORDER("call", 5,
           "\xe8\x10\0\0\0"
           "\xcd\x40"
           "23456789abcdef"
           "\xb8\1\0\0\0\xc3",
           17),
    BORDER("return", 2,
           "\xff\xd6"
           "\xb8\1\0\0\0\xcd\x40",
           1),
    BORDER("loop-back", 6,
           "\x31\xc0\x90\x90\xeb\x07"
           "\xff\xc1\xeb\xf8"
           "456"
           "\x04\1\x3c\x05\x72\xf3\xcd\x40",
           8),
    BORDER("trap", 1,
           "\xcc"
           "\xb8\1\0\0\0\xcd\x40",
           1),
};

static void put_border(const struct border *b)
{
    for (unsigned frame = 1; frame <= 3; frame++)
        for (unsigned i = 0; i < 64; i++)
            FRAME8(FREE_FRAME + frame * PAGE)[i] = 0x90;
    for (unsigned i = 0; i < b->length; i++)
        for (unsigned frame = 1; frame <= 3; frame++)
            FRAME8(i < b->before ? FRAME_A + PAGE - b->before : FREE_FRAME + frame * PAGE - b->before)
    [i] = (u8)b->bytes[i];
    FRAME8(FRAME_2)[b->answer_at] = 2;
    FRAME8(FRAME_3)[b->answer_at] = 3;
    *FRAME8(FRAME_3 + PAGE) = 0xc3;
}

static void map_borders(void)
{
    map(PAGE_A, FRAME_A, P | W | U);
    map(PAGE_B, FRAME_1, P | W | U);
    map(OTHER, FRAME_A, P | W | U);
    map(OTHER + PAGE, FRAME_2, P | W | U);
    map(CALLEE, FRAME_3 + PAGE, P | W | U);
    flush_tlb();
}

/* The answer's lowest non-zero byte, or the event. */
static void say_border(enum mode mode, const struct border *b, u64 page)
{
    struct regs out = AGAIN(mode, .rip = page + PAGE - b->before, .rsi = CALLEE, .rcx = 0);
    word answer = out.rax;

    while (answer && !(answer & 0xff))
        answer >>= 8;
    if (out.vector == VECTOR_DONE)
        say(" %x", answer);
    else if (out.vector == PG)
        say(" #PF(%x)@%x:%x", out.error, out.cr2 - page, out.rip - page);
    else
        say_event(&out);
}

static void ignore(struct regs *regs)
{
    (void)regs;
}

static void border_case(const struct border *b, enum mode mode)
{
    begin(name_of("soundness-08-%s-%s", b->name, mode == USER ? "user" : "kernel"));
    handlers[BP] = ignore;
    put_border(b);
    map_borders();
    for (unsigned i = 0; i < 4; i++) /* one frame, two frames behind it, in turns */
        say_border(mode, b, i & 1 ? OTHER : PAGE_A);
    say(" remapped");
    map(PAGE_B, FRAME_3, P | W | U);
    invalidate(PAGE_B);
    say_border(mode, b, PAGE_A);
    say_border(mode, b, OTHER);
    say(" patched");
    FRAME8(FRAME_3)[b->answer_at] = 7;
    say_border(mode, b, PAGE_A);
    say_border(mode, b, OTHER);
    FRAME8(FRAME_2)[b->answer_at] = 6;
    say_border(mode, b, OTHER);
    say(" absent");
    map(PAGE_B, 0, 0);
    invalidate(PAGE_B);
    say_border(mode, b, PAGE_A);
    say_border(mode, b, OTHER);
    say(" nx");
    map(PAGE_B, FRAME_3, P | W | U | NX);
    say_border(mode, b, PAGE_A);
    if (mode == USER) {
        say(" supervisor");
        map(PAGE_B, FRAME_3, P | W);
        invalidate(PAGE_B);
        say_border(mode, b, PAGE_A);
    }
    say(" back");
    map(PAGE_B, FRAME_1, P | W | U);
    invalidate(PAGE_B);
    say_border(mode, b, PAGE_A);
    say(" first-patched"); /* to HLT, which a user may not */
    FRAME8(FRAME_A)[PAGE - b->before] = 0xf4;
    {
        struct regs out = AGAIN(USER, .rip = PAGE_A + PAGE - b->before, .rsi = CALLEE);

        say(" %s", event_name(out.vector));
    }
    done();
}

static void all_borders(void)
{
    for (unsigned i = 0; i < ARRAY_SIZE(borders); i++) {
        border_case(&borders[i], KERNEL);
        border_case(&borders[i], USER);
    }
}

/* ---- Line 9: bytes behind a block decide whether its flags matter ---- */

/* Code that makes flags, touches memory, and goes on at 1:, where something overwrites the flags; then that place is
 * patched to something that reads them. */
static void flag_readers(const char *name, const char *what, struct code code, enum mode mode, word patch)
{
    word site = 0;

    begin(name_of("soundness-09-%s-%s", name, what));
    put_code(CODE_FRAME, code);
    while (FRAME8(CODE_FRAME)[site] != 0x31 || FRAME8(CODE_FRAME)[site + 1] != 0xc0) /* xor eax, eax */
        site++;
    for (unsigned i = 0; i < 6; i++) {
        struct regs out;

        if (i == 2 || i == 4) {
            word now = i == 2 ? patch : 0xc031; /* and back */

            FRAME8(CODE_FRAME)[site] = (u8)now;
            FRAME8(CODE_FRAME)[site + 1] = (u8)(now >> 8);
        }
        out =
            AGAIN(mode, .rbx = mode == USER ? UDATA + i * PAGE % 0x3000 : DATA + i * PAGE % 0x3000, .rax = 0, .rcx = 0);
        say(" %s:%x/%x", event_name(out.vector), out.rax & 0xffff, out.rflags & STATUS);
    }
    done();
}

static void liveness(void)
{
    static const struct {
        const char *name;
        word patch;
    } patches[] = {
        { "lahf", 0x909f },  /* lahf; nop */
        { "sbb", 0xc019 },   /* sbb eax, eax */
        { "adc", 0xc811 },   /* adc eax, ecx */
        { "pushf", 0x589c }, /* pushfq; pop rax */
        { "cmc", 0x90f5 },   /* and the flags arrive at the next reader */
    };

    for (unsigned i = 0; i < ARRAY_SIZE(patches); i++) {
        const char *name = patches[i].name;
        word patch = patches[i].patch;

        flag_readers("next-instruction", name,
                     CODE(
                         "stc; mov rdx, [rbx]; mov rsi, [rbx+8]; mov [rbx+16], rsi; xor eax, eax; lea eax, [rax+0x40]"),
                     KERNEL, patch);
        flag_readers("jump-target", name,
                     CODE("stc; mov rdx, [rbx]; mov [rbx+16], rdx; jmp 1f; hlt; 1: xor eax, eax; lea eax, [rax+0x40]"),
                     KERNEL, patch);
        flag_readers("both-ways", name,
                     CODE("cmp rcx, 1; mov rdx, [rbx]; jc 1f; hlt; nop; 1: mov [rbx+16], rdx; xor eax, eax; "
                          "lea eax, [rax+0x40]"),
                     USER, patch);
        flag_readers("call-target", name,
                     CODE("cmp ecx, 1; call 1f; jmp 2f; 1: mov rdx, [rbx]; xor eax, eax; lea eax, [rax+0x40]; ret; 2:"),
                     USER, patch);
        flag_readers("return-target", name,
                     CODE("call 1f; xor eax, eax; lea eax, [rax+0x40]; jmp 2f; 1: stc; mov rdx, [rbx]; ret; 2:"), USER,
                     patch);
        /* flags that could be made again, and a block that ends by its length alone */
        flag_readers("long-block", name,
                     CODE("mov ecx, 3; cmp ecx, 5; mov rdx, [rbx]; .rept 300; nop; .endr; mov [rbx+16], rdx; xor eax, "
                          "eax; lea eax, [rax+0x40]"),
                     USER, patch);
        flag_readers("long-block-of-loads", name,
                     CODE("mov ecx, 3; cmp ecx, 5; .rept 100; mov rdx, [rbx+8]; .endr; xor eax, eax; lea eax, "
                          "[rax+0x40]"),
                     KERNEL, patch);
        flag_readers(
            "indirect-target", name,
            CODE("lea rdi, [rip+1f]; stc; mov [rbx+16], rdi; jmp [rbx+16]; hlt; 1: xor eax, eax; lea eax, [rax+0x40]"),
            KERNEL, patch);
    }
}

/* The same across a page end, where the second page changes by its page table alone. */
static void liveness_across_pages(const char *name, struct code code)
{
    word length = put_code(CODE_FRAME, code), start = PAGE - length;

    begin(name);
    for (word i = 0; i < length; i++)
        FRAME8(FRAME_A)[start + i] = FRAME8(CODE_FRAME)[i];
    put_code(FRAME_1, CODE("xor eax, eax; lea eax, [rax+0x40]"));
    put_code(FRAME_2, CODE("sbb eax, eax; lea eax, [rax+0x40]"));
    map_borders();
    for (unsigned i = 0; i < 8; i++) {
        map(PAGE_B, i & 1 ? FRAME_2 : FRAME_1, P | W | U);
        invalidate(PAGE_B);
        say(" %x", AGAIN(USER, .rip = PAGE_A + start, .rbx = UDATA, .rax = 0).rax);
        say(":%x", AGAIN(USER, .rip = OTHER + start, .rbx = UDATA, .rax = 0).rax);
    }
    done();
}

/* ---- One page at a thousand addresses ---- */

enum { VIEWS = 1000 };

static void thousand_views(void)
{
    struct tally tally = { 0 };

    /* position-dependent all the same: its own address, RIP-relative data, a call that pushes the address */
    put_code(FRAME_A + 0x10,
             CODE("lea rax, [rip]; mov rcx, [rip+1f]; call 2f; 2: pop rdx; inc qword ptr [rip+1f]; jmp 3f; "
                  ".balign 8; 1: .quad 0x100; 3: mov rsi, rsp"));
    begin("soundness-08-one-page-at-1000-addresses");
    for (unsigned i = 0; i < VIEWS; i++)
        map(FREE + i * PAGE, FRAME_A, P | W | U);
    for (unsigned round = 0; round < 4; round++)
        for (unsigned i = 0; i < VIEWS; i++) {
            u64 va = FREE + i * PAGE + 0x10;
            enum mode mode = i & 1 ? USER : KERNEL;
            struct regs out = AGAIN(mode, .rip = va);

            if (wrong(&tally, out.vector == VECTOR_DONE && out.rax == va + 7 && out.rdx == va + 19 &&
                                  out.rcx == 0x100 + round * VIEWS + i)) {
                say(" [view %d: %x %x %x", (word)i, out.rax, out.rcx, out.rdx);
                say_event(&out);
                say("]");
            }
            if (i % 50 == 49) { /* and patched through yet another one: NOP to another NOP */
                volatile u8 *byte = (volatile u8 *)(word)(FREE + (VIEWS - 1 - i) * PAGE + 0x10 + 20);

                *byte = *byte;
            }
        }
    end_tally(&tally);
    begin("soundness-08-patched-through-1000-addresses");
    put_code(FRAME_A, CODE("mov eax, 5"));
    for (unsigned i = 0; i < VIEWS; i++)
        map(FREE + i * PAGE, FRAME_A, P | W | U);
    tally = (struct tally){ 0 };
    for (unsigned i = 0; i < VIEWS; i++) {
        *(volatile u32 *)(word)(FREE + i * PAGE + 1) = i;
        if (wrong(&tally, AGAIN(i & 1 ? USER : KERNEL, .rip = FREE + (VIEWS - 1 - i) * PAGE).rax == i))
            say(" [view %d]", (word)i);
    }
    end_tally(&tally);
    begin("soundness-08-views-call-each-other");
    /* each view calls the next by a relative call, 200 deep, and counts its own offset */
    put_code(FRAME_A, CODE("dec ecx; jz 1f; .byte 0xe8; .long 0x1000-9; inc r8d; 1: cmp rsp, rdi; je 2f; ret; 2:"));
    for (unsigned i = 0; i < VIEWS; i++)
        map(FREE + i * PAGE, FRAME_A, P | W | U);
    for (unsigned i = 0; i < 3; i++) {
        struct regs out = AGAIN(USER, .rip = FREE + i * PAGE, .rcx = 200 + i, .rdi = USTACK_TOP, .r8 = 0);

        say(" %s %d", event_name(out.vector), out.r8);
    }
    done();
}

/* ---- Page tables that change under running code ---- */

static void moving_tables(void)
{
    /* a loop remaps its callee round after round, among four frames */
    for (unsigned frame = 0; frame < 4; frame++)
        put_code(FREE_FRAME + frame * PAGE, CODE("mov eax, 0; ret"));
    for (unsigned frame = 0; frame < 4; frame++)
        FRAME8(FREE_FRAME + frame * PAGE)[1] = (u8)(1 << frame);
#define REMAP_LOOP(flush)                                                                                              \
    "mov ecx, 2000; xor r8d, r8d; 1: mov eax, ecx; and eax, 3; shl eax, 12; add rax, r9; mov [rdi], rax;" flush        \
    "; call rsi; add r8d, eax; dec ecx; jnz 1b"
#define REMAP_CASE(name, flush)                                                                                        \
    HOT(name, KERNEL, map(PAGE_A, 0, 0), REMAP_LOOP(flush), .rsi = PAGE_A, .rdi = (word)pte(PAGE_A),                   \
        .r9 = FREE_FRAME | P | W, .hide = 1 << 7 | 1 << 2)
    REMAP_CASE("soundness-08-callee-remapped-by-invlpg", "invlpg [rsi]");
    for (unsigned frame = 0; frame < 4; frame++) {
        put_code(FREE_FRAME + frame * PAGE, CODE("mov eax, 0; ret"));
        FRAME8(FREE_FRAME + frame * PAGE)[1] = (u8)(1 << frame);
    }
    REMAP_CASE("soundness-08-callee-remapped-by-cr3", "mov rdx, cr3; mov cr3, rdx");
    /* by the directory: two tables, the same addresses */
    {
        static u64 other[512] __attribute__((aligned(PAGE)));

        map(PAGE_A, FRAME_A, P | W);
        for (unsigned i = 0; i < 512; i++)
            other[i] = *pte(WINDOW + i * PAGE);
        other[PAGE_A >> 12 & 511] = FRAME_1 | P | W;
        HOT("soundness-08-callee-remapped-by-directory", KERNEL,
            (map(PAGE_A, FRAME_A, P | W), *pde(WINDOW) = (word)pte(WINDOW) | P | W | U, flush_tlb()),
            "mov ecx, 500; xor r8d, r8d; 1: xchg [rdi], rbp; invlpg [rsi]; call rsi; add r8d, eax; dec ecx; jnz 1b",
            .rsi = PAGE_A, .rdi = (word)pde(WINDOW), .rbp = (word)other | P | W | U, .hide = 1 << 7 | 1 << 5);
    }
    /* without an invalidation the old page may still run: new rights or old, but nothing in between */
    begin("soundness-08-remapped-without-invlpg");
    put_code(FRAME_A, CODE("mov eax, 1; mov ecx, 1"));
    put_code(FRAME_1, CODE("mov eax, 2; mov ecx, 2"));
    {
        word odd = 0;

        for (unsigned i = 0; i < 200; i++) {
            struct regs out;

            map(PAGE_A, i & 1 ? FRAME_1 : FRAME_A, P | W);
            out = AGAIN(KERNEL, .rip = PAGE_A);
            odd += out.vector != VECTOR_DONE || out.rax != out.rcx || out.rax - 1 > 1;
        }
        invalidate(PAGE_A);
        say(" odd=%d then=%x", odd, AGAIN(KERNEL, .rip = PAGE_A).rax);
    }
    done();
}

/* ---- Self-modification ---- */

static void modification(void)
{
    HOT("soundness-09-patch-next-instruction-in-loop", KERNEL, ,
        "mov ecx, 1000; xor r8d, r8d; 1: mov [rip+2f+1], cl; 2: mov al, 0; movzx eax, al; add r8d, eax; dec ecx; jnz "
        "1b");
    HOT("soundness-09-patch-later-in-block", USER, ,
        "mov ecx, 1000; xor r8d, r8d; 1: mov [rip+2f+1], ecx; add r8d, 1; mov rdx, [rbx]; mov [rbx+8], rdx; 2: mov "
        "eax, 0; "
        "add r8d, eax; dec ecx; jnz 1b",
        .rbx = UDATA, .rdx = 0, .hide = 1 << 2);
    HOT("soundness-09-patch-through-alias-in-loop", KERNEL, map(PAGE_A, CODE_FRAME, P | W),
        "mov ecx, 1000; xor r8d, r8d; lea rdx, [rip+2f+1]; and edx, 0xfff; add rdx, rsi; 1: mov [rdx], ecx; jmp 2f; "
        "2: mov eax, 0; add r8d, eax; dec ecx; jnz 1b",
        .rsi = PAGE_A, .hide = 1 << 2);
    HOT("soundness-09-patch-by-push", KERNEL, ,
        "mov ecx, 500; xor r8d, r8d; mov rbp, rsp; 1: mov rdx, [rip+2f]; mov dh, cl; lea rsp, [rip+2f+8]; push rdx; "
        "jmp 2f;"
        ".balign 8; 2: mov al, 0; movzx eax, al; nop; nop; nop; add r8d, eax; dec ecx; jnz 1b; mov rsp, rbp",
        .hide = 1 << 2 | 1 << 5);
    HOT("soundness-09-patch-by-call", KERNEL, ,
        /* the pushed return address is an instruction's immediate */
        "mov rbp, rsp; lea rsp, [rip+2f+10]; call 1f; 1: mov rsp, rbp; jmp 2f; 2: movabs rax, 0x1122334455667788; "
        "lea rcx, [rip+1b]; cmp rax, rcx; setz al; movzx eax, al; mov ecx, 0",
        .hide = 1 << 5);
    HOT("soundness-09-copy-over-running-loop", KERNEL, ,
        "mov edx, 20; xor r8d, r8d; 1: lea rsi, [rip+8f]; test dl, 1; jz 2f; lea rsi, [rip+9f]; 2: lea rdi, [rip+3f]; "
        "mov ecx, 7; rep movsb; 3: .fill 7, 1, 0x90; dec edx; jnz 1b; jmp 7f; 8: add r8d, 0x100; 9: add r8d, 0x1011; "
        "7:",
        .hide = 1 << 6 | 1 << 7);
    HOT("soundness-09-patched-and-read-back", USER, ,
        "mov ecx, 300; xor r8d, r8d; 1: mov byte ptr [rip+2f+1], cl; mov al, [rip+2f+1]; 2: mov dl, 0; movzx eax, al; "
        "add r8d, eax; dec ecx; jnz 1b",
        .rdx = 0, .hide = 1 << 2);
    HOT("soundness-09-data-beside-code", USER, ,
        "mov ecx, 20000; 1: add dword ptr [rip+2f], 3; jmp 3f; 2: .long 0; 3: dec ecx; jnz 1b; xor eax, eax; "
        "xchg eax, [rip+2b]");
    HOT("soundness-09-code-faults-while-patching", USER, ,
        "mov byte ptr [rip+1f+1], 5; mov ecx, 9; mov [rip+1f+1], cl; mov rdx, [rbx]; 1: mov eax, 5", .rbx = HOLE);
}

/* ---- More code than a cache holds ---- */

/* A new routine every time in one buffer: mov eax, N; add eax, [rbx]; ret, in places that wander. */
static void generated(const char *name, unsigned count, enum mode mode, unsigned places)
{
    struct tally tally = { 0 };

    begin(name);
    map_pages(FREE, FREE_FRAME, 64, P | W | U);
    /* the generator runs in the guest's own code: RDI walks over the places, ECX counts */
    put_code(CODE_FRAME,
             CODE("xor r8d, r8d; 1: mov rdi, r10; mov eax, ecx; xor edx, edx; div r11d; imul rdx, rdx, 61; "
                  "add rdi, rdx; mov byte ptr [rdi], 0xb8; mov [rdi+1], ecx; mov dword ptr [rdi+5], 0xc3430348;"
                  "mov byte ptr [rdi+8], 8; mov byte ptr [rdi+9], 0xc3; call rdi; add r8, rax; dec ecx; jnz 1b"));
    for (word i = 0; i < 2; i++) {
        word data = mode == USER ? UDATA : DATA, n = i ? count : 1000, want = n * (n + 1) / 2 + n * i * 1000;
        struct regs out;

        FRAME64(mode == USER ? UDATA_FRAME : DATA_FRAME)[1] = i * 1000;
        out = AGAIN(mode, .rcx = n, .r10 = FREE + 7, .r11 = places, .rbx = data);
        if (wrong(&tally, out.vector == VECTOR_DONE && out.r8 == want)) {
            say(" [%x for %x", out.r8, want);
            say_event(&out);
            say("]");
        }
    }
    end_tally(&tally);
}

/* Different routines, all of which stay valid, called in turns: more of them than fit. */
static void many_routines(void)
{
    enum { ROUTINES = 4000, SIZE = 64 };
    struct tally tally = { 0 };

    begin("soundness-06-more-routines-than-fit");
    map_pages(FREE, FREE_FRAME, 64, P | W | U);
    for (unsigned i = 0; i < ROUTINES; i++) {
        struct emitter e = { FREE_FRAME + i * SIZE, 0 };

        emit8(&e, 0x81); /* add ecx, i */
        emit8(&e, 0xc1);
        emit32(&e, i);
        if (i + 1 < ROUTINES && i % 8 != 7) { /* call the next */
            emit8(&e, 0xe8);
            emit32(&e, SIZE - 11);
        }
        emit8(&e, 0x48); /* lea rax, [rip]; add rdx, rax */
        emit8(&e, 0x8d);
        emit8(&e, 0x05);
        emit32(&e, 0);
        emit8(&e, 0x48);
        emit8(&e, 0x01);
        emit8(&e, 0xc2);
        emit8(&e, 0xc3); /* ret */
    }
    PLACE("call rsi");
    for (unsigned round = 0; round < 12; round++)
        for (unsigned n = 0; n < ROUTINES; n += 8) {
            unsigned first = (n * 13 + round * 3) % ROUTINES, last = first | 7;
            word sum = 0, addresses = 0;
            struct regs out = AGAIN(round & 1 ? USER : KERNEL, .rsi = FREE + first * SIZE, .rcx = 0, .rdx = 0);

            for (unsigned i = first; i <= last; i++) {
                sum += i;
                addresses += FREE + i * SIZE + (i == last ? 13 : 18);
            }
            if (wrong(&tally, out.vector == VECTOR_DONE && out.rcx == sum && out.rdx == addresses)) {
                say(" [routine %d: %x for %x, %x for %x", (word)first, out.rcx, sum, out.rdx, addresses);
                say_event(&out);
                say("]");
            }
        }
    end_tally(&tally);
}

void cases(void)
{
    all_borders();
    liveness();
    liveness_across_pages("soundness-09-next-page-remapped", CODE("stc; mov rdx, [rbx]; mov [rbx+16], rdx"));
    liveness_across_pages("soundness-09-next-page-remapped-compare",
                          CODE("mov ecx, 3; cmp ecx, 5; mov rdx, [rbx]; mov [rbx+16], rdx"));
    thousand_views();
    moving_tables();
    modification();
    generated("soundness-06-generate-20000-routines-in-place", 20000, KERNEL, 1);
    generated("soundness-06-generate-100000-routines", 100000, USER, 1000);
    many_routines();
}
