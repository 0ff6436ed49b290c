/* Accesses to what devices show on a bus: the splitting rule for one range, and the
 * space of 65536 I/O ports.
 *
 * The splitting rule (io_ops_read and io_ops_write):
 *   - what is wider than max_size is cut into pieces, lowest address first;
 *   - what is not 1, 2, 4 or 8 bytes (the rest of an access that straddled two ranges) is
 *     cut into powers of two;
 *   - what is narrower than min_size becomes an access to the aligned container of
 *     min_size bytes: a read picks its bytes out of it, a write presents the value in its
 *     place with zeros around it (no read first: that could have side effects);
 *   - anything else reaches the device as the CPU did it, aligned or not.
 *
 * Ports: a table of 65536 owners answers a look-up at once. It is rebuilt from the list of
 * ranges when that changes, which guests can cause (I/O BARs) but not often.
 *
 * Threads: any; the device lock is held from the look-up to the end of the callback, so a
 * range cannot vanish under an access. Doorbells (write_unlocked) do without: a guard keeps their range. */
#include "base/io_space.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/read_guard.h"

#define PORT_COUNT 65536u

static uint64_t size_mask(unsigned size)
{
    return size >= 8 ? ~0ull : (1ull << size * 8) - 1;
}

static unsigned io_ops_min(const struct io_ops *ops)
{
    return ops->min_size ? ops->min_size : 1;
}

static unsigned io_ops_max(const struct io_ops *ops)
{
    return ops->max_size ? ops->max_size : 4;
}

/* The largest power of two that is at most min(size, max). */
static unsigned io_piece(unsigned size, unsigned max)
{
    unsigned piece = 8;

    while (piece > size || piece > max)
        piece >>= 1;
    return piece;
}

static uint64_t io_read_piece(const struct io_ops *ops, void *opaque, uint64_t offset, unsigned size)
{
    unsigned min = io_ops_min(ops);

    if (!ops->read)
        return size_mask(size);
    if (size >= min)
        return ops->read(opaque, offset, size) & size_mask(size);
    unsigned skip = (unsigned)(offset & (min - 1));
    unsigned here = MIN(size, min - skip); /* unaligned: may reach into the next container */
    uint64_t value = ops->read(opaque, offset - skip, min) >> skip * 8 & size_mask(here);
    if (here < size)
        value |= io_read_piece(ops, opaque, offset + here, size - here) << here * 8;
    return value;
}

static void io_write_piece(const struct io_ops *ops, void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
    unsigned min = io_ops_min(ops);

    if (!ops->write)
        return;
    if (size >= min) {
        ops->write(opaque, offset, size, value & size_mask(size));
        return;
    }
    unsigned skip = (unsigned)(offset & (min - 1));
    unsigned here = MIN(size, min - skip);
    ops->write(opaque, offset - skip, min, (value & size_mask(here)) << skip * 8);
    if (here < size)
        io_write_piece(ops, opaque, offset + here, size - here, value >> here * 8);
}

uint64_t io_ops_read(const struct io_ops *ops, void *opaque, uint64_t offset, unsigned size)
{
    uint64_t value = 0;
    unsigned done = 0;

    while (done < size) {
        unsigned piece = io_piece(size - done, io_ops_max(ops));
        value |= io_read_piece(ops, opaque, offset + done, piece) << done * 8;
        done += piece;
    }
    return value;
}

void io_ops_write(const struct io_ops *ops, void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
    while (size) {
        unsigned piece = io_piece(size, io_ops_max(ops));
        io_write_piece(ops, opaque, offset, piece, value);
        if (piece < 8)
            value >>= piece * 8;
        offset += piece;
        size -= piece;
    }
}

struct port_range {
    struct port_range *next; /* oldest first */
    uint16_t first;
    unsigned count;
    struct io_ops ops;
    void *opaque;
    char name[32];
};

struct port_space {
    pthread_mutex_t *lock;                /* the device lock; may be NULL in tests */
    struct port_range *ranges;            /* guarded by lock */
    /* Written with the lock held; read with it, or by doorbells inside the guard. */
    _Atomic(struct port_range *) owner[PORT_COUNT];
    _Atomic unsigned doorbells; /* ranges with write_unlocked */
    struct read_guard guard;
};

static void port_space_lock(struct port_space *space)
{
    if (space->lock)
        pthread_mutex_lock(space->lock);
}

static void port_space_unlock(struct port_space *space)
{
    if (space->lock)
        pthread_mutex_unlock(space->lock);
}

struct port_space *port_space_create(pthread_mutex_t *lock)
{
    struct port_space *space = calloc(1, sizeof(*space));

    if (space)
        space->lock = lock;
    return space;
}

void port_space_destroy(struct port_space *space)
{
    if (!space)
        return;
    while (space->ranges) {
        struct port_range *next = space->ranges->next;
        free(space->ranges);
        space->ranges = next;
    }
    free(space);
}

static void port_range_claim(struct port_space *space, struct port_range *range)
{
    for (unsigned i = 0; i < range->count; i++)
        space->owner[range->first + i] = range;
}

int port_space_add(struct port_space *space, uint16_t first, unsigned count, const struct io_ops *ops, void *opaque,
                   const char *name, struct error *err)
{
    if (count == 0 || first + count > PORT_COUNT)
        return error_set(err, EINVAL, "%s: ports 0x%x + %u do not exist", name, first, count);
    struct port_range *range = calloc(1, sizeof(*range));
    if (!range)
        return error_set(err, ENOMEM, "%s: out of memory", name);
    range->first = first;
    range->count = count;
    range->ops = *ops;
    range->opaque = opaque;
    strncpy(range->name, name, sizeof(range->name) - 1);

    port_space_lock(space);
    struct port_range **last = &space->ranges;
    while (*last)
        last = &(*last)->next;
    *last = range;
    port_range_claim(space, range);
    space->doorbells += ops->write_unlocked != NULL;
    port_space_unlock(space);
    return 0;
}

void port_space_remove(struct port_space *space, uint16_t first, unsigned count, void *opaque)
{
    port_space_lock(space);
    struct port_range **link = &space->ranges;
    while (*link && ((*link)->first != first || (*link)->count != count || (*link)->opaque != opaque))
        link = &(*link)->next;
    struct port_range *range = *link;
    if (range) {
        *link = range->next;
        for (unsigned i = 0; i < count; i++)
            space->owner[first + i] = NULL;
        for (struct port_range *r = space->ranges; r; r = r->next)
            if (r->first < first + count && first < r->first + r->count)
                port_range_claim(space, r); /* oldest first: the newest wins, as it did before */
        space->doorbells -= range->ops.write_unlocked != NULL;
        read_guard_wait(&space->guard);
        free(range);
    }
    port_space_unlock(space);
}

/* How many of the `size` bytes at port go to the owner of the first: up to the end of its range, even where a later
 * range covers a part (a dword at 0xcf8 is the PCI address register, though 0xcf9 alone is the reset control).
 * The space does not wrap: what lies above port 0xffff belongs to nobody. */
static unsigned port_run(const struct port_space *space, unsigned port, unsigned size, struct port_range **owner)
{
    unsigned run = 1;

    *owner = port < PORT_COUNT ? space->owner[port] : NULL;
    if (*owner)
        return MIN(size, (*owner)->first + (*owner)->count - port);
    while (run < size && (port + run >= PORT_COUNT || !space->owner[port + run]))
        run++;
    return run;
}

uint32_t port_space_read(struct port_space *space, uint16_t port, unsigned size)
{
    uint32_t value = 0;

    port_space_lock(space);
    for (unsigned done = 0; done < size;) {
        struct port_range *range;
        unsigned run = port_run(space, port + done, size - done, &range);
        uint64_t part = size_mask(run);
        if (range) {
            struct port_range copy = *range; /* the callback may remove its own range */
            part = io_ops_read(&copy.ops, copy.opaque, port + done - copy.first, run);
        } else {
            log_event(guest_errors, "read of %u bytes from unassigned port 0x%x\n", run, port + done);
        }
        value |= (uint32_t)(part << done * 8);
        done += run;
    }
    port_space_unlock(space);
    return value;
}

static bool port_write_unlocked(struct port_space *space, unsigned port, unsigned size, uint32_t value)
{
    unsigned index = read_guard_enter(&space->guard);
    struct port_range *range = space->owner[port];
    bool taken = range && range->ops.write_unlocked && size <= range->first + range->count - port &&
                 range->ops.write_unlocked(range->opaque, port - range->first, size, value);

    read_guard_leave(&space->guard, index);
    return taken;
}

void port_space_write(struct port_space *space, uint16_t port, unsigned size, uint32_t value)
{
    if (atomic_load_explicit(&space->doorbells, memory_order_relaxed) && port_write_unlocked(space, port, size, value))
        return;
    port_space_lock(space);
    for (unsigned done = 0; done < size;) {
        struct port_range *range;
        unsigned run = port_run(space, port + done, size - done, &range);
        uint64_t part = (uint64_t)value >> done * 8 & size_mask(run);
        if (range) {
            struct port_range copy = *range; /* the callback may remove its own range */
            io_ops_write(&copy.ops, copy.opaque, port + done - copy.first, run, part);
        } else {
            log_event(guest_errors, "write of %u bytes, 0x%x, to unassigned port 0x%x\n", run, (unsigned)part,
                      port + done);
        }
        done += run;
    }
    port_space_unlock(space);
}
