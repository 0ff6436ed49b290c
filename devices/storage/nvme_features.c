/* Features (NVM Express 1.4, 5.9 and 5.21). None is saveable: each controller reset brings the defaults back.
 * The controller's lock held. */
#include "devices/storage/nvme_internal.h"

#include <string.h>

enum { SELECT_CURRENT = 0, SELECT_DEFAULT = 1, SELECT_SAVED = 2, SELECT_CAPABILITIES = 3 };
enum { CAPABLE_NAMESPACE = 1 << 1, CAPABLE_CHANGE = 1 << 2 };
enum { ARBITRATION_DEFAULT = 3 }; /* a burst of eight */
#define THRESHOLD_OVER  0
#define THRESHOLD_UNDER 1

static const uint8_t capabilities[256] = {
    [NVME_FEATURE_ARBITRATION] = CAPABLE_CHANGE, [NVME_FEATURE_POWER] = CAPABLE_CHANGE,
    [NVME_FEATURE_TEMPERATURE] = CAPABLE_CHANGE, [NVME_FEATURE_ERROR_RECOVERY] = CAPABLE_CHANGE | CAPABLE_NAMESPACE,
    [NVME_FEATURE_WRITE_CACHE] = CAPABLE_CHANGE, [NVME_FEATURE_QUEUES] = CAPABLE_CHANGE,
    [NVME_FEATURE_COALESCING] = CAPABLE_CHANGE,  [NVME_FEATURE_VECTOR] = CAPABLE_CHANGE,
    [NVME_FEATURE_ATOMICITY] = CAPABLE_CHANGE,   [NVME_FEATURE_EVENTS] = CAPABLE_CHANGE,
    [NVME_FEATURE_TIMESTAMP] = CAPABLE_CHANGE,
};

static uint64_t now_ns(const struct nvme *nvme)
{
    return clock_now_ns(nvme->pci.device.env->clock);
}

static void set_write_cache(struct nvme *nvme, bool on)
{
    nvme->write_cache = on;
    for (struct nvme_namespace *ns = nvme_namespace_next(nvme, 0); ns; ns = nvme_namespace_next(nvme, ns->nsid))
        block_set_write_cache(ns->block, on);
}

static bool default_write_cache(struct nvme *nvme)
{
    struct nvme_namespace *ns = nvme_namespace_next(nvme, 0);

    return !ns || block_info(ns->block)->write_cache;
}

void nvme_features_reset(struct nvme *nvme)
{
    nvme->arbitration = ARBITRATION_DEFAULT;
    nvme->power = nvme->write_atomicity = nvme->error_recovery = nvme->coalescing_config = nvme->events_config = 0;
    nvme->temperature_over = NVME_TEMPERATURE_WARN;
    nvme->temperature_under = 0;
    memset(nvme->vector_uncoalesced, 0, sizeof(nvme->vector_uncoalesced));
    nvme->timestamp = 0;
    nvme->timestamp_origin = 0;
    nvme->timestamp_set_ns = now_ns(nvme);
    nvme->write_cache = default_write_cache(nvme);
}

void nvme_check_temperature(struct nvme *nvme)
{
    if ((nvme->events_config & NVME_AEC_TEMPERATURE) &&
        (NVME_TEMPERATURE >= nvme->temperature_over || NVME_TEMPERATURE <= nvme->temperature_under))
        nvme_event(nvme, NVME_EVENT_SMART, NVME_EVENT_TEMPERATURE, NVME_LOG_SMART);
}

/* ---- Timestamp (5.21.1.14): milliseconds since 1970, 48 bits, then bits 3:1 origin ---- */

static unsigned get_timestamp(struct nvme_command *command, bool defaults)
{
    struct nvme *nvme = command->nvme;
    uint64_t value = defaults ? 0 : nvme->timestamp + (now_ns(nvme) - nvme->timestamp_set_ns) / 1000000;

    value &= BIT(48) - 1;
    if (!defaults)
        value |= (uint64_t)nvme->timestamp_origin << 49;
    return nvme_copy_to_guest(command, &value, sizeof(value));
}

static unsigned set_timestamp(struct nvme_command *command)
{
    struct nvme *nvme = command->nvme;
    uint64_t value;
    unsigned status = nvme_copy_from_guest(command, &value, sizeof(value));

    if (status)
        return status;
    nvme->timestamp = value & (BIT(48) - 1);
    nvme->timestamp_origin = 1; /* set by a host */
    nvme->timestamp_set_ns = now_ns(nvme);
    return NVME_OK;
}

/* ---- Get ---- */

static uint32_t vector_config(const struct nvme *nvme, uint32_t vector)
{
    return vector | (uint32_t)nvme->vector_uncoalesced[vector] << 16;
}

static uint32_t default_value(struct nvme *nvme, unsigned feature, uint32_t cdw11)
{
    switch (feature) {
    case NVME_FEATURE_ARBITRATION:
        return ARBITRATION_DEFAULT;
    case NVME_FEATURE_TEMPERATURE:
        return (cdw11 >> 20 & 3) == THRESHOLD_OVER ? NVME_TEMPERATURE_WARN : 0;
    case NVME_FEATURE_WRITE_CACHE:
        return default_write_cache(nvme);
    case NVME_FEATURE_QUEUES:
        return (nvme->queue_pairs - 1) | (nvme->queue_pairs - 1) << 16;
    case NVME_FEATURE_VECTOR:
        return cdw11 & 0xffff;
    default:
        return 0;
    }
}

static uint32_t current_value(struct nvme *nvme, unsigned feature, uint32_t cdw11)
{
    switch (feature) {
    case NVME_FEATURE_ARBITRATION:
        return nvme->arbitration;
    case NVME_FEATURE_POWER:
        return nvme->power;
    case NVME_FEATURE_TEMPERATURE:
        return (cdw11 >> 20 & 3) == THRESHOLD_OVER ? nvme->temperature_over : nvme->temperature_under;
    case NVME_FEATURE_ERROR_RECOVERY:
        return nvme->error_recovery;
    case NVME_FEATURE_WRITE_CACHE:
        return nvme->write_cache;
    case NVME_FEATURE_COALESCING:
        return nvme->coalescing_config;
    case NVME_FEATURE_VECTOR:
        return vector_config(nvme, cdw11 & 0xffff);
    case NVME_FEATURE_ATOMICITY:
        return nvme->write_atomicity;
    case NVME_FEATURE_EVENTS:
        return nvme->events_config;
    default:
        return default_value(nvme, feature, cdw11);
    }
}

/* Checks that hold for Get and Set alike. */
static unsigned check(struct nvme *nvme, unsigned feature, const struct nvme_sqe *sqe)
{
    if (!capabilities[feature])
        return NVME_INVALID_FIELD | NVME_DO_NOT_RETRY;
    if (capabilities[feature] & CAPABLE_NAMESPACE) {
        if (sqe->nsid != NVME_BROADCAST && !nvme_namespace_find(nvme, sqe->nsid))
            return NVME_INVALID_NAMESPACE | NVME_DO_NOT_RETRY;
    }
    if (feature == NVME_FEATURE_VECTOR && (sqe->cdw11 & 0xffff) >= nvme->vectors)
        return NVME_INVALID_FIELD | NVME_DO_NOT_RETRY;
    if (feature == NVME_FEATURE_TEMPERATURE && (sqe->cdw11 >> 20 & 3) > THRESHOLD_UNDER)
        return NVME_INVALID_FIELD | NVME_DO_NOT_RETRY;
    return NVME_OK;
}

unsigned nvme_get_features(struct nvme_command *command)
{
    struct nvme *nvme = command->nvme;
    const struct nvme_sqe *sqe = &command->sqe;
    unsigned feature = sqe->cdw10 & 0xff, select = sqe->cdw10 >> 8 & 7, status = check(nvme, feature, sqe);

    if (status)
        return status;
    switch (select) {
    case SELECT_CAPABILITIES:
        command->result = capabilities[feature];
        return NVME_OK;
    case SELECT_CURRENT:
        if (feature == NVME_FEATURE_TEMPERATURE && (sqe->cdw11 >> 16 & 15))
            return NVME_INVALID_FIELD | NVME_DO_NOT_RETRY; /* there is only the composite temperature */
        if (feature == NVME_FEATURE_TIMESTAMP)
            return get_timestamp(command, false);
        command->result = current_value(nvme, feature, sqe->cdw11);
        return NVME_OK;
    case SELECT_DEFAULT:
    case SELECT_SAVED: /* nothing is saved: the default (5.9) */
        if (feature == NVME_FEATURE_TIMESTAMP)
            return get_timestamp(command, true);
        command->result = default_value(nvme, feature, sqe->cdw11);
        return NVME_OK;
    default:
        return NVME_INVALID_FIELD | NVME_DO_NOT_RETRY;
    }
}

/* ---- Set ---- */

static unsigned set_queues(struct nvme_command *command)
{
    struct nvme *nvme = command->nvme;
    uint32_t value = command->sqe.cdw11;

    if ((value & 0xffff) == 0xffff || value >> 16 == 0xffff)
        return NVME_INVALID_FIELD | NVME_DO_NOT_RETRY;
    for (unsigned i = 1; i <= nvme->queue_pairs; i++) {
        if (nvme->sqs[i].exists || nvme->cqs[i].exists)
            return 0x00c | NVME_DO_NOT_RETRY; /* command sequence error: only before queues are made */
    }
    command->result = default_value(nvme, NVME_FEATURE_QUEUES, 0);
    return NVME_OK;
}

static unsigned set_temperature(struct nvme *nvme, uint32_t value)
{
    unsigned sensor = value >> 16 & 15;

    if (sensor && sensor != 15)
        return NVME_INVALID_FIELD | NVME_DO_NOT_RETRY;
    if ((value >> 20 & 3) == THRESHOLD_OVER)
        nvme->temperature_over = (uint16_t)value;
    else
        nvme->temperature_under = (uint16_t)value;
    nvme_check_temperature(nvme);
    return NVME_OK;
}

unsigned nvme_set_features(struct nvme_command *command)
{
    struct nvme *nvme = command->nvme;
    const struct nvme_sqe *sqe = &command->sqe;
    unsigned feature = sqe->cdw10 & 0xff, status = check(nvme, feature, sqe);
    uint32_t value = sqe->cdw11;

    if (status)
        return status;
    if (sqe->cdw10 >> 31)
        return NVME_NOT_SAVEABLE | NVME_DO_NOT_RETRY;
    switch (feature) {
    case NVME_FEATURE_ARBITRATION:
        nvme->arbitration = value & 0xffffff07;
        break;
    case NVME_FEATURE_POWER:
        if (value & 31)
            return NVME_INVALID_FIELD | NVME_DO_NOT_RETRY; /* state 0 is the only one */
        nvme->power = value & 0xff;
        break;
    case NVME_FEATURE_TEMPERATURE:
        return set_temperature(nvme, value);
    case NVME_FEATURE_ERROR_RECOVERY:
        nvme->error_recovery = value & 0xffff;
        break;
    case NVME_FEATURE_WRITE_CACHE:
        set_write_cache(nvme, value & 1);
        break;
    case NVME_FEATURE_QUEUES:
        return set_queues(command);
    case NVME_FEATURE_COALESCING:
        nvme->coalescing_config = value & 0xffff;
        break;
    case NVME_FEATURE_VECTOR:
        nvme->vector_uncoalesced[value & 0xffff] = value >> 16 & 1;
        break;
    case NVME_FEATURE_ATOMICITY:
        nvme->write_atomicity = value & 1;
        break;
    case NVME_FEATURE_EVENTS:
        nvme->events_config = value & NVME_AEC_SUPPORTED;
        nvme_check_temperature(nvme);
        break;
    default:
        return set_timestamp(command);
    }
    return NVME_OK;
}
