/* Device types and instances: look-up by the name that -device takes, help output, creation and destruction.
 *
 * Two kinds of device exist. Those that -device can make have an `init` that reads options; those that need wiring
 * (interrupt controllers, timers, UARTs) have a create function of their own, which calls device_allocate().
 * Device lock held, or before the machine runs. */
#include "devices/core/device.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DEVICE_TYPE(symbol) extern const struct device_type symbol##_type;
#include "devices/core/device_types.def"
#undef DEVICE_TYPE

static const struct device_type *const device_types[] = {
#define DEVICE_TYPE(symbol) &symbol##_type,
#include "devices/core/device_types.def"
#undef DEVICE_TYPE
};

const struct device_type *device_type_find(const char *name)
{
    for (size_t i = 0; i < ARRAY_SIZE(device_types); i++) {
        const struct device_type *type = device_types[i];

        if (!strcmp(type->name, name) || (type->alias && !strcmp(type->alias, name)))
            return type;
    }
    return NULL;
}

void device_list_types(void)
{
    for (size_t i = 0; i < ARRAY_SIZE(device_types); i++) {
        const struct device_type *type = device_types[i];

        if (!type->user_creatable)
            continue;
        printf("name \"%s\"", type->name);
        if (type->bus)
            printf(", bus %s", type->bus);
        if (type->alias)
            printf(", alias \"%s\"", type->alias);
        if (type->description)
            printf(", desc \"%s\"", type->description);
        putchar('\n');
    }
}

void device_print_properties(const struct device_type *type)
{
    const char *item = type->properties;

    if (!item || !*item) {
        printf("There are no options for %s.\n", type->name);
        return;
    }
    printf("%s options:\n", type->name);
    while (*item) {
        size_t length = strcspn(item, ",");

        printf("  %.*s\n", (int)length, item);
        item += length + (item[length] == ',');
    }
}

void *device_allocate(struct device_env *env, const struct device_type *type, const char *id, struct error *err)
{
    struct device *device = calloc(1, type->size);

    if (!device) {
        error_set(err, ENOMEM, "out of memory for device %s", type->name);
        return NULL;
    }
    device->type = type;
    device->env = env;
    snprintf(device->id, sizeof(device->id), "%s", id ? id : type->name);
    return device;
}

struct device *device_create(struct device_env *env, const struct device_type *type, const char *id,
                             struct option_list *options, struct error *err)
{
    struct option_list none = { 0 };

    if (!type->user_creatable || !type->init) {
        error_set(err, EINVAL, "device '%s' is part of the machine and cannot be added", type->name);
        return NULL;
    }
    struct device *device = device_allocate(env, type, id, err);
    if (!device)
        return NULL;
    if (type->init(device, options ? options : &none, err) < 0) {
        free(device);
        return NULL;
    }
    device_reset(device);
    return device;
}

void device_reset(struct device *device)
{
    if (device->type->reset)
        device->type->reset(device);
}

void device_load_bool(bool *value)
{
    uint8_t raw;

    memcpy(&raw, value, sizeof(raw));
    *value = raw != 0;
}

void device_destroy(struct device *device)
{
    if (!device)
        return;
    if (device->type->destroy)
        device->type->destroy(device);
    free(device);
}
