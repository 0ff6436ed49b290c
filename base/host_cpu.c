/* What the host CPU has: CPUID and XGETBV, asked each time (none of this is hot: callers
 * keep what they need). Any thread. SDM Vol. 2A CPUID, Vol. 1 13.2 and 15.2. */
#include "base/host_cpu.h"

#include <cpuid.h>
#include <string.h>

enum {
    LEAF1_ECX_OSXSAVE = 1 << 27,
    LEAF1_ECX_AVX = 1 << 28,
    LEAF7_EBX_AVX512F = 1 << 16,
    XCR0_SSE_AVX = 0x6,
    XCR0_AVX512 = 0xe0, /* opmask, ZMM_Hi256, Hi16_ZMM */
};

struct cpuid_regs host_cpuid(uint32_t leaf, uint32_t subleaf)
{
    struct cpuid_regs regs;
    __cpuid_count(leaf, subleaf, regs.eax, regs.ebx, regs.ecx, regs.edx);
    return regs;
}

/* A leaf above the maximum returns the data of the highest basic leaf on Intel, so it
 * must not be looked at. */
static struct cpuid_regs host_cpuid_checked(uint32_t leaf, uint32_t subleaf)
{
    if (host_cpuid(0, 0).eax < leaf)
        return (struct cpuid_regs){ 0 };
    return host_cpuid(leaf, subleaf);
}

uint64_t host_xcr0(void)
{
    if (!(host_cpuid_checked(1, 0).ecx & LEAF1_ECX_OSXSAVE))
        return 0;
    uint32_t low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (uint64_t)high << 32 | low;
}

bool host_has_avx(void)
{
    return (host_cpuid_checked(1, 0).ecx & LEAF1_ECX_AVX) && (host_xcr0() & XCR0_SSE_AVX) == XCR0_SSE_AVX;
}

bool host_has_avx512(void)
{
    return host_has_avx() && (host_cpuid_checked(7, 0).ebx & LEAF7_EBX_AVX512F) &&
           (host_xcr0() & XCR0_AVX512) == XCR0_AVX512;
}

bool host_is_intel(void)
{
    struct cpuid_regs regs = host_cpuid(0, 0);
    char vendor[12];

    memcpy(vendor, &regs.ebx, 4);
    memcpy(vendor + 4, &regs.edx, 4);
    memcpy(vendor + 8, &regs.ecx, 4);
    return memcmp(vendor, "GenuineIntel", 12) == 0;
}
