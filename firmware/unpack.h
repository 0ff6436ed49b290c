/* Unpacks what a kernel file holds in compressed form. */
#ifndef EIDOLON_FIRMWARE_UNPACK_H
#define EIDOLON_FIRMWARE_UNPACK_H

#include "base/error.h"
#include "base/types.h"

/* gzip, xz, zstd, lz4 (the legacy frame that the kernel uses) or an ELF file as it is, by magic number; data after the
 * end is ignored. *out is malloc'ed. -ENOTSUP: none of these; -EINVAL: damaged; -EFBIG: more than `limit` bytes. */
int unpack(const uint8_t *in, size_t in_size, size_t limit, uint8_t **out, size_t *out_size, struct error *err);

#endif
