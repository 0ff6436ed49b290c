/* Nothing outside the exported folder can be read, changed or named: by symbolic links, "..", slashes, or by changing the tree
 * meanwhile. And limits on what a client may take up. */
#include "p9_client.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

static struct client c;

static void start(void)
{
    char path[200];
    FILE *file;

    client_start(&c, "security_model=none");
    snprintf(path, sizeof(path), "%s/outside", c.top);
    mkdir(path, 0755);
    snprintf(path, sizeof(path), "%s/outside/secret", c.top);
    file = fopen(path, "w");
    fputs("SECRET", file);
    fclose(file);
    mkdir(client_path(&c, "folder"), 0755);
    client_put_file(&c, "folder/secret", "public");
    client_put_file(&c, "file", "public");
}
static void stop(void)
{
    client_stop(&c);
}
TestSuite(escape, .init = start, .fini = stop, .timeout = 60);

Test(escape, symbolic_links)
{
    char target[200];

    snprintf(target, sizeof(target), "%s/outside", c.top);
    cr_assert_eq(symlink(target, client_path(&c, "absolute")), 0);
    cr_assert_eq(symlink("../outside", client_path(&c, "relative")), 0);
    cr_assert_eq(symlink("../outside/secret", client_path(&c, "to-file")), 0);
    cr_assert_null(read_file(&c, "absolute/secret"));
    cr_assert_null(read_file(&c, "relative/secret"));
    cr_assert_null(read_file(&c, "to-file"));
    cr_assert_eq(walk(&c, 1, "to-file"), 0);
    cr_assert(S_ISLNK(attributes(&c, 1).st_mode), "it is the link itself");
    cr_assert_eq(call(&c, T_LOPEN, "dd", 1u, (uint32_t)O_RDWR), -ELOOP);
    cr_assert_neq(call(&c, T_SETATTR, "dddddqqqqq", 1u, 8u, 0u, 0u, 0u, (uint64_t)0, (uint64_t)0, (uint64_t)0,
                       (uint64_t)0, (uint64_t)0),
                  0, "no truncation through it");
    call(&c, T_SETATTR, "dddddqqqqq", 1u, 1u, 0777u, 0u, 0u, (uint64_t)0, (uint64_t)0, (uint64_t)0, (uint64_t)0,
         (uint64_t)0);
    cr_assert_eq(walk(&c, 2, "relative"), 0);
    cr_assert_eq(call(&c, T_LOPEN, "dd", 2u, (uint32_t)O_DIRECTORY), -ELOOP);
    cr_assert_eq(call(&c, T_MKDIR, "dsdd", 2u, "x", 0755u, 0u), -ENOTDIR);
    cr_assert_eq(call(&c, T_UNLINKAT, "dsd", 2u, "secret", 0u), -ENOTDIR);
    cr_assert_eq(call(&c, T_RENAMEAT, "dsds", 2u, "secret", ROOT, "stolen"), -ENOTDIR);
    cr_assert_eq(walk(&c, 3, ""), 0);
    cr_assert_neq(call(&c, T_LCREATE, "dsddd", 3u, "to-file", (uint32_t)(O_RDWR | O_TRUNC), 0600u, 0u), 0);
    cr_assert_eq(call(&c, T_LINK, "dds", ROOT, 1u, "copy"), 0, "a link to the link");
    cr_assert_eq(walk(&c, 4, "copy"), 0);
    cr_assert(S_ISLNK(attributes(&c, 4).st_mode));
    snprintf(target, sizeof(target), "%s/outside/secret", c.top);
    struct stat st;
    stat(target, &st);
    cr_assert(st.st_size == 6 && st.st_mode == (S_IFREG | 0644) && st.st_nlink == 1);
}

Test(escape, names)
{
    static const char *const names[] = { "..", ".", "", "../outside", "/", "/etc/passwd", "a/b", "folder/secret" };
    static char long_name[300];

    memset(long_name, 'n', 299);
    for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
        const char *name = names[i];

        cr_assert_neq(call(&c, T_MKDIR, "dsdd", ROOT, name, 0755u, 0u), 0, "%s", name);
        cr_assert_neq(call(&c, T_SYMLINK, "dssd", ROOT, name, "x", 0u), 0, "%s", name);
        cr_assert_neq(call(&c, T_MKNOD, "dsdddd", ROOT, name, (uint32_t)S_IFREG, 0u, 0u, 0u), 0, "%s", name);
        cr_assert_neq(call(&c, T_UNLINKAT, "dsd", ROOT, name, 0u), 0, "%s", name);
        cr_assert_neq(call(&c, T_UNLINKAT, "dsd", ROOT, name, 0x200u), 0, "%s", name);
        cr_assert_neq(call(&c, T_RENAMEAT, "dsds", ROOT, name, ROOT, "x"), 0, "%s", name);
        cr_assert_neq(call(&c, T_RENAMEAT, "dsds", ROOT, "file", ROOT, name), 0, "%s", name);
        cr_assert_eq(walk(&c, 1, "file"), 0);
        cr_assert_neq(call(&c, T_LINK, "dds", ROOT, 1u, name), 0, "%s", name);
        cr_assert_neq(call(&c, T_RENAME, "dds", 1u, ROOT, name), 0, "%s", name);
        cr_assert_eq(clunk(&c, 1), 0);
        cr_assert_eq(walk(&c, 1, ""), 0);
        cr_assert_neq(call(&c, T_LCREATE, "dsddd", 1u, name, (uint32_t)O_RDWR, 0600u, 0u), 0, "%s", name);
        cr_assert_eq(clunk(&c, 1), 0);
        if (strcmp(name, ".."))
            cr_assert_neq(call(&c, T_WALK, "ddws", ROOT, 1u, 1, name), 0, "%s", name);
    }
    cr_assert_eq(call(&c, T_WALK, "ddws", ROOT, 1u, 1, long_name), -ENAMETOOLONG);
    cr_assert_eq(call(&c, T_WALK, "ddwwr", ROOT, 1u, 1, 9, "file\0/etc", 9u), -EINVAL, "a NUL in it");
}

Test(escape, above_the_root)
{
    uint64_t offset = 0;
    ino_t root = attributes(&c, ROOT).st_ino;

    cr_assert_eq(walk(&c, 1, "../../../.."), 0);
    cr_assert_eq(attributes(&c, 1).st_ino, root);
    cr_assert_eq(walk(&c, 2, "folder/../../.."), 0);
    cr_assert_eq(attributes(&c, 2).st_ino, root);
    cr_assert_neq(walk(&c, 3, "../outside"), 0);
    cr_assert_eq(call(&c, T_LOPEN, "dd", 1u, 0u), 0);
    cr_assert_eq(call(&c, T_READDIR, "dqd", 1u, offset, 60000u), 0);
    for (uint32_t end = c.at + (uint32_t)take(&c, 4) + 4; c.at < end;) {
        struct qid qid = take_qid(&c);
        take(&c, 8), take(&c, 1);
        if (take_string(&c)[0] == '.')
            cr_assert_eq(qid.path, root, "says nothing about what is above");
    }
}

/* Somebody on the host moves a folder out while a guest is in it: it keeps what it has, and gets no further. */
Test(escape, folder_moved_out)
{
    char to[200];

    mkdir(client_path(&c, "folder/sub"), 0755);
    cr_assert_eq(walk(&c, 1, "folder/sub"), 0);
    snprintf(to, sizeof(to), "%s/outside/sub", c.top);
    cr_assert_eq(rename(client_path(&c, "folder/sub"), to), 0);
    cr_assert_eq(walk_from(&c, 1, 2, "../secret"), 0);
    cr_assert_eq(attributes(&c, 2).st_size, 6);
    cr_assert_eq(call(&c, T_LOPEN, "dd", 2u, 0u), 0);
    cr_assert_eq(call(&c, T_READ, "dqd", 2u, (uint64_t)0, 10u), 0);
    take(&c, 4);
    cr_assert_arr_eq(c.reply + c.at, "public", 6, "the folder that it was reached through");
}

static atomic_bool done;

/* A folder turns into a link to the outside and back, all the time. */
static void *swap(void *opaque)
{
    char folder[200], away[200];

    (void)opaque;
    snprintf(folder, sizeof(folder), "%s/folder", c.share);
    snprintf(away, sizeof(away), "%s/away", c.share);
    while (!atomic_load(&done)) {
        rename(folder, away);
        symlink("../outside", folder);
        unlink(folder);
        rename(away, folder);
    }
    return NULL;
}

Test(escape, races)
{
    pthread_t thread;
    unsigned successes = 0;

    pthread_create(&thread, NULL, swap, NULL);
    for (unsigned i = 0; i < 20000; i++) {
        const char *text = read_file(&c, "folder/secret");

        cr_assert(!text || !strcmp(text, "public"), "read %s", text);
        successes += text != NULL;
        if (i % 3 == 0) {
            call(&c, T_WALK, "ddws", ROOT, 1u, 1, "folder");
            call(&c, T_LCREATE, "dsddd", 1u, "secret", (uint32_t)(O_RDWR), 0600u, 0u);
            if (!call(&c, T_READ, "dqd", 1u, (uint64_t)0, 10u) && take(&c, 4) == 6)
                cr_assert_arr_eq(c.reply + c.at, "public", 6);
            clunk(&c, 1);
        }
    }
    atomic_store(&done, true);
    pthread_join(thread, NULL);
    cr_assert_gt(successes, 0u);
}

Test(escape, read_only)
{
    struct client r;

    client_start(&r, "security_model=none,readonly=on");
    client_put_file(&r, "file", "public");
    cr_assert_str_eq(read_file(&r, "file"), "public");
    cr_assert_eq(walk(&r, 1, "file"), 0);
    cr_assert_eq(call(&r, T_LOPEN, "dd", 1u, (uint32_t)O_RDWR), -EROFS);
    cr_assert_eq(call(&r, T_LOPEN, "dd", 1u, (uint32_t)O_WRONLY), -EROFS);
    cr_assert_eq(call(&r, T_LOPEN, "dd", 1u, (uint32_t)O_TRUNC), -EROFS);
    cr_assert_eq(call(&r, T_MKDIR, "dsdd", ROOT, "x", 0755u, 0u), -EROFS);
    cr_assert_eq(call(&r, T_UNLINKAT, "dsd", ROOT, "file", 0u), -EROFS);
    cr_assert_eq(call(&r, T_RENAMEAT, "dsds", ROOT, "file", ROOT, "y"), -EROFS);
    cr_assert_eq(call(&r, T_LINK, "dds", ROOT, 1u, "x"), -EROFS);
    cr_assert_eq(call(&r, T_SETATTR, "dddddqqqqq", 1u, 1u, 0777u, 0u, 0u, (uint64_t)0, (uint64_t)0, (uint64_t)0,
                      (uint64_t)0, (uint64_t)0),
                 -EROFS);
    cr_assert_eq(call(&r, T_XATTRCREATE, "dsqd", 1u, "user.x", (uint64_t)1, 0u), -EROFS);
    cr_assert_eq(call(&r, T_REMOVE, "d", 1u), -EROFS);
    cr_assert_eq(clunk(&r, 1), -EBADF, "but it clunks");
    cr_assert_str_eq(read_file(&r, "file"), "public");
    client_stop(&r);
}

Test(escape, limits)
{
    struct rlimit limit = { 2000, 2000 };
    struct client r;
    uint32_t fid = 1;
    int result;

    setrlimit(RLIMIT_NOFILE, &limit);
    client_start(&r, "security_model=none");
    client_put_file(&r, "file", "public");
    while (!(result = walk(&r, fid, "file")))
        fid++;
    cr_assert_eq(result, -ENFILE);
    cr_assert_lt(fid, 2000u);
    int fd = open("/dev/null", O_RDONLY);
    cr_assert_geq(fd, 0, "descriptors are left for others");
    close(fd);
    while (--fid)
        cr_assert_eq(clunk(&r, fid), 0);
    cr_assert_eq(p9_server_fids(r.server), 1);
    for (fid = 1; fid < 1000; fid++) {
        cr_assert_eq(walk(&r, fid, "file"), 0);
        if ((result = call(&r, T_XATTRCREATE, "dsqd", fid, "user.x", (uint64_t)65536, 0u)))
            break;
    }
    cr_assert_eq(result, -ENOSPC, "16 MiB of values");
    cr_assert_eq(fid, 257u);
    client_stop(&r);
}
