/* 8254, HPET, RTC and the ACPI PM timer. */
#include <criterion/criterion.h>

#include "devices/board/acpi_pm.h"
#include "devices/board/reset_ports.h"
#include "devices/timer/hpet.h"
#include "devices/timer/pit.h"
#include "devices/timer/rtc.h"
#include "rig.h"

#define TICK_NS(n) (((uint64_t)(n)*1000000000 + PIT_HZ - 1) / PIT_HZ)

static struct rig rig;
static struct pit *pit;
static struct hpet *hpet;
static struct rtc *rtc;
static struct acpi_pm *pm;
static struct reset_ports *ports;

static void setup(void)
{
    struct irq_line line;

    rig_init(&rig);
    hpet = hpet_create(&rig.env, HPET_BASE, NULL);
    line = hpet_pit_line(hpet);
    pit = pit_create(&rig.env, &line, NULL);
    line = hpet_rtc_line(hpet);
    rtc = rtc_create(&rig.env, &line, (int64_t)clock_wall_ns(), NULL);
    line = rig_isa_line(&rig, ACPI_SCI_IRQ);
    pm = acpi_pm_create(&rig.env, ACPI_PM_ICH9, ACPI_PM_BASE, &line, NULL);
    ports = reset_ports_create(&rig.env, pit, NULL);
    fake_time_advance(1000000); /* not zero, to find what assumes it */
}

static void teardown(void)
{
    reset_ports_destroy(ports);
    acpi_pm_destroy(pm);
    rtc_destroy(rtc);
    pit_destroy(pit);
    hpet_destroy(hpet);
    rig_destroy(&rig);
}

TestSuite(pit, .init = setup, .fini = teardown);
TestSuite(hpet, .init = setup, .fini = teardown);
TestSuite(rtc, .init = setup, .fini = teardown);
TestSuite(acpi_pm, .init = setup, .fini = teardown);

/* ---- 8254 ---- */

static void program(unsigned channel, unsigned mode, unsigned count)
{
    out8(&rig, 0x43, channel << 6 | 3 << 4 | mode << 1);
    out8(&rig, 0x40 + channel, count & 0xff);
    out8(&rig, 0x40 + channel, count >> 8);
}

static unsigned read_latched(unsigned channel)
{
    out8(&rig, 0x43, channel << 6);
    unsigned low = in8(&rig, 0x40 + channel);
    return low | in8(&rig, 0x40 + channel) << 8;
}

static unsigned read_status(unsigned channel)
{
    out8(&rig, 0x43, 0xe0 | 2u << channel);
    return in8(&rig, 0x40 + channel);
}

Test(pit, silent_until_programmed)
{
    fake_time_advance(1000000000);
    cr_assert_eq(rig.isa[0].rises, 0);
    cr_assert_eq(fake_timers_armed(), 0);
}

Test(pit, rate_generator)
{
    program(0, 2, 11932); /* about 100 Hz */
    unsigned before = rig.isa[0].rises;
    fake_time_advance(TICK_NS(11932 * 1000));
    cr_assert_eq(rig.isa[0].rises - before, 1000);
    fake_time_advance(TICK_NS(1000));
    unsigned count = read_latched(0);
    cr_assert(count >= 10930 && count <= 10932, "%u", count);
    program(0, 3, 0); /* 65536 */
    before = rig.isa[0].rises;
    fake_time_advance(1000000000);
    cr_assert_eq(rig.isa[0].rises - before, 18);
}

Test(pit, new_count_takes_over_at_the_end_of_the_period)
{
    program(0, 2, 10000);
    fake_time_advance(TICK_NS(5000));
    out8(&rig, 0x40, 20000 & 0xff), out8(&rig, 0x40, 20000 >> 8);
    cr_assert(read_status(0) & 0x40, "null count");
    unsigned before = rig.isa[0].rises;
    fake_time_advance(TICK_NS(5001));
    cr_assert_eq(rig.isa[0].rises - before, 1);
    cr_assert_not(read_status(0) & 0x40);
    fake_time_advance(TICK_NS(19990));
    cr_assert_eq(rig.isa[0].rises - before, 1);
    fake_time_advance(TICK_NS(20));
    cr_assert_eq(rig.isa[0].rises - before, 2);
}

Test(pit, terminal_count)
{
    program(0, 0, 1000);
    cr_assert_not(rig.isa[0].level);
    fake_time_advance(TICK_NS(999));
    cr_assert_not(rig.isa[0].level);
    fake_time_advance(TICK_NS(2));
    cr_assert(rig.isa[0].level);
    cr_assert(read_status(0) & 0x80);
    fake_time_advance(TICK_NS(100000));
    cr_assert(rig.isa[0].level && rig.isa[0].rises == 1);
    program(0, 0, 1000);
    cr_assert_not(rig.isa[0].level);
}

Test(pit, channel_2_by_port_61)
{
    out8(&rig, 0x61, 0);
    program(2, 0, 0xffff);
    fake_time_advance(TICK_NS(1000));
    cr_assert_eq(read_latched(2), 0xffff, "the gate is low");
    out8(&rig, 0x61, 1);
    fake_time_advance(TICK_NS(1000));
    cr_assert_eq(read_latched(2), 0xffff - 1000);
    out8(&rig, 0x61, 0);
    fake_time_advance(TICK_NS(1000));
    cr_assert_eq(read_latched(2), 0xffff - 1000);
    cr_assert_eq(in8(&rig, 0x61) & 0x2f, 0);
    out8(&rig, 0x61, 1);
    fake_time_advance(TICK_NS(0xffff));
    cr_assert_eq(in8(&rig, 0x61) & 0x2f, 0x21);
    unsigned refresh = 0;
    for (unsigned i = 0; i < 100; i++) {
        refresh += in8(&rig, 0x61) >> 4 & 1;
        fake_time_advance(15085);
    }
    cr_assert(refresh >= 49 && refresh <= 51, "the refresh bit toggles");
}

Test(pit, triggered_modes)
{
    out8(&rig, 0x61, 0);
    program(2, 1, 100);
    cr_assert(pit_output(pit, 2));
    out8(&rig, 0x61, 1);
    cr_assert_not(pit_output(pit, 2));
    fake_time_advance(TICK_NS(99));
    cr_assert_not(pit_output(pit, 2));
    fake_time_advance(TICK_NS(2));
    cr_assert(pit_output(pit, 2));
    out8(&rig, 0x61, 0), out8(&rig, 0x61, 1); /* again */
    cr_assert_not(pit_output(pit, 2));
    program(2, 5, 100);
    fake_time_advance(TICK_NS(1000));
    cr_assert(pit_output(pit, 2));
    out8(&rig, 0x61, 0), out8(&rig, 0x61, 1);
    fake_time_advance(TICK_NS(100) + 100);
    cr_assert_not(pit_output(pit, 2), "strobe");
    fake_time_advance(TICK_NS(1));
    cr_assert(pit_output(pit, 2));
    program(2, 4, 100);
    fake_time_advance(TICK_NS(100) + 100);
    cr_assert_not(pit_output(pit, 2));
    program(2, 3, 101);
    cr_assert(pit_output(pit, 2));
    fake_time_advance(TICK_NS(52));
    cr_assert_not(pit_output(pit, 2), "odd counts are high a tick longer");
}

Test(pit, latches_and_access_modes)
{
    program(0, 2, 0x1234);
    out8(&rig, 0x43, 0xc2); /* count and status of channel 0 */
    fake_time_advance(TICK_NS(100));
    cr_assert_eq(in8(&rig, 0x40), 0x80 | 0x34, "status first");
    unsigned low = in8(&rig, 0x40), high = in8(&rig, 0x40);
    cr_assert_eq(low | high << 8, 0x1234, "as of the latch");
    out8(&rig, 0x43, 0x14); /* low byte only */
    out8(&rig, 0x40, 0x80);
    cr_assert_eq(in8(&rig, 0x40), 0x80);
    cr_assert_eq(in8(&rig, 0x40), 0x80);
    out8(&rig, 0x43, 0x24); /* high byte only */
    out8(&rig, 0x40, 0x80);
    cr_assert_eq(in8(&rig, 0x40), 0x80);
    out8(&rig, 0x43, 0x31);                         /* BCD */
    out8(&rig, 0x40, 0x00), out8(&rig, 0x40, 0x10); /* 1000 */
    fake_time_advance(TICK_NS(1));
    cr_assert_eq(read_latched(0), 0x0999);
    cr_assert_eq(in8(&rig, 0x43), 0xff);
}

/* Data sheet, "Counter latch command": a latch holds until it has been read whole. */
Test(pit, second_latch_is_ignored_until_the_first_is_read)
{
    program(0, 2, 0x1210);
    out8(&rig, 0x43, 0);
    fake_time_advance(TICK_NS(0x100));
    out8(&rig, 0x43, 0);
    cr_assert_eq(in8(&rig, 0x40), 0x10);
    out8(&rig, 0x43, 0xd2); /* the read-back command's latch is ignored too, also between the two bytes */
    cr_assert_eq(in8(&rig, 0x40), 0x12);
    unsigned count = read_latched(0);
    cr_assert(count >= 0x110e && count <= 0x1110, "0x%x: latched anew", count);
}

Test(pit, second_status_latch_is_ignored_until_the_first_is_read)
{
    program(0, 0, 1000);
    out8(&rig, 0x43, 0xe2);
    fake_time_advance(TICK_NS(2000));
    out8(&rig, 0x43, 0xe2);
    cr_assert_eq(in8(&rig, 0x40), 0x30, "the output was low");
    cr_assert_eq(read_status(0), 0xb0);
}

Test(pit, fastest_rate_does_not_occupy_the_loop)
{
    uint64_t before = fake_timers_run();

    program(0, 2, 2);
    fake_time_advance(1000000);
    cr_assert_leq(fake_timers_run() - before, 51);
}

Test(pit, state)
{
    program(0, 2, 10000);
    program(2, 3, 500);
    out8(&rig, 0x61, 1);
    fake_time_advance(TICK_NS(5000));
    rig_round_trip(&pit->device, NULL);
    unsigned before = rig.isa[0].rises;
    fake_time_advance(TICK_NS(5001));
    cr_assert_eq(rig.isa[0].rises - before, 1);
    rig_round_trip(&ports->device, NULL);
    cr_assert_eq(in8(&rig, 0x61) & 1, 1);
    rig_load_garbage(&pit->device, 4, 300);
    rig_load_garbage(&ports->device, 5, 30);
}

/* ---- HPET ---- */

static uint64_t hrd(unsigned reg, unsigned size)
{
    return physmem_mmio_read(rig.env.mem, HPET_BASE + reg, size);
}
static void hwr(unsigned reg, unsigned size, uint64_t value)
{
    physmem_mmio_write(rig.env.mem, HPET_BASE + reg, size, value);
}

Test(hpet, capabilities_and_counter)
{
    cr_assert_eq(hrd(0, 8), 0x009896808086a201);
    cr_assert_eq(hrd(4, 4), 10000000, "femtoseconds");
    cr_assert_eq(hrd(0x100, 8), 0x00ff010400000030);
    cr_assert_eq(hrd(0xf0, 8), 0);
    hwr(0xf0, 8, 0xfffffff0);
    hwr(0x10, 4, 1);
    fake_time_advance(1000);
    cr_assert_eq(hrd(0xf0, 8), 0xfffffff0ull + 100);
    cr_assert_eq(hrd(0xf4, 4), 1);
    hwr(0x10, 4, 0);
    fake_time_advance(1000);
    cr_assert_eq(hrd(0xf0, 8), 0xfffffff0ull + 100);
    hwr(0x10, 4, 1);
    fake_time_advance(100);
    cr_assert_eq(hrd(0xf0, 8), 0xfffffff0ull + 110);
    cr_assert_eq(hrd(0xf2, 8), 0, "unaligned");
}

Test(hpet, one_shot)
{
    hwr(0x10, 4, 1);
    hwr(0x120, 4, 16 << 9 | 4); /* timer 1, pin 16, edge */
    hwr(0x128, 8, 1000);
    fake_time_advance(9990);
    cr_assert_eq(rig.gsi[16].rises, 0);
    fake_time_advance(10);
    cr_assert_eq(rig.gsi[16].rises, 1);
    cr_assert_not(rig.gsi[16].level);
    fake_time_advance(1000000);
    cr_assert_eq(rig.gsi[16].rises, 1);
    hwr(0x120, 4, 16 << 9 | 4); /* an old comparator does not match again */
    fake_time_advance(1000000);
    cr_assert_eq(rig.gsi[16].rises, 1);
    hwr(0x128, 8, hrd(0xf0, 8) - 10); /* missed by a little: at once */
    fake_time_advance(0);
    cr_assert_eq(rig.gsi[16].rises, 2);
    hwr(0x120, 4, 5 << 9 | 4); /* pin 5 is not offered */
    cr_assert_eq(hrd(0x120, 4) >> 9 & 31, 16);
}

Test(hpet, level)
{
    hwr(0x10, 4, 1);
    hwr(0x140, 4, 20 << 9 | 4 | 2);
    hwr(0x148, 4, 100);
    hwr(0x14c, 4, 0);
    fake_time_advance(1000);
    cr_assert(rig.gsi[20].level);
    cr_assert_eq(hrd(0x20, 4), 4);
    hwr(0x20, 4, 4);
    cr_assert_not(rig.gsi[20].level);
    cr_assert_eq(hrd(0x20, 4), 0);
}

/* As Linux does it: value set, comparator, then the period. */
Test(hpet, periodic)
{
    hwr(0x10, 4, 1);
    hwr(0x100, 4, 16 << 9 | 4 | 8 | 0x40 | 0x100);
    hwr(0x108, 4, (uint32_t)hrd(0xf0, 4) + 100000);
    hwr(0x108, 4, 100000); /* 1 ms */
    for (unsigned i = 1; i <= 50; i++) {
        fake_time_advance(1000000);
        cr_assert_eq(rig.gsi[16].rises, i);
    }
    fake_time_skip(5500000);
    fake_time_advance(0);
    cr_assert_eq(rig.gsi[16].rises, 51, "lost ticks are merged");
    fake_time_advance(499990);
    cr_assert_eq(rig.gsi[16].rises, 51);
    fake_time_advance(10);
    cr_assert_eq(rig.gsi[16].rises, 52, "in phase");
    hwr(0x10, 4, 0);
    cr_assert_eq(fake_timers_armed(), 0);
}

Test(hpet, long_32_bit_periods_and_wrap)
{
    hwr(0x10, 4, 1);
    hwr(0x100, 4, 16 << 9 | 4 | 8 | 0x40 | 0x100);
    hwr(0x108, 4, 3000000000u);
    for (unsigned i = 1; i <= 4; i++) {
        fake_time_advance(30000000000);
        cr_assert_eq(rig.gsi[16].rises, i, "30 seconds");
    }
    hwr(0x120, 4, 17 << 9 | 4 | 0x100); /* one-shot: again when 32 bits have come round */
    hwr(0x128, 4, (uint32_t)hrd(0xf0, 4) + 100);
    fake_time_advance(1000);
    cr_assert_eq(rig.gsi[17].rises, 1);
    fake_time_advance(42000000000);
    cr_assert_eq(rig.gsi[17].rises, 1);
    fake_time_advance(1000000000);
    cr_assert_eq(rig.gsi[17].rises, 2);
    hwr(0x100, 4, 16 << 9 | 8); /* interrupt off for a while: the comparator moves on alone */
    fake_time_advance(95000000000);
    cr_assert_leq(hrd(0x108, 4) - hrd(0xf0, 4), 3000000000u);
}

Test(hpet, legacy_replacement)
{
    program(0, 2, 11932);
    hwr(0x10, 4, 3);
    cr_assert_eq(rig.isa[0].level, 0, "the 8254 is cut off");
    unsigned before = rig.isa[0].rises;
    fake_time_advance(1000000000);
    cr_assert_eq(rig.isa[0].rises, before);
    hwr(0x100, 4, 4);
    hwr(0x108, 8, hrd(0xf0, 8) + 100);
    hwr(0x120, 4, 4);
    hwr(0x128, 8, hrd(0xf0, 8) + 100);
    fake_time_advance(1000);
    cr_assert_eq(rig.isa[0].rises, before + 1);
    cr_assert_eq(rig.isa[8].rises, 1);
    hwr(0x10, 4, 1);
    fake_time_advance(100000000);
    cr_assert_geq(rig.isa[0].rises, before + 9);
}

Test(hpet, state)
{
    hwr(0x10, 4, 1);
    hwr(0x100, 4, 16 << 9 | 4 | 8 | 0x40);
    hwr(0x108, 8, 100000);
    hwr(0x108, 8, 100000);
    hwr(0x120, 4, 17 << 9 | 4);
    hwr(0x128, 8, 150000);
    fake_time_advance(1200000);
    rig_round_trip(&hpet->device, NULL);
    cr_assert_eq(hrd(0xf0, 8), 120000);
    fake_time_advance(800000);
    cr_assert_eq(rig.gsi[16].rises, 2);
    cr_assert_eq(rig.gsi[17].rises, 1);
    rig_load_garbage(&hpet->device, 6, 300);
}

/* ---- RTC ---- */

static uint8_t cmos(unsigned index)
{
    out8(&rig, 0x70, index);
    return (uint8_t)in8(&rig, 0x71);
}

static void set_cmos(unsigned index, uint8_t value)
{
    out8(&rig, 0x70, index);
    out8(&rig, 0x71, value);
}

Test(rtc, time_of_day)
{
    cr_assert_eq(cmos(0), 0x20);
    cr_assert_eq(cmos(2), 0x13);
    cr_assert_eq(cmos(4), 0x22);
    cr_assert_eq(cmos(6), 3, "Tuesday");
    cr_assert_eq(cmos(7), 0x14);
    cr_assert_eq(cmos(8), 0x11);
    cr_assert_eq(cmos(9), 0x23);
    cr_assert_eq(cmos(0x32), 0x20);
    set_cmos(11, 0x04); /* binary, 12 hours */
    cr_assert_eq(cmos(4), 0x80 | 10);
    cr_assert_eq(cmos(2), 13);
    fake_time_advance(3 * 3600 * 1000000000ull);
    cr_assert_eq(cmos(4), 1);
    cr_assert_eq(cmos(7), 15);
    cr_assert_eq(cmos(13), 0x80);
    fake_wall_adjust(-3600 * 1000000000ll);
    cr_assert_eq(cmos(4), 12, "midnight is 12");
    cr_assert_eq(in8(&rig, 0x70), 0xff);
}

Test(rtc, setting_the_time)
{
    static const uint8_t values[][2] = { { 0, 0x59 }, { 2, 0x59 }, { 4, 0x23 },   { 7, 0x31 },
                                         { 8, 0x12 }, { 9, 0x99 }, { 0x32, 0x19 } };

    set_cmos(11, 0x82);
    for (unsigned i = 0; i < ARRAY_SIZE(values); i++)
        set_cmos(values[i][0], values[i][1]);
    fake_time_advance(5000000000);
    cr_assert_eq(cmos(0), 0x59, "stopped");
    set_cmos(11, 0x02);
    fake_time_advance(1000000000);
    cr_assert_eq(cmos(0), 0x00);
    cr_assert_eq(cmos(9), 0x00);
    cr_assert_eq(cmos(0x32), 0x20);
    set_cmos(0, 0x30); /* while it runs */
    cr_assert_eq(cmos(0), 0x30);
    set_cmos(10, 0x76); /* divider reset */
    fake_time_advance(5000000000);
    set_cmos(10, 0x26);
    fake_time_advance(499000000);
    cr_assert_eq(cmos(0), 0x30);
    fake_time_advance(2000000);
    cr_assert_eq(cmos(0), 0x31, "the first update comes after half a second");
}

Test(rtc, update_in_progress)
{
    fake_time_to(999000000);
    cr_assert_eq(cmos(10), 0x26);
    fake_time_to(999800000);
    cr_assert_eq(cmos(10), 0xa6);
    fake_time_to(1000000000);
    cr_assert_eq(cmos(10), 0x26);
}

Test(rtc, update_interrupt)
{
    cmos(12);
    cr_assert_eq(fake_timers_armed(), 0);
    fake_time_advance(2000000000);
    cr_assert_eq(cmos(12), 0x50, "flags without interrupts: PF and UF");
    cr_assert_eq(rig.isa[8].rises, 0);
    set_cmos(11, 0x12);
    fake_time_advance(1000000000);
    cr_assert(rig.isa[8].level);
    cr_assert_eq(fake_timers_armed(), 0, "nothing to wait for until C is read");
    cr_assert_eq(cmos(12) & 0x90, 0x90);
    cr_assert_not(rig.isa[8].level);
    fake_time_advance(1000000000);
    cr_assert_eq(rig.isa[8].rises, 2);
}

Test(rtc, periodic_interrupt)
{
    unsigned count = 0;

    set_cmos(10, 0x26);
    set_cmos(11, 0x42);
    for (unsigned i = 0; i < 100000; i++) {
        fake_time_advance(10000);
        if (rig.isa[8].level)
            count++, cmos(12);
    }
    cr_assert(count >= 1022 && count <= 1025, "%u", count);
    set_cmos(10, 0x21); /* 256 Hz */
    count = 0;
    for (unsigned i = 0; i < 10000; i++) {
        fake_time_advance(100000);
        if (rig.isa[8].level)
            count++, cmos(12);
    }
    cr_assert(count >= 255 && count <= 257, "%u", count);
}

Test(rtc, alarm)
{
    set_cmos(1, 0x25), set_cmos(3, 0x13), set_cmos(5, 0x22);
    set_cmos(11, 0x22);
    fake_time_to(4999000000);
    cr_assert_not(rig.isa[8].level);
    fake_time_to(5000000000);
    cr_assert(rig.isa[8].level);
    cr_assert_eq(cmos(12) & 0xa0, 0xa0);
    fake_time_advance(3600 * 1000000000ull);
    cr_assert_not(rig.isa[8].level);
    set_cmos(3, 0xff), set_cmos(5, 0xc0); /* at 25 seconds of each minute */
    cmos(12);
    fake_time_advance(60 * 1000000000ull);
    cr_assert(rig.isa[8].level);
}

Test(rtc, memory_sizes)
{
    rtc_set_memory(rtc, 0x80000000, 6 * GIB, 1);
    cr_assert_eq(cmos(0x15) | cmos(0x16) << 8, 640);
    cr_assert_eq(cmos(0x34) | cmos(0x35) << 8, (0x80000000 - 16 * MIB) / 65536);
    cr_assert_eq(cmos(0x5b) | cmos(0x5c) << 8 | cmos(0x5d) << 16, 6 * GIB / 65536);
    rtc_set_memory(rtc, 32 * MIB, 0, 1);
    cr_assert_eq(cmos(0x30) | cmos(0x31) << 8, 31 * 1024);
    set_cmos(0x40, 0x77);
    device_reset(&rtc->device);
    cr_assert_eq(cmos(0x40), 0x77);
}

Test(rtc, absurd_dates)
{
    set_cmos(11, 0x86);
    for (unsigned i = 0; i < 10; i++)
        set_cmos(i, 0xff);
    set_cmos(0x32, 0xff);
    set_cmos(11, 0x06);
    fake_time_advance(1000000000);
    cmos(0), cmos(12);
    set_cmos(11, 0x76);
    fake_time_advance(100000000000);
    set_cmos(0x32, 0);
    set_cmos(9, 0);
    fake_time_advance(1000000000);
    cmos(12);
}

Test(rtc, state)
{
    set_cmos(11, 0x12);
    fake_time_advance(500000000);
    rig_round_trip(&rtc->device, NULL);
    cmos(12);
    fake_time_advance(1000000000);
    cr_assert(rig.isa[8].level);
    rig_load_garbage(&rtc->device, 7, 300);
}

/* ---- ACPI PM ---- */

Test(acpi_pm, timer)
{
    uint32_t before = in32(&rig, 0x608);

    fake_time_advance(1000000000);
    cr_assert_eq((in32(&rig, 0x608) - before) & 0xffffff, 3579545);
    fake_time_advance(10000000000);
    cr_assert_lt(in32(&rig, 0x608), 1u << 24);
    cr_assert_eq(in16(&rig, 0x600) & 1, 1, "the top bit has changed");
    out16(&rig, 0x600, 1);
    cr_assert_eq(in16(&rig, 0x600) & 1, 0);
    cr_assert_eq(fake_timers_armed(), 0);
    out8(&rig, 0xb2, ACPI_ENABLE_COMMAND);
    out16(&rig, 0x602, 1);
    fake_time_advance(2400000000);
    cr_assert(rig.isa[9].level);
    out16(&rig, 0x600, 1);
    cr_assert_not(rig.isa[9].level);
}

Test(acpi_pm, enable_and_power_button)
{
    cr_assert_eq(in16(&rig, 0x604) & 1, 0);
    out8(&rig, 0xb2, ACPI_ENABLE_COMMAND);
    cr_assert_eq(in16(&rig, 0x604) & 1, 1);
    acpi_pm_power_button(pm);
    cr_assert_not(rig.isa[9].level);
    out16(&rig, 0x602, 0x100);
    cr_assert(rig.isa[9].level);
    cr_assert_eq(in16(&rig, 0x600) & 0x100, 0x100);
    out16(&rig, 0x600, 0x100);
    cr_assert_not(rig.isa[9].level);
    out8(&rig, 0xb2, ACPI_DISABLE_COMMAND);
    cr_assert_eq(in16(&rig, 0x604) & 1, 0);
}

Test(acpi_pm, sleep)
{
    out16(&rig, 0x604, 1 << 13 | 1 << 10); /* S3: not there */
    cr_assert_eq(rig.shutdowns, 0);
    out16(&rig, 0x604, 0 << 10);
    cr_assert_eq(rig.shutdowns, 0);
    out16(&rig, 0x604, 1 << 13 | 0 << 10);
    cr_assert_eq(rig.shutdowns, 1);
    out8(&rig, 0x605, 0x20);
    cr_assert_eq(rig.shutdowns, 2);
}

Test(acpi_pm, general_purpose_events)
{
    out8(&rig, 0xb2, ACPI_ENABLE_COMMAND);
    acpi_pm_gpe(pm, 17);
    cr_assert_eq(in8(&rig, 0x622), 2);
    cr_assert_not(rig.isa[9].level);
    out8(&rig, 0x62a, 2);
    cr_assert(rig.isa[9].level);
    out32(&rig, 0x620, 0xffffffff);
    cr_assert_not(rig.isa[9].level);
    acpi_pm_gpe(pm, 64);
}

Test(acpi_pm, move)
{
    out32(&rig, 0x630, 0x12345678);
    cr_assert_eq(acpi_pm_move(pm, 0xb000, NULL), 0);
    cr_assert_eq(in32(&rig, 0x630), 0xffffffff);
    cr_assert_eq(in32(&rig, 0xb030), 0x12345678);
    cr_assert_eq(acpi_pm_move(pm, 0, NULL), 0);
    cr_assert_eq(in32(&rig, 0xb030), 0xffffffff);
    cr_assert_eq(acpi_pm_move(pm, 0xffff, NULL), 0);
}

Test(acpi_pm, state)
{
    out8(&rig, 0xb2, ACPI_ENABLE_COMMAND);
    out16(&rig, 0x602, 0x101);
    out8(&rig, 0x62a, 2);
    acpi_pm_power_button(pm);
    rig_round_trip(&pm->device, NULL);
    cr_assert(rig.isa[9].level);
    rig_load_garbage(&pm->device, 8, 300);
}
