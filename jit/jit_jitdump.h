/* perf's jitdump: jit-PID.dump, with each piece of generated code, its name and when it came to be, for
 * `perf record -k mono`, `perf inject --jit` and then `perf report` and `perf annotate`. */
#ifndef EIDOLON_JIT_JIT_JITDUMP_H
#define EIDOLON_JIT_JIT_JITDUMP_H

#include "base/error.h"
#include "base/types.h"

struct jit_jitdump;

/* Creates jit-PID.dump in `folder` (NULL: the current one), replacing an older one. */
struct jit_jitdump *jit_jitdump_open(const char *folder, struct error *err);
void jit_jitdump_close(struct jit_jitdump *dump); /* may be NULL */
/* Any thread. The code is copied: `host_code` has to be readable, and to hold what will run. It may be where other
 * code was before: the time tells them apart. A full disk is warned of once; nothing is added any more. */
void jit_jitdump_add(struct jit_jitdump *dump, const void *host_code, size_t size, const char *name);

#endif
