/* Guest time: monotonic nanoseconds since the machine started and the guest's
 * time-stamp counter, both derived from the host TSC / CLOCK_MONOTONIC. The
 * TSC ticks at the host's TSC frequency. Any thread may read. */
#ifndef EIDOLON_BASE_CLOCK_H
#define EIDOLON_BASE_CLOCK_H

#include "base/types.h"

struct clock {
    uint64_t tsc_khz;                   /* measured or read from CPUID at start */
    uint64_t tsc_base;                  /* host TSC at guest TSC 0 */
    uint64_t ns_base;                   /* CLOCK_MONOTONIC at guest time 0 */
    uint64_t measured_tsc, measured_ns; /* taken together at the start: CLOCK_MONOTONIC_RAW */
};

/* The clock runs from clock_begin() on; the TSC's frequency is known after clock_calibrate(), which sleeps if less than 20 ms
 * have passed in between. */
void clock_begin(struct clock *clock);
void clock_calibrate(struct clock *clock);
void clock_init(struct clock *clock);             /* both */
uint64_t clock_host_ns(void);                     /* CLOCK_MONOTONIC */
uint64_t clock_now_ns(const struct clock *clock); /* guest time */
uint64_t clock_wall_ns(void);                     /* CLOCK_REALTIME, UTC */
uint64_t clock_tsc(const struct clock *clock);    /* guest TSC, without TSC_ADJUST */
/* Guest time at which clock_tsc() reaches `tsc`; saturates. */
uint64_t clock_tsc_to_ns(const struct clock *clock, uint64_t tsc);

#endif
