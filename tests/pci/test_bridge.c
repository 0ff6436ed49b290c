/* Bridges: bus numbers, windows, interrupts, DMA, secondary reset; root ports: hot-plug. On a bus without a board. */
#include "devices/board/machine.h"
#include "devices/pci/pci_internal.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#define RAM_SIZE (4 * MIB)

static pthread_mutex_t lock;
static struct device_env env;
static bool pirq[8];
static unsigned msi_count, unplug_count;
static struct device *devices; /* of -device, newest first */

static void on_pirq(void *opaque, unsigned n, bool level)
{
    (void)opaque;
    pirq[n] = level;
}

static unsigned map_pirq(void *opaque, uint8_t devfn, unsigned pin)
{
    (void)opaque;
    return (PCI_SLOT(devfn) + pin) & 3;
}

static void on_msi(void *opaque, uint64_t address, uint32_t data)
{
    (void)opaque, (void)address, (void)data;
    msi_count++;
}

static const struct pci_bus_ops bus_ops = { .pirq_set = on_pirq, .pirq_map = map_pirq, .msi = on_msi };

static void forget(struct device *device)
{
    struct device **link = &devices;

    while (*link != device)
        link = &(*link)->next;
    *link = device->next;
    device_destroy(device);
}

static void on_unplugged(struct device_env *of, struct device *device)
{
    (void)of;
    unplug_count++;
    forget(device);
}

static struct device *add(const char *text, struct error *err)
{
    struct option_list options;
    struct device *device;

    cr_assert_eq(options_parse(&options, text, "driver", err), 0);
    device = device_create(&env, device_type_find(options_get(&options, "driver")), options_get(&options, "id"),
                           &options, err);
    if (device) {
        device->next = devices;
        devices = device;
        cr_assert_eq(options_check_all_used(&options, "", err), 0, "%s", err->text);
    }
    options_free(&options);
    return device;
}

static struct pci_device *must_add(const char *text)
{
    struct error err = { "" };
    struct device *device = add(text, &err);

    cr_assert_not_null(device, "%s: %s", text, err.text);
    return (struct pci_device *)device;
}

static void setup(void)
{
    pthread_mutexattr_t attributes;
    struct error err;

    pthread_mutexattr_init(&attributes);
    pthread_mutexattr_settype(&attributes, PTHREAD_MUTEX_RECURSIVE);
    pthread_mutex_init(&lock, &attributes);
    env = (struct device_env){
        .mem = physmem_create(RAM_SIZE, &lock, &err),
        .ports = port_space_create(&lock),
        .unplugged = on_unplugged,
    };
    cr_assert_not_null(physmem_add_ram(env.mem, 0, RAM_SIZE, 0, "ram", &err));
    env.pci_bus = pci_bus_create(&env, &bus_ops, NULL);
    cr_assert_eq(pci_bus_set_name(env.pci_bus, "pcie.0", &err), 0);
    msi_count = unplug_count = 0;
    memset(pirq, 0, sizeof(pirq));
}

static void teardown(void)
{
    while (devices)
        forget(devices);
    pci_bus_destroy(env.pci_bus);
    cr_assert_null(env.buses);
    port_space_destroy(env.ports);
    physmem_destroy(env.mem);
}

TestSuite(bridge, .init = setup, .fini = teardown);

static uint32_t get(unsigned bus, uint8_t devfn, unsigned offset, unsigned size)
{
    return pci_bus_config_read(env.pci_bus, bus, devfn, offset, size);
}

static void set(unsigned bus, uint8_t devfn, unsigned offset, unsigned size, uint32_t value)
{
    pci_bus_config_write(env.pci_bus, bus, devfn, offset, size, value);
}

/* ---- Something to plug in ---- */

struct thing {
    struct pci_device pci;
    unsigned resets;
};

static uint64_t thing_read(void *opaque, uint64_t offset, unsigned size)
{
    (void)opaque, (void)size;
    return 0xa0 + offset;
}

static void thing_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
    (void)opaque, (void)offset, (void)size, (void)value;
}

static void thing_reset(struct device *device)
{
    ((struct thing *)device)->resets++;
    pci_device_reset((struct pci_device *)device);
}

static void thing_destroy(struct device *device)
{
    pci_device_detach((struct pci_device *)device);
}

static const struct io_ops thing_ops = { .read = thing_read, .write = thing_write, .min_size = 1, .max_size = 8 };
static const struct pci_identity thing_identity = { .vendor = 0x1234, .device = 0x5678, .class_code = 0x020000 };
static const struct device_type thing_type = {
    .name = "thing",
    .size = sizeof(struct thing),
    .reset = thing_reset,
    .destroy = thing_destroy,
};

static struct thing *plug(const char *options_text)
{
    struct error err = { "" };
    struct thing *thing = device_allocate(&env, &thing_type, NULL, &err);
    struct pci_device *pci = &thing->pci;
    struct option_list options;

    cr_assert_eq(options_parse(&options, options_text, NULL, &err), 0);
    cr_assert_eq(pci_device_attach_option(pci, &options, &thing_identity, &err), 0, "%s", err.text);
    options_free(&options);
    cr_assert_eq(pci_bar_register(pci, 0, PCI_BAR_IO, false, 32, &thing_ops, thing, "io", &err), 0);
    cr_assert_eq(pci_bar_register(pci, 1, PCI_BAR_MEM32, false, 4096, &thing_ops, thing, "mem32", &err), 0);
    cr_assert_eq(pci_bar_register(pci, 2, PCI_BAR_MEM64, true, 65536, &thing_ops, thing, "mem64", &err), 0);
    pci_set_interrupt_pin(pci, 1);
    pci_device_seal(pci);
    thing->pci.device.next = devices;
    devices = &thing->pci.device;
    return thing;
}

/* Root port in slot 3, bus 1 behind it; with decoding on. */
static struct pci_device *port(void)
{
    struct pci_device *pci = must_add("pcie-root-port,id=rp,chassis=1,slot=7,port=0x12,bus=pcie.0,addr=0x3");

    set(0, PCI_DEVFN(3, 0), PCI_PRIMARY_BUS, 4, 0x00010100);
    set(0, PCI_DEVFN(3, 0), PCI_COMMAND, 2, 7);
    return pci;
}

/* ---- Bridges ---- */

Test(bridge, bus_numbers)
{
    must_add("pci-bridge,id=outer,chassis_nr=1,addr=2");
    must_add("pci-bridge,id=inner,chassis_nr=2,bus=outer,addr=0x4.0x0");
    plug("bus=inner,addr=9");
    cr_assert_eq(get(1, PCI_DEVFN(4, 0), 0, 4), 0xffffffff, "not numbered yet");
    set(0, PCI_DEVFN(2, 0), PCI_SECONDARY_BUS, 1, 1);
    set(0, PCI_DEVFN(2, 0), PCI_SUBORDINATE_BUS, 1, 5);
    cr_assert_eq(get(1, PCI_DEVFN(4, 0), 0, 4), 0x00011b36);
    cr_assert_eq(get(1, PCI_DEVFN(4, 0), PCI_HEADER_TYPE, 1), 1);
    set(1, PCI_DEVFN(4, 0), PCI_SECONDARY_BUS, 1, 5);
    set(1, PCI_DEVFN(4, 0), PCI_SUBORDINATE_BUS, 1, 5);
    cr_assert_eq(get(5, PCI_DEVFN(9, 0), 0, 4), 0x56781234);
    cr_assert_eq(get(4, PCI_DEVFN(9, 0), 0, 4), 0xffffffff);
    set(0, PCI_DEVFN(2, 0), PCI_SUBORDINATE_BUS, 1, 4);
    cr_assert_eq(get(5, PCI_DEVFN(9, 0), 0, 4), 0xffffffff, "the outer bridge passes only up to 4");
}

/* All bridges say the same numbers: whatever is found, it ends. */
Test(bridge, numbers_that_make_no_sense)
{
    must_add("pci-bridge,id=outer,chassis_nr=1,addr=2");
    must_add("pci-bridge,id=inner,chassis_nr=2,bus=outer,addr=4");
    set(0, PCI_DEVFN(2, 0), PCI_PRIMARY_BUS, 4, 0x00ff0101);
    set(1, PCI_DEVFN(4, 0), PCI_PRIMARY_BUS, 4, 0x00ff0101);
    for (unsigned number = 0; number < 256; number++)
        get(number, PCI_DEVFN(4, 0), 0, 4);
}

Test(bridge, windows)
{
    struct thing *thing;
    uint64_t address;

    port();
    thing = plug("bus=rp");
    cr_assert_eq(thing->pci.devfn, 0);
    set(1, 0, PCI_COMMAND, 2, 7);
    set(1, 0, PCI_BAR0, 4, 0x2040);
    set(1, 0, PCI_BAR0 + 4, 4, 0xe0100000);
    set(1, 0, PCI_BAR0 + 8, 4, 0x00000000);
    set(1, 0, PCI_BAR0 + 12, 4, 0x12);
    cr_assert_not(pci_bar_address(&thing->pci, 0, &address), "no windows yet");
    cr_assert_not(pci_bar_address(&thing->pci, 1, &address));
    set(0, PCI_DEVFN(3, 0), PCI_IO_BASE, 2, 0x2020);
    cr_assert(pci_bar_address(&thing->pci, 0, &address));
    cr_assert_eq(port_space_read(env.ports, 0x2041, 1), 0xa1);
    set(0, PCI_DEVFN(3, 0), PCI_MEMORY_BASE, 4, 0xe010e010);
    cr_assert_eq(physmem_mmio_read(env.mem, 0xe0100004, 4), 0xa4);
    cr_assert_not(pci_bar_address(&thing->pci, 2, &address));
    set(0, PCI_DEVFN(3, 0), PCI_PREFETCH_BASE, 4, 0x00000000);
    set(0, PCI_DEVFN(3, 0), PCI_PREFETCH_BASE_HIGH, 4, 0x12);
    set(0, PCI_DEVFN(3, 0), PCI_PREFETCH_LIMIT_HIGH, 4, 0x12);
    cr_assert_eq(physmem_mmio_read(env.mem, 0x1200000008, 4), 0xa8);
    set(0, PCI_DEVFN(3, 0), PCI_COMMAND, 2, 4);
    cr_assert_not(pci_bar_address(&thing->pci, 0, &address), "the bridge decodes nothing");
    cr_assert_not(pci_bar_address(&thing->pci, 1, &address));
    set(0, PCI_DEVFN(3, 0), PCI_COMMAND, 2, 7);
    cr_assert(pci_bar_address(&thing->pci, 1, &address));
}

Test(bridge, interrupts_and_dma)
{
    struct thing *thing;
    uint32_t word;

    must_add("pci-bridge,id=b,chassis_nr=1,addr=2");
    thing = plug("bus=b,addr=5");
    set(0, PCI_DEVFN(2, 0), PCI_PRIMARY_BUS, 4, 0x00010100);
    pci_intx_set(&thing->pci, true);
    cr_assert(pirq[(2 + 5 + 0) & 3], "INTA# of slot 5 is INTB# of the bridge in slot 2");
    pci_intx_set(&thing->pci, false);
    cr_assert_not(pirq[3]);
    set(1, PCI_DEVFN(5, 0), PCI_COMMAND, 2, PCI_COMMAND_MASTER);
    cr_assert_not(pci_dma_read(&thing->pci, 0x1000, &word, 4), "the bridge is no master");
    set(0, PCI_DEVFN(2, 0), PCI_COMMAND, 2, PCI_COMMAND_MASTER);
    cr_assert(pci_dma_read(&thing->pci, 0x1000, &word, 4));
}

Test(bridge, secondary_reset)
{
    struct thing *thing;

    must_add("pci-bridge,id=b,chassis_nr=1,addr=2");
    thing = plug("bus=b,addr=5");
    thing->resets = 0;
    set(0, PCI_DEVFN(2, 0), PCI_BRIDGE_CONTROL, 2, PCI_BRIDGE_CONTROL_RESET);
    set(0, PCI_DEVFN(2, 0), PCI_BRIDGE_CONTROL, 2, PCI_BRIDGE_CONTROL_RESET);
    cr_assert_eq(thing->resets, 1);
    set(0, PCI_DEVFN(2, 0), PCI_BRIDGE_CONTROL, 2, 0);
    set(0, PCI_DEVFN(2, 0), PCI_BRIDGE_CONTROL, 2, PCI_BRIDGE_CONTROL_RESET);
    cr_assert_eq(thing->resets, 2);
}

Test(bridge, mistakes)
{
    static const struct {
        const char *device, *message;
    } cases[] = {
        { "pci-bridge,id=b", "chassis_nr" },
        { "pci-bridge,id=b,chassis_nr=1,shpc=on", "shpc" },
        { "pci-bridge,id=b,chassis_nr=1,bus=nowhere", "no such bus" },
        { "pci-bridge,id=pcie.0,chassis_nr=1", "already" },
        { "pci-bridge,id=b,chassis_nr=1,addr=20", "addr" },
        { "pci-bridge,id=b,chassis_nr=1,addr=3.8", "addr" },
        { "pcie-root-port,id=b,slot=9000", "slot" },
        { "pcie-root-port,id=b,chassis=256", "chassis" },
        { "pcie-root-port,id=b,slot=7,chassis=1", "rp" },
        { "pcie-root-port,id=b,slot=8,bus=rp", "root bus" },
        { "pci-bridge,id=b,chassis_nr=1,bus=rp,addr=1", "slot 0" },
        { "pci-bridge,id=b,chassis_nr=1,addr=3", "in use" },
    };

    port();
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct error err = { "" };

        cr_assert_null(add(cases[i].device, &err), "%s", cases[i].device);
        cr_assert_not_null(strstr(err.text, cases[i].message), "%s: %s", cases[i].device, err.text);
    }
    must_add("pci-bridge,id=b,chassis_nr=1,bus=rp");
}

Test(bridge, multifunction)
{
    must_add("pcie-root-port,id=a,slot=1,addr=0x2,multifunction=on");
    must_add("pcie-root-port,id=b,slot=2,addr=0x2.0x1");
    cr_assert_eq(get(0, PCI_DEVFN(2, 0), PCI_HEADER_TYPE, 1), 0x81);
    must_add("pcie-root-port,id=c,slot=3,addr=0x4");
    must_add("pcie-root-port,id=d,slot=4,addr=0x4.0x3");
    cr_assert_eq(get(0, PCI_DEVFN(4, 0), PCI_HEADER_TYPE, 1), 0x81,
                 "function 0 tells of the others without being told");
    device_reset(&env.pci_bus->functions[PCI_DEVFN(4, 0)]->device);
    cr_assert_eq(get(0, PCI_DEVFN(4, 0), PCI_HEADER_TYPE, 1), 0x81);
}

/* ---- Hot-plug ---- */

static unsigned express(void)
{
    unsigned offset = get(0, PCI_DEVFN(3, 0), PCI_CAPABILITIES, 1);

    while (offset && get(0, PCI_DEVFN(3, 0), offset, 1) != PCI_CAP_EXPRESS)
        offset = get(0, PCI_DEVFN(3, 0), offset + 1, 1);
    cr_assert_neq(offset, 0);
    return offset;
}

static uint16_t slot_status(void)
{
    return (uint16_t)get(0, PCI_DEVFN(3, 0), express() + 0x1a, 2);
}

static void slot_control(uint16_t value)
{
    set(0, PCI_DEVFN(3, 0), express() + 0x18, 2, value);
}

Test(bridge, root_port_identity)
{
    unsigned offset;

    port();
    offset = express();
    cr_assert_eq(get(0, PCI_DEVFN(3, 0), 0, 4), 0x000c1b36);
    cr_assert_eq(get(0, PCI_DEVFN(3, 0), offset + 2, 2) >> 4 & 0x1f, 4 | 0x10, "root port with a slot");
    cr_assert_eq(get(0, PCI_DEVFN(3, 0), offset + 0x0c, 4) >> 24, 0x12, "port number");
    cr_assert_eq(get(0, PCI_DEVFN(3, 0), offset + 0x14, 4) >> 19, 7, "slot number");
    cr_assert_eq(slot_status() & 0x40, 0, "empty");
}

Test(bridge, hot_plug)
{
    unsigned offset;

    port();
    offset = express();
    slot_control(0x20 | 0x08);                        /* interrupt when the presence changes */
    set(0, PCI_DEVFN(3, 0), offset + 0x1a, 2, 0x11f); /* the command has completed */
    cr_assert_not(pirq[3]);
    plug("bus=rp");
    cr_assert_eq(slot_status() & 0x48, 0x48, "present, and that is news");
    cr_assert_eq(get(0, PCI_DEVFN(3, 0), offset + 0x12, 2) & 0x2000, 0x2000, "link");
    cr_assert(pirq[3], "INTA# of slot 3");
    set(0, PCI_DEVFN(3, 0), offset + 0x1a, 2, 0x08);
    cr_assert_not(pirq[3]);
    cr_assert_eq(get(1, 0, 0, 4), 0x56781234);
}

Test(bridge, hot_unplug)
{
    struct pci_device *rp = port();

    pcie_root_port_request_unplug(rp);
    cr_assert_eq(slot_status() & 1, 0, "nothing is there");
    plug("bus=rp");
    slot_control(0x21 | 0x100); /* power and its indicator on; interrupt for the button */
    set(0, PCI_DEVFN(3, 0), express() + 0x1a, 2, 0x11f);
    pcie_root_port_request_unplug(rp);
    cr_assert_eq(slot_status() & 1, 1, "attention button");
    cr_assert(pirq[3]);
    cr_assert_eq(unplug_count, 0);
    slot_control(0x21 | 0x200); /* blinking */
    cr_assert_eq(slot_status() & 0x10, 0x10, "command completed");
    slot_control(0x21 | 0x700); /* power off, indicator off */
    cr_assert_eq(unplug_count, 1);
    cr_assert_eq(slot_status() & 0x48, 0x08, "gone");
    cr_assert_eq(get(1, 0, 0, 4), 0xffffffff);
    slot_control(0x21 | 0x100);
    slot_control(0x21 | 0x700);
    cr_assert_eq(unplug_count, 1);
}

/* Power off without anybody having asked for it: the device stays. */
Test(bridge, power_off_alone_ejects_nothing)
{
    port();
    plug("bus=rp");
    slot_control(0x700);
    cr_assert_eq(unplug_count, 0);
    cr_assert_eq(slot_status() & 0x40, 0x40);
    cr_assert_eq(get(0, PCI_DEVFN(3, 0), express() + 0x12, 2) & 0x2000, 0, "the link is down");
}

Test(bridge, root_port_state)
{
    struct pci_device *rp = port();
    struct state_buffer first = { 0 }, second = { 0 };
    struct error err = { "" };

    plug("bus=rp");
    slot_control(0x128);
    pcie_root_port_request_unplug(rp);
    cr_assert_eq(state_save(&first, rp->device.type->state, rp, &err), 0, "%s", err.text);
    device_reset(&rp->device);
    cr_assert_eq(state_load(&first, rp->device.type->state, rp, &err), 0, "%s", err.text);
    cr_assert_eq(state_save(&second, rp->device.type->state, rp, &err), 0);
    cr_assert_eq(first.size, second.size);
    cr_assert_eq(memcmp(first.data, second.data, first.size), 0);
    state_buffer_free(&first);
    state_buffer_free(&second);
}

/* All registers of all of them at random, with functions coming and going. */
Test(bridge, random_accesses, .timeout = 60)
{
    uint64_t state = 3;
    struct pci_device *rp = port();

    must_add("pci-bridge,id=b,chassis_nr=1,addr=2");
    must_add("pci-bridge,id=c,chassis_nr=2,bus=b,addr=4");
    plug("bus=c,addr=1");
    for (unsigned i = 0; i < 100000; i++) {
        unsigned offset, size;

        state = state * 6364136223846793005ull + 1442695040888963407ull;
        size = 1u << (state >> 61) % 3;
        offset = (state >> 40) % (state >> 60 & 1 ? 0x40 : 0x100) & ~(size - 1);
        set((state >> 50) % 4, (state >> 33) % 0x30, offset, size, state >> 20);
        get((state >> 50) % 4, (state >> 33) % 0x30, offset, size);
        if (!rp->secondary->functions[0] && i % 100 == 0)
            plug("bus=rp");
        if (i % 50 == 0)
            pcie_root_port_request_unplug(rp);
    }
}
