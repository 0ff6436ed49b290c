/* -d cpustats: what the CPUs did, printed when the machine ends. The vCPU threads have stopped. */
#include <inttypes.h>
#include <time.h>

#include "frontend/vm_internal.h"
#include "jit/jit.h"

static double thread_cpu_seconds(const struct vcpu *vcpu)
{
    struct timespec ts;
    clockid_t id;

    if (!vcpu->started || pthread_getcpuclockid(vcpu->thread, &id) || clock_gettime(id, &ts))
        return 0;
    return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

void vm_print_stats(const struct vm *vm)
{
    for (unsigned i = 0; i < vm->cpu_count; i++)
        jit_log_stats(vm->vcpus[i].cpu);
    if (!log_enabled(LOG_cpustats))
        return;
    for (unsigned i = 0; i < vm->cpu_count; i++) {
        const struct cpu *cpu = vm->vcpus[i].cpu;
        double seconds = thread_cpu_seconds(&vm->vcpus[i]);
        double wall = (double)(clock_host_ns() - vm->start_ns) / 1e9;

        log_event(cpustats, "cpu%u: instructions %" PRIu64 ", %.3f s of CPU time, %.3f s elapsed, %.1f million/s\n", i,
                  cpu->stats.instructions, seconds, wall,
                  seconds > 0 ? (double)cpu->stats.instructions / seconds / 1e6 : 0.0);
        log_event(cpustats, "cpu%u: blocks decoded %" PRIu64 ", run %" PRIu64 ", invalidated %" PRIu64 "\n", i,
                  cpu->stats.blocks_decoded, cpu->stats.blocks_run, cpu->stats.invalidations);
        log_event(cpustats,
                  "cpu%u: exceptions %" PRIu64 ", interrupts %" PRIu64 ", unimplemented instructions %" PRIu64 "\n", i,
                  cpu->stats.exceptions, cpu->stats.interrupts, cpu->stats.unimplemented);
        log_event(cpustats,
                  "cpu%u: tlb fills %" PRIu64 " (shadow hits %" PRIu64 ", walks %" PRIu64 ", faults %" PRIu64
                  "), flushes %" PRIu64 ", invlpg %" PRIu64 "\n",
                  i, cpu->mmu.stats.l1_fills, cpu->mmu.stats.l2_hits, cpu->mmu.stats.walks, cpu->mmu.stats.faults,
                  cpu->mmu.stats.flushes, cpu->mmu.stats.invlpgs);
    }
}
