/* A virtual CPU: architectural state, events from outside, and what the outside
 * provides (memory, ports, APIC, clock). Everything that is per vCPU is in here; one
 * thread runs it, others only use cpu_event_* (atomics).
 *
 * Layout: generated code addresses this structure through gs; offsets that it uses are
 * asserted in jit/. */
#ifndef EIDOLON_CPU_CPU_H
#define EIDOLON_CPU_CPU_H

#include <pthread.h>
#include <stdatomic.h>

#include "base/clock.h"
#include "base/io_space.h"
#include "base/host_cpu.h"
#include "base/log.h"
#include "base/state.h"
#include "base/vector_guard.h"
#include "cpu/decode/insn.h"
#include "mmu/mmu.h"

/* ---- Registers ---- */

/* A segment register with its descriptor cache. `attributes`: descriptor bits 40..55 as
 * VMX's access-rights format: type 3:0, S 4, DPL 6:5, P 7, AVL 12, L 13, D/B 14, G 15,
 * unusable (null selector) 16. limit is in bytes, granularity applied. */
struct segment_register {
    uint64_t base;
    uint32_t limit;
    uint32_t attributes;
    uint16_t selector;
    bool flat; /* base 0, limit 4 GiB - 1, present, writable expand-up data (or readable code): no checks needed */
};
enum {
    SEG_ATTR_TYPE = 0xf,
    SEG_ATTR_S = 1 << 4,
    SEG_ATTR_DPL_SHIFT = 5,
    SEG_ATTR_P = 1 << 7,
    SEG_ATTR_AVL = 1 << 12,
    SEG_ATTR_L = 1 << 13,
    SEG_ATTR_DB = 1 << 14,
    SEG_ATTR_G = 1 << 15,
    SEG_ATTR_UNUSABLE = 1 << 16,
    /* type bits when S = 1 */
    SEG_TYPE_ACCESSED = 1,
    SEG_TYPE_RW = 2,
    SEG_TYPE_EXPAND_DOWN_OR_CONFORMING = 4,
    SEG_TYPE_CODE = 8,
};

struct table_register {
    uint64_t base;
    uint32_t limit;
};

/* x87/MMX/SSE as an FXSAVE image (SDM Vol. 1 10.5.1, 64-bit form), so that host stubs can
 * load it directly; wider vector registers beside it. The xmm part of the image is unused:
 * vec[] is the truth. */
struct fxsave_area {
    uint16_t fcw, fsw;
    uint8_t ftw, reserved; /* abridged tag: bit set = not empty */
    uint16_t fop;
    uint64_t fip, fdp;
    uint32_t mxcsr, mxcsr_mask;
    uint8_t st[8][16]; /* ST(0) first, 10 bytes used */
    uint8_t xmm[16][16];
    uint8_t rest[96];
} __attribute__((aligned(64)));
_Static_assert(sizeof(struct fxsave_area) == 512, "FXSAVE image");

struct vector_state {
    uint8_t vec[32][64] __attribute__((aligned(64))); /* zmm0..31; xmm and ymm are the low parts */
    uint64_t mask[8];
    struct fxsave_area fx; /* x87, MMX, MXCSR */
    uint16_t fcs, fds;     /* for 32-bit FNSTENV; zero when CPUID says they are deprecated */
};

/* MSR state: X-macro list in cpu/msr.def. */
struct cpu_msrs {
    uint64_t efer, star, lstar, cstar, fmask, kernel_gs_base, tsc_aux, tsc_adjust;
    uint64_t sysenter_cs, sysenter_esp, sysenter_eip, pat, misc_enable, spec_ctrl, xss, debugctl;
    uint64_t mtrr_def_type, mtrr_fixed[11], mtrr_physbase[8], mtrr_physmask[8];
    uint64_t mcg_status, mcg_ctl, mc[10][4];
    uint64_t kvm_wall_clock, kvm_system_time, kvm_async_pf, kvm_steal_time, kvm_poll_control;
    uint64_t smbase, misc_features, hwcr;
};

/* ---- Events ---- */

/* Set by other threads (cpu_event_set), noticed between blocks. */
enum cpu_event {
    CPU_EVENT_INTR = 1 << 0, /* the APIC has an interrupt to deliver: level, follows the APIC's output */
    CPU_EVENT_NMI = 1 << 1,
    CPU_EVENT_SMI = 1 << 2,
    CPU_EVENT_INIT = 1 << 3,
    CPU_EVENT_SIPI = 1 << 4,
    CPU_EVENT_STOP = 1 << 5,      /* leave cpu_run (pause, reset, quit) */
    CPU_EVENT_FLUSH_TLB = 1 << 6, /* physical map changed */
    CPU_EVENT_WORK = 1 << 7,      /* run queued work: cross-vCPU invalidation, write tracking */
};

/* What the local APIC offers its CPU (wired by the frontend; the CPU never includes devices). All called
 * on the vCPU's thread; the implementation takes the device lock itself. */
struct cpu_apic_ops {
    int (*acknowledge)(void *apic); /* vector of the interrupt that is now in service; -1: none after all */
    uint32_t (*mmio_read)(void *apic, unsigned offset, unsigned size);
    void (*mmio_write)(void *apic, unsigned offset, unsigned size, uint32_t value);
    /* IA32_APIC_BASE, IA32_TSC_DEADLINE, x2APIC 0x800..0x8ff; false: #GP */
    bool (*msr_read)(void *apic, uint32_t msr, uint64_t *value);
    bool (*msr_write)(void *apic, uint32_t msr, uint64_t value);
    uint8_t (*get_tpr)(void *apic); /* CR8 = TPR[7:4] */
    void (*set_tpr)(void *apic, uint8_t tpr);
    uint64_t (*get_base)(void *apic); /* IA32_APIC_BASE */
};

enum cpu_exit {
    CPU_EXIT_STOPPED,      /* CPU_EVENT_STOP */
    CPU_EXIT_TRIPLE_FAULT, /* shutdown: the machine resets */
    CPU_EXIT_ERROR,        /* internal; message logged */
};

enum cpu_activity { CPU_RUNNING, CPU_HALTED, CPU_WAIT_FOR_SIPI, CPU_SHUTDOWN };

struct cpu;
struct interp;
struct cpuid_model;

/* The engine seam: interp, jit, kvm, lockstep. */
struct engine {
    const char *name;
    int (*create)(struct cpu *cpu, struct error *err);
    void (*destroy)(struct cpu *cpu);
    /* Runs until an exit; returns with state exact at an instruction boundary. Halts are
     * waited out inside (cpu_wait_for_event). */
    enum cpu_exit (*run)(struct cpu *cpu);
    void (*flush)(struct cpu *cpu); /* drop every cached translation */
};
extern const struct engine interp_engine;

/* ---- The CPU ---- */

struct cpu {
    /* gpr[16] is always 0 (REG_NONE), gpr[17] is RIP: start of the current block while an
     * engine runs (see interp), exact otherwise. */
    uint64_t gpr[18];
    uint64_t rflags;         /* bit 1 always set */
    _Atomic uint32_t events; /* enum cpu_event */
    /* What translated code polls: 0 if `events` changed since the vCPU's thread last looked, else 1. Cleared after `events`
     * is set. Not 0 the usual way, since a branch on 0 that is not taken is the cheapest that needs no flags (JRCXZ). */
    _Atomic uint32_t quiet;
    uint8_t cpl;
    uint8_t code_size;     /* enum code_size of CS, EFER.LMA */
    uint8_t privilege;     /* enum mmu_privilege for data accesses: from CPL, CR4.SMAP irrelevant (AC decides) */
    uint8_t activity;      /* enum cpu_activity */
    bool interrupt_shadow; /* STI or MOV SS just retired */
    bool nmi_blocked;
    bool in_smm;
    bool data_breakpoints; /* DR7 enables some data breakpoint */
    bool alignment_check;  /* CR0.AM, RFLAGS.AC and CPL 3: misaligned accesses raise #AC (SDM Vol. 3A 6.15) */
    bool checked_access;   /* one of the two: memory accesses take the slow path */
    bool code_breakpoints; /* DR7 enables some instruction breakpoint: see cpu/debug.h */
    bool io_breakpoints;   /* DR7 and CR4.DE enable some I/O breakpoint */
    bool debug_shadow;     /* MOV SS or POP SS just retired: #DB is held for an instruction too */
    bool step_trap;        /* the current instruction began with TF set and has not suppressed its trap */
    struct segment_register segs[SEG_COUNT];
    struct segment_register ldtr, tr;
    struct table_register gdtr, idtr;
    uint64_t cr0, cr2, cr3, cr4, xcr0;
    uint64_t dr[8]; /* dr4, dr5 unused */
    uint32_t pkru;
    struct cpu_msrs msrs;
    struct fault fault; /* filled by whoever returns STEP_FAULT */
    uint64_t
        pending_debug; /* DR6 bits to report in a #DB at the next boundary (single-step, data breakpoints, TSS T) */
    struct vector_state vector;

    struct mmu mmu;

    /* Surroundings */
    unsigned index; /* vCPU number = APIC id */
    struct physmem *physmem;
    struct port_space *ports;
    struct clock *clock;
    void *apic;
    const struct cpu_apic_ops *apic_ops;
    const struct cpuid_model *model; /* owned by the machine, shared by all vCPUs */
    const struct engine *engine;
    void *engine_data;     /* the engine's own: jit: struct jit * */
    struct interp *interp; /* every software engine has the interpreter beneath it */

    /* Vector and x87 state is in the host's registers, not in `vector`, while translated code and the C code that it calls
     * run (that code is compiled to use general registers only). Whoever is about to call anything else parks it first:
     * cpu_park_vectors. NULL hook: never live. */
    bool vectors_live;
    void (*park_vectors)(struct cpu *cpu);

    /* Halting: the vCPU thread sleeps here until an event that wakes it. */
    pthread_mutex_t wait_lock;
    pthread_cond_t wait_cond;
    _Atomic bool waiting; /* pairs with events: see cpu_event_set */
    _Atomic uint8_t sipi_vector;
    struct cpu_work *work;    /* guarded by wait_lock */
    uint32_t logged_msrs[64]; /* unknown MSRs that have been logged */
    unsigned logged_msr_count;

    struct {
        uint64_t instructions, blocks_decoded, blocks_run, exceptions, interrupts, unimplemented, invalidations;
    } stats;
};

#define cpu_rip gpr[REG_RIP]

/* Creates a CPU in its reset state (SDM Vol. 3A 9.1.1). `model` must outlive it. */
struct cpu *cpu_create(unsigned index, const struct cpuid_model *model, const struct engine *engine,
                       struct physmem *physmem, struct port_space *ports, struct clock *clock, struct error *err);
void cpu_destroy(struct cpu *cpu);
void cpu_set_apic(struct cpu *cpu, void *apic, const struct cpu_apic_ops *ops);
void cpu_reset(struct cpu *cpu);
extern const struct state_table cpu_state_table; /* architectural state, for save and restore */
enum cpu_exit cpu_run(struct cpu *cpu);

/* Any thread. */
void cpu_event_set(struct cpu *cpu, uint32_t events); /* release; wakes a halted vCPU */
void cpu_event_clear(struct cpu *cpu, uint32_t events);
void cpu_sipi(struct cpu *cpu, uint8_t vector); /* start-up IPI: remembers the vector, sets the event */
/* Runs fn(cpu, opaque) on the vCPU's thread at its next boundary; if the vCPU never runs again, never. */
int cpu_queue_work(struct cpu *cpu, void (*fn)(struct cpu *cpu, void *opaque), void *opaque);
/* vCPU thread: sleeps until an event is set that ends the current activity. */
void cpu_wait_for_event(struct cpu *cpu);

/* Setters that keep everything derived (cpl, code_size, flat, privilege, MMU) consistent. They
 * check nothing: for reset, loaders, tests, debuggers, engines after their checks. */
void cpu_set_segment(struct cpu *cpu, enum segment seg, uint16_t selector, uint64_t base, uint32_t limit,
                     uint32_t attributes);
void cpu_set_cr0(struct cpu *cpu, uint64_t value);
void cpu_set_cr3(struct cpu *cpu, uint64_t value, bool no_flush);
void cpu_set_cr4(struct cpu *cpu, uint64_t value);
void cpu_set_efer(struct cpu *cpu, uint64_t value);
void cpu_set_pkru(struct cpu *cpu, uint32_t value);
void cpu_set_rflags(struct cpu *cpu, uint64_t value); /* bit 1 forced; recomputes privilege (AC) */
void cpu_set_cpl(struct cpu *cpu, unsigned cpl);
/* MTRRs as a BIOS leaves them: on, write-back but for the video window and [uncached_base, 4 GiB), which is a power of two
 * below 4 GiB. For kernels that are booted without one. */
void cpu_set_firmware_mtrrs(struct cpu *cpu, uint64_t uncached_base);
void cpu_update_mode(struct cpu *cpu); /* recomputes code_size, privilege from segs, EFER, CR0, rflags */

static inline bool cpu_long_mode(const struct cpu *cpu)
{
    return cpu->msrs.efer & (1u << 10);
}
static inline bool cpu_protected(const struct cpu *cpu)
{
    return cpu->cr0 & 1;
}
static inline bool cpu_v86(const struct cpu *cpu)
{
    return cpu->rflags & FLAG_VM;
}
static inline bool cpu_paging(const struct cpu *cpu)
{
    return cpu->cr0 >> 31 & 1;
}
bool cpu_has(const struct cpu *cpu, enum cpu_feature feature);

/* vCPU thread. Before any call to code that may use vector or x87 registers (devices, libc, the handlers of vector
 * instructions), and before anybody looks at cpu->vector. Cheap if there is nothing to do. */
static inline void cpu_park_vectors(struct cpu *cpu)
{
    if (unlikely(cpu->vectors_live))
        cpu->park_vectors(cpu);
}

/* For a call of the local APIC, which is device code. */
static inline const struct cpu_apic_ops *cpu_apic(struct cpu *cpu)
{
    cpu_park_vectors(cpu);
    return cpu->apic_ops;
}

/* Makes this thread the vCPU's, and the CPU the one that vector_guard() parks. Returns who was there before, for
 * cpu_thread_leave. cpu_run does it; so does who steps a CPU without cpu_run. */
struct cpu *cpu_thread_enter(struct cpu *cpu);
void cpu_thread_leave(struct cpu *before);
static inline bool cpu_on_own_thread(const struct cpu *cpu)
{
    return vector_guard_of_thread.opaque == cpu;
}

void cpu_log_state(const struct cpu *cpu, enum log_category category);

/* ---- CPUID models: cpu/cpuid.c ---- */
struct cpuid_model *cpuid_model_create(const char *spec /* "max,-avx2,+pcid" */, const struct clock *clock,
                                       unsigned physical_bits, unsigned cpus, struct error *err);
void cpuid_model_destroy(struct cpuid_model *model);
void cpuid_model_list(void); /* to stdout: -cpu help */
bool cpuid_model_has(const struct cpuid_model *model, enum cpu_feature feature);
uint64_t cpuid_model_xcr0(const struct cpuid_model *model); /* XCR0 bits that may be set */
unsigned cpuid_model_physical_bits(const struct cpuid_model *model);
struct cpuid_regs;
struct cpuid_regs cpu_cpuid(const struct cpu *cpu, uint32_t leaf, uint32_t subleaf);

#endif
