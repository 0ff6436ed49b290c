/* How a device takes a command: the table of what there is, unit attention, medium, sense data, replies (SPC-4, 4.5 and 5.14).
 *
 * A handler ends the request itself, at once or later, by scsi_finish(), scsi_fail() or scsi_reply(). Device-specific
 * commands are told apart by the kind of device in the table. The bus's lock held. */
#include "devices/storage/scsi_internal.h"

#include "base/log.h"

#include <errno.h>
#include <stdlib.h>

const struct scsi_sense SCSI_SENSE_INVALID_OPCODE = { 5, 0x20, 0 }, SCSI_SENSE_INVALID_FIELD = { 5, 0x24, 0 },
                        SCSI_SENSE_INVALID_PARAMETER = { 5, 0x26, 0 }, SCSI_SENSE_PARAMETER_LENGTH = { 5, 0x1a, 0 },
                        SCSI_SENSE_OUT_OF_RANGE = { 5, 0x21, 0 }, SCSI_SENSE_LUN_NOT_SUPPORTED = { 5, 0x25, 0 },
                        SCSI_SENSE_NO_MEDIUM = { 2, 0x3a, 0 }, SCSI_SENSE_TRAY_OPEN = { 2, 0x3a, 2 },
                        SCSI_SENSE_REMOVAL_PREVENTED = { 5, 0x53, 2 }, SCSI_SENSE_NOT_READY = { 2, 0x04, 2 },
                        SCSI_SENSE_WRITE_PROTECTED = { 7, 0x27, 0 }, SCSI_SENSE_SAVING_NOT_SUPPORTED = { 5, 0x39, 0 },
                        SCSI_SENSE_MISCOMPARE = { 14, 0x1d, 0 }, SCSI_SENSE_TARGET_FAILURE = { 4, 0x44, 0 };

/* ---- Ends ---- */

void scsi_request_cleanup(struct scsi_request *request)
{
    free(request->buffer);
    free(request->own_iov);
    request->buffer = NULL;
    request->own_iov = NULL;
}

void scsi_finish(struct scsi_request *request, uint8_t status)
{
    if (request->device)
        request->device->under_way--;
    scsi_request_cleanup(request);
    request->status = status;
    if (status != SCSI_CHECK_CONDITION)
        request->sense_size = 0;
    request->done(request);
}

void scsi_fill_sense(uint8_t *data, struct scsi_sense sense)
{
    memset(data, 0, SCSI_SENSE_SIZE);
    data[0] = 0x70; /* current, fixed format */
    data[2] = sense.key;
    data[7] = SCSI_SENSE_SIZE - 8;
    data[12] = sense.asc;
    data[13] = sense.ascq;
}

void scsi_fail(struct scsi_request *request, struct scsi_sense sense)
{
    log_event(device, "SCSI: command 0x%02x: sense %x/%02x/%02x\n", request->cdb[0], sense.key, sense.asc, sense.ascq);
    scsi_fill_sense(request->sense, sense);
    request->sense_size = SCSI_SENSE_SIZE;
    scsi_finish(request, SCSI_CHECK_CONDITION);
}

static uint64_t copy(const struct scsi_request *request, uint64_t offset, uint8_t *data, uint64_t size, bool out)
{
    uint64_t done = 0;

    for (unsigned i = 0; i < request->iov_count && done < size; i++) {
        const struct iovec *iov = &request->iov[i];
        uint64_t part;

        if (offset >= iov->iov_len) {
            offset -= iov->iov_len;
            continue;
        }
        part = MIN(size - done, iov->iov_len - offset);
        if (out)
            memcpy((uint8_t *)iov->iov_base + offset, data + done, part);
        else
            memcpy(data + done, (uint8_t *)iov->iov_base + offset, part);
        done += part;
        offset = 0;
    }
    return done;
}

void scsi_reply(struct scsi_request *request, const void *data, uint64_t size, uint64_t allocation)
{
    size = MIN(size, allocation);
    if (size && request->direction == SCSI_FROM_DEVICE)
        request->transferred = copy(request, 0, (uint8_t *)data, size, true);
    scsi_finish(request, SCSI_GOOD);
}

bool scsi_take(struct scsi_request *request, uint64_t offset, void *data, uint64_t size)
{
    if (request->direction == SCSI_TO_DEVICE && copy(request, offset, data, size, false) == size) {
        request->transferred = MAX(request->transferred, offset + size);
        return true;
    }
    scsi_fail(request, SCSI_SENSE_PARAMETER_LENGTH);
    return false;
}

struct scsi_sense scsi_sense_of_error(enum block_op op, int result)
{
    switch (result) {
    case -ENOMEDIUM:
        return SCSI_SENSE_NO_MEDIUM;
    case -ENOMEM:
        return SCSI_SENSE_TARGET_FAILURE;
    case -EROFS:
    case -EPERM:
        return SCSI_SENSE_WRITE_PROTECTED;
    case -ENOSPC:
        return (struct scsi_sense){ 7, 0x27, 7 }; /* data protect: space allocation failed */
    default:
        return op == BLOCK_READ ? (struct scsi_sense){ 3, 0x11, 0 } : (struct scsi_sense){ 3, 0x0c, 0 };
    }
}

/* ---- Unit attention (SAM-5, 5.14) ---- */

void scsi_raise_attention(struct scsi_device *device, uint8_t attention)
{
    device->attention |= attention;
}

static struct scsi_sense take_attention(struct scsi_device *device)
{
    if (device->attention & SCSI_ATTENTION_RESET) {
        device->attention = 0; /* stands for all that came before */
        return (struct scsi_sense){ 6, 0x29, 0 };
    }
    if (device->attention & SCSI_ATTENTION_MEDIUM) {
        device->attention &= (uint8_t)~SCSI_ATTENTION_MEDIUM;
        return (struct scsi_sense){ 6, 0x28, 0 };
    }
    device->attention = 0;
    return (struct scsi_sense){ 6, 0x2a, 9 };
}

bool scsi_medium_ready(const struct scsi_device *device, struct scsi_sense *sense)
{
    if (device->tray_open)
        *sense = SCSI_SENSE_TRAY_OPEN;
    else if (!device->blocks)
        *sense = SCSI_SENSE_NO_MEDIUM;
    else if (device->stopped)
        *sense = SCSI_SENSE_NOT_READY;
    else
        return true;
    return false;
}

void scsi_request_sense(struct scsi_request *request)
{
    uint8_t data[SCSI_SENSE_SIZE];
    struct scsi_device *device = request->device;
    struct scsi_sense sense = { 0, 0, 0 };

    /* Sense goes with each status, so all that can be told here is a unit attention, or why the unit is not ready. */
    if (request->cdb[1] & 1) {
        scsi_fail(request, SCSI_SENSE_INVALID_FIELD); /* descriptor format */
        return;
    }
    if (!device)
        sense = SCSI_SENSE_LUN_NOT_SUPPORTED;
    else if (device->attention)
        sense = take_attention(device);
    else
        scsi_medium_ready(device, &sense);
    scsi_fill_sense(data, sense);
    scsi_reply(request, data, sizeof(data), request->cdb[4]);
}

/* ---- Simple commands ---- */

static void good(struct scsi_request *request)
{
    scsi_finish(request, SCSI_GOOD);
}

static void send_diagnostic(struct scsi_request *request)
{
    /* The default self-test, which finds nothing; no parameter list. */
    if (!(request->cdb[1] & 4) || scsi_be16(request->cdb + 3))
        scsi_fail(request, SCSI_SENSE_INVALID_FIELD);
    else
        scsi_finish(request, SCSI_GOOD);
}

/* ---- The table ---- */

enum { DISK = 1 << 0, CD = 1 << 1, ANY = DISK | CD, MEDIUM = 1 << 2, NO_ATTENTION = 1 << 3 };

struct command {
    void (*handler)(struct scsi_request *request);
    uint8_t opcode, flags; /* MEDIUM: one must be there; NO_ATTENTION: does not tell a unit attention */
};

/* Opcodes that mean one thing for disks and another for CD-ROM drives are there twice. Not there: PERSISTENT RESERVE, which
 * so is refused as an invalid command. */
static const struct command commands[] = {
    { good, 0x00, ANY | MEDIUM }, /* TEST UNIT READY */
    { good, 0x01, ANY },          /* REZERO UNIT */
    { scsi_request_sense, 0x03, ANY | NO_ATTENTION },
    { scsi_read, 0x08, ANY | MEDIUM },   /* READ(6) */
    { scsi_write, 0x0a, DISK | MEDIUM }, /* WRITE(6) */
    { good, 0x0b, ANY | MEDIUM },        /* SEEK(6) */
    { scsi_inquiry, 0x12, ANY | NO_ATTENTION },
    { scsi_mode_select, 0x15, ANY },
    { good, 0x16, ANY }, /* RESERVE(6): there is one initiator */
    { good, 0x17, ANY }, /* RELEASE(6) */
    { scsi_mode_sense, 0x1a, ANY },
    { scsi_start_stop, 0x1b, ANY },
    { send_diagnostic, 0x1d, ANY },
    { scsi_prevent_allow, 0x1e, ANY },
    { scsi_read_capacity_10, 0x25, ANY | MEDIUM },
    { scsi_read, 0x28, ANY | MEDIUM },
    { scsi_write, 0x2a, DISK | MEDIUM },
    { good, 0x2b, ANY | MEDIUM },        /* SEEK(10) */
    { scsi_write, 0x2e, DISK | MEDIUM }, /* WRITE AND VERIFY(10) */
    { scsi_verify, 0x2f, ANY | MEDIUM },
    { scsi_synchronize_cache, 0x35, ANY | MEDIUM },
    { scsi_write_same, 0x41, DISK | MEDIUM },
    { scsi_unmap, 0x42, DISK | MEDIUM },
    { scsi_read_toc, 0x43, CD | MEDIUM },
    { scsi_get_configuration, 0x46, CD | NO_ATTENTION },
    { scsi_get_event_status, 0x4a, CD | NO_ATTENTION },
    { scsi_read_disc_information, 0x51, CD | MEDIUM },
    { scsi_mode_select, 0x55, ANY },
    { good, 0x56, ANY }, /* RESERVE(10) */
    { good, 0x57, ANY }, /* RELEASE(10) */
    { scsi_mode_sense, 0x5a, ANY },
    { scsi_read, 0x88, ANY | MEDIUM },
    { scsi_write, 0x8a, DISK | MEDIUM },
    { scsi_write, 0x8e, DISK | MEDIUM },
    { scsi_verify, 0x8f, ANY | MEDIUM },
    { scsi_synchronize_cache, 0x91, ANY | MEDIUM },
    { scsi_write_same, 0x93, DISK | MEDIUM },
    { scsi_service_action_in, 0x9e, ANY | MEDIUM },
    { scsi_report_luns, 0xa0, ANY | NO_ATTENTION },
    { scsi_read, 0xa8, ANY | MEDIUM },
    { scsi_write, 0xaa, DISK | MEDIUM },
    { scsi_read_dvd_structure, 0xad, CD | MEDIUM },
    { scsi_write, 0xae, DISK | MEDIUM },
    { scsi_verify, 0xaf, ANY | MEDIUM },
    { good, 0xbb, CD }, /* SET CD SPEED */
    { scsi_mechanism_status, 0xbd, CD },
    { scsi_read_cd, 0xbe, CD | MEDIUM },
};

static const struct command *find(uint8_t opcode, bool cdrom)
{
    for (size_t i = 0; i < ARRAY_SIZE(commands); i++) {
        if (commands[i].opcode == opcode && (commands[i].flags & (cdrom ? CD : DISK)))
            return &commands[i];
    }
    return NULL;
}

void scsi_execute(struct scsi_request *request)
{
    struct scsi_device *device = request->device;
    const struct command *command = find(request->cdb[0], device->cdrom);
    struct scsi_sense sense;

    device->under_way++;
    if (!command) {
        log_event(unimp, "SCSI: command 0x%02x\n", request->cdb[0]);
        scsi_fail(request, SCSI_SENSE_INVALID_OPCODE);
    } else if (device->attention && !(command->flags & NO_ATTENTION)) {
        scsi_fail(request, take_attention(device));
    } else if ((command->flags & MEDIUM) && !scsi_medium_ready(device, &sense)) {
        scsi_fail(request, sense);
    } else {
        command->handler(request);
    }
}

/* ---- For initiators that need sizes first ---- */

unsigned scsi_cdb_length(uint8_t opcode)
{
    static const uint8_t lengths[8] = { 6, 10, 10, 0, 16, 12, 0, 0 };

    return lengths[opcode >> 5];
}

enum scsi_direction scsi_expected_transfer(const struct scsi_device *device, const uint8_t *cdb, uint64_t *size)
{
    const struct command *command = device ? find(cdb[0], device->cdrom) : NULL;
    uint64_t lba, count;

    *size = 0;
    scsi_cdb_range(cdb, &lba, &count);
    if (!command || command->handler == good)
        return SCSI_NO_DATA;
    if (command->handler == scsi_read || command->handler == scsi_write) {
        *size = count << device->block_shift;
        return *size ? command->handler == scsi_read ? SCSI_FROM_DEVICE : SCSI_TO_DEVICE : SCSI_NO_DATA;
    }
    if (command->handler == scsi_read_cd)
        *size = (uint64_t)scsi_be24(cdb + 6) * (cdb[9] & 0xf8 ? device->block_size : 0);
    else if (command->handler == scsi_verify)
        *size = (cdb[1] & 6) == 2 ? count << device->block_shift : 0;
    else if (command->handler == scsi_write_same)
        *size = cdb[0] == 0x93 && (cdb[1] & 1) ? 0 : device->block_size;
    else if (command->handler == scsi_start_stop || command->handler == scsi_prevent_allow ||
             command->handler == scsi_synchronize_cache || command->handler == send_diagnostic)
        *size = 0;
    else if (command->handler == scsi_read_capacity_10)
        *size = 8;
    else if (scsi_cdb_length(cdb[0]) == 6)
        *size = command->handler == scsi_inquiry ? scsi_be16(cdb + 3) : cdb[4];
    else if (cdb[0] == 0xbd || cdb[0] == 0xad)
        *size = scsi_be16(cdb + 8);
    else
        *size = scsi_cdb_length(cdb[0]) == 10 ? scsi_be16(cdb + 7) : scsi_be32(cdb + (cdb[0] == 0xa0 ? 6 : 10));
    if (!*size)
        return SCSI_NO_DATA;
    return command->handler == scsi_verify || command->handler == scsi_write_same || command->handler == scsi_unmap ||
                   command->handler == scsi_mode_select
               ? SCSI_TO_DEVICE
               : SCSI_FROM_DEVICE;
}
