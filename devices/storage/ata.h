/* ATA and ATAPI devices, and what they are plugged into.
 *
 * struct ata_device is a disk or a CD-ROM drive as a command engine: it executes task files and knows nothing of the
 * controller. A controller ("host": an IDE channel, an AHCI port) offers a struct ata_bus, fills a struct ata_command,
 * calls ata_execute(), and answers the functions of struct ata_host_ops. Everything with the device lock held. */
#ifndef EIDOLON_DEVICES_STORAGE_ATA_H
#define EIDOLON_DEVICES_STORAGE_ATA_H

#include "devices/block/block.h"
#include "devices/core/bus.h"
#include "devices/core/device.h"
#include "devices/core/dma.h"

enum {
    ATA_STATUS_ERR = 1 << 0, /* of a packet command: CHK */
    ATA_STATUS_DRQ = 1 << 3,
    ATA_STATUS_DSC = 1 << 4,
    ATA_STATUS_DF = 1 << 5,
    ATA_STATUS_DRDY = 1 << 6,
    ATA_STATUS_BSY = 1 << 7,
};
enum {
    ATA_ERROR_ABRT = 1 << 2,
    ATA_ERROR_IDNF = 1 << 4,
    ATA_ERROR_UNC = 1 << 6,
    ATA_ERROR_ICRC = 1 << 7,
};
enum { ATA_DEVICE_SLAVE = 1 << 4, ATA_DEVICE_LBA = 1 << 6, ATA_DEVICE_FUA = 1 << 7 };
/* Interrupt reason: the count register of a packet command. */
enum { ATAPI_REASON_CD = 1 << 0, ATAPI_REASON_IO = 1 << 1 };

#define ATA_SECTOR      512u
#define ATA_BUFFER_SIZE (64u * 1024)
#define ATA_PACKET_SIZE 12u

/* The registers of the command block with their "previous" contents above:
 *   lba     47..24 previous high, mid, low | 23..16 high | 15..8 mid | 7..0 low
 *   count, feature    15..8 previous | 7..0 current */
struct ata_taskfile {
    uint64_t lba;
    uint16_t feature, count;
    uint8_t command, device;
};

struct ata_device;
struct ata_command;

struct ata_host_ops {
    /* Appends to the empty command->list the memory of the data phase, at most `size` bytes; then, now or later, calls
     * ata_dma_ready(). */
    void (*map)(struct ata_command *command, uint64_t size);
    /* There is a DRQ block: ata_pio_data(). NULL: this host moves PIO data by map() too. */
    void (*drq)(struct ata_command *command, bool interrupt);
    /* command->status, error and tf are what the device says at the end. The command may be used again. */
    void (*complete)(struct ata_command *command, bool interrupt);
    /* The end of a command that ata_cancel() could not end at once. */
    void (*cancelled)(struct ata_command *command);
};

/* How far a command is: what a saved state has of it. */
struct ata_progress {
    uint64_t offset;           /* of the next byte on the medium */
    uint64_t size, left;       /* of the data phase: in all, and not yet moved */
    uint32_t unit;             /* PIO: largest DRQ block */
    uint32_t filled, position; /* of the device's buffer: valid bytes, bytes that the host has had */
    uint8_t kind;              /* enum ata_transfer */
    uint8_t wait;              /* enum ata_wait */
    uint8_t to_device, dma, packet_command, fua;
    uint8_t pio; /* the protocol is PIO, whoever moves the data */
};

struct ata_command {
    /* Of the host, before ata_execute(). */
    const struct ata_host_ops *ops;
    void *host;
    unsigned slot;
    struct ata_taskfile tf;
    uint8_t packet[16]; /* valid if has_packet, else a packet command asks for it in a DRQ block */
    bool has_packet;

    /* For the host to look at. */
    uint8_t status, error;
    bool active;          /* executing */
    bool queued;          /* NCQ: accepted, completes later beside others */
    bool host_short;      /* the list was shorter than the data: the rest was not moved */
    bool host_fault;      /* the list could not be mapped */
    uint64_t transferred; /* bytes moved by way of the list */
    struct dma_list list;
    struct ata_progress progress;

    /* Of the device. */
    struct ata_device *device;
    struct block_request request;
    struct iovec small_iov[32];
    bool in_flight, cancel;
};

/* Before the first use; the command's memory is zero. */
void ata_command_init(struct ata_command *command, const struct ata_host_ops *ops, void *host, struct physmem *mem);
void ata_command_destroy(struct ata_command *command);

void ata_execute(struct ata_device *device, struct ata_command *command);
/* result: 0, or -EFAULT if the list named something that is not RAM. */
void ata_dma_ready(struct ata_command *command, int result);
/* The DRQ block that the host is to move, NULL if there is none; and that it has been moved. */
uint8_t *ata_pio_data(const struct ata_command *command, uint32_t *size);
void ata_pio_done(struct ata_command *command);
/* Ends the command without completing it. True: it is over. False: the drive's I/O is under way, which cannot be called
 * back; ops->cancelled() will tell. */
bool ata_cancel(struct ata_command *command);
/* Waits for all I/O that is under way. Loop's thread only. */
void ata_drain(struct ata_device *device);
/* COMRESET or power-on; SRST and DEVICE RESET when `soft`. Commands have been cancelled before. */
void ata_reset(struct ata_device *device, bool soft);
/* What the registers hold after a reset (ATA8-ACS, "signature"). */
void ata_signature(const struct ata_device *device, struct ata_taskfile *tf, uint8_t *status, uint8_t *error);
bool ata_is_packet_device(const struct ata_device *device);
/* The dword that AHCI's PxSIG has of it. */
uint32_t ata_signature_dword(const struct ata_device *device);
/* A command that came out of a saved state: makes sense of damage; one whose memory is lost is aborted. */
void ata_command_loaded(struct ata_command *command, struct ata_device *device);

/* ---- Buses ---- */

#define ATA_BUS_UNITS 2

struct ata_bus {
    struct device_bus bus; /* kind "IDE" */
    unsigned units;        /* 1 (SATA) or 2 */
    struct ata_device *devices[ATA_BUS_UNITS];
    /* Of the controller. */
    void (*attached)(struct ata_bus *bus, unsigned unit);
    void (*detached)(struct ata_bus *bus, unsigned unit); /* no command of it is under way any more */
    /* For the boot order: Open Firmware's name of the place, "/pci@i0cf8/ide@1,1/drive@0/disk@1". */
    void (*boot_path)(const struct ata_bus *bus, unsigned unit, char *path, size_t size);
};

/* Registers ID.N if `id` is given, else the next free of ide.0, ide.1, ... */
int ata_bus_add(struct device_env *env, struct ata_bus *bus, const char *id, unsigned n, struct error *err);

/* if=ide drives: makes an ide-hd or ide-cd for each that no device uses yet, at ide.BUS unit UNIT as the drive says.
 * `own` takes each device. The frontend calls it after its -device options. */
int ata_create_drives(struct device_env *env, void (*own)(void *opaque, struct device *device), void *opaque,
                      struct error *err);

/* If the device is an ide-hd or ide-cd with bootindex=: true, that index, and its line in fw_cfg's "bootorder". */
bool ata_drive_boot_entry(const struct device *device, int *bootindex, char *path, size_t size);

/* Controllers that boards make. */
struct device *piix_ide_create(struct device_env *env, int devfn, struct error *err);
struct device *ahci_create(struct device_env *env, int devfn, struct error *err);

#endif
