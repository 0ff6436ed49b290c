/* Vector instructions whose memory accesses are per element and may be masked: VMASKMOV, VPMASKMOV,
 * MASKMOVDQU, MASKMOVQ and the AVX2 gathers.
 *
 * A masked-out element is never accessed and cannot fault (design, 6a.18). Stores check every selected
 * element before the first is written. A gather completes elements in order and clears their mask as it goes, so
 * that a fault leaves what was done and a restart continues (SDM Vol. 2A 2.4.12).
 * vCPU thread only. SDM Vol. 2B-2C, the instructions' own pages. */
#include <string.h>

#include "cpu/interp/interp_fast.h"
#include "cpu/interp/interp_hostop.h"

/* ---- One element ---- */

/* Linear address of `size` bytes at `offset` (already truncated to the address size) in the segment of the memory
 * operand. Later elements of one operand do not wrap around at 4 GiB in 64-bit mode. */
static int element_linear(struct cpu *cpu, const struct iop *op, uint64_t offset, unsigned size, bool write, gva_t *gva)
{
    if (unlikely(op->segment_checked))
        return mem_segment_linear(cpu, op->insn.mem.segment, offset, size, write, op->insn.code_size, gva);
    *gva = offset + *op->segment_base;
    return 0;
}

static int element_read(struct cpu *cpu, const struct iop *op, uint64_t offset, void *value, unsigned size)
{
    gva_t gva;
    if (element_linear(cpu, op, offset, size, false, &gva))
        return -1;
    return mem_read_linear(cpu, gva, value, size, cpu->privilege, op_uses_stack_segment(op));
}

/* ---- Masked moves ---- */

/* A memory operand of `count` elements of `size` bytes; bit i of `selected`: element i is accessed. */
struct masked_access {
    uint64_t offset; /* in the segment */
    unsigned count, size;
    uint32_t selected;
};

static uint32_t mask_bits(const uint8_t *mask, unsigned count, unsigned size)
{
    uint32_t selected = 0;
    for (unsigned i = 0; i < count; i++)
        selected |= (uint32_t)(mask[i * size + size - 1] >> 7) << i;
    return selected;
}

/* Host pointer to all of the operand if that is one piece of RAM, else NULL. */
static uint8_t *masked_host(struct cpu *cpu, const struct iop *op, const struct masked_access *access, bool write)
{
    gva_t gva = access->offset + *op->segment_base;
    unsigned bytes = access->count * access->size;
    if (op->segment_checked || access->offset + bytes - 1 > op->ea_mask || access->offset + bytes < access->offset)
        return NULL;
    return write ? fast_write(cpu, gva, bytes) : fast_read(cpu, gva, bytes);
}

/* #GP for any selected element comes before #PF for another. */
static int masked_check(struct cpu *cpu, const struct iop *op, const struct masked_access *access)
{
    for (unsigned i = 0; i < access->count && op->insn.code_size == CODE64; i++) {
        gva_t gva = access->offset + i * access->size + *op->segment_base;
        if (access->selected >> i & 1 && (!is_canonical(gva) || !is_canonical(gva + access->size - 1)))
            return raise_fault(cpu, op_uses_stack_segment(op) ? VECTOR_SS : VECTOR_GP, 0);
    }
    return 0;
}

static int masked_read(struct cpu *cpu, const struct iop *op, const struct masked_access *access, uint8_t *data)
{
    const uint8_t *host = masked_host(cpu, op, access, false);
    if (!host && masked_check(cpu, op, access))
        return -1;
    for (unsigned i = 0; i < access->count; i++) {
        uint8_t *element = data + i * access->size;
        if (!(access->selected >> i & 1))
            memset(element, 0, access->size);
        else if (host)
            memcpy(element, host + i * access->size, access->size);
        else if (element_read(cpu, op, access->offset + i * access->size, element, access->size))
            return -1;
    }
    return 0;
}

/* If the elements selected begin in one page and the next one may not be written, CR2 tells the last byte selected. */
static void blame_last_byte(struct cpu *cpu, const struct iop *op, const struct masked_access *access)
{
    unsigned first = (unsigned)__builtin_ctz(access->selected), last = 31u - (unsigned)__builtin_clz(access->selected);
    gva_t begin, end;
    if (access->size == 1 || cpu->fault.vector != VECTOR_PF ||
        element_linear(cpu, op, access->offset + first * access->size, 1, true, &begin) ||
        element_linear(cpu, op, access->offset + (last + 1) * access->size - 1, 1, true, &end))
        return;
    if ((cpu->fault.address ^ begin) & PAGE_MASK && !((cpu->fault.address ^ end) & PAGE_MASK))
        cpu->fault.address = end;
}

static int masked_write(struct cpu *cpu, const struct iop *op, const struct masked_access *access, const uint8_t *data)
{
    uint8_t *host = masked_host(cpu, op, access, true);
    bool stack = op_uses_stack_segment(op);
    gva_t gva[32];
    if (!host && masked_check(cpu, op, access))
        return -1;
    for (unsigned i = 0; !host && i < access->count; i++) {
        if (!(access->selected >> i & 1))
            continue;
        if (element_linear(cpu, op, access->offset + i * access->size, access->size, true, &gva[i]) ||
            mem_probe_write_linear(cpu, gva[i], access->size, cpu->privilege, stack)) {
            blame_last_byte(cpu, op, access);
            return -1;
        }
    }
    for (unsigned i = 0; i < access->count; i++) {
        const uint8_t *element = data + i * access->size;
        if (!(access->selected >> i & 1))
            continue;
        if (host)
            memcpy(host + i * access->size, element, access->size);
        else if (mem_write_linear(cpu, gva[i], element, access->size, cpu->privilege, stack))
            return -1; /* unmapped since the check, by another vCPU: what was written is written again */
    }
    return 0;
}

/* Whether masked-out bytes may fault is up to the processor (SDM Vol. 2B MASKMOVDQU). Intel's do as here: quadwords
 * are looked up for writing from the last to the first, whatever the mask. */
static enum step mask_move_halves(struct cpu *cpu, const struct iop *op, const struct masked_access *access,
                                  const uint8_t *data)
{
    unsigned halves = access->count / 8;
    gva_t gva;
    for (unsigned half = halves; half-- > 0;)
        if (element_linear(cpu, op, (access->offset + 8 * half) & op->ea_mask, 8, true, &gva) ||
            mem_probe_write_linear(cpu, gva, 8, cpu->privilege, op_uses_stack_segment(op)))
            return STEP_FAULT;
    for (unsigned half = 0; half < halves; half++) {
        struct masked_access part = { .offset = (access->offset + 8 * half) & op->ea_mask,
                                      .count = 8,
                                      .size = 1,
                                      .selected = access->selected >> 8 * half & 0xff };
        if (masked_write(cpu, op, &part, data + 8 * half))
            return STEP_FAULT;
    }
    return STEP_NEXT;
}

/* MASKMOVDQU, VMASKMOVDQU, MASKMOVQ: bytes to DS:[rDI] (a segment prefix is honoured). */
static enum step mask_move_bytes(struct cpu *cpu, const struct iop *op)
{
    const struct operand *data = &op->insn.operands[0], *mask = &op->insn.operands[1];
    struct fxsave_area *fx = &cpu->vector.fx;
    bool mmx = data->kind == OPERAND_MMX;
    const uint8_t *data_bytes = mmx ? x87_mmx_register(fx, data->reg) : cpu->vector.vec[data->reg];
    const uint8_t *mask_bytes = mmx ? x87_mmx_register(fx, mask->reg) : cpu->vector.vec[mask->reg];
    struct masked_access access = { .offset = iop_effective_address(cpu, op), .count = mmx ? 8 : 16, .size = 1 };
    access.selected = mask_bits(mask_bytes, access.count, 1);
    if (mmx) { /* the transition comes before any fault; it moves the registers in the image */
        uint8_t data_copy[8];
        memcpy(data_copy, data_bytes, sizeof(data_copy));
        x87_enter_mmx(fx);
        return mask_move_halves(cpu, op, &access, data_copy);
    }
    return mask_move_halves(cpu, op, &access, data_bytes);
}

static enum step maskmov_elements(struct cpu *cpu, const struct iop *op)
{
    if (check_exception_class(cpu, op->insn.row))
        return STEP_FAULT;
    if (op->insn.opcode == 0xf7)
        return mask_move_bytes(cpu, op);
    const struct operand *operands = op->insn.operands;
    unsigned size = 1u << (op->insn.row->attributes >> ATTR_ELEM_SHIFT & 3), bytes = op->insn.vex.l ? 32 : 16;
    struct masked_access access = { .offset = iop_effective_address(cpu, op), .count = bytes / size, .size = size };
    access.selected = mask_bits(cpu->vector.vec[operands[1].reg], access.count, size);
    if (operands[0].kind == OPERAND_MEM)
        return masked_write(cpu, op, &access, cpu->vector.vec[operands[2].reg]) ? STEP_FAULT : STEP_NEXT;
    uint8_t data[32];
    if (masked_read(cpu, op, &access, data))
        return STEP_FAULT;
    memcpy(cpu->vector.vec[operands[0].reg], data, bytes);
    vector_zero_above(cpu, operands[0].reg, bytes);
    return STEP_NEXT;
}

/* ---- Gathers ---- */

static uint64_t gather_offset(const struct cpu *cpu, const struct iop *op, const uint8_t *index, unsigned index_size)
{
    int64_t value;
    if (index_size == 4) {
        int32_t narrow;
        memcpy(&narrow, index, 4);
        value = narrow;
    } else {
        memcpy(&value, index, 8);
    }
    return cpu->gpr[op->insn.mem.base] + ((uint64_t)value << op->insn.mem.scale) + (uint64_t)op->insn.mem.disp;
}

/* Each mask element is its sign bit, spread; the instruction may stop in between with this visible. */
static void spread_mask(uint8_t *mask, unsigned count, unsigned size)
{
    for (unsigned i = 0; i < count; i++)
        memset(mask + i * size, mask[i * size + size - 1] & 0x80 ? 0xff : 0, size);
}

static enum step gather_elements(struct cpu *cpu, const struct iop *op)
{
    const struct insn *insn = &op->insn;
    if (check_exception_class(cpu, insn->row))
        return STEP_FAULT;
    if (insn->vex.kind == 4)
        return interp_unimplemented(cpu, op);
    unsigned dst_reg = insn->operands[0].reg, mask_reg = insn->operands[2].reg, index_reg = insn->mem.index;
    if (dst_reg == mask_reg || dst_reg == index_reg || mask_reg == index_reg)
        return step_fault(cpu, VECTOR_UD, 0);

    unsigned index_size = insn->opcode & 1 ? 8 : 4, size = insn->vex.w ? 8 : 4;
    unsigned count = (insn->vex.l ? 32 : 16) / MAX(index_size, size);
    uint8_t *dst = cpu->vector.vec[dst_reg], *mask = cpu->vector.vec[mask_reg];
    uint8_t index[32];
    memcpy(index, cpu->vector.vec[index_reg], sizeof(index));
    /* As processors do: the whole mask register is spread at once, what is above the vector length becomes zero in
     * it at once and in the destination with its first element. */
    unsigned length = insn->vex.l ? 32 : 16;
    spread_mask(mask, length / size, size);
    vector_zero_above(cpu, mask_reg, length);
    for (unsigned i = 0; i < count; i++) {
        if (mask[i * size]) {
            if (element_read(cpu, op, gather_offset(cpu, op, index + i * index_size, index_size) & op->ea_mask,
                             dst + i * size, size))
                return STEP_FAULT;
            vector_zero_above(cpu, dst_reg, length);
        }
        memset(mask + i * size, 0, size);
    }
    vector_zero_above(cpu, mask_reg, 0);
    vector_zero_above(cpu, dst_reg, count * size);
    return STEP_NEXT;
}

/* ---- Handlers: elements are exempt from alignment checks, as on the host ---- */

static enum step without_alignment_check(struct cpu *cpu, const struct iop *op, iop_fn *elements)
{
    bool alignment_check = cpu->alignment_check;
    cpu->alignment_check = false;
    enum step step = elements(cpu, op);
    cpu->alignment_check = alignment_check;
    return step;
}

enum step interp_maskmov(struct cpu *cpu, const struct iop *op)
{
    cpu_park_vectors(cpu);
    if (op->insn.opcode == 0xf7) /* but MASKMOVDQU and MASKMOVQ check their quadwords */
        return maskmov_elements(cpu, op);
    return without_alignment_check(cpu, op, maskmov_elements);
}

enum step interp_gather(struct cpu *cpu, const struct iop *op)
{
    cpu_park_vectors(cpu);
    return without_alignment_check(cpu, op, gather_elements);
}
