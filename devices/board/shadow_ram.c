/* Shadow RAM (Intel 82G33 MCH data sheet 5.1.13 ff., 82441FX data sheet 3.2.17: PAM0 .. PAM6).
 *
 * The RAM of the area is mapped all the time; a segment that is not RAM for both reads and writes is covered by a view:
 *
 *   reads  writes   shown
 *   bus    bus      the ROM; writes are lost
 *   RAM    bus      the RAM, read-only
 *   bus    RAM      the ROM; writes reach the RAM behind it, which is how a BIOS copies itself in place
 *   RAM    RAM      no view
 *
 * The views are made once and enabled by turns, so that a guest's register writes allocate nothing. Device lock held. */
#include "devices/board/shadow_ram.h"

#include <errno.h>
#include <string.h>

#define SHADOW_BASE 0xc0000ull
#define SHADOW_SIZE 0x40000ull
#define ROM_WINDOW  0x20000ull /* the firmware's share of it */

enum { TO_BUS = 0, READ_RAM = 1, WRITE_RAM = 2, TO_RAM = 3 };

static uint8_t *ram_of(struct shadow_ram *shadow, uint64_t offset)
{
    return physmem_ram_base(shadow->mem) + SHADOW_BASE + offset;
}

/* Nothing shows this RAM while it is written here, so nobody has code or copies of it. */
static void write_behind(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
    const typeof(((struct shadow_ram *)NULL)->segments[0]) *segment = opaque;

    memcpy(ram_of(segment->shadow, segment->offset + offset), &value, size);
}

static const struct io_ops write_behind_ops = { .write = write_behind, .min_size = 1, .max_size = 8 };

static uint64_t segment_offset(unsigned segment)
{
    return segment * 0x4000ull; /* the last one is 64 KiB, at f0000 */
}

static uint64_t segment_size(unsigned segment)
{
    return segment == SHADOW_SEGMENTS - 1 ? 0x10000 : 0x4000;
}

static unsigned segment_mode(const uint8_t pam[PAM_REGISTERS], unsigned segment)
{
    unsigned nibble = segment == SHADOW_SEGMENTS - 1 ? 1 : segment + 2;

    return pam[nibble / 2] >> (nibble % 2 * 4) & TO_RAM;
}

static int add_views(struct shadow_ram *shadow, unsigned segment, struct error *err)
{
    uint64_t offset = segment_offset(segment), size = segment_size(segment);
    uint8_t *rom = physmem_rom_bytes(shadow->rom) + offset;
    struct mem_region **views = shadow->views[segment];

    shadow->segments[segment].shadow = shadow;
    shadow->segments[segment].offset = offset;
    views[TO_BUS] = physmem_add_rom_view(shadow->mem, SHADOW_BASE + offset, size, rom, NULL, NULL, "isa-bios", err);
    views[READ_RAM] = physmem_add_rom_view(shadow->mem, SHADOW_BASE + offset, size, ram_of(shadow, offset), NULL, NULL,
                                           "shadow-read-only", err);
    views[WRITE_RAM] = physmem_add_rom_view(shadow->mem, SHADOW_BASE + offset, size, rom, &write_behind_ops,
                                            &shadow->segments[segment], "shadow-write-only", err);
    if (!views[TO_BUS] || !views[READ_RAM] || !views[WRITE_RAM])
        return -ENOMEM;
    for (unsigned mode = TO_BUS; mode < TO_RAM; mode++)
        physmem_set_enabled(views[mode], false);
    return 0;
}

void shadow_ram_set_rom(struct shadow_ram *shadow, const uint8_t *rom, uint64_t size)
{
    uint64_t shown = MIN(size, ROM_WINDOW);

    memcpy(physmem_rom_bytes(shadow->rom) + SHADOW_SIZE - shown, rom + size - shown, shown);
}

int shadow_ram_init(struct shadow_ram *shadow, struct physmem *mem, struct error *err)
{
    int result = 0;

    *shadow = (struct shadow_ram){ .mem = mem };
    memset(shadow->pam, TO_RAM | TO_RAM << 4, sizeof(shadow->pam));
    shadow->rom = physmem_add_rom_device(mem, SHADOW_BASE, SHADOW_SIZE, NULL, NULL, "isa-bios", err);
    if (!shadow->rom)
        return -ENOMEM;
    physmem_set_enabled(shadow->rom, false);
    for (unsigned segment = 0; segment < SHADOW_SEGMENTS && !result; segment++)
        result = add_views(shadow, segment, err);
    if (result)
        shadow_ram_destroy(shadow);
    return result;
}

void shadow_ram_set(struct shadow_ram *shadow, const uint8_t pam[PAM_REGISTERS])
{
    for (unsigned segment = 0; segment < SHADOW_SEGMENTS; segment++) {
        unsigned old = segment_mode(shadow->pam, segment), new = segment_mode(pam, segment);

        if (old == new)
            continue;
        if (new != TO_RAM)
            physmem_set_enabled(shadow->views[segment][new], true);
        if (old != TO_RAM)
            physmem_set_enabled(shadow->views[segment][old], false);
    }
    memcpy(shadow->pam, pam, sizeof(shadow->pam));
}

void shadow_ram_destroy(struct shadow_ram *shadow)
{
    for (unsigned segment = 0; segment < SHADOW_SEGMENTS; segment++) {
        for (unsigned mode = TO_BUS; mode < TO_RAM; mode++) {
            if (shadow->views[segment][mode])
                physmem_remove(shadow->views[segment][mode]);
        }
    }
    if (shadow->rom)
        physmem_remove(shadow->rom);
    *shadow = (struct shadow_ram){ 0 };
}
