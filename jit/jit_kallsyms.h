/* The symbol table inside a Linux kernel: what the guest itself prints as /proc/kallsyms, found in its memory. So the
 * kernels of distributions, which come without a symbol table, have names too. */
#ifndef EIDOLON_JIT_JIT_KALLSYMS_H
#define EIDOLON_JIT_JIT_KALLSYMS_H

#include "jit/jit_symbols.h"

/* Looks for the tables in a copy of the kernel's memory and adds the functions. `text` is some address in the kernel's
 * text, at or above its start: what was found is taken only if it fits. Returns how many symbols were read: 0 if
 * there are no such tables (another system, CONFIG_KALLSYMS=n) or they are damaged. The image is not trusted. The
 * caller finishes `symbols`. */
size_t jit_kallsyms_read(struct jit_symbols *symbols, const uint8_t *image, size_t size, gva_t text);

#endif
