/* The list of named buses, oldest first. Device lock held, or before the machine runs. */
#include "devices/core/bus.h"

#include <errno.h>
#include <string.h>

#include "devices/core/device.h"

int device_bus_add(struct device_env *env, struct device_bus *bus, struct error *err)
{
    struct device_bus **link = &env->buses;

    for (; *link; link = &(*link)->next) {
        if (!strcmp((*link)->id, bus->id))
            return error_set(err, EEXIST, "there is a bus '%s' already", bus->id);
    }
    bus->next = NULL;
    *link = bus;
    return 0;
}

void device_bus_remove(struct device_env *env, struct device_bus *bus)
{
    for (struct device_bus **link = &env->buses; *link; link = &(*link)->next) {
        if (*link == bus) {
            *link = bus->next;
            return;
        }
    }
}

static struct device_bus *named(struct device_env *env, const char *kind, const char *id, struct error *err)
{
    for (struct device_bus *bus = env->buses; bus; bus = bus->next) {
        if (strcmp(bus->id, id))
            continue;
        if (strcmp(bus->kind, kind)) {
            error_set(err, EINVAL, "bus=%s: that is a %s bus, this device needs %s", id, bus->kind, kind);
            return NULL;
        }
        if (bus->has_room && !bus->has_room(bus)) {
            error_set(err, ENOSPC, "bus=%s: no room for another device", id);
            return NULL;
        }
        return bus;
    }
    error_set(err, ENODEV, "bus=%s: there is no such bus", id);
    return NULL;
}

struct device_bus *device_bus_of_option(struct device_env *env, const char *kind, struct option_list *options,
                                        struct error *err)
{
    const char *id = options_get(options, "bus");
    bool full = false;

    if (id)
        return named(env, kind, id, err);
    for (struct device_bus *bus = env->buses; bus; bus = bus->next) {
        if (strcmp(bus->kind, kind))
            continue;
        if (!bus->has_room || bus->has_room(bus))
            return bus;
        full = true;
    }
    error_set(err, full ? ENOSPC : ENODEV, full ? "all %s buses are full" : "there is no %s bus: add its controller first",
              kind);
    return NULL;
}
