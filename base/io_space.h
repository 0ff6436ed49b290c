/* What a device shows on a bus: a range of addresses with read and write callbacks,
 * described by value. Used for both MMIO (struct physmem) and the 64 KiB of ports. */
#ifndef EIDOLON_BASE_IO_SPACE_H
#define EIDOLON_BASE_IO_SPACE_H

#include <pthread.h>

#include "base/error.h"
#include "base/types.h"

/* offset: from the start of the range. size: 1, 2, 4 or 8. Accesses outside
 * [min_size, max_size] (0 = 1 and 4) are split or widened by the caller. An access
 * never crosses the end of the range. Called with the device lock held. */
struct io_ops {
    uint64_t (*read)(void *opaque, uint64_t offset, unsigned size);
    void (*write)(void *opaque, uint64_t offset, unsigned size, uint64_t value);
    uint8_t min_size, max_size;
    /* Doorbells: a write that needs no lock and must not wait for one. Asked first, without the device lock, on the vCPU's
     * thread; size as the CPU wrote it. True: that was all. False: not such a write, it goes to `write` as usual. May be
     * called by several threads at once; never after the range was removed. NULL: none. */
    bool (*write_unlocked)(void *opaque, uint64_t offset, unsigned size, uint64_t value);
};

/* One access to a range with the splitting rule above applied. */
uint64_t io_ops_read(const struct io_ops *ops, void *opaque, uint64_t offset, unsigned size);
void io_ops_write(const struct io_ops *ops, void *opaque, uint64_t offset, unsigned size, uint64_t value);

/* The port space: 65536 ports; unassigned reads give all ones, writes are dropped
 * (logged under guest_errors). */
struct port_space;
struct port_space *port_space_create(pthread_mutex_t *lock);
void port_space_destroy(struct port_space *space);
/* A later range covers an earlier one where they overlap; -EBUSY is not a thing. */
int port_space_add(struct port_space *space, uint16_t first, unsigned count, const struct io_ops *ops, void *opaque,
                   const char *name, struct error *err);
void port_space_remove(struct port_space *space, uint16_t first, unsigned count, void *opaque);
uint32_t port_space_read(struct port_space *space, uint16_t port, unsigned size);
void port_space_write(struct port_space *space, uint16_t port, unsigned size, uint32_t value);

#endif
