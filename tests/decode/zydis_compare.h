/* One encoding, decoded by us and by Zydis; the first thing that differs. */
#ifndef EIDOLON_TESTS_DECODE_ZYDIS_COMPARE_H
#define EIDOLON_TESTS_DECODE_ZYDIS_COMPARE_H

#include <Zydis/Zydis.h>

#include "cpu/decode/insn.h"

enum difference {
    SAME,
    ONLY_WE, /* valid for us alone */
    ONLY_THEY,
    LENGTH,
    MNEMONIC,
    OPERANDS, /* number, kinds, registers, address, immediate */
    SIZE,     /* of the memory operand */
    ACCESS,   /* read, written */
    IMPLICIT, /* registers that the text does not name */
    FLAGS_READ,
    FLAGS_WRITTEN,
    FLAGS_UNDEFINED,
    LOCKABLE,
    DIFFERENCE_COUNT
};
extern const char *const difference_names[DIFFERENCE_COUNT];

struct comparison {
    enum difference difference;
    struct insn insn;
    enum decode_status status;
    ZydisDecodedInstruction zydis;
    ZydisDecodedOperand zydis_operands[ZYDIS_MAX_OPERAND_COUNT];
    char detail[128];
};

void zydis_open(ZydisDecoder decoders[3]); /* by enum code_size */
void zydis_compare(const ZydisDecoder *decoder, const uint8_t *bytes, size_t size, enum code_size code_size,
                   struct comparison *comparison);

#endif
