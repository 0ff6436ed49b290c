/* Commands of an AHCI port: from the command list to the drive, and what comes back (AHCI 1.3.1, 4.2, 5.3, 6; Serial
 * ATA 2.6, 10.3).
 *
 *   command header   dw 0: 31..16 PRDTL | 10 C | 9 B | 8 R | 7 P | 6 W | 5 ATAPI | 4..0 CFL
 *                    dw 1: PRDBC   dw 2, 3: command table
 *   command table    00 command FIS   40 packet   80 PRDs: address, address high, -, 31 I | 21..0 bytes - 1
 *   received FISes   00 DMA setup   20 PIO setup   40 D2H register   58 set device bits
 *
 * One command that is not queued is under way at a time; queued ones up to 32. An error stops the port until software
 * clears ST. All memory is the guest's and may be anything: each structure is copied before it is looked at. Device
 * lock held. */
#include "devices/storage/ahci_internal.h"

#include <errno.h>
#include <string.h>

#include "base/log.h"

enum { HEADER_SIZE = 32, TABLE_PACKET = 0x40, TABLE_PRDT = 0x80, PRD_SIZE = 16, PRDS_AT_ONCE = 64 };
enum { FIS_H2D = 0x27, FIS_D2H = 0x34, FIS_SET_BITS = 0xa1, FIS_PIO_SETUP = 0x5f };
enum { FIS_COMMAND = 1 << 7, FIS_INTERRUPT = 1 << 6, FIS_TO_HOST = 1 << 5 };
enum { AT_PIO_SETUP = 0x20, AT_D2H = 0x40, AT_SET_BITS = 0x58 };
enum { CONTROL_SRST = 1 << 2 };

/* ---- FISes to the host ---- */

static void write_fis(struct ahci_port *port, unsigned at, const void *fis, size_t size)
{
    if (port->cmd & AHCI_CMD_FRE)
        pci_dma_write(&port->ahci->pci, port->received_fis + at, fis, size);
}

/* Bytes 2..13, which register and PIO setup FISes share. Status and error are those in PxTFD. */
static void fill_registers(const struct ahci_port *port, const struct ata_taskfile *tf, uint8_t *fis)
{
    fis[2] = (uint8_t)port->tfd;
    fis[3] = (uint8_t)(port->tfd >> 8);
    for (unsigned i = 0; i < 3; i++) {
        fis[4 + i] = (uint8_t)(tf->lba >> 8 * i);
        fis[8 + i] = (uint8_t)(tf->lba >> (24 + 8 * i));
    }
    fis[7] = tf->device;
    fis[12] = (uint8_t)tf->count;
    fis[13] = (uint8_t)(tf->count >> 8);
}

void ahci_send_register_fis(struct ahci_port *port, const struct ata_taskfile *tf, bool interrupt)
{
    uint8_t fis[20] = { FIS_D2H, interrupt ? FIS_INTERRUPT : 0 };

    fill_registers(port, tf, fis);
    write_fis(port, AT_D2H, fis, sizeof(fis));
    if (interrupt)
        ahci_port_raise(port, AHCI_IS_DHRS);
}

static void send_pio_setup(struct ahci_port *port, const struct ata_command *command)
{
    uint8_t fis[20] = { FIS_PIO_SETUP, FIS_INTERRUPT | (command->progress.to_device ? 0 : FIS_TO_HOST) };

    fill_registers(port, &command->tf, fis);
    fis[2] = ATA_STATUS_DRDY | ATA_STATUS_DSC | ATA_STATUS_DRQ;
    fis[15] = command->status;
    fis[16] = (uint8_t)command->transferred;
    fis[17] = (uint8_t)(command->transferred >> 8);
    write_fis(port, AT_PIO_SETUP, fis, sizeof(fis));
    ahci_port_raise(port, AHCI_IS_PSS);
}

static void send_set_bits(struct ahci_port *port, const struct ata_command *command, uint32_t finished)
{
    uint8_t fis[8] = { FIS_SET_BITS, FIS_INTERRUPT, command->status & 0x77, command->error };

    for (unsigned i = 0; i < 4; i++)
        fis[4 + i] = (uint8_t)(finished >> 8 * i);
    write_fis(port, AT_SET_BITS, fis, sizeof(fis));
    port->tfd =
        (port->tfd & (ATA_STATUS_BSY | ATA_STATUS_DRQ)) | (uint32_t)command->error << 8 | (command->status & 0x77);
    port->sact &= ~finished;
    ahci_port_raise(port, AHCI_IS_SDBS);
}

static void fail_port(struct ahci_port *port, uint32_t why)
{
    port->stopped = true;
    ahci_port_raise(port, why);
}

/* ---- The data phase ---- */

static int add_prds(struct dma_list *list, const uint32_t *prds, unsigned count, uint64_t size)
{
    for (unsigned i = 0; i < count && list->size < size; i++) {
        const uint32_t *prd = prds + 4 * i;
        uint64_t bytes = (prd[3] & 0x3fffff) + 1ull;
        int result = dma_list_add(list, prd[0] | (uint64_t)prd[1] << 32, MIN(bytes, size - list->size));

        if (result)
            return result;
    }
    return 0;
}

/* At most 65535 PRDs: that is what the header can say. */
static int map_prds(struct ahci_port *port, struct ata_command *command, uint64_t size)
{
    struct pci_device *pci = &port->ahci->pci;
    uint32_t header[4], prds[PRDS_AT_ONCE * 4];
    uint64_t table;

    if (!pci_dma_read(pci, port->headers[command->slot], header, sizeof(header)))
        return -EFAULT;
    table = ((header[2] & ~0x7fu) | (uint64_t)header[3] << 32) + TABLE_PRDT;
    for (unsigned done = 0, total = header[0] >> 16; done < total && command->list.size < size; done += PRDS_AT_ONCE) {
        unsigned part = MIN(total - done, (unsigned)PRDS_AT_ONCE);
        int result;

        if (!pci_dma_read(pci, table + (uint64_t)done * PRD_SIZE, prds, part * PRD_SIZE))
            return -EFAULT;
        result = add_prds(&command->list, prds, part, size);
        if (result)
            return result;
    }
    return 0;
}

static void on_map(struct ata_command *command, uint64_t size)
{
    struct ahci_port *port = command->host;

    ata_dma_ready(command, map_prds(port, command, size));
}

/* ---- Ends ---- */

static void report_success(struct ahci_port *port, struct ata_command *command)
{
    uint32_t bit = 1u << command->slot, count = (uint32_t)command->transferred;
    bool pio = command->progress.pio && command->transferred;

    pci_dma_write(&port->ahci->pci, port->headers[command->slot] + 4, &count, sizeof(count));
    port->ci &= ~bit;
    ahci_port_set_taskfile(port, command->status, command->error);
    if (pio)
        send_pio_setup(port, command);
    /* The PIO setup FIS of a data-in command brings the end status along. */
    if (!pio || command->progress.to_device || command->progress.packet_command)
        ahci_send_register_fis(port, &command->tf, true);
}

static void report_error(struct ahci_port *port, struct ata_command *command)
{
    if (command->queued) {
        send_set_bits(port, command, 0);
    } else {
        ahci_port_set_taskfile(port, command->status, command->error);
        ahci_send_register_fis(port, &command->tf, true);
    }
    fail_port(port, AHCI_IS_TFES);
}

static void on_complete(struct ata_command *command, bool interrupt)
{
    struct ahci_port *port = command->host;

    (void)interrupt;
    port->active &= ~(1u << command->slot);
    if (port->exclusive == (int)command->slot)
        port->exclusive = -1;
    if (port->stopped) /* another one's error came first: the drive has aborted this one */
        return;
    if (command->host_fault) {
        fail_port(port, AHCI_IS_HBFS);
    } else if (command->status & ATA_STATUS_ERR) {
        report_error(port, command);
    } else if (command->host_short) {
        log_event(guest_errors, "ahci: port %u, slot %u: PRDs for only %llu of %llu bytes\n", port->number,
                  command->slot, (unsigned long long)command->transferred, (unsigned long long)command->progress.size);
        fail_port(port, AHCI_IS_OFS);
    } else if (command->queued) {
        send_set_bits(port, command, 1u << command->slot);
    } else {
        report_success(port, command);
    }
    ahci_process(port);
}

static void on_cancelled(struct ata_command *command)
{
    struct ahci_port *port = command->host;

    port->active &= ~(1u << command->slot);
    port->draining &= ~(1u << command->slot);
    if (!port->draining)
        ahci_port_after_drain(port);
}

const struct ata_host_ops ahci_command_ops = {
    .map = on_map,
    .complete = on_complete,
    .cancelled = on_cancelled,
};

/* ---- Beginnings ---- */

/* Software reset: a control FIS with SRST set, then one with it clear (Serial ATA 2.6, 11.4). Queued commands
 * are cancelled, and the second FIS is not looked at before their I/O has ended. */
static void run_control(struct ahci_port *port, unsigned slot, const uint8_t *fis)
{
    port->ci &= ~(1u << slot);
    if (fis[15] & CONTROL_SRST) {
        port->software_reset = true;
        ahci_port_cancel(port);
        return;
    }
    if (!port->software_reset)
        return;
    port->software_reset = false;
    ata_reset(ahci_port_device(port), true);
    ahci_port_send_signature(port);
}

static void run_command(struct ahci_port *port, unsigned slot, const uint8_t *fis, const uint8_t *packet)
{
    struct ata_command *command = &port->commands[slot];
    uint64_t lba_low = fis[4] | (uint64_t)fis[5] << 8 | (uint64_t)fis[6] << 16;
    uint64_t lba_high = fis[8] | (uint64_t)fis[9] << 8 | (uint64_t)fis[10] << 16;

    command->tf = (struct ata_taskfile){
        .command = fis[2],
        .device = fis[7],
        .feature = (uint16_t)(fis[3] | fis[11] << 8),
        .count = (uint16_t)(fis[12] | fis[13] << 8),
        .lba = lba_low | lba_high << 24,
    };
    memcpy(command->packet, packet, sizeof(command->packet));
    command->has_packet = true;
    port->active |= 1u << slot;
    port->exclusive = (int)slot;
    ahci_port_set_taskfile(port, ATA_STATUS_BSY, 0);
    ata_execute(ahci_port_device(port), command);
    /* Accepted into the queue: the drive's register FIS ends the command for the list, and makes room for the next
     * (5.3.10). */
    if (command->queued && port->exclusive == (int)slot)
        port->exclusive = -1;
    if (command->queued && command->active) {
        port->ci &= ~(1u << slot);
        ahci_port_set_taskfile(port, ATA_STATUS_DRDY | ATA_STATUS_DSC, 0);
    }
}

static void run_slot(struct ahci_port *port, unsigned slot)
{
    struct pci_device *pci = &port->ahci->pci;
    uint64_t at = port->command_list + slot * HEADER_SIZE, table;
    uint8_t start[TABLE_PACKET + 16];
    uint32_t header[4];

    port->last_slot = (uint8_t)slot;
    port->cmd = (port->cmd & ~(31u << AHCI_CMD_CCS_SHIFT)) | slot << AHCI_CMD_CCS_SHIFT;
    port->headers[slot] = at;
    if (!pci_dma_read(pci, at, header, sizeof(header))) {
        fail_port(port, AHCI_IS_HBFS);
        return;
    }
    table = (header[2] & ~0x7fu) | (uint64_t)header[3] << 32;
    if (!pci_dma_read(pci, table, start, sizeof(start))) {
        fail_port(port, AHCI_IS_HBFS);
        return;
    }
    if (start[0] != FIS_H2D || (header[0] & 31) < 2) {
        log_event(guest_errors, "ahci: port %u, slot %u: FIS of type 0x%02x, %u dwords\n", port->number, slot, start[0],
                  header[0] & 31);
        fail_port(port, AHCI_IS_HBFS);
        return;
    }
    if (start[1] & FIS_COMMAND)
        run_command(port, slot, start, start + TABLE_PACKET);
    else
        run_control(port, slot, start);
}

static bool may_begin(const struct ahci_port *port)
{
    return (port->cmd & AHCI_CMD_ST) && !port->stopped && !port->draining && !port->reset_due && port->exclusive < 0 &&
           ahci_port_device(port) && (port->ssts & 0xf) == 3;
}

/* The next slot after the last one, round robin, whose earlier command is over. At most once for each bit: nothing
 * that runs here sets bits of PxCI. */
void ahci_process(struct ahci_port *port)
{
    if (port->processing)
        return;
    port->processing = true;
    while (may_begin(port)) {
        uint32_t ready = port->ci & ~port->active;
        unsigned slot = (port->last_slot + 1u) % AHCI_SLOTS;

        if (!ready)
            break;
        while (!(ready >> slot & 1))
            slot = (slot + 1) % AHCI_SLOTS;
        run_slot(port, slot);
    }
    port->processing = false;
}
