/* The registers of an IDE channel (ATA/ATAPI-5 chapter 7):
 *
 *   +0 data   +1 error | feature   +2 count   +3 LBA low   +4 mid   +5 high   +6 device   +7 status | command
 *   control block: alternate status | device control: 7 high order byte, 2 SRST, 1 nIEN
 *
 * What the host writes goes into both drives; a drive that is busy does not take it. A drive's registers are its
 * command's tf, status and error. INTRQ is that of the selected drive. Device lock held. */
#include "devices/storage/ide.h"

#include <string.h>

#include "base/log.h"

enum { REG_DATA, REG_ERROR, REG_COUNT, REG_LBA_LOW, REG_LBA_MID, REG_LBA_HIGH, REG_DEVICE, REG_STATUS };
enum { CONTROL_NIEN = 1 << 1, CONTROL_SRST = 1 << 2, CONTROL_HOB = 1 << 7 };
enum { COMMAND_DEVICE_RESET = 0x08, COMMAND_DIAGNOSTIC = 0x90, COMMAND_PACKET = 0xa0 };

#define DEVICE_OBSOLETE 0xa0 /* bits 7 and 5, ones since ATA-1 */

static struct ata_device *device_of(const struct ide_drive *drive)
{
    return drive->channel->bus.devices[drive - drive->channel->drives];
}

static struct ide_drive *selected_drive(struct ide_channel *channel)
{
    return &channel->drives[channel->selected];
}

/* ---- INTRQ ---- */

static bool wants_irq(struct ide_channel *channel)
{
    return selected_drive(channel)->interrupt && !(channel->control & CONTROL_NIEN);
}

static void update_irq(struct ide_channel *channel)
{
    bool level = wants_irq(channel);

    if (level == channel->irq_level)
        return;
    channel->irq_level = level;
    if (level && channel->interrupted)
        channel->interrupted(channel->opaque);
    irq_line_set(&channel->irq, level);
}

static void set_interrupt(struct ide_drive *drive, bool level)
{
    drive->interrupt = level;
    update_irq(drive->channel);
}

/* ---- Resets ---- */

static void post_signature(struct ide_drive *drive)
{
    struct ata_command *command = &drive->command;

    drive->resetting = false;
    if (!device_of(drive))
        return;
    ata_signature(device_of(drive), &command->tf, &command->status, &command->error);
    command->tf.device = DEVICE_OBSOLETE;
}

/* The drive is busy from now until SRST is clear and its I/O is over. */
static void begin_reset(struct ide_drive *drive)
{
    drive->resetting = true;
    drive->interrupt = false;
    drive->data_position = 0;
    drive->command.status = ATA_STATUS_BSY;
    if (device_of(drive))
        ata_cancel(&drive->command);
}

static void try_end_reset(struct ide_drive *drive)
{
    if (!drive->resetting || drive->command.active || (drive->channel->control & CONTROL_SRST))
        return;
    if (device_of(drive))
        ata_reset(device_of(drive), true);
    post_signature(drive);
}

static void write_control(struct ide_channel *channel, uint8_t value)
{
    uint8_t old = channel->control;

    channel->control = value & (CONTROL_NIEN | CONTROL_SRST);
    channel->high_order = value & CONTROL_HOB;
    for (unsigned unit = 0; unit < ATA_BUS_UNITS; unit++) {
        if (!(old & CONTROL_SRST) && (value & CONTROL_SRST))
            begin_reset(&channel->drives[unit]);
        else if ((old & CONTROL_SRST) && !(value & CONTROL_SRST))
            try_end_reset(&channel->drives[unit]);
    }
    if (value & CONTROL_SRST)
        channel->selected = 0;
    update_irq(channel);
}

/* ---- What drives tell ---- */

static void on_map(struct ata_command *command, uint64_t size)
{
    struct ide_drive *drive = command->host;

    if (drive->channel->map)
        drive->channel->map(drive->channel->opaque, command, size);
    else
        ata_dma_ready(command, -1);
}

static void on_drq(struct ata_command *command, bool interrupt)
{
    struct ide_drive *drive = command->host;

    drive->data_position = 0;
    if (interrupt)
        set_interrupt(drive, true);
}

static void on_complete(struct ata_command *command, bool interrupt)
{
    struct ide_drive *drive = command->host;
    struct ide_channel *channel = drive->channel;

    if (command->progress.dma && channel->ended)
        interrupt &= channel->ended(channel->opaque, command);
    if (interrupt)
        set_interrupt(drive, true);
}

static void on_cancelled(struct ata_command *command)
{
    struct ide_drive *drive = command->host;

    if (command->tf.command == COMMAND_DEVICE_RESET && !drive->resetting)
        ata_execute(device_of(drive), command);
    else
        try_end_reset(drive);
}

static const struct ata_host_ops drive_ops = {
    .map = on_map,
    .drq = on_drq,
    .complete = on_complete,
    .cancelled = on_cancelled,
};

/* ---- Commands ---- */

/* EXECUTE DEVICE DIAGNOSTIC is for both drives, and ends with drive 0 selected. */
static void run_diagnostic(struct ide_channel *channel)
{
    for (unsigned unit = 0; unit < ATA_BUS_UNITS; unit++) {
        struct ide_drive *drive = &channel->drives[unit];

        if (device_of(drive) && !drive->command.active && !drive->resetting)
            post_signature(drive);
    }
    channel->selected = 0;
    set_interrupt(&channel->drives[0], device_of(&channel->drives[0]) != NULL);
}

static void write_command(struct ide_channel *channel, uint8_t value)
{
    struct ide_drive *drive = selected_drive(channel);
    struct ata_device *device = device_of(drive);
    struct ata_command *command = &drive->command;

    if (!device || drive->resetting)
        return;
    set_interrupt(drive, false);
    if (value == COMMAND_DEVICE_RESET && ata_is_packet_device(device)) {
        command->tf.command = value;
        command->status = ATA_STATUS_BSY;
        drive->data_position = 0;
        if (ata_cancel(command))
            ata_execute(device, command);
        return;
    }
    if (command->active) {
        log_event(guest_errors, "ide: command 0x%02x while 0x%02x is under way\n", value, command->tf.command);
        return;
    }
    if (value == COMMAND_DIAGNOSTIC) {
        run_diagnostic(channel);
        return;
    }
    command->tf.command = value;
    command->has_packet = false;
    ata_execute(device, command);
}

/* ---- The data register ---- */

static uint32_t move_data(struct ide_channel *channel, unsigned size, bool write, uint32_t value)
{
    struct ide_drive *drive = selected_drive(channel);
    struct ata_command *command = &drive->command;
    uint32_t block, result = 0;
    uint8_t *data = device_of(drive) ? ata_pio_data(command, &block) : NULL;

    if (!data || command->progress.to_device != write) {
        log_event(guest_errors, "ide: data register accessed when no data is wanted\n");
        return 0;
    }
    block = (uint32_t)ALIGN_UP(block, 2); /* words: the buffer has a byte more */
    for (unsigned i = 0; i < size && drive->data_position < block; i++) {
        if (write)
            data[drive->data_position++] = (uint8_t)(value >> 8 * i);
        else
            result |= (uint32_t)data[drive->data_position++] << 8 * i;
    }
    if (drive->data_position >= block) {
        drive->data_position = 0;
        command->status = ATA_STATUS_BSY;
        ata_pio_done(command);
    }
    return result;
}

/* ---- Registers ---- */

/* Position of an address register's current byte; the previous one is 24 bits above. */
static unsigned lba_shift(unsigned reg)
{
    return 8 * (reg - REG_LBA_LOW);
}

static void write_taskfile(struct ata_taskfile *tf, unsigned reg, uint8_t value)
{
    unsigned shift;

    switch (reg) {
    case REG_ERROR:
        tf->feature = (uint16_t)(tf->feature << 8 | value);
        break;
    case REG_COUNT:
        tf->count = (uint16_t)(tf->count << 8 | value);
        break;
    case REG_DEVICE:
        tf->device = value | DEVICE_OBSOLETE;
        break;
    default:
        shift = lba_shift(reg);
        tf->lba = (tf->lba & ~(0xffull << (shift + 24))) | (tf->lba >> shift & 0xff) << (shift + 24);
        tf->lba = (tf->lba & ~(0xffull << shift)) | (uint64_t)value << shift;
        break;
    }
}

static void write_register(struct ide_channel *channel, unsigned reg, uint8_t value)
{
    channel->high_order = false;
    if (reg == REG_STATUS) {
        write_command(channel, value);
        return;
    }
    for (unsigned unit = 0; unit < ATA_BUS_UNITS; unit++) {
        struct ide_drive *drive = &channel->drives[unit];

        if (!drive->command.active && !drive->resetting)
            write_taskfile(&drive->command.tf, reg, value);
    }
    if (reg == REG_DEVICE) {
        channel->selected = value & ATA_DEVICE_SLAVE ? 1 : 0;
        update_irq(channel);
    }
}

static uint8_t read_register(struct ide_channel *channel, unsigned reg)
{
    struct ide_drive *drive = selected_drive(channel);
    struct ata_command *command = &drive->command;
    const struct ata_taskfile *tf = &command->tf;
    unsigned high = channel->high_order ? 1 : 0;

    /* Drive 0 answers for an absent drive 1 with zeroes; with none at all, pull-downs do. */
    if (!device_of(drive))
        return 0;
    switch (reg) {
    case REG_ERROR:
        return command->error;
    case REG_COUNT:
        return (uint8_t)(tf->count >> 8 * high);
    case REG_DEVICE:
        return (uint8_t)((tf->device & ~ATA_DEVICE_SLAVE) | DEVICE_OBSOLETE |
                         (channel->selected ? ATA_DEVICE_SLAVE : 0));
    case REG_STATUS:
        return command->status;
    default:
        return (uint8_t)(tf->lba >> (lba_shift(reg) + 24 * high));
    }
}

static uint64_t command_read(void *opaque, uint64_t offset, unsigned size)
{
    struct ide_channel *channel = opaque;
    uint64_t value = 0;

    if (offset == REG_DATA)
        return move_data(channel, size, false, 0);
    for (unsigned i = 0; i < size && offset + i <= REG_STATUS; i++)
        value |= (uint64_t)read_register(channel, (unsigned)offset + i) << 8 * i;
    if (offset + size > REG_STATUS)
        set_interrupt(selected_drive(channel), false);
    return value;
}

static void command_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
    struct ide_channel *channel = opaque;

    if (offset == REG_DATA) {
        move_data(channel, size, true, (uint32_t)value);
        return;
    }
    for (unsigned i = 0; i < size && offset + i <= REG_STATUS; i++)
        write_register(channel, (unsigned)offset + i, (uint8_t)(value >> 8 * i));
}

static uint64_t control_read(void *opaque, uint64_t offset, unsigned size)
{
    (void)offset, (void)size;
    return read_register(opaque, REG_STATUS);
}

static void control_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
    (void)offset, (void)size;
    write_control(opaque, (uint8_t)value);
}

/* The data register takes words and dwords; the others are bytes, side by side. */
const struct io_ops ide_command_ops = { .read = command_read, .write = command_write, .min_size = 1, .max_size = 4 };
const struct io_ops ide_control_ops = { .read = control_read, .write = control_write, .min_size = 1, .max_size = 1 };

/* ---- Life ---- */

static void attached(struct ata_bus *bus, unsigned unit)
{
    struct ide_channel *channel = container_of(bus, struct ide_channel, bus);

    channel->drives[unit].command.device = bus->devices[unit];
    post_signature(&channel->drives[unit]);
}

static void detached(struct ata_bus *bus, unsigned unit)
{
    struct ide_channel *channel = container_of(bus, struct ide_channel, bus);
    struct ide_drive *drive = &channel->drives[unit];

    ata_cancel(&drive->command);
    set_interrupt(drive, false);
    drive->resetting = false;
}

void ide_channel_init(struct ide_channel *channel, struct device_env *env, const struct irq_line *irq)
{
    channel->irq = *irq;
    channel->bus.units = ATA_BUS_UNITS;
    channel->bus.attached = attached;
    channel->bus.detached = detached;
    for (unsigned unit = 0; unit < ATA_BUS_UNITS; unit++) {
        channel->drives[unit].channel = channel;
        ata_command_init(&channel->drives[unit].command, &drive_ops, &channel->drives[unit], env->mem);
    }
}

void ide_channel_destroy(struct ide_channel *channel)
{
    for (unsigned unit = 0; unit < ATA_BUS_UNITS; unit++)
        ata_command_destroy(&channel->drives[unit].command);
}

void ide_channel_drain(struct ide_channel *channel)
{
    for (unsigned unit = 0; unit < ATA_BUS_UNITS; unit++) {
        if (channel->bus.devices[unit])
            ata_drain(channel->bus.devices[unit]);
    }
}

void ide_channel_reset(struct ide_channel *channel)
{
    ide_channel_drain(channel);
    channel->control = channel->selected = 0;
    channel->high_order = false;
    for (unsigned unit = 0; unit < ATA_BUS_UNITS; unit++) {
        begin_reset(&channel->drives[unit]);
        channel->drives[unit].command.tf = (struct ata_taskfile){ 0 };
        channel->drives[unit].command.error = 0;
        channel->drives[unit].command.status = 0;
        try_end_reset(&channel->drives[unit]);
    }
    update_irq(channel);
}

void ide_channel_loaded(struct ide_channel *channel)
{
    channel->selected &= 1;
    channel->control &= CONTROL_NIEN | CONTROL_SRST;
    device_load_bool(&channel->high_order);
    for (unsigned unit = 0; unit < ATA_BUS_UNITS; unit++) {
        device_load_bool(&channel->drives[unit].interrupt);
        device_load_bool(&channel->drives[unit].command.has_packet);
        device_load_bool(&channel->drives[unit].command.active);
    }
    for (unsigned unit = 0; unit < ATA_BUS_UNITS; unit++) {
        struct ide_drive *drive = &channel->drives[unit];
        struct ata_command *command = &drive->command;
        uint32_t block;

        drive->resetting = false;
        if (channel->control & CONTROL_SRST)
            begin_reset(drive);
        ata_command_loaded(command, device_of(drive));
        if (!ata_pio_data(command, &block) || drive->data_position > block)
            drive->data_position = 0;
    }
    /* The bus master has been told of this interrupt before the state was saved. */
    channel->irq_level = wants_irq(channel);
    irq_line_set(&channel->irq, channel->irq_level);
}
