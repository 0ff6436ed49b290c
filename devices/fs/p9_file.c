/* 9P: opening, creating, reading and writing files, and letting go of fids. Any thread. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "devices/fs/p9_internal.h"

/* 9P2000.L's open flags have the values of Linux on x86. What else there is, like O_DIRECT, O_NONBLOCK or O_ASYNC, is the
 * client's business. */
#define OPEN_FLAGS (O_ACCMODE | O_TRUNC | O_APPEND | O_DSYNC | O_SYNC | O_DIRECTORY | O_NOATIME)

enum { LOCK_SUCCESS = 0 };
enum { LOCK_TYPE_READ = 0, LOCK_TYPE_WRITE = 1, LOCK_TYPE_UNLOCK = 2 };

static int open_proc(const struct fs_node *node, int flags)
{
    char path[FS_PROC_PATH];
    int fd;

    fs_node_proc_path(node, path);
    fd = open(path, flags | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0 && errno == EPERM && (flags & O_NOATIME))
        fd = open(path, (flags & ~O_NOATIME) | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    return fd < 0 ? -errno : fd;
}

int p9_open_node(struct fs_node *node, uint32_t flags)
{
    int result = (int)(flags & OPEN_FLAGS);

    /* Opening a FIFO or a device could block, or do something. Clients have their own. */
    if (S_ISDIR(node->type))
        return (result & O_ACCMODE) == O_RDONLY ? open_proc(node, O_RDONLY | O_DIRECTORY) : -EISDIR;
    if (!S_ISREG(node->type))
        return S_ISLNK(node->type) ? -ELOOP : -ENXIO;
    if (node->fsdev->read_only && ((result & O_ACCMODE) != O_RDONLY || (result & O_TRUNC)))
        return -EROFS;
    return open_proc(node, result);
}

static uint32_t io_unit(const struct p9_call *call)
{
    return atomic_load(&call->server->msize) - P9_IO_HEADER;
}

/* With the fid's lock held. */
static int open_fid(struct p9_call *call, struct p9_fid *fid, uint32_t flags)
{
    struct stat st;
    int fd, result;

    if (fid->kind != P9_PATH)
        return -EBUSY;
    result = fs_stat(fid->node, &st);
    result = result ?: p9_put_qid(&call->out, call->fsdev, &st);
    if (result)
        return result;
    fd = p9_open_node(fid->node, flags);
    if (fd < 0)
        return fd;
    fid->fd = fd;
    fid->kind = S_ISDIR(fid->node->type) ? P9_FOLDER : P9_FILE;
    p9_put(&call->out, io_unit(call), 4);
    return 0;
}

int p9_lopen(struct p9_call *call)
{
    struct p9_fid *fid = p9_fid_get(call->server, p9_get32(&call->in));
    uint32_t flags = p9_get32(&call->in);
    int result = call->in.error;

    if (!result && !fid)
        result = -EBADF;
    if (!result) {
        pthread_rwlock_wrlock(&fid->lock);
        result = open_fid(call, fid, flags);
        pthread_rwlock_unlock(&fid->lock);
    }
    p9_fid_put(call->server, fid);
    return result;
}

/* ---- Creating ---- */

/* A new file, or an old one if the client does not mind. */
static int create_or_open(struct fs_node *folder, const char *name, uint32_t flags, mode_t mode, bool *is_new)
{
    int open_flags = (int)(flags & OPEN_FLAGS & ~O_DIRECTORY) | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK | O_NOCTTY;
    struct stat st;
    int fd;

    /* What maps attributes onto a file has to be able to read them, and to set them. */
    fd = openat(folder->fd, name, open_flags | O_CREAT | O_EXCL, fs_host_mode(folder->fsdev, mode, false));
    *is_new = fd >= 0;
    if (fd >= 0 || errno != EEXIST || (flags & O_EXCL))
        return fd < 0 ? -errno : fd;
    if (fstatat(folder->fd, name, &st, AT_SYMLINK_NOFOLLOW))
        return -errno;
    if (!S_ISREG(st.st_mode))
        return S_ISDIR(st.st_mode) ? -EISDIR : S_ISLNK(st.st_mode) ? -ELOOP : -ENXIO;
    fd = openat(folder->fd, name, open_flags);
    if (fd >= 0 && (fstat(fd, &st) || !S_ISREG(st.st_mode))) { /* not that any more */
        close(fd);
        return -EAGAIN;
    }
    return fd < 0 ? -errno : fd;
}

struct creation {
    char name[FS_NAME_MAX + 1];
    uint32_t flags, mode, gid;
};

/* With the fid's lock held: it is the folder, and becomes the file. */
static int create_in(struct p9_call *call, struct p9_fid *fid, const struct creation *what)
{
    struct fs_node *node = NULL;
    struct stat st;
    bool is_new;
    int fd, result = 0;

    if (fid->kind != P9_PATH)
        return -EBUSY;
    fd = create_or_open(fid->node, what->name, what->flags, what->mode, &is_new);
    if (fd < 0)
        return fd;
    node = fs_node_of_fd(fid->node, what->name, fd, &result);
    if (node && is_new)
        result = fs_set_new(node, (struct fs_owner){ fid->uid, what->gid }, S_IFREG | (what->mode & 07777), 0);
    if (node && !result)
        result = fs_stat(node, &st);
    if (!result)
        result = p9_put_qid(&call->out, call->fsdev, &st);
    if (result) {
        if (is_new)
            unlinkat(fid->node->fd, what->name, 0);
        fs_node_put(node);
        close(fd);
        return result;
    }
    p9_put(&call->out, io_unit(call), 4);
    fs_node_put(fid->node);
    fid->node = node;
    fid->fd = fd;
    fid->kind = P9_FILE;
    return 0;
}

int p9_lcreate(struct p9_call *call)
{
    struct p9_fid *fid = p9_fid_get(call->server, p9_get32(&call->in));
    struct creation what;
    int result;

    p9_get_name(&call->in, call->fsdev, what.name);
    what.flags = p9_get32(&call->in);
    what.mode = p9_get32(&call->in);
    what.gid = p9_get32(&call->in);
    result = call->in.error;
    if (!result && !fid)
        result = -EBADF;
    if (!result) {
        pthread_rwlock_wrlock(&fid->lock);
        result = create_in(call, fid, &what);
        pthread_rwlock_unlock(&fid->lock);
    }
    p9_fid_put(call->server, fid);
    return result;
}

/* ---- Data ---- */

static int64_t read_fid(const struct p9_fid *fid, uint8_t *data, uint32_t count, uint64_t offset)
{
    ssize_t size;

    switch (fid->kind) {
    case P9_FILE:
        if (offset > INT64_MAX)
            return -EINVAL;
        size = pread(fid->fd, data, count, (off_t)offset);
        return size < 0 ? -errno : size;
    case P9_XATTR_READ:
        if (offset >= fid->value_size)
            return 0;
        count = (uint32_t)MIN(count, fid->value_size - offset);
        memcpy(data, fid->value + offset, count);
        return count;
    case P9_FOLDER:
        return -EISDIR;
    default:
        return -EBADF;
    }
}

int p9_read(struct p9_call *call)
{
    struct p9_fid *fid = p9_fid_get(call->server, p9_get32(&call->in));
    uint64_t offset = p9_get(&call->in, 8);
    uint32_t count = p9_get32(&call->in), room;
    struct p9_out *out = &call->out;
    int64_t result = call->in.error;

    if (!result && !fid)
        result = -EBADF;
    p9_put(out, 0, 4);
    room = out->capacity - out->size;
    if (!result && out->full)
        result = -ENOBUFS;
    if (!result) {
        pthread_rwlock_rdlock(&fid->lock);
        result = read_fid(fid, out->data + out->size, MIN(count, room), offset);
        pthread_rwlock_unlock(&fid->lock);
    }
    p9_fid_put(call->server, fid);
    if (result < 0)
        return (int)result;
    count = (uint32_t)result;
    memcpy(out->data + P9_HEADER_SIZE, &count, 4);
    out->size += count;
    return 0;
}

/* XATTR_WRITE: pieces in any order, inside the size that was announced. With the lock held. */
static int64_t write_value(struct p9_fid *fid, const uint8_t *data, uint32_t count, uint64_t offset)
{
    if (offset > fid->value_size || count > fid->value_size - offset)
        return -ENOSPC;
    memcpy(fid->value + offset, data, count);
    fid->value_done = (uint32_t)MAX(fid->value_done, offset + count);
    return count;
}

static int64_t write_fid(struct p9_fid *fid, const uint8_t *data, uint32_t count, uint64_t offset)
{
    ssize_t size;

    if (fid->kind != P9_FILE)
        return fid->kind == P9_FOLDER ? -EISDIR : -EBADF;
    if (offset > INT64_MAX)
        return -EFBIG;
    size = pwrite(fid->fd, data, count, (off_t)offset);
    return size < 0 ? -errno : size;
}

int p9_write(struct p9_call *call)
{
    struct p9_fid *fid = p9_fid_get(call->server, p9_get32(&call->in));
    uint64_t offset = p9_get(&call->in, 8);
    uint32_t count = p9_get32(&call->in);
    const uint8_t *data = p9_get_bytes(&call->in, count);
    int64_t result = call->in.error;

    if (!result && !fid)
        result = -EBADF;
    if (!result) {
        pthread_rwlock_rdlock(&fid->lock);
        bool value = fid->kind == P9_XATTR_WRITE;
        if (!value)
            result = write_fid(fid, data, count, offset);
        pthread_rwlock_unlock(&fid->lock);
        if (value) { /* a fid of that kind stays so */
            pthread_rwlock_wrlock(&fid->lock);
            result = write_value(fid, data, count, offset);
            pthread_rwlock_unlock(&fid->lock);
        }
    }
    p9_fid_put(call->server, fid);
    if (result < 0)
        return (int)result;
    p9_put(&call->out, (uint64_t)result, 4);
    return 0;
}

int p9_fsync(struct p9_call *call)
{
    struct p9_fid *fid = p9_fid_get(call->server, p9_get32(&call->in));
    bool data_only = call->in.at + 4 <= call->in.size && p9_get32(&call->in);
    int result = call->in.error;

    if (!result && !fid)
        result = -EBADF;
    if (!result) {
        pthread_rwlock_rdlock(&fid->lock);
        if (fid->fd < 0)
            result = -EBADF;
        else if (data_only ? fdatasync(fid->fd) : fsync(fid->fd))
            result = -errno;
        pthread_rwlock_unlock(&fid->lock);
    }
    p9_fid_put(call->server, fid);
    return result;
}

int p9_clunk(struct p9_call *call)
{
    struct p9_fid *fid = p9_fid_get(call->server, p9_get32(&call->in));
    int result = call->in.error;

    if (result || !fid) {
        p9_fid_put(call->server, fid);
        return result ?: -EBADF;
    }
    pthread_rwlock_wrlock(&fid->lock);
    if (fid->kind == P9_XATTR_WRITE)
        result = p9_xattr_commit(fid);
    pthread_rwlock_unlock(&fid->lock);
    p9_fid_remove(call->server, fid);
    p9_fid_put(call->server, fid);
    return result;
}

/* ---- Locks ---- */

/* The guest's kernel arbitrates between its own processes before it asks; the host's files are not locked, as in QEMU: locks
 * of the host belong to an open file, those of the guest to a process that may have opened it twice. */
int p9_lock(struct p9_call *call)
{
    char client[FS_NAME_MAX + 1];
    int error = 0;
    struct fs_node *node = p9_fid_node(call->server, p9_get32(&call->in), &error);
    uint8_t type = (uint8_t)p9_get(&call->in, 1);

    p9_get_bytes(&call->in, 4 + 8 + 8 + 4); /* flags, start, length, process */
    p9_get_string(&call->in, client, sizeof(client));
    fs_node_put(node);
    if (!node || call->in.error)
        return call->in.error ?: error;
    if (type > LOCK_TYPE_UNLOCK)
        return -EINVAL;
    p9_put(&call->out, LOCK_SUCCESS, 1);
    return 0;
}

int p9_getlock(struct p9_call *call)
{
    char client[FS_NAME_MAX + 1];
    int error = 0;
    struct fs_node *node = p9_fid_node(call->server, p9_get32(&call->in), &error);
    uint8_t type = (uint8_t)p9_get(&call->in, 1);
    uint64_t start = p9_get(&call->in, 8), length = p9_get(&call->in, 8);
    uint32_t process = p9_get32(&call->in);

    p9_get_string(&call->in, client, sizeof(client));
    fs_node_put(node);
    if (!node || call->in.error)
        return call->in.error ?: error;
    if (type > LOCK_TYPE_UNLOCK)
        return -EINVAL;
    p9_put(&call->out, LOCK_TYPE_UNLOCK, 1); /* nobody else has it */
    p9_put(&call->out, start, 8);
    p9_put(&call->out, length, 8);
    p9_put(&call->out, process, 4);
    p9_put_string(&call->out, client, strlen(client));
    return 0;
}
