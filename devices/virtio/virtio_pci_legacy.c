/* The legacy interface of virtio over PCI (virtio 1.2, section 4.1.4.8): I/O BAR 0.
 *
 *   0 device features 4 | 4 driver features 4 | 8 queue page 4 | 12 queue size 2 | 14 queue select 2 | 16 notify 2
 *   18 status 1 | 19 interrupt status 1 | with MSI-X enabled: 20 configuration vector 2 | 22 queue vector 2
 *   then the device configuration, at 20 or 24
 *
 * Byte order is the guest's, which here is little-endian as well. */
#include "devices/virtio/virtio_pci_internal.h"

enum {
    LEGACY_DEVICE_FEATURES = 0,
    LEGACY_DRIVER_FEATURES = 4,
    LEGACY_QUEUE_PAGE = 8,
    LEGACY_QUEUE_SIZE = 12,
    LEGACY_QUEUE_SELECT = 14,
    LEGACY_NOTIFY = 16,
    LEGACY_STATUS = 18,
    LEGACY_ISR = 19,
    LEGACY_CONFIG_VECTOR = 20,
    LEGACY_QUEUE_VECTOR = 22,
    LEGACY_CONFIG = 20,
    LEGACY_CONFIG_MSIX = 24,
};

uint64_t virtio_pci_legacy_size(const struct virtio_pci *virtio)
{
    uint64_t size = 32;

    while (size < LEGACY_CONFIG_MSIX + virtio->vdev.config_size)
        size *= 2;
    return size;
}

static unsigned config_start(const struct virtio_pci *virtio)
{
    return pci_msix_enabled(&virtio->pci) ? LEGACY_CONFIG_MSIX : LEGACY_CONFIG;
}

static uint64_t legacy_read(void *opaque, uint64_t offset, unsigned size)
{
    struct virtio_pci *virtio = opaque;
    struct virtio_device *vdev = &virtio->vdev;
    struct virtqueue *queue = virtio_pci_selected(virtio);

    if (offset >= config_start(virtio))
        return virtio_config_read(vdev, (unsigned)offset - config_start(virtio), size);
    switch (offset) {
    case LEGACY_DEVICE_FEATURES:
        return (uint32_t)vdev->host_features;
    case LEGACY_DRIVER_FEATURES:
        return (uint32_t)vdev->guest_features;
    case LEGACY_QUEUE_PAGE:
        return queue ? virtqueue_legacy_page(queue) : 0;
    case LEGACY_QUEUE_SIZE:
        return queue ? virtqueue_size(queue) : 0;
    case LEGACY_QUEUE_SELECT:
        return virtio->queue_select;
    case LEGACY_STATUS:
        return virtio_status_read(vdev);
    case LEGACY_ISR:
        return virtio_pci_isr_read(virtio);
    case LEGACY_CONFIG_VECTOR:
        return vdev->config_vector;
    case LEGACY_QUEUE_VECTOR:
        return queue ? virtqueue_registers(queue)->vector : VIRTIO_MSI_NO_VECTOR;
    default:
        return 0;
    }
}

static void write_status(struct virtio_pci *virtio, uint8_t value)
{
    struct pci_device *pci = &virtio->pci;

    /* Old drivers that firmware has set up for forget that they need bus mastering. */
    if ((value & VIRTIO_STATUS_DRIVER_OK) && !(pci->config[PCI_COMMAND] & PCI_COMMAND_MASTER))
        pci_device_config_write(pci, PCI_COMMAND, 2, pci_get_word(pci->config + PCI_COMMAND) | PCI_COMMAND_MASTER);
    virtio_status_write(&virtio->vdev, value);
}

static void write_page(struct virtio_pci *virtio, uint32_t page)
{
    struct virtqueue *queue = virtio_pci_selected(virtio);

    if (!page)
        virtio_reset(&virtio->vdev); /* how the oldest drivers do it */
    else if (queue && !virtqueue_registers(queue)->enabled)
        virtqueue_set_legacy_page(queue, page);
}

/* Also on the vCPU's thread without the device lock: touches only what lives as long as the BAR is mapped. */
static bool notify(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
    struct virtio_pci *virtio = opaque;
    struct virtqueue *queue;

    if (offset != LEGACY_NOTIFY || size > 2)
        return false;
    queue = virtio_queue(&virtio->vdev, (unsigned)value & 0xffff);
    if (queue)
        virtqueue_kick(queue);
    return true;
}

static void legacy_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
    struct virtio_pci *virtio = opaque;
    struct virtio_device *vdev = &virtio->vdev;
    struct virtqueue *queue = virtio_pci_selected(virtio);

    if (!vdev->legacy && !(vdev->status & VIRTIO_STATUS_FEATURES_OK))
        vdev->legacy = true; /* until the next reset */
    if (offset >= config_start(virtio)) {
        virtio_config_write(vdev, (unsigned)offset - config_start(virtio), size, (uint32_t)value);
        return;
    }
    switch (offset) {
    case LEGACY_DRIVER_FEATURES:
        virtio_features_write(vdev, 0, (uint32_t)value);
        break;
    case LEGACY_QUEUE_PAGE:
        write_page(virtio, (uint32_t)value);
        break;
    case LEGACY_QUEUE_SELECT:
        virtio->queue_select = (uint16_t)value;
        break;
    case LEGACY_NOTIFY:
        notify(virtio, offset, 2, value);
        break;
    case LEGACY_STATUS:
        write_status(virtio, (uint8_t)value);
        break;
    case LEGACY_CONFIG_VECTOR:
        vdev->config_vector = virtio_pci_vector(virtio, (uint16_t)value);
        break;
    case LEGACY_QUEUE_VECTOR:
        if (queue)
            virtqueue_set_vector(queue, virtio_pci_vector(virtio, (uint16_t)value));
        break;
    default:
        break;
    }
}

const struct io_ops virtio_pci_legacy_ops = {
    .read = legacy_read,
    .write = legacy_write,
    .min_size = 1,
    .max_size = 4,
    .write_unlocked = notify,
};
