/* Machine code as text, for -d in_asm and out_asm and for reports of differences and crashes. */
#ifndef EIDOLON_JIT_JIT_DISASSEMBLE_H
#define EIDOLON_JIT_JIT_DISASSEMBLE_H

#include "base/log.h"
#include "base/types.h"

/* Holds capstone's handles, opened when first needed. One thread at a time. */
struct jit_disassembler;

struct jit_disassembler *jit_disassembler_create(void);               /* NULL: no memory */
void jit_disassembler_destroy(struct jit_disassembler *disassembler); /* may be NULL */

/* Prints `heading` (if not NULL) and a line for each instruction: address, bytes, text in Intel's syntax. `bits`: 16,
 * 32, 64. Any bytes will do: what is no instruction is printed as bytes. */
void jit_disassemble(struct jit_disassembler *disassembler, enum log_category category, const char *heading,
                     const uint8_t *bytes, size_t size, uint64_t address, unsigned bits);

/* The same, each line (without line end) handed to `line`. */
typedef void jit_disassemble_line_fn(void *opaque, const char *line);
void jit_disassemble_lines(struct jit_disassembler *disassembler, const uint8_t *bytes, size_t size, uint64_t address,
                           unsigned bits, jit_disassemble_line_fn *line, void *opaque);

#endif
