/* Random page-table edits, invalidations, address-space switches and accesses, against the rule
 * that bounds every TLB: an access sees the current translation, or one that was current at some time since
 * the last operation that must invalidate it; and a fault only if the current one faults.
 *
 * The model keeps for every page and PCID the set of pages that may still be cached. Kernel
 * pages are shared by all address spaces and may be global; one group of user pages is a
 * single 2 MiB page some of the time. */
#include <criterion/criterion.h>
#include <string.h>

#include "guest.h"
#include "random.h"

#define SPACES         4 /* PCIDs 0..3, a root each */
#define USER_PAGES     12
#define KERNEL_PAGES   12
#define FRAMES         16 /* 4 KiB frames that pages map to */
#define LARGE_FRAMES   4  /* 2 MiB frames */
#define USER_BASE      0x0000123400000000ull
#define KERNEL_BASE    0xffffc90000000000ull
#define LARGE_BASE     0x0000200000000000ull
#define FRAME(n)       (GUEST_PAGES + (gpa_t)(n)*PAGE_SIZE)
#define LARGE_FRAME(n) (16 * MIB + (gpa_t)(n)*2 * MIB)
#define LEAF           (PTE_P | PTE_RW | PTE_US)

/* One translation unit: a 4 KiB page, or the 2 MiB page. Sets of frames as bit masks. */
struct unit {
    gva_t gva;
    bool kernel, large;
    int frame[SPACES]; /* -1: not present. Kernel: the same in all */
    bool global;
    uint32_t stale[SPACES]; /* may be cached for this PCID */
    uint32_t stale_global;
};

struct world {
    struct guest guest;
    struct random random;
    struct unit units[USER_PAGES + KERNEL_PAGES + 1];
    unsigned unit_count;
    gpa_t roots[SPACES];
    unsigned space;
    bool pcide;
    unsigned step;
};

static void world_create(struct world *world, uint64_t seed, unsigned limit)
{
    memset(world, 0, sizeof(*world));
    world->random = random_start(seed);
    guest_create(&world->guest);
    mmu_set_l1_limit(world->guest.mmu, limit);
    for (unsigned i = 0; i < SPACES; i++)
        world->roots[i] = guest_table(&world->guest);
    /* the kernel half: one table for all */
    gpa_t shared = guest_table(&world->guest);
    for (unsigned i = 0; i < SPACES; i++)
        ((uint64_t *)(world->guest.ram + world->roots[i]))[KERNEL_BASE >> 39 & 511] = shared | LEAF;
    for (unsigned i = 0; i < USER_PAGES + KERNEL_PAGES + 1; i++) {
        struct unit *unit = &world->units[world->unit_count++];
        unsigned n = i % USER_PAGES;
        unit->kernel = i >= USER_PAGES && i < USER_PAGES + KERNEL_PAGES;
        unit->large = i == USER_PAGES + KERNEL_PAGES;
        /* some share an L1 slot: 4 MiB apart */
        gva_t spread = (n & 3) * PAGE_SIZE + (gva_t)(n >> 2) * 4 * MIB;
        unit->gva = unit->large ? LARGE_BASE : (unit->kernel ? KERNEL_BASE : USER_BASE) + spread;
        for (unsigned s = 0; s < SPACES; s++)
            unit->frame[s] = -1;
    }
    world->pcide = true;
    guest_paging_on(&world->guest, world->roots[0], CR4_PCIDE);
}

static void edit(struct world *world)
{
    struct unit *unit = &world->units[random_below(&world->random, world->unit_count)];
    unsigned space = random_below(&world->random, SPACES);
    int frame = (int)random_below(&world->random, (unit->large ? LARGE_FRAMES : FRAMES) + 2) - 2;
    uint64_t value = 0;

    if (frame < 0)
        frame = -1;
    else
        value = unit->large ? LARGE_FRAME(frame) | LEAF | PTE_PS : FRAME(frame) | LEAF;
    if (unit->kernel) {
        unit->global = random_below(&world->random, 2);
        value |= unit->global && value ? PTE_G : 0;
    }
    *guest_entry(&world->guest, world->roots[space], unit->gva, unit->large ? 21 : 12) = value;
    for (unsigned s = 0; s < SPACES; s++) {
        if (s != space && !unit->kernel)
            continue;
        unit->frame[s] = frame;
        if (frame >= 0 && !unit->global)
            unit->stale[s] |= 1u << frame;
    }
    if (frame >= 0 && unit->global)
        unit->stale_global |= 1u << frame;
}

/* Nothing but the current translation may be cached for this PCID any more. */
static void fresh(struct unit *unit, unsigned space)
{
    unit->stale[space] = unit->frame[space] >= 0 && !unit->global ? 1u << unit->frame[space] : 0;
}

static void fresh_global(struct unit *unit)
{
    unit->stale_global = unit->frame[0] >= 0 && unit->global ? 1u << unit->frame[0] : 0;
}

static void fresh_space(struct world *world, unsigned space)
{
    for (unsigned i = 0; i < world->unit_count; i++)
        fresh(&world->units[i], space);
}

static void fresh_all(struct world *world, bool globals)
{
    for (unsigned s = 0; s < SPACES; s++)
        fresh_space(world, s);
    for (unsigned i = 0; globals && i < world->unit_count; i++)
        fresh_global(&world->units[i]);
}

static gva_t somewhere_in(struct world *world, const struct unit *unit)
{
    return unit->gva + random_below(&world->random, unit->large ? 2 * MIB : PAGE_SIZE);
}

static void access_page(struct world *world)
{
    struct unit *unit = &world->units[random_below(&world->random, world->unit_count)];
    gva_t gva = somewhere_in(world, unit);
    enum mmu_access access = random_below(&world->random, 3);
    enum mmu_privilege privilege = random_below(&world->random, 3);
    gpa_t gpa = guest_access(&world->guest, gva, access, privilege, NULL);
    uint32_t may = unit->stale[world->space] | unit->stale_global;

    if (gpa == ~0ull) {
        cr_assert_eq(unit->frame[world->space], -1, "seed 0x%llx step %u: fault at 0x%llx, which is mapped",
                     (unsigned long long)world->random.seed, world->step, (unsigned long long)gva);
        unit->stale[world->space] = 0; /* 4.10.4.1: page faults invalidate */
        fresh_global(unit);
        return;
    }
    unsigned frame =
        unit->large ? (unsigned)((gpa - LARGE_FRAME(0)) / (2 * MIB)) : (unsigned)((gpa - FRAME(0)) / PAGE_SIZE);
    uint64_t page_offset = unit->large ? 2 * MIB - 1 : PAGE_SIZE - 1;
    cr_assert_eq(gpa & page_offset, gva & page_offset);
    cr_assert(may >> frame & 1, "seed 0x%llx step %u: 0x%llx is frame %u, allowed are 0x%x",
              (unsigned long long)world->random.seed, world->step, (unsigned long long)gva, frame, may);
}

static void invalidate(struct world *world)
{
    struct unit *unit = &world->units[random_below(&world->random, world->unit_count)];
    gva_t gva = somewhere_in(world, unit);
    unsigned space = random_below(&world->random, SPACES);

    switch (random_below(&world->random, 12)) {
    default:
        mmu_invlpg(world->guest.mmu, gva);
        fresh(unit, world->space);
        fresh_global(unit);
        break;
    case 0:
    case 1:
        if (!world->pcide)
            break;
        mmu_invpcid(world->guest.mmu, 0, space, gva);
        fresh(unit, space);
        break;
    case 2:
        if (!world->pcide)
            break;
        mmu_invpcid(world->guest.mmu, 1, space, 0);
        fresh_space(world, space);
        break;
    case 3:
        mmu_invpcid(world->guest.mmu, 2, 0, 0);
        fresh_all(world, true);
        break;
    case 4:
        mmu_invpcid(world->guest.mmu, 3, 0, 0);
        fresh_all(world, false);
        break;
    }
}

static void switch_space(struct world *world)
{
    bool keep = world->pcide && random_below(&world->random, 4);

    world->space = world->pcide ? random_below(&world->random, SPACES) : world->space;
    mmu_set_cr3(world->guest.mmu, world->roots[world->space] | (world->pcide ? world->space : 0), keep);
    if (!keep)
        fresh_space(world, world->space);
}

/* Without PCIDs the model stays in one address space: PCID 0 is whoever runs. */
static void switch_mode(struct world *world)
{
    uint64_t cr4 = CR4_PAE | CR4_PGE;

    switch (random_below(&world->random, 3)) {
    case 0:
        world->space = 0;
        mmu_set_cr3(world->guest.mmu, world->roots[0], false);
        fresh_space(world, 0);
        world->pcide = !world->pcide;
        mmu_set_cr4(world->guest.mmu, cr4 | (world->pcide ? CR4_PCIDE : 0));
        if (!world->pcide)
            fresh_all(world, true);
        break;
    case 1:
        mmu_set_cr4(world->guest.mmu, (cr4 & ~CR4_PGE) | (world->pcide ? CR4_PCIDE : 0));
        mmu_set_cr4(world->guest.mmu, cr4 | (world->pcide ? CR4_PCIDE : 0));
        fresh_all(world, true);
        break;
    case 2:
        mmu_set_cr0(world->guest.mmu, CR0_PG | 1);
        mmu_set_cr0(world->guest.mmu, CR0_PG | CR0_WP | 1);
        break;
    }
}

static void run(uint64_t seed, unsigned limit, unsigned steps)
{
    struct world world;

    world_create(&world, seed, limit);
    for (world.step = 0; world.step < steps; world.step++) {
        unsigned choice = random_below(&world.random, 100);
        if (choice < 12)
            edit(&world);
        else if (choice < 20)
            invalidate(&world);
        else if (choice < 25)
            switch_space(&world);
        else if (choice == 25)
            switch_mode(&world);
        else
            access_page(&world);
    }
    cr_assert_gt(world.guest.mmu->stats.l2_hits, steps / 20);
    guest_destroy(&world.guest);
}

Test(tlb_random, full_size)
{
    run(0x6d6d7531, 0, 1000000);
}
Test(tlb_random, four_entries)
{
    run(0x6d6d7532, 4, 400000);
}
