/* eidolon-img create, and what convert needs of it: options of the formats, making the file. */
#include "img/img.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- -o ---- */

static const struct {
    const char *name, *help;
    bool raw;
} option_help[] = {
    { "backing_file", "name of the image below, as it is to be found from the new one", false },
    { "backing_fmt", "its format: raw or qcow2", false },
    { "cluster_size", "512 to 2M, a power of two (64k)", false },
    { "compat", "v2 or 0.10, v3 or 1.1 (1.1)", false },
    { "compression_type", "zlib or zstd (zlib)", false },
    { "lazy_refcounts", "on or off (off)", false },
    { "preallocation", "off, metadata (qcow2 only), falloc or full (off)", true },
    { "refcount_bits", "1 to 64, a power of two (16)", false },
    { "size", "of the disk", true },
};

void img_print_create_help(const char *format)
{
    bool raw = !strcmp(format, "raw");

    printf("Supported %s options:\n", format);
    for (size_t i = 0; i < ARRAY_SIZE(option_help); i++) {
        if (!raw || option_help[i].raw)
            printf("  %-16s - %s\n", option_help[i].name, option_help[i].help);
    }
}

static int parse_words(struct option_list *list, struct img_create *create, struct error *err)
{
    static const char *const refused[] = { "encryption",    "encrypt.format", "encrypt.key-secret", "data_file",
                                           "data_file_raw", "nocow",          "extent_size_hint" };
    const char *text;
    bool extended;
    int result;

    for (size_t i = 0; i < ARRAY_SIZE(refused); i++) {
        text = options_get(list, refused[i]);
        if (text && strcmp(text, "off"))
            return error_set(err, ENOTSUP, "%s=%s is not supported", refused[i], text);
    }
    result = options_get_bool(list, "extended_l2", false, &extended, err);
    if (result || extended)
        return result ? result
                      : error_set(err, ENOTSUP, "extended_l2=on is not supported: such images can only be read");
    text = options_get(list, "compat");
    if (text) {
        create->qcow2.version = !strcmp(text, "0.10") || !strcmp(text, "v2") ? 2 : 3;
        if (create->qcow2.version == 3 && strcmp(text, "1.1") && strcmp(text, "v3"))
            return error_set(err, EINVAL, "compat=%s: v2 (0.10) or v3 (1.1) is needed", text);
    }
    text = options_get(list, "compression_type");
    if (text && strcmp(text, "zlib") && strcmp(text, "zstd"))
        return error_set(err, EINVAL, "compression_type=%s: zlib or zstd is needed", text);
    create->qcow2.zstd = text && !strcmp(text, "zstd");
    text = options_get(list, "backing_file");
    if (text && !(create->backing_name = strdup(text)))
        return error_set(err, ENOMEM, "no memory");
    text = options_get(list, "backing_fmt");
    if (text && !(create->backing_format = strdup(text)))
        return error_set(err, ENOMEM, "no memory");
    return 0;
}

static int parse_qcow2(struct option_list *list, struct img_create *create, struct error *err)
{
    uint64_t cluster_size, refcount_bits;
    int result;

    if ((result = options_get_size(list, "cluster_size", 1, 0, &cluster_size, err)) ||
        (result = options_get_u64(list, "refcount_bits", 16, &refcount_bits, err)) ||
        (result = options_get_bool(list, "lazy_refcounts", false, &create->qcow2.lazy_refcounts, err)))
        return result;
    if (options_get(list, "cluster_size") && (cluster_size < 512 || cluster_size > 2 * MIB))
        return error_set(err, EINVAL, "cluster_size: a power of two between 512 and 2M is needed");
    if (!refcount_bits || refcount_bits > 64)
        return error_set(err, EINVAL, "refcount_bits: a power of two up to 64 is needed");
    create->qcow2.cluster_size = (uint32_t)cluster_size;
    create->qcow2.refcount_bits = (uint32_t)refcount_bits;
    return parse_words(list, create, err);
}

int img_parse_create(const char *format, const char *options, struct img_create *create, struct error *err)
{
    struct option_list list;
    const char *text;
    int result = options_parse(&list, options, NULL, err);

    if (result)
        return result;
    text = options_get(&list, "preallocation");
    if (text)
        result = img_parse_preallocation(text, &create->qcow2.preallocation, err);
    text = options_get(&list, "size");
    if (!result && text) {
        result = img_parse_size(text, &create->qcow2.size, err);
        create->has_size = true;
    }
    if (!result && !strcmp(format, "qcow2"))
        result = parse_qcow2(&list, create, err);
    if (!result && !strcmp(format, "raw") && create->qcow2.preallocation == QCOW2_PREALLOC_METADATA)
        result = error_set(err, EINVAL, "preallocation=metadata: a raw image has none");
    if (!result)
        result = options_check_all_used(&list, format, err);
    options_free(&list);
    return result;
}

void img_create_free(struct img_create *create)
{
    free(create->backing_name);
    free(create->backing_format);
}

/* ---- The file ---- */

static int create_raw(const struct qcow2_file *file, const struct qcow2_create_options *create, struct error *err)
{
    uint64_t size = create->size, have;
    int result = file->ops->truncate(file->opaque, size);

    if (result == -ENOTSUP) { /* a block device */
        result = file->ops->size(file->opaque, &have);
        if (!result && have < size)
            result = -ENOSPC;
    }
    if (!result && create->preallocation != QCOW2_PREALLOC_OFF && size)
        result = file->ops->allocate(file->opaque, 0, size);
    for (uint64_t done = 0; create->preallocation == QCOW2_PREALLOC_FULL && done < size && !result;) {
        static const uint8_t zeroes[MIB];
        struct iovec iov = { (void *)zeroes, MIN(size - done, sizeof(zeroes)) };

        result = file->ops->write(file->opaque, done, &iov, 1);
        done += iov.iov_len;
    }
    return result ? error_set(err, -result, "%s", strerror(-result)) : 0;
}

int img_create_file(const char *path, const char *format, const struct img_create *create, unsigned flags,
                    struct error *err)
{
    struct qcow2_create_options options = create->qcow2;
    struct qcow2_file file;
    int result;

    if (options.size > INT64_MAX - 511)
        return error_set(err, EFBIG, "a disk of %llu bytes is too big", (unsigned long long)options.size);
    options.size = ALIGN_UP(options.size, 512);
    options.backing_name = create->backing_name;
    options.backing_format = create->backing_format;
    result =
        qcow2_host_file_open(path, QCOW2_HOST_WRITE | QCOW2_HOST_CREATE | (flags & IMG_UNSAFE ? QCOW2_HOST_UNSAFE : 0),
                             &file, err);
    if (result)
        return result;
    result = strcmp(format, "raw") ? qcow2_create(&file, &options, err) : create_raw(&file, &options, err);
    file.ops->close(file.opaque);
    return result ? error_prefix(err, result, "'%s'", path) : 0;
}

/* ---- The command ---- */

/* The image below must be there, and says how big the new one is if the user does not. */
static int check_backing(const char *path, struct img_create *create, bool unsafe, struct error *err)
{
    char *resolved;
    struct img *img;
    int result;

    if (!create->backing_name)
        return create->backing_format
                   ? error_set(err, EINVAL, "-F says the format of a backing file, but there is no -b")
                   : 0;
    if (!create->backing_format)
        return error_set(err, EINVAL, "the format of the backing file is needed: -F raw or -F qcow2");
    result = img_check_format(create->backing_format, err);
    if (result || unsafe)
        return result;
    resolved = qcow2_backing_path(path, create->backing_name, err);
    if (!resolved)
        return -EINVAL;
    result = img_open(resolved, create->backing_format, 0, &img, err);
    free(resolved);
    if (result)
        return error_prefix(err, result, "backing file '%s'", create->backing_name);
    if (!create->has_size)
        create->qcow2.size = img->size;
    create->has_size = true;
    img_close(img);
    return 0;
}

static void print_formatting(const char *path, const char *format, const struct img_create *create)
{
    const struct qcow2_create_options *o = &create->qcow2;

    printf("Formatting '%s', fmt=%s", path, format);
    if (!strcmp(format, "qcow2"))
        printf(" cluster_size=%u extended_l2=off compression_type=%s", o->cluster_size ? o->cluster_size : 65536,
               o->zstd ? "zstd" : "zlib");
    printf(" size=%llu", (unsigned long long)o->size);
    if (create->backing_name)
        printf(" backing_file=%s backing_fmt=%s", create->backing_name, create->backing_format);
    if (!strcmp(format, "qcow2"))
        printf(" lazy_refcounts=%s refcount_bits=%u", o->lazy_refcounts ? "on" : "off",
               o->refcount_bits ? o->refcount_bits : 16);
    putchar('\n');
}

static void replace(char **text, const char *with)
{
    free(*text);
    *text = strdup(with);
}

static int create_image(int argc, char **argv, struct img_create *create, struct error *err)
{
    const char *format = "raw", *backing = NULL, *backing_format = NULL, *options = "";
    bool quiet = false, unsafe = false;
    int c, result;

    while ((c = getopt(argc, argv, "qf:b:F:uo:")) >= 0) {
        switch (c) {
        case 'q':
            quiet = true;
            break;
        case 'f':
            format = optarg;
            break;
        case 'b':
            backing = optarg;
            break;
        case 'F':
            backing_format = optarg;
            break;
        case 'u':
            unsafe = true;
            break;
        case 'o':
            options = optarg;
            break;
        default:
            return error_set(err, EINVAL, "create: unknown option or missing argument (eidolon-img --help)");
        }
    }
    result = img_check_format(format, err);
    if (!result && (!strcmp(options, "help") || !strcmp(options, "?"))) {
        img_print_create_help(format);
        return 0;
    }
    if (!result && (optind >= argc || argc - optind > 2))
        result = error_set(err, EINVAL, "create: a file name and a size are needed (eidolon-img --help)");
    if (!result)
        result = img_parse_create(format, options, create, err);
    if (!result && backing && !strcmp(format, "raw"))
        result = error_set(err, EINVAL, "a raw image has no backing file");
    if (!result && backing)
        replace(&create->backing_name, backing);
    if (!result && backing_format)
        replace(&create->backing_format, backing_format);
    if (!result && argc - optind == 2) {
        result = img_parse_size(argv[optind + 1], &create->qcow2.size, err);
        create->has_size = true;
    }
    if (!result)
        result = check_backing(argv[optind], create, unsafe, err);
    if (!result && !create->has_size)
        result = error_set(err, EINVAL, "create: the size is missing");
    if (!result && !quiet)
        print_formatting(argv[optind], format, create);
    return result ? result : img_create_file(argv[optind], format, create, 0, err);
}

int img_create_main(int argc, char **argv)
{
    struct img_create create = { 0 };
    struct error err = { "" };
    int result = create_image(argc, argv, &create, &err);

    img_create_free(&create);
    return result ? img_fail(&err) : 0;
}
