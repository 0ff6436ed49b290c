/* 8254 programmable interval timer (Intel 8254 data sheet): ports 0x40..0x43; channel 0 is the timer interrupt,
 * channel 2's gate and output are on port 0x61 (devices/board/reset_ports.c). */
#ifndef EIDOLON_DEVICES_TIMER_PIT_H
#define EIDOLON_DEVICES_TIMER_PIT_H

#include "devices/core/device.h"

#define PIT_HZ 1193182ull

struct pit_channel {
    uint8_t mode;   /* 0..5 */
    uint8_t access; /* 1 low byte, 2 high byte, 3 low then high */
    bool bcd;
    bool gate;
    bool loaded;                /* a count has been written since the mode was set; false: null count */
    bool running;               /* counting has begun (modes 1 and 5: since a trigger) */
    bool write_high, read_high; /* next byte of access 3 */
    uint8_t write_low;          /* first byte of a write in access 3 */
    bool count_latched, status_latched;
    uint16_t latched_count;
    uint8_t latched_status;
    uint8_t pad;
    uint32_t count;      /* 1..65536 (binary) or 1..10000 (BCD) */
    uint32_t next_count; /* modes 2 and 3: takes effect at the end of the period; 0 = none */
    uint32_t held;       /* ticks done when the gate stopped it */
    uint64_t start_ns;   /* guest time when `count` was loaded */
};

struct pit {
    struct device device;
    struct pit_channel channel[3];
    struct irq_line irq;
    struct timer timer;
    uint64_t next_tick_ns; /* of channel 0; 0 = none */
};

struct pit *pit_create(struct device_env *env, const struct irq_line *irq, struct error *err);
void pit_destroy(struct pit *pit);
void pit_set_gate(struct pit *pit, unsigned channel, bool level);
bool pit_get_gate(const struct pit *pit, unsigned channel);
bool pit_output(struct pit *pit, unsigned channel);

#endif
