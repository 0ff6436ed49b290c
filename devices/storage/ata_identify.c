/* What a device says of itself: IDENTIFY (PACKET) DEVICE, SET FEATURES, SMART, logs (ATA8-ACS 7.16, 7.17, 7.47, 7.52,
 * 7.25). Device lock held. */
#include "devices/storage/ata_internal.h"

#include <string.h>

#include "base/log.h"

enum { LOG_NCQ_ERROR = 0x10, LOG_NCQ_TAG_NONE = 0x80 };

/* ---- IDENTIFY ---- */

static void put_strings(const struct ata_device *device, uint16_t *words)
{
    ata_put_string(words + 10, device->serial, 20);
    ata_put_string(words + 23, device->version, 8);
    ata_put_string(words + 27, device->model, 40);
}

/* transfer_mode: bits 7..3 kind (00001 PIO, 00100 multiword DMA, 01000 UDMA), 2..0 mode. */
static void put_transfer_modes(const struct ata_device *device, uint16_t *words)
{
    unsigned kind = device->transfer_mode >> 3, mode = device->transfer_mode & 7;

    words[53] |= 1 << 1 | 1 << 2;
    words[63] = (uint16_t)(7 | (kind == 4 ? 0x100 << mode : 0));
    words[64] = 3; /* PIO 3 and 4 */
    words[65] = words[66] = words[67] = words[68] = 120;
    words[88] = (uint16_t)(0x3f | (kind == 8 ? 0x100 << mode : 0));
    words[93] = 1 | 1 << 13 | 1 << 14; /* 80-wire cable */
}

static void put_geometry(const struct ata_device *device, uint16_t *words)
{
    uint64_t sectors = ata_sector_count(device);
    uint32_t chs = device->cylinders * device->heads * device->sectors, lba28 = (uint32_t)MIN(sectors, 0xfffffffull);

    words[1] = (uint16_t)device->native_cylinders;
    words[3] = (uint16_t)device->native_heads;
    words[6] = (uint16_t)device->native_sectors;
    words[53] |= 1;
    words[54] = (uint16_t)device->cylinders;
    words[55] = (uint16_t)device->heads;
    words[56] = (uint16_t)device->sectors;
    words[57] = (uint16_t)chs;
    words[58] = (uint16_t)(chs >> 16);
    words[60] = (uint16_t)lba28;
    words[61] = (uint16_t)(lba28 >> 16);
    for (unsigned i = 0; i < 4; i++)
        words[100 + i] = (uint16_t)(sectors >> 16 * i);
}

static void put_features(const struct ata_device *device, uint16_t *words)
{
    words[82] = 1 << 14 | 1 << 6 | 1 << 5 | 1;         /* NOP, look-ahead, write cache, SMART */
    words[83] = 1 << 14 | 1 << 13 | 1 << 12 | 1 << 10; /* FLUSH EXT, FLUSH, 48-bit */
    words[84] = 1 << 14 | 1 << 6 | 1 << 5;             /* FUA EXT, general purpose logs */
    words[85] = (uint16_t)(1 << 14 | device->look_ahead << 6 | device->write_cache << 5 | device->smart);
    words[86] = 1 << 13 | 1 << 12 | 1 << 10;
    words[87] = 1 << 14 | 1 << 6 | 1 << 5;
    if (device->wwn) {
        words[84] |= 1 << 8;
        words[87] |= 1 << 8;
        for (unsigned i = 0; i < 4; i++)
            words[108 + i] = (uint16_t)(device->wwn >> (48 - 16 * i));
    }
    if (block_info(device->block)->can_discard) {
        words[105] = ATA_TRIM_BLOCKS_MAX;
        words[169] = 1;
    }
    words[217] = device->rotation_rate;
}

/* Word 255: the signature a5h and the byte that makes the sum of all 0. */
static void put_checksum(uint8_t *data)
{
    uint8_t sum = 0xa5;

    for (unsigned i = 0; i < 510; i++)
        sum = (uint8_t)(sum + data[i]);
    data[510] = 0xa5;
    data[511] = (uint8_t)-sum;
}

static void reply_identify(struct ata_command *command, uint16_t *words)
{
    uint8_t *data = command->device->buffer;

    memcpy(data, words, ATA_SECTOR);
    put_checksum(data);
    ata_reply(command, ATA_SECTOR);
}

void ata_identify(struct ata_command *command)
{
    const struct ata_device *device = command->device;
    uint16_t words[256] = { 0 };
    unsigned physical = (unsigned)__builtin_ctz(device->physical_block_size / ATA_SECTOR);

    words[0] = 0x0040; /* fixed */
    put_strings(device, words);
    put_transfer_modes(device, words);
    put_geometry(device, words);
    put_features(device, words);
    words[47] = 0x8000 | ATA_MULTIPLE_MAX;
    words[48] = 1;
    words[49] = 1 << 11 | 1 << 9 | 1 << 8; /* IORDY, LBA, DMA */
    words[50] = 1 << 14;
    words[59] = device->multiple ? 0x100 | device->multiple : 0;
    if (!command->ops->drq) { /* a SATA link */
        words[75] = 31;
        words[76] = 1 << 8 | 1 << 2 | 1 << 1; /* NCQ, 3 and 1.5 Gb/s */
        words[93] = 0;
    }
    words[80] = 0x1f0; /* ATA-4 to ATA8-ACS */
    words[106] = (uint16_t)(1 << 14 | (physical ? 1 << 13 | physical : 0));
    reply_identify(command, words);
}

void ata_identify_packet(struct ata_command *command)
{
    const struct ata_device *device = command->device;
    uint16_t words[256] = { 0 };

    words[0] = 2 << 14 | 5 << 8 | 1 << 7 | 2 << 5; /* packet device, CD-ROM, removable, DRQ within 50 us, 12 bytes */
    put_strings(device, words);
    put_transfer_modes(device, words);
    words[48] = 1;
    words[49] = 1 << 11 | 1 << 9 | 1 << 8;
    if (!command->ops->drq) {
        words[76] = 1 << 2 | 1 << 1;
        words[93] = 0;
    }
    words[80] = 0xf0;                                  /* ATA/ATAPI-4 to 7: what is older has no Serial ATA */
    words[82] = words[85] = 1 << 14 | 1 << 9 | 1 << 4; /* NOP, DEVICE RESET, packet commands */
    words[83] = words[84] = words[87] = 1 << 14;
    if (device->wwn) {
        words[84] |= 1 << 8;
        words[87] |= 1 << 8;
        for (unsigned i = 0; i < 4; i++)
            words[108 + i] = (uint16_t)(device->wwn >> (48 - 16 * i));
    }
    reply_identify(command, words);
}

/* ---- SET FEATURES ---- */

static bool set_transfer_mode(struct ata_device *device, unsigned mode)
{
    unsigned kind = mode >> 3, number = mode & 7;
    bool known = kind == 0 || (kind == 1 && number <= 4) || (kind == 4 && number <= 2) || (kind == 8 && number <= 5);

    if (known)
        device->transfer_mode = (uint8_t)mode;
    return known;
}

void ata_set_write_cache(struct ata_device *device, bool on)
{
    device->write_cache = on;
    if (device->block)
        block_set_write_cache(device->block, on);
}

void ata_set_features(struct ata_command *command)
{
    struct ata_device *device = command->device;

    switch (command->tf.feature & 0xff) {
    case 0x02:
        ata_set_write_cache(device, true);
        break;
    case 0x82:
        ata_set_write_cache(device, false);
        if (device->block) { /* what is in the cache goes out first */
            ata_flush(command);
            return;
        }
        break;
    case 0x03:
        if (!set_transfer_mode(device, command->tf.count & 0xff)) {
            ata_abort(command);
            return;
        }
        break;
    case 0xaa:
    case 0x55:
        device->look_ahead = (command->tf.feature & 0xff) == 0xaa;
        break;
    case 0x66: /* keep settings over a soft reset, as they are anyway */
    case 0xcc:
        break;
    default:
        ata_abort(command);
        return;
    }
    ata_finish(command);
}

/* ---- SMART ---- */

static const struct smart_attribute {
    uint8_t id, flags, value, worst, raw;
} smart_attributes[] = {
    { 0x01, 0x03, 100, 100, 0 },   /* raw read error rate */
    { 0x03, 0x03, 100, 100, 16 },  /* spin-up time */
    { 0x04, 0x02, 100, 100, 100 }, /* start-stop count */
    { 0x05, 0x03, 100, 100, 0 },   /* remapped sectors */
    { 0x09, 0x03, 100, 100, 1 },   /* power-on hours */
    { 0x0c, 0x03, 100, 100, 0 },   /* power cycles */
    { 0xbe, 0x03, 69, 69, 31 },    /* airflow temperature */
};

static void smart_checksum(uint8_t *data)
{
    uint8_t sum = 0;

    for (unsigned i = 0; i < 511; i++)
        sum = (uint8_t)(sum + data[i]);
    data[511] = (uint8_t)-sum;
}

static void smart_read_data(struct ata_command *command)
{
    uint8_t *data = command->device->buffer;

    memset(data, 0, ATA_SECTOR);
    data[0] = 1;
    for (unsigned i = 0; i < ARRAY_SIZE(smart_attributes); i++) {
        const struct smart_attribute *attribute = &smart_attributes[i];
        uint8_t *entry = data + 2 + 12 * i;

        entry[0] = attribute->id;
        entry[1] = attribute->flags;
        entry[3] = attribute->value;
        entry[4] = attribute->worst;
        entry[5] = attribute->raw;
    }
    data[368] = 2; /* attributes are saved; off-line collection is not offered */
    smart_checksum(data);
    ata_reply(command, ATA_SECTOR);
}

static void smart_read_thresholds(struct ata_command *command)
{
    uint8_t *data = command->device->buffer;

    memset(data, 0, ATA_SECTOR);
    data[0] = 1;
    for (unsigned i = 0; i < ARRAY_SIZE(smart_attributes); i++) {
        data[2 + 12 * i] = smart_attributes[i].id;
        data[3 + 12 * i] = smart_attributes[i].id == 0xbe ? 50 : 6;
    }
    smart_checksum(data);
    ata_reply(command, ATA_SECTOR);
}

void ata_smart(struct ata_command *command)
{
    struct ata_device *device = command->device;
    unsigned function = command->tf.feature & 0xff;

    if ((command->tf.lba >> 8 & 0xffff) != 0xc24f || (!device->smart && function != 0xd8)) {
        ata_abort(command);
        return;
    }
    switch (function) {
    case 0xd0:
        smart_read_data(command);
        return;
    case 0xd1:
        smart_read_thresholds(command);
        return;
    case 0xd2: /* attribute autosave */
        break;
    case 0xd8:
    case 0xd9:
        device->smart = function == 0xd8;
        break;
    case 0xda: /* return status: the signature stays for a drive in good health */
        break;
    default:
        ata_abort(command);
        return;
    }
    ata_finish(command);
}

/* ---- Logs ---- */

/* Queued commands end with the first error; the host then reads here which one it was. */
void ata_ncq_error(struct ata_command *command, uint8_t error)
{
    struct ata_device *device = command->device;
    const struct ata_taskfile *tf = &command->tf;
    uint8_t *log = device->ncq_log;

    if (device->ncq_failed)
        return;
    device->ncq_failed = true;
    memset(log, 0, ATA_SECTOR);
    log[0] = tf->count >> 3 & 31;
    log[2] = ATA_STATUS_DRDY | ATA_STATUS_DSC | ATA_STATUS_ERR;
    log[3] = error;
    for (unsigned i = 0; i < 3; i++) {
        log[4 + i] = (uint8_t)(tf->lba >> 8 * i);
        log[8 + i] = (uint8_t)(tf->lba >> (24 + 8 * i));
    }
    log[7] = tf->device;
    log[12] = (uint8_t)tf->count;
    log[13] = (uint8_t)(tf->count >> 8);
    smart_checksum(log);
}

void ata_read_log(struct ata_command *command)
{
    struct ata_device *device = command->device;
    uint8_t *data = device->buffer, log = (uint8_t)command->tf.lba;
    uint64_t page = (command->tf.lba >> 8 & 0xff) | (command->tf.lba >> 24 & 0xff00);

    if (command->tf.count != 1 || page || (log != 0 && log != LOG_NCQ_ERROR)) {
        ata_abort(command);
        return;
    }
    memset(data, 0, ATA_SECTOR);
    if (log == 0) { /* the directory: pages of each log */
        data[0] = 1;
        data[2 * LOG_NCQ_ERROR] = 1;
    } else {
        if (device->ncq_failed)
            memcpy(data, device->ncq_log, ATA_SECTOR);
        else
            data[0] = LOG_NCQ_TAG_NONE;
        smart_checksum(data);
        device->ncq_failed = false;
    }
    ata_reply(command, ATA_SECTOR);
}
