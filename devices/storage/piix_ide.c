/* The IDE function of the PIIX3 (Intel 82371SB datasheet, 2.3 and 2.7; SFF-8038i): two channels at the ISA ports and
 * interrupts, each with a bus master.
 *
 *   1f0..1f7, 3f6, IRQ 14    170..177, 376, IRQ 15
 *   BAR 4: for each channel, 8 bytes apart
 *     +0 command   3 to memory | 0 start
 *     +2 status    6, 5 drive can DMA | 2 interrupt | 1 error | 0 active
 *     +4 address of the PRD table, below 4 GiB, within 64 KiB
 *   PRD: address 31..1 | count 15..1 (0: 64 KiB), 31 end of table
 *
 * DMA begins when both the drive wants to move data and the start bit is set, in either order. Data that a drive moves
 * after the bus master was stopped is moved all the same: I/O under way cannot be called back. Device lock held. */
#include "devices/storage/ide.h"
#include "devices/pci/pci.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"

enum { BM_COMMAND = 0, BM_STATUS = 2, BM_TABLE = 4, BM_CHANNEL_SIZE = 8 };
enum { BM_START = 1 << 0, BM_TO_MEMORY = 1 << 3 };
enum { BM_ACTIVE = 1 << 0, BM_ERROR = 1 << 1, BM_INTERRUPT = 1 << 2, BM_CAPABLE = 3 << 5 };
#define IDETIM        0x40
#define PRD_TABLE_MAX 8192u /* that is 64 KiB of them */

struct bus_master {
    struct piix_ide *ide;
    struct ide_channel channel;
    uint8_t command, status;
    uint32_t table;
    struct ata_command *waiting; /* wants its data phase */
    uint64_t wanted;             /* bytes of it */
    bool table_ended;            /* the list reached to the table's end */
};

struct piix_ide {
    struct pci_device pci;
    struct bus_master channels[2];
    bool ports;
};

static const struct {
    uint16_t command, control;
    uint8_t irq;
} legacy[2] = { { 0x1f0, 0x3f6, 14 }, { 0x170, 0x376, 15 } };

static struct piix_ide *piix_of(struct device *device)
{
    return container_of(device, struct piix_ide, pci.device);
}

/* ---- DMA ---- */

static int map_table(struct bus_master *master, struct dma_list *list, uint64_t size)
{
    struct pci_device *pci = &master->ide->pci;
    uint32_t base = master->table & 0xffff0000u, offset = master->table & 0xfffcu;

    master->table_ended = false;
    for (unsigned i = 0; i < PRD_TABLE_MAX && list->size < size; i++) {
        uint32_t entry[2], count;

        if (!pci_dma_read(pci, base | offset, entry, sizeof(entry)))
            return -EFAULT;
        offset = (offset + 8) & 0xfffc; /* a table does not leave its 64 KiB */
        count = entry[1] & 0xfffe ? entry[1] & 0xfffe : 0x10000;
        master->table_ended = (entry[1] >> 31) && count <= size - list->size;
        if (dma_list_add(list, entry[0] & ~1u, MIN(count, size - list->size)))
            return -EFAULT;
        if (entry[1] >> 31)
            break;
    }
    return 0;
}

static void try_transfer(struct bus_master *master)
{
    struct ata_command *command = master->waiting;

    if (!command || !(master->command & BM_START))
        return;
    master->waiting = NULL;
    if (!command->active)
        return;
    if (!(master->command & BM_TO_MEMORY) != !!command->progress.to_device)
        log_event(guest_errors, "piix-ide: the bus master's direction is not that of command 0x%02x\n",
                  command->tf.command);
    ata_dma_ready(command, map_table(master, &command->list, master->wanted));
}

static void on_map(void *opaque, struct ata_command *command, uint64_t size)
{
    struct bus_master *master = opaque;

    master->waiting = command;
    master->wanted = size;
    master->table_ended = false;
    try_transfer(master);
}

/* SFF-8038i 3.1: active stays set if the table is longer than the data; there is no interrupt if it was shorter. */
static bool on_ended(void *opaque, struct ata_command *command)
{
    struct bus_master *master = opaque;

    if (master->waiting == command)
        master->waiting = NULL;
    if (command->host_fault)
        master->status |= BM_ERROR;
    if (command->host_fault || command->host_short || master->table_ended)
        master->status &= ~BM_ACTIVE;
    return command->host_fault || !command->host_short || (command->status & ATA_STATUS_ERR);
}

static void on_interrupt(void *opaque)
{
    ((struct bus_master *)opaque)->status |= BM_INTERRUPT;
}

/* ---- Registers of the bus masters ---- */

static uint8_t read_byte(const struct bus_master *master, unsigned reg)
{
    switch (reg) {
    case BM_COMMAND:
        return master->command;
    case BM_STATUS:
        return master->status;
    case BM_TABLE ... BM_TABLE + 3:
        return (uint8_t)(master->table >> 8 * (reg - BM_TABLE));
    default:
        return 0xff;
    }
}

static void write_command(struct bus_master *master, uint8_t value)
{
    uint8_t old = master->command;

    master->command = value & (BM_START | BM_TO_MEMORY);
    if (!(value & BM_START)) {
        master->status &= ~BM_ACTIVE;
    } else if (!(old & BM_START)) {
        master->status |= BM_ACTIVE;
        try_transfer(master);
    }
}

static void write_byte(struct bus_master *master, unsigned reg, uint8_t value)
{
    unsigned shift;

    switch (reg) {
    case BM_COMMAND:
        write_command(master, value);
        break;
    case BM_STATUS:
        master->status = (uint8_t)((value & BM_CAPABLE) | (master->status & BM_ACTIVE) |
                                   (master->status & ~value & (BM_ERROR | BM_INTERRUPT)));
        break;
    case BM_TABLE ... BM_TABLE + 3:
        shift = 8 * (reg - BM_TABLE);
        master->table = ((master->table & ~(0xffu << shift)) | (uint32_t)value << shift) & ~3u;
        break;
    default:
        break;
    }
}

static uint64_t bm_read(void *opaque, uint64_t offset, unsigned size)
{
    struct piix_ide *ide = opaque;

    (void)size;
    return read_byte(&ide->channels[offset / BM_CHANNEL_SIZE], offset % BM_CHANNEL_SIZE);
}

static void bm_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
    struct piix_ide *ide = opaque;

    (void)size;
    write_byte(&ide->channels[offset / BM_CHANNEL_SIZE], offset % BM_CHANNEL_SIZE, (uint8_t)value);
}

static const struct io_ops bm_ops = { .read = bm_read, .write = bm_write, .min_size = 1, .max_size = 1 };

/* ---- Life ---- */

static const struct pci_identity piix3_identity = {
    .vendor = 0x8086, .device = 0x7010, .class_code = 0x010180, /* bus master; both channels at the ISA ports */
};

static void boot_path(const struct ata_bus *bus, unsigned unit, char *path, size_t size)
{
    const struct ide_channel *channel = container_of(bus, struct ide_channel, bus);
    const struct bus_master *master = channel->opaque;
    uint8_t devfn = master->ide->pci.devfn;

    snprintf(path, size, "/pci@i0cf8/ide@%x,%x/drive@%x/disk@%x", PCI_SLOT(devfn), PCI_FUNCTION(devfn),
             (unsigned)(master - master->ide->channels), unit);
}

static void reset_device(struct device *device)
{
    struct piix_ide *ide = piix_of(device);

    for (unsigned i = 0; i < 2; i++) {
        struct bus_master *master = &ide->channels[i];

        ide_channel_reset(&master->channel);
        master->command = master->status = 0;
        master->table = 0;
        master->waiting = NULL;
    }
    pci_device_reset(&ide->pci);
}

static int add_ports(struct piix_ide *ide, struct error *err)
{
    struct port_space *ports = ide->pci.device.env->ports;

    ide->ports = true;
    for (unsigned i = 0; i < 2; i++) {
        struct ide_channel *channel = &ide->channels[i].channel;
        int result = port_space_add(ports, legacy[i].command, 8, &ide_command_ops, channel, "ide", err);

        result = result ?: port_space_add(ports, legacy[i].control, 1, &ide_control_ops, channel, "ide control", err);
        if (result)
            return result;
    }
    return 0;
}

static void destroy_device(struct device *device)
{
    struct piix_ide *ide = piix_of(device);

    for (unsigned i = 0; i < 2; i++) {
        struct bus_master *master = &ide->channels[i];

        if (!master->ide)
            continue;
        device_bus_remove(device->env, &master->channel.bus.bus);
        if (ide->ports) {
            port_space_remove(device->env->ports, legacy[i].command, 8, &master->channel);
            port_space_remove(device->env->ports, legacy[i].control, 1, &master->channel);
        }
        ide_channel_destroy(&master->channel);
    }
    pci_device_detach(&ide->pci);
}

static int setup(struct piix_ide *ide, const char *id, struct error *err)
{
    struct device_env *env = ide->pci.device.env;
    struct pci_device *pci = &ide->pci;
    int result;

    pci_set_word(pci->config + PCI_STATUS, 0x0280);
    /* IDETIM: both channels decoded, as firmware leaves them for kernels that are started without any. */
    pci_set_long(pci->config + IDETIM, 0x80008000u);
    pci_set_long(pci->write_mask + IDETIM, 0xffffffffu);
    result = pci_bar_register(pci, 4, PCI_BAR_IO, false, 2 * BM_CHANNEL_SIZE, &bm_ops, ide, "piix-ide", err);
    for (unsigned i = 0; i < 2 && !result; i++) {
        struct bus_master *master = &ide->channels[i];
        struct ide_channel *channel = &master->channel;

        master->ide = ide;
        ide_channel_init(channel, env, &env->isa_irq[legacy[i].irq]);
        channel->map = on_map;
        channel->ended = on_ended;
        channel->interrupted = on_interrupt;
        channel->opaque = master;
        channel->bus.boot_path = boot_path;
        result = ata_bus_add(env, &channel->bus, id, i, err);
    }
    pci_device_seal(pci);
    return result ?: add_ports(ide, err);
}

static int init_device(struct device *device, struct option_list *options, struct error *err)
{
    struct piix_ide *ide = piix_of(device);
    const char *id = strcmp(device->id, device->type->name) ? device->id : NULL;
    int result = pci_device_attach_option(&ide->pci, options, &piix3_identity, err);

    result = result ?: setup(ide, id, err);
    if (result)
        destroy_device(device);
    return result;
}

static void pre_save(void *owner)
{
    struct piix_ide *ide = owner;

    for (unsigned i = 0; i < 2; i++)
        ide_channel_drain(&ide->channels[i].channel);
}

static int post_load(void *owner, struct error *err)
{
    struct piix_ide *ide = owner;

    (void)err;
    for (unsigned i = 0; i < 2; i++) {
        struct bus_master *master = &ide->channels[i];

        master->command &= BM_START | BM_TO_MEMORY;
        master->table &= ~3u;
        master->waiting = NULL;
        ide_channel_loaded(&master->channel);
        for (unsigned unit = 0; unit < ATA_BUS_UNITS; unit++) {
            struct ata_command *command = &master->channel.drives[unit].command;

            if (command->active && command->progress.dma) {
                master->waiting = command;
                master->wanted = command->progress.size;
            }
        }
    }
    /* BARs follow the command register */
    pci_device_config_write(&ide->pci, PCI_COMMAND, 2, pci_get_word(ide->pci.config + PCI_COMMAND));
    return 0;
}

static const struct state_field piix_fields[] = {
    STATE_ARRAY(struct piix_ide, pci.config),          IDE_CHANNEL_STATE(struct piix_ide, channels[0].channel),
    STATE_FIELD(struct piix_ide, channels[0].command), STATE_FIELD(struct piix_ide, channels[0].status),
    STATE_FIELD(struct piix_ide, channels[0].table),   IDE_CHANNEL_STATE(struct piix_ide, channels[1].channel),
    STATE_FIELD(struct piix_ide, channels[1].command), STATE_FIELD(struct piix_ide, channels[1].status),
    STATE_FIELD(struct piix_ide, channels[1].table),   STATE_END,
};
static const struct state_table piix_state = {
    .name = "piix-ide",
    .version = 1,
    .fields = piix_fields,
    .pre_save = pre_save,
    .post_load = post_load,
};

extern const struct device_type piix3_ide_type;
const struct device_type piix3_ide_type = {
    .name = "piix3-ide",
    .bus = "PCI",
    .description = "PIIX3 IDE controller",
    .size = sizeof(struct piix_ide),
    .user_creatable = true,
    .properties = "addr=<slot[.function]>",
    .init = init_device,
    .reset = reset_device,
    .destroy = destroy_device,
    .state = &piix_state,
};

struct device *piix_ide_create(struct device_env *env, int devfn, struct error *err)
{
    struct piix_ide *ide = device_allocate(env, &piix3_ide_type, NULL, err);

    if (!ide)
        return NULL;
    if (pci_device_attach(&ide->pci, env->pci_bus, devfn, &piix3_identity, err) || setup(ide, NULL, err)) {
        device_destroy(&ide->pci.device);
        return NULL;
    }
    device_reset(&ide->pci.device);
    return &ide->pci.device;
}
