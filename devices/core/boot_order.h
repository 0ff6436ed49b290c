/* What firmware is to boot from: the devices with bootindex=N, lowest first, as OpenFirmware paths (fw_cfg "bootorder"). */
#ifndef EIDOLON_DEVICES_CORE_BOOT_ORDER_H
#define EIDOLON_DEVICES_CORE_BOOT_ORDER_H

#include "devices/core/device.h"

/* The property bootindex=N; -1 if it is not there. */
int boot_order_option(struct option_list *options, int64_t *index, struct error *err);
/* -EEXIST: another device has that index. index < 0: nothing is added. Before the machine runs. */
int boot_order_add(struct device_env *env, int64_t index, const char *path, struct error *err);
/* The paths in order, each with a newline after it but the last, and a NUL (counted in *size); *text is malloc'ed, NULL if
 * there are none. `halt`: "HALT" comes last: nothing else is tried. */
int boot_order_text(const struct device_env *env, bool halt, char **text, size_t *size, struct error *err);
void boot_order_free(struct device_env *env);

#endif
