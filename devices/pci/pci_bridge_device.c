/* pci-bridge: a conventional PCI-to-PCI bridge (1b36:0001, as QEMU's) with 32 slots behind it, without hot-plug. */
#include "devices/pci/pci_internal.h"

#include <errno.h>

#define CAP_SLOT_ID   0x04 /* Bridge Architecture 1.2, 13.2 */
#define SLOT_FIRST_IN 0x20 /* the bridge is the first of its chassis */
#define SLOT_ID_SIZE  4u

struct bridge {
    struct pci_device pci;
};

static const struct pci_identity bridge_identity = {
    .vendor = 0x1b36,
    .device = 0x0001,
    .class_code = 0x060400,
};

static void bridge_destroy(struct device *device)
{
    struct pci_device *pci = (struct pci_device *)device;

    pci_bridge_destroy(pci);
    pci_device_detach(pci);
}

static int bridge_init(struct device *device, struct option_list *options, struct error *err)
{
    struct pci_device *pci = (struct pci_device *)device;
    uint64_t chassis;
    bool shpc;
    int result = options_get_u64(options, "chassis_nr", 0, &chassis, err);

    if (!result)
        result = options_get_bool(options, "shpc", false, &shpc, err);
    if (result)
        return result;
    if (!chassis || chassis > 255)
        return error_set(err, EINVAL, "chassis_nr=1 to 255 is needed");
    if (shpc)
        return error_set(err, ENOTSUP, "shpc=on: this hot-plug controller is not there; pcie-root-port has one");
    result = pci_device_attach_option(pci, options, &bridge_identity, err);
    if (result)
        return result;
    result = pci_bridge_init(pci, device->id, false, err);
    if (!result) {
        int offset = pci_capability_add(pci, CAP_SLOT_ID, SLOT_ID_SIZE, err);

        pci->config_written = pci_bridge_config_written;
        result = MIN(offset, 0);
        if (!result) {
            pci->config[offset + 2] = SLOT_FIRST_IN;
            pci->config[offset + 3] = (uint8_t)chassis;
        }
    }
    if (result)
        bridge_destroy(device);
    else
        pci_device_seal(pci);
    return result;
}

static void bridge_reset(struct device *device)
{
    struct pci_device *pci = (struct pci_device *)device;

    pci->bridge_in_reset = false;
    pci_device_reset(pci);
    pci_bridge_update(pci);
}

static int bridge_post_load(void *owner, struct error *err)
{
    struct pci_device *pci = owner;

    (void)err;
    device_load_bool(&pci->bridge_in_reset);
    pci_bridge_update(pci);
    return 0;
}

static const struct state_field bridge_fields[] = {
    STATE_ARRAY(struct bridge, pci.config),
    STATE_FIELD(struct bridge, pci.bridge_in_reset),
    STATE_END,
};
static const struct state_table bridge_state = {
    .name = "pci-bridge",
    .version = 1,
    .fields = bridge_fields,
    .post_load = bridge_post_load,
};

extern const struct device_type pci_bridge_type;
const struct device_type pci_bridge_type = {
    .name = "pci-bridge",
    .bus = "PCI",
    .description = "Standard PCI Bridge",
    .size = sizeof(struct bridge),
    .user_creatable = true,
    .properties = "id=<str>,bus=<str>,addr=<int32>,multifunction=<bool>,chassis_nr=<uint8>,shpc=<bool>",
    .init = bridge_init,
    .reset = bridge_reset,
    .destroy = bridge_destroy,
    .state = &bridge_state,
};
