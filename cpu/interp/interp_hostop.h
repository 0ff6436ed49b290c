/* Host ops: guest vector, MMX and x87 instructions executed by the host CPU through small stubs
 * (interp_hostop.c makes and finds them, interp_hostop_emit.c writes their code, interp_hostop_signal.c
 * recovers from faults in them).
 *
 * A stub is made for a *normalised* encoding: vector registers, GPRs and MMX registers are replaced by fixed host
 * registers, the memory operand by [rdi]. So all guest instructions of one form share one stub; only the
 * immediate byte multiplies them. */
#ifndef EIDOLON_CPU_INTERP_INTERP_HOSTOP_H
#define EIDOLON_CPU_INTERP_INTERP_HOSTOP_H

#include "cpu/interp/interp_hostop_signal.h"
#include "cpu/interp/interp_internal.h"

/* Where an encoding names registers. */
enum hostop_slot {
    SLOT_REG,  /* ModRM.reg */
    SLOT_RM,   /* ModRM.rm, a register */
    SLOT_VVVV, /* VEX.vvvv; for pcmpestr: the GPR file; for x87: not a pointer but RFLAGS */
    SLOT_IS4,  /* immediate[7:4] */
    SLOT_COUNT
};
enum slot_kind { SLOT_NONE, SLOT_VEC, SLOT_GPR, SLOT_MMX };

/* Pointers to the guest's registers, one for each slot. Bits 31:0 of the result: an enum hostop_outcome
 * (not DONE: nothing was stored); bits 63:32: RFLAGS after it, of
 * stubs with `writes_flags`. */
typedef uint64_t hostop_code(void *memory, void *reg, void *rm, void *vvvv, void *is4, struct vector_state *state);

enum hostop_kind { HOSTOP_VECTOR, HOSTOP_X87, HOSTOP_UD /* the guest's CPU model lacks it: #UD */ };

struct hostop {
    hostop_code *code;
    const struct insn_row *row;
    uint8_t kind; /* enum hostop_kind */
    uint8_t exception_class;
    uint8_t mem_access; /* ACCESS_* of the memory operand; 0: none */
    uint8_t mem_size;   /* bytes */
    uint8_t align_mask; /* address bits that must be zero (#GP(0)) */
    bool writes_flags, reads_flags;
    bool uses_mxcsr;
    bool has_mmx;        /* names an MMX register: the x87 state changes to MMX (SDM Vol. 1 9.5.1) */
    uint8_t mmx_written; /* 1 + slot of the MMX register that is written */
    struct {             /* register of slot n: (char *)cpu + base + ((operands[operand].reg & mask) << shift) */
        uint32_t base;
        uint8_t operand, mask, shift, kind;
    } slots[SLOT_COUNT];
    uint8_t length, bytes[15]; /* the normalised instruction: the key, with `row` */
    struct hostop *next;       /* in its hash bucket */
};

/* MXCSR around stubs. Writing a new value to it is dear (60 ns and more, even if only flags differ), writing or reading
 * the same one is not. So the guest's value stays in the host's register after a stub as long as its control bits are
 * the default ones, with which C code may run; the sticky flags, which C code does not look at, are then the
 * guest's already when the next stub comes. */
#define MXCSR_FLAGS 0x3fu
#define MXCSR_HOST  0x1f80u /* all exceptions masked, round to nearest: what C code expects */

static inline uint32_t mxcsr_read(void)
{
    uint32_t value;
    __asm__ volatile("stmxcsr %0" : "=m"(value) : : "memory");
    return value;
}
static inline void mxcsr_write(uint32_t value)
{
    __asm__ volatile("ldmxcsr %0" : : "m"(value) : "memory");
}
static inline void hostop_enter_mxcsr(const struct cpu *cpu)
{
    if (unlikely(mxcsr_read() != cpu->vector.fx.mxcsr))
        mxcsr_write(cpu->vector.fx.mxcsr);
}
/* x87 stubs load the guest's MXCSR with the rest of the image and leave it behind. */
static inline void hostop_leave_mxcsr(struct cpu *cpu)
{
    uint32_t value = cpu->vector.fx.mxcsr = mxcsr_read();
    if (unlikely((value & ~MXCSR_FLAGS) != MXCSR_HOST))
        mxcsr_write(MXCSR_HOST);
}

/* ---- interp_hostop_emit.c ---- */

/* What the code of a stub depends on, derived from the row and the operands. */
struct hostop_plan {
    const struct insn *insn;
    uint8_t kind[SLOT_COUNT];   /* enum slot_kind */
    uint8_t access[SLOT_COUNT]; /* ACCESS_* */
    uint8_t operand[SLOT_COUNT];
    bool has_memory, vex, wide /* VEX.256 */, w;
    bool reads_flags, writes_flags;
    bool xmm0_in, xmm0_out, ecx_out, length_in; /* implicit operands; length_in: rAX and rDX (pcmpestr) */
    bool x87;
};

/* Writes the normalised instruction; returns its length, 0 if it cannot be. */
unsigned hostop_encode(const struct hostop_plan *plan, uint8_t bytes[15]);
/* Writes a whole stub around the instruction, with the exit offset in the last byte. */
bool hostop_emit(const struct hostop_plan *plan, const uint8_t *bytes, unsigned length, uint8_t stub[HOSTOP_STUB_SIZE]);

/* ---- interp_vector.c ---- */

/* cpu->fault for what a stub reported. */
enum step hostop_fault(struct cpu *cpu, const struct iop *op, enum hostop_outcome outcome);

/* The checks of one exception class without the CPUID feature. 0 or -1. */
int vector_check_class(struct cpu *cpu, unsigned exception_class);
/* Zeroes bits of a vector register from byte `from` up: what a VEX-encoded instruction does above its width. */
static inline void vector_zero_above(struct cpu *cpu, unsigned reg, unsigned from)
{
    __builtin_memset(cpu->vector.vec[reg] + from, 0, 64 - from);
}

/* ---- interp_x87.c ---- */

/* The pending-exception check of waiting x87 and MMX instructions: 0 or -1 (#MF). */
int x87_check_pending(struct cpu *cpu);
/* FSW.TOP becomes `top`; the physical registers stay where they are. */
void x87_set_top(struct fxsave_area *fx, unsigned top);
/* FSW.ES and B follow from the flags and the masks. */
void x87_update_summary(struct fxsave_area *fx);
/* FCW as the register holds it: reserved bits fixed. */
static inline uint16_t x87_control_word(uint16_t value)
{
    return (value & 0x1f3f) | 0x40;
}
static inline unsigned x87_top(const struct fxsave_area *fx)
{
    return fx->fsw >> 11 & 7;
}
/* MMX: TOP = 0 and all registers valid, after an MMX instruction has done its work. */
void x87_enter_mmx(struct fxsave_area *fx);
/* MMn in the stack-relative st[] */
static inline uint8_t *x87_mmx_register(struct fxsave_area *fx, unsigned n)
{
    return fx->st[(n - x87_top(fx)) & 7];
}

/* ---- Areas of memory wider than one operand (interp_xsave.c) ----
 * Linear; 64 bytes at a time through interp_memory.c, whole pieces of pages when the L1 has them. 0 or -1. */
int area_read(struct cpu *cpu, gva_t gva, void *buffer, unsigned size, bool stack);
int area_write(struct cpu *cpu, gva_t gva, const void *buffer, unsigned size, bool stack);
int area_touch(struct cpu *cpu, gva_t gva, unsigned size, bool write, bool stack); /* only looks: may it be accessed? */
int area_probe_write(struct cpu *cpu, gva_t gva, unsigned size, bool stack);

#endif
