/* Terminals as back ends: pty (a new pseudo-terminal, whose other side a person or program opens) and serial (a serial
 * line of the host).
 *
 * A pty whose other side is closed reports a hang-up and cannot be waited on: a timer looks whether somebody has come. What
 * is written meanwhile is dropped. Loop thread. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>

#include "devices/char/chardev_internal.h"

#define PTY_POLL_NS 100000000ull

/* ---- pty ---- */

struct pty {
    struct chardev *chardev;
    int master;
    struct timer timer;
};

static void pty_poll(void *opaque)
{
    struct pty *pty = opaque;
    struct chardev *chardev = pty->chardev;
    struct pollfd poll_fd = { .fd = pty->master, .events = POLLOUT };
    struct error err;

    if (poll(&poll_fd, 1, 0) >= 0 && !(poll_fd.revents & POLLHUP)) {
        int in_fd = fcntl(pty->master, F_DUPFD_CLOEXEC, 3), out_fd = fcntl(pty->master, F_DUPFD_CLOEXEC, 3);

        if (in_fd >= 0 && out_fd >= 0 && !chardev_stream_start(chardev, in_fd, out_fd, &err))
            return;
    }
    timer_arm(&pty->timer, clock_now_ns(event_loop_clock(chardev->loop)) + PTY_POLL_NS);
}

static void pty_lost(struct chardev *chardev)
{
    struct pty *pty = chardev->private_data;

    chardev_stream_stop(chardev);
    timer_arm(&pty->timer, clock_now_ns(event_loop_clock(chardev->loop)) + PTY_POLL_NS);
}

/* Raw from the start, so that nothing is echoed back to the guest. */
static int pty_make(struct pty *pty, char *name, size_t size)
{
    struct termios mode;
    int slave;

    pty->master = posix_openpt(O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
    if (pty->master < 0 || grantpt(pty->master) || unlockpt(pty->master))
        return -errno;
    if (ptsname_r(pty->master, name, size))
        return -errno;
    slave = open(name, O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (slave < 0)
        return -errno;
    if (!tcgetattr(slave, &mode)) {
        cfmakeraw(&mode);
        tcsetattr(slave, TCSANOW, &mode);
    }
    close(slave);
    return 0;
}

static int open_pty(struct chardev *chardev, struct option_list *options, struct error *err)
{
    struct pty *pty = calloc(1, sizeof(*pty));
    char name[64];

    (void)options;
    if (!pty)
        return error_set(err, ENOMEM, "out of memory");
    pty->chardev = chardev;
    timer_init(&pty->timer, chardev->loop, pty_poll, pty);
    chardev->private_data = pty;
    int result = pty_make(pty, name, sizeof(name));
    if (result)
        return error_set(err, -result, "no pseudo-terminal: %s", strerror(-result));
    snprintf(chardev->filename, sizeof(chardev->filename), "pty:%s", name);
    /* In QEMU's words: programs look for them. */
    printf("char device redirected to %s (label %s)\n", name, chardev->id);
    fflush(stdout);
    timer_arm(&pty->timer, clock_now_ns(event_loop_clock(chardev->loop)) + PTY_POLL_NS);
    return 0;
}

static void close_pty(struct chardev *chardev)
{
    struct pty *pty = chardev->private_data;

    if (!pty)
        return;
    timer_disarm(&pty->timer);
    if (pty->master >= 0)
        close(pty->master);
    free(pty);
}

extern const struct chardev_backend chardev_backend_pty;
const struct chardev_backend chardev_backend_pty = {
    .name = "pty",
    .open = open_pty,
    .close = close_pty,
    .lost = pty_lost,
};

/* ---- serial ---- */

static int open_serial(struct chardev *chardev, struct option_list *options, struct error *err)
{
    const char *path = options_get(options, "path");
    struct termios mode;
    int fd, out_fd;

    if (!path || !*path)
        return error_set(err, EINVAL, "path= is missing");
    fd = chardev_open_path(path, O_RDWR, err);
    if (fd < 0)
        return fd;
    if (tcgetattr(fd, &mode)) {
        close(fd);
        return error_set(err, ENOTTY, "'%s' is not a terminal", path);
    }
    cfmakeraw(&mode);
    cfsetspeed(&mode, B115200);
    mode.c_cflag = (mode.c_cflag & ~(tcflag_t)(CSTOPB | CRTSCTS)) | CLOCAL | CREAD;
    mode.c_cc[VMIN] = 1;
    mode.c_cc[VTIME] = 0;
    tcsetattr(fd, TCSANOW, &mode);
    out_fd = fcntl(fd, F_DUPFD_CLOEXEC, 3);
    if (out_fd < 0) {
        close(fd);
        return error_set(err, errno, "%s", strerror(errno));
    }
    return chardev_stream_start(chardev, fd, out_fd, err);
}

extern const struct chardev_backend chardev_backend_serial;
const struct chardev_backend chardev_backend_serial = { .name = "serial", .alias = "tty", .open = open_serial };
