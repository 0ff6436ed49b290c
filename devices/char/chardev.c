/* Character back ends: stdio, mon:stdio, file:PATH, null, none; and output, which is the same for all.
 *
 * Output is buffered, so that a guest that writes byte by byte does not cost a system call for each, and a slow
 * reader does not hold up a vCPU: bytes go to a ring, which is written out FLUSH_DELAY_NS later or when
 * FLUSH_BYTES have come together. When the ring is full, chardev_write() comes back short and `writable` is called
 * once there is room.
 *
 * Terminals and pipes are opened a second time where that is possible, because O_NONBLOCK belongs to the open file
 * description, which the standard descriptors share with the shell. Threads: any, device lock held; but watches
 * belong to the loop's thread, so a vCPU that finds the reader slow only sets out_slow and lets the flush timer,
 * whose callback runs there, do the rest. */
#include "devices/char/chardev.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "base/options.h"
#include "devices/char/chardev_internal.h"

#define FLUSH_DELAY_NS 1000000ull
#define FLUSH_BYTES    4096u
#define CHUNK_BYTES    4096u /* PIPE_BUF: a pipe that polls as writable takes that much */
#define CLOSE_WAIT_MS  2000  /* how long a reader may take to swallow the rest when we end */

/* ---- Output ---- */

static bool poll_writable(int fd, int timeout_ms)
{
    struct pollfd poll_fd = { .fd = fd, .events = POLLOUT };

    return poll(&poll_fd, 1, timeout_ms) > 0;
}

/* Writes out what the reader takes without waiting. True if all went out. */
static bool drain(struct chardev *chardev)
{
    while (chardev->out_count) {
        uint32_t until_end = CHARDEV_OUTPUT_SIZE - chardev->out_head;
        uint32_t size = MIN(chardev->out_count, until_end);
        ssize_t written;

        if (!chardev->out_direct) {
            if (!poll_writable(chardev->out_fd, 0))
                return false;
            size = MIN(size, CHUNK_BYTES);
        }
        written = write(chardev->out_fd, chardev->out + chardev->out_head, size);
        if (written < 0) {
            if (errno == EINTR)
                continue;
            if (errno == EAGAIN)
                return false;
            log_warn("serial output is lost from here on: %s", strerror(errno));
            chardev->out_dead = true;
            chardev->out_count = 0;
            return true;
        }
        chardev->out_head = (chardev->out_head + (uint32_t)written) % CHARDEV_OUTPUT_SIZE;
        chardev->out_count -= (uint32_t)written;
    }
    return true;
}

static void tell_writer(struct chardev *chardev)
{
    if (!chardev->short_write || chardev->out_count == CHARDEV_OUTPUT_SIZE)
        return;
    chardev->short_write = false;
    if (chardev->handlers.writable)
        chardev->handlers.writable(chardev->opaque);
}

static void out_service(void *opaque, unsigned ready);

static void flush_in(struct chardev *chardev, uint64_t delay_ns)
{
    timer_arm(&chardev->flush_timer, clock_now_ns(event_loop_clock(chardev->loop)) + delay_ns);
}

/* Loop thread. Watches the descriptor as long as the reader is slow. */
static void update_watch(struct chardev *chardev)
{
    if (chardev->out_watch)
        fd_watch_change(chardev->out_watch, chardev->out_slow ? FD_WRITABLE : 0);
    else if (chardev->out_slow)
        chardev->out_watch = fd_watch_add(chardev->loop, chardev->out_fd, FD_WRITABLE, out_service, chardev, NULL);
    if (chardev->out_slow && !chardev->out_watch)
        flush_in(chardev, 10 * FLUSH_DELAY_NS); /* cannot be watched after all */
}

/* Loop thread: the timer's and the watch's callback. */
static void out_service(void *opaque, unsigned ready)
{
    struct chardev *chardev = opaque;

    (void)ready;
    timer_disarm(&chardev->flush_timer);
    chardev->out_slow = !drain(chardev);
    update_watch(chardev);
    tell_writer(chardev);
}

static void flush_due(void *opaque)
{
    out_service(opaque, 0);
}

/* Any thread: as much as goes out at once; the loop's thread sees to the rest. */
static void flush(struct chardev *chardev)
{
    if (chardev->out_slow)
        return;
    if (drain(chardev)) {
        timer_disarm(&chardev->flush_timer);
        return;
    }
    chardev->out_slow = true;
    flush_in(chardev, 0);
}

static size_t put(struct chardev *chardev, const uint8_t *data, size_t size)
{
    size_t done = 0;

    while (done < size && chardev->out_count < CHARDEV_OUTPUT_SIZE) {
        uint32_t tail = (chardev->out_head + chardev->out_count) % CHARDEV_OUTPUT_SIZE;
        size_t room = MIN(CHARDEV_OUTPUT_SIZE - tail, CHARDEV_OUTPUT_SIZE - chardev->out_count);
        size_t part = MIN(room, size - done);

        memcpy(chardev->out + tail, data + done, part);
        chardev->out_count += (uint32_t)part;
        done += part;
    }
    return done;
}

size_t chardev_write(struct chardev *chardev, const uint8_t *data, size_t size)
{
    size_t done = 0;

    if (chardev->out_fd < 0 || chardev->out_dead)
        return size;
    do {
        done += put(chardev, data + done, size - done);
        if (chardev->out_count >= FLUSH_BYTES)
            flush(chardev);
    } while (done < size && !chardev->out_slow);
    if (done < size)
        chardev->short_write = true;
    else if (chardev->out_count && !chardev->out_slow && !timer_armed(&chardev->flush_timer))
        flush_in(chardev, FLUSH_DELAY_NS);
    return done;
}

void chardev_write_wait(struct chardev *chardev, const uint8_t *data, size_t size, int timeout_ms)
{
    size_t done = chardev_write(chardev, data, size);

    if (done == size)
        return;
    if (chardev->out_fd >= 0 && poll_writable(chardev->out_fd, timeout_ms)) {
        drain(chardev);
        done += chardev_write(chardev, data + done, size - done);
    }
    if (done < size)
        log_event(device, "character device: %zu bytes dropped, the reader is too slow\n", size - done);
    chardev->short_write = false; /* nobody waits for the rest */
}

void chardev_print(struct chardev *chardev, const char *text)
{
    chardev_write(chardev, (const uint8_t *)text, strlen(text));
    flush(chardev);
}

void chardev_set_handlers(struct chardev *chardev, const struct chardev_handlers *handlers, void *opaque)
{
    chardev->handlers = handlers ? *handlers : (struct chardev_handlers){ 0 };
    chardev->opaque = opaque;
    chardev_accept_input(chardev);
}

/* ---- Back ends ---- */

static bool is_pollable(int fd)
{
    struct stat st;

    if (fstat(fd, &st) < 0)
        return false;
    return isatty(fd) || S_ISFIFO(st.st_mode) || S_ISSOCK(st.st_mode);
}

/* A descriptor of our own for a standard one; its file description too, if it can be had. */
static int own_descriptor(int fd, int mode)
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

static int open_stdio(struct chardev *chardev, const struct chardev_terminal *terminal, struct error *err)
{
    int result;

    chardev->out_fd = own_descriptor(STDOUT_FILENO, O_WRONLY);
    if (chardev->out_fd >= 0)
        chardev->out_direct = !is_pollable(chardev->out_fd);
    chardev->in_fd = own_descriptor(STDIN_FILENO, O_RDONLY);
    if (chardev->in_fd >= 0) {
        chardev->in_direct = !is_pollable(chardev->in_fd);
        chardev->in_keep_reading = chardev->escapes && isatty(chardev->in_fd);
    }
    result = chardev_input_start(chardev, err);
    if (result)
        return result;
    if (terminal) {
        chardev->terminal = *terminal;
        chardev->uses_terminal = true;
        if (terminal->enter_raw)
            terminal->enter_raw(!chardev->escapes);
    }
    return 0;
}

static int open_file(struct chardev *chardev, const char *path, struct error *err)
{
    struct stat st;

    if (!*path)
        return error_set(err, EINVAL, "'file:' needs a path");
    /* O_NONBLOCK: opening a FIFO that nobody reads must not hang. */
    chardev->out_fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_NOCTTY | O_NONBLOCK | O_CLOEXEC, 0666);
    if (chardev->out_fd < 0)
        return error_set(err, errno, "cannot open '%s': %s", path,
                         errno == ENXIO ? "nobody reads from it" : strerror(errno));
    if (fstat(chardev->out_fd, &st) == 0 && S_ISBLK(st.st_mode))
        return error_set(err, EINVAL, "'%s' is a block device", path);
    chardev->out_direct = !is_pollable(chardev->out_fd);
    return 0;
}

static int unknown_backend(const char *spec, struct error *err)
{
    static const char *const names[] = { "stdio", "mon:stdio", "file:", "null", "none", NULL };
    static const char *const later[] = { "pty",    "vc",  "pipe",    "unix",    "tcp", "udp",
                                         "telnet", "con", "msmouse", "chardev", "mon" };
    size_t length = strcspn(spec, ":");
    const char *near;

    for (size_t i = 0; i < ARRAY_SIZE(later); i++) {
        if (strlen(later[i]) == length && !strncmp(spec, later[i], length))
            return error_set(
                err, ENOTSUP,
                "character device '%s' is not supported (there are stdio, mon:stdio, file:PATH, null, none)", spec);
    }
    near = nearest_word(spec, names);
    if (near)
        return error_set(err, EINVAL, "unknown character device '%s'; did you mean '%s'?", spec, near);
    return error_set(err, EINVAL, "unknown character device '%s' (there are stdio, mon:stdio, file:PATH, null, none)",
                     spec);
}

static int open_backend(struct chardev *chardev, const char *spec, const struct chardev_terminal *terminal,
                        struct error *err)
{
    if (!strcmp(spec, "null") || !strcmp(spec, "none"))
        return 0;
    if (!strcmp(spec, "stdio") || !strcmp(spec, "mon:stdio")) {
        chardev->escapes = spec[0] == 'm';
        return open_stdio(chardev, terminal, err);
    }
    if (!strncmp(spec, "file:", 5))
        return open_file(chardev, spec + 5, err);
    return unknown_backend(spec, err);
}

struct chardev *chardev_create(struct event_loop *loop, const char *spec, const struct chardev_terminal *terminal,
                               struct error *err)
{
    struct chardev *chardev = calloc(1, sizeof(*chardev));

    if (chardev) {
        chardev->out_fd = chardev->in_fd = -1;
        chardev->loop = loop;
        chardev->out = malloc(CHARDEV_OUTPUT_SIZE);
        chardev->in = malloc(CHARDEV_INPUT_SIZE);
        timer_init(&chardev->flush_timer, loop, flush_due, chardev);
    }
    if (!chardev || !chardev->out || !chardev->in) {
        error_set(err, ENOMEM, "out of memory for a character device");
        chardev_destroy(chardev);
        return NULL;
    }
    signal(SIGPIPE, SIG_IGN); /* a reader that goes away is an error of write(), not the end of the machine */
    if (open_backend(chardev, spec, terminal, err)) {
        chardev_destroy(chardev);
        return NULL;
    }
    return chardev;
}

void chardev_destroy(struct chardev *chardev)
{
    if (!chardev)
        return;
    while (chardev->out_fd >= 0 && chardev->out_count && !drain(chardev)) {
        if (!poll_writable(chardev->out_fd, CLOSE_WAIT_MS))
            break;
    }
    chardev_input_stop(chardev);
    if (chardev->out_watch)
        fd_watch_remove(chardev->out_watch);
    if (chardev->flush_timer.loop)
        timer_disarm(&chardev->flush_timer);
    if (chardev->out_fd >= 0)
        close(chardev->out_fd);
    if (chardev->uses_terminal && chardev->terminal.leave_raw)
        chardev->terminal.leave_raw();
    free(chardev->out);
    free(chardev->in);
    free(chardev);
}
