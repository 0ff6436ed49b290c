/* Host signals that translated code raises: the guest's own arithmetic and alignment faults (SIGFPE, SIGSEGV, SIGILL), and
 * the return stack's guard page. The handler changes where the thread goes on: thunk_fault, or the same instruction with an empty
 * return stack. Everything else goes to whoever was there before, after a line that says where the guest was (design, section 5, "Faults").
 *
 * Handlers are per process: file-scope state, written once. The translator whose code a thread runs is the thread's. */
#include "jit/jit_signal.h"

#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>
#include <unistd.h>

_Static_assert(JIT_SIGILL == SIGILL, "Linux");

static const int caught[] = { SIGFPE, SIGSEGV, SIGBUS, SIGILL };
static struct sigaction previous[sizeof(caught) / sizeof(caught[0])];
static pthread_once_t once = PTHREAD_ONCE_INIT;
static _Thread_local const struct jit_signal_region *region;
static _Thread_local bool has_stack;

static void chain(int number, siginfo_t *info, void *context)
{
    for (unsigned i = 0; i < sizeof(caught) / sizeof(caught[0]); i++) {
        if (caught[i] != number)
            continue;
        if (previous[i].sa_flags & SA_SIGINFO) {
            previous[i].sa_sigaction(number, info, context);
        } else if (previous[i].sa_handler == SIG_DFL || previous[i].sa_handler == SIG_IGN) {
            struct sigaction fallback = { .sa_handler = SIG_DFL };
            sigaction(number, &fallback, NULL);
        } else {
            previous[i].sa_handler(number);
        }
    }
}

/* The guard page was hit. Frames are of 16 bytes and the page begins at a multiple, so it was the push of a call's expected address,
 * or something that is pushed for a moment only: the same instruction with an empty stack is as good. What was on the
 * stack is looked up when the guest returns to it. */
static void restart_return_stack(const struct jit_signal_region *r, ucontext_t *user)
{
    user->uc_mcontext.gregs[REG_RSP] = (greg_t)r->return_base;
    jit_signal_return_stack_lost(r->jit);
}

static void on_signal(int number, siginfo_t *info, void *context)
{
    ucontext_t *user = context;
    const struct jit_signal_region *r = region;
    uintptr_t pc = (uintptr_t)user->uc_mcontext.gregs[REG_RIP], address = (uintptr_t)info->si_addr;

    if (!r || pc - r->code >= r->code_size || info->si_code <= 0) {
        chain(number, info, context);
        return;
    }
    if (number == SIGSEGV && address - r->guard < r->guard_size) {
        restart_return_stack(r, user);
    } else if (jit_signal_note_fault(r->jit, number, pc, user->uc_mcontext.gregs)) {
        user->uc_mcontext.gregs[REG_RIP] = (greg_t)r->thunk_fault;
    } else {
        jit_signal_report(r->jit, pc, user->uc_mcontext.gregs);
        chain(number, info, context);
    }
}

static void install(void)
{
    for (unsigned i = 0; i < sizeof(caught) / sizeof(caught[0]); i++) {
        struct sigaction action = { .sa_sigaction = on_signal, .sa_flags = SA_SIGINFO | SA_ONSTACK };
        sigemptyset(&action.sa_mask);
        sigaction(caught[i], &action, &previous[i]);
    }
}

void jit_signal_install(void)
{
    pthread_once(&once, install);
}

/* Signals that come while the thread runs on the return stack need one of their own. */
static void need_stack(void)
{
    stack_t old;

    if (has_stack || (sigaltstack(NULL, &old) == 0 && !(old.ss_flags & SS_DISABLE))) {
        has_stack = true;
        return;
    }
    stack_t stack = { .ss_size = 64 * 1024, .ss_sp = malloc(64 * 1024) };
    has_stack = stack.ss_sp && sigaltstack(&stack, NULL) == 0;
}

void jit_signal_set_region(const struct jit_signal_region *r)
{
    need_stack();
    region = r;
}
