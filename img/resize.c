/* eidolon-img resize and rebase -u. */
#include "img/img.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <string.h>

static int new_size(const char *text, uint64_t old, uint64_t *size, struct error *err)
{
    char sign = *text == '+' || *text == '-' ? *text++ : '=';
    int result = img_parse_size(text, size, err);

    if (result)
        return result;
    if (sign == '-' && *size > old)
        return error_set(err, EINVAL, "the size would be below 0");
    if (sign == '+' && __builtin_add_overflow(old, *size, size))
        return error_set(err, EINVAL, "the size would be too big");
    if (sign == '-')
        *size = old - *size;
    if (*size > INT64_MAX - 511)
        return error_set(err, EFBIG, "a disk of %llu bytes is too big", (unsigned long long)*size);
    *size = ALIGN_UP(*size, 512);
    return 0;
}

static int resize_raw(struct img *img, uint64_t size, enum qcow2_preallocation preallocation, struct error *err)
{
    int result;

    if (preallocation == QCOW2_PREALLOC_METADATA)
        return error_set(err, EINVAL, "preallocation=metadata: a raw image has none");
    result = img->file.ops->truncate(img->file.opaque, size);
    if (!result && size > img->size && preallocation != QCOW2_PREALLOC_OFF)
        result = img->file.ops->allocate(img->file.opaque, img->size, size - img->size);
    for (uint64_t at = img->size; preallocation == QCOW2_PREALLOC_FULL && at < size && !result;) {
        static const uint8_t zeroes[MIB];
        uint64_t part = MIN(size - at, sizeof(zeroes));

        result = img_write(img, at, zeroes, part);
        at += part;
    }
    if (!result)
        result = img_flush(img);
    return result ? error_set(err, -result, "%s", strerror(-result)) : 0;
}

static int resize(struct img *img, const char *text, bool shrink, enum qcow2_preallocation preallocation,
                  struct error *err)
{
    uint64_t size;
    int result = new_size(text, img->size, &size, err);

    if (result)
        return result;
    if (size < img->size && !shrink)
        return error_set(
            err, EINVAL,
            "the image would become smaller, which deletes what is behind: --shrink says that this is meant");
    if (size < img->size && preallocation != QCOW2_PREALLOC_OFF)
        return error_set(err, EINVAL, "nothing can be preallocated when the image becomes smaller");
    return img->qcow2 ? qcow2_resize(img->qcow2, size, shrink, preallocation, err)
                      : resize_raw(img, size, preallocation, err);
}

/* "-1M" looks like an option, and qemu-img takes it as a size when it is the last argument. */
static const char *take_size(int *argc, char **argv)
{
    const char *last = *argc > 2 ? argv[*argc - 1] : NULL;

    if (last)
        argv[--*argc] = NULL;
    return last;
}

int img_resize_main(int argc, char **argv)
{
    static const struct option options[] = { { "shrink", no_argument, NULL, 's' },
                                             { "preallocation", required_argument, NULL, 'p' },
                                             { NULL, 0, NULL, 0 } };
    const char *format = NULL, *size = take_size(&argc, argv);
    enum qcow2_preallocation preallocation = QCOW2_PREALLOC_OFF;
    bool shrink = false, quiet = false;
    struct error err = { "" };
    struct img *img;
    int c, result, closed;

    while ((c = getopt_long(argc, argv, "qf:", options, NULL)) >= 0) {
        switch (c) {
        case 'q':
            quiet = true;
            break;
        case 'f':
            format = optarg;
            break;
        case 's':
            shrink = true;
            break;
        case 'p':
            if (img_parse_preallocation(optarg, &preallocation, &err))
                return img_fail(&err);
            break;
        default:
            return 1;
        }
    }
    if (argc - optind != 1 || !size)
        return img_usage("resize", "a file name and a size are needed");
    if (img_open(argv[optind], format, IMG_WRITE, &img, &err))
        return img_fail(&err);
    result = resize(img, size, shrink, preallocation, &err);
    closed = img_close(img);
    if (!result && closed)
        result = error_set(&err, -closed, "%s", strerror(-closed));
    if (!result && !quiet)
        printf("Image resized.\n");
    return result ? img_fail(&err) : 0;
}

int img_rebase_main(int argc, char **argv)
{
    const char *format = NULL, *backing = NULL, *backing_format = NULL;
    bool unsafe = false;
    struct error err = { "" };
    struct img *img;
    int c, result, closed;

    while ((c = getopt(argc, argv, "qf:b:F:u")) >= 0) {
        switch (c) {
        case 'q':
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
        default:
            return 1;
        }
    }
    if (argc - optind != 1 || !backing)
        return img_usage("rebase", "-b BACKING (or -b '' for none) and one file name are needed");
    if (!unsafe)
        return img_usage("rebase", "only -u is there: the name changes, and the content of the disk with it");
    if (*backing && !backing_format)
        return img_usage("rebase", "the format of the backing file is needed: -F raw or -F qcow2");
    if (img_check_format(backing_format, &err) ||
        img_open(argv[optind], format, IMG_WRITE | IMG_NO_BACKING, &img, &err))
        return img_fail(&err);
    result = img->qcow2 ? qcow2_set_backing(img->qcow2, *backing ? backing : NULL, backing_format, &err)
                        : error_set(&err, EINVAL, "a raw image has no backing file");
    closed = img_close(img);
    if (!result && closed)
        result = error_set(&err, -closed, "%s", strerror(-closed));
    return result ? img_fail(&err) : 0;
}
