/* A file in memory under an image, which records what is done to it: for tests that crash at every point, and for the fuzzer. */
#ifndef EIDOLON_TESTS_QCOW2_MEMORY_FILE_H
#define EIDOLON_TESTS_QCOW2_MEMORY_FILE_H

#include <pthread.h>

#include "devices/block/qcow2.h"

enum memory_op { MEMORY_WRITE, MEMORY_TRUNCATE, MEMORY_FLUSH };

struct memory_step {
    enum memory_op op;
    uint64_t offset, size;
    uint8_t *data; /* of a write */
};

struct memory_file {
    uint8_t *data;
    uint64_t size, capacity, limit; /* limit: writes past it fail with -ENOSPC; 0: 64 MiB */
    bool record;
    struct memory_step *steps;
    size_t step_count;
    uint64_t writes_until_failure; /* counts down; the write that makes it 0 fails with -EIO; 0: none fails */
    unsigned flushes;
    pthread_mutex_t lock;
};

void memory_file_init(struct memory_file *file);
void memory_file_free(struct memory_file *file);
void memory_file_set(struct memory_file *file, const void *data,
                     uint64_t size);                         /* another content; the record is empty after */
struct qcow2_file memory_file_get(struct memory_file *file); /* close() does nothing */
/* What is there after a crash at step `at`: `before` (the content when recording began), all steps up to the last flush before `at`,
 * and of those behind it all (random 0) or a random part, writes torn at sectors. */
void memory_file_crash(const struct memory_file *file, const struct memory_file *before, size_t at, uint64_t random,
                       struct memory_file *crashed);

/* A backing file of `size` bytes: the byte at n is n / 512 * 7 + 1. */
extern const struct qcow2_backing_ops pattern_backing_ops;
uint8_t pattern_backing_byte(uint64_t offset);

uint64_t test_random(uint64_t *state);

#endif
