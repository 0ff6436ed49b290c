/* Puts the ACPI and SMBIOS tables where an operating system looks for them without a
 * BIOS: in the BIOS area, which the memory map reserves.
 *
 *   f0000  RSDP, then the ACPI tables      fa000  SMBIOS entry point and structures */
#include "firmware/acpi_builder.h"
#include "firmware/memory_map.h"

#include <errno.h>
#include <stdlib.h>

#define SMBIOS_BASE 0xfa000ull
#define SMBIOS_END  0xffff0ull /* the reset vector */

static int place_acpi(struct physmem *mem, const struct firmware_tables_config *config, struct error *err)
{
    struct acpi_builder builder;
    int result = acpi_build(&builder, config, err);

    if (result)
        return result;
    acpi_resolve(&builder, MEMORY_BIOS);
    if (builder.size > SMBIOS_BASE - MEMORY_BIOS)
        result = error_set(err, ENOSPC, "-smp %u: too many CPUs for the ACPI tables' place", config->cpu_count);
    else if (!physmem_write(mem, MEMORY_BIOS, builder.data, builder.size))
        result = error_set(err, EFAULT, "cannot write the ACPI tables to guest memory");
    acpi_builder_free(&builder);
    return result;
}

static int place_smbios(struct physmem *mem, const struct firmware_tables_config *config, struct error *err)
{
    size_t capacity = SMBIOS_END - SMBIOS_BASE, size;
    uint8_t *data = malloc(capacity);
    int result = 0;

    if (!data)
        return error_set(err, ENOMEM, "no memory for the SMBIOS tables");
    size = smbios_build(data, capacity, SMBIOS_BASE, config);
    if (!size || !physmem_write(mem, SMBIOS_BASE, data, size))
        result = error_set(err, EFAULT, "cannot write the SMBIOS tables to guest memory");
    free(data);
    return result;
}

int firmware_tables_place(struct physmem *mem, const struct firmware_tables_config *config, gpa_t *rsdp,
                          struct error *err)
{
    int result = place_acpi(mem, config, err);

    if (!result)
        result = place_smbios(mem, config, err);
    *rsdp = MEMORY_BIOS;
    return result;
}
