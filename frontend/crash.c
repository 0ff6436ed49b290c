/* Signal handlers of the process. Everything here that runs in a handler is async-signal-safe. The file-scope state
 * is what handlers need without an argument: written before they are installed. */
#include "frontend/crash.h"

#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "frontend/terminal.h"

#define STACK_SIZE (64 * KIB)

static const int deadly[] = { SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT };
/* All whose default action ends the process; the terminal is restored before. */
static const int requests[] = { SIGINT,  SIGTERM, SIGHUP, SIGQUIT,   SIGXCPU, SIGXFSZ, SIGSYS,    SIGTRAP,
                                SIGALRM, SIGPROF, SIGIO,  SIGVTALRM, SIGUSR1, SIGUSR2, SIGSTKFLT, SIGPWR };

static struct sigaction earlier[ARRAY_SIZE(deadly)];
static struct event_loop *termination_loop;
static atomic_int terminated_by;

static void write_text(const char *text)
{
    ssize_t ignored = write(STDERR_FILENO, text, strlen(text));

    (void)ignored;
}

static char *append_hex(char *out, uint64_t value)
{
    for (int shift = 60; shift >= 0; shift -= 4)
        *out++ = "0123456789abcdef"[value >> shift & 15];
    *out = '\0';
    return out;
}

static const char *deadly_name(int signum)
{
    switch (signum) {
    case SIGSEGV:
        return "SIGSEGV (invalid memory access)";
    case SIGBUS:
        return "SIGBUS (memory that the host could not provide)";
    case SIGILL:
        return "SIGILL (invalid instruction)";
    case SIGFPE:
        return "SIGFPE (arithmetic exception)";
    default:
        return "SIGABRT";
    }
}

/* A sanitizer was there first and has more to say. */
static void run_earlier_handler(int signum, siginfo_t *info, void *context)
{
    for (size_t i = 0; i < ARRAY_SIZE(deadly); i++) {
        if (deadly[i] == signum && earlier[i].sa_flags & SA_SIGINFO)
            earlier[i].sa_sigaction(signum, info, context);
    }
}

static void crashed(int signum, siginfo_t *info, void *context)
{
    char address[20];

    terminal_restore();
    run_earlier_handler(signum, info, context);
    write_text("\neidolon: internal error: ");
    write_text(deadly_name(signum));
    if (signum != SIGABRT) {
        append_hex(address, (uint64_t)(uintptr_t)info->si_addr);
        write_text(" at 0x");
        write_text(address);
    }
    write_text("\neidolon: this is a bug of Eidolon, whatever the guest did; please report it\n");
    termination_die(signum);
}

void crash_install_handlers(void)
{
    struct sigaction action = { .sa_sigaction = crashed, .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESETHAND };

    signal(SIGXFSZ, SIG_IGN); /* a file that may not grow is an error of a disk image, not of ours */
    sigfillset(&action.sa_mask);
    for (size_t i = 0; i < ARRAY_SIZE(deadly); i++)
        sigaction(deadly[i], &action, &earlier[i]);
}

void *crash_thread_enter(void)
{
    stack_t stack = { .ss_size = STACK_SIZE, .ss_sp = malloc(STACK_SIZE) };

    if (stack.ss_sp)
        sigaltstack(&stack, NULL);
    return stack.ss_sp;
}

void crash_thread_leave(void *stack)
{
    stack_t none = { .ss_flags = SS_DISABLE };

    if (stack)
        sigaltstack(&none, NULL);
    free(stack);
}

int thread_create_sheltered(pthread_t *thread, void *(*fn)(void *opaque), void *opaque)
{
    static const int own[] = { SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP, SIGABRT };
    sigset_t blocked, old;
    int ret;

    sigfillset(&blocked);
    for (size_t i = 0; i < ARRAY_SIZE(own); i++)
        sigdelset(&blocked, own[i]);
    pthread_sigmask(SIG_SETMASK, &blocked, &old);
    ret = pthread_create(thread, NULL, fn, opaque);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    return ret;
}

static void terminate(int signum)
{
    int expected = 0;

    if (atomic_compare_exchange_strong(&terminated_by, &expected, signum)) {
        event_loop_stop(termination_loop); /* an atomic store and an eventfd write */
        return;
    }
    terminal_restore();
    termination_die(signum);
}

void termination_install(struct event_loop *loop)
{
    struct sigaction action = { .sa_handler = terminate, .sa_flags = SA_RESTART };

    termination_loop = loop;
    for (size_t i = 0; i < ARRAY_SIZE(requests); i++) {
        struct sigaction old;

        /* nohup and background jobs of scripts start us with signals ignored: they stay so. */
        sigaction(requests[i], NULL, &old);
        if (old.sa_handler != SIG_IGN)
            sigaction(requests[i], &action, NULL);
    }
}

int termination_signal(void)
{
    return atomic_load(&terminated_by);
}

void termination_remove(void)
{
    for (size_t i = 0; i < ARRAY_SIZE(requests); i++) {
        struct sigaction old;

        sigaction(requests[i], NULL, &old);
        if (old.sa_handler == terminate)
            signal(requests[i], SIG_DFL);
    }
}

int continuation_watch(struct event_loop *loop, void (*fn)(void *opaque, int signum), void *opaque, struct error *err)
{
    return event_loop_on_signal(loop, SIGCONT, fn, opaque, err);
}

void termination_die(int signum)
{
    sigset_t set;

    signal(signum, SIG_DFL);
    sigemptyset(&set);
    sigaddset(&set, signum);
    raise(signum);
    sigprocmask(SIG_UNBLOCK, &set, NULL);
    _exit(128 + signum); /* not reached */
}
