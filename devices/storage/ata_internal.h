/* Between the files of the ATA device. */
#ifndef EIDOLON_DEVICES_STORAGE_ATA_INTERNAL_H
#define EIDOLON_DEVICES_STORAGE_ATA_INTERNAL_H

#include "devices/storage/ata.h"

/* What the data phase of a command is. */
enum ata_transfer {
    ATA_TRANSFER_NONE,
    ATA_TRANSFER_REPLY,      /* the device's buffer, to the host */
    ATA_TRANSFER_PACKET,     /* the command packet, from the host */
    ATA_TRANSFER_PARAMETERS, /* a parameter list, from the host to the buffer; then ata_parameters() */
    ATA_TRANSFER_READ,       /* the medium */
    ATA_TRANSFER_WRITE,
    ATA_TRANSFER_READ_RAW, /* 2352-byte sectors, made of 2048-byte ones */
    ATA_TRANSFER_TRIM,     /* ranges in the buffer, being discarded */
    ATA_TRANSFER_FLUSH,
    ATA_TRANSFER_VERIFY, /* read into the buffer and forgotten */
    ATA_TRANSFER_COUNT
};
enum ata_wait { ATA_WAIT_NOTHING, ATA_WAIT_MAP, ATA_WAIT_PIO, ATA_WAIT_BLOCK, ATA_WAIT_COUNT };

struct ata_sense {
    uint8_t key, asc, ascq;
};

struct ata_device {
    struct device_env *env;
    struct block *block; /* NULL: a CD-ROM drive without a drive= */
    bool cdrom;
    char serial[21], model[41], version[9];
    uint64_t wwn;
    uint16_t rotation_rate;
    uint32_t physical_block_size;
    bool initial_write_cache;
    uint64_t capacity; /* of the medium, bytes */
    uint32_t native_cylinders, native_heads, native_sectors;

    /* State. */
    uint32_t cylinders, heads, sectors; /* current CHS translation */
    uint8_t multiple;                   /* SET MULTIPLE MODE: sectors, 0 off */
    uint8_t transfer_mode;              /* SET FEATURES 3: as the subcommand takes it */
    uint8_t power;                      /* CHECK POWER MODE's answer; ATA_POWER_SLEEP: only a reset wakes it */
    bool write_cache, look_ahead, smart;
    bool ncq_failed; /* what READ LOG EXT 10h tells */
    uint8_t ncq_log[ATA_SECTOR];
    struct ata_sense sense;
    bool unit_attention, tray_open, locked;
    uint8_t media_event; /* of GET EVENT STATUS NOTIFICATION, until it is read */
    uint8_t buffer[ATA_BUFFER_SIZE + 4];

    /* Not saved. */
    unsigned queued; /* NCQ commands under way */
};

enum { ATA_POWER_STANDBY = 0x00, ATA_POWER_IDLE = 0x80, ATA_POWER_ACTIVE = 0xff, ATA_POWER_SLEEP = 0x01 };

#define ATA_MULTIPLE_MAX    16u
#define ATA_TRIM_BLOCKS_MAX 8u
#define CD_SECTOR           2048u
#define CD_RAW_SECTOR       2352u

/* ata_device.c */
void ata_device_init(struct ata_device *device, struct device_env *env);
void ata_finish(struct ata_command *command); /* success */
void ata_abort(struct ata_command *command);  /* ABRT */
void ata_fail(struct ata_command *command, uint8_t error);
void ata_medium_update(struct ata_device *device); /* capacity and geometry from the drive */
uint64_t ata_sector_count(const struct ata_device *device);
void ata_put_string(uint16_t *words, const char *text, unsigned size);

/* ata_transfer.c */
void ata_reply(struct ata_command *command, uint32_t size); /* of the device's buffer */
void ata_take(struct ata_command *command, enum ata_transfer kind, uint32_t size);
void ata_medium_transfer(struct ata_command *command, enum ata_transfer kind, uint64_t offset, uint64_t size);
void ata_flush(struct ata_command *command);
void ata_trim(struct ata_command *command);
/* The data phase is over, or the command has none: ends it. */
void ata_transfer_end(struct ata_command *command);

/* ata_disk.c, ata_identify.c */
void ata_disk_execute(struct ata_command *command);
void ata_disk_parameters(struct ata_command *command); /* DATA SET MANAGEMENT's ranges are in the buffer */
void ata_identify(struct ata_command *command);
void ata_identify_packet(struct ata_command *command);
void ata_set_features(struct ata_command *command);
void ata_set_write_cache(struct ata_device *device, bool on);
void ata_smart(struct ata_command *command);
void ata_read_log(struct ata_command *command);
void ata_ncq_error(struct ata_command *command, uint8_t error);

/* atapi.c, atapi_info.c */
void atapi_execute(struct ata_command *command);
void atapi_packet(struct ata_command *command); /* the packet has arrived */
void atapi_parameters(struct ata_command *command);
void atapi_fail(struct ata_command *command, uint8_t key, uint8_t asc, uint8_t ascq);
void atapi_io_error(struct ata_command *command);
void atapi_reply(struct ata_command *command, uint32_t size,
                 uint32_t allocation); /* at most `allocation` bytes of it */
bool atapi_medium_present(const struct ata_device *device);
uint32_t atapi_block_count(const struct ata_device *device);
void atapi_inquiry(struct ata_command *command);
void atapi_mode_sense(struct ata_command *command);
void atapi_mode_select(struct ata_command *command);
void atapi_read_toc(struct ata_command *command);
void atapi_get_configuration(struct ata_command *command);
void atapi_get_event_status(struct ata_command *command);
void atapi_read_disc_information(struct ata_command *command);
void atapi_read_track_information(struct ata_command *command);
void atapi_read_dvd_structure(struct ata_command *command);

static inline void put_be16(uint8_t *to, uint32_t value)
{
    to[0] = (uint8_t)(value >> 8);
    to[1] = (uint8_t)value;
}
static inline void put_be32(uint8_t *to, uint32_t value)
{
    put_be16(to, value >> 16);
    put_be16(to + 2, value);
}
static inline uint32_t get_be16(const uint8_t *from)
{
    return (uint32_t)from[0] << 8 | from[1];
}
static inline uint32_t get_be32(const uint8_t *from)
{
    return get_be16(from) << 16 | get_be16(from + 2);
}

#endif
