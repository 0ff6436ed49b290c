/* ACPI PCI hot-plug (ACPI 6.4, 6.3; the registers are those of QEMU's docs/specs/acpi_pci_hotplug). Bit n stands for slot n.
 *
 *   00 r   slots in which something came; cleared by reading        08 w  eject these slots
 *   04 r   slots that are to be given up; cleared by reading        10 rw bus: 0, there is only that one
 *
 * A change raises general-purpose event 1, whose method reads both. Device lock held. */
#include "devices/board/acpi_pcihp.h"

#include "devices/pci/pci_internal.h"

#include <errno.h>

enum { REG_UP = 0x00, REG_DOWN = 0x04, REG_EJECT = 0x08, REG_BUS = 0x10 };

struct acpi_pcihp {
    struct device device;
    struct acpi_pm *pm;
    uint32_t up, down, bus;
    bool attached;
};

static void eject(struct acpi_pcihp *hp, uint32_t slots)
{
    struct device_env *env = hp->device.env;

    for (unsigned slot = 0; slot < 32 && env->unplugged; slot++) {
        for (unsigned function = 8; function-- > 0 && (slots >> slot & 1);) {
            struct pci_device *pci = env->pci_bus->functions[PCI_DEVFN(slot, function)];

            if (pci && pci->device.type->user_creatable) /* the chip set stays */
                env->unplugged(env, &pci->device);
        }
    }
}

static uint64_t hp_read(void *opaque, uint64_t offset, unsigned size)
{
    struct acpi_pcihp *hp = opaque;
    uint32_t value = 0;

    (void)size;
    if (offset == REG_BUS)
        return hp->bus;
    if (hp->bus)
        return 0;
    if (offset == REG_UP) {
        value = hp->up;
        hp->up = 0;
    } else if (offset == REG_DOWN) {
        value = hp->down;
        hp->down = 0;
    }
    return value;
}

static void hp_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
    struct acpi_pcihp *hp = opaque;

    (void)size;
    if (offset == REG_BUS)
        hp->bus = (uint32_t)value;
    else if (offset == REG_EJECT && !hp->bus)
        eject(hp, (uint32_t)value);
}

static const struct io_ops hp_ops = { .read = hp_read, .write = hp_write, .min_size = 4, .max_size = 4 };

static void plugged(struct pci_bus *bus, struct pci_device *pci, bool there)
{
    struct acpi_pcihp *hp = bus->plugged_opaque;

    if (!there || PCI_FUNCTION(pci->devfn))
        return;
    hp->up |= 1u << PCI_SLOT(pci->devfn);
    acpi_pm_gpe(hp->pm, ACPI_PCIHP_GPE);
}

void acpi_pcihp_request_unplug(struct acpi_pcihp *hp, unsigned slot)
{
    hp->down |= 1u << (slot & 31);
    acpi_pm_gpe(hp->pm, ACPI_PCIHP_GPE);
}

static void reset_device(struct device *device)
{
    struct acpi_pcihp *hp = container_of(device, struct acpi_pcihp, device);

    hp->up = hp->down = hp->bus = 0;
}

static void destroy_device(struct device *device)
{
    struct acpi_pcihp *hp = container_of(device, struct acpi_pcihp, device);

    if (hp->attached)
        device->env->pci_bus->plugged = NULL;
    port_space_remove(device->env->ports, ACPI_PCIHP_BASE, ACPI_PCIHP_SIZE, hp);
}

static const struct state_field hp_fields[] = {
    STATE_FIELD(struct acpi_pcihp, up),
    STATE_FIELD(struct acpi_pcihp, down),
    STATE_FIELD(struct acpi_pcihp, bus),
    STATE_END,
};
static const struct state_table hp_state = { .name = "acpi-pcihp", .version = 1, .fields = hp_fields };

static const struct device_type hp_type = {
    .name = "acpi-pcihp",
    .bus = "System",
    .description = "ACPI PCI hot-plug registers",
    .size = sizeof(struct acpi_pcihp),
    .reset = reset_device,
    .destroy = destroy_device,
    .state = &hp_state,
};

struct acpi_pcihp *acpi_pcihp_create(struct device_env *env, struct acpi_pm *pm, struct error *err)
{
    struct acpi_pcihp *hp = device_allocate(env, &hp_type, NULL, err);

    if (!hp)
        return NULL;
    hp->pm = pm;
    if (port_space_add(env->ports, ACPI_PCIHP_BASE, ACPI_PCIHP_SIZE, &hp_ops, hp, "acpi-pcihp", err)) {
        device_destroy(&hp->device);
        return NULL;
    }
    env->pci_bus->plugged = plugged;
    env->pci_bus->plugged_opaque = hp;
    hp->attached = true;
    return hp;
}
