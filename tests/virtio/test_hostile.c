/* Rings that no driver would make. Single faults one by one, each of which has to be noticed: the device needs a reset, says so, does
 * nothing more, and works after one. Then rings and registers full of random bytes, with seeds: whatever happens, memory that no
 * descriptor names stays as it is. Run beside the sanitizers, as all tests are. */
#include <criterion/criterion.h>
#include <criterion/parameterized.h>
#include <stdlib.h>
#include <string.h>

#include "driver.h"
#include "echo.h"
#include "tests/devices/rig.h"

#define MMIO_HOLE 0x800000ull
#define ROM_AT    0x2000000ull
#define GUARD     0x900000ull /* nothing ever names it */
#define GUARD_END 0xa00000ull

static struct rig rig;
static struct driver driver;
static struct echo *echo;
static struct mem_region *hole;

static void set_up(void)
{
    static const struct io_ops nothing;
    static const uint8_t rom[4096];
    struct error err = { "" };

    rig_init(&rig);
    physmem_destroy(rig.env.mem);
    rig.env.mem = physmem_create(DRIVER_RAM, event_loop_mutex(rig.env.loop), &err);
    cr_assert_not_null(physmem_add_ram(rig.env.mem, 0, DRIVER_RAM, 0, "ram", &err));
    hole = physmem_add_mmio(rig.env.mem, MMIO_HOLE, 0x1000, &nothing, NULL, "hole", &err);
    cr_assert_not_null(physmem_add_rom(rig.env.mem, ROM_AT, 4096, rom, sizeof(rom), "rom", &err));
    rig.env.pci_bus = driver_bus(&rig.env);
    echo = echo_create(&rig.env, "packed=on");
    driver_bind(&driver, &rig.env, &echo->virtio.pci.device, true);
    memset(driver_memory(&driver, GUARD), 0xc3, GUARD_END - GUARD);
}

static void tear_down(void)
{
    const uint8_t *guard = driver_memory(&driver, GUARD);

    for (uint64_t i = 0; i < GUARD_END - GUARD; i++)
        cr_assert_eq(guard[i], 0xc3, "byte 0x%llx was written", (unsigned long long)(GUARD + i));
    device_destroy(&echo->virtio.pci.device);
    pci_bus_destroy(rig.env.pci_bus);
    rig_destroy(&rig);
}

static void run(void)
{
    for (unsigned i = 0; i < 100 && fake_loop_poll(0); i++)
        ;
}

/* ---- One fault each ---- */

struct descriptor {
    uint64_t address;
    uint32_t length;
    uint16_t flags, next;
};
enum { NEXT = 1, WRITE = 2, INDIRECT = 4 };

struct fault {
    const char *name;
    bool packed, no_indirect;
    struct descriptor ring[4];  /* packed: `next` is the id, and the flags get the wrap bits */
    struct descriptor table[4]; /* at 0x7000 */
    uint16_t head, index;       /* split; index 0: 1 */
};

static const struct fault faults[] = {
    { .name = "head out of range", .head = 128, .ring = { { 0x8000, 16, WRITE } } },
    { .name = "head far out of range", .head = 0xffff, .ring = { { 0x8000, 16, WRITE } } },
    { .name = "index jumps", .index = 129, .ring = { { 0x8000, 16, WRITE } } },
    { .name = "index goes back", .index = 0xffff, .ring = { { 0x8000, 16, WRITE } } },
    { .name = "next out of range", .ring = { { 0x8000, 16, NEXT, 200 } } },
    { .name = "loop of one", .ring = { { 0x8000, 16, NEXT, 0 } } },
    { .name = "loop of two", .ring = { { 0x8000, 16, NEXT, 1 }, { 0x8000, 16, NEXT, 0 } } },
    { .name = "no length", .ring = { { 0x8000, 0, WRITE } } },
    { .name = "no length behind one", .ring = { { 0x8000, 4, NEXT, 1 }, { 0x8000, 0, WRITE } } },
    { .name = "readable after writable", .ring = { { 0x8000, 16, NEXT | WRITE, 1 }, { 0x9000, 16, 0 } } },
    { .name = "in MMIO", .ring = { { MMIO_HOLE, 16, WRITE } } },
    { .name = "reaches into MMIO", .ring = { { MMIO_HOLE - 8, 16, WRITE } } },
    { .name = "writes ROM", .ring = { { ROM_AT, 16, WRITE } } },
    { .name = "beyond RAM", .ring = { { DRIVER_RAM - 8, 16, WRITE } } },
    { .name = "wraps around", .ring = { { ~0ull - 7, 16, WRITE } } },
    { .name = "huge", .ring = { { 0x8000, 0xffffffff, WRITE } } },
    { .name = "indirect, not agreed",
      .no_indirect = true,
      .ring = { { 0x7000, 16, INDIRECT } },
      .table = { { 0x8000, 4, WRITE } } },
    { .name = "indirect of length 0", .ring = { { 0x7000, 0, INDIRECT } } },
    { .name = "indirect of odd length", .ring = { { 0x7000, 17, INDIRECT } }, .table = { { 0x8000, 4, WRITE } } },
    { .name = "indirect and next",
      .ring = { { 0x7000, 16, INDIRECT | NEXT, 1 }, { 0x8000, 4, WRITE } },
      .table = { { 0x8000, 4, 0 } } },
    { .name = "indirect behind one",
      .ring = { { 0x8000, 4, NEXT, 1 }, { 0x7000, 16, INDIRECT } },
      .table = { { 0x8000, 4, WRITE } } },
    { .name = "indirect in indirect", .ring = { { 0x7000, 16, INDIRECT } }, .table = { { 0x7000, 16, INDIRECT } } },
    { .name = "indirect loop",
      .ring = { { 0x7000, 32, INDIRECT } },
      .table = { { 0x8000, 4, NEXT, 1 }, { 0x8000, 4, NEXT, 0 } } },
    { .name = "indirect next out of range", .ring = { { 0x7000, 16, INDIRECT } }, .table = { { 0x8000, 4, NEXT, 1 } } },
    { .name = "indirect table in MMIO", .ring = { { MMIO_HOLE, 16, INDIRECT } } },
    { .name = "indirect table beyond RAM", .ring = { { DRIVER_RAM, 16, INDIRECT } } },
    { .name = "indirect table wraps", .ring = { { ~0ull - 7, 16, INDIRECT } } },
    { .name = "packed: no length", .packed = true, .ring = { { 0x8000, 0, WRITE } } },
    { .name = "packed: beyond RAM", .packed = true, .ring = { { DRIVER_RAM - 8, 16, WRITE } } },
    { .name = "packed: readable after writable",
      .packed = true,
      .ring = { { 0x8000, 4, WRITE | NEXT }, { 0x8000, 4, 0 } } },
    { .name = "packed: indirect behind one",
      .packed = true,
      .ring = { { 0x8000, 4, NEXT }, { 0x7000, 16, INDIRECT } },
      .table = { { 0x8000, 4, WRITE } } },
    { .name = "packed: huge table", .packed = true, .ring = { { 0x7000, 16 * 1025, INDIRECT } } },
    { .name = "packed: table of odd length", .packed = true, .ring = { { 0x7000, 20, INDIRECT } } },
    { .name = "packed: table in MMIO", .packed = true, .ring = { { MMIO_HOLE, 16, INDIRECT } } },
};

static void place_fault(const struct fault *fault)
{
    struct driver_queue *queue = &driver.queues[0];
    struct descriptor *ring = driver_memory(&driver, queue->desc);
    uint16_t *avail = driver_memory(&driver, queue->avail);

    struct descriptor *table = driver_memory(&driver, 0x7000);

    /* Good descriptors wherever there should be none: who looks there finds nothing else to object to. */
    for (unsigned i = 0; i < DRIVER_BEHIND_RING / sizeof(*ring); i++)
        ring[queue->size + i] = (struct descriptor){ 0x8000, 16, WRITE, 0 };
    for (unsigned i = 0; i < 4; i++)
        table[i] = fault->table[i].length ? fault->table[i] : (struct descriptor){ 0x8000, 4, WRITE, 0 };
    for (unsigned i = 0; i < 4; i++) {
        ring[i] = fault->ring[i];
        if (fault->packed) {
            ring[i].flags = fault->ring[i].next;
            ring[i].next = fault->ring[i].flags | 1 << 7;
        }
    }
    if (!fault->packed) {
        avail[2] = fault->head;
        avail[1] = fault->index ? fault->index : 1;
    }
}

static void check_works(uint64_t features)
{
    struct driver_buffer buffer = { 0x8000, 16, true };
    uint32_t length;

    echo->hold = false;
    driver_start(&driver, features, 1, 0);
    cr_assert(driver_add(&driver.queues[0], &buffer, 1, &driver));
    driver_kick(&driver.queues[0], true);
    run();
    cr_assert_eq(driver_get(&driver.queues[0], &length), &driver);
    cr_assert_eq(driver_status(&driver), 15);
}

ParameterizedTestParameters(hostile, single_faults)
{
    return cr_make_param_array(struct fault, (void *)faults, ARRAY_SIZE(faults));
}

ParameterizedTest(struct fault *fault, hostile, single_faults)
{
    uint64_t features =
        (fault->packed ? BIT(VIRTIO_F_RING_PACKED) : 0) | (fault->no_indirect ? 0 : BIT(VIRTIO_F_INDIRECT_DESC));
    struct driver_queue *queue = &driver.queues[0];
    uint8_t before[4096];
    uint32_t length;

    set_up();
    driver_start(&driver, features, 1, 0);
    place_fault(fault);
    memcpy(before, driver_memory(&driver, queue->desc), sizeof(before));
    driver_kick(queue, true);
    run();
    cr_assert_eq(driver_status(&driver), 15 | VIRTIO_STATUS_NEEDS_RESET, "%s was not noticed", fault->name);
    cr_assert_eq(echo->popped, 0, "%s reached the device", fault->name);
    cr_assert_eq(driver_messages[0], 1, "%s: %u configuration interrupts", fault->name, driver_messages[0]);
    cr_assert_eq(driver_messages[1], 0);
    cr_assert_null(driver_get(queue, &length));
    cr_assert_eq(memcmp(before, driver_memory(&driver, queue->desc), 2048), 0, "%s: the ring was written", fault->name);
    driver_kick(queue, true);
    run();
    cr_assert_eq(driver_messages[0], 1);
    check_works(features);
    tear_down();
}

/* Where the three parts of a ring cannot be. */
Test(hostile, ring_in_impossible_places)
{
    static const uint64_t places[] = { MMIO_HOLE,       MMIO_HOLE - 16, ROM_AT, DRIVER_RAM,
                                       DRIVER_RAM - 64, ~0ull - 15,     0x8001, BIT(63) };

    set_up();
    for (unsigned packed = 0; packed < 2; packed++) {
        for (unsigned part = 0; part < 3; part++) {
            for (unsigned i = 0; i < ARRAY_SIZE(places); i++) {
                if (packed && part && (places[i] == MMIO_HOLE - 16 || places[i] == DRIVER_RAM - 64))
                    continue; /* fits */
                driver_start(&driver, packed ? BIT(VIRTIO_F_RING_PACKED) : 0, 1, 0);
                driver_write(&driver, driver.common + 0x16, 2, 1);
                for (unsigned n = 0; n < 3; n++) {
                    gpa_t place = n == part ? places[i] : n == 0 ? 0x10000 : n == 1 ? 0x20000 : 0x30000;
                    driver_write(&driver, driver.common + 0x20 + 8 * n, 4, (uint32_t)place);
                    driver_write(&driver, driver.common + 0x24 + 8 * n, 4, place >> 32);
                }
                driver_write(&driver, driver.common + 0x1c, 2, 1);
                driver_write(&driver, driver.notify + 4, 2, 1);
                run();
                cr_assert_eq(driver_status(&driver), 15 | VIRTIO_STATUS_NEEDS_RESET, "packed %u, part %u at 0x%llx",
                             packed, part, (unsigned long long)places[i]);
                cr_assert_eq(echo->popped, 0);
            }
        }
    }
    check_works(0);
    tear_down();
}

/* More chains than the ring has entries, by adding the same one again and again while it is out. */
Test(hostile, more_chains_than_entries)
{
    uint16_t *avail;

    set_up();
    driver_start(&driver, 0, 1, 8);
    echo->hold = true;
    memcpy(driver_memory(&driver, driver.queues[0].desc), &(struct descriptor){ 0x8000, 16, WRITE, 0 }, 16);
    avail = driver_memory(&driver, driver.queues[0].avail);
    for (unsigned i = 0; i < 3; i++) {
        avail[1] += 8;
        driver_kick(&driver.queues[0], true);
        run();
    }
    cr_assert_eq(echo->held_count, 8);
    cr_assert_eq(driver_status(&driver), 15 | VIRTIO_STATUS_NEEDS_RESET);
    while (echo->held_count)
        echo_answer(echo, 0);
    cr_assert_eq(((uint16_t *)driver_memory(&driver, driver.queues[0].used))[1], 0,
                 "a broken device gives nothing back");
    check_works(0);
    tear_down();
}

/* ---- Random bytes ---- */

static uint64_t random_address(uint64_t *seed)
{
    static const uint64_t interesting[] = {
        0,          0x7000, 0x8000,     0x8ff8,  MMIO_HOLE - 4,     MMIO_HOLE, ROM_AT, DRIVER_RAM - 4,
        DRIVER_RAM, ~0ull,  ~0ull - 15, BIT(63), 0x7ffffffffffff000
    };
    uint64_t choice = rig_random(seed);

    if (choice % 4 == 0)
        return interesting[(choice >> 8) % ARRAY_SIZE(interesting)];
    return (choice >> 8) % 0x40000; /* rings and tables among them: they overlap what is read */
}

static uint32_t random_length(uint64_t *seed)
{
    uint64_t choice = rig_random(seed);

    return choice % 8 == 0   ? 0
           : choice % 8 == 1 ? (uint32_t)(choice >> 32) | 0x1000000
                             : (uint32_t)(choice >> 8) % 0x2000;
}

static void random_ring(struct driver_queue *queue, uint64_t *seed)
{
    for (unsigned table = 0; table < 2; table++) {
        struct descriptor *desc = driver_memory(&driver, table ? 0x7000 : queue->desc);

        for (unsigned i = 0; i < queue->size; i++) {
            uint64_t bits = rig_random(seed);
            uint16_t flags = bits % 3 ? bits >> 8 & (NEXT | WRITE) : bits >> 8 & 7;
            uint16_t next = (uint16_t)(bits >> 16) % (bits >> 40 & 15 ? queue->size : 65536);

            if (queue->packed) {
                flags |= (bits >> 50 & 3) == 0 ? 1 << 15 : 1 << 7;
                desc[i] = (struct descriptor){ random_address(seed), random_length(seed), next, flags };
            } else {
                desc[i] = (struct descriptor){ random_address(seed), random_length(seed), flags, next };
            }
        }
    }
    uint16_t *avail = driver_memory(&driver, queue->avail);
    for (unsigned i = 0; i < queue->size + 3; i++)
        avail[i] = rig_random(seed) % (rig_random(seed) % 8 ? queue->size : 65536);
    avail[1] = (uint16_t)(rig_random(seed) % (queue->size * 2));
}

ParameterizedTestParameters(hostile, random_rings)
{
    static unsigned seeds[8] = { 1, 2, 3, 4, 5, 6, 7, 8 };

    return cr_make_param_array(unsigned, seeds, ARRAY_SIZE(seeds));
}

ParameterizedTest(unsigned *number, hostile, random_rings)
{
    uint64_t seed = *number;
    unsigned broken = 0, popped;

    set_up();
    for (unsigned round = 0; round < 400; round++) {
        uint64_t features =
            rig_random(&seed) & (BIT(VIRTIO_F_RING_PACKED) | BIT(VIRTIO_F_EVENT_IDX) | BIT(VIRTIO_F_INDIRECT_DESC));

        driver_start(&driver, features, 2,
                     features >> VIRTIO_F_RING_PACKED & 1 ? 1 + rig_random(&seed) % 128 : 1u << rig_random(&seed) % 8);
        echo->hold = rig_random(&seed) & 1;
        for (unsigned i = 0; i < 4; i++) {
            random_ring(&driver.queues[i & 1], &seed);
            driver_kick(&driver.queues[i & 1], true);
            run();
            while (echo->held_count && rig_random(&seed) % 4)
                echo_answer(echo, (unsigned)(rig_random(&seed) % echo->held_count));
        }
        if (driver_status(&driver) & VIRTIO_STATUS_NEEDS_RESET)
            broken++;
        driver_set_status(&driver, 0);
        echo_forget(echo);
        popped = (unsigned)echo->popped;
    }
    cr_assert_gt(broken, 50);
    cr_assert_gt(popped, 50, "some chains are good");
    check_works(BIT(VIRTIO_F_EVENT_IDX));
    tear_down();
}

/* Registers of both interfaces, at random, with a working ring now and then. */
ParameterizedTestParameters(hostile, random_registers)
{
    static unsigned seeds[4] = { 11, 12, 13, 14 };

    return cr_make_param_array(unsigned, seeds, ARRAY_SIZE(seeds));
}

ParameterizedTest(unsigned *number, hostile, random_registers)
{
    uint64_t seed = *number;

    set_up();
    for (unsigned i = 0; i < 30000; i++) {
        uint64_t bits = rig_random(&seed), value = bits >> 60 ? rig_random(&seed) % 300 : rig_random(&seed);
        unsigned size = 1u << (bits >> 8) % 4, offset = (unsigned)(bits >> 16) % 0x60;

        switch (bits % 8) {
        case 0:
        case 1:
        case 2:
            driver_write(&driver, driver.common + offset, size, value);
            break;
        case 3:
            driver_read(&driver, DRIVER_BAR + (bits >> 16) % 0x4100, size);
            break;
        case 4:
            driver_write(&driver, DRIVER_BAR + (bits >> 16) % 0x4100, size, value);
            break;
        case 5:
            port_space_write(rig.env.ports, (uint16_t)(DRIVER_IO_BAR + offset % 40), size > 4 ? 4 : size,
                             (uint32_t)value);
            break;
        case 6:
            /* not the BARs and the command register: they would take the device out of reach */
            pci_device_config_write(driver.pci, 0x40 + offset, size > 4 ? 4 : size, (uint32_t)value);
            break;
        default:
            run();
        }
    }
    pci_device_reset(driver.pci);
    driver_bind(&driver, &rig.env, &echo->virtio.pci.device, true);
    check_works(BIT(VIRTIO_F_EVENT_IDX));
    device_destroy(&echo->virtio.pci.device); /* rings may have been anywhere, so the guard says nothing */
    pci_bus_destroy(rig.env.pci_bus);
    rig_destroy(&rig);
}
