/* The modern interface of virtio over PCI (virtio 1.2, section 4.1.4): structures in BAR 4, found through vendor capabilities.
 *
 *   0000 common configuration   +00 device_feature_select 4   +14 device_status 1       +1c queue_enable 2
 *                               +04 device_feature 4          +15 config_generation 1   +1e queue_notify_off 2
 *                               +08 driver_feature_select 4   +16 queue_select 2        +20 queue_desc 8
 *                               +0c driver_feature 4          +18 queue_size 2          +28 queue_driver 8
 *                               +10 config_msix_vector 2      +1a queue_msix_vector 2   +30 queue_device 8
 *                               +12 num_queues 2                                        +3a queue_reset 2
 *   1000 interrupt status, 1 byte; reading clears it
 *   2000 device configuration
 *   3000 notification, 4 bytes a queue: written without the device lock, see notify()
 *
 * A field is read and written with its own width, the 8-byte ones in halves (4.1.3.1); what is not a field reads 0. */
#include "devices/virtio/virtio_pci_internal.h"

#include <errno.h>

enum {
    COMMON_DEVICE_FEATURE_SELECT = 0x00,
    COMMON_DEVICE_FEATURE = 0x04,
    COMMON_DRIVER_FEATURE_SELECT = 0x08,
    COMMON_DRIVER_FEATURE = 0x0c,
    COMMON_CONFIG_VECTOR = 0x10,
    COMMON_NUM_QUEUES = 0x12,
    COMMON_STATUS = 0x14,
    COMMON_GENERATION = 0x15,
    COMMON_QUEUE_SELECT = 0x16,
    COMMON_QUEUE_SIZE = 0x18,
    COMMON_QUEUE_VECTOR = 0x1a,
    COMMON_QUEUE_ENABLE = 0x1c,
    COMMON_QUEUE_NOTIFY_OFF = 0x1e,
    COMMON_QUEUE_DESC = 0x20,
    COMMON_QUEUE_DRIVER = 0x28,
    COMMON_QUEUE_DEVICE = 0x30,
    COMMON_QUEUE_RESET = 0x3a,
};
enum { CAP_COMMON = 1, CAP_NOTIFY = 2, CAP_ISR = 3, CAP_DEVICE = 4, CAP_PCI_CFG = 5 };
/* struct virtio_pci_cap, 4.1.4 */
enum { CAP_LENGTH = 2, CAP_TYPE = 3, CAP_BAR = 4, CAP_OFFSET = 8, CAP_SIZE = 12, CAP_EXTRA = 16 };

/* ---- Common configuration ---- */

static uint64_t queue_field(struct virtio_pci *virtio, uint64_t offset)
{
    const struct virtqueue *queue = virtio_pci_selected(virtio);
    const struct virtqueue_registers *regs = queue ? virtqueue_registers(queue) : NULL;

    if (!regs)
        return offset == COMMON_QUEUE_VECTOR ? VIRTIO_MSI_NO_VECTOR : 0;
    switch (offset) {
    case COMMON_QUEUE_SIZE:
        return regs->size;
    case COMMON_QUEUE_VECTOR:
        return regs->vector;
    case COMMON_QUEUE_ENABLE:
        return regs->enabled;
    case COMMON_QUEUE_NOTIFY_OFF:
        return virtqueue_number(queue);
    case COMMON_QUEUE_DESC:
        return (uint32_t)regs->desc;
    case COMMON_QUEUE_DESC + 4:
        return regs->desc >> 32;
    case COMMON_QUEUE_DRIVER:
        return (uint32_t)regs->driver;
    case COMMON_QUEUE_DRIVER + 4:
        return regs->driver >> 32;
    case COMMON_QUEUE_DEVICE:
        return (uint32_t)regs->device;
    case COMMON_QUEUE_DEVICE + 4:
        return regs->device >> 32;
    default:
        return 0; /* queue_reset among them: a reset is over when the write of it returns */
    }
}

static uint64_t common_read(struct virtio_pci *virtio, uint64_t offset)
{
    struct virtio_device *vdev = &virtio->vdev;

    switch (offset) {
    case COMMON_DEVICE_FEATURE_SELECT:
        return virtio->device_feature_select;
    case COMMON_DEVICE_FEATURE:
        return virtio->device_feature_select < 2 ? (uint32_t)(vdev->host_features >> 32 * virtio->device_feature_select)
                                                 : 0;
    case COMMON_DRIVER_FEATURE_SELECT:
        return virtio->driver_feature_select;
    case COMMON_DRIVER_FEATURE:
        return virtio->driver_feature_select < 2
                   ? (uint32_t)(vdev->guest_features >> 32 * virtio->driver_feature_select)
                   : 0;
    case COMMON_CONFIG_VECTOR:
        return vdev->config_vector;
    case COMMON_NUM_QUEUES:
        return vdev->queue_count;
    case COMMON_STATUS:
        return virtio_status_read(vdev);
    case COMMON_GENERATION:
        return vdev->config_generation;
    case COMMON_QUEUE_SELECT:
        return virtio->queue_select;
    default:
        return queue_field(virtio, offset);
    }
}

static uint64_t with_half(uint64_t old, bool high, uint64_t value)
{
    return high ? (uint32_t)old | value << 32 : (old & ~0xffffffffull) | (uint32_t)value;
}

static void write_queue_address(struct virtqueue *queue, uint64_t offset, uint64_t value)
{
    struct virtqueue_registers regs = *virtqueue_registers(queue);
    uint64_t *address = offset < COMMON_QUEUE_DRIVER   ? &regs.desc
                        : offset < COMMON_QUEUE_DEVICE ? &regs.driver
                                                       : &regs.device;

    *address = with_half(*address, offset & 4, value);
    virtqueue_set_addresses(queue, regs.desc, regs.driver, regs.device);
}

static void write_queue_field(struct virtio_pci *virtio, uint64_t offset, uint64_t value)
{
    struct virtqueue *queue = virtio_pci_selected(virtio);

    if (!queue)
        return;
    switch (offset) {
    case COMMON_QUEUE_SIZE:
        virtqueue_set_size(queue, (uint16_t)value);
        break;
    case COMMON_QUEUE_VECTOR:
        virtqueue_set_vector(queue, virtio_pci_vector(virtio, (uint16_t)value));
        break;
    case COMMON_QUEUE_ENABLE:
        if (value == 1)
            virtqueue_enable(queue);
        break;
    case COMMON_QUEUE_DESC:
    case COMMON_QUEUE_DESC + 4:
    case COMMON_QUEUE_DRIVER:
    case COMMON_QUEUE_DRIVER + 4:
    case COMMON_QUEUE_DEVICE:
    case COMMON_QUEUE_DEVICE + 4:
        write_queue_address(queue, offset, value);
        break;
    case COMMON_QUEUE_RESET:
        if (value == 1 && virtio_has(&virtio->vdev, VIRTIO_F_RING_RESET))
            virtqueue_reset(queue);
        break;
    default:
        break;
    }
}

static void common_write(struct virtio_pci *virtio, uint64_t offset, uint64_t value)
{
    struct virtio_device *vdev = &virtio->vdev;

    switch (offset) {
    case COMMON_DEVICE_FEATURE_SELECT:
        virtio->device_feature_select = (uint32_t)value;
        break;
    case COMMON_DRIVER_FEATURE_SELECT:
        virtio->driver_feature_select = (uint32_t)value;
        break;
    case COMMON_DRIVER_FEATURE:
        if (virtio->driver_feature_select < 2)
            virtio_features_write(vdev, virtio->driver_feature_select, (uint32_t)value);
        break;
    case COMMON_CONFIG_VECTOR:
        vdev->config_vector = virtio_pci_vector(virtio, (uint16_t)value);
        break;
    case COMMON_STATUS:
        virtio_status_write(vdev, (uint8_t)value);
        break;
    case COMMON_QUEUE_SELECT:
        virtio->queue_select = (uint16_t)value;
        break;
    default:
        write_queue_field(virtio, offset, value);
    }
}

/* ---- The BAR ---- */

static uint64_t modern_read(void *opaque, uint64_t offset, unsigned size)
{
    struct virtio_pci *virtio = opaque;
    uint64_t inside = offset % MODERN_PART;

    switch (offset - inside) {
    case MODERN_COMMON:
        return common_read(virtio, inside);
    case MODERN_ISR:
        return inside ? 0 : virtio_pci_isr_read(virtio);
    case MODERN_DEVICE:
        return virtio_config_read(&virtio->vdev, (unsigned)inside, size);
    default:
        return 0;
    }
}

/* Also on the vCPU's thread without the device lock: touches only what lives as long as the BAR is mapped. */
static bool notify(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
    struct virtio_pci *virtio = opaque;
    struct virtqueue *queue;

    (void)size;
    (void)value; /* the queue's number once more */
    if (offset < MODERN_NOTIFY)
        return false;
    queue = virtio_queue(&virtio->vdev, (unsigned)(offset - MODERN_NOTIFY) / NOTIFY_MULTIPLIER);
    if (queue)
        virtqueue_kick(queue);
    return true;
}

static void modern_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
    struct virtio_pci *virtio = opaque;
    uint64_t inside = offset % MODERN_PART;

    switch (offset - inside) {
    case MODERN_COMMON:
        common_write(virtio, inside, value);
        break;
    case MODERN_DEVICE:
        virtio_config_write(&virtio->vdev, (unsigned)inside, size, (uint32_t)value);
        break;
    case MODERN_NOTIFY:
        notify(virtio, offset, size, value);
        break;
    default:
        break;
    }
}

const struct io_ops virtio_pci_modern_ops = {
    .read = modern_read,
    .write = modern_write,
    .min_size = 1,
    .max_size = 4,
    .write_unlocked = notify,
};

/* ---- Capabilities ---- */

static int add_capability(struct virtio_pci *virtio, uint8_t type, uint32_t offset, uint32_t size, unsigned extra,
                          struct error *err)
{
    struct pci_device *pci = &virtio->pci;
    int at = pci_capability_add(pci, PCI_CAP_VENDOR, CAP_EXTRA + extra, err);

    if (at < 0)
        return at;
    pci->config[at + CAP_LENGTH] = (uint8_t)(CAP_EXTRA + extra);
    pci->config[at + CAP_TYPE] = type;
    pci->config[at + CAP_BAR] = type == CAP_PCI_CFG ? 0 : MODERN_BAR;
    pci_set_long(pci->config + at + CAP_OFFSET, offset);
    pci_set_long(pci->config + at + CAP_SIZE, size);
    return at;
}

int virtio_pci_add_capabilities(struct virtio_pci *virtio, struct error *err)
{
    struct pci_device *pci = &virtio->pci;
    int common, isr, device, notification, access;

    if ((common = add_capability(virtio, CAP_COMMON, MODERN_COMMON, MODERN_PART, 0, err)) < 0 ||
        (isr = add_capability(virtio, CAP_ISR, MODERN_ISR, MODERN_PART, 0, err)) < 0 ||
        (device = add_capability(virtio, CAP_DEVICE, MODERN_DEVICE, MODERN_PART, 0, err)) < 0 ||
        (notification = add_capability(virtio, CAP_NOTIFY, MODERN_NOTIFY, MODERN_PART, 4, err)) < 0 ||
        (access = add_capability(virtio, CAP_PCI_CFG, 0, 0, 4, err)) < 0)
        return -ENOSPC;
    pci_set_long(pci->config + notification + CAP_EXTRA, NOTIFY_MULTIPLIER);
    pci->write_mask[access + CAP_BAR] = 0xff;
    pci_set_long(pci->write_mask + access + CAP_OFFSET, 0xffffffff);
    pci_set_long(pci->write_mask + access + CAP_SIZE, 0xffffffff);
    pci_set_long(pci->write_mask + access + CAP_EXTRA, 0xffffffff);
    virtio->config_access = (uint8_t)access;
    return 0;
}

/* Where the capability for access through configuration space points: false: nowhere (4.1.4.9.1). */
static bool access_window(const struct virtio_pci *virtio, uint32_t *offset, uint32_t *size)
{
    const uint8_t *capability = virtio->pci.config + virtio->config_access;

    *offset = pci_get_long(capability + CAP_OFFSET);
    *size = pci_get_long(capability + CAP_SIZE);
    return capability[CAP_BAR] == MODERN_BAR && (*size == 1 || *size == 2 || *size == 4) && *offset % *size == 0 &&
           *offset <= MODERN_SIZE - *size;
}

static bool touches_window(const struct virtio_pci *virtio, unsigned offset, unsigned size)
{
    unsigned data = virtio->config_access + CAP_EXTRA;

    return virtio->config_access && offset < data + 4 && offset + size > data;
}

void virtio_pci_config_reading(struct pci_device *pci, unsigned offset, unsigned size)
{
    struct virtio_pci *virtio = container_of(pci, struct virtio_pci, pci);
    uint32_t at, width;

    if (touches_window(virtio, offset, size) && access_window(virtio, &at, &width))
        pci_set_long(pci->config + virtio->config_access + CAP_EXTRA,
                     (uint32_t)io_ops_read(&virtio_pci_modern_ops, virtio, at, width));
}

void virtio_pci_config_access(struct virtio_pci *virtio, unsigned offset, unsigned size)
{
    uint32_t at, width;

    if (touches_window(virtio, offset, size) && access_window(virtio, &at, &width))
        io_ops_write(&virtio_pci_modern_ops, virtio, at, width,
                     pci_get_long(virtio->pci.config + virtio->config_access + CAP_EXTRA));
}
