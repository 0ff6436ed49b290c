/* What the host CPU has. The only place that looks at host CPUID; features are
 * chosen at run time. */
#ifndef EIDOLON_BASE_HOST_CPU_H
#define EIDOLON_BASE_HOST_CPU_H

#include "base/types.h"

struct cpuid_regs {
    uint32_t eax, ebx, ecx, edx;
};

struct cpuid_regs host_cpuid(uint32_t leaf, uint32_t subleaf);
uint64_t host_xcr0(void);   /* 0 if the host has no XSAVE */
bool host_has_avx(void);    /* CPUID and XCR0 both say so */
bool host_has_avx512(void); /* F + XCR0 opmask, ZMM_Hi256, Hi16_ZMM */
bool host_is_intel(void);

#endif
