/* Guest-physical memory: creation, and access to it by the byte: MMIO, DMA and loaders.
 * The map is in physmem_map.c, page tracking in physmem_track.c.
 *
 * Threads: reads and writes from any. MMIO callbacks run with the device lock held, from the look-up to
 * the return, so that a region cannot go away under one; doorbells (io_ops.write_unlocked) without the lock, inside a guard
 * that physmem_remove() waits for. */
#include "mmu/physmem.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "mmu/physmem_internal.h"

struct physmem *physmem_create(uint64_t ram_size, pthread_mutex_t *lock, struct error *err)
{
    struct physmem *mem = calloc(1, sizeof(*mem));

    if (!mem) {
        error_set(err, ENOMEM, "out of memory");
        return NULL;
    }
    mem->lock = lock;
    if (host_memory_memfd(&mem->ram, "eidolon-ram", ALIGN_UP(MAX(ram_size, PAGE_SIZE), PAGE_SIZE), err) ||
        physmem_track_init(mem, err) || physmem_map_init(mem, err)) {
        physmem_destroy(mem);
        return NULL;
    }
    return mem;
}

void physmem_destroy(struct physmem *mem)
{
    if (!mem)
        return;
    physmem_map_destroy(mem);
    physmem_track_destroy(mem);
    host_memory_free(&mem->ram);
    free(mem);
}

int physmem_ram_fd(const struct physmem *mem)
{
    return mem->ram.fd;
}

uint64_t physmem_ram_size(const struct physmem *mem)
{
    return mem->ram.size;
}

uint8_t *physmem_ram_base(const struct physmem *mem)
{
    return mem->ram.base;
}

/* How many of `size` bytes from gpa lie in the piece that was hit. */
static uint64_t hit_run(const struct flat_hit *hit, gpa_t gpa, uint64_t size)
{
    return hit->last - gpa < size - 1 ? hit->last - gpa + 1 : size;
}

static uint64_t size_mask(unsigned size)
{
    return size >= 8 ? ~0ull : (1ull << size * 8) - 1;
}

static void physmem_lock(struct physmem *mem)
{
    if (mem->lock)
        pthread_mutex_lock(mem->lock);
}

static void physmem_unlock(struct physmem *mem)
{
    if (mem->lock)
        pthread_mutex_unlock(mem->lock);
}

uint64_t physmem_mmio_read(struct physmem *mem, gpa_t gpa, unsigned size)
{
    uint64_t value = 0;

    vector_guard(); /* what follows are locks and devices */
    physmem_lock(mem);
    for (unsigned done = 0; done < size;) {
        gpa_t at = gpa + done;
        struct flat_hit hit = physmem_find(mem, at);
        unsigned run = (unsigned)hit_run(&hit, at, size - done);
        uint64_t part = size_mask(run);
        if (hit.host) {
            part = 0;
            memcpy(&part, hit.host + (at - hit.first), run);
        } else if (hit.kind == MEM_MMIO) {
            struct io_ops ops = hit.region->ops; /* the callback may remove its own region */
            part = io_ops_read(&ops, hit.region->opaque, at - hit.first + hit.region_offset, run);
        } else {
            log_event(guest_errors, "read of %u bytes from unassigned memory at 0x%llx\n", run, (unsigned long long)at);
        }
        value |= part << done * 8;
        done += run;
    }
    physmem_unlock(mem);
    return value;
}

static void mmio_write_part(struct physmem *mem, const struct flat_hit *hit, gpa_t gpa, unsigned size, uint64_t value)
{
    switch (hit->kind) {
    case MEM_RAM:
        memcpy(hit->host + (gpa - hit->first), &value, size);
        physmem_written_host(mem, gpa, hit->host + (gpa - hit->first), size);
        break;
    case MEM_MMIO: {
        struct io_ops ops = hit->region->ops;
        io_ops_write(&ops, hit->region->opaque, gpa - hit->first + hit->region_offset, size, value);
        break;
    }
    case MEM_ROM:
        if (hit->region->ops.write) {
            struct io_ops ops = hit->region->ops;
            io_ops_write(&ops, hit->region->opaque, gpa - hit->first + hit->region_offset, size, value);
            break;
        }
        /* fall through */
    default:
        log_event(guest_errors, "write of %u bytes, 0x%llx, to %s at 0x%llx\n", size, (unsigned long long)value,
                  hit->kind == MEM_ROM ? "ROM" : "unassigned memory", (unsigned long long)gpa);
    }
}

/* Most writes look up the map once more for this; only doorbells enter the guard, inside which they look again. */
static bool mmio_write_unlocked(struct physmem *mem, gpa_t gpa, unsigned size, uint64_t value)
{
    struct flat_hit hit = physmem_find(mem, gpa);

    if (likely(!hit.doorbell))
        return false;
    unsigned index = read_guard_enter(&mem->doorbell_guard);
    hit = physmem_find(mem, gpa);
    bool taken = hit.doorbell && hit_run(&hit, gpa, size) == size &&
                 hit.region->ops.write_unlocked(hit.region->opaque, gpa - hit.first + hit.region_offset, size, value);
    read_guard_leave(&mem->doorbell_guard, index);
    return taken;
}

void physmem_mmio_write(struct physmem *mem, gpa_t gpa, unsigned size, uint64_t value)
{
    vector_guard();
    if (mmio_write_unlocked(mem, gpa, size, value))
        return;
    physmem_lock(mem);
    for (unsigned done = 0; done < size;) {
        gpa_t at = gpa + done;
        struct flat_hit hit = physmem_find(mem, at);
        unsigned run = (unsigned)hit_run(&hit, at, size - done);
        mmio_write_part(mem, &hit, at, run, value >> done * 8 & size_mask(run));
        done += run;
    }
    physmem_unlock(mem);
}

bool physmem_read(struct physmem *mem, gpa_t gpa, void *buffer, uint64_t size)
{
    uint8_t *to = buffer;
    bool all = true;

    while (size) {
        struct flat_hit hit = physmem_find(mem, gpa);
        uint64_t run = hit_run(&hit, gpa, size);
        if (hit.host) {
            memcpy(to, hit.host + (gpa - hit.first), run);
        } else {
            memset(to, 0xff, run);
            all = false;
        }
        to += run;
        gpa += run; /* wraps at the end of the address space, as an address bus does */
        size -= run;
    }
    return all;
}

/* Copies from `from`, or zeros if that is NULL. */
static bool dma_write(struct physmem *mem, gpa_t gpa, const uint8_t *from, uint64_t size)
{
    bool all = true;

    while (size) {
        struct flat_hit hit = physmem_find(mem, gpa);
        uint64_t run = hit_run(&hit, gpa, size);
        if (hit.kind == MEM_RAM) {
            uint8_t *to = hit.host + (gpa - hit.first);
            if (from)
                memcpy(to, from, run);
            else
                memset(to, 0, run);
            physmem_written_host(mem, gpa, to, run);
        } else {
            all = false;
        }
        if (from)
            from += run;
        gpa += run;
        size -= run;
    }
    return all;
}

bool physmem_write(struct physmem *mem, gpa_t gpa, const void *buffer, uint64_t size)
{
    return dma_write(mem, gpa, buffer, size);
}

bool physmem_zero(struct physmem *mem, gpa_t gpa, uint64_t size)
{
    return dma_write(mem, gpa, NULL, size);
}

void *physmem_ram_pointer(struct physmem *mem, gpa_t gpa, uint64_t size)
{
    struct flat_hit hit = physmem_find(mem, gpa);

    if (hit.kind != MEM_RAM || (size && hit.last - gpa < size - 1))
        return NULL;
    return hit.host + (gpa - hit.first);
}
