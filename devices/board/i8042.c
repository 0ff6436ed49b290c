/* Keyboard controller: 8042 with a PS/2 auxiliary port (IBM PS/2 hardware interface technical reference, "Keyboard
 * and auxiliary device controller").
 *
 *   status:       5 data from the mouse | 4 not locked | 3 last write was a command | 2 self test done | 0 output full
 *   command byte: 6 translate | 5 mouse off | 4 keyboard off | 2 system flag | 1 irq 12 | 0 irq 1
 *   output port:  1 A20 | 0 not reset
 *
 * Invariants: the output buffer holds one byte; fill() loads the next one as soon as it is free, and the interrupt
 * lines follow it. Commands are carried out at once, so the input buffer is never full. Device lock held. */
#include "devices/board/i8042.h"

#include "base/log.h"

#define PORT_DATA    0x60
#define PORT_COMMAND 0x64

enum {
    STATUS_OUTPUT_FULL = 1 << 0,
    STATUS_SYSTEM = 1 << 2,
    STATUS_COMMAND = 1 << 3,
    STATUS_UNLOCKED = 1 << 4,
    STATUS_MOUSE = 1 << 5
};
enum {
    MODE_KEYBOARD_IRQ = 1 << 0,
    MODE_MOUSE_IRQ = 1 << 1,
    MODE_SYSTEM = 1 << 2,
    MODE_KEYBOARD_OFF = 1 << 4,
    MODE_MOUSE_OFF = 1 << 5,
    MODE_TRANSLATE = 1 << 6,
};
enum { OUTPUT_NOT_RESET = 1 << 0, OUTPUT_A20 = 1 << 1 };

/* Scan code set 2 to set 1, as the controller translates what the keyboard sends. Bytes from 0x85 on pass. */
static const uint8_t translation[0x85] = {
    0xff, 0x43, 0x41, 0x3f, 0x3d, 0x3b, 0x3c, 0x58, 0x64, 0x44, 0x42, 0x40, 0x3e, 0x0f, 0x29, 0x59, /* 00 */
    0x65, 0x38, 0x2a, 0x70, 0x1d, 0x10, 0x02, 0x5a, 0x66, 0x71, 0x2c, 0x1f, 0x1e, 0x11, 0x03, 0x5b, /* 10 */
    0x67, 0x2e, 0x2d, 0x20, 0x12, 0x05, 0x04, 0x5c, 0x68, 0x39, 0x2f, 0x21, 0x14, 0x13, 0x06, 0x5d, /* 20 */
    0x69, 0x31, 0x30, 0x23, 0x22, 0x15, 0x07, 0x5e, 0x6a, 0x72, 0x32, 0x24, 0x16, 0x08, 0x09, 0x5f, /* 30 */
    0x6b, 0x33, 0x25, 0x17, 0x18, 0x0b, 0x0a, 0x60, 0x6c, 0x34, 0x35, 0x26, 0x27, 0x19, 0x0c, 0x61, /* 40 */
    0x6d, 0x73, 0x28, 0x74, 0x1a, 0x0d, 0x62, 0x6e, 0x3a, 0x36, 0x1c, 0x1b, 0x75, 0x2b, 0x63, 0x76, /* 50 */
    0x55, 0x56, 0x77, 0x78, 0x79, 0x7a, 0x0e, 0x7b, 0x7c, 0x4f, 0x7d, 0x4b, 0x47, 0x7e, 0x7f, 0x6f, /* 60 */
    0x52, 0x53, 0x50, 0x4c, 0x4d, 0x48, 0x01, 0x45, 0x57, 0x4e, 0x51, 0x4a, 0x37, 0x49, 0x46, 0x54, /* 70 */
    0x80, 0x81, 0x82, 0x41, 0x54,
};

static void update_irq(struct i8042 *i8042)
{
    bool full = i8042->status & STATUS_OUTPUT_FULL, mouse = i8042->status & STATUS_MOUSE;

    irq_line_set(&i8042->device.env->isa_irq[1], full && !mouse && (i8042->command_byte & MODE_KEYBOARD_IRQ));
    irq_line_set(&i8042->device.env->isa_irq[12], full && mouse && (i8042->command_byte & MODE_MOUSE_IRQ));
}

static void output(struct i8042 *i8042, uint8_t value, bool from_mouse)
{
    i8042->output_data = value;
    i8042->status = (i8042->status & (uint8_t)~STATUS_MOUSE) | STATUS_OUTPUT_FULL | (from_mouse ? STATUS_MOUSE : 0);
    update_irq(i8042);
}

/* Takes the next byte that a device wants to send. */
static void fill(struct i8042 *i8042)
{
    uint8_t value;

    if (!(i8042->status & STATUS_OUTPUT_FULL)) {
        if (ps2_available(&i8042->keyboard) && !(i8042->command_byte & MODE_KEYBOARD_OFF)) {
            value = ps2_read(&i8042->keyboard);
            if ((i8042->command_byte & MODE_TRANSLATE) && value < sizeof(translation))
                value = translation[value];
            output(i8042, value, false);
        } else if (ps2_available(&i8042->mouse) && !(i8042->command_byte & MODE_MOUSE_OFF)) {
            output(i8042, ps2_read(&i8042->mouse), true);
        }
    }
    update_irq(i8042);
}

static void write_output_port(struct i8042 *i8042, uint8_t value)
{
    struct device_env *env = i8042->device.env;
    uint8_t old = i8042->output_port;

    i8042->output_port = value | OUTPUT_NOT_RESET;
    if ((old ^ value) & OUTPUT_A20)
        env->machine->set_a20(env->machine_opaque, value & OUTPUT_A20);
    if (!(value & OUTPUT_NOT_RESET))
        env->machine->request_reset(env->machine_opaque);
}

static void write_command_byte(struct i8042 *i8042, uint8_t value)
{
    i8042->command_byte = value;
    i8042->status = (i8042->status & (uint8_t)~STATUS_SYSTEM) | (value & MODE_SYSTEM ? STATUS_SYSTEM : 0);
    fill(i8042);
}

/* ---- Port 0x64 ---- */

static void simple_command(struct i8042 *i8042, uint8_t value)
{
    switch (value) {
    case 0x20:
        output(i8042, i8042->command_byte, false);
        break;
    case 0x21 ... 0x3f:
        output(i8042, i8042->ram[value & 31], false);
        break;
    case 0xa7:
        i8042->command_byte |= MODE_MOUSE_OFF;
        break;
    case 0xa8:
        i8042->command_byte &= (uint8_t)~MODE_MOUSE_OFF;
        break;
    case 0xa9:
        output(i8042, 0x00, false);
        break; /* mouse port test: good */
    case 0xaa: /* self test */
        i8042->status |= STATUS_SYSTEM;
        i8042->command_byte |= MODE_SYSTEM;
        output(i8042, 0x55, false);
        break;
    case 0xab:
        output(i8042, 0x00, false);
        break; /* keyboard port test: good */
    case 0xad:
        i8042->command_byte |= MODE_KEYBOARD_OFF;
        break;
    case 0xae:
        i8042->command_byte &= (uint8_t)~MODE_KEYBOARD_OFF;
        break;
    case 0xc0:
        output(i8042, 0x80, false);
        break; /* input port: keyboard not inhibited */
    case 0xd0:
        output(i8042,
               i8042->output_port |
                   (i8042->status & STATUS_OUTPUT_FULL ? 1 << (i8042->status & STATUS_MOUSE ? 5 : 4) : 0),
               false);
        break;
    case 0xdd:
        write_output_port(i8042, i8042->output_port & (uint8_t)~OUTPUT_A20);
        break;
    case 0xdf:
        write_output_port(i8042, i8042->output_port | OUTPUT_A20);
        break;
    case 0xf0 ... 0xff:
        /* Pulses the output bits whose command bit is 0; only reset is wired to anything that notices. */
        if (!(value & OUTPUT_NOT_RESET))
            i8042->device.env->machine->request_reset(i8042->device.env->machine_opaque);
        break;
    default:
        log_event(guest_errors, "i8042: unknown command 0x%x\n", value);
        break;
    }
}

static void write_command(struct i8042 *i8042, uint8_t value)
{
    i8042->status |= STATUS_COMMAND;
    i8042->pending_command = 0;
    switch (value) {
    case 0x60 ... 0x7f: /* write command byte, RAM */
    case 0xd1 ... 0xd4: /* write output port, keyboard output, mouse output, to mouse */
        i8042->pending_command = value;
        break;
    default:
        simple_command(i8042, value);
        break;
    }
    fill(i8042);
}

/* ---- Port 0x60 ---- */

static void write_data(struct i8042 *i8042, uint8_t value)
{
    uint8_t command = i8042->pending_command;

    i8042->status &= (uint8_t)~STATUS_COMMAND;
    i8042->pending_command = 0;
    switch (command) {
    case 0:
        i8042->command_byte &= (uint8_t)~MODE_KEYBOARD_OFF; /* talking to the keyboard switches it on */
        ps2_write(&i8042->keyboard, value);
        break;
    case 0x60:
        write_command_byte(i8042, value);
        break;
    case 0x61 ... 0x7f:
        i8042->ram[command & 31] = value;
        break;
    case 0xd1:
        write_output_port(i8042, value);
        break;
    case 0xd2:
        output(i8042, value, false);
        break;
    case 0xd3:
        output(i8042, value, true);
        break;
    default:
        i8042->command_byte &= (uint8_t)~MODE_MOUSE_OFF;
        ps2_write(&i8042->mouse, value);
        break;
    }
    fill(i8042);
}

static uint8_t read_data(struct i8042 *i8042)
{
    if (i8042->status & STATUS_OUTPUT_FULL) {
        i8042->status &= (uint8_t) ~(STATUS_OUTPUT_FULL | STATUS_MOUSE);
        update_irq(i8042); /* low, so that the next byte is a new edge */
    }
    uint8_t value = i8042->output_data;
    fill(i8042);
    return value;
}

static uint64_t data_port_read(void *opaque, uint64_t offset, unsigned size)
{
    (void)offset;
    (void)size;
    return read_data(opaque);
}

static void data_port_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
    (void)offset;
    (void)size;
    write_data(opaque, (uint8_t)value);
}

static uint64_t command_port_read(void *opaque, uint64_t offset, unsigned size)
{
    (void)offset;
    (void)size;
    return ((struct i8042 *)opaque)->status;
}

static void command_port_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
    (void)offset;
    (void)size;
    write_command(opaque, (uint8_t)value);
}

static const struct io_ops data_ops = { data_port_read, data_port_write, 1, 1 };
static const struct io_ops command_ops = { command_port_read, command_port_write, 1, 1 };

/* ---- Life ---- */

/* As the power-on self test leaves it: operating systems started without a BIOS take that for granted. */
static void reset_device(struct device *device)
{
    struct i8042 *i8042 = container_of(device, struct i8042, device);

    ps2_reset(&i8042->keyboard, false);
    ps2_reset(&i8042->mouse, true);
    i8042->status = STATUS_SYSTEM | STATUS_COMMAND | STATUS_UNLOCKED;
    i8042->command_byte = MODE_KEYBOARD_IRQ | MODE_MOUSE_IRQ | MODE_SYSTEM | MODE_TRANSLATE;
    i8042->output_port = OUTPUT_NOT_RESET | OUTPUT_A20;
    i8042->pending_command = i8042->output_data = 0;
    for (unsigned i = 0; i < sizeof(i8042->ram); i++)
        i8042->ram[i] = 0;
    update_irq(i8042);
}

static void destroy_device(struct device *device)
{
    struct i8042 *i8042 = container_of(device, struct i8042, device);

    port_space_remove(device->env->ports, PORT_DATA, 1, i8042);
    port_space_remove(device->env->ports, PORT_COMMAND, 1, i8042);
}

static void check_ps2(struct ps2_device *device, bool is_mouse)
{
    device_load_bool(&device->enabled);
    device_load_bool(&device->scaling);
    device_load_bool(&device->remote);
    device_load_bool(&device->wrap);
    device->is_mouse = is_mouse;
    device->head %= PS2_QUEUE_SIZE;
    device->count = MIN(device->count, PS2_QUEUE_SIZE);
}

static int post_load(void *owner, struct error *err)
{
    struct i8042 *i8042 = owner;

    (void)err;
    check_ps2(&i8042->keyboard, false);
    check_ps2(&i8042->mouse, true);
    update_irq(i8042);
    return 0;
}

static const struct state_field i8042_fields[] = {
    STATE_FIELD(struct i8042, keyboard),
    STATE_FIELD(struct i8042, mouse),
    STATE_FIELD(struct i8042, status),
    STATE_FIELD(struct i8042, command_byte),
    STATE_FIELD(struct i8042, output_port),
    STATE_FIELD(struct i8042, pending_command),
    STATE_FIELD(struct i8042, output_data),
    STATE_ARRAY(struct i8042, ram),
    STATE_END,
};
static const struct state_table i8042_state = {
    .name = "i8042",
    .version = 1,
    .fields = i8042_fields,
    .post_load = post_load,
};

static const struct device_type i8042_type = {
    .name = "i8042",
    .bus = "ISA",
    .description = "keyboard controller",
    .size = sizeof(struct i8042),
    .reset = reset_device,
    .destroy = destroy_device,
    .state = &i8042_state,
};

struct i8042 *i8042_create(struct device_env *env, struct error *err)
{
    struct i8042 *i8042 = device_allocate(env, &i8042_type, NULL, err);

    if (!i8042)
        return NULL;
    device_reset(&i8042->device);
    if (port_space_add(env->ports, PORT_DATA, 1, &data_ops, i8042, "i8042-data", err) ||
        port_space_add(env->ports, PORT_COMMAND, 1, &command_ops, i8042, "i8042-command", err)) {
        i8042_destroy(i8042);
        return NULL;
    }
    return i8042;
}

void i8042_destroy(struct i8042 *i8042)
{
    device_destroy(i8042 ? &i8042->device : NULL);
}
