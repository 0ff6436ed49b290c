/* Events: NMI, interrupts, INIT and SIPI, shadows, halting, queued work, and save and restore. */
#include <pthread.h>
#include <unistd.h>

#include "rig.h"

struct fake_apic {
    int vector;
    unsigned acknowledged;
};

static int acknowledge(void *opaque)
{
    struct fake_apic *apic = opaque;

    apic->acknowledged++;
    return apic->vector;
}

static uint64_t get_base(void *opaque)
{
    (void)opaque;
    return 0xfee00900;
}

static const struct cpu_apic_ops apic_ops = { .acknowledge = acknowledge, .get_base = get_base };

static void init(struct rig *rig, struct fake_apic *apic)
{
    rig_init(rig, "max", RIG_LONG);
    cpu_set_apic(rig->cpu, apic, &apic_ops);
    rig_gate(rig, 0x30, SYS_INT_GATE, 0, SEL_CODE64, RIG_HANDLER, 0);
    rig_gate(rig, VECTOR_NMI, SYS_INT_GATE, 0, SEL_CODE64, RIG_HANDLER + 16, 0);
}

Test(event, interrupt)
{
    struct fake_apic apic = { .vector = 0x30 };
    struct rig rig;

    init(&rig, &apic);
    cpu_event_set(rig.cpu, CPU_EVENT_INTR);
    cr_assert_eq(cpu_handle_events(rig.cpu), STEP_NEXT, "IF is clear");
    rig.cpu->rflags |= FLAG_IF;
    rig.cpu->interrupt_shadow = true;
    cr_assert_eq(cpu_handle_events(rig.cpu), STEP_NEXT, "in the shadow of STI");
    cr_assert_eq(cpu_handle_events(rig.cpu), STEP_BRANCH);
    cr_assert_eq(rig.cpu->cpu_rip, RIG_HANDLER);
    cr_assert_eq(apic.acknowledged, 1);
    cr_assert_not(rig.cpu->rflags & FLAG_IF);
    rig_free(&rig);
}

Test(event, withdrawn_interrupt)
{
    struct fake_apic apic = { .vector = -1 };
    struct rig rig;

    init(&rig, &apic);
    rig.cpu->rflags |= FLAG_IF;
    rig.cpu->activity = CPU_HALTED;
    cpu_event_set(rig.cpu, CPU_EVENT_INTR);
    cr_assert_eq(cpu_handle_events(rig.cpu), STEP_NEXT);
    cr_assert_eq(rig.cpu->activity, CPU_HALTED);
    rig_free(&rig);
}

Test(event, nmi)
{
    struct fake_apic apic = { 0 };
    struct rig rig;

    init(&rig, &apic);
    rig.cpu->activity = CPU_HALTED;
    cpu_event_set(rig.cpu, CPU_EVENT_NMI);
    cr_assert_eq(cpu_handle_events(rig.cpu), STEP_BRANCH);
    cr_assert_eq(rig.cpu->activity, CPU_RUNNING);
    cr_assert_eq(rig.cpu->cpu_rip, RIG_HANDLER + 16);
    cpu_event_set(rig.cpu, CPU_EVENT_NMI);
    cr_assert_eq(cpu_handle_events(rig.cpu), STEP_NEXT, "blocked until IRET");
    cr_assert_eq(RIG_EXECUTE(&rig, 0x48, 0xcf), STEP_BRANCH);
    cr_assert_eq(cpu_handle_events(rig.cpu), STEP_BRANCH);
    rig_free(&rig);
}

Test(event, init_and_sipi)
{
    struct fake_apic apic = { 0 };
    struct rig rig;
    struct cpu *cpu;

    init(&rig, &apic);
    cpu = rig.cpu;
    cpu->msrs.star = 0x1234;
    cpu->index = 1;
    cpu_event_set(cpu, CPU_EVENT_INIT);
    cr_assert_eq(cpu_handle_events(cpu), STEP_BRANCH);
    cr_assert_eq(cpu->activity, CPU_WAIT_FOR_SIPI);
    cr_assert_eq(cpu->cr0, 0x10, "CD and NW keep their values");
    cr_assert_eq(cpu->msrs.star, 0x1234, "MSRs stay");
    cpu_sipi(cpu, 0x9a);
    cr_assert_eq(cpu_handle_events(cpu), STEP_BRANCH);
    cr_assert_eq(cpu->activity, CPU_RUNNING);
    cr_assert_eq(cpu->segs[SEG_CS].selector, 0x9a00);
    cr_assert_eq(cpu->segs[SEG_CS].base, 0x9a000);
    cr_assert_eq(cpu->cpu_rip, 0);
    cpu_sipi(cpu, 0x12);
    cr_assert_eq(cpu_handle_events(cpu), STEP_NEXT, "a running CPU ignores it");
    cr_assert_eq(cpu->segs[SEG_CS].selector, 0x9a00);
    rig_free(&rig);
}

Test(event, stop_comes_back)
{
    struct fake_apic apic = { 0 };
    struct rig rig;

    init(&rig, &apic);
    cpu_event_set(rig.cpu, CPU_EVENT_STOP);
    cr_assert_eq(cpu_handle_events(rig.cpu), STEP_EXIT);
    rig_free(&rig);
}

static void count(struct cpu *cpu, void *opaque)
{
    (void)cpu;
    ++*(unsigned *)opaque;
}

Test(event, queued_work)
{
    struct fake_apic apic = { 0 };
    unsigned done = 0;
    struct rig rig;

    init(&rig, &apic);
    cpu_queue_work(rig.cpu, count, &done);
    cpu_queue_work(rig.cpu, count, &done);
    cr_assert_eq(done, 0);
    cpu_handle_events(rig.cpu);
    cr_assert_eq(done, 2);
    cpu_queue_work(rig.cpu, count, &done); /* never run: must not leak */
    rig_free(&rig);
}

static void *wake(void *opaque)
{
    usleep(20000);
    cpu_event_set(opaque, CPU_EVENT_INTR);
    usleep(20000);
    cpu_event_set(opaque, CPU_EVENT_NMI);
    return NULL;
}

Test(event, halted_cpu_wakes, .timeout = 10)
{
    struct fake_apic apic = { .vector = 0x30 };
    pthread_t thread;
    struct rig rig;

    init(&rig, &apic);
    rig.cpu->activity = CPU_HALTED; /* with IF clear only the NMI wakes it */
    pthread_create(&thread, NULL, wake, rig.cpu);
    cpu_wait_for_event(rig.cpu);
    cr_assert(atomic_load(&rig.cpu->events) & CPU_EVENT_NMI);
    pthread_join(thread, NULL);
    rig_free(&rig);
}

/* ---- State ---- */

Test(state, round_trip)
{
    struct state_buffer buffer = { 0 };
    struct error err;
    struct rig a, b;

    rig_init(&a, "max", RIG_LONG);
    rig_set_user(&a, true);
    a.cpu->gpr[REG_R9] = 0x123456789abcdef0;
    a.cpu->vector.vec[7][3] = 0x5a;
    a.cpu->msrs.lstar = 0xffffffff81000000;
    a.cpu->dr[0] = 0x1000;
    a.cpu->dr[7] = 0x403 | 1 << 16;
    cpu_set_pkru(a.cpu, 0x55555554);
    cr_assert_eq(state_save(&buffer, &cpu_state_table, a.cpu, &err), 0, "%s", err.text);

    rig_init(&b, "max", RIG_REAL);
    cr_assert_eq(state_load(&buffer, &cpu_state_table, b.cpu, &err), 0, "%s", err.text);
    cr_assert_arr_eq(a.cpu->gpr, b.cpu->gpr, sizeof(a.cpu->gpr));
    cr_assert_arr_eq(&a.cpu->msrs, &b.cpu->msrs, sizeof(a.cpu->msrs));
    cr_assert_arr_eq(a.cpu->segs, b.cpu->segs, sizeof(a.cpu->segs));
    cr_assert_arr_eq(&a.cpu->vector, &b.cpu->vector, sizeof(a.cpu->vector));
    cr_assert_eq(b.cpu->cpl, 3);
    cr_assert_eq(b.cpu->code_size, CODE64);
    cr_assert_eq(b.cpu->privilege, MMU_USER);
    cr_assert(b.cpu->data_breakpoints);
    cr_assert_eq(b.cpu->mmu.paging.cr3, RIG_PAGES);
    cr_assert_eq(b.cpu->mmu.paging.pkru, 0x55555554);
    state_buffer_free(&buffer);
    rig_free(&a);
    rig_free(&b);
}
