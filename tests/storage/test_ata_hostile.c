/* A guest that programs the ATA controllers at random, with lists and tables that mean something often enough, and I/O
 * that is done, or fails, in any order. Nothing may crash, hang, reach outside RAM, or leave a request behind;
 * afterwards a proper driver must find a drive that works. EIDOLON_SEED and EIDOLON_FUZZ_OPS override. */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "ata_rig.h"

#define ABAR        0xfebf0000ull
#define BM          0xc000u
#define LOW         0x10000u /* where lists, tables and buffers are, mostly */
#define DEFAULT_OPS 300000u

static struct ata_rig rig;
static uint64_t seed;

static uint64_t pick(uint64_t limit)
{
    return ata_random(&seed) % limit;
}

static void setup(void)
{
    struct pci_device *pci;

    ata_rig_init(&rig);
    ata_rig_add(&rig, "ahci,addr=1f.2,id=sata");
    ata_rig_add(&rig, "piix3-ide,addr=1.1,id=pata");
    ata_rig_add(&rig, "ide-hd,drive=disk,bus=sata.0");
    ata_rig_add(&rig, "ide-cd,drive=cd,bus=sata.1");
    ata_rig_add(&rig, "ide-hd,drive=disk2,bus=pata.0");
    ata_rig_add(&rig, "ide-cd,bus=pata.0");
    fake_disk_add(&rig.env.blocks, "cd2", 65536)->info.cdrom = true;
    ata_rig_add(&rig, "ide-cd,drive=cd2,bus=pata.1");
    pci = ata_rig_pci(&rig, 0);
    pci_device_config_write(pci, PCI_BAR0 + 20, 4, ABAR);
    pci_device_config_write(pci, PCI_COMMAND, 2, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
    pci = ata_rig_pci(&rig, 1);
    pci_device_config_write(pci, PCI_BAR0 + 16, 4, BM);
    pci_device_config_write(pci, PCI_COMMAND, 2, PCI_COMMAND_IO | PCI_COMMAND_MASTER);
}

static void teardown(void)
{
    ata_rig_destroy(&rig);
}

static uint32_t address(void)
{
    switch (pick(16)) {
    case 0:
        return (uint32_t)MMIO_BASE + (uint32_t)pick(0x10000);
    case 1:
        return (uint32_t)RAM_SIZE - (uint32_t)pick(0x2000);
    case 2:
        return (uint32_t)ata_random(&seed);
    default:
        return (uint32_t)pick(LOW);
    }
}

static uint8_t opcode(void)
{
    static const uint8_t known[] = { 0x06, 0x08, 0x20, 0x24, 0x25, 0x27, 0x29, 0x2f, 0x30, 0x34, 0x35, 0x39, 0x3d,
                                     0x42, 0x47, 0x60, 0x60, 0x61, 0x61, 0x90, 0x91, 0xa0, 0xa0, 0xa0, 0xa1, 0xb0,
                                     0xc4, 0xc5, 0xc6, 0xc8, 0xca, 0xce, 0xe5, 0xe7, 0xea, 0xec, 0xef, 0xf8 };

    return pick(8) ? known[pick(ARRAY_SIZE(known))] : (uint8_t)pick(256);
}

static uint8_t packet_opcode(void)
{
    static const uint8_t known[] = { 0x00, 0x03, 0x12, 0x1b, 0x1e, 0x25, 0x28, 0x28, 0x2b, 0x43, 0x46,
                                     0x4a, 0x51, 0x52, 0x55, 0x5a, 0xa8, 0xad, 0xbb, 0xbd, 0xbe, 0xbe };

    return pick(8) ? known[pick(ARRAY_SIZE(known))] : (uint8_t)pick(256);
}

static void fill_packet(uint8_t *packet)
{
    for (unsigned i = 1; i < 12; i++)
        packet[i] = pick(5) ? 0 : (uint8_t)ata_random(&seed);
    packet[0] = packet_opcode();
    packet[8] |= (uint8_t)pick(5);
    if (packet[0] == 0xbe && pick(2))
        packet[9] = pick(2) ? 0xf8 : 0x10;
}

/* A command FIS, a packet and PRDs at a place where headers may point. */
static void fill_table(gpa_t at)
{
    uint8_t fis[0x80] = { pick(30) ? 0x27 : (uint8_t)pick(256), pick(10) ? 0x80 : 0, opcode() };

    for (unsigned i = 3; i < 20; i++)
        fis[i] = pick(20) ? 0 : (uint8_t)ata_random(&seed);
    fis[3] |= (uint8_t)pick(9);
    fis[4] = (uint8_t)ata_random(&seed);
    fis[7] |= 0x40;
    fis[12] |= (uint8_t)pick(9);
    fill_packet(fis + 0x40);
    ram_write(&rig, at, fis, sizeof(fis));
    for (unsigned i = 0; i < 8; i++) {
        ram_write32(&rig, at + 0x80 + 16 * i, address());
        ram_write32(&rig, at + 0x84 + 16 * i, pick(20) ? 0 : (uint32_t)ata_random(&seed));
        ram_write32(&rig, at + 0x8c + 16 * i, (uint32_t)(pick(4) ? pick(0x4000) : ata_random(&seed)));
    }
}

static void fill_memory(void)
{
    gpa_t at = 0x1000 + pick((LOW - 0x1000) / 128) * 128;

    switch (pick(3)) {
    case 0:
        fill_table(at);
        break;
    case 1: /* a command header, anywhere in the list that PxCLB usually names */
        at = pick(32) * 32;
        ram_write32(&rig, at, (uint32_t)(pick(20) ? 5 | pick(9) << 16 : ata_random(&seed)));
        ram_write32(&rig, at + 8, address());
        ram_write32(&rig, at + 12, pick(20) ? 0 : (uint32_t)ata_random(&seed));
        break;
    default: /* PRDs of the bus master */
        ram_write32(&rig, at, address());
        ram_write32(&rig, at + 4, (uint32_t)(pick(0x10000) | (uint64_t)pick(2) << 31));
        break;
    }
}

static void ahci_op(void)
{
    static const uint8_t regs[] = { 0x00, 0x08, 0x10, 0x14, 0x18, 0x2c, 0x30, 0x34, 0x38, 0x38, 0x38, 0x38 };
    unsigned reg = pick(10) ? 0x100 + (unsigned)pick(3) * 0x80 + regs[pick(ARRAY_SIZE(regs))] : (unsigned)pick(0x400);
    uint32_t value = (uint32_t)ata_random(&seed);

    if ((reg & 0x7f) == 0x18 && pick(4))
        value = 0x11;
    if ((reg & 0x7f) == 0x00 && pick(4))
        value = 0;
    if ((reg & 0x7f) == 0x2c && pick(2))
        value = (uint32_t)pick(2);
    if (reg >= 0x100 && (reg & 0x7f) == 0x38)
        physmem_mmio_write(rig.env.mem, ABAR + reg - 4, 4, value); /* PxSACT */
    if (pick(8))
        physmem_mmio_write(rig.env.mem, ABAR + reg, pick(30) ? 4 : 1 + (unsigned)pick(8), value);
    else
        physmem_mmio_read(rig.env.mem, ABAR + reg, pick(30) ? 4 : 1 + (unsigned)pick(8));
}

/* A command that makes sense but for its details, on a port that runs. */
static void ahci_command(void)
{
    gpa_t port = ABAR + 0x100 + pick(2) * 0x80, table = 0x1000 + pick((LOW - 0x2000) / 128) * 128;
    unsigned slot = (unsigned)pick(32);

    if (pick(3)) { /* error recovery */
        if (pick(4) == 0)
            physmem_mmio_write(rig.env.mem, port + 0x2c, 4, 1);
        physmem_mmio_write(rig.env.mem, port + 0x2c, 4, 0);
        physmem_mmio_write(rig.env.mem, port + 0x18, 4, 0x10);
        physmem_mmio_write(rig.env.mem, port, 4, 0);
        physmem_mmio_write(rig.env.mem, port + 4, 4, 0);
        physmem_mmio_write(rig.env.mem, port + 8, 4, 0x800);
        physmem_mmio_write(rig.env.mem, port + 0x18, 4, 0x11);
    }
    fill_table(table);
    ram_write32(&rig, slot * 32, 5 | (uint32_t)pick(9) << 16);
    ram_write32(&rig, slot * 32 + 8, (uint32_t)table);
    ram_write32(&rig, slot * 32 + 12, 0);
    physmem_mmio_write(rig.env.mem, port + 0x34, 4, 1u << slot);
    physmem_mmio_write(rig.env.mem, port + 0x38, 4, 1u << slot);
}

static void ide_command(void)
{
    unsigned channel = (unsigned)pick(2), base = channel ? 0x170 : 0x1f0, bm = BM + 8 * channel;
    uint32_t table = (uint32_t)pick(LOW / 8) * 8;

    port_space_write(rig.env.ports, (uint16_t)(base + 0x206), 1, 0);
    port_space_write(rig.env.ports, (uint16_t)(base + 6), 1, 0xe0 | (pick(4) ? 0 : 0x10));
    for (unsigned reg = 1; reg < 6; reg++) {
        for (unsigned i = 0; i < 2; i++)
            port_space_write(rig.env.ports, (uint16_t)(base + reg), 1, i ? (uint32_t)pick(32) : 0);
    }
    port_space_write(rig.env.ports, (uint16_t)(base + 7), 1, opcode());
    for (unsigned i = 0; i < 4; i++) {
        ram_write32(&rig, table + 8 * i, address());
        ram_write32(&rig, table + 8 * i + 4, (uint32_t)(pick(0x4000) | (uint64_t)(pick(3) == 0) << 31));
    }
    port_space_write(rig.env.ports, (uint16_t)bm, 1, 0);
    port_space_write(rig.env.ports, (uint16_t)(bm + 4), 4, table);
    port_space_write(rig.env.ports, (uint16_t)bm, 1, 1 | (uint32_t)pick(2) << 3);
}

static void ide_op(void)
{
    unsigned channel = (unsigned)pick(2), base = channel ? 0x170 : 0x1f0, reg = (unsigned)pick(9);
    uint32_t value = pick(3) ? (uint32_t)pick(4) : (uint32_t)ata_random(&seed);

    if (reg == 7)
        value = opcode();
    if (reg == 8) {
        port_space_write(rig.env.ports, (uint16_t)(base + 0x206), 1, pick(4) ? 0 : value);
        return;
    }
    if (reg == 0) { /* the data register: a whole block, often enough */
        uint8_t packet[12];

        fill_packet(packet);
        for (unsigned i = 0, count = (unsigned)pick(300); i < count; i++) {
            if (pick(40) == 0)
                port_space_read(rig.env.ports, (uint16_t)base, 1u << pick(3));
            else if (channel && i < 6)
                port_space_write(rig.env.ports, (uint16_t)base, 2, packet[2 * i] | packet[2 * i + 1] << 8);
            else
                port_space_read(rig.env.ports, (uint16_t)base, 2);
        }
        return;
    }
    if (pick(6))
        port_space_write(rig.env.ports, (uint16_t)(base + reg), pick(20) ? 1 : 4, value);
    else
        port_space_read(rig.env.ports, (uint16_t)(base + reg), 1);
}

static void bm_op(void)
{
    unsigned reg = (unsigned)pick(16);

    if ((reg & 7) == 0)
        port_space_write(rig.env.ports, (uint16_t)(BM + reg), 1, (uint32_t)pick(16));
    else if ((reg & 4))
        port_space_write(rig.env.ports, (uint16_t)(BM + (reg & 12)), 4, address());
    else
        port_space_write(rig.env.ports, (uint16_t)(BM + reg), 1, (uint32_t)ata_random(&seed));
}

static void io_op(void)
{
    struct fake_disk *const blocks[] = { rig.disk, rig.disk2, rig.cd };
    struct fake_disk *block = blocks[pick(3)];

    if (pick(20) == 0)
        block->fail = pick(2) ? -EIO : -ENOSPC;
    for (unsigned i = 0, count = (unsigned)pick(4); i < count; i++)
        fake_disk_run_one(block, ata_random(&seed));
    if (pick(200) == 0)
        fake_disk_resize(rig.cd, pick(3) * 65536);
    if (pick(500) == 0)
        fake_disk_resize(rig.disk, pick(2) ? DISK_SIZE : DISK_SIZE / 2);
}

/* ---- Afterwards ---- */

static void check_ide(void)
{
    uint8_t sector[512];

    port_space_write(rig.env.ports, 0x1f6, 1, 0xe0);
    for (unsigned i = 2; i < 6; i++)
        port_space_write(rig.env.ports, (uint16_t)(0x1f0 + i), 1, i < 4);
    port_space_write(rig.env.ports, 0x1f7, 1, 0x20);
    fake_disk_run(rig.disk2);
    cr_assert_eq(port_space_read(rig.env.ports, 0x1f7, 1), 0x58);
    for (unsigned i = 0; i < 512; i += 2) {
        uint16_t word = (uint16_t)port_space_read(rig.env.ports, 0x1f0, 2);

        memcpy(sector + i, &word, 2);
    }
    cr_assert_eq(memcmp(sector, rig.disk2->data + 512, 512), 0);
}

static void check_ahci(void)
{
    static const uint8_t fis[20] = { 0x27, 0x80, 0x25, [4] = 1, [7] = 0x40, [12] = 1 };

    physmem_mmio_write(rig.env.mem, ABAR + 0x100, 4, 0x1000);
    physmem_mmio_write(rig.env.mem, ABAR + 0x104, 4, 0);
    physmem_mmio_write(rig.env.mem, ABAR + 0x118, 4, 0x11);
    ram_write32(&rig, 0x1000, 5 | 1 << 16);
    ram_write32(&rig, 0x1008, 0x2000);
    ram_write32(&rig, 0x100c, 0);
    ram_write(&rig, 0x2000, fis, sizeof(fis));
    ram_write32(&rig, 0x2080, 0x3000);
    ram_write32(&rig, 0x2084, 0);
    ram_write32(&rig, 0x208c, 511);
    physmem_mmio_write(rig.env.mem, ABAR + 0x138, 4, 1);
    fake_disk_run(rig.disk);
    cr_assert_eq(physmem_mmio_read(rig.env.mem, ABAR + 0x138, 4), 0);
    cr_assert_eq(memcmp(ram(&rig, 0x3000), rig.disk->data + 512, 512), 0);
}

Test(hostile, random_programming, .init = setup, .fini = teardown, .timeout = 300)
{
    const char *seed_text = getenv("EIDOLON_SEED"), *ops_text = getenv("EIDOLON_FUZZ_OPS");
    unsigned ops = ops_text ? (unsigned)strtoul(ops_text, NULL, 0) : DEFAULT_OPS, moved;

    seed = seed_text ? strtoull(seed_text, NULL, 0) : 1;
    for (unsigned op = 0; op < ops; op++) {
        switch (pick(8)) {
        case 0:
        case 1:
            fill_memory();
            break;
        case 2:
            ahci_op();
            break;
        case 3:
            ahci_command();
            break;
        case 4:
            ide_op();
            break;
        case 5:
            ide_command();
            break;
        case 6:
            bm_op();
            break;
        default:
            io_op();
            break;
        }
        if (pick(5000) == 0)
            ata_round_trip(rig.devices[pick(rig.device_count)]);
        if (pick(3000) == 0) { /* where the BARs are does not get lost */
            for (unsigned i = 0; i < rig.device_count; i++)
                device_reset(rig.devices[i]);
            pci_device_config_write(ata_rig_pci(&rig, 0), PCI_BAR0 + 20, 4, ABAR);
            pci_device_config_write(ata_rig_pci(&rig, 0), PCI_COMMAND, 2, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
            pci_device_config_write(ata_rig_pci(&rig, 1), PCI_BAR0 + 16, 4, BM);
            pci_device_config_write(ata_rig_pci(&rig, 1), PCI_COMMAND, 2, PCI_COMMAND_IO | PCI_COMMAND_MASTER);
        }
    }
    moved = rig.disk->submitted + rig.disk2->submitted + rig.cd->submitted;
    cr_assert_gt(moved, ops / 200, "only %u requests came of it: the test does not test", moved);
    cr_assert_eq(rig.mmio_accesses, 0);
    for (unsigned i = 0; i < rig.device_count; i++)
        device_reset(rig.devices[i]);
    cr_assert_eq(fake_disk_pending(rig.disk) + fake_disk_pending(rig.disk2) + fake_disk_pending(rig.cd), 0);
    rig.disk->fail = rig.disk2->fail = 0;
    pci_device_config_write(ata_rig_pci(&rig, 0), PCI_BAR0 + 20, 4, ABAR);
    pci_device_config_write(ata_rig_pci(&rig, 0), PCI_COMMAND, 2, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
    check_ide();
    check_ahci();
}
