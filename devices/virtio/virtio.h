/* Virtio devices (Virtual I/O Device version 1.2, "virtio 1.2" below): what virtio-blk, -net, -scsi and the others are built
 * on. The transport is in virtio_pci.h; a device includes both.
 *
 * A device embeds struct virtio_pci as the first member of its instance structure, describes itself in a const struct
 * virtio_class, and in its type's init calls
 *
 *     virtio_pci_begin(&foo->pci, &foo_class, options, err);       reads the properties that all have; no guest sees it yet
 *     foo->rx = virtio_add_queue(vdev, 256, rx_kicked, 0, err);    in the order of the queues' numbers
 *     vdev->host_features |= BIT(...); vdev->config_size = ...;    what it offers
 *     virtio_pci_attach(&foo->pci, &foo_pci_config, options, err); on the bus
 *
 * The life of a buffer: the driver adds a chain of descriptors and kicks; the queue's handler pops elements, each with what the
 * device may read and what it may write as scatter lists of host addresses; the device works, at once or later; pushes
 * the element with the number of bytes it wrote; and notifies. Split and packed rings, indirect descriptors and event
 * indices look the same from here:
 *
 *     static void rx_kicked(struct virtqueue *queue)
 *     {
 *         while (virtqueue_pop(queue, &element)) {
 *             written = work(&element.readable, &element.writable);
 *             virtqueue_push(queue, &element, written);
 *         }
 *         virtqueue_notify(queue);
 *     }
 *
 * Threads. A queue belongs to an event loop: the main loop (whose lock is the device lock), or that of an I/O thread
 * (virtqueue_set_io_thread, base/io_thread.h). Its handler runs on the thread of that loop with that loop's lock held, never on a
 * vCPU: the kick is an eventfd, and the vCPU goes on at once, without the device lock. All virtqueue_* calls are made with
 * the lock of the queue's loop held; those that touch the ring never block. The callbacks of the class run with the device lock
 * held, on any thread; virtio calls them with the queues at rest where that is said. Lock order: the device lock, then an I/O
 * thread's. So code on an I/O thread must not take the device lock: virtqueue_notify() and virtqueue_fail() care for
 * themselves (they are carried out after the round of callbacks: one interrupt for a batch), other things go through
 * io_thread_defer().
 *
 * What a hostile driver writes into a ring never reaches a device: the ring code checks every index, length and address,
 * and a device sees only elements that lie in RAM. At the first thing that is against the specification, the device
 * is "broken": DEVICE_NEEDS_RESET is set, nothing is popped, pushed or signalled any more until the driver resets it. A
 * device that finds a malformed request (a header that is too short) calls virtqueue_fail() itself, where answering with an
 * error is not possible. */
#ifndef EIDOLON_DEVICES_VIRTIO_VIRTIO_H
#define EIDOLON_DEVICES_VIRTIO_VIRTIO_H

#include <stdatomic.h>

#include "devices/core/device.h"
#include "devices/core/dma.h"

#define VIRTIO_QUEUES_MAX    256u  /* queues of one device */
#define VIRTQUEUE_SIZE_MAX   1024u /* descriptors in a queue, and in a chain */
#define VIRTIO_CONFIG_MAX    256u  /* bytes of device configuration */
#define VIRTIO_MSI_NO_VECTOR 0xffffu

struct io_thread;
struct virtqueue;
struct virtio_device;

/* Feature bits that are not of one device type (virtio 1.2 section 6); the classes own bits 0 to 23 and 50 to 127. */
enum virtio_feature {
    VIRTIO_F_NOTIFY_ON_EMPTY = 24,
    VIRTIO_F_ANY_LAYOUT = 27,
    VIRTIO_F_INDIRECT_DESC = 28,
    VIRTIO_F_EVENT_IDX = 29,
    VIRTIO_F_VERSION_1 = 32,
    VIRTIO_F_RING_PACKED = 34,
    VIRTIO_F_RING_RESET = 40,
};

/* device status, 2.1 */
enum {
    VIRTIO_STATUS_ACKNOWLEDGE = 1,
    VIRTIO_STATUS_DRIVER = 2,
    VIRTIO_STATUS_DRIVER_OK = 4,
    VIRTIO_STATUS_FEATURES_OK = 8,
    VIRTIO_STATUS_NEEDS_RESET = 64,
    VIRTIO_STATUS_FAILED = 128,
};

/* One chain of descriptors that the driver made available. Made by virtqueue_element_init(), embedded in a request or on its
 * own; filled by virtqueue_pop(); may be used again after the push. Both lists are valid until then; their memory is
 * guest RAM that the driver may change at any time: copy a header before looking at it twice. */
struct virtqueue_element {
    struct dma_list readable; /* what the driver wrote for the device: dma_list_copy_from() */
    struct dma_list
        writable; /* where the device answers: dma_list_copy_to(); or the iov for block and network back ends */
    /* Of the queue. */
    uint16_t id;
    uint16_t slots;
    uint32_t generation;
};

/* What kind of device it is. Every callback with the device lock held; each may be NULL but for the name. */
struct virtio_class {
    const char *name;   /* "virtio-blk": for messages */
    uint16_t device_id; /* virtio 1.2 section 5: 2 for block */
    /* The driver has written FEATURES_OK: vdev->guest_features are what it took (already a subset of what is offered).
     * False: not with these; the bit will not stay. */
    bool (*features_accepted)(struct virtio_device *vdev);
    /* DRIVER_OK: queues are set up and will be handled from now on. Legacy drivers may kick before. */
    void (*started)(struct virtio_device *vdev);
    /* Device reset: by the driver, by the machine, or before the device goes away. When it is called no handler runs and
     * none will before the next start, drain() was called, and elements that are still out are stale: pushing them has
     * no effect, but the memory that they point at may belong to something else by now. Put back what the driver had set. */
    void (*reset)(struct virtio_device *vdev);
    /* Waits until the device touches no element any more (requests in flight at a back end). `queue`: only those of this one;
     * NULL: of all. The locks of the queues' I/O threads are not held, so that these can complete requests. A device that
     * completes on the main loop cannot wait here; it forgets its elements in reset() instead. */
    void (*drain)(struct virtio_device *vdev, struct virtqueue *queue);
    /* One queue was reset (RING_RESET); as `reset`, for that queue. */
    void (*queue_reset)(struct virtio_device *vdev, struct virtqueue *queue);
    /* Device configuration, little-endian, vdev->config_size bytes. config_update: somebody reads: bring vdev->config up to
     * date (only needed if it changes by itself). config_write: `size` bytes (1, 2 or 4) at `offset`, inside the configuration;
     * stores what may be stored. NULL: read-only. */
    void (*config_update)(struct virtio_device *vdev);
    void (*config_write)(struct virtio_device *vdev, unsigned offset, unsigned size, uint32_t value);
};

/* What a transport does for the device. Device lock held. */
struct virtio_transport {
    void (*queue_interrupt)(struct virtio_device *vdev, uint16_t vector);
    void (*config_interrupt)(struct virtio_device *vdev);
};

/* Saved form of a queue; see virtio_state.c. */
struct virtio_saved_queue {
    uint64_t desc, driver, device;
    uint32_t next_avail, next_used; /* packed: bit 31 is the wrap counter */
    uint32_t in_use;
    uint16_t size, vector;
    uint8_t enabled, legacy, reserved[2];
};

struct virtio_device {
    const struct virtio_class *class;
    const struct virtio_transport *transport;
    struct device *device; /* id, env */

    /* Set by the device in init. */
    uint64_t host_features; /* what is offered; the transport adds its own and those of properties */
    unsigned config_size;
    uint8_t config[VIRTIO_CONFIG_MAX];

    /* As the driver set them. */
    uint64_t guest_features;
    _Atomic uint8_t status;    /* written with the device lock held */
    uint8_t isr;               /* bit 0: a queue, bit 1: configuration */
    uint8_t config_generation; /* changes with the configuration */
    uint16_t config_vector;
    bool legacy;                /* the driver uses the legacy interface (4.1.4.8) */
    _Atomic bool broken;        /* any thread sets it; cleared by reset */
    _Atomic uint32_t map_count; /* changes of the memory map: where rings are is looked up again */

    struct virtqueue *queues;
    unsigned queue_count;
    struct virtio_saved_queue saved_queues[VIRTIO_QUEUES_MAX];
};

static inline bool virtio_has(const struct virtio_device *vdev, unsigned feature)
{
    return vdev->guest_features >> feature & 1;
}
/* Little-endian fields of the configuration or of headers. */
void virtio_config_set(struct virtio_device *vdev, unsigned offset, unsigned size, uint64_t value);
/* The configuration has changed by itself: new generation, configuration interrupt. Device lock held. */
void virtio_config_changed(struct virtio_device *vdev);

/* ---- Queues: set-up, before the device is on its bus ---- */

typedef void virtqueue_handler(struct virtqueue *queue);
enum {
    /* Without this flag, kicks are turned off while the handler runs, and turned on after it; if it had emptied the queue and
     * there is more by then, it runs again. With it, the device calls virtqueue_set_notification() itself (receive queues:
     * the driver adds buffers long before the device needs to know). Kicks are on at start. */
    VIRTQUEUE_MANUAL = 1 << 0,
};
/* A queue of at most `size` entries (a power of two up to VIRTQUEUE_SIZE_MAX), the next number, on the main loop. NULL on
 * error. `handler`: there may be something to pop. */
struct virtqueue *virtio_add_queue(struct virtio_device *vdev, unsigned size, virtqueue_handler *handler,
                                   unsigned flags, struct error *err);
/* The queue is handled on this thread from now on. The thread outlives the device. */
int virtqueue_set_io_thread(struct virtqueue *queue, struct io_thread *thread, struct error *err);

/* ---- Queues: facts; any lock of the device's ---- */

struct virtqueue *virtio_queue(struct virtio_device *vdev, unsigned number); /* NULL: there is none */
struct virtio_device *virtqueue_device(const struct virtqueue *queue);
unsigned virtqueue_number(const struct virtqueue *queue);
unsigned virtqueue_size(const struct virtqueue *queue); /* as the driver chose it */
bool virtqueue_ready(const struct virtqueue *queue);    /* the driver has enabled it, and it is not broken */
struct event_loop *virtqueue_loop(const struct virtqueue *queue);

/* ---- Queues: data; the lock of the queue's loop ---- */

void virtqueue_element_init(struct virtqueue_element *element, const struct virtqueue *queue);
void virtqueue_element_free(
    struct virtqueue_element *element); /* popped and not pushed: the driver never gets it back */
/* Takes the next chain. False: there is none now (or the device is broken, or this handler has had its share: it will be
 * called again). Both lists may be empty, not both at once. */
bool virtqueue_pop(struct virtqueue *queue, struct virtqueue_element *element);
/* Puts back the element that was popped last, as if it had not been; several: last popped first. */
void virtqueue_unpop(struct virtqueue *queue, struct virtqueue_element *element);
/* Is there anything to pop? Reads the ring. */
bool virtqueue_empty(struct virtqueue *queue);
/* Gives the chain back: the first `written` bytes of element->writable were written (dirty tracking is told here). In any
 * order. The driver sees it at once. An element from before a reset is dropped. */
void virtqueue_push(struct virtqueue *queue, struct virtqueue_element *element, uint32_t written);
/* The same for several at once that the driver must see together (a packet in mergeable buffers): fill each, with its place
 * among them from 0, then flush their number. Nothing else may be pushed between. */
void virtqueue_fill(struct virtqueue *queue, struct virtqueue_element *element, uint32_t written, unsigned place);
void virtqueue_flush(struct virtqueue *queue, unsigned count);
/* Interrupts the driver if it wants that for what was pushed since the last time. On an I/O thread the interrupt leaves
 * after this round of callbacks: call it as often as you like. */
void virtqueue_notify(struct virtqueue *queue);
/* Asks the driver (not) to kick. After turning kicks on, look at virtqueue_empty() again: a buffer that was added before the
 * driver could see the wish comes without one. */
void virtqueue_set_notification(struct virtqueue *queue, bool enabled);
/* The driver has broken the rules on this queue: the device is broken (see above), and a line says so under guest_errors. */
void virtqueue_fail(struct virtqueue *queue, const char *format, ...) printf_like(2, 3);
/* The handler will be called soon, as if the driver had kicked. Any thread, no lock needed. */
void virtqueue_kick(struct virtqueue *queue);

/* ---- For transports; device lock held ---- */

int virtio_device_init(struct virtio_device *vdev, const struct virtio_class *class,
                       const struct virtio_transport *transport, struct device *device, struct error *err);
void virtio_device_destroy(struct virtio_device *vdev);
void virtio_reset(struct virtio_device *vdev);
uint8_t virtio_status_read(const struct virtio_device *vdev);
void virtio_status_write(struct virtio_device *vdev, uint8_t value);
void virtio_features_write(struct virtio_device *vdev, unsigned word, uint32_t value);
uint32_t virtio_config_read(struct virtio_device *vdev, unsigned offset, unsigned size);
void virtio_config_write(struct virtio_device *vdev, unsigned offset, unsigned size, uint32_t value);

/* A queue's registers. Changing one that is enabled is refused but for what the specification allows. */
struct virtqueue_registers {
    uint64_t desc, driver, device;
    uint16_t size, vector;
    bool enabled;
};
const struct virtqueue_registers *virtqueue_registers(const struct virtqueue *queue);
void virtqueue_set_addresses(struct virtqueue *queue, uint64_t desc, uint64_t driver, uint64_t device);
void virtqueue_set_size(struct virtqueue *queue, uint16_t size);
void virtqueue_set_vector(struct virtqueue *queue, uint16_t vector);
void virtqueue_enable(struct virtqueue *queue);
void virtqueue_reset(struct virtqueue *queue);
/* Legacy: the page where all three parts lie, one behind the other; 0 disables. */
void virtqueue_set_legacy_page(struct virtqueue *queue, uint32_t page);
uint32_t virtqueue_legacy_page(const struct virtqueue *queue);

/* State tables: before saving, and after loading (checks, finds the rings, kicks). */
void virtio_pre_save(struct virtio_device *vdev);
int virtio_post_load(struct virtio_device *vdev, struct error *err);

#endif
