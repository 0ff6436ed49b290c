#include "tests/hostop/fixture.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PTE_P = 1, PTE_W = 2, PTE_U = 4, PML4 = 0x1000, PDPT = 0x2000, PD = 0x3000, PT = 0x4000 };

static void put64(struct fixture *f, gpa_t gpa, uint64_t value)
{
    physmem_write(f->physmem, gpa, &value, 8);
}

static void build_page_tables(struct fixture *f)
{
    put64(f, PML4, PDPT | PTE_P | PTE_W | PTE_U);
    put64(f, PDPT, PD | PTE_P | PTE_W | PTE_U);
    put64(f, PD, PT | PTE_P | PTE_W | PTE_U);
    for (unsigned i = 0; i < 512; i++) {
        gpa_t page = i * PAGE_SIZE;
        uint64_t rights = page == ABSENT_PAGE ? 0 : page == READ_ONLY_PAGE ? PTE_P | PTE_U : PTE_P | PTE_W | PTE_U;
        put64(f, PT + 8 * i, page | rights);
    }
}

static void enter_long_mode(struct cpu *cpu)
{
    cpu_set_cr4(cpu, 1 << 5 | 1 << 9 | 1 << 10 | 1 << 18); /* PAE OSFXSR OSXMMEXCPT OSXSAVE */
    cpu_set_cr3(cpu, PML4, false);
    cpu_set_efer(cpu, 1 << 8 | 1 << 10);
    cpu_set_cr0(cpu, 1u << 31 | 1 << 16 | 1 << 5 | 1); /* PG WP NE PE */
    cpu_set_segment(cpu, SEG_CS, 8, 0, 0xffffffff,
                    SEG_TYPE_CODE | SEG_TYPE_RW | SEG_TYPE_ACCESSED | SEG_ATTR_S | SEG_ATTR_P | SEG_ATTR_L |
                        SEG_ATTR_G);
    cpu->xcr0 = XSTATE_BIT_X87 | XSTATE_BIT_SSE | XSTATE_BIT_AVX;
    cpu->cpu_rip = 0x10000;
    cpu->vector.fx.fcw = FCW_FNINIT;
    cpu->vector.fx.ftw = 0;
}

static void die(const char *what, const struct error *err)
{
    fprintf(stderr, "%s: %s\n", what, err->text);
    abort();
}

struct fixture *fixture_create(void)
{
    struct fixture *f = calloc(1, sizeof(*f));
    struct error err = { "" };
    pthread_mutex_init(&f->lock, NULL);
    clock_init(&f->clock);
    f->physmem = physmem_create(GUEST_RAM, &f->lock, &err);
    if (!f->physmem || !physmem_add_ram(f->physmem, 0, GUEST_RAM, 0, "ram", &err))
        die("guest memory", &err);
    f->model = cpuid_model_create("max", &f->clock, 40, 1, &err);
    if (!f->model)
        die("CPU model", &err);
    f->cpu = cpu_create(0, f->model, NULL, f->physmem, NULL, &f->clock, &err);
    if (!f->cpu)
        die("vCPU", &err);
    build_page_tables(f);
    enter_long_mode(f->cpu);
    physmem_page_set_flags(f->physmem, MMIO_LIKE_PAGE, PAGE_FLAG_CODE);
    return f;
}

void fixture_destroy(struct fixture *f)
{
    cpu_destroy(f->cpu);
    cpuid_model_destroy(f->model);
    physmem_destroy(f->physmem);
    pthread_mutex_destroy(&f->lock);
    free(f);
}

uint8_t *fixture_memory(struct fixture *f, gva_t gva)
{
    return physmem_ram_pointer(f->physmem, gva, 1);
}

/* What the block builder does for one instruction (flat segments only). */
static bool predecode(struct fixture *f, enum code_size code_size, const char *bytes, size_t length)
{
    struct cpu *cpu = f->cpu;
    struct iop *op = &f->op;
    memset(op, 0, sizeof(*op));
    if (insn_decode((const uint8_t *)bytes, length, code_size, &op->insn) != DECODE_OK || op->insn.length != length)
        return false;
    const uint64_t *zero = &cpu->gpr[REG_NONE];
    op->end = op->insn.length;
    op->base = &cpu->gpr[op->insn.mem.base];
    op->index = op->insn.mem.vsib ? zero : &cpu->gpr[op->insn.mem.index];
    op->scale = op->insn.mem.scale;
    op->disp = op->insn.mem.disp;
    op->segment_base = zero;
    op->ea_mask = op->insn.address_size == 4 ? 0xffffffff : ~0ull;
    switch (op->insn.row->handler) {
    case HANDLER_vec:
    case HANDLER_vec_flags:
    case HANDLER_mmx:
    case HANDLER_x87:
        op->stub = hostop_prepare(cpu, &op->insn);
        return op->stub;
    default:
        return true;
    }
}

enum step fixture_run(struct fixture *f, const char *bytes, size_t length)
{
    return fixture_run_mode(f, CODE64, bytes, length);
}

enum step fixture_run_mode(struct fixture *f, enum code_size code_size, const char *bytes, size_t length)
{
    f->cpu->fault = (struct fault){ 0 };
    if (!predecode(f, code_size, bytes, length)) {
        fprintf(stderr, "cannot predecode");
        for (size_t i = 0; i < length; i++)
            fprintf(stderr, " %02x", (uint8_t)bytes[i]);
        fprintf(stderr, "\n");
        return STEP_EXIT;
    }
    return interp_handlers[f->op.insn.row->handler](f->cpu, &f->op);
}

uint64_t random_next(uint64_t *seed)
{
    uint64_t z = *seed += 0x9e3779b97f4a7c15ull;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ z >> 27) * 0x94d049bb133111ebull;
    return z ^ z >> 31;
}

void random_fill(uint64_t *seed, void *buffer, size_t size)
{
    for (size_t i = 0; i < size; i++)
        ((uint8_t *)buffer)[i] = (uint8_t)random_next(seed);
}
