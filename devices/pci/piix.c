/* The south bridge of the pc board: the ISA bridge of the PIIX3 (8086:7000) at 00:01.0 and the power management of the
 * PIIX4 (8086:7113) at 00:01.3, which is the mixture that QEMU made customary. What is behind them are devices of their own at
 * fixed ports.
 *
 *   7000  PIRQRC[A:D] (60h..63h)  7 not routed | 3..0 ISA interrupt
 *   7113  PMBA (40h)              15..6 base | 0 1;    PMREGMISC (80h): 0 enabled
 *         DEVACTB (58h)           25 SMIs from the APM control port: set, as if firmware had done it: there is no SMM
 *         GENCFG.. (60h, 64h)     67h: 3 COM1, 7 COM2 are there, for the DSDT
 *         SMBBA (90h), SMBHSTCFG (d2h)  kept; there is no SMBus controller
 *
 * Intel 82371FB/82371SB (PIIX/PIIX3) datasheet 2.2, 82371AB (PIIX4) datasheet chapter 7. */
#include "devices/board/machine.h"
#include "devices/pci/i440fx.h"

#define PIRQRC_A        0x60
#define PIRQ_COUNT      4
#define PIRQ_NOT_ROUTED 0x80
#define PMBA            0x40
#define PMREGMISC       0x80
#define PM_ENABLED      0x01

/* ---- ISA bridge ---- */

struct piix3 {
    struct pci_device pci;
    void (*route)(void *opaque);
    void *opaque;
};

int piix3_pirq_route(const struct pci_device *bridge, unsigned pirq)
{
    uint8_t route = pirq < PIRQ_COUNT ? bridge->config[PIRQRC_A + pirq] : PIRQ_NOT_ROUTED;
    unsigned irq = route & 0xf;

    /* 0, 1, 2, 8 and 13 are reserved: they belong to devices on the board (2.2.10). */
    if ((route & PIRQ_NOT_ROUTED) || irq < 3 || irq == 8 || irq == 13)
        return -1;
    return (int)irq;
}

static void piix3_update(struct piix3 *piix3)
{
    piix3->route(piix3->opaque);
}

static void piix3_config_written(struct pci_device *pci, unsigned offset, unsigned size)
{
    if (offset < PIRQRC_A + PIRQ_COUNT && offset + size > PIRQRC_A)
        piix3_update((struct piix3 *)pci);
}

static const struct pci_identity piix3_identity = {
    .vendor = 0x8086,
    .device = 0x7000,
    .revision = 0,
    .class_code = 0x060100,
};

static int piix3_setup(struct pci_device *pci, struct error *err)
{
    int result = pci_device_attach(pci, pci->device.env->pci_bus, PCI_DEVFN(1, 0), &piix3_identity, err);

    if (result)
        return result;
    pci->config[PCI_HEADER_TYPE] |= 0x80; /* functions 1 and 3 are IDE and power management */
    pci_set_word(pci->config + PCI_COMMAND, PCI_COMMAND_IO | PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
    pci_set_word(pci->write_mask + PCI_COMMAND, 0);
    pci_set_word(pci->config + PCI_STATUS, 0x0200);
    for (unsigned pirq = 0; pirq < PIRQ_COUNT; pirq++) {
        pci->config[PIRQRC_A + pirq] = PIRQ_NOT_ROUTED;
        pci->write_mask[PIRQRC_A + pirq] = 0x8f;
    }
    pci->config_written = piix3_config_written;
    pci_device_seal(pci);
    return 0;
}

static void piix3_reset(struct device *device)
{
    struct piix3 *piix3 = (struct piix3 *)device;

    pci_device_reset(&piix3->pci);
    piix3_update(piix3);
}

void piix3_set_up(struct pci_device *bridge)
{
    static const uint8_t routes[PIRQ_COUNT] = { 10, 10, 11, 11 }; /* what PC firmware customarily gives to PCI */

    for (unsigned pirq = 0; pirq < PIRQ_COUNT; pirq++)
        pci_device_config_write(bridge, PIRQRC_A + pirq, 1, routes[pirq]);
}

static void piix_destroy(struct device *device)
{
    pci_device_detach((struct pci_device *)device);
}

static int piix3_post_load(void *owner, struct error *err)
{
    (void)err;
    piix3_update(owner);
    return 0;
}

static const struct state_field piix3_fields[] = {
    STATE_ARRAY(struct piix3, pci.config),
    STATE_END,
};
static const struct state_table piix3_state = {
    .name = "PIIX3",
    .version = 1,
    .fields = piix3_fields,
    .post_load = piix3_post_load,
};

static const struct device_type piix3_type = {
    .name = "PIIX3",
    .bus = "PCI",
    .description = "ISA bridge",
    .size = sizeof(struct piix3),
    .reset = piix3_reset,
    .destroy = piix_destroy,
    .state = &piix3_state,
};

struct pci_device *piix3_create(struct device_env *env, void (*route)(void *opaque), void *opaque, struct error *err)
{
    struct piix3 *piix3 = device_allocate(env, &piix3_type, NULL, err);

    if (!piix3)
        return NULL;
    piix3->route = route;
    piix3->opaque = opaque;
    if (piix3_setup(&piix3->pci, err)) {
        device_destroy(&piix3->pci.device);
        return NULL;
    }
    return &piix3->pci;
}

/* ---- Power management ---- */

struct piix4_pm {
    struct pci_device pci;
    void (*pm_base)(void *opaque, uint16_t base);
    void *opaque;
};

static void piix4_pm_update(struct piix4_pm *pm)
{
    const uint8_t *config = pm->pci.config;
    bool enabled = config[PMREGMISC] & PM_ENABLED;

    pm->pm_base(pm->opaque, enabled ? pci_get_word(config + PMBA) & 0xffc0 : 0);
}

static void piix4_pm_config_written(struct pci_device *pci, unsigned offset, unsigned size)
{
    (void)offset, (void)size;
    piix4_pm_update((struct piix4_pm *)pci);
}

static const struct pci_identity piix4_pm_identity = {
    .vendor = 0x8086,
    .device = 0x7113,
    .revision = 3,
    .class_code = 0x068000,
};

static int piix4_pm_setup(struct pci_device *pci, struct error *err)
{
    int result = pci_device_attach(pci, pci->device.env->pci_bus, PCI_DEVFN(1, 3), &piix4_pm_identity, err);

    if (result)
        return result;
    pci_set_word(pci->config + PCI_STATUS, 0x0280);
    pci->config[PCI_INTERRUPT_PIN] = 1;
    pci_set_long(pci->config + PMBA, 1);
    pci_set_word(pci->write_mask + PMBA, 0xffc0);
    pci->write_mask[PMREGMISC] = PM_ENABLED;
    pci->config[0x5b] = 0x02;
    pci->config[0x63] = 0x60;
    pci->config[0x90] = 1;
    pci_set_word(pci->write_mask + 0x90, 0xfff0);
    pci->write_mask[0xd2] = 0x0f;
    pci->config_written = piix4_pm_config_written;
    pci_device_seal(pci);
    return 0;
}

void piix4_pm_set_serial_ports(struct pci_device *pm, bool com1, bool com2)
{
    pm->config[0x67] = (com1 ? 0x08 : 0) | (com2 ? 0x90 : 0);
    pci_device_seal(pm);
}

static void piix4_pm_reset(struct device *device)
{
    struct piix4_pm *pm = (struct piix4_pm *)device;

    pci_device_reset(&pm->pci);
    piix4_pm_update(pm);
}

void piix4_pm_set_up(struct pci_device *pm)
{
    pci_device_config_write(pm, PMBA, 2, ACPI_PM_BASE | 1);
    pci_device_config_write(pm, PMREGMISC, 1, PM_ENABLED);
    pci_device_config_write(pm, PCI_INTERRUPT_LINE, 1, ACPI_SCI_IRQ);
}

static int piix4_pm_post_load(void *owner, struct error *err)
{
    (void)err;
    piix4_pm_update(owner);
    return 0;
}

static const struct state_field piix4_pm_fields[] = {
    STATE_ARRAY(struct piix4_pm, pci.config),
    STATE_END,
};
static const struct state_table piix4_pm_state = {
    .name = "PIIX4_PM",
    .version = 1,
    .fields = piix4_pm_fields,
    .post_load = piix4_pm_post_load,
};

static const struct device_type piix4_pm_type = {
    .name = "PIIX4_PM",
    .bus = "PCI",
    .description = "PM",
    .size = sizeof(struct piix4_pm),
    .reset = piix4_pm_reset,
    .destroy = piix_destroy,
    .state = &piix4_pm_state,
};

struct pci_device *piix4_pm_create(struct device_env *env, void (*pm_base)(void *opaque, uint16_t base), void *opaque,
                                   struct error *err)
{
    struct piix4_pm *pm = device_allocate(env, &piix4_pm_type, NULL, err);

    if (!pm)
        return NULL;
    pm->pm_base = pm_base;
    pm->opaque = opaque;
    if (piix4_pm_setup(&pm->pci, err)) {
        device_destroy(&pm->pci.device);
        return NULL;
    }
    return &pm->pci;
}
