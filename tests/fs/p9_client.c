/* See p9_client.h. */
#include "p9_client.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <ftw.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void client_start(struct client *client, const char *options)
{
    struct error err = { "" };
    char option[300];

    memset(client, 0, sizeof(*client));
    umask(022);
    strcpy(client->top, "/var/tmp/eidolon-fs-XXXXXX");
    cr_assert_not_null(mkdtemp(client->top));
    snprintf(client->share, sizeof(client->share), "%s/share", client->top);
    mkdir(client->share, 0755);
    client->registry = fsdev_registry_create(&err);
    snprintf(option, sizeof(option), "local,id=f,path=%s,%s", client->share, options);
    cr_assert_eq(fsdev_add(client->registry, option, &err), 0, "%s", err.text);
    client->server = p9_server_create(fsdev_find(client->registry, "f"), &err);
    cr_assert_eq(call(client, T_VERSION, "ds", MSIZE, "9P2000.L"), 0);
    cr_assert_eq(call(client, T_ATTACH, "ddssd", ROOT, NO_FID, "", "", (uint32_t)getuid()), 0);
}

static int remove_entry(const char *path, const struct stat *st, int kind, struct FTW *ftw)
{
    (void)st, (void)kind, (void)ftw;
    return remove(path);
}

void client_stop(struct client *client)
{
    p9_server_destroy(client->server);
    fsdev_registry_destroy(client->registry);
    nftw(client->top, remove_entry, 8, FTW_DEPTH | FTW_PHYS);
}

const char *client_path(struct client *client, const char *name)
{
    static char paths[4][400];
    static unsigned next;
    char *path = paths[next++ % 4];

    snprintf(path, 400, "%s/%s", client->share, name);
    return path;
}

void client_put_file(struct client *client, const char *name, const char *text)
{
    FILE *file = fopen(client_path(client, name), "w");

    cr_assert_not_null(file, "%s", name);
    fputs(text, file);
    fclose(file);
}

/* ---- Messages ---- */

static void put(struct client *client, uint64_t value, unsigned bytes)
{
    memcpy(client->message + client->size, &value, bytes);
    client->size += bytes;
}

static void put_bytes(struct client *client, const void *data, uint32_t size)
{
    memcpy(client->message + client->size, data, size);
    client->size += size;
}

static void build_list(struct client *client, uint8_t type, const char *format, va_list args)
{
    client->size = 4;
    put(client, type, 1);
    put(client, 77, 2);
    for (; *format; format++) {
        if (*format == 'b' || *format == 'w')
            put(client, (uint64_t)va_arg(args, int), *format == 'b' ? 1 : 2);
        else if (*format == 'd')
            put(client, va_arg(args, uint32_t), 4);
        else if (*format == 'q')
            put(client, va_arg(args, uint64_t), 8);
        else if (*format == 's') {
            const char *text = va_arg(args, const char *);
            put(client, strlen(text), 2);
            put_bytes(client, text, (uint32_t)strlen(text));
        } else {
            const void *data = va_arg(args, const void *);
            put_bytes(client, data, va_arg(args, uint32_t));
        }
    }
    memcpy(client->message, &client->size, 4);
}

void build(struct client *client, uint8_t type, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    build_list(client, type, format, args);
    va_end(args);
}

int call_raw(struct client *client)
{
    uint32_t size;
    uint8_t type = client->message[4];

    client->reply_size =
        p9_server_execute(client->server, client->message, client->size, client->reply, sizeof(client->reply));
    memcpy(&size, client->reply, 4);
    cr_assert_eq(size, client->reply_size);
    cr_assert_geq(size, 7);
    cr_assert_arr_eq(client->reply + 5, client->message + 5, 2, "the tag comes back");
    client->at = 7;
    if (client->reply[4] == 7) {
        cr_assert_eq(size, 11);
        return -(int)take(client, 4);
    }
    cr_assert_eq(client->reply[4], (uint8_t)(type + 1));
    return 0;
}

int call(struct client *client, uint8_t type, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    build_list(client, type, format, args);
    va_end(args);
    return call_raw(client);
}

uint64_t take(struct client *client, unsigned bytes)
{
    uint64_t value = 0;

    cr_assert_leq(client->at + bytes, client->reply_size, "the reply is too short");
    memcpy(&value, client->reply + client->at, bytes);
    client->at += bytes;
    return value;
}

const char *take_string(struct client *client)
{
    static char text[70000];
    uint32_t size = (uint32_t)take(client, 2);

    cr_assert_leq(client->at + size, client->reply_size);
    memcpy(text, client->reply + client->at, size);
    text[size] = '\0';
    client->at += size;
    return text;
}

struct qid take_qid(struct client *client)
{
    struct qid qid;

    qid.type = (uint8_t)take(client, 1);
    qid.version = (uint32_t)take(client, 4);
    qid.path = take(client, 8);
    return qid;
}

/* ---- Walks ---- */

int walk_from(struct client *client, uint32_t from, uint32_t fid, const char *path)
{
    uint16_t steps = 0;
    int result;

    build(client, T_WALK, "ddw", from, fid, 0);
    while (*path) {
        uint32_t length = (uint32_t)strcspn(path, "/");

        put(client, length, 2);
        put_bytes(client, path, length);
        path += length + (path[length] == '/');
        steps++;
    }
    memcpy(client->message + 15, &steps, 2);
    memcpy(client->message, &client->size, 4);
    result = call_raw(client);
    if (!result && take(client, 2) < steps)
        return -ENOENT; /* part of the way */
    return result;
}

int walk(struct client *client, uint32_t fid, const char *path)
{
    return walk_from(client, ROOT, fid, path);
}

int clunk(struct client *client, uint32_t fid)
{
    return call(client, T_CLUNK, "d", fid);
}

struct stat attributes(struct client *client, uint32_t fid)
{
    struct stat st = { 0 };

    if (call(client, T_GETATTR, "dq", fid, (uint64_t)0x3fff))
        return st;
    take(client, 8);
    st.st_ino = take_qid(client).path;
    st.st_mode = (mode_t)take(client, 4);
    st.st_uid = (uid_t)take(client, 4);
    st.st_gid = (gid_t)take(client, 4);
    st.st_nlink = take(client, 8);
    st.st_rdev = take(client, 8);
    st.st_size = (off_t)take(client, 8);
    st.st_blksize = (blksize_t)take(client, 8);
    st.st_blocks = (blkcnt_t)take(client, 8);
    st.st_atim.tv_sec = (time_t)take(client, 8);
    st.st_atim.tv_nsec = (long)take(client, 8);
    st.st_mtim.tv_sec = (time_t)take(client, 8);
    st.st_mtim.tv_nsec = (long)take(client, 8);
    return st;
}

const char *read_file(struct client *client, const char *path)
{
    static char text[MSIZE];
    const uint32_t fid = 900000;
    uint32_t size;

    if (walk(client, fid, path))
        return NULL;
    if (call(client, T_LOPEN, "dd", fid, 0u) || call(client, T_READ, "dqd", fid, (uint64_t)0, MSIZE - 24)) {
        clunk(client, fid);
        return NULL;
    }
    size = (uint32_t)take(client, 4);
    memcpy(text, client->reply + client->at, size);
    text[size] = '\0';
    cr_assert_eq(clunk(client, fid), 0);
    return text;
}
