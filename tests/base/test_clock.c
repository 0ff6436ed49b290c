/* Guest time: both scales start at zero, agree with each other and do not go backwards. */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/clock.h"

Test(clock, scales_agree)
{
    struct clock clock;
    uint64_t ns0, tsc0, ns1, tsc1, from_tsc;

    clock_init(&clock);
    cr_assert_gt(clock.tsc_khz, 100000);
    cr_assert_lt(clock.tsc_khz, 20000000);
    ns0 = clock_now_ns(&clock);
    tsc0 = clock_tsc(&clock);
    cr_assert_lt(ns0, 1000000000);
    usleep(50000);
    ns1 = clock_now_ns(&clock);
    tsc1 = clock_tsc(&clock);
    from_tsc = (tsc1 - tsc0) * 1000000 / clock.tsc_khz;
    /* The two pairs of readings may be torn apart by preemption: a wide margin. */
    cr_assert_lt(llabs((long long)(from_tsc - (ns1 - ns0))), 5000000, "TSC says %llu ns, the clock %llu",
                 (unsigned long long)from_tsc, (unsigned long long)(ns1 - ns0));
}

Test(clock, conversion)
{
    struct clock clock;
    uint64_t now, soon;

    clock_init(&clock);
    usleep(1000);
    now = clock_now_ns(&clock);
    soon = clock_tsc_to_ns(&clock, clock_tsc(&clock) + clock.tsc_khz * 1000); /* one second */
    cr_assert_geq(soon, now + 999000000);
    cr_assert_lt(soon, now + 1500000000);
    cr_assert_leq(clock_tsc_to_ns(&clock, 0), clock_now_ns(&clock));
    cr_assert_gt(clock_tsc_to_ns(&clock, UINT64_MAX), now);
    clock.tsc_khz = 1; /* saturates */
    cr_assert_eq(clock_tsc_to_ns(&clock, UINT64_MAX), UINT64_MAX);
}
