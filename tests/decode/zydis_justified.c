/* Differences from Zydis 4.0 that are meant, each with its reason. Everything else fails the test.
 *
 * Where the manual leaves room, or Zydis and the manual disagree, the encoding was run on a processor (Intel, with AVX-512 and
 * AMX); such entries say "host". */
#include "zydis_justified.h"

#include <fnmatch.h>

/* Instruction sets that Zydis knows and that are not in our table: #UD on every processor that we describe. */
static const struct {
    ZydisISAExt extension;
    const char *reason;
} absent[] = {
    { ZYDIS_ISA_EXT_XOP, "AMD family 15h only (APM Vol. 6 is withdrawn); 8F with map 8 and up is #UD" },
    { ZYDIS_ISA_EXT_TBM, "as XOP" },
    { ZYDIS_ISA_EXT_FMA4, "as XOP, VEX-encoded" },
    { ZYDIS_ISA_EXT_AMD3DNOW, "not in any processor since 2010 (APM Vol. 3 appendix D: 3DNow! deprecated)" },
    { ZYDIS_ISA_EXT_PADLOCK, "VIA processors only" },
    { ZYDIS_ISA_EXT_KNC, "Knights Corner only" },
    { ZYDIS_ISA_EXT_KNCE, "Knights Corner only" },
    { ZYDIS_ISA_EXT_KNCV, "Knights Corner only" },
    { ZYDIS_ISA_EXT_KEYLOCKER, "Key Locker is not offered: #UD with CR4.KL clear (SDM Vol. 2A AESENC128KL)" },
    { ZYDIS_ISA_EXT_KEYLOCKER_WIDE, "as Key Locker" },
};

/* Parts of AVX-512 that only Xeon Phi had. */
static const char *const absent_avx512[] = {
    "AVX512ER_*",
    "AVX512PF_*",
    "AVX512_4FMAPS_*",
    "AVX512_4VNNIW_*",
};

static const struct {
    enum difference difference;
    const char *ours; /* pattern of mnemonics */
    const char *reason;
} justified[] = {
    /* Validity */
    { ONLY_WE, "vcvt*", "W is ignored outside 64-bit mode (SDM Vol. 2C VCVTSH2SI, note 1, VCVTSI2SD); host" },
    /* Operands */
    { OPERANDS, "call",
      "3E is a DS override also before an indirect branch (SDM Vol. 1 17.3.2: NOTRACK only with CET)" },
    { OPERANDS, "jmp", "as CALL" },
    { OPERANDS, "nop", "the hint space's ModRM.reg names nothing (SDM Vol. 2B NOP)" },
    { OPERANDS, "ud[01]", "operands are not used; named by operand size here" },
    { OPERANDS, "lar", "only 16 bits of the source are read (SDM Vol. 2A LAR): a matter of naming" },
    { OPERANDS, "lsl", "as LAR" },
    { OPERANDS, "fucomp", "Zydis names ST(0) here, and nowhere else" },
    { OPERANDS, "senduipi", "the register's low 64 bits are the index (SDM Vol. 2B SENDUIPI)" },
    { SIZE, "movsxd", "66 63 reads 16 bits (SDM Vol. 2B MOVSX); host" },
    { SIZE, "clflush*", "m8 in the manual (SDM Vol. 2A CLFLUSH); Zydis gives the cache line" },
    { SIZE, "clwb", "as CLFLUSH" },
    /* Access */
    { ACCESS, "*cmov*", "a false condition keeps the destination: it is read (and zero-extended, SDM Vol. 2A CMOVcc)" },
    { ACCESS, "bs[fr]", "a source of 0 keeps the destination, as processors do (SDM Vol. 2A BSF, note)" },
    { ACCESS, "cmpxchg*", "the destination is always written (SDM Vol. 2A CMPXCHG, Description)" },
    { ACCESS, "cvtsi2s[sd]", "the low element is written, the rest kept; all scalar rows say it that way" },
    { ACCESS, "extrq", "also the source (APM Vol. 4 EXTRQ)" },
    { ACCESS, "insertq", "the rest is kept (APM Vol. 4 INSERTQ)" },
    { ACCESS, "movhp[sd]", "the other half is kept (SDM Vol. 2B MOVHPS)" },
    { ACCESS, "movlhps", "as MOVHPS" },
    { ACCESS, "lsl", "written if ZF is set, not read (SDM Vol. 2A LSL)" },
    { ACCESS, "sh[lr]d", "with a count of 0 the value is written back; memory faults as for a write" },
    { ACCESS, "nop", "reads nothing" },
    { ACCESS, "prefetch*", "an address only" },
    { ACCESS, "cldemote", "an address only" },
    { ACCESS, "invlpg", "an address only" },
    { ACCESS, "umonitor", "an address only" },
    { ACCESS, "ud[01]", "reads nothing" },
    { ACCESS, "ffree*", "changes the tag, does not read the value" },
    { ACCESS, "rdssp", "a NOP while CET is off (SDM Vol. 2B RDSSPD)" },
    { ACCESS, "xsaves", "XSTATE_BV of the old header is read (SDM Vol. 1 13.11)" },
    { ACCESS, "v*maskmov*", "elements are written as the mask says" },
    { ACCESS, "v*blendm*", "the mask chooses between the sources: we say merge, which is more than true" },
    { ACCESS, "vcmp[ps]h", "a mask destination is cleared where the opmask is 0 (SDM Vol. 2C VCMPPH), not merged" },
    { ACCESS, "vfpclass[ps]h", "as VCMPPH" },
    /* Registers that the text does not name */
    { IMPLICIT, "aa[admsn]", "AX here, AL and AH there" },
    { IMPLICIT, "cbw", "source and destination are halves of one register" },
    { IMPLICIT, "enter", "the stack registers are not listed" },
    { IMPLICIT, "leave", "as ENTER" },
    { IMPLICIT, "pusha", "all general registers" },
    { IMPLICIT, "popa", "all general registers" },
    { IMPLICIT, "monitor", "rAX is an address operand here" },
    { IMPLICIT, "mwait*", "EAX: hints are 32 bits wide (SDM Vol. 2B MWAIT)" },
    { IMPLICIT, "sys*", "control transfers list no registers" },
    { IMPLICIT, "vpcmpestr?", "W is ignored outside 64-bit mode (SDM Vol. 2B PCMPESTRI)" },
    /* Flags */
    { FLAGS_UNDEFINED, "ro[lr]", "OF is defined for a count of 1 (SDM Vol. 2B RCL, Flags Affected)" },
    { FLAGS_UNDEFINED, "rc[lr]", "as ROL" },
    { FLAGS_UNDEFINED, "sh[lr]", "OF is defined for a count of 1 (SDM Vol. 2B SAL, Flags Affected)" },
    { FLAGS_UNDEFINED, "sar", "as SHL" },
    { FLAGS_UNDEFINED, "sbb", "AF is set by the result (SDM Vol. 2B SBB, Flags Affected)" },
    { FLAGS_UNDEFINED, "bextr", "only AF, SF and PF are undefined (SDM Vol. 2A BEXTR, Flags Affected)" },
    { FLAGS_WRITTEN, "vptest", "AF, OF, PF and SF are cleared (SDM Vol. 2C VTESTPS, PTEST, Flags Affected)" },
    { FLAGS_WRITTEN, "vtestp[sd]", "as VPTEST" },
    { FLAGS_WRITTEN, "vmcall", "outside VMX operation a hypercall or #UD" },
    { FLAGS_READ, "vmcall", "outside VMX operation a hypercall or #UD" },
};

static bool pattern_matches(const char *pattern, const struct insn_row *row)
{
    return fnmatch(pattern, row->mnemonic, 0) == 0;
}

static const char *absent_reason(const ZydisDecodedInstruction *zydis)
{
    for (size_t i = 0; i < ARRAY_SIZE(absent); i++)
        if (zydis->meta.isa_ext == absent[i].extension)
            return absent[i].reason;
    for (size_t i = 0; i < ARRAY_SIZE(absent_avx512); i++)
        if (fnmatch(absent_avx512[i], ZydisISASetGetString(zydis->meta.isa_set), 0) == 0)
            return "Xeon Phi only";
    return NULL;
}

const char *zydis_justification(const struct comparison *c)
{
    if (c->difference == ONLY_THEY)
        return absent_reason(&c->zydis);
    /* Rows that the engine answers with #UD: what they would do matters to nobody. */
    if (c->insn.row->handler == HANDLER_unimplemented && c->difference >= ACCESS)
        return "decoded, not executed";
    for (size_t i = 0; i < ARRAY_SIZE(justified); i++)
        if (justified[i].difference == c->difference && pattern_matches(justified[i].ours, c->insn.row))
            return justified[i].reason;
    return NULL;
}
