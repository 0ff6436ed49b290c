/* The AHCI controller, driven as a driver would: command lists in memory, NCQ, errors, resets, hostile lists. */
#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>

#include "ata_rig.h"

#define ABAR   0xfebf0000ull
#define LIST   0x10000ull /* port n: + n * 0x1000 */
#define FIS    0x20000ull
#define TABLE  0x30000ull /* slot n: + n * 0x1000 */
#define BUFFER 0x100000ull

enum {
    CLB = 0,
    FB = 8,
    IS = 0x10,
    IE = 0x14,
    CMD = 0x18,
    TFD = 0x20,
    SIG = 0x24,
    SSTS = 0x28,
    SCTL = 0x2c,
    SERR = 0x30,
    SACT = 0x34,
    CI = 0x38
};
enum { DHRS = 1 << 0, PSS = 1 << 1, SDBS = 1 << 3, PCS = 1 << 6, OFS = 1 << 24, HBFS = 1 << 29, TFES = 1 << 30 };

static struct ata_rig rig;

static uint32_t get(unsigned reg)
{
    return (uint32_t)physmem_mmio_read(rig.env.mem, ABAR + reg, 4);
}
static void put(unsigned reg, uint32_t value)
{
    physmem_mmio_write(rig.env.mem, ABAR + reg, 4, value);
}
static uint32_t port_get(unsigned port, unsigned reg)
{
    return get(0x100 + 0x80 * port + reg);
}
static void port_put(unsigned port, unsigned reg, uint32_t value)
{
    put(0x100 + 0x80 * port + reg, value);
}

static void start_port(unsigned port)
{
    port_put(port, CLB, (uint32_t)(LIST + port * 0x1000));
    port_put(port, FB, (uint32_t)(FIS + port * 0x1000));
    port_put(port, SERR, ~0u);
    port_put(port, IS, ~0u);
    port_put(port, IE, ~0u);
    port_put(port, CMD, 1 << 4);
    port_put(port, CMD, 1 << 4 | 1);
}

static void setup(void)
{
    struct pci_device *pci;

    ata_rig_init(&rig);
    ata_rig_add(&rig, "ahci,addr=1f.2");
    ata_rig_add(&rig, "ide-hd,drive=disk,bus=ide.0");
    ata_rig_add(&rig, "ide-cd,drive=cd,bus=ide.2");
    pci = ata_rig_pci(&rig, 0);
    pci_device_config_write(pci, PCI_BAR0 + 20, 4, ABAR);
    pci_device_config_write(pci, PCI_COMMAND, 2, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
    put(4, 1u << 31 | 2);
}

static void teardown(void)
{
    ata_rig_destroy(&rig);
}

static void prd(unsigned slot, unsigned index, uint64_t address, uint32_t size)
{
    gpa_t at = TABLE + slot * 0x1000 + 0x80 + 16 * index;

    ram_write32(&rig, at, (uint32_t)address);
    ram_write32(&rig, at + 4, (uint32_t)(address >> 32));
    ram_write32(&rig, at + 12, size - 1);
}

/* Fills a slot; the caller sets PxCI. count: as the register takes it; for NCQ it goes to the feature register. */
static void prepare(unsigned port, unsigned slot, uint8_t opcode, uint64_t lba, unsigned count, unsigned prds)
{
    bool queued = opcode == 0x60 || opcode == 0x61;
    unsigned feature = queued ? count : 0, sectors = queued ? slot << 3 : count;
    uint8_t fis[20] = { 0x27,
                        0x80,
                        opcode,
                        (uint8_t)feature,
                        (uint8_t)lba,
                        (uint8_t)(lba >> 8),
                        (uint8_t)(lba >> 16),
                        0x40,
                        (uint8_t)(lba >> 24),
                        (uint8_t)(lba >> 32),
                        (uint8_t)(lba >> 40),
                        (uint8_t)(feature >> 8),
                        (uint8_t)sectors,
                        (uint8_t)(sectors >> 8) };
    gpa_t header = LIST + port * 0x1000 + slot * 32;

    ram_fill(&rig, TABLE + slot * 0x1000, 0, 0x80);
    ram_write(&rig, TABLE + slot * 0x1000, fis, sizeof(fis));
    ram_write32(&rig, header, 5 | prds << 16);
    ram_write32(&rig, header + 4, 0);
    ram_write32(&rig, header + 8, (uint32_t)(TABLE + slot * 0x1000));
    ram_write32(&rig, header + 12, 0);
}

static void prepare_packet(unsigned port, unsigned slot, const uint8_t *bytes, bool dma, unsigned prds)
{
    prepare(port, slot, 0xa0, 0xffff00, 0, prds);
    *ram(&rig, TABLE + slot * 0x1000 + 3) = dma;
    ram_write(&rig, TABLE + slot * 0x1000 + 0x40, bytes, 12);
}

static void issue(unsigned port, unsigned slot)
{
    port_put(port, CI, 1u << slot);
    fake_disk_run(rig.disk);
    fake_disk_run(rig.cd);
}

/* ---- */

TestSuite(ahci, .init = setup, .fini = teardown, .timeout = 20);

Test(ahci, registers)
{
    cr_assert_eq(get(0) & 0x40041f1f, 0x40041f05);
    cr_assert_eq(get(0xc), 0x3f);
    cr_assert_eq(get(0x10), 0x10300);
    cr_assert_eq(get(0x28), 0); /* BOHC */
    cr_assert_eq(port_get(0, SSTS), 0x113);
    cr_assert_eq(port_get(1, SSTS), 0);
    cr_assert_eq(port_get(0, SIG), 0x101);
    cr_assert_eq(port_get(2, SIG), 0xeb140101);
    cr_assert_eq(port_get(1, TFD), 0x7f);
    cr_assert_eq(port_get(0, TFD) & 0xff, 0x50);
    put(4, 0);
    cr_assert_eq(get(4), 1u << 31);
    start_port(0);
    cr_assert_eq(port_get(0, CMD) & 0xc011, 0xc011);
    cr_assert_eq(*ram(&rig, FIS + 0x40), 0x34); /* the signature came when it could */
    port_put(0, CMD, 0);
    cr_assert_eq(port_get(0, CMD), 6);
    port_put(1, CI, 1); /* not started, no drive */
    cr_assert_eq(port_get(1, CI), 0);
}

Test(ahci, identify_by_pio)
{
    start_port(0);
    prepare(0, 3, 0xec, 0, 0, 1);
    prd(3, 0, BUFFER, 512);
    issue(0, 3);
    cr_assert_eq(port_get(0, CI), 0);
    cr_assert_eq(port_get(0, IS), PSS);
    cr_assert_eq(get(8), 1);
    cr_assert(rig.pirq[0]);
    cr_assert_eq(*ram(&rig, FIS + 0x20), 0x5f);
    cr_assert_eq(*ram(&rig, FIS + 0x20 + 15), 0x50);
    cr_assert_eq(*ram(&rig, LIST + 3 * 32 + 5), 2);   /* PRDBC */
    cr_assert_eq(*ram(&rig, BUFFER + 76 * 2 + 1), 1); /* NCQ */
    cr_assert_eq(port_get(0, TFD), 0x50);
    port_put(0, IS, ~0u);
    cr_assert_not(rig.pirq[0]);
}

Test(ahci, dma)
{
    start_port(0);
    prepare(0, 0, 0x25, 33, 128, 3);
    prd(0, 0, BUFFER + 2, 0x3002);
    prd(0, 1, BUFFER + 0x10000, 0x2);
    prd(0, 2, BUFFER + 0x20000, 0x400000);
    issue(0, 0);
    cr_assert_eq(port_get(0, IS), DHRS);
    cr_assert_eq(rig.disk->submitted, 1); /* one request, in place */
    cr_assert(ram_has_pattern(&rig, BUFFER + 2, 33 * 512, 0x3002));
    cr_assert(ram_has_pattern(&rig, BUFFER + 0x10000, 33 * 512 + 0x3002, 2));
    cr_assert(ram_has_pattern(&rig, BUFFER + 0x20000, 33 * 512 + 0x3004, 0x10000 - 0x3004));
    cr_assert_eq(*ram(&rig, FIS + 0x40 + 2), 0x50);
    port_put(0, IS, ~0u);
    ram_fill(&rig, BUFFER, 0x77, 1024);
    prepare(0, 31, 0x35, 50, 2, 1);
    prd(31, 0, BUFFER, 1024);
    issue(0, 31);
    cr_assert_eq(rig.disk->data[51 * 512], 0x77);
    cr_assert_eq(rig.disk->data[52 * 512], fake_disk_pattern(52 * 512));
}

/* Several that are not queued at once: one after the other. */
Test(ahci, command_list_order)
{
    start_port(0);
    for (unsigned slot = 0; slot < 32; slot++) {
        prepare(0, slot, slot % 3 ? 0x25 : 0xec, slot, 1, 1);
        prd(slot, 0, BUFFER + slot * 512, 512);
    }
    port_put(0, CI, ~0u);
    cr_assert_eq(fake_disk_pending(rig.disk), 1);
    fake_disk_run(rig.disk);
    cr_assert_eq(port_get(0, CI), 0);
    for (unsigned slot = 0; slot < 32; slot++) {
        if (slot % 3)
            cr_assert(ram_has_pattern(&rig, BUFFER + slot * 512, slot * 512, 512), "slot %u", slot);
    }
}

static void queue_all(void)
{
    for (unsigned slot = 0; slot < 32; slot++) {
        prepare(0, slot, 0x60, slot * 16, 16, 1);
        prd(slot, 0, BUFFER + slot * 8192, 8192);
    }
    port_put(0, SACT, ~0u);
    port_put(0, CI, ~0u);
}

Test(ahci, ncq_in_any_order)
{
    uint64_t seed = 42;

    start_port(0);
    queue_all();
    cr_assert_eq(port_get(0, CI), 0);
    cr_assert_eq(port_get(0, SACT), ~0u);
    cr_assert_eq(fake_disk_pending(rig.disk), 32);
    for (unsigned left = 32; left; left--) {
        cr_assert_eq((unsigned)__builtin_popcount(port_get(0, SACT)), left);
        fake_disk_run_one(rig.disk, ata_random(&seed));
    }
    cr_assert_eq(port_get(0, SACT), 0);
    cr_assert_eq(port_get(0, IS), SDBS);
    cr_assert_eq(*ram(&rig, FIS + 0x58), 0xa1);
    cr_assert(ram_has_pattern(&rig, BUFFER, 0, 32 * 8192));
    prepare(0, 5, 0x61, 1000, 1, 1);
    *ram(&rig, TABLE + 5 * 0x1000 + 7) = 0xc0; /* FUA */
    prd(5, 0, BUFFER, 512);
    port_put(0, SACT, 1 << 5);
    issue(0, 5);
    cr_assert_eq(port_get(0, SACT), 0);
    cr_assert_eq(rig.disk->fua_writes, 1);
    cr_assert_eq(rig.disk->data[512000], fake_disk_pattern(0));
}

Test(ahci, ncq_error)
{
    start_port(0);
    queue_all();
    fake_disk_run_one(rig.disk, 0);
    rig.disk->fail = -EIO;
    fake_disk_run_one(rig.disk, 4); /* slot 5 */
    cr_assert(port_get(0, IS) & TFES);
    cr_assert_eq(port_get(0, TFD), 0x4051);
    cr_assert(port_get(0, SACT) >> 5 & 1);
    fake_disk_run_one(rig.disk, 0); /* others are no longer told of */
    cr_assert_eq(port_get(0, SACT), ~1u);
    port_put(0, CMD, 1 << 4);
    cr_assert(port_get(0, CMD) & 1 << 15); /* running until the last I/O has ended */
    cr_assert_eq(port_get(0, SACT), 0);
    fake_disk_run(rig.disk);
    cr_assert_not(port_get(0, CMD) & 1 << 15);
    port_put(0, IS, ~0u);
    port_put(0, CMD, 1 << 4 | 1);
    prepare(0, 0, 0x60, 0, 1, 1); /* refused until the log has been read */
    prd(0, 0, BUFFER, 512);
    port_put(0, SACT, 1);
    issue(0, 0);
    cr_assert(port_get(0, IS) & TFES);
    port_put(0, CMD, 1 << 4);
    port_put(0, IS, ~0u);
    port_put(0, CMD, 1 << 4 | 1);
    prepare(0, 0, 0x2f, 0x10, 1, 1);
    prd(0, 0, BUFFER, 512);
    issue(0, 0);
    cr_assert_eq(port_get(0, IS), PSS);
    cr_assert_eq(*ram(&rig, BUFFER), 5);
    cr_assert_eq(*ram(&rig, BUFFER + 3), 0x40);
    cr_assert_eq(*ram(&rig, BUFFER + 4), 5 * 16);
    queue_all();
    fake_disk_run(rig.disk);
    cr_assert_eq(port_get(0, SACT), 0);
}

Test(ahci, stop_in_mid_command)
{
    start_port(0);
    prepare(0, 0, 0x25, 0, 8, 1);
    prd(0, 0, BUFFER, 4096);
    port_put(0, CI, 1);
    port_put(0, CMD, 1 << 4);
    cr_assert_eq(port_get(0, CI), 0);
    cr_assert(port_get(0, CMD) & 1 << 15);
    port_put(0, CMD, 1 << 4 | 1); /* too early: begins when the old one is over */
    prepare(0, 1, 0x25, 8, 8, 1);
    prd(1, 0, BUFFER + 4096, 4096);
    port_put(0, CI, 2);
    cr_assert_eq(fake_disk_pending(rig.disk), 1);
    fake_disk_run(rig.disk);
    cr_assert_eq(port_get(0, CI), 0);
    cr_assert_eq(port_get(0, IS), DHRS);
    cr_assert(ram_has_pattern(&rig, BUFFER + 4096, 4096, 4096));
}

Test(ahci, comreset_in_mid_command)
{
    start_port(0);
    queue_all();
    port_put(0, SCTL, 0x301);
    cr_assert_eq(port_get(0, SSTS), 1);
    port_put(0, SCTL, 0x300);
    cr_assert_eq(port_get(0, SSTS), 1);
    cr_assert_eq(port_get(0, TFD) & 0x80, 0x80);
    fake_disk_run(rig.disk);
    cr_assert_eq(port_get(0, SSTS), 0x113);
    cr_assert_eq(port_get(0, TFD) & 0xff, 0x50);
    cr_assert_eq(port_get(0, SIG), 0x101);
    cr_assert(port_get(0, IS) & PCS);
    port_put(0, IS, ~0u);
    cr_assert(port_get(0, IS) & PCS);
    port_put(0, SERR, ~0u);
    cr_assert_eq(port_get(0, IS), 0);
}

Test(ahci, controller_reset)
{
    start_port(0);
    queue_all();
    put(4, 1u << 31 | 1);
    cr_assert_eq(get(4), 1u << 31 | 1);
    fake_disk_run(rig.disk);
    cr_assert_eq(get(4), 1u << 31);
    cr_assert_eq(port_get(0, SSTS), 0x113);
    cr_assert_eq(port_get(0, CMD), 6);
    put(4, 1u << 31 | 2);
    start_port(0);
    queue_all();
    fake_disk_run(rig.disk);
    cr_assert_eq(port_get(0, SACT), 0);
}

Test(ahci, software_reset)
{
    start_port(2);
    prepare(2, 0, 0, 0, 0, 0);
    *ram(&rig, TABLE + 1) = 0; /* a control FIS */
    *ram(&rig, TABLE + 15) = 4;
    issue(2, 0);
    cr_assert_eq(port_get(2, CI), 0);
    prepare(2, 1, 0, 0, 0, 0);
    *ram(&rig, TABLE + 0x1001) = 0;
    ram_fill(&rig, FIS + 0x2040, 0, 20);
    issue(2, 1);
    cr_assert_eq(*ram(&rig, FIS + 0x2040), 0x34);
    cr_assert_eq(*ram(&rig, FIS + 0x2040 + 6), 0xeb);
}

/* With queued commands under way: the signature comes when their I/O has ended. */
Test(ahci, software_reset_of_a_queue)
{
    start_port(0);
    prepare(0, 7, 0x60, 0, 16, 1);
    prd(7, 0, BUFFER, 8192);
    port_put(0, SACT, 1 << 7);
    port_put(0, CI, 1 << 7);
    cr_assert_eq(fake_disk_pending(rig.disk), 1);
    prepare(0, 0, 0, 0, 0, 0);
    *ram(&rig, TABLE + 1) = 0;
    *ram(&rig, TABLE + 15) = 4;
    port_put(0, CI, 1);
    prepare(0, 1, 0, 0, 0, 0);
    *ram(&rig, TABLE + 0x1001) = 0;
    ram_fill(&rig, FIS + 0x40, 0, 20);
    port_put(0, CI, 2);
    cr_assert_eq(port_get(0, CI), 2);
    fake_disk_run(rig.disk);
    cr_assert_eq(port_get(0, CI), 0);
    cr_assert_eq(*ram(&rig, FIS + 0x40), 0x34);
    cr_assert_eq(port_get(0, TFD), 0x150);
    cr_assert_eq(port_get(0, IS), 0); /* none of them was told of */
}

/* After a fatal error: what a driver does, and a command that must work then. */
static void recover(void)
{
    port_put(0, CMD, 1 << 4);
    fake_disk_run(rig.disk);
    cr_assert_not(port_get(0, CMD) & 1 << 15);
    port_put(0, IS, ~0u);
    port_put(0, CLB, LIST);
    port_put(0, CLB + 4, 0);
    port_put(0, CMD, 1 << 4 | 1);
    prepare(0, 9, 0x25, 4, 1, 1);
    prd(9, 0, BUFFER, 512);
    issue(0, 9);
    cr_assert_eq(port_get(0, IS), DHRS);
    cr_assert(ram_has_pattern(&rig, BUFFER, 2048, 512));
    port_put(0, IS, ~0u);
}

Test(ahci, hostile_lists)
{
    start_port(0);
    prepare(0, 0, 0x25, 0, 8, 1); /* PRDs too short */
    prd(0, 0, BUFFER, 1026);
    issue(0, 0);
    cr_assert_eq(port_get(0, IS), OFS);
    cr_assert_eq(port_get(0, CI), 1);
    recover();
    prepare(0, 0, 0x25, 0, 8, 0); /* none */
    issue(0, 0);
    cr_assert_eq(port_get(0, IS), OFS);
    recover();
    prepare(0, 0, 0x25, 0, 8, 2); /* into MMIO, behind a good one */
    prd(0, 0, BUFFER, 512);
    prd(0, 1, MMIO_BASE, 4096);
    issue(0, 0);
    cr_assert_eq(port_get(0, IS), HBFS);
    cr_assert_eq(rig.mmio_accesses, 0);
    recover();
    prepare(0, 0, 0x35, 0, 8, 1); /* out of RAM, and around the end of the address space */
    prd(0, 0, RAM_SIZE - 512, 4096);
    issue(0, 0);
    cr_assert_eq(port_get(0, IS), HBFS);
    recover();
    prepare(0, 0, 0x25, 0, 8, 1);
    prd(0, 0, ~0ull - 100, 4096);
    issue(0, 0);
    cr_assert_eq(port_get(0, IS), HBFS);
    recover();
    prepare(0, 0, 0x25, 0, 8, 1); /* the command table */
    ram_write32(&rig, LIST + 8, MMIO_BASE);
    issue(0, 0);
    cr_assert_eq(port_get(0, IS), HBFS);
    cr_assert_eq(rig.mmio_accesses, 0);
    recover();
    port_put(0, CMD, 1 << 4); /* the list itself */
    port_put(0, CLB, RAM_SIZE);
    port_put(0, CMD, 1 << 4 | 1);
    issue(0, 0);
    cr_assert_eq(port_get(0, IS), HBFS);
    recover();
    prepare(0, 0, 0x25, 0, 8, 1); /* not a command FIS */
    *ram(&rig, TABLE) = 0x46;
    issue(0, 0);
    cr_assert_eq(port_get(0, IS), HBFS);
    recover();
}

/* The largest transfer, in the smallest pieces: the table that a header can hold has an end. */
Test(ahci, huge_table)
{
    start_port(0);
    prepare(0, 0, 0x25, 0, 8192, 65535);
    ram_write32(&rig, LIST + 8, 0x200000);
    ram_write(&rig, 0x200000, ram(&rig, TABLE), 0x80);
    for (unsigned i = 0; i < 65535; i++) {
        ram_write32(&rig, 0x200080 + 16 * i, (uint32_t)(BUFFER + i * 2 % 4096));
        ram_write32(&rig, 0x200080 + 16 * i + 4, 0);
        ram_write32(&rig, 0x200080 + 16 * i + 12, 1);
    }
    issue(0, 0);
    cr_assert_eq(port_get(0, IS), OFS);
    recover();
}

Test(ahci, errors)
{
    start_port(0);
    prepare(0, 0, 0x25, 8192, 1, 1);
    prd(0, 0, BUFFER, 512);
    issue(0, 0);
    cr_assert_eq(port_get(0, IS), TFES | DHRS);
    cr_assert_eq(port_get(0, TFD), 0x1051);
    cr_assert_eq(port_get(0, CI), 1);
    recover();
    rig.disk->fail = -ENOSPC;
    prepare(0, 0, 0x35, 0, 1, 1);
    prd(0, 0, BUFFER, 512);
    issue(0, 0);
    cr_assert_eq(port_get(0, TFD), 0x0451);
    recover();
    prepare(0, 0, 0x60, 8190, 3, 1); /* queued, beyond the end */
    port_put(0, SACT, 1);
    issue(0, 0);
    cr_assert(port_get(0, IS) & TFES);
    cr_assert_eq(port_get(0, SACT), 1);
    port_put(0, CMD, 1 << 4);
    cr_assert_eq(port_get(0, SACT), 0);
}

/* A command that is not queued beside queued ones is the driver's mistake; the drive says so. */
Test(ahci, mixed)
{
    start_port(0);
    queue_all();
    fake_disk_run_one(rig.disk, 0);
    prepare(0, 0, 0x25, 0, 1, 1);
    port_put(0, CI, 1);
    cr_assert(port_get(0, IS) & TFES);
    cr_assert_eq(port_get(0, TFD) & 0xff, 0x51);
}

Test(ahci, cd)
{
    uint8_t inquiry[12] = { 0x12, [4] = 36 }, read[12] = { 0x28, [5] = 7, [8] = 4 }, ready[12] = { 0 };
    uint8_t raw[12] = { 0xbe, [5] = 1, [8] = 50, [9] = 0xf8 };

    start_port(2);
    prepare_packet(2, 0, inquiry, false, 1);
    prd(0, 0, BUFFER, 36);
    issue(2, 0);
    cr_assert_eq(port_get(2, IS), PSS | DHRS);
    cr_assert_eq(*ram(&rig, BUFFER), 5);
    cr_assert_eq(*ram(&rig, LIST + 0x2004), 36);
    port_put(2, IS, ~0u);
    prepare_packet(2, 0, read, true, 1);
    prd(0, 0, BUFFER, 8192);
    issue(2, 0);
    cr_assert_eq(port_get(2, IS), DHRS);
    cr_assert(ram_has_pattern(&rig, BUFFER, 7 * 2048, 8192));
    prepare_packet(2, 0, raw, true, 1);
    prd(0, 0, BUFFER, 50 * 2352);
    issue(2, 0);
    cr_assert_eq(port_get(2, CI), 0);
    for (unsigned i = 0; i < 50; i++)
        cr_assert(ram_has_pattern(&rig, BUFFER + i * 2352 + 16, (1 + i) * 2048, 2048));
    fake_disk_resize(rig.cd, 65536);
    port_put(2, IS, ~0u);
    prepare_packet(2, 0, ready, false, 0);
    issue(2, 0);
    cr_assert_eq(port_get(2, IS), TFES | DHRS);
    cr_assert_eq(port_get(2, TFD), 0x6451); /* unit attention */
}

Test(ahci, messages)
{
    struct pci_device *pci = ata_rig_pci(&rig, 0);

    pci_device_config_write(pci, pci->msi + 4u, 4, 0xfee00000);
    pci_device_config_write(pci, pci->msi + 2u, 2, 1);
    start_port(0);
    unsigned before = rig.messages;
    prepare(0, 0, 0x25, 0, 1, 1);
    prd(0, 0, BUFFER, 512);
    issue(0, 0);
    cr_assert_eq(rig.messages, before + 1);
    cr_assert_not(rig.pirq[0]);
    port_put(0, IS, ~0u);
    put(8, 1);
    cr_assert_eq(rig.messages, before + 1);
    put(4, 1u << 31); /* interrupts off */
    issue(0, 0);
    cr_assert_eq(rig.messages, before + 1);
    put(4, 1u << 31 | 2); /* and on: what is pending is told */
    cr_assert_eq(rig.messages, before + 2);
}

Test(ahci, index_data_pair)
{
    struct pci_device *pci = ata_rig_pci(&rig, 0);

    pci_device_config_write(pci, PCI_BAR0 + 16, 4, 0xc000);
    pci_device_config_write(pci, PCI_COMMAND, 2, PCI_COMMAND_IO | PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
    port_space_write(rig.env.ports, 0xc010, 4, 0x128);
    cr_assert_eq(port_space_read(rig.env.ports, 0xc014, 4), 0x113);
}

Test(ahci, without_bus_mastering)
{
    start_port(0);
    pci_device_config_write(ata_rig_pci(&rig, 0), PCI_COMMAND, 2, PCI_COMMAND_MEMORY);
    prepare(0, 0, 0x25, 0, 1, 1);
    issue(0, 0);
    cr_assert_eq(port_get(0, IS), HBFS);
}

Test(ahci, removal)
{
    start_port(0);
    queue_all();
    device_destroy(rig.devices[--rig.device_count]);
    device_destroy(rig.devices[--rig.device_count]);
    cr_assert_eq(port_get(0, SSTS), 0);
    cr_assert(port_get(0, IS) & PCS);
    cr_assert_not(rig.disk->claimed);
}

Test(ahci, state)
{
    start_port(0);
    queue_all(); /* saving waits for them */
    for (unsigned i = 0; i < rig.device_count; i++)
        ata_round_trip(rig.devices[i]);
    cr_assert(ram_has_pattern(&rig, BUFFER, 0, 32 * 8192));
    cr_assert_eq(port_get(0, SACT), 0);
    cr_assert_eq(port_get(0, IS), SDBS);
    cr_assert(rig.pirq[0]);
    port_put(0, IS, ~0u);
    prepare(0, 0, 0x25, 9, 1, 1);
    prd(0, 0, BUFFER, 512);
    issue(0, 0);
    cr_assert_eq(port_get(0, IS), DHRS);
    for (unsigned i = 0; i < rig.device_count; i++)
        ata_load_garbage(rig.devices[i], 5 + i, 200);
    fake_disk_run(rig.disk);
    for (unsigned i = 0; i < rig.device_count; i++)
        device_reset(rig.devices[i]);
}
