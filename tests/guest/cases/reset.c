/* Ways to reset the machine, chosen by the command line; the second time around it says so and leaves. Which time it is
 * stands in the CMOS memory, which a reset does not touch (MC146818; ICH9 data sheet 5.12, 13.7). */
#include "guest.h"

enum { CMOS_MARK = 0x50, FIRST = 0x3c };

static u8 cmos_read(u8 index)
{
    outb(0x70, index);
    return inb(0x71);
}

static void cmos_write(u8 index, u8 value)
{
    outb(0x70, index);
    outb(0x71, value);
}

static int asked_for(const char *what)
{
    for (const char *at = command_line; *at; at++) {
        unsigned i = 0;

        while (what[i] && at[i] == what[i])
            i++;
        if (!what[i] && (!at[i] || at[i] == ' '))
            return 1;
    }
    return 0;
}

/* The command line's last word. */
static const char *way(void)
{
    const char *word_start = command_line;

    for (const char *at = command_line; *at; at++)
        if (*at == ' ')
            word_start = at + 1;
    return word_start;
}

static void wait_for_controller(void)
{
    while (inb(0x64) & 2)
        ;
}

static void reset(void)
{
    if (asked_for("triple")) {
        load_idt(0);
        __asm__ volatile("int3");
    } else if (asked_for("triple-page-fault")) {
        /* no exception can be delivered: neither its gate nor any stack is mapped */
        *pml4e(0) = 0;
        flush_tlb();
        __asm__ volatile("movb $0, 0");
    } else if (asked_for("triple-interrupt")) {
        load_idt(0);
        *FRAME32(0xfee000f0) = 0x1ff;
        *FRAME32(0xfee00300) = 1 << 18 | 0x51;
        __asm__ volatile("sti; nop; nop");
    } else if (asked_for("triple-step")) {
        load_idt(0);
        __asm__ volatile("pushq $0x102; popfq; nop; nop");
    } else if (asked_for("cf9")) {
        outb(0xcf9, 2);
        outb(0xcf9, 6);
    } else if (asked_for("keyboard")) {
        wait_for_controller();
        outb(0x64, 0xfe);
    } else if (asked_for("port92")) {
        outb(0x92, (u8)(inb(0x92) | 1));
    } else if (asked_for("init")) {
        /* INIT to itself: a reset of the CPU alone, which then has no firmware to run */
        *FRAME32(0xfee000f0) = 0x1ff;
        *FRAME32(0xfee00300) = 1 << 18 | 0x500;
    }
}

void cases(void)
{
    int again = cmos_read(CMOS_MARK) == FIRST;

    say("case reset-%s: %s\n", way(), again ? "again" : "first");
    cmos_write(CMOS_MARK, again ? 0 : FIRST);
    if (again)
        return;
    reset();
    for (u64 start = rdtsc(); rdtsc() - start < 30000000000ull;)
        ;
    say("still here\n");
}
