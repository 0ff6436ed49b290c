/* The program: command line, machine, exit status. User mistakes are one line on stderr and status 1. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "base/log.h"
#include "frontend/command_line.h"
#include "frontend/crash.h"
#include "frontend/terminal.h"
#include "frontend/vm.h"

static int fail(const struct error *err)
{
    terminal_restore();
    fprintf(stderr, "eidolon: %s\n", err->text);
    return 1;
}

static int fail_output(struct error *err)
{
    error_set(err, errno, "standard output: %s", strerror(errno));
    return fail(err);
}

static int run(struct settings *settings, struct error *err)
{
    struct vm *vm;
    int status, signum;

    if (settings->log_file && log_set_file(settings->log_file, err)) {
        error_prefix(err, -1, "-D");
        return fail(err);
    }
    log_mask = settings->log_mask;
    if (settings->machine_none) { /* what clients probe with; there is nothing to run */
        struct error none;

        error_set(&none, 0, "-machine none: an empty machine cannot be run yet");
        return fail(&none);
    }
    vm = vm_create(settings, err);
    if (!vm)
        return fail(err);
    for (size_t i = 0; i < settings->notes.count; i++)
        fprintf(stderr, "eidolon: note: %s\n", settings->notes.items[i]);
    status = vm_run(vm);
    signum = termination_signal();
    vm_destroy(vm);
    if (signum) {
        terminal_restore();
        fprintf(stderr, "eidolon: terminated by signal %d\n", signum);
        termination_die(signum);
    }
    return status;
}

/* A standard descriptor that is closed would be taken by the first file that is opened, and used as a terminal. */
static void reserve_standard_descriptors(void)
{
    int fd;

    do {
        fd = open("/dev/null", O_RDWR);
    } while (fd >= 0 && fd <= STDERR_FILENO);
    if (fd > STDERR_FILENO)
        close(fd);
}

int main(int argc, char **argv)
{
    struct settings settings;
    struct error err = { "" };
    int status;

    reserve_standard_descriptors();
    terminal_init();
    crash_install_handlers();
    switch (command_line_parse(&settings, argc, argv, &err)) {
    case COMMAND_LINE_RUN:
        if (settings.process_name)
            prctl(PR_SET_NAME, settings.process_name);
        status = run(&settings, &err);
        break;
    case COMMAND_LINE_DONE:
        status = fflush(stdout) ? fail_output(&err) : 0;
        break;
    default:
        status = fail(&err);
        break;
    }
    settings_free(&settings);
    return status;
}
