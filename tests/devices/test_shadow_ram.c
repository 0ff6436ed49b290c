/* Shadow RAM: all modes of all segments, for reads and for writes. */
#include "devices/board/shadow_ram.h"

#include "rig.h"

#include <criterion/criterion.h>
#include <string.h>

static struct physmem *mem;
static struct shadow_ram shadow;
static uint8_t rom[0x40000];

static void setup(void)
{
    struct error err = { "" };

    mem = physmem_create(2 * MIB, NULL, &err);
    cr_assert_not_null(mem, "%s", err.text);
    cr_assert_not_null(physmem_add_ram(mem, 0, 2 * MIB, 0, "ram", &err));
    cr_assert_eq(shadow_ram_init(&shadow, mem, &err), 0, "%s", err.text);
    for (size_t i = 0; i < sizeof(rom); i++)
        rom[i] = (uint8_t)(i >> 8 ^ i);
    shadow_ram_set_rom(&shadow, rom, sizeof(rom));
}

static void teardown(void)
{
    shadow_ram_destroy(&shadow);
    physmem_destroy(mem);
}

TestSuite(shadow_ram, .init = setup, .fini = teardown);

static uint8_t get(gpa_t gpa)
{
    return (uint8_t)physmem_mmio_read(mem, gpa, 1);
}

static void put(gpa_t gpa, uint8_t value)
{
    physmem_mmio_write(mem, gpa, 1, value);
}

/* What is on the bus at gpa. */
static uint8_t bus(gpa_t gpa)
{
    return gpa < 0xe0000 ? 0 : rom[gpa - 0xe0000 + 0x20000];
}

static gpa_t segment_base(unsigned segment)
{
    return 0xc0000 + segment * 0x4000;
}

static void set_mode(unsigned segment, unsigned mode)
{
    uint8_t pam[PAM_REGISTERS];
    unsigned nibble = segment == 12 ? 1 : segment + 2;

    memcpy(pam, shadow.pam, sizeof(pam));
    pam[nibble / 2] = (uint8_t)((pam[nibble / 2] & ~(0xf << nibble % 2 * 4)) | mode << nibble % 2 * 4);
    shadow_ram_set(&shadow, pam);
}

Test(shadow_ram, starts_as_ram)
{
    for (unsigned segment = 0; segment < SHADOW_SEGMENTS; segment++)
        cr_assert_eq(physmem_lookup(mem, segment_base(segment)).kind, MEM_RAM);
}

Test(shadow_ram, every_segment_in_every_mode)
{
    for (unsigned segment = 0; segment < SHADOW_SEGMENTS; segment++) {
        gpa_t first = segment_base(segment), last = segment == 12 ? 0xfffff : first + 0x3fff;

        put(first, 0x11);
        put(last, 0x22);
        put(last + 1, 0x33); /* the neighbour stays RAM */
        set_mode(segment, 0);
        cr_assert_eq(get(first), bus(first), "segment %u", segment);
        cr_assert_eq(get(last), bus(last));
        cr_assert_eq(get(last + 1), 0x33);
        put(first, 0x99);
        cr_assert_eq(get(first), bus(first), "a ROM");
        set_mode(segment, 1);
        cr_assert_eq(get(first), 0x11);
        cr_assert_eq(get(last), 0x22);
        put(first, 0x99);
        cr_assert_eq(get(first), 0x11, "read-only");
        set_mode(segment, 2);
        cr_assert_eq(get(first), bus(first));
        put(first, 0x44);
        physmem_mmio_write(mem, last - 3, 4, 0x55667788);
        cr_assert_eq(get(first), bus(first));
        set_mode(segment, 3);
        cr_assert_eq(get(first), 0x44, "written behind the ROM");
        cr_assert_eq(physmem_mmio_read(mem, last - 3, 4), 0x55667788);
        put(first, 0x66);
        cr_assert_eq(get(first), 0x66);
    }
}

/* A BIOS that copies itself in place, as chip sets are made for: reads the ROM, writes the RAM, then shows the RAM. */
Test(shadow_ram, copy_in_place)
{
    for (unsigned segment = 8; segment < SHADOW_SEGMENTS; segment++)
        set_mode(segment, 2);
    for (gpa_t gpa = 0xe0000; gpa < 0x100000; gpa += 8)
        physmem_mmio_write(mem, gpa, 8, physmem_mmio_read(mem, gpa, 8));
    for (unsigned segment = 8; segment < SHADOW_SEGMENTS; segment++)
        set_mode(segment, 1);
    for (gpa_t gpa = 0xe0000; gpa < 0x100000; gpa++)
        cr_assert_eq(get(gpa), bus(gpa));
}

Test(shadow_ram, small_rom_is_at_the_end)
{
    shadow_ram_destroy(&shadow);
    cr_assert_eq(shadow_ram_init(&shadow, mem, NULL), 0);
    shadow_ram_set_rom(&shadow, rom, 0x10000);
    for (unsigned segment = 0; segment < SHADOW_SEGMENTS; segment++)
        set_mode(segment, 0);
    cr_assert_eq(get(0xefff0), 0);
    cr_assert_eq(get(0xf0001), rom[1]);
    cr_assert_eq(get(0xfffff), rom[0xffff]);
}

/* Reserved bits of a register are somebody else's. */
Test(shadow_ram, random_registers)
{
    uint64_t seed = 5;

    for (unsigned i = 0; i < 2000; i++) {
        uint64_t random = rig_random(&seed);
        uint8_t pam[PAM_REGISTERS];

        memcpy(pam, &random, sizeof(pam));
        shadow_ram_set(&shadow, pam);
        physmem_mmio_write(mem, 0xc0000 + (random >> 40) % 0x40000, 4, random);
        physmem_mmio_read(mem, 0xbfffe + (random >> 30) % 0x40000, 8);
    }
}
