/* See acpi_builder.h. All numbers in ACPI tables are little-endian, as the host's. */
#include "firmware/acpi_builder.h"

#include <stdlib.h>
#include <string.h>

enum { HEADER_SIZE = 36, HEADER_LENGTH = 4, HEADER_CHECKSUM = 9 };

uint32_t acpi_reserve(struct acpi_builder *builder, size_t size, unsigned align)
{
    size_t start = ALIGN_UP(builder->size, align), end = start + size;

    if (end > builder->capacity) {
        size_t capacity = MAX(end, builder->capacity * 2 + 4096);
        uint8_t *data = realloc(builder->data, capacity);

        if (!data) {
            builder->failed = true;
            return 0;
        }
        memset(data + builder->capacity, 0, capacity - builder->capacity);
        builder->data = data;
        builder->capacity = capacity;
    }
    builder->size = end;
    return start;
}

uint32_t acpi_append(struct acpi_builder *builder, const void *data, size_t size)
{
    uint32_t offset = acpi_reserve(builder, size, 1);

    if (!builder->failed)
        memcpy(builder->data + offset, data, size);
    return offset;
}

void acpi_put8(struct acpi_builder *builder, uint8_t value)
{
    acpi_append(builder, &value, 1);
}

void acpi_put16(struct acpi_builder *builder, uint16_t value)
{
    acpi_append(builder, &value, 2);
}

void acpi_put32(struct acpi_builder *builder, uint32_t value)
{
    acpi_append(builder, &value, 4);
}

void acpi_put64(struct acpi_builder *builder, uint64_t value)
{
    acpi_append(builder, &value, 8);
}

/* ACPI 6.4 section 5.2.6: signature, length, revision, checksum, OEM id, OEM table id, OEM revision, creator. */
uint32_t acpi_table_begin(struct acpi_builder *builder, const char *signature, uint8_t revision)
{
    uint32_t table = acpi_reserve(builder, 0, 16);

    acpi_append(builder, signature, 4);
    acpi_put32(builder, 0);
    acpi_put8(builder, revision);
    acpi_put8(builder, 0);
    acpi_append(builder, "EIDOLNEIDOLON ", 14);
    acpi_put32(builder, 1);
    acpi_append(builder, "EIDO", 4);
    acpi_put32(builder, 1);
    return table;
}

void acpi_table_end(struct acpi_builder *builder, uint32_t table)
{
    uint32_t length = builder->size - table;

    if (builder->failed)
        return;
    memcpy(builder->data + table + HEADER_LENGTH, &length, 4);
    acpi_add_checksum(builder, table + HEADER_CHECKSUM, table, length);
}

void acpi_add_pointer(struct acpi_builder *builder, uint32_t offset, uint8_t size, uint32_t target)
{
    if (builder->pointer_count == ACPI_FIXUPS_MAX)
        builder->failed = true;
    else
        builder->pointers[builder->pointer_count++] = (struct acpi_pointer){ offset, target, size };
}

void acpi_add_checksum(struct acpi_builder *builder, uint32_t offset, uint32_t start, uint32_t length)
{
    if (builder->checksum_count == ACPI_FIXUPS_MAX)
        builder->failed = true;
    else
        builder->checksums[builder->checksum_count++] = (struct acpi_checksum){ offset, start, length };
}

void acpi_resolve(struct acpi_builder *builder, gpa_t base)
{
    for (unsigned i = 0; i < builder->pointer_count; i++) {
        const struct acpi_pointer *pointer = &builder->pointers[i];
        uint64_t address = base + pointer->target;

        memcpy(builder->data + pointer->offset, &address, pointer->size);
    }
    for (unsigned i = 0; i < builder->checksum_count; i++) {
        const struct acpi_checksum *checksum = &builder->checksums[i];
        uint8_t sum = 0;

        builder->data[checksum->offset] = 0;
        for (uint32_t j = 0; j < checksum->length; j++)
            sum += builder->data[checksum->start + j];
        builder->data[checksum->offset] = -sum;
    }
}

void acpi_builder_free(struct acpi_builder *builder)
{
    free(builder->data);
    memset(builder, 0, sizeof(*builder));
}
