/* Near control flow and the stack: jumps, calls, returns, loops, PUSH, POP and kin. Far
 * transfers are in interp_far.c. vCPU thread only. SDM Vol. 1 chapter 6, Vol. 2. */
#include "cpu/interp/interp_fast.h"

/* ---- Branch targets ---- */

/* Truncates to the operand size and checks the limit (or canonicality): a bad target faults at the branch. */
static enum step branch_to(struct cpu *cpu, const struct iop *op, uint64_t target)
{
    if (op->insn.operand_size == 2)
        target &= 0xffff;
    if (op->insn.code_size == CODE64 ? !is_canonical(target) : (target = (uint32_t)target) > cpu->segs[SEG_CS].limit)
        return step_fault(cpu, VECTOR_GP, 0);
    cpu->cpu_rip = target;
    return STEP_BRANCH;
}

static uint64_t relative_target(const struct cpu *cpu, const struct iop *op)
{
    return iop_next_ip(cpu, op) + (uint64_t)op->insn.imm;
}

enum step interp_jmp(struct cpu *cpu, const struct iop *op)
{
    return branch_to(cpu, op, relative_target(cpu, op));
}

enum step interp_jmp_ind(struct cpu *cpu, const struct iop *op)
{
    uint64_t target;
    return operand_read(cpu, op, 0, &target) ? STEP_FAULT : branch_to(cpu, op, target);
}

/* Not taken: the block goes on. */
enum step interp_jcc(struct cpu *cpu, const struct iop *op)
{
    return condition(cpu->rflags, op->insn.opcode & 15) ? branch_to(cpu, op, relative_target(cpu, op)) : STEP_NEXT;
}

#define JCC(cc)                                                                                                        \
    static enum step jcc64_##cc(struct cpu *cpu, const struct iop *op)                                                 \
    {                                                                                                                  \
        if (!condition(cpu->rflags, cc))                                                                               \
            return STEP_NEXT;                                                                                          \
        return branch_to(cpu, op, relative_target(cpu, op));                                                           \
    }
JCC(0)
JCC(1) JCC(2) JCC(3) JCC(4) JCC(5) JCC(6) JCC(7) JCC(8) JCC(9) JCC(10) JCC(11) JCC(12) JCC(13) JCC(14) JCC(15)

    static uint64_t address_mask(const struct iop *op)
{
    return op->insn.address_size == 8 ? ~0ull : op->insn.address_size == 4 ? 0xffffffffull : 0xffff;
}

enum step interp_jcxz(struct cpu *cpu, const struct iop *op)
{
    return cpu->gpr[REG_RCX] & address_mask(op) ? STEP_NEXT : branch_to(cpu, op, relative_target(cpu, op));
}

static enum step loop_if(struct cpu *cpu, const struct iop *op, bool flag)
{
    uint64_t mask = address_mask(op), old = cpu->gpr[REG_RCX], count = (old - 1) & mask;
    enum step step = STEP_NEXT;
    if (count && flag) {
        step = branch_to(cpu, op, relative_target(cpu, op));
        if (step == STEP_FAULT)
            return step;
    }
    cpu->gpr[REG_RCX] = mask == 0xffff ? (old & ~mask) | count : count;
    return step;
}
enum step interp_loop(struct cpu *cpu, const struct iop *op)
{
    return loop_if(cpu, op, true);
}
enum step interp_loope(struct cpu *cpu, const struct iop *op)
{
    return loop_if(cpu, op, cpu->rflags & FLAG_ZF);
}
enum step interp_loopne(struct cpu *cpu, const struct iop *op)
{
    return loop_if(cpu, op, !(cpu->rflags & FLAG_ZF));
}

/* ---- Calls and returns ---- */

static enum step call_to(struct cpu *cpu, const struct iop *op, uint64_t target)
{
    uint64_t rsp = cpu->gpr[REG_RSP], next = iop_next_ip(cpu, op), block = cpu->cpu_rip;
    enum step step = branch_to(cpu, op, target);
    if (step == STEP_FAULT) { /* if the push faults too, that comes first */
        struct fault fault = cpu->fault;
        gva_t gva;
        uint64_t top = stack_advance(cpu, rsp, -(int64_t)op->insn.operand_size);
        if (!mem_segment_linear(cpu, SEG_SS, top, op->insn.operand_size, true, cpu->code_size, &gva) &&
            !mem_probe_write_linear(cpu, gva, op->insn.operand_size, cpu->privilege, true))
            cpu->fault = fault;
        return step;
    }
    if (stack_push(cpu, &rsp, next, op->insn.operand_size)) {
        cpu->cpu_rip = block;
        return STEP_FAULT;
    }
    stack_commit(cpu, rsp);
    return step;
}

enum step interp_call(struct cpu *cpu, const struct iop *op)
{
    return call_to(cpu, op, relative_target(cpu, op));
}

enum step interp_call_ind(struct cpu *cpu, const struct iop *op)
{
    uint64_t target;
    return operand_read(cpu, op, 0, &target) ? STEP_FAULT : call_to(cpu, op, target);
}

static enum step return_near(struct cpu *cpu, const struct iop *op, unsigned release)
{
    uint64_t rsp = cpu->gpr[REG_RSP], target;
    if (stack_pop(cpu, &rsp, &target, op->insn.operand_size))
        return STEP_FAULT;
    enum step step = branch_to(cpu, op, target);
    if (step != STEP_FAULT)
        stack_commit(cpu, stack_advance(cpu, rsp, release));
    return step;
}

enum step interp_ret(struct cpu *cpu, const struct iop *op)
{
    return return_near(cpu, op, 0);
}

enum step interp_ret_imm(struct cpu *cpu, const struct iop *op)
{
    return return_near(cpu, op, (uint16_t)op->insn.imm);
}

/* ---- PUSH, POP ---- */

enum step interp_push(struct cpu *cpu, const struct iop *op)
{
    uint64_t value, rsp = cpu->gpr[REG_RSP];
    if (operand_read(cpu, op, 0, &value))
        return STEP_FAULT;
    if (op->insn.operands[0].kind == OPERAND_IMM)
        value = (uint64_t)op->insn.imm;
    if (stack_push(cpu, &rsp, value, op->insn.operand_size))
        return STEP_FAULT;
    stack_commit(cpu, rsp);
    return STEP_NEXT;
}

/* The address of a memory destination that uses rSP is computed after the increment; POP rSP leaves what was
 * popped. */
enum step interp_pop(struct cpu *cpu, const struct iop *op)
{
    uint64_t value, old = cpu->gpr[REG_RSP], rsp = old;
    if (stack_pop(cpu, &rsp, &value, op->insn.operand_size))
        return STEP_FAULT;
    stack_commit(cpu, rsp);
    if (operand_write(cpu, op, 0, value)) {
        cpu->gpr[REG_RSP] = old;
        return STEP_FAULT;
    }
    return STEP_NEXT;
}

static enum step push_r64(struct cpu *cpu, const struct iop *op)
{
    uint64_t top = cpu->gpr[REG_RSP] - 8;
    if (store(cpu, top, op->dst, 8, true))
        return STEP_FAULT;
    cpu->gpr[REG_RSP] = top;
    return STEP_NEXT;
}

static enum step pop_r64(struct cpu *cpu, const struct iop *op)
{
    uint64_t value;
    if (load(cpu, cpu->gpr[REG_RSP], &value, 8, true))
        return STEP_FAULT;
    cpu->gpr[REG_RSP] += 8;
    *(uint64_t *)op->dst = value;
    return STEP_NEXT;
}

static enum step call_rel64(struct cpu *cpu, const struct iop *op)
{
    uint64_t next = cpu->cpu_rip + op->end, target = next + (uint64_t)op->insn.imm, top = cpu->gpr[REG_RSP] - 8;
    if (!is_canonical(target))
        return step_fault(cpu, VECTOR_GP, 0);
    if (store(cpu, top, &next, 8, true))
        return STEP_FAULT;
    cpu->gpr[REG_RSP] = top;
    cpu->cpu_rip = target;
    return STEP_BRANCH;
}

static enum step ret64(struct cpu *cpu, const struct iop *op)
{
    uint64_t target;
    (void)op;
    if (load(cpu, cpu->gpr[REG_RSP], &target, 8, true))
        return STEP_FAULT;
    if (!is_canonical(target))
        return step_fault(cpu, VECTOR_GP, 0);
    cpu->gpr[REG_RSP] += 8;
    cpu->cpu_rip = target;
    return STEP_BRANCH;
}

iop_fn *interp_select_control(const struct iop *op)
{
    static iop_fn *const jcc[16] = {
        jcc64_0, jcc64_1, jcc64_2,  jcc64_3,  jcc64_4,  jcc64_5,  jcc64_6,  jcc64_7,
        jcc64_8, jcc64_9, jcc64_10, jcc64_11, jcc64_12, jcc64_13, jcc64_14, jcc64_15,
    };
    const struct insn *insn = &op->insn;
    if (insn->row->handler == HANDLER_jcc)
        return jcc[insn->opcode & 15];
    if (insn->code_size != CODE64 || insn->operand_size != 8)
        return NULL;
    switch (insn->row->handler) {
    case HANDLER_push:
        return insn->operands[0].kind == OPERAND_GPR ? push_r64 : NULL;
    case HANDLER_pop:
        return insn->operands[0].kind == OPERAND_GPR ? pop_r64 : NULL;
    case HANDLER_call:
        return call_rel64;
    case HANDLER_ret:
        return ret64;
    default:
        return NULL;
    }
}

/* ---- PUSHA, POPA ---- */

enum step interp_pusha(struct cpu *cpu, const struct iop *op)
{
    uint64_t rsp = cpu->gpr[REG_RSP];
    for (unsigned reg = REG_RAX; reg <= REG_RDI; reg++)
        if (stack_push(cpu, &rsp, cpu->gpr[reg], op->insn.operand_size))
            return STEP_FAULT;
    stack_commit(cpu, rsp);
    return STEP_NEXT;
}

enum step interp_popa(struct cpu *cpu, const struct iop *op)
{
    uint64_t rsp = cpu->gpr[REG_RSP], values[8];
    for (int reg = REG_RDI; reg >= REG_RAX; reg--)
        if (stack_pop(cpu, &rsp, &values[reg], op->insn.operand_size))
            return STEP_FAULT;
    struct operand o = { .kind = OPERAND_GPR, .size = op->insn.operand_size };
    for (o.reg = REG_RAX; o.reg <= REG_RDI; o.reg++)
        if (o.reg != REG_RSP)
            gpr_write(cpu, &o, values[o.reg]);
    stack_commit(cpu, rsp);
    return STEP_NEXT;
}

/* ---- PUSHF, POPF (SDM Vol. 2B, tables of POPF) ---- */

enum step interp_pushf(struct cpu *cpu, const struct iop *op)
{
    uint64_t rsp = cpu->gpr[REG_RSP];
    bool v86_low_iopl = cpu_v86(cpu) && (cpu->rflags & FLAG_IOPL) != FLAG_IOPL;
    if (v86_low_iopl) /* with CR4.VME and 16 bits VIF would stand in for IF: not there yet, so as without VME */
        return step_fault(cpu, VECTOR_GP, 0);
    if (stack_push(cpu, &rsp, cpu->rflags & ~(uint64_t)(FLAG_VM | FLAG_RF), op->insn.operand_size))
        return STEP_FAULT;
    stack_commit(cpu, rsp);
    return STEP_NEXT;
}

enum step interp_popf(struct cpu *cpu, const struct iop *op)
{
    uint64_t rsp = cpu->gpr[REG_RSP], value;
    unsigned iopl = cpu->rflags >> 12 & 3;
    if (cpu_v86(cpu) && iopl != 3)
        return step_fault(cpu, VECTOR_GP, 0);
    if (stack_pop(cpu, &rsp, &value, op->insn.operand_size))
        return STEP_FAULT;
    uint64_t mask = FLAGS_ARITH | FLAG_TF | FLAG_DF | FLAG_NT | FLAG_AC | FLAG_ID;
    bool protected_mode = cpu_protected(cpu) && !cpu_v86(cpu);
    if (!protected_mode || cpu->cpl <= iopl)
        mask |= FLAG_IF;
    if (!cpu_protected(cpu) || (protected_mode && cpu->cpl == 0))
        mask |= FLAG_IOPL;
    if (op->insn.operand_size == 2)
        mask &= 0xffff;
    stack_commit(cpu, rsp);
    uint64_t kept = cpu->rflags & ~(mask | FLAG_RF);
    if (op->insn.operand_size != 2 && protected_mode && cpu->cpl == 0)
        kept &= ~(uint64_t)(FLAG_VIP | FLAG_VIF);
    cpu_set_rflags(cpu, kept | (value & mask));
    return STEP_END;
}

/* ---- ENTER, LEAVE ---- */

enum step interp_enter(struct cpu *cpu, const struct iop *op)
{
    unsigned size = op->insn.operand_size, level = (unsigned)op->insn.imm2 & 31;
    uint64_t rsp = cpu->gpr[REG_RSP], frame_pointer = cpu->gpr[REG_RBP];
    if (stack_push(cpu, &rsp, frame_pointer, size))
        return STEP_FAULT;
    uint64_t frame = rsp;
    if (level) {
        for (unsigned i = 1; i < level; i++) {
            uint64_t value, at = stack_advance(cpu, frame_pointer, -(int64_t)(size * i));
            if (stack_pop(cpu, &at, &value, size) || stack_push(cpu, &rsp, value, size))
                return STEP_FAULT;
        }
        if (stack_push(cpu, &rsp, frame, size))
            return STEP_FAULT;
    }
    rsp = stack_advance(cpu, rsp, -(int64_t)(uint16_t)op->insn.imm);
    /* the new stack top must be writable, as if something were pushed there */
    uint64_t probe_rsp = stack_advance(cpu, rsp, 0);
    gva_t gva;
    if (mem_segment_linear(cpu, SEG_SS, probe_rsp, size, true, op->insn.code_size, &gva) ||
        mem_probe_write_linear(cpu, gva, size, cpu->privilege, true))
        return STEP_FAULT;
    struct operand rbp = { .kind = OPERAND_GPR, .reg = REG_RBP, .size = (uint16_t)size };
    gpr_write(cpu, &rbp, frame);
    stack_commit(cpu, rsp);
    return STEP_NEXT;
}

enum step interp_leave(struct cpu *cpu, const struct iop *op)
{
    uint64_t rsp = cpu->gpr[REG_RBP], value;
    if (stack_pop(cpu, &rsp, &value, op->insn.operand_size))
        return STEP_FAULT;
    stack_commit(cpu, rsp);
    struct operand rbp = { .kind = OPERAND_GPR, .reg = REG_RBP, .size = op->insn.operand_size };
    gpr_write(cpu, &rbp, value);
    return STEP_NEXT;
}
