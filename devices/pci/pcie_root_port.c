/* pcie-root-port: a root port with one slot (1b36:000c, as QEMU's), and native hot-plug (PCI Express Base 4.0, 6.7 and 7.5.3).
 *
 *   Slot control (18h)  0 attention button, 3 presence, 4 command completed, 12 link: report them | 5 interrupt
 *                       7..6 attention, 9..8 power indicator: 1 on, 2 blink, 3 off | 10 power controller: 1 off
 *   Slot status (1ah)   0 attention button, 3 presence changed, 4 command completed, 8 link changed | 6 present
 *   Link status (12h)   13 the link is up
 *
 * A function that comes or goes while the machine runs is reported as a changed presence. To take one away, the attention
 * button is pressed; the guest then switches power off with the power indicator off, and env->unplugged() ends it.
 * Commands complete at once. Device lock held. */
#include "devices/pci/pci_internal.h"

#include "base/log.h"

#include <errno.h>
#include <string.h>

#define EXPRESS_SIZE 0x3cu
enum {
    EXP_DEVICE_CAP = 0x04,
    EXP_DEVICE_CONTROL = 0x08,
    EXP_DEVICE_STATUS = 0x0a,
    EXP_LINK_CAP = 0x0c,
    EXP_LINK_CONTROL = 0x10,
    EXP_LINK_STATUS = 0x12,
    EXP_SLOT_CAP = 0x14,
    EXP_SLOT_CONTROL = 0x18,
    EXP_SLOT_STATUS = 0x1a,
    EXP_ROOT_CONTROL = 0x1c,
    EXP_ROOT_STATUS = 0x20,
    EXP_LINK_CAP2 = 0x2c,
    EXP_LINK_CONTROL2 = 0x30,
};
enum {
    EXP_VERSION_2 = 2,
    EXP_TYPE_ROOT_PORT = 4 << 4,
    EXP_SLOT_IMPLEMENTED = 1 << 8,
    LINK_SPEED_16 = 4,
    LINK_WIDTH_32 = 32 << 4,
    LINK_ACTIVE_REPORTING = 1 << 20,
    LINK_ACTIVE = 1 << 13,
    SLOT_CAP_BUTTON = 1 << 0,
    SLOT_CAP_POWER = 1 << 1,
    SLOT_CAP_ATTENTION_LED = 1 << 3,
    SLOT_CAP_POWER_LED = 1 << 4,
    SLOT_CAP_HOTPLUG = 1 << 6,
    SLOT_CAP_NUMBER_SHIFT = 19,
};
enum {
    SLOT_BUTTON = 1 << 0,
    SLOT_PRESENCE = 1 << 3,
    SLOT_COMPLETED = 1 << 4,
    SLOT_INTERRUPT = 1 << 5, /* control */
    SLOT_PRESENT = 1 << 6,   /* status */
    SLOT_LINK = 1 << 8,      /* status; its enable is bit 12 */
    SLOT_LINK_ENABLE = 1 << 12,
    SLOT_POWER_LED = 3 << 8,
    SLOT_POWER_LED_OFF = 3 << 8,
    SLOT_POWER_OFF = 1 << 10,
    SLOT_CONTROL_MASK = 0x17ff,
    SLOT_EVENTS = SLOT_BUTTON | SLOT_PRESENCE | SLOT_COMPLETED | SLOT_LINK,
};

struct pcie_root_port {
    struct pci_device pci;
    uint8_t express; /* offset of the capability */
    uint8_t chassis; /* the properties */
    bool hotplug;
    bool interrupting; /* an enabled event is pending: messages are sent when this becomes true */
    bool unplugging;   /* the button was pressed for what is there now */
    bool detaching;    /* what is behind goes by our own doing */
    uint16_t control;  /* slot control before the write that is looked at */
};

static struct pcie_root_port *port_of(struct pci_device *pci)
{
    return (struct pcie_root_port *)pci;
}

static uint8_t *express(struct pcie_root_port *port, unsigned offset)
{
    return port->pci.config + port->express + offset;
}

static void interrupt_update(struct pcie_root_port *port)
{
    uint16_t control = pci_get_word(express(port, EXP_SLOT_CONTROL)),
             status = pci_get_word(express(port, EXP_SLOT_STATUS));
    uint16_t enabled = control & (SLOT_BUTTON | SLOT_PRESENCE | SLOT_COMPLETED);
    bool pending;

    if (control & SLOT_LINK_ENABLE)
        enabled |= SLOT_LINK;
    pending = (control & SLOT_INTERRUPT) && (status & enabled);
    if (pending && !port->interrupting && pci_msix_enabled(&port->pci))
        pci_msix_notify(&port->pci, 0);
    port->interrupting = pending;
    pci_intx_set(&port->pci, pending);
}

static void slot_event(struct pcie_root_port *port, uint16_t events)
{
    uint8_t *status = express(port, EXP_SLOT_STATUS);

    pci_set_word(status, pci_get_word(status) | events);
    interrupt_update(port);
}

/* Presence and link follow what is in the slot and whether it has power. */
static void slot_update(struct pcie_root_port *port)
{
    bool present = port->pci.secondary && port->pci.secondary->functions[0] && !port->detaching;
    bool powered = !(pci_get_word(express(port, EXP_SLOT_CONTROL)) & SLOT_POWER_OFF);
    uint16_t status = pci_get_word(express(port, EXP_SLOT_STATUS)) & ~SLOT_PRESENT;
    uint16_t link = pci_get_word(express(port, EXP_LINK_STATUS)) & ~LINK_ACTIVE;

    pci_set_word(express(port, EXP_SLOT_STATUS), status | (present ? SLOT_PRESENT : 0));
    pci_set_word(express(port, EXP_LINK_STATUS), link | (present && powered ? LINK_ACTIVE : 0));
}

static bool slot_present(struct pcie_root_port *port)
{
    return pci_get_word(express(port, EXP_SLOT_STATUS)) & SLOT_PRESENT;
}

static void plugged(struct pci_bus *bus, struct pci_device *pci, bool there)
{
    struct pcie_root_port *port = port_of(bus->bridge);

    if (PCI_FUNCTION(pci->devfn))
        return;
    port->detaching = !there;
    slot_update(port);
    port->detaching = port->unplugging = false;
    slot_event(port, SLOT_PRESENCE | SLOT_LINK);
}

/* The guest has switched the slot off: what is in it goes, functions before function 0. */
static void eject(struct pcie_root_port *port)
{
    struct device_env *env = port->pci.device.env;
    struct pci_bus *bus = port->pci.secondary;

    for (unsigned function = 8; function-- > 0 && env->unplugged;) {
        if (bus->functions[function])
            env->unplugged(env, &bus->functions[function]->device);
    }
}

void pcie_root_port_request_unplug(struct pci_device *pci)
{
    struct pcie_root_port *port = port_of(pci);

    if (!slot_present(port))
        return;
    port->unplugging = true;
    if (pci_get_word(express(port, EXP_SLOT_CONTROL)) & SLOT_POWER_OFF)
        eject(port);
    else
        slot_event(port, SLOT_BUTTON);
}

static void slot_written(struct pcie_root_port *port)
{
    uint16_t control = pci_get_word(express(port, EXP_SLOT_CONTROL)), before = port->control;
    bool off = (control & SLOT_POWER_OFF) && (control & SLOT_POWER_LED) == SLOT_POWER_LED_OFF;
    bool was_off = (before & SLOT_POWER_OFF) && (before & SLOT_POWER_LED) == SLOT_POWER_LED_OFF;

    port->control = control;
    slot_update(port);
    if (off && !was_off && port->unplugging)
        eject(port);
    slot_event(port, SLOT_COMPLETED); /* every write is a command, 6.7.3.2 */
}

static void port_config_written(struct pci_device *pci, unsigned offset, unsigned size)
{
    struct pcie_root_port *port = port_of(pci);

    pci_bridge_config_written(pci, offset, size);
    if (pci_ranges_overlap(offset, size, port->express + EXP_SLOT_CONTROL, 2))
        slot_written(port);
    else
        interrupt_update(port);
}

/* ---- Life ---- */

static const struct pci_identity port_identity = {
    .vendor = 0x1b36,
    .device = 0x000c,
    .class_code = 0x060400,
    .express = true,
};

static int add_express(struct pcie_root_port *port, uint8_t number, uint16_t slot, struct error *err)
{
    struct pci_device *pci = &port->pci;
    int offset = pci_capability_add(pci, PCI_CAP_EXPRESS, EXPRESS_SIZE, err);
    uint8_t *mask, *clear;

    if (offset < 0)
        return offset;
    port->express = (uint8_t)offset;
    mask = pci->write_mask + offset;
    clear = pci->clear_mask + offset;
    pci_set_word(express(port, 2), EXP_VERSION_2 | EXP_TYPE_ROOT_PORT | EXP_SLOT_IMPLEMENTED);
    pci_set_long(express(port, EXP_DEVICE_CAP), 1 << 15); /* role-based error reporting; 128 bytes of payload */
    pci_set_word(mask + EXP_DEVICE_CONTROL, 0x000f);
    pci_set_word(clear + EXP_DEVICE_STATUS, 0x000f);
    pci_set_long(express(port, EXP_LINK_CAP),
                 LINK_SPEED_16 | LINK_WIDTH_32 | LINK_ACTIVE_REPORTING | (uint32_t)number << 24);
    pci_set_word(mask + EXP_LINK_CONTROL, 0x00db);
    pci_set_word(express(port, EXP_LINK_STATUS), LINK_SPEED_16 | LINK_WIDTH_32);
    pci_set_long(express(port, EXP_LINK_CAP2), 0x1e); /* 2.5 to 16 GT/s */
    pci_set_word(express(port, EXP_LINK_CONTROL2), LINK_SPEED_16);
    pci_set_word(mask + EXP_ROOT_CONTROL, 0x0008); /* PME interrupt: kept; there are no PMEs */
    pci_set_long(express(port, EXP_SLOT_CAP),
                 (uint32_t)slot << SLOT_CAP_NUMBER_SHIFT |
                     (port->hotplug ? SLOT_CAP_BUTTON | SLOT_CAP_POWER | SLOT_CAP_ATTENTION_LED | SLOT_CAP_POWER_LED |
                                          SLOT_CAP_HOTPLUG
                                    : 0));
    if (port->hotplug) {
        pci_set_word(mask + EXP_SLOT_CONTROL, SLOT_CONTROL_MASK);
        pci_set_word(clear + EXP_SLOT_STATUS, SLOT_EVENTS);
    }
    return 0;
}

struct port_options {
    uint64_t chassis, slot, port;
};

static int read_options(struct pcie_root_port *port, struct option_list *options, struct port_options *values,
                        struct error *err)
{
    const char *number = options_get(options, "port");
    int result = options_get_u64(options, "chassis", 0, &values->chassis, err);

    if (!result)
        result = options_get_u64(options, "slot", 0, &values->slot, err);
    if (!result)
        result = options_get_u64(options, "port", 0, &values->port, err);
    if (!result)
        result = options_get_bool(options, "hotplug", true, &port->hotplug, err);
    if (result)
        return result;
    if (values->chassis > 255)
        return error_set(err, EINVAL, "chassis=%llu: 0 to 255", (unsigned long long)values->chassis);
    if (values->slot > 0x1fff)
        return error_set(err, EINVAL, "slot=%llu: 0 to 8191", (unsigned long long)values->slot);
    if (values->port > 255)
        return error_set(err, EINVAL, "port=%s: 0 to 255", number);
    port->chassis = (uint8_t)values->chassis;
    return 0;
}

/* Two slots of one number cannot be told apart. */
static int check_unique(struct pci_bus *bus, const struct pcie_root_port *port, const struct port_options *values,
                        struct error *err);

static void port_destroy(struct device *device)
{
    struct pci_device *pci = (struct pci_device *)device;

    pci_bridge_destroy(pci);
    pci_device_detach(pci);
}

static int port_init(struct device *device, struct option_list *options, struct error *err)
{
    struct pcie_root_port *port = (struct pcie_root_port *)device;
    struct pci_device *pci = &port->pci;
    struct port_options values;
    int result = read_options(port, options, &values, err);

    if (!result)
        result = pci_device_attach_option(pci, options, &port_identity, err);
    if (result)
        return result;
    result = pci->bus->bridge ? error_set(err, EINVAL, "a root port belongs on the root bus") : 0;
    if (!result)
        result = check_unique(pci->bus, port, &values, err);
    if (!result)
        result = pci_bridge_init(pci, device->id, true, err);
    if (!result) {
        pci->secondary->plugged = plugged;
        pci->config_written = port_config_written;
        pci_set_interrupt_pin(pci, 1);
        result = add_express(port, (uint8_t)values.port, (uint16_t)values.slot, err);
    }
    if (!result)
        result = pci_msix_add(pci, 1, 0, err);
    if (result)
        port_destroy(device);
    else
        pci_device_seal(pci);
    return result;
}

static void port_reset(struct device *device)
{
    struct pcie_root_port *port = (struct pcie_root_port *)device;

    pci_device_reset(&port->pci);
    port->control = 0;
    port->interrupting = port->unplugging = port->pci.bridge_in_reset = false;
    slot_update(port);
    pci_bridge_update(&port->pci);
}

static int port_post_load(void *owner, struct error *err)
{
    struct pcie_root_port *port = owner;

    (void)err;
    device_load_bool(&port->unplugging);
    device_load_bool(&port->interrupting);
    device_load_bool(&port->pci.bridge_in_reset);
    slot_update(port);
    pci_bridge_update(&port->pci);
    interrupt_update(port);
    return 0;
}

static const struct state_field port_fields[] = {
    STATE_ARRAY(struct pcie_root_port, pci.config), STATE_FIELD(struct pcie_root_port, pci.bridge_in_reset),
    STATE_FIELD(struct pcie_root_port, control),    STATE_FIELD(struct pcie_root_port, interrupting),
    STATE_FIELD(struct pcie_root_port, unplugging), STATE_END,
};
static const struct state_table port_state = {
    .name = "pcie-root-port",
    .version = 1,
    .fields = port_fields,
    .post_load = port_post_load,
};

extern const struct device_type pcie_root_port_type;
const struct device_type pcie_root_port_type = {
    .name = "pcie-root-port",
    .bus = "PCI",
    .description = "PCI Express Root Port",
    .size = sizeof(struct pcie_root_port),
    .user_creatable = true,
    .properties = "id=<str>,bus=<str>,addr=<int32>,multifunction=<bool>,chassis=<uint8>,slot=<uint16>,port=<uint8>,"
                  "hotplug=<bool>",
    .init = port_init,
    .reset = port_reset,
    .destroy = port_destroy,
    .state = &port_state,
};

static int check_unique(struct pci_bus *bus, const struct pcie_root_port *port, const struct port_options *values,
                        struct error *err)
{
    for (unsigned devfn = 0; devfn < ARRAY_SIZE(bus->functions); devfn++) {
        struct pci_device *other = bus->functions[devfn];
        uint32_t slot;

        if (!other || other == &port->pci || other->device.type != &pcie_root_port_type)
            continue;
        slot = pci_get_long(express(port_of(other), EXP_SLOT_CAP)) >> SLOT_CAP_NUMBER_SHIFT;
        if (slot == values->slot && port_of(other)->chassis == values->chassis)
            return error_set(err, EBUSY, "chassis=%u,slot=%u: %s has that slot number; give another",
                             (unsigned)values->chassis, (unsigned)values->slot, other->device.id);
    }
    return 0;
}
