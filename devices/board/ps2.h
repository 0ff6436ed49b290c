/* PS/2 keyboard and mouse: the command protocol behind the keyboard controller (IBM PS/2 technical reference,
 * keyboard and auxiliary device). */
#ifndef EIDOLON_DEVICES_BOARD_PS2_H
#define EIDOLON_DEVICES_BOARD_PS2_H

#include "base/types.h"

#define PS2_QUEUE_SIZE 64

struct ps2_device {
    bool is_mouse;
    bool enabled;                                  /* scanning, or data reporting */
    uint8_t command;                               /* waits for its argument; 0 = none */
    uint8_t leds, scancode_set, typematic;         /* keyboard */
    uint8_t sample_rate, resolution, id, rates[2]; /* mouse; rates: the last two, for the wheel's knock */
    bool scaling, remote, wrap;
    uint8_t queue[PS2_QUEUE_SIZE];
    uint8_t head, count;
};

void ps2_reset(struct ps2_device *device, bool is_mouse);
void ps2_write(struct ps2_device *device, uint8_t value); /* a byte from the host */
bool ps2_available(const struct ps2_device *device);
uint8_t ps2_read(struct ps2_device *device);

#endif
