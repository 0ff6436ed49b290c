/* Between the files of the AHCI controller. Register names as in the AHCI 1.3.1 specification, chapters 3 and 4. */
#ifndef EIDOLON_DEVICES_STORAGE_AHCI_INTERNAL_H
#define EIDOLON_DEVICES_STORAGE_AHCI_INTERNAL_H

#include "devices/pci/pci.h"
#include "devices/storage/ata.h"

#define AHCI_PORTS 6
#define AHCI_SLOTS 32

/* PxIS and PxIE */
enum {
    AHCI_IS_DHRS = 1 << 0,  /* D2H register FIS */
    AHCI_IS_PSS = 1 << 1,   /* PIO setup FIS */
    AHCI_IS_SDBS = 1 << 3,  /* set device bits FIS */
    AHCI_IS_PCS = 1 << 6,   /* connection changed: PxSERR.DIAG.X */
    AHCI_IS_OFS = 1 << 24,  /* overflow: more data than PRDs */
    AHCI_IS_HBFS = 1 << 29, /* host bus fatal: a list or its memory cannot be reached */
    AHCI_IS_TFES = 1 << 30, /* the drive reported an error */
};
enum {
    AHCI_CMD_ST = 1 << 0,
    AHCI_CMD_SUD = 1 << 1,
    AHCI_CMD_POD = 1 << 2,
    AHCI_CMD_CLO = 1 << 3,
    AHCI_CMD_FRE = 1 << 4,
    AHCI_CMD_CCS_SHIFT = 8,
    AHCI_CMD_FR = 1 << 14,
    AHCI_CMD_CR = 1 << 15,
    AHCI_CMD_ATAPI = 1 << 24,
    AHCI_CMD_DLAE = 1 << 25,
};
#define AHCI_SERR_X (1u << 26)

struct ahci;

struct ahci_port {
    struct ahci *ahci;
    struct ata_bus bus;
    unsigned number;
    uint64_t command_list, received_fis; /* PxCLB, PxFB */
    uint32_t is, ie, cmd, tfd, sig, ssts, sctl, serr, sact, ci;
    bool stopped;        /* an error stopped it; clearing ST starts it anew */
    bool software_reset; /* SRST was set by a control FIS and is not clear yet */
    bool signature_due;  /* the signature FIS waits for FRE */
    uint8_t last_slot;
    /* Not saved: no command is under way when a state is. */
    struct ata_command commands[AHCI_SLOTS];
    uint64_t headers[AHCI_SLOTS]; /* where each one's command header is */
    uint32_t active;              /* slots whose command is executing, or is being cancelled */
    int exclusive;                /* slot of the command that is not queued; -1: none */
    uint32_t draining;            /* slots whose commands were cancelled but still have I/O under way */
    bool reset_due;               /* the link comes up when they are over */
    bool processing;
};

struct ahci {
    struct pci_device pci;
    uint32_t ghc, idp_index;
    bool reset_due;
    struct ahci_port ports[AHCI_PORTS];
};

/* ahci.c */
void ahci_update_irq(struct ahci *ahci);
void ahci_port_drained(struct ahci *ahci); /* a port has no cancelled command any more */

/* ahci_port.c */
void ahci_port_init(struct ahci *ahci, unsigned number);
uint32_t ahci_port_read(struct ahci_port *port, unsigned reg);
void ahci_port_write(struct ahci_port *port, unsigned reg, uint32_t value);
void ahci_port_reset(struct ahci_port *port);                /* HBA reset: keeps PxCLB and PxFB */
void ahci_port_raise(struct ahci_port *port, uint32_t bits); /* PxIS */
struct ata_device *ahci_port_device(const struct ahci_port *port);
void ahci_port_cancel(struct ahci_port *port);
void ahci_port_after_drain(struct ahci_port *port);
void ahci_port_set_taskfile(struct ahci_port *port, uint8_t status, uint8_t error);
void ahci_port_send_signature(struct ahci_port *port);

/* ahci_command.c */
extern const struct ata_host_ops ahci_command_ops;
void ahci_process(struct ahci_port *port); /* begins what PxCI asks for */
void ahci_send_register_fis(struct ahci_port *port, const struct ata_taskfile *tf, bool interrupt);

#endif
