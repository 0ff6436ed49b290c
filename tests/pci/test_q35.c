/* The whole board without CPUs: the host bridge's two configuration mechanisms, interrupt routing, memory layout,
 * -device, reset, and guests that write at random to all ports. */
#include "devices/board/machine.h"
#include "devices/irq/lapic.h"
#include "devices/pci/pci.h"
#include "tests/pci/board_rig.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

static void create(uint64_t ram)
{
    struct board_config config = { .ram_size = ram, .cpu_count = 2, .cpu_ops = &cpu_ops, .cpus = cpus };

    create_board(board_create_q35, &config);
}

static void setup(void)
{
    create(64 * MIB);
}

TestSuite(q35, .init = setup, .fini = teardown);

Test(q35, configuration_ports)
{
    cr_assert_eq(config_read(0, 0, 4), 0x29c08086);
    cr_assert_eq(config_read(PCI_DEVFN(31, 0), 0, 4), 0x29188086);
    cr_assert_eq(config_read(PCI_DEVFN(31, 0), 2, 2), 0x2918);
    cr_assert_eq(config_read(PCI_DEVFN(31, 0), 0xb, 1), 0x06);
    cr_assert_eq(config_read(PCI_DEVFN(7, 0), 0, 4), 0xffffffff);
    cr_assert_eq(config_read(PCI_DEVFN(31, 0), 0x40, 4), ACPI_PM_BASE | 1);
    port_space_write(ports, 0xcf8, 4, 0x00000000);
    cr_assert_eq(port_space_read(ports, 0xcfc, 4), 0xffffffff, "not enabled");
    port_space_write(ports, 0xcf8, 4, 0xffffffff);
    cr_assert_eq(port_space_read(ports, 0xcf8, 4), 0x80fffffc);
    port_space_write(ports, 0xcf8, 1, 0x12);
    port_space_write(ports, 0xcfa, 2, 0x1234);
    cr_assert_eq(port_space_read(ports, 0xcf8, 4), 0x80fffffc, "only dword writes reach the register");
}

/* Port 0xcf9 lies inside the address register, but a dword write to 0xcf8 must not reset the machine. */
Test(q35, reset_control_is_apart_from_the_address_register)
{
    port_space_write(ports, 0xcf8, 4, 0x80000600);
    cr_assert_eq(resets, 0);
    port_space_write(ports, 0xcf9, 1, 0x02);
    port_space_write(ports, 0xcf9, 1, 0x06);
    cr_assert_geq(resets, 1);
}

Test(q35, ecam)
{
    gpa_t lpc = Q35_ECAM_BASE + (PCI_DEVFN(31, 0) << 12);

    cr_assert_eq(physmem_mmio_read(mem, Q35_ECAM_BASE, 4), 0x29c08086);
    cr_assert_eq(physmem_mmio_read(mem, lpc, 4), 0x29188086);
    cr_assert_eq(physmem_mmio_read(mem, lpc + 1, 2), 0x1880);
    cr_assert_eq(physmem_mmio_read(mem, lpc + 0xfff, 1), 0xff);
    physmem_mmio_write(mem, lpc + 0x60, 1, 0x85);
    cr_assert_eq(config_read(PCI_DEVFN(31, 0), 0x60, 1), 0x85);
    /* Move it, turn it off, and reset. */
    config_write(0, 0x60, 4, 0xe0000001);
    cr_assert_eq(physmem_mmio_read(mem, 0xe0000000, 4), 0x29c08086);
    cr_assert_eq(physmem_mmio_read(mem, Q35_ECAM_BASE, 4), 0xffffffff);
    config_write(0, 0x60, 4, 0);
    cr_assert_eq(physmem_mmio_read(mem, 0xe0000000, 4), 0xffffffff);
    board_reset(board);
    cr_assert_eq(physmem_mmio_read(mem, Q35_ECAM_BASE, 4), 0x29c08086);
    cr_assert_eq(config_read(PCI_DEVFN(31, 0), 0x60, 1), 10);
}

Test(q35, memory_layout)
{
    uint32_t value = 0xdeadbeef;

    cr_assert(physmem_write(mem, 0x9fffc, &value, 4));
    cr_assert_not(physmem_write(mem, 0xa0000, &value, 4), "VGA window");
    cr_assert(physmem_write(mem, 0xc0000, &value, 4));
    cr_assert(physmem_write(mem, 0xffffc, &value, 4));
    cr_assert(physmem_write(mem, 64 * MIB - 4, &value, 4));
    cr_assert_not(physmem_write(mem, 64 * MIB, &value, 4));
    teardown();
    create(3 * GIB);
    cr_assert(physmem_write(mem, 2 * GIB - 4, &value, 4));
    cr_assert_not(physmem_write(mem, 2 * GIB, &value, 4));
    cr_assert(physmem_write(mem, 5 * GIB - 4, &value, 4));
    cr_assert_not(physmem_write(mem, 5 * GIB, &value, 4));
}

static bool pic_requested(unsigned irq)
{
    uint16_t port = irq < 8 ? 0x20 : 0xa0;

    port_space_write(ports, port, 1, 0x0a); /* OCW3: read IRR */
    return port_space_read(ports, port, 1) >> (irq & 7) & 1;
}

/* INTA# of a device in slot 2 is PIRQ G: IOAPIC pin 22, and ISA interrupt 11 as the LPC bridge routes it at first. */
Test(q35, pci_interrupt_routing)
{
    static const struct device_type type = { .name = "probe", .size = sizeof(struct pci_device) };
    static const struct pci_identity identity = { .vendor = 1, .device = 2, .class_code = 0xff0000 };
    struct error err;
    struct pci_device *probe = device_allocate(&board->env, &type, NULL, &err);

    pci_device_attach(probe, board->env.pci_bus, PCI_DEVFN(2, 0), &identity, &err);
    pci_set_interrupt_pin(probe, 1);
    cr_assert_not(pic_requested(11));
    pci_intx_set(probe, true);
    cr_assert(pic_requested(11));
    config_write(PCI_DEVFN(31, 0), 0x6a, 1, 0x05); /* PIRQ G to interrupt 5, edge triggered in ELCR */
    cr_assert_not(pic_requested(11));
    cr_assert(pic_requested(5));
    config_write(PCI_DEVFN(31, 0), 0x6a, 1, 0x80);
    port_space_write(ports, 0x4d0, 1, 1 << 5);
    cr_assert_not(pic_requested(5));
    config_write(PCI_DEVFN(31, 0), 0x6a, 1, 0x0d); /* reserved */
    cr_assert_not(pic_requested(13));
    pci_device_detach(probe);
    device_destroy(&probe->device);
}

Test(q35, add_device)
{
    struct error err = { 0 };

    cr_assert_eq(board_add_device(board, "isa-debug-exit,iobase=0xf4,iosize=4", &err), 0, "%s", err.text);
    port_space_write(ports, 0xf4, 4, 5);
    cr_assert_eq(exits, 1);
    cr_assert_neq(board_add_device(board, "isa-debug-exi", &err), 0);
    cr_assert_not_null(strstr(err.text, "did you mean 'isa-debug-exit'"), "%s", err.text);
    cr_assert_neq(board_add_device(board, "frobnicator", &err), 0);
    cr_assert_not_null(strstr(err.text, "unknown device type 'frobnicator'"), "%s", err.text);
    cr_assert_neq(board_add_device(board, "isa-debug-exit,iobas=1", &err), 0);
    cr_assert_not_null(strstr(err.text, "iobas"), "%s", err.text);
    cr_assert_neq(board_add_device(board, "", &err), 0);
}

Test(q35, too_little_memory)
{
    struct board_config config = { .ram_size = 4096, .cpu_count = 2, .cpu_ops = &cpu_ops, .cpus = cpus };
    struct error err = { 0 };

    cr_assert_null(board_create_q35(loop, &machine_clock, mem, ports, &config, &machine_ops, NULL, &err));
    cr_assert_not_null(strstr(err.text, "-m"), "%s", err.text);
}

/* Every port and the chip set's MMIO, at random sizes and values: the board must live, and reset to its first state. */
Test(q35, random_accesses, .timeout = 60)
{
    static const gpa_t windows[] = { IOAPIC_BASE, HPET_BASE, LAPIC_BASE, Q35_ECAM_BASE, Q35_ECAM_BASE + (0xf8 << 12) };
    uint64_t state = 7;

    for (unsigned i = 0; i < 200000; i++) {
        unsigned size;
        uint32_t value;

        state = state * 6364136223846793005ull + 1442695040888963407ull;
        size = 1u << (state >> 61) % 3;
        value = state >> 24;
        if (state >> 60 & 1) {
            gpa_t address = windows[(state >> 40) % ARRAY_SIZE(windows)] + (state >> 45) % 0x400;

            physmem_mmio_write(mem, address, size, value);
            physmem_mmio_read(mem, address, size);
        } else {
            uint16_t port = (state >> 40) % 4 ? (state >> 44) % 0x700 : 0xcf8 + (state >> 44) % 8;

            port_space_write(ports, port, size, value);
            port_space_read(ports, port, size);
        }
    }
    board_reset(board);
    cr_assert_eq(config_read(0, 0, 4), 0x29c08086);
    cr_assert_eq(physmem_mmio_read(mem, Q35_ECAM_BASE, 4), 0x29c08086);
    cr_assert_eq(config_read(PCI_DEVFN(31, 0), 0x60, 4), 0x0b0b0a0a);
}
