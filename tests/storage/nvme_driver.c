/* See nvme_driver.h. */
#include "nvme_driver.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

extern const struct device_type nvme_type;

static void on_pirq(void *opaque, unsigned n, bool level)
{
    (void)n;
    ((struct driver *)opaque)->pirq = level;
}

static unsigned map_pirq(void *opaque, uint8_t devfn, unsigned pin)
{
    (void)opaque, (void)devfn, (void)pin;
    return 0;
}

static void on_msi(void *opaque, uint64_t address, uint32_t data)
{
    struct driver *driver = opaque;

    cr_assert_eq(address, 0xfee00000);
    cr_assert_lt(data, 2048);
    driver->messages[data]++;
}

static const struct pci_bus_ops bus_ops = { .pirq_set = on_pirq, .pirq_map = map_pirq, .msi = on_msi };

void driver_init(struct driver *driver, const char *text)
{
    struct option_list options;
    struct error err = { "" };

    memset(driver, 0, sizeof(*driver));
    rig_init(&driver->rig);
    physmem_destroy(driver->rig.env.mem);
    driver->rig.env.mem = physmem_create(DRIVER_RAM, event_loop_mutex(driver->rig.env.loop), &err);
    cr_assert_not_null(physmem_add_ram(driver->rig.env.mem, 0, DRIVER_RAM, 0, "ram", &err));
    driver->rig.env.pci_bus = pci_bus_create(&driver->rig.env, &bus_ops, driver);
    driver->disk = fake_disk_add(&driver->blocks, "d", DRIVER_DRIVE);
    driver->rig.env.blocks = driver->blocks;
    cr_assert_eq(options_parse(&options, text, NULL, &err), 0);
    driver->nvme = (struct nvme *)device_create(&driver->rig.env, &nvme_type, "n", &options, &err);
    cr_assert_not_null(driver->nvme, "%s", err.text);
    cr_assert_eq(options_check_all_used(&options, "nvme", &err), 0, "%s", err.text);
    options_free(&options);
}

void driver_destroy(struct driver *driver)
{
    device_destroy(&driver->nvme->pci.device);
    fake_disk_free(driver->blocks);
    pci_bus_destroy(driver->rig.env.pci_bus);
    rig_destroy(&driver->rig);
}

uint32_t driver_read(struct driver *driver, unsigned reg)
{
    return (uint32_t)physmem_mmio_read(driver->rig.env.mem, DRIVER_BAR + reg, 4);
}

uint64_t driver_read64(struct driver *driver, unsigned reg)
{
    return physmem_mmio_read(driver->rig.env.mem, DRIVER_BAR + reg, 8);
}

void driver_write(struct driver *driver, unsigned reg, uint32_t value)
{
    physmem_mmio_write(driver->rig.env.mem, DRIVER_BAR + reg, 4, value);
}

void *driver_ram(struct driver *driver, gpa_t gpa)
{
    return physmem_ram_base(driver->rig.env.mem) + gpa;
}

static void enable_msix(struct driver *driver)
{
    struct pci_device *pci = &driver->nvme->pci;

    for (unsigned i = 0; i < pci->msix.count; i++) {
        const uint32_t entry[4] = { 0xfee00000, 0, i, 0 };

        for (unsigned j = 0; j < 4; j++)
            physmem_mmio_write(driver->rig.env.mem, DRIVER_MSIX + i * 16 + j * 4, 4, entry[j]);
    }
    pci_device_config_write(pci, pci->msix.capability + 2, 2, 0x8000);
}

void driver_start(struct driver *driver, bool msix)
{
    struct pci_device *pci = &driver->nvme->pci;

    pci_device_config_write(pci, PCI_BAR0, 4, (uint32_t)DRIVER_BAR);
    pci_device_config_write(pci, PCI_BAR0 + 4, 4, 0);
    pci_device_config_write(pci, PCI_BAR0 + 16, 4, (uint32_t)DRIVER_MSIX);
    pci_device_config_write(pci, PCI_COMMAND, 2, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
    if (msix)
        enable_msix(driver);
    memset(driver->queues, 0, sizeof(driver->queues));
    memset(driver_ram(driver, DRIVER_SQ(0)), 0, 0x30000);
    driver->queues[0] = (struct driver_queue){ .entries = 16, .phase = true };
    driver_write(driver, NVME_REG_AQA, 15 << 16 | 15);
    driver_write(driver, NVME_REG_ASQ, (uint32_t)DRIVER_SQ(0));
    driver_write(driver, NVME_REG_ASQ + 4, 0);
    driver_write(driver, NVME_REG_ACQ, (uint32_t)DRIVER_CQ(0));
    driver_write(driver, NVME_REG_ACQ + 4, 0);
    driver_write(driver, NVME_REG_CC, NVME_CC_ENABLE | 6 << NVME_CC_IOSQES_SHIFT | 4 << NVME_CC_IOCQES_SHIFT);
    cr_assert_eq(driver_read(driver, NVME_REG_CSTS), NVME_CSTS_READY);
}

void driver_create_queues(struct driver *driver, unsigned n, uint32_t entries)
{
    struct nvme_sqe cq = { .opcode = NVME_ADMIN_CREATE_CQ, .prp1 = DRIVER_CQ(n), .cdw10 = n | (entries - 1) << 16 };
    struct nvme_sqe sq = { .opcode = NVME_ADMIN_CREATE_SQ, .prp1 = DRIVER_SQ(n), .cdw10 = n | (entries - 1) << 16 };

    memset(driver_ram(driver, DRIVER_CQ(n)), 0, 0x1000);
    cq.cdw11 = 3 | (pci_msix_enabled(&driver->nvme->pci) ? n : 0) << 16;
    sq.cdw11 = 1 | n << 16;
    cr_assert_eq(driver_execute(driver, 0, cq), NVME_OK);
    cr_assert_eq(driver_execute(driver, 0, sq), NVME_OK);
    driver->queues[n] = (struct driver_queue){ .entries = entries, .phase = true };
}

uint16_t driver_submit(struct driver *driver, unsigned n, struct nvme_sqe sqe)
{
    struct driver_queue *queue = &driver->queues[n];

    sqe.cid = driver->next_cid++;
    memcpy(driver_ram(driver, DRIVER_SQ(n) + queue->tail * sizeof(sqe)), &sqe, sizeof(sqe));
    queue->tail = (queue->tail + 1) % queue->entries;
    driver_write(driver, NVME_REG_DOORBELLS + n * 8, queue->tail);
    return sqe.cid;
}

void driver_poll(struct driver *driver)
{
    (void)driver;
    while (fake_loop_poll(0))
        ;
}

bool driver_reap(struct driver *driver, unsigned n)
{
    struct driver_queue *queue = &driver->queues[n];
    struct nvme_cqe entry;

    if (!queue->entries)
        return false;
    memcpy(&entry, driver_ram(driver, DRIVER_CQ(n) + queue->head * sizeof(entry)), sizeof(entry));
    if ((entry.status & 1) != queue->phase)
        return false;
    driver->last = entry;
    if (++queue->head == queue->entries) {
        queue->head = 0;
        queue->phase = !queue->phase;
    }
    driver_write(driver, NVME_REG_DOORBELLS + n * 8 + 4, queue->head);
    return true;
}

unsigned driver_execute(struct driver *driver, unsigned n, struct nvme_sqe sqe)
{
    uint16_t cid = driver_submit(driver, n, sqe);

    for (unsigned i = 0; i < DRIVER_PATIENCE; i++) {
        driver_poll(driver);
        if (driver_reap(driver, n)) {
            cr_assert_eq(driver->last.cid, cid);
            cr_assert_eq(driver->last.sq_id, n);
            return driver->last.status >> 1 & 0x7ff;
        }
        fake_disk_run_one(driver->disk, 0);
    }
    cr_assert_fail("command 0x%02x in queue %u never ends", sqe.opcode, n);
    return 0;
}

unsigned driver_io(struct driver *driver, unsigned opcode, uint64_t lba, unsigned blocks)
{
    uint64_t size = (uint64_t)blocks << driver->nvme->own->block_shift, *list = driver_ram(driver, DRIVER_LIST);
    struct nvme_sqe sqe = {
        .opcode = (uint8_t)opcode,
        .nsid = 1,
        .prp1 = DRIVER_DATA,
        .prp2 = size > 8192   ? DRIVER_LIST
                : size > 4096 ? DRIVER_DATA + 4096
                              : 0,
        .cdw10 = (uint32_t)lba,
        .cdw11 = (uint32_t)(lba >> 32),
        .cdw12 = blocks - 1,
    };

    for (uint64_t i = 0; i < 511 && i * 4096 + 4096 < size; i++)
        list[i] = DRIVER_DATA + 4096 + i * 4096;
    return driver_execute(driver, 1, sqe);
}
