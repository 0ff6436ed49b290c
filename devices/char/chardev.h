/* Character devices: back ends (a terminal, a file, a socket ...) by id, and the front ends (a UART, a virtio port, a
 * monitor) that talk to them. Any thread with the device lock held; creation and destruction on the loop's thread. */
#ifndef EIDOLON_DEVICES_CHAR_CHARDEV_H
#define EIDOLON_DEVICES_CHAR_CHARDEV_H

#include "base/error.h"
#include "base/event_loop.h"
#include "base/types.h"

struct chardev;
struct chardev_registry;

enum chardev_event {
    CHARDEV_OPENED,  /* somebody is at the other end */
    CHARDEV_CLOSED,  /* nobody is; what they sent before has been received */
    CHARDEV_MUX_IN,  /* keys of a shared back end come here from now on */
    CHARDEV_MUX_OUT, /* they go elsewhere */
};

/* What the front end (a UART) registers. */
struct chardev_handlers {
    size_t (*can_receive)(void *opaque); /* bytes it can take now */
    void (*receive)(void *opaque, const uint8_t *data, size_t size);
    void (*break_received)(void *opaque);                  /* may be NULL */
    void (*writable)(void *opaque);                        /* may be NULL: room again after a short write */
    void (*event)(void *opaque, enum chardev_event event); /* may be NULL */
};

/* The frontend's hooks. stdio puts the terminal in raw mode; `signals`: whether Ctrl-C is a signal. Any may be NULL. */
struct chardev_terminal {
    void (*enter_raw)(bool signals);
    void (*leave_raw)(void);
    void (*quit)(void *opaque);        /* the escape key, then X */
    bool (*interrupted)(void *opaque); /* asked while waiting for a peer at the start: give up? */
    void *opaque;
};

/* ---- Back ends by id ---- */

struct chardev_registry *chardev_registry_create(struct event_loop *loop, const struct chardev_terminal *terminal,
                                                 struct error *err);
void chardev_registry_destroy(struct chardev_registry *registry); /* what readers take soon is still written out */
/* -echr: the key that begins a command of a shared back end; 1, Ctrl-A, at first; 0: none. Before any is added. */
void chardev_registry_set_escape(struct chardev_registry *registry, uint8_t key);
/* A -chardev value: BACKEND,id=ID[,...]. Messages do not repeat it. */
int chardev_add(struct chardev_registry *registry, const char *option, struct error *err);
/* What -serial and its kin take: "stdio", "mon:stdio", "file:PATH", "tcp:...", "chardev:ID" ... A back end of its own gets
 * the id `user`. Claimed for `user`. NULL on error. */
struct chardev *chardev_open_legacy(struct chardev_registry *registry, const char *user, const char *spec,
                                    struct error *err);
/* The back end `id` for the front end `user`: one has one, unless it is shared (mux=on), where each gets a share of
 * its own. NULL on error (the message names both). Given back by chardev_release(). */
struct chardev *chardev_claim(struct chardev_registry *registry, const char *id, const char *user, struct error *err);
void chardev_release(struct chardev *chardev);
void chardev_list_backends(void); /* -chardev help, to stdout */

/* For a monitor: all back ends, oldest first, `previous` NULL at first; NULL: no more. */
struct chardev *chardev_next(struct chardev_registry *registry, struct chardev *previous);
struct chardev *chardev_find(struct chardev_registry *registry, const char *id);
const char *chardev_id(const struct chardev *chardev);
const char *chardev_filename(const struct chardev *chardev); /* "unix:/run/x,server=on" */
bool chardev_is_open(const struct chardev *chardev);

/* One that is in no registry, for one front end; `spec` as above without chardev: and mon:. */
struct chardev *chardev_create(struct event_loop *loop, const char *spec, const struct chardev_terminal *terminal,
                               struct error *err);
void chardev_destroy(struct chardev *chardev);

/* ---- Front ends ---- */

/* CHARDEV_OPENED comes from inside this if somebody is there. NULL: nobody listens any more. */
void chardev_set_handlers(struct chardev *chardev, const struct chardev_handlers *handlers, void *opaque);
size_t chardev_write(struct chardev *chardev, const uint8_t *data, size_t size); /* may be short */
/* The same, but waits up to timeout_ms for a slow reader; what is left then is dropped. For ports without flow
 * control. */
void chardev_write_wait(struct chardev *chardev, const uint8_t *data, size_t size, int timeout_ms);
void chardev_accept_input(struct chardev *chardev); /* can_receive has grown */

/* Takes up to `size` of the oldest bytes out of a ringbuf; how many, or -EINVAL if it is another kind of back end. */
int64_t chardev_ringbuf_read(struct chardev *chardev, uint8_t *data, size_t size);

#endif
