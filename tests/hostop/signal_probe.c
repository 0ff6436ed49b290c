/* Apart, because <signal.h> and cpu/decode/insn.h have names in common. */
#include <setjmp.h>
#include <signal.h>
#include <stdbool.h>

bool signal_probe_install(void);
int signal_probe_divide_by_zero(void);

static sigjmp_buf escape;

static void on_sigfpe(int signal_number)
{
    siglongjmp(escape, signal_number);
}

bool signal_probe_install(void)
{
    struct sigaction action = { .sa_handler = on_sigfpe };
    return sigaction(SIGFPE, &action, NULL) == 0;
}

int signal_probe_divide_by_zero(void)
{
    int result = sigsetjmp(escape, 1);
    if (!result)
        __asm__ volatile("xorl %%ecx, %%ecx\n\tdivl %%ecx" : : "a"(1), "d"(0) : "ecx", "cc");
    return result == SIGFPE;
}
