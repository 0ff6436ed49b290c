/* CPU models: from a -cpu value ("max,-avx2,+pcid,enforce") to the set of features, identity and capabilities that the
 * virtual CPUs have. Errors leave it to the caller to say "-cpu ...". Set-up code, one thread; the result is constant.
 *
 * How the speculation bits are chosen. The virtual CPU executes guest code through an interpreter or translator whose
 * address checks a guest cannot turn into the architectural flaws that these bits deny; where a real side channel
 * remains (docs/security.md) no guest mitigation would close it. So the model denies every flaw that it can, and a
 * guest kernel spends nothing on them.
 * Linux 6.1 and later (arch/x86/kernel/cpu/common.c, bugs.c) then does this on Intel:
 *   RDCL_NO             no page-table isolation, no L1TF mitigation
 *   IBRS_ALL            "Enhanced IBRS": one write of IA32_SPEC_CTRL at boot instead of retpolines in every indirect
 *                       branch; also what Retbleed's mitigation wants to see. Needs the MSR: spec-ctrl is offered
 *   BHI_CTRL            another bit in that write (BHI_DIS_S) instead of a branch-history clearing loop in every system
 *                       call: since 2025 kernels no longer believe BHI_NO, which is there for the older ones
 *   PBRSB_NO, ITS_NO    no extra RSB work, no aligned thunks
 *   SSB_NO              no speculative-store-bypass control (hence no SSBD bit)
 *   MDS_NO, TAA_NO, FBSDP_NO, PSDP_NO, SBDR_SSDP_NO, GDS_NO, RFDS_NO   no VERW, no microcode switches
 *   PSCHANGE_MC_NO, SKIP_L1DFL_VMENTRY   nothing for nested hypervisors to do
 * Not set: RSBA and RRSBA (they ask for more), MISC_PACKAGE_CTRLS and other bits that announce MSRs we do not have.
 * On an AMD model the same is said with BTC_NO, SRSO_NO, TSA_*_NO, SSB_NO, automatic IBRS and a serialising LFENCE. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/options.h"
#include "cpu/cpu.h"
#include "cpu/cpuid_internal.h"

/* IA32_ARCH_CAPABILITIES (SDM Vol. 4, table 2-2, register 10AH) */
#define ARCH_CAPABILITIES                                                                                              \
    (BIT(0) /* RDCL_NO */ | BIT(1) /* IBRS_ALL */ | BIT(3) /* SKIP_L1DFL_VMENTRY */ | BIT(4) /* SSB_NO */ |            \
     BIT(5) /* MDS_NO */ | BIT(6) /* PSCHANGE_MC_NO */ | BIT(8) /* TAA_NO */ | BIT(13) /* SBDR_SSDP_NO */ |            \
     BIT(14) /* FBSDP_NO */ | BIT(15) /* PSDP_NO */ | BIT(20) /* BHI_NO */ | BIT(24) /* PBRSB_NO */ |                  \
     BIT(26) /* GDS_NO */ | BIT(27) /* RFDS_NO */ | BIT(62) /* ITS_NO */)

static const uint16_t immunity_features[] = {
    FEATURE_SPEC_CTRL,  FEATURE_BHI_CTRL, FEATURE_ARCH_CAPABILITIES,   FEATURE_XSAVEERPTR,
    FEATURE_AMD_SSB_NO, FEATURE_BTC_NO,   FEATURE_LFENCE_SERIALIZING,  FEATURE_NULL_SEL_CLEARS_BASE,
    FEATURE_AUTOIBRS,   FEATURE_SRSO_NO,  FEATURE_SRSO_USER_KERNEL_NO, FEATURE_TSA_SQ_NO,
    FEATURE_TSA_L1_NO,
};

struct named_model {
    const char *name, *parent;
    unsigned family, model, stepping;
    const char *brand, *description, *features;
};

static const struct named_model named_models[] = {
#define CPUID_MODEL(name, parent, family, model, stepping, brand, description, features)                               \
    { name, parent, family, model, stepping, brand, description, features },
#include "cpu/cpuid_models.def"
};

static const struct named_model *find_named(const char *name)
{
    for (unsigned i = 0; i < ARRAY_SIZE(named_models); i++)
        if (!strcmp(named_models[i].name, name))
            return &named_models[i];
    return NULL;
}

/* ---- The model itself ---- */

static void identify_host(struct cpuid_model *model)
{
    uint32_t signature = host_cpuid(1, 0).eax;

    model->family = signature >> 8 & 15;
    model->model = signature >> 4 & 15;
    model->stepping = signature & 15;
    if (model->family == 6 || model->family == 15)
        model->model |= signature >> 12 & 0xf0;
    if (model->family == 15)
        model->family += signature >> 20 & 0xff;
    for (unsigned i = 0; i < 3; i++) {
        struct cpuid_regs regs = host_cpuid(0x80000002 + i, 0);

        memcpy(model->brand + 16 * i, &regs, 16);
    }
    model->host_caches = true;
}

static void fill_max(struct cpuid_model *model)
{
    identify_host(model);
    for (unsigned f = 0; f < FEATURE_COUNT; f++)
        model->features[f] = !cpuid_feature_obstacle(f, model->vendor);
}

/* A feature that cannot be had: an error with enforce, else one line. */
static int missing_feature(const struct cpuid_model *model, const char *name, const char *reason, struct error *err)
{
    if (model->enforce)
        return error_set(err, EINVAL, "feature '%s' cannot be offered: %s", name, reason);
    if (model->check)
        log_warn("-cpu %s: feature '%s' cannot be offered: %s", model->name, name, reason);
    return 0;
}

static int add_feature(struct cpuid_model *model, const char *name, struct error *err)
{
    enum cpu_feature feature = cpuid_feature_find(name);
    const char *obstacle = cpuid_feature_obstacle(feature, model->vendor);

    if (obstacle)
        return missing_feature(model, cpuid_features[feature].name, obstacle, err);
    model->features[feature] = true;
    return 0;
}

static int fill_named(struct cpuid_model *model, const struct named_model *named, struct error *err)
{
    char features[1024], *word, *rest = features;

    if (named->parent && fill_named(model, find_named(named->parent), err) < 0)
        return -EINVAL;
    model->family = named->family;
    model->model = named->model;
    model->stepping = named->stepping;
    snprintf(model->brand, sizeof(model->brand), "%s", named->brand);
    snprintf(features, sizeof(features), "%s", named->features);
    while ((word = strsep(&rest, ",")))
        if (add_feature(model, word, err) < 0)
            return -EINVAL;
    for (unsigned i = 0; i < ARRAY_SIZE(immunity_features); i++)
        if (!cpuid_feature_obstacle(immunity_features[i], model->vendor))
            model->features[immunity_features[i]] = true;
    return 0;
}

static int unknown_model(const char *name, struct error *err)
{
    const char *candidates[ARRAY_SIZE(named_models) + 3] = { "max", "host" }, *nearest;

    if (!strcmp(name, "x86-64-v4"))
        return error_set(err, EINVAL, "not available yet: AVX-512 is not implemented");
    for (unsigned i = 0; i < ARRAY_SIZE(named_models); i++)
        candidates[i + 2] = named_models[i].name;
    nearest = nearest_word(name, candidates);
    if (nearest)
        return error_set(err, EINVAL, "unknown CPU model; did you mean '%s'?", nearest);
    return error_set(err, EINVAL, "unknown CPU model (see -cpu help)");
}

static int fill_model(struct cpuid_model *model, struct error *err)
{
    const struct named_model *named = find_named(model->name);

    if (!strcmp(model->name, "max") || !strcmp(model->name, "host")) {
        fill_max(model);
        return 0;
    }
    if (named)
        return fill_named(model, named, err);
    return unknown_model(model->name, err);
}

/* ---- Properties ---- */

static int unknown_feature(const char *name, struct error *err)
{
    const char *candidates[FEATURE_COUNT + 1], *nearest;
    unsigned count = 0;

    for (unsigned f = 0; f < FEATURE_COUNT; f++)
        if (cpuid_features[f].name)
            candidates[count++] = cpuid_features[f].name;
    candidates[count] = NULL;
    nearest = nearest_word(name, candidates);
    if (nearest)
        return error_set(err, EINVAL, "unknown feature or property '%s'; did you mean '%s'?", name, nearest);
    return error_set(err, EINVAL, "unknown feature or property '%s'", name);
}

static int set_feature(struct cpuid_model *model, const char *name, bool on, struct error *err)
{
    enum cpu_feature feature = cpuid_feature_find(name);

    if (feature == FEATURE_COUNT)
        return unknown_feature(name, err);
    if (on)
        return add_feature(model, name, err);
    model->features[feature] = false;
    return 0;
}

static int number(const struct option_pair *pair, uint64_t low, uint64_t high, unsigned *out, struct error *err)
{
    uint64_t value;

    if (parse_u64(pair->value, &value, err) < 0)
        return error_prefix(err, -EINVAL, "%s", pair->key);
    if (value < low || value > high)
        return error_set(err, EINVAL, "%s=%s: not in the range %llu to %llu", pair->key, pair->value,
                         (unsigned long long)low, (unsigned long long)high);
    *out = (unsigned)value;
    return 0;
}

static int set_vendor(struct cpuid_model *model, const char *value, struct error *err)
{
    if (!strcmp(value, "GenuineIntel"))
        model->vendor = VENDOR_INTEL;
    else if (!strcmp(value, "AuthenticAMD"))
        model->vendor = VENDOR_AMD;
    else
        return error_set(err, EINVAL, "vendor=%s: only GenuineIntel and AuthenticAMD", value);
    return 0;
}

/* Before the features: what decides how they are chosen. */
static int early_property(struct cpuid_model *model, struct option_list *list, struct error *err)
{
    const char *vendor = options_get(list, "vendor");
    bool host_bits;

    if (vendor && set_vendor(model, vendor, err) < 0)
        return -EINVAL;
    if (options_get_bool(list, "enforce", false, &model->enforce, err) < 0 ||
        options_get_bool(list, "kvm", true, &model->kvm, err) < 0 ||
        options_get_bool(list, "check", true, &model->check, err) < 0 ||
        options_get_bool(list, "host-phys-bits", false, &host_bits, err) < 0)
        return -EINVAL;
    if (host_bits)
        model->physical_bits = MIN(MAX(host_cpuid(0x80000008, 0).eax & 0xff, 36), 52);
    return 0;
}

static int late_property(struct cpuid_model *model, struct option_pair *pair, struct error *err)
{
    const char *key = pair->key;
    bool on;

    if (key[0] == '+' || key[0] == '-')
        return set_feature(model, key + 1, key[0] == '+', err);
    if (!strcmp(key, "phys-bits"))
        return number(pair, 32, 52, &model->physical_bits, err);
    if (!strcmp(key, "family"))
        return number(pair, 0, 15 + 255, &model->family, err);
    if (!strcmp(key, "model"))
        return number(pair, 0, 255, &model->model, err);
    if (!strcmp(key, "stepping"))
        return number(pair, 0, 15, &model->stepping, err);
    if (!strcmp(key, "model-id")) {
        snprintf(model->brand, sizeof(model->brand), "%s", pair->value);
        return 0;
    }
    if (cpuid_feature_find(key) == FEATURE_COUNT)
        return unknown_feature(key, err);
    on = !strcmp(pair->value, "on") || !strcmp(pair->value, "yes") || !strcmp(pair->value, "true");
    if (!on && strcmp(pair->value, "off") && strcmp(pair->value, "no") && strcmp(pair->value, "false"))
        return error_set(err, EINVAL, "%s=%s: 'on' or 'off' expected", key, pair->value);
    return set_feature(model, key, on, err);
}

static int apply_options(struct cpuid_model *model, struct option_list *list, struct error *err)
{
    const char *name = list->count && !strcmp(list->pairs[0].key, "") ? list->pairs[0].value : "max";

    if (list->count && !strcmp(list->pairs[0].key, ""))
        list->pairs[0].used = true;
    snprintf(model->name, sizeof(model->name), "%s", name);
    if (early_property(model, list, err) < 0 || fill_model(model, err) < 0)
        return -EINVAL;
    for (size_t i = 0; i < list->count; i++)
        if (!list->pairs[i].used && late_property(model, &list->pairs[i], err) < 0)
            return -EINVAL;
    return 0;
}

/* What follows from the features. */
static void finish(struct cpuid_model *model)
{
    model->features[FEATURE_BASE] = true;
    cpuid_drop_dependents(model->features);
    model->features[FEATURE_HTT] = model->cpus > 1;
    model->features[FEATURE_CMP_LEGACY] = model->cpus > 1 && model->vendor == VENDOR_AMD;
    if (!model->features[FEATURE_HYPERVISOR])
        model->kvm = false;
    if (model->features[FEATURE_XSAVE])
        model->xcr0 = BIT(0) | (model->features[FEATURE_SSE] ? BIT(1) : 0) |
                      (model->features[FEATURE_AVX] ? BIT(2) : 0) | (model->features[FEATURE_PKU] ? BIT(9) : 0);
    else
        model->xcr0 = 1;
    if (model->features[FEATURE_ARCH_CAPABILITIES])
        model->arch_capabilities = ARCH_CAPABILITIES;
}

struct cpuid_model *cpuid_model_create(const char *spec, const struct clock *clock, unsigned physical_bits,
                                       unsigned cpus, struct error *err)
{
    struct cpuid_model *model = calloc(1, sizeof(*model));
    struct option_list list;
    int result;

    if (!model) {
        error_set(err, ENOMEM, "no memory for the CPU model");
        return NULL;
    }
    model->vendor = host_is_intel() ? VENDOR_INTEL : VENDOR_AMD;
    model->physical_bits = physical_bits ? physical_bits : 40;
    model->virtual_bits = 48;
    model->cpus = cpus ? cpus : 1;
    model->tsc_khz = clock ? clock->tsc_khz : 1000000;
    if (options_parse(&list, spec ? spec : "max", "", err) < 0) {
        free(model);
        return NULL;
    }
    result = apply_options(model, &list, err);
    options_free(&list);
    if (result < 0) {
        free(model);
        return NULL;
    }
    finish(model);
    return model;
}

void cpuid_model_destroy(struct cpuid_model *model)
{
    free(model);
}

void cpuid_model_list(void)
{
    unsigned column = 0;

    puts("Available CPUs:");
    printf("  %-20s  %s\n", "host", "the same as max");
    printf("  %-20s  %s\n", "max", "all that the host CPU and this program have (default)");
    for (unsigned i = 0; i < ARRAY_SIZE(named_models); i++)
        printf("  %-20s  %s\n", named_models[i].name, named_models[i].description);
    puts("\nRecognized CPUID flags:");
    for (unsigned f = 0; f < FEATURE_COUNT; f++) {
        const char *name = cpuid_features[f].name;

        if (!name)
            continue;
        if (column + strlen(name) + 1 > 78) {
            putchar('\n');
            column = 0;
        }
        column += (unsigned)printf("%s%s", column ? " " : "  ", name);
    }
    putchar('\n');
}
