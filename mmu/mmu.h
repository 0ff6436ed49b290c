/* The per-vCPU MMU: L1 TLBs that generated code and the interpreter look at inline,
 * backed by L2 (a large TLB that knows address spaces apart) and the walker.
 *
 *   L1 data entry, 32 bytes:
 *     tag_r   page address if readable, else a non-canonical value
 *     host_r  host page, or a PROT_NONE page
 *     tag_w   the same for writing: also invalid while D is clear in the guest's entry,
 *     host_w  while the page is write-tracked (code, dirty logging), for ROM and MMIO
 *
 * A check is `t = gva ^ tag; t <= 4096 - size`, then host + t. Only the owning vCPU
 * thread touches a struct mmu; others ask through the CPU's event word. */
#ifndef EIDOLON_MMU_MMU_H
#define EIDOLON_MMU_MMU_H

#include "mmu/walk.h"

#define MMU_L1_BITS      12
#define MMU_L1_SIZE      (1u << MMU_L1_BITS)
#define MMU_L1_EXEC_BITS 9
#define MMU_L1_EXEC_SIZE (1u << MMU_L1_EXEC_BITS)
/* The tag of an invalid entry: non-canonical, and with the index bits complemented, so
 * that no address whatever (canonical or not) that is looked up by index matches it. */
static inline uint64_t mmu_invalid_tag(unsigned index)
{
    return 0x8000000000000000ull | (uint64_t)(~index & (MMU_L1_SIZE - 1)) << PAGE_SHIFT;
}
/* Which entry of an L1 data array an address belongs to. Two parts of the page number are mixed: kernels place stacks, per-CPU data
 * and their map of all memory at multiples of many MiB. */
static inline unsigned mmu_l1_index(gva_t gva)
{
    return (gva >> PAGE_SHIFT ^ gva >> (PAGE_SHIFT + MMU_L1_BITS)) & (MMU_L1_SIZE - 1);
}

struct tlb_entry {
    uint64_t tag_r;
    uint8_t *host_r;
    uint64_t tag_w;
    uint8_t *host_w;
};
_Static_assert(sizeof(struct tlb_entry) == 32, "generated code scales by 32");

struct tlb_exec_entry {
    uint64_t tag;
    uint8_t *host; /* NULL: executing from MMIO or unassigned */
    gpa_t gpa;     /* of the page */
};

/* Who wants to know of every write before it happens, and to keep single accesses from happening: the lockstep engine. The
 * vCPU's thread calls. */
struct mmu_watch {
    void *opaque;
    /* A data access that the L1 arrays do not allow yet. `host`: of the RAM or ROM page; NULL: MMIO, or a write that the
     * bus drops. False: it is not to be made now, and faults with *fault, which no guest sees. */
    bool (*access)(void *opaque, enum mmu_access access, gpa_t gpa, uint8_t *host, struct fault *fault);
    /* Where L1 is about to lead accesses at gva: RAM or ROM at the same host address, or NULL. May put another view of the
     * page there, or NULL to be asked each time. */
    void (*place)(void *opaque, gva_t gva, enum mmu_privilege privilege, uint8_t **host_r, uint8_t **host_w);
    void (*walk)(void *opaque, gva_t gva); /* the guest's tables are about to be walked */
};

struct tlb_info; /* what the fast path does not need: gpa, page size, global, PCID */
struct mmu_l2;

struct mmu {
    struct tlb_entry l1[MMU_PRIVILEGES][MMU_L1_SIZE];
    struct tlb_exec_entry exec[2][MMU_L1_EXEC_SIZE]; /* [0] user, [1] supervisor */
    struct paging paging;
    struct physmem *physmem;
    gpa_t apic_page; /* this page is MMIO for this vCPU whatever the map says; ~0: none */
    /* Changes whenever what an instruction fetch would find may have changed: flushes,
     * INVLPG, CR and EFER changes. Caches keyed by virtual address compare it. */
    uint64_t exec_generation;
    /* The same for caches that outlive a change of address space: what global pages may have changed; what pages of some address
     * space may have, other than by its getting a new number; the number of the current space. */
    uint64_t exec_global_generation, exec_space_generation;
    uint32_t space;
    uint64_t space_resets;
    /* Changes whenever a data translation that somebody may have taken note of has gone: host addresses that were worked out
     * before are void. (Not when an entry merely made room for another.) */
    uint64_t data_generation;
    struct tlb_info *info;
    struct mmu_l2 *l2;
    uint8_t *no_access_page; /* PROT_NONE */
    const struct mmu_watch *watch; /* NULL: nobody */
    struct {
        uint64_t l1_fills, l2_hits, walks, faults, flushes, invlpgs;
    } stats;
};

int mmu_init(struct mmu *mmu, struct physmem *physmem, struct error *err);
void mmu_destroy(struct mmu *mmu);

/* The answer to one access within one page. */
struct mmu_target {
    uint8_t *host; /* of the byte at gva; NULL: go through physmem_mmio_* (or the APIC) with gpa */
    gpa_t gpa;
    bool notice; /* write to a tracked page: call physmem_written(gpa, size) around the store */
};

/* Slow path: finds and caches the translation of gva. 0, or -1 with *fault (#PF). gva
 * must be canonical; the access must not cross a page. */
int mmu_translate(struct mmu *mmu, gva_t gva, enum mmu_access access, enum mmu_privilege privilege,
                  struct mmu_target *target, struct fault *fault);

/* Fast path: host pointer or NULL (miss, page crossing, MMIO, tracked). */
static inline uint8_t *mmu_lookup_read(const struct mmu *mmu, gva_t gva, unsigned size, enum mmu_privilege privilege)
{
    const struct tlb_entry *entry = &mmu->l1[privilege][mmu_l1_index(gva)];
    uint64_t offset = gva ^ entry->tag_r;
    return likely(offset <= PAGE_SIZE - size) ? entry->host_r + offset : NULL;
}
static inline uint8_t *mmu_lookup_write(const struct mmu *mmu, gva_t gva, unsigned size, enum mmu_privilege privilege)
{
    const struct tlb_entry *entry = &mmu->l1[privilege][mmu_l1_index(gva)];
    uint64_t offset = gva ^ entry->tag_w;
    return likely(offset <= PAGE_SIZE - size) ? entry->host_w + offset : NULL;
}

/* Control. The CPU has already checked the values and stores its own copies; these
 * keep the TLBs as the architecture wants (SDM Vol. 3A 4.10.4). */
void mmu_set_cr0(struct mmu *mmu, uint64_t cr0);
void mmu_set_cr3(struct mmu *mmu, uint64_t cr3, bool no_flush); /* no_flush: bit 63 of the source with PCIDE */
void mmu_set_cr4(struct mmu *mmu, uint64_t cr4);
void mmu_set_efer(struct mmu *mmu, uint64_t efer);
void mmu_set_pkru(struct mmu *mmu, uint32_t pkru);
void mmu_set_pdptes(struct mmu *mmu, const uint64_t pdpte[4]);
void mmu_set_apic_page(struct mmu *mmu, gpa_t page);
void mmu_invlpg(struct mmu *mmu, gva_t gva);
/* INVPCID types 0 to 3 (SDM Vol. 2A INVPCID). */
void mmu_invpcid(struct mmu *mmu, unsigned type, unsigned pcid, gva_t gva);
void mmu_flush_all(struct mmu *mmu);                   /* everything, globals too: reset, map change */
void mmu_drop_write_tags(struct mmu *mmu, gpa_t page); /* a page became write-tracked */

/* From other threads: asks the owner to drop the write tags of a page. The caller then makes the vCPU
 * come to a safe point (CPU_EVENT_WORK), where its thread calls mmu_run_pending. Both may be
 * called at any time; nothing posted is lost. */
void mmu_post_drop_write_tags(struct mmu *mmu, gpa_t page);
void mmu_run_pending(struct mmu *mmu);

/* Is the translation for execution in supervisor mode, which was just found by mmu_translate, of a global page? */
bool mmu_exec_is_global(const struct mmu *mmu, gva_t gva);

/* For tests: at most `entries` valid entries in all data arrays together, and as many in the exec
 * arrays; the oldest goes first. 0: no limit. The environment variable EIDOLON_L1_ENTRIES sets it at mmu_init. */
void mmu_set_l1_limit(struct mmu *mmu, unsigned entries);

#endif
