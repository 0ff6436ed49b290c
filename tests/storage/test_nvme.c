/* The NVMe controller, driven as a driver would: registers, admin commands, I/O, interrupts, reset, shutdown, state. */
#include "nvme_driver.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

static struct driver driver;

static void setup(void)
{
    driver_init(&driver, "drive=d,serial=S1,max_ioqpairs=8,msix_qsize=9");
}

static void setup_running(void)
{
    setup();
    driver_start(&driver, true);
    driver_create_queues(&driver, 1, 16);
}

static void teardown(void)
{
    driver_destroy(&driver);
}

TestSuite(nvme, .init = setup, .fini = teardown);
TestSuite(nvme_io, .init = setup_running, .fini = teardown);

static unsigned admin(unsigned opcode, uint32_t cdw10, uint32_t cdw11)
{
    return driver_execute(&driver, 0,
                          (struct nvme_sqe){
                              .opcode = (uint8_t)opcode, .cdw10 = cdw10, .cdw11 = cdw11, .prp1 = DRIVER_DATA });
}

static unsigned identify(unsigned cns, uint32_t nsid)
{
    return driver_execute(&driver, 0,
                          (struct nvme_sqe){
                              .opcode = NVME_ADMIN_IDENTIFY, .cdw10 = cns, .nsid = nsid, .prp1 = DRIVER_DATA });
}

static uint8_t *data(void)
{
    return driver_ram(&driver, DRIVER_DATA);
}

static void check_pattern(uint64_t offset, uint64_t size)
{
    for (uint64_t i = 0; i < size; i++)
        cr_assert_eq(data()[i], fake_disk_pattern(offset + i), "byte %llu", (unsigned long long)i);
}

/* ---- Registers ---- */

Test(nvme, identity_and_registers)
{
    driver_start(&driver, false);
    cr_assert_eq(pci_device_config_read(&driver.nvme->pci, 0, 4), 0x00101b36);
    cr_assert_eq(pci_device_config_read(&driver.nvme->pci, 8, 4) >> 8, 0x010802);
    cr_assert_eq(driver_read64(&driver, NVME_REG_CAP), NVME_CAP);
    cr_assert_eq(driver_read(&driver, NVME_REG_CAP + 4), NVME_CAP >> 32);
    cr_assert_eq(driver_read(&driver, NVME_REG_VS), 0x10400);
    cr_assert_eq(driver_read64(&driver, NVME_REG_ASQ), DRIVER_SQ(0));
    driver_write(&driver, NVME_REG_ASQ, 0x5000);
    cr_assert_eq(driver_read64(&driver, NVME_REG_ASQ), DRIVER_SQ(0), "locked while enabled");
    driver_write(&driver, NVME_REG_CC, 0);
    cr_assert_eq(driver_read(&driver, NVME_REG_CSTS), 0);
    driver_write(&driver, NVME_REG_ASQ, 0x5fff);
    cr_assert_eq(driver_read64(&driver, NVME_REG_ASQ), 0x5000);
    cr_assert_eq(driver_read(&driver, NVME_REG_ACQ), DRIVER_CQ(0), "kept by a reset");
}

Test(nvme, bad_enable_is_fatal)
{
    static const uint32_t bad[] = { 5 << NVME_CC_MPS_SHIFT, 1 << NVME_CC_CSS_SHIFT, 1 << NVME_CC_AMS_SHIFT };

    driver_start(&driver, false);
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        driver_write(&driver, NVME_REG_CC, 0);
        driver_write(&driver, NVME_REG_CC, bad[i] | NVME_CC_ENABLE);
        cr_assert_eq(driver_read(&driver, NVME_REG_CSTS), NVME_CSTS_FATAL);
    }
    driver_write(&driver, NVME_REG_CC, 0);
    cr_assert_eq(driver_read(&driver, NVME_REG_CSTS), 0);
    driver_write(&driver, NVME_REG_AQA, 0);
    driver_write(&driver, NVME_REG_CC, NVME_CC_ENABLE);
    cr_assert_eq(driver_read(&driver, NVME_REG_CSTS), NVME_CSTS_FATAL, "queues of one entry");
}

Test(nvme, queues_outside_ram_are_fatal)
{
    driver_start(&driver, false);
    driver_write(&driver, NVME_REG_CC, 0);
    driver_write(&driver, NVME_REG_ASQ, 0x80000000);
    driver_write(&driver, NVME_REG_CC, NVME_CC_ENABLE);
    cr_assert_eq(driver_read(&driver, NVME_REG_CSTS), NVME_CSTS_READY);
    driver_write(&driver, NVME_REG_DOORBELLS, 1);
    driver_poll(&driver);
    cr_assert_eq(driver_read(&driver, NVME_REG_CSTS), NVME_CSTS_READY | NVME_CSTS_FATAL);
    driver_write(&driver, NVME_REG_CC, 0);
    cr_assert_eq(driver_read(&driver, NVME_REG_CSTS), 0);
    driver_start(&driver, false);
}

Test(nvme, options)
{
    static const char *const bad[] = { "drive=d",
                                       "drive=x,serial=a",
                                       "drive=d,serial=a,max_ioqpairs=0",
                                       "drive=d,serial=123456789012345678901",
                                       "drive=d,serial=a,logical_block_size=100",
                                       "drive=d,serial=a,msix_qsize=5000",
                                       "drive=d,serial=a" };

    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        struct option_list options;
        struct error err = { "" };

        cr_assert_eq(options_parse(&options, bad[i], NULL, &err), 0);
        cr_assert_null(device_create(&driver.rig.env, driver.nvme->pci.device.type, "m", &options, &err), "%s", bad[i]);
        cr_assert_neq(err.text[0], 0);
        options_free(&options);
    }
}

/* ---- Admin ---- */

Test(nvme, identify)
{
    struct nvme_id_controller *controller = (void *)data();
    struct nvme_id_namespace *namespace = (void *)data();
    uint32_t *list = (void *)data();

    driver_start(&driver, true);
    cr_assert_eq(identify(NVME_CNS_CONTROLLER, 0), NVME_OK);
    cr_assert_eq(controller->vid, 0x1b36);
    cr_assert_eq(memcmp(controller->serial, "S1                  ", 20), 0);
    cr_assert_eq(memcmp(controller->model, "QEMU NVMe Ctrl  ", 16), 0);
    cr_assert_eq(controller->mdts, 7);
    cr_assert_eq(controller->sqes, 0x66);
    cr_assert_eq(identify(NVME_CNS_NAMESPACE, 1), NVME_OK);
    cr_assert_eq(namespace->nsze, DRIVER_DRIVE / 512);
    cr_assert_eq(namespace->lbaf[0].data_size, 9);
    cr_assert_eq(identify(NVME_CNS_NAMESPACE, 2), NVME_OK);
    cr_assert_eq(namespace->nsze, 0, "inactive");
    cr_assert_eq(identify(NVME_CNS_NAMESPACE, 0), NVME_INVALID_NAMESPACE);
    cr_assert_eq(identify(NVME_CNS_ACTIVE_LIST, 0), NVME_OK);
    cr_assert_eq(list[0], 1);
    cr_assert_eq(list[1], 0);
    cr_assert_eq(identify(NVME_CNS_ACTIVE_LIST, 1), NVME_OK);
    cr_assert_eq(list[0], 0);
    cr_assert_eq(identify(NVME_CNS_DESCRIPTORS, 1), NVME_OK);
    cr_assert_eq(list[0], 3 | 16 << 8, "a UUID");
    cr_assert_eq(identify(0x7f, 1), NVME_INVALID_FIELD);
    cr_assert_eq(admin(0x80, 0, 0), NVME_INVALID_OPCODE, "format");
}

Test(nvme, features)
{
    driver_start(&driver, true);
    cr_assert_eq(admin(NVME_ADMIN_SET_FEATURES, NVME_FEATURE_QUEUES, 0x003f003f), NVME_OK);
    cr_assert_eq(driver.last.dw0, 0x00070007);
    cr_assert_eq(admin(NVME_ADMIN_SET_FEATURES, NVME_FEATURE_QUEUES, 0xffff0000), NVME_INVALID_FIELD);
    cr_assert_eq(admin(NVME_ADMIN_GET_FEATURES, NVME_FEATURE_WRITE_CACHE, 0), NVME_OK);
    cr_assert_eq(driver.last.dw0, 1);
    cr_assert_eq(admin(NVME_ADMIN_SET_FEATURES, NVME_FEATURE_WRITE_CACHE, 0), NVME_OK);
    cr_assert_not(driver.disk->info.write_cache);
    cr_assert_eq(admin(NVME_ADMIN_SET_FEATURES, NVME_FEATURE_WRITE_CACHE | 1u << 31, 0), 0x10d);
    cr_assert_eq(admin(NVME_ADMIN_SET_FEATURES, NVME_FEATURE_POWER, 1), NVME_INVALID_FIELD);
    cr_assert_eq(admin(NVME_ADMIN_GET_FEATURES, 0x55, 0), NVME_INVALID_FIELD);
    cr_assert_eq(admin(NVME_ADMIN_SET_FEATURES, NVME_FEATURE_VECTOR, 9), NVME_INVALID_FIELD);
    cr_assert_eq(admin(NVME_ADMIN_GET_FEATURES, NVME_FEATURE_ARBITRATION | 3 << 8, 0), NVME_OK);
    cr_assert_eq(driver.last.dw0, 4, "changeable");
    memcpy(data(), &(uint64_t){ 1000000 }, 8);
    cr_assert_eq(admin(NVME_ADMIN_SET_FEATURES, NVME_FEATURE_TIMESTAMP, 0), NVME_OK);
    fake_time_advance(5000000000);
    cr_assert_eq(admin(NVME_ADMIN_GET_FEATURES, NVME_FEATURE_TIMESTAMP, 0), NVME_OK);
    cr_assert_eq(*(uint64_t *)data(), 1005000 | 1ull << 49);
}

Test(nvme_io, log_pages)
{
    struct nvme_error_entry *errors = (void *)data();
    struct nvme_smart *smart = (void *)data();
    uint32_t *effects = (void *)data();

    cr_assert_eq(driver_io(&driver, NVME_IO_READ, DRIVER_DRIVE / 512, 1), NVME_LBA_OUT_OF_RANGE);
    cr_assert(driver.last.status >> 1 & NVME_MORE);
    cr_assert_eq(admin(NVME_ADMIN_GET_LOG, NVME_LOG_ERRORS | 63 << 16, 0), NVME_OK);
    cr_assert_eq(errors[0].count, 1);
    cr_assert_eq(errors[0].sq_id, 1);
    cr_assert_eq(errors[0].status >> 1 & 0xff, NVME_LBA_OUT_OF_RANGE);
    cr_assert_eq(errors[0].lba, DRIVER_DRIVE / 512);
    for (unsigned i = 0; i < 3; i++)
        driver_io(&driver, NVME_IO_READ, 0, 8);
    cr_assert_eq(admin(NVME_ADMIN_GET_LOG, NVME_LOG_SMART | 127 << 16, 0), NVME_OK);
    cr_assert_eq(smart->reads[0], 3);
    cr_assert_eq(smart->units_read[0], 1);
    cr_assert_eq(smart->temperature[0] | smart->temperature[1] << 8, NVME_TEMPERATURE);
    cr_assert_eq(admin(NVME_ADMIN_GET_LOG, NVME_LOG_COMMANDS | 1023 << 16, 0), NVME_OK);
    cr_assert_eq(effects[256 + NVME_IO_WRITE], 3);
    cr_assert_eq(effects[0x80], 0);
    cr_assert_eq(admin(NVME_ADMIN_GET_LOG, 0x70 | 1 << 16, 0), NVME_INVALID_LOG_PAGE);
}

static uint16_t request_event(void)
{
    uint16_t cid = driver_submit(&driver, 0, (struct nvme_sqe){ .opcode = NVME_ADMIN_ASYNC_EVENT });

    driver_poll(&driver);
    return cid;
}

Test(nvme_io, events)
{
    uint16_t cid = request_event();

    cr_assert_not(driver_reap(&driver, 0));
    driver_write(&driver, NVME_REG_DOORBELLS + 8, 99); /* out of range */
    driver_poll(&driver);
    cr_assert(driver_reap(&driver, 0));
    cr_assert_eq(driver.last.cid, cid);
    cr_assert_eq(driver.last.dw0, NVME_EVENT_BAD_DOORBELL_VALUE << 8 | NVME_LOG_ERRORS << 16);
    request_event();
    driver_write(&driver, NVME_REG_DOORBELLS + 3 * 8, 1); /* no such queue */
    driver_poll(&driver);
    cr_assert_not(driver_reap(&driver, 0), "masked until the log page is read");
    /* The log command's completion and the event's: in either order. */
    driver_submit(&driver, 0,
                  (struct nvme_sqe){
                      .opcode = NVME_ADMIN_GET_LOG, .cdw10 = NVME_LOG_ERRORS | 15 << 16, .prp1 = DRIVER_DATA });
    driver_poll(&driver);
    cr_assert(driver_reap(&driver, 0));
    cr_assert(driver_reap(&driver, 0));
    for (unsigned i = 0; i < NVME_MAX_EVENTS; i++)
        request_event();
    cr_assert_eq(admin(NVME_ADMIN_ASYNC_EVENT, 0, 0), NVME_TOO_MANY_EVENTS);
}

Test(nvme_io, abort_takes_back_an_event_request)
{
    uint16_t cid = request_event();

    driver_submit(&driver, 0, (struct nvme_sqe){ .opcode = NVME_ADMIN_ABORT, .cdw10 = (uint32_t)cid << 16 });
    driver_poll(&driver);
    cr_assert(driver_reap(&driver, 0));
    cr_assert_eq(driver.last.cid, cid);
    cr_assert_eq(driver.last.status >> 1 & 0x7ff, NVME_ABORT_REQUESTED);
    cr_assert(driver_reap(&driver, 0));
    cr_assert_eq(driver.last.dw0, 0);
    cr_assert_eq(admin(NVME_ADMIN_ABORT, 1 | 77u << 16, 0), NVME_OK);
    cr_assert_eq(driver.last.dw0, 1, "not aborted");
}

Test(nvme_io, namespace_change_is_an_event)
{
    cr_assert_eq(admin(NVME_ADMIN_SET_FEATURES, NVME_FEATURE_EVENTS, NVME_AEC_NAMESPACE), NVME_OK);
    request_event();
    fake_disk_resize(driver.disk, DRIVER_DRIVE / 2);
    cr_assert(driver_reap(&driver, 0));
    cr_assert_eq(driver.last.dw0, NVME_EVENT_NOTICE | NVME_LOG_CHANGED_NAMESPACES << 16);
    cr_assert_eq(admin(NVME_ADMIN_GET_LOG, NVME_LOG_CHANGED_NAMESPACES | 1023 << 16, 0), NVME_OK);
    cr_assert_eq(*(uint32_t *)data(), 1);
    cr_assert_eq(driver_io(&driver, NVME_IO_READ, DRIVER_DRIVE / 1024, 1), NVME_LBA_OUT_OF_RANGE);
}

Test(nvme_io, queue_errors)
{
    cr_assert_eq(admin(NVME_ADMIN_CREATE_CQ, 1 | 15 << 16, 1), NVME_INVALID_QID, "exists");
    cr_assert_eq(admin(NVME_ADMIN_CREATE_CQ, 9 | 15 << 16, 1), NVME_INVALID_QID);
    cr_assert_eq(admin(NVME_ADMIN_CREATE_CQ, 0 | 15 << 16, 1), NVME_INVALID_QID);
    cr_assert_eq(admin(NVME_ADMIN_CREATE_CQ, 2, 1), NVME_INVALID_QUEUE_SIZE);
    cr_assert_eq(admin(NVME_ADMIN_CREATE_CQ, 2 | 0xffffu << 16, 1), NVME_INVALID_QUEUE_SIZE);
    cr_assert_eq(admin(NVME_ADMIN_CREATE_CQ, 2 | 15 << 16, 0), NVME_INVALID_FIELD, "not contiguous");
    cr_assert_eq(admin(NVME_ADMIN_CREATE_CQ, 2 | 15 << 16, 3 | 9 << 16), NVME_INVALID_VECTOR);
    cr_assert_eq(admin(NVME_ADMIN_CREATE_SQ, 2 | 15 << 16, 1 | 2 << 16), NVME_INVALID_CQ);
    cr_assert_eq(admin(NVME_ADMIN_CREATE_SQ, 1 | 15 << 16, 1 | 1 << 16), NVME_INVALID_QID);
    cr_assert_eq(admin(NVME_ADMIN_DELETE_CQ, 1, 0), NVME_INVALID_QUEUE_DELETION, "used");
    cr_assert_eq(admin(NVME_ADMIN_DELETE_SQ, 2, 0), NVME_INVALID_QID);
    cr_assert_eq(admin(NVME_ADMIN_DELETE_SQ, 1, 0), NVME_OK);
    cr_assert_eq(admin(NVME_ADMIN_DELETE_CQ, 1, 0), NVME_OK);
    driver_create_queues(&driver, 1, 8);
    cr_assert_eq(driver_io(&driver, NVME_IO_READ, 0, 1), NVME_OK);
}

/* ---- I/O ---- */

Test(nvme_io, read_and_write)
{
    static const unsigned sizes[] = { 1, 8, 9, 16, 17, 200, 1024 };

    for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
        memset(data(), 0xee, MIB);
        cr_assert_eq(driver_io(&driver, NVME_IO_READ, 3 + i, sizes[i]), NVME_OK);
        check_pattern((3 + i) * 512, sizes[i] * 512);
        cr_assert_eq(data()[sizes[i] * 512], 0xee);
    }
    cr_assert_eq(driver_io(&driver, NVME_IO_READ, 0, 1025), NVME_INVALID_FIELD, "beyond MDTS");
    for (unsigned i = 0; i < 100 * 512; i++)
        data()[i] = (uint8_t)(i * 13);
    cr_assert_eq(driver_io(&driver, NVME_IO_WRITE, 50, 100), NVME_OK);
    for (unsigned i = 0; i < 100 * 512; i++)
        cr_assert_eq(driver.disk->data[50 * 512 + i], (uint8_t)(i * 13));
    cr_assert_eq(driver.disk->data[49 * 512], fake_disk_pattern(49 * 512));
    cr_assert_eq(driver.disk->data[150 * 512], fake_disk_pattern(150 * 512));
}

Test(nvme_io, flush_fua_zeroes_discard)
{
    struct nvme_sqe sqe = { .opcode = NVME_IO_WRITE, .nsid = 1, .prp1 = DRIVER_DATA, .cdw12 = 1u << 30 };
    struct nvme_range *ranges = (void *)data();

    cr_assert_eq(driver_io(&driver, NVME_IO_WRITE, 0, 1), NVME_OK);
    cr_assert_eq(driver.disk->unstable, 512);
    cr_assert_eq(driver_execute(&driver, 1, (struct nvme_sqe){ .opcode = NVME_IO_FLUSH, .nsid = 1 }), NVME_OK);
    cr_assert_eq(driver.disk->unstable, 0);
    cr_assert_eq(driver_execute(&driver, 1, (struct nvme_sqe){ .opcode = NVME_IO_FLUSH, .nsid = NVME_BROADCAST }),
                 NVME_OK);
    cr_assert_eq(driver.disk->flushes, 2);
    cr_assert_eq(driver_execute(&driver, 1, sqe), NVME_OK);
    cr_assert_eq(driver.disk->fua_writes, 1);
    sqe = (struct nvme_sqe){ .opcode = NVME_IO_WRITE_ZEROES, .nsid = 1, .cdw10 = 10, .cdw12 = 4 | 1u << 25 };
    cr_assert_eq(driver_execute(&driver, 1, sqe), NVME_OK);
    cr_assert_eq(driver.disk->last_flags, BLOCK_MAY_UNMAP);
    cr_assert_eq(driver.disk->data[10 * 512], 0);
    cr_assert_eq(driver.disk->data[15 * 512], fake_disk_pattern(15 * 512));
    ranges[0] = (struct nvme_range){ 0, 2, 100 };
    ranges[1] = (struct nvme_range){ 0, 0, 0 };
    ranges[2] = (struct nvme_range){ 0, 1, 200 };
    sqe = (struct nvme_sqe){
        .opcode = NVME_IO_DATASET_MANAGEMENT, .nsid = 1, .prp1 = DRIVER_DATA, .cdw10 = 2, .cdw11 = 4
    };
    cr_assert_eq(driver_execute(&driver, 1, sqe), NVME_OK);
    cr_assert_eq(driver.disk->discards, 2);
    cr_assert_eq(driver.disk->data[101 * 512], 0);
    cr_assert_eq(driver.disk->data[102 * 512], fake_disk_pattern(102 * 512));
    ranges[2].lba = DRIVER_DRIVE;
    cr_assert_eq(driver_execute(&driver, 1, sqe), NVME_LBA_OUT_OF_RANGE);
    cr_assert_eq(driver.disk->discards, 2, "nothing of it");
}

Test(nvme_io, compare_and_verify)
{
    cr_assert_eq(driver_io(&driver, NVME_IO_READ, 7, 20), NVME_OK);
    cr_assert_eq(driver_io(&driver, NVME_IO_COMPARE, 7, 20), NVME_OK);
    data()[20 * 512 - 1] ^= 1;
    cr_assert_eq(driver_io(&driver, NVME_IO_COMPARE, 7, 20), NVME_COMPARE_FAILURE);
    cr_assert_eq(driver_io(&driver, NVME_IO_VERIFY, 0, 2048), NVME_OK, "longer than MDTS: no data move");
    driver.disk->fail = -EIO;
    cr_assert_eq(driver_io(&driver, NVME_IO_VERIFY, 0, 2048), NVME_READ_ERROR);
    cr_assert_eq(driver_io(&driver, NVME_IO_VERIFY, 1, 2048), NVME_LBA_OUT_OF_RANGE);
}

Test(nvme_io, drive_errors)
{
    driver.disk->fail = -EIO;
    cr_assert_eq(driver_io(&driver, NVME_IO_READ, 0, 1), NVME_READ_ERROR);
    driver.disk->fail = -EIO;
    cr_assert_eq(driver_io(&driver, NVME_IO_WRITE, 0, 1), NVME_WRITE_FAULT);
    driver.disk->fail = -ENOSPC;
    cr_assert_eq(driver_io(&driver, NVME_IO_WRITE, 0, 1), NVME_CAPACITY_EXCEEDED);
    driver.disk->info.read_only = true;
    cr_assert_eq(driver_io(&driver, NVME_IO_WRITE, 0, 1), NVME_WRITE_PROTECTED);
    cr_assert_eq(driver_io(&driver, NVME_IO_READ, 0, 1), NVME_OK);
    cr_assert_eq(driver_execute(&driver, 1,
                                (struct nvme_sqe){ .opcode = NVME_IO_READ, .nsid = 2, .prp1 = DRIVER_DATA }),
                 NVME_INVALID_NAMESPACE);
    cr_assert_eq(driver_execute(&driver, 1, (struct nvme_sqe){ .opcode = 0x7f, .nsid = 1 }), NVME_INVALID_OPCODE);
}

Test(nvme_io, prp_forms)
{
    struct nvme_sqe sqe = { .opcode = NVME_IO_READ, .nsid = 1, .cdw12 = 15 };
    uint64_t *list = driver_ram(&driver, DRIVER_LIST);

    sqe.prp1 = DRIVER_DATA + 0x800; /* 8 KiB from the middle of a page: three pages */
    sqe.prp2 = DRIVER_LIST + 8;
    list[1] = DRIVER_DATA + 0x1000;
    list[2] = DRIVER_DATA + 0x2000;
    cr_assert_eq(driver_execute(&driver, 1, sqe), NVME_OK);
    for (unsigned i = 0; i < 8192; i++)
        cr_assert_eq(data()[0x800 + i], fake_disk_pattern(i));
    /* The list's first entry is its page's last: it leads to the next list. */
    sqe.prp2 = DRIVER_LIST + 0xff8;
    list[511] = DRIVER_LIST + 0x1000;
    list[512] = DRIVER_DATA + 0x5000;
    list[513] = DRIVER_DATA + 0x4000;
    cr_assert_eq(driver_execute(&driver, 1, sqe), NVME_OK);
    cr_assert_eq(data()[0x5000], fake_disk_pattern(0x800));
    cr_assert_eq(data()[0x4000], fake_disk_pattern(0x1800));
    list[511] = DRIVER_LIST + 0xff8; /* to itself */
    cr_assert_eq(driver_execute(&driver, 1, sqe), NVME_INVALID_PRP_OFFSET);
    list[511] = DRIVER_RAM; /* outside */
    cr_assert_eq(driver_execute(&driver, 1, sqe), NVME_DATA_TRANSFER_ERROR);
    sqe.prp2 = DRIVER_RAM;
    cr_assert_eq(driver_execute(&driver, 1, sqe), NVME_DATA_TRANSFER_ERROR);
    sqe.prp1 = DRIVER_DATA + 2;
    cr_assert_eq(driver_execute(&driver, 1, sqe), NVME_INVALID_PRP_OFFSET);
    sqe.prp1 = DRIVER_BAR; /* not memory */
    cr_assert_eq(driver_execute(&driver, 1, sqe), NVME_DATA_TRANSFER_ERROR);
    sqe.prp1 = ~0xfffull;
    cr_assert_eq(driver_execute(&driver, 1, sqe), NVME_DATA_TRANSFER_ERROR);
}

Test(nvme_io, sgl_forms)
{
    struct nvme_sqe sqe = { .opcode = NVME_IO_READ, .flags = 1 << 6, .nsid = 1, .cdw12 = 3 };
    struct nvme_sgl *list = driver_ram(&driver, DRIVER_LIST);

    sqe.prp1 = DRIVER_DATA + 1;
    sqe.prp2 = 2048;
    cr_assert_eq(driver_execute(&driver, 1, sqe), NVME_OK);
    cr_assert_eq(data()[1], fake_disk_pattern(0));
    sqe.prp2 = 2047;
    cr_assert_eq(driver_execute(&driver, 1, sqe), NVME_SGL_INVALID_LENGTH);
    sqe.prp2 = 2049;
    cr_assert_eq(driver_execute(&driver, 1, sqe), NVME_SGL_INVALID_LENGTH);
    sqe.prp2 = 2048 | 1ull << 60; /* bit bucket */
    cr_assert_eq(driver_execute(&driver, 1, sqe), NVME_SGL_INVALID_TYPE);
    /* A segment that leads to a last one. */
    list[0] = (struct nvme_sgl){ DRIVER_DATA, 100, { 0 }, 0 };
    list[1] = (struct nvme_sgl){ DRIVER_LIST + 0x100, 32, { 0 }, NVME_SGL_LAST_SEGMENT << 4 };
    list[16] = (struct nvme_sgl){ DRIVER_DATA + 0x1000, 1000, { 0 }, 0 };
    list[17] = (struct nvme_sgl){ DRIVER_DATA + 0x3000, 948, { 0 }, 0 };
    sqe.prp1 = DRIVER_LIST;
    sqe.prp2 = 32 | (uint64_t)NVME_SGL_SEGMENT << 60;
    cr_assert_eq(driver_execute(&driver, 1, sqe), NVME_OK);
    cr_assert_eq(data()[0x1000], fake_disk_pattern(100));
    cr_assert_eq(data()[0x3000 + 947], fake_disk_pattern(2047));
    sqe.prp2 = 31 | (uint64_t)NVME_SGL_SEGMENT << 60;
    cr_assert_eq(driver_execute(&driver, 1, sqe), NVME_SGL_INVALID_SEGMENT);
    /* A loop of segments without data. */
    list[0] = (struct nvme_sgl){ DRIVER_LIST, 16, { 0 }, NVME_SGL_SEGMENT << 4 };
    sqe.prp2 = 16 | (uint64_t)NVME_SGL_SEGMENT << 60;
    cr_assert_eq(driver_execute(&driver, 1, sqe), NVME_SGL_INVALID_COUNT);
}

Test(nvme_io, large_blocks)
{
    driver_destroy(&driver);
    driver_init(&driver, "drive=d,serial=S1,logical_block_size=4096");
    driver_start(&driver, true);
    driver_create_queues(&driver, 1, 16);
    cr_assert_eq(driver_io(&driver, NVME_IO_READ, 5, 3), NVME_OK);
    check_pattern(5 * 4096, 3 * 4096);
    cr_assert_eq(driver_io(&driver, NVME_IO_READ, DRIVER_DRIVE / 4096, 1), NVME_LBA_OUT_OF_RANGE);
}

/* ---- Interrupts, full queues ---- */

Test(nvme_io, msix_per_queue)
{
    unsigned before = driver.messages[1];

    driver_create_queues(&driver, 2, 8);
    cr_assert_eq(driver_io(&driver, NVME_IO_READ, 0, 1), NVME_OK);
    cr_assert_eq(driver.messages[1], before + 1);
    cr_assert_eq(driver.messages[2], 0);
    cr_assert_not(driver.pirq);
}

Test(nvme_io, coalescing)
{
    unsigned before = driver.messages[1];

    cr_assert_eq(admin(NVME_ADMIN_SET_FEATURES, NVME_FEATURE_COALESCING, 2 | 10 << 8), NVME_OK); /* three, or 1 ms */
    driver_io(&driver, NVME_IO_READ, 0, 1);
    driver_io(&driver, NVME_IO_READ, 0, 1);
    cr_assert_eq(driver.messages[1], before);
    fake_time_advance(1000000);
    cr_assert_eq(driver.messages[1], before + 1);
    for (unsigned i = 0; i < 3; i++)
        driver_io(&driver, NVME_IO_READ, 0, 1);
    cr_assert_eq(driver.messages[1], before + 2);
    cr_assert_eq(admin(NVME_ADMIN_SET_FEATURES, NVME_FEATURE_VECTOR, 1 | 1 << 16), NVME_OK);
    driver_io(&driver, NVME_IO_READ, 0, 1);
    cr_assert_eq(driver.messages[1], before + 3, "not this vector");
}

Test(nvme, intx)
{
    driver_start(&driver, false);
    driver_submit(&driver, 0, (struct nvme_sqe){ .opcode = NVME_ADMIN_ABORT });
    driver_poll(&driver);
    cr_assert(driver.pirq);
    driver_write(&driver, NVME_REG_INTMS, 1);
    cr_assert_not(driver.pirq);
    cr_assert_eq(driver_read(&driver, NVME_REG_INTMS), 1);
    driver_write(&driver, NVME_REG_INTMC, 1);
    cr_assert(driver.pirq);
    cr_assert(driver_reap(&driver, 0));
    cr_assert_not(driver.pirq);
}

/* More commands than the completion queue has places: none is lost, none is posted too early. */
Test(nvme_io, completion_queue_full)
{
    unsigned done = 0;

    driver_create_queues(&driver, 2, 4);
    /* A second submission queue with the same completion queue. */
    cr_assert_eq(driver_execute(&driver, 0,
                                (struct nvme_sqe){ .opcode = NVME_ADMIN_CREATE_SQ,
                                                   .prp1 = DRIVER_SQ(3),
                                                   .cdw10 = 3 | 15 << 16,
                                                   .cdw11 = 1 | 2 << 16 }),
                 NVME_OK);
    driver.queues[3] = (struct driver_queue){ .entries = 16, .phase = true };
    for (unsigned i = 0; i < 15; i++)
        driver_submit(&driver, 3, (struct nvme_sqe){ .opcode = NVME_IO_FLUSH, .nsid = 1 });
    driver_poll(&driver);
    cr_assert_eq(fake_disk_pending(driver.disk), 3);
    fake_disk_run(driver.disk);
    driver_poll(&driver);
    cr_assert_eq(fake_disk_pending(driver.disk), 0, "no place for their completions");
    while (driver_reap(&driver, 2)) {
        done++;
        driver_poll(&driver);
        fake_disk_run(driver.disk);
    }
    cr_assert_eq(done, 15);
}

/* ---- Deleting queues, reset, shutdown ---- */

Test(nvme_io, deleting_a_busy_queue_waits)
{
    driver_submit(&driver, 1, (struct nvme_sqe){ .opcode = NVME_IO_READ, .nsid = 1, .prp1 = DRIVER_DATA });
    driver_submit(&driver, 1, (struct nvme_sqe){ .opcode = NVME_IO_READ, .nsid = 1, .prp1 = DRIVER_DATA + 4096 });
    driver_poll(&driver);
    driver_submit(&driver, 0, (struct nvme_sqe){ .opcode = NVME_ADMIN_DELETE_SQ, .cdw10 = 1 });
    driver_poll(&driver);
    fake_disk_run_one(driver.disk, 1);
    cr_assert_not(driver_reap(&driver, 0));
    fake_disk_run_one(driver.disk, 0);
    cr_assert(driver_reap(&driver, 0));
    cr_assert_eq(driver.last.status >> 1, NVME_OK);
    cr_assert(driver_reap(&driver, 1));
    cr_assert(driver_reap(&driver, 1));
    cr_assert_eq(admin(NVME_ADMIN_DELETE_CQ, 1, 0), NVME_OK);
}

Test(nvme_io, reset_waits_for_the_drive)
{
    driver_submit(&driver, 1, (struct nvme_sqe){ .opcode = NVME_IO_READ, .nsid = 1, .prp1 = DRIVER_DATA });
    driver_submit(&driver, 1, (struct nvme_sqe){ .opcode = NVME_IO_VERIFY, .nsid = 1, .cdw12 = 1999 });
    driver_poll(&driver);
    driver_submit(&driver, 0, (struct nvme_sqe){ .opcode = NVME_ADMIN_DELETE_SQ, .cdw10 = 1 });
    driver_poll(&driver);
    driver_write(&driver, NVME_REG_CC, 0);
    cr_assert_eq(driver_read(&driver, NVME_REG_CSTS), NVME_CSTS_READY);
    fake_disk_run_one(driver.disk, 0);
    cr_assert_eq(driver_read(&driver, NVME_REG_CSTS), NVME_CSTS_READY);
    fake_disk_run_one(driver.disk, 0);
    cr_assert_eq(driver_read(&driver, NVME_REG_CSTS), 0);
    cr_assert_eq(fake_disk_pending(driver.disk), 0, "the second does not go on");
    cr_assert_not(driver_reap(&driver, 1));
    driver_start(&driver, true);
    driver_create_queues(&driver, 1, 16);
    cr_assert_eq(driver_io(&driver, NVME_IO_READ, 0, 1), NVME_OK);
}

Test(nvme_io, shutdown_flushes)
{
    driver_io(&driver, NVME_IO_WRITE, 0, 8);
    cr_assert_neq(driver.disk->unstable, 0);
    driver_write(&driver, NVME_REG_CC, driver_read(&driver, NVME_REG_CC) | 1 << NVME_CC_SHN_SHIFT);
    cr_assert_eq(driver_read(&driver, NVME_REG_CSTS), NVME_CSTS_READY | NVME_CSTS_SHUTDOWN_UNDER_WAY);
    fake_disk_run(driver.disk);
    cr_assert_eq(driver_read(&driver, NVME_REG_CSTS), NVME_CSTS_READY | NVME_CSTS_SHUTDOWN_COMPLETE);
    cr_assert_eq(driver.disk->unstable, 0);
    driver_write(&driver, NVME_REG_CC, 0);
    cr_assert_eq(driver_read(&driver, NVME_REG_CSTS), 0);
}

Test(nvme_io, machine_reset_with_commands_under_way)
{
    driver_submit(&driver, 1, (struct nvme_sqe){ .opcode = NVME_IO_READ, .nsid = 1, .prp1 = DRIVER_DATA });
    driver_poll(&driver);
    device_reset(&driver.nvme->pci.device);
    cr_assert_eq(fake_disk_pending(driver.disk), 0);
    driver_start(&driver, true);
    cr_assert_eq(driver_read(&driver, NVME_REG_CSTS), NVME_CSTS_READY);
}

Test(nvme_io, destroyed_with_commands_under_way)
{
    driver_submit(&driver, 1, (struct nvme_sqe){ .opcode = NVME_IO_READ, .nsid = 1, .prp1 = DRIVER_DATA });
    driver_submit(&driver, 1, (struct nvme_sqe){ .opcode = NVME_IO_FLUSH, .nsid = NVME_BROADCAST });
    driver_poll(&driver);
}

/* ---- Namespaces of their own ---- */

Test(nvme, namespace_devices)
{
    extern const struct device_type nvme_ns_type;
    struct option_list options;
    struct error err = { "" };
    struct fake_disk *second = fake_disk_add(&driver.blocks, "e", 64 * KIB);
    struct device *ns;

    cr_assert_eq(options_parse(&options, "drive=e,bus=n,nsid=5,uuid=00112233-4455-6677-8899-aabbccddeeff", NULL, &err),
                 0);
    ns = device_create(&driver.rig.env, &nvme_ns_type, "m", &options, &err);
    cr_assert_not_null(ns, "%s", err.text);
    options_free(&options);
    driver_start(&driver, true);
    driver_create_queues(&driver, 1, 16);
    cr_assert_eq(identify(NVME_CNS_ACTIVE_LIST, 1), NVME_OK);
    cr_assert_eq(*(uint32_t *)data(), 5);
    cr_assert_eq(identify(NVME_CNS_DESCRIPTORS, 5), NVME_OK);
    cr_assert_eq(data()[4], 0x00);
    cr_assert_eq(data()[5], 0x11);
    driver_submit(&driver, 1, (struct nvme_sqe){ .opcode = NVME_IO_FLUSH, .nsid = NVME_BROADCAST });
    driver_poll(&driver);
    fake_disk_run(driver.disk);
    fake_disk_run(second);
    cr_assert(driver_reap(&driver, 1));
    cr_assert_eq(second->flushes, 1);
    device_destroy(ns);
    cr_assert_eq(identify(NVME_CNS_ACTIVE_LIST, 1), NVME_OK);
    cr_assert_eq(*(uint32_t *)data(), 0);
}

/* ---- State ---- */

Test(nvme_io, state_round_trip)
{
    driver_create_queues(&driver, 2, 8);
    request_event();
    admin(NVME_ADMIN_SET_FEATURES, NVME_FEATURE_COALESCING, 0x1234);
    driver_io(&driver, NVME_IO_READ, 0, 8);
    driver_io(&driver, NVME_IO_READ, DRIVER_DRIVE, 8);
    rig_round_trip(&driver.nvme->pci.device, NULL);
}

/* A command that was under way is begun again, in the place that it had. */
Test(nvme_io, state_with_a_command_under_way)
{
    struct state_buffer buffer = { 0 };
    struct error err;
    uint16_t cid =
        driver_submit(&driver, 1, (struct nvme_sqe){ .opcode = NVME_IO_READ, .nsid = 1, .prp1 = DRIVER_DATA });
    const struct state_table *table = driver.nvme->pci.device.type->state;

    driver_poll(&driver);
    cr_assert_eq(state_save(&buffer, table, driver.nvme, &err), 0);
    device_reset(&driver.nvme->pci.device);
    memset(data(), 0, 512);
    cr_assert_eq(state_load(&buffer, table, driver.nvme, &err), 0, "%s", err.text);
    cr_assert_eq(fake_disk_pending(driver.disk), 1);
    fake_disk_run(driver.disk);
    check_pattern(0, 512);
    state_buffer_free(&buffer);
    cr_assert_eq(driver.messages[1], 1, "by the message that the table had");
    cr_assert(driver_reap(&driver, 1));
    cr_assert_eq(driver.last.cid, cid);
}

Test(nvme_io, garbage_state)
{
    for (uint64_t seed = 1; seed <= 20; seed++) {
        rig_load_garbage(&driver.nvme->pci.device, seed, 20);
        driver_poll(&driver);
        fake_disk_run(driver.disk);
    }
}
