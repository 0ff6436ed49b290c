/* eidolon-img convert. Threads take parts of the source in turn, read them, and write them: in order, or with -W as they are ready. What
 * reads as zeroes is not written if the target is new. Flushes of the target are left out until the end: an image that is not complete
 * is of no use anyway. */
#include "img/img.h"

#include <errno.h>
#include <getopt.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define CHUNK       (2 * MIB)
#define MAX_THREADS 16
#define SECTOR      512

struct convert {
    struct img *from, *to;
    uint64_t size, sparse; /* sparse: runs of zeroes of this many bytes are not written; 0: everything is */
    uint64_t cluster_size; /* compressed: what is written at once; else 0 */
    bool new_target, out_of_order, progress;

    pthread_mutex_t lock;
    pthread_cond_t turn;
    uint64_t position; /* of the next part to take; guarded by lock */
    uint64_t taken, written;
    uint64_t done;
    int result;
};

struct part {
    uint64_t number, offset, size;
    bool zero;
};

/* ---- Taking parts ---- */

static int find_part(struct convert *c, struct part *part)
{
    struct img_status status;
    uint64_t left = c->size - c->position;
    int result;

    part->offset = c->position;
    part->zero = false;
    if (c->cluster_size) { /* whole clusters; what is zero is seen when it was read */
        part->size = MIN(left, c->cluster_size);
        result = img_status(c->from, part->offset, part->size, &status);
        part->zero = !result && status.zero && status.size == part->size;
        return result;
    }
    result = img_status(c->from, part->offset, left, &status);
    part->zero = status.zero && c->sparse;
    part->size = MIN(status.size, part->zero ? left : CHUNK);
    return result;
}

static bool take_part(struct convert *c, struct part *part)
{
    bool more;

    pthread_mutex_lock(&c->lock);
    more = !c->result && c->position < c->size;
    if (more) {
        c->result = find_part(c, part);
        more = !c->result;
    }
    if (more) {
        part->number = c->taken++;
        c->position += part->size;
    }
    pthread_mutex_unlock(&c->lock);
    return more;
}

static bool wait_turn(struct convert *c, const struct part *part)
{
    bool go;

    pthread_mutex_lock(&c->lock);
    while (!c->out_of_order && c->written != part->number && !c->result)
        pthread_cond_wait(&c->turn, &c->lock);
    go = !c->result;
    pthread_mutex_unlock(&c->lock);
    return go;
}

static void finish_part(struct convert *c, const struct part *part, int result)
{
    pthread_mutex_lock(&c->lock);
    if (result && !c->result)
        c->result = result;
    c->written++;
    c->done += part->size;
    img_progress(c->progress && !result, c->done, c->size);
    pthread_cond_broadcast(&c->turn);
    pthread_mutex_unlock(&c->lock);
}

/* ---- Writing them ---- */

static bool is_zero(const uint8_t *data, uint64_t size)
{
    return !size || (!data[0] && !memcmp(data, data + 1, size - 1));
}

static int write_zeroes(struct convert *c, uint64_t offset, uint64_t size)
{
    return c->new_target ? 0 : img_write_zeroes(c->to, offset, size);
}

/* Runs of zeroes, in units of c->sparse, and what is between them. */
static int write_sparse(struct convert *c, const uint8_t *data, const struct part *part)
{
    uint64_t start = 0, at = 0;
    bool zero = false;
    int result = 0;

    while (at < part->size && !result) {
        /* Units are aligned on the disk, not in the part. */
        uint64_t end = MIN(ALIGN_DOWN(part->offset + at, c->sparse) + c->sparse - part->offset, part->size);
        bool unit_zero = is_zero(data + at, end - at);

        if (at > start && unit_zero != zero) {
            result = zero ? write_zeroes(c, part->offset + start, at - start)
                          : img_write(c->to, part->offset + start, data + start, at - start);
            start = at;
        }
        zero = unit_zero;
        at = end;
    }
    if (result || start == part->size)
        return result;
    return zero ? write_zeroes(c, part->offset + start, part->size - start)
                : img_write(c->to, part->offset + start, data + start, part->size - start);
}

static int write_part(struct convert *c, const uint8_t *data, const struct part *part)
{
    if (part->zero)
        return write_zeroes(c, part->offset, part->size);
    if (c->cluster_size)
        return is_zero(data, part->size) ? write_zeroes(c, part->offset, part->size)
                                         : qcow2_write_compressed(c->to->qcow2, part->offset, data, part->size);
    return c->sparse ? write_sparse(c, data, part) : img_write(c->to, part->offset, data, part->size);
}

static void *worker(void *opaque)
{
    struct convert *c = opaque;
    uint8_t *data = malloc(MAX(CHUNK, c->cluster_size));
    struct part part;

    while (take_part(c, &part)) {
        int result = data ? 0 : -ENOMEM;

        if (!result && !part.zero)
            result = img_read(c->from, part.offset, data, part.size);
        if (!result && wait_turn(c, &part))
            result = write_part(c, data, &part);
        finish_part(c, &part, result);
    }
    free(data);
    return NULL;
}

static int run_workers(struct convert *c, unsigned threads, struct error *err)
{
    pthread_t ids[MAX_THREADS];
    unsigned started = 0;

    while (started < threads && !pthread_create(&ids[started], NULL, worker, c))
        started++;
    if (!started)
        worker(c);
    for (unsigned i = 0; i < started; i++)
        pthread_join(ids[i], NULL);
    return c->result ? error_set(err, -c->result, "copying failed: %s", strerror(-c->result)) : 0;
}

/* ---- The command ---- */

struct arguments {
    const char *from_format, *to_format, *options, *from, *to;
    uint64_t sparse, threads;
    bool compress, progress, existing, out_of_order, force_share, safe;
};

static int parse_option(int c, struct arguments *a, struct error *err)
{
    switch (c) {
    case 'f':
        a->from_format = optarg;
        return 0;
    case 'O':
        a->to_format = optarg;
        return 0;
    case 'c':
        a->compress = true;
        return 0;
    case 'o':
        a->options = optarg;
        return 0;
    case 'S':
        if (img_parse_size(optarg, &a->sparse, err))
            return -EINVAL;
        if (a->sparse % SECTOR || a->sparse > CHUNK)
            return error_set(err, EINVAL, "-S %s: a multiple of 512 up to 2M is needed", optarg);
        return 0;
    case 'p':
        a->progress = true;
        return 0;
    case 'q':
        return 0;
    case 'n':
        a->existing = true;
        return 0;
    case 'm':
        if (parse_u64(optarg, &a->threads, err) || !a->threads || a->threads > MAX_THREADS)
            return error_set(err, EINVAL, "-m %s: 1 to %u is needed", optarg, MAX_THREADS);
        return 0;
    case 'W':
        a->out_of_order = true;
        return 0;
    case 'U':
        a->force_share = true;
        return 0;
    case 't':
        if (strcmp(optarg, "unsafe") && strcmp(optarg, "writeback"))
            return error_set(err, ENOTSUP, "-t %s is not supported: unsafe and writeback are", optarg);
        a->safe = !strcmp(optarg, "writeback");
        return 0;
    default:
        return error_set(err, EINVAL, "convert: unknown option or missing argument (eidolon-img --help)");
    }
}

static int check_arguments(const struct arguments *a, struct error *err)
{
    int result = img_check_format(a->from_format, err);

    if (!result)
        result = img_check_format(a->to_format, err);
    if (!result && a->compress && strcmp(a->to_format, "qcow2"))
        result = error_set(err, EINVAL, "-c: a %s image cannot be compressed", a->to_format);
    if (!result && a->existing && a->options)
        result = error_set(err, EINVAL, "-o: with -n nothing is created");
    return result;
}

/* Makes the target as the options say, and opens it. */
static int open_target(const struct arguments *a, struct convert *c, struct error *err)
{
    struct img_create create = { 0 };
    unsigned flags = a->safe ? 0 : IMG_UNSAFE;
    int result = 0;

    if (!a->existing) {
        result = img_parse_create(a->to_format, a->options ? a->options : "", &create, err);
        if (!result && create.has_size && create.qcow2.size != c->from->size)
            result = error_set(err, EINVAL, "size=: the size is that of the source");
        if (!result && create.backing_name)
            result = error_set(err, ENOTSUP, "backing_file= is not supported here");
        create.qcow2.size = c->from->size;
        if (!result)
            result = img_create_file(a->to, a->to_format, &create, flags, err);
        img_create_free(&create);
    }
    if (!result)
        result = img_open(a->to, a->to_format, IMG_WRITE | flags, &c->to, err);
    if (!result && c->to->size < c->from->size)
        result = error_set(err, EINVAL, "'%s' is smaller than the source", a->to);
    return result;
}

static int convert(const struct arguments *a, struct error *err)
{
    struct convert c = {
        .sparse = a->sparse,
        .out_of_order = a->out_of_order,
        .progress = a->progress,
        .new_target = !a->existing,
        .lock = PTHREAD_MUTEX_INITIALIZER,
        .turn = PTHREAD_COND_INITIALIZER,
    };
    int result = img_open(a->from, a->from_format, a->force_share ? IMG_FORCE_SHARE : 0, &c.from, err), closed;

    if (!result)
        result = open_target(a, &c, err);
    if (!result) {
        c.size = c.from->size;
        c.cluster_size = a->compress ? qcow2_info(c.to->qcow2)->cluster_size : 0;
        img_progress(c.progress, 0, c.size);
        result = run_workers(&c, (unsigned)a->threads, err);
    }
    if (!result && a->existing && c.to->size > c.size && (closed = img_write_zeroes(c.to, c.size, c.to->size - c.size)))
        result = error_set(err, -closed, "'%s': %s", a->to, strerror(-closed));
    closed = img_close(c.to);
    if (!result && closed)
        result = error_set(err, -closed, "'%s': %s", a->to, strerror(-closed));
    img_close(c.from);
    if (!result)
        img_progress_end(c.progress);
    return result;
}

int img_convert_main(int argc, char **argv)
{
    struct arguments a = { .to_format = "raw", .sparse = 4096, .threads = 8 };
    struct error err = { "" };
    int c, result = 0;

    while (!result && (c = getopt(argc, argv, "f:O:co:S:pqnm:WUt:")) >= 0)
        result = parse_option(c, &a, &err);
    if (!result)
        result = check_arguments(&a, &err);
    if (!result && a.options && (!strcmp(a.options, "help") || !strcmp(a.options, "?"))) {
        img_print_create_help(a.to_format);
        return 0;
    }
    if (!result && argc - optind != 2)
        return img_usage("convert", "a source and a target are needed");
    if (!result) {
        a.from = argv[optind];
        a.to = argv[optind + 1];
        result = convert(&a, &err);
    }
    return result ? img_fail(&err) : 0;
}
