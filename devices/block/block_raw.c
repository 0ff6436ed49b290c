/* The raw format: the bytes of the node below, or with offset= and size= a part of them. */
#include "devices/block/block_internal.h"

#include <errno.h>
#include <string.h>

struct raw_node {
    struct block_node node;
    uint64_t offset;
};

static int raw_open(struct block_node *node, struct block_open *open, struct error *err)
{
    struct raw_node *raw = container_of(node, struct raw_node, node);
    struct block_node *file = block_node_open_file(open, err);
    uint64_t size;
    int ret;

    if (!file)
        return -EINVAL;
    node->file = file;
    ret = block_open_get_size(open, "offset", 0, &raw->offset, err);
    if (!ret && (raw->offset > file->size || raw->offset % SECTOR_SIZE))
        ret = error_set(err, EINVAL, "offset=%llu: a multiple of 512 inside the file expected",
                        (unsigned long long)raw->offset);
    if (!ret)
        ret = block_open_get_size(open, "size", file->size - raw->offset, &size, err);
    if (ret)
        return ret;
    if (size > file->size - raw->offset || size % SECTOR_SIZE)
        return error_set(err, EINVAL, "size=%llu: a multiple of 512 that the file has expected",
                         (unsigned long long)size);
    node->size = size;
    node->filename = strdup(file->filename);
    node->logical_block_size = file->logical_block_size;
    node->physical_block_size = file->physical_block_size;
    node->granularity = file->granularity;
    node->can_discard = file->can_discard;
    node->flags.read_only = file->flags.read_only; /* auto-read-only */
    if (node->granularity && raw->offset % node->granularity)
        return error_set(err, EINVAL, "offset=%llu: cache.direct=on needs a multiple of %u",
                         (unsigned long long)raw->offset, node->granularity);
    return node->filename ? 0 : error_set(err, ENOMEM, "out of memory");
}

static void raw_close(struct block_node *node)
{
    (void)node;
}

static struct block_transfer shifted(const struct block_node *node, const struct block_transfer *transfer)
{
    struct block_transfer below = *transfer;

    below.offset += container_of(node, struct raw_node, node)->offset;
    return below;
}

static int raw_run(struct block_node *node, const struct block_transfer *transfer)
{
    struct block_transfer below = shifted(node, transfer);

    return block_node_run(node->file, &below);
}

static bool raw_map(struct block_node *node, const struct block_transfer *transfer, struct block_extent *extent)
{
    struct block_transfer below = shifted(node, transfer);
    struct block_node *file = node->file;

    return file->driver->map && file->driver->map(file, &below, extent);
}

static bool raw_serialises(struct block_node *node, const struct block_transfer *transfer)
{
    struct block_transfer below = shifted(node, transfer);
    struct block_node *file = node->file;

    return file->driver->serialises && file->driver->serialises(file, &below);
}

const struct block_driver block_raw_driver = {
    .name = "raw",
    .size = sizeof(struct raw_node),
    .open = raw_open,
    .close = raw_close,
    .run = raw_run,
    .map = raw_map,
    .serialises = raw_serialises,
};
