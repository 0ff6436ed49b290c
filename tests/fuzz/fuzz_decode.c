/* Decoder, encoder and formatter on arbitrary bytes, in all code sizes: nothing beyond `available` is read, an
 * instruction has the same length however many bytes follow it and is "truncated" while bytes of it are missing, and
 * what can be decoded can be encoded and comes back the same. */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "cpu/decode/insn.h"
#include "tests/decode/generate.h"
#include "tests/fuzz/fuzz.h"

#define MAX_INSTRUCTIONS 64

static uint8_t *guard; /* first byte of a page that must not be touched */

void fuzz_setup(void)
{
    uint8_t *pages = mmap(NULL, 2 * PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    if (pages == MAP_FAILED || mprotect(pages + PAGE_SIZE, PAGE_SIZE, PROT_NONE))
        FUZZ_FAIL("no memory");
    guard = pages + PAGE_SIZE;
}

/* Decodes the first `available` of the bytes, with nothing readable behind them. */
static enum decode_status decode_bounded(const uint8_t *bytes, size_t available, enum code_size code_size,
                                         struct insn *insn)
{
    memcpy(guard - available, bytes, available);
    memset(insn, 0xa5, sizeof(*insn));
    return insn_decode(guard - available, available, code_size, insn);
}

/* NULL: the same in all that the semantics look at. */
static const char *difference(const struct insn *a, const struct insn *b)
{
    if (a->row != b->row)
        return "row";
    if (a->operand_count != b->operand_count || memcmp(a->operands, b->operands, sizeof(a->operands)))
        return "operands";
    if (memcmp(&a->mem, &b->mem, sizeof(a->mem)))
        return "memory operand";
    if (a->imm != b->imm || a->imm2 != b->imm2)
        return "immediate";
    if (a->operand_size != b->operand_size || a->address_size != b->address_size)
        return "size";
    if (a->lock != b->lock || a->rep != b->rep)
        return "prefix";
    return memcmp(&a->vex, &b->vex, sizeof(a->vex)) ? "vex" : NULL;
}

static void check_truncations(const uint8_t *bytes, size_t size, enum code_size code_size, enum decode_status status,
                              const struct insn *whole)
{
    for (size_t available = 0; available < size; available++) {
        struct insn insn;
        enum decode_status now = decode_bounded(bytes, available, code_size, &insn);

        if (status == DECODE_OK && available < whole->length && now != DECODE_TRUNCATED)
            FUZZ_FAIL("%zu of %u bytes: status %d", available, whole->length, now);
        if (status == DECODE_OK && available >= whole->length &&
            (now != DECODE_OK || insn.length != whole->length || difference(&insn, whole)))
            FUZZ_FAIL("%zu bytes, %u needed: status %d", available, whole->length, now);
        /* What is wrong already stays wrong. */
        if (status != DECODE_OK && now != DECODE_TRUNCATED && now != status)
            FUZZ_FAIL("%zu of %zu bytes: status %d, then %d", available, size, now, status);
    }
}

static void check_encoding(const struct insn *insn)
{
    uint8_t encoded[INSN_MAX_LENGTH + 1] = { [INSN_MAX_LENGTH] = 0x5a };
    size_t length = insn_encode(insn, encoded);
    const char *what = NULL;
    char text[160];
    struct insn again;

    insn_format(insn, text, sizeof(text));
    FUZZ_CHECK(encoded[INSN_MAX_LENGTH] == 0x5a);
    if (!length || length > INSN_MAX_LENGTH)
        FUZZ_FAIL("'%s' is encoded in %zu bytes", text, length);
    if (decode_bounded(encoded, length, (enum code_size)insn->code_size, &again) != DECODE_OK || again.length != length)
        what = "not decoded";
    else
        what = difference(insn, &again);
    if (what)
        FUZZ_FAIL("'%s' encoded and decoded: %s", text, what);
}

static void check_format(const struct insn *insn)
{
    char whole[256];
    size_t length;

    FUZZ_CHECK(insn_format(insn, whole, sizeof(whole)) == whole);
    length = strnlen(whole, sizeof(whole));
    FUZZ_CHECK(length > 0 && length < 128); /* logs use 128 */
    for (size_t size = 0; size <= length + 1; size += 1 + size / 4) {
        char *text = malloc(size + 1);

        memset(text, 0x5a, size + 1);
        insn_format(insn, text, size);
        FUZZ_CHECK(text[size] == 0x5a);
        FUZZ_CHECK(!size || strnlen(text, size) < size);
        free(text);
    }
}

/* Returns how far to go on. */
static size_t check_one(const uint8_t *bytes, size_t size, enum code_size code_size)
{
    struct insn insn;
    enum decode_status status = decode_bounded(bytes, size, code_size, &insn);

    check_truncations(bytes, size, code_size, status, &insn);
    switch (status) {
    case DECODE_OK:
        FUZZ_CHECK(insn.row && insn.length >= 1 && insn.length <= MIN(size, INSN_MAX_LENGTH));
        FUZZ_CHECK(insn.operand_count <= INSN_MAX_OPERANDS && insn.code_size == code_size);
        check_encoding(&insn);
        check_format(&insn);
        return insn.length;
    case DECODE_TRUNCATED:
        FUZZ_CHECK(size < INSN_MAX_LENGTH);
        return 1;
    default:
        FUZZ_CHECK(insn.length <= size);
        return 1;
    }
}

/* The first byte: code size; then code. */
void fuzz_one(struct fuzz_input input)
{
    enum code_size code_size = fuzz_u8(&input) % 3;

    for (unsigned i = 0; i < MAX_INSTRUCTIONS && input.size; i++)
        fuzz_bytes(&input, check_one(input.data, MIN(input.size, INSN_MAX_LENGTH + 4), code_size));
}

/* Some forms of each row. */
bool fuzz_make_seed(unsigned n, struct fuzz_seed *seed)
{
    const unsigned rows_in_seed = 32;
    struct random random = { n };
    uint8_t bytes[GENERATED_BYTES];

    if (n * rows_in_seed / 3 >= insn_row_count)
        return false;
    fuzz_add_u8(seed, (uint8_t)(n % 3));
    for (unsigned row = n / 3 * rows_in_seed; row < MIN(insn_row_count, (n / 3 + 1) * rows_in_seed); row++) {
        struct insn insn;

        generate_row(&random, &insn_rows[row], (enum code_size)(n % 3), bytes);
        if (insn_decode(bytes, sizeof(bytes), (enum code_size)(n % 3), &insn) == DECODE_OK)
            fuzz_add(seed, bytes, insn.length);
    }
    return true;
}
