/* The LPC bridge of the q35 (Intel ICH9, 8086:2918) at 00:1f.0: the routing registers that connect the eight PCI interrupt
 * lines to the 8259 pair, the place of the ACPI registers, and the root complex's register block. The devices behind
 * the bridge are devices of their own at fixed ports.
 *
 *   PIRQx_ROUT (60h..63h A..D, 68h..6bh E..H)   7 not routed | 3..0 ISA interrupt
 *   PMBASE 40h                                  15..7 base | 0 1;   ACPI_CNTL 44h: 7 enabled | 2..0 SCI: 0 is IRQ 9
 *   LPC_EN 82h                                  0 COM1, 1 COM2, 10 keyboard controller
 *   RCBA f0h                                    31..14 base | 0 enable
 *
 * Intel I/O Controller Hub 9 datasheet, chapters 10 and 13. */
#include "base/log.h"
#include "devices/board/machine.h"
#include "devices/pci/pci.h"

#define PMBASE          0x40
#define ACPI_CNTL       0x44
#define LPC_EN          0x82
#define RCBA            0xf0
#define PIRQ_NOT_ROUTED 0x80
#define ACPI_ENABLED    0x80
#define RCRB_SIZE       0x4000u

struct ich9_lpc {
    struct pci_device pci;
    const struct ich9_lpc_hooks *hooks;
    void *opaque;
    struct mem_region *rcrb;
    uint32_t rcrb_base;
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

/* ---- Root complex registers ---- */

/* Interrupt routing of slots 25 to 31 (10.1.43 ff., D31IR .. D25IR): pin A to PIRQ A and so on, as the board's wiring is. */
static uint64_t rcrb_read(void *opaque, uint64_t offset, unsigned size)
{
    (void)opaque, (void)size;
    return offset >= 0x3140 && offset < 0x3150 ? 0x32103210u >> (offset & 3) * 8 : 0;
}

static void rcrb_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
    (void)opaque;
    log_event(unimp, "ICH9: root complex register 0x%x, %u bytes: 0x%x is not kept\n", (unsigned)offset, size,
              (unsigned)value);
}

static const struct io_ops rcrb_ops = { .read = rcrb_read, .write = rcrb_write, .min_size = 1, .max_size = 4 };

static void rcrb_update(struct ich9_lpc *lpc)
{
    uint32_t value = pci_get_long(lpc->pci.config + RCBA), base = value & 1 ? value & ~(RCRB_SIZE - 1) : 0;

    if (base == lpc->rcrb_base)
        return;
    if (lpc->rcrb)
        physmem_remove(lpc->rcrb);
    lpc->rcrb_base = base;
    lpc->rcrb = base ? physmem_add_mmio(lpc->pci.device.env->mem, base, RCRB_SIZE, &rcrb_ops, lpc, "rcrb", NULL) : NULL;
}

/* ---- Configuration ---- */

/* The registers are as they are: everything follows them. */
static void update(struct ich9_lpc *lpc)
{
    const uint8_t *config = lpc->pci.config;
    bool acpi = config[ACPI_CNTL] & ACPI_ENABLED;

    rcrb_update(lpc);
    lpc->hooks->pm_base(lpc->opaque, acpi ? pci_get_word(config + PMBASE) & 0xff80 : 0);
    lpc->hooks->route(lpc->opaque);
}

static void lpc_config_written(struct pci_device *pci, unsigned offset, unsigned size)
{
    (void)offset, (void)size;
    update((struct ich9_lpc *)pci);
}

static const struct pci_identity lpc_identity = {
    .vendor = 0x8086,
    .device = 0x2918,
    .revision = 2,
    .class_code = 0x060100,
};

static int lpc_setup(struct pci_device *pci, struct error *err)
{
    int result;

    result = pci_device_attach(pci, pci->device.env->pci_bus, PCI_DEVFN(31, 0), &lpc_identity, err);
    if (result)
        return result;
    /* SMBus and SATA controllers live in functions 3 and 2 of this slot. */
    pci->config[PCI_HEADER_TYPE] |= 0x80;
    pci_set_word(pci->config + PCI_COMMAND, PCI_COMMAND_IO | PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
    pci_set_word(pci->write_mask + PCI_COMMAND, 0);
    pci_set_word(pci->config + PCI_STATUS, 0x0200);
    pci_set_long(pci->config + PMBASE, 1);
    pci_set_word(pci->write_mask + PMBASE, 0xff80);
    pci->write_mask[ACPI_CNTL] = ACPI_ENABLED; /* the SCI stays where it is */
    pci_set_long(pci->write_mask + RCBA, ~(RCRB_SIZE - 1) | 1);
    for (unsigned pirq = 0; pirq < PCI_PIRQ_COUNT; pirq++) {
        pci->config[pirq_register(pirq)] = PIRQ_NOT_ROUTED;
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
    update(lpc);
}

void ich9_lpc_set_up(struct pci_device *pci)
{
    static const uint8_t routes[4] = { 10, 10, 11, 11 }; /* what PC firmware customarily gives to PCI */

    pci_device_config_write(pci, PMBASE, 2, ACPI_PM_BASE | 1);
    pci_device_config_write(pci, ACPI_CNTL, 1, ACPI_ENABLED);
    for (unsigned pirq = 0; pirq < PCI_PIRQ_COUNT; pirq++)
        pci_device_config_write(pci, pirq_register(pirq), 1, routes[pirq % 4]);
}

static void lpc_destroy(struct device *device)
{
    struct ich9_lpc *lpc = (struct ich9_lpc *)device;

    if (lpc->rcrb)
        physmem_remove(lpc->rcrb);
    pci_device_detach(&lpc->pci);
}

static int lpc_post_load(void *owner, struct error *err)
{
    (void)err;
    update(owner);
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

struct pci_device *ich9_lpc_create(struct device_env *env, const struct ich9_lpc_hooks *hooks, void *opaque,
                                   struct error *err)
{
    struct ich9_lpc *lpc = device_allocate(env, &ich9_lpc_type, NULL, err);

    if (!lpc)
        return NULL;
    lpc->hooks = hooks;
    lpc->opaque = opaque;
    if (lpc_setup(&lpc->pci, err)) {
        device_destroy(&lpc->pci.device);
        return NULL;
    }
    return &lpc->pci;
}
