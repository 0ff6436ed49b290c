/* e1000e: Intel 82574L, a gigabit Ethernet controller on PCI Express ("Intel 82574 GbE Controller Family Datasheet").
 *
 *     BAR 0   registers, 128 KiB             BAR 2   ports IOADDR, IODATA: a window to the registers
 *     BAR 1   flash, which is not fitted      BAR 3   MSI-X table: 2 receive, 2 transmit queues, other
 *
 * This file: the type, registers, reset, state. A write that gives the card work only asks for a turn of the loop
 * (net_work), so that vCPUs do not run back ends. Registers that are not known read as zero. Device lock held. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "devices/net/e1000e_internal.h"

#define REGISTERS_SIZE 0x20000

/* ---- Small things ---- */

bool e1000e_ring(const struct e1000e *nic, unsigned base_register, unsigned queue, struct e1000e_ring *ring)
{
    unsigned base = base_register + 0x100 * queue;

    *ring = (struct e1000e_ring){
        .base = (e1000e_get(nic, base) & ~15u) | (uint64_t)e1000e_get(nic, base + 4) << 32,
        .count = (e1000e_get(nic, base + 8) & 0xfff80) / 16,
        .head = e1000e_get(nic, base + 16) & 0xffff,
        .tail = e1000e_get(nic, base + 24) & 0xffff,
    };
    return ring->count && ring->head < ring->count && ring->tail < ring->count;
}

void e1000e_count(struct e1000e *nic, unsigned low, uint32_t amount)
{
    uint32_t *counter = e1000e_register(nic, low);

    *counter = *counter + amount < *counter ? UINT32_MAX : *counter + amount;
}

void e1000e_count_64(struct e1000e *nic, unsigned low, uint32_t amount)
{
    uint64_t sum = (e1000e_get(nic, low) | (uint64_t)e1000e_get(nic, low + 4) << 32) + amount;

    *e1000e_register(nic, low) = (uint32_t)sum;
    *e1000e_register(nic, low + 4) = (uint32_t)(sum >> 32);
}

void e1000e_count_size(struct e1000e *nic, unsigned first, size_t size)
{
    static const uint16_t limits[] = { 64, 127, 255, 511, 1023 };
    unsigned i = 0;

    while (i < ARRAY_SIZE(limits) && size > limits[i])
        i++;
    e1000e_count(nic, first + 4 * i, 1);
}

/* ---- Time stamps: SYSTIM counts up by TIMINCA's value each period of 40 ns ---- */

static uint64_t system_time(const struct e1000e *nic)
{
    uint32_t increment = nic->time[(TIMINCA - TIME_BASE) / 4], period = MAX(increment >> 24, 1u);

    return nic->time_base + (e1000e_now(nic) - nic->time_started_ns) / (40 * period) * (increment & 0xffffff);
}

static uint32_t time_read(struct e1000e *nic, unsigned offset)
{
    if (offset == SYSTIML)
        nic->time[1] = (uint32_t)(system_time(nic) >> 32); /* latched for the read of SYSTIMH */
    return offset == SYSTIML ? (uint32_t)system_time(nic) : nic->time[(offset - TIME_BASE) / 4];
}

static void time_write(struct e1000e *nic, unsigned offset, uint32_t value)
{
    uint64_t now = system_time(nic);

    nic->time_started_ns = e1000e_now(nic);
    nic->time_base = now;
    if (offset == SYSTIML)
        nic->time_base = (now & ~0xffffffffull) | value;
    else if (offset == SYSTIMH)
        nic->time_base = (uint32_t)now | (uint64_t)value << 32;
    nic->time[(offset - TIME_BASE) / 4] = value;
}

/* ---- Registers ---- */

/* Which there are beside those that need code, and what may be written. */
static const struct {
    uint16_t first, last;
    uint32_t mask;
} plain_registers[] = {
    { CTRL_EXT, CTRL_EXT, ~(uint32_t)(CTRL_EXT_ASDCHK | CTRL_EXT_EE_RST) & 0x7fffffff },
    { FCAL, FCT, ~0u },
    { VET, VET, 0xffff },
    { EIAC, IAM, INT_WRITABLE | INT_ASSERTED },
    { IVAR, IVAR, ~0u },
    { EITR, EITR + 16, 0xffff },
    { ITR, ITR, 0xffff },
    { RCTL, RCTL, ~0u },
    { FCTTV, FCTTV, 0xffff },
    { TCTL, TCTL, ~0u },
    { TIPG, TIPG, ~0u },
    { AIT, AIT, 0xffff },
    { LEDCTL, LEDCTL, ~0u },
    { EXTCNF_CTRL, EXTCNF_CTRL, ~0u },
    { PBA, PBA, 0xffff },
    { PBS, PBS, ~0u },
    { EEMNGCTL, EEMNGCTL, 0 },
    { FCRTL, PSRCTL, ~0u },
    { RDFH, RDFH + 0x20, ~0u },
    { RDBAL, RDBAH, ~0u },
    { RDLEN, RDLEN, 0xfff80 },
    { RDH, RDH, 0xffff },
    { RXDCTL, RXDCTL, ~0u },
    { RADV, RADV, 0xffff },
    { RDBAL + 0x100, RDBAH + 0x100, ~0u },
    { RDLEN + 0x100, RDLEN + 0x100, 0xfff80 },
    { RDH + 0x100, RDT + 0x100, 0xffff },
    { RXDCTL + 0x100, RXDCTL + 0x100, ~0u },
    { RSRPD, RAID, ~0u },
    { TDFH, TDFH + 0x20, ~0u },
    { TDBAL, TDBAH, ~0u },
    { TDLEN, TDLEN, 0xfff80 },
    { TDH, TDH, 0xffff },
    { TIDV, TIDV, 0xffff },
    { TXDCTL, TXDCTL, ~0u },
    { TADV, TADV, 0xffff },
    { TARC, TARC, ~0u },
    { TDBAL + 0x100, TDBAH + 0x100, ~0u },
    { TDLEN + 0x100, TDLEN + 0x100, 0xfff80 },
    { TDH + 0x100, TDH + 0x100, 0xffff },
    { TXDCTL + 0x100, TXDCTL + 0x100, ~0u },
    { TARC + 0x100, TARC + 0x100, ~0u },
    { RXCSUM, RFCTL, ~0u },
    { MTA, MTA + 4 * 127, ~0u },
    { RAL, RAL + 4 * 31, ~0u },
    { VFTA, VFTA + 4 * 127, ~0u },
    { WUC, MANC + 0xdc, ~0u },
    { GCR, GCR + 0x4c, ~0u },
    { 0x5b58, 0x5b7c, ~0u },
    { FWSM, FWSM, 0 },
    { RETA, RSSRK + 4 * 9, ~0u },
};

/* What may be written; 0 and *known false: there is no such register. */
static uint32_t write_mask(unsigned offset, bool *known)
{
    for (size_t i = 0; i < ARRAY_SIZE(plain_registers); i++) {
        if (offset >= plain_registers[i].first && offset <= plain_registers[i].last) {
            *known = true;
            return plain_registers[i].mask;
        }
    }
    *known = false;
    return 0;
}

static void reset_registers(struct e1000e *nic);

static void write_ctrl(struct e1000e *nic, uint32_t value)
{
    if (value & CTRL_RST) {
        reset_registers(nic);
        return;
    }
    *e1000e_register(nic, CTRL) = value & ~CTRL_PHY_RST;
    if (value & CTRL_PHY_RST) {
        *e1000e_register(nic, STATUS) |= STATUS_PHYRA;
        e1000e_link_reset(nic);
    }
    e1000e_link_update(nic, true);
}

/* SMBI (bit 0) is a semaphore that reading takes. */
static uint32_t read_semaphore(struct e1000e *nic)
{
    uint32_t value = e1000e_get(nic, SWSM);

    *e1000e_register(nic, SWSM) = value | 1;
    return value;
}

static uint32_t read_register(struct e1000e *nic, unsigned offset)
{
    uint32_t value;

    switch (offset) {
    case ICR:
        return e1000e_read_icr(nic);
    case STATUS:
        return e1000e_read_status(nic);
    case SWSM:
        return read_semaphore(nic);
    case ICS:
        return e1000e_get(nic, ICR);
    case IMC:
        return e1000e_get(nic, IMS);
    default:
        break;
    }
    if (offset >= TIME_BASE && offset < TIME_END)
        return time_read(nic, offset);
    if (offset >= REGISTERS_END) {
        log_event(unimp, "e1000e: read of register 0x%x\n", offset);
        return 0;
    }
    value = e1000e_get(nic, offset);
    if (offset >= STATISTICS && offset < STATISTICS_END)
        *e1000e_register(nic, offset) = 0;
    return value;
}

static void write_plain(struct e1000e *nic, unsigned offset, uint32_t value)
{
    uint32_t *stored = e1000e_register(nic, offset), mask;
    bool known;

    mask = write_mask(offset, &known);
    if (!known)
        log_event(unimp, "e1000e: write of 0x%x to register 0x%x\n", value, offset);
    *stored = (*stored & ~mask) | (value & mask);
    /* What lets packets through. */
    if (offset == RCTL || offset == TCTL)
        net_work_schedule(&nic->work);
}

static void write_register(struct e1000e *nic, unsigned offset, uint32_t value)
{
    switch (offset) {
    case TDT:
    case TDT + 0x100:
    case RDT:
        *e1000e_register(nic, offset) = value & 0xffff;
        net_work_schedule(&nic->work);
        return;
    case CTRL:
        write_ctrl(nic, value);
        return;
    case STATUS:
        if (!(value & STATUS_PHYRA))
            *e1000e_register(nic, STATUS) &= ~(uint32_t)STATUS_PHYRA;
        return;
    case EECD:
        *e1000e_register(nic, EECD) =
            EECD_PRESENT | EECD_AUTO_RD | (value & EECD_REQUEST ? EECD_REQUEST | EECD_GRANT : 0);
        return;
    case EERD:
        e1000e_write_eerd(nic, value);
        return;
    case MDIC:
        e1000e_write_mdic(nic, value);
        return;
    case ICR:
        e1000e_write_icr(nic, value);
        return;
    case ICS:
        e1000e_interrupt_raise(nic, value & INT_WRITABLE);
        return;
    case IMS:
        *e1000e_register(nic, IMS) |= value & INT_WRITABLE;
        e1000e_interrupt_update(nic);
        return;
    case IMC:
        e1000e_write_imc(nic, value);
        return;
    case SWSM:
        *e1000e_register(nic, SWSM) = value & 0xf;
        return;
    case RDTR:
        *e1000e_register(nic, RDTR) = value & 0xffff;
        if (value & RDTR_FPD)
            e1000e_interrupt_raise(nic, INT_RXT0);
        return;
    default:
        break;
    }
    if (offset >= TIME_BASE && offset < TIME_END)
        time_write(nic, offset, value);
    else if (offset < REGISTERS_END)
        write_plain(nic, offset, value);
    else
        log_event(unimp, "e1000e: write of 0x%x to register 0x%x\n", value, offset);
}

static uint64_t mmio_read(void *opaque, uint64_t offset, unsigned size)
{
    (void)size;
    return read_register(opaque, (unsigned)offset & ~3u);
}

static void mmio_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
    (void)size;
    write_register(opaque, (unsigned)offset & ~3u, (uint32_t)value);
}

static uint64_t flash_read(void *opaque, uint64_t offset, unsigned size)
{
    (void)opaque, (void)offset, (void)size;
    return ~0ull;
}

static void flash_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
    (void)opaque, (void)offset, (void)size, (void)value;
}

static uint64_t port_read(void *opaque, uint64_t offset, unsigned size)
{
    struct e1000e *nic = opaque;

    (void)size;
    if (offset == 0)
        return nic->io_address;
    return offset == 4 && nic->io_address < REGISTERS_SIZE ? read_register(nic, nic->io_address & ~3u) : 0;
}

static void port_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
    struct e1000e *nic = opaque;

    (void)size;
    if (offset == 0)
        nic->io_address = (uint32_t)value;
    else if (offset == 4 && nic->io_address < REGISTERS_SIZE)
        write_register(nic, nic->io_address & ~3u, (uint32_t)value);
}

static const struct io_ops mmio_ops = { .read = mmio_read, .write = mmio_write, .min_size = 4, .max_size = 4 };
static const struct io_ops flash_ops = { .read = flash_read, .write = flash_write, .min_size = 1, .max_size = 4 };
static const struct io_ops port_ops = { .read = port_read, .write = port_write, .min_size = 4, .max_size = 4 };

/* ---- The network's side ---- */

static void work(void *opaque)
{
    struct e1000e *nic = opaque;

    net_client_resume(&nic->nic.client);
    e1000e_transmit_all(nic);
}

static void peer_ready(struct net_client *client)
{
    net_work_schedule(&container_of(client, struct e1000e, nic.client)->work);
}

static void link_changed(struct net_client *client)
{
    e1000e_link_update(container_of(client, struct e1000e, nic.client), true);
}

static const struct net_client_ops nic_ops = {
    .kind = "nic",
    .can_receive = e1000e_can_receive,
    .receive = e1000e_receive,
    .peer_ready = peer_ready,
    .peer_changed = link_changed,
    .link_changed = link_changed,
};

/* ---- Life ---- */

static void reset_registers(struct e1000e *nic)
{
    uint32_t low, high = 0;

    e1000e_interrupt_stop(nic);
    e1000e_transmit_reset(nic);
    memset(nic->registers, 0, sizeof(nic->registers));
    memset(nic->time, 0, sizeof(nic->time));
    nic->time_base = 0;
    nic->time_started_ns = e1000e_now(nic);
    *e1000e_register(nic, CTRL) = 0x00000009 | CTRL_SLU;
    *e1000e_register(nic, CTRL_EXT) = 0x00100000;
    *e1000e_register(nic, EECD) = EECD_PRESENT | EECD_AUTO_RD;
    *e1000e_register(nic, VET) = 0x8100;
    *e1000e_register(nic, PBA) = 0x00140014;
    *e1000e_register(nic, LEDCTL) = 0x07061302;
    *e1000e_register(nic, EEMNGCTL) = 1 << 18; /* configuration done */
    *e1000e_register(nic, FWSM) = 0x8000;      /* firmware's configuration done too */
    *e1000e_register(nic, WUC) = 0;
    *e1000e_register(nic, RXCSUM) = RXCSUM_IPOFL | RXCSUM_TUOFL;
    *e1000e_register(nic, RXDCTL) = *e1000e_register(nic, RXDCTL + 0x100) = 1 << 16;
    *e1000e_register(nic, TARC) = *e1000e_register(nic, TARC + 0x100) = 3 | 1 << 10;
    memcpy(&low, nic->nic.mac, 4);
    memcpy(&high, nic->nic.mac + 4, 2);
    *e1000e_register(nic, RAL) = low;
    *e1000e_register(nic, RAH) = high | RAH_VALID;
    e1000e_link_reset(nic);
    pci_intx_set(&nic->pci, false);
}

static void reset_device(struct device *device)
{
    struct e1000e *nic = container_of(device, struct e1000e, pci.device);

    pci_device_reset(&nic->pci);
    nic->io_address = 0;
    reset_registers(nic);
    net_client_purge(&nic->nic.client);
}

static void destroy_device(struct device *device)
{
    struct e1000e *nic = container_of(device, struct e1000e, pci.device);

    e1000e_interrupt_stop(nic);
    net_work_destroy(&nic->work);
    net_nic_remove(&nic->nic);
    pci_device_detach(&nic->pci);
    for (unsigned queue = 0; queue < E1000E_QUEUES; queue++)
        free(nic->transmit[queue].data);
    free(nic->receive_buffer);
}

/* Power management and PCI Express capabilities, as much as drivers look at. */
static int add_capabilities(struct pci_device *pci, struct error *err)
{
    int power = pci_capability_add(pci, PCI_CAP_PM, 8, err), express;

    if (power < 0)
        return power;
    pci_set_word(pci->config + power + 2, 0x0022); /* version 1.1, device specific initialisation */
    pci_set_word(pci->config + power + 4, 1 << 3); /* no soft reset */
    pci_set_word(pci->write_mask + power + 4, 0x0103);
    int result = pci_msi_add(pci, 1, err);
    if (result)
        return result;
    express = pci_capability_add(pci, PCI_CAP_EXPRESS, 0x3c, err);
    if (express < 0)
        return express;
    pci_set_word(pci->config + express + 2, 0x0092); /* version 2, endpoint integrated into the root complex */
    pci_set_long(pci->config + express + 4, 0x00008000);
    pci_set_word(pci->write_mask + express + 8, 0x7fff);
    return pci_msix_add(pci, E1000E_VECTORS, 3, err);
}

static int set_up_pci(struct e1000e *nic, struct option_list *options, struct error *err)
{
    static const struct pci_identity identity = {
        .vendor = 0x8086,
        .device = 0x10d3,
        .class_code = 0x020000,
        .subsystem_vendor = 0x8086,
        .express = true,
    };
    struct pci_device *pci = &nic->pci;
    int result = pci_device_attach_option(pci, options, &identity, err);

    if (result)
        return result;
    pci_set_interrupt_pin(pci, 1);
    if ((result = pci_bar_register(pci, 0, PCI_BAR_MEM32, false, REGISTERS_SIZE, &mmio_ops, nic, "e1000e", err)) ||
        (result =
             pci_bar_register(pci, 1, PCI_BAR_MEM32, false, REGISTERS_SIZE, &flash_ops, nic, "e1000e flash", err)) ||
        (result = pci_bar_register(pci, 2, PCI_BAR_IO, false, 32, &port_ops, nic, "e1000e ports", err)) ||
        (result = add_capabilities(pci, err)))
        return result;
    pci_device_seal(pci);
    return 0;
}

static int init_device(struct device *device, struct option_list *options, struct error *err)
{
    struct e1000e *nic = container_of(device, struct e1000e, pci.device);
    int result = 0;

    e1000e_interrupt_init(nic);
    nic->receive_buffer = malloc(E1000E_FRAME_MAX + 8);
    for (unsigned queue = 0; queue < E1000E_QUEUES; queue++) {
        nic->transmit[queue].data = malloc(NET_MAX_PACKET);
        if (!nic->transmit[queue].data || !nic->receive_buffer)
            result = error_set(err, ENOMEM, "out of memory");
    }
    if (!result)
        result = net_work_init(&nic->work, device->env->loop, work, nic, err);
    if (!result)
        result = set_up_pci(nic, options, err);
    if (!result)
        result = net_nic_init(&nic->nic, device->env, &nic_ops, device->id, options, err);
    if (result)
        destroy_device(device);
    else
        e1000e_nvm_init(nic);
    return result;
}

/* ---- State ---- */

static void pre_save(void *owner)
{
    struct e1000e *nic = owner;

    memcpy(nic->saved_msix, nic->pci.msix.entries, sizeof(nic->saved_msix));
    nic->saved_pending = nic->pci.msix.pending[0];
    /* Delays end now: whoever loads this has the causes. */
    *e1000e_register(nic, ICR) |= nic->delayed;
    nic->delayed = 0;
    nic->time_base = system_time(nic);
    nic->time_started_ns = e1000e_now(nic);
}

static int post_load(void *owner, struct error *err)
{
    struct e1000e *nic = owner;
    struct pci_device *pci = &nic->pci;

    (void)err;
    e1000e_interrupt_stop(nic);
    e1000e_transmit_reset_packets(nic);
    for (unsigned i = 0; i < PCIE_CONFIG_SIZE; i++)
        pci->config[i] = (uint8_t)((pci->initial[i] & ~pci->write_mask[i]) | (pci->config[i] & pci->write_mask[i]));
    device_load_bool(&pci->intx_asserted);
    memcpy(pci->msix.entries, nic->saved_msix, sizeof(nic->saved_msix));
    for (unsigned i = 0; i < E1000E_VECTORS; i++)
        pci->msix.entries[i].control &= 1;
    pci->msix.pending[0] = nic->saved_pending & ((1u << E1000E_VECTORS) - 1);
    nic->time_started_ns = e1000e_now(nic);
    pci_device_config_write(pci, PCI_COMMAND, 2, pci_get_word(pci->config + PCI_COMMAND));
    e1000e_interrupt_update(nic);
    net_work_schedule(&nic->work);
    return 0;
}

#define CONTEXT(queue)                                                                                                 \
    {                                                                                                                  \
        "context" #queue, offsetof(struct e1000e, transmit[queue].context), 4, 4                                       \
    }
static const struct state_field fields[] = {
    STATE_ARRAY(struct e1000e, pci.config),
    STATE_FIELD(struct e1000e, pci.intx_asserted),
    STATE_ARRAY(struct e1000e, registers),
    STATE_ARRAY(struct e1000e, time),
    STATE_FIELD(struct e1000e, time_base),
    STATE_ARRAY(struct e1000e, phy),
    STATE_FIELD(struct e1000e, io_address),
    CONTEXT(0),
    CONTEXT(1),
    { "msix", offsetof(struct e1000e, saved_msix), 4, sizeof(((struct e1000e *)0)->saved_msix) / 4 },
    STATE_FIELD(struct e1000e, saved_pending),
    STATE_END,
};
static const struct state_table e1000e_state = {
    .name = "e1000e",
    .version = 1,
    .fields = fields,
    .pre_save = pre_save,
    .post_load = post_load,
};

extern const struct device_type e1000e_type;
const struct device_type e1000e_type = {
    .name = "e1000e",
    .bus = "PCI",
    .description = "Intel 82574L GbE Controller",
    .size = sizeof(struct e1000e),
    .user_creatable = true,
    .properties = "netdev=<id>,mac=<address>,addr=<slot[.function]>",
    .init = init_device,
    .reset = reset_device,
    .destroy = destroy_device,
    .state = &e1000e_state,
};
