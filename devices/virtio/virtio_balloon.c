/* virtio-balloon: memory that the guest gives back (virtio 1.2, section 5.5).
 *
 * Queues: 0 inflate (pages that the guest does without), 1 deflate (pages that it uses again), 2 statistics, 3 free page reporting
 * (pages that are free just now). Pages that are given back are cut out of the memory file; the guest reads zeroes there when it
 * touches them again, and the host makes new ones, so deflating needs nothing.
 *
 * Cutting takes time, so the queues are handled on the default I/O thread. The configuration and the statistics timer are
 * guarded by the device lock, the rest by the queues' loop's. Properties as in QEMU; the guest's target is set by the
 * monitor (virtio_balloon.h). */
#include "devices/virtio/virtio_balloon.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "base/io_thread.h"
#include "base/log.h"
#include "devices/core/object.h"
#include "devices/virtio/virtio_pci.h"

enum {
    BALLOON_F_STATS = 1,
    BALLOON_F_DEFLATE_ON_OOM = 2,
    BALLOON_F_PAGE_POISON = 4,
    BALLOON_F_REPORTING = 5,
};
/* struct virtio_balloon_config, 5.5.4 */
enum { CONFIG_TARGET = 0, CONFIG_ACTUAL = 4, CONFIG_POISON = 12, CONFIG_SIZE = 16 };
enum { QUEUE_SIZE = 128, REPORTING_QUEUE_SIZE = 32, PFN_BATCH = 256 };

struct balloon_stat { /* packed */
    uint16_t tag;
    uint64_t value;
} __attribute__((packed));

struct virtio_balloon {
    struct virtio_pci virtio;
    struct io_thread *thread; /* NULL: main loop */
    struct event_loop *loop;
    struct virtqueue *inflate, *deflate, *stats, *reporting;
    struct timer poll;
    unsigned poll_seconds;

    /* Guarded by the loop's lock. */
    struct virtqueue_element element;       /* of the moment */
    struct virtqueue_element stats_element; /* kept until statistics are wanted */
    bool stats_kept;
    uint64_t stat_values[BALLOON_STAT_COUNT], stat_time;
};

static struct virtio_balloon *balloon_of(struct virtio_device *vdev)
{
    return container_of(vdev, struct virtio_balloon, virtio.vdev);
}

static struct device_env *env_of(struct virtio_balloon *balloon)
{
    return balloon->virtio.pci.device.env;
}

static uint32_t config_word(const struct virtio_balloon *balloon, unsigned offset)
{
    uint32_t value;

    memcpy(&value, balloon->virtio.vdev.config + offset, sizeof(value));
    return value;
}

/* ---- Giving memory back to the host ---- */

/* Whole pages of RAM at `host`, which show at gpa. */
static void cut_out(struct virtio_balloon *balloon, gpa_t gpa, const uint8_t *host, uint64_t size)
{
    struct physmem *mem = env_of(balloon)->mem;
    off_t offset = host - physmem_ram_base(mem);

    if (fallocate(physmem_ram_fd(mem), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, (off_t)size))
        log_warn("%s: memory cannot be given back: %s", balloon->virtio.pci.device.id, strerror(errno));
    else
        physmem_written(mem, gpa, size); /* they are zeroes now */
}

static void cut_out_pages(struct virtio_balloon *balloon, uint64_t first, unsigned count)
{
    gpa_t gpa = first << PAGE_SHIFT;
    uint8_t *host = physmem_ram_pointer(env_of(balloon)->mem, gpa, (uint64_t)count << PAGE_SHIFT);

    if (host) {
        cut_out(balloon, gpa, host, (uint64_t)count << PAGE_SHIFT);
        return;
    }
    for (unsigned i = 0; i < count; i++, gpa += PAGE_SIZE) {
        host = physmem_ram_pointer(env_of(balloon)->mem, gpa, PAGE_SIZE);
        if (host)
            cut_out(balloon, gpa, host, PAGE_SIZE);
        else
            log_event(guest_errors, "%s: page at 0x%llx is not RAM\n", balloon->virtio.pci.device.id,
                      (unsigned long long)gpa);
    }
}

/* Page numbers, 4 bytes each; neighbours are cut out together, whichever way they are sorted. */
static void inflate_element(struct virtio_balloon *balloon, const struct dma_list *list)
{
    uint32_t pages[PFN_BATCH];
    uint64_t offset = 0, got, first = 0;
    unsigned count = 0;

    while ((got = dma_list_copy_from(list, offset, pages, sizeof(pages)) / 4)) {
        for (unsigned i = 0; i < got; i++) {
            if (count && pages[i] == first + count) {
                count++;
            } else if (count && (uint64_t)pages[i] + 1 == first) {
                first--;
                count++;
            } else {
                if (count)
                    cut_out_pages(balloon, first, count);
                first = pages[i];
                count = 1;
            }
        }
        offset += got * 4;
    }
    if (count)
        cut_out_pages(balloon, first, count);
}

static void inflate_kicked(struct virtqueue *queue)
{
    struct virtio_balloon *balloon = balloon_of(virtqueue_device(queue));

    while (virtqueue_pop(queue, &balloon->element)) {
        inflate_element(balloon, &balloon->element.readable);
        virtqueue_push(queue, &balloon->element, 0);
    }
    virtqueue_notify(queue);
}

static void deflate_kicked(struct virtqueue *queue)
{
    struct virtio_balloon *balloon = balloon_of(virtqueue_device(queue));

    while (virtqueue_pop(queue, &balloon->element))
        virtqueue_push(queue, &balloon->element, 0);
    virtqueue_notify(queue);
}

/* The device-writable pieces are the free pages themselves (5.5.6.7). With a poison value they would have to come back with it. */
static void reporting_kicked(struct virtqueue *queue)
{
    struct virtio_balloon *balloon = balloon_of(virtqueue_device(queue));
    struct virtio_device *vdev = &balloon->virtio.vdev;

    while (virtqueue_pop(queue, &balloon->element)) {
        const struct dma_list *list = &balloon->element.writable;
        bool keep = virtio_has(vdev, BALLOON_F_PAGE_POISON) && config_word(balloon, CONFIG_POISON);

        for (unsigned i = 0; i < list->count && !keep; i++) {
            uint64_t skip = ALIGN_UP(list->gpa[i], PAGE_SIZE) - list->gpa[i], length = list->iov[i].iov_len;
            uint64_t size = skip < length ? ALIGN_DOWN(length - skip, PAGE_SIZE) : 0;

            if (size)
                cut_out(balloon, list->gpa[i] + skip, (uint8_t *)list->iov[i].iov_base + skip, size);
        }
        virtqueue_push(queue, &balloon->element, 0);
    }
    virtqueue_notify(queue);
}

/* ---- Statistics ---- */

static void read_stats(struct virtio_balloon *balloon)
{
    struct balloon_stat stat;

    memset(balloon->stat_values, 0xff, sizeof(balloon->stat_values));
    for (unsigned i = 0; i < 4 * BALLOON_STAT_COUNT; i++) {
        if (dma_list_copy_from(&balloon->stats_element.readable, i * sizeof(stat), &stat, sizeof(stat)) != sizeof(stat))
            break;
        if (stat.tag < BALLOON_STAT_COUNT)
            balloon->stat_values[stat.tag] = stat.value;
    }
    balloon->stat_time = clock_wall_ns() / 1000000000;
}

/* The driver's one buffer comes with the first figures; it goes back when new ones are wanted, and returns with them. */
static void stats_kicked(struct virtqueue *queue)
{
    struct virtio_balloon *balloon = balloon_of(virtqueue_device(queue));
    struct virtqueue_element *element = balloon->stats_kept ? &balloon->element : &balloon->stats_element;

    while (virtqueue_pop(queue, element)) {
        if (balloon->stats_kept) { /* a second one */
            virtqueue_push(queue, element, 0);
        } else {
            balloon->stats_kept = true;
            read_stats(balloon);
            element = &balloon->element;
        }
    }
    virtqueue_notify(queue);
}

static void poll_stats(void *opaque)
{
    struct virtio_balloon *balloon = opaque;
    struct device_env *env = env_of(balloon);

    event_loop_lock(balloon->loop);
    if (balloon->stats_kept) {
        balloon->stats_kept = false;
        virtqueue_push(balloon->stats, &balloon->stats_element, 0);
        virtqueue_notify(balloon->stats);
    }
    event_loop_unlock(balloon->loop);
    if (balloon->poll_seconds)
        timer_arm(&balloon->poll, clock_now_ns(env->clock) + balloon->poll_seconds * 1000000000ull);
}

/* ---- For the monitor ---- */

void virtio_balloon_set_target(struct virtio_balloon *balloon, uint64_t bytes)
{
    uint64_t ram = physmem_ram_size(env_of(balloon)->mem), away = ram - MIN(bytes, ram);

    virtio_config_set(&balloon->virtio.vdev, CONFIG_TARGET, 4, MIN(away >> PAGE_SHIFT, UINT32_MAX));
    virtio_config_changed(&balloon->virtio.vdev);
}

uint64_t virtio_balloon_guest_bytes(const struct virtio_balloon *balloon)
{
    uint64_t ram = physmem_ram_size(balloon->virtio.pci.device.env->mem);

    return ram - MIN((uint64_t)config_word(balloon, CONFIG_ACTUAL) << PAGE_SHIFT, ram);
}

void virtio_balloon_poll_stats(struct virtio_balloon *balloon, unsigned seconds)
{
    balloon->poll_seconds = seconds;
    timer_disarm(&balloon->poll);
    if (seconds)
        poll_stats(balloon);
}

uint64_t virtio_balloon_stats(struct virtio_balloon *balloon, uint64_t values[BALLOON_STAT_COUNT])
{
    uint64_t time;

    event_loop_lock(balloon->loop);
    memcpy(values, balloon->stat_values, sizeof(balloon->stat_values));
    time = balloon->stat_time;
    event_loop_unlock(balloon->loop);
    return time;
}

/* ---- The class ---- */

static void balloon_config_write(struct virtio_device *vdev, unsigned offset, unsigned size, uint32_t value)
{
    bool actual = offset >= CONFIG_ACTUAL && offset + size <= CONFIG_ACTUAL + 4;
    bool poison =
        offset >= CONFIG_POISON && offset + size <= CONFIG_POISON + 4 && virtio_has(vdev, BALLOON_F_PAGE_POISON);

    if (!actual && !poison)
        return;
    event_loop_lock(balloon_of(vdev)->loop);
    virtio_config_set(vdev, offset, size, value);
    event_loop_unlock(balloon_of(vdev)->loop);
}

static void balloon_reset(struct virtio_device *vdev)
{
    struct virtio_balloon *balloon = balloon_of(vdev);

    event_loop_lock(balloon->loop);
    balloon->stats_kept = false;
    virtio_config_set(vdev, CONFIG_ACTUAL, 4, 0);
    virtio_config_set(vdev, CONFIG_POISON, 4, 0);
    event_loop_unlock(balloon->loop);
}

static const struct virtio_class balloon_class = {
    .name = "virtio-balloon",
    .device_id = 5,
    .reset = balloon_reset,
    .config_write = balloon_config_write,
};

/* ---- Life ---- */

static int read_properties(struct virtio_balloon *balloon, struct option_list *options, struct error *err)
{
    uint64_t *features = &balloon->virtio.vdev.host_features;
    bool oom, reporting, hint, poison;
    int ret;

    if ((ret = options_get_bool(options, "deflate-on-oom", false, &oom, err)) ||
        (ret = options_get_bool(options, "free-page-reporting", false, &reporting, err)) ||
        (ret = options_get_bool(options, "free-page-hint", false, &hint, err)) ||
        (ret = options_get_bool(options, "page-poison", true, &poison, err)))
        return ret;
    if (hint)
        return error_set(err, EINVAL, "free-page-hint= is for migration, which is not there yet");
    *features |= BIT(BALLOON_F_STATS) | (oom ? BIT(BALLOON_F_DEFLATE_ON_OOM) : 0) |
                 (reporting ? BIT(BALLOON_F_REPORTING) : 0) | (poison ? BIT(BALLOON_F_PAGE_POISON) : 0);
    return 0;
}

static struct virtqueue *add_queue(struct virtio_balloon *balloon, unsigned size, virtqueue_handler *handler,
                                   struct error *err)
{
    struct virtqueue *queue = virtio_add_queue(&balloon->virtio.vdev, size, handler, 0, err);

    return queue && balloon->thread && virtqueue_set_io_thread(queue, balloon->thread, err) ? NULL : queue;
}

static int add_queues(struct virtio_balloon *balloon, struct error *err)
{
    struct device_env *env = env_of(balloon);

    balloon->loop = env->loop;
    if (env->objects) {
        balloon->thread = object_default_io_thread(env->objects, err);
        if (!balloon->thread)
            return -EAGAIN;
        balloon->loop = io_thread_loop(balloon->thread);
    }
    if (!(balloon->inflate = add_queue(balloon, QUEUE_SIZE, inflate_kicked, err)) ||
        !(balloon->deflate = add_queue(balloon, QUEUE_SIZE, deflate_kicked, err)) ||
        !(balloon->stats = add_queue(balloon, QUEUE_SIZE, stats_kicked, err)))
        return -ENOMEM;
    if (balloon->virtio.vdev.host_features & BIT(BALLOON_F_REPORTING)) {
        balloon->reporting = add_queue(balloon, REPORTING_QUEUE_SIZE, reporting_kicked, err);
        if (!balloon->reporting)
            return -ENOMEM;
    }
    virtqueue_element_init(&balloon->element, balloon->inflate);
    virtqueue_element_init(&balloon->stats_element, balloon->stats);
    return 0;
}

static void balloon_destroy(struct device *device)
{
    struct virtio_balloon *balloon = (struct virtio_balloon *)device;

    timer_disarm(&balloon->poll);
    virtio_pci_destroy(device);
    virtqueue_element_free(&balloon->element);
    virtqueue_element_free(&balloon->stats_element);
}

static int balloon_init(struct device *device, struct option_list *options, struct error *err)
{
    struct virtio_balloon *balloon = (struct virtio_balloon *)device;
    struct virtio_pci_config config = { .class_code = 0x00ff00, .transitional_id = 0x1002 };
    int ret;

    balloon->loop = device->env->loop;
    timer_init(&balloon->poll, device->env->loop, poll_stats, balloon);
    memset(balloon->stat_values, 0xff, sizeof(balloon->stat_values));
    ret = virtio_pci_begin(&balloon->virtio, &balloon_class, options, err);
    ret = ret ?: read_properties(balloon, options, err);
    ret = ret ?: add_queues(balloon, err);
    if (!ret) {
        balloon->virtio.vdev.config_size = CONFIG_SIZE;
        config.vectors = balloon->virtio.vdev.queue_count + 1;
        ret = virtio_pci_attach(&balloon->virtio, &config, options, err);
    }
    if (ret)
        balloon_destroy(device);
    return ret;
}

/* The statistics buffer is put back before saving: the driver's next figures fill it again. */
static void balloon_pre_save(void *owner)
{
    struct virtio_balloon *balloon = owner;

    event_loop_lock(balloon->loop);
    if (balloon->stats_kept)
        virtqueue_unpop(balloon->stats, &balloon->stats_element);
    balloon->stats_kept = false;
    event_loop_unlock(balloon->loop);
    virtio_pci_pre_save(owner);
}

static int balloon_post_load(void *owner, struct error *err)
{
    struct virtio_balloon *balloon = owner;

    event_loop_lock(balloon->loop);
    balloon->stats_kept = false;
    event_loop_unlock(balloon->loop);
    return virtio_pci_post_load(owner, err);
}

static const struct state_field balloon_fields[] = {
    VIRTIO_PCI_STATE(struct virtio_balloon, virtio),
    STATE_ARRAY(struct virtio_balloon, virtio.vdev.config),
    STATE_END,
};
static const struct state_table balloon_state = {
    .name = "virtio-balloon",
    .version = 1,
    .fields = balloon_fields,
    .pre_save = balloon_pre_save,
    .post_load = balloon_post_load,
};

VIRTIO_PCI_TYPES(
    virtio_balloon, "virtio-balloon", .size = sizeof(struct virtio_balloon), .init = balloon_init,
    .reset = virtio_pci_reset, .destroy = balloon_destroy, .state = &balloon_state,
    .description = "memory that the guest gives back",
    .properties = "deflate-on-oom=<bool>,free-page-reporting=<bool>,page-poison=<bool>," VIRTIO_PCI_PROPERTIES);

struct virtio_balloon *virtio_balloon_of(struct device *device)
{
    return device->type->init == balloon_init ? (struct virtio_balloon *)device : NULL;
}
