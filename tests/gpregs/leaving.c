/* For a whole emulator (target eidolon_checked) that runs guests on the translator: dies where code beneath it calls
 * something that may use vector registers while the guest's are live. Any thread. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/gpregs/live.h"

void live_leaving(const char *name)
{
    static const char text[] = "eidolon_checked: called while the guest's vector registers are live: ";
    const struct cpu *cpu = vector_guard_of_thread.opaque;

    if (!cpu || !cpu->vectors_live)
        return;
    cpu_thread_leave(NULL); /* what follows comes here too */
    if (write(2, text, sizeof(text) - 1) < 0 || write(2, name, strlen(name)) < 0 || write(2, "\n", 1) < 0)
        _exit(3);
    abort();
}
