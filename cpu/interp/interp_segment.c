/* Segment registers and descriptor tables: MOV, PUSH, POP and LDS of segment registers, LGDT and kin, LLDT, LTR, LAR,
 * LSL, VERR, VERW, ARPL. SDM Vol. 2; Vol. 3A chapters 3 and 5. The checks of the loads are in cpu/segment.c. */
#include <string.h>

#include "cpu/interp/interp_internal.h"
#include "cpu/system_internal.h"

/* A load of SS holds off interrupts and debug traps for one instruction, so that RSP can be loaded too
 * (SDM Vol. 3A 6.8.3); blocks outside 64-bit mode depend on what the segment registers hold. */
static enum step after_segment_load(struct cpu *cpu, enum segment seg)
{
    if (seg == SEG_SS) {
        cpu->interrupt_shadow = cpu->debug_shadow = true;
        cpu->step_trap = false;
        return STEP_END;
    }
    return code64(cpu) ? STEP_NEXT : STEP_END;
}

enum step interp_mov_to_seg(struct cpu *cpu, const struct iop *op)
{
    enum segment seg = op->insn.operands[0].reg;
    uint64_t selector;

    if (seg == SEG_CS || seg >= SEG_COUNT)
        return step_fault(cpu, VECTOR_UD, 0);
    if (operand_read(cpu, op, 1, &selector) < 0 || cpu_load_segment(cpu, seg, (uint16_t)selector) < 0)
        return STEP_FAULT;
    return after_segment_load(cpu, seg);
}

enum step interp_mov_from_seg(struct cpu *cpu, const struct iop *op)
{
    unsigned seg = op->insn.operands[1].reg;

    if (seg >= SEG_COUNT)
        return step_fault(cpu, VECTOR_UD, 0);
    return operand_write(cpu, op, 0, cpu->segs[seg].selector) < 0 ? STEP_FAULT : STEP_NEXT;
}

enum step interp_push_seg(struct cpu *cpu, const struct iop *op)
{
    unsigned size = op->insn.operand_size;
    uint64_t rsp = cpu->gpr[REG_RSP], selector = cpu->segs[op->insn.operands[0].reg].selector;

    /* A 32-bit push moves ESP by 4 but writes 2 bytes (SDM Vol. 2B PUSH: "all recent" processors). */
    if (size == 4) {
        rsp = stack_advance(cpu, rsp, -2);
        size = 2;
    }
    if (stack_push(cpu, &rsp, selector, size) < 0)
        return STEP_FAULT;
    stack_commit(cpu, rsp);
    return STEP_NEXT;
}

enum step interp_pop_seg(struct cpu *cpu, const struct iop *op)
{
    enum segment seg = op->insn.operands[0].reg;
    uint64_t rsp = cpu->gpr[REG_RSP], selector, after;

    after = stack_advance(cpu, rsp, op->insn.operand_size);
    if (stack_pop(cpu, &rsp, &selector, 2) < 0)
        return STEP_FAULT;
    /* The new stack pointer has the width of the old stack, so it is committed before SS changes. */
    rsp = cpu->gpr[REG_RSP];
    stack_commit(cpu, after);
    if (cpu_load_segment(cpu, seg, (uint16_t)selector) < 0) {
        cpu->gpr[REG_RSP] = rsp;
        return STEP_FAULT;
    }
    return after_segment_load(cpu, seg);
}

/* LDS, LES: C5, C4; LSS, LFS, LGS: 0F B2, B4, B5. */
static enum segment far_load_segment(const struct insn *insn)
{
    switch (insn->opcode) {
    case 0xc4:
        return SEG_ES;
    case 0xc5:
        return SEG_DS;
    case 0xb2:
        return SEG_SS;
    case 0xb4:
        return SEG_FS;
    default:
        return SEG_GS;
    }
}

enum step interp_lds(struct cpu *cpu, const struct iop *op)
{
    enum segment seg = far_load_segment(&op->insn);
    unsigned size = op->insn.operand_size;
    uint8_t bytes[10];
    uint64_t offset = 0;
    uint16_t selector;

    if (op_mem_read(cpu, op, bytes, size + 2) < 0)
        return STEP_FAULT;
    memcpy(&offset, bytes, size);
    memcpy(&selector, bytes + size, 2);
    if (cpu_load_segment(cpu, seg, selector) < 0)
        return STEP_FAULT;
    gpr_write(cpu, &op->insn.operands[0], offset);
    if (seg == SEG_SS) /* LSS loads the pointer as well: no shadow */
        return STEP_END;
    return code64(cpu) ? STEP_NEXT : STEP_END;
}

/* ---- GDTR, IDTR ---- */

static bool umip_forbids(const struct cpu *cpu)
{
    return (cpu->cr4 & CR4_UMIP) && cpu->cpl;
}

static enum step load_table(struct cpu *cpu, const struct iop *op, struct table_register *table)
{
    unsigned size = code64(cpu) ? 10 : 6;
    uint8_t bytes[10];
    uint64_t base = 0;
    uint16_t limit;

    if (cpu->cpl)
        return step_fault(cpu, VECTOR_GP, 0);
    if (op_mem_read(cpu, op, bytes, size) < 0)
        return STEP_FAULT;
    memcpy(&limit, bytes, 2);
    memcpy(&base, bytes + 2, size - 2);
    if (!is_canonical(base))
        return step_fault(cpu, VECTOR_GP, 0);
    if (!code64(cpu) && op->insn.operand_size == 2)
        base &= 0xffffff;
    table->base = base;
    table->limit = limit;
    return STEP_NEXT;
}

static enum step store_table(struct cpu *cpu, const struct iop *op, const struct table_register *table)
{
    unsigned size = code64(cpu) ? 10 : 6;
    uint16_t limit = (uint16_t)table->limit;
    uint8_t bytes[10];

    if (umip_forbids(cpu))
        return step_fault(cpu, VECTOR_GP, 0);
    memcpy(bytes, &limit, 2);
    memcpy(bytes + 2, &table->base, 8);
    return op_mem_write(cpu, op, bytes, size) < 0 ? STEP_FAULT : STEP_NEXT;
}

enum step interp_lgdt(struct cpu *cpu, const struct iop *op)
{
    return load_table(cpu, op, &cpu->gdtr);
}
enum step interp_lidt(struct cpu *cpu, const struct iop *op)
{
    return load_table(cpu, op, &cpu->idtr);
}
enum step interp_sgdt(struct cpu *cpu, const struct iop *op)
{
    return store_table(cpu, op, &cpu->gdtr);
}
enum step interp_sidt(struct cpu *cpu, const struct iop *op)
{
    return store_table(cpu, op, &cpu->idtr);
}

/* ---- LDTR, TR ---- */

static bool outside_protected(const struct cpu *cpu)
{
    return !cpu_protected(cpu) || cpu_v86(cpu);
}

/* The common part of LLDT and LTR: a system descriptor from the GDT. 0 or -1. */
static int read_gdt_descriptor(struct cpu *cpu, uint16_t selector, struct descriptor *d)
{
    int result = selector & 4 ? 1 : descriptor_read(cpu, selector, cpu_long_mode(cpu), d);

    if (result <= 0)
        return result;
    return raise_fault(cpu, VECTOR_GP, selector_error(selector, 0));
}

static struct segment_register system_segment(const struct descriptor *d, uint16_t selector)
{
    return (struct segment_register){
        .base = descriptor_base(d),
        .limit = descriptor_limit(d),
        .attributes = descriptor_attributes(d),
        .selector = selector,
    };
}

enum step interp_lldt(struct cpu *cpu, const struct iop *op)
{
    struct descriptor d = { 0 };
    uint64_t value;
    uint16_t selector;

    if (outside_protected(cpu))
        return step_fault(cpu, VECTOR_UD, 0);
    if (cpu->cpl)
        return step_fault(cpu, VECTOR_GP, 0);
    if (operand_read(cpu, op, 0, &value) < 0)
        return STEP_FAULT;
    selector = (uint16_t)value;
    if (!(selector & 0xfffc)) {
        cpu->ldtr = segment_null(selector, 0);
        return STEP_NEXT;
    }
    if (read_gdt_descriptor(cpu, selector, &d) < 0)
        return STEP_FAULT;
    if (descriptor_is_segment(&d) || descriptor_type(&d) != SYS_LDT || !is_canonical(descriptor_base(&d)))
        return step_fault(cpu, VECTOR_GP, selector_error(selector, 0));
    if (!descriptor_present(&d))
        return step_fault(cpu, VECTOR_NP, selector_error(selector, 0));
    cpu->ldtr = system_segment(&d, selector);
    return STEP_NEXT;
}

enum step interp_ltr(struct cpu *cpu, const struct iop *op)
{
    struct descriptor d = { 0 };
    uint64_t value;
    uint16_t selector;

    if (outside_protected(cpu))
        return step_fault(cpu, VECTOR_UD, 0);
    if (cpu->cpl)
        return step_fault(cpu, VECTOR_GP, 0);
    if (operand_read(cpu, op, 0, &value) < 0)
        return STEP_FAULT;
    selector = (uint16_t)value;
    if (!(selector & 0xfffc))
        return step_fault(cpu, VECTOR_GP, 0);
    if (read_gdt_descriptor(cpu, selector, &d) < 0)
        return STEP_FAULT;
    if (descriptor_is_segment(&d) || !is_canonical(descriptor_base(&d)) ||
        !(descriptor_type(&d) == SYS_TSS || (descriptor_type(&d) == SYS_TSS16 && !cpu_long_mode(cpu))))
        return step_fault(cpu, VECTOR_GP, selector_error(selector, 0));
    if (!descriptor_present(&d))
        return step_fault(cpu, VECTOR_NP, selector_error(selector, 0));
    if (descriptor_set_busy(cpu, &d) < 0)
        return STEP_FAULT;
    cpu->tr = system_segment(&d, selector);
    return STEP_NEXT;
}

static enum step store_selector(struct cpu *cpu, const struct iop *op, uint16_t selector)
{
    if (outside_protected(cpu))
        return step_fault(cpu, VECTOR_UD, 0);
    if (umip_forbids(cpu))
        return step_fault(cpu, VECTOR_GP, 0);
    return operand_write(cpu, op, 0, selector) < 0 ? STEP_FAULT : STEP_NEXT;
}

enum step interp_sldt(struct cpu *cpu, const struct iop *op)
{
    return store_selector(cpu, op, cpu->ldtr.selector);
}
enum step interp_str(struct cpu *cpu, const struct iop *op)
{
    return store_selector(cpu, op, cpu->tr.selector);
}

/* ---- LAR, LSL, VERR, VERW: ZF says whether the selector passes ---- */

static enum step set_zf(struct cpu *cpu, bool value)
{
    cpu->rflags = value ? cpu->rflags | FLAG_ZF : cpu->rflags & ~(uint64_t)FLAG_ZF;
    return STEP_NEXT;
}

static bool visible(const struct cpu *cpu, uint16_t selector, const struct descriptor *d)
{
    unsigned dpl = descriptor_dpl(d);

    if (descriptor_is_code(d) && descriptor_conforming(d))
        return true;
    return cpu->cpl <= dpl && (selector & 3u) <= dpl;
}

/* Types that LAR and LSL accept among system descriptors (tables 3-53 and 3-54 of SDM Vol. 2A). */
static bool system_type_accepted(const struct cpu *cpu, unsigned type, bool lar)
{
    const unsigned common = 1u << SYS_LDT | 1u << SYS_TSS | 1u << SYS_TSS_BUSY;
    const unsigned legacy = 1u << SYS_TSS16 | 1u << SYS_TSS16_BUSY;
    unsigned mask = common;

    if (!cpu_long_mode(cpu))
        mask |= legacy;
    if (lar)
        mask |= 1u << SYS_CALL_GATE | (cpu_long_mode(cpu) ? 0 : 1u << SYS_CALL_GATE16 | 1u << SYS_TASK_GATE);
    return mask >> type & 1;
}

/* The descriptor that a selector operand names, if there is one and it may be seen: 1, 0, or -1 (fault). */
static int probe_selector(struct cpu *cpu, const struct iop *op, unsigned operand, uint16_t *selector,
                          struct descriptor *d)
{
    uint64_t value;
    int result;

    if (outside_protected(cpu))
        return raise_fault(cpu, VECTOR_UD, 0);
    if (operand_read(cpu, op, operand, &value) < 0)
        return -1;
    *selector = (uint16_t)value;
    if (!(*selector & 0xfffc))
        return 0;
    result = descriptor_read(cpu, *selector, false, d);
    if (result)
        return result < 0 ? -1 : 0;
    return visible(cpu, *selector, d);
}

enum step interp_lar(struct cpu *cpu, const struct iop *op)
{
    struct descriptor d;
    uint16_t selector;
    int found = probe_selector(cpu, op, 1, &selector, &d);

    if (found < 0)
        return STEP_FAULT;
    if (!found || (!descriptor_is_segment(&d) && !system_type_accepted(cpu, descriptor_type(&d), true)))
        return set_zf(cpu, false);
    gpr_write(cpu, &op->insn.operands[0], d.low >> 32 & 0xf0ff00);
    return set_zf(cpu, true);
}

enum step interp_lsl(struct cpu *cpu, const struct iop *op)
{
    struct descriptor d;
    uint16_t selector;
    int found = probe_selector(cpu, op, 1, &selector, &d);

    if (found < 0)
        return STEP_FAULT;
    if (!found || (!descriptor_is_segment(&d) && !system_type_accepted(cpu, descriptor_type(&d), false)))
        return set_zf(cpu, false);
    gpr_write(cpu, &op->insn.operands[0], descriptor_limit(&d));
    return set_zf(cpu, true);
}

enum step interp_verr(struct cpu *cpu, const struct iop *op)
{
    struct descriptor d;
    uint16_t selector;
    int found = probe_selector(cpu, op, 0, &selector, &d);

    return found < 0 ? STEP_FAULT : set_zf(cpu, found && descriptor_readable(&d));
}

enum step interp_verw(struct cpu *cpu, const struct iop *op)
{
    struct descriptor d;
    uint16_t selector;
    int found = probe_selector(cpu, op, 0, &selector, &d);

    return found < 0 ? STEP_FAULT : set_zf(cpu, found && descriptor_writable(&d));
}

enum step interp_arpl(struct cpu *cpu, const struct iop *op)
{
    uint64_t destination, source;

    if (outside_protected(cpu))
        return step_fault(cpu, VECTOR_UD, 0);
    if (operand_read(cpu, op, 0, &destination) < 0 || operand_read(cpu, op, 1, &source) < 0)
        return STEP_FAULT;
    if ((destination & 3) >= (source & 3))
        return set_zf(cpu, false);
    if (operand_write(cpu, op, 0, (destination & ~3ull) | (source & 3)) < 0)
        return STEP_FAULT;
    return set_zf(cpu, true);
}
