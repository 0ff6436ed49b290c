/* eidolon-img info: fields, names and order as qemu-img has them. */
#include "img/img.h"

#include <errno.h>
#include <getopt.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

static uint64_t disk_size(const struct img *img)
{
    struct stat status;

    return fstat(qcow2_host_file_fd(&img->file), &status) ? 0 : (uint64_t)status.st_blocks * 512;
}

/* ---- JSON ---- */

static json_t *snapshots_json(const struct qcow2_info *info)
{
    json_t *list = json_array();

    for (unsigned i = 0; i < info->snapshot_count; i++) {
        const struct qcow2_snapshot_info *s = &info->snapshots[i];
        json_t *entry = json_object();

        if (s->icount != UINT64_MAX)
            json_object_set_new(entry, "icount", json_integer((json_int_t)s->icount));
        json_object_set_new(entry, "vm-clock-nsec", json_integer((json_int_t)(s->vm_clock_ns % 1000000000)));
        json_object_set_new(entry, "name", json_string(s->name));
        json_object_set_new(entry, "date-sec", json_integer(s->date_seconds));
        json_object_set_new(entry, "date-nsec", json_integer(s->date_ns));
        json_object_set_new(entry, "vm-clock-sec", json_integer((json_int_t)(s->vm_clock_ns / 1000000000)));
        json_object_set_new(entry, "id", json_string(s->id));
        json_object_set_new(entry, "vm-state-size", json_integer((json_int_t)s->vm_state_size));
        json_array_append_new(list, entry);
    }
    return list;
}

static json_t *specific_json(const struct qcow2_info *info)
{
    json_t *data = json_object(), *specific = json_object();

    json_object_set_new(data, "compat", json_string(info->version < 3 ? "0.10" : "1.1"));
    json_object_set_new(data, "compression-type", json_string(info->zstd ? "zstd" : "zlib"));
    if (info->version >= 3)
        json_object_set_new(data, "lazy-refcounts", json_boolean(info->lazy_refcounts));
    json_object_set_new(data, "refcount-bits", json_integer(info->refcount_bits));
    if (info->version >= 3) {
        json_object_set_new(data, "corrupt", json_boolean(info->corrupt));
        json_object_set_new(data, "extended-l2", json_boolean(info->extended_l2));
    }
    json_object_set_new(specific, "type", json_string("qcow2"));
    json_object_set_new(specific, "data", data);
    return specific;
}

static json_t *image_json(const struct img *img)
{
    const struct qcow2_info *info = img->qcow2 ? qcow2_info(img->qcow2) : NULL;
    json_t *object = json_object();
    struct error err;
    char *full;

    if (info && info->backing_format)
        json_object_set_new(object, "backing-filename-format", json_string(info->backing_format));
    if (info && info->snapshot_count)
        json_object_set_new(object, "snapshots", snapshots_json(info));
    json_object_set_new(object, "virtual-size", json_integer((json_int_t)img->size));
    json_object_set_new(object, "filename", json_string(img->path));
    if (info)
        json_object_set_new(object, "cluster-size", json_integer(info->cluster_size));
    json_object_set_new(object, "format", json_string(img->format));
    json_object_set_new(object, "actual-size", json_integer((json_int_t)disk_size(img)));
    if (info)
        json_object_set_new(object, "format-specific", specific_json(info));
    if (info && info->backing_name) {
        full = qcow2_backing_path(img->path, info->backing_name, &err);
        if (full)
            json_object_set_new(object, "full-backing-filename", json_string(full));
        free(full);
        json_object_set_new(object, "backing-filename", json_string(info->backing_name));
    }
    json_object_set_new(object, "dirty-flag", json_boolean(info && info->dirty));
    return object;
}

/* ---- For people ---- */

static void print_snapshots(const struct qcow2_info *info)
{
    printf("Snapshot list:\n%-9s %-16s %8s%20s%13s%11s\n", "ID", "TAG", "VM SIZE", "DATE", "VM CLOCK", "ICOUNT");
    for (unsigned i = 0; i < info->snapshot_count; i++) {
        const struct qcow2_snapshot_info *s = &info->snapshots[i];
        time_t seconds = s->date_seconds;
        unsigned clock = (unsigned)(s->vm_clock_ns / 1000000000);
        char size[32], date[32], since[32], icount[32] = "";
        struct tm tm;

        localtime_r(&seconds, &tm);
        strftime(date, sizeof(date), "%Y-%m-%d %H:%M:%S", &tm);
        snprintf(since, sizeof(since), "%02u:%02u:%02u.%03u", clock / 3600, clock / 60 % 60, clock % 60,
                 (unsigned)(s->vm_clock_ns / 1000000 % 1000));
        if (s->icount != UINT64_MAX)
            snprintf(icount, sizeof(icount), "%llu", (unsigned long long)s->icount);
        printf("%-9s %-16s %8s%20s%13s%11s\n", s->id, s->name, img_size_text(s->vm_state_size, size, sizeof(size)),
               date, since, icount);
    }
}

static void print_specific(const struct qcow2_info *info)
{
    printf("Format specific information:\n    compat: %s\n    compression type: %s\n",
           info->version < 3 ? "0.10" : "1.1", info->zstd ? "zstd" : "zlib");
    if (info->version >= 3)
        printf("    lazy refcounts: %s\n", info->lazy_refcounts ? "true" : "false");
    printf("    refcount bits: %u\n", info->refcount_bits);
    if (info->version >= 3)
        printf("    corrupt: %s\n    extended l2: %s\n", info->corrupt ? "true" : "false",
               info->extended_l2 ? "true" : "false");
}

static void print_image(const struct img *img)
{
    const struct qcow2_info *info = img->qcow2 ? qcow2_info(img->qcow2) : NULL;
    char virtual[32], disk[32], *full;
    struct error err;

    printf("image: %s\nfile format: %s\nvirtual size: %s (%llu bytes)\ndisk size: %s\n", img->path, img->format,
           img_size_text(img->size, virtual, sizeof(virtual)), (unsigned long long)img->size,
           img_size_text(disk_size(img), disk, sizeof(disk)));
    if (!info)
        return;
    printf("cluster_size: %u\n", info->cluster_size);
    if (info->dirty)
        printf("cleanly shut down: no\n");
    if (info->backing_name) {
        full = qcow2_backing_path(img->path, info->backing_name, &err);
        printf("backing file: %s", info->backing_name);
        if (!full)
            printf(" (cannot determine actual path)");
        else if (strcmp(full, info->backing_name))
            printf(" (actual path: %s)", full);
        putchar('\n');
        free(full);
    }
    if (info->backing_format)
        printf("backing file format: %s\n", info->backing_format);
    if (info->snapshot_count)
        print_snapshots(info);
    print_specific(info);
}

/* ---- The command ---- */

static void print_json(json_t *json)
{
    char *text = json_dumps(json, JSON_INDENT(4) | JSON_PRESERVE_ORDER);

    printf("%s\n", text ? text : "");
    free(text);
    json_decref(json);
}

/* With the chain all of it is opened, so that what is missing or loops is an error; else only the image itself. */
static void print_all(struct img *img, bool json, bool chain)
{
    json_t *list = json && chain ? json_array() : NULL;

    if (json && !chain)
        print_json(image_json(img));
    for (const struct img *layer = img; layer && !(json && !chain); layer = chain ? layer->backing : NULL) {
        if (list) {
            json_array_append_new(list, image_json(layer));
            continue;
        }
        if (layer != img)
            putchar('\n');
        print_image(layer);
    }
    if (list)
        print_json(list);
}

int img_info_main(int argc, char **argv)
{
    static const struct option options[] = { { "output", required_argument, NULL, 'j' },
                                             { "backing-chain", no_argument, NULL, 'b' },
                                             { "force-share", no_argument, NULL, 'U' },
                                             { "format", required_argument, NULL, 'f' },
                                             { NULL, 0, NULL, 0 } };
    const char *format = NULL;
    bool json = false, chain = false;
    unsigned flags = 0;
    struct error err = { "" };
    struct img *img;
    int c;

    while ((c = getopt_long(argc, argv, "f:U", options, NULL)) >= 0) {
        switch (c) {
        case 'f':
            format = optarg;
            break;
        case 'U':
            flags |= IMG_FORCE_SHARE;
            break;
        case 'b':
            chain = true;
            break;
        case 'j':
            if (img_parse_output(optarg, &json, &err))
                return img_fail(&err);
            break;
        default:
            return 1;
        }
    }
    if (argc - optind != 1)
        return img_usage("info", "one file name is needed");
    /* What is corrupt or dirty can be described too. */
    if (img_open(argv[optind], format, flags | (chain ? 0 : IMG_NO_BACKING) | IMG_CHECK, &img, &err))
        return img_fail(&err);
    print_all(img, json, chain);
    img_close(img);
    return 0;
}
