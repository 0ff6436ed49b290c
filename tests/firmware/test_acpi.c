/* The ACPI and SMBIOS tables as they lie in guest memory: checksums, and iasl takes every one of them apart without
 * complaint. */
#include "devices/board/machine.h"
#include "tests/firmware/guest.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static struct guest guest;
static gpa_t rsdp;

static void place_board(uint64_t ram, unsigned cpus, bool i440fx, uint16_t pm_base)
{
    struct firmware_tables_config config = { .cpu_count = cpus, .i440fx = i440fx, .pm_base = pm_base };
    struct error err = { 0 };

    guest_create(&guest, ram);
    config.low_ram = guest.low_ram;
    config.high_ram = guest.high_ram;
    cr_assert_eq(firmware_tables_place(guest.mem, &config, &rsdp, &err), 0, "%s", err.text);
}

static void place(uint64_t ram, unsigned cpus)
{
    place_board(ram, cpus, false, 0);
}

static const uint8_t *at(gpa_t address, uint64_t size)
{
    const uint8_t *pointer = physmem_ram_pointer(guest.mem, address, size);

    cr_assert_not_null(pointer, "0x%lx", address);
    return pointer;
}

static uint8_t sum(gpa_t address, uint64_t size)
{
    const uint8_t *bytes = at(address, size);
    uint8_t total = 0;

    while (size--)
        total += *bytes++;
    return total;
}

static uint64_t get(gpa_t address, unsigned size)
{
    uint64_t value = 0;

    memcpy(&value, at(address, size), size);
    return value;
}

static gpa_t find_table(const char *signature)
{
    gpa_t xsdt = get(rsdp + 24, 8);
    uint32_t length = get(xsdt + 4, 4);

    for (uint32_t i = 36; i < length; i += 8) {
        gpa_t table = get(xsdt + i, 8);

        if (!memcmp(at(table, 4), signature, 4))
            return table;
    }
    cr_assert_fail("there is no %s", signature);
    return 0;
}

static void disassemble(gpa_t table)
{
    char directory[] = "/tmp/eidolon-acpi-XXXXXX", path[64], command[256], line[256];
    uint32_t length = get(table + 4, 4);
    FILE *file;
    bool complained = false;

    cr_assert_eq(sum(table, length), 0, "checksum of the table at 0x%lx", table);
    cr_assert_not_null(mkdtemp(directory));
    snprintf(path, sizeof(path), "%s/t.dat", directory);
    file = fopen(path, "wb");
    cr_assert_eq(fwrite(at(table, length), 1, length, file), length);
    fclose(file);
    snprintf(command, sizeof(command), "cd %s && %s -d t.dat 2>&1; grep -n '^//.*rror\\|Unknown' t.dsl", directory,
             EIDOLON_IASL);
    file = popen(command, "r");
    while (fgets(line, sizeof(line), file)) {
        if (strcasestr(line, "error") || strcasestr(line, "warning") || strcasestr(line, "invalid")) {
            fputs(line, stderr);
            complained = true;
        }
    }
    pclose(file);
    cr_assert(!complained, "iasl complains about %.4s", at(table, 4));
    snprintf(command, sizeof(command), "rm -r %s", directory);
    cr_assert_eq(system(command), 0);
}

static void check_all(void)
{
    gpa_t xsdt, fadt;

    cr_assert_eq(memcmp(at(rsdp, 8), "RSD PTR ", 8), 0);
    cr_assert_eq(sum(rsdp, 20), 0);
    cr_assert_eq(sum(rsdp, 36), 0);
    xsdt = get(rsdp + 24, 8);
    disassemble(xsdt);
    disassemble(get(rsdp + 16, 4));
    for (uint32_t i = 36; i < get(xsdt + 4, 4); i += 8)
        disassemble(get(xsdt + i, 8));
    fadt = find_table("FACP");
    disassemble(get(fadt + 140, 8));
    cr_assert_eq(get(fadt + 36, 4) % 64, 0, "FACS alignment");
    cr_assert_eq(memcmp(at(get(fadt + 36, 4), 4), "FACS", 4), 0);
    cr_assert_eq(get(fadt + 40, 4), get(fadt + 140, 8), "both DSDT addresses");
    guest_destroy(&guest);
}

Test(acpi, small)
{
    place(64 * MIB, 1);
    check_all();
}

Test(acpi, many_cpus)
{
    place(64 * MIB, 255);
    cr_assert_eq(get(find_table("APIC") + 4, 4), 44 + 255 * 8 + 12 + 10 + 10 + 6);
    check_all();
}

/* The DSDT's first QWord address space descriptor. */
static gpa_t window(void)
{
    gpa_t dsdt = get(find_table("FACP") + 40, 4), end = dsdt + get(dsdt + 4, 4);

    for (gpa_t gpa = dsdt; gpa < end - 4; gpa++) {
        if (get(gpa, 4) == 0x00002b8a)
            return gpa;
    }
    cr_assert_fail("there is no window");
    return 0;
}

Test(acpi, pci_window_is_above_ram)
{
    place(4 * GIB, 2);
    cr_assert_eq(get(window() + 14, 8), 6 * GIB, "first address");
    cr_assert_eq(get(window() + 22, 8), 64 * GIB - 1, "last address");
    cr_assert_eq(get(window() + 38, 8), 58 * GIB, "length");
    check_all();
}

/* The pc board: registers where firmware has put them, events where the PIIX4 has them, no ECAM. */
Test(acpi, i440fx)
{
    gpa_t fadt, xsdt;

    place_board(3 * GIB, 1, true, 0xb000);
    fadt = find_table("FACP");
    cr_assert_eq(get(fadt + 52, 1), 0xf1, "ACPI enable");
    cr_assert_eq(get(fadt + 53, 1), 0xf0, "ACPI disable");
    cr_assert_eq(get(fadt + 56, 4), 0xb000, "PM1a event block");
    cr_assert_eq(get(fadt + 64, 4), 0xb004, "PM1a control block");
    cr_assert_eq(get(fadt + 76, 4), 0xb008, "timer");
    cr_assert_eq(get(fadt + 80, 4), 0xafe0, "GPE0");
    cr_assert_eq(get(fadt + 92, 1), 4, "its length");
    xsdt = get(rsdp + 24, 8);
    for (uint32_t i = 36; i < get(xsdt + 4, 4); i += 8)
        cr_assert_neq(memcmp(at(get(xsdt + i, 8), 4), "MCFG", 4), 0);
    cr_assert_eq(get(find_table("APIC") + 4, 4), 44 + 8 + 12 + 10 + 10 + 3 * 10 + 6);
    cr_assert_eq(get(window() + 14, 8), 5 * GIB);
    check_all();
}

Test(acpi, registers)
{
    gpa_t fadt;

    place(64 * MIB, 1);
    fadt = find_table("FACP");
    cr_assert_eq(get(fadt + 56, 4), ACPI_PM_BASE);
    cr_assert_eq(get(fadt + 46, 2), ACPI_SCI_IRQ);
    cr_assert_eq(get(fadt + 120, 8), 0xcf9);
    cr_assert_eq(get(find_table("MCFG") + 44, 8), Q35_ECAM_BASE);
    cr_assert_eq(get(find_table("HPET") + 44, 8), HPET_BASE);
    guest_destroy(&guest);
}

Test(smbios, structures)
{
    static const uint8_t expected[] = { 0, 1, 3, 4, 16, 17, 19, 32, 127 };
    gpa_t entry, table, end;
    unsigned count, seen = 0, types[256] = { 0 };

    place(3 * GIB, 2);
    for (entry = 0xf0000; entry < 0x100000 && memcmp(at(entry, 4), "_SM_", 4); entry += 16)
        ;
    cr_assert_lt(entry, 0x100000, "no entry point");
    cr_assert_eq(sum(entry, 31), 0);
    cr_assert_eq(sum(entry + 16, 15), 0);
    table = get(entry + 24, 4);
    end = table + get(entry + 22, 2);
    count = get(entry + 28, 2);
    while (table < end) {
        types[get(table, 1)]++;
        seen++;
        for (table += get(table + 1, 1); get(table, 2); table++)
            cr_assert_lt(table, end);
        table += 2;
    }
    cr_assert_eq(table, end);
    cr_assert_eq(seen, count);
    cr_assert_eq(types[4], 2, "processors");
    for (size_t i = 0; i < ARRAY_SIZE(expected); i++)
        cr_assert_gt(types[expected[i]], 0, "no structure of type %u", expected[i]);
    guest_destroy(&guest);
}
