/* Opening files and block devices: kinds, access, locks, the alignment that O_DIRECT asks for, sizes. Main thread. */
#include "devices/block/block_file.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- Options ---- */

static const char *const aio_words[] = { "threads", "native", "io_uring", NULL };
static const char *const locking_words[] = { "auto", "on", "off", NULL };

static int read_options(struct block_node *node, struct block_open *open, struct error *err)
{
    unsigned aio = node->flags.aio - BLOCK_AIO_THREADS, locking = node->flags.locking;
    const char *filename = open->filename;
    int ret;

    if (!filename)
        return error_set(err, EINVAL, "%sfilename is missing", open->prefix);
    for (size_t i = 0; i < 3; i++) {
        static const char *const protocols[] = { "file:", "host_device:", "host_cdrom:" };

        if (!strncmp(filename, protocols[i], strlen(protocols[i]))) {
            filename += strlen(protocols[i]);
            break;
        }
    }
    node->filename = strdup(filename);
    if (!node->filename)
        return error_set(err, ENOMEM, "out of memory");
    ret = block_open_get_word(open, "aio", aio_words, &aio, err);
    if (!ret)
        ret = block_open_get_word(open, "locking", locking_words, &locking, err);
    if (ret)
        return ret;
    node->flags.aio = aio + BLOCK_AIO_THREADS;
    node->flags.locking = locking;
    if (node->flags.aio == BLOCK_AIO_NATIVE && !node->flags.direct)
        return error_set(err, EINVAL, "aio=native needs cache.direct=on (cache=none or directsync)");
    if (node->flags.aio == BLOCK_AIO_URING && !aio_ring_possible())
        return error_set(err, errno, "aio=io_uring: this host refuses io_uring (%s); aio=threads works everywhere",
                         strerror(errno));
    return 0;
}

/* ---- Opening ---- */

/* O_NONBLOCK: a FIFO must not make us wait for its other end before we can refuse it. */
static int open_file(const char *filename, bool read_only, bool direct)
{
    int flags = O_CLOEXEC | O_NONBLOCK | (read_only ? O_RDONLY : O_RDWR) | (direct ? O_DIRECT : 0);
    int fd;

    do {
        fd = open(filename, flags);
    } while (fd < 0 && errno == EINTR);
    return fd < 0 ? -errno : fd;
}

static int open_error(const struct file_node *file, int ret, struct error *err)
{
    const char *filename = file->node.filename;

    switch (ret) {
    case -EINVAL:
        if (file->node.flags.direct)
            return error_set(err, EINVAL, "%s: its file system does no direct I/O: cache=none and directsync need that",
                             filename);
        break;
    case -EACCES:
    case -EROFS:
    case -EPERM:
        if (!file->node.flags.read_only)
            return error_set(err, -ret, "%s: %s for writing (readonly=on opens it for reading only)", filename,
                             strerror(-ret));
        break;
    default:
        break;
    }
    return error_set(err, -ret, "%s: %s", filename, strerror(-ret));
}

static int open_descriptor(struct file_node *file, struct error *err)
{
    struct block_flags *flags = &file->node.flags;
    int fd = open_file(file->node.filename, flags->read_only, flags->direct);

    if (flags->auto_read_only && !flags->read_only && (fd == -EACCES || fd == -EROFS || fd == -EPERM)) {
        flags->read_only = true;
        fd = open_file(file->node.filename, true, flags->direct);
    }
    if (fd < 0)
        return open_error(file, fd, err);
    file->fd = fd;
    fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) & ~O_NONBLOCK);
    return 0;
}

static int examine_kind(struct file_node *file, struct stat *status, struct error *err)
{
    const char *filename = file->node.filename;

    if (fstat(file->fd, status))
        return error_set(err, errno, "%s: %s", filename, strerror(errno));
    if (S_ISDIR(status->st_mode))
        return error_set(err, EISDIR, "%s: is a directory", filename);
    file->is_device = S_ISBLK(status->st_mode);
    if (!file->is_device && !S_ISREG(status->st_mode))
        return error_set(err, EINVAL, "%s: neither a regular file nor a block device", filename);
    if (!file->is_device && !strcmp(file->node.driver->name, "host_device"))
        return error_set(err, EINVAL, "%s: not a block device", filename);
    return 0;
}

/* ---- Sizes ---- */

static int find_size(struct file_node *file, const struct stat *status, struct error *err)
{
    struct block_node *node = &file->node;
    uint64_t size = (uint64_t)status->st_size;

    if (file->is_device) {
        int logical = SECTOR_SIZE;
        unsigned physical = SECTOR_SIZE;

        if (ioctl(file->fd, BLKGETSIZE64, &size))
            return error_set(err, errno, "%s: no size: %s", node->filename, strerror(errno));
        if (!ioctl(file->fd, BLKSSZGET, &logical) && logical >= (int)SECTOR_SIZE)
            node->logical_block_size = (uint32_t)logical;
        if (!ioctl(file->fd, BLKPBSZGET, &physical) && physical >= SECTOR_SIZE)
            node->physical_block_size = physical;
        size = ALIGN_DOWN(size, node->logical_block_size);
    }
    if (size > INT64_MAX - SECTOR_SIZE)
        return error_set(err, EFBIG, "%s: too large", node->filename);
    node->size = ALIGN_UP(size, SECTOR_SIZE);
    return 0;
}

/* What the file system says, or else a whole page, which suits all. */
static void find_alignment(struct file_node *file)
{
    struct statx statx_buffer;

    file->alignment = 1;
    if (!file->node.flags.direct)
        return;
    file->alignment = file->is_device ? file->node.logical_block_size : PAGE_SIZE;
#ifdef STATX_DIOALIGN
    if (!statx(file->fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &statx_buffer) && statx_buffer.stx_mask & STATX_DIOALIGN &&
        statx_buffer.stx_dio_offset_align) {
        uint32_t alignment = MAX(statx_buffer.stx_dio_mem_align, statx_buffer.stx_dio_offset_align);

        if (!(alignment & (alignment - 1)) && alignment <= PAGE_SIZE)
            file->alignment = MAX(alignment, SECTOR_SIZE);
    }
#else
    (void)statx_buffer;
#endif
}

/* The guest's requests are multiples of 512, and what formats keep in a file need not even be that: there must be a way
 * around O_DIRECT. */
static int open_buffered(struct file_node *file, struct error *err)
{
    struct block_node *node = &file->node;
    int fd;

    if (file->alignment == 1)
        return 0;
    fd = open_file(node->filename, node->flags.read_only, false);
    if (fd < 0)
        return open_error(file, fd, err);
    file->buffered_fd = fd;
    if (file->alignment > SECTOR_SIZE)
        node->granularity = file->alignment;
    return 0;
}

static void close_descriptors(struct file_node *file)
{
    if (file->buffered_fd >= 0)
        close(file->buffered_fd);
    if (file->fd >= 0)
        close(file->fd);
}

int block_file_open(struct block_node *node, struct block_open *open, struct error *err)
{
    struct file_node *file = container_of(node, struct file_node, node);
    struct stat status;
    int ret;

    file->fd = file->buffered_fd = -1;
    ret = read_options(node, open, err);
    if (!ret)
        ret = open_descriptor(file, err);
    if (!ret)
        ret = examine_kind(file, &status, err);
    if (!ret)
        ret = block_file_lock(file->fd, &node->flags, node->filename, err);
    if (!ret)
        ret = find_size(file, &status, err);
    if (!ret) {
        find_alignment(file);
        ret = open_buffered(file, err);
    }
    if (ret) {
        close_descriptors(file);
        return ret;
    }
    atomic_init(&file->can_punch, true);
    atomic_init(&file->can_zero, true);
    atomic_init(&file->flush_failed, false);
    node->can_discard = !node->flags.read_only && node->flags.unmap;
    return 0;
}

void block_file_close(struct block_node *node)
{
    close_descriptors(container_of(node, struct file_node, node));
}
