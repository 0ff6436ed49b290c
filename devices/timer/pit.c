/* 8254 programmable interval timer (Intel 8254 data sheet, "Mode definitions", "Read operations").
 *
 * Nothing counts: a channel keeps the guest time at which its count was loaded, and everything else follows from
 * the ticks that have passed since. Invariants: `count` is at least 1; `running` implies `loaded` and a high gate;
 * `held` is the number of ticks counted before start_ns. Only channel 0 has a host timer, which fires once per
 * rising edge of its output. Threads: any, device lock held. */
#include "devices/timer/pit.h"

#define NS_PER_SECOND 1000000000ull
#define MIN_PERIOD_NS 20000ull /* what comes faster is merged: a guest must not occupy the event loop */

enum { PORT_BASE = 0x40, PORT_CONTROL = 3 };
enum { ACCESS_LATCH = 0, ACCESS_LOW = 1, ACCESS_HIGH = 2, ACCESS_BOTH = 3 };

static uint64_t ns_to_ticks(uint64_t ns)
{
    return (uint64_t)((unsigned __int128)ns * PIT_HZ / NS_PER_SECOND);
}

/* Rounded up: at that time the tick has happened. */
static uint64_t ticks_to_ns(uint64_t ticks)
{
    return (uint64_t)(((unsigned __int128)ticks * NS_PER_SECOND + PIT_HZ - 1) / PIT_HZ);
}

static uint64_t now_ns(const struct pit *pit)
{
    return clock_now_ns(pit->device.env->clock);
}

static bool is_periodic(const struct pit_channel *channel)
{
    return channel->mode == 2 || channel->mode == 3;
}

static bool needs_trigger(const struct pit_channel *channel)
{
    return channel->mode == 1 || channel->mode == 5;
}

static uint64_t elapsed(const struct pit_channel *channel, uint64_t now)
{
    uint64_t ticks = channel->held;

    if (channel->running && now > channel->start_ns)
        ticks += ns_to_ticks(now - channel->start_ns);
    return ticks;
}

/* Modes 2 and 3: a count written while counting takes over at the end of the period. */
static void settle(struct pit_channel *channel, uint64_t now)
{
    uint64_t ticks;

    if (!channel->next_count || !channel->running || !is_periodic(channel))
        return;
    ticks = elapsed(channel, now);
    if (ticks < channel->count)
        return;
    channel->start_ns += ticks_to_ns(channel->count - MIN(channel->held, channel->count));
    channel->held = 0;
    channel->count = channel->next_count;
    channel->next_count = 0;
}

static bool output_at(const struct pit_channel *channel, uint64_t now)
{
    uint64_t ticks = elapsed(channel, now);

    if (!channel->loaded)
        return channel->mode != 0;
    switch (channel->mode) {
    case 0:
        return ticks >= channel->count;
    case 1:
        return !channel->running || ticks >= channel->count;
    case 2:
        return !channel->running || ticks % channel->count != channel->count - 1 || channel->count == 1;
    case 3:
        return !channel->running || ticks % channel->count < (channel->count + 1) / 2;
    default:
        return ticks != channel->count; /* 4, 5: a strobe of one tick */
    }
}

static uint16_t to_register(const struct pit_channel *channel, uint64_t value)
{
    if (!channel->bcd)
        return (uint16_t)value;
    value %= 10000;
    return (uint16_t)(value / 1000 << 12 | value / 100 % 10 << 8 | value / 10 % 10 << 4 | value % 10);
}

/* The counting element, as software reads it. */
static uint16_t count_at(const struct pit_channel *channel, uint64_t now)
{
    uint64_t ticks = elapsed(channel, now), modulus = channel->bcd ? 10000 : 65536;

    if (!channel->loaded)
        return 0;
    switch (channel->mode) {
    case 2:
        return to_register(channel, channel->count - ticks % channel->count);
    case 3: {
        /* Counts down by two, twice per period. */
        uint64_t half = ticks * 2 % channel->count;

        return to_register(channel, (channel->count - half) & ~1ull);
    }
    default:
        return to_register(channel, (channel->count % modulus + modulus - ticks % modulus) % modulus);
    }
}

/* ---- The interrupt ---- */

/* Guest time of channel 0's next rising edge, or 0. */
static uint64_t next_edge(const struct pit_channel *channel, uint64_t now)
{
    uint64_t ticks = elapsed(channel, now), due;

    if (!channel->running)
        return 0;
    switch (channel->mode) {
    case 0:
    case 1:
        due = channel->count;
        break;
    case 2:
    case 3:
        due = (ticks / channel->count + 1) * channel->count;
        break;
    default:
        due = (uint64_t)channel->count + 1;
        break;
    }
    if (ticks >= due)
        return 0;
    return channel->start_ns + ticks_to_ns(due - MIN(channel->held, due));
}

static void schedule(struct pit *pit, uint64_t now)
{
    pit->next_tick_ns = next_edge(&pit->channel[0], now);
    if (pit->next_tick_ns)
        timer_arm(&pit->timer, MAX(pit->next_tick_ns, is_periodic(&pit->channel[0]) ? now + MIN_PERIOD_NS : now));
    else
        timer_disarm(&pit->timer);
}

/* Channel 0's registers changed. */
static void update_irq(struct pit *pit, uint64_t now)
{
    irq_line_set(&pit->irq, output_at(&pit->channel[0], now));
    schedule(pit, now);
}

static void timer_expired(void *opaque)
{
    struct pit *pit = opaque;
    uint64_t now = now_ns(pit);

    if (!pit->next_tick_ns)
        return;
    settle(&pit->channel[0], now);
    irq_line_set(&pit->irq, false);
    irq_line_set(&pit->irq, true);
    schedule(pit, now);
}

/* ---- Counting ---- */

static void start(struct pit_channel *channel, uint64_t now)
{
    channel->held = 0;
    channel->start_ns = now;
    channel->running = true;
}

static void load(struct pit *pit, struct pit_channel *channel, uint16_t value, uint64_t now)
{
    uint32_t count = value;

    if (channel->bcd)
        count = (value >> 12) * 1000u + (value >> 8 & 15) * 100u + (value >> 4 & 15) * 10u + (value & 15);
    if (count == 0)
        count = channel->bcd ? 10000 : 65536;
    if (channel->running && (is_periodic(channel) || needs_trigger(channel))) {
        channel->next_count = count; /* at the end of the period, or at the next trigger */
    } else {
        channel->count = count;
        channel->next_count = 0;
        channel->held = 0;
        channel->loaded = true;
        if (channel->gate && !needs_trigger(channel))
            start(channel, now);
    }
    if (channel == &pit->channel[0])
        update_irq(pit, now);
}

static void stop_counting(struct pit_channel *channel, uint64_t now)
{
    if (channel->running)
        channel->held = (uint32_t)MIN(elapsed(channel, now), UINT32_MAX);
    channel->running = false;
}

void pit_set_gate(struct pit *pit, unsigned index, bool level)
{
    struct pit_channel *channel = &pit->channel[index];
    bool rising = level && !channel->gate;
    uint64_t now = now_ns(pit);

    if (level == channel->gate)
        return;
    settle(channel, now);
    channel->gate = level;
    if (!channel->loaded)
        return;
    if (needs_trigger(channel) || (is_periodic(channel) && rising)) {
        if (rising) {
            if (channel->next_count)
                channel->count = channel->next_count;
            channel->next_count = 0;
            start(channel, now);
        }
    } else if (!level) {
        stop_counting(channel, now);
    } else {
        channel->start_ns = now;
        channel->running = true;
    }
    if (index == 0)
        update_irq(pit, now);
}

bool pit_get_gate(const struct pit *pit, unsigned channel)
{
    return pit->channel[channel].gate;
}

bool pit_output(struct pit *pit, unsigned channel)
{
    uint64_t now = now_ns(pit);

    settle(&pit->channel[channel], now);
    return output_at(&pit->channel[channel], now);
}

/* ---- Ports ---- */

static void latch_count(struct pit_channel *channel, uint64_t now)
{
    if (channel->count_latched)
        return; /* the first latch holds until it is read */
    channel->latched_count = count_at(channel, now);
    channel->count_latched = true;
    channel->read_high = false;
}

/*   7 output | 6 null count | 5:4 access | 3:1 mode | 0 BCD */
static void latch_status(struct pit_channel *channel, uint64_t now)
{
    if (channel->status_latched)
        return;
    channel->latched_status = (uint8_t)(output_at(channel, now) << 7 | (!channel->loaded || channel->next_count) << 6 |
                                        channel->access << 4 | channel->mode << 1 | channel->bcd);
    channel->status_latched = true;
}

/*   read-back: 1 1 | 5 no count | 4 no status | 3:1 channels | 0 */
static void read_back(struct pit *pit, uint8_t value, uint64_t now)
{
    for (unsigned n = 0; n < 3; n++) {
        if (!(value >> (n + 1) & 1))
            continue;
        settle(&pit->channel[n], now);
        if (!(value & 0x20))
            latch_count(&pit->channel[n], now);
        if (!(value & 0x10))
            latch_status(&pit->channel[n], now);
    }
}

/*   7:6 channel | 5:4 access | 3:1 mode | 0 BCD */
static void write_control(struct pit *pit, uint8_t value, uint64_t now)
{
    struct pit_channel *channel;
    unsigned mode = value >> 1 & 7;

    if (value >> 6 == 3) {
        read_back(pit, value, now);
        return;
    }
    channel = &pit->channel[value >> 6];
    settle(channel, now);
    if ((value >> 4 & 3) == ACCESS_LATCH) {
        latch_count(channel, now);
        return;
    }
    *channel = (struct pit_channel){
        .mode = mode > 5 ? mode & 3 : mode, /* 6 and 7 are 2 and 3 */
        .access = value >> 4 & 3,
        .bcd = value & 1,
        .gate = channel->gate,
        .count = 1,
    };
    if (channel == &pit->channel[0])
        update_irq(pit, now);
}

static void write_count(struct pit *pit, struct pit_channel *channel, uint8_t value, uint64_t now)
{
    settle(channel, now);
    switch (channel->access) {
    case ACCESS_LOW:
        load(pit, channel, value, now);
        break;
    case ACCESS_HIGH:
        load(pit, channel, (uint16_t)(value << 8), now);
        break;
    default:
        if (!channel->write_high) {
            channel->write_low = value;
            if (channel->mode == 0) {
                /* Writing the first byte disables counting; the output goes low. */
                stop_counting(channel, now);
                channel->held = 0;
                if (channel == &pit->channel[0])
                    update_irq(pit, now);
            }
        } else {
            load(pit, channel, (uint16_t)(channel->write_low | value << 8), now);
        }
        channel->write_high = !channel->write_high;
        break;
    }
}

static uint8_t read_channel(struct pit_channel *channel, uint64_t now)
{
    uint16_t value;
    uint8_t byte;
    bool last = true;

    settle(channel, now);
    if (channel->status_latched) {
        channel->status_latched = false;
        return channel->latched_status;
    }
    value = channel->count_latched ? channel->latched_count : count_at(channel, now);
    if (channel->access == ACCESS_LOW) {
        byte = (uint8_t)value;
    } else if (channel->access == ACCESS_HIGH) {
        byte = (uint8_t)(value >> 8);
    } else {
        byte = (uint8_t)(channel->read_high ? value >> 8 : value);
        last = channel->read_high;
        channel->read_high = !channel->read_high;
    }
    if (last)
        channel->count_latched = false;
    return byte;
}

static uint64_t port_read(void *opaque, uint64_t offset, unsigned size)
{
    struct pit *pit = opaque;

    (void)size;
    if (offset >= PORT_CONTROL)
        return 0xff; /* the control register cannot be read */
    return read_channel(&pit->channel[offset], now_ns(pit));
}

static void port_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
    struct pit *pit = opaque;

    (void)size;
    if (offset >= PORT_CONTROL)
        write_control(pit, (uint8_t)value, now_ns(pit));
    else
        write_count(pit, &pit->channel[offset], (uint8_t)value, now_ns(pit));
}

static const struct io_ops pit_ops = { .read = port_read, .write = port_write, .min_size = 1, .max_size = 1 };

/* ---- Life ---- */

/* Idle until programmed: the 18.2 Hz tick that a BIOS leaves is of no use to who boots without one. */
static void reset_device(struct device *device)
{
    struct pit *pit = container_of(device, struct pit, device);

    for (unsigned n = 0; n < 3; n++)
        pit->channel[n] = (struct pit_channel){ .access = ACCESS_BOTH, .gate = n != 2, .count = 1 };
    pit->next_tick_ns = 0;
    timer_disarm(&pit->timer);
    irq_line_set(&pit->irq, false);
}

static void destroy_device(struct device *device)
{
    struct pit *pit = container_of(device, struct pit, device);

    timer_disarm(&pit->timer);
    port_space_remove(device->env->ports, PORT_BASE, 4, pit);
}

static void pre_save(void *owner)
{
    struct pit *pit = owner;

    for (unsigned n = 0; n < 3; n++)
        settle(&pit->channel[n], now_ns(pit));
}

static int post_load(void *owner, struct error *err)
{
    struct pit *pit = owner;

    (void)err;
    for (unsigned n = 0; n < 3; n++) {
        struct pit_channel *channel = &pit->channel[n];

        channel->mode = channel->mode > 5 ? channel->mode & 3 : channel->mode;
        channel->access &= 3;
        channel->count = MIN(MAX(channel->count, 1), 65536);
        channel->next_count = MIN(channel->next_count, 65536);
        device_load_bool(&channel->bcd);
        device_load_bool(&channel->gate);
        device_load_bool(&channel->loaded);
        device_load_bool(&channel->running);
        device_load_bool(&channel->write_high);
        device_load_bool(&channel->read_high);
        device_load_bool(&channel->count_latched);
        device_load_bool(&channel->status_latched);
    }
    schedule(pit, now_ns(pit));
    return 0;
}

static const struct state_field pit_fields[] = {
    STATE_ARRAY(struct pit, channel),
    STATE_END,
};
static const struct state_table pit_state = {
    .name = "i8254",
    .version = 1,
    .fields = pit_fields,
    .pre_save = pre_save,
    .post_load = post_load,
};

static const struct device_type pit_type = {
    .name = "isa-pit",
    .bus = "ISA",
    .description = "8254 interval timer",
    .size = sizeof(struct pit),
    .reset = reset_device,
    .destroy = destroy_device,
    .state = &pit_state,
};

struct pit *pit_create(struct device_env *env, const struct irq_line *irq, struct error *err)
{
    struct pit *pit = device_allocate(env, &pit_type, NULL, err);

    if (!pit)
        return NULL;
    pit->irq = *irq;
    timer_init(&pit->timer, env->loop, timer_expired, pit);
    device_reset(&pit->device);
    if (port_space_add(env->ports, PORT_BASE, 4, &pit_ops, pit, "pit", err)) {
        pit_destroy(pit);
        return NULL;
    }
    return pit;
}

void pit_destroy(struct pit *pit)
{
    device_destroy(pit ? &pit->device : NULL);
}
