/* Logging: categories that -d LIST turns on (to -D FILE or stderr), and
 * warnings, which always go to stderr and are rate-limited per call site.
 * Any thread may call. */
#ifndef EIDOLON_BASE_LOG_H
#define EIDOLON_BASE_LOG_H

#include "base/error.h"
#include "base/types.h"
#include "base/vector_guard.h"

enum log_category {
#define LOG_CATEGORY(name, help) LOG_##name,
#include "base/log_categories.def"
#undef LOG_CATEGORY
    LOG_CATEGORY_COUNT
};

extern uint32_t log_mask; /* bit per category; written once, before vCPUs run */

static inline bool log_enabled(enum log_category category)
{
    return unlikely(log_mask & (1u << category));
}

/* Parses a -d LIST ("int,guest_errors", "help" is the caller's business). */
int log_parse_mask(const char *list, uint32_t *mask, struct error *err);
int log_set_file(const char *path, struct error *err);
void log_print_categories(void); /* to stdout, for -d help */

/* Prints, whether the category is enabled or not. A macro, like log_warn, so that the guest's vector registers are put
 * away before stdio can meet them (vector_guard.h). */
#define log_vprint(category, ...) (vector_guard(), log_print(category, __VA_ARGS__))
void log_print(enum log_category category, const char *format, ...) printf_like(2, 3);
#define log_event(category, ...)                                                                                       \
    do {                                                                                                               \
        if (log_enabled(LOG_##category))                                                                               \
            log_vprint(LOG_##category, __VA_ARGS__);                                                                   \
    } while (0)

/* At most a few lines a second for each call site; then a count of the lines
 * that were dropped. Prefix "eidolon: warning: ". */
struct log_site {
    uint64_t window_start_ns;
    uint32_t in_window;
    uint32_t dropped;
};
void log_warn_site(struct log_site *site, const char *format, ...) printf_like(2, 3);
#define log_warn(...)                                                                                                  \
    do {                                                                                                               \
        static struct log_site site_;                                                                                  \
        vector_guard();                                                                                                \
        log_warn_site(&site_, __VA_ARGS__);                                                                            \
    } while (0)

#endif
