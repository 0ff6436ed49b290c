/* Vector and MMX instructions: the checks that come first, and the handlers that run a host-op stub
 * with its memory operand redirected to guest RAM or a bounce buffer.
 *
 * Order of checks: #UD, #NM, #MF by exception class; then the address (#SS, #GP), its alignment (#GP before
 * #PF: design, 6a.18), the access (#PF), and last SIMD exceptions (#XM). Nothing is committed before the last
 * of them, but for MXCSR's flags and the change to MMX state where processors do so (finish, store_bounced).
 * vCPU thread only. SDM Vol. 2A 2.4 and 2.5 (exception classes), Vol. 3A table 13-1 (CR0.EM, MP, TS). */
#include <string.h>

#include "cpu/interp/interp_fast.h"
#include "cpu/interp/interp_hostop.h"
#include "cpu/xstate.h"

enum { CR0_EM = 1 << 2, CR0_TS = 1 << 3, CR4_OSFXSR = 1 << 9, CR4_OSXMMEXCPT = 1 << 10, CR4_OSXSAVE = 1 << 18 };

/* ---- Exception classes ---- */

static int check_task_switched(struct cpu *cpu)
{
    return unlikely(cpu->cr0 & CR0_TS) ? raise_fault(cpu, VECTOR_NM, 0) : 0;
}

static int check_sse(struct cpu *cpu)
{
    if (unlikely(cpu->cr0 & CR0_EM || !(cpu->cr4 & CR4_OSFXSR)))
        return raise_fault(cpu, VECTOR_UD, 0);
    return check_task_switched(cpu);
}

/* VEX and EVEX prefixes: protected mode, and the state components enabled. */
static int check_vex(struct cpu *cpu, uint64_t components)
{
    if (unlikely(!cpu_protected(cpu) || cpu_v86(cpu)))
        return raise_fault(cpu, VECTOR_UD, 0);
    if (unlikely(!(cpu->cr4 & CR4_OSXSAVE) || (cpu->xcr0 & components) != components))
        return raise_fault(cpu, VECTOR_UD, 0);
    return check_task_switched(cpu);
}

static int check_mmx(struct cpu *cpu)
{
    if (unlikely(cpu->cr0 & CR0_EM))
        return raise_fault(cpu, VECTOR_UD, 0);
    return check_task_switched(cpu) ? -1 : x87_check_pending(cpu);
}

static int check_x87(struct cpu *cpu, bool waiting)
{
    if (unlikely(cpu->cr0 & (CR0_EM | CR0_TS)))
        return raise_fault(cpu, VECTOR_NM, 0);
    return waiting ? x87_check_pending(cpu) : 0;
}

int vector_check_class(struct cpu *cpu, unsigned exception_class)
{
    const uint64_t avx = XSTATE_BIT_SSE | XSTATE_BIT_AVX;
    switch (exception_class) {
    case EXC_X87:
        return check_x87(cpu, true);
    case EXC_X87_NOWAIT:
        return check_x87(cpu, false);
    case EXC_MMX:
        return check_mmx(cpu);
    case EXC_SSE_INT_MMX:
        return check_sse(cpu) ? -1 : x87_check_pending(cpu);
    case EXC_SSE:
    case EXC_SSE_ALIGNED:
    case EXC_SSE_FP:
    case EXC_SSE_FP_ALIGNED:
        return check_sse(cpu);
    case EXC_VEX:
    case EXC_VEX_ALIGNED:
    case EXC_VEX_FP:
    case EXC_VEX_GATHER:
    case EXC_VEX_ZEROUPPER:
        return check_vex(cpu, avx);
    case EXC_OPMASK:
    case EXC_EVEX:
    case EXC_EVEX_ALIGNED:
    case EXC_EVEX_FP:
    case EXC_EVEX_GATHER:
        return check_vex(cpu, avx | XSTATE_AVX512);
    case EXC_VEX_GPR:
        return unlikely(!cpu_protected(cpu) || cpu_v86(cpu)) ? raise_fault(cpu, VECTOR_UD, 0) : 0;
    case EXC_AMX:
        return check_vex(cpu, 3ull << 17); /* XTILECFG, XTILEDATA */
    default:
        return 0;
    }
}

int check_exception_class(struct cpu *cpu, const struct insn_row *row)
{
    if (unlikely(!cpu_has(cpu, row->feature)))
        return raise_fault(cpu, VECTOR_UD, 0);
    return vector_check_class(cpu, row->exception_class);
}

enum step hostop_fault(struct cpu *cpu, const struct iop *op, enum hostop_outcome outcome)
{
    const struct hostop *hostop = op->stub;
    switch (outcome) {
    case HOSTOP_FP_EXCEPTION:
        if (hostop->kind == HOSTOP_X87)
            return step_fault(cpu, VECTOR_MF, 0);
        /* SDM Vol. 3A 6.15, #XM: without CR4.OSXMMEXCPT the exception is #UD */
        return step_fault(cpu, cpu->cr4 & CR4_OSXMMEXCPT ? VECTOR_XM : VECTOR_UD, 0);
    case HOSTOP_ILLEGAL:
        log_warn("internal error: the host does not execute %s", op->insn.row->mnemonic);
        return step_fault(cpu, VECTOR_UD, 0);
    default:
        log_warn("internal error: bad access in the host stub of %s", op->insn.row->mnemonic);
        return step_fault(cpu, VECTOR_GP, 0);
    }
}

/* ---- Running a stub ---- */

static void *slot_pointer(struct cpu *cpu, const struct iop *op, const struct hostop *hostop, enum hostop_slot slot)
{
    unsigned reg = op->insn.operands[hostop->slots[slot].operand].reg & hostop->slots[slot].mask;
    if (unlikely(hostop->slots[slot].kind == SLOT_MMX))
        return x87_mmx_register(&cpu->vector.fx, reg);
    return (char *)cpu + hostop->slots[slot].base + ((size_t)reg << hostop->slots[slot].shift);
}

static uint64_t run_stub(struct cpu *cpu, const struct iop *op, const struct hostop *hostop, void *memory)
{
    if (hostop->uses_mxcsr)
        hostop_enter_mxcsr(cpu);
    uint64_t result =
        hostop->code(memory, slot_pointer(cpu, op, hostop, SLOT_REG), slot_pointer(cpu, op, hostop, SLOT_RM),
                     slot_pointer(cpu, op, hostop, SLOT_VVVV), slot_pointer(cpu, op, hostop, SLOT_IS4), &cpu->vector);
    if (hostop->uses_mxcsr)
        hostop_leave_mxcsr(cpu);
    return result;
}

/* The instruction has succeeded: an MMX register that was written has ones above bit 63, and all
 * eight are valid now with TOP = 0 (SDM Vol. 1 9.5.1). */
static void commit_mmx(struct cpu *cpu, const struct iop *op, const struct hostop *hostop)
{
    struct fxsave_area *fx = &cpu->vector.fx;
    if (hostop->mmx_written) {
        uint8_t *reg = slot_pointer(cpu, op, hostop, hostop->mmx_written - 1);
        reg[8] = reg[9] = 0xff;
    }
    x87_enter_mmx(fx);
}

static enum step finish(struct cpu *cpu, const struct iop *op, const struct hostop *hostop, uint64_t result)
{
    if (unlikely((uint32_t)result)) {
        if (hostop->has_mmx && (uint32_t)result == HOSTOP_FP_EXCEPTION)
            x87_enter_mmx(&cpu->vector.fx); /* cvtps2pi and kin: the transition comes before the #XM */
        return hostop_fault(cpu, op, (uint32_t)result);
    }
    if (hostop->has_mmx)
        commit_mmx(cpu, op, hostop);
    if (hostop->writes_flags)
        set_flags(cpu, result >> 32, FLAGS_ARITH);
    return STEP_NEXT;
}

/* A store that does not go straight to RAM: page crossing, MMIO, pages with code. */
static enum step store_bounced(struct cpu *cpu, const struct iop *op, const struct hostop *hostop, gva_t gva)
{
    uint8_t bounce[64] __attribute__((aligned(64))) = { 0 };
    bool stack = op_uses_stack_segment(op);
    if (hostop->mem_access & ACCESS_R && mem_read_linear(cpu, gva, bounce, hostop->mem_size, cpu->privilege, stack))
        return STEP_FAULT;
    uint64_t result = run_stub(cpu, op, hostop, bounce);
    /* The one store with floating-point exceptions, VCVTPS2PH, leaves its flags in MXCSR although it faults. */
    if (!(uint32_t)result && mem_write_linear(cpu, gva, bounce, hostop->mem_size, cpu->privilege, stack)) {
        if (hostop->has_mmx)
            x87_set_top(&cpu->vector.fx, 0); /* a store from an MMX register faults in the middle of the transition */
        return STEP_FAULT;
    }
    return finish(cpu, op, hostop, result);
}

static enum step run_memory(struct cpu *cpu, const struct iop *op, const struct hostop *hostop)
{
    bool write = hostop->mem_access & ACCESS_W;
    gva_t gva;
    if (op_address(cpu, op, hostop->mem_size, write, &gva))
        return STEP_FAULT;
    if (unlikely(gva & hostop->align_mask))
        return step_fault(cpu, VECTOR_GP, 0);
    if (write) {
        uint8_t *host = fast_write(cpu, gva, hostop->mem_size);
        if (unlikely(!host))
            return store_bounced(cpu, op, hostop, gva);
        return finish(cpu, op, hostop, run_stub(cpu, op, hostop, host));
    }
    uint8_t *host = fast_read(cpu, gva, hostop->mem_size);
    if (likely(host))
        return finish(cpu, op, hostop, run_stub(cpu, op, hostop, host));
    uint8_t bounce[64] __attribute__((aligned(64)));
    if (mem_read_linear(cpu, gva, bounce, hostop->mem_size, cpu->privilege, op_uses_stack_segment(op)))
        return STEP_FAULT;
    return finish(cpu, op, hostop, run_stub(cpu, op, hostop, bounce));
}

enum step interp_vec(struct cpu *cpu, const struct iop *op)
{
    cpu_park_vectors(cpu);
    const struct hostop *hostop = op->stub;
    if (unlikely(hostop->kind == HOSTOP_UD))
        return step_fault(cpu, VECTOR_UD, 0);
    if (vector_check_class(cpu, hostop->exception_class))
        return STEP_FAULT;
    if (!hostop->mem_access)
        return finish(cpu, op, hostop, run_stub(cpu, op, hostop, NULL));
    if (likely(!cpu->alignment_check))
        return run_memory(cpu, op, hostop);
    /* conversions of half precision do not check alignment, all other operands of at most 8 bytes do */
    cpu->alignment_check = op->insn.row->feature != FEATURE_F16C;
    enum step step = run_memory(cpu, op, hostop);
    cpu->alignment_check = true;
    return step;
}

enum step interp_vec_flags(struct cpu *cpu, const struct iop *op)
{
    return interp_vec(cpu, op);
}

enum step interp_mmx(struct cpu *cpu, const struct iop *op)
{
    return interp_vec(cpu, op);
}

/* ---- Instructions on the whole state ---- */

enum step interp_emms(struct cpu *cpu, const struct iop *op)
{
    cpu_park_vectors(cpu);
    if (check_exception_class(cpu, op->insn.row))
        return STEP_FAULT;
    x87_set_top(&cpu->vector.fx, 0);
    cpu->vector.fx.ftw = 0;
    return STEP_NEXT;
}

/* VZEROUPPER (L = 0), VZEROALL (L = 1): registers 8 to 15 only in 64-bit mode, 16 to 31 never. */
enum step interp_zeroupper(struct cpu *cpu, const struct iop *op)
{
    cpu_park_vectors(cpu);
    if (check_exception_class(cpu, op->insn.row))
        return STEP_FAULT;
    unsigned count = op->insn.code_size == CODE64 ? 16 : 8;
    for (unsigned i = 0; i < count; i++)
        vector_zero_above(cpu, i, op->insn.vex.l ? 0 : 16);
    return STEP_NEXT;
}

enum step interp_ldmxcsr(struct cpu *cpu, const struct iop *op)
{
    cpu_park_vectors(cpu);
    uint32_t value;
    if (check_exception_class(cpu, op->insn.row) || op_mem_read(cpu, op, &value, sizeof(value)))
        return STEP_FAULT;
    if (value & ~cpu->vector.fx.mxcsr_mask)
        return step_fault(cpu, VECTOR_GP, 0);
    cpu->vector.fx.mxcsr = value;
    return STEP_NEXT;
}

enum step interp_stmxcsr(struct cpu *cpu, const struct iop *op)
{
    cpu_park_vectors(cpu);
    uint32_t value = cpu->vector.fx.mxcsr;
    if (check_exception_class(cpu, op->insn.row) || op_mem_write(cpu, op, &value, sizeof(value)))
        return STEP_FAULT;
    return STEP_NEXT;
}

/* AVX-512 and its mask registers are not offered by any CPU model yet. */
enum step interp_opmask(struct cpu *cpu, const struct iop *op)
{
    return interp_unimplemented(cpu, op);
}

enum step interp_scatter(struct cpu *cpu, const struct iop *op)
{
    return interp_unimplemented(cpu, op);
}
