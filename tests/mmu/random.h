/* splitmix64: the tests' own generator, so that a seed means the same everywhere. */
#ifndef EIDOLON_TESTS_MMU_RANDOM_H
#define EIDOLON_TESTS_MMU_RANDOM_H

#include <stdlib.h>

#include "base/types.h"

struct random {
    uint64_t seed, state;
};

/* EIDOLON_SEED replaces the default; tests print random.seed when they fail. */
static inline struct random random_start(uint64_t default_seed)
{
    const char *text = getenv("EIDOLON_SEED");
    uint64_t seed = text ? strtoull(text, NULL, 0) : default_seed;
    return (struct random){ seed, seed };
}

static inline uint64_t random_u64(struct random *random)
{
    uint64_t z = (random->state += 0x9e3779b97f4a7c15ull);
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ z >> 27) * 0x94d049bb133111ebull;
    return z ^ z >> 31;
}

static inline unsigned random_below(struct random *random, unsigned limit)
{
    return (unsigned)((random_u64(random) >> 32) * limit >> 32);
}

#endif
