/* MODE SENSE and MODE SELECT (SPC-4, 6.9 to 6.12 and 7.5; SBC-3, 6.5; MMC-6, 7).
 *
 *   header (6): length | medium | parameter | descriptors     header (10): length 2 | medium | parameter | 2 | descriptors 2
 *   block descriptor of a disk: density | number of blocks 3 | 0 | block size 3;  pages: code | length | ...
 *
 * All that can be changed is the write cache of a disk. The bus's lock held. */
#include "devices/storage/scsi_internal.h"

enum {
    PAGE_ERROR_RECOVERY = 0x01,
    PAGE_CACHING = 0x08,
    PAGE_CONTROL = 0x0a,
    PAGE_CAPABILITIES = 0x2a,
    PAGE_ALL = 0x3f
};
enum { CONTROL_CURRENT, CONTROL_CHANGEABLE, CONTROL_DEFAULT, CONTROL_SAVED };
enum { CACHING_WCE = 1 << 2, PARAMETER_DPOFUA = 1 << 4, PARAMETER_WRITE_PROTECTED = 1 << 7 };
#define MODE_MAX 256u

static unsigned caching_page(const struct scsi_device *device, unsigned control, uint8_t *page)
{
    bool cached = control == CONTROL_CURRENT ? device->write_cache : true;

    page[0] = cached ? CACHING_WCE : 0;
    return 18;
}

/* What a drive can do (MMC-3, 5.5.10): it reads CD-R, CD-RW and DVD-ROM, plays nothing, has a tray, a lock and ejects. */
static unsigned capabilities_page(const struct scsi_device *device, uint8_t *page)
{
    page[0] = 0x3b;
    page[1] = 0;
    page[2] = 0x70; /* mode 2 form 1 and 2, multi-session */
    page[3] = 0x00;
    page[4] = (uint8_t)(0x20 | 0x08 | 0x01 | (device->locked ? 2 : 0));
    page[5] = 0;
    scsi_put16(page + 6, 50 * 176); /* kilobytes a second */
    scsi_put16(page + 8, 2);
    scsi_put16(page + 10, 2048); /* KiB of buffer */
    scsi_put16(page + 12, 16 * 176);
    return 20;
}

/* One page with its header; 0: the device has no such page. */
static unsigned put_page(const struct scsi_device *device, unsigned code, unsigned control, uint8_t *page)
{
    uint8_t body[64] = { 0 };
    unsigned length;

    switch (code) {
    case PAGE_ERROR_RECOVERY:
        length = device->cdrom ? 6 : 10;
        if (control != CONTROL_CHANGEABLE) {
            body[0] = device->cdrom ? 0 : 0x80; /* AWRE */
            body[1] = device->cdrom ? 0x20 : 0; /* retries */
        }
        break;
    case PAGE_CACHING:
        if (device->cdrom)
            return 0;
        length = caching_page(device, control, body);
        break;
    case PAGE_CONTROL:
        length = 10;
        if (control != CONTROL_CHANGEABLE)
            body[1] = 0x10; /* commands may be reordered */
        break;
    case PAGE_CAPABILITIES:
        if (!device->cdrom)
            return 0;
        length = capabilities_page(device, body);
        if (control == CONTROL_CHANGEABLE)
            memset(body, 0, sizeof(body));
        break;
    default:
        return 0;
    }
    page[0] = (uint8_t)code;
    page[1] = (uint8_t)length;
    memcpy(page + 2, body, length);
    return length + 2;
}

static unsigned put_descriptor(const struct scsi_device *device, uint8_t *data)
{
    scsi_put32(data, (uint32_t)(device->blocks > 0xffffff ? 0 : device->blocks)); /* its first byte is the density: 0 */
    scsi_put32(data + 4, device->block_size);
    return 8;
}

void scsi_mode_sense(struct scsi_request *request)
{
    const struct scsi_device *device = request->device;
    const uint8_t *cdb = request->cdb;
    bool ten = cdb[0] == 0x5a;
    unsigned code = cdb[2] & 0x3f, control = cdb[2] >> 6, header = ten ? 8 : 4, size = header, pages = 0;
    uint8_t data[MODE_MAX] = { 0 }, parameter = device->dpofua ? PARAMETER_DPOFUA : 0;

    if (control == CONTROL_SAVED) {
        scsi_fail(request, SCSI_SENSE_SAVING_NOT_SUPPORTED);
        return;
    }
    if (!device->cdrom && block_info(device->block)->read_only)
        parameter |= PARAMETER_WRITE_PROTECTED;
    if (!device->cdrom && !(cdb[1] & 8))
        size += put_descriptor(device, data + size);
    for (unsigned page = 1; page < PAGE_ALL; page++) {
        if ((code == page || code == PAGE_ALL) && (cdb[3] == 0 || (cdb[3] == 0xff && code == PAGE_ALL))) {
            unsigned length = put_page(device, page, control, data + size);

            size += length;
            pages += length != 0;
        }
    }
    if (!pages) {
        scsi_fail(request, SCSI_SENSE_INVALID_FIELD);
        return;
    }
    if (ten) {
        scsi_put16(data, size - 2);
        data[3] = device->cdrom ? 0 : parameter;
        scsi_put16(data + 6, !device->cdrom && !(cdb[1] & 8) ? 8 : 0);
    } else {
        data[0] = (uint8_t)(size - 1);
        data[2] = device->cdrom ? 0 : parameter;
        data[3] = !device->cdrom && !(cdb[1] & 8) ? 8 : 0;
    }
    scsi_reply(request, data, size, ten ? scsi_be16(cdb + 7) : cdb[4]);
}

/* ---- MODE SELECT ---- */

/* A page may only differ from the current one in what can be changed. */
static bool page_acceptable(const struct scsi_device *device, const uint8_t *page, unsigned length)
{
    uint8_t current[MODE_MAX], changeable[MODE_MAX];
    unsigned code = page[0] & 0x3f;

    if ((page[0] & 0x40) || put_page(device, code, CONTROL_CURRENT, current) != length || length < 2)
        return false;
    put_page(device, code, CONTROL_CHANGEABLE, changeable);
    for (unsigned i = 2; i < length; i++) {
        if ((page[i] ^ current[i]) & ~changeable[i])
            return false;
    }
    return true;
}

/* Looks at all pages, and applies them if `apply`. */
static bool walk_pages(struct scsi_device *device, const uint8_t *data, unsigned size, bool apply)
{
    while (size >= 2) {
        unsigned length = data[1] + 2u;

        if (length > size || (!apply && !page_acceptable(device, data, length)))
            return false;
        if (apply && (data[0] & 0x3f) == PAGE_CACHING) {
            device->write_cache = (data[2] & CACHING_WCE) != 0;
            block_set_write_cache(device->block, device->write_cache);
        }
        data += length;
        size -= length;
    }
    return size == 0;
}

void scsi_mode_select(struct scsi_request *request)
{
    struct scsi_device *device = request->device;
    const uint8_t *cdb = request->cdb;
    bool ten = cdb[0] == 0x55;
    unsigned size = ten ? scsi_be16(cdb + 7) : cdb[4], header = ten ? 8 : 4, descriptors;
    uint8_t data[MODE_MAX];

    if ((cdb[1] & 0x11) != 0x10 && size) { /* PF, and nothing is saved */
        scsi_fail(request, SCSI_SENSE_INVALID_FIELD);
        return;
    }
    if (!size) {
        scsi_finish(request, SCSI_GOOD);
        return;
    }
    if (size < header || size > MODE_MAX) {
        scsi_fail(request, SCSI_SENSE_PARAMETER_LENGTH);
        return;
    }
    if (!scsi_take(request, 0, data, size))
        return;
    descriptors = ten ? scsi_be16(data + 6) : data[3];
    if (descriptors > size - header) {
        scsi_fail(request, SCSI_SENSE_PARAMETER_LENGTH);
        return;
    }
    /* A block descriptor may only repeat the block size. */
    if (descriptors && (descriptors != 8 || device->cdrom || scsi_be24(data + header + 5) != device->block_size)) {
        scsi_fail(request, SCSI_SENSE_INVALID_PARAMETER);
        return;
    }
    header += descriptors;
    if (!walk_pages(device, data + header, size - header, false)) {
        scsi_fail(request, SCSI_SENSE_INVALID_PARAMETER);
        return;
    }
    walk_pages(device, data + header, size - header, true);
    if (device->write_cache) {
        scsi_finish(request, SCSI_GOOD);
        return;
    }
    request->step = scsi_step_finish; /* what is in the cache that has been turned off must not stay there */
    scsi_submit_block(request, BLOCK_FLUSH, 0, 0, 0);
}
