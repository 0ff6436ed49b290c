/* Runs one workload of a program's table (bench.h). The amount of work is the argument; the time is taken by the runner
 * (run.c), which started this process. The output does not depend on the number of units, so that engines that
 * run fewer of them can still be compared. One thread. */
#include "bench.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void bench_fail(const char *what)
{
    fprintf(stderr, "bench: %s: %s\n", what, strerror(errno));
    exit(1);
}

void *bench_alloc(size_t size)
{
    void *memory = aligned_alloc(4096, (size + 4095) & ~(size_t)4095);

    if (!memory)
        bench_fail("memory");
    memset(memory, 0, size);
    return memory;
}

uint64_t bench_hash(uint64_t hash, const void *data, size_t size)
{
    const unsigned char *bytes = data;

    for (size_t i = 0; i < size; i++)
        hash = (hash ^ bytes[i]) * 0x100000001b3ull;
    return hash;
}

static int run(const struct bench_workload *workload, unsigned long units)
{
    void *data = workload->setup ? workload->setup() : NULL;
    uint64_t first = 0;

    for (unsigned long i = 0; i < units; i++) {
        uint64_t checksum = workload->unit(data);

        if (i == 0)
            first = checksum;
        if (checksum != first) {
            fprintf(stderr, "bench: %s: unit %lu gave %016llx, the first one %016llx\n", workload->name, i,
                    (unsigned long long)checksum, (unsigned long long)first);
            return 3;
        }
    }
    printf("%s %016llx\n", workload->name, (unsigned long long)first);
    return 0;
}

int bench_main(int argc, char **argv, const struct bench_workload *table, size_t count)
{
    unsigned long units = argc == 3 ? strtoul(argv[2], NULL, 10) : 0;

    for (size_t i = 0; i < count && units; i++) {
        if (!strcmp(table[i].name, argv[1]))
            return run(&table[i], units);
    }
    fprintf(stderr, "usage: %s NAME UNITS, where NAME is one of:", argv[0]);
    for (size_t i = 0; i < count; i++)
        fprintf(stderr, " %s", table[i].name);
    fputc('\n', stderr);
    return 2;
}
