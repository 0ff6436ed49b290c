/* Signals that end the program: deadly ones (a crash of our own) and requests from outside. */
#ifndef EIDOLON_FRONTEND_CRASH_H
#define EIDOLON_FRONTEND_CRASH_H

#include <pthread.h>

#include "base/event_loop.h"

/* SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT: restore the terminal, say so, die of the signal. Before the CPUs exist:
 * engines install their own handlers on top and pass on what is not theirs. */
void crash_install_handlers(void);
/* An alternate signal stack for the calling thread, so that a stack overflow is reported too. NULL if there is no memory. */
void *crash_thread_enter(void);
void crash_thread_leave(void *stack);

/* pthread_create for a thread that gets no signals but those that its own instructions cause. 0 or an errno value. */
int thread_create_sheltered(pthread_t *thread, void *(*fn)(void *opaque), void *opaque);

/* SIGINT, SIGTERM, SIGHUP, SIGQUIT: the first stops the loop, the next kills without further ado. */
void termination_install(struct event_loop *loop);
int termination_signal(void);     /* the signal that came, or 0 */
void termination_remove(void);    /* default actions again; the loop may go */
/* SIGCONT, on the loop. */
int continuation_watch(struct event_loop *loop, void (*fn)(void *opaque, int signum), void *opaque, struct error *err);
void termination_die(int signum); /* dies of the signal, so that the parent sees what happened */

#endif
