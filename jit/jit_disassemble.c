/* Disassembly through capstone, with our own decoder beside it.
 *
 * Our decoder says how long an instruction is, because it is what the translator goes by, and it is tested against
 * Zydis; capstone gives the text. Where capstone does not know the instruction (4.0 has few AVX-512 forms) or sees
 * another length, the text is our decoder's. So a listing never gets out of step with what is executed.
 *
 * Threads: a disassembler is used by one thread at a time. Guest vector state is parked: capstone uses libc. */
#include "jit/jit_disassemble.h"

#include <capstone/capstone.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "cpu/decode/insn.h"

#define TEXT_SIZE    256
#define BYTES_COLUMN 31 /* ten bytes and a space; longer instructions push their text to the right */

struct jit_disassembler {
    struct {
        csh handle; /* 0: not opened, or could not be */
        cs_insn *insn;
        bool tried;
    } sizes[3]; /* by enum code_size */
};

static const cs_mode capstone_modes[] = { [CODE16] = CS_MODE_16, [CODE32] = CS_MODE_32, [CODE64] = CS_MODE_64 };

struct jit_disassembler *jit_disassembler_create(void)
{
    return calloc(1, sizeof(struct jit_disassembler));
}

void jit_disassembler_destroy(struct jit_disassembler *disassembler)
{
    if (!disassembler)
        return;
    for (size_t i = 0; i < ARRAY_SIZE(disassembler->sizes); i++) {
        if (disassembler->sizes[i].insn)
            cs_free(disassembler->sizes[i].insn, 1);
        if (disassembler->sizes[i].handle)
            cs_close(&disassembler->sizes[i].handle);
    }
    free(disassembler);
}

/* Capstone's length of the first instruction, its text in the handle's insn; 0: it does not know it. */
static size_t ask_capstone(struct jit_disassembler *disassembler, const uint8_t *bytes, size_t size, uint64_t address,
                           enum code_size code_size)
{
    size_t left = MIN(size, (size_t)INSN_MAX_LENGTH);

    if (!disassembler->sizes[code_size].tried) {
        disassembler->sizes[code_size].tried = true;
        if (cs_open(CS_ARCH_X86, capstone_modes[code_size], &disassembler->sizes[code_size].handle) != CS_ERR_OK)
            disassembler->sizes[code_size].handle = 0; /* without capstone there is still our decoder's text */
        else
            disassembler->sizes[code_size].insn = cs_malloc(disassembler->sizes[code_size].handle);
    }
    if (!disassembler->sizes[code_size].insn || !cs_disasm_iter(disassembler->sizes[code_size].handle, &bytes, &left,
                                                                &address, disassembler->sizes[code_size].insn))
        return 0;
    return disassembler->sizes[code_size].insn->size;
}

/* Capstone 4.0 takes RDPID for RDSEED, and EXTRQ and INSERTQ for VMREAD and VMWRITE (see
 * tests/decode/test_capstone.c). */
static bool misread_by_capstone(const struct insn *insn)
{
    return insn->row->feature == FEATURE_RDPID || insn->row->feature == FEATURE_SSE4A;
}

/* The text of the first instruction; returns its length, at least 1. */
static size_t text_of_one(struct jit_disassembler *disassembler, const uint8_t *bytes, size_t size, uint64_t address,
                          enum code_size code_size, char *text)
{
    struct insn insn;
    bool known = insn_decode(bytes, size, code_size, &insn) == DECODE_OK;
    size_t length = ask_capstone(disassembler, bytes, size, address, code_size);
    const cs_insn *theirs = disassembler->sizes[code_size].insn;

    if (length && (!known || (length == insn.length && !misread_by_capstone(&insn)))) {
        snprintf(text, TEXT_SIZE, "%s%s%s", theirs->mnemonic, theirs->op_str[0] ? " " : "", theirs->op_str);
        return length;
    }
    if (known) {
        insn_format(&insn, text, TEXT_SIZE);
        return insn.length;
    }
    snprintf(text, TEXT_SIZE, ".byte 0x%02x", bytes[0]);
    return 1;
}

void jit_disassemble_lines(struct jit_disassembler *disassembler, const uint8_t *bytes, size_t size, uint64_t address,
                           unsigned bits, jit_disassemble_line_fn *line, void *opaque)
{
    enum code_size code_size = bits == 64 ? CODE64 : bits == 32 ? CODE32 : CODE16;

    for (size_t at = 0; at < size;) {
        char text[TEXT_SIZE], hex[3 * INSN_MAX_LENGTH + 1], whole[TEXT_SIZE + sizeof(hex) + 32];
        size_t length = text_of_one(disassembler, bytes + at, size - at, address + at, code_size, text);

        for (size_t i = 0; i < length; i++)
            snprintf(hex + 3 * i, 4, "%02x ", bytes[at + i]);
        snprintf(whole, sizeof(whole), "0x%0*" PRIx64 ":  %-*s%s", bits == 64 ? 16 : 8, address + at, BYTES_COLUMN, hex,
                 text);
        line(opaque, whole);
        at += length;
    }
}

static void print_line(void *opaque, const char *line)
{
    log_vprint(*(const enum log_category *)opaque, "%s\n", line);
}

void jit_disassemble(struct jit_disassembler *disassembler, enum log_category category, const char *heading,
                     const uint8_t *bytes, size_t size, uint64_t address, unsigned bits)
{
    if (heading)
        log_vprint(category, "%s\n", heading);
    jit_disassemble_lines(disassembler, bytes, size, address, bits, print_line, &category);
}
