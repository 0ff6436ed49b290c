/* The guest page walker: SDM Vol. 3A chapter 4. 32-bit paging (4.3), PAE (4.4), 4-level
 * (4.5); access rights (4.6), error codes (4.7), accessed and dirty bits (4.8).
 *
 * A walk has three parts: fetch the entries top down, decide what they allow, and set the accessed and dirty bits.
 * Those are only set when the access is allowed, each with a compare-and-swap against the
 * value that the decision was made with; if another processor changed an entry meanwhile, the
 * walk starts again. So no translation comes from an entry without its A bit set, and no write
 * from one without D, as the manual asks, and an entry is never changed by a walk that faults.
 *
 * Paging structures may be anywhere a guest puts them. In ROM they are used as they are, and
 * the A and D bits are not kept (the write is dropped on the bus). What is not memory reads
 * as ones: reserved bits, mostly, so a page fault; MMIO devices are not read by walks.
 *
 * Threads: any; guest memory is read with atomic loads. */
#include "mmu/walk.h"

#include "base/log.h"
#include "mmu/paging_bits.h"
#include "mmu/physmem_internal.h"

#define MAX_LEVELS 4

struct paging_mode {
    uint8_t levels;
    uint8_t entry_size;
    uint8_t index_bits;
    uint8_t shifts[MAX_LEVELS]; /* of the lowest address bit that each level translates */
};

/* PAE's top level is in registers: the walk begins below it. */
static const struct paging_mode mode_32bit = { 2, 4, 10, { 22, 12 } };
static const struct paging_mode mode_pae = { 2, 8, 9, { 21, 12 } };
static const struct paging_mode mode_4level = { 4, 8, 9, { 39, 30, 21, 12 } };

struct walk_entry {
    uint8_t *host; /* NULL: not memory */
    gpa_t gpa;
    uint64_t value;
    bool writable; /* RAM, so that A and D can be set */
};

struct walk {
    const struct paging *paging;
    struct physmem *mem;
    const struct paging_mode *mode;
    gva_t gva;
    struct walk_entry entries[MAX_LEVELS];
    unsigned count; /* of entries used; the last one maps the page */
    uint64_t page_size;
};

static const struct paging_mode *paging_mode(const struct paging *paging)
{
    if (!(paging->cr4 & CR4_PAE))
        return &mode_32bit;
    return paging->efer & EFER_LMA ? &mode_4level : &mode_pae;
}

/* Bits high..low set; none if high < low. */
static uint64_t mask_bits(unsigned high, unsigned low)
{
    return high < low ? 0 : (~0ull >> (63 - high)) & (~0ull << low);
}

static unsigned physical_bits(const struct paging *paging)
{
    return MIN(MAX(paging->max_physical_bits, 32u), 52u);
}

static bool entry_maps_page(const struct walk *walk, uint64_t value, unsigned shift)
{
    if (shift == 12)
        return true;
    if (!(value & PTE_PS))
        return false;
    if (walk->mode == &mode_32bit)
        return walk->paging->cr4 & CR4_PSE;
    return shift == 21 || (shift == 30 && walk->paging->has_1gib_pages);
}

/* 4.3 table 4-4, 4.4.2 tables 4-8 to 4-11, 4.5 tables 4-15 to 4-20. */
static uint64_t entry_reserved(const struct walk *walk, bool maps_page, unsigned shift)
{
    const struct paging *paging = walk->paging;
    unsigned width = physical_bits(paging);

    if (walk->mode == &mode_32bit) /* PSE-36: bits 20:13 are address bits 39:32, as far as there are any */
        return maps_page && shift == 22 ? mask_bits(21, MIN(width, 40u) - 19) : 0;

    /* bits 62:52 are ignored in 4-level paging and reserved in PAE */
    uint64_t reserved = mask_bits(walk->mode == &mode_pae ? 62 : 51, width);
    if (!(paging->efer & EFER_NXE))
        reserved |= PTE_XD;
    if (maps_page)
        return reserved | mask_bits(shift - 1, 13);
    if (shift == 39 || shift == 30)
        reserved |= PTE_PS;
    return reserved;
}

static gpa_t entry_address(const struct walk *walk, uint64_t value, unsigned shift, bool maps_page)
{
    if (walk->mode == &mode_32bit && shift == 22 && maps_page)
        return (value & 0xffc00000) | (value >> 13 & 0xff) << 32;
    value &= PTE_ADDRESS;
    return maps_page ? value & (~0ull << shift) : value;
}

static void entry_load(struct walk *walk, struct walk_entry *entry, gpa_t gpa)
{
    struct mem_page page = physmem_lookup(walk->mem, gpa);

    entry->gpa = gpa;
    entry->writable = page.kind == MEM_RAM;
    entry->host = page.host ? page.host + (gpa & ~PAGE_MASK) : NULL;
    if (unlikely(!entry->host)) { /* the page may be RAM in part */
        entry->host = physmem_ram_pointer(walk->mem, gpa, walk->mode->entry_size);
        entry->writable = entry->host;
    }
    if (unlikely(!entry->host)) {
        log_event(guest_errors, "paging structure at 0x%llx is not in memory\n", (unsigned long long)gpa);
        entry->value = walk->mode->entry_size == 4 ? 0xffffffff : ~0ull;
    } else if (walk->mode->entry_size == 4) {
        entry->value = __atomic_load_n((uint32_t *)entry->host, __ATOMIC_ACQUIRE);
    } else {
        entry->value = __atomic_load_n((uint64_t *)entry->host, __ATOMIC_ACQUIRE);
    }
}

/* Fetches entries until one maps a page: 0; otherwise -1 and the P and RSVD bits of the error. */
static int walk_fetch(struct walk *walk, uint32_t *error)
{
    const struct paging_mode *mode = walk->mode;
    gpa_t table =
        walk->paging->cr3 & (mode == &mode_32bit ? 0xfffff000 : mask_bits(physical_bits(walk->paging) - 1, 12));

    if (mode == &mode_pae) {
        uint64_t pdpte = walk->paging->pdpte[walk->gva >> 30 & 3];
        if (!(pdpte & PTE_P)) {
            *error = 0;
            return -1;
        }
        table = pdpte & PTE_ADDRESS; /* reserved bits were checked when it was loaded */
    }
    for (walk->count = 0;;) {
        struct walk_entry *entry = &walk->entries[walk->count];
        unsigned shift = mode->shifts[walk->count];
        uint64_t index = walk->gva >> shift & mask_bits(mode->index_bits - 1, 0);
        entry_load(walk, entry, table + index * mode->entry_size);
        walk->count++;
        if (!(entry->value & PTE_P)) {
            *error = 0;
            return -1;
        }
        bool maps_page = entry_maps_page(walk, entry->value, shift);
        if (entry->value & entry_reserved(walk, maps_page, shift)) {
            *error = PF_PRESENT | PF_RESERVED;
            return -1;
        }
        table = entry_address(walk, entry->value, shift, maps_page);
        if (maps_page) {
            walk->page_size = 1ull << shift;
            return 0;
        }
    }
}

static unsigned walk_rights(const struct walk *walk)
{
    uint64_t all = ~0ull, any = 0;

    for (unsigned i = 0; i < walk->count; i++) {
        all &= walk->entries[i].value;
        any |= walk->entries[i].value;
    }
    /* entries of 32 bits have no XD: it reads as 0 */
    return (all & PTE_RW ? RIGHT_WRITE : 0) | (all & PTE_US ? RIGHT_USER : 0) | (any & PTE_XD ? RIGHT_NO_EXECUTE : 0);
}

/* What the protection key takes away (4.6.2). */
static unsigned pkey_denied(const struct paging *paging, unsigned rights, unsigned pkey, enum mmu_privilege privilege)
{
    uint32_t key_rights;

    if (!(paging->efer & EFER_LMA))
        return 0;
    if (rights & RIGHT_USER)
        key_rights = paging->cr4 & CR4_PKE ? paging->pkru >> pkey * 2 : 0;
    else
        key_rights = paging->cr4 & CR4_PKS ? paging->pkrs >> pkey * 2 : 0;
    if (key_rights & 1)
        return 1 << MMU_READ | 1 << MMU_WRITE;
    if ((key_rights & 2) && (privilege == MMU_USER || (paging->cr0 & CR0_WP)))
        return 1 << MMU_WRITE;
    return 0;
}

unsigned paging_allowed(const struct paging *paging, unsigned rights, unsigned pkey, enum mmu_privilege privilege)
{
    unsigned allowed = 1 << MMU_READ;

    if (!(paging->cr0 & CR0_PG))
        return 1 << MMU_READ | 1 << MMU_WRITE | 1 << MMU_EXECUTE;
    if (!(rights & RIGHT_NO_EXECUTE))
        allowed |= 1 << MMU_EXECUTE;
    if (privilege == MMU_USER) {
        if (!(rights & RIGHT_USER))
            return 0;
        if (rights & RIGHT_WRITE)
            allowed |= 1 << MMU_WRITE;
    } else {
        if ((rights & RIGHT_WRITE) || !(paging->cr0 & CR0_WP))
            allowed |= 1 << MMU_WRITE;
        if ((rights & RIGHT_USER) && (paging->cr4 & CR4_SMEP))
            allowed &= ~(1u << MMU_EXECUTE);
        if ((rights & RIGHT_USER) && (paging->cr4 & CR4_SMAP) && privilege != MMU_SUPERVISOR_AC)
            allowed &= ~(1u << MMU_READ | 1u << MMU_WRITE);
    }
    return allowed & ~pkey_denied(paging, rights, pkey, privilege);
}

/* 4.7: `error` has P and RSVD. */
static int walk_fault(const struct paging *paging, gva_t gva, enum mmu_access access, enum mmu_privilege privilege,
                      uint32_t error, struct fault *fault)
{
    if (access == MMU_WRITE)
        error |= PF_WRITE;
    if (privilege == MMU_USER)
        error |= PF_USER;
    if (access == MMU_EXECUTE && ((paging->cr4 & CR4_SMEP) || ((paging->cr4 & CR4_PAE) && (paging->efer & EFER_NXE))))
        error |= PF_FETCH;
    *fault = (struct fault){ .vector = VECTOR_PF, .error = error, .address = gva };
    return -1;
}

/* Sets bits in one entry: false if it was changed meanwhile. */
static bool entry_set_bits(struct walk *walk, struct walk_entry *entry, uint64_t set)
{
    bool done;

    if ((entry->value & set) == set || !entry->writable)
        return true;
    physmem_notify_entry_changing(walk->mem, entry->gpa, entry->host);
    if (walk->mode->entry_size == 4) {
        uint32_t expected = (uint32_t)entry->value;
        done = __atomic_compare_exchange_n((uint32_t *)entry->host, &expected, (uint32_t)(entry->value | set), false,
                                           __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE);
    } else {
        uint64_t expected = entry->value;
        done = __atomic_compare_exchange_n((uint64_t *)entry->host, &expected, entry->value | set, false,
                                           __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE);
    }
    if (!done)
        return false;
    entry->value |= set;
    physmem_written_host(walk->mem, entry->gpa, entry->host, walk->mode->entry_size);
    return true;
}

static bool walk_set_accessed(struct walk *walk, enum mmu_access access)
{
    for (unsigned i = 0; i < walk->count; i++) {
        bool last = i + 1 == walk->count;
        if (!entry_set_bits(walk, &walk->entries[i], last && access == MMU_WRITE ? PTE_A | PTE_D : PTE_A))
            return false;
    }
    return true;
}

static void walk_finish(const struct walk *walk, unsigned rights, unsigned pkey, unsigned allowed,
                        struct walk_result *result)
{
    uint64_t leaf = walk->entries[walk->count - 1].value;
    unsigned shift = walk->mode->shifts[walk->count - 1];

    *result = (struct walk_result){
        .gpa = entry_address(walk, leaf, shift, true) | (walk->gva & (walk->page_size - 1)),
        .page_size = walk->page_size,
        .readable = allowed >> MMU_READ & 1,
        .writable = allowed >> MMU_WRITE & 1,
        .executable = allowed >> MMU_EXECUTE & 1,
        .user = rights & RIGHT_USER,
        .global = (leaf & PTE_G) && (walk->paging->cr4 & CR4_PGE),
        .dirty = leaf & PTE_D,
        .pkey = (uint8_t)pkey,
        .rights = (uint8_t)rights,
    };
}

static void identity_result(gva_t gva, struct walk_result *result)
{
    *result = (struct walk_result){
        .gpa = gva,
        .page_size = PAGE_SIZE,
        .readable = true,
        .writable = true,
        .executable = true,
        .user = true,
        .dirty = true,
        .rights = RIGHT_WRITE | RIGHT_USER,
    };
}

int mmu_walk(const struct paging *paging, struct physmem *mem, gva_t gva, enum mmu_access access,
             enum mmu_privilege privilege, struct walk_result *result, struct fault *fault)
{
    struct walk walk = { .paging = paging, .mem = mem, .gva = gva };
    uint32_t error;

    if (!(paging->cr0 & CR0_PG)) {
        identity_result(gva, result);
        return 0;
    }
    walk.mode = paging_mode(paging);
    for (;;) {
        if (walk_fetch(&walk, &error))
            return walk_fault(paging, gva, access, privilege, error, fault);
        unsigned rights = walk_rights(&walk);
        uint64_t leaf = walk.entries[walk.count - 1].value;
        unsigned pkey = walk.mode == &mode_4level ? leaf >> PTE_PKEY_SHIFT & 15 : 0;
        unsigned allowed = paging_allowed(paging, rights, pkey, privilege);
        if (!(allowed >> access & 1)) {
            error = PF_PRESENT;
            if (pkey_denied(paging, rights, pkey, privilege) >> access & 1)
                error |= PF_PKEY;
            return walk_fault(paging, gva, access, privilege, error, fault);
        }
        if (likely(walk_set_accessed(&walk, access))) {
            walk_finish(&walk, rights, pkey, allowed, result);
            return 0;
        }
    }
}

bool mmu_walk_debug(const struct paging *paging, struct physmem *mem, gva_t gva, gpa_t *gpa)
{
    struct walk walk = { .paging = paging, .mem = mem, .gva = gva };
    struct walk_result result;
    uint32_t error;

    *gpa = gva;
    if (!(paging->cr0 & CR0_PG))
        return true;
    walk.mode = paging_mode(paging);
    if (walk_fetch(&walk, &error))
        return false;
    walk_finish(&walk, 0, 0, 0, &result);
    *gpa = result.gpa;
    return true;
}

/* 4.4.1: bits 2:1, 8:5 and 63:MAXPHYADDR of a present PDPTE are reserved. Nothing is changed on failure. */
bool mmu_load_pdptes(struct paging *paging, struct physmem *mem)
{
    uint64_t reserved = 0x1e6 | mask_bits(63, physical_bits(paging));
    uint64_t pdpte[4];

    physmem_read(mem, paging->cr3 & 0xffffffe0, pdpte, sizeof(pdpte));
    for (unsigned i = 0; i < 4; i++)
        if ((pdpte[i] & PTE_P) && (pdpte[i] & reserved))
            return false;
    for (unsigned i = 0; i < 4; i++)
        paging->pdpte[i] = pdpte[i];
    return true;
}
