/* The SSDT: AML that depends on the machine's size (ACPI 6.4 chapter 20).
 *
 *   Scope (\_SB) { Device (C000) { Name (_HID, "ACPI0007") Name (_UID, 0) } ... }    processors, as in the MADT */
#include "firmware/acpi_builder.h"

#include <stdio.h>
#include <string.h>

enum {
    AML_NAME = 0x08,
    AML_DWORD = 0x0c,
    AML_STRING = 0x0d,
    AML_SCOPE = 0x10,
    AML_EXT = 0x5b,
    AML_EXT_DEVICE = 0x82,
    AML_ROOT = '\\',
    PACKAGE_LENGTH_SIZE = 3, /* always the three-byte form: 20 bits */
    CPU_BODY = 4 + 15 + 10,  /* name, _HID, _UID: see below */
};

/* PkgLength, 20.2.4: counts itself. */
static void put_package_length(struct acpi_builder *builder, uint32_t contents)
{
    uint32_t length = contents + PACKAGE_LENGTH_SIZE;

    acpi_put8(builder, (PACKAGE_LENGTH_SIZE - 1) << 6 | (length & 0xf));
    acpi_put16(builder, length >> 4);
}

static void put_cpu(struct acpi_builder *builder, unsigned id)
{
    char name[8];

    snprintf(name, sizeof(name), "C%03X", id & 0xfff);
    acpi_put8(builder, AML_EXT);
    acpi_put8(builder, AML_EXT_DEVICE);
    put_package_length(builder, CPU_BODY);
    acpi_append(builder, name, 4);
    acpi_put8(builder, AML_NAME);
    acpi_append(builder, "_HID", 4);
    acpi_put8(builder, AML_STRING);
    acpi_append(builder, "ACPI0007", 9);
    acpi_put8(builder, AML_NAME);
    acpi_append(builder, "_UID", 4);
    acpi_put8(builder, AML_DWORD);
    acpi_put32(builder, id);
}

uint32_t acpi_build_ssdt(struct acpi_builder *builder, const struct firmware_tables_config *config)
{
    uint32_t table = acpi_table_begin(builder, "SSDT", 2);
    unsigned count = MIN(config->cpu_count, 0x1000u);

    acpi_put8(builder, AML_SCOPE);
    put_package_length(builder, 5 + count * (2 + PACKAGE_LENGTH_SIZE + CPU_BODY));
    acpi_put8(builder, AML_ROOT);
    acpi_append(builder, "_SB_", 4);
    for (unsigned i = 0; i < count; i++)
        put_cpu(builder, i);
    acpi_table_end(builder, table);
    return table;
}
