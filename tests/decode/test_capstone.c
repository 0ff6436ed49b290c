/* Lengths, mnemonics and registers against capstone 4.0, over generated encodings that we hold for valid (validity itself
 * is compared with Zydis: capstone checks neither LOCK nor most prefixes). The texts are compared by the registers in them, which
 * tests insn_format as well.
 *
 * EIDOLON_SEED, EIDOLON_DECODE_CASES (percent). */
#include <criterion/criterion.h>
#include <capstone/capstone.h>
#include <ctype.h>
#include <fnmatch.h>
#include <stdio.h>
#include <string.h>

#include "generate.h"

/* ---- What capstone is not asked ---- */

/* Rows of these features are not in capstone 4.0 (2019), or only in part. */
static bool feature_known(enum cpu_feature feature)
{
    static const uint16_t unknown[] = {
        FEATURE_GFNI,
        FEATURE_MOVDIRI,
        FEATURE_MOVDIR64B,
        FEATURE_ENQCMD,
        FEATURE_CLDEMOTE,
        FEATURE_SERIALIZE,
        FEATURE_SHSTK,
        FEATURE_WAITPKG,
        FEATURE_TSXLDTRK,
        FEATURE_WBNOINVD,
        FEATURE_RDPID,
        FEATURE_RDPRU,
        FEATURE_PKU,
        FEATURE_AVX_VNNI,
        FEATURE_AMX_BF16,
        FEATURE_AMX_INT8,
        FEATURE_AMX_TILE,
        FEATURE_CLZERO,
        FEATURE_PREFETCHW,
        FEATURE_VAES,
        FEATURE_VPCLMULQDQ,
        FEATURE_MONITORX,
        FEATURE_SSE4A /* extrq and insertq are mistaken for vmread and vmwrite */,
    };

    for (size_t i = 0; i < ARRAY_SIZE(unknown); i++)
        if (feature == unknown[i])
            return false;
    return true;
}

/* A REX byte that another prefix follows does nothing (SDM Vol. 2A 2.2.1). */
static bool has_idle_rex(const uint8_t *bytes, const struct insn *insn)
{
    unsigned first = 0;

    if (insn->code_size != CODE64)
        return false;
    while (first < INSN_MAX_LENGTH && (bytes[first] & 0xf0) != 0x40 && bytes[first] != insn->opcode)
        first++;
    return first + 1 < INSN_MAX_LENGTH && (bytes[first] & 0xf0) == 0x40 && bytes[first] != insn->opcode &&
           ((bytes[first + 1] & 0xf0) == 0x40 || bytes[first + 1] == 0x66 || bytes[first + 1] == 0xf2 ||
            bytes[first + 1] == 0xf3);
}

static const char *skip_reason(const struct insn *insn, const uint8_t *bytes)
{
    const struct insn_row *row = insn->row;

    if (has_idle_rex(bytes, insn))
        return "capstone lets a REX count that is not the last prefix";
    if (!feature_known(row->feature))
        return "feature is newer than capstone 4.0";
    if (row->map >= MAP_EVEX_0F)
        return "capstone 4.0 has few AVX-512 forms and no disp8*N";
    if (row->exception_class == EXC_OPMASK)
        return "capstone 4.0 has few opmask instructions";
    if (row->handler == HANDLER_unimplemented)
        return "rows that only decode; many are newer than capstone 4.0";
    if (insn->code_size == CODE16 && row->map != MAP_ONEBYTE && row->map != MAP_X87)
        return "capstone's 16-bit mode does not see mandatory prefixes";
    if (insn->prefix_66 && insn->rep)
        return "of 66 and F2/F3 capstone takes the last one (SDM Vol. 2A 2.1.2: F2/F3 take precedence)";
    if (insn->prefix_67 && (insn->rex & 8))
        return "capstone takes 67 with REX.W for 66";
    if (insn->segment_prefix && (insn->prefix_66 || insn->rep) && row->map != MAP_ONEBYTE && row->map != MAP_X87)
        return "capstone sees a mandatory prefix only right before the opcode";
    if (row->handler == HANDLER_nop && row->map == MAP_0F)
        return "capstone 4.0 has not all of the hint space (SDM Vol. 2B, NOP; 0D and 18 to 1F)";
    if (insn->prefix_66 && (row->attributes & ATTR_F64) && insn->code_size == CODE64)
        return "66 before near branches: capstone does as AMD, we as Intel (SDM Vol. 2A Jcc, CALL, RET)";
    if (insn->lock || (insn->rep && row->prefix == PREFIX_ANY && !(row->attributes & (ATTR_REP | ATTR_REPZ))))
        return "XACQUIRE, XRELEASE and BND are read into the mnemonic";
    if (insn->rex && (insn->rex & 8) && insn->prefix_66 && row->map == MAP_ONEBYTE)
        return "66 with REX.W: capstone's operand names follow 66 (SDM Vol. 2A 2.2.1.2: REX.W takes precedence)";
    if (insn->has_sib && insn->modrm < 0x40 && (insn->sib & 0x3f) == 0x25)
        return "capstone names an index register eiz or riz for SIB without base and index";
    if (row->handler == HANDLER_ud)
        return "UD0 and UD1 have a ModRM byte (SDM Vol. 2D); capstone stops at the opcode";
    if (insn->segment_prefix && insn->code_size == CODE64)
        return "capstone takes the last segment prefix, also one that 64-bit mode ignores";
    return NULL;
}

/* ---- Differences of spelling, and errors of capstone ---- */

struct spelling {
    const char *ours, *theirs; /* patterns */
};
/* clang-format off */
static const struct spelling spellings[] = {
    { "j*", "j*" }, { "set*", "set*" }, { "cmov*", "cmov*" }, /* condition names: checked by the generator's digit and Zydis */
    { "movs[dq]", "movs[wdq]" }, { "cmpsd", "cmps[wdq]" }, { "stosd", "stos[wdq]" }, { "lodsd", "lods[wdq]" },
    { "scasd", "scas[wdq]" }, { "insd", "ins[wd]" }, { "outsd", "outs[wd]" }, { "cbw", "c[wd][dq]e" }, { "cwd", "c[dq][qo]" },
    { "pusha", "pusha[lw]" }, { "popa", "popa[lw]" }, { "pushf", "pushf[dq]" }, { "popf", "popf[dq]" }, { "iret", "iret[dq]" },
    { "retf", "retf*" }, { "shl", "sal" }, { "xlat", "xlatb" }, { "fwait", "wait" }, { "mov", "movabs" }, { "call", "lcall" },
    { "jmp", "ljmp" }, { "fsetpm287_nop", "fsetpm" }, { "f*xsave", "fxsave64" }, { "fxrstor", "fxrstor64" },
    { "xsave*", "xsave*64" }, { "xrstor*", "xrstor*64" }, { "movq", "movd" }, { "cmp[ps][sd]", "cmp*[ps][sd]" },
    { "vcmp[ps][sd]", "vcmp*[ps][sd]" }, { "vcvt*pd2*", "vcvt*pd2*x" }, { "pcmp?str?", "pcmp?str?*" }, { "sysret", "sysretq" },
    { "sysexit", "sysexitq" }, { "pclmulqdq", "pclmul*" }, { "vpclmulqdq", "vpclmul*" }, { "fcmov*", "fcmov*" },
    { "endbr*", "endbr*" }, { "loop*", "loop*" },
};
/* clang-format on */

static bool spelled_alike(const char *ours, const char *theirs)
{
    if (!strcmp(ours, theirs))
        return true;
    for (size_t i = 0; i < ARRAY_SIZE(spellings); i++)
        if (fnmatch(spellings[i].ours, ours, 0) == 0 && fnmatch(spellings[i].theirs, theirs, 0) == 0)
            return true;
    return false;
}

struct known_difference {
    const char *ours, *theirs; /* mnemonics; NULL: capstone finds nothing */
    const char *what;          /* "length", "mnemonic", "registers" */
    const char *reason;
};
static const struct known_difference known[] = {
    { "movsxd", "*", "registers", "66 63 is MOVSXD r16, r/m16 (SDM Vol. 2B MOVSX): capstone ignores 66" },
    { "mov", NULL, "mnemonic", "8C and 8E with REX or two prefixes: capstone finds nothing" },
    { "pause", "nop", "mnemonic", "capstone 4.0 in 16-bit mode" },
    { "pause", "xchg", "mnemonic", "F3 90 is PAUSE whatever REX.B is (host CPU checked)" },
    { "lar", "lar", "registers", "only 16 bits of the source are read (SDM Vol. 2A LAR): a matter of naming" },
    { "lsl", "lsl", "registers", "as LAR" },
    { "prefetch*", NULL, "mnemonic",
      "0D /0, /2 to /7 are prefetches that do nothing (SDM Vol. 2B PREFETCHW, APM Vol. 3 PREFETCH)" },
    { "movmskp[sd]", "movmskp[sd]", "registers", "REX.W makes it r64 (SDM Vol. 2B MOVMSKPS): same result" },
    { "cldemote", "nop", "mnemonic", "newer than capstone 4.0" },
    { "clwb", "xsaveopt64", "mnemonic", "66 selects CLWB with any REX (SDM Vol. 2A CLWB)" },
    { "movq", "mov[dq]", "registers",
      "F3 REX.W 0F 7E is MOVQ xmm, xmm/m64 (SDM Vol. 2B MOVQ); capstone takes the form without F3" },
    { "[lms]fence", NULL, "mnemonic", "any ModRM.rm (SDM Vol. 2A LFENCE, note; host CPU checked)" },
    { "vbroadcasti128", NULL, "mnemonic", "capstone misses it after 67" },
    { "v*blendv*", "v*blendv*", "registers", "imm8[7] is ignored outside 64-bit mode (SDM Vol. 2C VBLENDVPS)" },
    { "vpextrd", "vpextrq", "mnemonic", "W is ignored outside 64-bit mode (SDM Vol. 2B PEXTRD)" },
    { "vpinsrd", "vpinsrq", "mnemonic", "as VPEXTRD" },
};

static bool is_known(const char *ours, const char *theirs, const char *what)
{
    for (size_t i = 0; i < ARRAY_SIZE(known); i++)
        if (!strcmp(known[i].what, what) && fnmatch(known[i].ours, ours, 0) == 0 &&
            (theirs && known[i].theirs ? fnmatch(known[i].theirs, theirs, 0) == 0 : theirs == known[i].theirs))
            return true;
    return false;
}

/* ---- Registers in a text ---- */

static bool is_register(const char *word, size_t length)
{
    static const char *const names[] = {
        "al", "cl", "dl", "bl", "ah", "ch",  "dh",  "bh", "spl", "bpl", "sil", "dil", "ax", "cx", "dx",
        "bx", "sp", "bp", "si", "di", "rip", "eip", "st", "es",  "cs",  "ss",  "ds",  "fs", "gs",
    };
    static const char *const numbered[] = { "r", "xmm", "ymm", "zmm", "mm", "k", "cr", "dr", "tmm" };

    for (size_t i = 0; i < ARRAY_SIZE(names); i++)
        if (strlen(names[i]) == length && !memcmp(names[i], word, length))
            return true;
    if (length == 3 && (word[0] == 'e' || word[0] == 'r') && is_register(word + 1, 2))
        return true;
    for (size_t i = 0; i < ARRAY_SIZE(numbered); i++) {
        size_t n = strlen(numbered[i]);
        if (length > n && !memcmp(word, numbered[i], n) && isdigit((unsigned char)word[n]))
            return true;
    }
    return false;
}

/* "eax rbx st3 ": segment names before a colon are left out, since which ones are printed is a matter of taste. */
static void registers_of(const char *text, char *out, size_t size)
{
    size_t used = 0;

    out[0] = 0;
    for (const char *p = text; *p;) {
        size_t n = 0;
        while (isalnum((unsigned char)p[n]))
            n++;
        if (n && is_register(p, n) && p[n] != ':' && used + n + 8 < size) {
            memcpy(out + used, p, n);
            used += n;
            if (n == 2 && p[0] == 's' && p[1] == 't' && p[2] == '(')
                out[used++] = p[3];
            out[used++] = ' ';
            out[used] = 0;
        }
        p += n ? n : 1;
    }
}

/* ---- The comparison ---- */

#define SHOWN 20 /* differences that are printed */

struct tally {
    unsigned compared, skipped, failed;
};

static void fail(struct tally *tally, const char *what, const struct insn *insn, const uint8_t *bytes,
                 const char *theirs)
{
    char text[160], hex[64];

    if (tally->failed++ >= SHOWN)
        return;
    for (unsigned i = 0; i < INSN_MAX_LENGTH; i++)
        snprintf(hex + 3 * i, sizeof(hex) - 3 * i, "%02x ", bytes[i]);
    fprintf(stderr, "%s: %u-bit %s: ours %u bytes '%s', capstone '%s'\n", what, 16u << insn->code_size, hex,
            insn->length, insn_format(insn, text, sizeof(text)), theirs);
}

/* Text without the mnemonic and the prefixes in front of it. */
static void compare_registers(struct tally *tally, const struct insn *insn, const uint8_t *bytes, const cs_insn *theirs)
{
    char text[160], mine[160], other[160];

    if (insn->row->map == MAP_X87 && insn->modrm >= 0xc0)
        return; /* capstone leaves out ST(0), or the other one */
    if (insn->row->handler == HANDLER_xchg && !insn->has_modrm)
        return; /* the order differs, and capstone says eax for ax */
    if (insn->row->handler == HANDLER_mov_to_seg)
        return; /* capstone names the 32-bit register; 16 bits are read */
    if (insn->row->attributes & (ATTR_REP | ATTR_REPZ))
        return; /* capstone names the operands of string instructions */
    registers_of(strchr(insn_format(insn, text, sizeof(text)), ' ') ?: "", mine, sizeof(mine));
    registers_of(theirs->op_str, other, sizeof(other));
    if (strcmp(mine, other) != 0 && !is_known(insn->row->mnemonic, theirs->mnemonic, "registers"))
        fail(tally, "registers", insn, bytes, theirs->op_str);
}

static void compare(struct tally *tally, csh handle, const uint8_t *bytes, enum code_size code_size)
{
    struct insn insn;
    cs_insn *theirs;
    const char *name;
    size_t count;

    if (insn_decode(bytes, INSN_MAX_LENGTH, code_size, &insn) != DECODE_OK)
        return;
    if (skip_reason(&insn, bytes)) {
        tally->skipped++;
        return;
    }
    tally->compared++;
    count = cs_disasm(handle, bytes, INSN_MAX_LENGTH, 0, 1, &theirs);
    if (!count) {
        if (!is_known(insn.row->mnemonic, NULL, "mnemonic"))
            fail(tally, "validity", &insn, bytes, "(invalid)");
        return;
    }
    name = cs_insn_name(handle, theirs->id);
    if (insn.length != theirs->size) {
        if (!is_known(insn.row->mnemonic, name, "length"))
            fail(tally, "length", &insn, bytes, theirs->mnemonic);
    } else if (!spelled_alike(insn.row->mnemonic, name)) {
        if (!is_known(insn.row->mnemonic, name, "mnemonic"))
            fail(tally, "mnemonic", &insn, bytes, name);
    } else {
        compare_registers(tally, &insn, bytes, theirs);
    }
    cs_free(theirs, count);
}

Test(decode, capstone)
{
    static const cs_mode modes[] = { CS_MODE_16, CS_MODE_32, CS_MODE_64 };
    struct random random = { case_seed() };
    struct tally tally = { 0 };
    csh handles[3];
    uint8_t bytes[GENERATED_BYTES];

    for (unsigned i = 0; i < 3; i++)
        cr_assert_eq(cs_open(CS_ARCH_X86, modes[i], &handles[i]), CS_ERR_OK);
    for (unsigned i = 0; i < insn_row_count; i++) {
        for (unsigned k = case_count(1500); k > 0; k--) {
            enum code_size code_size = (enum code_size)(k % 3);
            generate_row(&random, &insn_rows[i], code_size, bytes);
            compare(&tally, handles[code_size], bytes, code_size);
        }
    }
    for (unsigned i = 0; i < 3; i++)
        cs_close(&handles[i]);
    fprintf(stderr, "capstone: %u compared, %u skipped\n", tally.compared, tally.skipped);
    cr_assert_eq(tally.failed, 0, "%u differences, seed %#llx", tally.failed, (unsigned long long)case_seed());
}
