/* SCSI: buses, and the devices on them (disks and CD-ROM drives), for whatever carries commands there: virtio-scsi, USB
 * storage, ATAPI.
 *
 * An initiator (the controller) owns a struct scsi_bus, registers it by name, fills a struct scsi_request for each
 * command and submits it. Devices come and go with -device scsi-hd and scsi-cd, or are made by scsi_device_create().
 *
 * Threads: a bus belongs to an event loop, as its drives do; everything here is called with that loop's lock held, and
 * done() comes with it. Those that add and remove devices also have the device lock. */
#ifndef EIDOLON_DEVICES_STORAGE_SCSI_H
#define EIDOLON_DEVICES_STORAGE_SCSI_H

#include "devices/block/block.h"
#include "devices/core/bus.h"
#include "devices/core/device.h"

#define SCSI_CDB_MAX    32u
#define SCSI_SENSE_SIZE 18u

enum scsi_direction { SCSI_NO_DATA, SCSI_FROM_DEVICE, SCSI_TO_DEVICE };
enum { SCSI_GOOD = 0x00, SCSI_CHECK_CONDITION = 0x02, SCSI_RESERVATION_CONFLICT = 0x18, SCSI_TASK_ABORTED = 0x40 };

struct scsi_bus;
struct scsi_device;

/* Sense data: key, additional code and qualifier (SPC-4, 4.5). */
struct scsi_sense {
    uint8_t key, asc, ascq;
};

struct scsi_request {
    /* Set by the initiator. What it points at stays until done(). */
    uint8_t channel;
    uint16_t target, lun;
    uint8_t cdb[SCSI_CDB_MAX];     /* bytes beyond the command are zero */
    enum scsi_direction direction; /* of the buffer */
    const struct iovec *iov;
    unsigned iov_count;
    uint64_t size; /* of the buffer */
    /* Once; perhaps from inside scsi_bus_submit(). The request may be freed in it. */
    void (*done)(struct scsi_request *request);
    void *opaque;

    /* For done(). */
    uint8_t status;
    uint8_t sense[SCSI_SENSE_SIZE];
    uint8_t sense_size; /* 0 unless CHECK CONDITION */
    bool overrun;       /* the command moves more data than the buffer has, or the other way; nothing was done */
    uint64_t transferred;

    /* Of the SCSI code while the command is under way. */
    struct scsi_device *device;
    struct scsi_request *next;
    struct block_request block;
    struct iovec *own_iov, one_iov;
    uint8_t *buffer;
    uint64_t position, end, chunk;
    void (*step)(struct scsi_request *request, int result);
};

/* What the controller wants to know. Device lock and the loop's; each may be NULL. */
struct scsi_bus_ops {
    void (*attached)(struct scsi_bus *bus, struct scsi_device *device); /* also at start */
    void (*detached)(struct scsi_bus *bus, struct scsi_device *device);
    /* A unit attention is waiting: capacity or medium changed. The loop's lock alone. */
    void (*changed)(struct scsi_bus *bus, struct scsi_device *device, uint8_t asc, uint8_t ascq);
};

struct scsi_bus {
    struct device_bus bus; /* kind "SCSI" */
    struct device_env *env;
    struct event_loop *loop;
    const struct scsi_bus_ops *ops;
    void *opaque;
    unsigned max_channel, max_target, max_lun; /* the highest that a device may have */
    int devfn;                                 /* of a controller on the PCI bus, for boot order; -1: elsewhere */
    struct scsi_device *devices;
};

/* Sets bus->bus.id to "ID.0" of the controller (QEMU: "scsi.0" if it has no id) and registers it. The limits are set before. */
int scsi_bus_init(struct scsi_bus *bus, struct device *controller, struct event_loop *loop,
                  const struct scsi_bus_ops *ops, void *opaque, struct error *err);
void scsi_bus_destroy(struct scsi_bus *bus); /* its devices are gone */
struct scsi_device *scsi_bus_find(struct scsi_bus *bus, unsigned channel, unsigned target, unsigned lun); /* or NULL */
struct scsi_device *scsi_bus_next(struct scsi_bus *bus,
                                  struct scsi_device *after); /* NULL: the first; none after the last */
bool scsi_bus_has_target(const struct scsi_bus *bus, unsigned channel, unsigned target);
/* False: there is no such target, and nothing happens. */
bool scsi_bus_submit(struct scsi_bus *bus, struct scsi_request *request);

/* Which way a command's data go, and how many bytes at most: for those who must have a buffer first. */
enum scsi_direction scsi_expected_transfer(const struct scsi_device *device, const uint8_t *cdb, uint64_t *size);
unsigned scsi_cdb_length(uint8_t opcode); /* 0: unknown */

/* As after power-on: unit attention, mode pages, tray. Commands under way end as usual. */
void scsi_device_reset(struct scsi_device *device);
unsigned scsi_device_under_way(const struct scsi_device *device);
void scsi_device_address(const struct scsi_device *device, unsigned *channel, unsigned *target, unsigned *lun);
struct block *scsi_device_block(const struct scsi_device *device);

/* Drives with if=scsi become scsi-hd and scsi-cd, on the SCSI bus of their number (in the order of creation), at target
 * `unit`. `own` takes each device over. */
int scsi_attach_drives(struct device_env *env, void (*own)(void *opaque, struct device *device), void *opaque,
                       struct error *err);
/* False: not a SCSI device with bootindex=. `path`: as firmware names it, for the file "bootorder". */
bool scsi_boot_entry(const struct device *device, int *bootindex, char *path, size_t size);

#endif
