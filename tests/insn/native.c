/* The host side: a forked child runs cases, one after the other, in its own pages, and leaves the
 * resulting state in shared memory. Faults are caught on an alternate stack and turned into a vector and a state.
 *
 * Whatever goes wrong stays in the child: it may make no system calls but those that its loop needs (seccomp), a
 * timer ends endless loops, and if it dies the parent notes the case and starts another. The variables at file scope
 * belong to the assembly and the signal handler, and are used by the child alone. */
#include "tests/insn/native.h"

#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <semaphore.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

#define TASK_SIZE_MAX 0x7ffffffff000ull
#define HOST_MXCSR    0x1f80

extern char native_fault_return[];
int native_run(void);

struct machine_state native_in, native_out;
uint64_t native_host_rsp, native_host_fs, native_target;
uint8_t native_use_avx, native_use_fsgsbase;
volatile uint8_t native_running;
uint32_t native_host_mxcsr = HOST_MXCSR;

struct native {
    struct shared *shared;
    size_t shared_size;
    const struct native_job *job;
    uint8_t *cases, *results;
    unsigned batch;
    pid_t child;
};

/* In memory shared with the child. */
struct shared {
    sem_t start, done;
    volatile uint32_t first, count; /* what to run */
    volatile uint32_t current;      /* where the child is */
    volatile bool completed[];      /* by case */
};

static struct {
    struct outcome outcome;
    uint64_t code_base, code_size;
    unsigned case_number, last_tick;
} caught;

bool native_has_avx(void)
{
    return __builtin_cpu_supports("avx");
}

bool native_has_fsgsbase(void)
{
    return getauxval(AT_HWCAP2) & 2; /* HWCAP2_FSGSBASE: the kernel lets user programs use them */
}

/* ---- Signals ---- */

/* The frame's XSAVE area: FXSAVE image, then what the words at 464 announce (Linux asm/sigcontext.h). */
static void save_vectors(const mcontext_t *context)
{
    const uint8_t *frame = (const uint8_t *)context->fpregs;
    uint32_t magic;
    uint64_t present = 0;

    memcpy(&native_out.fx, frame, 416);
    memcpy(&magic, frame + 464, sizeof(magic));
    if (magic == FP_XSTATE_MAGIC1)
        memcpy(&present, frame + 512, sizeof(present));
    for (unsigned i = 0; i < 16; i++) {
        memcpy(native_out.ymm[i], frame + 160 + i * 16, 16);
        if (present & 4) /* standard format: YMM_Hi128 at 576 (CPUID.0DH.2:EBX on all CPUs) */
            memcpy(native_out.ymm[i] + 16, frame + 576 + i * 16, 16);
        else
            memset(native_out.ymm[i] + 16, 0, 16);
    }
}

static void save_registers(const mcontext_t *context)
{
    static const uint8_t order[16] = { REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
                                       REG_R8,  REG_R9,  REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15 };
    for (unsigned i = 0; i < 16; i++)
        native_out.gpr[i] = (uint64_t)context->gregs[order[i]];
    native_out.rip = (uint64_t)context->gregs[REG_RIP];
    native_out.rflags = (uint64_t)context->gregs[REG_EFL];
    save_vectors(context);
}

/* No thread-local storage before the fs base is back: no library calls, no instrumentation. */
__attribute__((no_sanitize("address", "undefined"), optimize("no-stack-protector"))) static void
on_signal(int signal_number, siginfo_t *info, void *context)
{
    mcontext_t *user = &((ucontext_t *)context)->uc_mcontext;
    (void)info;
    __asm__ volatile("pushfq\n\tandl $~0x40000, (%%rsp)\n\tpopfq" : : : "cc", "memory"); /* no #AC in here */

    if (!native_running) {
        if (signal_number != SIGVTALRM)
            _exit(90); /* a fault of this program, not of the instruction */
        return;
    }
    uint64_t fs = 0, gs = 0;
    if (native_use_fsgsbase) {
        __asm__ volatile("rdfsbase %0" : "=r"(fs));
        __asm__ volatile("rdgsbase %0" : "=r"(gs));
        __asm__ volatile("wrfsbase %0" : : "r"(native_host_fs));
    }
    if (signal_number == SIGVTALRM) {
        bool stuck = caught.last_tick == caught.case_number &&
                     (uint64_t)user->gregs[REG_RIP] - caught.code_base < caught.code_size;
        caught.last_tick = caught.case_number;
        if (!stuck) {
            if (native_use_fsgsbase)
                __asm__ volatile("wrfsbase %0" : : "r"(fs));
            return;
        }
        caught.outcome.vector = OUTCOME_HANG;
    } else {
        caught.outcome.vector = (uint8_t)user->gregs[REG_TRAPNO];
        caught.outcome.error = (uint32_t)user->gregs[REG_ERR];
        caught.outcome.cr2 = (uint64_t)user->gregs[REG_CR2];
    }
    native_running = 0;
    native_out.fs_base = fs;
    native_out.gs_base = gs;
    save_registers(user);
    user->gregs[REG_RIP] = (greg_t)(uintptr_t)native_fault_return;
    user->gregs[REG_EFL] &= ~(greg_t)0x40000; /* AC */
    user->gregs[REG_RSP] = (greg_t)native_host_rsp;
    user->gregs[REG_EFL] = 0x202;
}

static void install_handlers(void)
{
    static uint8_t stack[256 * 1024]; /* frames with AMX tiles are large */
    static const int signals[] = { SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGVTALRM };
    stack_t alternate = { .ss_sp = stack, .ss_size = sizeof(stack) };
    struct sigaction action = { .sa_sigaction = on_signal, .sa_flags = SA_SIGINFO | SA_ONSTACK };

    sigaltstack(&alternate, NULL);
    sigfillset(&action.sa_mask);
    for (size_t i = 0; i < ARRAY_SIZE(signals); i++)
        sigaction(signals[i], &action, NULL);
    struct itimerval tick = { { 0, 50000 }, { 0, 50000 } };
    setitimer(ITIMER_VIRTUAL, &tick, NULL); /* not of the wall clock: on a busy machine nothing looks like a hang */
}

/* What is left once the child is set up: a stray system call ends it. Without seccomp we rely on excluded.def. */
static void forbid_system_calls(void)
{
    enum { ALLOWED = 6 };
    static const unsigned allowed[ALLOWED] = { __NR_futex, __NR_rt_sigreturn, __NR_exit_group,
                                               __NR_exit,  __NR_write,        __NR_restart_syscall };
    struct sock_filter filter[5 + ALLOWED * 2];
    unsigned n = 0;

    filter[n++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch));
    filter[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AUDIT_ARCH_X86_64, 1, 0);
    filter[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS);
    filter[n++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
    for (unsigned i = 0; i < ALLOWED; i++) {
        filter[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, allowed[i], 0, 1);
        filter[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    }
    filter[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS);
    struct sock_fprog program = { .len = (unsigned short)n, .filter = filter };
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program);
}

/* ---- The child ---- */

uint8_t *native_map_file(uint64_t address, size_t size, int protection, int fd, uint64_t offset)
{
    int flags = MAP_FIXED_NOREPLACE | (fd < 0 ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED | MAP_POPULATE);
    void *p = mmap((void *)(uintptr_t)address, size, protection, flags, fd, (off_t)offset);

    if (p != (void *)(uintptr_t)address)
        _exit(91);
    return p;
}

uint8_t *native_map(uint64_t address, size_t size, int protection)
{
    return native_map_file(address, size, protection, -1, 0);
}

void native_execute(const struct machine_state *in, struct machine_state *out, struct outcome *outcome)
{
    native_in = *in;
    for (unsigned i = 0; i < 16; i++)
        memcpy(native_in.fx.xmm[i], native_in.ymm[i], 16);
    native_out.fs_base = native_in.fs_base;
    native_out.gs_base = native_in.gs_base;
    caught.outcome = (struct outcome){ .vector = OUTCOME_NONE };
    caught.case_number++;
    native_run();
    if (!native_use_avx)
        for (unsigned i = 0; i < 16; i++)
            memcpy(native_out.ymm[i], native_out.fx.xmm[i], 16);
    *out = native_out;
    *outcome = caught.outcome;
    /* Linux hides from user programs what is mapped in its half: it always sets P. For us nothing is there. */
    if (outcome->vector == 14 && outcome->cr2 >= TASK_SIZE_MAX)
        outcome->error &= ~1u;
    if (outcome->vector != 14)
        outcome->cr2 = 0;
}

static void child_main(struct native *native)
{
    struct shared *shared = native->shared;

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    native_use_avx = native_has_avx();
    native_use_fsgsbase = native_has_fsgsbase();
    caught.code_base = native->job->code_base;
    caught.code_size = native->job->code_size;
    native->job->setup();
    install_handlers();
    forbid_system_calls();
    for (;;) {
        while (sem_wait(&shared->start))
            ;
        for (uint32_t i = shared->first; i < shared->count; i++) {
            shared->current = i;
            native->job->run(native_case(native, i), native_result(native, i));
            shared->completed[i] = true;
        }
        sem_post(&shared->done);
    }
}

/* ---- The parent ---- */

static void start_child(struct native *native)
{
    struct shared *shared = native->shared;
    sem_init(&shared->start, 1, 0);
    sem_init(&shared->done, 1, 0);
    fflush(NULL);
    native->child = fork();
    if (native->child < 0) {
        perror("fork");
        abort();
    }
    if (!native->child) {
        child_main(native);
        _exit(0);
    }
}

struct native *native_create(const struct native_job *job, unsigned batch)
{
    struct native *native = calloc(1, sizeof(*native));
    size_t cases_offset = ALIGN_UP(sizeof(struct shared) + batch, 4096);
    size_t results_offset = ALIGN_UP(cases_offset + batch * job->case_size, 4096);

    if (!native)
        abort();
    native->job = job;
    native->shared_size = ALIGN_UP(results_offset + batch * job->result_size, 4096);
    native->shared = mmap(NULL, native->shared_size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (native->shared == MAP_FAILED) {
        perror("mmap");
        abort();
    }
    native->cases = (uint8_t *)native->shared + cases_offset;
    native->results = (uint8_t *)native->shared + results_offset;
    native->batch = batch;
    start_child(native);
    return native;
}

void native_destroy(struct native *native)
{
    kill(native->child, SIGKILL);
    waitpid(native->child, NULL, 0);
    munmap(native->shared, native->shared_size);
    free(native);
}

void *native_case(struct native *native, unsigned index)
{
    return native->cases + index * native->job->case_size;
}

void *native_result(struct native *native, unsigned index)
{
    return native->results + index * native->job->result_size;
}

void native_start(struct native *native, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        native->shared->completed[i] = false;
    native->shared->first = 0;
    native->shared->count = count;
    native->shared->current = 0;
    sem_post(&native->shared->start);
}

/* The child died in the middle of a batch: that case is marked, a new child does the rest. */
static void replace_child(struct native *native)
{
    uint32_t index = native->shared->current;
    if (!native->shared->completed[index]) {
        native->job->died(native_result(native, index));
        native->shared->completed[index] = true;
    }
    start_child(native);
    native->shared->first = index + 1;
    sem_post(&native->shared->start);
}

void native_finish(struct native *native)
{
    for (;;) {
        struct timespec deadline;
        clock_gettime(CLOCK_REALTIME, &deadline);
        deadline.tv_nsec += 50 * 1000 * 1000;
        deadline.tv_sec += deadline.tv_nsec / 1000000000;
        deadline.tv_nsec %= 1000000000;
        if (!sem_timedwait(&native->shared->done, &deadline))
            return;
        if (errno == ETIMEDOUT && waitpid(native->child, NULL, WNOHANG) == native->child)
            replace_child(native);
    }
}
