/* Small CPU-bound workloads with their own clock: prints "NAME SECONDS CHECKSUM" for each. Run in the guest and on the host
 * by ./dev bench; the checksum must be the same. Argument: a factor for the amount of work (default 1). */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static double now(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static uint64_t integer_loop(unsigned n)
{
    uint64_t x = 88172645463325252ull, sum = 0;

    for (unsigned i = 0; i < n * 1000000; i++) {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        sum += x & 1 ? x : sum >> 3;
    }
    return sum;
}

static int compare(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

    return x < y ? -1 : x > y;
}

static uint64_t sort(unsigned n)
{
    size_t count = n * 20000;
    uint32_t *items = malloc(count * sizeof(*items)), x = 1;
    uint64_t sum = 0;

    for (size_t i = 0; i < count; i++)
        items[i] = x = x * 1664525 + 1013904223;
    qsort(items, count, sizeof(*items), compare);
    for (size_t i = 0; i < count; i += 100)
        sum = sum * 31 + items[i];
    free(items);
    return sum;
}

static uint64_t doubles(unsigned n)
{
    double x = 0.3, y = 0.7, sum = 0;
    uint64_t bits;

    for (unsigned i = 0; i < n * 500000; i++) {
        x = 3.9 * x * (1 - x);
        y = y * 0.999 + x / (1 + y);
        sum += y;
    }
    memcpy(&bits, &sum, 8);
    return bits;
}

static uint64_t forks(unsigned n)
{
    uint64_t sum = 0;

    for (unsigned i = 0; i < n * 20; i++) {
        int status;
        pid_t pid = fork();

        if (pid == 0)
            _exit((int)(i & 63));
        waitpid(pid, &status, 0);
        sum += (uint64_t)WEXITSTATUS(status);
    }
    return sum;
}

static uint64_t system_calls(unsigned n)
{
    uint64_t sum = 0;

    for (unsigned i = 0; i < n * 20000; i++)
        sum += getppid() >= 0;
    return sum;
}

static uint64_t copies(unsigned n)
{
    static unsigned char from[1 << 16], to[1 << 16];

    for (unsigned i = 0; i < n * 200; i++) {
        memset(from, (int)i, sizeof(from));
        memcpy(to, from, sizeof(to));
    }
    return to[100];
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        uint64_t (*fn)(unsigned n);
    } loads[] = {
        { "integer", integer_loop }, { "sort", sort },   { "double", doubles }, { "fork", forks },
        { "syscall", system_calls }, { "copy", copies },
    };
    unsigned n = argc > 1 ? (unsigned)atoi(argv[1]) : 1;

    for (size_t i = 0; i < sizeof(loads) / sizeof(loads[0]); i++) {
        double start = now();
        uint64_t sum = loads[i].fn(n);

        printf("%s %.4f %016llx\n", loads[i].name, now() - start, (unsigned long long)sum);
    }
    return 0;
}
