/* Malformed messages: cut short at every byte, with every field out of range, and at random from seeds; many threads at
 * once. What counts is that there is an answer each time, that the sanitizers are content, and that the world outside
 * the folder is as it was. EIDOLON_SEED=N repeats one run. */
#include "p9_client.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static struct client c;

/* What is there already may be anything, a FIFO too. */
static void put_file(const char *path)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_NONBLOCK | O_NOFOLLOW, 0644);

    if (fd >= 0) {
        cr_assert_eq(write(fd, "contents", 8), 8);
        close(fd);
    }
}

static void fill(void)
{
    mkdir(client_path(&c, "a"), 0755);
    mkdir(client_path(&c, "a/b"), 0755);
    put_file(client_path(&c, "file"));
    put_file(client_path(&c, "a/x"));
    if (symlink("../..", client_path(&c, "a/up")))
        return; /* it is there, or "a" is something else by now */
}

static void start(void)
{
    client_start(&c, "security_model=none");
    fill();
}
static void stop(void)
{
    client_stop(&c);
}
TestSuite(hostile, .init = start, .fini = stop, .timeout = 120);

static uint64_t random_next(uint64_t *state)
{
    uint64_t z = (*state += 0x9e3779b97f4a7c15ull);

    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ z >> 27) * 0x94d049bb133111ebull;
    return z ^ z >> 31;
}

/* A message of every type, with small fids and names that exist often. */
static void sensible(struct client *client, uint64_t *seed)
{
    static const char *const names[] = { "file", "a", "b",   "x",          "up",     "..", "new", "other",
                                         ".",    "",  "a/b", "../outside", "user.k", "c",  "d" };
#define FID  (uint32_t)(random_next(seed) % 12)
#define NAME names[random_next(seed) % ARRAY_SIZE(names)]
#define NUM  (uint32_t)(random_next(seed) % 3 ? random_next(seed) % 1024 : random_next(seed))
#define BIG  (random_next(seed) % 3 ? random_next(seed) % 10000 : random_next(seed))
    switch (random_next(seed) % 26) {
    case 0:
        build(client, T_STATFS, "d", FID);
        break;
    case 1:
    case 2:
        build(client, T_LOPEN, "dd", FID, NUM);
        break;
    case 3:
        build(client, T_LCREATE, "dsddd", FID, NAME, NUM, NUM, NUM);
        break;
    case 4:
        build(client, T_SYMLINK, "dssd", FID, NAME, NAME, NUM);
        break;
    case 5:
        build(client, T_MKNOD, "dsdddd", FID, NAME, (uint32_t)(S_IFIFO | 0600), 0u, 0u, NUM);
        break;
    case 6:
        build(client, T_RENAME, "dds", FID, FID, NAME);
        break;
    case 7:
        build(client, T_READLINK, "d", FID);
        break;
    case 8:
        build(client, T_GETATTR, "dq", FID, BIG);
        break;
    case 9:
        build(client, T_SETATTR, "dddddqqqqq", FID, NUM & ~6u, 0755u, NUM, NUM, BIG % 100000, BIG, BIG, BIG, BIG);
        break;
    case 10:
        build(client, T_XATTRWALK, "dds", FID, FID, NAME);
        break;
    case 11:
        build(client, T_XATTRCREATE, "dsqd", FID, NAME, BIG, NUM % 4);
        break;
    case 12:
        build(client, T_READDIR, "dqd", FID, BIG, NUM);
        break;
    case 13:
        build(client, T_FSYNC, "dd", FID, NUM);
        break;
    case 14:
        build(client, T_LOCK, "dbdqqds", FID, (int)NUM, NUM, BIG, BIG, NUM, NAME);
        break;
    case 15:
        build(client, T_GETLOCK, "dbqqds", FID, (int)NUM, BIG, BIG, NUM, NAME);
        break;
    case 16:
        build(client, T_LINK, "dds", FID, FID, NAME);
        break;
    case 17:
        build(client, T_MKDIR, "dsdd", FID, NAME, 0755u, NUM);
        break;
    case 18:
        build(client, T_RENAMEAT, "dsds", FID, NAME, FID, NAME);
        break;
    case 19:
        build(client, T_UNLINKAT, "dsd", FID, NAME, random_next(seed) % 2 ? 0u : 0x200u);
        break;
    case 20:
        build(client, T_ATTACH, "ddssd", FID, NO_FID, NAME, NAME, NUM);
        break;
    case 21:
        build(client, T_WALK, "ddwss", FID, FID, 2, NAME, NAME);
        break;
    case 22:
        build(client, T_WALK, "ddws", FID, FID, 1, NAME);
        break;
    case 23:
        build(client, T_READ, "dqd", FID, BIG, NUM);
        break;
    case 24:
        build(client, T_WRITE, "dqdr", FID, BIG % 100000, 100u, client->reply, 100u);
        break;
    default:
        build(client, random_next(seed) % 8 ? T_CLUNK : T_REMOVE, "d", FID);
        break;
    }
}

/* Changes some bytes, the size, or cuts it. */
static void spoil(struct client *client, uint64_t *seed)
{
    unsigned changes = (unsigned)(random_next(seed) % 4);

    for (unsigned i = 0; i < changes; i++)
        client->message[4 + random_next(seed) % (client->size - 4)] = (uint8_t)random_next(seed);
    if (random_next(seed) % 8 == 0) {
        client->size = (uint32_t)(7 + random_next(seed) % 100);
        if (random_next(seed) % 2)
            memcpy(client->message, &client->size, 4);
    }
}

/* The answer is well-formed, whatever was asked. */
static void execute(struct client *client, uint8_t *reply, uint32_t capacity)
{
    uint32_t size = p9_server_execute(client->server, client->message, client->size, reply, capacity), stated;

    memcpy(&stated, reply, 4);
    cr_assert_eq(size, stated);
    cr_assert(size >= 7 && size <= capacity, "%u", size);
}

Test(hostile, cut_short)
{
    for (uint64_t seed = 1; seed < 300; seed++) {
        uint64_t state = seed;

        sensible(&c, &state);
        uint32_t whole = c.size;
        for (uint32_t size = 7; size < whole; size++) {
            uint8_t *copy = malloc(size); /* so that a sanitizer sees a byte too far */

            memcpy(copy, c.message, size);
            memcpy(copy, &size, 4);
            uint8_t reply[11];
            uint32_t got = p9_server_execute(c.server, copy, size, reply, sizeof(reply));
            cr_assert(got >= 7 && got <= sizeof(reply));
            free(copy);
        }
    }
}

static uint64_t first_seed(uint64_t fallback)
{
    const char *text = getenv("EIDOLON_SEED");

    return text ? strtoull(text, NULL, 0) : fallback;
}

Test(hostile, random_messages)
{
    char outside[200], text[20] = { 0 };
    FILE *file;

    snprintf(outside, sizeof(outside), "%s/outside", c.top);
    file = fopen(outside, "w");
    fputs("untouched", file);
    fclose(file);
    for (uint64_t round = 0; round < 60; round++) {
        uint64_t seed = first_seed(round * 1000);

        cr_assert_eq(call(&c, T_VERSION, "ds", MSIZE, "9P2000.L"), 0);
        cr_assert_eq(call(&c, T_ATTACH, "ddssd", ROOT, NO_FID, "", "", 0u), 0, "seed %lu", (unsigned long)seed);
        fill();
        for (unsigned i = 0; i < 1000; i++) {
            sensible(&c, &seed);
            spoil(&c, &seed);
            if (c.message[4] == T_SETATTR && c.size > 40)
                memset(c.message + 11 + 1, 0, 3), c.message[11] &= (uint8_t)~6; /* keep what we made removable */
            execute(&c, c.reply, random_next(&seed) % 16 ? (uint32_t)sizeof(c.reply) : 11 + random_next(&seed) % 100);
        }
        cr_assert_leq(p9_server_fids(c.server), 100000u);
        chmod(c.share, 0755);
    }
    file = fopen(outside, "r");
    cr_assert_not_null(file);
    cr_assert_eq(fread(text, 1, sizeof(text), file), 9);
    cr_assert_str_eq(text, "untouched");
    fclose(file);
}

Test(hostile, noise)
{
    uint64_t seed = first_seed(99);

    for (unsigned i = 0; i < 20000; i++) {
        c.size = (uint32_t)(7 + random_next(&seed) % 60);
        for (uint32_t j = 0; j < c.size; j++)
            c.message[j] = (uint8_t)random_next(&seed);
        if (random_next(&seed) % 4)
            memcpy(c.message, &c.size, 4);
        if (random_next(&seed) % 2)
            c.message[4] = (uint8_t)(2 * (random_next(&seed) % 64));
        if (c.message[4] == T_SETATTR)
            continue;
        execute(&c, c.reply, sizeof(c.reply));
    }
}

/* The same fids from four threads. */
static void *one_of_many(void *opaque)
{
    struct client *client = calloc(1, sizeof(*client));
    uint64_t seed = (uintptr_t)opaque;

    client->server = c.server;
    for (unsigned i = 0; i < 8000; i++) {
        sensible(client, &seed);
        execute(client, client->reply, sizeof(client->reply));
        if (i % 500 == 499 && !opaque) {
            build(client, T_VERSION, "ds", MSIZE, "9P2000.L");
            execute(client, client->reply, sizeof(client->reply));
        }
        build(client, T_ATTACH, "ddssd", ROOT, NO_FID, "", "", 0u);
        execute(client, client->reply, sizeof(client->reply));
    }
    free(client);
    return NULL;
}

Test(hostile, many_threads)
{
    pthread_t threads[4];

    for (uintptr_t i = 0; i < 4; i++)
        pthread_create(&threads[i], NULL, one_of_many, (void *)i);
    for (unsigned i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    cr_assert_eq(call(&c, T_VERSION, "ds", MSIZE, "9P2000.L"), 0);
    cr_assert_eq(p9_server_fids(c.server), 0);
}
