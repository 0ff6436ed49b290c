/* The walker against the model: every combination of rights bits, every bit as a reserved bit
 * at every level for every MAXPHYADDR, protection keys, accessed and dirty bits, and random
 * combinations of everything. Then what the model cannot say: paging structures in odd places,
 * page tracking. (Races are in test_concurrent.c.) */
#include <criterion/criterion.h>
#include <criterion/logging.h>
#include <string.h>

#include "mmu/paging_bits.h"
#include "mmu/walk.h"
#include "model.h"
#include "random.h"

#define RAM_SIZE     (64 * KIB)
/* The entries that the walks use, at fixed places, one table per level. */
#define TABLE(level) (0x1000 + (level)*0x2000)
#define PAGE_GPA     0xa000

struct fixture {
    struct physmem *mem;
    uint8_t *ram;
    struct model_controls controls;
    gva_t gva;
    uint64_t at[4];     /* address of each entry */
    uint64_t values[4]; /* what each is set to before a walk */
    unsigned levels, entry_size;
    uint64_t compared;
};

static uint64_t memory_read(void *opaque, uint64_t address, unsigned size)
{
    struct fixture *f = opaque;
    uint64_t value = ~0ull;

    if (address + size <= RAM_SIZE)
        memcpy(&value, f->ram + address, size);
    return size == 4 ? (uint32_t)value : value;
}

static void fixture_mode(struct fixture *f, enum model_mode mode)
{
    static const gva_t gvas[] = { 0x12345678, 0xd2345678, 0xffff923456789abc };

    f->controls.mode = mode;
    f->gva = gvas[mode];
    f->levels = mode == MODEL_4LEVEL ? 4 : 2;
    f->entry_size = mode == MODEL_32BIT ? 4 : 8;
    for (unsigned level = 0; level < f->levels; level++) {
        unsigned shift = mode == MODEL_32BIT ? (level ? 12 : 22) : 12 + 9 * (f->levels - 1 - level);
        uint64_t index = f->gva >> shift & (mode == MODEL_32BIT ? 1023 : 511);
        f->at[level] = TABLE(level) + index * f->entry_size;
    }
    f->controls.cr3 = TABLE(0);
    for (unsigned i = 0; i < 4; i++)
        f->controls.pdpte[i] = i == (f->gva >> 30 & 3) ? TABLE(0) | PTE_P : 0;
}

static struct fixture fixture_create(enum model_mode mode)
{
    struct fixture f = { .mem = physmem_create(RAM_SIZE, NULL, NULL) };

    physmem_add_ram(f.mem, 0, RAM_SIZE, 0, "ram", NULL);
    f.ram = physmem_ram_pointer(f.mem, 0, RAM_SIZE);
    f.controls.maxphyaddr = 46;
    f.controls.page_1gib = true;
    fixture_mode(&f, mode);
    return f;
}

static uint64_t link_value(const struct fixture *f, unsigned level)
{
    return level + 1 < f->levels ? TABLE(level + 1) : PAGE_GPA;
}

static struct paging paging_of(const struct model_controls *c)
{
    struct paging p = { .cr0 = CR0_PG | 1, .cr3 = c->cr3, .pkru = c->pkru, .pkrs = c->pkrs };

    p.cr0 |= c->wp ? CR0_WP : 0;
    p.cr4 = (c->pse ? CR4_PSE : 0) | (c->pge ? CR4_PGE : 0) | (c->smep ? CR4_SMEP : 0) | (c->smap ? CR4_SMAP : 0) |
            (c->pke ? CR4_PKE : 0) | (c->pks ? CR4_PKS : 0) | (c->mode != MODEL_32BIT ? CR4_PAE : 0);
    p.efer = (c->nxe ? EFER_NXE : 0) | (c->mode == MODEL_4LEVEL ? EFER_LMA | BIT(8) : 0);
    p.max_physical_bits = (uint8_t)c->maxphyaddr;
    p.has_1gib_pages = c->page_1gib;
    memcpy(p.pdpte, c->pdpte, sizeof(p.pdpte));
    return p;
}

static void describe(const struct fixture *f, const struct model_access *a, const char *what, uint64_t got,
                     uint64_t want)
{
    const struct model_controls *c = &f->controls;

    cr_log_error("%s: got 0x%llx, want 0x%llx; mode %d wp %d pse %d smep %d smap %d pke %d nxe %d M %u; %s%s%s ac %d",
                 what, (unsigned long long)got, (unsigned long long)want, c->mode, c->wp, c->pse, c->smep, c->smap,
                 c->pke, c->nxe, c->maxphyaddr, a->user ? "user " : "", a->write ? "write" : "",
                 a->fetch ? "fetch" : "", a->ac);
    for (unsigned level = 0; level < f->levels; level++)
        cr_log_error("  entry %u: 0x%016llx", level, (unsigned long long)f->values[level]);
}

#define CHECK(what, got, want)                                                                                         \
    do {                                                                                                               \
        if ((got) != (want)) {                                                                                         \
            describe(f, &a, what, (uint64_t)(got), (uint64_t)(want));                                                  \
            return false;                                                                                              \
        }                                                                                                              \
    } while (0)

static bool compare_walk(struct fixture *f, enum mmu_access access, enum mmu_privilege privilege)
{
    struct model_access a = { f->gva, access == MMU_WRITE, access == MMU_EXECUTE, privilege == MMU_USER,
                              privilege == MMU_SUPERVISOR_AC };
    struct paging paging = paging_of(&f->controls);
    struct walk_result result = { 0 };
    struct fault fault = { 0 };
    uint64_t expected[4];

    for (unsigned level = 0; level < f->levels; level++) {
        memcpy(f->ram + f->at[level], &f->values[level], f->entry_size);
        expected[level] = f->entry_size == 4 ? (uint32_t)f->values[level] : f->values[level];
    }
    struct model_outcome want = model_translate(&f->controls, &a, memory_read, f);
    int status = mmu_walk(&paging, f->mem, f->gva, access, privilege, &result, &fault);

    f->compared++;
    CHECK("fault", status != 0, want.fault);
    if (want.fault) {
        CHECK("vector", fault.vector, VECTOR_PF);
        CHECK("error code", fault.error, want.error);
        CHECK("fault address", fault.address, f->gva);
    } else {
        CHECK("physical address", result.gpa, want.physical);
        CHECK("page size", result.page_size, want.page_size);
        CHECK("global", result.global, want.global);
        CHECK("dirty", result.dirty, want.dirty);
    }
    for (unsigned i = 0; i < want.change_count; i++)
        for (unsigned level = 0; level < f->levels; level++)
            if (want.changes[i].address == f->at[level])
                expected[level] = want.changes[i].value;
    for (unsigned level = 0; level < f->levels; level++)
        CHECK("entry after the walk", memory_read(f, f->at[level], f->entry_size), expected[level]);
    return true;
}

static bool compare_all_accesses(struct fixture *f)
{
    for (unsigned privilege = 0; privilege < MMU_PRIVILEGES; privilege++)
        for (unsigned access = MMU_READ; access <= MMU_EXECUTE; access++)
            if (!compare_walk(f, access, privilege))
                return false;
    return true;
}

static void set_controls(struct fixture *f, unsigned word)
{
    f->controls.wp = word & 1;
    f->controls.smep = word & 2;
    f->controls.smap = word & 4;
    f->controls.nxe = word & 8;
    f->controls.pse = word & 16;
    f->controls.pge = word & 32;
    f->controls.pke = word & 64;
    f->controls.pks = word & 128;
}

/* R/W, U/S and XD at every level, with all controls that look at them. */
static void enumerate_rights(enum model_mode mode)
{
    struct fixture f = fixture_create(mode);
    unsigned bits_per_level = mode == MODEL_32BIT ? 2 : 3;

    for (unsigned controls = 0; controls < 32; controls++) {
        set_controls(&f, controls);
        for (unsigned word = 0; word < 1u << bits_per_level * f.levels; word++) {
            for (unsigned level = 0; level < f.levels; level++) {
                unsigned rights = word >> level * bits_per_level & 7;
                f.values[level] = link_value(&f, level) | PTE_P | (rights & 1 ? PTE_RW : 0) |
                                  (rights & 2 ? PTE_US : 0) | (bits_per_level == 3 && (rights & 4) ? PTE_XD : 0);
            }
            if (!compare_all_accesses(&f))
                cr_assert_fail("mode %d", mode);
        }
        if (controls == 15 && mode != MODEL_32BIT)
            break; /* PSE means nothing there */
    }
    cr_log_info("mode %d: %llu walks compared", mode, (unsigned long long)f.compared);
    physmem_destroy(f.mem);
}

Test(walk, rights_32bit)
{
    enumerate_rights(MODEL_32BIT);
}
Test(walk, rights_pae)
{
    enumerate_rights(MODEL_PAE);
}
Test(walk, rights_4level)
{
    enumerate_rights(MODEL_4LEVEL);
}

/* Each bit set in turn at each level, in entries that otherwise map a 4 KiB page or a large one. */
static void enumerate_single_bits(enum model_mode mode)
{
    struct fixture f = fixture_create(mode);

    for (unsigned maxphyaddr = 36; maxphyaddr <= 52; maxphyaddr++)
        for (unsigned controls = 0; controls < 8; controls++)
            for (unsigned leaf = 0; leaf < f.levels; leaf++)
                for (unsigned level = 0; level < f.levels; level++)
                    for (unsigned bit = 0; bit < f.entry_size * 8; bit++) {
                        f.controls.maxphyaddr = maxphyaddr;
                        f.controls.nxe = controls & 1;
                        f.controls.pse = controls & 2;
                        f.controls.page_1gib = controls & 4;
                        for (unsigned i = 0; i < f.levels; i++)
                            f.values[i] = (i == leaf ? 0 : link_value(&f, i)) | PTE_P | PTE_RW | PTE_US |
                                          (i == leaf ? PTE_PS : 0);
                        if (leaf == f.levels - 1)
                            f.values[leaf] = PAGE_GPA | PTE_P | PTE_RW | PTE_US;
                        f.values[level] ^= BIT(bit);
                        if (!compare_walk(&f, MMU_READ, MMU_USER) || !compare_walk(&f, MMU_EXECUTE, MMU_SUPERVISOR))
                            cr_assert_fail("mode %d, leaf %u, level %u, bit %u", mode, leaf, level, bit);
                    }
    physmem_destroy(f.mem);
}

Test(walk, single_bits_32bit)
{
    enumerate_single_bits(MODEL_32BIT);
}
Test(walk, single_bits_pae)
{
    enumerate_single_bits(MODEL_PAE);
}
Test(walk, single_bits_4level)
{
    enumerate_single_bits(MODEL_4LEVEL);
}

Test(walk, accessed_and_dirty)
{
    for (unsigned mode = MODEL_32BIT; mode <= MODEL_4LEVEL; mode++) {
        struct fixture f = fixture_create(mode);
        f.controls.pge = true;
        f.controls.pse = true;
        for (unsigned word = 0; word < 1u << (f.levels + 3); word++) {
            for (unsigned leaf = 0; leaf < f.levels; leaf++) {
                for (unsigned level = 0; level < f.levels; level++)
                    f.values[level] = (level == leaf ? 0 : link_value(&f, level)) | PTE_P | PTE_US | PTE_RW |
                                      (word >> level & 1 ? PTE_A : 0) | (word >> f.levels & 1 ? PTE_D : 0) |
                                      (word >> (f.levels + 1) & 1 ? PTE_G : 0);
                f.values[leaf] |= leaf < f.levels - 1 ? PTE_PS : 0;
                f.values[leaf] &= word >> (f.levels + 2) & 1 ? ~PTE_RW : ~0ull;
                f.controls.wp = word & 1;
                cr_assert(compare_all_accesses(&f), "mode %u leaf %u", mode, leaf);
            }
        }
        physmem_destroy(f.mem);
    }
}

Test(walk, protection_keys)
{
    struct fixture f = fixture_create(MODEL_4LEVEL);

    for (unsigned controls = 0; controls < 256; controls += 1) {
        set_controls(&f, controls);
        for (unsigned key = 0; key < 16; key++) {
            for (unsigned rights = 0; rights < 64; rights++) {
                f.controls.pkru = (rights & 3) << key * 2;
                f.controls.pkrs = (rights >> 2 & 3) << key * 2;
                for (unsigned level = 0; level < 4; level++)
                    f.values[level] = link_value(&f, level) | PTE_P | (rights & 16 ? PTE_RW : 0) |
                                      (rights & 32 ? PTE_US : 0) |
                                      (uint64_t)(level == 3 ? key : ~key & 15) << PTE_PKEY_SHIFT;
                cr_assert(compare_all_accesses(&f), "key %u", key);
            }
        }
    }
    physmem_destroy(f.mem);
}

/* Mostly plausible entries, each with a few bits turned over. */
static uint64_t random_entry(struct fixture *f, struct random *random, unsigned level)
{
    uint64_t value = link_value(f, level) | PTE_P | PTE_RW | PTE_US | (random_u64(random) & (PTE_A | PTE_D | PTE_G));
    unsigned flips = random_below(random, 4);

    if (random_below(random, 8) == 0)
        value |= PTE_PS;
    if (random_below(random, 4) == 0)
        value |= random_u64(random) & (0xfull << PTE_PKEY_SHIFT);
    while (flips--)
        value ^= BIT(random_below(random, 12));
    if (random_below(random, 8) == 0)
        value ^= BIT(random_below(random, f->entry_size * 8));
    if (random_below(random, 8) == 0)
        value ^= PTE_XD;
    return f->entry_size == 4 ? (uint32_t)value : value;
}

Test(walk, random)
{
    struct random random = random_start(0x77616c6b);
    struct fixture f = fixture_create(MODEL_4LEVEL);

    for (unsigned round = 0; round < 600000; round++) {
        fixture_mode(&f, random_below(&random, 3));
        set_controls(&f, (unsigned)random_u64(&random));
        f.controls.maxphyaddr = 36 + random_below(&random, 17);
        f.controls.page_1gib = random_below(&random, 4);
        f.controls.pkru = (uint32_t)(random_u64(&random) & random_u64(&random));
        f.controls.pkrs = (uint32_t)(random_u64(&random) & random_u64(&random));
        for (unsigned level = 0; level < f.levels; level++)
            f.values[level] = random_entry(&f, &random, level);
        if (!compare_walk(&f, random_below(&random, 3), random_below(&random, 3)))
            cr_assert_fail("seed 0x%llx, round %u", (unsigned long long)random.seed, round);
    }
    physmem_destroy(f.mem);
}

/* ---- What the model leaves out ---- */

Test(walk, no_paging_is_identity)
{
    struct fixture f = fixture_create(MODEL_32BIT);
    struct paging paging = paging_of(&f.controls);
    struct walk_result result;
    struct fault fault;

    paging.cr0 &= ~CR0_PG;
    cr_assert_eq(mmu_walk(&paging, f.mem, 0xfee00123, MMU_WRITE, MMU_USER, &result, &fault), 0);
    cr_assert_eq(result.gpa, 0xfee00123);
    cr_assert(result.readable && result.writable && result.executable && result.dirty);
    physmem_destroy(f.mem);
}

Test(walk, pdptes)
{
    struct fixture f = fixture_create(MODEL_PAE);
    struct paging paging = paging_of(&f.controls);
    uint64_t *table = (uint64_t *)(f.ram + 0x3020);
    gpa_t gpa;

    paging.cr3 = 0x3020 | 0x18; /* PWT and PCD; the table is 32-byte aligned */
    for (unsigned bit = 0; bit < 64; bit++) {
        bool reserved = bit == 1 || bit == 2 || (bit >= 5 && bit <= 8) || bit >= 46;
        table[2] = 0x5000 | PTE_P | BIT(bit);
        table[3] = 0x7000 | (BIT(bit) & ~PTE_P); /* not present: never looked at */
        if (bit == 0 || (bit >= 12 && bit < 46))
            table[2] = 0x5000 | PTE_P;
        cr_assert_eq(mmu_load_pdptes(&paging, f.mem), !reserved, "bit %u", bit);
    }
    table[2] = 0x5000 | PTE_P;
    cr_assert(mmu_load_pdptes(&paging, f.mem));
    cr_assert_eq(paging.pdpte[2], 0x5001);
    memset(f.ram + 0x5000, 0, 4096);
    *(uint64_t *)(f.ram + 0x5000) = PTE_PS | PTE_P;
    cr_assert(mmu_walk_debug(&paging, f.mem, 0x80001234, &gpa));
    cr_assert_eq(gpa, 0x1234);
    cr_assert_not(mmu_walk_debug(&paging, f.mem, 0x40001234, &gpa));
    cr_assert_eq(*(uint64_t *)(f.ram + 0x5000), PTE_PS | PTE_P, "a debugger's walk changes nothing");
    physmem_destroy(f.mem);
}

static uint64_t no_read(void *opaque, uint64_t offset, unsigned size)
{
    (void)offset, (void)size;
    ++*(unsigned *)opaque;
    return 0;
}

/* In what is not memory all bits read as ones: reserved bits, where there are any. */
Test(walk, structures_outside_memory)
{
    struct fixture f = fixture_create(MODEL_4LEVEL);
    struct io_ops ops = { .read = no_read };
    struct walk_result result;
    struct fault fault;
    unsigned reads = 0;

    physmem_add_mmio(f.mem, 0x100000, 0x1000, &ops, &reads, "device", NULL);
    for (unsigned level = 0; level < 4; level++) {
        for (unsigned where = 0; where < 2; where++) {
            for (unsigned i = 0; i < 4; i++) {
                uint64_t value = link_value(&f, i) | PTE_P | PTE_RW;
                memcpy(f.ram + f.at[i], &value, 8);
            }
            uint64_t value = (where ? 0x100000 : 0x200000) | PTE_P | PTE_RW;
            struct paging paging = paging_of(&f.controls);
            if (level)
                memcpy(f.ram + f.at[level - 1], &value, 8);
            else
                paging.cr3 = value & PAGE_MASK;
            cr_assert_eq(mmu_walk(&paging, f.mem, f.gva, MMU_READ, MMU_SUPERVISOR, &result, &fault), -1);
            cr_assert_eq(fault.error, PF_PRESENT | PF_RESERVED);
        }
    }
    cr_assert_eq(reads, 0, "walks do not read devices");
    physmem_destroy(f.mem);
}

Test(walk, structures_in_rom)
{
    struct fixture f = fixture_create(MODEL_4LEVEL);
    static uint64_t rom[512];
    struct walk_result result;
    struct fault fault;

    for (unsigned i = 0; i < 512; i++)
        rom[i] = PAGE_GPA | PTE_P | PTE_RW;
    physmem_add_rom(f.mem, 0xff000, 0x1000, rom, sizeof(rom), "rom", NULL);
    for (unsigned i = 0; i < 4; i++)
        f.values[i] = (i == 2 ? 0xff000 : link_value(&f, i)) | PTE_P | PTE_RW;
    for (unsigned i = 0; i < 3; i++)
        memcpy(f.ram + f.at[i], &f.values[i], 8);
    struct paging paging = paging_of(&f.controls);
    cr_assert_eq(mmu_walk(&paging, f.mem, f.gva, MMU_WRITE, MMU_SUPERVISOR, &result, &fault), 0);
    cr_assert_eq(result.gpa, PAGE_GPA | (f.gva & 0xfff));
    cr_assert_not(result.dirty, "the bit could not be kept");
    physmem_destroy(f.mem);
}

static void count_code_written(void *opaque, gpa_t gpa, uint64_t size)
{
    (void)size;
    if ((gpa & PAGE_MASK) == TABLE(3))
        ++*(unsigned *)opaque;
}

Test(walk, accessed_bits_are_writes)
{
    struct fixture f = fixture_create(MODEL_4LEVEL);
    unsigned told = 0;
    struct physmem_listener listener = { .code_written = count_code_written, .opaque = &told };
    struct paging paging = paging_of(&f.controls);
    struct walk_result result;
    struct fault fault;
    uint64_t bitmap = 0;

    for (unsigned i = 0; i < 4; i++) {
        uint64_t value = link_value(&f, i) | PTE_P | PTE_RW;
        memcpy(f.ram + f.at[i], &value, 8);
    }
    physmem_add_listener(f.mem, &listener);
    physmem_page_set_flags(f.mem, TABLE(3), PAGE_FLAG_CODE);
    physmem_collect_dirty(f.mem, 0, RAM_SIZE, PAGE_FLAG_DIRTY_MIGRATION, &bitmap);
    for (unsigned i = 0; i < 3; i++)
        cr_assert_eq(mmu_walk(&paging, f.mem, f.gva, MMU_WRITE, MMU_SUPERVISOR, &result, &fault), 0);
    cr_assert_eq(told, 1, "once: later walks find the bits set");
    physmem_collect_dirty(f.mem, 0, RAM_SIZE, PAGE_FLAG_DIRTY_MIGRATION, &bitmap);
    cr_assert_eq(bitmap, BIT(TABLE(0) >> 12) | BIT(TABLE(1) >> 12) | BIT(TABLE(2) >> 12) | BIT(TABLE(3) >> 12));
    physmem_destroy(f.mem);
}

/* Another processor, as far as a walk can tell: changes the leaf entry when the walk marks the top one, between the
 * walk's look at the leaf and its own update of it. */
struct intruder {
    struct fixture *f;
    uint64_t flip; /* bits of the leaf; once */
};

static void change_leaf(void *opaque, gpa_t gpa, uint64_t size)
{
    struct intruder *intruder = opaque;
    struct fixture *f = intruder->f;
    uint8_t *leaf = f->ram + f->at[f->levels - 1];

    (void)size;
    if ((gpa & PAGE_MASK) != TABLE(0))
        return;
    for (unsigned i = 0; i < f->entry_size; i++)
        leaf[i] ^= (uint8_t)(intruder->flip >> 8 * i);
    intruder->flip = 0;
}

/* Walks for writing while `flip` happens to the leaf; the leaf afterwards. */
static uint64_t walk_with_intruder(enum model_mode mode, uint64_t flip, int *status, struct walk_result *result)
{
    struct fixture f = fixture_create(mode);
    struct intruder intruder = { &f, flip };
    struct physmem_listener listener = { .code_written = change_leaf, .opaque = &intruder };
    struct paging paging = paging_of(&f.controls);
    struct fault fault;
    uint64_t leaf;

    paging.cr0 |= CR0_WP;
    for (unsigned i = 0; i < f.levels; i++) {
        uint64_t value = link_value(&f, i) | PTE_P | PTE_RW;
        memcpy(f.ram + f.at[i], &value, f.entry_size);
    }
    physmem_add_listener(f.mem, &listener);
    physmem_page_set_flags(f.mem, TABLE(0), PAGE_FLAG_CODE);
    *status = mmu_walk(&paging, f.mem, f.gva, MMU_WRITE, MMU_SUPERVISOR, result, &fault);
    cr_assert_eq(intruder.flip, 0, "the leaf was not changed meanwhile");
    leaf = memory_read(&f, f.at[f.levels - 1], f.entry_size);
    physmem_destroy(f.mem);
    return leaf;
}

/* SDM Vol. 3A 4.8, 8.1.2.1: neither the other's change nor the accessed and dirty bits may be lost. */
Test(walk, entry_that_changes_meanwhile_is_walked_again)
{
    const uint64_t marked = PTE_P | PTE_RW | PTE_A | PTE_D, ignored = BIT(9), other_page = 0x1000;

    for (enum model_mode mode = MODEL_32BIT; mode <= MODEL_4LEVEL; mode++) {
        struct walk_result result;
        int status;
        uint64_t leaf = walk_with_intruder(mode, ignored, &status, &result);

        cr_assert_eq(status, 0);
        cr_assert_eq(leaf, PAGE_GPA | marked | ignored, "mode %d: 0x%lx", mode, leaf);
        cr_assert(result.dirty);

        leaf = walk_with_intruder(mode, other_page, &status, &result);
        cr_assert_eq(status, 0);
        cr_assert_eq(leaf, (PAGE_GPA ^ other_page) | marked, "mode %d: 0x%lx", mode, leaf);
        cr_assert_eq(result.gpa & PAGE_MASK, PAGE_GPA ^ other_page, "mode %d", mode);

        leaf = walk_with_intruder(mode, PTE_RW, &status, &result);
        cr_assert_eq(status, -1, "mode %d: read-only by now", mode);
        cr_assert_eq(leaf, PAGE_GPA | PTE_P, "mode %d: 0x%lx", mode, leaf);
    }
}
