/* Back ends that are files: null, file, pipe; and how a path becomes a descriptor.
 *
 * /proc/self/fd/N, /dev/fd/N and their kin mean the descriptor N that somebody passed to us, with its offset and mode, so it
 * is duplicated: opening such a path would truncate files, and fail for sockets. Terminals and pipes are opened a
 * second time where that is possible, because O_NONBLOCK belongs to the open file description, which the standard
 * descriptors share with the shell. Loop thread. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "devices/char/chardev_internal.h"

int chardev_own_descriptor(int fd, int mode)
{
    char path[32];
    struct stat st;
    int own = -1;

    if (fstat(fd, &st) < 0)
        return -1;
    if (isatty(fd) || S_ISFIFO(st.st_mode)) {
        snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
        own = open(path, mode | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
    }
    return own >= 0 ? own : fcntl(fd, F_DUPFD_CLOEXEC, 3);
}

/* The N of a path that names one of our descriptors, or -1. */
static int named_descriptor(const char *path)
{
    static const char *const folders[] = { "/proc/self/fd/", "/dev/fd/" };
    static const char *const standard[] = { "/dev/stdin", "/dev/stdout", "/dev/stderr" };

    for (int fd = 0; fd < (int)ARRAY_SIZE(standard); fd++) {
        if (!strcmp(path, standard[fd]))
            return fd;
    }
    for (size_t i = 0; i < ARRAY_SIZE(folders); i++) {
        size_t length = strlen(folders[i]);
        uint64_t fd;

        if (!strncmp(path, folders[i], length) && !parse_u64(path + length, &fd, NULL) && fd < 1 << 20)
            return (int)fd;
    }
    return -1;
}

static int own_named(const char *path, int fd, int flags, struct error *err)
{
    int mode = flags & O_ACCMODE, has = fcntl(fd, F_GETFL), own;

    if (has < 0)
        return error_set(err, errno, "'%s': there is no such descriptor", path);
    own = chardev_own_descriptor(fd, mode);
    if (own < 0)
        return error_set(err, errno, "cannot duplicate '%s': %s", path, strerror(errno));
    has = fcntl(own, F_GETFL) & O_ACCMODE;
    if (has != O_RDWR && has != mode) {
        close(own);
        return error_set(err, EACCES, "'%s' is not open for %s", path, mode == O_RDONLY ? "reading" : "writing");
    }
    return own;
}

int chardev_open_path(const char *path, int flags, struct error *err)
{
    int fd = named_descriptor(path);
    struct stat st;

    if (fd >= 0)
        return own_named(path, fd, flags, err);
    /* O_NONBLOCK: opening a FIFO that nobody reads must not hang. */
    fd = open(path, flags | O_NOCTTY | O_NONBLOCK | O_CLOEXEC, 0666);
    if (fd < 0)
        return error_set(err, errno, "cannot open '%s': %s", path,
                         errno == ENXIO ? "nobody reads from it" : strerror(errno));
    if (fstat(fd, &st) == 0 && S_ISBLK(st.st_mode)) {
        close(fd);
        return error_set(err, EINVAL, "'%s' is a block device", path);
    }
    return fd;
}

/* ---- null ---- */

static int open_null(struct chardev *chardev, struct option_list *options, struct error *err)
{
    (void)chardev, (void)options, (void)err;
    return 0;
}

extern const struct chardev_backend chardev_backend_null;
const struct chardev_backend chardev_backend_null = { .name = "null", .open = open_null };

/* ---- file ---- */

static int open_file(struct chardev *chardev, struct option_list *options, struct error *err)
{
    const char *path = options_get(options, "path"), *input = options_get(options, "input-path");
    int in_fd = -1, out_fd;
    bool append;
    int result = options_get_bool(options, "append", false, &append, err);

    if (result)
        return result;
    if (!path || !*path)
        return error_set(err, EINVAL, "path= is missing");
    out_fd = chardev_open_path(path, O_WRONLY | O_CREAT | (append ? O_APPEND : O_TRUNC), err);
    if (out_fd < 0)
        return out_fd;
    if (input) {
        in_fd = chardev_open_path(input, O_RDONLY, err);
        if (in_fd < 0) {
            close(out_fd);
            return in_fd;
        }
    }
    return chardev_stream_start(chardev, in_fd, out_fd, err);
}

extern const struct chardev_backend chardev_backend_file;
const struct chardev_backend chardev_backend_file = { .name = "file", .open = open_file };

/* ---- pipe ---- */

/* PATH.in and PATH.out, or PATH for both ways. Open both ways, so that there is no end of file when a writer leaves. */
static int open_pipe(struct chardev *chardev, struct option_list *options, struct error *err)
{
    const char *path = options_get(options, "path");
    char *name;
    int in_fd = -1, out_fd = -1;

    if (!path || !*path)
        return error_set(err, EINVAL, "path= is missing");
    if (asprintf(&name, "%s.in", path) >= 0) {
        in_fd = chardev_open_path(name, O_RDWR, NULL);
        free(name);
    }
    if (asprintf(&name, "%s.out", path) >= 0) {
        out_fd = chardev_open_path(name, O_RDWR, NULL);
        free(name);
    }
    if (in_fd >= 0 && out_fd >= 0)
        return chardev_stream_start(chardev, in_fd, out_fd, err);
    if (in_fd >= 0)
        close(in_fd);
    if (out_fd >= 0)
        close(out_fd);
    in_fd = chardev_open_path(path, O_RDWR, err);
    if (in_fd < 0)
        return error_prefix(err, in_fd, "neither '%s.in' with '%s.out' nor that can be opened", path, path);
    out_fd = fcntl(in_fd, F_DUPFD_CLOEXEC, 3);
    if (out_fd < 0) {
        close(in_fd);
        return error_set(err, errno, "%s", strerror(errno));
    }
    return chardev_stream_start(chardev, in_fd, out_fd, err);
}

extern const struct chardev_backend chardev_backend_pipe;
const struct chardev_backend chardev_backend_pipe = { .name = "pipe", .open = open_pipe };
