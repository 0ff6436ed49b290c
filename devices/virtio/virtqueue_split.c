/* Split virtqueues (virtio 1.2, section 2.7):
 *
 *   descriptor area   16 bytes each: address 8, length 4, flags 2, next 2
 *   driver area       flags 2 | idx 2 | ring[size] of heads, 2 each | used_event 2 (with EVENT_IDX)
 *   device area       flags 2 | idx 2 | ring[size] of { id 4, length 4 } | avail_event 2 (with EVENT_IDX)
 *
 * The driver's index is loaded with acquire order before what it covers; ours is stored with release order after what it
 * covers. The lock of the queue's loop is held. */
#include <assert.h>
#include <string.h>

#include "devices/virtio/virtio_internal.h"

enum { AVAIL_NO_INTERRUPT = 1, USED_NO_NOTIFY = 1 };
enum { RING_FLAGS = 0, RING_INDEX = 2, RING_ENTRIES = 4, USED_ENTRY = 8, DESC_SIZE = 16 };

struct descriptor {
    uint64_t address;
    uint32_t length;
    uint16_t flags, next;
};
static_assert(sizeof(struct descriptor) == DESC_SIZE, "virtio 1.2, 2.7.5");

static uint8_t *used_event(const struct virtqueue *queue)
{
    return queue->driver + RING_ENTRIES + 2u * queue->registers.size;
}

static unsigned avail_event_offset(const struct virtqueue *queue)
{
    return RING_ENTRIES + USED_ENTRY * queue->registers.size;
}

static void split_layout(const struct virtqueue *queue, uint64_t sizes[3], uint64_t alignments[3])
{
    uint64_t size = queue->registers.size, event = virtio_has(queue->vdev, VIRTIO_F_EVENT_IDX) ? 2 : 0;

    sizes[0] = DESC_SIZE * size;
    sizes[1] = RING_ENTRIES + 2 * size + event;
    sizes[2] = RING_ENTRIES + USED_ENTRY * size + event;
    alignments[0] = 16;
    alignments[1] = 2;
    alignments[2] = 4;
}

static void store_avail_event(struct virtqueue *queue, uint16_t index)
{
    unsigned offset = avail_event_offset(queue);

    ring_store16(queue->device + offset, index);
    virtqueue_written(queue, queue->registers.device + offset, 2);
}

static bool split_available(struct virtqueue *queue)
{
    uint16_t waiting;

    if (queue->avail_seen != queue->next_avail)
        return true;
    queue->avail_seen = ring_load16_acquire(queue->driver + RING_INDEX);
    waiting = (uint16_t)(queue->avail_seen - queue->next_avail);
    if (waiting > queue->registers.size) {
        virtqueue_fail(queue, "available index moved from %u to %u, in a ring of %u", queue->next_avail,
                       queue->avail_seen, queue->registers.size);
        queue->avail_seen = queue->next_avail;
        return false;
    }
    return waiting != 0;
}

/* Follows a chain in `table` (NULL: the indirect table at `base`) from `index` on. */
static bool follow_chain(struct virtqueue *queue, struct virtqueue_element *element, const uint8_t *table, gpa_t base,
                         unsigned entries, unsigned index)
{
    struct descriptor desc;
    unsigned limit = MIN(entries, VIRTQUEUE_SIZE_MAX), count = 0;

    for (;;) {
        if (index >= entries) {
            virtqueue_fail(queue, "descriptor %u of %u", index, entries);
            return false;
        }
        if (++count > limit) {
            virtqueue_fail(queue, "chain of more than %u descriptors", limit);
            return false;
        }
        if (table) {
            memcpy(&desc, table + (size_t)DESC_SIZE * index, sizeof(desc));
            __asm__ volatile("" : "+m"(desc)); /* one look at memory that may change */
        } else if (!virtqueue_read_descriptor(queue, base + (uint64_t)DESC_SIZE * index, &desc)) {
            return false;
        }
        if (desc.flags & DESC_INDIRECT) {
            unsigned inner = desc.length / DESC_SIZE;
            if (!table || (desc.flags & DESC_NEXT) || count > 1 || !inner || desc.length % DESC_SIZE ||
                !virtio_has(queue->vdev, VIRTIO_F_INDIRECT_DESC)) {
                virtqueue_fail(queue, "indirect descriptor of 0x%x bytes, flags 0x%x, where there can be none",
                               desc.length, desc.flags);
                return false;
            }
            return follow_chain(queue, element, NULL, desc.address, inner, 0);
        }
        if (!virtqueue_element_add(queue, element, desc.address, desc.length, desc.flags))
            return false;
        if (!(desc.flags & DESC_NEXT))
            return true;
        index = desc.next;
    }
}

static bool split_pop(struct virtqueue *queue, struct virtqueue_element *element)
{
    unsigned size = queue->registers.size;
    uint16_t head = ring_load16(queue->driver + RING_ENTRIES + 2 * (queue->next_avail & (size - 1)));

    if (queue->in_use >= size) {
        virtqueue_fail(queue, "more than %u chains in use", size);
        return false;
    }
    element->id = head;
    element->slots = 1;
    if (!follow_chain(queue, element, queue->desc, 0, size, head))
        return false;
    queue->next_avail++;
    if (queue->notification && virtio_has(queue->vdev, VIRTIO_F_EVENT_IDX))
        store_avail_event(queue, queue->next_avail);
    return true;
}

static void split_unpop(struct virtqueue *queue, const struct virtqueue_element *element)
{
    (void)element;
    queue->next_avail--;
}

static void split_fill(struct virtqueue *queue, const struct virtqueue_element *element, uint32_t written,
                       unsigned place)
{
    unsigned entry = (queue->next_used + place) & (queue->registers.size - 1u),
             offset = RING_ENTRIES + USED_ENTRY * entry;
    uint32_t used[2] = { element->id, written };

    queue->filled[place].slots = element->slots;
    memcpy(queue->device + offset, used, sizeof(used));
    virtqueue_written(queue, queue->registers.device + offset, USED_ENTRY);
}

static void split_flush(struct virtqueue *queue, unsigned count)
{
    queue->next_used += count;
    ring_store16_release(queue->device + RING_INDEX, queue->next_used);
    virtqueue_written(queue, queue->registers.device + RING_INDEX, 2);
}

static void split_set_notification(struct virtqueue *queue, bool enabled)
{
    if (virtio_has(queue->vdev, VIRTIO_F_EVENT_IDX)) {
        /* Where it stood when we last looked: the driver passes that once. Off: it is left behind. */
        if (enabled)
            store_avail_event(queue, ring_load16(queue->driver + RING_INDEX));
        return;
    }
    ring_store16(queue->device + RING_FLAGS, enabled ? 0 : USED_NO_NOTIFY);
    virtqueue_written(queue, queue->registers.device + RING_FLAGS, 2);
}

static bool split_interrupt_wanted(struct virtqueue *queue, unsigned pushed)
{
    atomic_thread_fence(memory_order_seq_cst); /* our index before its wish; pairs with the driver's */
    if (virtio_has(queue->vdev, VIRTIO_F_NOTIFY_ON_EMPTY) && !queue->in_use &&
        queue->next_avail == ring_load16(queue->driver + RING_INDEX))
        return true;
    if (!virtio_has(queue->vdev, VIRTIO_F_EVENT_IDX))
        return !(ring_load16(queue->driver + RING_FLAGS) & AVAIL_NO_INTERRUPT);
    if (queue->signal_next || pushed > UINT16_MAX)
        return true;
    return (uint16_t)(queue->next_used - ring_load16(used_event(queue)) - 1) < (uint16_t)pushed;
}

const struct ring_ops virtqueue_split_ops = {
    .layout = split_layout,
    .available = split_available,
    .pop = split_pop,
    .unpop = split_unpop,
    .fill = split_fill,
    .flush = split_flush,
    .set_notification = split_set_notification,
    .interrupt_wanted = split_interrupt_wanted,
};
