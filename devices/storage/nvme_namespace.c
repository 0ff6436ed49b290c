/* Namespaces of an NVMe controller, and nvme-ns, the device that adds one (NVM Express 1.4, 6.1).
 *
 * A namespace is one drive. All of a controller are known before the guest runs; what changes later is their size.
 * Device lock held, or before the machine runs. */
#include "devices/storage/nvme_internal.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct nvme_ns {
    struct device device;
    struct nvme_namespace *ns;
};

struct nvme_namespace *nvme_namespace_find(struct nvme *nvme, uint32_t nsid)
{
    return nsid && nsid <= NVME_MAX_NAMESPACES ? nvme->namespaces[nsid - 1] : NULL;
}

struct nvme_namespace *nvme_namespace_next(struct nvme *nvme, uint32_t nsid)
{
    for (; nsid < NVME_MAX_NAMESPACES; nsid++) {
        if (nvme->namespaces[nsid])
            return nvme->namespaces[nsid];
    }
    return NULL;
}

static void measure(struct nvme_namespace *ns)
{
    ns->blocks = block_info(ns->block)->size >> ns->block_shift;
}

static void medium_changed(void *opaque)
{
    struct nvme_namespace *ns = opaque;
    struct nvme *nvme = ns->nvme;
    uint64_t before = ns->blocks;

    measure(ns);
    if (ns->blocks == before)
        return;
    nvme->changed_namespaces |= 1u << (ns->nsid - 1);
    if (nvme->events_config & NVME_AEC_NAMESPACE)
        nvme_event(nvme, NVME_EVENT_NOTICE, NVME_EVENT_NAMESPACE_CHANGED, NVME_LOG_CHANGED_NAMESPACES);
}

/* ---- Identifiers ---- */

/* For a namespace that was given none: the same on each start, different for each serial number and namespace. FNV-1a,
 * twice, in the form of a UUID (RFC 4122, version 4 and variant bits). */
static void derive_uuid(struct nvme_namespace *ns)
{
    for (unsigned half = 0; half < 2; half++) {
        uint64_t hash = 0xcbf29ce484222325ull + half * 0x9e3779b97f4a7c15ull;

        for (const char *c = ns->nvme->serial; *c; c++)
            hash = (hash ^ (uint8_t)*c) * 0x100000001b3ull;
        hash = (hash ^ ns->nsid) * 0x100000001b3ull;
        hash ^= hash >> 32;
        memcpy(ns->uuid + half * 8, &hash, 8);
    }
    ns->uuid[6] = (ns->uuid[6] & 0x0f) | 0x40;
    ns->uuid[8] = (ns->uuid[8] & 0x3f) | 0x80;
}

static int hex_digit(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : tolower((unsigned char)c) - 'a' + 10;
}

/* 8-4-4-4-12 digits. */
static int parse_uuid(const char *text, uint8_t *uuid, struct error *err)
{
    unsigned digits = 0;

    for (unsigned i = 0; i < 36; i++) {
        bool dash = i == 8 || i == 13 || i == 18 || i == 23;

        if (dash ? text[i] != '-' : !isxdigit((unsigned char)text[i]))
            return error_set(err, EINVAL, "uuid=%s: expected xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx", text);
        if (dash)
            continue;
        uuid[digits / 2] = (uint8_t)(uuid[digits / 2] << 4 | hex_digit(text[i]));
        digits++;
    }
    return text[36] ? error_set(err, EINVAL, "uuid=%s: too long", text) : 0;
}

static int set_identifiers(struct nvme_namespace *ns, struct option_list *options, struct error *err)
{
    const char *uuid = options_get(options, "uuid");
    uint64_t eui64;
    int result = options_get_u64(options, "eui64", 0, &eui64, err);

    if (result)
        return result;
    for (unsigned i = 0; i < 8; i++)
        ns->eui64[i] = (uint8_t)(eui64 >> (56 - 8 * i));
    if (uuid)
        return parse_uuid(uuid, ns->uuid, err);
    derive_uuid(ns);
    return 0;
}

/* ---- Life ---- */

static int choose_nsid(struct nvme *nvme, uint32_t *nsid, struct error *err)
{
    if (*nsid > NVME_MAX_NAMESPACES)
        return error_set(err, EINVAL, "nsid=%u: must be 1 to %u", *nsid, NVME_MAX_NAMESPACES);
    if (*nsid && nvme->namespaces[*nsid - 1])
        return error_set(err, EBUSY, "nsid=%u is in use", *nsid);
    for (uint32_t i = 0; !*nsid && i < NVME_MAX_NAMESPACES; i++) {
        if (!nvme->namespaces[i])
            *nsid = i + 1;
    }
    return *nsid ? 0 : error_set(err, ENOSPC, "the controller has %u namespaces already", NVME_MAX_NAMESPACES);
}

struct nvme_namespace *nvme_namespace_create(struct nvme *nvme, struct block *block, uint32_t nsid,
                                             struct option_list *options, struct error *err)
{
    struct nvme_namespace *ns;

    if (choose_nsid(nvme, &nsid, err))
        return NULL;
    ns = calloc(1, sizeof(*ns));
    if (!ns) {
        error_set(err, ENOMEM, "out of memory");
        return NULL;
    }
    ns->nvme = nvme;
    ns->block = block;
    ns->nsid = nsid;
    if (storage_block_sizes(options, block, &ns->block_size, &ns->physical_block_size, err) ||
        storage_bootindex(options, &ns->bootindex, err) || set_identifiers(ns, options, err)) {
        free(ns);
        return NULL;
    }
    ns->block_shift = (unsigned)__builtin_ctz(ns->block_size);
    nvme_lock(nvme);
    measure(ns);
    block_set_medium_handler(block, medium_changed, ns);
    nvme->namespaces[nsid - 1] = ns;
    nvme_unlock(nvme);
    return ns;
}

void nvme_namespace_destroy(struct nvme_namespace *ns)
{
    struct nvme *nvme;

    if (!ns)
        return;
    nvme = ns->nvme;
    nvme_lock(nvme);
    nvme->namespaces[ns->nsid - 1] = NULL; /* first: the last steps of commands find nothing to go on with */
    block_drain(ns->block);
    block_set_medium_handler(ns->block, NULL, NULL);
    block_release(ns->block);
    nvme_unlock(nvme);
    free(ns);
}

/* ---- nvme-ns ---- */

static int init_device(struct device *device, struct option_list *options, struct error *err)
{
    struct nvme_ns *nvme_ns = container_of(device, struct nvme_ns, device);
    struct device_bus *bus = device_bus_of_option(device->env, "nvme-bus", options, err);
    struct nvme *nvme = bus ? bus->owner : NULL;
    uint64_t nsid;
    int result;

    if (!bus)
        return -ENODEV;
    result = options_get_u64(options, "nsid", 0, &nsid, err);
    if (result)
        return result;
    struct block *block = storage_claim_option(device, options, nvme->loop, err);
    if (!block)
        return -ENODEV;
    nvme_ns->ns = nvme_namespace_create(nvme, block, (uint32_t)MIN(nsid, UINT32_MAX), options, err);
    if (!nvme_ns->ns) {
        block_release(block);
        return -EINVAL;
    }
    return 0;
}

static void destroy_device(struct device *device)
{
    nvme_namespace_destroy(container_of(device, struct nvme_ns, device)->ns);
}

extern const struct device_type nvme_ns_type;
const struct device_type nvme_ns_type = {
    .name = "nvme-ns",
    .bus = "nvme-bus",
    .description = "namespace of an NVMe controller",
    .size = sizeof(struct nvme_ns),
    .user_creatable = true,
    .properties =
        "drive=<str>,bus=<str>,nsid=<uint32>,uuid=<str>,eui64=<uint64>,bootindex=<int32>,logical_block_size=<size>,"
        "physical_block_size=<size>",
    .init = init_device,
    .destroy = destroy_device,
};

/* ---- For the frontend ---- */

bool nvme_boot_entry(const struct device *device, int *bootindex, char *path, size_t size)
{
    const struct nvme_namespace *ns = NULL;
    uint8_t devfn;

    if (device->type == &nvme_ns_type)
        ns = ((const struct nvme_ns *)device)->ns;
    else if (device->type == &nvme_type)
        ns = ((const struct nvme *)device)->own;
    if (!ns || ns->bootindex < 0)
        return false;
    devfn = ns->nvme->pci.devfn;
    *bootindex = ns->bootindex;
    if (PCI_FUNCTION(devfn))
        snprintf(path, size, "/pci@i0cf8/pci1b36,10@%x,%x/namespace@%x,0", PCI_SLOT(devfn), PCI_FUNCTION(devfn),
                 ns->nsid);
    else
        snprintf(path, size, "/pci@i0cf8/pci1b36,10@%x/namespace@%x,0", PCI_SLOT(devfn), ns->nsid);
    return true;
}
