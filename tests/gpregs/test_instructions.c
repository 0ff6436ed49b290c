/* Instructions that the translator leaves to the interpreter, one at a time: which of them park the vector registers. */
#include <stdio.h>

#include "tests/cpu/rig.h"
#include "tests/gpregs/calls.h"
#include "tests/gpregs/live.h"

#define SEED 0xca11

struct row {
    const char *name;
    const char *code; /* hexadecimal */
    uint64_t rax, rcx, rdx, rdi;
};

/* ---- 64-bit mode, CPL 0 ---- */

enum { DATA = 0x300000, EDGE = 0x300ffc };

/* Everything frequent: a guest's system calls, context switches and page faults go through these. */
static const struct row keeping[] = {
    { "rdtsc", "0f31", 0, 0, 0, 0 },
    { "rdtscp", "0f01f9", 0, 0, 0, 0 },
    { "cpuid 0", "0fa2", 0, 0, 0, 0 },
    { "cpuid 0xd", "0fa2", 0xd, 1, 0, 0 },
    { "cpuid 0x15", "0fa2", 0x15, 0, 0, 0 },
    { "mov cr3", "0f22d8", RIG_PAGES, 0, 0, 0 },
    { "mov cr0", "0f22c0", CR0_PG | CR0_PE | CR0_NE | CR0_ET, 0, 0, 0 },
    { "mov cr4", "0f22e0", CR4_PAE | CR4_OSFXSR, 0, 0, 0 },
    { "mov from cr3", "0f20d8", 0, 0, 0, 0 },
    { "clts", "0f06", 0, 0, 0, 0 },
    { "mov dr7", "0f23f8", 0x401, 0, 0, 0 },
    { "invlpg", "0f013f", 0, 0, 0, DATA },
    { "swapgs", "0f01f8", 0, 0, 0, 0 },
    { "syscall", "0f05", 0, 0, 0, 0 },
    { "sysretq", "480f07", 0, RIG_CODE, 0, 0 },
    { "iretq with garbage", "48cf", 0, 0, 0, 0 },
    { "wrmsr FS_BASE", "0f30", 0x1000, 0xc0000100, 0, 0 },
    { "rdmsr EFER", "0f32", 0, 0xc0000080, 0, 0 },
    { "rdmsr of nothing", "0f32", 0, 0x12345678, 0, 0 },
    { "wrmsr SPEC_CTRL", "0f30", 0, 0x48, 0, 0 },
    { "mov ds", "8ed8", SEL_DATA, 0, 0, 0 },
    { "mov ss", "8ed0", SEL_DATA, 0, 0, 0 },
    { "pop fs", "0fa1", 0, 0, 0, 0 },
    { "lgdt", "0f0117", 0, 0, 0, DATA },
    { "sgdt", "0f0107", 0, 0, 0, DATA },
    { "lldt", "0f00d0", SEL_LDT, 0, 0, 0 },
    { "ltr of a busy TSS", "0f00d8", SEL_TSS, 0, 0, 0 },
    { "lsl", "0f03c0", SEL_DATA, 0, 0, 0 },
    { "verw", "0f00e8", SEL_DATA, 0, 0, 0 },
    { "call far", "ff1f", 0, 0, 0, DATA },
    { "retf", "cb", 0, 0, 0, 0 },
    { "int3", "cc", 0, 0, 0, 0 },
    { "ud2", "0f0b", 0, 0, 0, 0 },
    { "hlt", "f4", 0, 0, 0, 0 },
    { "sti", "fb", 0, 0, 0, 0 },
    { "pushfq", "9c", 0, 0, 0, 0 },
    { "popfq", "9d", 0, 0, 0, 0 },
    { "enter 64,3", "c8400003", 0, 0, 0, 0 },
    { "rep movsb across pages", "f3a4", 0, 0x3000, 0, DATA + 100 },
    { "rep stosq", "f348ab", 0, 0x300, 0, DATA + 8 },
    { "repe cmpsb", "f3a6", 0, 0x20, 0, DATA },
    { "lods", "ac", 0, 0, 0, 0 },
    { "div", "48f7f1", 100, 7, 3, 0 },
    { "idiv", "48f7f9", 100, 7, 0, 0 },
    { "idiv, negative", "48f7f9", (uint64_t)-100, 7, ~0ull, 0 },
    { "div by zero", "48f7f1", 100, 0, 3, 0 },
    { "lock cmpxchg16b", "f0480fc70f", 0, 0, 0, DATA },
    { "lock xadd", "f0480fc107", 1, 0, 0, DATA },
    { "bts far away", "480fab07", 0x12345, 0, 0, DATA },
    { "rdrand", "0fc7f0", 0, 0, 0, 0 },
    { "crc32", "f2480f38f1c1", 0, 77, 0, 0 },
    { "pdep", "c4e2fbf5c1", 5, 0xff, 0, 0 },
    { "read across pages", "488b07", 0, 0, 0, EDGE },
    { "write across pages", "488907", 1, 0, 0, EDGE },
    { "page fault", "488b07", 0, 0, 0, RIG_UNMAPPED },
    { "not canonical", "488b07", 0, 0, 0, 0x8000000000000000 },
    { "undefined opcode", "0fff", 0, 0, 0, 0 },
    { "too long", "66666666666666666666666666666690", 0, 0, 0, 0 },
    { "xgetbv without OSXSAVE", "0f01d0", 0, 0, 0, 0 },
    { "prefetch, clflush", "0fae3f", 0, 0, 0, DATA },
};

static const struct row parking[] = {
    { "fld1", "d9e8", 0, 0, 0, 0 },
    { "fninit", "dbe3", 0, 0, 0, 0 },
    { "fnclex", "dbe2", 0, 0, 0, 0 },
    { "fldcw", "d92f", 0, 0, 0, DATA },
    { "fnstcw", "d93f", 0, 0, 0, DATA },
    { "fnstsw ax", "dfe0", 0, 0, 0, 0 },
    { "fwait", "9b", 0, 0, 0, 0 },
    { "fnstenv", "d937", 0, 0, 0, DATA },
    { "fldenv", "d927", 0, 0, 0, DATA },
    { "fnsave", "dd37", 0, 0, 0, DATA },
    { "frstor", "dd27", 0, 0, 0, DATA },
    { "emms", "0f77", 0, 0, 0, 0 },
    { "paddb mm", "0ffcc1", 0, 0, 0, 0 },
    { "movaps", "0f28c1", 0, 0, 0, 0 },
    { "movaps from memory", "0f2807", 0, 0, 0, DATA },
    { "movups across pages", "0f1107", 0, 0, 0, EDGE },
    { "comisd", "660f2fc1", 0, 0, 0, 0 },
    { "cvtpi2ps", "0f2ac1", 0, 0, 0, 0 },
    { "maskmovdqu", "660ff7c1", 0, 0, 0, DATA },
    { "maskmovq", "0ff7c1", 0, 0, 0, DATA },
    { "ldmxcsr", "0fae17", 0, 0, 0, DATA },
    { "stmxcsr", "0fae1f", 0, 0, 0, DATA },
    { "fxsave", "0fae07", 0, 0, 0, DATA },
    { "fxrstor", "0fae0f", 0, 0, 0, DATA },
    { "in al, dx", "ec", 0, 0, 0x80, 0 },
    { "out dx, eax", "ef", 0, 0, 0x80, 0 },
    { "rep outsb", "f36e", 0, 3, 0x80, 0 },
    { "insd", "6d", 0, 0, 0x80, DATA },
    { "rdmsr APIC_BASE", "0f32", 0, 0x1b, 0, 0 },
    { "wrmsr TSC_DEADLINE", "0f30", 1, 0x6e0, 0, 0 },
    { "wrmsr TSC_ADJUST", "0f30", 1, 0x3b, 0, 0 },
    { "wrmsr KVM wall clock", "0f30", DATA, 0x4b564d00, 0, 0 },
    { "wrmsr KVM system time", "0f30", DATA | 1, 0x4b564d01, 0, 0 },
    { "mov cr8", "440f22c0", 3, 0, 0, 0 },
    { "mov from cr8", "440f20c0", 0, 0, 0, 0 },
    { "cpuid 1", "0fa2", 1, 0, 0, 0 },
    { "lock inc across pages", "f0ff07", 0, 0, 0, EDGE + 2 },
};

static const struct row parking_with_osxsave[] = {
    { "xsave", "480fae27", ~0u, 0, ~0u, DATA },
    { "xsaveopt", "480fae37", ~0u, 0, ~0u, DATA },
    { "xsavec", "480fc727", ~0u, 0, ~0u, DATA },
    { "xsaves", "480fc72f", ~0u, 0, ~0u, DATA },
    { "xrstor", "480fae2f", ~0u, 0, ~0u, DATA },
    { "xrstors", "480fc71f", ~0u, 0, ~0u, DATA },
    { "vaddps", "c5f458c2", 0, 0, 0, 0 },
    { "vzeroupper", "c5f877", 0, 0, 0, 0 },
    { "vzeroall", "c5fc77", 0, 0, 0, 0 },
    { "vmaskmovps", "c4e2712c07", 0, 0, 0, DATA },
    { "vpgatherdd", "c4e269900c07", 0, 0, 0, DATA },
};

/* ---- An APIC and a port that do nothing: what counts is whether they are called ---- */

static uint64_t io_read(void *opaque, uint64_t offset, unsigned size)
{
    (void)opaque;
    (void)offset;
    (void)size;
    return 0;
}
static void io_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
    (void)opaque;
    (void)offset;
    (void)size;
    (void)value;
}
static bool apic_msr_read(void *apic, uint32_t msr, uint64_t *value)
{
    *value = io_read(apic, msr, 8);
    return true;
}
static bool apic_msr_write(void *apic, uint32_t msr, uint64_t value)
{
    io_write(apic, msr, 8, value);
    return true;
}
static uint8_t apic_get_tpr(void *apic)
{
    return (uint8_t)io_read(apic, 0, 1);
}
static void apic_set_tpr(void *apic, uint8_t tpr)
{
    io_write(apic, 0, 1, tpr);
}
static uint64_t apic_get_base(void *apic)
{
    return io_read(apic, 0, 8) | 0xfee00900;
}
static const struct cpu_apic_ops apic_ops = { .msr_read = apic_msr_read,
                                              .msr_write = apic_msr_write,
                                              .get_tpr = apic_get_tpr,
                                              .set_tpr = apic_set_tpr,
                                              .get_base = apic_get_base };

/* ---- Running ---- */

/* The decoder builds its index when it is first used, parked. */
static void decode_something(void)
{
    struct insn insn;

    insn_decode((const uint8_t[]){ 0x90 }, 1, CODE64, &insn);
}

static size_t bytes_of(const char *code, uint8_t *bytes)
{
    size_t count = 0;

    for (unsigned byte; sscanf(code, "%2x", &byte) == 1; code += 2)
        bytes[count++] = (uint8_t)byte;
    return count;
}

static void run_row(const struct row *row, enum live_result wanted, uint64_t cr4)
{
    static const struct io_ops ops = { .read = io_read, .write = io_write, .min_size = 1, .max_size = 8 };
    struct rig rig;
    struct error err;
    uint8_t bytes[16];
    size_t size = bytes_of(row->code, bytes);

    rig_init(&rig, "max", RIG_LONG);
    struct cpu *cpu = rig.cpu;
    cpu_set_apic(cpu, &rig, &apic_ops);
    cr_assert(!port_space_add(rig.ports, 0x80, 4, &ops, NULL, "port", &err), "%s", err.text);
    for (unsigned vector = 0; vector < 32; vector++)
        rig_gate(&rig, vector, SYS_INT_GATE, 3, SEL_CODE64, RIG_HANDLER, 0);
    cpu_set_cr4(cpu, cpu->cr4 | cr4);
    if (cr4)
        cpu->xcr0 = cpuid_model_xcr0(rig.model) & 7;
    cpu->gpr[REG_RAX] = row->rax;
    cpu->gpr[REG_RCX] = row->rcx;
    cpu->gpr[REG_RDX] = row->rdx;
    cpu->gpr[REG_RDI] = row->rdi;
    cpu->gpr[REG_RSI] = DATA + 0x40000;
    cr_assert(physmem_write(rig.mem, RIG_CODE, bytes, size));
    cpu->cpu_rip = RIG_CODE;
    struct call call = { .cpu = cpu, .mem = rig.mem };
    enum live_result result = live_run(cpu, call_step, &call, SEED);
    cr_expect(result <= LIVE_PARKED, "%s: %s (seed 0x%x)", row->name, live_text, SEED);
    if (result <= LIVE_PARKED)
        cr_expect(result == wanted, "%s: vector registers %s", row->name,
                  wanted == LIVE_KEPT ? "were parked: too dear here" : "were not parked");
    rig_free(&rig);
}

TestSuite(gpregs_instructions, .init = decode_something);

Test(gpregs_instructions, keeping)
{
    for (unsigned i = 0; i < ARRAY_SIZE(keeping); i++)
        run_row(&keeping[i], LIVE_KEPT, 0);
}

Test(gpregs_instructions, parking)
{
    for (unsigned i = 0; i < ARRAY_SIZE(parking); i++)
        run_row(&parking[i], LIVE_PARKED, 0);
    for (unsigned i = 0; i < ARRAY_SIZE(parking_with_osxsave); i++)
        run_row(&parking_with_osxsave[i], LIVE_PARKED, CR4_OSXSAVE);
}

/* A block of instructions that have not been decoded before. */
Test(gpregs_instructions, decoding)
{
    static const uint8_t plain[] = { 0x48, 0x89, 0xc1, 0x48, 0x01, 0xc8, 0x90, 0xeb, 0x00 };
    static const uint8_t vector[] = { 0x90, 0x0f, 0x58, 0xc1, 0xeb, 0x00 }; /* needs a host stub */
    struct rig rig;

    rig_init(&rig, "max", RIG_LONG);
    struct call call = { .cpu = rig.cpu, .mem = rig.mem };
    cr_assert(physmem_write(rig.mem, RIG_CODE, plain, sizeof(plain)));
    cr_assert_eq(live_run(rig.cpu, call_step_block, &call, SEED), LIVE_KEPT, "plain: %s", live_text);
    cr_assert(physmem_write(rig.mem, RIG_CODE + 0x100, vector, sizeof(vector)));
    rig.cpu->cpu_rip = RIG_CODE + 0x100;
    cr_assert_eq(live_run(rig.cpu, call_step_block, &call, SEED), LIVE_PARKED, "vector: %s", live_text);
    rig_free(&rig);
}
