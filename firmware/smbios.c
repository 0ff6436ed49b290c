/* SMBIOS 2.8 (DMTF DSP0134): entry point and the structures that operating systems look for:
 * BIOS, system, enclosure, processor, memory array, memory devices, mapped ranges, boot status. */
#include "firmware/acpi_builder.h"
#include "firmware/memory_map.h"

#include <string.h>

enum {
    HANDLE_BIOS = 0,
    HANDLE_SYSTEM = 0x100,
    HANDLE_CHASSIS = 0x300,
    HANDLE_CPU = 0x400,
    HANDLE_ARRAY = 0x1000,
    HANDLE_DEVICE = 0x1100,
    HANDLE_MAPPED = 0x1300,
    HANDLE_BOOT = 0x2000,
    HANDLE_END = 0x7f00
};
#define MEMORY_DEVICE_MAX (16 * GIB) /* per type 17, as DIMMs go */
#define MEMORY_DEVICES    64u
#define CPUS_MAX          64u /* sockets that are described */

struct writer {
    uint8_t *data;
    size_t size, capacity;
    unsigned count, largest;
    bool full;
};

/* One structure: type, formatted area after the 4-byte header, strings ("a\0b\0" with its size), a final zero. */
static void put(struct writer *writer, uint8_t type, uint16_t handle, const void *body, size_t body_size,
                const char *strings, size_t strings_size)
{
    size_t size = 4 + body_size + (strings_size ? strings_size + 1 : 2);
    uint8_t *out = writer->data + writer->size;

    if (writer->full || size > writer->capacity - writer->size) {
        writer->full = true;
        return;
    }
    memset(out, 0, size);
    out[0] = type;
    out[1] = 4 + body_size;
    memcpy(out + 2, &handle, 2);
    memcpy(out + 4, body, body_size);
    if (strings_size)
        memcpy(out + 4 + body_size, strings, strings_size);
    writer->size += size;
    writer->count++;
    writer->largest = MAX(writer->largest, size);
}
#define PUT(writer, type, handle, body, strings)                                                                       \
    put(writer, type, handle, &(body), sizeof(body), strings, sizeof(strings))

/* The strings of one structure, which fields name by number from 1 on; 0: none. */
struct texts {
    char data[6 * (SMBIOS_TEXT_MAX + 1)];
    size_t size;
    uint8_t count;
};

static uint8_t add_text(struct texts *texts, const char *text, const char *fallback)
{
    size_t length;

    text = text ? text : fallback;
    length = text ? strnlen(text, SMBIOS_TEXT_MAX) : 0;
    if (!length)
        return 0;
    memcpy(texts->data + texts->size, text, length);
    texts->data[texts->size + length] = '\0';
    texts->size += length + 1;
    return ++texts->count;
}

static void put_system(struct writer *writer, const struct firmware_tables_config *config)
{
    struct __attribute__((packed)) {
        uint8_t vendor, version;
        uint16_t segment;
        uint8_t date, rom_size;
        uint64_t characteristics;
        uint8_t extension[2], major, minor, ec_major, ec_minor;
    } bios = {
        .segment = 0xe800,
        .characteristics = 1 << 3,  /* "not supported": no BIOS feature is claimed */
        .extension = { 0, 1 << 4 }, /* virtual machine */
        .minor = 1,
        .ec_major = 0xff,
        .ec_minor = 0xff,
    };
    struct __attribute__((packed)) {
        uint8_t manufacturer, product, version, serial, uuid[16], wake_up, sku, family;
    } system = { .wake_up = 6 /* power switch */ };
    struct __attribute__((packed)) {
        uint8_t manufacturer, type, version, serial, asset, boot_state, power, thermal, security;
        uint32_t oem;
        uint8_t height, cords, elements, element_size, sku;
    } chassis = {
        .type = 1,       /* other */
        .boot_state = 3, /* safe */
        .power = 3,
        .thermal = 3,
        .security = 2, /* unknown */
    };

    static const struct smbios_texts no_texts;
    const struct smbios_texts *texts = config->texts ? config->texts : &no_texts;
    struct texts bios_texts = { 0 }, system_texts = { 0 }, chassis_texts = { 0 };

    memcpy(system.uuid, config->uuid, sizeof(system.uuid));
    bios.vendor = add_text(&bios_texts, texts->bios_vendor, "Eidolon");
    bios.version = add_text(&bios_texts, texts->bios_version, EIDOLON_VERSION);
    bios.date = add_text(&bios_texts, texts->bios_date, "01/01/2026");
    put(writer, 0, HANDLE_BIOS, &bios, sizeof(bios), bios_texts.data, bios_texts.size);
    system.manufacturer = add_text(&system_texts, texts->manufacturer, "Eidolon");
    system.product = add_text(&system_texts, texts->product,
                              config->i440fx ? "Standard PC (i440FX + PIIX)" : "Standard PC (Q35 + ICH9)");
    system.version = add_text(&system_texts, texts->version, EIDOLON_VERSION);
    system.serial = add_text(&system_texts, texts->serial, NULL);
    system.sku = add_text(&system_texts, texts->sku, NULL);
    system.family = add_text(&system_texts, texts->family, NULL);
    put(writer, 1, HANDLE_SYSTEM, &system, sizeof(system), system_texts.data, system_texts.size);
    chassis.manufacturer = add_text(&chassis_texts, texts->chassis_manufacturer, "Eidolon");
    chassis.version = add_text(&chassis_texts, texts->chassis_version, EIDOLON_VERSION);
    chassis.serial = add_text(&chassis_texts, texts->chassis_serial, NULL);
    chassis.asset = add_text(&chassis_texts, texts->chassis_asset, NULL);
    chassis.sku = add_text(&chassis_texts, texts->chassis_sku, NULL);
    put(writer, 3, HANDLE_CHASSIS, &chassis, sizeof(chassis), chassis_texts.data, chassis_texts.size);
}

static void put_processors(struct writer *writer, unsigned count)
{
    struct __attribute__((packed)) {
        uint8_t socket, type, family, manufacturer;
        uint64_t id;
        uint8_t version, voltage;
        uint16_t clock, max_speed, current_speed;
        uint8_t status, upgrade;
        uint16_t l1, l2, l3;
        uint8_t serial, asset, part, cores, enabled_cores, threads;
        uint16_t characteristics, family2;
    } cpu = {
        .socket = 1,
        .type = 3,   /* central processor */
        .family = 1, /* other */
        .manufacturer = 2,
        .version = 3,
        .max_speed = 2000,
        .current_speed = 2000,
        .status = 0x41, /* populated, enabled */
        .upgrade = 1,
        .l1 = 0xffff, /* cache handles: none */
        .l2 = 0xffff,
        .l3 = 0xffff,
        .cores = 1,
        .enabled_cores = 1,
        .threads = 1,
        .characteristics = 1 << 1, /* unknown */
        .family2 = 1,
    };

    for (unsigned i = 0; i < MIN(count, CPUS_MAX); i++) {
        char strings[] = "CPU 00\0Eidolon\0" EIDOLON_VERSION;

        strings[4] = '0' + i / 10;
        strings[5] = '0' + i % 10;
        PUT(writer, 4, HANDLE_CPU + i, cpu, strings);
    }
}

static void put_memory_array(struct writer *writer, uint64_t total, unsigned devices)
{
    struct __attribute__((packed)) {
        uint8_t location, use, correction;
        uint32_t capacity_kib;
        uint16_t error_handle, devices;
        uint64_t extended_capacity;
    } array = {
        .location = 1, /* other */
        .use = 3,      /* system memory */
        .correction = 6,
        .capacity_kib = 0x80000000, /* see the extended capacity */
        .error_handle = 0xfffe,
        .devices = devices,
        .extended_capacity = total,
    };

    if (total / KIB < 0x80000000) {
        array.capacity_kib = total / KIB;
        array.extended_capacity = 0;
    }
    put(writer, 16, HANDLE_ARRAY, &array, sizeof(array), NULL, 0);
}

static void put_memory_device(struct writer *writer, unsigned n, uint64_t size)
{
    struct __attribute__((packed)) {
        uint16_t array, error_handle, total_width, data_width, size_mib;
        uint8_t form, set, locator, bank, type;
        uint16_t detail, speed;
        uint8_t manufacturer, serial, asset, part, attributes;
        uint32_t extended_size_mib;
        uint16_t configured_speed, min_voltage, max_voltage, configured_voltage;
    } device = {
        .array = HANDLE_ARRAY,
        .error_handle = 0xfffe,
        .total_width = 0xffff,
        .data_width = 0xffff,
        .size_mib = MIN(size / MIB, 0x7fff),
        .form = 9, /* DIMM */
        .locator = 1,
        .type = 7,        /* RAM */
        .detail = 1 << 1, /* other */
        .manufacturer = 2,
    };
    char strings[] = "DIMM 00\0Eidolon";

    if (size / MIB >= 0x7fff)
        device.extended_size_mib = size / MIB;
    strings[5] = '0' + n / 10;
    strings[6] = '0' + n % 10;
    PUT(writer, 17, HANDLE_DEVICE + n, device, strings);
}

static void put_mapped(struct writer *writer, unsigned n, gpa_t start, uint64_t size)
{
    struct __attribute__((packed)) {
        uint32_t start_kib, end_kib;
        uint16_t array;
        uint8_t width;
        uint64_t start, end;
    } mapped = {
        .start_kib = start / KIB,
        .end_kib = (start + size) / KIB - 1,
        .array = HANDLE_ARRAY,
        .width = 1,
    };

    if ((start + size) / KIB > 0xffffffff) {
        mapped.start_kib = mapped.end_kib = 0xffffffff;
        mapped.start = start;
        mapped.end = start + size - 1;
    }
    put(writer, 19, HANDLE_MAPPED + n, &mapped, sizeof(mapped), NULL, 0);
}

static void put_memory(struct writer *writer, const struct firmware_tables_config *config)
{
    uint64_t total = config->low_ram + config->high_ram, left = total, each = MEMORY_DEVICE_MAX;
    unsigned devices;

    while ((total + each - 1) / each > MEMORY_DEVICES)
        each *= 2;
    devices = (total + each - 1) / each;
    put_memory_array(writer, total, devices);
    for (unsigned i = 0; i < devices; i++) {
        put_memory_device(writer, i, MIN(left, each));
        left -= MIN(left, each);
    }
    put_mapped(writer, 0, 0, config->low_ram);
    if (config->high_ram)
        put_mapped(writer, 1, MEMORY_HIGH_BASE, config->high_ram);
}

static uint8_t checksum(const uint8_t *data, size_t size)
{
    uint8_t sum = 0;

    while (size--)
        sum += *data++;
    return -sum;
}

/* 5.2.1: the 32-bit entry point. */
static void put_entry(uint8_t *data, const struct writer *writer, gpa_t base)
{
    struct __attribute__((packed)) {
        char anchor[4];
        uint8_t checksum, length, major, minor;
        uint16_t largest;
        uint8_t revision, formatted[5];
        char intermediate[5];
        uint8_t intermediate_checksum;
        uint16_t table_length;
        uint32_t table_address;
        uint16_t count;
        uint8_t bcd_revision;
    } entry = {
        .anchor = "_SM_",
        .length = SMBIOS_ENTRY_SIZE,
        .major = 2,
        .minor = 8,
        .largest = writer->largest,
        .intermediate = "_DMI_",
        .table_length = writer->size,
        .table_address = base + SMBIOS_STRUCTURES_OFFSET,
        .count = writer->count,
        .bcd_revision = 0x28,
    };
    _Static_assert(sizeof(entry) == SMBIOS_ENTRY_SIZE, "SMBIOS entry point");

    entry.intermediate_checksum = checksum((uint8_t *)entry.intermediate, 15);
    entry.checksum = checksum((uint8_t *)&entry, sizeof(entry));
    memcpy(data, &entry, sizeof(entry));
}

size_t smbios_build(uint8_t *data, size_t capacity, gpa_t base, const struct firmware_tables_config *config)
{
    struct writer writer = { .data = data + SMBIOS_STRUCTURES_OFFSET, .capacity = capacity - SMBIOS_STRUCTURES_OFFSET };
    uint8_t boot[16] = { 0 }; /* six reserved bytes, status 0: no errors */

    put_system(&writer, config);
    put_processors(&writer, config->cpu_count);
    put_memory(&writer, config);
    put(&writer, 32, HANDLE_BOOT, boot, 7, NULL, 0);
    put(&writer, 127, HANDLE_END, boot, 0, NULL, 0);
    if (writer.full)
        return 0;
    memset(data, 0, SMBIOS_STRUCTURES_OFFSET);
    put_entry(data, &writer, base);
    return SMBIOS_STRUCTURES_OFFSET + writer.size;
}
