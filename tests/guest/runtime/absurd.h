/* What the images that do absurd things share: random numbers, random instructions, a watchdog, and the rounds.
 *
 * A round is a number of random steps from its own seed, and ends in a reset of the machine: its own, by triple
 * fault or by port 0xcf9 when all steps are through. The count is in the CMOS memory, which a reset leaves alone.
 * Each round says "round N" first, so that what went wrong can be repeated: "seed=S round=N" begins there. A PIT
 * interrupt, sent as an NMI, ends loops; if the guest has lost even that, whoever runs it gives up waiting. */
#ifndef TESTS_GUEST_RUNTIME_ABSURD_H
#define TESTS_GUEST_RUNTIME_ABSURD_H

#include "guest.h"

enum { STEPS = 200, CMOS_COUNT = 0x50 };

static u64 state;

/* splitmix64 */
static u64 random64(void)
{
    u64 z = state += 0x9e3779b97f4a7c15ull;

    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ z >> 27) * 0x94d049bb133111ebull;
    return z ^ z >> 31;
}

static unsigned pick(unsigned n)
{
    return (unsigned)(random64() >> 33) % n;
}
#define CHOOSE(array) (array)[pick(ARRAY_SIZE(array))]

/* A value with a few bits changed. */
static u64 shaken(u64 value)
{
    for (unsigned i = pick(4) + 1; i; i--)
        value ^= BIT(pick(pick(3) ? 24 : 64));
    return value;
}

static unsigned put_instruction(u8 *at)
{
    static const u8 prefixes[] = { 0x66, 0x67, 0xf0, 0xf2, 0xf3, 0x2e, 0x36, 0x3e,
                                   0x26, 0x64, 0x65, 0x48, 0x41, 0x44, 0x4f };
    unsigned n = 0;

    while (!pick(3) && n < 4)
        at[n++] = CHOOSE(prefixes);
    switch (pick(8)) {
    case 0:
        at[n++] = 0x0f;
        at[n++] = 0x38;
        break;
    case 1:
        at[n++] = 0x0f;
        at[n++] = 0x3a;
        break;
    case 2:
        at[n++] = 0xc5;
        at[n++] = (u8)random64();
        break;
    case 3:
        at[n++] = 0xc4;
        at[n++] = (u8)((random64() & 0xe0) | (1 + pick(3)));
        at[n++] = (u8)random64();
        break;
    case 4:
    case 5:
        at[n++] = 0x0f;
        break;
    }
    at[n++] = (u8)random64();
    for (unsigned i = 0; i < 8; i++)
        at[n + i] = (u8)random64();
    if (pick(2)) /* a register as the address, no displacement */
        at[n] &= 0x3f;
    return n + 1 + (pick(2) ? 0 : pick(8));
}

/* A few, with INT 0x40 behind them: their length. */
static unsigned put_instructions(u8 bytes[256])
{
    unsigned n = 0;

    for (unsigned count = 1 + pick(6); count && n < 200; count--)
        n += put_instruction(bytes + n);
    bytes[n++] = 0xcd;
    bytes[n++] = 0x40;
    return n;
}

/* A port, mostly one where there is something; not what powers off or resets, most of the time. */
static word random_port(void)
{
    static const u16 ports[] = {
        0x00,  0x08,  0x20,  0x21,  0x40,  0x41,  0x42,  0x43,  0x60,  0x61,  0x64,  0x70,  0x71,  0x80,  0x92,
        0xa0,  0xa1,  0xb2,  0xe9,  0x2f8, 0x3f8, 0x3f9, 0x3fa, 0x3fb, 0x3fc, 0x3fd, 0x3ff, 0x4d0, 0x4d1, 0x510,
        0x511, 0x514, 0x518, 0x600, 0x602, 0x608, 0x620, 0x628, 0x630, 0xcf8, 0xcf9, 0xcfc, 0xcfd, 0xcfe, 0xcff,
    };
    word port = pick(8) ? CHOOSE(ports) : (u16)random64();

    return port == 0x604 || ((port == 0x600 || port == 0xcf9 || port == 0x92) && pick(8)) ? 0x80 : port;
}

static void arm_watchdog(void)
{
    *FRAME32(0xfec00000) = 0x15;
    *FRAME32(0xfec00010) = 0;
    *FRAME32(0xfec00000) = 0x14;
    *FRAME32(0xfec00010) = 4 << 8; /* pin 2: NMI */
    outb(0x43, 0x30);
    outb(0x40, 0x00);
    outb(0x40, 0x08); /* about 1.7 ms */
}

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

static word parse(const char *what)
{
    for (const char *at = command_line; *at; at++) {
        unsigned i = 0;
        word value = 0;

        while (what[i] && at[i] == what[i])
            i++;
        if (what[i])
            continue;
        for (at += i; *at >= '0' && *at <= '9'; at++)
            value = value * 10 + (word)(*at - '0');
        return value;
    }
    return 0;
}

static void next_round(void)
{
    load_idt(0);
    for (;;)
        __asm__ volatile("int3");
}

/* Odd rounds are gentle: their steps leave alone what would end them at once. */
static void run_rounds(void (*step)(int gentle))
{
    word count = cmos_read(CMOS_COUNT) | (word)cmos_read(CMOS_COUNT + 1) << 8, round = parse("round=") + count;

    cmos_write(CMOS_COUNT, (u8)(count + 1));
    cmos_write(CMOS_COUNT + 1, (u8)((count + 1) >> 8));
    say("round %d\n", round);
    state = parse("seed=") * 0x100000001b3ull + round;
    on_unexpected_event = next_round;
    for (unsigned i = 0; i < STEPS; i++)
        step((int)round & 1);
    outb(0xcf9, 2);
    outb(0xcf9, 6);
    next_round();
}

#endif
