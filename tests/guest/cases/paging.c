/* 4-level paging: which accesses fault, with which error code and address, what is left untouched when they do, and
 * the accessed and dirty bits. SDM Vol. 3A 4.5 to 4.8, 4.10.4. */
#include "guest.h"

#define PAGE_A  (FREE) /* the page under test, and the one behind it */
#define PAGE_B  (FREE + PAGE)
#define FRAME_A FREE_FRAME
#define FRAME_B (FREE_FRAME + PAGE)

/* ---- The matrix: page rights x privilege x access ---- */

struct access {
    const char *name;
    struct code (*code)(void);
    word sp;
};

#define ACCESS(id, text)                                                                                               \
    static struct code id(void)                                                                                        \
    {                                                                                                                  \
        return CODE(text);                                                                                             \
    }
ACCESS(access_read, "mov al, [rbx]")
ACCESS(access_write, "mov [rbx], al")
ACCESS(access_rmw, "add byte ptr [rbx], 0")
ACCESS(access_locked, "lock add byte ptr [rbx], 0")
ACCESS(access_cmpxchg, "cmpxchg [rbx], cl")
ACCESS(access_push, "push rax")
ACCESS(access_pop, "pop rax")
ACCESS(access_call, "call 1f; 1:")
ACCESS(access_fetch, "jmp rbx")
ACCESS(access_stos, "mov rdi, rbx; stosb")
ACCESS(access_vector, "movups [rbx], xmm0")

static const struct access accesses[] = {
    { "read", access_read, 0 },         { "write", access_write, 0 },         { "rmw", access_rmw, 0 },
    { "locked", access_locked, 0 },     { "cmpxchg", access_cmpxchg, 0 },     { "push", access_push, PAGE_A + 64 },
    { "pop", access_pop, PAGE_A + 64 }, { "call", access_call, PAGE_A + 64 }, { "fetch", access_fetch, 0 },
    { "stos", access_stos, 0 },         { "vector", access_vector, 0 },
};

static const struct rights {
    const char *name;
    u64 flags;
} rights[] = {
    { "absent", 0 }, { "kernel-ro", P }, { "kernel-rw", P | W }, { "user-ro", P | U }, { "user-rw", P | W | U },
};

/* One line: what each access to a page with these rights does. */
static void matrix_line(const char *name, u64 flags, enum mode mode, word rflags, word cr0, word cr4)
{
    begin(name);
    for (unsigned i = 0; i < ARRAY_SIZE(accesses); i++) {
        struct regs in = { DEFAULTS, .mode = mode, .rbx = PAGE_A + 64, .rsp = accesses[i].sp }, out;

        in.rflags = rflags;
        map(PAGE_A, FRAME_A, flags);
        fill(FRAME_A, 0, 128);
        *FRAME8(FRAME_A + 64) = 0xcd; /* INT 0x40, for the fetch */
        *FRAME8(FRAME_A + 65) = 0x40;
        write_cr0(cr0);
        write_cr4(cr4);
        flush_tlb();
        run(accesses[i].code(), &in, &out);
        if (out.vector == PG && out.cr2 - PAGE_A < PAGE)
            say(" %s=%x", accesses[i].name, out.error);
        else if (out.vector == PG)
            say(" %s=%x@%x", accesses[i].name, out.error, out.cr2);
        else
            say(" %s=%s", accesses[i].name, event_name(out.vector));
    }
    done();
}

static void matrix(const char *prefix, enum mode mode, word rflags, word cr0, word cr4, u64 more)
{
    for (unsigned i = 0; i < ARRAY_SIZE(rights); i++)
        matrix_line(name_of("%s-%s", prefix, rights[i].name), rights[i].flags ? rights[i].flags | more : 0, mode,
                    rflags, cr0, cr4);
}

static void matrices(void)
{
    word cr0 = read_cr0(), cr4 = read_cr4();

    matrix("kernel", KERNEL, 2, cr0, cr4, 0);
    matrix("user", USER, 2, cr0, cr4, 0);
    matrix("kernel-no-wp", KERNEL, 2, cr0 & ~(word)CR0_WP, cr4, 0);
    matrix("user-no-wp", USER, 2, cr0 & ~(word)CR0_WP, cr4, 0);
    matrix("kernel-nx", KERNEL, 2, cr0, cr4, NX);
    matrix("user-nx", USER, 2, cr0, cr4, NX);
    if (!has_leaf7_b(7) || !has_leaf7_b(20)) {
        absent("smep-smap", "SMEP, SMAP");
        return;
    }
    matrix("kernel-smep", KERNEL, 2, cr0, cr4 | CR4_SMEP, 0);
    matrix("kernel-smap", KERNEL, 2, cr0, cr4 | CR4_SMAP, 0);
    matrix("kernel-smap-ac", KERNEL, 2 | AC, cr0, cr4 | CR4_SMAP, 0);
    matrix("kernel-smap-no-wp", KERNEL, 2, cr0 & ~(word)CR0_WP, cr4 | CR4_SMAP, 0);
    matrix("user-smep-smap", USER, 2, cr0, cr4 | CR4_SMEP | CR4_SMAP, 0);
}

/* The fetch bit of error codes needs NX or SMEP (4.7). */
static void fetch_bit(void)
{
    wrmsr(MSR_EFER, rdmsr(MSR_EFER) & ~BIT(11));
    map(PAGE_A, FRAME_A, 0);
    TRY("fetch-error-without-nxe", KERNEL, "jmp rbx", .rbx = PAGE_A);
    wrmsr(MSR_EFER, rdmsr(MSR_EFER) & ~BIT(11));
    map(PAGE_A, FRAME_A, P | W | NX);
    TRY("nx-bit-without-nxe-is-reserved", KERNEL, "mov al, [rbx]", .rbx = PAGE_A);
    map(PAGE_A, FRAME_A, P | W | NX);
    TRY("fetch-error-with-nxe", KERNEL, "jmp rbx", .rbx = PAGE_A);
}

/* With 52 physical address bits no address bit is reserved. */
static int no_reserved_bits(void)
{
    return (cpuid(0x80000008, 0).a & 0xff) >= 52;
}

#define TRY_RESERVED(name, ...)                                                                                        \
    do {                                                                                                               \
        if (no_reserved_bits())                                                                                        \
            absent(name, "reserved address bits");                                                                     \
        else                                                                                                           \
            TRY(name, __VA_ARGS__);                                                                                    \
    } while (0)

/* Rights are the intersection over all levels; NX is the union. */
static void levels(void)
{
    static const struct {
        const char *name;
        u64 *(*entry)(u64 va);
    } tables[] = { { "pte", pte }, { "pde", pde }, { "pdpte", pdpte }, { "pml4e", pml4e } };

    for (unsigned i = 0; i < ARRAY_SIZE(tables); i++) {
        /* the high window has tables of its own */
        u64 *entry = tables[i].entry(LOW_END), standard = *entry ? *entry : FRAME_A | P | W | U;

        map(LOW_END, FRAME_A, P | W | U);
        *entry = standard & ~(u64)U;
        TRY(name_of("level-%s-supervisor", tables[i].name), USER, "mov al, [rbx]", .rbx = LOW_END);
        map(LOW_END, FRAME_A, P | W | U);
        *entry = standard & ~(u64)W;
        TRY(name_of("level-%s-read-only", tables[i].name), USER, "mov [rbx], al", .rbx = LOW_END);
        map(LOW_END, FRAME_A, P | W | U);
        *entry = standard | NX;
        TRY(name_of("level-%s-no-execute", tables[i].name), USER, "jmp rbx", .rbx = LOW_END);
        map(LOW_END, FRAME_A, P | W | U);
        *entry = 0;
        TRY(name_of("level-%s-absent", tables[i].name), USER, "mov al, [rbx]", .rbx = LOW_END + 0x123);
        map(LOW_END, FRAME_A, P | W | U);
        *entry = standard | BIT(51);
        TRY_RESERVED(name_of("level-%s-reserved-bit-51", tables[i].name), USER, "mov al, [rbx]", .rbx = LOW_END);
        map(LOW_END, FRAME_A, P | W | U);
        *entry = standard | BIT(51);
        TRY_RESERVED(name_of("level-%s-reserved-bit-write", tables[i].name), KERNEL, "mov [rbx], al", .rbx = LOW_END);
        map(LOW_END, FRAME_A, P | W | U);
        *entry = (standard | BIT(51)) & ~(u64)P;
        TRY(name_of("level-%s-absent-has-no-reserved", tables[i].name), USER, "mov al, [rbx]", .rbx = LOW_END);
        map(LOW_END, FRAME_A, P | W | U);
        *entry = standard | BIT(52) | BIT(58) | 0xe00;
        TRY(name_of("level-%s-ignored-bits", tables[i].name), USER, "mov [rbx], al", .rbx = LOW_END);
    }
    map(LOW_END, FRAME_A, P | W | U);
    *pml4e(LOW_END) |= PS;
    TRY("level-pml4e-ps-is-reserved", USER, "mov al, [rbx]", .rbx = LOW_END);
    /* a reserved bit above an absent entry is reported, below one is not */
    map(LOW_END, 0, 0);
    *pde(LOW_END) |= BIT(51);
    TRY_RESERVED("level-reserved-above-absent", USER, "mov al, [rbx]", .rbx = LOW_END);
    *pdpte(LOW_END) = 0;
    *pde(LOW_END) |= BIT(51);
    TRY("level-absent-above-reserved", USER, "mov al, [rbx]", .rbx = LOW_END);
    /* a supervisor entry above a reserved bit: reserved wins, rights are looked at last */
    map(LOW_END, FRAME_A, P | W | U | BIT(51));
    *pde(LOW_END) &= ~(u64)U;
    TRY_RESERVED("level-reserved-before-rights", USER, "mov al, [rbx]", .rbx = LOW_END);
}

static void large_pages(void)
{
    const u64 large = WINDOW + WINDOW_SIZE; /* the first 2 MiB behind the window: no page table there */
    u64 *entry = pde(large);

    *entry = FREE_FRAME | P | W | U | PS;
    FRAME8(FREE_FRAME)[0x1234] = 0x5a;
    OPEN("large-2m-read", USER, "mov al, [rbx]", .rbx = large + 0x1234);
    say(" pde=%x", (word)(*entry & 0xfff));
    done();
    *entry = FREE_FRAME | P | W | U | PS;
    OPEN("large-2m-write", USER, "mov [rbx], al", .rbx = large + 0x1234, .rax = 0x99);
    say(" pde=%x byte=%x", (word)(*entry & 0xfff), (word)FRAME8(FREE_FRAME)[0x1234]);
    done();
    *entry = FREE_FRAME | P | W | U | PS | BIT(13);
    TRY("large-2m-reserved-bit-13", USER, "mov al, [rbx]", .rbx = large);
    *entry = FREE_FRAME | P | W | U | PS | BIT(20);
    TRY("large-2m-reserved-bit-20", USER, "mov al, [rbx]", .rbx = large);
    *entry = FREE_FRAME | P | W | U | PS | BIT(12);
    TRY("large-2m-pat-bit-12", USER, "mov al, [rbx]", .rbx = large + 0x1234);
    if (cpuid(0x80000001, 0).d >> 26 & 1) {
        *pdpte(BIT(39) - BIT(30)) = 0;
        *pdpte(LOW_END) = 0 | P | W | U | PS;
        FRAME8(FREE_FRAME)[0x55] = 0x77;
        TRY("large-1g-read", USER, "mov al, [rbx]", .rbx = (LOW_END & ~(BIT(30) - 1)) + FREE_FRAME + 0x55);
        *pdpte(LOW_END) = 0 | P | W | U | PS | BIT(29);
        TRY("large-1g-reserved-bit-29", USER, "mov al, [rbx]", .rbx = LOW_END);
        *pdpte(LOW_END) = 0 | P | W | U | PS | BIT(13);
        TRY("large-1g-reserved-bit-13", USER, "mov al, [rbx]", .rbx = LOW_END);
    } else {
        absent("large-1g-read", "1 GiB pages");
        absent("large-1g-reserved-bit-29", "1 GiB pages");
        absent("large-1g-reserved-bit-13", "1 GiB pages");
    }
}

/* ---- Accessed and dirty ---- */

static void say_bits(u64 va)
{
    say(" pml4e=%x pdpte=%x pde=%x pte=%x", (word)(*pml4e(va) & (A | D)), (word)(*pdpte(va) & (A | D)),
        (word)(*pde(va) & (A | D)), (word)(*pte(va) & (A | D)));
}

#define BITS(name, how, text, flags, ...)                                                                              \
    do {                                                                                                               \
        map(LOW_END, FRAME_A, flags);                                                                                  \
        OPEN(name, how, text, ##__VA_ARGS__);                                                                          \
        say_bits(LOW_END);                                                                                             \
        done();                                                                                                        \
    } while (0)

static void accessed_dirty(void)
{
    BITS("ad-read", USER, "mov al, [rbx]", P | W | U, .rbx = LOW_END, .rax = 0);
    BITS("ad-write", USER, "mov [rbx], al", P | W | U, .rbx = LOW_END, .rax = 0);
    BITS("ad-read-then-write", USER, "mov cl, [rbx]; mov [rbx], al", P | W | U, .rbx = LOW_END, .rax = 0, .rcx = 0);
    BITS("ad-rmw", USER, "add byte ptr [rbx], 0", P | W | U, .rbx = LOW_END);
    BITS("ad-cmpxchg-failing", USER, "cmpxchg [rbx], cl; mov al, 0", P | W | U, .rbx = LOW_END, .rax = 1);
    BITS("ad-fetch", USER, "jmp rbx", P | W | U, .rbx = LOW_END);
    BITS("ad-denied-write", USER, "mov [rbx], al", P | U, .rbx = LOW_END);
    BITS("ad-denied-read", USER, "mov al, [rbx]", P | W, .rbx = LOW_END);
    BITS("ad-denied-rmw", USER, "add byte ptr [rbx], 0", P | U, .rbx = LOW_END);
    BITS("ad-denied-fetch", USER, "jmp rbx", P | W | U | NX, .rbx = LOW_END);
    BITS("ad-prefetch-and-nop", USER, "nop dword ptr [rbx]", P | W | U, .rbx = LOW_END);
    BITS("ad-lea", USER, "lea rbx, [rbx+0]", P | W | U, .rbx = LOW_END);
    BITS("ad-rep-with-count-0", USER, "rep stosb", P | W | U, .rdi = LOW_END, .rcx = 0);
    BITS("ad-cmov-not-taken-reads", USER, "test rax, rax; cmovz rax, [rbx]", P | W | U, .rbx = LOW_END, .rax = 1);
    BITS("ad-bit-test-far-away", USER, "bt [rbx], rcx", P | W | U, .rbx = LOW_END - 0x1000, .rcx = 0x8000);
    BITS("ad-enter-probes-final-stack", USER, "enter 0, 0; leave", P | W | U, .rsp = LOW_END + 0x100);
    /* the table pages that a failing walk went through are not marked: the walk grants nothing */
    map(LOW_END, 0, 0);
    OPEN("ad-absent-leaf-marks-nothing", USER, "mov al, [rbx]", .rbx = LOW_END);
    say(" leaf=%x", (word)*pte(LOW_END));
    done();
    /* system structures: descriptor loads set A through supervisor accesses */
    map(DATA, DATA_FRAME, P | W);
    OPEN("ad-set-by-user-stack-switch", USER, "int3");
    say(" %x", (word)(*pte(USTACK_TOP - 8) & (A | D)));
    done();
}

/* ---- Accesses that cross a page end ---- */

static void set_pair(u64 first, u64 second)
{
    map(PAGE_A, FRAME_A, first);
    map(PAGE_B, FRAME_B, second);
    fill(FRAME_A + PAGE - 16, 0xaa, 16);
    fill(FRAME_B, 0xbb, 16);
}

static void say_edges(void)
{
    say(" left=%2x%2x right=%2x%2x", (word)FRAME8(FRAME_A)[PAGE - 2], (word)FRAME8(FRAME_A)[PAGE - 1],
        (word)FRAME8(FRAME_B)[0], (word)FRAME8(FRAME_B)[1]);
}

#define CROSS(name, first, second, text, ...)                                                                          \
    do {                                                                                                               \
        set_pair(first, second);                                                                                       \
        OPEN(name, USER, text, ##__VA_ARGS__);                                                                         \
        say_edges();                                                                                                   \
        done();                                                                                                        \
    } while (0)

static void crossing(void)
{
    const u64 rw = P | W | U, ro = P | U;

    CROSS("cross-read", rw, rw, "mov eax, [rbx]", .rbx = PAGE_B - 2);
    CROSS("cross-write", rw, rw, "mov [rbx], eax", .rbx = PAGE_B - 2, .rax = 0x44332211);
    CROSS("cross-read-second-absent", rw, 0, "mov eax, [rbx]", .rbx = PAGE_B - 2);
    CROSS("cross-read-first-absent", 0, rw, "mov eax, [rbx]", .rbx = PAGE_B - 2);
    CROSS("cross-read-both-absent", 0, 0, "mov eax, [rbx]", .rbx = PAGE_B - 2);
    CROSS("cross-write-second-absent", rw, 0, "mov [rbx], eax", .rbx = PAGE_B - 2, .rax = 0x44332211);
    CROSS("cross-write-second-read-only", rw, ro, "mov [rbx], eax", .rbx = PAGE_B - 2, .rax = 0x44332211);
    CROSS("cross-write-first-read-only", ro, rw, "mov [rbx], eax", .rbx = PAGE_B - 2, .rax = 0x44332211);
    CROSS("cross-rmw-second-read-only", rw, ro, "add dword ptr [rbx], 0x11111111", .rbx = PAGE_B - 2);
    CROSS("cross-locked-second-read-only", rw, ro, "lock add dword ptr [rbx], 0x11111111", .rbx = PAGE_B - 2);
    CROSS("cross-locked", rw, rw, "lock add dword ptr [rbx], 0x11111111", .rbx = PAGE_B - 2);
    CROSS("cross-xchg-second-absent", rw, 0, "xchg [rbx], eax", .rbx = PAGE_B - 2);
    CROSS("cross-cmpxchg8b-second-read-only", rw, ro, "cmpxchg8b [rbx]", .rbx = PAGE_B - 4);
    CROSS("cross-push-lower-read-only", ro, rw, "push rax", .rsp = PAGE_B + 4);
    CROSS("cross-push-upper-absent", rw, 0, "push rax", .rsp = PAGE_B + 4);
    CROSS("cross-pop-upper-absent", rw, 0, "pop rax", .rsp = PAGE_B - 4);
    CROSS("cross-call-lower-read-only", ro, rw, "call 1f; 1:", .rsp = PAGE_B + 4);
    CROSS("cross-ret-upper-absent", rw, 0, "ret", .rsp = PAGE_B - 4);
    CROSS("cross-sse-write-second-absent", rw, 0, "movups [rbx], xmm0", .rbx = PAGE_B - 2);
    CROSS("cross-sse-read-second-absent", rw, 0, "movups xmm0, [rbx]", .rbx = PAGE_B - 2);
    CROSS("cross-x87-store-second-read-only", rw, ro, "fninit; fldpi; fstp tbyte ptr [rbx]", .rbx = PAGE_B - 2);
    CROSS("cross-movbe-or-bswap", rw, ro, "bswap eax; mov [rbx], eax", .rbx = PAGE_B - 2);
    CROSS("cross-setcc-absent", rw, 0, "setc [rbx]", .rbx = PAGE_B);
    CROSS("cross-sgdt-second-read-only", rw, ro, "sgdt [rbx]", .rbx = PAGE_B - 2);
    CROSS("cross-enter-second-absent", 0, rw, "enter 32, 0", .rsp = PAGE_B + 4);
    CROSS("cross-pushf-lower-read-only", ro, rw, "pushfq", .rsp = PAGE_B + 4);
    CROSS("cross-bts-memory-read-only", rw, ro, "bts [rbx], rax", .rbx = PAGE_B - 8, .rax = 64);
}

/* ---- Instructions with several accesses: nothing is done twice, nothing half ---- */

static void several_accesses(void)
{
    const u64 rw = P | W | U, ro = P | U;

    CROSS("multi-push-memory-stack-absent", rw, 0, "push qword ptr [rbx]", .rbx = PAGE_A, .rsp = PAGE_B + 64);
    CROSS("multi-push-memory-source-absent", 0, rw, "push qword ptr [rbx]", .rbx = PAGE_A, .rsp = PAGE_B + 64);
    CROSS("multi-pop-memory-target-read-only", rw, ro, "pop qword ptr [rbx]", .rbx = PAGE_B, .rsp = PAGE_A + 64);
    CROSS("multi-pop-memory-uses-new-sp", rw, 0, "pop qword ptr [rsp]", .rsp = PAGE_B - 8);
    CROSS("multi-call-memory-stack-absent", rw, 0, "call [rbx]", .rbx = PAGE_A, .rsp = PAGE_B + 64);
    CROSS("multi-call-memory-operand-absent", rw, 0, "call [rbx]", .rbx = PAGE_B, .rsp = PAGE_A + 64);
    CROSS("multi-leave-frame-absent", rw, 0, "leave", .rbp = PAGE_B);
    CROSS("multi-xadd-read-only", rw, ro, "xadd [rbx], rax", .rbx = PAGE_B);
    CROSS("multi-xlat-absent", rw, 0, "xlatb", .rbx = PAGE_B, .rax = 5);
    CROSS("multi-pop-segment-absent", rw, 0, "pop fs", .rsp = PAGE_B);
    CROSS("multi-iretq-partly-absent", rw, 0, "iretq", .rsp = PAGE_B - 16);
    CROSS("multi-retf-partly-absent", rw, 0, ".byte 0x48, 0xcb", .rsp = PAGE_B - 8);
    CROSS("multi-lfs-absent", rw, 0, "lfs eax, [rbx]", .rbx = PAGE_B - 4);
    CROSS("multi-cmps-second-absent", rw, 0, "cmpsb", .rsi = PAGE_A, .rdi = PAGE_B);
    CROSS("multi-cmps-first-absent", rw, 0, "cmpsb", .rsi = PAGE_B, .rdi = PAGE_A);
    CROSS("multi-movs-target-read-only", rw, ro, "movsb", .rsi = PAGE_A, .rdi = PAGE_B);
}

static void strings(void)
{
    const u64 rw = P | W | U, ro = P | U;

    CROSS("string-stos-into-read-only", rw, ro, "rep stosb", .rdi = PAGE_B - 5, .rcx = 9, .rax = 0xee);
    CROSS("string-stosq-crossing-element", rw, 0, "rep stosq", .rdi = PAGE_B - 20, .rcx = 9, .rax = 0xee);
    CROSS("string-stos-backwards-into-absent", 0, rw, "rep stosw", .rdi = PAGE_B + 4, .rcx = 9, .rax = 0xeeee,
          .rflags = 2 | DF);
    CROSS("string-movs-source-ends", rw, 0, "rep movsd", .rsi = PAGE_B - 12, .rdi = PAGE_A, .rcx = 9);
    CROSS("string-movs-target-ends", rw, 0, "rep movsd", .rsi = PAGE_A, .rdi = PAGE_B - 12, .rcx = 9);
    CROSS("string-movs-both-end-source-first", rw, 0, "rep movsd", .rsi = PAGE_B - 8, .rdi = PAGE_B - 8, .rcx = 9);
    CROSS("string-lods-ends", rw, 0, "rep lodsb", .rsi = PAGE_B - 3, .rcx = 9);
    CROSS("string-scas-keeps-flags", rw, 0, "repe scasb", .rdi = PAGE_B - 3, .rcx = 9, .rax = 0xaa, .show = STATUS,
          .rflags = 2 | CF | SF);
    CROSS("string-cmps-keeps-flags", rw, 0, "repe cmpsb", .rsi = PAGE_B - 12, .rdi = PAGE_B - 3, .rcx = 9,
          .show = STATUS, .rflags = 2 | CF | SF);
    CROSS("string-insb-into-read-only", rw, ro, "rep insb", .rdi = PAGE_B - 3, .rdx = 0x2f0, .rcx = 9,
          .rflags = 2 | IOPL3);
    CROSS("string-outsb-ends", rw, 0, "rep outsb", .rsi = PAGE_B - 3, .rdx = 0x2f0, .rcx = 9, .rflags = 2 | IOPL3);
    CROSS("string-32-bit-address", rw, 0, ".byte 0x67; rep stosb", .rdi = BIT(40) | (PAGE_B - 3), .rcx = BIT(40) | 9);
    CROSS("string-noncanonical-end", rw, rw, "rep stosb", .rdi = NON_CANONICAL, .rcx = 9);
}

/* The ends of the canonical halves. */
static void canonical_ends(void)
{
    map(LOW_END, FRAME_A, P | W | U);
    map(HIGH_START, FRAME_B, P | W | U);
    TRY("canonical-read-last-low", USER, "mov al, [rbx]", .rbx = LOW_END + PAGE - 1, .rax = 0);
    TRY("canonical-read-past-low", USER, "mov al, [rbx]", .rbx = NON_CANONICAL);
    map(LOW_END, FRAME_A, P | W | U);
    TRY("canonical-read-across-low-end", USER, "mov eax, [rbx]", .rbx = NON_CANONICAL - 2);
    map(LOW_END, FRAME_A, P | W | U);
    TRY("canonical-read-across-low-end-stack", USER, "mov eax, [rbp+0]", .rbp = NON_CANONICAL - 2);
    map(LOW_END, 0, 0);
    TRY("canonical-gp-before-pf", USER, "mov eax, [rbx]", .rbx = NON_CANONICAL - 2);
    map(HIGH_START, FRAME_B, P | W | U);
    TRY("canonical-read-across-high-start", USER, "mov eax, [rbx]", .rbx = HIGH_START - 2);
    map(LOW_END, FRAME_A, P | W | U);
    TRY("canonical-push-at-high-start", USER, "push rax", .rsp = HIGH_START + 4);
    map(LOW_END, FRAME_A, P | W | U);
    TRY("canonical-push-top-of-low", USER, "push rax", .rsp = NON_CANONICAL);
    TRY("canonical-push-noncanonical", USER, "push rax", .rsp = NON_CANONICAL + 16);
    TRY("canonical-pop-noncanonical", USER, "pop rax", .rsp = NON_CANONICAL + 16);
    TRY("canonical-rbp-base-is-ss", USER, "mov rax, [rbp]", .rbp = NON_CANONICAL);
    TRY("canonical-rsp-index-none-is-ss", USER, "mov rax, [rsp+8]", .rsp = NON_CANONICAL);
    TRY("canonical-rbp-with-ds-prefix", USER, ".byte 0x3e; mov rax, [rbp]", .rbp = NON_CANONICAL);
    TRY("canonical-rbp-with-fs-prefix", USER, "mov rax, fs:[rbp]", .rbp = NON_CANONICAL);
    TRY("canonical-rbp-as-index-is-ds", USER, "mov rax, [rax+rbp]", .rbp = NON_CANONICAL, .rax = 0);
    TRY("canonical-fs-base-wraps-to-valid", KERNEL, "wrmsr; mov bl, fs:[rsi]; xor eax, eax; xor edx, edx",
        .rcx = MSR_FS_BASE, .rax = 0xffff0000, .rdx = 0xffffffff, .rsi = DATA + 0x10000, .rbx = 0);
    map(HIGH_END, FRAME_A, P | W | U);
    FRAME8(FRAME_A)[PAGE - 1] = 0x12;
    TRY("canonical-last-byte-of-all", USER, "mov al, [rbx]", .rbx = ~0ul, .rax = 0);
    map(HIGH_END, FRAME_A, P | W | U);
    TRY("canonical-wrap-around-zero", KERNEL, "mov eax, [rbx]; xor eax, eax", .rbx = ~0ul - 1, .rax = 0);
    TRY("canonical-enter-noncanonical", USER, "enter 16, 0", .rsp = NON_CANONICAL + 64);
    TRY("canonical-vector", USER, "movups xmm0, [rbx]", .rbx = NON_CANONICAL);
    TRY("canonical-vector-stack", USER, "movups xmm0, [rbp]", .rbp = NON_CANONICAL);
    TRY("canonical-clflush", USER, "clflush [rbx]", .rbx = NON_CANONICAL);
    TRY("canonical-nop-no-access", USER, "nop dword ptr [rbx]", .rbx = NON_CANONICAL);
    TRY("canonical-prefetch-no-fault", USER, "prefetcht0 [rbx]", .rbx = NON_CANONICAL);
}

/* ---- Protection keys (4.6.2) ---- */

static void key_line(const char *name, enum mode mode, u64 flags, u32 pkru, word cr0)
{
    begin(name);
    for (unsigned i = 0; i < ARRAY_SIZE(accesses); i++) {
        struct regs in = { DEFAULTS, .mode = mode, .rbx = PAGE_A + 64, .rsp = accesses[i].sp }, out;

        map(PAGE_A, FRAME_A, flags | 5ull << 59);
        *FRAME8(FRAME_A + 64) = 0xcd;
        *FRAME8(FRAME_A + 65) = 0x40;
        flush_tlb();
        write_cr0(cr0);
        __asm__ volatile("wrpkru" : : "a"(pkru), "c"(0), "d"(0));
        run(accesses[i].code(), &in, &out);
        if (out.vector == PG)
            say(" %s=%x", accesses[i].name, out.error);
        else
            say(" %s=%s", accesses[i].name, event_name(out.vector));
    }
    __asm__ volatile("wrpkru" : : "a"(0), "c"(0), "d"(0));
    done();
}

static void protection_keys(void)
{
    static const char *const names[] = { "key-user-ad",     "key-user-wd",        "key-user-other",
                                         "key-kernel-ad",   "key-kernel-wd",      "key-kernel-wd-no-wp",
                                         "key-kernel-page", "key-user-read-only", "key-absent",
                                         "key-pke-off",     "key-rdpkru-index",   "key-wrpkru-edx",
                                         "key-rdpkru-off" };

    if (!has_leaf7_c(3)) {
        for (unsigned i = 0; i < ARRAY_SIZE(names); i++)
            absent(names[i], "PKU");
        return;
    }
    word cr0 = read_cr0();

#define KEY(n, ...)                                                                                                    \
    write_cr4(read_cr4() | CR4_PKE);                                                                                   \
    key_line(names[n], __VA_ARGS__)
    KEY(0, USER, P | W | U, 1 << 10, cr0);
    KEY(1, USER, P | W | U, 2 << 10, cr0);
    KEY(2, USER, P | W | U, ~(3u << 10 | 3u), cr0);
    KEY(3, KERNEL, P | W | U, 1 << 10, cr0);
    KEY(4, KERNEL, P | W | U, 2 << 10, cr0);
    KEY(5, KERNEL, P | W | U, 2 << 10, cr0 & ~(word)CR0_WP);
    KEY(6, KERNEL, P | W, 3 << 10, cr0);
    KEY(7, USER, P | U, 3 << 10, cr0);
    KEY(8, USER, 0, 3 << 10, cr0);
#undef KEY
    map(PAGE_A, FRAME_A, P | W | U | 5ull << 59);
    write_cr4(read_cr4() | CR4_PKE);
    __asm__ volatile("wrpkru" : : "a"(3 << 10), "c"(0), "d"(0));
    write_cr4(read_cr4() & ~(word)CR4_PKE);
    OPEN(names[9], USER, "mov [rbx], al", .rbx = PAGE_A);
    write_cr4(read_cr4() | CR4_PKE);
    __asm__ volatile("wrpkru" : : "a"(0), "c"(0), "d"(0));
    done();
    write_cr4(read_cr4() | CR4_PKE);
    TRY(names[10], USER, "rdpkru", .rcx = 1);
    write_cr4(read_cr4() | CR4_PKE);
    TRY(names[11], USER, "wrpkru", .rcx = 0, .rdx = 1);
    TRY(names[12], USER, "rdpkru", .rcx = 0);
}

/* ---- Memory that is not there ---- */

static void nowhere(void)
{
    map(PAGE_A, NOWHERE, P | W | U);
    TRY("nowhere-read", USER, "mov rax, [rbx]", .rbx = PAGE_A);
    map(PAGE_A, NOWHERE, P | W | U);
    TRY("nowhere-write-is-dropped", USER, "mov [rbx], rax", .rbx = PAGE_A);
    map(PAGE_A, NOWHERE, P | W | U);
    TRY("nowhere-locked", USER, "lock inc qword ptr [rbx]; xchg [rbx], rax", .rbx = PAGE_A);
    map(PAGE_A, NOWHERE, P | W | U);
    TRY("nowhere-push-pop", USER, "push rcx; pop rax", .rsp = PAGE_A + 64);
    map(PAGE_A, NOWHERE, P | W | U);
    TRY("nowhere-string", USER, "rep stosb; mov al, [rdi-1]", .rdi = PAGE_A, .rcx = 64);
    map(PAGE_A, NOWHERE, P | W | U);
    TRY("nowhere-vector", USER, "movups [rbx], xmm0; movups xmm1, [rbx]; movq rax, xmm1", .rbx = PAGE_A);
    map(PAGE_A, NOWHERE, P | W | U);
    TRY("nowhere-execute", USER, "jmp rbx", .rbx = PAGE_A);
    map(PAGE_A, NOWHERE, P | W);
    TRY("nowhere-execute-kernel", KERNEL, "jmp rbx", .rbx = PAGE_A);
    map(PAGE_A, NOWHERE, P | W | U);
    TRY("nowhere-execute-from-last-byte", USER, "jmp rbx", .rbx = PAGE_A + PAGE - 1);
    map(PAGE_A, FRAME_A, P | W | U);
    map(PAGE_B, NOWHERE, P | W | U);
    FRAME8(FRAME_A)[PAGE - 1] = 0xfe; /* group 4, and its ModRM byte is all ones: undefined */
    TRY("nowhere-execute-across", USER, "jmp rbx", .rbx = PAGE_B - 1);
    map(PAGE_A, BIT(38) + BIT(30), P | W | U);
    TRY("nowhere-far-above-ram", USER, "mov rax, [rbx]; mov [rbx], rcx", .rbx = PAGE_A);
    *pde(FREE + 0x400000) = NOWHERE | P | W | U;
    TRY_RESERVED("nowhere-page-table", USER, "mov rax, [rbx]", .rbx = FREE + 0x400000);
    *pde(LOW_END) = NOWHERE | P | W | U;
    TRY_RESERVED("nowhere-page-table-write", KERNEL, "mov [rbx], rax", .rbx = LOW_END);
    set_gate_type(0x45, KCS, 0x60 | TYPE_INTERRUPT_GATE, 0);
    map(PAGE_A, NOWHERE, P | W);
    __builtin_memcpy(tss + 4, &(u64){ PAGE_A + 0x800 }, 8);
    begin("nowhere-kernel-stack");
    {
        struct regs out = RUN(USER, "int 0x45");

        /* the frame is lost; what comes back from it is not RAM either: only that the machine goes on counts */
        say(" %s", event_name(out.vector));
    }
    done();
}

/* Executing device registers: no particular outcome, but one. */
static void execute_devices(void)
{
    static const struct {
        const char *name;
        u64 address;
    } pages[] = {
        { "lapic", 0xfee00000 }, { "ioapic", 0xfec00000 }, { "hpet", 0xfed00000 },
        { "ecam", 0xb0000000 },  { "vga", 0xa0000 },
    };

    for (unsigned i = 0; i < ARRAY_SIZE(pages); i++) {
        map(PAGE_A, pages[i].address, P | W | U);
        begin(name_of("execute-%s", pages[i].name));
        RUN(USER, "jmp rbx", .rbx = PAGE_A + 0x20, .rax = HOLE, .rcx = HOLE, .rdx = HOLE, .rsi = HOLE, .rdi = HOLE,
            .rbp = HOLE);
        say(" survived");
        done();
        map(PAGE_A, pages[i].address, P | W | U);
        begin(name_of("stack-in-%s", pages[i].name));
        RUN(USER, "push rax; pop rbx; call 1f; 1: ret", .rsp = PAGE_A + 0xff8);
        say(" survived");
        done();
    }
}

void cases(void)
{
    matrices();
    fetch_bit();
    levels();
    large_pages();
    accessed_dirty();
    crossing();
    several_accesses();
    strings();
    canonical_ends();
    protection_keys();
    nowhere();
    execute_devices();
}
