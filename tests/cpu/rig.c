/* See rig.h. */
#include "rig.h"

#include "tests/common/engine.h"

static const uint64_t gdt[] = {
    0,
    0x00cf9b000000ffff, /* 08 code 32, DPL 0 */
    0x00cf93000000ffff, /* 10 data, DPL 0 */
    0x00af9b000000ffff, /* 18 code 64, DPL 0 */
    0x00cffb000000ffff, /* 20 code 32, DPL 3 */
    0x00cff3000000ffff, /* 28 data, DPL 3 */
    0x00affb000000ffff, /* 30 code 64, DPL 3 */
    0x0000890030000067,
    0,                  /* 38 TSS at 0x3000 */
    0x00cf13000000ffff, /* 48 data, not present */
    0x00cf9f000000ffff, /* 50 conforming code 32, DPL 0 */
    0,
    0,                  /* 58 call gate, filled by tests */
    0x00cff1000000ffff, /* 68 data, read-only, DPL 3 */
    0x00008200400000ff,
    0,                  /* 70 LDT at 0x4000 */
    0x00cff9000000ffff, /* 80 code 32, execute-only, DPL 3 */
};

void rig_write(struct rig *rig, gpa_t gpa, uint64_t value, unsigned size)
{
    cr_assert(physmem_write(rig->mem, gpa, &value, size));
}

uint64_t rig_read(struct rig *rig, gpa_t gpa, unsigned size)
{
    uint64_t value = 0;

    cr_assert(physmem_read(rig->mem, gpa, &value, size));
    return value;
}

/* The first GiB, identity, user and writable, in 2 MiB pages. */
static void make_page_tables(struct rig *rig)
{
    rig_write(rig, RIG_PAGES, (RIG_PAGES + 0x1000) | 7, 8);
    rig_write(rig, RIG_PAGES + 0x1000, (RIG_PAGES + 0x2000) | 7, 8);
    for (unsigned i = 0; i < 512; i++)
        rig_write(rig, RIG_PAGES + 0x2000 + i * 8, (uint64_t)i << 21 | 0x87, 8);
}

static void make_tables(struct rig *rig, enum rig_mode mode)
{
    struct cpu *cpu = rig->cpu;

    cr_assert(physmem_write(rig->mem, RIG_GDT, gdt, sizeof(gdt)));
    cpu->gdtr = (struct table_register){ .base = RIG_GDT, .limit = sizeof(gdt) - 1 };
    cpu->idtr = (struct table_register){ .base = RIG_IDT, .limit = mode == RIG_LONG ? 0xfff : 0x7ff };
    cpu->tr = (struct segment_register){
        .base = RIG_TSS, .limit = 0x67, .attributes = SYS_TSS_BUSY | SEG_ATTR_P, .selector = SEL_TSS
    };
    cpu->ldtr = segment_null(0, 0);
    if (mode == RIG_LONG) {
        rig_write(rig, RIG_TSS + 4, RIG_INNER_STACK, 8);
        rig_write(rig, RIG_TSS + 36, RIG_IST_STACK, 8);
    } else {
        rig_write(rig, RIG_TSS + 4, RIG_INNER_STACK, 4);
        rig_write(rig, RIG_TSS + 8, SEL_DATA, 2);
    }
}

static void set_flat(struct cpu *cpu, enum segment seg, uint16_t selector, uint32_t attributes)
{
    cpu_set_segment(cpu, seg, selector, 0, 0xffffffff, attributes);
}

static void enter_mode(struct rig *rig, enum rig_mode mode)
{
    struct cpu *cpu = rig->cpu;

    cpu_set_cr0(cpu, CR0_ET | CR0_NE);
    if (mode == RIG_REAL) {
        cpu->idtr.limit = 0x3ff;
        cpu->idtr.base = RIG_IDT;
        cpu_set_segment(cpu, SEG_CS, 0, 0, 0xffff, 0x93);
        cpu->gpr[REG_RSP] = RIG_KERNEL_STACK;
        cpu->cpu_rip = RIG_CODE;
        return;
    }
    make_tables(rig, mode);
    cpu_set_cr0(cpu, CR0_PE | CR0_ET | CR0_NE);
    if (mode == RIG_LONG) {
        make_page_tables(rig);
        cpu_set_cr4(cpu, CR4_PAE | CR4_PGE | CR4_OSFXSR);
        cpu_set_cr3(cpu, RIG_PAGES, false);
        cpu_set_efer(cpu, EFER_SCE | EFER_LME | EFER_NXE);
        cpu_set_cr0(cpu, cpu->cr0 | CR0_PG | CR0_WP);
    }
    for (unsigned seg = 0; seg < SEG_COUNT; seg++)
        set_flat(cpu, seg, SEL_DATA, 0xc093);
    set_flat(cpu, SEG_CS, mode == RIG_LONG ? SEL_CODE64 : SEL_CODE32, mode == RIG_LONG ? 0xa09b : 0xc09b);
    cpu->gpr[REG_RSP] = RIG_KERNEL_STACK;
    cpu->cpu_rip = RIG_CODE;
}

void rig_init(struct rig *rig, const char *model, enum rig_mode mode)
{
    struct error err;

    memset(rig, 0, sizeof(*rig));
    pthread_mutex_init(&rig->lock, NULL);
    clock_init(&rig->clock);
    rig->mem = physmem_create(16 * MIB, &rig->lock, &err);
    cr_assert(rig->mem, "%s", err.text);
    cr_assert(physmem_add_ram(rig->mem, 0, 16 * MIB, 0, "ram", &err), "%s", err.text);
    rig->ports = port_space_create(&rig->lock);
    rig->model = cpuid_model_create(model, &rig->clock, 40, 1, &err);
    cr_assert(rig->model, "%s", err.text);
    rig->cpu = cpu_create(0, rig->model, test_engine(), rig->mem, rig->ports, &rig->clock, &err);
    cr_assert(rig->cpu, "%s", err.text);
    enter_mode(rig, mode);
}

void rig_free(struct rig *rig)
{
    cpu_destroy(rig->cpu);
    cpuid_model_destroy(rig->model);
    port_space_destroy(rig->ports);
    physmem_destroy(rig->mem);
    pthread_mutex_destroy(&rig->lock);
}

void rig_set_user(struct rig *rig, bool code64)
{
    struct cpu *cpu = rig->cpu;

    for (unsigned seg = 0; seg < SEG_COUNT; seg++)
        if (seg != SEG_CS)
            set_flat(cpu, seg, SEL_USER_DATA | 3, 0xc0f3);
    set_flat(cpu, SEG_CS, (code64 ? SEL_USER_CODE64 : SEL_USER_CODE32) | 3, code64 ? 0xa0fb : 0xc0fb);
    cpu->gpr[REG_RSP] = RIG_USER_STACK;
}

void rig_gate(struct rig *rig, unsigned vector, unsigned type, unsigned dpl, uint16_t selector, uint64_t offset,
              unsigned ist)
{
    bool wide = cpu_long_mode(rig->cpu);
    uint64_t low = (offset & 0xffff) | (uint64_t)selector << 16 | (uint64_t)ist << 32 | (uint64_t)type << 40 |
                   (uint64_t)dpl << 45 | BIT(47) | (offset & 0xffff0000) << 32;

    rig_write(rig, RIG_IDT + vector * (wide ? 16 : 8), low, 8);
    if (wide)
        rig_write(rig, RIG_IDT + vector * 16 + 8, offset >> 32, 8);
}

enum step rig_execute(struct rig *rig, const void *bytes, size_t size)
{
    cr_assert(physmem_write(rig->mem, RIG_CODE, bytes, size));
    rig->cpu->cpu_rip = RIG_CODE - (cpu_protected(rig->cpu) ? 0 : rig->cpu->segs[SEG_CS].base);
    return test_step_whole(rig->cpu, 1);
}
