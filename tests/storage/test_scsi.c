/* SCSI disks and CD-ROM drives on a bus whose controller is this test. */
#include "../devices/rig.h"
#include "devices/storage/scsi.h"
#include "fake_disk.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define DISK_SIZE MIB

extern const struct device_type scsi_hd_type, scsi_cd_type;

static struct rig rig;
static struct scsi_bus bus;
static struct block_registry *blocks;
static struct fake_disk *disk, *disc;
static struct device *hd, *cd;
static struct device controller;
static const struct device_type controller_type = { .name = "test-scsi" };
static struct scsi_request request;
static bool done;
static uint8_t buffer[DISK_SIZE];
static unsigned changes;

static void on_changed(struct scsi_bus *changed_bus, struct scsi_device *device, uint8_t asc, uint8_t ascq)
{
    (void)changed_bus, (void)device, (void)asc, (void)ascq;
    changes++;
}

static const struct scsi_bus_ops ops = { .changed = on_changed };

static struct device *create(const struct device_type *type, const char *text, struct error *err)
{
    struct option_list options;
    struct device *device;

    cr_assert_eq(options_parse(&options, text, NULL, err), 0);
    device = device_create(&rig.env, type, text, &options, err);
    if (device)
        cr_assert_eq(options_check_all_used(&options, type->name, err), 0, "%s", err->text);
    options_free(&options);
    return device;
}

static void on_done(struct scsi_request *finished)
{
    cr_assert_eq(finished, &request);
    cr_assert_not(done, "done twice");
    done = true;
}

/* Begins a command for `target`, LUN 0, with the first `size` bytes of `buffer`. */
static bool begin(unsigned target, unsigned lun, const uint8_t *cdb, size_t length, enum scsi_direction direction,
                  size_t size)
{
    static struct iovec iov[3];

    memset(&request, 0, sizeof(request));
    memcpy(request.cdb, cdb, length);
    request.target = (uint16_t)target;
    request.lun = (uint16_t)lun;
    request.direction = direction;
    iov[0] = (struct iovec){ buffer, size / 3 };
    iov[1] = (struct iovec){ buffer + size / 3, size / 4 };
    iov[2] = (struct iovec){ buffer + size / 3 + size / 4, size - size / 3 - size / 4 };
    request.iov = iov;
    request.iov_count = 3;
    request.size = size;
    request.done = on_done;
    done = false;
    return scsi_bus_submit(&bus, &request);
}

static unsigned run(unsigned target, unsigned lun, const uint8_t *cdb, size_t length, enum scsi_direction direction,
                    size_t size)
{
    cr_assert(begin(target, lun, cdb, length, direction, size));
    for (unsigned i = 0; i < 10000 && !done; i++) {
        fake_disk_run_one(disk, 0);
        fake_disk_run_one(disc, 0);
    }
    cr_assert(done, "command 0x%02x never ends", cdb[0]);
    return request.status;
}

/* 0, or key, additional code and qualifier as 0xKAACC. */
static unsigned outcome(void)
{
    if (request.status != SCSI_CHECK_CONDITION)
        return request.status;
    cr_assert_eq(request.sense_size, SCSI_SENSE_SIZE);
    cr_assert_eq(request.sense[0], 0x70);
    return (unsigned)request.sense[2] << 16 | (unsigned)request.sense[12] << 8 | request.sense[13];
}

#define CDB(...)  ((const uint8_t[]){ __VA_ARGS__ }), sizeof((const uint8_t[]){ __VA_ARGS__ })
#define DISK(...) (run(0, 0, __VA_ARGS__), outcome())
#define DISC(...) (run(1, 0, __VA_ARGS__), outcome())
#define IN        SCSI_FROM_DEVICE
#define OUT       SCSI_TO_DEVICE
#define NONE      SCSI_NO_DATA

static void setup(void)
{
    struct error err = { "" };

    rig_init(&rig);
    memset(&bus, 0, sizeof(bus));
    bus.max_target = 7;
    bus.max_lun = 1023;
    controller = (struct device){ .type = &controller_type, .env = &rig.env, .id = "h" };
    cr_assert_eq(scsi_bus_init(&bus, &controller, rig.env.loop, &ops, NULL, &err), 0);
    disk = fake_disk_add(&blocks, "d", DISK_SIZE);
    disc = fake_disk_add(&blocks, "c", DISK_SIZE);
    disc->info.read_only = disc->info.cdrom = true;
    rig.env.blocks = blocks;
    hd = create(&scsi_hd_type, "drive=d,serial=S1,wwn=0x5000c50015ea71ac", &err);
    cr_assert_not_null(hd, "%s", err.text);
    cd = create(&scsi_cd_type, "drive=c,bus=h.0", &err);
    cr_assert_not_null(cd, "%s", err.text);
    DISK(CDB(0, 0, 0, 0, 0, 0), NONE, 0); /* takes the unit attentions */
    DISC(CDB(0, 0, 0, 0, 0, 0), NONE, 0);
    changes = 0;
}

static void teardown(void)
{
    device_destroy(cd);
    device_destroy(hd);
    scsi_bus_destroy(&bus);
    fake_disk_free(blocks);
    blocks = NULL;
    rig_destroy(&rig);
}

TestSuite(scsi, .init = setup, .fini = teardown);

/* ---- Who is there ---- */

Test(scsi, inquiry)
{
    cr_assert_eq(DISK(CDB(0x12, 0, 0, 0, 36, 0), IN, 64), 0);
    cr_assert_eq(request.transferred, 36);
    cr_assert_eq(buffer[0], 0);
    cr_assert_eq(memcmp(buffer + 8, "QEMU    QEMU HARDDISK   2.5+", 28), 0);
    cr_assert_eq(DISC(CDB(0x12, 0, 0, 0, 36, 0), IN, 64), 0);
    cr_assert_eq(buffer[0], 5);
    cr_assert_eq(buffer[1], 0x80);
    cr_assert_eq(DISK(CDB(0x12, 0, 0, 0, 5, 0), IN, 64), 0);
    cr_assert_eq(request.transferred, 5, "no more than the allocation length");
    cr_assert_eq(DISK(CDB(0x12, 1, 0, 0, 255, 0), IN, 255), 0);
    cr_assert_eq(memcmp(buffer, "\0\0\0\6\0\x80\x83\xb0\xb1\xb2", 10), 0);
    cr_assert_eq(DISK(CDB(0x12, 1, 0x80, 0, 255, 0), IN, 255), 0);
    cr_assert_eq(memcmp(buffer, "\0\x80\0\2S1", 6), 0);
    cr_assert_eq(DISK(CDB(0x12, 1, 0x83, 0, 255, 0), IN, 255), 0);
    cr_assert_eq(memcmp(buffer + 4, "\2\0\0\2S1\1\3\0\x8\x50\x00\xc5\x00\x15\xea\x71\xac", 18), 0);
    cr_assert_eq(DISK(CDB(0x12, 1, 0xb0, 0, 255, 0), IN, 255), 0);
    cr_assert_eq(request.transferred, 64);
    cr_assert_eq(buffer[23], 255 - 255 + 0, "high byte of the blocks of one UNMAP");
    cr_assert_eq(DISK(CDB(0x12, 1, 0xb2, 0, 255, 0), IN, 255), 0);
    cr_assert_eq(buffer[5], 0xe0);
    cr_assert_eq(DISK(CDB(0x12, 1, 0x99, 0, 255, 0), IN, 255), 0x52400);
    cr_assert_eq(DISK(CDB(0x12, 0, 0x80, 0, 255, 0), IN, 255), 0x52400);
    cr_assert_eq(DISC(CDB(0x12, 1, 0xb1, 0, 255, 0), IN, 255), 0x52400);
}

Test(scsi, addresses)
{
    struct error err = { "" };
    struct device *second;

    fake_disk_add(&blocks, "e", 4096);
    fake_disk_add(&blocks, "f", 4096);
    cr_assert_null(create(&scsi_hd_type, "drive=e,scsi-id=0,lun=0", &err));
    cr_assert_not_null(strstr(err.text, "in use"));
    cr_assert_null(create(&scsi_hd_type, "drive=e,scsi-id=8", &err));
    cr_assert_null(create(&scsi_hd_type, "drive=d", &err));
    cr_assert_null(create(&scsi_hd_type, "drive=e,bus=x", &err));
    cr_assert_null(create(&scsi_hd_type, "drive=e,serial=1234567890123456789012345678901234567890", &err));
    second = create(&scsi_hd_type, "drive=e,scsi-id=0,lun=300", &err);
    cr_assert_not_null(second, "%s", err.text);
    cr_assert_eq(DISK(CDB(0xa0, 0, 0, 0, 0, 0, 0, 0, 0, 64, 0, 0), IN, 64), 0);
    cr_assert_eq(buffer[3], 16, "two entries");
    cr_assert_eq(memcmp(buffer + 16, "\x41\x2c\0\0", 4), 0, "flat space addressing");
    cr_assert_eq(DISK(CDB(0xa0, 0, 0, 0, 0, 0, 0, 0, 0, 15, 0, 0), IN, 64), 0x52400);
    cr_assert_not(begin(5, 0, CDB(0, 0, 0, 0, 0, 0), NONE, 0), "no such target");
    run(0, 7, CDB(0, 0, 0, 0, 0, 0), NONE, 0);
    cr_assert_eq(outcome(), 0x52500, "no such LUN");
    run(0, 7, CDB(0x12, 0, 0, 0, 36, 0), IN, 36);
    cr_assert_eq(outcome(), 0);
    cr_assert_eq(buffer[0], 0x7f);
    run(0, 7, CDB(0x03, 0, 0, 0, 18, 0), IN, 18);
    cr_assert_eq(buffer[12], 0x25);
    run(0, 7, CDB(0xa0, 0, 0, 0, 0, 0, 0, 0, 0, 64, 0, 0), IN, 64);
    cr_assert_eq(outcome(), 0);
    cr_assert_eq(buffer[3], 16);
    device_destroy(second);
}

static void own(void *opaque, struct device *device)
{
    device->next = *(struct device **)opaque;
    *(struct device **)opaque = device;
}

Test(scsi, drives_of_the_command_line)
{
    struct fake_disk *other = fake_disk_add(&blocks, "scsi0-hd3", 8192);
    struct device *owned = NULL;
    struct error err = { "" };

    other->info.interface = BLOCK_IF_SCSI;
    other->info.unit = 3;
    cr_assert_eq(scsi_attach_drives(&rig.env, own, &owned, &err), 0, "%s", err.text);
    cr_assert_not_null(owned);
    cr_assert_null(owned->next);
    cr_assert_not_null(scsi_bus_find(&bus, 0, 3, 0));
    device_destroy(owned);
    other->info.bus = 1;
    cr_assert_eq(scsi_attach_drives(&rig.env, own, &owned, &err), -ENODEV);
    cr_assert_not_null(strstr(err.text, "virtio-scsi-pci"));
}

/* ---- Attention, sense ---- */

Test(scsi, unit_attention)
{
    device_reset(hd);
    cr_assert_eq(DISK(CDB(0x12, 0, 0, 0, 36, 0), IN, 64), 0, "INQUIRY does not care");
    cr_assert_eq(DISK(CDB(0, 0, 0, 0, 0, 0), NONE, 0), 0x62900);
    cr_assert_eq(DISK(CDB(0, 0, 0, 0, 0, 0), NONE, 0), 0);
    fake_disk_resize(disk, DISK_SIZE / 2);
    cr_assert_eq(changes, 1);
    cr_assert_eq(DISK(CDB(0x03, 0, 0, 0, 18, 0), IN, 18), 0);
    cr_assert_eq(buffer[2] << 16 | buffer[12] << 8 | buffer[13], 0x62a09, "told by REQUEST SENSE");
    cr_assert_eq(DISK(CDB(0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0), IN, 8), 0);
    cr_assert_eq(buffer[2] << 8 | buffer[3], DISK_SIZE / 1024 - 1);
    cr_assert_eq(DISK(CDB(0x03, 0, 0, 0, 18, 0), IN, 18), 0);
    cr_assert_eq(buffer[2], 0);
    cr_assert_eq(DISK(CDB(0x5e, 0, 0, 0, 0, 0, 0, 0, 24, 0), IN, 24), 0x52000, "PERSISTENT RESERVE IN");
    cr_assert_eq(DISK(CDB(0x5f, 0, 0, 0, 0, 0, 0, 0, 24, 0), OUT, 24), 0x52000);
    cr_assert_eq(DISK(CDB(0xff, 0, 0, 0, 0, 0, 0, 0, 24, 0), NONE, 0), 0x52000);
    cr_assert_eq(DISC(CDB(0x2a, 0, 0, 0, 0, 0, 0, 0, 1, 0), OUT, 2048), 0x52000, "WRITE is no command of a CD-ROM");
}

/* ---- Blocks ---- */

static void check_pattern(uint64_t offset, uint64_t size)
{
    for (uint64_t i = 0; i < size; i++)
        cr_assert_eq(buffer[i], fake_disk_pattern(offset + i), "byte %llu", (unsigned long long)i);
}

Test(scsi, reads)
{
    cr_assert_eq(DISK(CDB(0x08, 0, 0, 5, 2, 0), IN, 1024), 0);
    check_pattern(5 * 512, 1024);
    cr_assert_eq(DISK(CDB(0x08, 0, 0, 0, 0, 0), IN, 131072), 0);
    cr_assert_eq(request.transferred, 131072, "0 means 256");
    cr_assert_eq(DISK(CDB(0x28, 0, 0, 0, 0, 9, 0, 0, 3, 0), IN, 1536), 0);
    check_pattern(9 * 512, 1536);
    cr_assert_eq(DISK(CDB(0xa8, 0, 0, 0, 0, 9, 0, 0, 0, 3, 0, 0), IN, 1536), 0);
    cr_assert_eq(DISK(CDB(0x88, 0, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 3, 0, 0), IN, 1536), 0);
    cr_assert_eq(DISK(CDB(0x28, 0, 0, 0, 0, 9, 0, 0, 3, 0), IN, 4000), 0);
    cr_assert_eq(request.transferred, 1536, "a larger buffer");
    cr_assert_eq(DISK(CDB(0x28, 0, 0, 0, 0, 9, 0, 0, 3, 0), IN, 1535), 0);
    cr_assert(request.overrun);
    cr_assert_eq(request.transferred, 0);
    cr_assert_eq(DISK(CDB(0x28, 0, 0, 0, 0, 9, 0, 0, 0, 0), NONE, 0), 0, "no blocks");
    cr_assert_eq(DISK(CDB(0x28, 0, 0, 0, 8, 0, 0, 0, 1, 0), IN, 512), 0x52100);
    cr_assert_eq(DISK(CDB(0x88, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 3, 0, 0), IN, 1536),
                 0x52100);
    cr_assert_eq(DISK(CDB(0x28, 0x20, 0, 0, 0, 9, 0, 0, 1, 0), IN, 512), 0x52400, "no protection information");
    cr_assert_eq(DISC(CDB(0x28, 0, 0, 0, 0, 3, 0, 0, 2, 0), IN, 4096), 0);
    check_pattern(3 * 2048, 4096);
    disk->fail = -EIO;
    cr_assert_eq(DISK(CDB(0x28, 0, 0, 0, 0, 9, 0, 0, 3, 0), IN, 1536), 0x31100);
}

Test(scsi, writes)
{
    memset(buffer, 0x77, 2048);
    cr_assert_eq(DISK(CDB(0x2a, 0, 0, 0, 0, 9, 0, 0, 3, 0), OUT, 1536), 0);
    cr_assert_eq(disk->data[9 * 512], 0x77);
    cr_assert_eq(disk->data[12 * 512], fake_disk_pattern(12 * 512));
    cr_assert_eq(disk->unstable, 1536);
    cr_assert_eq(DISK(CDB(0x35, 0, 0, 0, 0, 0, 0, 0, 0, 0), NONE, 0), 0);
    cr_assert_eq(disk->unstable, 0);
    cr_assert_eq(DISK(CDB(0x8a, 8, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 1, 0, 0), OUT, 512), 0);
    cr_assert_eq(disk->last_flags, BLOCK_FUA);
    cr_assert_eq(DISK(CDB(0x2e, 0, 0, 0, 0, 9, 0, 0, 1, 0), OUT, 512), 0);
    cr_assert_eq(disk->last_flags, BLOCK_FUA, "WRITE AND VERIFY");
    cr_assert_eq(DISK(CDB(0x0a, 0, 0, 9, 1, 0), OUT, 512), 0);
    disk->fail = -ENOSPC;
    cr_assert_eq(DISK(CDB(0x0a, 0, 0, 9, 1, 0), OUT, 512), 0x72707);
    disk->fail = -EIO;
    cr_assert_eq(DISK(CDB(0x0a, 0, 0, 9, 1, 0), OUT, 512), 0x30c00);
    disk->info.read_only = true;
    cr_assert_eq(DISK(CDB(0x0a, 0, 0, 9, 1, 0), OUT, 512), 0x72700);
}

Test(scsi, verify)
{
    cr_assert_eq(DISK(CDB(0x2f, 0, 0, 0, 0, 0, 0, 8, 0, 0), NONE, 0), 0, "2048 blocks, in pieces");
    cr_assert_eq(DISK(CDB(0x2f, 0, 0, 0, 0, 0, 0, 8, 1, 0), NONE, 0), 0x52100);
    cr_assert_eq(DISK(CDB(0x28, 0, 0, 0, 0, 0, 0, 8, 0, 0), IN, MIB), 0);
    cr_assert_eq(DISK(CDB(0x2f, 2, 0, 0, 0, 0, 0, 8, 0, 0), OUT, MIB), 0);
    buffer[700001] ^= 1;
    cr_assert_eq(DISK(CDB(0x2f, 2, 0, 0, 0, 0, 0, 8, 0, 0), OUT, MIB), 0xe1d00);
    cr_assert_eq(DISK(CDB(0x2f, 6, 0, 0, 0, 0, 0, 8, 0, 0), OUT, MIB), 0x52400);
    disk->fail = -EIO;
    cr_assert_eq(DISK(CDB(0x2f, 0, 0, 0, 0, 0, 0, 8, 0, 0), NONE, 0), 0x31100);
}

Test(scsi, capacity)
{
    cr_assert_eq(DISK(CDB(0x9e, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 32, 0, 0), IN, 32), 0);
    cr_assert_eq(buffer[6] << 8 | buffer[7], DISK_SIZE / 512 - 1);
    cr_assert_eq(buffer[10], 2);
    cr_assert_eq(buffer[14], 0x80);
    cr_assert_eq(DISK(CDB(0x9e, 0x11, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 32, 0, 0), IN, 32), 0x52400);
    cr_assert_eq(DISC(CDB(0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0), IN, 8), 0);
    cr_assert_eq(buffer[2] << 8 | buffer[3], DISK_SIZE / 2048 - 1);
    cr_assert_eq(buffer[6], 8);
}

Test(scsi, unmap_and_write_same)
{
    memset(buffer, 0, 64);
    buffer[1] = 38, buffer[3] = 32;
    buffer[8 + 7] = 10, buffer[8 + 11] = 2;
    buffer[24 + 7] = 20, buffer[24 + 11] = 1;
    cr_assert_eq(DISK(CDB(0x42, 0, 0, 0, 0, 0, 0, 0, 40, 0), OUT, 40), 0);
    cr_assert_eq(disk->discards, 2);
    cr_assert_eq(disk->data[11 * 512], 0);
    cr_assert_eq(disk->data[12 * 512], fake_disk_pattern(12 * 512));
    buffer[24 + 4] = 1;
    cr_assert_eq(DISK(CDB(0x42, 0, 0, 0, 0, 0, 0, 0, 40, 0), OUT, 40), 0x52100);
    cr_assert_eq(DISK(CDB(0x42, 0, 0, 0, 0, 0, 0, 0, 7, 0), OUT, 40), 0x51a00);
    cr_assert_eq(DISK(CDB(0x42, 0, 0, 0, 0, 0, 0, 0, 40, 0), OUT, 30), 0x51a00, "shorter than it says");
    cr_assert_eq(disk->discards, 2);

    memset(buffer, 0, 512);
    cr_assert_eq(DISK(CDB(0x93, 8, 0, 0, 0, 0, 0, 0, 0, 50, 0, 0, 0, 4, 0, 0), OUT, 512), 0);
    cr_assert_eq(disk->last_op, BLOCK_WRITE_ZEROES);
    cr_assert_eq(disk->last_flags, BLOCK_MAY_UNMAP);
    cr_assert_eq(disk->data[53 * 512], 0);
    cr_assert_eq(DISK(CDB(0x93, 1, 0, 0, 0, 0, 0, 0, 0, 60, 0, 0, 0, 4, 0, 0), NONE, 0), 0, "no data: zeroes");
    cr_assert_eq(disk->data[60 * 512], 0);
    for (unsigned i = 0; i < 512; i++)
        buffer[i] = (uint8_t)i;
    cr_assert_eq(DISK(CDB(0x41, 0, 0, 0, 0, 100, 0, 4, 0, 0), OUT, 512), 0, "1024 blocks, in pieces");
    for (unsigned i = 0; i < 1024 * 512; i++)
        cr_assert_eq(disk->data[100 * 512 + i], (uint8_t)i);
    cr_assert_eq(disk->data[1124 * 512], fake_disk_pattern(1124 * 512));
    cr_assert_eq(DISK(CDB(0x41, 0, 0, 0, 0, 100, 0, 0, 0, 0), OUT, 512), 0x52400, "no number");
    cr_assert_eq(DISK(CDB(0x41, 0, 0, 0, 0, 100, 0, 0, 1, 0), OUT, 511), 0x51a00);
}

/* ---- Mode pages ---- */

Test(scsi, mode_pages)
{
    cr_assert_eq(DISK(CDB(0x1a, 0, 0x3f, 0, 255, 0), IN, 255), 0);
    cr_assert_eq(buffer[0] + 1u, request.transferred);
    cr_assert_eq(buffer[2], 0x10, "DPOFUA");
    cr_assert_eq(buffer[3], 8);
    cr_assert_eq(DISK(CDB(0x1a, 8, 8, 0, 255, 0), IN, 255), 0);
    cr_assert_eq(memcmp(buffer, "\x17\0\x10\0\x08\x12\x04", 7), 0);
    cr_assert_eq(DISK(CDB(0x5a, 8, 0x48, 0, 0, 0, 0, 0, 255, 0), IN, 255), 0);
    cr_assert_eq(buffer[10], 4, "WCE can be changed");
    cr_assert_eq(DISK(CDB(0x1a, 8, 0xc8, 0, 255, 0), IN, 255), 0x53900);
    cr_assert_eq(DISK(CDB(0x1a, 8, 0x2a, 0, 255, 0), IN, 255), 0x52400, "a page of CD-ROMs");
    cr_assert_eq(DISC(CDB(0x5a, 0, 0x2a, 0, 0, 0, 0, 0, 255, 0), IN, 255), 0);
    cr_assert_eq(buffer[8], 0x2a);

    memset(buffer, 0, 24);
    buffer[4] = 8, buffer[5] = 18; /* WCE off */
    cr_assert_eq(DISK(CDB(0x15, 0x10, 0, 0, 24, 0), OUT, 24), 0);
    cr_assert_not(disk->info.write_cache);
    cr_assert_eq(disk->flushes, 1, "what was in the cache");
    cr_assert_eq(DISK(CDB(0x1a, 8, 8, 0, 255, 0), IN, 255), 0);
    cr_assert_eq(buffer[6], 0);
    memset(buffer, 0, 24);
    buffer[4] = 8, buffer[5] = 18, buffer[6] = 1;
    cr_assert_eq(DISK(CDB(0x15, 0x10, 0, 0, 24, 0), OUT, 24), 0x52600, "cannot be changed");
    buffer[3] = 200;
    cr_assert_eq(DISK(CDB(0x15, 0x10, 0, 0, 24, 0), OUT, 24), 0x51a00);
    cr_assert_eq(DISK(CDB(0x15, 0x11, 0, 0, 24, 0), OUT, 24), 0x52400, "saved");
}

/* ---- CD-ROM ---- */

Test(scsi, tray)
{
    cr_assert_eq(DISC(CDB(0x1e, 0, 0, 0, 1, 0), NONE, 0), 0);
    cr_assert_eq(DISC(CDB(0x1b, 0, 0, 0, 2, 0), NONE, 0), 0x55302, "locked");
    cr_assert_eq(DISC(CDB(0x1e, 0, 0, 0, 0, 0), NONE, 0), 0);
    cr_assert_eq(DISC(CDB(0x1b, 0, 0, 0, 2, 0), NONE, 0), 0);
    cr_assert_eq(DISC(CDB(0, 0, 0, 0, 0, 0), NONE, 0), 0x23a02);
    cr_assert_eq(DISC(CDB(0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0), IN, 2048), 0x23a02);
    cr_assert_eq(DISC(CDB(0x4a, 1, 0, 0, 0x10, 0, 0, 0, 8, 0), IN, 8), 0);
    cr_assert_eq(buffer[5], 1, "open");
    cr_assert_eq(DISC(CDB(0x1b, 0, 0, 0, 3, 0), NONE, 0), 0);
    cr_assert_eq(DISC(CDB(0x4a, 1, 0, 0, 0x10, 0, 0, 0, 8, 0), IN, 8), 0);
    cr_assert_eq(buffer[4], 2, "new media");
    cr_assert_eq(DISC(CDB(0, 0, 0, 0, 0, 0), NONE, 0), 0x62800);
    cr_assert_eq(DISC(CDB(0, 0, 0, 0, 0, 0), NONE, 0), 0);
    fake_disk_resize(disc, 0);
    cr_assert_eq(DISC(CDB(0, 0, 0, 0, 0, 0), NONE, 0), 0x62800);
    cr_assert_eq(DISC(CDB(0, 0, 0, 0, 0, 0), NONE, 0), 0x23a00, "no medium");
}

Test(scsi, multimedia)
{
    cr_assert_eq(DISC(CDB(0x43, 0, 0, 0, 0, 0, 0, 0, 255, 0), IN, 255), 0);
    cr_assert_eq(memcmp(buffer, "\0\x12\1\1\0\x14\1\0\0\0\0\0\0\x14\xaa\0\0\0\2\0", 20), 0);
    cr_assert_eq(DISC(CDB(0x43, 2, 0, 0, 0, 0, 0, 0, 255, 0), IN, 255), 0);
    cr_assert_eq(memcmp(buffer + 8, "\0\0\2\0", 4), 0, "track 1 at 00:02:00");
    cr_assert_eq(DISC(CDB(0x46, 0, 0, 0, 0, 0, 0, 0, 255, 0), IN, 255), 0);
    cr_assert_eq(buffer[7], 8, "CD-ROM");
    cr_assert_eq((size_t)buffer[3] + 4, request.transferred);
    cr_assert_eq(DISC(CDB(0x51, 0, 0, 0, 0, 0, 0, 0, 34, 0), IN, 34), 0);
    cr_assert_eq(DISC(CDB(0xbd, 0, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0), IN, 8), 0);
    cr_assert_eq(DISC(CDB(0xbe, 0, 0, 0, 0, 4, 0, 0, 1, 0x10, 0, 0), IN, 2048), 0);
    check_pattern(4 * 2048, 2048);
    cr_assert_eq(DISC(CDB(0xbe, 0, 0, 0, 0, 4, 0, 0, 1, 0xf8, 0, 0), IN, 2352), 0x56400);
    cr_assert_eq(DISC(CDB(0xad, 0, 0, 0, 0, 0, 0, 0, 0, 20, 0, 0), IN, 20), 0x52400, "not a DVD");
    cr_assert_eq(DISK(CDB(0x43, 0, 0, 0, 0, 0, 0, 0, 255, 0), IN, 255), 0x52000);
}

/* What initiators with no buffer of their own ask before. */
Test(scsi, expected_transfers)
{
    struct scsi_device *device = (struct scsi_device *)cd;
    uint64_t size;
    static const uint8_t read[12] = { 0x28, 0, 0, 0, 0, 0, 0, 1, 2 }, inquiry[12] = { 0x12, 0, 0, 1, 4 },
                         ready[12] = { 0 }, toc[12] = { 0x43, 0, 0, 0, 0, 0, 0, 3, 4 };

    cr_assert_eq(scsi_expected_transfer(device, read, &size), IN);
    cr_assert_eq(size, 0x102 * 2048);
    cr_assert_eq(scsi_expected_transfer(device, inquiry, &size), IN);
    cr_assert_eq(size, 0x104);
    cr_assert_eq(scsi_expected_transfer(device, toc, &size), IN);
    cr_assert_eq(size, 0x304);
    cr_assert_eq(scsi_expected_transfer(device, ready, &size), NONE);
    cr_assert_eq(size, 0);
    cr_assert_eq(scsi_cdb_length(0x28), 10);
}

/* ---- State, ends ---- */

Test(scsi, state)
{
    struct error err;

    DISC(CDB(0x1e, 0, 0, 0, 1, 0), NONE, 0);
    cr_assert_eq(scsi_boot_entry(hd, &(int){ 0 }, (char[64]){ 0 }, 64), false);
    (void)err;
    for (unsigned i = 0; i < 2; i++) {
        struct device *device = i ? cd : hd;
        struct state_buffer first = { 0 }, second = { 0 };

        cr_assert_eq(state_save(&first, device->type->state, device, &err), 0);
        device_reset(device);
        cr_assert_eq(state_load(&first, device->type->state, device, &err), 0);
        cr_assert_eq(state_save(&second, device->type->state, device, &err), 0);
        cr_assert_eq(first.size, second.size);
        cr_assert_eq(memcmp(first.data, second.data, first.size), 0);
        state_buffer_free(&first), state_buffer_free(&second);
        rig_round_trip(device, NULL);
        rig_load_garbage(device, i + 1, 100);
    }
}

Test(scsi, destroyed_with_a_command_under_way)
{
    cr_assert(begin(0, 0, CDB(0x2f, 0, 0, 0, 0, 0, 0, 8, 0, 0), NONE, 0));
    cr_assert_eq(scsi_device_under_way((struct scsi_device *)hd), 1);
    device_destroy(hd);
    cr_assert(done);
    hd = NULL;
}
