/* What the benchmark's own programs share: a table of workloads and the main function that runs one of them. */
#ifndef EIDOLON_GUEST_BENCH_H
#define EIDOLON_GUEST_BENCH_H

#include <stddef.h>
#include <stdint.h>

/* One unit is a fixed amount of work (1 to 20 ms on a host CPU) and returns a checksum of what it computed: every unit the
 * same. What `setup` makes is given to every unit; it should take no time worth measuring. */
struct bench_workload {
    const char *name;
    uint64_t (*unit)(void *data);
    void *(*setup)(void); /* or NULL */
};

/* PROGRAM NAME UNITS: runs the units, prints NAME and checksum. Exit status 0; 2 usage; 3 a unit's checksum differs. */
int bench_main(int argc, char **argv, const struct bench_workload *table, size_t count);

/* Never NULL: prints and exits. */
void *bench_alloc(size_t size);
_Noreturn void bench_fail(const char *what);

/* FNV-1a, 64 bits; start with BENCH_HASH. */
#define BENCH_HASH 0xcbf29ce484222325ull
uint64_t bench_hash(uint64_t hash, const void *data, size_t size);

/* xorshift: the same numbers everywhere. *state must not be 0. */
static inline uint32_t bench_random(uint32_t *state)
{
    uint32_t x = *state;

    x ^= x << 13;
    x ^= x >> 17;
    x ^= x << 5;
    return *state = x;
}

#endif
