/* Synthetic kernel images. All are malloc'ed. */
#ifndef EIDOLON_TESTS_FIRMWARE_IMAGES_H
#define EIDOLON_TESTS_FIRMWARE_IMAGES_H

#include "base/types.h"

struct image {
    uint8_t *data;
    size_t size;
};

#define TEST_KERNEL_ADDRESS 0x1000000ull
#define TEST_KERNEL_BYTES   0x3000u /* of pattern: byte i is (i * 7) & 0xff */
#define TEST_KERNEL_BSS     0x2000u

enum packing { PACK_NONE, PACK_GZIP, PACK_XZ, PACK_ZSTD, PACK_LZ4, PACK_UNKNOWN, PACK_COUNT };

/* ELF64 with one segment of the pattern at TEST_KERNEL_ADDRESS; with a PVH note if asked. */
struct image image_elf64(bool pvh_note);
struct image image_elf32_multiboot(void);
struct image image_raw_multiboot(uint32_t load_address);
struct image image_pack(const struct image *in, enum packing packing);
struct image image_bzimage(enum packing packing);
void image_free(struct image *image);
uint8_t pattern(unsigned i);

#endif
