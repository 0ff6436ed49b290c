/* Software interrupts and IRET. SDM Vol. 2A INT n/INTO/INT3/INT1, IRET/IRETD/IRETQ; Vol. 3A 6.12, 6.14. */
#include "cpu/interp/interp_far.h"

enum step interp_int(struct cpu *cpu, const struct iop *op)
{
    return cpu_software_interrupt(cpu, (uint8_t)op->insn.imm, iop_next_ip(cpu, op));
}

enum step interp_int3(struct cpu *cpu, const struct iop *op)
{
    return cpu_software_interrupt(cpu, VECTOR_BP, iop_next_ip(cpu, op));
}

enum step interp_into(struct cpu *cpu, const struct iop *op)
{
    if (!(cpu->rflags & FLAG_OF))
        return STEP_NEXT;
    return cpu_software_interrupt(cpu, VECTOR_OF, iop_next_ip(cpu, op));
}

enum step interp_int1(struct cpu *cpu, const struct iop *op)
{
    return cpu_software_debug(cpu, iop_next_ip(cpu, op));
}

/* ---- IRET ---- */

/* The flags that an IRET at privilege `cpl` may change. */
static uint64_t iret_flag_mask(unsigned cpl, unsigned iopl, unsigned size)
{
    uint64_t mask = FLAGS_ARITH | FLAG_TF | FLAG_DF | FLAG_NT;

    if (size > 2)
        mask |= FLAG_RF | FLAG_AC | FLAG_ID;
    if (cpl <= iopl)
        mask |= FLAG_IF;
    if (cpl == 0) {
        mask |= FLAG_IOPL;
        if (size > 2)
            mask |= FLAG_VIF | FLAG_VIP;
    }
    return mask;
}

static void iret_set_flags(struct cpu *cpu, unsigned old_cpl, uint64_t flags, unsigned size)
{
    uint64_t mask = iret_flag_mask(old_cpl, cpu->rflags >> 12 & 3, size);

    cpu_set_rflags(cpu, (cpu->rflags & ~mask) | (flags & mask));
}

static int pop_words(struct cpu *cpu, uint64_t *rsp, uint64_t *words, unsigned count, unsigned size)
{
    for (unsigned i = 0; i < count; i++)
        if (stack_pop(cpu, rsp, &words[i], size) < 0)
            return -1;
    return 0;
}

static enum step iret_real(struct cpu *cpu, unsigned size)
{
    uint64_t rsp = cpu->gpr[REG_RSP], words[3], mask = iret_flag_mask(0, 0, size) & ~(uint64_t)(FLAG_VIF | FLAG_VIP);

    if (pop_words(cpu, &rsp, words, 3, size) < 0)
        return STEP_FAULT;
    if (words[0] > cpu->segs[SEG_CS].limit)
        return step_fault(cpu, VECTOR_GP, 0);
    stack_commit(cpu, rsp);
    segment_load_real(cpu, SEG_CS, (uint16_t)words[1]);
    cpu->cpu_rip = words[0];
    cpu_set_rflags(cpu, (cpu->rflags & ~mask) | (words[2] & mask));
    return STEP_BRANCH;
}

enum step interp_iret(struct cpu *cpu, const struct iop *op)
{
    unsigned size = op->insn.operand_size, old_cpl = cpu->cpl;
    uint64_t rsp = cpu->gpr[REG_RSP], words[5]; /* IP, CS, FLAGS, SP, SS */
    struct segment_register cs, ss;
    bool stack_popped;

    cpu->nmi_blocked = false; /* even if the IRET faults (SDM Vol. 3A 6.7.1) */
    if (!cpu_protected(cpu))
        return iret_real(cpu, size);
    if (cpu->rflags & FLAG_NT) {
        if (!cpu_long_mode(cpu))
            system_unimplemented(cpu, "IRET to the previous task");
        return step_fault(cpu, cpu_long_mode(cpu) ? VECTOR_GP : VECTOR_UD, 0);
    }
    if (pop_words(cpu, &rsp, words, 3, size) < 0)
        return STEP_FAULT;
    if ((words[2] & FLAG_VM) && size == 4 && old_cpl == 0 && !cpu_long_mode(cpu)) {
        system_unimplemented(cpu, "IRET to virtual-8086 mode");
        return STEP_FAULT;
    }
    if (far_check_return_code(cpu, (uint16_t)words[1], words[0], &cs) < 0)
        return STEP_FAULT;
    /* 64-bit mode always pops SS:RSP. */
    stack_popped = code64(cpu) || (words[1] & 3) > old_cpl;
    if (stack_popped) {
        if (pop_words(cpu, &rsp, words + 3, 2, size) < 0 ||
            far_check_return_stack(cpu, (uint16_t)words[4], &cs, &ss) < 0)
            return STEP_FAULT;
        rsp = words[3];
    }
    far_return_commit(cpu, &cs, words[0], stack_popped ? &ss : NULL, rsp);
    iret_set_flags(cpu, old_cpl, words[2], size);
    return STEP_BRANCH;
}
