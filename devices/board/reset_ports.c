/* Small system ports: NMI status and control (0x61), POST code (0x80), fast A20 and reset (0x92), reset control
 * (0xcf9). ICH9 data sheet 13.7; IBM PS/2 technical reference for 0x92. Device lock held. */
#include "devices/board/reset_ports.h"

#include "base/log.h"

#define PORT_NMI_STATUS    0x61
#define PORT_POST          0x80
#define PORT_FAST_A20      0x92
#define PORT_RESET_CONTROL 0xcf9

enum {
    PORT61_GATE = 1 << 0,
    PORT61_SPEAKER = 1 << 1,
    PORT61_WRITABLE = 0x0f,
    PORT61_REFRESH = 1 << 4,
    PORT61_OUT2 = 1 << 5
};
enum { PORT92_RESET = 1 << 0, PORT92_A20 = 1 << 1 };
enum { RESET_SYSTEM = 1 << 1, RESET_CPU = 1 << 2, RESET_FULL = 1 << 3 };
#define REFRESH_HALF_NS 15085 /* the refresh request bit toggles about every 15 us */

/*   5 channel 2 output | 4 refresh toggle | 3:2 NMI masks | 1 speaker | 0 channel 2 gate */
static uint64_t port61_read(void *opaque, uint64_t offset, unsigned size)
{
    struct reset_ports *ports = opaque;
    uint64_t now = clock_now_ns(ports->device.env->clock);

    (void)offset;
    (void)size;
    return ports->port61 | (now / REFRESH_HALF_NS & 1 ? PORT61_REFRESH : 0) |
           (pit_output(ports->pit, 2) ? PORT61_OUT2 : 0);
}

static void port61_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
    struct reset_ports *ports = opaque;

    (void)offset;
    (void)size;
    ports->port61 = value & PORT61_WRITABLE;
    pit_set_gate(ports->pit, 2, value & PORT61_GATE);
}

static uint64_t port80_read(void *opaque, uint64_t offset, unsigned size)
{
    (void)offset;
    (void)size;
    return ((struct reset_ports *)opaque)->port80;
}

/* BIOSes report progress here, and old software uses it as a delay. */
static void port80_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
    (void)offset;
    (void)size;
    ((struct reset_ports *)opaque)->port80 = (uint8_t)value;
}

static uint64_t port92_read(void *opaque, uint64_t offset, unsigned size)
{
    (void)offset;
    (void)size;
    return ((struct reset_ports *)opaque)->port92;
}

static void port92_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
    struct reset_ports *ports = opaque;
    struct device_env *env = ports->device.env;
    uint8_t old = ports->port92;

    (void)offset;
    (void)size;
    ports->port92 = (uint8_t)value;
    if ((old ^ value) & PORT92_A20)
        env->machine->set_a20(env->machine_opaque, value & PORT92_A20);
    if ((value & PORT92_RESET) && !(old & PORT92_RESET))
        env->machine->request_reset(env->machine_opaque);
}

static uint64_t reset_control_read(void *opaque, uint64_t offset, unsigned size)
{
    (void)offset;
    (void)size;
    return ((struct reset_ports *)opaque)->reset_control;
}

/* A reset happens when bit 2 goes from 0 to 1; bits 1 and 3 say which kind, and all kinds reset this machine whole. */
static void reset_control_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
    struct reset_ports *ports = opaque;
    struct device_env *env = ports->device.env;
    uint8_t old = ports->reset_control;

    (void)offset;
    (void)size;
    ports->reset_control = value & (RESET_SYSTEM | RESET_CPU | RESET_FULL);
    if ((value & RESET_CPU) && !(old & RESET_CPU))
        env->machine->request_reset(env->machine_opaque);
}

static const struct {
    uint16_t port;
    struct io_ops ops;
    const char *name;
} port_table[] = {
    { PORT_NMI_STATUS, { port61_read, port61_write, 1, 1 }, "port61" },
    { PORT_POST, { port80_read, port80_write, 1, 1 }, "port80" },
    { PORT_FAST_A20, { port92_read, port92_write, 1, 1 }, "port92" },
    { PORT_RESET_CONTROL, { reset_control_read, reset_control_write, 1, 1 }, "reset-control" },
};

static void reset_device(struct device *device)
{
    struct reset_ports *ports = container_of(device, struct reset_ports, device);

    ports->port61 = ports->port80 = ports->reset_control = 0;
    ports->port92 = PORT92_A20; /* no 8086 software waits for addresses to wrap at reset */
    pit_set_gate(ports->pit, 2, false);
    device->env->machine->set_a20(device->env->machine_opaque, true);
}

static void destroy_device(struct device *device)
{
    for (size_t i = 0; i < ARRAY_SIZE(port_table); i++)
        port_space_remove(device->env->ports, port_table[i].port, 1, container_of(device, struct reset_ports, device));
}

static int post_load(void *owner, struct error *err)
{
    struct reset_ports *ports = owner;
    struct device_env *env = ports->device.env;

    (void)err;
    ports->port61 &= PORT61_WRITABLE;
    env->machine->set_a20(env->machine_opaque, ports->port92 & PORT92_A20);
    return 0;
}

static const struct state_field reset_ports_fields[] = {
    STATE_FIELD(struct reset_ports, port61),
    STATE_FIELD(struct reset_ports, port80),
    STATE_FIELD(struct reset_ports, port92),
    STATE_FIELD(struct reset_ports, reset_control),
    STATE_END,
};
static const struct state_table reset_ports_state = {
    .name = "reset-ports",
    .version = 1,
    .fields = reset_ports_fields,
    .post_load = post_load,
};

static const struct device_type reset_ports_type = {
    .name = "reset-ports",
    .bus = "ISA",
    .description = "system control ports",
    .size = sizeof(struct reset_ports),
    .reset = reset_device,
    .destroy = destroy_device,
    .state = &reset_ports_state,
};

struct reset_ports *reset_ports_create(struct device_env *env, struct pit *pit, struct error *err)
{
    struct reset_ports *ports = device_allocate(env, &reset_ports_type, NULL, err);

    if (!ports)
        return NULL;
    ports->pit = pit;
    device_reset(&ports->device);
    for (size_t i = 0; i < ARRAY_SIZE(port_table); i++) {
        if (port_space_add(env->ports, port_table[i].port, 1, &port_table[i].ops, ports, port_table[i].name, err)) {
            reset_ports_destroy(ports);
            return NULL;
        }
    }
    return ports;
}

void reset_ports_destroy(struct reset_ports *ports)
{
    device_destroy(ports ? &ports->device : NULL);
}
