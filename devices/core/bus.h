/* Buses by name: what -device ...,bus=NAME plugs into. A device that offers a bus (a SCSI controller, a USB host, a PCIe
 * root port) registers one; device types that need one look it up. Device lock held, or before the machine runs. */
#ifndef EIDOLON_DEVICES_CORE_BUS_H
#define EIDOLON_DEVICES_CORE_BUS_H

#include "base/error.h"
#include "base/types.h"

struct device_env;
struct option_list;

struct device_bus {
    const char *kind; /* "PCI", "IDE", "SCSI", "USB", "virtio-serial-bus": what a type's `bus` says */
    char id[64];      /* as QEMU names it: "ide.0", "scsi0.0", "xhci.0" */
    void *owner;      /* the controller's structure, which users of this kind know */
    bool (*has_room)(const struct device_bus *bus); /* NULL: always */
    struct device_bus *next;
};

/* The bus belongs to its owner and is registered from then on to device_bus_remove(). -EEXIST: that name is taken. */
int device_bus_add(struct device_env *env, struct device_bus *bus, struct error *err);
void device_bus_remove(struct device_env *env, struct device_bus *bus);
/* The bus that the property bus=ID names, or the oldest of its kind with room. NULL with err set: no such bus, of another
 * kind, full, or none there (the message says which controller to add). */
struct device_bus *device_bus_of_option(struct device_env *env, const char *kind, struct option_list *options,
                                        struct error *err);

#endif
