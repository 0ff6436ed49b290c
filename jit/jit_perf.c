/* Writes perf's map of generated code (tools/perf/Documentation/jit-interface.txt of Linux): lines of
 *
 *     START SIZE NAME        hexadecimal, without 0x
 *
 * perf reads it once, when it reports; the file then has to say what was where at the end.
 *
 * Threads: any; one lock around the file. */
#include "jit/jit_perf.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"

#define FLUSH_NS 1000000000ull

struct jit_perf {
    pthread_mutex_t lock;
    FILE *file;       /* guarded by lock */
    uint64_t flushed; /* guarded by lock: host time, ns */
    bool failed;      /* guarded by lock */
    long kept;        /* guarded by lock: bytes of the file that stay when the rest is forgotten */
};

struct jit_perf *jit_perf_open(const char *path, struct error *err)
{
    struct jit_perf *perf = calloc(1, sizeof(*perf));
    char standard[64];
    int fd;

    if (!perf) {
        error_set(err, ENOMEM, "out of memory");
        return NULL;
    }
    snprintf(standard, sizeof(standard), "/tmp/perf-%d.map", (int)getpid());
    if (!path)
        path = standard;
    /* Anybody can put a link of this name into /tmp: it is not followed. */
    fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0644);
    perf->file = fd < 0 ? NULL : fdopen(fd, "w+");
    if (!perf->file) {
        error_set(err, errno, "%s: %s", path, strerror(errno));
        if (fd >= 0)
            close(fd);
        free(perf);
        return NULL;
    }
    pthread_mutex_init(&perf->lock, NULL);
    perf->flushed = clock_host_ns();
    return perf;
}

/* Called with the lock held, or when nobody else is left. */
static void check(struct jit_perf *perf, bool good)
{
    if (!good && !perf->failed)
        log_warn("-perfmap: names are lost: %s", strerror(errno));
    perf->failed |= !good;
}

void jit_perf_close(struct jit_perf *perf)
{
    if (!perf)
        return;
    check(perf, fclose(perf->file) == 0);
    pthread_mutex_destroy(&perf->lock);
    free(perf);
}

void jit_perf_add(struct jit_perf *perf, const void *host_code, size_t size, const char *name)
{
    uint64_t now = clock_host_ns();

    pthread_mutex_lock(&perf->lock);
    check(perf, fprintf(perf->file, "%" PRIxPTR " %zx %s\n", (uintptr_t)host_code, size, name) > 0);
    if (now - perf->flushed >= FLUSH_NS) { /* what a killed process leaves behind is then nearly complete */
        check(perf, fflush(perf->file) == 0);
        perf->flushed = now;
    }
    pthread_mutex_unlock(&perf->lock);
}

void jit_perf_keep(struct jit_perf *perf)
{
    pthread_mutex_lock(&perf->lock);
    perf->kept = ftell(perf->file);
    pthread_mutex_unlock(&perf->lock);
}

void jit_perf_forget(struct jit_perf *perf)
{
    pthread_mutex_lock(&perf->lock);
    check(perf, fflush(perf->file) == 0 && ftruncate(fileno(perf->file), perf->kept) == 0 &&
                    fseek(perf->file, perf->kept, SEEK_SET) == 0);
    pthread_mutex_unlock(&perf->lock);
}

/* What lies behind `kept`; NULL: it cannot be read. Called with the lock held. */
static char *read_rest(struct jit_perf *perf, size_t *size)
{
    long end = fflush(perf->file) == 0 ? ftell(perf->file) : -1;
    char *text = end >= perf->kept ? malloc((size_t)(end - perf->kept) + 1) : NULL;

    if (!text)
        return NULL;
    *size = (size_t)(end - perf->kept);
    if (fseek(perf->file, perf->kept, SEEK_SET) != 0 || fread(text, 1, *size, perf->file) != *size) {
        free(text);
        return NULL;
    }
    text[*size] = '\0';
    return text;
}

/* Lines whose code begins in [start, end) are left out. Returns the size of the rest. */
static size_t without(char *text, uintptr_t start, uintptr_t end)
{
    char *out = text;

    for (char *line = text, *next; *line; line = next) {
        uintptr_t address = strtoull(line, NULL, 16);
        next = strchr(line, '\n');
        next = next ? next + 1 : line + strlen(line);
        if (address >= start && address < end)
            continue;
        memmove(out, line, (size_t)(next - line));
        out += next - line;
    }
    return (size_t)(out - text);
}

void jit_perf_forget_code(struct jit_perf *perf, const void *code, size_t size)
{
    size_t length = 0;

    pthread_mutex_lock(&perf->lock);
    char *text = read_rest(perf, &length);
    if (text)
        length = without(text, (uintptr_t)code, (uintptr_t)code + size);
    check(perf, text && ftruncate(fileno(perf->file), perf->kept) == 0 &&
                    fseek(perf->file, perf->kept, SEEK_SET) == 0 && fwrite(text, 1, length, perf->file) == length);
    free(text);
    pthread_mutex_unlock(&perf->lock);
}
