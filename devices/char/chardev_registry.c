/* Character devices by id: -chardev, what -serial and its kin add, and who uses which. Device lock held, or before the
 * machine runs. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "devices/char/chardev_internal.h"

struct chardev_registry *chardev_registry_create(struct event_loop *loop, const struct chardev_terminal *terminal,
                                                 struct error *err)
{
    struct chardev_registry *registry = calloc(1, sizeof(*registry));

    if (!registry) {
        error_set(err, ENOMEM, "out of memory for character devices");
        return NULL;
    }
    registry->loop = loop;
    registry->escape_key = 1;
    if (terminal)
        registry->terminal = *terminal;
    return registry;
}

void chardev_registry_destroy(struct chardev_registry *registry)
{
    struct chardev *next;

    if (!registry)
        return;
    for (struct chardev *chardev = registry->first; chardev; chardev = next) {
        next = chardev->next;
        chardev_destroy(chardev);
    }
    free(registry);
}

void chardev_registry_set_escape(struct chardev_registry *registry, uint8_t key)
{
    registry->escape_key = key;
}

struct chardev *chardev_next(struct chardev_registry *registry, struct chardev *previous)
{
    return previous ? previous->next : registry->first;
}

struct chardev *chardev_find(struct chardev_registry *registry, const char *id)
{
    struct chardev *chardev = registry ? registry->first : NULL;

    while (chardev && strcmp(chardev->id, id))
        chardev = chardev->next;
    return chardev;
}

/* ---- Adding ---- */

static int check_id(const char *id, struct error *err)
{
    size_t length = strlen(id);

    if (length >= sizeof(((struct chardev *)0)->id))
        return error_set(err, EINVAL, "id=%s: too long", id);
    if (!length || strspn(id, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._") != length)
        return error_set(err, EINVAL, "id=%s: an id has letters, digits, '-', '.' and '_'", id);
    return 0;
}

static struct chardev *add(struct chardev_registry *registry, const char *id, struct option_list *options,
                           struct error *err)
{
    struct chardev **link = &registry->first;

    if (chardev_find(registry, id)) {
        error_set(err, EEXIST, "there is a chardev '%s' already", id);
        return NULL;
    }
    struct chardev *chardev = chardev_make(registry->loop, registry, &registry->terminal, id, options, err);
    if (!chardev)
        return NULL;
    const char *name = options_get(options, "backend");
    if (options_check_all_used(options, name, err)) {
        chardev_destroy(chardev);
        return NULL;
    }
    while (*link)
        link = &(*link)->next;
    *link = chardev;
    return chardev;
}

int chardev_add(struct chardev_registry *registry, const char *option, struct error *err)
{
    struct option_list options;
    int result = options_parse(&options, option, "backend", err);

    if (result)
        return result;
    const char *id = options_get(&options, "id");
    if (!id)
        result = error_set(err, EINVAL, "id= is missing");
    else
        result = check_id(id, err);
    if (!result && !add(registry, id, &options, err))
        result = -EINVAL;
    options_free(&options);
    return result;
}

struct chardev *chardev_open_legacy(struct chardev_registry *registry, const char *user, const char *spec,
                                    struct error *err)
{
    struct option_list options;

    if (!strncmp(spec, "chardev:", 8))
        return chardev_claim(registry, spec + 8, user, err);
    if (chardev_legacy_parse(&options, spec, err))
        return NULL;
    struct chardev *chardev = add(registry, user, &options, err);
    options_free(&options);
    return chardev ? chardev_claim(registry, user, user, err) : NULL;
}

/* ---- Users ---- */

struct chardev *chardev_claim(struct chardev_registry *registry, const char *id, const char *user, struct error *err)
{
    struct chardev *chardev = chardev_find(registry, id);

    if (!chardev) {
        error_set(err, ENODEV, "there is no chardev '%s'", id);
        return NULL;
    }
    if (chardev->mux)
        return chardev_mux_share(chardev->mux, user, err);
    if (chardev->user[0]) {
        error_set(err, EBUSY, "chardev '%s' is in use by '%s' already, so '%s' cannot have it (mux=on would share it)",
                  id, chardev->user, user);
        return NULL;
    }
    snprintf(chardev->user, sizeof(chardev->user), "%s", user);
    return chardev;
}

void chardev_release(struct chardev *chardev)
{
    if (!chardev)
        return;
    chardev_set_handlers(chardev, NULL, NULL);
    if (chardev->mux)
        chardev_mux_unshare(chardev);
    else
        chardev->user[0] = '\0';
}
