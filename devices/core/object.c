/* The objects of the command line, newest first, and the I/O threads among them. Main thread, or the device lock held. */
#include "devices/core/object.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/io_thread.h"

#define OBJECT_TYPE(symbol) extern const struct object_type symbol##_object_type;
#include "devices/core/object_types.def"
#undef OBJECT_TYPE

static const struct object_type *const object_types[] = {
#define OBJECT_TYPE(symbol) &symbol##_object_type,
#include "devices/core/object_types.def"
#undef OBJECT_TYPE
};

struct object_registry {
    struct event_loop *loop;
    struct object *objects;
    struct io_thread *default_thread;
};

struct object_registry *object_registry_create(struct event_loop *loop, struct error *err)
{
    struct object_registry *registry = calloc(1, sizeof(*registry));

    if (registry)
        registry->loop = loop;
    else
        error_set(err, ENOMEM, "out of memory");
    return registry;
}

void object_registry_destroy(struct object_registry *registry)
{
    if (!registry)
        return;
    while (registry->objects) {
        struct object *object = registry->objects;

        registry->objects = object->next;
        object->type->destroy(object);
        free(object);
    }
    io_thread_destroy(registry->default_thread);
    free(registry);
}

void object_list_types(void)
{
    puts("List of user creatable objects:");
    for (size_t i = 0; i < ARRAY_SIZE(object_types); i++)
        printf("  %s\n", object_types[i]->name);
}

static const struct object_type *find_type(const char *name)
{
    for (size_t i = 0; i < ARRAY_SIZE(object_types); i++) {
        if (!strcmp(object_types[i]->name, name))
            return object_types[i];
    }
    return NULL;
}

static struct object *find(const struct object_registry *registry, const char *id)
{
    struct object *object = registry->objects;

    while (object && strcmp(object->id, id))
        object = object->next;
    return object;
}

static int add_parsed(struct object_registry *registry, struct option_list *options, struct error *err)
{
    const char *name = options_get(options, "qom-type"), *id = options_get(options, "id");
    const struct object_type *type = name ? find_type(name) : NULL;
    struct object *object;
    int ret;

    if (!type)
        return error_set(err, EINVAL, "%s%s%s (see -object help)", name ? "unknown object type '" : "no type given",
                         name ? name : "", name ? "'" : "");
    if (!id || !*id || strlen(id) >= sizeof(object->id))
        return error_set(err, EINVAL, "an object needs id=, of at most %zu bytes", sizeof(object->id) - 1);
    if (find(registry, id))
        return error_set(err, EEXIST, "there is an object '%s' already", id);
    object = calloc(1, sizeof(*object));
    if (!object)
        return error_set(err, ENOMEM, "out of memory");
    object->type = type;
    object->loop = registry->loop;
    snprintf(object->id, sizeof(object->id), "%s", id);
    ret = type->create(object, options, err);
    if (!ret) {
        ret = options_check_all_used(options, name, err);
        if (ret)
            type->destroy(object);
    }
    if (ret) {
        free(object);
        return ret;
    }
    object->next = registry->objects;
    registry->objects = object;
    return 0;
}

int object_add(struct object_registry *registry, const char *option, struct error *err)
{
    struct option_list options;
    int ret;

    if (option[0] == '{')
        return error_set(err, EINVAL, "the JSON form is not there yet; use TYPE,id=ID,...");
    ret = options_parse(&options, option, "qom-type", err);
    if (ret)
        return ret;
    ret = add_parsed(registry, &options, err);
    options_free(&options);
    return ret;
}

/* Is `name` one of the words of `types`, which are separated by '|'? */
static bool is_one_of(const char *name, const char *types)
{
    size_t length = strlen(name);

    for (const char *at = types; at; at = strchr(at, '|')) {
        at += *at == '|';
        if (!strncmp(at, name, length) && (at[length] == '\0' || at[length] == '|'))
            return true;
    }
    return false;
}

void *object_find(struct object_registry *registry, const char *id, const char *types, struct error *err)
{
    struct object *object = registry ? find(registry, id) : NULL;

    if (!object) {
        error_set(err, ENODEV, "there is no object '%s'", id);
        return NULL;
    }
    if (!is_one_of(object->type->name, types)) {
        error_set(err, EINVAL, "object '%s' is a %s, this needs %s", id, object->type->name, types);
        return NULL;
    }
    return object->value;
}

/* ---- I/O threads ---- */

struct io_thread *object_default_io_thread(struct object_registry *registry, struct error *err)
{
    if (!registry->default_thread)
        registry->default_thread = io_thread_create("default", registry->loop, err);
    return registry->default_thread;
}

static int iothread_create(struct object *object, struct option_list *options, struct error *err)
{
    (void)options;
    object->value = io_thread_create(object->id, object->loop, err);
    return object->value ? 0 : -EAGAIN;
}

static void iothread_destroy(struct object *object)
{
    io_thread_destroy(object->value);
}

const struct object_type iothread_object_type = {
    .name = "iothread",
    .properties = "id=<str>",
    .create = iothread_create,
    .destroy = iothread_destroy,
};
