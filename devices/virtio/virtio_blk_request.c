/* Requests of virtio-blk (virtio 1.2, section 5.2.6):
 *
 *   readable: type 4 | reserved 4 | sector 8 | data of a write, or { sector 8 | sectors 4 | flags 4 }
 *   writable: data of a read | status 1, the very last byte
 *
 * How these bytes are cut into descriptors means nothing. Data go between guest memory and the drive in place: the lists'
 * own iovecs, without the header and the status byte, are what the block layer gets.
 *
 * On the thread of the queues' loop, its lock held. Requests are taken from a list of spare ones; there are never more than
 * the queues have entries. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "devices/virtio/virtio_blk_internal.h"

enum {
    BLK_IN = 0,
    BLK_OUT = 1,
    BLK_FLUSH = 4,
    BLK_GET_ID = 8,
    BLK_DISCARD = 11,
    BLK_WRITE_ZEROES = 13,
};
enum { BLK_OK = 0, BLK_IOERR = 1, BLK_UNSUPPORTED = 2 };
enum { ZEROES_UNMAP = 1 };

struct blk_header {
    uint32_t type, reserved;
    uint64_t sector;
};

struct blk_range {
    uint64_t sector;
    uint32_t sectors, flags;
};

struct blk_request {
    struct blk_request *next; /* spare */
    struct virtio_blk *blk;
    struct virtqueue *queue;
    struct virtqueue_element element;
    struct block_request block;
    uint8_t *status; /* in guest memory */
    bool trimmed;    /* the last writable iovec lacks its status byte */
};

static struct virtio_blk *blk_of(struct virtqueue *queue)
{
    return container_of(virtqueue_device(queue), struct virtio_blk, virtio.vdev);
}

/* ---- Spare requests ---- */

static struct blk_request *take_request(struct virtqueue *queue)
{
    struct virtio_blk *blk = blk_of(queue);
    struct blk_request *request = blk->spare;

    if (request) {
        blk->spare = request->next;
    } else {
        request = calloc(1, sizeof(*request));
        if (!request)
            return NULL;
        virtqueue_element_init(&request->element, queue);
    }
    request->blk = blk;
    request->queue = queue;
    request->trimmed = false;
    return request;
}

static void give_back(struct blk_request *request)
{
    request->next = request->blk->spare;
    request->blk->spare = request;
}

void virtio_blk_free_requests(struct virtio_blk *blk)
{
    while (blk->spare) {
        struct blk_request *request = blk->spare;

        blk->spare = request->next;
        virtqueue_element_free(&request->element);
        free(request);
    }
}

/* ---- Completion ---- */

static void answer(struct blk_request *request, uint8_t status)
{
    struct dma_list *writable = &request->element.writable;

    if (request->trimmed)
        writable->iov[writable->count - 1].iov_len++;
    *request->status = status;
    virtqueue_push(request->queue, &request->element, (uint32_t)MIN(writable->size, UINT32_MAX));
    virtqueue_notify(request->queue);
    give_back(request);
}

static void block_done(struct block_request *block_request)
{
    struct blk_request *request = block_request->opaque;
    int result = block_request->result;

    answer(request, result == 0 ? BLK_OK : result == -ENOTSUP ? BLK_UNSUPPORTED : BLK_IOERR);
}

static void submit(struct blk_request *request, enum block_op op, unsigned flags, uint64_t offset, uint64_t size,
                   const struct iovec *iov, unsigned count)
{
    request->block = (struct block_request){
        .op = op,
        .flags = flags,
        .offset = offset,
        .size = size,
        .iov = iov,
        .iov_count = count,
        .done = block_done,
        .opaque = request,
    };
    block_submit(request->blk->block, &request->block);
}

/* ---- Kinds of request ---- */

/* [sector, + size) lies on the disk, in whole logical blocks. */
static bool range_is_good(const struct virtio_blk *blk, uint64_t sector, uint64_t size)
{
    uint32_t mask = blk->logical_block_size - 1;

    return sector <= UINT64_MAX / BLK_SECTOR && !((sector * BLK_SECTOR | size) & mask) &&
           sector * BLK_SECTOR <= blk->size && size <= blk->size - sector * BLK_SECTOR;
}

static void handle_read(struct blk_request *request, uint64_t sector)
{
    struct dma_list *list = &request->element.writable;
    unsigned count = list->count;
    uint64_t size = list->size - 1;

    if (!range_is_good(request->blk, sector, size)) {
        answer(request, BLK_IOERR);
        return;
    }
    if (list->iov[count - 1].iov_len == 1) {
        count--;
    } else {
        list->iov[count - 1].iov_len--;
        request->trimmed = true;
    }
    submit(request, BLOCK_READ, 0, sector * BLK_SECTOR, size, list->iov, count);
}

static void handle_write(struct blk_request *request, uint64_t sector)
{
    struct dma_list *list = &request->element.readable;
    uint64_t skip = sizeof(struct blk_header), size = list->size - skip;
    unsigned first = 0;

    if (block_info(request->blk->block)->read_only || !range_is_good(request->blk, sector, size)) {
        answer(request, BLK_IOERR);
        return;
    }
    for (; first < list->count && skip >= list->iov[first].iov_len; first++)
        skip -= list->iov[first].iov_len;
    if (skip) { /* what is left of a header that shares its piece with data; the list is not used again */
        list->iov[first].iov_base = (uint8_t *)list->iov[first].iov_base + skip;
        list->iov[first].iov_len -= skip;
    }
    submit(request, BLOCK_WRITE, 0, sector * BLK_SECTOR, size, list->iov + first, list->count - first);
}

/* One range each, as the configuration says. */
static void handle_range(struct blk_request *request, uint32_t type)
{
    const struct dma_list *list = &request->element.readable;
    bool zeroes = type == BLK_WRITE_ZEROES;
    struct blk_range range;
    uint64_t size;

    if (list->size != sizeof(struct blk_header) + sizeof(range) ||
        !(request->blk->virtio.vdev.host_features >> (zeroes ? VIRTIO_BLK_F_WRITE_ZEROES : VIRTIO_BLK_F_DISCARD) & 1)) {
        answer(request, BLK_UNSUPPORTED);
        return;
    }
    dma_list_copy_from(list, sizeof(struct blk_header), &range, sizeof(range));
    size = (uint64_t)range.sectors * BLK_SECTOR;
    if (range.flags & ~(zeroes ? ZEROES_UNMAP : 0u)) {
        answer(request, BLK_UNSUPPORTED);
    } else if (block_info(request->blk->block)->read_only || range.sectors > BLK_MAX_ZERO_SECTORS ||
               !range_is_good(request->blk, range.sector, size)) {
        answer(request, BLK_IOERR);
    } else {
        submit(request, zeroes ? BLOCK_WRITE_ZEROES : BLOCK_DISCARD, range.flags & ZEROES_UNMAP ? BLOCK_MAY_UNMAP : 0,
               range.sector * BLK_SECTOR, size, NULL, 0);
    }
}

static void handle_id(struct blk_request *request)
{
    char id[BLK_ID_SIZE] = { 0 };

    memcpy(id, request->blk->serial, strnlen(request->blk->serial, sizeof(id)));
    dma_list_copy_to(&request->element.writable, 0, id, MIN(sizeof(id), request->element.writable.size - 1));
    answer(request, BLK_OK);
}

/* False: no request; the device is broken. */
static bool handle_request(struct blk_request *request)
{
    const struct dma_list *writable = &request->element.writable;
    struct blk_header header;

    if (dma_list_copy_from(&request->element.readable, 0, &header, sizeof(header)) != sizeof(header) ||
        !writable->size) {
        virtqueue_fail(request->queue, "request without header or status byte");
        return false;
    }
    request->status =
        (uint8_t *)writable->iov[writable->count - 1].iov_base + writable->iov[writable->count - 1].iov_len - 1;
    switch (header.type) {
    case BLK_IN:
        handle_read(request, header.sector);
        break;
    case BLK_OUT:
        handle_write(request, header.sector);
        break;
    case BLK_FLUSH:
        submit(request, BLOCK_FLUSH, 0, 0, 0, NULL, 0);
        break;
    case BLK_GET_ID:
        handle_id(request);
        break;
    case BLK_DISCARD:
    case BLK_WRITE_ZEROES:
        handle_range(request, header.type);
        break;
    default:
        log_event(guest_errors, "%s: request of unknown type %u\n", request->blk->virtio.pci.device.id, header.type);
        answer(request, BLK_UNSUPPORTED);
    }
    return true;
}

void virtio_blk_handle(struct virtqueue *queue)
{
    struct virtio_blk *blk = blk_of(queue);

    block_plug(blk->block);
    for (;;) {
        struct blk_request *request = take_request(queue);

        if (!request) {
            log_warn("%s: out of memory for requests", blk->virtio.pci.device.id);
            break;
        }
        if (!virtqueue_pop(queue, &request->element) || !handle_request(request)) {
            give_back(request);
            break;
        }
    }
    block_unplug(blk->block);
}
