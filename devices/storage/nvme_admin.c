/* The admin command set (NVM Express 1.4, chapter 5): queues, abort, asynchronous events. Identify, features and log pages
 * have files of their own.
 *
 * Admin commands are done when they have been looked at, but for two: the deletion of a submission queue waits until the
 * commands of that queue have ended, and event requests are remembered by their identifiers alone until there is
 * something to tell. The controller's lock held. */
#include "devices/storage/nvme_internal.h"

#include "base/log.h"

#include <string.h>

/* ---- Queues (5.3 to 5.6) ---- */

static bool queue_base_ok(const struct nvme *nvme, uint64_t base, uint32_t flags)
{
    /* CAP.CQR: contiguous. An address outside RAM shows when the queue is used. */
    return (flags & 1) && !(base & ((1ull << nvme->page_shift) - 1));
}

static unsigned create_cq(struct nvme *nvme, const struct nvme_sqe *sqe)
{
    unsigned id = sqe->cdw10 & 0xffff, vector = sqe->cdw11 >> 16;
    uint32_t entries = (sqe->cdw10 >> 16) + 1;

    if (!id || id > nvme->queue_pairs || nvme->cqs[id].exists)
        return NVME_INVALID_QID | NVME_DO_NOT_RETRY;
    if (entries < 2 || entries > NVME_MAX_QUEUE_ENTRIES)
        return NVME_INVALID_QUEUE_SIZE | NVME_DO_NOT_RETRY;
    if (!queue_base_ok(nvme, sqe->prp1, sqe->cdw11))
        return (sqe->cdw11 & 1 ? NVME_INVALID_PRP_OFFSET : NVME_INVALID_FIELD) | NVME_DO_NOT_RETRY;
    if (vector >= nvme->vectors)
        return NVME_INVALID_VECTOR | NVME_DO_NOT_RETRY;
    if ((nvme->cc >> NVME_CC_IOCQES_SHIFT & 15) != 4)
        return NVME_INVALID_QUEUE_SIZE | NVME_DO_NOT_RETRY;
    nvme_cq_set(nvme, id, sqe->prp1, entries, vector, sqe->cdw11 & 2);
    return NVME_OK;
}

static unsigned create_sq(struct nvme *nvme, const struct nvme_sqe *sqe)
{
    unsigned id = sqe->cdw10 & 0xffff, cq_id = sqe->cdw11 >> 16;
    uint32_t entries = (sqe->cdw10 >> 16) + 1;

    if (!cq_id || cq_id > nvme->queue_pairs || !nvme->cqs[cq_id].exists)
        return NVME_INVALID_CQ | NVME_DO_NOT_RETRY;
    if (!id || id > nvme->queue_pairs || nvme->sqs[id].exists)
        return NVME_INVALID_QID | NVME_DO_NOT_RETRY;
    if (entries < 2 || entries > NVME_MAX_QUEUE_ENTRIES)
        return NVME_INVALID_QUEUE_SIZE | NVME_DO_NOT_RETRY;
    if (!queue_base_ok(nvme, sqe->prp1, sqe->cdw11))
        return (sqe->cdw11 & 1 ? NVME_INVALID_PRP_OFFSET : NVME_INVALID_FIELD) | NVME_DO_NOT_RETRY;
    if ((nvme->cc >> NVME_CC_IOSQES_SHIFT & 15) != 6)
        return NVME_INVALID_QUEUE_SIZE | NVME_DO_NOT_RETRY;
    nvme_sq_set(nvme, id, sqe->prp1, entries, cq_id);
    return NVME_OK;
}

static unsigned delete_cq(struct nvme *nvme, const struct nvme_sqe *sqe)
{
    unsigned id = sqe->cdw10 & 0xffff;

    if (!id || id > nvme->queue_pairs || !nvme->cqs[id].exists)
        return NVME_INVALID_QID | NVME_DO_NOT_RETRY;
    if (nvme->cqs[id].users)
        return NVME_INVALID_QUEUE_DELETION | NVME_DO_NOT_RETRY;
    nvme->cqs[id] = (struct nvme_cq){ 0 };
    return NVME_OK;
}

/* Completes the command itself, perhaps later. */
static void delete_sq(struct nvme_command *command)
{
    struct nvme *nvme = command->nvme;
    unsigned id = command->sqe.cdw10 & 0xffff;

    if (!id || id > nvme->queue_pairs || !nvme->sqs[id].exists || nvme->sqs[id].deleter) {
        nvme_complete(command, NVME_INVALID_QID | NVME_DO_NOT_RETRY);
    } else if (nvme->sqs[id].under_way) {
        nvme->sqs[id].deleter = command;
    } else {
        nvme_sq_remove(&nvme->sqs[id], nvme);
        nvme_complete(command, NVME_OK);
    }
}

/* ---- Abort (5.1) ---- Only event requests can be taken back; what a drive is doing ends by itself. */

static unsigned abort_command(struct nvme_command *command)
{
    struct nvme *nvme = command->nvme;
    unsigned sq_id = command->sqe.cdw10 & 0xffff;
    uint16_t cid = command->sqe.cdw10 >> 16;

    command->result = 1; /* not aborted */
    if (sq_id > nvme->queue_pairs || !nvme->sqs[sq_id].exists)
        return NVME_INVALID_FIELD | NVME_DO_NOT_RETRY;
    for (uint32_t i = 0; !sq_id && i < nvme->event_cid_count; i++) {
        if (nvme->event_cids[i] != cid || !nvme_post(nvme, command->sq, cid, 0, NVME_ABORT_REQUESTED))
            continue;
        memmove(&nvme->event_cids[i], &nvme->event_cids[i + 1],
                (nvme->event_cid_count - i - 1) * sizeof(nvme->event_cids[0]));
        nvme->event_cid_count--;
        command->result = 0;
        break;
    }
    return NVME_OK;
}

/* ---- Asynchronous events (5.2) ---- */

void nvme_events_send(struct nvme *nvme)
{
    uint32_t kept = 0;

    if (!nvme->sqs[0].exists)
        return;
    for (uint32_t i = 0; i < nvme->event_count; i++) {
        struct nvme_event event = nvme->events[i];
        uint32_t result = event.type | (uint32_t)event.info << 8 | (uint32_t)event.log << 16;

        /* A type that was reported says nothing more until its log page is read. */
        if (nvme->event_cid_count && !(nvme->events_masked >> event.type & 1) &&
            nvme_post(nvme, &nvme->sqs[0], nvme->event_cids[nvme->event_cid_count - 1], result, NVME_OK)) {
            nvme->event_cid_count--;
            nvme->events_masked |= 1 << event.type;
            continue;
        }
        nvme->events[kept++] = event;
    }
    nvme->event_count = kept;
}

void nvme_event(struct nvme *nvme, unsigned type, unsigned info, unsigned log)
{
    struct nvme_event event = { .type = (uint8_t)type, .info = (uint8_t)info, .log = (uint8_t)log };

    for (uint32_t i = 0; i < nvme->event_count; i++) {
        if (!memcmp(&nvme->events[i], &event, sizeof(event)))
            return;
    }
    if (!(nvme->csts & NVME_CSTS_READY) || nvme->event_count == NVME_MAX_QUEUED)
        return;
    nvme->events[nvme->event_count++] = event;
    nvme_events_send(nvme);
}

void nvme_events_unmask(struct nvme *nvme, unsigned log)
{
    switch (log) {
    case NVME_LOG_ERRORS:
        nvme->events_masked &= ~(1 << NVME_EVENT_ERROR);
        break;
    case NVME_LOG_SMART:
        nvme->events_masked &= ~(1 << NVME_EVENT_SMART);
        break;
    case NVME_LOG_CHANGED_NAMESPACES:
        nvme->events_masked &= ~(1 << NVME_EVENT_NOTICE);
        break;
    default:
        return;
    }
    nvme_events_send(nvme);
}

/* The command's slot is given back; its identifier waits. */
static void request_event(struct nvme_command *command)
{
    struct nvme *nvme = command->nvme;
    struct nvme_sq *sq = command->sq;

    if (nvme->event_cid_count == NVME_MAX_EVENTS) {
        nvme_complete(command, NVME_TOO_MANY_EVENTS | NVME_DO_NOT_RETRY);
        return;
    }
    nvme->event_cids[nvme->event_cid_count++] = command->sqe.cid;
    nvme->cqs[sq->cq_id].reserved--;
    sq->under_way--;
    nvme_command_free(command);
    nvme_events_send(nvme);
}

void nvme_admin_execute(struct nvme_command *command)
{
    struct nvme *nvme = command->nvme;
    const struct nvme_sqe *sqe = &command->sqe;
    unsigned status;

    if ((sqe->flags & 3)) {
        nvme_complete(command, NVME_INVALID_FIELD | NVME_DO_NOT_RETRY); /* fused */
        return;
    }
    switch (sqe->opcode) {
    case NVME_ADMIN_DELETE_SQ:
        delete_sq(command);
        return;
    case NVME_ADMIN_ASYNC_EVENT:
        request_event(command);
        return;
    case NVME_ADMIN_CREATE_SQ:
        status = create_sq(nvme, sqe);
        break;
    case NVME_ADMIN_CREATE_CQ:
        status = create_cq(nvme, sqe);
        break;
    case NVME_ADMIN_DELETE_CQ:
        status = delete_cq(nvme, sqe);
        break;
    case NVME_ADMIN_GET_LOG:
        status = nvme_get_log(command);
        break;
    case NVME_ADMIN_IDENTIFY:
        status = nvme_identify(command);
        break;
    case NVME_ADMIN_ABORT:
        status = abort_command(command);
        break;
    case NVME_ADMIN_SET_FEATURES:
        status = nvme_set_features(command);
        break;
    case NVME_ADMIN_GET_FEATURES:
        status = nvme_get_features(command);
        break;
    default: /* format, firmware, security, namespace management ...: OACS says that they are not there */
        log_event(unimp, "NVMe: admin command 0x%02x\n", sqe->opcode);
        status = NVME_INVALID_OPCODE | NVME_DO_NOT_RETRY;
        break;
    }
    nvme_complete(command, status);
}
