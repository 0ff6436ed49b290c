/* Shared by the files of the virtio core: virtio.c (device), virtqueue.c (queues), virtqueue_split.c and
 * virtqueue_packed.c (ring formats), virtio_state.c. Not for devices. */
#ifndef EIDOLON_DEVICES_VIRTIO_VIRTIO_INTERNAL_H
#define EIDOLON_DEVICES_VIRTIO_VIRTIO_INTERNAL_H

#include "base/io_thread.h"
#include "base/log.h"
#include "devices/virtio/virtio.h"

/* A chain's bytes in all: virtio 1.2, 2.7.4.2.1. Also what bounds the time that one pop takes. */
#define VIRTIO_CHAIN_BYTES_MAX (1ull << 32)

enum { DESC_NEXT = 1, DESC_WRITE = 2, DESC_INDIRECT = 4 };

/* An element that was filled and waits for the flush (packed rings). */
struct virtqueue_filled {
    uint32_t written;
    uint16_t id, slots;
};

struct virtqueue {
    struct virtio_device *vdev;
    virtqueue_handler *handler;
    unsigned number, max_size, flags;
    struct io_thread *thread; /* NULL: main loop */
    struct event_loop *loop;

    int kick_fd; /* eventfd */
    struct fd_watch *watch;
    _Atomic bool kicked; /* the eventfd was written, and its reader has not begun */

    /* All below: guarded by the loop's lock; registers change with the device lock held as well. */
    struct virtqueue_registers registers;
    bool legacy_layout;
    bool stopped; /* nothing is popped: reset, save */

    /* Host addresses of the three parts; valid if map_seen is vdev->map_count. */
    uint8_t *desc, *driver, *device;
    uint32_t map_seen;
    bool mapped;

    uint32_t generation; /* of elements: changes with each reset */
    uint16_t next_avail, next_used;
    uint16_t avail_seen; /* split: the driver's index when we last looked */
    bool avail_wrap, used_wrap;
    unsigned in_use;      /* descriptors (packed: slots) that are out */
    unsigned unsignalled; /* pushed since we last thought of an interrupt */
    bool signal_next;     /* the next push interrupts, if interrupts are on at all */
    bool notification;    /* kicks are wanted */
    struct virtqueue_filled *filled;

    bool in_handler, found_empty, exhausted;
    unsigned budget; /* pops that the handler has left */
    struct io_deferred deferred;
};

struct ring_ops {
    /* Sizes of the three parts, and their alignments. */
    void (*layout)(const struct virtqueue *queue, uint64_t sizes[3], uint64_t alignments[3]);
    bool (*available)(struct virtqueue *queue);
    bool (*pop)(struct virtqueue *queue, struct virtqueue_element *element); /* something is available */
    void (*unpop)(struct virtqueue *queue, const struct virtqueue_element *element);
    void (*fill)(struct virtqueue *queue, const struct virtqueue_element *element, uint32_t written, unsigned place);
    void (*flush)(struct virtqueue *queue, unsigned count);
    void (*set_notification)(struct virtqueue *queue, bool enabled);
    bool (*interrupt_wanted)(struct virtqueue *queue, unsigned pushed);
};
extern const struct ring_ops virtqueue_split_ops, virtqueue_packed_ops;

static inline const struct ring_ops *ring_ops(const struct virtqueue *queue)
{
    return virtio_has(queue->vdev, VIRTIO_F_RING_PACKED) ? &virtqueue_packed_ops : &virtqueue_split_ops;
}

static inline struct physmem *queue_memory(const struct virtqueue *queue)
{
    return queue->vdev->device->env->mem;
}

/* Guest memory: a value that is read once, and written once. */
static inline uint16_t ring_load16(const uint8_t *host)
{
    return __atomic_load_n((const uint16_t *)host, __ATOMIC_RELAXED);
}
static inline uint16_t ring_load16_acquire(const uint8_t *host)
{
    return __atomic_load_n((const uint16_t *)host, __ATOMIC_ACQUIRE);
}
static inline void ring_store16(uint8_t *host, uint16_t value)
{
    __atomic_store_n((uint16_t *)host, value, __ATOMIC_RELAXED);
}
static inline void ring_store16_release(uint8_t *host, uint16_t value)
{
    __atomic_store_n((uint16_t *)host, value, __ATOMIC_RELEASE);
}

/* Adds one descriptor's memory to an element, with all checks; false: the device is broken now. */
bool virtqueue_element_add(struct virtqueue *queue, struct virtqueue_element *element, uint64_t address,
                           uint32_t length, uint16_t flags);
/* 16 bytes of an indirect table at gpa. */
bool virtqueue_read_descriptor(struct virtqueue *queue, gpa_t gpa, void *descriptor);

/* [address, address + size) of the ring was written. `host` is where it is. */
static inline void virtqueue_written(struct virtqueue *queue, gpa_t gpa, uint64_t size)
{
    physmem_written(queue_memory(queue), gpa, size);
}

/* virtio_state.c needs it: the ring's indices as after a reset. */
void virtqueue_restart(struct virtqueue *queue);
void virtqueue_stop(struct virtqueue *queue, bool stop);
void virtqueue_destroy(struct virtqueue *queue);
void virtqueue_lock(struct virtqueue *queue);
void virtqueue_unlock(struct virtqueue *queue);
bool virtqueue_find_ring(struct virtqueue *queue);

#endif
