/* The guest of the CPU fuzzer: descriptor tables with something of everything, page tables of all three kinds over
 * the same memory, devices that answer anything. cpu_rig_start puts all of it into a state that depends on the
 * set-up alone. */
#include "tests/fuzz/cpu_rig.h"

#include <stdlib.h>
#include <string.h>

#include "cpu/xstate.h"
#include "tests/common/engine.h"
#include "tests/devices/fake_loop.h"

/* ---- Devices ---- */

static uint64_t io_read(void *opaque, uint64_t offset, unsigned size)
{
    (void)size;
    return fuzz_random(&((struct cpu_rig *)opaque)->io_value) ^ offset;
}

static void io_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
    (void)size;
    ((struct cpu_rig *)opaque)->io_value ^= value + offset;
}

static const struct io_ops io_ops = { .read = io_read, .write = io_write, .min_size = 1, .max_size = 8 };

static int apic_acknowledge(void *apic)
{
    struct cpu_rig *rig = apic;
    int vector = rig->apic.vector;

    rig->apic.vector = -1;
    cpu_event_clear(rig->cpu, CPU_EVENT_INTR);
    return vector;
}

static uint32_t apic_mmio_read(void *apic, unsigned offset, unsigned size)
{
    return (uint32_t)io_read(apic, offset, size);
}

static void apic_mmio_write(void *apic, unsigned offset, unsigned size, uint32_t value)
{
    io_write(apic, offset, size, value);
}

static bool apic_msr_read(void *apic, uint32_t msr, uint64_t *value)
{
    *value = msr == 0x1b ? ((struct cpu_rig *)apic)->apic.base : io_read(apic, msr, 8);
    return msr < 0x8f0;
}

static bool apic_msr_write(void *apic, uint32_t msr, uint64_t value)
{
    struct cpu_rig *rig = apic;

    if (msr == 0x1b && value >> 40)
        return false;
    if (msr == 0x1b)
        rig->apic.base = value;
    return msr < 0x8f0;
}

static uint8_t apic_get_tpr(void *apic)
{
    return ((struct cpu_rig *)apic)->apic.tpr;
}
static void apic_set_tpr(void *apic, uint8_t tpr)
{
    ((struct cpu_rig *)apic)->apic.tpr = tpr;
}
static uint64_t apic_get_base(void *apic)
{
    return ((struct cpu_rig *)apic)->apic.base;
}

static const struct cpu_apic_ops apic_ops = {
    .acknowledge = apic_acknowledge,
    .mmio_read = apic_mmio_read,
    .mmio_write = apic_mmio_write,
    .msr_read = apic_msr_read,
    .msr_write = apic_msr_write,
    .get_tpr = apic_get_tpr,
    .set_tpr = apic_set_tpr,
    .get_base = apic_get_base,
};

/* ---- Creation ---- */

static void create(struct cpu_rig *rig, const char *model)
{
    static const uint8_t rom[256] = { 0x90, 0x0f, 0x0b, 0xcc, 0xf4, 0xeb, 0xfe };
    struct error err = { "" };

    pthread_mutex_init(&rig->lock, NULL);
    clock_init(&rig->clock);
    rig->mem = physmem_create(CPU_RAM, &rig->lock, &err);
    fuzz_need(rig->mem != NULL, &err);
    fuzz_need(physmem_add_ram(rig->mem, 0, CPU_RAM, 0, "ram", &err) != NULL, &err);
    rig->rom = physmem_add_rom(rig->mem, CPU_ROM, 0x1000, rom, sizeof(rom), "rom", &err);
    fuzz_need(rig->rom && physmem_add_mmio(rig->mem, CPU_MMIO, 0x1800, &io_ops, rig, "mmio", &err), &err);
    rig->ports = port_space_create(&rig->lock);
    fuzz_need(!port_space_add(rig->ports, 0, 0x8000, &io_ops, rig, "io", &err), &err);
    rig->model = cpuid_model_create(model, &rig->clock, 40, 1, &err);
    fuzz_need(rig->model != NULL, &err);
    rig->cpu = cpu_create(0, rig->model, test_engine(), rig->mem, rig->ports, &rig->clock, &err);
    fuzz_need(rig->cpu != NULL, &err);
    rig->ram = physmem_ram_pointer(rig->mem, 0, CPU_RAM);
    /* Held as pages with code for good: a REP that overwrites itself is then seen after each element however it is
     * run. */
    for (gpa_t gpa = CPU_CODE; gpa < CPU_STACK; gpa += PAGE_SIZE)
        physmem_code_acquire(rig->mem, gpa);
}

/* Kept until the process ends: creation costs a thousand times what an input costs. */
struct cpu_rig *cpu_rig_get(unsigned model, bool other)
{
    static const char *const models[CPU_MODELS] = {
        /* without random numbers: inputs must be repeatable */
        "max,-rdrand,-rdseed",
        "qemu64",
        "x86-64-v2",
        "max,-avx,-smep,-pcid,-pku,-umip,-rdrand,-rdseed",
    };
    static struct cpu_rig *rigs[CPU_MODELS][2];
    struct cpu_rig **rig = &rigs[model % CPU_MODELS][other];

    if (!*rig) {
        *rig = calloc(1, sizeof(**rig));
        create(*rig, models[model % CPU_MODELS]);
    }
    return *rig;
}

/* ---- Memory ---- */

/* Page-table bits (SDM Vol. 3A table 4-20). */
enum {
    PTE_P = 1 << 0,
    PTE_RW = 1 << 1,
    PTE_US = 1 << 2,
    PTE_A = 1 << 5,
    PTE_D = 1 << 6,
    PTE_G = 1 << 8,
    PTE_PKEY_SHIFT = 59
};
#define PTE_XD (1ull << 63)

static void put(struct cpu_rig *rig, gpa_t gpa, uint64_t value, unsigned size)
{
    memcpy(rig->ram + gpa, &value, size);
}

static void clear_memory(struct cpu_rig *rig)
{
    uint64_t bitmap[CPU_RAM / PAGE_SIZE / 64] = { 0 };

    physmem_collect_dirty(rig->mem, 0, CPU_RAM, PAGE_FLAG_DIRTY_MIGRATION, bitmap);
    for (unsigned word = 0; word < ARRAY_SIZE(bitmap); word++) {
        for (uint64_t pages = bitmap[word]; pages; pages &= pages - 1)
            memset(rig->ram + (word * 64 + (unsigned)__builtin_ctzll(pages)) * PAGE_SIZE, 0, PAGE_SIZE);
    }
}

static const uint64_t gdt[] = {
    0,
    0x00cf9b000000ffff, /* 08 code 32, DPL 0 */
    0x00cf93000000ffff, /* 10 data, DPL 0 */
    0x00af9b000000ffff, /* 18 code 64, DPL 0 */
    0x00cffb000000ffff, /* 20 code 32, DPL 3 */
    0x00cff3000000ffff, /* 28 data, DPL 3 */
    0x00affb000000ffff, /* 30 code 64, DPL 3 */
    0x0000890030000fff,
    0,                  /* 38 TSS at 0x3000, long enough for an I/O bitmap */
    0x00cf13000000ffff, /* 48 data, not present */
    0x00cf9f000000ffff, /* 50 conforming code 32, DPL 0 */
    0x0000ec0000187000,
    0,                  /* 58 call gate, DPL 3, to 18:7000 */
    0x00cff1000000ffff, /* 68 data, read-only, DPL 3 */
    0x00008200400000ff,
    0,                  /* 70 LDT at 0x4000 */
    0x00cff9000000ffff, /* 80 code 32, execute-only, DPL 3 */
    0x000093000000ffff, /* 88 data 16, DPL 0 */
    0x00009b000000ffff, /* 90 code 16, DPL 0 */
    0x0000f3000000ffff, /* 98 data 16, DPL 3 */
    0x0000fb000000ffff, /* a0 code 16, DPL 3 */
    0x0000970000001000, /* a8 expand-down 16 */
    0x00c0970000000010, /* b0 expand-down 32 */
    0x0000e40000087000, /* b8 16-bit call gate to 08:7000 */
    0x0000e50000c00000, /* c0 task gate to c8 */
    0x000081003a00002b, /* c8 16-bit TSS at 0x3a00 */
    0x00ef9b000000ffff, /* d0 code with L and D: reserved */
    0x8000930000005fff, /* d8 data with a high base */
};

static void make_tables(struct cpu_rig *rig, bool wide)
{
    struct cpu *cpu = rig->cpu;

    memcpy(rig->ram + CPU_GDT, gdt, sizeof(gdt));
    memcpy(rig->ram + CPU_LDT, gdt, sizeof(gdt));
    memset(rig->ram + CPU_HANDLERS, 0xcf, 0x1000); /* iret */
    if (wide) {
        for (unsigned i = 0; i < 0x800; i += 2)
            rig->ram[CPU_HANDLERS + i] = 0x48; /* iretq */
    }
    for (unsigned vector = 0; vector < 256; vector++) {
        uint64_t offset = CPU_HANDLERS + vector * 8;
        uint64_t gate =
            (offset & 0xffff) | (wide ? 0x18ull : 0x08ull) << 16 | (vector % 8 == 4 ? 0xefull : 0x8eull) << 40;

        if (vector == VECTOR_DF && wide)
            gate |= 1ull << 32; /* IST1 */
        if (vector % 32 == 31 && !wide)
            gate = 0x0000e50000c00000; /* a task gate */
        put(rig, CPU_IDT + vector * (wide ? 16 : 8), gate, 8);
    }
    put(rig, CPU_TSS + 4, CPU_STACK, wide ? 8 : 4);
    if (wide)
        put(rig, CPU_TSS + 36, CPU_IST_STACK, 8);
    else
        put(rig, CPU_TSS + 8, 0x10, 2);
    put(rig, CPU_TSS + 102, 0x68, 2);
    cpu->gdtr = (struct table_register){ .base = CPU_GDT, .limit = sizeof(gdt) - 1 };
    cpu->idtr = (struct table_register){ .base = CPU_IDT, .limit = wide ? 0xfff : 0x7ff };
    cpu->ldtr = (struct segment_register){
        .base = CPU_LDT, .limit = 0xff, .attributes = SYS_LDT | SEG_ATTR_P, .selector = 0x70
    };
    cpu->tr = (struct segment_register){
        .base = CPU_TSS, .limit = 0xfff, .attributes = SYS_TSS_BUSY | SEG_ATTR_P, .selector = 0x38
    };
}

static void make_real_tables(struct cpu_rig *rig)
{
    memset(rig->ram + CPU_HANDLERS, 0xcf, 0x1000);
    for (unsigned vector = 0; vector < 256; vector++)
        put(rig, vector * 4, CPU_HANDLERS + vector * 8, 4);
    rig->cpu->idtr = (struct table_register){ .base = 0, .limit = 0x3ff };
}

enum {
    TABLE_PML4 = CPU_TABLES,
    TABLE_PDPT = TABLE_PML4 + 0x1000,
    TABLE_PD = TABLE_PML4 + 0x2000,
    TABLE_PT = TABLE_PML4 + 0x3000,
    TABLE_EDGE = TABLE_PML4 + 0x4000,
    TABLE_PAE = TABLE_PML4 + 0x5000,
    TABLE_PD32 = TABLE_PML4 + 0x6000,
    TABLE_PT32 = TABLE_PML4 + 0x7000,
    CPU_TABLES_END = TABLE_PML4 + 0x8000,
};

/* Rights of the 4 KiB page at gpa: the system's pages belong to the supervisor, the rest to who runs. */
static uint64_t page_rights(gpa_t gpa, bool user, bool protect, uint64_t *random)
{
    uint64_t r = fuzz_random(random), rights = PTE_P | PTE_RW;

    if (gpa >= CPU_TABLES && gpa < CPU_TABLES_END && protect)
        return PTE_P;
    if (gpa < CPU_VARIED)
        return rights |
               (user && (gpa >= CPU_STACK || gpa < CPU_GDT || (gpa >= CPU_CODE && gpa < CPU_HANDLERS)) ? PTE_US : 0);
    rights = r & (PTE_P | PTE_RW | PTE_US | PTE_A | PTE_D | PTE_G | 0x18); /* cache control too */
    if (r >> 20 & 3)
        rights |= PTE_P;
    if (!(r >> 22 & 3))
        rights |= r & 7ull << PTE_PKEY_SHIFT;
    if (!(r >> 24 & 15))
        rights |= 1ull << 51; /* reserved */
    if (!(r >> 28 & 3))
        rights |= PTE_XD;
    return rights;
}

/* For 4-level and PAE paging: 64-bit entries. */
static void make_wide_paging(struct cpu_rig *rig, bool user, bool protect, uint64_t *random)
{
    static const uint16_t to_pdpt[] = { 0, 256, 511 }; /* the same memory in both halves */

    for (unsigned i = 0; i < ARRAY_SIZE(to_pdpt); i++)
        put(rig, TABLE_PML4 + to_pdpt[i] * 8u, TABLE_PDPT | 7, 8);
    put(rig, TABLE_PML4 + 255 * 8, TABLE_EDGE | 7, 8); /* up to the last canonical address of the lower half */
    put(rig, TABLE_EDGE + 511 * 8, TABLE_PD | 7, 8);
    put(rig, TABLE_PDPT, TABLE_PD | 7, 8);
    put(rig, TABLE_PDPT + 8, protect ? 0x85 : 0x87, 8); /* 1 GiB */
    put(rig, TABLE_PDPT + 2 * 8, 0x2087, 8);            /* 1 GiB with a reserved bit */
    put(rig, TABLE_PDPT + 511 * 8, TABLE_PD | 7, 8);
    for (unsigned i = 0; i < 4; i++)
        put(rig, TABLE_PAE + i * 8, TABLE_PD | 1, 8);
    put(rig, TABLE_PD, TABLE_PT | 7, 8);
    for (unsigned i = 1; i < 12; i++)
        put(rig, TABLE_PD + i * 8, i << 21 | 0x83 | (user || i % 4 == 3 ? PTE_US : 0) | (i == 6 ? PTE_G : 0), 8);
    put(rig, TABLE_PD + 511 * 8, TABLE_PT | 7, 8);
    for (unsigned i = 0; i < 512; i++)
        put(rig, TABLE_PT + i * 8, i * PAGE_SIZE | page_rights(i * PAGE_SIZE, user, protect, random), 8);
}

static void make_paging_32(struct cpu_rig *rig, bool user, bool protect, uint64_t *random)
{
    put(rig, TABLE_PD32, TABLE_PT32 | 7, 4);
    for (unsigned i = 1; i < 6; i++)
        put(rig, TABLE_PD32 + i * 4, i << 22 | 0x83 | (user ? PTE_US : 0), 4); /* 4 MiB with CR4.PSE */
    put(rig, TABLE_PD32 + 1023 * 4, TABLE_PT32 | 7, 4);
    for (unsigned i = 0; i < 1024; i++)
        put(rig, TABLE_PT32 + i * 4,
            (uint32_t)(i * PAGE_SIZE | (uint32_t)page_rights(i * PAGE_SIZE, user, protect, random)), 4);
}

/* ---- Registers ---- */

static uint64_t register_value(uint64_t *random)
{
    uint64_t r = fuzz_random(random);

    switch (r >> 60) {
    case 0:
        return r & 0xff;
    case 1:
        return (uint64_t)(int8_t)r;
    case 2:
        return ((r >> 8 & 0xff) << PAGE_SHIFT) - (r & 0xf); /* a page's end */
    case 3:
        return CPU_VARIED + (r & 0x1bffff);
    case 4:
        return r & 1 ? CPU_MMIO + (r >> 8 & 0x1fff) : CPU_ROM + (r >> 8 & 0x1fff);
    case 5:
        return (r & 1 ? 0x00007fffffffffffull : 0xffff800000000000ull) + (r >> 8 & 0x1f) - 16;
    case 6:
        return r << 4; /* anywhere */
    case 7:
        return 0xffff800000000000ull | CPU_DATA | (r & 0xfff);
    case 8:
        return CPU_CODE + (r & 0xfff);
    case 9:
        return 0xfffffff0 + (r & 0x1f);
    case 10:
        return CPU_GDT + (r & 0x3fff);
    case 11:
        return CPU_TABLES + (r & 0x7fff);
    default:
        return CPU_DATA + (r & 0x3fff);
    }
}

static void fill_vectors(struct cpu *cpu, uint64_t *random)
{
    struct vector_state *v = &cpu->vector;
    bool wide = cpuid_model_xcr0(cpu->model) & 4;

    for (unsigned reg = 0; reg < 16; reg++) {
        for (unsigned i = 0; i < (wide ? 32u : 16u); i += 8) {
            uint64_t value = reg & 1 ? register_value(random) : fuzz_random(random);

            memcpy(&v->vec[reg][i], &value, 8);
        }
    }
    for (unsigned reg = 0; reg < 8; reg++) {
        uint64_t low = fuzz_random(random), high = fuzz_random(random);

        memcpy(v->fx.st[reg], &low, 8);
        memcpy(v->fx.st[reg] + 8, &high, 2);
    }
    v->fx.fcw = (uint16_t)((fuzz_random(random) & 0x0f3f) | 0x40);
    v->fx.ftw = (uint8_t)fuzz_random(random);
    v->fx.fsw = (uint16_t)(fuzz_random(random) & 0x7f00);
    v->fx.mxcsr = (uint32_t)fuzz_random(random) & mxcsr_valid_mask();
    if (fuzz_random(random) & 3) /* mostly masked */
        v->fx.mxcsr |= 0x1f80, v->fx.fcw |= 0x3f;
}

static void fill_registers(struct cpu *cpu, uint64_t *random)
{
    static const uint64_t stars[] = { 0x0023000800000000, 0x0020001000000000, 0xffffffff00000000, 0 };

    for (unsigned reg = 0; reg < 16; reg++)
        cpu->gpr[reg] = register_value(random);
    cpu->gpr[REG_RSP] = (cpu->cpl == 3 ? CPU_USER_STACK : CPU_STACK) - (fuzz_random(random) & 0xff8);
    if (fuzz_random(random) % 8 == 0)
        cpu->gpr[REG_RSP] = register_value(random);
    cpu->cr2 = fuzz_random(random);
    cpu->msrs.star = stars[fuzz_random(random) & 3];
    cpu->msrs.lstar = cpu->msrs.cstar = CPU_HANDLERS;
    cpu->msrs.fmask = fuzz_random(random) & 0x3f7fd5;
    cpu->msrs.sysenter_cs = fuzz_random(random) & 1 ? 8 : fuzz_random(random) & 0xfffc;
    cpu->msrs.sysenter_esp = CPU_STACK;
    cpu->msrs.sysenter_eip = CPU_HANDLERS;
    cpu->msrs.kernel_gs_base = CPU_DATA;
    fill_vectors(cpu, random);
}

/* ---- Segments ---- */

static void set_segment(struct cpu *cpu, enum segment seg, uint16_t selector)
{
    struct descriptor d = { .low = gdt[selector >> 3] };
    struct segment_register value = descriptor_segment(&d, selector);

    value.attributes |= SEG_TYPE_ACCESSED;
    segment_commit(cpu, seg, &value);
}

static void set_real_segments(struct cpu *cpu, uint32_t attributes, uint64_t *random)
{
    for (unsigned seg = 0; seg < SEG_COUNT; seg++) {
        uint16_t selector =
            seg == SEG_CS || seg == SEG_SS || fuzz_random(random) % 4 ? 0 : (uint16_t)fuzz_random(random);

        cpu_set_segment(cpu, seg, selector, (uint64_t)selector << 4, 0xffff, attributes);
    }
}

static void set_protected_segments(struct cpu *cpu, uint16_t code, bool user, uint64_t *random)
{
    static const uint16_t kernel_data[] = { 0x10, 0x28, 0x68, 0x88, 0xa8, 0xb0, 0xd8, 0x80 };
    static const uint16_t user_data[] = { 0x28, 0x28, 0x68, 0x98, 0x98, 0x28, 0x68, 0x28 };
    uint16_t rpl = user ? 3 : 0;

    for (unsigned seg = 0; seg < SEG_COUNT; seg++) {
        uint64_t r = fuzz_random(random);

        if (seg == SEG_CS) {
            set_segment(cpu, seg, code | rpl);
        } else if (seg == SEG_SS) {
            set_segment(cpu, seg, (user ? r & 7 ? 0x28 : 0x98 : r & 7 ? 0x10 : 0x88) | rpl);
        } else if (r % 4) {
            set_segment(cpu, seg, (user ? 0x28 : 0x10) | rpl);
        } else if (r & 8) {
            struct segment_register null = segment_null(r >> 8 & 3, 0);
            segment_commit(cpu, seg, &null);
        } else {
            set_segment(cpu, seg, (user ? user_data : kernel_data)[r >> 8 & 7] | rpl);
        }
        if (seg >= SEG_FS && (r & 0x10) && cpu_long_mode(cpu))
            cpu_set_segment(cpu, seg, cpu->segs[seg].selector, CPU_DATA, cpu->segs[seg].limit,
                            cpu->segs[seg].attributes);
    }
}

static void set_segments(struct cpu *cpu, const struct cpu_rig_setup *setup, bool user, uint64_t *random)
{
    switch (setup->mode) {
    case CPU_REAL:
        set_real_segments(cpu, 0x93, random);
        break;
    case CPU_V86:
        set_real_segments(cpu, 0xf3, random);
        break;
    case CPU_PROTECTED16:
    case CPU_COMPAT16:
        set_protected_segments(cpu, user ? 0xa0 : 0x90, user, random);
        break;
    case CPU_PROTECTED32:
    case CPU_COMPAT32:
        set_protected_segments(cpu, user ? 0x20 : 0x08, user, random);
        break;
    default:
        set_protected_segments(cpu, user ? 0x30 : 0x18, user, random);
        break;
    }
}

/* ---- Modes ---- */

static void set_control(struct cpu *cpu, const struct cpu_rig_setup *setup, bool wide)
{
    uint64_t cr0 = CR0_ET | (setup->cr0 & (CR0_MP | CR0_EM | CR0_TS | CR0_NE | CR0_WP | CR0_AM));
    uint64_t cr4 = setup->cr4 & cpu_cr4_valid(cpu) & ~(uint64_t)(CR4_PAE | CR4_LA57);
    bool pae = wide || (setup->paging == CPU_PAGING_PAE && setup->mode != CPU_REAL);
    bool paging = pae || (setup->paging == CPU_PAGING_32 && setup->mode != CPU_REAL);

    cr0 |= setup->protect_tables ? CR0_WP : 0;
    cr4 |= pae ? CR4_PAE : 0;
    if (!wide)
        cr4 &= ~(uint64_t)CR4_PCIDE;
    if (setup->mode != CPU_REAL)
        cr0 |= CR0_PE;
    if (paging)
        cr0 |= CR0_PG;
    cpu_set_cr0(cpu, CR0_ET | (cr0 & CR0_PE));
    cpu_set_cr4(cpu, cr4 & ~(uint64_t)CR4_PCIDE);
    cpu_set_efer(cpu,
                 (setup->efer & cpu_efer_valid(cpu) & (EFER_SCE | EFER_NXE | EFER_AUTOIBRS)) | (wide ? EFER_LME : 0));
    cpu_set_cr3(cpu, wide ? TABLE_PML4 : pae ? TABLE_PAE : TABLE_PD32, false);
    cpu_set_cr0(cpu, cr0);
    cpu_set_cr4(cpu, cr4);
    cpu->xcr0 = 1 | (setup->xcr0 & cpuid_model_xcr0(cpu->model) & 3);
    if ((cpu->xcr0 & 2) && (setup->xcr0 & 4))
        cpu->xcr0 |= cpuid_model_xcr0(cpu->model) & 4;
    if (cpu_has(cpu, FEATURE_PKU))
        cpu_set_pkru(cpu, (uint32_t)(setup->seed & (setup->cr4 >> 32 & 1 ? 0xfffffffc : 0)));
}

static void set_debug(struct cpu *cpu, uint32_t dr7, uint64_t *random)
{
    for (unsigned i = 0; i < 4; i++)
        cpu->dr[i] = dr7 ? i & 1 ? register_value(random) : CPU_CODE + (fuzz_random(random) & 0x3f) : 0;
    cpu->dr[7] = DR7_RESET | (dr7 & 0xffff23ff);
    debug_update(cpu);
}

static void forget(struct cpu_rig *rig)
{
    struct cpu *cpu = rig->cpu;

    rig->apic.base = 0xfee00900;
    rig->apic.tpr = 0;
    rig->apic.vector = -1;
    rig->io_value = 0;
    physmem_set_enabled(rig->rom, true);
    fake_loop_restart();
    cpu_set_apic(cpu, rig, &apic_ops);
    cpu_drop_work(cpu);
    mmu_run_pending(&cpu->mmu);
    atomic_store(&cpu->events, 0);
    cpu_reset(cpu);
    atomic_store(&cpu->sipi_vector, 0);
    mmu_set_pdptes(&cpu->mmu, (const uint64_t[4]){ 0 });
    cpu->logged_msr_count = 0;
    memset(&cpu->stats, 0, sizeof(cpu->stats));
    cpu->engine->flush(cpu);
}

void cpu_rig_start(struct cpu_rig *rig, const struct cpu_rig_setup *setup)
{
    struct cpu *cpu = rig->cpu;
    uint64_t random = setup->seed;
    bool wide = setup->mode >= CPU_COMPAT16;
    bool user = setup->mode == CPU_V86 || (setup->mode != CPU_REAL && setup->cpl == 3);

    forget(rig);
    clear_memory(rig);
    if (setup->mode == CPU_REAL) {
        make_real_tables(rig);
    } else {
        make_tables(rig, wide);
        make_wide_paging(rig, user, setup->protect_tables, &random);
        make_paging_32(rig, user, setup->protect_tables, &random);
    }
    physmem_written(rig->mem, 0, MIB);
    set_control(cpu, setup, wide);
    cpu_set_rflags(cpu, (setup->rflags & ~(uint64_t)FLAG_VM) | (setup->mode == CPU_V86 ? FLAG_VM : 0));
    set_segments(cpu, setup, user, &random);
    fill_registers(cpu, &random);
    set_debug(cpu, setup->dr7, &random);
    cpu->cpu_rip = CPU_CODE;
    mmu_flush_all(&cpu->mmu);
}

/* ---- Running ---- */

/* A guest that sleeps or has shut down gets something to wake up for. */
static void wake(struct cpu_rig *rig)
{
    struct cpu *cpu = rig->cpu;

    if (cpu->activity == CPU_HALTED && (cpu->rflags & FLAG_IF)) {
        rig->apic.vector = 0x30;
        cpu_event_set(cpu, CPU_EVENT_INTR);
    } else if (cpu->activity == CPU_HALTED && !cpu->nmi_blocked) {
        cpu_event_set(cpu, CPU_EVENT_NMI);
    } else {
        cpu_event_set(cpu, CPU_EVENT_INIT);
    }
}

/* An event that means nothing: it makes REP return after each part, so that a step is short. */
#define EVENT_NOTHING 0x80000000u
#define LONG_REP      4096

bool cpu_rig_attend(struct cpu_rig *rig, bool long_rep)
{
    struct cpu *cpu = rig->cpu;

    if (long_rep && cpu->gpr[REG_RCX] <= LONG_REP)
        cpu_event_clear(cpu, EVENT_NOTHING);
    else
        cpu_event_set(cpu, EVENT_NOTHING);
    if (cpu->activity != CPU_RUNNING)
        wake(rig);
    return cpu_handle_events(cpu) != STEP_EXIT && cpu->activity == CPU_RUNNING;
}

bool cpu_rig_step(struct cpu_rig *rig)
{
    return cpu_rig_attend(rig, true) && test_step(rig->cpu, NULL) != STEP_EXIT;
}
