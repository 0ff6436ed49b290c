/* The NVM command set (NVM Express 1.4, chapter 6).
 *
 * A command has at most one request at its drive at a time. Those of several steps (Flush of all namespaces, Dataset
 * Management, Compare, Verify) set command->step, which is called with the result of each; a command whose queue has gone
 * meanwhile ends at the next step. Data go straight between the drive and guest memory, but for Compare and Verify,
 * which read into a buffer of their own. The controller's lock held. */
#include "devices/storage/nvme_internal.h"

#include "base/log.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define FUA           (1u << 30)
#define DEALLOCATE    (1u << 25)
#define VERIFY_BUFFER (256 * KIB)
#define DSM_DISCARD   (1u << 2)

static uint64_t first_block(const struct nvme_sqe *sqe)
{
    return sqe->cdw10 | (uint64_t)sqe->cdw11 << 32;
}

static uint64_t block_count(const struct nvme_sqe *sqe)
{
    return (sqe->cdw12 & 0xffff) + 1;
}

static unsigned check_range(const struct nvme_namespace *ns, uint64_t first, uint64_t count)
{
    return first > ns->blocks || count > ns->blocks - first ? NVME_LBA_OUT_OF_RANGE | NVME_DO_NOT_RETRY : NVME_OK;
}

static unsigned error_status(enum block_op op, int result)
{
    if (!result)
        return NVME_OK;
    if (op == BLOCK_READ)
        return NVME_READ_ERROR;
    if (result == -ENOSPC)
        return NVME_CAPACITY_EXCEEDED;
    return result == -EROFS || result == -EPERM ? NVME_WRITE_PROTECTED | NVME_DO_NOT_RETRY : NVME_WRITE_FAULT;
}

/* ---- Requests ---- */

static void request_done(struct block_request *request)
{
    struct nvme_command *command = request->opaque;

    if (!command->sq)
        nvme_complete(command, NVME_OK);
    else
        command->step(command, request->result);
}

static void submit(struct nvme_command *command, enum block_op op, unsigned flags, uint64_t offset, uint64_t size)
{
    command->request = (struct block_request){
        .op = op,
        .flags = flags,
        .offset = offset,
        .size = size,
        .done = request_done,
        .opaque = command,
    };
    if (op == BLOCK_READ || op == BLOCK_WRITE) {
        command->request.iov = command->buffer ? &command->buffer_iov : command->data.iov;
        command->request.iov_count = command->buffer ? 1 : command->data.count;
    }
    block_submit(command->ns->block, &command->request);
}

static unsigned take_buffer(struct nvme_command *command, uint64_t size)
{
    command->buffer = malloc(size);
    return command->buffer ? NVME_OK : NVME_INTERNAL_ERROR;
}

/* ---- Read, Write ---- */

static void transferred(struct nvme_command *command, int result)
{
    if (!result && command->request.op == BLOCK_READ)
        dma_list_written(&command->data, command->data.size);
    nvme_complete(command, error_status(command->request.op, result));
}

/* Range, size and guest memory of a command that moves data. */
static unsigned prepare_transfer(struct nvme_command *command)
{
    const struct nvme_namespace *ns = command->ns;
    uint64_t count = block_count(&command->sqe), size = count << ns->block_shift;
    unsigned status;

    if (size > 4096ull << command->nvme->mdts)
        return NVME_INVALID_FIELD | NVME_DO_NOT_RETRY;
    status = check_range(ns, first_block(&command->sqe), count);
    return status ? status : nvme_map(command, size);
}

static unsigned transfer(struct nvme_command *command, enum block_op op)
{
    struct nvme *nvme = command->nvme;
    unsigned status = prepare_transfer(command);

    if (status)
        return status;
    if (op == BLOCK_READ) {
        nvme->reads++;
        nvme->units_read += command->data.size / 512;
    } else {
        nvme->writes++;
        nvme->units_written += command->data.size / 512;
    }
    command->step = transferred;
    submit(command, op, op == BLOCK_WRITE && (command->sqe.cdw12 & FUA) ? BLOCK_FUA : 0,
           first_block(&command->sqe) << command->ns->block_shift, command->data.size);
    return NVME_OK;
}

/* ---- Write Zeroes ---- */

static void finished(struct nvme_command *command, int result)
{
    nvme_complete(command, error_status(command->request.op, result));
}

static unsigned write_zeroes(struct nvme_command *command)
{
    const struct nvme_sqe *sqe = &command->sqe;
    unsigned shift = command->ns->block_shift, status = check_range(command->ns, first_block(sqe), block_count(sqe));

    if (status)
        return status;
    command->step = finished;
    submit(command, BLOCK_WRITE_ZEROES,
           (sqe->cdw12 & FUA ? BLOCK_FUA : 0) | (sqe->cdw12 & DEALLOCATE ? BLOCK_MAY_UNMAP : 0),
           first_block(sqe) << shift, block_count(sqe) << shift);
    return NVME_OK;
}

/* ---- Flush ---- */

static void flushed(struct nvme_command *command, int result)
{
    struct nvme_namespace *next = NULL;

    if (!result && command->sqe.nsid == NVME_BROADCAST)
        next = nvme_namespace_next(command->nvme, command->ns->nsid);
    if (!next) {
        nvme_complete(command, error_status(BLOCK_FLUSH, result));
        return;
    }
    command->ns = next;
    submit(command, BLOCK_FLUSH, 0, 0, 0);
}

static unsigned flush(struct nvme_command *command)
{
    command->step = flushed;
    submit(command, BLOCK_FLUSH, 0, 0, 0);
    return NVME_OK;
}

/* ---- Compare ---- */

static void compare_with_guest(struct nvme_command *command, int result)
{
    const uint8_t *bytes = command->buffer;
    unsigned status = error_status(BLOCK_READ, result);

    for (unsigned i = 0; !status && i < command->data.count; i++) {
        const struct iovec *piece = &command->data.iov[i];

        if (memcmp(bytes, piece->iov_base, piece->iov_len))
            status = NVME_COMPARE_FAILURE | NVME_DO_NOT_RETRY;
        bytes += piece->iov_len;
    }
    nvme_complete(command, status);
}

static unsigned compare(struct nvme_command *command)
{
    unsigned status = prepare_transfer(command);

    if (!status)
        status = take_buffer(command, command->data.size);
    if (status)
        return status;
    command->buffer_iov = (struct iovec){ command->buffer, command->data.size };
    command->step = compare_with_guest;
    submit(command, BLOCK_READ, 0, first_block(&command->sqe) << command->ns->block_shift, command->data.size);
    return NVME_OK;
}

/* ---- Verify: reads what no one looks at ---- */

static void verify_next(struct nvme_command *command, int result)
{
    uint64_t part = MIN(command->end - command->position, VERIFY_BUFFER);

    if (result || !part) {
        nvme_complete(command, error_status(BLOCK_READ, result));
        return;
    }
    command->buffer_iov = (struct iovec){ command->buffer, part };
    command->position += part;
    submit(command, BLOCK_READ, 0, command->position - part, part);
}

static unsigned verify(struct nvme_command *command)
{
    const struct nvme_sqe *sqe = &command->sqe;
    unsigned shift = command->ns->block_shift, status = check_range(command->ns, first_block(sqe), block_count(sqe));

    if (!status)
        status = take_buffer(command, VERIFY_BUFFER);
    if (status)
        return status;
    command->position = first_block(sqe) << shift;
    command->end = command->position + (block_count(sqe) << shift);
    command->step = verify_next;
    verify_next(command, 0);
    return NVME_OK;
}

/* ---- Dataset Management: ranges to deallocate ---- */

static void discard_next(struct nvme_command *command, int result)
{
    const struct nvme_range *ranges = command->buffer, *range;
    unsigned shift = command->ns->block_shift;

    while (!result && command->position < command->end) {
        range = &ranges[command->position++];
        if (!range->blocks)
            continue;
        submit(command, BLOCK_DISCARD, 0, range->lba << shift, (uint64_t)range->blocks << shift);
        return;
    }
    nvme_complete(command, error_status(BLOCK_DISCARD, result));
}

static unsigned dataset_management(struct nvme_command *command)
{
    unsigned count = (command->sqe.cdw10 & 0xff) + 1, status = take_buffer(command, count * sizeof(struct nvme_range));
    const struct nvme_range *ranges = command->buffer;

    if (!status)
        status = nvme_copy_from_guest(command, command->buffer, count * sizeof(struct nvme_range));
    for (unsigned i = 0; !status && i < count; i++)
        status = check_range(command->ns, ranges[i].lba, ranges[i].blocks);
    if (status)
        return status;
    command->position = 0;
    /* The other attributes are hints. So is this one, if the drive cannot. */
    command->end = (command->sqe.cdw11 & DSM_DISCARD) && block_info(command->ns->block)->can_discard ? count : 0;
    command->step = discard_next;
    discard_next(command, 0);
    return NVME_OK;
}

/* ---- */

/* NVME_OK: begun (it completes itself). Everything else: did not begin. */
static unsigned begin(struct nvme_command *command)
{
    switch (command->sqe.opcode) {
    case NVME_IO_FLUSH:
        return flush(command);
    case NVME_IO_WRITE:
        return transfer(command, BLOCK_WRITE);
    case NVME_IO_READ:
        return transfer(command, BLOCK_READ);
    case NVME_IO_COMPARE:
        return compare(command);
    case NVME_IO_WRITE_ZEROES:
        return write_zeroes(command);
    case NVME_IO_DATASET_MANAGEMENT:
        return dataset_management(command);
    default:
        return verify(command);
    }
}

static bool known(uint8_t opcode)
{
    return opcode == NVME_IO_FLUSH || opcode == NVME_IO_WRITE || opcode == NVME_IO_READ || opcode == NVME_IO_COMPARE ||
           opcode == NVME_IO_WRITE_ZEROES || opcode == NVME_IO_DATASET_MANAGEMENT || opcode == NVME_IO_VERIFY;
}

static bool changes(uint8_t opcode)
{
    return opcode == NVME_IO_WRITE || opcode == NVME_IO_WRITE_ZEROES || opcode == NVME_IO_DATASET_MANAGEMENT;
}

void nvme_io_execute(struct nvme_command *command)
{
    const struct nvme_sqe *sqe = &command->sqe;
    struct nvme *nvme = command->nvme;
    unsigned status = NVME_OK;

    if (sqe->opcode == NVME_IO_FLUSH && sqe->nsid == NVME_BROADCAST)
        command->ns = nvme_namespace_next(nvme, 0);
    else
        command->ns = nvme_namespace_find(nvme, sqe->nsid);
    if (!known(sqe->opcode)) {
        log_event(unimp, "NVMe: I/O command 0x%02x\n", sqe->opcode);
        status = NVME_INVALID_OPCODE | NVME_DO_NOT_RETRY;
    } else if (!command->ns) {
        status = NVME_INVALID_NAMESPACE | NVME_DO_NOT_RETRY;
    } else if (sqe->flags & 3) {
        status = NVME_INVALID_FIELD | NVME_DO_NOT_RETRY; /* fused: FUSES says no */
    } else if (changes(sqe->opcode) && block_info(command->ns->block)->read_only) {
        status = NVME_WRITE_PROTECTED | NVME_DO_NOT_RETRY;
    } else {
        status = begin(command);
    }
    if (status)
        nvme_complete(command, status);
}
