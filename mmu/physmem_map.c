/* The map of guest-physical memory: the list of regions, and the flattened form of it that
 * look-ups use.
 *
 * Writers (device lock held) keep a list of regions, oldest first, and rebuild the flat form
 * from scratch after each change: an array of pieces that tile the address space, for which
 * the youngest enabled region at each address decides.
 *
 * Readers take no lock. There are two views, and a sequence number whose lowest bit says
 * which is current. A writer fills the other one and then increments the number; a reader
 * copies the piece that it finds and keeps the copy if the number is still what it was
 * before. Its view is only overwritten by the second change after it began, so it tries
 * again almost never. All fields are atomics, stored with release and loaded with
 * acquire order: a reader that sees one byte of the next-but-one view also sees the number that
 * had been published before that was begun. A mix of two views is therefore never kept, and
 * looking at one does no harm: `count` never exceeds the array.
 *
 * Memory is bounded whatever a guest does to its BARs: an outgrown view is retired (readers
 * may be in it), but views only double, with the number of regions, which devices decide and not guests. The
 * bytes of a removed ROM stay until the end, since vCPUs may have cached their address. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/log.h"
#include "mmu/physmem_internal.h"

#define NO_RANGE (~0u)

/* ---- Look-up: any thread ---- */

static inline bool range_load(const struct flat_range *range, gpa_t gpa, struct flat_hit *hit)
{
    hit->first = atomic_load_explicit(&range->first, memory_order_acquire);
    hit->last = atomic_load_explicit(&range->last, memory_order_acquire);
    if (gpa < hit->first || gpa > hit->last)
        return false;
    hit->host = atomic_load_explicit(&range->host, memory_order_acquire);
    hit->region = atomic_load_explicit(&range->region, memory_order_acquire);
    hit->region_offset = atomic_load_explicit(&range->region_offset, memory_order_acquire);
    uint32_t kind = atomic_load_explicit(&range->kind, memory_order_acquire);
    hit->kind = (enum mem_kind)(kind & ~FLAT_DOORBELL);
    hit->doorbell = kind & FLAT_DOORBELL;
    return true;
}

static inline bool view_find(const struct flat_view *view, gpa_t gpa, struct flat_hit *hit)
{
    for (unsigned i = 0; i < 2; i++) {
        unsigned index = atomic_load_explicit(&view->largest[i], memory_order_acquire);
        if (index != NO_RANGE && range_load(&view->ranges[index], gpa, hit))
            return true;
    }
    unsigned low = 0, high = atomic_load_explicit(&view->count, memory_order_acquire);
    while (high - low > 1) {
        unsigned middle = low + (high - low) / 2;
        if (gpa < atomic_load_explicit(&view->ranges[middle].first, memory_order_acquire))
            high = middle;
        else
            low = middle;
    }
    return range_load(&view->ranges[low], gpa, hit);
}

static inline const struct flat_view *view_current(const struct physmem *mem, unsigned sequence)
{
    return atomic_load_explicit(&mem->view[sequence & 1], memory_order_acquire);
}

struct flat_hit physmem_find(const struct physmem *mem, gpa_t gpa)
{
    for (;;) {
        struct flat_hit hit;
        unsigned sequence = atomic_load_explicit(&mem->sequence, memory_order_acquire);
        bool found = view_find(view_current(mem, sequence), gpa, &hit);
        if (likely(found && atomic_load_explicit(&mem->sequence, memory_order_relaxed) == sequence))
            return hit;
    }
}

struct mem_page physmem_lookup(const struct physmem *mem, gpa_t gpa)
{
    gpa_t page = gpa & PAGE_MASK;
    struct flat_hit hit = physmem_find(mem, page);
    struct mem_page result = { hit.kind, NULL, hit.region, page - hit.first + hit.region_offset };

    if (unlikely(hit.last - page < PAGE_SIZE - 1))
        result.kind = MEM_MMIO; /* several things in one page */
    else if (hit.host)
        result.host = hit.host + (page - hit.first);
    return result;
}

bool physmem_has_aliases(const struct physmem *mem)
{
    unsigned sequence = atomic_load_explicit(&mem->sequence, memory_order_acquire);

    return atomic_load_explicit(&view_current(mem, sequence)->aliased, memory_order_acquire);
}

unsigned physmem_find_aliases(const struct physmem *mem, const uint8_t *host, gpa_t *gpas, unsigned max)
{
    unsigned sequence, found;

    do {
        sequence = atomic_load_explicit(&mem->sequence, memory_order_acquire);
        const struct flat_view *view = view_current(mem, sequence);
        unsigned count = atomic_load_explicit(&view->count, memory_order_acquire);
        found = 0;
        for (unsigned i = 0; i < count; i++) {
            struct flat_hit hit;
            gpa_t first = atomic_load_explicit(&view->ranges[i].first, memory_order_acquire);
            if (!range_load(&view->ranges[i], first, &hit) || hit.kind != MEM_RAM || host < hit.host ||
                (uint64_t)(host - hit.host) > hit.last - hit.first)
                continue;
            if (found < max)
                gpas[found] = (hit.first + (uint64_t)(host - hit.host)) & PAGE_MASK;
            found++;
        }
    } while (atomic_load_explicit(&mem->sequence, memory_order_relaxed) != sequence);
    return found;
}

/* ---- Rebuilding: device lock held ---- */

static void range_store(struct flat_range *range, const struct flat_hit *hit)
{
    atomic_store_explicit(&range->first, hit->first, memory_order_release);
    atomic_store_explicit(&range->last, hit->last, memory_order_release);
    atomic_store_explicit(&range->host, hit->host, memory_order_release);
    atomic_store_explicit(&range->region, hit->region, memory_order_release);
    atomic_store_explicit(&range->region_offset, hit->region_offset, memory_order_release);
    atomic_store_explicit(&range->kind, hit->kind | (hit->doorbell ? FLAT_DOORBELL : 0), memory_order_release);
}

/* A BAR may be programmed to an address where its region does not fit. */
static bool region_visible(const struct mem_region *region)
{
    return region->enabled && region->gpa + (region->size - 1) >= region->gpa;
}

static gpa_t region_last(const struct mem_region *region)
{
    return region->gpa + (region->size - 1);
}

static int compare_gpa(const void *a, const void *b)
{
    gpa_t left = *(const gpa_t *)a, right = *(const gpa_t *)b;

    return (left > right) - (left < right);
}

/* All addresses where the map may change, sorted, without repeats; the first is 0. */
static unsigned map_boundaries(const struct physmem *mem, gpa_t *boundaries)
{
    unsigned count = 0, unique = 1;

    boundaries[count++] = 0;
    for (const struct mem_region *region = mem->regions; region; region = region->next) {
        if (!region_visible(region))
            continue;
        boundaries[count++] = region->gpa;
        if (region_last(region) != ~0ull)
            boundaries[count++] = region_last(region) + 1;
    }
    qsort(boundaries, count, sizeof(gpa_t), compare_gpa);
    for (unsigned i = 1; i < count; i++)
        if (boundaries[i] != boundaries[unique - 1])
            boundaries[unique++] = boundaries[i];
    return unique;
}

static struct mem_region *map_top_region(const struct physmem *mem, gpa_t gpa)
{
    struct mem_region *top = NULL;

    for (struct mem_region *region = mem->regions; region; region = region->next)
        if (region_visible(region) && gpa >= region->gpa && gpa <= region_last(region))
            top = region;
    return top;
}

/* The two largest RAM pieces, and whether any two RAM pieces show the same bytes. */
static void view_summarize(struct flat_view *view, const struct flat_hit *hits, unsigned count)
{
    unsigned largest[2] = { NO_RANGE, NO_RANGE };
    uint64_t sizes[2] = { 0, 0 };
    bool aliased = false;

    for (unsigned i = 0; i < count; i++) {
        if (hits[i].kind != MEM_RAM)
            continue;
        uint64_t size = hits[i].last - hits[i].first + 1;
        unsigned place = size > sizes[0] ? 0 : 1;
        if (size > sizes[place]) {
            if (place == 0) {
                sizes[1] = sizes[0];
                largest[1] = largest[0];
            }
            sizes[place] = size;
            largest[place] = i;
        }
        for (unsigned j = 0; j < i && !aliased; j++)
            aliased = hits[j].kind == MEM_RAM && hits[i].host < hits[j].host + (hits[j].last - hits[j].first + 1) &&
                      hits[j].host < hits[i].host + size;
    }
    for (unsigned i = 0; i < 2; i++)
        atomic_store_explicit(&view->largest[i], largest[i], memory_order_release);
    atomic_store_explicit(&view->aliased, aliased, memory_order_release);
}

static void view_fill(const struct physmem *mem, struct flat_view *view, const gpa_t *boundaries, unsigned count,
                      struct flat_hit *hits)
{
    unsigned used = 0;

    for (unsigned i = 0; i < count; i++) {
        struct mem_region *region = map_top_region(mem, boundaries[i]);
        gpa_t last = i + 1 < count ? boundaries[i + 1] - 1 : ~0ull;
        if (used && hits[used - 1].region == region) {
            hits[used - 1].last = last; /* boundaries of something that is covered here */
            continue;
        }
        struct flat_hit hit = { .first = boundaries[i], .last = last, .kind = MEM_UNASSIGNED };
        if (region) {
            hit.region = region;
            hit.region_offset = boundaries[i] - region->gpa;
            hit.kind = region->kind;
            hit.doorbell = region->ops.write_unlocked != NULL;
            hit.host = region->host ? region->host + hit.region_offset : NULL;
        }
        hits[used++] = hit;
    }
    for (unsigned i = 0; i < used; i++)
        range_store(&view->ranges[i], &hits[i]);
    view_summarize(view, hits, used);
    atomic_store_explicit(&view->count, used, memory_order_release);
}

static struct flat_view *view_allocate(unsigned capacity)
{
    struct flat_view *view = calloc(1, sizeof(*view) + capacity * sizeof(view->ranges[0]));

    if (view) {
        view->capacity = capacity;
        atomic_store_explicit(&view->count, 1, memory_order_relaxed); /* never without a range */
        atomic_store_explicit(&view->largest[0], NO_RANGE, memory_order_relaxed);
        atomic_store_explicit(&view->largest[1], NO_RANGE, memory_order_relaxed);
        atomic_store_explicit(&view->ranges[0].last, ~0ull, memory_order_relaxed);
    }
    return view;
}

/* Makes sure that both views can hold the map with one region more than now: so that later changes
 * that add no region (moves, removals) cannot fail. */
static int map_reserve(struct physmem *mem, unsigned regions, struct error *err)
{
    unsigned needed = 2 * regions + 1, capacity = 32;

    while (capacity < needed)
        capacity *= 2;
    for (unsigned i = 0; i < 2; i++) {
        struct flat_view *old = atomic_load_explicit(&mem->view[i], memory_order_relaxed);
        if (old && old->capacity >= needed)
            continue;
        struct flat_view *view = view_allocate(capacity);
        if (!view)
            return error_set(err, ENOMEM, "out of memory for the memory map");
        if (old) {
            for (unsigned j = 0; j < old->count; j++) {
                struct flat_hit hit;
                range_load(&old->ranges[j], old->ranges[j].first, &hit);
                range_store(&view->ranges[j], &hit);
            }
            view->largest[0] = old->largest[0];
            view->largest[1] = old->largest[1];
            view->aliased = old->aliased;
            view->count = old->count;
            old->retired_next = mem->retired_views;
            mem->retired_views = old;
        }
        atomic_store_explicit(&mem->view[i], view, memory_order_release);
    }
    return 0;
}

static unsigned map_region_count(const struct physmem *mem)
{
    unsigned count = 0;

    for (const struct mem_region *region = mem->regions; region; region = region->next)
        count++;
    return count;
}

static void map_rebuild(struct physmem *mem)
{
    unsigned sequence = atomic_load_explicit(&mem->sequence, memory_order_relaxed);
    struct flat_view *next = atomic_load_explicit(&mem->view[(sequence + 1) & 1], memory_order_relaxed);
    gpa_t boundaries[next->capacity];
    struct flat_hit hits[next->capacity];

    view_fill(mem, next, boundaries, map_boundaries(mem, boundaries), hits);
    atomic_store_explicit(&mem->sequence, sequence + 1, memory_order_release);
    physmem_notify_map_changed(mem);
}

/* ---- Regions: device lock held ---- */

static struct mem_region *region_add(struct physmem *mem, const struct mem_region *values, const char *name,
                                     struct error *err)
{
    if (values->size == 0 || values->gpa + (values->size - 1) < values->gpa) {
        error_set(err, EINVAL, "%s: memory of %llu bytes does not fit at 0x%llx", name,
                  (unsigned long long)values->size, (unsigned long long)values->gpa);
        return NULL;
    }
    if (values->kind != MEM_MMIO && ((values->gpa | values->size) & ~PAGE_MASK)) {
        error_set(err, EINVAL, "%s: memory at 0x%llx is not a multiple of pages", name,
                  (unsigned long long)values->gpa);
        return NULL;
    }
    if (map_reserve(mem, map_region_count(mem) + 1, err))
        return NULL;
    struct mem_region *region = malloc(sizeof(*region));
    if (!region) {
        error_set(err, ENOMEM, "%s: out of memory", name);
        return NULL;
    }
    *region = *values;
    region->mem = mem;
    region->enabled = true;
    strncpy(region->name, name, sizeof(region->name) - 1);

    struct mem_region **last = &mem->regions;
    while (*last)
        last = &(*last)->next;
    *last = region;
    map_rebuild(mem);
    return region;
}

struct mem_region *physmem_add_ram(struct physmem *mem, gpa_t gpa, uint64_t size, uint64_t ram_offset, const char *name,
                                   struct error *err)
{
    if ((ram_offset & ~PAGE_MASK) || ram_offset > mem->ram.size || size > mem->ram.size - ram_offset) {
        error_set(err, EINVAL, "%s: RAM from 0x%llx is not there", name, (unsigned long long)ram_offset);
        return NULL;
    }
    struct mem_region values = {
        .gpa = gpa, .size = size, .kind = MEM_RAM, .host = (uint8_t *)mem->ram.base + ram_offset
    };
    return region_add(mem, &values, name, err);
}

struct mem_region *physmem_add_rom(struct physmem *mem, gpa_t gpa, uint64_t size, const void *data, uint64_t data_size,
                                   const char *name, struct error *err)
{
    struct host_region memory;

    if (size == 0 || (size & ~PAGE_MASK) || data_size > size) {
        error_set(err, EINVAL, "%s: a ROM of %llu bytes does not fit into %llu", name, (unsigned long long)data_size,
                  (unsigned long long)size);
        return NULL;
    }
    if (host_memory_anonymous(&memory, size, err))
        return NULL;
    memcpy(memory.base, data, data_size);
    mprotect(memory.base, size, PROT_READ); /* so that a bug of ours that writes there shows */
    struct mem_region values = { .gpa = gpa, .size = size, .kind = MEM_ROM, .host = memory.base };
    struct mem_region *region = region_add(mem, &values, name, err);
    if (!region)
        host_memory_free(&memory);
    return region;
}

struct mem_region *physmem_add_rom_device(struct physmem *mem, gpa_t gpa, uint64_t size, const struct io_ops *ops,
                                          void *opaque, const char *name, struct error *err)
{
    struct host_region memory;

    if (size == 0 || (size & ~PAGE_MASK)) {
        error_set(err, EINVAL, "%s: %llu bytes are no whole pages", name, (unsigned long long)size);
        return NULL;
    }
    if (host_memory_anonymous(&memory, size, err))
        return NULL;
    struct mem_region values = { .gpa = gpa, .size = size, .kind = MEM_ROM, .host = memory.base, .opaque = opaque };
    if (ops)
        values.ops = *ops;
    struct mem_region *region = region_add(mem, &values, name, err);
    if (!region)
        host_memory_free(&memory);
    return region;
}

uint8_t *physmem_rom_bytes(struct mem_region *region)
{
    return region->host;
}

struct mem_region *physmem_add_rom_view(struct physmem *mem, gpa_t gpa, uint64_t size, uint8_t *host,
                                        const struct io_ops *ops, void *opaque, const char *name, struct error *err)
{
    struct mem_region values = {
        .gpa = gpa, .size = size, .kind = MEM_ROM, .host = host, .borrowed = true, .opaque = opaque
    };

    if (ops)
        values.ops = *ops;
    return region_add(mem, &values, name, err);
}

struct mem_region *physmem_add_mmio(struct physmem *mem, gpa_t gpa, uint64_t size, const struct io_ops *ops,
                                    void *opaque, const char *name, struct error *err)
{
    struct mem_region values = { .gpa = gpa, .size = size, .kind = MEM_MMIO, .ops = *ops, .opaque = opaque };

    return region_add(mem, &values, name, err);
}

void physmem_move(struct mem_region *region, gpa_t gpa)
{
    if (region->gpa == gpa)
        return;
    if (region->kind != MEM_MMIO && (gpa & ~PAGE_MASK)) {
        log_event(guest_errors, "%s: cannot move to 0x%llx: not a page\n", region->name, (unsigned long long)gpa);
        return;
    }
    region->gpa = gpa;
    if (region->enabled)
        map_rebuild(region->mem);
}

void physmem_set_enabled(struct mem_region *region, bool enabled)
{
    if (region->enabled == enabled)
        return;
    region->enabled = enabled;
    map_rebuild(region->mem);
}

static void rom_retire(struct physmem *mem, const struct mem_region *region)
{
    size_t size = (mem->retired_rom_count + 1) * sizeof(mem->retired_rom[0]);
    struct host_region *list = realloc(mem->retired_rom, size);

    if (!list)
        return; /* a leak of the ROM's bytes is the lesser evil */
    list[mem->retired_rom_count++] = (struct host_region){ region->host, region->size, -1 };
    mem->retired_rom = list;
}

void physmem_remove(struct mem_region *region)
{
    struct physmem *mem = region->mem;
    struct mem_region **link = &mem->regions;

    while (*link != region)
        link = &(*link)->next;
    *link = region->next;
    map_rebuild(mem);
    if (region->kind == MEM_ROM && !region->borrowed)
        rom_retire(mem, region);
    if (region->ops.write_unlocked)
        read_guard_wait(&mem->doorbell_guard);
    free(region);
}

int physmem_map_init(struct physmem *mem, struct error *err)
{
    return map_reserve(mem, 0, err);
}

void physmem_map_destroy(struct physmem *mem)
{
    while (mem->regions) {
        struct mem_region *region = mem->regions;
        mem->regions = region->next;
        if (region->kind == MEM_ROM && !region->borrowed)
            munmap(region->host, region->size);
        free(region);
    }
    while (mem->retired_views) {
        struct flat_view *view = mem->retired_views;
        mem->retired_views = view->retired_next;
        free(view);
    }
    for (unsigned i = 0; i < mem->retired_rom_count; i++)
        host_memory_free(&mem->retired_rom[i]);
    free(mem->retired_rom);
    for (unsigned i = 0; i < 2; i++)
        free(atomic_load_explicit(&mem->view[i], memory_order_relaxed));
}
