/* Log pages (NVM Express 1.4, 5.14). The controller's lock held. */
#include "devices/storage/nvme_internal.h"

#include <stdlib.h>
#include <string.h>

#define LOG_MAX 4096u /* bytes of the longest page */
enum { EFFECT_SUPPORTED = 1 << 0, EFFECT_CONTENT = 1 << 1 };

void nvme_log_error(struct nvme_command *command, unsigned status)
{
    struct nvme *nvme = command->nvme;

    memmove(nvme->errors + 1, nvme->errors, sizeof(nvme->errors) - sizeof(nvme->errors[0]));
    nvme->errors[0] = (struct nvme_error_entry){
        .count = ++nvme->error_count,
        .sq_id = command->sq->id,
        .cid = command->sqe.cid,
        .status = (uint16_t)(status << 1),
        .location = 0xffff,
        .lba = command->sq->id ? command->sqe.cdw10 | (uint64_t)command->sqe.cdw11 << 32 : 0,
        .nsid = command->sqe.nsid,
    };
    if (status >> 8 == 2)
        nvme->media_errors += (status & 0xff) != (NVME_COMPARE_FAILURE & 0xff);
}

static void fill_smart(struct nvme *nvme, struct nvme_smart *smart)
{
    uint64_t now = clock_now_ns(nvme->pci.device.env->clock), busy = nvme->busy_ns;

    if (nvme_under_way(nvme))
        busy += now - nvme->busy_since_ns;
    if (NVME_TEMPERATURE >= nvme->temperature_over || NVME_TEMPERATURE <= nvme->temperature_under)
        smart->critical = 1 << 1;
    smart->temperature[0] = NVME_TEMPERATURE & 0xff;
    smart->temperature[1] = NVME_TEMPERATURE >> 8;
    smart->spare = 100;
    smart->spare_threshold = 10;
    /* In thousands of 512 bytes, rounded up. */
    smart->units_read[0] = (nvme->units_read + 999) / 1000;
    smart->units_written[0] = (nvme->units_written + 999) / 1000;
    smart->reads[0] = nvme->reads;
    smart->writes[0] = nvme->writes;
    smart->busy_minutes[0] = busy / 60000000000ull;
    smart->power_cycles[0] = 1;
    smart->power_hours[0] = (now - nvme->created_ns) / 3600000000000ull;
    smart->unsafe_shutdowns[0] = nvme->unsafe_shutdowns;
    smart->media_errors[0] = nvme->media_errors;
    smart->error_entries[0] = nvme->error_count;
}

/* Dwords: admin commands at 0, I/O commands at 256. */
static void fill_commands(uint32_t *effects)
{
    static const uint8_t admin[] = { NVME_ADMIN_DELETE_SQ,  NVME_ADMIN_CREATE_SQ,    NVME_ADMIN_GET_LOG,
                                     NVME_ADMIN_DELETE_CQ,  NVME_ADMIN_CREATE_CQ,    NVME_ADMIN_IDENTIFY,
                                     NVME_ADMIN_ABORT,      NVME_ADMIN_SET_FEATURES, NVME_ADMIN_GET_FEATURES,
                                     NVME_ADMIN_ASYNC_EVENT };
    static const uint8_t io[] = { NVME_IO_FLUSH, NVME_IO_READ, NVME_IO_COMPARE, NVME_IO_VERIFY };
    static const uint8_t changing[] = { NVME_IO_WRITE, NVME_IO_WRITE_ZEROES, NVME_IO_DATASET_MANAGEMENT };

    for (size_t i = 0; i < sizeof(admin); i++)
        effects[admin[i]] = EFFECT_SUPPORTED;
    for (size_t i = 0; i < sizeof(io); i++)
        effects[256 + io[i]] = EFFECT_SUPPORTED;
    for (size_t i = 0; i < sizeof(changing); i++)
        effects[256 + changing[i]] = EFFECT_SUPPORTED | EFFECT_CONTENT;
}

static void fill_changed(const struct nvme *nvme, uint32_t *list)
{
    for (uint32_t i = 0; i < NVME_MAX_NAMESPACES; i++) {
        if (nvme->changed_namespaces >> i & 1)
            *list++ = i + 1;
    }
}

/* Returns the page's size; 0: there is no such page. */
static uint32_t fill_page(struct nvme *nvme, unsigned id, void *page)
{
    switch (id) {
    case NVME_LOG_ERRORS:
        memcpy(page, nvme->errors, sizeof(nvme->errors));
        return sizeof(nvme->errors);
    case NVME_LOG_SMART:
        fill_smart(nvme, page);
        return sizeof(struct nvme_smart);
    case NVME_LOG_FIRMWARE: /* slot 1 is active and holds our version */
        *(uint8_t *)page = 1;
        memset((char *)page + 8, ' ', 8);
        memcpy((char *)page + 8, EIDOLON_VERSION, MIN(strlen(EIDOLON_VERSION), 8u));
        return 512;
    case NVME_LOG_CHANGED_NAMESPACES:
        fill_changed(nvme, page);
        return 4096;
    case NVME_LOG_COMMANDS:
        fill_commands(page);
        return 4096;
    default:
        return 0;
    }
}

unsigned nvme_get_log(struct nvme_command *command)
{
    struct nvme *nvme = command->nvme;
    const struct nvme_sqe *sqe = &command->sqe;
    unsigned id = sqe->cdw10 & 0xff;
    bool retain = sqe->cdw10 >> 15 & 1;
    uint64_t size = ((sqe->cdw10 >> 16 | (uint64_t)(sqe->cdw11 & 0xffff) << 16) + 1) * 4;
    uint64_t offset = sqe->cdw12 | (uint64_t)sqe->cdw13 << 32;
    uint32_t page[LOG_MAX / 4] = { 0 }, length = fill_page(nvme, id, page);
    unsigned status;

    if (!length)
        return NVME_INVALID_LOG_PAGE | NVME_DO_NOT_RETRY;
    if ((offset & 3) || offset >= length)
        return NVME_INVALID_FIELD | NVME_DO_NOT_RETRY;
    if (id == NVME_LOG_SMART && sqe->nsid && sqe->nsid != NVME_BROADCAST)
        return NVME_INVALID_FIELD | NVME_DO_NOT_RETRY; /* LPA: not by namespace */
    size = MIN(size, length - offset);                 /* beyond the page, nothing is defined */
    status = nvme_copy_to_guest(command, (uint8_t *)page + offset, size);
    if (status || retain)
        return status;
    if (id == NVME_LOG_CHANGED_NAMESPACES)
        nvme->changed_namespaces = 0;
    nvme_events_unmask(nvme, id);
    return NVME_OK;
}
