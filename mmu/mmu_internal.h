/* Shared by mmu.c, tlb.c and l2.c. */
#ifndef EIDOLON_MMU_MMU_INTERNAL_H
#define EIDOLON_MMU_MMU_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>

#include "mmu/mmu.h"

/* A translation as the TLBs keep it: of one 4 KiB page, perhaps a piece of a larger one. */
enum page_size_code { PAGE_4K, PAGE_2M, PAGE_4M, PAGE_1G };

struct translation {
    gpa_t gpa;      /* of the 4 KiB page */
    uint8_t rights; /* RIGHT_*: before privilege, control registers and protection keys */
    uint8_t pkey;
    uint8_t size_code; /* enum page_size_code: what the guest's entry maps */
    bool dirty, global;
};

static inline unsigned page_size_shift(unsigned size_code)
{
    static const uint8_t shifts[] = { 12, 21, 22, 30 };
    return shifts[size_code];
}

/* ---- tlb.c: the L1 arrays ---- */

#define TLB_LIMIT_MAX   64
#define TLB_PENDING_MAX 64

/* Pages that may be in an array, by what INVLPG knows: the address, but not the page's size. No false
 * negatives. Bit index: a hash of the page number and size, and address bit 63, so that
 * INVLPG in the user half never meets a kernel page. */
struct page_filter {
    uint64_t words[32];
};

struct tlb_fifo {
    uint16_t slots[TLB_LIMIT_MAX]; /* array << 12 | index, oldest first */
    unsigned count;
};

#define TLB_ARRAYS      MMU_PRIVILEGES
#define TLB_EXEC_ARRAYS 2

struct tlb_info {
    /* What stands behind each L1 entry: gpa of the page in bits 51:12, below it the TLB_* bits. */
    uint64_t data[TLB_ARRAYS][MMU_L1_SIZE];
    uint64_t exec[TLB_EXEC_ARRAYS][MMU_L1_EXEC_SIZE];
    /* Which entries are valid; local: not global. A flush looks at nothing else. */
    uint64_t data_local[TLB_ARRAYS][MMU_L1_SIZE / 64], data_global[TLB_ARRAYS][MMU_L1_SIZE / 64];
    uint64_t exec_local[TLB_EXEC_ARRAYS][MMU_L1_EXEC_SIZE / 64], exec_global[TLB_EXEC_ARRAYS][MMU_L1_EXEC_SIZE / 64];
    struct page_filter large_local, large_global;       /* pages above 4 KiB in any array */
    struct page_filter executed_local, executed_global; /* everything that went into the exec arrays */
    struct page_filter executed_kept;                   /* local ones, of all spaces, since exec_space_generation moved */
    uint32_t pkeys;                                     /* bit per protection key: some data entry has it */

    unsigned limit; /* mmu_set_l1_limit */
    struct tlb_fifo data_fifo, exec_fifo;

    pthread_mutex_t pending_lock;
    _Atomic bool pending;
    unsigned pending_count;               /* guarded by pending_lock; above the maximum: all pages */
    gpa_t pending_pages[TLB_PENDING_MAX]; /* guarded by pending_lock */
};

int tlb_init(struct mmu *mmu, struct error *err);
void tlb_destroy(struct mmu *mmu);
void tlb_fill_data(struct mmu *mmu, gva_t gva, enum mmu_privilege privilege, const struct translation *translation,
                   uint8_t *host_r, uint8_t *host_w);
void tlb_fill_exec(struct mmu *mmu, gva_t gva, bool supervisor, const struct translation *translation, uint8_t *host);
void tlb_flush_local(struct mmu *mmu); /* all but global pages */
void tlb_flush_all(struct mmu *mmu);
void tlb_invalidate_page(struct mmu *mmu, gva_t gva); /* every piece of the page at gva, global or not */
void tlb_note_invalidated(struct mmu *mmu, gva_t gva); /* a page of another space than the current one */
void tlb_drop_pkeys(struct mmu *mmu, uint32_t pkeys); /* entries of these protection keys (bit mask) */
void tlb_drop_write_tags(struct mmu *mmu, gpa_t page);
void tlb_drop_all_write_tags(struct mmu *mmu);

/* ---- l2.c ---- */

struct mmu_l2 *l2_create(struct error *err);
void l2_destroy(struct mmu_l2 *l2);
bool l2_lookup(const struct mmu_l2 *l2, gva_t gva, struct translation *translation);
void l2_insert(struct mmu_l2 *l2, gva_t gva, const struct translation *translation);
void l2_remove(struct mmu_l2 *l2, gva_t gva);                     /* current address space and global pages */
void l2_remove_pcid(struct mmu_l2 *l2, unsigned pcid, gva_t gva); /* that PCID's, not global ones */
/* Makes (pcid, root) current; without `keep` its translations are dropped, as they are if the PCID had
 * another root. True if nothing changed: what is current was current before. */
uint32_t l2_current(const struct mmu_l2 *l2); /* number of the selected space */
uint64_t l2_resets(const struct mmu_l2 *l2);  /* how often the numbers began again */
bool l2_select(struct mmu_l2 *l2, unsigned pcid, gpa_t root, bool keep);
void l2_flush_pcid(struct mmu_l2 *l2, unsigned pcid); /* not global ones; not the current one: l2_select */
void l2_flush(struct mmu_l2 *l2, bool globals);       /* all PCIDs; then l2_select must be called */

#endif
