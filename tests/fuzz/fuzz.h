/* What the fuzz targets share. A target is one file with the three functions below; fuzz.c makes it a libFuzzer program
 * (clang) or, with replay.c, a plain program that replays files and runs seeded random inputs (any compiler).
 *
 * A target must be deterministic: the same bytes do the same, whatever was run before. */
#ifndef EIDOLON_TESTS_FUZZ_FUZZ_H
#define EIDOLON_TESTS_FUZZ_FUZZ_H

#include "base/error.h"
#include "base/types.h"

/* What is left of the input; taken from the front. Past its end everything reads as zero. */
struct fuzz_input {
    const uint8_t *data;
    size_t size;
};

/* An input under construction. */
struct fuzz_seed {
    uint8_t *data;
    size_t size;
};

/* ---- A target ---- */

void fuzz_setup(void); /* once, before the first input */
void fuzz_one(struct fuzz_input input);
bool fuzz_make_seed(unsigned n, struct fuzz_seed *seed); /* appends valid input n; false: there are only n */

/* ---- Input ---- */

uint8_t fuzz_u8(struct fuzz_input *input);
uint16_t fuzz_u16(struct fuzz_input *input);
uint32_t fuzz_u32(struct fuzz_input *input);
uint64_t fuzz_u64(struct fuzz_input *input);
/* The next `size` bytes or as many as there are. */
struct fuzz_input fuzz_bytes(struct fuzz_input *input, size_t size);
uint64_t fuzz_random(uint64_t *state); /* splitmix64: for what is derived from a seed in the input */

/* ---- Seeds ---- */

void fuzz_add(struct fuzz_seed *seed, const void *data, size_t size);
void fuzz_add_u8(struct fuzz_seed *seed, uint8_t value);
void fuzz_add_u16(struct fuzz_seed *seed, uint16_t value);
void fuzz_add_u32(struct fuzz_seed *seed, uint32_t value);
void fuzz_add_u64(struct fuzz_seed *seed, uint64_t value);

/* ---- Failure: prints and aborts, so that the input is kept ---- */

_Noreturn void fuzz_fail(const char *file, int line, const char *format, ...) printf_like(3, 4);
#define FUZZ_FAIL(...) fuzz_fail(__FILE__, __LINE__, __VA_ARGS__)
#define FUZZ_CHECK(condition)                                                                                          \
    do {                                                                                                               \
        if (!(condition))                                                                                              \
            FUZZ_FAIL("not %s", #condition);                                                                           \
    } while (0)
/* For set-up: `result` is what filled err. */
void fuzz_need(bool ok, const struct error *err);

/* libFuzzer's names. */
int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#endif
