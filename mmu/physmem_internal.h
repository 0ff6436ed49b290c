/* Shared by physmem*.c: the structures behind struct physmem. */
#ifndef EIDOLON_MMU_PHYSMEM_INTERNAL_H
#define EIDOLON_MMU_PHYSMEM_INTERNAL_H

#include <stdatomic.h>

#include "base/host_memory.h"
#include "base/read_guard.h"
#include "mmu/physmem.h"

struct mem_region {
    struct physmem *mem;
    struct mem_region *next; /* oldest first: a later one covers an earlier one */
    gpa_t gpa;
    uint64_t size;
    enum mem_kind kind;
    bool enabled;
    bool borrowed;     /* ROM: `host` is somebody else's */
    uint8_t *host;     /* RAM, ROM: of the first byte */
    struct io_ops ops; /* MMIO; ROM: write, if not NULL */
    void *opaque;
    char name[32];
};

/* One piece of the flattened map. The pieces tile all 2^64 addresses, gaps included, so that
 * every look-up finds one. All fields are read while a writer may be at work: see physmem_map.c. */
struct flat_range {
    _Atomic gpa_t first, last;
    _Atomic(uint8_t *) host; /* of the byte at `first`, or NULL */
    _Atomic(struct mem_region *) region;
    _Atomic uint64_t region_offset;
    _Atomic uint32_t kind; /* enum mem_kind; FLAT_DOORBELL */
};
#define FLAT_DOORBELL 0x100u /* the region has write_unlocked */

struct flat_view {
    struct flat_view *retired_next;
    unsigned capacity;
    _Atomic unsigned count;
    _Atomic unsigned largest[2]; /* the two largest RAM ranges: tried first */
    _Atomic bool aliased;        /* some RAM page shows at two addresses */
    struct flat_range ranges[];
};

struct listener_list {
    struct listener_list *retired_next;
    unsigned count;
    struct physmem_listener items[];
};

struct physmem {
    pthread_mutex_t *lock; /* the device lock; may be NULL in tests */
    struct host_region ram;
    _Atomic uint8_t *page_flags; /* per RAM page, dirty bits inverted: fresh pages are dirty */
    struct host_region page_flags_memory;
    _Atomic uint8_t *windows_made; /* per window of RAM: its pages were made, see physmem_make_window */
    struct host_region windows_memory;

    struct mem_region *regions; /* guarded by the device lock */
    _Atomic unsigned sequence;  /* view[sequence & 1] is current */
    _Atomic(struct flat_view *) view[2];
    struct flat_view *retired_views; /* outgrown; readers may still look */
    struct host_region *retired_rom; /* of removed ROMs: TLBs may still point there */
    unsigned retired_rom_count;
    struct read_guard doorbell_guard; /* keeps regions for callers of write_unlocked */

    pthread_mutex_t listener_lock;
    _Atomic(struct listener_list *) listeners; /* written under listener_lock */
    struct listener_list *retired_listeners;   /* guarded by listener_lock */
};

/* A copy of the piece that holds gpa, at one moment. */
struct flat_hit {
    gpa_t first, last;
    uint8_t *host; /* of the byte at `first`, or NULL */
    struct mem_region *region;
    uint64_t region_offset;
    enum mem_kind kind;
    bool doorbell;
};

struct flat_hit physmem_find(const struct physmem *mem, gpa_t gpa);
/* The guest-physical addresses where the RAM page at `host` shows; returns how many there are, of
 * which at most `max` are stored. */
unsigned physmem_find_aliases(const struct physmem *mem, const uint8_t *host, gpa_t *gpas, unsigned max);
bool physmem_has_aliases(const struct physmem *mem);
int physmem_map_init(struct physmem *mem, struct error *err);
void physmem_map_destroy(struct physmem *mem);

int physmem_track_init(struct physmem *mem, struct error *err);
void physmem_track_destroy(struct physmem *mem);
/* Flags of the RAM page at `host`. */
static inline uint8_t physmem_host_flags(const struct physmem *mem, const uint8_t *host)
{
    uint64_t page = (uint64_t)(host - (const uint8_t *)mem->ram.base) >> PAGE_SHIFT;
    return (uint8_t)(atomic_load(&mem->page_flags[page]) ^ PAGE_FLAGS_DIRTY);
}
/* Somebody is about to touch the RAM page at `host`, which may be the first time: the host makes the pages around it at once, for a
 * fraction of what a fault for each would cost. */
#define RAM_WINDOW (64 * KIB)
void physmem_make_window(struct physmem *mem, uint64_t window);
static inline void physmem_touch(struct physmem *mem, const uint8_t *host)
{
    uint64_t window = (uint64_t)(host - (const uint8_t *)mem->ram.base) / RAM_WINDOW;
    if (unlikely(!atomic_load_explicit(&mem->windows_made[window], memory_order_relaxed)))
        physmem_make_window(mem, window);
}
/* `size` bytes of RAM at `host`, which shows at gpa, were written; within one piece. */
void physmem_written_host(struct physmem *mem, gpa_t gpa, const uint8_t *host, uint64_t size);
void physmem_notify_map_changed(struct physmem *mem);
void physmem_notify_entry_changing(struct physmem *mem, gpa_t gpa, uint8_t *host);

#endif
