/* Input of character devices: from a descriptor through a ring to the front end.
 *
 * The ring takes what is read; the front end gets as much as it can take. Reading pauses while the ring is half full,
 * except from a terminal with escape keys: there a guest that does not read must not keep Ctrl-A X from working,
 * so ordinary keys are dropped instead. While it pauses, an end of the stream is not seen by reading: a timer looks for
 * a hang-up, so that a socket whose client has left takes the next one though the guest never reads. Threads: the
 * loop's, and vCPUs through chardev_accept_input(); device lock held. */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "devices/char/chardev_internal.h"

#define FILE_READ_DELAY_NS 1000000ull
#define HANGUP_CHECK_NS    1000000000ull

static uint64_t now(const struct chardev *chardev)
{
    return clock_now_ns(event_loop_clock(chardev->loop));
}

/* ---- The ring ---- */

size_t chardev_input_room(const struct chardev *chardev)
{
    return CHARDEV_INPUT_SIZE - chardev->in_count;
}

void chardev_input_put(struct chardev *chardev, const uint8_t *data, size_t size)
{
    size = MIN(size, chardev_input_room(chardev));
    while (size) {
        uint32_t tail = (chardev->in_head + chardev->in_count) % CHARDEV_INPUT_SIZE;
        size_t part = MIN(size, CHARDEV_INPUT_SIZE - tail);

        memcpy(chardev->in + tail, data, part);
        chardev->in_count += (uint32_t)part;
        data += part;
        size -= part;
    }
}

/* Hands the ring to the front end, as far as it takes it. */
void chardev_deliver(struct chardev *chardev)
{
    if (chardev->delivering)
        return; /* the front end asks for more while it receives: it comes in the loop below */
    chardev->delivering = true;
    while (chardev->in_count && chardev->handlers.receive) {
        size_t room =
            chardev->handlers.can_receive ? chardev->handlers.can_receive(chardev->opaque) : chardev->in_count;
        size_t size = MIN(MIN(room, chardev->in_count), CHARDEV_INPUT_SIZE - chardev->in_head);
        const uint8_t *data = chardev->in + chardev->in_head;

        if (!size)
            break;
        chardev->handlers.receive(chardev->opaque, data, size);
        chardev->in_head = (chardev->in_head + (uint32_t)size) % CHARDEV_INPUT_SIZE;
        chardev->in_count -= (uint32_t)size;
        chardev->in_taken += size;
    }
    chardev->delivering = false;
    chardev_tell(chardev);
}

/* ---- The descriptor ---- */

void chardev_input_stop(struct chardev *chardev)
{
    if (chardev->in_watch)
        fd_watch_remove(chardev->in_watch);
    chardev->in_watch = NULL;
    timer_disarm(&chardev->in_timer);
    timer_disarm(&chardev->hangup_timer);
    if (chardev->in_fd >= 0)
        close(chardev->in_fd);
    chardev->in_fd = -1;
}

/* Loop thread. */
static void stream_ended(struct chardev *chardev)
{
    if (chardev->backend && chardev->backend->lost) {
        chardev->backend->lost(chardev);
        return;
    }
    chardev_input_stop(chardev); /* end of file, or the terminal has gone; output goes on */
    chardev_set_open(chardev, false);
}

static bool should_pause(const struct chardev *chardev)
{
    return chardev->in_count >= CHARDEV_INPUT_SIZE - CHARDEV_READ_SIZE && !chardev->in_keep_reading;
}

/* Loop thread. */
static void pause_or_go_on(struct chardev *chardev)
{
    bool pause = should_pause(chardev);

    if (chardev->in_watch && pause != chardev->in_paused)
        fd_watch_change(chardev->in_watch, pause ? 0 : FD_READABLE);
    if (pause && !chardev->in_paused && chardev->backend->lost)
        timer_arm(&chardev->hangup_timer, now(chardev) + HANGUP_CHECK_NS);
    chardev->in_paused = pause;
    if (chardev->in_direct && !pause && !timer_armed(&chardev->in_timer))
        timer_arm(&chardev->in_timer, now(chardev) + FILE_READ_DELAY_NS);
}

static void read_input(void *opaque, unsigned ready)
{
    struct chardev *chardev = opaque;
    uint8_t data[CHARDEV_READ_SIZE];
    ssize_t size;

    (void)ready;
    if (chardev->in_fd < 0)
        return;
    size = read(chardev->in_fd, data, sizeof(data));
    if (size < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (size <= 0 && chardev->out_datagrams)
        return;
    if (size <= 0) {
        stream_ended(chardev);
        return;
    }
    chardev_input_put(chardev, data, (size_t)size);
    chardev_deliver(chardev);
    if (chardev->in_fd >= 0)
        pause_or_go_on(chardev);
}

/* Loop thread. A peer that has left and whose last words nobody has wanted for a second is let go. */
static void look_for_hangup(void *opaque)
{
    struct chardev *chardev = opaque;
    struct pollfd poll_fd = { .fd = chardev->in_fd };

    if (chardev->in_fd < 0 || !chardev->in_paused)
        return;
    if (poll(&poll_fd, 1, 0) > 0 && (poll_fd.revents & (POLLHUP | POLLERR))) {
        if (chardev->hangup && chardev->hangup_seen == chardev->in_taken) {
            chardev->in_count = 0;
            stream_ended(chardev);
            return;
        }
        chardev->hangup = true;
        chardev->hangup_seen = chardev->in_taken;
    }
    timer_arm(&chardev->hangup_timer, now(chardev) + HANGUP_CHECK_NS);
}

static void in_timer_due(void *opaque)
{
    struct chardev *chardev = opaque;

    if (chardev->in_fd < 0)
        return;
    if (chardev->in_direct && !should_pause(chardev))
        read_input(chardev, 0);
    else
        pause_or_go_on(chardev);
}

void chardev_accept_input(struct chardev *chardev)
{
    if (chardev->in_count || chardev->told_open != chardev->open)
        chardev_deliver(chardev);
    if (chardev->backend && chardev->backend->accept_input)
        chardev->backend->accept_input(chardev);
    if (chardev->in_fd >= 0 && chardev->in_paused && !should_pause(chardev) && !timer_armed(&chardev->in_timer))
        timer_arm(&chardev->in_timer, now(chardev));
}

void chardev_input_init(struct chardev *chardev)
{
    timer_init(&chardev->in_timer, chardev->loop, in_timer_due, chardev);
    timer_init(&chardev->hangup_timer, chardev->loop, look_for_hangup, chardev);
}

int chardev_input_start(struct chardev *chardev, struct error *err)
{
    chardev->in_paused = chardev->hangup = false;
    if (chardev->in_fd < 0)
        return 0;
    if (!chardev->in_direct) {
        bool pause = should_pause(chardev);

        chardev->in_watch = fd_watch_add(chardev->loop, chardev->in_fd, FD_READABLE, read_input, chardev, err);
        if (!chardev->in_watch)
            return -EIO;
        if (!pause)
            return 0;
    }
    pause_or_go_on(chardev);
    return 0;
}
