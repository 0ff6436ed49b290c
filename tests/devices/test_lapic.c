/* Local APIC: priorities, EOI, IPIs, modes, timers. SDM Vol. 3A chapter 11. */
#include <criterion/criterion.h>

#include "devices/irq/ioapic.h"
#include "devices/irq/lapic.h"
#include "devices/irq/pic.h"
#include "rig.h"

enum {
    TPR = 0x80,
    PPR = 0xa0,
    EOI = 0xb0,
    LDR = 0xd0,
    DFR = 0xe0,
    SVR = 0xf0,
    ISR = 0x100,
    IRR = 0x200,
    ESR = 0x280,
    ICR = 0x300,
    ICR2 = 0x310,
    LVTT = 0x320,
    LINT0 = 0x350,
    LVTE = 0x370,
    TMICT = 0x380,
    TMCCT = 0x390,
    TDCR = 0x3e0
};

static struct rig rig;
static struct lapic *apic[RIG_CPUS];

static void setup(void)
{
    rig_init(&rig);
    for (unsigned n = 0; n < RIG_CPUS; n++) {
        apic[n] = lapic_create(&rig.env, n, &rig.bus, &rig_cpu_ops, &rig.cpu[n], NULL);
        lapic_mmio_write(apic[n], SVR, 4, 0x1ff);
    }
}

static void teardown(void)
{
    for (unsigned n = 0; n < RIG_CPUS; n++)
        lapic_destroy(apic[n]);
    rig_destroy(&rig);
}

static void wr(unsigned n, unsigned reg, uint32_t value)
{
    lapic_mmio_write(apic[n], reg, 4, value);
}
static uint32_t rd(unsigned n, unsigned reg)
{
    return lapic_mmio_read(apic[n], reg, 4);
}

static void self_ipi(unsigned n, uint8_t vector)
{
    wr(n, ICR, 1 << 18 | vector);
}

static void enable_x2apic(unsigned n)
{
    uint64_t base;

    cr_assert(lapic_msr_read(apic[n], 0x1b, &base));
    cr_assert(lapic_msr_write(apic[n], 0x1b, base | 1 << 10));
}

TestSuite(lapic, .init = setup, .fini = teardown);

Test(lapic, reset_state)
{
    uint64_t base;

    lapic_reset(apic[0]);
    cr_assert_eq(rd(0, SVR), 0xff);
    cr_assert_eq(rd(0, LVTT), 1 << 16);
    cr_assert_eq(rd(0, DFR), 0xffffffff);
    cr_assert_eq(rd(1, 0x20), 1u << 24);
    cr_assert_eq(rd(0, 0x30) & 0xff, 0x14);
    cr_assert(lapic_msr_read(apic[0], 0x1b, &base));
    cr_assert_eq(base, 0xfee00900);
    cr_assert(lapic_msr_read(apic[1], 0x1b, &base));
    cr_assert_eq(base, 0xfee00800);
}

Test(lapic, priorities)
{
    self_ipi(0, 0x41);
    cr_assert(rig.cpu[0].intr);
    cr_assert_eq(lapic_acknowledge(apic[0]), 0x41);
    cr_assert_not(rig.cpu[0].intr);
    cr_assert_eq(rd(0, PPR), 0x40);
    self_ipi(0, 0x4f); /* same class: waits */
    cr_assert_not(rig.cpu[0].intr);
    cr_assert_eq(lapic_acknowledge(apic[0]), -1);
    self_ipi(0, 0x51); /* higher: nests */
    cr_assert(rig.cpu[0].intr);
    cr_assert_eq(lapic_acknowledge(apic[0]), 0x51);
    cr_assert_eq(rd(0, ISR + 0x20), 1u << 17 | 1u << 1);
    wr(0, EOI, 0);
    cr_assert_not(rig.cpu[0].intr);
    wr(0, EOI, 0);
    cr_assert(rig.cpu[0].intr);
    cr_assert_eq(lapic_acknowledge(apic[0]), 0x4f);
    wr(0, EOI, 0);
    wr(0, EOI, 0); /* one too many does nothing */
    cr_assert_eq(rd(0, PPR), 0);
}

Test(lapic, task_priority)
{
    wr(0, TPR, 0x50);
    self_ipi(0, 0x5f);
    cr_assert_not(rig.cpu[0].intr);
    cr_assert_eq(rd(0, PPR), 0x50);
    lapic_set_tpr(apic[0], 0x40);
    cr_assert(rig.cpu[0].intr);
    lapic_set_tpr(apic[0], 0x60);
    cr_assert_not(rig.cpu[0].intr);
    cr_assert_eq(lapic_get_tpr(apic[0]), 0x60);
    lapic_set_tpr(apic[0], 0);
    cr_assert_eq(lapic_acknowledge(apic[0]), 0x5f);
}

Test(lapic, software_disable)
{
    wr(0, LVTT, 0x40);
    wr(0, SVR, 0xff);
    cr_assert_eq(rd(0, LVTT), 0x10040);
    wr(0, LVTT, 0x41);
    cr_assert_eq(rd(0, LVTT), 0x10041, "masks stay set while disabled");
    self_ipi(0, 0x50);
    cr_assert_not(rig.cpu[0].intr);
}

Test(lapic, illegal_vectors)
{
    wr(0, LVTE, 0x33);
    self_ipi(0, 5);
    wr(0, ESR, 0);
    cr_assert_eq(rd(0, ESR), 1 << 5);
    cr_assert_eq(lapic_acknowledge(apic[0]), 0x33);
    wr(0, EOI, 0);
    wr(0, ESR, 0);
    cr_assert_eq(rd(0, ESR), 0);
    apic_bus_msi(&rig.bus, 0xfee00000, 9);
    wr(0, ESR, 0);
    cr_assert_eq(rd(0, ESR), 1 << 6);
    rd(0, 0x10); /* no such register */
    wr(0, ESR, 0);
    cr_assert_eq(rd(0, ESR), 1 << 7);
}

Test(lapic, shorthands)
{
    wr(0, ICR, 3 << 18 | 0x61); /* all but self */
    cr_assert_not(rig.cpu[0].intr);
    cr_assert(rig.cpu[1].intr && rig.cpu[2].intr && rig.cpu[3].intr);
    wr(1, ICR, 2 << 18 | 0x62); /* all */
    cr_assert(rig.cpu[0].intr);
    cr_assert_eq(lapic_acknowledge(apic[1]), 0x62);
}

Test(lapic, init_and_sipi)
{
    wr(2, TPR, 0x70);
    wr(0, ICR2, 2 << 24);
    wr(0, ICR, 5 << 8 | 1 << 14 | 1 << 15);
    cr_assert_eq(rig.cpu[2].inits, 1);
    cr_assert_eq(rd(2, TPR), 0, "INIT resets the APIC");
    cr_assert_eq(rd(2, SVR), 0xff);
    wr(0, ICR, 5 << 8 | 1 << 15); /* de-assert */
    cr_assert_eq(rig.cpu[2].inits, 1);
    wr(0, ICR, 6 << 8 | 0x9a);
    cr_assert_eq(rig.cpu[2].sipis, 1);
    cr_assert_eq(rig.cpu[2].sipi_vector, 0x9a);
    wr(0, ICR, 4 << 8);
    cr_assert_eq(rig.cpu[2].nmis, 1);
    wr(0, ICR, 2 << 8);
    cr_assert_eq(rig.cpu[2].smis, 1);
}

Test(lapic, logical_flat)
{
    for (unsigned n = 0; n < RIG_CPUS; n++)
        wr(n, LDR, 1u << (24 + n));
    wr(0, ICR2, 0x0a000000);
    wr(0, ICR, 1 << 11 | 0x71);
    cr_assert(!rig.cpu[0].intr && rig.cpu[1].intr && !rig.cpu[2].intr && rig.cpu[3].intr);
}

Test(lapic, logical_cluster)
{
    for (unsigned n = 0; n < RIG_CPUS; n++) {
        wr(n, DFR, 0x0fffffff);
        wr(n, LDR, (n / 2) << 28 | 1u << (24 + n % 2));
    }
    wr(0, ICR2, 0x12000000); /* cluster 1, second */
    wr(0, ICR, 1 << 11 | 0x71);
    cr_assert(!rig.cpu[0].intr && !rig.cpu[1].intr && !rig.cpu[2].intr && rig.cpu[3].intr);
    wr(0, ICR2, 0xf1000000); /* first of every cluster */
    wr(0, ICR, 1 << 11 | 0x72);
    cr_assert(rig.cpu[0].intr && !rig.cpu[1].intr && rig.cpu[2].intr);
}

Test(lapic, lowest_priority)
{
    unsigned hits[RIG_CPUS] = { 0 };

    wr(2, TPR, 0x20);
    for (unsigned i = 0; i < 6; i++) {
        apic_bus_msi(&rig.bus, 0xfeeff000, 1 << 8 | 0x81);
        for (unsigned n = 0; n < RIG_CPUS; n++) {
            if (rig.cpu[n].intr) {
                hits[n]++;
                lapic_acknowledge(apic[n]);
                wr(n, EOI, 0);
            }
        }
    }
    cr_assert_eq(hits[2], 0, "runs at a higher priority");
    cr_assert(hits[0] == 2 && hits[1] == 2 && hits[3] == 2, "equals take turns");
}

Test(lapic, physical_broadcast_and_ids)
{
    wr(1, 0x20, 7u << 24);
    wr(0, ICR2, 7u << 24);
    wr(0, ICR, 0x91);
    cr_assert(rig.cpu[1].intr);
    wr(0, ICR2, 0xff000000);
    wr(0, ICR, 0x92);
    cr_assert(rig.cpu[0].intr && rig.cpu[2].intr);
}

Test(lapic, base_msr_rules)
{
    uint64_t value;

    cr_assert_not(lapic_msr_write(apic[0], 0x1b, 0xfee00901), "reserved");
    cr_assert_not(lapic_msr_write(apic[0], 0x1b, 0xfee00500), "x2APIC without enable");
    lapic_set_features(apic[0], 40, true, true);
    cr_assert_not(lapic_msr_write(apic[0], 0x1b, 1ull << 40 | 0x900), "physical address bits");
    cr_assert(lapic_msr_write(apic[0], 0x1b, 0xfee00d00));
    cr_assert_not(lapic_msr_write(apic[0], 0x1b, 0xfee00900), "x2APIC to xAPIC");
    cr_assert(lapic_msr_write(apic[0], 0x1b, 0xfee00100));
    cr_assert_not(lapic_msr_write(apic[0], 0x1b, 0xfee00d00), "disabled to x2APIC");
    cr_assert(lapic_msr_write(apic[0], 0x1b, 0xfee00900));
    cr_assert_eq(rd(0, SVR), 0xff, "as after reset");
    cr_assert_not(lapic_msr_read(apic[0], 0x802, &value), "x2APIC MSRs only in that mode");
    lapic_set_features(apic[0], 40, false, false);
    cr_assert_not(lapic_msr_write(apic[0], 0x1b, 0xfee00d00));
    cr_assert_not(lapic_msr_read(apic[0], 0x6e0, &value));
}

Test(lapic, x2apic_registers)
{
    uint64_t value;
    static const uint16_t read_only[] = { 0x802, 0x803, 0x80a, 0x80d, 0x810, 0x818, 0x820, 0x839 };
    static const uint16_t absent[] = { 0x800, 0x809, 0x80c, 0x80e, 0x82f, 0x831, 0x83a, 0x840, 0x8ff };

    enable_x2apic(1);
    cr_assert(lapic_msr_read(apic[1], 0x802, &value) && value == 1);
    cr_assert(lapic_msr_read(apic[1], 0x80d, &value) && value == 2);
    for (unsigned i = 0; i < ARRAY_SIZE(read_only); i++) {
        cr_assert(lapic_msr_read(apic[1], read_only[i], &value), "0x%x", read_only[i]);
        cr_assert_not(lapic_msr_write(apic[1], read_only[i], 0), "0x%x", read_only[i]);
    }
    for (unsigned i = 0; i < ARRAY_SIZE(absent); i++) {
        cr_assert_not(lapic_msr_read(apic[1], absent[i], &value), "0x%x", absent[i]);
        cr_assert_not(lapic_msr_write(apic[1], absent[i], 0), "0x%x", absent[i]);
    }
    cr_assert_not(lapic_msr_read(apic[1], 0x80b, &value), "EOI is write-only");
    cr_assert_not(lapic_msr_write(apic[1], 0x80b, 1));
    cr_assert_not(lapic_msr_write(apic[1], 0x808, 0x100));
    cr_assert_not(lapic_msr_write(apic[1], 0x828, 1));
    cr_assert_not(lapic_msr_write(apic[1], 0x830, 1 << 20));
    cr_assert_not(lapic_msr_write(apic[1], 0x832, 1ull << 32));
    cr_assert(lapic_msr_write(apic[1], 0x83f, 0x77)); /* self IPI */
    cr_assert_eq(lapic_acknowledge(apic[1]), 0x77);
    cr_assert(lapic_msr_write(apic[1], 0x80b, 0));
    cr_assert_eq(lapic_mmio_read(apic[1], 0x20, 4), 0xffffffff, "no MMIO in x2APIC mode");
}

Test(lapic, x2apic_destinations)
{
    for (unsigned n = 0; n < RIG_CPUS; n++)
        enable_x2apic(n);
    cr_assert(lapic_msr_write(apic[0], 0x830, 2ull << 32 | 0x51));
    cr_assert(rig.cpu[2].intr && !rig.cpu[1].intr);
    cr_assert(lapic_msr_write(apic[0], 0x830, 0x0000000aull << 32 | 1 << 11 | 0x52)); /* cluster 0: 1 and 3 */
    cr_assert(rig.cpu[1].intr && rig.cpu[3].intr && !rig.cpu[0].intr);
    cr_assert(lapic_msr_write(apic[0], 0x830, 0x0001000aull << 32 | 1 << 11 | 0x53)); /* cluster 1: nobody */
    cr_assert_not(rig.cpu[0].intr);
    cr_assert(lapic_msr_write(apic[0], 0x830, 0xffffffffull << 32 | 0x54));
    cr_assert(rig.cpu[0].intr);
}

Test(lapic, x2apic_logical_destination_needs_the_cluster)
{
    for (unsigned n = 0; n < RIG_CPUS; n++)
        enable_x2apic(n);
    cr_assert(lapic_msr_write(apic[0], 0x830, 0x0001000full << 32 | 1 << 11 | 0x53)); /* all of cluster 1 */
    cr_assert(lapic_msr_write(apic[0], 0x830, 0x8000000full << 32 | 1 << 11 | 0x54));
    for (unsigned n = 0; n < RIG_CPUS; n++)
        cr_assert_not(rig.cpu[n].intr, "CPU %u is in cluster 0", n);
    cr_assert(lapic_msr_write(apic[0], 0x830, 0x0000000full << 32 | 1 << 11 | 0x55));
    for (unsigned n = 0; n < RIG_CPUS; n++)
        cr_assert(rig.cpu[n].intr, "CPU %u", n);
}

Test(lapic, narrow_accesses)
{
    wr(0, ICR2, 0xab000000);
    cr_assert_eq(lapic_mmio_read(apic[0], ICR2 + 3, 1), 0xab);
    cr_assert_eq(lapic_mmio_read(apic[0], ICR2 + 4, 4), 0);
    lapic_mmio_write(apic[0], TPR, 1, 0x55);
    cr_assert_eq(rd(0, TPR), 0);
}

/* ---- Timer ---- */

Test(lapic, one_shot)
{
    wr(0, TDCR, 0xb); /* by 1 */
    wr(0, LVTT, 0x40);
    wr(0, TMICT, 1000);
    fake_time_advance(400);
    cr_assert_eq(rd(0, TMCCT), 600);
    cr_assert_not(rig.cpu[0].intr);
    fake_time_advance(599);
    cr_assert_not(rig.cpu[0].intr);
    fake_time_advance(1);
    cr_assert(rig.cpu[0].intr);
    cr_assert_eq(rd(0, TMCCT), 0);
    cr_assert_eq(rd(0, TMICT), 1000);
    cr_assert_eq(fake_timers_armed(), 0);
}

Test(lapic, divider)
{
    static const struct {
        uint32_t code;
        unsigned divide;
    } table[] = {
        { 0, 2 }, { 1, 4 }, { 2, 8 }, { 3, 16 }, { 8, 32 }, { 9, 64 }, { 10, 128 }, { 11, 1 },
    };

    for (unsigned i = 0; i < ARRAY_SIZE(table); i++) {
        wr(0, TDCR, table[i].code);
        wr(0, TMICT, 100000);
        fake_time_advance(1000 * 128);
        cr_assert_eq(rd(0, TMCCT), 100000 - MIN(100000, 128000 / table[i].divide), "divide by %u", table[i].divide);
    }
    wr(0, TDCR, 3);
    wr(0, TMICT, 1000);
    fake_time_advance(8000); /* half */
    wr(0, TDCR, 0xb);
    cr_assert_eq(rd(0, TMCCT), 500, "the count goes on at the new speed");
}

Test(lapic, periodic)
{
    unsigned count = 0;

    wr(0, TDCR, 0xb);
    wr(0, LVTT, 1 << 17 | 0x41);
    wr(0, TMICT, 1000000);
    for (unsigned i = 0; i < 100; i++) {
        fake_time_advance(1000000);
        count += rig.cpu[0].intr;
        cr_assert_eq(lapic_acknowledge(apic[0]), 0x41);
        wr(0, EOI, 0);
    }
    cr_assert_eq(count, 100);
    fake_time_skip(3500000); /* the loop was late: one interrupt, and the phase is kept */
    cr_assert_eq(rd(0, TMCCT), 500000);
    fake_time_advance(0);
    cr_assert_eq(lapic_acknowledge(apic[0]), 0x41);
    wr(0, EOI, 0);
    cr_assert_not(rig.cpu[0].intr);
    fake_time_advance(499999);
    cr_assert_not(rig.cpu[0].intr);
    fake_time_advance(1);
    cr_assert(rig.cpu[0].intr);
    wr(0, TMICT, 0);
    cr_assert_eq(fake_timers_armed(), 0);
}

Test(lapic, shortest_period_does_not_occupy_the_loop)
{
    uint64_t before = fake_timers_run();

    wr(0, TDCR, 0xb);
    wr(0, LVTT, 1 << 17 | 0x41);
    wr(0, TMICT, 1);
    fake_time_advance(1000000);
    cr_assert_leq(fake_timers_run() - before, 51);
}

Test(lapic, changing_between_one_shot_and_periodic)
{
    wr(0, TDCR, 0xb);
    wr(0, LVTT, 1 << 17 | 0x41);
    wr(0, TMICT, 1000);
    fake_time_advance(500);
    wr(0, LVTT, 0x41);
    cr_assert_eq(rd(0, TMCCT), 500, "keeps counting");
    fake_time_advance(600);
    cr_assert_eq(rd(0, TMCCT), 0);
    wr(0, LVTT, 1 << 17 | 0x41);
    fake_time_advance(2000);
    cr_assert_eq(rd(0, TMCCT), 0, "stays at zero");
}

Test(lapic, tsc_deadline)
{
    uint64_t value;

    cr_assert(lapic_msr_write(apic[0], 0x6e0, 5000)); /* wrong mode: ignored */
    cr_assert(lapic_msr_read(apic[0], 0x6e0, &value) && value == 0);
    wr(0, LVTT, 2 << 17 | 0x42);
    wr(0, TMICT, 1000);
    cr_assert_eq(rd(0, TMICT), 0);
    cr_assert(lapic_msr_write(apic[0], 0x6e0, 5001));
    cr_assert(lapic_msr_read(apic[0], 0x6e0, &value) && value == 5001);
    fake_time_advance(2500);
    cr_assert_not(rig.cpu[0].intr, "TSC 5000: not a tick too early");
    fake_time_advance(1);
    cr_assert_eq(lapic_acknowledge(apic[0]), 0x42);
    wr(0, EOI, 0);
    cr_assert(lapic_msr_read(apic[0], 0x6e0, &value) && value == 0);
    cr_assert(lapic_msr_write(apic[0], 0x6e0, 1)); /* the past: at once */
    cr_assert(rig.cpu[0].intr);
    lapic_acknowledge(apic[0]);
    wr(0, EOI, 0);
    cr_assert(lapic_msr_write(apic[0], 0x6e0, 1000000));
    cr_assert(lapic_msr_write(apic[0], 0x6e0, 0));
    cr_assert_eq(fake_timers_armed(), 0);
    cr_assert(lapic_msr_write(apic[0], 0x6e0, 1000000));
    wr(0, LVTT, 0x42); /* leaving the mode disarms */
    cr_assert_eq(fake_timers_armed(), 0);
    wr(0, LVTT, 2 << 17 | 0x42);
    cr_assert(lapic_msr_write(apic[0], 0x6e0, UINT64_MAX));
}

/* ---- With the others ---- */

Test(lapic, extint_through_lint0)
{
    struct pic *pic = pic_create(&rig.env, &rig.bus, NULL);

    out8(&rig, 0x20, 0x11), out8(&rig, 0x21, 0x20), out8(&rig, 0x21, 4), out8(&rig, 0x21, 1);
    wr(0, LINT0, 7 << 8);
    pic_set_irq(pic, 4, true);
    cr_assert(rig.cpu[0].intr && !rig.cpu[1].intr);
    cr_assert_eq(lapic_acknowledge(apic[0]), 0x24);
    cr_assert_not(rig.cpu[0].intr);
    cr_assert_eq(rd(0, ISR + 0x10), 0, "not the APIC's business");
    out8(&rig, 0x20, 0x20);
    wr(0, LINT0, 1 << 16 | 7 << 8);
    pic_set_irq(pic, 5, true);
    cr_assert_not(rig.cpu[0].intr);
    wr(0, LINT0, 7 << 8);
    cr_assert(rig.cpu[0].intr, "the level is seen when the mask goes");
    pic_destroy(pic);
}

Test(lapic, lint_modes)
{
    wr(0, LINT0, 0x39); /* fixed, edge */
    apic_bus_set_extint(&rig.bus, true);
    cr_assert_eq(lapic_acknowledge(apic[0]), 0x39);
    wr(0, EOI, 0);
    cr_assert_not(rig.cpu[0].intr);
    wr(0, LINT0, 1 << 15 | 0x3a); /* fixed, level: still high */
    cr_assert_eq(lapic_acknowledge(apic[0]), 0x3a);
    cr_assert(rd(0, LINT0) & 1 << 14, "remote IRR");
    wr(0, EOI, 0);
    cr_assert(rig.cpu[0].intr, "again, as long as it is high");
    apic_bus_set_extint(&rig.bus, false);
    lapic_acknowledge(apic[0]);
    wr(0, EOI, 0);
    cr_assert_not(rig.cpu[0].intr);
    wr(0, 0x360, 4 << 8); /* LINT1: NMI */
    apic_bus_pulse_nmi(&rig.bus);
    cr_assert_eq(rig.cpu[0].nmis, 1);
    cr_assert_eq(rig.cpu[1].nmis, 0);
}

Test(lapic, virtual_wire)
{
    lapic_reset(apic[0]);
    lapic_set_virtual_wire(apic[0]);
    cr_assert_eq(rd(0, LINT0), 7 << 8);
    cr_assert_eq(rd(0, SVR), 0x1ff);
    apic_bus_set_extint(&rig.bus, true);
    cr_assert(rig.cpu[0].intr);
}

static void spoil(struct device *device)
{
    device_reset(device);
    fake_time_advance(0);
}

Test(lapic, state)
{
    self_ipi(0, 0x41);
    lapic_acknowledge(apic[0]);
    self_ipi(0, 0x61);
    wr(0, TPR, 0x10);
    wr(0, TDCR, 0xb);
    wr(0, LVTT, 1 << 17 | 0x71);
    wr(0, TMICT, 1000000);
    fake_time_advance(300000);
    rig_round_trip(&apic[0]->device, spoil);
    cr_assert(rig.cpu[0].intr);
    cr_assert_eq(rd(0, TMCCT), 700000);
    fake_time_advance(700000);
    cr_assert_eq(lapic_acknowledge(apic[0]), 0x71, "the timer runs on");
    enable_x2apic(0);
    rig_round_trip(&apic[0]->device, spoil);
    rig_load_garbage(&apic[0]->device, 1, 300);
}
