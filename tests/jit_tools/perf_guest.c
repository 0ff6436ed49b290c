/* What perf_test.py profiles: makes a loop of machine code, tells perf about it as the translator does, and runs it
 * for a while. A second piece of code then takes the first one's place, as in a code cache that is recycled.
 *
 *   perf_guest jitdump FOLDER | perfmap        prints its PID */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "jit/jit_jitdump.h"
#include "jit/jit_perf.h"

#define ROUNDS 400000000u

/* mov ecx, ROUNDS; 1: dec ecx; jnz 1b; ret. The other has a nop in its loop. */
static const uint8_t first[] = { 0xb9, 0, 0, 0, 0, 0xff, 0xc9, 0x75, 0xfc, 0xc3 };
static const uint8_t second[] = { 0xb9, 0, 0, 0, 0, 0x90, 0xff, 0xc9, 0x75, 0xfb, 0xc3 };

static void run(uint8_t *code, const uint8_t *bytes, size_t size, struct jit_jitdump *dump, struct jit_perf *perf,
                const char *name)
{
    const uint32_t rounds = ROUNDS;

    mprotect(code, PAGE_SIZE, PROT_READ | PROT_WRITE);
    memcpy(code, bytes, size);
    memcpy(code + 1, &rounds, sizeof(rounds));
    mprotect(code, PAGE_SIZE, PROT_READ | PROT_EXEC);
    if (dump)
        jit_jitdump_add(dump, code, size, name);
    if (perf)
        jit_perf_add(perf, code, size, name);
    ((void (*)(void))code)();
}

int main(int argc, char **argv)
{
    uint8_t *code = mmap(NULL, PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    struct jit_jitdump *dump = NULL;
    struct jit_perf *perf = NULL;
    struct error err = { "usage: perf_guest jitdump FOLDER | perfmap" };

    if (argc == 3 && !strcmp(argv[1], "jitdump"))
        dump = jit_jitdump_open(argv[2], &err);
    else if (argc == 2 && !strcmp(argv[1], "perfmap"))
        perf = jit_perf_open(NULL, &err);
    if ((!dump && !perf) || code == MAP_FAILED) {
        fprintf(stderr, "perf_guest: %s\n", err.text);
        return 1;
    }
    printf("%d\n", (int)getpid());
    run(code, first, sizeof(first), dump, perf, "guest:first_loop+0x10");
    if (dump)
        run(code, second, sizeof(second), dump, perf, "guest:second_loop+0x20");
    jit_jitdump_close(dump);
    jit_perf_close(perf);
    return 0;
}
