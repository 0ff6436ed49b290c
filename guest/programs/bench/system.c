/* System workloads: what goes through the kernel. One thread, except futex, which has two. Static. */
#include "bench.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static uint64_t syscall_unit(void *data)
{
    uint64_t sum = 0;

    (void)data;
    for (unsigned i = 0; i < 10000; i++)
        sum += syscall(SYS_getppid) > 0;
    return sum;
}

/* A child that gives back every byte it gets. */
struct echo {
    int to, from;
};

static void *pipe_setup(void)
{
    struct echo *echo = bench_alloc(sizeof(*echo));
    int there[2], back[2];
    pid_t pid;

    if (pipe(there) || pipe(back))
        bench_fail("pipe");
    pid = fork();
    if (pid < 0)
        bench_fail("fork");
    if (pid == 0) {
        unsigned char byte;

        close(there[1]); /* else the end of the parent would not end the reading */
        while (read(there[0], &byte, 1) == 1) {
            if (write(back[1], &byte, 1) != 1)
                break;
        }
        _exit(0);
    }
    echo->to = there[1];
    echo->from = back[0];
    return echo;
}

static uint64_t pipe_unit(void *data)
{
    const struct echo *echo = data;
    uint64_t sum = 0;

    for (unsigned i = 0; i < 1000; i++) {
        unsigned char byte = (unsigned char)i, answer;

        if (write(echo->to, &byte, 1) != 1 || read(echo->from, &answer, 1) != 1)
            bench_fail("pipe");
        sum = sum * 3 + answer;
    }
    return sum;
}

static int wait_for(pid_t pid)
{
    int status;

    if (pid < 0)
        bench_fail("fork");
    while (waitpid(pid, &status, 0) != pid) {
        if (errno != EINTR)
            bench_fail("waitpid");
    }
    return WIFEXITED(status) ? WEXITSTATUS(status) : 256;
}

/* Something to copy page tables for, and a few pages that the child writes. */
static void *fork_setup(void)
{
    return bench_alloc(4 << 20);
}

static uint64_t fork_unit(void *data)
{
    volatile char *memory = data;
    uint64_t sum = 0;

    for (unsigned i = 0; i < 20; i++) {
        pid_t pid = fork();

        if (pid == 0) {
            for (unsigned page = 0; page < 16; page++)
                memory[page * 65536] = 1;
            _exit((int)i);
        }
        sum = sum * 3 + (uint64_t)wait_for(pid);
    }
    return sum;
}

static uint64_t exec_program(const char *path)
{
    uint64_t sum = 0;

    for (unsigned i = 0; i < 10; i++) {
        char *arguments[] = { (char *)path, "argument", NULL };
        pid_t pid;

        if (posix_spawn(&pid, path, NULL, NULL, arguments, environ))
            bench_fail(path);
        sum = sum * 3 + (uint64_t)wait_for(pid);
    }
    return sum;
}

static uint64_t exec_static_unit(void *data)
{
    (void)data;
    return exec_program("/bench/exit-static");
}

static uint64_t exec_dynamic_unit(void *data)
{
    (void)data;
    return exec_program("/bench/exit-dynamic");
}

static char *map_pages(size_t size)
{
    char *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    if (memory == MAP_FAILED)
        bench_fail("mmap");
    return memory;
}

/* 1024 faults for 4 KiB pages that have to be cleared. */
static uint64_t page_faults_unit(void *data)
{
    enum { SIZE = 4 << 20 };
    char *memory = map_pages(SIZE);
    uint64_t sum = 0;

    (void)data;
    madvise(memory, SIZE, MADV_NOHUGEPAGE);
    for (size_t i = 0; i < SIZE; i += 4096) {
        memory[i] = (char)(i >> 12);
        sum += (unsigned char)memory[i + 1] + 1u;
    }
    munmap(memory, SIZE);
    return sum;
}

static uint64_t mmap_unit(void *data)
{
    uint64_t sum = 0;

    (void)data;
    for (unsigned i = 0; i < 500; i++) {
        char *memory = map_pages(16384);

        memory[4096] = (char)i;
        if (mprotect(memory, 4096, PROT_READ))
            bench_fail("mprotect");
        sum += (unsigned char)memory[4096] + (unsigned char)memory[0];
        munmap(memory, 16384);
    }
    return sum;
}

static volatile sig_atomic_t signals;

static void count_signal(int number)
{
    (void)number;
    signals++;
}

static uint64_t signals_unit(void *data)
{
    struct sigaction action = { .sa_handler = count_signal };

    (void)data;
    signals = 0;
    sigaction(SIGUSR1, &action, NULL);
    for (unsigned i = 0; i < 2000; i++)
        kill(getpid(), SIGUSR1);
    return (uint64_t)signals;
}

/* Two threads that take turns: FUTEX_WAIT and FUTEX_WAKE, a context switch in one address space each time. */
static _Atomic uint32_t turn;

static void futex_pass(uint32_t mine)
{
    uint32_t seen;

    while ((seen = atomic_load(&turn)) % 2 != mine)
        syscall(SYS_futex, &turn, FUTEX_WAIT_PRIVATE, seen, NULL, NULL, 0);
    atomic_fetch_add(&turn, 1);
    syscall(SYS_futex, &turn, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

static void *futex_thread(void *argument)
{
    for (unsigned i = 0; i < 500; i++)
        futex_pass(1);
    return argument;
}

static uint64_t futex_unit(void *data)
{
    pthread_t thread;

    (void)data;
    atomic_store(&turn, 0);
    if (pthread_create(&thread, NULL, futex_thread, NULL))
        bench_fail("pthread_create");
    for (unsigned i = 0; i < 500; i++)
        futex_pass(0);
    pthread_join(thread, NULL);
    return atomic_load(&turn);
}

/* Small files in tmpfs: create, write, stat, read back, remove. */
static uint64_t files_unit(void *data)
{
    char name[32], text[600];
    uint64_t hash = BENCH_HASH;

    (void)data;
    for (unsigned i = 0; i < 100; i++) {
        struct stat info;
        int fd;

        snprintf(name, sizeof(name), "bench-%u", i);
        memset(text, 'a' + (int)(i % 26), sizeof(text));
        fd = open(name, O_RDWR | O_CREAT | O_TRUNC, 0600);
        if (fd < 0 || write(fd, text, sizeof(text)) != (ssize_t)sizeof(text) || stat(name, &info) ||
            pread(fd, text, 100, 300) != 100)
            bench_fail(name);
        close(fd);
        hash = bench_hash(hash, text, 100) + (uint64_t)info.st_size;
    }
    for (unsigned i = 0; i < 100; i++) {
        snprintf(name, sizeof(name), "bench-%u", i);
        unlink(name);
    }
    return hash;
}

int main(int argc, char **argv)
{
    static const struct bench_workload table[] = {
        { "syscall", syscall_unit, NULL },
        { "pipe_pingpong", pipe_unit, pipe_setup },
        { "fork", fork_unit, fork_setup },
        { "exec_static", exec_static_unit, NULL },
        { "exec_dynamic", exec_dynamic_unit, NULL },
        { "page_faults", page_faults_unit, NULL },
        { "mmap_munmap", mmap_unit, NULL },
        { "signals", signals_unit, NULL },
        { "futex", futex_unit, NULL },
        { "files", files_unit, NULL },
    };

    return bench_main(argc, argv, table, sizeof(table) / sizeof(table[0]));
}
