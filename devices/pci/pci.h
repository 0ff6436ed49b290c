/* PCI: buses, functions and their configuration space, base address registers, INTx,
 * MSI and MSI-X (PCI Local Bus 3.0, PCI Express Base 4.0 chapter 7).
 *
 * A device embeds struct pci_device as its first member; its type's init calls
 * pci_device_attach(), then registers BARs and capabilities; its destroy calls
 * pci_device_detach(). Everything here runs with the device lock held. */
#ifndef EIDOLON_DEVICES_PCI_PCI_H
#define EIDOLON_DEVICES_PCI_PCI_H

#include "devices/core/device.h"

#define PCI_CONFIG_SIZE           256u
#define PCIE_CONFIG_SIZE          4096u
#define PCI_DEVFN(slot, function) ((uint8_t)((slot) << 3 | (function)))
#define PCI_SLOT(devfn)           ((devfn) >> 3)
#define PCI_FUNCTION(devfn)       ((devfn)&7)
#define PCI_PIRQ_COUNT            8
#define PCI_BAR_COUNT             7 /* six and the expansion ROM */
#define PCI_BAR_ROM               6

/* Offsets in the configuration header. */
enum {
    PCI_VENDOR_ID = 0x00,
    PCI_DEVICE_ID = 0x02,
    PCI_COMMAND = 0x04,
    PCI_STATUS = 0x06,
    PCI_REVISION = 0x08,
    PCI_CLASS_PROG = 0x09,
    PCI_CLASS_DEVICE = 0x0a,
    PCI_CACHE_LINE = 0x0c,
    PCI_LATENCY = 0x0d,
    PCI_HEADER_TYPE = 0x0e,
    PCI_BIST = 0x0f,
    PCI_BAR0 = 0x10,
    PCI_SUBSYSTEM_VENDOR = 0x2c,
    PCI_SUBSYSTEM_ID = 0x2e,
    PCI_ROM_ADDRESS = 0x30,
    PCI_CAPABILITIES = 0x34,
    PCI_INTERRUPT_LINE = 0x3c,
    PCI_INTERRUPT_PIN = 0x3d,
};
enum {
    PCI_COMMAND_IO = 1 << 0,
    PCI_COMMAND_MEMORY = 1 << 1,
    PCI_COMMAND_MASTER = 1 << 2,
    PCI_COMMAND_PARITY = 1 << 6,
    PCI_COMMAND_SERR = 1 << 8,
    PCI_COMMAND_INTX_DISABLE = 1 << 10,
    PCI_STATUS_INTERRUPT = 1 << 3,
    PCI_STATUS_CAPABILITIES = 1 << 4,
};
enum { PCI_CAP_PM = 0x01, PCI_CAP_MSI = 0x05, PCI_CAP_VENDOR = 0x09, PCI_CAP_EXPRESS = 0x10, PCI_CAP_MSIX = 0x11 };

enum pci_bar_kind { PCI_BAR_NONE, PCI_BAR_IO, PCI_BAR_MEM32, PCI_BAR_MEM64 };

struct pci_device;

struct pci_bar {
    enum pci_bar_kind kind;
    bool prefetch;
    bool mapped; /* in the port space or physmem, at `address` */
    uint64_t size, address;
    const struct io_ops *ops;
    void *opaque;
    char name[48];
    struct mem_region *region; /* memory BARs, while mapped */
};

struct pci_msix_entry {
    uint64_t address;
    uint32_t data, control; /* control bit 0: masked */
};

struct pci_msix {
    struct pci_msix_entry *entries;
    uint64_t *pending; /* the PBA: a bit per entry */
    unsigned count;    /* 0: no MSI-X */
    uint32_t table_offset, pba_offset;
    uint8_t capability; /* offset in config space */
};

/* Identity of a function. subsystem 0/0: 1af4:1100, as QEMU's devices carry. */
struct pci_identity {
    uint16_t vendor, device;
    uint8_t revision;
    uint32_t class_code; /* class, subclass, programming interface: 0x060100 */
    uint16_t subsystem_vendor, subsystem;
    bool express; /* 4 KiB of configuration space */
    const char *rom; /* file of its expansion ROM unless romfile= says otherwise; NULL: none */
};

struct pci_device {
    struct device device;
    struct pci_bus *bus; /* NULL: not attached */
    uint8_t devfn;
    uint16_t config_size;
    bool intx_asserted;     /* what the device wants */
    bool intx_driven;       /* what the bus sees: asserted and not disabled */
    uint8_t capability_end; /* where the next capability goes */
    uint8_t msi;            /* offset of the MSI capability, 0: none */
    struct pci_msix msix;
    struct pci_bus *secondary; /* of a bridge: the bus behind it; else NULL */
    bool bridge_in_reset;      /* of a bridge: its control register holds what is behind in reset */
    uint8_t *rom;              /* bytes of the expansion ROM, bars[PCI_BAR_ROM].size of them; or NULL */
    struct pci_bar bars[PCI_BAR_COUNT];
    uint8_t config[PCIE_CONFIG_SIZE];
    uint8_t write_mask[PCIE_CONFIG_SIZE]; /* bits that the guest may change */
    uint8_t clear_mask[PCIE_CONFIG_SIZE]; /* bits that writing 1 clears */
    uint8_t initial[PCIE_CONFIG_SIZE];    /* restored by pci_device_reset() */
    /* Called after a write has changed config space; may be NULL. */
    void (*config_written)(struct pci_device *device, unsigned offset, unsigned size);
    /* Called before config space is read: for registers that are windows to something else; may be NULL. */
    void (*config_reading)(struct pci_device *device, unsigned offset, unsigned size);
};

/* ---- Functions ---- */

/* Puts the function on the bus. devfn < 0: the first free slot from 1 on. -EBUSY, -ENOSPC. */
int pci_device_attach(struct pci_device *pci, struct pci_bus *bus, int devfn, const struct pci_identity *identity,
                      struct error *err);
/* As above, on the bus that the property bus=ID names, else env->pci_bus, at the place that addr=SLOT[.FUNCTION] (hex)
 * names, if any. Takes multifunction=, romfile=, rombar= too. */
int pci_device_attach_option(struct pci_device *pci, struct option_list *options, const struct pci_identity *identity,
                             struct error *err);
void pci_device_detach(struct pci_device *pci);
/* The configuration registers as they were after init (BARs unmapped, command 0, MSI off), INTx low. */
void pci_device_reset(struct pci_device *pci);
/* Config space as it is now is what reset restores. Called once by attach's user, at the end of init. */
void pci_device_seal(struct pci_device *pci);

uint32_t pci_device_config_read(struct pci_device *pci, unsigned offset, unsigned size);
void pci_device_config_write(struct pci_device *pci, unsigned offset, unsigned size, uint32_t value);

/* Device side: no masks. */
void pci_set_byte(uint8_t *config, uint8_t value);
void pci_set_word(uint8_t *config, uint16_t value);
void pci_set_long(uint8_t *config, uint32_t value);
uint16_t pci_get_word(const uint8_t *config);
uint32_t pci_get_long(const uint8_t *config);

/* size: a power of two, at least 4 (I/O) or 16 (memory). The range appears and vanishes as the guest
 * programs it. MEM64 takes two slots. */
int pci_bar_register(struct pci_device *pci, unsigned index, enum pci_bar_kind kind, bool prefetch, uint64_t size,
                     const struct io_ops *ops, void *opaque, const char *name, struct error *err);
/* Where the BAR is decoded now; false: nowhere. */
bool pci_bar_address(const struct pci_device *pci, unsigned index, uint64_t *address);

/* Adds a capability of `size` bytes (header included), zeroed and read-only but for its header. Returns
 * its offset, or -ENOSPC. */
int pci_capability_add(struct pci_device *pci, uint8_t id, unsigned size, struct error *err);

/* ---- Interrupts ---- */

/* Interrupt pin 1 (INTA#) .. 4; init time. */
void pci_set_interrupt_pin(struct pci_device *pci, unsigned pin);
void pci_intx_set(struct pci_device *pci, bool level);

/* vectors: a power of two up to 32; 64-bit addresses, per-vector masking. */
int pci_msi_add(struct pci_device *pci, unsigned vectors, struct error *err);
bool pci_msi_enabled(const struct pci_device *pci);
/* Sends message `vector` (taken modulo what the guest enabled), or marks it pending if masked. */
void pci_msi_notify(struct pci_device *pci, unsigned vector);

/* Table and PBA in a memory BAR of their own, which this registers. */
int pci_msix_add(struct pci_device *pci, unsigned vectors, unsigned bar, struct error *err);
bool pci_msix_enabled(const struct pci_device *pci);
void pci_msix_notify(struct pci_device *pci, unsigned vector);

/* ---- DMA ---- false if bus mastering is off or any byte was not memory. */
bool pci_dma_read(struct pci_device *pci, gpa_t gpa, void *buffer, uint64_t size);
bool pci_dma_write(struct pci_device *pci, gpa_t gpa, const void *buffer, uint64_t size);

/* ---- Buses ---- */

/* An entry of the boot order for what the function drives: `suffix` continues its path: "/disk@0,0". index < 0: none. */
int pci_boot_order_add(const struct pci_device *pci, int64_t index, const char *suffix, struct error *err);

/* Where a root bus's interrupts go. */
struct pci_bus_ops {
    /* One of the eight PIRQ inputs of the interrupt router changed level. */
    void (*pirq_set)(void *opaque, unsigned pirq, bool level);
    /* Which PIRQ pin 0..3 of a function is wired to. */
    unsigned (*pirq_map)(void *opaque, uint8_t devfn, unsigned pin);
    void (*msi)(void *opaque, uint64_t address, uint32_t data);
};

struct pci_bus *pci_bus_create(struct device_env *env, const struct pci_bus_ops *ops, void *opaque);
void pci_bus_destroy(struct pci_bus *bus); /* all functions detached before */
/* The name for bus=ID. */
int pci_bus_set_name(struct pci_bus *bus, const char *id, struct error *err);
struct pci_device *pci_bus_find(struct pci_bus *bus, unsigned bus_number, uint8_t devfn); /* or NULL */
void pci_bus_send_msi(struct pci_bus *bus, uint64_t address, uint32_t data);

/* Configuration access by the host bridge: absent functions read ones. */
uint32_t pci_bus_config_read(struct pci_bus *bus, unsigned bus_number, uint8_t devfn, unsigned offset, unsigned size);
void pci_bus_config_write(struct pci_bus *bus, unsigned bus_number, uint8_t devfn, unsigned offset, unsigned size,
                          uint32_t value);

/* ---- Bridges ---- */

/* After pci_device_attach(): makes the function a bridge (header type 1) with an empty bus behind it, named `id`. Its
 * config_written calls pci_bridge_config_written(), its reset ends with pci_bridge_update(), its destroy begins with
 * pci_bridge_destroy(): all functions behind it are gone by then. */
int pci_bridge_init(struct pci_device *pci, const char *id, bool single_slot, struct error *err);
void pci_bridge_config_written(struct pci_device *pci, unsigned offset, unsigned size);
void pci_bridge_update(struct pci_device *pci);
void pci_bridge_destroy(struct pci_device *pci);

/* pcie-root-port: asks the guest to give up what is behind it, as somebody who presses the slot's attention button.
 * env->unplugged() is called when it has. */
void pcie_root_port_request_unplug(struct pci_device *port);

/* ---- The q35 chipset's own functions, wired by the board ---- */

struct shadow_ram;
/* 00:00.0: ports CF8 and CFC, PCIEXBAR, PAM registers. _set_up(): as firmware leaves it. */
struct device *mch_create(struct device_env *env, struct shadow_ram *shadow, struct error *err);
void mch_set_up(struct pci_device *mch);
/* 00:1f.0. The hooks are called when something may have changed, and find out themselves. */
struct ich9_lpc_hooks {
    void (*route)(void *opaque);                  /* the routing of PIRQs */
    void (*pm_base)(void *opaque, uint16_t base); /* 0: nowhere */
};
struct pci_device *ich9_lpc_create(struct device_env *env, const struct ich9_lpc_hooks *hooks, void *opaque,
                                   struct error *err);
void ich9_lpc_set_up(struct pci_device *lpc);
/* LPC_EN: which legacy devices are behind the bridge; the DSDT reports those. Before the machine runs. */
enum { LPC_EN_COM1 = 1 << 0, LPC_EN_COM2 = 1 << 1, LPC_EN_KBC = 1 << 10 };
void ich9_lpc_set_enabled(struct pci_device *lpc, uint16_t devices);
/* The PIRQ's ISA interrupt as the LPC bridge routes it, or -1 if that is off. */
int ich9_lpc_pirq_route(const struct pci_device *lpc, unsigned pirq);

#endif
