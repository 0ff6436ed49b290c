/* What the files of the interpreter share: the predecoded instruction (struct iop), the
 * block cache's block, memory access and the handler protocol.
 *
 * Protocol. A handler gets the CPU and the predecoded instruction. While a block runs, cpu_rip stays at
 * the block's start; the current instruction is at cpu_rip + op->start, the next at
 * cpu_rip + op->end (iop_ip, iop_next_ip). A handler commits wholly or not at all:
 *   STEP_NEXT    done, go on with the next instruction of the block
 *   STEP_FAULT   cpu->fault is filled; nothing was committed (#DB/traps: see STEP_TRAP)
 *   STEP_BRANCH  done; the handler has set cpu_rip to the address of the next instruction
 *   STEP_END     done; the block must end after this instruction (mode or mapping changed,
 *                interrupts may be due); the loop sets cpu_rip to the next instruction
 *   STEP_REPEAT  a string instruction did a part: registers updated, cpu_rip is set to the
 *                instruction itself; come back after looking at events
 *   STEP_RESYNC  nothing done; look the instruction up again (its block was invalidated)
 *   STEP_HALT    done (as STEP_END), and activity is now CPU_HALTED
 *   STEP_EXIT    leave the engine (triple fault): cpu->activity says why
 */
#ifndef EIDOLON_CPU_INTERP_INTERP_INTERNAL_H
#define EIDOLON_CPU_INTERP_INTERP_INTERNAL_H

#include "cpu/cpu.h"
#include "cpu/debug.h"

enum step { STEP_NEXT, STEP_FAULT, STEP_BRANCH, STEP_END, STEP_REPEAT, STEP_RESYNC, STEP_HALT, STEP_EXIT };

struct iop;
typedef enum step iop_fn(struct cpu *cpu, const struct iop *op);

struct iop {
    iop_fn *fn;
    /* Operand pointers resolved for this vCPU: into cpu->gpr, or at imm; NULL if memory or other. */
    void *dst;
    const void *src;
    uint64_t imm;
    /* Effective address: (gpr[base] + (gpr[index] << scale) + disp) & ea_mask, + *segment_base. */
    const uint64_t *base, *index, *segment_base; /* never NULL: unused ones point at zero */
    int64_t disp; /* RIP-relative: already adjusted so that base = block start RIP works */
    uint64_t ea_mask;
    uint8_t scale;
    uint8_t start, end;   /* offsets in the block (a block spans at most 255 bytes) */
    bool segment_checked; /* limit and type checks are needed (not 64-bit mode) */
    const void *stub;     /* vector/x87: host code (hostop) */
    struct insn insn;
};

static inline uint64_t iop_ip_mask(const struct iop *op)
{
    return op->insn.code_size == CODE64 ? ~0ull : op->insn.code_size == CODE32 ? 0xffffffffull : 0xffffull;
}
static inline uint64_t iop_ip(const struct cpu *cpu, const struct iop *op)
{
    return (cpu->cpu_rip + op->start) & iop_ip_mask(op);
}
static inline uint64_t iop_next_ip(const struct cpu *cpu, const struct iop *op)
{
    return (cpu->cpu_rip + op->end) & iop_ip_mask(op);
}
/* The offset part of the memory operand's address, truncated to the address size. */
static inline uint64_t iop_effective_address(const struct cpu *cpu, const struct iop *op)
{
    (void)cpu;
    return (*op->base + (*op->index << op->scale) + (uint64_t)op->disp) & op->ea_mask;
}

/* ---- Memory (interp_memory.c) ----
 * Linear accesses at CPU privilege. Return 0 or -1 with cpu->fault filled (#PF, and #GP/#SS(0)
 * for non-canonical addresses: `stack` picks #SS). Page crossing, MMIO, APIC page, code
 * tracking and data breakpoints are handled. A write is all or nothing: both pages are
 * checked before the first byte. */
int mem_read_linear(struct cpu *cpu, gva_t gva, void *buffer, unsigned size, enum mmu_privilege privilege, bool stack);
int mem_write_linear(struct cpu *cpu, gva_t gva, const void *buffer, unsigned size, enum mmu_privilege privilege,
                     bool stack);
/* Only checks that a write of size bytes would succeed (sets A and D as a write does). */
int mem_probe_write_linear(struct cpu *cpu, gva_t gva, unsigned size, enum mmu_privilege privilege, bool stack);

/* Segmentation: offset in segment -> linear, with limit, type, canonical checks. 0 or -1 (#GP(0)/#SS(0)). */
int mem_segment_linear(struct cpu *cpu, enum segment seg, uint64_t offset, unsigned size, bool write,
                       uint8_t address_bits_code_size, gva_t *gva);

/* The memory operand of op: address, checks, then the access. size 1..64. */
int op_linear(struct cpu *cpu, const struct iop *op, unsigned size, bool write, gva_t *gva);
int op_mem_read(struct cpu *cpu, const struct iop *op, void *buffer, unsigned size);
int op_mem_write(struct cpu *cpu, const struct iop *op, const void *buffer, unsigned size);
/* Locked read-modify-write of the memory operand: begin gives a host cell to work on with host
 * atomics: guest RAM itself if the operand lies in one RAM page, else a bounce buffer that end
 * writes back (page-crossing, MMIO: all vCPUs take one lock meanwhile). A cell of 1, 2, 4, 8, 16 bytes.
 * begin: 0 or -1 (nothing held). end must follow: `commit` = false drops a bounced value. */
struct atomic_access {
    uint8_t *host;
    gva_t gva;
    gpa_t gpa;
    uint8_t size;
    bool bounced, notice, stack;
    uint8_t bounce[16] __attribute__((aligned(16)));
};
int op_atomic_begin(struct cpu *cpu, const struct iop *op, unsigned size, struct atomic_access *access);
int op_atomic_end(struct cpu *cpu, struct atomic_access *access, bool commit);

static inline int raise_fault(struct cpu *cpu, uint8_t vector, uint32_t error)
{
    cpu->fault = (struct fault){ .vector = vector, .error = error };
    return -1;
}
static inline enum step step_fault(struct cpu *cpu, uint8_t vector, uint32_t error)
{
    raise_fault(cpu, vector, error);
    return STEP_FAULT;
}

/* Stack pushes and pops with the stack's own address size (SS.B, 64-bit). *rsp is a copy that the
 * caller commits to cpu->gpr[REG_RSP] with stack_commit when everything has succeeded. */
int stack_push(struct cpu *cpu, uint64_t *rsp, uint64_t value, unsigned size);
int stack_pop(struct cpu *cpu, uint64_t *rsp, uint64_t *value, unsigned size);
void stack_commit(struct cpu *cpu, uint64_t rsp);
uint64_t stack_advance(const struct cpu *cpu, uint64_t rsp, int64_t delta); /* wraps at the stack's address size */

static inline bool is_canonical(uint64_t address)
{
    return (uint64_t)((int64_t)(address << 16) >> 16) == address;
}

/* ---- GPR operands ---- */
static inline uint64_t gpr_read(const struct cpu *cpu, const struct operand *o)
{
    uint64_t v = cpu->gpr[o->reg];
    if (o->kind == OPERAND_GPR_HIGH)
        return v >> 8 & 0xff;
    return o->size == 8 ? v : o->size == 4 ? (uint32_t)v : o->size == 2 ? (uint16_t)v : (uint8_t)v;
}
static inline void gpr_write(struct cpu *cpu, const struct operand *o, uint64_t v)
{
    uint64_t *r = &cpu->gpr[o->reg];
    if (o->kind == OPERAND_GPR_HIGH)
        *r = (*r & ~0xff00ull) | (v & 0xff) << 8;
    else if (o->size == 8)
        *r = v;
    else if (o->size == 4)
        *r = (uint32_t)v;
    else if (o->size == 2)
        *r = (*r & ~0xffffull) | (v & 0xffff);
    else
        *r = (*r & ~0xffull) | (v & 0xff);
}
/* Any operand as an unsigned value of its size: GPR, memory, immediate. */
int operand_read(struct cpu *cpu, const struct iop *op, unsigned n, uint64_t *value);
int operand_write(struct cpu *cpu, const struct iop *op, unsigned n, uint64_t value);

/* ---- Handlers: one for each line of handlers.def ---- */
#define HANDLER(name) iop_fn interp_##name;
#include "cpu/decode/handlers.def"
#undef HANDLER
extern iop_fn *const interp_handlers[HANDLER_COUNT];

/* One instruction at cpu_rip, single-step and breakpoints included, events not looked at. The second one
 * leaves a fault in cpu->fault (STEP_FAULT, nothing committed), the first delivers it. */
enum step interp_step(struct cpu *cpu);
enum step interp_step_no_deliver(struct cpu *cpu);
/* A cached block, as the run loop does it; faults are delivered, events not looked at. */
enum step interp_step_block(struct cpu *cpu);


/* ---- For engines that have the interpreter beneath them ---- */
/* Predecodes one instruction of at most `available` bytes for the mode that the CPU is in; false: truncated. It is executed
 * by op->fn(cpu, op) with cpu_rip at it. */
bool interp_build(struct cpu *cpu, struct iop *op, const uint8_t *bytes, size_t available);
bool interp_attention_needed(const struct cpu *cpu);
bool interp_attend(struct cpu *cpu); /* acts on events; false: leave the engine. Sleeps while halted */

/* ---- Exceptions and interrupts (cpu/exception.c) ----
 * Delivers cpu->fault, with the double-fault rules (SDM Vol. 3A 6.15, table 6-5); cpu_rip is
 * the return address to push (faults: the instruction itself). Sets CR2 for #PF. Returns STEP_BRANCH, or
 * STEP_EXIT after a triple fault. */
enum step cpu_deliver_exception(struct cpu *cpu);
/* External interrupts and NMI: cpu_rip exact. */
enum step cpu_deliver_interrupt(struct cpu *cpu, uint8_t vector);
/* INT n, INT3, INTO (software: DPL checks, return address = next instruction, passed in). STEP_FAULT with
 * cpu->fault filled if the gate faults, so the caller restarts at the instruction. */
enum step cpu_software_interrupt(struct cpu *cpu, uint8_t vector, uint64_t return_ip);
/* Looks at events between blocks: NMI, INTR (if IF and no shadow), INIT, STOP ... Called by engines. Returns
 * STEP_NEXT (nothing), STEP_BRANCH (state changed), STEP_EXIT (stop: leave the engine). */
enum step cpu_handle_events(struct cpu *cpu);

/* ---- Vector and x87 (interp_hostop.c) ----
 * Called once when a block is built, for rows with handler vec, vec_flags, mmx, x87: finds or makes
 * the host stub (op->stub). NULL if the host cannot run it: then the engine uses interp_unimplemented. */
const void *hostop_prepare(struct cpu *cpu, const struct insn *insn);

/* Checks that the row's exception class and CPUID feature ask for (#UD, #NM, #MF), to be called first by every
 * vector, x87 and XSAVE handler. 0 or -1. */
int check_exception_class(struct cpu *cpu, const struct insn_row *row);

/* MSRs (cpu/msr.c): false: #GP(0). */
bool cpu_msr_read(struct cpu *cpu, uint32_t msr, uint64_t *value);
bool cpu_msr_write(struct cpu *cpu, uint32_t msr, uint64_t value);
/* Segment loads with all checks (cpu/segment.c): 0 or -1 with cpu->fault. */
int cpu_load_segment(struct cpu *cpu, enum segment seg, uint16_t selector);
/* IN/OUT permission (IOPL, TSS bitmap): 0 or -1. */
int cpu_check_io(struct cpu *cpu, uint16_t port, unsigned size);

#endif
