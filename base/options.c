/* Option strings in QEMU's syntax, numbers with suffixes, and "did you mean". Pure functions over
 * their arguments; any thread. */
#include "base/options.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Copies up to the next separator into out, undoing the doubled comma; returns where it stopped. */
static const char *copy_until(const char *text, bool stop_at_equals, char *out)
{
    while (*text) {
        if (*text == ',') {
            if (text[1] != ',')
                break;
            text++;
        } else if (*text == '=' && stop_at_equals) {
            break;
        }
        *out++ = *text++;
    }
    *out = '\0';
    return text;
}

static int add_pair(struct option_list *list, const char *key, const char *value, struct error *err)
{
    struct option_pair *pairs = realloc(list->pairs, (list->count + 1) * sizeof(*pairs));

    if (!pairs)
        return error_set(err, ENOMEM, "no memory for options");
    list->pairs = pairs;
    pairs[list->count] = (struct option_pair){ .key = strdup(key), .value = strdup(value) };
    if (!pairs[list->count].key || !pairs[list->count].value) {
        free(pairs[list->count].key);
        free(pairs[list->count].value);
        return error_set(err, ENOMEM, "no memory for options");
    }
    list->count++;
    return 0;
}

int options_parse(struct option_list *list, const char *text, const char *implied_key, struct error *err)
{
    size_t length = strlen(text);
    char *key = malloc(length + 1), *value = malloc(length + 1);
    int ret = 0;

    *list = (struct option_list){ 0 };
    if (!key || !value) {
        ret = error_set(err, ENOMEM, "no memory for options");
        goto out;
    }
    for (bool first = true; *text || first; first = false) {
        text = copy_until(text, true, key);
        if (*text == '=') {
            text = copy_until(text + 1, false, value);
            ret = *key ? add_pair(list, key, value, err) : error_set(err, EINVAL, "'=%s' lacks a name", value);
        } else if (first && implied_key) {
            ret = *key ? add_pair(list, implied_key, key, err) : 0;
        } else {
            ret = *key ? add_pair(list, key, "on", err) : 0;
        }
        if (ret)
            goto out;
        if (*text == ',')
            text++;
    }
out:
    free(key);
    free(value);
    if (ret)
        options_free(list);
    return ret;
}

void options_free(struct option_list *list)
{
    for (size_t i = 0; i < list->count; i++) {
        free(list->pairs[i].key);
        free(list->pairs[i].value);
    }
    free(list->pairs);
    *list = (struct option_list){ 0 };
}

const char *options_get(struct option_list *list, const char *key)
{
    const char *value = NULL;

    for (size_t i = 0; i < list->count; i++) {
        if (!strcmp(list->pairs[i].key, key)) {
            list->pairs[i].used = true;
            value = list->pairs[i].value;
        }
    }
    return value;
}

int options_get_bool(struct option_list *list, const char *key, bool fallback, bool *out, struct error *err)
{
    static const char *const words[2][4] = { { "off", "no", "false", "n" }, { "on", "yes", "true", "y" } };
    const char *value = options_get(list, key);

    *out = fallback;
    if (!value)
        return 0;
    for (unsigned truth = 0; truth < 2; truth++) {
        for (unsigned i = 0; i < 4; i++) {
            if (!strcmp(value, words[truth][i])) {
                *out = truth;
                return 0;
            }
        }
    }
    return error_set(err, EINVAL, "%s=%s: 'on' or 'off' expected", key, value);
}

int options_get_u64(struct option_list *list, const char *key, uint64_t fallback, uint64_t *out, struct error *err)
{
    const char *value = options_get(list, key);
    int ret;

    *out = fallback;
    if (!value)
        return 0;
    ret = parse_u64(value, out, err);
    return ret ? error_prefix(err, ret, "%s", key) : 0;
}

int options_get_size(struct option_list *list, const char *key, uint64_t default_unit, uint64_t fallback, uint64_t *out,
                     struct error *err)
{
    const char *value = options_get(list, key);
    int ret;

    *out = fallback;
    if (!value)
        return 0;
    ret = parse_size(value, default_unit, out, err);
    return ret ? error_prefix(err, ret, "%s", key) : 0;
}

int options_check_all_used(const struct option_list *list, const char *option, struct error *err)
{
    for (size_t i = 0; i < list->count; i++) {
        if (!list->pairs[i].used)
            return error_set(err, EINVAL, "%s%sunknown property '%s'", option, *option ? ": " : "", list->pairs[i].key);
    }
    return 0;
}

int parse_u64(const char *text, uint64_t *out, struct error *err)
{
    char *end;
    unsigned long long value;

    /* strtoull takes signs and spaces, which no one means here. */
    if (!isdigit((unsigned char)*text))
        return error_set(err, EINVAL, "'%s' is not a number", text);
    errno = 0;
    value = strtoull(text, &end, 0);
    if (*end)
        return error_set(err, EINVAL, "'%s' is not a number", text);
    if (errno == ERANGE)
        return error_set(err, ERANGE, "'%s' is too large", text);
    *out = value;
    return 0;
}

static int size_unit(char suffix, uint64_t default_unit, uint64_t *unit)
{
    switch (suffix) {
    case '\0':
        *unit = default_unit;
        return 0;
    case 'b':
    case 'B':
        *unit = 1;
        return 0;
    case 'k':
    case 'K':
        *unit = KIB;
        return 0;
    case 'm':
    case 'M':
        *unit = MIB;
        return 0;
    case 'g':
    case 'G':
        *unit = GIB;
        return 0;
    case 't':
    case 'T':
        *unit = TIB;
        return 0;
    default:
        return -EINVAL;
    }
}

int parse_size(const char *text, uint64_t default_unit, uint64_t *out, struct error *err)
{
    bool hex = text[0] == '0' && (text[1] == 'x' || text[1] == 'X');
    uint64_t unit, whole, result;
    double fraction = 0;
    char *end;

    if (!isdigit((unsigned char)*text))
        return error_set(err, EINVAL, "'%s' is not a size (a number with an optional K, M, G or T)", text);
    errno = 0;
    whole = strtoull(text, &end, hex ? 16 : 10);
    if (errno == ERANGE)
        return error_set(err, ERANGE, "'%s' is too large", text);
    if (*end == '.' && !hex) { /* "1.5G" */
        const char *digits = end;

        fraction = strtod(digits, &end);
        if (end == digits || fraction >= 1)
            return error_set(err, EINVAL, "'%s' is not a size", text);
    }
    if (size_unit(*end, default_unit, &unit) || (*end && end[1]))
        return error_set(err, EINVAL, "'%s' is not a size (a number with an optional K, M, G or T)", text);
    if (__builtin_mul_overflow(whole, unit, &result) ||
        __builtin_add_overflow(result, (uint64_t)(fraction * (double)unit), &result))
        return error_set(err, ERANGE, "'%s' is too large", text);
    *out = result;
    return 0;
}

/* Optimal string alignment distance (a swap of neighbours counts as one), words up to 63 bytes. */
static unsigned edit_distance(const char *a, const char *b)
{
    size_t length_a = strlen(a), length_b = strlen(b);
    unsigned rows[3][64];

    if (length_a > 63 || length_b > 63)
        return 64;
    for (size_t j = 0; j <= length_b; j++)
        rows[0][j] = (unsigned)j;
    for (size_t i = 1; i <= length_a; i++) {
        unsigned *row = rows[i % 3], *above = rows[(i + 2) % 3], *above2 = rows[(i + 1) % 3];

        row[0] = (unsigned)i;
        for (size_t j = 1; j <= length_b; j++) {
            unsigned cost = above[j - 1] + (a[i - 1] != b[j - 1]);

            cost = MIN(cost, above[j] + 1);
            cost = MIN(cost, row[j - 1] + 1);
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
                cost = MIN(cost, above2[j - 2] + 1);
            row[j] = cost;
        }
    }
    return rows[length_a % 3][length_b];
}

const char *nearest_word(const char *word, const char *const *candidates)
{
    unsigned limit = MAX((unsigned)strlen(word) / 3, 2u) + 1; /* first distance that is too far */
    const char *best = NULL;

    for (; *candidates; candidates++) {
        unsigned distance = edit_distance(word, *candidates);

        /* A distance of the whole word is no resemblance. */
        if (distance < limit && distance < strlen(word)) {
            limit = distance;
            best = *candidates;
        }
    }
    return best;
}
