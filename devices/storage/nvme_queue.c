/* Submission and completion queues, and interrupts (NVM Express 1.4, 4.1, 7.2 and 7.5).
 *
 * Doorbells only store a number and ring an eventfd, so that a vCPU goes on while the loop's thread fetches. Invariants: a command is fetched only if its completion will have a place (struct nvme_cq), and if a slot of
 * nvme->commands is free; so a guest that does not consume completions stops its own queues and nothing else. Admin
 * first, then round robin with the arbitration burst. One pass fetches at most PASS_LIMIT commands, then lets the loop
 * do other things. The controller's lock held, but where said. */
#include "devices/storage/nvme_internal.h"

#include "base/log.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PASS_LIMIT 1024u

static uint64_t now_ns(const struct nvme *nvme)
{
    return clock_now_ns(nvme->pci.device.env->clock);
}

/* ---- Interrupts ---- */

void nvme_queue_update_intx(struct nvme *nvme)
{
    bool level = false;

    if (!pci_msix_enabled(&nvme->pci)) {
        for (unsigned i = 0; i <= nvme->queue_pairs && !level; i++) {
            const struct nvme_cq *cq = &nvme->cqs[i];

            level = cq->exists && cq->interrupts && cq->head != cq->tail &&
                    !(cq->vector < 32 && nvme->intms >> cq->vector & 1);
        }
    }
    if (level != nvme->pci.intx_asserted)
        pci_intx_set(&nvme->pci, level);
}

/* Interrupt coalescing (5.21.1.8): true if the interrupt may still wait. */
static bool hold_back(struct nvme *nvme, struct nvme_cq *cq)
{
    uint32_t threshold = (nvme->coalescing_config & 0xff) + 1, time = nvme->coalescing_config >> 8 & 0xff;
    uint64_t now = now_ns(nvme);

    if (!time || !cq->id || nvme->vector_uncoalesced[cq->vector] || cq->coalesced >= threshold)
        return false;
    if (!cq->coalesce_until)
        cq->coalesce_until = now + time * 100000ull;
    if (cq->coalesce_until <= now)
        return false;
    if (!timer_armed(&nvme->coalescing) || nvme->coalescing.deadline_ns > cq->coalesce_until)
        timer_arm(&nvme->coalescing, cq->coalesce_until);
    return true;
}

static void notify(struct nvme *nvme, struct nvme_cq *cq)
{
    if (hold_back(nvme, cq))
        return;
    cq->notify = false;
    cq->coalesced = 0;
    cq->coalesce_until = 0;
    if (cq->interrupts)
        pci_msix_notify(&nvme->pci, cq->vector);
}

void nvme_queue_send_interrupts(void *opaque)
{
    struct nvme *nvme = opaque;

    nvme_lock(nvme);
    if (pci_msix_enabled(&nvme->pci)) {
        for (unsigned i = 0; i <= nvme->queue_pairs; i++) {
            if (nvme->cqs[i].notify)
                notify(nvme, &nvme->cqs[i]);
        }
    }
    nvme_queue_update_intx(nvme);
    nvme_unlock(nvme);
}

static void want_interrupts(struct nvme *nvme)
{
    if (nvme->thread)
        io_thread_defer(nvme->thread, &nvme->interrupts);
    else
        nvme_queue_send_interrupts(nvme);
}

void nvme_queue_coalescing_due(void *opaque)
{
    want_interrupts(opaque); /* arms the timer again for those whose time has not come */
}

/* ---- Completions ---- */

static uint32_t used(const struct nvme_cq *cq)
{
    return (cq->tail + cq->entries - cq->head) % cq->entries;
}

static bool has_room(const struct nvme_cq *cq)
{
    return used(cq) + cq->reserved + 1 < cq->entries;
}

/* The half with the phase bit is stored last: a CPU that sees the new phase sees the rest. */
static bool store_entry(struct nvme *nvme, gpa_t gpa, const struct nvme_cqe *entry)
{
    struct physmem *mem = nvme->pci.device.env->mem;
    uint64_t *place = physmem_ram_pointer(mem, gpa, sizeof(*entry)), halves[2];

    if (!place || !nvme->dma_enabled)
        return false;
    memcpy(halves, entry, sizeof(halves));
    __atomic_store_n(place, halves[0], __ATOMIC_RELAXED);
    __atomic_store_n(place + 1, halves[1], __ATOMIC_RELEASE); /* pairs with the guest's look at the phase */
    physmem_written(mem, gpa, sizeof(*entry));
    return true;
}

static void post(struct nvme *nvme, struct nvme_sq *sq, struct nvme_cq *cq, uint16_t cid, uint32_t result,
                 unsigned status)
{
    struct nvme_cqe entry = {
        .dw0 = result,
        .sq_head = (uint16_t)sq->head,
        .sq_id = sq->id,
        .cid = cid,
        .status = (uint16_t)(status << 1 | cq->phase),
    };

    if (!store_entry(nvme, cq->base + cq->tail * sizeof(entry), &entry)) {
        nvme_fatal(nvme, "a completion queue is not in RAM");
        return;
    }
    if (++cq->tail == cq->entries) {
        cq->tail = 0;
        cq->phase = !cq->phase;
    }
    cq->coalesced++;
    cq->notify = true;
    if (!nvme->batching)
        want_interrupts(nvme);
}

bool nvme_post(struct nvme *nvme, struct nvme_sq *sq, uint16_t cid, uint32_t result, unsigned status)
{
    struct nvme_cq *cq = &nvme->cqs[sq->cq_id];
    bool rung = false;

    if (has_room(cq)) {
        post(nvme, sq, cq, cid, result, status);
        return true;
    }
    /* The next pass tries again: when the guest rings, or at once if it did so meanwhile. */
    atomic_store(&nvme->starved, true);
    for (unsigned i = 0; i < ARRAY_SIZE(nvme->rung); i++)
        rung |= atomic_load(&nvme->rung[i]) != 0;
    if (rung)
        nvme_queue_ring(nvme);
    return false;
}

/* ---- Commands ---- */

bool nvme_under_way(const struct nvme *nvme)
{
    return nvme->free_slot_count != NVME_MAX_COMMANDS;
}

static struct nvme_command *take_slot(struct nvme *nvme)
{
    unsigned slot = nvme->free_slots[nvme->free_slot_count - 1];
    struct nvme_command *command = nvme->commands[slot];

    if (!command) {
        command = calloc(1, sizeof(*command));
        if (!command)
            return NULL;
        dma_list_init(&command->data, nvme->pci.device.env->mem);
        command->slot = slot;
        nvme->commands[slot] = command;
    }
    if (!nvme_under_way(nvme))
        nvme->busy_since_ns = now_ns(nvme);
    nvme->free_slot_count--;
    command->nvme = nvme;
    command->sq = NULL;
    command->ns = NULL;
    command->result = 0;
    command->step = NULL;
    return command;
}

void nvme_command_free(struct nvme_command *command)
{
    struct nvme *nvme = command->nvme;

    free(command->buffer);
    command->buffer = NULL;
    command->nvme = NULL;
    command->sq = NULL;
    dma_list_clear(&command->data);
    nvme->free_slots[nvme->free_slot_count++] = (uint16_t)command->slot;
    if (!nvme_under_way(nvme))
        nvme->busy_ns += now_ns(nvme) - nvme->busy_since_ns;
    if (nvme->free_slot_count == 1 && !nvme->batching)
        nvme_queue_ring(nvme); /* fetching may have stopped for want of a slot */
}

static void finish_deletion(struct nvme_sq *sq)
{
    struct nvme_command *deleter = sq->deleter;

    if (!deleter || sq->under_way)
        return;
    nvme_sq_remove(sq, deleter->nvme);
    nvme_complete(deleter, NVME_OK);
}

void nvme_complete(struct nvme_command *command, unsigned status)
{
    struct nvme *nvme = command->nvme;
    struct nvme_sq *sq = command->sq;
    uint16_t cid = command->sqe.cid;
    uint32_t result = command->result;

    if (!sq) {
        nvme_command_free(command);
        nvme_reset_progress(nvme);
        return;
    }
    if (status) {
        log_event(guest_errors, "NVMe: queue %u, opcode 0x%02x: status 0x%x\n", sq->id, command->sqe.opcode, status);
        nvme_log_error(command, status);
        status |= NVME_MORE;
        result = 0;
    }
    nvme->cqs[sq->cq_id].reserved--;
    sq->under_way--;
    nvme_command_free(command);
    post(nvme, sq, &nvme->cqs[sq->cq_id], cid, result, status);
    finish_deletion(sq);
}

static void execute(struct nvme_command *command)
{
    if (command->sq->id)
        nvme_io_execute(command);
    else
        nvme_admin_execute(command);
}

static struct nvme_command *begin(struct nvme *nvme, struct nvme_sq *sq)
{
    struct nvme_command *command = take_slot(nvme);

    if (!command)
        return NULL;
    command->sq = sq;
    sq->under_way++;
    nvme->cqs[sq->cq_id].reserved++;
    return command;
}

static bool runs(const struct nvme *nvme)
{
    return (nvme->csts & (NVME_CSTS_READY | NVME_CSTS_FATAL | NVME_CSTS_SHUTDOWN)) == NVME_CSTS_READY &&
           !nvme->resetting;
}

/* The guest may have consumed completions without telling anybody, since its doorbell only kicks who is starved. */
static bool make_room(struct nvme *nvme, const struct nvme_cq *cq)
{
    if (has_room(cq))
        return true;
    atomic_store(&nvme->starved, true); /* pairs with the doorbell: it stores its value, then looks at this */
    nvme_take_doorbells(nvme);
    return has_room(cq);
}

/* Takes the next command of the queue and begins it. False: there is none, or it must wait. */
static bool fetch(struct nvme *nvme, struct nvme_sq *sq)
{
    struct nvme_command *command;
    struct nvme_sqe sqe;

    if (!sq->exists || sq->head == sq->tail || sq->deleter || !nvme->free_slot_count || !runs(nvme))
        return false;
    if (!make_room(nvme, &nvme->cqs[sq->cq_id]))
        return false;
    if (!nvme->dma_enabled ||
        !physmem_read(nvme->pci.device.env->mem, sq->base + sq->head * sizeof(sqe), &sqe, sizeof(sqe))) {
        nvme_fatal(nvme, "a submission queue is not in RAM");
        return false;
    }
    command = begin(nvme, sq);
    if (!command)
        return false;
    sq->head = sq->head + 1 == sq->entries ? 0 : sq->head + 1;
    command->sqe = sqe;
    execute(command);
    return true;
}

/* Fetches until every queue is empty or has to wait, or the budget is spent. Returns what is left of it. */
static unsigned fetch_all(struct nvme *nvme, unsigned budget)
{
    unsigned queues = nvme->queue_pairs + 1, idle = 0;
    unsigned burst = (nvme->arbitration & 7) == 7 ? 64 : 1u << (nvme->arbitration & 7);

    while (budget && fetch(nvme, &nvme->sqs[0]))
        budget--;
    nvme_events_send(nvme);
    while (budget && idle < queues) {
        struct nvme_sq *sq = &nvme->sqs[nvme->next_sq];
        unsigned count = 0;

        while (count < burst && budget && fetch(nvme, sq))
            count++, budget--;
        idle = count ? 0 : idle + 1;
        nvme->next_sq = (nvme->next_sq + 1) % queues;
    }
    return budget;
}

void nvme_queue_process(void *opaque, unsigned ready)
{
    struct nvme *nvme = opaque;
    struct nvme_namespace *ns;
    uint64_t count;
    ssize_t ignored = read(nvme->kick_fd, &count, sizeof(count));

    (void)ready, (void)ignored;
    atomic_store(&nvme->kicked, false); /* before the doorbells are looked at: one that comes later kicks again */
    atomic_store(&nvme->starved, false);
    if (!runs(nvme))
        return;
    nvme_take_doorbells(nvme);
    for (ns = nvme_namespace_next(nvme, 0); ns; ns = nvme_namespace_next(nvme, ns->nsid))
        block_plug(ns->block);
    nvme->batching = true;
    if (!fetch_all(nvme, PASS_LIMIT))
        nvme_queue_ring(nvme);
    nvme->batching = false;
    for (ns = nvme_namespace_next(nvme, 0); ns; ns = nvme_namespace_next(nvme, ns->nsid))
        block_unplug(ns->block);
    want_interrupts(nvme);
}

void nvme_queue_ring(struct nvme *nvme)
{
    uint64_t one = 1;
    ssize_t ignored;

    if (atomic_exchange(&nvme->kicked, true))
        return;
    ignored = write(nvme->kick_fd, &one, sizeof(one));
    (void)ignored;
}

void nvme_queue_restart(struct nvme *nvme, unsigned sq_id, const struct nvme_sqe *sqe)
{
    struct nvme_sq *sq = &nvme->sqs[sq_id];
    struct nvme_command *command;

    if (!sq->exists || !nvme->free_slot_count || !has_room(&nvme->cqs[sq->cq_id]))
        return;
    command = begin(nvme, sq);
    if (!command)
        return;
    command->sqe = *sqe;
    execute(command);
}

/* ---- Life of queues ---- */

void nvme_sq_set(struct nvme *nvme, unsigned id, gpa_t base, uint32_t entries, unsigned cq_id)
{
    nvme->sqs[id] = (struct nvme_sq){
        .exists = true, .id = (uint16_t)id, .cq_id = (uint16_t)cq_id, .entries = entries, .base = base
    };
    nvme->cqs[cq_id].users++;
}

void nvme_cq_set(struct nvme *nvme, unsigned id, gpa_t base, uint32_t entries, unsigned vector, bool interrupts)
{
    nvme->cqs[id] = (struct nvme_cq){
        .exists = true,
        .interrupts = interrupts,
        .phase = true,
        .id = (uint16_t)id,
        .vector = (uint16_t)vector,
        .entries = entries,
        .base = base,
    };
}

void nvme_sq_remove(struct nvme_sq *sq, struct nvme *nvme)
{
    nvme->cqs[sq->cq_id].users--;
    *sq = (struct nvme_sq){ 0 };
}

void nvme_queues_drop(struct nvme *nvme)
{
    for (unsigned i = 0; i < NVME_MAX_COMMANDS; i++) {
        struct nvme_command *command = nvme->commands[i];

        if (!command || !command->nvme)
            continue;
        /* What waits for a queue to become empty has nothing else to wait for. */
        bool waits = command->sq && !command->sq->id;

        command->sq = NULL;
        if (waits)
            nvme_command_free(command);
    }
    memset(nvme->sqs, 0, sizeof(nvme->sqs));
    memset(nvme->cqs, 0, sizeof(nvme->cqs));
    for (unsigned i = 0; i < ARRAY_SIZE(nvme->rung); i++)
        atomic_store(&nvme->rung[i], 0);
    timer_disarm(&nvme->coalescing);
    nvme_queue_update_intx(nvme);
}
