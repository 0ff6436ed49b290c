/* System instructions: control and debug registers, MSRs, time-stamp counter, cache and TLB control, interrupt
 * flag, FS/GS base, protection keys, XCR0, hypercalls. SDM Vol. 2; Vol. 3A 2.5 (control registers), 2.8.
 *
 * Privilege is checked here, not by the engine, so that each handler reads as its manual page does. Segment
 * registers and descriptor tables are in interp_segment.c. */
#include "cpu/debug.h"
#include "cpu/interp/interp_internal.h"
#include "cpu/system_internal.h"

static enum step general_protection(struct cpu *cpu)
{
    return step_fault(cpu, VECTOR_GP, 0);
}

static enum step undefined(struct cpu *cpu)
{
    return step_fault(cpu, VECTOR_UD, 0);
}

/* A GPR by number at the mode's full width: what MOV CR and MOV DR take. */
static uint64_t native_read(const struct cpu *cpu, unsigned reg)
{
    return code64(cpu) ? cpu->gpr[reg] : (uint32_t)cpu->gpr[reg];
}

static void native_write(struct cpu *cpu, unsigned reg, uint64_t value)
{
    cpu->gpr[reg] = code64(cpu) ? value : (uint32_t)value;
}

static void set_edx_eax(struct cpu *cpu, uint64_t value)
{
    cpu->gpr[REG_RAX] = (uint32_t)value;
    cpu->gpr[REG_RDX] = value >> 32;
}

static uint64_t edx_eax(const struct cpu *cpu)
{
    return (uint64_t)(uint32_t)cpu->gpr[REG_RDX] << 32 | (uint32_t)cpu->gpr[REG_RAX];
}

/* ---- Control registers ---- */

/* The checks that MOV CR0 and LMSW share (SDM Vol. 2B MOV to control registers). */
static bool cr0_valid(struct cpu *cpu, uint64_t value)
{
    uint64_t cr4 = cpu->cr4;
    bool paging_on = (value & CR0_PG) && !(cpu->cr0 & CR0_PG);
    bool paging_off = !(value & CR0_PG) && (cpu->cr0 & CR0_PG);
    uint64_t pdpte[4];

    if (value >> 32)
        return false;
    if (((value & CR0_PG) && !(value & CR0_PE)) || ((value & CR0_NW) && !(value & CR0_CD)))
        return false;
    if (paging_off && (code64(cpu) || (cr4 & CR4_PCIDE)))
        return false;
    if (paging_on && (cpu->msrs.efer & EFER_LME)) {
        unsigned tss = cpu->tr.attributes & SEG_ATTR_TYPE;

        /* Long mode begins: needs PAE, a CS that is not yet 64-bit, and no 16-bit TSS. */
        return (cr4 & CR4_PAE) && !(cpu->segs[SEG_CS].attributes & SEG_ATTR_L) && tss != SYS_TSS16 &&
               tss != SYS_TSS16_BUSY;
    }
    if ((value & CR0_PG) && (cr4 & CR4_PAE) && !cpu_long_mode(cpu) && ((value ^ cpu->cr0) & (CR0_PG | CR0_CD | CR0_NW)))
        return cpu_check_pdptes(cpu, cpu->cr3, pdpte);
    return true;
}

static enum step write_cr0(struct cpu *cpu, uint64_t value)
{
    const uint64_t defined =
        CR0_PE | CR0_MP | CR0_EM | CR0_TS | CR0_ET | CR0_NE | CR0_WP | CR0_AM | CR0_NW | CR0_CD | CR0_PG;

    if (!cr0_valid(cpu, value))
        return general_protection(cpu);
    cpu_set_cr0(cpu, value & defined);
    return STEP_END;
}

static enum step write_cr3(struct cpu *cpu, uint64_t value)
{
    unsigned physical_bits = cpuid_model_physical_bits(cpu->model);
    bool no_flush = false;
    uint64_t pdpte[4];

    if (cpu_long_mode(cpu)) {
        if (cpu->cr4 & CR4_PCIDE) {
            no_flush = value >> 63;
            value &= ~BIT(63);
        }
        if (value >> physical_bits)
            return general_protection(cpu);
    } else {
        value = (uint32_t)value;
        if (cpu_pae_paging(cpu) && !cpu_check_pdptes(cpu, value, pdpte))
            return general_protection(cpu);
    }
    cpu_set_cr3(cpu, value, no_flush);
    return STEP_END;
}

static bool cr4_valid(struct cpu *cpu, uint64_t value)
{
    uint64_t changed = value ^ cpu->cr4;
    uint64_t pdpte[4];

    if (value & ~cpu_cr4_valid(cpu))
        return false;
    if (cpu_long_mode(cpu) && (!(value & CR4_PAE) || (changed & CR4_LA57)))
        return false;
    if ((changed & value & CR4_PCIDE) && (!cpu_long_mode(cpu) || (cpu->cr3 & 0xfff)))
        return false;
    if ((value & CR4_PAE) && cpu_paging(cpu) && !cpu_long_mode(cpu) &&
        (changed & (CR4_PAE | CR4_PGE | CR4_PSE | CR4_SMEP)))
        return cpu_check_pdptes(cpu, cpu->cr3, pdpte);
    return true;
}

static enum step write_cr4(struct cpu *cpu, uint64_t value)
{
    if (!cr4_valid(cpu, value))
        return general_protection(cpu);
    cpu_set_cr4(cpu, value);
    return STEP_END;
}

static enum step write_cr8(struct cpu *cpu, uint64_t value)
{
    if (value & ~15ull)
        return general_protection(cpu);
    if (cpu->apic)
        cpu_apic(cpu)->set_tpr(cpu->apic, (uint8_t)(value << 4));
    return STEP_END;
}

enum step interp_mov_to_cr(struct cpu *cpu, const struct iop *op)
{
    uint64_t value = native_read(cpu, op->insn.operands[1].reg);

    if (cpu->cpl)
        return general_protection(cpu);
    switch (op->insn.operands[0].reg) {
    case 0:
        return write_cr0(cpu, value);
    case 2:
        cpu->cr2 = value;
        return STEP_NEXT;
    case 3:
        return write_cr3(cpu, value);
    case 4:
        return write_cr4(cpu, value);
    case 8:
        return write_cr8(cpu, value);
    default:
        return undefined(cpu);
    }
}

enum step interp_mov_from_cr(struct cpu *cpu, const struct iop *op)
{
    uint64_t value;

    if (cpu->cpl)
        return general_protection(cpu);
    switch (op->insn.operands[1].reg) {
    case 0:
        value = cpu->cr0;
        break;
    case 2:
        value = cpu->cr2;
        break;
    case 3:
        value = cpu->cr3;
        break;
    case 4:
        value = cpu->cr4;
        break;
    case 8:
        value = cpu->apic ? cpu_apic(cpu)->get_tpr(cpu->apic) >> 4 : 0;
        break;
    default:
        return undefined(cpu);
    }
    native_write(cpu, op->insn.operands[0].reg, value);
    return STEP_NEXT;
}

enum step interp_clts(struct cpu *cpu, const struct iop *op)
{
    (void)op;
    if (cpu->cpl)
        return general_protection(cpu);
    cpu_set_cr0(cpu, cpu->cr0 & ~(uint64_t)CR0_TS);
    return STEP_END;
}

enum step interp_lmsw(struct cpu *cpu, const struct iop *op)
{
    uint64_t value;

    if (cpu->cpl)
        return general_protection(cpu);
    if (operand_read(cpu, op, 0, &value) < 0)
        return STEP_FAULT;
    /* PE MP EM TS; PE can be set but not cleared. */
    value = (cpu->cr0 & ~(uint64_t)(CR0_MP | CR0_EM | CR0_TS)) | (value & 15);
    return write_cr0(cpu, value);
}

static bool umip_forbids(const struct cpu *cpu)
{
    return (cpu->cr4 & CR4_UMIP) && cpu->cpl;
}

enum step interp_smsw(struct cpu *cpu, const struct iop *op)
{
    if (umip_forbids(cpu))
        return general_protection(cpu);
    return operand_write(cpu, op, 0, cpu->cr0) < 0 ? STEP_FAULT : STEP_NEXT;
}

/* ---- Debug registers (SDM Vol. 3B 18.2) ---- */

/* Checks common to both directions; DR4 and DR5 are names of DR6 and DR7 unless CR4.DE. 0 or -1. */
static int check_dr_access(struct cpu *cpu, unsigned *n)
{
    if (*n > 7 || ((*n == 4 || *n == 5) && (cpu->cr4 & CR4_DE)))
        return raise_fault(cpu, VECTOR_UD, 0);
    if (cpu->cpl)
        return raise_fault(cpu, VECTOR_GP, 0);
    if (cpu->dr[7] & DR7_GD)
        return debug_raise(cpu, DR6_BD);
    if (*n == 4 || *n == 5)
        *n += 2;
    return 0;
}

enum step interp_mov_to_dr(struct cpu *cpu, const struct iop *op)
{
    uint64_t value = native_read(cpu, op->insn.operands[1].reg);
    unsigned n = op->insn.operands[0].reg;

    if (check_dr_access(cpu, &n) < 0)
        return STEP_FAULT;
    if (n >= 6 && value >> 32)
        return general_protection(cpu);
    if (n == 6)
        value = (value & 0xe00f) | DR6_RESET;
    else if (n == 7)
        value = (value & 0xffff23ff) | DR7_RESET;
    cpu->dr[n] = value;
    debug_update(cpu);
    return STEP_END; /* breakpoints may begin to count */
}

enum step interp_mov_from_dr(struct cpu *cpu, const struct iop *op)
{
    unsigned n = op->insn.operands[1].reg;

    if (check_dr_access(cpu, &n) < 0)
        return STEP_FAULT;
    native_write(cpu, op->insn.operands[0].reg, cpu->dr[n]);
    return STEP_NEXT;
}

/* ---- Interrupt flag, halt ---- */

static bool may_change_if(const struct cpu *cpu)
{
    return !cpu_protected(cpu) || cpu->cpl <= (cpu->rflags >> 12 & 3);
}

enum step interp_cli(struct cpu *cpu, const struct iop *op)
{
    if (!may_change_if(cpu))
        return general_protection(cpu);
    /* An interrupt that is due comes before CLI, or a loop whose interrupt window is the middle of one block would
     * never see it. At a block's start events have just been looked at (and CLI may be in the shadow of STI). */
    if (op->start && (cpu->rflags & FLAG_IF) &&
        (atomic_load_explicit(&cpu->events, memory_order_relaxed) & CPU_EVENT_INTR)) {
        cpu->cpu_rip = iop_ip(cpu, op);
        return STEP_REPEAT;
    }
    cpu->rflags &= ~(uint64_t)FLAG_IF;
    return STEP_NEXT;
}

enum step interp_sti(struct cpu *cpu, const struct iop *op)
{
    (void)op;
    if (!may_change_if(cpu))
        return general_protection(cpu);
    if (!(cpu->rflags & FLAG_IF)) {
        cpu->rflags |= FLAG_IF;
        cpu->interrupt_shadow = true;
    }
    return STEP_END;
}

enum step interp_hlt(struct cpu *cpu, const struct iop *op)
{
    (void)op;
    if (cpu->cpl)
        return general_protection(cpu);
    cpu->interrupt_shadow = cpu->debug_shadow = false; /* HLT was the one instruction after STI */
    cpu->activity = CPU_HALTED;
    return STEP_HALT;
}

/* MONITOR and MWAIT are not offered by any model; a model that forces them gets MWAIT as a no-op, which software
 * has to expect (SDM Vol. 2B MWAIT: false wake-ups). */
enum step interp_monitor(struct cpu *cpu, const struct iop *op)
{
    (void)op;
    if (!cpu_has(cpu, FEATURE_MONITOR) || cpu->cpl)
        return undefined(cpu);
    return (uint32_t)cpu->gpr[REG_RCX] ? general_protection(cpu) : STEP_NEXT;
}

enum step interp_mwait(struct cpu *cpu, const struct iop *op)
{
    (void)op;
    if (!cpu_has(cpu, FEATURE_MONITOR) || cpu->cpl)
        return undefined(cpu);
    return (uint32_t)cpu->gpr[REG_RCX] & ~1u ? general_protection(cpu) : STEP_END;
}

enum step interp_rsm(struct cpu *cpu, const struct iop *op)
{
    (void)op;
    if (cpu->in_smm)
        system_unimplemented(cpu, "RSM");
    return undefined(cpu); /* outside SMM it is #UD by definition */
}

/* ---- CPUID, MSRs, TSC ---- */

enum step interp_cpuid(struct cpu *cpu, const struct iop *op)
{
    struct cpuid_regs regs;

    (void)op;
    if ((cpu->msrs.misc_features & 1) && cpu->cpl) /* CPUID faulting */
        return general_protection(cpu);
    regs = cpu_cpuid(cpu, (uint32_t)cpu->gpr[REG_RAX], (uint32_t)cpu->gpr[REG_RCX]);
    cpu->gpr[REG_RAX] = regs.eax;
    cpu->gpr[REG_RBX] = regs.ebx;
    cpu->gpr[REG_RCX] = regs.ecx;
    cpu->gpr[REG_RDX] = regs.edx;
    return STEP_NEXT;
}

enum step interp_rdmsr(struct cpu *cpu, const struct iop *op)
{
    uint64_t value;

    (void)op;
    if (cpu->cpl || !cpu_msr_read(cpu, (uint32_t)cpu->gpr[REG_RCX], &value))
        return general_protection(cpu);
    set_edx_eax(cpu, value);
    return STEP_NEXT;
}

enum step interp_wrmsr(struct cpu *cpu, const struct iop *op)
{
    (void)op;
    if (cpu->cpl || !cpu_msr_write(cpu, (uint32_t)cpu->gpr[REG_RCX], edx_eax(cpu)))
        return general_protection(cpu);
    return STEP_END;
}

static bool tsc_forbidden(const struct cpu *cpu)
{
    return (cpu->cr4 & CR4_TSD) && cpu->cpl;
}

enum step interp_rdtsc(struct cpu *cpu, const struct iop *op)
{
    (void)op;
    if (tsc_forbidden(cpu))
        return general_protection(cpu);
    set_edx_eax(cpu, cpu_tsc(cpu));
    return STEP_NEXT;
}

enum step interp_rdtscp(struct cpu *cpu, const struct iop *op)
{
    (void)op;
    if (tsc_forbidden(cpu))
        return general_protection(cpu);
    set_edx_eax(cpu, cpu_tsc(cpu));
    cpu->gpr[REG_RCX] = (uint32_t)cpu->msrs.tsc_aux;
    return STEP_NEXT;
}

/* No counters are offered (CPUID leaf 0xA is empty), so every index is out of range. */
enum step interp_rdpmc(struct cpu *cpu, const struct iop *op)
{
    (void)op;
    return general_protection(cpu);
}

/* ---- Caches and TLB ---- */

/* Host caches are coherent with everything a guest can see: nothing to write back. */
enum step interp_invd(struct cpu *cpu, const struct iop *op)
{
    (void)op;
    return cpu->cpl ? general_protection(cpu) : STEP_NEXT;
}

enum step interp_wbinvd(struct cpu *cpu, const struct iop *op)
{
    (void)op;
    return cpu->cpl ? general_protection(cpu) : STEP_NEXT;
}

enum step interp_invlpg(struct cpu *cpu, const struct iop *op)
{
    gva_t gva = iop_effective_address(cpu, op) + *op->segment_base;

    if (cpu->cpl)
        return general_protection(cpu);
    if (!code64(cpu))
        gva = (uint32_t)gva;
    if (is_canonical(gva)) /* else a no-op (SDM Vol. 2A INVLPG) */
        mmu_invlpg(&cpu->mmu, gva);
    return STEP_END;
}

enum step interp_invpcid(struct cpu *cpu, const struct iop *op)
{
    uint64_t type = native_read(cpu, op->insn.operands[0].reg), descriptor[2];
    bool individual = type <= 1;

    if (cpu->cpl)
        return general_protection(cpu);
    if (op_mem_read(cpu, op, descriptor, 16) < 0)
        return STEP_FAULT;
    if (type > 3 || descriptor[0] >> 12)
        return general_protection(cpu);
    if (individual && !(cpu->cr4 & CR4_PCIDE) && descriptor[0])
        return general_protection(cpu);
    if (type == 0 && !is_canonical(descriptor[1]))
        return general_protection(cpu);
    mmu_invpcid(&cpu->mmu, (unsigned)type, (unsigned)descriptor[0], descriptor[1]);
    return STEP_END;
}

/* ---- FS and GS bases ---- */

enum step interp_swapgs(struct cpu *cpu, const struct iop *op)
{
    uint64_t base = cpu->segs[SEG_GS].base;

    (void)op;
    if (!code64(cpu))
        return undefined(cpu);
    if (cpu->cpl)
        return general_protection(cpu);
    cpu->segs[SEG_GS].base = cpu->msrs.kernel_gs_base;
    cpu->segs[SEG_GS].flat = false;
    cpu->msrs.kernel_gs_base = base;
    return STEP_NEXT;
}

static enum step read_base(struct cpu *cpu, const struct iop *op, enum segment seg)
{
    if (!code64(cpu) || !(cpu->cr4 & CR4_FSGSBASE))
        return undefined(cpu);
    gpr_write(cpu, &op->insn.operands[0], cpu->segs[seg].base);
    return STEP_NEXT;
}

static enum step write_base(struct cpu *cpu, const struct iop *op, enum segment seg)
{
    uint64_t base = gpr_read(cpu, &op->insn.operands[0]);

    if (!code64(cpu) || !(cpu->cr4 & CR4_FSGSBASE))
        return undefined(cpu);
    if (!is_canonical(base))
        return general_protection(cpu);
    cpu->segs[seg].base = base;
    cpu->segs[seg].flat = false;
    return STEP_NEXT;
}

enum step interp_rdfsbase(struct cpu *cpu, const struct iop *op)
{
    return read_base(cpu, op, SEG_FS);
}
enum step interp_rdgsbase(struct cpu *cpu, const struct iop *op)
{
    return read_base(cpu, op, SEG_GS);
}
enum step interp_wrfsbase(struct cpu *cpu, const struct iop *op)
{
    return write_base(cpu, op, SEG_FS);
}
enum step interp_wrgsbase(struct cpu *cpu, const struct iop *op)
{
    return write_base(cpu, op, SEG_GS);
}

/* ---- SMAP, protection keys, XCR0 ---- */

static enum step set_ac(struct cpu *cpu, bool value)
{
    if (cpu->cpl)
        return undefined(cpu);
    cpu_set_rflags(cpu, value ? cpu->rflags | FLAG_AC : cpu->rflags & ~(uint64_t)FLAG_AC);
    return STEP_NEXT;
}

enum step interp_clac(struct cpu *cpu, const struct iop *op)
{
    (void)op;
    return set_ac(cpu, false);
}

enum step interp_stac(struct cpu *cpu, const struct iop *op)
{
    (void)op;
    return set_ac(cpu, true);
}

enum step interp_rdpkru(struct cpu *cpu, const struct iop *op)
{
    (void)op;
    if (!(cpu->cr4 & CR4_PKE))
        return undefined(cpu);
    if ((uint32_t)cpu->gpr[REG_RCX])
        return general_protection(cpu);
    set_edx_eax(cpu, cpu->pkru);
    return STEP_NEXT;
}

enum step interp_wrpkru(struct cpu *cpu, const struct iop *op)
{
    (void)op;
    if (!(cpu->cr4 & CR4_PKE))
        return undefined(cpu);
    if ((uint32_t)cpu->gpr[REG_RCX] || (uint32_t)cpu->gpr[REG_RDX])
        return general_protection(cpu);
    cpu_set_pkru(cpu, (uint32_t)cpu->gpr[REG_RAX]);
    return STEP_END;
}

enum step interp_xgetbv(struct cpu *cpu, const struct iop *op)
{
    uint32_t index = (uint32_t)cpu->gpr[REG_RCX];

    (void)op;
    if (!(cpu->cr4 & CR4_OSXSAVE))
        return undefined(cpu);
    if (index == 0)
        set_edx_eax(cpu, cpu->xcr0);
    else if (index == 1 && cpu_has(cpu, FEATURE_XGETBV1)) /* XINUSE: all of it may be in use */
        set_edx_eax(cpu, cpu->xcr0);
    else
        return general_protection(cpu);
    return STEP_NEXT;
}

/* SDM Vol. 1 13.3: x87 always; AVX needs SSE; the three AVX-512 components together and with AVX. */
static bool xcr0_valid(const struct cpu *cpu, uint64_t value)
{
    const uint64_t avx512 = 7ull << 5, tiles = 3ull << 17;

    if (!(value & 1) || (value & ~cpuid_model_xcr0(cpu->model)))
        return false;
    if ((value & 4) && !(value & 2))
        return false;
    if ((value & avx512) && ((value & avx512) != avx512 || !(value & 4)))
        return false;
    return !(value & tiles) || (value & tiles) == tiles;
}

enum step interp_xsetbv(struct cpu *cpu, const struct iop *op)
{
    uint64_t value = edx_eax(cpu);

    (void)op;
    if (!(cpu->cr4 & CR4_OSXSAVE))
        return undefined(cpu);
    if (cpu->cpl || (uint32_t)cpu->gpr[REG_RCX] || !xcr0_valid(cpu, value))
        return general_protection(cpu);
    cpu->xcr0 = value;
    return STEP_END;
}

/* ---- Hypercalls ---- */

enum step interp_vmcall(struct cpu *cpu, const struct iop *op)
{
    uint64_t result;

    (void)op;
    if (!kvm_pv_offered(cpu))
        return undefined(cpu);
    result = kvm_pv_hypercall(cpu, native_read(cpu, REG_RAX));
    native_write(cpu, REG_RAX, result);
    return STEP_NEXT;
}
