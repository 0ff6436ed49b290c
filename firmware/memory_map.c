/* The memory map that every boot protocol hands to its kernel. */
#include "firmware/memory_map.h"

#include "devices/board/machine.h"

static void add(struct memory_map *map, uint64_t address, uint64_t size, enum memory_type type)
{
    if (size)
        map->ranges[map->count++] = (struct memory_range){ address, size, type };
}

void memory_map_build(struct memory_map *map, uint64_t low_ram, uint64_t high_ram)
{
    map->count = 0;
    add(map, 0, MEMORY_LOW_END, MEMORY_USABLE);
    add(map, MEMORY_LOW_END, 0xa0000 - MEMORY_LOW_END, MEMORY_RESERVED);
    add(map, MEMORY_BIOS, MIB - MEMORY_BIOS, MEMORY_RESERVED);
    add(map, MIB, low_ram > MIB ? low_ram - MIB : 0, MEMORY_USABLE);
    add(map, Q35_ECAM_BASE, Q35_ECAM_SIZE, MEMORY_RESERVED);
    add(map, MEMORY_HIGH_BASE, high_ram, MEMORY_USABLE);
}
