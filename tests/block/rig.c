/* See rig.h. One rig a process: Criterion runs each test in its own. */
#include "rig.h"

#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

struct event_loop *rig_loop;
struct block_registry *rig_registry;
struct error rig_err;
char rig_folder[256];

static struct clock guest_clock;
static pthread_t thread;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t cond = PTHREAD_COND_INITIALIZER;

static void *run_loop(void *opaque)
{
    (void)opaque;
    event_loop_run(rig_loop);
    return NULL;
}

static void create_registry(void *opaque)
{
    (void)opaque;
    rig_registry = block_registry_create(rig_loop, &rig_err);
}

static void destroy_registry(void *opaque)
{
    (void)opaque;
    block_registry_destroy(rig_registry);
    rig_registry = NULL;
}

void rig_start(void)
{
    const char *base = getenv("EIDOLON_TEST_FOLDER");

    snprintf(rig_folder, sizeof(rig_folder), "%s/block-test-XXXXXX", base ? base : ".");
    cr_assert_not_null(mkdtemp(rig_folder));
    if (rig_folder[0] != '/') {
        char *full = realpath(rig_folder, NULL);

        snprintf(rig_folder, sizeof(rig_folder), "%s", full);
        free(full);
    }
    setenv("TMPDIR", rig_folder, 1);
    guest_clock = (struct clock){ .tsc_khz = 1000000, .ns_base = clock_host_ns() };
    rig_loop = event_loop_create(&guest_clock, &rig_err);
    cr_assert_not_null(rig_loop, "%s", rig_err.text);
    pthread_create(&thread, NULL, run_loop, NULL);
    rig_on_loop(create_registry, NULL);
    cr_assert_not_null(rig_registry, "%s", rig_err.text);
}

void rig_restart_registry(void)
{
    rig_on_loop(destroy_registry, NULL);
    rig_on_loop(create_registry, NULL);
    cr_assert_not_null(rig_registry, "%s", rig_err.text);
}

void rig_stop(void)
{
    if (!rig_loop)
        return;
    if (rig_registry)
        rig_on_loop(destroy_registry, NULL);
    event_loop_stop(rig_loop);
    pthread_join(thread, NULL);
    event_loop_destroy(rig_loop);
    rig_loop = NULL;
    rig_shell(NULL, "rm -rf '%s'", rig_folder);
}

/* ---- Files ---- */

const char *rig_path(const char *name)
{
    static char paths[32][512];
    static unsigned next;
    char *path = paths[next++ % ARRAY_SIZE(paths)];

    snprintf(path, sizeof(paths[0]), "%s/%s", rig_folder, name);
    return path;
}

void rig_pattern(uint8_t *data, uint64_t offset, uint64_t size)
{
    for (uint64_t i = 0; i < size; i++) {
        uint64_t at = offset + i;

        data[i] = (uint8_t)(at / SECTOR_SIZE * 7 + (at & 15) + 1);
    }
}

const char *rig_file(const char *name, uint64_t size)
{
    const char *path = rig_path(name);
    uint8_t *data = malloc(size + 1);
    int fd = open(path, O_CREAT | O_TRUNC | O_WRONLY, 0600);

    cr_assert_geq(fd, 0);
    rig_pattern(data, 0, size);
    cr_assert_eq(write(fd, data, size), (ssize_t)size);
    close(fd);
    free(data);
    return path;
}

/* ---- Drives ---- */

struct addition {
    int (*add)(struct block_registry *registry, const char *option, struct error *err);
    const char *option;
    int ret;
};

static void add(void *opaque)
{
    struct addition *addition = opaque;

    addition->ret = addition->add(rig_registry, addition->option, &rig_err);
}

static int add_on_loop(int (*fn)(struct block_registry *registry, const char *option, struct error *err),
                       const char *format, va_list args)
{
    char option[2048];
    struct addition addition = { .add = fn, .option = option };

    vsnprintf(option, sizeof(option), format, args);
    rig_on_loop(add, &addition);
    return addition.ret;
}

static struct block *newest(void)
{
    return container_of(rig_registry->blocks_end, struct block, next);
}

struct block *rig_drive(const char *format, ...)
{
    va_list args;
    int ret;

    va_start(args, format);
    ret = add_on_loop(block_add_drive, format, args);
    va_end(args);
    cr_assert_eq(ret, 0, "%s: %s", format, rig_err.text);
    return newest();
}

struct block *rig_blockdev(const char *format, ...)
{
    va_list args;
    int ret;

    va_start(args, format);
    ret = add_on_loop(block_add_blockdev, format, args);
    va_end(args);
    cr_assert_eq(ret, 0, "%s: %s", format, rig_err.text);
    return newest();
}

const char *rig_drive_error(const char *format, ...)
{
    va_list args;
    int ret;

    va_start(args, format);
    ret = add_on_loop(block_add_drive, format, args);
    va_end(args);
    cr_expect_lt(ret, 0, "%s was accepted", format);
    return ret < 0 ? rig_err.text : "";
}

const char *rig_blockdev_error(const char *format, ...)
{
    va_list args;
    int ret;

    va_start(args, format);
    ret = add_on_loop(block_add_blockdev, format, args);
    va_end(args);
    cr_expect_lt(ret, 0, "%s was accepted", format);
    return ret < 0 ? rig_err.text : "";
}

/* ---- Requests ---- */

static void request_done(struct block_request *block_request)
{
    struct rig_request *request = block_request->opaque;

    /* The promise of block.h: this thread, with its lock held (else somebody else could take it). */
    cr_assert(pthread_equal(pthread_self(), thread));
    pthread_mutex_lock(&lock);
    request->done = true;
    pthread_cond_broadcast(&cond);
    pthread_mutex_unlock(&lock);
}

void rig_submit(struct block *block, struct rig_request *request)
{
    request->done = false;
    request->request.done = request_done;
    request->request.opaque = request;
    block_submit(block, &request->request);
}

bool rig_is_done(struct rig_request *request)
{
    bool done;

    pthread_mutex_lock(&lock);
    done = request->done;
    pthread_mutex_unlock(&lock);
    return done;
}

int rig_wait(struct rig_request *request)
{
    pthread_mutex_lock(&lock);
    while (!request->done)
        pthread_cond_wait(&cond, &lock);
    pthread_mutex_unlock(&lock);
    return request->request.result;
}

static bool any_done(const struct rig_request *requests, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        if (requests[i].done)
            return true;
    }
    return false;
}

void rig_wait_any(struct rig_request *requests, unsigned count)
{
    pthread_mutex_lock(&lock);
    while (!any_done(requests, count))
        pthread_cond_wait(&cond, &lock);
    pthread_mutex_unlock(&lock);
}

int rig_do(struct block *block, enum block_op op, uint64_t offset, void *data, uint64_t size, unsigned flags)
{
    struct rig_request request = {
        .iov[0] = { .iov_base = data, .iov_len = size },
        .request = { .op = op, .flags = flags, .offset = offset, .size = size, .iov_count = 1 },
    };

    request.request.iov = request.iov;
    rig_submit(block, &request);
    return rig_wait(&request);
}

struct call {
    void (*fn)(void *opaque);
    void *opaque;
    bool done;
};

static void run_call(void *opaque)
{
    struct call *call = opaque;

    call->fn(call->opaque);
    pthread_mutex_lock(&lock);
    call->done = true;
    pthread_cond_broadcast(&cond);
    pthread_mutex_unlock(&lock);
}

void rig_on_loop(void (*fn)(void *opaque), void *opaque)
{
    struct call call = { fn, opaque, false };

    event_loop_post(rig_loop, run_call, &call);
    pthread_mutex_lock(&lock);
    while (!call.done)
        pthread_cond_wait(&cond, &lock);
    pthread_mutex_unlock(&lock);
}

/* ---- Others ---- */

int rig_shell(char *output, const char *format, ...)
{
    char command[2048];
    va_list args;
    size_t length = 0;
    FILE *pipe;
    int status;

    va_start(args, format);
    vsnprintf(command, sizeof(command) - 8, format, args);
    va_end(args);
    strcat(command, " 2>&1");
    pipe = popen(command, "r");
    cr_assert_not_null(pipe);
    if (output)
        length = fread(output, 1, 4095, pipe);
    if (output)
        output[length] = '\0';
    status = pclose(pipe);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

bool rig_have(const char *program)
{
    return !rig_shell(NULL, "command -v %s >/dev/null", program);
}

uint64_t rig_random(uint64_t *state)
{
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    return *state * 0x2545f4914f6cdd1dull;
}
