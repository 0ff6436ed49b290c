/* Decimal adjustment and other leftovers of the 8086 to 80286: AAA, AAD, AAM, AAS, DAA, DAS, SALC, XLAT,
 * BOUND. Not in 64-bit mode but for XLAT, so there is no host instruction to run; undefined flags
 * are what Intel's processors leave: taken from the result. SDM Vol. 2A. */
#include "cpu/interp/interp_fast.h"

static uint8_t get_al(const struct cpu *cpu)
{
    return (uint8_t)cpu->gpr[REG_RAX];
}
static void set_ax(struct cpu *cpu, uint16_t ax)
{
    cpu->gpr[REG_RAX] = (cpu->gpr[REG_RAX] & ~0xffffull) | ax;
}
static void set_al(struct cpu *cpu, uint8_t al)
{
    cpu->gpr[REG_RAX] = (cpu->gpr[REG_RAX] & ~0xffull) | al;
}

static uint64_t result_flags(uint8_t value)
{
    return (value ? 0 : FLAG_ZF) | (value & 0x80 ? FLAG_SF : 0) | (__builtin_parity(value) ? 0 : FLAG_PF);
}

static enum step ascii_adjust(struct cpu *cpu, int direction)
{
    uint16_t ax = (uint16_t)cpu->gpr[REG_RAX];
    bool adjust = (ax & 0xf) > 9 || cpu->rflags & FLAG_AF;
    if (adjust)
        ax = (uint16_t)(ax + direction * 0x106);
    set_ax(cpu, ax & 0xff0f);
    set_flags(cpu, (adjust ? FLAG_AF | FLAG_CF : 0) | result_flags(ax & 0x0f), FLAGS_ARITH);
    return STEP_NEXT;
}

enum step interp_aaa(struct cpu *cpu, const struct iop *op)
{
    (void)op;
    return ascii_adjust(cpu, 1);
}

enum step interp_aas(struct cpu *cpu, const struct iop *op)
{
    (void)op;
    return ascii_adjust(cpu, -1);
}

enum step interp_aam(struct cpu *cpu, const struct iop *op)
{
    uint8_t base = (uint8_t)op->insn.imm, al = get_al(cpu);
    if (!base)
        return step_fault(cpu, VECTOR_DE, 0);
    set_ax(cpu, (uint16_t)((al / base) << 8 | al % base));
    set_flags(cpu, result_flags(al % base), FLAGS_ARITH);
    return STEP_NEXT;
}

enum step interp_aad(struct cpu *cpu, const struct iop *op)
{
    uint16_t ax = (uint16_t)cpu->gpr[REG_RAX];
    uint8_t al = (uint8_t)(ax + (ax >> 8) * (uint8_t)op->insn.imm);
    set_ax(cpu, al);
    set_flags(cpu, result_flags(al), FLAGS_ARITH);
    return STEP_NEXT;
}

static enum step decimal_adjust(struct cpu *cpu, int direction)
{
    uint8_t al = get_al(cpu), old = al;
    bool carry = cpu->rflags & FLAG_CF, old_carry = carry, half = cpu->rflags & FLAG_AF;
    carry = false;
    if ((al & 0xf) > 9 || half) {
        carry = old_carry || (direction > 0 ? al > 0xff - 6 : al < 6);
        al = (uint8_t)(al + direction * 6);
        half = true;
    }
    if (old > 0x99 || old_carry) {
        al = (uint8_t)(al + direction * 0x60);
        carry = true;
    }
    set_al(cpu, al);
    set_flags(cpu, (carry ? FLAG_CF : 0) | (half ? FLAG_AF : 0) | result_flags(al), FLAGS_ARITH);
    return STEP_NEXT;
}

enum step interp_daa(struct cpu *cpu, const struct iop *op)
{
    (void)op;
    return decimal_adjust(cpu, 1);
}

enum step interp_das(struct cpu *cpu, const struct iop *op)
{
    (void)op;
    return decimal_adjust(cpu, -1);
}

enum step interp_salc(struct cpu *cpu, const struct iop *op)
{
    (void)op;
    set_al(cpu, cpu->rflags & FLAG_CF ? 0xff : 0);
    return STEP_NEXT;
}

/* AL = [rBX + AL]; the decoder describes the base, the index is AL alone. */
enum step interp_xlat(struct cpu *cpu, const struct iop *op)
{
    uint64_t mask = op->insn.address_size == 8 ? ~0ull : op->insn.address_size == 4 ? 0xffffffffull : 0xffff;
    uint64_t offset = (cpu->gpr[REG_RBX] + get_al(cpu)) & mask;
    enum segment seg = op->insn.mem.segment; /* DS, or as overridden: by FS and GS only in 64-bit mode */
    gva_t gva;
    uint8_t value;
    if (mem_segment_linear(cpu, seg, offset, 1, false, op->insn.code_size, &gva) ||
        load(cpu, gva, &value, 1, seg == SEG_SS))
        return STEP_FAULT;
    set_al(cpu, value);
    return STEP_NEXT;
}

enum step interp_bound(struct cpu *cpu, const struct iop *op)
{
    const struct operand *o = &op->insn.operands[0];
    int32_t index, low, high;
    if (o->size == 2) {
        int16_t pair[2];
        if (op_mem_read(cpu, op, pair, 4))
            return STEP_FAULT;
        index = (int16_t)gpr_read(cpu, o), low = pair[0], high = pair[1];
    } else {
        int32_t pair[2];
        if (op_mem_read(cpu, op, pair, 8))
            return STEP_FAULT;
        index = (int32_t)gpr_read(cpu, o), low = pair[0], high = pair[1];
    }
    return index < low || index > high ? step_fault(cpu, VECTOR_BR, 0) : STEP_NEXT;
}
