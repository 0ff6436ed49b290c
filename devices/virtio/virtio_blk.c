/* virtio-blk: the device, its configuration space, its properties (virtio 1.2, section 5.2). Requests are in
 * virtio_blk_request.c. The names of properties are QEMU's; werror= and rerror= belong to the drive.
 *
 * All queues are handled on one I/O thread: iothread=, or the default one that such devices share; only where the machine has no
 * objects (tests) on the main loop. The drive completes requests on the same loop. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "devices/board/machine.h"
#include "devices/core/object.h"
#include "devices/virtio/virtio_blk_internal.h"

/* struct virtio_blk_config, 5.2.4 */
enum {
    CONFIG_CAPACITY = 0,
    CONFIG_SEG_MAX = 12,
    CONFIG_CYLINDERS = 16,
    CONFIG_HEADS = 18,
    CONFIG_SECTORS = 19,
    CONFIG_BLK_SIZE = 20,
    CONFIG_PHYSICAL_EXPONENT = 24,
    CONFIG_MIN_IO = 26,
    CONFIG_OPT_IO = 28,
    CONFIG_WRITEBACK = 32,
    CONFIG_NUM_QUEUES = 34,
    CONFIG_MAX_DISCARD_SECTORS = 36,
    CONFIG_MAX_DISCARD_SEG = 40,
    CONFIG_DISCARD_ALIGNMENT = 44,
    CONFIG_MAX_ZEROES_SECTORS = 48,
    CONFIG_MAX_ZEROES_SEG = 52,
    CONFIG_ZEROES_UNMAP = 56,
    CONFIG_SIZE = 60,
};
#define BLOCK_SIZE_MAX (2u << 20)

static struct virtio_blk *blk_of(struct virtio_device *vdev)
{
    return container_of(vdev, struct virtio_blk, virtio.vdev);
}

static bool offers(const struct virtio_blk *blk, unsigned feature)
{
    return blk->virtio.vdev.host_features >> feature & 1;
}

static void lock_loop(struct virtio_blk *blk)
{
    event_loop_lock(blk->loop);
}

static void unlock_loop(struct virtio_blk *blk)
{
    event_loop_unlock(blk->loop);
}

/* ---- Configuration space ---- */

static void set_capacity(struct virtio_blk *blk)
{
    struct virtio_device *vdev = &blk->virtio.vdev;
    uint64_t size, cylinders;

    lock_loop(blk);
    size = blk->size = block_info(blk->block)->size;
    unlock_loop(blk);
    cylinders = size / BLK_SECTOR / (16 * 63);
    virtio_config_set(vdev, CONFIG_CAPACITY, 8, size / BLK_SECTOR);
    virtio_config_set(vdev, CONFIG_CYLINDERS, 2, MIN(MAX(cylinders, 2u), 16383u));
}

static void fill_config(struct virtio_blk *blk)
{
    struct virtio_device *vdev = &blk->virtio.vdev;
    uint32_t block = blk->logical_block_size;

    vdev->config_size = CONFIG_SIZE;
    set_capacity(blk);
    virtio_config_set(vdev, CONFIG_SEG_MAX, 4, blk->queue_size - 2);
    virtio_config_set(vdev, CONFIG_HEADS, 1, 16);
    virtio_config_set(vdev, CONFIG_SECTORS, 1, 63);
    virtio_config_set(vdev, CONFIG_BLK_SIZE, 4, block);
    virtio_config_set(vdev, CONFIG_PHYSICAL_EXPONENT, 1, (unsigned)__builtin_ctz(blk->physical_block_size / block));
    virtio_config_set(vdev, CONFIG_MIN_IO, 2, blk->min_io_size / block);
    virtio_config_set(vdev, CONFIG_OPT_IO, 4, blk->opt_io_size / block);
    virtio_config_set(vdev, CONFIG_WRITEBACK, 1, blk->write_cache);
    virtio_config_set(vdev, CONFIG_NUM_QUEUES, 2, blk->queue_count);
    if (offers(blk, VIRTIO_BLK_F_DISCARD)) {
        virtio_config_set(vdev, CONFIG_MAX_DISCARD_SECTORS, 4, BLK_MAX_ZERO_SECTORS);
        virtio_config_set(vdev, CONFIG_MAX_DISCARD_SEG, 4, 1);
        virtio_config_set(vdev, CONFIG_DISCARD_ALIGNMENT, 4, block / BLK_SECTOR);
    }
    if (offers(blk, VIRTIO_BLK_F_WRITE_ZEROES)) {
        virtio_config_set(vdev, CONFIG_MAX_ZEROES_SECTORS, 4, BLK_MAX_ZERO_SECTORS);
        virtio_config_set(vdev, CONFIG_MAX_ZEROES_SEG, 4, 1);
        virtio_config_set(vdev, CONFIG_ZEROES_UNMAP, 1, 1);
    }
}

static void set_write_cache(struct virtio_blk *blk, bool enabled)
{
    blk->write_cache = enabled;
    virtio_config_set(&blk->virtio.vdev, CONFIG_WRITEBACK, 1, enabled);
    lock_loop(blk);
    block_set_write_cache(blk->block, enabled);
    unlock_loop(blk);
}

static void blk_config_write(struct virtio_device *vdev, unsigned offset, unsigned size, uint32_t value)
{
    (void)size;
    if (offset == CONFIG_WRITEBACK && virtio_has(vdev, VIRTIO_BLK_F_CONFIG_WCE))
        set_write_cache(blk_of(vdev), value & 1);
}

/* Resized: on the drive's loop. The configuration changes with the device lock held. */
static void announce_medium(void *opaque)
{
    struct virtio_blk *blk = opaque;

    set_capacity(blk);
    virtio_config_changed(&blk->virtio.vdev);
}

static void medium_changed(void *opaque)
{
    struct virtio_blk *blk = opaque;

    if (blk->thread)
        io_thread_defer(blk->thread, &blk->medium_changed);
    else
        announce_medium(blk);
}

/* ---- The class ---- */

/* Without the switch, a driver that does not flush gets a disk that needs none (5.2.5.2). */
static void blk_started(struct virtio_device *vdev)
{
    if (!virtio_has(vdev, VIRTIO_BLK_F_CONFIG_WCE))
        set_write_cache(blk_of(vdev), virtio_has(vdev, VIRTIO_BLK_F_FLUSH) && blk_of(vdev)->initial_write_cache);
}

static void blk_drain(struct virtio_device *vdev, struct virtqueue *queue)
{
    struct virtio_blk *blk = blk_of(vdev);

    (void)queue;
    if (!blk->block)
        return;
    lock_loop(blk);
    block_drain(blk->block);
    unlock_loop(blk);
}

static void blk_reset(struct virtio_device *vdev)
{
    if (blk_of(vdev)->block)
        set_write_cache(blk_of(vdev), blk_of(vdev)->initial_write_cache);
}

static const struct virtio_class blk_class = {
    .name = "virtio-blk",
    .device_id = 2,
    .started = blk_started,
    .reset = blk_reset,
    .drain = blk_drain,
    .config_write = blk_config_write,
};

/* ---- Properties ---- */

static int read_block_size(struct option_list *options, const char *name, uint32_t fallback, uint32_t *size,
                           struct error *err)
{
    uint64_t value;
    int ret = options_get_size(options, name, 1, fallback, &value, err);

    if (ret)
        return ret;
    if (value < BLK_SECTOR || value > BLOCK_SIZE_MAX || (value & (value - 1)))
        return error_set(err, EINVAL, "%s=: a power of two from 512 to 2 MiB", name);
    *size = (uint32_t)value;
    return 0;
}

static int read_sizes(struct virtio_blk *blk, struct option_list *options, struct error *err)
{
    const struct block_info *info = block_info(blk->block);
    uint64_t min_io, opt_io;
    int ret;

    if ((ret =
             read_block_size(options, "logical_block_size", info->logical_block_size, &blk->logical_block_size, err)) ||
        (ret = read_block_size(options, "physical_block_size", MAX(info->physical_block_size, blk->logical_block_size),
                               &blk->physical_block_size, err)) ||
        (ret = options_get_size(options, "min_io_size", 1, 0, &min_io, err)) ||
        (ret = options_get_size(options, "opt_io_size", 1, 0, &opt_io, err)))
        return ret;
    if (blk->logical_block_size > blk->physical_block_size)
        return error_set(err, EINVAL, "logical_block_size= is larger than physical_block_size=");
    if (min_io / blk->logical_block_size > UINT16_MAX || min_io % blk->logical_block_size)
        return error_set(err, EINVAL, "min_io_size=: a multiple of the logical block size, up to 65535 times that");
    if (opt_io > UINT32_MAX || opt_io % blk->logical_block_size)
        return error_set(err, EINVAL, "opt_io_size=: a multiple of the logical block size, less than 4 GiB");
    blk->min_io_size = (uint32_t)min_io;
    blk->opt_io_size = (uint32_t)opt_io;
    return 0;
}

static int read_queues(struct virtio_blk *blk, struct option_list *options, struct error *err)
{
    uint64_t queues, size, bootindex;
    int ret;

    if ((ret = options_get_u64(options, "num-queues", 1, &queues, err)) ||
        (ret = options_get_u64(options, "queue-size", BLK_QUEUE_SIZE, &size, err)) ||
        (ret = options_get_u64(options, "bootindex", 0, &bootindex, err)))
        return ret;
    if (queues == 0 || queues > BLK_QUEUES_MAX)
        return error_set(err, EINVAL, "num-queues=: 1 to %u", BLK_QUEUES_MAX);
    if (size < 4 || size > VIRTQUEUE_SIZE_MAX || (size & (size - 1)))
        return error_set(err, EINVAL, "queue-size=: a power of two from 4 to %u", VIRTQUEUE_SIZE_MAX);
    if (bootindex > INT32_MAX)
        return error_set(err, EINVAL, "bootindex=: 0 to %d", INT32_MAX);
    blk->queue_count = (unsigned)queues;
    blk->queue_size = (unsigned)size;
    blk->bootindex = options_get(options, "bootindex") ? (int)bootindex : -1;
    return 0;
}

static int read_write_cache(struct virtio_blk *blk, struct option_list *options, struct error *err)
{
    const char *text = options_get(options, "write-cache");
    bool on = block_info(blk->block)->write_cache;
    int ret;

    if (text && strcmp(text, "auto")) {
        ret = options_get_bool(options, "write-cache", on, &on, err);
        if (ret)
            return ret;
    }
    blk->initial_write_cache = on;
    blk->write_cache = on;
    return 0;
}

static int read_features(struct virtio_blk *blk, struct option_list *options, struct error *err)
{
    uint64_t features = BIT(VIRTIO_BLK_F_SEG_MAX) | BIT(VIRTIO_BLK_F_GEOMETRY) | BIT(VIRTIO_BLK_F_BLK_SIZE) |
                        BIT(VIRTIO_BLK_F_TOPOLOGY) | BIT(VIRTIO_BLK_F_FLUSH);
    bool config_wce, discard, write_zeroes;
    int ret;

    if ((ret = options_get_bool(options, "config-wce", true, &config_wce, err)) ||
        (ret = options_get_bool(options, "discard", true, &discard, err)) ||
        (ret = options_get_bool(options, "write-zeroes", true, &write_zeroes, err)))
        return ret;
    features |= config_wce ? BIT(VIRTIO_BLK_F_CONFIG_WCE) : 0;
    features |= discard ? BIT(VIRTIO_BLK_F_DISCARD) : 0;
    features |= write_zeroes ? BIT(VIRTIO_BLK_F_WRITE_ZEROES) : 0;
    features |= blk->queue_count > 1 ? BIT(VIRTIO_BLK_F_MQ) : 0;
    features |= block_info(blk->block)->read_only ? BIT(VIRTIO_BLK_F_RO) : 0;
    blk->virtio.vdev.host_features |= features;
    return 0;
}

static int choose_thread(struct virtio_blk *blk, struct option_list *options, struct error *err)
{
    struct device_env *env = blk->virtio.pci.device.env;
    const char *id = options_get(options, "iothread");

    blk->loop = env->loop;
    if (!id && !env->objects)
        return 0;
    blk->thread = id ? object_find(env->objects, id, "iothread", err) : object_default_io_thread(env->objects, err);
    if (!blk->thread)
        return -ENODEV;
    blk->loop = io_thread_loop(blk->thread);
    return 0;
}

static int claim_drive(struct virtio_blk *blk, struct option_list *options, struct error *err)
{
    struct device *device = &blk->virtio.pci.device;
    const char *id = options_get(options, "drive"), *serial = options_get(options, "serial");
    struct block *block = id && device->env->blocks ? block_find(device->env->blocks, id) : NULL;
    int ret;

    if (!id)
        return error_set(err, EINVAL, "drive= is needed: the id of a -drive or -blockdev");
    if (!block)
        return error_set(err, ENODEV, "drive=%s: there is no such drive", id);
    if (options_get(options, "werror") || options_get(options, "rerror"))
        return error_set(err, EINVAL, "werror= and rerror= are taken with -drive, not here");
    if (!serial)
        serial = block_info(block)->serial;
    if (strlen(serial) > BLK_ID_SIZE)
        return error_set(err, EINVAL, "serial=%s: at most %d characters", serial, BLK_ID_SIZE);
    if (!block_info(block)->size)
        return error_set(err, EINVAL, "drive=%s: a virtio disk cannot be empty", id);
    strcpy(blk->serial, serial);
    lock_loop(blk);
    ret = block_claim(block, device->id, blk->loop, err);
    if (!ret)
        block_set_medium_handler(block, medium_changed, blk);
    unlock_loop(blk);
    if (!ret)
        blk->block = block;
    return ret;
}

/* ---- Life ---- */

static void release_drive(struct virtio_blk *blk)
{
    if (!blk->block)
        return;
    lock_loop(blk);
    block_set_medium_handler(blk->block, NULL, NULL);
    block_release(blk->block);
    unlock_loop(blk);
    if (blk->thread)
        io_thread_cancel(blk->thread, &blk->medium_changed);
    virtio_blk_free_requests(blk);
    blk->block = NULL;
}

static void blk_destroy(struct device *device)
{
    struct virtio_blk *blk = (struct virtio_blk *)device;

    event_loop_lock(device->env->loop);
    virtio_pci_destroy(device); /* with a reset, so nothing is under way */
    release_drive(blk);
    event_loop_unlock(device->env->loop);
}

static int add_queues(struct virtio_blk *blk, struct error *err)
{
    for (unsigned i = 0; i < blk->queue_count; i++) {
        struct virtqueue *queue = virtio_add_queue(&blk->virtio.vdev, blk->queue_size, virtio_blk_handle, 0, err);
        int ret = !queue ? -ENOMEM : blk->thread ? virtqueue_set_io_thread(queue, blk->thread, err) : 0;

        if (ret)
            return ret;
    }
    return 0;
}

static int blk_init(struct device *device, struct option_list *options, struct error *err)
{
    struct virtio_blk *blk = (struct virtio_blk *)device;
    struct virtio_pci_config config = { .class_code = 0x010000, .transitional_id = 0x1001 };
    int ret;

    blk->medium_changed = (struct io_deferred){ .fn = announce_medium, .opaque = blk };
    ret = choose_thread(blk, options, err);
    ret = ret ?: claim_drive(blk, options, err);
    ret = ret ?: read_sizes(blk, options, err);
    ret = ret ?: read_queues(blk, options, err);
    ret = ret ?: read_write_cache(blk, options, err);
    ret = ret ?: virtio_pci_begin(&blk->virtio, &blk_class, options, err);
    ret = ret ?: read_features(blk, options, err);
    ret = ret ?: add_queues(blk, err);
    if (!ret) {
        fill_config(blk);
        set_write_cache(blk, blk->initial_write_cache);
        config.vectors = blk->queue_count + 1;
        ret = virtio_pci_attach(&blk->virtio, &config, options, err);
    }
    if (ret)
        blk_destroy(device);
    return ret;
}

static int blk_post_load(void *owner, struct error *err)
{
    struct virtio_blk *blk = owner;

    set_write_cache(blk, blk->write_cache & 1);
    return virtio_pci_post_load(owner, err);
}

static const struct state_field blk_fields[] = {
    VIRTIO_PCI_STATE(struct virtio_blk, virtio),
    STATE_FIELD(struct virtio_blk, write_cache),
    STATE_END,
};
static const struct state_table blk_state = {
    .name = "virtio-blk",
    .version = 1,
    .fields = blk_fields,
    .pre_save = virtio_pci_pre_save,
    .post_load = blk_post_load,
};

VIRTIO_PCI_TYPES(virtio_blk, "virtio-blk", .size = sizeof(struct virtio_blk), .init = blk_init,
                 .reset = virtio_pci_reset, .destroy = blk_destroy, .state = &blk_state, .description = "virtio disk",
                 .properties = "drive=<str>,iothread=<id>,num-queues=<uint16>,queue-size=<uint16>,serial=<str>,"
                               "logical_block_size=<size>,physical_block_size=<size>,min_io_size=<size>,"
                               "opt_io_size=<size>,write-cache=<on|off|auto>,config-wce=<bool>,discard=<bool>,"
                               "write-zeroes=<bool>,bootindex=<int32>," VIRTIO_PCI_PROPERTIES);

/* ---- For the frontend ---- */

int virtio_blk_add_drives(struct board *board, struct error *err)
{
    struct block *block;

    while (board->env.blocks && (block = block_next_unclaimed(board->env.blocks, BLOCK_IF_VIRTIO))) {
        const char *id = block_info(block)->id;
        char option[300], *to = option + sprintf(option, "virtio-blk-pci,drive=");
        int ret;

        for (; *id && to < option + sizeof(option) - 3; id++) {
            *to++ = *id;
            if (*id == ',')
                *to++ = ',';
        }
        *to = '\0';
        ret = board_add_device(board, option, err);
        if (ret)
            return error_prefix(err, ret, "-drive if=virtio");
    }
    return 0;
}

bool virtio_blk_boot_entry(const struct device *device, int *bootindex, char *path, size_t size)
{
    const struct virtio_blk *blk = (const struct virtio_blk *)device;
    uint8_t devfn;

    if (device->type->init != blk_init || blk->bootindex < 0)
        return false;
    devfn = blk->virtio.pci.devfn;
    *bootindex = blk->bootindex;
    if (PCI_FUNCTION(devfn))
        snprintf(path, size, "/pci@i0cf8/scsi@%x,%x/disk@0,0", PCI_SLOT(devfn), PCI_FUNCTION(devfn));
    else
        snprintf(path, size, "/pci@i0cf8/scsi@%x/disk@0,0", PCI_SLOT(devfn));
    return true;
}
