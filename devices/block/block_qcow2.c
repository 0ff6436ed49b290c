/* qcow2 images as nodes: the library (qcow2.h) works in blocking calls on the node below; what it says lies in the file in
 * one piece (qcow2_map) goes through the ring, pinned so that the library does not move it meanwhile. Backing files
 * are nodes too, of any format, opened for reading only. */
#include "devices/block/qcow2.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "devices/block/block_internal.h"

#define MAX_DEPTH 500 /* of backing files; opening them is recursive */

struct qcow2_node {
    struct block_node node;
    struct qcow2 *image;
    struct block_node *backing; /* the library's; here for map */
};

_Static_assert(sizeof(struct qcow2_pin) <= sizeof(((struct block_extent *)NULL)->pin), "a pin fits into an extent");

/* ---- The file below ---- */

static int run_below(void *opaque, enum block_op op, unsigned flags, uint64_t offset, uint64_t size,
                     const struct iovec *iov, unsigned count)
{
    struct block_transfer transfer = {
        .op = op, .flags = flags, .offset = offset, .size = size, .iov = iov, .iov_count = count
    };

    for (unsigned i = 0; i < count; i++)
        transfer.size += iov[i].iov_len;
    return block_node_run(opaque, &transfer);
}

static int file_read(void *opaque, uint64_t offset, const struct iovec *iov, unsigned count)
{
    return run_below(opaque, BLOCK_READ, 0, offset, 0, iov, count);
}

static int file_write(void *opaque, uint64_t offset, const struct iovec *iov, unsigned count)
{
    return run_below(opaque, BLOCK_WRITE, 0, offset, 0, iov, count);
}

static int file_flush(void *opaque)
{
    struct block_node *file = opaque;

    return file->flags.no_flush ? 0 : block_node_flush(file);
}

/* A protocol's write_zeroes keeps the size of a file; past its end there are zeroes already, once it is that large. */
static int file_zero(void *opaque, uint64_t offset, uint64_t size, bool may_unmap)
{
    struct block_node *file = opaque;
    uint64_t now;
    int ret;

    if (file->driver->get_size) {
        ret = file->driver->get_size(file, &now);
        if (!ret && offset + size > now)
            ret = file->driver->truncate(file, offset + size);
        if (ret)
            return ret;
    }
    return run_below(file, BLOCK_WRITE_ZEROES, may_unmap ? BLOCK_MAY_UNMAP : 0, offset, size, NULL, 0);
}

static int file_discard(void *opaque, uint64_t offset, uint64_t size)
{
    return run_below(opaque, BLOCK_DISCARD, 0, offset, size, NULL, 0);
}

static int file_allocate(void *opaque, uint64_t offset, uint64_t size)
{
    struct block_node *file = opaque;

    return file->driver->allocate ? file->driver->allocate(file, offset, size) : -ENOTSUP;
}

static int file_truncate(void *opaque, uint64_t size)
{
    struct block_node *file = opaque;

    if (file->driver->truncate)
        return file->driver->truncate(file, size);
    return size <= file->size ? 0 : -ENOSPC;
}

static int file_size(void *opaque, uint64_t *size)
{
    struct block_node *file = opaque;

    if (file->driver->get_size)
        return file->driver->get_size(file, size);
    *size = file->size;
    return 0;
}

static const struct qcow2_file_ops file_ops = {
    .read = file_read,
    .write = file_write,
    .flush = file_flush,
    .zero = file_zero,
    .discard = file_discard,
    .allocate = file_allocate,
    .truncate = file_truncate,
    .size = file_size,
};

/* ---- Backing files ---- */

/* What is behind the end of a backing file reads as zeroes. */
static int backing_read(void *opaque, uint64_t offset, const struct iovec *iov, unsigned count)
{
    struct block_node *backing = opaque;
    struct block_slice slice;
    uint64_t size = 0, inside;
    int ret;

    for (unsigned i = 0; i < count; i++)
        size += iov[i].iov_len;
    inside = offset < backing->size ? MIN(size, backing->size - offset) : 0;
    block_iov_zero(iov, count, inside, size - inside);
    if (!inside)
        return 0;
    if (block_slice_init(&slice, iov, count, 0, inside))
        return -ENOMEM;
    ret = run_below(backing, BLOCK_READ, 0, offset, 0, slice.iov, slice.count);
    block_slice_free(&slice);
    return ret;
}

static uint64_t backing_size(void *opaque)
{
    return ((struct block_node *)opaque)->size;
}

static void backing_close(void *opaque)
{
    block_node_put(opaque);
}

static const struct qcow2_backing_ops backing_ops = {
    .read = backing_read,
    .size = backing_size,
    .close = backing_close,
};

struct opening {
    struct qcow2_node *node;
    struct block_open *open;
    struct block_chain chain; /* with this image */
};

static int check_loop(const struct block_chain *chain, const char *path, struct error *err)
{
    struct stat status;

    if (chain->depth >= MAX_DEPTH)
        return error_set(err, ELOOP, "more than %d backing files below each other", MAX_DEPTH);
    if (stat(path, &status))
        return 0; /* opening it says why */
    for (; chain; chain = chain->above) {
        if (chain->inode == status.st_ino && chain->device == status.st_dev)
            return error_set(err, ELOOP, "%s: the backing files form a loop", path);
    }
    return 0;
}

/* backing=NODE, backing.driver=... */
static struct block_node *backing_of_options(struct opening *opening, bool *none, struct error *err)
{
    struct block_open below = *opening->open;
    const char *reference = block_open_get(opening->open, "backing");

    *none = reference && !*reference;
    if (reference)
        return *none ? NULL : block_node_reference(opening->open, "backing", reference, err);
    if (strlen(below.prefix) + 9 > sizeof(below.prefix)) {
        error_set(err, EINVAL, "%s: nested too deeply", below.prefix);
        return NULL;
    }
    strcat(below.prefix, "backing.");
    below.filename = NULL;
    below.flags.read_only = true;
    below.flags.detect_zeroes = BLOCK_DETECT_OFF;
    below.chain = &opening->chain;
    return block_node_open(&below, NULL, err);
}

static bool options_have_backing(struct block_open *open)
{
    static const char *const keys[] = { "backing", "backing.driver", "backing.file.driver", "backing.file.filename",
                                        "backing.file" };
    bool found = false;

    for (size_t i = 0; i < ARRAY_SIZE(keys); i++) {
        char key[128];

        snprintf(key, sizeof(key), "%s%s", open->prefix, keys[i]);
        for (size_t j = 0; j < open->options->count; j++)
            found |= !strcmp(open->options->pairs[j].key, key);
    }
    return found;
}

/* What the image's header names. Its options are the image's flags, and no others. */
static struct block_node *backing_of_header(struct opening *opening, const char *name, const char *format,
                                            struct error *err)
{
    struct option_list none = { 0 };
    struct block_open below = {
        .registry = opening->open->registry,
        .options = &none,
        .flags = opening->open->flags,
        .chain = &opening->chain,
    };
    bool is_nbd = !strncmp(name, "nbd:", 4) || !strncmp(name, "nbd+", 4);
    char *path = is_nbd ? strdup(name) : qcow2_backing_path(opening->node->node.filename, name, err);
    struct block_node *backing = NULL;

    below.flags.read_only = true;
    below.flags.detect_zeroes = BLOCK_DETECT_OFF;
    if (!path || (!is_nbd && check_loop(&opening->chain, path, err)))
        goto out;
    if (format && block_options_add(&none, "driver", format, err))
        goto out;
    below.filename = path;
    backing = block_node_open(&below, NULL, err);
    options_free(&none);
out:
    free(path);
    return backing;
}

static int open_backing(void *opaque, const char *name, const char *format, struct qcow2_backing *result,
                        struct error *err)
{
    struct opening *opening = opaque;
    struct block_node *backing;
    bool none = false;

    if (options_have_backing(opening->open))
        backing = backing_of_options(opening, &none, err);
    else
        backing = backing_of_header(opening, name, format, err);
    if (!backing)
        return -EINVAL;
    opening->node->backing = backing;
    *result = (struct qcow2_backing){ .ops = &backing_ops, .opaque = backing };
    return 0;
}

/* ---- The node ---- */

static void note_in_chain(struct opening *opening, const struct block_chain *above)
{
    struct stat status;

    opening->chain = (struct block_chain){ .above = above, .depth = above ? above->depth + 1 : 0 };
    if (!stat(opening->node->node.filename, &status)) {
        opening->chain.device = status.st_dev;
        opening->chain.inode = status.st_ino;
    }
}

static int qcow2_node_open(struct block_node *node, struct block_open *open, struct error *err)
{
    struct qcow2_node *qcow2 = container_of(node, struct qcow2_node, node);
    struct block_node *file = block_node_open_file(open, err);
    struct opening opening = { .node = qcow2, .open = open };
    struct qcow2_backing_opener opener = { .open = open_backing, .opaque = &opening };
    struct qcow2_file below = { .ops = &file_ops, .opaque = file };
    const char *backing = block_open_get(open, "backing");
    unsigned flags;
    int ret;

    if (!file)
        return -EINVAL;
    node->file = file;
    node->filename = strdup(file->filename);
    if (!node->filename)
        return error_set(err, ENOMEM, "out of memory");
    note_in_chain(&opening, open->chain);
    node->flags.read_only = file->flags.read_only;
    flags = (node->flags.read_only ? QCOW2_READ_ONLY : 0) | (node->flags.unmap ? QCOW2_UNMAP : 0) |
            (backing && !*backing ? QCOW2_NO_BACKING : 0);
    ret = qcow2_open(&below, &opener, flags, &qcow2->image, err);
    if (ret)
        return error_prefix(err, ret, "%s", node->filename);
    node->size = ALIGN_DOWN(qcow2_size(qcow2->image), SECTOR_SIZE);
    node->can_discard = !node->flags.read_only;
    return 0;
}

static void qcow2_node_close(struct block_node *node)
{
    struct qcow2_node *qcow2 = container_of(node, struct qcow2_node, node);

    qcow2_close(qcow2->image);
}

static int qcow2_node_run(struct block_node *node, const struct block_transfer *transfer)
{
    struct qcow2 *image = container_of(node, struct qcow2_node, node)->image;
    int ret = -EINVAL;

    switch (transfer->op) {
    case BLOCK_READ:
        return qcow2_read(image, transfer->offset, transfer->iov, transfer->iov_count);
    case BLOCK_DISCARD:
        return qcow2_discard(image, transfer->offset, transfer->size);
    case BLOCK_FLUSH:
        return qcow2_flush(image);
    case BLOCK_WRITE:
        ret = qcow2_write(image, transfer->offset, transfer->iov, transfer->iov_count);
        break;
    case BLOCK_WRITE_ZEROES:
        ret = qcow2_write_zeroes(image, transfer->offset, transfer->size, transfer->flags & BLOCK_MAY_UNMAP);
        break;
    }
    return !ret && transfer->flags & BLOCK_FUA ? qcow2_flush(image) : ret;
}

static bool map_below(struct block_node *node, const struct block_transfer *transfer, uint64_t offset,
                      struct block_extent *extent)
{
    struct block_transfer below = *transfer;

    below.offset = offset;
    return node->driver->map && node->driver->map(node, &below, extent);
}

/* A write that must be on stable storage needs the tables there too: that is a worker thread's. */
static bool qcow2_node_map(struct block_node *node, const struct block_transfer *transfer, struct block_extent *extent)
{
    struct qcow2_node *qcow2 = container_of(node, struct qcow2_node, node);
    struct qcow2_pin *pin = (struct qcow2_pin *)extent->pin;
    uint64_t offset = transfer->offset, size = transfer->size;
    bool write = transfer->op == BLOCK_WRITE;
    struct block_extent below = { 0 };
    struct qcow2_extent where;

    extent->pinned = NULL;
    *pin = (struct qcow2_pin){ 0 };
    if ((write && transfer->flags & BLOCK_FUA) || qcow2_map(qcow2->image, offset, size, write, pin, &where))
        return false;
    if (where.kind == QCOW2_BACKING && !write && where.size >= size && qcow2->backing &&
        offset + size <= qcow2->backing->size)
        return map_below(qcow2->backing, transfer, offset, extent);
    if (where.kind != QCOW2_DATA)
        return false;
    if (where.size >= size && (!write || where.in_place) &&
        map_below(node->file, transfer, where.host_offset, &below)) {
        extent->fd = below.fd; /* the pin is in the extent, which stays where it is; a file has none of its own */
        extent->offset = below.offset;
        extent->alignment = below.alignment;
        extent->pinned = node;
        return true;
    }
    qcow2_unpin(qcow2->image, pin);
    return false;
}

static void qcow2_node_unmap(struct block_node *node, struct block_extent *extent)
{
    qcow2_unpin(container_of(node, struct qcow2_node, node)->image, (struct qcow2_pin *)extent->pin);
}

const struct block_driver block_qcow2_driver = {
    .name = "qcow2",
    .size = sizeof(struct qcow2_node),
    .open = qcow2_node_open,
    .close = qcow2_node_close,
    .run = qcow2_node_run,
    .map = qcow2_node_map,
    .unmap = qcow2_node_unmap,
};
