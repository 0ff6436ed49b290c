/* virtio-scsi, driven through split rings by a driver of a few lines: requests, task management, events, hostile rings. */
#include "../devices/rig.h"
#include "devices/virtio/virtio_scsi.h"
#include "fake_disk.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#define RAM        (2 * MIB)
#define BAR        0x40000000ull
#define RING(n)    (0x10000ull + (n)*0x4000) /* descriptors, then available at +0x1000, used at +0x2000 */
#define RING_SIZE  64u
#define HEADERS    0x80000ull
#define DATA       0x100000ull
#define CONTROL    0
#define EVENTS     1
#define REQUESTS   2
#define QUEUES     4
#define COMMON(at) (BAR + (at))
#define DEVICE(at) (BAR + 0x2000 + (at))
#define NOTIFY(n)  (BAR + 0x3000 + (n)*4)

extern const struct device_type virtio_scsi_pci_type, scsi_hd_type;

struct descriptor {
    uint64_t address;
    uint32_t length;
    uint16_t flags, next;
};

static struct rig rig;
static struct block_registry *blocks;
static struct fake_disk *disk;
static struct virtio_scsi *vscsi;
static struct device *hd;
static uint16_t added[QUEUES], seen[QUEUES];
static unsigned interrupts;
static uint64_t seed;

static void on_pirq(void *opaque, unsigned n, bool level)
{
    (void)opaque, (void)n;
    interrupts += level;
}

static unsigned map_pirq(void *opaque, uint8_t devfn, unsigned pin)
{
    (void)opaque, (void)devfn, (void)pin;
    return 0;
}

static void on_msi(void *opaque, uint64_t address, uint32_t data)
{
    (void)opaque, (void)address, (void)data;
}

static const struct pci_bus_ops bus_ops = { .pirq_set = on_pirq, .pirq_map = map_pirq, .msi = on_msi };

static uint8_t *ram(gpa_t gpa)
{
    return physmem_ram_base(rig.env.mem) + gpa;
}

static void poke(uint64_t gpa, unsigned size, uint64_t value)
{
    physmem_mmio_write(rig.env.mem, gpa, size, value);
}

static uint64_t peek(uint64_t gpa, unsigned size)
{
    return physmem_mmio_read(rig.env.mem, gpa, size);
}

static struct device *create(const struct device_type *type, const char *id, const char *text)
{
    struct option_list options;
    struct error err = { "" };
    struct device *device;

    cr_assert_eq(options_parse(&options, text, NULL, &err), 0);
    device = device_create(&rig.env, type, id, &options, &err);
    cr_assert_not_null(device, "%s", err.text);
    cr_assert_eq(options_check_all_used(&options, type->name, &err), 0, "%s", err.text);
    options_free(&options);
    return device;
}

/* ---- The driver ---- */

static void start(void)
{
    struct pci_device *pci = &vscsi->virtio.pci;

    pci_device_config_write(pci, PCI_BAR0 + 16, 4, (uint32_t)BAR);
    pci_device_config_write(pci, PCI_BAR0 + 20, 4, 0);
    pci_device_config_write(pci, PCI_COMMAND, 2, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
    poke(COMMON(0x14), 1, 0);
    poke(COMMON(0x14), 1, 3);
    poke(COMMON(0x08), 4, 0);
    poke(COMMON(0x0c), 4, BIT(VSCSI_F_HOTPLUG) | BIT(VSCSI_F_CHANGE));
    poke(COMMON(0x08), 4, 1);
    poke(COMMON(0x0c), 4, 1); /* VERSION_1 */
    poke(COMMON(0x14), 1, 11);
    cr_assert_eq(peek(COMMON(0x14), 1), 11);
    for (unsigned n = 0; n < QUEUES; n++) {
        memset(ram(RING(n)), 0, 0x3000);
        added[n] = seen[n] = 0;
        poke(COMMON(0x16), 2, n);
        poke(COMMON(0x18), 2, RING_SIZE);
        poke(COMMON(0x20), 4, RING(n));
        poke(COMMON(0x28), 4, RING(n) + 0x1000);
        poke(COMMON(0x30), 4, RING(n) + 0x2000);
        poke(COMMON(0x1c), 2, 1);
    }
    poke(COMMON(0x14), 1, 15);
}

static void set_descriptor(unsigned n, unsigned at, uint64_t address, uint32_t length, unsigned flags)
{
    struct descriptor descriptor = { address, length, (uint16_t)flags, (uint16_t)(at + 1) };

    memcpy(ram(RING(n) + at * sizeof(descriptor)), &descriptor, sizeof(descriptor));
}

static void make_available(unsigned n, uint16_t head)
{
    uint16_t *available = (uint16_t *)ram(RING(n) + 0x1000);

    available[2 + added[n]++ % RING_SIZE] = head;
    available[1] = added[n];
    poke(NOTIFY(n), 2, n);
}

static void poll_loop(void)
{
    while (fake_loop_poll(0))
        ;
}

/* The next used element's length, or -1. */
static int reap(unsigned n)
{
    uint16_t *used = (uint16_t *)ram(RING(n) + 0x2000);
    uint32_t *element;

    if (used[1] == seen[n])
        return -1;
    element = (uint32_t *)(used + 2) + seen[n]++ % RING_SIZE * 2;
    return (int)element[1];
}

/* A request of up to four descriptors from `head` on: header, data out; response, data in. Response at +0x100 of its page. */
static uint8_t *submit(unsigned queue, unsigned head, unsigned target, unsigned lun, uint64_t tag, const uint8_t *cdb,
                       uint32_t out, uint32_t in)
{
    gpa_t at = HEADERS + head * 0x1000;
    uint8_t *header = ram(at);

    memset(header, 0, 0x200);
    header[0] = 1;
    header[1] = (uint8_t)target;
    header[2] = (uint8_t)(0x40 | lun >> 8);
    header[3] = (uint8_t)lun;
    memcpy(header + 8, &tag, 8);
    memcpy(header + 19, cdb, 16);
    memset(ram(at + 0x100), 0xee, 108);
    set_descriptor(queue, head, at, 51, 1);
    if (out)
        set_descriptor(queue, head + 1, DATA, out, 1);
    set_descriptor(queue, head + (out ? 2 : 1), at + 0x100, 108, in ? 3 : 2);
    if (in)
        set_descriptor(queue, head + (out ? 3 : 2), DATA, in, 2);
    make_available(queue, (uint16_t)head);
    return ram(at + 0x100);
}

/* Runs it; returns the response with the status above it: 0xSSRR. */
static unsigned execute(const uint8_t *cdb, uint32_t out, uint32_t in, int *used)
{
    uint8_t *response = submit(REQUESTS, 0, 0, 0, 7, cdb, out, in);

    for (unsigned i = 0; i < 1000 && (*used = reap(REQUESTS)) < 0; i++) {
        poll_loop();
        fake_disk_run_one(disk, 0);
    }
    cr_assert_geq(*used, 0);
    return (unsigned)response[10] << 8 | response[11];
}

#define CDB(...) ((const uint8_t[16]){ __VA_ARGS__ })

static void setup(void)
{
    struct error err;

    rig_init(&rig);
    physmem_destroy(rig.env.mem);
    rig.env.mem = physmem_create(RAM, event_loop_mutex(rig.env.loop), &err);
    cr_assert_not_null(physmem_add_ram(rig.env.mem, 0, RAM, 0, "ram", &err));
    rig.env.pci_bus = pci_bus_create(&rig.env, &bus_ops, NULL);
    disk = fake_disk_add(&blocks, "d", MIB);
    rig.env.blocks = blocks;
    vscsi = (struct virtio_scsi *)create(&virtio_scsi_pci_type, "v", "num_queues=2");
    hd = create(&scsi_hd_type, "d", "drive=d,bus=v.0");
    interrupts = 0;
    start();
}

static void teardown(void)
{
    if (hd)
        device_destroy(hd);
    device_destroy(&vscsi->virtio.pci.device);
    fake_disk_free(blocks);
    blocks = NULL;
    pci_bus_destroy(rig.env.pci_bus);
    rig_destroy(&rig);
}

static void setup_ready(void)
{
    int used;

    setup();
    cr_assert_eq(execute(CDB(0), 0, 0, &used), 0x200, "unit attention");
    cr_assert_eq(ram(HEADERS + 0x100)[12 + 12], 0x29, "with its sense data");
    cr_assert_eq(*(uint32_t *)ram(HEADERS + 0x100), 18);
}

TestSuite(scsi_virtio, .init = setup_ready, .fini = teardown);

/* ---- Requests ---- */

Test(scsi_virtio, identity_and_configuration)
{
    cr_assert_eq(pci_device_config_read(&vscsi->virtio.pci, 0, 4), 0x10041af4);
    cr_assert_eq(pci_device_config_read(&vscsi->virtio.pci, 8, 4) >> 8, 0x010000);
    cr_assert_eq(peek(COMMON(0x12), 2), QUEUES);
    cr_assert_eq(peek(DEVICE(0), 4), 2);
    cr_assert_eq(peek(DEVICE(20), 4), 96);
    cr_assert_eq(peek(DEVICE(24), 4), 32);
    cr_assert_eq(peek(DEVICE(30), 2), 255);
    cr_assert_eq(peek(DEVICE(32), 4), 16383);
    poke(DEVICE(20), 4, 1000000);
    cr_assert_eq(peek(DEVICE(20), 4), VSCSI_SIZE_MAX);
    poke(DEVICE(0), 4, 77);
    cr_assert_eq(peek(DEVICE(0), 4), 2, "read-only");
}

Test(scsi_virtio, read_and_write)
{
    int used;
    unsigned before;

    peek(BAR + 0x1000, 1); /* lowers the line */
    before = interrupts;
    cr_assert_eq(execute(CDB(0x28, 0, 0, 0, 0, 5, 0, 0, 9), 0, 4608, &used), 0);
    cr_assert_eq(used, 108 + 4608);
    for (unsigned i = 0; i < 4608; i++)
        cr_assert_eq(ram(DATA)[i], fake_disk_pattern(5 * 512 + i));
    cr_assert_eq(interrupts, before + 1);
    peek(BAR + 0x1000, 1);
    memset(ram(DATA), 0x5a, 1024);
    cr_assert_eq(execute(CDB(0x2a, 0, 0, 0, 0, 5, 0, 0, 2), 1024, 0, &used), 0);
    cr_assert_eq(used, 108);
    cr_assert_eq(disk->data[5 * 512 + 1023], 0x5a);
    cr_assert_eq(execute(CDB(0x28, 0, 0, 0, 0, 5, 0, 0, 9), 0, 8192, &used), 0);
    cr_assert_eq(*(uint32_t *)ram(HEADERS + 0x104), 8192 - 4608, "residual");
    cr_assert_eq(execute(CDB(0x28, 0, 0, 0, 0, 5, 0, 0, 9), 0, 512, &used), VSCSI_OVERRUN);
    cr_assert_eq(execute(CDB(0x28, 0, 0, 0, 0, 5, 0, 0, 1), 512, 512, &used), VSCSI_FAILURE, "both ways");
    disk->fail = -5;
    cr_assert_eq(execute(CDB(0x28, 0, 0, 0, 0, 5, 0, 0, 1), 0, 512, &used), 0x200);
    cr_assert_eq(ram(HEADERS + 0x100)[12 + 2], 3);
}

Test(scsi_virtio, bad_targets)
{
    uint8_t *response = submit(REQUESTS, 0, 9, 0, 1, CDB(0), 0, 0);

    poll_loop();
    cr_assert_geq(reap(REQUESTS), 0);
    cr_assert_eq(response[11], VSCSI_BAD_TARGET);
    response = submit(REQUESTS + 1, 0, 0, 3, 1, CDB(0x12, 0, 0, 0, 36), 0, 36);
    poll_loop();
    cr_assert_geq(reap(REQUESTS + 1), 0);
    cr_assert_eq(response[11], VSCSI_OK);
    cr_assert_eq(ram(DATA)[0], 0x7f);
    ram(HEADERS)[0] = 2;
    make_available(REQUESTS, 0);
    poll_loop();
    cr_assert_geq(reap(REQUESTS), 0);
    cr_assert_eq(response[11], VSCSI_BAD_TARGET);
}

/* ---- Task management ---- */

static uint8_t *manage(uint32_t subtype, unsigned target, unsigned lun, uint64_t tag)
{
    uint8_t *header = ram(HEADERS + 0x20000);

    memset(header, 0, 0x100);
    memcpy(header + 4, &subtype, 4);
    header[8] = 1;
    header[9] = (uint8_t)target;
    header[10] = 0x40;
    header[11] = (uint8_t)lun;
    memcpy(header + 16, &tag, 8);
    header[0x80] = 0xee;
    set_descriptor(CONTROL, 0, HEADERS + 0x20000, 24, 1);
    set_descriptor(CONTROL, 1, HEADERS + 0x20080, 1, 2);
    make_available(CONTROL, 0);
    poll_loop();
    return header + 0x80;
}

Test(scsi_virtio, abort_waits_for_the_drive)
{
    uint8_t *first = submit(REQUESTS, 0, 0, 0, 11, CDB(0x28, 0, 0, 0, 0, 5, 0, 0, 1), 0, 512), *second, *answer;

    second = submit(REQUESTS, 8, 0, 0, 12, CDB(0x28, 0, 0, 0, 0, 5, 0, 0, 1), 0, 512);
    poll_loop();
    cr_assert_eq(fake_disk_pending(disk), 2);
    answer = manage(6, 0, 0, 11);
    cr_assert_eq(reap(CONTROL), 1);
    cr_assert_eq(*answer, VSCSI_FUNCTION_SUCCEEDED, "query task");
    answer = manage(6, 0, 0, 13);
    cr_assert_eq(reap(CONTROL), 1);
    cr_assert_eq(*answer, VSCSI_FUNCTION_COMPLETE);
    answer = manage(0, 0, 0, 11);
    cr_assert_eq(reap(CONTROL), -1, "waits");
    fake_disk_run_one(disk, 1);
    cr_assert_eq(reap(CONTROL), -1);
    fake_disk_run_one(disk, 0);
    cr_assert_eq(reap(CONTROL), 1);
    cr_assert_eq(*answer, VSCSI_FUNCTION_COMPLETE);
    cr_assert_eq(first[11], VSCSI_ABORTED);
    cr_assert_eq(second[11], VSCSI_OK);
    answer = manage(0, 0, 0, 99);
    cr_assert_eq(reap(CONTROL), 1);
    cr_assert_eq(*answer, VSCSI_FUNCTION_COMPLETE, "nothing to abort");
}

Test(scsi_virtio, resets)
{
    uint8_t *response = submit(REQUESTS, 0, 0, 0, 11, CDB(0x28, 0, 0, 0, 0, 5, 0, 0, 1), 0, 512), *answer;
    int used;

    poll_loop();
    answer = manage(5, 0, 0, 0);
    fake_disk_run(disk);
    cr_assert_eq(reap(CONTROL), 1);
    cr_assert_eq(*answer, VSCSI_FUNCTION_COMPLETE);
    cr_assert_eq(response[11], VSCSI_RESET);
    cr_assert_geq(reap(REQUESTS), 0);
    cr_assert_eq(execute(CDB(0), 0, 0, &used), 0x200, "unit attention");
    answer = manage(4, 0, 5, 0);
    cr_assert_eq(*answer, VSCSI_FUNCTION_COMPLETE, "of the whole target");
    answer = manage(5, 0, 5, 0);
    cr_assert_eq(*answer, VSCSI_INCORRECT_LUN);
    answer = manage(5, 8, 0, 0);
    cr_assert_eq(*answer, VSCSI_BAD_TARGET);
    answer = manage(2, 0, 0, 0);
    cr_assert_eq(*answer, VSCSI_FUNCTION_REJECTED);
    answer = manage(0x12345, 0, 0, 0);
    cr_assert_eq(*answer, VSCSI_FUNCTION_REJECTED);
}

Test(scsi_virtio, driver_reset_with_requests_under_way)
{
    submit(REQUESTS, 0, 0, 0, 11, CDB(0x28, 0, 0, 0, 0, 5, 0, 0, 1), 0, 512);
    submit(REQUESTS + 1, 0, 0, 0, 12, CDB(0x2f, 0, 0, 0, 0, 0, 0, 8, 0), 0, 0);
    poll_loop();
    manage(1, 0, 0, 0);
    poke(COMMON(0x14), 1, 0);
    cr_assert_eq(fake_disk_pending(disk), 0);
    cr_assert_null(vscsi->active);
    cr_assert_null(vscsi->functions);
    start();
    int used;
    cr_assert_eq(execute(CDB(0), 0, 0, &used), 0x200, "unit attention");
}

/* ---- Events ---- */

static void add_event_buffer(unsigned at)
{
    set_descriptor(EVENTS, at, HEADERS + 0x30000 + at * 16, 16, 2);
    make_available(EVENTS, (uint16_t)at);
    poll_loop();
}

Test(scsi_virtio, events)
{
    uint32_t *event = (uint32_t *)ram(HEADERS + 0x30000);

    add_event_buffer(0);
    fake_disk_resize(disk, MIB / 2);
    cr_assert_eq(reap(EVENTS), 16);
    cr_assert_eq(event[0], 3);
    cr_assert_eq(event[3], 0x092a);
    device_destroy(hd); /* no buffer: missed */
    hd = NULL;
    cr_assert_eq(reap(EVENTS), -1);
    add_event_buffer(0);
    cr_assert_eq(reap(EVENTS), 16);
    cr_assert_eq(event[0], 0x80000000);
    add_event_buffer(0);
    hd = create(&scsi_hd_type, "d", "drive=d,bus=v.0,lun=300");
    cr_assert_eq(reap(EVENTS), 16);
    cr_assert_eq(event[0], 1);
    cr_assert_eq(event[1], 0x2c410001, "target 0, LUN 300");
    cr_assert_eq(event[3], 1, "rescan");
}

/* ---- Hostile rings ---- */

Test(scsi_virtio, short_requests_break_the_device)
{
    set_descriptor(REQUESTS, 0, HEADERS, 50, 1);
    set_descriptor(REQUESTS, 1, HEADERS + 0x100, 108, 2);
    make_available(REQUESTS, 0);
    poll_loop();
    cr_assert(peek(COMMON(0x14), 1) & VIRTIO_STATUS_NEEDS_RESET);
    start();
    set_descriptor(CONTROL, 0, HEADERS, 4, 1);
    set_descriptor(CONTROL, 1, HEADERS + 0x100, 1, 2);
    make_available(CONTROL, 0);
    poll_loop();
    cr_assert(peek(COMMON(0x14), 1) & VIRTIO_STATUS_NEEDS_RESET);
    start();
    set_descriptor(EVENTS, 0, HEADERS, 15, 2);
    make_available(EVENTS, 0);
    poll_loop();
    fake_disk_resize(disk, MIB / 2);
    cr_assert(peek(COMMON(0x14), 1) & VIRTIO_STATUS_NEEDS_RESET);
}

static uint64_t pick(uint64_t below)
{
    return rig_random(&seed) % below;
}

static void random_descriptors(void)
{
    unsigned queue = (unsigned)pick(QUEUES);

    for (unsigned i = 0; i < 8; i++) {
        struct descriptor descriptor = {
            .address = pick(8) ? (pick(2) ? DATA : HEADERS) + pick(0x8000) : rig_random(&seed),
            .length = pick(8) ? (uint32_t)pick(300) : (uint32_t)rig_random(&seed),
            .flags = (uint16_t)(pick(16) ? pick(4) : pick(8)),
            .next = (uint16_t)pick(RING_SIZE),
        };

        memcpy(ram(RING(queue) + pick(RING_SIZE) * sizeof(descriptor)), &descriptor, sizeof(descriptor));
    }
    make_available(queue, (uint16_t)pick(RING_SIZE + (pick(10) ? 0 : 10)));
}

Test(scsi_virtio, random_rings)
{
    for (unsigned round = 0; round < 2000; round++) {
        seed = round;
        for (unsigned i = 0; i < 60; i++) {
            uint8_t cdb[16] = { (uint8_t)(pick(2) ? 0x28 : pick(2) ? 0x2a : pick(256)),
                                0,
                                0,
                                0,
                                0,
                                (uint8_t)pick(100),
                                0,
                                0,
                                (uint8_t)pick(3) };

            switch (pick(12)) {
            case 0:
                if (!pick(6)) /* few, since most break the device */
                    random_descriptors();
                break;
            case 1:
                manage((uint32_t)pick(9), (unsigned)pick(2), (unsigned)pick(2), pick(4));
                break;
            case 2 ... 4:
                fake_disk_run_one(disk, rig_random(&seed));
                break;
            case 5:
                add_event_buffer((unsigned)pick(8));
                break;
            case 6:
                if (!pick(10))
                    device_reset(&vscsi->virtio.pci.device), start();
                break;
            case 7:
                if (!pick(8))
                    fake_disk_resize(disk, pick(8) ? MIB : MIB / 2);
                break;
            default:
                submit(REQUESTS + (unsigned)pick(2), (unsigned)pick(8) * 4, !pick(8), !pick(8), pick(4), cdb,
                       pick(4) ? 0 : (uint32_t)pick(2000), pick(4) ? (uint32_t)pick(4000) : 0);
                break;
            }
            if (pick(2))
                poll_loop();
        }
        start();
        cr_assert_eq(fake_disk_pending(disk), 0, "a reset waits");
    }
    cr_assert_gt(disk->submitted, 1000);
}

Test(scsi_virtio, state)
{
    int used;

    poke(DEVICE(20), 4, 64);
    cr_assert_eq(vscsi->sense_size, 64);
    poke(DEVICE(20), 4, 96);
    cr_assert_eq(execute(CDB(0x28, 0, 0, 0, 0, 5, 0, 0, 1), 0, 512, &used), 0);
    rig_round_trip(&vscsi->virtio.pci.device, NULL);
    cr_assert_eq(execute(CDB(0x28, 0, 0, 0, 0, 5, 0, 0, 1), 0, 512, &used), 0x200,
                 "goes on where it was; the reset is noticed");
    rig_load_garbage(&vscsi->virtio.pci.device, 3, 50);
    poll_loop();
    fake_disk_run(disk);
}
