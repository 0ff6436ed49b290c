/* A CPU with 16 MiB of RAM, tables and stacks, in a mode of choice, put back into its initial state for each input:
 * see cpu_rig.c. */
#ifndef EIDOLON_TESTS_FUZZ_CPU_RIG_H
#define EIDOLON_TESTS_FUZZ_CPU_RIG_H

#include "cpu/interp/interp_block.h"
#include "cpu/interp/interp_internal.h"
#include "cpu/system_internal.h"
#include "tests/fuzz/fuzz.h"

#define CPU_RAM    (16 * MIB)
#define CPU_MODELS 4

/* Guest-physical layout, identity-mapped where there is paging (CPU_TABLES and up: the page tables). */
enum {
    CPU_GDT = 0x1000,
    CPU_IDT = 0x2000,
    CPU_TSS = 0x3000,
    CPU_TSS16 = 0x3a00,
    CPU_LDT = 0x4000,
    CPU_CODE = 0x5000,
    CPU_HANDLERS = 0x7000,
    CPU_STACK = 0x9000,
    CPU_USER_STACK = 0xa000,
    CPU_IST_STACK = 0xb000,
    CPU_DATA = 0xc000,
    CPU_TABLES = 0x10000,
    CPU_VARIED = 0x40000, /* from here to 2 MiB: pages with all kinds of rights */
    CPU_MMIO = 0x1200000,
    CPU_ROM = 0x1400000,
    CPU_UNASSIGNED = 0x1600000,
};

enum cpu_rig_mode {
    CPU_REAL,
    CPU_PROTECTED16,
    CPU_PROTECTED32,
    CPU_V86,
    CPU_COMPAT16,
    CPU_COMPAT32,
    CPU_LONG,
    CPU_LONG_TOO,
    CPU_RIG_MODES
};
enum cpu_rig_paging { CPU_PAGING_NONE, CPU_PAGING_32, CPU_PAGING_PAE }; /* of the legacy modes */

struct cpu_rig_setup {
    enum cpu_rig_mode mode;
    enum cpu_rig_paging paging;
    unsigned cpl;                          /* taken if the mode has a choice */
    uint64_t cr0, cr4, efer, rflags, xcr0; /* wishes: what the mode and model allow is taken */
    uint32_t dr7;
    bool protect_tables; /* the guest cannot write its page tables (unless it changes CR0 or CR3) */
    uint64_t seed;       /* of registers, segments, page rights */
};

struct cpu_rig {
    pthread_mutex_t lock;
    struct clock clock;
    struct physmem *mem;
    struct mem_region *rom;
    struct port_space *ports;
    struct cpuid_model *model;
    struct cpu *cpu;
    uint8_t *ram;
    struct {
        uint64_t base;
        uint8_t tpr;
        int vector;
    } apic;
    uint64_t io_value; /* what devices answer next */
};

/* Made at first use: 0 the model `max`, then lesser ones; `other`: a second one of the same kind. */
struct cpu_rig *cpu_rig_get(unsigned model, bool other);
void cpu_rig_start(struct cpu_rig *rig, const struct cpu_rig_setup *setup);
/* Acts on events, wakes the CPU if it halts, executes an instruction and delivers its fault. False: triple fault. */
bool cpu_rig_step(struct cpu_rig *rig);
/* The first half of that. False: nothing to execute. long_rep: a REP may do some thousand elements in one go, not a
 * part only. */
bool cpu_rig_attend(struct cpu_rig *rig, bool long_rep);

/* ---- cpu_check.c ---- */

/* What always holds, in any state that a guest can get into. */
void cpu_check_invariants(const struct cpu *cpu);

#define CPU_WATCHED 0x40000u /* memory whose contents a snapshot has */
struct cpu_snapshot {
    uint8_t *state; /* the fields of cpu_state_table, one after the other */
    uint8_t code_size, privilege;
    uint8_t *memory;
};
/* One at a time for a CPU; take: all memory at first, later only what was written since. */
void cpu_snapshot_create(struct cpu_snapshot *snapshot, struct cpu_rig *rig);
void cpu_snapshot_destroy(struct cpu_snapshot *snapshot);
void cpu_snapshot_take(struct cpu_snapshot *snapshot, struct cpu_rig *rig);
/* After a fault of an instruction of `handler`, before its delivery: nothing may have been committed. */
void cpu_snapshot_check(struct cpu_snapshot *snapshot, struct cpu_rig *rig, unsigned handler);

/* Both have executed the same: registers must be the same, and memory that was written since the last call that
 * looked at it. */
void cpu_check_same(struct cpu_rig *a, struct cpu_rig *b, bool memory);

#endif
