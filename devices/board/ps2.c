/* PS/2 keyboard and mouse: replies to commands (IBM PS/2 hardware interface technical reference, "Keyboard" and
 * "Mouse").
 *
 * The queue holds what the device wants to send; a new command throws away what was not sent yet, as devices do.
 * There are no keys or movements yet. Device lock held. */
#include "devices/board/ps2.h"

#define REPLY_ACK          0xfa
#define REPLY_RESEND       0xfe
#define REPLY_SELF_TEST_OK 0xaa

static void put(struct ps2_device *device, uint8_t value)
{
    if (device->count == PS2_QUEUE_SIZE)
        return;
    device->queue[(device->head + device->count) % PS2_QUEUE_SIZE] = value;
    device->count++;
}

bool ps2_available(const struct ps2_device *device)
{
    return device->count != 0;
}

uint8_t ps2_read(struct ps2_device *device)
{
    uint8_t value = device->queue[device->head];

    if (device->count) {
        device->head = (device->head + 1) % PS2_QUEUE_SIZE;
        device->count--;
    }
    return value;
}

static void set_defaults(struct ps2_device *device)
{
    device->command = 0;
    device->scancode_set = 2;
    device->typematic = 0x2b; /* 10.9 characters a second after 500 ms */
    device->sample_rate = 100;
    device->resolution = 2;
    device->scaling = device->remote = device->wrap = false;
}

void ps2_reset(struct ps2_device *device, bool is_mouse)
{
    *device = (struct ps2_device){ .is_mouse = is_mouse, .enabled = !is_mouse };
    set_defaults(device);
}

/* ---- Keyboard ---- */

static void keyboard_argument(struct ps2_device *device, uint8_t command, uint8_t value)
{
    put(device, REPLY_ACK);
    switch (command) {
    case 0xed:
        device->leds = value & 7;
        break;
    case 0xf0:
        if (value == 0)
            put(device, device->scancode_set);
        else if (value <= 3)
            device->scancode_set = value;
        break;
    case 0xf3:
        device->typematic = value & 0x7f;
        break;
    default:
        break; /* 0xfb .. 0xfd: key types of scan code set 3 */
    }
}

static void keyboard_command(struct ps2_device *device, uint8_t value)
{
    switch (value) {
    case 0xed:
    case 0xf0:
    case 0xf3:
    case 0xfb ... 0xfd:
        device->command = value;
        put(device, REPLY_ACK);
        break;
    case 0xee:
        put(device, 0xee); /* echo */
        break;
    case 0xf2:
        put(device, REPLY_ACK);
        put(device, 0xab);
        put(device, 0x83);
        break;
    case 0xf4:
        device->enabled = true;
        put(device, REPLY_ACK);
        break;
    case 0xf5:
    case 0xf6:
        set_defaults(device);
        device->enabled = value == 0xf6;
        put(device, REPLY_ACK);
        break;
    case 0xf7 ... 0xfa:
        put(device, REPLY_ACK);
        break;
    case 0xff:
        ps2_reset(device, false);
        put(device, REPLY_ACK);
        put(device, REPLY_SELF_TEST_OK);
        break;
    default:
        put(device, REPLY_RESEND);
        break;
    }
}

/* ---- Mouse ---- */

/* Drivers find a wheel by setting the sample rate to 200, 100, 80 (or 200, 200, 80 for five buttons). */
static void mouse_set_rate(struct ps2_device *device, uint8_t value)
{
    if (value == 80 && device->rates[0] == 200) {
        if (device->rates[1] == 100)
            device->id = 3;
        else if (device->rates[1] == 200 && device->id == 3)
            device->id = 4;
    }
    device->rates[0] = device->rates[1];
    device->rates[1] = value;
    device->sample_rate = value;
}

static void mouse_packet(struct ps2_device *device)
{
    put(device, 0x08);
    put(device, 0);
    put(device, 0);
    if (device->id)
        put(device, 0);
}

static void mouse_status(struct ps2_device *device)
{
    put(device, (uint8_t)(device->remote << 6 | device->enabled << 5 | device->scaling << 4));
    put(device, device->resolution);
    put(device, device->sample_rate);
}

static void mouse_command(struct ps2_device *device, uint8_t value)
{
    put(device, REPLY_ACK);
    switch (value) {
    case 0xe6:
    case 0xe7:
        device->scaling = value & 1;
        break;
    case 0xe8:
    case 0xf3:
        device->command = value;
        break;
    case 0xe9:
        mouse_status(device);
        break;
    case 0xea:
    case 0xf0:
        device->remote = value == 0xf0;
        break;
    case 0xeb:
        mouse_packet(device);
        break;
    case 0xec:
        break; /* leaves wrap mode */
    case 0xee:
        device->wrap = true;
        break;
    case 0xf2:
        put(device, device->id);
        break;
    case 0xf4:
    case 0xf5:
        device->enabled = value == 0xf4;
        break;
    case 0xf6:
        set_defaults(device);
        device->enabled = false;
        break;
    case 0xff:
        ps2_reset(device, true);
        put(device, REPLY_ACK);
        put(device, REPLY_SELF_TEST_OK);
        put(device, 0x00);
        break;
    default:
        device->count = 0;
        put(device, REPLY_RESEND);
        break;
    }
}

static void mouse_argument(struct ps2_device *device, uint8_t command, uint8_t value)
{
    put(device, REPLY_ACK);
    if (command == 0xe8)
        device->resolution = value & 3;
    else
        mouse_set_rate(device, value);
}

void ps2_write(struct ps2_device *device, uint8_t value)
{
    uint8_t command = device->command;

    device->count = 0;
    device->command = 0;
    if (device->is_mouse && device->wrap && value != 0xec && value != 0xff) {
        put(device, value);
    } else if (device->is_mouse && device->wrap && value == 0xec) {
        device->wrap = false;
        put(device, REPLY_ACK);
    } else if (command) {
        if (device->is_mouse)
            mouse_argument(device, command, value);
        else
            keyboard_argument(device, command, value);
    } else if (device->is_mouse) {
        mouse_command(device, value);
    } else {
        keyboard_command(device, value);
    }
}
