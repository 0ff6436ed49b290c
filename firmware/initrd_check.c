/* Is an initrd whole? A truncated one would otherwise only show as a kernel panic, far from its cause.
 *
 * An initramfs is a sequence of cpio archives (newc), plain or compressed, with zero bytes between them
 * (Documentation/driver-api/early-userspace/buffer-format.rst). Only the cheap structure is checked, nothing is
 * unpacked but gzip, whose format has no lengths. What is not recognized (a disk image, another compression) passes. */
#include "firmware/boot_internal.h"

#include <endian.h>
#include <errno.h>
#include <lz4.h>
#include <lzma.h>
#include <string.h>
#include <zlib.h>
#include <zstd.h>

#define CPIO_HEADER      110u
#define XZ_MEMORY_LIMIT  (512ull << 20)
#define LZ4_LEGACY_MAGIC 0x184c2102u
#define LZ4_LEGACY_CHUNK (8u << 20)

static bool parse_hex(const uint8_t *text, uint32_t *value)
{
    *value = 0;
    for (unsigned i = 0; i < 8; i++) {
        uint8_t c = text[i] | 0x20;

        if (c >= '0' && c <= '9')
            *value = *value << 4 | (c - '0');
        else if (c >= 'a' && c <= 'f')
            *value = *value << 4 | (c - 'a' + 10);
        else
            return false;
    }
    return true;
}

static int truncated(const char *what, struct error *err)
{
    return error_set(err, EINVAL, "the %s is truncated or damaged", what);
}

/* Each checker: bytes used of [data, data + size), 0 if there is nothing more to check, or -EINVAL. */
static int64_t check_cpio(const uint8_t *data, size_t size, struct error *err)
{
    uint64_t position = 0;

    for (;;) {
        uint32_t file_size, name_size;
        uint64_t name_end, end;

        if (position + CPIO_HEADER > size || memcmp(data + position, "07070", 5) ||
            !parse_hex(data + position + 54, &file_size) || !parse_hex(data + position + 94, &name_size))
            return truncated("cpio archive", err);
        name_end = ALIGN_UP(position + CPIO_HEADER + name_size, 4);
        end = name_end + file_size;
        if (name_end > size || end > size)
            return truncated("cpio archive", err);
        if (name_size == sizeof("TRAILER!!!") && !memcmp(data + position + CPIO_HEADER, "TRAILER!!!", name_size))
            return end;
        position = MIN(ALIGN_UP(end, 4), size);
    }
}

static int64_t check_gzip(const uint8_t *data, size_t size, struct error *err)
{
    z_stream stream = { .next_in = (Bytef *)data, .avail_in = MIN(size, (size_t)UINT32_MAX) };
    static const int window_gzip = 15 + 16;
    uint8_t discard[65536];
    int status;

    if (inflateInit2(&stream, window_gzip) != Z_OK)
        return 0;
    do {
        stream.next_out = discard;
        stream.avail_out = sizeof(discard);
        status = inflate(&stream, Z_NO_FLUSH);
    } while (status == Z_OK);
    inflateEnd(&stream);
    return status == Z_STREAM_END ? (int64_t)stream.total_in : truncated("gzip data", err);
}

static int64_t check_zstd(const uint8_t *data, size_t size, struct error *err)
{
    size_t used = ZSTD_findFrameCompressedSize(data, size);

    return ZSTD_isError(used) ? truncated("zstd data", err) : (int64_t)used;
}

/* A file that ends in a stream's footer (but for padding) is whole; if it does not, something may follow the stream, so
 * that its end has to be looked for the slow way. */
static int64_t check_xz(const uint8_t *data, size_t size, struct error *err)
{
    lzma_stream stream = LZMA_STREAM_INIT;
    uint8_t discard[65536];
    size_t end = size;
    lzma_ret status;

    while (end && data[end - 1] == 0)
        end--;
    if (end >= 24 && !memcmp(data + end - 2, "YZ", 2))
        return 0;
    if (lzma_stream_decoder(&stream, XZ_MEMORY_LIMIT, 0) != LZMA_OK)
        return 0;
    stream.next_in = data;
    stream.avail_in = size;
    do {
        stream.next_out = discard;
        stream.avail_out = sizeof(discard);
        status = lzma_code(&stream, LZMA_FINISH);
    } while (status == LZMA_OK);
    lzma_end(&stream);
    return status == LZMA_STREAM_END ? (int64_t)stream.total_in : truncated("xz data", err);
}

/* The legacy format has no end mark: what cannot be a chunk's size is the start of something else. */
static int64_t check_lz4(const uint8_t *data, size_t size, struct error *err)
{
    uint64_t position = 4;

    while (position + 4 <= size) {
        uint32_t chunk;

        memcpy(&chunk, data + position, 4);
        chunk = le32toh(chunk);
        if (chunk == LZ4_LEGACY_MAGIC)
            chunk = 0;
        else if (chunk == 0 || chunk > LZ4_COMPRESSBOUND(LZ4_LEGACY_CHUNK))
            return position;
        position += 4 + (uint64_t)chunk;
    }
    return position > size ? truncated("lz4 data", err) : 0;
}

static const struct {
    uint8_t magic[6], magic_size;
    int64_t (*check)(const uint8_t *data, size_t size, struct error *err);
} formats[] = {
    { "07070", 5, check_cpio },
    { { 0x1f, 0x8b }, 2, check_gzip },
    { { 0x28, 0xb5, 0x2f, 0xfd }, 4, check_zstd },
    { { 0xfd, '7', 'z', 'X', 'Z', 0 }, 6, check_xz },
    { { 0x02, 0x21, 0x4c, 0x18 }, 4, check_lz4 },
};

int initrd_check(const uint8_t *data, size_t size, struct error *err)
{
    size_t position = 0;

    while (position < size) {
        int64_t used = 0;

        if (data[position] == 0) {
            position++;
            continue;
        }
        for (size_t i = 0; i < ARRAY_SIZE(formats) && !used; i++) {
            if (size - position >= formats[i].magic_size &&
                !memcmp(data + position, formats[i].magic, formats[i].magic_size))
                used = formats[i].check(data + position, size - position, err);
        }
        if (used <= 0)
            return used;
        position += used;
    }
    return 0;
}
