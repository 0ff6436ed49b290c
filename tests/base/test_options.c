/* Option strings, sizes, numbers, nearest words. */
#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>

#include "base/options.h"

static struct option_list list;
static struct error err;

static void free_list(void)
{
    options_free(&list);
}

TestSuite(options, .fini = free_list);

Test(options, implied_key_and_pairs)
{
    cr_assert_eq(options_parse(&list, "isa-debug-exit,iobase=0xf4,iosize=0x04", "driver", &err), 0);
    cr_assert_eq(list.count, 3);
    cr_assert_str_eq(options_get(&list, "driver"), "isa-debug-exit");
    cr_assert_str_eq(options_get(&list, "iobase"), "0xf4");
    cr_assert_neq(options_check_all_used(&list, "-device x", &err), 0);
    cr_assert(strstr(err.text, "iosize"), "%s", err.text);
    cr_assert_str_eq(options_get(&list, "iosize"), "0x04");
    cr_assert_eq(options_check_all_used(&list, "-device x", &err), 0);
    cr_assert_null(options_get(&list, "absent"));
}

Test(options, doubled_commas_and_flags)
{
    cr_assert_eq(options_parse(&list, "path=a,,b=c,snapshot,nofoo", NULL, &err), 0);
    cr_assert_str_eq(options_get(&list, "path"), "a,b=c");
    cr_assert_str_eq(options_get(&list, "snapshot"), "on");
    cr_assert_str_eq(options_get(&list, "nofoo"), "on");
}

Test(options, first_item_may_name_its_key)
{
    cr_assert_eq(options_parse(&list, "type=q35,accel=a:b", "type", &err), 0);
    cr_assert_str_eq(options_get(&list, "type"), "q35");
    cr_assert_str_eq(options_get(&list, "accel"), "a:b");
}

Test(options, last_one_wins)
{
    cr_assert_eq(options_parse(&list, "a=1,a=2", NULL, &err), 0);
    cr_assert_str_eq(options_get(&list, "a"), "2");
    cr_assert_eq(options_check_all_used(&list, "x", &err), 0);
}

Test(options, odd_strings)
{
    static const char *const texts[] = { "", ",", ",,", "a", "a=", "a,", ",a", "a=,b", ",,,," };

    for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
        cr_assert_eq(options_parse(&list, texts[i], "k", &err), 0, "%s: %s", texts[i], err.text);
        options_free(&list);
    }
    cr_assert_eq(options_parse(&list, "=x", "k", &err), -EINVAL);
}

Test(options, booleans)
{
    bool value;

    cr_assert_eq(options_parse(&list, "a=on,b=off,c=yes,d=no,e=maybe", NULL, &err), 0);
    cr_assert(!options_get_bool(&list, "a", false, &value, &err) && value);
    cr_assert(!options_get_bool(&list, "b", true, &value, &err) && !value);
    cr_assert(!options_get_bool(&list, "c", false, &value, &err) && value);
    cr_assert(!options_get_bool(&list, "d", true, &value, &err) && !value);
    cr_assert(!options_get_bool(&list, "f", true, &value, &err) && value);
    cr_assert_eq(options_get_bool(&list, "e", true, &value, &err), -EINVAL);
    cr_assert(strstr(err.text, "maybe"), "%s", err.text);
}

Test(sizes, good)
{
    static const struct {
        const char *text;
        uint64_t value;
    } cases[] = {
        { "1", MIB },           { "512", 512 * MIB }, { "1k", KIB },   { "3K", 3 * KIB },
        { "8G", 8 * GIB },      { "2t", 2 * TIB },    { "7b", 7 },     { "0x10", 16 * MIB },
        { "1.5G", 1536 * MIB }, { "0", 0 },           { "0.5k", 512 }, { "16777215T", 16777215 * TIB },
    };
    uint64_t value;

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        cr_assert_eq(parse_size(cases[i].text, MIB, &value, &err), 0, "%s: %s", cases[i].text, err.text);
        cr_assert_eq(value, cases[i].value, "%s: %llu", cases[i].text, (unsigned long long)value);
    }
}

Test(sizes, bad)
{
    static const char *const texts[] = { "",          "-1",  "+1",   " 1",  "M",
                                         "1X",        "1MM", "1MiB", "1e3", "99999999999999999999",
                                         "16777216T", "0x",  "1.",   "nan", "1.5.5G" };
    uint64_t value = 77;

    for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
        cr_assert_lt(parse_size(texts[i], MIB, &value, &err), 0, "%s gave %llu", texts[i], (unsigned long long)value);
        cr_assert_eq(value, 77);
    }
}

Test(numbers, all)
{
    static const char *const bad[] = { "", "-1", "1x", "0xg", " 1", "18446744073709551616" };
    uint64_t value;

    cr_assert(!parse_u64("18446744073709551615", &value, &err) && value == UINT64_MAX);
    cr_assert(!parse_u64("0xf4", &value, &err) && value == 0xf4);
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
        cr_assert_lt(parse_u64(bad[i], &value, &err), 0, "%s", bad[i]);
}

Test(nearest, words)
{
    static const char *const words[] = { "kernel", "initrd", "append", "nographic", "m", "name", NULL };

    cr_assert_str_eq(nearest_word("kernal", words), "kernel");
    cr_assert_str_eq(nearest_word("inirtd", words), "initrd");
    cr_assert_str_eq(nearest_word("no-graphic", words), "nographic");
    cr_assert_null(nearest_word("zzzzzz", words));
    cr_assert_null(nearest_word("", words));
    cr_assert_null(nearest_word("x", words));
}
