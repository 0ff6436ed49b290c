/* virtio-9p: messages through the queue, many at once, flush, resets in mid traffic, malformed chains. What the server
 * says is tested in tests/fs. */
#include "chardev_rig.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "devices/fs/fsdev.h"
#include "driver.h"

#define VERSION_1 BIT(32)

static struct clock guest_clock;
static struct device_env env;
static struct driver driver;
static struct device *device;
static struct error err;
static gpa_t scratch;

static struct device *create(const char *text)
{
    struct option_list options;
    struct device *made;

    cr_assert_eq(options_parse(&options, text, NULL, &err), 0);
    made = device_create(&env, device_type_find("virtio-9p-pci"), "fs0", &options, &err);
    if (made)
        cr_assert_eq(options_check_all_used(&options, "virtio-9p-pci", &err), 0, "%s", err.text);
    options_free(&options);
    return made;
}

static void start(void)
{
    char option[200];

    rig_start();
    guest_clock = (struct clock){ .tsc_khz = 1000000, .ns_base = clock_host_ns() };
    env.clock = &guest_clock;
    env.loop = loop;
    env.mem = physmem_create(DRIVER_RAM, event_loop_mutex(loop), &err);
    cr_assert_not_null(physmem_add_ram(env.mem, 0, DRIVER_RAM, 0, "ram", &err));
    env.ports = port_space_create(event_loop_mutex(loop));
    env.pci_bus = driver_bus(&env);
    env.fsdevs = fsdev_registry_create(&err);
    snprintf(option, sizeof(option), "local,id=f,path=%s,security_model=none", folder);
    cr_assert_eq(fsdev_add(env.fsdevs, option, &err), 0, "%s", err.text);
    device = create("fsdev=f,mount_tag=a-tag");
    cr_assert_not_null(device, "%s", err.text);
    driver_bind(&driver, &env, device, true);
    driver_start(&driver, VERSION_1 | BIT(0), 1, 0);
    scratch = driver_allocate(&driver, 4 * MIB, 4096);
}

static void stop(void)
{
    device_destroy(device);
    fsdev_registry_destroy(env.fsdevs);
    pci_bus_destroy(env.pci_bus);
    physmem_destroy(env.mem);
    port_space_destroy(env.ports);
    rig_stop();
}

TestSuite(p9, .init = start, .fini = stop, .timeout = 60);

/* Writes a message at scratch + slot * 8192, its answer goes 4096 behind. */
static void submit(unsigned slot, uint8_t type, const void *body, uint32_t size)
{
    gpa_t gpa = scratch + slot * 8192;
    uint8_t *message = driver_memory(&driver, gpa);
    uint32_t whole = 7 + size;
    uint16_t tag = (uint16_t)slot;
    struct driver_buffer buffers[2] = { { gpa, whole, false }, { gpa + 4096, 4096, true } };

    memcpy(message, &whole, 4);
    message[4] = type;
    memcpy(message + 5, &tag, 2);
    memcpy(message + 7, body, size);
    memset(message + 4096, 0, 16);
    cr_assert(driver_add(&driver.queues[0], buffers, 2, message + 4096));
    driver_kick(&driver.queues[0], false);
}

static uint8_t *answer(void)
{
    uint8_t *reply = NULL;
    uint32_t length, stated;

    for (unsigned i = 0; i < 500 && !reply; i++) {
        reply = driver_get(&driver.queues[0], &length);
        if (!reply)
            run_for(2);
    }
    cr_assert_not_null(reply, "no answer");
    memcpy(&stated, reply, 4);
    cr_assert_eq(stated, length);
    return reply;
}

static void session(void)
{
    submit(0, 100,
           "\0\x10\0\0\x08\0"
           "9P2000.L",
           14); /* msize 4096 */
    uint8_t *reply = answer();
    cr_assert_eq(reply[4], 101);
    cr_assert_arr_eq(reply + 13, "9P2000.L", 8);
    submit(0, 104, "\0\0\0\0\xff\xff\xff\xff\0\0\0\0\0\0\0\0", 16);
    cr_assert_eq(answer()[4], 105);
}

Test(p9, tag_and_session)
{
    char tag[10] = { 0 };

    cr_assert_eq(driver_read(&driver, driver.device, 2), 5);
    for (unsigned i = 0; i < 5; i++)
        tag[i] = (char)driver_read(&driver, driver.device + 2 + i, 1);
    cr_assert_str_eq(tag, "a-tag");
    session();
    cr_assert_gt(driver_messages[0] + driver_messages[1] + driver_messages[2], 0u);
}

Test(p9, many_at_once)
{
    bool seen[60] = { false };

    session();
    for (unsigned round = 0; round < 20; round++) {
        memset(seen, 0, sizeof(seen));
        for (unsigned i = 0; i < 60; i++)
            submit(i, 24, "\0\0\0\0\xff\x07\0\0\0\0\0\0", 12); /* getattr of the root */
        for (unsigned i = 0; i < 60; i++) {
            uint8_t *reply = answer();
            cr_assert_eq(reply[4], 25);
            cr_assert_not(seen[reply[5]], "each once");
            seen[reply[5]] = true;
        }
    }
}

/* The answer to the flushed request comes first, or it is gone already. */
Test(p9, flush)
{
    session();
    for (unsigned round = 0; round < 50; round++) {
        submit(1, 24, "\0\0\0\0\xff\x07\0\0\0\0\0\0", 12);
        submit(2, 108, "\x01\0", 2);
        cr_assert_eq(answer()[4], 25);
        cr_assert_eq(answer()[4], 109);
    }
    submit(3, 108, "\x09\0", 2);
    cr_assert_eq(answer()[4], 109, "nothing of that tag");
    submit(3, 108, "\x03\0", 2);
    cr_assert_eq(answer()[4], 109, "itself");
}

Test(p9, reset_in_mid_traffic)
{
    for (unsigned round = 0; round < 100; round++) {
        session();
        for (unsigned i = 0; i < 50; i++)
            submit(i, i % 7 ? 24 : 108, i % 7 ? "\0\0\0\0\xff\x07\0\0\0\0\0\0" : "\x01\0\0\0\0\0\0\0\0\0\0\0", 12);
        if (round % 3)
            run_for(round % 3 - 1);
        driver_set_status(&driver, 0);
        memset(driver_memory(&driver, scratch), 0xee, 512 * 1024);
        run_for(1);
        uint8_t *ram = driver_memory(&driver, scratch);
        for (unsigned i = 0; i < 512 * 1024; i++)
            cr_assert_eq(ram[i], 0xee, "written after the reset, at %u", i);
        driver.heap = 0x10000;
        driver_start(&driver, VERSION_1 | BIT(0), 1, 0);
        scratch = driver_allocate(&driver, 4 * MIB, 4096);
    }
}

/* Four answers of nearly a megabyte each are being written when the driver takes its memory back. */
Test(p9, reset_while_reading)
{
    const uint32_t part = 900000, size = 23;
    const uint64_t offset = 0;
    FILE *file = fopen(rig_path("big"), "w");

    for (unsigned i = 0; i < 1000000; i++)
        fputc('b', file);
    fclose(file);
    for (unsigned round = 0; round < 60; round++) {
        submit(0, 100,
               "\0\0\x10\0\x08\0"
               "9P2000.L",
               14); /* msize 1 MiB */
        answer();
        submit(0, 104, "\0\0\0\0\xff\xff\xff\xff\0\0\0\0\0\0\0\0", 16);
        answer();
        submit(0, 110,
               "\0\0\0\0\x01\0\0\0\x01\0\x03\0"
               "big",
               15);
        cr_assert_eq(answer()[4], 111);
        submit(0, 12, "\x01\0\0\0\0\0\0\0", 8);
        cr_assert_eq(answer()[4], 13);
        for (unsigned i = 0; i < 4; i++) {
            gpa_t gpa = scratch + i * MIB;
            uint8_t *message = driver_memory(&driver, gpa);
            struct driver_buffer buffers[2] = { { gpa, size, false }, { gpa + 4096, part + 11, true } };

            memcpy(message, &size, 4);
            memcpy(message + 4, "\x74\0\0\x01\0\0\0", 7);
            memcpy(message + 11, &offset, 8);
            memcpy(message + 19, &part, 4);
            cr_assert(driver_add(&driver.queues[0], buffers, 2, message + 4096));
            driver_kick(&driver.queues[0], true);
        }
        run_for(0);
        if (round % 2)
            usleep(round * 5);
        driver_set_status(&driver, 0);
        uint8_t *ram = driver_memory(&driver, scratch);
        memset(ram, 0xee, 4 * MIB);
        run_for(2);
        for (unsigned i = 0; i < 4 * MIB; i++)
            cr_assert_eq(ram[i], 0xee, "written after the reset, at %u", i);
        driver.heap = 0x10000;
        driver_start(&driver, VERSION_1 | BIT(0), 1, 0);
        scratch = driver_allocate(&driver, 4 * MIB, 4096);
    }
}

Test(p9, malformed)
{
    struct driver_buffer small[2] = { { scratch, 7, false }, { scratch + 4096, 10, true } };
    uint32_t size;

    session();
    submit(1, 24, "", 0);
    cr_assert_eq(answer()[4], 7, "no fid in it");
    submit(1, 255, "", 0);
    cr_assert_eq(answer()[4], 7);
    submit(1, 24, "\0\0\0\0\xff\x07\0\0\0\0\0\0", 12);
    answer();
    size = 0x7fffffff; /* says that it is larger than it is */
    struct driver_buffer lie[2] = { { scratch, 19, false }, { scratch + 4096, 4096, true } };
    memcpy(driver_memory(&driver, scratch), &size, 4);
    cr_assert(driver_add(&driver.queues[0], lie, 2, driver_memory(&driver, scratch + 4096)));
    driver_kick(&driver.queues[0], true);
    cr_assert_eq(answer()[4], 7);
    cr_assert_eq(driver_status(&driver) & VIRTIO_STATUS_NEEDS_RESET, 0);
    cr_assert(driver_add(&driver.queues[0], small, 2, driver_memory(&driver, scratch)));
    driver_kick(&driver.queues[0], true);
    run_for(20);
    cr_assert_neq(driver_status(&driver) & VIRTIO_STATUS_NEEDS_RESET, 0, "no way to answer");
    driver_set_status(&driver, 0);
    driver.heap = 0x10000;
    driver_start(&driver, VERSION_1 | BIT(0), 1, 0);
    session();
}

Test(p9, mistakes)
{
    cr_assert_null(create("mount_tag=x"));
    cr_assert(strstr(err.text, "fsdev="));
    cr_assert_null(create("fsdev=none,mount_tag=x"));
    cr_assert(strstr(err.text, "'none'"));
    cr_assert_null(create("fsdev=f"));
    cr_assert(strstr(err.text, "mount_tag"));
    cr_assert_null(create("fsdev=f,mount_tag=0123456789012345678901234567890123"));
    cr_assert(strstr(err.text, "32"));
}
