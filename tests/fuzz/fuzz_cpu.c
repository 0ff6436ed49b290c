/* A CPU in any mode, with any registers and page tables, executing any bytes: no crash, no hang, the invariants of
 * cpu_check.c, and instructions that fault have done nothing. Or two CPUs, one executing cached blocks, the other
 * single instructions: they must do the same. On the engine that EIDOLON_ENGINE names.
 *
 * Input: a header (read_setup), events and pokes (counts in the header), and code. */
#include <string.h>

#include "base/log.h"
#include "cpu/decode/insn.h"
#include "tests/common/engine.h"
#include "tests/decode/generate.h"
#include "tests/devices/fake_loop.h"
#include "tests/fuzz/cpu_rig.h"

#define MAX_STEPS        96
#define MAX_SINGLE_STEPS 4000
#define MAX_EVENTS       8
#define MAX_POKES        16

enum { RUN_BLOCKS = 1, RUN_LOGGED = 2, RUN_UNCHECKED = 4, RUN_BOTH = 8 };

struct event {
    uint8_t step, kind;
    uint32_t argument;
};

struct test {
    uint8_t model, how; /* RUN_* */
    uint16_t start;     /* offset of the first instruction in its page */
    struct cpu_rig_setup setup;
    unsigned event_count, poke_count;
    struct event events[MAX_EVENTS];
};

void fuzz_setup(void)
{
}

/* Mirrored by add_header. */
static void read_setup(struct fuzz_input *input, struct test *test)
{
    struct cpu_rig_setup *setup = &test->setup;
    uint8_t mode, counts;

    test->model = fuzz_u8(input);
    test->how = fuzz_u8(input);
    mode = fuzz_u8(input);
    setup->mode = mode % CPU_RIG_MODES;
    setup->paging = (mode >> 3) % 3;
    setup->cpl = mode & 0x80 ? 3 : 0;
    setup->cr0 = fuzz_u32(input);
    setup->cr4 = fuzz_u32(input) | (uint64_t)(mode >> 6 & 1) << 32;
    setup->efer = fuzz_u16(input) | (uint64_t)fuzz_u8(input) << 16;
    setup->rflags = fuzz_u32(input);
    setup->xcr0 = fuzz_u8(input);
    setup->dr7 = fuzz_u32(input);
    setup->seed = fuzz_u64(input);
    test->start = fuzz_u16(input) & 0xfff;
    counts = fuzz_u8(input);
    test->event_count = MIN(counts & 15, MAX_EVENTS);
    test->poke_count = MIN(counts >> 4, MAX_POKES);
    for (unsigned i = 0; i < test->event_count; i++) {
        test->events[i].step = fuzz_u8(input);
        test->events[i].kind = fuzz_u8(input);
        test->events[i].argument = fuzz_u32(input);
    }
}

/* Changes tables, page tables or data: a 32-bit word below 256 KiB. */
static void poke(struct cpu_rig *rig, struct fuzz_input *input)
{
    gpa_t gpa = fuzz_u16(input) * 4u;
    uint32_t change = fuzz_u32(input), word;

    memcpy(&word, rig->ram + gpa, 4);
    word ^= change;
    physmem_write(rig->mem, gpa, &word, 4);
}

/* ---- Events ---- */

/* Saved and loaded, twice: both images are the same. (What was waiting to be done for other threads is not saved, so
 * that the state before may differ.) */
static void reload_state(struct cpu_rig *rig)
{
    struct state_buffer images[3] = { 0 };
    struct error err = { "" };

    for (unsigned i = 0; i < 3; i++) {
        fuzz_need(!state_save(&images[i], &cpu_state_table, rig->cpu, &err), &err);
        fuzz_need(!state_load(&images[i], &cpu_state_table, rig->cpu, &err), &err);
    }
    for (size_t i = 0; i < images[1].size; i++) {
        if (images[1].data[i] != images[2].data[i])
            FUZZ_FAIL("saved state: byte %zu is 0x%x, then 0x%x", i, images[1].data[i], images[2].data[i]);
    }
    for (unsigned i = 0; i < 3; i++)
        state_buffer_free(&images[i]);
}

static void happen(struct cpu_rig *rig, const struct event *event)
{
    struct cpu *cpu = rig->cpu;
    uint32_t argument = event->argument;

    switch (event->kind % 12) {
    case 0:
    case 1:
        rig->apic.vector = argument & 0xff;
        cpu_event_set(cpu, CPU_EVENT_INTR);
        break;
    case 2:
        cpu_event_set(cpu, CPU_EVENT_NMI);
        break;
    case 3:
        cpu_event_set(cpu, CPU_EVENT_INIT);
        break;
    case 4:
        cpu_sipi(cpu, (uint8_t)argument);
        break;
    case 5:
        cpu_event_set(cpu, CPU_EVENT_FLUSH_TLB);
        break;
    case 6:
    case 7:
        physmem_write(rig->mem, CPU_CODE + (argument & 0xfff), &argument, 4);
        break; /* DMA over code */
    case 8:
        reload_state(rig);
        break;
    case 9:
        physmem_set_enabled(rig->rom, argument & 1);
        break;
    case 10:
        fake_time_advance(argument);
        break;
    default:
        cpu_event_set(cpu, CPU_EVENT_SMI);
        break;
    }
}

/* ---- Running ---- */

/* Of the instruction that is about to run; HANDLER_COUNT: it cannot be read. */
static unsigned handler_at_rip(struct cpu *cpu)
{
    gva_t gva = cpu->cpu_rip + (cpu->code_size == CODE64 ? 0 : cpu->segs[SEG_CS].base);
    struct mmu_target target;
    struct fault fault;
    struct insn insn;

    if (cpu->code_size != CODE64)
        gva = (uint32_t)gva;
    if ((gva_t)((int64_t)(gva << 16) >> 16) != gva ||
        mmu_translate(&cpu->mmu, gva, MMU_EXECUTE, cpu->cpl == 3 ? MMU_USER : MMU_SUPERVISOR, &target, &fault) ||
        !target.host)
        return HANDLER_COUNT;
    if (insn_decode(target.host, PAGE_SIZE - (gva & ~PAGE_MASK), cpu->code_size, &insn) != DECODE_OK)
        return HANDLER_COUNT;
    return insn.row->handler;
}

static enum step step_checked(struct cpu_rig *rig, struct cpu_snapshot *snapshot)
{
    struct cpu *cpu = rig->cpu;
    unsigned handler = handler_at_rip(cpu);
    enum step step;

    cpu_snapshot_take(snapshot, rig);
    step = test_step_no_deliver(cpu);
    if (step == STEP_FAULT) {
        cpu_snapshot_check(snapshot, rig, handler);
        step = cpu_deliver_exception(cpu);
    }
    return step;
}

/* STEP_EXIT: nothing more to do. */
static enum step run_step(struct cpu_rig *rig, const struct test *test, struct cpu_snapshot *snapshot,
                          uint64_t *executed)
{
    struct cpu *cpu = rig->cpu;
    bool shadow = cpu->interrupt_shadow || cpu->debug_shadow; /* covers one instruction */
    bool block = (test->how & RUN_BLOCKS) && !shadow;
    enum step step;

    if (!cpu_rig_attend(rig, !block && !(test->how & RUN_BOTH)))
        return STEP_EXIT;
    cpu_check_invariants(cpu);
    if (block)
        step = test_step_block(cpu, executed);
    else if (test->how & RUN_UNCHECKED)
        step = test_step(cpu, executed);
    else
        step = step_checked(rig, snapshot);
    cpu_check_invariants(cpu);
    return step;
}

static void start(struct cpu_rig *rig, const struct test *test, struct fuzz_input input)
{
    cpu_rig_start(rig, &test->setup);
    for (unsigned i = 0; i < test->poke_count; i++)
        poke(rig, &input);
    rig->cpu->cpu_rip += test->start;
    physmem_write(rig->mem, CPU_CODE + test->start, input.data, MIN(input.size, 0x1f00u - test->start));
}

static void run_alone(const struct test *test, struct fuzz_input input)
{
    struct cpu_rig *rig = cpu_rig_get(test->model, false);
    struct cpu_snapshot snapshot;

    start(rig, test, input);
    cpu_snapshot_create(&snapshot, rig);
    for (unsigned step = 0; step < MAX_STEPS; step++) {
        fake_time_advance(1000);
        for (unsigned i = 0; i < test->event_count; i++) {
            if (test->events[i].step == step)
                happen(rig, &test->events[i]);
        }
        if (run_step(rig, test, &snapshot, NULL) == STEP_EXIT)
            break;
    }
    cpu_snapshot_destroy(&snapshot);
}

/* One of two CPUs that do the same. */
struct runner {
    struct cpu_rig *rig;
    struct test test;
    enum step last;
    unsigned steps;
    uint64_t repeats;  /* parts of REP instructions: how large they are depends on the TLB */
    uint64_t executed; /* by translated code */
};

/* What has been done: instructions, and what came between them. */
static uint64_t progress(const struct runner *runner)
{
    const struct cpu *cpu = runner->rig->cpu;

    return cpu->stats.instructions + cpu->stats.exceptions + cpu->stats.interrupts + runner->executed - runner->repeats;
}

static void run(struct runner *runner)
{
    const uint64_t *instructions = &runner->rig->cpu->stats.instructions;
    uint64_t before = *instructions;

    runner->last = run_step(runner->rig, &runner->test, NULL, &runner->executed);
    if (runner->last == STEP_REPEAT)
        runner->repeats += *instructions - before;
    runner->steps++;
}

/* One block, whole REP instructions. */
static void run_block(struct runner *runner)
{
    do {
        run(runner);
    } while (runner->last == STEP_REPEAT && runner->steps < MAX_SINGLE_STEPS);
}

static struct runner make_runner(const struct test *test, bool other, uint8_t how, struct fuzz_input input)
{
    struct runner runner = { .rig = cpu_rig_get(test->model, other), .test = *test };

    runner.test.how = RUN_BOTH | RUN_UNCHECKED | how;
    start(runner.rig, test, input);
    return runner;
}

/* Time stands still, so that both read the same clock. Events are left out: they would have to come at the same
 * instruction. */
static void run_both(const struct test *test, struct fuzz_input input)
{
    struct runner a = make_runner(test, false, RUN_BLOCKS, input), b = make_runner(test, true, 0, input);

    for (unsigned block = 0; block < MAX_STEPS && a.last != STEP_EXIT; block++) {
        run_block(&a);
        while (b.last != STEP_EXIT && (progress(&b) < progress(&a) || a.last == STEP_EXIT)) {
            run(&b);
            if (b.steps >= MAX_SINGLE_STEPS)
                return;
        }
        if (a.last == STEP_REPEAT)
            return; /* a REP without end */
        FUZZ_CHECK((a.last == STEP_EXIT) == (b.last == STEP_EXIT));
        cpu_check_same(a.rig, b.rig, block % 16 == 15 || a.last == STEP_EXIT);
    }
}

/* RDTSC, RDTSCP: translated code reads the host's counter, not the clock that stands still. */
static bool reads_clock(struct fuzz_input input)
{
    return memmem(input.data, input.size, "\x0f\x31", 2) || memmem(input.data, input.size, "\x0f\x01\xf9", 3);
}

void fuzz_one(struct fuzz_input input)
{
    struct test test = { 0 };

    read_setup(&input, &test);
    /* How long old translations of a page live that is mapped anew without INVLPG depends on how code is fetched. */
    test.setup.protect_tables = test.how & RUN_BOTH;
    log_mask = test.how & RUN_LOGGED ? ~0u : 0;
    if (!(test.how & RUN_BOTH))
        run_alone(&test, input);
    else if (!test_engine_is_jit() || !reads_clock(input))
        run_both(&test, input);
}

/* ---- Seeds ---- */

static void add_header(struct fuzz_seed *seed, uint8_t mode, uint8_t how, uint64_t random)
{
    fuzz_add_u8(seed, (uint8_t)(fuzz_random(&random) % 6 < 3 ? 0 : fuzz_random(&random)));
    fuzz_add_u8(seed, how);
    fuzz_add_u8(seed, mode);
    fuzz_add_u32(seed, CR0_NE | CR0_MP | CR0_WP | (fuzz_random(&random) & 1 ? CR0_AM : 0));
    fuzz_add_u32(seed, CR4_OSFXSR | CR4_OSXMMEXCPT | CR4_OSXSAVE | CR4_PSE | CR4_PGE | CR4_FSGSBASE | CR4_DE);
    fuzz_add_u16(seed, EFER_SCE | EFER_NXE);
    fuzz_add_u8(seed, 0);
    fuzz_add_u32(seed, fuzz_random(&random) & 1 ? FLAG_IF | FLAG_IOPL : FLAG_IF);
    fuzz_add_u8(seed, 7);
    fuzz_add_u32(seed, fuzz_random(&random) % 8 ? 0 : 0x000d0003);
    fuzz_add_u64(seed, fuzz_random(&random));
    fuzz_add_u16(seed, (uint16_t)(fuzz_random(&random) & 1 ? 0 : 0xfe8));
    fuzz_add_u8(seed, 0x11);
    fuzz_add_u8(seed, 5);
    fuzz_add_u8(seed, (uint8_t)fuzz_random(&random));
    fuzz_add_u32(seed, (uint32_t)fuzz_random(&random));
    fuzz_add_u16(seed, (uint16_t)fuzz_random(&random));
    fuzz_add_u32(seed, 0);
}

/* In each mode, some instructions of the table after each other. */
bool fuzz_make_seed(unsigned n, struct fuzz_seed *seed)
{
    const unsigned rows_in_seed = 24;
    struct random random = { n };
    unsigned mode = n % CPU_RIG_MODES, first = n / CPU_RIG_MODES * rows_in_seed * 7 % insn_row_count;
    enum code_size code_size = mode >= CPU_LONG                                  ? CODE64
                               : mode == CPU_PROTECTED32 || mode == CPU_COMPAT32 ? CODE32
                                                                                 : CODE16;

    if (n >= 200)
        return false;
    add_header(seed, (uint8_t)(mode | (n / 8 % 3) << 3 | (n / 24 & 1) << 7),
               n / 8 % 4    ? RUN_BOTH
               : n / 32 & 1 ? RUN_BLOCKS
                            : 0,
               n);
    for (unsigned i = 0; i < rows_in_seed; i++) {
        uint8_t bytes[GENERATED_BYTES];
        struct insn insn;

        generate_row(&random, &insn_rows[(first + i) % insn_row_count], code_size, bytes);
        if (insn_decode(bytes, sizeof(bytes), code_size, &insn) == DECODE_OK)
            fuzz_add(seed, bytes, insn.length);
    }
    return true;
}
