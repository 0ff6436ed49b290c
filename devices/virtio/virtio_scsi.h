/* What the files of virtio-scsi share (virtio 1.2, section 5.6): virtio_scsi.c the device, virtio_scsi_request.c its request
 * queues, virtio_scsi_control.c task management and events. */
#ifndef EIDOLON_DEVICES_VIRTIO_VIRTIO_SCSI_H
#define EIDOLON_DEVICES_VIRTIO_VIRTIO_SCSI_H

#include "devices/storage/scsi.h"
#include "devices/virtio/virtio_pci.h"

#define VSCSI_QUEUES_MAX    (VIRTIO_QUEUES_MAX - 2)
#define VSCSI_MAX_TARGET    255u
#define VSCSI_MAX_LUN       16383u
#define VSCSI_CDB_DEFAULT   32u
#define VSCSI_SENSE_DEFAULT 96u
#define VSCSI_HEADER_SIZE   19u  /* of a request, before the CDB */
#define VSCSI_RESPONSE_SIZE 12u  /* of a response, before the sense data */
#define VSCSI_SIZE_MAX      255u /* of the CDB, of sense data, as the driver may set them */

enum { VSCSI_F_INOUT = 0, VSCSI_F_HOTPLUG = 1, VSCSI_F_CHANGE = 2 };

enum vscsi_response {
    VSCSI_OK = 0,
    VSCSI_OVERRUN = 1,
    VSCSI_ABORTED = 2,
    VSCSI_BAD_TARGET = 3,
    VSCSI_RESET = 4,
    VSCSI_FAILURE = 9,
    VSCSI_FUNCTION_COMPLETE = 0,
    VSCSI_FUNCTION_SUCCEEDED = 10,
    VSCSI_FUNCTION_REJECTED = 11,
    VSCSI_INCORRECT_LUN = 12,
};

/* A command that is under way. */
struct vscsi_request {
    struct virtqueue_element element;
    struct virtqueue *queue;
    struct vscsi_request *next, **link; /* of vscsi->active; free ones: next */
    struct scsi_request scsi;
    struct iovec *iov; /* the data part of the element */
    unsigned iov_capacity;
    uint64_t tag, sequence;
    uint8_t outcome; /* VSCSI_OK, or what an abort or reset made of it */
};

/* A task management function that waits for commands to end. */
struct vscsi_function {
    struct virtqueue_element element;
    struct vscsi_function *next;
    uint8_t kind;
    uint16_t target, lun;
    uint64_t tag, sequence; /* it is about commands that are older than it */
};

struct virtio_scsi {
    struct virtio_pci virtio;
    struct scsi_bus bus;
    bool bus_added;
    struct event_loop *loop;
    struct io_thread *thread; /* whose loop that is; NULL: the main loop */
    struct virtqueue *control, *events;
    unsigned queue_count, queue_size;
    uint32_t max_sectors, cmd_per_lun;
    bool hotplug, param_change;
    /* As the driver set them. */
    uint32_t cdb_size, sense_size;
    /* Guarded by the loop's lock. */
    struct vscsi_request *active, *free;
    struct vscsi_function *functions;
    uint64_t sequence;
    bool events_missed;
};

void vscsi_handle_requests(struct virtqueue *queue);
void vscsi_free_requests(struct virtio_scsi *vscsi);
void vscsi_handle_control(struct virtqueue *queue);
void vscsi_handle_events(struct virtqueue *queue);
/* A command has ended: functions that waited for it answer. */
void vscsi_functions_progress(struct virtio_scsi *vscsi);
void vscsi_drop_functions(struct virtio_scsi *vscsi);
/* "LUN structure" (5.6.6.1): 1, target, LUN in two bytes, four bytes of 0. False: another form. */
bool vscsi_parse_lun(const uint8_t *bytes, uint16_t *target, uint16_t *lun);

/* Events, for the bus. */
void vscsi_attached(struct scsi_bus *bus, struct scsi_device *device);
void vscsi_detached(struct scsi_bus *bus, struct scsi_device *device);
void vscsi_changed(struct scsi_bus *bus, struct scsi_device *device, uint8_t asc, uint8_t ascq);

static inline struct virtio_scsi *vscsi_of(struct virtio_device *vdev)
{
    return container_of(vdev, struct virtio_scsi, virtio.vdev);
}

#endif
