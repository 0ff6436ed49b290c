/* The host bridge of the q35 (Intel 82G33 MCH, 8086:29c0) at 00:00.0: configuration
 * mechanism 1 (ports CF8 and CFC) and the memory-mapped one (PCIEXBAR).
 *
 *   CONFIG_ADDRESS (CF8)  31 enable | 30..24 0 | 23..16 bus | 15..8 device, function | 7..2 register | 0 0
 *   ECAM                  27..20 bus | 19..12 device, function | 11..0 register
 *   PCIEXBAR (60h)        38..28 base | 27, 26 base if smaller | 2..1 length: 256, 128, 64 MiB | 0 enable
 *
 * At reset PCIEXBAR is as firmware would leave it (enabled at 0xb0000000), because kernels that are
 * started directly find it there from the MCFG table. PCI 3.0 section 3.2.2.3.2, PCIe 4.0 section 7.2.2,
 * Intel 3 Series Express Chipset datasheet 5.1. */
#include "devices/board/machine.h"
#include "devices/pci/pci.h"

#define PCIEXBAR 0x60

struct mch {
    struct pci_device pci;
    uint32_t config_address;
    struct mem_region *ecam;
    uint64_t ecam_base, ecam_size; /* as mapped */
};

static uint64_t address_read(void *opaque, uint64_t offset, unsigned size)
{
    struct mch *mch = opaque;

    /* Only dword accesses are the register; others go to whatever I/O is there: nothing (3.2.2.3.2). */
    return offset == 0 && size == 4 ? mch->config_address : 0xffffffffu;
}

static void address_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
    struct mch *mch = opaque;

    if (offset == 0 && size == 4)
        mch->config_address = value & 0x80fffffc;
}

static uint64_t data_read(void *opaque, uint64_t offset, unsigned size)
{
    struct mch *mch = opaque;
    uint32_t address = mch->config_address;

    if (!(address >> 31))
        return 0xffffffffu;
    return pci_bus_config_read(mch->pci.bus, address >> 16 & 0xff, address >> 8, (address & 0xfc) + offset, size);
}

static void data_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
    struct mch *mch = opaque;
    uint32_t address = mch->config_address;

    if (address >> 31)
        pci_bus_config_write(mch->pci.bus, address >> 16 & 0xff, address >> 8, (address & 0xfc) + offset, size, value);
}

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

static const struct io_ops address_ops = { .read = address_read, .write = address_write, .min_size = 1, .max_size = 4 };
static const struct io_ops data_ops = { .read = data_read, .write = data_write, .min_size = 1, .max_size = 4 };
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

static void mch_config_written(struct pci_device *pci, unsigned offset, unsigned size)
{
    if (offset < PCIEXBAR + 8 && offset + size > PCIEXBAR)
        ecam_update((struct mch *)pci);
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
    pci_set_long(pci->config + PCIEXBAR, (uint32_t)Q35_ECAM_BASE | 1);
    pci_set_long(pci->write_mask + PCIEXBAR, 0xfc000007);
    pci_set_long(pci->write_mask + PCIEXBAR + 4, 0xf);
    /* PAM0..6 (shadowing of the BIOS area) and SMRAM: stored; the area is RAM whatever they say. */
    for (unsigned i = 0x90; i <= 0x96; i++)
        pci->write_mask[i] = i == 0x90 ? 0x30 : 0x33;
    pci->config[0x9d] = 0x02;
    pci->write_mask[0x9d] = 0x78;
    pci->write_mask[0x9e] = 0xbb;
    pci->config_written = mch_config_written;
    pci_device_seal(pci);

    result = port_space_add(ports, 0xcf8, 4, &address_ops, mch, "pci-config-address", err);
    if (!result)
        result = port_space_add(ports, 0xcfc, 4, &data_ops, mch, "pci-config-data", err);
    if (!result)
        ecam_update(mch);
    return result;
}

static void mch_reset(struct device *device)
{
    struct mch *mch = (struct mch *)device;

    mch->config_address = 0;
    pci_device_reset(&mch->pci);
    ecam_update(mch);
}

static void mch_destroy(struct device *device)
{
    struct mch *mch = (struct mch *)device;

    if (mch->ecam)
        physmem_remove(mch->ecam);
    port_space_remove(device->env->ports, 0xcf8, 4, mch);
    port_space_remove(device->env->ports, 0xcfc, 4, mch);
    pci_device_detach(&mch->pci);
}

static int mch_post_load(void *owner, struct error *err)
{
    (void)err;
    ecam_update(owner);
    return 0;
}

static const struct state_field mch_fields[] = {
    STATE_ARRAY(struct mch, pci.config),
    STATE_FIELD(struct mch, config_address),
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

struct device *mch_create(struct device_env *env, struct error *err)
{
    struct mch *mch = device_allocate(env, &mch_type, NULL, err);

    if (!mch)
        return NULL;
    if (mch_setup(mch, err)) {
        device_destroy(&mch->pci.device);
        return NULL;
    }
    return &mch->pci.device;
}
