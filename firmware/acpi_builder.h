/* ACPI tables under construction: bytes, with the places that hold addresses and checksums
 * remembered, so that the tables can be put anywhere, by us or by a firmware that loads them through fw_cfg. */
#ifndef EIDOLON_FIRMWARE_ACPI_BUILDER_H
#define EIDOLON_FIRMWARE_ACPI_BUILDER_H

#include "firmware/boot.h"

#define ACPI_FIXUPS_MAX   64
#define ACPI_RSDP_SIZE    36u
#define ACPI_TABLES_START 64u /* the RSDP comes first, the tables from here on; FACS wants 64-byte alignment */

struct acpi_pointer {
    uint32_t offset, target; /* in data */
    uint8_t size;            /* 4 or 8 */
};
struct acpi_checksum {
    uint32_t offset, start, length; /* the byte, and the range that must sum to zero */
};

struct acpi_builder {
    uint8_t *data;
    size_t size, capacity;
    bool failed; /* out of memory or fixups: checked once at the end */
    struct acpi_pointer pointers[ACPI_FIXUPS_MAX];
    struct acpi_checksum checksums[ACPI_FIXUPS_MAX];
    unsigned pointer_count, checksum_count;
};

/* Appends zeros; the offset of the first. Pointers into data are invalid after that. */
uint32_t acpi_reserve(struct acpi_builder *builder, size_t size, unsigned align);
uint32_t acpi_append(struct acpi_builder *builder, const void *data, size_t size);
void acpi_put8(struct acpi_builder *builder, uint8_t value);
void acpi_put16(struct acpi_builder *builder, uint16_t value);
void acpi_put32(struct acpi_builder *builder, uint32_t value);
void acpi_put64(struct acpi_builder *builder, uint64_t value);

/* A table: header now, length and checksum at its end. */
uint32_t acpi_table_begin(struct acpi_builder *builder, const char *signature, uint8_t revision);
void acpi_table_end(struct acpi_builder *builder, uint32_t table);
void acpi_add_pointer(struct acpi_builder *builder, uint32_t offset, uint8_t size, uint32_t target);
void acpi_add_checksum(struct acpi_builder *builder, uint32_t offset, uint32_t start, uint32_t length);

/* Fills in all addresses (relative to base) and checksums. */
void acpi_resolve(struct acpi_builder *builder, gpa_t base);
void acpi_builder_free(struct acpi_builder *builder);

/* acpi.c: all tables, RSDP first. -ENOMEM. */
int acpi_build(struct acpi_builder *builder, const struct firmware_tables_config *config, struct error *err);
/* acpi_ssdt.c */
uint32_t acpi_build_ssdt(struct acpi_builder *builder, const struct firmware_tables_config *config);
/* smbios.c: entry point (16-byte aligned) and structures, for `base`. Size, or 0 if `capacity` is too small. */
#define SMBIOS_STRUCTURES_OFFSET 32u
#define SMBIOS_ENTRY_SIZE        31u
size_t smbios_build(uint8_t *data, size_t capacity, gpa_t base, const struct firmware_tables_config *config);

#endif
