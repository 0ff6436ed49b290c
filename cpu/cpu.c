/* The virtual CPU's life: creation, reset and INIT, and the setters that keep what is derived from control
 * registers, segments and flags (code size, privilege, LMA, the MMU's copies) consistent. SDM Vol. 3A 2.5, 9.1.
 *
 * Only the vCPU's thread calls these (or its creator, before that thread runs). */
#include "cpu/cpu.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/host_memory.h"
#include "cpu/debug.h"
#include "cpu/system_internal.h"
#include "cpu/xstate.h"

#define PAT_RESET 0x0007040600070406ull

struct cpu *cpu_create(unsigned index, const struct cpuid_model *model, const struct engine *engine,
                       struct physmem *physmem, struct port_space *ports, struct clock *clock, struct error *err)
{
    /* Generated code addresses it: by 32-bit addresses if it can, else it has to lie within 2 GiB of it. */
    struct host_region memory;

    if (host_memory_low(&memory, ALIGN_UP(sizeof(struct cpu), PAGE_SIZE), err) < 0)
        return NULL;
    struct cpu *cpu = memory.base;
    host_memory_is_root(cpu, memory.size, true);
    cpu->index = index;
    cpu->model = model;
    cpu->physmem = physmem;
    cpu->ports = ports;
    cpu->clock = clock;
    if (mmu_init(&cpu->mmu, physmem, err) < 0) {
        host_memory_is_root(cpu, memory.size, false);
        host_memory_free(&memory);
        return NULL;
    }
    cpu->mmu.paging.max_physical_bits = cpuid_model_physical_bits(model);
    cpu->mmu.paging.has_1gib_pages = cpuid_model_has(model, FEATURE_PDPE1GB);
    pthread_mutex_init(&cpu->wait_lock, NULL);
    pthread_cond_init(&cpu->wait_cond, NULL);
    cpu_reset(cpu);
    if (engine && engine->create(cpu, err) < 0) {
        cpu_destroy(cpu);
        return NULL;
    }
    cpu->engine = engine;
    return cpu;
}

void cpu_destroy(struct cpu *cpu)
{
    if (!cpu)
        return;
    if (cpu->engine)
        cpu->engine->destroy(cpu);
    cpu_drop_work(cpu);
    mmu_destroy(&cpu->mmu);
    pthread_mutex_destroy(&cpu->wait_lock);
    pthread_cond_destroy(&cpu->wait_cond);
    struct host_region memory = { .base = cpu, .size = ALIGN_UP(sizeof(*cpu), PAGE_SIZE), .fd = -1 };
    host_memory_is_root(cpu, memory.size, false);
    host_memory_free(&memory);
}

void cpu_set_apic(struct cpu *cpu, void *apic, const struct cpu_apic_ops *ops)
{
    cpu->apic = apic;
    cpu->apic_ops = ops;
    cpu_update_apic_page(cpu);
}

/* xAPIC registers are MMIO for this vCPU at IA32_APIC_BASE, unless disabled or in x2APIC mode (SDM Vol. 3A
 * 11.4.4, 11.12.1). */
void cpu_update_apic_page(struct cpu *cpu)
{
    uint64_t base = cpu->apic ? cpu_apic(cpu)->get_base(cpu->apic) : 0;
    bool enabled = (base & BIT(11)) && !(base & BIT(10));

    mmu_set_apic_page(&cpu->mmu, enabled ? base & PAGE_MASK & (BIT(52) - 1) : ~0ull);
}

/* ---- The vCPU's thread ---- */

static void park_opaque(void *opaque)
{
    cpu_park_vectors(opaque);
}

struct cpu *cpu_thread_enter(struct cpu *cpu)
{
    struct cpu *before = vector_guard_of_thread.opaque;

    vector_guard_of_thread = (struct vector_guard){ .park = cpu ? park_opaque : NULL, .opaque = cpu };
    return before;
}

void cpu_thread_leave(struct cpu *before)
{
    cpu_thread_enter(before);
}

enum cpu_exit cpu_run(struct cpu *cpu)
{
    struct cpu *before = cpu_thread_enter(cpu);
    enum cpu_exit reason = cpu->engine->run(cpu);

    cpu_park_vectors(cpu); /* whoever comes next reads all state from the structure */
    cpu_thread_leave(before);
    return reason;
}

bool cpu_has(const struct cpu *cpu, enum cpu_feature feature)
{
    return cpuid_model_has(cpu->model, feature);
}

/* ---- Reset ---- */

/* What reset and INIT both put into their initial state. */
static void reset_common(struct cpu *cpu)
{
    static const uint32_t data = SEG_TYPE_RW | SEG_TYPE_ACCESSED | SEG_ATTR_S | SEG_ATTR_P;
    uint64_t cr0_kept = cpu->cr0 & (CR0_CD | CR0_NW);

    memset(cpu->gpr, 0, sizeof(cpu->gpr));
    cpu->gpr[REG_RDX] = cpuid_model_signature(cpu->model);
    cpu->cpu_rip = 0xfff0;
    cpu->cr2 = 0;
    cpu->interrupt_shadow = cpu->debug_shadow = cpu->nmi_blocked = cpu->in_smm = cpu->step_trap = false;
    cpu->pending_debug = 0;
    cpu->cpl = 0;
    cpu_set_rflags(cpu, 2);
    cpu_set_efer(cpu, 0);
    cpu_set_cr0(cpu, CR0_ET | cr0_kept);
    cpu_set_cr4(cpu, 0);
    cpu_set_cr3(cpu, 0, false);
    for (unsigned seg = 0; seg < SEG_COUNT; seg++)
        cpu_set_segment(cpu, seg, 0, 0, 0xffff, data);
    cpu_set_segment(cpu, SEG_CS, 0xf000, 0xffff0000, 0xffff, data);
    cpu->ldtr = (struct segment_register){ .limit = 0xffff, .attributes = SYS_LDT | SEG_ATTR_P };
    cpu->tr = (struct segment_register){ .limit = 0xffff, .attributes = SYS_TSS_BUSY | SEG_ATTR_P };
    cpu->gdtr = cpu->idtr = (struct table_register){ .limit = 0xffff };
    memset(cpu->dr, 0, sizeof(cpu->dr));
    cpu->dr[6] = DR6_RESET;
    cpu->dr[7] = DR7_RESET;
    debug_update(cpu);
    mmu_flush_all(&cpu->mmu);
}

void cpu_reset(struct cpu *cpu)
{
    memset(&cpu->msrs, 0, sizeof(cpu->msrs));
    cpu->cr0 = CR0_CD | CR0_NW;
    reset_common(cpu);
    vector_state_reset(&cpu->vector);
    cpu->xcr0 = 1;
    cpu_set_pkru(cpu, 0);
    cpu->msrs.pat = PAT_RESET;
    cpu->msrs.misc_enable = cpu_misc_enable_reset(cpu);
    for (unsigned bank = 0; bank < ARRAY_SIZE(cpu->msrs.mc); bank++)
        cpu->msrs.mc[bank][0] = ~0ull;
    cpu->activity = cpu->index == 0 ? CPU_RUNNING : CPU_WAIT_FOR_SIPI;
    cpu_event_clear(cpu, CPU_EVENT_NMI | CPU_EVENT_SMI | CPU_EVENT_INIT | CPU_EVENT_SIPI | CPU_EVENT_STOP);
    if (cpu->apic)
        cpu_update_apic_page(cpu);
}

void cpu_init_signal(struct cpu *cpu)
{
    reset_common(cpu);
    cpu->activity = cpu->index == 0 ? CPU_RUNNING : CPU_WAIT_FOR_SIPI;
}

/* ---- Setters ---- */

void cpu_update_mode(struct cpu *cpu)
{
    uint32_t cs = cpu->segs[SEG_CS].attributes;

    if ((cpu->msrs.efer & EFER_LMA) && (cs & SEG_ATTR_L))
        cpu->code_size = CODE64;
    else
        cpu->code_size = cs & SEG_ATTR_DB ? CODE32 : CODE16;
    if (cpu->cpl == 3)
        cpu->privilege = MMU_USER;
    else
        cpu->privilege = cpu->rflags & FLAG_AC ? MMU_SUPERVISOR_AC : MMU_SUPERVISOR;
    cpu->alignment_check = cpu->cpl == 3 && (cpu->rflags & FLAG_AC) && (cpu->cr0 & CR0_AM);
    cpu->checked_access = cpu->data_breakpoints || cpu->alignment_check;
}

/* No limit, type or base check can fail: 4 GiB at 0, present, and writable data or readable code. */
static bool segment_is_flat(const struct segment_register *s)
{
    uint32_t a = s->attributes;

    if (s->base || s->limit != 0xffffffffu || !(a & SEG_ATTR_P) || !(a & SEG_ATTR_S) || (a & SEG_ATTR_UNUSABLE))
        return false;
    if (!(a & SEG_TYPE_RW))
        return false;
    return (a & SEG_TYPE_CODE) || !(a & SEG_TYPE_EXPAND_DOWN_OR_CONFORMING);
}

void segment_commit(struct cpu *cpu, enum segment seg, const struct segment_register *value)
{
    cpu->segs[seg] = *value;
    cpu->segs[seg].flat = segment_is_flat(value);
    if (seg != SEG_CS)
        return;
    if (!cpu_protected(cpu))
        cpu->cpl = 0;
    else
        cpu->cpl = cpu_v86(cpu) ? 3 : value->selector & 3;
    cpu_update_mode(cpu);
}

void cpu_set_segment(struct cpu *cpu, enum segment seg, uint16_t selector, uint64_t base, uint32_t limit,
                     uint32_t attributes)
{
    struct segment_register value = {
        .selector = selector,
        .base = base,
        .limit = limit,
        .attributes = attributes,
    };

    segment_commit(cpu, seg, &value);
}

/* LMA follows LME and PG (SDM Vol. 3A 9.8.5). */
static void update_lma(struct cpu *cpu)
{
    uint64_t efer = cpu->msrs.efer & ~(uint64_t)EFER_LMA;

    if ((efer & EFER_LME) && (cpu->cr0 & CR0_PG))
        efer |= EFER_LMA;
    cpu->msrs.efer = efer;
    mmu_set_efer(&cpu->mmu, efer);
}

bool cpu_check_pdptes(struct cpu *cpu, uint64_t cr3, uint64_t pdpte[4])
{
    struct paging paging = cpu->mmu.paging;
    bool ok;

    paging.cr3 = cr3;
    ok = mmu_load_pdptes(&paging, cpu->physmem);
    memcpy(pdpte, paging.pdpte, sizeof(paging.pdpte));
    return ok;
}

/* The PDPTE registers are loaded when PAE paging begins and by each CR3 load (SDM Vol. 3A 4.4.1). Whoever
 * needs the #GP has checked before. */
static void reload_pdptes(struct cpu *cpu)
{
    uint64_t pdpte[4];

    if (cpu_pae_paging(cpu) && cpu_check_pdptes(cpu, cpu->cr3, pdpte))
        mmu_set_pdptes(&cpu->mmu, pdpte);
}

void cpu_set_cr0(struct cpu *cpu, uint64_t value)
{
    uint64_t changed = value ^ cpu->cr0;

    cpu->cr0 = value | CR0_ET;
    mmu_set_cr0(&cpu->mmu, cpu->cr0);
    update_lma(cpu);
    if (!cpu_protected(cpu))
        cpu->cpl = 0;
    if (changed & (CR0_PG | CR0_CD | CR0_NW))
        reload_pdptes(cpu);
    cpu_update_mode(cpu);
}

void cpu_set_cr3(struct cpu *cpu, uint64_t value, bool no_flush)
{
    cpu->cr3 = value;
    mmu_set_cr3(&cpu->mmu, value, no_flush);
    reload_pdptes(cpu);
}

void cpu_set_cr4(struct cpu *cpu, uint64_t value)
{
    uint64_t changed = value ^ cpu->cr4;

    cpu->cr4 = value;
    mmu_set_cr4(&cpu->mmu, value);
    if (changed & (CR4_PAE | CR4_PGE | CR4_PSE | CR4_SMEP))
        reload_pdptes(cpu);
    debug_update(cpu);
}

void cpu_set_efer(struct cpu *cpu, uint64_t value)
{
    cpu->msrs.efer = value;
    update_lma(cpu);
    cpu_update_mode(cpu);
}

void cpu_set_pkru(struct cpu *cpu, uint32_t value)
{
    cpu->pkru = value;
    mmu_set_pkru(&cpu->mmu, value);
}

void cpu_set_rflags(struct cpu *cpu, uint64_t value)
{
    cpu->rflags = (value & 0x3f7fd7) | 2;
    cpu_update_mode(cpu);
}

void cpu_set_cpl(struct cpu *cpu, unsigned cpl)
{
    cpu->cpl = cpl;
    cpu_update_mode(cpu);
}

uint64_t cpu_tsc(const struct cpu *cpu)
{
    return clock_tsc(cpu->clock) + cpu->msrs.tsc_adjust;
}

int system_unimplemented(struct cpu *cpu, const char *what)
{
    cpu->stats.unimplemented++;
    log_event(unimp, "%s is not implemented: #UD at %04x:%016llx\n", what, cpu->segs[SEG_CS].selector,
              (unsigned long long)cpu->cpu_rip);
    return raise_fault(cpu, VECTOR_UD, 0);
}
