/* The map of physical memory: overlaps, moves, what is smaller than a page, accesses that straddle, DMA into
 * holes, tracking. (Look-ups while the map changes are in test_concurrent.c.) */
#include <criterion/criterion.h>
#include <string.h>

#include "mmu/physmem.h"
#include "random.h"

#define RAM (64 * MIB)

static struct physmem *memory_create(void)
{
    struct error err;
    struct physmem *mem = physmem_create(RAM, NULL, &err);

    cr_assert(mem, "%s", err.text);
    return mem;
}

/* MMIO that reads as its own offset, per byte, plus a base; writes are counted. */
struct device {
    uint8_t base;
    unsigned writes;
    uint64_t last_offset, last_value;
    unsigned last_size;
};

static uint64_t device_read(void *opaque, uint64_t offset, unsigned size)
{
    struct device *device = opaque;
    uint64_t value = 0;

    for (unsigned i = 0; i < size; i++)
        value |= (uint64_t)(uint8_t)(device->base + offset + i) << i * 8;
    return value;
}

static void device_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
    struct device *device = opaque;

    device->writes++;
    device->last_offset = offset;
    device->last_size = size;
    device->last_value = value;
}

static const struct io_ops device_ops = { device_read, device_write, 1, 8 };

Test(physmem, unassigned)
{
    struct physmem *mem = memory_create();

    cr_assert_eq(physmem_lookup(mem, 0).kind, MEM_UNASSIGNED);
    cr_assert_eq(physmem_lookup(mem, ~0ull).kind, MEM_UNASSIGNED);
    cr_assert_eq(physmem_mmio_read(mem, 0x1234, 2), 0xffff);
    cr_assert_eq(physmem_mmio_read(mem, ~0ull - 3, 8), ~0ull, "wraps at the end");
    physmem_mmio_write(mem, 0x1234, 8, 0);
    physmem_destroy(mem);
}

Test(physmem, overlaps_and_removal)
{
    struct physmem *mem = memory_create();
    struct device device = { 0 };
    uint8_t rom_bytes[8192];

    memset(rom_bytes, 0xcc, sizeof(rom_bytes));
    cr_assert(physmem_add_ram(mem, 0, RAM, 0, "ram", NULL));
    struct mem_region *rom = physmem_add_rom(mem, 0xf0000, 0x10000, rom_bytes, sizeof(rom_bytes), "bios", NULL);
    struct mem_region *mmio = physmem_add_mmio(mem, 0xf1000, 0x1000, &device_ops, &device, "bar", NULL);
    cr_assert_eq(physmem_lookup(mem, 0xeffff).kind, MEM_RAM);
    cr_assert_eq(physmem_lookup(mem, 0xf0000).kind, MEM_ROM);
    cr_assert_eq(physmem_lookup(mem, 0xf1fff).kind, MEM_MMIO);
    cr_assert_eq(physmem_lookup(mem, 0xf2000).kind, MEM_ROM);
    cr_assert_eq(physmem_lookup(mem, 0xf2000).region_offset, 0x2000);
    cr_assert_eq(physmem_lookup(mem, 0x100000).kind, MEM_RAM);
    cr_assert_eq(physmem_lookup(mem, 0x100000).region_offset, 0x100000);
    cr_assert_eq(physmem_lookup(mem, 0xf0000).host[7], 0xcc);

    physmem_mmio_write(mem, 0xf0000, 4, 0);
    cr_assert_eq(physmem_mmio_read(mem, 0xf0000, 4), 0xcccccccc, "ROM ignores writes");
    cr_assert_not(physmem_write(mem, 0xf0000, "x", 1));

    physmem_set_enabled(mmio, false);
    cr_assert_eq(physmem_lookup(mem, 0xf1000).kind, MEM_ROM);
    physmem_set_enabled(mmio, true);
    physmem_move(mmio, 0xf0ffc);
    cr_assert_eq(physmem_lookup(mem, 0xf0000).kind, MEM_MMIO, "mixed");
    cr_assert_null(physmem_lookup(mem, 0xf0000).host);
    cr_assert_eq(physmem_mmio_read(mem, 0xf0ff8, 8), 0x03020100cccccccc);
    physmem_remove(mmio);
    physmem_remove(rom);
    cr_assert_eq(physmem_lookup(mem, 0xf1000).kind, MEM_RAM);
    physmem_destroy(mem);
}

Test(physmem, moves_that_do_not_fit)
{
    struct physmem *mem = memory_create();
    struct device device = { 0 };
    struct mem_region *mmio = physmem_add_mmio(mem, 0x1000, 0x2000, &device_ops, &device, "bar", NULL);

    physmem_move(mmio, ~0xfffull);
    cr_assert_eq(physmem_lookup(mem, ~0xfffull).kind, MEM_UNASSIGNED);
    physmem_move(mmio, ~0x1fffull);
    cr_assert_eq(physmem_lookup(mem, ~0ull).kind, MEM_MMIO);
    cr_assert_eq(physmem_mmio_read(mem, ~0ull, 1), 0xff);
    physmem_move(mmio, 0x1000);
    cr_assert_eq(physmem_lookup(mem, 0x2fff).kind, MEM_MMIO);
    physmem_destroy(mem);
}

Test(physmem, bad_arguments)
{
    struct physmem *mem = memory_create();
    struct error err;

    cr_assert_null(physmem_add_ram(mem, 0, RAM + PAGE_SIZE, 0, "x", &err));
    cr_assert_null(physmem_add_ram(mem, 0, PAGE_SIZE, RAM, "x", &err));
    cr_assert_null(physmem_add_ram(mem, 0x800, PAGE_SIZE, 0, "x", &err));
    cr_assert_null(physmem_add_ram(mem, 0, 0, 0, "x", &err));
    cr_assert_null(physmem_add_ram(mem, ~0xfffull, 2 * PAGE_SIZE, 0, "x", &err));
    cr_assert_null(physmem_add_rom(mem, 0, 0x1001, "", 1, "x", &err));
    cr_assert_null(physmem_add_rom(mem, 0, 0x1000, "", 0x1001, "x", &err));
    cr_assert_null(physmem_add_mmio(mem, 0, 0, &device_ops, NULL, "x", &err));
    physmem_destroy(mem);
}

Test(physmem, smaller_than_a_page)
{
    struct physmem *mem = memory_create();
    struct device a = { .base = 0x10 }, b = { .base = 0x80 };

    physmem_add_ram(mem, 0, 0x4000, 0, "ram", NULL);
    physmem_add_mmio(mem, 0x2100, 0x10, &device_ops, &a, "a", NULL);
    physmem_add_mmio(mem, 0x2108, 0x4, &device_ops, &b, "b", NULL);
    cr_assert_eq(physmem_lookup(mem, 0x2000).kind, MEM_MMIO);
    cr_assert_null(physmem_lookup(mem, 0x2800).host);
    cr_assert(physmem_lookup(mem, 0x1000).host && physmem_lookup(mem, 0x3000).host);
    physmem_mmio_write(mem, 0x20fc, 8, 0x8877665544332211);
    cr_assert_eq(a.last_offset, 0);
    cr_assert_eq(a.last_size, 4);
    cr_assert_eq(a.last_value, 0x88776655);
    cr_assert_eq(physmem_mmio_read(mem, 0x20fc, 8), 0x1312111044332211);
    cr_assert_eq(physmem_mmio_read(mem, 0x2106, 8), 0x1d1c838281801716);
    cr_assert_eq(physmem_mmio_read(mem, 0x210e, 3), 0x001f1e);
    cr_assert_eq(physmem_mmio_read(mem, 0x3ffe, 4), 0xffff0000);
    physmem_destroy(mem);
}

Test(physmem, dma)
{
    struct physmem *mem = memory_create();
    struct device device = { 0 };
    uint8_t buffer[0x4000], zeros[0x1000] = { 0 };

    physmem_add_ram(mem, 0, 0x2000, 0, "low", NULL);
    physmem_add_ram(mem, 0x3000, 0x2000, 0x2000, "high", NULL);
    physmem_add_mmio(mem, 0x5000, 0x1000, &device_ops, &device, "device", NULL);
    memset(buffer, 0xab, sizeof(buffer));
    cr_assert(physmem_write(mem, 0x1800, buffer, 0x800));
    cr_assert_not(physmem_write(mem, 0x1800, buffer, 0x2000), "there is a hole");
    cr_assert_eq(*(uint8_t *)physmem_ram_pointer(mem, 0x37ff, 1), 0xab);
    cr_assert_eq(*(uint8_t *)physmem_ram_pointer(mem, 0x3800, 1), 0);
    memset(buffer, 0, sizeof(buffer));
    cr_assert_not(physmem_read(mem, 0x1000, buffer, 0x4000));
    cr_assert_eq(buffer[0xfff], 0xab);
    cr_assert_eq(buffer[0x1000], 0xff);
    cr_assert_eq(buffer[0x1fff], 0xff);
    cr_assert_eq(buffer[0x2000], 0xab);
    cr_assert_not(physmem_write(mem, 0x4ffc, "12345678", 8));
    cr_assert_eq(device.writes, 0, "DMA does not reach devices");
    cr_assert(physmem_zero(mem, 0x3000, 0x1000));
    cr_assert_arr_eq(physmem_ram_pointer(mem, 0x3000, 0x1000), zeros, 0x1000);
    cr_assert_null(physmem_ram_pointer(mem, 0x1fff, 2));
    cr_assert_null(physmem_ram_pointer(mem, 0x2000, 1));
    cr_assert(physmem_ram_pointer(mem, 0x1fff, 1));
    cr_assert_not(physmem_read(mem, ~0ull - 7, buffer, 16));
    physmem_destroy(mem);
}

/* ---- Tracking ---- */

struct heard {
    unsigned map_changes, code_writes, trackings;
    gpa_t written[16], tracked[16];
    uint64_t size;
};

static void hear_map(void *opaque)
{
    ((struct heard *)opaque)->map_changes++;
}

static void hear_code(void *opaque, gpa_t gpa, uint64_t size)
{
    struct heard *heard = opaque;

    heard->written[heard->code_writes++ % 16] = gpa;
    heard->size = size;
}

static void hear_tracking(void *opaque, gpa_t page)
{
    struct heard *heard = opaque;

    heard->tracked[heard->trackings++ % 16] = page;
}

static void listen(struct physmem *mem, struct heard *heard)
{
    struct physmem_listener listener = {
        .map_changed = hear_map, .code_written = hear_code, .write_tracking = hear_tracking, .opaque = heard
    };

    physmem_add_listener(mem, &listener);
}

Test(physmem, code_tracking)
{
    struct physmem *mem = memory_create();
    struct heard heard = { 0 };

    physmem_add_ram(mem, 0, RAM, 0, "ram", NULL);
    listen(mem, &heard);
    cr_assert_eq(physmem_page_flags(mem, 0x5000), PAGE_FLAGS_DIRTY, "fresh pages may be written directly");
    physmem_page_set_flags(mem, 0x5123, PAGE_FLAG_CODE);
    physmem_page_set_flags(mem, 0x5000, PAGE_FLAG_CODE);
    cr_assert_eq(heard.trackings, 1);
    cr_assert_eq(heard.tracked[0], 0x5000);
    cr_assert_eq(physmem_page_flags(mem, 0x5fff), PAGE_FLAGS_DIRTY | PAGE_FLAG_CODE);
    physmem_write(mem, 0x4ffe, "abcd", 4);
    cr_assert_eq(heard.code_writes, 1);
    cr_assert_eq(heard.written[0], 0x5000);
    cr_assert_eq(heard.size, 2);
    physmem_mmio_write(mem, 0x5ffc, 8, 0);
    cr_assert_eq(heard.code_writes, 2);
    cr_assert_eq(heard.size, 4);
    physmem_page_clear_flags(mem, 0x5000, PAGE_FLAG_CODE);
    physmem_written(mem, 0x5000, 4096);
    cr_assert_eq(heard.code_writes, 2);
    cr_assert_eq(physmem_page_flags(mem, RAM), 0);
    physmem_page_set_flags(mem, RAM, PAGE_FLAG_CODE);
    physmem_remove_listener(mem, &heard);
    physmem_page_set_flags(mem, 0x5000, PAGE_FLAG_CODE);
    physmem_written(mem, 0x5000, 1);
    cr_assert_eq(heard.code_writes, 2);
    physmem_destroy(mem);
}

/* What shows at two addresses is one page: both are told. */
Test(physmem, aliases)
{
    struct physmem *mem = memory_create();
    struct heard heard = { 0 };

    physmem_add_ram(mem, 0, 0x10000, 0, "ram", NULL);
    physmem_add_ram(mem, 0x100000000, 0x8000, 0x4000, "mirror", NULL);
    listen(mem, &heard);
    physmem_page_set_flags(mem, 0x5000, PAGE_FLAG_CODE);
    cr_assert_eq(heard.trackings, 2);
    cr_assert_eq(heard.tracked[0], 0x5000);
    cr_assert_eq(heard.tracked[1], 0x100001000);
    physmem_write(mem, 0x100001234, "abcd", 4);
    cr_assert_eq(heard.code_writes, 2);
    cr_assert_eq(heard.written[0], 0x100001234);
    cr_assert_eq(heard.written[1], 0x5234);
    physmem_page_set_flags(mem, 0x1000, PAGE_FLAG_CODE);
    cr_assert_eq(heard.trackings, 3, "shown once only");
    physmem_destroy(mem);
}

Test(physmem, dirty_collection)
{
    struct physmem *mem = memory_create();
    struct heard heard = { 0 };
    uint64_t bitmap[2] = { 0, 0 };

    physmem_add_ram(mem, 0, 0x80000, 0, "ram", NULL);
    listen(mem, &heard);
    physmem_collect_dirty(mem, 0, 0x80000, PAGE_FLAG_DIRTY_MIGRATION, bitmap);
    cr_assert(bitmap[0] == ~0ull && bitmap[1] == ~0ull);
    cr_assert_eq(heard.trackings, 128);
    physmem_collect_dirty(mem, 0, 0x80000, PAGE_FLAG_DIRTY_DISPLAY, bitmap);
    cr_assert(bitmap[0] == ~0ull && bitmap[1] == ~0ull);
    cr_assert_eq(heard.trackings, 128, "they were tracked already");
    physmem_write(mem, 0x3ffff, "ab", 2);
    physmem_collect_dirty(mem, 0, 0x80000, PAGE_FLAG_DIRTY_MIGRATION, bitmap);
    cr_assert(bitmap[0] == BIT(63) && bitmap[1] == 1);
    physmem_collect_dirty(mem, 0x40000, 0x1000, PAGE_FLAG_DIRTY_DISPLAY, bitmap);
    cr_assert_eq(bitmap[0], BIT(63) | 1, "bits of other pages stay");
    physmem_collect_dirty(mem, 0, 0x80000, PAGE_FLAG_DIRTY_DISPLAY, bitmap);
    cr_assert(bitmap[0] == BIT(63) && bitmap[1] == 0);
    physmem_destroy(mem);
}

Test(physmem, map_listeners)
{
    struct physmem *mem = memory_create();
    struct heard heard = { 0 };
    struct device device = { 0 };

    listen(mem, &heard);
    physmem_add_ram(mem, 0, 0x1000, 0, "ram", NULL);
    struct mem_region *region = physmem_add_mmio(mem, 0x1000, 4, &device_ops, &device, "device", NULL);
    physmem_move(region, 0x1000);
    cr_assert_eq(heard.map_changes, 2, "no move, no change");
    physmem_move(region, 0x2000);
    physmem_set_enabled(region, false);
    physmem_move(region, 0x3000);
    cr_assert_eq(heard.map_changes, 4);
    physmem_remove(region);
    cr_assert_eq(heard.map_changes, 5);
    physmem_destroy(mem);
}

/* ---- The map against a plain model ---- */

#define MODEL_PAGES   64
#define MODEL_REGIONS 40

struct model_region {
    struct mem_region *region;
    enum mem_kind kind;
    unsigned first, count, ram_page;
    bool enabled;
};

static void check_model(const struct physmem *mem, struct model_region *const *order, unsigned count, uint8_t *ram)
{
    for (unsigned page = 0; page < MODEL_PAGES; page++) {
        const struct model_region *top = NULL;
        for (unsigned i = 0; i < count; i++)
            if (order[i]->enabled && page >= order[i]->first && page < order[i]->first + order[i]->count)
                top = order[i];
        struct mem_page got = physmem_lookup(mem, (gpa_t)page << PAGE_SHIFT);
        cr_assert_eq(got.kind, top ? top->kind : MEM_UNASSIGNED);
        cr_assert_eq(got.region, top ? top->region : NULL);
        if (top)
            cr_assert_eq(got.region_offset, (uint64_t)(page - top->first) << PAGE_SHIFT);
        if (top && top->kind == MEM_RAM)
            cr_assert_eq(got.host, ram + ((uint64_t)(top->ram_page + page - top->first) << PAGE_SHIFT));
    }
}

Test(physmem, random_maps)
{
    struct random random = random_start(0x6d617073);
    struct physmem *mem = memory_create();
    struct model_region regions[MODEL_REGIONS] = { 0 }, *order[MODEL_REGIONS];
    struct device device = { 0 };
    unsigned count = 0;

    struct mem_region *probe = physmem_add_ram(mem, 0, PAGE_SIZE, 0, "probe", NULL);
    uint8_t *ram = physmem_ram_pointer(mem, 0, 1);
    physmem_remove(probe);
    for (unsigned step = 0; step < 3000; step++) {
        struct model_region *r = &regions[random_below(&random, MODEL_REGIONS)];
        unsigned size = 1 + random_below(&random, 12), first = random_below(&random, MODEL_PAGES - 12);
        gpa_t gpa = (gpa_t)first << PAGE_SHIFT;
        if (!r->region) {
            *r = (struct model_region){ .kind = 1 + random_below(&random, 3),
                                        .first = first,
                                        .count = size,
                                        .ram_page = random_below(&random, 64),
                                        .enabled = true };
            uint64_t bytes = (uint64_t)size << PAGE_SHIFT;
            r->region = r->kind == MEM_RAM
                            ? physmem_add_ram(mem, gpa, bytes, (uint64_t)r->ram_page << PAGE_SHIFT, "r", NULL)
                        : r->kind == MEM_ROM ? physmem_add_rom(mem, gpa, bytes, "", 1, "r", NULL)
                                             : physmem_add_mmio(mem, gpa, bytes, &device_ops, &device, "r", NULL);
            cr_assert(r->region);
            order[count++] = r;
        } else if (random_below(&random, 3) == 0) {
            physmem_remove(r->region);
            unsigned i = 0;
            while (order[i] != r)
                i++;
            memmove(order + i, order + i + 1, (--count - i) * sizeof(order[0]));
            r->region = NULL;
        } else if (random_below(&random, 3) == 0) {
            r->enabled = !r->enabled;
            physmem_set_enabled(r->region, r->enabled);
        } else {
            physmem_move(r->region, gpa);
            r->first = first;
        }
        check_model(mem, order, count, ram);
    }
    physmem_destroy(mem);
}

Test(physmem, ram_is_demand_allocated)
{
    struct error err;
    struct physmem *mem = physmem_create(64 * GIB, NULL, &err);

    cr_assert(mem, "%s", err.text);
    cr_assert(physmem_add_ram(mem, 0x100000000, 64 * GIB, 0, "ram", &err));
    cr_assert(physmem_write(mem, 0x100000000 + 63 * GIB, "x", 1));
    cr_assert_geq(physmem_ram_fd(mem), 0);
    cr_assert_eq(physmem_ram_size(mem), 64 * GIB);
    physmem_destroy(mem);
}

Test(tracking, code_is_counted_by_holders)
{
    struct physmem *mem = physmem_create(1 * MIB, NULL, NULL);
    cr_assert_not_null(physmem_add_ram(mem, 0, 1 * MIB, 0, "ram", NULL));

    physmem_code_acquire(mem, 0x3000);
    physmem_code_acquire(mem, 0x3fff);
    physmem_code_release(mem, 0x3000);
    cr_assert(physmem_page_flags(mem, 0x3000) & PAGE_FLAG_CODE, "one holder is left");
    physmem_code_release(mem, 0x3000);
    cr_assert_not(physmem_page_flags(mem, 0x3000) & PAGE_FLAG_CODE);
    physmem_code_release(mem, 0x3000); /* nobody holds it: no underflow */
    cr_assert_not(physmem_page_flags(mem, 0x3000) & PAGE_FLAG_CODE);
    for (unsigned i = 0; i < 100; i++)
        physmem_code_acquire(mem, 0x4000);
    for (unsigned i = 0; i < 100; i++)
        physmem_code_release(mem, 0x4000);
    cr_assert(physmem_page_flags(mem, 0x4000) & PAGE_FLAG_CODE, "a count that overflowed stays for good");
    cr_assert_eq(physmem_page_flags(mem, 0x4000) & ~PAGE_FLAGS_ALL, 0);
    physmem_destroy(mem);
}
