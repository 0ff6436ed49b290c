/* isa-debug-exit: a guest ends the emulator by writing to a port; the exit status is (value << 1) | 1, so that it
 * cannot be mistaken for success. A test device: nothing in hardware is like it. Device lock held. */
#include "devices/core/device.h"

#include <errno.h>

struct isa_debug_exit {
    struct device device;
    uint16_t port;
    uint16_t size;
};

static uint64_t port_read(void *opaque, uint64_t offset, unsigned size)
{
    (void)opaque;
    (void)offset;
    (void)size;
    return 0;
}

static void port_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
    struct isa_debug_exit *debug_exit = opaque;
    struct device_env *env = debug_exit->device.env;

    (void)offset;
    (void)size;
    env->machine->request_exit(env->machine_opaque, (int)((uint32_t)value << 1 | 1));
}

static const struct io_ops debug_exit_ops = { .read = port_read, .write = port_write, .min_size = 1, .max_size = 4 };

static int init_device(struct device *device, struct option_list *options, struct error *err)
{
    struct isa_debug_exit *debug_exit = container_of(device, struct isa_debug_exit, device);
    uint64_t port, size;
    int result;

    if ((result = options_get_u64(options, "iobase", 0x501, &port, err)) ||
        (result = options_get_u64(options, "iosize", 2, &size, err)))
        return result;
    if (port > 0xffff)
        return error_set(err, EINVAL, "iobase 0x%llx is not a port", (unsigned long long)port);
    if (size != 1 && size != 2 && size != 4)
        return error_set(err, EINVAL, "iosize %llu: must be 1, 2 or 4", (unsigned long long)size);
    result = port_space_add(device->env->ports, (uint16_t)port, (unsigned)size, &debug_exit_ops, debug_exit,
                            "isa-debug-exit", err);
    if (result)
        return result;
    debug_exit->port = (uint16_t)port;
    debug_exit->size = (uint16_t)size;
    return 0;
}

static void destroy_device(struct device *device)
{
    struct isa_debug_exit *debug_exit = container_of(device, struct isa_debug_exit, device);

    port_space_remove(device->env->ports, debug_exit->port, debug_exit->size, debug_exit);
}

extern const struct device_type isa_debug_exit_type;
const struct device_type isa_debug_exit_type = {
    .name = "isa-debug-exit",
    .bus = "ISA",
    .description = "exit status from the guest",
    .size = sizeof(struct isa_debug_exit),
    .user_creatable = true,
    .properties = "iobase=<uint32>,iosize=<uint32>",
    .init = init_device,
    .destroy = destroy_device,
};
