/* The benchmark's runner: reads the list of workloads, starts each as a process of its own, and takes the time
 * with the guest's own clock (CLOCK_MONOTONIC), from before fork to after wait. In the guest it is started by init, on the host
 * inside the same unpacked tree (-r), so that both run the same files. Static; one thread; must run as root in the guest, or
 * anywhere where user namespaces are allowed for -r.
 *
 *   run [-r ROOT] [-p PERCENT] [-t TIMES] [-l LIST] [NAME...]
 *
 * A line of the list is NAME GROUP UNITS COMMAND...; a word %n in the command stands for the number of units, and without
 * one the command runs UNITS times. A first word <FILE gives standard input. -p changes the amount of work, -t runs each
 * workload that many times, with a result each. What a command prints goes to a file in tmpfs, is hashed when the clock has
 * stopped, and must be the same each time. Printed:
 *
 *   bench begin NAME
 *   bench result NAME UNITS SECONDS CHECKSUM        or: bench failed NAME REASON
 *   bench end
 */
#include "bench.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define OUTPUT "/tmp/bench/output"

enum { MAX_WORDS = 32, MAX_LINE = 1024 };

struct command {
    char line[MAX_LINE];
    char *name, *input, *words[MAX_WORDS];
    unsigned long units;
    int repeat; /* no %n: one process for each unit */
    char number[24];
};

struct options {
    const char *root, *list;
    unsigned percent, times;
    char **names;
};

static double now(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static void write_file(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY);

    if (fd < 0 || write(fd, text, strlen(text)) < 0)
        bench_fail(path);
    close(fd);
}

/* The host's /dev and /proc, a /tmp of its own, and the tree as the root: what the guest's init makes. */
static void enter_root(const char *root)
{
    static const char *const shared[] = { "dev", "proc" };
    char path[512], map[64];
    uid_t uid = getuid();
    gid_t gid = getgid();

    if (unshare(CLONE_NEWNS | (uid ? CLONE_NEWUSER : 0)))
        bench_fail("unshare (native runs need root, or user namespaces)");
    if (uid) {
        write_file("/proc/self/setgroups", "deny");
        snprintf(map, sizeof(map), "0 %u 1", uid);
        write_file("/proc/self/uid_map", map);
        snprintf(map, sizeof(map), "0 %u 1", gid);
        write_file("/proc/self/gid_map", map);
    }
    if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL))
        bench_fail("mount /");
    for (size_t i = 0; i < sizeof(shared) / sizeof(shared[0]); i++) {
        char source[16];

        snprintf(source, sizeof(source), "/%s", shared[i]);
        snprintf(path, sizeof(path), "%s/%s", root, shared[i]);
        if (mount(source, path, NULL, MS_BIND | MS_REC, NULL))
            bench_fail(path);
    }
    snprintf(path, sizeof(path), "%s/tmp", root);
    if (mount("tmpfs", path, "tmpfs", 0, NULL))
        bench_fail(path);
    if (chroot(root) || chdir("/"))
        bench_fail(root);
}

/* False: an empty line or a comment. */
static int parse(struct command *command, unsigned percent)
{
    char *save, *word = strtok_r(command->line, " \t\n", &save), *group, *units;
    unsigned count = 0;

    if (!word || *word == '#')
        return 0;
    command->name = word;
    group = strtok_r(NULL, " \t\n", &save);
    units = strtok_r(NULL, " \t\n", &save);
    command->units = units ? strtoul(units, NULL, 10) * percent / 100 : 0;
    if (command->units == 0)
        command->units = 1;
    snprintf(command->number, sizeof(command->number), "%lu", command->units);
    command->repeat = 1;
    command->input = NULL;
    while ((word = strtok_r(NULL, " \t\n", &save)) && count < MAX_WORDS - 1) {
        if (*word == '<' && count == 0) {
            command->input = word + 1;
            continue;
        }
        if (!strcmp(word, "%n")) {
            command->repeat = 0;
            word = command->number;
        }
        command->words[count++] = word;
    }
    command->words[count] = NULL;
    return group && units && count > 0;
}

static _Noreturn void child(const struct command *command)
{
    static char *const environment[] = { "PATH=/usr/bin:/bin", "HOME=/tmp",        "LC_ALL=C",
                                         "PYTHONHASHSEED=0",   "PERL_HASH_SEED=0", NULL };
    int in = open(command->input ? command->input : "/dev/null", O_RDONLY);
    int out = open(OUTPUT, O_WRONLY | O_CREAT | O_TRUNC, 0600);

    if (in < 0 || out < 0 || dup2(in, 0) < 0 || dup2(out, 1) < 0)
        _exit(126);
    execve(command->words[0], command->words, environment);
    fprintf(stderr, "bench: %s: %s\n", command->words[0], strerror(errno));
    _exit(127);
}

/* Wait status of the command. */
static int run_once(const struct command *command)
{
    int status;
    pid_t pid = fork();

    if (pid < 0)
        bench_fail("fork");
    if (pid == 0)
        child(command);
    while (waitpid(pid, &status, 0) != pid) {
        if (errno != EINTR)
            bench_fail("waitpid");
    }
    return status;
}

static uint64_t output_checksum(void)
{
    static unsigned char buffer[65536];
    uint64_t hash = BENCH_HASH;
    int fd = open(OUTPUT, O_RDONLY);
    ssize_t got;

    if (fd < 0)
        bench_fail(OUTPUT);
    while ((got = read(fd, buffer, sizeof(buffer))) > 0)
        hash = bench_hash(hash, buffer, (size_t)got);
    close(fd);
    return hash;
}

static void run(const struct command *command)
{
    unsigned long times = command->repeat ? command->units : 1;
    double seconds = 0;
    uint64_t checksum = 0;

    printf("bench begin %s\n", command->name);
    fflush(stdout);
    for (unsigned long i = 0; i < times; i++) {
        double start = now();
        int status = run_once(command);
        uint64_t sum;

        seconds += now() - start;
        if (status) {
            printf("bench failed %s %s %d\n", command->name, WIFEXITED(status) ? "exit status" : "signal",
                   WIFEXITED(status) ? WEXITSTATUS(status) : WTERMSIG(status));
            return;
        }
        sum = output_checksum();
        if (i && sum != checksum) {
            printf("bench failed %s output of run %lu differs from that of run 0\n", command->name, i);
            return;
        }
        checksum = sum;
    }
    printf("bench result %s %lu %.6f %016llx\n", command->name, command->units, seconds, (unsigned long long)checksum);
}

static int wanted(char **names, const char *name)
{
    if (!*names)
        return 1;
    for (; *names; names++) {
        if (!strcmp(*names, name))
            return 1;
    }
    return 0;
}

static int parse_options(struct options *options, int argc, char **argv)
{
    int option;

    while ((option = getopt(argc, argv, "r:p:t:l:")) != -1) {
        switch (option) {
        case 'r':
            options->root = optarg;
            break;
        case 'p':
            options->percent = (unsigned)strtoul(optarg, NULL, 10);
            break;
        case 't':
            options->times = (unsigned)strtoul(optarg, NULL, 10);
            break;
        case 'l':
            options->list = optarg;
            break;
        default:
            return -1;
        }
    }
    options->names = argv + optind;
    return 0;
}

int main(int argc, char **argv)
{
    struct options options = { .list = "/bench/workloads", .percent = 100, .times = 1 };
    static struct command command;
    FILE *list;

    if (parse_options(&options, argc, argv)) {
        fprintf(stderr, "usage: run [-r ROOT] [-p PERCENT] [-t TIMES] [-l LIST] [NAME...]\n");
        return 2;
    }
    if (options.root)
        enter_root(options.root);
    list = fopen(options.list, "r");
    if (!list)
        bench_fail(options.list);
    if ((mkdir("/tmp/bench", 0700) && errno != EEXIST) || chdir("/tmp/bench"))
        bench_fail("/tmp/bench");
    while (fgets(command.line, sizeof(command.line), list)) {
        if (!parse(&command, options.percent) || !wanted(options.names, command.name))
            continue;
        for (unsigned i = 0; i < options.times; i++) {
            run(&command);
            fflush(stdout);
        }
    }
    fclose(list);
    printf("bench end\n");
    return 0;
}
