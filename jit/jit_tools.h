/* What tells people about translated code: -d in_asm and out_asm, -perfmap, -jitdump, with the guest's own names. One
 * for a machine; every function that is called while it runs is for any vCPU's thread, with guest vector state
 * parked. */
#ifndef EIDOLON_JIT_JIT_TOOLS_H
#define EIDOLON_JIT_JIT_TOOLS_H

#include "base/error.h"
#include "base/types.h"
#include "cpu/cpu.h"

struct jit_tools;

struct jit_tools_config { /* from the command line */
    const char *kernel;   /* -kernel FILE: its symbols are taken, if it has any. NULL: none */
    const char *symbols;  /* -symbols FILE. NULL: none */
    bool perf_map;        /* /tmp/perf-PID.map */
    bool jitdump;         /* ./jit-PID.dump */
    const char *folder;   /* of the two; NULL: those above */
};

/* The symbols of `kernel` are only loaded if something wants names: perf_map, jitdump, or -d in_asm, out_asm, exec.
 * NULL: err says why. */
struct jit_tools *jit_tools_create(const struct jit_tools_config *config, struct error *err);
void jit_tools_destroy(struct jit_tools *tools); /* writes what is left; may be NULL */

/* Whether new blocks are to be told: if not, jit_tools_add_block has nothing to do. */
bool jit_tools_wanted(const struct jit_tools *tools);

struct jit_tools_code {
    const void *address; /* where it runs; readable */
    size_t size;         /* 0: none */
};
struct jit_tools_block {
    gva_t gva; /* of the first instruction, by which it was reached first */
    gpa_t gpa;
    bool user;
    unsigned bits;        /* 16, 32, 64 */
    const uint8_t *guest; /* the guest's bytes */
    size_t guest_size;
    struct jit_tools_code hot, cold;
};
/* A block was translated, and its code is in place. */
void jit_tools_add_block(struct jit_tools *tools, struct cpu *cpu, const struct jit_tools_block *block);
/* The code cache was emptied: what blocks were told of is gone, and its memory will be used again. */
void jit_tools_forget_blocks(struct jit_tools *tools);
void jit_tools_forget_code(struct jit_tools *tools, const struct jit_tools_code *code); /* a part of it */
/* Code that belongs to no block and stays: "eidolon:NAME". Before the first block. */
void jit_tools_add_code(struct jit_tools *tools, const struct jit_tools_code *code, const char *name);

/* "guest:SYMBOL+0x12", "guest:user:0x401000", "guest:gpa:0x1000": for -d exec and reports. Returns buffer. */
const char *jit_tools_block_name(struct jit_tools *tools, struct cpu *cpu, gva_t gva, gpa_t gpa, bool user,
                                 char *buffer, size_t size);
#define JIT_TOOLS_NAME_SIZE 300

#endif
