/* What the files of the SCSI target share.
 *
 *   scsi_bus.c      buses, addressing, commands for LUNs that are not there
 *   scsi_device.c   scsi-hd and scsi-cd: options, life, state
 *   scsi_command.c  the table of commands; unit attention, sense, replies
 *   scsi_inquiry.c  INQUIRY and vital product data
 *   scsi_block.c    reading, writing and what else moves blocks; scsi_provision.c: UNMAP, WRITE SAME
 *   scsi_mode.c     mode pages
 *   scsi_cd.c       what only CD-ROM drives have (MMC)
 */
#ifndef EIDOLON_DEVICES_STORAGE_SCSI_INTERNAL_H
#define EIDOLON_DEVICES_STORAGE_SCSI_INTERNAL_H

#include <string.h>

#include "devices/storage/scsi.h"

#define SCSI_VERIFY_CHUNK (256 * KIB)

/* Unit attentions that wait to be told, the most important first. */
enum {
    SCSI_ATTENTION_RESET = 1 << 0,
    SCSI_ATTENTION_MEDIUM = 1 << 1,
    SCSI_ATTENTION_CAPACITY = 1 << 2,
};

struct scsi_device {
    struct device device;
    struct scsi_bus *bus;
    struct scsi_device *next;
    unsigned channel, target, lun;
    struct block *block;
    bool cdrom, removable, dpofua;
    char vendor[9], product[17], version[5], serial[37], device_id[65];
    uint64_t wwn, port_wwn;
    uint16_t rotation_rate;
    int bootindex; /* -1: none */
    uint32_t block_size, physical_block_size, max_unmap_size;
    unsigned block_shift;
    uint64_t blocks;
    unsigned under_way;
    /* What the guest set. */
    uint8_t attention; /* SCSI_ATTENTION_* */
    uint8_t write_cache;
    bool locked, tray_open;
    bool stopped;       /* START STOP UNIT */
    uint8_t new_medium; /* the next GET EVENT STATUS says so */
};

extern const struct scsi_sense SCSI_SENSE_INVALID_OPCODE, SCSI_SENSE_INVALID_FIELD, SCSI_SENSE_INVALID_PARAMETER,
    SCSI_SENSE_PARAMETER_LENGTH, SCSI_SENSE_OUT_OF_RANGE, SCSI_SENSE_LUN_NOT_SUPPORTED, SCSI_SENSE_NO_MEDIUM,
    SCSI_SENSE_TRAY_OPEN, SCSI_SENSE_REMOVAL_PREVENTED, SCSI_SENSE_NOT_READY, SCSI_SENSE_WRITE_PROTECTED,
    SCSI_SENSE_SAVING_NOT_SUPPORTED, SCSI_SENSE_MISCOMPARE, SCSI_SENSE_TARGET_FAILURE;

static inline uint32_t scsi_be16(const uint8_t *bytes)
{
    return (uint32_t)bytes[0] << 8 | bytes[1];
}
static inline uint32_t scsi_be24(const uint8_t *bytes)
{
    return (uint32_t)bytes[0] << 16 | scsi_be16(bytes + 1);
}
static inline uint32_t scsi_be32(const uint8_t *bytes)
{
    return scsi_be16(bytes) << 16 | scsi_be16(bytes + 2);
}
static inline uint64_t scsi_be64(const uint8_t *bytes)
{
    return (uint64_t)scsi_be32(bytes) << 32 | scsi_be32(bytes + 4);
}
static inline void scsi_put16(uint8_t *bytes, uint32_t value)
{
    bytes[0] = (uint8_t)(value >> 8);
    bytes[1] = (uint8_t)value;
}
static inline void scsi_put32(uint8_t *bytes, uint32_t value)
{
    scsi_put16(bytes, value >> 16);
    scsi_put16(bytes + 2, value);
}
static inline void scsi_put64(uint8_t *bytes, uint64_t value)
{
    scsi_put32(bytes, (uint32_t)(value >> 32));
    scsi_put32(bytes + 4, (uint32_t)value);
}
/* Pads with blanks, without an end. */
static inline void scsi_put_text(uint8_t *bytes, size_t size, const char *text)
{
    size_t length = MIN(strlen(text), size);

    memset(bytes, ' ', size);
    memcpy(bytes, text, length);
}

/* ---- scsi_command.c ---- */

void scsi_execute(struct scsi_request *request); /* request->device is set */
void scsi_finish(struct scsi_request *request, uint8_t status);
void scsi_fail(struct scsi_request *request, struct scsi_sense sense);
/* Moves at most `allocation` bytes of the reply to the initiator, and ends well. */
void scsi_reply(struct scsi_request *request, const void *data, uint64_t size, uint64_t allocation);
void scsi_fill_sense(uint8_t *data, struct scsi_sense sense); /* fixed format, SCSI_SENSE_SIZE bytes */
/* Copies from the initiator's buffer; false if it has fewer bytes (and the request has failed). */
bool scsi_take(struct scsi_request *request, uint64_t offset, void *data, uint64_t size);
/* The sense of an error of the drive. */
struct scsi_sense scsi_sense_of_error(enum block_op op, int result);
/* Takes back what the request allocated. */
void scsi_request_cleanup(struct scsi_request *request);
void scsi_raise_attention(struct scsi_device *device, uint8_t attention);
/* False: there is no medium, or it does not turn; *sense says which. */
bool scsi_medium_ready(const struct scsi_device *device, struct scsi_sense *sense);
void scsi_request_sense(struct scsi_request *request);

/* ---- Commands ---- */

void scsi_inquiry(struct scsi_request *request);
void scsi_report_luns(struct scsi_request *request);
void scsi_read(struct scsi_request *request);
void scsi_write(struct scsi_request *request);
void scsi_verify(struct scsi_request *request);
void scsi_synchronize_cache(struct scsi_request *request);
void scsi_read_capacity_10(struct scsi_request *request);
void scsi_service_action_in(struct scsi_request *request);
void scsi_write_same(struct scsi_request *request);
void scsi_unmap(struct scsi_request *request);
void scsi_mode_sense(struct scsi_request *request);
void scsi_mode_select(struct scsi_request *request);
void scsi_start_stop(struct scsi_request *request);
void scsi_prevent_allow(struct scsi_request *request);
void scsi_read_toc(struct scsi_request *request);
void scsi_get_configuration(struct scsi_request *request);
void scsi_get_event_status(struct scsi_request *request);
void scsi_read_disc_information(struct scsi_request *request);
void scsi_mechanism_status(struct scsi_request *request);
void scsi_read_cd(struct scsi_request *request);
void scsi_read_dvd_structure(struct scsi_request *request);

/* ---- scsi_block.c ---- */

/* Logical block address and number of blocks of a command that has them in the usual places. */
void scsi_cdb_range(const uint8_t *cdb, uint64_t *lba, uint64_t *count);
/* Fails the request if the blocks are not all on the medium. */
bool scsi_check_range(struct scsi_request *request, uint64_t lba, uint64_t count);
/* Fails the request if the medium cannot be written. */
bool scsi_check_writable(struct scsi_request *request);
/* Asks the drive; request->step gets the result. The data: request->block.iov, set before by who has any. */
void scsi_submit_block(struct scsi_request *request, enum block_op op, unsigned flags, uint64_t offset, uint64_t size);
/* A step that ends the command. */
void scsi_step_finish(struct scsi_request *request, int result);
/* `count` blocks from `lba` between the drive and the initiator's buffer. */
void scsi_transfer(struct scsi_request *request, enum block_op op, unsigned flags, uint64_t lba, uint64_t count);
/* A buffer of request->chunk bytes with request->one_iov over it; fails the request if there is no memory. */
bool scsi_take_buffer(struct scsi_request *request, uint64_t size);

/* ---- scsi_bus.c, scsi_device.c ---- */

int scsi_bus_add(struct scsi_bus *bus, struct scsi_device *device, int channel, int target, int lun, struct error *err);
void scsi_bus_remove(struct scsi_device *device);
void scsi_device_measure(struct scsi_device *device);

#endif
