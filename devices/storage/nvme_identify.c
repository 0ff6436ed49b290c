/* Identify (NVM Express 1.4, 5.15): what the controller and its namespaces are. The controller's lock held. */
#include "devices/storage/nvme_internal.h"

#include <stdio.h>
#include <string.h>

enum { DESCRIPTOR_EUI64 = 1, DESCRIPTOR_UUID = 3 };
enum {
    ONCS_COMPARE = 1,
    ONCS_DATASET = 4,
    ONCS_ZEROES = 8,
    ONCS_FEATURES = 16,
    ONCS_TIMESTAMP = 64,
    ONCS_VERIFY = 128
};

static void set_text(char *field, size_t size, const char *text)
{
    size_t length = MIN(strlen(text), size);

    memset(field, ' ', size);
    memcpy(field, text, length);
}

static void fill_controller(const struct nvme *nvme, struct nvme_id_controller *id)
{
    id->vid = 0x1b36;
    id->ssvid = 0x1af4;
    set_text(id->serial, sizeof(id->serial), nvme->serial);
    set_text(id->model, sizeof(id->model), "QEMU NVMe Ctrl"); /* what guests have quirks and names for */
    set_text(id->firmware, sizeof(id->firmware), EIDOLON_VERSION);
    id->rab = 6;
    memcpy(id->ieee, (const uint8_t[]){ 0x00, 0x54, 0x52 }, 3);
    id->mdts = (uint8_t)nvme->mdts;
    id->version = NVME_VERSION;
    id->oaes = NVME_AEC_NAMESPACE;
    id->cntrltype = 1; /* I/O controller */
    id->acl = 3;
    id->aerl = NVME_MAX_EVENTS - 1;
    id->frmw = 1 << 1 | 1;     /* one firmware slot, read-only */
    id->lpa = 1 << 1 | 1 << 2; /* commands supported; offsets in log pages */
    id->elpe = NVME_ERROR_ENTRIES - 1;
    id->wctemp = NVME_TEMPERATURE_WARN;
    id->cctemp = NVME_TEMPERATURE_CRIT;
    id->sqes = 6 << 4 | 6;
    id->cqes = 4 << 4 | 4;
    id->nn = NVME_MAX_NAMESPACES;
    id->oncs = ONCS_COMPARE | ONCS_DATASET | ONCS_ZEROES | ONCS_FEATURES | ONCS_TIMESTAMP | ONCS_VERIFY;
    id->vwc = 3 << 1 | 1; /* a volatile write cache; Flush of all namespaces */
    id->sgls = 1;         /* any alignment */
    snprintf(id->subnqn, sizeof(id->subnqn), "nqn.2019-08.org.qemu:%s", nvme->serial);
    id->power[0] = (struct nvme_power_state){ .max_power = 2500, .entry_latency = 16, .exit_latency = 4 };
}

static void fill_namespace(const struct nvme_namespace *ns, struct nvme_id_namespace *id)
{
    const struct block_info *info = block_info(ns->block);
    uint16_t preferred = (uint16_t)(ns->physical_block_size / ns->block_size - 1);

    id->nsze = id->ncap = id->nuse = ns->blocks;
    id->nsfeat = 1 << 4; /* npwg and its kin are there */
    if (info->can_discard)
        id->nsfeat |= 1 << 0;
    id->dlfeat = 1 << 3; /* Write Zeroes may deallocate */
    id->npwg = id->npwa = id->npdg = id->npda = id->nows = preferred;
    id->nsattr = info->read_only;
    memcpy(id->eui64, ns->eui64, sizeof(id->eui64));
    id->lbaf[0].data_size = (uint8_t)ns->block_shift;
}

/* Each: type, length, two bytes, the identifier; ends with length 0. */
static void fill_descriptors(const struct nvme_namespace *ns, uint8_t *list)
{
    static const uint8_t none[8];

    if (memcmp(ns->eui64, none, sizeof(none))) {
        *list++ = DESCRIPTOR_EUI64;
        *list++ = sizeof(ns->eui64);
        list += 2;
        memcpy(list, ns->eui64, sizeof(ns->eui64));
        list += sizeof(ns->eui64);
    }
    *list++ = DESCRIPTOR_UUID;
    *list++ = sizeof(ns->uuid);
    list += 2;
    memcpy(list, ns->uuid, sizeof(ns->uuid));
}

static void fill_list(struct nvme *nvme, uint32_t after, uint32_t *list)
{
    for (struct nvme_namespace *ns = nvme_namespace_next(nvme, after); ns; ns = nvme_namespace_next(nvme, ns->nsid))
        *list++ = ns->nsid;
}

unsigned nvme_identify(struct nvme_command *command)
{
    struct nvme *nvme = command->nvme;
    uint32_t nsid = command->sqe.nsid;
    const struct nvme_namespace *ns = nvme_namespace_find(nvme, nsid);
    unsigned command_set = command->sqe.cdw11 >> 24;
    union {
        struct nvme_id_controller controller;
        struct nvme_id_namespace namespace;
        uint32_t list[1024];
        uint8_t bytes[4096];
    } page;

    memset(&page, 0, sizeof(page));
    switch (command->sqe.cdw10 & 0xff) {
    case NVME_CNS_NAMESPACE:
        if (!nsid || (nsid > NVME_MAX_NAMESPACES && nsid != NVME_BROADCAST))
            return NVME_INVALID_NAMESPACE | NVME_DO_NOT_RETRY;
        if (ns)
            fill_namespace(ns, &page.namespace);
        else if (nsid == NVME_BROADCAST)
            return NVME_INVALID_NAMESPACE | NVME_DO_NOT_RETRY; /* there is no namespace management */
        break;                                                 /* inactive: zeroes */
    case NVME_CNS_CONTROLLER:
        fill_controller(nvme, &page.controller);
        break;
    case NVME_CNS_ACTIVE_LIST:
        if (nsid >= NVME_BROADCAST - 1)
            return NVME_INVALID_NAMESPACE | NVME_DO_NOT_RETRY;
        fill_list(nvme, nsid, page.list);
        break;
    case NVME_CNS_DESCRIPTORS:
        if (!ns)
            return NVME_INVALID_NAMESPACE | NVME_DO_NOT_RETRY;
        fill_descriptors(ns, page.bytes);
        break;
    case NVME_CNS_SET_NAMESPACE: /* of the NVM command set: nothing that the others do not say */
        if (command_set)
            return NVME_INVALID_FIELD | NVME_DO_NOT_RETRY;
        if (!ns)
            return NVME_INVALID_NAMESPACE | NVME_DO_NOT_RETRY;
        break;
    case NVME_CNS_SET_CONTROLLER: /* zeroes: no limits of its own */
        if (command_set)
            return NVME_INVALID_FIELD | NVME_DO_NOT_RETRY;
        break;
    default:
        return NVME_INVALID_FIELD | NVME_DO_NOT_RETRY;
    }
    return nvme_copy_to_guest(command, &page, sizeof(page));
}
