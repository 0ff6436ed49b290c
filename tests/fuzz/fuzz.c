/* See fuzz.h. Around a target: the entry points that libFuzzer calls, input and seed helpers.
 * With EIDOLON_FUZZ_SEEDS=FOLDER in the environment the target's seeds are written there before anything else. */
#include "tests/fuzz/fuzz.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"

/* ---- Input ---- */

static uint64_t take(struct fuzz_input *input, size_t size)
{
    uint64_t value = 0;
    size_t have = MIN(size, input->size);

    if (have)
        memcpy(&value, input->data, have);
    input->data += have;
    input->size -= have;
    return value;
}

uint8_t fuzz_u8(struct fuzz_input *input)
{
    return (uint8_t)take(input, 1);
}
uint16_t fuzz_u16(struct fuzz_input *input)
{
    return (uint16_t)take(input, 2);
}
uint32_t fuzz_u32(struct fuzz_input *input)
{
    return (uint32_t)take(input, 4);
}
uint64_t fuzz_u64(struct fuzz_input *input)
{
    return take(input, 8);
}

struct fuzz_input fuzz_bytes(struct fuzz_input *input, size_t size)
{
    struct fuzz_input part = { input->data, MIN(size, input->size) };

    input->data += part.size;
    input->size -= part.size;
    return part;
}

uint64_t fuzz_random(uint64_t *state)
{
    uint64_t z = (*state += 0x9e3779b97f4a7c15ull);

    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ z >> 27) * 0x94d049bb133111ebull;
    return z ^ z >> 31;
}

/* ---- Seeds ---- */

void fuzz_add(struct fuzz_seed *seed, const void *data, size_t size)
{
    seed->data = realloc(seed->data, seed->size + size + 1);
    if (!seed->data)
        abort();
    if (size)
        memcpy(seed->data + seed->size, data, size);
    seed->size += size;
}

void fuzz_add_u8(struct fuzz_seed *seed, uint8_t value)
{
    fuzz_add(seed, &value, sizeof(value));
}
void fuzz_add_u16(struct fuzz_seed *seed, uint16_t value)
{
    fuzz_add(seed, &value, sizeof(value));
}
void fuzz_add_u32(struct fuzz_seed *seed, uint32_t value)
{
    fuzz_add(seed, &value, sizeof(value));
}
void fuzz_add_u64(struct fuzz_seed *seed, uint64_t value)
{
    fuzz_add(seed, &value, sizeof(value));
}

static void write_seeds(const char *folder)
{
    for (unsigned n = 0;; n++) {
        struct fuzz_seed seed = { 0 };
        char path[512];
        FILE *file;

        if (!fuzz_make_seed(n, &seed))
            break;
        snprintf(path, sizeof(path), "%s/seed-%03u", folder, n);
        file = fopen(path, "wb");
        if (!file || fwrite(seed.data, 1, seed.size, file) != seed.size || fclose(file))
            FUZZ_FAIL("cannot write %s", path);
        free(seed.data);
    }
}

/* ---- Failure ---- */

void fuzz_fail(const char *file, int line, const char *format, ...)
{
    va_list args;

    fprintf(stderr, "%s:%d: ", file, line);
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fputc('\n', stderr);
    abort();
}

void fuzz_need(bool ok, const struct error *err)
{
    if (!ok)
        FUZZ_FAIL("set-up: %s", err->text);
}

/* ---- libFuzzer ---- */

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    const char *folder = getenv("EIDOLON_FUZZ_SEEDS");
    struct error err = { "" };

    (void)argc, (void)argv;
    if (folder)
        write_seeds(folder);
    /* What the code under test prints is of no interest, but that it is formatted is. */
    fuzz_need(freopen("/dev/null", "w", stdout) != NULL, &err);
    fuzz_need(log_set_file("/dev/null", &err) == 0, &err);
    fuzz_setup();
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    fuzz_one((struct fuzz_input){ data, size });
    return 0;
}
