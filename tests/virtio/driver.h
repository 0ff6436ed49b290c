/* A driver for virtio devices without a CPU: finds the capabilities, negotiates, and works queues of both formats the way that
 * the specification tells drivers to. Memory is touched directly, registers through the BARs. */
#ifndef EIDOLON_TESTS_VIRTIO_DRIVER_H
#define EIDOLON_TESTS_VIRTIO_DRIVER_H

#include "devices/virtio/virtio_pci.h"

#define DRIVER_BAR         0xe0000000ull
#define DRIVER_IO_BAR      0xc000
#define DRIVER_MSIX        0xe1000000ull
#define DRIVER_RAM         (16 * MIB)
#define DRIVER_QUEUES      8
#define DRIVER_PENDING     1024
#define DRIVER_BEHIND_RING 4096 /* bytes of nothing behind the descriptors, for tests that go there */

struct driver_buffer {
    gpa_t gpa;
    uint32_t length;
    bool writable;
    bool table; /* an indirect table; set by driver_add() */
};

struct driver_queue {
    struct driver *driver;
    unsigned number, size;
    bool packed, event_idx, indirect;
    gpa_t desc, avail, used;
    uint16_t next, last_used; /* split: free-running indices; packed: places */
    bool next_wrap, used_wrap;
    unsigned free_slots;
    bool no_interrupts;
    uint16_t kicked_at; /* split: available index at the last kick */
    unsigned added_since_kick;
    struct {
        void *token;
        unsigned slots;
        gpa_t table;
    } pending[DRIVER_PENDING]; /* by head or buffer id */
    uint16_t free_ids[DRIVER_PENDING];
    unsigned free_id_count;
    uint16_t chain_next[DRIVER_PENDING]; /* split: free descriptors */
    uint16_t free_head;
    unsigned kicks;
};

struct driver {
    struct device_env *env;
    struct pci_device *pci;
    uint64_t features;
    gpa_t heap; /* the next free byte of memory */
    gpa_t common, isr, device, notify;
    uint32_t multiplier;
    struct driver_queue queues[DRIVER_QUEUES];
};

/* BARs mapped, bus mastering on, capabilities found, MSI-X entries n -> data 0x40 + n, enabled if `msix`. */
void driver_bind(struct driver *driver, struct device_env *env, struct device *device, bool msix);
/* Reset to DRIVER_OK, taking `wanted` of what is offered; queues of `size` (0: the largest). */
void driver_start(struct driver *driver, uint64_t wanted, unsigned queues, unsigned size);
gpa_t driver_allocate(struct driver *driver, uint64_t size, uint64_t alignment);
void *driver_memory(struct driver *driver, gpa_t gpa);
uint8_t driver_status(struct driver *driver);
void driver_set_status(struct driver *driver, uint8_t value);

uint64_t driver_read(struct driver *driver, gpa_t address, unsigned size);
void driver_write(struct driver *driver, gpa_t address, unsigned size, uint64_t value);

/* False: the queue is full. */
bool driver_add(struct driver_queue *queue, const struct driver_buffer *buffers, unsigned count, void *token);
/* Kicks if the device wants that (or `always`). */
void driver_kick(struct driver_queue *queue, bool always);
/* The next used buffer's token, or NULL. */
void *driver_get(struct driver_queue *queue, uint32_t *length);
/* Interrupts: at the next used buffer, or none. */
void driver_want_interrupts(struct driver_queue *queue, bool wanted);

/* The bus that tests plug devices into: messages are counted by vector, INTx is a level. */
extern unsigned driver_messages[64];
extern bool driver_intx;
struct pci_bus *driver_bus(struct device_env *env);

#endif
