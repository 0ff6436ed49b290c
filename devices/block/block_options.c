/* Options of nodes: dotted keys, JSON objects (flattened into dotted keys), and the flags that a node hands down. */
#include "devices/block/block_internal.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_JSON (1 * MIB)

/* ---- Look-up ---- */

static void full_key(const struct block_open *open, const char *key, char *text, size_t size)
{
    snprintf(text, size, "%s%s", open->prefix, key);
}

const char *block_open_get(const struct block_open *open, const char *key)
{
    char text[128];

    full_key(open, key, text, sizeof(text));
    return options_get(open->options, text);
}

int block_open_get_bool(const struct block_open *open, const char *key, bool *value, struct error *err)
{
    char text[128];

    full_key(open, key, text, sizeof(text));
    return options_get_bool(open->options, text, *value, value, err);
}

int block_open_get_size(const struct block_open *open, const char *key, uint64_t fallback, uint64_t *value,
                        struct error *err)
{
    char text[128];

    full_key(open, key, text, sizeof(text));
    return options_get_size(open->options, text, 1, fallback, value, err);
}

int block_open_get_word(const struct block_open *open, const char *key, const char *const *words, unsigned *value,
                        struct error *err)
{
    const char *text = block_open_get(open, key);
    char list[128] = "";

    if (!text)
        return 0;
    for (unsigned i = 0; words[i]; i++) {
        if (!strcmp(words[i], text)) {
            *value = i;
            return 0;
        }
        strncat(list, i ? ", " : "", sizeof(list) - strlen(list) - 1);
        strncat(list, words[i], sizeof(list) - strlen(list) - 1);
    }
    return error_set(err, EINVAL, "%s%s=%s: one of %s expected", open->prefix, key, text, list);
}

int block_open_read_flags(struct block_open *open, struct error *err)
{
    static const char *const discard_words[] = { "ignore", "unmap", "off", "on", NULL };
    static const char *const detect_words[] = { "off", "on", "unmap", NULL };
    struct block_flags *flags = &open->flags;
    unsigned discard = flags->unmap, detect = flags->detect_zeroes;
    int ret;

    ret = block_open_get_bool(open, "read-only", &flags->read_only, err);
    if (!ret)
        ret = block_open_get_bool(open, "auto-read-only", &flags->auto_read_only, err);
    if (!ret)
        ret = block_open_get_bool(open, "force-share", &flags->force_share, err);
    if (!ret)
        ret = block_open_get_bool(open, "cache.direct", &flags->direct, err);
    if (!ret)
        ret = block_open_get_bool(open, "cache.no-flush", &flags->no_flush, err);
    if (!ret)
        ret = block_open_get_word(open, "discard", discard_words, &discard, err);
    if (!ret)
        ret = block_open_get_word(open, "detect-zeroes", detect_words, &detect, err);
    if (ret)
        return ret;
    flags->unmap = discard & 1;
    flags->detect_zeroes = detect;
    if (flags->force_share && !flags->read_only)
        return error_set(err, EINVAL, "force-share=on: only with read-only=on");
    if (detect == BLOCK_DETECT_UNMAP && !flags->unmap)
        return error_set(err, EINVAL, "detect-zeroes=unmap: only with discard=unmap");
    return 0;
}

/* ---- Additions ---- */

int block_options_add(struct option_list *list, const char *key, const char *value, struct error *err)
{
    struct option_pair *pairs = realloc(list->pairs, (list->count + 1) * sizeof(*pairs));
    struct option_pair pair = { .key = strdup(key), .value = strdup(value) };

    if (pairs)
        list->pairs = pairs;
    if (!pairs || !pair.key || !pair.value) {
        free(pair.key);
        free(pair.value);
        return error_set(err, ENOMEM, "out of memory");
    }
    pairs[list->count++] = pair;
    return 0;
}

static int flatten(struct option_list *list, const char *key, const json_t *value, struct error *err);

static int flatten_members(struct option_list *list, const char *prefix, const json_t *value, struct error *err)
{
    const char *member;
    json_t *inner;
    char key[128];
    int ret = 0;

    if (json_is_array(value)) {
        for (size_t i = 0; !ret && i < json_array_size(value); i++) {
            snprintf(key, sizeof(key), "%s%zu", prefix, i);
            ret = flatten(list, key, json_array_get(value, i), err);
        }
        return ret;
    }
    json_object_foreach((json_t *)value, member, inner)
    {
        if (snprintf(key, sizeof(key), "%s%s", prefix, member) >= (int)sizeof(key))
            return error_set(err, EINVAL, "JSON: the name '%.40s...' is too long", key);
        ret = flatten(list, key, inner, err);
        if (ret)
            break;
    }
    return ret;
}

/* Depth is bounded by the length of keys. */
static int flatten(struct option_list *list, const char *key, const json_t *value, struct error *err)
{
    char text[128];

    switch (json_typeof(value)) {
    case JSON_OBJECT:
    case JSON_ARRAY:
        if (snprintf(text, sizeof(text), "%s.", key) >= (int)sizeof(text))
            return error_set(err, EINVAL, "JSON: nested too deeply");
        return flatten_members(list, text, value, err);
    case JSON_STRING:
        return block_options_add(list, key, json_string_value(value), err);
    case JSON_INTEGER:
        snprintf(text, sizeof(text), "%" JSON_INTEGER_FORMAT, json_integer_value(value));
        return block_options_add(list, key, text, err);
    case JSON_TRUE:
        return block_options_add(list, key, "on", err);
    case JSON_FALSE:
        return block_options_add(list, key, "off", err);
    case JSON_NULL: /* "backing": null */
        return block_options_add(list, key, "", err);
    default:
        return error_set(err, EINVAL, "JSON: '%s' is a number with a fraction", key);
    }
}

int block_json_options(struct option_list *list, const char *json, const char *prefix, struct error *err)
{
    json_error_t json_err;
    json_t *root;
    int ret;

    if (strlen(json) > MAX_JSON)
        return error_set(err, EINVAL, "JSON: too long");
    root = json_loads(json, JSON_REJECT_DUPLICATES, &json_err);
    if (!root)
        return error_set(err, EINVAL, "JSON: %s", json_err.text);
    if (json_is_object(root))
        ret = flatten_members(list, prefix, root, err);
    else
        ret = error_set(err, EINVAL, "JSON: an object expected");
    json_decref(root);
    return ret;
}
