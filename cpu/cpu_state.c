/* The architectural state as a table for save and restore, and as text for logs and the monitor. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "cpu/debug.h"
#include "cpu/system_internal.h"
#include "cpu/xstate.h"

/* ---- Save and restore ---- */

#define SEGMENT_FIELDS(name, member)                                                                                   \
    { name ".base", offsetof(struct cpu, member.base), 8, 1 },                                                         \
        { name ".limit", offsetof(struct cpu, member.limit), 4, 1 },                                                   \
        { name ".attributes", offsetof(struct cpu, member.attributes), 4, 1 },                                         \
    {                                                                                                                  \
        name ".selector", offsetof(struct cpu, member.selector), 2, 1                                                  \
    }
#define TABLE_FIELDS(name, member)                                                                                     \
    { name ".base", offsetof(struct cpu, member.base), 8, 1 },                                                         \
    {                                                                                                                  \
        name ".limit", offsetof(struct cpu, member.limit), 4, 1                                                        \
    }

static const struct state_field fields[] = {
    STATE_ARRAY(struct cpu, gpr),
    STATE_FIELD(struct cpu, rflags),
    STATE_FIELD(struct cpu, cpl),
    STATE_FIELD(struct cpu, activity),
    { "interrupt_shadow", offsetof(struct cpu, interrupt_shadow), 1, 1 },
    { "nmi_blocked", offsetof(struct cpu, nmi_blocked), 1, 1 },
    { "in_smm", offsetof(struct cpu, in_smm), 1, 1 },
    { "debug_shadow", offsetof(struct cpu, debug_shadow), 1, 1 },
    SEGMENT_FIELDS("es", segs[SEG_ES]),
    SEGMENT_FIELDS("cs", segs[SEG_CS]),
    SEGMENT_FIELDS("ss", segs[SEG_SS]),
    SEGMENT_FIELDS("ds", segs[SEG_DS]),
    SEGMENT_FIELDS("fs", segs[SEG_FS]),
    SEGMENT_FIELDS("gs", segs[SEG_GS]),
    SEGMENT_FIELDS("ldtr", ldtr),
    SEGMENT_FIELDS("tr", tr),
    TABLE_FIELDS("gdtr", gdtr),
    TABLE_FIELDS("idtr", idtr),
    STATE_FIELD(struct cpu, cr0),
    STATE_FIELD(struct cpu, cr2),
    STATE_FIELD(struct cpu, cr3),
    STATE_FIELD(struct cpu, cr4),
    STATE_FIELD(struct cpu, xcr0),
    STATE_ARRAY(struct cpu, dr),
    STATE_FIELD(struct cpu, pkru),
    STATE_FIELD(struct cpu, pending_debug),
    { "msrs", offsetof(struct cpu, msrs), 8, sizeof(struct cpu_msrs) / 8 },
    { "pdpte", offsetof(struct cpu, mmu.paging.pdpte), 8, 4 },
    { "vec", offsetof(struct cpu, vector.vec), 64, 32 },
    { "mask", offsetof(struct cpu, vector.mask), 8, 8 },
    { "fx", offsetof(struct cpu, vector.fx), sizeof(struct fxsave_area), 1 },
    STATE_FIELD(struct cpu, vector.fcs),
    STATE_FIELD(struct cpu, vector.fds),
    STATE_FIELD(struct cpu, sipi_vector),
    { "events", offsetof(struct cpu, events), 4, 1 },
    STATE_END,
};
_Static_assert(sizeof(struct cpu_msrs) % 8 == 0, "all MSRs are 64 bits wide");

/* Any byte may have been loaded: false or true, before anybody reads it as a bool. */
static void load_bool(bool *value)
{
    uint8_t raw;

    memcpy(&raw, value, sizeof(raw));
    *value = raw != 0;
}

/* Bits that cannot be other than they are. */
static void force_fixed_bits(struct cpu *cpu)
{
    load_bool(&cpu->interrupt_shadow);
    load_bool(&cpu->nmi_blocked);
    load_bool(&cpu->in_smm);
    load_bool(&cpu->debug_shadow);
    cpu->step_trap = false;
    cpu->gpr[REG_NONE] = 0;
    cpu->rflags = (cpu->rflags & 0x3f7fd7) | 2;
    cpu->cr0 |= CR0_ET;
    cpu->dr[6] = (cpu->dr[6] & 0xe00f) | DR6_RESET;
    cpu->dr[7] = (cpu->dr[7] & 0xffff23ff) | DR7_RESET;
    cpu->vector.fx.mxcsr &= mxcsr_valid_mask();
}

/* A file may be damaged, or come from another CPU model: what no guest of this one could have reached is refused. */
static bool state_is_possible(const struct cpu *cpu)
{
    uint64_t cr0_bits =
        CR0_PE | CR0_MP | CR0_EM | CR0_TS | CR0_ET | CR0_NE | CR0_WP | CR0_AM | CR0_NW | CR0_CD | CR0_PG;
    uint64_t efer = cpu->msrs.efer;
    bool long_mode = cpu_long_mode(cpu);

    if (cpu->cpl > 3 || cpu->activity > CPU_SHUTDOWN)
        return false;
    if ((cpu->cr0 & ~cr0_bits) || (cpu->cr4 & ~cpu_cr4_valid(cpu)) || (efer & ~cpu_efer_valid(cpu)))
        return false;
    if ((cpu_paging(cpu) && !cpu_protected(cpu)) || long_mode != ((efer & EFER_LME) && cpu_paging(cpu)))
        return false;
    if ((long_mode && !(cpu->cr4 & CR4_PAE)) || ((cpu->cr4 & CR4_PCIDE) && !long_mode))
        return false;
    if ((!cpu_protected(cpu) && cpu->cpl) || (cpu_v86(cpu) && (!cpu_protected(cpu) || long_mode || cpu->cpl != 3)))
        return false;
    return (cpu->xcr0 & 1) && !(cpu->xcr0 & ~cpuid_model_xcr0(cpu->model));
}

/* Recomputes what the table leaves out, without the side effects of loading CR3 (the PDPTEs were saved). */
static int post_load(void *owner, struct error *err)
{
    struct cpu *cpu = owner;
    uint64_t pdpte[4];

    force_fixed_bits(cpu);
    if (!state_is_possible(cpu)) {
        cpu_reset(cpu);
        return error_set(err, EINVAL, "saved state of vCPU %u: damaged, or of another CPU model", cpu->index);
    }
    for (unsigned i = 0; i < 4; i++)
        pdpte[i] = cpu->mmu.paging.pdpte[i];
    atomic_fetch_and(&cpu->events, CPU_EVENT_INTR | CPU_EVENT_NMI | CPU_EVENT_SMI | CPU_EVENT_INIT | CPU_EVENT_SIPI);
    mmu_set_efer(&cpu->mmu, cpu->msrs.efer);
    mmu_set_cr4(&cpu->mmu, cpu->cr4);
    mmu_set_cr0(&cpu->mmu, cpu->cr0);
    mmu_set_cr3(&cpu->mmu, cpu->cr3, false);
    mmu_set_pdptes(&cpu->mmu, pdpte);
    mmu_set_pkru(&cpu->mmu, cpu->pkru);
    mmu_flush_all(&cpu->mmu);
    for (unsigned seg = 0; seg < SEG_COUNT; seg++) {
        struct segment_register value = cpu->segs[seg];
        unsigned cpl = cpu->cpl;

        segment_commit(cpu, seg, &value);
        cpu->cpl = (uint8_t)cpl;
    }
    cpu_update_mode(cpu);
    debug_update(cpu);
    cpu_update_apic_page(cpu);
    kvm_pv_update_clock(cpu);
    return 0;
}

const struct state_table cpu_state_table = {
    .name = "cpu",
    .version = 1,
    .fields = fields,
    .post_load = post_load,
};

/* ---- Text ---- */

static unsigned long long ull(uint64_t value)
{
    return value;
}

static void log_gprs(const struct cpu *cpu, enum log_category category)
{
    static const char names[][4] = { "RAX", "RCX", "RDX", "RBX", "RSP", "RBP", "RSI", "RDI",
                                     "R8 ", "R9 ", "R10", "R11", "R12", "R13", "R14", "R15" };

    for (unsigned i = 0; i < 16; i += 4)
        log_vprint(category, "%s=%016llx %s=%016llx %s=%016llx %s=%016llx\n", names[i], ull(cpu->gpr[i]), names[i + 1],
                   ull(cpu->gpr[i + 1]), names[i + 2], ull(cpu->gpr[i + 2]), names[i + 3], ull(cpu->gpr[i + 3]));
}

static void log_segment(const struct segment_register *s, const char *name, enum log_category category)
{
    log_vprint(category, "%-4s=%04x %016llx %08x %05x\n", name, s->selector, ull(s->base), s->limit, s->attributes);
}

void cpu_log_state(const struct cpu *cpu, enum log_category category)
{
    static const char names[SEG_COUNT][3] = { "ES", "CS", "SS", "DS", "FS", "GS" };
    static const char *const activities[] = { "running", "halted", "waiting for SIPI", "shut down" };

    log_vprint(category, "vCPU %u: %s, CPL %u, %u-bit code\n", cpu->index, activities[cpu->activity & 3], cpu->cpl,
               16u << cpu->code_size);
    log_gprs(cpu, category);
    log_vprint(category, "RIP=%016llx RFL=%08llx\n", ull(cpu->cpu_rip), ull(cpu->rflags));
    for (unsigned i = 0; i < SEG_COUNT; i++)
        log_segment(&cpu->segs[i], names[i], category);
    log_segment(&cpu->ldtr, "LDT", category);
    log_segment(&cpu->tr, "TR", category);
    log_vprint(category, "GDT =     %016llx %08x\nIDT =     %016llx %08x\n", ull(cpu->gdtr.base), cpu->gdtr.limit,
               ull(cpu->idtr.base), cpu->idtr.limit);
    log_vprint(category, "CR0=%08llx CR2=%016llx CR3=%016llx CR4=%08llx EFER=%016llx\n", ull(cpu->cr0), ull(cpu->cr2),
               ull(cpu->cr3), ull(cpu->cr4), ull(cpu->msrs.efer));
    log_vprint(category, "DR0=%016llx DR1=%016llx DR2=%016llx DR3=%016llx DR6=%08llx DR7=%08llx\n", ull(cpu->dr[0]),
               ull(cpu->dr[1]), ull(cpu->dr[2]), ull(cpu->dr[3]), ull(cpu->dr[6]), ull(cpu->dr[7]));
}
