/* eidolon-img check. Exit status: 0 nothing found (or all repaired), 1 the check could not be made, 2 errors, 3 leaks only, 63 the
 * format has no check. */
#include "img/img.h"

#include <errno.h>
#include <getopt.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { STATUS_FAILED = 1, STATUS_ERRORS = 2, STATUS_LEAKS = 3, STATUS_NO_CHECK = 63 };

static void print_line(void *opaque, const char *line)
{
    (void)opaque;
    fprintf(stderr, "%s\n", line);
}

static void set(json_t *object, const char *name, uint64_t value, bool always)
{
    if (value || always)
        json_object_set_new(object, name, json_integer((json_int_t)value));
}

static void print_json(const char *path, const struct qcow2_check_result *r)
{
    json_t *object = json_object();
    char *text;

    set(object, "image-end-offset", r->image_end_offset, false);
    set(object, "compressed-clusters", r->compressed_clusters, false);
    set(object, "total-clusters", r->total_clusters, false);
    set(object, "check-errors", r->check_errors, true);
    set(object, "corruptions", r->errors, false);
    set(object, "leaks", r->leaks, false);
    set(object, "corruptions-fixed", r->errors_fixed, false);
    set(object, "leaks-fixed", r->leaks_fixed, false);
    set(object, "allocated-clusters", r->allocated_clusters, false);
    json_object_set_new(object, "filename", json_string(path));
    json_object_set_new(object, "format", json_string("qcow2"));
    set(object, "fragmented-clusters", r->fragmented_clusters, false);
    text = json_dumps(object, JSON_INDENT(4) | JSON_PRESERVE_ORDER);
    printf("%s\n", text ? text : "");
    free(text);
    json_decref(object);
}

static void print_human(const struct qcow2_check_result *r)
{
    if (r->errors_fixed || r->leaks_fixed)
        printf("The following inconsistencies were found and repaired:\n\n    %llu leaked clusters\n    %llu "
               "corruptions\n\n"
               "Double checking the fixed image now...\n",
               (unsigned long long)r->leaks_fixed, (unsigned long long)r->errors_fixed);
    if (!r->errors && !r->leaks && !r->check_errors)
        printf("No errors were found on the image.\n");
    if (r->errors)
        printf("\n%llu errors were found on the image.\n"
               "Data may be corrupted, or further writes to the image may corrupt it.\n",
               (unsigned long long)r->errors);
    if (r->leaks)
        printf("\n%llu leaked clusters were found on the image.\n"
               "This means waste of disk space, but no harm to data.\n",
               (unsigned long long)r->leaks);
    if (r->check_errors)
        printf("\n%llu internal errors have occurred during the check.\n", (unsigned long long)r->check_errors);
    if (r->total_clusters && r->allocated_clusters)
        printf("%llu/%llu = %0.2f%% allocated, %0.2f%% fragmented, %0.2f%% compressed clusters\n",
               (unsigned long long)r->allocated_clusters, (unsigned long long)r->total_clusters,
               (double)r->allocated_clusters * 100 / (double)r->total_clusters,
               (double)r->fragmented_clusters * 100 / (double)r->allocated_clusters,
               (double)r->compressed_clusters * 100 / (double)r->allocated_clusters);
    if (r->image_end_offset)
        printf("Image end offset: %llu\n", (unsigned long long)r->image_end_offset);
}

static int status_of(const struct qcow2_check_result *r)
{
    if (r->errors)
        return STATUS_ERRORS;
    if (r->leaks)
        return STATUS_LEAKS;
    return r->check_errors ? STATUS_FAILED : 0;
}

static int check_image(struct img *img, unsigned fix, bool json, bool quiet)
{
    struct qcow2_check_result result;
    struct error err = { "" };

    if (!img->qcow2) {
        fprintf(stderr, "eidolon-img: format raw has no check\n");
        return STATUS_NO_CHECK;
    }
    if (qcow2_check(img->qcow2, fix, json || quiet ? NULL : print_line, NULL, &result, &err))
        return img_fail(&err);
    if (json)
        print_json(img->path, &result);
    else if (!quiet)
        print_human(&result);
    return status_of(&result);
}

int img_check_main(int argc, char **argv)
{
    static const struct option options[] = { { "output", required_argument, NULL, 'j' },
                                             { "repair", required_argument, NULL, 'r' },
                                             { "format", required_argument, NULL, 'f' },
                                             { "force-share", no_argument, NULL, 'U' },
                                             { NULL, 0, NULL, 0 } };
    const char *format = NULL;
    bool json = false, quiet = false;
    unsigned flags = IMG_CHECK | IMG_NO_BACKING, fix = 0;
    struct error err = { "" };
    struct img *img;
    int c, status;

    while ((c = getopt_long(argc, argv, "qf:r:U", options, NULL)) >= 0) {
        switch (c) {
        case 'q':
            quiet = true;
            break;
        case 'f':
            format = optarg;
            break;
        case 'U':
            flags |= IMG_FORCE_SHARE;
            break;
        case 'r':
            if (strcmp(optarg, "leaks") && strcmp(optarg, "all"))
                return img_usage("check", "-r %s: leaks or all is needed", optarg);
            fix = QCOW2_FIX_LEAKS | (strcmp(optarg, "all") ? 0 : QCOW2_FIX_ERRORS);
            flags |= IMG_WRITE;
            break;
        case 'j':
            if (img_parse_output(optarg, &json, &err))
                return img_fail(&err);
            break;
        default:
            return STATUS_FAILED;
        }
    }
    if (argc - optind != 1)
        return img_usage("check", "one file name is needed");
    if (flags & IMG_WRITE && flags & IMG_FORCE_SHARE)
        return img_usage("check", "-U and -r cannot be used together");
    if (img_open(argv[optind], format, flags, &img, &err))
        return img_fail(&err);
    status = check_image(img, fix, json, quiet);
    if (img_close(img) && fix && !status)
        status = STATUS_FAILED;
    return status;
}
