/* Our side: a guest in 64-bit user mode with the child's address space, set up without any guest kernel. One
 * instruction is executed; a fault is looked at, not delivered. */
#include "cpu/interp/interp_internal.h"
#include "tests/insn/insn_test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mmu/physmem.h"

#define RAM_SIZE (4 * MIB)
#define TABLES   0x10000 /* page tables, a page each */
#define CODE_GPA 0x100000
#define DATA_GPA 0x101000

enum { PTE_P = 1, PTE_W = 2, PTE_U = 4 };
#define PTE_NX (1ull << 63)

struct emulated {
    pthread_mutex_t lock;
    struct physmem *physmem;
    struct port_space *ports;
    struct clock clock;
    struct cpuid_model *model;
    struct cpu *cpu;
    uint64_t next_table;
    uint8_t *data;
    uint8_t pattern[DATA_SIZE];
};

static void fail(const char *what, const struct error *err)
{
    fprintf(stderr, "tests/insn: %s: %s\n", what, err->text);
    abort();
}

/* ---- Paging: only our pages exist ---- */

static uint64_t read_entry(struct emulated *e, uint64_t gpa)
{
    uint64_t entry = 0;
    physmem_read(e->physmem, gpa, &entry, 8);
    return entry;
}

static void map_page(struct emulated *e, gva_t gva, gpa_t gpa, uint64_t flags)
{
    uint64_t table = TABLES;
    for (unsigned shift = 39; shift > 12; shift -= 9) {
        uint64_t slot = table + (gva >> shift & 511) * 8, entry = read_entry(e, slot);
        if (!entry) {
            entry = (e->next_table += PAGE_SIZE) | PTE_P | PTE_W | PTE_U;
            physmem_write(e->physmem, slot, &entry, 8);
        }
        table = entry & ~0xfffull;
    }
    uint64_t entry = gpa | flags | PTE_P | PTE_U;
    physmem_write(e->physmem, table + (gva >> 12 & 511) * 8, &entry, 8);
}

static void map_pages(struct emulated *e)
{
    e->next_table = TABLES;
    map_page(e, CODE_BASE, CODE_GPA, PTE_W);
    for (uint64_t i = 0; i < DATA_SIZE; i += PAGE_SIZE)
        map_page(e, DATA_BASE + i, DATA_GPA + i, PTE_NX | (i < DATA_WRITABLE ? PTE_W : 0));
}

/* ---- The CPU: as Linux sets it up for a user program ---- */

static void set_segments(struct cpu *cpu)
{
    const uint32_t user =
        SEG_ATTR_S | SEG_ATTR_P | 3 << SEG_ATTR_DPL_SHIFT | SEG_ATTR_G | SEG_TYPE_ACCESSED | SEG_TYPE_RW;
    uint16_t selector;

    __asm__("mov %%cs, %0" : "=r"(selector));
    cpu_set_segment(cpu, SEG_CS, selector, 0, ~0u, user | SEG_TYPE_CODE | SEG_ATTR_L);
    __asm__("mov %%ss, %0" : "=r"(selector));
    cpu_set_segment(cpu, SEG_SS, selector, 0, ~0u, user | SEG_ATTR_DB);
    for (unsigned seg = SEG_ES; seg < SEG_COUNT; seg++)
        if (seg != SEG_CS && seg != SEG_SS)
            cpu_set_segment(cpu, seg, 0, 0, ~0u, user | SEG_ATTR_DB | SEG_ATTR_UNUSABLE);
    cpu->tr.limit = 0x66; /* no I/O permission map */
    cpu_set_cpl(cpu, 3);
    cpu_update_mode(cpu);
}

static void set_control_registers(struct emulated *e)
{
    struct cpu *cpu = e->cpu;
    bool avx = native_has_avx();
    uint64_t cr4 = 1u << 5 | 1u << 7 | 1u << 9 | 1u << 10 | 1u << 18; /* PAE, PGE, OSFXSR, OSXMMEXCPT, OSXSAVE */

    if (native_has_fsgsbase())
        cr4 |= 1u << 16;
    cpu_set_cr4(cpu, cr4);
    cpu_set_efer(cpu, 1u << 0 | 1u << 8 | 1u << 10 | 1u << 11); /* SCE, LME, LMA, NXE */
    cpu_set_cr3(cpu, TABLES, false);
    cpu_set_cr0(cpu, 1u << 31 | 1u << 18 | 1u << 16 | 1u << 5 | 1u << 4 | 1u << 1 |
                         1u << 0); /* PG, AM, WP, NE, ET, MP, PE */
    cpu->xcr0 = avx ? 7 : 3;
}

struct emulated *emulated_create(void)
{
    struct emulated *e = calloc(1, sizeof(*e));
    struct error err = { 0 };

    pthread_mutex_init(&e->lock, NULL);
    clock_init(&e->clock);
    if (!(e->physmem = physmem_create(RAM_SIZE, &e->lock, &err)) ||
        !physmem_add_ram(e->physmem, 0, RAM_SIZE, 0, "ram", &err))
        fail("memory", &err);
    if (!(e->model = cpuid_model_create("max", &e->clock, 46, 1, &err)))
        fail("CPU model", &err);
    e->ports = port_space_create(&e->lock);
    if (!(e->cpu = cpu_create(0, e->model, &interp_engine, e->physmem, e->ports, &e->clock, &err)))
        fail("CPU", &err);
    map_pages(e);
    set_control_registers(e);
    set_segments(e->cpu);
    memory_pattern(e->pattern);
    e->data = physmem_ram_pointer(e->physmem, DATA_GPA, DATA_SIZE);
    memcpy(e->data, e->pattern, DATA_SIZE);
    return e;
}

void emulated_destroy(struct emulated *e)
{
    cpu_destroy(e->cpu);
    cpuid_model_destroy(e->model);
    port_space_destroy(e->ports);
    physmem_destroy(e->physmem);
    free(e);
}

bool emulated_has(const struct emulated *e, unsigned feature)
{
    return cpuid_model_has(e->model, feature);
}

/* ---- One case ---- */

static void load_state(struct cpu *cpu, const struct machine_state *state)
{
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

static void store_state(const struct cpu *cpu, struct machine_state *state)
{
    memcpy(state->gpr, cpu->gpr, sizeof(state->gpr));
    state->rip = cpu->cpu_rip;
    state->rflags = cpu->rflags;
    state->fs_base = cpu->segs[SEG_FS].base;
    state->gs_base = cpu->segs[SEG_GS].base;
    for (unsigned i = 0; i < 16; i++)
        memcpy(state->ymm[i], cpu->vector.vec[i], 32);
    memcpy(&state->fx, &cpu->vector.fx, sizeof(state->fx));
}

static enum step step_whole(struct cpu *cpu)
{
    enum step step;
    unsigned rounds = 0;
    do
        step = interp_step_no_deliver(cpu);
    while ((step == STEP_REPEAT || step == STEP_RESYNC) && ++rounds < 1000);
    return step;
}

void emulated_run(struct emulated *e, const struct insn_case *test, struct insn_result *result)
{
    struct cpu *cpu = e->cpu;

    memcpy(e->data, e->pattern, DATA_WRITABLE);
    memory_patch_apply(test, e->data);
    physmem_write(e->physmem, CODE_GPA + test->code_offset, test->bytes,
                  MIN(sizeof(test->bytes), PAGE_SIZE - test->code_offset));
    load_state(cpu, &test->state);
    enum step step = step_whole(cpu);
    /* Where a branch goes is fetched from, to see the fault there. */
    if (step != STEP_FAULT && cpu->cpu_rip - CODE_BASE >= PAGE_SIZE && test->branches)
        step = step_whole(cpu);
    result->vector = step == STEP_FAULT ? cpu->fault.vector : OUTCOME_NONE;
    result->error = step == STEP_FAULT ? cpu->fault.error : 0;
    result->cr2 = step == STEP_FAULT && cpu->fault.vector == VECTOR_PF ? cpu->fault.address : 0;
    store_state(cpu, &result->state);
    memory_find_change(test, e->pattern, e->data, result);
    result->completed = true;
}
