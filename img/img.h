/* What the parts of eidolon-img share: images (raw, qcow2, with what is below them), options, progress. docs/img.md. */
#ifndef EIDOLON_IMG_IMG_H
#define EIDOLON_IMG_IMG_H

#include "base/options.h"
#include "devices/block/qcow2.h"

/* ---- Images ---- */

enum {
    IMG_WRITE = 1 << 0,
    IMG_FORCE_SHARE = 1 << 1, /* -U */
    IMG_NO_BACKING = 1 << 2,
    IMG_CHECK = 1 << 3,
    IMG_UNSAFE = 1 << 4, /* no flushes: for what is of no use until it is complete */
};

struct img {
    char *path;
    const char *format; /* "raw", "qcow2" */
    struct qcow2_file file;
    struct qcow2 *qcow2; /* NULL: raw */
    struct img *backing; /* the qcow2 image's; closed with it */
    uint64_t size;
};

/* `format` NULL: probed. */
int img_open(const char *path, const char *format, unsigned flags, struct img **img, struct error *err);
int img_close(struct img *img); /* -errno if something could not be written; NULL is allowed */
int img_check_format(const char *format, struct error *err); /* -EINVAL: neither raw nor qcow2 (NULL is fine) */

int img_read(struct img *img, uint64_t offset, void *data, uint64_t size); /* past the end: zeroes */
int img_write(struct img *img, uint64_t offset, const void *data, uint64_t size);
int img_write_zeroes(struct img *img, uint64_t offset, uint64_t size);
int img_flush(struct img *img);

/* What is at `offset`, in whichever image of the chain has it. */
struct img_status {
    uint64_t size;
    bool data, zero; /* zero: reads as zeroes for sure */
    bool present;    /* allocated somewhere */
    bool has_offset, compressed;
    uint64_t offset; /* in the file of `layer` */
    unsigned depth;  /* 0: in the image itself */
    struct img *layer;
};
int img_status(struct img *img, uint64_t offset, uint64_t size, struct img_status *status);

/* ---- Creating ---- */

/* -o options for `format` into *create; unknown ones, and those of QEMU that are not there, are errors. */
struct img_create {
    struct qcow2_create_options qcow2;   /* size and preallocation hold for raw too */
    char *backing_name, *backing_format; /* -o backing_file=, or the caller's -b, -F */
    bool has_size;
};
int img_parse_create(const char *format, const char *options, struct img_create *create, struct error *err);
void img_create_free(struct img_create *create);
void img_print_create_help(const char *format);
int img_create_file(const char *path, const char *format, const struct img_create *create, unsigned flags,
                    struct error *err);
int img_parse_preallocation(const char *text, enum qcow2_preallocation *mode, struct error *err);

/* ---- Command line ---- */

struct img_command {
    const char *name, *arguments, *help;
    int (*run)(int argc, char **argv); /* exit status */
};
extern const struct img_command img_commands[];
int img_create_main(int argc, char **argv);
int img_info_main(int argc, char **argv);
int img_convert_main(int argc, char **argv);
int img_check_main(int argc, char **argv);
int img_resize_main(int argc, char **argv);
int img_map_main(int argc, char **argv);
int img_compare_main(int argc, char **argv);
int img_rebase_main(int argc, char **argv);

int img_fail(const struct error *err);                                         /* prints it; 1 */
int img_usage(const char *command, const char *format, ...) printf_like(2, 3); /* the same for a wrong command line */
int img_parse_output(const char *text, bool *json, struct error *err);
int img_parse_size(const char *text, uint64_t *size, struct error *err); /* with P and E */
void img_progress(bool enabled, uint64_t done, uint64_t total);          /* a line that overwrites itself */
void img_progress_end(bool enabled);
/* "1.26 MiB" */
const char *img_size_text(uint64_t size, char *buffer, size_t room);

#endif
