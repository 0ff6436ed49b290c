/* The temporary overlay of -snapshot and snapshot=on: what the guest writes goes to a nameless file, the image is only
 * read. Each cluster of 64 KiB lies either in the image or in the file, at the same offset in both; a bit for each says
 * which. A cluster's first write copies the part of it that is not written.
 *
 * Two partial writes to one cluster must not both copy: while a cluster is being filled it is `busy`, and who writes to
 * it waits. A writer takes all clusters that it needs at once or none, so writers cannot wait for each other in a circle.
 * Written is for ever: discarding makes zeroes, since the image's old content must not come back.
 *
 * Any thread, any number at once. */
#include "devices/block/block_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define CLUSTER      (64 * KIB)
#define WORD_BITS    64
#define COPY_BUFFER  CLUSTER
#define ZERO_AT_ONCE GIB

struct overlay_node {
    struct block_node node; /* node.file: the image */
    struct block_node *store;
    uint64_t clusters;
    pthread_mutex_t lock;
    pthread_cond_t filled;    /* some busy cluster no longer is */
    uint64_t *written, *busy; /* bitmaps, guarded by lock */
};

static bool test_bit(const uint64_t *bitmap, uint64_t cluster)
{
    return bitmap[cluster / WORD_BITS] >> cluster % WORD_BITS & 1;
}

static void put_bit(uint64_t *bitmap, uint64_t cluster, bool value)
{
    if (value)
        bitmap[cluster / WORD_BITS] |= BIT(cluster % WORD_BITS);
    else
        bitmap[cluster / WORD_BITS] &= ~BIT(cluster % WORD_BITS);
}

/* How many clusters from `first` on, at most to `last`, are alike; whole words at a time. */
static uint64_t run_length(const struct overlay_node *overlay, uint64_t first, uint64_t last)
{
    bool value = test_bit(overlay->written, first);
    uint64_t cluster = first + 1;

    while (cluster <= last) {
        if (cluster % WORD_BITS == 0 && last - cluster >= WORD_BITS - 1 &&
            overlay->written[cluster / WORD_BITS] == (value ? UINT64_MAX : 0)) {
            cluster += WORD_BITS;
            continue;
        }
        if (test_bit(overlay->written, cluster) != value)
            break;
        cluster++;
    }
    return cluster - first;
}

/* ---- Reading ---- */

static int read_part(struct block_node *from, const struct block_transfer *transfer, uint64_t skip, uint64_t size)
{
    struct block_transfer part = { .op = BLOCK_READ, .offset = transfer->offset + skip, .size = size };
    struct block_slice slice;
    int ret;

    if (block_slice_init(&slice, transfer->iov, transfer->iov_count, skip, size))
        return -ENOMEM;
    part.iov = slice.iov;
    part.iov_count = slice.count;
    ret = block_node_run(from, &part);
    block_slice_free(&slice);
    return ret;
}

static int overlay_read(struct overlay_node *overlay, const struct block_transfer *transfer)
{
    uint64_t end = transfer->offset + transfer->size;
    int ret = 0;

    for (uint64_t at = transfer->offset, next; !ret && at < end; at = next) {
        bool written;

        pthread_mutex_lock(&overlay->lock);
        written = test_bit(overlay->written, at / CLUSTER);
        next = (at / CLUSTER + run_length(overlay, at / CLUSTER, (end - 1) / CLUSTER)) * CLUSTER;
        pthread_mutex_unlock(&overlay->lock);
        next = MIN(next, end);
        ret = read_part(written ? overlay->store : overlay->node.file, transfer, at - transfer->offset, next - at);
    }
    return ret;
}

/* ---- Writing ---- */

/* Marks what of the clusters is in the image as busy; those to be filled are then ours alone. */
static void take_clusters(struct overlay_node *overlay, uint64_t first, uint64_t last)
{
    pthread_mutex_lock(&overlay->lock);
    for (uint64_t cluster = first; cluster <= last; cluster++) {
        if (test_bit(overlay->busy, cluster)) {
            pthread_cond_wait(&overlay->filled, &overlay->lock);
            cluster = first - 1; /* from the beginning */
        }
    }
    for (uint64_t cluster = first; cluster <= last; cluster++) {
        if (!test_bit(overlay->written, cluster))
            put_bit(overlay->busy, cluster, true);
    }
    pthread_mutex_unlock(&overlay->lock);
}

/* The busy ones among them are ours: others' would have made us wait, and who came later waits for us. What was
 * written before us is not busy, and may not become so. */
static void give_clusters(struct overlay_node *overlay, uint64_t first, uint64_t last, bool success)
{
    pthread_mutex_lock(&overlay->lock);
    for (uint64_t cluster = first; cluster <= last; cluster++) {
        if (!test_bit(overlay->busy, cluster))
            continue;
        put_bit(overlay->busy, cluster, false);
        if (success)
            put_bit(overlay->written, cluster, true);
    }
    pthread_cond_broadcast(&overlay->filled);
    pthread_mutex_unlock(&overlay->lock);
}

static int copy(struct overlay_node *overlay, uint64_t from, uint64_t to)
{
    uint8_t *buffer;
    int ret;

    to = MIN(to, overlay->node.size);
    if (from >= to)
        return 0;
    buffer = aligned_alloc(PAGE_SIZE, COPY_BUFFER);
    if (!buffer)
        return -ENOMEM;
    ret = block_node_read(overlay->node.file, from, buffer, to - from);
    if (!ret)
        ret = block_node_write(overlay->store, from, buffer, to - from, 0);
    free(buffer);
    return ret;
}

/* What of the first and the last cluster the write leaves alone, if they are ours to fill. */
static int copy_edges(struct overlay_node *overlay, uint64_t offset, uint64_t end)
{
    uint64_t first = offset / CLUSTER, last = (end - 1) / CLUSTER;
    bool fill_first, fill_last;
    int ret = 0;

    pthread_mutex_lock(&overlay->lock);
    fill_first = test_bit(overlay->busy, first);
    fill_last = test_bit(overlay->busy, last);
    pthread_mutex_unlock(&overlay->lock);
    if (fill_first)
        ret = copy(overlay, first * CLUSTER, offset);
    if (!ret && fill_last)
        ret = copy(overlay, end, (last + 1) * CLUSTER);
    return ret;
}

static int overlay_write(struct overlay_node *overlay, const struct block_transfer *transfer)
{
    struct block_transfer below = *transfer;
    uint64_t end = transfer->offset + transfer->size;
    uint64_t first = transfer->offset / CLUSTER, last = (end - 1) / CLUSTER;
    int ret;

    take_clusters(overlay, first, last);
    ret = copy_edges(overlay, transfer->offset, end);
    if (!ret)
        ret = block_node_run(overlay->store, &below);
    give_clusters(overlay, first, last, !ret);
    return ret;
}

/* A guest may zero its whole disk with one request; the lock is for all, so it is held for a part at a time. */
static int overlay_write_zeroes(struct overlay_node *overlay, const struct block_transfer *transfer)
{
    struct block_transfer part = *transfer;
    uint64_t end = transfer->offset + transfer->size;
    int ret = 0;

    for (; !ret && part.offset < end; part.offset += part.size) {
        part.size = MIN(end - part.offset, ZERO_AT_ONCE);
        ret = overlay_write(overlay, &part);
    }
    return ret;
}

/* A discard of part of a cluster is ignored; whole ones become zeroes. */
static int overlay_discard(struct overlay_node *overlay, const struct block_transfer *transfer)
{
    struct block_transfer zero = { .op = BLOCK_WRITE_ZEROES, .flags = BLOCK_MAY_UNMAP };
    uint64_t end = transfer->offset + transfer->size;

    zero.offset = ALIGN_UP(transfer->offset, CLUSTER);
    if (end < overlay->node.size)
        end = ALIGN_DOWN(end, CLUSTER);
    if (zero.offset >= end)
        return 0;
    zero.size = end - zero.offset;
    return overlay_write_zeroes(overlay, &zero);
}

static int overlay_run(struct block_node *node, const struct block_transfer *transfer)
{
    struct overlay_node *overlay = container_of(node, struct overlay_node, node);

    switch (transfer->op) {
    case BLOCK_READ:
        return transfer->size ? overlay_read(overlay, transfer) : 0;
    case BLOCK_WRITE:
        return transfer->size ? overlay_write(overlay, transfer) : 0;
    case BLOCK_WRITE_ZEROES:
        return overlay_write_zeroes(overlay, transfer);
    case BLOCK_DISCARD:
        return overlay_discard(overlay, transfer);
    case BLOCK_FLUSH:
        return 0; /* it does not outlive us */
    }
    return -EINVAL;
}

/* Clusters that are alike. Written is for ever, and who reads the image while a cluster is being filled has chosen
 * the old content of two that are both right. */
static bool overlay_map(struct block_node *node, const struct block_transfer *transfer, struct block_extent *extent)
{
    struct overlay_node *overlay = container_of(node, struct overlay_node, node);
    uint64_t first = transfer->offset / CLUSTER, last = (transfer->offset + transfer->size - 1) / CLUSTER;
    struct block_node *below;
    bool written, alike;

    pthread_mutex_lock(&overlay->lock);
    written = test_bit(overlay->written, first);
    alike = run_length(overlay, first, last) == last - first + 1;
    pthread_mutex_unlock(&overlay->lock);
    if (!alike || (!written && transfer->op != BLOCK_READ))
        return false;
    below = written ? overlay->store : node->file;
    return below->driver->map && below->driver->map(below, transfer, extent);
}

/* ---- Life ---- */

static void overlay_close(struct block_node *node)
{
    struct overlay_node *overlay = container_of(node, struct overlay_node, node);

    block_node_put(overlay->store);
    pthread_cond_destroy(&overlay->filled);
    pthread_mutex_destroy(&overlay->lock);
    free(overlay->written);
    free(overlay->busy);
}

static int overlay_open_nothing(struct block_node *node, struct block_open *open, struct error *err)
{
    (void)node, (void)open;
    return error_set(err, EINVAL, "an overlay is made by snapshot=on");
}

static const struct block_driver overlay_driver = {
    .name = "overlay",
    .size = sizeof(struct overlay_node),
    .open = overlay_open_nothing,
    .close = overlay_close,
    .run = overlay_run,
    .map = overlay_map,
};

/* In $TMPDIR or /var/tmp, which is on a disk more often than /tmp is. */
static int make_file(uint64_t size, char *path, size_t path_size, struct error *err)
{
    const char *folder = getenv("TMPDIR");
    int fd;

    folder = folder && *folder ? folder : "/var/tmp";
    snprintf(path, path_size, "%s/eidolon-snapshot-XXXXXX", folder);
    fd = mkostemp(path, O_CLOEXEC);
    if (fd < 0)
        return error_set(err, errno, "snapshot: no temporary file in %s: %s (TMPDIR says where)", folder,
                         strerror(errno));
    if (ftruncate(fd, (off_t)size)) {
        int ret = error_set(err, errno, "snapshot: a file of %llu bytes in %s: %s (TMPDIR says where)",
                            (unsigned long long)size, folder, strerror(errno));
        unlink(path);
        close(fd);
        return ret;
    }
    return fd;
}

static struct block_node *open_store(struct block_registry *registry, const struct block_flags *flags, uint64_t size,
                                     struct error *err)
{
    struct option_list none = { 0 };
    char path[PATH_MAX];
    struct block_open open = {
        .registry = registry,
        .options = &none,
        .prefix = "snapshot.",
        .filename = path,
        .flags = { .unmap = true, .locking = BLOCK_LOCK_OFF },
    };
    struct block_node *store;
    int fd = make_file(size, path, sizeof(path), err);

    if (fd < 0)
        return NULL;
    open.flags.aio = flags->aio == BLOCK_AIO_THREADS ? BLOCK_AIO_THREADS : BLOCK_AIO_AUTO;
    store = block_node_open_with(block_driver_find("file"), &open, err);
    unlink(path);
    close(fd);
    return store;
}

struct block_node *block_overlay_open(struct block_registry *registry, struct block_node *base, struct error *err)
{
    struct overlay_node *overlay = calloc(1, sizeof(*overlay));

    if (!overlay)
        goto no_memory;
    pthread_mutex_init(&overlay->lock, NULL);
    pthread_cond_init(&overlay->filled, NULL);
    overlay->node = (struct block_node){
        .driver = &overlay_driver,
        .file = base,
        .filename = strdup(base->filename),
        .size = base->size,
        .logical_block_size = base->logical_block_size,
        .physical_block_size = base->physical_block_size,
        .flags = base->flags,
        .can_discard = true,
        .references = 1,
    };
    overlay->node.flags.read_only = false;
    overlay->clusters = (base->size + CLUSTER - 1) / CLUSTER;
    overlay->written = calloc(overlay->clusters / WORD_BITS + 1, sizeof(uint64_t));
    overlay->busy = calloc(overlay->clusters / WORD_BITS + 1, sizeof(uint64_t));
    if (!overlay->node.filename || !overlay->written || !overlay->busy) {
        base = NULL;
        goto no_memory;
    }
    overlay->store = open_store(registry, &base->flags, base->size, err);
    if (!overlay->store) {
        block_node_put(&overlay->node);
        return NULL;
    }
    return &overlay->node;

no_memory:
    error_set(err, ENOMEM, "snapshot: out of memory");
    if (overlay)
        block_node_put(&overlay->node);
    block_node_put(base);
    return NULL;
}
