/* Options and output that several commands share. */
#include "img/img.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

int img_parse_output(const char *text, bool *json, struct error *err)
{
    *json = !strcmp(text, "json");
    if (!*json && strcmp(text, "human"))
        return error_set(err, EINVAL, "--output=%s: 'human' or 'json' is needed", text);
    return 0;
}

int img_parse_size(const char *text, uint64_t *size, struct error *err)
{
    static const char big[] = "PE";
    size_t length = strlen(text);
    const char *unit = length > 1 ? strchr(big, text[length - 1] & ~0x20) : NULL;
    char digits[40];
    uint64_t scale = unit && *unit == 'P' ? 1ull << 50 : 1ull << 60;
    int result;

    if (!unit || !*unit || length >= sizeof(digits))
        return parse_size(text, 1, size, err);
    memcpy(digits, text, length - 1);
    digits[length - 1] = '\0';
    result = parse_size(digits, 1, size, err);
    if (!result && __builtin_mul_overflow(*size, scale, size))
        result = error_set(err, ERANGE, "'%s' is too large", text);
    return result;
}

int img_parse_preallocation(const char *text, enum qcow2_preallocation *mode, struct error *err)
{
    static const char *const names[] = { "off", "metadata", "falloc", "full" };

    for (unsigned i = 0; i < ARRAY_SIZE(names); i++) {
        if (!strcmp(text, names[i])) {
            *mode = (enum qcow2_preallocation)i;
            return 0;
        }
    }
    return error_set(err, EINVAL, "preallocation=%s: off, metadata, falloc or full is needed", text);
}

void img_progress(bool enabled, uint64_t done, uint64_t total)
{
    if (!enabled)
        return;
    printf("    (%3.2f/100%%)\r", total ? 100.0 * (double)done / (double)total : 100.0);
    fflush(stdout);
}

void img_progress_end(bool enabled)
{
    img_progress(enabled, 1, 1);
    if (enabled)
        putchar('\n');
}

/* Three digits, as QEMU has it. */
const char *img_size_text(uint64_t size, char *buffer, size_t room)
{
    static const char *const units[] = { "", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei" };
    int exponent;
    unsigned unit;

    frexp((double)size / (1000.0 / 1024.0), &exponent);
    unit = exponent > 0 ? (unsigned)(exponent - 1) / 10 : 0;
    unit = MIN(unit, ARRAY_SIZE(units) - 1);
    snprintf(buffer, room, "%0.3g %sB", (double)size / (double)(1ull << unit * 10), units[unit]);
    return buffer;
}
