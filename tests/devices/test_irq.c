/* IOAPIC, 8259 pair and their wiring. */
#include <criterion/criterion.h>

#include "devices/irq/ioapic.h"
#include "devices/irq/isa_irq.h"
#include "devices/irq/lapic.h"
#include "devices/irq/pic.h"
#include "rig.h"

static struct rig rig;
static struct lapic *apic[2];
static struct ioapic *ioapic;
static struct pic *pic;

static void setup(void)
{
    rig_init(&rig);
    for (unsigned n = 0; n < 2; n++) {
        apic[n] = lapic_create(&rig.env, n, &rig.bus, &rig_cpu_ops, &rig.cpu[n], NULL);
        lapic_mmio_write(apic[n], 0xf0, 4, 0x1ff);
    }
    ioapic = ioapic_create(&rig.env, &rig.bus, IOAPIC_BASE, NULL);
    pic = pic_create(&rig.env, &rig.bus, NULL);
}

static void teardown(void)
{
    ioapic_destroy(ioapic);
    pic_destroy(pic);
    lapic_destroy(apic[0]);
    lapic_destroy(apic[1]);
    rig_destroy(&rig);
}

static void io_write(unsigned reg, uint32_t value)
{
    physmem_mmio_write(rig.env.mem, IOAPIC_BASE, 4, reg);
    physmem_mmio_write(rig.env.mem, IOAPIC_BASE + 0x10, 4, value);
}

static uint32_t io_read(unsigned reg)
{
    physmem_mmio_write(rig.env.mem, IOAPIC_BASE, 1, reg);
    return (uint32_t)physmem_mmio_read(rig.env.mem, IOAPIC_BASE + 0x10, 4);
}

static void redirect(unsigned pin, uint32_t low, uint8_t destination)
{
    io_write(0x11 + 2 * pin, (uint32_t)destination << 24);
    io_write(0x10 + 2 * pin, low);
}

static void eoi(unsigned n)
{
    lapic_mmio_write(apic[n], 0xb0, 4, 0);
}

TestSuite(ioapic, .init = setup, .fini = teardown);
TestSuite(pic, .init = setup, .fini = teardown);

Test(ioapic, registers)
{
    cr_assert_eq(io_read(1), 0x00170020);
    cr_assert_eq(io_read(0x10), 1 << 16);
    io_write(0, 0x0f000000);
    cr_assert_eq(io_read(0), 0x0f000000);
    io_write(0x10, 0xffffffff);
    cr_assert_eq(io_read(0x10), 0x0001afff, "status and remote IRR are read-only");
    io_write(0x11, 0xffffffff);
    cr_assert_eq(io_read(0x11), 0xff000000);
    cr_assert_eq(io_read(0x40), 0);
}

Test(ioapic, edge)
{
    redirect(4, 0x34, 1);
    ioapic_set_irq(ioapic, 4, true);
    cr_assert(rig.cpu[1].intr && !rig.cpu[0].intr);
    cr_assert_eq(lapic_acknowledge(apic[1]), 0x34);
    eoi(1);
    ioapic_set_irq(ioapic, 4, true); /* still high: no edge */
    cr_assert_not(rig.cpu[1].intr);
    ioapic_set_irq(ioapic, 4, false);
    redirect(4, 1 << 16 | 0x34, 1);
    ioapic_set_irq(ioapic, 4, true);
    redirect(4, 0x34, 1);
    cr_assert_not(rig.cpu[1].intr, "edges at a masked pin are lost");
}

Test(ioapic, level)
{
    redirect(9, 1 << 15 | 0x39, 0);
    ioapic_set_irq(ioapic, 9, true);
    cr_assert_eq(lapic_acknowledge(apic[0]), 0x39);
    cr_assert(io_read(0x10 + 18) & 1 << 14);
    ioapic_set_irq(ioapic, 9, true);
    cr_assert_not(rig.cpu[0].intr, "remote IRR holds it back");
    eoi(0);
    cr_assert(rig.cpu[0].intr, "still asserted after EOI: again");
    lapic_acknowledge(apic[0]);
    ioapic_set_irq(ioapic, 9, false);
    eoi(0);
    cr_assert_not(rig.cpu[0].intr);
    cr_assert_not(io_read(0x10 + 18) & 1 << 14);
    /* masked while high, unmasked later: a level is not lost */
    redirect(9, 1 << 16 | 1 << 15 | 0x39, 0);
    ioapic_set_irq(ioapic, 9, true);
    cr_assert_not(rig.cpu[0].intr);
    redirect(9, 1 << 15 | 0x39, 0);
    cr_assert(rig.cpu[0].intr);
}

Test(ioapic, eoi_register_and_switch_to_edge)
{
    redirect(9, 1 << 15 | 0x39, 0);
    ioapic_set_irq(ioapic, 9, true);
    lapic_acknowledge(apic[0]);
    ioapic_set_irq(ioapic, 9, false);
    physmem_mmio_write(rig.env.mem, IOAPIC_BASE + 0x40, 4, 0x39);
    cr_assert_not(io_read(0x10 + 18) & 1 << 14);
    ioapic_set_irq(ioapic, 9, true);
    cr_assert(io_read(0x10 + 18) & 1 << 14);
    ioapic_set_irq(ioapic, 9, false);
    redirect(9, 1 << 16 | 0x39, 0);
    redirect(9, 1 << 15 | 0x39, 0);
    cr_assert_not(io_read(0x10 + 18) & 1 << 14);
}

Test(ioapic, nobody_there_yet)
{
    redirect(9, 1 << 15 | 0x39, 0);
    lapic_mmio_write(apic[0], 0xf0, 4, 0xff);
    ioapic_set_irq(ioapic, 9, true);
    cr_assert_not(io_read(0x10 + 18) & 1 << 14, "not accepted, so not waiting for an EOI");
    lapic_mmio_write(apic[0], 0xf0, 4, 0x1ff);
    redirect(9, 1 << 15 | 0x39, 0);
    cr_assert(rig.cpu[0].intr);
}

Test(ioapic, nmi_and_directed_eoi)
{
    redirect(3, 4 << 8, 1);
    ioapic_set_irq(ioapic, 3, true);
    cr_assert_eq(rig.cpu[1].nmis, 1);
    lapic_mmio_write(apic[0], 0xf0, 4, 0x11ff);
    redirect(9, 1 << 15 | 0x39, 0);
    ioapic_set_irq(ioapic, 9, true);
    lapic_acknowledge(apic[0]);
    eoi(0);
    cr_assert(io_read(0x10 + 18) & 1 << 14, "broadcast suppressed");
}

/* SDM Vol. 3A 11.8.5: with SVR bit 12 the I/O APIC hears of nothing until its own EOI register is written. */
Test(ioapic, eoi_broadcast_can_be_suppressed)
{
    for (unsigned suppressed = 0; suppressed < 2; suppressed++) {
        lapic_mmio_write(apic[0], 0xf0, 4, suppressed ? 0x11ff : 0x1ff);
        redirect(9, 1 << 15 | 0x39, 0);
        ioapic_set_irq(ioapic, 9, true);
        cr_assert_eq(lapic_acknowledge(apic[0]), 0x39);
        ioapic_set_irq(ioapic, 9, false);
        eoi(0);
        cr_assert_eq(io_read(0x10 + 18) >> 14 & 1, suppressed, "remote IRR");
        ioapic_set_irq(ioapic, 9, true);
        cr_assert_eq(rig.cpu[0].intr, !suppressed);
        physmem_mmio_write(rig.env.mem, IOAPIC_BASE + 0x40, 4, 0x39);
        cr_assert(rig.cpu[0].intr);
        lapic_acknowledge(apic[0]);
        ioapic_set_irq(ioapic, 9, false);
        eoi(0);
        physmem_mmio_write(rig.env.mem, IOAPIC_BASE + 0x40, 4, 0x39);
    }
}

Test(ioapic, wiring)
{
    struct isa_irq_router router;
    struct irq_or combine;

    isa_irq_wire(&router, &rig.env, pic, ioapic);
    redirect(2, 0x30, 0);
    redirect(0, 0x31, 0);
    irq_line_set(&rig.env.isa_irq[0], true);
    cr_assert_eq(lapic_acknowledge(apic[0]), 0x30, "timer is pin 2");
    irq_line_set(&rig.env.isa_irq[2], true);
    irq_line_set(&rig.env.isa_irq[2], false);
    cr_assert_not(rig.cpu[0].intr);
    redirect(20, 1 << 15 | 0x54, 0);
    irq_line_set(&rig.env.gsi[20], true);
    cr_assert_eq(lapic_acknowledge(apic[0]), 0x54);
    combine = (struct irq_or){ .out = rig_isa_line(&rig, 9) };
    struct irq_line a = irq_or_input(&combine, 0), b = irq_or_input(&combine, 63);
    irq_line_set(&a, true);
    irq_line_set(&b, true);
    irq_line_set(&a, false);
    cr_assert(rig.isa[9].level);
    irq_line_set(&b, false);
    cr_assert(!rig.isa[9].level && rig.isa[9].rises == 1);
}

Test(ioapic, state)
{
    redirect(9, 1 << 15 | 0x39, 0);
    ioapic_set_irq(ioapic, 9, true);
    rig_round_trip(&ioapic->device, NULL);
    lapic_acknowledge(apic[0]);
    ioapic_set_irq(ioapic, 9, false);
    eoi(0);
    cr_assert_not(io_read(0x10 + 18) & 1 << 14);
    rig_load_garbage(&ioapic->device, 2, 300);
}

/* ---- 8259 ---- */

static void init_pics(uint8_t icw4)
{
    out8(&rig, 0x20, 0x11), out8(&rig, 0x21, 0x20), out8(&rig, 0x21, 4), out8(&rig, 0x21, icw4);
    out8(&rig, 0xa0, 0x11), out8(&rig, 0xa1, 0x28), out8(&rig, 0xa1, 2), out8(&rig, 0xa1, icw4);
    out8(&rig, 0x21, 0), out8(&rig, 0xa1, 0);
}

static bool intr(void)
{
    return rig.bus.extint;
}

static void pulse(unsigned irq)
{
    pic_set_irq(pic, irq, true);
    pic_set_irq(pic, irq, false);
}

Test(pic, silent_before_initialisation)
{
    pulse(1);
    cr_assert_not(intr());
}

Test(pic, priorities_and_eoi)
{
    init_pics(1);
    pulse(4);
    pulse(1);
    cr_assert_eq(in8(&rig, 0x20), 0x12, "IRR");
    cr_assert_eq(pic_acknowledge(pic), 0x21);
    cr_assert_not(intr(), "irq 4 waits for irq 1");
    pulse(0);
    cr_assert_eq(pic_acknowledge(pic), 0x20);
    out8(&rig, 0x20, 0x0b);
    cr_assert_eq(in8(&rig, 0x20), 0x03, "ISR");
    out8(&rig, 0x20, 0x20);
    cr_assert_not(intr());
    out8(&rig, 0x20, 0x61); /* specific EOI of 1 */
    cr_assert_eq(pic_acknowledge(pic), 0x24);
    out8(&rig, 0x20, 0x20);
    cr_assert_not(intr());
}

Test(pic, cascade)
{
    init_pics(1);
    pulse(12);
    pulse(8);
    cr_assert_eq(pic_acknowledge(pic), 0x28);
    cr_assert_not(intr());
    out8(&rig, 0xa0, 0x20);
    cr_assert_not(intr(), "the master's cascade input is still in service");
    out8(&rig, 0x20, 0x20);
    cr_assert_eq(pic_acknowledge(pic), 0x2c);
}

Test(pic, masks_and_spurious)
{
    init_pics(1);
    out8(&rig, 0x21, 0x02);
    pulse(1);
    cr_assert_not(intr());
    out8(&rig, 0x21, 0);
    cr_assert(intr());
    out8(&rig, 0x21, 0x02);
    cr_assert_eq(pic_acknowledge(pic), 0x27, "spurious");
    out8(&rig, 0x20, 0x0b);
    cr_assert_eq(in8(&rig, 0x20), 0);
    out8(&rig, 0x4d1, 0x02); /* irq 9 is a level */
    pic_set_irq(pic, 9, true);
    cr_assert(intr());
    pic_set_irq(pic, 9, false);
    cr_assert_not(intr(), "a level that goes takes its request along");
}

Test(pic, level_mode_and_elcr)
{
    init_pics(1);
    out8(&rig, 0x4d0, 0xff);
    out8(&rig, 0x4d1, 0xff);
    cr_assert_eq(in8(&rig, 0x4d0), 0xf8);
    cr_assert_eq(in8(&rig, 0x4d1), 0xde);
    pic_set_irq(pic, 11, true);
    cr_assert_eq(pic_acknowledge(pic), 0x2b);
    out8(&rig, 0xa0, 0x20), out8(&rig, 0x20, 0x20);
    cr_assert(intr(), "still high");
    pic_set_irq(pic, 11, false);
    cr_assert_not(intr());
}

Test(pic, automatic_eoi_and_rotation)
{
    init_pics(3);
    pulse(3);
    cr_assert_eq(pic_acknowledge(pic), 0x23);
    pulse(5);
    cr_assert_eq(pic_acknowledge(pic), 0x25, "nothing is in service");
    init_pics(1);
    pulse(3);
    pic_acknowledge(pic);
    out8(&rig, 0x20, 0xa0); /* rotate on non-specific EOI: 3 is the lowest now */
    pulse(3);
    pulse(7);
    cr_assert_eq(pic_acknowledge(pic), 0x27);
    out8(&rig, 0x20, 0x20);
    cr_assert_eq(pic_acknowledge(pic), 0x23);
    out8(&rig, 0x20, 0x20);
    out8(&rig, 0x20, 0xc5); /* set priority: 5 is the lowest, 6 the highest */
    pulse(0);
    pulse(6);
    cr_assert_eq(pic_acknowledge(pic), 0x26);
}

Test(pic, automatic_eoi_with_two_slave_requests)
{
    init_pics(3);
    pulse(12);
    pulse(9);
    cr_assert_eq(pic_acknowledge(pic), 0x29);
    cr_assert(intr(), "the slave's second request must not get lost");
    cr_assert_eq(pic_acknowledge(pic), 0x2c);
}

Test(pic, special_mask_and_poll)
{
    init_pics(1);
    pulse(1);
    pic_acknowledge(pic);
    pulse(6);
    cr_assert_not(intr());
    out8(&rig, 0x21, 0x02);
    out8(&rig, 0x20, 0x68); /* special mask: all but the masked one may interrupt */
    cr_assert(intr());
    out8(&rig, 0x20, 0x0c); /* poll */
    cr_assert_eq(in8(&rig, 0x20), 0x86);
    out8(&rig, 0x20, 0x0c);
    cr_assert_eq(in8(&rig, 0x20), 0);
    cr_assert_not(intr());
}

Test(pic, special_fully_nested)
{
    init_pics(0x11);
    pulse(12);
    pic_acknowledge(pic);
    pulse(9);
    cr_assert(intr(), "a higher request of the slave gets through");
    cr_assert_eq(pic_acknowledge(pic), 0x29);
}

Test(pic, state)
{
    init_pics(1);
    pulse(12);
    pulse(4);
    pic_acknowledge(pic);
    out8(&rig, 0x20, 0x0b);
    rig_round_trip(&pic->device, NULL);
    cr_assert_eq(in8(&rig, 0x20), 0x04, "the cascade is in service");
    rig_load_garbage(&pic->device, 3, 300);
}
