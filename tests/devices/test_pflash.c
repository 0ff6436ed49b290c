/* Flash memory by its commands, over a drive that this file is: requests complete when a test says so. */
#include "devices/board/pflash.h"

#include "devices/block/block.h"
#include "rig.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define SIZE 0x21000ull /* no power of two */
#define END  0x100000000ull
#define BASE (END - SIZE)

/* ---- The drive ---- */

struct block {
    struct block_info info;
    uint8_t contents[SIZE];
    struct block_request *pending;
    unsigned writes, flushes;
    bool claimed, fail;
};

static struct block drive;

const struct block_info *block_info(const struct block *block)
{
    return &block->info;
}

/* What the other devices call, which are linked with the board. */
struct block *block_next_unclaimed(struct block_registry *registry, enum block_interface interface)
{
    (void)registry, (void)interface;
    return NULL;
}

struct block *block_find(struct block_registry *registry, const char *id)
{
    (void)registry, (void)id;
    return NULL;
}

void block_set_write_cache(struct block *block, bool enabled)
{
    (void)block, (void)enabled;
}

void block_set_medium_handler(struct block *block, void (*changed)(void *opaque), void *opaque)
{
    (void)block, (void)changed, (void)opaque;
}

void block_plug(struct block *block)
{
    (void)block;
}

void block_unplug(struct block *block)
{
    (void)block;
}

int block_claim(struct block *block, const char *device_id, struct event_loop *loop, struct error *err)
{
    (void)device_id, (void)loop;
    if (block->claimed)
        return error_set(err, EBUSY, "in use");
    block->claimed = true;
    return 0;
}

void block_release(struct block *block)
{
    block->claimed = false;
}

int block_execute(struct block *block, enum block_op op, uint64_t offset, void *buffer, uint64_t size, unsigned flags)
{
    (void)flags;
    cr_assert_eq(op, BLOCK_READ);
    if (block->fail)
        return -EIO;
    memcpy(buffer, block->contents + offset, size);
    return 0;
}

void block_submit(struct block *block, struct block_request *request)
{
    cr_assert_null(block->pending, "one request at a time");
    cr_assert_eq((request->offset | request->size) % 512, 0);
    cr_assert_leq(request->offset + request->size, SIZE);
    block->pending = request;
}

static bool complete_one(struct block *block)
{
    struct block_request *request = block->pending;

    if (!request)
        return false;
    block->pending = NULL;
    if (request->op == BLOCK_WRITE) {
        cr_assert_not(block->info.read_only);
        memcpy(block->contents + request->offset, request->iov->iov_base, request->size);
        block->writes++;
    } else {
        cr_assert_eq(request->op, BLOCK_FLUSH);
        block->flushes++;
    }
    request->result = block->fail ? -EIO : 0;
    request->done(request);
    return true;
}

void block_drain(struct block *block)
{
    while (complete_one(block))
        ;
}

/* ---- The flash ---- */

static struct rig rig;
static struct pflash *flash;

static void create(bool read_only)
{
    struct error err = { "" };

    drive.info = (struct block_info){ .id = "flash", .size = SIZE, .read_only = read_only };
    for (size_t i = 0; i < SIZE; i++)
        drive.contents[i] = (uint8_t)(i * 7 >> 4);
    drive.claimed = drive.fail = false;
    drive.writes = drive.flushes = 0;
    flash = pflash_create(&rig.env, &drive, END, "system.flash0", &err);
    cr_assert_not_null(flash, "%s", err.text);
}

static void setup(void)
{
    rig_init(&rig);
    create(false);
}

static void teardown(void)
{
    device_destroy((struct device *)flash);
    rig_destroy(&rig);
}

TestSuite(pflash, .init = setup, .fini = teardown);

static uint8_t get(uint64_t offset)
{
    return (uint8_t)physmem_mmio_read(rig.env.mem, BASE + offset, 1);
}

static void put(uint64_t offset, uint8_t value)
{
    physmem_mmio_write(rig.env.mem, BASE + offset, 1, value);
}

Test(pflash, array_is_a_rom_of_the_memory_map)
{
    uint8_t bytes[16];

    cr_assert_eq(physmem_lookup(rig.env.mem, BASE).kind, MEM_ROM);
    cr_assert(physmem_read(rig.env.mem, END - 16, bytes, 16));
    cr_assert_eq(memcmp(bytes, drive.contents + SIZE - 16, 16), 0);
    cr_assert_eq(pflash_size(flash), SIZE);
}

/* What OVMF's QemuFlashDetected() does. */
Test(pflash, firmware_finds_it)
{
    uint8_t original = get(5);

    put(5, 0x50);
    cr_assert_eq(get(5), original, "not RAM");
    put(5, 0x70);
    cr_assert_eq(get(5), 0x00, "cleared status");
    put(5, 0xff);
    cr_assert_eq(get(5), original);
    cr_assert_eq(physmem_lookup(rig.env.mem, BASE).kind, MEM_ROM);
}

Test(pflash, identity_and_query)
{
    uint32_t blocks;

    put(0, 0x90);
    cr_assert_eq(get(0), 0x89);
    cr_assert_eq(get(1), 0x18);
    cr_assert_eq(get(2), 0, "not locked");
    put(0, 0x98);
    cr_assert_eq(get(0x10), 'Q');
    cr_assert_eq(get(0x11), 'R');
    cr_assert_eq(get(0x12), 'Y');
    cr_assert_eq(get(0x13) | get(0x14) << 8, 1);
    blocks = (get(0x2d) | get(0x2e) << 8) + 1u;
    cr_assert_eq(blocks * (get(0x2f) | get(0x30) << 8) * 256, SIZE);
    put(0, 0xff);
}

Test(pflash, program_clears_bits_and_erase_sets_them)
{
    put(0x1234, 0x20);
    put(0x1234, 0xd0);
    cr_assert_eq(get(0), 0x80, "ready");
    put(0, 0xff);
    for (unsigned i = 0x1000; i < 0x2000; i++)
        cr_assert_eq(get(i), 0xff);
    cr_assert_eq(get(0xfff), drive.contents[0xfff], "the block before is as it was");
    cr_assert_eq(get(0x2000), drive.contents[0x2000]);
    put(0x1800, 0x40);
    put(0x1800, 0x5a);
    put(0x1801, 0x10);
    put(0x1801, 0xc3);
    put(0x1800, 0x40);
    put(0x1800, 0xf0);
    put(0, 0xff);
    cr_assert_eq(get(0x1800), 0x50);
    cr_assert_eq(get(0x1801), 0xc3);
}

Test(pflash, changes_reach_the_drive)
{
    put(0x1000, 0x20);
    put(0x1000, 0xd0);
    cr_assert_null(drive.pending, "nothing is written before the guest is done");
    put(0x1004, 0x40);
    put(0x1004, 0x12);
    put(0, 0xff);
    cr_assert_not_null(drive.pending);
    put(0x1005, 0x40); /* while that is under way */
    put(0x1005, 0x34);
    put(0, 0xff);
    block_drain(&drive);
    cr_assert_eq(drive.contents[0x1004], 0x12);
    cr_assert_eq(drive.contents[0x1005], 0x34);
    cr_assert_eq(drive.contents[0x1006], 0xff);
    cr_assert_eq(drive.writes, 2);
    cr_assert_eq(drive.flushes, 1);
}

Test(pflash, the_end_writes_what_is_left)
{
    put(0, 0x40);
    put(0, 0x00);
    device_destroy((struct device *)flash); /* in status mode */
    cr_assert_eq(drive.contents[0], 0);
    cr_assert_eq(drive.flushes, 1);
    cr_assert_not(drive.claimed);
    create(false);
}

Test(pflash, buffered_write)
{
    put(0x3000, 0x20);
    put(0x3000, 0xd0);
    put(0x3010, 0xe8);
    cr_assert_eq(get(0x3010), 0x80, "the buffer is free");
    put(0x3010, 3);
    for (unsigned i = 0; i < 4; i++)
        put(0x3010 + i, (uint8_t)(0x40 + i));
    put(0x3010, 0xff);
    cr_assert_eq(get(0x3010), 0xff, "anything but the confirmation gives it up");
    put(0x3010, 0xe8);
    put(0x3010, 3);
    for (unsigned i = 0; i < 4; i++)
        put(0x3010 + i, (uint8_t)(0x40 + i));
    put(0x3010, 0xd0);
    cr_assert_eq(get(0), 0x80);
    put(0, 0xff);
    for (unsigned i = 0; i < 4; i++)
        cr_assert_eq(get(0x3010 + i), 0x40 + i);
    /* At the very end, with more bytes than are left. */
    put(SIZE - 1, 0xe8);
    put(SIZE - 1, 0xff);
    for (unsigned i = 0; i < 64; i++)
        put(SIZE - 1, 0);
    put(SIZE - 1, 0xd0);
    put(0, 0xff);
    cr_assert_eq(get(SIZE - 1), 0);
}

Test(pflash, wrong_sequences)
{
    uint8_t before = get(0x1000);

    put(0x1000, 0x20);
    put(0x1000, 0x12);
    cr_assert_eq(get(0), 0x80 | 0x30, "both error bits");
    put(0, 0x50);
    put(0, 0xff);
    cr_assert_eq(get(0x1000), before);
    put(0, 0x42); /* no such command */
    cr_assert_eq(get(0x1000), before);
    cr_assert_eq(physmem_lookup(rig.env.mem, BASE).kind, MEM_ROM);
}

Test(pflash, read_only)
{
    uint8_t before;

    device_destroy((struct device *)flash);
    create(true);
    before = get(0x1000);
    put(0x1000, 0x40);
    put(0x1000, 0x00);
    cr_assert_eq(get(0), 0x80 | 0x10 | 0x02);
    put(0x1000, 0x50);
    put(0x1000, 0x20);
    put(0x1000, 0xd0);
    cr_assert_eq(get(0), 0x80 | 0x20 | 0x02);
    put(0, 0xff);
    cr_assert_eq(get(0x1000), before);
    block_drain(&drive);
    cr_assert_eq(drive.writes, 0);
}

Test(pflash, reset_goes_back_to_reading)
{
    put(0, 0x70);
    cr_assert_eq(get(0), 0x80);
    device_reset((struct device *)flash);
    cr_assert_eq(get(1), drive.contents[1]);
    cr_assert_eq(physmem_lookup(rig.env.mem, BASE).kind, MEM_ROM);
}

Test(pflash, a_drive_that_fails)
{
    drive.fail = true;
    put(0, 0x40);
    put(0, 0x00);
    put(0, 0xff);
    block_drain(&drive);
    cr_assert_eq(get(0), 0x00, "the guest goes on");
    drive.fail = false;
}

Test(pflash, sizes_that_make_no_sense)
{
    static const uint64_t sizes[] = { 0, 512, 0x1200, PFLASH_SIZE_MAX + PFLASH_BLOCK };
    struct error err;

    device_destroy((struct device *)flash);
    for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
        drive.info.size = sizes[i];
        cr_assert_null(pflash_create(&rig.env, &drive, END, "flash", &err));
        cr_assert_not_null(strstr(err.text, "4 KiB"), "%s", err.text);
        cr_assert_not(drive.claimed);
    }
    create(false);
}

Test(pflash, state)
{
    put(0x3010, 0xe8);
    put(0x3010, 9);
    put(0x3010, 0x77);
    rig_round_trip((struct device *)flash, NULL);
    cr_assert_eq(physmem_lookup(rig.env.mem, BASE).kind, MEM_MMIO);
    rig_load_garbage((struct device *)flash, 3, 300);
}

/* Every byte to every place: nothing outside the array, and what was never programmed or erased stays. */
Test(pflash, random_writes)
{
    uint64_t seed = 11;

    for (unsigned i = 0; i < 30000; i++) {
        static const uint8_t likely[] = { 0x10, 0x20, 0x40, 0x60, 0x70, 0x90, 0x98, 0xd0, 0xe8, 0xff, 0x50, 0x01 };
        uint64_t random = rig_random(&seed), offset = random % SIZE;

        physmem_mmio_write(rig.env.mem, BASE + offset, 1u << (random >> 40) % 4,
                           random >> 63 ? likely[(random >> 48) % ARRAY_SIZE(likely)] : random >> 32);
        physmem_mmio_read(rig.env.mem, BASE + offset, 1u << (random >> 50) % 4);
        if (random >> 60 == 3)
            complete_one(&drive);
    }
    device_reset((struct device *)flash);
    block_drain(&drive);
    cr_assert_eq(memcmp(drive.contents, pflash_bytes(flash), SIZE), 0, "the drive has what the flash shows");
}
