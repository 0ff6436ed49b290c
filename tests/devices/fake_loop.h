/* Stands in for base/event_loop.c and base/clock.c: time only moves when a test says so, so that timers are exact and
 * tests take no time. Descriptor watches are served by fake_loop_poll(). */
#ifndef EIDOLON_TESTS_DEVICES_FAKE_LOOP_H
#define EIDOLON_TESTS_DEVICES_FAKE_LOOP_H

#include "base/event_loop.h"

#define FAKE_TSC_KHZ    2000000u               /* two ticks a nanosecond */
#define FAKE_WALL_START 1700000000000000000ull /* Tue 14 Nov 2023 22:13:20 UTC */

uint64_t fake_time(void);
/* Runs all timers that become due on the way, in order, each at its time. */
void fake_time_advance(uint64_t ns);
void fake_time_to(uint64_t ns);
/* Moves time without running timers, as if the loop's thread were late; fake_time_advance(0) lets it catch up. */
void fake_time_skip(uint64_t ns);
/* Back to time 0; nothing may be armed or watched. For programs that run many machines one after the other. */
void fake_loop_restart(void);
void fake_wall_adjust(int64_t ns); /* somebody sets the host's clock */
unsigned fake_timers_armed(void);
uint64_t fake_timers_run(void); /* callbacks so far */
/* Calls the watches whose descriptors are ready; waits up to timeout_ms for one. Number of callbacks. */
unsigned fake_loop_poll(int timeout_ms);

#endif
