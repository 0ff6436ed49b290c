/* The controlling terminal. There is one for a process, and signal handlers and atexit need it without
 * an argument: hence the file-scope state, which is set by terminal_init before any thread or handler exists and
 * by raw mode changes on the loop's thread. terminal_restore only calls what is async-signal-safe
 * (tcsetattr, fcntl; signal-safety(7)) and may run more than once.
 *
 * Also restored: the O_NONBLOCK flags of the standard descriptors, because the event loop sets them on an
 * open file description that the shell shares. */
#include "frontend/terminal.h"

#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <termios.h>
#include <unistd.h>

static struct {
    struct termios saved, raw;
    int flags[3]; /* of descriptors 0 to 2; -1: closed */
    bool is_terminal;
    bool want_raw;          /* loop thread */
    atomic_bool raw_active; /* also read by handlers */
} state;

static void restore_flags(void)
{
    for (int fd = 0; fd < 3; fd++) {
        if (state.flags[fd] >= 0)
            fcntl(fd, F_SETFL, state.flags[fd]);
    }
}

void terminal_restore(void)
{
    if (atomic_exchange(&state.raw_active, false)) {
        /* From the background, tcsetattr would stop us with SIGTTOU: then the terminal is not ours to touch
         * unless we ignore that, which is what every shell job that must clean up does. */
        struct sigaction ignore = { .sa_handler = SIG_IGN }, old;

        sigaction(SIGTTOU, &ignore, &old);
        tcsetattr(STDIN_FILENO, TCSANOW, &state.saved);
        sigaction(SIGTTOU, &old, NULL);
    }
    restore_flags();
}

void terminal_init(void)
{
    for (int fd = 0; fd < 3; fd++)
        state.flags[fd] = fcntl(fd, F_GETFL);
    state.is_terminal = isatty(STDIN_FILENO) && !tcgetattr(STDIN_FILENO, &state.saved);
    atexit(terminal_restore);
}

static void apply_raw(void)
{
    if (!state.is_terminal || !state.want_raw)
        return;
    atomic_store(&state.raw_active, true);
    tcsetattr(STDIN_FILENO, TCSANOW, &state.raw);
}

void terminal_enter_raw(bool signals)
{
    state.raw = state.saved;
    state.raw.c_iflag &= ~(tcflag_t)(IGNBRK | BRKINT | PARMRK | ISTRIP | INLCR | IGNCR | ICRNL | IXON);
    state.raw.c_oflag |= OPOST; /* our own messages still get carriage returns */
    state.raw.c_lflag &= ~(tcflag_t)(ECHO | ECHONL | ICANON | IEXTEN);
    state.raw.c_cflag = (state.raw.c_cflag & ~(tcflag_t)(CSIZE | PARENB)) | CS8;
    if (!signals)
        state.raw.c_lflag &= ~(tcflag_t)ISIG;
    state.raw.c_cc[VMIN] = 1;
    state.raw.c_cc[VTIME] = 0;
    state.want_raw = true;
    apply_raw();
}

void terminal_leave_raw(void)
{
    state.want_raw = false;
    terminal_restore();
}

static bool in_foreground(void)
{
    return tcgetpgrp(STDIN_FILENO) == getpgrp();
}

static void job_control(void *opaque, int signum)
{
    (void)opaque;
    if (signum == SIGTSTP) {
        int ours[3];

        for (int fd = 0; fd < 3; fd++)
            ours[fd] = fcntl(fd, F_GETFL);
        terminal_restore();
        raise(SIGSTOP); /* returns when continued; SIGCONT is then pending for us as well */
        for (int fd = 0; fd < 3; fd++) {
            if (ours[fd] >= 0)
                fcntl(fd, F_SETFL, ours[fd]);
        }
    }
    if (in_foreground())
        apply_raw();
}

int terminal_watch_job_control(struct event_loop *loop, struct error *err)
{
    int ret = 0;

    if (!state.is_terminal)
        return 0;
    ret = event_loop_on_signal(loop, SIGCONT, job_control, NULL, err);
    return ret ? ret : event_loop_on_signal(loop, SIGTSTP, job_control, NULL, err);
}
