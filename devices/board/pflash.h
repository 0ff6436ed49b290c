/* Firmware flash memory: cfi.pflash01, Intel's command set (CFI 0x0001), one byte wide, blocks of 4 KiB, over a drive. */
#ifndef EIDOLON_DEVICES_BOARD_PFLASH_H
#define EIDOLON_DEVICES_BOARD_PFLASH_H

#include "devices/core/device.h"

struct block;
struct pflash;

#define PFLASH_BLOCK    4096u
#define PFLASH_SIZE_MAX (8 * MIB) /* of all together */

/* The drive's contents show so that they end at `end`. Claims the drive; begins with a struct device. */
struct pflash *pflash_create(struct device_env *env, struct block *block, gpa_t end, const char *id, struct error *err);
uint64_t pflash_size(const struct pflash *pflash);
const uint8_t *pflash_bytes(const struct pflash *pflash);

#endif
