/* What is asked of the lockstep engine while a block runs: by the translator, whether an instruction may be run twice; by the
 * MMU (struct mmu_watch), which pages may be written and which accesses be made, and it is told what is walked.
 *
 * Called from slow paths of translated code, while the guest's vector state is in the host's registers: it is parked
 * before pages are copied. vCPU thread only. */
#include "jit/jit_lockstep.h"

/* ---- What must not be run twice ---- */

enum { ONCE = 1 }; /* reasons are stored plus 1: 0 is "not listed" */
static const uint8_t reason_of_handler[HANDLER_COUNT] = {
#define RUN_ONCE(name, reason) [HANDLER_##name] = ONCE + REASON_##reason
    RUN_ONCE(in, PORT), RUN_ONCE(out, PORT), RUN_ONCE(ins, PORT), RUN_ONCE(outs, PORT),
    RUN_ONCE(rdtsc, CLOCK), RUN_ONCE(rdtscp, CLOCK), RUN_ONCE(rdpmc, CLOCK), RUN_ONCE(rdrand, CLOCK),
    RUN_ONCE(rdseed, CLOCK), RUN_ONCE(rdmsr, MSR), RUN_ONCE(wrmsr, MSR), RUN_ONCE(mov_from_cr, CONTROL),
    RUN_ONCE(mov_to_cr, CONTROL), RUN_ONCE(mov_from_dr, CONTROL), RUN_ONCE(mov_to_dr, CONTROL), RUN_ONCE(lmsw, CONTROL),
    RUN_ONCE(hlt, CONTROL), RUN_ONCE(cpuid, CONTROL), RUN_ONCE(invd, CONTROL), RUN_ONCE(wbinvd, CONTROL),
    RUN_ONCE(invlpg, CONTROL), RUN_ONCE(invpcid, CONTROL), RUN_ONCE(wrpkru, CONTROL), RUN_ONCE(xsetbv, CONTROL),
    RUN_ONCE(monitor, CONTROL), RUN_ONCE(mwait, CONTROL), RUN_ONCE(rsm, CONTROL), RUN_ONCE(vmcall, CONTROL),
#undef RUN_ONCE
};

/* Outside 64-bit mode these may switch tasks, and so CR3. */
static bool may_switch_tasks(const struct insn *insn)
{
    if (insn->code_size == CODE64)
        return false;
    switch (insn->row->handler) {
    case HANDLER_jmp_far:
    case HANDLER_call_far:
    case HANDLER_int:
    case HANDLER_int3:
    case HANDLER_int1:
    case HANDLER_into:
    case HANDLER_iret:
        return true;
    default:
        return false;
    }
}

enum lockstep_reason lockstep_reason_of(const struct insn *insn)
{
    if (!insn->row)
        return REASON_NONE;
    unsigned listed = reason_of_handler[insn->row->handler];
    if (listed)
        return (enum lockstep_reason)(listed - ONCE);
    return may_switch_tasks(insn) ? REASON_CONTROL : REASON_NONE;
}

bool jit_runs_once(const struct insn *insn)
{
    return lockstep_reason_of(insn) != REASON_NONE;
}

/* The x87 pointers are dropped before each block: what stores them has to come first. */
bool lockstep_stores_x87_pointers(const struct insn *insn)
{
    switch (insn->row->handler) {
    case HANDLER_fnstenv:
    case HANDLER_fnsave:
    case HANDLER_fxsave:
    case HANDLER_xsave:
    case HANDLER_xsaveopt:
    case HANDLER_xsavec:
    case HANDLER_xsaves:
        return true;
    default:
        return false;
    }
}

bool lockstep_withholds(struct lockstep *ls, const struct insn *insn, bool first)
{
    enum lockstep_reason reason = lockstep_reason_of(insn);

    if (reason == REASON_NONE && (first || !insn->row || !lockstep_stores_x87_pointers(insn)))
        return false;
    ls->memory.withheld = reason;
    ls->cpu->fault = (struct fault){ .vector = VECTOR_WITHHELD };
    return true;
}

bool jit_lockstep_withholds(struct jit *jit, const struct insn *insn)
{
    return lockstep_withholds(jit->lockstep, insn, jit->executed - jit->lockstep->slice_start == 1);
}

/* ---- Memory ---- */

static struct lockstep_page *find_page(struct lockstep_memory *memory, const uint8_t *host)
{
    for (unsigned i = 0; i < memory->page_count; i++)
        if (memory->pages[i].host == host)
            return &memory->pages[i];
    return NULL;
}

static bool withhold(struct lockstep_memory *memory, enum lockstep_reason reason, struct fault *fault)
{
    memory->withheld = reason;
    *fault = (struct fault){ .vector = VECTOR_WITHHELD };
    return false;
}

/* Until now the page was read where it cannot be written; from now on by its window, at whatever guest address: see on_place. */
static void drop_read_only_views(struct lockstep *ls, const uint8_t *host)
{
    const struct lockstep_memory *memory = &ls->memory;
    const uint8_t *view = memory->read_only + (host - memory->ram);
    struct mmu *mmu = &ls->cpu->mmu;

    for (unsigned privilege = 0; privilege < MMU_PRIVILEGES; privilege++)
        for (unsigned i = 0; i < MMU_L1_SIZE; i++)
            if (unlikely(mmu->l1[privilege][i].host_r == view)) {
                mmu->l1[privilege][i].tag_r = mmu_invalid_tag(i);
                mmu->l1[privilege][i].host_r = mmu->no_access_page;
            }
}

static bool on_access(void *opaque, enum mmu_access access, gpa_t gpa, uint8_t *host, struct fault *fault)
{
    struct lockstep *ls = opaque;
    struct lockstep_memory *memory = &ls->memory;

    if (memory->phase == PHASE_FREE) {
        memory->stale |= access == MMU_WRITE;
        return true;
    }
    if (!host)
        return withhold(memory, REASON_MMIO, fault);
    if (access != MMU_WRITE || find_page(memory, host))
        return true;
    cpu_park_vectors(ls->cpu);
    if (!lockstep_page_enter(memory, host, gpa & PAGE_MASK))
        return withhold(memory, REASON_PAGES, fault);
    drop_read_only_views(ls, host);
    return true;
}

static void note_tag(struct lockstep_page *page, gva_t gva, enum mmu_privilege privilege)
{
    for (unsigned i = 0; i < MIN(page->tag_count, LOCKSTEP_TAGS_MAX); i++)
        if (page->tags[i].page == gva && page->tags[i].privilege == privilege)
            return;
    if (page->tag_count < LOCKSTEP_TAGS_MAX) {
        page->tags[page->tag_count].page = gva;
        page->tags[page->tag_count].privilege = (uint8_t)privilege;
    }
    page->tag_count++;
}

/* RAM is read through a mapping that cannot be written, and written, if it may be, through the page's window. A page of the set
 * is read there too, at whatever guest address, so that accesses that overlap are seen to do so by their host addresses. */
static void on_place(void *opaque, gva_t gva, enum mmu_privilege privilege, uint8_t **host_r, uint8_t **host_w)
{
    struct lockstep *ls = opaque;
    struct lockstep_memory *memory = &ls->memory;
    uint8_t *host = *host_r ? *host_r : *host_w;

    if (!host || (uint64_t)(host - memory->ram) >= memory->ram_size)
        return; /* ROM, which nobody writes */
    struct lockstep_page *page = find_page(memory, host);
    if (page)
        note_tag(page, gva & PAGE_MASK, privilege);
    if (*host_r)
        *host_r = page ? page->window : memory->read_only + (host - memory->ram);
    *host_w = page && *host_w ? page->window : NULL;
}

static void on_walk(void *opaque, gva_t gva)
{
    struct lockstep_memory *memory = &((struct lockstep *)opaque)->memory;

    if (memory->phase != PHASE_TRANSLATED)
        return;
    if (memory->walk_count < LOCKSTEP_WALKS_MAX)
        memory->walks[memory->walk_count++] = gva;
    else
        memory->missed_walks = true;
}

/* A table entry is guest memory like any other. If there is no room for its page the bit stays set after the block is
 * undone, which is what a processor that walks speculatively may do too. */
static void on_entry_changing(void *opaque, gpa_t gpa, uint8_t *host)
{
    struct lockstep *ls = jit_of(opaque)->lockstep;
    struct lockstep_memory *memory = &ls->memory;
    uint8_t *page = (uint8_t *)((uintptr_t)host & PAGE_MASK);

    if (memory->phase == PHASE_FREE) {
        memory->stale = true;
        return;
    }
    if (memory->entry_count < LOCKSTEP_ENTRIES_MAX)
        memory->entries[memory->entry_count++] = host;
    if (!find_page(memory, page)) {
        cpu_park_vectors(ls->cpu);
        lockstep_page_enter(memory, page, gpa & PAGE_MASK);
    }
}

void lockstep_watch(struct lockstep *ls)
{
    struct physmem_listener listener = { .entry_changing = on_entry_changing, .opaque = ls->cpu };

    ls->memory.watch =
        (struct mmu_watch){ .opaque = ls, .access = on_access, .place = on_place, .walk = on_walk };
    ls->cpu->mmu.watch = &ls->memory.watch;
    physmem_add_listener(ls->cpu->physmem, &listener);
}
