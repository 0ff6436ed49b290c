/* Character back ends: where a serial port's bytes go. Loop thread, device lock held. */
#ifndef EIDOLON_DEVICES_CHAR_CHARDEV_H
#define EIDOLON_DEVICES_CHAR_CHARDEV_H

#include "base/error.h"
#include "base/event_loop.h"
#include "base/types.h"

struct chardev;

/* What the front end (a UART) registers. */
struct chardev_handlers {
    size_t (*can_receive)(void *opaque); /* bytes it can take now */
    void (*receive)(void *opaque, const uint8_t *data, size_t size);
    void (*break_received)(void *opaque); /* may be NULL */
    void (*writable)(void *opaque);       /* may be NULL: room again after a short write */
};

/* spec: "stdio", "mon:stdio", "file:PATH", "none", "null". stdio puts the terminal in raw mode through
 * `terminal` hooks of the frontend. `signals`: whether Ctrl-C is a signal (stdio without mon:/-nographic). */
struct chardev_terminal {
    void (*enter_raw)(bool signals);
    void (*leave_raw)(void);
    void (*quit)(void *opaque); /* Ctrl-A X */
    void *opaque;
};
struct chardev *chardev_create(struct event_loop *loop, const char *spec, const struct chardev_terminal *terminal,
                               struct error *err);
void chardev_destroy(struct chardev *chardev);
void chardev_set_handlers(struct chardev *chardev, const struct chardev_handlers *handlers, void *opaque);
size_t chardev_write(struct chardev *chardev, const uint8_t *data, size_t size); /* may be short */
/* The same, but waits up to timeout_ms for a slow reader; what is left then is dropped. For ports without flow
 * control. */
void chardev_write_wait(struct chardev *chardev, const uint8_t *data, size_t size, int timeout_ms);
void chardev_accept_input(struct chardev *chardev); /* can_receive has grown */

#endif
