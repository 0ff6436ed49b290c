/* Direct boot of kernels: Linux bzImage (64-bit protocol), PVH ELF, multiboot1. Puts
 * everything into guest memory and says in which state the first CPU starts. Knows no CPU: the
 * frontend copies struct boot_cpu_state. */
#ifndef EIDOLON_FIRMWARE_BOOT_H
#define EIDOLON_FIRMWARE_BOOT_H

#include "base/error.h"
#include "mmu/physmem.h"

/* Texts in the SMBIOS tables; NULL: our own. Longer ones are cut. */
#define SMBIOS_TEXT_MAX 128
struct smbios_texts {
    const char *bios_vendor, *bios_version, *bios_date;
    const char *manufacturer, *product, *version, *serial, *sku, *family;
    const char *chassis_manufacturer, *chassis_version, *chassis_serial, *chassis_asset, *chassis_sku;
};

struct boot_config {
    const char *kernel, *initrd, *append; /* initrd and append may be NULL; copied */
    uint64_t low_ram, high_ram;
    unsigned cpu_count;
    uint8_t uuid[16]; /* for SMBIOS */
    bool i440fx;      /* the board; else q35 */
    const struct smbios_texts *texts; /* kept by the caller; or NULL */
    bool no_unpack;   /* start bzImages at their own entry (guest decompresses) */
};

enum boot_mode { BOOT_MODE_REAL, BOOT_MODE_PROTECTED32, BOOT_MODE_LONG64 };

struct boot_segment {
    uint16_t selector;
    uint64_t base;
    uint32_t limit, attributes;
}; /* attributes: as in struct segment_register */

struct boot_cpu_state {
    enum boot_mode mode;
    uint64_t rip, rsp, rax, rbx, rcx, rdx, rsi, rdi, rbp, rflags;
    uint64_t cr0, cr3, cr4, efer;
    struct boot_segment cs, data /* ds es ss fs gs */, tr;
    uint64_t gdt_base;
    uint32_t gdt_limit;
    uint64_t idt_base;
    uint32_t idt_limit;
};

/* boot_image_load() reads and checks the files; boot_image_place() writes them and the firmware tables to guest memory
 * (again after each reset) and frees what it read: the next placing reads the files anew. */
struct boot_image;
struct boot_image *boot_image_load(const struct boot_config *config, struct error *err);
int boot_image_place(struct boot_image *image, struct physmem *mem, struct boot_cpu_state *state, struct error *err);
void boot_image_destroy(struct boot_image *image);

/* ACPI (AML from iasl + generated tables) and SMBIOS. _place() writes them to the BIOS area and returns the RSDP's
 * address; boot_image_place() does that. _add_fw_cfg() offers them to firmware: etc/acpi/rsdp, etc/acpi/tables,
 * etc/table-loader, etc/smbios/smbios-anchor, etc/smbios/smbios-tables. */
struct firmware_tables_config {
    uint64_t low_ram, high_ram;
    unsigned cpu_count;
    uint8_t uuid[16];
    bool i440fx;      /* the board; else q35 */
    uint16_t pm_base; /* where the ACPI registers are; 0: ACPI_PM_BASE */
    const struct smbios_texts *texts; /* or NULL: our own */
};
int firmware_tables_place(struct physmem *mem, const struct firmware_tables_config *config, gpa_t *rsdp,
                          struct error *err);
struct fw_cfg;
int firmware_tables_add_fw_cfg(struct fw_cfg *fw_cfg, const struct firmware_tables_config *config, struct error *err);

#endif
