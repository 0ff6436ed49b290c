/* ELF kernels through libelf: their loadable segments and the PVH entry note. */
#ifndef EIDOLON_FIRMWARE_ELF_IMAGE_H
#define EIDOLON_FIRMWARE_ELF_IMAGE_H

#include "base/error.h"
#include "base/types.h"
#include "mmu/physmem.h"

struct elf_segment {
    uint64_t offset, file_size;            /* in the file; checked against its size */
    gpa_t address;                         /* physical */
    uint64_t virtual_address, memory_size; /* at least file_size; address + memory_size does not wrap */
};

#define ELF_SEGMENTS_MAX 64
struct elf_image {
    bool is_64;
    uint16_t machine; /* EM_386, EM_X86_64 ... */
    uint64_t entry;
    struct elf_segment segments[ELF_SEGMENTS_MAX];
    unsigned segment_count; /* at least 1 */
    gpa_t low, high;        /* physical extent */
    bool has_pvh_entry;
    uint64_t pvh_entry;
};

bool elf_image_is_elf(const uint8_t *data, size_t size);
/* Reads the headers of an executable; `data` is only looked at. 0, or -EINVAL with the reason. */
int elf_image_parse(struct elf_image *elf, const uint8_t *data, size_t size, struct error *err);
/* The same of the beginning of a file whose segments lie behind it; notes are not looked for. */
int elf_image_parse_head(struct elf_image *elf, const uint8_t *data, size_t size, struct error *err);
/* Copies the segments, zeroes the rest of each. False if guest memory is not there. */
bool elf_image_place(const struct elf_image *elf, const uint8_t *data, struct physmem *mem);
/* The two halves of that, for a file that comes in pieces: first the zeros, then each piece, which has the file's bytes
 * from `position` on. */
bool elf_image_place_zeros(const struct elf_image *elf, struct physmem *mem);
bool elf_image_place_piece(const struct elf_image *elf, uint64_t position, const uint8_t *data, size_t size,
                           struct physmem *mem);
uint64_t elf_image_file_end(const struct elf_image *elf); /* of the last segment */
/* The entry as a physical address: some kernels give a virtual one. */
uint64_t elf_image_physical_entry(const struct elf_image *elf);

#endif
