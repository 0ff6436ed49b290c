/* Guest-physical memory: a map from guest-physical addresses to RAM, ROM and MMIO,
 * and the per-page tracking that dirty logging and translated code need.
 *
 * RAM is one memfd; a guest-physical range maps a range of it. The map changes only
 * with the device lock held and all vCPUs notified (listeners); look-ups from vCPU
 * threads are lock-free. */
#ifndef EIDOLON_MMU_PHYSMEM_H
#define EIDOLON_MMU_PHYSMEM_H

#include <pthread.h>

#include "base/error.h"
#include "base/io_space.h"
#include "base/types.h"

struct physmem;
struct mem_region;

enum mem_kind { MEM_UNASSIGNED, MEM_RAM, MEM_ROM, MEM_MMIO };

/* RAM of ram_size bytes in one memfd, not mapped anywhere yet. `lock` is the device
 * lock, taken around MMIO callbacks. */
struct physmem *physmem_create(uint64_t ram_size, pthread_mutex_t *lock, struct error *err);
void physmem_destroy(struct physmem *mem);
int physmem_ram_fd(const struct physmem *mem);
uint64_t physmem_ram_size(const struct physmem *mem);
uint8_t *physmem_ram_base(const struct physmem *mem); /* where the memfd is mapped, from its beginning */

/* Ranges are page-aligned for RAM and ROM. Later additions cover earlier ones where
 * they overlap (as a PCI BAR over RAM); removal uncovers. */
struct mem_region *physmem_add_ram(struct physmem *mem, gpa_t gpa, uint64_t size, uint64_t ram_offset, const char *name,
                                   struct error *err);
struct mem_region *physmem_add_rom(struct physmem *mem, gpa_t gpa, uint64_t size, const void *data, uint64_t data_size,
                                   const char *name, struct error *err);
struct mem_region *physmem_add_mmio(struct physmem *mem, gpa_t gpa, uint64_t size, const struct io_ops *ops,
                                    void *opaque, const char *name, struct error *err);
/* A ROM whose bytes its owner changes (flash memory): zeroes at first, at physmem_rom_bytes(). The guest's writes go to
 * ops->write; NULL: they are ignored. Who changes bytes that the guest may have read disables and enables the region, so that
 * nobody goes on with the old ones. */
struct mem_region *physmem_add_rom_device(struct physmem *mem, gpa_t gpa, uint64_t size, const struct io_ops *ops,
                                          void *opaque, const char *name, struct error *err);
uint8_t *physmem_rom_bytes(struct mem_region *region);
/* Bytes of RAM or of a ROM, shown once more; they belong to whom they belonged. Writes as above. */
struct mem_region *physmem_add_rom_view(struct physmem *mem, gpa_t gpa, uint64_t size, uint8_t *host,
                                        const struct io_ops *ops, void *opaque, const char *name, struct error *err);
void physmem_move(struct mem_region *region, gpa_t gpa); /* BAR reprogrammed; keeps its priority */
/* A region that is not enabled is as if it were not there (a BAR whose decoding is off). New
 * regions are enabled. */
void physmem_set_enabled(struct mem_region *region, bool enabled);
void physmem_remove(struct mem_region *region);

/* What one guest-physical page is. `host` is NULL unless RAM or ROM and points at the
 * start of the page. A page with more than one thing in it (an MMIO range smaller than a page)
 * is MEM_MMIO without a host pointer: physmem_mmio_* look up the exact address.
 * `host` stays valid until physmem_destroy; `region` only while the device lock is held. */
struct mem_page {
    enum mem_kind kind;
    uint8_t *host;
    struct mem_region *region; /* of the page's first byte; NULL: unassigned */
    uint64_t region_offset;    /* of that byte in the region */
};
struct mem_page physmem_lookup(const struct physmem *mem, gpa_t gpa);

/* MMIO (or unassigned: reads all ones) at an exact address; takes the device lock.
 * size 1..8, any alignment. Also correct for RAM/ROM addresses. */
uint64_t physmem_mmio_read(struct physmem *mem, gpa_t gpa, unsigned size);
void physmem_mmio_write(struct physmem *mem, gpa_t gpa, unsigned size, uint64_t value);

/* DMA and loaders. Crosses pages and regions; ROM ignores writes, unassigned reads
 * ones. Return false if any byte was not RAM (or ROM for reads); MMIO is not
 * reached by DMA. Writes notify code tracking. */
bool physmem_read(struct physmem *mem, gpa_t gpa, void *buffer, uint64_t size);
bool physmem_write(struct physmem *mem, gpa_t gpa, const void *buffer, uint64_t size);
bool physmem_zero(struct physmem *mem, gpa_t gpa, uint64_t size);
/* A host pointer to [gpa, gpa+size) if that is contiguous RAM, else NULL. Reading only,
 * unless the caller also calls physmem_written() afterwards. */
void *physmem_ram_pointer(struct physmem *mem, gpa_t gpa, uint64_t size);

/* Page tracking: a byte of flags for each RAM page; atomics. */
enum {
    PAGE_FLAG_CODE = 1 << 0, /* decoded or translated code lives here: writes must be told */
    PAGE_FLAG_DIRTY_MIGRATION = 1 << 1,
    PAGE_FLAG_DIRTY_DISPLAY = 1 << 2,
    PAGE_FLAGS_DIRTY = PAGE_FLAG_DIRTY_MIGRATION | PAGE_FLAG_DIRTY_DISPLAY,
    PAGE_FLAGS_ALL = PAGE_FLAG_CODE | PAGE_FLAGS_DIRTY,
};
/* 0 for what is not RAM. A page whose dirty bits are all set and whose CODE bit is clear
 * may be written directly; every other write calls physmem_written(). */
uint8_t physmem_page_flags(const struct physmem *mem, gpa_t gpa);
void physmem_page_set_flags(struct physmem *mem, gpa_t gpa, uint8_t flags); /* CODE: listeners drop write tags */
void physmem_page_clear_flags(struct physmem *mem, gpa_t gpa, uint8_t flags);
/* CODE by count: each vCPU (each cache of code) holds a page once, before it reads its bytes, and releases it when it
 * has no code of it any more; the flag goes with the last holder. */
void physmem_code_acquire(struct physmem *mem, gpa_t gpa);
void physmem_code_release(struct physmem *mem, gpa_t gpa);
static inline bool page_flags_need_notice(uint8_t flags)
{
    return (flags & (PAGE_FLAG_CODE | PAGE_FLAGS_DIRTY)) != PAGE_FLAGS_DIRTY;
}
/* The bytes were written: sets dirty, tells code listeners. Called after the store: a collector of
 * dirty pages, or a decoder, that came before the store would otherwise miss it. */
void physmem_written(struct physmem *mem, gpa_t gpa, uint64_t size);
/* Collects and clears one dirty bit over a range; bitmap has a bit per page, and
 * only those are written. */
void physmem_collect_dirty(struct physmem *mem, gpa_t gpa, uint64_t size, uint8_t flag, uint64_t *bitmap);

struct physmem_listener {
    void (*map_changed)(void *opaque);                            /* flush all cached translations */
    void (*code_written)(void *opaque, gpa_t gpa, uint64_t size); /* only pages with CODE set */
    void (*write_tracking)(void *opaque, gpa_t page);             /* write tags for this page must go */
    /* A walk is about to set A or D in the table entry at `host`; on the thread that walks. */
    void (*entry_changing)(void *opaque, gpa_t gpa, uint8_t *host);
    void *opaque;
};
void physmem_add_listener(struct physmem *mem, const struct physmem_listener *listener);
void physmem_remove_listener(struct physmem *mem, void *opaque);

#endif
