/* The PIIX3 IDE controller, driven by its ports as a driver would: PIO, DMA, errors, resets, CD-ROM packets by PIO and
 * DMA. */
#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>

#include "ata_rig.h"

#define BM        0xc000u
#define PRD_TABLE 0x1000ull
#define BUFFER    0x100000ull

static struct ata_rig rig;

static uint8_t in8(uint16_t port)
{
    return (uint8_t)port_space_read(rig.env.ports, port, 1);
}
static uint16_t in16(uint16_t port)
{
    return (uint16_t)port_space_read(rig.env.ports, port, 2);
}
static void out8(uint16_t port, uint8_t value)
{
    port_space_write(rig.env.ports, port, 1, value);
}
static void out16(uint16_t port, uint16_t value)
{
    port_space_write(rig.env.ports, port, 2, value);
}

static void setup(void)
{
    struct pci_device *pci;

    ata_rig_init(&rig);
    ata_rig_add(&rig, "piix3-ide,addr=1.1");
    ata_rig_add(&rig, "ide-hd,drive=disk,bus=ide.0,unit=0,serial=abc");
    ata_rig_add(&rig, "ide-hd,drive=disk2,bus=ide.0,unit=1");
    ata_rig_add(&rig, "ide-cd,drive=cd,bus=ide.1,unit=0");
    pci = ata_rig_pci(&rig, 0);
    pci_device_config_write(pci, PCI_BAR0 + 16, 4, BM);
    pci_device_config_write(pci, PCI_COMMAND, 2, PCI_COMMAND_IO | PCI_COMMAND_MASTER);
}

static void teardown(void)
{
    ata_rig_destroy(&rig);
}

/* Command with a 28-bit or (ext) 48-bit address. */
static void command(uint8_t opcode, uint64_t lba, unsigned count, bool ext)
{
    if (ext) {
        out8(0x1f2, (uint8_t)(count >> 8));
        for (unsigned i = 0; i < 3; i++)
            out8((uint16_t)(0x1f3 + i), (uint8_t)(lba >> (24 + 8 * i)));
    }
    out8(0x1f2, (uint8_t)count);
    for (unsigned i = 0; i < 3; i++)
        out8((uint16_t)(0x1f3 + i), (uint8_t)(lba >> 8 * i));
    out8(0x1f6, (uint8_t)(0xe0 | (ext ? 0 : lba >> 24 & 0xf)));
    out8(0x1f7, opcode);
}

static void finish(void)
{
    fake_disk_run(rig.disk);
    fake_disk_run(rig.disk2);
    fake_disk_run(rig.cd);
}

/* Reads one DRQ block; checks that there was an interrupt for it. */
static void read_block(uint16_t base, unsigned irq, uint16_t *words, unsigned count)
{
    finish();
    cr_assert(rig.isa[irq]);
    cr_assert_eq(in8((uint16_t)(base + 7)), 0x58);
    cr_assert_not(rig.isa[irq]);
    for (unsigned i = 0; i < count; i++)
        words[i] = in16(base);
}

static void prd(unsigned index, uint32_t address, uint32_t size, bool last)
{
    ram_write32(&rig, PRD_TABLE + 8 * index, address);
    ram_write32(&rig, PRD_TABLE + 8 * index + 4, (size & 0xffff) | (last ? 1u << 31 : 0));
}

static void start_dma(uint16_t bm, bool to_memory)
{
    port_space_write(rig.env.ports, (uint16_t)(bm + 4), 4, PRD_TABLE);
    out8((uint16_t)(bm + 2), 6);
    out8(bm, to_memory ? 9 : 1);
}

/* ---- */

TestSuite(ide, .init = setup, .fini = teardown, .timeout = 20);

Test(ide, signatures_and_absent_drives)
{
    cr_assert_eq(in8(0x1f7), 0x50);
    cr_assert_eq(in8(0x1f2), 1);
    cr_assert_eq(in8(0x1f4), 0);
    out8(0x176, 0xa0);
    cr_assert_eq(in8(0x174), 0x14);
    cr_assert_eq(in8(0x175), 0xeb);
    cr_assert_eq(in8(0x177), 0);
    out8(0x176, 0xb0); /* no such drive */
    cr_assert_eq(in8(0x177), 0);
    out8(0x177, 0xec);
    cr_assert_eq(in8(0x177), 0);
    cr_assert_not(rig.isa[15]);
}

Test(ide, identify)
{
    uint16_t words[256];
    uint8_t sum = 0;

    command(0xec, 0, 0, false);
    read_block(0x1f0, 14, words, 256);
    cr_assert_eq(in8(0x1f7), 0x50);
    cr_assert_not(rig.isa[14]);
    cr_assert_eq(words[60] | (uint32_t)words[61] << 16, DISK_SIZE / 512);
    cr_assert_eq(words[100], DISK_SIZE / 512);
    cr_assert_eq(words[10], 'a' << 8 | 'b');
    cr_assert_eq(words[27], 'Q' << 8 | 'E');
    cr_assert_eq(words[1], DISK_SIZE / 512 / (16 * 63));
    for (unsigned i = 0; i < 512; i++)
        sum = (uint8_t)(sum + ((uint8_t *)words)[i]);
    cr_assert_eq(sum, 0);
}

static void check_pio_read(uint8_t opcode, unsigned lba, unsigned count, unsigned unit, bool ext)
{
    static uint16_t words[16 * 256];

    command(opcode, lba, count, ext);
    for (unsigned done = 0; done < count; done += unit) {
        unsigned part = MIN(unit, count - done);

        read_block(0x1f0, 14, words, part * 256);
        for (unsigned i = 0; i < part * 512; i++)
            cr_assert_eq(((uint8_t *)words)[i], fake_disk_pattern((lba + done) * 512ull + i), "byte %u", i);
    }
    cr_assert_eq(in8(0x3f6), 0x50);
    cr_assert_not(rig.isa[14]);
}

Test(ide, pio_reads)
{
    check_pio_read(0x20, 5, 3, 1, false);
    check_pio_read(0x24, 100, 300, 1, true); /* more than the buffer holds */
    command(0xc6, 0, 8, false);
    cr_assert_eq(in8(0x1f7), 0x50);
    check_pio_read(0xc4, 77, 20, 8, false);
    check_pio_read(0x29, 8, 16, 8, true);
    cr_assert_eq(DISK_SIZE / 512, 8192);
    check_pio_read(0x20, 8191, 1, 1, false);
    check_pio_read(0x20, 0, 0 + 256, 1, false);
}

Test(ide, chs)
{
    uint16_t words[256];

    out8(0x1f2, 1);
    out8(0x1f3, 3); /* sector 3 */
    out8(0x1f4, 2); /* cylinder 2 */
    out8(0x1f5, 0);
    out8(0x1f6, 0xa5); /* head 5 */
    out8(0x1f7, 0x20);
    read_block(0x1f0, 14, words, 256);
    cr_assert_eq((uint8_t)words[0], fake_disk_pattern(((2 * 16 + 5) * 63 + 2) * 512ull));
    out8(0x1f3, 0); /* there is no sector 0 */
    out8(0x1f6, 0xa5);
    out8(0x1f7, 0x20);
    cr_assert_eq(in8(0x1f7), 0x51);
    cr_assert_eq(in8(0x1f1), 0x10);
}

Test(ide, pio_writes)
{
    command(0x30, 7, 2, false);
    cr_assert_not(rig.isa[14]); /* none for the first block */
    for (unsigned sector = 0; sector < 2; sector++) {
        cr_assert_eq(in8(0x1f7), 0x58);
        for (unsigned i = 0; i < 256; i++)
            out16(0x1f0, (uint16_t)(0xa000 + sector * 256 + i));
        cr_assert_eq(in8(0x3f6), 0x80);
        finish();
        cr_assert(rig.isa[14]);
    }
    cr_assert_eq(in8(0x1f7), 0x50);
    for (unsigned i = 0; i < 512; i++)
        cr_assert_eq(((uint16_t *)(rig.disk->data + 7 * 512))[i], 0xa000 + i);
    cr_assert_eq(rig.disk->data[9 * 512], fake_disk_pattern(9 * 512));
}

Test(ide, dma_read)
{
    prd(0, BUFFER, 0x200, false);
    prd(1, BUFFER + 0x1000, 0x402, false);
    prd(2, BUFFER + 0x1402, 0x1fe, true);
    command(0xc8, 10, 4, false);
    cr_assert_eq(rig.disk->submitted, 0); /* waits for the bus master */
    start_dma(BM, true);
    cr_assert_eq(rig.disk->submitted, 1);
    cr_assert_eq(in8(BM + 2) & 5, 1);
    finish();
    cr_assert(rig.isa[14]);
    cr_assert_eq(in8(BM + 2) & 7, 4);
    cr_assert_eq(in8(0x1f7), 0x50);
    cr_assert(ram_has_pattern(&rig, BUFFER, 5120, 512));
    cr_assert(ram_has_pattern(&rig, BUFFER + 0x1000, 5120 + 512, 0x600));
    out8(BM, 0);
    out8(BM + 2, 4);
    cr_assert_eq(in8(BM + 2) & 7, 0);
}

Test(ide, dma_started_before_the_command)
{
    prd(0, BUFFER, 0, true); /* 64 KiB */
    start_dma(BM, true);
    command(0x25, 0, 128, true);
    finish();
    cr_assert_eq(in8(BM + 2) & 7, 4);
    cr_assert(ram_has_pattern(&rig, BUFFER, 0, 0x10000));
}

Test(ide, dma_write_flush_fua)
{
    for (unsigned i = 0; i < 4096; i++)
        *ram(&rig, BUFFER + i) = (uint8_t)(i * 5);
    prd(0, BUFFER, 4096, true);
    command(0xca, 16, 8, false);
    start_dma(BM, false);
    finish();
    cr_assert_eq(in8(0x1f7), 0x50);
    for (unsigned i = 0; i < 4096; i++)
        cr_assert_eq(rig.disk->data[8192 + i], (uint8_t)(i * 5));
    cr_assert_eq(rig.disk->unstable, 4096);
    command(0xe7, 0, 0, false);
    cr_assert_eq(in8(0x3f6), 0x80);
    finish();
    cr_assert_eq(in8(0x1f7), 0x50);
    cr_assert_eq(rig.disk->unstable, 0);
    out8(BM, 0);
    command(0x3d, 16, 8, true);
    start_dma(BM, false);
    finish();
    cr_assert_eq(rig.disk->fua_writes, 1);
    out8(0x1f1, 0x82); /* write cache off */
    command(0xef, 0, 0, false);
    finish();
    cr_assert_eq(in8(0x1f7), 0x50);
    cr_assert_not(rig.disk->info.write_cache);
    device_reset(rig.devices[1]);
    cr_assert(rig.disk->info.write_cache);
}

Test(ide, tables_that_do_not_fit)
{
    prd(0, BUFFER, 1024, true); /* longer than the data: active stays */
    command(0xc8, 0, 1, false);
    start_dma(BM, true);
    finish();
    cr_assert_eq(in8(BM + 2) & 7, 5);
    out8(BM, 0);
    ram_fill(&rig, BUFFER, 0, 4096);
    cr_assert_eq(in8(0x1f7), 0x50);
    prd(0, BUFFER, 700, true); /* shorter: what fits, and no interrupt */
    command(0xc8, 0, 2, false);
    start_dma(BM, true);
    finish();
    cr_assert_eq(in8(BM + 2) & 7, 0);
    cr_assert_not(rig.isa[14]);
    cr_assert(ram_has_pattern(&rig, BUFFER, 0, 512));
    cr_assert_eq(*ram(&rig, BUFFER + 513), 0);
    out8(BM, 0);
    prd(0, MMIO_BASE, 512, true); /* not memory */
    command(0xc8, 0, 1, false);
    start_dma(BM, true);
    finish();
    cr_assert_eq(in8(BM + 2) & 7, 6);
    cr_assert_eq(in8(0x1f7), 0x51);
    out8(BM, 0);
    command(0xc8, 0, 1, false); /* nor is the table */
    port_space_write(rig.env.ports, BM + 4, 4, MMIO_BASE);
    out8(BM + 2, 6);
    out8(BM, 9);
    finish();
    cr_assert_eq(in8(BM + 2) & 7, 6);
    cr_assert_eq(in8(0x1f7), 0x51);
    cr_assert_eq(rig.mmio_accesses, 0);
    out8(BM, 0);
    for (unsigned i = 0; i < 8192; i++) { /* a table without an end, of the smallest pieces */
        ram_write32(&rig, 0x10000 + 8 * i, BUFFER);
        ram_write32(&rig, 0x10004 + 8 * i, 2);
    }
    out8(BM + 2, 6);
    command(0x25, 0, 4096, true);
    port_space_write(rig.env.ports, BM + 4, 4, 0x10000);
    out8(BM, 9);
    finish();
    cr_assert_eq(in8(BM + 2) & 5, 0);
}

Test(ide, errors)
{
    command(0x20, 8191, 2, false); /* beyond the end */
    cr_assert_eq(in8(0x1f7), 0x51);
    cr_assert_eq(in8(0x1f1), 0x10);
    command(0x25, 0xfffffffffff0, 65535, true);
    cr_assert_eq(in8(0x1f7), 0x51);
    rig.disk->fail = -EIO;
    command(0x20, 3, 1, false);
    finish();
    cr_assert(rig.isa[14]);
    cr_assert_eq(in8(0x1f7), 0x51);
    cr_assert_eq(in8(0x1f1), 0x40);
    cr_assert_eq(in8(0x1f3), 3);
    command(0xf1, 0, 0, false); /* security: refused */
    cr_assert_eq(in8(0x1f7), 0x51);
    cr_assert_eq(in8(0x1f1), 0x04);
    command(0x60, 0, 0, true); /* NCQ is not for IDE */
    cr_assert_eq(in8(0x1f7), 0x51);
    command(0x00, 0, 0, false);
    cr_assert_eq(in8(0x1f1), 0x04);
}

Test(ide, second_drive_and_nien)
{
    uint16_t words[256];

    out8(0x3f6, 2); /* nIEN */
    out8(0x1f2, 1);
    out8(0x1f3, 9);
    out8(0x1f4, 0);
    out8(0x1f5, 0);
    out8(0x1f6, 0xf0);
    out8(0x1f7, 0x20);
    finish();
    cr_assert_eq(rig.disk2->submitted, 1);
    cr_assert_not(rig.isa[14]);
    out8(0x3f6, 0);
    cr_assert(rig.isa[14]);
    read_block(0x1f0, 14, words, 256);
    cr_assert_eq((uint8_t)words[0], fake_disk_pattern(9 * 512));
    out8(0x1f6, 0xe0);
    cr_assert_eq(in8(0x1f7), 0x50);
}

Test(ide, high_order_registers)
{
    command(0x27, 0, 0, true); /* READ NATIVE MAX ADDRESS EXT */
    cr_assert_eq(in8(0x1f7), 0x50);
    cr_assert_eq(in8(0x1f3) | in8(0x1f4) << 8, 8191);
    out8(0x1f3, 0x11);
    out8(0x1f3, 0x22);
    cr_assert_eq(in8(0x1f3), 0x22);
    out8(0x3f6, 0x80);
    cr_assert_eq(in8(0x1f3), 0x11);
}

/* The drive is busy until the read that was under way has ended. */
Test(ide, soft_reset_in_mid_command)
{
    prd(0, BUFFER, 512, true);
    command(0xc8, 1, 1, false);
    start_dma(BM, true);
    cr_assert_eq(fake_disk_pending(rig.disk), 1);
    out8(0x3f6, 4);
    out8(0x3f6, 0);
    cr_assert_eq(in8(0x1f7), 0x80);
    command(0xec, 0, 0, false); /* ignored */
    finish();
    cr_assert_eq(in8(0x1f7), 0x50);
    cr_assert_eq(in8(0x1f2), 1);
    cr_assert_not(rig.isa[14]);
    command(0x20, 0, 1, false); /* and one that waits for the host */
    finish();
    cr_assert_eq(in8(0x1f7), 0x58);
    out8(0x3f6, 4);
    out8(0x3f6, 0);
    cr_assert_eq(in8(0x1f7), 0x50);
}

Test(ide, diagnostic)
{
    out8(0x1f6, 0xf0);
    out8(0x1f7, 0x90);
    cr_assert(rig.isa[14]);
    cr_assert_eq(in8(0x1f6) & 0x10, 0);
    cr_assert_eq(in8(0x1f1), 1);
    cr_assert_eq(in8(0x1f7), 0x50);
}

Test(ide, trim)
{
    uint64_t ranges[64] = { 8 | 4ull << 48, 100 | 1ull << 48, 0 };

    ram_write(&rig, BUFFER, ranges, sizeof(ranges));
    prd(0, BUFFER, 512, true);
    out8(0x1f1, 1);
    command(0x06, 0, 1, true);
    start_dma(BM, false);
    finish();
    cr_assert_eq(in8(0x1f7), 0x50);
    cr_assert_eq(rig.disk->discards, 2);
    cr_assert_eq(rig.disk->data[8 * 512 + 2047], 0);
    cr_assert_eq(rig.disk->data[12 * 512], fake_disk_pattern(12 * 512));
    ranges[1] = 8190 | 3ull << 48; /* beyond the end: none of them is done */
    ram_write(&rig, BUFFER, ranges, sizeof(ranges));
    out8(BM, 0);
    out8(0x1f1, 1);
    command(0x06, 0, 1, true);
    start_dma(BM, false);
    finish();
    cr_assert_eq(in8(0x1f7), 0x51);
    cr_assert_eq(rig.disk->discards, 2);
}

Test(ide, smart_power_and_verify)
{
    uint16_t words[256];

    out8(0x1f1, 0xda);
    command(0xb0, 0xc24f00, 0, false);
    cr_assert_eq(in8(0x1f7), 0x50);
    cr_assert_eq(in8(0x1f5), 0xc2);
    out8(0x1f1, 0xd0);
    command(0xb0, 0xc24f00, 1, false);
    read_block(0x1f0, 14, words, 256);
    out8(0x1f1, 0xd9);
    command(0xb0, 0xc24f00, 0, false);
    out8(0x1f1, 0xd0);
    command(0xb0, 0xc24f00, 1, false);
    cr_assert_eq(in8(0x1f7), 0x51);
    command(0xe0, 0, 0, false);
    command(0xe5, 0, 0, false);
    cr_assert_eq(in8(0x1f2), 0);
    command(0x42, 0, 512, true);
    finish();
    cr_assert_eq(in8(0x1f7), 0x50);
    command(0xe5, 0, 0, false);
    cr_assert_eq(in8(0x1f2), 0xff);
}

/* ---- The CD-ROM drive ---- */

static void packet(uint8_t feature, unsigned limit, const uint8_t *bytes)
{
    out8(0x176, 0xa0);
    out8(0x171, feature);
    out8(0x174, (uint8_t)limit);
    out8(0x175, (uint8_t)(limit >> 8));
    out8(0x177, 0xa0);
    cr_assert_eq(in8(0x177), 0x58);
    cr_assert_eq(in8(0x172), 1);
    for (unsigned i = 0; i < 12; i += 2)
        out16(0x170, (uint16_t)(bytes[i] | bytes[i + 1] << 8));
}

static unsigned packet_in(const uint8_t *bytes, unsigned limit, uint8_t *data)
{
    unsigned total = 0;

    packet(0, limit, bytes);
    finish();
    while (in8(0x376) & 8) {
        unsigned size = in8(0x174) | in8(0x175) << 8;

        cr_assert(rig.isa[15]);
        cr_assert_eq(in8(0x177), 0x58);
        cr_assert_eq(in8(0x172), 2);
        cr_assert_leq(size, limit);
        for (unsigned i = 0; i < size; i += 2) {
            uint16_t word = in16(0x170);

            memcpy(data + total + i, &word, 2);
        }
        total += size;
        finish();
    }
    cr_assert(rig.isa[15]);
    cr_assert_eq(in8(0x172), 3);
    return total;
}

Test(ide, cd_read_by_pio)
{
    static uint8_t data[40 * 2352];
    uint8_t read[12] = { 0x28, [5] = 3, [8] = 40 }, raw[12] = { 0xbe, [5] = 3, [8] = 30, [9] = 0xf8 };

    cr_assert_eq(packet_in(read, 3000, data), 40 * 2048);
    cr_assert_eq(in8(0x177), 0x50);
    for (unsigned i = 0; i < 40 * 2048; i++)
        cr_assert_eq(data[i], fake_disk_pattern(3 * 2048 + i));
    cr_assert_eq(packet_in(raw, 2352, data), 30 * 2352);
    for (unsigned sector = 0; sector < 30; sector++) {
        cr_assert_eq(data[sector * 2352 + 14], (3 + sector + 150) % 75);
        for (unsigned i = 0; i < 2048; i++)
            cr_assert_eq(data[sector * 2352 + 16 + i], fake_disk_pattern((3 + sector) * 2048 + i));
    }
}

Test(ide, cd_read_by_dma)
{
    uint8_t read[12] = { 0xa8, [5] = 100, [9] = 8 };

    prd(0, BUFFER, 8 * 2048, true);
    packet(1, 0, read);
    start_dma(BM + 8, true);
    finish();
    cr_assert(rig.isa[15]);
    cr_assert_eq(in8(BM + 8 + 2) & 7, 4);
    cr_assert_eq(in8(0x177), 0x50);
    cr_assert(ram_has_pattern(&rig, BUFFER, 100 * 2048, 8 * 2048));
}

static void expect_sense(unsigned key, unsigned asc)
{
    uint8_t sense[12] = { 3, [4] = 18 }, data[20];

    cr_assert_eq(packet_in(sense, 18, data), 18);
    cr_assert_eq(data[2], key);
    cr_assert_eq(data[12], asc);
}

Test(ide, cd_errors_and_change_of_medium)
{
    static uint8_t data[65536];
    uint8_t ready[12] = { 0 }, read[12] = { 0x28, [4] = 0xff, [8] = 1 }, unknown[12] = { 0xd7 };
    uint8_t events[12] = { 0x4a, 1, [4] = 0x10, [8] = 8 };

    cr_assert_eq(packet_in(ready, 2, data), 0);
    cr_assert_eq(in8(0x177), 0x50);
    packet_in(read, 2048, data);
    cr_assert_eq(in8(0x177), 0x51);
    expect_sense(5, 0x21);
    packet_in(unknown, 2048, data);
    expect_sense(5, 0x20);
    fake_disk_resize(rig.cd, 0); /* taken out */
    packet_in(ready, 2, data);
    cr_assert_eq(in8(0x177), 0x51);
    expect_sense(2, 0x3a);
    fake_disk_resize(rig.cd, 65536); /* another one */
    cr_assert_eq(packet_in(events, 8, data), 8);
    cr_assert_eq(data[4], 2);
    packet_in(ready, 2, data);
    cr_assert_eq(in8(0x177), 0x51);
    expect_sense(6, 0x28);
    packet_in(ready, 2, data);
    cr_assert_eq(in8(0x177), 0x50);
    rig.cd->fail = -EIO;
    read[4] = 0;
    packet_in(read, 2048, data);
    expect_sense(3, 0x11);
}

Test(ide, cd_tray)
{
    uint8_t data[64], ready[12] = { 0 }, lock[12] = { 0x1e, [4] = 1 }, eject[12] = { 0x1b, [4] = 2 };
    uint8_t load[12] = { 0x1b, [4] = 3 }, mechanism[12] = { 0xbd, [9] = 8 };

    packet_in(lock, 2, data);
    packet_in(eject, 2, data);
    cr_assert_eq(in8(0x177), 0x51);
    expect_sense(5, 0x53);
    lock[4] = 0;
    packet_in(lock, 2, data);
    packet_in(eject, 2, data);
    cr_assert_eq(in8(0x177), 0x50);
    packet_in(ready, 2, data);
    expect_sense(2, 0x3a);
    packet_in(mechanism, 8, data);
    cr_assert_eq(data[1], 0x10);
    packet_in(load, 2, data);
    packet_in(ready, 2, data);
    expect_sense(6, 0x28);
    packet_in(ready, 2, data);
    cr_assert_eq(in8(0x177), 0x50);
}

Test(ide, cd_answers)
{
    static uint8_t data[65536];
    uint8_t capacity[12] = { 0x25 }, toc[12] = { 0x43, [8] = 100 }, inquiry[12] = { 0x12, [4] = 96 };
    uint8_t configuration[12] = { 0x46, [7] = 1 }, pages[12] = { 0x5a, [2] = 0x3f, [7] = 1 };
    uint8_t disc[12] = { 0x51, [8] = 34 }, serial[12] = { 0x12, 1, 0x80, [4] = 96 };

    cr_assert_eq(packet_in(capacity, 8, data), 8);
    cr_assert_eq(data[2] << 8 | data[3], CD_SIZE / 2048 - 1);
    cr_assert_eq(packet_in(toc, 100, data), 20);
    cr_assert_eq(data[6], 1);
    cr_assert_eq(data[14], 0xaa);
    cr_assert_eq(data[18] << 8 | data[19], CD_SIZE / 2048);
    toc[2] = 1;
    cr_assert_eq(packet_in(toc, 100, data), 12);
    toc[2] = 2;
    cr_assert_eq(packet_in(toc, 100, data), 48);
    cr_assert_eq(packet_in(inquiry, 96, data), 36);
    cr_assert_eq(memcmp(data + 8, "QEMU    QEMU DVD-ROM", 20), 0);
    cr_assert_eq(packet_in(serial, 96, data), 11);
    cr_assert_eq(memcmp(data + 4, "QM00003", 7), 0);
    cr_assert_gt(packet_in(configuration, 256, data), 8);
    cr_assert_eq(data[7], 8);
    cr_assert_eq(packet_in(pages, 256, data), 8 + 8 + 16 + 22);
    cr_assert_eq(packet_in(disc, 34, data), 34);
}

Test(ide, cd_device_reset_and_abort)
{
    out8(0x176, 0xa0);
    out8(0x177, 0xec); /* IDENTIFY DEVICE: not a disk */
    cr_assert_eq(in8(0x177), 0x51);
    cr_assert_eq(in8(0x174), 0x14);
    uint8_t read[12] = { 0x28, [8] = 8 };
    packet(0, 2048, read);
    out8(0x177, 0x08); /* with a read under way */
    cr_assert_eq(in8(0x177), 0x80);
    finish();
    cr_assert_eq(in8(0x175), 0xeb);
    cr_assert_eq(in8(0x177) & 0x89, 0);
}

/* ---- States and options ---- */

Test(ide, state)
{
    uint16_t words[256], more[256];

    check_pio_read(0x20, 5, 3, 1, false);
    command(0x20, 5, 3, false);
    read_block(0x1f0, 14, words, 100);
    for (unsigned i = 0; i < rig.device_count; i++)
        ata_round_trip(rig.devices[i]);
    pci_device_config_write(ata_rig_pci(&rig, 0), PCI_COMMAND, 2, PCI_COMMAND_IO | PCI_COMMAND_MASTER);
    for (unsigned i = 100; i < 256; i++)
        words[i] = in16(0x1f0);
    for (unsigned i = 0; i < 512; i++)
        cr_assert_eq(((uint8_t *)words)[i], fake_disk_pattern(5 * 512 + i), "byte %u", i);
    read_block(0x1f0, 14, more, 256);
    read_block(0x1f0, 14, more, 256);
    cr_assert_eq((uint8_t)more[0], fake_disk_pattern(7 * 512));
    cr_assert_eq(in8(0x1f7), 0x50);

    prd(0, BUFFER, 512, true); /* waiting for the bus master */
    command(0xc8, 2, 1, false);
    ata_round_trip(rig.devices[0]);
    start_dma(BM, true);
    finish();
    cr_assert(ram_has_pattern(&rig, BUFFER, 1024, 512));
    for (unsigned i = 0; i < rig.device_count; i++)
        ata_load_garbage(rig.devices[i], 11 + i, 200);
    finish();
    for (unsigned i = 0; i < rig.device_count; i++)
        device_reset(rig.devices[i]);
}

Test(ide, options)
{
    cr_assert_str_eq(ata_rig_refused(&rig, "ide-hd,bus=ide.1,unit=1"), "drive= is missing: which -drive shall it be?");
    cr_assert_not_null(ata_rig_refused(&rig, "ide-hd,drive=nope"));
    cr_assert_not_null(ata_rig_refused(&rig, "ide-hd,drive=disk"));
    cr_assert_not_null(ata_rig_refused(&rig, "ide-cd,bus=ide.0"));
    cr_assert_not_null(ata_rig_refused(&rig, "ide-cd,bus=ide.1,unit=2"));
    cr_assert_not_null(ata_rig_refused(&rig, "ide-cd,bus=ide.1,unit=0"));
    cr_assert_not_null(ata_rig_refused(&rig, "ide-cd,serial=123456789012345678901"));
    cr_assert_not_null(ata_rig_refused(&rig, "ide-cd,logical_block_size=4096"));
    cr_assert_null(ata_rig_refused(&rig, "ide-cd,bootindex=1"));
    cr_assert_null(ata_rig_refused(&rig, "ide-cd,bootindex=-1"));
    cr_assert_not_null(ata_rig_refused(&rig, "ide-cd,bootindex=-2"));
    cr_assert_null(ata_rig_refused(&rig, "piix3-ide,id=other"));
}

static void own(void *opaque, struct device *device)
{
    struct ata_rig *owner = opaque;

    owner->devices[owner->device_count++] = device;
}

Test(ide, if_ide_drives)
{
    struct fake_disk *more = fake_disk_add(&rig.env.blocks, "ide1-cd1", CD_SIZE);
    struct error err = { "" };
    int bootindex;
    char path[128];

    more->info.interface = BLOCK_IF_IDE;
    more->info.cdrom = true;
    more->info.bus = 1;
    more->info.unit = 1;
    cr_assert_eq(ata_create_drives(&rig.env, own, &rig, &err), 0, "%s", err.text);
    cr_assert_eq(rig.device_count, 5);
    out8(0x176, 0xb0);
    cr_assert_eq(in8(0x175), 0xeb);
    cr_assert_not(ata_drive_boot_entry(rig.devices[4], &bootindex, path, sizeof(path)));
    device_destroy(rig.devices[--rig.device_count]);
    ata_rig_add(&rig, "ide-cd,drive=ide1-cd1,bootindex=3");
    cr_assert(ata_drive_boot_entry(rig.devices[4], &bootindex, path, sizeof(path)));
    cr_assert_eq(bootindex, 3);
    cr_assert_str_eq(path, "/pci@i0cf8/ide@1,1/drive@1/disk@1");
}
