/* The CPUID model's inside: shared by cpuid_model.c (which features), cpuid_support.c (which may be had) and cpuid.c
 * (what the leaves say). Constant after creation; any thread may read. */
#ifndef EIDOLON_CPU_CPUID_INTERNAL_H
#define EIDOLON_CPU_CPUID_INTERNAL_H

#include "base/error.h"
#include "base/host_cpu.h"
#include "cpu/decode/row.h"

enum cpuid_vendor { VENDOR_INTEL, VENDOR_AMD };

struct cpuid_model {
    bool check; /* warn of features that cannot be offered */
    char name[32];
    char brand[49];
    enum cpuid_vendor vendor;
    unsigned family, model, stepping;
    bool features[FEATURE_COUNT];
    bool kvm;     /* the KVM leaves are shown */
    bool enforce; /* a feature that cannot be had is an error */
    unsigned physical_bits, virtual_bits;
    unsigned cpus;
    uint64_t tsc_khz;
    uint64_t xcr0;
    uint64_t arch_capabilities;
    bool host_caches; /* leaf 4 (Intel), 0x80000005 and 6 (AMD) as the host's */
};

struct cpuid_feature {
    const char *name; /* NULL: no CPUID bit */
    uint32_t leaf, subleaf;
    uint8_t reg, bit; /* reg: 0..3 for EAX..EDX */
};
extern const struct cpuid_feature cpuid_features[FEATURE_COUNT];

static inline uint32_t *cpuid_register(struct cpuid_regs *regs, unsigned reg)
{
    return reg == 0 ? &regs->eax : reg == 1 ? &regs->ebx : reg == 2 ? &regs->ecx : &regs->edx;
}

/* The feature that a name means ('-', '_' and '.' are one), or FEATURE_COUNT. */
enum cpu_feature cpuid_feature_find(const char *name);
/* NULL if this host and this program can offer it, else the reason why not. */
const char *cpuid_feature_obstacle(enum cpu_feature feature, enum cpuid_vendor vendor);
/* Takes out what depends on features that are not there. */
void cpuid_drop_dependents(bool features[FEATURE_COUNT]);
bool cpuid_host_has(enum cpu_feature feature);

#endif
