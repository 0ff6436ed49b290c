/* The machine's memory as firmware reports it (ACPI 6.4 section 15, E820). */
#ifndef EIDOLON_FIRMWARE_MEMORY_MAP_H
#define EIDOLON_FIRMWARE_MEMORY_MAP_H

#include "base/types.h"

#define MEMORY_LOW_END   0x9fc00ull /* conventional memory ends; the extended BIOS data area's place */
#define MEMORY_BIOS      0xf0000ull /* ACPI and SMBIOS tables, up to 1 MiB */
#define MEMORY_HIGH_BASE 0x100000000ull

enum memory_type { MEMORY_USABLE = 1, MEMORY_RESERVED = 2 };

struct memory_range {
    uint64_t address, size;
    uint32_t type; /* enum memory_type */
};

#define MEMORY_MAP_MAX 8
struct memory_map {
    struct memory_range ranges[MEMORY_MAP_MAX]; /* ascending */
    unsigned count;
};

void memory_map_build(struct memory_map *map, uint64_t low_ram, uint64_t high_ram);

#endif
