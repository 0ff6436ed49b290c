/* PCI functions on a bus of their own: configuration space, BARs, INTx, MSI, MSI-X, DMA. The host bridge and its ports
 * are tested with the board (test_q35.c). */
#include "devices/pci/pci.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#define RAM_SIZE (4 * MIB)

static pthread_mutex_t lock;
static struct device_env env;
static bool pirq[8];
static uint64_t msi_address[16];
static uint32_t msi_data[16];
static unsigned msi_count;

static void on_pirq(void *opaque, unsigned n, bool level)
{
    (void)opaque;
    pirq[n] = level;
}

static unsigned map_pirq(void *opaque, uint8_t devfn, unsigned pin)
{
    (void)opaque;
    return PCI_SLOT(devfn) + pin;
}

static void on_msi(void *opaque, uint64_t address, uint32_t data)
{
    (void)opaque;
    msi_address[msi_count % 16] = address;
    msi_data[msi_count++ % 16] = data;
}

static const struct pci_bus_ops bus_ops = { .pirq_set = on_pirq, .pirq_map = map_pirq, .msi = on_msi };

/* ---- A device with one BAR of each kind ---- */

struct thing {
    struct pci_device pci;
    uint64_t last_offset, last_value;
};

static uint64_t thing_read(void *opaque, uint64_t offset, unsigned size)
{
    (void)size;
    ((struct thing *)opaque)->last_offset = offset;
    return 0xa0 + offset;
}

static void thing_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
    struct thing *thing = opaque;

    (void)size;
    thing->last_offset = offset;
    thing->last_value = value;
}

static const struct io_ops thing_ops = { .read = thing_read, .write = thing_write, .min_size = 1, .max_size = 8 };
static const struct pci_identity identity = { .vendor = 0x1234, .device = 0x5678, .class_code = 0x020000 };

static void thing_reset(struct device *device)
{
    pci_device_reset((struct pci_device *)device);
}

static void thing_destroy(struct device *device)
{
    pci_device_detach((struct pci_device *)device);
}

static const struct device_type thing_type = {
    .name = "thing",
    .size = sizeof(struct thing),
    .reset = thing_reset,
    .destroy = thing_destroy,
};

static struct thing *thing_create(int devfn)
{
    struct error err = { 0 };
    struct thing *thing = device_allocate(&env, &thing_type, NULL, &err);
    struct pci_device *pci = &thing->pci;

    cr_assert_eq(pci_device_attach(pci, env.pci_bus, devfn, &identity, &err), 0, "%s", err.text);
    cr_assert_eq(pci_bar_register(pci, 0, PCI_BAR_IO, false, 32, &thing_ops, thing, "io", &err), 0);
    cr_assert_eq(pci_bar_register(pci, 1, PCI_BAR_MEM32, false, 4096, &thing_ops, thing, "mem32", &err), 0);
    cr_assert_eq(pci_bar_register(pci, 2, PCI_BAR_MEM64, true, MIB, &thing_ops, thing, "mem64", &err), 0);
    cr_assert_eq(pci_msi_add(pci, 4, &err), 0);
    cr_assert_eq(pci_msix_add(pci, 65, 4, &err), 0);
    pci_set_interrupt_pin(pci, 1);
    pci_device_seal(pci);
    return thing;
}

static void setup(void)
{
    pthread_mutexattr_t attributes;
    struct error err;

    pthread_mutexattr_init(&attributes);
    pthread_mutexattr_settype(&attributes, PTHREAD_MUTEX_RECURSIVE);
    pthread_mutex_init(&lock, &attributes);
    env = (struct device_env){ .mem = physmem_create(RAM_SIZE, &lock, &err), .ports = port_space_create(&lock) };
    cr_assert_not_null(physmem_add_ram(env.mem, 0, RAM_SIZE, 0, "ram", &err));
    env.pci_bus = pci_bus_create(&env, &bus_ops, NULL);
    msi_count = 0;
    memset(pirq, 0, sizeof(pirq));
}

static void teardown(void)
{
    pci_bus_destroy(env.pci_bus);
    port_space_destroy(env.ports);
    physmem_destroy(env.mem);
}

TestSuite(pci, .init = setup, .fini = teardown);

static uint32_t get(struct thing *thing, unsigned offset, unsigned size)
{
    return pci_device_config_read(&thing->pci, offset, size);
}

static void set(struct thing *thing, unsigned offset, unsigned size, uint32_t value)
{
    pci_device_config_write(&thing->pci, offset, size, value);
}

static unsigned capability(struct thing *thing, uint8_t id)
{
    unsigned offset = get(thing, PCI_CAPABILITIES, 1);

    while (offset && get(thing, offset, 1) != id)
        offset = get(thing, offset + 1, 1);
    cr_assert_neq(offset, 0, "capability 0x%x", id);
    return offset;
}

Test(pci, header)
{
    struct thing *thing = thing_create(-1);

    cr_assert_eq(thing->pci.devfn, PCI_DEVFN(1, 0));
    cr_assert_eq(get(thing, 0, 4), 0x56781234);
    cr_assert_eq(get(thing, 9, 1), 0);
    cr_assert_eq(get(thing, 10, 2), 0x0200);
    cr_assert_eq(get(thing, PCI_SUBSYSTEM_VENDOR, 4), 0x11001af4);
    set(thing, 0, 4, 0xffffffff);
    cr_assert_eq(get(thing, 0, 4), 0x56781234, "read-only");
    set(thing, PCI_STATUS, 2, 0xffff);
    cr_assert_eq(get(thing, PCI_STATUS, 2), PCI_STATUS_CAPABILITIES);
    cr_assert_eq(get(thing, 0x100, 4), 0xffffffff, "no extended space");
    cr_assert_eq(pci_bus_config_read(env.pci_bus, 0, PCI_DEVFN(9, 0), 0, 2), 0xffff);
    cr_assert_eq(pci_bus_config_read(env.pci_bus, 3, PCI_DEVFN(1, 0), 0, 1), 0xff);
    device_destroy(&thing->pci.device);
    cr_assert_eq(pci_bus_config_read(env.pci_bus, 0, PCI_DEVFN(1, 0), 0, 4), 0xffffffff);
}

Test(pci, addresses)
{
    struct thing *a = thing_create(PCI_DEVFN(3, 0)), *b = thing_create(PCI_DEVFN(3, 1));
    struct error err = { 0 };
    struct thing *c = device_allocate(&env, &thing_type, NULL, &err);

    cr_assert_eq(pci_device_attach(&c->pci, env.pci_bus, PCI_DEVFN(3, 0), &identity, &err), -16);
    cr_assert_not_null(strstr(err.text, "in use by thing"));
    for (size_t i = 0; i < 4; i++) {
        static const char *const bad[] = { "addr=20", "addr=x", "addr=1.8", "addr=" };
        struct option_list options;

        cr_assert_eq(options_parse(&options, bad[i], NULL, &err), 0);
        cr_assert_eq(pci_device_attach_option(&c->pci, &options, &identity, &err), -22, "%s", bad[i]);
        options_free(&options);
    }
    device_destroy(&a->pci.device), device_destroy(&b->pci.device), device_destroy(&c->pci.device);
}

Test(pci, bar_sizing)
{
    struct thing *thing = thing_create(-1);

    for (unsigned i = 0; i < 6; i++)
        set(thing, PCI_BAR0 + 4 * i, 4, 0xffffffff);
    cr_assert_eq(get(thing, PCI_BAR0, 4), 0xffffffe1);
    cr_assert_eq(get(thing, PCI_BAR0 + 4, 4), 0xfffff000);
    cr_assert_eq(get(thing, PCI_BAR0 + 8, 4), 0xfff0000c);
    cr_assert_eq(get(thing, PCI_BAR0 + 12, 4), 0xffffffff);
    cr_assert_eq(get(thing, PCI_BAR0 + 20, 4), 0);
    device_destroy(&thing->pci.device);
}

Test(pci, bars_map_and_unmap)
{
    struct thing *thing = thing_create(-1);
    uint64_t address;

    set(thing, PCI_BAR0, 4, 0xc000);
    set(thing, PCI_BAR0 + 4, 4, 0xe0000000);
    set(thing, PCI_BAR0 + 8, 4, 0x00000000);
    set(thing, PCI_BAR0 + 12, 4, 0x10);
    cr_assert_eq(port_space_read(env.ports, 0xc004, 1), 0xff, "not decoded before the command register says so");
    set(thing, PCI_COMMAND, 2, PCI_COMMAND_IO | PCI_COMMAND_MEMORY);
    cr_assert_eq(port_space_read(env.ports, 0xc004, 1), 0xa4);
    cr_assert_eq(physmem_mmio_read(env.mem, 0xe0000010, 4), 0xb0);
    cr_assert_eq(physmem_mmio_read(env.mem, 0x1000000020, 4), 0xc0);
    physmem_mmio_write(env.mem, 0xe0000008, 4, 0x12345678);
    cr_assert_eq(thing->last_value, 0x12345678);
    cr_assert(pci_bar_address(&thing->pci, 2, &address));
    cr_assert_eq(address, 0x1000000000);

    set(thing, PCI_BAR0, 4, 0xd000);
    cr_assert_eq(port_space_read(env.ports, 0xc004, 1), 0xff);
    cr_assert_eq(port_space_read(env.ports, 0xd004, 1), 0xa4);
    set(thing, PCI_BAR0 + 4, 4, 0x100000); /* over RAM */
    cr_assert_eq(physmem_mmio_read(env.mem, 0x100010, 4), 0xb0);
    set(thing, PCI_BAR0 + 4, 4, 0xffffffff); /* sizing: decoded nowhere */
    cr_assert_eq(physmem_mmio_read(env.mem, 0x100010, 4), 0);
    cr_assert_not(pci_bar_address(&thing->pci, 1, &address));

    pci_device_reset(&thing->pci);
    cr_assert_eq(port_space_read(env.ports, 0xd004, 1), 0xff);
    cr_assert_eq(physmem_mmio_read(env.mem, 0x1000000020, 4), 0xffffffff);
    device_destroy(&thing->pci.device);
}

Test(pci, intx)
{
    struct thing *a = thing_create(PCI_DEVFN(1, 0)), *b = thing_create(PCI_DEVFN(1, 1));

    pci_intx_set(&a->pci, true);
    cr_assert(pirq[1]);
    cr_assert_eq(get(a, PCI_STATUS, 2) & PCI_STATUS_INTERRUPT, PCI_STATUS_INTERRUPT);
    pci_intx_set(&b->pci, true);
    pci_intx_set(&a->pci, false);
    cr_assert(pirq[1], "shared with the other function");
    set(b, PCI_COMMAND, 2, PCI_COMMAND_INTX_DISABLE);
    cr_assert_not(pirq[1]);
    set(b, PCI_COMMAND, 2, 0);
    cr_assert(pirq[1]);
    device_destroy(&b->pci.device);
    cr_assert_not(pirq[1], "a device that goes away lets go of its line");
    device_destroy(&a->pci.device);
}

Test(pci, msi)
{
    struct thing *thing = thing_create(-1);
    unsigned msi = capability(thing, PCI_CAP_MSI);

    pci_msi_notify(&thing->pci, 0);
    cr_assert_eq(msi_count, 0, "disabled");
    set(thing, msi + 4, 4, 0xfee01003);
    set(thing, msi + 12, 2, 0x41);
    set(thing, msi + 2, 2, 1 | 2 << 4);
    pci_msi_notify(&thing->pci, 0);
    cr_assert_eq(msi_count, 0, "not a bus master");
    set(thing, PCI_COMMAND, 2, PCI_COMMAND_MASTER);
    pci_msi_notify(&thing->pci, 2);
    cr_assert_eq(msi_count, 1);
    cr_assert_eq(msi_address[0], 0xfee01000);
    cr_assert_eq(msi_data[0], 0x42);
    set(thing, msi + 16, 4, 8);
    pci_msi_notify(&thing->pci, 3);
    cr_assert_eq(msi_count, 1, "masked");
    cr_assert_eq(get(thing, msi + 20, 4), 8, "pending");
    set(thing, msi + 16, 4, 0);
    cr_assert_eq(msi_count, 2);
    cr_assert_eq(msi_data[1], 0x43);
    pci_intx_set(&thing->pci, true);
    cr_assert_not(pirq[1], "no INTx while MSI is enabled");
    device_destroy(&thing->pci.device);
}

Test(pci, msix)
{
    struct thing *thing = thing_create(-1);
    unsigned msix = capability(thing, PCI_CAP_MSIX);
    gpa_t table = 0xe0000000;

    cr_assert_eq(get(thing, msix + 2, 2), 64);
    cr_assert_eq(get(thing, msix + 4, 4), 4);
    set(thing, PCI_BAR0 + 16, 4, table);
    set(thing, PCI_COMMAND, 2, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
    set(thing, msix + 2, 2, 0x8000);
    cr_assert_eq(physmem_mmio_read(env.mem, table + 64 * 16 + 12, 4), 1, "masked at first");
    physmem_mmio_write(env.mem, table + 64 * 16, 8, 0xfee02000);
    physmem_mmio_write(env.mem, table + 64 * 16 + 8, 4, 0x99);
    pci_msix_notify(&thing->pci, 64);
    pci_msix_notify(&thing->pci, 65); /* does not exist */
    cr_assert_eq(msi_count, 0);
    cr_assert_eq(physmem_mmio_read(env.mem, table + (get(thing, msix + 8, 4) & ~7u) + 8, 8), 1, "pending bit 64");
    physmem_mmio_write(env.mem, table + 64 * 16 + 12, 4, 0);
    cr_assert_eq(msi_count, 1);
    cr_assert_eq(msi_address[0], 0xfee02000);
    cr_assert_eq(msi_data[0], 0x99);
    set(thing, msix + 2, 2, 0xc000); /* function mask */
    pci_msix_notify(&thing->pci, 64);
    cr_assert_eq(msi_count, 1);
    set(thing, msix + 2, 2, 0x8000);
    cr_assert_eq(msi_count, 2);
    device_destroy(&thing->pci.device);
}

Test(pci, dma)
{
    struct thing *thing = thing_create(-1);
    uint32_t value = 0x11223344;

    cr_assert_not(pci_dma_write(&thing->pci, 0x1000, &value, 4), "not a bus master");
    set(thing, PCI_COMMAND, 2, PCI_COMMAND_MASTER);
    cr_assert(pci_dma_write(&thing->pci, 0x1000, &value, 4));
    value = 0;
    cr_assert(pci_dma_read(&thing->pci, 0x1000, &value, 4));
    cr_assert_eq(value, 0x11223344);
    cr_assert_not(pci_dma_read(&thing->pci, RAM_SIZE, &value, 4));
    device_destroy(&thing->pci.device);
}

/* A guest that writes anything anywhere: nothing may crash, and the identity stays. */
Test(pci, random_config_writes)
{
    struct thing *thing = thing_create(-1);
    uint64_t state = 1;

    for (unsigned i = 0; i < 20000; i++) {
        state = state * 6364136223846793005ull + 1442695040888963407ull;
        set(thing, (state >> 33) % 0x110, 1u << (state >> 60) % 3, state >> 16);
        if (i % 16 == 0) {
            pci_msi_notify(&thing->pci, i);
            pci_msix_notify(&thing->pci, i % 70);
            pci_intx_set(&thing->pci, i & 32);
        }
    }
    cr_assert_eq(get(thing, 0, 4), 0x56781234);
    device_destroy(&thing->pci.device);
    for (unsigned i = 0; i < 8; i++)
        cr_assert_not(pirq[i]);
}
