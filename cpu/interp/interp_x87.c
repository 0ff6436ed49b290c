/* x87: arithmetic through host-op stubs, control instructions in C.
 *
 * The state is an FXSAVE image with st[] relative to TOP; the abridged tag byte goes by physical register. A stub
 * loads it, executes one instruction and stores it, so results, flags and stack faults are the host's.
 *
 * FIP, FDP and FOP are the guest's: FIP is written by every non-control instruction, FDP and FOP only by one that
 * incurs an unmasked exception (what CPUID.(7,0):EBX[6] announces); FCS and FDS read as zero (EBX[13]).
 *
 * An unmasked exception is deferred: the instruction leaves FSW.ES set and the next waiting one raises #MF.
 * CR0.NE = 0 (FERR# and IRQ 13) is not there: logged under unimp, #MF all the same.
 * vCPU thread only. SDM Vol. 1 chapter 8, Vol. 3A 2.5 (CR0.NE, MP, EM, TS). */
#include <string.h>

#include "cpu/interp/interp_fast.h"
#include "cpu/interp/interp_hostop.h"
#include "cpu/xstate.h"

enum {
    FSW_FLAGS = 0x3f,
    FSW_ES = 0x80,
    FSW_TOP_SHIFT = 11,
    FSW_TOP = 7 << FSW_TOP_SHIFT,
    FSW_B = 0x8000,
    CR0_MP = 1 << 1,
    CR0_TS = 1 << 3,
    CR0_NE = 1 << 5,
};

/* ---- The state ---- */

int x87_check_pending(struct cpu *cpu)
{
    if (likely(!(cpu->vector.fx.fsw & FSW_ES)))
        return 0;
    if (!(cpu->cr0 & CR0_NE))
        log_event(unimp, "x87 exception with CR0.NE = 0 (FERR#, IRQ 13): #MF instead");
    return raise_fault(cpu, VECTOR_MF, 0);
}

void x87_set_top(struct fxsave_area *fx, unsigned top)
{
    unsigned shift = (top - x87_top(fx)) & 7;
    uint8_t old[8][16];
    if (shift) {
        memcpy(old, fx->st, sizeof(old));
        for (unsigned i = 0; i < 8; i++)
            memcpy(fx->st[i], old[(i + shift) & 7], sizeof(old[0]));
    }
    fx->fsw = (uint16_t)((fx->fsw & ~FSW_TOP) | top << FSW_TOP_SHIFT);
}

void x87_update_summary(struct fxsave_area *fx)
{
    bool pending = fx->fsw & ~fx->fcw & FSW_FLAGS;
    fx->fsw = (uint16_t)((fx->fsw & ~(FSW_ES | FSW_B)) | (pending ? FSW_ES | FSW_B : 0));
}

void x87_enter_mmx(struct fxsave_area *fx)
{
    x87_set_top(fx, 0);
    fx->ftw = 0xff;
}

static void x87_init(struct fxsave_area *fx)
{
    x87_set_top(fx, 0);
    fx->fcw = FCW_FNINIT;
    fx->fsw = 0;
    fx->ftw = 0;
    fx->fop = 0;
    fx->fip = fx->fdp = 0;
}

uint32_t mxcsr_valid_mask(void)
{
    struct fxsave_area area;
    memset(&area, 0, sizeof(area));
    __asm__ volatile("fxsave64 %0" : "=m"(area));
    uint32_t mask = area.mxcsr_mask ? area.mxcsr_mask : 0xffbf;
    return mask & 0xffff; /* bit 17, AMD's misaligned mode, would take alignment checks away */
}

void vector_state_reset(struct vector_state *state)
{
    memset(state, 0, sizeof(*state));
    state->fx.fcw = FCW_RESET;
    state->fx.ftw = 0xff; /* tag word 5555H: valid zeros, not empty */
    state->fx.mxcsr = MXCSR_RESET;
    state->fx.mxcsr_mask = mxcsr_valid_mask();
}

/* ---- Arithmetic: through the host ---- */

/* FNENI, FNDISI, FNSETPM: control instructions that do nothing since the 387. */
static bool is_control_nop(const struct insn *insn)
{
    return insn->opcode == 0xdb && (insn->modrm == 0xe0 || insn->modrm == 0xe1 || insn->modrm == 0xe4);
}

static uint64_t run_x87(struct cpu *cpu, const struct iop *op, const struct hostop *hostop, void *memory)
{
    struct fxsave_area *fx = &cpu->vector.fx;
    uint64_t fdp = fx->fdp;
    uint16_t fop = fx->fop;
    uint32_t mxcsr_mask = fx->mxcsr_mask;
    uint64_t flags = (cpu->rflags & FLAGS_ARITH) | 2;
    uint64_t result = hostop->code(memory, NULL, NULL, (void *)(uintptr_t)flags, NULL, &cpu->vector);
    hostop_leave_mxcsr(cpu);
    if (unlikely((uint32_t)result))
        return result;
    /* what FXSAVE has just written here is the host's */
    fx->mxcsr_mask = mxcsr_mask;
    fx->fop = fop;
    fx->fdp = fdp;
    fx->fip = iop_ip(cpu, op);
    if (unlikely(fx->fsw & FSW_ES)) {
        fx->fop = (uint16_t)((op->insn.opcode & 7) << 8 | op->insn.modrm);
        if (hostop->mem_access)
            fx->fdp = iop_effective_address(cpu, op);
    }
    return result;
}

static enum step finish(struct cpu *cpu, const struct iop *op, const struct hostop *hostop, uint64_t result)
{
    if (unlikely((uint32_t)result))
        return hostop_fault(cpu, op, (uint32_t)result);
    if (hostop->writes_flags)
        set_flags(cpu, result >> 32, FLAGS_ARITH);
    return STEP_NEXT;
}

/* Whether the instruction stored at all: one with an unmasked exception may not. It is run on a
 * buffer of `fill` bytes; if they are still there, again with others (it could have stored just those). */
static bool stored(struct cpu *cpu, const struct iop *op, const struct hostop *hostop, const struct fxsave_area *before,
                   uint8_t bounce[64])
{
    uint8_t pattern[64];
    memset(pattern, 0x5a, sizeof(pattern));
    if (!(cpu->vector.fx.fsw & FSW_ES) || memcmp(bounce, pattern, hostop->mem_size))
        return true;
    memset(pattern, 0xa5, sizeof(pattern));
    memset(bounce, 0xa5, 64);
    cpu->vector.fx = *before;
    run_x87(cpu, op, hostop, bounce);
    return memcmp(bounce, pattern, hostop->mem_size);
}

/* A store that does not go straight to RAM: page crossing, MMIO, pages with code. If nothing is stored, memory
 * is not touched and cannot fault. */
static enum step store_bounced(struct cpu *cpu, const struct iop *op, const struct hostop *hostop, gva_t gva)
{
    bool stack = op_uses_stack_segment(op);
    struct fxsave_area before = cpu->vector.fx;
    uint8_t bounce[64] __attribute__((aligned(64)));
    memset(bounce, 0x5a, sizeof(bounce));
    uint64_t result = run_x87(cpu, op, hostop, bounce);
    /* ten bytes are written as eight and two; ours all or none, but the eight fault first */
    if (!(uint32_t)result && stored(cpu, op, hostop, &before, bounce) &&
        (mem_probe_write_linear(cpu, gva, MIN(hostop->mem_size, 8u), cpu->privilege, stack) ||
         mem_write_linear(cpu, gva, bounce, hostop->mem_size, cpu->privilege, stack))) {
        cpu->vector.fx = before;
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
    uint8_t *host = write ? fast_write(cpu, gva, hostop->mem_size) : (uint8_t *)fast_read(cpu, gva, hostop->mem_size);
    if (likely(host))
        return finish(cpu, op, hostop, run_x87(cpu, op, hostop, host));
    if (write)
        return store_bounced(cpu, op, hostop, gva);
    uint8_t bounce[64] __attribute__((aligned(64)));
    /* ten bytes are read as eight and two, which shows where only a part can be read */
    unsigned head = MIN(hostop->mem_size, 8u), tail = hostop->mem_size - head;
    bool stack = op_uses_stack_segment(op);
    if (mem_read_linear(cpu, gva, bounce, head, cpu->privilege, stack) ||
        (tail && mem_read_linear(cpu, gva + head, bounce + head, tail, cpu->privilege, stack)))
        return STEP_FAULT;
    return finish(cpu, op, hostop, run_x87(cpu, op, hostop, bounce));
}

enum step interp_x87(struct cpu *cpu, const struct iop *op)
{
    cpu_park_vectors(cpu);
    const struct hostop *hostop = op->stub;
    if (unlikely(hostop->kind == HOSTOP_UD))
        return step_fault(cpu, VECTOR_UD, 0);
    if (vector_check_class(cpu, hostop->exception_class))
        return STEP_FAULT;
    if (hostop->mem_access)
        return run_memory(cpu, op, hostop);
    if (is_control_nop(&op->insn))
        return STEP_NEXT;
    return finish(cpu, op, hostop, run_x87(cpu, op, hostop, NULL));
}

/* ---- Control instructions ---- */

enum step interp_fninit(struct cpu *cpu, const struct iop *op)
{
    cpu_park_vectors(cpu);
    if (check_exception_class(cpu, op->insn.row))
        return STEP_FAULT;
    x87_init(&cpu->vector.fx);
    return STEP_NEXT;
}

enum step interp_fnclex(struct cpu *cpu, const struct iop *op)
{
    cpu_park_vectors(cpu);
    if (check_exception_class(cpu, op->insn.row))
        return STEP_FAULT;
    cpu->vector.fx.fsw &= 0x7f00;
    return STEP_NEXT;
}

enum step interp_fldcw(struct cpu *cpu, const struct iop *op)
{
    cpu_park_vectors(cpu);
    uint16_t value;
    if (check_exception_class(cpu, op->insn.row) || op_mem_read(cpu, op, &value, sizeof(value)))
        return STEP_FAULT;
    cpu->vector.fx.fcw = x87_control_word(value);
    x87_update_summary(&cpu->vector.fx);
    return STEP_NEXT;
}

enum step interp_fnstcw(struct cpu *cpu, const struct iop *op)
{
    cpu_park_vectors(cpu);
    if (check_exception_class(cpu, op->insn.row) || op_mem_write(cpu, op, &cpu->vector.fx.fcw, 2))
        return STEP_FAULT;
    return STEP_NEXT;
}

enum step interp_fnstsw(struct cpu *cpu, const struct iop *op)
{
    cpu_park_vectors(cpu);
    uint16_t fsw = cpu->vector.fx.fsw;
    if (check_exception_class(cpu, op->insn.row))
        return STEP_FAULT;
    if (op->insn.opcode == 0xdf) /* FNSTSW AX */
        cpu->gpr[REG_RAX] = (cpu->gpr[REG_RAX] & ~0xffffull) | fsw;
    else if (op_mem_write(cpu, op, &fsw, 2))
        return STEP_FAULT;
    return STEP_NEXT;
}

/* Heeds TS only together with MP, and EM not at all (SDM Vol. 3A table 9-3). */
enum step interp_fwait(struct cpu *cpu, const struct iop *op)
{
    cpu_park_vectors(cpu);
    (void)op;
    if ((cpu->cr0 & (CR0_MP | CR0_TS)) == (CR0_MP | CR0_TS))
        return step_fault(cpu, VECTOR_NM, 0);
    return x87_check_pending(cpu) ? STEP_FAULT : STEP_NEXT;
}

/* ---- Environments (SDM Vol. 1 8.1.10, figures 8-9 to 8-12) ---- */

enum { TAG_VALID, TAG_ZERO, TAG_SPECIAL, TAG_EMPTY };

static unsigned full_tag(const uint8_t st[16])
{
    uint64_t significand;
    uint16_t exponent;
    memcpy(&significand, st, 8);
    memcpy(&exponent, st + 8, 2);
    exponent &= 0x7fff;
    if (!exponent && !significand)
        return TAG_ZERO;
    return exponent && exponent != 0x7fff && significand >> 63 ? TAG_VALID : TAG_SPECIAL;
}

static uint16_t full_tag_word(const struct fxsave_area *fx)
{
    unsigned word = 0;
    for (unsigned physical = 0; physical < 8; physical++) {
        unsigned tag = fx->ftw >> physical & 1 ? full_tag(fx->st[(physical - x87_top(fx)) & 7]) : TAG_EMPTY;
        word |= tag << 2 * physical;
    }
    return (uint16_t)word;
}

static uint8_t abridged_tags(uint16_t word)
{
    unsigned tags = 0;
    for (unsigned physical = 0; physical < 8; physical++)
        tags |= (unsigned)((word >> 2 * physical & 3) != TAG_EMPTY) << physical;
    return (uint8_t)tags;
}

static bool real_mode_format(const struct cpu *cpu)
{
    return !cpu_protected(cpu) || cpu_v86(cpu);
}

static unsigned environment_size(const struct iop *op)
{
    return op->insn.operand_size == 2 ? 14 : 28;
}

/* Seven words or doublewords: FCW, FSW, FTW, then FIP | FCS, FOP | FDP | FDS, or, in real mode,
 *   FIP[15:0] | FIP[31:16] << 12, FOP[10:0] | FDP[15:0] | FDP[31:16] << 12 */
static unsigned environment_store(const struct cpu *cpu, const struct iop *op, uint8_t image[28])
{
    const struct fxsave_area *fx = &cpu->vector.fx;
    uint32_t fip = (uint32_t)fx->fip, fdp = (uint32_t)fx->fdp, fop = fx->fop & 0x7ffu;
    bool wide = environment_size(op) == 28, real = real_mode_format(cpu);
    uint32_t ones = 0xffff0000; /* reserved halves, as processors write them */
    uint32_t words[7] = { ones | fx->fcw, ones | fx->fsw, ones | full_tag_word(fx) };
    if (real) {
        words[3] = ones | (fip & 0xffff);
        words[4] = (wide ? fip >> 16 : fip >> 16 & 15) << 12 | fop;
        words[5] = ones | (fdp & 0xffff);
        words[6] = (wide ? fdp >> 16 : fdp >> 16 & 15) << 12;
    } else {
        words[3] = fip;
        words[4] = wide ? fop << 16 : 0; /* FCS is zero */
        words[5] = fdp;
        words[6] = ones; /* so is FDS */
    }
    for (unsigned i = 0; i < 7; i++) {
        if (wide)
            memcpy(image + 4 * i, &words[i], 4);
        else
            memcpy(image + 2 * i, &words[i], 2);
    }
    return environment_size(op);
}

static void environment_load(struct cpu *cpu, const struct iop *op, const uint8_t *image)
{
    struct fxsave_area *fx = &cpu->vector.fx;
    bool wide = environment_size(op) == 28;
    uint32_t words[7] = { 0 };
    for (unsigned i = 0; i < 7; i++)
        memcpy(&words[i], image + (wide ? 4 : 2) * i, wide ? 4 : 2);
    x87_set_top(fx, words[1] >> FSW_TOP_SHIFT & 7);
    fx->fcw = x87_control_word((uint16_t)words[0]);
    fx->fsw = (uint16_t)words[1];
    fx->ftw = abridged_tags((uint16_t)words[2]);
    if (real_mode_format(cpu)) {
        fx->fip = (words[3] & 0xffff) | (words[4] & ~0xfffu) << 4;
        fx->fop = words[4] & 0x7ff;
        fx->fdp = (words[5] & 0xffff) | (words[6] & ~0xfffu) << 4;
    } else {
        fx->fip = words[3];
        fx->fop = wide ? words[4] >> 16 & 0x7ff : 0;
        fx->fdp = words[5];
    }
    x87_update_summary(fx);
}

/* Processors look at the first word of an image, then at the last byte, which tells in CR2. */
static int image_linear(struct cpu *cpu, const struct iop *op, unsigned size, bool write, gva_t *gva)
{
    if (check_exception_class(cpu, op->insn.row))
        return -1;
    bool stack = op_uses_stack_segment(op);
    unsigned word = environment_size(op) / 7;
    return op_address(cpu, op, size, write, gva) || area_touch(cpu, *gva, word, write, stack) ||
                   area_touch(cpu, *gva + size - 1, 1, write, stack)
               ? -1
               : 0;
}

enum step interp_fldenv(struct cpu *cpu, const struct iop *op)
{
    cpu_park_vectors(cpu);
    uint8_t image[28];
    unsigned size = environment_size(op);
    gva_t gva;
    if (image_linear(cpu, op, size, false, &gva) || area_read(cpu, gva, image, size, op_uses_stack_segment(op)))
        return STEP_FAULT;
    environment_load(cpu, op, image);
    return STEP_NEXT;
}

enum step interp_fnstenv(struct cpu *cpu, const struct iop *op)
{
    cpu_park_vectors(cpu);
    uint8_t image[28];
    unsigned size = environment_size(op);
    gva_t gva;
    if (image_linear(cpu, op, size, true, &gva))
        return STEP_FAULT;
    environment_store(cpu, op, image);
    if (area_write(cpu, gva, image, size, op_uses_stack_segment(op)))
        return STEP_FAULT;
    cpu->vector.fx.fcw |= FSW_FLAGS;
    x87_update_summary(&cpu->vector.fx);
    return STEP_NEXT;
}

enum step interp_frstor(struct cpu *cpu, const struct iop *op)
{
    cpu_park_vectors(cpu);
    uint8_t image[28 + 80];
    unsigned size = environment_size(op);
    gva_t gva;
    if (image_linear(cpu, op, size + 80, false, &gva) ||
        area_read(cpu, gva, image, size + 80, op_uses_stack_segment(op)))
        return STEP_FAULT;
    environment_load(cpu, op, image);
    for (unsigned i = 0; i < 8; i++)
        memcpy(cpu->vector.fx.st[i], image + size + 10 * i, 10);
    return STEP_NEXT;
}

enum step interp_fnsave(struct cpu *cpu, const struct iop *op)
{
    cpu_park_vectors(cpu);
    uint8_t image[28 + 80];
    unsigned size = environment_size(op);
    gva_t gva;
    if (image_linear(cpu, op, size + 80, true, &gva))
        return STEP_FAULT;
    environment_store(cpu, op, image);
    for (unsigned i = 0; i < 8; i++)
        memcpy(image + size + 10 * i, cpu->vector.fx.st[i], 10);
    if (area_write(cpu, gva, image, size + 80, op_uses_stack_segment(op)))
        return STEP_FAULT;
    x87_init(&cpu->vector.fx);
    return STEP_NEXT;
}
