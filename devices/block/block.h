/* Drives: what -drive, -blockdev, -hda, -cdrom open, and what storage devices read and write.
 *
 * A request is asynchronous: block_submit() returns at once, done() comes later, on the thread of the event loop that the
 * block was attached to, with that loop's lock held, never from inside block_submit(). Requests may complete in any order;
 * whoever needs order waits. A flush covers the writes that had completed when it was submitted. */
#ifndef EIDOLON_DEVICES_BLOCK_BLOCK_H
#define EIDOLON_DEVICES_BLOCK_BLOCK_H

#include <sys/uio.h>

#include "base/error.h"
#include "base/event_loop.h"
#include "base/options.h"
#include "base/types.h"

struct block;          /* a drive: one open image with its back end, its options, its user */
struct block_registry; /* all of them, by id */

enum block_op { BLOCK_READ, BLOCK_WRITE, BLOCK_FLUSH, BLOCK_DISCARD, BLOCK_WRITE_ZEROES };
enum {
    BLOCK_FUA = 1 << 0,       /* WRITE, WRITE_ZEROES: on stable storage before done() */
    BLOCK_MAY_UNMAP = 1 << 1, /* WRITE_ZEROES: holes are as good as zeroes */
};

struct block_request {
    enum block_op op;
    unsigned flags;
    uint64_t offset, size;   /* bytes, multiples of 512, inside the drive (else -EINVAL, -EIO from done()) */
    const struct iovec *iov; /* READ, WRITE: `size` bytes in all; any alignment; the caller's until done() */
    unsigned iov_count;
    void (*done)(struct block_request *request);
    void *opaque;
    int result; /* 0 or -errno, for done() */

    /* Of the block layer while the request is under way. */
    struct block *block;
    void *private_data;
    struct block_request *next;
    uint64_t started_ns;
};

/* Any thread. */
void block_submit(struct block *block, struct block_request *request);
/* Blocks the calling thread until the request is done; not on a thread that runs the block's loop. For start-up, tools, tests. */
int block_execute(struct block *block, enum block_op op, uint64_t offset, void *buffer, uint64_t size, unsigned flags);
/* Waits until no request is under way (done() called for each; those that stopped the machine fail). The lock of the
 * block's loop held; done() is called by this thread. */
void block_drain(struct block *block);

enum block_interface { BLOCK_IF_NONE, BLOCK_IF_IDE, BLOCK_IF_SCSI, BLOCK_IF_VIRTIO, BLOCK_IF_PFLASH, BLOCK_IF_FLOPPY };
/* What happens on an error: werror=, rerror=. The block layer does it, so that devices only report what reaches done():
 * IGNORE completes the request with 0; STOP (ENOSPC: STOP if the host's disk is full, else REPORT) keeps the request, has
 * the machine paused, and makes the request again on block_registry_resume(). */
enum block_on_error { BLOCK_ERROR_REPORT, BLOCK_ERROR_IGNORE, BLOCK_ERROR_STOP, BLOCK_ERROR_ENOSPC };

struct block_info {
    const char *id;
    uint64_t size;                                    /* bytes, a multiple of 512; 0: no medium */
    uint32_t logical_block_size, physical_block_size; /* 512 unless the back end says otherwise */
    bool read_only, cdrom, removable, write_cache, can_discard;
    enum block_interface interface;
    unsigned bus, unit; /* if=ide,bus=,unit= or index= */
    char serial[37];    /* "" if none was given */
    enum block_on_error on_write_error, on_read_error;
};
/* The info changes only on resize, eject and change of medium: see block_set_medium_handler. */
const struct block_info *block_info(const struct block *block);
void block_set_write_cache(struct block *block, bool enabled); /* the guest's switch: off makes every write FUA */

/* The drive named by id, or NULL. */
struct block *block_find(struct block_registry *registry, const char *id);
/* For if=ide and its kin: the next unclaimed drive of that interface, by bus and unit; NULL: no more. */
struct block *block_next_unclaimed(struct block_registry *registry, enum block_interface interface);
/* One device uses a drive. -EBUSY with a message that names the other. From then on its requests complete on `loop`. */
int block_claim(struct block *block, const char *device_id, struct event_loop *loop, struct error *err);
void block_release(struct block *block);
/* Between the two, requests may wait in a batch, which unplug sends to the host with one system call. They nest. For
 * whoever takes many requests from a queue at once; the loop's lock stays held in between. */
void block_plug(struct block *block);
void block_unplug(struct block *block);
/* Size or medium changed (resize, eject, change). On the block's loop. */
void block_set_medium_handler(struct block *block, void (*changed)(void *opaque), void *opaque);

struct block_registry *block_registry_create(struct event_loop *loop, struct error *err);
void block_registry_destroy(struct block_registry *registry); /* flushes, closes */
/* Values of -drive and -blockdev (options or, with a leading '{', JSON). Messages do not repeat the option. */
int block_add_drive(struct block_registry *registry, const char *option, struct error *err);
int block_add_blockdev(struct block_registry *registry, const char *option, struct error *err);
/* -snapshot: from now on every drive gets a temporary overlay unless it says snapshot=off. */
void block_registry_set_snapshot(struct block_registry *registry, bool on);
/* How many drives a bus of that interface has (IDE: 2 on pc, 1 on q35): how index= becomes bus and unit. 0: no buses. */
void block_registry_set_bus_units(struct block_registry *registry, enum block_interface interface, unsigned units);
/* Called when an error stops the machine (werror=stop, enospc), on the drive's loop: pauses the vCPUs soon. Without a
 * handler such errors are reported to the device. `reason` is a line for the user. */
void block_registry_set_stop_handler(struct block_registry *registry, void (*stop)(void *opaque, const char *reason),
                                     void *opaque);
/* Makes the requests again that stopped the machine. Main loop's thread, its lock held. */
void block_registry_resume(struct block_registry *registry);

#endif
