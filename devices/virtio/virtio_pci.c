/* Virtio as a PCI function (virtio 1.2, section 4.1): identity, properties, interrupts, state. The registers are in
 * virtio_pci_modern.c and virtio_pci_legacy.c. Device lock held.
 *
 * Identity as in QEMU: with the legacy interface the device id is the transitional one, the subsystem id is the virtio type and the
 * revision is 0; without it, 0x1040 plus the type, and revision 1. */
#include "devices/virtio/virtio_pci_internal.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define VIRTIO_VENDOR           0x1af4
#define VIRTIO_MODERN_DEVICE    0x1040
#define VIRTIO_MODERN_SUBSYSTEM 0x1100

static struct virtio_pci *pci_of(struct virtio_device *vdev)
{
    return container_of(vdev, struct virtio_pci, vdev);
}

/* ---- Interrupts ---- */

static void interrupt(struct virtio_pci *virtio, uint8_t isr_bit, uint16_t vector)
{
    struct virtio_device *vdev = &virtio->vdev;

    vdev->isr |= isr_bit;
    if (pci_msix_enabled(&virtio->pci)) {
        if (vector != VIRTIO_MSI_NO_VECTOR)
            pci_msix_notify(&virtio->pci, vector);
    } else {
        pci_intx_set(&virtio->pci, true);
    }
}

static void queue_interrupt(struct virtio_device *vdev, uint16_t vector)
{
    interrupt(pci_of(vdev), 1, vector);
}

static void config_interrupt(struct virtio_device *vdev)
{
    if (vdev->status & VIRTIO_STATUS_DRIVER_OK)
        interrupt(pci_of(vdev), 2, vdev->config_vector);
}

static const struct virtio_transport pci_transport = {
    .queue_interrupt = queue_interrupt,
    .config_interrupt = config_interrupt,
};

uint8_t virtio_pci_isr_read(struct virtio_pci *virtio)
{
    uint8_t isr = virtio->vdev.isr;

    virtio->vdev.isr = 0;
    pci_intx_set(&virtio->pci, false);
    return isr;
}

uint16_t virtio_pci_vector(const struct virtio_pci *virtio, uint16_t value)
{
    return value < virtio->pci.msix.count ? value : VIRTIO_MSI_NO_VECTOR;
}

/* ---- Properties ---- */

static bool has_suffix(const char *name, const char *suffix)
{
    size_t length = strlen(name), end = strlen(suffix);

    return length > end && !strcmp(name + length - end, suffix);
}

static int choose_interfaces(struct virtio_pci *virtio, struct option_list *options, struct error *err)
{
    const char *name = virtio->pci.device.type->name, *text;
    bool disable_legacy = false, disable_modern = false;
    int ret;

    if (has_suffix(name, "-non-transitional") || has_suffix(name, "-transitional")) {
        virtio->modern = true;
        virtio->legacy = !has_suffix(name, "-non-transitional");
        return 0;
    }
    text = options_get(options, "disable-legacy");
    if (text && strcmp(text, "auto")) { /* auto: a device on the root bus keeps it */
        if ((ret = options_get_bool(options, "disable-legacy", false, &disable_legacy, err)))
            return ret;
    }
    if ((ret = options_get_bool(options, "disable-modern", false, &disable_modern, err)))
        return ret;
    if (disable_legacy && disable_modern)
        return error_set(err, EINVAL, "disable-legacy and disable-modern together leave nothing");
    virtio->legacy = !disable_legacy;
    virtio->modern = !disable_modern;
    return 0;
}

static int common_features(struct virtio_pci *virtio, struct option_list *options, struct error *err)
{
    static const struct {
        const char *name;
        bool fallback;
        uint8_t bit;
    } properties[] = {
        { "indirect_desc", true, VIRTIO_F_INDIRECT_DESC },
        { "event_idx", true, VIRTIO_F_EVENT_IDX },
        { "packed", false, VIRTIO_F_RING_PACKED },
        { "queue_reset", true, VIRTIO_F_RING_RESET },
    };
    uint64_t *features = &virtio->vdev.host_features;

    *features = virtio->legacy ? BIT(VIRTIO_F_NOTIFY_ON_EMPTY) | BIT(VIRTIO_F_ANY_LAYOUT) : 0;
    if (virtio->modern)
        *features |= BIT(VIRTIO_F_VERSION_1);
    for (size_t i = 0; i < ARRAY_SIZE(properties); i++) {
        bool on;
        int ret = options_get_bool(options, properties[i].name, properties[i].fallback, &on, err);

        if (ret)
            return ret;
        if (on && (virtio->modern || properties[i].bit < 32))
            *features |= BIT(properties[i].bit);
    }
    return 0;
}

int virtio_pci_begin(struct virtio_pci *virtio, const struct virtio_class *class, struct option_list *options,
                     struct error *err)
{
    int ret = virtio_device_init(&virtio->vdev, class, &pci_transport, &virtio->pci.device, err);

    ret = ret ?: choose_interfaces(virtio, options, err);
    return ret ?: common_features(virtio, options, err);
}

/* ---- Life ---- */

static void config_written(struct pci_device *pci, unsigned offset, unsigned size)
{
    struct virtio_pci *virtio = container_of(pci, struct virtio_pci, pci);

    /* A function that may not be a bus master cannot look at its queues. */
    if (offset <= PCI_COMMAND && offset + size > PCI_COMMAND && !(pci->config[PCI_COMMAND] & PCI_COMMAND_MASTER))
        virtio->vdev.status &= (uint8_t)~VIRTIO_STATUS_DRIVER_OK;
    virtio_pci_config_access(virtio, offset, size);
}

static int register_bars(struct virtio_pci *virtio, struct error *err)
{
    struct pci_device *pci = &virtio->pci;
    const char *name = virtio->vdev.class->name;
    int ret = 0;

    if (virtio->legacy)
        ret = pci_bar_register(pci, LEGACY_BAR, PCI_BAR_IO, false, virtio_pci_legacy_size(virtio),
                               &virtio_pci_legacy_ops, virtio, name, err);
    if (!ret && virtio->modern)
        ret = pci_bar_register(pci, MODERN_BAR, PCI_BAR_MEM64, true, MODERN_SIZE, &virtio_pci_modern_ops, virtio, name,
                               err);
    if (!ret && virtio->modern)
        ret = virtio_pci_add_capabilities(virtio, err);
    if (!ret && virtio->vectors)
        ret = pci_msix_add(pci, virtio->vectors, MSIX_BAR, err);
    return ret;
}

int virtio_pci_attach(struct virtio_pci *virtio, const struct virtio_pci_config *config, struct option_list *options,
                      struct error *err)
{
    struct pci_device *pci = &virtio->pci;
    uint16_t type = virtio->vdev.class->device_id;
    struct pci_identity identity = {
        .vendor = VIRTIO_VENDOR,
        .device = virtio->legacy ? config->transitional_id : VIRTIO_MODERN_DEVICE + type,
        .revision = virtio->legacy ? 0 : 1,
        .class_code = config->class_code,
        .subsystem_vendor = VIRTIO_VENDOR,
        .subsystem = virtio->legacy ? type : VIRTIO_MODERN_SUBSYSTEM,
    };
    uint64_t vectors;
    int ret = options_get_u64(options, "vectors", config->vectors, &vectors, err);

    if (ret)
        return ret;
    if (vectors > VIRTIO_PCI_MSIX_MAX)
        return error_set(err, EINVAL, "vectors=%llu: at most %u", (unsigned long long)vectors, VIRTIO_PCI_MSIX_MAX);
    if (virtio->legacy && !config->transitional_id)
        return error_set(err, EINVAL, "%s has no legacy interface", virtio->vdev.class->name);
    virtio->vectors = (unsigned)vectors;
    ret = pci_device_attach_option(pci, options, &identity, err);
    if (ret)
        return ret;
    pci_set_interrupt_pin(pci, 1);
    pci->config_written = config_written;
    pci->config_reading = virtio_pci_config_reading;
    ret = register_bars(virtio, err);
    if (!ret)
        pci_device_seal(pci);
    return ret;
}

void virtio_pci_reset(struct device *device)
{
    struct virtio_pci *virtio = (struct virtio_pci *)device;

    virtio_reset(&virtio->vdev);
    virtio->device_feature_select = virtio->driver_feature_select = virtio->queue_select = 0;
    pci_device_reset(&virtio->pci);
}

void virtio_pci_destroy(struct device *device)
{
    struct virtio_pci *virtio = (struct virtio_pci *)device;
    struct event_loop *loop = device->env->loop;

    event_loop_lock(loop); /* the end of the program does not hold it, and I/O threads still run */
    pci_device_detach(&virtio->pci); /* no vCPU is in a doorbell after this */
    if (virtio->vdev.queues)
        virtio_reset(&virtio->vdev);
    virtio_device_destroy(&virtio->vdev);
    event_loop_unlock(loop);
}

/* ---- State ---- */

void virtio_pci_pre_save(void *owner)
{
    struct virtio_pci *virtio = owner;
    const struct pci_msix *msix = &virtio->pci.msix;

    virtio_pre_save(&virtio->vdev);
    memset(virtio->saved_msix, 0, sizeof(virtio->saved_msix));
    memset(virtio->saved_pending, 0, sizeof(virtio->saved_pending));
    if (msix->count) {
        memcpy(virtio->saved_msix, msix->entries, msix->count * sizeof(*msix->entries));
        memcpy(virtio->saved_pending, msix->pending, (msix->count + 63) / 64 * sizeof(*msix->pending));
    }
}

int virtio_pci_post_load(void *owner, struct error *err)
{
    struct virtio_pci *virtio = owner;
    struct pci_device *pci = &virtio->pci;
    struct pci_msix *msix = &pci->msix;
    int ret;

    for (unsigned i = 0; i < PCIE_CONFIG_SIZE; i++)
        pci->config[i] = (pci->initial[i] & ~pci->write_mask[i]) | (pci->config[i] & pci->write_mask[i]);
    device_load_bool(&pci->intx_asserted);
    if (msix->count) {
        memcpy(msix->entries, virtio->saved_msix, msix->count * sizeof(*msix->entries));
        memcpy(msix->pending, virtio->saved_pending, (msix->count + 63) / 64 * sizeof(*msix->pending));
    }
    virtio->vdev.config_vector = virtio_pci_vector(virtio, virtio->vdev.config_vector);
    for (unsigned i = 0; i < virtio->vdev.queue_count; i++)
        virtio->vdev.saved_queues[i].vector = virtio_pci_vector(virtio, virtio->vdev.saved_queues[i].vector);
    ret = virtio_post_load(&virtio->vdev, err);
    /* Maps the BARs and drives INTx: what the registers say is made true. */
    pci_device_config_write(pci, PCI_COMMAND, 2, pci_get_word(pci->config + PCI_COMMAND));
    return ret;
}
