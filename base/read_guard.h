/* A guard for readers that take no lock: who frees what they may look at waits until those who could still have found it are
 * gone. Readers never wait. As SRCU: two counts, of which new readers use one while the waiter watches the other become zero;
 * twice, because a reader may be about to raise the count that it read the index of before the first turn. */
#ifndef EIDOLON_BASE_READ_GUARD_H
#define EIDOLON_BASE_READ_GUARD_H

#include <sched.h>
#include <stdatomic.h>

struct read_guard {
    _Atomic unsigned index;
    _Atomic unsigned readers[2];
};

static inline unsigned read_guard_enter(struct read_guard *guard)
{
    unsigned index = atomic_load(&guard->index) & 1;

    atomic_fetch_add(&guard->readers[index], 1); /* seq_cst: what follows is not looked at before; pairs with wait */
    return index;
}

static inline void read_guard_leave(struct read_guard *guard, unsigned index)
{
    atomic_fetch_sub_explicit(&guard->readers[index], 1, memory_order_release);
}

/* After the thing can no longer be found. One waiter at a time (the device lock sees to that); not inside a guard. */
static inline void read_guard_wait(struct read_guard *guard)
{
    for (unsigned turn = 0; turn < 2; turn++) {
        unsigned old = atomic_fetch_add(&guard->index, 1) & 1;

        while (atomic_load(&guard->readers[old]))
            sched_yield();
    }
}

#endif
