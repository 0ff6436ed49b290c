/* The rules of model-specific registers. */
#include "rig.h"

static bool refused(struct rig *rig, uint32_t msr, uint64_t value)
{
    return !cpu_msr_write(rig->cpu, msr, value);
}

static uint64_t get(struct rig *rig, uint32_t msr)
{
    uint64_t value;

    cr_assert(cpu_msr_read(rig->cpu, msr, &value), "MSR %x", msr);
    return value;
}

Test(msr, efer)
{
    struct rig rig;

    rig_init(&rig, "max", RIG_LONG);
    cr_assert_eq(get(&rig, 0xc0000080), EFER_SCE | EFER_LME | EFER_LMA | EFER_NXE);
    cr_assert(refused(&rig, 0xc0000080, EFER_LME | EFER_SCE | BIT(12)), "SVME");
    cr_assert(refused(&rig, 0xc0000080, EFER_SCE), "LME while paging");
    cr_assert_not(refused(&rig, 0xc0000080, EFER_LME), "LMA cannot be cleared by writing");
    cr_assert_eq(get(&rig, 0xc0000080), EFER_LME | EFER_LMA);
    rig_free(&rig);
    rig_init(&rig, "max,-nx", RIG_LONG);
    cr_assert(refused(&rig, 0xc0000080, EFER_LME | EFER_NXE));
    rig_free(&rig);
}

Test(msr, canonical_addresses)
{
    static const uint32_t msrs[] = { 0xc0000082, 0xc0000083, 0xc0000100, 0xc0000101, 0xc0000102, 0x175, 0x176 };
    struct rig rig;

    rig_init(&rig, "max", RIG_LONG);
    for (unsigned i = 0; i < ARRAY_SIZE(msrs); i++) {
        cr_assert(refused(&rig, msrs[i], 0x800000000000), "MSR %x", msrs[i]);
        cr_assert_not(refused(&rig, msrs[i], 0xffff800000000000), "MSR %x", msrs[i]);
        cr_assert_eq(get(&rig, msrs[i]), 0xffff800000000000);
    }
    cr_assert_eq(rig.cpu->segs[SEG_FS].base, 0xffff800000000000);
    rig_free(&rig);
}

Test(msr, memory_types)
{
    struct rig rig;

    rig_init(&rig, "max", RIG_LONG);
    cr_assert_eq(get(&rig, 0x277), 0x0007040600070406);
    cr_assert(refused(&rig, 0x277, 2));
    cr_assert(refused(&rig, 0x277, 0x0800000000000000));
    cr_assert_not(refused(&rig, 0x277, 0x0407050600070106));
    cr_assert(refused(&rig, 0x2ff, 2));
    cr_assert(refused(&rig, 0x2ff, 0x1006));
    cr_assert_not(refused(&rig, 0x2ff, 0xc06));
    cr_assert(refused(&rig, 0x200, BIT(41) | 6), "beyond MAXPHYADDR");
    cr_assert(refused(&rig, 0x200, 0x102));
    cr_assert_not(refused(&rig, 0x200, 0x80000000));
    cr_assert(refused(&rig, 0x201, 0x7ff));
    cr_assert_not(refused(&rig, 0x201, 0xff80000800));
    cr_assert(refused(&rig, 0x250, 3));
    cr_assert_not(refused(&rig, 0x26f, 0x0505050505050505));
    cr_assert_eq(get(&rig, 0x26f), 0x0505050505050505);
    cr_assert_eq(get(&rig, 0xfe) & 0xff, 8);
    rig_free(&rig);
}

Test(msr, firmware_mtrrs)
{
    struct rig rig;

    rig_init(&rig, "max", RIG_LONG);
    cpu_set_firmware_mtrrs(rig.cpu, 0x80000000);
    cr_assert_eq(get(&rig, 0x2ff), 0xc06);
    cr_assert_eq(get(&rig, 0x200), 0x80000000);
    cr_assert_eq(get(&rig, 0x201), 0xff80000800);
    cr_assert_eq(get(&rig, 0x259), 0);
    cr_assert_not(refused(&rig, 0x201, get(&rig, 0x201)));
    rig_free(&rig);
}

Test(msr, time_stamp_counter)
{
    struct rig rig;
    uint64_t before;

    rig_init(&rig, "max", RIG_LONG);
    before = get(&rig, 0x10);
    cr_assert_not(refused(&rig, 0x10, before + 1000000000000ull));
    cr_assert_geq(get(&rig, 0x10), before + 1000000000000ull);
    cr_assert_leq(get(&rig, 0x3b), 1000000000000ull);
    cr_assert_not(refused(&rig, 0x3b, 0));
    cr_assert_lt(get(&rig, 0x10), before + 1000000000000ull);
    rig_free(&rig);
}

/* SDM Vol. 3B 18.17.3: a write to the counter adds to TSC_ADJUST what it adds to the counter. */
Test(msr, writing_the_counter_moves_the_adjustment)
{
    const uint64_t old_adjust = 5000000000000ull;
    struct rig rig;
    uint64_t before, after, ticks;

    rig_init(&rig, "max", RIG_LONG);
    cr_assert_not(refused(&rig, 0x3b, old_adjust));
    before = get(&rig, 0x10) - old_adjust;
    cr_assert_not(refused(&rig, 0x10, 0));
    after = get(&rig, 0x10) - get(&rig, 0x3b);
    ticks = -get(&rig, 0x3b); /* the counter without an adjustment, at the time of the write */
    cr_assert(ticks >= before && ticks <= after, "%lx is not in %lx..%lx", ticks, before, after);
    cr_assert_leq(get(&rig, 0x10), 100000000000ull, "counts on from zero");
    rig_free(&rig);
}

Test(msr, machine_check)
{
    struct rig rig;

    rig_init(&rig, "max", RIG_LONG);
    cr_assert_eq(get(&rig, 0x179) & 0xff, 10);
    cr_assert(refused(&rig, 0x400, 5));
    cr_assert_not(refused(&rig, 0x400, 0));
    cr_assert(refused(&rig, 0x401, 1));
    cr_assert_eq(get(&rig, 0x425), 0);
    cr_assert(refused(&rig, 0x428, 0), "no eleventh bank");
    rig_free(&rig);
}

Test(msr, speculation_control)
{
    struct rig rig;

    rig_init(&rig, "max,vendor=GenuineIntel", RIG_LONG);
    cr_assert_eq(get(&rig, 0x10a) & 3, 3, "RDCL_NO and IBRS_ALL");
    cr_assert_not(refused(&rig, 0x48, 1));
    cr_assert_eq(get(&rig, 0x48), 1);
    cr_assert(refused(&rig, 0x48, 4), "no SSBD");
    cr_assert_not(refused(&rig, 0x48, BIT(10) | 1), "BHI_DIS_S");
    cr_assert(cpu_cpuid(rig.cpu, 7, 2).edx & BIT(4));
    cr_assert_not(refused(&rig, 0x49, 1));
    rig_free(&rig);
    rig_init(&rig, "max,vendor=AuthenticAMD", RIG_LONG);
    cr_assert(refused(&rig, 0x48, 1));
    cr_assert_not(refused(&rig, 0xc0000080, EFER_LME | EFER_AUTOIBRS));
    cr_assert_eq(get(&rig, 0xc0010055), 0);
    rig_free(&rig);
}

Test(msr, unknown_and_read_only)
{
    struct rig rig;
    uint64_t value;

    rig_init(&rig, "max,vendor=GenuineIntel", RIG_LONG);
    cr_assert_not(cpu_msr_read(rig.cpu, 0xdeadbeef, &value));
    cr_assert(refused(&rig, 0xdeadbeef, 0));
    cr_assert(refused(&rig, 0xfe, 0));
    cr_assert(refused(&rig, 0x3a, 5), "locked");
    cr_assert(refused(&rig, 0xc0010015, 0), "AMD's");
    cr_assert(refused(&rig, 0x6e0, 1), "no APIC in this rig");
    cr_assert(refused(&rig, 0xda0, 1));
    cr_assert(refused(&rig, 0xc0000103, BIT(32)));
    rig.cpu->gpr[REG_RCX] = 0xdeadbeef;
    ASSERT_FAULT(&rig, RIG_EXECUTE(&rig, 0x0f, 0x32), VECTOR_GP, 0);
    rig_set_user(&rig, true);
    rig.cpu->gpr[REG_RCX] = 0x10;
    ASSERT_FAULT(&rig, RIG_EXECUTE(&rig, 0x0f, 0x32), VECTOR_GP, 0);
    rig_free(&rig);
}

/* Every register of the list answers without harm to any value, and the table is sorted. */
Test(msr, sweep)
{
    static const uint64_t values[] = { 0, 1, ~0ull, 0x800000000000, 0x0606060606060606, 0xa000 };
    static const struct {
        uint32_t first, last;
    } ranges[] = {
#define MSR(first, last, name, read, write, field) { first, last },
#include "cpu/msr.def"
    };
    struct rig rig;
    uint64_t value;

    rig_init(&rig, "max", RIG_LONG);
    for (unsigned i = 0; i < ARRAY_SIZE(ranges); i++) {
        cr_assert(ranges[i].first <= ranges[i].last && (!i || ranges[i].first > ranges[i - 1].last), "row %u", i);
        for (uint32_t msr = ranges[i].first; msr <= ranges[i].last; msr++)
            for (unsigned v = 0; v < ARRAY_SIZE(values); v++) {
                cpu_msr_write(rig.cpu, msr, values[v]);
                cpu_msr_read(rig.cpu, msr, &value);
            }
    }
    rig_free(&rig);
}

/* ---- KVM's clock ---- */

struct pvclock {
    uint32_t version, pad;
    uint64_t tsc_timestamp, system_time;
    uint32_t mul;
    int8_t shift;
    uint8_t flags, pad2[2];
};

static uint64_t pvclock_ns(const struct pvclock *clock, uint64_t tsc)
{
    uint64_t delta = tsc - clock->tsc_timestamp;

    delta = clock->shift < 0 ? delta >> -clock->shift : delta << clock->shift;
    return clock->system_time + (uint64_t)((unsigned __int128)delta * clock->mul >> 32);
}

Test(kvm, clock)
{
    static const uint64_t frequencies[] = { 500000, 999999, 1000000, 1999999, 2000001, 2600000, 3193998, 5800000 };

    for (unsigned i = 0; i < ARRAY_SIZE(frequencies); i++) {
        struct pvclock page;
        struct rig rig;

        rig_init(&rig, "max", RIG_LONG);
        rig.clock.tsc_khz = frequencies[i];
        rig.cpu->msrs.tsc_adjust = 12345;
        cr_assert_not(refused(&rig, 0x4b564d01, 0xc000 | 1));
        physmem_read(rig.mem, 0xc000, &page, sizeof(page));
        cr_assert_eq(page.version, 2);
        cr_assert_eq(page.flags, 1);
        /* One hour of ticks is one hour. */
        uint64_t ns = pvclock_ns(&page, 12345 + frequencies[i] * 1000 * 3600);
        int64_t error = (int64_t)(ns - 3600000000000ull);
        cr_assert(error > -5000 && error < 5000, "%llu kHz: off by %lld ns", (unsigned long long)frequencies[i],
                  (long long)error);
        /* and Linux finds the frequency again (pvclock_tsc_khz) */
        uint64_t khz = (1000000ull << 32) / page.mul;
        khz = page.shift < 0 ? khz << -page.shift : khz >> page.shift;
        cr_assert(khz + 2 > frequencies[i] && khz < frequencies[i] + 2, "%llu", (unsigned long long)khz);
        rig_free(&rig);
    }
}

Test(kvm, clock_follows_adjustment_and_bad_address)
{
    struct rig rig;

    rig_init(&rig, "max", RIG_LONG);
    cr_assert_not(refused(&rig, 0x4b564d01, 0xc000 | 1));
    cr_assert_not(refused(&rig, 0x3b, 77));
    cr_assert_eq(rig_read(&rig, 0xc008, 8), 77);
    cr_assert_eq(rig_read(&rig, 0xc000, 4), 4);
    cr_assert_not(refused(&rig, 0x4b564d01, 0xfffffffffffff001));
    cr_assert_not(refused(&rig, 0x4b564d00, 0xd000));
    cr_assert_gt(rig_read(&rig, 0xd004, 4), 1700000000);
    rig_free(&rig);
    rig_init(&rig, "max,-kvmclock", RIG_LONG);
    cr_assert(refused(&rig, 0x4b564d01, 0xc001));
    rig_free(&rig);
}
