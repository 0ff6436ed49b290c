/* fw_cfg through its ports: selection, data, directory, DMA, and requests that make no sense. */
#include "devices/board/fw_cfg.h"
#include "tests/firmware/guest.h"

#include <criterion/criterion.h>
#include <endian.h>
#include <string.h>

static struct guest guest;
static struct device_env env;
static struct fw_cfg *fw_cfg;

static void setup(void)
{
    struct error err;

    guest_create(&guest, 4 * MIB);
    env = (struct device_env){ .mem = guest.mem, .ports = port_space_create(&guest.lock) };
    fw_cfg = fw_cfg_create(&env, &err);
    cr_assert_not_null(fw_cfg);
}

static void teardown(void)
{
    device_destroy((struct device *)fw_cfg);
    port_space_destroy(env.ports);
    guest_destroy(&guest);
}

TestSuite(fw_cfg, .init = setup, .fini = teardown);

static void select_key(uint16_t key)
{
    port_space_write(env.ports, 0x510, 2, key);
}

static void read_bytes(void *out, size_t size)
{
    for (size_t i = 0; i < size; i++)
        ((uint8_t *)out)[i] = port_space_read(env.ports, 0x511, 1);
}

static uint32_t dma(uint32_t control, uint32_t length, uint64_t address)
{
    struct {
        uint32_t control, length;
        uint64_t address;
    } request = { htobe32(control), htobe32(length), htobe64(address) };

    physmem_write(guest.mem, 0x5000, &request, sizeof(request));
    port_space_write(env.ports, 0x514, 4, 0);
    port_space_write(env.ports, 0x518, 4, htobe32(0x5000));
    physmem_read(guest.mem, 0x5000, &request, sizeof(request));
    return be32toh(request.control);
}

Test(fw_cfg, signature_and_end)
{
    char text[6];

    select_key(FW_CFG_SIGNATURE);
    read_bytes(text, 6);
    cr_assert_eq(memcmp(text, "QEMU\0\0", 6), 0);
    cr_assert_eq(be32toh(port_space_read(env.ports, 0x514, 4)), 0x51454d55);
    cr_assert_eq(be32toh(port_space_read(env.ports, 0x518, 4)), 0x20434647);
    select_key(0x7777);
    read_bytes(text, 2);
    cr_assert_eq(text[0], 0);
}

Test(fw_cfg, files)
{
    struct __attribute__((packed)) {
        uint32_t count;
        struct {
            uint32_t size;
            uint16_t select, reserved;
            char name[56];
        } file[2];
    } directory;
    char text[3];

    fw_cfg_add_file(fw_cfg, "etc/one", "one", 3, NULL);
    fw_cfg_add_file(fw_cfg, "etc/two", "wrong", 5, NULL);
    fw_cfg_add_file(fw_cfg, "etc/two", "two", 3, NULL);
    select_key(FW_CFG_FILE_DIR);
    read_bytes(&directory, sizeof(directory));
    cr_assert_eq(be32toh(directory.count), 2);
    cr_assert_str_eq(directory.file[1].name, "etc/two");
    cr_assert_eq(be32toh(directory.file[1].size), 3);
    select_key(be16toh(directory.file[1].select));
    read_bytes(text, 3);
    cr_assert_eq(memcmp(text, "two", 3), 0);
    cr_assert_neq(fw_cfg_add_file(fw_cfg, "a name of more than fifty-five characters, which is too long", "", 0, NULL),
                  0);
}

Test(fw_cfg, dma)
{
    char text[8];

    fw_cfg_add(fw_cfg, 0x77, "abcdef", 6, NULL);
    cr_assert_eq(dma(0x77 << 16 | 8 | 2, 8, 0x6000), 0);
    physmem_read(guest.mem, 0x6000, text, 8);
    cr_assert_eq(memcmp(text, "abcdef\0\0", 8), 0);
    cr_assert_eq(dma(0x77 << 16 | 8 | 4, 2, 0), 0, "select and skip");
    cr_assert_eq(dma(2, 1, 0x6000), 0);
    physmem_read(guest.mem, 0x6000, text, 1);
    cr_assert_eq(text[0], 'c');
}

Test(fw_cfg, bad_requests)
{
    fw_cfg_add(fw_cfg, 0x77, "abcdef", 6, NULL);
    cr_assert_eq(dma(0x77 << 16 | 8 | 16, 2, 0x6000), 1, "nothing is writable");
    cr_assert_eq(dma(0x77 << 16 | 8 | 2, 6, 0xffffffffffffffff), 1);
    cr_assert_eq(dma(0x77 << 16 | 8 | 2, 0xffffffff, 0x6000), 1, "longer than memory");
    cr_assert_eq(dma(0x77 << 16 | 8 | 2, 6, 0x80000000), 1);
    /* A request outside memory changes nothing and does not crash. */
    port_space_write(env.ports, 0x514, 4, 0xffffffff);
    port_space_write(env.ports, 0x518, 4, 0xffffffff);
    for (unsigned size = 1; size <= 4; size *= 2) {
        for (uint16_t port = 0x510; port < 0x51c; port++) {
            port_space_read(env.ports, port, size);
            port_space_write(env.ports, port, size, 0x5a5a5a5a);
        }
    }
}

/* ---- ACPI tables for a firmware ---- */

struct blob {
    char name[56];
    uint64_t address;
    uint8_t data[16384];
    size_t size;
};

static size_t read_file(const char *name, void *out, size_t capacity)
{
    uint32_t count;

    select_key(FW_CFG_FILE_DIR);
    read_bytes(&count, 4);
    for (uint32_t i = 0; i < be32toh(count); i++) {
        struct {
            uint32_t size;
            uint16_t select, reserved;
            char name[56];
        } file;

        select_key(FW_CFG_FILE_DIR);
        for (uint32_t skip = 0; skip < 4 + i * sizeof(file); skip++)
            port_space_read(env.ports, 0x511, 1);
        read_bytes(&file, sizeof(file));
        if (strcmp(file.name, name))
            continue;
        cr_assert_leq(be32toh(file.size), capacity);
        select_key(be16toh(file.select));
        read_bytes(out, be32toh(file.size));
        return be32toh(file.size);
    }
    cr_assert_fail("no file %s", name);
    return 0;
}

static struct blob *find_blob(struct blob *blobs, const char *name)
{
    for (unsigned i = 0; i < 2; i++) {
        if (!strcmp(blobs[i].name, name))
            return &blobs[i];
    }
    cr_assert_fail("%s was not allocated", name);
    return NULL;
}

static uint8_t sum_of(const uint8_t *data, size_t size)
{
    uint8_t sum = 0;

    while (size--)
        sum += *data++;
    return sum;
}

/* Does what SeaBIOS does with etc/table-loader, and finds the tables from the RSDP on. */
Test(fw_cfg, table_loader)
{
    struct firmware_tables_config config = { .low_ram = 4 * MIB, .cpu_count = 3 };
    static struct blob blobs[2];
    static uint8_t script[128 * 130];
    struct error err = { 0 };
    unsigned allocated = 0, tables = 0;
    uint64_t xsdt;
    size_t size;

    cr_assert_eq(firmware_tables_add_fw_cfg(fw_cfg, &config, &err), 0, "%s", err.text);
    size = read_file("etc/table-loader", script, sizeof(script));
    for (uint8_t *command = script; command < script + size; command += 128) {
        const char *name = (char *)command + 4;
        uint32_t kind, numbers[3];
        uint64_t value = 0;

        memcpy(&kind, command, 4);
        memcpy(numbers, command + (kind == 2 ? 116 : 60), 12);
        if (kind == 1) {
            struct blob *blob = &blobs[allocated];

            strcpy(blob->name, name);
            blob->address = allocated++ ? 0x3f0000 : 0xf5000;
            blob->size = read_file(name, blob->data, sizeof(blob->data));
        } else if (kind == 2) {
            struct blob *blob = find_blob(blobs, name), *source = find_blob(blobs, name + 56);
            unsigned bytes = command[120];

            cr_assert_leq(numbers[0] + bytes, blob->size);
            memcpy(&value, blob->data + numbers[0], bytes);
            cr_assert_lt(value, source->size);
            value += source->address;
            memcpy(blob->data + numbers[0], &value, bytes);
        } else {
            struct blob *blob = find_blob(blobs, name);

            cr_assert_eq(kind, 3);
            cr_assert_leq(numbers[1] + numbers[2], blob->size);
            blob->data[numbers[0]] -= sum_of(blob->data + numbers[1], numbers[2]);
        }
    }
    cr_assert_eq(allocated, 2);
    cr_assert_eq(sum_of(blobs[0].data, 36), 0);
    memcpy(&xsdt, blobs[0].data + 24, 8);
    xsdt -= blobs[1].address;
    cr_assert_eq(memcmp(blobs[1].data + xsdt, "XSDT", 4), 0);
    for (uint32_t at = 36; at < blobs[1].data[xsdt + 4]; at += 8) {
        uint64_t table;
        uint32_t length;

        memcpy(&table, blobs[1].data + xsdt + at, 8);
        table -= blobs[1].address;
        memcpy(&length, blobs[1].data + table + 4, 4);
        cr_assert_eq(sum_of(blobs[1].data + table, length), 0, "%.4s", blobs[1].data + table);
        tables++;
    }
    cr_assert_eq(tables, 5);
}
