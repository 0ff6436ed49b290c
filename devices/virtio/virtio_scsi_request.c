/* Request queues of virtio-scsi (virtio 1.2, 5.6.6.1).
 *
 *   readable:  LUN 8 | tag 8 | attribute 1 | priority 1 | CRN 1 | CDB (cdb_size) | data to the device
 *   writable:  sense length 4 | residual 4 | qualifier 2 | status 1 | response 1 | sense (sense_size) | data from the device
 *
 * Data stay where they are: the SCSI layer gets the parts of the element that lie behind the headers. The loop's lock held. */
#include "devices/virtio/virtio_scsi.h"

#include <stdlib.h>
#include <string.h>

bool vscsi_parse_lun(const uint8_t *bytes, uint16_t *target, uint16_t *lun)
{
    static const uint8_t zero[4];

    *target = bytes[1];
    *lun = (uint16_t)((bytes[2] << 8 | bytes[3]) & 0x3fff);
    return bytes[0] == 1 && !memcmp(bytes + 4, zero, sizeof(zero)) && (bytes[2] & 0xc0) <= 0x40;
}

/* ---- Allocation: requests are kept for the next ones ---- */

static struct vscsi_request *take_request(struct virtio_scsi *vscsi, struct virtqueue *queue)
{
    struct vscsi_request *request = vscsi->free;

    if (request) {
        vscsi->free = request->next;
    } else {
        request = calloc(1, sizeof(*request));
        if (!request)
            return NULL;
        virtqueue_element_init(&request->element, queue);
    }
    request->queue = queue;
    request->outcome = VSCSI_OK;
    return request;
}

static void keep_request(struct virtio_scsi *vscsi, struct vscsi_request *request)
{
    request->next = vscsi->free;
    vscsi->free = request;
}

void vscsi_free_requests(struct virtio_scsi *vscsi)
{
    struct vscsi_request *request;

    while ((request = vscsi->free)) {
        vscsi->free = request->next;
        virtqueue_element_free(&request->element);
        free(request->iov);
        free(request);
    }
}

static void activate(struct virtio_scsi *vscsi, struct vscsi_request *request)
{
    request->sequence = vscsi->sequence++;
    request->next = vscsi->active;
    request->link = &vscsi->active;
    if (request->next)
        request->next->link = &request->next;
    vscsi->active = request;
}

static void deactivate(struct vscsi_request *request)
{
    *request->link = request->next;
    if (request->next)
        request->next->link = request->link;
}

/* ---- Answers ---- */

/* `transferred`: bytes of data from the device. */
static void answer(struct virtio_scsi *vscsi, struct vscsi_request *request, uint8_t response, uint64_t transferred)
{
    const struct scsi_request *scsi = &request->scsi;
    uint32_t sense_size = response == VSCSI_OK ? MIN(scsi->sense_size, vscsi->sense_size) : 0;
    uint32_t residual = response == VSCSI_OK ? (uint32_t)(scsi->size - scsi->transferred) : 0;
    uint8_t bytes[VSCSI_RESPONSE_SIZE] = { 0 };
    uint64_t written;

    memcpy(bytes, &sense_size, 4);
    memcpy(bytes + 4, &residual, 4);
    bytes[10] = response == VSCSI_OK ? scsi->status : 0;
    bytes[11] = response;
    dma_list_copy_to(&request->element.writable, 0, bytes, sizeof(bytes));
    dma_list_copy_to(&request->element.writable, sizeof(bytes), scsi->sense, sense_size);
    /* The driver may have changed the sense size meanwhile. */
    written = MIN(VSCSI_RESPONSE_SIZE + vscsi->sense_size + transferred, request->element.writable.size);
    virtqueue_push(request->queue, &request->element, (uint32_t)written);
    virtqueue_notify(request->queue);
    keep_request(vscsi, request);
}

static void command_done(struct scsi_request *scsi)
{
    struct vscsi_request *request = container_of(scsi, struct vscsi_request, scsi);
    struct virtio_scsi *vscsi = scsi->opaque;
    uint8_t response = request->outcome != VSCSI_OK ? request->outcome : scsi->overrun ? VSCSI_OVERRUN : VSCSI_OK;

    deactivate(request);
    answer(vscsi, request, response, scsi->direction == SCSI_FROM_DEVICE ? scsi->transferred : 0);
    if (vscsi->functions)
        vscsi_functions_progress(vscsi);
}

/* ---- Requests ---- */

/* The list from byte `skip` on, as iovecs of the request. False: no memory. */
static bool slice(struct vscsi_request *request, const struct dma_list *list, uint64_t skip)
{
    unsigned count = 0;

    if (list->count > request->iov_capacity) {
        struct iovec *iov = realloc(request->iov, list->count * sizeof(*iov));

        if (!iov)
            return false;
        request->iov = iov;
        request->iov_capacity = list->count;
    }
    for (unsigned i = 0; i < list->count; i++) {
        struct iovec iov = list->iov[i];
        uint64_t part = MIN(skip, iov.iov_len);

        skip -= part;
        iov.iov_base = (uint8_t *)iov.iov_base + part;
        iov.iov_len -= part;
        if (iov.iov_len)
            request->iov[count++] = iov;
    }
    request->scsi.iov = request->iov;
    request->scsi.iov_count = count;
    return true;
}

/* Which part is data, and which way it goes. False: both ways, or no memory. */
static bool find_data(struct virtio_scsi *vscsi, struct vscsi_request *request)
{
    uint64_t out_header = VSCSI_HEADER_SIZE + vscsi->cdb_size, in_header = VSCSI_RESPONSE_SIZE + vscsi->sense_size;
    uint64_t out = request->element.readable.size - out_header, in = request->element.writable.size - in_header;

    if (out && in)
        return false;
    request->scsi.direction = out ? SCSI_TO_DEVICE : in ? SCSI_FROM_DEVICE : SCSI_NO_DATA;
    request->scsi.size = out + in;
    return out ? slice(request, &request->element.readable, out_header)
               : slice(request, &request->element.writable, in_header);
}

static void begin(struct virtio_scsi *vscsi, struct vscsi_request *request)
{
    uint8_t header[VSCSI_HEADER_SIZE + VSCSI_SIZE_MAX] = { 0 };

    dma_list_copy_from(&request->element.readable, 0, header, VSCSI_HEADER_SIZE + vscsi->cdb_size);
    memset(&request->scsi, 0, sizeof(request->scsi));
    memcpy(request->scsi.cdb, header + VSCSI_HEADER_SIZE, MIN(vscsi->cdb_size, SCSI_CDB_MAX));
    memcpy(&request->tag, header + 8, 8);
    request->scsi.done = command_done;
    request->scsi.opaque = vscsi;
    if (!vscsi_parse_lun(header, &request->scsi.target, &request->scsi.lun)) {
        answer(vscsi, request, VSCSI_BAD_TARGET, 0);
        return;
    }
    if (!find_data(vscsi, request)) {
        answer(vscsi, request, VSCSI_FAILURE, 0);
        return;
    }
    activate(vscsi, request);
    if (!scsi_bus_submit(&vscsi->bus, &request->scsi)) {
        deactivate(request);
        answer(vscsi, request, VSCSI_BAD_TARGET, 0);
    }
}

static void plug(struct virtio_scsi *vscsi, bool on)
{
    for (struct scsi_device *device = scsi_bus_next(&vscsi->bus, NULL); device;
         device = scsi_bus_next(&vscsi->bus, device)) {
        if (on)
            block_plug(scsi_device_block(device));
        else
            block_unplug(scsi_device_block(device));
    }
}

void vscsi_handle_requests(struct virtqueue *queue)
{
    struct virtio_scsi *vscsi = vscsi_of(virtqueue_device(queue));
    struct vscsi_request *request;

    plug(vscsi, true);
    while ((request = take_request(vscsi, queue))) {
        if (!virtqueue_pop(queue, &request->element)) {
            keep_request(vscsi, request);
            break;
        }
        if (request->element.readable.size < VSCSI_HEADER_SIZE + vscsi->cdb_size ||
            request->element.writable.size < VSCSI_RESPONSE_SIZE + vscsi->sense_size) {
            virtqueue_fail(queue, "a request without room for its header or response");
            keep_request(vscsi, request);
            break;
        }
        begin(vscsi, request);
    }
    plug(vscsi, false);
}
