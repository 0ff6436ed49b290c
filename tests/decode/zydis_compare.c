/* Comparison with Zydis (zydis_compare.h). Zydis is asked for what a processor without MPX does,
 * the rest as its defaults have it. */
#include "zydis_compare.h"

#include <stdio.h>
#include <string.h>

const char *const difference_names[DIFFERENCE_COUNT] = {
    "same",   "only we",  "only they",  "length",        "mnemonic",        "operands", "size",
    "access", "implicit", "flags read", "flags written", "flags undefined", "lockable",
};

void zydis_open(ZydisDecoder decoders[3])
{
    ZydisDecoderInit(&decoders[CODE16], ZYDIS_MACHINE_MODE_LONG_COMPAT_16, ZYDIS_STACK_WIDTH_16);
    ZydisDecoderInit(&decoders[CODE32], ZYDIS_MACHINE_MODE_LONG_COMPAT_32, ZYDIS_STACK_WIDTH_32);
    ZydisDecoderInit(&decoders[CODE64], ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
    for (unsigned i = 0; i < 3; i++) {
        ZydisDecoderEnableMode(&decoders[i], ZYDIS_DECODER_MODE_MPX, ZYAN_FALSE);
        ZydisDecoderEnableMode(&decoders[i], ZYDIS_DECODER_MODE_WBNOINVD, ZYAN_TRUE);
    }
}

/* Names that differ only in spelling: ours, then theirs (space-separated). Ours is one row for several operand
 * sizes, theirs has a name for each. */
/* clang-format off */
static const char *const aliases[][2] = {
    { "movsd", "movsw movsd movsq" }, { "cmpsd", "cmpsw cmpsd cmpsq" }, { "stosd", "stosw stosd stosq" },
    { "lodsd", "lodsw lodsd lodsq" }, { "scasd", "scasw scasd scasq" }, { "insd", "insw insd" }, { "outsd", "outsw outsd" },
    { "cbw", "cbw cwde cdqe" }, { "cwd", "cwd cdq cqo" }, { "pusha", "pusha pushad" }, { "popa", "popa popad" },
    { "pushf", "pushf pushfd pushfq" }, { "popf", "popf popfd popfq" }, { "iret", "iret iretd iretq" },
    { "jrcxz", "jcxz jecxz jrcxz" }, { "retf", "ret" }, { "wbnoinvd", "wbinvd" },
    { "rdssp", "rdsspd rdsspq" }, { "incssp", "incsspd incsspq" }, { "wrss", "wrssd wrssq" }, { "wruss", "wrussd wrussq" },
    { "fxsave", "fxsave fxsave64" }, { "fxrstor", "fxrstor fxrstor64" }, { "xsave", "xsave xsave64" },
    { "xrstor", "xrstor xrstor64" }, { "xsaveopt", "xsaveopt xsaveopt64" }, { "xsavec", "xsavec xsavec64" },
    { "xsaves", "xsaves xsaves64" }, { "xrstors", "xrstors xrstors64" },
    { "sysret", "sysret sysretq" }, { "sysexit", "sysexit sysexitq" },
};
/* clang-format on */

static bool word_in(const char *word, const char *list)
{
    size_t length = strlen(word);

    for (const char *p = list; (p = strstr(p, word)); p += length)
        if ((p == list || p[-1] == ' ') && (p[length] == ' ' || p[length] == 0))
            return true;
    return false;
}

static bool mnemonic_matches(const char *ours, const char *theirs)
{
    if (!strcmp(ours, theirs))
        return true;
    for (size_t i = 0; i < ARRAY_SIZE(aliases); i++)
        if (!strcmp(ours, aliases[i][0]) && word_in(theirs, aliases[i][1]))
            return true;
    return false;
}

static unsigned gpr_class(unsigned size)
{
    return size == 1   ? ZYDIS_REGCLASS_GPR8
           : size == 2 ? ZYDIS_REGCLASS_GPR16
           : size == 4 ? ZYDIS_REGCLASS_GPR32
                       : ZYDIS_REGCLASS_GPR64;
}

static ZydisRegister zydis_register(const struct operand *o)
{
    switch (o->kind) {
    case OPERAND_GPR:
        /* Zydis numbers al cl dl bl ah ch dh bh spl bpl ... */
        return ZydisRegisterEncode((ZydisRegisterClass)gpr_class(o->size),
                                   o->size == 1 && o->reg >= 4 ? o->reg + 4 : o->reg);
    case OPERAND_GPR_HIGH:
        return (ZydisRegister)(ZYDIS_REGISTER_AH + o->reg);
    case OPERAND_SEG:
        return (ZydisRegister)(ZYDIS_REGISTER_ES + o->reg);
    case OPERAND_CR:
        return (ZydisRegister)(ZYDIS_REGISTER_CR0 + o->reg);
    case OPERAND_DR:
        return (ZydisRegister)(ZYDIS_REGISTER_DR0 + o->reg);
    case OPERAND_ST:
        return (ZydisRegister)(ZYDIS_REGISTER_ST0 + o->reg);
    case OPERAND_MMX:
        return (ZydisRegister)(ZYDIS_REGISTER_MM0 + o->reg);
    case OPERAND_MASK:
        return (ZydisRegister)(ZYDIS_REGISTER_K0 + o->reg);
    case OPERAND_TMM:
        return (ZydisRegister)(ZYDIS_REGISTER_TMM0 + o->reg);
    case OPERAND_VEC:
        return (ZydisRegister)((o->vec_bytes == 16   ? ZYDIS_REGISTER_XMM0
                                : o->vec_bytes == 32 ? ZYDIS_REGISTER_YMM0
                                                     : ZYDIS_REGISTER_ZMM0) +
                               o->reg);
    default:
        return ZYDIS_REGISTER_NONE;
    }
}

static ZydisRegister zydis_address_register(const struct insn *insn, unsigned reg)
{
    unsigned class = gpr_class(insn->address_size);

    if (reg == REG_NONE)
        return ZYDIS_REGISTER_NONE;
    if (reg == REG_RIP)
        return insn->address_size == 8 ? ZYDIS_REGISTER_RIP : ZYDIS_REGISTER_EIP;
    return ZydisRegisterEncode((ZydisRegisterClass) class, (ZyanU8)reg);
}

static uint64_t truncate(uint64_t value, unsigned bits)
{
    return bits >= 64 ? value : value & ((1ull << bits) - 1);
}

static bool memory_matches(struct comparison *c, const struct operand *o, const ZydisDecodedOperand *z)
{
    const struct insn *insn = &c->insn;
    ZydisRegister base = zydis_address_register(insn, insn->mem.base), index;
    ZydisRegister segment = (ZydisRegister)(ZYDIS_REGISTER_ES + insn->mem.segment);
    unsigned scale = insn->mem.index == REG_NONE && !insn->mem.vsib ? 0 : 1u << insn->mem.scale;

    if (o->reg == REG_RDI && insn->mem.base == REG_RSI) { /* the other operand of movs and cmps */
        base = zydis_address_register(insn, REG_RDI);
        segment = ZYDIS_REGISTER_ES;
    }
    /* SIB base 5 with mod 0 is no base, whatever REX.B is (SDM Vol. 2A table 2-5, note on r13); Zydis 4.0 makes it r13
     * without a displacement, but skips the displacement's bytes. */
    if (insn->has_sib && insn->modrm < 0x40 && (insn->sib & 7) == 5 && z->mem.base != ZYDIS_REGISTER_NONE)
        return true;
    index = insn->mem.vsib ? ZYDIS_REGISTER_NONE : zydis_address_register(insn, insn->mem.index);
    if (insn->mem.vsib && ZydisRegisterGetId(z->mem.index) != (insn->mem.index))
        return false;
    if (z->mem.type == ZYDIS_MEMOP_TYPE_MIB)
        return true;
    if (insn->row->operands[1].type == OT_BXAL)
        index = ZYDIS_REGISTER_AL;
    if (z->mem.base != base || (!insn->mem.vsib && z->mem.index != index))
        return false;
    if (index == ZYDIS_REGISTER_AL)
        return true;
    if (z->mem.index != ZYDIS_REGISTER_NONE && z->mem.scale != scale)
        return false;
    if (truncate((uint64_t)(z->mem.disp.value ^ insn->mem.disp), insn->address_size * 8))
        return false;
    /* LEA, NOP and prefetch do not use the segment */
    return z->mem.type == ZYDIS_MEMOP_TYPE_AGEN || z->mem.segment == segment;
}

static bool operand_matches(struct comparison *c, const struct operand *o, const ZydisDecodedOperand *z, bool second)
{
    const struct insn *insn = &c->insn;

    switch (o->kind) {
    case OPERAND_MEM:
        return z->type == ZYDIS_OPERAND_TYPE_MEMORY && memory_matches(c, o, z);
    case OPERAND_IMM:
        if (z->type != ZYDIS_OPERAND_TYPE_IMMEDIATE)
            return false;
        return truncate(z->imm.value.u, z->size) == truncate((uint64_t)(second ? insn->imm2 : insn->imm), z->size);
    case OPERAND_REL:
        return z->type == ZYDIS_OPERAND_TYPE_IMMEDIATE && z->imm.is_relative && z->imm.value.s == insn->imm;
    case OPERAND_FAR:
        return z->type == ZYDIS_OPERAND_TYPE_POINTER && z->ptr.offset == (uint32_t)insn->imm &&
               z->ptr.segment == (uint16_t)insn->imm2;
    default:
        return z->type == ZYDIS_OPERAND_TYPE_REGISTER && z->reg.value == zydis_register(o);
    }
}

static unsigned zydis_access(const ZydisDecodedOperand *z)
{
    unsigned access = 0;

    if (z->actions & ZYDIS_OPERAND_ACTION_MASK_READ)
        access |= ACCESS_R;
    if (z->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE)
        access |= ACCESS_W;
    if (z->actions & ZYDIS_OPERAND_ACTION_CONDWRITE)
        access |= ACCESS_CW;
    return access;
}

static enum difference compare_operands(struct comparison *c)
{
    const struct insn *insn = &c->insn;
    enum difference worst = SAME;
    unsigned n = 0;

    for (unsigned i = 0; i < c->zydis.operand_count; i++) {
        const ZydisDecodedOperand *z = &c->zydis_operands[i];
        if (z->visibility == ZYDIS_OPERAND_VISIBILITY_HIDDEN || z->encoding == ZYDIS_OPERAND_ENCODING_MASK)
            continue;
        while (n < insn->operand_count && insn->row->operands[n].implicit)
            n++;
        if (n == insn->operand_count) {
            /* XMM0 and ST(0) are in their text and not in ours */
            if (z->visibility == ZYDIS_OPERAND_VISIBILITY_IMPLICIT)
                continue;
            snprintf(c->detail, sizeof(c->detail), "they have an operand %u", i);
            return OPERANDS;
        }
        const struct operand *o = &insn->operands[n];
        if (z->visibility == ZYDIS_OPERAND_VISIBILITY_IMPLICIT && !operand_matches(c, o, z, false))
            continue;
        if (!operand_matches(c, o, z, insn->row->operands[n].type == OT_Ib2)) {
            snprintf(c->detail, sizeof(c->detail), "operand %u: kind %u reg %u size %u; theirs: type %u reg %u size %u",
                     n, o->kind, o->reg, o->size, z->type, z->reg.value, z->size / 8);
            return OPERANDS;
        }
        if (o->kind == OPERAND_MEM && z->mem.type != ZYDIS_MEMOP_TYPE_AGEN && z->size != o->size * 8 && o->size) {
            snprintf(c->detail, sizeof(c->detail), "operand %u: size %u; theirs %u", n, o->size, z->size / 8);
            worst = SIZE;
        }
        if (o->access != zydis_access(z) && worst == SAME) {
            snprintf(c->detail, sizeof(c->detail), "operand %u: %u; theirs %u", n, o->access, zydis_access(z));
            worst = ACCESS;
        }
        n++;
    }
    while (n < insn->operand_count && insn->row->operands[n].implicit)
        n++;
    if (n < insn->operand_count) {
        snprintf(c->detail, sizeof(c->detail), "we have an operand %u", n);
        return OPERANDS;
    }
    return worst;
}

/* Registers that neither text names: those that rows list are general registers and XMM0. String instructions' rSI, rDI and
 * rCX, the stack pointer and the x87 stack are not listed. */
static enum difference compare_implicit(struct comparison *c)
{
    const struct insn *insn = &c->insn;

    if (insn->row->attributes & (ATTR_REP | ATTR_REPZ))
        return SAME;
    for (unsigned i = 0; i < c->zydis.operand_count; i++) {
        const ZydisDecodedOperand *z = &c->zydis_operands[i];
        ZydisRegisterClass class =
            z->type == ZYDIS_OPERAND_TYPE_REGISTER ? ZydisRegisterGetClass(z->reg.value) : ZYDIS_REGCLASS_INVALID;
        unsigned n;
        if (z->visibility == ZYDIS_OPERAND_VISIBILITY_EXPLICIT)
            continue;
        if (class < ZYDIS_REGCLASS_GPR8 || (class > ZYDIS_REGCLASS_GPR64 && class != ZYDIS_REGCLASS_XMM))
            continue;
        if (ZydisRegisterGetLargestEnclosing(ZYDIS_MACHINE_MODE_LONG_64, z->reg.value) == ZYDIS_REGISTER_RSP)
            continue;
        for (n = 0; n < insn->operand_count; n++)
            if (zydis_register(&insn->operands[n]) == z->reg.value && insn->operands[n].access == zydis_access(z))
                break;
        if (n == insn->operand_count) {
            snprintf(c->detail, sizeof(c->detail), "%s access %u", ZydisRegisterGetString(z->reg.value),
                     zydis_access(z));
            return IMPLICIT;
        }
    }
    return SAME;
}

static enum difference compare_flags(struct comparison *c)
{
    static const ZydisAccessedFlags none;
    const ZydisAccessedFlags *z = c->zydis.cpu_flags ? c->zydis.cpu_flags : &none;
    const struct insn_row *row = c->insn.row;
    uint32_t mask = FLAGS_ARITH | FLAG_DF | FLAG_IF, written = z->modified | z->set_0 | z->set_1;

    if ((row->flags_written | row->flags_read) & FLAG_NT) /* rows that work on the whole register */
        return SAME;
    snprintf(c->detail, sizeof(c->detail), "%x %x %x; theirs %x %x %x", row->flags_read, row->flags_written,
             row->flags_undefined, z->tested, written, z->undefined);
    /* A count of 0 leaves the flags as they were: our rows read them, theirs do not say so. */
    if (z->tested & ~row->flags_read & mask)
        return FLAGS_READ;
    if (row->flags_read & ~z->tested & ~(row->flags_written | row->flags_undefined) & mask)
        return FLAGS_READ;
    if ((row->flags_undefined ^ z->undefined) & mask)
        return FLAGS_UNDEFINED;
    return (row->flags_written ^ written) & mask ? FLAGS_WRITTEN : SAME;
}

static enum difference compare_valid(struct comparison *c)
{
    enum difference difference;
    bool lockable = (c->insn.row->attributes & ATTR_LOCK) && insn_has_memory(&c->insn);

    if (c->insn.length != c->zydis.length)
        return LENGTH;
    if (!mnemonic_matches(c->insn.row->mnemonic, ZydisMnemonicGetString(c->zydis.mnemonic)))
        return MNEMONIC;
    difference = compare_operands(c);
    if (difference == SAME)
        difference = compare_implicit(c);
    if (difference == SAME)
        difference = compare_flags(c);
    if (difference == SAME && lockable != ((c->zydis.attributes & ZYDIS_ATTRIB_ACCEPTS_LOCK) != 0))
        difference = LOCKABLE;
    return difference;
}

void zydis_compare(const ZydisDecoder *decoder, const uint8_t *bytes, size_t size, enum code_size code_size,
                   struct comparison *c)
{
    bool theirs = ZYAN_SUCCESS(ZydisDecoderDecodeFull(decoder, bytes, size, &c->zydis, c->zydis_operands));

    c->detail[0] = 0;
    c->status = insn_decode(bytes, size, code_size, &c->insn);
    if (theirs != (c->status == DECODE_OK))
        c->difference = theirs ? ONLY_THEY : ONLY_WE;
    else
        c->difference = theirs ? compare_valid(c) : SAME;
}
