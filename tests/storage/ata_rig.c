/* See ata_rig.h. */
#include "ata_rig.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

static void set_isa(void *opaque, unsigned n, bool level)
{
    struct ata_rig *rig = opaque;

    rig->isa_rises[n] += level && !rig->isa[n];
    rig->isa[n] = level;
}

static void on_pirq(void *opaque, unsigned n, bool level)
{
    ((struct ata_rig *)opaque)->pirq[n] = level;
}

static unsigned map_pirq(void *opaque, uint8_t devfn, unsigned pin)
{
    (void)opaque, (void)devfn;
    return pin;
}

static void on_msi(void *opaque, uint64_t address, uint32_t data)
{
    (void)address, (void)data;
    ((struct ata_rig *)opaque)->messages++;
}

static const struct pci_bus_ops bus_ops = { .pirq_set = on_pirq, .pirq_map = map_pirq, .msi = on_msi };

static uint64_t mmio_read(void *opaque, uint64_t offset, unsigned size)
{
    (void)offset, (void)size;
    ((struct ata_rig *)opaque)->mmio_accesses++;
    return 0;
}

static void mmio_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
    (void)offset, (void)size, (void)value;
    ((struct ata_rig *)opaque)->mmio_accesses++;
}

static const struct io_ops mmio_ops = { .read = mmio_read, .write = mmio_write };

void ata_rig_init(struct ata_rig *rig)
{
    struct error err = { "" };

    memset(rig, 0, sizeof(*rig));
    clock_init(&rig->clock);
    rig->env.loop = event_loop_create(&rig->clock, &err);
    rig->env.clock = &rig->clock;
    rig->env.ports = port_space_create(NULL);
    rig->env.mem = physmem_create(RAM_SIZE, event_loop_mutex(rig->env.loop), &err);
    cr_assert_not_null(rig->env.mem);
    cr_assert_not_null(physmem_add_ram(rig->env.mem, 0, RAM_SIZE, 0, "ram", &err));
    cr_assert_not_null(physmem_add_mmio(rig->env.mem, MMIO_BASE, 0x10000, &mmio_ops, rig, "mmio", &err));
    rig->env.pci_bus = pci_bus_create(&rig->env, &bus_ops, rig);
    for (unsigned n = 0; n < 16; n++)
        rig->env.isa_irq[n] = (struct irq_line){ .set = set_isa, .opaque = rig, .n = n };
    rig->disk = fake_disk_add(&rig->env.blocks, "disk", DISK_SIZE);
    rig->disk2 = fake_disk_add(&rig->env.blocks, "disk2", DISK_SIZE);
    rig->cd = fake_disk_add(&rig->env.blocks, "cd", CD_SIZE);
    rig->cd->info.read_only = rig->cd->info.cdrom = true;
}

void ata_rig_destroy(struct ata_rig *rig)
{
    while (rig->device_count)
        device_destroy(rig->devices[--rig->device_count]);
    cr_assert_null(rig->env.buses);
    fake_disk_free(rig->env.blocks);
    pci_bus_destroy(rig->env.pci_bus);
    physmem_destroy(rig->env.mem);
    port_space_destroy(rig->env.ports);
}

static struct device *create(struct ata_rig *rig, const char *option, struct error *err)
{
    struct option_list options;
    struct device *device;

    cr_assert_eq(options_parse(&options, option, "driver", err), 0, "%s", err->text);
    const struct device_type *type = device_type_find(options_get(&options, "driver"));
    cr_assert_not_null(type, "%s", option);
    device = device_create(&rig->env, type, options_get(&options, "id"), &options, err);
    if (device)
        cr_assert_eq(options_check_all_used(&options, "", err), 0, "%s", err->text);
    options_free(&options);
    return device;
}

struct device *ata_rig_add(struct ata_rig *rig, const char *option)
{
    struct error err = { "" };
    struct device *device = create(rig, option, &err);

    cr_assert_not_null(device, "%s: %s", option, err.text);
    rig->devices[rig->device_count++] = device;
    return device;
}

const char *ata_rig_refused(struct ata_rig *rig, const char *option)
{
    static struct error err;
    struct device *device = create(rig, option, &err);

    device_destroy(device);
    return device ? NULL : err.text;
}

struct pci_device *ata_rig_pci(struct ata_rig *rig, unsigned index)
{
    return (struct pci_device *)rig->devices[index];
}

/* ---- States ---- */

/* The name of the field that byte `i` of a saved state belongs to. */
static const char *field_before(const uint8_t *data, size_t i)
{
    while (i > 8 && !(data[i] == '.' && data[i - 1] >= 'a'))
        i--;
    return (const char *)data + i;
}

void ata_round_trip(struct device *device)
{
    const struct state_table *table = device->type->state;
    struct state_buffer first = { 0 }, second = { 0 };
    struct error err = { "" };

    cr_assert_eq(state_save(&first, table, device, &err), 0, "%s: %s", table->name, err.text);
    device_reset(device);
    cr_assert_eq(state_load(&first, table, device, &err), 0, "%s: %s", table->name, err.text);
    cr_assert_eq(state_save(&second, table, device, &err), 0, "%s: %s", table->name, err.text);
    cr_assert_eq(first.size, second.size);
    for (size_t i = 0; i < first.size; i++)
        cr_assert_eq(first.data[i], second.data[i],
                     "%s, near %.*s: byte %zu is 0x%x, after save, reset, load, save 0x%x", table->name, 48,
                     field_before(first.data, i), i, first.data[i], second.data[i]);
    state_buffer_free(&first);
    state_buffer_free(&second);
}

void ata_load_garbage(struct device *device, uint64_t seed, unsigned rounds)
{
    const struct state_table *table = device->type->state;
    struct error err;

    for (unsigned round = 0; round < rounds; round++) {
        for (const struct state_field *field = table->fields; field->name; field++) {
            uint8_t *bytes = (uint8_t *)device + field->offset;

            for (size_t i = 0; i < field->size * field->count; i++)
                bytes[i] = ata_random(&seed) & 1 ? (uint8_t)ata_random(&seed) : (uint8_t)(ata_random(&seed) & 7);
        }
        table->post_load(device, &err);
    }
}

/* ---- Memory ---- */

uint64_t ata_random(uint64_t *seed)
{
    uint64_t z = (*seed += 0x9e3779b97f4a7c15ull);

    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ z >> 27) * 0x94d049bb133111ebull;
    return z ^ z >> 31;
}

uint8_t *ram(struct ata_rig *rig, gpa_t gpa)
{
    return physmem_ram_base(rig->env.mem) + gpa;
}

void ram_write(struct ata_rig *rig, gpa_t gpa, const void *data, size_t size)
{
    memcpy(ram(rig, gpa), data, size);
}

void ram_fill(struct ata_rig *rig, gpa_t gpa, uint8_t byte, size_t size)
{
    memset(ram(rig, gpa), byte, size);
}

void ram_write32(struct ata_rig *rig, gpa_t gpa, uint32_t value)
{
    memcpy(ram(rig, gpa), &value, sizeof(value));
}

bool ram_has_pattern(struct ata_rig *rig, gpa_t gpa, uint64_t offset, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        if (*ram(rig, gpa + i) != fake_disk_pattern(offset + i))
            return false;
    }
    return true;
}
