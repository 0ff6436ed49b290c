/* Logging. The mask and the stream are the process's, not a machine's: they are written once by the
 * command line before any vCPU thread exists, and only read afterwards (the reason why this one file
 * holds mutable file-scope state). Lines go out with one stdio call each, so lines of different
 * threads do not mix. */
#include "base/log.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/options.h"

#define WARN_WINDOW_NS        1000000000ull
#define WARN_LINES_PER_WINDOW 5

uint32_t log_mask;
static FILE *log_stream; /* NULL: stderr */

static const struct {
    const char *name, *help;
} categories[LOG_CATEGORY_COUNT] = {
#define LOG_CATEGORY(name, help) [LOG_##name] = { #name, help },
#include "base/log_categories.def"
#undef LOG_CATEGORY
};

static int parse_one(const char *word, size_t length, uint32_t *mask, struct error *err)
{
    const char *names[LOG_CATEGORY_COUNT + 1] = { NULL };
    char name[64];
    const char *near;

    for (unsigned i = 0; i < LOG_CATEGORY_COUNT; i++) {
        names[i] = categories[i].name;
        if (strlen(names[i]) == length && !memcmp(names[i], word, length)) {
            *mask |= 1u << i;
            return 0;
        }
    }
    snprintf(name, sizeof(name), "%.*s", (int)MIN(length, sizeof(name) - 1), word);
    near = nearest_word(name, names);
    return error_set(err, EINVAL, "unknown log category '%s'%s%s%s", name, near ? " (nearest: '" : "", near ? near : "",
                     near ? "')" : "; -d help lists them");
}

int log_parse_mask(const char *list, uint32_t *mask, struct error *err)
{
    uint32_t result = 0;

    for (const char *word = list;;) {
        size_t length = strcspn(word, ",");
        int ret = parse_one(word, length, &result, err);

        if (ret)
            return ret;
        if (!word[length])
            break;
        word += length + 1;
    }
    *mask = result;
    return 0;
}

int log_set_file(const char *path, struct error *err)
{
    FILE *stream = fopen(path, "we");

    if (!stream)
        return error_set(err, errno, "%s: %s", path, strerror(errno));
    setvbuf(stream, NULL, _IOLBF, 0);
    if (log_stream)
        fclose(log_stream);
    log_stream = stream;
    return 0;
}

void log_print_categories(void)
{
    puts("Log categories (comma-separated list for -d):");
    for (unsigned i = 0; i < LOG_CATEGORY_COUNT; i++)
        printf("%-14s %s\n", categories[i].name, categories[i].help);
}

void log_print(enum log_category category, const char *format, ...)
{
    va_list args;

    (void)category;
    va_start(args, format);
    if (vfprintf(log_stream ? log_stream : stderr, format, args) < 0 && log_stream)
        log_warn("-D: log lines are lost: %s", strerror(errno));
    va_end(args);
}

void log_warn_site(struct log_site *site, const char *format, ...)
{
    /* Relaxed: a lost update costs one line more or less, nothing else. */
    uint64_t now = clock_host_ns();
    uint64_t start = __atomic_load_n(&site->window_start_ns, __ATOMIC_RELAXED);
    uint32_t dropped = 0;
    char text[512];
    va_list args;

    if (start == 0 || now - start >= WARN_WINDOW_NS) {
        __atomic_store_n(&site->window_start_ns, now, __ATOMIC_RELAXED);
        __atomic_store_n(&site->in_window, 0, __ATOMIC_RELAXED);
        dropped = __atomic_exchange_n(&site->dropped, 0, __ATOMIC_RELAXED);
    }
    if (__atomic_add_fetch(&site->in_window, 1, __ATOMIC_RELAXED) > WARN_LINES_PER_WINDOW) {
        __atomic_add_fetch(&site->dropped, 1, __ATOMIC_RELAXED);
        return;
    }
    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    if (dropped)
        fprintf(stderr, "eidolon: warning: %s (and %u like it)\n", text, dropped);
    else
        fprintf(stderr, "eidolon: warning: %s\n", text);
}
