/* The AHCI controller of the ICH9 (8086:2922; AHCI 1.3.1, ICH9 datasheet chapter 15): the PCI function, the registers
 * that are not of one port, interrupts.
 *
 *   BAR 5: 00 CAP | 04 GHC | 08 IS | 0c PI | 10 VS | 24 CAP2 | 28 BOHC | 100 + 80 * n port n
 *   BAR 4: +10 index, +14 data: the same registers by way of two ports
 *
 * CAP: 64-bit addresses, NCQ, staggered power none, CLO, AHCI only, 1.5 Gb/s, 32 slots, six ports. There is no firmware
 * to hand the controller over: BOHC is not there. Device lock held. */
#include "devices/storage/ahci_internal.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

enum { REG_CAP = 0x00, REG_GHC = 0x04, REG_IS = 0x08, REG_PI = 0x0c, REG_VS = 0x10 };
enum { GHC_RESET = 1 << 0, GHC_INTERRUPTS = 1 << 1 };
#define GHC_AHCI     (1u << 31)
#define PORTS_BASE   0x100u
#define PORT_SIZE    0x80u
#define MMIO_SIZE    0x1000u
#define IDP_SIZE     32u
#define IDP_INDEX    0x10u
#define IDP_DATA     0x14u
#define CAP_VALUE    (1u << 31 | 1u << 30 | 1u << 24 | 1u << 20 | 1u << 18 | (AHCI_SLOTS - 1u) << 8 | (AHCI_PORTS - 1u))
#define VERSION      0x00010300u
#define PCI_CAP_SATA 0x12
#define ICH9_MAP     0x90 /* 7..6: 01 AHCI */

static struct ahci *ahci_of(struct device *device)
{
    return container_of(device, struct ahci, pci.device);
}

/* ---- Interrupts ---- */

static uint32_t pending_ports(const struct ahci *ahci)
{
    uint32_t pending = 0;

    for (unsigned n = 0; n < AHCI_PORTS; n++) {
        if (ahci->ports[n].is & ahci->ports[n].ie)
            pending |= 1u << n;
    }
    return pending;
}

/* Called after whatever can make or end an interrupt. A message goes out whenever something is pending then: what
 * came while the guest handled another is not lost. */
void ahci_update_irq(struct ahci *ahci)
{
    bool level = pending_ports(ahci) && (ahci->ghc & GHC_INTERRUPTS);

    if (pci_msi_enabled(&ahci->pci)) {
        if (level)
            pci_msi_notify(&ahci->pci, 0);
        pci_intx_set(&ahci->pci, false);
    } else {
        pci_intx_set(&ahci->pci, level);
    }
}

/* ---- Reset ---- */

static void reset_registers(struct ahci *ahci)
{
    ahci->ghc = GHC_AHCI;
    for (unsigned n = 0; n < AHCI_PORTS; n++)
        ahci_port_reset(&ahci->ports[n]);
    ahci_update_irq(ahci);
}

static bool is_draining(const struct ahci *ahci)
{
    for (unsigned n = 0; n < AHCI_PORTS; n++) {
        if (ahci->ports[n].draining)
            return true;
    }
    return false;
}

/* GHC.HR reads 1 until the reset is over, which is when the last I/O has ended (10.4.3). */
static void begin_reset(struct ahci *ahci)
{
    reset_registers(ahci);
    if (is_draining(ahci)) {
        ahci->reset_due = true;
        ahci->ghc |= GHC_RESET;
    }
}

void ahci_port_drained(struct ahci *ahci)
{
    if (!ahci->reset_due || is_draining(ahci))
        return;
    ahci->reset_due = false;
    ahci->ghc &= ~(uint32_t)GHC_RESET;
}

/* ---- Registers ---- */

static uint32_t read_register(struct ahci *ahci, unsigned offset)
{
    if (offset >= PORTS_BASE) {
        unsigned n = (offset - PORTS_BASE) / PORT_SIZE;

        return n < AHCI_PORTS ? ahci_port_read(&ahci->ports[n], offset % PORT_SIZE) : 0;
    }
    switch (offset) {
    case REG_CAP:
        return CAP_VALUE;
    case REG_GHC:
        return ahci->ghc;
    case REG_IS:
        return pending_ports(ahci);
    case REG_PI:
        return (1u << AHCI_PORTS) - 1;
    case REG_VS:
        return VERSION;
    default:
        return 0;
    }
}

static void write_register(struct ahci *ahci, unsigned offset, uint32_t value)
{
    if (ahci->reset_due)
        return;
    if (offset >= PORTS_BASE) {
        unsigned n = (offset - PORTS_BASE) / PORT_SIZE;

        if (n < AHCI_PORTS)
            ahci_port_write(&ahci->ports[n], offset % PORT_SIZE, value);
        return;
    }
    switch (offset) {
    case REG_GHC:
        if (value & GHC_RESET) {
            begin_reset(ahci);
            return;
        }
        ahci->ghc = GHC_AHCI | (value & GHC_INTERRUPTS);
        ahci_update_irq(ahci);
        break;
    case REG_IS: /* a bit comes back as long as its port has something to say */
        ahci_update_irq(ahci);
        break;
    default:
        break;
    }
}

/* Registers are dwords; an access inside of one reads its part. */
static uint64_t mmio_read(void *opaque, uint64_t offset, unsigned size)
{
    (void)size;
    return read_register(opaque, (unsigned)offset & ~3u) >> 8 * (offset & 3);
}

static void mmio_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
    (void)size;
    if (!(offset & 3))
        write_register(opaque, (unsigned)offset, (uint32_t)value);
}

static const struct io_ops mmio_ops = { .read = mmio_read, .write = mmio_write, .min_size = 4, .max_size = 4 };

static uint64_t idp_read(void *opaque, uint64_t offset, unsigned size)
{
    struct ahci *ahci = opaque;

    (void)size;
    if (offset == IDP_INDEX)
        return ahci->idp_index;
    return offset == IDP_DATA ? read_register(ahci, ahci->idp_index) : 0;
}

static void idp_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
    struct ahci *ahci = opaque;

    (void)size;
    if (offset == IDP_INDEX)
        ahci->idp_index = (uint32_t)value & (MMIO_SIZE - 4);
    else if (offset == IDP_DATA)
        write_register(ahci, ahci->idp_index, (uint32_t)value);
}

static const struct io_ops idp_ops = { .read = idp_read, .write = idp_write, .min_size = 4, .max_size = 4 };

/* ---- Life ---- */

static const struct pci_identity ahci_identity = {
    .vendor = 0x8086,
    .device = 0x2922,
    .revision = 2,
    .class_code = 0x010601,
};

static void boot_path(const struct ata_bus *bus, unsigned unit, char *path, size_t size)
{
    const struct ahci_port *port = container_of(bus, struct ahci_port, bus);
    uint8_t devfn = port->ahci->pci.devfn;

    snprintf(path, size, "/pci@i0cf8/pci8086,2922@%x,%x/drive@%x/disk@%x", PCI_SLOT(devfn), PCI_FUNCTION(devfn),
             port->number, unit);
}

static void drain(struct ahci *ahci)
{
    for (unsigned n = 0; n < AHCI_PORTS; n++) {
        if (ahci->ports[n].bus.devices[0])
            ata_drain(ahci->ports[n].bus.devices[0]);
    }
}

static void reset_device(struct device *device)
{
    struct ahci *ahci = ahci_of(device);

    drain(ahci);
    ahci->reset_due = false;
    ahci->idp_index = 0;
    for (unsigned n = 0; n < AHCI_PORTS; n++)
        ahci->ports[n].command_list = ahci->ports[n].received_fis = 0;
    reset_registers(ahci);
    pci_device_reset(&ahci->pci);
}

static void destroy_device(struct device *device)
{
    struct ahci *ahci = ahci_of(device);

    for (unsigned n = 0; n < AHCI_PORTS; n++) {
        struct ahci_port *port = &ahci->ports[n];

        if (!port->ahci)
            continue;
        device_bus_remove(device->env, &port->bus.bus);
        for (unsigned slot = 0; slot < AHCI_SLOTS; slot++)
            ata_command_destroy(&port->commands[slot]);
    }
    pci_device_detach(&ahci->pci);
}

static int add_capabilities(struct pci_device *pci, struct error *err)
{
    int offset = pci_msi_add(pci, 1, err);

    if (offset < 0)
        return offset;
    offset = pci_capability_add(pci, PCI_CAP_SATA, 8, err);
    if (offset < 0)
        return offset;
    pci->config[offset + 2] = 0x10;                                       /* revision 1.0 */
    pci_set_long(pci->config + offset + 4, IDP_INDEX / 4 << 4 | (4 + 4)); /* index and data are in BAR 4 */
    return 0;
}

static int setup(struct ahci *ahci, const char *id, struct error *err)
{
    struct pci_device *pci = &ahci->pci;
    int result = pci_bar_register(pci, 4, PCI_BAR_IO, false, IDP_SIZE, &idp_ops, ahci, "ahci-idp", err);

    result = result ?: pci_bar_register(pci, 5, PCI_BAR_MEM32, false, MMIO_SIZE, &mmio_ops, ahci, "ahci", err);
    result = result ?: add_capabilities(pci, err);
    pci->config[ICH9_MAP] = 1 << 6;
    pci_set_interrupt_pin(pci, 1);
    pci_device_seal(pci);
    for (unsigned n = 0; n < AHCI_PORTS && !result; n++) {
        ahci_port_init(ahci, n);
        ahci->ports[n].bus.boot_path = boot_path;
        result = ata_bus_add(pci->device.env, &ahci->ports[n].bus, id, n, err);
    }
    return result;
}

static int init_device(struct device *device, struct option_list *options, struct error *err)
{
    struct ahci *ahci = ahci_of(device);
    const char *id = strcmp(device->id, device->type->name) ? device->id : NULL;
    int result = pci_device_attach_option(&ahci->pci, options, &ahci_identity, err);

    result = result ?: setup(ahci, id, err);
    if (result)
        destroy_device(device);
    return result;
}

static void pre_save(void *owner)
{
    drain(owner);
}

static int post_load(void *owner, struct error *err)
{
    struct ahci *ahci = owner;

    (void)err;
    ahci->ghc = GHC_AHCI | (ahci->ghc & GHC_INTERRUPTS);
    ahci->idp_index &= MMIO_SIZE - 4;
    ahci->reset_due = false;
    for (unsigned n = 0; n < AHCI_PORTS; n++) {
        struct ahci_port *port = &ahci->ports[n];

        device_load_bool(&port->stopped);
        device_load_bool(&port->software_reset);
        device_load_bool(&port->signature_due);
        port->last_slot %= AHCI_SLOTS;
        ahci_port_cancel(port);
    }
    /* BARs follow the command register. */
    pci_device_config_write(&ahci->pci, PCI_COMMAND, 2, pci_get_word(ahci->pci.config + PCI_COMMAND));
    pci_intx_set(&ahci->pci, !pci_msi_enabled(&ahci->pci) && pending_ports(ahci) && (ahci->ghc & GHC_INTERRUPTS));
    return 0;
}

#define PORT_STATE(n)                                                                                                  \
    STATE_FIELD(struct ahci, ports[n].command_list), STATE_FIELD(struct ahci, ports[n].received_fis),                  \
        STATE_FIELD(struct ahci, ports[n].is), STATE_FIELD(struct ahci, ports[n].ie),                                  \
        STATE_FIELD(struct ahci, ports[n].cmd), STATE_FIELD(struct ahci, ports[n].tfd),                                \
        STATE_FIELD(struct ahci, ports[n].sig), STATE_FIELD(struct ahci, ports[n].ssts),                               \
        STATE_FIELD(struct ahci, ports[n].sctl), STATE_FIELD(struct ahci, ports[n].serr),                              \
        STATE_FIELD(struct ahci, ports[n].sact), STATE_FIELD(struct ahci, ports[n].ci),                                \
        STATE_FIELD(struct ahci, ports[n].stopped), STATE_FIELD(struct ahci, ports[n].software_reset),                 \
        STATE_FIELD(struct ahci, ports[n].signature_due), STATE_FIELD(struct ahci, ports[n].last_slot)

static const struct state_field ahci_fields[] = {
    STATE_ARRAY(struct ahci, pci.config),
    STATE_FIELD(struct ahci, ghc),
    STATE_FIELD(struct ahci, idp_index),
    PORT_STATE(0),
    PORT_STATE(1),
    PORT_STATE(2),
    PORT_STATE(3),
    PORT_STATE(4),
    PORT_STATE(5),
    STATE_END,
};
static const struct state_table ahci_state = {
    .name = "ich9-ahci",
    .version = 1,
    .fields = ahci_fields,
    .pre_save = pre_save,
    .post_load = post_load,
};

extern const struct device_type ich9_ahci_type;
const struct device_type ich9_ahci_type = {
    .name = "ich9-ahci",
    .alias = "ahci",
    .bus = "PCI",
    .description = "AHCI controller of the ICH9, six ports",
    .size = sizeof(struct ahci),
    .user_creatable = true,
    .properties = "addr=<slot[.function]>",
    .init = init_device,
    .reset = reset_device,
    .destroy = destroy_device,
    .state = &ahci_state,
};

struct device *ahci_create(struct device_env *env, int devfn, struct error *err)
{
    struct ahci *ahci = device_allocate(env, &ich9_ahci_type, NULL, err);

    if (!ahci)
        return NULL;
    if (pci_device_attach(&ahci->pci, env->pci_bus, devfn, &ahci_identity, err) || setup(ahci, NULL, err)) {
        device_destroy(&ahci->pci.device);
        return NULL;
    }
    device_reset(&ahci->pci.device);
    return &ahci->pci.device;
}
