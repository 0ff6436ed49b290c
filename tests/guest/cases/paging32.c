/* 32-bit paging, 4 MiB pages and PAE, outside long mode. SDM Vol. 3A 4.3, 4.4, 4.6 to 4.8; Vol. 2B MOV to CR.
 *
 * The first 64 MiB and the devices are identity-mapped by large pages: below FRAMES for the supervisor, from there
 * on for the user too. The page under test is at TEST, behind a page table. */
#include "guest.h"

enum { TEST = 0x40000000, FRAME_A = FREE_FRAME, FRAME_B = FREE_FRAME + PAGE, LARGE = 0x40800000 };

static u32 directory[1024] __attribute__((aligned(PAGE)));
static u32 table[1024] __attribute__((aligned(PAGE)));
static u64 pae_pointers[4] __attribute__((aligned(32)));
static u64 pae_directory[4][512] __attribute__((aligned(PAGE)));
static u64 pae_table[512] __attribute__((aligned(PAGE)));

static int has_pse(void)
{
    return cpuid(1, 0).d >> 3 & 1;
}
static word no_wp;

/* Paging on, with `entry` for the page at TEST. */
static void legacy(u32 entry, u32 directory_flags)
{
    for (unsigned i = 0; i < 1024; i++) {
        directory[i] = i < 16 || i >= 0x2c0 ? (u32)i << 22 | P | W | PS | (i >= 4 ? U : 0) : 0;
        table[i] = 0;
    }
    directory[TEST >> 22] = (u32)table | directory_flags;
    table[0] = entry;
    write_cr4(read_cr4() | CR4_PSE);
    write_cr3((word)directory);
    write_cr0((read_cr0() & ~no_wp) | CR0_PG);
}

static void pae(u64 entry, u64 directory_flags)
{
    for (unsigned g = 0; g < 4; g++) {
        pae_pointers[g] = (u32)pae_directory[g] | P;
        for (unsigned i = 0; i < 512; i++)
            pae_directory[g][i] = g == 1 ? 0 : ((u64)g << 30 | (u64)i << 21) | P | W | PS | (g || i >= 8 ? U : 0);
    }
    for (unsigned i = 0; i < 512; i++)
        pae_table[i] = 0;
    pae_directory[1][0] = (u32)pae_table | directory_flags;
    pae_table[0] = entry;
    wrmsr(MSR_EFER, rdmsr(MSR_EFER) | BIT(11));
    write_cr4(read_cr4() | CR4_PAE);
    write_cr3((word)pae_pointers);
    write_cr0((read_cr0() & ~no_wp) | CR0_PG);
}

#define ACCESS(id, text)                                                                                               \
    static struct code id(void)                                                                                        \
    {                                                                                                                  \
        return CODE(text);                                                                                             \
    }
ACCESS(access_read, "mov al, [ebx]")
ACCESS(access_write, "mov [ebx], al")
ACCESS(access_rmw, "add byte ptr [ebx], 0")
ACCESS(access_push, "push eax")
ACCESS(access_fetch, "jmp ebx")

static const struct {
    const char *name;
    struct code (*code)(void);
    word sp;
} accesses[] = {
    { "read", access_read, 0 },         { "write", access_write, 0 }, { "rmw", access_rmw, 0 },
    { "push", access_push, TEST + 64 }, { "fetch", access_fetch, 0 },
};

static void line(const char *name, enum mode mode, u64 flags, u64 directory_flags, int use_pae)
{
    begin(name);
    for (unsigned i = 0; i < ARRAY_SIZE(accesses); i++) {
        struct regs in = { DEFAULTS, .mode = mode, .rbx = TEST + 64, .rsp = accesses[i].sp }, out;

        /* exceptions at CPL 0 need a stack: a push that succeeds uses the page under test */
        fill(FRAME_A, 0, 128);
        *FRAME8(FRAME_A + 64) = 0xcd;
        *FRAME8(FRAME_A + 65) = 0x40;
        if (mode == KERNEL && accesses[i].sp)
            continue;
        if (use_pae)
            pae(flags ? FRAME_A | flags : 0, directory_flags);
        else
            legacy(flags ? FRAME_A | (u32)flags : 0, (u32)directory_flags);
        run(accesses[i].code(), &in, &out);
        write_cr0(read_cr0() & ~CR0_PG);
        if (out.vector == PG)
            say(" %s=%x%s", accesses[i].name, out.error, out.cr2 - TEST < PAGE ? "" : "?");
        else
            say(" %s=%s", accesses[i].name, event_name(out.vector));
    }
    done();
}

static void matrix(const char *prefix, int use_pae)
{
    static const struct {
        const char *name;
        u64 flags;
    } rights[] = {
        { "absent", 0 }, { "kernel-ro", P }, { "kernel-rw", P | W }, { "user-ro", P | U }, { "user-rw", P | W | U }
    };

    for (unsigned i = 0; i < ARRAY_SIZE(rights); i++) {
        line(name_of("%s-kernel-%s", prefix, rights[i].name), KERNEL, rights[i].flags, P | W | U, use_pae);
        line(name_of("%s-user-%s", prefix, rights[i].name), USER, rights[i].flags, P | W | U, use_pae);
        no_wp = CR0_WP;
        line(name_of("%s-kernel-no-wp-%s", prefix, rights[i].name), KERNEL, rights[i].flags, P | W | U, use_pae);
        no_wp = 0;
    }
    line(name_of("%s-directory-supervisor", prefix), USER, P | W | U, P | W, use_pae);
    line(name_of("%s-directory-read-only", prefix), USER, P | W | U, P | U, use_pae);
    line(name_of("%s-directory-absent", prefix), USER, P | W | U, 0, use_pae);
}

static void legacy_cases(void)
{
    legacy(FRAME_A | P | W | U, P | W | U);
    OPEN("legacy-accessed", USER, "mov al, [ebx]; mov al, 0", .rbx = TEST, .hide = 1);
    say(" pde=%x pte=%x", (word)(directory[TEST >> 22] & 0x60), (word)(table[0] & 0x60));
    done();
    legacy(FRAME_A | P | W | U, P | W | U);
    OPEN("legacy-dirty", USER, "mov [ebx], al", .rbx = TEST);
    say(" pde=%x pte=%x", (word)(directory[TEST >> 22] & 0x60), (word)(table[0] & 0x60));
    done();
    if (!has_pse())
        return;
    legacy(0, P | W | U);
    directory[LARGE >> 22] = (FREE_FRAME & ~0x3fffffu) | P | W | U | PS;
    *FRAME32((FREE_FRAME & ~0x3fffffu) + 0x212344) = 0x5a5a;
    OPEN("pse-read", USER, "mov eax, [ebx]", .rbx = LARGE + 0x212344);
    say(" pde=%x", (word)(directory[LARGE >> 22] & 0x60));
    done();
    legacy(0, P | W | U);
    directory[LARGE >> 22] = (FREE_FRAME & ~0x3fffffu) | P | W | U | PS;
    OPEN("pse-write", USER, "mov [ebx], eax", .rbx = LARGE + 0x212344);
    say(" pde=%x", (word)(directory[LARGE >> 22] & 0x60));
    done();
    legacy(0, P | W | U);
    directory[LARGE >> 22] = (FREE_FRAME & ~0x3fffffu) | P | W | U | PS | 1 << 21;
    TRY("pse-reserved-bit-21", USER, "mov eax, [ebx]", .rbx = LARGE);
    legacy(0, P | W | U);
    directory[LARGE >> 22] = (FREE_FRAME & ~0x3fffffu) | P | W | U | PS | 1 << 12;
    TRY("pse-pat-bit-12", USER, "mov eax, [ebx]", .rbx = LARGE + 0x212344);
    /* without CR4.PSE the bit is ignored, and the entry names a table */
    legacy(FRAME_A | P | W | U, P | W | U);
    *FRAME32(FRAME_A) = 0x77;
    begin("pse-off");
    {
        /* small pages for the first 4 MiB * 5 so that the image and the probe live on */
        static u32 small[5][1024] __attribute__((aligned(PAGE)));

        for (unsigned i = 0; i < 5; i++) {
            for (unsigned j = 0; j < 1024; j++)
                small[i][j] = (u32)(i << 22 | j << 12) | P | W | U;
            directory[i] = (u32)small[i] | P | W | U;
        }
        directory[TEST >> 22] |= PS;
        write_cr4(read_cr4() & ~(word)CR4_PSE);
        write_cr3((word)directory);
        {
            struct regs out = RUN(USER, "mov eax, [ebx]", .rbx = TEST);

            say(" %s ax=%x", event_name(out.vector), out.rax);
        }
    }
    done();
    legacy(FRAME_A | P | W | U, P | W | U);
    table[1] = FRAME_B | P | U;
    TRY("legacy-cross-write-second-read-only", USER, "mov [ebx], eax", .rbx = TEST + PAGE - 2);
    legacy(FRAME_A | P | W | U, P | W | U);
    TRY("legacy-cross-read-second-absent", USER, "mov eax, [ebx]", .rbx = TEST + PAGE - 2);
    legacy(FRAME_A | P | W | U, P | W | U);
    TRY("legacy-rep-movs", USER, "rep movsd", .rsi = TEST, .rdi = TEST + PAGE - 12, .rcx = 10);
    legacy(0, P | W | U);
    TRY("legacy-inner-stack-absent", USER, "int 0x40");
    legacy(FRAME_A | P | W | U, P | W | U);
    TRY("legacy-cr2-and-error-by-call", USER, "call ebx", .rbx = TEST + 2 * PAGE);
    legacy(FRAME_A | P | W | U, P | W | U);
    TRY("legacy-invlpg-then-absent", KERNEL, "mov al, [ebx]; mov dword ptr [ecx], 0; invlpg [ebx]; mov al, [ebx]",
        .rbx = TEST, .rcx = (word)&table[0], .hide = 3);
    if (has_leaf7_b(7) && has_leaf7_b(20)) {
        legacy(FRAME_A | P | W | U, P | W | U);
        /* the code is on user pages: only SMAP can be tried there */
        write_cr4(read_cr4() | CR4_SMAP);
        {
            struct regs in = { DEFAULTS, .mode = KERNEL, .rbx = TEST, .rsp = 0 }, out;

            /* the supervisor's stack must not be a user page */
            static u8 stack[4096] __attribute__((aligned(16)));

            in.rsp = (word)stack + sizeof(stack);
            in.hide = 1 << 4;
            __asm__ volatile(".byte 0x0f, 0x01, 0xcb"); /* STAC */
            run(CODE("mov al, [ebx]"), &in, &out);
            report("legacy-smap", &in, &out);
        }
        done();
    } else {
        absent("legacy-smap", "SMAP");
    }
}

static void pae_cases(void)
{
    pae(FRAME_A | P | W | U, P | W | U);
    OPEN("pae-accessed-dirty", USER, "mov [ebx], al", .rbx = TEST);
    say(" pdpte=%x pde=%x pte=%x", (word)(pae_pointers[1] & 0x60), (word)(pae_directory[1][0] & 0x60),
        (word)(pae_table[0] & 0x60));
    done();
    pae(FRAME_A | P | W | U | NX, P | W | U);
    TRY("pae-nx", USER, "jmp ebx", .rbx = TEST);
    pae(FRAME_A | P | W | U, P | W | U | NX);
    TRY("pae-directory-nx", USER, "jmp ebx", .rbx = TEST);
    pae(FRAME_A | P | W | U | BIT(52), P | W | U);
    TRY("pae-reserved-bit-52", USER, "mov al, [ebx]", .rbx = TEST);
    pae(FRAME_A | P | W | U | BIT(62), P | W | U);
    TRY("pae-reserved-bit-62", USER, "mov [ebx], al", .rbx = TEST);
    pae(FRAME_A | P | W | U, P | W | U | BIT(60));
    TRY("pae-directory-reserved-bit-60", USER, "mov al, [ebx]", .rbx = TEST);
    pae(0, P | W | U);
    pae_directory[1][4] = FREE_FRAME | P | W | U | PS;
    TRY("pae-2m", USER, "mov eax, [ebx]; xor eax, eax", .rbx = LARGE + 0x1234, .rax = 0);
    pae(0, P | W | U);
    pae_directory[1][4] = FREE_FRAME | P | W | U | PS | BIT(14);
    TRY("pae-2m-reserved-bit-14", USER, "mov eax, [ebx]", .rbx = LARGE + 0x1234);
    pae(FRAME_A | P | W | U, P | W | U);
    pae_pointers[1] = 0;
    write_cr3((word)pae_pointers);
    TRY("pae-pdpte-absent", USER, "mov al, [ebx]", .rbx = TEST);
    pae(FRAME_A | P | W | U, P | W | U);
    pae_pointers[3] |= BIT(1);
    TRY("pae-pdpte-reserved-bit-1-at-cr3-load", KERNEL, "mov eax, cr3; mov cr3, eax", .hide = 1);
    pae(FRAME_A | P | W | U, P | W | U);
    pae_pointers[3] |= BIT(63);
    TRY("pae-pdpte-reserved-bit-63-at-cr3-load", KERNEL, "mov eax, cr3; mov cr3, eax", .hide = 1);
    pae(FRAME_A | P | W | U, P | W | U);
    pae_pointers[3] = 0x1e6; /* reserved bits of an entry that is not present are not looked at */
    TRY("pae-pdpte-absent-with-garbage-at-cr3-load", KERNEL, "mov eax, cr3; mov cr3, eax", .hide = 1);
    pae(FRAME_A | P | W | U, P | W | U);
    pae_pointers[1] = 0;
    TRY("pae-pdpte-is-cached-until-cr3-load", USER, "mov al, [ebx]; mov al, 0", .rbx = TEST, .hide = 1);
    pae(FRAME_A | P | W | U, P | W | U);
    pae_pointers[1] |= BIT(5) | BIT(6);
    begin("pae-pdpte-reserved-at-paging-on");
    write_cr0(read_cr0() & ~CR0_PG);
    {
        struct regs out = RUN(KERNEL, "mov eax, cr0; bts eax, 31; mov cr0, eax");

        say(" %s(%x)", event_name(out.vector), out.error);
    }
    done();
    pae(FRAME_A | P | W | U, P | W | U);
    begin("pae-pdpte-reserved-at-cr4-change");
    pae_pointers[2] |= BIT(8);
    {
        struct regs out = RUN(KERNEL, "mov eax, cr4; xor eax, 0x80; mov cr4, eax");

        say(" %s(%x)", event_name(out.vector), out.error);
    }
    done();
    pae(FRAME_A | P | W | U, P | W | U);
    begin("pae-cr3-low-bits-name-the-table");
    {
        /* 32-byte aligned: bits 11:5 count */
        static u64 many[3][4] __attribute__((aligned(PAGE)));

        for (unsigned i = 0; i < 4; i++)
            many[1][i] = pae_pointers[i];
        write_cr3((word)many[1]);
        say(" %s", event_name(RUN(USER, "mov al, [ebx]", .rbx = TEST).vector));
    }
    done();
    if (has_leaf7_b(7)) {
        pae(FRAME_A | P | W | U, P | W | U);
        begin("pae-smep-fetch");
        {
            struct regs in = { DEFAULTS, .mode = KERNEL }, out;
            static const u8 text[] = { 0xcd, 0x40 };

            /* the probe itself is in a user page: SMEP stops its first fetch */
            write_cr4(read_cr4() | CR4_SMEP);
            run((struct code){ text, text + 2 }, &in, &out);
            say(" %s(%x)", event_name(out.vector), out.error);
        }
        done();
    } else {
        absent("pae-smep-fetch", "SMEP");
    }
}

/* Paging is switched on and off, and the CPU goes on at the same address. */
static void switching(void)
{
    begin("paging-on-and-off");
    for (unsigned i = 0; i < 3; i++) {
        legacy(FRAME_A | P | W | U, P | W | U);
        *FRAME32(FRAME_A) = i + 1;
        say(" %x", (word)*FRAME32(TEST));
        write_cr0(read_cr0() & ~CR0_PG);
        pae(FRAME_B | P | W | U, P | W | U);
        *FRAME32(FRAME_B) = 0x10 + i;
        say(" %x", (word)*FRAME32(TEST));
        write_cr0(read_cr0() & ~CR0_PG);
        write_cr4(read_cr4() & ~(word)CR4_PAE);
    }
    done();
    if (!skipped("paging-mode-changed-while-on")) {
        /* entries of one kind are tables of the other: only that it is refused or survived counts */
        struct regs out;

        begin("paging-mode-changed-while-on");
        legacy(FRAME_A | P | W | U, P | W | U);
        pae_pointers[0] = BIT(1) | P; /* what CR3 will name has reserved bits */
        write_cr3((word)directory);
        directory[0] |= P | BIT(1);
        out = RUN(KERNEL, "mov eax, cr4; or eax, 0x20; mov cr4, eax");
        say(" %s(%x)", event_name(out.vector), out.error);
    }
    done();
}

void cases(void)
{
    matrix("legacy", 0);
    matrix("pae", 1);
    legacy_cases();
    pae_cases();
    switching();
}
