/* Message signalled interrupts (PCI Local Bus Specification 3.0, 6.8).
 *
 *   MSI capability      +0 id, next, control    control: 0 enable, 3..1 vectors capable (log2),
 *   (64-bit, masking)   +4 address low          6..4 vectors enabled (log2), 7 64-bit, 8 masking
 *                       +8 address high
 *                       +12 data
 *                       +16 mask bits
 *                       +20 pending bits
 *
 *   MSI-X capability    +0 id, next, control    control: 10..0 table size - 1, 14 function mask, 15 enable
 *                       +4 table offset | BAR   +8 pending bit array offset | BAR
 *
 * A masked message is remembered as pending and sent when it is unmasked. */
#include "devices/pci/pci_internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MSI_ENABLE = 1 << 0, MSI_64BIT = 1 << 7, MSI_MASKING = 1 << 8, MSI_SIZE = 24 };
enum { MSIX_FUNCTION_MASK = 1 << 14, MSIX_ENABLE = 1 << 15, MSIX_SIZE = 12, MSIX_ENTRY_MASKED = 1 };

/* ---- MSI ---- */

int pci_msi_add(struct pci_device *pci, unsigned vectors, struct error *err)
{
    unsigned log2 = __builtin_ctz(vectors | 0x100);
    int offset;

    if (vectors == 0 || vectors > 32 || (vectors & (vectors - 1)))
        return error_set(err, EINVAL, "%u MSI vectors: must be a power of two up to 32", vectors);
    offset = pci_capability_add(pci, PCI_CAP_MSI, MSI_SIZE, err);
    if (offset < 0)
        return offset;
    pci_set_word(pci->config + offset + 2, log2 << 1 | MSI_64BIT | MSI_MASKING);
    pci_set_word(pci->write_mask + offset + 2, MSI_ENABLE | 7 << 4);
    pci_set_long(pci->write_mask + offset + 4, 0xfffffffc);
    pci_set_long(pci->write_mask + offset + 8, 0xffffffff);
    pci_set_word(pci->write_mask + offset + 12, 0xffff);
    pci_set_long(pci->write_mask + offset + 16, 0xffffffffu >> (32 - vectors));
    pci->msi = offset;
    return 0;
}

bool pci_msi_enabled(const struct pci_device *pci)
{
    return pci->msi && (pci->config[pci->msi + 2] & MSI_ENABLE);
}

static unsigned msi_vectors(const struct pci_device *pci)
{
    uint16_t control = pci_get_word(pci->config + pci->msi + 2);
    unsigned capable = control >> 1 & 7, enabled = control >> 4 & 7;

    return 1u << MIN(capable, enabled);
}

static void msi_send(struct pci_device *pci, unsigned vector)
{
    const uint8_t *capability = pci->config + pci->msi;
    uint64_t address = pci_get_long(capability + 4) | (uint64_t)pci_get_long(capability + 8) << 32;
    uint32_t data = pci_get_word(capability + 12);

    /* The function replaces the low bits of the data by the vector's number (6.8.1.6). */
    data = (data & ~(msi_vectors(pci) - 1)) | vector;
    if (pci->config[PCI_COMMAND] & PCI_COMMAND_MASTER)
        pci_bus_send_msi(pci->bus, address, data);
}

void pci_msi_notify(struct pci_device *pci, unsigned vector)
{
    uint8_t *capability = pci->config + pci->msi;

    if (!pci_msi_enabled(pci))
        return;
    vector &= msi_vectors(pci) - 1;
    if (pci_get_long(capability + 16) >> vector & 1)
        pci_set_long(capability + 20, pci_get_long(capability + 20) | 1u << vector);
    else
        msi_send(pci, vector);
}

static void msi_send_unmasked(struct pci_device *pci)
{
    uint8_t *capability = pci->config + pci->msi;
    uint32_t ready;

    if (!pci_msi_enabled(pci))
        return;
    ready = pci_get_long(capability + 20) & ~pci_get_long(capability + 16);
    pci_set_long(capability + 20, pci_get_long(capability + 20) & ~ready);
    for (unsigned vector = 0; vector < msi_vectors(pci); vector++) {
        if (ready >> vector & 1)
            msi_send(pci, vector);
    }
}

/* ---- MSI-X ---- */

static uint16_t msix_control(const struct pci_device *pci)
{
    return pci_get_word(pci->config + pci->msix.capability + 2);
}

bool pci_msix_enabled(const struct pci_device *pci)
{
    return pci->msix.count && (msix_control(pci) & MSIX_ENABLE);
}

static void msix_try_send(struct pci_device *pci, unsigned vector)
{
    struct pci_msix *msix = &pci->msix;
    struct pci_msix_entry *entry = &msix->entries[vector];

    if ((entry->control & MSIX_ENTRY_MASKED) || (msix_control(pci) & MSIX_FUNCTION_MASK)) {
        msix->pending[vector / 64] |= BIT(vector % 64);
        return;
    }
    msix->pending[vector / 64] &= ~BIT(vector % 64);
    if (pci->config[PCI_COMMAND] & PCI_COMMAND_MASTER)
        pci_bus_send_msi(pci->bus, entry->address, entry->data);
}

void pci_msix_notify(struct pci_device *pci, unsigned vector)
{
    if (pci_msix_enabled(pci) && vector < pci->msix.count)
        msix_try_send(pci, vector);
}

static void msix_send_pending(struct pci_device *pci)
{
    struct pci_msix *msix = &pci->msix;

    if (!pci_msix_enabled(pci))
        return;
    for (unsigned vector = 0; vector < msix->count; vector++) {
        if (msix->pending[vector / 64] >> (vector % 64) & 1)
            msix_try_send(pci, vector);
    }
}

/* Table and PBA accesses are aligned dwords or quadwords (6.8.2); others read zero and are dropped. */
static uint32_t *msix_table_dword(struct pci_msix *msix, uint64_t offset)
{
    uint64_t index = offset / sizeof(struct pci_msix_entry);

    if (index >= msix->count)
        return NULL;
    return (uint32_t *)&msix->entries[index] + offset % sizeof(struct pci_msix_entry) / 4;
}

static uint64_t msix_read(void *opaque, uint64_t offset, unsigned size)
{
    struct pci_device *pci = opaque;
    struct pci_msix *msix = &pci->msix;
    uint32_t *dword = msix_table_dword(msix, offset);
    uint64_t bit = offset - msix->pba_offset;

    (void)size;
    if (offset % 4)
        return 0;
    if (dword)
        return *dword;
    if (offset >= msix->pba_offset && bit * 8 < ALIGN_UP(msix->count, 64))
        return (uint32_t)(msix->pending[bit / 8] >> (bit % 8 * 8));
    return 0;
}

static void msix_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
    struct pci_device *pci = opaque;
    uint32_t *dword = msix_table_dword(&pci->msix, offset);

    if (size != 4 || offset % 4 || !dword)
        return;
    switch (offset % sizeof(struct pci_msix_entry)) {
    case 0:
        *dword = value & ~3u;
        break;
    case 12:
        *dword = value & MSIX_ENTRY_MASKED;
        msix_send_pending(pci);
        break;
    default:
        *dword = value;
        break;
    }
}

static const struct io_ops msix_ops = { .read = msix_read, .write = msix_write, .min_size = 4, .max_size = 4 };

int pci_msix_add(struct pci_device *pci, unsigned vectors, unsigned bar, struct error *err)
{
    struct pci_msix *msix = &pci->msix;
    uint64_t table = vectors * sizeof(struct pci_msix_entry), size = 4096;
    char name[32];
    int offset, result;

    if (vectors == 0 || vectors > 2048)
        return error_set(err, EINVAL, "%u MSI-X vectors: must be 1 to 2048", vectors);
    while (size < ALIGN_UP(table, 2048) + 2048)
        size *= 2;
    snprintf(name, sizeof(name), "%.20s msix", pci->device.type->name);
    result = pci_bar_register(pci, bar, PCI_BAR_MEM32, false, size, &msix_ops, pci, name, err);
    if (result)
        return result;
    offset = pci_capability_add(pci, PCI_CAP_MSIX, MSIX_SIZE, err);
    if (offset < 0)
        return offset;
    msix->entries = calloc(vectors, sizeof(*msix->entries));
    msix->pending = calloc((vectors + 63) / 64, sizeof(*msix->pending));
    if (!msix->entries || !msix->pending) {
        pci_msi_free(pci);
        return error_set(err, ENOMEM, "no memory for %u MSI-X vectors", vectors);
    }
    msix->count = vectors;
    msix->capability = offset;
    msix->table_offset = 0;
    msix->pba_offset = ALIGN_UP(table, 2048);
    pci_set_word(pci->config + offset + 2, vectors - 1);
    pci_set_word(pci->write_mask + offset + 2, MSIX_ENABLE | MSIX_FUNCTION_MASK);
    pci_set_long(pci->config + offset + 4, bar);
    pci_set_long(pci->config + offset + 8, msix->pba_offset | bar);
    pci_msi_reset(pci);
    return 0;
}

/* ---- Common ---- */

void pci_msi_config_written(struct pci_device *pci, unsigned offset, unsigned size)
{
    if (pci->msi && pci_ranges_overlap(offset, size, pci->msi, MSI_SIZE))
        msi_send_unmasked(pci);
    if (pci->msix.count && pci_ranges_overlap(offset, size, pci->msix.capability, MSIX_SIZE))
        msix_send_pending(pci);
}

void pci_msi_reset(struct pci_device *pci)
{
    struct pci_msix *msix = &pci->msix;

    for (unsigned i = 0; i < msix->count; i++) {
        msix->entries[i] = (struct pci_msix_entry){ .control = MSIX_ENTRY_MASKED };
        msix->pending[i / 64] = 0;
    }
}

void pci_msi_free(struct pci_device *pci)
{
    free(pci->msix.entries);
    free(pci->msix.pending);
    memset(&pci->msix, 0, sizeof(pci->msix));
}
