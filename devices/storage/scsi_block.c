/* Commands that move blocks (SBC-3, chapter 5): READ, WRITE, VERIFY, SYNCHRONIZE CACHE, READ CAPACITY.
 *
 * Data go straight between the drive and the initiator's buffer. A request has at most one request at the drive at a
 * time; those of several steps go on in request->step. The bus's lock held. */
#include "devices/storage/scsi_internal.h"

#include <stdlib.h>

enum { FUA = 1 << 3, PROTECT = 7 << 5, BYTCHK = 3 << 1 };

void scsi_cdb_range(const uint8_t *cdb, uint64_t *lba, uint64_t *count)
{
    switch (scsi_cdb_length(cdb[0])) {
    case 6:
        *lba = scsi_be24(cdb + 1) & 0x1fffff;
        *count = cdb[4] ? cdb[4] : 256;
        break;
    case 10:
        *lba = scsi_be32(cdb + 2);
        *count = scsi_be16(cdb + 7);
        break;
    case 12:
        *lba = scsi_be32(cdb + 2);
        *count = scsi_be32(cdb + 6);
        break;
    default:
        *lba = scsi_be64(cdb + 2);
        *count = scsi_be32(cdb + 10);
        break;
    }
}

bool scsi_check_range(struct scsi_request *request, uint64_t lba, uint64_t count)
{
    uint64_t blocks = request->device->blocks;

    if (lba <= blocks && count <= blocks - lba)
        return true;
    scsi_fail(request, SCSI_SENSE_OUT_OF_RANGE);
    return false;
}

bool scsi_check_writable(struct scsi_request *request)
{
    if (!block_info(request->device->block)->read_only)
        return true;
    scsi_fail(request, SCSI_SENSE_WRITE_PROTECTED);
    return false;
}

/* ---- Requests to the drive ---- */

static void request_done(struct block_request *block)
{
    struct scsi_request *request = block->opaque;

    request->step(request, block->result);
}

void scsi_submit_block(struct scsi_request *request, enum block_op op, unsigned flags, uint64_t offset, uint64_t size)
{
    struct block_request *block = &request->block;

    block->op = op;
    block->flags = flags;
    block->offset = offset;
    block->size = size;
    block->done = request_done;
    block->opaque = request;
    block_submit(request->device->block, block);
}

void scsi_step_finish(struct scsi_request *request, int result)
{
    if (result)
        scsi_fail(request, scsi_sense_of_error(request->block.op, result));
    else
        scsi_finish(request, SCSI_GOOD);
}

bool scsi_take_buffer(struct scsi_request *request, uint64_t size)
{
    request->buffer = malloc(size);
    if (!request->buffer) {
        scsi_fail(request, SCSI_SENSE_TARGET_FAILURE);
        return false;
    }
    request->chunk = size;
    request->one_iov = (struct iovec){ request->buffer, size };
    request->block.iov = &request->one_iov;
    request->block.iov_count = 1;
    return true;
}

/* The first `size` bytes of the initiator's buffer, which has them. */
static bool use_initiator_buffer(struct scsi_request *request, uint64_t size)
{
    unsigned count = 0;

    if (size == request->size) {
        request->block.iov = request->iov;
        request->block.iov_count = request->iov_count;
        return true;
    }
    request->own_iov = malloc(request->iov_count * sizeof(struct iovec));
    if (!request->own_iov) {
        scsi_fail(request, SCSI_SENSE_TARGET_FAILURE);
        return false;
    }
    for (unsigned i = 0; i < request->iov_count && size; i++) {
        struct iovec iov = request->iov[i];

        iov.iov_len = MIN(iov.iov_len, size);
        size -= iov.iov_len;
        if (iov.iov_len)
            request->own_iov[count++] = iov;
    }
    request->block.iov = request->own_iov;
    request->block.iov_count = count;
    return true;
}

static void transferred(struct scsi_request *request, int result)
{
    if (!result)
        request->transferred = request->block.size;
    scsi_step_finish(request, result);
}

void scsi_transfer(struct scsi_request *request, enum block_op op, unsigned flags, uint64_t lba, uint64_t count)
{
    struct scsi_device *device = request->device;
    enum scsi_direction direction = op == BLOCK_READ ? SCSI_FROM_DEVICE : SCSI_TO_DEVICE;

    if (!scsi_check_range(request, lba, count))
        return;
    if (!count) {
        scsi_finish(request, SCSI_GOOD);
        return;
    }
    if (request->direction != direction || request->size < count << device->block_shift) {
        request->overrun = true;
        scsi_finish(request, SCSI_GOOD);
        return;
    }
    if (!use_initiator_buffer(request, count << device->block_shift))
        return;
    request->step = transferred;
    scsi_submit_block(request, op, flags, lba << device->block_shift, count << device->block_shift);
}

/* ---- READ, WRITE ---- */

static bool has_protection(struct scsi_request *request)
{
    if (scsi_cdb_length(request->cdb[0]) == 6 || !(request->cdb[1] & PROTECT))
        return false;
    scsi_fail(request, SCSI_SENSE_INVALID_FIELD); /* there is no protection information */
    return true;
}

void scsi_read(struct scsi_request *request)
{
    uint64_t lba, count;

    scsi_cdb_range(request->cdb, &lba, &count);
    if (!has_protection(request))
        scsi_transfer(request, BLOCK_READ, 0, lba, count);
}

void scsi_write(struct scsi_request *request)
{
    uint8_t opcode = request->cdb[0];
    bool verifies = opcode == 0x2e || opcode == 0x8e || opcode == 0xae;
    /* What is to be verified must be on the medium first. */
    bool fua = verifies || (scsi_cdb_length(opcode) != 6 && (request->cdb[1] & FUA));
    uint64_t lba, count;

    scsi_cdb_range(request->cdb, &lba, &count);
    if (!has_protection(request) && scsi_check_writable(request))
        scsi_transfer(request, BLOCK_WRITE, fua ? BLOCK_FUA : 0, lba, count);
}

/* ---- VERIFY: reads, and with BYTCHK = 1 compares with the initiator's data ---- */

static bool same_as_initiators(const struct scsi_request *request, uint64_t offset, uint64_t size)
{
    const uint8_t *data = request->buffer;

    for (unsigned i = 0; i < request->iov_count && size; i++) {
        const struct iovec *iov = &request->iov[i];
        uint64_t part;

        if (offset >= iov->iov_len) {
            offset -= iov->iov_len;
            continue;
        }
        part = MIN(size, iov->iov_len - offset);
        if (memcmp((uint8_t *)iov->iov_base + offset, data, part))
            return false;
        data += part;
        size -= part;
        offset = 0;
    }
    return true;
}

static void verify_next(struct scsi_request *request, int result)
{
    bool compares = request->cdb[1] & BYTCHK;
    uint64_t part;

    if (result) {
        scsi_step_finish(request, result);
        return;
    }
    if (compares && request->position &&
        !same_as_initiators(request, request->position - request->block.size, request->block.size)) {
        scsi_fail(request, SCSI_SENSE_MISCOMPARE);
        return;
    }
    part = MIN(request->end - request->position, request->chunk);
    if (!part) {
        request->transferred = compares ? request->end : 0;
        scsi_finish(request, SCSI_GOOD);
        return;
    }
    request->one_iov.iov_len = part;
    request->position += part;
    scsi_submit_block(request, BLOCK_READ, 0,
                      request->block.opaque ? request->block.offset + request->block.size : request->block.offset,
                      part);
}

void scsi_verify(struct scsi_request *request)
{
    struct scsi_device *device = request->device;
    unsigned check = (request->cdb[1] & BYTCHK) >> 1;
    uint64_t lba, count;

    scsi_cdb_range(request->cdb, &lba, &count);
    if (check > 1) {
        scsi_fail(request, SCSI_SENSE_INVALID_FIELD);
        return;
    }
    if (has_protection(request) || !scsi_check_range(request, lba, count))
        return;
    request->end = count << device->block_shift;
    if (check && count && (request->direction != SCSI_TO_DEVICE || request->size < request->end)) {
        request->overrun = true;
        scsi_finish(request, SCSI_GOOD);
        return;
    }
    if (!scsi_take_buffer(request, SCSI_VERIFY_CHUNK))
        return;
    request->position = 0;
    request->block.offset = lba << device->block_shift;
    request->block.opaque = NULL; /* nothing was read yet */
    request->step = verify_next;
    verify_next(request, 0);
}

/* ---- SYNCHRONIZE CACHE ---- */

void scsi_synchronize_cache(struct scsi_request *request)
{
    uint64_t lba, count;

    scsi_cdb_range(request->cdb, &lba, &count);
    if (!scsi_check_range(request, lba, count))
        return;
    request->step = scsi_step_finish; /* all of the cache, whatever the range */
    scsi_submit_block(request, BLOCK_FLUSH, 0, 0, 0);
}

/* ---- READ CAPACITY ---- */

void scsi_read_capacity_10(struct scsi_request *request)
{
    struct scsi_device *device = request->device;
    uint8_t data[8];

    if (!(request->cdb[8] & 1) && scsi_be32(request->cdb + 2)) {
        scsi_fail(request, SCSI_SENSE_INVALID_FIELD);
        return;
    }
    scsi_put32(data, (uint32_t)MIN(device->blocks - 1, 0xffffffffull));
    scsi_put32(data + 4, device->block_size);
    scsi_reply(request, data, sizeof(data), sizeof(data));
}

void scsi_service_action_in(struct scsi_request *request)
{
    struct scsi_device *device = request->device;
    uint8_t data[32] = { 0 };

    if ((request->cdb[1] & 31) != 0x10) {
        scsi_fail(request, SCSI_SENSE_INVALID_FIELD);
        return;
    }
    scsi_put64(data, device->blocks - 1);
    scsi_put32(data + 8, device->block_size);
    data[13] = (uint8_t)__builtin_ctz(device->physical_block_size / device->block_size);
    if (!device->cdrom && block_info(device->block)->can_discard)
        data[14] = 0x80; /* LBPME: blocks may be unmapped */
    scsi_reply(request, data, sizeof(data), scsi_be32(request->cdb + 10));
}
