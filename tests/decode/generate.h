/* Generated encodings: for a row, bytes that should be one of its forms (most of them legal, some not),
 * with random prefixes, ModRM, SIB, displacement and immediate. */
#ifndef EIDOLON_TESTS_DECODE_GENERATE_H
#define EIDOLON_TESTS_DECODE_GENERATE_H

#include "cpu/decode/insn.h"

#define GENERATED_BYTES 24

struct random {
    uint64_t state;
};
uint64_t random_next(struct random *random);
static inline unsigned random_below(struct random *random, unsigned bound)
{
    return (unsigned)(random_next(random) >> 33) % bound;
}

/* Fills GENERATED_BYTES: one encoding and random bytes behind it. */
void generate_row(struct random *random, const struct insn_row *row, enum code_size code_size, uint8_t *bytes);
void generate_noise(struct random *random, uint8_t *bytes);

/* Number of cases of a kind: EIDOLON_DECODE_CASES scales the default (in percent). */
unsigned case_count(unsigned fallback);
uint64_t case_seed(void); /* EIDOLON_SEED or a fixed one */

#endif
