/* The ACPI and SMBIOS tables as fw_cfg files, for a firmware that places them itself. The table
 * loader's commands (QEMU's interface, as SeaBIOS and OVMF implement it) are 128 bytes each:
 *
 *   1 allocate      u32 command, name[56], u32 alignment, u8 zone: 1 anywhere, 2 in the BIOS area
 *   2 add pointer   u32 command, destination[56], source[56], u32 offset, u8 size: adds the source's address
 *   3 add checksum  u32 command, name[56], u32 offset of the byte, u32 start, u32 length */
#include "firmware/acpi_builder.h"

#include "devices/board/fw_cfg.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define RSDP_FILE       "etc/acpi/rsdp"
#define TABLES_FILE     "etc/acpi/tables"
#define SMBIOS_CAPACITY 0x6000u

enum { LOADER_ALLOCATE = 1, LOADER_ADD_POINTER = 2, LOADER_ADD_CHECKSUM = 3, ZONE_HIGH = 1, ZONE_BIOS = 2 };

struct loader_command {
    uint32_t command;
    union {
        struct __attribute__((packed)) {
            char file[FW_CFG_FILE_NAME_MAX];
            uint32_t align;
            uint8_t zone;
        } allocate;
        struct __attribute__((packed)) {
            char destination[FW_CFG_FILE_NAME_MAX], source[FW_CFG_FILE_NAME_MAX];
            uint32_t offset;
            uint8_t size;
        } pointer;
        struct __attribute__((packed)) {
            char file[FW_CFG_FILE_NAME_MAX];
            uint32_t offset, start, length;
        } checksum;
        uint8_t padding[124];
    };
};
_Static_assert(sizeof(struct loader_command) == 128, "table loader ABI");

struct script {
    struct loader_command commands[2 + 2 * ACPI_FIXUPS_MAX];
    unsigned count;
};

/* The builder's one block is two files here: what lies before ACPI_TABLES_START is the RSDP's. */
static const char *file_of(uint32_t *offset)
{
    if (*offset < ACPI_TABLES_START)
        return RSDP_FILE;
    *offset -= ACPI_TABLES_START;
    return TABLES_FILE;
}

static void add_allocate(struct script *script, const char *file, uint32_t align, uint8_t zone)
{
    struct loader_command *command = &script->commands[script->count++];

    command->command = LOADER_ALLOCATE;
    strcpy(command->allocate.file, file);
    command->allocate.align = align;
    command->allocate.zone = zone;
}

/* What the pointer points at is left in the file relative to its own file: the loader adds the address. */
static void add_pointer(struct script *script, struct acpi_builder *builder, const struct acpi_pointer *pointer)
{
    struct loader_command *command = &script->commands[script->count++];
    uint32_t offset = pointer->offset, target = pointer->target;
    uint64_t relative;

    command->command = LOADER_ADD_POINTER;
    strcpy(command->pointer.source, file_of(&target));
    strcpy(command->pointer.destination, file_of(&offset));
    command->pointer.offset = offset;
    command->pointer.size = pointer->size;
    relative = target;
    memcpy(builder->data + pointer->offset, &relative, pointer->size);
}

static void add_checksum(struct script *script, struct acpi_builder *builder, const struct acpi_checksum *checksum)
{
    struct loader_command *command = &script->commands[script->count++];
    uint32_t offset = checksum->offset, start = checksum->start;

    builder->data[checksum->offset] = 0;
    command->command = LOADER_ADD_CHECKSUM;
    strcpy(command->checksum.file, file_of(&offset));
    file_of(&start);
    command->checksum.offset = offset;
    command->checksum.start = start;
    command->checksum.length = checksum->length;
}

static int add_acpi(struct fw_cfg *fw_cfg, struct acpi_builder *builder, struct error *err)
{
    struct script *script = calloc(1, sizeof(*script));
    int result;

    if (!script)
        return error_set(err, ENOMEM, "no memory for the ACPI tables");
    add_allocate(script, RSDP_FILE, 16, ZONE_BIOS);
    add_allocate(script, TABLES_FILE, 64, ZONE_HIGH);
    for (unsigned i = 0; i < builder->pointer_count; i++)
        add_pointer(script, builder, &builder->pointers[i]);
    for (unsigned i = 0; i < builder->checksum_count; i++)
        add_checksum(script, builder, &builder->checksums[i]);
    result = fw_cfg_add_file(fw_cfg, RSDP_FILE, builder->data, ACPI_RSDP_SIZE, err);
    result = result
                 ?: fw_cfg_add_file(fw_cfg, TABLES_FILE, builder->data + ACPI_TABLES_START,
                                    builder->size - ACPI_TABLES_START, err);
    result = result
                 ?: fw_cfg_add_file(fw_cfg, "etc/table-loader", script->commands,
                                    script->count * sizeof(script->commands[0]), err);
    free(script);
    return result;
}

static int add_smbios(struct fw_cfg *fw_cfg, const struct firmware_tables_config *config, struct error *err)
{
    uint8_t *data = malloc(SMBIOS_CAPACITY);
    size_t size = data ? smbios_build(data, SMBIOS_CAPACITY, 0, config) : 0;
    int result;

    if (!size) {
        free(data);
        return error_set(err, ENOMEM, "no memory for the SMBIOS tables");
    }
    /* The firmware fills in the entry point's address and checksums. */
    result = fw_cfg_add_file(fw_cfg, "etc/smbios/smbios-anchor", data, SMBIOS_ENTRY_SIZE, err);
    result = result
                 ?: fw_cfg_add_file(fw_cfg, "etc/smbios/smbios-tables", data + SMBIOS_STRUCTURES_OFFSET,
                                    size - SMBIOS_STRUCTURES_OFFSET, err);
    free(data);
    return result;
}

int firmware_tables_add_fw_cfg(struct fw_cfg *fw_cfg, const struct firmware_tables_config *config, struct error *err)
{
    struct acpi_builder builder;
    int result = acpi_build(&builder, config, err);

    if (result)
        return result;
    result = add_acpi(fw_cfg, &builder, err);
    acpi_builder_free(&builder);
    return result ? result : add_smbios(fw_cfg, config, err);
}
