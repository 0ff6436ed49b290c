/* Each way from translated code into C, by name: the vector registers keep their values, or are parked before. What is hot
 * must keep them: a guest's page faults and interrupts would otherwise cost two kilobytes of saving each. */
#include "tests/cpu/rig.h"
#include "tests/gpregs/calls.h"
#include "tests/gpregs/live.h"

#define SEED 0x5eed

/* Pages of the rig's RAM without another use. */
enum { DATA = 0x300000, OTHER = 0x301000, CODE = 0x310000, MMIO = 0x2000000, UNASSIGNED = 0x3000000 };

struct fixture {
    struct rig rig;
    struct cpu *other; /* a second vCPU that runs on no thread */
    struct call call;
};

/* ---- Devices that use vector registers ---- */

static double device_state;

static uint64_t device_read(void *opaque, uint64_t offset, unsigned size)
{
    (void)opaque;
    (void)size;
    device_state = device_state * 1.5 + (double)offset;
    return (uint64_t)device_state;
}

static void device_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
    (void)value;
    device_read(opaque, offset, size);
}

static int apic_acknowledge(void *apic)
{
    return (int)device_read(apic, 0, 4) | 0x40;
}
static uint32_t apic_read(void *apic, unsigned offset, unsigned size)
{
    return (uint32_t)device_read(apic, offset, size);
}
static void apic_write(void *apic, unsigned offset, unsigned size, uint32_t value)
{
    device_write(apic, offset, size, value);
}
static bool apic_msr_read(void *apic, uint32_t msr, uint64_t *value)
{
    *value = device_read(apic, msr, 8);
    return true;
}
static bool apic_msr_write(void *apic, uint32_t msr, uint64_t value)
{
    device_write(apic, msr, 8, value);
    return true;
}
static uint8_t apic_get_tpr(void *apic)
{
    return (uint8_t)device_read(apic, 0, 1);
}
static void apic_set_tpr(void *apic, uint8_t tpr)
{
    device_write(apic, 0, 1, tpr);
}
static uint64_t apic_get_base(void *apic)
{
    device_read(apic, 0, 1);
    return 0xfee00900;
}

static const struct cpu_apic_ops apic_ops = { apic_acknowledge, apic_read,    apic_write,   apic_msr_read,
                                              apic_msr_write,   apic_get_tpr, apic_set_tpr, apic_get_base };

/* ---- Set-up ---- */

static void fixture_init(struct fixture *f, enum rig_mode mode)
{
    static const struct io_ops ops = { .read = device_read, .write = device_write, .min_size = 1, .max_size = 8 };
    struct error err;

    rig_init(&f->rig, "max", mode);
    cr_assert(physmem_add_mmio(f->rig.mem, MMIO, PAGE_SIZE, &ops, NULL, "device", &err), "%s", err.text);
    cr_assert(!port_space_add(f->rig.ports, 0x80, 4, &ops, NULL, "device", &err), "%s", err.text);
    cpu_set_apic(f->rig.cpu, f, &apic_ops);
    f->other = NULL;
    f->call = (struct call){ .cpu = f->rig.cpu, .mem = f->rig.mem, .privilege = MMU_SUPERVISOR, .size = 8 };
}

static void add_other_cpu(struct fixture *f)
{
    struct error err;

    f->other = cpu_create(1, f->rig.model, &interp_engine, f->rig.mem, f->rig.ports, &f->rig.clock, &err);
    cr_assert(f->other, "%s", err.text);
}

static void fixture_free(struct fixture *f)
{
    cpu_destroy(f->other);
    rig_free(&f->rig);
}

static void check(struct fixture *f, void (*fn)(void *), enum live_result wanted, const char *what)
{
    enum live_result result = live_run(f->rig.cpu, fn, &f->call, SEED);

    cr_expect(result <= LIVE_PARKED, "%s: %s (seed 0x%x)", what, live_text, SEED);
    if (result <= LIVE_PARKED)
        cr_expect(result == wanted, "%s: vector registers %s", what,
                  wanted == LIVE_KEPT ? "were parked: too dear here" : "were not parked");
}

/* ---- Address translation ---- */

Test(gpregs, translate)
{
    struct fixture f;

    fixture_init(&f, RIG_LONG);
    f.call.gva = DATA;
    mmu_flush_all(&f.rig.cpu->mmu);
    check(&f, call_translate, LIVE_KEPT, "a walk");
    cr_assert_eq(f.rig.cpu->mmu.stats.walks, 1);
    cr_assert_not_null(f.call.target.host);
    check(&f, call_translate, LIVE_KEPT, "an L2 hit");
    cr_assert_eq(f.rig.cpu->mmu.stats.l2_hits, 1);
    f.call.access = MMU_WRITE;
    check(&f, call_translate, LIVE_KEPT, "a walk that sets D");
    f.call.access = MMU_EXECUTE;
    check(&f, call_translate, LIVE_KEPT, "a fetch");
    f.call.gva = RIG_UNMAPPED;
    check(&f, call_translate, LIVE_KEPT, "a page fault");
    cr_assert_eq(f.call.fault.vector, VECTOR_PF);
    f.call.gva = MMIO;
    check(&f, call_translate, LIVE_KEPT, "translation of MMIO");
    cr_assert_null(f.call.target.host);
    check(&f, call_flush_all, LIVE_KEPT, "flush");
    mmu_set_l1_limit(&f.rig.cpu->mmu, 1);
    for (f.call.access = MMU_READ, f.call.gva = DATA; f.call.gva < DATA + 4 * PAGE_SIZE; f.call.gva += PAGE_SIZE)
        check(&f, call_translate, LIVE_KEPT, "eviction");
    fixture_free(&f);
}

Test(gpregs, translate_logged)
{
    struct fixture f;
    struct error err;

    fixture_init(&f, RIG_LONG);
    cr_assert(!log_set_file("/dev/null", &err));
    log_mask = 1u << LOG_mmu | 1u << LOG_exec;
    f.call.gva = RIG_UNMAPPED;
    check(&f, call_translate, LIVE_PARKED, "a page fault that is logged");
    check(&f, call_flush_all, LIVE_PARKED, "a flush that is logged");
    check(&f, call_log, LIVE_PARKED, "log_event, enabled");
    log_mask = 0;
    check(&f, call_log, LIVE_KEPT, "log_event, disabled");
    check(&f, call_warn, LIVE_PARKED, "log_warn");
    fixture_free(&f);
}

/* ---- Exceptions, interrupts, segments ---- */

static void make_gates(struct fixture *f, enum rig_mode mode)
{
    for (unsigned vector = 0; vector < 0x50; vector++)
        rig_gate(&f->rig, vector, SYS_INT_GATE, 0, mode == RIG_LONG ? SEL_CODE64 : SEL_CODE32, RIG_HANDLER,
                 vector == VECTOR_DF && mode == RIG_LONG);
}

static void deliver_all(struct fixture *f, const char *mode)
{
    static const struct fault faults[] = {
        { VECTOR_PF, 2, 0x1234 }, { VECTOR_GP, 8, 0 }, { VECTOR_DE, 0, 0 }, { VECTOR_DB, 0, 1 }, { VECTOR_DF, 0, 0 }
    };

    for (unsigned i = 0; i < ARRAY_SIZE(faults); i++) {
        f->rig.cpu->fault = faults[i];
        check(f, call_deliver_exception, LIVE_KEPT, mode);
        cr_assert_eq(f->call.step, STEP_BRANCH);
    }
    f->call.vector = 0x41;
    check(f, call_deliver_interrupt, LIVE_KEPT, mode);
    cr_assert_eq(f->call.step, STEP_BRANCH);
}

Test(gpregs, deliver)
{
    static const char *const names[] = { "exception in real mode", "exception in protected mode",
                                         "exception in long mode" };
    struct fixture f;

    for (enum rig_mode mode = RIG_REAL; mode <= RIG_LONG; mode++) {
        fixture_init(&f, mode);
        if (mode != RIG_REAL)
            make_gates(&f, mode);
        deliver_all(&f, names[mode]);
        if (mode != RIG_REAL) {
            rig_set_user(&f.rig, mode == RIG_LONG);
            f.rig.cpu->fault = (struct fault){ .vector = VECTOR_GP };
            check(&f, call_deliver_exception, LIVE_KEPT, "exception with a change of stacks");
            cr_assert_eq(f.rig.cpu->cpl, 0);
        }
        fixture_free(&f);
    }
}

Test(gpregs, faults_while_delivering)
{
    struct fixture f;

    fixture_init(&f, RIG_LONG);
    make_gates(&f, RIG_LONG);
    f.rig.cpu->gpr[REG_RSP] = RIG_UNMAPPED + 0x1000;
    f.rig.cpu->fault = (struct fault){ .vector = VECTOR_PF };
    check(&f, call_deliver_exception, LIVE_KEPT, "double fault");
    cr_assert_eq(f.call.step, STEP_BRANCH);
    f.rig.cpu->idtr.limit = 0;
    f.rig.cpu->fault = (struct fault){ .vector = VECTOR_GP };
    check(&f, call_deliver_exception, LIVE_KEPT, "triple fault");
    cr_assert_eq(f.call.step, STEP_EXIT);
    fixture_free(&f);
}

Test(gpregs, events)
{
    struct fixture f;

    fixture_init(&f, RIG_LONG);
    make_gates(&f, RIG_LONG);
    cpu_event_clear(f.rig.cpu, ~0u); /* set-up changed the map of memory */
    cpu_event_set(f.rig.cpu, CPU_EVENT_NMI);
    check(&f, call_handle_events, LIVE_KEPT, "NMI");
    cpu_event_set(f.rig.cpu, CPU_EVENT_INTR);
    cpu_set_rflags(f.rig.cpu, FLAG_IF);
    check(&f, call_handle_events, LIVE_PARKED, "interrupt: asks the APIC");
    cr_assert_eq(f.call.step, STEP_BRANCH);
    cpu_event_clear(f.rig.cpu, CPU_EVENT_INTR);
    cpu_event_set(f.rig.cpu, CPU_EVENT_WORK | CPU_EVENT_FLUSH_TLB);
    check(&f, call_handle_events, LIVE_PARKED, "queued work");
    fixture_free(&f);
}

Test(gpregs, load_segment)
{
    static const struct {
        enum segment segment;
        uint16_t selector;
        int result;
    } loads[] = { { SEG_DS, SEL_DATA, 0 },       { SEG_ES, 0, 0 },          { SEG_FS, SEL_USER_DATA, 0 },
                  { SEG_SS, SEL_DATA, 0 },       { SEG_GS, SEL_TSS, -1 },   { SEG_DS, SEL_ABSENT, -1 },
                  { SEG_SS, SEL_READ_ONLY, -1 }, { SEG_DS, SEL_BEYOND, -1 } };
    struct fixture f;

    fixture_init(&f, RIG_LONG);
    for (unsigned i = 0; i < ARRAY_SIZE(loads); i++) {
        f.call.segment = loads[i].segment;
        f.call.selector = loads[i].selector;
        check(&f, call_load_segment, LIVE_KEPT, "segment load");
        cr_assert_eq(f.call.result, loads[i].result, "load %u", i);
    }
    fixture_free(&f);
}

/* ---- Memory ---- */

Test(gpregs, code_pages)
{
    struct fixture f;

    fixture_init(&f, RIG_LONG);
    f.call.gva = CODE;
    check(&f, call_code_acquire, LIVE_KEPT, "code page acquired");
    check(&f, call_written, LIVE_KEPT, "code page written");
    check(&f, call_code_release, LIVE_KEPT, "code page released");
    check(&f, call_written, LIVE_KEPT, "plain page written");
    physmem_page_clear_flags(f.rig.mem, CODE, PAGE_FLAGS_DIRTY);
    check(&f, call_written, LIVE_KEPT, "page written for the first time");
    fixture_free(&f);
}

Test(gpregs, code_pages_of_others)
{
    struct fixture f;

    fixture_init(&f, RIG_LONG);
    add_other_cpu(&f);
    f.call.gva = CODE;
    check(&f, call_code_acquire, LIVE_PARKED, "code page acquired, beside another vCPU");
    check(&f, call_written, LIVE_PARKED, "code page written, beside another vCPU");
    cr_assert(atomic_load(&f.other->events) & CPU_EVENT_WORK);
    check(&f, call_code_release, LIVE_KEPT, "code page released, beside another vCPU");
    mmu_post_drop_write_tags(&f.rig.cpu->mmu, CODE);
    check(&f, call_run_pending, LIVE_PARKED, "write tags that another thread wants dropped");
    check(&f, call_run_pending, LIVE_KEPT, "nothing pending");
    fixture_free(&f);
}

Test(gpregs, accesses)
{
    struct fixture f;

    fixture_init(&f, RIG_LONG);
    for (f.call.size = 1; f.call.size <= 64; f.call.size++) {
        f.call.gva = OTHER - 3;
        check(&f, call_read, LIVE_KEPT, "read across pages");
        check(&f, call_write, LIVE_KEPT, "write across pages");
        f.call.gva = MMIO + 8;
        check(&f, call_read, LIVE_PARKED, "read of a device");
        check(&f, call_write, LIVE_PARKED, "write to a device");
    }
    f.call.size = 4;
    f.call.gva = UNASSIGNED;
    check(&f, call_read, LIVE_PARKED, "read of nothing");
    check(&f, call_write, LIVE_PARKED, "write to nothing");
    f.call.gva = 0xfee00080;
    cpu_set_cr0(f.rig.cpu, f.rig.cpu->cr0 & ~CR0_PG); /* the rig maps one GiB */
    check(&f, call_read, LIVE_PARKED, "read of the APIC");
    check(&f, call_write, LIVE_PARKED, "write to the APIC");
    f.call.gva = DATA;
    check(&f, call_mmio_read, LIVE_PARKED, "physmem_mmio_read");
    check(&f, call_mmio_write, LIVE_PARKED, "physmem_mmio_write");
    check(&f, call_memory, LIVE_KEPT, "memory functions");
    cr_assert_eq(f.call.result, 0);
    fixture_free(&f);
}
