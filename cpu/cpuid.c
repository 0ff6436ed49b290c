/* What CPUID answers. SDM Vol. 2A CPUID; APM Vol. 3 appendix E; Linux Documentation/virt/kvm/x86/cpuid.rst for the
 * 0x40000000 leaves. vCPU thread; the model is constant. */
#include "cpu/cpuid_internal.h"

#include <string.h>

#include "cpu/system_internal.h"
#include "cpu/xstate.h"

#define MAX_BASIC_LEAF 0x1f
#define MAX_KVM_LEAF   0x40000010
#define APIC_TIMER_HZ  1000000000u /* the board's local APIC timer input: LAPIC_TIMER_HZ */

typedef struct cpuid_regs regs_t;

/* ---- Accessors of the model ---- */

bool cpuid_model_has(const struct cpuid_model *model, enum cpu_feature feature)
{
    return model->features[feature];
}

uint64_t cpuid_model_xcr0(const struct cpuid_model *model)
{
    return model->xcr0;
}

unsigned cpuid_model_physical_bits(const struct cpuid_model *model)
{
    return model->physical_bits;
}

bool cpuid_model_is_amd(const struct cpuid_model *model)
{
    return model->vendor == VENDOR_AMD;
}

uint64_t cpuid_model_arch_capabilities(const struct cpuid_model *model)
{
    return model->arch_capabilities;
}

bool cpuid_model_offers_kvm(const struct cpuid_model *model)
{
    return model->kvm;
}

/*   31   28 27        20 19     16 15 14 13 12 11      8 7       4 3        0
 *  +-------+------------+---------+-----+-----+---------+---------+----------+
 *  |       | ext family |ext model|     |type | family  |  model  | stepping |
 *  +-------+------------+---------+-----+-----+---------+---------+----------+ */
uint32_t cpuid_model_signature(const struct cpuid_model *model)
{
    unsigned family = model->family, extended = 0;

    if (family > 15) {
        extended = family - 15;
        family = 15;
    }
    return extended << 20 | (model->model >> 4 & 15) << 16 | family << 8 | (model->model & 15) << 4 | model->stepping;
}

/* ---- Leaves ---- */

/* The feature bits of one leaf. */
static regs_t feature_leaf(const struct cpuid_model *model, uint32_t leaf, uint32_t subleaf)
{
    regs_t regs = { 0 };

    for (unsigned f = 0; f < FEATURE_COUNT; f++) {
        const struct cpuid_feature *feature = &cpuid_features[f];

        if (model->features[f] && feature->name && feature->leaf == leaf && feature->subleaf == subleaf)
            *cpuid_register(&regs, feature->reg) |= 1u << feature->bit;
    }
    return regs;
}

/* The vendor's 12 letters in EBX, EDX, ECX. */
static void put_vendor(regs_t *regs, const char *text)
{
    memcpy(&regs->ebx, text, 4);
    memcpy(&regs->edx, text + 4, 4);
    memcpy(&regs->ecx, text + 8, 4);
}

static const char *vendor_name(const struct cpuid_model *model)
{
    return model->vendor == VENDOR_AMD ? "AuthenticAMD" : "GenuineIntel";
}

static uint32_t max_extended_leaf(const struct cpuid_model *model)
{
    return model->vendor == VENDOR_AMD ? 0x80000021 : 0x80000008;
}

static regs_t leaf_0(const struct cpuid_model *model)
{
    regs_t regs = { .eax = MAX_BASIC_LEAF };

    put_vendor(&regs, vendor_name(model));
    return regs;
}

static regs_t leaf_1(const struct cpu *cpu)
{
    const struct cpuid_model *model = cpu->model;
    regs_t regs = feature_leaf(model, 1, 0);

    regs.eax = cpuid_model_signature(model);
    regs.ebx = cpu->index << 24 | (model->cpus > 255 ? 255 : model->cpus) << 16 | 64 / 8 << 8;
    if ((cpu->cr4 & CR4_OSXSAVE) && model->features[FEATURE_XSAVE])
        regs.ecx |= BIT(27);
    /* APIC: follows the global enable (SDM Vol. 3A 11.4.3). */
    vector_guard();
    if (cpu->apic && !(cpu->apic_ops->get_base(cpu->apic) & BIT(11)))
        regs.edx &= ~(uint32_t)BIT(9);
    return regs;
}

static regs_t leaf_7(const struct cpu *cpu, uint32_t subleaf)
{
    regs_t regs = feature_leaf(cpu->model, 7, subleaf);

    if (subleaf == 0) {
        regs.eax = 2; /* highest subleaf */
        if ((cpu->cr4 & CR4_PKE) && cpu->model->features[FEATURE_PKU])
            regs.ecx |= BIT(4); /* OSPKE */
    }
    return regs;
}

/* ---- Topology and caches: one package, `cpus` cores of one thread ---- */

static unsigned core_bits(const struct cpuid_model *model)
{
    unsigned bits_needed = 0;

    while ((1u << bits_needed) < model->cpus)
        bits_needed++;
    return bits_needed;
}

struct cache {
    uint8_t type, level;
    uint16_t ways, sets;
    bool shared;
};

static regs_t leaf_4(const struct cpuid_model *model, uint32_t subleaf)
{
    static const struct cache caches[] = {
        { 1, 1, 8, 64, false },
        { 2, 1, 8, 64, false },
        { 3, 2, 16, 2048, false },
        { 3, 3, 16, 16384, true },
    };
    uint32_t core_ids = (1u << core_bits(model)) - 1;
    regs_t regs = { 0 };

    if (model->vendor != VENDOR_INTEL)
        return regs;
    if (model->host_caches && host_is_intel()) {
        bool shared;

        regs = host_cpuid(4, subleaf);
        if (!(regs.eax & 31))
            return (regs_t){ 0 };
        shared = (regs.eax >> 5 & 7) >= 3;
        regs.eax = (regs.eax & 0x3ff) | core_ids << 26 | (shared ? core_ids << 14 : 0);
        return regs;
    }
    if (subleaf >= ARRAY_SIZE(caches))
        return regs;
    regs.eax = caches[subleaf].type | caches[subleaf].level << 5 | BIT(8) /* self-initialising */ | core_ids << 26 |
               (caches[subleaf].shared ? core_ids << 14 : 0);
    regs.ebx = (64 - 1) | (caches[subleaf].ways - 1u) << 22;
    regs.ecx = caches[subleaf].sets - 1u;
    return regs;
}

/* Leaves 0xB and 0x1F: a level of threads, one of cores. */
static regs_t leaf_topology(const struct cpu *cpu, uint32_t subleaf)
{
    regs_t regs = { .ecx = subleaf & 0xff, .edx = cpu->index };

    if (subleaf == 0) {
        regs.ebx = 1;
        regs.ecx |= 1 << 8;
    } else if (subleaf == 1) {
        regs.eax = core_bits(cpu->model);
        regs.ebx = cpu->model->cpus;
        regs.ecx |= 2 << 8;
    }
    return regs;
}

/* ---- XSAVE (cpu/xstate.h) ---- */

static regs_t leaf_d(const struct cpu *cpu, uint32_t subleaf)
{
    const struct cpuid_model *model = cpu->model;
    const struct xstate_component *component;
    regs_t regs = { 0 };

    if (!model->features[FEATURE_XSAVE])
        return regs;
    if (subleaf == 0)
        return (regs_t){ .eax = (uint32_t)model->xcr0,
                         .ebx = xstate_standard_size(cpu->xcr0),
                         .ecx = xstate_standard_size(model->xcr0),
                         .edx = model->xcr0 >> 32 };
    if (subleaf == 1) {
        regs = feature_leaf(model, 0xd, 1);
        if (model->features[FEATURE_XSAVEC])
            regs.ebx = xstate_compacted_size(cpu->xcr0 | cpu->msrs.xss);
        return regs;
    }
    component = subleaf < 63 && (model->xcr0 >> subleaf & 1) ? xstate_component(subleaf) : NULL;
    if (component)
        regs = (regs_t){ .eax = component->size,
                         .ebx = component->offset,
                         .ecx = component->supervisor | component->align64 << 1 };
    return regs;
}

/* ---- Time-stamp counter ----
 *
 * Software computes TSC = crystal * EBX / EAX, in 32 bits and in kHz (Linux: native_calibrate_tsc), and takes the
 * crystal for the APIC timer's input too. So the crystal is the APIC timer's clock where a ratio without overflow
 * gives the TSC's frequency (2600 MHz = 1 GHz * 13 / 5), and else as near to it as makes the product right to the kHz. */
static regs_t leaf_15(const struct cpuid_model *model)
{
    const uint64_t timer_khz = APIC_TIMER_HZ / 1000, tolerance = timer_khz / 10000;
    uint64_t tsc = model->tsc_khz, best = UINT64_MAX;
    regs_t regs = { 0 };

    for (uint64_t denominator = 1; denominator * tsc < UINT32_MAX && best; denominator++) {
        uint64_t numerator = (denominator * tsc + timer_khz / 2) / timer_khz;
        uint64_t crystal = numerator ? (denominator * tsc + numerator - 1) / numerator : 0;
        uint64_t distance = crystal > timer_khz ? crystal - timer_khz : timer_khz - crystal;
        uint64_t error = numerator ? crystal * numerator / denominator - tsc : 0;

        if (!numerator || crystal * numerator > UINT32_MAX || distance > tolerance)
            continue;
        if (error * timer_khz + distance < best) {
            best = error * timer_khz + distance;
            regs =
                (regs_t){ .eax = (uint32_t)denominator, .ebx = (uint32_t)numerator, .ecx = (uint32_t)(crystal * 1000) };
        }
    }
    return regs;
}

static regs_t leaf_16(const struct cpuid_model *model)
{
    uint32_t mhz = (uint32_t)((model->tsc_khz + 500) / 1000);

    return (regs_t){ .eax = mhz, .ebx = mhz, .ecx = 100 };
}

/* ---- Groups of leaves ---- */

static regs_t basic_leaf(const struct cpu *cpu, uint32_t leaf, uint32_t subleaf)
{
    const struct cpuid_model *model = cpu->model;
    bool intel = model->vendor == VENDOR_INTEL;

    switch (leaf) {
    case 0:
        return leaf_0(model);
    case 1:
        return leaf_1(cpu);
    case 2: /* "use leaf 4" */
        return intel ? (regs_t){ .eax = 0x00ff0001 } : (regs_t){ 0 };
    case 4:
        return leaf_4(model, subleaf);
    case 6:
        return feature_leaf(model, 6, 0);
    case 7:
        return leaf_7(cpu, subleaf);
    case 0xb:
    case 0x1f:
        return leaf_topology(cpu, subleaf);
    case 0xd:
        return leaf_d(cpu, subleaf);
    case 0x15:
        return intel ? leaf_15(model) : (regs_t){ 0 };
    case 0x16:
        return intel ? leaf_16(model) : (regs_t){ 0 };
    default:
        return (regs_t){ 0 };
    }
}

static regs_t kvm_leaf(const struct cpuid_model *model, uint32_t leaf)
{
    regs_t regs = { 0 };

    switch (leaf) {
    case 0x40000000:
        regs.eax = MAX_KVM_LEAF;
        memcpy(&regs.ebx, "KVMK", 4);
        memcpy(&regs.ecx, "VMKV", 4);
        memcpy(&regs.edx, "M\0\0\0", 4);
        return regs;
    case 0x40000001:
        return feature_leaf(model, leaf, 0);
    case 0x40000010: /* VMware's timing leaf, which KVM has too: kHz of the TSC and of the APIC's bus */
        return (regs_t){ .eax = (uint32_t)model->tsc_khz, .ebx = APIC_TIMER_HZ / 1000 };
    default:
        return regs;
    }
}

static regs_t leaf_80000001(const struct cpuid_model *model)
{
    regs_t regs = feature_leaf(model, 0x80000001, 0);

    if (model->vendor == VENDOR_AMD) { /* repeats most of leaf 1 EDX (APM Vol. 3 E.4.2) */
        regs.eax = cpuid_model_signature(model);
        regs.edx |= feature_leaf(model, 1, 0).edx & 0x0183f3ff;
    }
    return regs;
}

static regs_t leaf_80000008(const struct cpuid_model *model)
{
    regs_t regs = feature_leaf(model, 0x80000008, 0);

    regs.eax = model->physical_bits | model->virtual_bits << 8;
    if (model->vendor == VENDOR_AMD)
        regs.ecx = (model->cpus - 1) | core_bits(model) << 12;
    return regs;
}

static regs_t extended_leaf(const struct cpuid_model *model, uint32_t leaf)
{
    bool amd = model->vendor == VENDOR_AMD;
    regs_t regs = { 0 };

    switch (leaf) {
    case 0x80000000:
        regs.eax = max_extended_leaf(model);
        if (amd)
            put_vendor(&regs, vendor_name(model));
        return regs;
    case 0x80000001:
        return leaf_80000001(model);
    case 0x80000002:
    case 0x80000003:
    case 0x80000004:
        memcpy(&regs, model->brand + 16 * (leaf - 0x80000002), 16);
        return regs;
    case 0x80000005: /* L1 caches: 64-byte lines, 8 ways, 32 KiB */
        if (amd && model->host_caches && !host_is_intel())
            return host_cpuid(leaf, 0);
        return amd ? (regs_t){ .eax = 0x01ff01ff, .ebx = 0x01ff01ff, .ecx = 0x20080140, .edx = 0x20080140 } : regs;
    case 0x80000006: /* L2: 512 KiB 8 ways, L3 (AMD): 16 MiB */
        if (model->host_caches && amd == !host_is_intel())
            return host_cpuid(leaf, 0);
        regs.ecx = 0x02006140;
        regs.edx = amd ? 32 << 18 | 0x9140 : 0;
        return regs;
    case 0x80000007:
    case 0x80000021:
        return feature_leaf(model, leaf, 0);
    case 0x80000008:
        return leaf_80000008(model);
    default:
        return regs;
    }
}

regs_t cpu_cpuid(const struct cpu *cpu, uint32_t leaf, uint32_t subleaf)
{
    const struct cpuid_model *model = cpu->model;

    if (leaf <= MAX_BASIC_LEAF)
        return basic_leaf(cpu, leaf, subleaf);
    if (leaf >= 0x40000000 && leaf <= MAX_KVM_LEAF && model->kvm)
        return kvm_leaf(model, leaf);
    if (leaf >= 0x80000000 && leaf <= max_extended_leaf(model))
        return extended_leaf(model, leaf);
    /* Beyond the maximum: Intel gives the highest basic leaf, AMD nothing. */
    return model->vendor == VENDOR_INTEL ? basic_leaf(cpu, MAX_BASIC_LEAF, subleaf) : (regs_t){ 0 };
}
