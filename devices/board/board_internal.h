/* For the files of the boards. */
#ifndef EIDOLON_DEVICES_BOARD_BOARD_INTERNAL_H
#define EIDOLON_DEVICES_BOARD_BOARD_INTERNAL_H

#include "devices/board/machine.h"

/* The board resets and destroys the device from now on. */
void board_own(struct board *board, struct device *device);
/* device_env.unplugged of the boards. */
void board_unplugged(struct device_env *env, struct device *device);

#endif
