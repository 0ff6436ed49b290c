/* UNMAP and WRITE SAME (SBC-3, 5.28 and 5.45). The bus's lock held. */
#include "devices/storage/scsi_internal.h"

#define UNMAP_MAX_DESCRIPTORS 255u
#define PATTERN_CHUNK         (256 * KIB)
enum { WS_NDOB = 1 << 0, WS_UNMAP = 1 << 3, ANCHOR = 1 << 4 };

/* ---- UNMAP ---- */

/* request->buffer: descriptors of 16 bytes: LBA, number, reserved; position and end count them. */
static void unmap_next(struct scsi_request *request, int result)
{
    unsigned shift = request->device->block_shift;

    while (!result && request->position < request->end) {
        const uint8_t *descriptor = request->buffer + request->position++ * 16;
        uint64_t lba = scsi_be64(descriptor), count = scsi_be32(descriptor + 8);

        if (!count)
            continue;
        scsi_submit_block(request, BLOCK_DISCARD, 0, lba << shift, count << shift);
        return;
    }
    scsi_step_finish(request, result);
}

void scsi_unmap(struct scsi_request *request)
{
    struct scsi_device *device = request->device;
    uint32_t length = scsi_be16(request->cdb + 7), count;
    uint8_t header[8];

    if (!block_info(device->block)->can_discard) {
        scsi_fail(request, SCSI_SENSE_INVALID_OPCODE);
        return;
    }
    if (request->cdb[1] & 1) { /* anchored blocks */
        scsi_fail(request, SCSI_SENSE_INVALID_FIELD);
        return;
    }
    if (!scsi_check_writable(request))
        return;
    if (!length) {
        scsi_finish(request, SCSI_GOOD);
        return;
    }
    if (length < sizeof(header)) {
        scsi_fail(request, SCSI_SENSE_PARAMETER_LENGTH);
        return;
    }
    if (!scsi_take(request, 0, header, sizeof(header)))
        return;
    count = MIN(scsi_be16(header + 2), length - (uint32_t)sizeof(header)) / 16;
    if (count > UNMAP_MAX_DESCRIPTORS) {
        scsi_fail(request, SCSI_SENSE_INVALID_PARAMETER);
        return;
    }
    if (!scsi_take_buffer(request, UNMAP_MAX_DESCRIPTORS * 16) ||
        (count && !scsi_take(request, sizeof(header), request->buffer, count * 16)))
        return;
    for (uint32_t i = 0; i < count; i++) {
        if (!scsi_check_range(request, scsi_be64(request->buffer + i * 16), scsi_be32(request->buffer + i * 16 + 8)))
            return;
    }
    request->block.iov_count = 0;
    request->position = 0;
    request->end = count;
    request->step = unmap_next;
    unmap_next(request, 0);
}

/* ---- WRITE SAME ---- */

static bool all_zero(const uint8_t *data, uint64_t size)
{
    return !data[0] && !memcmp(data, data + 1, size - 1);
}

/* request->buffer is full of copies of the block; position and end in bytes. */
static void write_pattern(struct scsi_request *request, int result)
{
    uint64_t part = MIN(request->end - request->position, request->chunk);

    if (result || !part) {
        scsi_step_finish(request, result);
        return;
    }
    request->one_iov.iov_len = part;
    request->position += part;
    scsi_submit_block(request, BLOCK_WRITE, 0, request->position - part, part);
}

void scsi_write_same(struct scsi_request *request)
{
    struct scsi_device *device = request->device;
    uint8_t flags = request->cdb[1];
    uint64_t lba, count, size = device->block_size;
    bool no_data = request->cdb[0] == 0x93 && (flags & WS_NDOB);

    scsi_cdb_range(request->cdb, &lba, &count);
    if ((flags & (ANCHOR | 0xe0)) || !count) { /* WSNZ: no number does not mean all */
        scsi_fail(request, SCSI_SENSE_INVALID_FIELD);
        return;
    }
    if (!scsi_check_writable(request) || !scsi_check_range(request, lba, count))
        return;
    if (!scsi_take_buffer(request, PATTERN_CHUNK) || (!no_data && !scsi_take(request, 0, request->buffer, size)))
        return;
    if (no_data || all_zero(request->buffer, size)) {
        bool unmap = (flags & WS_UNMAP) && block_info(device->block)->can_discard;

        request->block.iov_count = 0;
        request->step = scsi_step_finish;
        scsi_submit_block(request, BLOCK_WRITE_ZEROES, unmap ? BLOCK_MAY_UNMAP : 0, lba << device->block_shift,
                          count << device->block_shift);
        return;
    }
    for (uint64_t done = size; done < PATTERN_CHUNK; done += size)
        memcpy(request->buffer + done, request->buffer, size);
    request->position = lba << device->block_shift;
    request->end = request->position + (count << device->block_shift);
    request->step = write_pattern;
    write_pattern(request, 0);
}
