/* Guest memory under the lockstep engine: what the translated block wrote is kept and undone, and compared with what the
 * interpreter writes then.
 *
 * Writes are known by page. L1 allows writes to the pages of a small set only; the first write to any other page comes to the
 * MMU's slow path, and so here, where the page's contents are kept before it is changed. Translated code has no other
 * way to guest memory than the TLB's host addresses. So all that a block wrote is found by comparing the pages of the set with what they
 * held: every byte, not only those that somebody says he wrote. A few pages stay in the set from block to block, so
 * that the checks of translated code are met by entries that match as well.
 *
 * To hold translated code to this, the TLB leads it to other mappings of guest RAM: reads to one that cannot be written, writes to
 * a window for each page of the set, with guard pages around. A store where none should be raises a signal, which is a
 * difference (struct lockstep_outcome.host_fault).
 *
 * Walks. Both runs have one TLB. The pages that the translated block made the MMU walk for are forgotten before the interpreter's turn,
 * so that it walks too, and sets the same accessed and dirty bits in the same tables. Translated code may walk for an access that
 * is then not made (a group, an operand that turns out to be misaligned), which sets A, as processors do that walk
 * speculatively; D only if the access is made by the next block.
 *
 * Vector state is parked. vCPU thread only. */
#include "jit/jit_lockstep.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#define LINE 64

#define WINDOW_SIZE (2 * PAGE_SIZE) /* the page, and the guard behind it; one more guard lies before the first */

static int map_views(struct lockstep_memory *memory, const struct physmem *mem, struct error *err)
{
    size_t size = LOCKSTEP_PAGES_MAX * WINDOW_SIZE + PAGE_SIZE;

    memory->ram = physmem_ram_base(mem);
    memory->ram_size = physmem_ram_size(mem);
    memory->read_only = mmap(NULL, memory->ram_size, PROT_READ, MAP_SHARED | MAP_NORESERVE, physmem_ram_fd(mem), 0);
    memory->windows = mmap(NULL, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory->read_only == MAP_FAILED || memory->windows == MAP_FAILED)
        return error_set(err, errno, "no address space to watch guest memory");
    memory->ram_fd = physmem_ram_fd(mem);
    return 0;
}

int lockstep_memory_create(struct lockstep *ls, struct error *err)
{
    struct lockstep_memory *memory = &ls->memory;
    int ret = map_views(memory, ls->cpu->physmem, err);

    if (!ret)
        ret = host_memory_anonymous(&memory->images, 2 * LOCKSTEP_PAGES_MAX * PAGE_SIZE, err);
    if (ret < 0)
        return ret;
    for (unsigned i = 0; i < LOCKSTEP_PAGES_MAX; i++) {
        memory->pages[i].before = (uint8_t *)memory->images.base + 2 * i * PAGE_SIZE;
        memory->pages[i].after = memory->pages[i].before + PAGE_SIZE;
        memory->pages[i].window = memory->windows + PAGE_SIZE + i * WINDOW_SIZE;
    }
    memory->stale = true;
    return 0;
}

void lockstep_memory_destroy(struct lockstep *ls)
{
    struct lockstep_memory *memory = &ls->memory;

    if (memory->images.base)
        host_memory_free(&memory->images);
    if (memory->read_only && memory->read_only != MAP_FAILED)
        munmap(memory->read_only, memory->ram_size);
    if (memory->windows && memory->windows != MAP_FAILED)
        munmap(memory->windows, LOCKSTEP_PAGES_MAX * WINDOW_SIZE + PAGE_SIZE);
}

/* ---- The set ---- */

bool lockstep_page_enter(struct lockstep_memory *memory, uint8_t *host, gpa_t gpa)
{
    if (memory->page_count == LOCKSTEP_PAGES_MAX) {
        memory->full = true;
        return false;
    }
    struct lockstep_page *page = &memory->pages[memory->page_count];
    if (mmap(page->window, PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, memory->ram_fd,
             host - memory->ram) == MAP_FAILED)
        return false;
    memory->page_count++;
    page->host = host;
    page->gpa = gpa;
    page->low = page->high = 0;
    page->tag_count = 0;
    page->used = memory->step;
    memcpy(page->before, host, PAGE_SIZE);
    return true;
}

static void leave_set(struct lockstep *ls, unsigned index)
{
    struct lockstep_memory *memory = &ls->memory;
    struct lockstep_page *page = &memory->pages[index], gone = *page;
    struct mmu *mmu = &ls->cpu->mmu;

    for (unsigned i = 0; i < MIN(gone.tag_count, LOCKSTEP_TAGS_MAX); i++) {
        unsigned slot = mmu_l1_index(gone.tags[i].page);
        struct tlb_entry *entry = &mmu->l1[gone.tags[i].privilege][slot];
        uint64_t invalid = mmu_invalid_tag(slot);
        if (entry->host_r == gone.window || entry->host_w == gone.window)
            *entry = (struct tlb_entry){ invalid, mmu->no_access_page, invalid, mmu->no_access_page };
    }
    if (gone.tag_count > LOCKSTEP_TAGS_MAX)
        mmu_flush_all(mmu);
    mprotect(gone.window, PAGE_SIZE, PROT_NONE);
    *page = memory->pages[--memory->page_count];
    memory->pages[memory->page_count].before = gone.before;
    memory->pages[memory->page_count].after = gone.after;
    memory->pages[memory->page_count].window = gone.window;
}

static void shrink_set(struct lockstep *ls)
{
    struct lockstep_memory *memory = &ls->memory;

    while (memory->page_count > LOCKSTEP_PAGES_KEPT) {
        unsigned oldest = 0;
        for (unsigned i = 1; i < memory->page_count; i++)
            if (memory->pages[i].used < memory->pages[oldest].used)
                oldest = i;
        leave_set(ls, oldest);
    }
}

/* ---- A block ---- */

void lockstep_memory_begin(struct lockstep *ls)
{
    struct lockstep_memory *memory = &ls->memory;

    for (unsigned i = 0; memory->stale && i < memory->page_count; i++)
        memcpy(memory->pages[i].before, memory->pages[i].host, PAGE_SIZE);
    memory->stale = memory->missed_walks = memory->full = false;
    memory->walk_count = memory->entry_count = 0;
    memory->step++;
    memory->phase = PHASE_TRANSLATED;
}

/* The lines of the page that differ from `before`. */
static void find_changes(struct lockstep_page *page)
{
    unsigned low = 0, high = PAGE_SIZE;

    while (!memcmp(page->host + low, page->before + low, LINE))
        low += LINE;
    while (!memcmp(page->host + high - LINE, page->before + high - LINE, LINE))
        high -= LINE;
    page->low = low;
    page->high = high;
}

static void forget_walks(struct lockstep *ls)
{
    const struct lockstep_memory *memory = &ls->memory;

    for (unsigned i = 0; i < memory->walk_count; i++)
        mmu_invlpg(&ls->cpu->mmu, memory->walks[i]);
    if (memory->missed_walks)
        mmu_flush_all(&ls->cpu->mmu);
}

void lockstep_memory_turn(struct lockstep *ls)
{
    struct lockstep_memory *memory = &ls->memory;

    for (unsigned i = 0; i < memory->page_count; i++) {
        struct lockstep_page *page = &memory->pages[i];
        page->low = page->high = 0;
        if (!memcmp(page->host, page->before, PAGE_SIZE))
            continue;
        find_changes(page);
        memcpy(page->after + page->low, page->host + page->low, page->high - page->low);
        memcpy(page->host + page->low, page->before + page->low, page->high - page->low);
    }
    forget_walks(ls);
    memory->phase = PHASE_INTERPRETED;
}

static bool is_as_expected(const struct lockstep_page *page)
{
    unsigned low = page->low, high = page->high;

    if (low == high)
        return !memcmp(page->host, page->before, PAGE_SIZE);
    return !memcmp(page->host, page->before, low) && !memcmp(page->host + low, page->after + low, high - low) &&
           !memcmp(page->host + high, page->before + high, PAGE_SIZE - high);
}

/* Where the vCPU reaches the page at the gva, if it does. */
static bool is_at(const struct lockstep_page *page, gva_t gva)
{
    for (unsigned i = 0; i < MIN(page->tag_count, LOCKSTEP_TAGS_MAX); i++)
        if (page->tags[i].page == (gva & PAGE_MASK))
            return true;
    return false;
}

/* The same, but for what is tolerated. */
static bool is_tolerable(const struct lockstep_memory *memory, const struct lockstep_page *page,
                         const struct lockstep_tolerance *tolerated)
{
    uint8_t expected[PAGE_SIZE];

    memcpy(expected, page->before, PAGE_SIZE);
    memcpy(expected + page->low, page->after + page->low, page->high - page->low);
    for (unsigned i = 0; i < memory->entry_count; i++) {
        uint64_t at = (uint64_t)(memory->entries[i] - page->host);
        if (at < PAGE_SIZE)
            expected[at] =
                (uint8_t)((expected[at] & ~tolerated->entry_bits) | (page->host[at] & tolerated->entry_bits));
    }
    for (unsigned i = 0; i < tolerated->size; i++) {
        uint64_t at = (tolerated->gva + i) & ~PAGE_MASK;
        if (is_at(page, tolerated->gva + i))
            expected[at] = page->host[at];
    }
    return !memcmp(expected, page->host, PAGE_SIZE);
}

bool lockstep_memory_equal(struct lockstep *ls, const struct lockstep_tolerance *tolerated)
{
    for (unsigned i = 0; i < ls->memory.page_count; i++) {
        const struct lockstep_page *page = &ls->memory.pages[i];
        if (is_as_expected(page))
            continue;
        if (!is_tolerable(&ls->memory, page, tolerated))
            return false;
        ls->memory.stale = true;
    }
    return true;
}

void lockstep_memory_undo(struct lockstep *ls)
{
    struct lockstep_memory *memory = &ls->memory;

    for (unsigned i = 0; i < memory->page_count; i++)
        memcpy(memory->pages[i].host, memory->pages[i].before, PAGE_SIZE);
    memory->phase = PHASE_FREE;
}

void lockstep_memory_end(struct lockstep *ls)
{
    struct lockstep_memory *memory = &ls->memory;

    for (unsigned i = 0; i < memory->page_count; i++) {
        struct lockstep_page *page = &memory->pages[i];
        if (page->low == page->high)
            continue;
        memcpy(page->before + page->low, page->host + page->low, page->high - page->low);
        page->used = memory->step;
    }
    memory->phase = PHASE_FREE;
    if (memory->page_count > LOCKSTEP_PAGES_KEPT)
        shrink_set(ls);
}
