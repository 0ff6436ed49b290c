/* Virtqueues: registers, kicks, the handler's turn, and what split and packed rings have in common (virtio 1.2, sections
 * 2.6 to 2.8). The formats are in virtqueue_split.c and virtqueue_packed.c.
 *
 * Invariants: an element that a device holds lies in RAM, and its chain was within all bounds. The rings are reached through host
 * pointers, which are looked up again when the memory map has changed; an old one is still memory of the guest, so a
 * change that is noticed late does no harm. Nothing of the ring is looked at twice.
 *
 * Threads: virtio.h. Registers are changed with both locks held, so that the handler and the registers' reader each need one. */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "devices/virtio/virtio_internal.h"

/* ---- Locks ---- */

void virtqueue_lock(struct virtqueue *queue)
{
    if (queue->thread)
        event_loop_lock(queue->loop);
}

void virtqueue_unlock(struct virtqueue *queue)
{
    if (queue->thread)
        event_loop_unlock(queue->loop);
}

/* ---- Interrupts and failure ---- */

/* Device lock held, and not the I/O thread's. */
static void interrupt_now(struct virtqueue *queue)
{
    struct virtio_device *vdev = queue->vdev;
    unsigned pushed;
    bool wanted = false;

    virtqueue_lock(queue);
    pushed = queue->unsignalled;
    queue->unsignalled = 0;
    if (pushed && virtqueue_ready(queue) && virtqueue_find_ring(queue)) {
        wanted = ring_ops(queue)->interrupt_wanted(queue, pushed);
        queue->signal_next = false;
    }
    virtqueue_unlock(queue);
    if (wanted)
        vdev->transport->queue_interrupt(vdev, queue->registers.vector);
    if (vdev->broken && !(vdev->status & VIRTIO_STATUS_NEEDS_RESET)) {
        vdev->status |= VIRTIO_STATUS_NEEDS_RESET;
        if (vdev->status & VIRTIO_STATUS_DRIVER_OK)
            virtio_config_changed(vdev);
    }
}

static void deferred_interrupt(void *opaque)
{
    interrupt_now(opaque);
}

static void interrupt_soon(struct virtqueue *queue)
{
    if (queue->thread)
        io_thread_defer(queue->thread, &queue->deferred);
    else
        interrupt_now(queue);
}

void virtqueue_notify(struct virtqueue *queue)
{
    if (queue->unsignalled)
        interrupt_soon(queue);
}

void virtqueue_fail(struct virtqueue *queue, const char *format, ...)
{
    struct virtio_device *vdev = queue->vdev;
    char text[160];
    va_list args;

    if (atomic_exchange(&vdev->broken, true))
        return;
    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    log_event(guest_errors, "%s: queue %u: %s; the device needs a reset\n", vdev->device->id, queue->number, text);
    interrupt_soon(queue);
}

/* ---- Where the ring is ---- */

/* Contiguous host memory for guest RAM that may lie in several pieces of the map; NULL: not RAM, or scattered. */
static uint8_t *contiguous(struct physmem *mem, gpa_t gpa, uint64_t size)
{
    uint8_t *host = physmem_ram_pointer(mem, gpa, size);

    if (host || gpa + size < gpa)
        return host;
    host = physmem_ram_pointer(mem, gpa, 1);
    for (gpa_t page = ALIGN_UP(gpa + 1, PAGE_SIZE); host && page < gpa + size; page += PAGE_SIZE) {
        if (physmem_ram_pointer(mem, page, MIN(PAGE_SIZE, gpa + size - page)) != host + (page - gpa))
            return NULL;
    }
    return host && physmem_ram_pointer(mem, gpa, MIN(size, ALIGN_UP(gpa + 1, PAGE_SIZE) - gpa)) ? host : NULL;
}

/* False: the device is broken now. */
bool virtqueue_find_ring(struct virtqueue *queue)
{
    static const char *const names[] = { "descriptor", "driver", "device" };
    const struct virtqueue_registers *regs = &queue->registers;
    uint32_t count = atomic_load_explicit(&queue->vdev->map_count, memory_order_acquire);
    uint64_t addresses[3] = { regs->desc, regs->driver, regs->device }, sizes[3], alignments[3];
    uint8_t **hosts[3] = { &queue->desc, &queue->driver, &queue->device };

    if (likely(queue->mapped && queue->map_seen == count))
        return true;
    ring_ops(queue)->layout(queue, sizes, alignments);
    for (unsigned i = 0; i < 3; i++) {
        uint8_t *host = contiguous(queue_memory(queue), addresses[i], sizes[i]);

        if (!host || addresses[i] % alignments[i]) {
            virtqueue_fail(queue, "%s area at 0x%llx is %s", names[i], (unsigned long long)addresses[i],
                           host ? "not aligned" : "not in RAM");
            return false;
        }
        *hosts[i] = host;
    }
    queue->map_seen = count;
    queue->mapped = true;
    return true;
}

bool virtqueue_ready(const struct virtqueue *queue)
{
    return queue->registers.enabled && !queue->vdev->broken;
}

/* May the ring be used, and where is it? */
static bool queue_begin(struct virtqueue *queue)
{
    return virtqueue_ready(queue) && !queue->stopped && virtqueue_find_ring(queue);
}

/* ---- Elements ---- */

void virtqueue_element_init(struct virtqueue_element *element, const struct virtqueue *queue)
{
    *element = (struct virtqueue_element){ 0 };
    dma_list_init(&element->readable, queue_memory(queue));
    dma_list_init(&element->writable, queue_memory(queue));
}

void virtqueue_element_free(struct virtqueue_element *element)
{
    dma_list_free(&element->readable);
    dma_list_free(&element->writable);
}

bool virtqueue_element_add(struct virtqueue *queue, struct virtqueue_element *element, uint64_t address,
                           uint32_t length, uint16_t flags)
{
    struct dma_list *list = flags & DESC_WRITE ? &element->writable : &element->readable;
    int ret;

    if (!length) {
        virtqueue_fail(queue, "descriptor of length 0");
        return false;
    }
    if (!(flags & DESC_WRITE) && element->writable.size) {
        virtqueue_fail(queue, "readable descriptor after a writable one");
        return false;
    }
    if (element->readable.size + element->writable.size + length > VIRTIO_CHAIN_BYTES_MAX) {
        virtqueue_fail(queue, "chain of more than 4 GiB");
        return false;
    }
    ret = dma_list_add(list, address, length);
    if (ret) {
        virtqueue_fail(queue, "descriptor of 0x%x bytes at 0x%llx: %s", length, (unsigned long long)address,
                       ret == -EFAULT ? "not in RAM" : "out of memory");
        return false;
    }
    return true;
}

bool virtqueue_read_descriptor(struct virtqueue *queue, gpa_t gpa, void *descriptor)
{
    uint8_t *host = physmem_ram_pointer(queue_memory(queue), gpa, 16);

    if (host)
        memcpy(descriptor, host, 16);
    else if (gpa + 16 < gpa || !physmem_read(queue_memory(queue), gpa, descriptor, 16)) {
        virtqueue_fail(queue, "indirect table at 0x%llx is not in memory", (unsigned long long)gpa);
        return false;
    }
    __asm__ volatile("" : : "r"(descriptor) : "memory"); /* the copy is what is looked at from here on */
    return true;
}

bool virtqueue_pop(struct virtqueue *queue, struct virtqueue_element *element)
{
    if (!queue_begin(queue))
        return false;
    if (!ring_ops(queue)->available(queue)) {
        queue->found_empty = true;
        return false;
    }
    if (queue->in_handler && queue->budget == 0) {
        queue->exhausted = true;
        return false;
    }
    dma_list_clear(&element->readable);
    dma_list_clear(&element->writable);
    element->generation = queue->generation;
    if (!ring_ops(queue)->pop(queue, element))
        return false;
    if (queue->in_handler)
        queue->budget--;
    queue->in_use += element->slots;
    return true;
}

void virtqueue_unpop(struct virtqueue *queue, struct virtqueue_element *element)
{
    if (element->generation != queue->generation || !queue_begin(queue))
        return;
    queue->in_use -= element->slots;
    ring_ops(queue)->unpop(queue, element);
}

bool virtqueue_empty(struct virtqueue *queue)
{
    return !queue_begin(queue) || !ring_ops(queue)->available(queue);
}

void virtqueue_fill(struct virtqueue *queue, struct virtqueue_element *element, uint32_t written, unsigned place)
{
    if (place >= queue->max_size)
        return;
    queue->filled[place].slots = 0;
    if (element->generation != queue->generation || !virtqueue_ready(queue) || !virtqueue_find_ring(queue))
        return;
    dma_list_written(&element->writable, written);
    queue->filled[place].slots = element->slots;
    ring_ops(queue)->fill(queue, element, written, place);
}

void virtqueue_flush(struct virtqueue *queue, unsigned count)
{
    unsigned slots = 0;

    if (count == 0 || count > queue->max_size || !virtqueue_ready(queue) || !virtqueue_find_ring(queue))
        return;
    for (unsigned i = 0; i < count; i++) {
        if (!queue->filled[i].slots)
            return; /* elements from before a reset */
        slots += queue->filled[i].slots;
    }
    ring_ops(queue)->flush(queue, count);
    queue->in_use -= slots;
    queue->unsignalled += slots;
}

void virtqueue_push(struct virtqueue *queue, struct virtqueue_element *element, uint32_t written)
{
    if (element->generation != queue->generation)
        return;
    virtqueue_fill(queue, element, written, 0);
    virtqueue_flush(queue, 1);
}

void virtqueue_set_notification(struct virtqueue *queue, bool enabled)
{
    queue->notification = enabled;
    if (!queue_begin(queue))
        return;
    ring_ops(queue)->set_notification(queue, enabled);
    atomic_thread_fence(
        memory_order_seq_cst); /* the driver stores an index, then loads this; we do it the other way round */
}

/* ---- Kicks ---- */

void virtqueue_kick(struct virtqueue *queue)
{
    uint64_t one = 1;

    /* Pairs with kicked(): whoever finds it set knows that the handler has not yet looked at the ring. */
    if (!atomic_exchange(&queue->kicked, true) && write(queue->kick_fd, &one, sizeof(one)) < 0)
        atomic_store(&queue->kicked, false);
}

/* Legacy drivers may kick before DRIVER_OK (3.1.2). */
static bool may_run(const struct virtqueue *queue)
{
    const struct virtio_device *vdev = queue->vdev;

    return (vdev->status & VIRTIO_STATUS_DRIVER_OK) || (vdev->legacy && !virtio_has(vdev, VIRTIO_F_VERSION_1));
}

static void handle_automatic(struct virtqueue *queue)
{
    bool again;

    virtqueue_set_notification(queue, false);
    do {
        queue->found_empty = false;
        queue->handler(queue);
        if (queue->exhausted)
            return; /* kicks stay off: it will be called again anyway */
        virtqueue_set_notification(queue, true);
        again = queue->found_empty && !virtqueue_empty(queue);
        if (again)
            virtqueue_set_notification(queue, false);
    } while (again);
}

static void kicked(void *opaque, unsigned ready)
{
    struct virtqueue *queue = opaque;
    uint64_t count;

    (void)ready;
    if (read(queue->kick_fd, &count, sizeof(count)) < 0 && errno != EAGAIN)
        return;
    atomic_store(&queue->kicked, false);
    if (!virtqueue_ready(queue) || queue->stopped || !may_run(queue) || !queue_begin(queue))
        return;
    queue->in_handler = true;
    queue->exhausted = false;
    queue->budget = queue->registers.size;
    if (queue->flags & VIRTQUEUE_MANUAL)
        queue->handler(queue);
    else
        handle_automatic(queue);
    queue->in_handler = false;
    if (queue->exhausted)
        virtqueue_kick(queue); /* others of this loop have their turn first */
}

/* ---- Set-up ---- */

struct virtqueue *virtio_add_queue(struct virtio_device *vdev, unsigned size, virtqueue_handler *handler,
                                   unsigned flags, struct error *err)
{
    struct virtqueue *queue;

    if (vdev->queue_count == VIRTIO_QUEUES_MAX || size < 2 || size > VIRTQUEUE_SIZE_MAX || (size & (size - 1))) {
        error_set(err, EINVAL, "%u queues of %u entries: at most %u, of a power of two from 2 to %u",
                  vdev->queue_count + 1, size, VIRTIO_QUEUES_MAX, VIRTQUEUE_SIZE_MAX);
        return NULL;
    }
    queue = &vdev->queues[vdev->queue_count];
    *queue = (struct virtqueue){
        .vdev = vdev,
        .handler = handler,
        .number = vdev->queue_count,
        .max_size = size,
        .flags = flags,
        .loop = vdev->device->env->loop,
        .kick_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK),
        .filled = calloc(size, sizeof(*queue->filled)),
        .deferred = { .fn = deferred_interrupt, .opaque = queue },
    };
    vdev->queue_count++;
    if (queue->kick_fd < 0 || !queue->filled) {
        error_set(err, queue->filled ? errno : ENOMEM, "queue: %s", strerror(queue->filled ? errno : ENOMEM));
        return NULL;
    }
    queue->watch = fd_watch_add(queue->loop, queue->kick_fd, FD_READABLE, kicked, queue, err);
    if (!queue->watch)
        return NULL;
    virtqueue_restart(queue);
    return queue;
}

int virtqueue_set_io_thread(struct virtqueue *queue, struct io_thread *thread, struct error *err)
{
    fd_watch_remove(queue->watch);
    queue->thread = thread;
    queue->loop = io_thread_loop(thread);
    event_loop_lock(queue->loop);
    queue->watch = fd_watch_add(queue->loop, queue->kick_fd, FD_READABLE, kicked, queue, err);
    event_loop_unlock(queue->loop);
    return queue->watch ? 0 : -ENOMEM;
}

static void close_descriptor(void *opaque)
{
    close((int)(intptr_t)opaque);
}

void virtqueue_destroy(struct virtqueue *queue)
{
    virtqueue_lock(queue);
    fd_watch_remove(queue->watch);
    queue->watch = NULL;
    virtqueue_unlock(queue);
    if (queue->thread)
        io_thread_cancel(queue->thread, &queue->deferred);
    /* After the loop's thread has let go of it, which it was asked to do by a post as well. */
    if (queue->kick_fd >= 0)
        event_loop_post(queue->loop, close_descriptor, (void *)(intptr_t)queue->kick_fd);
    free(queue->filled);
}

/* ---- Registers: device lock held ---- */

struct virtqueue *virtio_queue(struct virtio_device *vdev, unsigned number)
{
    return number < vdev->queue_count ? &vdev->queues[number] : NULL;
}

struct virtio_device *virtqueue_device(const struct virtqueue *queue)
{
    return queue->vdev;
}

unsigned virtqueue_number(const struct virtqueue *queue)
{
    return queue->number;
}

unsigned virtqueue_size(const struct virtqueue *queue)
{
    return queue->registers.size;
}

struct event_loop *virtqueue_loop(const struct virtqueue *queue)
{
    return queue->loop;
}

const struct virtqueue_registers *virtqueue_registers(const struct virtqueue *queue)
{
    return &queue->registers;
}

/* As after a reset: not enabled, empty. */
void virtqueue_restart(struct virtqueue *queue)
{
    queue->registers =
        (struct virtqueue_registers){ .size = (uint16_t)queue->max_size, .vector = VIRTIO_MSI_NO_VECTOR };
    queue->legacy_layout = queue->mapped = false;
    queue->generation++;
    queue->next_avail = queue->next_used = queue->avail_seen = 0;
    queue->avail_wrap = queue->used_wrap = true;
    queue->in_use = queue->unsignalled = 0;
    queue->signal_next = queue->notification = true;
}

void virtqueue_stop(struct virtqueue *queue, bool stop)
{
    virtqueue_lock(queue);
    queue->stopped = stop;
    virtqueue_unlock(queue);
}

static bool locked_by_driver(const struct virtqueue *queue, const char *what)
{
    if (!queue->registers.enabled)
        return false;
    log_event(guest_errors, "%s: queue %u: %s changed while it is enabled\n", queue->vdev->device->id, queue->number,
              what);
    return true;
}

void virtqueue_set_addresses(struct virtqueue *queue, uint64_t desc, uint64_t driver, uint64_t device)
{
    if (locked_by_driver(queue, "address"))
        return;
    virtqueue_lock(queue);
    queue->registers.desc = desc;
    queue->registers.driver = driver;
    queue->registers.device = device;
    virtqueue_unlock(queue);
}

void virtqueue_set_size(struct virtqueue *queue, uint16_t size)
{
    if (locked_by_driver(queue, "size"))
        return;
    if (size == 0 || size > queue->max_size) {
        log_event(guest_errors, "%s: queue %u: size %u is not from 1 to %u\n", queue->vdev->device->id, queue->number,
                  size, queue->max_size);
        return;
    }
    virtqueue_lock(queue);
    queue->registers.size = size;
    virtqueue_unlock(queue);
}

void virtqueue_set_vector(struct virtqueue *queue, uint16_t vector)
{
    virtqueue_lock(queue);
    queue->registers.vector = vector;
    virtqueue_unlock(queue);
}

void virtqueue_enable(struct virtqueue *queue)
{
    struct virtio_device *vdev = queue->vdev;

    if (queue->registers.enabled)
        return;
    virtqueue_lock(queue);
    queue->registers.enabled = true;
    queue->mapped = false;
    if ((queue->registers.size & (queue->registers.size - 1)) && !virtio_has(vdev, VIRTIO_F_RING_PACKED))
        virtqueue_fail(queue, "size %u is not a power of two", queue->registers.size);
    virtqueue_unlock(queue);
    if (vdev->status & VIRTIO_STATUS_DRIVER_OK)
        virtqueue_kick(queue);
}

void virtqueue_reset(struct virtqueue *queue)
{
    struct virtio_device *vdev = queue->vdev;

    virtqueue_stop(queue, true);
    if (vdev->class->drain)
        vdev->class->drain(vdev, queue);
    if (vdev->class->queue_reset)
        vdev->class->queue_reset(vdev, queue);
    virtqueue_lock(queue);
    virtqueue_restart(queue);
    queue->stopped = false;
    virtqueue_unlock(queue);
}

/* Legacy: descriptors, available ring, and from the next page boundary on the used ring (2.7.2). */
void virtqueue_set_legacy_page(struct virtqueue *queue, uint32_t page)
{
    uint64_t base = (uint64_t)page << PAGE_SHIFT, available = base + 16ull * queue->max_size;

    virtqueue_lock(queue);
    queue->registers.size = (uint16_t)queue->max_size;
    queue->registers.desc = base;
    queue->registers.driver = available;
    queue->registers.device = ALIGN_UP(available + 6 + 2ull * queue->max_size, PAGE_SIZE);
    queue->legacy_layout = true;
    virtqueue_unlock(queue);
    virtqueue_enable(queue);
}

uint32_t virtqueue_legacy_page(const struct virtqueue *queue)
{
    return queue->legacy_layout && queue->registers.enabled ? (uint32_t)(queue->registers.desc >> PAGE_SHIFT) : 0;
}
