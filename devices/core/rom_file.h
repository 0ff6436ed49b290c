/* Firmware and option ROM files: where they lie and their bytes. */
#ifndef EIDOLON_DEVICES_CORE_ROM_FILE_H
#define EIDOLON_DEVICES_CORE_ROM_FILE_H

#include "base/error.h"
#include "base/types.h"

/* Reads the file `name`: as it is if it has a '/' or exists here, else from the first folder that has it: beside the program,
 * and where distributions put such files (SeaBIOS, iPXE, OVMF, QEMU's own). *data is malloc'ed. The error names the file and,
 * for one that is nowhere, the package that has it, if known. -ENOENT, -EFBIG if larger than `max`, or another -errno. */
int rom_file_read(const char *name, uint64_t max, uint8_t **data, uint64_t *size, struct error *err);
/* Is there such a file? */
bool rom_file_exists(const char *name);

#endif
