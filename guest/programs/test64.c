/* A static 64-bit program for the guest: prints results of integer, floating-point, vector, signal, fork and thread-like
 * work, the same on any correct x86-64 CPU. Compared with the host's output of the same binary. */
#include <math.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

static uint64_t next(uint64_t *x)
{
    *x ^= *x << 13;
    *x ^= *x >> 7;
    *x ^= *x << 17;
    return *x;
}

static void integers(void)
{
    uint64_t x = 1, sum = 0;
    unsigned __int128 wide = 1;

    for (int i = 0; i < 200000; i++) {
        uint64_t a = next(&x), b = next(&x) | 1;

        wide = wide * a + b;
        sum += a / b + a % (b & 0xffff) + (uint64_t)((int64_t)a / (int64_t)b);
        sum ^= (uint64_t)__builtin_popcountll(a) << (b & 63) ^ __builtin_bswap64(a) ^ (uint64_t)__builtin_clzll(b);
    }
    printf("integers %016llx %016llx\n", (unsigned long long)sum, (unsigned long long)(wide >> 64));
}

static void floats(void)
{
    double sum = 0;
    float single = 0;
    long double extended = 1;

    for (int i = 1; i < 20000; i++) {
        sum += sin(i) * exp(-i / 1000.0) + sqrt(i) / log(i + 1);
        single += 1.0f / (float)i;
        extended = extended * 1.0000001L + 1.0L / i;
    }
    printf("floats %a %a %La\n", sum, (double)single, extended);
}

typedef int32_t int32x4 __attribute__((vector_size(16)));
typedef double doublex2 __attribute__((vector_size(16)));

static void vectors(void)
{
    int32x4 a = { 1, 2, 3, 4 }, b = { 5, 6, 7, 8 };
    doublex2 d = { 1.5, 2.5 };

    for (int i = 0; i < 100000; i++) {
        a = a * 1664525 + b;
        b = (b << 3) ^ (b >> 5) ^ a;
        d = d * 1.000001 + (doublex2){ 0.5, 0.25 };
    }
    printf("vectors %08x %08x %08x %08x %a %a\n", a[0], a[1], b[2], b[3], d[0], d[1]);
}

static sigjmp_buf jump;
static volatile int last_signal;

static void caught(int signum, siginfo_t *info, void *context)
{
    (void)context;
    last_signal = signum * 100 + info->si_code;
    siglongjmp(jump, 1);
}

static void faults(void)
{
    static const int signals[] = { SIGSEGV, SIGFPE, SIGILL, SIGTRAP, SIGBUS };
    struct sigaction action = { .sa_sigaction = caught, .sa_flags = SA_SIGINFO | SA_NODEFER };
    volatile char *volatile low = (volatile char *)8;
    volatile char *volatile non_canonical = (volatile char *)0x8000000000000000ull;
    volatile int zero = 0;
    char *page = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    for (size_t i = 0; i < sizeof(signals) / sizeof(signals[0]); i++)
        sigaction(signals[i], &action, NULL);
    for (volatile int kind = 0; kind < 7; kind++) {
        last_signal = 0;
        if (!sigsetjmp(jump, 1)) {
            switch (kind) {
            case 0:
                *low = 1;
                break;
            case 1:
                *(volatile char *)page = 1;
                break;
            case 2:
                zero = 100 / zero;
                break;
            case 3:
                __asm__ volatile("ud2");
                break;
            case 4:
                __asm__ volatile("int3");
                break;
            case 5:
                *non_canonical = 1;
                break;
            case 6:
                __asm__ volatile("hlt");
                break;
            }
        }
        printf("fault %d: %d\n", kind, last_signal);
    }
}

static void processes(void)
{
    int fds[2], total = 0, status;

    if (pipe(fds))
        return;
    fflush(stdout);
    for (int i = 0; i < 20; i++) {
        if (fork() == 0) {
            int value = i * i;

            if (write(fds[1], &value, sizeof(value)) != sizeof(value))
                _exit(1);
            _exit(i);
        }
    }
    for (int i = 0; i < 20; i++) {
        int value;

        if (read(fds[0], &value, sizeof(value)) == sizeof(value))
            total += value;
        wait(&status);
        total += WEXITSTATUS(status);
    }
    printf("processes %d\n", total);
}

static void memory(void)
{
    size_t size = 8 << 20;
    unsigned char *bytes = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    uint64_t x = 7, sum = 0;

    for (size_t i = 0; i + 8 <= size; i += 8) {
        uint64_t value = next(&x);

        memcpy(bytes + i, &value, 8);
    }
    memmove(bytes + 4001, bytes, size - 8000);
    for (size_t i = 0; i < size; i += 61)
        sum = sum * 31 + bytes[i];
    printf("memory %016llx %d\n", (unsigned long long)sum, memcmp(bytes, bytes + 4001, 4001));
    munmap(bytes, size);
}

/* Code that is written, run, and written again in place. */
static void self_modifying(void)
{
    unsigned char *code = mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    int (*fn)(void) = (int (*)(void))(void *)code;
    int sum = 0;

    memcpy(code, "\xb8\x00\x00\x00\x00\xc3", 6); /* mov eax, imm; ret */
    for (int i = 0; i < 1000; i++) {
        memcpy(code + 1, &i, 4);
        sum += fn();
    }
    printf("self-modifying %d\n", sum);
}

int main(void)
{
    integers();
    floats();
    vectors();
    faults();
    processes();
    memory();
    self_modifying();
    puts("test64: end");
    return 0;
}
