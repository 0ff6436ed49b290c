/* A guest that writes anything anywhere, and reads it back, with time passing: nothing may crash, hang or trip a
 * sanitizer, and the interrupt controllers' outputs must still agree with their registers. EIDOLON_SEED and
 * EIDOLON_FUZZ_OPS override. */
#include <criterion/criterion.h>
#include <stdlib.h>

#include "devices/board/acpi_pm.h"
#include "devices/board/i8042.h"
#include "devices/board/reset_ports.h"
#include "devices/char/debugcon.h"
#include "devices/char/uart16550.h"
#include "devices/irq/isa_irq.h"
#include "devices/irq/lapic.h"
#include "devices/timer/hpet.h"
#include "devices/timer/pit.h"
#include "devices/timer/rtc.h"
#include "rig.h"

#define DEFAULT_OPS 1000000u

static struct rig rig;
static struct isa_irq_router router;
static struct chardev *chardev;
static struct lapic *lapics[RIG_CPUS];
static struct device *devices[16];
static unsigned device_count;

static void own(void *device)
{
    cr_assert_not_null(device);
    devices[device_count++] = device;
}

static void build(void)
{
    struct irq_line line;
    struct hpet *hpet;
    struct pic *pic;
    struct pit *pit;
    struct ioapic *ioapic;

    rig_init(&rig);
    chardev = chardev_create(rig.env.loop, "null", NULL, NULL);
    own(pic = pic_create(&rig.env, &rig.bus, NULL));
    own(ioapic = ioapic_create(&rig.env, &rig.bus, IOAPIC_BASE, NULL));
    for (unsigned n = 0; n < RIG_CPUS; n++)
        own(lapics[n] = lapic_create(&rig.env, n, &rig.bus, &rig_cpu_ops, &rig.cpu[n], NULL));
    isa_irq_wire(&router, &rig.env, pic, ioapic);
    own(hpet = hpet_create(&rig.env, HPET_BASE, NULL));
    line = hpet_pit_line(hpet);
    own(pit = pit_create(&rig.env, &line, NULL));
    line = hpet_rtc_line(hpet);
    own(rtc_create(&rig.env, &line, (int64_t)clock_wall_ns(), NULL));
    own(acpi_pm_create(&rig.env, ACPI_PM_ICH9, ACPI_PM_BASE, &rig.env.isa_irq[ACPI_SCI_IRQ], NULL));
    own(i8042_create(&rig.env, NULL));
    own(reset_ports_create(&rig.env, pit, NULL));
    own(uart16550_create(&rig.env, 0, chardev, NULL));
    own(debugcon_create(&rig.env, 0xe9, chardev, NULL));
}

static void teardown(void)
{
    while (device_count)
        device_destroy(devices[--device_count]);
    chardev_destroy(chardev);
    rig_destroy(&rig);
}

static uint16_t random_port(uint64_t r)
{
    static const struct {
        uint16_t first, count;
    } ranges[] = {
        { 0x20, 2 }, { 0xa0, 2 }, { 0x4d0, 2 }, { 0x40, 4 }, { 0x60, 5 },  { 0x70, 2 },     { 0x80, 1 },
        { 0x92, 1 }, { 0xb2, 2 }, { 0xcf9, 1 }, { 0xe9, 1 }, { 0x3f8, 8 }, { 0x600, 0x80 }, { 0x3f6, 12 },
    };
    unsigned i = r % ARRAY_SIZE(ranges);

    return (uint16_t)(ranges[i].first + (r >> 8) % ranges[i].count);
}

/* Values that mean something more often than chance would have it. */
static uint64_t random_value(uint64_t r)
{
    switch (r >> 60) {
    case 0:
        return 0;
    case 1:
        return ~0ull;
    case 2:
        return 1ull << (r & 63);
    case 3:
        return r & 0xff;
    default:
        return r;
    }
}

static void port_op(uint64_t *seed)
{
    uint64_t r = rig_random(seed);
    uint16_t port = random_port(r);
    unsigned size = 1u << (r >> 40) % 3;

    if (r >> 63)
        port_space_read(rig.env.ports, port, size);
    else
        port_space_write(rig.env.ports, port, size, (uint32_t)random_value(rig_random(seed)));
}

static void mmio_op(uint64_t *seed)
{
    uint64_t r = rig_random(seed);
    gpa_t gpa = (r & 1 ? HPET_BASE : IOAPIC_BASE) + (r & 1 ? (r >> 8) % 0x200 : (r >> 8) % 0x50);
    unsigned size = (unsigned)(r >> 40) % 8 + 1;

    if (r & 2)
        gpa &= ~7ull;
    if (r & 4)
        size = 4;
    if (r >> 63)
        physmem_mmio_read(rig.env.mem, gpa, size);
    else
        physmem_mmio_write(rig.env.mem, gpa, size, random_value(rig_random(seed)));
}

static void apic_op(uint64_t *seed)
{
    static const unsigned sizes[] = { 1, 2, 4, 4, 4, 4, 3, 8 };
    uint64_t r = rig_random(seed), value = random_value(rig_random(seed));
    struct lapic *lapic = lapics[r % RIG_CPUS];
    unsigned offset = (unsigned)(r >> 8) & 0xfff, size = sizes[(r >> 24) & 7];
    uint32_t msr = 0x800 + ((r >> 8) & 0xff);

    if (r >> 28 & 7)
        offset &= ~15u;
    switch (r >> 32 & 15) {
    case 0:
        lapic_msr_write(lapic, 0x1b, value);
        break;
    case 1:
        lapic_msr_write(lapic, 0x1b, 0xfee00800 | (r >> 50 & 1) << 10);
        break;
    case 2:
        lapic_msr_write(lapic, 0x6e0, fake_time() * 2 + (value & 0xfffff));
        break;
    case 3:
        lapic_msr_write(lapic, msr, value);
        break;
    case 4:
        lapic_msr_read(lapic, msr, &value);
        break;
    case 5:
        lapic_set_tpr(lapic, (uint8_t)value);
        break;
    case 6:
        lapic_mmio_write(lapic, 0xf0, 4, 0x1ff);
        break;
    case 7:
        lapic_acknowledge(lapic);
        break;
    case 8:
        lapic_mmio_write(lapic, 0xb0, 4, 0);
        break;
    case 9:
        lapic_mmio_read(lapic, offset, size);
        break;
    case 10:
        apic_bus_msi(&rig.bus, 0xfee00000 | (value >> 32 & 0xffffc), (uint32_t)value);
        break;
    case 11:
        lapic_mmio_write(lapic, 0x380, 4, value & 0xffff);
        break;
    default:
        lapic_mmio_write(lapic, offset, size, (uint32_t)value);
        break;
    }
}

static void check(uint64_t first_seed, unsigned op)
{
    for (unsigned n = 0; n < RIG_CPUS; n++) {
        bool intr = rig.cpu[n].intr;

        cr_assert_eq(intr, lapics[n]->output, "seed 0x%llx, op %u: CPU %u", (unsigned long long)first_seed, op, n);
        int vector = lapic_acknowledge(lapics[n]);
        cr_assert_eq(intr, vector >= 0, "seed 0x%llx, op %u: CPU %u has vector %d", (unsigned long long)first_seed, op,
                     n, vector);
    }
}

Test(fuzz, registers, .init = build, .fini = teardown, .timeout = 300)
{
    const char *seed_text = getenv("EIDOLON_SEED"), *ops_text = getenv("EIDOLON_FUZZ_OPS");
    uint64_t first_seed = seed_text ? strtoull(seed_text, NULL, 0) : 1, seed = first_seed;
    unsigned ops = ops_text ? (unsigned)strtoul(ops_text, NULL, 0) : DEFAULT_OPS;

    for (unsigned op = 0; op < ops; op++) {
        uint64_t r = rig_random(&seed);

        switch (r & 7) {
        case 0:
        case 1:
        case 2:
            port_op(&seed);
            break;
        case 3:
        case 4:
            mmio_op(&seed);
            break;
        case 5:
        case 6:
            apic_op(&seed);
            break;
        default:
            if (r >> 60 == 0)
                fake_time_skip(r >> 30 & 0xffffff);
            fake_time_advance(r >> 60 == 1 ? 10000000 : r >> 50);
            break;
        }
        if (op % 1024 == 0)
            check(first_seed, op);
        if (op % 100000 == 99999) {
            for (unsigned i = 0; i < device_count; i++) {
                if (devices[i]->type->state)
                    rig_round_trip(devices[i], NULL);
            }
            check(first_seed, op);
        }
        if (op % 250000 == 249999) {
            for (unsigned i = 0; i < device_count; i++)
                device_reset(devices[i]);
        }
    }
}
