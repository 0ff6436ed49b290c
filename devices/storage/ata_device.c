/* The part that disks and CD-ROM drives share: commands begin and end here (ATA8-ACS 4, 6 and 7).
 *
 * A command is active from ata_execute() until ops->complete(), or until it is cancelled. One that is not queued is
 * alone in the device and may use its buffer; up to 32 queued ones are active beside each other, and do not touch the
 * buffer. I/O that has gone to the block layer cannot be called back, so a cancelled command keeps its host waiting
 * (BSY) until that has ended: guest memory is never written, nor the medium, after a reset has been seen to be over.
 * Device lock held. */
#include "devices/storage/ata_internal.h"

#include <string.h>

/* A list of one piece a page for 4 MiB. What a guest once made larger is given back. */
#define LIST_CAPACITY_KEPT 1024u

void ata_command_init(struct ata_command *command, const struct ata_host_ops *ops, void *host, struct physmem *mem)
{
    command->ops = ops;
    command->host = host;
    dma_list_init(&command->list, mem);
}

void ata_command_destroy(struct ata_command *command)
{
    dma_list_free(&command->list);
}

bool ata_is_packet_device(const struct ata_device *device)
{
    return device->cdrom;
}

uint64_t ata_sector_count(const struct ata_device *device)
{
    return device->capacity / ATA_SECTOR;
}

/* ---- Commands ---- */

void ata_execute(struct ata_device *device, struct ata_command *command)
{
    command->device = device;
    command->active = true;
    command->queued = command->cancel = command->host_short = command->host_fault = false;
    command->transferred = 0;
    command->status = ATA_STATUS_BSY;
    command->error = 0;
    command->progress = (struct ata_progress){ 0 };
    dma_list_clear(&command->list);
    if (device->cdrom)
        atapi_execute(command);
    else
        ata_disk_execute(command);
}

/* The command is no longer the device's. */
static void drop(struct ata_command *command)
{
    struct ata_device *device = command->device;

    if (command->queued)
        device->queued--;
    command->active = command->cancel = false;
    command->progress.wait = ATA_WAIT_NOTHING;
    if (command->list.capacity > LIST_CAPACITY_KEPT)
        dma_list_free(&command->list);
}

static void complete(struct ata_command *command, uint8_t status, uint8_t error, bool interrupt)
{
    drop(command);
    command->status = status;
    command->error = error;
    command->ops->complete(command, interrupt);
}

void ata_finish(struct ata_command *command)
{
    complete(command, ATA_STATUS_DRDY | ATA_STATUS_DSC, 0, true);
}

void ata_fail(struct ata_command *command, uint8_t error)
{
    if (command->queued)
        ata_ncq_error(command, error);
    complete(command, ATA_STATUS_DRDY | ATA_STATUS_DSC | ATA_STATUS_ERR, error, true);
}

void ata_abort(struct ata_command *command)
{
    ata_fail(command, ATA_ERROR_ABRT);
}

/* PIO data to the host ends without an interrupt; so does nothing else (ATA8-APT, PIO data-in protocol). */
void ata_transfer_end(struct ata_command *command)
{
    struct ata_progress *progress = &command->progress;
    bool data_in = progress->kind == ATA_TRANSFER_REPLY || progress->kind == ATA_TRANSFER_READ;

    if (command->host_fault) {
        ata_abort(command);
        return;
    }
    if (progress->packet_command) {
        command->tf.count = ATAPI_REASON_CD | ATAPI_REASON_IO;
        command->device->sense = (struct ata_sense){ 0 };
    }
    complete(command, ATA_STATUS_DRDY | ATA_STATUS_DSC, 0, progress->packet_command || progress->dma || !data_in);
}

bool ata_cancel(struct ata_command *command)
{
    if (!command->active)
        return true;
    if (command->in_flight) {
        command->cancel = true;
        return false;
    }
    drop(command);
    return true;
}

void ata_drain(struct ata_device *device)
{
    if (device->block)
        block_drain(device->block);
}

static bool progress_is_sound(const struct ata_progress *progress, const struct ata_device *device)
{
    unsigned sector = progress->kind == ATA_TRANSFER_READ_RAW ? CD_RAW_SECTOR : ATA_SECTOR;

    if (progress->filled > ATA_BUFFER_SIZE || progress->position > progress->filled || !progress->unit ||
        progress->unit > ATA_BUFFER_SIZE || progress->left > progress->size)
        return false;
    if (progress->packet_command && !device->cdrom)
        return false;
    switch (progress->kind) {
    case ATA_TRANSFER_REPLY:
    case ATA_TRANSFER_PARAMETERS:
        return progress->size <= ATA_BUFFER_SIZE && !progress->left == !progress->dma;
    case ATA_TRANSFER_PACKET:
        return device->cdrom && progress->size == ATA_PACKET_SIZE && progress->filled == ATA_PACKET_SIZE;
    case ATA_TRANSFER_READ:
    case ATA_TRANSFER_READ_RAW:
    case ATA_TRANSFER_WRITE:
        return device->block && progress->left % sector == 0 && (progress->dma || progress->unit % 2 == 0);
    default:
        return false;
    }
}

void ata_command_loaded(struct ata_command *command, struct ata_device *device)
{
    struct ata_progress *progress = &command->progress;

    command->device = device;
    command->queued = command->cancel = command->in_flight = false;
    if (!device)
        command->active = false;
    if (!command->active)
        return;
    if (!progress_is_sound(progress, device))
        progress->wait = ATA_WAIT_NOTHING;
    if (progress->wait != ATA_WAIT_MAP && progress->wait != ATA_WAIT_PIO)
        ata_abort(command);
}

/* ---- Reset ---- */

void ata_signature(const struct ata_device *device, struct ata_taskfile *tf, uint8_t *status, uint8_t *error)
{
    *tf = (struct ata_taskfile){ .count = 1, .lba = device->cdrom ? 0xeb1401 : 0x000001 };
    /* A packet device shows that it is one by DRDY = 0. */
    *status = device->cdrom ? 0 : ATA_STATUS_DRDY | ATA_STATUS_DSC;
    *error = 1; /* diagnostic code: passed */
}

uint32_t ata_signature_dword(const struct ata_device *device)
{
    return device->cdrom ? 0xeb140101 : 0x00000101;
}

void ata_reset(struct ata_device *device, bool soft)
{
    device->ncq_failed = false;
    device->power = ATA_POWER_ACTIVE;
    if (soft)
        return;
    device->cylinders = device->native_cylinders;
    device->heads = device->native_heads;
    device->sectors = device->native_sectors;
    device->multiple = ATA_MULTIPLE_MAX;
    device->transfer_mode = 0x45; /* UDMA 5, as firmware leaves it */
    device->look_ahead = true;
    device->smart = true;
    device->locked = false;
    device->sense = (struct ata_sense){ 0 };
}

/* ---- Medium ---- */

void ata_medium_update(struct ata_device *device)
{
    const struct block_info *info = device->block ? block_info(device->block) : NULL;

    device->capacity = info ? info->size / ATA_SECTOR * ATA_SECTOR : 0;
    if (device->native_cylinders)
        return;
    /* 8 GB and more are not all within reach of CHS (ATA/ATAPI-5 annex B). */
    device->native_heads = 16;
    device->native_sectors = 63;
    device->native_cylinders = (uint32_t)MAX(MIN(ata_sector_count(device) / (16 * 63), 16383ull), 2ull);
}

void ata_device_init(struct ata_device *device, struct device_env *env)
{
    device->env = env;
    device->write_cache = device->initial_write_cache = device->block && block_info(device->block)->write_cache;
    ata_medium_update(device);
    ata_reset(device, false);
}

/* ATA strings: padded with spaces, the first character in the high byte of each word. */
void ata_put_string(uint16_t *words, const char *text, unsigned size)
{
    size_t length = strlen(text);

    for (unsigned i = 0; i < size; i += 2) {
        uint8_t first = i < length ? (uint8_t)text[i] : ' ', second = i + 1 < length ? (uint8_t)text[i + 1] : ' ';

        words[i / 2] = (uint16_t)(first << 8 | second);
    }
}
