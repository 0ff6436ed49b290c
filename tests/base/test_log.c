/* Log categories, the log file, rate-limited warnings, error texts. */
#include <criterion/criterion.h>
#include <criterion/redirect.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/error.h"
#include "base/log.h"

Test(log, masks)
{
    struct error err;
    uint32_t mask = 77;

    cr_assert_eq(log_parse_mask("int,guest_errors", &mask, &err), 0);
    cr_assert_eq(mask, 1u << LOG_int | 1u << LOG_guest_errors);
    mask = 77;
    cr_assert_eq(log_parse_mask("guest_error", &mask, &err), -EINVAL);
    cr_assert(strstr(err.text, "'guest_errors'"), "%s", err.text);
    cr_assert_lt(log_parse_mask("", &mask, &err), 0);
    cr_assert_lt(log_parse_mask("int,", &mask, &err), 0);
    cr_assert_eq(mask, 77);
}

Test(log, file)
{
    char path[] = "/tmp/eidolon-log-XXXXXX", line[100] = "";
    struct error err;
    FILE *file;

    close(mkstemp(path));
    cr_assert_eq(log_set_file(path, &err), 0);
    log_mask = 1u << LOG_unimp;
    log_event(unimp, "seen %d\n", 1);
    log_event(mmu, "unseen\n");
    file = fopen(path, "r");
    cr_assert_not_null(fgets(line, sizeof(line), file));
    cr_assert_str_eq(line, "seen 1\n");
    cr_assert_null(fgets(line, sizeof(line), file));
    fclose(file);
    unlink(path);
    cr_assert_lt(log_set_file("/nonexistent/x", &err), 0);
    cr_assert(strstr(err.text, "/nonexistent/x"), "%s", err.text);
}

Test(log, warnings_are_limited, .init = cr_redirect_stderr)
{
    char text[4096] = "";
    unsigned lines = 0;
    FILE *redirected;

    for (int i = 0; i < 1000; i++)
        log_warn("number %d", i);
    fflush(stderr);
    redirected = cr_get_redirected_stderr();
    text[fread(text, 1, sizeof(text) - 1, redirected)] = '\0';
    for (const char *p = text; (p = strstr(p, "eidolon: warning: number")); p++)
        lines++;
    cr_assert_gt(lines, 0);
    cr_assert_leq(lines, 10);
}

Test(error, texts)
{
    struct error err;
    char big[2000];

    memset(big, 'x', sizeof(big) - 1);
    big[sizeof(big) - 1] = '\0';
    cr_assert_eq(error_set(&err, ENOENT, "%s: %d", "file", 3), -ENOENT);
    cr_assert_eq(error_prefix(&err, -ENOENT, "-kernel"), -ENOENT);
    cr_assert_str_eq(err.text, "-kernel: file: 3");
    cr_assert_eq(error_set(NULL, EINVAL, "dropped"), -EINVAL);
    cr_assert_eq(error_prefix(NULL, -5, "dropped"), -5);
    error_set(&err, EINVAL, "%s", big);
    error_prefix(&err, 0, "%s", big);
    cr_assert_eq(strlen(err.text), sizeof(err.text) - 1);
}
