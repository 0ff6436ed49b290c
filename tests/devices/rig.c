/* See rig.h. */
#include "rig.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

static void set_line(void *opaque, unsigned n, bool level)
{
    struct rig_line *line = (struct rig_line *)opaque + n;

    line->rises += level && !line->level;
    line->level = level;
}

static void request_reset(void *opaque)
{
    ((struct rig *)opaque)->resets++;
}
static void request_shutdown(void *opaque)
{
    ((struct rig *)opaque)->shutdowns++;
}

static void request_exit(void *opaque, int status)
{
    struct rig *rig = opaque;

    rig->exits++;
    rig->exit_status = status;
}

static void set_a20(void *opaque, bool enabled)
{
    struct rig *rig = opaque;

    rig->a20_changes++;
    rig->a20 = enabled;
}

static const struct machine_ops rig_machine = {
    .request_reset = request_reset,
    .request_shutdown = request_shutdown,
    .request_exit = request_exit,
    .set_a20 = set_a20,
};

static void cpu_set_intr(void *cpu, bool level)
{
    ((struct rig_cpu *)cpu)->intr = level;
}
static void cpu_nmi(void *cpu)
{
    ((struct rig_cpu *)cpu)->nmis++;
}
static void cpu_init(void *cpu)
{
    ((struct rig_cpu *)cpu)->inits++;
}
static void cpu_smi(void *cpu)
{
    ((struct rig_cpu *)cpu)->smis++;
}

static void cpu_sipi(void *cpu, uint8_t vector)
{
    struct rig_cpu *rig_cpu = cpu;

    rig_cpu->sipis++;
    rig_cpu->sipi_vector = vector;
}

const struct board_cpu_ops rig_cpu_ops = {
    .set_intr = cpu_set_intr,
    .nmi = cpu_nmi,
    .init = cpu_init,
    .sipi = cpu_sipi,
    .smi = cpu_smi,
};

struct irq_line rig_isa_line(struct rig *rig, unsigned n)
{
    return (struct irq_line){ .set = set_line, .opaque = rig->isa, .n = n };
}

void rig_init(struct rig *rig)
{
    struct error err;

    memset(rig, 0, sizeof(*rig));
    clock_init(&rig->clock);
    rig->env.loop = event_loop_create(&rig->clock, &err);
    rig->env.clock = &rig->clock;
    rig->env.ports = port_space_create(NULL);
    rig->env.mem = physmem_create(MIB, event_loop_mutex(rig->env.loop), &err);
    cr_assert_not_null(rig->env.mem);
    for (unsigned n = 0; n < 16; n++)
        rig->env.isa_irq[n] = rig_isa_line(rig, n);
    for (unsigned n = 0; n < 24; n++)
        rig->env.gsi[n] = (struct irq_line){ .set = set_line, .opaque = rig->gsi, .n = n };
    rig->env.machine = &rig_machine;
    rig->env.machine_opaque = rig;
    cr_assert_eq(apic_bus_init(&rig->bus, RIG_CPUS, &err), 0);
}

void rig_destroy(struct rig *rig)
{
    apic_bus_destroy(&rig->bus);
    physmem_destroy(rig->env.mem);
    port_space_destroy(rig->env.ports);
}

void rig_round_trip(struct device *device, void (*spoil)(struct device *device))
{
    const struct state_table *table = device->type->state;
    struct state_buffer first = { 0 }, second = { 0 };
    struct error err = { "" };

    cr_assert_not_null(table);
    cr_assert_eq(state_save(&first, table, device, &err), 0, "%s: %s", table->name, err.text);
    if (spoil)
        spoil(device);
    else
        device_reset(device);
    cr_assert_eq(state_load(&first, table, device, &err), 0, "%s: %s", table->name, err.text);
    cr_assert_eq(state_save(&second, table, device, &err), 0, "%s: %s", table->name, err.text);
    cr_assert_eq(first.size, second.size, "%s", table->name);
    for (size_t i = 0; i < first.size; i++)
        cr_assert_eq(first.data[i], second.data[i], "%s: byte %zu is 0x%x, after save, reset, load, save 0x%x",
                     table->name, i, first.data[i], second.data[i]);
    state_buffer_free(&first);
    state_buffer_free(&second);
}

void rig_load_garbage(struct device *device, uint64_t seed, unsigned rounds)
{
    const struct state_table *table = device->type->state;
    const struct state_field *field;
    struct error err;

    for (unsigned round = 0; round < rounds; round++) {
        /* The fields as a stream would have set them, whatever its encoding. */
        for (field = table->fields; field->name; field++) {
            uint8_t *bytes = (uint8_t *)device + field->offset;

            for (size_t i = 0; i < field->size * field->count; i++)
                bytes[i] = (uint8_t)rig_random(&seed);
        }
        if (table->post_load && table->post_load(device, &err) < 0)
            device_reset(device);
        fake_time_advance(1000000);
    }
    device_reset(device);
}

uint64_t rig_random(uint64_t *state)
{
    uint64_t z = (*state += 0x9e3779b97f4a7c15ull);

    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ z >> 27) * 0x94d049bb133111ebull;
    return z ^ z >> 31;
}
