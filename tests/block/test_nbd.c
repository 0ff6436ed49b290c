/* Network block devices, served by qemu-nbd: data, flushes, zeroes, discards, in parallel; servers that go away. */
#include "rig.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define SIZE (4 * MIB)

static void set_up(void)
{
    rig_start();
    if (!rig_have("qemu-nbd"))
        rig_skip("no qemu-utils here");
}

TestSuite(block_nbd, .init = set_up, .fini = rig_stop, .timeout = 60);

static pid_t server;

static void stop_server(void)
{
    if (server)
        kill(server, SIGKILL);
    server = 0;
}

/* The socket is the file "socket" of the folder. */
static void serve(const char *path, const char *options)
{
    char text[64] = "";
    FILE *file;

    cr_assert_eq(rig_shell(NULL, "qemu-nbd --fork --pid-file='%s' -t -k '%s' -x disk -f raw %s '%s'", rig_path("pid"),
                           rig_path("socket"), options, path),
                 0);
    file = fopen(rig_path("pid"), "r");
    cr_assert(file && fgets(text, sizeof(text), file));
    fclose(file);
    server = atoi(text);
    cr_assert_gt(server, 1);
}

Test(block_nbd, every_spelling)
{
    static const char *const drives[] = {
        "file=nbd+unix:///disk?socket=%s",
        "file=nbd:unix:%s:exportname=disk",
        "file.driver=nbd,file.path=%s,file.export=disk",
        "file.driver=nbd,file.server.type=unix,file.server.path=%s,file.export=disk",
        "driver=nbd,server.type=unix,server.path=%s,export=disk",
    };
    uint8_t data[4096], expected[4096];

    serve(rig_file("disk", SIZE), "");
    rig_pattern(expected, 8192, sizeof(expected));
    for (size_t i = 0; i < ARRAY_SIZE(drives); i++) {
        char option[512];
        struct block *block;

        snprintf(option, sizeof(option), drives[i], rig_path("socket"));
        block = rig_drive("if=none,id=disk%s,%s", i == 4 ? "" : ",format=raw", option);
        cr_expect_eq(block_info(block)->size, SIZE);
        memset(data, 0, sizeof(data));
        cr_expect_eq(rig_do(block, BLOCK_READ, 8192, data, sizeof(data), 0), 0);
        cr_expect_eq(memcmp(data, expected, sizeof(data)), 0, "%s", option);
        rig_restart_registry();
    }
    stop_server();
}

#define REQUESTS 32

Test(block_nbd, parallel_requests)
{
    struct rig_request *requests = calloc(REQUESTS, sizeof(*requests));
    uint8_t *model = malloc(SIZE), *data = malloc(SIZE);
    const char *path = rig_file("disk", SIZE);
    struct block *block;
    FILE *file;

    serve(path, "--discard=unmap");
    block = rig_drive("if=none,id=disk,format=raw,discard=unmap,file=nbd+unix:///disk?socket=%s", rig_path("socket"));
    cr_expect(block_info(block)->can_discard);
    rig_pattern(model, 0, SIZE);
    for (unsigned i = 0; i < REQUESTS; i++) {
        struct block_request *request = &requests[i].request;
        uint64_t offset = i * (SIZE / REQUESTS) + i * SECTOR_SIZE;
        uint8_t *part = data + offset;

        *request = (struct block_request){ .offset = offset, .size = 100 * KIB, .iov = requests[i].iov };
        request->op = i % 4 == 3 ? BLOCK_WRITE_ZEROES : i % 4 == 2 ? BLOCK_READ : BLOCK_WRITE;
        request->flags = i & 1 && request->op != BLOCK_READ ? BLOCK_FUA : 0;
        memset(part, (int)i, 100 * KIB);
        request->iov_count = 3;
        requests[i].iov[0] = (struct iovec){ .iov_base = part, .iov_len = 1001 };
        requests[i].iov[1] = (struct iovec){ .iov_base = part + 1001, .iov_len = 50000 };
        requests[i].iov[2] = (struct iovec){ .iov_base = part + 51001, .iov_len = 100 * KIB - 51001 };
        if (request->op == BLOCK_WRITE)
            memcpy(model + offset, part, 100 * KIB);
        else if (request->op == BLOCK_WRITE_ZEROES)
            memset(model + offset, 0, 100 * KIB);
        rig_submit(block, &requests[i]);
    }
    for (unsigned i = 0; i < REQUESTS; i++) {
        const struct block_request *request = &requests[i].request;

        cr_assert_eq(rig_wait(&requests[i]), 0);
        if (request->op == BLOCK_READ)
            cr_assert_eq(memcmp(data + request->offset, model + request->offset, request->size), 0);
    }
    cr_assert_eq(rig_do(block, BLOCK_FLUSH, 0, NULL, 0, 0), 0);
    cr_assert_eq(rig_do(block, BLOCK_READ, 0, data, SIZE, 0), 0); /* more than one command may carry */
    cr_assert_eq(memcmp(data, model, SIZE), 0);
    cr_assert_eq(rig_do(block, BLOCK_DISCARD, 64 * KIB, NULL, 64 * KIB, 0), 0);
    rig_restart_registry();
    stop_server();
    file = fopen(path, "r");
    cr_assert_eq(fread(data, 1, SIZE, file), SIZE);
    fclose(file);
    memcpy(model + 64 * KIB, data + 64 * KIB, 64 * KIB);
    cr_assert_eq(memcmp(data, model, SIZE), 0);
    free(requests);
    free(model);
    free(data);
}

Test(block_nbd, read_only_export)
{
    serve(rig_file("disk", SIZE), "-r");
    cr_expect_not_null(
        strstr(rig_drive_error("if=none,id=a,format=raw,file=nbd+unix:///disk?socket=%s", rig_path("socket")),
               "readonly=on"));
    struct block *block =
        rig_drive("if=none,id=a,format=raw,readonly=on,file=nbd+unix:///disk?socket=%s", rig_path("socket"));
    cr_expect_eq(rig_do(block, BLOCK_WRITE, 0, rig_folder, 0, 0), -EROFS);
    rig_restart_registry();
    stop_server();
}

Test(block_nbd, a_server_that_dies)
{
    struct rig_request requests[8] = { 0 };
    uint8_t *data = calloc(1, SIZE);
    struct block *block;

    serve(rig_file("disk", SIZE), "");
    block = rig_drive("if=none,id=disk,format=raw,file=nbd+unix:///disk?socket=%s", rig_path("socket"));
    cr_assert_eq(rig_do(block, BLOCK_READ, 0, data, 4096, 0), 0);
    kill(server, SIGSTOP);
    for (unsigned i = 0; i < 8; i++) {
        requests[i].iov[0] = (struct iovec){ .iov_base = data, .iov_len = 64 * KIB };
        requests[i].request = (struct block_request){
            .op = i & 1 ? BLOCK_WRITE : BLOCK_READ, .size = 64 * KIB, .iov = requests[i].iov, .iov_count = 1
        };
        rig_submit(block, &requests[i]);
    }
    usleep(100000);
    cr_expect(!rig_is_done(&requests[0]));
    stop_server();
    for (unsigned i = 0; i < 8; i++)
        cr_expect_eq(rig_wait(&requests[i]), -EIO);
    cr_expect_eq(rig_do(block, BLOCK_WRITE, 0, data, 512, 0), -EIO);
    cr_expect_eq(rig_do(block, BLOCK_FLUSH, 0, NULL, 0, 0), -EIO);
    free(data);
}

Test(block_nbd, mistakes)
{
    cr_expect_not_null(strstr(rig_drive_error("if=none,file=nbd+unix:///x?socket=/nonexistent/s"), "No such file"));
    cr_expect_not_null(strstr(rig_drive_error("if=none,file=nbd:here"), "nbd:HOST:PORT"));
    cr_expect_not_null(strstr(rig_drive_error("if=none,file.driver=nbd"), "host"));
    cr_expect_not_null(strstr(rig_drive_error("if=none,file.driver=nbd,file.path=a,file.host=b"), "host"));
    serve(rig_file("disk", SIZE), "");
    cr_expect_not_null(strstr(rig_drive_error("if=none,file=nbd+unix:///other?socket=%s", rig_path("socket")), "nbd"));
    stop_server();
}

/* A server that says nonsense instead of the protocol. */
static void *babble(void *opaque)
{
    int fd = accept(*(int *)opaque, NULL, NULL);
    char text[4096];

    memset(text, 'x', sizeof(text));
    if (write(fd, text, sizeof(text)) < 0)
        return NULL;
    close(fd);
    return NULL;
}

Test(block_nbd, a_server_that_babbles)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    pthread_t thread;

    snprintf(address.sun_path, sizeof(address.sun_path), "%s", rig_path("socket"));
    cr_assert_eq(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0, "path too long?");
    listen(fd, 1);
    pthread_create(&thread, NULL, babble, &fd);
    rig_drive_error("if=none,file=nbd+unix:///?socket=%s", rig_path("socket"));
    pthread_join(thread, NULL);
    close(fd);
}
