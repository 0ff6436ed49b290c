/* The host bridge of the q35 (Intel 82G33 MCH, 8086:29c0) at 00:00.0: both configuration mechanisms, and the shadow RAM.
 *
 *   ECAM                  27..20 bus | 19..12 device, function | 11..0 register
 *   PCIEXBAR (60h)        38..28 base | 27, 26 base if smaller | 2..1 length: 256, 128, 64 MiB | 0 enable
 *   PAM0..6 (90h..96h)    shadow_ram.h
 *   SMRAM (9dh)           6 open | 5 closed | 4 lock | 3 enable | 2..0 010; ESMRAMC (9eh): kept, but there is no SMM
 *
 * PCI 3.0 section 3.2.2.3.2, PCIe 4.0 section 7.2.2, Intel 3 Series Express Chipset datasheet 5.1. */
#include "base/log.h"
#include "devices/board/machine.h"
#include "devices/board/shadow_ram.h"
#include "devices/pci/pci_host.h"

#define PCIEXBAR 0x60
#define PAM0     0x90
#define SMRAM    0x9d
#define ESMRAMC  0x9e
#define EXT_TSEG 0x50 /* QEMU's: firmware that needs SMM asks here for the size of its memory */
enum { SMRAM_LOCK = 1 << 4 };

struct mch {
    struct pci_device pci;
    struct pci_host host;
    struct shadow_ram *shadow;
    struct mem_region *ecam;
    uint64_t ecam_base, ecam_size; /* as mapped */
};

static uint64_t ecam_read(void *opaque, uint64_t offset, unsigned size)
{
    struct mch *mch = opaque;

    return pci_bus_config_read(mch->pci.bus, offset >> 20, offset >> 12, offset & 0xfff, size);
}

static void ecam_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
    struct mch *mch = opaque;

    pci_bus_config_write(mch->pci.bus, offset >> 20, offset >> 12, offset & 0xfff, size, value);
}

/* Accesses that are not aligned would leave the function's page or the register: split to bytes. */
static uint64_t ecam_read_any(void *opaque, uint64_t offset, unsigned size)
{
    uint64_t value = 0;

    if (offset % size == 0)
        return ecam_read(opaque, offset, size);
    for (unsigned i = 0; i < size; i++)
        value |= ecam_read(opaque, offset + i, 1) << (8 * i);
    return value;
}

static void ecam_write_any(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
    if (offset % size == 0) {
        ecam_write(opaque, offset, size, value);
        return;
    }
    for (unsigned i = 0; i < size; i++)
        ecam_write(opaque, offset + i, 1, value >> (8 * i) & 0xff);
}

static const struct io_ops ecam_ops = { .read = ecam_read_any, .write = ecam_write_any, .min_size = 1, .max_size = 4 };

static bool ecam_wanted(const struct mch *mch, uint64_t *base, uint64_t *size)
{
    uint64_t value = pci_get_long(mch->pci.config + PCIEXBAR) | (uint64_t)pci_get_long(mch->pci.config + PCIEXBAR + 4)
                                                                    << 32;
    unsigned length = value >> 1 & 3;

    if (!(value & 1) || length == 3)
        return false;
    *size = 0x10000000ull >> length;
    *base = value & 0xfffffffffull & ~(*size - 1);
    return *base != 0;
}

static void ecam_update(struct mch *mch)
{
    struct physmem *mem = mch->pci.device.env->mem;
    uint64_t base = 0, size = 0;
    bool wanted = ecam_wanted(mch, &base, &size);

    if (mch->ecam && wanted && base == mch->ecam_base && size == mch->ecam_size)
        return;
    if (mch->ecam)
        physmem_remove(mch->ecam);
    mch->ecam = wanted ? physmem_add_mmio(mem, base, size, &ecam_ops, mch, "pcie-ecam", NULL) : NULL;
    mch->ecam_base = base;
    mch->ecam_size = size;
}

/* Locked, the registers are read-only until reset. */
static void smram_update(struct pci_device *pci)
{
    bool locked = pci->config[SMRAM] & SMRAM_LOCK;

    pci->write_mask[SMRAM] = locked ? 0 : 0x78;
    pci->write_mask[ESMRAMC] = locked ? 0 : 0x87;
}

static void mch_config_written(struct pci_device *pci, unsigned offset, unsigned size)
{
    if (offset < PCIEXBAR + 8 && offset + size > PCIEXBAR)
        ecam_update((struct mch *)pci);
    if (offset < PAM0 + PAM_REGISTERS && offset + size > PAM0)
        shadow_ram_set(((struct mch *)pci)->shadow, pci->config + PAM0);
    if (offset < EXT_TSEG + 2 && offset + size > EXT_TSEG)
        log_event(unimp, "the firmware asks for SMM, which is not there: take a build without Secure Boot\n");
    smram_update(pci);
}

/* The registers are as they are: everything follows them. */
static void chipset_update(struct mch *mch)
{
    ecam_update(mch);
    shadow_ram_set(mch->shadow, mch->pci.config + PAM0);
    smram_update(&mch->pci);
}

static const struct pci_identity mch_identity = {
    .vendor = 0x8086,
    .device = 0x29c0,
    .revision = 0,
    .class_code = 0x060000,
};

static int mch_setup(struct mch *mch, struct error *err)
{
    struct pci_device *pci = &mch->pci;
    struct port_space *ports = pci->device.env->ports;
    int result;

    result = pci_device_attach(pci, pci->device.env->pci_bus, PCI_DEVFN(0, 0), &mch_identity, err);
    if (result)
        return result;
    pci_set_long(pci->config + PCIEXBAR, (uint32_t)Q35_ECAM_BASE);
    pci_set_long(pci->write_mask + PCIEXBAR, 0xfc000007);
    pci_set_long(pci->write_mask + PCIEXBAR + 4, 0xf);
    pci->write_mask[PAM0] = 0x30;
    for (unsigned i = 1; i < PAM_REGISTERS; i++)
        pci->write_mask[PAM0 + i] = 0x33;
    pci->config[SMRAM] = 0x02;
    pci->config[ESMRAMC] = 0x38; /* SMRAM would be cached: read-only ones */
    smram_update(pci);
    pci->config_written = mch_config_written;
    pci_device_seal(pci);

    result = pci_host_attach(&mch->host, pci->bus, ports, err);
    if (!result)
        chipset_update(mch);
    return result;
}

static void mch_reset(struct device *device)
{
    struct mch *mch = (struct mch *)device;

    mch->host.address = 0;
    pci_device_reset(&mch->pci);
    chipset_update(mch);
}

void mch_set_up(struct pci_device *mch)
{
    pci_device_config_write(mch, PCIEXBAR, 4, (uint32_t)Q35_ECAM_BASE | 1);
    for (unsigned i = 0; i < PAM_REGISTERS; i++)
        pci_device_config_write(mch, PAM0 + i, 1, 0x33);
}

static void mch_destroy(struct device *device)
{
    struct mch *mch = (struct mch *)device;

    if (mch->ecam)
        physmem_remove(mch->ecam);
    pci_host_detach(&mch->host, device->env->ports);
    pci_device_detach(&mch->pci);
}

static int mch_post_load(void *owner, struct error *err)
{
    (void)err;
    chipset_update(owner);
    return 0;
}

static const struct state_field mch_fields[] = {
    STATE_ARRAY(struct mch, pci.config),
    STATE_FIELD(struct mch, host.address),
    STATE_END,
};
static const struct state_table mch_state = {
    .name = "mch",
    .version = 1,
    .fields = mch_fields,
    .post_load = mch_post_load,
};

static const struct device_type mch_type = {
    .name = "mch",
    .bus = "PCI",
    .description = "Host bridge",
    .size = sizeof(struct mch),
    .reset = mch_reset,
    .destroy = mch_destroy,
    .state = &mch_state,
};

struct device *mch_create(struct device_env *env, struct shadow_ram *shadow, struct error *err)
{
    struct mch *mch = device_allocate(env, &mch_type, NULL, err);

    if (!mch)
        return NULL;
    mch->shadow = shadow;
    if (mch_setup(mch, err)) {
        device_destroy(&mch->pci.device);
        return NULL;
    }
    return &mch->pci.device;
}
