/* perf's map of generated code: /tmp/perf-PID.map, a line for each piece of code, from which `perf report` takes
 * names. */
#ifndef EIDOLON_JIT_JIT_PERF_H
#define EIDOLON_JIT_JIT_PERF_H

#include "base/error.h"
#include "base/types.h"

struct jit_perf;

/* `path` NULL: where perf looks, /tmp/perf-PID.map. An older file of that name is replaced. */
struct jit_perf *jit_perf_open(const char *path, struct error *err);
void jit_perf_close(struct jit_perf *perf); /* may be NULL */
/* Any thread. `name` is one line. Written at once or within a second, as long as more is added; the rest when closed.
 * A full disk is warned of once. */
void jit_perf_add(struct jit_perf *perf, const void *host_code, size_t size, const char *name);

/* The map has no time in it: of several names of an address, perf takes any. So when the code cache is emptied, what
 * was in it is taken out of the file (samples from before lose their names then: jitdump keeps them), but for what
 * was there when jit_perf_keep was called last: code that is never recycled. */
void jit_perf_keep(struct jit_perf *perf);
void jit_perf_forget(struct jit_perf *perf);
/* The same for code that begins in [code, code + size) only. */
void jit_perf_forget_code(struct jit_perf *perf, const void *code, size_t size);

#endif
