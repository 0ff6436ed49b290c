/* What the MMU asks and tells the lockstep engine (struct mmu_watch): which pages may be written, which accesses are not to
 * be made, what was walked.
 *
 * Called from slow paths of translated code, while the guest's vector state is in the host's registers: it is parked
 * before pages are copied. vCPU thread only. */
#include "jit/jit_lockstep.h"

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
    return lockstep_page_enter(memory, host, gpa & PAGE_MASK) || withhold(memory, REASON_PAGES, fault);
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

/* RAM is read through a mapping that cannot be written, and written, if it may be, through the page's window. A page that may be
 * written is read there too, so that accesses that overlap are seen to do so by their host addresses. */
static void on_place(void *opaque, gva_t gva, enum mmu_privilege privilege, uint8_t **host_r, uint8_t **host_w)
{
    struct lockstep *ls = opaque;
    struct lockstep_memory *memory = &ls->memory;
    uint8_t *host = *host_r ? *host_r : *host_w;

    if (!host || (uint64_t)(host - memory->ram) >= memory->ram_size)
        return; /* ROM, which nobody writes */
    struct lockstep_page *page = *host_w ? find_page(memory, host) : NULL;
    if (page)
        note_tag(page, gva & PAGE_MASK, privilege);
    if (*host_r)
        *host_r = page ? page->window : memory->read_only + (host - memory->ram);
    *host_w = page ? page->window : NULL;
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
