/* Data phases: between the medium or the device's buffer on one side, and the host's memory (DMA) or its data register
 * (PIO, in DRQ blocks) on the other.
 *
 * DMA from and to the medium goes straight between the drive and guest RAM, in one request. PIO goes through the
 * device's buffer: read as much as fits, hand it out in DRQ blocks; write each DRQ block as it is complete. Everything
 * that waits leaves what it needs in command->progress, so that a saved state can go on. Device lock held.
 *
 * What werror= and rerror= say is done by the block layer: an error that arrives here is one for the guest. */
#include "devices/storage/ata_internal.h"

#include <assert.h>
#include <string.h>

static void step(struct ata_command *command);
static void request_done(struct block_request *request);

/* ---- Requests ---- */

static void submit(struct ata_command *command, enum block_op op, const struct iovec *iov, unsigned count,
                   uint64_t size)
{
    command->request = (struct block_request){
        .op = op,
        .flags = op == BLOCK_WRITE && command->progress.fua ? BLOCK_FUA : 0,
        .offset = command->progress.offset,
        .size = size,
        .iov = iov,
        .iov_count = count,
        .done = request_done,
        .opaque = command,
    };
    command->in_flight = true;
    command->progress.wait = ATA_WAIT_BLOCK;
    command->device->power = ATA_POWER_ACTIVE;
    block_submit(command->device->block, &command->request);
}

static void submit_buffer(struct ata_command *command, enum block_op op, uint64_t size)
{
    command->small_iov[0] = (struct iovec){ command->device->buffer, size };
    submit(command, op, command->small_iov, 1, size);
}

static void report(struct ata_command *command)
{
    const struct block_request *request = &command->request;

    if (command->progress.packet_command) {
        atapi_io_error(command);
        return;
    }
    command->tf.lba = request->offset / ATA_SECTOR;
    ata_fail(command, request->op == BLOCK_READ ? ATA_ERROR_UNC : ATA_ERROR_ABRT);
}

static void request_done(struct block_request *request)
{
    struct ata_command *command = request->opaque;

    command->in_flight = false;
    if (request->op == BLOCK_READ && request->iov == command->list.iov)
        dma_list_written(&command->list, request->size);
    if (command->cancel) {
        command->cancel = false;
        ata_cancel(command);
        command->ops->cancelled(command);
    } else if (request->result >= 0) {
        step(command);
    } else {
        report(command);
    }
}

/* ---- Between the buffer and the host's data register ---- */

static uint32_t drq_size(const struct ata_progress *progress)
{
    return MIN(progress->unit, progress->filled - progress->position);
}

static void present(struct ata_command *command, bool interrupt)
{
    struct ata_progress *progress = &command->progress;
    uint32_t size = drq_size(progress);

    progress->wait = ATA_WAIT_PIO;
    command->status = ATA_STATUS_DRDY | ATA_STATUS_DSC | ATA_STATUS_DRQ;
    if (progress->packet_command) {
        command->tf.count = progress->kind == ATA_TRANSFER_PACKET ? ATAPI_REASON_CD
                            : progress->to_device                 ? 0
                                                                  : ATAPI_REASON_IO;
        if (progress->kind != ATA_TRANSFER_PACKET)
            command->tf.lba = (command->tf.lba & ~0xffff00ull) | size << 8;
    }
    command->ops->drq(command, interrupt);
}

uint8_t *ata_pio_data(const struct ata_command *command, uint32_t *size)
{
    const struct ata_progress *progress = &command->progress;

    if (!command->active || progress->wait != ATA_WAIT_PIO)
        return NULL;
    *size = drq_size(progress);
    return command->device->buffer + progress->position;
}

/* The host is to fill the buffer with `size` bytes. */
static void collect(struct ata_command *command, uint32_t size, bool interrupt)
{
    command->progress.position = 0;
    command->progress.filled = size;
    present(command, interrupt);
}

/* ---- The medium ---- */

/* Makes raw sectors of those that were read to their places in the buffer (MMC-3, 4.2.3): synchronization, header,
 * data, and zeroes in place of error correction codes, which nobody checks. */
static void complete_raw_sectors(struct ata_command *command, unsigned count)
{
    uint64_t block = command->progress.offset / CD_SECTOR;

    for (unsigned i = 0; i < count; i++) {
        uint8_t *sector = command->device->buffer + i * CD_RAW_SECTOR;
        uint64_t frame = block + i + 150;

        memset(sector, 0xff, 12);
        sector[0] = sector[11] = 0;
        sector[12] = (uint8_t)(frame / 75 / 60);
        sector[13] = (uint8_t)(frame / 75 % 60);
        sector[14] = (uint8_t)(frame % 75);
        sector[15] = 1; /* mode 1 */
        memset(sector + 16 + CD_SECTOR, 0, CD_RAW_SECTOR - 16 - CD_SECTOR);
    }
}

static unsigned raw_sectors(const struct ata_progress *progress)
{
    return (unsigned)MIN(progress->left / CD_RAW_SECTOR, ATA_BUFFER_SIZE / CD_RAW_SECTOR);
}

/* Reads the next part into the buffer. */
static void fill_buffer(struct ata_command *command)
{
    struct ata_progress *progress = &command->progress;

    if (progress->kind == ATA_TRANSFER_READ_RAW) {
        unsigned count = raw_sectors(progress);

        for (unsigned i = 0; i < count; i++)
            command->small_iov[i] = (struct iovec){ command->device->buffer + i * CD_RAW_SECTOR + 16, CD_SECTOR };
        submit(command, BLOCK_READ, command->small_iov, count, (uint64_t)count * CD_SECTOR);
    } else {
        submit_buffer(command, BLOCK_READ, MIN(progress->left, (uint64_t)ATA_BUFFER_SIZE));
    }
}

static_assert(ATA_BUFFER_SIZE / CD_RAW_SECTOR <= ARRAY_SIZE(((struct ata_command *)0)->small_iov),
              "an iovec for each raw sector in the buffer");

/* The buffer has been filled by fill_buffer(). */
static void buffer_filled(struct ata_command *command)
{
    struct ata_progress *progress = &command->progress;
    uint64_t size = command->request.size, moved;

    if (progress->kind == ATA_TRANSFER_READ_RAW) {
        unsigned count = (unsigned)(size / CD_SECTOR);

        complete_raw_sectors(command, count);
        size = (uint64_t)count * CD_RAW_SECTOR;
    }
    progress->offset += command->request.size;
    progress->left -= MIN(size, progress->left);
    if (!progress->dma) {
        progress->filled = (uint32_t)size;
        progress->position = 0;
        present(command, true);
        return;
    }
    moved = dma_list_copy_to(&command->list, command->transferred, command->device->buffer, size);
    command->transferred += moved;
    if (moved == size && progress->left) {
        fill_buffer(command);
        return;
    }
    command->host_short = moved < size;
    dma_list_written(&command->list, command->transferred);
    ata_transfer_end(command);
}

/* What follows a request that has succeeded. */
static void step(struct ata_command *command)
{
    struct ata_progress *progress = &command->progress;

    switch (progress->kind) {
    case ATA_TRANSFER_READ:
    case ATA_TRANSFER_READ_RAW:
        if (command->request.iov != command->list.iov) {
            buffer_filled(command);
            return;
        }
        command->transferred = command->request.size;
        ata_transfer_end(command);
        break;
    case ATA_TRANSFER_WRITE:
        progress->offset += command->request.size;
        progress->left -= MIN(command->request.size, progress->left);
        if (progress->dma) {
            command->transferred = command->request.size;
            ata_transfer_end(command);
        } else if (progress->left) {
            collect(command, (uint32_t)MIN(progress->left, progress->unit), true);
        } else {
            ata_transfer_end(command);
        }
        break;
    case ATA_TRANSFER_VERIFY:
        progress->offset += command->request.size;
        progress->left -= command->request.size;
        if (progress->left)
            fill_buffer(command);
        else
            ata_transfer_end(command);
        break;
    case ATA_TRANSFER_TRIM:
        ata_trim(command);
        break;
    default:
        ata_transfer_end(command);
        break;
    }
}

void ata_flush(struct ata_command *command)
{
    command->progress.kind = ATA_TRANSFER_FLUSH;
    submit(command, BLOCK_FLUSH, NULL, 0, 0);
}

/* Discards the next range of the list in the buffer: sector 47..0, count 63..48 each (ATA8-ACS, DATA SET MANAGEMENT).
 * They were checked when they came. */
void ata_trim(struct ata_command *command)
{
    struct ata_progress *progress = &command->progress;

    progress->kind = ATA_TRANSFER_TRIM;
    while (progress->position + 8 <= progress->filled) {
        uint64_t range;

        memcpy(&range, command->device->buffer + progress->position, sizeof(range));
        progress->position += 8;
        if (range >> 48) {
            progress->offset = (range & 0xffffffffffffull) * ATA_SECTOR;
            submit(command, BLOCK_DISCARD, NULL, 0, (range >> 48) * ATA_SECTOR);
            return;
        }
    }
    ata_transfer_end(command);
}

/* ---- Beginnings ---- */

static void begin(struct ata_command *command, enum ata_transfer kind, uint64_t size, bool to_device)
{
    struct ata_progress *progress = &command->progress;

    progress->kind = kind;
    progress->size = progress->left = size;
    progress->to_device = to_device;
    progress->pio = !progress->dma && kind != ATA_TRANSFER_VERIFY;
    if (!command->ops->drq)
        progress->dma = progress->dma || progress->pio;
    if (!progress->unit)
        progress->unit = ATA_SECTOR;
    if (progress->dma) {
        progress->wait = ATA_WAIT_MAP;
        command->ops->map(command, size);
    }
}

void ata_reply(struct ata_command *command, uint32_t size)
{
    begin(command, ATA_TRANSFER_REPLY, size, false);
    if (command->progress.dma)
        return;
    command->progress.left = 0;
    command->progress.position = 0;
    command->progress.filled = size;
    present(command, true);
}

void ata_take(struct ata_command *command, enum ata_transfer kind, uint32_t size)
{
    begin(command, kind, size, true);
    if (command->progress.dma)
        return;
    command->progress.left = 0;
    collect(command, size, kind == ATA_TRANSFER_PARAMETERS && command->progress.packet_command);
}

void ata_medium_transfer(struct ata_command *command, enum ata_transfer kind, uint64_t offset, uint64_t size)
{
    command->progress.offset = offset;
    begin(command, kind, size, kind == ATA_TRANSFER_WRITE);
    if (kind == ATA_TRANSFER_VERIFY || (!command->progress.dma && kind != ATA_TRANSFER_WRITE))
        fill_buffer(command);
    else if (!command->progress.dma)
        collect(command, (uint32_t)MIN(size, command->progress.unit), false);
}

/* ---- What the host answers ---- */

/* Whole sectors only: shortens the list to what a request can use. */
static void trim_list(struct dma_list *list)
{
    uint64_t extra = list->size % ATA_SECTOR;

    list->size -= extra;
    while (extra) {
        struct iovec *last = &list->iov[list->count - 1];
        uint64_t part = MIN(extra, last->iov_len);

        last->iov_len -= part;
        extra -= part;
        if (!last->iov_len)
            list->count--;
    }
}

static void deliver_parameters(struct ata_command *command)
{
    command->progress.wait = ATA_WAIT_NOTHING;
    if (command->progress.packet_command)
        atapi_parameters(command);
    else
        ata_disk_parameters(command);
}

void ata_dma_ready(struct ata_command *command, int result)
{
    struct ata_progress *progress = &command->progress;
    struct dma_list *list = &command->list;

    if (!command->active || progress->wait != ATA_WAIT_MAP)
        return;
    progress->wait = ATA_WAIT_NOTHING;
    if (result < 0) {
        command->host_fault = true;
        ata_abort(command);
        return;
    }
    command->host_short = list->size < progress->size;
    switch (progress->kind) {
    case ATA_TRANSFER_REPLY:
        command->transferred = dma_list_copy_to(list, 0, command->device->buffer, progress->size);
        dma_list_written(list, command->transferred);
        ata_transfer_end(command);
        break;
    case ATA_TRANSFER_PARAMETERS:
        command->transferred = dma_list_copy_from(list, 0, command->device->buffer, progress->size);
        progress->position = 0;
        progress->filled = (uint32_t)progress->size;
        if (command->host_short)
            ata_abort(command);
        else
            deliver_parameters(command);
        break;
    case ATA_TRANSFER_READ_RAW:
        fill_buffer(command);
        break;
    default:
        trim_list(list);
        if (list->size)
            submit(command, progress->to_device ? BLOCK_WRITE : BLOCK_READ, list->iov, list->count, list->size);
        else
            ata_transfer_end(command);
        break;
    }
}

void ata_pio_done(struct ata_command *command)
{
    struct ata_progress *progress = &command->progress;
    uint32_t size = drq_size(progress);

    if (!command->active || progress->wait != ATA_WAIT_PIO)
        return;
    progress->wait = ATA_WAIT_NOTHING;
    progress->position += size;
    switch (progress->kind) {
    case ATA_TRANSFER_PACKET:
        memcpy(command->packet, command->device->buffer, ATA_PACKET_SIZE);
        command->has_packet = true;
        progress->kind = ATA_TRANSFER_NONE;
        atapi_packet(command);
        break;
    case ATA_TRANSFER_WRITE:
        submit_buffer(command, BLOCK_WRITE, size);
        break;
    case ATA_TRANSFER_PARAMETERS:
        if (progress->position < progress->filled)
            present(command, true);
        else
            deliver_parameters(command);
        break;
    default:
        if (progress->position < progress->filled)
            present(command, true);
        else if (progress->left)
            fill_buffer(command);
        else
            ata_transfer_end(command);
        break;
    }
}
