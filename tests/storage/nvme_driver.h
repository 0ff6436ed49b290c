/* A driver of an NVMe controller for tests: it writes registers and queue entries as a guest's would. */
#ifndef EIDOLON_TESTS_STORAGE_NVME_DRIVER_H
#define EIDOLON_TESTS_STORAGE_NVME_DRIVER_H

#include "../devices/rig.h"
#include "devices/storage/nvme_internal.h"
#include "fake_disk.h"

#define DRIVER_RAM      (4 * MIB)
#define DRIVER_BAR      0x40000000ull
#define DRIVER_MSIX     0x41000000ull
#define DRIVER_DRIVE    MIB
#define DRIVER_QUEUES   5 /* the admin pair and four others */
#define DRIVER_SQ(n)    (0x10000ull + (n)*0x1000)
#define DRIVER_CQ(n)    (0x20000ull + (n)*0x1000)
#define DRIVER_LIST     0x40000ull  /* PRP lists, SGLs */
#define DRIVER_DATA     0x100000ull /* two MiB */
#define DRIVER_PATIENCE 10000

struct driver_queue {
    uint32_t entries, tail, head;
    bool phase;
};

struct driver {
    struct rig rig;
    struct nvme *nvme;
    struct block_registry *blocks;
    struct fake_disk *disk;
    struct driver_queue queues[DRIVER_QUEUES];
    uint16_t next_cid;
    unsigned messages[2048]; /* MSI-X, by data */
    bool pirq;
    struct nvme_cqe last;
};

void driver_init(struct driver *driver, const char *options); /* of -device nvme */
void driver_destroy(struct driver *driver);

uint32_t driver_read(struct driver *driver, unsigned reg);
uint64_t driver_read64(struct driver *driver, unsigned reg);
void driver_write(struct driver *driver, unsigned reg, uint32_t value);
void *driver_ram(struct driver *driver, gpa_t gpa);
/* Bus mastering, MSI-X if wanted, CC.EN and the admin queues of 16 entries. */
void driver_start(struct driver *driver, bool msix);
void driver_create_queues(struct driver *driver, unsigned n, uint32_t entries);

/* Puts a command in queue n; rings. Returns its identifier. */
uint16_t driver_submit(struct driver *driver, unsigned n, struct nvme_sqe sqe);
/* Lets the loop look; does not run the drive. */
void driver_poll(struct driver *driver);
/* Takes the next completion of queue n, if there is one, to driver->last. */
bool driver_reap(struct driver *driver, unsigned n);
/* Submits, runs everything until it is complete; its status (without phase, "more" and "do not retry"). */
unsigned driver_execute(struct driver *driver, unsigned n, struct nvme_sqe sqe);
/* The same for a command with its data at DRIVER_DATA, in two PRPs or a list. */
unsigned driver_io(struct driver *driver, unsigned opcode, uint64_t lba, unsigned blocks);

#endif
