/* Virtio over PCI (virtio 1.2 section 4.1): the modern interface (capabilities in a memory BAR), the legacy one (an I/O BAR), or
 * both ("transitional"); MSI-X with a vector for the configuration and for each queue, or INTx.
 *
 * A device's type is made three times by VIRTIO_PCI_TYPES: NAME-pci (transitional on the root bus, unless
 * disable-legacy= or disable-modern= say otherwise), NAME-pci-transitional and NAME-pci-non-transitional. */
#ifndef EIDOLON_DEVICES_VIRTIO_VIRTIO_PCI_H
#define EIDOLON_DEVICES_VIRTIO_VIRTIO_PCI_H

#include "devices/pci/pci.h"
#include "devices/virtio/virtio.h"

#define VIRTIO_PCI_MSIX_MAX (VIRTIO_QUEUES_MAX + 1)

struct virtio_pci_config {
    uint32_t class_code;      /* 0x010000: as QEMU's device of that name has it */
    uint16_t transitional_id; /* 0x1001; 0: there is no transitional form */
    unsigned vectors;         /* default of vectors=; 0: no MSI-X */
};

struct virtio_pci {
    struct pci_device pci; /* first */
    struct virtio_device vdev;
    bool legacy, modern; /* which interfaces are there */
    unsigned vectors;
    uint8_t config_access; /* offset of the capability for access through configuration space */
    /* Registers of the common structure. */
    uint32_t device_feature_select, driver_feature_select;
    uint16_t queue_select;
    /* For the state table. */
    struct pci_msix_entry saved_msix[VIRTIO_PCI_MSIX_MAX];
    uint64_t saved_pending[(VIRTIO_PCI_MSIX_MAX + 63) / 64];
};

/* First step of init: reads disable-legacy, disable-modern, vectors, indirect_desc, event_idx, packed, queue_reset. */
int virtio_pci_begin(struct virtio_pci *virtio, const struct virtio_class *class, struct option_list *options,
                     struct error *err);
/* Last step: after this the guest sees the device. On error from here or between: virtio_pci_destroy(). */
int virtio_pci_attach(struct virtio_pci *virtio, const struct virtio_pci_config *config, struct option_list *options,
                      struct error *err);
/* The device type's reset and destroy, or called by them. */
void virtio_pci_reset(struct device *device);
void virtio_pci_destroy(struct device *device);

/* State: VIRTIO_PCI_STATE(struct foo, pci) in the device's field list, and these in (or as) its hooks, where struct
 * virtio_pci is the first member. */
void virtio_pci_pre_save(void *owner);
int virtio_pci_post_load(void *owner, struct error *err);
/* clang-format off */
#define VIRTIO_PCI_STATE(type, member)                                                                                 \
    STATE_ARRAY(type, member.pci.config), STATE_FIELD(type, member.pci.intx_asserted),                                 \
    STATE_FIELD(type, member.device_feature_select), STATE_FIELD(type, member.driver_feature_select),                  \
    STATE_FIELD(type, member.queue_select), STATE_FIELD(type, member.vdev.guest_features),                             \
    STATE_FIELD(type, member.vdev.status), STATE_FIELD(type, member.vdev.isr),                                         \
    STATE_FIELD(type, member.vdev.config_generation), STATE_FIELD(type, member.vdev.config_vector),                    \
    STATE_FIELD(type, member.vdev.legacy), STATE_FIELD(type, member.vdev.broken),                                      \
    { #member ".vdev.saved_queues", offsetof(type, member.vdev.saved_queues), 1,                                       \
      sizeof(((type *)0)->member.vdev.saved_queues) },                                                                 \
    { #member ".saved_msix", offsetof(type, member.saved_msix), 4,                                                     \
      sizeof(((type *)0)->member.saved_msix) / 4 },                                                                    \
    STATE_ARRAY(type, member.saved_pending)

#define VIRTIO_PCI_PROPERTIES                                                                                          \
    "addr=<slot[.function]>,bus=<id>,disable-legacy=<on|off|auto>,disable-modern=<bool>,vectors=<uint32>,"             \
    "indirect_desc=<bool>,event_idx=<bool>,packed=<bool>,queue_reset=<bool>"

/* The three types of a device. symbol: virtio_blk gives virtio_blk_pci_type, virtio_blk_pci_transitional_type and
 * virtio_blk_pci_non_transitional_type, each for a line DEVICE_TYPE(...) in devices/core/device_types.def. `...`: more
 * initialisers of struct device_type (.size, .init, .reset, .destroy, .state, .properties, .description). */
#define VIRTIO_PCI_TYPE_(symbol, name_, alias_, ...)                                                                   \
    extern const struct device_type symbol##_type;                                                                     \
    const struct device_type symbol##_type = { .name = name_, .alias = alias_, .bus = "PCI", .user_creatable = true,   \
                                               __VA_ARGS__ }
#define VIRTIO_PCI_TYPES(symbol, name, ...)                                                                            \
    VIRTIO_PCI_TYPE_(symbol##_pci, name "-pci", name, __VA_ARGS__);                                                    \
    VIRTIO_PCI_TYPE_(symbol##_pci_transitional, name "-pci-transitional", NULL, __VA_ARGS__);                          \
    VIRTIO_PCI_TYPE_(symbol##_pci_non_transitional, name "-pci-non-transitional", NULL, __VA_ARGS__)
/* clang-format on */

#endif
