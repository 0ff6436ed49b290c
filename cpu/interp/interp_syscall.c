/* Fast system calls: SYSCALL, SYSRET, SYSENTER, SYSEXIT. SDM Vol. 3A 5.8.7, 5.8.8; Vol. 2B; APM Vol. 3 for where an
 * AMD model differs: SYSCALL outside 64-bit mode, no SYSENTER in long mode, SYSRET with a non-canonical RCX. */
#include "cpu/interp/interp_internal.h"
#include "cpu/system_internal.h"

enum {
    CODE_ATTRIBUTES = 11 | SEG_ATTR_S | SEG_ATTR_P | SEG_ATTR_G,
    DATA_ATTRIBUTES = 3 | SEG_ATTR_S | SEG_ATTR_P | SEG_ATTR_G | SEG_ATTR_DB,
};

/* CS and SS are set to flat segments of privilege `cpl` without reading descriptors. `mode` is SEG_ATTR_L or _DB. In protected
 * mode, outside virtual-8086 mode; straight to the fields, since this is what a system call costs. */
static void set_flat_segments(struct cpu *cpu, uint16_t cs, uint16_t ss, unsigned cpl, uint32_t mode)
{
    uint32_t dpl = cpl << SEG_ATTR_DPL_SHIFT;
    struct segment_register flat = { .limit = 0xffffffff, .flat = true };

    cpu->segs[SEG_SS] = cpu->segs[SEG_CS] = flat;
    cpu->segs[SEG_SS].selector = ss;
    cpu->segs[SEG_SS].attributes = DATA_ATTRIBUTES | dpl;
    cpu->segs[SEG_CS].selector = (uint16_t)((cs & ~3u) | cpl);
    cpu->segs[SEG_CS].attributes = CODE_ATTRIBUTES | dpl | mode;
    cpu->cpl = (uint8_t)cpl;
    cpu_update_mode(cpu);
}

enum step interp_syscall(struct cpu *cpu, const struct iop *op)
{
    uint64_t star = cpu->msrs.star, next = iop_next_ip(cpu, op);
    uint16_t cs = (uint16_t)(star >> 32 & 0xfffc);
    bool amd = cpuid_model_is_amd(cpu->model), long_mode = cpu_long_mode(cpu);

    if (!(cpu->msrs.efer & EFER_SCE) || !cpu_protected(cpu) || (!code64(cpu) && !amd))
        return step_fault(cpu, VECTOR_UD, 0);
    cpu->gpr[REG_RCX] = next;
    if (long_mode) {
        cpu->gpr[REG_R11] = cpu->rflags & ~(uint64_t)FLAG_RF;
        cpu->cpu_rip = code64(cpu) ? cpu->msrs.lstar : cpu->msrs.cstar;
        cpu->rflags = (cpu->rflags & ~(cpu->msrs.fmask | FLAG_RF)) | 2;
    } else {
        cpu->cpu_rip = (uint32_t)star;
        cpu->rflags &= ~(uint64_t)(FLAG_IF | FLAG_RF | FLAG_VM);
    }
    if (!(cpu->rflags & FLAG_TF))
        cpu->step_trap = false;
    set_flat_segments(cpu, cs, (uint16_t)(cs + 8), 0, long_mode ? SEG_ATTR_L : SEG_ATTR_DB);
    return STEP_BRANCH;
}

enum step interp_sysret(struct cpu *cpu, const struct iop *op)
{
    uint16_t base = (uint16_t)(cpu->msrs.star >> 48);
    bool to64 = op->insn.operand_size == 8, amd = cpuid_model_is_amd(cpu->model), from64 = code64(cpu);
    uint64_t target = to64 ? cpu->gpr[REG_RCX] : (uint32_t)cpu->gpr[REG_RCX];

    if (!(cpu->msrs.efer & EFER_SCE) || !cpu_protected(cpu) || (!from64 && !amd))
        return step_fault(cpu, VECTOR_UD, 0);
    /* Intel checks before it leaves; on AMD the fetch at CPL 3 faults. */
    if (cpu->cpl || (!amd && !is_canonical(target)))
        return step_fault(cpu, VECTOR_GP, 0);
    if (cpu_long_mode(cpu))
        cpu->rflags = (cpu->gpr[REG_R11] & 0x3c7fd7) | 2;
    else
        cpu->rflags |= FLAG_IF;
    set_flat_segments(cpu, (uint16_t)(to64 ? base + 16 : base), (uint16_t)((base + 8) | 3), 3,
                      to64 ? SEG_ATTR_L : SEG_ATTR_DB);
    if (cpu->rflags & FLAG_TF) /* unlike IRET, it traps at once: the system call was the instruction that was stepped */
        cpu->pending_debug |= DR6_BS;
    cpu->cpu_rip = target;
    return STEP_BRANCH;
}

enum step interp_sysenter(struct cpu *cpu, const struct iop *op)
{
    uint16_t cs = (uint16_t)(cpu->msrs.sysenter_cs & 0xfffc);
    bool long_mode = cpu_long_mode(cpu);

    (void)op;
    if (long_mode && cpuid_model_is_amd(cpu->model))
        return step_fault(cpu, VECTOR_UD, 0);
    if (!cpu_protected(cpu) || !cs)
        return step_fault(cpu, VECTOR_GP, 0);
    cpu->rflags &= ~(uint64_t)(FLAG_VM | FLAG_IF | FLAG_RF);
    set_flat_segments(cpu, cs, (uint16_t)(cs + 8), 0, long_mode ? SEG_ATTR_L : SEG_ATTR_DB);
    cpu->gpr[REG_RSP] = long_mode ? cpu->msrs.sysenter_esp : (uint32_t)cpu->msrs.sysenter_esp;
    cpu->cpu_rip = long_mode ? cpu->msrs.sysenter_eip : (uint32_t)cpu->msrs.sysenter_eip;
    return STEP_BRANCH;
}

enum step interp_sysexit(struct cpu *cpu, const struct iop *op)
{
    uint16_t base = (uint16_t)(cpu->msrs.sysenter_cs & 0xfffc);
    bool to64 = op->insn.operand_size == 8;
    uint64_t rip = cpu->gpr[REG_RDX], rsp = cpu->gpr[REG_RCX];

    if (cpu_long_mode(cpu) && cpuid_model_is_amd(cpu->model))
        return step_fault(cpu, VECTOR_UD, 0);
    if (!cpu_protected(cpu) || cpu->cpl || !base)
        return step_fault(cpu, VECTOR_GP, 0);
    if (to64 && (!is_canonical(rip) || !is_canonical(rsp)))
        return step_fault(cpu, VECTOR_GP, 0);
    base = (uint16_t)(base + (to64 ? 32 : 16));
    set_flat_segments(cpu, base, (uint16_t)((base + 8) | 3), 3, to64 ? SEG_ATTR_L : SEG_ATTR_DB);
    cpu->cpu_rip = to64 ? rip : (uint32_t)rip;
    cpu->gpr[REG_RSP] = to64 ? rsp : (uint32_t)rsp;
    return STEP_BRANCH;
}
