/* Local APIC: xAPIC and x2APIC, one per vCPU (SDM Vol. 3A chapter 11).
 *
 * The functions that take void *apic have the signatures of struct cpu_apic_ops; they are called on the
 * vCPU's thread and take the device lock themselves. Everything else is called with the lock held. */
#ifndef EIDOLON_DEVICES_IRQ_LAPIC_H
#define EIDOLON_DEVICES_IRQ_LAPIC_H

#include "devices/board/machine.h"
#include "devices/core/device.h"
#include "devices/irq/apic_bus.h"

#define LAPIC_TIMER_HZ                                                                                                 \
    1000000000ull /* input of the timer's divider; CPUID 0x15 ECX and 0x40000010 EBX must say the same */

enum lapic_lvt { LVT_TIMER, LVT_THERMAL, LVT_PERF, LVT_LINT0, LVT_LINT1, LVT_ERROR, LVT_COUNT };

struct lapic {
    struct device device;
    struct apic_bus *bus;
    const struct board_cpu_ops *cpu_ops;
    void *cpu;
    uint32_t initial_id;
    /* What the CPU model offers: decides which MSR writes are #GP. */
    uint8_t physical_bits;
    bool has_x2apic, has_tsc_deadline;

    uint64_t base; /* IA32_APIC_BASE */
    uint32_t id;   /* xAPIC: 8 bits, writable; x2APIC: initial_id */
    uint32_t tpr, ldr, dfr, svr, esr, esr_pending, divide;
    uint32_t irr[8], isr[8], tmr[8];
    uint32_t lvt[LVT_COUNT];
    uint64_t icr;
    bool lint[2]; /* levels of the input pins */
    bool output;  /* what cpu_ops->set_intr was told last */

    /* Timer. Counting modes: initial_count ticks end at deadline_ns. TSC-deadline: tsc_deadline, 0 = not armed. */
    uint32_t initial_count;
    bool timer_running;
    uint64_t deadline_ns;
    uint64_t tsc_deadline;
    struct timer timer;
};

/* The APIC of vCPU `cpu`, handle for cpu_ops. APIC id 0 is the bootstrap processor. Comes in its reset state. */
struct lapic *lapic_create(struct device_env *env, unsigned apic_id, struct apic_bus *bus,
                           const struct board_cpu_ops *cpu_ops, void *cpu, struct error *err);
void lapic_destroy(struct lapic *lapic);
/* Defaults: 52 bits, both true. */
void lapic_set_features(struct lapic *lapic, unsigned physical_bits, bool x2apic, bool tsc_deadline);
void lapic_reset(struct lapic *lapic); /* power-up */
/* As a BIOS leaves it for an operating system: enabled, LINT0 = ExtINT on the bootstrap processor, LINT1 = NMI
 * (virtual wire mode, MP specification 3.6.2.2). The board calls it after reset when a kernel is booted without
 * BIOS. */
void lapic_set_virtual_wire(struct lapic *lapic);

/* struct cpu_apic_ops */
int lapic_acknowledge(void *apic);
uint32_t lapic_mmio_read(void *apic, unsigned offset, unsigned size);
void lapic_mmio_write(void *apic, unsigned offset, unsigned size, uint32_t value);
bool lapic_msr_read(void *apic, uint32_t msr, uint64_t *value);
bool lapic_msr_write(void *apic, uint32_t msr, uint64_t value);
uint8_t lapic_get_tpr(void *apic);
void lapic_set_tpr(void *apic, uint8_t tpr);
uint64_t lapic_get_base(void *apic);

/* From the bus. */
bool lapic_matches(const struct lapic *lapic, const struct apic_message *message);
bool lapic_accept(struct lapic *lapic, uint8_t mode, uint8_t vector, bool level); /* false: not enabled, not taken */
bool lapic_enabled(const struct lapic *lapic);                                    /* hardware and software enable */
unsigned lapic_priority(const struct lapic *lapic);                               /* PPR */
void lapic_set_lint(struct lapic *lapic, unsigned pin, bool level);

#endif
