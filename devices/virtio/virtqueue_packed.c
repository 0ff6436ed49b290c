/* Packed virtqueues (virtio 1.2, section 2.8): one ring of descriptors that the driver makes available and the device overwrites
 * with used ones.
 *
 *   descriptor   address 8 | length 4 | buffer id 2 | flags 2: 0 next, 1 write, 2 indirect, 7 avail, 15 used
 *   driver area  event suppression, the driver's: offset 14..0, wrap 15 | flags: 0 interrupt, 1 do not, 2 at that descriptor
 *   device area  the same, ours, about kicks
 *
 * A descriptor is available if its avail bit is the wrap counter of our reading place and its used bit is not. A chain takes as
 * many slots as it has descriptors (one if it is indirect), and its used descriptor is one of the last one's id; the writing
 * place then moves on by the chain's slots. Flags are loaded with acquire order before the rest of the head and
 * stored with release order after it. The lock of the queue's loop is held. */
#include <assert.h>
#include <string.h>

#include "devices/virtio/virtio_internal.h"

enum { DESC_SIZE = 16, DESC_ID = 12, DESC_FLAGS = 14, EVENT_FLAGS = 2, EVENT_SIZE = 4 };
enum { EVENT_ENABLE = 0, EVENT_DISABLE = 1, EVENT_DESC = 2 };
#define FLAG_AVAIL ((uint16_t)(1u << 7))
#define FLAG_USED  ((uint16_t)(1u << 15))
#define EVENT_WRAP ((uint16_t)(1u << 15))

struct descriptor {
    uint64_t address;
    uint32_t length;
    uint16_t id, flags;
};
static_assert(sizeof(struct descriptor) == DESC_SIZE, "virtio 1.2, 2.8.13");

static void packed_layout(const struct virtqueue *queue, uint64_t sizes[3], uint64_t alignments[3])
{
    sizes[0] = (uint64_t)DESC_SIZE * queue->registers.size;
    sizes[1] = sizes[2] = EVENT_SIZE;
    alignments[0] = 16;
    alignments[1] = alignments[2] = 4;
}

static bool packed_available(struct virtqueue *queue)
{
    uint16_t flags = ring_load16_acquire(queue->desc + (size_t)DESC_SIZE * queue->next_avail + DESC_FLAGS);

    return !!(flags & FLAG_AVAIL) == queue->avail_wrap && !!(flags & FLAG_USED) != queue->avail_wrap;
}

static void event_store(struct virtqueue *queue, uint16_t offset_wrap, uint16_t flags)
{
    ring_store16(queue->device, offset_wrap);
    ring_store16_release(queue->device + EVENT_FLAGS, flags);
    virtqueue_written(queue, queue->registers.device, EVENT_SIZE);
}

static void ask_for_kick(struct virtqueue *queue)
{
    bool empty = !packed_available(queue);

    /* At a descriptor that is there already the driver never arrives again. */
    if (virtio_has(queue->vdev, VIRTIO_F_EVENT_IDX) && empty)
        event_store(queue, queue->next_avail | (queue->avail_wrap ? EVENT_WRAP : 0), EVENT_DESC);
    else
        event_store(queue, 0, EVENT_ENABLE);
}

/* An indirect table: all its entries, in order; only their WRITE flag counts (2.8.7). */
static bool add_indirect(struct virtqueue *queue, struct virtqueue_element *element, const struct descriptor *outer)
{
    unsigned entries = outer->length / DESC_SIZE;

    if ((outer->flags & DESC_NEXT) || !entries || outer->length % DESC_SIZE || entries > VIRTQUEUE_SIZE_MAX ||
        !virtio_has(queue->vdev, VIRTIO_F_INDIRECT_DESC)) {
        virtqueue_fail(queue, "indirect descriptor of 0x%x bytes, flags 0x%x, where there can be none", outer->length,
                       outer->flags);
        return false;
    }
    for (unsigned i = 0; i < entries; i++) {
        struct descriptor desc;
        if (!virtqueue_read_descriptor(queue, outer->address + (uint64_t)DESC_SIZE * i, &desc) ||
            !virtqueue_element_add(queue, element, desc.address, desc.length, desc.flags))
            return false;
    }
    return true;
}

static void advance(const struct virtqueue *queue, uint16_t *place, bool *wrap, unsigned slots)
{
    unsigned next = *place + slots;

    if (next >= queue->registers.size) {
        next -= queue->registers.size;
        *wrap = !*wrap;
    }
    *place = (uint16_t)next;
}

static bool packed_pop(struct virtqueue *queue, struct virtqueue_element *element)
{
    unsigned size = queue->registers.size, free_slots = size - MIN(size, queue->in_use), slots = 0;
    unsigned place = queue->next_avail;
    struct descriptor desc;

    do {
        if (slots == free_slots) {
            virtqueue_fail(queue, "more than %u descriptors in use", size);
            return false;
        }
        memcpy(&desc, queue->desc + (size_t)DESC_SIZE * place, sizeof(desc));
        __asm__ volatile("" : "+m"(desc)); /* one look at memory that may change */
        slots++;
        if (desc.flags & DESC_INDIRECT) {
            if (slots > 1) {
                virtqueue_fail(queue, "indirect descriptor inside a chain");
                return false;
            }
            if (!add_indirect(queue, element, &desc))
                return false;
        } else if (!virtqueue_element_add(queue, element, desc.address, desc.length, desc.flags)) {
            return false;
        }
        place = place + 1 == size ? 0 : place + 1;
    } while (desc.flags & DESC_NEXT);
    element->id = desc.id;
    element->slots = (uint16_t)slots;
    advance(queue, &queue->next_avail, &queue->avail_wrap, slots);
    if (queue->notification)
        ask_for_kick(queue);
    return true;
}

static void packed_unpop(struct virtqueue *queue, const struct virtqueue_element *element)
{
    if (queue->next_avail < element->slots) {
        queue->next_avail += queue->registers.size;
        queue->avail_wrap = !queue->avail_wrap;
    }
    queue->next_avail -= element->slots;
}

static void packed_fill(struct virtqueue *queue, const struct virtqueue_element *element, uint32_t written,
                        unsigned place)
{
    queue->filled[place] = (struct virtqueue_filled){ .written = written, .id = element->id, .slots = element->slots };
}

static void store_used(struct virtqueue *queue, const struct virtqueue_filled *filled, unsigned place, bool wrap)
{
    uint8_t *desc = queue->desc + (size_t)DESC_SIZE * place;
    uint16_t flags = (wrap ? FLAG_AVAIL | FLAG_USED : 0) | (filled->written ? DESC_WRITE : 0);

    memcpy(desc + 8, &filled->written, 4);
    ring_store16(desc + DESC_ID, filled->id);
    ring_store16_release(desc + DESC_FLAGS, flags);
    virtqueue_written(queue, queue->registers.desc + (uint64_t)DESC_SIZE * place, DESC_SIZE);
}

/* The first one last: the driver looks at that one, and finds the others behind it. */
static void packed_flush(struct virtqueue *queue, unsigned count)
{
    uint16_t first = queue->next_used, place = first;
    bool first_wrap = queue->used_wrap, wrap = first_wrap;

    for (unsigned i = 0; i < count; i++) {
        if (i)
            store_used(queue, &queue->filled[i], place, wrap);
        advance(queue, &place, &wrap, queue->filled[i].slots);
    }
    store_used(queue, &queue->filled[0], first, first_wrap);
    queue->next_used = place;
    queue->used_wrap = wrap;
}

static void packed_set_notification(struct virtqueue *queue, bool enabled)
{
    if (enabled)
        ask_for_kick(queue);
    else
        event_store(queue, 0, EVENT_DISABLE);
}

static bool packed_interrupt_wanted(struct virtqueue *queue, unsigned pushed)
{
    uint16_t flags, offset_wrap;
    int event;

    atomic_thread_fence(memory_order_seq_cst); /* our descriptors before its wish; pairs with the driver's */
    flags = ring_load16_acquire(queue->driver + EVENT_FLAGS) & 3;
    if (flags == EVENT_DISABLE)
        return false;
    if (flags != EVENT_DESC || !virtio_has(queue->vdev, VIRTIO_F_EVENT_IDX) || queue->signal_next ||
        pushed >= queue->registers.size)
        return true;
    offset_wrap = ring_load16(queue->driver);
    event = offset_wrap & ~EVENT_WRAP;
    if (!!(offset_wrap & EVENT_WRAP) != queue->used_wrap)
        event -= queue->registers.size; /* of the round before */
    return (uint16_t)(queue->next_used - event - 1) < (uint16_t)pushed;
}

const struct ring_ops virtqueue_packed_ops = {
    .layout = packed_layout,
    .available = packed_available,
    .pop = packed_pop,
    .unpop = packed_unpop,
    .fill = packed_fill,
    .flush = packed_flush,
    .set_notification = packed_set_notification,
    .interrupt_wanted = packed_interrupt_wanted,
};
