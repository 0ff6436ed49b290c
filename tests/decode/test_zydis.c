/* Validity, lengths, mnemonics, operands, accesses and flags against Zydis 4.0: over generated forms of every row, and over noise.
 * What differs and is meant to is listed in zydis_justified.c.
 *
 * EIDOLON_SEED, EIDOLON_DECODE_CASES (percent). */
#include <criterion/criterion.h>
#include <stdio.h>

#include "generate.h"
#include "zydis_justified.h"

#define SHOWN 20 /* differences that are printed */

struct tally {
    unsigned long cases, valid, justified, failed;
};

static void check(struct tally *tally, const ZydisDecoder decoders[3], const uint8_t *bytes, enum code_size code_size)
{
    struct comparison c;
    char text[160];

    zydis_compare(&decoders[code_size], bytes, INSN_MAX_LENGTH, code_size, &c);
    tally->cases++;
    tally->valid += c.status == DECODE_OK;
    if (c.difference == SAME)
        return;
    if (zydis_justification(&c)) {
        tally->justified++;
        return;
    }
    if (tally->failed++ >= SHOWN)
        return;
    fprintf(stderr, "%s: %u-bit", difference_names[c.difference], 16u << code_size);
    for (unsigned i = 0; i < INSN_MAX_LENGTH; i++)
        fprintf(stderr, " %02x", bytes[i]);
    fprintf(stderr, ": ours '%s', theirs '%s' %s\n", insn_format(&c.insn, text, sizeof(text)),
            c.difference == ONLY_WE ? "(invalid)" : ZydisMnemonicGetString(c.zydis.mnemonic), c.detail);
}

static void finish(const struct tally *tally, const char *name)
{
    fprintf(stderr, "%s: %lu cases, %lu valid, %lu justified differences\n", name, tally->cases, tally->valid,
            tally->justified);
    cr_assert_eq(tally->failed, 0, "%lu differences, seed %#llx", tally->failed, (unsigned long long)case_seed());
}

Test(zydis, every_row)
{
    struct random random = { case_seed() };
    struct tally tally = { 0 };
    ZydisDecoder decoders[3];
    uint8_t bytes[GENERATED_BYTES];

    zydis_open(decoders);
    for (unsigned i = 0; i < insn_row_count; i++) {
        for (unsigned k = case_count(3000); k > 0; k--) {
            enum code_size code_size = (enum code_size)(k % 3);
            generate_row(&random, &insn_rows[i], code_size, bytes);
            check(&tally, decoders, bytes, code_size);
        }
    }
    finish(&tally, "rows");
}

/* Bytes without a plan, led by what opens the larger maps. */
Test(zydis, noise)
{
    static const uint8_t leads[][3] = { { 0x0f }, { 0x0f, 0x38 }, { 0x0f, 0x3a }, { 0xc4 },       { 0xc5 },
                                        { 0x62 }, { 0x66, 0x0f }, { 0xf3, 0x0f }, { 0xf2, 0x0f }, { 0x8f },
                                        { 0xf0 }, { 0xd9 },       { 0x0f, 0x01 }, { 0x0f, 0xae } };
    struct random random = { case_seed() + 1 };
    struct tally tally = { 0 };
    ZydisDecoder decoders[3];
    uint8_t bytes[GENERATED_BYTES];

    zydis_open(decoders);
    for (unsigned k = case_count(8000000); k > 0; k--) {
        unsigned lead = random_below(&random, 2 * ARRAY_SIZE(leads));
        generate_noise(&random, bytes);
        for (unsigned i = 0; lead < ARRAY_SIZE(leads) && i < 3 && leads[lead][i]; i++)
            bytes[i] = leads[lead][i];
        check(&tally, decoders, bytes, (enum code_size)(k % 3));
    }
    finish(&tally, "noise");
}
