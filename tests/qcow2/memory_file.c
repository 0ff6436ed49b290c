/* See memory_file.h. */
#include "tests/qcow2/memory_file.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

uint64_t test_random(uint64_t *state)
{
    uint64_t z = (*state += 0x9e3779b97f4a7c15ull);

    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ z >> 27) * 0x94d049bb133111ebull;
    return z ^ z >> 31;
}

void memory_file_init(struct memory_file *file)
{
    *file = (struct memory_file){ .limit = 64 * MIB };
    pthread_mutex_init(&file->lock, NULL);
}

static void free_steps(struct memory_file *file)
{
    for (size_t i = 0; i < file->step_count; i++)
        free(file->steps[i].data);
    free(file->steps);
    file->steps = NULL;
    file->step_count = 0;
}

void memory_file_free(struct memory_file *file)
{
    free_steps(file);
    free(file->data);
    pthread_mutex_destroy(&file->lock);
}

/* What is between the old and the new size is zeroes. */
static int resize(struct memory_file *file, uint64_t size)
{
    if (size > file->limit)
        return -ENOSPC;
    if (size > file->capacity) {
        uint64_t capacity = MAX(size, file->capacity * 2);
        uint8_t *data = realloc(file->data, capacity);

        if (!data)
            abort();
        file->data = data;
        file->capacity = capacity;
    }
    if (size > file->size)
        memset(file->data + file->size, 0, size - file->size);
    file->size = size;
    return 0;
}

void memory_file_set(struct memory_file *file, const void *data, uint64_t size)
{
    free_steps(file);
    file->size = 0;
    if (resize(file, size))
        abort();
    if (size)
        memcpy(file->data, data, size);
}

static struct memory_step *record(struct memory_file *file, enum memory_op op, uint64_t offset, uint64_t size)
{
    struct memory_step *step;

    if (!file->record)
        return NULL;
    if ((file->step_count & (file->step_count - 1)) == 0) {
        file->steps = realloc(file->steps, MAX(file->step_count * 2, 16) * sizeof(*step));
        if (!file->steps)
            abort();
    }
    step = &file->steps[file->step_count++];
    *step = (struct memory_step){ .op = op, .offset = offset, .size = size };
    return step;
}

static int write_bytes(struct memory_file *file, uint64_t offset, const uint8_t *data, uint64_t size)
{
    if (offset > file->limit || size > file->limit - offset)
        return -ENOSPC;
    if (offset + size > file->size && resize(file, offset + size))
        return -ENOSPC;
    if (size)
        memcpy(file->data + offset, data, size);
    return 0;
}

static int memory_read(void *opaque, uint64_t offset, const struct iovec *iov, unsigned count)
{
    struct memory_file *file = opaque;

    pthread_mutex_lock(&file->lock);
    for (unsigned i = 0; i < count; i++) {
        uint64_t inside = offset < file->size ? MIN(iov[i].iov_len, file->size - offset) : 0;

        if (inside)
            memcpy(iov[i].iov_base, file->data + offset, inside);
        memset((uint8_t *)iov[i].iov_base + inside, 0, iov[i].iov_len - inside);
        offset += iov[i].iov_len;
    }
    pthread_mutex_unlock(&file->lock);
    return 0;
}

static int memory_write(void *opaque, uint64_t offset, const struct iovec *iov, unsigned count)
{
    struct memory_file *file = opaque;
    uint64_t size = 0, at = 0;
    int result = 0;

    for (unsigned i = 0; i < count; i++)
        size += iov[i].iov_len;
    pthread_mutex_lock(&file->lock);
    if (file->writes_until_failure && !--file->writes_until_failure) {
        pthread_mutex_unlock(&file->lock);
        return -EIO;
    }
    for (unsigned i = 0; i < count && !result; i++) {
        result = write_bytes(file, offset + at, iov[i].iov_base, iov[i].iov_len);
        at += iov[i].iov_len;
    }
    if (!result) {
        struct memory_step *step = record(file, MEMORY_WRITE, offset, size);

        if (step) {
            step->data = malloc(size + 1);
            memcpy(step->data, file->data + offset, size);
        }
    }
    pthread_mutex_unlock(&file->lock);
    return result;
}

static int memory_flush(void *opaque)
{
    struct memory_file *file = opaque;

    pthread_mutex_lock(&file->lock);
    file->flushes++;
    record(file, MEMORY_FLUSH, 0, 0);
    pthread_mutex_unlock(&file->lock);
    return 0;
}

/* What is of no interest any more becomes something that must not be seen. */
static int memory_discard(void *opaque, uint64_t offset, uint64_t size)
{
    struct memory_file *file = opaque;
    uint64_t end = MIN(offset + size, file->size);
    uint8_t *junk;

    if (offset >= end)
        return 0;
    junk = malloc(end - offset);
    memset(junk, 0xdb, end - offset);
    memory_write(file, offset, &(struct iovec){ junk, end - offset }, 1);
    free(junk);
    return 0;
}

static int memory_truncate(void *opaque, uint64_t size)
{
    struct memory_file *file = opaque;
    int result;

    pthread_mutex_lock(&file->lock);
    result = resize(file, size);
    if (!result)
        record(file, MEMORY_TRUNCATE, 0, size);
    pthread_mutex_unlock(&file->lock);
    return result;
}

static int memory_allocate(void *opaque, uint64_t offset, uint64_t size)
{
    struct memory_file *file = opaque;

    return offset + size > file->size ? memory_truncate(opaque, offset + size) : 0;
}

static int memory_size(void *opaque, uint64_t *size)
{
    struct memory_file *file = opaque;

    pthread_mutex_lock(&file->lock);
    *size = file->size;
    pthread_mutex_unlock(&file->lock);
    return 0;
}

static const struct qcow2_file_ops memory_ops = {
    .read = memory_read,
    .write = memory_write,
    .flush = memory_flush,
    .discard = memory_discard,
    .allocate = memory_allocate,
    .truncate = memory_truncate,
    .size = memory_size,
};

struct qcow2_file memory_file_get(struct memory_file *file)
{
    return (struct qcow2_file){ &memory_ops, file };
}

static void apply(struct memory_file *file, const struct memory_step *step, uint64_t *random)
{
    if (step->op == MEMORY_TRUNCATE) {
        resize(file, step->size);
    } else if (step->op == MEMORY_WRITE && !random) {
        write_bytes(file, step->offset, step->data, step->size);
    } else if (step->op == MEMORY_WRITE) {
        unsigned keep = test_random(random) % 4; /* 0: nothing, 1: some sectors, else all */

        for (uint64_t at = 0, part; at < step->size && keep; at += part) {
            part = MIN(512 - (step->offset + at) % 512, step->size - at);
            if (keep > 1 || test_random(random) & 1)
                write_bytes(file, step->offset + at, step->data + at, part);
        }
    }
}

void memory_file_crash(const struct memory_file *file, const struct memory_file *before, size_t at, uint64_t random,
                       struct memory_file *crashed)
{
    size_t stable = 0;

    memory_file_set(crashed, before->data, before->size);
    for (size_t i = 0; i < at; i++) {
        if (file->steps[i].op == MEMORY_FLUSH)
            stable = i;
    }
    for (size_t i = 0; i < at; i++)
        apply(crashed, &file->steps[i], i > stable && random ? &random : NULL);
}

/* ---- Backing ---- */

uint8_t pattern_backing_byte(uint64_t offset)
{
    return (uint8_t)(offset / 512 * 7 + 1);
}

static int pattern_read(void *opaque, uint64_t offset, const struct iovec *iov, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        for (size_t n = 0; n < iov[i].iov_len; n++, offset++)
            ((uint8_t *)iov[i].iov_base)[n] = offset < *(uint64_t *)opaque ? pattern_backing_byte(offset) : 0;
    }
    return 0;
}

static uint64_t pattern_size(void *opaque)
{
    return *(uint64_t *)opaque;
}

const struct qcow2_backing_ops pattern_backing_ops = { .read = pattern_read, .size = pattern_size };
