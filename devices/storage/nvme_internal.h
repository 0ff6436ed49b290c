/* What the files of the NVMe controller share.
 *
 *   nvme.c            the device type, options, life, saved state
 *   nvme_namespace.c  namespaces, the nvme-ns type
 *   nvme_registers.c  BAR 0: registers, doorbells, enabling, reset and shutdown
 *   nvme_queue.c      fetching commands, posting completions, interrupts
 *   nvme_dma.c        PRP and SGL
 *   nvme_admin.c      the admin command set; nvme_identify.c, nvme_features.c, nvme_log.c its larger parts
 *   nvme_io.c         the NVM command set
 *
 * Threads. A controller belongs to an event loop: that of an I/O thread, or the main loop. Its state is guarded by that loop's
 * lock; commands are fetched and completed on the loop's thread. Registers are read and written with the device lock, and
 * take the loop's too. Doorbells take none: they leave their value in nvme->doorbells and ring an eventfd. What needs the device
 * lock (interrupts) is deferred (base/io_thread.h). */
#ifndef EIDOLON_DEVICES_STORAGE_NVME_INTERNAL_H
#define EIDOLON_DEVICES_STORAGE_NVME_INTERNAL_H

#include <stdatomic.h>

#include "base/io_thread.h"
#include "devices/block/block.h"
#include "devices/core/bus.h"
#include "devices/core/dma.h"
#include "devices/pci/pci.h"
#include "devices/storage/nvme.h"
#include "devices/storage/nvme_spec.h"
#include "devices/storage/storage_drive.h"

#define NVME_MAX_QUEUES       257 /* pairs, the admin queues among them */
#define NVME_MAX_NAMESPACES   32
#define NVME_MAX_COMMANDS     256 /* that have been fetched and are under way */
#define NVME_MAX_EVENTS       4   /* event requests that wait (AERL + 1) */
#define NVME_MAX_QUEUED       16  /* events that wait for a request */
#define NVME_ERROR_ENTRIES    4
#define NVME_MAX_VECTORS      2048
#define NVME_BROADCAST        0xffffffffu
#define NVME_TEMPERATURE      0x143 /* kelvin; it never changes */
#define NVME_TEMPERATURE_WARN 0x157
#define NVME_TEMPERATURE_CRIT 0x175

struct nvme;
struct nvme_command;

struct nvme_namespace {
    struct nvme *nvme;
    struct block *block;
    uint32_t nsid;
    uint32_t block_size, physical_block_size;
    unsigned block_shift;
    uint64_t blocks;
    uint8_t uuid[16], eui64[8];
    int bootindex; /* -1: none */
};

/* A submission queue. The guest owns [head, tail), we the rest. */
struct nvme_sq {
    bool exists;
    uint16_t id, cq_id;
    uint32_t entries, head, tail;
    gpa_t base;
    unsigned under_way;           /* commands that have been fetched and not completed */
    struct nvme_command *deleter; /* the Delete I/O SQ command that waits for under_way == 0 */
};

/* A completion queue. The guest owns [head, tail). A command is only fetched when its completion has a place here
 * (`reserved`), so that none ever waits for one. */
struct nvme_cq {
    bool exists, interrupts, phase;
    bool notify; /* something was posted since the last interrupt */
    uint16_t id, vector;
    uint32_t entries, head, tail, reserved;
    unsigned users; /* submission queues */
    gpa_t base;
    uint32_t coalesced;      /* completions since the last interrupt */
    uint64_t coalesce_until; /* when an interrupt that is held back is due; 0: none */
};

struct nvme_range { /* of Dataset Management */
    uint32_t attributes, blocks;
    uint64_t lba;
};

struct nvme_command {
    struct nvme *nvme;
    struct nvme_sq *sq; /* NULL: the queue is gone; the result is nobody's */
    struct nvme_namespace *ns;
    unsigned slot;
    struct nvme_sqe sqe;
    uint32_t result; /* dword 0 of the completion */
    struct dma_list data;
    struct block_request request;
    /* Commands of several steps: what is next. */
    void (*step)(struct nvme_command *command, int result);
    void *buffer;
    uint64_t position, end;
    struct iovec buffer_iov;
};

/* What a queue is in a saved state. */
struct nvme_saved_queue {
    uint64_t base;
    uint32_t entries, head, tail; /* entries 0: there is none */
    uint16_t peer, flags;         /* SQ: its CQ; CQ: vector; bit 0 phase, bit 1 interrupts */
};
struct nvme_saved_command {
    uint32_t valid, sq_id;
    struct nvme_sqe sqe;
};

struct nvme_event {
    uint8_t type, info, log, unused;
};

struct nvme {
    struct pci_device pci;
    struct event_loop *loop;
    struct io_thread *thread; /* whose loop that is; NULL: the main loop */
    struct device_bus bus;
    bool bus_added;
    /* Options. */
    char serial[21];
    unsigned queue_pairs, vectors, mdts;
    struct nvme_namespace *namespaces[NVME_MAX_NAMESPACES]; /* [nsid - 1] */
    struct nvme_namespace *own;                             /* the one that drive= made */

    /* Registers. */
    uint32_t cc, csts, aqa, intms;
    uint64_t asq, acq;
    bool resetting; /* CC.EN was cleared; commands are under way */
    uint32_t page_shift;

    struct nvme_sq sqs[NVME_MAX_QUEUES];
    struct nvme_cq cqs[NVME_MAX_QUEUES];
    struct nvme_saved_queue saved_sqs[NVME_MAX_QUEUES], saved_cqs[NVME_MAX_QUEUES];
    struct nvme_saved_command saved_commands[NVME_MAX_COMMANDS];
    struct pci_msix_entry saved_msix[NVME_MAX_VECTORS];
    uint64_t saved_pending[NVME_MAX_VECTORS / 64];

    /* Doorbells: submission queue y at 2y, completion queue y at 2y + 1, and a bit for each that was written. */
    _Atomic uint32_t doorbells[2 * NVME_MAX_QUEUES];
    _Atomic uint64_t rung[(2 * NVME_MAX_QUEUES + 63) / 64];
    _Atomic bool doorbells_open; /* without a lock: the controller runs, with MSI-X */
    _Atomic bool kicked;         /* the eventfd is readable */
    _Atomic bool starved;        /* a command waits for room in a completion queue */
    int kick_fd;
    struct fd_watch *kick_watch;
    struct timer coalescing; /* an interrupt that was held back is due */
    struct io_deferred interrupts;
    bool batching;                                    /* interrupts are sent when all commands have been looked at */
    bool dma_enabled;                                 /* PCI command register: bus master */
    unsigned next_sq;                                 /* whose turn it is */
    struct nvme_command *commands[NVME_MAX_COMMANDS]; /* in use if [slot]->nvme */
    uint16_t free_slots[NVME_MAX_COMMANDS];
    unsigned free_slot_count;

    /* Shutdown (CC.SHN): the namespace that is being flushed next. */
    struct block_request flush;
    bool flushing;
    uint32_t flush_nsid;

    /* Features. */
    uint32_t arbitration, power, write_atomicity, error_recovery, coalescing_config, events_config;
    uint16_t temperature_over, temperature_under;
    uint8_t write_cache;
    uint8_t vector_uncoalesced[NVME_MAX_VECTORS];
    uint64_t timestamp, timestamp_set_ns;
    uint8_t timestamp_origin;

    /* Asynchronous events. */
    uint16_t event_cids[NVME_MAX_EVENTS];
    uint32_t event_cid_count;
    struct nvme_event events[NVME_MAX_QUEUED];
    uint32_t event_count;
    uint8_t events_masked; /* types that were reported and whose log page has not been read */

    /* Log pages. */
    struct nvme_error_entry errors[NVME_ERROR_ENTRIES]; /* newest first */
    uint64_t error_count, units_read, units_written, reads, writes, media_errors, unsafe_shutdowns, busy_ns;
    uint64_t busy_since_ns; /* 0: nothing is under way */
    uint64_t created_ns;
    uint32_t changed_namespaces; /* bit nsid - 1 */
};

static inline void nvme_lock(struct nvme *nvme)
{
    event_loop_lock(nvme->loop);
}
static inline void nvme_unlock(struct nvme *nvme)
{
    event_loop_unlock(nvme->loop);
}

extern const struct device_type nvme_type;

/* ---- nvme_namespace.c ---- */

struct nvme_namespace *nvme_namespace_create(struct nvme *nvme, struct block *block, uint32_t nsid,
                                             struct option_list *options, struct error *err);
void nvme_namespace_destroy(struct nvme_namespace *ns); /* waits for what is under way */
struct nvme_namespace *nvme_namespace_find(struct nvme *nvme, uint32_t nsid);
struct nvme_namespace *nvme_namespace_next(struct nvme *nvme, uint32_t nsid); /* the first after nsid, or NULL */

/* ---- nvme_registers.c ---- */

extern const struct io_ops nvme_register_ops;
/* What was left in nvme->doorbells becomes heads and tails. */
void nvme_take_doorbells(struct nvme *nvme);
/* The PCI command register or MSI-X may have changed. Device lock. */
void nvme_pci_changed(struct pci_device *pci, unsigned offset, unsigned size);
/* Everything as after power-on. No command may be under way. */
void nvme_registers_reset(struct nvme *nvme);
void nvme_fatal(struct nvme *nvme, const char *what);
/* A command that was under way while the controller is being reset has ended. */
void nvme_reset_progress(struct nvme *nvme);
void nvme_set_page_shift(struct nvme *nvme);

/* ---- nvme_queue.c ---- */

void nvme_queue_ring(struct nvme *nvme);               /* soon, commands are fetched. Any thread, without a lock */
void nvme_queue_process(void *opaque, unsigned ready); /* the eventfd's watch */
void nvme_queue_coalescing_due(void *opaque);
/* The INTx line as the queues want it. Device lock and the loop's. */
void nvme_queue_update_intx(struct nvme *nvme);
void nvme_queue_send_interrupts(void *opaque); /* nvme->interrupts; device lock */
/* Ends a command: posts its completion (unless its queue has gone) and frees it. */
void nvme_complete(struct nvme_command *command, unsigned status);
/* Ends a command without a completion. */
void nvme_command_free(struct nvme_command *command);
bool nvme_under_way(const struct nvme *nvme);
/* Queues vanish; commands that are under way lose theirs. */
void nvme_queues_drop(struct nvme *nvme);
void nvme_sq_set(struct nvme *nvme, unsigned id, gpa_t base, uint32_t entries, unsigned cq_id);
void nvme_cq_set(struct nvme *nvme, unsigned id, gpa_t base, uint32_t entries, unsigned vector, bool interrupts);
void nvme_sq_remove(struct nvme_sq *sq, struct nvme *nvme);
/* A completion for a command identifier that has no struct nvme_command (an event request). False: no room. */
bool nvme_post(struct nvme *nvme, struct nvme_sq *sq, uint16_t cid, uint32_t result, unsigned status);
/* For a restored state: a command that had been fetched. */
void nvme_queue_restart(struct nvme *nvme, unsigned sq_id, const struct nvme_sqe *sqe);

/* ---- nvme_dma.c ---- a status; the list is complete, and inside RAM, if it is NVME_OK. */

unsigned nvme_map(struct nvme_command *command, uint64_t size);
/* Copies to or from where the command's PRPs point. */
unsigned nvme_copy_to_guest(struct nvme_command *command, const void *buffer, uint64_t size);
unsigned nvme_copy_from_guest(struct nvme_command *command, void *buffer, uint64_t size);

/* ---- Commands ---- */

void nvme_admin_execute(struct nvme_command *command);
unsigned nvme_identify(struct nvme_command *command);
unsigned nvme_get_features(struct nvme_command *command);
unsigned nvme_set_features(struct nvme_command *command);
void nvme_features_reset(struct nvme *nvme);
unsigned nvme_get_log(struct nvme_command *command);
void nvme_log_error(struct nvme_command *command, unsigned status);
void nvme_io_execute(struct nvme_command *command);

void nvme_event(struct nvme *nvme, unsigned type, unsigned info, unsigned log);
void nvme_events_send(struct nvme *nvme);
void nvme_events_unmask(struct nvme *nvme, unsigned log);
void nvme_check_temperature(struct nvme *nvme);

#endif
