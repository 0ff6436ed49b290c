/* The local APIC's timer: one-shot, periodic, TSC-deadline (SDM Vol. 3A 11.5.4).
 *
 * Nothing counts: while the timer runs, deadline_ns is the guest time at which it reaches zero, and the current count
 * is computed from it. Ticks are 1 ns (LAPIC_TIMER_HZ) times the divider. */
#include "devices/irq/lapic_internal.h"

_Static_assert(LAPIC_TIMER_HZ == 1000000000ull, "ticks are nanoseconds below");

/* A period that is shorter than the machine can follow: expiries are merged, as they would be in IRR. Keeps a
 * hostile guest from occupying the loop. */
#define MIN_PERIOD_NS 20000ull

static uint64_t now_ns(const struct lapic *lapic)
{
    return clock_now_ns(lapic->device.env->clock);
}

/* Figure 11-10: 0 1 2 3 8 9 a b -> 2 4 8 16 32 64 128 1. */
static unsigned divide_shift(const struct lapic *lapic)
{
    unsigned code = (lapic->divide & 3) | (lapic->divide >> 1 & 4);

    return (code + 1) & 7;
}

static uint32_t timer_mode(const struct lapic *lapic)
{
    return lapic->lvt[LVT_TIMER] & LVT_TIMER_MODE;
}

static uint64_t period_ns(const struct lapic *lapic)
{
    return (uint64_t)lapic->initial_count << divide_shift(lapic);
}

void lapic_timer_stop(struct lapic *lapic)
{
    lapic->timer_running = false;
    timer_disarm(&lapic->timer);
}

/* Starts or goes on with the countdown: `count` ticks from `from`. */
static void start_countdown(struct lapic *lapic, uint64_t from, uint32_t count)
{
    lapic->timer_running = true;
    lapic->deadline_ns = from + ((uint64_t)count << divide_shift(lapic));
    timer_arm(&lapic->timer, lapic->deadline_ns);
}

static void timer_expired(void *opaque);

/* An expiry that is due, but which the event loop has not come round to, belongs to the registers as they were: before
 * the guest changes them. */
static void catch_up(struct lapic *lapic)
{
    if (lapic->timer_running && now_ns(lapic) >= lapic->deadline_ns)
        timer_expired(lapic);
}

uint32_t lapic_timer_current(const struct lapic *lapic)
{
    uint64_t now, left, period;

    if (!lapic->timer_running || timer_mode(lapic) == LVT_TSC_DEADLINE)
        return 0;
    now = now_ns(lapic);
    if (now < lapic->deadline_ns) {
        left = lapic->deadline_ns - now;
    } else {
        /* Due, but the event loop has not come round to it. */
        period = period_ns(lapic);
        if (timer_mode(lapic) != LVT_PERIODIC || !period)
            return 0;
        left = period - (now - lapic->deadline_ns) % period;
    }
    left = (left + (1ull << divide_shift(lapic)) - 1) >> divide_shift(lapic);
    return left > UINT32_MAX ? UINT32_MAX : (uint32_t)left;
}

void lapic_timer_set_count(struct lapic *lapic, uint32_t count)
{
    if (timer_mode(lapic) == LVT_TSC_DEADLINE)
        return; /* ignored (11.5.4.1) */
    catch_up(lapic);
    lapic->initial_count = count;
    if (count)
        start_countdown(lapic, now_ns(lapic), count);
    else
        lapic_timer_stop(lapic);
}

void lapic_timer_set_divide(struct lapic *lapic, uint32_t divide)
{
    uint32_t left;

    catch_up(lapic);
    left = lapic_timer_current(lapic);
    lapic->divide = divide & 0xb;
    if (left)
        start_countdown(lapic, now_ns(lapic), left);
}

void lapic_timer_set_lvt(struct lapic *lapic, uint32_t value)
{
    bool was_deadline = timer_mode(lapic) == LVT_TSC_DEADLINE;
    bool is_deadline = (value & LVT_TIMER_MODE) == LVT_TSC_DEADLINE;

    catch_up(lapic);
    if (was_deadline != is_deadline) {
        lapic_timer_stop(lapic);
        lapic->initial_count = 0;
        lapic->tsc_deadline = 0;
    }
    lapic->lvt[LVT_TIMER] = value;
}

/* True if the deadline was reached: the interrupt has been delivered. */
static bool deadline_check(struct lapic *lapic)
{
    if (clock_tsc(lapic->device.env->clock) < lapic->tsc_deadline)
        return false;
    lapic->tsc_deadline = 0;
    lapic->timer_running = false;
    lapic_deliver_lvt(lapic, LVT_TIMER);
    return true;
}

static void deadline_arm(struct lapic *lapic)
{
    uint64_t now = now_ns(lapic);
    uint64_t when = clock_tsc_to_ns(lapic->device.env->clock, lapic->tsc_deadline);

    lapic->timer_running = true;
    lapic->deadline_ns = when > now ? when : now + 1; /* the conversion may have rounded down */
    timer_arm(&lapic->timer, lapic->deadline_ns);
}

void lapic_timer_set_deadline(struct lapic *lapic, uint64_t tsc)
{
    if (timer_mode(lapic) != LVT_TSC_DEADLINE)
        return; /* writes are ignored in the other modes, reads are 0 */
    catch_up(lapic);
    lapic->tsc_deadline = tsc;
    if (!tsc)
        lapic_timer_stop(lapic);
    else if (deadline_check(lapic))
        timer_disarm(&lapic->timer);
    else
        deadline_arm(lapic);
}

static void timer_expired(void *opaque)
{
    struct lapic *lapic = opaque;
    uint64_t now, period;

    if (!lapic->timer_running)
        return;
    if (timer_mode(lapic) == LVT_TSC_DEADLINE) {
        if (lapic->tsc_deadline && !deadline_check(lapic))
            deadline_arm(lapic);
        return;
    }
    if (timer_mode(lapic) != LVT_PERIODIC || !lapic->initial_count) {
        lapic->timer_running = false;
        lapic_deliver_lvt(lapic, LVT_TIMER);
        return;
    }
    now = now_ns(lapic);
    period = period_ns(lapic);
    if (now > lapic->deadline_ns)
        lapic->deadline_ns += (now - lapic->deadline_ns) / period * period;
    lapic->deadline_ns += period;
    timer_arm(&lapic->timer, MAX(lapic->deadline_ns, now + MIN_PERIOD_NS));
    lapic_deliver_lvt(lapic, LVT_TIMER);
}

void lapic_timer_setup(struct lapic *lapic)
{
    timer_init(&lapic->timer, lapic->device.env->loop, timer_expired, lapic);
}

/* After loading: timer_running, deadline_ns and tsc_deadline are set. */
void lapic_timer_restore(struct lapic *lapic)
{
    bool running = lapic->timer_running;

    lapic->divide &= 0xb;
    lapic_timer_stop(lapic);
    if (!running)
        return;
    lapic->timer_running = true;
    timer_arm(&lapic->timer, lapic->deadline_ns);
}
