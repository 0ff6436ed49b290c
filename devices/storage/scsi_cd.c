/* What CD-ROM drives have (MMC-6): tray and lock, table of contents, profiles, events. The disc is one data track in one
 * session. The tray opens and closes, and a medium stays in it. The bus's lock held. */
#include "devices/storage/scsi_internal.h"

#define CD_BLOCKS_MAX     (80u * 60 * 75) /* more than 80 minutes: a DVD */
#define PROFILE_NONE      0x0000
#define PROFILE_CD_ROM    0x0008
#define PROFILE_DVD_ROM   0x0010
#define EVENT_NEW_MEDIA   2
#define EVENT_CLASS_MEDIA 4

static bool has_medium(const struct scsi_device *device)
{
    return device->blocks && !device->tray_open;
}

/* ---- START STOP UNIT, PREVENT ALLOW: disks have them too ---- */

static void flush_then_finish(struct scsi_request *request)
{
    request->step = scsi_step_finish;
    scsi_submit_block(request, BLOCK_FLUSH, 0, 0, 0);
}

void scsi_start_stop(struct scsi_request *request)
{
    struct scsi_device *device = request->device;
    bool start = request->cdb[4] & 1, load_eject = request->cdb[4] & 2;

    if (request->cdb[4] >> 4) { /* a power condition */
        scsi_finish(request, SCSI_GOOD);
        return;
    }
    if (device->removable && load_eject) {
        if (!start && device->locked) {
            scsi_fail(request, SCSI_SENSE_REMOVAL_PREVENTED);
            return;
        }
        if (start && device->tray_open && device->blocks) {
            device->new_medium = 1;
            scsi_raise_attention(device, SCSI_ATTENTION_MEDIUM);
        }
        device->tray_open = !start;
    }
    device->stopped = !start && !load_eject && !device->cdrom;
    if (start || device->cdrom || !device->blocks)
        scsi_finish(request, SCSI_GOOD);
    else
        flush_then_finish(request);
}

void scsi_prevent_allow(struct scsi_request *request)
{
    request->device->locked = request->cdb[4] & 1;
    scsi_finish(request, SCSI_GOOD);
}

/* ---- READ TOC (6.26) ---- */

static void put_address(uint8_t *bytes, uint64_t lba, bool msf)
{
    if (!msf) {
        scsi_put32(bytes, (uint32_t)lba);
        return;
    }
    lba += 150;
    bytes[0] = 0;
    bytes[1] = (uint8_t)(lba / 75 / 60);
    bytes[2] = (uint8_t)(lba / 75 % 60);
    bytes[3] = (uint8_t)(lba % 75);
}

static unsigned put_track(uint8_t *data, uint8_t track, uint64_t lba, bool msf)
{
    data[1] = 0x14; /* a data track */
    data[2] = track;
    put_address(data + 4, lba, msf);
    return 8;
}

void scsi_read_toc(struct scsi_request *request)
{
    struct scsi_device *device = request->device;
    const uint8_t *cdb = request->cdb;
    unsigned format = cdb[2] & 15 ? cdb[2] & 15 : cdb[9] >> 6, size = 4;
    bool msf = cdb[1] & 2;
    uint8_t data[32] = { 0, 0, 1, 1 }; /* first and last track, or session */

    switch (format) {
    case 0:
        if (cdb[6] > 1 && cdb[6] != 0xaa) {
            scsi_fail(request, SCSI_SENSE_INVALID_FIELD);
            return;
        }
        if (cdb[6] <= 1)
            size += put_track(data + size, 1, 0, msf);
        size += put_track(data + size, 0xaa, device->blocks, msf); /* lead-out */
        break;
    case 1: /* sessions */
        size += put_track(data + size, 1, 0, msf);
        break;
    default:
        scsi_fail(request, SCSI_SENSE_INVALID_FIELD);
        return;
    }
    scsi_put16(data, size - 2);
    scsi_reply(request, data, size, scsi_be16(cdb + 7));
}

/* ---- GET CONFIGURATION (6.6) ---- */

static unsigned profile(const struct scsi_device *device)
{
    if (!has_medium(device))
        return PROFILE_NONE;
    return device->blocks > CD_BLOCKS_MAX ? PROFILE_DVD_ROM : PROFILE_CD_ROM;
}

static unsigned put_feature(uint8_t *data, unsigned code, uint8_t flags, unsigned length)
{
    scsi_put16(data, code);
    data[2] = flags; /* bit 0 current, bit 1 persistent, 5:2 version */
    data[3] = (uint8_t)length;
    return 4 + length;
}

static unsigned put_profiles(const struct scsi_device *device, uint8_t *data)
{
    unsigned current = profile(device);

    scsi_put16(data + 4, PROFILE_DVD_ROM);
    data[6] = current == PROFILE_DVD_ROM;
    scsi_put16(data + 8, PROFILE_CD_ROM);
    data[10] = current == PROFILE_CD_ROM;
    return put_feature(data, 0x0000, 3, 8);
}

static unsigned put_feature_by_code(const struct scsi_device *device, unsigned code, uint8_t *data)
{
    switch (code) {
    case 0x0000:
        return put_profiles(device, data);
    case 0x0001:                 /* core */
        scsi_put32(data + 4, 1); /* SCSI */
        data[8] = 1;             /* DBE: block events */
        return put_feature(data, code, 2 << 2 | 3, 8);
    case 0x0003: /* removable medium: tray, ejects, locks */
        data[4] = 0x29;
        return put_feature(data, code, 3, 4);
    case 0x0010: /* random readable */
        scsi_put32(data + 4, device->block_size);
        scsi_put16(data + 8, 1);
        return put_feature(data, code, has_medium(device), 8);
    case 0x001e: /* CD read */
        return put_feature(data, code, (uint8_t)(2 << 2 | (profile(device) == PROFILE_CD_ROM)), 4);
    case 0x001f: /* DVD read */
        return put_feature(data, code, profile(device) == PROFILE_DVD_ROM, 4);
    default:
        return 0;
    }
}

void scsi_get_configuration(struct scsi_request *request)
{
    static const uint16_t features[] = { 0x0000, 0x0001, 0x0003, 0x0010, 0x001e, 0x001f };
    const struct scsi_device *device = request->device;
    unsigned wanted = request->cdb[1] & 3, first = scsi_be16(request->cdb + 2), size = 8;
    uint8_t data[128] = { 0 };

    if (wanted == 3) {
        scsi_fail(request, SCSI_SENSE_INVALID_FIELD);
        return;
    }
    scsi_put16(data + 6, profile(device));
    for (size_t i = 0; i < ARRAY_SIZE(features); i++) {
        unsigned length;

        if (wanted == 2 ? features[i] != first : features[i] < first)
            continue;
        length = put_feature_by_code(device, features[i], data + size);
        if (wanted == 1 && !(data[size + 2] & 1)) {
            memset(data + size, 0, length); /* only those that are current */
            continue;
        }
        size += length;
    }
    scsi_put32(data, size - 4);
    scsi_reply(request, data, size, scsi_be16(request->cdb + 7));
}

/* ---- Events, status ---- */

void scsi_get_event_status(struct scsi_request *request)
{
    struct scsi_device *device = request->device;
    uint8_t data[8] = { 0 };
    unsigned size = 4;

    if (!(request->cdb[1] & 1)) {
        scsi_fail(request, SCSI_SENSE_INVALID_FIELD); /* only polled */
        return;
    }
    data[2] = 0x80; /* no such class of events */
    data[3] = 1 << EVENT_CLASS_MEDIA;
    if (request->cdb[4] & 1 << EVENT_CLASS_MEDIA) {
        data[2] = EVENT_CLASS_MEDIA;
        data[4] = device->new_medium && has_medium(device) ? EVENT_NEW_MEDIA : 0;
        data[5] = (uint8_t)((device->tray_open ? 1 : 0) | (has_medium(device) ? 2 : 0));
        device->new_medium = 0;
        size = 8;
    }
    scsi_put16(data, size - 2);
    scsi_reply(request, data, size, scsi_be16(request->cdb + 7));
}

void scsi_read_disc_information(struct scsi_request *request)
{
    uint8_t data[34] = { 0 };

    if (request->cdb[1] & 7) {
        scsi_fail(request, SCSI_SENSE_INVALID_FIELD);
        return;
    }
    scsi_put16(data, sizeof(data) - 2);
    data[2] = 0x0e; /* finalized, last session complete */
    data[3] = data[4] = data[5] = data[6] = 1;
    data[7] = 0x20; /* unrestricted use */
    memset(data + 16, 0xff, 8);
    scsi_reply(request, data, sizeof(data), scsi_be16(request->cdb + 7));
}

void scsi_mechanism_status(struct scsi_request *request)
{
    uint8_t data[8] = { 0 };

    data[1] = request->device->tray_open ? 0x10 : 0;
    data[5] = 1; /* slots */
    scsi_reply(request, data, sizeof(data), scsi_be16(request->cdb + 8));
}

/* Physical format (layer 0 of a DVD-ROM); a CD has none. */
void scsi_read_dvd_structure(struct scsi_request *request)
{
    const struct scsi_device *device = request->device;
    uint8_t data[20] = { 0 };

    if (profile(device) != PROFILE_DVD_ROM || (request->cdb[1] & 15) || request->cdb[6] || request->cdb[7]) {
        scsi_fail(request, SCSI_SENSE_INVALID_FIELD);
        return;
    }
    scsi_put16(data, sizeof(data) - 2 + 0);
    data[4] = 1;    /* DVD-ROM, version 1 */
    data[5] = 0x0f; /* 120 mm, no maximum rate */
    data[6] = 1;    /* one layer, read-only */
    scsi_put32(data + 8, 0x30000);
    scsi_put32(data + 12, (uint32_t)(0x30000 + device->blocks - 1));
    scsi_reply(request, data, sizeof(data), scsi_be16(request->cdb + 8));
}

/* User data alone, of mode 1 sectors: raw sectors cannot be made up. */
void scsi_read_cd(struct scsi_request *request)
{
    const uint8_t *cdb = request->cdb;
    unsigned type = cdb[1] >> 2 & 7, fields = cdb[9] & 0xf8;
    uint64_t lba = scsi_be32(cdb + 2), count = scsi_be24(cdb + 6);

    if ((type && type != 2) || (fields && fields != 0x10) || (cdb[10] & 7)) {
        scsi_fail(request, (struct scsi_sense){ 5, 0x64, 0 }); /* illegal mode for this track */
        return;
    }
    scsi_transfer(request, BLOCK_READ, 0, lba, fields ? count : 0);
}
