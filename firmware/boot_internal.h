/* Shared between the boot protocols. */
#ifndef EIDOLON_FIRMWARE_BOOT_INTERNAL_H
#define EIDOLON_FIRMWARE_BOOT_INTERNAL_H

#include "firmware/boot.h"
#include "firmware/elf_image.h"

/* A whole file in memory. It stays open when the data are freed: what is read again after a reset is the file of the
 * first time, whatever its name means by then. */
struct boot_file {
    uint8_t *data;
    size_t size;
    int fd; /* if open */
    bool open;
    bool once; /* a pipe or device: cannot be read a second time, so it is kept */
};

enum boot_kind {
    BOOT_NONE,
    BOOT_LINUX_ELF,     /* bzImage, unpacked: the ELF inside */
    BOOT_LINUX_ENTRY64, /* bzImage, its own 64-bit entry */
    BOOT_LINUX_ENTRY32, /* bzImage of a 32-bit kernel */
    BOOT_PVH,
    BOOT_MULTIBOOT,
};

#define MULTIBOOT_MODULES_MAX 64

struct boot_module {
    struct boot_file file;
    char *command_line; /* "file arguments" */
};

/* The a.out kludge's addresses, or what stands for them. */
struct multiboot_layout {
    uint32_t flags;
    bool raw; /* addresses from the header: not ELF */
    uint64_t file_offset, load, load_size, end, entry;
};

struct boot_image {
    struct boot_config config; /* with strings of its own */
    bool loaded;
    enum boot_kind kind;
    struct boot_file kernel, initrd;
    bool unpacks;         /* bzImage: `elf` is the kernel inside */
    struct elf_image elf; /* of that or of the kernel file */
    struct multiboot_layout multiboot;
    struct boot_module modules[MULTIBOOT_MODULES_MAX];
    unsigned module_count;
};

/* physmem_write for what is large. */
bool boot_write(struct physmem *mem, gpa_t address, const void *data, uint64_t size);

/* Where things go below 640 KiB; all of it is ordinary RAM that the kernel may take over. */
#define BOOT_GDT              0x1000ull
#define BOOT_STACK_TOP        0x8ff0ull
#define BOOT_PML4             0x9000ull  /* PML4, PDPT, 4 page directories: up to 0xf000 */
#define BOOT_PARAMS           0x10000ull /* zero page, or hvm_start_info and its lists */
#define BOOT_COMMAND_LINE     0x20000ull
#define BOOT_COMMAND_LINE_MAX 0x10000ull
#define BOOT_CS               0x10
#define BOOT_DS               0x18

/* boot_file.c */
int boot_file_read(struct boot_file *file, const char *option, const char *path, uint64_t limit, struct error *err);
void boot_file_free(struct boot_file *file); /* the data */
void boot_file_close(struct boot_file *file);

/* boot_cpu.c: GDT, page tables, register state. False if memory could not be written. */
bool boot_place_gdt(struct physmem *mem, gpa_t address, bool long_mode);
bool boot_place_identity_tables(struct physmem *mem);
void boot_state_long64(struct boot_cpu_state *state, uint64_t rip);
void boot_state_protected32(struct boot_cpu_state *state, uint64_t rip);

/* boot.c: is [address, address + size) RAM that a kernel may be loaded to? */
bool boot_is_ram(const struct boot_config *config, uint64_t address, uint64_t size);
int boot_elf_check_ram(const struct boot_image *image, struct error *err);
int boot_place_error(const char *what, uint64_t address, struct error *err);
/* Where an initrd goes: high below `limit`; not below `floor`. 0 and an error if it does not fit. */
gpa_t boot_initrd_address(const struct boot_image *image, uint64_t floor, uint64_t limit, struct error *err);

/* Each protocol: is the file one (load), and place it. load returns 0, 1 (not this kind) or -errno. */
int linux_load(struct boot_image *image, struct error *err);
int linux_place(struct boot_image *image, struct physmem *mem, gpa_t rsdp, struct boot_cpu_state *state,
                struct error *err);
int pvh_load(struct boot_image *image, struct error *err);
int pvh_place(struct boot_image *image, struct physmem *mem, gpa_t rsdp, struct boot_cpu_state *state,
              struct error *err);
int multiboot_load(struct boot_image *image, struct error *err);
int multiboot_place(struct boot_image *image, struct physmem *mem, struct boot_cpu_state *state, struct error *err);

/* initrd_check.c: 0, or -EINVAL and why it is known to be incomplete. Unknown formats pass. */
int initrd_check(const uint8_t *data, size_t size, struct error *err);

#endif
