/* The ACPI tables of the q35 and i440FX boards (ACPI 6.4 chapter 5). The DSDTs come from dsdt.asl and dsdt_pc.asl through
 * iasl; the others are made here. Numbers agree with devices/board/acpi_pm.h, machine.h and the wiring in q35.c and i440fx.c. */
#include "firmware/acpi_builder.h"
#include "firmware/memory_map.h"

#include "devices/board/acpi_pm.h"
#include "devices/board/machine.h"
#include "devices/timer/hpet.h"

#include <errno.h>
#include <string.h>

#include "generated/dsdt.h"    /* dsdt_aml_code[] */
#include "generated/dsdt_pc.h" /* dsdt_pc_aml_code[] */

enum { SPACE_MEMORY = 0, SPACE_IO = 1 };

/* Generic address structure, 5.2.3.2. access: 1 byte, 2 word, 3 dword. */
struct gas {
    uint8_t space, bit_width, bit_offset, access;
    uint64_t address;
} __attribute__((packed));

/* ---- DSDT, 5.2.11.1 ---- */

#define PCI_WINDOW_64_SIZE (32 * GIB)

/* The first QWord address space descriptor, 6.4.3.5.1: 14 minimum, 22 maximum, 38 length. */
static bool set_window(uint8_t *aml, size_t size, uint64_t start, uint64_t end)
{
    static const uint8_t qword_memory[] = { 0x8a, 0x2b, 0x00, 0x00 };
    uint8_t *at = memmem(aml, size, qword_memory, sizeof(qword_memory));
    uint64_t last = end - 1, length = end - start;

    if (!at || (size_t)(aml + size - at) < 46)
        return false;
    memcpy(at + 14, &start, sizeof(start));
    memcpy(at + 22, &last, sizeof(last));
    memcpy(at + 38, &length, sizeof(length));
    return true;
}

/* The window for 64-bit BARs: from the first GiB behind the RAM, which is where SeaBIOS begins, for 32 GiB from the
 * first multiple of that, which is OVMF's. */
static uint32_t build_dsdt(struct acpi_builder *builder, const struct firmware_tables_config *config)
{
    uint64_t start = ALIGN_UP(MEMORY_HIGH_BASE + config->high_ram, GIB);
    uint64_t end = ALIGN_UP(start, PCI_WINDOW_64_SIZE) + PCI_WINDOW_64_SIZE;
    const uint8_t *code = config->i440fx ? dsdt_pc_aml_code : dsdt_aml_code;
    size_t size = config->i440fx ? sizeof(dsdt_pc_aml_code) : sizeof(dsdt_aml_code);
    uint32_t table = acpi_append(builder, code, size);

    if (builder->failed)
        return table;
    if (!set_window(builder->data + table, size, start, end))
        builder->failed = true;
    acpi_add_checksum(builder, table + 9, table, size);
    return table;
}

/* ---- FADT, 5.2.9 ---- */

struct fadt {
    uint8_t header[36];
    uint32_t facs, dsdt;
    uint8_t reserved1, profile;
    uint16_t sci_int;
    uint32_t smi_cmd;
    uint8_t acpi_enable, acpi_disable, s4bios_req, pstate_cnt;
    uint32_t pm1a_evt, pm1b_evt, pm1a_cnt, pm1b_cnt, pm2_cnt, pm_tmr, gpe0, gpe1;
    uint8_t pm1_evt_len, pm1_cnt_len, pm2_cnt_len, pm_tmr_len, gpe0_len, gpe1_len, gpe1_base, cst_cnt;
    uint16_t lvl2_latency, lvl3_latency, flush_size, flush_stride;
    uint8_t duty_offset, duty_width, day_alarm, month_alarm, century;
    uint16_t boot_arch;
    uint8_t reserved2;
    uint32_t flags;
    struct gas reset_reg;
    uint8_t reset_value;
    uint16_t arm_boot_arch;
    uint8_t minor_revision;
    uint64_t x_facs, x_dsdt;
    struct gas x_pm1a_evt, x_pm1b_evt, x_pm1a_cnt, x_pm1b_cnt, x_pm2_cnt, x_pm_tmr, x_gpe0, x_gpe1;
    struct gas sleep_control, sleep_status;
    char hypervisor[8];
} __attribute__((packed));
_Static_assert(sizeof(struct fadt) == 276, "FADT revision 6");
_Static_assert(offsetof(struct fadt, x_facs) == 132 && offsetof(struct fadt, reset_reg) == 116, "FADT layout");

enum {
    FADT_WBINVD = 1 << 0,
    FADT_PROC_C1 = 1 << 2,
    FADT_NO_FIXED_SLEEP_BUTTON = 1 << 5,
    FADT_RESET_REG_SUP = 1 << 10,
    BOOT_ARCH_LEGACY_DEVICES = 1 << 0,
    BOOT_ARCH_8042 = 1 << 1,
    BOOT_ARCH_NO_VGA = 1 << 2,
    CMOS_CENTURY = 0x32,
    NO_C_STATE = 0xfff,
};

static struct gas io_register(uint16_t port, unsigned bytes, uint8_t access)
{
    return (struct gas){ SPACE_IO, bytes * 8, 0, access, port };
}

static uint32_t build_fadt(struct acpi_builder *builder, const struct firmware_tables_config *config, uint32_t facs,
                           uint32_t dsdt)
{
    uint32_t table = acpi_table_begin(builder, "FACP", 6);
    uint16_t pm_base = config->pm_base ? config->pm_base : ACPI_PM_BASE;
    uint16_t gpe0 = config->i440fx ? ACPI_PIIX4_GPE0 : pm_base + ACPI_GPE0;
    uint8_t gpe0_size = config->i440fx ? 4 : 16;
    struct fadt fadt = {
        .sci_int = ACPI_SCI_IRQ,
        .smi_cmd = ACPI_SMI_CMD,
        .acpi_enable = config->i440fx ? ACPI_PIIX4_ENABLE_COMMAND : ACPI_ENABLE_COMMAND,
        .acpi_disable = config->i440fx ? ACPI_PIIX4_DISABLE_COMMAND : ACPI_DISABLE_COMMAND,
        .pm1a_evt = pm_base + ACPI_PM1_EVT,
        .pm1_evt_len = 4,
        .pm1a_cnt = pm_base + ACPI_PM1_CNT,
        .pm1_cnt_len = 2,
        .pm_tmr = pm_base + ACPI_PM_TMR,
        .pm_tmr_len = 4,
        .gpe0 = gpe0,
        .gpe0_len = gpe0_size,
        .lvl2_latency = NO_C_STATE,
        .lvl3_latency = NO_C_STATE,
        .century = CMOS_CENTURY,
        .boot_arch = BOOT_ARCH_LEGACY_DEVICES | BOOT_ARCH_8042 | BOOT_ARCH_NO_VGA,
        .flags = FADT_WBINVD | FADT_PROC_C1 | FADT_NO_FIXED_SLEEP_BUTTON | FADT_RESET_REG_SUP,
        .reset_reg = io_register(0xcf9, 1, 1),
        .reset_value = 6, /* full reset */
        .minor_revision = 4,
        .x_pm1a_evt = io_register(pm_base + ACPI_PM1_EVT, 4, 2),
        .x_pm1a_cnt = io_register(pm_base + ACPI_PM1_CNT, 2, 2),
        .x_pm_tmr = io_register(pm_base + ACPI_PM_TMR, 4, 3),
        .x_gpe0 = io_register(gpe0, gpe0_size, 1),
    };

    acpi_append(builder, (uint8_t *)&fadt + sizeof(fadt.header), sizeof(fadt) - sizeof(fadt.header));
    /* One of the two FACS addresses: given both, an operating system sees two tables (5.2.9, X_FIRMWARE_CTRL). */
    acpi_add_pointer(builder, table + offsetof(struct fadt, facs), 4, facs);
    acpi_add_pointer(builder, table + offsetof(struct fadt, dsdt), 4, dsdt);
    acpi_add_pointer(builder, table + offsetof(struct fadt, x_dsdt), 8, dsdt);
    acpi_table_end(builder, table);
    return table;
}

/* ---- FACS, 5.2.10: no checksum ---- */

static uint32_t build_facs(struct acpi_builder *builder)
{
    uint32_t table = acpi_reserve(builder, 64, 64), length = 64;

    if (builder->failed)
        return 0;
    memcpy(builder->data + table, "FACS", 4);
    memcpy(builder->data + table + 4, &length, 4);
    builder->data[table + 32] = 2; /* version */
    return table;
}

/* ---- MADT, 5.2.12 ---- */

enum {
    MADT_LAPIC = 0,
    MADT_IOAPIC = 1,
    MADT_OVERRIDE = 2,
    MADT_LAPIC_NMI = 4,
    MADT_X2APIC = 9,
    MADT_X2APIC_NMI = 10,
    MADT_PCAT_COMPAT = 1,
    MADT_ENABLED = 1,
    MADT_LEVEL_HIGH = 0xd,
    XAPIC_MAX_ID = 254,
};

static void madt_cpu(struct acpi_builder *builder, unsigned id)
{
    if (id <= XAPIC_MAX_ID) {
        acpi_append(builder, (uint8_t[]){ MADT_LAPIC, 8, id, id }, 4);
        acpi_put32(builder, MADT_ENABLED);
    } else {
        acpi_append(builder, (uint8_t[]){ MADT_X2APIC, 16, 0, 0 }, 4);
        acpi_put32(builder, id);
        acpi_put32(builder, MADT_ENABLED);
        acpi_put32(builder, id);
    }
}

static void madt_override(struct acpi_builder *builder, uint8_t irq, uint32_t gsi, uint16_t flags)
{
    acpi_append(builder, (uint8_t[]){ MADT_OVERRIDE, 10, 0, irq }, 4);
    acpi_put32(builder, gsi);
    acpi_put16(builder, flags);
}

static uint32_t build_madt(struct acpi_builder *builder, const struct firmware_tables_config *config)
{
    unsigned cpu_count = config->cpu_count;
    static const uint8_t pci_irqs[] = { 5, 10, 11 };
    uint32_t table = acpi_table_begin(builder, "APIC", 5);

    acpi_put32(builder, LAPIC_BASE);
    acpi_put32(builder, MADT_PCAT_COMPAT);
    for (unsigned i = 0; i < cpu_count; i++)
        madt_cpu(builder, i);
    acpi_append(builder, (uint8_t[]){ MADT_IOAPIC, 12, 0, 0 }, 4);
    acpi_put32(builder, IOAPIC_BASE);
    acpi_put32(builder, 0);
    madt_override(builder, 0, 2, 0);
    madt_override(builder, ACPI_SCI_IRQ, ACPI_SCI_IRQ, MADT_LEVEL_HIGH);
    /* Without pins of their own, PCI's interrupts come through ISA's. */
    for (size_t i = 0; i < ARRAY_SIZE(pci_irqs) && config->i440fx; i++)
        madt_override(builder, pci_irqs[i], pci_irqs[i], MADT_LEVEL_HIGH);
    acpi_append(builder, (uint8_t[]){ MADT_LAPIC_NMI, 6, 0xff, 0, 0, 1 }, 6);
    if (cpu_count > XAPIC_MAX_ID + 1)
        acpi_append(builder, (uint8_t[]){ MADT_X2APIC_NMI, 12, 0, 0, 0xff, 0xff, 0xff, 0xff, 1, 0, 0, 0 }, 12);
    acpi_table_end(builder, table);
    return table;
}

/* ---- MCFG (PCI Firmware Specification 3.2, 4.1.2), HPET (IA-PC HPET 1.0a, 3.2.4) ---- */

static uint32_t build_mcfg(struct acpi_builder *builder)
{
    uint32_t table = acpi_table_begin(builder, "MCFG", 1);

    acpi_put64(builder, 0);
    acpi_put64(builder, Q35_ECAM_BASE);
    acpi_put16(builder, 0);
    acpi_put8(builder, 0);
    acpi_put8(builder, Q35_ECAM_SIZE / MIB - 1);
    acpi_put32(builder, 0);
    acpi_table_end(builder, table);
    return table;
}

static uint32_t build_hpet(struct acpi_builder *builder)
{
    uint32_t table = acpi_table_begin(builder, "HPET", 1);
    struct gas address = { SPACE_MEMORY, 64, 0, 0, HPET_BASE };

    acpi_put32(builder, HPET_BLOCK_ID);
    acpi_append(builder, &address, sizeof(address));
    acpi_put8(builder, 0);
    acpi_put16(builder, 0);
    acpi_put8(builder, 0);
    acpi_table_end(builder, table);
    return table;
}

/* ---- RSDT, XSDT, RSDP: 5.2.5, 5.2.7, 5.2.8 ---- */

static uint32_t build_root(struct acpi_builder *builder, const char *signature, uint8_t size, const uint32_t *tables,
                           unsigned count)
{
    uint32_t root = acpi_table_begin(builder, signature, 1);

    for (unsigned i = 0; i < count; i++)
        acpi_add_pointer(builder, acpi_reserve(builder, size, 1), size, tables[i]);
    acpi_table_end(builder, root);
    return root;
}

static void build_rsdp(struct acpi_builder *builder, uint32_t rsdt, uint32_t xsdt)
{
    if (builder->failed)
        return;
    memcpy(builder->data, "RSD PTR ", 8);
    memcpy(builder->data + 9, "EIDOLN", 6);
    builder->data[15] = 2;
    builder->data[20] = ACPI_RSDP_SIZE;
    acpi_add_pointer(builder, 16, 4, rsdt);
    acpi_add_pointer(builder, 24, 8, xsdt);
    acpi_add_checksum(builder, 8, 0, 20);
    acpi_add_checksum(builder, 32, 0, ACPI_RSDP_SIZE);
}

int acpi_build(struct acpi_builder *builder, const struct firmware_tables_config *config, struct error *err)
{
    uint32_t facs, dsdt, rsdt, xsdt, tables[5];
    unsigned count = 3;

    memset(builder, 0, sizeof(*builder));
    acpi_reserve(builder, ACPI_TABLES_START, 1);
    facs = build_facs(builder);
    acpi_reserve(builder, 0, 16);
    dsdt = build_dsdt(builder, config);
    tables[0] = build_fadt(builder, config, facs, dsdt);
    tables[1] = acpi_build_ssdt(builder, config);
    tables[2] = build_madt(builder, config);
    tables[count++] = build_hpet(builder);
    if (!config->i440fx)
        tables[count++] = build_mcfg(builder);
    rsdt = build_root(builder, "RSDT", 4, tables, count);
    xsdt = build_root(builder, "XSDT", 8, tables, count);
    build_rsdp(builder, rsdt, xsdt);
    if (!builder->failed)
        return 0;
    acpi_builder_free(builder);
    return error_set(err, ENOMEM, "no memory for the ACPI tables");
}
