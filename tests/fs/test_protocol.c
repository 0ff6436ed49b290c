/* Every message of 9P2000.L, once as it is meant and in its common failures. */
#include "p9_client.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

static struct client c;

static void start(void)
{
    client_start(&c, "security_model=none");
    mkdir(client_path(&c, "folder"), 0755);
    client_put_file(&c, "file", "contents");
    client_put_file(&c, "folder/inner", "inside");
}
static void stop(void)
{
    client_stop(&c);
}
TestSuite(protocol, .init = start, .fini = stop, .timeout = 60);

Test(protocol, version)
{
    cr_assert_eq(walk(&c, 1, "file"), 0);
    cr_assert_eq(call(&c, T_VERSION, "ds", 8192u, "9P2000.L"), 0);
    cr_assert_eq(take(&c, 4), 8192);
    cr_assert_str_eq(take_string(&c), "9P2000.L");
    cr_assert_eq(p9_server_fids(c.server), 0, "a new session");
    cr_assert_eq(call(&c, T_CLUNK, "d", 1u), -EBADF);
    cr_assert_eq(call(&c, T_VERSION, "ds", 0xffffffffu, "9P2000.L"), 0);
    cr_assert_eq(take(&c, 4), P9_MSIZE_MAX);
    cr_assert_eq(call(&c, T_VERSION, "ds", 100u, "9P2000.L"), -EMSGSIZE);
    cr_assert_eq(call(&c, T_VERSION, "ds", 8192u, "9P2000.u"), 0);
    take(&c, 4);
    cr_assert_str_eq(take_string(&c), "unknown");
    p9_server_reset(c.server);
    cr_assert_eq(call(&c, T_ATTACH, "ddssd", 5u, NO_FID, "", "", 0u), -EINVAL, "no session");
}

Test(protocol, attach_and_auth)
{
    cr_assert_eq(call(&c, T_AUTH, "dssd", 1u, "", "", 0u), -EOPNOTSUPP);
    cr_assert_eq(call(&c, T_ATTACH, "ddssd", ROOT, NO_FID, "", "", 0u), -EEXIST);
    cr_assert_eq(call(&c, T_ATTACH, "ddssd", 5u, 3u, "", "", 0u), -EINVAL);
    cr_assert_eq(call(&c, T_ATTACH, "ddssd", 5u, NO_FID, "me", "/anything", 0u), 0);
    cr_assert_eq(take_qid(&c).type, 0x80);
    cr_assert_eq(call(&c, 200, ""), -EOPNOTSUPP);
    cr_assert_eq(call(&c, T_FLUSH, "w", 5), 0);
}

Test(protocol, walk)
{
    struct qid qid;

    cr_assert_eq(walk(&c, 1, "folder/inner"), 0);
    cr_assert_eq(take_qid(&c).type, 0x80);
    qid = take_qid(&c);
    cr_assert_eq(qid.type, 0);
    cr_assert_eq(attributes(&c, 1).st_ino, qid.path);
    cr_assert_eq(walk(&c, 1, "file"), -EEXIST, "that fid is taken");
    cr_assert_eq(walk(&c, 2, "folder/nothing"), -ENOENT);
    cr_assert_eq(clunk(&c, 2), -EBADF, "no fid after part of the way");
    cr_assert_eq(walk(&c, 2, "nothing/folder"), -ENOENT);
    cr_assert_eq(c.reply[4], 7, "an error if it is the first step");
    cr_assert_eq(walk(&c, 2, "file/x"), -ENOENT);
    cr_assert_eq(walk(&c, 2, ""), 0, "a copy of the fid");
    cr_assert_eq(walk_from(&c, 2, 2, "folder"), 0, "the fid itself goes on");
    cr_assert_eq(walk_from(&c, 2, 3, "inner"), 0);
    cr_assert_eq(walk_from(&c, 3, 4, ".."), -ENOTDIR);
    cr_assert_eq(walk_from(&c, 2, 4, "../.."), 0);
    cr_assert_eq(attributes(&c, 4).st_ino, attributes(&c, ROOT).st_ino);
    cr_assert_eq(walk(&c, 5, "a/b/c/d/e/f/g/h/i/j/k/l/m/n/o/p/q"), -EINVAL, "17 steps");
    cr_assert_eq(walk_from(&c, 99, 5, ""), -EBADF);
    cr_assert_eq(walk(&c, NO_FID, "file"), -EINVAL);
}

Test(protocol, read_and_write)
{
    char data[40];

    cr_assert_eq(walk(&c, 1, "file"), 0);
    cr_assert_eq(call(&c, T_READ, "dqd", 1u, (uint64_t)0, 10u), -EBADF, "not open");
    cr_assert_eq(call(&c, T_LOPEN, "dd", 1u, (uint32_t)O_RDWR), 0);
    take_qid(&c);
    cr_assert_eq(take(&c, 4), MSIZE - 24);
    cr_assert_eq(call(&c, T_LOPEN, "dd", 1u, 0u), -EBUSY);
    cr_assert_eq(call(&c, T_READ, "dqd", 1u, (uint64_t)3, 100u), 0);
    cr_assert_eq(take(&c, 4), 5);
    cr_assert_arr_eq(c.reply + c.at, "tents", 5);
    cr_assert_eq(call(&c, T_READ, "dqd", 1u, (uint64_t)100, 100u), 0);
    cr_assert_eq(take(&c, 4), 0);
    cr_assert_eq(call(&c, T_READ, "dqd", 1u, UINT64_MAX, 100u), -EINVAL);
    cr_assert_eq(call(&c, T_READ, "dqd", 1u, (uint64_t)0, 0xffffffffu), 0, "cut to what fits");
    cr_assert_eq(take(&c, 4), 8);
    cr_assert_eq(call(&c, T_WRITE, "dqdr", 1u, (uint64_t)6, 4u, "XYZW", 4u), 0);
    cr_assert_eq(take(&c, 4), 4);
    cr_assert_eq(call(&c, T_WRITE, "dqdr", 1u, (uint64_t)6, 5u, "XYZW", 4u), -EINVAL, "more than there is");
    cr_assert_eq(call(&c, T_FSYNC, "dd", 1u, 0u), 0);
    cr_assert_eq(call(&c, T_FSYNC, "dd", 1u, 1u), 0);
    cr_assert_eq(call(&c, T_FSYNC, "dd", ROOT, 0u), -EBADF);
    cr_assert_eq(clunk(&c, 1), 0);
    FILE *file = fopen(client_path(&c, "file"), "r");
    cr_assert_eq(fread(data, 1, 40, file), 10);
    cr_assert_arr_eq(data, "contenXYZW", 10);
    fclose(file);
}

Test(protocol, create)
{
    struct stat st;

    cr_assert_eq(walk(&c, 1, "folder"), 0);
    cr_assert_eq(call(&c, T_LCREATE, "dsddd", 1u, "new", (uint32_t)(O_RDWR | O_CREAT), 0666u, (uint32_t)getgid()), 0);
    cr_assert_eq(call(&c, T_WRITE, "dqdr", 1u, (uint64_t)0, 4u, "data", 4u), 0);
    cr_assert_eq(attributes(&c, 1).st_size, 4, "the fid is the file now");
    cr_assert_eq(clunk(&c, 1), 0);
    cr_assert_eq(stat(client_path(&c, "folder/new"), &st), 0);
    cr_assert_eq(st.st_mode, S_IFREG | 0666, "whatever our umask is");
    cr_assert_eq(walk(&c, 1, "folder"), 0);
    cr_assert_eq(call(&c, T_LCREATE, "dsddd", 1u, "new", (uint32_t)(O_RDWR | O_EXCL), 0600u, 0u), -EEXIST);
    cr_assert_eq(call(&c, T_LCREATE, "dsddd", 1u, "new", (uint32_t)O_RDONLY, 0600u, 0u), 0, "opened");
    cr_assert_eq(call(&c, T_LCREATE, "dsddd", 1u, "x", (uint32_t)O_RDONLY, 0600u, 0u), -EBUSY);
    cr_assert_str_eq(read_file(&c, "folder/new"), "data");
    cr_assert_eq(walk(&c, 2, ""), 0);
    cr_assert_eq(call(&c, T_LCREATE, "dsddd", 2u, "folder", (uint32_t)O_RDONLY, 0600u, 0u), -EISDIR);
}

Test(protocol, read_folder)
{
    unsigned seen[300] = { 0 }, dots = 0, others = 0;
    uint64_t offset = 0;
    char name[40];

    for (unsigned i = 0; i < 300; i++) {
        snprintf(name, sizeof(name), "folder/entry-%03u", i);
        client_put_file(&c, name, "");
    }
    cr_assert_eq(walk(&c, 1, "folder"), 0);
    cr_assert_eq(call(&c, T_READDIR, "dqd", 1u, (uint64_t)0, 1000u), -EBADF);
    cr_assert_eq(call(&c, T_LOPEN, "dd", 1u, (uint32_t)O_DIRECTORY), 0);
    cr_assert_eq(call(&c, T_READDIR, "dqd", 1u, (uint64_t)0, 10u), -EINVAL, "not even one fits");
    cr_assert_eq(call(&c, T_READ, "dqd", 1u, (uint64_t)0, 10u), -EISDIR);
    for (;;) {
        uint32_t size;

        cr_assert_eq(call(&c, T_READDIR, "dqd", 1u, offset, 777u), 0);
        size = (uint32_t)take(&c, 4);
        cr_assert_leq(size, 777);
        if (!size)
            break;
        for (uint32_t end = c.at + size; c.at < end;) {
            unsigned number;

            take_qid(&c);
            offset = take(&c, 8);
            take(&c, 1);
            const char *entry = take_string(&c);
            if (sscanf(entry, "entry-%u", &number) == 1)
                seen[number]++;
            else if (entry[0] == '.')
                dots++;
            else
                others++;
        }
    }
    for (unsigned i = 0; i < 300; i++)
        cr_assert_eq(seen[i], 1, "entry %u: %u times", i, seen[i]);
    cr_assert(dots == 2 && others == 1);
}

Test(protocol, attributes)
{
    struct stat st, host;

    cr_assert_eq(walk(&c, 1, "file"), 0);
    st = attributes(&c, 1);
    stat(client_path(&c, "file"), &host);
    cr_assert(st.st_mode == host.st_mode && st.st_uid == host.st_uid && st.st_size == 8 && st.st_nlink == 1);
    cr_assert_eq(st.st_mtim.tv_nsec, host.st_mtim.tv_nsec);
    cr_assert_eq(st.st_ino, host.st_ino);
#define SET "ddddd" /* fid, valid, mode, uid, gid */ "q" /* size */ "qqqq" /* times */
    cr_assert_eq(call(&c, T_SETATTR, SET, 1u, 1u | 8u | 0x20u | 0x100u, 0640u, 0u, 0u, (uint64_t)3, (uint64_t)0,
                      (uint64_t)0, (uint64_t)1234567, (uint64_t)89),
                 0);
    stat(client_path(&c, "file"), &host);
    cr_assert(host.st_mode == (S_IFREG | 0640) && host.st_size == 3);
    cr_assert(host.st_mtim.tv_sec == 1234567 && host.st_mtim.tv_nsec == 89);
    cr_assert_eq(call(&c, T_SETATTR, SET, 1u, 0x10u | 0x20u, 0u, 0u, 0u, (uint64_t)0, (uint64_t)0, (uint64_t)0,
                      (uint64_t)0, (uint64_t)0),
                 0);
    cr_assert_gt(attributes(&c, 1).st_mtim.tv_sec, 1234567, "now");
    cr_assert_eq(call(&c, T_SETATTR, SET, 1u, 8u, 0u, 0u, 0u, UINT64_MAX, (uint64_t)0, (uint64_t)0, (uint64_t)0,
                      (uint64_t)0),
                 -EFBIG);
    cr_assert_eq(walk(&c, 2, "folder"), 0);
    cr_assert_eq(call(&c, T_SETATTR, SET, 2u, 8u, 0u, 0u, 0u, (uint64_t)0, (uint64_t)0, (uint64_t)0, (uint64_t)0,
                      (uint64_t)0),
                 -EISDIR);
    cr_assert_eq(call(&c, T_SETATTR, SET, 2u, 2u | 4u, 0u, (uint32_t)getuid(), (uint32_t)getgid(), (uint64_t)0,
                      (uint64_t)0, (uint64_t)0, (uint64_t)0, (uint64_t)0),
                 0);
    cr_assert_eq(call(&c, T_STATFS, "d", 2u), 0);
    cr_assert_eq(take(&c, 4), 0x01021997);
    cr_assert_gt(take(&c, 4), 0);
    cr_assert_gt(take(&c, 8), 0);
}

Test(protocol, entries_come_and_go)
{
    struct stat st;

    cr_assert_eq(call(&c, T_MKDIR, "dsdd", ROOT, "made", 0755u, (uint32_t)getgid()), 0);
    cr_assert_eq(take_qid(&c).type, 0x80);
    cr_assert_eq(call(&c, T_MKDIR, "dsdd", ROOT, "made", 0755u, 0u), -EEXIST);
    cr_assert_eq(call(&c, T_SYMLINK, "dssd", ROOT, "link", "some/where", (uint32_t)getgid()), 0);
    cr_assert_eq(take_qid(&c).type, 0x02);
    cr_assert_eq(walk(&c, 1, "link"), 0);
    cr_assert_eq(call(&c, T_READLINK, "d", 1u), 0);
    cr_assert_str_eq(take_string(&c), "some/where");
    cr_assert_eq(call(&c, T_READLINK, "d", ROOT), -EINVAL);
    cr_assert(S_ISLNK(attributes(&c, 1).st_mode));
    cr_assert_eq(call(&c, T_MKNOD, "dsdddd", ROOT, "fifo", (uint32_t)(S_IFIFO | 0600), 0u, 0u, (uint32_t)getgid()), 0);
    cr_assert_eq(call(&c, T_MKNOD, "dsdddd", ROOT, "odd", (uint32_t)(S_IFDIR | 0600), 0u, 0u, 0u), -EINVAL);
    cr_assert(!stat(client_path(&c, "fifo"), &st) && S_ISFIFO(st.st_mode));
    cr_assert_eq(walk(&c, 2, "fifo"), 0);
    cr_assert_eq(call(&c, T_LOPEN, "dd", 2u, 0u), -ENXIO, "never blocks");
    cr_assert_eq(walk(&c, 3, "file"), 0);
    cr_assert_eq(call(&c, T_LINK, "dds", ROOT, 3u, "hard"), 0);
    cr_assert_eq(attributes(&c, 3).st_nlink, 2);
    cr_assert_eq(call(&c, T_UNLINKAT, "dsd", ROOT, "hard", 0u), 0);
    cr_assert_eq(call(&c, T_UNLINKAT, "dsd", ROOT, "hard", 0u), -ENOENT);
    cr_assert_eq(call(&c, T_UNLINKAT, "dsd", ROOT, "made", 0u), -EISDIR);
    cr_assert_eq(call(&c, T_UNLINKAT, "dsd", ROOT, "folder", 0x200u), -ENOTEMPTY);
    cr_assert_eq(call(&c, T_UNLINKAT, "dsd", ROOT, "made", 0x200u), 0);
    cr_assert_eq(call(&c, T_UNLINKAT, "dsd", ROOT, "file", 0x400u), -EINVAL);
    cr_assert_eq(call(&c, T_REMOVE, "d", 3u), 0);
    cr_assert_neq(stat(client_path(&c, "file"), &st), 0);
    cr_assert_eq(clunk(&c, 3), -EBADF, "remove clunks");
    cr_assert_eq(walk(&c, 4, "folder"), 0);
    cr_assert_eq(call(&c, T_REMOVE, "d", 4u), -ENOTEMPTY);
    cr_assert_eq(clunk(&c, 4), -EBADF, "also when it fails");
    cr_assert_eq(walk(&c, 5, ""), 0);
    cr_assert_eq(call(&c, T_REMOVE, "d", 5u), -EBUSY, "the root");
}

Test(protocol, rename)
{
    cr_assert_eq(walk(&c, 1, "folder/inner"), 0);
    cr_assert_eq(walk(&c, 2, "folder"), 0);
    cr_assert_eq(call(&c, T_RENAMEAT, "dsds", 2u, "inner", ROOT, "outer"), 0);
    cr_assert_str_eq(read_file(&c, "outer"), "inside");
    cr_assert_eq(call(&c, T_RENAME, "dds", 1u, 2u, "back"), 0);
    cr_assert_str_eq(read_file(&c, "folder/back"), "inside");
    cr_assert_eq(call(&c, T_RENAME, "dds", 1u, 2u, "a/b"), -EINVAL);
    mkdir(client_path(&c, "folder/deep"), 0755);
    cr_assert_eq(walk(&c, 5, "folder/deep"), 0);
    cr_assert_eq(call(&c, T_RENAMEAT, "dsds", 2u, "deep", ROOT, "high"), 0);
    cr_assert_eq(walk_from(&c, 5, 6, ".."), 0);
    cr_assert_eq(attributes(&c, 6).st_ino, attributes(&c, ROOT).st_ino, "the fid has gone along");
    cr_assert_eq(call(&c, T_RENAMEAT, "dsds", ROOT, "folder", 2u, "sub"), -EINVAL, "into itself");
    unlink(client_path(&c, "folder/back"));
    cr_assert_eq(call(&c, T_RENAME, "dds", 1u, ROOT, "gone"), -ENOENT);
    cr_assert_eq(call(&c, T_RENAME, "dds", ROOT, 2u, "x"), -EBUSY);
    cr_assert_eq(call(&c, T_REMOVE, "d", 1u), -ENOENT);
}

Test(protocol, unlinked_but_open)
{
    cr_assert_eq(walk(&c, 1, "file"), 0);
    cr_assert_eq(call(&c, T_LOPEN, "dd", 1u, (uint32_t)O_RDWR), 0);
    cr_assert_eq(call(&c, T_UNLINKAT, "dsd", ROOT, "file", 0u), 0);
    cr_assert_eq(call(&c, T_READ, "dqd", 1u, (uint64_t)0, 100u), 0);
    cr_assert_eq(take(&c, 4), 8);
    cr_assert_eq(attributes(&c, 1).st_nlink, 0);
    cr_assert_eq(call(&c, T_SETATTR, SET, 1u, 8u, 0u, 0u, 0u, (uint64_t)3, (uint64_t)0, (uint64_t)0, (uint64_t)0,
                      (uint64_t)0),
                 0);
    cr_assert_eq(attributes(&c, 1).st_size, 3);
}

Test(protocol, extended_attributes)
{
    char value[20];

    if (setxattr(client_path(&c, "file"), "user.probe", "v", 1, 0))
        cr_skip_test("the file system has none");
    cr_assert_eq(walk(&c, 1, "file"), 0);
    cr_assert_eq(call(&c, T_XATTRCREATE, "dsqd", 1u, "user.key", (uint64_t)5, 0u), 0);
    cr_assert_eq(call(&c, T_WRITE, "dqdr", 1u, (uint64_t)0, 3u, "val", 3u), 0);
    cr_assert_eq(call(&c, T_WRITE, "dqdr", 1u, (uint64_t)3, 3u, "ue!", 3u), -ENOSPC);
    cr_assert_eq(call(&c, T_WRITE, "dqdr", 1u, (uint64_t)3, 2u, "ue", 2u), 0);
    cr_assert_eq(clunk(&c, 1), 0);
    cr_assert_eq(getxattr(client_path(&c, "file"), "user.key", value, 20), 5);
    cr_assert_arr_eq(value, "value", 5);
    cr_assert_eq(walk(&c, 1, "file"), 0);
    cr_assert_eq(call(&c, T_XATTRWALK, "dds", 1u, 2u, "user.key"), 0);
    cr_assert_eq(take(&c, 8), 5);
    cr_assert_eq(call(&c, T_READ, "dqd", 2u, (uint64_t)1, 100u), 0);
    cr_assert_eq(take(&c, 4), 4);
    cr_assert_arr_eq(c.reply + c.at, "alue", 4);
    cr_assert_eq(call(&c, T_XATTRWALK, "dds", 1u, 3u, ""), 0);
    cr_assert_eq(take(&c, 8), 20, "two names");
    cr_assert_eq(call(&c, T_XATTRWALK, "dds", 1u, 4u, "user.none"), -ENODATA);
    cr_assert_eq(call(&c, T_XATTRCREATE, "dsqd", 1u, "user.key", (uint64_t)1 << 40, 0u), -E2BIG);
    cr_assert_eq(call(&c, T_XATTRCREATE, "dsqd", 1u, "user.key", (uint64_t)9, 0u), 0);
    cr_assert_eq(clunk(&c, 1), -EINVAL, "not all of it came");
    cr_assert_eq(walk(&c, 1, "file"), 0);
    cr_assert_eq(call(&c, T_XATTRCREATE, "dsqd", 1u, "user.key", (uint64_t)0, 0u), 0);
    cr_assert_eq(clunk(&c, 1), 0);
    cr_assert_lt(getxattr(client_path(&c, "file"), "user.key", value, 20), 0, "removed");
}

Test(protocol, locks)
{
    cr_assert_eq(walk(&c, 1, "file"), 0);
    cr_assert_eq(call(&c, T_LOCK, "dbdqqds", 1u, 1, 0u, (uint64_t)0, (uint64_t)0, 1u, "guest"), 0);
    cr_assert_eq(take(&c, 1), 0);
    cr_assert_eq(call(&c, T_LOCK, "dbdqqds", 1u, 9, 0u, (uint64_t)0, (uint64_t)0, 1u, "guest"), -EINVAL);
    cr_assert_eq(call(&c, T_GETLOCK, "dbqqds", 1u, 0, (uint64_t)5, (uint64_t)6, 7u, "guest"), 0);
    cr_assert_eq(take(&c, 1), 2);
    cr_assert_eq(take(&c, 8), 5);
    cr_assert_eq(take(&c, 8), 6);
    cr_assert_eq(take(&c, 4), 7);
    cr_assert_str_eq(take_string(&c), "guest");
}

Test(protocol, large_messages)
{
    static uint8_t data[MSIZE];
    uint32_t part = MSIZE - 24;

    for (uint32_t i = 0; i < sizeof(data); i++)
        data[i] = (uint8_t)(i * 7);
    cr_assert_eq(walk(&c, 1, ""), 0);
    cr_assert_eq(call(&c, T_LCREATE, "dsddd", 1u, "big", (uint32_t)O_RDWR, 0600u, (uint32_t)getgid()), 0);
    cr_assert_eq(call(&c, T_WRITE, "dqdr", 1u, (uint64_t)0, part, data, part), 0);
    cr_assert_eq(call(&c, T_WRITE, "dqdr", 1u, (uint64_t)0, part + 2, data, part + 2), -EMSGSIZE);
    cr_assert_eq(call(&c, T_READ, "dqd", 1u, (uint64_t)0, part), 0);
    cr_assert_eq(take(&c, 4), part);
    cr_assert_arr_eq(c.reply + c.at, data, part);
}
