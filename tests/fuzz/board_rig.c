/* A q35 board without CPUs whose every input comes from the fuzzer: ports, MMIO, PCI configuration, MSIs, the local
 * APICs' registers, guest memory (for DMA), characters, time, -device, saved states, resets.
 * tests/devices/fake_loop.c is the event loop: time moves when the input says so. */
#include "tests/fuzz/board_rig.h"

#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "devices/char/chardev_internal.h"
#include "devices/irq/apic_bus.h"
#include "devices/irq/lapic.h"
#include "devices/pci/pci.h"
#include "tests/devices/fake_loop.h"

#define MAX_ADDED   4
#define MAX_STEP_NS 50000000ull /* of one operation */

/* ---- A PCI function with one of everything ---- */

struct thing {
    struct pci_device pci;
    uint64_t value;
};

static uint64_t thing_read(void *opaque, uint64_t offset, unsigned size)
{
    (void)size;
    return ((struct thing *)opaque)->value + offset;
}

/* Writing raises interrupts of each kind, and does DMA to wherever it is told. */
static void thing_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
    struct thing *thing = opaque;

    thing->value = value;
    switch (offset & 7) {
    case 0:
        pci_intx_set(&thing->pci, value & 1);
        break;
    case 1:
        pci_msi_notify(&thing->pci, (unsigned)value);
        break;
    case 2:
        pci_msix_notify(&thing->pci, (unsigned)value);
        break;
    case 3:
        pci_dma_write(&thing->pci, value << 4, &value, size);
        break;
    case 4:
        pci_dma_read(&thing->pci, value, &thing->value, size);
        break;
    default:
        break;
    }
}

static const struct io_ops thing_ops = { .read = thing_read, .write = thing_write, .min_size = 1, .max_size = 8 };

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

static void add_thing(struct board *board)
{
    static const struct pci_identity identity = {
        .vendor = 0x1234, .device = 0x5678, .class_code = 0x020000, .express = true
    };
    struct error err = { "" };
    struct thing *thing = device_allocate(&board->env, &thing_type, NULL, &err);
    struct pci_device *pci = &thing->pci;

    fuzz_need(!pci_device_attach(pci, board->env.pci_bus, PCI_DEVFN(3, 0), &identity, &err), &err);
    fuzz_need(!pci_bar_register(pci, 0, PCI_BAR_IO, false, 32, &thing_ops, thing, "io", &err), &err);
    fuzz_need(!pci_bar_register(pci, 1, PCI_BAR_MEM32, false, 64, &thing_ops, thing, "mem32", &err), &err);
    fuzz_need(!pci_bar_register(pci, 2, PCI_BAR_MEM64, true, MIB, &thing_ops, thing, "mem64", &err), &err);
    fuzz_need(!pci_msi_add(pci, 4, &err), &err);
    fuzz_need(!pci_msix_add(pci, 65, 4, &err), &err);
    pci_set_interrupt_pin(pci, 1);
    pci_device_seal(pci);
    thing->pci.device.next = board->devices;
    board->devices = &thing->pci.device;
}

/* ---- What the board calls ---- */

static void request_reset(void *opaque)
{
    ((struct board_rig *)opaque)->reset_requested = true;
}
static void request_shutdown(void *opaque)
{
    (void)opaque;
}
static void request_exit(void *opaque, int status)
{
    (void)opaque, (void)status;
}
static void set_a20(void *opaque, bool enabled)
{
    (void)opaque, (void)enabled;
}

static const struct machine_ops machine_ops = {
    .request_reset = request_reset,
    .request_shutdown = request_shutdown,
    .request_exit = request_exit,
    .set_a20 = set_a20,
};

static void cpu_set_intr(void *cpu, bool level)
{
    ((struct board_rig_cpu *)cpu)->intr = level;
}
static void cpu_signal(void *cpu)
{
    ((struct board_rig_cpu *)cpu)->signals++;
}
static void cpu_sipi(void *cpu, uint8_t vector)
{
    ((struct board_rig_cpu *)cpu)->signals += vector;
}

static const struct board_cpu_ops cpu_ops = {
    .set_intr = cpu_set_intr,
    .nmi = cpu_signal,
    .init = cpu_signal,
    .sipi = cpu_sipi,
    .smi = cpu_signal,
};

/* ---- Life ---- */

void board_rig_create(struct board_rig *rig)
{
    struct error err = { "" };
    struct board_config config = { .ram_size = BOARD_RAM, .cpu_count = BOARD_CPUS, .cpu_ops = &cpu_ops };

    memset(rig, 0, sizeof(*rig));
    fake_loop_restart();
    clock_init(&rig->clock);
    rig->loop = event_loop_create(&rig->clock, &err);
    rig->mem = physmem_create(BOARD_RAM, event_loop_mutex(rig->loop), &err);
    fuzz_need(rig->mem != NULL, &err);
    rig->ports = port_space_create(event_loop_mutex(rig->loop));
    for (unsigned i = 0; i < ARRAY_SIZE(rig->chardevs); i++)
        rig->chardevs[i] = chardev_create(rig->loop, "null", NULL, &err);
    for (unsigned i = 0; i < BOARD_CPUS; i++)
        rig->cpu_handles[i] = &rig->cpus[i];
    config.serial[0] = rig->chardevs[0];
    config.serial[1] = rig->chardevs[1];
    config.debugcon = rig->chardevs[2];
    config.cpus = rig->cpu_handles;
    config.rtc_base_ns = (int64_t)clock_wall_ns();
    rig->board = board_create_q35(rig->loop, &rig->clock, rig->mem, rig->ports, &config, &machine_ops, rig, &err);
    fuzz_need(rig->board != NULL, &err);
    add_thing(rig->board);
}

void board_rig_destroy(struct board_rig *rig)
{
    board_destroy(rig->board);
    for (unsigned i = 0; i < ARRAY_SIZE(rig->chardevs); i++)
        chardev_destroy(rig->chardevs[i]);
    FUZZ_CHECK(fake_timers_armed() == 0); /* nothing is left that would be called later */
    port_space_destroy(rig->ports);
    physmem_destroy(rig->mem);
    event_loop_destroy(rig->loop);
}

/* ---- Operations ---- */

static uint64_t take_value(struct fuzz_input *input, unsigned size)
{
    return size == 8 ? fuzz_u64(input) : size == 4 ? fuzz_u32(input) : size == 2 ? fuzz_u16(input) : fuzz_u8(input);
}

static uint16_t take_port(struct fuzz_input *input)
{
    static const struct {
        uint16_t first, count;
    } ranges[] = {
        { 0x20, 2 },  { 0xa0, 2 },     { 0x4d0, 2 },  { 0x40, 4 },    { 0x60, 5 }, { 0x70, 4 },
        { 0x80, 1 },  { 0x92, 1 },     { 0xb2, 2 },   { 0xcf8, 8 },   { 0xe9, 1 }, { 0x3f8, 8 },
        { 0x2f8, 8 }, { 0x600, 0x80 }, { 0x510, 12 }, { 0xc000, 32 },
    };
    uint8_t which = fuzz_u8(input), offset;

    if (which >= 0xf0)
        return fuzz_u16(input);
    offset = fuzz_u8(input);
    return (uint16_t)(ranges[which % ARRAY_SIZE(ranges)].first + offset % ranges[which % ARRAY_SIZE(ranges)].count);
}

static gpa_t take_gpa(struct fuzz_input *input)
{
    static const gpa_t bases[] = {
        0, 0xa0000, 0xe0000, BOARD_RAM, LAPIC_BASE, IOAPIC_BASE, HPET_BASE, Q35_ECAM_BASE, 0xe0000000, 0xfffff000,
    };
    uint8_t which = fuzz_u8(input);
    unsigned count = ARRAY_SIZE(bases);

    if (which >= 0xf0)
        return fuzz_u64(input);
    return bases[which % count] + (which / count % 2 ? fuzz_u8(input) * 4u : fuzz_u16(input) - (which & 0x80 ? 8u : 0));
}

static void port_operation(struct board_rig *rig, struct fuzz_input *input, bool write)
{
    uint16_t port = take_port(input);
    unsigned size = 1u << fuzz_u8(input) % 3;

    if (write)
        port_space_write(rig->ports, port, size, (uint32_t)take_value(input, size));
    else
        port_space_read(rig->ports, port, size);
}

static void mmio_operation(struct board_rig *rig, struct fuzz_input *input, bool write)
{
    gpa_t gpa = take_gpa(input);
    unsigned size = fuzz_u8(input) % 8 + 1;

    if (write)
        physmem_mmio_write(rig->mem, gpa, size, take_value(input, size > 4 ? 8 : 4));
    else
        physmem_mmio_read(rig->mem, gpa, size);
}

/* Both mechanisms; mostly the functions that exist. */
static void config_operation(struct board_rig *rig, struct fuzz_input *input)
{
    static const uint8_t functions[] = { PCI_DEVFN(0, 0), PCI_DEVFN(31, 0), PCI_DEVFN(3, 0) };
    uint8_t how = fuzz_u8(input);
    uint8_t devfn = how >= 0xe0 ? fuzz_u8(input) : functions[how % ARRAY_SIZE(functions)];
    unsigned offset = how & 4 ? fuzz_u16(input) & 0xfff : fuzz_u8(input), size = 1u << (how >> 3 & 3) % 3;
    uint32_t value = how & 0x20 ? (uint32_t)take_value(input, size) : 0;

    if (how & 0x40) {
        gpa_t gpa = Q35_ECAM_BASE + ((gpa_t)devfn << 12) + offset;

        if (how & 0x20)
            physmem_mmio_write(rig->mem, gpa, size, value);
        else
            physmem_mmio_read(rig->mem, gpa, size);
        return;
    }
    port_space_write(rig->ports, 0xcf8, 4, 0x80000000u | (uint32_t)devfn << 8 | (offset & 0xfc));
    if (how & 0x20)
        port_space_write(rig->ports, (uint16_t)(0xcfc + (offset & 3)), size, value);
    else
        port_space_read(rig->ports, (uint16_t)(0xcfc + (offset & 3)), size);
}

static void lapic_operation(struct board_rig *rig, struct fuzz_input *input)
{
    static const unsigned sizes[] = { 1, 2, 4, 4, 4, 4, 3, 8 };
    uint8_t how = fuzz_u8(input);
    struct lapic *lapic = rig->board->lapics[how % BOARD_CPUS];
    uint64_t value;

    switch (how >> 2 & 15) {
    case 0:
        lapic_msr_write(lapic, 0x1b, fuzz_u64(input));
        break;
    case 1:
        lapic_msr_write(lapic, 0x1b, LAPIC_BASE | 0x800 | (how >> 6 & 1) << 10);
        break;
    case 2:
        lapic_msr_write(lapic, 0x6e0, fake_time() * 2 + fuzz_u16(input));
        break;
    case 3:
        lapic_msr_write(lapic, 0x6e0, fuzz_u64(input));
        break;
    case 4:
        lapic_msr_write(lapic, 0x800u + fuzz_u8(input), fuzz_u64(input));
        break;
    case 5:
        lapic_msr_read(lapic, how & 0x40 ? 0x800u + fuzz_u8(input) : fuzz_u32(input), &value);
        break;
    case 6:
        lapic_set_tpr(lapic, fuzz_u8(input));
        break;
    case 7:
        lapic_acknowledge(lapic);
        break;
    case 8:
        lapic_mmio_write(lapic, 0xb0, 4, 0);
        break;
    case 9:
        lapic_mmio_write(lapic, 0xf0, 4, 0x1ff);
        break;
    case 10:
        lapic_mmio_read(lapic, fuzz_u16(input) & 0xfff, sizes[how >> 6]);
        break;
    case 11:
        lapic_mmio_write(lapic, fuzz_u16(input) & 0xfff, sizes[fuzz_u8(input) & 7], fuzz_u32(input));
        break;
    default:
        lapic_mmio_write(lapic, (unsigned)fuzz_u8(input) << 4, 4, fuzz_u32(input));
        break;
    }
}

static void memory_operation(struct board_rig *rig, struct fuzz_input *input)
{
    gpa_t gpa = take_gpa(input);
    struct fuzz_input data = fuzz_bytes(input, fuzz_u8(input));

    physmem_write(rig->mem, gpa, data.data, data.size);
}

static void time_operation(struct fuzz_input *input)
{
    uint8_t how = fuzz_u8(input);
    uint64_t ns = (uint64_t)(1 + (how & 7)) << (how >> 3); /* up to 17 s */

    if (how & 0x80 && fuzz_u8(input) & 1)
        fake_time_skip(MIN(ns, 100 * MAX_STEP_NS));
    else
        fake_time_advance(MIN(ns, MAX_STEP_NS));
}

static void character_operation(struct board_rig *rig, struct fuzz_input *input)
{
    uint8_t how = fuzz_u8(input);
    struct chardev *chardev = rig->chardevs[how & 1];
    struct fuzz_input data = fuzz_bytes(input, how >> 3);
    const struct chardev_handlers *handlers = &chardev->handlers;

    if (how & 2 && handlers->break_received)
        handlers->break_received(chardev->opaque);
    if (handlers->receive && handlers->can_receive && data.size)
        handlers->receive(chardev->opaque, data.data, MIN(data.size, handlers->can_receive(chardev->opaque)));
    if (how & 4 && handlers->writable)
        handlers->writable(chardev->opaque);
}

/* Options as the command line passes them; ports may be anywhere, also over other devices. */
static void device_operation(struct board_rig *rig, struct fuzz_input *input)
{
    static const char *const starts[] = { "isa-debug-exit", "isa-debug-exit,iobase=0x501,iosize=2",
                                          "isa-debug-exit,iobase=", "" };
    uint8_t how = fuzz_u8(input);
    struct fuzz_input text = fuzz_bytes(input, how >> 2);
    struct error err = { "" };
    char option[128];

    if (rig->added >= MAX_ADDED)
        return;
    strcpy(option, starts[how & 3]);
    strncat(option, (const char *)text.data, text.size);
    if (board_add_device(rig->board, option, &err))
        FUZZ_CHECK(err.text[0]);
    rig->added++;
}

static void state_operation(struct board_rig *rig, struct fuzz_input *input)
{
    uint8_t how = fuzz_u8(input);
    struct device *device = board_rig_stateful(rig, how % 16);

    if (device)
        board_rig_reload(device, input, how >> 5);
}

static void restart(struct board_rig *rig)
{
    rig->reset_requested = false;
    board_reset(rig->board);
}

void board_rig_operation(struct board_rig *rig, struct fuzz_input *input)
{
    uint8_t operation = fuzz_u8(input);

    switch (operation & 15) {
    case 0:
    case 1:
        port_operation(rig, input, false);
        break;
    case 2:
    case 3:
    case 4:
        port_operation(rig, input, true);
        break;
    case 5:
        mmio_operation(rig, input, false);
        break;
    case 6:
    case 7:
        mmio_operation(rig, input, true);
        break;
    case 8:
        config_operation(rig, input);
        break;
    case 9:
    case 10:
        lapic_operation(rig, input);
        break;
    case 11:
        memory_operation(rig, input);
        break;
    case 12:
    case 13:
        time_operation(input);
        break;
    case 14:
        character_operation(rig, input);
        break;
    default:
        switch (operation >> 4) {
        case 0:
            restart(rig);
            break;
        case 1:
        case 2:
            device_operation(rig, input);
            break;
        case 3:
            fake_wall_adjust((int32_t)fuzz_u32(input) * 1000ll);
            break;
        default:
            state_operation(rig, input);
            break;
        }
    }
    if (rig->reset_requested)
        restart(rig);
}

/* ---- Checks ---- */

void board_rig_check(struct board_rig *rig)
{
    for (unsigned n = 0; n < BOARD_CPUS; n++) {
        struct lapic *lapic = rig->board->lapics[n];
        bool intr = rig->cpus[n].intr;
        int vector;

        if (intr != lapic->output)
            FUZZ_FAIL("CPU %u: INTR is %d, the APIC says %d", n, intr, lapic->output);
        vector = lapic_acknowledge(lapic);
        if (intr != (vector >= 0))
            FUZZ_FAIL("CPU %u: INTR is %d, vector %d", n, intr, vector);
    }
}

struct device *board_rig_stateful(struct board_rig *rig, unsigned n)
{
    for (struct device *device = rig->board->devices; device; device = device->next) {
        if (device->type->state && !n--)
            return device;
    }
    return NULL;
}

static void check_unchanged(struct device *device, const struct state_buffer *saved)
{
    struct state_buffer again = { 0 };
    struct error err = { "" };

    fuzz_need(state_save(&again, device->type->state, device, &err) == 0, &err);
    if (again.size != saved->size || memcmp(again.data, saved->data, saved->size))
        FUZZ_FAIL("%s: saved, loaded and saved again: not the same", device->type->name);
    state_buffer_free(&again);
}

void board_rig_reload(struct device *device, struct fuzz_input *input, unsigned changes)
{
    const struct state_table *table = device->type->state;
    struct state_buffer buffer = { 0 };
    struct error err = { "" };
    int result;

    fuzz_need(state_save(&buffer, table, device, &err) == 0, &err);
    for (unsigned i = 0; i < changes; i++) {
        size_t at = fuzz_u16(input) % buffer.size;

        buffer.data[at] = fuzz_u8(input);
    }
    result = state_load(&buffer, table, device, &err);
    if (result)
        FUZZ_CHECK(err.text[0]);
    if (!changes) {
        fuzz_need(result == 0, &err);
        check_unchanged(device, &buffer);
    }
    state_buffer_free(&buffer);
}
