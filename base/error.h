/* Errors that a person can read. Set-up code returns 0 or -errno and fills
 * one of these; the frontend prints it as one line and exits with status 1. */
#ifndef EIDOLON_BASE_ERROR_H
#define EIDOLON_BASE_ERROR_H

#include "base/types.h"

struct error {
    char text[512];
};

/* Formats the message and returns -errnum, so that callers can write
 * `return error_set(err, EINVAL, "...")`. err may be NULL (message dropped). */
int error_set(struct error *err, int errnum, const char *format, ...) printf_like(3, 4);

/* Puts "prefix: " before the message that is already there; returns `result`. */
int error_prefix(struct error *err, int result, const char *format, ...) printf_like(3, 4);

#endif
