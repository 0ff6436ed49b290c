/* MC146818 real-time clock and 128 bytes of CMOS memory: ports 0x70, 0x71. */
#ifndef EIDOLON_DEVICES_TIMER_RTC_H
#define EIDOLON_DEVICES_TIMER_RTC_H

#include "devices/core/device.h"

struct rtc {
    struct device device;
    struct irq_line irq;
    uint8_t index;
    uint8_t cmos[128];    /* time bytes are only true while the clock is stopped */
    int64_t offset_ns;    /* RTC time (as if UTC) less wall clock */
    int64_t last_second;  /* update cycles up to here are accounted for in register C */
    uint64_t last_period; /* same for periodic interrupts */
    struct timer timer;
};

/* base_ns: what the clock shows now (ns since 1970, UTC). */
struct rtc *rtc_create(struct device_env *env, const struct irq_line *irq, int64_t base_ns, struct error *err);
void rtc_destroy(struct rtc *rtc);
void rtc_set_cmos(struct rtc *rtc, unsigned index, uint8_t value);
uint8_t rtc_get_cmos(const struct rtc *rtc, unsigned index);
/* Memory sizes at 0x15..0x18, 0x30, 0x31, 0x34, 0x35, 0x5b..0x5d as PC firmware reads them; 0x5f = cpus - 1. */
void rtc_set_memory(struct rtc *rtc, uint64_t low_ram, uint64_t high_ram, unsigned cpus);

#endif
