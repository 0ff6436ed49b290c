/* HPET (IA-PC HPET specification 1.0a, chapter 2).
 *
 * The main counter is computed from guest time; host timers only run for comparators whose next match interrupts.
 * A comparator's next match is kept as a 64-bit value of the counter, which 32-bit comparators do not have, and
 * moved on whenever somebody looks (advance).
 *
 * Deviation: a comparator that is written with a value up to one second in the past matches at once. In hardware
 * it would match after the counter has wrapped; an emulated CPU is slow enough to lose that race where hardware is
 * not. Threads: any, device lock held. */
#include "devices/timer/hpet.h"

#include "base/log.h"
#include "devices/board/machine.h"

enum {
    REG_CAPABILITIES = 0x00,
    REG_CONFIG = 0x10,
    REG_STATUS = 0x20,
    REG_COUNTER = 0xf0,
    REG_TIMERS = 0x100,
    TIMER_STRIDE = 0x20,
    TIMER_CONFIG = 0x00,
    TIMER_COMPARATOR = 0x08,
    MMIO_SIZE = 0x400,
};
enum { CONFIG_ENABLE = 1 << 0, CONFIG_LEGACY = 1 << 1 };
enum {
    TN_LEVEL = 1 << 1,
    TN_INT_ENABLE = 1 << 2,
    TN_PERIODIC = 1 << 3,
    TN_PERIODIC_CAPABLE = 1 << 4,
    TN_64_BIT = 1 << 5,
    TN_SET_VALUE = 1 << 6,
    TN_32_BIT_MODE = 1 << 8,
    TN_ROUTE_SHIFT = 9,
    TN_ROUTE = 31 << TN_ROUTE_SHIFT,
    TN_WRITABLE = TN_LEVEL | TN_INT_ENABLE | TN_PERIODIC | TN_SET_VALUE | TN_32_BIT_MODE | TN_ROUTE,
};
/* 64-bit counter 13, legacy replacement 15, period in femtoseconds 63:32 */
#define CAPABILITIES  (HPET_BLOCK_ID | BIT(13) | BIT(15) | (uint64_t)HPET_NS_PER_TICK * 1000000 << 32)
#define ROUTES        0x00ff0104ull /* IOAPIC pins 2, 8, 16..23 */
#define LATE_TICKS    (1000000000ull / HPET_NS_PER_TICK)
#define MIN_PERIOD_NS 20000ull

static uint64_t now_ns(const struct hpet *hpet)
{
    return clock_now_ns(hpet->device.env->clock);
}

static bool is_enabled(const struct hpet *hpet)
{
    return hpet->config & CONFIG_ENABLE;
}
static bool is_legacy(const struct hpet *hpet)
{
    return hpet->config & CONFIG_LEGACY;
}

static uint64_t counter_now(const struct hpet *hpet)
{
    if (!is_enabled(hpet))
        return hpet->counter;
    return hpet->counter + (now_ns(hpet) - hpet->start_ns) / HPET_NS_PER_TICK;
}

static uint64_t width_mask(const struct hpet_comparator *comparator)
{
    return comparator->config & TN_32_BIT_MODE ? 0xffffffffull : ~0ull;
}

/* ---- Interrupts ---- */

static void set_line(struct hpet *hpet, unsigned n, bool level)
{
    unsigned route = (unsigned)(hpet->comparators[n].config & TN_ROUTE) >> TN_ROUTE_SHIFT;

    if (is_legacy(hpet) && n < 2)
        irq_line_set(&hpet->legacy_out[n], level);
    else if (ROUTES >> route & 1)
        irq_line_set(&hpet->device.env->gsi[route], level);
}

static void match(struct hpet *hpet, unsigned n)
{
    uint64_t config = hpet->comparators[n].config;

    if (!(config & TN_INT_ENABLE))
        return;
    if (config & TN_LEVEL) {
        hpet->status |= BIT(n);
        set_line(hpet, n, true);
    } else {
        set_line(hpet, n, false);
        set_line(hpet, n, true);
        set_line(hpet, n, false);
    }
}

static void set_legacy_input(void *opaque, unsigned n, bool level)
{
    struct hpet *hpet = opaque;

    hpet->legacy_in[n] = level;
    if (!is_legacy(hpet))
        irq_line_set(&hpet->legacy_out[n], level);
}

struct irq_line hpet_pit_line(struct hpet *hpet)
{
    return (struct irq_line){ .set = set_legacy_input, .opaque = hpet, .n = 0 };
}

struct irq_line hpet_rtc_line(struct hpet *hpet)
{
    return (struct irq_line){ .set = set_legacy_input, .opaque = hpet, .n = 1 };
}

/* ---- Comparators ---- */

/* From one match to the next; 0: there is no next one. */
static uint64_t match_distance(const struct hpet_comparator *comparator)
{
    uint64_t period = comparator->period & width_mask(comparator);

    if ((comparator->config & TN_PERIODIC) && period)
        return period <= INT64_MAX ? period : 0;
    return comparator->config & TN_32_BIT_MODE ? 1ull << 32 : 0; /* one-shot: when the low half comes round */
}

/* Finds the next match from the comparator register. One that lies a little in the past is kept there: see arm(). */
static void place(struct hpet_comparator *comparator, uint64_t counter)
{
    uint64_t mask = width_mask(comparator), behind = (counter - comparator->comparator) & mask;

    comparator->next_match =
        behind < LATE_TICKS ? counter - behind : counter + ((comparator->comparator - counter) & mask);
}

/* Moves the next match to the first one that is at or after `counter`, if it is not yet. */
static void advance(struct hpet_comparator *comparator, uint64_t counter)
{
    uint64_t behind = counter - comparator->next_match, distance = match_distance(comparator);

    if ((int64_t)behind <= 0 || !distance)
        return;
    comparator->next_match += (behind + distance - 1) / distance * distance;
    if (comparator->config & TN_PERIODIC)
        comparator->comparator = comparator->next_match & width_mask(comparator);
}

/* Sets the host timer for the next match. `written`: the comparator has just been set, see "Deviation" above. */
static void arm(struct hpet *hpet, unsigned n, bool written)
{
    struct hpet_comparator *comparator = &hpet->comparators[n];
    uint64_t counter = counter_now(hpet), ns;
    int64_t ahead;

    timer_disarm(&hpet->timers[n].timer);
    if (!is_enabled(hpet) || !(comparator->config & TN_INT_ENABLE))
        return;
    if (written && (int64_t)(comparator->next_match - counter) < 0) {
        timer_arm(&hpet->timers[n].timer, now_ns(hpet));
        return;
    }
    advance(comparator, counter);
    ahead = (int64_t)(comparator->next_match - counter);
    if (ahead < 0 || ahead > INT64_MAX / HPET_NS_PER_TICK)
        return; /* passed, or centuries away */
    ns = (uint64_t)ahead * HPET_NS_PER_TICK;
    if ((comparator->config & TN_PERIODIC) && !written)
        ns = MAX(ns, MIN_PERIOD_NS);
    timer_arm(&hpet->timers[n].timer, now_ns(hpet) + ns);
}

static void timer_expired(void *opaque)
{
    struct hpet_timer *timer = opaque;
    struct hpet *hpet = timer->hpet;
    unsigned n = (unsigned)(timer - hpet->timers);
    struct hpet_comparator *comparator = &hpet->comparators[n];

    if (!is_enabled(hpet))
        return;
    if (match_distance(comparator)) {
        advance(comparator, counter_now(hpet) + 1);
        arm(hpet, n, false);
    }
    match(hpet, n);
}

/* ---- Registers ---- */

static uint64_t read_timer(struct hpet *hpet, unsigned n, unsigned reg)
{
    struct hpet_comparator *comparator = &hpet->comparators[n];

    switch (reg) {
    case TIMER_CONFIG:
        return comparator->config | TN_PERIODIC_CAPABLE | TN_64_BIT | ROUTES << 32;
    case TIMER_COMPARATOR:
        if (is_enabled(hpet) && !timer_armed(&hpet->timers[n].timer))
            advance(comparator, counter_now(hpet));
        return comparator->comparator;
    default:
        return 0;
    }
}

static uint64_t read_register(struct hpet *hpet, unsigned reg)
{
    if (reg >= REG_TIMERS) {
        unsigned n = (reg - REG_TIMERS) / TIMER_STRIDE;

        return n < HPET_TIMERS ? read_timer(hpet, n, reg % TIMER_STRIDE) : 0;
    }
    switch (reg) {
    case REG_CAPABILITIES:
        return CAPABILITIES;
    case REG_CONFIG:
        return hpet->config;
    case REG_STATUS:
        return hpet->status;
    case REG_COUNTER:
        return counter_now(hpet);
    default:
        return 0;
    }
}

static void write_timer_config(struct hpet *hpet, unsigned n, uint64_t value)
{
    struct hpet_comparator *comparator = &hpet->comparators[n];
    unsigned route = (unsigned)(value & TN_ROUTE) >> TN_ROUTE_SHIFT;
    uint64_t config = value & TN_WRITABLE, old = comparator->config;

    /* A route that is not among the capabilities does not stick (2.3.8). */
    if (!(ROUTES >> route & 1))
        config = (config & ~(uint64_t)TN_ROUTE) | (old & TN_ROUTE);
    if ((hpet->status >> n & 1) && ((config ^ old) & (TN_ROUTE | TN_LEVEL | TN_INT_ENABLE))) {
        set_line(hpet, n, false);
        hpet->status &= ~BIT(n);
    }
    comparator->config = config;
    if ((config & TN_32_BIT_MODE) && !(old & TN_32_BIT_MODE)) {
        comparator->comparator &= 0xffffffff;
        comparator->period &= 0xffffffff;
    }
    if ((config ^ old) & (TN_32_BIT_MODE | TN_PERIODIC))
        place(comparator, counter_now(hpet));
    arm(hpet, n, false);
}

static void write_comparator(struct hpet *hpet, unsigned n, uint64_t value, uint64_t mask)
{
    struct hpet_comparator *comparator = &hpet->comparators[n];
    bool periodic = comparator->config & TN_PERIODIC;

    mask &= width_mask(comparator);
    if (!periodic || (comparator->config & TN_SET_VALUE))
        comparator->comparator = (comparator->comparator & ~mask) | (value & mask);
    if (periodic)
        comparator->period = (comparator->period & ~mask) | (value & mask);
    if (!periodic || (comparator->config & TN_SET_VALUE))
        place(comparator, counter_now(hpet));
    comparator->config &= ~(uint64_t)TN_SET_VALUE;
    arm(hpet, n, true);
}

static void write_config(struct hpet *hpet, uint64_t value)
{
    uint64_t old = hpet->config;

    value &= CONFIG_ENABLE | CONFIG_LEGACY;
    if ((old & CONFIG_ENABLE) && !(value & CONFIG_ENABLE))
        hpet->counter = counter_now(hpet);
    if (!(old & CONFIG_ENABLE) && (value & CONFIG_ENABLE))
        hpet->start_ns = now_ns(hpet);
    hpet->config = value;
    if ((old ^ value) & CONFIG_LEGACY) {
        /* The 8254 and the RTC lose or get back their lines. */
        for (unsigned n = 0; n < 2; n++)
            irq_line_set(&hpet->legacy_out[n], value & CONFIG_LEGACY ? hpet->status >> n & 1 : hpet->legacy_in[n]);
    }
    for (unsigned n = 0; n < HPET_TIMERS; n++)
        arm(hpet, n, false);
}

static void write_status(struct hpet *hpet, uint64_t value)
{
    uint64_t clear = hpet->status & value;

    hpet->status &= ~clear;
    for (unsigned n = 0; n < HPET_TIMERS; n++) {
        if (clear >> n & 1)
            set_line(hpet, n, false);
    }
}

/* mask: the bytes that are written. */
static void write_register(struct hpet *hpet, unsigned reg, uint64_t value, uint64_t mask)
{
    uint64_t merged = (read_register(hpet, reg) & ~mask) | (value & mask);
    unsigned n = (reg - REG_TIMERS) / TIMER_STRIDE;

    if (reg >= REG_TIMERS && n < HPET_TIMERS) {
        if (reg % TIMER_STRIDE == TIMER_CONFIG)
            write_timer_config(hpet, n, merged);
        else if (reg % TIMER_STRIDE == TIMER_COMPARATOR)
            write_comparator(hpet, n, value, mask);
        return;
    }
    switch (reg) {
    case REG_CONFIG:
        write_config(hpet, merged);
        break;
    case REG_STATUS:
        write_status(hpet, value & mask);
        break;
    case REG_COUNTER:
        if (is_enabled(hpet))
            log_event(guest_errors, "HPET: counter written while it runs\n");
        hpet->counter = merged;
        hpet->start_ns = now_ns(hpet);
        for (n = 0; n < HPET_TIMERS; n++) {
            place(&hpet->comparators[n], merged);
            arm(hpet, n, false);
        }
        break;
    default:
        break;
    }
}

/* Accesses of 4 or 8 bytes, naturally aligned (2.3.1); others are undefined and do nothing. */
static uint64_t mmio_read(void *opaque, uint64_t offset, unsigned size)
{
    struct hpet *hpet = opaque;

    if (offset & (size - 1))
        return 0;
    return read_register(hpet, (unsigned)offset & ~7u) >> (offset & 7) * 8;
}

static void mmio_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
    struct hpet *hpet = opaque;
    uint64_t mask = size == 8 ? ~0ull : 0xffffffffull << (offset & 7) * 8;

    if (offset & (size - 1))
        return;
    write_register(hpet, (unsigned)offset & ~7u, value << (offset & 7) * 8, mask);
}

static const struct io_ops hpet_ops = { .read = mmio_read, .write = mmio_write, .min_size = 4, .max_size = 8 };

/* ---- Life ---- */

static void reset_device(struct device *device)
{
    struct hpet *hpet = container_of(device, struct hpet, device);

    for (unsigned n = 0; n < HPET_TIMERS; n++) {
        if (hpet->status >> n & 1)
            set_line(hpet, n, false);
        timer_disarm(&hpet->timers[n].timer);
        hpet->comparators[n] = (struct hpet_comparator){ .comparator = ~0ull, .next_match = ~0ull };
    }
    if (is_legacy(hpet)) {
        for (unsigned n = 0; n < 2; n++)
            irq_line_set(&hpet->legacy_out[n], hpet->legacy_in[n]);
    }
    hpet->config = hpet->status = hpet->counter = hpet->start_ns = 0;
}

static void destroy_device(struct device *device)
{
    struct hpet *hpet = container_of(device, struct hpet, device);

    for (unsigned n = 0; n < HPET_TIMERS; n++)
        timer_disarm(&hpet->timers[n].timer);
    if (hpet->region)
        physmem_remove(hpet->region);
}

static void pre_save(void *owner)
{
    struct hpet *hpet = owner;

    for (unsigned n = 0; n < HPET_TIMERS; n++) {
        struct timer *timer = &hpet->timers[n].timer;

        hpet->comparators[n].deadline_ns = timer_armed(timer) ? timer->deadline_ns : 0;
        if (is_enabled(hpet) && !timer_armed(timer))
            advance(&hpet->comparators[n], counter_now(hpet));
    }
}

static int post_load(void *owner, struct error *err)
{
    struct hpet *hpet = owner;

    (void)err;
    hpet->config &= CONFIG_ENABLE | CONFIG_LEGACY;
    hpet->status &= BIT(HPET_TIMERS) - 1;
    device_load_bool(&hpet->legacy_in[0]);
    device_load_bool(&hpet->legacy_in[1]);
    for (unsigned n = 0; n < HPET_TIMERS; n++) {
        struct hpet_comparator *comparator = &hpet->comparators[n];

        comparator->config &= TN_WRITABLE;
        if (comparator->deadline_ns)
            timer_arm(&hpet->timers[n].timer, comparator->deadline_ns);
        else
            timer_disarm(&hpet->timers[n].timer);
    }
    return 0;
}

static const struct state_field hpet_fields[] = {
    STATE_FIELD(struct hpet, config),
    STATE_FIELD(struct hpet, status),
    STATE_FIELD(struct hpet, counter),
    STATE_FIELD(struct hpet, start_ns),
    STATE_ARRAY(struct hpet, comparators),
    STATE_ARRAY(struct hpet, legacy_in),
    STATE_END,
};
static const struct state_table hpet_state = {
    .name = "hpet",
    .version = 1,
    .fields = hpet_fields,
    .pre_save = pre_save,
    .post_load = post_load,
};

static const struct device_type hpet_type = {
    .name = "hpet",
    .bus = "System",
    .description = "high precision event timers",
    .size = sizeof(struct hpet),
    .reset = reset_device,
    .destroy = destroy_device,
    .state = &hpet_state,
};

struct hpet *hpet_create(struct device_env *env, gpa_t base, struct error *err)
{
    struct hpet *hpet = device_allocate(env, &hpet_type, NULL, err);

    if (!hpet)
        return NULL;
    hpet->legacy_out[0] = env->isa_irq[0];
    hpet->legacy_out[1] = env->isa_irq[8];
    for (unsigned n = 0; n < HPET_TIMERS; n++) {
        hpet->timers[n].hpet = hpet;
        timer_init(&hpet->timers[n].timer, env->loop, timer_expired, &hpet->timers[n]);
    }
    device_reset(&hpet->device);
    hpet->region = physmem_add_mmio(env->mem, base, MMIO_SIZE, &hpet_ops, hpet, "hpet", err);
    if (!hpet->region) {
        hpet_destroy(hpet);
        return NULL;
    }
    return hpet;
}

void hpet_destroy(struct hpet *hpet)
{
    device_destroy(hpet ? &hpet->device : NULL);
}
