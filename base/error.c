/* Errors that a person can read: formatting only. Thread-safe: the caller owns the struct.
 * A message that does not fit is cut, never an overflow. */
#include "base/error.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

int error_set(struct error *err, int errnum, const char *format, ...)
{
    if (err) {
        va_list args;

        va_start(args, format);
        vsnprintf(err->text, sizeof(err->text), format, args);
        va_end(args);
    }
    return errnum > 0 ? -errnum : errnum;
}

int error_prefix(struct error *err, int result, const char *format, ...)
{
    if (err) {
        char text[sizeof(err->text)];
        va_list args;
        int length;

        va_start(args, format);
        length = vsnprintf(text, sizeof(text), format, args);
        va_end(args);
        if (length >= 0 && (size_t)length < sizeof(text)) {
            size_t room = sizeof(text) - (size_t)length;

            snprintf(text + length, room, ": %.*s", (int)MIN(room, sizeof(text)), err->text);
        }
        memcpy(err->text, text, sizeof(text));
    }
    return result;
}
