/* 9P: attributes, extended attributes, the file system's figures. Any thread. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "devices/fs/p9_internal.h"

#define GETATTR_BASIC 0x7ffull
#define V9FS_MAGIC    0x01021997u

enum {
    SET_MODE = 1 << 0,
    SET_UID = 1 << 1,
    SET_GID = 1 << 2,
    SET_SIZE = 1 << 3,
    SET_ATIME = 1 << 4,
    SET_MTIME = 1 << 5,
    SET_CTIME = 1 << 6,
    SET_ATIME_TO = 1 << 7,
    SET_MTIME_TO = 1 << 8,
};

static void put_time(struct p9_out *out, struct timespec time)
{
    p9_put(out, (uint64_t)time.tv_sec, 8);
    p9_put(out, (uint64_t)time.tv_nsec, 8);
}

int p9_getattr(struct p9_call *call)
{
    int result = 0;
    struct fs_node *node = p9_fid_node(call->server, p9_get32(&call->in), &result);
    struct p9_out *out = &call->out;
    struct stat st;

    p9_get(&call->in, 8); /* which are wanted: they come all */
    if (node)
        result = call->in.error ?: fs_stat(node, &st);
    fs_node_put(node);
    if (result)
        return result;
    p9_put(out, GETATTR_BASIC, 8);
    result = p9_put_qid(out, call->fsdev, &st);
    p9_put(out, st.st_mode, 4);
    p9_put(out, st.st_uid, 4);
    p9_put(out, st.st_gid, 4);
    p9_put(out, st.st_nlink, 8);
    p9_put(out, st.st_rdev, 8);
    p9_put(out, (uint64_t)st.st_size, 8);
    p9_put(out, (uint64_t)st.st_blksize, 8);
    p9_put(out, (uint64_t)st.st_blocks, 8);
    put_time(out, st.st_atim);
    put_time(out, st.st_mtim);
    put_time(out, st.st_ctim);
    put_time(out, (struct timespec){ 0 }); /* birth, generation, data version: not said to be there */
    p9_put(out, 0, 8);
    p9_put(out, 0, 8);
    return result;
}

/* ---- Setting ---- */

struct changes {
    uint32_t valid, mode, uid, gid;
    uint64_t size;
    struct timespec times[2];
};

static struct timespec get_time(struct p9_in *in)
{
    struct timespec time;

    time.tv_sec = (time_t)p9_get(in, 8);
    time.tv_nsec = (long)(p9_get(in, 8) % 1000000000u);
    return time;
}

static int set_times(struct fs_node *node, const struct changes *changes)
{
    struct timespec times[2] = { changes->times[0], changes->times[1] };
    char path[FS_PROC_PATH];

    if (!(changes->valid & SET_ATIME))
        times[0].tv_nsec = UTIME_OMIT;
    else if (!(changes->valid & SET_ATIME_TO))
        times[0].tv_nsec = UTIME_NOW;
    if (!(changes->valid & SET_MTIME))
        times[1].tv_nsec = UTIME_OMIT;
    else if (!(changes->valid & SET_MTIME_TO))
        times[1].tv_nsec = UTIME_NOW;
    fs_node_proc_path(node, path);
    return utimensat(AT_FDCWD, path, times, 0) ? -errno : 0;
}

static int set_size(struct fs_node *node, uint64_t size)
{
    char path[FS_PROC_PATH];

    if (!S_ISREG(node->type))
        return S_ISDIR(node->type) ? -EISDIR : -EINVAL;
    if (size > INT64_MAX)
        return -EFBIG;
    fs_node_proc_path(node, path);
    return truncate(path, (off_t)size) ? -errno : 0;
}

/* The owner first, for that takes set-user-ID bits away, which the mode may bring back. */
static int apply(struct fs_node *node, const struct changes *changes)
{
    uint32_t valid = changes->valid;
    int result = 0;

    if (valid & (SET_UID | SET_GID))
        result = fs_set_owner(node, valid & SET_UID ? changes->uid : ~0u, valid & SET_GID ? changes->gid : ~0u);
    if (!result && (valid & SET_MODE))
        result = fs_set_mode(node, changes->mode);
    if (!result && (valid & SET_SIZE))
        result = set_size(node, changes->size);
    if (!result && (valid & (SET_ATIME | SET_MTIME)))
        result = set_times(node, changes);
    if (!result && valid == SET_CTIME && !fs_is_mapped(node->fsdev))
        fchownat(node->fd, "", -1u, -1u, AT_EMPTY_PATH); /* touches nothing else */
    return result;
}

int p9_setattr(struct p9_call *call)
{
    int result = 0;
    struct fs_node *node = p9_fid_node(call->server, p9_get32(&call->in), &result);
    struct changes changes;

    changes.valid = p9_get32(&call->in);
    changes.mode = p9_get32(&call->in);
    changes.uid = p9_get32(&call->in);
    changes.gid = p9_get32(&call->in);
    changes.size = p9_get(&call->in, 8);
    changes.times[0] = get_time(&call->in);
    changes.times[1] = get_time(&call->in);
    if (node)
        result = call->in.error ?: apply(node, &changes);
    fs_node_put(node);
    return result;
}

int p9_statfs(struct p9_call *call)
{
    int result = 0;
    struct fs_node *node = p9_fid_node(call->server, p9_get32(&call->in), &result);
    struct statfs fs;
    uint64_t id;

    if (node && fstatfs(node->fd, &fs))
        result = -errno;
    fs_node_put(node);
    if (result || call->in.error)
        return call->in.error ?: result;
    memcpy(&id, &fs.f_fsid, sizeof(id));
    p9_put(&call->out, V9FS_MAGIC, 4);
    p9_put(&call->out, (uint64_t)fs.f_bsize, 4);
    p9_put(&call->out, fs.f_blocks, 8);
    p9_put(&call->out, fs.f_bfree, 8);
    p9_put(&call->out, fs.f_bavail, 8);
    p9_put(&call->out, fs.f_files, 8);
    p9_put(&call->out, fs.f_ffree, 8);
    p9_put(&call->out, id, 8);
    p9_put(&call->out, (uint64_t)MIN(fs.f_namelen, FS_NAME_MAX), 4);
    return 0;
}

/* ---- Extended attributes ---- */

static int reserve(struct p9_server *server, uint32_t size)
{
    if (atomic_fetch_add(&server->xattr_bytes, size) + size <= P9_XATTR_TOTAL)
        return 0;
    atomic_fetch_sub(&server->xattr_bytes, size);
    return -ENOSPC;
}

/* Leaves out the names that a guest must not see; returns what is left of `size` bytes. */
static uint32_t filter_names(const struct fsdev *fsdev, char *names, uint32_t size)
{
    uint32_t kept = 0;

    for (uint32_t at = 0; at < size;) {
        uint32_t length = (uint32_t)strnlen(names + at, size - at) + 1;

        length = MIN(length, size - at);
        if (!fs_xattr_hidden(fsdev, names + at)) {
            memmove(names + kept, names + at, length);
            kept += length;
        }
        at += length;
    }
    return kept;
}

/* The value of `name`, or, if that is "", the list of names: malloc'ed. Size or -errno. */
static int64_t load_value(struct fs_node *node, const char *name, uint8_t **value)
{
    char path[FS_PROC_PATH];
    ssize_t size;
    int error;

    *value = malloc(P9_XATTR_MAX + 1);
    if (!*value)
        return -ENOMEM;
    fs_node_proc_path(node, path);
    if (*name)
        size = fs_xattr_hidden(node->fsdev, name) ? (errno = ENODATA, -1) : getxattr(path, name, *value, P9_XATTR_MAX);
    else
        size = listxattr(path, (char *)*value, P9_XATTR_MAX);
    error = errno;
    if (size < 0) {
        free(*value);
        *value = NULL;
        return -error;
    }
    (*value)[size] = 0;
    return *name ? size : filter_names(node->fsdev, (char *)*value, (uint32_t)size);
}

int p9_xattrwalk(struct p9_call *call)
{
    int result = 0;
    struct fs_node *node = p9_fid_node(call->server, p9_get32(&call->in), &result);
    uint32_t number = p9_get32(&call->in);
    char name[XATTR_NAME_MAX + 1];
    struct p9_fid *fid;
    uint8_t *value = NULL;
    int64_t size = 0;

    p9_get_string(&call->in, name, sizeof(name));
    if (node && !(result = call->in.error)) {
        size = load_value(node, name, &value);
        result = size < 0 ? (int)size : reserve(call->server, (uint32_t)size);
    }
    if (!result) {
        result = p9_fid_add(call->server, number, 0, fs_node_get(node), &fid);
        if (result)
            atomic_fetch_sub(&call->server->xattr_bytes, (uint32_t)size);
    }
    if (!result) {
        uint8_t *exact = realloc(value, (size_t)size + 1);
        pthread_rwlock_wrlock(&fid->lock);
        fid->kind = P9_XATTR_READ;
        fid->value = exact ? exact : value;
        fid->value_size = (uint32_t)size;
        pthread_rwlock_unlock(&fid->lock);
        p9_fid_put(call->server, fid);
        value = NULL;
        p9_put(&call->out, (uint64_t)size, 8);
    }
    free(value);
    fs_node_put(node);
    return result;
}

/* With the fid's lock held. */
static int begin_value(struct p9_server *server, struct p9_fid *fid, const char *name, uint64_t size, uint32_t flags)
{
    int result;

    if (fid->kind != P9_PATH)
        return -EBUSY;
    if (!*name)
        return -EINVAL;
    if (size > P9_XATTR_MAX)
        return -E2BIG;
    if (flags & ~(uint32_t)(XATTR_CREATE | XATTR_REPLACE))
        return -EINVAL;
    if (fs_xattr_hidden(fid->node->fsdev, name))
        return -EACCES;
    result = reserve(server, (uint32_t)size);
    if (result)
        return result;
    fid->value = calloc(1, size + 1);
    fid->xattr_name = strdup(name);
    fid->value_size = (uint32_t)size;
    fid->xattr_flags = (int)flags;
    fid->kind = P9_XATTR_WRITE;
    return fid->value && fid->xattr_name ? 0 : -ENOMEM;
}

int p9_xattrcreate(struct p9_call *call)
{
    struct p9_fid *fid = p9_fid_get(call->server, p9_get32(&call->in));
    char name[XATTR_NAME_MAX + 1];
    uint64_t size;
    uint32_t flags;
    int result;

    p9_get_string(&call->in, name, sizeof(name));
    size = p9_get(&call->in, 8);
    flags = p9_get32(&call->in);
    result = call->in.error;
    if (!result && !fid)
        result = -EBADF;
    if (!result) {
        pthread_rwlock_wrlock(&fid->lock);
        result = begin_value(call->server, fid, name, size, flags);
        pthread_rwlock_unlock(&fid->lock);
    }
    p9_fid_put(call->server, fid);
    return result;
}

/* Size 0 removes, as Linux's client means it. */
int p9_xattr_commit(struct p9_fid *fid)
{
    char path[FS_PROC_PATH];

    if (!fid->value || !fid->xattr_name)
        return -ENOMEM;
    if (fid->value_done != fid->value_size)
        return -EINVAL;
    fs_node_proc_path(fid->node, path);
    if (fid->value_size)
        return setxattr(path, fid->xattr_name, fid->value, fid->value_size, fid->xattr_flags) ? -errno : 0;
    return removexattr(path, fid->xattr_name) ? -errno : 0;
}

void p9_xattr_free(struct p9_server *server, struct p9_fid *fid)
{
    if (fid->kind == P9_XATTR_READ || fid->kind == P9_XATTR_WRITE)
        atomic_fetch_sub(&server->xattr_bytes, fid->value_size);
    free(fid->value);
    free(fid->xattr_name);
}
