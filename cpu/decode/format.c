/* A line of Intel-syntax text for a decoded instruction, for logs. Correct, not pretty.
 *
 * Any thread; no state. */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

#include "cpu/decode/decode_internal.h"

struct text {
    char *buffer;
    size_t size, used;
};

static void printf_like(2, 3) add(struct text *text, const char *format, ...)
{
    va_list args;
    int n;

    va_start(args, format);
    n = vsnprintf(text->buffer + text->used, text->size - text->used, format, args);
    va_end(args);
    if (n > 0)
        text->used = MIN(text->used + (size_t)n, text->size - 1);
}

static const char *const low_names[4][8] = {
    { "al", "cl", "dl", "bl", "spl", "bpl", "sil", "dil" },
    { "ax", "cx", "dx", "bx", "sp", "bp", "si", "di" },
    { "eax", "ecx", "edx", "ebx", "esp", "ebp", "esi", "edi" },
    { "rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi" },
};
static const char *const segment_names[SEG_COUNT] = { "es", "cs", "ss", "ds", "fs", "gs" };

static void add_gpr(struct text *text, unsigned reg, unsigned size)
{
    static const char suffixes[4][2] = { "b", "w", "d", "" };
    unsigned log2 = size == 1 ? 0 : size == 2 ? 1 : size == 4 ? 2 : 3;

    if (reg == REG_RIP)
        add(text, "%s", size == 8 ? "rip" : "eip");
    else if (reg < 8)
        add(text, "%s", low_names[log2][reg]);
    else
        add(text, "r%u%s", reg, suffixes[log2]);
}

static void add_vector(struct text *text, unsigned reg, unsigned bytes)
{
    add(text, "%cmm%u", bytes >= 64 ? 'z' : bytes >= 32 ? 'y' : 'x', reg);
}

static void add_signed(struct text *text, int64_t value, bool plus)
{
    if (value < 0)
        add(text, "-0x%" PRIx64, -(uint64_t)value);
    else
        add(text, "%s0x%" PRIx64, plus ? "+" : "", value);
}

/* Full width of the index register: as many elements as the destination has. */
static unsigned vsib_bytes(const struct insn *insn)
{
    unsigned bytes = 16u << insn->vex.l, data = 1u << (insn->row->attributes >> ATTR_ELEM_SHIFT & 3);

    for (unsigned i = 0; i < insn->operand_count; i++)
        if (insn->row->operands[i].type == OT_MVd && data == 8)
            bytes = MAX(bytes / 2, 16u);
    return bytes;
}

static void add_memory(struct text *text, const struct insn *insn, const struct operand *o)
{
    /* clang-format off */
    static const struct { unsigned size; const char *name; } sizes[] = {
        { 1, "byte" }, { 2, "word" }, { 4, "dword" }, { 6, "fword" }, { 8, "qword" }, { 10, "tbyte" },
        { 16, "xmmword" }, { 32, "ymmword" }, { 64, "zmmword" },
    };
    /* clang-format on */
    bool other = o->reg == REG_RDI && insn->mem.base == REG_RSI, any = false; /* the destination of movs, cmps */
    unsigned base = other ? REG_RDI : insn->mem.base, segment = other ? SEG_ES : insn->mem.segment;

    for (size_t i = 0; i < ARRAY_SIZE(sizes); i++)
        if (o->size == sizes[i].size)
            add(text, "%s ptr ", sizes[i].name);
    if (segment >= SEG_FS || (insn->code_size != CODE64 && segment != SEG_DS && segment != SEG_SS))
        add(text, "%s:", segment_names[segment]);
    add(text, "[");
    if (base != REG_NONE) {
        add_gpr(text, base, insn->address_size);
        any = true;
    }
    if (insn->mem.vsib || insn->mem.index != REG_NONE) {
        add(text, any ? "+" : "");
        if (insn->mem.vsib)
            add_vector(text, insn->mem.index, vsib_bytes(insn));
        else
            add_gpr(text, insn->mem.index, insn->address_size);
        if (insn->mem.scale)
            add(text, "*%u", 1u << insn->mem.scale);
        any = true;
    }
    if (insn->mem.disp || !any)
        add_signed(text, insn->mem.disp, any);
    add(text, "]");
}

/* clang-format off */
static void add_operand(struct text *text, const struct insn *insn, unsigned n)
{
    static const char *const high_names[4] = { "ah", "ch", "dh", "bh" };
    const struct operand *o = &insn->operands[n];

    switch (o->kind) {
    case OPERAND_GPR: add_gpr(text, o->reg, o->size); break;
    case OPERAND_GPR_HIGH: add(text, "%s", high_names[o->reg & 3]); break;
    case OPERAND_SEG: add(text, "%s", segment_names[o->reg]); break;
    case OPERAND_CR: add(text, "cr%u", o->reg); break;
    case OPERAND_DR: add(text, "dr%u", o->reg); break;
    case OPERAND_ST: add(text, "st(%u)", o->reg); break;
    case OPERAND_MMX: add(text, "mm%u", o->reg); break;
    case OPERAND_VEC: add_vector(text, o->reg, o->vec_bytes); break;
    case OPERAND_MASK: add(text, "k%u", o->reg); break;
    case OPERAND_TMM: add(text, "tmm%u", o->reg); break;
    case OPERAND_MEM: add_memory(text, insn, o); break;
    case OPERAND_IMM: add_signed(text, insn->row->operands[n].type == OT_Ib2 ? insn->imm2 : insn->imm, false); break;
    case OPERAND_REL: add(text, "$"); add_signed(text, insn->imm + insn->length, true); break;
    case OPERAND_FAR: add(text, "0x%" PRIx64 ":0x%" PRIx64, insn->imm2, insn->imm); break;
    default: break;
    }
    if (n == 0 && insn->vex.aaa)
        add(text, "{k%u}%s", insn->vex.aaa, insn->vex.z ? "{z}" : "");
}
/* clang-format on */

const char *insn_format(const struct insn *insn, char *buffer, size_t size)
{
    struct text text = { buffer, size, 0 };
    const char *separator = " ";

    if (!size)
        return buffer;
    buffer[0] = 0;
    if (!insn->row) {
        add(&text, "(bad)");
        return buffer;
    }
    if (insn->lock)
        add(&text, "lock ");
    if (insn->rep && (insn->row->attributes & (ATTR_REP | ATTR_REPZ)))
        add(&text, "%s ", insn->rep == REP_F2 ? "repne" : "rep");
    add(&text, "%s", insn->row->mnemonic);
    for (unsigned i = 0; i < insn->operand_count; i++) {
        if (insn->row->operands[i].implicit)
            continue;
        add(&text, "%s", separator);
        add_operand(&text, insn, i);
        separator = ", ";
    }
    return buffer;
}
