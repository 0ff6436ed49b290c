/* scsi-hd and scsi-cd: a drive as a logical unit of a SCSI bus. Names and options as QEMU's.
 *
 * Threads: made, reset and destroyed with the device lock held; takes the bus's lock. */
#include "devices/storage/scsi_internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "devices/pci/pci.h"
#include "devices/storage/storage_drive.h"

#define CD_BLOCK_SIZE 2048u

void scsi_device_address(const struct scsi_device *device, unsigned *channel, unsigned *target, unsigned *lun)
{
    *channel = device->channel;
    *target = device->target;
    *lun = device->lun;
}

unsigned scsi_device_under_way(const struct scsi_device *device)
{
    return device->under_way;
}

struct block *scsi_device_block(const struct scsi_device *device)
{
    return device->block;
}

void scsi_device_measure(struct scsi_device *device)
{
    device->blocks = device->block ? block_info(device->block)->size >> device->block_shift : 0;
}

static void medium_changed(void *opaque)
{
    struct scsi_device *device = opaque;
    struct scsi_bus *bus = device->bus;

    scsi_device_measure(device);
    device->new_medium = device->cdrom;
    scsi_raise_attention(device, device->cdrom ? SCSI_ATTENTION_MEDIUM : SCSI_ATTENTION_CAPACITY);
    if (bus->ops && bus->ops->changed)
        bus->ops->changed(bus, device, device->cdrom ? 0x28 : 0x2a, device->cdrom ? 0x00 : 0x09);
}

/* ---- Options ---- */

static int text_option(struct option_list *options, const char *name, const char *fallback, char *out, size_t size,
                       struct error *err)
{
    const char *text = options_get(options, name);

    if (text && strlen(text) >= size)
        return error_set(err, EINVAL, "%s=%s: at most %zu characters", name, text, size - 1);
    snprintf(out, size, "%s", text ? text : fallback);
    return 0;
}

static int number_option(struct option_list *options, const char *name, uint64_t fallback, uint64_t max, uint64_t *out,
                         struct error *err)
{
    int result = options_get_u64(options, name, fallback, out, err);

    if (!result && *out != fallback && *out > max)
        return error_set(err, EINVAL, "%s=%llu: at most %llu", name, (unsigned long long)*out, (unsigned long long)max);
    return result;
}

/* -1: not given. */
static int address_option(struct option_list *options, const char *name, int *out, struct error *err)
{
    const char *text = options_get(options, name);
    uint64_t value;
    int result;

    *out = -1;
    if (!text || !strcmp(text, "-1"))
        return 0;
    result = parse_u64(text, &value, err);
    if (result)
        return error_prefix(err, result, "%s", name);
    if (value > 0xffff)
        return error_set(err, EINVAL, "%s=%s is out of range", name, text);
    *out = (int)value;
    return 0;
}

static int read_identity(struct scsi_device *device, struct option_list *options, struct error *err)
{
    const struct block_info *info = block_info(device->block);
    const char *name = device->cdrom ? "QEMU CD-ROM" : "QEMU HARDDISK";
    uint64_t rotation;
    int result;

    if ((result = text_option(options, "vendor", "QEMU", device->vendor, sizeof(device->vendor), err)) ||
        (result = text_option(options, "product", name, device->product, sizeof(device->product), err)) ||
        (result = text_option(options, "ver", "2.5+", device->version, sizeof(device->version), err)) ||
        (result = text_option(options, "serial", info->serial, device->serial, sizeof(device->serial), err)) ||
        (result = text_option(options, "device_id",
                              *device->serial ? device->serial
                              : info->id      ? info->id
                                              : "",
                              device->device_id, sizeof(device->device_id), err)) ||
        (result = number_option(options, "wwn", 0, UINT64_MAX, &device->wwn, err)) ||
        (result = number_option(options, "port_wwn", 0, UINT64_MAX, &device->port_wwn, err)) ||
        (result = options_get_bool(options, "dpofua", !device->cdrom, &device->dpofua, err)) ||
        (result = storage_bootindex(options, &device->bootindex, err)))
        return result;
    if (device->cdrom) {
        device->removable = true;
        return 0;
    }
    result = number_option(options, "rotation_rate", 0, UINT16_MAX, &rotation, err);
    device->rotation_rate = (uint16_t)rotation;
    return result ? result : options_get_bool(options, "removable", false, &device->removable, err);
}

static int read_geometry(struct scsi_device *device, struct option_list *options, struct error *err)
{
    int result = 0;

    if (device->cdrom)
        device->block_size = device->physical_block_size = CD_BLOCK_SIZE;
    else
        result = storage_block_sizes(options, device->block, &device->block_size, &device->physical_block_size, err);
    if (result)
        return result;
    device->block_shift = (unsigned)__builtin_ctz(device->block_size);
    scsi_device_measure(device);
    if (!device->cdrom && !device->blocks)
        return error_set(err, EINVAL, "drive '%s' is empty", block_info(device->block)->id);
    return 0;
}

/* ---- Life ---- */

static int add_to_bus(struct scsi_device *device, struct scsi_bus *bus, struct option_list *options, struct error *err)
{
    int channel, target, lun, result;

    if ((result = address_option(options, "channel", &channel, err)) ||
        (result = address_option(options, "scsi-id", &target, err)) ||
        (result = address_option(options, "lun", &lun, err)))
        return result;
    event_loop_lock(bus->loop);
    scsi_raise_attention(device, SCSI_ATTENTION_RESET);
    device->write_cache = block_info(device->block)->write_cache;
    result = scsi_bus_add(bus, device, channel, target, lun, err);
    event_loop_unlock(bus->loop);
    return result;
}

static int init_device(struct device *base, struct option_list *options, bool cdrom, struct error *err)
{
    struct scsi_device *device = container_of(base, struct scsi_device, device);
    struct device_bus *found = device_bus_of_option(base->env, "SCSI", options, err);
    struct scsi_bus *bus = found ? found->owner : NULL;
    int result;

    if (!found)
        return -ENODEV;
    device->cdrom = cdrom;
    device->block = storage_claim_option(base, options, bus->loop, err);
    if (!device->block)
        return -ENODEV;
    result = read_identity(device, options, err);
    if (!result)
        result = read_geometry(device, options, err);
    if (!result)
        result = add_to_bus(device, bus, options, err);
    if (result) {
        block_release(device->block);
        return result;
    }
    event_loop_lock(bus->loop);
    block_set_medium_handler(device->block, medium_changed, device);
    event_loop_unlock(bus->loop);
    return 0;
}

static int init_disk(struct device *device, struct option_list *options, struct error *err)
{
    return init_device(device, options, false, err);
}

static int init_cd(struct device *device, struct option_list *options, struct error *err)
{
    return init_device(device, options, true, err);
}

static void destroy_device(struct device *base)
{
    struct scsi_device *device = container_of(base, struct scsi_device, device);
    struct event_loop *loop = device->bus->loop;

    event_loop_lock(loop);
    block_drain(device->block);
    block_set_medium_handler(device->block, NULL, NULL);
    scsi_bus_remove(device);
    block_release(device->block);
    event_loop_unlock(loop);
}

void scsi_device_reset(struct scsi_device *device)
{
    scsi_raise_attention(device, SCSI_ATTENTION_RESET);
    device->locked = false;
    device->stopped = false;
    device->tray_open = false;
    device->new_medium = 0;
}

static void reset_device(struct device *base)
{
    struct scsi_device *device = container_of(base, struct scsi_device, device);

    event_loop_lock(device->bus->loop);
    scsi_device_reset(device);
    event_loop_unlock(device->bus->loop);
}

/* ---- State ---- */

static int post_load(void *owner, struct error *err)
{
    struct scsi_device *device = owner;

    (void)err;
    device->attention &= SCSI_ATTENTION_RESET | SCSI_ATTENTION_MEDIUM | SCSI_ATTENTION_CAPACITY;
    device->write_cache = device->write_cache != 0;
    device->new_medium = device->new_medium != 0;
    device_load_bool(&device->locked);
    device_load_bool(&device->tray_open);
    device_load_bool(&device->stopped);
    block_set_write_cache(device->block, device->write_cache);
    return 0;
}

static const struct state_field scsi_fields[] = {
    STATE_FIELD(struct scsi_device, attention),
    STATE_FIELD(struct scsi_device, write_cache),
    STATE_FIELD(struct scsi_device, locked),
    STATE_FIELD(struct scsi_device, tray_open),
    STATE_FIELD(struct scsi_device, stopped),
    STATE_FIELD(struct scsi_device, new_medium),
    STATE_END,
};
static const struct state_table scsi_state = {
    .name = "scsi-device",
    .version = 1,
    .fields = scsi_fields,
    .post_load = post_load,
};

#define ADDRESS_PROPERTIES "drive=<str>,bus=<str>,channel=<uint32>,scsi-id=<uint32>,lun=<uint32>,"
#define NAME_PROPERTIES                                                                                                \
    "serial=<str>,device_id=<str>,vendor=<str>,product=<str>,ver=<str>,wwn=<uint64>,port_wwn=<uint64>,dpofua=<bool>,"  \
    "bootindex=<int32>"

extern const struct device_type scsi_hd_type, scsi_cd_type;
const struct device_type scsi_hd_type = {
    .name = "scsi-hd",
    .bus = "SCSI",
    .description = "virtual SCSI disk",
    .size = sizeof(struct scsi_device),
    .user_creatable = true,
    .properties = ADDRESS_PROPERTIES NAME_PROPERTIES
    ",removable=<bool>,rotation_rate=<uint16>,logical_block_size=<size>,physical_block_size=<size>",
    .init = init_disk,
    .reset = reset_device,
    .destroy = destroy_device,
    .state = &scsi_state,
};
const struct device_type scsi_cd_type = {
    .name = "scsi-cd",
    .bus = "SCSI",
    .description = "virtual SCSI CD-ROM",
    .size = sizeof(struct scsi_device),
    .user_creatable = true,
    .properties = ADDRESS_PROPERTIES NAME_PROPERTIES,
    .init = init_cd,
    .reset = reset_device,
    .destroy = destroy_device,
    .state = &scsi_state,
};

/* ---- if=scsi ---- */

static struct device_bus *nth_bus(struct device_env *env, unsigned n)
{
    for (struct device_bus *bus = env->buses; bus; bus = bus->next) {
        if (!strcmp(bus->kind, "SCSI") && !n--)
            return bus;
    }
    return NULL;
}

int scsi_attach_drives(struct device_env *env, void (*own)(void *opaque, struct device *device), void *opaque,
                       struct error *err)
{
    struct block *block;

    while (env->blocks && (block = block_next_unclaimed(env->blocks, BLOCK_IF_SCSI))) {
        const struct block_info *info = block_info(block);
        struct device_bus *bus = nth_bus(env, info->bus);
        struct option_list options;
        struct device *device;
        char text[256];
        int result;

        if (!bus)
            return error_set(err, ENODEV,
                             "drive '%s': if=scsi,bus=%u: no such bus; add a controller: -device virtio-scsi-pci",
                             info->id, info->bus);
        snprintf(text, sizeof(text), "drive=%.100s,bus=%.60s,scsi-id=%u,lun=0", info->id, bus->id, info->unit);
        result = options_parse(&options, text, NULL, err);
        if (result)
            return result;
        device = device_create(env, info->cdrom ? &scsi_cd_type : &scsi_hd_type, info->id, &options, err);
        options_free(&options);
        if (!device)
            return error_prefix(err, -EINVAL, "drive '%s'", info->id);
        own(opaque, device);
    }
    return 0;
}

bool scsi_boot_entry(const struct device *base, int *bootindex, char *path, size_t size)
{
    const struct scsi_device *device = (const struct scsi_device *)base;
    char controller[64];

    if ((base->type != &scsi_hd_type && base->type != &scsi_cd_type) || device->bootindex < 0 || device->bus->devfn < 0)
        return false;
    if (PCI_FUNCTION(device->bus->devfn))
        snprintf(controller, sizeof(controller), "%x,%x", PCI_SLOT(device->bus->devfn),
                 PCI_FUNCTION(device->bus->devfn));
    else
        snprintf(controller, sizeof(controller), "%x", PCI_SLOT(device->bus->devfn));
    *bootindex = device->bootindex;
    snprintf(path, size, "/pci@i0cf8/scsi@%s/channel@%x/disk@%x,%x", controller, device->channel, device->target,
             device->lun);
    return true;
}
