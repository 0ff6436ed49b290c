/* INQUIRY: what the device is, and vital product data (SPC-4, 6.4 and 7.8; SBC-3, 6.6). The bus's lock held. */
#include "devices/storage/scsi_internal.h"

enum {
    PAGE_SUPPORTED = 0x00,
    PAGE_SERIAL = 0x80,
    PAGE_IDENTIFICATION = 0x83,
    PAGE_BLOCK_LIMITS = 0xb0,
    PAGE_CHARACTERISTICS = 0xb1,
    PAGE_PROVISIONING = 0xb2,
};
enum { TYPE_DISK = 0, TYPE_CD = 5, TYPE_NONE = 0x7f };
enum { CODE_BINARY = 1, CODE_ASCII = 2, DESIGNATOR_VENDOR = 0, DESIGNATOR_NAA = 3, ASSOCIATION_PORT = 1 << 4 };

#define WRITE_SAME_MAX (2 * GIB)

static unsigned supported_pages(const struct scsi_device *device, uint8_t *page)
{
    static const uint8_t pages[] = { PAGE_SUPPORTED,    PAGE_SERIAL,          PAGE_IDENTIFICATION,
                                     PAGE_BLOCK_LIMITS, PAGE_CHARACTERISTICS, PAGE_PROVISIONING };
    unsigned count = 0;

    for (size_t i = 0; i < sizeof(pages); i++) {
        if ((pages[i] == PAGE_SERIAL && !*device->serial) || (pages[i] >= PAGE_CHARACTERISTICS && device->cdrom))
            continue;
        page[count++] = pages[i];
    }
    return count;
}

static unsigned put_naa(uint8_t *page, uint8_t association, uint64_t name)
{
    if (!name)
        return 0;
    page[0] = CODE_BINARY;
    page[1] = association | DESIGNATOR_NAA;
    page[3] = 8;
    scsi_put64(page + 4, name);
    return 12;
}

static unsigned identification(const struct scsi_device *device, uint8_t *page)
{
    unsigned length = (unsigned)strlen(device->device_id), size = 0;

    if (length) {
        page[0] = CODE_ASCII;
        page[1] = DESIGNATOR_VENDOR;
        page[3] = (uint8_t)length;
        memcpy(page + 4, device->device_id, length);
        size = 4 + length;
    }
    size += put_naa(page + size, 0, device->wwn);
    return size + put_naa(page + size, ASSOCIATION_PORT, device->port_wwn);
}

static unsigned block_limits(const struct scsi_device *device, uint8_t *page)
{
    uint32_t physical = device->physical_block_size / device->block_size;

    page[0] = 1; /* WSNZ: WRITE SAME needs a number */
    scsi_put16(page + 2, physical > 1 ? physical : 0);
    if (!device->cdrom && block_info(device->block)->can_discard) {
        scsi_put32(page + 16, (uint32_t)(GIB >> device->block_shift)); /* blocks in one UNMAP */
        scsi_put32(page + 20, 255);                                    /* descriptors in one UNMAP */
        scsi_put32(page + 24, physical);
    }
    if (!device->cdrom)
        scsi_put64(page + 32, WRITE_SAME_MAX >> device->block_shift);
    return 60;
}

/* Fills the page behind its header; returns its length, or -1: there is no such page. */
static int fill_page(const struct scsi_device *device, uint8_t code, uint8_t *page)
{
    switch (code) {
    case PAGE_SUPPORTED:
        return (int)supported_pages(device, page);
    case PAGE_SERIAL:
        if (!*device->serial)
            return -1;
        memcpy(page, device->serial, strlen(device->serial));
        return (int)strlen(device->serial);
    case PAGE_IDENTIFICATION:
        return (int)identification(device, page);
    case PAGE_BLOCK_LIMITS:
        return (int)block_limits(device, page);
    case PAGE_CHARACTERISTICS:
        if (device->cdrom)
            return -1;
        scsi_put16(page, device->rotation_rate);
        return 60;
    case PAGE_PROVISIONING:
        if (device->cdrom)
            return -1;
        if (block_info(device->block)->can_discard) {
            page[1] = 0xe0; /* UNMAP, WRITE SAME(16) and (10) */
            page[2] = 2;    /* thin */
        }
        return 4;
    default:
        return -1;
    }
}

static void vital_product_data(struct scsi_request *request, unsigned allocation)
{
    const struct scsi_device *device = request->device;
    uint8_t data[256] = { 0 };
    int length = fill_page(device, request->cdb[2], data + 4);

    if (length < 0) {
        scsi_fail(request, SCSI_SENSE_INVALID_FIELD);
        return;
    }
    data[0] = device->cdrom ? TYPE_CD : TYPE_DISK;
    data[1] = request->cdb[2];
    scsi_put16(data + 2, (uint32_t)length);
    scsi_reply(request, data, (unsigned)length + 4, allocation);
}

void scsi_inquiry(struct scsi_request *request)
{
    const struct scsi_device *device = request->device;
    unsigned allocation = scsi_be16(request->cdb + 3);
    uint8_t data[36] = { 0 };

    if (request->cdb[1] & 1) {
        if (device)
            vital_product_data(request, allocation);
        else
            scsi_fail(request, SCSI_SENSE_LUN_NOT_SUPPORTED);
        return;
    }
    if (request->cdb[2] || (request->cdb[1] & 2)) {
        scsi_fail(request, SCSI_SENSE_INVALID_FIELD);
        return;
    }
    data[0] = !device ? TYPE_NONE : device->cdrom ? TYPE_CD : TYPE_DISK;
    data[2] = 5;    /* SPC-3 */
    data[3] = 0x12; /* LUNs as in SAM-3; this format */
    data[4] = sizeof(data) - 5;
    if (device) {
        data[1] = device->removable ? 0x80 : 0;
        data[7] = 0x02; /* command queueing */
        scsi_put_text(data + 8, 8, device->vendor);
        scsi_put_text(data + 16, 16, device->product);
        scsi_put_text(data + 32, 4, device->version);
    }
    scsi_reply(request, data, sizeof(data), allocation);
}
