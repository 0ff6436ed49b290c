/* A port of the AHCI controller: its registers, its link, and its resets (AHCI 1.3.1, 3.3 and 10).
 *
 *   PxCMD   0 ST | 1 SUD | 2 POD | 3 CLO | 4 FRE | 12..8 CCS | 14 FR | 15 CR | 24 ATAPI | 25 DLAE | 31..28 ICC
 *   PxTFD   15..8 error | 7..0 status            PxSSTS  11..8 power | 7..4 speed | 3..0 detection
 *
 * Stopping a port cancels its commands. I/O that has gone to the block layer cannot be called back, so CR stays 1, or
 * the link stays down, until that has ended: software waits for CR, and has 500 ms and then COMRESET (10.1.2). Device
 * lock held. */
#include "devices/storage/ahci_internal.h"

#include <string.h>

#include "base/log.h"

enum {
    REG_CLB = 0x00,
    REG_CLBU = 0x04,
    REG_FB = 0x08,
    REG_FBU = 0x0c,
    REG_IS = 0x10,
    REG_IE = 0x14,
    REG_CMD = 0x18,
    REG_TFD = 0x20,
    REG_SIG = 0x24,
    REG_SSTS = 0x28,
    REG_SCTL = 0x2c,
    REG_SERR = 0x30,
    REG_SACT = 0x34,
    REG_CI = 0x38,
};
enum { SCTL_DET = 0xf, DET_NONE = 0, DET_COMRESET = 1, DET_OFFLINE = 4 };

#define SSTS_UP       0x113u /* active, 1.5 Gb/s, device and link */
#define IE_WRITABLE   0xfdc000ffu
#define CMD_WRITABLE  (AHCI_CMD_ST | AHCI_CMD_FRE | AHCI_CMD_ATAPI | AHCI_CMD_DLAE)
#define CMD_FIXED     (AHCI_CMD_SUD | AHCI_CMD_POD)
#define TFD_NO_DEVICE 0x7fu

struct ata_device *ahci_port_device(const struct ahci_port *port)
{
    return port->bus.devices[0];
}

void ahci_port_raise(struct ahci_port *port, uint32_t bits)
{
    port->is |= bits;
    ahci_update_irq(port->ahci);
}

void ahci_port_set_taskfile(struct ahci_port *port, uint8_t status, uint8_t error)
{
    port->tfd = (uint32_t)error << 8 | status;
}

/* ---- Commands that have to end ---- */

/* Slots whose I/O goes on are in `draining` afterwards. */
void ahci_port_cancel(struct ahci_port *port)
{
    for (unsigned slot = 0; slot < AHCI_SLOTS; slot++) {
        if (!(port->active >> slot & 1) || (port->draining >> slot & 1))
            continue;
        if (ata_cancel(&port->commands[slot]))
            port->active &= ~(1u << slot);
        else
            port->draining |= 1u << slot;
    }
    port->exclusive = -1;
}

/* ---- The link ---- */

/* The first FIS of a drive after a reset: its signature (10.1.1). It has no interrupt bit. */
void ahci_port_send_signature(struct ahci_port *port)
{
    struct ata_device *device = ahci_port_device(port);
    struct ata_taskfile tf;
    uint8_t status, error;

    port->signature_due = false;
    ata_signature(device, &tf, &status, &error);
    port->sig = ata_signature_dword(device);
    /* PxTFD tells of a packet device's readiness too: DRDY does not matter, BSY does. */
    ahci_port_set_taskfile(port, status, error);
    if (port->cmd & AHCI_CMD_FRE)
        ahci_send_register_fis(port, &tf, false);
    else
        port->signature_due = true;
}

static void link_down(struct ahci_port *port, uint32_t ssts)
{
    ahci_port_cancel(port);
    port->ci = port->sact = 0;
    port->stopped = port->software_reset = port->signature_due = false;
    port->reset_due = false;
    port->ssts = ssts;
    port->sig = 0xffffffff;
    ahci_port_set_taskfile(port, TFD_NO_DEVICE, 0);
}

/* The drive answers when nothing of the time before is under way any more. */
static void link_up(struct ahci_port *port)
{
    struct ata_device *device = ahci_port_device(port);

    if (!device) {
        port->ssts = 0;
        return;
    }
    ahci_port_set_taskfile(port, TFD_NO_DEVICE | ATA_STATUS_BSY, 0);
    port->ssts = 1; /* device there, no link yet */
    if (port->draining) {
        port->reset_due = true;
        return;
    }
    port->ssts = SSTS_UP;
    port->serr |= AHCI_SERR_X;
    ata_reset(device, false);
    ahci_port_send_signature(port);
    ahci_port_raise(port, AHCI_IS_PCS);
}

void ahci_port_after_drain(struct ahci_port *port)
{
    ahci_port_drained(port->ahci);
    if (port->reset_due) {
        port->reset_due = false;
        link_up(port);
    }
    if (!(port->cmd & AHCI_CMD_ST))
        port->cmd &= ~(uint32_t)AHCI_CMD_CR;
    ahci_process(port);
}

static void write_sctl(struct ahci_port *port, uint32_t value)
{
    unsigned old = port->sctl & SCTL_DET, detection = value & SCTL_DET;

    port->sctl = value & 0xfff;
    if (detection == old)
        return;
    if (detection == DET_COMRESET)
        link_down(port, ahci_port_device(port) ? 1 : 0);
    else if (detection == DET_OFFLINE)
        link_down(port, DET_OFFLINE);
    else if (detection == DET_NONE)
        link_up(port);
}

/* ---- PxCMD ---- */

static void stop(struct ahci_port *port)
{
    ahci_port_cancel(port);
    port->ci = port->sact = 0;
    port->stopped = false;
    port->cmd &= ~(31u << AHCI_CMD_CCS_SHIFT);
    if (!port->draining)
        port->cmd &= ~(uint32_t)AHCI_CMD_CR;
}

static void write_cmd(struct ahci_port *port, uint32_t value)
{
    uint32_t old = port->cmd;

    port->cmd = (old & ~(uint32_t)CMD_WRITABLE) | (value & CMD_WRITABLE);
    if ((value & AHCI_CMD_CLO) && !(old & AHCI_CMD_ST))
        port->tfd &= ~(uint32_t)(ATA_STATUS_BSY | ATA_STATUS_DRQ);
    if (value & AHCI_CMD_FRE) {
        port->cmd |= AHCI_CMD_FR;
        if (port->signature_due)
            ahci_port_send_signature(port);
    } else {
        port->cmd &= ~(uint32_t)AHCI_CMD_FR;
    }
    if (!(old & AHCI_CMD_ST) && (value & AHCI_CMD_ST)) {
        if (!(value & AHCI_CMD_FRE))
            log_event(guest_errors, "ahci: port %u started without FRE\n", port->number);
        port->cmd |= AHCI_CMD_CR;
        port->last_slot = AHCI_SLOTS - 1;
        ahci_process(port);
    } else if ((old & AHCI_CMD_ST) && !(value & AHCI_CMD_ST)) {
        stop(port);
    }
}

/* ---- Registers ---- */

static uint64_t low(uint64_t old, uint32_t value)
{
    return (old & ~0xffffffffull) | value;
}
static uint64_t high(uint64_t old, uint32_t value)
{
    return (old & 0xffffffffull) | (uint64_t)value << 32;
}

uint32_t ahci_port_read(struct ahci_port *port, unsigned reg)
{
    switch (reg) {
    case REG_CLB:
        return (uint32_t)port->command_list;
    case REG_CLBU:
        return (uint32_t)(port->command_list >> 32);
    case REG_FB:
        return (uint32_t)port->received_fis;
    case REG_FBU:
        return (uint32_t)(port->received_fis >> 32);
    case REG_IS:
        return port->is;
    case REG_IE:
        return port->ie;
    case REG_CMD:
        return port->cmd;
    case REG_TFD:
        return port->tfd;
    case REG_SIG:
        return port->sig;
    case REG_SSTS:
        return port->ssts;
    case REG_SCTL:
        return port->sctl;
    case REG_SERR:
        return port->serr;
    case REG_SACT:
        return port->sact;
    case REG_CI:
        return port->ci;
    default:
        return 0;
    }
}

/* PCS is there as long as PxSERR says why (3.3.5). */
static void update_connection(struct ahci_port *port)
{
    if (port->serr & AHCI_SERR_X)
        port->is |= AHCI_IS_PCS;
    else
        port->is &= ~(uint32_t)AHCI_IS_PCS;
    ahci_update_irq(port->ahci);
}

void ahci_port_write(struct ahci_port *port, unsigned reg, uint32_t value)
{
    switch (reg) {
    case REG_CLB:
        port->command_list = low(port->command_list, value & ~0x3ffu);
        break;
    case REG_CLBU:
        port->command_list = high(port->command_list, value);
        break;
    case REG_FB:
        port->received_fis = low(port->received_fis, value & ~0xffu);
        break;
    case REG_FBU:
        port->received_fis = high(port->received_fis, value);
        break;
    case REG_IS:
        port->is &= ~value;
        update_connection(port);
        break;
    case REG_IE:
        port->ie = value & IE_WRITABLE;
        ahci_update_irq(port->ahci);
        break;
    case REG_CMD:
        write_cmd(port, value);
        break;
    case REG_SCTL:
        write_sctl(port, value);
        break;
    case REG_SERR:
        port->serr &= ~value;
        update_connection(port);
        break;
    case REG_SACT:
        if (port->cmd & AHCI_CMD_ST)
            port->sact |= value;
        break;
    case REG_CI:
        if (port->cmd & AHCI_CMD_ST)
            port->ci |= value;
        ahci_process(port);
        break;
    default:
        break;
    }
}

/* ---- Life ---- */

void ahci_port_reset(struct ahci_port *port)
{
    link_down(port, 0);
    port->is = port->ie = port->sctl = port->serr = 0;
    port->cmd = CMD_FIXED;
    link_up(port);
}

static void attached(struct ata_bus *bus, unsigned unit)
{
    (void)unit;
    link_up(container_of(bus, struct ahci_port, bus));
}

static void detached(struct ata_bus *bus, unsigned unit)
{
    struct ahci_port *port = container_of(bus, struct ahci_port, bus);

    (void)unit;
    link_down(port, 0);
    port->serr |= AHCI_SERR_X;
    ahci_port_raise(port, AHCI_IS_PCS);
}

void ahci_port_init(struct ahci *ahci, unsigned number)
{
    struct ahci_port *port = &ahci->ports[number];

    port->ahci = ahci;
    port->number = number;
    port->exclusive = -1;
    port->bus.units = 1;
    port->bus.attached = attached;
    port->bus.detached = detached;
    for (unsigned slot = 0; slot < AHCI_SLOTS; slot++) {
        port->commands[slot].slot = slot;
        ata_command_init(&port->commands[slot], &ahci_command_ops, port, ahci->pci.device.env->mem);
    }
}
