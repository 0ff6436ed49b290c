/* Expansion ROMs: properties romfile= and rombar=, and the ROM BAR (PCI Local Bus 3.0, 6.3; PCI Firmware 3.2, 5.1).
 *
 *   image  0 55 aa | 2 size / 512 | 6 (spare) | 18h offset of "PCIR": 4 vendor, 6 device, 10h length / 512, 15h last image
 *
 * Firmware runs a ROM only if it carries the function's own numbers; the one of a family of cards gets them here, in every
 * image, and byte 6 of an image makes up for its sum. Device lock held, or before the machine runs. */
#include "devices/pci/pci_internal.h"

#include "devices/core/boot_order.h"
#include "devices/core/rom_file.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ROM_MAX      (16 * MIB)
#define ROM_UNIT     512u
#define PCIR_POINTER 0x18
#define PCIR_SIZE    0x18u
enum { PCIR_VENDOR = 4, PCIR_DEVICE = 6, PCIR_LENGTH = 0x10, PCIR_TYPE = 0x14, PCIR_INDICATOR = 0x15 };
enum { PCIR_LAST = 0x80, PCIR_TYPE_PC = 0 };

static uint64_t rom_read(void *opaque, uint64_t offset, unsigned size)
{
    const struct pci_device *pci = opaque;
    uint64_t value = 0;

    memcpy(&value, pci->rom + offset, size);
    return value;
}

static void rom_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
    (void)opaque, (void)offset, (void)size, (void)value;
}

static const struct io_ops rom_ops = { .read = rom_read, .write = rom_write, .min_size = 1, .max_size = 8 };

static void set_number(uint8_t *image, uint8_t *field, uint16_t value)
{
    uint8_t before = field[0] + field[1], after = (uint8_t)value + (uint8_t)(value >> 8);

    image[6] += before - after;
    pci_set_word(field, value);
}

static void set_numbers(uint8_t *rom, uint64_t size, const struct pci_identity *identity)
{
    for (uint64_t start = 0; size - start >= 0x1a && rom[start] == 0x55 && rom[start + 1] == 0xaa;) {
        uint8_t *image = rom + start, *pcir;
        uint32_t offset = pci_get_word(image + PCIR_POINTER), length;

        if (offset + PCIR_SIZE > size - start || memcmp(image + offset, "PCIR", 4))
            return;
        pcir = image + offset;
        if (pcir[PCIR_TYPE] == PCIR_TYPE_PC) {
            set_number(image, pcir + PCIR_VENDOR, identity->vendor);
            set_number(image, pcir + PCIR_DEVICE, identity->device);
        } else { /* EFI images have no sum, and byte 6 is part of their header */
            pci_set_word(pcir + PCIR_VENDOR, identity->vendor);
            pci_set_word(pcir + PCIR_DEVICE, identity->device);
        }
        length = pci_get_word(pcir + PCIR_LENGTH) * ROM_UNIT;
        if ((pcir[PCIR_INDICATOR] & PCIR_LAST) || !length || length >= size - start)
            return;
        start += length;
    }
}

static int load(struct pci_device *pci, const char *file, const struct pci_identity *identity, bool own,
                struct error *err)
{
    uint64_t size, whole = 2048;
    uint8_t *data;
    char name[48];
    int result = rom_file_read(file, ROM_MAX, &data, &size, err);

    if (result)
        return error_prefix(err, result, "romfile=");
    if (!size) {
        free(data);
        return error_set(err, EINVAL, "romfile=%s: the file is empty", file);
    }
    while (whole < size)
        whole *= 2;
    pci->rom = calloc(1, whole);
    if (!pci->rom) {
        free(data);
        return error_set(err, ENOMEM, "out of memory");
    }
    memcpy(pci->rom, data, size);
    free(data);
    if (own)
        set_numbers(pci->rom, size, identity);
    snprintf(name, sizeof(name), "%.40s.rom", pci->device.type->name);
    result = pci_bar_register(pci, PCI_BAR_ROM, PCI_BAR_MEM32, false, whole, &rom_ops, pci, name, err);
    if (result)
        pci_rom_free(pci);
    return result;
}

int pci_rom_add(struct pci_device *pci, struct option_list *options, const struct pci_identity *identity,
                struct error *err)
{
    const char *file = options ? options_get(options, "romfile") : NULL;
    uint64_t bar = 1;
    int result = options ? options_get_u64(options, "rombar", 1, &bar, err) : 0;

    if (result)
        return result;
    if (bar > 1)
        return error_set(err, EINVAL, "rombar=%llu: 0 or 1 expected", (unsigned long long)bar);
    if (!bar || (file && !*file))
        return 0;
    if (file)
        return load(pci, file, identity, false, err);
    /* A card whose own ROM is not installed works without. */
    if (!identity->rom || !rom_file_exists(identity->rom))
        return 0;
    return load(pci, identity->rom, identity, true, err);
}

void pci_rom_free(struct pci_device *pci)
{
    free(pci->rom);
    pci->rom = NULL;
}

/* ---- Boot order ---- */

/* OpenFirmware's PCI binding: what a function's node is called, by class. */
static const struct {
    uint16_t class_code;
    const char *name;
} node_names[] = {
    { 0x0100, "scsi" },    { 0x0101, "ide" },        { 0x0104, "raid" }, { 0x0200, "ethernet" },
    { 0x0300, "display" }, { 0x0604, "pci-bridge" }, { 0x0c03, "usb" },
};

/* Appends the path of the function; bridges come first. */
static int put_path(const struct pci_device *pci, char *path, size_t size)
{
    uint16_t class_code = pci_get_word(pci->config + PCI_CLASS_DEVICE);
    int length, more;
    char name[32];

    snprintf(name, sizeof(name), "pci%04x,%04x", pci_get_word(pci->config + PCI_VENDOR_ID),
             pci_get_word(pci->config + PCI_DEVICE_ID));
    for (size_t i = 0; i < ARRAY_SIZE(node_names); i++) {
        if (node_names[i].class_code == class_code)
            snprintf(name, sizeof(name), "%s", node_names[i].name);
    }
    length = pci->bus->bridge ? put_path(pci->bus->bridge, path, size) : snprintf(path, size, "/pci@i0cf8");
    if (length < 0 || (size_t)length >= size)
        return -1;
    more = snprintf(path + length, size - (size_t)length, PCI_FUNCTION(pci->devfn) ? "/%s@%x,%x" : "/%s@%x", name,
                    PCI_SLOT(pci->devfn), PCI_FUNCTION(pci->devfn));
    return length + more;
}

int pci_boot_order_add(const struct pci_device *pci, int64_t index, const char *suffix, struct error *err)
{
    char path[256];
    int length = put_path(pci, path, sizeof(path));

    if (length < 0 || (size_t)length + strlen(suffix) >= sizeof(path))
        return error_set(err, ENAMETOOLONG, "bootindex: the device is behind too many bridges");
    strcpy(path + length, suffix);
    return boot_order_add(pci->device.env, index, path, err);
}
