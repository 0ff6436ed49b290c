/* NVMe controller (NVM Express Base Specification 1.4; PCI ids, model name and options as QEMU's "nvme").
 *
 * This file: the device type, its options, its life and its saved state. nvme_internal.h says where the rest is.
 *
 * A saved state holds registers, queues, and the commands that were under way, which are begun again when it is
 * loaded. Threads: the device lock is held. */
#include "devices/storage/nvme_internal.h"

#include "devices/core/object.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define QUEUE_PAIRS_DEFAULT 64
#define VECTORS_DEFAULT     65
#define MDTS_DEFAULT        7
#define BAR_SIZE_MIN        0x4000ull

static const struct pci_identity identity = {
    .vendor = 0x1b36,
    .device = 0x0010,
    .revision = 2,
    .class_code = 0x010802,
    .express = true,
};

/* ---- Set-up ---- */

static int number_option(struct option_list *options, const char *name, unsigned fallback, unsigned low, unsigned high,
                         unsigned *out, struct error *err)
{
    uint64_t value;
    int result = options_get_u64(options, name, fallback, &value, err);

    if (result)
        return result;
    if (value < low || value > high)
        return error_set(err, EINVAL, "%s=%llu: must be %u to %u", name, (unsigned long long)value, low, high);
    *out = (unsigned)value;
    return 0;
}

static int read_options(struct nvme *nvme, struct option_list *options, struct error *err)
{
    const char *serial = options_get(options, "serial");
    int result;

    if (!serial || !*serial)
        return error_set(err, EINVAL, "serial= is needed");
    if (strlen(serial) >= sizeof(nvme->serial))
        return error_set(err, EINVAL, "serial=%s: at most %zu characters", serial, sizeof(nvme->serial) - 1);
    strcpy(nvme->serial, serial);
    result =
        number_option(options, "max_ioqpairs", QUEUE_PAIRS_DEFAULT, 1, NVME_MAX_QUEUES - 1, &nvme->queue_pairs, err);
    if (!result)
        result = number_option(options, "msix_qsize", VECTORS_DEFAULT, 1, NVME_MAX_VECTORS, &nvme->vectors, err);
    if (!result)
        result = number_option(options, "mdts", MDTS_DEFAULT, 1, 10, &nvme->mdts, err);
    return result;
}

/* The I/O thread that devices share, or, where the machine has none (tests), the main loop. */
static int choose_thread(struct nvme *nvme, struct error *err)
{
    struct device_env *env = nvme->pci.device.env;

    nvme->loop = env->loop;
    if (!env->objects)
        return 0;
    nvme->thread = object_default_io_thread(env->objects, err);
    if (!nvme->thread)
        return -ENOMEM;
    nvme->loop = io_thread_loop(nvme->thread);
    return 0;
}

static int create_kick(struct nvme *nvme, struct error *err)
{
    nvme->kick_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (nvme->kick_fd < 0)
        return error_set(err, errno, "eventfd: %s", strerror(errno));
    nvme_lock(nvme);
    nvme->kick_watch = fd_watch_add(nvme->loop, nvme->kick_fd, FD_READABLE, nvme_queue_process, nvme, err);
    nvme_unlock(nvme);
    return nvme->kick_watch ? 0 : -ENOMEM;
}

static int attach(struct nvme *nvme, struct option_list *options, struct error *err)
{
    uint64_t size = BAR_SIZE_MIN;
    int result = pci_device_attach_option(&nvme->pci, options, &identity, err);

    while (size < NVME_REG_DOORBELLS + (nvme->queue_pairs + 1) * 8)
        size *= 2;
    if (!result)
        result = pci_bar_register(&nvme->pci, 0, PCI_BAR_MEM64, false, size, &nvme_register_ops, nvme, "nvme registers",
                                  err);
    if (!result)
        result = pci_msix_add(&nvme->pci, nvme->vectors, 4, err);
    if (result)
        return result;
    pci_set_interrupt_pin(&nvme->pci, 1);
    nvme->pci.config_written = nvme_pci_changed;
    pci_device_seal(&nvme->pci);
    return 0;
}

static int add_bus(struct nvme *nvme, struct error *err)
{
    struct device *device = &nvme->pci.device;
    int result;

    nvme->bus.kind = "nvme-bus";
    nvme->bus.owner = nvme;
    memcpy(nvme->bus.id, device->id, sizeof(nvme->bus.id));
    result = device_bus_add(device->env, &nvme->bus, err);
    if (result == -EEXIST && !strcmp(device->id, device->type->name))
        return 0; /* one of several without an id: nobody can name it */
    nvme->bus_added = !result;
    return result;
}

static int add_own_namespace(struct nvme *nvme, struct option_list *options, struct error *err)
{
    struct block *block = storage_claim_option(&nvme->pci.device, options, nvme->loop, err);

    if (!block)
        return -ENODEV;
    nvme->own = nvme_namespace_create(nvme, block, 1, options, err);
    if (nvme->own)
        return 0;
    block_release(block);
    return -EINVAL;
}

static void close_descriptor(void *opaque)
{
    close((int)(intptr_t)opaque);
}

static void destroy_device(struct device *device)
{
    struct nvme *nvme = container_of(device, struct nvme, pci.device);

    if (nvme->bus_added)
        device_bus_remove(device->env, &nvme->bus);
    pci_device_detach(&nvme->pci); /* waits for doorbells that are being written */
    nvme_lock(nvme);
    nvme_queues_drop(nvme);
    nvme_namespace_destroy(nvme->own);
    if (nvme->kick_watch)
        fd_watch_remove(nvme->kick_watch);
    nvme_unlock(nvme);
    if (nvme->thread)
        io_thread_cancel(nvme->thread, &nvme->interrupts);
    if (nvme->kick_fd >= 0) /* after the loop's thread has let go of it */
        event_loop_post(nvme->loop, close_descriptor, (void *)(intptr_t)nvme->kick_fd);
    for (unsigned i = 0; i < NVME_MAX_COMMANDS; i++) {
        if (nvme->commands[i])
            dma_list_free(&nvme->commands[i]->data);
        free(nvme->commands[i]);
    }
}

static int init_device(struct device *device, struct option_list *options, struct error *err)
{
    struct nvme *nvme = container_of(device, struct nvme, pci.device);
    int result;

    nvme->kick_fd = -1;
    result = choose_thread(nvme, err);
    if (result)
        return result;
    nvme->created_ns = clock_now_ns(device->env->clock);
    nvme->interrupts = (struct io_deferred){ .fn = nvme_queue_send_interrupts, .opaque = nvme };
    timer_init(&nvme->coalescing, nvme->loop, nvme_queue_coalescing_due, nvme);
    for (unsigned i = 0; i < NVME_MAX_COMMANDS; i++)
        nvme->free_slots[i] = (uint16_t)i;
    nvme->free_slot_count = NVME_MAX_COMMANDS;
    result = read_options(nvme, options, err);
    if (!result)
        result = create_kick(nvme, err);
    if (!result && options_get(options, "drive"))
        result = add_own_namespace(nvme, options, err);
    if (!result)
        result = attach(nvme, options, err);
    if (!result)
        result = add_bus(nvme, err);
    if (result)
        destroy_device(device);
    return result;
}

/* The machine is reset: what is under way ends first, since memory will be somebody else's. */
static void reset_device(struct device *device)
{
    struct nvme *nvme = container_of(device, struct nvme, pci.device);

    pci_device_reset(&nvme->pci);
    nvme_lock(nvme);
    nvme_queues_drop(nvme);
    for (struct nvme_namespace *ns = nvme_namespace_next(nvme, 0); ns; ns = nvme_namespace_next(nvme, ns->nsid))
        block_drain(ns->block);
    nvme_registers_reset(nvme);
    nvme_unlock(nvme);
}

/* ---- Saved state ---- */

enum { SAVED_PHASE = 1 << 0, SAVED_INTERRUPTS = 1 << 1 };

static void pre_save(void *owner)
{
    struct nvme *nvme = owner;
    unsigned saved = 0;

    nvme_lock(nvme);
    nvme_take_doorbells(nvme);
    for (unsigned i = 0; i < NVME_MAX_QUEUES; i++) {
        const struct nvme_sq *sq = &nvme->sqs[i];
        const struct nvme_cq *cq = &nvme->cqs[i];

        nvme->saved_sqs[i] = (struct nvme_saved_queue){ sq->base, sq->entries, sq->head, sq->tail, sq->cq_id, 0 };
        nvme->saved_cqs[i] = (struct nvme_saved_queue){
            cq->base, cq->entries, cq->head,
            cq->tail, cq->vector,  (cq->phase ? SAVED_PHASE : 0) | (cq->interrupts ? SAVED_INTERRUPTS : 0),
        };
    }
    memset(nvme->saved_commands, 0, sizeof(nvme->saved_commands));
    for (unsigned i = 0; i < NVME_MAX_COMMANDS; i++) {
        const struct nvme_command *command = nvme->commands[i];

        if (command && command->nvme && command->sq)
            nvme->saved_commands[saved++] = (struct nvme_saved_command){ 1, command->sq->id, command->sqe };
    }
    memcpy(nvme->saved_msix, nvme->pci.msix.entries, nvme->vectors * sizeof(nvme->saved_msix[0]));
    memcpy(nvme->saved_pending, nvme->pci.msix.pending, (nvme->vectors + 63) / 64 * sizeof(nvme->saved_pending[0]));
    nvme_unlock(nvme);
}

static void load_queues(struct nvme *nvme)
{
    for (unsigned i = 0; i <= nvme->queue_pairs; i++) {
        const struct nvme_saved_queue *saved = &nvme->saved_cqs[i];

        if (saved->entries < 2 || saved->entries > 4096 || saved->head >= saved->entries ||
            saved->tail >= saved->entries || saved->peer >= nvme->vectors)
            continue;
        nvme_cq_set(nvme, i, saved->base, saved->entries, saved->peer, saved->flags & SAVED_INTERRUPTS);
        nvme->cqs[i].head = saved->head;
        nvme->cqs[i].tail = saved->tail;
        nvme->cqs[i].phase = saved->flags & SAVED_PHASE;
    }
    for (unsigned i = 0; i <= nvme->queue_pairs; i++) {
        const struct nvme_saved_queue *saved = &nvme->saved_sqs[i];

        if (saved->entries < 2 || saved->entries > 4096 || saved->head >= saved->entries ||
            saved->tail >= saved->entries || saved->peer > nvme->queue_pairs || !nvme->cqs[saved->peer].exists)
            continue;
        nvme_sq_set(nvme, i, saved->base, saved->entries, saved->peer);
        nvme->sqs[i].head = saved->head;
        nvme->sqs[i].tail = saved->tail;
    }
}

/* Whatever a damaged state holds becomes something that the rest of the code can work with. */
static void sanitize(struct nvme *nvme)
{
    nvme->cc &= NVME_CC_WRITABLE;
    if ((nvme->cc >> NVME_CC_MPS_SHIFT & 15) > 4)
        nvme->cc &= ~(15u << NVME_CC_MPS_SHIFT);
    nvme->csts &= NVME_CSTS_READY | NVME_CSTS_FATAL | NVME_CSTS_SHUTDOWN;
    if ((nvme->csts & NVME_CSTS_SHUTDOWN) == NVME_CSTS_SHUTDOWN)
        nvme->csts &= ~(uint32_t)NVME_CSTS_SHUTDOWN;
    nvme->event_cid_count = MIN(nvme->event_cid_count, (uint32_t)NVME_MAX_EVENTS);
    nvme->event_count = MIN(nvme->event_count, (uint32_t)NVME_MAX_QUEUED);
    for (uint32_t i = 0; i < nvme->event_count; i++)
        nvme->events[i].type &= 7;
    nvme->coalescing_config &= 0xffff;
    nvme->timestamp_origin &= 7;
    for (unsigned i = 0; i < NVME_MAX_VECTORS; i++)
        nvme->vector_uncoalesced[i] &= 1;
}

/* Config space holds what a guest can have written; BARs and interrupt follow it. */
static void load_pci(struct pci_device *pci, const struct nvme *nvme)
{
    for (unsigned i = 0; i < PCIE_CONFIG_SIZE; i++)
        pci->config[i] = (pci->initial[i] & ~pci->write_mask[i]) | (pci->config[i] & pci->write_mask[i]);
    memcpy(pci->msix.entries, nvme->saved_msix, nvme->vectors * sizeof(nvme->saved_msix[0]));
    memcpy(pci->msix.pending, nvme->saved_pending, (nvme->vectors + 63) / 64 * sizeof(nvme->saved_pending[0]));
    pci_device_config_write(pci, PCI_COMMAND, 2, pci_get_word(pci->config + PCI_COMMAND));
}

static int post_load(void *owner, struct error *err)
{
    struct nvme *nvme = owner;

    (void)err;
    nvme_lock(nvme);
    nvme_queues_drop(nvme);
    nvme->resetting = false;
    sanitize(nvme);
    nvme_set_page_shift(nvme);
    load_queues(nvme);
    for (struct nvme_namespace *ns = nvme_namespace_next(nvme, 0); ns; ns = nvme_namespace_next(nvme, ns->nsid))
        block_set_write_cache(ns->block, nvme->write_cache);
    nvme_unlock(nvme);
    load_pci(&nvme->pci, nvme);
    nvme_lock(nvme);
    for (unsigned i = 0; i < NVME_MAX_COMMANDS; i++) {
        const struct nvme_saved_command *saved = &nvme->saved_commands[i];

        if (saved->valid && saved->sq_id <= nvme->queue_pairs)
            nvme_queue_restart(nvme, saved->sq_id, &saved->sqe);
    }
    nvme_unlock(nvme);
    nvme_queue_ring(nvme);
    return 0;
}

/* clang-format off */
static const struct state_field nvme_fields[] = {
    STATE_ARRAY(struct nvme, pci.config),
    STATE_FIELD(struct nvme, cc),
    STATE_FIELD(struct nvme, csts),
    STATE_FIELD(struct nvme, aqa),
    STATE_FIELD(struct nvme, intms),
    STATE_FIELD(struct nvme, asq),
    STATE_FIELD(struct nvme, acq),
    STATE_ARRAY(struct nvme, saved_sqs),
    STATE_ARRAY(struct nvme, saved_cqs),
    STATE_ARRAY(struct nvme, saved_commands),
    STATE_ARRAY(struct nvme, saved_msix),
    STATE_ARRAY(struct nvme, saved_pending),
    STATE_FIELD(struct nvme, arbitration),
    STATE_FIELD(struct nvme, power),
    STATE_FIELD(struct nvme, write_atomicity),
    STATE_FIELD(struct nvme, error_recovery),
    STATE_FIELD(struct nvme, coalescing_config),
    STATE_FIELD(struct nvme, events_config),
    STATE_FIELD(struct nvme, temperature_over),
    STATE_FIELD(struct nvme, temperature_under),
    STATE_FIELD(struct nvme, write_cache),
    STATE_ARRAY(struct nvme, vector_uncoalesced),
    STATE_FIELD(struct nvme, timestamp),
    STATE_FIELD(struct nvme, timestamp_set_ns),
    STATE_FIELD(struct nvme, timestamp_origin),
    STATE_ARRAY(struct nvme, event_cids),
    STATE_FIELD(struct nvme, event_cid_count),
    STATE_ARRAY(struct nvme, events),
    STATE_FIELD(struct nvme, event_count),
    STATE_FIELD(struct nvme, events_masked),
    STATE_ARRAY(struct nvme, errors),
    STATE_FIELD(struct nvme, error_count),
    STATE_FIELD(struct nvme, units_read),
    STATE_FIELD(struct nvme, units_written),
    STATE_FIELD(struct nvme, reads),
    STATE_FIELD(struct nvme, writes),
    STATE_FIELD(struct nvme, media_errors),
    STATE_FIELD(struct nvme, unsafe_shutdowns),
    STATE_FIELD(struct nvme, busy_ns),
    STATE_FIELD(struct nvme, changed_namespaces),
    STATE_END,
};
/* clang-format on */
static const struct state_table nvme_state = {
    .name = "nvme",
    .version = 1,
    .fields = nvme_fields,
    .pre_save = pre_save,
    .post_load = post_load,
};

const struct device_type nvme_type = {
    .name = "nvme",
    .bus = "PCI",
    .description = "NVM Express controller",
    .size = sizeof(struct nvme),
    .user_creatable = true,
    .properties = "drive=<str>,serial=<str>,max_ioqpairs=<uint32>,msix_qsize=<uint16>,mdts=<uint8>,"
                  "logical_block_size=<size>,physical_block_size=<size>,uuid=<str>,eui64=<uint64>,bootindex=<int32>,"
                  "addr=<slot[.function]>",
    .init = init_device,
    .reset = reset_device,
    .destroy = destroy_device,
    .state = &nvme_state,
};
