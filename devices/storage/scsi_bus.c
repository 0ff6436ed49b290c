/* SCSI buses: which device is where, and commands for logical units that are not there (SAM-5, 4.7; SPC-4, 6.33).
 *
 * A command for a target that has devices, but none with that LUN, is still answered where the standard wants it: INQUIRY,
 * REPORT LUNS, REQUEST SENSE. The bus's lock held; adding and removing also the device lock. */
#include "devices/storage/scsi_internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#define LUNS_MAX 512u

int scsi_bus_init(struct scsi_bus *bus, struct device *controller, struct event_loop *loop,
                  const struct scsi_bus_ops *ops, void *opaque, struct error *err)
{
    bool named = strcmp(controller->id, controller->type->name) != 0;

    bus->bus.kind = "SCSI";
    bus->bus.owner = bus;
    snprintf(bus->bus.id, sizeof(bus->bus.id), "%.60s.0", named ? controller->id : "scsi");
    bus->env = controller->env;
    bus->loop = loop;
    bus->ops = ops;
    bus->opaque = opaque;
    bus->devfn = -1;
    return device_bus_add(controller->env, &bus->bus, err);
}

void scsi_bus_destroy(struct scsi_bus *bus)
{
    if (bus->env)
        device_bus_remove(bus->env, &bus->bus);
    bus->env = NULL;
}

struct scsi_device *scsi_bus_find(struct scsi_bus *bus, unsigned channel, unsigned target, unsigned lun)
{
    struct scsi_device *device;

    for (device = bus->devices; device; device = device->next) {
        if (device->channel == channel && device->target == target && device->lun == lun)
            break;
    }
    return device;
}

struct scsi_device *scsi_bus_next(struct scsi_bus *bus, struct scsi_device *after)
{
    return after ? after->next : bus->devices;
}

bool scsi_bus_has_target(const struct scsi_bus *bus, unsigned channel, unsigned target)
{
    for (const struct scsi_device *device = bus->devices; device; device = device->next) {
        if (device->channel == channel && device->target == target)
            return true;
    }
    return false;
}

/* ---- Addresses ---- */

static int check_address(const struct scsi_bus *bus, int channel, int target, int lun, struct error *err)
{
    if (channel > (int)bus->max_channel)
        return error_set(err, EINVAL, "channel=%d: bus '%s' has 0 to %u", channel, bus->bus.id, bus->max_channel);
    if (target > (int)bus->max_target)
        return error_set(err, EINVAL, "scsi-id=%d: bus '%s' has 0 to %u", target, bus->bus.id, bus->max_target);
    if (lun > (int)bus->max_lun)
        return error_set(err, EINVAL, "lun=%d: bus '%s' has 0 to %u", lun, bus->bus.id, bus->max_lun);
    return 0;
}

/* What was not given (-1) is the first that is free. */
static int choose_address(struct scsi_bus *bus, unsigned channel, int *target, int *lun, struct error *err)
{
    if (*target < 0) {
        if (*lun < 0)
            *lun = 0;
        *target = 0;
        while (*target <= (int)bus->max_target && scsi_bus_find(bus, channel, (unsigned)*target, (unsigned)*lun))
            ++*target;
        return *target <= (int)bus->max_target ? 0 : error_set(err, ENOSPC, "bus '%s' has no free target", bus->bus.id);
    }
    if (*lun < 0) {
        *lun = 0;
        while (*lun <= (int)bus->max_lun && scsi_bus_find(bus, channel, (unsigned)*target, (unsigned)*lun))
            ++*lun;
        return *lun <= (int)bus->max_lun ? 0 : error_set(err, ENOSPC, "target %d has no free LUN", *target);
    }
    if (scsi_bus_find(bus, channel, (unsigned)*target, (unsigned)*lun))
        return error_set(err, EBUSY, "bus '%s': channel %u, target %d, LUN %d is in use", bus->bus.id, channel, *target,
                         *lun);
    return 0;
}

int scsi_bus_add(struct scsi_bus *bus, struct scsi_device *device, int channel, int target, int lun, struct error *err)
{
    int result;

    channel = MAX(channel, 0);
    result = check_address(bus, channel, target, lun, err);
    if (!result)
        result = choose_address(bus, (unsigned)channel, &target, &lun, err);
    if (result)
        return result;
    device->bus = bus;
    device->channel = (unsigned)channel;
    device->target = (unsigned)target;
    device->lun = (unsigned)lun;
    device->next = bus->devices;
    bus->devices = device;
    if (bus->ops && bus->ops->attached)
        bus->ops->attached(bus, device);
    return 0;
}

void scsi_bus_remove(struct scsi_device *device)
{
    struct scsi_bus *bus = device->bus;

    for (struct scsi_device **link = &bus->devices; *link; link = &(*link)->next) {
        if (*link == device) {
            *link = device->next;
            break;
        }
    }
    if (bus->ops && bus->ops->detached)
        bus->ops->detached(bus, device);
    device->bus = NULL;
}

/* ---- REPORT LUNS ---- */

/* Peripheral addressing up to 255, flat space addressing above (SAM-5, 4.7.7). */
static void put_lun(uint8_t *entry, unsigned lun)
{
    if (lun >= 256)
        entry[0] = (uint8_t)(0x40 | lun >> 8);
    entry[1] = (uint8_t)lun;
}

static void report_luns(struct scsi_bus *bus, struct scsi_request *request)
{
    uint32_t allocation = scsi_be32(request->cdb + 6), count = 1; /* LUN 0 is always there */
    uint8_t *data;

    if (allocation < 16 || request->cdb[2] > 2) {
        scsi_fail(request, SCSI_SENSE_INVALID_FIELD);
        return;
    }
    data = calloc(LUNS_MAX + 1, 8);
    if (!data) {
        scsi_fail(request, SCSI_SENSE_TARGET_FAILURE);
        return;
    }
    for (const struct scsi_device *device = bus->devices; device && count < LUNS_MAX; device = device->next) {
        if (device->channel == request->channel && device->target == request->target && device->lun)
            put_lun(data + 8 + count++ * 8, device->lun);
    }
    if (request->cdb[2] == 1)
        count = 0; /* well-known units only: there are none */
    scsi_put32(data, count * 8);
    request->buffer = data; /* freed with the request */
    scsi_reply(request, data, 8 + count * 8, allocation);
}

void scsi_report_luns(struct scsi_request *request)
{
    report_luns(request->device->bus, request);
}

/* ---- Commands ---- */

static void answer_for_nobody(struct scsi_bus *bus, struct scsi_request *request)
{
    switch (request->cdb[0]) {
    case 0x03:
        scsi_request_sense(request);
        break;
    case 0x12:
        scsi_inquiry(request);
        break;
    case 0xa0:
        report_luns(bus, request);
        break;
    default:
        scsi_fail(request, SCSI_SENSE_LUN_NOT_SUPPORTED);
        break;
    }
}

bool scsi_bus_submit(struct scsi_bus *bus, struct scsi_request *request)
{
    request->status = SCSI_GOOD;
    request->sense_size = 0;
    request->overrun = false;
    request->transferred = 0;
    request->buffer = NULL;
    request->own_iov = NULL;
    request->block = (struct block_request){ 0 };
    request->device = scsi_bus_find(bus, request->channel, request->target, request->lun);
    if (request->device) {
        scsi_execute(request);
        return true;
    }
    if (!scsi_bus_has_target(bus, request->channel, request->target))
        return false;
    answer_for_nobody(bus, request);
    return true;
}
