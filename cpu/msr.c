/* RDMSR and WRMSR. SDM Vol. 4; Vol. 3A 11.11 (MTRRs), 11.12 (PAT), 15.3 (machine check). The list is msr.def; the
 * functions here check values as the processor does. A register that is not there is #GP(0), logged once. vCPU thread only. */
#include "cpu/system_internal.h"

struct msr_row {
    uint32_t first, last;
    const char *name;
    bool (*read)(struct cpu *cpu, const struct msr_row *row, uint32_t msr, uint64_t *value);
    bool (*write)(struct cpu *cpu, const struct msr_row *row, uint32_t msr, uint64_t value);
    size_t field; /* offset in struct cpu_msrs */
};

#define READ(name)                                                                                                     \
    static bool msr_read_##name(struct cpu *cpu, const struct msr_row *row, uint32_t msr, uint64_t *value)
#define WRITE(name)                                                                                                    \
    static bool msr_write_##name(struct cpu *cpu, const struct msr_row *row, uint32_t msr, uint64_t value)
#define UNUSED() ((void)cpu, (void)row, (void)msr, (void)value)

static uint64_t *field_of(struct cpu *cpu, const struct msr_row *row)
{
    return (uint64_t *)((char *)&cpu->msrs + row->field);
}

/* ---- Plain registers ---- */

READ(none)
{
    UNUSED();
    return false;
}
WRITE(none)
{
    UNUSED();
    return false;
}
READ(zero)
{
    UNUSED();
    *value = 0;
    return true;
}
WRITE(ignore)
{
    UNUSED();
    return true;
}

READ(field)
{
    (void)msr;
    *value = *field_of(cpu, row);
    return true;
}

WRITE(any)
{
    (void)msr;
    *field_of(cpu, row) = value;
    return true;
}

WRITE(low32)
{
    return msr_write_any(cpu, row, msr, (uint32_t)value);
}

WRITE(canonical)
{
    return is_canonical(value) && msr_write_any(cpu, row, msr, value);
}

WRITE(all_or_nothing)
{
    return (value == 0 || value == ~0ull) && msr_write_any(cpu, row, msr, value);
}

/* ---- System registers ---- */

uint64_t cpu_efer_valid(const struct cpu *cpu)
{
    return (cpu_has(cpu, FEATURE_SYSCALL) ? EFER_SCE : 0) | (cpu_has(cpu, FEATURE_LM) ? EFER_LME | EFER_LMA : 0) |
           (cpu_has(cpu, FEATURE_NX) ? EFER_NXE : 0) | (cpu_has(cpu, FEATURE_AUTOIBRS) ? EFER_AUTOIBRS : 0);
}

uint64_t cpu_cr4_valid(const struct cpu *cpu)
{
    static const struct {
        uint32_t bit;
        uint16_t feature;
    } gated[] = {
        { CR4_VME | CR4_PVI, FEATURE_VME },
        { CR4_TSD, FEATURE_TSC },
        { CR4_DE, FEATURE_DE },
        { CR4_PSE, FEATURE_PSE },
        { CR4_PAE, FEATURE_PAE },
        { CR4_MCE, FEATURE_MCE },
        { CR4_PGE, FEATURE_PGE },
        { CR4_OSFXSR | CR4_OSXMMEXCPT, FEATURE_FXSR },
        { CR4_UMIP, FEATURE_UMIP },
        { CR4_LA57, FEATURE_LA57 },
        { CR4_FSGSBASE, FEATURE_FSGSBASE },
        { CR4_PCIDE, FEATURE_PCID },
        { CR4_OSXSAVE, FEATURE_XSAVE },
        { CR4_SMEP, FEATURE_SMEP },
        { CR4_SMAP, FEATURE_SMAP },
        { CR4_PKE, FEATURE_PKU },
    };
    uint64_t valid = CR4_PCE;

    for (unsigned i = 0; i < ARRAY_SIZE(gated); i++)
        if (cpu_has(cpu, gated[i].feature))
            valid |= gated[i].bit;
    return valid;
}

WRITE(efer)
{
    uint64_t old = cpu->msrs.efer;

    (void)row;
    (void)msr;
    if (value & ~cpu_efer_valid(cpu))
        return false;
    if (((value ^ old) & EFER_LME) && cpu_paging(cpu))
        return false;
    cpu_set_efer(cpu, (value & ~(uint64_t)EFER_LMA) | (old & EFER_LMA));
    return true;
}

READ(segment_base)
{
    (void)row;
    *value = cpu->segs[msr == 0xc0000100 ? SEG_FS : SEG_GS].base;
    return true;
}

WRITE(segment_base)
{
    struct segment_register *seg = &cpu->segs[msr == 0xc0000100 ? SEG_FS : SEG_GS];

    (void)row;
    if (!is_canonical(value))
        return false;
    seg->base = value;
    seg->flat = false;
    return true;
}

WRITE(tsc_aux)
{
    return !(value >> 32) && msr_write_any(cpu, row, msr, value);
}

READ(xss)
{
    return cpu_has(cpu, FEATURE_XSAVES) && msr_read_field(cpu, row, msr, value);
}

WRITE(xss) /* no supervisor component is offered */
{
    return cpu_has(cpu, FEATURE_XSAVES) && value == 0 && msr_write_any(cpu, row, msr, value);
}

WRITE(debugctl)
{
    const uint64_t btf = 1 << 1;

    if (value & ~(1 | btf)) /* LBR (of which there are none) and BTF */
        return false;
    if (value & btf)
        log_event(unimp, "DEBUGCTL.BTF: single-stepping on branches is not implemented\n");
    return msr_write_any(cpu, row, msr, value);
}

/* ---- Identification ---- */

uint64_t cpu_misc_enable_reset(const struct cpu *cpu)
{
    (void)cpu;
    return BIT(0) /* fast strings */ | BIT(11) | BIT(12); /* no BTS, no PEBS */
}

WRITE(misc_enable)
{
    const uint64_t fixed = BIT(11) | BIT(12), writable = BIT(0) | BIT(3) | BIT(16) | BIT(18) | BIT(22) | BIT(23);

    /* Others (among them XD disable) stay zero, so that software which clears them is content. */
    return msr_write_any(cpu, row, msr, (value & writable) | fixed);
}

WRITE(misc_features) /* CPUID faulting, which PLATFORM_INFO announces */
{
    return !(value & ~1ull) && msr_write_any(cpu, row, msr, value);
}

READ(platform_info)
{
    UNUSED();
    *value = BIT(31) | (cpu->clock->tsc_khz / 100000 & 0xff) << 8;
    return true;
}

READ(feature_control)
{
    UNUSED();
    *value = 1;
    return true;
} /* locked, no VMX */
READ(ebc_frequency)
{
    UNUSED();
    *value = 1 << 24;
    return true;
}
READ(fsb)
{
    UNUSED();
    *value = 5;
    return true;
} /* 100 MHz */
READ(perf_status)
{
    UNUSED();
    *value = 0;
    return true;
}

/* High enough that nobody asks for an update. */
READ(microcode)
{
    UNUSED();
    *value = cpuid_model_is_amd(cpu->model) ? 0x0fffffff : 0x7fffffffull << 32;
    return true;
}

READ(arch_capabilities)
{
    (void)row;
    (void)msr;
    *value = cpuid_model_arch_capabilities(cpu->model);
    return cpu_has(cpu, FEATURE_ARCH_CAPABILITIES);
}

/* ---- Speculation control: remembered, nothing to do ---- */

READ(spec_ctrl)
{
    return cpu_has(cpu, FEATURE_SPEC_CTRL) && msr_read_field(cpu, row, msr, value);
}

WRITE(spec_ctrl)
{
    const uint64_t ibrs = 1, stibp = 2; /* STIBP without its CPUID bit is ignored, not refused (SDM Vol. 4) */
    uint64_t bhi_dis_s = cpu_has(cpu, FEATURE_BHI_CTRL) ? BIT(10) : 0;

    if (!cpu_has(cpu, FEATURE_SPEC_CTRL) || (value & ~(ibrs | stibp | bhi_dis_s)))
        return false;
    return msr_write_any(cpu, row, msr, value);
}

WRITE(pred_cmd) /* IBPB */
{
    UNUSED();
    return cpu_has(cpu, FEATURE_SPEC_CTRL) && !(value & ~1ull);
}

/* ---- Time ---- */

READ(tsc)
{
    (void)row;
    (void)msr;
    *value = cpu_tsc(cpu);
    return true;
}

static void set_tsc_adjust(struct cpu *cpu, uint64_t value)
{
    uint64_t deadline = 0;
    bool armed = cpu->apic && cpu_has(cpu, FEATURE_TSC_DEADLINE) &&
                 cpu_apic(cpu)->msr_read(cpu->apic, 0x6e0, &deadline) && deadline;

    /* The APIC knows the TSC without the adjustment. */
    if (armed)
        cpu_apic(cpu)->msr_write(cpu->apic, 0x6e0, deadline + cpu->msrs.tsc_adjust - value);
    cpu->msrs.tsc_adjust = value;
    kvm_pv_update_clock(cpu);
}

WRITE(tsc) /* a write moves TSC_ADJUST by as much (SDM Vol. 3B 18.17.3) */
{
    (void)row;
    (void)msr;
    set_tsc_adjust(cpu, cpu->msrs.tsc_adjust + (value - cpu_tsc(cpu)));
    return true;
}

WRITE(tsc_adjust)
{
    (void)row;
    (void)msr;
    set_tsc_adjust(cpu, value);
    return true;
}

/* ---- APIC ---- */

READ(apic)
{
    (void)row;
    return cpu->apic && cpu_apic(cpu)->msr_read(cpu->apic, msr, value);
}

WRITE(apic)
{
    (void)row;
    if (!cpu->apic || !cpu_apic(cpu)->msr_write(cpu->apic, msr, value))
        return false;
    if (msr == 0x1b)
        cpu_update_apic_page(cpu);
    return true;
}

READ(tsc_deadline)
{
    if (!cpu_has(cpu, FEATURE_TSC_DEADLINE) || !msr_read_apic(cpu, row, msr, value))
        return false;
    if (*value)
        *value += cpu->msrs.tsc_adjust;
    return true;
}

WRITE(tsc_deadline)
{
    if (!cpu_has(cpu, FEATURE_TSC_DEADLINE))
        return false;
    if (value) { /* the APIC's zero means "not armed" */
        value -= cpu->msrs.tsc_adjust;
        value = value ? value : 1;
    }
    return msr_write_apic(cpu, row, msr, value);
}

/* ---- Memory types (SDM Vol. 3A 11.11, 11.12): checked and remembered; all memory is write-back ---- */

static bool memory_types_valid(uint64_t value, uint32_t allowed)
{
    for (unsigned i = 0; i < 8; i++, value >>= 8)
        if ((value & 0xff) > 7 || !(allowed >> (value & 7) & 1))
            return false;
    return true;
}

enum { MTRR_TYPES = 1 << 0 | 1 << 1 | 1 << 4 | 1 << 5 | 1 << 6, PAT_TYPES = MTRR_TYPES | 1 << 7 };

WRITE(pat)
{
    return memory_types_valid(value, PAT_TYPES) && msr_write_any(cpu, row, msr, value);
}

/* 8 variable ranges, fixed ranges, write combining. */
READ(mtrrcap)
{
    UNUSED();
    *value = 8 | BIT(8) | BIT(10);
    return cpu_has(cpu, FEATURE_MTRR);
}

WRITE(mtrr_def_type)
{
    if ((value & ~0xcffull) || !memory_types_valid(value & 0xff, MTRR_TYPES))
        return false;
    return msr_write_any(cpu, row, msr, value);
}

static uint64_t *mtrr_variable(struct cpu *cpu, uint32_t msr)
{
    unsigned n = (msr - 0x200) / 2;

    return msr & 1 ? &cpu->msrs.mtrr_physmask[n] : &cpu->msrs.mtrr_physbase[n];
}

READ(mtrr_variable)
{
    (void)row;
    *value = *mtrr_variable(cpu, msr);
    return true;
}

WRITE(mtrr_variable)
{
    uint64_t address = (BIT(cpuid_model_physical_bits(cpu->model)) - 1) & PAGE_MASK;
    bool mask = msr & 1;

    (void)row;
    if (value & ~(address | (mask ? 0x800 : 0xff)))
        return false;
    if (!mask && !memory_types_valid(value & 0xff, MTRR_TYPES))
        return false;
    *mtrr_variable(cpu, msr) = value;
    return true;
}

static uint64_t *mtrr_fixed(struct cpu *cpu, uint32_t msr)
{
    unsigned n = msr == 0x250 ? 0 : msr < 0x260 ? msr - 0x258 + 1 : msr - 0x268 + 3;

    return &cpu->msrs.mtrr_fixed[n];
}

READ(mtrr_fixed)
{
    (void)row;
    *value = *mtrr_fixed(cpu, msr);
    return true;
}

WRITE(mtrr_fixed)
{
    (void)row;
    if (!memory_types_valid(value, MTRR_TYPES))
        return false;
    *mtrr_fixed(cpu, msr) = value;
    return true;
}

void cpu_set_firmware_mtrrs(struct cpu *cpu, uint64_t uncached_base)
{
    const uint64_t write_back = 0x0606060606060606ull, write_protect = 0x0505050505050505ull;
    uint64_t address = (BIT(cpuid_model_physical_bits(cpu->model)) - 1) & PAGE_MASK;

    cpu->msrs.mtrr_fixed[0] = cpu->msrs.mtrr_fixed[1] = write_back; /* 0 .. 640 KiB */
    cpu->msrs.mtrr_fixed[2] = 0;                                    /* video memory */
    for (unsigned i = 3; i < ARRAY_SIZE(cpu->msrs.mtrr_fixed); i++)
        cpu->msrs.mtrr_fixed[i] = write_protect; /* ROMs */
    cpu->msrs.mtrr_physbase[0] = uncached_base;
    cpu->msrs.mtrr_physmask[0] = (~(4 * GIB - uncached_base - 1) & address) | BIT(11);
    cpu->msrs.mtrr_def_type = BIT(11) | BIT(10) | 6;
}

/* ---- Machine check: ten banks that never report anything ---- */

READ(mcg_cap)
{
    UNUSED();
    *value = ARRAY_SIZE(cpu->msrs.mc) | BIT(8); /* MCG_CTL is there */
    return cpu_has(cpu, FEATURE_MCA);
}

READ(mc_bank)
{
    (void)row;
    *value = cpu->msrs.mc[(msr - 0x400) / 4][msr & 3];
    return true;
}

WRITE(mc_bank)
{
    unsigned reg = msr & 3; /* CTL, STATUS, ADDR, MISC */

    (void)row;
    if (reg == 0 ? value != 0 && value != ~0ull : value != 0)
        return false;
    cpu->msrs.mc[(msr - 0x400) / 4][reg] = value;
    return true;
}

/* ---- KVM ---- */

READ(kvm)
{
    (void)row;
    return kvm_pv_msr_read(cpu, msr, value);
}

WRITE(kvm)
{
    (void)row;
    return kvm_pv_msr_write(cpu, msr, value);
}

/* ---- AMD ---- */

READ(amd_zero)
{
    UNUSED();
    *value = 0;
    return cpuid_model_is_amd(cpu->model);
}
READ(amd_field)
{
    return cpuid_model_is_amd(cpu->model) && msr_read_field(cpu, row, msr, value);
}
READ(amd_de_cfg)
{
    UNUSED();
    *value = 1 << 1;
    return cpuid_model_is_amd(cpu->model);
} /* LFENCE serialises */
WRITE(amd_ignore)
{
    UNUSED();
    return cpuid_model_is_amd(cpu->model);
}

WRITE(amd_hwcr)
{
    const uint64_t writable = BIT(3) | BIT(6) | BIT(8) | BIT(18) | BIT(24); /* INVD, FFDIS, IGNNE, MC status, TSC */

    return cpuid_model_is_amd(cpu->model) && !(value & ~writable) && msr_write_any(cpu, row, msr, value);
}

/* ---- The table ---- */

static const struct msr_row rows[] = {
#define MSR(first, last, name, read, write, field)                                                                     \
    { first, last, name, msr_read_##read, msr_write_##write, offsetof(struct cpu_msrs, field) },
#include "cpu/msr.def"
};

static const struct msr_row *find_row(uint32_t msr)
{
    size_t low = 0, high = ARRAY_SIZE(rows);

    while (low < high) {
        size_t middle = (low + high) / 2;

        if (msr < rows[middle].first)
            high = middle;
        else if (msr > rows[middle].last)
            low = middle + 1;
        else
            return &rows[middle];
    }
    return NULL;
}

/* Each register that is missing or refuses a value is logged once. */
static void log_refused(struct cpu *cpu, uint32_t msr, const struct msr_row *row, bool write, uint64_t value)
{
    if (!log_enabled(LOG_guest_errors) && !log_enabled(LOG_unimp))
        return;
    for (unsigned i = 0; i < cpu->logged_msr_count; i++)
        if (cpu->logged_msrs[i] == msr)
            return;
    if (cpu->logged_msr_count < ARRAY_SIZE(cpu->logged_msrs))
        cpu->logged_msrs[cpu->logged_msr_count++] = msr;
    log_vprint(row ? LOG_guest_errors : LOG_unimp, "%s of MSR %08x (%s) at %016llx: #GP, value %016llx\n",
               write ? "write" : "read", msr, row ? row->name : "unknown", (unsigned long long)cpu->cpu_rip,
               (unsigned long long)value);
}

bool cpu_msr_read(struct cpu *cpu, uint32_t msr, uint64_t *value)
{
    const struct msr_row *row = find_row(msr);

    *value = 0;
    if (row && row->read(cpu, row, msr, value))
        return true;
    log_refused(cpu, msr, row, false, 0);
    return false;
}

bool cpu_msr_write(struct cpu *cpu, uint32_t msr, uint64_t value)
{
    const struct msr_row *row = find_row(msr);

    if (row && row->write(cpu, row, msr, value))
        return true;
    log_refused(cpu, msr, row, true, value);
    return false;
}
