/* Page tracking and listeners.
 *
 * A byte of flags for each page of RAM (of the memfd, not of guest-physical addresses: what
 * shows at two addresses is tracked once, and listeners hear of every address). The dirty bits
 * are stored inverted: a zero byte, which fresh memory is, means "dirty, no code", and such a page may be written
 * directly. So the array costs nothing until tracking begins.
 *
 * Orders. Flags change with sequentially consistent atomics. Whoever sets CODE or clears a dirty bit then
 * tells the listeners, which make every vCPU drop its write tag for the page at its next safe
 * point. A vCPU that read the flags just before and installs a write tag just after is told
 * after that, so the tag goes; its stores in between are why the bytes of a page may only be
 * read after such a safe point (docs/mmu.md).
 *
 * Threads: any. The list of listeners is replaced, never edited; old lists stay until the
 * end (they are few: one per change, and changes come from the machine's set-up). */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "mmu/physmem_internal.h"

#define STORED(flags) ((uint8_t)((flags) ^ PAGE_FLAGS_DIRTY))
#define MAX_ALIASES   8

/* ---- Listeners ---- */

static const struct listener_list *listeners_get(const struct physmem *mem)
{
    return atomic_load_explicit(&mem->listeners, memory_order_acquire);
}

/* Publishes a copy of the list without those of `opaque`, and with `added` if not NULL. */
static void listeners_replace(struct physmem *mem, const void *opaque, const struct physmem_listener *added)
{
    pthread_mutex_lock(&mem->listener_lock);
    struct listener_list *old = atomic_load_explicit(&mem->listeners, memory_order_relaxed);
    struct listener_list *list = calloc(1, sizeof(*list) + ((old ? old->count : 0) + 1) * sizeof(list->items[0]));
    if (!list) /* a machine with a vCPU that hears nothing would run wrong: no way to go on */
        abort();
    for (unsigned i = 0; old && i < old->count; i++)
        if (added || old->items[i].opaque != opaque)
            list->items[list->count++] = old->items[i];
    if (added)
        list->items[list->count++] = *added;
    atomic_store_explicit(&mem->listeners, list, memory_order_release);
    if (old) {
        old->retired_next = mem->retired_listeners;
        mem->retired_listeners = old;
    }
    pthread_mutex_unlock(&mem->listener_lock);
}

void physmem_add_listener(struct physmem *mem, const struct physmem_listener *listener)
{
    listeners_replace(mem, NULL, listener);
}

void physmem_remove_listener(struct physmem *mem, void *opaque)
{
    listeners_replace(mem, opaque, NULL);
}

void physmem_notify_map_changed(struct physmem *mem)
{
    const struct listener_list *list = listeners_get(mem);

    for (unsigned i = 0; list && i < list->count; i++)
        if (list->items[i].map_changed)
            list->items[i].map_changed(list->items[i].opaque);
}

void physmem_notify_entry_changing(struct physmem *mem, gpa_t gpa, uint8_t *host)
{
    const struct listener_list *list = listeners_get(mem);

    for (unsigned i = 0; list && i < list->count; i++)
        if (list->items[i].entry_changing)
            list->items[i].entry_changing(list->items[i].opaque, gpa, host);
}

static void notify_code_written_at(const struct listener_list *list, gpa_t gpa, uint64_t size)
{
    for (unsigned i = 0; list && i < list->count; i++)
        if (list->items[i].code_written)
            list->items[i].code_written(list->items[i].opaque, gpa, size);
}

static void notify_write_tracking_at(const struct listener_list *list, gpa_t page)
{
    for (unsigned i = 0; list && i < list->count; i++)
        if (list->items[i].write_tracking)
            list->items[i].write_tracking(list->items[i].opaque, page);
}

/* The page's other addresses. `gpa` itself is told first by the caller. More of them than anybody
 * makes on purpose: everything is flushed instead. */
static unsigned other_addresses(struct physmem *mem, gpa_t page, const uint8_t *host, gpa_t *gpas)
{
    gpa_t all[MAX_ALIASES];
    unsigned count = 0;

    if (likely(!physmem_has_aliases(mem)))
        return 0;
    unsigned found = physmem_find_aliases(mem, (const uint8_t *)((uintptr_t)host & PAGE_MASK), all, MAX_ALIASES);
    if (found > MAX_ALIASES) {
        physmem_notify_map_changed(mem);
        return 0;
    }
    for (unsigned i = 0; i < found; i++)
        if (all[i] != page)
            gpas[count++] = all[i];
    return count;
}

static void notify_code_written(struct physmem *mem, gpa_t gpa, const uint8_t *host, uint64_t size)
{
    const struct listener_list *list = listeners_get(mem);
    gpa_t others[MAX_ALIASES];

    notify_code_written_at(list, gpa, size);
    unsigned count = other_addresses(mem, gpa & PAGE_MASK, host, others);
    for (unsigned i = 0; i < count; i++)
        notify_code_written_at(list, others[i] | (gpa & ~PAGE_MASK), size);
}

static void notify_write_tracking(struct physmem *mem, gpa_t page, const uint8_t *host)
{
    const struct listener_list *list = listeners_get(mem);
    gpa_t others[MAX_ALIASES];

    if (!list || !list->count)
        return;
    notify_write_tracking_at(list, page);
    unsigned count = other_addresses(mem, page, host, others);
    for (unsigned i = 0; i < count; i++)
        notify_write_tracking_at(list, others[i]);
}

/* ---- Flags ---- */

static _Atomic uint8_t *flags_of_host(const struct physmem *mem, const uint8_t *host)
{
    return &mem->page_flags[(uint64_t)(host - (const uint8_t *)mem->ram.base) >> PAGE_SHIFT];
}

/* NULL if the byte at gpa is not RAM; *host is set to it otherwise. */
static _Atomic uint8_t *flags_of_gpa(const struct physmem *mem, gpa_t gpa, const uint8_t **host)
{
    struct flat_hit hit = physmem_find(mem, gpa);

    if (hit.kind != MEM_RAM)
        return NULL;
    *host = hit.host + (gpa - hit.first);
    return flags_of_host(mem, *host);
}

uint8_t physmem_page_flags(const struct physmem *mem, gpa_t gpa)
{
    const uint8_t *host;
    _Atomic uint8_t *flags = flags_of_gpa(mem, gpa, &host);

    return flags ? STORED(atomic_load(flags)) & PAGE_FLAGS_ALL : 0;
}

void physmem_page_set_flags(struct physmem *mem, gpa_t gpa, uint8_t set)
{
    const uint8_t *host;
    _Atomic uint8_t *flags = flags_of_gpa(mem, gpa, &host);

    if (!flags)
        return;
    if (set & PAGE_FLAGS_DIRTY)
        atomic_fetch_and(flags, (uint8_t) ~(set & PAGE_FLAGS_DIRTY));
    if (!(set & PAGE_FLAG_CODE))
        return;
    uint8_t old = STORED(atomic_fetch_or(flags, PAGE_FLAG_CODE));
    if (!page_flags_need_notice(old))
        notify_write_tracking(mem, gpa & PAGE_MASK, host);
}

void physmem_page_clear_flags(struct physmem *mem, gpa_t gpa, uint8_t clear)
{
    const uint8_t *host;
    _Atomic uint8_t *flags = flags_of_gpa(mem, gpa, &host);

    if (!flags)
        return;
    if (clear & PAGE_FLAG_CODE)
        atomic_fetch_and(flags, (uint8_t)~PAGE_FLAG_CODE);
    if (!(clear & PAGE_FLAGS_DIRTY))
        return;
    uint8_t old = STORED(atomic_fetch_or(flags, clear & PAGE_FLAGS_DIRTY));
    if (!page_flags_need_notice(old))
        notify_write_tracking(mem, gpa & PAGE_MASK, host);
}

/* The upper bits of the byte count who holds code of the page; a count that reaches the top stays
 * there: such a page is told about for ever, which costs time but is not wrong. */
#define HOLDER      8u
#define HOLDERS_MAX (0xffu & ~(HOLDER - 1))

void physmem_code_acquire(struct physmem *mem, gpa_t gpa)
{
    const uint8_t *host;
    _Atomic uint8_t *flags = flags_of_gpa(mem, gpa, &host);

    if (!flags)
        return;
    uint8_t old = atomic_load(flags), new;
    do {
        new = (uint8_t)((old & HOLDERS_MAX) == HOLDERS_MAX ? old : old + HOLDER) | PAGE_FLAG_CODE;
    } while (!atomic_compare_exchange_weak(flags, &old, new));
    if (!page_flags_need_notice(STORED(old)))
        notify_write_tracking(mem, gpa & PAGE_MASK, host);
}

void physmem_code_release(struct physmem *mem, gpa_t gpa)
{
    const uint8_t *host;
    _Atomic uint8_t *flags = flags_of_gpa(mem, gpa, &host);

    if (!flags)
        return;
    uint8_t old = atomic_load(flags), new;
    do {
        unsigned holders = old & HOLDERS_MAX;
        if (holders == 0 || holders == HOLDERS_MAX)
            return;
        new = (uint8_t)(old - HOLDER);
        if (holders == HOLDER)
            new &= (uint8_t)~PAGE_FLAG_CODE;
    } while (!atomic_compare_exchange_weak(flags, &old, new));
}

void physmem_written_host(struct physmem *mem, gpa_t gpa, const uint8_t *host, uint64_t size)
{
    while (size) {
        uint64_t here = MIN(size, PAGE_SIZE - (gpa & ~PAGE_MASK));
        _Atomic uint8_t *flags = flags_of_host(mem, host);
        uint8_t stored = atomic_load(flags);
        if (stored) {
            if (stored & PAGE_FLAGS_DIRTY)
                stored = atomic_fetch_and(flags, (uint8_t)~PAGE_FLAGS_DIRTY);
            if (stored & PAGE_FLAG_CODE)
                notify_code_written(mem, gpa, host, here);
        }
        gpa += here;
        host += here;
        size -= here;
    }
}

void physmem_written(struct physmem *mem, gpa_t gpa, uint64_t size)
{
    while (size) {
        struct flat_hit hit = physmem_find(mem, gpa);
        uint64_t here = hit.last - gpa < size ? hit.last - gpa + 1 : size;
        if (hit.kind == MEM_RAM)
            physmem_written_host(mem, gpa, hit.host + (gpa - hit.first), here);
        gpa += here;
        size -= here;
        if (gpa == 0)
            break;
    }
}

void physmem_collect_dirty(struct physmem *mem, gpa_t gpa, uint64_t size, uint8_t flag, uint64_t *bitmap)
{
    uint64_t pages = (size + PAGE_SIZE - 1) >> PAGE_SHIFT;

    flag &= PAGE_FLAGS_DIRTY;
    for (uint64_t i = 0; i < pages; i++) {
        const uint8_t *host;
        gpa_t page = (gpa & PAGE_MASK) + (i << PAGE_SHIFT);
        _Atomic uint8_t *flags = flags_of_gpa(mem, page, &host);
        uint64_t bit = BIT(i & 63);
        bitmap[i >> 6] &= ~bit;
        if (!flags || !(STORED(atomic_load(flags)) & flag))
            continue;
        bitmap[i >> 6] |= bit;
        uint8_t old = STORED(atomic_fetch_or(flags, flag));
        if (!page_flags_need_notice(old))
            notify_write_tracking(mem, page, host);
    }
}

void physmem_make_window(struct physmem *mem, uint64_t window)
{
    uint64_t start = window * RAM_WINDOW;

    atomic_store_explicit(&mem->windows_made[window], 1, memory_order_relaxed);
    host_memory_will_write((uint8_t *)mem->ram.base + start, MIN(RAM_WINDOW, mem->ram.size - start));
}

int physmem_track_init(struct physmem *mem, struct error *err)
{
    uint64_t pages = mem->ram.size >> PAGE_SHIFT;
    int result = host_memory_anonymous(&mem->page_flags_memory, ALIGN_UP(pages + 1, PAGE_SIZE), err);

    if (result)
        return result;
    mem->page_flags = mem->page_flags_memory.base;
    result = host_memory_anonymous(&mem->windows_memory, ALIGN_UP(mem->ram.size / RAM_WINDOW + 1, PAGE_SIZE), err);
    if (result)
        return result;
    mem->windows_made = mem->windows_memory.base;
    pthread_mutex_init(&mem->listener_lock, NULL);
    return 0;
}

void physmem_track_destroy(struct physmem *mem)
{
    if (!mem->page_flags)
        return;
    free(atomic_load_explicit(&mem->listeners, memory_order_relaxed));
    while (mem->retired_listeners) {
        struct listener_list *list = mem->retired_listeners;
        mem->retired_listeners = list->retired_next;
        free(list);
    }
    host_memory_free(&mem->page_flags_memory);
    host_memory_free(&mem->windows_memory);
    pthread_mutex_destroy(&mem->listener_lock);
}
