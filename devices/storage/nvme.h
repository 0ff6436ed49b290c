/* NVMe controllers and namespaces are made by -device; this is what the frontend asks about them. */
#ifndef EIDOLON_DEVICES_STORAGE_NVME_H
#define EIDOLON_DEVICES_STORAGE_NVME_H

#include "devices/core/device.h"

/* False: not an NVMe device with bootindex=. `path`: as firmware names it, for the file "bootorder". */
bool nvme_boot_entry(const struct device *device, int *bootindex, char *path, size_t size);

#endif
