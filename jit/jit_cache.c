/* Code memory and the records of translations.
 *
 * One region holds hot code, behind the thunks, and cold code; it is mapped twice, so that nothing is writable and executable at one
 * address. Both, the arena of records and the sites are divided into segments, which are filled one after the other. When there is no room,
 * the oldest segment is dropped: nothing leads into it afterwards, and it only happens when no code of it will be resumed. So memory is
 * bounded, and reuse waits until nothing can return into it (design, 6a.6).
 *
 * A page of guest memory that holds translated bytes is acquired before they are read, so that writes to it are told.
 * vCPU thread only. */
#include "base/host_memory.h"
#include "jit/jit_internal.h"

/* ---- Segments ---- */

/* What segment n has of `size` units from `base` on. */
struct share {
    size_t start, end;
};

static struct share share_of(const struct jit *jit, unsigned n, size_t base, size_t size, size_t unit)
{
    size_t each = (size - base) / jit->segment_count / unit * unit;

    return (struct share){ base + n * each, base + (n + 1) * each };
}

static struct share hot_share(const struct jit *jit, unsigned n)
{
    return share_of(jit, n, ALIGN_UP(jit->code.thunks_size, 64), jit->code.hot_size, 64);
}

static struct share cold_share(const struct jit *jit, unsigned n)
{
    return share_of(jit, n, jit->code.hot_size, jit->code.size, 64);
}

static struct share arena_share(const struct jit *jit, unsigned n)
{
    return share_of(jit, n, 64, jit->arena_size, 64); /* offset 0 is nobody's */
}

static struct share site_share(const struct jit *jit, unsigned n)
{
    return share_of(jit, n, 0, SITES_MAX, 1);
}

static struct share block_share(const struct jit *jit, unsigned n)
{
    return share_of(jit, n, 0, jit->by_code_size, 1);
}

void jit_cache_carve(struct jit *jit)
{
    ptrdiff_t delta = jit->code.execute - jit->code.write;

    jit->hot = (struct emitter){ jit->code.write + hot_share(jit, jit->segment).start, delta };
    jit->cold = (struct emitter){ jit->code.write + cold_share(jit, jit->segment).start, delta };
    jit->arena_used = arena_share(jit, jit->segment).start;
    jit->site_count = (uint32_t)site_share(jit, jit->segment).start;
    jit->block_counts[jit->segment] = 0;
    struct share blocks = block_share(jit, jit->segment);
    jit->segment_end.hot = jit->code.write + hot_share(jit, jit->segment).end - BLOCK_HOT_MAX;
    jit->segment_end.cold = jit->code.write + cold_share(jit, jit->segment).end - BLOCK_COLD_MAX;
    jit->segment_end.arena = arena_share(jit, jit->segment).end - BLOCK_RECORD_MAX;
    jit->segment_end.sites = site_share(jit, jit->segment).end - 4 * BLOCK_MAX_INSNS;
    jit->segment_end.blocks = blocks.end - blocks.start - 1;
}

void *jit_arena_take(struct jit *jit, size_t size)
{
    void *memory = jit->arena + jit->arena_used;

    jit->arena_used += ALIGN_UP(size, 64);
    return memory;
}

bool jit_cache_has_room(const struct jit *jit)
{
    return jit->hot.p < jit->segment_end.hot && jit->cold.p < jit->segment_end.cold &&
           jit->arena_used < jit->segment_end.arena && jit->site_count < jit->segment_end.sites &&
           jit->block_counts[jit->segment] < jit->segment_end.blocks && jit->page_count + 2 < PAGES_MAX;
}

/* ---- Look-up ---- */

static uint32_t offset_of(const struct jit *jit, const void *in_arena)
{
    return (uint32_t)((const uint8_t *)in_arena - jit->arena);
}

static uint64_t address_hash(gpa_t gpa, jit_mode_t mode)
{
    return (gpa ^ (uint64_t)mode << 48) * 0x9e3779b97f4a7c15ull;
}

static uint32_t *address_line(struct jit *jit, uint64_t hash)
{
    return jit->by_address[hash >> 50];
}

static struct jit_block *block_of_slot(const struct jit *jit, uint32_t slot)
{
    return jit_record(jit, slot >> 8 << 6);
}

struct jit_block *jit_block_find(struct jit *jit, gpa_t gpa, jit_mode_t mode, gpa_t second_page)
{
    uint64_t hash = address_hash(gpa, mode);
    const uint32_t *line = address_line(jit, hash);
    uint8_t tag = (uint8_t)(hash >> 42);

    for (unsigned n = 0; n < BLOCK_LINE; n++) {
        if ((uint8_t)line[n] != tag || !line[n])
            continue;
        struct jit_block *block = block_of_slot(jit, line[n]);
        if (block->gpa == gpa && block->mode == mode && jit_second_page(block) == second_page)
            return block;
    }
    return NULL;
}

static struct code_page **page_link(struct jit *jit, gpa_t gpa)
{
    struct code_page **link = &jit->pages[(gpa >> PAGE_SHIFT) % PAGE_BUCKETS];

    while (*link && (*link)->page != (gpa & PAGE_MASK))
        link = &(*link)->next;
    return link;
}

struct code_page *jit_page_of(struct jit *jit, gpa_t gpa)
{
    return *page_link(jit, gpa);
}

void jit_page_acquire(struct jit *jit, gpa_t gpa)
{
    struct code_page **link = page_link(jit, gpa);

    if (*link)
        return;
    struct code_page *page = jit->free_pages;
    if (page)
        jit->free_pages = page->next;
    else
        page = &jit->page_pool[jit->page_count++];
    *page = (struct code_page){ .page = gpa & PAGE_MASK };
    *link = page;
    physmem_code_acquire(jit->cpu->physmem, page->page);
}

void jit_page_release_if_empty(struct jit *jit, gpa_t gpa)
{
    struct code_page **link = page_link(jit, gpa), *page = *link;

    if (!page || page->blocks || page->crossing)
        return;
    *link = page->next;
    physmem_code_release(jit->cpu->physmem, page->page);
    page->next = jit->free_pages;
    jit->free_pages = page;
}

static void insert_by_address(struct jit *jit, struct jit_block *block)
{
    uint64_t hash = address_hash(block->gpa, block->mode);
    uint32_t *line = address_line(jit, hash);
    unsigned n = 0;

    while (n < BLOCK_LINE && line[n])
        n++;
    if (n == BLOCK_LINE) { /* it is translated again when it is needed */
        n = (unsigned)(hash >> 38) % BLOCK_LINE;
        struct jit_block *other = block_of_slot(jit, line[n]);
        jit_block_drop(jit, other);
        jit_page_release_if_empty(jit, other->gpa);
    }
    line[n] = offset_of(jit, block) >> 6 << 8 | (uint8_t)(hash >> 42);
}

/* As in code_page.covered; not more than to the page's end. */
static uint64_t covered_by(gpa_t gpa, uint64_t size)
{
    unsigned offset = gpa & ~PAGE_MASK, last = (unsigned)MIN(offset + size, PAGE_SIZE) - 1;

    if (!size)
        return 0;
    return ~0ull << (offset >> 6) & ~0ull >> (63 - (last >> 6));
}

static uint64_t bytes_in_first(const struct jit_block *block)
{
    return PAGE_SIZE - (block->gpa & ~PAGE_MASK);
}

static uint64_t bytes_in_second(const struct jit_block *block) /* 0: it is invalid whatever lies there */
{
    uint64_t first = bytes_in_first(block);
    return block->guest_bytes > first ? block->guest_bytes - first : 0;
}

void jit_block_insert(struct jit *jit, struct jit_block *block)
{
    struct code_page *page = *page_link(jit, block->gpa);

    block->next_in_page = page->blocks;
    page->blocks = block;
    page->covered |= covered_by(block->gpa, block->guest_bytes);
    if (block->mode & MODE_CROSSING) {
        struct crossing *crossing = jit_crossing(block);
        struct code_page *second = *page_link(jit, crossing->second_page);
        crossing->next_in_second = second->crossing;
        second->crossing = block;
        second->covered |= covered_by(crossing->second_page, bytes_in_second(block));
    }
    jit->by_code[block_share(jit, jit->segment).start + jit->block_counts[jit->segment]++] = block;
    insert_by_address(jit, block);
}

struct jit_block *jit_block_by_pc(const struct jit *jit, const uint8_t *pc)
{
    uint64_t offset = (uint64_t)(pc - jit->code.execute);
    unsigned n = 0;

    while (n < jit->segment_count && offset >= hot_share(jit, n).end)
        n++;
    if (n == jit->segment_count)
        return NULL;
    size_t start = block_share(jit, n).start, low = start, high = start + jit->block_counts[n], end = high;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (jit->by_code[middle]->hot + jit->by_code[middle]->hot_size <= offset)
            low = middle + 1;
        else
            high = middle;
    }
    if (low == end || offset < jit->by_code[low]->hot)
        return NULL;
    return jit->by_code[low];
}

/* ---- Links ---- */

static struct jit_block *target_of(const struct jit *jit, const struct link *link)
{
    return link->target ? jit_record(jit, link->target) : NULL;
}

static void link_one(struct jit *jit, struct link *link, struct jit_block *target)
{
    link->target = offset_of(jit, target);
    link->next_to_target = target->incoming;
    link->named_by = offset_of(jit, &target->incoming);
    target->incoming = offset_of(jit, link);
    if (link->next_to_target)
        ((struct link *)jit_record(jit, link->next_to_target))->named_by = offset_of(jit, &link->next_to_target);
}

static void unlink_one(struct jit *jit, struct link *link)
{
    *(uint32_t *)jit_record(jit, link->named_by) = link->next_to_target;
    if (link->next_to_target)
        ((struct link *)jit_record(jit, link->next_to_target))->named_by = link->named_by;
    link->target = 0;
}

static void patch(struct jit *jit, uint32_t place, uint32_t target)
{
    emit_patch_rel32(jit->code.write + place, jit->hot.delta, jit->code.execute + target);
}

/* The number that no salt has. */
#define NEVER 0x80000000u

static void set_compare(struct jit *jit, const struct link *link, uint32_t number)
{
    memcpy(jit->code.write + link->compare, &number, 4);
}

#define FAR_MISSES 32 /* of a far link before it is made anew */

void jit_link(struct jit *jit, struct link *link, struct jit_block *target)
{
    bool replay = target->replay_entry && link->flag_registers && !(link->flag_registers & target->entry_writes);

    if (link->flags_elsewhere && !target->replay_entry)
        return; /* by way of C each time */
    replay |= link->flags_elsewhere;
    patch(jit, link->patch, replay ? target->hot + target->replay_entry : target->hot);
    if (link->far) {
        set_compare(jit, link, jit->current.number);
        jit->sites[link->counter] = (void *)(uintptr_t)FAR_MISSES;
    }
    if (target_of(jit, link) == target)
        return;
    if (link->target)
        unlink_one(jit, link);
    link_one(jit, link, target);
    jit->stats.links++;
}

static void unlink_incoming(struct jit *jit, struct jit_block *block)
{
    for (uint32_t at = block->incoming; at;) {
        struct link *link = jit_record(jit, at);
        at = link->next_to_target;
        if (link->far)
            set_compare(jit, link, NEVER);
        else
            patch(jit, link->patch, link->stub);
        link->target = 0;
    }
    block->incoming = 0;
}

static void unlink_outgoing(struct jit *jit, struct jit_block *block)
{
    struct link *links = jit_links(block);

    for (unsigned n = 0; n < block->link_count; n++) {
        if (links[n].target)
            unlink_one(jit, &links[n]);
    }
}

/* ---- Invalidation ---- */

static void unlink_by_address(struct jit *jit, const struct jit_block *block)
{
    uint32_t *line = address_line(jit, address_hash(block->gpa, block->mode)), offset = offset_of(jit, block) >> 6;

    for (unsigned n = 0; n < BLOCK_LINE; n++)
        if (line[n] >> 8 == offset)
            line[n] = 0;
}

static void redirect(struct jit *jit, uint32_t code, const uint8_t *target)
{
    struct emitter e = { jit->code.write + code, jit->hot.delta };

    emit_jmp(&e, target);
}

/* Nothing leads into the block any more; what would return into it is looked up. */
static void retire(struct jit *jit, struct jit_block *block)
{
    unlink_by_address(jit, block);
    unlink_incoming(jit, block);
    unlink_outgoing(jit, block);
    for (unsigned n = 0; n < block->call_count; n++)
        redirect(jit, jit_continuations(block)[n], jit->thunk_return_invalid);
    if (block->indirect_entry) /* the jump cache may lead there, from whichever addresses */
        redirect(jit, block->indirect_entry, jit->thunk_missed);
    block->valid = false;
    jit->stats.invalidated++;
}

static void unlink_crossing(struct jit *jit, struct jit_block *block)
{
    struct code_page *page = *page_link(jit, jit_second_page(block));
    struct jit_block **link = &page->crossing;

    while (*link != block)
        link = &jit_crossing(*link)->next_in_second;
    *link = jit_crossing(block)->next_in_second;
}

static void unlink_in_page(struct jit *jit, struct jit_block *block)
{
    struct jit_block **link = &(*page_link(jit, block->gpa))->blocks;

    while (*link != block)
        link = &(*link)->next_in_page;
    *link = block->next_in_page;
}

void jit_block_drop(struct jit *jit, struct jit_block *block)
{
    unlink_in_page(jit, block);
    retire(jit, block);
    if (block->mode & MODE_CROSSING) {
        unlink_crossing(jit, block);
        jit_page_release_if_empty(jit, jit_second_page(block));
    }
}

static bool overlaps(gpa_t start, uint64_t bytes, gpa_t gpa, uint64_t size)
{
    return start < gpa + size && start + bytes > gpa;
}

static void invalidate_in_page(struct jit *jit, gpa_t gpa, uint64_t size)
{
    struct code_page *page = *page_link(jit, gpa);
    struct jit_block *block, *next;
    uint64_t covered = 0;

    if (!page || !(page->covered & covered_by(gpa, size)))
        return;
    for (block = page->blocks; block; block = next) {
        next = block->next_in_page;
        if (overlaps(block->gpa, block->guest_bytes, gpa, size))
            jit_block_drop(jit, block);
        else
            covered |= covered_by(block->gpa, block->guest_bytes);
    }
    for (block = page->crossing; block; block = next) {
        next = jit_crossing(block)->next_in_second;
        if (overlaps(jit_second_page(block), bytes_in_second(block), gpa, size)) {
            jit_block_drop(jit, block);
            jit_page_release_if_empty(jit, block->gpa);
        } else {
            covered |= covered_by(page->page, bytes_in_second(block));
        }
    }
    page->covered = covered;
    jit_page_release_if_empty(jit, gpa);
}

void jit_invalidate(struct jit *jit, gpa_t gpa, uint64_t size)
{
    while (size) {
        uint64_t piece = MIN(size, PAGE_SIZE - (gpa & ~PAGE_MASK));
        invalidate_in_page(jit, gpa, piece);
        gpa += piece;
        size -= piece;
    }
}

/* ---- Dropping ---- */

static void tell_tools(struct jit *jit)
{
    if (likely(jit->tools == NULL))
        return;
    jit_park(jit->cpu);
    jit_tools_forget_blocks(jit->tools);
}

void jit_cache_flush(struct jit *jit)
{
    for (unsigned i = 0; i < PAGE_BUCKETS; i++)
        for (struct code_page *page = jit->pages[i]; page; page = page->next)
            physmem_code_release(jit->cpu->physmem, page->page);
    for (unsigned n = 0; n < jit->segment_count; n++) {
        for (uint32_t i = 0; i < jit->block_counts[n]; i++)
            jit->by_code[block_share(jit, n).start + i]->valid = false;
        jit->block_counts[n] = 0;
    }
    memset(jit->pages, 0, sizeof(jit->pages));
    memset(jit->by_address, 0, sizeof(jit->by_address));
    memset(jit->jump_keys, 0, sizeof(jit->jump_keys));
    jit->free_pages = NULL;
    jit->page_count = 0;
    jit->segment = 0;
    jit->flush_wanted = false;
    jit->generation++;
    jit_cache_carve(jit);
    jit_empty_return_stack(jit);
    jit->stats.cache_flushes++;
    tell_tools(jit);
}

static bool is_in(const struct jit *jit, const struct jit_block *block, struct share share)
{
    size_t offset = (size_t)((const uint8_t *)block - jit->arena);
    return offset >= share.start && offset < share.end;
}

/* Blocks of the segment leave the lists of a page. */
static void sweep_page(struct jit *jit, gpa_t gpa, struct share gone)
{
    struct code_page *page = *page_link(jit, gpa);

    if (!page || page->swept == jit->generation)
        return;
    page->swept = jit->generation;
    for (struct jit_block **link = &page->blocks; *link;)
        if (is_in(jit, *link, gone))
            *link = (*link)->next_in_page;
        else
            link = &(*link)->next_in_page;
    for (struct jit_block **link = &page->crossing; *link;)
        if (is_in(jit, *link, gone))
            *link = jit_crossing(*link)->next_in_second;
        else
            link = &jit_crossing(*link)->next_in_second;
    jit_page_release_if_empty(jit, page->page);
}

static void evict(struct jit *jit, unsigned n)
{
    struct share gone = arena_share(jit, n);

    jit->generation++;
    for (uint32_t i = 0; i < jit->block_counts[n]; i++) {
        struct jit_block *block = jit->by_code[block_share(jit, n).start + i];
        if (!block->valid)
            continue;
        unlink_incoming(jit, block);
        unlink_outgoing(jit, block);
        unlink_by_address(jit, block);
        sweep_page(jit, block->gpa, gone);
        if (block->mode & MODE_CROSSING)
            sweep_page(jit, jit_second_page(block), gone);
        block->valid = false;
    }
    memset(jit->jump_keys, 0, sizeof(jit->jump_keys));
    jit->block_counts[n] = 0;
    jit_empty_return_stack(jit); /* and what was set aside */
    jit->stats.evictions++;
}

static void tell_of_eviction(struct jit *jit, unsigned n)
{
    if (likely(jit->tools == NULL))
        return;
    const struct share shares[] = { hot_share(jit, n), cold_share(jit, n) };
    jit_park(jit->cpu);
    for (unsigned i = 0; i < ARRAY_SIZE(shares); i++) {
        struct jit_tools_code code = { jit->code.execute + shares[i].start, shares[i].end - shares[i].start };
        jit_tools_forget_code(jit->tools, &code);
    }
}

#define POPULATE_STEP   (128 * KIB)
#define POPULATE_BEFORE (16 * KIB)

/* Where the next block goes, pages are there already: many at once cost a fraction of a fault for each, and code has two views. The
 * first time around only; nothing is ever given back. */
static bool populate(size_t *populated, size_t at, size_t end, size_t *start, size_t *size)
{
    if (likely(at + POPULATE_BEFORE <= *populated) || *populated >= end)
        return false;
    *start = MAX(*populated, ALIGN_DOWN(at, PAGE_SIZE));
    *size = MIN(POPULATE_STEP, end - *start);
    *populated = *start + *size;
    return true;
}

static void populate_code(struct jit *jit, size_t *populated, size_t at, size_t end)
{
    size_t start, size;

    if (likely(!populate(populated, at, end, &start, &size)))
        return;
    host_memory_will_write(jit->code.write + start, size);
    host_memory_will_read((void *)(uintptr_t)(jit->code.execute + start), size);
}

static void populate_next(struct jit *jit)
{
    size_t start, size;

    populate_code(jit, &jit->populated.hot, (size_t)(jit->hot.p - jit->code.write), jit->code.hot_size);
    populate_code(jit, &jit->populated.cold, (size_t)(jit->cold.p - jit->code.write), jit->code.size);
    if (unlikely(populate(&jit->populated.arena, jit->arena_used, jit->arena_size, &start, &size)))
        host_memory_will_write(jit->arena + start, size);
}

void jit_cache_make_room(struct jit *jit)
{
    populate_next(jit);
    if (likely(jit_cache_has_room(jit)))
        return;
    if (jit->page_count + 2 >= PAGES_MAX || jit->segment_count == 1) {
        jit_cache_flush(jit);
        return;
    }
    jit->segment = (jit->segment + 1) % jit->segment_count;
    evict(jit, jit->segment);
    tell_of_eviction(jit, jit->segment);
    jit_cache_carve(jit);
}

/* ---- Addresses ---- */

/* The low 16 bits of the number are added to every address that is looked up, in the bits that canonical addresses do not use;
 * another number makes all entries of the jump cache miss. When those bits begin again, the entries go. A zeroed entry matches
 * nothing: the bits are never 0. */
uint32_t jit_new_salt(struct jit *jit)
{
    if ((++jit->salt_number & 0xffff) == 0) {
        memset(jit->jump_keys, 0, sizeof(jit->jump_keys));
        jit->salt_number++;
    }
    if (jit->salt_number >= 0x7fff0000) { /* far links compare 32 bits: all of them go */
        jit->flush_wanted = true;
        jit->salt_number = 1;
    }
    jit->stats.salts++;
    return jit->salt_number;
}

void jit_use_salt(struct jit *jit, uint32_t number)
{
    jit->salt = (uint64_t)number << 48;
    jit->negative_salt = 0 - jit->salt;
    jit->negative_number = 0 - number;
}

void jit_empty_return_stack(struct jit *jit)
{
    jit->return_sp = jit->return_base;
    jit->user_stack.sp = jit->outer_stack.sp = 0;
}
