/* What the storage devices have in common: finding and claiming their drive, their block sizes and boot order.
 * Device lock held, or before the machine runs. */
#ifndef EIDOLON_DEVICES_STORAGE_STORAGE_DRIVE_H
#define EIDOLON_DEVICES_STORAGE_STORAGE_DRIVE_H

#include "devices/block/block.h"
#include "devices/core/device.h"

/* The drive that drive= names, claimed for this device, its requests done on `loop`. NULL with err set: not given, unknown, in use. */
struct block *storage_claim_option(struct device *device, struct option_list *options, struct event_loop *loop,
                                   struct error *err);
/* logical_block_size= and physical_block_size=: powers of two, 512 to 64 KiB; otherwise those of the drive. */
int storage_block_sizes(struct option_list *options, const struct block *block, uint32_t *logical, uint32_t *physical,
                        struct error *err);
/* bootindex=: -1 if it is not given. */
int storage_bootindex(struct option_list *options, int *bootindex, struct error *err);

#endif
