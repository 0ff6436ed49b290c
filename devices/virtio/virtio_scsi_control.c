/* Control and event queues of virtio-scsi (virtio 1.2, 5.6.6.2 and 5.6.6.3).
 *
 *   task management:  type 4 | subtype 4 | LUN 8 | tag 8 || response 1
 *   notifications:    type 4 | LUN 8 | events 4          || actual events 4 | response 1
 *   an event:         || event 4 | LUN 8 | reason 4
 *
 * What a drive has begun cannot be taken back, so functions that end commands wait until these have ended by themselves;
 * such commands are then reported as aborted or reset. The loop's lock held. */
#include "devices/virtio/virtio_scsi.h"

#include <stdlib.h>
#include <string.h>

enum { TYPE_TMF = 0, TYPE_QUERY = 1, TYPE_SUBSCRIBE = 2 };
enum {
    TMF_ABORT_TASK = 0,
    TMF_ABORT_TASK_SET = 1,
    TMF_CLEAR_ACA = 2,
    TMF_CLEAR_TASK_SET = 3,
    TMF_NEXUS_RESET = 4,
    TMF_LUN_RESET = 5,
    TMF_QUERY_TASK = 6,
    TMF_QUERY_TASK_SET = 7,
};
enum { EVENT_NONE = 0, EVENT_TRANSPORT_RESET = 1, EVENT_PARAM_CHANGE = 3 };
#define EVENT_MISSED  0x80000000u
#define RESET_RESCAN  1u
#define RESET_REMOVED 2u
#define EVENT_SIZE    16u
#define TMF_SIZE      24u
#define AN_SIZE       16u

/* ---- Task management ---- */

static bool concerns(const struct vscsi_function *function, const struct vscsi_request *request)
{
    if (request->sequence >= function->sequence || request->scsi.target != function->target)
        return false;
    if (function->kind == TMF_NEXUS_RESET)
        return true;
    if (request->scsi.lun != function->lun)
        return false;
    return (function->kind != TMF_ABORT_TASK && function->kind != TMF_QUERY_TASK) || request->tag == function->tag;
}

static bool any_concerned(const struct virtio_scsi *vscsi, const struct vscsi_function *function)
{
    for (const struct vscsi_request *request = vscsi->active; request; request = request->next) {
        if (concerns(function, request))
            return true;
    }
    return false;
}

static void reset_units(struct virtio_scsi *vscsi, const struct vscsi_function *function)
{
    struct scsi_device *device = NULL;
    unsigned channel, target, lun;

    if (function->kind != TMF_NEXUS_RESET && function->kind != TMF_LUN_RESET)
        return;
    while ((device = scsi_bus_next(&vscsi->bus, device))) {
        scsi_device_address(device, &channel, &target, &lun);
        if (target == function->target && (function->kind == TMF_NEXUS_RESET || lun == function->lun))
            scsi_device_reset(device);
    }
}

static void answer(struct virtio_scsi *vscsi, struct virtqueue_element *element, unsigned offset, uint8_t response)
{
    dma_list_copy_to(&element->writable, offset, &response, 1);
    virtqueue_push(vscsi->control, element, offset + 1);
    virtqueue_notify(vscsi->control);
}

static void free_function(struct vscsi_function *function)
{
    virtqueue_element_free(&function->element);
    free(function);
}

static void finish(struct virtio_scsi *vscsi, struct vscsi_function *function, uint8_t response)
{
    answer(vscsi, &function->element, 0, response);
    free_function(function);
}

void vscsi_functions_progress(struct virtio_scsi *vscsi)
{
    struct vscsi_function **link = &vscsi->functions, *function;

    while ((function = *link)) {
        if (any_concerned(vscsi, function)) {
            link = &function->next;
            continue;
        }
        *link = function->next;
        reset_units(vscsi, function);
        finish(vscsi, function, VSCSI_FUNCTION_COMPLETE);
    }
}

void vscsi_drop_functions(struct virtio_scsi *vscsi)
{
    struct vscsi_function *function;

    while ((function = vscsi->functions)) {
        vscsi->functions = function->next;
        free_function(function);
    }
}

/* Ends commands: at once if there are none, or when the last of them has ended. */
static void begin_function(struct virtio_scsi *vscsi, struct vscsi_function *function)
{
    bool resets = function->kind == TMF_NEXUS_RESET || function->kind == TMF_LUN_RESET;

    for (struct vscsi_request *request = vscsi->active; request; request = request->next) {
        if (concerns(function, request))
            request->outcome = resets ? VSCSI_RESET : VSCSI_ABORTED;
    }
    function->next = vscsi->functions;
    vscsi->functions = function;
    vscsi_functions_progress(vscsi);
}

/* Takes the function over. */
static void task_management(struct virtio_scsi *vscsi, struct vscsi_function *function)
{
    bool queries = function->kind == TMF_QUERY_TASK || function->kind == TMF_QUERY_TASK_SET;

    if (!scsi_bus_has_target(&vscsi->bus, 0, function->target))
        finish(vscsi, function, VSCSI_BAD_TARGET);
    else if (function->kind != TMF_NEXUS_RESET && !scsi_bus_find(&vscsi->bus, 0, function->target, function->lun))
        finish(vscsi, function, VSCSI_INCORRECT_LUN);
    else if (function->kind == TMF_CLEAR_ACA || function->kind > TMF_QUERY_TASK_SET)
        finish(vscsi, function, VSCSI_FUNCTION_REJECTED);
    else if (queries)
        finish(vscsi, function, any_concerned(vscsi, function) ? VSCSI_FUNCTION_SUCCEEDED : VSCSI_FUNCTION_COMPLETE);
    else
        begin_function(vscsi, function);
}

static void handle_function(struct virtio_scsi *vscsi, struct vscsi_function *function)
{
    uint8_t header[TMF_SIZE] = { 0 };
    uint64_t readable = function->element.readable.size, writable = function->element.writable.size;
    uint32_t type, subtype, no_events = 0;

    dma_list_copy_from(&function->element.readable, 0, header, sizeof(header));
    memcpy(&type, header, 4);
    memcpy(&subtype, header + 4, 4);
    memcpy(&function->tag, header + 16, 8);
    function->sequence = vscsi->sequence++;
    function->kind = (uint8_t)MIN(subtype, 0xffu);
    if (type == TYPE_TMF && readable >= TMF_SIZE && writable >= 1) {
        if (vscsi_parse_lun(header + 8, &function->target, &function->lun))
            task_management(vscsi, function);
        else
            finish(vscsi, function, VSCSI_BAD_TARGET);
    } else if ((type == TYPE_QUERY || type == TYPE_SUBSCRIBE) && readable >= AN_SIZE && writable >= 5) {
        dma_list_copy_to(&function->element.writable, 0, &no_events, 4); /* no asynchronous notifications of media */
        answer(vscsi, &function->element, 4, VSCSI_OK);
        free_function(function);
    } else {
        virtqueue_fail(vscsi->control, "control request of type %u, %llu and %llu bytes", type,
                       (unsigned long long)readable, (unsigned long long)writable);
        free_function(function);
    }
}

void vscsi_handle_control(struct virtqueue *queue)
{
    struct virtio_scsi *vscsi = vscsi_of(virtqueue_device(queue));

    for (;;) {
        struct vscsi_function *function = calloc(1, sizeof(*function));

        if (!function)
            return;
        virtqueue_element_init(&function->element, queue);
        if (!virtqueue_pop(queue, &function->element)) {
            free_function(function);
            return;
        }
        handle_function(vscsi, function);
    }
}

/* ---- Events ---- */

/* Puts an event into the next buffer; without one, the driver is told later that it missed some. */
static void send_event(struct virtio_scsi *vscsi, const struct scsi_device *device, uint32_t event, uint32_t reason)
{
    struct virtqueue_element element;
    uint8_t bytes[EVENT_SIZE] = { 0 };
    unsigned channel, target, lun;

    if (!vscsi->events || !virtqueue_ready(vscsi->events))
        return;
    virtqueue_element_init(&element, vscsi->events);
    if (!virtqueue_pop(vscsi->events, &element)) {
        vscsi->events_missed = true;
    } else if (element.writable.size < EVENT_SIZE) {
        virtqueue_fail(vscsi->events, "an event buffer of %llu bytes", (unsigned long long)element.writable.size);
    } else {
        event |= vscsi->events_missed ? EVENT_MISSED : 0;
        vscsi->events_missed = false;
        memcpy(bytes, &event, 4);
        if (device) {
            scsi_device_address(device, &channel, &target, &lun);
            bytes[4] = 1;
            bytes[5] = (uint8_t)target;
            bytes[6] = (uint8_t)(lun >= 256 ? 0x40 | lun >> 8 : 0);
            bytes[7] = (uint8_t)lun;
        }
        memcpy(bytes + 12, &reason, 4);
        dma_list_copy_to(&element.writable, 0, bytes, sizeof(bytes));
        virtqueue_push(vscsi->events, &element, EVENT_SIZE);
        virtqueue_notify(vscsi->events);
    }
    virtqueue_element_free(&element);
}

/* The driver has added buffers. */
void vscsi_handle_events(struct virtqueue *queue)
{
    struct virtio_scsi *vscsi = vscsi_of(virtqueue_device(queue));

    if (vscsi->events_missed && !virtqueue_empty(queue))
        send_event(vscsi, NULL, EVENT_NONE, 0);
}

static bool wants(const struct scsi_bus *bus, unsigned feature)
{
    const struct virtio_scsi *vscsi = bus->opaque;

    return virtio_has(&vscsi->virtio.vdev, feature) && (vscsi->virtio.vdev.status & VIRTIO_STATUS_DRIVER_OK);
}

void vscsi_attached(struct scsi_bus *bus, struct scsi_device *device)
{
    if (wants(bus, VSCSI_F_HOTPLUG))
        send_event(bus->opaque, device, EVENT_TRANSPORT_RESET, RESET_RESCAN);
}

void vscsi_detached(struct scsi_bus *bus, struct scsi_device *device)
{
    if (wants(bus, VSCSI_F_HOTPLUG))
        send_event(bus->opaque, device, EVENT_TRANSPORT_RESET, RESET_REMOVED);
}

void vscsi_changed(struct scsi_bus *bus, struct scsi_device *device, uint8_t asc, uint8_t ascq)
{
    if (wants(bus, VSCSI_F_CHANGE))
        send_event(bus->opaque, device, EVENT_PARAM_CHANGE, asc | (uint32_t)ascq << 8);
}
