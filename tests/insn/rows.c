/* Which rows of the table are run against the host: what both have, and what excluded.def does not rule out. */
#include "base/host_cpu.h"
#include "cpu/cpu.h"
#include "tests/insn/insn_test.h"

#include <string.h>

static const char *row_excluded(const struct insn_row *row)
{
    static const struct {
        const char *mnemonic, *reason;
    } excluded[] = {
#define EXCLUDE(mnemonic, reason) { #mnemonic, reason },
#include "tests/insn/excluded.def"
#undef EXCLUDE
    };
    for (size_t i = 0; i < ARRAY_SIZE(excluded); i++)
        if (!strcmp(excluded[i].mnemonic, row->mnemonic))
            return excluded[i].reason;
    if (row->handler == HANDLER_jmp_far || row->handler == HANDLER_call_far)
        return "loads selectors of the host's GDT"; /* the near ones have the same mnemonics */
    if (row->handler == HANDLER_mov_to_seg || row->handler == HANDLER_pop_seg)
        return "loads selectors of the host's GDT";
    if (row->map >= MAP_EVEX_0F)
        return "EVEX: not run by the engine yet";
    if (row->handler == HANDLER_unimplemented)
        return "not implemented by the engine yet: #UD";
    return NULL;
}

static const char *host_lacks(const struct insn_row *row)
{
    static const struct {
        uint32_t leaf, subleaf;
        uint8_t reg, bit;
    } features[] = {
#define EAX                                        0
#define EBX                                        1
#define ECX                                        2
#define EDX                                        3
#define FEATURE_BASE(id)                           { 0 },
#define FEATURE(id, name, leaf, subleaf, reg, bit) { leaf, subleaf, reg, bit },
#include "cpu/features.def"
#undef FEATURE
#undef EAX
#undef EBX
#undef ECX
#undef EDX
    };
    unsigned f = row->feature;

    if (!features[f].leaf || row->handler == HANDLER_nop)
        return NULL;
    struct cpuid_regs regs = host_cpuid(features[f].leaf, features[f].subleaf);
    uint32_t values[] = { regs.eax, regs.ebx, regs.ecx, regs.edx };
    if (!(values[features[f].reg] >> features[f].bit & 1))
        return "the host lacks the feature";
    if (row->map >= MAP_VEX_0F && row->exception_class != EXC_VEX_GPR && !native_has_avx())
        return "the host has no AVX";
    return NULL;
}

const char *row_skip_reason(const struct insn_row *row, const struct cpuid_model *model)
{
    const char *reason = row_excluded(row);
    if (!reason)
        reason = host_lacks(row);
    if (!reason && row->feature != FEATURE_BASE && row->handler != HANDLER_nop && !cpuid_model_has(model, row->feature))
        reason = "the CPU model lacks the feature";
    if (!reason &&
        (row->handler == HANDLER_rdfsbase || row->handler == HANDLER_wrfsbase || row->handler == HANDLER_rdgsbase ||
         row->handler == HANDLER_wrgsbase) &&
        !native_has_fsgsbase())
        reason = "the host's kernel does not allow it";
    return reason;
}
