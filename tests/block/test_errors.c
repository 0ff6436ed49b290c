/* What goes wrong: requests that are out of bounds, full disks, images cut short, and what werror and rerror make of it;
 * and the promises about draining and releasing. */
#include "rig.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#define SIZE (1 * MIB)

TestSuite(block_errors, .init = rig_start, .fini = rig_stop, .timeout = 60);

static uint8_t data[SIZE] __attribute__((aligned(4096)));

Test(block_errors, requests_out_of_bounds)
{
    struct block *block = rig_drive("if=none,id=a,format=raw,file=%s", rig_file("disk", SIZE));
    struct rig_request wrong = { .iov[0] = { .iov_base = data, .iov_len = 100 } };

    cr_expect_eq(rig_do(block, BLOCK_READ, SIZE, data, 512, 0), -EIO);
    cr_expect_eq(rig_do(block, BLOCK_READ, SIZE - 512, data, 1024, 0), -EIO);
    cr_expect_eq(rig_do(block, BLOCK_WRITE, UINT64_MAX - 511, data, 512, 0), -EIO);
    cr_expect_eq(rig_do(block, BLOCK_DISCARD, 512, NULL, UINT64_MAX - 511, 0), -EIO);
    cr_expect_eq(rig_do(block, BLOCK_READ, 1, data, 512, 0), -EINVAL);
    cr_expect_eq(rig_do(block, BLOCK_WRITE, 0, data, 513, 0), -EINVAL);
    cr_expect_eq(rig_do(block, (enum block_op)17, 0, data, 512, 0), -EINVAL);
    cr_expect_eq(rig_do(block, BLOCK_READ, SIZE, data, 0, 0), 0);
    cr_expect_eq(rig_do(block, BLOCK_READ, 0, data, SIZE, 0), 0);
    wrong.request = (struct block_request){ .op = BLOCK_READ, .size = 512, .iov = wrong.iov, .iov_count = 1 };
    rig_submit(block, &wrong); /* a list that is not as long as it should be */
    cr_expect_eq(rig_wait(&wrong), -EINVAL);
}

Test(block_errors, read_only_and_empty_drives)
{
    struct block *block = rig_drive("if=none,id=a,format=raw,readonly=on,file=%s", rig_file("disk", SIZE));

    cr_expect(block_info(block)->read_only);
    cr_expect_eq(rig_do(block, BLOCK_WRITE, 0, data, 512, 0), -EROFS);
    cr_expect_eq(rig_do(block, BLOCK_WRITE_ZEROES, 0, NULL, 512, 0), -EROFS);
    cr_expect_eq(rig_do(block, BLOCK_DISCARD, 0, NULL, 512, 0), -EROFS);
    cr_expect_eq(rig_do(block, BLOCK_FLUSH, 0, NULL, 0, 0), 0);
    block = rig_drive("if=none,id=b,media=cdrom");
    cr_expect_eq(block_info(block)->size, 0);
    cr_expect(block_info(block)->removable);
    cr_expect_eq(rig_do(block, BLOCK_READ, 0, data, 512, 0), -ENOMEDIUM);
    cr_expect_eq(block_execute(block, BLOCK_READ, 0, data, 512, 0), -ENOMEDIUM);
}

/* The disk stays as large as it was found; what the file has lost reads as zeroes, as after a crash of the host. */
Test(block_errors, a_file_cut_short)
{
    static const char *const options[] = { "aio=io_uring", "aio=threads", "aio=threads,cache=none" };
    uint8_t expected[4096];

    for (size_t i = 0; i < ARRAY_SIZE(options); i++) {
        const char *path = rig_file("disk", SIZE);

        if (strstr(options[i], "io_uring") && !aio_ring_possible())
            continue;
        struct block *block = rig_drive("if=none,id=a,format=raw,%s,file=%s", options[i], path);
        cr_assert_eq(truncate(path, SIZE / 2 - 1000), 0);
        memset(data, 0xff, 4096);
        cr_expect_eq(rig_do(block, BLOCK_READ, SIZE / 2 - 2048, data, 4096, 0), 0);
        rig_pattern(expected, SIZE / 2 - 2048, sizeof(expected));
        memset(expected + 1048, 0, sizeof(expected) - 1048);
        cr_expect_eq(memcmp(data, expected, sizeof(expected)), 0, "%s", options[i]);
        cr_expect_eq(rig_do(block, BLOCK_WRITE, SIZE - 512, expected, 512, 0), 0);
        cr_expect_eq(rig_do(block, BLOCK_READ, SIZE - 512, data, 512, 0), 0);
        cr_expect_eq(memcmp(data, expected, 512), 0);
        rig_restart_registry();
    }
}

Test(block_errors, a_file_that_ends_in_a_sector)
{
    struct block *block = rig_drive("if=none,id=a,format=raw,file=%s", rig_file("disk", 1000));
    uint8_t expected[1024] = { 0 };

    rig_pattern(expected, 0, 1000);
    cr_expect_eq(block_info(block)->size, 1024);
    cr_expect_eq(rig_do(block, BLOCK_READ, 0, data, 1024, 0), 0);
    cr_expect_eq(memcmp(data, expected, 1024), 0);
}

/* ---- A full disk: the largest file that may be made is half as large as the image ---- */

static void fill_disk(void)
{
    struct rlimit limit = { .rlim_cur = SIZE / 2, .rlim_max = RLIM_INFINITY };

    signal(SIGXFSZ, SIG_IGN);
    cr_assert_eq(setrlimit(RLIMIT_FSIZE, &limit), 0);
}

static void make_room(void)
{
    struct rlimit limit = { .rlim_cur = RLIM_INFINITY, .rlim_max = RLIM_INFINITY };

    cr_assert_eq(setrlimit(RLIMIT_FSIZE, &limit), 0);
}

/* A sparse image: its second half cannot be written. */
static struct block *full_disk(const char *options)
{
    const char *path = rig_file("disk", 0);

    cr_assert_eq(truncate(path, SIZE), 0);
    struct block *block = rig_drive("if=none,id=a,format=raw,%s,file=%s", options, path);

    fill_disk();
    return block;
}

Test(block_errors, enospc_without_a_machine_is_reported)
{
    static const char *const options[] = { "aio=io_uring", "aio=threads", "aio=threads,cache=none" };

    for (size_t i = 0; i < ARRAY_SIZE(options); i++) {
        if (strstr(options[i], "io_uring") && !aio_ring_possible())
            continue;
        struct block *block = full_disk(options[i]);

        memset(data, 7, SIZE);
        cr_expect_eq(rig_do(block, BLOCK_WRITE, 0, data, SIZE / 2, 0), 0);
        cr_expect_eq(rig_do(block, BLOCK_WRITE, SIZE / 2, data, 4096, 0), -ENOSPC, "%s", options[i]);
        cr_expect_eq(rig_do(block, BLOCK_WRITE, SIZE / 2 - 4096, data, 8192, 0), -ENOSPC, "%s", options[i]);
        memset(data, 0, SIZE);
        cr_expect_eq(rig_do(block, BLOCK_READ, 0, data, SIZE, 0), 0);
        for (unsigned j = 0; j < SIZE; j++)
            cr_assert_eq(data[j], j < SIZE / 2 ? 7 : 0);
        make_room();
        rig_restart_registry();
    }
}

Test(block_errors, a_full_disk_under_an_overlay)
{
    struct block *block = rig_drive("if=none,id=a,format=raw,snapshot=on,file=%s", rig_file("disk", SIZE));
    uint8_t *expected = malloc(SIZE);

    fill_disk();
    rig_pattern(expected, 0, SIZE);
    memset(data, 9, 4096);
    cr_expect_eq(rig_do(block, BLOCK_WRITE, SIZE / 2 + 1024, data, 4096, 0), -ENOSPC);
    cr_expect_eq(rig_do(block, BLOCK_WRITE, 1024, data, 4096, 0), 0);
    memset(expected + 1024, 9, 4096);
    cr_expect_eq(rig_do(block, BLOCK_READ, 0, data, SIZE, 0), 0);
    cr_expect_eq(memcmp(data, expected, SIZE), 0); /* what failed has changed nothing */
    make_room();
    free(expected);
}

/* ---- werror ---- */

static unsigned stops;
static char stop_reason[512];
static pthread_mutex_t stop_lock = PTHREAD_MUTEX_INITIALIZER;

static void stopped(void *opaque, const char *reason)
{
    (void)opaque;
    pthread_mutex_lock(&stop_lock);
    stops++;
    snprintf(stop_reason, sizeof(stop_reason), "%s", reason);
    pthread_mutex_unlock(&stop_lock);
}

static unsigned stop_count(void)
{
    unsigned count;

    pthread_mutex_lock(&stop_lock);
    count = stops;
    pthread_mutex_unlock(&stop_lock);
    return count;
}

static void resume(void *opaque)
{
    (void)opaque;
    block_registry_resume(rig_registry);
}

static void drain(void *opaque)
{
    block_drain(opaque);
}

static void write_at(struct rig_request *request, struct block *block, uint64_t offset)
{
    request->iov[0] = (struct iovec){ .iov_base = data, .iov_len = 4096 };
    request->request = (struct block_request){
        .op = BLOCK_WRITE, .offset = offset, .size = 4096, .iov = request->iov, .iov_count = 1
    };
    rig_submit(block, request);
}

static void wait_for_stops(unsigned count)
{
    for (unsigned i = 0; i < 1000 && stop_count() < count; i++)
        usleep(5000);
    cr_assert_eq(stop_count(), count);
}

Test(block_errors, a_full_disk_stops_the_machine)
{
    struct rig_request request, second;
    struct block *block;

    block_registry_set_stop_handler(rig_registry, stopped, NULL);
    block = full_disk("aio=threads"); /* werror=enospc is the default */
    cr_expect_eq(block_info(block)->on_write_error, BLOCK_ERROR_ENOSPC);
    memset(data, 3, 4096);
    write_at(&request, block, SIZE / 2);
    wait_for_stops(1);
    cr_expect(!rig_is_done(&request));
    cr_expect_not_null(strstr(stop_reason, "'a'"), "%s", stop_reason);
    cr_expect_not_null(strstr(stop_reason, "No space left on device"), "%s", stop_reason);
    cr_expect_eq(rig_do(block, BLOCK_READ, SIZE / 2, data + 8192, 4096, 0), 0); /* reads go on */
    rig_on_loop(resume, NULL);                                                  /* in vain */
    wait_for_stops(2);
    cr_expect(!rig_is_done(&request));
    make_room();
    rig_on_loop(resume, NULL);
    cr_expect_eq(rig_wait(&request), 0);
    cr_expect_eq(rig_do(block, BLOCK_READ, SIZE / 2, data + 8192, 4096, 0), 0);
    cr_expect_eq(memcmp(data, data + 8192, 4096), 0);

    fill_disk(); /* a reset while stopped: the request fails */
    write_at(&second, block, SIZE - 4096);
    wait_for_stops(3);
    rig_on_loop(drain, block);
    cr_expect(rig_is_done(&second));
    cr_expect_eq(rig_wait(&second), -ENOSPC);
    make_room();
}

Test(block_errors, policies)
{
    struct rig_request request;
    struct block *block;

    block_registry_set_stop_handler(rig_registry, stopped, NULL);
    block = full_disk("werror=report");
    write_at(&request, block, SIZE / 2);
    cr_expect_eq(rig_wait(&request), -ENOSPC);
    make_room();
    rig_restart_registry();
    block_registry_set_stop_handler(rig_registry, stopped, NULL);
    block = full_disk("werror=ignore");
    write_at(&request, block, SIZE / 2);
    cr_expect_eq(rig_wait(&request), 0);
    cr_expect_eq(rig_do(block, BLOCK_READ, SIZE, data, 512, 0), -EIO); /* that is for writes only */
    make_room();
    rig_restart_registry();
    block_registry_set_stop_handler(rig_registry, stopped, NULL);
    block = full_disk("werror=stop,rerror=ignore");
    write_at(&request, block, SIZE / 2);
    wait_for_stops(1);
    cr_expect_eq(rig_do(block, BLOCK_READ, SIZE, data, 512, 0), 0);
    make_room();
    rig_on_loop(resume, NULL);
    cr_expect_eq(rig_wait(&request), 0);
}

/* ---- Hosts without io_uring, as containers are ---- */

static void refuse_io_uring(void)
{
    static struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_io_uring_setup, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = { .len = ARRAY_SIZE(filter), .filter = filter };

    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program))
        cr_skip_test("no seccomp here");
    rig_start();
}

TestSuite(block_without_io_uring, .init = refuse_io_uring, .fini = rig_stop, .timeout = 60);

Test(block_without_io_uring, threads_do_it)
{
    const char *path = rig_file("disk", SIZE);
    struct block *block;
    uint8_t *expected = malloc(SIZE);

    cr_assert(!aio_ring_possible());
    cr_expect_not_null(strstr(rig_drive_error("if=none,id=a,format=raw,aio=io_uring,file=%s", path), "aio=threads"));
    block = rig_drive("if=none,id=a,format=raw,file=%s", path);
    cr_expect_null(block->context->ring);
    rig_pattern(expected, 0, SIZE);
    memset(expected + 8192, 1, 4096);
    cr_expect_eq(rig_do(block, BLOCK_WRITE, 8192, expected + 8192, 4096, 0), 0);
    cr_expect_eq(rig_do(block, BLOCK_READ, 0, data, SIZE, 0), 0);
    cr_expect_eq(memcmp(data, expected, SIZE), 0);
    rig_restart_registry();
    rig_drive("if=none,id=a,format=raw,cache=none,aio=native,file=%s", path);
    free(expected);
}

/* ---- Drains, claims ---- */

#define MANY 200

Test(block_errors, drain_waits_for_all)
{
    static const char *const options[] = { "aio=io_uring", "aio=threads" };
    struct rig_request *requests = calloc(MANY, sizeof(*requests));

    for (size_t i = 0; i < ARRAY_SIZE(options); i++) {
        if (strstr(options[i], "io_uring") && !aio_ring_possible())
            continue;
        struct block *block = rig_drive("if=none,id=a,format=raw,%s,file=%s", options[i], rig_file("disk", SIZE));

        for (unsigned j = 0; j < MANY; j++)
            write_at(&requests[j], block, j * 4096 % SIZE);
        rig_on_loop(drain, block);
        for (unsigned j = 0; j < MANY; j++)
            cr_assert(rig_is_done(&requests[j]));
        block_plug(block); /* what waits in a batch is sent by the drain */
        block_plug(block);
        for (unsigned j = 0; j < 10; j++)
            write_at(&requests[j], block, j * 4096);
        block_unplug(block);
        rig_on_loop(drain, block);
        for (unsigned j = 0; j < 10; j++)
            cr_assert(rig_is_done(&requests[j]));
        block_unplug(block);
        rig_restart_registry();
    }
    free(requests);
}

Test(block_errors, more_requests_than_a_ring_has_places)
{
    struct rig_request *requests = calloc(2000, sizeof(*requests));
    struct block *block = rig_drive("if=none,id=a,format=raw,cache=none,file=%s", rig_file("disk", SIZE));

    block_plug(block);
    for (unsigned i = 0; i < 2000; i++)
        write_at(&requests[i], block, i * 4096 % SIZE);
    block_unplug(block);
    for (unsigned i = 0; i < 2000; i++)
        cr_assert_eq(rig_wait(&requests[i]), 0);
    free(requests);
}

static struct event_loop *other_loop;
static pthread_t other_thread;
static bool done_on_other;

static void *run_other(void *opaque)
{
    (void)opaque;
    event_loop_run(other_loop);
    return NULL;
}

static void other_done(struct block_request *request)
{
    done_on_other = pthread_equal(pthread_self(), other_thread);
    event_loop_stop(other_loop);
    (void)request;
}

struct claim {
    struct block *block;
    const char *device;
    struct event_loop *loop;
    int ret;
};

static void claim(void *opaque)
{
    struct claim *what = opaque;

    what->ret = block_claim(what->block, what->device, what->loop, &rig_err);
}

static void release(void *opaque)
{
    block_release(opaque);
}

Test(block_errors, claimed_for_another_loop)
{
    static struct clock guest_clock = { .tsc_khz = 1000000 };
    struct block *block = rig_drive("if=none,id=a,format=raw,file=%s", rig_file("disk", SIZE));
    struct iovec iov = { .iov_base = data, .iov_len = 4096 };
    struct block_request request = { .op = BLOCK_READ, .size = 4096, .iov = &iov, .iov_count = 1, .done = other_done };
    struct claim what = { .block = block, .device = "disk0" };

    what.loop = other_loop = event_loop_create(&guest_clock, &rig_err);
    rig_on_loop(claim, &what);
    cr_assert_eq(what.ret, 0);
    what.device = "disk1";
    rig_on_loop(claim, &what);
    cr_expect_eq(what.ret, -EBUSY);
    cr_expect_not_null(strstr(rig_err.text, "disk0"));
    block_submit(block, &request);
    pthread_create(&other_thread, NULL, run_other, NULL);
    pthread_join(other_thread, NULL);
    cr_expect(done_on_other);
    rig_on_loop(release, block);
    event_loop_destroy(other_loop);
    what.loop = rig_loop;
    rig_on_loop(claim, &what);
    cr_expect_eq(what.ret, 0);
    cr_expect_eq(rig_do(block, BLOCK_READ, 0, data, 4096, 0), 0);
}

Test(block_errors, writethrough_follows_the_guest)
{
    struct block *block = rig_drive("if=none,id=a,format=raw,cache=writethrough,file=%s", rig_file("disk", SIZE));

    cr_expect(!block_info(block)->write_cache);
    block_set_write_cache(block, true);
    cr_expect(block_info(block)->write_cache);
    cr_expect_eq(rig_do(block, BLOCK_WRITE, 0, data, 4096, 0), 0);
    block_set_write_cache(block, false);
    cr_expect_eq(rig_do(block, BLOCK_WRITE, 0, data, 4096, 0), 0);
}
