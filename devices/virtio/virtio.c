/* Virtio devices: features, status, configuration, reset (virtio 1.2, sections 2.1 to 2.5 and 3). Independent of transport and of
 * device type. Device lock held for everything here.
 *
 * Reset is synchronous: when the driver's write of 0 returns, no request is under way any more. The vCPU waits for that with
 * the device lock held; the I/O threads, which it waits for, know (io_thread_wait). */
#include "devices/virtio/virtio.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "devices/virtio/virtio_internal.h"

static void map_changed(void *opaque)
{
    struct virtio_device *vdev = opaque;

    atomic_fetch_add_explicit(&vdev->map_count, 1, memory_order_release); /* pairs with virtqueue_find_ring */
}

int virtio_device_init(struct virtio_device *vdev, const struct virtio_class *class,
                       const struct virtio_transport *transport, struct device *device, struct error *err)
{
    struct physmem_listener listener = { .map_changed = map_changed, .opaque = vdev };

    *vdev = (struct virtio_device){ .class = class, .transport = transport, .device = device };
    vdev->config_vector = VIRTIO_MSI_NO_VECTOR;
    vdev->queues = calloc(VIRTIO_QUEUES_MAX, sizeof(*vdev->queues));
    if (!vdev->queues)
        return error_set(err, ENOMEM, "no memory for queues");
    physmem_add_listener(device->env->mem, &listener);
    return 0;
}

void virtio_device_destroy(struct virtio_device *vdev)
{
    if (!vdev->queues)
        return;
    physmem_remove_listener(vdev->device->env->mem, vdev);
    for (unsigned i = 0; i < vdev->queue_count; i++)
        virtqueue_destroy(&vdev->queues[i]);
    free(vdev->queues);
    vdev->queues = NULL;
    vdev->queue_count = 0;
}

/* ---- Status ---- */

void virtio_reset(struct virtio_device *vdev)
{
    for (unsigned i = 0; i < vdev->queue_count; i++)
        virtqueue_stop(&vdev->queues[i], true);
    if (vdev->class->drain)
        vdev->class->drain(vdev, NULL);
    for (unsigned i = 0; i < vdev->queue_count; i++) {
        struct virtqueue *queue = &vdev->queues[i];

        if (queue->thread)
            io_thread_cancel(queue->thread, &queue->deferred);
        virtqueue_lock(queue);
        virtqueue_restart(queue);
        virtqueue_unlock(queue);
    }
    if (vdev->class->reset)
        vdev->class->reset(vdev);
    vdev->guest_features = 0;
    vdev->status = 0;
    vdev->isr = 0;
    vdev->config_vector = VIRTIO_MSI_NO_VECTOR;
    vdev->legacy = false;
    atomic_store(&vdev->broken, false);
    for (unsigned i = 0; i < vdev->queue_count; i++)
        virtqueue_stop(&vdev->queues[i], false);
}

uint8_t virtio_status_read(const struct virtio_device *vdev)
{
    bool modern = virtio_has(vdev, VIRTIO_F_VERSION_1);

    return (vdev->status & ~VIRTIO_STATUS_NEEDS_RESET) | (vdev->broken && modern ? VIRTIO_STATUS_NEEDS_RESET : 0);
}

static bool accept_features(struct virtio_device *vdev)
{
    if (vdev->guest_features & ~vdev->host_features) {
        log_event(guest_errors, "%s: features 0x%llx were not offered\n", vdev->device->id,
                  (unsigned long long)(vdev->guest_features & ~vdev->host_features));
        return false;
    }
    if (!vdev->legacy && !virtio_has(vdev, VIRTIO_F_VERSION_1)) {
        log_event(guest_errors, "%s: a driver for the modern interface without VERSION_1\n", vdev->device->id);
        return false;
    }
    return !vdev->class->features_accepted || vdev->class->features_accepted(vdev);
}

static void start(struct virtio_device *vdev)
{
    if (vdev->legacy && !virtio_has(vdev, VIRTIO_F_VERSION_1))
        accept_features(vdev); /* such a driver has no way to be told no; what it took was masked */
    if (vdev->class->started)
        vdev->class->started(vdev);
    for (unsigned i = 0; i < vdev->queue_count; i++) {
        if (vdev->queues[i].registers.enabled)
            virtqueue_kick(&vdev->queues[i]); /* what was added before */
    }
}

void virtio_status_write(struct virtio_device *vdev, uint8_t value)
{
    uint8_t old = vdev->status, kept = old & VIRTIO_STATUS_NEEDS_RESET;

    if (value == 0) {
        virtio_reset(vdev);
        return;
    }
    value &= ~VIRTIO_STATUS_NEEDS_RESET;
    if ((value & ~old & VIRTIO_STATUS_FEATURES_OK) && !accept_features(vdev))
        value &= ~VIRTIO_STATUS_FEATURES_OK;
    if ((value & ~old & VIRTIO_STATUS_DRIVER_OK) && !vdev->legacy && !(value & VIRTIO_STATUS_FEATURES_OK)) {
        log_event(guest_errors, "%s: DRIVER_OK without FEATURES_OK\n", vdev->device->id);
        value &= ~VIRTIO_STATUS_DRIVER_OK;
    }
    vdev->status = value | kept;
    if (value & ~old & VIRTIO_STATUS_DRIVER_OK)
        start(vdev);
}

void virtio_features_write(struct virtio_device *vdev, unsigned word, uint32_t value)
{
    uint64_t mask = 0xffffffffull << 32 * word;
    uint8_t too_late = vdev->legacy ? VIRTIO_STATUS_DRIVER_OK : VIRTIO_STATUS_FEATURES_OK;

    if (vdev->status & too_late) {
        log_event(guest_errors, "%s: features written after they were settled\n", vdev->device->id);
        return;
    }
    for (unsigned i = 0; i < vdev->queue_count; i++) {
        /* The ring's layout depends on them. */
        if (vdev->queues[i].registers.enabled) {
            log_event(guest_errors, "%s: features written with a queue enabled\n", vdev->device->id);
            return;
        }
    }
    if (word > 1) {
        if (value)
            log_event(guest_errors, "%s: feature bits above 63\n", vdev->device->id);
        return;
    }
    vdev->guest_features = (vdev->guest_features & ~mask) | (uint64_t)value << 32 * word;
    if (vdev->legacy)
        vdev->guest_features &= vdev->host_features & 0xffffffff;
}

/* ---- Configuration ---- */

void virtio_config_set(struct virtio_device *vdev, unsigned offset, unsigned size, uint64_t value)
{
    memcpy(vdev->config + offset, &value, size);
}

void virtio_config_changed(struct virtio_device *vdev)
{
    vdev->config_generation++;
    vdev->transport->config_interrupt(vdev);
}

uint32_t virtio_config_read(struct virtio_device *vdev, unsigned offset, unsigned size)
{
    uint32_t value = 0;

    if (offset >= vdev->config_size || size > vdev->config_size - offset)
        return 0xffffffffu >> (32 - 8 * size);
    if (vdev->class->config_update)
        vdev->class->config_update(vdev);
    memcpy(&value, vdev->config + offset, size);
    return value;
}

void virtio_config_write(struct virtio_device *vdev, unsigned offset, unsigned size, uint32_t value)
{
    if (offset >= vdev->config_size || size > vdev->config_size - offset || !vdev->class->config_write)
        return;
    vdev->class->config_write(vdev, offset, size, value);
}
