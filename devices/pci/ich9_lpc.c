/* The LPC bridge of the q35 (Intel ICH9, 8086:2918) at 00:1f.0. What counts of it here are
 * the routing registers that connect the eight PCI interrupt lines to the 8259 pair; the devices behind the
 * bridge are devices of their own at fixed ports.
 *
 *   PIRQx_ROUT (60h..63h A..D, 68h..6bh E..H)   7 not routed | 3..0 ISA interrupt
 *   PMBASE 40h, ACPI_CNTL 44h                   as firmware leaves them: ACPI_PM_BASE, enabled, SCI = IRQ 9
 *   LPC_EN 82h                                  0 COM1, 1 COM2, 10 keyboard controller
 *   RCBA f0h                                    not enabled: there is no root complex register block
 *
 * Intel I/O Controller Hub 9 datasheet, chapter 13. */
#include "devices/board/machine.h"
#include "devices/pci/pci.h"

#define PMBASE          0x40
#define ACPI_CNTL       0x44
#define LPC_EN          0x82
#define PIRQ_NOT_ROUTED 0x80

struct ich9_lpc {
    struct pci_device pci;
    void (*on_route)(void *opaque);
    void *opaque;
};

static unsigned pirq_register(unsigned pirq)
{
    return pirq < 4 ? 0x60 + pirq : 0x68 + pirq - 4;
}

int ich9_lpc_pirq_route(const struct pci_device *lpc, unsigned pirq)
{
    uint8_t route = lpc->config[pirq_register(pirq)];
    unsigned irq = route & 0xf;

    /* 0, 1, 2, 8 and 13 are reserved: they belong to devices on the board (13.1.17). */
    if ((route & PIRQ_NOT_ROUTED) || irq < 3 || irq == 8 || irq == 13)
        return -1;
    return irq;
}

void ich9_lpc_set_enabled(struct pci_device *lpc, uint16_t devices)
{
    pci_set_word(lpc->config + LPC_EN, devices);
    pci_device_seal(lpc);
}

static void notify(struct ich9_lpc *lpc)
{
    if (lpc->on_route)
        lpc->on_route(lpc->opaque);
}

static void lpc_config_written(struct pci_device *pci, unsigned offset, unsigned size)
{
    if (offset < 0x6c && offset + size > 0x60)
        notify((struct ich9_lpc *)pci);
}

static const struct pci_identity lpc_identity = {
    .vendor = 0x8086,
    .device = 0x2918,
    .revision = 2,
    .class_code = 0x060100,
};

static int lpc_setup(struct pci_device *pci, struct error *err)
{
    /* The interrupts that PC firmware customarily gives to PCI. */
    static const uint8_t routes[4] = { 10, 10, 11, 11 };
    int result;

    result = pci_device_attach(pci, pci->device.env->pci_bus, PCI_DEVFN(31, 0), &lpc_identity, err);
    if (result)
        return result;
    /* SMBus and SATA controllers live in functions 3 and 2 of this slot. */
    pci->config[PCI_HEADER_TYPE] |= 0x80;
    pci_set_word(pci->config + PCI_COMMAND, PCI_COMMAND_IO | PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
    pci_set_word(pci->write_mask + PCI_COMMAND, 0);
    pci_set_word(pci->config + PCI_STATUS, 0x0200);
    pci_set_long(pci->config + PMBASE, ACPI_PM_BASE | 1);
    pci->config[ACPI_CNTL] = 0x80;
    for (unsigned pirq = 0; pirq < PCI_PIRQ_COUNT; pirq++) {
        pci->config[pirq_register(pirq)] = routes[pirq % 4];
        pci->write_mask[pirq_register(pirq)] = 0x8f;
    }
    pci->config_written = lpc_config_written;
    pci_device_seal(pci);
    return 0;
}

static void lpc_reset(struct device *device)
{
    struct ich9_lpc *lpc = (struct ich9_lpc *)device;

    pci_device_reset(&lpc->pci);
    notify(lpc);
}

static void lpc_destroy(struct device *device)
{
    pci_device_detach(&((struct ich9_lpc *)device)->pci);
}

static int lpc_post_load(void *owner, struct error *err)
{
    (void)err;
    notify(owner);
    return 0;
}

static const struct state_field lpc_fields[] = {
    STATE_ARRAY(struct ich9_lpc, pci.config),
    STATE_END,
};
static const struct state_table lpc_state = {
    .name = "ich9-lpc",
    .version = 1,
    .fields = lpc_fields,
    .post_load = lpc_post_load,
};

static const struct device_type ich9_lpc_type = {
    .name = "ICH9-LPC",
    .bus = "PCI",
    .description = "ICH9 LPC bridge",
    .size = sizeof(struct ich9_lpc),
    .reset = lpc_reset,
    .destroy = lpc_destroy,
    .state = &lpc_state,
};

struct pci_device *ich9_lpc_create(struct device_env *env, void (*on_route)(void *opaque), void *opaque,
                                   struct error *err)
{
    struct ich9_lpc *lpc = device_allocate(env, &ich9_lpc_type, NULL, err);

    if (!lpc)
        return NULL;
    lpc->on_route = on_route;
    lpc->opaque = opaque;
    if (lpc_setup(&lpc->pci, err)) {
        device_destroy(&lpc->pci.device);
        return NULL;
    }
    return &lpc->pci;
}
