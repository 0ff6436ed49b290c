/* Writes perf's jitdump, version 1 (tools/perf/Documentation/jitdump-specification.txt of Linux).
 *
 * Invariants: records are whole, in order of their time (CLOCK_MONOTONIC in ns, what `perf record -k mono` stamps
 * samples with), with an index that never repeats. One page of the file is mapped executable for as long as we live:
 * perf records that mapping, and so learns that there is a dump and where.
 *
 * Threads: any; one lock around the file. */
#include "jit/jit_jitdump.h"

#include <assert.h>
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"

#define DUMP_MAGIC   0x4a695444u /* "JiTD" */
#define DUMP_VERSION 1
#define FLUSH_NS     1000000000ull

enum record { RECORD_CODE_LOAD = 0, RECORD_CODE_CLOSE = 3 };

struct file_header {
    uint32_t magic, version, total_size, elf_machine, padding, pid;
    uint64_t timestamp, flags;
};
static_assert(sizeof(struct file_header) == 40, "jitdump file header");

struct record_header {
    uint32_t id, total_size;
    uint64_t timestamp;
};
static_assert(sizeof(struct record_header) == 16, "jitdump record header");

struct code_load { /* then the name with its zero, then the code */
    struct record_header header;
    uint32_t pid, tid;
    uint64_t vma, code_address, code_size, code_index;
};
static_assert(sizeof(struct code_load) == 56, "jitdump JIT_CODE_LOAD");

struct jit_jitdump {
    pthread_mutex_t lock;
    FILE *file;       /* guarded by lock */
    uint64_t index;   /* guarded by lock */
    uint64_t flushed; /* guarded by lock */
    bool failed;      /* guarded by lock */
    void *marker;
    size_t marker_size;
};

static uint64_t now_ns(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000ull + (uint64_t)ts.tv_nsec;
}

/* Called with the lock held, or when nobody else is there. */
static void put(struct jit_jitdump *dump, const void *data, size_t size)
{
    if (dump->failed || fwrite(data, 1, size, dump->file) == size)
        return;
    log_warn("-jitdump: code is lost: %s", strerror(errno));
    dump->failed = true;
}

static void put_file_header(struct jit_jitdump *dump)
{
    struct file_header header = {
        .magic = DUMP_MAGIC,
        .version = DUMP_VERSION,
        .total_size = sizeof(header),
        .elf_machine = EM_X86_64,
        .pid = (uint32_t)getpid(),
        .timestamp = now_ns(),
    };

    put(dump, &header, sizeof(header));
}

static int open_file(struct jit_jitdump *dump, const char *path, struct error *err)
{
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0644);

    dump->file = fd < 0 ? NULL : fdopen(fd, "w+");
    if (!dump->file) {
        int ret = error_set(err, errno, "%s: %s", path, strerror(errno));

        if (fd >= 0)
            close(fd);
        return ret;
    }
    dump->marker_size = (size_t)sysconf(_SC_PAGESIZE);
    dump->marker = mmap(NULL, dump->marker_size, PROT_READ | PROT_EXEC, MAP_PRIVATE, fd, 0);
    if (dump->marker == MAP_FAILED) {
        int ret = error_set(err, errno, "%s: cannot be mapped executable, as perf needs it: %s", path, strerror(errno));

        fclose(dump->file);
        return ret;
    }
    return 0;
}

struct jit_jitdump *jit_jitdump_open(const char *folder, struct error *err)
{
    struct jit_jitdump *dump = calloc(1, sizeof(*dump));
    char path[PATH_MAX];

    if (!dump) {
        error_set(err, ENOMEM, "out of memory");
        return NULL;
    }
    /* perf goes by this name: see jit_detect in tools/perf/util/jitdump.c. */
    if (snprintf(path, sizeof(path), "%s/jit-%d.dump", folder ? folder : ".", (int)getpid()) >= (int)sizeof(path)) {
        error_set(err, ENAMETOOLONG, "the name of the folder is too long");
        free(dump);
        return NULL;
    }
    if (open_file(dump, path, err)) {
        free(dump);
        return NULL;
    }
    pthread_mutex_init(&dump->lock, NULL);
    put_file_header(dump);
    dump->flushed = now_ns();
    return dump;
}

void jit_jitdump_close(struct jit_jitdump *dump)
{
    struct record_header end = { .id = RECORD_CODE_CLOSE, .total_size = sizeof(end), .timestamp = now_ns() };

    if (!dump)
        return;
    put(dump, &end, sizeof(end));
    if (fclose(dump->file) && !dump->failed)
        log_warn("-jitdump: code is lost: %s", strerror(errno));
    munmap(dump->marker, dump->marker_size);
    pthread_mutex_destroy(&dump->lock);
    free(dump);
}

void jit_jitdump_add(struct jit_jitdump *dump, const void *host_code, size_t size, const char *name)
{
    size_t name_size = strlen(name) + 1;
    struct code_load load = {
        .header = { .id = RECORD_CODE_LOAD, .total_size = (uint32_t)(sizeof(load) + name_size + size) },
        .pid = (uint32_t)getpid(),
        .tid = (uint32_t)syscall(SYS_gettid),
        .vma = (uintptr_t)host_code,
        .code_address = (uintptr_t)host_code,
        .code_size = size,
    };

    if (!size)
        return; /* perf takes it for damage */
    pthread_mutex_lock(&dump->lock);
    load.header.timestamp = now_ns(); /* under the lock, so that times rise */
    load.code_index = dump->index++;
    put(dump, &load, sizeof(load));
    put(dump, name, name_size);
    put(dump, host_code, size);
    if (load.header.timestamp - dump->flushed >= FLUSH_NS) {
        fflush(dump->file); /* an error shows at the next put or at the end */
        dump->flushed = load.header.timestamp;
    }
    pthread_mutex_unlock(&dump->lock);
}
