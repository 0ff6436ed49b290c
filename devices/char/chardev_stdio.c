/* The stdio back end: our standard input and output. The frontend's hooks put a terminal into raw mode. One back end
 * only has it. Loop thread. */
#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "devices/char/chardev_internal.h"

static int open_stdio(struct chardev *chardev, struct option_list *options, struct error *err)
{
    struct chardev_registry *registry = chardev->registry;
    bool signals;
    int result = options_get_bool(options, "signal", true, &signals, err);

    if (result)
        return result;
    if (registry && registry->stdio)
        return error_set(err, EBUSY, "the terminal is in use by chardev '%s' already", registry->stdio->id);
    result = chardev_stream_start(chardev, chardev_own_descriptor(STDIN_FILENO, O_RDONLY),
                                  chardev_own_descriptor(STDOUT_FILENO, O_WRONLY), err);
    if (result)
        return error_prefix(err, result, "standard input");
    if (registry)
        registry->stdio = chardev;
    chardev->private_data = chardev; /* raw mode is to be left */
    if (chardev->terminal.enter_raw)
        chardev->terminal.enter_raw(signals);
    return 0;
}

static void close_stdio(struct chardev *chardev)
{
    if (chardev->private_data && chardev->terminal.leave_raw)
        chardev->terminal.leave_raw();
}

extern const struct chardev_backend chardev_backend_stdio;
const struct chardev_backend chardev_backend_stdio = { .name = "stdio", .open = open_stdio, .close = close_stdio };
