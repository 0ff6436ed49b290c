/* The host bridge of the pc board (Intel 82441FX, 8086:1237) at 00:00.0: configuration mechanism 1 and the shadow RAM.
 *
 *   PAM0..6 (59h..5fh)  shadow_ram.h
 *   SMRAM (72h)         6 open | 5 closed | 4 lock | 3 enable | 2..0 010: kept, but there is no SMM
 *
 * Intel 82441FX (PMC) datasheet, chapter 3. */
#include "devices/pci/i440fx.h"

#include "devices/board/shadow_ram.h"
#include "devices/pci/pci_host.h"

#define PAM0  0x59
#define SMRAM 0x72
enum { SMRAM_LOCK = 1 << 4 };

struct i440fx {
    struct pci_device pci;
    struct pci_host host;
    struct shadow_ram *shadow;
};

/* The registers are as they are: everything follows them. Locked, SMRAM is read-only until reset. */
static void chipset_update(struct i440fx *i440fx)
{
    struct pci_device *pci = &i440fx->pci;

    shadow_ram_set(i440fx->shadow, pci->config + PAM0);
    pci->write_mask[SMRAM] = pci->config[SMRAM] & SMRAM_LOCK ? 0 : 0x78;
}

static void i440fx_config_written(struct pci_device *pci, unsigned offset, unsigned size)
{
    (void)offset, (void)size;
    chipset_update((struct i440fx *)pci);
}

static const struct pci_identity i440fx_identity = {
    .vendor = 0x8086,
    .device = 0x1237,
    .revision = 2,
    .class_code = 0x060000,
};

static int i440fx_setup(struct i440fx *i440fx, struct error *err)
{
    struct pci_device *pci = &i440fx->pci;
    int result = pci_device_attach(pci, pci->device.env->pci_bus, PCI_DEVFN(0, 0), &i440fx_identity, err);

    if (result)
        return result;
    pci->write_mask[PAM0] = 0x30;
    for (unsigned i = 1; i < PAM_REGISTERS; i++)
        pci->write_mask[PAM0 + i] = 0x33;
    pci->config[SMRAM] = 0x02;
    pci->config_written = i440fx_config_written;
    pci_device_seal(pci);
    result = pci_host_attach(&i440fx->host, pci->bus, pci->device.env->ports, err);
    if (!result)
        chipset_update(i440fx);
    return result;
}

static void i440fx_reset(struct device *device)
{
    struct i440fx *i440fx = (struct i440fx *)device;

    i440fx->host.address = 0;
    pci_device_reset(&i440fx->pci);
    chipset_update(i440fx);
}

void i440fx_set_up(struct pci_device *host)
{
    for (unsigned i = 0; i < PAM_REGISTERS; i++)
        pci_device_config_write(host, PAM0 + i, 1, 0x33);
}

static void i440fx_destroy(struct device *device)
{
    struct i440fx *i440fx = (struct i440fx *)device;

    pci_host_detach(&i440fx->host, device->env->ports);
    pci_device_detach(&i440fx->pci);
}

static int i440fx_post_load(void *owner, struct error *err)
{
    (void)err;
    chipset_update(owner);
    return 0;
}

static const struct state_field i440fx_fields[] = {
    STATE_ARRAY(struct i440fx, pci.config),
    STATE_FIELD(struct i440fx, host.address),
    STATE_END,
};
static const struct state_table i440fx_state = {
    .name = "i440FX",
    .version = 1,
    .fields = i440fx_fields,
    .post_load = i440fx_post_load,
};

static const struct device_type i440fx_type = {
    .name = "i440FX",
    .bus = "PCI",
    .description = "Host bridge",
    .size = sizeof(struct i440fx),
    .reset = i440fx_reset,
    .destroy = i440fx_destroy,
    .state = &i440fx_state,
};

struct device *i440fx_create(struct device_env *env, struct shadow_ram *shadow, struct error *err)
{
    struct i440fx *i440fx = device_allocate(env, &i440fx_type, NULL, err);

    if (!i440fx)
        return NULL;
    i440fx->shadow = shadow;
    if (i440fx_setup(i440fx, err)) {
        device_destroy(&i440fx->pci.device);
        return NULL;
    }
    return &i440fx->pci.device;
}
