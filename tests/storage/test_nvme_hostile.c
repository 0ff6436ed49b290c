/* Guests that program the NVMe controller at random: nothing may crash, hang, or leave commands that never end. Run beside
 * the address sanitizer. EIDOLON_SEED=N gives other seeds. */
#include "nvme_driver.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#define ROUNDS 300
#define STEPS  250

static struct driver driver;
static uint64_t seed;

static uint64_t pick(uint64_t below)
{
    return rig_random(&seed) % below;
}

/* Mostly in RAM and aligned, since everything else ends at once. */
static uint64_t random_address(void)
{
    switch (pick(10)) {
    case 0:
        return rig_random(&seed);
    case 1:
        return pick(DRIVER_RAM + 0x2000);
    case 2:
        return DRIVER_BAR + pick(0x2000);
    case 3:
        return DRIVER_LIST + pick(0x200) * 8;
    default:
        return DRIVER_DATA + pick(512) * 4096;
    }
}

static struct nvme_sqe random_command(bool admin)
{
    static const uint8_t admin_opcodes[] = { 0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 0x80 };
    static const uint8_t io_opcodes[] = { 0, 1, 2, 5, 8, 9, 12, 4 };
    struct nvme_sqe sqe = {
        .opcode = admin ? admin_opcodes[pick(sizeof(admin_opcodes))] : io_opcodes[pick(sizeof(io_opcodes))],
        .flags = pick(8) ? 0 : (uint8_t)rig_random(&seed),
        .nsid = pick(8) ? 1 : (uint32_t)rig_random(&seed),
        .prp1 = random_address(),
        .prp2 = random_address(),
        .cdw10 = pick(4) ? (uint32_t)pick(16) | (uint32_t)pick(20) << 16 : (uint32_t)rig_random(&seed),
        .cdw11 = pick(4) ? (uint32_t)pick(4) | (uint32_t)pick(5) << 16 : (uint32_t)rig_random(&seed),
        .cdw12 = pick(4) ? (uint32_t)pick(64) : (uint32_t)rig_random(&seed),
    };

    if (!admin && pick(4)) { /* a range that exists */
        sqe.cdw10 = (uint32_t)pick(2000);
        sqe.cdw11 = 0;
    }
    return sqe;
}

/* Lists that lead to data, to themselves, or nowhere. */
static void random_list(void)
{
    uint64_t *list = driver_ram(&driver, DRIVER_LIST);

    for (unsigned i = 0; i < 64; i++)
        list[pick(1024)] = pick(3) ? random_address() : pick(2) ? DRIVER_LIST + pick(0x200) * 16 : rig_random(&seed);
    for (unsigned i = 0; i < 8; i++) {
        struct nvme_sgl sgl = { random_address(), (uint32_t)pick(64) * 16, { 0 }, (uint8_t)(pick(4) << 4) };

        memcpy((uint8_t *)list + pick(0x200) * 16, &sgl, sizeof(sgl));
    }
}

static void put_command(void)
{
    unsigned n = (unsigned)pick(DRIVER_QUEUES);
    struct nvme_sqe sqe;

    if (n == 0 && pick(4))
        n = 1; /* most admin commands end what makes the others possible */
    sqe = random_command(n == 0);

    sqe.cid = (uint16_t)rig_random(&seed);
    memcpy(driver_ram(&driver, DRIVER_SQ(n) + pick(16) * 64), &sqe, sizeof(sqe));
    driver_write(&driver, NVME_REG_DOORBELLS + n * 8, pick(10) ? (uint32_t)pick(16) : (uint32_t)rig_random(&seed));
}

static void touch_register(void)
{
    static const uint16_t registers[] = { NVME_REG_INTMS, NVME_REG_INTMC, NVME_REG_CC,   NVME_REG_CSTS, NVME_REG_AQA,
                                          NVME_REG_ASQ,   NVME_REG_ACQ,   NVME_REG_NSSR, 0x3c,          0xe00 };
    unsigned reg = registers[pick(ARRAY_SIZE(registers))];
    uint64_t value = rig_random(&seed);

    if (reg == NVME_REG_CC && pick(3))
        value = (value & 0xc001) | 6 << NVME_CC_IOSQES_SHIFT | 4 << NVME_CC_IOCQES_SHIFT;
    if (pick(4))
        physmem_mmio_write(driver.rig.env.mem, DRIVER_BAR + reg, 4, value);
    else
        physmem_mmio_write(driver.rig.env.mem, DRIVER_BAR + pick(0x1300), 1u << pick(4), value);
    physmem_mmio_read(driver.rig.env.mem, DRIVER_BAR + pick(0x1300), 1u << pick(4));
}

static void step(void)
{
    switch (pick(16)) {
    case 0:
        if (!pick(10))
            touch_register();
        break;
    case 1:
        random_list();
        break;
    case 2:
        if (!pick(20))
            driver_write(&driver, NVME_REG_DOORBELLS + 4 + (unsigned)pick(DRIVER_QUEUES) * 8, (uint32_t)pick(17));
        break;
    case 3:
        driver_poll(&driver);
        for (unsigned n = 0; n < DRIVER_QUEUES; n++) {
            while (driver_reap(&driver, n))
                ;
        }
        break;
    case 4 ... 6:
        fake_disk_run_one(driver.disk, rig_random(&seed));
        break;
    case 7:
        fake_time_advance(pick(3000000));
        break;
    case 8:
        if (!pick(20))
            pci_device_config_write(&driver.nvme->pci, PCI_COMMAND, 2, PCI_COMMAND_MEMORY | (uint32_t)pick(2) << 2);
        else if (!pick(20))
            fake_disk_resize(driver.disk, pick(2048) * 512);
        else if (!pick(20))
            driver.disk->fail = -5;
        break;
    default:
        put_command();
        break;
    }
}

/* After whatever happened, a driver that starts afresh finds a working controller. */
static void recover(void)
{
    driver_write(&driver, NVME_REG_CC, 0);
    for (unsigned i = 0;
         i < 2000 && ((driver_read(&driver, NVME_REG_CSTS) & ~NVME_CSTS_SHUTDOWN) || fake_disk_pending(driver.disk));
         i++) {
        fake_disk_run_one(driver.disk, 0);
        driver_poll(&driver);
    }
    cr_assert_eq(driver_read(&driver, NVME_REG_CSTS) & ~NVME_CSTS_SHUTDOWN, 0, "a reset ends");
    driver.disk->fail = 0;
    fake_disk_resize(driver.disk, DRIVER_DRIVE);
    driver_start(&driver, pick(2));
    driver_create_queues(&driver, 1, 16);
    cr_assert_eq(driver_io(&driver, NVME_IO_READ, 3, 40), NVME_OK);
}

static void attack(uint64_t start)
{
    driver_init(&driver, "drive=d,serial=S1,max_ioqpairs=4,msix_qsize=5");
    for (unsigned round = 0; round < ROUNDS; round++) {
        seed = start * 1000 + round;
        driver_start(&driver, pick(2));
        for (unsigned n = 1; n < DRIVER_QUEUES; n++)
            driver_create_queues(&driver, n, 16);
        for (unsigned i = 0; i < STEPS; i++)
            step();
        recover();
        if (pick(2))
            device_reset(&driver.nvme->pci.device);
        else
            driver_write(&driver, NVME_REG_CC, 0);
    }
    cr_assert_gt(driver.disk->submitted, ROUNDS * 20, "most of it never came to the drive");
    driver_destroy(&driver);
}

Test(nvme_hostile, seeds)
{
    const char *text = getenv("EIDOLON_SEED");

    for (uint64_t i = 0; i < 4; i++)
        attack((text ? strtoull(text, NULL, 0) : 1) + i);
}

/* In the middle of things the machine is reset, saved and loaded, or goes away. */
Test(nvme_hostile, abrupt_ends)
{
    for (uint64_t start = 1; start <= 40; start++) {
        struct state_buffer buffer = { 0 };
        struct error err;

        seed = start;
        driver_init(&driver, "drive=d,serial=S1,max_ioqpairs=4,msix_qsize=5");
        driver_start(&driver, start & 1);
        for (unsigned n = 1; n < DRIVER_QUEUES; n++)
            driver_create_queues(&driver, n, 16);
        for (unsigned i = 0; i < 300; i++)
            step();
        cr_assert_eq(state_save(&buffer, driver.nvme->pci.device.type->state, driver.nvme, &err), 0);
        for (unsigned i = 0; i < 50; i++)
            step();
        cr_assert_eq(state_load(&buffer, driver.nvme->pci.device.type->state, driver.nvme, &err), 0);
        for (unsigned i = 0; i < 200; i++)
            step();
        state_buffer_free(&buffer);
        driver_destroy(&driver);
        fake_loop_restart();
    }
}
