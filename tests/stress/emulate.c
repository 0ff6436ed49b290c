/* The guest: the child's pages in user mode, and above them as little of a kernel as catches exceptions. The engine runs
 * as it does in a machine: blocks are chained, nothing is stepped. An exception leads to its handler, which writes to a
 * port, which stops the vCPU; the frame on the kernel's stack says what happened and where.
 *
 * What the engine has cached stays from run to run and from case to case, unless the code is another. */
#include "tests/common/engine.h"
#include "tests/common/user_guest.h"
#include "tests/stress/stress.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#define MEMORY_GPA 0x100000u
#define KERNEL_GPA 0x200000u
#define KERNEL_GVA 0xffff800000000000ull
#define STOP_PORT  0xf4
#define PATTERNS   4
#define PAGES      (STRESS_MEMORY / PAGE_SIZE)
#define CODE_PAGES (STRESS_CODE_SIZE / PAGE_SIZE)

enum { /* the kernel's pages */
       KERNEL_IDT = 0x0000,
       KERNEL_GDT = 0x1000,
       KERNEL_TSS = 0x1800,
       KERNEL_HANDLERS = 0x2000, /* 16 bytes each */
       KERNEL_STACK = 0x3000,
       KERNEL_SIZE = 0x4000,
       KERNEL_CODE_SELECTOR = 0x08,
};

struct stress_guest {
    struct user_guest guest;
    uint8_t *memory; /* the pages in guest-physical order */
    uint8_t *patterns[PATTERNS];
    /* The watchdog: notices a run that does not end. */
    pthread_t watchdog;
    _Atomic bool quit, running, hung;
    _Atomic unsigned run_number;
};

/* Pages that are neighbours for the program are not for the guest's RAM: an access that runs over a page's end without
 * having been split finds something else. 5 and the number of pages have no common divisor. */
_Static_assert(PAGES % 5 != 0, "page_number");
static unsigned page_number(unsigned page)
{
    return page * 5 % PAGES;
}

static uint8_t *page_pointer(const struct stress_guest *g, unsigned page)
{
    return g->memory + page_number(page) * PAGE_SIZE;
}

/* ---- The kernel ---- */

static void stop_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
    (void)offset, (void)size, (void)value;
    cpu_event_set(((struct stress_guest *)opaque)->guest.cpu, CPU_EVENT_STOP);
}

static const struct io_ops stop_port = { .write = stop_write, .min_size = 1, .max_size = 4 };

static void write_kernel(struct stress_guest *g, unsigned offset, const void *bytes, unsigned size)
{
    physmem_write(g->guest.physmem, KERNEL_GPA + offset, bytes, size);
}

static void make_kernel(struct stress_guest *g)
{
    const uint64_t code64 = 0x00af9b000000ffff, stack = KERNEL_GVA + KERNEL_STACK + PAGE_SIZE;
    const uint8_t handler[] = { 0xe6, STOP_PORT, 0xeb, 0xfc }; /* out, jmp back */
    struct cpu *cpu = g->guest.cpu;
    struct error err = { 0 };

    for (unsigned vector = 0; vector < 256; vector++) {
        uint64_t address = KERNEL_GVA + KERNEL_HANDLERS + vector * 16;
        uint64_t gate[2] = { (address & 0xffff) | KERNEL_CODE_SELECTOR << 16 | 0x8eull << 40 |
                                 (address & 0xffff0000) << 32,
                             address >> 32 };
        write_kernel(g, KERNEL_IDT + vector * 16, gate, sizeof(gate));
        write_kernel(g, KERNEL_HANDLERS + vector * 16, handler, sizeof(handler));
    }
    write_kernel(g, KERNEL_GDT + KERNEL_CODE_SELECTOR, &code64, sizeof(code64));
    write_kernel(g, KERNEL_TSS + 4, &stack, sizeof(stack));
    for (unsigned page = 0; page < KERNEL_SIZE; page += PAGE_SIZE)
        user_guest_map(&g->guest, KERNEL_GVA + page, KERNEL_GPA + page,
                       USER_GUEST_SUPERVISOR | USER_GUEST_WRITE | (page == KERNEL_HANDLERS ? USER_GUEST_EXECUTE : 0u));
    cpu->idtr = (struct table_register){ .base = KERNEL_GVA + KERNEL_IDT, .limit = 0xfff };
    cpu->gdtr = (struct table_register){ .base = KERNEL_GVA + KERNEL_GDT, .limit = 0x0f };
    cpu->tr.base = KERNEL_GVA + KERNEL_TSS;
    if (port_space_add(g->guest.ports, STOP_PORT, 1, &stop_port, g, "stop", &err))
        abort();
}

static void map(struct stress_guest *g, uint64_t address, unsigned size, unsigned offset, unsigned rights)
{
    for (unsigned page = 0; page < size; page += PAGE_SIZE)
        user_guest_map(&g->guest, address + page,
                       MEMORY_GPA + page_number((unsigned)((offset + page) / PAGE_SIZE)) * PAGE_SIZE, rights);
}

static void map_memory(struct stress_guest *g)
{
    map(g, STRESS_CODE, STRESS_CODE_SIZE, 0, USER_GUEST_WRITE | USER_GUEST_EXECUTE);
    map(g, STRESS_CODE_ALIAS, STRESS_CODE_SIZE, 0, USER_GUEST_WRITE);
    map(g, STRESS_DATA, STRESS_DATA_SIZE, STRESS_DATA_OFFSET, USER_GUEST_WRITE);
    map(g, STRESS_DATA + STRESS_DATA_SIZE, STRESS_CONST_SIZE, STRESS_CONST_OFFSET, 0);
    map(g, STRESS_DATA_ALIAS, PAGE_SIZE, STRESS_DATA_OFFSET + 2 * PAGE_SIZE, USER_GUEST_WRITE);
    map(g, STRESS_DATA_ALIAS + PAGE_SIZE, PAGE_SIZE, STRESS_DATA_OFFSET, USER_GUEST_WRITE);
    for (unsigned page = 0; STRESS_HAS_HIGH && page < STRESS_DATA_SIZE; page += PAGE_SIZE)
        map(g, STRESS_DATA_HIGH + page, PAGE_SIZE, STRESS_STACK_OFFSET - PAGE_SIZE - page, USER_GUEST_WRITE);
    map(g, STRESS_STACK, STRESS_STACK_SIZE, STRESS_STACK_OFFSET, USER_GUEST_WRITE);
    map(g, STRESS_SLOTS, STRESS_SLOTS_SIZE, STRESS_SLOTS_OFFSET, USER_GUEST_WRITE);
}

/* ---- Runs that do not end ---- */

static void *watch(void *opaque)
{
    struct stress_guest *g = opaque;
    unsigned seen = 0, ticks = 0;

    while (!atomic_load(&g->quit)) {
        nanosleep(&(struct timespec){ .tv_nsec = 20 * 1000 * 1000 }, NULL);
        unsigned number = atomic_load(&g->run_number);
        if (number != seen || !atomic_load(&g->running)) {
            seen = number;
            ticks = 0;
        } else if (++ticks == 100) {
            atomic_store(&g->hung, true);
            cpu_event_set(g->guest.cpu, CPU_EVENT_STOP);
        }
    }
    return NULL;
}

/* ---- Life ---- */

struct stress_guest *stress_guest_create(unsigned l1_entries)
{
    struct stress_guest *g = calloc(1, sizeof(*g));

    if (!g)
        abort();
    user_guest_init(&g->guest, native_has_avx(), native_has_fsgsbase());
    mmu_set_l1_limit(&g->guest.cpu->mmu, l1_entries);
    make_kernel(g);
    map_memory(g);
    g->memory = physmem_ram_pointer(g->guest.physmem, MEMORY_GPA, STRESS_MEMORY);
    for (unsigned i = 0; i < PATTERNS; i++) {
        if (!(g->patterns[i] = calloc(1, STRESS_MEMORY)))
            abort();
        stress_memory(i, g->patterns[i]);
    }
    for (unsigned page = 0; page < PAGES; page++)
        memcpy(page_pointer(g, page), g->patterns[0] + page * PAGE_SIZE, PAGE_SIZE);
    if (pthread_create(&g->watchdog, NULL, watch, g))
        abort();
    return g;
}

void stress_guest_destroy(struct stress_guest *g)
{
    atomic_store(&g->quit, true);
    pthread_join(g->watchdog, NULL);
    user_guest_free(&g->guest);
    for (unsigned i = 0; i < PATTERNS; i++)
        free(g->patterns[i]);
    free(g);
}

const struct cpuid_model *stress_guest_model(const struct stress_guest *g)
{
    return g->guest.model;
}

void stress_guest_flush(struct stress_guest *g)
{
    struct cpu *cpu = g->guest.cpu;

    mmu_flush_all(&cpu->mmu);
    cpu->engine->flush(cpu);
}

/* ---- A run ---- */

/* Code only where it is another: translations of the rest stay good. */
static void load_code_page(struct stress_guest *g, unsigned page, const uint8_t *code)
{
    const uint8_t *now = page_pointer(g, page);
    unsigned first = 0, last = PAGE_SIZE;

    while (first < last && now[first] == code[first])
        first++;
    while (first < last && now[last - 1] == code[last - 1])
        last--;
    if (first < last)
        physmem_write(g->guest.physmem, MEMORY_GPA + page_number(page) * PAGE_SIZE + first, code + first, last - first);
}

static void load_memory(struct stress_guest *g, const struct stress_case *test)
{
    const uint8_t *pattern = g->patterns[test->pattern % PATTERNS];

    for (unsigned page = 0; page < CODE_PAGES; page++)
        load_code_page(g, page, test->code + page * PAGE_SIZE);
    for (unsigned page = CODE_PAGES; page < STRESS_CHANGEABLE / PAGE_SIZE; page++)
        memcpy(page_pointer(g, page), pattern + page * PAGE_SIZE, PAGE_SIZE);
}

static void load_state(struct stress_guest *g, const struct machine_state *state)
{
    struct cpu *cpu = g->guest.cpu;

    user_guest_enter_user(&g->guest);
    memcpy(cpu->gpr, state->gpr, sizeof(state->gpr));
    cpu->cpu_rip = state->rip;
    cpu_set_rflags(cpu, state->rflags);
    cpu->segs[SEG_FS].base = state->fs_base;
    cpu->segs[SEG_GS].base = state->gs_base;
    memset(cpu->vector.vec, 0, sizeof(cpu->vector.vec));
    for (unsigned i = 0; i < 16; i++)
        memcpy(cpu->vector.vec[i], state->ymm[i], 32);
    memcpy(&cpu->vector.fx, &state->fx, sizeof(state->fx));
    cpu->interrupt_shadow = false;
    cpu->pending_debug = 0;
    cpu->cr2 = 0;
}

static bool has_error_code(unsigned vector)
{
    return vector == 8 || (vector >= 10 && vector <= 14) || vector == 17;
}

/* From the exception's frame: SDM Vol. 3A 6.14.2. */
static void store_state(struct stress_guest *g, struct stress_result *result)
{
    struct cpu *cpu = g->guest.cpu;
    struct machine_state *state = &result->state;
    uint64_t handler = cpu->cpu_rip - (KERNEL_GVA + KERNEL_HANDLERS), frame[6] = { 0 };

    cpu_park_vectors(cpu);
    memcpy(state->gpr, cpu->gpr, sizeof(state->gpr));
    state->rip = cpu->cpu_rip;
    state->rflags = cpu->rflags;
    if (handler < PAGE_SIZE) {
        uint64_t at = cpu->gpr[REG_RSP] - KERNEL_GVA;
        result->outcome.vector = (uint8_t)(handler / 16);
        if (at < KERNEL_SIZE)
            physmem_read(g->guest.physmem, KERNEL_GPA + at, frame, sizeof(frame));
        if (has_error_code(result->outcome.vector))
            result->outcome.error = (uint32_t)frame[0];
        else
            memmove(frame + 1, frame, 5 * sizeof(frame[0]));
        state->rip = frame[1];
        state->rflags = frame[3];
        state->gpr[REG_RSP] = frame[4];
    }
    if (result->outcome.vector == 14)
        result->outcome.cr2 = cpu->cr2;
    state->fs_base = cpu->segs[SEG_FS].base;
    state->gs_base = cpu->segs[SEG_GS].base;
    for (unsigned i = 0; i < 16; i++)
        memcpy(state->ymm[i], cpu->vector.vec[i], 32);
    memcpy(&state->fx, &cpu->vector.fx, sizeof(state->fx));
}

static void run_once(struct stress_guest *g, const struct stress_case *test, unsigned run, struct stress_result *result)
{
    struct cpu *cpu = g->guest.cpu;

    load_memory(g, test);
    load_state(g, &test->state[run]);
    memset(&result->outcome, 0, sizeof(result->outcome));
    atomic_store(&g->hung, false);
    atomic_fetch_add(&g->run_number, 1);
    atomic_store(&g->running, true);
    enum cpu_exit reason = cpu_run(cpu);
    atomic_store(&g->running, false);
    cpu_event_clear(cpu, CPU_EVENT_STOP);
    result->outcome.vector = reason == CPU_EXIT_STOPPED ? OUTCOME_HANG : OUTCOME_DIED;
    store_state(g, result);
    for (unsigned page = 0; page < STRESS_CHANGEABLE / PAGE_SIZE; page++)
        memcpy(result->memory + page * PAGE_SIZE, page_pointer(g, page), PAGE_SIZE);
}

void stress_guest_run(struct stress_guest *g, const struct stress_case *test, struct stress_results *results)
{
    for (unsigned i = 0; i < test->runs; i++)
        run_once(g, test, i, &results->run[i]);
}
