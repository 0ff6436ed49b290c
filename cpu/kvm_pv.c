/* KVM's paravirtual interface: the clock (Linux Documentation/virt/kvm/x86/msr.rst) and hypercalls (hypercalls.rst).
 * Offered by CPUID leaves 0x40000000 and 0x40000001. vCPU thread only.
 *
 * The clock page says how to turn the TSC into nanoseconds:
 *   time = system_time + (tsc - tsc_timestamp) * mul * 2^shift / 2^32
 * Time zero is the machine's start for every vCPU, so all pages agree and PVCLOCK_TSC_STABLE_BIT is true. */
#include <string.h>

#include "cpu/system_internal.h"

enum {
    MSR_WALL_CLOCK_OLD = 0x11,
    MSR_SYSTEM_TIME_OLD = 0x12,
    MSR_WALL_CLOCK = 0x4b564d00,
    MSR_SYSTEM_TIME = 0x4b564d01,
};

struct pvclock_time_info {
    uint32_t version; /* odd while it is being changed */
    uint32_t pad;
    uint64_t tsc_timestamp;
    uint64_t system_time;
    uint32_t tsc_to_system_mul;
    int8_t tsc_shift;
    uint8_t flags;
    uint8_t pad2[2];
};
_Static_assert(sizeof(struct pvclock_time_info) == 32, "ABI");

struct pvclock_wall_clock {
    uint32_t version, seconds, nanoseconds;
};

enum { PVCLOCK_TSC_STABLE = 1 };

bool kvm_pv_offered(const struct cpu *cpu)
{
    return cpuid_model_offers_kvm(cpu->model);
}

/* mul and shift with (2^31 <= mul < 2^32), so that 2^32 units of the shifted TSC are mul nanoseconds. */
static void time_scale(uint64_t tsc_khz, uint32_t *mul, int8_t *shift)
{
    uint64_t hz = tsc_khz * 1000;
    int s = 0;

    /* After the shift a tick takes at least half and less than a whole nanosecond. */
    while (hz > 2000000000ull) {
        hz >>= 1;
        s--;
    }
    while (hz && hz <= 1000000000ull) {
        hz <<= 1;
        s++;
    }
    *shift = (int8_t)s;
    /* From the exact frequency, not the truncated one: ns per tick * 2^32 / 2^s. */
    if (s < 0)
        *mul = (uint32_t)(((unsigned __int128)1000000000ull << (32 - s)) / (tsc_khz * 1000));
    else
        *mul = (uint32_t)(((unsigned __int128)1000000000ull << 32) / ((unsigned __int128)(tsc_khz * 1000) << s));
}

/* Nanoseconds since the start as the guest computes them. */
static uint64_t pv_now_ns(const struct cpu *cpu)
{
    return (uint64_t)((unsigned __int128)clock_tsc(cpu->clock) * 1000000 / cpu->clock->tsc_khz);
}

void kvm_pv_update_clock(struct cpu *cpu)
{
    uint64_t msr = cpu->msrs.kvm_system_time;
    gpa_t gpa = msr & ~1ull;
    struct pvclock_time_info info = { .tsc_timestamp = cpu->msrs.tsc_adjust };
    uint32_t version = 0;

    if (!(msr & 1))
        return;
    cpu_park_vectors(cpu); /* 128-bit divisions are calls */
    time_scale(cpu->clock->tsc_khz, &info.tsc_to_system_mul, &info.tsc_shift);
    if (cpu_has(cpu, FEATURE_KVM_CLOCK_STABLE))
        info.flags = PVCLOCK_TSC_STABLE;
    if (!physmem_read(cpu->physmem, gpa, &version, 4))
        return; /* not RAM: as on KVM, the guest gets no clock */
    info.version = (version | 1) + (version & 1 ? 2 : 0);
    physmem_write(cpu->physmem, gpa, &info.version, 4);
    atomic_thread_fence(memory_order_release);
    physmem_write(cpu->physmem, gpa + 4, (char *)&info + 4, sizeof(info) - 4);
    atomic_thread_fence(memory_order_release);
    info.version++;
    physmem_write(cpu->physmem, gpa, &info.version, 4);
}

/* The wall clock at time zero; written once for each request. */
static void write_wall_clock(struct cpu *cpu, gpa_t gpa)
{
    struct pvclock_wall_clock wall;
    uint32_t version = 0;
    uint64_t start;

    cpu_park_vectors(cpu);
    start = clock_wall_ns() - pv_now_ns(cpu);
    wall.seconds = (uint32_t)(start / 1000000000);
    wall.nanoseconds = (uint32_t)(start % 1000000000);
    if (!physmem_read(cpu->physmem, gpa, &version, 4))
        return;
    wall.version = (version & ~1u) + 1;
    physmem_write(cpu->physmem, gpa, &wall, sizeof(wall));
    wall.version++;
    physmem_write(cpu->physmem, gpa, &wall.version, 4);
}

static bool clock_offered(const struct cpu *cpu)
{
    return kvm_pv_offered(cpu) && cpu_has(cpu, FEATURE_KVM_CLOCKSOURCE2);
}

bool kvm_pv_msr_read(struct cpu *cpu, uint32_t msr, uint64_t *value)
{
    if (!clock_offered(cpu))
        return false;
    switch (msr) {
    case MSR_WALL_CLOCK:
    case MSR_WALL_CLOCK_OLD:
        *value = cpu->msrs.kvm_wall_clock;
        return true;
    case MSR_SYSTEM_TIME:
    case MSR_SYSTEM_TIME_OLD:
        *value = cpu->msrs.kvm_system_time;
        return true;
    default:
        return false;
    }
}

bool kvm_pv_msr_write(struct cpu *cpu, uint32_t msr, uint64_t value)
{
    if (!clock_offered(cpu))
        return false;
    switch (msr) {
    case MSR_WALL_CLOCK:
    case MSR_WALL_CLOCK_OLD:
        cpu->msrs.kvm_wall_clock = value;
        write_wall_clock(cpu, value);
        return true;
    case MSR_SYSTEM_TIME:
    case MSR_SYSTEM_TIME_OLD:
        cpu->msrs.kvm_system_time = value;
        kvm_pv_update_clock(cpu);
        return true;
    default:
        return false;
    }
}

/* No hypercall is implemented: what Linux uses is optional, and asks for -ENOSYS to be told so. */
uint64_t kvm_pv_hypercall(struct cpu *cpu, uint64_t number)
{
    enum { KVM_EPERM = 1, KVM_ENOSYS = 1000 };

    if (cpu->cpl)
        return (uint64_t)-KVM_EPERM;
    log_event(unimp, "KVM hypercall %llu: -ENOSYS\n", (unsigned long long)number);
    return (uint64_t)-KVM_ENOSYS;
}
