/* The payload of a bzImage, unpacked by the libraries of its format: doing it here at host speed
 * saves the guest from decompressing itself. Input is hostile: output grows as it comes, up to a limit.
 *
 * The kernel's build appends the unpacked size (u32) to all but gzip, which ends in it anyway; only a hint here. */
#include "firmware/unpack.h"

#include "base/host_memory.h"

#include <endian.h>
#include <errno.h>
#include <lz4.h>
#include <lzma.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>
#include <zstd.h>

#define LZ4_LEGACY_MAGIC 0x184c2102u
#define LZ4_LEGACY_CHUNK (8u << 20)
#define XZ_MEMORY_LIMIT  (512ull << 20)

struct output {
    uint8_t *data;
    size_t size, capacity, limit;
};

/* Makes room for at least one more byte, or for `room` bytes. -EFBIG, -ENOMEM. */
static int output_reserve(struct output *out, size_t room, struct error *err)
{
    size_t wanted = out->size + MAX(room, (size_t)1), capacity = MAX(out->capacity, (size_t)1 << 20);
    uint8_t *data;

    if (wanted <= out->capacity)
        return 0;
    if (wanted > out->limit)
        return error_set(err, EFBIG, "the unpacked kernel is bigger than %zu MiB", out->limit >> 20);
    while (capacity < wanted)
        capacity *= 2;
    capacity = MIN(capacity, out->limit);
    data = realloc(out->data, capacity);
    if (!data)
        return error_set(err, ENOMEM, "no memory to unpack the kernel");
    host_memory_prefer_huge(data, capacity);
    out->data = data;
    out->capacity = capacity;
    return 0;
}

static int damaged(const char *format, struct error *err)
{
    return error_set(err, EINVAL, "its %s data is damaged or truncated", format);
}

static int unpack_gzip(const uint8_t *in, size_t in_size, struct output *out, struct error *err)
{
    z_stream stream = { .next_in = (Bytef *)in, .avail_in = in_size };
    int status = Z_OK, result = 0;

    if (inflateInit2(&stream, 15 + 16) != Z_OK)
        return error_set(err, ENOMEM, "no memory to unpack the kernel");
    while (status == Z_OK && !(result = output_reserve(out, 0, err))) {
        stream.next_out = out->data + out->size;
        stream.avail_out = out->capacity - out->size;
        status = inflate(&stream, Z_NO_FLUSH);
        out->size = out->capacity - stream.avail_out;
    }
    inflateEnd(&stream);
    if (!result && status != Z_STREAM_END)
        result = damaged("gzip", err);
    return result;
}

static int unpack_xz(const uint8_t *in, size_t in_size, struct output *out, struct error *err)
{
    lzma_stream stream = LZMA_STREAM_INIT;
    lzma_ret status = LZMA_OK;
    int result = 0;

    if (lzma_stream_decoder(&stream, XZ_MEMORY_LIMIT, 0) != LZMA_OK)
        return error_set(err, ENOMEM, "no memory to unpack the kernel");
    stream.next_in = in;
    stream.avail_in = in_size;
    while (status == LZMA_OK && !(result = output_reserve(out, 0, err))) {
        stream.next_out = out->data + out->size;
        stream.avail_out = out->capacity - out->size;
        status = lzma_code(&stream, LZMA_FINISH);
        out->size = out->capacity - stream.avail_out;
    }
    lzma_end(&stream);
    if (!result && status != LZMA_STREAM_END)
        result = damaged("xz", err);
    return result;
}

static int unpack_zstd(const uint8_t *in, size_t in_size, struct output *out, struct error *err)
{
    ZSTD_DCtx *context = ZSTD_createDCtx();
    ZSTD_inBuffer input = { .src = in, .size = in_size };
    size_t status = 1;
    int result = 0;

    if (!context)
        return error_set(err, ENOMEM, "no memory to unpack the kernel");
    /* 0: the frame is complete. No progress on either side: the input ended inside it. */
    while (status && !(result = output_reserve(out, 0, err))) {
        ZSTD_outBuffer output = { .dst = out->data, .size = out->capacity, .pos = out->size };
        size_t consumed = input.pos;

        status = ZSTD_decompressStream(context, &output, &input);
        if (ZSTD_isError(status) || (status && input.pos == consumed && output.pos == out->size)) {
            result = damaged("zstd", err);
            break;
        }
        out->size = output.pos;
    }
    ZSTD_freeDCtx(context);
    return result;
}

/* Magic, then chunks: u32 compressed size, data that unpacks to at most 8 MiB. No end mark: what is left when fewer
 * than a whole chunk's bytes remain is the size that the kernel's build appended. */
static int unpack_lz4(const uint8_t *in, size_t in_size, struct output *out, struct error *err)
{
    size_t position = 4;

    while (in_size - position > 4) {
        uint32_t chunk;
        int got, result;

        memcpy(&chunk, in + position, 4);
        chunk = le32toh(chunk);
        position += 4;
        if (chunk == LZ4_LEGACY_MAGIC)
            continue;
        if (chunk == 0 || chunk > in_size - position)
            return damaged("lz4", err);
        result = output_reserve(out, LZ4_LEGACY_CHUNK, err);
        if (result == -EFBIG && out->capacity < out->limit)
            result = output_reserve(out, out->limit - out->size, err);
        if (result)
            return result;
        got = LZ4_decompress_safe((const char *)in + position, (char *)out->data + out->size, chunk,
                                  MIN(out->capacity - out->size, LZ4_LEGACY_CHUNK));
        if (got < 0)
            return damaged("lz4", err);
        out->size += got;
        position += chunk;
    }
    return 0;
}

static int unpack_plain(const uint8_t *in, size_t in_size, struct output *out, struct error *err)
{
    int result = output_reserve(out, in_size, err);

    if (result)
        return result;
    memcpy(out->data, in, in_size);
    out->size = in_size;
    return 0;
}

static const struct {
    uint8_t magic[6], magic_size;
    int (*unpack)(const uint8_t *in, size_t in_size, struct output *out, struct error *err);
} formats[] = {
    { { 0x1f, 0x8b }, 2, unpack_gzip },
    { { 0xfd, '7', 'z', 'X', 'Z', 0 }, 6, unpack_xz },
    { { 0x28, 0xb5, 0x2f, 0xfd }, 4, unpack_zstd },
    { { 0x02, 0x21, 0x4c, 0x18 }, 4, unpack_lz4 },
    { { 0x7f, 'E', 'L', 'F' }, 4, unpack_plain },
};

int unpack(const uint8_t *in, size_t in_size, size_t limit, uint8_t **out, size_t *out_size, struct error *err)
{
    struct output output = { .limit = limit };
    int result = error_set(err, ENOTSUP, "unknown compression");
    uint32_t hint = 0;

    for (size_t i = 0; i < ARRAY_SIZE(formats); i++) {
        if (in_size < 8 || memcmp(in, formats[i].magic, formats[i].magic_size))
            continue;
        memcpy(&hint, in + in_size - 4, 4);
        hint = le32toh(hint);
        /* Believed only as far as a compressor could have got it there. */
        if (hint <= limit && hint / 64 <= in_size)
            result = output_reserve(&output, hint, err);
        result = formats[i].unpack(in, in_size, &output, err);
        break;
    }
    if (result) {
        free(output.data);
        return result;
    }
    *out = output.data;
    *out_size = output.size;
    return 0;
}
