/* Events from outside: other threads set bits of cpu->events, the vCPU's thread acts on them between blocks
 * (cpu_handle_events) or wakes up for them (cpu_wait_for_event). Priorities: SDM Vol. 3A table 6-2.
 *
 * cpu_event_set, cpu_event_clear, cpu_sipi and cpu_queue_work may be called by any thread; the rest by the
 * vCPU's own. */
#include <stdlib.h>

#include "cpu/debug.h"
#include "cpu/system_internal.h"

struct cpu_work {
    struct cpu_work *next;
    void (*fn)(struct cpu *cpu, void *opaque);
    void *opaque;
};

/* ---- Any thread ---- */

void cpu_event_set(struct cpu *cpu, uint32_t events)
{
    /* Sequentially consistent on both sides (cpu_wait_for_event stores `waiting`, then reads `events`): at
     * least one of the two sees the other's store, so that no wake-up is lost. */
    atomic_fetch_or(&cpu->events, events);
    atomic_store_explicit(&cpu->quiet, 0, memory_order_release);
    if (atomic_load(&cpu->waiting)) {
        vector_guard(); /* of the thread that calls: maybe another vCPU's */
        pthread_mutex_lock(&cpu->wait_lock);
        pthread_cond_signal(&cpu->wait_cond);
        pthread_mutex_unlock(&cpu->wait_lock);
    }
}

void cpu_event_clear(struct cpu *cpu, uint32_t events)
{
    atomic_fetch_and(&cpu->events, ~events);
}

void cpu_sipi(struct cpu *cpu, uint8_t vector)
{
    atomic_store(&cpu->sipi_vector, vector);
    cpu_event_set(cpu, CPU_EVENT_SIPI);
}

int cpu_queue_work(struct cpu *cpu, void (*fn)(struct cpu *cpu, void *opaque), void *opaque)
{
    struct cpu_work *work, **tail;

    vector_guard();
    work = malloc(sizeof(*work));
    if (!work)
        return -1;
    *work = (struct cpu_work){ .fn = fn, .opaque = opaque };
    pthread_mutex_lock(&cpu->wait_lock);
    for (tail = &cpu->work; *tail; tail = &(*tail)->next)
        ;
    *tail = work;
    pthread_mutex_unlock(&cpu->wait_lock);
    cpu_event_set(cpu, CPU_EVENT_WORK);
    return 0;
}

/* ---- The vCPU's thread ---- */

static struct cpu_work *take_work(struct cpu *cpu)
{
    struct cpu_work *work;

    pthread_mutex_lock(&cpu->wait_lock);
    work = cpu->work;
    cpu->work = NULL;
    pthread_mutex_unlock(&cpu->wait_lock);
    return work;
}

static void run_work(struct cpu *cpu)
{
    struct cpu_work *work = take_work(cpu);

    while (work) {
        struct cpu_work *next = work->next;

        work->fn(cpu, work->opaque);
        free(work);
        work = next;
    }
}

void cpu_drop_work(struct cpu *cpu)
{
    struct cpu_work *work = take_work(cpu);

    while (work) {
        struct cpu_work *next = work->next;

        free(work);
        work = next;
    }
}

/* Events that end the current activity. */
static uint32_t wake_events(const struct cpu *cpu)
{
    uint32_t always = CPU_EVENT_STOP | CPU_EVENT_FLUSH_TLB | CPU_EVENT_WORK | CPU_EVENT_INIT;

    switch (cpu->activity) {
    case CPU_HALTED:
        return always | CPU_EVENT_SMI | (cpu->nmi_blocked ? 0 : CPU_EVENT_NMI) |
               (cpu->rflags & FLAG_IF ? CPU_EVENT_INTR : 0);
    case CPU_WAIT_FOR_SIPI:
        return always | CPU_EVENT_SIPI;
    case CPU_SHUTDOWN:
        return always;
    default:
        return ~0u;
    }
}

void cpu_wait_for_event(struct cpu *cpu)
{
    uint32_t wanted = wake_events(cpu);

    if (cpu->activity == CPU_RUNNING)
        return;
    cpu_park_vectors(cpu);
    pthread_mutex_lock(&cpu->wait_lock);
    atomic_store(&cpu->waiting, true);
    while (!(atomic_load(&cpu->events) & wanted))
        pthread_cond_wait(&cpu->wait_cond, &cpu->wait_lock);
    atomic_store(&cpu->waiting, false);
    pthread_mutex_unlock(&cpu->wait_lock);
}

/* INIT and start-up IPI (SDM Vol. 3A 8.4.3, 9.1). */
static enum step take_init(struct cpu *cpu)
{
    cpu_event_clear(cpu, CPU_EVENT_INIT | CPU_EVENT_SIPI);
    log_event(cpu_reset, "vCPU %u: INIT\n", cpu->index);
    cpu_init_signal(cpu);
    return STEP_BRANCH;
}

static enum step take_sipi(struct cpu *cpu)
{
    uint8_t vector = atomic_load(&cpu->sipi_vector);

    cpu_event_clear(cpu, CPU_EVENT_SIPI);
    if (cpu->activity != CPU_WAIT_FOR_SIPI)
        return STEP_NEXT; /* ignored unless waited for */
    cpu_set_segment(cpu, SEG_CS, (uint16_t)(vector << 8), (uint64_t)vector << 12, 0xffff, cpu->segs[SEG_CS].attributes);
    cpu->cpu_rip = 0;
    cpu->activity = CPU_RUNNING;
    log_event(cpu_reset, "vCPU %u: started at %05x\n", cpu->index, vector << 12);
    return STEP_BRANCH;
}

/* The #DB that the last instruction left behind: a trap (single step, data and I/O breakpoints). */
static enum step take_debug_trap(struct cpu *cpu)
{
    cpu->activity = CPU_RUNNING;
    debug_raise(cpu, cpu->pending_debug);
    return cpu_deliver_exception(cpu);
}

static enum step take_nmi(struct cpu *cpu)
{
    cpu_event_clear(cpu, CPU_EVENT_NMI);
    cpu->activity = CPU_RUNNING;
    cpu->nmi_blocked = true;
    return cpu_deliver_interrupt(cpu, VECTOR_NMI);
}

static enum step take_interrupt(struct cpu *cpu)
{
    int vector = cpu->apic ? cpu_apic(cpu)->acknowledge(cpu->apic) : -1;

    if (vector < 0)
        return STEP_NEXT; /* withdrawn meanwhile */
    cpu->activity = CPU_RUNNING;
    cpu->stats.interrupts++;
    return cpu_deliver_interrupt(cpu, (uint8_t)vector);
}

/* What only concerns this emulator, not the architecture. True: leave the engine. */
static bool take_service_events(struct cpu *cpu, uint32_t events)
{
    cpu_park_vectors(cpu); /* flushes and queued work may be anything */
    if (events & CPU_EVENT_FLUSH_TLB) {
        cpu_event_clear(cpu, CPU_EVENT_FLUSH_TLB);
        mmu_flush_all(&cpu->mmu);
        cpu->engine->flush(cpu);
    }
    if (events & CPU_EVENT_WORK) {
        cpu_event_clear(cpu, CPU_EVENT_WORK);
        mmu_run_pending(&cpu->mmu);
        run_work(cpu);
    }
    if (events & CPU_EVENT_SMI) {
        cpu_event_clear(cpu, CPU_EVENT_SMI);
        log_event(unimp, "vCPU %u: SMI dropped: no system management mode yet\n", cpu->index);
    }
    return events & CPU_EVENT_STOP;
}

enum step cpu_handle_events(struct cpu *cpu)
{
    uint32_t events = atomic_load_explicit(&cpu->events, memory_order_acquire);
    bool shadow = cpu->interrupt_shadow, debug_shadow = cpu->debug_shadow;

    /* The shadow covers one instruction: the one that ran since it was set, or (engines that call this at once)
     * the one that comes. Either way it is over at the next call. */
    cpu->interrupt_shadow = cpu->debug_shadow = false;
    if (events & (CPU_EVENT_FLUSH_TLB | CPU_EVENT_WORK | CPU_EVENT_SMI | CPU_EVENT_STOP)) {
        if (take_service_events(cpu, events)) {
            cpu->interrupt_shadow = shadow;
            cpu->debug_shadow = debug_shadow;
            return STEP_EXIT;
        }
    }
    if (events & CPU_EVENT_INIT)
        return take_init(cpu);
    if (events & CPU_EVENT_SIPI)
        return take_sipi(cpu);
    if (cpu->activity == CPU_WAIT_FOR_SIPI || cpu->activity == CPU_SHUTDOWN)
        return STEP_NEXT;
    if (cpu->pending_debug && !debug_shadow)
        return take_debug_trap(cpu);
    if ((events & CPU_EVENT_NMI) && !cpu->nmi_blocked && !debug_shadow)
        return take_nmi(cpu);
    if ((events & CPU_EVENT_INTR) && (cpu->rflags & FLAG_IF) && !shadow)
        return take_interrupt(cpu);
    return STEP_NEXT;
}
