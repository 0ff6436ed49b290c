/* What the files of the CPU's system architecture share: descriptors, stack frames of control
 * transfers, names of control-register bits. */
#ifndef EIDOLON_CPU_SYSTEM_INTERNAL_H
#define EIDOLON_CPU_SYSTEM_INTERNAL_H

#include "cpu/interp/interp_internal.h"

/* SDM Vol. 3A 2.5 */
enum {
    CR0_PE = 1 << 0,
    CR0_MP = 1 << 1,
    CR0_EM = 1 << 2,
    CR0_TS = 1 << 3,
    CR0_ET = 1 << 4,
    CR0_NE = 1 << 5,
    CR0_WP = 1 << 16,
    CR0_AM = 1 << 18,
    CR0_NW = 1 << 29,
    CR0_CD = 1 << 30,
    CR4_VME = 1 << 0,
    CR4_PVI = 1 << 1,
    CR4_TSD = 1 << 2,
    CR4_DE = 1 << 3,
    CR4_PSE = 1 << 4,
    CR4_PAE = 1 << 5,
    CR4_MCE = 1 << 6,
    CR4_PGE = 1 << 7,
    CR4_PCE = 1 << 8,
    CR4_OSFXSR = 1 << 9,
    CR4_OSXMMEXCPT = 1 << 10,
    CR4_UMIP = 1 << 11,
    CR4_LA57 = 1 << 12,
    CR4_FSGSBASE = 1 << 16,
    CR4_PCIDE = 1 << 17,
    CR4_OSXSAVE = 1 << 18,
    CR4_SMEP = 1 << 20,
    CR4_SMAP = 1 << 21,
    CR4_PKE = 1 << 22,
    EFER_SCE = 1 << 0,
    EFER_LME = 1 << 8,
    EFER_LMA = 1 << 10,
    EFER_NXE = 1 << 11,
    EFER_AUTOIBRS = 1 << 21,
};
#define CR0_PG 0x80000000ull

/* System descriptor types (SDM Vol. 3A table 3-2) */
enum {
    SYS_TSS16 = 1,
    SYS_LDT = 2,
    SYS_TSS16_BUSY = 3,
    SYS_CALL_GATE16 = 4,
    SYS_TASK_GATE = 5,
    SYS_INT_GATE16 = 6,
    SYS_TRAP_GATE16 = 7,
    SYS_TSS = 9,
    SYS_TSS_BUSY = 11,
    SYS_CALL_GATE = 12,
    SYS_INT_GATE = 14,
    SYS_TRAP_GATE = 15,
};

static inline bool code64(const struct cpu *cpu)
{
    return cpu->code_size == CODE64;
}

/* Error code that names a selector (SDM Vol. 3A 6.13). */
static inline uint32_t selector_error(uint16_t selector, unsigned ext)
{
    return (selector & 0xfffcu) | ext;
}

/* ---- Descriptors (segment.c) ---- */

struct descriptor {
    uint64_t low, high; /* high: only of 16-byte system descriptors */
    gva_t address;
};

static inline unsigned descriptor_type(const struct descriptor *d)
{
    return d->low >> 40 & 15;
}
static inline bool descriptor_is_segment(const struct descriptor *d)
{
    return d->low >> 44 & 1;
}
static inline unsigned descriptor_dpl(const struct descriptor *d)
{
    return d->low >> 45 & 3;
}
static inline bool descriptor_present(const struct descriptor *d)
{
    return d->low >> 47 & 1;
}
static inline bool descriptor_long(const struct descriptor *d)
{
    return d->low >> 53 & 1;
}
static inline bool descriptor_db(const struct descriptor *d)
{
    return d->low >> 54 & 1;
}
static inline bool descriptor_is_code(const struct descriptor *d)
{
    return descriptor_is_segment(d) && (d->low >> 43 & 1);
}
static inline bool descriptor_conforming(const struct descriptor *d)
{
    return d->low >> 42 & 1;
} /* if code */
static inline bool descriptor_readable(const struct descriptor *d) /* data or readable code */
{
    return descriptor_is_segment(d) && (!(d->low >> 43 & 1) || (d->low >> 41 & 1));
}
static inline bool descriptor_writable(const struct descriptor *d)
{
    return descriptor_is_segment(d) && !(d->low >> 43 & 1) && (d->low >> 41 & 1);
}
uint32_t descriptor_limit(const struct descriptor *d); /* in bytes */
uint64_t descriptor_base(const struct descriptor *d);  /* 64 bits wide for 16-byte descriptors */
uint32_t descriptor_attributes(const struct descriptor *d);
struct segment_register descriptor_segment(const struct descriptor *d, uint16_t selector);

/* Reads the descriptor that a non-null selector names (`wide`: 16 bytes). 0; 1: outside its table, the caller
 * raises what fits; -1: cpu->fault (#PF). */
int descriptor_read(struct cpu *cpu, uint16_t selector, bool wide, struct descriptor *d);
/* Sets the accessed bit (busy bit: descriptor_set_busy) in memory and in *d. 0 or -1. */
int descriptor_set_accessed(struct cpu *cpu, struct descriptor *d);
int descriptor_set_busy(struct cpu *cpu, struct descriptor *d);

/* Puts a checked segment in place, and everything derived from it. */
void segment_commit(struct cpu *cpu, enum segment seg, const struct segment_register *value);
/* What a null selector leaves in a data segment register or SS. */
struct segment_register segment_null(uint16_t selector, unsigned dpl);
/* Real-mode load: base from the selector, the rest of the cache stays. */
void segment_load_real(struct cpu *cpu, enum segment seg, uint16_t selector);
/* Is [offset, offset + size) inside the segment? Legacy and compatibility modes. */
bool segment_contains(const struct segment_register *seg, uint32_t offset, unsigned size);

/* Supervisor accesses to descriptor tables and TSS (SDM Vol. 3A 4.6.1: implicit supervisor-mode). 0 or -1. */
int system_read(struct cpu *cpu, gva_t gva, void *buffer, unsigned size);
int system_write(struct cpu *cpu, gva_t gva, const void *buffer, unsigned size);

/* ---- Stacks of control transfers (frame.c) ---- */

/* Words that one transfer pushes, collected first, written at once, so that a fault leaves nothing behind. */
struct frame {
    struct segment_register ss; /* the stack's segment, maybe not yet loaded */
    uint64_t sp;                /* stack pointer before the first push */
    bool flat64;                /* 64-bit mode: no segment, 64-bit pointer */
    unsigned cpl;               /* the pushes' privilege */
    unsigned width;             /* of a word: 2, 4, 8 */
    unsigned count;
    uint64_t words[40];
};
void frame_push(struct frame *frame, uint64_t word);
/* 0 and *sp is the new stack pointer; or -1: #SS(ss_error), #PF. */
int frame_write(struct cpu *cpu, const struct frame *frame, uint32_t ss_error, uint64_t *sp);
/* The current stack, for pushes at the current privilege. */
struct frame frame_current(const struct cpu *cpu, unsigned width);
/* SS:ESP or RSP for a privilege level, from the TSS (SDM Vol. 3A 8.2.1). 0 or -1 (#TS with `ext`). Checks SS as for a
 * stack switch (table 6-6); *ss_selector is 16 bits of the TSS. Legacy modes only. */
int frame_inner_stack(struct cpu *cpu, unsigned dpl, unsigned ext, struct segment_register *ss, uint64_t *sp);
/* 64-bit TSS: RSP0..2 (index 0..2) or IST1..7 (index 4..10). */
int frame_stack64(struct cpu *cpu, unsigned index, unsigned ext, uint64_t *sp);
/* After SP's new value is known: writes RSP as the stack's width wants (16, 32, 64 bits). */
void frame_set_sp(struct cpu *cpu, uint64_t sp);

/* ---- Misc ---- */

enum step cpu_software_debug(struct cpu *cpu, uint64_t return_ip); /* INT1 */

/* #UD for what is not built yet; counted, and logged under `unimp` with the rate limit of warnings. */
int system_unimplemented(struct cpu *cpu, const char *what);
/* PAE paging (legacy): reads the PDPTEs that `cr3` names with these CR0 and CR4; false if reserved bits are set. */
bool cpu_check_pdptes(struct cpu *cpu, uint64_t cr3, uint64_t pdpte[4]);
static inline bool cpu_pae_paging(const struct cpu *cpu)
{
    return (cpu->cr0 & CR0_PG) && (cpu->cr4 & CR4_PAE) && !(cpu->msrs.efer & EFER_LMA);
}
void cpu_drop_work(struct cpu *cpu);        /* event.c: frees queued work */
void cpu_update_apic_page(struct cpu *cpu); /* after IA32_APIC_BASE changed */
uint64_t cpu_misc_enable_reset(const struct cpu *cpu);
/* INIT (SDM Vol. 3A table 9-1): as reset, but what INIT keeps stays. */
void cpu_init_signal(struct cpu *cpu);
bool cpuid_model_is_amd(const struct cpuid_model *model);
uint32_t cpuid_model_signature(const struct cpuid_model *model); /* CPUID.1:EAX */
uint64_t cpuid_model_arch_capabilities(const struct cpuid_model *model);
bool cpuid_model_offers_kvm(const struct cpuid_model *model);
/* Reserved bits of CR4 and EFER on this CPU's model. */
uint64_t cpu_cr4_valid(const struct cpu *cpu);
uint64_t cpu_efer_valid(const struct cpu *cpu);

/* kvm_pv.c. The MSRs: false: #GP(0). */
bool kvm_pv_msr_read(struct cpu *cpu, uint32_t msr, uint64_t *value);
bool kvm_pv_msr_write(struct cpu *cpu, uint32_t msr, uint64_t value);
void kvm_pv_update_clock(struct cpu *cpu); /* after TSC or TSC_ADJUST changed, after restore */
bool kvm_pv_offered(const struct cpu *cpu);
uint64_t kvm_pv_hypercall(struct cpu *cpu, uint64_t number);
uint64_t cpu_tsc(const struct cpu *cpu); /* the guest's TSC: with TSC_ADJUST */

#endif
