/* qcow2_tool IMAGE [-r] < SCRIPT: the library's functions on a host file, for qemu_test.py. One line each:
 *
 *   write OFFSET SIZE BYTE     read OFFSET SIZE BYTE (fails if something else is there)
 *   discard OFFSET SIZE        zero OFFSET SIZE UNMAP        compress OFFSET SIZE BYTE
 *   same MODEL (a raw file with the content that there must be)
 *   resize SIZE SHRINK PREALLOCATION       flush       exit (without closing: what a kill leaves)
 *
 * Backing files are opened by name, beside the image. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "devices/block/qcow2.h"

static _Noreturn void fail(const char *what, const char *why)
{
    fprintf(stderr, "qcow2_tool: %s: %s\n", what, why);
    exit(1);
}

/* ---- Backing files: raw or qcow2 ---- */

struct below {
    struct qcow2_file file;
    struct qcow2 *image; /* NULL: raw */
    uint64_t size;
};

static int below_read(void *opaque, uint64_t offset, const struct iovec *iov, unsigned count)
{
    struct below *below = opaque;

    if (!below->image)
        return below->file.ops->read(below->file.opaque, offset, iov, count);
    for (unsigned i = 0; i < count; i++) {
        uint64_t inside = offset < below->size ? MIN(iov[i].iov_len, below->size - offset) : 0;
        struct iovec part = { iov[i].iov_base, inside };
        int result = inside ? qcow2_read(below->image, offset, &part, 1) : 0;

        if (result)
            return result;
        memset((char *)iov[i].iov_base + inside, 0, iov[i].iov_len - inside);
        offset += iov[i].iov_len;
    }
    return 0;
}

static uint64_t below_size(void *opaque)
{
    return ((struct below *)opaque)->size;
}

static void below_close(void *opaque)
{
    struct below *below = opaque;

    if (below->image)
        qcow2_close(below->image);
    else
        below->file.ops->close(below->file.opaque);
    free(below);
}

static const struct qcow2_backing_ops below_ops = { below_read, below_size, below_close };

static int open_below(void *opaque, const char *name, const char *format, struct qcow2_backing *backing,
                      struct error *err)
{
    char *path = qcow2_backing_path(opaque, name, err);
    struct qcow2_backing_opener opener = { open_below, path };
    struct below *below = calloc(1, sizeof(*below));
    int result = path && below ? qcow2_host_file_open(path, 0, &below->file, err) : -1;

    if (!result && format && !strcmp(format, "qcow2"))
        result = qcow2_open(&below->file, &opener, QCOW2_READ_ONLY, &below->image, err);
    if (result)
        return result;
    if (below->image)
        below->size = qcow2_size(below->image);
    else
        below->file.ops->size(below->file.opaque, &below->size);
    *backing = (struct qcow2_backing){ &below_ops, below };
    free(path);
    return 0;
}

/* ---- The script ---- */

static void data_command(struct qcow2 *image, const char *command, uint64_t offset, uint64_t size, int byte)
{
    uint8_t *data = malloc(size + 1);
    struct iovec iov = { data, size };
    int result;

    memset(data, byte, size);
    if (!strcmp(command, "write")) {
        result = qcow2_write(image, offset, &iov, 1);
    } else if (!strcmp(command, "compress")) {
        result = qcow2_write_compressed(image, offset, data, size);
    } else {
        memset(data, ~byte, size);
        result = qcow2_read(image, offset, &iov, 1);
        for (uint64_t i = 0; i < size && !result; i++) {
            if (data[i] != (uint8_t)byte) {
                fprintf(stderr, "at %llu: %02x, not %02x\n", (unsigned long long)(offset + i), data[i], byte);
                exit(1);
            }
        }
    }
    free(data);
    if (result)
        fail(command, strerror(-result));
}

static void compare(struct qcow2 *image, const char *path)
{
    static uint8_t data[256 * KIB], expected[256 * KIB];
    FILE *model = fopen(path, "rb");
    uint64_t size = qcow2_size(image);

    for (uint64_t at = 0, part; at < size; at += part) {
        struct iovec iov = { data, part = MIN(size - at, sizeof(data)) };

        if (!model || fread(expected, 1, part, model) != part)
            fail(path, "too short");
        if (qcow2_read(image, at, &iov, 1))
            fail("same", "cannot read");
        for (uint64_t i = 0; i < part; i++) {
            if (data[i] != expected[i]) {
                fprintf(stderr, "at %llu: %02x, not %02x\n", (unsigned long long)(at + i), data[i], expected[i]);
                exit(1);
            }
        }
    }
    fclose(model);
}

static void run_line(struct qcow2 *image, const char *line)
{
    unsigned long long a = 0, b = 0, c = 0;
    char command[20] = "";
    struct error err = { "" };
    int result = 0;

    sscanf(line, "%19s %llu %llu %llu", command, &a, &b, &c);
    if (!strncmp(line, "same ", 5)) {
        char path[200];

        snprintf(path, sizeof(path), "%.*s", (int)strcspn(line + 5, "\n"), line + 5);
        compare(image, path);
    } else if (!strcmp(command, "write") || !strcmp(command, "read") || !strcmp(command, "compress"))
        data_command(image, command, a, b, (int)c);
    else if (!strcmp(command, "discard"))
        result = qcow2_discard(image, a, b);
    else if (!strcmp(command, "zero"))
        result = qcow2_write_zeroes(image, a, b, c);
    else if (!strcmp(command, "flush"))
        result = qcow2_flush(image);
    else if (!strcmp(command, "resize"))
        result = qcow2_resize(image, a, b, (enum qcow2_preallocation)c, &err);
    else if (!strcmp(command, "exit"))
        _Exit(0);
    else if (command[0])
        fail(command, "no such command");
    if (result)
        fail(line, err.text[0] ? err.text : strerror(-result));
}

int main(int argc, char **argv)
{
    bool read_only = argc > 2 && !strcmp(argv[2], "-r");
    struct qcow2_backing_opener opener = { open_below, argc > 1 ? argv[1] : NULL };
    struct qcow2_file file;
    struct qcow2 *image;
    struct error err = { "" };
    char line[200];
    int result;

    if (argc < 2)
        fail("usage", "qcow2_tool IMAGE [-r] < SCRIPT");
    if (qcow2_host_file_open(argv[1], read_only ? 0 : QCOW2_HOST_WRITE, &file, &err) ||
        qcow2_open(&file, &opener, read_only ? QCOW2_READ_ONLY : QCOW2_UNMAP, &image, &err))
        fail(argv[1], err.text);
    while (fgets(line, sizeof(line), stdin))
        run_line(image, line);
    result = qcow2_close(image);
    if (result)
        fail("close", strerror(-result));
    return 0;
}
