/* An IDE channel: two drives behind the registers of a task file (ATA/ATAPI-5, ATA8-APT 7), and what its controller
 * does for it. Device lock held. */
#ifndef EIDOLON_DEVICES_STORAGE_IDE_H
#define EIDOLON_DEVICES_STORAGE_IDE_H

#include "devices/storage/ata.h"

struct ide_channel;

struct ide_drive {
    struct ide_channel *channel;
    struct ata_command command; /* its tf, status and error are the drive's registers */
    uint32_t data_position;     /* in the DRQ block */
    bool interrupt;             /* wants INTRQ */
    bool resetting;
};

struct ide_channel {
    struct ata_bus bus;
    struct ide_drive drives[ATA_BUS_UNITS];
    uint8_t selected, control;
    bool high_order; /* reads give the previous contents */
    struct irq_line irq;
    bool irq_level;
    /* Of the controller. map: as in struct ata_host_ops; NULL: no DMA. ended: a command that map() was called for is
     * over; returns whether the drive's interrupt comes through. */
    void (*map)(void *opaque, struct ata_command *command, uint64_t size);
    bool (*ended)(void *opaque, struct ata_command *command);
    void (*interrupted)(void *opaque); /* INTRQ rose */
    void *opaque;
};

/* Before the bus is added. */
void ide_channel_init(struct ide_channel *channel, struct device_env *env, const struct irq_line *irq);
void ide_channel_destroy(struct ide_channel *channel);
void ide_channel_reset(struct ide_channel *channel); /* hardware reset; loop's thread */
void ide_channel_drain(struct ide_channel *channel);
/* After a state has been loaded. */
void ide_channel_loaded(struct ide_channel *channel);

extern const struct io_ops ide_command_ops; /* eight ports, opaque: the channel */
extern const struct io_ops ide_control_ops; /* one port */

#define IDE_DRIVE_STATE(type, member)                                                                                  \
    STATE_FIELD(type, member.command.tf.lba), STATE_FIELD(type, member.command.tf.feature),                            \
        STATE_FIELD(type, member.command.tf.count), STATE_FIELD(type, member.command.tf.command),                      \
        STATE_FIELD(type, member.command.tf.device), STATE_FIELD(type, member.command.status),                         \
        STATE_FIELD(type, member.command.error), STATE_FIELD(type, member.command.active),                             \
        STATE_ARRAY(type, member.command.packet), STATE_FIELD(type, member.command.has_packet),                        \
        STATE_FIELD(type, member.command.progress.offset), STATE_FIELD(type, member.command.progress.size),            \
        STATE_FIELD(type, member.command.progress.left), STATE_FIELD(type, member.command.progress.unit),              \
        STATE_FIELD(type, member.command.progress.filled), STATE_FIELD(type, member.command.progress.position),        \
        STATE_FIELD(type, member.command.progress.kind), STATE_FIELD(type, member.command.progress.wait),              \
        STATE_FIELD(type, member.command.progress.to_device), STATE_FIELD(type, member.command.progress.dma),          \
        STATE_FIELD(type, member.command.progress.packet_command), STATE_FIELD(type, member.command.progress.fua),     \
        STATE_FIELD(type, member.command.progress.pio), STATE_FIELD(type, member.data_position),                       \
        STATE_FIELD(type, member.interrupt)
#define IDE_CHANNEL_STATE(type, member)                                                                                \
    IDE_DRIVE_STATE(type, member.drives[0]), IDE_DRIVE_STATE(type, member.drives[1]),                                  \
        STATE_FIELD(type, member.selected), STATE_FIELD(type, member.control), STATE_FIELD(type, member.high_order)

#endif
