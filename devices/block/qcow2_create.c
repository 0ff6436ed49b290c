/* New images: header, refcount table and block, an empty L1 table; then the image is opened and grows to its size, so that tables of any
 * size come from the code that grows them. */
#include "devices/block/qcow2_internal.h"

#include <stdlib.h>
#include <string.h>

static int check_options(const struct qcow2_create_options *o, unsigned *cluster_bits, unsigned *order,
                         struct error *err)
{
    uint32_t cluster_size = o->cluster_size ? o->cluster_size : 65536, bits = o->refcount_bits ? o->refcount_bits : 16;
    unsigned version = o->version ? o->version : 3;

    if (version < 2 || version > 3)
        return error_set(err, EINVAL, "qcow2 version %u: 2 and 3 are possible", version);
    if (cluster_size & (cluster_size - 1) || cluster_size < 1u << MIN_CLUSTER_BITS ||
        cluster_size > 1u << MAX_CLUSTER_BITS)
        return error_set(err, EINVAL, "cluster size of %u bytes: a power of two between 512 and 2M is needed",
                         cluster_size);
    if (bits & (bits - 1) || bits > 64)
        return error_set(err, EINVAL, "refcount width of %u bits: a power of two up to 64 is needed", bits);
    if (version < 3 && bits != 16)
        return error_set(err, EINVAL, "refcounts other than 16 bits wide need compat=1.1 or greater");
    if (version < 3 && o->lazy_refcounts)
        return error_set(err, EINVAL, "lazy refcounts need compat=1.1 or greater");
    if (version < 3 && o->zstd)
        return error_set(err, EINVAL, "compression type zstd needs compat=1.1 or greater");
    if (o->backing_name && o->preallocation != QCOW2_PREALLOC_OFF)
        return error_set(err, EINVAL, "a backing file and preallocation cannot be used at the same time");
    *cluster_bits = (unsigned)__builtin_ctz(cluster_size);
    *order = (unsigned)__builtin_ctz(bits);
    return 0;
}

/* Cluster 0: header; 1: refcount table; 2: refcount block; 3: L1 table of one entry. */
static int write_skeleton(const struct qcow2_file *file, const struct qcow2_create_options *o, unsigned cluster_bits,
                          unsigned order, struct error *err)
{
    uint64_t cluster_size = 1ull << cluster_bits;
    unsigned version = o->version ? o->version : 3;
    uint32_t length = version < 3 ? HEADER_V2_LENGTH : HEADER_OUR_LENGTH;
    uint8_t *image = calloc(4, cluster_size);
    struct iovec iov = { image, 4 * cluster_size };
    int result;

    if (!image)
        return error_set(err, ENOMEM, "no memory");
    put_be32(image + HEADER_MAGIC, QCOW2_MAGIC);
    put_be32(image + HEADER_VERSION, version);
    put_be32(image + HEADER_CLUSTER_BITS, cluster_bits);
    put_be32(image + HEADER_L1_SIZE, 1);
    put_be64(image + HEADER_L1_OFFSET, 3 * cluster_size);
    put_be64(image + HEADER_REFTABLE_OFFSET, cluster_size);
    put_be32(image + HEADER_REFTABLE_CLUSTERS, 1);
    if (version >= 3) {
        put_be64(image + HEADER_INCOMPATIBLE, o->zstd ? QCOW2_INCOMPATIBLE_COMPRESSION : 0);
        put_be64(image + HEADER_COMPATIBLE, o->lazy_refcounts ? QCOW2_COMPATIBLE_LAZY : 0);
        put_be32(image + HEADER_REFCOUNT_ORDER, order);
        put_be32(image + HEADER_LENGTH, length);
        image[HEADER_COMPRESSION] = o->zstd;
    }
    put_be64(image + cluster_size, 2 * cluster_size);
    for (unsigned i = 0; i < 4; i++)
        qcow2_refcount_store(image + 2 * cluster_size, order, i, 1);
    result = qcow2_header_put_extensions(image, cluster_size, version, length, NULL, 0, o->backing_name,
                                         o->backing_format, err);
    if (!result) {
        result = file->ops->truncate(file->opaque, 0);
        if (result == -ENOTSUP || result == -EINVAL) /* a block device keeps its size */
            result = 0;
        if (!result)
            result = file->ops->write(file->opaque, 0, &iov, 1);
        if (result)
            error_set(err, -result, "%s", strerror(-result));
    }
    free(image);
    return result;
}

static void keep_open(void *opaque)
{
    (void)opaque;
}

int qcow2_create(const struct qcow2_file *file, const struct qcow2_create_options *options, struct error *err)
{
    struct qcow2_file_ops ops = *file->ops;
    struct qcow2_file borrowed = { &ops, file->opaque };
    unsigned cluster_bits = 0, order = 0;
    struct qcow2 *image;
    int result = check_options(options, &cluster_bits, &order, err), closed;

    if (!result)
        result = write_skeleton(file, options, cluster_bits, order, err);
    if (result)
        return result;
    ops.close = keep_open;
    result = qcow2_open(&borrowed, NULL, QCOW2_NO_BACKING, &image, err);
    if (result)
        return result;
    result = qcow2_resize(image, options->size, false, options->preallocation, err);
    closed = qcow2_close(image);
    if (!result && closed)
        result = error_set(err, -closed, "%s", strerror(-closed));
    return result;
}
