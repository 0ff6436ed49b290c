/* The CD-ROM drive: ATA commands of a packet device, and the packets that read the medium or ask for the drive's state
 * (ATA8-ACS 7.20, SPC-3, MMC-5). What they answer in tables is in atapi_info.c.
 *
 * A packet is one row of packet_commands: its function, and whether it goes on in spite of a pending unit attention or
 * an empty drive. Device lock held. */
#include "devices/storage/ata_internal.h"

#include <errno.h>
#include <string.h>

#include "base/log.h"

enum { KEY_NOT_READY = 2, KEY_MEDIUM_ERROR = 3, KEY_ILLEGAL_REQUEST = 5, KEY_UNIT_ATTENTION = 6 };
enum {
    ASC_MEDIUM_ERROR = 0x11,
    ASC_UNKNOWN_COMMAND = 0x20,
    ASC_LBA_RANGE = 0x21,
    ASC_INVALID_FIELD = 0x24,
    ASC_MEDIUM_CHANGED = 0x28,
    ASC_NO_MEDIUM = 0x3a,
    ASC_REMOVAL_PREVENTED = 0x53,
    ASC_WRONG_MODE = 0x64,
};

/* ---- Ends ---- */

void atapi_fail(struct ata_command *command, uint8_t key, uint8_t asc, uint8_t ascq)
{
    command->device->sense = (struct ata_sense){ key, asc, ascq };
    command->tf.count = ATAPI_REASON_CD | ATAPI_REASON_IO;
    ata_fail(command, (uint8_t)(key << 4 | ATA_ERROR_ABRT));
}

void atapi_io_error(struct ata_command *command)
{
    if (command->request.result == -ENOMEDIUM)
        atapi_fail(command, KEY_NOT_READY, ASC_NO_MEDIUM, 0);
    else
        atapi_fail(command, KEY_MEDIUM_ERROR, ASC_MEDIUM_ERROR, 0);
}

static void invalid_field(struct ata_command *command)
{
    atapi_fail(command, KEY_ILLEGAL_REQUEST, ASC_INVALID_FIELD, 0);
}

void atapi_reply(struct ata_command *command, uint32_t size, uint32_t allocation)
{
    size = MIN(size, allocation);
    if (size)
        ata_reply(command, size);
    else
        ata_transfer_end(command);
}

bool atapi_medium_present(const struct ata_device *device)
{
    return device->capacity >= CD_SECTOR && !device->tray_open;
}

uint32_t atapi_block_count(const struct ata_device *device)
{
    return (uint32_t)MIN(device->capacity / CD_SECTOR, 0xffffffffull);
}

/* ---- Packets that need no medium ---- */

static void test_unit_ready(struct ata_command *command)
{
    ata_transfer_end(command);
}

static void request_sense(struct ata_command *command)
{
    struct ata_device *device = command->device;
    struct ata_sense *sense = &device->sense;
    uint8_t *data = device->buffer;

    if (device->unit_attention) {
        device->unit_attention = false;
        *sense = (struct ata_sense){ KEY_UNIT_ATTENTION, ASC_MEDIUM_CHANGED, 0 };
    }
    memset(data, 0, 18);
    data[0] = 0x70;
    data[2] = sense->key;
    data[7] = 10;
    data[12] = sense->asc;
    data[13] = sense->ascq;
    atapi_reply(command, 18, command->packet[4]);
}

static void start_stop_unit(struct ata_command *command)
{
    struct ata_device *device = command->device;
    bool start = command->packet[4] & 1, load_eject = command->packet[4] & 2;

    if ((command->packet[4] >> 4) || !load_eject) { /* power conditions, spinning up and down */
        ata_transfer_end(command);
        return;
    }
    if (!start && device->locked && !device->tray_open) {
        atapi_fail(command, KEY_ILLEGAL_REQUEST, ASC_REMOVAL_PREVENTED, 2);
        return;
    }
    if (device->tray_open == start) {
        device->tray_open = !start;
        device->media_event = start ? 2 : 1; /* new medium; eject request */
        if (start && device->capacity)
            device->unit_attention = true;
    }
    ata_transfer_end(command);
}

static void prevent_allow(struct ata_command *command)
{
    command->device->locked = command->packet[4] & 1;
    ata_transfer_end(command);
}

static void mechanism_status(struct ata_command *command)
{
    uint8_t *data = command->device->buffer;

    memset(data, 0, 8);
    data[1] = command->device->tray_open ? 1 << 4 : 0;
    data[5] = 1; /* number of slots: not a changer */
    atapi_reply(command, 8, get_be16(command->packet + 8));
}

static void set_speed(struct ata_command *command)
{
    ata_transfer_end(command);
}

/* ---- Packets about the medium ---- */

static void read_capacity(struct ata_command *command)
{
    uint8_t *data = command->device->buffer;

    put_be32(data, atapi_block_count(command->device) - 1);
    put_be32(data + 4, CD_SECTOR);
    atapi_reply(command, 8, 8);
}

static bool in_range(struct ata_command *command, uint32_t lba, uint32_t count)
{
    uint32_t blocks = atapi_block_count(command->device);

    if (lba < blocks && count <= blocks - lba)
        return true;
    atapi_fail(command, KEY_ILLEGAL_REQUEST, ASC_LBA_RANGE, 0);
    return false;
}

static void read_blocks(struct ata_command *command, uint32_t lba, uint32_t count, bool raw)
{
    if (!count) {
        ata_transfer_end(command);
        return;
    }
    if (!in_range(command, lba, count))
        return;
    ata_medium_transfer(command, raw ? ATA_TRANSFER_READ_RAW : ATA_TRANSFER_READ, (uint64_t)lba * CD_SECTOR,
                        (uint64_t)count * (raw ? CD_RAW_SECTOR : CD_SECTOR));
}

static void read_10(struct ata_command *command)
{
    read_blocks(command, get_be32(command->packet + 2), get_be16(command->packet + 7), false);
}

static void read_12(struct ata_command *command)
{
    read_blocks(command, get_be32(command->packet + 2), get_be32(command->packet + 6), false);
}

/* READ CD: sector type 4..2 of byte 1 (any, or mode 1), what to send of each sector in byte 9. */
static void read_cd(struct ata_command *command)
{
    const uint8_t *packet = command->packet;
    uint32_t lba = get_be32(packet + 2), count = get_be32(packet + 5) & 0xffffff;
    unsigned type = packet[1] >> 2 & 7;

    if (type != 0 && type != 2) {
        atapi_fail(command, KEY_ILLEGAL_REQUEST, ASC_WRONG_MODE, 0);
        return;
    }
    switch (packet[9] & 0xf8) {
    case 0x00:
        read_blocks(command, lba, 0, false);
        break;
    case 0x10:
        read_blocks(command, lba, count, false);
        break;
    case 0xf8:
        read_blocks(command, lba, count, true);
        break;
    default:
        invalid_field(command);
        break;
    }
}

static void seek(struct ata_command *command)
{
    if (in_range(command, get_be32(command->packet + 2), 1))
        ata_transfer_end(command);
}

/* ---- Dispatch ---- */

enum { NEEDS_MEDIUM = 1 << 0, ALLOW_ATTENTION = 1 << 1 };

static const struct packet_command {
    void (*run)(struct ata_command *command);
    unsigned flags;
} packet_commands[256] = {
    [0x00] = { test_unit_ready, NEEDS_MEDIUM },
    [0x03] = { request_sense, ALLOW_ATTENTION },
    [0x12] = { atapi_inquiry, ALLOW_ATTENTION },
    [0x1b] = { start_stop_unit },
    [0x1e] = { prevent_allow },
    [0x25] = { read_capacity, NEEDS_MEDIUM },
    [0x28] = { read_10, NEEDS_MEDIUM },
    [0x2b] = { seek, NEEDS_MEDIUM },
    [0x43] = { atapi_read_toc, NEEDS_MEDIUM },
    [0x46] = { atapi_get_configuration, ALLOW_ATTENTION },
    [0x4a] = { atapi_get_event_status, ALLOW_ATTENTION },
    [0x51] = { atapi_read_disc_information, NEEDS_MEDIUM },
    [0x52] = { atapi_read_track_information, NEEDS_MEDIUM },
    [0x55] = { atapi_mode_select },
    [0x5a] = { atapi_mode_sense },
    [0xa8] = { read_12, NEEDS_MEDIUM },
    [0xad] = { atapi_read_dvd_structure, NEEDS_MEDIUM },
    [0xbb] = { set_speed },
    [0xbd] = { mechanism_status },
    [0xbe] = { read_cd, NEEDS_MEDIUM },
};

void atapi_packet(struct ata_command *command)
{
    struct ata_device *device = command->device;
    const struct packet_command *row = &packet_commands[command->packet[0]];
    uint32_t limit = command->tf.lba >> 8 & 0xfffe;

    command->progress.packet_command = true;
    command->progress.dma = command->tf.feature & 1;
    /* Of the byte count limit; 0 is an error in the standard, and "as you like" to many drivers. */
    command->progress.unit = limit ? MIN(limit, ATA_BUFFER_SIZE) : 0xfffe;
    if (device->unit_attention && !(row->flags & ALLOW_ATTENTION)) {
        device->unit_attention = false;
        atapi_fail(command, KEY_UNIT_ATTENTION, ASC_MEDIUM_CHANGED, 0);
    } else if (!row->run) {
        log_event(device, "atapi: packet command 0x%02x is not supported\n", command->packet[0]);
        atapi_fail(command, KEY_ILLEGAL_REQUEST, ASC_UNKNOWN_COMMAND, 0);
    } else if ((row->flags & NEEDS_MEDIUM) && !atapi_medium_present(device)) {
        atapi_fail(command, KEY_NOT_READY, ASC_NO_MEDIUM, device->tray_open ? 2 : 1);
    } else {
        row->run(command);
    }
}

/* ---- The ATA side ---- */

static void packet(struct ata_command *command)
{
    if (command->tf.feature & 2) { /* overlapped */
        ata_abort(command);
        return;
    }
    if (command->has_packet) {
        atapi_packet(command);
        return;
    }
    command->progress.packet_command = true;
    command->progress.unit = ATA_PACKET_SIZE;
    ata_take(command, ATA_TRANSFER_PACKET, ATA_PACKET_SIZE);
}

/* The signature is where a driver that took this for a disk finds out (ATA8-ACS 7.12.5). */
static void abort_with_signature(struct ata_command *command)
{
    uint8_t status, error;
    uint8_t select = command->tf.device;

    ata_signature(command->device, &command->tf, &status, &error);
    command->tf.device = select;
    ata_abort(command);
}

void atapi_execute(struct ata_command *command)
{
    struct ata_device *device = command->device;
    uint8_t status, error;

    switch (command->tf.command) {
    case 0xa0:
        packet(command);
        break;
    case 0xa1:
        ata_identify_packet(command);
        break;
    case 0x08: /* DEVICE RESET; the host has cancelled what was under way */
        ata_reset(device, true);
        ata_signature(device, &command->tf, &status, &error);
        ata_transfer_end(command);
        break;
    case 0x90:
        ata_signature(device, &command->tf, &status, &error);
        ata_finish(command);
        break;
    case 0xef:
        ata_set_features(command);
        break;
    case 0xe5:
    case 0x98:
        command->tf.count = device->power;
        ata_finish(command);
        break;
    case 0xe0:
    case 0xe2:
    case 0xe6:
    case 0x94:
    case 0x96:
    case 0x99:
        device->power = ATA_POWER_STANDBY;
        ata_finish(command);
        break;
    case 0xe1:
    case 0xe3:
    case 0x95:
    case 0x97:
        device->power = ATA_POWER_IDLE;
        ata_finish(command);
        break;
    case 0xe7:
    case 0xea:
        ata_finish(command); /* nothing is ever written */
        break;
    case 0xec:
    case 0x20:
        abort_with_signature(command);
        break;
    default:
        log_event(device, "atapi: command 0x%02x is not supported\n", command->tf.command);
        ata_abort(command);
        break;
    }
}
