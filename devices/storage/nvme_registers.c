/* BAR 0 of the NVMe controller: registers and doorbells (NVM Express 1.4, 3.1), enabling, reset and shutdown (7.6).
 *
 * CSTS.RDY becomes 0 after CC.EN only when no command is under way, so that no data arrive in memory which the
 * guest has taken back; commands that end meanwhile have lost their queue (nvme_queues_drop). A shutdown flushes all
 * namespaces, one after the other, before it reports that it is complete. The controller's lock held; by register accesses
 * also the device lock. */
#include "devices/storage/nvme_internal.h"

#include "base/log.h"

#include <string.h>

static unsigned shutdown_notification(uint32_t cc)
{
    return cc >> NVME_CC_SHN_SHIFT & 3;
}

void nvme_fatal(struct nvme *nvme, const char *what)
{
    if (!(nvme->csts & NVME_CSTS_FATAL))
        log_event(guest_errors, "NVMe: %s: controller fatal status\n", what);
    nvme->csts |= NVME_CSTS_FATAL;
}

void nvme_set_page_shift(struct nvme *nvme)
{
    nvme->page_shift = 12 + (nvme->cc >> NVME_CC_MPS_SHIFT & 15);
}

/* ---- Enabling ---- */

static void enable(struct nvme *nvme)
{
    uint32_t cc = nvme->cc, page_size = cc >> NVME_CC_MPS_SHIFT & 15;
    uint32_t sq_entries = (nvme->aqa & 0xfff) + 1, cq_entries = (nvme->aqa >> 16 & 0xfff) + 1;

    nvme_set_page_shift(nvme);
    if (page_size > 4 || (cc >> NVME_CC_CSS_SHIFT & 7) || (cc >> NVME_CC_AMS_SHIFT & 7)) {
        nvme_fatal(nvme, "enabled with a page size, command set or arbitration that CAP does not have");
        return;
    }
    if (sq_entries < 2 || cq_entries < 2 || ((nvme->asq | nvme->acq) & ((1ull << nvme->page_shift) - 1))) {
        nvme_fatal(nvme, "enabled with admin queues that are too small or not aligned");
        return;
    }
    nvme_cq_set(nvme, 0, nvme->acq, cq_entries, 0, true);
    nvme_sq_set(nvme, 0, nvme->asq, sq_entries, 0);
    nvme->csts |= NVME_CSTS_READY;
}

static void forget_controller_state(struct nvme *nvme)
{
    nvme->csts = 0;
    nvme->intms = 0;
    nvme->event_cid_count = 0;
    nvme->event_count = 0;
    nvme->events_masked = 0;
    nvme->next_sq = 0;
    nvme->resetting = false;
    nvme_features_reset(nvme);
}

void nvme_reset_progress(struct nvme *nvme)
{
    if (!nvme->resetting || nvme_under_way(nvme) || nvme->flushing)
        return;
    forget_controller_state(nvme);
    if (nvme->cc & NVME_CC_ENABLE)
        enable(nvme);
}

/* Controller level reset by CC.EN: all but AQA, ASQ and ACQ (7.3.2). */
static void disable(struct nvme *nvme)
{
    if (nvme->csts & NVME_CSTS_READY && !(nvme->csts & NVME_CSTS_SHUTDOWN))
        log_event(device, "NVMe: reset without shutdown\n");
    nvme->resetting = true;
    nvme_queues_drop(nvme);
    nvme_reset_progress(nvme);
}

/* ---- Shutdown ---- */

static void flush_next(struct nvme *nvme);

static void flushed(struct block_request *request)
{
    struct nvme *nvme = request->opaque;

    nvme->flushing = false;
    if (request->result)
        log_warn("%s: flush at shutdown: %s", nvme->pci.device.id, strerror(-request->result));
    if (nvme->resetting)
        nvme_reset_progress(nvme);
    else
        flush_next(nvme);
}

static void flush_next(struct nvme *nvme)
{
    struct nvme_namespace *ns = nvme_namespace_next(nvme, nvme->flush_nsid);

    if (!ns) {
        nvme->csts = (nvme->csts & ~(uint32_t)NVME_CSTS_SHUTDOWN) | NVME_CSTS_SHUTDOWN_COMPLETE;
        return;
    }
    nvme->flush_nsid = ns->nsid;
    nvme->flushing = true;
    nvme->flush = (struct block_request){ .op = BLOCK_FLUSH, .done = flushed, .opaque = nvme };
    block_submit(ns->block, &nvme->flush);
}

static void shut_down(struct nvme *nvme)
{
    if (nvme->flushing || nvme->resetting || (nvme->csts & NVME_CSTS_SHUTDOWN))
        return;
    nvme->csts |= NVME_CSTS_SHUTDOWN_UNDER_WAY;
    nvme->flush_nsid = 0;
    flush_next(nvme);
}

static void write_cc(struct nvme *nvme, uint32_t value)
{
    uint32_t old = nvme->cc;

    value &= NVME_CC_WRITABLE;
    nvme->cc = value;
    if ((old & NVME_CC_ENABLE) && !(value & NVME_CC_ENABLE)) {
        disable(nvme);
        return;
    }
    if (!(old & NVME_CC_ENABLE) && (value & NVME_CC_ENABLE)) {
        nvme->resetting |= nvme->flushing; /* a shutdown of the disabled controller goes on: enabled when it ends */
        nvme->csts &= ~(uint32_t)NVME_CSTS_SHUTDOWN;
        if (!nvme->resetting && !(nvme->csts & NVME_CSTS_FATAL))
            enable(nvme);
    }
    if (shutdown_notification(value) && !shutdown_notification(old))
        shut_down(nvme);
}

/* ---- Registers ---- */

static uint32_t read_dword(struct nvme *nvme, unsigned reg)
{
    switch (reg) {
    case NVME_REG_CAP:
        return (uint32_t)NVME_CAP;
    case NVME_REG_CAP + 4:
        return NVME_CAP >> 32;
    case NVME_REG_VS:
        return NVME_VERSION;
    case NVME_REG_INTMS:
    case NVME_REG_INTMC:
        return nvme->intms;
    case NVME_REG_CC:
        return nvme->cc;
    case NVME_REG_CSTS:
        return nvme->csts;
    case NVME_REG_AQA:
        return nvme->aqa;
    case NVME_REG_ASQ:
        return (uint32_t)nvme->asq;
    case NVME_REG_ASQ + 4:
        return nvme->asq >> 32;
    case NVME_REG_ACQ:
        return (uint32_t)nvme->acq;
    case NVME_REG_ACQ + 4:
        return nvme->acq >> 32;
    default:
        return 0; /* NSSR, CMBLOC, CMBSZ, BPINFO ...: not there. Doorbells read zero */
    }
}

static void set_half(uint64_t *reg, bool high, uint32_t value)
{
    *reg = high ? (*reg & 0xffffffff) | (uint64_t)value << 32 : (*reg & ~0xffffffffull) | value;
}

static void write_dword(struct nvme *nvme, unsigned reg, uint32_t value)
{
    bool locked = nvme->cc & NVME_CC_ENABLE; /* AQA, ASQ and ACQ: only while disabled */

    switch (reg) {
    case NVME_REG_INTMS:
        nvme->intms |= value;
        nvme_queue_update_intx(nvme);
        break;
    case NVME_REG_INTMC:
        nvme->intms &= ~value;
        nvme_queue_update_intx(nvme);
        break;
    case NVME_REG_CC:
        write_cc(nvme, value);
        break;
    case NVME_REG_AQA:
        if (!locked)
            nvme->aqa = value & 0x0fff0fff;
        break;
    case NVME_REG_ASQ:
    case NVME_REG_ASQ + 4:
        if (!locked)
            set_half(&nvme->asq, reg & 4, reg & 4 ? value : value & ~0xfffu);
        break;
    case NVME_REG_ACQ:
    case NVME_REG_ACQ + 4:
        if (!locked)
            set_half(&nvme->acq, reg & 4, reg & 4 ? value : value & ~0xfffu);
        break;
    default:
        log_event(guest_errors, "NVMe: write of 0x%x to register 0x%x\n", value, reg);
        break;
    }
}

/* ---- Doorbells (3.1.24): 4 bytes each, of submission queue y at 8y, of completion queue y at 8y + 4 ---- */

static void bad_doorbell(struct nvme *nvme, unsigned info, unsigned id, uint32_t value)
{
    log_event(guest_errors, "NVMe: doorbell of queue %u: %s (0x%x)\n", id,
              info == NVME_EVENT_BAD_DOORBELL ? "no such queue" : "value out of range", value);
    nvme_event(nvme, NVME_EVENT_ERROR, info, NVME_LOG_ERRORS);
}

static void set_sq_tail(struct nvme *nvme, unsigned id, uint32_t value)
{
    struct nvme_sq *sq = &nvme->sqs[id];

    if (!sq->exists)
        bad_doorbell(nvme, NVME_EVENT_BAD_DOORBELL, id, value);
    else if (value >= sq->entries)
        bad_doorbell(nvme, NVME_EVENT_BAD_DOORBELL_VALUE, id, value);
    else
        sq->tail = value;
}

static void set_cq_head(struct nvme *nvme, unsigned id, uint32_t value)
{
    struct nvme_cq *cq = &nvme->cqs[id];

    if (!cq->exists) {
        bad_doorbell(nvme, NVME_EVENT_BAD_DOORBELL, id, value);
        return;
    }
    /* The guest cannot have consumed what has not been posted. */
    if (value >= cq->entries ||
        (value + cq->entries - cq->head) % cq->entries > (cq->tail + cq->entries - cq->head) % cq->entries)
        bad_doorbell(nvme, NVME_EVENT_BAD_DOORBELL_VALUE, id, value);
    else
        cq->head = value;
}

void nvme_take_doorbells(struct nvme *nvme)
{
    for (unsigned word = 0; word < ARRAY_SIZE(nvme->rung); word++) {
        uint64_t rung = atomic_load(&nvme->rung[word]) ? atomic_exchange(&nvme->rung[word], 0) : 0;

        for (; rung; rung &= rung - 1) {
            unsigned index = word * 64 + (unsigned)__builtin_ctzll(rung);
            uint32_t value = atomic_load(&nvme->doorbells[index]);

            if (index & 1)
                set_cq_head(nvme, index / 2, value);
            else
                set_sq_tail(nvme, index / 2, value);
        }
    }
}

static void leave_value(struct nvme *nvme, unsigned index, uint32_t value)
{
    atomic_store(&nvme->doorbells[index], value);
    atomic_fetch_or(&nvme->rung[index / 64], BIT(index % 64));
}

/* A vCPU's thread, no lock. */
static bool write_doorbell_unlocked(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
    struct nvme *nvme = opaque;
    uint64_t index = (offset - NVME_REG_DOORBELLS) / 4;

    if (offset < NVME_REG_DOORBELLS || offset % 4 || size != 4 || index / 2 > nvme->queue_pairs ||
        !atomic_load(&nvme->doorbells_open))
        return false;
    leave_value(nvme, (unsigned)index, value & 0xffff);
    if (!(index & 1) || atomic_load(&nvme->starved))
        nvme_queue_ring(nvme);
    return true;
}

static void write_doorbell(struct nvme *nvme, uint64_t offset, uint32_t value)
{
    unsigned id = (unsigned)(offset / 8);

    if (nvme->resetting || (nvme->csts & (NVME_CSTS_READY | NVME_CSTS_FATAL)) != NVME_CSTS_READY)
        return;
    if (offset % 4 || id > nvme->queue_pairs) {
        bad_doorbell(nvme, NVME_EVENT_BAD_DOORBELL, id, value);
        return;
    }
    leave_value(nvme, (unsigned)offset / 4, value & 0xffff);
    nvme_take_doorbells(nvme);
    nvme_queue_update_intx(nvme);
    nvme_queue_ring(nvme);
}

/* ---- Accesses ---- */

static void open_doorbells(struct nvme *nvme)
{
    nvme->dma_enabled = nvme->pci.config[PCI_COMMAND] & PCI_COMMAND_MASTER;
    atomic_store(&nvme->doorbells_open,
                 (nvme->csts & NVME_CSTS_READY) && !nvme->resetting && pci_msix_enabled(&nvme->pci));
}

void nvme_pci_changed(struct pci_device *pci, unsigned offset, unsigned size)
{
    struct nvme *nvme = container_of(pci, struct nvme, pci);

    (void)offset, (void)size;
    nvme_lock(nvme);
    open_doorbells(nvme);
    nvme_queue_update_intx(nvme);
    nvme_unlock(nvme);
}

static uint64_t mmio_read(void *opaque, uint64_t offset, unsigned size)
{
    struct nvme *nvme = opaque;
    unsigned reg = (unsigned)offset & ~3u, shift = (offset & 3) * 8;
    uint64_t value;

    if (offset >= NVME_REG_DOORBELLS)
        return 0;
    nvme_lock(nvme);
    value = read_dword(nvme, reg);
    if (size == 8 || shift)
        value |= (uint64_t)read_dword(nvme, reg + 4) << 32;
    nvme_unlock(nvme);
    value >>= shift;
    return size == 8 ? value : value & ((1ull << size * 8) - 1);
}

/* Registers are written as aligned dwords or quadwords (3.1); other writes are undefined, and dropped. */
static void mmio_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
    struct nvme *nvme = opaque;

    nvme_lock(nvme);
    if (offset >= NVME_REG_DOORBELLS) {
        write_doorbell(nvme, offset - NVME_REG_DOORBELLS, (uint32_t)value);
    } else if (size < 4 || (offset & 3)) {
        log_event(guest_errors, "NVMe: write of %u bytes to register 0x%x\n", size, (unsigned)offset);
    } else {
        write_dword(nvme, (unsigned)offset, (uint32_t)value);
        if (size == 8)
            write_dword(nvme, (unsigned)offset + 4, (uint32_t)(value >> 32));
        open_doorbells(nvme);
    }
    nvme_unlock(nvme);
}

const struct io_ops nvme_register_ops = {
    .read = mmio_read,
    .write = mmio_write,
    .write_unlocked = write_doorbell_unlocked,
    .min_size = 1,
    .max_size = 8,
};

void nvme_registers_reset(struct nvme *nvme)
{
    nvme_queues_drop(nvme);
    nvme->cc = nvme->aqa = 0;
    nvme->asq = nvme->acq = 0;
    nvme->page_shift = 12;
    forget_controller_state(nvme);
    open_doorbells(nvme);
}
