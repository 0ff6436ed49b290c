/* Shared by virtio_pci.c (the function, capabilities, interrupts) and the two interfaces: virtio_pci_modern.c and
 * virtio_pci_legacy.c. */
#ifndef EIDOLON_DEVICES_VIRTIO_VIRTIO_PCI_INTERNAL_H
#define EIDOLON_DEVICES_VIRTIO_VIRTIO_PCI_INTERNAL_H

#include "devices/virtio/virtio_pci.h"

enum {
    LEGACY_BAR = 0,
    MSIX_BAR = 1,
    MODERN_BAR = 4,
    /* Places in the modern BAR, a page each. */
    MODERN_COMMON = 0x0000,
    MODERN_ISR = 0x1000,
    MODERN_DEVICE = 0x2000,
    MODERN_NOTIFY = 0x3000,
    MODERN_SIZE = 0x4000,
    MODERN_PART = 0x1000,
    NOTIFY_MULTIPLIER = 4,
};

extern const struct io_ops virtio_pci_modern_ops, virtio_pci_legacy_ops;
int virtio_pci_add_capabilities(struct virtio_pci *virtio, struct error *err);
/* Access to the modern BAR through configuration space: the hooks of struct pci_device. */
void virtio_pci_config_reading(struct pci_device *pci, unsigned offset, unsigned size);
void virtio_pci_config_access(struct virtio_pci *virtio, unsigned offset, unsigned size);

uint64_t virtio_pci_legacy_size(const struct virtio_pci *virtio);

/* Reads the interrupt status, which clears it. */
uint8_t virtio_pci_isr_read(struct virtio_pci *virtio);
/* A vector as the driver wrote it: one that exists, or none. */
uint16_t virtio_pci_vector(const struct virtio_pci *virtio, uint16_t value);
/* The selected queue, or NULL. */
static inline struct virtqueue *virtio_pci_selected(struct virtio_pci *virtio)
{
    return virtio_queue(&virtio->vdev, virtio->queue_select);
}

#endif
