/* Debug registers, breakpoints, single step. */
#include "rig.h"

static void set_dr7(struct rig *rig, uint64_t value)
{
    rig->cpu->dr[7] = value | DR7_RESET;
    debug_update(rig->cpu);
}

/* Delivers what the last instruction left pending; the handler's DR6. */
static uint64_t take_trap(struct rig *rig)
{
    rig_gate(rig, VECTOR_DB, SYS_INT_GATE, 0, SEL_CODE64, RIG_HANDLER, 0);
    cr_assert_eq(cpu_handle_events(rig->cpu), STEP_BRANCH);
    cr_assert_eq(rig->cpu->cpu_rip, RIG_HANDLER);
    return rig->cpu->dr[6] & ~(uint64_t)DR6_RESET;
}

Test(debug, registers)
{
    struct rig rig;
    struct cpu *cpu;

    rig_init(&rig, "max", RIG_LONG);
    cpu = rig.cpu;
    cpu->gpr[REG_RAX] = 0xffffffff;
    cr_assert_eq(RIG_EXECUTE(&rig, 0x0f, 0x23, 0xf0), STEP_END); /* mov dr6, rax */
    cr_assert_eq(cpu->dr[6], 0xffffeff0 | 0xf);
    cpu->gpr[REG_RAX] = 0xffff0000;
    cr_assert_eq(RIG_EXECUTE(&rig, 0x0f, 0x23, 0xf8), STEP_END); /* mov dr7, rax */
    cr_assert_eq(cpu->dr[7], 0xffff0400);
    cpu->gpr[REG_RAX] = BIT(32);
    ASSERT_FAULT(&rig, RIG_EXECUTE(&rig, 0x0f, 0x23, 0xf8), VECTOR_GP, 0);
    cr_assert_neq(RIG_EXECUTE(&rig, 0x0f, 0x21, 0xe8), STEP_FAULT); /* mov rax, dr5: an alias */
    cr_assert_eq(cpu->gpr[REG_RAX], cpu->dr[7]);
    cpu_set_cr4(cpu, cpu->cr4 | CR4_DE);
    ASSERT_FAULT(&rig, RIG_EXECUTE(&rig, 0x0f, 0x21, 0xe8), VECTOR_UD, 0);
    rig_set_user(&rig, true);
    ASSERT_FAULT(&rig, RIG_EXECUTE(&rig, 0x0f, 0x21, 0xf8), VECTOR_GP, 0);
    rig_free(&rig);
}

Test(debug, general_detect)
{
    struct rig rig;

    rig_init(&rig, "max", RIG_LONG);
    set_dr7(&rig, DR7_GD);
    ASSERT_FAULT(&rig, RIG_EXECUTE(&rig, 0x0f, 0x21, 0xc0), VECTOR_DB, 0);
    rig_gate(&rig, VECTOR_DB, SYS_INT_GATE, 0, SEL_CODE64, RIG_HANDLER, 0);
    cr_assert_eq(cpu_deliver_exception(rig.cpu), STEP_BRANCH);
    cr_assert_eq(rig.cpu->dr[6], DR6_RESET | DR6_BD);
    cr_assert_not(rig.cpu->dr[7] & DR7_GD);
    rig_free(&rig);
}

Test(debug, single_step)
{
    struct rig rig;

    rig_init(&rig, "max", RIG_LONG);
    rig.cpu->rflags |= FLAG_TF;
    cr_assert_neq(RIG_EXECUTE(&rig, 0x90), STEP_FAULT);
    cr_assert_eq(rig.cpu->pending_debug, DR6_BS);
    cr_assert_eq(take_trap(&rig), DR6_BS);
    cr_assert_eq(rig_read(&rig, rig.cpu->gpr[REG_RSP], 8), RIG_CODE + 1);
    cr_assert(rig_read(&rig, rig.cpu->gpr[REG_RSP] + 16, 8) & FLAG_TF);
    cr_assert_not(rig_read(&rig, rig.cpu->gpr[REG_RSP] + 16, 8) & FLAG_RF);
    rig_free(&rig);
}

/* INT clears TF without a trap; MOV SS holds the trap off. */
Test(debug, single_step_exceptions)
{
    struct rig rig;

    rig_init(&rig, "max", RIG_LONG);
    rig_gate(&rig, 0x80, SYS_INT_GATE, 3, SEL_CODE64, RIG_HANDLER, 0);
    rig.cpu->rflags |= FLAG_TF;
    cr_assert_eq(RIG_EXECUTE(&rig, 0xcd, 0x80), STEP_BRANCH);
    cr_assert_eq(rig.cpu->pending_debug, 0);
    rig.cpu->rflags |= FLAG_TF;
    rig.cpu->gpr[REG_RAX] = SEL_DATA;
    cr_assert_eq(RIG_EXECUTE(&rig, 0x8e, 0xd0), STEP_END);
    cr_assert_eq(rig.cpu->pending_debug, 0);
    rig_free(&rig);
}

Test(debug, instruction_breakpoint)
{
    struct rig rig;

    rig_init(&rig, "max", RIG_LONG);
    rig.cpu->dr[1] = RIG_CODE;
    set_dr7(&rig, 1 << 2);
    cr_assert(rig.cpu->code_breakpoints);
    ASSERT_FAULT(&rig, RIG_EXECUTE(&rig, 0x90), VECTOR_DB, 0);
    cr_assert_eq(rig.cpu->fault.address, 2);
    rig_gate(&rig, VECTOR_DB, SYS_INT_GATE, 0, SEL_CODE64, RIG_HANDLER, 0);
    cr_assert_eq(cpu_deliver_exception(rig.cpu), STEP_BRANCH);
    cr_assert_not(rig_read(&rig, rig.cpu->gpr[REG_RSP] + 16, 8) & FLAG_RF, "the handler sets RF, not the CPU");
    rig.cpu->rflags |= FLAG_RF;
    cr_assert_neq(RIG_EXECUTE(&rig, 0x90), STEP_FAULT, "RF holds it off");
    cr_assert_not(rig.cpu->rflags & FLAG_RF, "for one instruction");
    rig_free(&rig);
}

Test(debug, data_breakpoints)
{
    struct rig rig;
    struct cpu *cpu;

    rig_init(&rig, "max", RIG_LONG);
    cpu = rig.cpu;
    cpu->dr[0] = 0xc004;
    cpu->gpr[REG_RCX] = 0xc000;
    set_dr7(&rig, 1 | 1 << 16 | 3 << 18); /* write, 4 bytes */
    cr_assert(cpu->data_breakpoints);
    cr_assert_neq(RIG_EXECUTE(&rig, 0x48, 0x8b, 0x01), STEP_FAULT); /* mov rax, [rcx]: a read */
    cr_assert_eq(cpu->pending_debug, 0);
    cr_assert_neq(RIG_EXECUTE(&rig, 0x89, 0x01), STEP_FAULT); /* mov [rcx], eax: beside it */
    cr_assert_eq(cpu->pending_debug, 0);
    cr_assert_neq(RIG_EXECUTE(&rig, 0x48, 0x89, 0x01), STEP_FAULT); /* mov [rcx], rax: touches it */
    cr_assert_eq(cpu->pending_debug, 1);
    cr_assert_eq(take_trap(&rig), 1);
    set_dr7(&rig, 1 | 3 << 16 | 3 << 18); /* read or write */
    cr_assert_neq(RIG_EXECUTE(&rig, 0x48, 0x8b, 0x01), STEP_FAULT);
    cr_assert_eq(cpu->pending_debug, 1);
    rig_free(&rig);
}

Test(debug, faulting_instruction_leaves_no_trap)
{
    struct rig rig;

    rig_init(&rig, "max", RIG_LONG);
    rig_gate(&rig, VECTOR_GP, SYS_INT_GATE, 0, SEL_CODE64, RIG_HANDLER, 0);
    rig.cpu->pending_debug = 1;
    rig.cpu->fault = (struct fault){ .vector = VECTOR_GP };
    cr_assert_eq(cpu_deliver_exception(rig.cpu), STEP_BRANCH);
    cr_assert_eq(rig.cpu->pending_debug, 0);
    rig_free(&rig);
}

Test(debug, io_breakpoints)
{
    struct rig rig;

    rig_init(&rig, "max", RIG_LONG);
    rig.cpu->dr[3] = 0x80;
    set_dr7(&rig, 1 << 6 | 2u << 28);
    debug_check_io(rig.cpu, 0x80, 1);
    cr_assert_eq(rig.cpu->pending_debug, 0, "needs CR4.DE");
    cpu_set_cr4(rig.cpu, rig.cpu->cr4 | CR4_DE);
    debug_check_io(rig.cpu, 0x7e, 2);
    cr_assert_eq(rig.cpu->pending_debug, 0);
    debug_check_io(rig.cpu, 0x7e, 4);
    cr_assert_eq(rig.cpu->pending_debug, 8);
    rig_free(&rig);
}
