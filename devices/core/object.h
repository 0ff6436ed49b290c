/* What -object makes: things that devices refer to by id, of a few types (devices/core/object_types.def). Main thread, or the
 * device lock held. */
#ifndef EIDOLON_DEVICES_CORE_OBJECT_H
#define EIDOLON_DEVICES_CORE_OBJECT_H

#include "base/error.h"
#include "base/event_loop.h"
#include "base/options.h"

struct io_thread;
struct object_registry;

struct object {
    const struct object_type *type;
    struct object *next;
    char id[64];
    /* For the type. */
    struct event_loop *loop;
    void *value; /* what users of the object get */
};

struct object_type {
    const char *name; /* "iothread" */
    const char *properties;
    int (*create)(struct object *object, struct option_list *options, struct error *err); /* sets value */
    void (*destroy)(struct object *object);
};

struct object_registry *object_registry_create(struct event_loop *loop, struct error *err);
/* After the devices and the drives that use the objects. Device lock not held. */
void object_registry_destroy(struct object_registry *registry);
/* The value of one -object; messages do not repeat it. */
int object_add(struct object_registry *registry, const char *option, struct error *err);
void object_list_types(void); /* -object help */
/* The value of the object, which must be of one of these types ("rng-random|rng-builtin"); NULL with err set. */
void *object_find(struct object_registry *registry, const char *id, const char *types, struct error *err);
/* The I/O thread of the devices that were not given one: made by the first call. */
struct io_thread *object_default_io_thread(struct object_registry *registry, struct error *err);

#endif
