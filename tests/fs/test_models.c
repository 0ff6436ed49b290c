/* -fsdev's options, the mapped security models, several file systems in one export. */
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

#include "devices/fs/fs_internal.h"

static struct client c;

Test(models, mistakes)
{
    static const struct {
        const char *option, *says;
    } table[] = {
        { "proxy,id=x,path=/tmp,security_model=none", "local" },
        { "local,path=/tmp,security_model=none", "id=" },
        { "local,id=x,security_model=none", "path=" },
        { "local,id=x,path=/tmp", "security_model=" },
        { "local,id=x,path=/tmp,security_model=nine", "did you mean 'none'" },
        { "local,id=x,path=/no/such,security_model=none", "No such file" },
        { "local,id=x,path=/etc/passwd,security_model=none", "Not a directory" },
        { "local,id=x,path=/tmp,security_model=none,multidevs=remop", "did you mean 'remap'" },
        { "local,id=x,path=/tmp,security_model=none,fmode=0600", "mapped" },
        { "local,id=x,path=/tmp,security_model=mapped,fmode=9", "octal" },
        { "local,id=x,path=/tmp,security_model=none,writeout=immediate", "writeout" },
        { "local,id=x,path=/tmp,security_model=none,throttling.bps-total=5", "throttling.bps-total" },
        { "local,id=x,path=/tmp,security_model=none,colour=red", "colour" },
        { "local,id=taken,path=/tmp,security_model=none", "already" },
    };
    struct error err = { "" };
    struct fsdev_registry *registry = fsdev_registry_create(&err);

    cr_assert_eq(fsdev_add(registry, "local,id=taken,path=/tmp,security_model=passthrough,multidevs=forbid", &err), 0);
    for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
        err.text[0] = '\0';
        cr_assert_lt(fsdev_add(registry, table[i].option, &err), 0, "%s", table[i].option);
        cr_assert(strstr(err.text, table[i].says), "%s: %s", table[i].option, err.text);
    }
    fsdev_registry_destroy(registry);
}

/* The same steps for both models: what the guest sees, and that the host's files are plain ones of ours. */
static void mapped(const char *options)
{
    struct stat st, host;

    client_start(&c, options);
    cr_assert_eq(call(&c, T_MKDIR, "dsdd", ROOT, "folder", 01777u, 42u), 0);
    cr_assert_eq(walk(&c, 1, "folder"), 0);
    st = attributes(&c, 1);
    cr_assert(st.st_mode == (S_IFDIR | 01777) && st.st_gid == 42, "%o", st.st_mode);
    stat(client_path(&c, "folder"), &host);
    cr_assert(host.st_mode == (S_IFDIR | 0700) && host.st_uid == getuid(), "%o", host.st_mode);

    cr_assert_eq(call(&c, T_MKNOD, "dsdddd", 1u, "disk", (uint32_t)(S_IFBLK | 0660), 8u, 1u, 6u), 0);
    cr_assert_eq(walk(&c, 2, "folder/disk"), 0);
    st = attributes(&c, 2);
    cr_assert(S_ISBLK(st.st_mode) && st.st_rdev == makedev(8, 1) && st.st_gid == 6);
    stat(client_path(&c, "folder/disk"), &host);
    cr_assert(S_ISREG(host.st_mode), "not one on the host");

    cr_assert_eq(call(&c, T_SYMLINK, "dssd", 1u, "link", "/etc/passwd", 0u), 0);
    cr_assert_eq(take_qid(&c).type, 2);
    cr_assert_eq(walk(&c, 3, "folder/link"), 0);
    cr_assert(S_ISLNK(attributes(&c, 3).st_mode));
    cr_assert_eq(call(&c, T_READLINK, "d", 3u), 0);
    cr_assert_str_eq(take_string(&c), "/etc/passwd");
    lstat(client_path(&c, "folder/link"), &host);
    cr_assert(S_ISREG(host.st_mode));

    cr_assert_eq(walk(&c, 4, "folder"), 0);
    cr_assert_eq(call(&c, T_LCREATE, "dsddd", 4u, "file", (uint32_t)O_RDWR, 04755u, 7u), 0);
    cr_assert_eq(attributes(&c, 4).st_mode, S_IFREG | 04755);
    stat(client_path(&c, "folder/file"), &host);
    cr_assert_eq(host.st_mode, S_IFREG | 0600, "no set-user-ID on the host");
    cr_assert_eq(call(&c, T_SETATTR, "dddddqqqqq", 4u, 1u | 2u | 4u, 0644u, 1000u, 1001u, (uint64_t)0, (uint64_t)0,
                      (uint64_t)0, (uint64_t)0, (uint64_t)0),
                 0);
    st = attributes(&c, 4);
    cr_assert(st.st_mode == (S_IFREG | 0644) && st.st_uid == 1000 && st.st_gid == 1001);
    cr_assert_eq(call(&c, T_RENAMEAT, "dsds", 1u, "file", ROOT, "moved"), 0);
    cr_assert_eq(walk(&c, 5, "moved"), 0);
    cr_assert_eq(attributes(&c, 5).st_uid, 1000, "goes along");
    cr_assert_eq(call(&c, T_LINK, "dds", 1u, 5u, "again"), 0);
    cr_assert_eq(walk(&c, 6, "folder/again"), 0);
    cr_assert_eq(attributes(&c, 6).st_uid, 1000);
    cr_assert_eq(call(&c, T_UNLINKAT, "dsd", 1u, "again", 0u), 0);
    cr_assert_eq(call(&c, T_UNLINKAT, "dsd", 1u, "disk", 0u), 0);
    cr_assert_eq(call(&c, T_UNLINKAT, "dsd", 1u, "link", 0u), 0);
    cr_assert_eq(call(&c, T_UNLINKAT, "dsd", ROOT, "folder", 0x200u), 0, "nothing is left in it");
    cr_assert_eq(call(&c, T_SETATTR, "dddddqqqqq", ROOT, 2u, 0u, 77u, 0u, (uint64_t)0, (uint64_t)0, (uint64_t)0,
                      (uint64_t)0, (uint64_t)0),
                 0);
    cr_assert_eq(attributes(&c, ROOT).st_uid, 77);
}

Test(models, mapped_file)
{
    unsigned entries = 0;

    mapped("security_model=mapped-file");
    cr_assert_neq(walk(&c, 10, ".virtfs_metadata"), 0, "not the guest's to see");
    cr_assert_neq(walk(&c, 10, ".virtfs_metadata_root"), 0);
    cr_assert_neq(call(&c, T_MKDIR, "dsdd", ROOT, ".virtfs_metadata", 0755u, 0u), 0);
    cr_assert_neq(call(&c, T_RENAMEAT, "dsds", ROOT, "moved", ROOT, ".virtfs_metadata_root"), 0);
    cr_assert_eq(access(client_path(&c, ".virtfs_metadata/moved"), R_OK), 0);
    cr_assert_eq(walk(&c, 10, ""), 0);
    cr_assert_eq(call(&c, T_LOPEN, "dd", 10u, 0u), 0);
    cr_assert_eq(call(&c, T_READDIR, "dqd", 10u, (uint64_t)0, 60000u), 0);
    for (uint32_t end = c.at + (uint32_t)take(&c, 4) + 4; c.at < end; entries++) {
        take_qid(&c);
        take(&c, 8), take(&c, 1);
        cr_assert_null(strstr(take_string(&c), "virtfs"));
    }
    cr_assert_eq(entries, 3);
    client_stop(&c);
}

/* What another program has put there must not lead anywhere. */
Test(models, mapped_file_with_a_planted_link)
{
    client_start(&c, "security_model=mapped-file");
    client_put_file(&c, "file", "x");
    mkdir(client_path(&c, "elsewhere"), 0755);
    cr_assert_eq(symlink("elsewhere", client_path(&c, ".virtfs_metadata")), 0);
    cr_assert_eq(walk(&c, 1, "file"), 0);
    cr_assert_neq(call(&c, T_SETATTR, "dddddqqqqq", 1u, 2u, 0u, 77u, 0u, (uint64_t)0, (uint64_t)0, (uint64_t)0,
                       (uint64_t)0, (uint64_t)0),
                  0);
    cr_assert_neq(access(client_path(&c, "elsewhere/file"), F_OK), 0);
    client_stop(&c);
}

Test(models, mapped_xattr)
{
    char path[] = "/var/tmp/eidolon-fs-probe-XXXXXX";
    int fd = mkstemp(path), result = fsetxattr(fd, "user.probe", "v", 1, 0);

    unlink(path);
    if (result)
        cr_skip_test("the file system has no extended attributes");
    mapped("security_model=mapped-xattr");
    uint32_t uid;
    cr_assert_eq(getxattr(client_path(&c, "moved"), "user.virtfs.uid", &uid, 4), 4);
    cr_assert_eq(uid, 1000);
    cr_assert_eq(call(&c, T_XATTRWALK, "dds", 5u, 20u, ""), 0);
    cr_assert_eq(take(&c, 8), 0, "hidden");
    cr_assert_eq(call(&c, T_XATTRWALK, "dds", 5u, 21u, "user.virtfs.uid"), -ENODATA);
    cr_assert_eq(call(&c, T_XATTRCREATE, "dsqd", 5u, "user.virtfs.uid", (uint64_t)4, 0u), -EACCES);
    client_stop(&c);
}

Test(models, several_devices)
{
    struct error err = { "" };
    struct fsdev_registry *registry = fsdev_registry_create(&err);
    uint64_t a, b, again;

    cr_assert_eq(fsdev_add(registry, "local,id=remap,path=/,security_model=none,multidevs=remap", &err), 0);
    cr_assert_eq(fsdev_add(registry, "local,id=forbid,path=/,security_model=none,multidevs=forbid", &err), 0);
    cr_assert_eq(fsdev_add(registry, "local,id=warn,path=/,security_model=none", &err), 0);
    struct fsdev *fsdev = fsdev_find(registry, "remap");
    dev_t own = fsdev->devices[0];
    cr_assert_eq(fs_inode_number(fsdev, own, 5, &a), 0);
    cr_assert_eq(a, 5);
    cr_assert_eq(fs_inode_number(fsdev, own + 1, 5, &a), 0);
    cr_assert_eq(fs_inode_number(fsdev, own + 2, 5, &b), 0);
    cr_assert_eq(fs_inode_number(fsdev, own + 1, 5, &again), 0);
    cr_assert(a != 5 && b != 5 && a != b && a == again);
    for (dev_t i = 3; i < 255; i++)
        cr_assert_eq(fs_inode_number(fsdev, own + i, 5, &a), 0);
    cr_assert_eq(fs_inode_number(fsdev, own + 300, 5, &a), 0);
    cr_assert_eq(fs_inode_number(fsdev, own + 301, 5, &a), -ENODEV, "bounded");
    cr_assert_eq(fs_inode_number(fsdev_find(registry, "forbid"), own + 1, 5, &a), -ENODEV);
    cr_assert_eq(fs_inode_number(fsdev_find(registry, "warn"), own + 1, 5, &a), 0);
    cr_assert_eq(a, 5);
    fsdev_registry_destroy(registry);
}
