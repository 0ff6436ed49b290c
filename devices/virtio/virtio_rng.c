/* virtio-rng: entropy (virtio 1.2, section 5.4). One queue; the device fills what the driver makes available.
 *
 * max-bytes= per period= (milliseconds) limits how much the guest takes from the host's source. A chain is filled as far as one read
 * goes; an empty source or a used-up quota leaves the chain in the queue until there is more. All on the main loop,
 * device lock held. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "devices/core/object.h"
#include "devices/virtio/rng_backend.h"
#include "devices/virtio/virtio_pci.h"

#define RNG_QUEUE_SIZE     8
#define RNG_READ_MAX       4096u /* of one chain: bounds the time that a turn takes */
#define RNG_DEFAULT_PERIOD 65536u

struct virtio_rng {
    struct virtio_pci virtio;
    struct virtqueue *queue;
    struct virtqueue_element element;
    struct rng_backend *backend;
    struct fd_watch *watch; /* of a source that had nothing; NULL: it had */
    uint64_t max_bytes, period_ms;
    uint64_t quota; /* bytes left in this period */
    uint64_t period_end_ns;
    struct timer timer; /* armed: waits for the next period */
};

static struct virtio_rng *rng_of(struct virtio_device *vdev)
{
    return container_of(vdev, struct virtio_rng, virtio.vdev);
}

static uint64_t now_ns(struct virtio_rng *rng)
{
    return clock_now_ns(rng->virtio.pci.device.env->clock);
}

static void renew_quota(struct virtio_rng *rng)
{
    uint64_t now = now_ns(rng);

    if (now < rng->period_end_ns)
        return;
    rng->quota = rng->max_bytes;
    rng->period_end_ns = now + rng->period_ms * 1000000;
}

static void source_ready(void *opaque, unsigned ready)
{
    struct virtio_rng *rng = opaque;

    (void)ready;
    fd_watch_remove(rng->watch);
    rng->watch = NULL;
    virtqueue_kick(rng->queue);
}

/* Bytes that went into the element; 0: it has to wait. */
static uint32_t fill(struct virtio_rng *rng)
{
    uint8_t buffer[RNG_READ_MAX];
    uint64_t room = MIN(rng->element.writable.size, sizeof(buffer));
    int got;

    renew_quota(rng);
    if (!rng->quota) {
        timer_arm(&rng->timer, rng->period_end_ns);
        return 0;
    }
    got = rng_backend_read(rng->backend, buffer, (unsigned)MIN(room, rng->quota));
    if (got == -EAGAIN && !rng->watch)
        rng->watch = fd_watch_add(rng->virtio.pci.device.env->loop, rng_backend_fd(rng->backend), FD_READABLE,
                                  source_ready, rng, NULL);
    if (got < 0) {
        if (got != -EAGAIN)
            log_warn("%s: no more random bytes: %s", rng->virtio.pci.device.id, strerror(-got));
        return 0;
    }
    rng->quota -= (uint64_t)got;
    dma_list_copy_to(&rng->element.writable, 0, buffer, (uint64_t)got);
    return (uint32_t)got;
}

static void rng_kicked(struct virtqueue *queue)
{
    struct virtio_rng *rng = rng_of(virtqueue_device(queue));

    while (!rng->watch && !timer_armed(&rng->timer) && virtqueue_pop(queue, &rng->element)) {
        uint32_t written = 0;

        if (rng->element.writable.size) {
            written = fill(rng);
            if (!written) {
                virtqueue_unpop(queue, &rng->element);
                break;
            }
        }
        virtqueue_push(queue, &rng->element, written);
    }
    virtqueue_notify(queue);
}

static void period_over(void *opaque)
{
    virtqueue_kick(((struct virtio_rng *)opaque)->queue);
}

static void rng_reset(struct virtio_device *vdev)
{
    struct virtio_rng *rng = rng_of(vdev);

    fd_watch_remove(rng->watch);
    rng->watch = NULL;
    timer_disarm(&rng->timer);
}

static const struct virtio_class rng_class = { .name = "virtio-rng", .device_id = 4, .reset = rng_reset };
static const struct virtio_pci_config rng_pci = { .class_code = 0x00ff00, .transitional_id = 0x1005, .vectors = 2 };

/* ---- Life ---- */

static int read_properties(struct virtio_rng *rng, struct option_list *options, struct error *err)
{
    const char *id = options_get(options, "rng");
    int ret;

    rng->backend = rng_backend_builtin();
    if (id) {
        rng->backend = object_find(rng->virtio.pci.device.env->objects, id, "rng-random|rng-builtin", err);
        if (!rng->backend)
            return -ENODEV;
    }
    if ((ret = options_get_u64(options, "max-bytes", INT64_MAX, &rng->max_bytes, err)) ||
        (ret = options_get_u64(options, "period", RNG_DEFAULT_PERIOD, &rng->period_ms, err)))
        return ret;
    if (rng->period_ms == 0 || rng->period_ms > UINT32_MAX)
        return error_set(err, EINVAL, "period=: milliseconds, more than 0");
    if (rng->max_bytes == 0 || rng->max_bytes > INT64_MAX)
        return error_set(err, EINVAL, "max-bytes=: more than 0");
    return 0;
}

static int rng_init(struct device *device, struct option_list *options, struct error *err)
{
    struct virtio_rng *rng = (struct virtio_rng *)device;
    int ret = read_properties(rng, options, err);

    if (ret)
        return ret;
    timer_init(&rng->timer, device->env->loop, period_over, rng);
    ret = virtio_pci_begin(&rng->virtio, &rng_class, options, err);
    if (!ret) {
        rng->queue = virtio_add_queue(&rng->virtio.vdev, RNG_QUEUE_SIZE, rng_kicked, 0, err);
        ret = rng->queue ? virtio_pci_attach(&rng->virtio, &rng_pci, options, err) : -ENOMEM;
    }
    if (ret) {
        virtio_pci_destroy(device);
        return ret;
    }
    virtqueue_element_init(&rng->element, rng->queue);
    return 0;
}

static void rng_destroy(struct device *device)
{
    struct virtio_rng *rng = (struct virtio_rng *)device;

    virtio_pci_destroy(device);
    virtqueue_element_free(&rng->element);
}

static const struct state_field rng_fields[] = {
    VIRTIO_PCI_STATE(struct virtio_rng, virtio),
    STATE_FIELD(struct virtio_rng, quota),
    STATE_FIELD(struct virtio_rng, period_end_ns),
    STATE_END,
};

static int rng_post_load(void *owner, struct error *err)
{
    struct virtio_rng *rng = owner;

    rng_reset(&rng->virtio.vdev);
    rng->quota = MIN(rng->quota, rng->max_bytes);
    rng->period_end_ns = MIN(rng->period_end_ns, now_ns(rng) + rng->period_ms * 1000000);
    return virtio_pci_post_load(owner, err);
}

static const struct state_table rng_state = {
    .name = "virtio-rng",
    .version = 1,
    .fields = rng_fields,
    .pre_save = virtio_pci_pre_save,
    .post_load = rng_post_load,
};

VIRTIO_PCI_TYPES(virtio_rng, "virtio-rng", .size = sizeof(struct virtio_rng), .init = rng_init,
                 .reset = virtio_pci_reset, .destroy = rng_destroy, .state = &rng_state,
                 .description = "random number generator",
                 .properties = "rng=<id>,max-bytes=<uint64>,period=<uint32>," VIRTIO_PCI_PROPERTIES);
