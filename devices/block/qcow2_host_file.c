/* Files and block devices of the host under images, for tools, with QEMU's locks. A lock is a byte that is locked for reading: byte
 * 100+n says that a permission is held, byte 200+n that nobody else may have it; whoever wants one looks whether another process has
 * the byte that contradicts. So any number of readers, or one writer. Any thread. */
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "devices/block/qcow2.h"

#define LOCK_HELD     100
#define LOCK_UNSHARED 200
/* Permissions, as QEMU numbers them. */
enum { CONSISTENT_READ = 1 << 0, WRITE = 1 << 1, WRITE_UNCHANGED = 1 << 2, RESIZE = 1 << 3 };
static const char *const permission_names[] = { "consistent read", "write", "write unchanged", "resize" };

struct host_file {
    int fd;
    unsigned flags;
    bool device;
    atomic_bool flush_failed; /* the kernel forgets what it could not write: no later flush may say that all is well */
};

/* ---- I/O ---- */

/* Calls preadv or pwritev until all is done. At the end of the file a read gets zeroes. */
static int transfer(struct host_file *file, uint64_t offset, const struct iovec *iov, unsigned count, bool write)
{
    uint64_t skip = 0; /* of the first element */

    if (offset > INT64_MAX)
        return -EFBIG;
    while (count) {
        struct iovec part[64];
        unsigned used = MIN(count, ARRAY_SIZE(part));
        ssize_t got;

        memcpy(part, iov, used * sizeof(*iov));
        part[0].iov_base = (uint8_t *)part[0].iov_base + skip;
        part[0].iov_len -= skip;
        got = write ? pwritev(file->fd, part, (int)used, (off_t)offset)
                    : preadv(file->fd, part, (int)used, (off_t)offset);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return -errno;
        if (!got && write)
            return -ENOSPC;
        for (unsigned i = 0; !got && i < used; i++)
            memset(part[i].iov_base, 0, part[i].iov_len);
        if (!got) {
            iov += used;
            count -= used;
            skip = 0;
            continue;
        }
        offset += (uint64_t)got;
        skip += (uint64_t)got;
        while (count && skip >= iov->iov_len) {
            skip -= iov->iov_len;
            iov++;
            count--;
        }
    }
    return 0;
}

static int host_read(void *opaque, uint64_t offset, const struct iovec *iov, unsigned count)
{
    return transfer(opaque, offset, iov, count, false);
}

static int host_write(void *opaque, uint64_t offset, const struct iovec *iov, unsigned count)
{
    return transfer(opaque, offset, iov, count, true);
}

static int host_flush(void *opaque)
{
    struct host_file *file = opaque;

    if (file->flags & QCOW2_HOST_UNSAFE)
        return 0;
    if (atomic_load(&file->flush_failed))
        return -EIO;
    if (fdatasync(file->fd)) {
        atomic_store(&file->flush_failed, true);
        return -errno;
    }
    return 0;
}

static int allocate(struct host_file *file, int mode, uint64_t offset, uint64_t size)
{
    int result;

    do {
        result = fallocate(file->fd, mode, (off_t)offset, (off_t)size) ? -errno : 0;
    } while (result == -EINTR);
    return result;
}

static int host_zero(void *opaque, uint64_t offset, uint64_t size, bool may_unmap)
{
    struct host_file *file = opaque;
    uint64_t file_size = (uint64_t)lseek(file->fd, 0, SEEK_END);
    int result = -ENOTSUP;

    if (offset + size > file_size && !file->device && ftruncate(file->fd, (off_t)(offset + size)))
        return -errno;
    if (may_unmap)
        result = allocate(file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, size);
    if (result)
        result = allocate(file, FALLOC_FL_ZERO_RANGE, offset, size);
    return result == -EOPNOTSUPP || result == -ENODEV || result == -ENOSYS || result == -EINVAL ? -ENOTSUP : result;
}

static int host_discard(void *opaque, uint64_t offset, uint64_t size)
{
    return allocate(opaque, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, size);
}

static int host_allocate(void *opaque, uint64_t offset, uint64_t size)
{
    struct host_file *file = opaque;

    return file->device ? 0 : allocate(file, 0, offset, size);
}

static int host_truncate(void *opaque, uint64_t size)
{
    struct host_file *file = opaque;

    if (file->device)
        return -ENOTSUP;
    return ftruncate(file->fd, (off_t)size) ? -errno : 0;
}

static int host_size(void *opaque, uint64_t *size)
{
    off_t end = lseek(((struct host_file *)opaque)->fd, 0, SEEK_END);

    if (end < 0)
        return -errno;
    *size = (uint64_t)end;
    return 0;
}

static void host_close(void *opaque)
{
    struct host_file *file = opaque;

    close(file->fd);
    free(file);
}

static const struct qcow2_file_ops host_ops = {
    .read = host_read,
    .write = host_write,
    .flush = host_flush,
    .zero = host_zero,
    .discard = host_discard,
    .allocate = host_allocate,
    .truncate = host_truncate,
    .size = host_size,
    .close = host_close,
};

/* ---- Locks ---- */

static struct flock range(short type, off_t start)
{
    return (struct flock){ .l_type = type, .l_whence = SEEK_SET, .l_start = start, .l_len = 1 };
}

static int lock_bytes(int fd, unsigned bits, off_t base)
{
    for (unsigned n = 0; n < ARRAY_SIZE(permission_names); n++) {
        struct flock lock = range(F_RDLCK, base + (off_t)n);

        if (bits >> n & 1 && fcntl(fd, F_OFD_SETLK, &lock))
            return -errno;
    }
    return 0;
}

static int test_bytes(int fd, const char *path, unsigned bits, off_t base, struct error *err)
{
    for (unsigned n = 0; n < ARRAY_SIZE(permission_names); n++) {
        struct flock lock = range(F_WRLCK, base + (off_t)n);

        if (!(bits >> n & 1) || fcntl(fd, F_OFD_GETLK, &lock) || lock.l_type == F_UNLCK)
            continue;
        return error_set(err, EBUSY,
                         "'%s' is in use: failed to get %s\"%s\" lock (is another process using the image?)", path,
                         base == LOCK_HELD ? "shared " : "", permission_names[n]);
    }
    return 0;
}

static int lock_file(int fd, const char *path, unsigned flags, struct error *err)
{
    unsigned hold = CONSISTENT_READ, unshare = WRITE | RESIZE;
    int result;

    if (flags & QCOW2_HOST_FORCE_SHARE)
        hold = unshare = 0;
    if (flags & QCOW2_HOST_WRITE)
        hold |= WRITE | RESIZE;
    result = lock_bytes(fd, hold, LOCK_HELD);
    if (!result)
        result = lock_bytes(fd, unshare, LOCK_UNSHARED);
    if (result == -EINVAL || result == -ENOLCK || result == -EOPNOTSUPP)
        return 0; /* a file system without locks */
    if (result)
        return error_set(err, -result, "'%s' cannot be locked: %s", path, strerror(-result));
    result = test_bytes(fd, path, hold, LOCK_UNSHARED, err);
    return result ? result : test_bytes(fd, path, unshare, LOCK_HELD, err);
}

/* ---- Open ---- */

int qcow2_host_file_open(const char *path, unsigned flags, struct qcow2_file *opened, struct error *err)
{
    int mode = (flags & QCOW2_HOST_WRITE ? O_RDWR : O_RDONLY) | (flags & QCOW2_HOST_CREATE ? O_CREAT : 0) | O_CLOEXEC;
    struct host_file *file;
    struct stat status;
    int fd, result;

    if (!strncmp(path, "file:", 5))
        path += 5;
    fd = open(path, mode, 0644);
    if (fd < 0)
        return error_set(err, errno, "'%s' cannot be opened: %s", path, strerror(errno));
    if (fstat(fd, &status) || !(S_ISREG(status.st_mode) || S_ISBLK(status.st_mode))) {
        close(fd);
        return error_set(err, EINVAL, "'%s' is neither a file nor a block device", path);
    }
    result = lock_file(fd, path, flags, err);
    if (!result && flags & QCOW2_HOST_CREATE && S_ISREG(status.st_mode) && ftruncate(fd, 0))
        result = error_set(err, errno, "'%s': %s", path, strerror(errno));
    file = result ? NULL : malloc(sizeof(*file));
    if (!file) {
        close(fd);
        return result ? result : error_set(err, ENOMEM, "no memory");
    }
    *file = (struct host_file){ .fd = fd, .flags = flags, .device = S_ISBLK(status.st_mode) };
    *opened = (struct qcow2_file){ &host_ops, file };
    return 0;
}

int qcow2_host_file_fd(const struct qcow2_file *file)
{
    return ((struct host_file *)file->opaque)->fd;
}

/* "nbd://..." but not "dir/a:b". */
static bool has_protocol(const char *name)
{
    size_t length = strcspn(name, ":/");

    return name[length] == ':';
}

char *qcow2_backing_path(const char *image_path, const char *name, struct error *err)
{
    const char *slash;
    char *path;

    if (!strncmp(image_path, "file:", 5))
        image_path += 5;
    if (!strncmp(name, "file:", 5)) {
        name += 5;
    } else if (has_protocol(name)) {
        error_set(err, ENOTSUP, "'%.*s:' is not a protocol that can be used here", (int)strcspn(name, ":"), name);
        return NULL;
    }
    slash = strrchr(image_path, '/');
    path = malloc(strlen(image_path) + strlen(name) + 1);
    if (!path) {
        error_set(err, ENOMEM, "no memory");
        return NULL;
    }
    path[0] = '\0';
    if (name[0] != '/' && slash) {
        memcpy(path, image_path, (size_t)(slash - image_path) + 1);
        path[slash - image_path + 1] = '\0';
    }
    strcat(path, name);
    return path;
}
