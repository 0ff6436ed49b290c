/* Random commands for a disk and a CD-ROM drive: each ends once, writes no byte behind the initiator's buffer, and what it claims to
 * have moved fits there. Run beside the address sanitizer. EIDOLON_SEED=N gives other seeds. */
#include "../devices/rig.h"
#include "devices/storage/scsi.h"
#include "fake_disk.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#define COMMANDS  60000
#define SIZE_MAX_ 70000

extern const struct device_type scsi_hd_type, scsi_cd_type;

struct attempt {
    struct scsi_request request;
    struct iovec iov[4];
    uint8_t *data[4]; /* of their own, so that the sanitizer sees their ends */
    bool done;
};

static uint64_t seed;

static uint64_t pick(uint64_t below)
{
    return rig_random(&seed) % below;
}

static void on_done(struct scsi_request *request)
{
    struct attempt *attempt = container_of(request, struct attempt, request);

    cr_assert_not(attempt->done);
    cr_assert_leq(request->transferred, request->size);
    cr_assert(request->status == SCSI_GOOD || (request->status == SCSI_CHECK_CONDITION && request->sense_size));
    attempt->done = true;
}

static void random_cdb(uint8_t *cdb)
{
    static const uint8_t opcodes[] = {
        0x00, 0x01, 0x03, 0x08, 0x0a, 0x0b, 0x12, 0x15, 0x16, 0x1a, 0x1b, 0x1d, 0x1e, 0x25, 0x28,
        0x2a, 0x2e, 0x2f, 0x35, 0x41, 0x42, 0x43, 0x46, 0x4a, 0x51, 0x55, 0x5a, 0x88, 0x8a, 0x8e,
        0x8f, 0x91, 0x93, 0x9e, 0xa0, 0xa8, 0xaa, 0xad, 0xae, 0xaf, 0xbb, 0xbd, 0xbe,
    };

    for (unsigned i = 0; i < 16; i++)
        cdb[i] = pick(3) ? 0 : (uint8_t)rig_random(&seed);
    cdb[0] = pick(20) ? opcodes[pick(sizeof(opcodes))] : (uint8_t)rig_random(&seed);
    if (pick(2)) { /* few blocks */
        memset(cdb + 2, 0, 6);
        cdb[5] = (uint8_t)pick(100);
        cdb[8] = (uint8_t)pick(40);
        cdb[13] = (uint8_t)pick(40);
    }
}

static void prepare(struct attempt *attempt)
{
    struct scsi_request *request = &attempt->request;

    memset(attempt, 0, sizeof(*attempt));
    random_cdb(request->cdb);
    request->target = (uint16_t)pick(2);
    request->lun = pick(20) ? 0 : (uint16_t)rig_random(&seed);
    request->direction = (enum scsi_direction)pick(3);
    request->iov = attempt->iov;
    request->done = on_done;
    if (request->direction == SCSI_NO_DATA)
        return;
    request->iov_count = (unsigned)pick(5);
    for (unsigned i = 0; i < request->iov_count; i++) {
        size_t size = pick(3) ? pick(600) : pick(SIZE_MAX_ / 4);

        attempt->data[i] = malloc(size);
        for (size_t j = 0; j < size; j++)
            attempt->data[i][j] = pick(3) ? 0 : (uint8_t)rig_random(&seed);
        attempt->iov[i] = (struct iovec){ attempt->data[i], size };
        request->size += size;
    }
}

static struct device *create(struct rig *rig, const struct device_type *type, const char *text)
{
    struct option_list options;
    struct error err = { "" };
    struct device *device;

    cr_assert_eq(options_parse(&options, text, NULL, &err), 0);
    device = device_create(&rig->env, type, text, &options, &err);
    cr_assert_not_null(device, "%s", err.text);
    options_free(&options);
    return device;
}

static void attack(struct scsi_bus *bus, struct device *hd, struct device *cd, struct fake_disk *disk,
                   struct fake_disk *disc)
{
    for (unsigned n = 0; n < COMMANDS; n++) {
        struct attempt attempt;

        prepare(&attempt);
        if (!pick(30)) { /* turns again, is closed and unlocked */
            device_reset(hd);
            device_reset(cd);
        }
        if (!pick(50))
            disk->fail = -5;
        if (!pick(100))
            fake_disk_resize(disc, pick(3) ? MIB : 0);
        cr_assert(scsi_bus_submit(bus, &attempt.request));
        for (unsigned i = 0; i < 100000 && !attempt.done; i++) {
            fake_disk_run_one(disk, 0);
            fake_disk_run_one(disc, 0);
        }
        cr_assert(attempt.done, "command 0x%02x does not end", attempt.request.cdb[0]);
        for (unsigned i = 0; i < 4; i++)
            free(attempt.data[i]);
    }
}

Test(scsi_hostile, commands)
{
    static const struct device_type controller_type = { .name = "test-scsi" };
    static struct rig rig;
    struct scsi_bus bus = { .max_target = 7, .max_lun = 255 };
    struct block_registry *blocks = NULL;
    struct device controller = { .type = &controller_type, .env = &rig.env, .id = "h" };
    const char *text = getenv("EIDOLON_SEED");
    struct error err;

    seed = text ? strtoull(text, NULL, 0) : 1;
    rig_init(&rig);
    cr_assert_eq(scsi_bus_init(&bus, &controller, rig.env.loop, NULL, NULL, &err), 0);
    struct fake_disk *disk = fake_disk_add(&blocks, "d", MIB), *disc = fake_disk_add(&blocks, "c", MIB);
    disc->info.read_only = true;
    rig.env.blocks = blocks;
    struct device *hd = create(&rig, &scsi_hd_type, "drive=d,serial=S"), *cd = create(&rig, &scsi_cd_type, "drive=c");
    attack(&bus, hd, cd, disk, disc);
    cr_assert_gt(disk->submitted, COMMANDS / 100, "only %u came to the drive", disk->submitted);
    device_destroy(cd);
    device_destroy(hd);
    scsi_bus_destroy(&bus);
    fake_disk_free(blocks);
    rig_destroy(&rig);
}
