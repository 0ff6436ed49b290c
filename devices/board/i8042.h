/* Keyboard controller (ports 0x60, 0x64) with a PS/2 keyboard (irq 1) and mouse (irq 12) that answer their
 * commands. Input from a window comes with the display. Output port: A20, reset. */
#ifndef EIDOLON_DEVICES_BOARD_I8042_H
#define EIDOLON_DEVICES_BOARD_I8042_H

#include "devices/board/ps2.h"
#include "devices/core/device.h"

struct i8042 {
    struct device device;
    struct ps2_device keyboard, mouse;
    uint8_t status, command_byte, output_port;
    uint8_t pending_command; /* the command that waits for a byte at port 0x60; 0 = none */
    uint8_t output_data;
    uint8_t ram[32];
};

struct i8042 *i8042_create(struct device_env *env, struct error *err); /* uses isa_irq[1] and [12] */
void i8042_destroy(struct i8042 *i8042);

#endif
