/* Listings: what lines look like, what capstone does not know, what is no code; and that lines never get out of step
 * with our decoder, for any bytes.
 *
 * EIDOLON_SEED for the random bytes. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cpu/decode/insn.h"
#include "elf_maker.h"
#include "jit/jit_disassemble.h"

struct listing {
    char lines[64][400];
    unsigned count;
};

static void add_line(void *opaque, const char *line)
{
    struct listing *listing = opaque;

    cr_assert_lt(listing->count, ARRAY_SIZE(listing->lines));
    snprintf(listing->lines[listing->count++], sizeof(listing->lines[0]), "%s", line);
}

static struct listing list(const uint8_t *bytes, size_t size, uint64_t address, unsigned bits)
{
    struct jit_disassembler *disassembler = jit_disassembler_create();
    struct listing listing = { .count = 0 };

    cr_assert(disassembler);
    jit_disassemble_lines(disassembler, bytes, size, address, bits, add_line, &listing);
    jit_disassembler_destroy(disassembler);
    return listing;
}

Test(disassemble, lines)
{
    static const uint8_t bytes[] = {
        0x48, 0x89, 0xe5, 0x48, 0x8b, 0x84, 0xd1, 0x78, 0x56, 0x34, 0x12, 0x74, 0xf3, 0xc3
    };
    static const char *const expected[] = {
        "0xffffffff81000000:  48 89 e5                       mov rbp, rsp",
        "0xffffffff81000003:  48 8b 84 d1 78 56 34 12        mov rax, qword ptr [rcx + rdx*8 + 0x12345678]",
        "0xffffffff8100000b:  74 f3                          je 0xffffffff81000000",
        "0xffffffff8100000d:  c3                             ret",
    };
    struct listing listing = list(bytes, sizeof(bytes), 0xffffffff81000000, 64);

    cr_assert_eq(listing.count, ARRAY_SIZE(expected));
    for (size_t i = 0; i < ARRAY_SIZE(expected); i++) {
        size_t length = strlen(listing.lines[i]); /* capstone 4 puts a space behind "ret" */

        while (length && listing.lines[i][length - 1] == ' ')
            listing.lines[i][--length] = '\0';
        cr_expect_str_eq(listing.lines[i], expected[i], "'%s', not '%s'", listing.lines[i], expected[i]);
    }
}

Test(disassemble, code_sizes)
{
    static const uint8_t bytes[] = { 0x40, 0x89, 0xc3, 0x66, 0xb8, 0x01, 0x00, 0x00, 0x00 };
    static const struct {
        unsigned bits;
        const char *lines[4];
    } cases[] = {
        { 64, { "mov ebx, eax", "mov ax, 1", "add byte ptr [rax], al" } },
        { 32, { "inc eax", "mov ebx, eax", "mov ax, 1", "add byte ptr [eax], al" } },
        { 16, { "inc ax", "mov bx, ax", "mov eax, 1" } },
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct listing listing = list(bytes, sizeof(bytes), 0x7c00, cases[i].bits);

        cr_expect_eq(strncmp(listing.lines[0], cases[i].bits == 64 ? "0x0000000000007c00:  " : "0x00007c00:  ", 13), 0,
                     "%s", listing.lines[0]);
        for (size_t j = 0; j < ARRAY_SIZE(cases[i].lines) && cases[i].lines[j]; j++)
            cr_expect(strstr(listing.lines[j], cases[i].lines[j]), "%u bits: '%s' is not in '%s'", cases[i].bits,
                      cases[i].lines[j], listing.lines[j]);
    }
}

Test(disassemble, beyond_capstone)
{
    static const struct {
        uint8_t bytes[8], size;
        const char *text;
    } cases[] = {
        { { 0x62, 0xf2, 0x75, 0x48, 0xcf, 0xc2 }, 6, "vgf2p8mulb" },
        { { 0x66, 0x0f, 0x38, 0xcf, 0xc1 }, 5, "gf2p8mulb" },
        { { 0x0f, 0x01, 0xfc }, 3, "clzero" },
        { { 0xf3, 0x0f, 0xc7, 0xf8 }, 4, "rdpid" },
        { { 0xf3, 0x0f, 0x1e, 0xfa }, 4, "endbr64" },
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct listing listing = list(cases[i].bytes, cases[i].size, 0, 64);

        cr_expect_eq(listing.count, 1, "%s: %u lines, '%s'", cases[i].text, listing.count, listing.lines[0]);
        cr_expect(strstr(listing.lines[0], cases[i].text), "%s: '%s'", cases[i].text, listing.lines[0]);
    }
}

Test(disassemble, no_code)
{
    static const uint8_t bytes[] = { 0x06, 0x0f, 0xff };
    struct listing listing = list(bytes, sizeof(bytes), 0, 64);

    cr_assert_geq(listing.count, 2);
    cr_expect(strstr(listing.lines[0], ".byte 0x06"), "%s", listing.lines[0]);
    cr_expect_eq(list(bytes, 0, 0, 64).count, 0);
}

/* Each line stands for the bytes that our decoder says, however wild they are; all bytes are there. */
Test(disassemble, in_step)
{
    const char *given = getenv("EIDOLON_SEED");
    unsigned seed = given ? (unsigned)strtoul(given, NULL, 0) : 20230603;
    struct jit_disassembler *disassembler = jit_disassembler_create();
    uint8_t bytes[30];

    srand(seed);
    for (unsigned round = 0; round < 20000; round++) {
        enum code_size code_size = round % 3;
        struct listing listing = { .count = 0 };
        size_t at = 0;

        for (size_t i = 0; i < sizeof(bytes); i++)
            bytes[i] = (uint8_t)rand();
        jit_disassemble_lines(disassembler, bytes, sizeof(bytes), 0, 16u << code_size, add_line, &listing);
        for (unsigned i = 0; i < listing.count; i++) {
            struct insn insn;
            unsigned long long address = strtoull(listing.lines[i], NULL, 16);

            cr_assert_eq(address, at, "seed %u, round %u, line %u: %s", seed, round, i, listing.lines[i]);
            if (insn_decode(bytes + at, sizeof(bytes) - at, code_size, &insn) == DECODE_OK) {
                at += insn.length;
            } else if (i + 1 < listing.count) {
                at = (size_t)strtoull(listing.lines[i + 1], NULL, 16); /* capstone's, or one byte */
                cr_assert(at > address && at < sizeof(bytes), "seed %u, round %u", seed, round);
            } else {
                at = sizeof(bytes);
            }
        }
        cr_assert_eq(at, sizeof(bytes), "seed %u, round %u", seed, round);
    }
    jit_disassembler_destroy(disassembler);
}

Test(disassemble, log)
{
    static const uint8_t bytes[] = { 0x90, 0xf4 };
    struct jit_disassembler *disassembler = jit_disassembler_create();
    char path[TEMP_PATH], *text;
    struct error err;

    cr_assert_eq(log_set_file(temp_file(path, "", 0), &err), 0);
    jit_disassemble(disassembler, LOG_in_asm, "IN: here", bytes, sizeof(bytes), 0x10, 32);
    text = file_contents(path, NULL);
    cr_expect(strstr(text, "IN: here\n0x00000010:  90 ") == text, "%s", text);
    cr_expect(strstr(text, "\n0x00000011:  f4 "), "%s", text);
    free(text);
    unlink(path);
    jit_disassembler_destroy(disassembler);
}
