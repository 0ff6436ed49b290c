/* Far transfers: JMP, CALL and RET with a code segment, directly and through call gates. SDM Vol. 3A 5.8; Vol. 2A CALL,
 * JMP; Vol. 2B RET. Everything is read and checked before anything changes.
 *
 * Far jumps and calls to a TSS or task gate wait for task switches: #UD, counted and logged. */
#include "cpu/interp/interp_far.h"

#include <string.h>

/* ---- Where a far JMP or CALL goes ---- */

struct far_pointer {
    uint16_t selector;
    uint64_t offset;
};

static int read_far_pointer(struct cpu *cpu, const struct iop *op, struct far_pointer *far)
{
    unsigned size = op->insn.operand_size;
    uint8_t bytes[10];

    far->offset = 0;
    if (op->insn.operands[0].kind == OPERAND_FAR) {
        far->offset = size == 2 ? (uint16_t)op->insn.imm : (uint32_t)op->insn.imm;
        far->selector = (uint16_t)op->insn.imm2;
        return 0;
    }
    if (op_mem_read(cpu, op, bytes, size + 2) < 0)
        return -1;
    memcpy(&far->offset, bytes, size);
    memcpy(&far->selector, bytes + size, 2);
    return 0;
}

/* The instruction pointer in its new segment: canonical in 64-bit code, else inside the limit. */
int far_check_offset(struct cpu *cpu, const struct segment_register *cs, uint64_t offset)
{
    bool valid = cpu_long_mode(cpu) && (cs->attributes & SEG_ATTR_L) ? is_canonical(offset) : offset <= cs->limit;

    return valid ? 0 : raise_fault(cpu, VECTOR_GP, 0);
}

/* A segment with both L and D set is reserved in long mode. */
bool far_reserved_code(const struct cpu *cpu, const struct descriptor *d)
{
    return cpu_long_mode(cpu) && descriptor_long(d) && descriptor_db(d);
}

/* A code segment named directly. */
static int check_direct(struct cpu *cpu, uint16_t selector, struct descriptor *d, uint64_t offset,
                        struct segment_register *cs)
{
    unsigned dpl = descriptor_dpl(d), rpl = selector & 3;
    bool allowed = descriptor_conforming(d) ? dpl <= cpu->cpl : rpl <= cpu->cpl && dpl == cpu->cpl;

    if (!allowed || far_reserved_code(cpu, d))
        return raise_fault(cpu, VECTOR_GP, selector_error(selector, 0));
    if (!descriptor_present(d))
        return raise_fault(cpu, VECTOR_NP, selector_error(selector, 0));
    *cs = descriptor_segment(d, (uint16_t)((selector & ~3u) | cpu->cpl));
    if (far_check_offset(cpu, cs, offset) < 0)
        return -1;
    return descriptor_set_accessed(cpu, d);
}

/* What a call gate leads to. */
struct gate_target {
    struct segment_register cs;
    uint64_t offset;
    unsigned cpl, width, parameters;
};

static int read_call_gate(struct cpu *cpu, uint16_t selector, struct descriptor *gate, struct gate_target *target)
{
    unsigned dpl = descriptor_dpl(gate), type = descriptor_type(gate);

    if (cpu_long_mode(cpu)) {
        int result = descriptor_read(cpu, selector, true, gate);

        if (result) /* its upper half may lie beyond the limit */
            return result < 0 ? -1 : raise_fault(cpu, VECTOR_GP, selector_error(selector, 0));
        if (gate->high >> 40 & 0x1f)
            return raise_fault(cpu, VECTOR_GP, selector_error(selector, 0));
    }
    if (dpl < cpu->cpl || (selector & 3u) > dpl)
        return raise_fault(cpu, VECTOR_GP, selector_error(selector, 0));
    if (!descriptor_present(gate))
        return raise_fault(cpu, VECTOR_NP, selector_error(selector, 0));
    target->offset = gate->low & 0xffff;
    if (type == SYS_CALL_GATE)
        target->offset |= (gate->low >> 32 & 0xffff0000) | gate->high << 32;
    target->width = cpu_long_mode(cpu) ? 8 : type == SYS_CALL_GATE ? 4 : 2;
    target->parameters = cpu_long_mode(cpu) ? 0 : gate->low >> 32 & 31;
    return 0;
}

static int check_gate_code(struct cpu *cpu, uint16_t selector, bool jump, struct gate_target *target)
{
    struct descriptor d;
    int result;

    if (!(selector & 0xfffc))
        return raise_fault(cpu, VECTOR_GP, 0);
    result = descriptor_read(cpu, selector, false, &d);
    if (result < 0)
        return -1;
    if (result || !descriptor_is_code(&d) || descriptor_dpl(&d) > cpu->cpl)
        return raise_fault(cpu, VECTOR_GP, selector_error(selector, 0));
    if (jump && !descriptor_conforming(&d) && descriptor_dpl(&d) != cpu->cpl)
        return raise_fault(cpu, VECTOR_GP, selector_error(selector, 0));
    if (cpu_long_mode(cpu) && (!descriptor_long(&d) || descriptor_db(&d)))
        return raise_fault(cpu, VECTOR_GP, selector_error(selector, 0));
    if (!descriptor_present(&d))
        return raise_fault(cpu, VECTOR_NP, selector_error(selector, 0));
    target->cpl = descriptor_conforming(&d) ? cpu->cpl : descriptor_dpl(&d);
    target->cs = descriptor_segment(&d, (uint16_t)((selector & ~3u) | target->cpl));
    if (far_check_offset(cpu, &target->cs, target->offset) < 0)
        return -1;
    return descriptor_set_accessed(cpu, &d);
}

/* Reads the descriptor that a far pointer names. 1: a code segment; 0: a call gate, *target filled; -1: fault. */
static int resolve(struct cpu *cpu, uint16_t selector, bool jump, struct descriptor *d, struct gate_target *target)
{
    unsigned type;
    int result;

    if (!(selector & 0xfffc))
        return raise_fault(cpu, VECTOR_GP, 0);
    result = descriptor_read(cpu, selector, false, d);
    if (result)
        return result < 0 ? -1 : raise_fault(cpu, VECTOR_GP, selector_error(selector, 0));
    if (descriptor_is_code(d))
        return 1;
    type = descriptor_type(d);
    if (descriptor_is_segment(d))
        return raise_fault(cpu, VECTOR_GP, selector_error(selector, 0));
    if (type == SYS_CALL_GATE || (type == SYS_CALL_GATE16 && !cpu_long_mode(cpu))) {
        if (read_call_gate(cpu, selector, d, target) < 0)
            return -1;
        return check_gate_code(cpu, (uint16_t)(d->low >> 16), jump, target);
    }
    if (!cpu_long_mode(cpu) && (type == SYS_TSS || type == SYS_TSS16 || type == SYS_TASK_GATE))
        return system_unimplemented(cpu, "far transfer that switches tasks");
    return raise_fault(cpu, VECTOR_GP, selector_error(selector, 0));
}

/* ---- JMP ---- */

static enum step jump_real(struct cpu *cpu, const struct far_pointer *far)
{
    if (far->offset > cpu->segs[SEG_CS].limit)
        return step_fault(cpu, VECTOR_GP, 0);
    segment_load_real(cpu, SEG_CS, far->selector);
    cpu->cpu_rip = far->offset;
    return STEP_BRANCH;
}

enum step interp_jmp_far(struct cpu *cpu, const struct iop *op)
{
    struct gate_target target;
    struct far_pointer far;
    struct descriptor d;
    int kind;

    if (read_far_pointer(cpu, op, &far) < 0)
        return STEP_FAULT;
    if (!cpu_protected(cpu) || cpu_v86(cpu))
        return jump_real(cpu, &far);
    kind = resolve(cpu, far.selector, true, &d, &target);
    if (kind < 0)
        return STEP_FAULT;
    if (kind) {
        target.offset = far.offset;
        if (check_direct(cpu, far.selector, &d, far.offset, &target.cs) < 0)
            return STEP_FAULT;
    }
    segment_commit(cpu, SEG_CS, &target.cs);
    cpu->cpu_rip = target.offset;
    return STEP_BRANCH;
}

/* ---- CALL ---- */

static enum step call_same_stack(struct cpu *cpu, const struct iop *op, const struct segment_register *cs,
                                 uint64_t offset, unsigned width)
{
    struct frame frame = frame_current(cpu, width);
    uint64_t sp;

    frame_push(&frame, cpu->segs[SEG_CS].selector);
    frame_push(&frame, iop_next_ip(cpu, op));
    if (frame_write(cpu, &frame, 0, &sp) < 0)
        return STEP_FAULT;
    stack_commit(cpu, sp);
    segment_commit(cpu, SEG_CS, cs);
    cpu->cpu_rip = offset;
    return STEP_BRANCH;
}

static enum step call_real(struct cpu *cpu, const struct iop *op, const struct far_pointer *far)
{
    struct segment_register cs = cpu->segs[SEG_CS];

    if (far->offset > cs.limit)
        return step_fault(cpu, VECTOR_GP, 0);
    cs.selector = far->selector;
    cs.base = (uint32_t)far->selector << 4;
    return call_same_stack(cpu, op, &cs, far->offset, op->insn.operand_size);
}

/* The caller's parameters, first pushed first. */
static int copy_parameters(struct cpu *cpu, const struct gate_target *target, struct frame *frame)
{
    uint64_t rsp = cpu->gpr[REG_RSP], words[31];

    for (unsigned i = 0; i < target->parameters; i++)
        if (stack_pop(cpu, &rsp, &words[i], target->width) < 0)
            return -1;
    for (unsigned i = target->parameters; i > 0; i--)
        frame_push(frame, words[i - 1]);
    return 0;
}

static enum step call_inner(struct cpu *cpu, const struct iop *op, const struct gate_target *target)
{
    struct segment_register ss = segment_null((uint16_t)target->cpl, target->cpl);
    struct frame frame = { .cpl = target->cpl, .width = target->width, .flat64 = cpu_long_mode(cpu) };
    uint32_t ss_error = 0;
    uint64_t sp;

    if (cpu_long_mode(cpu)) {
        if (frame_stack64(cpu, target->cpl, 0, &frame.sp) < 0)
            return STEP_FAULT;
    } else {
        if (frame_inner_stack(cpu, target->cpl, 0, &ss, &frame.sp) < 0)
            return STEP_FAULT;
        ss_error = selector_error(ss.selector, 0);
    }
    frame.ss = ss;
    frame_push(&frame, cpu->segs[SEG_SS].selector);
    frame_push(&frame, cpu->gpr[REG_RSP]);
    if (copy_parameters(cpu, target, &frame) < 0)
        return STEP_FAULT;
    frame_push(&frame, cpu->segs[SEG_CS].selector);
    frame_push(&frame, iop_next_ip(cpu, op));
    if (frame_write(cpu, &frame, ss_error, &sp) < 0)
        return STEP_FAULT;
    segment_commit(cpu, SEG_SS, &ss);
    segment_commit(cpu, SEG_CS, &target->cs);
    frame_set_sp(cpu, sp);
    cpu->cpu_rip = target->offset;
    return STEP_BRANCH;
}

enum step interp_call_far(struct cpu *cpu, const struct iop *op)
{
    struct gate_target target;
    struct far_pointer far;
    struct descriptor d;
    int kind;

    if (read_far_pointer(cpu, op, &far) < 0)
        return STEP_FAULT;
    if (!cpu_protected(cpu) || cpu_v86(cpu))
        return call_real(cpu, op, &far);
    kind = resolve(cpu, far.selector, false, &d, &target);
    if (kind < 0)
        return STEP_FAULT;
    if (kind) {
        if (check_direct(cpu, far.selector, &d, far.offset, &target.cs) < 0)
            return STEP_FAULT;
        return call_same_stack(cpu, op, &target.cs, far.offset, op->insn.operand_size);
    }
    if (target.cpl < cpu->cpl)
        return call_inner(cpu, op, &target);
    return call_same_stack(cpu, op, &target.cs, target.offset, target.width);
}

/* ---- Returns: what RET far and IRET share ---- */

int far_check_return_code(struct cpu *cpu, uint16_t selector, uint64_t offset, struct segment_register *cs)
{
    struct descriptor d;
    unsigned rpl = selector & 3;
    int result;

    if (!(selector & 0xfffc))
        return raise_fault(cpu, VECTOR_GP, 0);
    result = descriptor_read(cpu, selector, false, &d);
    if (result < 0)
        return -1;
    if (result || !descriptor_is_code(&d) || rpl < cpu->cpl || far_reserved_code(cpu, &d) ||
        (descriptor_conforming(&d) ? descriptor_dpl(&d) > rpl : descriptor_dpl(&d) != rpl))
        return raise_fault(cpu, VECTOR_GP, selector_error(selector, 0));
    if (!descriptor_present(&d))
        return raise_fault(cpu, VECTOR_NP, selector_error(selector, 0));
    *cs = descriptor_segment(&d, selector);
    if (far_check_offset(cpu, cs, offset) < 0)
        return -1;
    return descriptor_set_accessed(cpu, &d);
}

int far_check_return_stack(struct cpu *cpu, uint16_t selector, const struct segment_register *cs,
                           struct segment_register *ss)
{
    unsigned cpl = cs->selector & 3;
    bool to64 = cpu_long_mode(cpu) && (cs->attributes & SEG_ATTR_L);
    struct descriptor d;
    int result;

    if (!(selector & 0xfffc)) {
        if (!to64 || cpl == 3 || (selector & 3u) != cpl)
            return raise_fault(cpu, VECTOR_GP, 0);
        *ss = segment_null(selector, cpl);
        return 0;
    }
    result = descriptor_read(cpu, selector, false, &d);
    if (result < 0)
        return -1;
    if (result || (selector & 3u) != cpl || !descriptor_writable(&d) || descriptor_dpl(&d) != cpl)
        return raise_fault(cpu, VECTOR_GP, selector_error(selector, 0));
    if (!descriptor_present(&d))
        return raise_fault(cpu, VECTOR_SS, selector_error(selector, 0));
    if (descriptor_set_accessed(cpu, &d) < 0)
        return -1;
    *ss = descriptor_segment(&d, selector);
    return 0;
}

/* On a return to an outer level, data segments that it may not see become null (SDM Vol. 3A 5.8.6). */
static void drop_inner_segments(struct cpu *cpu)
{
    static const enum segment data[] = { SEG_ES, SEG_DS, SEG_FS, SEG_GS };

    for (unsigned i = 0; i < ARRAY_SIZE(data); i++) {
        const struct segment_register *s = &cpu->segs[data[i]];
        uint32_t a = s->attributes, conforming = SEG_TYPE_CODE | SEG_TYPE_EXPAND_DOWN_OR_CONFORMING;
        struct segment_register null = segment_null(0, 0);

        if ((a & SEG_ATTR_UNUSABLE) || (a >> SEG_ATTR_DPL_SHIFT & 3) >= cpu->cpl)
            continue;
        if ((a & conforming) == conforming)
            continue;
        segment_commit(cpu, data[i], &null);
    }
}

void far_return_commit(struct cpu *cpu, const struct segment_register *cs, uint64_t ip,
                       const struct segment_register *ss, uint64_t sp)
{
    bool outer = (cs->selector & 3) > cpu->cpl;

    if (!ss) { /* same stack: its width is still the old one */
        stack_commit(cpu, sp);
        segment_commit(cpu, SEG_CS, cs);
    } else {
        segment_commit(cpu, SEG_SS, ss);
        segment_commit(cpu, SEG_CS, cs);
        frame_set_sp(cpu, sp);
        if (outer)
            drop_inner_segments(cpu);
    }
    cpu->cpu_rip = ip;
}

/* ---- RET far ---- */

static enum step return_real(struct cpu *cpu, uint64_t ip, uint16_t selector, uint64_t rsp)
{
    if (ip > cpu->segs[SEG_CS].limit)
        return step_fault(cpu, VECTOR_GP, 0);
    stack_commit(cpu, rsp);
    segment_load_real(cpu, SEG_CS, selector);
    cpu->cpu_rip = ip;
    return STEP_BRANCH;
}

static enum step return_far(struct cpu *cpu, const struct iop *op, unsigned extra)
{
    unsigned size = op->insn.operand_size;
    uint64_t rsp = cpu->gpr[REG_RSP], ip, cs_word, ss_word, sp;
    struct segment_register cs, ss;

    if (stack_pop(cpu, &rsp, &ip, size) < 0 || stack_pop(cpu, &rsp, &cs_word, size) < 0)
        return STEP_FAULT;
    rsp = stack_advance(cpu, rsp, extra);
    if (!cpu_protected(cpu) || cpu_v86(cpu))
        return return_real(cpu, ip, (uint16_t)cs_word, rsp);
    if (far_check_return_code(cpu, (uint16_t)cs_word, ip, &cs) < 0)
        return STEP_FAULT;
    if ((cs_word & 3) == cpu->cpl) {
        far_return_commit(cpu, &cs, ip, NULL, rsp);
        return STEP_BRANCH;
    }
    if (stack_pop(cpu, &rsp, &sp, size) < 0 || stack_pop(cpu, &rsp, &ss_word, size) < 0)
        return STEP_FAULT;
    if (far_check_return_stack(cpu, (uint16_t)ss_word, &cs, &ss) < 0)
        return STEP_FAULT;
    far_return_commit(cpu, &cs, ip, &ss, sp + extra);
    return STEP_BRANCH;
}

enum step interp_ret_far(struct cpu *cpu, const struct iop *op)
{
    return return_far(cpu, op, 0);
}

enum step interp_ret_far_imm(struct cpu *cpu, const struct iop *op)
{
    return return_far(cpu, op, (uint16_t)op->insn.imm);
}
