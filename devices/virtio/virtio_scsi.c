/* virtio-scsi: a SCSI controller (virtio 1.2, section 5.6); names and options as QEMU's virtio-scsi-pci.
 *
 * All queues are handled on one I/O thread: iothread=, or the one that such devices share; only where the machine has no objects
 * (tests) on the main loop. The bus and its drives belong to the same loop. Lock order: device lock, loop's lock. */
#include "devices/virtio/virtio_scsi.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/io_thread.h"
#include "devices/core/object.h"

/* struct virtio_scsi_config, 5.6.4 */
enum {
    CONFIG_NUM_QUEUES = 0,
    CONFIG_SEG_MAX = 4,
    CONFIG_MAX_SECTORS = 8,
    CONFIG_CMD_PER_LUN = 12,
    CONFIG_EVENT_SIZE = 16,
    CONFIG_SENSE_SIZE = 20,
    CONFIG_CDB_SIZE = 24,
    CONFIG_MAX_CHANNEL = 28,
    CONFIG_MAX_TARGET = 30,
    CONFIG_MAX_LUN = 32,
    CONFIG_SIZE = 36,
};
#define EVENT_SIZE         16
#define QUEUE_SIZE_DEFAULT 256

static void lock_loop(struct virtio_scsi *vscsi)
{
    event_loop_lock(vscsi->loop);
}

static void unlock_loop(struct virtio_scsi *vscsi)
{
    event_loop_unlock(vscsi->loop);
}

/* ---- Configuration ---- */

static void set_sizes(struct virtio_scsi *vscsi, uint32_t cdb_size, uint32_t sense_size)
{
    struct virtio_device *vdev = &vscsi->virtio.vdev;

    lock_loop(vscsi);
    vscsi->cdb_size = MIN(cdb_size, VSCSI_SIZE_MAX);
    vscsi->sense_size = MIN(sense_size, VSCSI_SIZE_MAX);
    virtio_config_set(vdev, CONFIG_CDB_SIZE, 4, vscsi->cdb_size);
    virtio_config_set(vdev, CONFIG_SENSE_SIZE, 4, vscsi->sense_size);
    unlock_loop(vscsi);
}

static void fill_config(struct virtio_scsi *vscsi)
{
    struct virtio_device *vdev = &vscsi->virtio.vdev;

    vdev->config_size = CONFIG_SIZE;
    virtio_config_set(vdev, CONFIG_NUM_QUEUES, 4, vscsi->queue_count);
    virtio_config_set(vdev, CONFIG_SEG_MAX, 4, vscsi->queue_size - 2);
    virtio_config_set(vdev, CONFIG_MAX_SECTORS, 4, vscsi->max_sectors);
    virtio_config_set(vdev, CONFIG_CMD_PER_LUN, 4, vscsi->cmd_per_lun);
    virtio_config_set(vdev, CONFIG_EVENT_SIZE, 4, EVENT_SIZE);
    virtio_config_set(vdev, CONFIG_MAX_TARGET, 2, VSCSI_MAX_TARGET);
    virtio_config_set(vdev, CONFIG_MAX_LUN, 4, VSCSI_MAX_LUN);
    set_sizes(vscsi, VSCSI_CDB_DEFAULT, VSCSI_SENSE_DEFAULT);
}

static void config_write(struct virtio_device *vdev, unsigned offset, unsigned size, uint32_t value)
{
    struct virtio_scsi *vscsi = vscsi_of(vdev);

    if (size == 4 && offset == CONFIG_SENSE_SIZE)
        set_sizes(vscsi, vscsi->cdb_size, value);
    else if (size == 4 && offset == CONFIG_CDB_SIZE)
        set_sizes(vscsi, value, vscsi->sense_size);
}

/* ---- The class ---- */

static void drain(struct virtio_device *vdev, struct virtqueue *queue)
{
    struct virtio_scsi *vscsi = vscsi_of(vdev);

    (void)queue;
    lock_loop(vscsi);
    for (struct scsi_device *device = scsi_bus_next(&vscsi->bus, NULL); device;
         device = scsi_bus_next(&vscsi->bus, device))
        block_drain(scsi_device_block(device));
    unlock_loop(vscsi);
}

static void reset(struct virtio_device *vdev)
{
    struct virtio_scsi *vscsi = vscsi_of(vdev);

    lock_loop(vscsi);
    vscsi_drop_functions(vscsi);
    vscsi->events_missed = false;
    for (struct scsi_device *device = scsi_bus_next(&vscsi->bus, NULL); device;
         device = scsi_bus_next(&vscsi->bus, device))
        scsi_device_reset(device);
    unlock_loop(vscsi);
    set_sizes(vscsi, VSCSI_CDB_DEFAULT, VSCSI_SENSE_DEFAULT);
}

static const struct virtio_class vscsi_class = {
    .name = "virtio-scsi",
    .device_id = 8,
    .reset = reset,
    .drain = drain,
    .config_write = config_write,
};
static const struct scsi_bus_ops bus_ops = {
    .attached = vscsi_attached,
    .detached = vscsi_detached,
    .changed = vscsi_changed,
};

/* ---- Set-up ---- */

static int number_option(struct option_list *options, const char *name, uint64_t fallback, uint64_t low, uint64_t high,
                         uint32_t *out, struct error *err)
{
    uint64_t value;
    int ret = options_get_u64(options, name, fallback, &value, err);

    if (ret)
        return ret;
    if (value < low || value > high)
        return error_set(err, EINVAL, "%s=%llu: must be %llu to %llu", name, (unsigned long long)value,
                         (unsigned long long)low, (unsigned long long)high);
    *out = (uint32_t)value;
    return 0;
}

static int read_properties(struct virtio_scsi *vscsi, struct option_list *options, struct error *err)
{
    int ret;

    if ((ret = number_option(options, "num_queues", 1, 1, VSCSI_QUEUES_MAX, &vscsi->queue_count, err)) ||
        (ret = number_option(options, "virtqueue_size", QUEUE_SIZE_DEFAULT, 8, VIRTQUEUE_SIZE_MAX, &vscsi->queue_size,
                             err)) ||
        (ret = number_option(options, "max_sectors", 0xffff, 1, UINT32_MAX, &vscsi->max_sectors, err)) ||
        (ret = number_option(options, "cmd_per_lun", 128, 1, UINT32_MAX, &vscsi->cmd_per_lun, err)) ||
        (ret = options_get_bool(options, "hotplug", true, &vscsi->hotplug, err)) ||
        (ret = options_get_bool(options, "param_change", true, &vscsi->param_change, err)))
        return ret;
    if (vscsi->queue_size & (vscsi->queue_size - 1))
        return error_set(err, EINVAL, "virtqueue_size=%u: must be a power of two", vscsi->queue_size);
    return 0;
}

static int choose_thread(struct virtio_scsi *vscsi, struct option_list *options, struct error *err)
{
    struct device_env *env = vscsi->virtio.pci.device.env;
    const char *id = options_get(options, "iothread");

    vscsi->loop = env->loop;
    if (!env->objects)
        return id ? error_set(err, ENODEV, "iothread=%s: there is no such object", id) : 0;
    vscsi->thread = id ? object_find(env->objects, id, "iothread", err) : object_default_io_thread(env->objects, err);
    if (!vscsi->thread)
        return -ENODEV;
    vscsi->loop = io_thread_loop(vscsi->thread);
    return 0;
}

static struct virtqueue *add_queue(struct virtio_scsi *vscsi, virtqueue_handler *handler, struct error *err)
{
    struct virtqueue *queue = virtio_add_queue(&vscsi->virtio.vdev, vscsi->queue_size, handler, 0, err);

    if (queue && vscsi->thread && virtqueue_set_io_thread(queue, vscsi->thread, err))
        return NULL;
    return queue;
}

static int add_queues(struct virtio_scsi *vscsi, struct error *err)
{
    vscsi->control = add_queue(vscsi, vscsi_handle_control, err);
    vscsi->events = vscsi->control ? add_queue(vscsi, vscsi_handle_events, err) : NULL;
    if (!vscsi->events)
        return -ENOMEM;
    for (unsigned i = 0; i < vscsi->queue_count; i++) {
        if (!add_queue(vscsi, vscsi_handle_requests, err))
            return -ENOMEM;
    }
    return 0;
}

static int add_bus(struct virtio_scsi *vscsi, struct error *err)
{
    int ret;

    vscsi->bus.max_channel = 0;
    vscsi->bus.max_target = VSCSI_MAX_TARGET;
    vscsi->bus.max_lun = VSCSI_MAX_LUN;
    ret = scsi_bus_init(&vscsi->bus, &vscsi->virtio.pci.device, vscsi->loop, &bus_ops, vscsi, err);
    vscsi->bus_added = !ret;
    vscsi->bus.devfn = vscsi->virtio.pci.devfn;
    return ret;
}

static void destroy_device(struct device *device)
{
    struct virtio_scsi *vscsi = (struct virtio_scsi *)device;

    virtio_pci_destroy(device); /* with a reset, so nothing is under way */
    vscsi->events = NULL;
    if (vscsi->bus_added)
        scsi_bus_destroy(&vscsi->bus);
    vscsi_free_requests(vscsi);
}

static int init_device(struct device *device, struct option_list *options, struct error *err)
{
    struct virtio_scsi *vscsi = (struct virtio_scsi *)device;
    struct virtio_pci_config config = { .class_code = 0x010000, .transitional_id = 0x1004 };
    int ret = read_properties(vscsi, options, err);

    if (!ret)
        ret = choose_thread(vscsi, options, err);
    if (ret)
        return ret;
    ret = virtio_pci_begin(&vscsi->virtio, &vscsi_class, options, err);
    if (!ret)
        ret = add_queues(vscsi, err);
    if (!ret) {
        vscsi->virtio.vdev.host_features |=
            (vscsi->hotplug ? BIT(VSCSI_F_HOTPLUG) : 0) | (vscsi->param_change ? BIT(VSCSI_F_CHANGE) : 0);
        fill_config(vscsi);
        config.vectors = vscsi->queue_count + 3;
        ret = virtio_pci_attach(&vscsi->virtio, &config, options, err);
    }
    if (!ret)
        ret = add_bus(vscsi, err);
    if (ret)
        destroy_device(device);
    return ret;
}

/* ---- State ---- Drives are drained first, so no request is under way. */

static int post_load(void *owner, struct error *err)
{
    struct virtio_scsi *vscsi = owner;

    device_load_bool(&vscsi->events_missed);
    set_sizes(vscsi, vscsi->cdb_size, vscsi->sense_size);
    return virtio_pci_post_load(owner, err);
}

static const struct state_field vscsi_fields[] = {
    VIRTIO_PCI_STATE(struct virtio_scsi, virtio),
    STATE_FIELD(struct virtio_scsi, cdb_size),
    STATE_FIELD(struct virtio_scsi, sense_size),
    STATE_FIELD(struct virtio_scsi, events_missed),
    STATE_END,
};
static const struct state_table vscsi_state = {
    .name = "virtio-scsi",
    .version = 1,
    .fields = vscsi_fields,
    .pre_save = virtio_pci_pre_save,
    .post_load = post_load,
};

VIRTIO_PCI_TYPES(virtio_scsi, "virtio-scsi", .size = sizeof(struct virtio_scsi), .init = init_device,
                 .reset = virtio_pci_reset, .destroy = destroy_device, .state = &vscsi_state,
                 .description = "virtio SCSI controller",
                 .properties = "iothread=<id>,num_queues=<uint32>,virtqueue_size=<uint32>,max_sectors=<uint32>,"
                               "cmd_per_lun=<uint32>,hotplug=<bool>,param_change=<bool>," VIRTIO_PCI_PROPERTIES);
