/* CPU models and the leaves they show. */
#include "rig.h"
#include "cpu/cpuid_internal.h"

static struct cpuid_model *model_of(const char *spec, struct error *err)
{
    struct clock clock = { .tsc_khz = 2600000 };

    return cpuid_model_create(spec, &clock, 40, 1, err);
}

static void assert_error(const char *spec, const char *word)
{
    struct error err = { "" };

    cr_assert_null(model_of(spec, &err), "%s was accepted", spec);
    cr_assert(strstr(err.text, word), "%s: '%s' does not say '%s'", spec, err.text, word);
}

Test(cpuid, unknown_names)
{
    assert_error("hots", "host");
    assert_error("qemu46", "qemu64");
    assert_error("x86-64-v4", "AVX-512");
    assert_error("max,+avx22", "avx2");
    assert_error("max,-sse77", "sse77");
    assert_error("max,avx2=maybe", "on");
    assert_error("max,phys-bits=99", "range");
    assert_error("max,vendor=Cyrix", "GenuineIntel");
    assert_error("max,+vmx,enforce", "vmx");
    assert_error("nonsense-that-resembles-nothing", "-cpu help");
}

Test(cpuid, options)
{
    struct error err;
    struct cpuid_model *model = model_of("max,-avx2,sse4_2=off,+pcid,phys-bits=46,model-id=Test CPU", &err);

    cr_assert(model, "%s", err.text);
    cr_assert_not(cpuid_model_has(model, FEATURE_AVX2));
    cr_assert_not(cpuid_model_has(model, FEATURE_SSE42));
    cr_assert(cpuid_model_has(model, FEATURE_PCID));
    cr_assert_eq(cpuid_model_physical_bits(model), 46);
    cr_assert_str_eq(model->brand, "Test CPU");
    cpuid_model_destroy(model);
}

Test(cpuid, dependents_go_too)
{
    struct error err;
    struct cpuid_model *model = model_of("max,-xsave", &err);

    cr_assert(model, "%s", err.text);
    cr_assert_not(cpuid_model_has(model, FEATURE_AVX));
    cr_assert_not(cpuid_model_has(model, FEATURE_FMA));
    cr_assert_not(cpuid_model_has(model, FEATURE_XSAVEC));
    cr_assert_eq(cpuid_model_xcr0(model), 1);
    cpuid_model_destroy(model);
}

Test(cpuid, max_has_what_the_host_lacks_and_not_what_we_lack)
{
    static const uint16_t yes[] = {
        FEATURE_X2APIC, FEATURE_TSC_DEADLINE, FEATURE_INVTSC,  FEATURE_HYPERVISOR, FEATURE_KVM_CLOCKSOURCE2,
        FEATURE_PCID,   FEATURE_SMEP,         FEATURE_SMAP,    FEATURE_UMIP,       FEATURE_PKU,
        FEATURE_LM,     FEATURE_NX,           FEATURE_SYSCALL, FEATURE_FSGSBASE,
    };
    static const uint16_t no[] = {
        FEATURE_VMX, FEATURE_SVM,   FEATURE_SMX, FEATURE_AVX512F, FEATURE_AMX_TILE,
        FEATURE_MPX, FEATURE_SHSTK, FEATURE_IBT, FEATURE_WAITPKG, FEATURE_ENQCMD,
        FEATURE_PKS, FEATURE_RTM,   FEATURE_HLE, FEATURE_MONITOR, FEATURE_LA57,
    };
    struct error err;
    struct cpuid_model *model = model_of("max", &err);

    cr_assert(model, "%s", err.text);
    for (unsigned i = 0; i < ARRAY_SIZE(yes); i++)
        cr_assert(cpuid_model_has(model, yes[i]), "%s", cpuid_features[yes[i]].name);
    for (unsigned i = 0; i < ARRAY_SIZE(no); i++)
        cr_assert_not(cpuid_model_has(model, no[i]), "%s", cpuid_features[no[i]].name);
    for (unsigned f = 0; f < FEATURE_COUNT; f++)
        if (cpuid_model_has(model, f) && cpuid_features[f].name)
            cr_assert_null(cpuid_feature_obstacle(f, model->vendor), "%s", cpuid_features[f].name);
    cpuid_model_destroy(model);
}

Test(cpuid, named_models_build_on_each_other)
{
    static const char *const names[] = { "qemu64", "kvm64", "x86-64-v1", "x86-64-v2", "x86-64-v3" };

    for (unsigned i = 0; i < ARRAY_SIZE(names); i++) {
        struct error err;
        struct cpuid_model *model = model_of(names[i], &err);

        cr_assert(model, "%s: %s", names[i], err.text);
        cr_assert(cpuid_model_has(model, FEATURE_SSE2));
        cr_assert_eq(cpuid_model_has(model, FEATURE_SSE42), i >= 3 && cpuid_host_has(FEATURE_SSE42));
        cr_assert_eq(cpuid_model_has(model, FEATURE_AVX2), i >= 4 && cpuid_host_has(FEATURE_AVX2));
        cpuid_model_destroy(model);
    }
}

Test(cpuid, leaves)
{
    struct cpuid_regs regs;
    struct rig rig;
    struct cpu *cpu;
    char text[49] = { 0 };

    rig_init(&rig, "max,vendor=GenuineIntel", RIG_LONG);
    cpu = rig.cpu;
    regs = cpu_cpuid(cpu, 0, 0);
    memcpy(text, &regs.ebx, 4);
    memcpy(text + 4, &regs.edx, 4);
    memcpy(text + 8, &regs.ecx, 4);
    cr_assert_str_eq(text, "GenuineIntel");
    regs = cpu_cpuid(cpu, 0x40000000, 0);
    memset(text, 0, sizeof(text));
    memcpy(text, &regs.ebx, 12);
    cr_assert_str_eq(text, "KVMKVMKVM");
    regs = cpu_cpuid(cpu, 0x40000010, 0);
    cr_assert_eq(regs.eax, rig.clock.tsc_khz);
    cr_assert_eq(cpu_cpuid(cpu, 0x80000008, 0).eax, 48 << 8 | 40);
    cr_assert_eq(cpu_cpuid(cpu, 0x80000000, 0).eax, 0x80000008);
    cr_assert(cpu_cpuid(cpu, 0x80000007, 0).edx & BIT(8));
    cr_assert_eq(cpu_cpuid(cpu, 0xa, 0).eax, 0, "no performance counters");
    cr_assert_eq(cpu_cpuid(cpu, 0x12345678, 0).edx, cpu_cpuid(cpu, 0x1f, 0).edx, "beyond the end: the last basic leaf");
    cr_assert_not(cpu_cpuid(cpu, 1, 0).ecx & BIT(27));
    cpu_set_cr4(cpu, cpu->cr4 | CR4_OSXSAVE);
    cr_assert(cpu_cpuid(cpu, 1, 0).ecx & BIT(27), "OSXSAVE follows CR4");
    rig_free(&rig);
}

Test(cpuid, amd)
{
    struct rig rig;

    rig_init(&rig, "max,vendor=AuthenticAMD", RIG_LONG);
    cr_assert_eq(cpu_cpuid(rig.cpu, 0x12345678, 0).eax, 0);
    cr_assert_eq(cpu_cpuid(rig.cpu, 4, 0).eax, 0);
    cr_assert_eq(cpu_cpuid(rig.cpu, 0x15, 0).eax, 0);
    cr_assert(cpu_cpuid(rig.cpu, 0x80000001, 0).edx & 1, "repeats leaf 1");
    cr_assert(cpu_cpuid(rig.cpu, 0x80000021, 0).eax & BIT(8));
    cr_assert_not(cpu_cpuid(rig.cpu, 7, 0).edx & BIT(29));
    rig_free(&rig);
}

/* Leaf 0x15 as Linux evaluates it, in 32-bit kHz. */
Test(cpuid, tsc_frequency)
{
    static const uint64_t frequencies[] = { 1000000, 2600000, 2100000, 2599998, 3193999, 2893202, 4200007, 800123 };

    for (unsigned i = 0; i < ARRAY_SIZE(frequencies); i++) {
        struct cpuid_regs regs;
        uint32_t khz;
        struct rig rig;

        rig_init(&rig, "max,vendor=GenuineIntel", RIG_LONG);
        rig.model->tsc_khz = frequencies[i];
        regs = cpu_cpuid(rig.cpu, 0x15, 0);
        khz = regs.ecx / 1000 * regs.ebx / regs.eax;
        cr_assert_eq(khz, frequencies[i], "%llu: %u", (unsigned long long)frequencies[i], khz);
        if (frequencies[i] % 100000 == 0)
            cr_assert_eq(regs.ecx, 1000000000, "the crystal is the APIC timer's clock");
        rig_free(&rig);
    }
}

Test(cpuid, xsave_leaf)
{
    struct cpuid_regs regs;
    struct rig rig;

    rig_init(&rig, "max", RIG_LONG);
    if (!cpu_has(rig.cpu, FEATURE_AVX))
        cr_skip_test();
    regs = cpu_cpuid(rig.cpu, 0xd, 0);
    cr_assert_eq(regs.eax, cpuid_model_xcr0(rig.model));
    cr_assert_eq(regs.ebx, 576, "only x87 enabled");
    rig.cpu->xcr0 = 7;
    cr_assert_eq(cpu_cpuid(rig.cpu, 0xd, 0).ebx, 576 + 256);
    regs = cpu_cpuid(rig.cpu, 0xd, 2);
    cr_assert_eq(regs.eax, 256);
    cr_assert_eq(regs.ebx, 576);
    cr_assert_eq(cpu_cpuid(rig.cpu, 0xd, 5).eax, 0, "no opmasks");
    cr_assert_eq(cpu_cpuid(rig.cpu, 0xd, 63).eax, 0);
    cr_assert_eq(cpu_cpuid(rig.cpu, 0xd, 0xffffffff).eax, 0);
    rig_free(&rig);
}

Test(cpuid, topology)
{
    struct clock clock = { .tsc_khz = 2000000 };
    struct error err;
    struct cpuid_model *model = cpuid_model_create("max", &clock, 40, 6, &err);
    struct cpu cpu = { .model = model, .index = 5 };

    cr_assert_eq(cpu_cpuid(&cpu, 0xb, 0).ebx, 1);
    cr_assert_eq(cpu_cpuid(&cpu, 0xb, 1).eax, 3);
    cr_assert_eq(cpu_cpuid(&cpu, 0xb, 1).ebx, 6);
    cr_assert_eq(cpu_cpuid(&cpu, 0xb, 0).edx, 5);
    cr_assert_eq(cpu_cpuid(&cpu, 1, 0).ebx >> 24, 5);
    cr_assert(cpu_cpuid(&cpu, 1, 0).edx & BIT(28));
    cpuid_model_destroy(model);
}

/* CPUID faulting, which PLATFORM_INFO announces. */
Test(cpuid, faulting)
{
    struct rig rig;

    rig_init(&rig, "max", RIG_LONG);
    cr_assert(cpu_msr_write(rig.cpu, 0x140, 1));
    rig.cpu->gpr[REG_RAX] = 0;
    cr_assert_neq(RIG_EXECUTE(&rig, 0x0f, 0xa2), STEP_FAULT);
    rig_set_user(&rig, true);
    ASSERT_FAULT(&rig, RIG_EXECUTE(&rig, 0x0f, 0xa2), VECTOR_GP, 0);
    rig_free(&rig);
}
