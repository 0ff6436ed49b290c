/* ROM files, expansion ROMs of PCI functions, and the boot order. */
#include "devices/core/boot_order.h"
#include "devices/core/rom_file.h"
#include "devices/pci/pci_internal.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static struct device_env env;
static char file[] = "/tmp/eidolon-rom-XXXXXX";

static unsigned map_pirq(void *opaque, uint8_t devfn, unsigned pin)
{
    (void)opaque;
    return devfn + pin;
}

static const struct pci_bus_ops bus_ops = { .pirq_map = map_pirq };

static void write_file(const void *data, size_t size)
{
    FILE *out = fopen(file, "wb");

    cr_assert_eq(fwrite(data, 1, size, out), size);
    fclose(out);
}

static void setup(void)
{
    struct error err;

    close(mkstemp(file));
    env = (struct device_env){ .mem = physmem_create(MIB, NULL, &err), .ports = port_space_create(NULL) };
    env.pci_bus = pci_bus_create(&env, &bus_ops, NULL);
    cr_assert_eq(pci_bus_set_name(env.pci_bus, "pci.0", &err), 0);
}

static void teardown(void)
{
    boot_order_free(&env);
    pci_bus_destroy(env.pci_bus);
    port_space_destroy(env.ports);
    physmem_destroy(env.mem);
    unlink(file);
}

TestSuite(rom, .init = setup, .fini = teardown);

/* ---- Files ---- */

Test(rom, files)
{
    struct error err = { "" };
    uint64_t size;
    uint8_t *data;

    write_file("abc", 3);
    cr_assert_eq(rom_file_read(file, 3, &data, &size, &err), 0, "%s", err.text);
    cr_assert_eq(size, 3);
    cr_assert_eq(memcmp(data, "abc", 3), 0);
    free(data);
    cr_assert_eq(rom_file_read(file, 2, &data, &size, &err), -EFBIG);
    cr_assert_eq(rom_file_read("/tmp", 2, &data, &size, &err), -EINVAL);
    cr_assert_eq(rom_file_read("vgabios-of-nobody.bin", 2, &data, &size, &err), -ENOENT);
    cr_assert_not_null(strstr(err.text, "seabios"), "%s", err.text);
    cr_assert_eq(rom_file_read("no/such/file", 2, &data, &size, &err), -ENOENT);
    cr_assert_null(strstr(err.text, "package"), "%s", err.text);
}

/* ---- Expansion ROMs ---- */

static const struct device_type card_type = { .name = "card", .size = sizeof(struct pci_device) };

static struct pci_device *card(const char *text, const char *rom, struct error *err)
{
    const struct pci_identity identity = { .vendor = 0x1234, .device = 0x5678, .class_code = 0x020000, .rom = rom };
    struct pci_device *pci = device_allocate(&env, &card_type, NULL, err);
    struct option_list options;
    int result;

    cr_assert_eq(options_parse(&options, text, NULL, err), 0);
    result = pci_device_attach_option(pci, &options, &identity, err);
    options_free(&options);
    if (!result)
        return pci;
    free(pci);
    return NULL;
}

static void discard(struct pci_device *pci)
{
    pci_device_detach(pci);
    device_destroy(&pci->device);
}

/* One image for a PC and one for EFI, of another card. */
static void make_rom(uint8_t rom[1536])
{
    memset(rom, 0, 1536);
    for (unsigned start = 0; start < 1536; start += 1024) {
        uint8_t *pcir = rom + start + 0x40;

        rom[start] = 0x55;
        rom[start + 1] = 0xaa;
        rom[start + 2] = start ? 1 : 2;
        rom[start + 0x18] = 0x40;
        memcpy(pcir, "PCIR\x86\x80\xd3\x10", 8);
        pcir[0x10] = start ? 1 : 2;
        pcir[0x14] = start ? 3 : 0;
        pcir[0x15] = start ? 0x80 : 0;
    }
    for (unsigned i = 0; i < 1023; i++)
        rom[1023] -= rom[i];
}

Test(rom, bar)
{
    struct error err = { "" };
    struct pci_device *pci;
    uint8_t rom[1536];
    char text[64];

    make_rom(rom);
    write_file(rom, sizeof(rom));
    snprintf(text, sizeof(text), "romfile=%s", file);
    pci = card(text, NULL, &err);
    cr_assert_not_null(pci, "%s", err.text);
    pci_device_config_write(pci, PCI_ROM_ADDRESS, 4, 0xffffffff);
    cr_assert_eq(pci_device_config_read(pci, PCI_ROM_ADDRESS, 4), 0xfffff801, "2 KiB");
    pci_device_config_write(pci, PCI_ROM_ADDRESS, 4, 0xe0000001);
    pci_device_config_write(pci, PCI_COMMAND, 2, PCI_COMMAND_MEMORY);
    cr_assert_eq(physmem_mmio_read(env.mem, 0xe0000000, 2), 0xaa55);
    cr_assert_eq(physmem_mmio_read(env.mem, 0xe0000044, 4), 0x10d38086, "a file of the user's is as it is");
    pci_device_config_write(pci, PCI_ROM_ADDRESS, 4, 0xe0000000);
    cr_assert_eq(physmem_mmio_read(env.mem, 0xe0000000, 2), 0xffff);
    discard(pci);
}

Test(rom, own_rom_gets_the_cards_numbers)
{
    struct error err = { "" };
    struct pci_device *pci;
    uint8_t rom[1536], sum = 0;

    make_rom(rom);
    write_file(rom, sizeof(rom));
    pci = card("addr=3", file, &err);
    cr_assert_not_null(pci, "%s", err.text);
    cr_assert_eq(pci_get_long(pci->rom + 0x44), 0x56781234);
    cr_assert_eq(pci_get_long(pci->rom + 1024 + 0x44), 0x56781234);
    for (unsigned i = 0; i < 1024; i++)
        sum += pci->rom[i];
    cr_assert_eq(sum, 0);
    discard(pci);
    pci = card("rombar=0", file, &err);
    cr_assert_null(pci->rom);
    discard(pci);
    pci = card("romfile=", file, &err);
    cr_assert_null(pci->rom);
    discard(pci);
    pci = card("addr=4", "/no/such/file", &err);
    cr_assert_not_null(pci, "a card whose ROM is not installed works without");
    discard(pci);
    cr_assert_null(card("romfile=/no/such/file", NULL, &err));
    cr_assert_null(card("rombar=2", NULL, &err));
}

/* Damaged images: offsets and lengths that lead out of the file, or nowhere. */
Test(rom, damaged_images)
{
    uint64_t state = 1;

    for (unsigned i = 0; i < 500; i++) {
        struct error err = { "" };
        struct pci_device *pci;
        uint8_t rom[1536];
        size_t size;

        make_rom(rom);
        for (unsigned j = 0; j < 4; j++) {
            static const uint16_t places[] = { 0,    1,    0x18, 0x19, 0x50,        0x51,
                                               0x54, 0x55, 1024, 1025, 1024 + 0x18, 1024 + 0x51 };

            state = state * 6364136223846793005ull + 1442695040888963407ull;
            rom[places[(state >> 40) % ARRAY_SIZE(places)]] = (uint8_t)(state >> 50);
        }
        size = 1 + (state >> 33) % sizeof(rom);
        write_file(rom, size);
        pci = card("", file, &err);
        cr_assert_not_null(pci, "%s", err.text);
        discard(pci);
    }
}

/* ---- Boot order ---- */

Test(rom, boot_order)
{
    struct error err = { "" };
    struct pci_device *first = card("addr=3", NULL, &err), *second = card("addr=4.2", NULL, &err);
    struct option_list options;
    int64_t index;
    size_t size;
    char *text;

    cr_assert_eq(boot_order_text(&env, true, &text, &size, &err), 0);
    cr_assert_null(text, "nobody asked for an order");
    cr_assert_eq(pci_boot_order_add(first, 7, "/ethernet-phy@0", &err), 0);
    cr_assert_eq(pci_boot_order_add(second, 0, "/ethernet-phy@0", &err), 0);
    cr_assert_eq(pci_boot_order_add(second, -1, "/other", &err), 0);
    cr_assert_eq(pci_boot_order_add(second, 7, "/other", &err), -EEXIST);
    cr_assert_not_null(strstr(err.text, "7"), "%s", err.text);
    cr_assert_eq(boot_order_text(&env, false, &text, &size, &err), 0);
    cr_assert_str_eq(text, "/pci@i0cf8/ethernet@4,2/ethernet-phy@0\n/pci@i0cf8/ethernet@3/ethernet-phy@0");
    cr_assert_eq(size, strlen(text) + 1);
    free(text);
    cr_assert_eq(boot_order_text(&env, true, &text, &size, &err), 0);
    cr_assert_not_null(strstr(text, "phy@0\nHALT"));
    cr_assert_eq(size, strlen(text) + 1);
    free(text);
    options_parse(&options, "bootindex=3", NULL, &err);
    cr_assert_eq(boot_order_option(&options, &index, &err), 0);
    cr_assert_eq(index, 3);
    options_free(&options);
    options_parse(&options, "bootindex=x", NULL, &err);
    cr_assert_neq(boot_order_option(&options, &index, &err), 0);
    options_free(&options);
    discard(first);
    discard(second);
}
