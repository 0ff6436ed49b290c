/* The MMU of one vCPU: the slow path that fills the L1 arrays from L2 or a walk, and what control registers
 * and invalidation instructions do to both.
 *
 * A cached translation only ever grants; it never faults. If what L2 has does not allow an
 * access, the guest's tables are walked, and their word counts: an operating system that widens rights without
 * an invalidation is within the manual (4.10.4.3), as is a stale narrower view of ours. A page fault invalidates
 * the address in both levels (4.10.4.1).
 *
 * Threads: the vCPU's own, but for mmu_post_drop_write_tags. SDM Vol. 3A 4.10. */
#include "mmu/mmu.h"

#include <errno.h>
#include <string.h>

#include "base/log.h"
#include "mmu/mmu_internal.h"
#include "mmu/paging_bits.h"
#include "mmu/physmem_internal.h"

int mmu_init(struct mmu *mmu, struct physmem *physmem, struct error *err)
{
    memset(mmu, 0, sizeof(*mmu));
    mmu->physmem = physmem;
    mmu->apic_page = ~0ull;
    mmu->exec_generation = 1;
    mmu->paging.max_physical_bits = 40;
    mmu->paging.has_1gib_pages = true;
    int result = tlb_init(mmu, err);
    if (!result) {
        mmu->l2 = l2_create(err);
        result = mmu->l2 ? 0 : -ENOMEM;
    }
    if (result)
        mmu_destroy(mmu);
    else
        l2_select(mmu->l2, 0, 0, false);
    return result;
}

void mmu_destroy(struct mmu *mmu)
{
    l2_destroy(mmu->l2);
    mmu->l2 = NULL;
    tlb_destroy(mmu);
}

/* ---- The slow path ---- */

static void invalidate_page(struct mmu *mmu, gva_t gva)
{
    tlb_invalidate_page(mmu, gva);
    l2_remove(mmu->l2, gva);
}

static unsigned size_code_of(uint64_t page_size)
{
    return page_size == PAGE_SIZE ? PAGE_4K : page_size == 2 * MIB ? PAGE_2M : page_size == 4 * MIB ? PAGE_4M : PAGE_1G;
}

/* Walks, and keeps what it finds in L2. `cached` is what L2 had, or NULL. */
static int translate_by_walk(struct mmu *mmu, gva_t gva, enum mmu_access access, enum mmu_privilege privilege,
                             const struct translation *cached, struct translation *translation, struct fault *fault)
{
    struct walk_result walk;

    mmu->stats.walks++;
    if (unlikely(mmu->watch))
        mmu->watch->walk(mmu->watch->opaque, gva);
    if (mmu_walk(&mmu->paging, mmu->physmem, gva, access, privilege, &walk, fault)) {
        mmu->stats.faults++;
        log_event(mmu, "page fault at 0x%llx, error 0x%x\n", (unsigned long long)gva, fault->error);
        invalidate_page(mmu, gva);
        return -1;
    }
    *translation = (struct translation){
        .gpa = walk.gpa & PAGE_MASK,
        .rights = walk.rights,
        .pkey = walk.pkey,
        .size_code = (uint8_t)size_code_of(walk.page_size),
        .dirty = walk.dirty,
        .global = walk.global,
    };
    /* The guest changed the page and did not say so: what is left of the old one goes now, so that the
     * arrays do not disagree for longer than they must. */
    if (cached && (cached->gpa != translation->gpa || cached->rights != translation->rights ||
                   cached->size_code != translation->size_code || cached->pkey != translation->pkey ||
                   cached->global != translation->global))
        invalidate_page(mmu, gva);
    l2_insert(mmu->l2, gva, translation);
    return 0;
}

static int find_translation(struct mmu *mmu, gva_t gva, enum mmu_access access, enum mmu_privilege privilege,
                            struct translation *translation, unsigned *allowed, struct fault *fault)
{
    struct translation cached;

    if (!(mmu->paging.cr0 & CR0_PG)) {
        *translation =
            (struct translation){ .gpa = gva & PAGE_MASK, .rights = RIGHT_WRITE | RIGHT_USER, .dirty = true };
        *allowed = paging_allowed(&mmu->paging, 0, 0, privilege);
        return 0;
    }
    bool found = l2_lookup(mmu->l2, gva, &cached);
    if (found) {
        *allowed = paging_allowed(&mmu->paging, cached.rights, cached.pkey, privilege);
        if ((*allowed >> access & 1) && (cached.dirty || access != MMU_WRITE)) {
            mmu->stats.l2_hits++;
            *translation = cached;
            return 0;
        }
    }
    if (translate_by_walk(mmu, gva, access, privilege, found ? &cached : NULL, translation, fault))
        return -1;
    *allowed = paging_allowed(&mmu->paging, translation->rights, translation->pkey, privilege);
    return 0;
}

int mmu_translate(struct mmu *mmu, gva_t gva, enum mmu_access access, enum mmu_privilege privilege,
                  struct mmu_target *target, struct fault *fault)
{
    struct translation translation;
    unsigned allowed;

    if (find_translation(mmu, gva, access, privilege, &translation, &allowed, fault))
        return -1;

    struct mem_page page = physmem_lookup(mmu->physmem, translation.gpa);
    uint8_t *host = unlikely(translation.gpa == mmu->apic_page) ? NULL : page.host;
    bool writable = host && page.kind == MEM_RAM;
    bool notice = writable && page_flags_need_notice(physmem_host_flags(mmu->physmem, host));
    uint8_t *host_r = allowed >> MMU_READ & 1 ? host : NULL;
    uint8_t *host_w = writable && (allowed >> MMU_WRITE & 1) && translation.dirty && !notice ? host : NULL;
    gva_t offset = gva & ~PAGE_MASK;

    if (writable)
        physmem_touch(mmu->physmem, host);
    if (unlikely(mmu->watch) && access != MMU_EXECUTE) {
        if (!mmu->watch->access(mmu->watch->opaque, access, translation.gpa | offset,
                                access == MMU_WRITE && !writable ? NULL : host, fault))
            return -1;
        mmu->watch->place(mmu->watch->opaque, gva, privilege, &host_r, &host_w);
    }
    if (access == MMU_EXECUTE)
        tlb_fill_exec(mmu, gva, privilege != MMU_USER, &translation, host);
    else if (host)
        tlb_fill_data(mmu, gva, privilege, &translation, host_r, host_w);
    if (access == MMU_WRITE && !writable)
        host = NULL; /* ROM: the bus drops it */
    *target = (struct mmu_target){
        .host = host ? host + offset : NULL,
        .gpa = translation.gpa | offset,
        .notice = access == MMU_WRITE && notice,
    };
    return 0;
}

/* ---- Control registers: 4.10.4.1 ---- */

/* Takes the address space that CR3 and CR4.PCIDE say; L1 loses what is not global if it is another. */
static void select_space(struct mmu *mmu, bool keep)
{
    unsigned pcid = mmu->paging.cr4 & CR4_PCIDE ? mmu->paging.cr3 & 0xfff : 0;

    if (!l2_select(mmu->l2, pcid, mmu->paging.cr3 & ~0xfffull, keep)) {
        tlb_flush_local(mmu);
        mmu->stats.flushes++;
    }
    /* Numbers begin again when they run out: what was kept under them is void. */
    if (l2_resets(mmu->l2) != mmu->space_resets) {
        mmu->space_resets = l2_resets(mmu->l2);
        mmu->exec_space_generation++;
    }
    mmu->space = l2_current(mmu->l2);
}

void mmu_flush_all(struct mmu *mmu)
{
    log_event(mmu, "flush all\n");
    tlb_flush_all(mmu);
    l2_flush(mmu->l2, true);
    select_space(mmu, false);
}

void mmu_set_cr0(struct mmu *mmu, uint64_t cr0)
{
    uint64_t changed = mmu->paging.cr0 ^ cr0;

    mmu->paging.cr0 = cr0;
    if (changed & CR0_PG)
        mmu_flush_all(mmu);
    else if (changed & CR0_WP)
        tlb_flush_all(mmu); /* L1 has WP worked in; L2 does not */
}

void mmu_set_cr3(struct mmu *mmu, uint64_t cr3, bool no_flush)
{
    mmu->paging.cr3 = cr3;
    select_space(mmu, no_flush && (mmu->paging.cr4 & CR4_PCIDE));
}

void mmu_set_cr4(struct mmu *mmu, uint64_t cr4)
{
    uint64_t changed = mmu->paging.cr4 ^ cr4;
    uint64_t set = changed & cr4, cleared = changed & ~cr4;

    mmu->paging.cr4 = cr4;
    if ((changed & (CR4_PGE | CR4_PAE | CR4_PSE | CR4_LA57)) || (cleared & CR4_PCIDE) || (set & CR4_SMEP)) {
        mmu_flush_all(mmu);
        return;
    }
    if (changed & (CR4_SMEP | CR4_SMAP | CR4_PKE | CR4_PKS))
        tlb_flush_all(mmu);
    if (set & CR4_PCIDE) /* CR3[11:0] is 0 now: the same space, by another name */
        select_space(mmu, true);
}

void mmu_set_efer(struct mmu *mmu, uint64_t efer)
{
    uint64_t changed = mmu->paging.efer ^ efer;

    mmu->paging.efer = efer;
    if (changed & (EFER_NXE | EFER_LMA))
        mmu_flush_all(mmu);
}

void mmu_set_pkru(struct mmu *mmu, uint32_t pkru)
{
    uint32_t changed = mmu->paging.pkru ^ pkru, keys = 0;

    mmu->paging.pkru = pkru;
    for (unsigned key = 0; key < 16; key++)
        keys |= (changed >> key * 2 & 3 ? 1u : 0) << key;
    tlb_drop_pkeys(mmu, keys);
}

void mmu_set_pdptes(struct mmu *mmu, const uint64_t pdpte[4])
{
    if (memcmp(mmu->paging.pdpte, pdpte, sizeof(mmu->paging.pdpte)) == 0)
        return;
    memcpy(mmu->paging.pdpte, pdpte, sizeof(mmu->paging.pdpte));
    select_space(mmu, false);
}

void mmu_set_apic_page(struct mmu *mmu, gpa_t page)
{
    if (mmu->apic_page != page)
        tlb_flush_all(mmu);
    mmu->apic_page = page;
}

/* ---- Invalidation instructions ---- */

void mmu_invlpg(struct mmu *mmu, gva_t gva)
{
    mmu->stats.invlpgs++;
    invalidate_page(mmu, gva);
}

void mmu_invpcid(struct mmu *mmu, unsigned type, unsigned pcid, gva_t gva)
{
    unsigned current = mmu->paging.cr4 & CR4_PCIDE ? mmu->paging.cr3 & 0xfff : 0;

    pcid &= 0xfff;
    switch (type) {
    case 0: /* one address in one PCID; global pages may stay, and may go */
        mmu->stats.invlpgs++;
        if (pcid == current)
            invalidate_page(mmu, gva);
        else {
            l2_remove_pcid(mmu->l2, pcid, gva);
            tlb_note_invalidated(mmu, gva);
        }
        break;
    case 1: /* one PCID, but global pages */
        if (pcid == current)
            select_space(mmu, false);
        else
            l2_flush_pcid(mmu->l2, pcid);
        break;
    case 2: /* everything */
        mmu_flush_all(mmu);
        break;
    case 3: /* everything but global pages */
        l2_flush(mmu->l2, false);
        select_space(mmu, false);
        break;
    }
}

/* ---- Write tracking ---- */

void mmu_drop_write_tags(struct mmu *mmu, gpa_t page)
{
    tlb_drop_write_tags(mmu, page);
}

void mmu_post_drop_write_tags(struct mmu *mmu, gpa_t page)
{
    struct tlb_info *info = mmu->info;

    vector_guard(); /* the caller may be another vCPU's thread */
    pthread_mutex_lock(&info->pending_lock);
    if (info->pending_count < TLB_PENDING_MAX)
        info->pending_pages[info->pending_count] = page;
    if (info->pending_count <= TLB_PENDING_MAX)
        info->pending_count++;
    /* Release: pairs with the exchange in mmu_run_pending. */
    atomic_store_explicit(&info->pending, true, memory_order_release);
    pthread_mutex_unlock(&info->pending_lock);
}

void mmu_run_pending(struct mmu *mmu)
{
    struct tlb_info *info = mmu->info;

    if (!atomic_exchange_explicit(&info->pending, false, memory_order_acq_rel))
        return;
    vector_guard();
    pthread_mutex_lock(&info->pending_lock);
    if (info->pending_count > TLB_PENDING_MAX) {
        tlb_drop_all_write_tags(mmu);
    } else {
        for (unsigned i = 0; i < info->pending_count; i++)
            tlb_drop_write_tags(mmu, info->pending_pages[i]);
    }
    info->pending_count = 0;
    pthread_mutex_unlock(&info->pending_lock);
}
