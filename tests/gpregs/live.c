/* See live.h. Compiled like the code under test, since it runs in its place when something parks. One thread. */
#include "tests/gpregs/live.h"

#include <cpuid.h>
#include <stdio.h>
#include <string.h>

#define AREA_SIZE  4096
#define COMPONENTS 0xe7ull /* x87, SSE, AVX, and AVX-512's three */

struct area {
    uint8_t bytes[AREA_SIZE] __attribute__((aligned(64)));
};

void live_call(const void *before, void *after, uint64_t components, void (*fn)(void *), void *argument);
void live_park(void *area, uint64_t components);

char live_text[256];
static struct {
    struct area before, after, parked;
    uint64_t components; /* 0: not asked yet; CPUID is slow where a hypervisor is beneath us */
    struct {
        unsigned offset, size;
    } component[8];   /* from 2 on */
    const char *left; /* the first outside function that was called without parking */
    /* What is in cpu->vector while the registers are live means nothing: here is what was there, and the noise that stands
     * in for it, different each time. */
    struct vector_state state, noise;
    uint64_t runs;
} live;

static void ask_host(void)
{
    live.components = COMPONENTS & host_xcr0();
    for (unsigned i = 2; i < ARRAY_SIZE(live.component); i++) {
        unsigned c, d;
        if (live.components >> i & 1)
            __cpuid_count(0xd, i, live.component[i].size, live.component[i].offset, c, d);
    }
}

/* ---- Registers ---- */

static uint64_t next_random(uint64_t *state) /* splitmix64 */
{
    uint64_t z = *state += 0x9e3779b97f4a7c15ull;

    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ z >> 27) * 0x94d049bb133111ebull;
    return z ^ z >> 31;
}

static void fill_random(void *to, size_t size, uint64_t seed)
{
    uint64_t *words = to;

    for (size_t i = 0; i < size / 8; i++)
        words[i] = next_random(&seed);
}

static void put16(struct area *area, unsigned offset, uint16_t value)
{
    memcpy(area->bytes + offset, &value, 2);
}

/* Anything may be in registers; control and status words have to be such that nothing is pending. */
static void fill(struct area *area, uint64_t seed)
{
    uint32_t mxcsr = 0x1f80 | (seed & 3) << 13 | (seed & 0x3f);

    fill_random(area->bytes, AREA_SIZE, seed);
    put16(area, 0, 0x037f | (seed >> 8 & 3) << 10); /* FCW */
    put16(area, 2, (seed >> 12 & 7) << 11);         /* FSW: TOP */
    put16(area, 4, seed >> 16 & 0xff);              /* FTW */
    memset(area->bytes + 6, 0, 18);                 /* FOP, FIP, FDP */
    memcpy(area->bytes + 24, &mxcsr, 4);
    memset(area->bytes + 512, 0, 64);
    memcpy(area->bytes + 512, &live.components, 8); /* XSTATE_BV */
}

static bool differs(const struct area *a, const struct area *b, unsigned offset, unsigned size, const char *what)
{
    for (unsigned i = 0; i < size; i++) {
        if (a->bytes[offset + i] == b->bytes[offset + i])
            continue;
        snprintf(live_text, sizeof(live_text), "%s: byte %u was 0x%02x and is 0x%02x", what, i, a->bytes[offset + i],
                 b->bytes[offset + i]);
        return true;
    }
    return false;
}

static bool registers_differ(const struct area *a, const struct area *b)
{
    static const char *const names[] = {
        [2] = "upper halves of ymm", [5] = "k0 to k7", [6] = "upper halves of zmm", [7] = "zmm16 to zmm31"
    };

    /* FOP, FIP and FDP, between them, are only there if an exception is pending (APM Vol. 2 11.5.10) */
    if (differs(a, b, 0, 6, "x87 environment") || differs(a, b, 24, 4, "MXCSR") ||
        differs(a, b, 160, 256, "xmm registers"))
        return true;
    for (unsigned i = 0; i < 8; i++)
        if (differs(a, b, 32 + 16 * i, 10, "x87 registers"))
            return true;
    for (unsigned i = 2; i < ARRAY_SIZE(names); i++)
        if (differs(a, b, live.component[i].offset, live.component[i].size, names[i]))
            return true;
    return false;
}

/* ---- Running ---- */

void live_leaving(const char *name)
{
    const struct cpu *cpu = vector_guard_of_thread.opaque;

    if (cpu && cpu->vectors_live && !live.left)
        live.left = name;
}

static void park(struct cpu *cpu)
{
    live_park(&live.parked, live.components);
    cpu->vectors_live = false;
    cpu->vector = live.state;
}

static bool kept_properly(struct cpu *cpu)
{
    if (!memcmp(&cpu->vector, &live.noise, sizeof(live.noise)))
        return !registers_differ(&live.before, &live.after);
    snprintf(live_text, sizeof(live_text), "cpu->vector was written while the registers were live");
    return false;
}

enum live_result live_run(struct cpu *cpu, void (*fn)(void *argument), void *argument, uint64_t seed)
{
    struct cpu *before = cpu_thread_enter(cpu);

    if (!live.components)
        ask_host();
    live.left = NULL;
    live_text[0] = '\0';
    fill(&live.before, seed);
    live.state = cpu->vector;
    fill_random(&live.noise, sizeof(live.noise), seed + ++live.runs);
    cpu->vector = live.noise;
    cpu->park_vectors = park;
    cpu->vectors_live = true;
    live_call(&live.before, &live.after, live.components, fn, argument);
    bool kept = cpu->vectors_live;
    cpu->vectors_live = false;
    cpu->park_vectors = NULL;
    cpu_thread_leave(before);
    if (live.left) {
        snprintf(live_text, sizeof(live_text), "%s is called while they are live", live.left);
        return LIVE_LEFT;
    }
    if (!kept)
        return registers_differ(&live.before, &live.parked) ? LIVE_LATE : LIVE_PARKED;
    bool proper = kept_properly(cpu);
    cpu->vector = live.state;
    return proper ? LIVE_KEPT : LIVE_CHANGED;
}
