/* Compressed clusters: zlib (raw deflate) or zstd, as the header says. A guest reads a cluster in small parts, so the last few
 * decompressed ones are kept; whoever frees a compressed cluster forgets it here, with its range held alone. Input is hostile: a cluster
 * that does not decompress to exactly one cluster is an I/O error. */
#include "devices/block/qcow2_internal.h"

#include <stdlib.h>
#include <string.h>
#include <zlib.h>
#include <zstd.h>

/* ---- Decompress ---- */

static int inflate_cluster(const struct qcow2 *image, const void *in, size_t in_size, void *out)
{
    z_stream stream = {
        .next_in = (void *)in,
        .avail_in = (unsigned)in_size,
        .next_out = out,
        .avail_out = (unsigned)image->cluster_size,
    };
    int status;

    if (inflateInit2(&stream, -15) != Z_OK)
        return -ENOMEM;
    status = inflate(&stream, Z_FINISH);
    inflateEnd(&stream);
    /* The input is whole sectors, so that there may be more of it; Z_BUF_ERROR with a full output is the end too. */
    return (status == Z_STREAM_END || status == Z_BUF_ERROR) && !stream.avail_out ? 0 : -EIO;
}

/* Whatever follows the frames that make up a cluster belongs to the next one. */
static int zstd_cluster(const struct qcow2 *image, const void *in, size_t in_size, void *out)
{
    ZSTD_DCtx *context = ZSTD_createDCtx();
    ZSTD_outBuffer output = { out, image->cluster_size, 0 };
    ZSTD_inBuffer input = { in, in_size, 0 };
    int result = context ? 0 : -ENOMEM;

    /* The window is what a hostile frame may make us allocate. */
    if (!result && ZSTD_isError(ZSTD_DCtx_setParameter(context, ZSTD_d_windowLogMax, 27)))
        result = -EIO;
    while (!result && output.pos < output.size) {
        size_t in_before = input.pos, out_before = output.pos;
        size_t status = ZSTD_decompressStream(context, &output, &input);

        if (ZSTD_isError(status) || (input.pos == in_before && output.pos == out_before))
            result = -EIO;
    }
    ZSTD_freeDCtx(context);
    return result;
}

int qcow2_decompress(const struct qcow2 *image, const void *in, size_t in_size, void *out)
{
    return image->info.zstd ? zstd_cluster(image, in, in_size, out) : inflate_cluster(image, in, in_size, out);
}

/* ---- Compress ---- */

ssize_t qcow2_compress(const struct qcow2 *image, const void *data, void *out)
{
    size_t limit = image->cluster_size - 1, size;
    z_stream stream = {
        .next_in = (void *)data,
        .avail_in = (unsigned)image->cluster_size,
        .next_out = out,
        .avail_out = (unsigned)limit,
    };
    int status;

    if (image->info.zstd) {
        size = ZSTD_compress(out, limit, data, image->cluster_size, ZSTD_CLEVEL_DEFAULT);
        return ZSTD_isError(size) ? -ENOSPC : (ssize_t)size;
    }
    /* QEMU decompresses with a window of 4 KiB. */
    if (deflateInit2(&stream, Z_DEFAULT_COMPRESSION, Z_DEFLATED, -12, 9, Z_DEFAULT_STRATEGY) != Z_OK)
        return -ENOMEM;
    status = deflate(&stream, Z_FINISH);
    deflateEnd(&stream);
    return status == Z_STREAM_END ? (ssize_t)(limit - stream.avail_out) : -ENOSPC;
}

/* ---- Read ---- */

static int load(struct qcow2 *image, uint64_t entry, uint8_t *out)
{
    uint64_t offset, size;
    uint8_t *in;
    int result;

    qcow2_compressed_extent(image, entry, &offset, &size);
    in = malloc(size);
    if (!in)
        return -ENOMEM;
    result = qcow2_file_read(image, offset, in, size);
    if (!result)
        result = qcow2_decompress(image, in, size, out);
    free(in);
    return result;
}

static struct qcow2_decompressed *find(struct qcow2 *image, uint64_t entry)
{
    for (unsigned i = 0; i < QCOW2_DECOMPRESSED; i++) {
        if (image->decompressed[i].descriptor == entry) {
            image->decompressed[i].used = ++image->decompress_clock;
            return &image->decompressed[i];
        }
    }
    return NULL;
}

static void copy_part(const struct qcow2 *image, uint64_t offset, const struct iovec *iov, unsigned count,
                      const uint8_t *data)
{
    qcow2_iov_copy(iov, count, data + (offset & (image->cluster_size - 1)));
}

/* Takes over `data`. */
static void keep(struct qcow2 *image, uint64_t entry, uint8_t *data)
{
    struct qcow2_decompressed *oldest = &image->decompressed[0];

    if (find(image, entry)) {
        free(data);
        return;
    }
    for (unsigned i = 1; i < QCOW2_DECOMPRESSED; i++) {
        if (image->decompressed[i].used < oldest->used)
            oldest = &image->decompressed[i];
    }
    free(oldest->data);
    *oldest = (struct qcow2_decompressed){ .descriptor = entry, .used = ++image->decompress_clock, .data = data };
}

/* A part of one cluster; its range is held. */
int qcow2_compressed_read(struct qcow2 *image, uint64_t offset, const struct iovec *iov, unsigned count)
{
    struct qcow2_decompressed *known;
    struct qcow2_extent extent;
    uint64_t entry;
    uint8_t *data;
    int result = qcow2_lookup(image, offset, 1, &extent);

    if (result)
        return result;
    if (extent.kind != QCOW2_COMPRESSED)
        return -EIO;
    entry = extent.host_offset;
    pthread_mutex_lock(&image->decompress_lock);
    known = find(image, entry);
    if (known)
        copy_part(image, offset, iov, count, known->data);
    pthread_mutex_unlock(&image->decompress_lock);
    if (known)
        return 0;
    data = malloc(image->cluster_size);
    if (!data)
        return -ENOMEM;
    result = load(image, entry, data);
    if (result) {
        free(data);
        return result;
    }
    copy_part(image, offset, iov, count, data);
    pthread_mutex_lock(&image->decompress_lock);
    keep(image, entry, data);
    pthread_mutex_unlock(&image->decompress_lock);
    return 0;
}

void qcow2_compressed_forget(struct qcow2 *image, uint64_t entry)
{
    pthread_mutex_lock(&image->decompress_lock);
    for (unsigned i = 0; i < QCOW2_DECOMPRESSED; i++) {
        if (!entry || image->decompressed[i].descriptor == entry) {
            free(image->decompressed[i].data);
            image->decompressed[i] = (struct qcow2_decompressed){ 0 };
        }
    }
    pthread_mutex_unlock(&image->decompress_lock);
}
