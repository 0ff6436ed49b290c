/* Small system ports of a PC: 0x61 (8254 channel 2 gate, speaker, refresh), 0x80 (POST code), 0x92 (fast A20 and
 * reset), 0xcf9 (reset control, ICH9 data sheet 13.7.5). */
#ifndef EIDOLON_DEVICES_BOARD_RESET_PORTS_H
#define EIDOLON_DEVICES_BOARD_RESET_PORTS_H

#include "devices/core/device.h"
#include "devices/timer/pit.h"

struct reset_ports {
    struct device device;
    struct pit *pit;
    uint8_t port61, port80, port92, reset_control;
};

/* After the PCI host bridge, as port 0xcf9 lies inside its 0xcf8..0xcfb. */
struct reset_ports *reset_ports_create(struct device_env *env, struct pit *pit, struct error *err);
void reset_ports_destroy(struct reset_ports *ports);

#endif
