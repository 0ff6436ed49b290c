/* Interrupt controllers and timers of the board, as far as their properties do not depend on speed: 8259 and 8254,
 * IOAPIC, HPET, RTC, ACPI timer. 82093AA, 8259A, 8254, MC146818 and HPET data sheets; ICH9 data sheet 13. */
#include "apic.h"

/* ---- 8259 and 8254 through the virtual wire ---- */

static void count_pic(struct regs *regs)
{
    counts[regs->vector]++;
    outb(0x20, 0x20);
}

static void init_pic(u8 icw4)
{
    outb(0x20, 0x11);
    outb(0x21, 0x60);
    outb(0x21, 4);
    outb(0x21, icw4);
    outb(0xa0, 0x11);
    outb(0xa1, 0x68);
    outb(0xa1, 2);
    outb(0xa1, 1);
    outb(0x21, 0xff);
    outb(0xa1, 0xff);
}

static void set_pit(u8 mode, u16 value)
{
    outb(0x43, (u8)(0x30 | mode << 1));
    outb(0x40, (u8)value);
    outb(0x40, (u8)(value >> 8));
}

static void pic_and_pit(void)
{
    begin("pic-timer-ticks");
    reset_apic();
    *apic(APIC_LINT0) = EXTINT;
    init_pic(1);
    expect_vector(0x60);
    handlers[0x60] = count_pic;
    set_pit(2, 1193);
    outb(0x21, 0xfe);
    say(" five=%d", (word)wait_count(0x60, 5));
    outb(0x21, 0xff);
    drained();

    begin("pic-request-and-service");
    set_pit(0, 100);
    do
        outb(0x20, 0x0a);
    while (!(inb(0x20) & 1));
    say(" irr=%x", (word)(inb(0x20) & 1));
    outb(0x20, 0x0b);
    say(" isr=%x", (word)inb(0x20));
    outb(0x21, 0xfe);
    {
        struct regs out = RUN(KERNEL, "nop", .rflags = 2 | IF);

        say(" %s %x", event_name(out.vector), out.vector);
    }
    outb(0x20, 0x0b);
    say(" isr=%x", (word)inb(0x20));
    outb(0x20, 0x60);
    say(" after-eoi=%x", (word)inb(0x20));
    outb(0x21, 0xff);
    drained();

    begin("pic-lint0-masked");
    *apic(APIC_LINT0) = EXTINT | MASKED;
    expect_vector(0x60);
    handlers[0x60] = count_pic;
    set_pit(2, 1193);
    outb(0x21, 0xfe);
    wait_ticks(5000000);
    open_window();
    say(" %d", counts[0x60]);
    outb(0x21, 0xff);
    set_pit(0, 0xffff);
    drained();

    begin("pit-latch-and-readback");
    set_pit(2, 10000);
    outb(0x43, 0xe2); /* status of counter 0 */
    say(" status=%x", (word)(inb(0x40) & 0x3f));
    outb(0x43, 0);
    {
        u32 value = inb(0x40);

        value |= (u32)inb(0x40) << 8;
        say(" in-range=%d", (word)(value > 0 && value <= 10000));
    }
    drained();

    begin("pit-channel-2-output");
    outb(0x61, 0);
    outb(0x43, 0xb0);
    outb(0x61, 1);
    outb(0x42, 0x10);
    outb(0x42, 0x00);
    {
        word spins = 0;

        while (!(inb(0x61) & 0x20) && spins < 10000000)
            spins++;
        say(" out=%d", (word)(inb(0x61) >> 5 & 1));
    }
    outb(0x61, 0);
    drained();
}

/* ---- IOAPIC ---- */

enum { COM1 = 0x3f8, IOAPIC_LEVEL = 1 << 15, REMOTE_IRR = 1 << 14 };
static volatile word level_events;

/* The third time, the cause goes away. */
static void level_handler(struct regs *regs)
{
    counts[regs->vector]++;
    if (counts[regs->vector] == 1)
        level_events = ioapic_read(0x10 + 2 * 4) & REMOTE_IRR ? 1 : 0;
    if (counts[regs->vector] == 3)
        inb(COM1 + 2);
    if (counts[regs->vector] > 3)
        outb(COM1 + 1, 0);
    *apic(APIC_EOI) = 0;
}

static void ioapic(void)
{
    begin("ioapic-registers");
    say(" pins=%d", (word)(ioapic_read(1) >> 16 & 0xff) + 1);
    ioapic_write(0x10 + 2 * 5, 0xffffffff);
    ioapic_write(0x11 + 2 * 5, 0xffffffff);
    say(" low=%x high=%x", (word)(ioapic_read(0x10 + 2 * 5) & ~(u32)REMOTE_IRR), (word)ioapic_read(0x11 + 2 * 5));
    route(5, MASKED);
    drained();

    begin("ioapic-edge-timer");
    reset_apic();
    init_pic(1);
    expect_vector(0x62);
    set_pit(2, 1193);
    route(2, 0x62);
    say(" three=%d", (word)wait_count(0x62, 3));
    route(2, MASKED | 0x62);
    drained();

    begin("ioapic-masked");
    expect_vector(0x62);
    set_pit(2, 1193);
    route(2, MASKED | 0x62);
    wait_ticks(5000000);
    open_window();
    say(" %d", counts[0x62]);
    set_pit(0, 0xffff);
    drained();

    begin("ioapic-nmi-wakes-hlt");
    set_pit(0, 0xffff);
    route(2, MASKED);
    {
        struct regs out;

        route(2, NMI_DELIVERY);
        set_pit(0, 5000);
        out = RUN(KERNEL, "cli; hlt; nop");
        say(" %s ip+%x", event_name(out.vector), out.rip - CODE_PAGE);
        RUN(KERNEL, "nop");
    }
    route(2, MASKED);
    drained();

    /* the UART's transmitter-empty interrupt is a level that IIR reads clear */
    begin("ioapic-level");
    expect_vector(0x64);
    handlers[0x64] = level_handler;
    outb(COM1 + 1, 0);
    outb(COM1 + 4, 8); /* OUT2: the interrupt is wired */
    inb(COM1 + 2);
    route(4, IOAPIC_LEVEL | 0x64);
    outb(COM1 + 1, 2);
    wait_count(0x64, 3);
    for (unsigned i = 0; i < 10; i++)
        open_window();
    say(" count=%d remote-irr-in-handler=%d remote-irr=%d", counts[0x64], level_events,
        (word)(ioapic_read(0x10 + 2 * 4) >> 14 & 1));
    outb(COM1 + 1, 0);
    route(4, MASKED);
    drained();

    begin("ioapic-edge-comes-once");
    expect_vector(0x64);
    route(4, 0x64);
    outb(COM1 + 1, 2);
    wait_count(0x64, 1);
    for (unsigned i = 0; i < 10; i++)
        open_window();
    say(" count=%d", counts[0x64]);
    outb(COM1 + 1, 0);
    route(4, MASKED);
    drained();
}

/* ---- HPET ---- */

static void hpet(void)
{
    volatile u64 *capabilities = FRAME64(0xfed00000), *config = FRAME64(0xfed00010), *counter = FRAME64(0xfed000f0);
    volatile u64 *timer0 = FRAME64(0xfed00100), *comparator0 = FRAME64(0xfed00108), *status = FRAME64(0xfed00020);

    begin("hpet-counter");
    say(" period-ok=%d timers>=3:%d", (word)(*capabilities >> 32 > 0 && *capabilities >> 32 <= 100000000),
        (word)((*capabilities >> 8 & 31) >= 2));
    *config = 0;
    *counter = 0x123456789;
    say(" halted=%X", *counter);
    *config = 1;
    {
        u64 a = *counter, b;

        do
            b = *counter;
        while (b == a);
        say(" runs=%d", (word)(b > a && a >= 0x123456789));
    }
    *config = 0;
    {
        u64 a = *counter;

        wait_ticks(10000);
        say(" stops=%d", (word)(*counter == a));
    }
    say(" half=%d", (word)((u32)*counter == *FRAME32(0xfed000f0)));
    drained();

    begin("hpet-one-shot-legacy");
    reset_apic();
    expect_vector(0x62);
    route(2, 0x62);
    *config = 0;
    *counter = 0;
    *status = 1;
    *timer0 = 1 << 2; /* edge, one-shot, enabled */
    *comparator0 = 100000;
    *config = 3;
    say(" arrived=%d", (word)wait_count(0x62, 1));
    wait_ticks(1000000);
    open_window();
    say(" count=%d late-enough=%d", counts[0x62], (word)(*counter >= 100000));
    *config = 0;
    *timer0 = 0;
    drained();

    begin("hpet-periodic-legacy");
    expect_vector(0x62);
    *counter = 0;
    *timer0 = 1 << 2 | 1 << 3 | 1 << 6;
    *comparator0 = 100000;
    *comparator0 = 100000;
    *config = 3;
    say(" four=%d", (word)wait_count(0x62, 4));
    *config = 0;
    *timer0 = 0;
    route(2, MASKED);
    drained();
}

/* ---- RTC, ACPI timer ---- */

static u8 rtc_read(u8 index)
{
    outb(0x70, index);
    return inb(0x71);
}

static void rtc_write(u8 index, u8 value)
{
    outb(0x70, index);
    outb(0x71, value);
}

static void count_rtc(struct regs *regs)
{
    order = rtc_read(0x0c);
    counts[regs->vector]++;
    *apic(APIC_EOI) = 0;
}

static void clocks(void)
{
    begin("rtc-registers");
    {
        u8 b = rtc_read(0x0b), month, day;

        while (rtc_read(0x0a) & 0x80)
            ;
        month = rtc_read(8);
        day = rtc_read(7);
        if (!(b & 4)) {
            month = (u8)(month / 16 * 10 + month % 16);
            day = (u8)(day / 16 * 10 + day % 16);
        }
        say(" d=%x month-ok=%d day-ok=%d", (word)rtc_read(0x0d), (word)(month >= 1 && month <= 12),
            (word)(day >= 1 && day <= 31));
        rtc_write(0x50, 0xa5);
        say(" nvram=%x", (word)rtc_read(0x50));
    }
    drained();

    begin("rtc-periodic-interrupt");
    reset_apic();
    expect_vector(0x68);
    handlers[0x68] = count_rtc;
    rtc_read(0x0c);
    rtc_write(0x0a, 0x26); /* 1024 Hz */
    route(8, 0x68); /* first: the edge of an interrupt that came while it is masked would be lost, and no other follows */
    rtc_write(0x0b, (u8)(rtc_read(0x0b) | 0x40));
    say(" three=%d", (word)wait_count(0x68, 3));
    say(" flags=%x", order & 0xc0);
    rtc_write(0x0b, (u8)(rtc_read(0x0b) & ~0x40));
    route(8, MASKED);
    rtc_read(0x0c);
    drained();

    begin("rtc-flags-clear-on-read");
    rtc_write(0x0a, 0x26);
    rtc_read(0x0c);
    {
        word spins = 0;

        while (!(rtc_read(0x0c) & 0x40) && spins < 10000000)
            spins++;
        say(" seen=%d", (word)(spins < 10000000));
    }
    drained();

    begin("acpi-timer");
    {
        u32 a = inl(0x608), b;
        word spins = 0;

        do
            b = inl(0x608);
        while (b == a && spins++ < 10000000);
        say(" runs=%d 24-bits=%d", (word)(b != a), (word)(b >> 24 == 0));
    }
    drained();
}

void cases(void)
{
    reset_interrupt_controllers();
    pic_and_pit();
    ioapic();
    hpet();
    clocks();
}
