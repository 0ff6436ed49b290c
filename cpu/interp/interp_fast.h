/* The inline side of memory access for the hot handlers: one L1 look-up, and the
 * functions of interp_memory.c for everything else. */
#ifndef EIDOLON_CPU_INTERP_INTERP_FAST_H
#define EIDOLON_CPU_INTERP_INTERP_FAST_H

#include <string.h>

#include "cpu/interp/interp_internal.h"

/* Linear address of the memory operand. `size` bytes will be accessed. */
static inline int op_address(struct cpu *cpu, const struct iop *op, unsigned size, bool write, gva_t *gva)
{
    if (unlikely(op->segment_checked))
        return op_linear(cpu, op, size, write, gva);
    *gva = iop_effective_address(cpu, op) + *op->segment_base;
    return 0;
}

static inline bool op_uses_stack_segment(const struct iop *op)
{
    return op->insn.mem.segment == SEG_SS;
}

/* Host pointers for an access inside one page that needs no attention; else NULL. */
static inline uint8_t *fast_read(const struct cpu *cpu, gva_t gva, unsigned size)
{
    if (unlikely(cpu->checked_access))
        return NULL;
    return mmu_lookup_read(&cpu->mmu, gva, size, cpu->privilege);
}

static inline uint8_t *fast_write(const struct cpu *cpu, gva_t gva, unsigned size)
{
    if (unlikely(cpu->checked_access))
        return NULL;
    return mmu_lookup_write(&cpu->mmu, gva, size, cpu->privilege);
}

/* `size` is a compile-time constant in every caller, so that memcpy is one move. */
static inline int load(struct cpu *cpu, gva_t gva, void *value, unsigned size, bool stack)
{
    const uint8_t *host = fast_read(cpu, gva, size);
    if (unlikely(!host))
        return mem_read_linear(cpu, gva, value, size, cpu->privilege, stack);
    memcpy(value, host, size);
    return 0;
}

static inline int store(struct cpu *cpu, gva_t gva, const void *value, unsigned size, bool stack)
{
    uint8_t *host = fast_write(cpu, gva, size);
    if (unlikely(!host))
        return mem_write_linear(cpu, gva, value, size, cpu->privilege, stack);
    memcpy(host, value, size);
    return 0;
}

/* Condition codes (SDM Vol. 1 appendix B), cc = opcode[3:0]. */
static inline bool condition(uint64_t rflags, unsigned cc)
{
    bool result;
    switch (cc >> 1) {
    case 0:
        result = rflags & FLAG_OF;
        break;
    case 1:
        result = rflags & FLAG_CF;
        break;
    case 2:
        result = rflags & FLAG_ZF;
        break;
    case 3:
        result = rflags & (FLAG_CF | FLAG_ZF);
        break;
    case 4:
        result = rflags & FLAG_SF;
        break;
    case 5:
        result = rflags & FLAG_PF;
        break;
    case 6:
        result = !(rflags & FLAG_SF) != !(rflags & FLAG_OF);
        break;
    default:
        result = (rflags & FLAG_ZF) || (!(rflags & FLAG_SF) != !(rflags & FLAG_OF));
        break;
    }
    return result != (cc & 1);
}

static inline void set_flags(struct cpu *cpu, uint64_t flags, uint64_t mask)
{
    cpu->rflags = (cpu->rflags & ~mask) | (flags & mask);
}

/* A register result of `bits` through the resolved pointer: 32 bits clear the upper half. */
#define WRITE_REG(bits, op, value)                                                                                     \
    do {                                                                                                               \
        if (bits == 32)                                                                                                \
            *(uint64_t *)(op)->dst = (uint32_t)(value);                                                                \
        else                                                                                                           \
            *(uint##bits##_t *)(op)->dst = (uint##bits##_t)(value);                                                    \
    } while (0)

/* 1, 2, 4, 8 bytes -> 0..3: index of a table of forms. */
static inline unsigned size_index(unsigned size)
{
    return size == 1 ? 0 : size == 2 ? 1 : size == 4 ? 2 : 3;
}

/* Specialised handlers, chosen when a block is built (NULL: use the table's). */
iop_fn *interp_select_alu(const struct iop *op);
iop_fn *interp_select_move(const struct iop *op);
iop_fn *interp_select_control(const struct iop *op);

#endif
