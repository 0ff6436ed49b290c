/* Shared by virtio_blk.c (the device, its configuration) and virtio_blk_request.c (what a queue carries). */
#ifndef EIDOLON_DEVICES_VIRTIO_VIRTIO_BLK_INTERNAL_H
#define EIDOLON_DEVICES_VIRTIO_VIRTIO_BLK_INTERNAL_H

#include "base/io_thread.h"
#include "devices/block/block.h"
#include "devices/virtio/virtio_blk.h"
#include "devices/virtio/virtio_pci.h"

/* Feature bits, 5.2.3 */
enum {
    VIRTIO_BLK_F_SEG_MAX = 2,
    VIRTIO_BLK_F_GEOMETRY = 4,
    VIRTIO_BLK_F_RO = 5,
    VIRTIO_BLK_F_BLK_SIZE = 6,
    VIRTIO_BLK_F_FLUSH = 9,
    VIRTIO_BLK_F_TOPOLOGY = 10,
    VIRTIO_BLK_F_CONFIG_WCE = 11,
    VIRTIO_BLK_F_MQ = 12,
    VIRTIO_BLK_F_DISCARD = 13,
    VIRTIO_BLK_F_WRITE_ZEROES = 14,
};

#define BLK_SECTOR           512u
#define BLK_QUEUE_SIZE       256u
#define BLK_QUEUES_MAX       64u
#define BLK_MAX_ZERO_SECTORS 4194303u /* of one discard or write-zeroes: as QEMU says */
#define BLK_ID_SIZE          20

struct blk_request;

struct virtio_blk {
    struct virtio_pci virtio;
    struct block *block;
    struct io_thread *thread; /* NULL: main loop */
    struct event_loop *loop;
    unsigned queue_count, queue_size;
    uint32_t logical_block_size, physical_block_size, min_io_size, opt_io_size;
    bool initial_write_cache;
    uint8_t write_cache; /* what the driver reads and sets */
    int bootindex;       /* -1: none */
    char serial[BLK_ID_SIZE + 1];
    struct io_deferred medium_changed; /* on `thread` */

    /* Guarded by the loop's lock. */
    struct blk_request *spare;
    uint64_t size; /* of the medium, bytes */
};

/* A queue's handler. */
void virtio_blk_handle(struct virtqueue *queue);
void virtio_blk_free_requests(struct virtio_blk *blk);

#endif
