/* The TLBs: what is cached, what an access of each form may match, and what each kind of invalidation must take
 * away (SDM Vol. 3A 4.10.4). */
#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "guest.h"
#include "random.h"

#define USER_GVA   0x00007f0012345000ull
#define KERNEL_GVA 0xffffffff81234000ull
#define LEAF       (PTE_P | PTE_RW | PTE_US)

static const gpa_t page_a = GUEST_PAGES + 0x10000, page_b = GUEST_PAGES + 0x20000;

static void map(struct guest *guest, gpa_t root, gva_t gva, uint64_t entry)
{
    *guest_entry(guest, root, gva, 12) = entry;
}

static gpa_t read_page(struct guest *guest, gva_t gva)
{
    gpa_t gpa = guest_access(guest, gva, MMU_READ, MMU_SUPERVISOR, NULL);

    return gpa == ~0ull ? gpa : gpa & PAGE_MASK;
}

/* ---- What a check matches: design 6a.1 and 6a.3 ---- */

static const gva_t probe_pages[] = {
    0,
    0x1000,
    0x3ff000,
    0x400000,
    0x7fffffff000,
    0x00007fffffffe000,
    0x00007ffffffff000,
    /* the non-canonical gap */
    0x0000800000000000,
    0x0000800000001000,
    0x0000ffffffffffff & PAGE_MASK,
    0x7ffffffffffff000,
    0x8000000000000000,
    0x80000000fffff000,
    0x8000000000001000,
    0xffff000000000000,
    0xffff7ffffffff000,
    0xffff800000000000,
    0xffff800000001000,
    0xffffffff80000000,
    0xffffffffffffe000,
    0xfffffffffffff000,
};
static const unsigned probe_sizes[] = { 1, 2, 3, 4, 6, 8, 10, 16, 28, 32, 64, 108, 512 };

/* Plain model: the access is within the page that was filled, and nothing else. */
static void check_all_probes(struct mmu *mmu, gva_t filled, bool writable)
{
    for (unsigned p = 0; p < ARRAY_SIZE(probe_pages); p++) {
        for (unsigned s = 0; s < ARRAY_SIZE(probe_sizes); s++) {
            for (unsigned offset = 0; offset < 4096; offset = offset < 130 || offset >= 3500 ? offset + 1 : 3500) {
                gva_t gva = probe_pages[p] + offset;
                unsigned size = probe_sizes[s];
                bool inside = probe_pages[p] == filled && offset + size <= PAGE_SIZE;
                uint8_t *read = mmu_lookup_read(mmu, gva, size, MMU_SUPERVISOR);
                uint8_t *write = mmu_lookup_write(mmu, gva, size, MMU_SUPERVISOR);
                cr_assert_eq(read != NULL, inside, "read of %u at 0x%llx", size, (unsigned long long)gva);
                cr_assert_eq(write != NULL, inside && writable, "write of %u at 0x%llx", size, (unsigned long long)gva);
                if (read)
                    cr_assert_eq((uintptr_t)read & ~PAGE_MASK, offset);
                cr_assert_null(mmu_lookup_read(mmu, gva, size, MMU_USER));
            }
        }
    }
}

static bool canonical(gva_t gva)
{
    return (gva_t)((int64_t)(gva << 16) >> 16) == gva;
}

Test(tlb, check_forms)
{
    struct guest guest;

    guest_create(&guest);
    gpa_t root = guest_table(&guest);
    guest_paging_on(&guest, root, 0);
    check_all_probes(guest.mmu, ~0ull, false);
    for (unsigned i = 0; i < ARRAY_SIZE(probe_pages); i++) {
        if (!canonical(probe_pages[i]))
            continue;
        bool writable = i & 1;
        map(&guest, root, probe_pages[i], page_a | PTE_P | (writable ? PTE_RW | PTE_D : 0));
        cr_assert_eq(read_page(&guest, probe_pages[i]), page_a);
        check_all_probes(guest.mmu, probe_pages[i], writable);
        mmu_invlpg(guest.mmu, probe_pages[i]);
        check_all_probes(guest.mmu, ~0ull, false);
    }
    guest_destroy(&guest);
}

/* An invalid tag cannot be reached by any address that is looked up by its index; one that is compared
 * without an index (a predicted entry) ends at a page that nobody may touch. */
Test(tlb, invalid_tags)
{
    struct random random = random_start(0x746167);
    struct guest guest;

    guest_create(&guest);
    for (unsigned i = 0; i < 1000000; i++) {
        gva_t gva = random_u64(&random);
        if (i & 1)
            gva = mmu_invalid_tag((unsigned)random_u64(&random) & 0xfffff) | (gva & 0xfff);
        cr_assert_null(mmu_lookup_read(guest.mmu, gva, 1, random_below(&random, 3)));
        cr_assert_null(mmu_lookup_write(guest.mmu, gva, 1, random_below(&random, 3)));
    }
    for (unsigned index = 0; index < MMU_L1_SIZE; index++) {
        const struct tlb_entry *entry = &guest.mmu->l1[MMU_USER][index];
        cr_assert_not(canonical(entry->tag_r) || canonical(entry->tag_w));
        cr_assert_eq(entry->host_r, guest.mmu->no_access_page);
        cr_assert_eq(entry->host_w, guest.mmu->no_access_page);
    }
    guest_destroy(&guest);
}

Test(tlb, no_access_page)
{
    struct guest guest;
    int fds[2];

    guest_create(&guest);
    cr_assert_eq(pipe(fds), 0);
    cr_assert_eq(write(fds[1], guest.mmu->no_access_page, 1), -1);
    cr_assert_eq(errno, EFAULT);
    cr_assert_eq(write(fds[1], guest.mmu->no_access_page + PAGE_SIZE - 1, 1), -1);
    cr_assert_eq(errno, EFAULT);
    close(fds[0]);
    close(fds[1]);
    guest_destroy(&guest);
}

/* ---- Filling ---- */

Test(tlb, second_access_hits)
{
    struct guest guest;
    bool hit;

    guest_create(&guest);
    gpa_t root = guest_table(&guest);
    guest_paging_on(&guest, root, 0);
    map(&guest, root, USER_GVA, page_a | LEAF);
    for (unsigned privilege = 0; privilege < MMU_PRIVILEGES; privilege++) {
        for (unsigned access = MMU_READ; access <= MMU_EXECUTE; access++) {
            guest_access(&guest, USER_GVA + 5, access, privilege, NULL);
            cr_assert_eq(guest_access(&guest, USER_GVA + 6, access, privilege, &hit), page_a + 6);
            cr_assert(hit, "privilege %u access %u", privilege, access);
        }
    }
    cr_assert_eq(guest.mmu->stats.walks, 2, "one to read, one to set D; the rest comes from L2");
    guest_destroy(&guest);
}

static unsigned resident_pages(const struct guest *guest)
{
    static unsigned char pages[GUEST_RAM / PAGE_SIZE];
    unsigned count = 0;

    cr_assert_eq(mincore(guest->ram, GUEST_RAM, pages), 0);
    for (unsigned i = 0; i < ARRAY_SIZE(pages); i++)
        count += pages[i] & 1;
    return count;
}

static void touch(struct guest *guest, gva_t gva, enum mmu_access access)
{
    struct mmu_target target;
    struct fault fault;

    cr_assert_eq(mmu_translate(guest->mmu, gva, access, MMU_SUPERVISOR, &target, &fault), 0);
}

/* RAM is made 64 KiB at a time, where it is touched, and nowhere else. */
Test(tlb, host_pages_come_in_windows)
{
    struct guest guest;

    guest_create(&guest);
    cr_assert_eq(madvise(guest.ram, GUEST_RAM, MADV_REMOVE), 0);
    if (madvise(guest.ram, PAGE_SIZE, 23 /* MADV_POPULATE_WRITE */))
        cr_skip_test("the host's kernel does not make pages in advance");
    cr_assert_eq(madvise(guest.ram, GUEST_RAM, MADV_REMOVE), 0);
    cr_assert_eq(resident_pages(&guest), 0);
    touch(&guest, 5 * MIB + 0x1234, MMU_READ);
    cr_assert_eq(resident_pages(&guest), 16);
    touch(&guest, 5 * MIB + 0xffff, MMU_WRITE);
    cr_assert_eq(resident_pages(&guest), 16, "the same window");
    touch(&guest, 5 * MIB + 0x10000, MMU_WRITE);
    cr_assert_eq(resident_pages(&guest), 32, "the next one");
    touch(&guest, GUEST_RAM - 1, MMU_READ);
    cr_assert_eq(resident_pages(&guest), 48, "the last one");
    guest_destroy(&guest);
}

Test(tlb, write_tag_needs_dirty)
{
    struct guest guest;
    bool hit;

    guest_create(&guest);
    gpa_t root = guest_table(&guest);
    guest_paging_on(&guest, root, 0);
    map(&guest, root, USER_GVA, page_a | LEAF);
    guest_access(&guest, USER_GVA, MMU_READ, MMU_USER, NULL);
    uint64_t *entry = guest_entry(&guest, root, USER_GVA, 12);
    cr_assert_eq(*entry, page_a | LEAF | PTE_A);
    guest_access(&guest, USER_GVA, MMU_WRITE, MMU_USER, &hit);
    cr_assert_not(hit);
    cr_assert_eq(*entry, page_a | LEAF | PTE_A | PTE_D);
    guest_access(&guest, USER_GVA, MMU_WRITE, MMU_USER, &hit);
    cr_assert(hit);
    guest_destroy(&guest);
}

Test(tlb, rom_mmio_and_apic_page)
{
    static const uint8_t rom_bytes[4096] = { 0x55, 0xaa };
    struct io_ops ops = { 0 };
    struct mmu_target target;
    struct fault fault;
    struct guest guest;

    guest_create(&guest);
    gpa_t root = guest_table(&guest);
    physmem_add_rom(guest.mem, 0xfff00000, 4096, rom_bytes, sizeof(rom_bytes), "rom", NULL);
    physmem_add_mmio(guest.mem, 0xfe000000, 4096, &ops, NULL, "device", NULL);
    mmu_set_apic_page(guest.mmu, page_b);
    guest_paging_on(&guest, root, 0);
    map(&guest, root, 0x1000, 0xfff00000 | LEAF | PTE_D);
    map(&guest, root, 0x2000, 0xfe000000 | LEAF | PTE_D);
    map(&guest, root, 0x3000, page_b | LEAF | PTE_D);
    map(&guest, root, 0x4000, 0xd0000000 | LEAF | PTE_D);

    cr_assert_eq(mmu_translate(guest.mmu, 0x1001, MMU_READ, MMU_USER, &target, &fault), 0);
    cr_assert_eq(*target.host, 0xaa);
    cr_assert(mmu_lookup_read(guest.mmu, 0x1001, 1, MMU_USER));
    cr_assert_null(mmu_lookup_write(guest.mmu, 0x1001, 1, MMU_USER));
    cr_assert_eq(mmu_translate(guest.mmu, 0x1001, MMU_WRITE, MMU_USER, &target, &fault), 0);
    cr_assert_null(target.host);
    for (gva_t gva = 0x2000; gva <= 0x4000; gva += 0x1000) {
        static const gpa_t gpas[] = { 0xfe000000, 0, 0xd0000000 };
        for (unsigned access = MMU_READ; access <= MMU_EXECUTE; access++) {
            cr_assert_eq(mmu_translate(guest.mmu, gva + 8, access, MMU_USER, &target, &fault), 0);
            cr_assert_null(target.host);
            cr_assert_eq(target.gpa, (gva == 0x3000 ? page_b : gpas[(gva >> 12) - 2]) + 8);
            cr_assert_null(mmu_lookup_read(guest.mmu, gva + 8, 1, MMU_USER));
            cr_assert_null(mmu_lookup_write(guest.mmu, gva + 8, 1, MMU_USER));
        }
    }
    mmu_set_apic_page(guest.mmu, ~0ull);
    cr_assert_eq(read_page(&guest, 0x3000), page_b);
    mmu_set_apic_page(guest.mmu, page_b);
    cr_assert_null(mmu_lookup_read(guest.mmu, 0x3000, 1, MMU_SUPERVISOR), "the APIC came to where RAM was cached");
    guest_destroy(&guest);
}

/* ---- Invalidation ---- */

Test(tlb, rights_may_widen_without_invlpg)
{
    struct guest guest;

    guest_create(&guest);
    gpa_t root = guest_table(&guest);
    guest_paging_on(&guest, root, 0);
    map(&guest, root, USER_GVA, page_a | PTE_P | PTE_US);
    cr_assert_eq(read_page(&guest, USER_GVA), page_a);
    cr_assert_eq(guest_access(&guest, USER_GVA, MMU_WRITE, MMU_USER, NULL), ~0ull);
    map(&guest, root, USER_GVA, page_b | LEAF);
    cr_assert_eq(guest_access(&guest, USER_GVA, MMU_WRITE, MMU_USER, NULL), page_b);
    cr_assert_eq(read_page(&guest, USER_GVA), page_b, "the fault took the old translation away");
    guest_destroy(&guest);
}

Test(tlb, large_pages_go_as_a_whole)
{
    static const struct {
        unsigned shift;
        gva_t gva;
    } cases[] = { { 21, 0x40000000 }, { 21, 0xffff888000000000 }, { 30, 0x80000000 }, { 30, 0xffff888040000000 } };

    for (unsigned limit = 0; limit <= 4; limit += 4) {
        for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
            for (unsigned global = 0; global < 2; global++) {
                struct guest guest;
                guest_create(&guest);
                mmu_set_l1_limit(guest.mmu, limit);
                gpa_t root = guest_table(&guest);
                guest_paging_on(&guest, root, 0);
                uint64_t *entry = guest_entry(&guest, root, cases[i].gva, cases[i].shift);
                gva_t base = cases[i].gva + GUEST_PAGES; /* 2 MiB cases: entries of the 5th */
                if (cases[i].shift == 21)
                    entry = guest_entry(&guest, root, base, 21);
                uint64_t flags = LEAF | PTE_PS | (global ? PTE_G : 0);
                *entry = (cases[i].shift == 21 ? GUEST_PAGES : 0) | flags;
                for (unsigned n = 0; n < 512; n += 3)
                    for (unsigned access = MMU_READ; access <= MMU_EXECUTE; access++)
                        cr_assert_eq(guest_access(&guest, base + n * PAGE_SIZE, access, n % 3, NULL),
                                     GUEST_PAGES + n * PAGE_SIZE);
                uint64_t generation = guest.mmu->exec_generation;
                *entry = 0;
                mmu_invlpg(guest.mmu, base + 77 * PAGE_SIZE + 123);
                cr_assert_neq(guest.mmu->exec_generation, generation);
                for (unsigned n = 0; n < 512; n++) /* fetch first: a fault takes away what the next access looks for */
                    for (unsigned access = MMU_EXECUTE + 1; access-- > MMU_READ;)
                        cr_assert_eq(guest_access(&guest, base + n * PAGE_SIZE, access, n % 3, NULL), ~0ull,
                                     "case %u, piece %u is still there", i, n);
                guest_destroy(&guest);
            }
        }
    }
}

/* 32-bit paging: two halves of 2 MiB in L2. */
Test(tlb, four_mib_pages)
{
    struct guest guest;

    guest_create(&guest);
    gpa_t root = guest_table(&guest);
    uint32_t *directory = (uint32_t *)(guest.ram + root);
    mmu_set_cr4(guest.mmu, CR4_PSE);
    mmu_set_cr3(guest.mmu, root, false);
    mmu_set_cr0(guest.mmu, CR0_PG | CR0_WP | 1);
    for (unsigned half = 0; half < 2; half++) {
        directory[2] = GUEST_PAGES | LEAF | PTE_PS;
        for (unsigned n = 0; n < 1024; n += 5)
            cr_assert_eq(read_page(&guest, 0x800000 + n * PAGE_SIZE), GUEST_PAGES + n * PAGE_SIZE);
        uint64_t walks = guest.mmu->stats.walks;
        mmu_set_cr0(guest.mmu, CR0_PG | 1); /* drops L1 only */
        mmu_set_cr0(guest.mmu, CR0_PG | CR0_WP | 1);
        cr_assert_eq(read_page(&guest, 0xa00000), GUEST_PAGES + 2 * MIB);
        cr_assert_eq(guest.mmu->stats.walks, walks);
        directory[2] = 0;
        mmu_invlpg(guest.mmu, half ? 0xbff000 : 0x800000);
        for (unsigned n = 0; n < 1024; n++)
            cr_assert_eq(read_page(&guest, 0x800000 + n * PAGE_SIZE), ~0ull, "piece %u", n);
    }
    guest_destroy(&guest);
}

Test(tlb, mov_cr3_keeps_global_pages)
{
    struct guest guest;

    guest_create(&guest);
    gpa_t root = guest_table(&guest);
    guest_paging_on(&guest, root, 0);
    map(&guest, root, USER_GVA, page_a | LEAF);
    map(&guest, root, KERNEL_GVA, page_a | LEAF | PTE_G);
    read_page(&guest, USER_GVA);
    read_page(&guest, KERNEL_GVA);
    map(&guest, root, USER_GVA, page_b | LEAF);
    map(&guest, root, KERNEL_GVA, page_b | LEAF | PTE_G);
    mmu_set_cr3(guest.mmu, root, false);
    cr_assert_eq(read_page(&guest, USER_GVA), page_b);
    cr_assert_eq(read_page(&guest, KERNEL_GVA), page_a, "allowed, and what makes system calls cheap");
    mmu_set_cr4(guest.mmu, CR4_PAE);
    cr_assert_eq(read_page(&guest, KERNEL_GVA), page_b);
    guest_destroy(&guest);
}

Test(tlb, pcids)
{
    struct guest guest;

    guest_create(&guest);
    gpa_t roots[2] = { guest_table(&guest), guest_table(&guest) };
    map(&guest, roots[0], USER_GVA, page_a | LEAF);
    map(&guest, roots[1], USER_GVA, page_b | LEAF);
    guest_paging_on(&guest, roots[0], CR4_PCIDE);
    mmu_set_cr3(guest.mmu, roots[0] | 1, false);
    cr_assert_eq(read_page(&guest, USER_GVA), page_a);
    mmu_set_cr3(guest.mmu, roots[1] | 2, false);
    cr_assert_eq(read_page(&guest, USER_GVA), page_b);
    uint64_t walks = guest.mmu->stats.walks;
    for (unsigned i = 0; i < 10; i++) {
        mmu_set_cr3(guest.mmu, roots[0] | 1, true);
        cr_assert_eq(read_page(&guest, USER_GVA), page_a);
        mmu_set_cr3(guest.mmu, roots[1] | 2, true);
        cr_assert_eq(read_page(&guest, USER_GVA), page_b);
    }
    cr_assert_eq(guest.mmu->stats.walks, walks, "both spaces stay in L2");

    /* a PCID that gets another root holds nothing of the old one */
    mmu_set_cr3(guest.mmu, roots[1] | 1, true);
    cr_assert_eq(read_page(&guest, USER_GVA), page_b);
    /* without bit 63 the PCID is dropped */
    mmu_set_cr3(guest.mmu, roots[1] | 2, true);
    map(&guest, roots[1], USER_GVA, page_a | LEAF);
    mmu_set_cr3(guest.mmu, roots[1] | 2, false);
    cr_assert_eq(read_page(&guest, USER_GVA), page_a);
    guest_destroy(&guest);
}

Test(tlb, invpcid)
{
    struct guest guest;
    bool hit;

    guest_create(&guest);
    gpa_t roots[2] = { guest_table(&guest), guest_table(&guest) };
    gva_t other = USER_GVA + 0x1000;
    for (unsigned type = 0; type < 4; type++) {
        guest_paging_on(&guest, roots[0], CR4_PCIDE);
        for (unsigned target = 1; target <= 2; target++) {
            mmu_flush_all(guest.mmu);
            for (unsigned i = 0; i < 2; i++) {
                map(&guest, roots[i], USER_GVA, page_a | LEAF);
                map(&guest, roots[i], other, page_a | LEAF);
                map(&guest, roots[i], KERNEL_GVA, page_a | LEAF | PTE_G);
            }
            for (unsigned i = 0; i < 2; i++) {
                mmu_set_cr3(guest.mmu, roots[i] | (i + 1), true);
                cr_assert_eq(read_page(&guest, USER_GVA), page_a);
                cr_assert_eq(read_page(&guest, other), page_a);
                cr_assert_eq(read_page(&guest, KERNEL_GVA), page_a);
            }
            for (unsigned i = 0; i < 2; i++) {
                map(&guest, roots[i], USER_GVA, page_b | LEAF);
                map(&guest, roots[i], other, page_b | LEAF);
                map(&guest, roots[i], KERNEL_GVA, page_b | LEAF | PTE_G);
            }
            mmu_invpcid(guest.mmu, type, target, USER_GVA); /* running in PCID 2 */
            if (type != 2) {
                guest_access(&guest, KERNEL_GVA, MMU_READ, MMU_SUPERVISOR, &hit);
                cr_assert(hit, "type %u keeps global pages", type);
            }
            for (unsigned i = 2; i-- > 0;) {
                mmu_set_cr3(guest.mmu, roots[i] | (i + 1), true);
                bool named = target == i + 1;
                gpa_t want = (type <= 1 && named) || type >= 2 ? page_b : page_a;
                cr_assert_eq(read_page(&guest, USER_GVA), want, "type %u target %u pcid %u", type, target, i + 1);
                want = (type == 1 && named) || type >= 2 ? page_b : page_a;
                cr_assert_eq(read_page(&guest, other), want, "type %u target %u pcid %u", type, target, i + 1);
                cr_assert_eq(read_page(&guest, KERNEL_GVA), type == 2 ? page_b : page_a);
            }
        }
    }
    guest_destroy(&guest);
}

/* A change of any of these must not leave an entry that it forbids. */
Test(tlb, control_bits_take_effect_at_once)
{
    struct guest guest;

    guest_create(&guest);
    gpa_t root = guest_table(&guest);
    guest_paging_on(&guest, root, 0);
    map(&guest, root, USER_GVA, page_a | LEAF);
    map(&guest, root, 0x5000, page_a | PTE_P | PTE_D | PTE_US);
    map(&guest, root, 0x6000, page_a | LEAF | 3ull << PTE_PKEY_SHIFT);

    mmu_set_cr0(guest.mmu, CR0_PG | 1);
    cr_assert_eq(guest_access(&guest, 0x5000, MMU_WRITE, MMU_SUPERVISOR, NULL), page_a);
    mmu_set_cr0(guest.mmu, CR0_PG | CR0_WP | 1);
    cr_assert_eq(guest_access(&guest, 0x5000, MMU_WRITE, MMU_SUPERVISOR, NULL), ~0ull);

    uint64_t cr4 = CR4_PAE | CR4_PGE;
    cr_assert_eq(guest_access(&guest, USER_GVA, MMU_EXECUTE, MMU_SUPERVISOR, NULL), page_a);
    mmu_set_cr4(guest.mmu, cr4 |= CR4_SMEP);
    cr_assert_eq(guest_access(&guest, USER_GVA, MMU_EXECUTE, MMU_SUPERVISOR, NULL), ~0ull);
    cr_assert_eq(read_page(&guest, USER_GVA), page_a);
    mmu_set_cr4(guest.mmu, cr4 |= CR4_SMAP);
    cr_assert_eq(read_page(&guest, USER_GVA), ~0ull);
    cr_assert_eq(guest_access(&guest, USER_GVA, MMU_READ, MMU_SUPERVISOR_AC, NULL), page_a);

    cr_assert_eq(guest_access(&guest, 0x6000, MMU_WRITE, MMU_USER, NULL), page_a);
    mmu_set_pkru(guest.mmu, 2 << 6);
    cr_assert_eq(guest_access(&guest, 0x6000, MMU_WRITE, MMU_USER, NULL), page_a, "CR4.PKE is off");
    mmu_set_cr4(guest.mmu, cr4 |= CR4_PKE);
    cr_assert_eq(guest_access(&guest, 0x6000, MMU_WRITE, MMU_USER, NULL), ~0ull);
    cr_assert_eq(guest_access(&guest, 0x6000, MMU_READ, MMU_USER, NULL), page_a);
    mmu_set_pkru(guest.mmu, 1 << 6);
    cr_assert_eq(guest_access(&guest, 0x6000, MMU_READ, MMU_USER, NULL), ~0ull);
    mmu_set_pkru(guest.mmu, 0);
    uint64_t walks = guest.mmu->stats.walks;
    guest_access(&guest, USER_GVA, MMU_READ, MMU_USER, NULL);
    uint64_t fills = guest.mmu->stats.l1_fills;
    mmu_set_pkru(guest.mmu, 0x55555550);
    cr_assert_eq(guest_access(&guest, USER_GVA, MMU_READ, MMU_USER, NULL), page_a);
    cr_assert_eq(guest.mmu->stats.l1_fills, fills, "key 0 was not concerned");
    cr_assert_leq(guest.mmu->stats.walks, walks + 1);

    map(&guest, root, 0x7000, page_a | LEAF | PTE_XD);
    cr_assert_eq(guest_access(&guest, 0x7000, MMU_READ, MMU_USER, NULL), page_a);
    mmu_set_efer(guest.mmu, EFER_LMA | BIT(8));
    cr_assert_eq(guest_access(&guest, 0x7000, MMU_READ, MMU_USER, NULL), ~0ull, "XD is reserved now");
    mmu_set_cr0(guest.mmu, 1);
    cr_assert_eq(read_page(&guest, page_b), page_b);
    guest_destroy(&guest);
}

/* ---- Write tracking ---- */

struct tracked_page {
    struct mmu *mmu;
    unsigned written;
};

static void on_tracking(void *opaque, gpa_t page)
{
    mmu_drop_write_tags(((struct tracked_page *)opaque)->mmu, page);
}

static void on_code_written(void *opaque, gpa_t gpa, uint64_t size)
{
    (void)gpa, (void)size;
    ((struct tracked_page *)opaque)->written++;
}

Test(tlb, tracked_pages_have_no_write_tags)
{
    struct mmu_target target;
    struct fault fault;
    struct guest guest;
    bool hit;

    guest_create(&guest);
    struct tracked_page tracked = { guest.mmu, 0 };
    struct physmem_listener listener = { .write_tracking = on_tracking,
                                         .code_written = on_code_written,
                                         .opaque = &tracked };
    physmem_add_listener(guest.mem, &listener);
    gpa_t root = guest_table(&guest);
    guest_paging_on(&guest, root, 0);
    for (unsigned i = 0; i < 3; i++) /* three addresses, three privileges */
        map(&guest, root, USER_GVA + i * 0x1000, page_a | LEAF);
    for (unsigned round = 0; round < 2; round++) {
        for (unsigned i = 0; i < 3; i++)
            guest_access(&guest, USER_GVA + i * 0x1000, MMU_WRITE, i, NULL);
        physmem_page_set_flags(guest.mem, page_a + 5, PAGE_FLAG_CODE);
        for (unsigned i = 0; i < 3; i++) {
            cr_assert_null(mmu_lookup_write(guest.mmu, USER_GVA + i * 0x1000, 1, i));
            cr_assert(mmu_lookup_read(guest.mmu, USER_GVA + i * 0x1000, 1, i));
            cr_assert_eq(mmu_translate(guest.mmu, USER_GVA + i * 0x1000, MMU_WRITE, i, &target, &fault), 0);
            cr_assert(target.notice && target.host);
            cr_assert_null(mmu_lookup_write(guest.mmu, USER_GVA + i * 0x1000, 1, i));
            physmem_written(guest.mem, target.gpa, 8);
        }
        cr_assert_eq(tracked.written, 3 * (round + 1));
        physmem_page_clear_flags(guest.mem, page_a, PAGE_FLAG_CODE);
        guest_access(&guest, USER_GVA, MMU_WRITE, MMU_USER, NULL);
        guest_access(&guest, USER_GVA, MMU_WRITE, MMU_USER, &hit);
        cr_assert(hit);
    }
    /* dirty logging: the first write is seen, later ones are free, until the next collection */
    for (unsigned round = 0; round < 3; round++) {
        uint64_t bitmap = 0;
        physmem_collect_dirty(guest.mem, page_a, PAGE_SIZE, PAGE_FLAG_DIRTY_DISPLAY, &bitmap);
        cr_assert_eq(bitmap, 1);
        physmem_collect_dirty(guest.mem, page_a, PAGE_SIZE, PAGE_FLAG_DIRTY_DISPLAY, &bitmap);
        cr_assert_eq(bitmap, 0);
        cr_assert_eq(mmu_translate(guest.mmu, USER_GVA, MMU_WRITE, MMU_USER, &target, &fault), 0);
        cr_assert(target.notice);
        physmem_written(guest.mem, target.gpa, 1);
        guest_access(&guest, USER_GVA, MMU_WRITE, MMU_USER, NULL);
        guest_access(&guest, USER_GVA, MMU_WRITE, MMU_USER, &hit);
        cr_assert(hit);
    }
    guest_destroy(&guest);
}

Test(tlb, posted_drops)
{
    struct guest guest;

    guest_create(&guest);
    gpa_t root = guest_table(&guest);
    guest_paging_on(&guest, root, 0);
    for (unsigned count = 1; count < 200; count += 66) { /* the queue overflows above 64 */
        for (unsigned i = 0; i < count; i++) {
            map(&guest, root, USER_GVA + i * PAGE_SIZE, (page_a + i * PAGE_SIZE) | LEAF);
            guest_access(&guest, USER_GVA + i * PAGE_SIZE, MMU_WRITE, MMU_USER, NULL);
        }
        for (unsigned i = 0; i < count; i++)
            mmu_post_drop_write_tags(guest.mmu, page_a + i * PAGE_SIZE);
        for (unsigned i = 0; i < count; i++)
            cr_assert(mmu_lookup_write(guest.mmu, USER_GVA + i * PAGE_SIZE, 1, MMU_USER), "not before the safe point");
        mmu_run_pending(guest.mmu);
        for (unsigned i = 0; i < count; i++)
            cr_assert_null(mmu_lookup_write(guest.mmu, USER_GVA + i * PAGE_SIZE, 1, MMU_USER));
    }
    guest_destroy(&guest);
}

Test(tlb, limit)
{
    struct guest guest;

    guest_create(&guest);
    mmu_set_l1_limit(guest.mmu, 4);
    gpa_t root = guest_table(&guest);
    guest_paging_on(&guest, root, 0);
    for (unsigned i = 0; i < 16; i++) {
        map(&guest, root, USER_GVA + i * PAGE_SIZE, (page_a + i * PAGE_SIZE) | LEAF);
        guest_access(&guest, USER_GVA + i * PAGE_SIZE, MMU_READ, MMU_USER, NULL);
        unsigned valid = 0;
        for (unsigned j = 0; j < 16; j++)
            valid += mmu_lookup_read(guest.mmu, USER_GVA + j * PAGE_SIZE, 1, MMU_USER) != NULL;
        cr_assert_eq(valid, MIN(i + 1, 4u));
    }
    guest_destroy(&guest);
}

/* The numbers of address spaces run out after 16 million CR3 loads: nothing old may come back. */
Test(tlb, space_numbers_wrap, .timeout = 60)
{
    struct guest guest;

    guest_create(&guest);
    gpa_t roots[2] = { guest_table(&guest), guest_table(&guest) };
    guest_paging_on(&guest, roots[0], CR4_PCIDE);
    for (unsigned i = 0; i < 16900000; i++) {
        unsigned which = i & 1;
        bool swapped = i >= 16000000;
        if (i == 0 || i == 16000000)
            for (unsigned root = 0; root < 2; root++)
                map(&guest, roots[root], USER_GVA, ((root == 1) != swapped ? page_b : page_a) | LEAF);
        mmu_set_cr3(guest.mmu, roots[which] | which, false);
        if (i < 100000 || i > 16700000)
            cr_assert_eq(read_page(&guest, USER_GVA), (which == 1) != swapped ? page_b : page_a, "after %u loads", i);
    }
    guest_destroy(&guest);
}
