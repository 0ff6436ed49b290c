/* Character devices, the part that is the same for all: creation from options, the link to a front end and what it is
 * told about the other end. Output is in chardev_output.c, input in chardev_input.c, each back end in a file of its name.
 *
 * A front end hears CHARDEV_CLOSED after the last byte that came before it, so that a guest that reads a short
 * message from somebody who leaves at once gets all of it.
 *
 * Threads: any, device lock held; creation and destruction, and the descriptors of streams, on the loop's thread. */
#include "devices/char/chardev.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "devices/char/chardev_internal.h"

/* ---- The front end ---- */

static void send_event(struct chardev *chardev, enum chardev_event event)
{
    chardev->told_open = event == CHARDEV_OPENED;
    if (chardev->handlers.event)
        chardev->handlers.event(chardev->opaque, event);
}

void chardev_tell(struct chardev *chardev)
{
    if (chardev->told_open && (!chardev->open || chardev->reopened)) {
        if (chardev->in_count && chardev->handlers.receive)
            return; /* after these */
        chardev->reopened = false;
        send_event(chardev, CHARDEV_CLOSED);
    }
    if (chardev->open && !chardev->told_open)
        send_event(chardev, CHARDEV_OPENED);
}

void chardev_set_open(struct chardev *chardev, bool open)
{
    if (open && !chardev->open && chardev->told_open)
        chardev->reopened = true;
    chardev->open = open;
    chardev_tell(chardev);
}

void chardev_set_handlers(struct chardev *chardev, const struct chardev_handlers *handlers, void *opaque)
{
    chardev->handlers = handlers ? *handlers : (struct chardev_handlers){ 0 };
    chardev->opaque = opaque;
    chardev->short_write = false;
    chardev->told_open = chardev->reopened = false;
    if (handlers)
        chardev_tell(chardev);
    chardev_accept_input(chardev);
}

const char *chardev_id(const struct chardev *chardev)
{
    return chardev->id;
}

const char *chardev_filename(const struct chardev *chardev)
{
    return chardev->filename;
}

bool chardev_is_open(const struct chardev *chardev)
{
    return chardev->open;
}

/* ---- Streams ---- */

int chardev_stream_start(struct chardev *chardev, int in_fd, int out_fd, struct error *err)
{
    chardev->in_fd = in_fd;
    chardev->out_fd = out_fd;
    chardev->out_dead = chardev->out_slow = false;
    if (out_fd >= 0)
        chardev->out_direct = !chardev_is_pollable(out_fd);
    if (in_fd >= 0)
        chardev->in_direct = !chardev_is_pollable(in_fd);
    int result = chardev_input_start(chardev, err);
    if (result) {
        chardev_stream_stop(chardev);
        return result;
    }
    chardev_set_open(chardev, true);
    return 0;
}

void chardev_stream_stop(struct chardev *chardev)
{
    chardev_input_stop(chardev);
    chardev_output_stop(chardev, false);
    chardev_set_open(chardev, false);
}

/* ---- Life ---- */

struct chardev *chardev_allocate(struct event_loop *loop, const char *id, struct error *err)
{
    struct chardev *chardev = calloc(1, sizeof(*chardev));

    if (chardev) {
        chardev->out_fd = chardev->in_fd = chardev->log_fd = -1;
        chardev->loop = loop;
        chardev->out = malloc(CHARDEV_OUTPUT_SIZE);
        chardev->in = malloc(CHARDEV_INPUT_SIZE);
        chardev_output_init(chardev);
        chardev_input_init(chardev);
        snprintf(chardev->id, sizeof(chardev->id), "%s", id ? id : "");
    }
    if (!chardev || !chardev->out || !chardev->in) {
        error_set(err, ENOMEM, "out of memory for a character device");
        chardev_destroy(chardev);
        return NULL;
    }
    return chardev;
}

static int open_log(struct chardev *chardev, struct option_list *options, struct error *err)
{
    const char *path = options_get(options, "logfile");
    bool append;
    int result = options_get_bool(options, "logappend", false, &append, err);

    if (result || !path)
        return result;
    chardev->log_fd =
        open(path, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOCTTY | O_NONBLOCK | (append ? O_APPEND : O_TRUNC), 0666);
    if (chardev->log_fd < 0)
        return error_set(err, errno, "logfile=%s: %s", path, strerror(errno));
    return 0;
}

static int set_up(struct chardev *chardev, struct option_list *options, struct error *err)
{
    const char *name = options_get(options, "backend");
    bool mux;
    int result = options_get_bool(options, "mux", false, &mux, err);

    if (result)
        return result;
    const struct chardev_backend *backend = chardev_backend_find(name ? name : "", err);
    if (!backend)
        return -EINVAL;
    result = open_log(chardev, options, err);
    if (result)
        return result;
    snprintf(chardev->filename, sizeof(chardev->filename), "%s", backend->name);
    chardev->backend = backend;
    result = backend->open(chardev, options, err);
    if (!result && mux)
        result = chardev_mux_create(chardev, chardev->registry ? chardev->registry->escape_key : 1, err);
    return result;
}

struct chardev *chardev_make(struct event_loop *loop, struct chardev_registry *registry,
                             const struct chardev_terminal *terminal, const char *id, struct option_list *options,
                             struct error *err)
{
    struct chardev *chardev = chardev_allocate(loop, id, err);

    if (!chardev)
        return NULL;
    signal(SIGPIPE, SIG_IGN); /* a reader that goes away is an error of write(), not the end of the machine */
    chardev->registry = registry;
    if (terminal)
        chardev->terminal = *terminal;
    if (set_up(chardev, options, err)) {
        chardev_destroy(chardev);
        return NULL;
    }
    return chardev;
}

struct chardev *chardev_create(struct event_loop *loop, const char *spec, const struct chardev_terminal *terminal,
                               struct error *err)
{
    struct option_list options;
    struct chardev *chardev;

    if (chardev_legacy_parse(&options, spec, err))
        return NULL;
    chardev = chardev_make(loop, NULL, terminal, spec, &options, err);
    if (chardev && options_check_all_used(&options, "", err)) {
        chardev_destroy(chardev);
        chardev = NULL;
    }
    options_free(&options);
    return chardev;
}

void chardev_destroy(struct chardev *chardev)
{
    if (!chardev)
        return;
    if (chardev->mux && chardev_mux_base(chardev->mux) == chardev)
        chardev_mux_destroy(chardev->mux);
    chardev->handlers = (struct chardev_handlers){ 0 };
    chardev_output_stop(chardev, true);
    chardev_input_stop(chardev);
    if (chardev->backend && chardev->backend->close)
        chardev->backend->close(chardev);
    if (chardev->registry && chardev->registry->stdio == chardev)
        chardev->registry->stdio = NULL;
    if (chardev->log_fd >= 0)
        close(chardev->log_fd);
    free(chardev->out);
    free(chardev->in);
    free(chardev);
}
