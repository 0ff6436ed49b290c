/* A mix like that of embedded-CPU benchmarks, our own: sorting and searching a linked list, 16-bit integer matrices, a state
 * machine that reads numbers, and a CRC over the results of all three. One unit is 20 turns. */
#include "bench.h"

#include <string.h>

enum { LIST_ITEMS = 300, MATRIX = 16, TURNS = 20 };

struct item {
    struct item *next;
    int16_t key, value;
};

struct mix {
    struct item items[LIST_ITEMS];
    int16_t a[MATRIX][MATRIX], b[MATRIX][MATRIX];
    int32_t c[MATRIX][MATRIX];
    char text[2048];
};

void *mix_setup(void);
uint64_t mix_unit(void *data);

static uint16_t crc16(uint16_t crc, uint32_t value)
{
    for (unsigned i = 0; i < 32; i++, value >>= 1)
        crc = (uint16_t)((crc ^ value) & 1 ? crc >> 1 ^ 0xa001 : crc >> 1);
    return crc;
}

static struct item *merge(struct item *a, struct item *b, int by_value)
{
    struct item *head = NULL, **tail = &head;

    while (a && b) {
        int first = by_value ? a->value <= b->value : a->key <= b->key;
        struct item **from = first ? &a : &b;

        *tail = *from;
        *from = (*from)->next;
        tail = &(*tail)->next;
    }
    *tail = a ? a : b;
    return head;
}

static struct item *list_sort(struct item *list, unsigned count, int by_value)
{
    struct item *middle = list, *rest;

    if (count < 2)
        return list;
    for (unsigned i = 1; i < count / 2; i++)
        middle = middle->next;
    rest = middle->next;
    middle->next = NULL;
    return merge(list_sort(list, count / 2, by_value), list_sort(rest, count - count / 2, by_value), by_value);
}

static uint16_t list_turn(struct mix *mix, uint16_t crc, unsigned turn)
{
    struct item *list;

    for (unsigned i = 0; i < LIST_ITEMS; i++) {
        mix->items[i].next = i + 1 < LIST_ITEMS ? &mix->items[i + 1] : NULL;
        mix->items[i].value = (int16_t)(mix->items[i].key * 31 ^ (int)(turn * 257));
    }
    list = list_sort(mix->items, LIST_ITEMS, 1);
    for (unsigned i = 0; i < 20; i++) {
        const struct item *item = list;

        while (item && item->key != (int16_t)(i * 13))
            item = item->next;
        crc = crc16(crc, item ? (uint16_t)item->value : i);
    }
    list = list_sort(list, LIST_ITEMS, 0);
    return crc16(crc, (uint16_t)list->value);
}

static uint16_t matrix_turn(struct mix *mix, uint16_t crc, unsigned turn)
{
    uint32_t sum = 0;

    for (unsigned i = 0; i < MATRIX; i++) {
        for (unsigned j = 0; j < MATRIX; j++) {
            int32_t dot = (int32_t)turn;

            for (unsigned k = 0; k < MATRIX; k++)
                dot += mix->a[i][k] * mix->b[k][j];
            mix->c[i][j] = dot;
            sum += (uint32_t)dot >> 5 & 0x7f;
        }
    }
    return crc16(crc, sum);
}

/* Integer, fraction, exponent, hexadecimal, or not a number. */
enum state { START, SIGN, INTEGER, FRACTION, EXPONENT, HEX, WORD, STATES };

static enum state next_state(enum state state, char c)
{
    int digit = c >= '0' && c <= '9';

    switch (state) {
    case START:
        return digit ? INTEGER : c == '-' || c == '+' ? SIGN : c == '.' ? FRACTION : WORD;
    case SIGN:
        return digit ? INTEGER : c == '.' ? FRACTION : WORD;
    case INTEGER:
        return digit ? INTEGER : c == '.' ? FRACTION : c == 'e' ? EXPONENT : c == 'x' ? HEX : WORD;
    case FRACTION:
        return digit ? FRACTION : c == 'e' ? EXPONENT : WORD;
    case EXPONENT:
        return digit || c == '-' ? EXPONENT : WORD;
    case HEX:
        return digit || (c >= 'a' && c <= 'f') ? HEX : WORD;
    default:
        return WORD;
    }
}

static uint16_t state_turn(const struct mix *mix, uint16_t crc, unsigned turn)
{
    uint32_t counts[STATES] = { 0 };
    enum state state = START;

    for (const char *p = mix->text + turn % 64; *p; p++) {
        if (*p == ',') {
            counts[state]++;
            state = START;
        } else {
            state = next_state(state, *p);
        }
    }
    for (unsigned i = 0; i < STATES; i++)
        crc = crc16(crc, counts[i]);
    return crc;
}

void *mix_setup(void)
{
    static const char *const samples[] = {
        "12", "-7.25", "1e10", "0x1f", "+3.5e-2", "abc", ".5", "1.2.3", "-", "65535"
    };
    struct mix *mix = bench_alloc(sizeof(*mix));
    uint32_t x = 4321;
    char *end = mix->text;

    for (unsigned i = 0; i < LIST_ITEMS; i++)
        mix->items[i].key = (int16_t)(bench_random(&x) & 0x3ff);
    for (unsigned i = 0; i < MATRIX * MATRIX; i++) {
        mix->a[i / MATRIX][i % MATRIX] = (int16_t)bench_random(&x);
        mix->b[i / MATRIX][i % MATRIX] = (int16_t)(bench_random(&x) & 0xff);
    }
    while (end < mix->text + sizeof(mix->text) - 16) {
        end = stpcpy(end, samples[bench_random(&x) % 10]);
        *end++ = ',';
    }
    return mix;
}

uint64_t mix_unit(void *data)
{
    uint16_t crc = 0xffff;

    for (unsigned turn = 0; turn < TURNS; turn++) {
        crc = list_turn(data, crc, turn);
        crc = matrix_turn(data, crc, turn);
        crc = state_turn(data, crc, turn);
    }
    return crc;
}
