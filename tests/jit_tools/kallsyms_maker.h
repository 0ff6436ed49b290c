/* A piece of kernel memory with the tables of a kernel's own symbols, in each of their layouts. */
#ifndef EIDOLON_TESTS_JIT_TOOLS_KALLSYMS_MAKER_H
#define EIDOLON_TESTS_JIT_TOOLS_KALLSYMS_MAKER_H

#include "base/types.h"

#define KALLSYMS_BASE       0xffffffff8e200000ull
#define KALLSYMS_COUNT      1000
#define KALLSYMS_IMAGE_SIZE 0x20000

enum kallsyms_layout { KALLSYMS_OLD, KALLSYMS_OLD_SEQS, KALLSYMS_NEW, KALLSYMS_NEW_RELATIVE };

struct kallsyms_image {
    uint8_t bytes[KALLSYMS_IMAGE_SIZE];
    size_t used;   /* where the tables end */
    size_t tokens; /* where the table of tokens begins */
};

/* The tables begin at 0x2000. The caller frees it. */
struct kallsyms_image *kallsyms_make(enum kallsyms_layout layout);
/* Symbol 0 is _text, 1 entry_SYSCALL_64; then functions func_N 16 bytes apart, every tenth an object, 77 with a name
 * of 150 characters. 2 to 6 are per-CPU offsets in layouts that have such. */
gva_t kallsyms_address(unsigned number);

#endif
