/* Saving and restoring what all virtio devices have. A device is saved at rest: nothing is under way, so a queue is its
 * registers and two positions. What is loaded is not trusted: it has to be what a driver could have set. */
#include <errno.h>
#include <string.h>

#include "devices/virtio/virtio_internal.h"

#define WRAP_BIT (1u << 31)

static void save_queue(struct virtqueue *queue, struct virtio_saved_queue *saved)
{
    virtqueue_lock(queue);
    *saved = (struct virtio_saved_queue){
        .desc = queue->registers.desc,
        .driver = queue->registers.driver,
        .device = queue->registers.device,
        .next_avail = queue->next_avail | (queue->avail_wrap ? WRAP_BIT : 0),
        .next_used = queue->next_used | (queue->used_wrap ? WRAP_BIT : 0),
        .in_use = queue->in_use,
        .size = queue->registers.size,
        .vector = queue->registers.vector,
        .enabled = queue->registers.enabled,
        .legacy = queue->legacy_layout,
    };
    virtqueue_unlock(queue);
}

void virtio_pre_save(struct virtio_device *vdev)
{
    for (unsigned i = 0; i < vdev->queue_count; i++)
        virtqueue_stop(&vdev->queues[i], true);
    if (vdev->class->drain)
        vdev->class->drain(vdev, NULL);
    memset(vdev->saved_queues, 0, sizeof(vdev->saved_queues));
    for (unsigned i = 0; i < vdev->queue_count; i++) {
        save_queue(&vdev->queues[i], &vdev->saved_queues[i]);
        virtqueue_stop(&vdev->queues[i], false);
        if (vdev->queues[i].registers.enabled)
            virtqueue_kick(&vdev->queues[i]);
    }
}

static bool load_queue(struct virtqueue *queue, const struct virtio_saved_queue *saved)
{
    bool packed = virtio_has(queue->vdev, VIRTIO_F_RING_PACKED);
    uint16_t avail = (uint16_t)saved->next_avail, used = (uint16_t)saved->next_used;

    if (saved->size == 0 || saved->size > queue->max_size || saved->in_use > saved->size ||
        (!packed && saved->enabled && (saved->size & (saved->size - 1))) ||
        (packed && (avail >= saved->size || used >= saved->size)))
        return false;
    virtqueue_lock(queue);
    virtqueue_restart(queue);
    queue->registers = (struct virtqueue_registers){
        .desc = saved->desc,
        .driver = saved->driver,
        .device = saved->device,
        .size = saved->size,
        .vector = saved->vector,
        .enabled = saved->enabled != 0,
    };
    queue->legacy_layout = saved->legacy != 0;
    queue->next_avail = queue->avail_seen = avail;
    queue->next_used = used;
    queue->avail_wrap = saved->next_avail & WRAP_BIT;
    queue->used_wrap = saved->next_used & WRAP_BIT;
    queue->in_use = saved->in_use;
    virtqueue_unlock(queue);
    return true;
}

int virtio_post_load(struct virtio_device *vdev, struct error *err)
{
    uint8_t raw;

    memcpy(&raw, &vdev->broken, 1);
    atomic_store(&vdev->broken, raw != 0);
    device_load_bool(&vdev->legacy);
    vdev->guest_features &= vdev->host_features;
    vdev->isr &= 3;
    for (unsigned i = 0; i < vdev->queue_count; i++)
        virtqueue_stop(&vdev->queues[i], true);
    if (vdev->class->drain)
        vdev->class->drain(vdev, NULL);
    for (unsigned i = 0; i < vdev->queue_count; i++) {
        if (!load_queue(&vdev->queues[i], &vdev->saved_queues[i]))
            return error_set(err, EINVAL, "%s: queue %u of the saved state is impossible", vdev->device->id, i);
    }
    for (unsigned i = 0; i < vdev->queue_count; i++) {
        virtqueue_stop(&vdev->queues[i], false);
        if (vdev->queues[i].registers.enabled)
            virtqueue_kick(&vdev->queues[i]);
    }
    return 0;
}
