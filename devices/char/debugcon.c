/* Debug console port. Device lock held. */
#include "devices/char/debugcon.h"

#include <errno.h>

#define READ_BACK   0xe9 /* tells a guest that somebody is there */
#define MAX_WAIT_MS 20   /* for a slow terminal; then bytes are dropped rather than the guest held up */

static uint64_t port_read(void *opaque, uint64_t offset, unsigned size)
{
    struct debugcon *debugcon = opaque;

    (void)offset;
    (void)size;
    return debugcon->read_back;
}

static void port_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
    struct debugcon *debugcon = opaque;
    uint8_t byte = (uint8_t)value;

    (void)offset;
    (void)size;
    chardev_write_wait(debugcon->chardev, &byte, 1, MAX_WAIT_MS);
}

static const struct io_ops debugcon_ops = { .read = port_read, .write = port_write, .min_size = 1, .max_size = 1 };

static void destroy_device(struct device *device)
{
    struct debugcon *debugcon = container_of(device, struct debugcon, device);

    port_space_remove(device->env->ports, debugcon->port, 1, debugcon);
    if (debugcon->owns_chardev)
        chardev_release(debugcon->chardev);
}

static int start(struct debugcon *debugcon, uint16_t port, struct chardev *chardev, struct error *err)
{
    debugcon->chardev = chardev;
    debugcon->port = port;
    return port_space_add(debugcon->device.env->ports, port, 1, &debugcon_ops, debugcon, "debugcon", err);
}

static int init_device(struct device *device, struct option_list *options, struct error *err)
{
    struct debugcon *debugcon = container_of(device, struct debugcon, device);
    const char *id = options_get(options, "chardev");
    uint64_t port, read_back;
    int result = options_get_u64(options, "iobase", DEBUGCON_DEFAULT_PORT, &port, err);

    result = result ?: options_get_u64(options, "readback", READ_BACK, &read_back, err);
    if (result)
        return result;
    if (port > 0xffff)
        return error_set(err, EINVAL, "iobase 0x%llx is not a port", (unsigned long long)port);
    if (!id)
        return error_set(err, EINVAL, "chardev= is missing");
    struct chardev *chardev = chardev_claim(device->env->chardevs, id, device->id, err);
    if (!chardev)
        return -EINVAL;
    debugcon->owns_chardev = true;
    debugcon->read_back = (uint8_t)read_back;
    result = start(debugcon, (uint16_t)port, chardev, err);
    if (result)
        chardev_release(chardev);
    return result;
}

extern const struct device_type isa_debugcon_type;
const struct device_type isa_debugcon_type = {
    .name = "isa-debugcon",
    .bus = "ISA",
    .description = "debug console port",
    .size = sizeof(struct debugcon),
    .user_creatable = true,
    .properties = "chardev=<str>,iobase=<uint32>,readback=<uint32>",
    .init = init_device,
    .destroy = destroy_device,
};

struct debugcon *debugcon_create(struct device_env *env, uint16_t port, struct chardev *chardev, struct error *err)
{
    struct debugcon *debugcon = device_allocate(env, &isa_debugcon_type, NULL, err);

    if (!debugcon)
        return NULL;
    debugcon->read_back = READ_BACK;
    if (start(debugcon, port, chardev, err)) {
        debugcon_destroy(debugcon);
        return NULL;
    }
    return debugcon;
}

void debugcon_destroy(struct debugcon *debugcon)
{
    device_destroy(debugcon ? &debugcon->device : NULL);
}
