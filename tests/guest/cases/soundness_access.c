/* Single accesses at every edge (docs/design.md, "Soundness", lines 1 and 3): null and non-canonical addresses right
 * after every way to flush the TLB, and each size at each offset around page ends and the ends of the address space.
 * One piece of code makes all accesses of a kind, so that what it has learnt at one address meets the next. SDM Vol. 1
 * 3.3.7; Vol. 3A 4.6, 4.7, 4.10.4. */
#include "soundness.h"

static int canonical(u64 va)
{
    return (va + BIT(47)) >> 48 == 0;
}

/* ---- Line 1: nothing matches an empty TLB ---- */

struct access {
    const char *name;
    struct code (*code)(void);
    unsigned size;
    int write, stack; /* stack: at RSP, which is the address (pop) or 8 above it (push) */
};

#define ACCESS(id, text)                                                                                               \
    static struct code access_##id(void)                                                                               \
    {                                                                                                                  \
        return CODE(text);                                                                                             \
    }
ACCESS(read_1, "mov al, [rbx]")
ACCESS(read_2, "mov ax, [rbx]")
ACCESS(read_4, "mov eax, [rbx]")
ACCESS(read_8, "mov rax, [rbx]")
ACCESS(read_16, "movups xmm0, [rbx]")
ACCESS(write_1, "mov [rbx], al")
ACCESS(write_4, "mov [rbx], eax")
ACCESS(write_8, "mov [rbx], rax")
ACCESS(write_16, "movups [rbx], xmm0")
ACCESS(push, "push rax")
ACCESS(pop, "pop rax")
ACCESS(stos, "mov rdi, rbx; mov ecx, 3; rep stosb")
ACCESS(far_disp, "mov rax, [rbx+0x12345678]")
ACCESS(indexed, "mov rax, [rcx+rbx*1]")

static const struct access accesses[] = {
    { "read-1", access_read_1, 1, 0, 0 },
    { "read-2", access_read_2, 2, 0, 0 },
    { "read-4", access_read_4, 4, 0, 0 },
    { "read-8", access_read_8, 8, 0, 0 },
    { "read-16", access_read_16, 16, 0, 0 },
    { "write-1", access_write_1, 1, 1, 0 },
    { "write-4", access_write_4, 4, 1, 0 },
    { "write-8", access_write_8, 8, 1, 0 },
    { "write-16", access_write_16, 16, 1, 0 },
    { "push", access_push, 8, 1, 1 },
    { "pop", access_pop, 8, 0, 1 },
    { "stos", access_stos, 1, 1, 0 },
    { "far-disp", access_far_disp, 8, 0, 0 },
    { "indexed", access_indexed, 8, 0, 0 },
};

#define FLUSH(id, text)                                                                                                \
    static struct code flush_##id(void)                                                                                \
    {                                                                                                                  \
        return CODE(text);                                                                                             \
    }
FLUSH(none, "nop")
FLUSH(cr3, "mov r8, cr3; mov cr3, r8")
FLUSH(pge, "mov r8, cr4; xor r8, 0x80; mov cr4, r8; xor r8, 0x80; mov cr4, r8")
FLUSH(invlpg, "invlpg [rbx]; invlpg [rbp]")
FLUSH(wp, "mov r8, cr0; mov r9, r8; btr r9, 16; mov cr0, r9; mov cr0, r8")
FLUSH(invpcid, "invpcid r10, [rsi]")
FLUSH(nxe,
      "mov r8, rax; mov r9, rcx; mov ecx, 0xc0000080; rdmsr; btr eax, 11; wrmsr; bts eax, 11; wrmsr; mov rax, r8; mov "
      "rcx, r9")

static const struct flush {
    const char *name;
    struct code (*code)(void);
} flushes[] = {
    { "no-flush", flush_none }, { "cr3-load", flush_cr3 },    { "pge-toggle", flush_pge }, { "invlpg", flush_invlpg },
    { "wp-toggle", flush_wp },  { "invpcid", flush_invpcid }, { "nxe-toggle", flush_nxe },
};

/* Bit patterns that a cleared, inverted or shifted tag might have. All pages there are absent. */
static const u64 bad_addresses[] = {
    0,
    PAGE,
    0x0000800000000000,
    0xffff7ffffffff000,
    HIGH_START,
    HIGH_END,
    0x0001000000000000,
    0x0100000000000000,
    0x4000000000000000,
    0x7ffffffffffff000,
    0x8000000000000000,
    0x8000000000001000,
    0xfff0000000000000,
    0xdead000000000000,
    0xbfffffffffffe000,
    FREE,
    (u64)FREE | BIT(47),
    (u64)DATA | BIT(63),
    (u64)DATA | BIT(48),
    (u64)DATA ^ 0xffff000000000000,
    (u64)DATA << 12,
};
static const u16 bad_offsets[] = { 0,     1,     2,     3,     4,     7,     8,     9,     15,
                                   0x7f8, 0xff0, 0xff1, 0xff8, 0xffb, 0xffc, 0xffd, 0xffe, 0xfff };

static u64 low_table[512] __attribute__((aligned(PAGE)));

/* The first two pages are absent, the rest of the first 2 MiB as it was. */
static void unmap_null(void)
{
    for (unsigned i = 0; i < 512; i++)
        low_table[i] = i < 2 ? 0 : (i * PAGE) | P | W;
    *pde(0) = (u64)(word)low_table | P | W | U;
    flush_tlb();
}

static struct outcome bad_outcome(u64 va, const struct access *a, int user)
{
    if (!canonical(va) || !canonical(va + a->size - 1))
        return (struct outcome){ a->stack ? SS : GP, 0, 0 };
    return (struct outcome){ PG, (word)a->write << 1 | (word)user << 2, va };
}

static struct regs probe_access(const struct access *a, u64 va, enum mode mode)
{
    struct regs in = { .mode = mode, .rbx = va, .rbp = va, .rflags = 2, .r10 = 2, .rsi = DATA + 0x800 }, out;

    if (a->stack)
        in.rsp = a->write ? va + 8 : va;
    if (a->code == access_far_disp)
        in.rbx -= 0x12345678;
    if (a->code == access_indexed) {
        in.rcx = va * 3;
        in.rbx = va - in.rcx;
    }
    in.cs = in.ss = 0;
    enter(&in, &out);
    return out;
}

static void bad_probes(struct tally *tally, const struct access *a, enum mode mode, int how)
{
    const u64 good = mode == USER ? UDATA : DATA;

    for (unsigned i = 0; i < ARRAY_SIZE(bad_addresses) * ARRAY_SIZE(bad_offsets); i++) {
        u64 va = bad_addresses[i / ARRAY_SIZE(bad_offsets)] + bad_offsets[i % ARRAY_SIZE(bad_offsets)];
        struct outcome want = bad_outcome(va, a, mode == USER);
        struct regs out;

        if (canonical(va) && !canonical(va + a->size - 1))
            continue; /* absent, then non-canonical: line 3 has that with a present page */
        if (a->stack && va + (a->write ? 8 : 0) == 0)
            continue; /* RSP 0 means the usual stack to enter() */
        if (how & 1)
            probe_access(a, good + bad_offsets[i % ARRAY_SIZE(bad_offsets)] % 0x800, mode);
        if (how & 2)
            flush_tlb();
        out = probe_access(a, va, mode);
        if (wrong(tally, same_outcome(&want, &out))) {
            say(" [%s at %X:", a->name, va);
            say_event(&out);
            say("]");
        }
    }
}

/* Behind an instruction that sets flags, and behind one that leaves them as they come: a check may be made
 * differently. */
static void place_access(struct code flush, struct code flags, struct code access)
{
    word length = put_code(CODE_FRAME, flush);

    length += put_code(CODE_FRAME + length, flags);
    put_code(CODE_FRAME + length, access);
}

static void bad_case(const char *name, int stack, struct code flush, enum mode mode, int how)
{
    struct tally tally = { 0 };

    begin(name);
    unmap_null();
    for (unsigned a = 0; a < ARRAY_SIZE(accesses); a++) {
        if (accesses[a].stack != stack)
            continue;
        place_access(flush, CODE("nop"), accesses[a].code());
        bad_probes(&tally, &accesses[a], mode, how);
        place_access(flush, CODE("cmp edi, esi"), accesses[a].code());
        bad_probes(&tally, &accesses[a], mode, how);
    }
    end_tally(&tally);
}

static void null_and_noncanonical(void)
{
    static const char *const what[] = { "addresses", "stacks" };

    for (unsigned i = 0; i < 2 * ARRAY_SIZE(flushes); i++) {
        const struct flush *flush = &flushes[i / 2];
        const char *name = name_of("soundness-01-bad-%s-after-%s", what[i & 1], flush->name);

        if (flush->code == flush_invpcid && !has_leaf7_b(10))
            absent(name, "INVPCID");
        else
            bad_case(name, (int)i & 1, flush->code(), KERNEL, (int)(i / 2) & 1);
    }
    for (unsigned i = 0; i < 8; i++)
        bad_case(name_of("soundness-01-bad-%s-user-%d", what[i & 1], (word)i / 2), (int)i & 1, flush_none(), USER,
                 (int)i / 2);
}

/* Instruction fetches from the same places. */
static void bad_fetches(void)
{
    for (unsigned how = 0; how < 3; how++) {
        static const char *const names[] = { "jmp", "call", "ret" };
        struct tally tally = { 0 };

        begin(name_of("soundness-01-bad-targets-%s", names[how]));
        unmap_null();
        if (how == 0)
            PLACE("mov r8, cr3; mov cr3, r8; jmp rbx");
        else if (how == 1)
            PLACE("mov r8, cr3; mov cr3, r8; call rbx");
        else
            PLACE("mov r8, cr3; mov cr3, r8; push rbx; ret");
        for (unsigned i = 0; i < ARRAY_SIZE(bad_addresses) * ARRAY_SIZE(bad_offsets); i++) {
            u64 va = bad_addresses[i / ARRAY_SIZE(bad_offsets)] + bad_offsets[i % ARRAY_SIZE(bad_offsets)];
            struct outcome want = canonical(va) ? (struct outcome){ PG, 0x10, va } : (struct outcome){ GP, 0, 0 };
            struct regs out = AGAIN(KERNEL, .rbx = va);

            if (wrong(&tally, same_outcome(&want, &out) && (out.rip == va) == (want.vector == PG))) {
                say(" [%X:", va);
                say_event(&out);
                say("]");
            }
        }
        end_tally(&tally);
    }
}

/* ---- Line 3: every size at every offset ---- */

struct form {
    const char *name;
    struct code (*code)(void);
    unsigned size;
    enum { LOAD, STORE, NOT, PUSH, POP } kind;
};

#define FORM(id, text)                                                                                                 \
    static struct code form_##id(void)                                                                                 \
    {                                                                                                                  \
        return CODE(text);                                                                                             \
    }
/* between [rbx] and a buffer at RDI */
FORM(load_1, "mov al, [rbx]; mov [rdi], al")
FORM(load_2, "mov ax, [rbx]; mov [rdi], ax")
FORM(load_4, "mov eax, [rbx]; mov [rdi], eax")
FORM(load_8, "mov rax, [rbx]; mov [rdi], rax")
FORM(load_10, "fninit; fld tbyte ptr [rbx]; fstp tbyte ptr [rdi]")
FORM(load_16, "movups xmm1, [rbx]; movups [rdi], xmm1")
FORM(load_32, "vmovups ymm1, [rbx]; vmovups [rdi], ymm1")
FORM(load_64, "vmovups zmm1, [rbx]; vmovups [rdi], zmm1")
FORM(store_1, "mov al, [rdi]; mov [rbx], al")
FORM(store_2, "mov ax, [rdi]; mov [rbx], ax")
FORM(store_4, "mov eax, [rdi]; mov [rbx], eax")
FORM(store_8, "mov rax, [rdi]; mov [rbx], rax")
FORM(store_10, "fninit; fld tbyte ptr [rdi]; fstp tbyte ptr [rbx]")
FORM(store_16, "movups xmm1, [rdi]; movups [rbx], xmm1")
FORM(store_32, "vmovups ymm1, [rdi]; vmovups [rbx], ymm1")
FORM(store_64, "vmovups zmm1, [rdi]; vmovups [rbx], zmm1")
FORM(not_1, "not byte ptr [rbx]")
FORM(not_2, "not word ptr [rbx]")
FORM(not_4, "not dword ptr [rbx]")
FORM(not_8, "lock not qword ptr [rbx]")
FORM(push, "mov rax, [rdi]; mov rsp, rbx; push rax")
FORM(pop, "mov rsp, rbx; pop rax; mov [rdi], rax")

static const struct form forms[] = {
    { "load-1", form_load_1, 1, LOAD },    { "load-2", form_load_2, 2, LOAD },    { "load-4", form_load_4, 4, LOAD },
    { "load-8", form_load_8, 8, LOAD },    { "load-10", form_load_10, 10, LOAD }, { "load-16", form_load_16, 16, LOAD },
    { "store-1", form_store_1, 1, STORE }, { "store-2", form_store_2, 2, STORE }, { "store-4", form_store_4, 4, STORE },
    { "store-8", form_store_8, 8, STORE },
};
static const struct form wide_forms[] = { { "store-10", form_store_10, 10, STORE },
                                          { "store-16", form_store_16, 16, STORE } };
static const struct form stack_forms[] = { { "push", form_push, 8, PUSH }, { "pop", form_pop, 8, POP } };
static const struct form rmw_forms[] = {
    { "not-1", form_not_1, 1, NOT },
    { "not-2", form_not_2, 2, NOT },
    { "not-4", form_not_4, 4, NOT },
    { "lock-not-8", form_not_8, 8, NOT },
};
static const struct form avx_forms[] = { { "load-32", form_load_32, 32, LOAD },
                                         { "store-32", form_store_32, 32, STORE } };
static const struct form avx512_forms[] = { { "load-64", form_load_64, 64, LOAD },
                                            { "store-64", form_store_64, 64, STORE } };

/* Two pages side by side; `second` is the address of their border. */
struct edge {
    const char *name;
    u64 second;
    u64 flags[2]; /* of their entries */
};

static const struct edge edges[] = {
    { "both", PAGE_B, { P | W | U, P | W | U } },         { "second-absent", PAGE_B, { P | W | U, 0 } },
    { "first-absent", PAGE_B, { 0, P | W | U } },         { "second-read-only", PAGE_B, { P | W | U, P | U } },
    { "first-read-only", PAGE_B, { P | U, P | W | U } },  { "second-supervisor", PAGE_B, { P | W | U, P | W } },
    { "first-supervisor", PAGE_B, { P | W, P | W | U } }, { "low-end", LOW_END + PAGE, { P | W | U, 0 } },
    { "high-start", HIGH_START, { 0, P | W | U } },
};

enum { AROUND = 80, BUFFER = 0x800 };

static u8 pattern(u64 va)
{
    return (u8)(va * 37 + (va >> 8) * 11 + 5);
}

static int edge_page(const struct edge *e, u64 va)
{
    return va >= e->second;
}

static int edge_fault(const struct edge *e, const struct form *f, u64 va, int user, struct outcome *want)
{
    int write = f->kind != LOAD && f->kind != POP;

    *want = (struct outcome){ VECTOR_DONE, 0, 0 };
    if (!canonical(va) || !canonical(va + f->size - 1)) {
        *want = (struct outcome){ f->kind == PUSH || f->kind == POP ? SS : GP, 0, 0 };
        return 1;
    }
    for (unsigned i = 0; i < f->size; i++) {
        u64 flags = e->flags[edge_page(e, va + i)];

        if (!(flags & P) || (write && !(flags & W)) || (user && !(flags & U))) {
            *want = (struct outcome){ PG, (flags & P) | (word)write << 1 | (word)user << 2, va + i };
            return 1;
        }
    }
    return 0;
}

/* The frames of the two pages lie side by side, at FRAME_A. */
static volatile u8 *behind(const struct edge *e, u64 va)
{
    return FRAME8(FRAME_B + (va - e->second));
}

static void fill_edge(const struct edge *e, word buffer)
{
    for (u64 va = e->second - AROUND; va != e->second + AROUND; va++)
        *behind(e, va) = pattern(va);
    for (unsigned i = 0; i < 64; i++)
        FRAME8(buffer)[i] = (u8)(0xc0 + i);
}

/* Memory and buffer after the access. */
static int edge_memory(const struct edge *e, const struct form *f, u64 at, int faulted, word buffer)
{
    for (u64 va = e->second - AROUND; va != e->second + AROUND; va++) {
        u8 want = pattern(va);

        if (!faulted && va - at < f->size)
            want = f->kind == NOT ? (u8)~want : f->kind == STORE || f->kind == PUSH ? (u8)(0xc0 + (va - at)) : want;
        if (*behind(e, va) != want)
            return 0;
    }
    for (unsigned i = 0; i < 64; i++) {
        int loaded = !faulted && (f->kind == LOAD || f->kind == POP) && i < f->size;

        if (FRAME8(buffer)[i] != (loaded ? pattern(at + i) : (u8)(0xc0 + i)))
            return 0;
    }
    return 1;
}

static void edge_probe(const struct edge *e, const struct form *f, int k, enum mode mode, struct tally *tally)
{
    int user = mode == USER, faulted;
    u64 buffer = user ? UDATA : DATA, va = e->second - f->size + (u64)(long long)k;
    word frame = (user ? UDATA_FRAME : DATA_FRAME) + BUFFER;
    struct regs in = { .mode = mode, .rflags = 2, .rdi = buffer + BUFFER }, out;
    struct outcome want;

    /* another address first: in the first page, in the second, elsewhere */
    in.rbx = k % 3 == 0 ? e->second - 0x700 : k % 3 == 1 ? e->second + 0x700 : buffer;
    enter(&in, &out);
    fill_edge(e, frame);
    faulted = edge_fault(e, f, va, user, &want);
    in.rip = 0;
    in.rsp = 0;
    in.rbx = f->kind == PUSH ? va + 8 : va;
    enter(&in, &out);
    if (wrong(tally, same_outcome(&want, &out) && edge_memory(e, f, va, faulted, frame))) {
        say(" [%s at %X:", f->name, va);
        say_event(&out);
        say("]");
    }
}

static void edge_probes(const struct form *list, unsigned count, const char *what)
{
    for (unsigned i = 0; i < 2 * ARRAY_SIZE(edges); i++) {
        const struct edge *e = &edges[i / 2];
        enum mode mode = i & 1 ? USER : KERNEL;
        struct tally tally = { 0 };

        begin(name_of("soundness-03-edge-%s-%s%s", i & 1 ? "user" : "kernel", e->name, what));
        if (canonical(e->second - 1))
            map(e->second - PAGE, FRAME_A, e->flags[0]);
        if (canonical(e->second))
            map(e->second, FRAME_B, e->flags[1]);
        for (unsigned f = 0; f < count; f++) {
            put_code(CODE_FRAME, list[f].code());
            for (int k = -3; k <= (int)list[f].size + 3; k++)
                edge_probe(e, &list[f], k, mode, &tally);
            place_access(CODE("nop"), CODE("cmp ebp, esi"), list[f].code());
            for (int k = -3; k <= (int)list[f].size + 3; k++)
                edge_probe(e, &list[f], k, mode, &tally);
        }
        end_tally(&tally);
    }
}

static void absent_edges(const char *what, const char *feature)
{
    for (unsigned i = 0; i < 2 * ARRAY_SIZE(edges); i++)
        absent(name_of("soundness-03-edge-%s-%s%s", i & 1 ? "user" : "kernel", edges[i / 2].name, what), feature);
}

static void page_edges(void)
{
    edge_probes(forms, ARRAY_SIZE(forms), "");
    edge_probes(wide_forms, ARRAY_SIZE(wide_forms), "-wide");
    edge_probes(stack_forms, ARRAY_SIZE(stack_forms), "-stack");
    edge_probes(rmw_forms, ARRAY_SIZE(rmw_forms), "-rmw");
    if (has_leaf1_c(28)) {
        set_xcr0(7);
        edge_probes(avx_forms, ARRAY_SIZE(avx_forms), "-avx");
    } else {
        absent_edges("-avx", "AVX");
    }
    if (has_leaf7_b(16)) {
        set_xcr0(0xe7);
        edge_probes(avx512_forms, ARRAY_SIZE(avx512_forms), "-avx512");
        set_xcr0(7);
    } else {
        absent_edges("-avx512", "AVX-512");
    }
}

/* The end of all addresses: the last page, and page 0 behind it. */
static void address_space_end(void)
{
    struct tally tally = { 0 };

    begin("soundness-03-edge-wrap-around");
    unmap_null();
    low_table[0] = FRAME_B | P | W;
    map(HIGH_END, FRAME_A, P | W);
    flush_tlb();
    for (unsigned f = 0; f < ARRAY_SIZE(forms); f++) {
        static const struct edge edge = { "end", 0, { P | W, P | W } };

        put_code(CODE_FRAME, forms[f].code());
        for (int k = -3; k <= (int)forms[f].size + 3; k++) {
            u64 va = (u64)(long long)(k - (int)forms[f].size);
            struct regs in = { .mode = KERNEL, .rflags = 2, .rdi = DATA + BUFFER }, out;

            for (u64 at = 0 - (u64)AROUND; at != AROUND; at++)
                *FRAME8(FRAME_B + at) = pattern(at);
            for (unsigned i = 0; i < 64; i++)
                FRAME8(DATA_FRAME + BUFFER)[i] = (u8)(0xc0 + i);
            in.rbx = forms[f].kind == PUSH ? va + 8 : va;
            enter(&in, &out);
            if (wrong(&tally, out.vector == VECTOR_DONE && edge_memory(&edge, &forms[f], va, 0, DATA_FRAME + BUFFER))) {
                say(" [%s at %X:", forms[f].name, va);
                say_event(&out);
                say("]");
            }
        }
    }
    end_tally(&tally);
}

void cases(void)
{
    null_and_noncanonical();
    bad_fetches();
    page_edges();
    address_space_end();
}
