/* The controlling terminal: raw mode while a guest owns it, and its restoration on every way out:
 * exit, signals, crashes, stop and continue. */
#ifndef EIDOLON_FRONTEND_TERMINAL_H
#define EIDOLON_FRONTEND_TERMINAL_H

#include "base/error.h"
#include "base/event_loop.h"

/* Remembers the terminal's state and sees to its restoration at exit. Call once, first of all. */
void terminal_init(void);
/* For struct chardev_terminal. signals: Ctrl-C and Ctrl-Z stay signals. */
void terminal_enter_raw(bool signals);
void terminal_leave_raw(void);
/* Async-signal-safe: also from crash handlers. */
void terminal_restore(void);

/* SIGTSTP: give the terminal back, stop; SIGCONT: take it again. On the loop. */
int terminal_watch_job_control(struct event_loop *loop, struct error *err);

#endif
