/* Option strings in QEMU's syntax: "value,key=value,flag,nofoo,path=a,,b".
 * A parsed string remembers which keys were consumed, so that a left-over key is an
 * error that names it. Sizes take suffixes (K M G T, b); booleans on/off/yes/no. */
#ifndef EIDOLON_BASE_OPTIONS_H
#define EIDOLON_BASE_OPTIONS_H

#include "base/error.h"
#include "base/types.h"

struct option_pair {
    char *key, *value;
    bool used;
};
struct option_list {
    struct option_pair *pairs;
    size_t count;
};

/* `implied_key` names the first item if it has no '='  (may be NULL). A bare "foo"
 * later is foo=on; "nofoo" stays a key of that name. */
int options_parse(struct option_list *list, const char *text, const char *implied_key, struct error *err);
void options_free(struct option_list *list);
/* NULL if absent; marks as used. The last one wins. */
const char *options_get(struct option_list *list, const char *key);
int options_get_bool(struct option_list *list, const char *key, bool fallback, bool *out, struct error *err);
int options_get_u64(struct option_list *list, const char *key, uint64_t fallback, uint64_t *out, struct error *err);
int options_get_size(struct option_list *list, const char *key, uint64_t default_unit, uint64_t fallback, uint64_t *out,
                     struct error *err);
/* Error naming the first unused key, prefixed with `option` ("isa-debug-exit"), if that is not "". */
int options_check_all_used(const struct option_list *list, const char *option, struct error *err);

/* "512M", "8G", "0x1000"; `default_unit` multiplies a number without suffix. */
int parse_size(const char *text, uint64_t default_unit, uint64_t *out, struct error *err);
int parse_u64(const char *text, uint64_t *out, struct error *err);

/* The candidate nearest to `word` (edit distance), or NULL if none is near: for
 * "did you mean". `candidates` ends with NULL. */
const char *nearest_word(const char *word, const char *const *candidates);

#endif
