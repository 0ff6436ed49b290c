/* Recovery from faults in host-op stubs: SIGFPE is how the host reports the guest's own unmasked SIMD
 * exceptions (MXCSR in a stub is the guest's). SIGSEGV, SIGBUS and SIGILL there mean that a table row is wrong; the guest
 * gets a fault and we a line in the log, not a crash.
 *
 * The handler needs no per-thread record: an instruction pointer inside the region of stubs names the stub, whose
 * last byte says where its exit path starts. Handlers are per process, so what they need is file-scope state,
 * written once before the first stub exists. */
#include "cpu/interp/interp_hostop_signal.h"

#include <signal.h>
#include <ucontext.h>

static const int caught_signals[] = { SIGFPE, SIGSEGV, SIGBUS, SIGILL };

static struct {
    uintptr_t begin, size; /* of the executable view of the stubs */
    struct sigaction previous[ARRAY_SIZE(caught_signals)];
} region;

/* A fault elsewhere goes to whoever wanted it before; without anyone, the default action takes place when the
 * instruction runs again. */
static void chain(int signal_number, siginfo_t *info, void *context)
{
    for (unsigned i = 0; i < ARRAY_SIZE(caught_signals); i++) {
        if (caught_signals[i] != signal_number)
            continue;
        const struct sigaction *previous = &region.previous[i];
        if (previous->sa_flags & SA_SIGINFO) {
            previous->sa_sigaction(signal_number, info, context);
        } else if (previous->sa_handler == SIG_DFL || previous->sa_handler == SIG_IGN) {
            struct sigaction fallback = { .sa_handler = SIG_DFL };
            sigaction(signal_number, &fallback, NULL);
        } else {
            previous->sa_handler(signal_number);
        }
    }
}

static void on_signal(int signal_number, siginfo_t *info, void *context)
{
    ucontext_t *user = context;
    uintptr_t offset = (uintptr_t)user->uc_mcontext.gregs[REG_RIP] - region.begin;
    if (offset >= region.size || info->si_code <= 0) { /* si_code <= 0: sent by kill(), not raised here */
        chain(signal_number, info, context);
        return;
    }
    uintptr_t stub = region.begin + ALIGN_DOWN(offset, HOSTOP_STUB_SIZE);
    uint8_t exit_offset = *(const uint8_t *)(stub + HOSTOP_STUB_SIZE - 1);
    user->uc_mcontext.gregs[REG_RIP] = (greg_t)(stub + exit_offset);
    user->uc_mcontext.gregs[REG_RAX] = signal_number == SIGFPE   ? HOSTOP_FP_EXCEPTION
                                       : signal_number == SIGILL ? HOSTOP_ILLEGAL
                                                                 : HOSTOP_BAD_ACCESS;
}

void hostop_install_signals(const uint8_t *begin, size_t size)
{
    region.begin = (uintptr_t)begin;
    region.size = size;
    for (unsigned i = 0; i < ARRAY_SIZE(caught_signals); i++) {
        struct sigaction action = { .sa_sigaction = on_signal, .sa_flags = SA_SIGINFO | SA_ONSTACK };
        sigemptyset(&action.sa_mask);
        sigaction(caught_signals[i], &action, &region.previous[i]);
    }
}
