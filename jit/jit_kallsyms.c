/* Reads the tables that scripts/kallsyms puts into a Linux kernel's .rodata (kernels since 4.20, whose markers have 32
 * bits, with CONFIG_KALLSYMS_BASE_RELATIVE, which is always set on x86-64).
 *
 * There is no pointer to the tables, but their contents are so regular that one of them can be found and checked
 * without any:
 *
 *   older kernels (6.1)    offsets   base   count   names   markers   [seqs]   tokens   token_index
 *   newer ones                              count   names   markers            tokens   token_index   offsets   base
 *
 *   tokens       256 strings. Symbols are stored as strings of token numbers; a character that occurs in names is its
 *                own token, so the ten digits stand next to each other: "0\0" "1\0" ... "9\0"
 *   token_index  256 * u16: where each token starts in tokens. The check that settles whether these are they
 *   seqs         3 bytes for each symbol: not needed
 *   markers      u32 for each 256 symbols: where the first of them starts in names
 *   names        for each symbol the number of its tokens (a byte; with bit 7 set, a second one has the bits above),
 *                then the tokens. The first character of the text is nm's letter
 *   count        u32, padded to 64 bits
 *   base         u64: the lowest address of the kernel, relocated by KASLR
 *   offsets      u32 for each symbol. If any is negative as an i32 (kernels with absolute per-CPU symbols): those are
 *                base - 1 - offset, the others absolute numbers. Else base + offset
 *
 * Each table starts on 8 bytes. The memory is the guest's and not trusted: each index is checked against the image.
 *
 * Threads: any; no state. */
#include "jit/jit_kallsyms.h"

#include <stdlib.h>
#include <string.h>

#define TOKENS           256
#define SYMBOLS_PER_MARK 256
#define BUDGET           (8u << 20) /* some ten times what a large kernel needs */
#define ALIGNMENT        8
#define SYMBOLS_MIN      256 /* fewer would need other checks, and no kernel has so few */
#define SYMBOLS_MAX      (4u << 20)
#define NAMES_SIZE_MAX   (32 * MIB)
#define NAME_SIZE        512 /* KSYM_NAME_LEN */
#define KERNEL_RANGE     (256 * MIB)

struct tables {
    const uint8_t *image;
    size_t size;
    size_t tokens, token_index; /* offsets in image */
    size_t markers, names;
    uint32_t count;
    uint64_t
        budget; /* tokens and symbols that may still be looked at: bounds the time, whatever is in the guest's memory */
    size_t offsets;
    gva_t base;
    bool absolute; /* not negative offsets are addresses */
};

static uint64_t read_le(const struct tables *t, size_t at, unsigned bytes)
{
    uint64_t value = 0;

    memcpy(&value, t->image + at, bytes);
    return value;
}

static bool inside(const struct tables *t, size_t at, size_t bytes)
{
    return at <= t->size && bytes <= t->size - at;
}

/* ---- tokens, token_index ---- */

/* `digits` is where "0\0" was found. Forward from there the strings are counted, and token_index, which has to follow
 * them, says where the first one is. */
static bool find_tokens(struct tables *t, size_t digits)
{
    size_t at = digits, before;

    for (unsigned i = '0'; i < TOKENS; i++) {
        const uint8_t *zero = memchr(t->image + at, 0, MIN(t->size - at, (size_t)NAME_SIZE));

        if (!zero || !t->budget)
            return false;
        t->budget--;
        at = (size_t)(zero - t->image) + 1;
    }
    t->token_index = ALIGN_UP(at, ALIGNMENT);
    if (!inside(t, t->token_index, TOKENS * 2))
        return false;
    before = read_le(t, t->token_index + '0' * 2, 2);
    if (before > digits || (digits - before) % ALIGNMENT)
        return false;
    t->tokens = at = digits - before;
    for (unsigned i = 0; i < TOKENS; i++) {
        if (read_le(t, t->token_index + i * 2, 2) != at - t->tokens)
            return false;
        at += strlen((const char *)t->image + at) + 1; /* inside: 48 strings from before `digits`, then those above */
    }
    return true;
}

/* ---- count, names, markers ---- */

/* The tokens of the symbol at *at: their number; *at is moved to the first of them. 0: damaged. */
static size_t symbol_length(const struct tables *t, size_t *at)
{
    size_t length;

    if (*at >= t->tokens)
        return 0;
    length = t->image[(*at)++];
    if (length & 0x80) {
        if (*at >= t->tokens)
            return 0;
        length = (length & 0x7f) | (size_t)t->image[(*at)++] << 7;
    }
    return length <= t->tokens - *at ? length : 0;
}

/* Goes over `count` symbols from t->names; with t->markers set, each 256th has to have its mark. Where they end; 0:
 * these are not names. */
static size_t walk_names(struct tables *t)
{
    size_t at = t->names;

    for (uint32_t i = 0; i < t->count; i++) {
        size_t length;

        if (t->markers && i % SYMBOLS_PER_MARK == 0 &&
            read_le(t, t->markers + i / SYMBOLS_PER_MARK * 4, 4) != at - t->names)
            return 0;
        length = symbol_length(t, &at);
        if (!length || !t->budget)
            return 0;
        t->budget--;
        at += length;
    }
    return at;
}

static bool check_names(struct tables *t)
{
    size_t marks = ((size_t)t->count + SYMBOLS_PER_MARK - 1) / SYMBOLS_PER_MARK;
    size_t names_end, markers_end;

    t->markers = 0;
    names_end = walk_names(t);
    if (!names_end)
        return false;
    t->markers = ALIGN_UP(names_end, ALIGNMENT);
    markers_end = ALIGN_UP(t->markers + marks * 4, ALIGNMENT);
    return (markers_end == t->tokens || markers_end + ALIGN_UP(t->count * 3ul, ALIGNMENT) == t->tokens) &&
           walk_names(t);
}

/* Goes back from the tokens until something can be the count: most of what is there cannot. */
static bool find_names(struct tables *t)
{
    for (size_t at = t->tokens; at >= ALIGNMENT && t->tokens - at < NAMES_SIZE_MAX && t->budget; at -= ALIGNMENT) {
        uint64_t count = read_le(t, at - ALIGNMENT, 8);

        if (count < SYMBOLS_MIN || count > SYMBOLS_MAX)
            continue;
        t->count = (uint32_t)count;
        t->names = at;
        if (check_names(t))
            return true;
    }
    return false;
}

/* ---- offsets, base ---- */

static bool take_offsets(struct tables *t, size_t offsets, size_t base, gva_t text)
{
    if (!inside(t, offsets, (size_t)t->count * 4) || !inside(t, base, 8))
        return false;
    t->offsets = offsets;
    t->base = read_le(t, base, 8);
    if (t->base % PAGE_SIZE || text - t->base >= KERNEL_RANGE) /* below it: a very large difference */
        return false;
    t->absolute = false;
    for (uint32_t i = 0; i < t->count; i++)
        t->absolute |= (int32_t)read_le(t, offsets + i * 4ul, 4) < 0;
    return true;
}

static bool find_offsets(struct tables *t, gva_t text)
{
    size_t count_at = t->names - ALIGNMENT, length = ALIGN_UP((size_t)t->count * 4, ALIGNMENT);
    size_t after = t->token_index + TOKENS * 2;

    return take_offsets(t, after, after + length, text) ||
           (count_at >= ALIGNMENT + length &&
            take_offsets(t, count_at - ALIGNMENT - length, count_at - ALIGNMENT, text));
}

static gva_t symbol_address(const struct tables *t, uint32_t number)
{
    uint32_t offset = (uint32_t)read_le(t, t->offsets + number * 4ul, 4);

    if (!t->absolute)
        return t->base + offset;
    return (int32_t)offset < 0 ? t->base - 1 - (uint64_t)(int64_t)(int32_t)offset : offset;
}

/* ---- All together ---- */

/* The text of `length` tokens at `at`, at most NAME_SIZE of it. */
static size_t expand(const struct tables *t, size_t at, size_t length, char *text)
{
    size_t used = 0;

    for (size_t i = 0; i < length; i++) {
        size_t token = t->tokens + read_le(t, t->token_index + t->image[at + i] * 2ul, 2);

        while (t->image[token] && used < NAME_SIZE)
            text[used++] = (char)t->image[token++];
    }
    return used;
}

static size_t add_symbols(struct jit_symbols *symbols, const struct tables *t)
{
    size_t at = t->names;
    char text[NAME_SIZE];
    uint32_t i;

    for (i = 0; i < t->count; i++) {
        size_t length = symbol_length(t, &at), used = expand(t, at, length, text);
        struct jit_symbol_source source = {
            .address = symbol_address(t, i),
            .size = JIT_SYMBOL_OPEN_SIZE,
            .open = true,
            .rank = used ? jit_symbol_rank_of_letter(text[0]) : JIT_SYMBOL_END,
            .name = text + 1,
            .name_length = used ? used - 1 : 0,
        };

        at += length;
        /* Numbers, per-CPU offsets: below the kernel, where user code is. */
        if (source.address >= t->base && used > 1 && jit_symbols_add(symbols, &source))
            break;
    }
    return i;
}

size_t jit_kallsyms_read(struct jit_symbols *symbols, const uint8_t *image, size_t size, gva_t text)
{
    static const char digits[] = "0\0001\0002\0003\0004\0005\0006\0007\0008\0009"; /* and its own zero */
    struct tables t = { .image = image, .size = size, .budget = BUDGET };

    for (size_t at = 0; at < size;) {
        const uint8_t *found = memmem(image + at, size - at, digits, sizeof(digits));

        if (!found)
            break;
        at = (size_t)(found - image);
        if (find_tokens(&t, at) && find_names(&t) && find_offsets(&t, text))
            return add_symbols(symbols, &t);
        at++;
    }
    return 0;
}
