/* Output of character devices.
 *
 * It is buffered, so that a guest that writes byte by byte does not cost a system call for each, and a slow
 * reader does not hold up a vCPU: bytes go to a ring, which is written out FLUSH_DELAY_NS later or when
 * FLUSH_BYTES have come together. When the ring is full, chardev_write() comes back short and `writable` is called
 * once there is room. What nobody is there to read is dropped, as on a cable that ends in the air.
 *
 * Descriptors may be shared with others (the shell, whoever passed them), so O_NONBLOCK cannot be relied on: poll tells
 * whether PIPE_BUF bytes can be written. Threads: any, device lock held; but descriptors are closed on the loop's thread
 * only, so a vCPU that finds the reader slow or gone sets a flag and lets the flush timer, whose callback runs there, do
 * the rest. */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "devices/char/chardev_internal.h"

#define FLUSH_DELAY_NS 1000000ull
#define FLUSH_BYTES    4096u
#define CHUNK_BYTES    4096u /* PIPE_BUF: a pipe that polls as writable takes that much */
#define CLOSE_WAIT_MS  2000  /* how long a reader may take to swallow the rest when we end */

static bool poll_writable(int fd, int timeout_ms)
{
    struct pollfd poll_fd = { .fd = fd, .events = POLLOUT };

    return poll(&poll_fd, 1, timeout_ms) > 0;
}

bool chardev_is_pollable(int fd)
{
    struct stat st;

    if (fstat(fd, &st) < 0)
        return false;
    return isatty(fd) || S_ISFIFO(st.st_mode) || S_ISSOCK(st.st_mode);
}

/* How much of `size` the outside takes now: 0 is nothing, -errno an error. */
static ssize_t send_out(struct chardev *chardev, const uint8_t *data, uint32_t size)
{
    ssize_t written;

    if (chardev->out_fd < 0 || chardev->out_dead)
        return size;
    size = MIN(size, chardev->out_chunk);
    if (!chardev->out_direct && !chardev->out_socket && !poll_writable(chardev->out_fd, 0))
        return 0;
    do {
        written = chardev->out_socket ? send(chardev->out_fd, data, size, MSG_DONTWAIT | MSG_NOSIGNAL)
                                      : write(chardev->out_fd, data, size);
    } while (written < 0 && errno == EINTR);
    if (written >= 0)
        return written;
    if (chardev->out_datagrams)
        return size; /* refused by the other side, earlier: lost, as datagrams are */
    return errno == EAGAIN ? 0 : -errno;
}

static void write_log(struct chardev *chardev, const uint8_t *data, size_t size)
{
    if (write(chardev->log_fd, data, size) < 0 && errno != EAGAIN)
        log_warn("chardev '%s': log file: %s", chardev->id, strerror(errno));
}

static void flush_in(struct chardev *chardev, uint64_t delay_ns)
{
    timer_arm(&chardev->flush_timer, clock_now_ns(event_loop_clock(chardev->loop)) + delay_ns);
}

static void output_failed(struct chardev *chardev, int error)
{
    chardev->out_dead = true;
    chardev->out_count = 0;
    if (chardev->backend && chardev->backend->lost)
        flush_in(chardev, 0); /* the loop's thread closes it */
    else
        log_warn("chardev '%s': output is lost from here on: %s", chardev->id, strerror(error));
}

/* Writes out what the reader takes without waiting. True if all went out. */
static bool drain(struct chardev *chardev)
{
    while (chardev->out_count) {
        uint32_t size = MIN(chardev->out_count, CHARDEV_OUTPUT_SIZE - chardev->out_head);
        const uint8_t *data = chardev->out + chardev->out_head;
        ssize_t written = send_out(chardev, data, size);

        if (written < 0) {
            output_failed(chardev, (int)-written);
            return true;
        }
        if (!written)
            return false;
        if (chardev->log_fd >= 0)
            write_log(chardev, data, (size_t)written);
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
    if (!chardev->out_dead)
        chardev->out_slow = !drain(chardev);
    if (chardev->out_dead && chardev->out_fd >= 0) {
        chardev->out_slow = false;
        timer_disarm(&chardev->flush_timer);
        if (chardev->backend && chardev->backend->lost)
            chardev->backend->lost(chardev);
    }
    if (chardev->out_fd >= 0)
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
    if (!drain(chardev)) {
        chardev->out_slow = true;
        flush_in(chardev, 0);
    } else if (!chardev->out_dead) {
        timer_disarm(&chardev->flush_timer);
    }
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

    if (chardev->backend && chardev->backend->write)
        return chardev->backend->write(chardev, data, size);
    if ((chardev->out_fd < 0 || chardev->out_dead) && chardev->log_fd < 0)
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
    struct chardev *sink = chardev->mux ? chardev_mux_base(chardev->mux) : chardev;
    size_t done = chardev_write(chardev, data, size);

    if (done == size)
        return;
    if (sink->out_fd >= 0 && poll_writable(sink->out_fd, timeout_ms)) {
        drain(sink);
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

void chardev_output_init(struct chardev *chardev)
{
    chardev->out_chunk = CHUNK_BYTES;
    timer_init(&chardev->flush_timer, chardev->loop, flush_due, chardev);
}

void chardev_output_stop(struct chardev *chardev, bool wait)
{
    while (wait && chardev->out_count && !drain(chardev)) {
        if (!poll_writable(chardev->out_fd, CLOSE_WAIT_MS))
            break;
    }
    if (chardev->out_watch)
        fd_watch_remove(chardev->out_watch);
    chardev->out_watch = NULL;
    timer_disarm(&chardev->flush_timer);
    if (chardev->out_fd >= 0)
        close(chardev->out_fd);
    chardev->out_fd = -1;
    chardev->out_count = 0;
    chardev->out_slow = chardev->out_dead = false;
    tell_writer(chardev);
}
