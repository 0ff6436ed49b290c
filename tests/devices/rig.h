/* What a device under test is plugged into: ports, memory, recorded interrupt lines, a recorded machine and CPU. */
#ifndef EIDOLON_TESTS_DEVICES_RIG_H
#define EIDOLON_TESTS_DEVICES_RIG_H

#include "devices/board/machine.h"
#include "devices/irq/apic_bus.h"
#include "fake_loop.h"

#define RIG_CPUS 4

struct rig_line {
    bool level;
    unsigned rises;
};

struct rig_cpu {
    bool intr;
    unsigned nmis, inits, sipis, smis;
    uint8_t sipi_vector;
};

struct rig {
    struct clock clock;
    struct device_env env;
    struct apic_bus bus;
    struct rig_line isa[16], gsi[24];
    struct rig_cpu cpu[RIG_CPUS];
    unsigned resets, shutdowns, exits, a20_changes;
    int exit_status;
    bool a20;
};

extern const struct board_cpu_ops rig_cpu_ops;

void rig_init(struct rig *rig);
void rig_destroy(struct rig *rig);
struct irq_line rig_isa_line(struct rig *rig, unsigned n);

static inline uint32_t in8(struct rig *rig, uint16_t port)
{
    return port_space_read(rig->env.ports, port, 1);
}
static inline uint32_t in16(struct rig *rig, uint16_t port)
{
    return port_space_read(rig->env.ports, port, 2);
}
static inline uint32_t in32(struct rig *rig, uint16_t port)
{
    return port_space_read(rig->env.ports, port, 4);
}
static inline void out8(struct rig *rig, uint16_t port, uint32_t value)
{
    port_space_write(rig->env.ports, port, 1, value);
}
static inline void out16(struct rig *rig, uint16_t port, uint32_t value)
{
    port_space_write(rig->env.ports, port, 2, value);
}
static inline void out32(struct rig *rig, uint16_t port, uint32_t value)
{
    port_space_write(rig->env.ports, port, 4, value);
}

/* Saves `device`, spoils it with `spoil`, loads it, saves it again: both images must be the same bytes. */
void rig_round_trip(struct device *device, void (*spoil)(struct device *device));
/* Loads random bytes in place of every field, `rounds` times: must not crash, whatever is refused. */
void rig_load_garbage(struct device *device, uint64_t seed, unsigned rounds);

uint64_t rig_random(uint64_t *state); /* splitmix64 */

#endif
