/* virtio-blk on an I/O thread, with real event loops and a raw file: what each request does to the file, errors, interrupts, kicks
 * that do not wait for the device lock, resets in mid traffic, state. The test is the driver and the vCPU. */
#include <criterion/criterion.h>
#include <criterion/parameterized.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "devices/block/block.h"
#include "devices/core/object.h"
#include "devices/virtio/virtio_blk.h"
#include "driver.h"

#define DISK_SIZE (4 * MIB)
enum { IN = 0, OUT = 1, FLUSH = 4, GET_ID = 8, DISCARD = 11, WRITE_ZEROES = 13 };
enum { OK = 0, IOERR = 1, UNSUPPORTED = 2, NOT_ANSWERED = 0xee };

TestSuite(blk, .timeout = 120);

static struct clock guest_clock;
static struct device_env env;
static struct driver driver;
static struct device *device;
static struct error err;
static char path[64];
static int file;

static struct device *create(const char *name, const char *text)
{
    struct option_list options;
    struct device *made;

    cr_assert_eq(options_parse(&options, text, NULL, &err), 0);
    made = device_create(&env, device_type_find(name), "disk0", &options, &err);
    options_free(&options);
    return made;
}

static void set_up_env(const char *drive)
{
    char option[200];
    uint8_t *bytes = malloc(DISK_SIZE);

    guest_clock = (struct clock){ .tsc_khz = 1000000, .ns_base = clock_host_ns() };
    env.clock = &guest_clock;
    env.loop = event_loop_create(&guest_clock, &err);
    env.mem = physmem_create(DRIVER_RAM, event_loop_mutex(env.loop), &err);
    cr_assert_not_null(physmem_add_ram(env.mem, 0, DRIVER_RAM, 0, "ram", &err));
    env.ports = port_space_create(event_loop_mutex(env.loop));
    env.pci_bus = driver_bus(&env);
    env.objects = object_registry_create(env.loop, &err);
    env.blocks = block_registry_create(env.loop, &err);
    snprintf(path, sizeof(path), "/tmp/eidolon-virtio-blk-XXXXXX");
    file = mkstemp(path);
    for (unsigned i = 0; i < DISK_SIZE; i++)
        bytes[i] = (uint8_t)(i / 512 * 7 + i % 512);
    cr_assert_eq(pwrite(file, bytes, DISK_SIZE, 0), (ssize_t)DISK_SIZE);
    free(bytes);
    snprintf(option, sizeof(option), "file=%s,format=raw,if=none,id=d0,%s", path, drive);
    cr_assert_eq(block_add_drive(env.blocks, option, &err), 0, "%s", err.text);
}

static void set_up(const char *drive, const char *options)
{
    set_up_env(drive);
    device = create("virtio-blk-pci", options);
    cr_assert_not_null(device, "%s", err.text);
    driver_bind(&driver, &env, device, true);
}

static void tear_down(void)
{
    event_loop_lock(env.loop);
    device_destroy(device);
    event_loop_unlock(env.loop);
    block_registry_destroy(env.blocks);
    object_registry_destroy(env.objects);
    pci_bus_destroy(env.pci_bus);
    port_space_destroy(env.ports);
    physmem_destroy(env.mem);
    event_loop_destroy(env.loop);
    close(file);
    unlink(path);
}

/* ---- Requests ---- */

struct request {
    uint8_t *status, *data;
    gpa_t at;
    uint32_t size;
};

/* The header in one piece or two, the data in two, the status alone or behind the data, as `cut` says. */
static bool submit(struct request *request, unsigned queue, uint32_t type, uint64_t sector, const void *bytes,
                   uint32_t size, unsigned cut)
{
    struct driver_buffer buffers[8];
    gpa_t at = driver_allocate(&driver, 16 + size + 16, 16), data = at + 16, status = at + 16 + size;
    bool to_device = type == OUT || type == DISCARD || type == WRITE_ZEROES;
    unsigned count = 0;
    struct {
        uint32_t type, reserved;
        uint64_t sector;
    } header = { type, 0, sector };

    *request = (struct request){ driver_memory(&driver, status), driver_memory(&driver, data), at, size };
    memcpy(driver_memory(&driver, at), &header, sizeof(header));
    *request->status = NOT_ANSWERED;
    if (to_device && size)
        memcpy(request->data, bytes, size);
    if (cut & 1) {
        buffers[count++] = (struct driver_buffer){ at, 5, false };
        buffers[count++] = (struct driver_buffer){ at + 5, 11, false };
    } else {
        buffers[count++] = (struct driver_buffer){ at, 16, false };
    }
    if (size > 700 && (cut & 2)) {
        buffers[count++] = (struct driver_buffer){ data, 700, !to_device };
        data += 700;
        size -= 700;
    }
    if (size && !to_device && (cut & 4)) {
        buffers[count++] = (struct driver_buffer){ data, size + 1, true }; /* the status behind the data */
    } else {
        if (size)
            buffers[count++] = (struct driver_buffer){ data, size, !to_device };
        buffers[count++] = (struct driver_buffer){ status, 1, true };
    }
    return driver_add(&driver.queues[queue], buffers, count, request);
}

static struct request *wait_used(unsigned queue)
{
    uint32_t length;

    for (unsigned i = 0; i < 20000; i++) {
        struct request *request = driver_get(&driver.queues[queue], &length);
        if (request)
            return request;
        usleep(200);
    }
    cr_assert_fail("no answer");
    return NULL;
}

/* One request, and its status. */
static uint8_t perform(uint32_t type, uint64_t sector, void *data, uint32_t size, unsigned cut)
{
    bool to_device = type == OUT || type == DISCARD || type == WRITE_ZEROES;
    struct request request;
    gpa_t heap = driver.heap;

    cr_assert(submit(&request, 0, type, sector, data, size, cut));
    driver_kick(&driver.queues[0], false);
    cr_assert_eq(wait_used(0), &request);
    if (!to_device && size)
        memcpy(data, request.data, size);
    driver.heap = heap;
    return *request.status;
}

static uint8_t disk_byte(uint64_t offset)
{
    return (uint8_t)(offset / 512 * 7 + offset % 512);
}

static void check_disk(uint64_t offset, const uint8_t *data, uint32_t size)
{
    uint8_t *bytes = malloc(size);

    cr_assert_eq(pread(file, bytes, size, (off_t)offset), (ssize_t)size);
    cr_assert_eq(memcmp(bytes, data, size), 0, "at 0x%llx", (unsigned long long)offset);
    free(bytes);
}

#define FEATURES (~0ull & ~BIT(VIRTIO_F_RING_PACKED))

ParameterizedTestParameters(blk, data)
{
    static uint64_t features[] = { 0, FEATURES, FEATURES | BIT(VIRTIO_F_RING_PACKED), BIT(VIRTIO_F_RING_PACKED) };

    return cr_make_param_array(uint64_t, features, ARRAY_SIZE(features));
}

ParameterizedTest(uint64_t *features, blk, data)
{
    static uint8_t data[65536];

    set_up("", "drive=d0,packed=on");
    driver_start(&driver, *features, 1, 0);
    cr_assert_eq(driver_read(&driver, driver.device, 4), DISK_SIZE / 512);
    for (unsigned cut = 0; cut < 8; cut++) {
        uint32_t size = 512u << cut % 7;

        cr_assert_eq(perform(IN, 8 + cut, data, size, cut), OK);
        for (uint32_t i = 0; i < size; i++)
            cr_assert_eq(data[i], disk_byte(512 * (8 + cut) + i), "cut %u, byte %u", cut, i);
        for (uint32_t i = 0; i < size; i++)
            data[i] = (uint8_t)rand();
        cr_assert_eq(perform(OUT, 4096 + 128 * cut, data, size, cut), OK);
        check_disk(512 * (4096 + 128 * cut), data, size);
    }
    cr_assert_eq(perform(FLUSH, 0, NULL, 0, 0), OK);
    cr_assert_eq(driver_status(&driver), 15);
    tear_down();
}

Test(blk, errors)
{
    static uint8_t data[8192];

    set_up("", "drive=d0,logical_block_size=4096,serial=a-serial-of-20-bytes");
    driver_start(&driver, FEATURES, 1, 0);
    cr_assert_eq(perform(IN, DISK_SIZE / 512, data, 4096, 0), IOERR, "behind the end");
    cr_assert_eq(perform(IN, DISK_SIZE / 512 - 8, data, 8192, 0), IOERR, "over the end");
    cr_assert_eq(perform(IN, DISK_SIZE / 512 - 8, data, 4096, 0), OK, "the last block");
    cr_assert_eq(perform(IN, ~0ull, data, 4096, 0), IOERR);
    cr_assert_eq(perform(IN, BIT(55), data, 4096, 0), IOERR);
    cr_assert_eq(perform(OUT, BIT(55) - 1, data, 4096, 0), IOERR);
    cr_assert_eq(perform(IN, 1, data, 4096, 0), IOERR, "not a block");
    cr_assert_eq(perform(IN, 0, data, 512, 0), IOERR, "not a block");
    cr_assert_eq(perform(77, 0, data, 512, 0), UNSUPPORTED);
    memset(data, 0xff, sizeof(data));
    cr_assert_eq(perform(GET_ID, 0, data, 20, 0), OK);
    cr_assert_eq(memcmp(data, "a-serial-of-20-bytes", 20), 0);
    cr_assert_eq(driver_read(&driver, driver.device + 20, 4), 4096);
    cr_assert_eq(driver_status(&driver), 15, "none of these breaks the device");
    tear_down();
}

Test(blk, read_only)
{
    static uint8_t data[512];

    set_up("readonly=on", "drive=d0");
    driver_start(&driver, FEATURES, 1, 0);
    cr_assert(driver.features >> 5 & 1);
    cr_assert_eq(perform(OUT, 0, data, 512, 0), IOERR);
    cr_assert_eq(perform(IN, 0, data, 512, 0), OK);
    tear_down();
}

struct range {
    uint64_t sector;
    uint32_t sectors, flags;
};

Test(blk, discard_and_zeroes)
{
    static uint8_t zeroes[65536];
    struct range range = { 16, 64, 0 };
    struct range two[2] = { { 0, 8, 0 }, { 8, 8, 0 } };

    set_up("discard=unmap", "drive=d0");
    driver_start(&driver, FEATURES, 1, 0);
    cr_assert_eq(perform(WRITE_ZEROES, 0, &range, sizeof(range), 0), OK);
    check_disk(16 * 512, zeroes, 64 * 512);
    range = (struct range){ 1024, 64, 1 };
    cr_assert_eq(perform(WRITE_ZEROES, 0, &range, sizeof(range), 1), OK, "may unmap");
    check_disk(1024 * 512, zeroes, 64 * 512);
    range.flags = 0;
    cr_assert_eq(perform(DISCARD, 0, &range, sizeof(range), 0), OK);
    range.flags = 1;
    cr_assert_eq(perform(DISCARD, 0, &range, sizeof(range), 0), UNSUPPORTED, "unmap is not for discard");
    range = (struct range){ 0, 8, 2 };
    cr_assert_eq(perform(WRITE_ZEROES, 0, &range, sizeof(range), 0), UNSUPPORTED, "reserved flag");
    range = (struct range){ 0, 0xffffffff, 0 };
    cr_assert_eq(perform(WRITE_ZEROES, 0, &range, sizeof(range), 0), IOERR);
    range = (struct range){ ~0ull, 1, 0 };
    cr_assert_eq(perform(DISCARD, 0, &range, sizeof(range), 0), IOERR);
    cr_assert_eq(perform(DISCARD, 0, two, sizeof(two), 0), UNSUPPORTED, "one range, as the configuration says");
    cr_assert_eq(perform(DISCARD, 0, two, 5, 0), UNSUPPORTED);
    cr_assert_eq(driver_status(&driver), 15);
    tear_down();
}

Test(blk, malformed_requests_break_it)
{
    static const struct driver_buffer bad[][2] = {
        { { 0x8000, 16, false } },                      /* no status */
        { { 0x8000, 15, false }, { 0x9000, 1, true } }, /* short header */
        { { 0x8000, 512, true } },                      /* no header */
    };

    set_up("", "drive=d0");
    for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
        driver_start(&driver, FEATURES, 1, 0);
        cr_assert(driver_add(&driver.queues[0], bad[i], bad[i][1].length ? 2 : 1, &driver));
        driver_kick(&driver.queues[0], true);
        for (unsigned n = 0; n < 5000 && driver_status(&driver) == 15; n++)
            usleep(200);
        cr_assert_eq(driver_status(&driver), 15 | VIRTIO_STATUS_NEEDS_RESET, "%u", i);
    }
    tear_down();
}

/* ---- Threads ---- */

static pthread_barrier_t barrier;

static void *hold_device_lock(void *opaque)
{
    event_loop_lock(env.loop);
    pthread_barrier_wait(&barrier);
    pthread_barrier_wait(&barrier);
    event_loop_unlock(env.loop);
    return opaque;
}

/* A kick and the request go through while somebody else holds the device lock; the interrupt comes when it is free. */
static void kick_without_the_lock(void (*kick)(void))
{
    struct request request;
    pthread_t holder;
    unsigned before;

    pthread_barrier_init(&barrier, NULL, 2);
    pthread_create(&holder, NULL, hold_device_lock, NULL);
    pthread_barrier_wait(&barrier);
    before = __atomic_load_n(&driver_messages[1], __ATOMIC_SEQ_CST);
    submit(&request, 0, IN, 0, NULL, 512, 0);
    kick();
    cr_assert_eq(wait_used(0), &request);
    cr_assert_eq(*request.status, OK);
    usleep(3000);
    cr_assert_eq(__atomic_load_n(&driver_messages[1], __ATOMIC_SEQ_CST), before);
    pthread_barrier_wait(&barrier);
    pthread_join(holder, NULL);
    for (unsigned i = 0; i < 5000 && __atomic_load_n(&driver_messages[1], __ATOMIC_SEQ_CST) == before; i++)
        usleep(200);
    cr_assert_eq(__atomic_load_n(&driver_messages[1], __ATOMIC_SEQ_CST), before + 1);
}

static void kick_by_memory(void)
{
    driver_kick(&driver.queues[0], true);
}

static void kick_by_port(void)
{
    port_space_write(env.ports, DRIVER_IO_BAR + 16, 2, 0);
}

Test(blk, kicks_do_not_wait_for_the_device_lock)
{
    set_up("", "drive=d0");
    driver_start(&driver, 0, 1, 0);
    kick_without_the_lock(kick_by_memory);
    kick_without_the_lock(kick_by_port);
    tear_down();
}

/* Many requests out, and then: a reset. Nothing is written to guest memory after it returns. */
Test(blk, reset_waits_for_requests)
{
    static struct request requests[40];

    set_up("", "drive=d0");
    for (unsigned round = 0; round < 60; round++) {
        driver_start(&driver, FEATURES, 1, 0);
        for (unsigned i = 0; i < 40; i++)
            cr_assert(submit(&requests[i], 0, IN, i * 128, NULL, 65536, i));
        driver_kick(&driver.queues[0], true);
        usleep(round % 6 * 100);
        driver_set_status(&driver, 0);
        for (unsigned i = 0; i < 40; i++)
            memset(requests[i].data, 0x99, requests[i].size + 1);
        usleep(500);
        for (unsigned i = 0; i < 40; i++) {
            for (uint32_t n = 0; n <= requests[i].size; n += 512)
                cr_assert_eq(requests[i].data[n], 0x99, "round %u: request %u wrote after the reset", round, i);
        }
    }
    tear_down();
}

Test(blk, several_queues_and_a_thread_of_its_own)
{
    static struct request requests[4][16];

    set_up_env("");
    cr_assert_eq(object_add(env.objects, "iothread,id=io1", &err), 0, "%s", err.text);
    device = create("virtio-blk-pci", "drive=d0,num-queues=4,iothread=io1,queue-size=64");
    cr_assert_not_null(device, "%s", err.text);
    driver_bind(&driver, &env, device, true);
    driver_start(&driver, FEATURES, 4, 0);
    cr_assert_eq(driver_read(&driver, driver.device + 34, 2), 4);
    for (unsigned queue = 0; queue < 4; queue++) {
        for (unsigned i = 0; i < 16; i++)
            cr_assert(submit(&requests[queue][i], queue, IN, 16 * queue + i, NULL, 512, 0));
        driver_kick(&driver.queues[queue], false);
    }
    for (unsigned queue = 0; queue < 4; queue++) {
        for (unsigned i = 0; i < 16; i++) {
            struct request *request = wait_used(queue);
            cr_assert(request >= requests[queue] && request < requests[queue + 1]);
            cr_assert_eq(*request->status, OK);
            cr_assert_eq(request->data[1], disk_byte(512 * (16 * queue + (unsigned)(request - requests[queue])) + 1));
        }
        for (unsigned i = 0; i < 5000 && !__atomic_load_n(&driver_messages[queue + 1], __ATOMIC_SEQ_CST); i++)
            usleep(200);
        cr_assert_gt(driver_messages[queue + 1], 0);
    }
    tear_down();
}

Test(blk, write_cache_switch)
{
    set_up("", "drive=d0");
    driver_start(&driver, FEATURES, 1, 0);
    cr_assert_eq(driver_read(&driver, driver.device + 32, 1), 1);
    driver_write(&driver, driver.device + 32, 1, 0);
    cr_assert_eq(driver_read(&driver, driver.device + 32, 1), 0);
    driver_set_status(&driver, 0);
    cr_assert_eq(driver_read(&driver, driver.device + 32, 1), 1, "a reset takes it back");
    driver_start(&driver, 0, 1, 0);
    cr_assert_eq(driver_read(&driver, driver.device + 32, 1), 0, "a driver that does not flush");
    tear_down();
}

Test(blk, state)
{
    struct state_buffer first = { 0 }, second = { 0 };
    static uint8_t data[512];

    set_up("", "drive=d0");
    driver_start(&driver, FEATURES, 1, 0);
    driver_write(&driver, driver.device + 32, 1, 0);
    cr_assert_eq(perform(IN, 3, data, 512, 0), OK);
    event_loop_lock(env.loop);
    cr_assert_eq(state_save(&first, device->type->state, device, &err), 0, "%s", err.text);
    device_reset(device);
    cr_assert_eq(state_load(&first, device->type->state, device, &err), 0, "%s", err.text);
    cr_assert_eq(state_save(&second, device->type->state, device, &err), 0);
    event_loop_unlock(env.loop);
    cr_assert_eq(first.size, second.size);
    cr_assert_eq(memcmp(first.data, second.data, first.size), 0);
    cr_assert_eq(driver_read(&driver, driver.device + 32, 1), 0);
    cr_assert_eq(perform(IN, 5, data, 512, 0), OK);
    cr_assert_eq(data[3], disk_byte(5 * 512 + 3));
    state_buffer_free(&first);
    state_buffer_free(&second);
    tear_down();
}

Test(blk, mistakes)
{
    static const struct {
        const char *options, *message;
    } mistakes[] = {
        { "", "drive= is needed" },
        { "drive=nobody", "there is no such drive" },
        { "drive=d0,num-queues=0", "num-queues" },
        { "drive=d0,queue-size=100", "queue-size" },
        { "drive=d0,logical_block_size=1000", "logical_block_size" },
        { "drive=d0,logical_block_size=4096,physical_block_size=512", "larger than" },
        { "drive=d0,serial=123456789012345678901", "at most 20" },
        { "drive=d0,iothread=none", "there is no object" },
        { "drive=d0,vectors=9999", "vectors" },
        { "drive=d0,werror=stop", "-drive" },
        { "drive=d0,disable-legacy=on,disable-modern=on", "leave nothing" },
    };
    int index;
    char boot[100];

    set_up_env("");
    for (unsigned i = 0; i < ARRAY_SIZE(mistakes); i++) {
        err.text[0] = '\0';
        cr_assert_null(create("virtio-blk-pci", mistakes[i].options), "%s", mistakes[i].options);
        cr_assert_not_null(strstr(err.text, mistakes[i].message), "%s: %s", mistakes[i].options, err.text);
    }
    device = create("virtio-blk-pci-non-transitional", "drive=d0,bootindex=3"); /* the drive is free again */
    cr_assert_not_null(device, "%s", err.text);
    cr_assert_null(create("virtio-blk-pci", "drive=d0"), "one device uses a drive");
    cr_assert(virtio_blk_boot_entry(device, &index, boot, sizeof(boot)));
    cr_assert_eq(index, 3);
    cr_assert_str_eq(boot, "/pci@i0cf8/scsi@1/disk@0,0");
    tear_down();
}
