/* Which CPUID features can be offered: what the host's instructions give, what is emulated here whatever the host has,
 * and what is not there yet. Pure functions of the host; any thread. */
#include <ctype.h>

#include "cpu/cpuid_internal.h"

enum { EAX, EBX, ECX, EDX };

const struct cpuid_feature cpuid_features[FEATURE_COUNT] = {
#define FEATURE(id, name, leaf, subleaf, reg, bit) [FEATURE_##id] = { name, leaf, subleaf, reg, bit },
#include "cpu/features.def"
#undef FEATURE
};

enum support {
    SUPPORT_HOST,     /* user-visible instructions and properties: if the host has them */
    SUPPORT_EMULATED, /* system architecture: ours */
    SUPPORT_INTEL,    /* emulated, on models of this vendor only */
    SUPPORT_AMD,
    SUPPORT_DERIVED, /* follows from the topology: set by cpuid.c */
    SUPPORT_NOT_YET,
    SUPPORT_NEVER,
};

/* What is not here is SUPPORT_HOST. */
static const uint8_t support[FEATURE_COUNT] = {
    [FEATURE_DE] = SUPPORT_EMULATED,
    [FEATURE_PSE] = SUPPORT_EMULATED,
    [FEATURE_TSC] = SUPPORT_EMULATED,
    [FEATURE_MSR] = SUPPORT_EMULATED,
    [FEATURE_PAE] = SUPPORT_EMULATED,
    [FEATURE_MCE] = SUPPORT_EMULATED,
    [FEATURE_APIC] = SUPPORT_EMULATED,
    [FEATURE_SEP] = SUPPORT_EMULATED,
    [FEATURE_MTRR] = SUPPORT_EMULATED,
    [FEATURE_PGE] = SUPPORT_EMULATED,
    [FEATURE_MCA] = SUPPORT_EMULATED,
    [FEATURE_PAT] = SUPPORT_EMULATED,
    [FEATURE_PSE36] = SUPPORT_EMULATED,
    [FEATURE_PCID] = SUPPORT_EMULATED,
    [FEATURE_X2APIC] = SUPPORT_EMULATED,
    [FEATURE_TSC_DEADLINE] = SUPPORT_EMULATED,
    [FEATURE_HYPERVISOR] = SUPPORT_EMULATED,
    [FEATURE_ARAT] = SUPPORT_EMULATED,
    [FEATURE_FSGSBASE] = SUPPORT_EMULATED,
    [FEATURE_TSC_ADJUST] = SUPPORT_EMULATED,
    [FEATURE_SMEP] = SUPPORT_EMULATED,
    [FEATURE_INVPCID] = SUPPORT_EMULATED,
    [FEATURE_SMAP] = SUPPORT_EMULATED,
    [FEATURE_UMIP] = SUPPORT_EMULATED,
    [FEATURE_PKU] = SUPPORT_EMULATED,
    [FEATURE_RDPID] = SUPPORT_EMULATED,
    [FEATURE_SYSCALL] = SUPPORT_EMULATED,
    [FEATURE_NX] = SUPPORT_EMULATED,
    [FEATURE_PDPE1GB] = SUPPORT_EMULATED,
    [FEATURE_RDTSCP] = SUPPORT_EMULATED,
    [FEATURE_LM] = SUPPORT_EMULATED,
    [FEATURE_INVTSC] = SUPPORT_EMULATED,
    [FEATURE_KVM_NOP_IO_DELAY] = SUPPORT_EMULATED,
    [FEATURE_KVM_CLOCKSOURCE2] = SUPPORT_EMULATED,
    [FEATURE_KVM_CLOCK_STABLE] = SUPPORT_EMULATED,
    [FEATURE_FDP_EXCPTN_ONLY] = SUPPORT_EMULATED,
    [FEATURE_ZERO_FCS_FDS] = SUPPORT_EMULATED, /* see cpu/xstate.h */

    [FEATURE_SPEC_CTRL] = SUPPORT_INTEL,
    [FEATURE_ARCH_CAPABILITIES] = SUPPORT_INTEL,
    [FEATURE_BHI_CTRL] = SUPPORT_INTEL,
    [FEATURE_AMD_SSB_NO] = SUPPORT_AMD,
    [FEATURE_BTC_NO] = SUPPORT_AMD,
    [FEATURE_XSAVEERPTR] = SUPPORT_AMD,
    [FEATURE_LFENCE_SERIALIZING] = SUPPORT_AMD,
    [FEATURE_NULL_SEL_CLEARS_BASE] = SUPPORT_AMD,
    [FEATURE_AUTOIBRS] = SUPPORT_AMD,
    [FEATURE_SRSO_NO] = SUPPORT_AMD,
    [FEATURE_SRSO_USER_KERNEL_NO] = SUPPORT_AMD,
    [FEATURE_TSA_SQ_NO] = SUPPORT_AMD,
    [FEATURE_TSA_L1_NO] = SUPPORT_AMD,

    [FEATURE_HTT] = SUPPORT_DERIVED,
    [FEATURE_CMP_LEGACY] = SUPPORT_DERIVED,

    [FEATURE_VME] = SUPPORT_NOT_YET,
    [FEATURE_MONITOR] = SUPPORT_NOT_YET,
    [FEATURE_LA57] = SUPPORT_NOT_YET,
    [FEATURE_WAITPKG] = SUPPORT_NOT_YET,
    [FEATURE_SHSTK] = SUPPORT_NOT_YET,
    [FEATURE_IBT] = SUPPORT_NOT_YET,
    [FEATURE_PKS] = SUPPORT_NOT_YET,
    [FEATURE_ENQCMD] = SUPPORT_NOT_YET,
    [FEATURE_CLDEMOTE] = SUPPORT_NOT_YET,
    [FEATURE_AMX_BF16] = SUPPORT_NOT_YET,
    [FEATURE_AMX_TILE] = SUPPORT_NOT_YET,
    [FEATURE_AMX_INT8] = SUPPORT_NOT_YET,
    [FEATURE_AVX512F] = SUPPORT_NOT_YET,
    [FEATURE_AVX512DQ] = SUPPORT_NOT_YET,
    [FEATURE_AVX512IFMA] = SUPPORT_NOT_YET,
    [FEATURE_AVX512CD] = SUPPORT_NOT_YET,
    [FEATURE_AVX512BW] = SUPPORT_NOT_YET,
    [FEATURE_AVX512VL] = SUPPORT_NOT_YET,
    [FEATURE_AVX512VBMI] = SUPPORT_NOT_YET,
    [FEATURE_AVX512VBMI2] = SUPPORT_NOT_YET,
    [FEATURE_AVX512VNNI] = SUPPORT_NOT_YET,
    [FEATURE_AVX512BITALG] = SUPPORT_NOT_YET,
    [FEATURE_AVX512VPOPCNTDQ] = SUPPORT_NOT_YET,
    [FEATURE_AVX512VP2INTERSECT] = SUPPORT_NOT_YET,
    [FEATURE_AVX512FP16] = SUPPORT_NOT_YET,
    [FEATURE_AVX512BF16] = SUPPORT_NOT_YET,
    [FEATURE_SSE4A] = SUPPORT_NOT_YET,
    [FEATURE_MISALIGNSSE] = SUPPORT_NOT_YET,
    [FEATURE_CLZERO] = SUPPORT_NOT_YET,
    [FEATURE_RDPRU] = SUPPORT_NOT_YET,
    [FEATURE_MONITORX] = SUPPORT_NOT_YET,
    [FEATURE_FXSR_OPT] = SUPPORT_NOT_YET,
    [FEATURE_CR8_LEGACY] = SUPPORT_NOT_YET,
    [FEATURE_TSXLDTRK] = SUPPORT_NOT_YET,

    [FEATURE_VMX] = SUPPORT_NEVER,
    [FEATURE_SVM] = SUPPORT_NEVER,
    [FEATURE_SMX] = SUPPORT_NEVER,
    [FEATURE_HLE] = SUPPORT_NEVER,
    [FEATURE_RTM] = SUPPORT_NEVER,
    [FEATURE_MPX] = SUPPORT_NEVER,
    [FEATURE_XOP] = SUPPORT_NEVER,
    [FEATURE_FMA4] = SUPPORT_NEVER,
    [FEATURE_TBM] = SUPPORT_NEVER,
    [FEATURE_3DNOW] = SUPPORT_NEVER,
    [FEATURE_3DNOWEXT] = SUPPORT_NEVER,
    [FEATURE_MD_CLEAR] = SUPPORT_NEVER,
    [FEATURE_SSBD] = SUPPORT_NEVER, /* nothing to clear or disable */
};

/* What the SDM makes conditional on another feature. In the order in which removals ripple. */
static const struct {
    uint16_t feature, needs;
} dependencies[] = {
    { FEATURE_SSE, FEATURE_FXSR },
    { FEATURE_SSE2, FEATURE_SSE },
    { FEATURE_SSE3, FEATURE_SSE2 },
    { FEATURE_SSSE3, FEATURE_SSE3 },
    { FEATURE_SSE41, FEATURE_SSSE3 },
    { FEATURE_SSE42, FEATURE_SSE41 },
    { FEATURE_AES, FEATURE_SSE2 },
    { FEATURE_PCLMULQDQ, FEATURE_SSE2 },
    { FEATURE_SHA, FEATURE_SSE2 },
    { FEATURE_GFNI, FEATURE_SSE2 },
    { FEATURE_XSAVEOPT, FEATURE_XSAVE },
    { FEATURE_XSAVEC, FEATURE_XSAVE },
    { FEATURE_XGETBV1, FEATURE_XSAVE },
    { FEATURE_XSAVES, FEATURE_XSAVEC },
    { FEATURE_AVX, FEATURE_XSAVE },
    { FEATURE_AVX2, FEATURE_AVX },
    { FEATURE_FMA, FEATURE_AVX },
    { FEATURE_F16C, FEATURE_AVX },
    { FEATURE_VAES, FEATURE_AVX },
    { FEATURE_VPCLMULQDQ, FEATURE_AVX },
    { FEATURE_AVX_VNNI, FEATURE_AVX2 },
    { FEATURE_BHI_CTRL, FEATURE_SPEC_CTRL },
    { FEATURE_LM, FEATURE_PAE },
    { FEATURE_PCID, FEATURE_LM },
    { FEATURE_FSGSBASE, FEATURE_LM },
    { FEATURE_LAHF_LM, FEATURE_LM },
    { FEATURE_PDPE1GB, FEATURE_LM },
    { FEATURE_CX16, FEATURE_LM },
    { FEATURE_X2APIC, FEATURE_APIC },
    { FEATURE_TSC_DEADLINE, FEATURE_APIC },
    { FEATURE_INVTSC, FEATURE_TSC },
    { FEATURE_KVM_NOP_IO_DELAY, FEATURE_HYPERVISOR },
    { FEATURE_KVM_CLOCKSOURCE2, FEATURE_HYPERVISOR },
    { FEATURE_KVM_CLOCK_STABLE, FEATURE_KVM_CLOCKSOURCE2 },
};

void cpuid_drop_dependents(bool features[FEATURE_COUNT])
{
    for (unsigned i = 0; i < sizeof(dependencies) / sizeof(dependencies[0]); i++)
        if (!features[dependencies[i].needs])
            features[dependencies[i].feature] = false;
}

bool cpuid_host_has(enum cpu_feature feature)
{
    const struct cpuid_feature *f = &cpuid_features[feature];
    struct cpuid_regs regs = host_cpuid(f->leaf & 0x80000000, 0);
    bool needs_avx = feature == FEATURE_AVX || feature == FEATURE_AVX2 || feature == FEATURE_FMA ||
                     feature == FEATURE_F16C || feature == FEATURE_VAES || feature == FEATURE_VPCLMULQDQ ||
                     feature == FEATURE_AVX_VNNI;

    if (regs.eax < f->leaf || (needs_avx && !host_has_avx()))
        return false;
    if (f->leaf == 7 && f->subleaf > host_cpuid(7, 0).eax)
        return false;
    regs = host_cpuid(f->leaf, f->subleaf);
    return *cpuid_register(&regs, f->reg) >> f->bit & 1;
}

const char *cpuid_feature_obstacle(enum cpu_feature feature, enum cpuid_vendor vendor)
{
    if (!cpuid_features[feature].name)
        return NULL;
    switch ((enum support)support[feature]) {
    case SUPPORT_HOST:
        return cpuid_host_has(feature) ? NULL : "the host CPU does not have it";
    case SUPPORT_INTEL:
        return vendor == VENDOR_INTEL ? NULL : "it belongs to Intel CPUs";
    case SUPPORT_AMD:
        return vendor == VENDOR_AMD ? NULL : "it belongs to AMD CPUs";
    case SUPPORT_DERIVED:
        return "it follows from -smp";
    case SUPPORT_NOT_YET:
        return "it is not implemented yet";
    case SUPPORT_NEVER:
        return "it is not implemented";
    default:
        return NULL;
    }
}

/* ---- Names ---- */

static char plain(char c)
{
    return c == '_' || c == '.' ? '-' : (char)tolower((unsigned char)c);
}

static bool same_name(const char *a, const char *b)
{
    for (; *a && *b; a++, b++)
        if (plain(*a) != plain(*b))
            return false;
    return *a == *b;
}

enum cpu_feature cpuid_feature_find(const char *name)
{
    static const struct {
        const char *alias;
        uint16_t feature;
    } aliases[] = {
        { "pni", FEATURE_SSE3 },
        { "lzcnt", FEATURE_LZCNT },
        { "sha", FEATURE_SHA },
        { "i64", FEATURE_LM },
        { "xd", FEATURE_NX },
        { "pclmuldq", FEATURE_PCLMULQDQ },
        { "ffxsr", FEATURE_FXSR_OPT },
        { "tsc-deadline-timer", FEATURE_TSC_DEADLINE },
        { "avx512-vbmi2", FEATURE_AVX512VBMI2 },
        { "constant-tsc", FEATURE_INVTSC },
    };

    for (unsigned f = 0; f < FEATURE_COUNT; f++)
        if (cpuid_features[f].name && same_name(cpuid_features[f].name, name))
            return f;
    for (unsigned i = 0; i < sizeof(aliases) / sizeof(aliases[0]); i++)
        if (same_name(aliases[i].alias, name))
            return aliases[i].feature;
    return FEATURE_COUNT;
}
