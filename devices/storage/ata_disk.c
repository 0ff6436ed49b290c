/* The disk's commands (ATA8-ACS 7): one row for each opcode. What has no row is aborted. Device lock held. */
#include "devices/storage/ata_internal.h"

#include <string.h>

#include "base/log.h"

enum {
    EXT = 1 << 0,      /* 48-bit addresses */
    DMA = 1 << 1,      /* else PIO, */
    MULTIPLE = 1 << 2, /* in blocks of SET MULTIPLE MODE's size */
    WRITE = 1 << 3,
    FUA = 1 << 4,
};

struct disk_command {
    void (*run)(struct ata_command *command, unsigned flags);
    unsigned flags;
};

/* ---- Addresses ---- */

static uint64_t chs_address(const struct ata_device *device, const struct ata_taskfile *tf)
{
    uint64_t sector = tf->lba & 0xff, cylinder = tf->lba >> 8 & 0xffff, head = tf->device & 0xf;

    if (!sector || sector > device->sectors || head >= device->heads || cylinder >= device->cylinders)
        return ~0ull;
    return (cylinder * device->heads + head) * device->sectors + sector - 1;
}

static uint64_t address(const struct ata_command *command, bool ext)
{
    const struct ata_taskfile *tf = &command->tf;

    if (ext)
        return tf->lba & 0xffffffffffffull;
    if (tf->device & ATA_DEVICE_LBA)
        return (uint64_t)(tf->device & 0xf) << 24 | (tf->lba & 0xffffff);
    return chs_address(command->device, tf);
}

/* Sectors of a command; 0 stands for the most. */
static uint32_t sector_count(const struct ata_taskfile *tf, bool ext)
{
    if (ext)
        return tf->count ? tf->count : 65536;
    return tf->count & 0xff ? tf->count & 0xff : 256;
}

static bool in_range(const struct ata_device *device, uint64_t lba, uint64_t count)
{
    uint64_t sectors = ata_sector_count(device);

    return lba < sectors && count <= sectors - lba;
}

/* ---- Reading and writing ---- */

static void run_transfer(struct ata_command *command, unsigned flags)
{
    struct ata_device *device = command->device;
    uint64_t lba = address(command, flags & EXT);
    uint32_t count = sector_count(&command->tf, flags & EXT);

    if ((flags & MULTIPLE) && !device->multiple) {
        ata_abort(command);
        return;
    }
    if (!in_range(device, lba, count)) {
        ata_fail(command, ATA_ERROR_IDNF);
        return;
    }
    command->progress.dma = flags & DMA ? 1 : 0;
    command->progress.fua = flags & FUA ? 1 : 0;
    command->progress.unit = (flags & MULTIPLE ? device->multiple : 1) * ATA_SECTOR;
    ata_medium_transfer(command, flags & WRITE ? ATA_TRANSFER_WRITE : ATA_TRANSFER_READ, lba * ATA_SECTOR,
                        (uint64_t)count * ATA_SECTOR);
}

/* READ and WRITE FPDMA QUEUED: the count is in the feature register, count 7..3 is the tag. */
static void run_queued(struct ata_command *command, unsigned flags)
{
    struct ata_device *device = command->device;
    uint64_t lba = address(command, true);
    uint32_t count = command->tf.feature ? command->tf.feature : 65536;

    if (command->ops->drq || device->ncq_failed) { /* an IDE channel cannot, and see READ LOG EXT */
        ata_abort(command);
        return;
    }
    command->queued = true;
    device->queued++;
    if (!in_range(device, lba, count)) {
        ata_fail(command, ATA_ERROR_IDNF);
        return;
    }
    command->progress.dma = 1;
    command->progress.fua = (flags & WRITE) && (command->tf.device & ATA_DEVICE_FUA);
    ata_medium_transfer(command, flags & WRITE ? ATA_TRANSFER_WRITE : ATA_TRANSFER_READ, lba * ATA_SECTOR,
                        (uint64_t)count * ATA_SECTOR);
}

static void run_verify(struct ata_command *command, unsigned flags)
{
    uint64_t lba = address(command, flags & EXT);
    uint32_t count = sector_count(&command->tf, flags & EXT);

    if (!in_range(command->device, lba, count)) {
        ata_fail(command, ATA_ERROR_IDNF);
        return;
    }
    ata_medium_transfer(command, ATA_TRANSFER_VERIFY, lba * ATA_SECTOR, (uint64_t)count * ATA_SECTOR);
}

static void run_flush(struct ata_command *command, unsigned flags)
{
    (void)flags;
    ata_flush(command);
}

/* DATA SET MANAGEMENT: TRIM is the only one of its functions. */
static void run_trim(struct ata_command *command, unsigned flags)
{
    struct ata_device *device = command->device;

    if (!(command->tf.feature & 1) || !command->tf.count || command->tf.count > ATA_TRIM_BLOCKS_MAX ||
        !block_info(device->block)->can_discard) {
        ata_abort(command);
        return;
    }
    command->progress.dma = flags & DMA ? 1 : 0;
    ata_take(command, ATA_TRANSFER_PARAMETERS, command->tf.count * ATA_SECTOR);
}

void ata_disk_parameters(struct ata_command *command)
{
    struct ata_progress *progress = &command->progress;

    for (uint32_t at = 0; at + 8 <= progress->filled; at += 8) {
        uint64_t range;

        memcpy(&range, command->device->buffer + at, sizeof(range));
        if ((range >> 48) && !in_range(command->device, range & 0xffffffffffffull, range >> 48)) {
            ata_fail(command, ATA_ERROR_IDNF);
            return;
        }
    }
    progress->position = 0;
    ata_trim(command);
}

/* ---- The rest ---- */

static void run_nothing(struct ata_command *command, unsigned flags)
{
    (void)flags;
    ata_finish(command);
}

static void run_seek(struct ata_command *command, unsigned flags)
{
    if (in_range(command->device, address(command, flags & EXT), 1))
        ata_finish(command);
    else
        ata_fail(command, ATA_ERROR_IDNF);
}

static void run_identify(struct ata_command *command, unsigned flags)
{
    (void)flags;
    ata_identify(command);
}

static void run_set_features(struct ata_command *command, unsigned flags)
{
    (void)flags;
    ata_set_features(command);
}

static void run_smart(struct ata_command *command, unsigned flags)
{
    (void)flags;
    ata_smart(command);
}

static void run_read_log(struct ata_command *command, unsigned flags)
{
    command->progress.dma = flags & DMA ? 1 : 0;
    ata_read_log(command);
}

static void run_set_multiple(struct ata_command *command, unsigned flags)
{
    unsigned count = command->tf.count & 0xff;

    (void)flags;
    if (count > ATA_MULTIPLE_MAX || (count & (count - 1))) {
        ata_abort(command);
        return;
    }
    command->device->multiple = (uint8_t)count;
    ata_finish(command);
}

static void run_initialize_parameters(struct ata_command *command, unsigned flags)
{
    struct ata_device *device = command->device;
    uint32_t heads = (command->tf.device & 0xf) + 1u, sectors = command->tf.count & 0xff;
    uint64_t cylinders;

    (void)flags;
    if (!sectors) {
        ata_abort(command);
        return;
    }
    cylinders = ata_sector_count(device) / (heads * sectors);
    device->heads = heads;
    device->sectors = sectors;
    device->cylinders = (uint32_t)MIN(cylinders, 65535ull);
    ata_finish(command);
}

static void run_read_native_max(struct ata_command *command, unsigned flags)
{
    uint64_t last = ata_sector_count(command->device) - 1;
    struct ata_taskfile *tf = &command->tf;

    if (flags & EXT) {
        tf->lba = last;
    } else {
        last = MIN(last, 0xfffffffull);
        tf->lba = last & 0xffffff;
        tf->device = (uint8_t)((tf->device & 0xf0) | last >> 24);
    }
    ata_finish(command);
}

static void set_power(struct ata_command *command, uint8_t power)
{
    command->device->power = power;
    ata_finish(command);
}

static void run_standby(struct ata_command *command, unsigned flags)
{
    (void)flags;
    set_power(command, ATA_POWER_STANDBY);
}

static void run_idle(struct ata_command *command, unsigned flags)
{
    (void)flags;
    set_power(command, ATA_POWER_IDLE);
}

static void run_sleep(struct ata_command *command, unsigned flags)
{
    (void)flags;
    set_power(command, ATA_POWER_SLEEP);
}

static void run_check_power(struct ata_command *command, unsigned flags)
{
    (void)flags;
    command->tf.count = command->device->power;
    ata_finish(command);
}

static void run_diagnostic(struct ata_command *command, unsigned flags)
{
    uint8_t status, error;

    (void)flags;
    ata_signature(command->device, &command->tf, &status, &error);
    ata_finish(command);
}

static const struct disk_command disk_commands[256] = {
    [0x06] = { run_trim, DMA },
    [0x10 ... 0x1f] = { run_nothing }, /* RECALIBRATE */
    [0x20] = { run_transfer },
    [0x21] = { run_transfer },
    [0x24] = { run_transfer, EXT },
    [0x25] = { run_transfer, EXT | DMA },
    [0x27] = { run_read_native_max, EXT },
    [0x29] = { run_transfer, EXT | MULTIPLE },
    [0x2f] = { run_read_log },
    [0x30] = { run_transfer, WRITE },
    [0x31] = { run_transfer, WRITE },
    [0x34] = { run_transfer, WRITE | EXT },
    [0x35] = { run_transfer, WRITE | EXT | DMA },
    [0x39] = { run_transfer, WRITE | EXT | MULTIPLE },
    [0x3d] = { run_transfer, WRITE | EXT | DMA | FUA },
    [0x40] = { run_verify },
    [0x41] = { run_verify },
    [0x42] = { run_verify, EXT },
    [0x47] = { run_read_log, DMA },
    [0x60] = { run_queued },
    [0x61] = { run_queued, WRITE },
    [0x70 ... 0x7f] = { run_seek },
    [0x90] = { run_diagnostic },
    [0x91] = { run_initialize_parameters },
    [0x94] = { run_standby },
    [0x95] = { run_idle },
    [0x96] = { run_standby },
    [0x97] = { run_idle },
    [0x98] = { run_check_power },
    [0x99] = { run_sleep },
    [0xb0] = { run_smart },
    [0xc4] = { run_transfer, MULTIPLE },
    [0xc5] = { run_transfer, WRITE | MULTIPLE },
    [0xc6] = { run_set_multiple },
    [0xc8] = { run_transfer, DMA },
    [0xc9] = { run_transfer, DMA },
    [0xca] = { run_transfer, WRITE | DMA },
    [0xcb] = { run_transfer, WRITE | DMA },
    [0xce] = { run_transfer, WRITE | EXT | MULTIPLE | FUA },
    [0xe0] = { run_standby },
    [0xe1] = { run_idle },
    [0xe2] = { run_standby },
    [0xe3] = { run_idle },
    [0xe5] = { run_check_power },
    [0xe6] = { run_sleep },
    [0xe7] = { run_flush },
    [0xea] = { run_flush },
    [0xec] = { run_identify },
    [0xef] = { run_set_features },
    [0xf8] = { run_read_native_max },
};

void ata_disk_execute(struct ata_command *command)
{
    const struct disk_command *row = &disk_commands[command->tf.command];
    struct ata_device *device = command->device;

    if (row->run != run_queued && device->queued) {
        log_event(guest_errors, "ata: command 0x%02x beside queued ones\n", command->tf.command);
        ata_abort(command);
        return;
    }
    if (!row->run) {
        /* NOP (00h) always aborts; security (f1h..f6h) and the host protected area (f9h, 37h) are not offered. */
        log_event(device, "ata: command 0x%02x is not supported\n", command->tf.command);
        ata_abort(command);
        return;
    }
    row->run(command, row->flags);
}
