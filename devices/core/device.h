/* A device: a type described by value, and an instance with what it may touch: an
 * environment of memory (DMA), ports, interrupt lines, a clock and the event loop. Devices never see a CPU.
 *
 * All callbacks run with the device lock held, unless said otherwise. */
#ifndef EIDOLON_DEVICES_CORE_DEVICE_H
#define EIDOLON_DEVICES_CORE_DEVICE_H

#include "base/error.h"
#include "base/event_loop.h"
#include "base/io_space.h"
#include "base/irq_line.h"
#include "base/options.h"
#include "base/state.h"
#include "mmu/physmem.h"

struct device;
struct boot_order;
struct pci_bus;
struct device_bus;
struct block_registry;
struct net_registry;
struct chardev_registry;
struct object_registry;
struct fsdev_registry;

/* What the machine asks of the frontend. Any thread. */
struct machine_ops {
    void (*request_reset)(void *opaque);
    void (*request_shutdown)(void *opaque);         /* ACPI S5: exit status 0 */
    void (*request_exit)(void *opaque, int status); /* isa-debug-exit */
    void (*set_a20)(void *opaque, bool enabled);
};

struct device_env {
    struct event_loop *loop;
    struct clock *clock;
    struct physmem *mem;
    struct port_space *ports;
    struct irq_line isa_irq[16]; /* inputs of the 8259 pair and IOAPIC together */
    struct irq_line gsi[24];     /* IOAPIC inputs */
    struct pci_bus *pci_bus;     /* root bus, or NULL */
    struct device_bus *buses;    /* by name: devices/core/bus.h */
    struct boot_order *boot_order;                                        /* devices/core/boot_order.h */
    void (*unplugged)(struct device_env *env, struct device *device); /* the guest has given it up: destroy it; or NULL */
    /* What devices name by id (drive=, netdev=, chardev=); the frontend's; NULL: there are none. */
    struct block_registry *blocks;
    struct net_registry *nets;
    struct chardev_registry *chardevs;
    struct object_registry *objects; /* -object; NULL: none, and no I/O threads */
    struct fsdev_registry *fsdevs;
    uint8_t com_ports; /* serial ports that are there: bit 0 is COM1 */
    const struct machine_ops *machine;
    void *machine_opaque;
};

struct device {
    const struct device_type *type;
    struct device_env *env;
    char id[64];
    struct device *next; /* the machine's list */
};

struct device_type {
    const char *name;  /* as -device takes it: "isa-debug-exit" */
    const char *alias; /* or NULL */
    const char *bus;   /* "ISA", "PCI", "System": for -device help in QEMU's form */
    const char *description;
    size_t size; /* of the instance structure; struct device is its first member */
    bool user_creatable;
    const char *properties; /* "iobase=<uint32>,iosize=<uint32>": for -device NAME,help; may be NULL */
    /* Reads its properties from `options` (left-over keys are the caller's error). 0 or -errno. */
    int (*init)(struct device *device, struct option_list *options, struct error *err);
    void (*reset)(struct device *device);
    void (*destroy)(struct device *device);
    const struct state_table *state; /* or NULL: nothing to save */
};

/* Every type, X-macro in devices/core/device_types.def. NULL if unknown. */
const struct device_type *device_type_find(const char *name);
void device_list_types(void); /* -device help, QEMU's form, to stdout */
void device_print_properties(const struct device_type *type);

/* Allocates, runs init; NULL on error. `options` may be NULL. */
struct device *device_create(struct device_env *env, const struct device_type *type, const char *id,
                             struct option_list *options, struct error *err);
void device_destroy(struct device *device);

/* For the create functions of devices that the board wires by hand: an instance of type->size zero bytes with
 * `type`, `env` and `id` (NULL: the type's name) set. Freed with free(). */
void *device_allocate(struct device_env *env, const struct device_type *type, const char *id, struct error *err);
void device_reset(struct device *device);
/* A bool that came out of a saved state: any byte becomes false or true, before anybody reads it as a bool. */
void device_load_bool(bool *value);

#endif
