/* 9P: folders: walking, listing, and what makes, moves and removes entries. Names come checked from p9_get_name(): no
 * slash, no "." or "..". Any thread. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "devices/fs/p9_internal.h"

#define LIST_BUFFER 32768

/* ---- Walking ---- */

/* As many steps as there are; the qids go into the answer. Steps after a failed one are not taken. */
static int walk_steps(struct p9_call *call, struct fs_node **node, unsigned steps, uint16_t *done)
{
    int error = 0;

    for (*done = 0; *done < steps; (*done)++) {
        char name[FS_NAME_MAX + 1];
        struct fs_node *next;
        struct stat st;

        p9_get_string(&call->in, name, sizeof(name));
        if (call->in.error)
            return call->in.error;
        next = fs_node_walk(*node, name, &error);
        if (!next)
            return error;
        fs_node_put(*node);
        *node = next;
        error = fs_stat(next, &st);
        error = error ?: p9_put_qid(&call->out, call->fsdev, &st);
        if (error)
            return error;
    }
    return 0;
}

/* `fid` itself goes on to the node, whose reference is taken. */
static int move_fid(struct p9_fid *fid, struct fs_node *node)
{
    int result = 0;

    pthread_rwlock_wrlock(&fid->lock);
    if (fid->kind == P9_PATH) {
        struct fs_node *old = fid->node;
        fid->node = node;
        node = old;
    } else {
        result = -EBUSY;
    }
    pthread_rwlock_unlock(&fid->lock);
    fs_node_put(node);
    return result;
}

int p9_walk(struct p9_call *call)
{
    struct p9_fid *fid = p9_fid_get(call->server, p9_get32(&call->in));
    uint32_t new_number = p9_get32(&call->in);
    uint16_t steps = (uint16_t)p9_get(&call->in, 2), done = 0;
    struct fs_node *node;
    int result = call->in.error;

    if (result || !fid || steps > P9_WALK_MAX) {
        p9_fid_put(call->server, fid);
        return result ?: fid ? -EINVAL : -EBADF;
    }
    pthread_rwlock_rdlock(&fid->lock);
    node = fs_node_get(fid->node);
    pthread_rwlock_unlock(&fid->lock);
    p9_put(&call->out, 0, 2);
    result = walk_steps(call, &node, steps, &done);
    if (result && (!done || call->in.error)) {
        fs_node_put(node);
    } else if (result) { /* part of the way: says how far, and makes no fid */
        call->out.size = P9_HEADER_SIZE + 2 + done * P9_QID_SIZE;
        fs_node_put(node);
        result = 0;
    } else if (new_number == fid->number) {
        result = move_fid(fid, node);
    } else {
        result = p9_fid_add(call->server, new_number, fid->uid, node, NULL);
    }
    p9_fid_put(call->server, fid);
    memcpy(call->out.data + P9_HEADER_SIZE, &done, 2);
    return result;
}

/* ---- Listing ---- */

struct kernel_dirent { /* getdents64(2) */
    uint64_t d_ino;
    int64_t d_off;
    uint16_t d_reclen;
    uint8_t d_type;
    char d_name[];
};

static int put_entry(struct p9_call *call, struct p9_fid *fid, const struct stat *folder,
                     const struct kernel_dirent *entry)
{
    struct stat st = { .st_dev = folder->st_dev, .st_ino = entry->d_ino, .st_mode = DTTOIF(entry->d_type) };
    struct p9_out saved = call->out;
    bool self = !strcmp(entry->d_name, ".") || !strcmp(entry->d_name, "..");
    int result;

    if (self) /* the number of what lies above the root is nobody's business */
        st.st_ino = folder->st_ino, st.st_mode = S_IFDIR;
    else if (fs_name_is_hidden(call->fsdev, entry->d_name))
        return 0;
    else if (fs_is_mapped(call->fsdev) && entry->d_type != DT_DIR)
        st.st_mode = 0; /* may stand for something else: unknown */
    else if (call->fsdev->multidevs == FS_MULTIDEVS_REMAP)
        fstatat(fid->node->fd, entry->d_name, &st, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT);
    result = p9_put_qid(&call->out, call->fsdev, &st);
    if (result) { /* multidevs=forbid: it is not there */
        call->out = saved;
        return 0;
    }
    p9_put(&call->out, (uint64_t)entry->d_off, 8);
    p9_put(&call->out, IFTODT(st.st_mode), 1);
    p9_put_string(&call->out, entry->d_name, strlen(entry->d_name));
    if (!call->out.full)
        return 0;
    call->out = saved;
    return -ENOBUFS;
}

/* Fills the answer with whole entries. With the fid's lock held, for the descriptor has one position. */
static int list(struct p9_call *call, struct p9_fid *fid, uint64_t offset)
{
    uint32_t begin = call->out.size;
    struct stat folder;
    char *buffer;
    long size = 0;
    int result = 0;

    if (fid->kind != P9_FOLDER)
        return -EBADF;
    if (fstat(fid->fd, &folder) || lseek(fid->fd, (off_t)offset, SEEK_SET) < 0)
        return -errno;
    buffer = malloc(LIST_BUFFER);
    if (!buffer)
        return -ENOMEM;
    while (!result && (size = syscall(SYS_getdents64, fid->fd, buffer, LIST_BUFFER)) > 0) {
        for (long at = 0; at < size && !result;) {
            const struct kernel_dirent *entry = (const void *)(buffer + at);

            result = put_entry(call, fid, &folder, entry);
            at += entry->d_reclen;
        }
    }
    if (size < 0)
        result = -errno;
    free(buffer);
    if (result == -ENOBUFS)
        return call->out.size == begin ? -EINVAL : 0; /* the rest comes next time; but one has to fit */
    return result;
}

int p9_readdir(struct p9_call *call)
{
    struct p9_fid *fid = p9_fid_get(call->server, p9_get32(&call->in));
    uint64_t offset = p9_get(&call->in, 8);
    uint32_t count = p9_get32(&call->in), size;
    int result = call->in.error;

    if (!result && !fid)
        result = -EBADF;
    p9_put(&call->out, 0, 4);
    if (!result && call->out.full)
        result = -ENOBUFS;
    if (!result) {
        call->out.capacity = call->out.size + MIN(count, call->out.capacity - call->out.size);
        pthread_rwlock_wrlock(&fid->lock);
        result = list(call, fid, offset);
        pthread_rwlock_unlock(&fid->lock);
    }
    p9_fid_put(call->server, fid);
    if (result)
        return result;
    size = call->out.size - P9_HEADER_SIZE - 4;
    memcpy(call->out.data + P9_HEADER_SIZE, &size, 4);
    return 0;
}

/* ---- Making ---- */

/* Owner, mode and qid of what has just been made. */
static int finish_new(struct p9_call *call, struct fs_node *folder, const char *name, struct fs_owner owner,
                      mode_t mode, dev_t rdev)
{
    int error = 0;
    struct fs_node *node = fs_node_walk(folder, name, &error);
    struct stat st;

    if (!node)
        return error;
    error = fs_set_new(node, owner, mode, rdev);
    error = error ?: fs_stat(node, &st);
    error = error ?: p9_put_qid(&call->out, call->fsdev, &st);
    fs_node_put(node);
    if (error)
        unlinkat(folder->fd, name, S_ISDIR(mode) ? AT_REMOVEDIR : 0);
    return error;
}

/* The folder that a request is about, and who asks. */
static struct fs_node *folder_of(struct p9_call *call, uint32_t *uid, int *error)
{
    uint32_t number = p9_get32(&call->in);
    struct p9_fid *fid = call->in.error ? NULL : p9_fid_get(call->server, number);
    struct fs_node *node;

    if (!fid) {
        *error = call->in.error ?: -EBADF;
        return NULL;
    }
    pthread_rwlock_rdlock(&fid->lock);
    node = fs_node_get(fid->node);
    pthread_rwlock_unlock(&fid->lock);
    *uid = fid->uid;
    p9_fid_put(call->server, fid);
    return node;
}

int p9_mkdir(struct p9_call *call)
{
    char name[FS_NAME_MAX + 1];
    uint32_t uid = 0, mode, gid;
    int result = 0;
    struct fs_node *folder = folder_of(call, &uid, &result);

    p9_get_name(&call->in, call->fsdev, name);
    mode = p9_get32(&call->in);
    gid = p9_get32(&call->in);
    if (folder && !(result = call->in.error)) {
        if (mkdirat(folder->fd, name, fs_host_mode(call->fsdev, mode, true)))
            result = -errno;
        result = result ?: finish_new(call, folder, name, (struct fs_owner){ uid, gid }, S_IFDIR | (mode & 07777), 0);
    }
    fs_node_put(folder);
    return result;
}

/* A regular file with `text` in it, for the mapped models. */
static int make_stand_in(struct fs_node *folder, const char *name, const char *text)
{
    int fd = openat(folder->fd, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC,
                    fs_host_mode(folder->fsdev, 0, false));
    size_t size = strlen(text);
    int result = 0;

    if (fd < 0)
        return -errno;
    errno = ENOSPC;
    if (write(fd, text, size) != (ssize_t)size) {
        result = -errno;
        unlinkat(folder->fd, name, 0);
    }
    close(fd);
    return result;
}

int p9_symlink(struct p9_call *call)
{
    char name[FS_NAME_MAX + 1], target[FS_LINK_MAX + 1];
    uint32_t uid = 0, gid;
    int result = 0;
    struct fs_node *folder = folder_of(call, &uid, &result);

    p9_get_name(&call->in, call->fsdev, name);
    p9_get_string(&call->in, target, sizeof(target));
    gid = p9_get32(&call->in);
    if (folder && !(result = call->in.error)) {
        if (fs_is_mapped(call->fsdev))
            result = make_stand_in(folder, name, target);
        else if (symlinkat(target, folder->fd, name))
            result = -errno;
        result = result ?: finish_new(call, folder, name, (struct fs_owner){ uid, gid }, S_IFLNK | 0777, 0);
    }
    fs_node_put(folder);
    return result;
}

static bool can_be_made(mode_t mode)
{
    return S_ISREG(mode) || S_ISCHR(mode) || S_ISBLK(mode) || S_ISFIFO(mode) || S_ISSOCK(mode);
}

int p9_mknod(struct p9_call *call)
{
    char name[FS_NAME_MAX + 1];
    uint32_t uid = 0, mode, major_number, minor_number, gid;
    int result = 0;
    struct fs_node *folder = folder_of(call, &uid, &result);

    p9_get_name(&call->in, call->fsdev, name);
    mode = p9_get32(&call->in);
    major_number = p9_get32(&call->in);
    minor_number = p9_get32(&call->in);
    gid = p9_get32(&call->in);
    if (folder && !(result = call->in.error)) {
        dev_t rdev = makedev(major_number, minor_number);

        if (!can_be_made(mode))
            result = -EINVAL;
        else if (fs_is_mapped(call->fsdev))
            result = make_stand_in(folder, name, "");
        else if (mknodat(folder->fd, name, mode & (S_IFMT | 07777), rdev))
            result = -errno;
        result = result ?: finish_new(call, folder, name, (struct fs_owner){ uid, gid }, mode & (S_IFMT | 07777), rdev);
    }
    fs_node_put(folder);
    return result;
}

int p9_link(struct p9_call *call)
{
    char name[FS_NAME_MAX + 1], path[FS_PROC_PATH];
    uint32_t uid = 0;
    int result = 0;
    struct fs_node *folder = folder_of(call, &uid, &result);
    struct fs_node *node = p9_fid_node(call->server, p9_get32(&call->in), &result);

    p9_get_name(&call->in, call->fsdev, name);
    if (folder && node && !(result = call->in.error)) {
        fs_node_proc_path(node, path);
        if (linkat(AT_FDCWD, path, folder->fd, name, AT_SYMLINK_FOLLOW)) /* the link to follow is that in /proc */
            result = -errno;
        else
            fs_meta_linked(node, folder, name);
    }
    fs_node_put(folder);
    fs_node_put(node);
    return result;
}

/* ---- Moving ---- */

static int move_entry(struct fs_node *from, const char *old_name, struct fs_node *to, const char *new_name)
{
    if (renameat(from->fd, old_name, to->fd, new_name))
        return -errno;
    fs_meta_renamed(from, old_name, to, new_name);
    fs_node_moved(from, old_name, to, new_name);
    return 0;
}

/* Is `name` in `folder` still this object? */
static int check_place(struct fs_node *node, struct fs_node *folder, const char *name)
{
    struct stat there, here;

    if (!*name)
        return -EBUSY; /* the root */
    if (fstatat(folder->fd, name, &there, AT_SYMLINK_NOFOLLOW) || fstat(node->fd, &here))
        return -errno;
    return there.st_dev == here.st_dev && there.st_ino == here.st_ino ? 0 : -ENOENT;
}

int p9_rename(struct p9_call *call)
{
    char name[FS_NAME_MAX + 1], old_name[FS_NAME_MAX + 1];
    int result = 0;
    struct fs_node *node = p9_fid_node(call->server, p9_get32(&call->in), &result);
    struct fs_node *to = p9_fid_node(call->server, p9_get32(&call->in), &result);

    p9_get_name(&call->in, call->fsdev, name);
    if (node && to && !(result = call->in.error)) {
        struct fs_node *from = fs_node_place(node, old_name);

        result = check_place(node, from, old_name);
        result = result ?: move_entry(from, old_name, to, name);
        fs_node_put(from);
    }
    fs_node_put(node);
    fs_node_put(to);
    return result;
}

int p9_renameat(struct p9_call *call)
{
    char old_name[FS_NAME_MAX + 1], new_name[FS_NAME_MAX + 1];
    int result = 0;
    struct fs_node *from = p9_fid_node(call->server, p9_get32(&call->in), &result), *to;

    p9_get_name(&call->in, call->fsdev, old_name);
    to = p9_fid_node(call->server, p9_get32(&call->in), &result);
    p9_get_name(&call->in, call->fsdev, new_name);
    if (from && to && !(result = call->in.error))
        result = move_entry(from, old_name, to, new_name);
    fs_node_put(from);
    fs_node_put(to);
    return result;
}

/* ---- Removing ---- */

static int remove_entry(struct fs_node *folder, const char *name, bool is_folder)
{
    if (is_folder)
        fs_meta_empty_folder(folder, name);
    if (unlinkat(folder->fd, name, is_folder ? AT_REMOVEDIR : 0))
        return -errno;
    fs_meta_unlinked(folder, name);
    return 0;
}

int p9_unlinkat(struct p9_call *call)
{
    char name[FS_NAME_MAX + 1];
    int result = 0;
    struct fs_node *folder = p9_fid_node(call->server, p9_get32(&call->in), &result);
    uint32_t flags;

    p9_get_name(&call->in, call->fsdev, name);
    flags = p9_get32(&call->in);
    if (folder && !(result = call->in.error))
        result = flags & ~(uint32_t)AT_REMOVEDIR ? -EINVAL : remove_entry(folder, name, flags != 0);
    fs_node_put(folder);
    return result;
}

/* The fid goes in any case. */
int p9_remove(struct p9_call *call)
{
    uint32_t number = p9_get32(&call->in);
    struct p9_fid *fid = p9_fid_get(call->server, number);
    char name[FS_NAME_MAX + 1];
    struct fs_node *node, *folder;
    int result = 0;

    if (call->in.error || !fid) {
        p9_fid_put(call->server, fid);
        return call->in.error ?: -EBADF;
    }
    node = p9_fid_node(call->server, number, &result);
    if (node) {
        folder = fs_node_place(node, name);
        result = check_place(node, folder, name);
        result = result ?: remove_entry(folder, name, S_ISDIR(node->type));
        fs_node_put(folder);
    }
    fs_node_put(node);
    p9_fid_remove(call->server, fid);
    p9_fid_put(call->server, fid);
    return result;
}

int p9_readlink(struct p9_call *call)
{
    char target[FS_LINK_MAX + 1];
    int result = 0;
    struct fs_node *node = p9_fid_node(call->server, p9_get32(&call->in), &result);
    int64_t size;

    if (!node)
        return result;
    size = call->in.error ? call->in.error : fs_read_link(node, target, FS_LINK_MAX);
    fs_node_put(node);
    if (size < 0)
        return (int)size;
    p9_put_string(&call->out, target, (size_t)size);
    return 0;
}
