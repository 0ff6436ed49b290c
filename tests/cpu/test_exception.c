/* Delivery of exceptions and interrupts in each mode (SDM Vol. 3A chapter 6), on a prepared CPU that does not run. */
#include "rig.h"

static enum step deliver(struct rig *rig, uint8_t vector, uint32_t error, gva_t address)
{
    rig->cpu->fault = (struct fault){ .vector = vector, .error = error, .address = address };
    return cpu_deliver_exception(rig->cpu);
}

/* ---- Real mode ---- */

Test(exception, real_mode)
{
    struct rig rig;
    struct cpu *cpu;

    rig_init(&rig, "max", RIG_REAL);
    cpu = rig.cpu;
    rig_write(&rig, RIG_IDT + 6 * 4, 0x12345678, 4);
    cpu->rflags |= FLAG_IF | FLAG_TF;
    cr_assert_eq(deliver(&rig, VECTOR_UD, 0, 0), STEP_BRANCH);
    cr_assert_eq(cpu->segs[SEG_CS].selector, 0x1234);
    cr_assert_eq(cpu->segs[SEG_CS].base, 0x12340);
    cr_assert_eq(cpu->cpu_rip, 0x5678);
    cr_assert_eq(cpu->gpr[REG_RSP], RIG_KERNEL_STACK - 6);
    cr_assert_eq(rig_read(&rig, RIG_KERNEL_STACK - 6, 2), RIG_CODE);
    cr_assert_eq(rig_read(&rig, RIG_KERNEL_STACK - 2, 2), 0x302);
    cr_assert_eq(cpu->rflags & (FLAG_IF | FLAG_TF), 0);
    rig_free(&rig);
}

Test(exception, real_mode_pushes_no_error_code)
{
    struct rig rig;

    rig_init(&rig, "max", RIG_REAL);
    cr_assert_eq(deliver(&rig, VECTOR_GP, 0x1234, 0), STEP_BRANCH);
    cr_assert_eq(rig.cpu->gpr[REG_RSP], RIG_KERNEL_STACK - 6);
    rig_free(&rig);
}

Test(exception, real_mode_short_idt_shuts_down)
{
    struct rig rig;

    rig_init(&rig, "max", RIG_REAL);
    rig.cpu->idtr.limit = 6 * 4;
    cr_assert_eq(deliver(&rig, VECTOR_UD, 0, 0), STEP_EXIT);
    cr_assert_eq(rig.cpu->activity, CPU_SHUTDOWN);
    rig_free(&rig);
}

/* A stack that wraps at 64 KiB is legal, one that straddles the end is not. */
Test(exception, real_mode_stack_wraps)
{
    struct rig rig;

    rig_init(&rig, "max", RIG_REAL);
    rig.cpu->gpr[REG_RSP] = 2;
    cr_assert_eq(deliver(&rig, VECTOR_UD, 0, 0), STEP_BRANCH);
    cr_assert_eq(rig.cpu->gpr[REG_RSP], 0xfffc);
    cr_assert_eq(rig_read(&rig, 0xfffc, 2), RIG_CODE);
    rig.cpu->gpr[REG_RSP] = 3;
    cr_assert_eq(deliver(&rig, VECTOR_UD, 0, 0), STEP_EXIT);
    rig_free(&rig);
}

/* ---- Protected mode ---- */

Test(exception, protected_same_level)
{
    struct rig rig;
    struct cpu *cpu;

    rig_init(&rig, "max", RIG_PROTECTED);
    cpu = rig.cpu;
    rig_gate(&rig, VECTOR_GP, SYS_INT_GATE, 0, SEL_CODE32, RIG_HANDLER, 0);
    cpu->rflags |= FLAG_IF | FLAG_NT;
    cr_assert_eq(deliver(&rig, VECTOR_GP, 0x58, 0), STEP_BRANCH);
    cr_assert_eq(cpu->cpu_rip, RIG_HANDLER);
    cr_assert_eq(cpu->gpr[REG_RSP], RIG_KERNEL_STACK - 16);
    cr_assert_eq(rig_read(&rig, RIG_KERNEL_STACK - 16, 4), 0x58);
    cr_assert_eq(rig_read(&rig, RIG_KERNEL_STACK - 12, 4), RIG_CODE);
    cr_assert_eq(rig_read(&rig, RIG_KERNEL_STACK - 8, 4), SEL_CODE32);
    cr_assert_eq(rig_read(&rig, RIG_KERNEL_STACK - 4, 4), FLAG_RF | FLAG_IF | FLAG_NT | 2);
    cr_assert_eq(cpu->rflags, 2);
    rig_free(&rig);
}

Test(exception, trap_gate_keeps_interrupts_on)
{
    struct rig rig;

    rig_init(&rig, "max", RIG_PROTECTED);
    rig_gate(&rig, VECTOR_UD, SYS_TRAP_GATE, 0, SEL_CODE32, RIG_HANDLER, 0);
    rig.cpu->rflags |= FLAG_IF;
    cr_assert_eq(deliver(&rig, VECTOR_UD, 0, 0), STEP_BRANCH);
    cr_assert(rig.cpu->rflags & FLAG_IF);
    rig_free(&rig);
}

Test(exception, protected_inner_level)
{
    struct rig rig;
    struct cpu *cpu;

    rig_init(&rig, "max", RIG_PROTECTED);
    cpu = rig.cpu;
    rig_set_user(&rig, false);
    rig_gate(&rig, 0x80, SYS_INT_GATE, 3, SEL_CODE32, RIG_HANDLER, 0);
    cr_assert_eq(cpu_software_interrupt(cpu, 0x80, RIG_CODE + 2), STEP_BRANCH);
    cr_assert_eq(cpu->cpl, 0);
    cr_assert_eq(cpu->segs[SEG_CS].selector, SEL_CODE32);
    cr_assert_eq(cpu->segs[SEG_SS].selector, SEL_DATA);
    cr_assert_eq(cpu->gpr[REG_RSP], RIG_INNER_STACK - 20);
    cr_assert_eq(rig_read(&rig, RIG_INNER_STACK - 4, 4), SEL_USER_DATA | 3);
    cr_assert_eq(rig_read(&rig, RIG_INNER_STACK - 8, 4), RIG_USER_STACK);
    cr_assert_eq(rig_read(&rig, RIG_INNER_STACK - 16, 4), SEL_USER_CODE32 | 3);
    cr_assert_eq(rig_read(&rig, RIG_INNER_STACK - 20, 4), RIG_CODE + 2);
    rig_free(&rig);
}

Test(exception, conforming_handler_keeps_level)
{
    struct rig rig;

    rig_init(&rig, "max", RIG_PROTECTED);
    rig_set_user(&rig, false);
    rig_gate(&rig, VECTOR_UD, SYS_TRAP_GATE, 0, SEL_CONFORMING, RIG_HANDLER, 0);
    cr_assert_eq(deliver(&rig, VECTOR_UD, 0, 0), STEP_BRANCH);
    cr_assert_eq(rig.cpu->cpl, 3);
    cr_assert_eq(rig.cpu->segs[SEG_CS].selector, SEL_CONFORMING | 3);
    cr_assert_eq(rig.cpu->gpr[REG_RSP], RIG_USER_STACK - 12);
    rig_free(&rig);
}

/* The checks of gate and code segment, with their error codes: INT n from CPL 3. */
Test(exception, gate_checks)
{
    static const struct {
        unsigned type, dpl;
        uint16_t selector;
        uint8_t vector;
        uint32_t error;
    } cases[] = {
        { SYS_INT_GATE, 0, SEL_CODE32, VECTOR_GP, 0x40 << 3 | 2 },      /* DPL < CPL */
        { SYS_CALL_GATE, 3, SEL_CODE32, VECTOR_GP, 0x40 << 3 | 2 },     /* not an interrupt gate */
        { SYS_TASK_GATE, 3, SEL_TSS, VECTOR_GP, 0x40 << 3 | 2 },        /* not yet */
        { SYS_INT_GATE | 16, 3, SEL_CODE32, VECTOR_GP, 0x40 << 3 | 2 }, /* S set */
        { SYS_INT_GATE, 3, 0, VECTOR_GP, 0 },
        { SYS_INT_GATE, 3, SEL_BEYOND, VECTOR_GP, SEL_BEYOND },
        { SYS_INT_GATE, 3, SEL_DATA, VECTOR_GP, SEL_DATA },
        { SYS_INT_GATE, 3, SEL_TSS, VECTOR_GP, SEL_TSS },
        { SYS_INT_GATE, 3, SEL_LDT | 4, VECTOR_GP, SEL_LDT | 4 }, /* no LDT */
    };
    struct rig rig;

    rig_init(&rig, "max", RIG_PROTECTED);
    rig_set_user(&rig, false);
    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        rig_gate(&rig, 0x40, cases[i].type, cases[i].dpl, cases[i].selector, RIG_HANDLER, 0);
        ASSERT_FAULT(&rig, cpu_software_interrupt(rig.cpu, 0x40, 0), cases[i].vector, cases[i].error);
        cr_assert_eq(rig.cpu->gpr[REG_RSP], RIG_USER_STACK, "case %u", i);
        cr_assert_eq(rig.cpu->cpl, 3);
    }
    rig_write(&rig, RIG_IDT + 0x40 * 8 + 5, SYS_INT_GATE | 3 << 5, 1); /* not present */
    ASSERT_FAULT(&rig, cpu_software_interrupt(rig.cpu, 0x40, 0), VECTOR_NP, 0x40 << 3 | 2);
    rig.cpu->idtr.limit = 0x40 * 8 + 6;
    ASSERT_FAULT(&rig, cpu_software_interrupt(rig.cpu, 0x40, 0), VECTOR_GP, 0x40 << 3 | 2);
    rig_free(&rig);
}

/* What can be wrong with the inner stack: #TS or #SS that name it, EXT set for an exception. */
Test(exception, inner_stack_checks)
{
    struct rig rig;

    rig_init(&rig, "max", RIG_PROTECTED);
    rig_set_user(&rig, false);
    rig_gate(&rig, 0x40, SYS_INT_GATE, 3, SEL_CODE32, RIG_HANDLER, 0);
    rig_write(&rig, RIG_TSS + 8, 0, 2);
    ASSERT_FAULT(&rig, cpu_software_interrupt(rig.cpu, 0x40, 0), VECTOR_TS, 0);
    rig_write(&rig, RIG_TSS + 8, SEL_DATA | 3, 2);
    ASSERT_FAULT(&rig, cpu_software_interrupt(rig.cpu, 0x40, 0), VECTOR_TS, SEL_DATA);
    rig_write(&rig, RIG_TSS + 8, SEL_CODE32, 2);
    ASSERT_FAULT(&rig, cpu_software_interrupt(rig.cpu, 0x40, 0), VECTOR_TS, SEL_CODE32);
    rig_write(&rig, RIG_TSS + 8, SEL_ABSENT, 2);
    ASSERT_FAULT(&rig, cpu_software_interrupt(rig.cpu, 0x40, 0), VECTOR_SS, SEL_ABSENT);
    rig_write(&rig, RIG_TSS + 8, SEL_DATA, 2);
    rig.cpu->tr.limit = 8;
    ASSERT_FAULT(&rig, cpu_software_interrupt(rig.cpu, 0x40, 0), VECTOR_TS, SEL_TSS);
    rig_free(&rig);
}

/* ---- Long mode ---- */

Test(exception, long_mode_aligns_the_stack)
{
    struct rig rig;
    struct cpu *cpu;

    rig_init(&rig, "max", RIG_LONG);
    cpu = rig.cpu;
    rig_gate(&rig, VECTOR_UD, SYS_INT_GATE, 0, SEL_CODE64, RIG_HANDLER, 0);
    cpu->gpr[REG_RSP] = RIG_KERNEL_STACK - 3;
    cr_assert_eq(deliver(&rig, VECTOR_UD, 0, 0), STEP_BRANCH);
    cr_assert_eq(cpu->gpr[REG_RSP], RIG_KERNEL_STACK - 16 - 40);
    cr_assert_eq(rig_read(&rig, RIG_KERNEL_STACK - 16 - 8, 8), SEL_DATA);
    cr_assert_eq(rig_read(&rig, RIG_KERNEL_STACK - 16 - 16, 8), RIG_KERNEL_STACK - 3);
    cr_assert_eq(rig_read(&rig, RIG_KERNEL_STACK - 16 - 24, 8), FLAG_RF | 2);
    cr_assert_eq(rig_read(&rig, RIG_KERNEL_STACK - 16 - 32, 8), SEL_CODE64);
    cr_assert_eq(rig_read(&rig, RIG_KERNEL_STACK - 16 - 40, 8), RIG_CODE);
    cr_assert_eq(cpu->segs[SEG_SS].selector, SEL_DATA);
    rig_free(&rig);
}

Test(exception, long_mode_from_user)
{
    struct rig rig;
    struct cpu *cpu;

    rig_init(&rig, "max", RIG_LONG);
    cpu = rig.cpu;
    rig_set_user(&rig, true);
    rig_gate(&rig, VECTOR_PF, SYS_INT_GATE, 0, SEL_CODE64, 0xffffffff80001000, 0);
    cr_assert_eq(deliver(&rig, VECTOR_PF, PF_USER | PF_WRITE, 0x1234567890), STEP_BRANCH);
    cr_assert_eq(cpu->cr2, 0x1234567890);
    cr_assert_eq(cpu->cpu_rip, 0xffffffff80001000);
    cr_assert_eq(cpu->cpl, 0);
    cr_assert_eq(cpu->privilege, MMU_SUPERVISOR);
    cr_assert_eq(cpu->segs[SEG_SS].selector, 0);
    cr_assert(cpu->segs[SEG_SS].attributes & SEG_ATTR_UNUSABLE);
    cr_assert_eq(cpu->gpr[REG_RSP], RIG_INNER_STACK - 48);
    cr_assert_eq(rig_read(&rig, RIG_INNER_STACK - 48, 8), PF_USER | PF_WRITE);
    cr_assert_eq(rig_read(&rig, RIG_INNER_STACK - 8, 8), SEL_USER_DATA | 3);
    rig_free(&rig);
}

Test(exception, interrupt_stack_table)
{
    struct rig rig;

    rig_init(&rig, "max", RIG_LONG);
    rig_gate(&rig, VECTOR_NMI, SYS_INT_GATE, 0, SEL_CODE64, RIG_HANDLER, 1);
    cr_assert_eq(cpu_deliver_interrupt(rig.cpu, VECTOR_NMI), STEP_BRANCH);
    cr_assert_eq(rig.cpu->gpr[REG_RSP], RIG_IST_STACK - 40);
    cr_assert_eq(rig_read(&rig, RIG_IST_STACK - 24, 8), 2, "no RF for an interrupt");
    cr_assert_eq(rig.cpu->segs[SEG_SS].selector, SEL_DATA, "SS stays without a change of level");
    rig_free(&rig);
}

Test(exception, long_mode_from_compatibility)
{
    struct rig rig;

    rig_init(&rig, "max", RIG_LONG);
    rig_set_user(&rig, false);
    cr_assert_eq(rig.cpu->code_size, CODE32);
    rig_gate(&rig, 0x80, SYS_INT_GATE, 3, SEL_CODE64, RIG_HANDLER, 0);
    cr_assert_eq(cpu_software_interrupt(rig.cpu, 0x80, RIG_CODE + 2), STEP_BRANCH);
    cr_assert_eq(rig.cpu->code_size, CODE64);
    cr_assert_eq(rig_read(&rig, RIG_INNER_STACK - 32, 8), SEL_USER_CODE32 | 3);
    rig_free(&rig);
}

Test(exception, long_mode_checks)
{
    struct rig rig;

    rig_init(&rig, "max", RIG_LONG);
    rig_set_user(&rig, true);
    rig_gate(&rig, 0x40, SYS_INT_GATE, 3, SEL_CODE32, RIG_HANDLER, 0); /* not a 64-bit segment */
    ASSERT_FAULT(&rig, cpu_software_interrupt(rig.cpu, 0x40, 0), VECTOR_GP, SEL_CODE32);
    rig_gate(&rig, 0x40, SYS_INT_GATE16, 3, SEL_CODE64, RIG_HANDLER, 0);
    ASSERT_FAULT(&rig, cpu_software_interrupt(rig.cpu, 0x40, 0), VECTOR_GP, 0x40 << 3 | 2);
    rig_gate(&rig, 0x40, SYS_INT_GATE, 3, SEL_CODE64, 0x8000000000000000, 0);
    ASSERT_FAULT(&rig, cpu_software_interrupt(rig.cpu, 0x40, 0), VECTOR_GP, 0);
    rig_gate(&rig, 0x40, SYS_INT_GATE, 3, SEL_CODE64, RIG_HANDLER, 0);
    rig_write(&rig, RIG_TSS + 4, 0x8000000000000000, 8);
    ASSERT_FAULT(&rig, cpu_software_interrupt(rig.cpu, 0x40, 0), VECTOR_SS, 0);
    rig.cpu->tr.limit = 10;
    ASSERT_FAULT(&rig, cpu_software_interrupt(rig.cpu, 0x40, 0), VECTOR_TS, SEL_TSS);
    cr_assert_eq(rig.cpu->gpr[REG_RSP], RIG_USER_STACK);
    rig_free(&rig);
}

/* ---- Faults while delivering (table 6-5) ---- */

static void all_gates(struct rig *rig)
{
    for (unsigned vector = 0; vector < 32; vector++)
        rig_gate(rig, vector, SYS_INT_GATE, 0, SEL_CODE64, RIG_HANDLER + vector * 16, 0);
}

static unsigned handler_reached(struct rig *rig)
{
    return (unsigned)(rig->cpu->cpu_rip - RIG_HANDLER) / 16;
}

/* A gate whose delivery raises #NP, #GP or (by the IST) #PF. */
static void break_gate(struct rig *rig, unsigned vector, unsigned kind)
{
    if (kind == VECTOR_NP) {
        rig_write(rig, RIG_IDT + vector * 16 + 5, SYS_INT_GATE, 1);
    } else if (kind == VECTOR_GP) {
        rig_gate(rig, vector, SYS_INT_GATE, 0, SEL_DATA, 0, 0);
    } else {
        rig_gate(rig, vector, SYS_INT_GATE, 0, SEL_CODE64, RIG_HANDLER + vector * 16, 1);
        rig_write(rig, RIG_TSS + 36, RIG_UNMAPPED + 0x2000, 8);
    }
}

Test(exception, nested_faults)
{
    static const struct {
        uint8_t first, second, reached;
    } cases[] = {
        { VECTOR_UD, VECTOR_NP, VECTOR_NP }, { VECTOR_UD, VECTOR_PF, VECTOR_PF }, { VECTOR_DB, VECTOR_GP, VECTOR_GP },
        { VECTOR_GP, VECTOR_NP, VECTOR_DF }, { VECTOR_DE, VECTOR_GP, VECTOR_DF }, { VECTOR_GP, VECTOR_PF, VECTOR_PF },
        { VECTOR_PF, VECTOR_NP, VECTOR_DF }, { VECTOR_PF, VECTOR_PF, VECTOR_DF }, { VECTOR_SS, VECTOR_NP, VECTOR_DF },
        { VECTOR_MF, VECTOR_GP, VECTOR_GP }, { VECTOR_AC, VECTOR_NP, VECTOR_NP },
    };

    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        struct rig rig;

        rig_init(&rig, "max", RIG_LONG);
        all_gates(&rig);
        break_gate(&rig, cases[i].first, cases[i].second);
        cr_assert_eq(deliver(&rig, cases[i].first, 0, 0x1000), STEP_BRANCH);
        cr_assert_eq(handler_reached(&rig), cases[i].reached, "case %u: reached %u", i, handler_reached(&rig));
        if (cases[i].second == VECTOR_PF)
            cr_assert_eq(rig.cpu->cr2, RIG_UNMAPPED + 0x2000 - 8, "case %u: the first word pushed", i);
        cr_assert_eq(rig_read(&rig, rig.cpu->gpr[REG_RSP] + (cases[i].reached == VECTOR_UD ? 0 : 8), 8), RIG_CODE);
        rig_free(&rig);
    }
}

Test(exception, error_code_names_the_gate_with_ext)
{
    struct rig rig;

    rig_init(&rig, "max", RIG_LONG);
    all_gates(&rig);
    break_gate(&rig, VECTOR_UD, VECTOR_NP);
    cr_assert_eq(deliver(&rig, VECTOR_UD, 0, 0), STEP_BRANCH);
    cr_assert_eq(rig_read(&rig, rig.cpu->gpr[REG_RSP], 8), VECTOR_UD << 3 | 2 | 1);
    rig_free(&rig);
}

Test(exception, triple_fault)
{
    static const uint8_t kinds[] = { VECTOR_NP, VECTOR_GP, VECTOR_PF };

    for (unsigned i = 0; i < ARRAY_SIZE(kinds); i++) {
        struct rig rig;

        rig_init(&rig, "max", RIG_LONG);
        all_gates(&rig);
        break_gate(&rig, VECTOR_DF, kinds[i]);
        break_gate(&rig, VECTOR_GP, VECTOR_NP);
        cr_assert_eq(deliver(&rig, VECTOR_GP, 0, 0), STEP_EXIT);
        cr_assert_eq(rig.cpu->activity, CPU_SHUTDOWN);
        rig_free(&rig);
    }
}

/* An interrupt whose delivery faults leaves the fault, not a half-built frame. */
Test(exception, interrupt_with_bad_gate)
{
    struct rig rig;

    rig_init(&rig, "max", RIG_LONG);
    all_gates(&rig);
    cr_assert_eq(cpu_deliver_interrupt(rig.cpu, 0x30), STEP_BRANCH);
    cr_assert_eq(handler_reached(&rig), VECTOR_GP);
    cr_assert_eq(rig_read(&rig, rig.cpu->gpr[REG_RSP], 8), 0x30 << 3 | 2 | 1);
    rig_free(&rig);
}

/* Whatever the IDT holds, a chain of faults ends. */
Test(exception, random_tables_terminate)
{
    uint64_t seed = 0x5eed;
    struct rig rig;

    rig_init(&rig, "max", RIG_LONG);
    for (unsigned round = 0; round < 2000; round++) {
        for (unsigned vector = 0; vector < 32; vector++) {
            seed = seed * 6364136223846793005ull + 1442695040888963407ull;
            rig_gate(&rig, vector, seed >> 60, seed >> 20 & 3, seed >> 32 & 0xf8, RIG_HANDLER, seed >> 50 & 7);
        }
        rig_write(&rig, RIG_TSS + 36 + (seed >> 40 & 3) * 8, seed, 8);
        rig.cpu->activity = CPU_RUNNING;
        rig.cpu->cpu_rip = RIG_CODE;
        rig.cpu->gpr[REG_RSP] = RIG_KERNEL_STACK;
        if (round & 1)
            rig_set_user(&rig, true);
        deliver(&rig, seed >> 33 & 31, 0, 0);
    }
    rig_free(&rig);
}
