/* Debug console: every byte written to one port goes to a chardev (Bochs' port 0xe9 hack); reads give 0xe9. */
#ifndef EIDOLON_DEVICES_CHAR_DEBUGCON_H
#define EIDOLON_DEVICES_CHAR_DEBUGCON_H

#include "devices/char/chardev.h"
#include "devices/core/device.h"

#define DEBUGCON_DEFAULT_PORT 0xe9

struct debugcon {
    struct device device;
    struct chardev *chardev;
    bool owns_chardev; /* claimed by -device isa-debugcon; else the caller's */
    uint16_t port;
    uint8_t read_back;
};

/* The chardev stays the caller's. */
struct debugcon *debugcon_create(struct device_env *env, uint16_t port, struct chardev *chardev, struct error *err);
void debugcon_destroy(struct debugcon *debugcon);

#endif
