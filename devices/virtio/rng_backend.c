/* See rng_backend.h. The names are QEMU's. */
#include "devices/virtio/rng_backend.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "devices/core/object.h"

#define RNG_DEFAULT_FILE "/dev/urandom"

struct rng_backend {
    int fd; /* -1: getrandom() */
};

struct rng_backend *rng_backend_builtin(void)
{
    static struct rng_backend builtin = { .fd = -1 }; /* never written to */

    return &builtin;
}

int rng_backend_fd(const struct rng_backend *backend)
{
    return backend->fd;
}

int rng_backend_read(struct rng_backend *backend, void *buffer, unsigned size)
{
    ssize_t got;

    do {
        got = backend->fd < 0 ? getrandom(buffer, size, 0) : read(backend->fd, buffer, size);
    } while (got < 0 && errno == EINTR);
    return got < 0 ? -errno : got == 0 ? -EPIPE : (int)got;
}

static int random_create(struct object *object, struct option_list *options, struct error *err)
{
    const char *file = options_get(options, "filename");
    struct rng_backend *backend = malloc(sizeof(*backend));

    if (!backend)
        return error_set(err, ENOMEM, "out of memory");
    file = file ? file : RNG_DEFAULT_FILE;
    backend->fd = open(file, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    if (backend->fd < 0) {
        free(backend);
        return error_set(err, errno, "cannot open %s: %s", file, strerror(errno));
    }
    object->value = backend;
    return 0;
}

static void random_destroy(struct object *object)
{
    struct rng_backend *backend = object->value;

    close(backend->fd);
    free(backend);
}

static int builtin_create(struct object *object, struct option_list *options, struct error *err)
{
    (void)options;
    (void)err;
    object->value = rng_backend_builtin();
    return 0;
}

static void builtin_destroy(struct object *object)
{
    (void)object;
}

extern const struct object_type rng_random_object_type, rng_builtin_object_type;
const struct object_type rng_random_object_type = {
    .name = "rng-random",
    .properties = "id=<str>,filename=<str>",
    .create = random_create,
    .destroy = random_destroy,
};
const struct object_type rng_builtin_object_type = {
    .name = "rng-builtin",
    .properties = "id=<str>",
    .create = builtin_create,
    .destroy = builtin_destroy,
};
