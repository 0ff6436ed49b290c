/* A PCI bus, some memory, and ATA controllers with drives on them, for drivers that are test code. No CPU, no time: I/O
 * is done when fake_disk_run() says so. */
#ifndef EIDOLON_TESTS_STORAGE_ATA_RIG_H
#define EIDOLON_TESTS_STORAGE_ATA_RIG_H

#include "devices/core/device.h"
#include "devices/pci/pci.h"
#include "devices/storage/ata.h"
#include "fake_disk.h"
#include "tests/devices/fake_loop.h"

#define RAM_SIZE  (16 * MIB)
#define MMIO_BASE 0x2000000ull /* a device that nobody may reach by DMA */
#define DISK_SIZE (4 * MIB)
#define CD_SIZE   (1 * MIB)

struct ata_rig {
    struct clock clock;
    struct device_env env;
    bool isa[16], pirq[8];
    unsigned isa_rises[16], messages, mmio_accesses;
    struct fake_disk *disk, *disk2, *cd;
    struct device *devices[8];
    unsigned device_count;
};

void ata_rig_init(struct ata_rig *rig);
void ata_rig_destroy(struct ata_rig *rig); /* all I/O is done first */
/* As -device; must succeed. */
struct device *ata_rig_add(struct ata_rig *rig, const char *option);
/* As -device; the error's text, or NULL if there was none. */
const char *ata_rig_refused(struct ata_rig *rig, const char *option);
struct pci_device *ata_rig_pci(struct ata_rig *rig, unsigned index);

void ata_round_trip(struct device *device);
void ata_load_garbage(struct device *device, uint64_t seed, unsigned rounds);

uint64_t ata_random(uint64_t *seed);
void ram_write(struct ata_rig *rig, gpa_t gpa, const void *data, size_t size);
void ram_fill(struct ata_rig *rig, gpa_t gpa, uint8_t byte, size_t size);
uint8_t *ram(struct ata_rig *rig, gpa_t gpa);
void ram_write32(struct ata_rig *rig, gpa_t gpa, uint32_t value);
/* [gpa, gpa + size) is what an untouched drive has at `offset`. */
bool ram_has_pattern(struct ata_rig *rig, gpa_t gpa, uint64_t offset, size_t size);

#endif
