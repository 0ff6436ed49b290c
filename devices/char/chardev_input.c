/* Input of character back ends: from a descriptor through a ring to the front end, and the escape keys of
 * mon:stdio.
 *
 * The ring takes what is read; the front end gets as much as it can take. Reading pauses while the ring is full,
 * except from a terminal with escape keys: there a guest that does not read must not keep Ctrl-A X from working,
 * so ordinary keys are dropped instead. Threads: the loop's, and vCPUs through chardev_accept_input(); device lock
 * held. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "devices/char/chardev_internal.h"

#define KEY_ESCAPE         0x01 /* Ctrl-A */
#define FILE_READ_DELAY_NS 1000000ull

static const char help_text[] = "\r\n"
                                "C-a h    print this help\r\n"
                                "C-a x    exit emulator\r\n"
                                "C-a b    send break (magic sysrq)\r\n"
                                "C-a c    switch between console and monitor\r\n"
                                "C-a C-a  send C-a\r\n";

static void put(struct chardev *chardev, uint8_t byte)
{
    if (chardev->in_count == CHARDEV_INPUT_SIZE)
        return;
    chardev->in[(chardev->in_head + chardev->in_count) % CHARDEV_INPUT_SIZE] = byte;
    chardev->in_count++;
}

/* The key after Ctrl-A. */
static void escape_key(struct chardev *chardev, uint8_t key)
{
    switch (key) {
    case 'x':
    case 'X':
        chardev_print(chardev, "\r\neidolon: terminated by Ctrl-A X\r\n");
        if (chardev->terminal.quit)
            chardev->terminal.quit(chardev->terminal.opaque);
        break;
    case 'h':
    case 'H':
    case '?':
        chardev_print(chardev, help_text);
        break;
    case 'c':
    case 'C':
        chardev_print(chardev, "\r\neidolon: there is no monitor yet\r\n");
        break;
    case 'b':
    case 'B':
        if (chardev->handlers.break_received)
            chardev->handlers.break_received(chardev->opaque);
        break;
    case KEY_ESCAPE:
        put(chardev, key);
        break;
    default:
        break; /* unknown: swallowed, as QEMU does */
    }
}

static void filter(struct chardev *chardev, const uint8_t *data, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        if (chardev->escapes && chardev->escape_seen) {
            chardev->escape_seen = false;
            escape_key(chardev, data[i]);
        } else if (chardev->escapes && data[i] == KEY_ESCAPE) {
            chardev->escape_seen = true;
        } else {
            put(chardev, data[i]);
        }
    }
}

/* Hands the ring to the front end, as far as it takes it. */
static void deliver(struct chardev *chardev)
{
    while (chardev->in_count && chardev->handlers.receive) {
        size_t room =
            chardev->handlers.can_receive ? chardev->handlers.can_receive(chardev->opaque) : chardev->in_count;
        size_t size = MIN(MIN(room, chardev->in_count), CHARDEV_INPUT_SIZE - chardev->in_head);
        const uint8_t *data = chardev->in + chardev->in_head;

        if (!size)
            return;
        /* Taken first: the front end may ask for more while it receives. */
        chardev->in_head = (chardev->in_head + (uint32_t)size) % CHARDEV_INPUT_SIZE;
        chardev->in_count -= (uint32_t)size;
        chardev->handlers.receive(chardev->opaque, data, size);
    }
}

static void read_end(struct chardev *chardev)
{
    if (chardev->in_watch)
        fd_watch_remove(chardev->in_watch);
    chardev->in_watch = NULL;
    if (chardev->in_timer.loop)
        timer_disarm(&chardev->in_timer);
    if (chardev->in_fd >= 0)
        close(chardev->in_fd);
    chardev->in_fd = -1;
}

static bool should_pause(const struct chardev *chardev)
{
    return chardev->in_count >= CHARDEV_INPUT_SIZE / 2 && !chardev->in_keep_reading;
}

/* Loop thread. */
static void pause_or_go_on(struct chardev *chardev)
{
    bool pause = should_pause(chardev);

    if (chardev->in_watch && pause != chardev->in_paused)
        fd_watch_change(chardev->in_watch, pause ? 0 : FD_READABLE);
    chardev->in_paused = pause;
    if (chardev->in_direct && !pause && !timer_armed(&chardev->in_timer))
        timer_arm(&chardev->in_timer, clock_now_ns(event_loop_clock(chardev->loop)) + FILE_READ_DELAY_NS);
}

static void read_input(void *opaque, unsigned ready)
{
    struct chardev *chardev = opaque;
    uint8_t data[256];
    ssize_t size;

    (void)ready;
    if (chardev->in_fd < 0)
        return;
    size = read(chardev->in_fd, data, sizeof(data));
    if (size < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (size <= 0) {
        read_end(chardev); /* end of file, or the terminal has gone */
        return;
    }
    filter(chardev, data, (size_t)size);
    deliver(chardev);
    if (chardev->in_fd >= 0)
        pause_or_go_on(chardev);
}

static void in_timer_due(void *opaque)
{
    struct chardev *chardev = opaque;

    if (chardev->in_direct)
        read_input(chardev, 0);
    else
        pause_or_go_on(chardev);
}

void chardev_accept_input(struct chardev *chardev)
{
    if (chardev->in_count)
        deliver(chardev);
    if (chardev->in_fd >= 0 && chardev->in_paused && !should_pause(chardev) && !timer_armed(&chardev->in_timer))
        timer_arm(&chardev->in_timer, clock_now_ns(event_loop_clock(chardev->loop)));
}

int chardev_input_start(struct chardev *chardev, struct error *err)
{
    if (chardev->in_fd < 0)
        return 0; /* closed standard input: no keys */
    timer_init(&chardev->in_timer, chardev->loop, in_timer_due, chardev);
    if (!chardev->in_direct) {
        chardev->in_watch = fd_watch_add(chardev->loop, chardev->in_fd, FD_READABLE, read_input, chardev, err);
        return chardev->in_watch ? 0 : error_prefix(err, -EIO, "standard input");
    }
    pause_or_go_on(chardev);
    return 0;
}

void chardev_input_stop(struct chardev *chardev)
{
    read_end(chardev);
}
