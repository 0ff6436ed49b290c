/* decode -> encode -> decode is the identity for every form of every row, also after registers and addresses were changed.
 *
 * EIDOLON_SEED, EIDOLON_DECODE_CASES (percent). */
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#include "generate.h"

#define SHOWN 10 /* failures that are printed */

/* What has to come back: everything that the semantics look at. NULL if it is all there. */
static const char *difference(const struct insn *a, const struct insn *b)
{
    if (a->row != b->row)
        return "row";
    if (a->operand_count != b->operand_count || memcmp(a->operands, b->operands, sizeof(a->operands)) != 0)
        return "operands";
    if (memcmp(&a->mem, &b->mem, sizeof(a->mem)) != 0)
        return "memory operand";
    if (a->imm != b->imm || a->imm2 != b->imm2)
        return "immediate";
    if (a->operand_size != b->operand_size || a->address_size != b->address_size)
        return "size";
    if (a->lock != b->lock || a->rep != b->rep)
        return "prefix";
    return memcmp(&a->vex, &b->vex, sizeof(a->vex)) != 0 ? "vex" : NULL;
}

static void print_bytes(const char *what, const uint8_t *bytes, size_t count)
{
    fprintf(stderr, " %s", what);
    for (size_t i = 0; i < count; i++)
        fprintf(stderr, " %02x", bytes[i]);
}

/* Encodes and decodes again. `may_refuse`: 0 bytes are an answer (the change made it impossible). */
static bool round_trip(const struct insn *insn, const uint8_t *bytes, bool may_refuse, unsigned *failed)
{
    uint8_t encoded[INSN_MAX_LENGTH];
    struct insn again;
    char text[160];
    size_t length = insn_encode(insn, encoded);
    const char *what = "not encoded";

    if (!length && may_refuse)
        return false;
    if (length)
        what = insn_decode(encoded, length, (enum code_size)insn->code_size, &again) != DECODE_OK ? "not decoded"
               : again.length != length                                                           ? "length"
                                        : difference(insn, &again);
    if (!what)
        return true;
    if ((*failed)++ < SHOWN) {
        fprintf(stderr, "%s: %u-bit '%s':", what, 16u << insn->code_size, insn_format(insn, text, sizeof(text)));
        print_bytes("from", bytes, insn->length);
        print_bytes("to", encoded, length);
        fprintf(stderr, "\n");
    }
    return false;
}

Test(encode, identity)
{
    struct random random = { case_seed() };
    uint8_t bytes[GENERATED_BYTES];
    unsigned failed = 0, unreached = 0;
    unsigned long cases = 0;

    for (unsigned i = 0; i < insn_row_count; i++) {
        unsigned hits = 0;
        for (unsigned k = case_count(1500) + 300; k > 0; k--) {
            struct insn insn;
            generate_row(&random, &insn_rows[i], (enum code_size)(k % 3), bytes);
            if (insn_decode(bytes, INSN_MAX_LENGTH, (enum code_size)(k % 3), &insn) != DECODE_OK)
                continue;
            hits += insn.row == &insn_rows[i];
            cases++;
            round_trip(&insn, bytes, false, &failed);
        }
        if (!hits && unreached++ < SHOWN)
            fprintf(stderr, "row %u (%s, map %u, opcode %02x) was never decoded\n", i, insn_rows[i].mnemonic,
                    insn_rows[i].map, insn_rows[i].opcode);
    }
    fprintf(stderr, "encode: %lu round trips\n", cases);
    cr_assert_eq(failed, 0, "%u failures, seed %#llx", failed, (unsigned long long)case_seed());
    cr_assert_eq(unreached, 0, "%u rows that nothing decodes to, seed %#llx", unreached,
                 (unsigned long long)case_seed());
}

/* What translators do: another address for the memory operand. */
static void change_address(struct random *random, struct insn *insn)
{
    insn->mem.base = (uint8_t)random_below(random, 17); /* 16: none */
    insn->mem.disp = (int32_t)random_next(random) >> random_below(random, 32);
    insn->mem.disp_bytes = 0;
    if (!insn->mem.vsib) {
        insn->mem.index = (uint8_t)random_below(random, 17);
        insn->mem.scale = insn->mem.index == REG_NONE ? 0 : (uint8_t)random_below(random, 4);
    }
    insn->mem.segment = SEG_GS;
    insn->segment_prefix = 0;
}

static bool has_modrm_memory(const struct insn *insn)
{
    return insn->has_modrm && insn->modrm < 0xc0 && insn_has_memory(insn);
}

Test(encode, changed_address)
{
    struct random random = { case_seed() + 2 };
    uint8_t bytes[GENERATED_BYTES], encoded[INSN_MAX_LENGTH];
    unsigned failed = 0;
    unsigned long cases = 0;

    for (unsigned i = 0; i < insn_row_count; i++) {
        for (unsigned k = case_count(200); k > 0; k--) {
            struct insn insn, again;
            size_t length;
            generate_row(&random, &insn_rows[i], CODE64, bytes);
            if (insn_decode(bytes, INSN_MAX_LENGTH, CODE64, &insn) != DECODE_OK || !has_modrm_memory(&insn))
                continue;
            change_address(&random, &insn);
            length = insn_encode(&insn, encoded);
            if (!length) /* ah and REX, rSP as an index */
                continue;
            /* The size of the displacement was left to the encoder; a high register turns VEX2 into VEX3. */
            cr_assert_eq(insn_decode(encoded, length, CODE64, &again), DECODE_OK);
            insn.mem.disp_bytes = again.mem.disp_bytes;
            insn.vex.kind = again.vex.kind;
            cases++;
            round_trip(&insn, bytes, false, &failed);
        }
    }
    fprintf(stderr, "encode: %lu changed addresses\n", cases);
    cr_assert_gt(cases, 0);
    cr_assert_eq(failed, 0, "%u failures, seed %#llx", failed, (unsigned long long)case_seed());
}

/* Other registers in the operands that ModRM, vvvv or the opcode name. */
Test(encode, changed_registers)
{
    struct random random = { case_seed() + 3 };
    uint8_t bytes[GENERATED_BYTES];
    unsigned failed = 0;
    unsigned long cases = 0;

    for (unsigned i = 0; i < insn_row_count; i++) {
        for (unsigned k = case_count(200); k > 0; k--) {
            struct insn insn;
            bool changed = false;
            generate_row(&random, &insn_rows[i], CODE64, bytes);
            if (insn_decode(bytes, INSN_MAX_LENGTH, CODE64, &insn) != DECODE_OK)
                continue;
            for (unsigned n = 0; n < insn.operand_count; n++) {
                struct operand *o = &insn.operands[n];
                /* only operands whose types name a general register by ModRM.reg: the others may be fixed */
                if (o->kind == OPERAND_GPR &&
                    (insn.row->operands[n].type == OT_Gv || insn.row->operands[n].type == OT_Gy)) {
                    o->reg = (uint8_t)random_below(&random, 16);
                    changed = true;
                } else if (o->kind == OPERAND_VEC && insn.row->operands[n].type == OT_Vdq && !insn.mem.vsib) {
                    o->reg = (uint8_t)random_below(&random, 16);
                    changed = true;
                }
            }
            if (changed && insn.row->map != MAP_EVEX_6) /* there some must differ */
                cases += round_trip(&insn, bytes, true, &failed);
        }
    }
    fprintf(stderr, "encode: %lu changed registers\n", cases);
    cr_assert_gt(cases, 0);
    cr_assert_eq(failed, 0, "%u failures, seed %#llx", failed, (unsigned long long)case_seed());
}

struct refusal {
    const char *what;
    uint8_t bytes[8];
    void (*change)(struct insn *insn);
};
static void to_r8(struct insn *insn)
{
    insn->mem.base = REG_R8;
}
static void to_rsp_index(struct insn *insn)
{
    insn->mem.index = REG_RSP;
}
static void to_far(struct insn *insn)
{
    insn->mem.disp = 1ll << 40;
    insn->mem.disp_bytes = 4;
}
static void to_wide_imm(struct insn *insn)
{
    insn->imm = 1ll << 40;
}

Test(encode, refusals)
{
    static const struct refusal refusals[] = {
        { "ah beside REX", { 0x88, 0x20 }, to_r8 },                             /* mov [rax], ah */
        { "rsp as an index", { 0x8b, 0x04, 0x08 }, to_rsp_index },              /* mov eax, [rax+rcx] */
        { "a displacement of 41 bits", { 0x8b, 0x80, 1, 2, 3, 4 }, to_far },    /* mov eax, [rax+disp32] */
        { "an immediate of 41 bits", { 0x81, 0xc0, 1, 2, 3, 4 }, to_wide_imm }, /* add eax, imm32 */
    };
    uint8_t encoded[INSN_MAX_LENGTH];

    for (size_t i = 0; i < ARRAY_SIZE(refusals); i++) {
        struct insn insn;
        cr_assert_eq(insn_decode(refusals[i].bytes, sizeof(refusals[i].bytes), CODE64, &insn), DECODE_OK);
        cr_assert_gt(insn_encode(&insn, encoded), 0);
        refusals[i].change(&insn);
        cr_assert_eq(insn_encode(&insn, encoded), 0, "%s was encoded", refusals[i].what);
    }
}
