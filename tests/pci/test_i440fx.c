/* The pc board without CPUs, and what both boards do for firmware: reset vector, shadow RAM, ACPI registers where firmware
 * puts them, A20, hot-plug registers. */
#include "devices/board/machine.h"
#include "devices/board/fw_cfg.h"
#include "devices/irq/lapic.h"
#include "devices/pci/pci.h"
#include "tests/pci/board_rig.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

static uint8_t bios[256 * 1024];
static uint16_t acpi_base;

static void on_acpi_moved(void *opaque, uint16_t base)
{
    (void)opaque;
    acpi_base = base;
}

static void create(bool q35, bool firmware)
{
    struct board_config config = {
        .ram_size = 64 * MIB,
        .cpu_count = 1,
        .cpu_ops = &cpu_ops,
        .cpus = cpus,
        .firmware = firmware,
        .acpi_moved = on_acpi_moved,
    };
    struct error err = { 0 };

    acpi_base = 0;
    create_board(q35 ? board_create_q35 : board_create_i440fx, &config);
    for (size_t i = 0; i < sizeof(bios); i++)
        bios[i] = (uint8_t)(i >> 10 ^ i * 3);
    if (firmware)
        cr_assert_eq(board_set_bios(board, bios, sizeof(bios), &err), 0, "%s", err.text);
    board_reset(board);
}

static void setup(void)
{
    create(false, true);
}

TestSuite(i440fx, .init = setup, .fini = teardown);

#define ISA PCI_DEVFN(1, 0)
#define PM  PCI_DEVFN(1, 3)

Test(i440fx, functions)
{
    cr_assert_eq(config_read(0, 0, 4), 0x12378086);
    cr_assert_eq(config_read(ISA, 0, 4), 0x70008086);
    cr_assert_eq(config_read(ISA, PCI_HEADER_TYPE, 1), 0x80);
    cr_assert_eq(config_read(PM, 0, 4), 0x71138086);
    cr_assert_eq(config_read(PCI_DEVFN(31, 0), 0, 4), 0xffffffff);
}

Test(i440fx, reset_vector_and_shadow_ram)
{
    uint32_t value = 0x12345678;

    cr_assert_eq(physmem_mmio_read(mem, 0xfffffff0, 8), *(uint64_t *)(bios + sizeof(bios) - 16));
    cr_assert_eq(physmem_mmio_read(mem, 0xffff0, 8), *(uint64_t *)(bios + sizeof(bios) - 16));
    cr_assert_eq(physmem_mmio_read(mem, 4 * GIB - sizeof(bios), 8), *(uint64_t *)bios);
    cr_assert_not(physmem_write(mem, 0xf0000, &value, 4), "a ROM");
    config_write(0, 0x59, 1, 0x30);
    cr_assert(physmem_write(mem, 0xf0000, &value, 4));
    cr_assert_eq(physmem_mmio_read(mem, 0xf0000, 4), value);
    config_write(0, 0x59, 1, 0x10);
    cr_assert_not(physmem_write(mem, 0xf0000, &value, 4));
    cr_assert_eq(physmem_mmio_read(mem, 0xf0000, 4), value);
    board_reset(board);
    cr_assert_eq(physmem_mmio_read(mem, 0xffff0, 8), *(uint64_t *)(bios + sizeof(bios) - 16), "the ROM again");
}

Test(i440fx, acpi_registers_move)
{
    cr_assert_eq(port_space_read(ports, 0x604, 2), 0xffff, "nowhere");
    config_write(PM, 0x40, 4, 0xb001);
    cr_assert_eq(port_space_read(ports, 0xb004, 2), 0xffff, "not enabled");
    config_write(PM, 0x80, 1, 1);
    cr_assert_eq(acpi_base, 0xb000);
    cr_assert_eq(port_space_read(ports, 0xb004, 2), 0);
    port_space_write(ports, 0xb2, 1, 0xf1); /* ACPI enable */
    cr_assert_eq(port_space_read(ports, 0xb004, 2), 1);
    config_write(PM, 0x40, 4, 0x601);
    cr_assert_eq(acpi_base, 0x600);
    cr_assert_eq(port_space_read(ports, 0x604, 2), 1);
    cr_assert_eq(port_space_read(ports, 0xb004, 2), 0xffff);
    port_space_write(ports, 0x604, 2, 0x2000);
    cr_assert_eq(shutdowns, 1);
    board_reset(board);
    cr_assert_eq(port_space_read(ports, 0x604, 2), 0xffff);
}

/* SeaBIOS takes SMM for set up where the APM port's SMI is on already: there is no SMM. */
Test(i440fx, smm_looks_initialised)
{
    cr_assert_eq(config_read(PM, 0x5b, 1) & 2, 2);
    teardown();
    create(true, true);
    config_write(PCI_DEVFN(31, 0), 0x40, 4, 0x601);
    config_write(PCI_DEVFN(31, 0), 0x44, 1, 0x80);
    cr_assert_eq(port_space_read(ports, 0x630, 4) & 0x20, 0x20);
}

static bool pic_requested(unsigned irq)
{
    uint16_t port = irq < 8 ? 0x20 : 0xa0;

    port_space_write(ports, port, 1, 0x0a); /* OCW3: read IRR */
    return port_space_read(ports, port, 1) >> (irq & 7) & 1;
}

/* INTA# of slot 2 is PIRQ B, which the PIIX3 sends nowhere until it is told. */
Test(i440fx, pci_interrupt_routing)
{
    static const struct device_type type = { .name = "probe", .size = sizeof(struct pci_device) };
    static const struct pci_identity identity = { .vendor = 1, .device = 2, .class_code = 0xff0000 };
    struct error err;
    struct pci_device *probe = device_allocate(&board->env, &type, NULL, &err);

    pci_device_attach(probe, board->env.pci_bus, PCI_DEVFN(2, 0), &identity, &err);
    pci_set_interrupt_pin(probe, 1);
    pci_intx_set(probe, true);
    cr_assert_not(pic_requested(10));
    port_space_write(ports, 0x4d1, 1, 0x0c); /* level */
    config_write(ISA, 0x61, 1, 10);
    cr_assert(pic_requested(10));
    config_write(ISA, 0x61, 1, 11);
    cr_assert_not(pic_requested(10));
    cr_assert(pic_requested(11));
    config_write(ISA, 0x61, 1, 0x80);
    cr_assert_not(pic_requested(11));
    pci_device_detach(probe);
    device_destroy(&probe->device);
}

/* A kernel that is started without firmware finds what firmware would have set up. */
Test(i440fx, without_firmware)
{
    uint32_t value = 1;

    teardown();
    create(false, false);
    cr_assert(physmem_write(mem, 0xf0000, &value, 4));
    cr_assert(physmem_write(mem, 0xc0000, &value, 4));
    cr_assert_eq(config_read(ISA, 0x60, 4), 0x0b0b0a0a);
    cr_assert_eq(port_space_read(ports, ACPI_PM_BASE + 4, 2), 0);
    board_reset(board);
    cr_assert_eq(config_read(ISA, 0x60, 4), 0x0b0b0a0a);
}

Test(i440fx, a20)
{
    uint32_t low = 0x11111111, high = 0x22222222, value;

    physmem_write(mem, 0x500, &low, 4);
    physmem_write(mem, MIB + 0x500, &high, 4);
    board_set_a20(board, false);
    physmem_read(mem, MIB + 0x500, &value, 4);
    cr_assert_eq(value, low);
    physmem_write(mem, MIB + 0x600, &high, 4);
    physmem_read(mem, 0x600, &value, 4);
    cr_assert_eq(value, high);
    board_set_a20(board, true);
    physmem_read(mem, MIB + 0x500, &value, 4);
    cr_assert_eq(value, high);
}

Test(i440fx, bios_sizes)
{
    struct error err;

    teardown();
    create(false, false);
    cr_assert_neq(board_set_bios(board, bios, 1000, &err), 0);
    cr_assert_neq(board_set_bios(board, bios, 0, &err), 0);
    cr_assert_neq(board_set_bios(board, bios, BIOS_SIZE_MAX + 65536, &err), 0);
    cr_assert_eq(board_set_bios(board, bios, 65536, &err), 0);
    cr_assert_eq(physmem_mmio_read(mem, 0xffff0000, 4), *(uint32_t *)bios);
}

/* ---- Hot-plug ---- */

static uint64_t gpe_status(void)
{
    return port_space_read(ports, 0xafe0, 1);
}

Test(i440fx, hot_plug_registers)
{
    struct error err = { "" };

    cr_assert_eq(port_space_read(ports, 0xae00, 4), 0);
    cr_assert_eq(board_add_device(board, "pci-bridge,id=b,chassis_nr=1,addr=5", &err), 0, "%s", err.text);
    cr_assert_eq(gpe_status() & 2, 2);
    port_space_write(ports, 0xafe0, 1, 2);
    cr_assert_eq(gpe_status() & 2, 0);
    port_space_write(ports, 0xae10, 4, 1);
    cr_assert_eq(port_space_read(ports, 0xae00, 4), 0, "another bus");
    port_space_write(ports, 0xae10, 4, 0);
    cr_assert_eq(port_space_read(ports, 0xae00, 4), 1 << 5);
    cr_assert_eq(port_space_read(ports, 0xae00, 4), 0, "read once");
    cr_assert_eq(config_read(PCI_DEVFN(5, 0), 0, 4), 0x00011b36);
    port_space_write(ports, 0xae08, 4, 1 << 5 | 1 << 1 | 1);
    cr_assert_eq(config_read(PCI_DEVFN(5, 0), 0, 4), 0xffffffff, "ejected");
    cr_assert_eq(config_read(ISA, 0, 4), 0x70008086, "the chip set is no card");
}

/* Every port and configuration register at random, on both boards, with firmware: alive, and after a reset as at first. */
Test(i440fx, random_accesses, .timeout = 60)
{
    for (unsigned q35 = 0; q35 < 2; q35++) {
        uint64_t state = 9;

        teardown();
        create(q35, true);
        for (unsigned i = 0; i < 100000; i++) {
            unsigned size;
            uint32_t value;

            state = state * 6364136223846793005ull + 1442695040888963407ull;
            size = 1u << (state >> 61) % 3;
            value = state >> 24;
            if (state >> 60 & 1)
                config_write(q35 ? PCI_DEVFN((state >> 40) % 2 * 31, 0)
                                 : PCI_DEVFN((state >> 40) % 2, (state >> 42) % 4),
                             (state >> 45) % 256 & ~(size - 1), size, value);
            else if (state >> 59 & 1)
                physmem_mmio_write(mem, 0xbff00 + (state >> 40) % 0x40200, size, value);
            else
                port_space_write(ports, (state >> 40) % 4 ? (state >> 44) % 0x700 : 0xae00 + (state >> 44) % 0x1f0,
                                 size, value);
        }
        board_reset(board);
        cr_assert_eq(config_read(0, 0, 4), q35 ? 0x29c08086 : 0x12378086);
        cr_assert_eq(physmem_mmio_read(mem, 0xffff0, 8), *(uint64_t *)(bios + sizeof(bios) - 16));
    }
}
