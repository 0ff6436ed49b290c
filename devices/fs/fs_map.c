/* Owners, modes and kinds of objects: the four security models, in QEMU's formats, so that a folder can be used with both.
 *
 *   none, passthrough   those of the host's file
 *   mapped-xattr        user.virtfs.uid, .gid, .mode (32 bits) and .rdev (64 bits), little-endian
 *   mapped-file         .virtfs_metadata/NAME beside it (for the root .virtfs_metadata_root), lines "virtfs.uid=0" ...
 *
 * In the mapped models everything but folders is a regular file on the host; a symbolic link's target is its
 * contents. Any thread. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "devices/fs/fs_internal.h"

#define META_FOLDER ".virtfs_metadata"
#define META_ROOT   ".virtfs_metadata_root"
#define META_SIZE   512

/* What is kept of an object; `has` says which. */
enum { HAS_UID = 1 << 0, HAS_GID = 1 << 1, HAS_MODE = 1 << 2, HAS_RDEV = 1 << 3 };
struct meta {
    unsigned has;
    uint32_t uid, gid, mode;
    uint64_t rdev;
};

bool fs_is_mapped(const struct fsdev *fsdev)
{
    return fsdev->model == FS_MAPPED_XATTR || fsdev->model == FS_MAPPED_FILE;
}

mode_t fs_host_mode(const struct fsdev *fsdev, mode_t mode, bool folder)
{
    if (!fs_is_mapped(fsdev))
        return mode & 07777;
    return folder ? fsdev->folder_mode : fsdev->file_mode;
}

bool fs_xattr_hidden(const struct fsdev *fsdev, const char *name)
{
    return fsdev->model == FS_MAPPED_XATTR && !strncmp(name, "user.virtfs.", 12);
}

/* ---- mapped-xattr ---- */

static void load_xattrs(struct fs_node *node, struct meta *meta)
{
    char path[FS_PROC_PATH];

    fs_node_proc_path(node, path);
    if (getxattr(path, "user.virtfs.uid", &meta->uid, 4) == 4)
        meta->has |= HAS_UID;
    if (getxattr(path, "user.virtfs.gid", &meta->gid, 4) == 4)
        meta->has |= HAS_GID;
    if (getxattr(path, "user.virtfs.mode", &meta->mode, 4) == 4)
        meta->has |= HAS_MODE;
    if (getxattr(path, "user.virtfs.rdev", &meta->rdev, 8) == 8)
        meta->has |= HAS_RDEV;
}

static int store_xattrs(struct fs_node *node, const struct meta *meta)
{
    char path[FS_PROC_PATH];

    fs_node_proc_path(node, path);
    if (((meta->has & HAS_UID) && setxattr(path, "user.virtfs.uid", &meta->uid, 4, 0)) ||
        ((meta->has & HAS_GID) && setxattr(path, "user.virtfs.gid", &meta->gid, 4, 0)) ||
        ((meta->has & HAS_MODE) && setxattr(path, "user.virtfs.mode", &meta->mode, 4, 0)) ||
        ((meta->has & HAS_RDEV) && setxattr(path, "user.virtfs.rdev", &meta->rdev, 8, 0)))
        return -errno;
    return 0;
}

/* ---- mapped-file ---- */

/* The metadata file of `name` in `parent`. */
static int open_meta(struct fs_node *parent, const char *name, int flags)
{
    int folder, fd;

    if (!*name)
        return openat(parent->fd, META_ROOT, flags | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK, 0600);
    if (flags & O_CREAT)
        mkdirat(parent->fd, META_FOLDER, 0700); /* EEXIST is fine, the next step finds out about the rest */
    folder = openat(parent->fd, META_FOLDER, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (folder < 0)
        return -1;
    fd = openat(folder, name, flags | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK, 0600);
    close(folder);
    return fd;
}

static void parse_line(struct meta *meta, const char *line)
{
    unsigned long long value;

    if (sscanf(line, "virtfs.uid=%llu", &value) == 1)
        meta->uid = (uint32_t)value, meta->has |= HAS_UID;
    else if (sscanf(line, "virtfs.gid=%llu", &value) == 1)
        meta->gid = (uint32_t)value, meta->has |= HAS_GID;
    else if (sscanf(line, "virtfs.mode=%llu", &value) == 1)
        meta->mode = (uint32_t)value, meta->has |= HAS_MODE;
    else if (sscanf(line, "virtfs.rdev=%llu", &value) == 1)
        meta->rdev = value, meta->has |= HAS_RDEV;
}

static void load_file(struct fs_node *node, struct meta *meta)
{
    char name[FS_NAME_MAX + 1], text[META_SIZE], *line, *rest = text;
    struct fs_node *parent = fs_node_place(node, name);
    int fd = open_meta(parent, name, O_RDONLY);
    ssize_t size = fd >= 0 ? read(fd, text, sizeof(text) - 1) : 0;

    fs_node_put(parent);
    if (fd >= 0)
        close(fd);
    text[MAX(size, 0)] = '\0';
    while ((line = strsep(&rest, "\n")))
        parse_line(meta, line);
}

static int store_file(struct fs_node *node, const struct meta *changes)
{
    char name[FS_NAME_MAX + 1], text[META_SIZE];
    struct fs_node *parent = fs_node_place(node, name);
    struct meta meta = { 0 };
    int size = 0, fd, result = 0;

    load_file(node, &meta);
    meta.uid = changes->has & HAS_UID ? changes->uid : meta.uid;
    meta.gid = changes->has & HAS_GID ? changes->gid : meta.gid;
    meta.mode = changes->has & HAS_MODE ? changes->mode : meta.mode;
    meta.rdev = changes->has & HAS_RDEV ? changes->rdev : meta.rdev;
    meta.has |= changes->has;
    if (meta.has & HAS_UID)
        size += sprintf(text + size, "virtfs.uid=%u\n", meta.uid);
    if (meta.has & HAS_GID)
        size += sprintf(text + size, "virtfs.gid=%u\n", meta.gid);
    if (meta.has & HAS_MODE)
        size += sprintf(text + size, "virtfs.mode=%u\n", meta.mode);
    if (meta.has & HAS_RDEV)
        size += sprintf(text + size, "virtfs.rdev=%llu\n", (unsigned long long)meta.rdev);
    fd = open_meta(parent, name, O_WRONLY | O_CREAT | O_TRUNC);
    if (fd < 0 || write(fd, text, (size_t)size) != size)
        result = -(errno ?: EIO);
    if (fd >= 0)
        close(fd);
    fs_node_put(parent);
    return result;
}

static int meta_folder(struct fs_node *parent)
{
    return parent->fsdev->model == FS_MAPPED_FILE
               ? openat(parent->fd, META_FOLDER, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)
               : -1;
}

void fs_meta_unlinked(struct fs_node *parent, const char *name)
{
    int folder = meta_folder(parent);

    if (folder < 0)
        return;
    unlinkat(folder, name, 0);
    close(folder);
}

void fs_meta_renamed(struct fs_node *old_parent, const char *old_name, struct fs_node *new_parent, const char *new_name)
{
    int from = meta_folder(old_parent), to;

    if (from < 0)
        return;
    mkdirat(new_parent->fd, META_FOLDER, 0700);
    to = meta_folder(new_parent);
    if (to >= 0 && renameat(from, old_name, to, new_name) && errno == ENOENT)
        unlinkat(to, new_name, 0); /* that of the object that was replaced */
    if (to >= 0)
        close(to);
    close(from);
}

void fs_meta_linked(struct fs_node *node, struct fs_node *parent, const char *name)
{
    char old_name[FS_NAME_MAX + 1];
    struct fs_node *old_parent;
    int from, to;

    if (parent->fsdev->model != FS_MAPPED_FILE)
        return;
    old_parent = fs_node_place(node, old_name);
    from = meta_folder(old_parent);
    if (from >= 0) {
        mkdirat(parent->fd, META_FOLDER, 0700);
        to = meta_folder(parent);
        if (to >= 0) {
            if (linkat(from, old_name, to, name, 0))
                unlinkat(to, name, 0);
            close(to);
        }
        close(from);
    }
    fs_node_put(old_parent);
}

/* Only if nothing is left in it does rmdir succeed after this. */
void fs_meta_empty_folder(struct fs_node *parent, const char *name)
{
    int folder;

    if (parent->fsdev->model != FS_MAPPED_FILE)
        return;
    folder = openat(parent->fd, name, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (folder < 0)
        return;
    unlinkat(folder, META_FOLDER, AT_REMOVEDIR);
    close(folder);
}

/* ---- Both ---- */

static int store(struct fs_node *node, const struct meta *meta)
{
    return node->fsdev->model == FS_MAPPED_XATTR ? store_xattrs(node, meta) : store_file(node, meta);
}

int fs_stat(struct fs_node *node, struct stat *st)
{
    struct meta meta = { 0 };

    if (fstatat(node->fd, "", st, AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW))
        return -errno;
    if (!fs_is_mapped(node->fsdev))
        return 0;
    if (node->fsdev->model == FS_MAPPED_XATTR)
        load_xattrs(node, &meta);
    else
        load_file(node, &meta);
    if (meta.has & HAS_UID)
        st->st_uid = meta.uid;
    if (meta.has & HAS_GID)
        st->st_gid = meta.gid;
    /* A regular file may stand for something else; a folder is a folder. */
    if ((meta.has & HAS_MODE) && S_ISREG(st->st_mode) && (meta.mode & S_IFMT) && !S_ISDIR(meta.mode))
        st->st_mode = meta.mode;
    else if (meta.has & HAS_MODE)
        st->st_mode = (st->st_mode & S_IFMT) | (meta.mode & 07777);
    if ((meta.has & HAS_RDEV) && (S_ISCHR(st->st_mode) || S_ISBLK(st->st_mode)))
        st->st_rdev = meta.rdev;
    return 0;
}

int fs_set_mode(struct fs_node *node, mode_t mode)
{
    char path[FS_PROC_PATH];
    struct stat st;
    int result;

    if (fs_is_mapped(node->fsdev)) {
        result = fs_stat(node, &st);
        if (result)
            return result;
        return store(node, &(struct meta){ .has = HAS_MODE, .mode = (st.st_mode & S_IFMT) | (mode & 07777) });
    }
    fs_node_proc_path(node, path);
    return chmod(path, mode & 07777) ? -errno : 0;
}

int fs_set_owner(struct fs_node *node, uint32_t uid, uint32_t gid)
{
    if (fs_is_mapped(node->fsdev))
        return store(node, &(struct meta){ .has = (uid != ~0u ? HAS_UID : 0) | (gid != ~0u ? HAS_GID : 0),
                                           .uid = uid,
                                           .gid = gid });
    if (!fchownat(node->fd, "", uid, gid, AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW))
        return 0;
    return node->fsdev->model == FS_NONE ? 0 : -errno;
}

int fs_set_new(struct fs_node *node, struct fs_owner owner, mode_t mode, dev_t rdev)
{
    int result;

    if (fs_is_mapped(node->fsdev))
        return store(node, &(struct meta){ .has = HAS_UID | HAS_GID | HAS_MODE |
                                                  (S_ISCHR(mode) || S_ISBLK(mode) ? HAS_RDEV : 0),
                                           .uid = owner.uid,
                                           .gid = owner.gid,
                                           .mode = mode,
                                           .rdev = rdev });
    result = fs_set_owner(node, owner.uid, owner.gid);
    if (result || S_ISLNK(mode))
        return result;
    return fs_set_mode(node, mode); /* our umask has no say */
}

int64_t fs_read_link(struct fs_node *node, char *target, size_t size)
{
    struct stat st;
    ssize_t length;
    int result, fd;

    if (!fs_is_mapped(node->fsdev)) {
        length = readlinkat(node->fd, "", target, size);
        return length < 0 ? -(errno == ENOENT ? EINVAL : errno) : length;
    }
    result = fs_stat(node, &st);
    if (result)
        return result;
    if (!S_ISLNK(st.st_mode))
        return -EINVAL;
    if (!S_ISREG(node->type)) { /* a real one, that somebody has put there on the host */
        length = readlinkat(node->fd, "", target, size);
        return length < 0 ? -errno : length;
    }
    char path[FS_PROC_PATH];
    fs_node_proc_path(node, path);
    fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return -errno;
    length = read(fd, target, size);
    result = -errno;
    close(fd);
    return length < 0 ? result : length;
}
