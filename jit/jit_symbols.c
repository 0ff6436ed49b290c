/* The table of guest symbols: an array sorted by address, names in one block of text beside it.
 *
 * Invariants, once jit_symbols_finish has run: addresses rise strictly; the array and the names do not change any
 * more, so that look-ups need no lock. Only the slide (how far a kernel with KASLR runs from where it was linked) is
 * set while vCPUs run: two relaxed atomics, because a look-up that still sees the old one only gets an old name.
 *
 * Threads: adding and finishing belong to one thread, before any look-up; the rest is for any thread. */
#include "jit/jit_symbols.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SYMBOLS_MAX     (4u << 20) /* a Linux kernel with all its modules has a quarter of a million */
#define NAME_LENGTH_MAX 255
#define NAMES_SIZE_MAX  (256 * MIB)

/* Sized symbols may lie inside each other (a label in a function): how many are tried, going back from the address. */
#define NESTED_MAX 16

/* CONFIG_PHYSICAL_ALIGN is at least 2 MiB on x86-64, and the kernel is placed in the 1 GiB of its image's window. */
#define KASLR_ALIGN       (2 * MIB)
#define KASLR_RANGE       (1 * GIB)
#define KASLR_ANCHOR_NAME "entry_SYSCALL_64"
#define ANCHOR_NOT_THERE  0

struct symbol {
    gva_t address;
    uint64_t size;
    uint32_t name; /* offset in names */
    uint8_t rank;  /* enum jit_symbol_rank */
    bool open, module;
};

struct jit_symbols {
    struct symbol *symbols;
    size_t count, capacity;
    char *names;
    size_t names_size, names_capacity;
    gva_t anchor; /* address of KASLR_ANCHOR_NAME in the table */
    _Atomic gva_t seen_lstar;
    _Atomic uint64_t slide; /* run-time address - address in the table */
};

struct jit_symbols *jit_symbols_create(void)
{
    return calloc(1, sizeof(struct jit_symbols));
}

void jit_symbols_destroy(struct jit_symbols *symbols)
{
    if (!symbols)
        return;
    free(symbols->symbols);
    free(symbols->names);
    free(symbols);
}

/* ---- Building ---- */

static int grow(void **array, size_t *capacity, size_t needed, size_t item)
{
    size_t wanted = MAX(*capacity * 2, MAX(needed, (size_t)1024));
    void *bigger;

    if (needed <= *capacity)
        return 0;
    bigger = realloc(*array, wanted * item);
    if (!bigger)
        return -ENOMEM;
    *array = bigger;
    *capacity = wanted;
    return 0;
}

/* Names end up in line-based files: whatever is not a visible character becomes '_'. */
static void copy_name(char *to, const char *from, size_t length)
{
    for (size_t i = 0; i < length; i++)
        to[i] = isgraph((unsigned char)from[i]) ? from[i] : '_';
    to[length] = '\0';
}

int jit_symbols_add(struct jit_symbols *symbols, const struct jit_symbol_source *source)
{
    size_t length = source->rank == JIT_SYMBOL_END ? 0 : MIN(source->name_length, (size_t)NAME_LENGTH_MAX);
    struct symbol *symbol;

    if (symbols->count == SYMBOLS_MAX || symbols->names_size + length + 1 > NAMES_SIZE_MAX)
        return -E2BIG;
    if (grow((void **)&symbols->symbols, &symbols->capacity, symbols->count + 1, sizeof(*symbol)) ||
        grow((void **)&symbols->names, &symbols->names_capacity, symbols->names_size + length + 1, 1))
        return -ENOMEM;
    symbol = &symbols->symbols[symbols->count++];
    *symbol = (struct symbol){
        .address = source->address,
        .size = source->rank == JIT_SYMBOL_END ? 0 : source->size,
        .open = source->open,
        .module = source->module,
        .rank = (uint8_t)source->rank,
        .name = (uint32_t)symbols->names_size,
    };
    copy_name(symbols->names + symbols->names_size, source->name, length);
    symbols->names_size += length + 1;
    return 0;
}

static int compare(const void *a, const void *b)
{
    const struct symbol *x = a, *y = b;

    if (x->address != y->address)
        return x->address < y->address ? -1 : 1;
    if (x->rank != y->rank)
        return x->rank < y->rank ? -1 : 1;
    return x->name < y->name ? -1 : x->name > y->name; /* the order of the file */
}

void jit_symbols_finish(struct jit_symbols *symbols)
{
    size_t kept = 0;

    if (symbols->count)
        qsort(symbols->symbols, symbols->count, sizeof(*symbols->symbols), compare);
    for (size_t i = 0; i < symbols->count; i++) {
        const struct symbol *symbol = &symbols->symbols[i];

        /* Looked for before aliases go: it may share its address with a section's start. */
        if (symbol->rank != JIT_SYMBOL_END && !strcmp(symbols->names + symbol->name, KASLR_ANCHOR_NAME))
            symbols->anchor = symbol->address;
        if (!kept || symbols->symbols[kept - 1].address != symbol->address)
            symbols->symbols[kept++] = *symbol;
    }
    symbols->count = kept;
}

enum jit_symbol_rank jit_symbol_rank_of_letter(char letter)
{
    switch (letter) {
    case 'T':
        return JIT_SYMBOL_GLOBAL;
    case 't':
    case 'W': /* weak: a function, as all weak objects of the kernel are V */
    case 'w':
    case 'i': /* indirect function */
        return JIT_SYMBOL_LOCAL;
    default:
        return JIT_SYMBOL_END;
    }
}

/* ---- Looking up ---- */

size_t jit_symbols_count(const struct jit_symbols *symbols)
{
    return symbols->count;
}

/* How many symbols start at or below the address. */
static size_t count_up_to(const struct jit_symbols *symbols, gva_t address)
{
    size_t low = 0, high = symbols->count;

    while (low < high) {
        size_t middle = low + (high - low) / 2;

        if (symbols->symbols[middle].address <= address)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

const char *jit_symbols_find(const struct jit_symbols *symbols, gva_t address, uint64_t *offset)
{
    uint64_t slide = atomic_load_explicit(&symbols->slide, memory_order_relaxed);
    size_t below = count_up_to(symbols, address - slide);

    for (size_t back = 0; back < NESTED_MAX && back < below; back++) {
        const struct symbol *symbol = &symbols->symbols[below - 1 - back];
        uint64_t distance = address - slide - symbol->address;

        if (distance >= symbol->size || (symbol->open && back))
            continue;
        if (symbol->module && slide)
            return NULL; /* modules are placed anew in each boot */
        *offset = distance;
        return symbols->names + symbol->name;
    }
    return NULL;
}

void jit_symbols_relocate(struct jit_symbols *symbols, gva_t lstar)
{
    uint64_t slide;

    if (atomic_load_explicit(&symbols->seen_lstar, memory_order_relaxed) == lstar)
        return;
    atomic_store_explicit(&symbols->seen_lstar, lstar, memory_order_relaxed);
    slide = lstar && symbols->anchor != ANCHOR_NOT_THERE ? lstar - symbols->anchor : 0;
    if (slide % KASLR_ALIGN || slide + KASLR_RANGE > 2 * KASLR_RANGE)
        return;
    atomic_store_explicit(&symbols->slide, slide, memory_order_relaxed);
}

const char *jit_symbols_block_name(const struct jit_symbols *symbols, gva_t gva, gpa_t gpa, bool user, char *buffer,
                                   size_t size)
{
    uint64_t offset = 0;
    const char *name = user ? NULL : jit_symbols_find(symbols, gva, &offset);

    if (name)
        snprintf(buffer, size, "guest:%s+0x%" PRIx64, name, offset);
    else if (user)
        snprintf(buffer, size, "guest:user:0x%" PRIx64, gva);
    else
        snprintf(buffer, size, "guest:gpa:0x%" PRIx64, gpa);
    return buffer;
}
