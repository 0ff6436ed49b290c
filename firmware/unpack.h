/* Unpacks what a kernel file holds in compressed form. */
#ifndef EIDOLON_FIRMWARE_UNPACK_H
#define EIDOLON_FIRMWARE_UNPACK_H

#include "base/error.h"
#include "base/types.h"

/* Takes the next piece of what comes out; it is gone afterwards. Not 0: an error, which unpack() returns. */
typedef int (*unpack_sink_fn)(void *opaque, const uint8_t *data, size_t size, struct error *err);

/* gzip, xz, zstd, lz4 (the legacy frame that the kernel uses) or an ELF file as it is, by magic number; data after the
 * end is ignored. -ENOTSUP: none of these; -EINVAL: damaged; -EFBIG: more than `limit` bytes. */
int unpack(const uint8_t *in, size_t in_size, uint64_t limit, unpack_sink_fn sink, void *opaque, struct error *err);
/* The first megabyte of that, or all if it is less, in one piece. */
int unpack_head(const uint8_t *in, size_t in_size, unpack_sink_fn sink, void *opaque, struct error *err);

#endif
