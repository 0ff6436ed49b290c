/* virtio-rng and virtio-balloon by their registers, on the fake loop. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "devices/core/object.h"
#include "devices/virtio/virtio_balloon.h"
#include "driver.h"
#include "tests/devices/rig.h"

static struct rig rig;
static struct driver driver;
static struct device *device;

static struct device *create(const char *name, const char *text, struct error *err)
{
    struct option_list options;
    struct device *made;

    cr_assert_eq(options_parse(&options, text, NULL, err), 0);
    made = device_create(&rig.env, device_type_find(name), NULL, &options, err);
    if (made)
        cr_assert_eq(options_check_all_used(&options, name, err), 0, "%s", err->text);
    options_free(&options);
    return made;
}

static void set_up_rig(void)
{
    struct error err = { "" };

    rig_init(&rig);
    physmem_destroy(rig.env.mem);
    rig.env.mem = physmem_create(DRIVER_RAM, event_loop_mutex(rig.env.loop), &err);
    cr_assert_not_null(physmem_add_ram(rig.env.mem, 0, DRIVER_RAM, 0, "ram", &err));
    rig.env.pci_bus = driver_bus(&rig.env);
}

static void set_up(const char *name, const char *options)
{
    struct error err = { "" };

    device = create(name, options, &err);
    cr_assert_not_null(device, "%s", err.text);
    driver_bind(&driver, &rig.env, device, true);
}

static void tear_down(void)
{
    device_destroy(device);
    pci_bus_destroy(rig.env.pci_bus);
    object_registry_destroy(rig.env.objects);
    rig_destroy(&rig);
}

static void run(void)
{
    while (fake_loop_poll(0))
        ;
}

static void add(unsigned queue, gpa_t gpa, uint32_t size, bool writable)
{
    struct driver_buffer buffer = { gpa, size, writable };

    cr_assert(driver_add(&driver.queues[queue], &buffer, 1, &driver));
    driver_kick(&driver.queues[queue], true);
    run();
}

/* ---- Random numbers ---- */

Test(rng, fills_what_it_is_given)
{
    uint8_t *bytes;
    unsigned zeroes = 0;
    uint32_t length;

    set_up_rig();
    set_up("virtio-rng-pci", "");
    cr_assert_eq(pci_device_config_read(driver.pci, 0, 4), 0x10051af4);
    driver_start(&driver, 0, 1, 0);
    bytes = driver_memory(&driver, 0x8000);
    memset(bytes, 0, 300);
    add(0, 0x8000, 256, true);
    cr_assert_not_null(driver_get(&driver.queues[0], &length));
    cr_assert_eq(length, 256);
    for (unsigned i = 0; i < 256; i++)
        zeroes += bytes[i] == 0;
    cr_assert_lt(zeroes, 20);
    for (unsigned i = 256; i < 300; i++)
        cr_assert_eq(bytes[i], 0);
    add(0, 0x8000, 16, false); /* nothing to write to */
    cr_assert_not_null(driver_get(&driver.queues[0], &length));
    cr_assert_eq(length, 0);
    rig_round_trip(device, virtio_pci_reset);
    rig_load_garbage(device, 3, 100);
    tear_down();
}

Test(rng, quota)
{
    uint32_t length;

    set_up_rig();
    set_up("virtio-rng-pci", "max-bytes=100,period=1000");
    driver_start(&driver, 0, 1, 0);
    add(0, 0x8000, 80, true);
    cr_assert_not_null(driver_get(&driver.queues[0], &length));
    add(0, 0x8000, 80, true);
    cr_assert_not_null(driver_get(&driver.queues[0], &length));
    cr_assert_eq(length, 20, "what is left");
    add(0, 0x8000, 80, true);
    cr_assert_null(driver_get(&driver.queues[0], &length), "used up");
    fake_time_advance(500000000);
    run();
    cr_assert_null(driver_get(&driver.queues[0], &length));
    fake_time_advance(600000000);
    run();
    cr_assert_not_null(driver_get(&driver.queues[0], &length));
    cr_assert_eq(length, 80);
    tear_down();
}

Test(rng, source_that_has_nothing_yet)
{
    char option[100], path[50];
    int ends[2];
    uint32_t length;
    struct error err = { "" };

    set_up_rig();
    rig.env.objects = object_registry_create(rig.env.loop, &err);
    cr_assert_eq(pipe(ends), 0);
    snprintf(path, sizeof(path), "/proc/self/fd/%d", ends[0]);
    snprintf(option, sizeof(option), "rng-random,id=r0,filename=%s", path);
    cr_assert_eq(object_add(rig.env.objects, option, &err), 0, "%s", err.text);
    cr_assert_neq(object_add(rig.env.objects, "rng-builtin,id=r0", &err), 0, "the id is taken");
    set_up("virtio-rng-pci", "rng=r0");
    driver_start(&driver, 0, 1, 0);
    add(0, 0x8000, 80, true);
    cr_assert_null(driver_get(&driver.queues[0], &length));
    cr_assert_eq(write(ends[1], "entropy!", 8), 8);
    run();
    cr_assert_not_null(driver_get(&driver.queues[0], &length));
    cr_assert_eq(length, 8);
    cr_assert_eq(memcmp(driver_memory(&driver, 0x8000), "entropy!", 8), 0);
    tear_down();
}

Test(rng, mistakes)
{
    struct error err = { "" };

    set_up_rig();
    rig.env.objects = object_registry_create(rig.env.loop, &err);
    cr_assert_null(create("virtio-rng-pci", "rng=nobody", &err));
    cr_assert_str_eq(err.text, "there is no object 'nobody'");
    cr_assert_null(create("virtio-rng-pci", "period=0", &err));
    cr_assert_neq(object_add(rig.env.objects, "rng-random,id=x,filename=/nonexistent", &err), 0);
    cr_assert_not_null(strstr(err.text, "/nonexistent"));
    cr_assert_neq(object_add(rig.env.objects, "rng-egd,id=x", &err), 0);
    cr_assert_neq(object_add(rig.env.objects, "rng-builtin", &err), 0);
    cr_assert_neq(object_add(rig.env.objects, "rng-builtin,id=a,what=1", &err), 0);
    cr_assert_not_null(strstr(err.text, "what"));
}

/* ---- Balloon ---- */

/* Is the page in host memory? */
static bool present(gpa_t gpa)
{
    off_t offset = (off_t)gpa;

    return lseek(physmem_ram_fd(rig.env.mem), offset, SEEK_DATA) == offset;
}

Test(balloon, inflated_pages_leave_the_host)
{
    uint32_t *pages, length;

    set_up_rig();
    set_up("virtio-balloon-pci", "");
    driver_start(&driver, ~0ull, 3, 0);
    memset(driver_memory(&driver, 0x400000), 0x77, 0x10000);
    cr_assert(present(0x403000));
    pages = driver_memory(&driver, 0x8000);
    pages[0] = 0x403;
    pages[1] = 0x404;
    pages[2] = 0x402;
    pages[3] = 0x408;
    pages[4] = 0xffffffff; /* not RAM: nothing happens */
    add(0, 0x8000, 20, false);
    cr_assert_not_null(driver_get(&driver.queues[0], &length));
    for (gpa_t page = 0x400; page < 0x410; page++) {
        bool gone = (page >= 0x402 && page <= 0x404) || page == 0x408;
        cr_assert_eq(present(page << 12), !gone, "page 0x%llx", (unsigned long long)page);
    }
    cr_assert_eq(*(uint8_t *)driver_memory(&driver, 0x403000), 0);
    cr_assert_eq(*(uint8_t *)driver_memory(&driver, 0x405000), 0x77);
    add(1, 0x8000, 20, false);
    cr_assert_not_null(driver_get(&driver.queues[1], &length), "deflate");
    tear_down();
}

Test(balloon, target_and_actual)
{
    struct virtio_balloon *balloon;
    unsigned messages;

    set_up_rig();
    set_up("virtio-balloon-pci", "deflate-on-oom=on");
    balloon = virtio_balloon_of(device);
    cr_assert_not_null(balloon);
    driver_start(&driver, ~0ull, 3, 0);
    messages = driver_messages[0];
    virtio_balloon_set_target(balloon, DRIVER_RAM - 100 * 4096);
    cr_assert_eq(driver_messages[0], messages + 1);
    cr_assert_eq(driver_read(&driver, driver.device, 4), 100);
    driver_write(&driver, driver.device, 4, 7);
    cr_assert_eq(driver_read(&driver, driver.device, 4), 100, "the target is not the driver's");
    driver_write(&driver, driver.device + 4, 4, 60);
    cr_assert_eq(virtio_balloon_guest_bytes(balloon), DRIVER_RAM - 60 * 4096);
    rig_round_trip(device, virtio_pci_reset);
    cr_assert_eq(virtio_balloon_guest_bytes(balloon), DRIVER_RAM - 60 * 4096);
    rig_load_garbage(device, 5, 100);
    tear_down();
}

Test(balloon, statistics)
{
    struct stat_entry {
        uint16_t tag;
        uint64_t value;
    } __attribute__((packed)) * stats;
    uint64_t values[BALLOON_STAT_COUNT];
    struct virtio_balloon *balloon;
    uint32_t length;

    set_up_rig();
    set_up("virtio-balloon-pci", "");
    balloon = virtio_balloon_of(device);
    driver_start(&driver, ~0ull, 3, 0);
    cr_assert_eq(virtio_balloon_stats(balloon, values), 0);
    stats = driver_memory(&driver, 0x8000);
    stats[0] = (struct stat_entry){ BALLOON_STAT_FREE, 12345 };
    stats[1] = (struct stat_entry){ 999, 1 };
    add(2, 0x8000, 20, false);
    cr_assert_null(driver_get(&driver.queues[2], &length), "kept");
    cr_assert_neq(virtio_balloon_stats(balloon, values), 0);
    cr_assert_eq(values[BALLOON_STAT_FREE], 12345);
    cr_assert_eq(values[BALLOON_STAT_TOTAL], ~0ull);
    virtio_balloon_poll_stats(balloon, 2);
    cr_assert_not_null(driver_get(&driver.queues[2], &length), "asked for");
    stats[0].value = 777;
    add(2, 0x8000, 20, false);
    virtio_balloon_stats(balloon, values);
    cr_assert_eq(values[BALLOON_STAT_FREE], 777);
    fake_time_advance(2100000000);
    cr_assert_not_null(driver_get(&driver.queues[2], &length), "asked again");
    tear_down();
}

Test(balloon, free_pages_are_reported)
{
    struct driver_buffer pieces[2] = { { 0x500000, 0x4000, true }, { 0x600800, 0x2000, true } };
    uint32_t length;

    set_up_rig();
    set_up("virtio-balloon-pci", "free-page-reporting=on");
    driver_start(&driver, ~(1ull << 4), 4, 0);
    memset(driver_memory(&driver, 0x500000), 1, 0x8000);
    memset(driver_memory(&driver, 0x600000), 1, 0x8000);
    cr_assert(driver_add(&driver.queues[3], pieces, 2, pieces));
    driver_kick(&driver.queues[3], true);
    run();
    cr_assert_not_null(driver_get(&driver.queues[3], &length));
    cr_assert(!present(0x500000) && !present(0x503000) && present(0x504000));
    cr_assert(present(0x600000) && !present(0x601000) && present(0x602000), "whole pages only");
    tear_down();
}

Test(balloon, poisoned_pages_stay)
{
    struct driver_buffer piece = { 0x500000, 0x4000, true };
    uint32_t length;

    set_up_rig();
    set_up("virtio-balloon-pci", "free-page-reporting=on");
    driver_start(&driver, ~0ull, 4, 0);
    driver_write(&driver, driver.device + 12, 4, 0xaaaaaaaa);
    memset(driver_memory(&driver, 0x500000), 0xaa, 0x4000);
    cr_assert(driver_add(&driver.queues[3], &piece, 1, &piece));
    driver_kick(&driver.queues[3], true);
    run();
    cr_assert_not_null(driver_get(&driver.queues[3], &length));
    cr_assert(present(0x500000));
    tear_down();
}
