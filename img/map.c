/* eidolon-img map and compare. */
#include "img/img.h"

#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- map ---- */

static bool mergeable(const struct img_status *a, const struct img_status *b)
{
    return a->data == b->data && a->zero == b->zero && a->present == b->present && a->depth == b->depth &&
           a->has_offset == b->has_offset && a->compressed == b->compressed &&
           (!a->has_offset || a->offset + a->size == b->offset);
}

static int print_entry(uint64_t start, const struct img_status *s, bool json, bool first, struct error *err)
{
    if (json) {
        printf("%s{ \"start\": %" PRIu64 ", \"length\": %" PRIu64
               ", \"depth\": %u, \"present\": %s, \"zero\": %s, \"data\": %s",
               first ? "[" : ",\n", start, s->size, s->depth, s->present ? "true" : "false", s->zero ? "true" : "false",
               s->data ? "true" : "false");
        if (s->has_offset)
            printf(", \"offset\": %" PRIu64, s->offset);
        printf("}");
        return 0;
    }
    if (s->data && !s->has_offset)
        return error_set(err, ENOTSUP, "the image has compressed clusters, which lie at no offset (use --output=json)");
    if (s->data && !s->zero)
        printf("%#-16" PRIx64 "%#-16" PRIx64 "%#-16" PRIx64 "%s\n", start, s->size, s->offset, s->layer->path);
    return 0;
}

static int map_image(struct img *img, uint64_t start, uint64_t length, bool json, struct error *err)
{
    uint64_t end = start < img->size ? start + MIN(length, img->size - start) : start, at = start, begun = start;
    struct img_status current = { 0 }, next;
    bool first = true;
    int result = 0;

    if (!json)
        printf("%-16s%-16s%-16s%s\n", "Offset", "Length", "Mapped to", "File");
    for (; at < end && !result; at += next.size) {
        result = img_status(img, at, end - at, &next);
        if (result)
            return error_set(err, -result, "at offset %" PRIu64 ": %s", at, strerror(-result));
        if (current.size && mergeable(&current, &next)) {
            current.size += next.size;
            continue;
        }
        if (current.size) {
            result = print_entry(begun, &current, json, first, err);
            first = false;
        }
        current = next;
        begun = at;
    }
    if (!result && current.size)
        result = print_entry(begun, &current, json, first, err);
    if (json)
        printf("%s]\n", current.size ? "" : "[");
    return result;
}

int img_map_main(int argc, char **argv)
{
    static const struct option options[] = { { "output", required_argument, NULL, 'j' },
                                             { "force-share", no_argument, NULL, 'U' },
                                             { "start-offset", required_argument, NULL, 's' },
                                             { "max-length", required_argument, NULL, 'l' },
                                             { NULL, 0, NULL, 0 } };
    const char *format = NULL;
    uint64_t start = 0, length = UINT64_MAX;
    bool json = false;
    unsigned flags = 0;
    struct error err = { "" };
    struct img *img;
    int c, result = 0;

    while ((c = getopt_long(argc, argv, "f:Us:l:", options, NULL)) >= 0) {
        if (c == 'f')
            format = optarg;
        else if (c == 'U')
            flags |= IMG_FORCE_SHARE;
        else if (c == 's')
            result = img_parse_size(optarg, &start, &err);
        else if (c == 'l')
            result = img_parse_size(optarg, &length, &err);
        else if (c == 'j')
            result = img_parse_output(optarg, &json, &err);
        else
            return 1;
        if (result)
            return img_fail(&err);
    }
    if (argc - optind != 1)
        return img_usage("map", "one file name is needed");
    if (img_open(argv[optind], format, flags, &img, &err))
        return img_fail(&err);
    result = map_image(img, start, length, json, &err);
    img_close(img);
    return result ? img_fail(&err) : 0;
}

/* ---- compare ---- */

enum { COMPARE_SAME = 0, COMPARE_DIFFERENT = 1, COMPARE_FAILED = 2 };
#define COMPARE_CHUNK (2 * MIB)

struct comparison {
    struct img *images[2];
    uint8_t *buffers[2];
    bool strict, progress, quiet;
};

/* Up to the same end for both; the longer one must be zeroes behind the shorter one's end. */
static int compare_part(struct comparison *c, uint64_t offset, uint64_t *size)
{
    struct img_status status[2];
    int result;

    for (unsigned i = 0; i < 2; i++) {
        result = img_status(c->images[i], offset, *size, &status[i]);
        if (result)
            return result;
        *size = status[i].size;
    }
    if (c->strict && offset < MIN(c->images[0]->size, c->images[1]->size) && status[0].present != status[1].present) {
        if (!c->quiet)
            printf("Strict mode: Offset %" PRIu64 " block status mismatch!\n", offset);
        return COMPARE_DIFFERENT;
    }
    if (status[0].zero && status[1].zero)
        return COMPARE_SAME;
    *size = MIN(*size, COMPARE_CHUNK);
    for (unsigned i = 0; i < 2; i++) {
        result = img_read(c->images[i], offset, c->buffers[i], *size);
        if (result)
            return result;
    }
    if (!memcmp(c->buffers[0], c->buffers[1], *size))
        return COMPARE_SAME;
    for (uint64_t i = 0; i < *size && !c->quiet; i++) {
        if (c->buffers[0][i] != c->buffers[1][i]) {
            printf("Content mismatch at offset %" PRIu64 "!\n", offset + ALIGN_DOWN(i, 512));
            break;
        }
    }
    return COMPARE_DIFFERENT;
}

static int compare(struct comparison *c, struct error *err)
{
    uint64_t end = MAX(c->images[0]->size, c->images[1]->size), part;
    int result = COMPARE_SAME;

    if (c->images[0]->size != c->images[1]->size) {
        if (c->strict) {
            if (!c->quiet)
                printf("Strict mode: Image size mismatch!\n");
            return COMPARE_DIFFERENT;
        }
        if (!c->quiet)
            printf("Warning: Image size mismatch!\n");
    }
    for (uint64_t at = 0; at < end && !result; at += part) {
        part = end - at;
        result = compare_part(c, at, &part);
        img_progress(c->progress, at, end);
    }
    if (result < 0)
        return error_set(err, -result, "%s", strerror(-result));
    if (!result) {
        img_progress_end(c->progress);
        if (!c->quiet)
            printf("Images are identical.\n");
    }
    return result;
}

int img_compare_main(int argc, char **argv)
{
    const char *formats[2] = { NULL, NULL };
    struct comparison c = { 0 };
    unsigned flags = 0;
    struct error err = { "" };
    int o, result = 0;

    while ((o = getopt(argc, argv, "qspf:F:U")) >= 0) {
        if (o == 'q')
            c.quiet = true;
        else if (o == 's')
            c.strict = true;
        else if (o == 'p')
            c.progress = true;
        else if (o == 'f' || o == 'F')
            formats[o == 'F'] = optarg;
        else if (o == 'U')
            flags |= IMG_FORCE_SHARE;
        else
            return COMPARE_FAILED;
    }
    if (argc - optind != 2) {
        img_usage("compare", "two file names are needed");
        return COMPARE_FAILED;
    }
    for (unsigned i = 0; i < 2 && !result; i++) {
        result = img_open(argv[optind + (int)i], formats[i], flags, &c.images[i], &err);
        c.buffers[i] = malloc(COMPARE_CHUNK);
        if (!result && !c.buffers[i])
            result = error_set(&err, ENOMEM, "no memory");
    }
    if (!result)
        result = compare(&c, &err);
    for (unsigned i = 0; i < 2; i++) {
        img_close(c.images[i]);
        free(c.buffers[i]);
    }
    if (result < 0) {
        img_fail(&err);
        return COMPARE_FAILED;
    }
    return result;
}
