/* Queues of both formats with all features on and off: data, order, kicks and interrupts that are wanted and no others, resets, state,
 * and the registers of both interfaces. The loop is a fake one: what runs when is the test's decision. */
#include <criterion/criterion.h>
#include <criterion/parameterized.h>
#include <string.h>

#include "driver.h"
#include "echo.h"
#include "tests/devices/rig.h"

static struct rig rig;
static struct driver driver;
static struct echo *echo;

static void set_up(const char *options, bool msix)
{
    struct error err = { "" };

    rig_init(&rig);
    physmem_destroy(rig.env.mem);
    rig.env.mem = physmem_create(DRIVER_RAM, event_loop_mutex(rig.env.loop), &err);
    cr_assert_not_null(physmem_add_ram(rig.env.mem, 0, DRIVER_RAM, 0, "ram", &err));
    rig.env.pci_bus = driver_bus(&rig.env);
    echo = echo_create(&rig.env, options);
    driver_bind(&driver, &rig.env, &echo->virtio.pci.device, msix);
}

static void tear_down(void)
{
    device_destroy(&echo->virtio.pci.device);
    pci_bus_destroy(rig.env.pci_bus);
    rig_destroy(&rig);
}

static void run(void)
{
    while (fake_loop_poll(0))
        ;
}

/* ---- Traffic ---- */

struct request {
    unsigned pieces[2], count;
    uint32_t size;
    struct driver_buffer buffers[12];
    uint8_t fill;
};

/* A chain of random pieces: `size` readable bytes, as many writable. */
static void make_request(struct request *request, uint64_t *seed)
{
    unsigned count = 0;

    request->fill = (uint8_t)rig_random(seed);
    request->size = 1 + rig_random(seed) % 600;
    for (unsigned side = 0; side < 2; side++) {
        uint32_t left = request->size;

        for (unsigned i = 0; left; i++) {
            uint32_t part = i == 5 ? left : 1 + (uint32_t)rig_random(seed) % left;
            gpa_t gpa = driver_allocate(&driver, part, 1 + rig_random(seed) % 3);

            request->buffers[count++] = (struct driver_buffer){ gpa, part, side == 1 };
            memset(driver_memory(&driver, gpa), side ? 0 : request->fill, part);
            left -= part;
        }
    }
    request->count = count;
}

static void check_answer(const struct request *request, uint32_t length)
{
    cr_assert_eq(length, request->size);
    for (unsigned i = 0; i < request->count; i++) {
        const uint8_t *bytes = driver_memory(&driver, request->buffers[i].gpa);
        uint8_t expected = (uint8_t)(request->fill + request->buffers[i].writable);

        for (uint32_t n = 0; n < request->buffers[i].length; n++)
            cr_assert_eq(bytes[n], expected, "piece %u byte %u", i, n);
    }
}

struct mode {
    bool packed, event_idx, indirect, hold;
    unsigned size;
};

/* Adds and takes back at random; answers in random order. After each quiet moment everything has come back. */
static void traffic(const struct mode *mode, uint64_t seed)
{
    static struct request requests[256];
    uint64_t features = (mode->packed ? BIT(VIRTIO_F_RING_PACKED) : 0) |
                        (mode->event_idx ? BIT(VIRTIO_F_EVENT_IDX) : 0) |
                        (mode->indirect ? BIT(VIRTIO_F_INDIRECT_DESC) : 0);
    struct driver_queue *queue = &driver.queues[1];
    struct request *got;
    uint32_t length;

    driver_start(&driver, features, 2, mode->size);
    driver_want_interrupts(queue, true);
    echo->hold = mode->hold;
    for (unsigned round = 0; round < 300; round++) {
        unsigned out = 0;
        gpa_t heap = driver.heap;

        for (unsigned burst = rig_random(&seed) % 6; out < 200 && burst; burst--) {
            for (unsigned n = rig_random(&seed) % 8; n; n--) {
                make_request(&requests[out], &seed);
                if (!driver_add(queue, requests[out].buffers, requests[out].count, &requests[out]))
                    break;
                out++;
            }
            driver_kick(queue, false);
            if (rig_random(&seed) & 1)
                run();
            while (echo->held_count && rig_random(&seed) % 4)
                echo_answer(echo, (unsigned)(rig_random(&seed) % echo->held_count));
        }
        run();
        while (echo->held_count) {
            echo_answer(echo, (unsigned)(rig_random(&seed) % echo->held_count));
            run();
        }
        for (; out; out--) {
            got = driver_get(queue, &length);
            cr_assert_not_null(got, "round %u: %u answers are missing", round, out);
            check_answer(got, length);
        }
        cr_assert_null(driver_get(queue, &length));
        driver.heap = heap;
    }
    cr_assert_eq(driver_status(&driver), 15);
    cr_assert_gt(driver_messages[2], 100);
    cr_assert_eq(driver_messages[1], 0, "the other queue's vector is quiet");
}

static const struct mode modes[] = {
    { .size = 128 },
    { .size = 8, .hold = true },
    { .event_idx = true, .indirect = true, .size = 128 },
    { .event_idx = true, .hold = true, .size = 64 },
    { .event_idx = true, .indirect = true, .hold = true, .size = 16 },
    { .packed = true, .size = 128 },
    { .packed = true, .size = 24, .hold = true },
    { .packed = true, .event_idx = true, .indirect = true, .size = 100 },
    { .packed = true, .event_idx = true, .hold = true, .size = 31 },
    { .packed = true, .event_idx = true, .indirect = true, .hold = true, .size = 16 },
};

ParameterizedTestParameters(ring, random_traffic)
{
    return cr_make_param_array(struct mode, (void *)modes, ARRAY_SIZE(modes));
}

ParameterizedTest(struct mode *mode, ring, random_traffic)
{
    set_up("packed=on", true);
    traffic(mode, 1);
    traffic(mode, 2); /* after a reset */
    tear_down();
}

/* ---- Interrupts and kicks that nobody wants ---- */

static struct driver_buffer small[1];

static void add_small(struct driver_queue *queue)
{
    small[0] = (struct driver_buffer){ 0x8000, 16, true };
    cr_assert(driver_add(queue, small, 1, small));
}

static void drain(struct driver_queue *queue, unsigned count)
{
    uint32_t length;

    for (unsigned i = 0; i < count; i++)
        cr_assert_not_null(driver_get(queue, &length));
    cr_assert_null(driver_get(queue, &length));
}

ParameterizedTestParameters(ring, one_interrupt_a_batch)
{
    return cr_make_param_array(struct mode, (void *)modes, ARRAY_SIZE(modes));
}

ParameterizedTest(struct mode *mode, ring, one_interrupt_a_batch)
{
    struct driver_queue *queue = &driver.queues[0];
    unsigned before;

    set_up("packed=on", true);
    driver_start(&driver,
                 (mode->packed ? BIT(VIRTIO_F_RING_PACKED) : 0) | (mode->event_idx ? BIT(VIRTIO_F_EVENT_IDX) : 0), 2,
                 mode->size);
    for (unsigned round = 0; round < 50; round++) {
        driver_want_interrupts(queue, true);
        before = driver_messages[1];
        for (unsigned i = 0; i < 3; i++)
            add_small(queue);
        driver_kick(queue, false);
        run();
        if (mode->event_idx && round)
            cr_assert_eq(driver_messages[1] - before, 1, "round %u: %u interrupts", round, driver_messages[1] - before);
        else
            cr_assert_geq(driver_messages[1] - before, 1);
        drain(queue, 3);

        driver_want_interrupts(queue, false);
        before = driver_messages[1];
        add_small(queue);
        driver_kick(queue, false);
        run();
        if (round)
            cr_assert_eq(driver_messages[1], before, "round %u: an interrupt that was not wanted", round);
        drain(queue, 1);
    }
    tear_down();
}

/* While the handler has not run, further kicks are held back by the driver (no event) or by us (one eventfd write). */
Test(ring, kicks_are_held_back)
{
    struct driver_queue *queue = &driver.queues[0];

    set_up("", true);
    driver_start(&driver, BIT(VIRTIO_F_EVENT_IDX), 1, 0);
    for (unsigned i = 0; i < 40; i++) {
        add_small(queue);
        driver_kick(queue, false);
    }
    cr_assert_eq(queue->kicks, 1, "the driver kicked %u times", queue->kicks);
    cr_assert_eq(echo->popped, 0, "not on the thread of the vCPU");
    run();
    cr_assert_eq(echo->popped, 40);
    drain(queue, 40);
    tear_down();
}

static void add_another(void)
{
    uint32_t length;

    driver_get(&driver.queues[0], &length);
    add_small(&driver.queues[0]);
}

/* A driver that adds as fast as the device takes does not keep the loop for itself. */
Test(ring, handler_has_a_budget)
{
    set_up("", true);
    driver_start(&driver, 0, 1, 16);
    add_small(&driver.queues[0]);
    driver_kick(&driver.queues[0], true);
    echo->answered = add_another;
    for (unsigned turn = 1; turn < 5; turn++) {
        cr_assert_eq(fake_loop_poll(0), 1);
        cr_assert_eq(echo->popped, 16 * turn, "turn %u: %llu", turn, (unsigned long long)echo->popped);
    }
    echo->answered = NULL;
    run();
    drain(&driver.queues[0], 1);
    tear_down();
}

/* ---- Resets ---- */

static void device_reset_with_elements_out(bool packed)
{
    struct driver_queue *queue = &driver.queues[0];
    uint8_t *answer;

    set_up("packed=on", true);
    driver_start(&driver, packed ? BIT(VIRTIO_F_RING_PACKED) : 0, 1, 0);
    echo->hold = true;
    add_small(queue);
    driver_kick(queue, true);
    run();
    cr_assert_eq(echo->held_count, 1);
    driver_set_status(&driver, 0);
    cr_assert_eq(driver_status(&driver), 0);
    answer = driver_memory(&driver, packed ? queue->desc : queue->used);
    memset(answer, 0x5a, 64);
    driver_start(&driver, packed ? BIT(VIRTIO_F_RING_PACKED) : 0, 1, 0);
    echo_answer(echo, 0); /* stale: of before */
    cr_assert_eq(driver_messages[1], 0);
    drain(&driver.queues[0], 0);
    add_small(&driver.queues[0]);
    driver_kick(&driver.queues[0], true);
    run();
    echo_answer(echo, 0);
    drain(&driver.queues[0], 1);
    tear_down();
}

Test(ring, reset_makes_elements_stale)
{
    device_reset_with_elements_out(false);
    device_reset_with_elements_out(true);
}

Test(ring, queue_reset)
{
    set_up("", true);
    driver_start(&driver, BIT(VIRTIO_F_RING_RESET), 2, 0);
    driver_write(&driver, driver.common + 0x16, 2, 1);
    driver_write(&driver, driver.common + 0x3a, 2, 1);
    cr_assert_eq(driver_read(&driver, driver.common + 0x3a, 2), 0);
    cr_assert_eq(driver_read(&driver, driver.common + 0x1c, 2), 0, "not enabled");
    cr_assert_eq(driver_read(&driver, driver.common + 0x20, 4), 0);
    add_small(&driver.queues[0]);
    driver_kick(&driver.queues[0], true);
    run();
    drain(&driver.queues[0], 1);
    tear_down();
}

/* ---- Registers ---- */

Test(registers, identity)
{
    struct error err = { "" };

    set_up("", false);
    cr_assert_eq(pci_device_config_read(driver.pci, 0, 4), 0x10091af4, "transitional");
    cr_assert_eq(pci_device_config_read(driver.pci, PCI_SUBSYSTEM_VENDOR, 4), 0x00091af4);
    cr_assert_eq(pci_device_config_read(driver.pci, PCI_REVISION, 1), 0);
    tear_down();
    set_up("disable-legacy=on,vectors=0", false);
    cr_assert_eq(pci_device_config_read(driver.pci, 0, 4), 0x10491af4, "modern");
    cr_assert_eq(pci_device_config_read(driver.pci, PCI_SUBSYSTEM_VENDOR, 4), 0x11001af4);
    cr_assert_eq(pci_device_config_read(driver.pci, PCI_REVISION, 1), 1);
    cr_assert_eq(pci_device_config_read(driver.pci, PCI_BAR0, 4), 0, "no I/O BAR");
    cr_assert_eq(port_space_read(rig.env.ports, DRIVER_IO_BAR, 4), 0xffffffff);
    tear_down();
    rig_init(&rig);
    rig.env.pci_bus = driver_bus(&rig.env);
    struct option_list options;
    cr_assert_eq(options_parse(&options, "disable-legacy=on,disable-modern=on", NULL, &err), 0);
    cr_assert_null(device_create(&rig.env, &echo_pci_type, NULL, &options, &err));
    cr_assert_not_null(strstr(err.text, "leave nothing"), "%s", err.text);
    options_free(&options);
}

Test(registers, features_have_to_fit)
{
    set_up("packed=off", true);
    driver_set_status(&driver, 3);
    driver_write(&driver, driver.common + 8, 4, 1);
    driver_write(&driver, driver.common + 12, 4, 1 | 1 << 2); /* VERSION_1, and RING_PACKED, which is not offered */
    driver_set_status(&driver, 11);
    cr_assert_eq(driver_status(&driver), 3, "FEATURES_OK does not stay");
    driver_write(&driver, driver.common + 12, 4, 0);
    driver_set_status(&driver, 11);
    cr_assert_eq(driver_status(&driver), 3, "VERSION_1 is needed");
    driver_write(&driver, driver.common + 12, 4, 1);
    driver_set_status(&driver, 11);
    cr_assert_eq(driver_status(&driver), 11);
    driver_write(&driver, driver.common + 12, 4, 0);
    cr_assert_eq(driver_read(&driver, driver.common + 12, 4), 1, "settled");
    tear_down();
}

Test(registers, interrupt_line_and_status)
{
    set_up("vectors=0", false);
    driver_start(&driver, 0, 1, 0);
    add_small(&driver.queues[0]);
    driver_kick(&driver.queues[0], true);
    run();
    cr_assert(driver_intx);
    cr_assert_eq(driver_read(&driver, driver.isr, 1), 1);
    cr_assert_not(driver_intx);
    cr_assert_eq(driver_read(&driver, driver.isr, 1), 0);
    virtio_config_changed(&echo->virtio.vdev);
    cr_assert_eq(driver_read(&driver, driver.isr, 1), 2);
    tear_down();
}

Test(registers, access_through_configuration_space)
{
    unsigned at;

    set_up("", false);
    for (at = pci_device_config_read(driver.pci, PCI_CAPABILITIES, 1);
         pci_device_config_read(driver.pci, at, 1) != PCI_CAP_VENDOR ||
         pci_device_config_read(driver.pci, at + 3, 1) != 5;
         at = pci_device_config_read(driver.pci, at + 1, 1))
        cr_assert_neq(at, 0);
    pci_device_config_write(driver.pci, at + 4, 1, 4);
    pci_device_config_write(driver.pci, at + 8, 4, 0x12); /* num_queues */
    pci_device_config_write(driver.pci, at + 12, 4, 2);
    cr_assert_eq(pci_device_config_read(driver.pci, at + 16, 2), ECHO_QUEUES);
    pci_device_config_write(driver.pci, at + 8, 4, 0x14);
    pci_device_config_write(driver.pci, at + 12, 4, 1);
    pci_device_config_write(driver.pci, at + 16, 1, 3);
    cr_assert_eq(driver_status(&driver), 3);
    pci_device_config_write(driver.pci, at + 8, 4, 0xfffffffc); /* nowhere */
    pci_device_config_write(driver.pci, at + 12, 4, 4);
    pci_device_config_write(driver.pci, at + 16, 4, 0);
    pci_device_config_read(driver.pci, at + 16, 4);
    cr_assert_eq(driver_status(&driver), 3);
    tear_down();
}

static uint32_t in(unsigned offset, unsigned size)
{
    return port_space_read(rig.env.ports, (uint16_t)(DRIVER_IO_BAR + offset), size);
}

static void out(unsigned offset, unsigned size, uint32_t value)
{
    port_space_write(rig.env.ports, (uint16_t)(DRIVER_IO_BAR + offset), size, value);
}

Test(registers, legacy)
{
    uint8_t *page;
    uint16_t *avail, *used;

    set_up("disable-modern=on", false);
    cr_assert_eq(in(0, 4) >> VIRTIO_F_EVENT_IDX & 1, 1);
    out(18, 1, 0);
    out(18, 1, 3);
    out(4, 4, 0xffffffff);
    cr_assert_eq(in(4, 4), in(0, 4), "what is not offered is masked");
    out(4, 4, 0);
    out(14, 2, 7);
    cr_assert_eq(in(12, 2), 0, "no such queue");
    out(14, 2, 1);
    cr_assert_eq(in(12, 2), 128);
    out(8, 4, 0x100);
    cr_assert_eq(in(8, 4), 0x100);
    out(18, 1, 7);
    page = driver_memory(&driver, 0x100000);
    memcpy(page, &(struct {
               uint64_t a;
               uint32_t l;
               uint16_t f, n;
           }){ 0x9000, 4, 2, 0 },
           16);
    avail = (uint16_t *)(page + 128 * 16);
    used = (uint16_t *)(page + 4096);
    avail[1] = 1;
    out(16, 2, 1);
    run();
    cr_assert_eq(used[1], 1);
    cr_assert(driver_intx);
    cr_assert_eq(in(19, 1), 1);
    cr_assert_not(driver_intx);
    out(20 + 3, 1, 0x77);
    cr_assert_eq(in(20, 4), 0x77000000, "configuration without MSI-X");
    out(8, 4, 0);
    cr_assert_eq(in(18, 1), 0, "page 0 resets");
    cr_assert_eq(in(8, 4), 0);
    tear_down();
}

Test(registers, clearing_bus_master_stops)
{
    set_up("", true);
    driver_start(&driver, 0, 1, 0);
    pci_device_config_write(driver.pci, PCI_COMMAND, 2, PCI_COMMAND_MEMORY);
    cr_assert_eq(driver_status(&driver), 11);
    add_small(&driver.queues[0]);
    driver_kick(&driver.queues[0], true);
    run();
    cr_assert_eq(echo->popped, 0);
    tear_down();
}

/* ---- State ---- */

static void spoil(struct device *device)
{
    virtio_pci_reset(device);
}

static void state_in_mid_traffic(uint64_t features)
{
    struct driver_queue *queue = &driver.queues[0];

    set_up("packed=on", true);
    driver_start(&driver, features, 2, 32);
    for (unsigned i = 0; i < 41; i++) {
        add_small(queue);
        driver_kick(queue, true);
        run();
        drain(queue, 1);
    }
    add_small(queue); /* not yet kicked */
    rig_round_trip(&echo->virtio.pci.device, spoil);
    cr_assert_eq(driver_status(&driver), 15);
    run(); /* loading kicks */
    drain(queue, 1);
    for (unsigned i = 0; i < 70; i++) {
        add_small(queue);
        driver_kick(queue, true);
        run();
        drain(queue, 1);
    }
    rig_load_garbage(&echo->virtio.pci.device, 7, 100);
    run();
    tear_down();
}

Test(state, round_trip_split)
{
    state_in_mid_traffic(BIT(VIRTIO_F_EVENT_IDX));
}

Test(state, round_trip_packed)
{
    state_in_mid_traffic(BIT(VIRTIO_F_RING_PACKED) | BIT(VIRTIO_F_EVENT_IDX));
}

/* The rings are found again when the map changes under them. */
Test(ring, memory_map_changes)
{
    struct driver_queue *queue = &driver.queues[0];
    struct io_ops nothing = { 0 };
    struct error err = { "" };
    struct mem_region *hole;

    set_up("", true);
    driver_start(&driver, 0, 1, 0);
    add_small(queue);
    driver_kick(queue, true);
    run();
    drain(queue, 1);
    hole = physmem_add_mmio(rig.env.mem, 0xa00000, 0x1000, &nothing, NULL, "elsewhere", &err);
    add_small(queue);
    driver_kick(queue, true);
    run();
    drain(queue, 1);
    physmem_move(hole, queue->used & PAGE_MASK);
    add_small(queue);
    driver_kick(queue, true);
    run();
    drain(queue, 0);
    cr_assert_eq(driver_status(&driver), 15 | VIRTIO_STATUS_NEEDS_RESET);
    cr_assert_eq(driver_messages[0], 1, "configuration interrupt");
    physmem_remove(hole);
    driver_start(&driver, 0, 1, 0);
    add_small(queue);
    driver_kick(queue, true);
    run();
    drain(queue, 1);
    tear_down();
}
