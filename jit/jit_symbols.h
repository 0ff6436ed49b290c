/* Names of guest code, for profiles and logs: the symbol tables that the user gives (an ELF kernel, System.map, a copy
 * of the guest's /proc/kallsyms), or the one that a Linux guest holds in its memory. */
#ifndef EIDOLON_JIT_JIT_SYMBOLS_H
#define EIDOLON_JIT_JIT_SYMBOLS_H

#include "base/error.h"
#include "base/types.h"

struct jit_symbols;

struct jit_symbols *jit_symbols_create(void); /* empty; NULL: no memory */
void jit_symbols_destroy(struct jit_symbols *symbols);

/* ---- Loading: before the vCPUs run ---- */

/* Adds the functions of a file: ELF executable, or text as System.map, nm and /proc/kallsyms have it. 0, or -errno
 * with the reason; a file without a single function is -ENODATA. The file is not trusted. */
int jit_symbols_load_file(struct jit_symbols *symbols, const char *path, struct error *err);
/* The same for what -kernel was given: if it is not an ELF file with symbols, nothing happens (the loader says what is
 * wrong with a kernel). */
void jit_symbols_load_kernel(struct jit_symbols *symbols, const char *path);

/* ---- Looking up: any thread ---- */

size_t jit_symbols_count(const struct jit_symbols *symbols);

/* The symbol that `address` lies in, and the distance from its start; NULL if there is none. The text lives as long as
 * `symbols`. */
const char *jit_symbols_find(const struct jit_symbols *symbols, gva_t address, uint64_t *offset);

/* A kernel with KASLR does not run where it was linked. Tells the guest's MSR LSTAR, which in Linux is the address of
 * entry_SYSCALL_64: look-ups use the difference from then on. 0: the kernel has not set it yet, nothing is moved.
 * Other kernels' values are ignored. Cheap if nothing has changed. */
void jit_symbols_relocate(struct jit_symbols *symbols, gva_t lstar);

/* What profiles call a block: "guest:SYMBOL+0x12"; without a symbol "guest:user:0x401000" or "guest:gpa:0x1000".
 * Returns buffer. Symbols are the kernel's: user code is never looked up. */
const char *jit_symbols_block_name(const struct jit_symbols *symbols, gva_t gva, gpa_t gpa, bool user, char *buffer,
                                   size_t size);

/* ---- For the readers of symbol tables (jit_symbols_file.c, jit_kallsyms.c) ---- */

enum jit_symbol_rank { /* which of several names of one address is kept: the smallest */
                       JIT_SYMBOL_GLOBAL,
                       JIT_SYMBOL_LOCAL,
                       JIT_SYMBOL_LABEL, /* global or local, but not said to be a function */
                       JIT_SYMBOL_END,   /* not code: only ends what comes before it */
};

struct jit_symbol_source {
    gva_t address;
    uint64_t size; /* if `open`: at most this, or up to the next symbol */
    bool open;
    bool module; /* moves by itself: useless once the kernel has moved */
    enum jit_symbol_rank rank;
    const char *name; /* not terminated; any bytes */
    size_t name_length;
};
int jit_symbols_add(struct jit_symbols *symbols, const struct jit_symbol_source *source); /* 0, -ENOMEM, -E2BIG */
void jit_symbols_finish(struct jit_symbols *symbols); /* after the last add, before the first look-up */

/* nm's letter of a symbol in text tables: what it is (nm(1)). */
enum jit_symbol_rank jit_symbol_rank_of_letter(char letter);
#define JIT_SYMBOL_OPEN_SIZE (1 * MIB) /* no function without a known end is longer */

#endif
