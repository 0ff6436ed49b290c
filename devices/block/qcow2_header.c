/* The header: what an image may say of itself, and what of it we accept. Specification: "Header", "Header extensions". The fixed
 * part lies in the file's first sector, a copy of which is kept; changes are made there and the sector written as a whole, so that
 * unknown fields stay and a crash finds the old header or the new one. */
#include "devices/block/qcow2_internal.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"

static const struct {
    uint8_t type, bit;
    const char *name;
} feature_names[] = {
    { 0, 0, "dirty bit" },        { 0, 1, "corrupt bit" },         { 0, 2, "external data file" },
    { 0, 3, "compression type" }, { 0, 4, "extended L2 entries" }, { 1, 0, "lazy refcounts" },
    { 2, 0, "bitmaps" },          { 2, 1, "raw external data" },
};
#define FEATURE_SIZE 48

int qcow2_probe(const struct qcow2_file *file)
{
    uint8_t head[8];
    struct iovec iov = { head, sizeof(head) };
    int result = file->ops->read(file->opaque, 0, &iov, 1);

    return result ? result : get_be32(head) == QCOW2_MAGIC && get_be32(head + 4) >= 2;
}

/* ---- Reading ---- */

static int check_geometry(struct qcow2 *image, struct error *err)
{
    const uint8_t *h = image->header;
    uint32_t bits = get_be32(h + HEADER_CLUSTER_BITS), order = 4;

    if (bits < MIN_CLUSTER_BITS || bits > MAX_CLUSTER_BITS)
        return error_set(err, EINVAL, "cluster size of 2^%u bytes: 512 bytes to 2 MiB are possible", bits);
    if (image->info.version >= 3)
        order = get_be32(h + HEADER_REFCOUNT_ORDER);
    if (order > 6)
        return error_set(err, EINVAL, "reference counts of 2^%u bits: 1 to 64 are possible", order);
    image->cluster_bits = bits;
    image->cluster_size = 1ull << bits;
    image->refcount_order = order;
    image->refblock_entries = image->cluster_size * 8 >> order;
    image->info.cluster_size = 1u << bits;
    image->info.refcount_bits = 1u << order;
    image->info.size = get_be64(h + HEADER_SIZE);
    if (image->info.size > MAX_DISK_SIZE)
        return error_set(err, EFBIG, "virtual size of %llu bytes is too big", (unsigned long long)image->info.size);
    if (get_be32(h + HEADER_CRYPT))
        return error_set(err, ENOTSUP, "the image is encrypted (%s), which is not supported",
                         get_be32(h + HEADER_CRYPT) == 1   ? "AES"
                         : get_be32(h + HEADER_CRYPT) == 2 ? "LUKS"
                                                           : "unknown method");
    return 0;
}

static int check_length(struct qcow2 *image, struct error *err)
{
    uint32_t length = HEADER_V2_LENGTH;

    if (image->info.version >= 3) {
        length = get_be32(image->header + HEADER_LENGTH);
        if (length < HEADER_V3_LENGTH || length > image->cluster_size || length % 8)
            return error_set(err, EINVAL, "header length of %u bytes is wrong", length);
        image->incompatible = get_be64(image->header + HEADER_INCOMPATIBLE);
        image->compatible = get_be64(image->header + HEADER_COMPATIBLE);
    }
    image->header_length = length;
    return 0;
}

/* Names of unknown features, from the table that the image may carry. */
static int refuse_features(const uint8_t *table, size_t size, uint64_t unknown, struct error *err)
{
    char text[400] = "";
    size_t used = 0;

    for (unsigned bit = 0; bit < 64 && used < sizeof(text) - 80; bit++) {
        char name[FEATURE_SIZE] = "";

        if (!(unknown >> bit & 1))
            continue;
        for (size_t at = 0; at + FEATURE_SIZE <= size; at += FEATURE_SIZE) {
            if (table[at] == 0 && table[at + 1] == bit)
                snprintf(name, sizeof(name), "%.46s", (const char *)table + at + 2);
        }
        for (char *c = name; *c; c++)
            *c = *c < ' ' || *c > '~' ? '?' : *c;
        used += (size_t)snprintf(text + used, sizeof(text) - used, "%s", used ? ", " : "");
        if (name[0])
            used += (size_t)snprintf(text + used, sizeof(text) - used, "'%s'", name);
        else
            used += (size_t)snprintf(text + used, sizeof(text) - used, "bit %u", bit);
    }
    return error_set(err, ENOTSUP, "the image needs features that are not supported: %s", text);
}

static char *make_string(const uint8_t *data, size_t size)
{
    char *text = malloc(size + 1);

    if (text) {
        memcpy(text, data, size);
        text[size] = '\0';
    }
    return text;
}

static int read_bitmaps(struct qcow2 *image, const uint8_t *data, uint32_t size, struct error *err)
{
    uint64_t autoclear = image->info.version >= 3 ? get_be64(image->header + HEADER_AUTOCLEAR) : 0;

    if (!(autoclear & QCOW2_AUTOCLEAR_BITMAPS))
        return 0; /* somebody wrote who does not know them: they mean nothing any more */
    if (size != 24)
        return error_set(err, EINVAL, "bitmaps extension of %u bytes is wrong", size);
    image->bitmap_count = get_be32(data);
    image->bitmap_directory_size = get_be64(data + 8);
    image->bitmap_directory_offset = get_be64(data + 16);
    if (!image->bitmap_count || image->bitmap_count > MAX_BITMAPS ||
        image->bitmap_directory_size > MAX_BITMAP_DIRECTORY ||
        image->bitmap_directory_size < 24ull * image->bitmap_count ||
        image->bitmap_directory_offset & (image->cluster_size - 1) || !image->bitmap_directory_offset ||
        image->bitmap_directory_offset >= MAX_HOST_OFFSET)
        return error_set(err, EINVAL, "bitmaps extension is wrong");
    image->info.bitmaps = true;
    return 0;
}

/* `cluster` is the first one, or as much of it as can hold extensions. */
static int read_extensions(struct qcow2 *image, const uint8_t *cluster, uint64_t end, struct error *err)
{
    uint64_t at = image->header_length, unknown = image->incompatible & ~(uint64_t)QCOW2_INCOMPATIBLE_KNOWN;
    const uint8_t *names = NULL;
    uint32_t names_size = 0;
    int result = 0;

    while (at + 8 <= end && !result) {
        uint32_t type = get_be32(cluster + at), size = get_be32(cluster + at + 4);

        at += 8;
        if (type == EXTENSION_END)
            break;
        if (size > end - at)
            return error_set(err, EINVAL, "header extension 0x%08x is longer than its place", type);
        if (type == EXTENSION_FEATURES) {
            names = cluster + at;
            names_size = size;
        } else if (type == EXTENSION_BACKING_FORMAT && size < 16 && !image->backing_format) {
            image->backing_format = make_string(cluster + at, size);
            result = image->backing_format ? 0 : error_set(err, ENOMEM, "no memory");
        } else if (type == EXTENSION_BACKING_FORMAT) {
            return error_set(err, EINVAL, "backing file format is longer than any there is");
        } else if (type == EXTENSION_BITMAPS) {
            result = read_bitmaps(image, cluster + at, size, err);
        }
        at += ALIGN_UP((uint64_t)size, 8);
    }
    if (!result && unknown)
        return refuse_features(names, names_size, unknown, err);
    return result;
}

static int check_features(struct qcow2 *image, struct error *err)
{
    uint8_t type =
        image->info.version >= 3 && image->header_length > HEADER_COMPRESSION ? image->header[HEADER_COMPRESSION] : 0;

    if (image->incompatible & QCOW2_INCOMPATIBLE_DATA_FILE)
        return error_set(err, ENOTSUP, "the image has an external data file, which is not supported");
    if (type > 1)
        return error_set(err, ENOTSUP, "compression type %u is not supported", type);
    if (!type != !(image->incompatible & QCOW2_INCOMPATIBLE_COMPRESSION))
        return error_set(err, EINVAL, "compression type %u does not match the feature bit", type);
    image->info.zstd = type == 1;
    image->info.extended_l2 = image->incompatible & QCOW2_INCOMPATIBLE_EXTENDED_L2;
    image->info.dirty = image->incompatible & QCOW2_INCOMPATIBLE_DIRTY;
    image->info.corrupt = image->incompatible & QCOW2_INCOMPATIBLE_CORRUPT;
    image->info.lazy_refcounts = image->compatible & QCOW2_COMPATIBLE_LAZY;
    image->l2_entry_size = image->info.extended_l2 ? 16 : 8;
    image->l2_entries = image->cluster_size / image->l2_entry_size;
    image->unit_bits = image->cluster_bits - (image->info.extended_l2 ? 5 : 0);
    if (image->info.extended_l2 && image->cluster_bits < 14)
        return error_set(err, EINVAL, "extended L2 entries need clusters of 16 KiB or more");
    return 0;
}

static int read_backing_name(struct qcow2 *image, const uint8_t *cluster, struct error *err)
{
    uint64_t offset = get_be64(image->header + HEADER_BACKING_OFFSET);
    uint32_t size = get_be32(image->header + HEADER_BACKING_SIZE);

    if (!offset)
        return 0;
    if (!size || size > MAX_BACKING_NAME || offset > image->cluster_size || size > image->cluster_size - offset)
        return error_set(err, EINVAL, "the backing file's name is outside of the header cluster");
    image->backing_name = make_string(cluster + offset, size);
    if (!image->backing_name)
        return error_set(err, ENOMEM, "no memory");
    if (strlen(image->backing_name) != size)
        return error_set(err, EINVAL, "the backing file's name holds a zero byte");
    return 0;
}

int qcow2_header_read(struct qcow2 *image, struct error *err)
{
    uint64_t backing_offset;
    uint8_t *cluster;
    int result = qcow2_file_read(image, 0, image->header, HEADER_SECTOR);

    if (result)
        return error_set(err, -result, "the header cannot be read: %s", strerror(-result));
    if (get_be32(image->header) != QCOW2_MAGIC)
        return error_set(err, EINVAL, "not a qcow2 image");
    image->info.version = get_be32(image->header + HEADER_VERSION);
    if (image->info.version < 2 || image->info.version > 3)
        return error_set(err, ENOTSUP, "qcow2 version %u is not supported", image->info.version);
    if ((result = check_geometry(image, err)) || (result = check_length(image, err)))
        return result;
    cluster = malloc(image->cluster_size);
    if (!cluster)
        return error_set(err, ENOMEM, "no memory");
    result = qcow2_file_read(image, 0, cluster, image->cluster_size);
    if (result)
        error_set(err, -result, "the header cannot be read: %s", strerror(-result));
    /* Extensions end where the backing file's name begins. */
    backing_offset = get_be64(image->header + HEADER_BACKING_OFFSET);
    if (!result)
        result = read_extensions(image, cluster,
                                 backing_offset ? MIN(backing_offset, image->cluster_size) : image->cluster_size, err);
    if (!result)
        result = check_features(image, err);
    if (!result)
        result = read_backing_name(image, cluster, err);
    free(cluster);
    image->info.backing_name = image->backing_name;
    image->info.backing_format = image->backing_name ? image->backing_format : NULL;
    return result;
}

/* ---- Changing ---- */

int qcow2_header_write(struct qcow2 *image)
{
    return qcow2_file_write(image, 0, image->header, HEADER_SECTOR);
}

/* Somebody writes: bitmaps (which we do not maintain) and unknown auto-clear features are not valid any more; with lazy
 * refcounts the image is dirty from now on. */
int qcow2_prepare_write(struct qcow2 *image)
{
    int result = 0;

    pthread_mutex_lock(&image->meta);
    if (!atomic_load(&image->write_prepared) && image->info.version >= 3) {
        uint8_t saved[HEADER_SECTOR];
        uint64_t incompatible = image->incompatible;

        memcpy(saved, image->header, sizeof(saved));
        if (image->info.lazy_refcounts)
            incompatible |= QCOW2_INCOMPATIBLE_DIRTY;
        put_be64(image->header + HEADER_INCOMPATIBLE, incompatible);
        put_be64(image->header + HEADER_AUTOCLEAR, 0);
        if (memcmp(saved, image->header, sizeof(saved))) {
            result = qcow2_header_write(image);
            if (!result)
                result = qcow2_file_flush(image);
        }
        if (result) {
            memcpy(image->header, saved, sizeof(saved));
        } else {
            image->incompatible = incompatible;
            image->info.dirty = incompatible & QCOW2_INCOMPATIBLE_DIRTY;
            image->info.bitmaps = false;
        }
    }
    if (!result)
        atomic_store(&image->write_prepared, true);
    pthread_mutex_unlock(&image->meta);
    return result;
}

/* From now on nothing is written; qcow2_close() leaves the corrupt bit in the header. Callers hold all kinds of locks. */
int qcow2_mark_corrupt(struct qcow2 *image, const char *format, ...)
{
    char text[200];
    va_list args;

    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    if (!atomic_exchange(&image->corrupt, true))
        log_warn("qcow2: the image is corrupt: %s", text);
    return -EIO;
}

/* ---- Writing a new one ---- */

static size_t put_extension(uint8_t *cluster, size_t at, uint64_t end, uint32_t type, const void *data, size_t size)
{
    if (at + 8 + ALIGN_UP(size, 8) + 8 > end) /* there must be room for the end mark */
        return 0;
    put_be32(cluster + at, type);
    put_be32(cluster + at + 4, (uint32_t)size);
    memcpy(cluster + at + 8, data, size);
    return at + 8 + ALIGN_UP(size, 8);
}

/* Everything behind the fixed part: backing format, feature names (if there is plenty of room: they are only for messages of
 * programs that are older than the image), `unknown` extensions as they are, backing name. */
int qcow2_header_put_extensions(uint8_t *cluster, uint64_t cluster_size, unsigned version, uint32_t header_length,
                                const uint8_t *unknown, size_t unknown_size, const char *backing_name,
                                const char *backing_format, struct error *err)
{
    uint8_t features[ARRAY_SIZE(feature_names) * FEATURE_SIZE] = { 0 };
    size_t at = header_length, name_size = backing_name ? strlen(backing_name) : 0;

    if (name_size > MAX_BACKING_NAME || (backing_format && strlen(backing_format) > 15))
        return error_set(err, EINVAL, "the backing file's name is longer than %u bytes", MAX_BACKING_NAME);
    if (backing_name && backing_format)
        at = put_extension(cluster, at, cluster_size, EXTENSION_BACKING_FORMAT, backing_format, strlen(backing_format));
    for (size_t i = 0; i < ARRAY_SIZE(feature_names); i++) {
        features[i * FEATURE_SIZE] = feature_names[i].type;
        features[i * FEATURE_SIZE + 1] = feature_names[i].bit;
        memcpy(features + i * FEATURE_SIZE + 2, feature_names[i].name, strlen(feature_names[i].name));
    }
    if (at && version >= 3 && cluster_size >= 4096)
        at = put_extension(cluster, at, cluster_size, EXTENSION_FEATURES, features, sizeof(features));
    if (!at || at + unknown_size + 8 + name_size > cluster_size)
        return error_set(err, ENOSPC, "the backing file's name does not fit into the header cluster");
    if (unknown_size)
        memcpy(cluster + at, unknown, unknown_size);
    at += unknown_size + 8; /* the end mark is zeroes */
    put_be64(cluster + HEADER_BACKING_OFFSET, name_size ? at : 0);
    put_be32(cluster + HEADER_BACKING_SIZE, (uint32_t)name_size);
    if (name_size)
        memcpy(cluster + at, backing_name, name_size);
    return 0;
}

/* The extensions that we do not write ourselves, one after the other. */
static int collect_unknown(const uint8_t *cluster, uint64_t start, uint64_t end, uint8_t *out, size_t *out_size)
{
    *out_size = 0;
    while (start + 8 <= end) {
        uint32_t type = get_be32(cluster + start), size = get_be32(cluster + start + 4);
        uint64_t whole = 8 + ALIGN_UP((uint64_t)size, 8);

        if (type == EXTENSION_END)
            break;
        if (whole > end - start)
            return -EINVAL;
        if (type != EXTENSION_BACKING_FORMAT && type != EXTENSION_FEATURES) {
            memcpy(out + *out_size, cluster + start, whole);
            *out_size += whole;
        }
        start += whole;
    }
    return 0;
}

int qcow2_set_backing(struct qcow2 *image, const char *name, const char *format, struct error *err)
{
    uint64_t end = get_be64(image->header + HEADER_BACKING_OFFSET);
    uint8_t *old, *new, *unknown;
    size_t unknown_size;
    int result = qcow2_write_check(image, 0, 0);

    if (result)
        return error_set(err, -result, "the image cannot be written: %s", strerror(-result));
    old = calloc(3, image->cluster_size);
    if (!old)
        return error_set(err, ENOMEM, "no memory");
    new = old + image->cluster_size;
    unknown = new + image->cluster_size;
    result = qcow2_file_read(image, 0, old, image->cluster_size);
    if (!result)
        result = collect_unknown(old, image->header_length, end ? MIN(end, image->cluster_size) : image->cluster_size,
                                 unknown, &unknown_size);
    if (result) {
        error_set(err, -result, "the header cannot be read: %s", strerror(-result));
        goto out;
    }
    memcpy(new, old, image->header_length);
    memcpy(new, image->header, MIN(image->header_length, HEADER_SECTOR));
    result = qcow2_header_put_extensions(new, image->cluster_size, image->info.version, image->header_length, unknown,
                                         unknown_size, name, name ? format : NULL, err);
    if (result)
        goto out;
    result = qcow2_file_write(image, 0, new, image->cluster_size);
    if (!result)
        result = qcow2_file_flush(image);
    if (result)
        error_set(err, -result, "the header cannot be written: %s", strerror(-result));
    memcpy(image->header, new, HEADER_SECTOR);
out:
    free(old);
    return result;
}
