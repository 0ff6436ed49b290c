/* What must not be cached any longer: INVLPG, INVPCID, CR3 loads with and without bit 63, global pages, and what
 * changes of CR0, CR4, EFER and PKRU do to cached translations. Only guarantees of SDM Vol. 3A 4.10.4 are tested:
 * that something stale may still be there is nothing to rely on. */
#include "guest.h"

#define PAGE_A  FREE
#define FRAME_A FREE_FRAME
#define FRAME_B (FREE_FRAME + PAGE)

/* Two frames that can be told apart. */
static void set_frames(void)
{
    *FRAME64(FRAME_A) = 0xaaaa;
    *FRAME64(FRAME_B) = 0xbbbb;
}

static word load(word address)
{
    return *(volatile word *)address;
}

static void print_load(const char *what)
{
    say(" %s=%x", what, load(PAGE_A));
}

static void invalidate(word address)
{
    __asm__ volatile("invlpg (%0)" : : "r"(address) : "memory");
}

static void basic(void)
{
    begin("invlpg-small-page");
    set_frames();
    map(PAGE_A, FRAME_A, P | W);
    print_load("before");
    map(PAGE_A, FRAME_B, P | W);
    invalidate(PAGE_A);
    print_load("after");
    done();

    begin("invlpg-any-address-of-the-page");
    map(PAGE_A, FRAME_A, P | W);
    print_load("before");
    map(PAGE_A, FRAME_B, P | W);
    invalidate(PAGE_A + 0xfff);
    print_load("after");
    done();

    begin("invlpg-global-page");
    map(PAGE_A, FRAME_A, P | W | G);
    print_load("before");
    map(PAGE_A, FRAME_B, P | W | G);
    invalidate(PAGE_A);
    print_load("after");
    done();

    begin("cr3-load-drops-small-page");
    map(PAGE_A, FRAME_A, P | W);
    print_load("before");
    map(PAGE_A, FRAME_B, P | W);
    write_cr3(read_cr3());
    print_load("after");
    done();

    begin("cr4-pge-toggle-drops-global-page");
    map(PAGE_A, FRAME_A, P | W | G);
    print_load("before");
    map(PAGE_A, FRAME_B, P | W | G);
    flush_tlb();
    print_load("after");
    done();

    begin("global-bit-without-pge");
    write_cr4(read_cr4() & ~(word)CR4_PGE);
    map(PAGE_A, FRAME_A, P | W | G);
    print_load("before");
    map(PAGE_A, FRAME_B, P | W | G);
    write_cr3(read_cr3());
    print_load("after");
    done();

    begin("absent-is-not-cached");
    map(PAGE_A, 0, 0);
    {
        struct regs out = RUN(KERNEL, "mov rax, [rbx]", .rbx = PAGE_A);

        say(" %s", event_name(out.vector));
        map(PAGE_A, FRAME_A, P | W);
        print_load("then");
    }
    done();

    begin("page-fault-drops-the-entry");
    map(PAGE_A, FRAME_A, P);
    print_load("read");
    {
        struct regs out = RUN(KERNEL, "mov [rbx], rax", .rbx = PAGE_A, .rax = 0xcccc);

        say(" %s", event_name(out.vector));
        map(PAGE_A, FRAME_A, P | W); /* more rights, no invalidation: the fault did it (4.10.4.1) */
        out = RUN(KERNEL, "mov [rbx], rax", .rbx = PAGE_A, .rax = 0xcccc);
        say(" %s", event_name(out.vector));
        print_load("then");
    }
    done();

    begin("dirty-bit-set-again-after-clearing");
    set_frames();
    map(PAGE_A, FRAME_A, P | W);
    *(volatile word *)(word)PAGE_A = 1;
    *pte(PAGE_A) &= ~(u64)(A | D);
    invalidate(PAGE_A);
    *(volatile word *)(word)PAGE_A = 2;
    say(" %x", (word)(*pte(PAGE_A) & (A | D)));
    done();

    begin("accessed-bit-set-again-after-clearing");
    map(PAGE_A, FRAME_A, P | W);
    load(PAGE_A);
    *pte(PAGE_A) &= ~(u64)A;
    invalidate(PAGE_A);
    load(PAGE_A);
    say(" %x", (word)(*pte(PAGE_A) & (A | D)));
    done();

    begin("read-then-write-sets-dirty");
    map(PAGE_A, FRAME_A, P | W);
    load(PAGE_A);
    say(" %x", (word)(*pte(PAGE_A) & (A | D)));
    *(volatile word *)(word)PAGE_A = 2;
    say(" %x", (word)(*pte(PAGE_A) & (A | D)));
    done();
}

static void large_pages(void)
{
    const word large = WINDOW + WINDOW_SIZE;

    *FRAME64(FREE_FRAME + 0x5000) = 0x1111;
    *FRAME64(FREE_FRAME + 0x200000 + 0x5000) = 0x2222;
    begin("invlpg-large-page-by-another-address");
    *pde(large) = FREE_FRAME | P | W | PS;
    for (word i = 0; i < 0x200000; i += 0x5000)
        load(large + i);
    say(" before=%x", load(large + 0x5000));
    *pde(large) = (FREE_FRAME + 0x200000) | P | W | PS;
    invalidate(large + 0x123456);
    say(" after=%x", load(large + 0x5000));
    done();

    begin("large-page-to-table");
    *pde(large) = FREE_FRAME | P | W | PS;
    say(" before=%x", load(large + 0x5000));
    *pde(large) = (u64)(word)pte(WINDOW) | P | W; /* the window's first table */
    invalidate(large + 0x5000);
    {
        struct regs out = RUN(KERNEL, "mov rax, [rbx]", .rbx = large + 0x5000);

        say(" after=%s", event_name(out.vector));
    }
    done();

    begin("cr4-pge-toggle-drops-global-large-page");
    *pde(large) = FREE_FRAME | P | W | PS | G;
    say(" before=%x", load(large + 0x5000));
    *pde(large) = (FREE_FRAME + 0x200000) | P | W | PS | G;
    flush_tlb();
    say(" after=%x", load(large + 0x5000));
    done();
}

/* Rights that follow from control registers are never stale. */
static void control_registers(void)
{
    begin("cr0-wp-toggle");
    map(PAGE_A, FRAME_A, P);
    for (unsigned i = 0; i < 4; i++) {
        word cr0 = read_cr0();

        write_cr0(i & 1 ? cr0 & ~(word)CR0_WP : cr0 | CR0_WP);
        say(" %s", event_name(RUN(KERNEL, "mov [rbx], rax", .rbx = PAGE_A).vector));
    }
    done();
    if (has_leaf7_b(7) && has_leaf7_b(20)) {
        begin("cr4-smap-toggle");
        map(PAGE_A, FRAME_A, P | W | U);
        for (unsigned i = 0; i < 4; i++) {
            word cr4 = read_cr4();

            write_cr4(i & 1 ? cr4 | CR4_SMAP : cr4 & ~(word)CR4_SMAP);
            say(" %s", event_name(RUN(KERNEL, "mov [rbx], rax", .rbx = PAGE_A).vector));
        }
        done();
        begin("stac-clac");
        map(PAGE_A, FRAME_A, P | W | U);
        write_cr4(read_cr4() | CR4_SMAP);
        {
            struct regs out = RUN(KERNEL, "stac; mov rax, [rbx]; clac; mov rcx, [rbx]", .rbx = PAGE_A);

            say(" %s ip+%x", event_name(out.vector), out.rip - CODE_PAGE);
            out = RUN(KERNEL, "mov rax, [rbx]; stac; mov rcx, [rbx]", .rbx = PAGE_A);
            say(" %s ip+%x", event_name(out.vector), out.rip - CODE_PAGE);
            out = RUN(KERNEL, "push rax; popfq; mov rax, [rbx]; push rdx; popfq; mov rax, [rbx]", .rbx = PAGE_A,
                      .rax = 2 | AC, .rdx = 2);
            say(" %s ip+%x", event_name(out.vector), out.rip - CODE_PAGE);
        }
        done();
        begin("cr4-smep-toggle");
        map(PAGE_A, FRAME_A, P | W | U);
        *FRAME8(FRAME_A) = 0xcd;
        *FRAME8(FRAME_A + 1) = 0x40;
        for (unsigned i = 0; i < 4; i++) {
            word cr4 = read_cr4();

            write_cr4(i & 1 ? cr4 | CR4_SMEP : cr4 & ~(word)CR4_SMEP);
            say(" %s", event_name(RUN(KERNEL, "jmp rbx", .rbx = PAGE_A).vector));
        }
        done();
        begin("user-and-kernel-views-of-one-entry");
        set_frames();
        map(PAGE_A, FRAME_A, P | W);
        say(" %x", load(PAGE_A));
        say(" %s", event_name(RUN(USER, "mov rax, [rbx]", .rbx = PAGE_A).vector));
        map(PAGE_A, FRAME_A, P | W | U);
        invalidate(PAGE_A);
        say(" %s", event_name(RUN(USER, "mov rax, [rbx]", .rbx = PAGE_A).vector));
        write_cr4(read_cr4() | CR4_SMAP);
        say(" %s", event_name(RUN(KERNEL, "mov rax, [rbx]", .rbx = PAGE_A).vector));
        say(" %s", event_name(RUN(USER, "mov rax, [rbx]", .rbx = PAGE_A).vector));
        done();
    } else {
        absent("cr4-smap-toggle", "SMAP");
        absent("stac-clac", "SMAP");
        absent("cr4-smep-toggle", "SMEP");
        absent("user-and-kernel-views-of-one-entry", "SMAP");
    }
    if (has_leaf7_c(3)) {
        begin("pkru-write-is-seen-at-once");
        set_frames();
        map(PAGE_A, FRAME_A, P | W | U | 3ull << 59);
        write_cr4(read_cr4() | CR4_PKE);
        {
            struct regs out =
                RUN(USER, "mov r8, [rbx]; mov eax, 0xc0; wrpkru; mov r9, [rbx]", .rbx = PAGE_A, .rcx = 0, .rdx = 0);

            say(" %s(%x) r8=%x", event_name(out.vector), out.error, out.r8);
            out = RUN(USER,
                      "xor eax, eax; wrpkru; mov r8, [rbx]; mov [rbx], r8; mov eax, 0x80; wrpkru; mov r9, [rbx]; mov "
                      "[rbx], r9",
                      .rbx = PAGE_A, .rcx = 0, .rdx = 0);
            say(" %s(%x) r9=%x", event_name(out.vector), out.error, out.r9);
        }
        __asm__ volatile("wrpkru" : : "a"(0), "c"(0), "d"(0));
        done();
    } else {
        absent("pkru-write-is-seen-at-once", "PKU");
    }
}

/* ---- Process-context identifiers ---- */

static void invpcid(word type, u64 pcid, u64 address)
{
    struct {
        u64 pcid, address;
    } d = { pcid, address };

    __asm__ volatile("invpcid %0, %1" : : "m"(d), "r"(type) : "memory");
}

static void pcids(void)
{
    static const char *const names[] = { "pcid-switch-with-flush", "pcid-switch-back-no-flush-after-invlpg",
                                         "pcid-enable-disable", "pcid-cr3-reads-back" };

    if (!has_leaf1_c(17)) {
        for (unsigned i = 0; i < ARRAY_SIZE(names); i++)
            absent(names[i], "PCID");
        return;
    }
    word root = read_cr3();

    set_frames();
    begin(names[0]);
    write_cr4(read_cr4() | CR4_PCIDE);
    map(PAGE_A, FRAME_A, P | W);
    write_cr3(root | 1);
    print_load("pcid1");
    map(PAGE_A, FRAME_B, P | W);
    write_cr3(root | 2);
    print_load("pcid2");
    write_cr3(root | 1);
    print_load("pcid1");
    write_cr3(root);
    done();

    begin(names[1]);
    write_cr4(read_cr4() | CR4_PCIDE);
    map(PAGE_A, FRAME_A, P | W);
    write_cr3(root | 1);
    print_load("pcid1");
    map(PAGE_A, FRAME_B, P | W);
    invalidate(PAGE_A);
    write_cr3(root | 2 | BIT(63));
    write_cr3(root | 1 | BIT(63));
    print_load("pcid1");
    write_cr3(root);
    done();

    begin(names[2]);
    write_cr4(read_cr4() | CR4_PCIDE);
    map(PAGE_A, FRAME_A, P | W);
    print_load("on");
    map(PAGE_A, FRAME_B, P | W);
    write_cr4(read_cr4() & ~(word)CR4_PCIDE);
    print_load("off");
    done();

    begin(names[3]);
    write_cr4(read_cr4() | CR4_PCIDE);
    write_cr3(root | 0x123 | BIT(63));
    say(" %x", (read_cr3() ^ root));
    write_cr3(root);
    done();
}

static void invpcids(void)
{
    static const char *const names[] = {
        "invpcid-address",
        "invpcid-context",
        "invpcid-all",
        "invpcid-all-but-global",
        "invpcid-user",
        "invpcid-type-4",
        "invpcid-reserved-pcid-bits",
        "invpcid-pcid-without-pcide",
        "invpcid-noncanonical",
        "invpcid-absent-descriptor",
        "invpcid-register-form",
        "invpcid-other-pcid-address",
        "invpcid-other-pcid-context",
    };

    if (!has_leaf7_b(10)) {
        for (unsigned i = 0; i < ARRAY_SIZE(names); i++)
            absent(names[i], "INVPCID");
        return;
    }
    set_frames();
    for (word type = 0; type < 4; type++) {
        begin(names[type]);
        map(PAGE_A, FRAME_A, P | W | (type == 2 ? G : 0));
        print_load("before");
        map(PAGE_A, FRAME_B, P | W | (type == 2 ? G : 0));
        invpcid(type, 0, PAGE_A);
        print_load("after");
        done();
    }
    TRY(names[4], USER, "invpcid rax, [rsp]", .rax = 0);
    TRY(names[5], KERNEL, "invpcid rax, [rsp]", .rax = 4);
    TRY(names[6], KERNEL, "mov qword ptr [rsp], 0x1000; invpcid rax, [rsp]", .rax = 1);
    TRY(names[7], KERNEL, "mov qword ptr [rsp], 1; invpcid rax, [rsp]", .rax = 1);
    TRY(names[8], KERNEL, "mov qword ptr [rsp], 0; mov [rsp+8], rcx; invpcid rax, [rsp]", .rax = 0,
        .rcx = NON_CANONICAL);
    TRY(names[9], KERNEL, "invpcid rax, [rbx]", .rax = 0, .rbx = HOLE);
    TRY(names[10], KERNEL, ".byte 0x66, 0x0f, 0x38, 0x82, 0xc1");
    if (!has_leaf1_c(17)) {
        absent(names[11], "PCID");
        absent(names[12], "PCID");
        return;
    }
    word root = read_cr3();

    for (word type = 0; type < 2; type++) {
        begin(names[11 + type]);
        write_cr4(read_cr4() | CR4_PCIDE);
        map(PAGE_A, FRAME_A, P | W);
        write_cr3(root | 1);
        print_load("before");
        map(PAGE_A, FRAME_B, P | W);
        write_cr3(root | 2 | BIT(63));
        invpcid(type, 1, PAGE_A);
        write_cr3(root | 1 | BIT(63));
        print_load("after");
        write_cr3(root);
        done();
    }
}

/* Many pages, many address spaces: nothing of one shows in another. */
static void many_spaces(void)
{
    static u64 roots[8][512] __attribute__((aligned(PAGE)));
    static u64 tables[8][3][512] __attribute__((aligned(PAGE)));
    word old = read_cr3(), wrong = 0, rounds = 0;
    u32 random = 12345;

    /* PML4 slot 1 differs between the roots: 64 pages each, of frames of their own */
    for (unsigned s = 0; s < 8; s++) {
        for (unsigned i = 0; i < 512; i++)
            roots[s][i] = i == 0 ? *pml4e(0) : 0;
        roots[s][1] = (u64)(word)tables[s][0] | P | W;
        tables[s][0][0] = (u64)(word)tables[s][1] | P | W;
        tables[s][1][0] = (u64)(word)tables[s][2] | P | W;
        for (unsigned i = 0; i < 64; i++) {
            tables[s][2][i] = (FREE_FRAME + (s * 64 + i) * PAGE) | P | W;
            *FRAME64(FREE_FRAME + (s * 64 + i) * PAGE) = s * 1000 + i;
        }
    }
    begin("many-address-spaces");
    for (; rounds < 400; rounds++) {
        unsigned s, n;

        random = random * 1664525 + 1013904223;
        s = random >> 29;
        write_cr3((word)roots[s]);
        for (n = 0; n < 8; n++) {
            unsigned i;

            random = random * 1664525 + 1013904223;
            i = random >> 26;
            wrong += load(BIT(39) + i * PAGE) != s * 1000 + i;
        }
    }
    write_cr3(old);
    say(" rounds=%d wrong=%d", rounds, wrong);
    done();
}

void cases(void)
{
    basic();
    large_pages();
    control_registers();
    pcids();
    invpcids();
    many_spaces();
}
