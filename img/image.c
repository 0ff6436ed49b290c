/* Raw and qcow2 images by path, with the files below them. A chain of backing files may be as long as there are descriptors for; a file
 * that is below itself is refused. */
#include "img/img.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAX_CHAIN 500 /* each level is a frame on the stack while something is read through all of them */

/* Who is being opened, from the image that the user named downwards. */
struct chain {
    const struct chain *above;
    dev_t device;
    ino_t inode;
    const char *path;
    unsigned flags, depth;
    struct img *img;
};

static int open_in_chain(const char *path, const char *format, unsigned flags, const struct chain *above,
                         struct img **opened, struct error *err);

int img_check_format(const char *format, struct error *err)
{
    if (format && strcmp(format, "raw") && strcmp(format, "qcow2"))
        return error_set(err, EINVAL, "format '%s' is not supported: raw and qcow2 are", format);
    return 0;
}

/* ---- As backing file ---- */

static int backing_read(void *opaque, uint64_t offset, const struct iovec *iov, unsigned count)
{
    int result = 0;

    for (unsigned i = 0; i < count && !result; i++) {
        result = img_read(opaque, offset, iov[i].iov_base, iov[i].iov_len);
        offset += iov[i].iov_len;
    }
    return result;
}

static uint64_t backing_size(void *opaque)
{
    return ((struct img *)opaque)->size;
}

static void backing_close(void *opaque)
{
    img_close(opaque);
}

static const struct qcow2_backing_ops backing_ops = { backing_read, backing_size, backing_close };

static int open_backing(void *opaque, const char *name, const char *format, struct qcow2_backing *backing,
                        struct error *err)
{
    const struct chain *chain = opaque;
    char *path = qcow2_backing_path(chain->path, name, err);
    struct img *img;
    int result;

    if (!path)
        return -EINVAL;
    result = open_in_chain(path, format, chain->flags & IMG_FORCE_SHARE, chain, &img, err);
    free(path);
    if (result)
        return result;
    chain->img->backing = img;
    *backing = (struct qcow2_backing){ &backing_ops, img };
    return 0;
}

/* ---- Open, close ---- */

static int check_loop(const struct chain *chain, struct error *err)
{
    for (const struct chain *above = chain->above; above; above = above->above) {
        if (above->device == chain->device && above->inode == chain->inode)
            return error_set(err, ELOOP, "'%s' is its own backing file", chain->path);
    }
    if (chain->depth > MAX_CHAIN)
        return error_set(err, ELOOP, "more than %u backing files, one below the other", MAX_CHAIN);
    return 0;
}

static int open_format(struct img *img, const char *format, unsigned flags, struct chain *chain, struct error *err)
{
    struct qcow2_backing_opener opener = { open_backing, chain };
    unsigned qcow2_flags = (flags & IMG_WRITE ? 0 : QCOW2_READ_ONLY) | (flags & IMG_NO_BACKING ? QCOW2_NO_BACKING : 0) |
                           (flags & IMG_CHECK ? QCOW2_CHECK : 0);
    int result = 0;

    if (!format) {
        result = qcow2_probe(&img->file);
        if (result < 0)
            return error_set(err, -result, "'%s' cannot be read: %s", img->path, strerror(-result));
        format = result ? "qcow2" : "raw";
    }
    img->format = strcmp(format, "qcow2") ? "raw" : "qcow2";
    if (!strcmp(img->format, "raw")) {
        result = img->file.ops->size(img->file.opaque, &img->size);
        return result ? error_set(err, -result, "'%s': %s", img->path, strerror(-result)) : 0;
    }
    result = qcow2_open(&img->file, &opener, qcow2_flags, &img->qcow2, err);
    if (result)
        return error_prefix(err, result, "'%s'", img->path);
    img->size = qcow2_size(img->qcow2);
    return 0;
}

static int open_in_chain(const char *path, const char *format, unsigned flags, const struct chain *above,
                         struct img **opened, struct error *err)
{
    struct chain chain = { .above = above, .flags = flags, .depth = above ? above->depth + 1 : 0 };
    unsigned host_flags = (flags & IMG_WRITE ? QCOW2_HOST_WRITE : 0) |
                          (flags & IMG_FORCE_SHARE ? QCOW2_HOST_FORCE_SHARE : 0) |
                          (flags & IMG_UNSAFE ? QCOW2_HOST_UNSAFE : 0);
    struct img *img = calloc(1, sizeof(*img));
    struct stat status;
    int result;

    *opened = NULL;
    if (img)
        img->path = strdup(path);
    if (!img || !img->path) {
        free(img);
        return error_set(err, ENOMEM, "no memory");
    }
    result = img_check_format(format, err);
    if (!result)
        result = qcow2_host_file_open(path, host_flags, &img->file, err);
    if (!result && !fstat(qcow2_host_file_fd(&img->file), &status)) {
        chain.device = status.st_dev;
        chain.inode = status.st_ino;
        chain.path = img->path;
        chain.img = img;
        result = check_loop(&chain, err);
    }
    if (!result)
        result = open_format(img, format, flags, &chain, err);
    if (result)
        img_close(img);
    else
        *opened = img;
    return result;
}

int img_open(const char *path, const char *format, unsigned flags, struct img **img, struct error *err)
{
    return open_in_chain(path, format, flags, NULL, img, err);
}

int img_close(struct img *img)
{
    int result = 0;

    if (!img)
        return 0;
    if (img->qcow2)
        result = qcow2_close(img->qcow2);
    else if (img->file.ops)
        img->file.ops->close(img->file.opaque);
    free(img->path);
    free(img);
    return result;
}

/* ---- Bytes ---- */

int img_read(struct img *img, uint64_t offset, void *data, uint64_t size)
{
    uint64_t inside = offset < img->size ? MIN(size, img->size - offset) : 0;
    struct iovec iov = { data, inside };

    memset((char *)data + inside, 0, size - inside);
    if (!inside)
        return 0;
    return img->qcow2 ? qcow2_read(img->qcow2, offset, &iov, 1)
                      : img->file.ops->read(img->file.opaque, offset, &iov, 1);
}

int img_write(struct img *img, uint64_t offset, const void *data, uint64_t size)
{
    struct iovec iov = { (void *)data, size };

    return img->qcow2 ? qcow2_write(img->qcow2, offset, &iov, 1)
                      : img->file.ops->write(img->file.opaque, offset, &iov, 1);
}

int img_write_zeroes(struct img *img, uint64_t offset, uint64_t size)
{
    static const uint8_t zeroes[65536];
    int result;

    if (img->qcow2)
        return qcow2_write_zeroes(img->qcow2, offset, size, true);
    result = img->file.ops->zero(img->file.opaque, offset, size, true);
    for (uint64_t done = 0, part; result == -ENOTSUP && done < size; done += part) {
        part = MIN(size - done, sizeof(zeroes));
        result = img_write(img, offset + done, zeroes, part);
        if (!result)
            result = done + part < size ? -ENOTSUP : 0;
    }
    return result;
}

int img_flush(struct img *img)
{
    return img->qcow2 ? qcow2_flush(img->qcow2) : img->file.ops->flush(img->file.opaque);
}

/* ---- Where things are ---- */

/* A file system that knows no holes says that all is data. */
static void raw_status(struct img *img, uint64_t offset, uint64_t size, struct img_status *status)
{
    int fd = qcow2_host_file_fd(&img->file);
    off_t data = lseek(fd, (off_t)offset, SEEK_DATA), hole;

    status->present = status->has_offset = true;
    status->offset = offset;
    status->data = true;
    if (data < 0 && errno != ENXIO)
        return;
    if (data < 0 || (uint64_t)data > offset) {
        status->data = false;
        status->zero = true;
        if (data >= 0)
            status->size = MIN(size, (uint64_t)data - offset);
        return;
    }
    hole = lseek(fd, (off_t)offset, SEEK_HOLE);
    if (hole > (off_t)offset)
        status->size = MIN(size, (uint64_t)hole - offset);
}

int img_status(struct img *img, uint64_t offset, uint64_t size, struct img_status *status)
{
    struct qcow2_extent extent;
    int result;

    *status = (struct img_status){ .size = size, .layer = img };
    for (;; status->depth++, img = img->backing) {
        status->layer = img;
        if (offset >= img->size) {
            status->zero = true;
            return 0;
        }
        status->size = MIN(status->size, img->size - offset);
        if (!img->qcow2) {
            raw_status(img, offset, status->size, status);
            return 0;
        }
        result = qcow2_extent(img->qcow2, offset, status->size, &extent);
        if (result)
            return result;
        status->size = extent.size;
        if (extent.kind != QCOW2_BACKING || !img->backing)
            break;
    }
    status->present = extent.kind != QCOW2_UNALLOCATED;
    status->zero = extent.kind == QCOW2_ZERO || extent.kind == QCOW2_UNALLOCATED;
    status->data = !status->zero;
    status->compressed = extent.kind == QCOW2_COMPRESSED;
    status->has_offset = extent.kind == QCOW2_DATA || (extent.kind == QCOW2_ZERO && extent.host_offset);
    status->offset = status->has_offset ? extent.host_offset : 0;
    return 0;
}
