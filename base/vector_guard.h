/* The vector guard of a thread. While translated guest code runs, the guest's vector, mask and x87 registers are in the
 * host's; code beneath it is compiled to use general registers only (docs/design.md 9.4). Before such code calls any
 * other (devices, libc), the guest's registers must be put away ("parked"). Code that has the struct cpu says
 * cpu_park_vectors; what knows no CPU says vector_guard(), which costs a load and a test where there is nothing to do. */
#ifndef EIDOLON_BASE_VECTOR_GUARD_H
#define EIDOLON_BASE_VECTOR_GUARD_H

#include "base/types.h"

struct vector_guard {
    void (*park)(void *opaque); /* NULL: this thread runs no guest */
    void *opaque;
};
extern _Thread_local struct vector_guard vector_guard_of_thread; /* set by cpu_thread_enter */

static inline void vector_guard(void)
{
    if (unlikely(vector_guard_of_thread.park != NULL))
        vector_guard_of_thread.park(vector_guard_of_thread.opaque);
}

#endif
