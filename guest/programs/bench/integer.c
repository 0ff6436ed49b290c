/* Integer workloads: what compilers make of plain C. Loads and stores off few bases, data-dependent branches, calls through
 * pointers, deep recursion, dependent loads. Static, -O2 for any x86-64. */
#include "bench.h"

#include <stdlib.h>
#include <string.h>

enum { SORT_ITEMS = 20000 };

static void *sort_setup(void)
{
    uint32_t *items = bench_alloc(2 * SORT_ITEMS * sizeof(*items)), x = 1;

    for (size_t i = 0; i < SORT_ITEMS; i++)
        items[i] = bench_random(&x);
    return items;
}

static int compare(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

    return x < y ? -1 : x > y;
}

/* The C library's qsort: a merge sort with a call through a pointer for each comparison. */
static uint64_t sort_unit(void *data)
{
    uint32_t *source = data, *items = source + SORT_ITEMS;

    memcpy(items, source, SORT_ITEMS * sizeof(*items));
    qsort(items, SORT_ITEMS, sizeof(*items), compare);
    return bench_hash(BENCH_HASH, items, 4096);
}

/* Open addressing, more memory than the first-level caches: random pages. */
enum { TABLE_BITS = 18, TABLE_KEYS = 100000 };

struct entry {
    uint32_t key, count;
};

static void *hash_setup(void)
{
    return bench_alloc(sizeof(struct entry) << TABLE_BITS);
}

static uint64_t hash_unit(void *data)
{
    struct entry *table = data;
    uint64_t sum = 0;
    uint32_t x = 12345;

    memset(table, 0, sizeof(*table) << TABLE_BITS);
    for (unsigned i = 0; i < 2 * TABLE_KEYS; i++) {
        uint32_t key = bench_random(&x) % TABLE_KEYS + 1, slot = key * 2654435761u >> (32 - TABLE_BITS);

        while (table[slot].key && table[slot].key != key)
            slot = (slot + 1) & ((1u << TABLE_BITS) - 1);
        table[slot].key = key;
        sum += (uint64_t)slot * ++table[slot].count;
    }
    return sum;
}

/* One long cycle through 8 MiB: every load depends on the one before, nearly every one is on another page. */
enum { CHASE_NODES = 1 << 17, CHASE_STEPS = 100000 };

struct node {
    struct node *next;
    uint64_t value[7];
};

static void *chase_setup(void)
{
    struct node *nodes = bench_alloc(CHASE_NODES * sizeof(*nodes));
    uint32_t *order = bench_alloc(CHASE_NODES * sizeof(*order)), x = 99;

    for (uint32_t i = 0; i < CHASE_NODES; i++)
        order[i] = i;
    for (uint32_t i = CHASE_NODES - 1; i > 0; i--) {
        uint32_t j = bench_random(&x) % (i + 1), swap = order[i];

        order[i] = order[j];
        order[j] = swap;
    }
    for (uint32_t i = 0; i < CHASE_NODES; i++) {
        nodes[order[i]].next = &nodes[order[(i + 1) % CHASE_NODES]];
        nodes[order[i]].value[0] = i;
    }
    free(order);
    return nodes;
}

static uint64_t chase_unit(void *data)
{
    const struct node *node = data;
    uint64_t sum = 0;

    for (unsigned i = 0; i < CHASE_STEPS; i++) {
        sum += node->value[0];
        node = node->next;
    }
    return sum;
}

__attribute__((noinline, noclone, optimize("no-optimize-sibling-calls"))) static uint64_t fibonacci(unsigned n)
{
    return n < 2 ? n : fibonacci(n - 1) + fibonacci(n - 2);
}

__attribute__((noinline, noclone, optimize("no-optimize-sibling-calls"))) static uint64_t ackermann(uint64_t m,
                                                                                                    uint64_t n)
{
    if (m == 0)
        return n + 1;
    return n == 0 ? ackermann(m - 1, 1) : ackermann(m - 1, ackermann(m, n - 1));
}

static uint64_t recursion_unit(void *data)
{
    (void)data;
    return fibonacci(25) * 1000 + ackermann(2, 300); /* wide and shallow; narrow and deep */
}

/* Calls through a table, in an order that repeats after 64: a CPU's predictor learns it, as it does in most programs. */
#define OPERATION(name, expression)                                                                                    \
    __attribute__((noinline)) static uint64_t name(uint64_t x)                                                         \
    {                                                                                                                  \
        return expression;                                                                                             \
    }
OPERATION(op_add, x + 0x9e3779b97f4a7c15ull)
OPERATION(op_xor, x ^ x >> 7)
OPERATION(op_multiply, x * 6364136223846793005ull + 1)
OPERATION(op_rotate, x << 13 | x >> 51)
OPERATION(op_negate, ~x)
OPERATION(op_swap, __builtin_bswap64(x))
OPERATION(op_shift, (x >> 3) ^ (x << 5))
OPERATION(op_subtract, x - (x << 8))

static uint64_t indirect_unit(void *data)
{
    static uint64_t (*const operations[])(uint64_t) = { op_add,    op_xor,  op_multiply, op_rotate,
                                                        op_negate, op_swap, op_shift,    op_subtract };
    uint64_t x = 1;
    uint32_t random = 2024;
    uint8_t order[64];

    (void)data;
    for (unsigned i = 0; i < 64; i++)
        order[i] = (uint8_t)(bench_random(&random) >> 13 & 7);
    for (unsigned i = 0; i < 500000; i++)
        x = operations[order[i % 64]](x) + i;
    return x;
}

/* A small machine's byte code: a switch in a loop, its registers in memory. Jumps are absolute. */
enum opcode { LOAD, ADD, LESS, JUMP_IF, JUMP, STORE, FETCH, HALT };

struct code {
    uint8_t opcode, a, b, c;
    uint32_t value;
};

static uint64_t interpret(const struct code *program, int64_t *memory)
{
    int64_t r[8] = { 0 };
    const struct code *pc = program;

    for (;;) {
        const struct code *code = pc++;

        switch (code->opcode) {
        case LOAD:
            r[code->a] = code->value;
            break;
        case ADD:
            r[code->a] = r[code->b] + r[code->c];
            break;
        case LESS:
            r[code->a] = r[code->b] < r[code->c];
            break;
        case JUMP_IF:
            if (r[code->a])
                pc = program + code->value;
            break;
        case JUMP:
            pc = program + code->value;
            break;
        case STORE:
            memory[r[code->a]] = r[code->b];
            break;
        case FETCH:
            r[code->a] = memory[r[code->b]];
            break;
        default:
            return (uint64_t)r[0];
        }
    }
}

static uint64_t bytecode_unit(void *data)
{
    enum { LIMIT = 1000 };
    /* Sieve of Eratosthenes. r0: primes so far, r1: candidate, r2: its multiple, r3: limit, r4: 1, r5: condition */
    static const struct code sieve[] = {
        [0] = { LOAD, .a = 1, .value = 2 },      [1] = { LOAD, .a = 3, .value = LIMIT },
        [2] = { LOAD, .a = 4, .value = 1 },      [3] = { FETCH, .a = 5, .b = 1 },
        [4] = { JUMP_IF, .a = 5, .value = 12 },  [5] = { ADD, .a = 0, .b = 0, .c = 4 },
        [6] = { ADD, .a = 2, .b = 1, .c = 1 },   [7] = { JUMP, .value = 10 },
        [8] = { STORE, .a = 2, .b = 4 },         [9] = { ADD, .a = 2, .b = 2, .c = 1 },
        [10] = { LESS, .a = 5, .b = 2, .c = 3 }, [11] = { JUMP_IF, .a = 5, .value = 8 },
        [12] = { ADD, .a = 1, .b = 1, .c = 4 },  [13] = { LESS, .a = 5, .b = 1, .c = 3 },
        [14] = { JUMP_IF, .a = 5, .value = 3 },  [15] = { HALT },
    };
    int64_t memory[LIMIT];
    uint64_t sum = 0;

    (void)data;
    for (unsigned i = 0; i < 100; i++) {
        memset(memory, 0, sizeof(memory));
        sum += interpret(sieve, memory);
    }
    return sum; /* 168 primes each time */
}

/* Text: numbers to decimal and back, words counted, lower case, comparison. Byte loads and stores, the C library. */
static void *text_setup(void)
{
    char *text = bench_alloc(1 << 16), *end = text;
    uint32_t x = 7;

    while (end < text + (1 << 16) - 32) {
        unsigned letters = 1 + bench_random(&x) % 9;

        for (unsigned i = 0; i < letters; i++)
            *end++ = (char)((bench_random(&x) & 4 ? 'a' : 'A') + bench_random(&x) % 26);
        *end++ = bench_random(&x) % 12 ? ' ' : '\n';
    }
    return text;
}

static unsigned put_decimal(char *out, uint32_t value)
{
    char digits[10];
    unsigned count = 0;

    do
        digits[count++] = (char)('0' + value % 10);
    while (value /= 10);
    for (unsigned i = 0; i < count; i++)
        out[i] = digits[count - 1 - i];
    out[count] = 0;
    return count;
}

static uint64_t text_unit(void *data)
{
    const char *text = data;
    char word[32], number[16];
    uint64_t sum = 0;
    unsigned letters = 0, words = 0;

    for (const char *p = text; *p; p++) {
        char c = *p;

        if (c != ' ' && c != '\n') {
            word[letters++] = (char)(c >= 'A' && c <= 'Z' ? c + 32 : c);
            continue;
        }
        word[letters] = 0;
        put_decimal(number, words++ * 7919 % 100003);
        sum = sum * 31 + strlen(word) + strtoul(number, NULL, 10) + (strcmp(word, "middle") < 0) +
              (strchr(word, 'e') ? 5 : 0);
        letters = 0;
    }
    return sum;
}

extern void *mix_setup(void);
extern uint64_t mix_unit(void *data);

int main(int argc, char **argv)
{
    static const struct bench_workload table[] = {
        { "sort", sort_unit, sort_setup },
        { "hash_table", hash_unit, hash_setup },
        { "pointer_chase", chase_unit, chase_setup },
        { "recursion", recursion_unit, NULL },
        { "indirect_calls", indirect_unit, NULL },
        { "bytecode", bytecode_unit, NULL },
        { "text", text_unit, text_setup },
        { "core_mix", mix_unit, mix_setup },
    };

    return bench_main(argc, argv, table, sizeof(table) / sizeof(table[0]));
}
