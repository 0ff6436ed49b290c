/* Guest time. Nanoseconds follow CLOCK_MONOTONIC; the guest's TSC is the host's, less its value at
 * start, so that both survive host frequency changes (invariant TSC). Any thread may read; a struct
 * clock is constant once it is calibrated.
 *
 * The TSC's frequency comes from CPUID leaf 15H (SDM Vol. 3B 19.7.3) when that is complete and agrees
 * with a short measurement: a hypervisor below us may pass the leaf on while it scales the TSC.
 * Else it is measured. */
#include "base/clock.h"

#include <time.h>

#include "base/host_cpu.h"

#define NS_PER_SECOND 1000000000ull
#define PROBE_NS      2000000ull  /* enough to see whether CPUID's figure is plausible */
#define MEASURE_NS    20000000ull /* two readings of about 30 ns uncertainty: a few parts per million */

static uint64_t read_ns(clockid_t id)
{
    struct timespec ts;

    clock_gettime(id, &ts);
    return (uint64_t)ts.tv_sec * NS_PER_SECOND + (uint64_t)ts.tv_nsec;
}

static inline uint64_t host_tsc(void)
{
    return __builtin_ia32_rdtsc();
}

/* A (TSC, CLOCK_MONOTONIC_RAW) pair taken together: the tightest of a few tries, so that an
 * interrupt between the two readings does not spoil it. */
static void read_pair(uint64_t *tsc, uint64_t *ns)
{
    uint64_t best = UINT64_MAX;

    *tsc = *ns = 0;
    for (int i = 0; i < 8; i++) {
        uint64_t before = host_tsc();
        uint64_t now = read_ns(CLOCK_MONOTONIC_RAW);
        uint64_t after = host_tsc();

        if (after - before < best) {
            best = after - before;
            *tsc = before + best / 2;
            *ns = now;
        }
    }
}

/* Over at least that time since clock_begin(), most of which has passed already if there was something else to do. */
static uint64_t measure_khz(const struct clock *clock, uint64_t duration_ns)
{
    uint64_t tsc, ns;

    for (;;) {
        read_pair(&tsc, &ns);
        uint64_t passed = ns - clock->measured_ns;
        if (passed >= duration_ns)
            return (uint64_t)((unsigned __int128)(tsc - clock->measured_tsc) * 1000000 / passed);
        struct timespec pause = { .tv_nsec = (long)(duration_ns - passed) };
        nanosleep(&pause, NULL); /* a signal may cut it short */
    }
}

static uint64_t cpuid_khz(void)
{
    struct cpuid_regs ratio;

    if (host_cpuid(0, 0).eax < 0x15)
        return 0;
    ratio = host_cpuid(0x15, 0);
    if (!ratio.eax || !ratio.ebx || !ratio.ecx)
        return 0;
    return (uint64_t)ratio.ecx * ratio.ebx / ratio.eax / 1000;
}

static uint64_t find_khz(const struct clock *clock)
{
    uint64_t stated = cpuid_khz();

    if (stated) {
        uint64_t measured = measure_khz(clock, PROBE_NS);
        uint64_t difference = measured > stated ? measured - stated : stated - measured;

        if (difference < stated / 100)
            return stated;
    }
    return measure_khz(clock, MEASURE_NS);
}

void clock_begin(struct clock *clock)
{
    read_pair(&clock->measured_tsc, &clock->measured_ns);
    clock->tsc_khz = 0;
    clock->tsc_base = host_tsc();
    clock->ns_base = clock_host_ns();
}

void clock_calibrate(struct clock *clock)
{
    clock->tsc_khz = find_khz(clock);
}

void clock_init(struct clock *clock)
{
    clock_begin(clock);
    clock_calibrate(clock);
}

uint64_t clock_host_ns(void)
{
    return read_ns(CLOCK_MONOTONIC);
}

uint64_t clock_now_ns(const struct clock *clock)
{
    return clock_host_ns() - clock->ns_base;
}

uint64_t clock_wall_ns(void)
{
    return read_ns(CLOCK_REALTIME);
}

uint64_t clock_tsc(const struct clock *clock)
{
    return host_tsc() - clock->tsc_base;
}

uint64_t clock_tsc_to_ns(const struct clock *clock, uint64_t tsc)
{
    /* Relative to now, so that the small difference between the stated frequency and what NTP
     * makes of CLOCK_MONOTONIC does not add up over days. */
    uint64_t now_tsc = clock_tsc(clock), now_ns = clock_now_ns(clock);
    unsigned __int128 ns;

    if (tsc <= now_tsc) {
        ns = (unsigned __int128)(now_tsc - tsc) * 1000000 / clock->tsc_khz;
        return ns >= now_ns ? 0 : now_ns - (uint64_t)ns;
    }
    ns = (unsigned __int128)(tsc - now_tsc) * 1000000 / clock->tsc_khz + now_ns;
    return ns > UINT64_MAX ? UINT64_MAX : (uint64_t)ns;
}
