/* MC146818 real-time clock and CMOS memory (Motorola MC146818A data sheet; ACPI for the century byte).
 *
 * The time bytes are computed from the host's wall clock plus an offset whenever somebody looks (refresh), and are
 * only the truth while the clock is stopped (register B SET, or divider reset). Flags in register C are caught up
 * with on each look and on each timer event; the timer only runs while one of their interrupts is enabled.
 * Periodic interrupts follow guest time, which has no jumps. Threads: any, device lock held. */
#include "devices/timer/rtc.h"

#include <string.h>
#include <time.h>

#define NS_PER_SECOND   1000000000ll
#define UPDATE_HOLD_NS  244000 /* UIP is set that long before an update (table 6 of the data sheet) */
#define SECONDS_PER_DAY 86400
/* What a guest may set, 1901 to 2106: nanoseconds in 64 bits reach further, guests may say 9999. */
#define EARLIEST_SECOND INT32_MIN
#define LATEST_SECOND   UINT32_MAX

enum {
    RTC_SECONDS = 0,
    RTC_SECONDS_ALARM = 1,
    RTC_MINUTES = 2,
    RTC_MINUTES_ALARM = 3,
    RTC_HOURS = 4,
    RTC_HOURS_ALARM = 5,
    RTC_WEEKDAY = 6,
    RTC_DAY = 7,
    RTC_MONTH = 8,
    RTC_YEAR = 9,
    RTC_A = 10,
    RTC_B = 11,
    RTC_C = 12,
    RTC_D = 13,
    RTC_CENTURY = 0x32,
};
enum { A_UIP = 0x80, A_DIVIDER = 0x70, A_RATE = 0x0f };
enum { B_SET = 0x80, B_PIE = 0x40, B_AIE = 0x20, B_UIE = 0x10, B_SQWE = 0x08, B_BINARY = 0x04, B_24H = 0x02 };
enum { C_IRQF = 0x80, C_PF = 0x40, C_AF = 0x20, C_UF = 0x10 };

enum { PORT_INDEX = 0x70 };

static uint64_t guest_ns(const struct rtc *rtc)
{
    return clock_now_ns(rtc->device.env->clock);
}

static int64_t rtc_ns(const struct rtc *rtc)
{
    return (int64_t)clock_wall_ns() + rtc->offset_ns;
}

static int64_t floor_second(int64_t ns)
{
    return ns >= 0 ? ns / NS_PER_SECOND : -((-ns + NS_PER_SECOND - 1) / NS_PER_SECOND);
}

static bool divider_reset(const struct rtc *rtc)
{
    return (rtc->cmos[RTC_A] & 0x60) == 0x60;
}

static bool is_stopped(const struct rtc *rtc)
{
    return (rtc->cmos[RTC_B] & B_SET) || divider_reset(rtc);
}

/* ---- Formats ---- */

static uint8_t encode(const struct rtc *rtc, int value)
{
    return (uint8_t)(rtc->cmos[RTC_B] & B_BINARY ? value : value / 10 << 4 | value % 10);
}

static int decode(const struct rtc *rtc, uint8_t value)
{
    return rtc->cmos[RTC_B] & B_BINARY ? value : (value >> 4) * 10 + (value & 15);
}

/* 12-hour mode: 12, 1 .. 11, with bit 7 for the afternoon. */
static uint8_t encode_hour(const struct rtc *rtc, int hour)
{
    if (rtc->cmos[RTC_B] & B_24H)
        return encode(rtc, hour);
    return (uint8_t)(encode(rtc, hour % 12 ? hour % 12 : 12) | (hour >= 12 ? 0x80 : 0));
}

static int decode_hour(const struct rtc *rtc, uint8_t value)
{
    if (rtc->cmos[RTC_B] & B_24H)
        return decode(rtc, value);
    return decode(rtc, value & 0x7f) % 12 + (value & 0x80 ? 12 : 0);
}

/* Writes the time bytes, unless the clock is stopped. */
static void refresh(struct rtc *rtc)
{
    time_t seconds = (time_t)floor_second(rtc_ns(rtc));
    struct tm tm;

    if (is_stopped(rtc) || !gmtime_r(&seconds, &tm))
        return;
    rtc->cmos[RTC_SECONDS] = encode(rtc, tm.tm_sec);
    rtc->cmos[RTC_MINUTES] = encode(rtc, tm.tm_min);
    rtc->cmos[RTC_HOURS] = encode_hour(rtc, tm.tm_hour);
    rtc->cmos[RTC_WEEKDAY] = encode(rtc, tm.tm_wday + 1);
    rtc->cmos[RTC_DAY] = encode(rtc, tm.tm_mday);
    rtc->cmos[RTC_MONTH] = encode(rtc, tm.tm_mon + 1);
    rtc->cmos[RTC_YEAR] = encode(rtc, (tm.tm_year % 100 + 100) % 100);
    rtc->cmos[RTC_CENTURY] = encode(rtc, ((tm.tm_year + 1900) / 100 % 100 + 100) % 100);
}

/* The clock goes on from what the time bytes say, at `phase` nanoseconds into the second. Absurd dates are carried
 * over, as timegm() does. */
static void set_time(struct rtc *rtc, int64_t phase)
{
    struct tm tm = {
        .tm_sec = decode(rtc, rtc->cmos[RTC_SECONDS]),
        .tm_min = decode(rtc, rtc->cmos[RTC_MINUTES]),
        .tm_hour = decode_hour(rtc, rtc->cmos[RTC_HOURS]),
        .tm_mday = decode(rtc, rtc->cmos[RTC_DAY]),
        .tm_mon = decode(rtc, rtc->cmos[RTC_MONTH]) - 1,
        .tm_year = decode(rtc, rtc->cmos[RTC_CENTURY]) * 100 + decode(rtc, rtc->cmos[RTC_YEAR]) - 1900,
    };
    int64_t seconds = (int64_t)timegm(&tm);

    seconds = MAX(MIN(seconds, (int64_t)LATEST_SECOND), (int64_t)EARLIEST_SECOND);
    rtc->offset_ns = seconds * NS_PER_SECOND + phase - (int64_t)clock_wall_ns();
    rtc->last_second = seconds;
}

/* ---- Interrupts ---- */

/* Periodic interrupt: ticks of the 32768 Hz crystal per event, as a power of two; -1: none. */
static int rate_shift(const struct rtc *rtc)
{
    unsigned rate = rtc->cmos[RTC_A] & A_RATE;

    if (rate == 0 || divider_reset(rtc))
        return -1;
    return rate <= 2 ? (int)rate + 6 : (int)rate - 1;
}

static uint64_t crystal_ticks(const struct rtc *rtc)
{
    return (uint64_t)((unsigned __int128)guest_ns(rtc) * 32768 / NS_PER_SECOND);
}

static bool alarm_field_matches(int alarm, uint8_t raw, int value)
{
    return raw >= 0xc0 || alarm == value;
}

static bool alarm_between(const struct rtc *rtc, int64_t first, int64_t last)
{
    const uint8_t *cmos = rtc->cmos;
    int second = decode(rtc, cmos[RTC_SECONDS_ALARM]), minute = decode(rtc, cmos[RTC_MINUTES_ALARM]);
    int hour = decode_hour(rtc, cmos[RTC_HOURS_ALARM]);

    if (last - first >= SECONDS_PER_DAY)
        first = last - SECONDS_PER_DAY + 1;
    for (int64_t time = first; time <= last; time++) {
        int of_day = (int)((time % SECONDS_PER_DAY + SECONDS_PER_DAY) % SECONDS_PER_DAY);

        if (alarm_field_matches(second, cmos[RTC_SECONDS_ALARM], of_day % 60) &&
            alarm_field_matches(minute, cmos[RTC_MINUTES_ALARM], of_day / 60 % 60) &&
            alarm_field_matches(hour, cmos[RTC_HOURS_ALARM], of_day / 3600))
            return true;
    }
    return false;
}

static void update_irq(struct rtc *rtc)
{
    bool level = rtc->cmos[RTC_C] & rtc->cmos[RTC_B] & (C_PF | C_AF | C_UF);

    rtc->cmos[RTC_C] = (rtc->cmos[RTC_C] & ~C_IRQF) | (level ? C_IRQF : 0);
    irq_line_set(&rtc->irq, level);
}

/* Sets the flags for all that has happened since the last look. */
static void catch_up(struct rtc *rtc)
{
    int64_t second = floor_second(rtc_ns(rtc));
    int shift = rate_shift(rtc);
    uint64_t period;

    if (!is_stopped(rtc) && second > rtc->last_second) {
        rtc->cmos[RTC_C] |= C_UF;
        if (!(rtc->cmos[RTC_C] & C_AF) && alarm_between(rtc, rtc->last_second + 1, second))
            rtc->cmos[RTC_C] |= C_AF;
    }
    rtc->last_second = second; /* also when the wall clock was set back */
    if (shift >= 0) {
        period = crystal_ticks(rtc) >> shift;
        if (period != rtc->last_period)
            rtc->cmos[RTC_C] |= C_PF;
        rtc->last_period = period;
    }
    update_irq(rtc);
}

/* The next event whose interrupt is enabled and whose flag is not set yet. */
static void schedule(struct rtc *rtc)
{
    uint8_t wanted = rtc->cmos[RTC_B] & (uint8_t)~rtc->cmos[RTC_C];
    uint64_t now = guest_ns(rtc), deadline = UINT64_MAX;
    int shift = rate_shift(rtc);

    if ((wanted & (B_UIE | B_AIE)) && !is_stopped(rtc)) {
        int64_t ns = rtc_ns(rtc);

        deadline = now + (uint64_t)((floor_second(ns) + 1) * NS_PER_SECOND - ns);
    }
    if ((wanted & B_PIE) && shift >= 0) {
        uint64_t next = ((crystal_ticks(rtc) >> shift) + 1) << shift;
        uint64_t when = (uint64_t)(((unsigned __int128)next * NS_PER_SECOND + 32767) / 32768);

        deadline = MIN(deadline, when);
    }
    if (deadline == UINT64_MAX)
        timer_disarm(&rtc->timer);
    else
        timer_arm(&rtc->timer, MAX(deadline, now + 1));
}

static void timer_expired(void *opaque)
{
    struct rtc *rtc = opaque;

    catch_up(rtc);
    schedule(rtc);
}

/* ---- Registers ---- */

/* Nanoseconds since the second began. */
static int64_t current_phase(const struct rtc *rtc)
{
    int64_t phase = rtc_ns(rtc) % NS_PER_SECOND;

    return phase < 0 ? phase + NS_PER_SECOND : phase;
}

static uint8_t read_cmos(struct rtc *rtc, unsigned index)
{
    uint8_t value;

    switch (index) {
    case RTC_SECONDS:
    case RTC_MINUTES:
    case RTC_HOURS:
    case RTC_WEEKDAY ... RTC_YEAR:
    case RTC_CENTURY:
        refresh(rtc);
        return rtc->cmos[index];
    case RTC_A:
        value = rtc->cmos[RTC_A] & (uint8_t)~A_UIP;
        return value | (!is_stopped(rtc) && current_phase(rtc) >= NS_PER_SECOND - UPDATE_HOLD_NS ? A_UIP : 0);
    case RTC_C:
        catch_up(rtc);
        value = rtc->cmos[RTC_C];
        rtc->cmos[RTC_C] = 0;
        update_irq(rtc);
        schedule(rtc);
        return value;
    case RTC_D:
        return 0x80; /* the battery is fine */
    default:
        return rtc->cmos[index];
    }
}

static void write_control(struct rtc *rtc, unsigned index, uint8_t value)
{
    bool was_stopped, was_reset = divider_reset(rtc);

    catch_up(rtc);
    refresh(rtc); /* in the old format, and for the last time if it stops now */
    was_stopped = is_stopped(rtc);
    if (index == RTC_A)
        rtc->cmos[RTC_A] = value & (uint8_t)~A_UIP;
    else
        rtc->cmos[RTC_B] = value & B_SET ? value & (uint8_t)~B_UIE : value; /* SET clears UIE */
    if (was_stopped && !is_stopped(rtc))
        /* After a divider reset the first update comes half a second later. */
        set_time(rtc, was_reset ? NS_PER_SECOND / 2 : current_phase(rtc));
    if (rate_shift(rtc) >= 0)
        rtc->last_period = crystal_ticks(rtc) >> rate_shift(rtc);
    update_irq(rtc);
    schedule(rtc);
}

static void write_cmos(struct rtc *rtc, unsigned index, uint8_t value)
{
    switch (index) {
    case RTC_SECONDS:
    case RTC_MINUTES:
    case RTC_HOURS:
    case RTC_WEEKDAY ... RTC_YEAR:
    case RTC_CENTURY:
        refresh(rtc);
        rtc->cmos[index] = value;
        if (!is_stopped(rtc)) {
            set_time(rtc, current_phase(rtc));
            schedule(rtc);
        }
        break;
    case RTC_SECONDS_ALARM:
    case RTC_MINUTES_ALARM:
    case RTC_HOURS_ALARM:
        catch_up(rtc); /* the old alarm holds for the past */
        rtc->cmos[index] = value;
        schedule(rtc);
        break;
    case RTC_A:
    case RTC_B:
        write_control(rtc, index, value);
        break;
    case RTC_C:
    case RTC_D:
        break; /* read-only */
    default:
        rtc->cmos[index] = value;
        break;
    }
}

static uint64_t port_read(void *opaque, uint64_t offset, unsigned size)
{
    struct rtc *rtc = opaque;

    (void)size;
    return offset == 0 ? 0xff : read_cmos(rtc, rtc->index);
}

static void port_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
    struct rtc *rtc = opaque;

    (void)size;
    if (offset == 0)
        rtc->index = value & 0x7f; /* bit 7 masks NMI on a real board; nothing here raises one through it */
    else
        write_cmos(rtc, rtc->index, (uint8_t)value);
}

static const struct io_ops rtc_ops = { .read = port_read, .write = port_write, .min_size = 1, .max_size = 1 };

/* ---- For the board ---- */

void rtc_set_cmos(struct rtc *rtc, unsigned index, uint8_t value)
{
    rtc->cmos[index & 0x7f] = value;
}

uint8_t rtc_get_cmos(const struct rtc *rtc, unsigned index)
{
    return rtc->cmos[index & 0x7f];
}

static void set_word(struct rtc *rtc, unsigned index, uint64_t value)
{
    value = MIN(value, 0xffff);
    rtc->cmos[index] = (uint8_t)value;
    rtc->cmos[index + 1] = (uint8_t)(value >> 8);
}

void rtc_set_memory(struct rtc *rtc, uint64_t low_ram, uint64_t high_ram, unsigned cpus)
{
    set_word(rtc, 0x15, MIN(low_ram / KIB, 640));                   /* base memory, KiB */
    set_word(rtc, 0x17, low_ram > MIB ? (low_ram - MIB) / KIB : 0); /* above 1 MiB, KiB */
    set_word(rtc, 0x30, low_ram > MIB ? (low_ram - MIB) / KIB : 0);
    set_word(rtc, 0x34, low_ram > 16 * MIB ? (low_ram - 16 * MIB) / (64 * KIB) : 0);
    rtc->cmos[0x5b] = (uint8_t)(high_ram >> 16); /* above 4 GiB, 64 KiB units, 3 bytes */
    rtc->cmos[0x5c] = (uint8_t)(high_ram >> 24);
    rtc->cmos[0x5d] = (uint8_t)(high_ram >> 32);
    rtc->cmos[0x5f] = (uint8_t)(cpus - 1);
    rtc->cmos[0x14] = 0x06; /* equipment: mouse, x87 */
}

/* ---- Life ---- */

/* RESET# leaves the time and the memory alone (data sheet, "Power-down considerations"). */
static void reset_device(struct device *device)
{
    struct rtc *rtc = container_of(device, struct rtc, device);

    rtc->cmos[RTC_B] &= (uint8_t) ~(B_PIE | B_AIE | B_UIE | B_SQWE);
    rtc->cmos[RTC_C] = 0;
    rtc->index = 0;
    update_irq(rtc);
    schedule(rtc);
}

static void destroy_device(struct device *device)
{
    struct rtc *rtc = container_of(device, struct rtc, device);

    timer_disarm(&rtc->timer);
    port_space_remove(device->env->ports, PORT_INDEX, 2, rtc);
}

static void pre_save(void *owner)
{
    catch_up(owner);
    refresh(owner);
}

/* After loading, possibly elsewhere and later, the clock shows the time of day again that it would have there: its
 * offset to the wall clock is what is saved. */
static int post_load(void *owner, struct error *err)
{
    struct rtc *rtc = owner;
    const int64_t limit = INT64_MAX / 2;
    int64_t second;

    (void)err;
    rtc->index &= 0x7f;
    rtc->offset_ns = MAX(MIN(rtc->offset_ns, limit), -limit);
    second = floor_second(rtc_ns(rtc));
    rtc->last_second = MAX(MIN(rtc->last_second, second), second - SECONDS_PER_DAY);
    update_irq(rtc);
    schedule(rtc);
    return 0;
}

static const struct state_field rtc_fields[] = {
    STATE_FIELD(struct rtc, index),       STATE_ARRAY(struct rtc, cmos),        STATE_FIELD(struct rtc, offset_ns),
    STATE_FIELD(struct rtc, last_second), STATE_FIELD(struct rtc, last_period), STATE_END,
};
static const struct state_table rtc_state = {
    .name = "mc146818rtc",
    .version = 1,
    .fields = rtc_fields,
    .pre_save = pre_save,
    .post_load = post_load,
};

static const struct device_type rtc_type = {
    .name = "mc146818rtc",
    .bus = "ISA",
    .description = "MC146818 real-time clock",
    .size = sizeof(struct rtc),
    .reset = reset_device,
    .destroy = destroy_device,
    .state = &rtc_state,
};

struct rtc *rtc_create(struct device_env *env, const struct irq_line *irq, int64_t base_ns, struct error *err)
{
    struct rtc *rtc = device_allocate(env, &rtc_type, NULL, err);

    if (!rtc)
        return NULL;
    rtc->irq = *irq;
    rtc->offset_ns = base_ns - (int64_t)clock_wall_ns();
    rtc->cmos[RTC_A] = 0x26; /* 32768 Hz crystal, 1024 Hz */
    rtc->cmos[RTC_B] = B_24H;
    rtc->last_second = floor_second(base_ns);
    timer_init(&rtc->timer, env->loop, timer_expired, rtc);
    device_reset(&rtc->device);
    if (port_space_add(env->ports, PORT_INDEX, 2, &rtc_ops, rtc, "rtc", err)) {
        rtc_destroy(rtc);
        return NULL;
    }
    return rtc;
}

void rtc_destroy(struct rtc *rtc)
{
    device_destroy(rtc ? &rtc->device : NULL);
}
