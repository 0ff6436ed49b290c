/* The files for perf: the lines of the map, the records of the jitdump, read back. That perf itself understands them is
 * tested by perf_test.py. */
#include <criterion/criterion.h>
#include <criterion/redirect.h>
#include <elf.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "elf_maker.h"
#include "jit/jit_jitdump.h"
#include "jit/jit_perf.h"

static char *temp_folder(char *path)
{
    strcpy(path, "/tmp/eidolon-test-XXXXXX");
    cr_assert(mkdtemp(path));
    return path;
}

/* ---- The map ---- */

Test(perf_map, lines)
{
    char path[TEMP_PATH];
    struct error err = { "" };
    struct jit_perf *perf = jit_perf_open(temp_file(path, "what was there before", 21), &err);
    char *text;

    cr_assert(perf, "%s", err.text);
    jit_perf_add(perf, (void *)0x7f0012345678, 0x40, "guest:schedule+0x12");
    jit_perf_add(perf, (void *)0x7f0012345a00, 4096, "guest:user:0x401000");
    jit_perf_close(perf);
    text = file_contents(path, NULL);
    cr_expect_str_eq(text, "7f0012345678 40 guest:schedule+0x12\n7f0012345a00 1000 guest:user:0x401000\n");
    free(text);
    unlink(path);
}

/* What was in the code cache before it was emptied is not in the file any more. */
Test(perf_map, forgets)
{
    char path[TEMP_PATH];
    struct error err;
    struct jit_perf *perf = jit_perf_open(temp_file(path, "", 0), &err);
    char *text;

    jit_perf_add(perf, (void *)0x10, 1, "eidolon:stays");
    jit_perf_keep(perf);
    for (unsigned i = 0; i < 10000; i++)
        jit_perf_add(perf, (void *)0x20, 1, "guest:old");
    jit_perf_forget(perf);
    jit_perf_add(perf, (void *)0x20, 1, "guest:new");
    jit_perf_close(perf);
    text = file_contents(path, NULL);
    cr_expect_str_eq(text, "10 1 eidolon:stays\n20 1 guest:new\n");
    free(text);
    unlink(path);
}

Test(perf_map, standard_name)
{
    char path[TEMP_PATH];
    struct error err;
    struct jit_perf *perf = jit_perf_open(NULL, &err);

    cr_assert(perf);
    snprintf(path, sizeof(path), "/tmp/perf-%d.map", (int)getpid());
    cr_expect_eq(access(path, R_OK), 0);
    jit_perf_close(perf);
    unlink(path);
}

/* What perf sees of a process that was killed: all but the last second. */
Test(perf_map, flushed_now_and_then)
{
    char path[TEMP_PATH];
    struct error err;
    struct jit_perf *perf = jit_perf_open(temp_file(path, "", 0), &err);
    char *text;

    jit_perf_add(perf, (void *)1, 1, "early");
    usleep(1100000);
    jit_perf_add(perf, (void *)2, 1, "late");
    text = file_contents(path, NULL);
    cr_expect_str_eq(text, "1 1 early\n2 1 late\n");
    free(text);
    jit_perf_close(perf);
    unlink(path);
}

Test(perf_map, refused)
{
    char folder[TEMP_PATH], path[TEMP_PATH + 16];
    struct error err;

    cr_expect_null(jit_perf_open("/nonexistent/x", &err));
    cr_expect(strstr(err.text, "/nonexistent/x: No such file"), "%s", err.text);
    snprintf(path, sizeof(path), "%s/link", temp_folder(folder));
    cr_assert_eq(symlink("/tmp/eidolon-test-victim", path), 0);
    cr_expect_null(jit_perf_open(path, &err), "a link was followed");
    cr_expect_neq(access("/tmp/eidolon-test-victim", F_OK), 0);
    unlink(path);
    rmdir(folder);
}

Test(perf_map, full_disk, .init = cr_redirect_stderr)
{
    struct error err;
    struct jit_perf *perf = jit_perf_open("/dev/full", &err);
    char text[1000] = "";

    cr_assert(perf);
    for (unsigned i = 0; i < 10000; i++)
        jit_perf_add(perf, (void *)1, 1, "name");
    jit_perf_close(perf);
    fflush(stderr);
    text[fread(text, 1, sizeof(text) - 1, cr_get_redirected_stderr())] = '\0';
    cr_expect(strstr(text, "-perfmap: names are lost: No space"), "%s", text);
    cr_expect_null(strstr(strchr(text, '\n') + 1, "lost"), "warned more than once: %s", text);
}

/* ---- The jitdump ---- */

struct dump { /* read back */
    uint8_t *bytes;
    size_t size, at;
    uint64_t last_time;
};

static uint64_t take(struct dump *dump, unsigned bytes)
{
    uint64_t value = 0;

    cr_assert(dump->at + bytes <= dump->size, "the file ends at %zu", dump->size);
    memcpy(&value, dump->bytes + dump->at, bytes);
    dump->at += bytes;
    return value;
}

static uint64_t monotonic(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000ull + (uint64_t)ts.tv_nsec;
}

static void expect_time(struct dump *dump)
{
    uint64_t time = take(dump, 8);

    cr_assert(time >= dump->last_time && time <= monotonic(), "%" PRIu64 " after %" PRIu64, time, dump->last_time);
    dump->last_time = time;
}

static void expect_header(struct dump *dump)
{
    cr_assert_eq(take(dump, 4), 0x4a695444);
    cr_assert_eq(take(dump, 4), 1);
    cr_assert_eq(take(dump, 4), 40);
    cr_assert_eq(take(dump, 4), EM_X86_64);
    take(dump, 4);
    cr_assert_eq(take(dump, 4), (uint64_t)getpid());
    expect_time(dump);
    cr_assert_eq(take(dump, 8), 0);
}

/* Returns the name. */
static const char *expect_load(struct dump *dump, uint64_t index, const void *code, size_t size, bool this_thread)
{
    size_t start = dump->at, total;
    const char *name;

    cr_assert_eq(take(dump, 4), 0);
    total = take(dump, 4);
    expect_time(dump);
    cr_assert_eq(take(dump, 4), (uint64_t)getpid());
    cr_assert(take(dump, 4) == (uint64_t)syscall(SYS_gettid) || !this_thread);
    cr_assert_eq(take(dump, 8), (uintptr_t)code);
    cr_assert_eq(take(dump, 8), (uintptr_t)code);
    cr_assert_eq(take(dump, 8), size);
    cr_assert_eq(take(dump, 8), index);
    name = (const char *)dump->bytes + dump->at;
    dump->at += strlen(name) + 1;
    cr_assert(dump->at + size <= dump->size && !memcmp(dump->bytes + dump->at, code, size), "%s", name);
    dump->at += size;
    cr_assert_eq(dump->at, start + total, "%s", name);
    return name;
}

static void expect_close(struct dump *dump)
{
    cr_assert_eq(take(dump, 4), 3);
    cr_assert_eq(take(dump, 4), 16);
    expect_time(dump);
    cr_assert_eq(dump->at, dump->size);
}

static struct dump read_dump(const char *folder)
{
    char path[TEMP_PATH + 32];
    struct dump dump = { 0 };

    snprintf(path, sizeof(path), "%s/jit-%d.dump", folder, (int)getpid());
    dump.bytes = (uint8_t *)file_contents(path, &dump.size);
    unlink(path);
    rmdir(folder);
    return dump;
}

/* Whether some executable mapping of this process is the file: by that perf finds it. */
static bool mapped_executable(const char *folder)
{
    char *maps = file_contents("/proc/self/maps", NULL), *line, *rest = maps;
    bool found = false;

    while ((line = strsep(&rest, "\n")))
        found |= strstr(line, "r-xp") && strstr(line, folder) && strstr(line, "/jit-");
    free(maps);
    return found;
}

Test(jitdump, records)
{
    static const uint8_t code[] = { 0x90, 0x00, 0xc3 }, other[5000] = { 0xc3 };
    char folder[TEMP_PATH];
    struct error err = { "" };
    uint64_t start = monotonic();
    struct jit_jitdump *dump = jit_jitdump_open(temp_folder(folder), &err);
    struct dump back;

    cr_assert(dump, "%s", err.text);
    cr_expect(mapped_executable(folder));
    jit_jitdump_add(dump, code, sizeof(code), "guest:schedule+0x12");
    jit_jitdump_add(dump, code, 0, "nothing");
    jit_jitdump_add(dump, other, sizeof(other), "guest:user:0x401000");
    jit_jitdump_close(dump);
    cr_expect_not(mapped_executable(folder));

    back = read_dump(folder);
    back.last_time = start;
    expect_header(&back);
    cr_expect_str_eq(expect_load(&back, 0, code, sizeof(code), true), "guest:schedule+0x12");
    cr_expect_str_eq(expect_load(&back, 1, other, sizeof(other), true), "guest:user:0x401000");
    expect_close(&back);
    free(back.bytes);
}

#define THREADS 4
#define RECORDS 2000

static void *add_many(void *dump)
{
    static const uint8_t code[] = { 0x90, 0xc3 };

    for (unsigned i = 0; i < RECORDS; i++)
        jit_jitdump_add(dump, code, sizeof(code), "guest:user:0x1");
    return (void *)code;
}

/* Records stay whole, times and indices rise. */
Test(jitdump, threads)
{
    char folder[TEMP_PATH];
    struct error err;
    struct jit_jitdump *dump = jit_jitdump_open(temp_folder(folder), &err);
    pthread_t threads[THREADS];
    void *code = NULL;
    struct dump back;

    for (unsigned i = 0; i < THREADS; i++)
        cr_assert_eq(pthread_create(&threads[i], NULL, add_many, dump), 0);
    for (unsigned i = 0; i < THREADS; i++)
        pthread_join(threads[i], &code);
    jit_jitdump_close(dump);
    back = read_dump(folder);
    expect_header(&back);
    for (unsigned i = 0; i < THREADS * RECORDS; i++)
        expect_load(&back, i, code, 2, false);
    expect_close(&back);
    free(back.bytes);
}

Test(jitdump, refused)
{
    struct error err;

    cr_expect_null(jit_jitdump_open("/nonexistent", &err));
    cr_expect(strstr(err.text, "/nonexistent/jit-"), "%s", err.text);
}
