/* The ringbuf back end: keeps the latest output, for a monitor to read. Device lock held. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "devices/char/chardev_internal.h"

#define DEFAULT_SIZE 65536u
#define MAX_SIZE     (64 * MIB)

struct ringbuf {
    uint64_t size;          /* a power of two */
    uint64_t written, read; /* bytes ever */
    uint8_t data[];
};

static size_t write_ringbuf(struct chardev *chardev, const uint8_t *data, size_t size)
{
    struct ringbuf *ring = chardev->private_data;

    for (size_t i = 0; i < size; i++)
        ring->data[ring->written++ & (ring->size - 1)] = data[i];
    if (ring->written - ring->read > ring->size)
        ring->read = ring->written - ring->size; /* the oldest are gone */
    return size;
}

static int open_ringbuf(struct chardev *chardev, struct option_list *options, struct error *err)
{
    uint64_t size;
    int result = options_get_size(options, "size", 1, DEFAULT_SIZE, &size, err);

    if (result)
        return result;
    if (!size || (size & (size - 1)) || size > MAX_SIZE)
        return error_set(err, EINVAL, "size=%llu: a power of two up to 64M is needed", (unsigned long long)size);
    struct ringbuf *ring = malloc(sizeof(*ring) + size);
    if (!ring)
        return error_set(err, ENOMEM, "out of memory");
    *ring = (struct ringbuf){ .size = size };
    chardev->private_data = ring;
    chardev_set_open(chardev, true);
    return 0;
}

static void close_ringbuf(struct chardev *chardev)
{
    free(chardev->private_data);
}

extern const struct chardev_backend chardev_backend_ringbuf;
const struct chardev_backend chardev_backend_ringbuf = {
    .name = "ringbuf",
    .alias = "memory",
    .open = open_ringbuf,
    .close = close_ringbuf,
    .write = write_ringbuf,
};

int64_t chardev_ringbuf_read(struct chardev *chardev, uint8_t *data, size_t size)
{
    struct ringbuf *ring = chardev->private_data;

    if (chardev->backend != &chardev_backend_ringbuf)
        return -EINVAL;
    size = MIN(size, ring->written - ring->read);
    for (size_t i = 0; i < size; i++)
        data[i] = ring->data[ring->read++ & (ring->size - 1)];
    return (int64_t)size;
}
