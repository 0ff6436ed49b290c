/* The area c0000 .. fffff: RAM that the chip set hides behind the bus, in 13 segments, each for reads and for writes
 * on its own (PAM registers). What lies on the bus there is the end of the firmware's ROM, and nothing below it. */
#ifndef EIDOLON_DEVICES_BOARD_SHADOW_RAM_H
#define EIDOLON_DEVICES_BOARD_SHADOW_RAM_H

#include "base/error.h"
#include "mmu/physmem.h"

#define SHADOW_SEGMENTS 13
#define PAM_REGISTERS   7

struct shadow_ram {
    struct physmem *mem;
    struct mem_region *rom;                       /* 256 KiB: what is on the bus; never enabled itself */
    struct mem_region *views[SHADOW_SEGMENTS][3]; /* by what the segment's two bits say; both set: plain RAM, no view */
    struct {
        struct shadow_ram *shadow;
        uint64_t offset; /* of the segment from c0000 */
    } segments[SHADOW_SEGMENTS];
    uint8_t pam[PAM_REGISTERS]; /* as they are in effect */
};

/* RAM covers the area already, at the same offset in the machine's RAM. All of it is RAM until shadow_ram_set(). */
int shadow_ram_init(struct shadow_ram *shadow, struct physmem *mem, struct error *err);
/* The firmware, of which the last 128 KiB show here: copied. Before the machine runs. */
void shadow_ram_set_rom(struct shadow_ram *shadow, const uint8_t *rom, uint64_t size);
/*   PAM0  7..4 f0000..fffff | 3..0 0          per nibble: bit 0 reads, bit 1 writes go to RAM
 *   PAM1  7..4 c4000..c7fff | 3..0 c0000..c3fff        PAM2 .. PAM6 the same from c8000 to effff */
void shadow_ram_set(struct shadow_ram *shadow, const uint8_t pam[PAM_REGISTERS]);
void shadow_ram_destroy(struct shadow_ram *shadow);

#endif
