/* Debug console port. Device lock held. */
#include "devices/char/debugcon.h"

#define READ_BACK   0xe9 /* tells a guest that somebody is there */
#define MAX_WAIT_MS 20   /* for a slow terminal; then bytes are dropped rather than the guest held up */

static uint64_t port_read(void *opaque, uint64_t offset, unsigned size)
{
    (void)opaque;
    (void)offset;
    (void)size;
    return READ_BACK;
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
}

static const struct device_type debugcon_type = {
    .name = "isa-debugcon",
    .bus = "ISA",
    .description = "debug console port",
    .size = sizeof(struct debugcon),
    .destroy = destroy_device,
};

struct debugcon *debugcon_create(struct device_env *env, uint16_t port, struct chardev *chardev, struct error *err)
{
    struct debugcon *debugcon = device_allocate(env, &debugcon_type, NULL, err);

    if (!debugcon)
        return NULL;
    debugcon->chardev = chardev;
    debugcon->port = port;
    if (port_space_add(env->ports, port, 1, &debugcon_ops, debugcon, "debugcon", err)) {
        debugcon_destroy(debugcon);
        return NULL;
    }
    return debugcon;
}

void debugcon_destroy(struct debugcon *debugcon)
{
    device_destroy(debugcon ? &debugcon->device : NULL);
}
