/* State tables: round trip, and what damaged or foreign streams do (an error, and an untouched owner). */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "base/state.h"

struct thing {
    uint8_t small;
    uint64_t wide;
    uint16_t array[5];
    uint8_t bytes[33];
    bool flag;
    unsigned saved, loaded;
};

static void pre_save(void *owner)
{
    ((struct thing *)owner)->saved++;
}

static int post_load(void *owner, struct error *err)
{
    (void)err;
    ((struct thing *)owner)->loaded++;
    return 0;
}

static const struct state_field fields[] = {
    STATE_FIELD(struct thing, small), STATE_FIELD(struct thing, wide), STATE_ARRAY(struct thing, array),
    STATE_FIELD(struct thing, bytes), STATE_FIELD(struct thing, flag), STATE_END,
};
static const struct state_table table = {
    .name = "thing",
    .version = 3,
    .fields = fields,
    .post_load = post_load,
    .pre_save = pre_save,
};

static struct thing sample(void)
{
    struct thing thing = { .small = 7, .wide = 0x0123456789abcdef, .array = { 1, 2, 3, 4, 0xffff }, .flag = true };

    memset(thing.bytes, 0x5a, sizeof(thing.bytes));
    return thing;
}

Test(state, round_trip)
{
    struct thing a = sample(), b = { 0 };
    struct state_buffer buffer = { 0 };
    struct error err;

    cr_assert_eq(state_save(&buffer, &table, &a, &err), 0);
    cr_assert_eq(state_save(&buffer, &table, &a, &err), 0);
    cr_assert_eq(a.saved, 2);
    for (unsigned i = 1; i <= 2; i++) {
        cr_assert_eq(state_load(&buffer, &table, &b, &err), 0, "%s", err.text);
        cr_assert_eq(b.loaded, i);
    }
    cr_assert_eq(buffer.position, buffer.size);
    cr_assert(b.small == a.small && b.wide == a.wide && b.flag == a.flag);
    cr_assert_arr_eq(b.array, a.array, sizeof(a.array));
    cr_assert_arr_eq(b.bytes, a.bytes, sizeof(a.bytes));
    state_buffer_free(&buffer);
}

Test(state, every_truncation_and_bit_flip_of_the_frame)
{
    struct thing a = sample(), b, zero = { 0 };
    struct state_buffer buffer = { 0 };
    struct error err;
    size_t size;

    state_save(&buffer, &table, &a, &err);
    size = buffer.size;
    for (size_t cut = 0; cut < size; cut++) {
        struct state_buffer part = { .data = malloc(cut ? cut : 1), .size = cut };

        memcpy(part.data, buffer.data, cut); /* a copy of exact size, for the address sanitizer */
        b = zero;
        cr_assert_lt(state_load(&part, &table, &b, &err), 0, "cut at %zu", cut);
        cr_assert_eq(memcmp(&b, &zero, sizeof(b)), 0, "cut at %zu", cut);
        cr_assert_eq(part.position, 0);
        free(part.data);
    }
    for (size_t bit = 0; bit < size * 8; bit++) {
        struct state_buffer part = { .data = malloc(size), .size = size };

        memcpy(part.data, buffer.data, size);
        part.data[bit / 8] ^= (uint8_t)(1u << bit % 8);
        b = zero;
        if (state_load(&part, &table, &b, &err)) /* flips in data are values like any other */
            cr_assert_eq(memcmp(&b, &zero, sizeof(b)), 0, "bit %zu", bit);
        free(part.data);
    }
    state_buffer_free(&buffer);
}

Test(state, foreign_tables)
{
    static const struct state_field fewer[] = { STATE_FIELD(struct thing, small), STATE_END };
    static const struct state_table other_name = { .name = "thinG", .version = 3, .fields = fields };
    static const struct state_table other_version = { .name = "thing", .version = 4, .fields = fields };
    static const struct state_table other_fields = { .name = "thing", .version = 3, .fields = fewer };
    const struct state_table *const others[] = { &other_name, &other_version, &other_fields };
    struct thing a = sample(), b = { 0 };
    struct state_buffer buffer = { 0 };
    struct error err;

    state_save(&buffer, &table, &a, &err);
    for (size_t i = 0; i < ARRAY_SIZE(others); i++) {
        cr_assert_lt(state_load(&buffer, others[i], &b, &err), 0);
        cr_assert(strstr(err.text, "thin"), "%s", err.text);
    }
    state_buffer_free(&buffer);
}
