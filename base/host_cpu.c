/* What the host CPU has: CPUID and XGETBV. Where the host is a virtual machine itself, CPUID is trapped and takes some ten microseconds, and finding
 * out what may be offered to a guest asks a thousand times: each leaf is asked for once and kept. What differs from CPU to CPU (APIC IDs)
 * is of no interest to anybody here. Any thread. SDM Vol. 2A CPUID, Vol. 1 13.2 and 15.2. */
#include "base/host_cpu.h"

#include <cpuid.h>
#include <stdatomic.h>
#include <string.h>

enum {
    LEAF1_ECX_OSXSAVE = 1 << 27,
    LEAF1_ECX_AVX = 1 << 28,
    LEAF7_EBX_AVX512F = 1 << 16,
    XCR0_SSE_AVX = 0x6,
    XCR0_AVX512 = 0xe0, /* opmask, ZMM_Hi256, Hi16_ZMM */
};

enum { KEPT_LEAVES = 0x24, KEPT_SUBLEAVES = 4 }; /* of the basic and of the extended leaves */

static struct kept_leaf {
    _Atomic uint64_t low, high; /* EBX:EAX, EDX:ECX */
    atomic_bool known;
} kept_leaves[2][KEPT_LEAVES][KEPT_SUBLEAVES];

static struct cpuid_regs ask(uint32_t leaf, uint32_t subleaf)
{
    struct cpuid_regs regs;
    __cpuid_count(leaf, subleaf, regs.eax, regs.ebx, regs.ecx, regs.edx);
    return regs;
}

/* Two threads may ask at the same time: they are told the same. */
struct cpuid_regs host_cpuid(uint32_t leaf, uint32_t subleaf)
{
    uint32_t number = leaf & 0x7fffffff;

    if ((leaf & 0x7fff0000) || number >= KEPT_LEAVES || subleaf >= KEPT_SUBLEAVES)
        return ask(leaf, subleaf);
    struct kept_leaf *kept = &kept_leaves[leaf >> 31][number][subleaf];
    if (!atomic_load_explicit(&kept->known, memory_order_acquire)) {
        struct cpuid_regs regs = ask(leaf, subleaf);
        atomic_store_explicit(&kept->low, (uint64_t)regs.ebx << 32 | regs.eax, memory_order_relaxed);
        atomic_store_explicit(&kept->high, (uint64_t)regs.edx << 32 | regs.ecx, memory_order_relaxed);
        atomic_store_explicit(&kept->known, true, memory_order_release);
    }
    uint64_t low = atomic_load_explicit(&kept->low, memory_order_relaxed);
    uint64_t high = atomic_load_explicit(&kept->high, memory_order_relaxed);
    return (struct cpuid_regs){ (uint32_t)low, (uint32_t)(low >> 32), (uint32_t)high, (uint32_t)(high >> 32) };
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
