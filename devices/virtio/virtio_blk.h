/* virtio-blk: a disk (virtio 1.2, section 5.2). */
#ifndef EIDOLON_DEVICES_VIRTIO_VIRTIO_BLK_H
#define EIDOLON_DEVICES_VIRTIO_VIRTIO_BLK_H

#include "devices/core/device.h"

struct board;

/* Makes a virtio-blk-pci for each drive of if=virtio that no device uses. For the frontend, after the -device options. */
int virtio_blk_add_drives(struct board *board, struct error *err);
/* False: not a virtio-blk device, or one without bootindex=. `path`: as firmware names it, for the file "bootorder". */
bool virtio_blk_boot_entry(const struct device *device, int *bootindex, char *path, size_t size);

#endif
