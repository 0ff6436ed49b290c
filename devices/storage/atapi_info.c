/* The CD-ROM drive's answers in tables: INQUIRY (SPC-3 6.4), mode pages, table of contents, features and profiles,
 * events, disc, track and DVD information (MMC-5 chapters 5 to 7). Device lock held. */
#include "devices/storage/ata_internal.h"

#include <stdio.h>
#include <string.h>

enum { KEY_ILLEGAL_REQUEST = 5, ASC_INVALID_FIELD = 0x24, ASC_PARAMETER_LIST = 0x26, ASC_SAVING = 0x39 };
enum { PAGE_ERROR_RECOVERY = 0x01, PAGE_AUDIO = 0x0e, PAGE_CAPABILITIES = 0x2a, PAGE_ALL = 0x3f };
enum { PROFILE_NONE = 0, PROFILE_CD_ROM = 0x08, PROFILE_DVD_ROM = 0x10 };

#define CD_BLOCKS_MAX (80u * 60 * 75) /* more than 80 minutes are a DVD */
#define LEAD_OUT      0xaa

static void invalid_field(struct ata_command *command)
{
    atapi_fail(command, KEY_ILLEGAL_REQUEST, ASC_INVALID_FIELD, 0);
}

/* Text padded with spaces. */
static void put_text(uint8_t *to, const char *text, size_t size)
{
    size_t length = strnlen(text, size);

    memcpy(to, text, length);
    memset(to + length, ' ', size - length);
}

static unsigned current_profile(const struct ata_device *device)
{
    if (!atapi_medium_present(device))
        return PROFILE_NONE;
    return atapi_block_count(device) > CD_BLOCKS_MAX ? PROFILE_DVD_ROM : PROFILE_CD_ROM;
}

/* ---- INQUIRY ---- */

/* Vital product data; returns the size, 0: no such page. */
static uint32_t inquiry_page(const struct ata_device *device, uint8_t page, uint8_t *data)
{
    size_t length = strlen(device->serial);

    memset(data, 0, 256);
    data[0] = 5;
    data[1] = page;
    switch (page) {
    case 0x00: /* supported pages */
        data[3] = 3;
        data[5] = 0x80;
        data[6] = 0x83;
        return 7;
    case 0x80: /* unit serial number */
        data[3] = (uint8_t)length;
        memcpy(data + 4, device->serial, length);
        return (uint32_t)(4 + length);
    case 0x83: /* identification: ASCII, vendor-specific */
        data[3] = (uint8_t)(4 + length);
        data[4] = 2;
        data[7] = (uint8_t)length;
        memcpy(data + 8, device->serial, length);
        return (uint32_t)(8 + length);
    default:
        return 0;
    }
}

void atapi_inquiry(struct ata_command *command)
{
    const uint8_t *packet = command->packet;
    struct ata_device *device = command->device;
    uint32_t allocation = get_be16(packet + 3), size;
    uint8_t *data = device->buffer;

    if (packet[1] & 1) {
        size = inquiry_page(device, packet[2], data);
        if (size)
            atapi_reply(command, size, allocation);
        else
            invalid_field(command);
        return;
    }
    if (packet[2]) {
        invalid_field(command);
        return;
    }
    memset(data, 0, 36);
    data[0] = 5;    /* CD-ROM */
    data[1] = 0x80; /* removable */
    data[3] = 0x21; /* ATAPI 2, response format 1 */
    data[4] = 31;
    /* "QEMU DVD-ROM": vendor up to the space, product the whole */
    put_text(data + 8, device->model, MIN(strcspn(device->model, " "), 8u));
    for (unsigned i = 8; i < 16; i++)
        data[i] = data[i] ? data[i] : ' ';
    put_text(data + 16, device->model, 16);
    put_text(data + 32, device->version, 4);
    atapi_reply(command, 36, allocation);
}

/* ---- Mode pages ---- */

/* Each returns the page's size. Page control 1 asks which bits can be changed: none. */
static uint32_t put_page(const struct ata_device *device, unsigned page, bool changeable, uint8_t *data)
{
    switch (page) {
    case PAGE_ERROR_RECOVERY:
        memset(data, 0, 8);
        data[0] = PAGE_ERROR_RECOVERY;
        data[1] = 6;
        data[3] = changeable ? 0 : 5; /* retries */
        return 8;
    case PAGE_AUDIO:
        memset(data, 0, 16);
        data[0] = PAGE_AUDIO;
        data[1] = 14;
        return 16;
    case PAGE_CAPABILITIES:
        memset(data, 0, 22);
        data[0] = PAGE_CAPABILITIES;
        data[1] = 20;
        if (changeable)
            return 22;
        data[2] = 0x3b; /* reads CD-R, CD-RW, method 2, DVD-ROM, DVD-R */
        data[4] = 0x70; /* multi-session, mode 2 forms 1 and 2 */
        data[5] = 1;    /* READ CD */
        data[6] = (uint8_t)(1 << 5 | 1 << 3 | 1 | device->locked << 1); /* tray, eject, lock */
        put_be16(data + 8, 706);                                        /* KB/s: 4 x */
        put_be16(data + 10, 2);
        put_be16(data + 12, 512);
        put_be16(data + 14, 706);
        return 22;
    default:
        return 0;
    }
}

void atapi_mode_sense(struct ata_command *command)
{
    static const uint8_t all[] = { PAGE_ERROR_RECOVERY, PAGE_AUDIO, PAGE_CAPABILITIES };
    struct ata_device *device = command->device;
    unsigned page = command->packet[2] & 0x3f, control = command->packet[2] >> 6;
    uint8_t *data = device->buffer;
    uint32_t size = 8, added = 0;

    if (control == 3) {
        atapi_fail(command, KEY_ILLEGAL_REQUEST, ASC_SAVING, 0);
        return;
    }
    memset(data, 0, 8);
    for (unsigned i = 0; i < ARRAY_SIZE(all); i++) {
        if (page == PAGE_ALL || page == all[i])
            size += added = put_page(device, all[i], control == 1, data + size);
    }
    if (!added) {
        invalid_field(command);
        return;
    }
    put_be16(data, size - 2);
    data[2] = device->tray_open ? 0x71 : !device->capacity ? 0x70 : 0x01;
    atapi_reply(command, size, get_be16(command->packet + 7));
}

void atapi_mode_select(struct ata_command *command)
{
    uint32_t size = get_be16(command->packet + 7);

    if ((command->packet[1] & 1) || !(command->packet[1] & 0x10) || size > 256) {
        invalid_field(command); /* saved pages, vendor formats */
        return;
    }
    if (size)
        ata_take(command, ATA_TRANSFER_PARAMETERS, size);
    else
        ata_transfer_end(command);
}

/* The parameter list of MODE SELECT: pages that we have, with their sizes. No field can be changed, and the standard
 * lets a drive round what it is given, so the values count for nothing. */
void atapi_parameters(struct ata_command *command)
{
    const struct ata_device *device = command->device;
    const uint8_t *data = device->buffer;
    uint32_t size = command->progress.filled, at = 8;
    uint8_t ours[32];

    if (size >= 8)
        at += get_be16(data + 6);
    while (at + 2 <= size) {
        uint32_t page_size = put_page(device, data[at] & 0x3f, false, ours);

        if (!page_size || data[at + 1] != page_size - 2 || at + page_size > size)
            break;
        at += page_size;
    }
    if (at != size)
        atapi_fail(command, KEY_ILLEGAL_REQUEST, ASC_PARAMETER_LIST, 0);
    else
        ata_transfer_end(command);
}

/* ---- Table of contents ---- */

/* An address as LBA, or as 0, minute, second, frame. */
static void put_address(uint8_t *to, uint32_t lba, bool msf)
{
    uint32_t frame = lba + 150;

    if (!msf) {
        put_be32(to, lba);
        return;
    }
    to[0] = 0;
    to[1] = (uint8_t)(frame / 75 / 60);
    to[2] = (uint8_t)(frame / 75 % 60);
    to[3] = (uint8_t)(frame % 75);
}

static uint32_t toc_tracks(const struct ata_device *device, unsigned first, bool msf, uint8_t *data)
{
    uint32_t size = 4;

    data[2] = data[3] = 1; /* first and last track */
    for (unsigned track = first <= 1 ? 1 : LEAD_OUT;; track = LEAD_OUT) {
        data[size + 1] = 0x14; /* data track */
        data[size + 2] = (uint8_t)track;
        put_address(data + size + 4, track == 1 ? 0 : atapi_block_count(device), msf);
        size += 8;
        if (track == LEAD_OUT)
            return size;
    }
}

/* One session: A0, A1, A2 point to first track, last track and lead-out, then the track itself. */
static uint32_t toc_raw(const struct ata_device *device, bool msf, uint8_t *data)
{
    static const uint8_t points[] = { 0xa0, 0xa1, 0xa2, 1 };
    uint32_t size = 4;

    data[2] = data[3] = 1;
    for (unsigned i = 0; i < ARRAY_SIZE(points); i++) {
        uint8_t *entry = data + size;

        entry[0] = 1;
        entry[1] = 0x14;
        entry[3] = points[i];
        if (points[i] == 0xa0 || points[i] == 0xa1)
            entry[8] = 1;
        else
            put_address(entry + 7, points[i] == 1 ? 0 : atapi_block_count(device), msf);
        size += 11;
    }
    return size;
}

void atapi_read_toc(struct ata_command *command)
{
    const uint8_t *packet = command->packet;
    struct ata_device *device = command->device;
    bool msf = packet[1] & 2;
    unsigned format = packet[2] & 0xf ? packet[2] & 0xfu : packet[9] >> 6, first = packet[6];
    uint8_t *data = device->buffer;
    uint32_t size = 12;

    memset(data, 0, 64);
    if (format == 0 && (first <= 1 || first == LEAD_OUT)) {
        size = toc_tracks(device, first, msf, data);
    } else if (format == 1) { /* sessions */
        data[2] = data[3] = 1;
        data[5] = 0x14;
        data[6] = 1;
        put_address(data + 8, 0, msf);
    } else if (format == 2) {
        size = toc_raw(device, msf, data);
    } else {
        invalid_field(command);
        return;
    }
    put_be16(data, size - 2);
    atapi_reply(command, size, get_be16(packet + 7));
}

/* ---- Features ---- */

enum { FEATURE_CURRENT = 1, FEATURE_PERSISTENT = 2 };

static uint32_t put_feature(uint8_t *data, unsigned code, unsigned flags, const void *body, uint8_t size)
{
    put_be16(data, code);
    data[2] = (uint8_t)flags;
    data[3] = size;
    if (size)
        memcpy(data + 4, body, size);
    return 4u + size;
}

static uint32_t put_feature_code(const struct ata_device *device, unsigned code, uint8_t *data)
{
    unsigned profile = current_profile(device), always = FEATURE_CURRENT | FEATURE_PERSISTENT;
    uint8_t body[16] = { 0 };

    switch (code) {
    case 0x0000: /* profile list */
        put_be16(body, PROFILE_DVD_ROM);
        body[2] = profile == PROFILE_DVD_ROM;
        put_be16(body + 4, PROFILE_CD_ROM);
        body[6] = profile == PROFILE_CD_ROM;
        return put_feature(data, code, always, body, 8);
    case 0x0001:           /* core */
        put_be32(body, 2); /* ATAPI */
        body[4] = 1;       /* device busy events */
        return put_feature(data, code, 2 << 2 | always, body, 8);
    case 0x0003: /* removable medium: tray, eject, lock */
        body[0] = 1 << 5 | 1 << 3 | 1;
        return put_feature(data, code, always, body, 4);
    case 0x0010: /* random readable */
        put_be32(body, CD_SECTOR);
        put_be16(body + 4, 16);
        return put_feature(data, code, profile ? FEATURE_CURRENT : 0, body, 8);
    case 0x001d: /* multi-read */
        return put_feature(data, code, profile == PROFILE_CD_ROM ? FEATURE_CURRENT : 0, NULL, 0);
    case 0x001e: /* CD read */
        return put_feature(data, code, 2 << 2 | (profile == PROFILE_CD_ROM ? FEATURE_CURRENT : 0), body, 4);
    case 0x001f: /* DVD read */
        return put_feature(data, code, profile == PROFILE_DVD_ROM ? FEATURE_CURRENT : 0, body, 4);
    case 0x0100: /* power management */
        return put_feature(data, code, always, NULL, 0);
    default:
        return 0;
    }
}

void atapi_get_configuration(struct ata_command *command)
{
    static const uint16_t codes[] = { 0x0000, 0x0001, 0x0003, 0x0010, 0x001d, 0x001e, 0x001f, 0x0100 };
    struct ata_device *device = command->device;
    unsigned type = command->packet[1] & 3, start = get_be16(command->packet + 2);
    uint8_t *data = device->buffer;
    uint32_t size = 8;

    if (type == 3) {
        invalid_field(command);
        return;
    }
    memset(data, 0, 8);
    for (unsigned i = 0; i < ARRAY_SIZE(codes); i++) {
        uint32_t added;

        if (codes[i] < start || (type == 2 && codes[i] != start))
            continue;
        added = put_feature_code(device, codes[i], data + size);
        if (type != 1 || (data[size + 2] & FEATURE_CURRENT))
            size += added;
    }
    put_be32(data, size - 4);
    put_be16(data + 6, current_profile(device));
    atapi_reply(command, size, get_be16(command->packet + 7));
}

/* ---- Events ---- */

void atapi_get_event_status(struct ata_command *command)
{
    struct ata_device *device = command->device;
    uint8_t *data = device->buffer;
    unsigned wanted = command->packet[4];
    uint32_t size = 4, allocation = get_be16(command->packet + 7);

    if (!(command->packet[1] & 1)) { /* asynchronous */
        invalid_field(command);
        return;
    }
    memset(data, 0, 8);
    data[3] = 1 << 4; /* classes that we have: media */
    if (wanted & 1 << 4) {
        put_be16(data, 4);
        data[2] = 4;
        data[4] = device->media_event;
        data[5] = (uint8_t)(device->tray_open | (device->capacity && !device->tray_open) << 1);
        size = 8;
        if (allocation >= 8)
            device->media_event = 0;
    } else {
        data[2] = 0x80; /* no event available */
    }
    atapi_reply(command, size, allocation);
}

/* ---- Discs ---- */

void atapi_read_disc_information(struct ata_command *command)
{
    uint8_t *data = command->device->buffer;

    if (command->packet[1] & 7) {
        invalid_field(command);
        return;
    }
    memset(data, 0, 34);
    put_be16(data, 32);
    data[2] = 3 << 2 | 2;                      /* last session complete, disc complete */
    data[3] = data[4] = data[5] = data[6] = 1; /* first track; sessions; first and last track of the last session */
    data[7] = 0x20;                            /* unrestricted use */
    memset(data + 16, 0xff, 8);                /* no more sessions can be written */
    atapi_reply(command, 34, get_be16(command->packet + 7));
}

void atapi_read_track_information(struct ata_command *command)
{
    struct ata_device *device = command->device;
    uint8_t *data = device->buffer;
    uint32_t number = get_be32(command->packet + 2);
    unsigned type = command->packet[1] & 3;

    /* by LBA, by track, by session: there is one of each */
    if (type == 3 || (type == 0 && number >= atapi_block_count(device)) || (type != 0 && number != 1)) {
        invalid_field(command);
        return;
    }
    memset(data, 0, 36);
    put_be16(data, 34);
    data[2] = data[3] = 1;
    data[5] = 4; /* data track */
    data[6] = 1; /* mode 1 */
    put_be32(data + 24, atapi_block_count(device));
    atapi_reply(command, 36, get_be16(command->packet + 7));
}

/* Returns the size of the structure with its header, 0: no such format. */
static uint32_t dvd_structure(const struct ata_device *device, unsigned format, uint8_t *data)
{
    uint32_t last = atapi_block_count(device) - 1;

    memset(data, 0, 4 + 2048);
    switch (format) {
    case 0x00:        /* physical format of layer 0 */
        data[4] = 1;  /* DVD-ROM, version 1 */
        data[5] = 15; /* 120 mm, no rate given */
        data[6] = 1;  /* one layer, embossed */
        put_be32(data + 8, 0x30000);
        put_be32(data + 12, 0x30000 + last);
        return 4 + 2048;
    case 0x01: /* copyright: none */
        return 4 + 4;
    case 0x04: /* manufacturer: empty */
        return 4 + 2048;
    case 0xff: /* which formats there are */
        for (unsigned i = 0; i < 3; i++) {
            static const uint16_t formats[3][2] = { { 0x00, 2052 }, { 0x01, 8 }, { 0x04, 2052 } };

            data[4 + 4 * i] = (uint8_t)formats[i][0];
            data[5 + 4 * i] = 0x40; /* can be read */
            put_be16(data + 6 + 4 * i, formats[i][1]);
        }
        return 4 + 12;
    default:
        return 0;
    }
}

void atapi_read_dvd_structure(struct ata_command *command)
{
    const uint8_t *packet = command->packet;
    uint8_t *data = command->device->buffer;
    uint32_t size;

    if (current_profile(command->device) != PROFILE_DVD_ROM && packet[7] != 0xff) {
        atapi_fail(command, KEY_ILLEGAL_REQUEST, 0x30, 2); /* incompatible format */
        return;
    }
    size = packet[6] ? 0 : dvd_structure(command->device, packet[7], data); /* byte 6: layer */
    if (!size) {
        invalid_field(command);
        return;
    }
    put_be16(data, size - 2);
    atapi_reply(command, size, get_be16(packet + 8));
}
