/* Far transfers, IRET, and the fast system calls. */
#include "rig.h"

static void push(struct rig *rig, unsigned size, unsigned count, const uint64_t *words)
{
    uint64_t *rsp = &rig->cpu->gpr[REG_RSP];

    for (unsigned i = 0; i < count; i++) {
        *rsp -= size;
        rig_write(rig, *rsp, words[i], size);
    }
}
#define PUSH(rig, size, ...) push(rig, size, sizeof((uint64_t[]){ __VA_ARGS__ }) / 8, (uint64_t[]){ __VA_ARGS__ })

static const uint8_t iret32[] = { 0xcf }, iretq[] = { 0x48, 0xcf }, retf[] = { 0xcb }, retfq[] = { 0x48, 0xcb };

/* ---- IRET ---- */

Test(iret, real)
{
    struct rig rig;

    rig_init(&rig, "max", RIG_REAL);
    PUSH(&rig, 2, FLAG_IF | FLAG_CF | FLAG_IOPL, 0x2000, 0x1234);
    cr_assert_eq(rig_execute(&rig, iret32, 1), STEP_BRANCH);
    cr_assert_eq(rig.cpu->segs[SEG_CS].base, 0x20000);
    cr_assert_eq(rig.cpu->cpu_rip, 0x1234);
    cr_assert_eq(rig.cpu->rflags, FLAG_IF | FLAG_CF | FLAG_IOPL | 2);
    cr_assert_eq(rig.cpu->gpr[REG_RSP], RIG_KERNEL_STACK);
    rig_free(&rig);
}

Test(iret, protected_same_level)
{
    struct rig rig;

    rig_init(&rig, "max", RIG_PROTECTED);
    PUSH(&rig, 4, FLAG_IF | FLAG_RF | FLAG_AC | FLAG_ID | 2, SEL_CODE32, RIG_HANDLER);
    cr_assert_eq(rig_execute(&rig, iret32, 1), STEP_BRANCH);
    cr_assert_eq(rig.cpu->cpu_rip, RIG_HANDLER);
    cr_assert_eq(rig.cpu->rflags, FLAG_IF | FLAG_RF | FLAG_AC | FLAG_ID | 2);
    cr_assert_eq(rig.cpu->privilege, MMU_SUPERVISOR_AC);
    cr_assert_eq(rig.cpu->gpr[REG_RSP], RIG_KERNEL_STACK);
    rig_free(&rig);
}

Test(iret, protected_to_user)
{
    struct rig rig;

    rig_init(&rig, "max", RIG_PROTECTED);
    cpu_load_segment(rig.cpu, SEG_ES, SEL_USER_DATA);
    PUSH(&rig, 4, SEL_USER_DATA | 3, RIG_USER_STACK, FLAG_IF | 2, SEL_USER_CODE32 | 3, RIG_HANDLER);
    cr_assert_eq(rig_execute(&rig, iret32, 1), STEP_BRANCH);
    cr_assert_eq(rig.cpu->cpl, 3);
    cr_assert_eq(rig.cpu->privilege, MMU_USER);
    cr_assert_eq(rig.cpu->gpr[REG_RSP], RIG_USER_STACK);
    cr_assert_eq(rig.cpu->segs[SEG_SS].selector, SEL_USER_DATA | 3);
    cr_assert_eq(rig.cpu->segs[SEG_DS].selector, 0, "the kernel's data segment is dropped");
    cr_assert_eq(rig.cpu->segs[SEG_ES].selector, SEL_USER_DATA, "the user's stays");
    rig_free(&rig);
}

/* IF and IOPL belong to those who may change them. */
Test(iret, user_cannot_change_if)
{
    struct rig rig;

    rig_init(&rig, "max", RIG_LONG);
    rig_set_user(&rig, true);
    rig.cpu->rflags |= FLAG_IF;
    PUSH(&rig, 8, SEL_USER_DATA | 3, RIG_USER_STACK, FLAG_IOPL | FLAG_CF | 2, SEL_USER_CODE64 | 3, RIG_HANDLER);
    cr_assert_eq(rig_execute(&rig, iretq, 2), STEP_BRANCH);
    cr_assert_eq(rig.cpu->rflags, FLAG_IF | FLAG_CF | 2);
    rig_free(&rig);
}

Test(iret, long_mode_forms)
{
    static const struct {
        uint16_t cs, ss;
        unsigned cpl, code_size;
    } cases[] = {
        { SEL_CODE64, SEL_DATA, 0, CODE64 },
        { SEL_CODE64, 0, 0, CODE64 },
        { SEL_USER_CODE64 | 3, SEL_USER_DATA | 3, 3, CODE64 },
        { SEL_USER_CODE32 | 3, SEL_USER_DATA | 3, 3, CODE32 },
        { SEL_CODE32, SEL_DATA, 0, CODE32 },
    };

    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        struct rig rig;

        rig_init(&rig, "max", RIG_LONG);
        rig.cpu->nmi_blocked = true;
        PUSH(&rig, 8, cases[i].ss, RIG_USER_STACK, 2, cases[i].cs, RIG_HANDLER);
        cr_assert_eq(rig_execute(&rig, iretq, 2), STEP_BRANCH, "case %u: fault %u", i, rig.cpu->fault.vector);
        cr_assert_eq(rig.cpu->cpl, cases[i].cpl);
        cr_assert_eq(rig.cpu->code_size, cases[i].code_size);
        cr_assert_eq(rig.cpu->gpr[REG_RSP], RIG_USER_STACK);
        cr_assert_eq(rig.cpu->segs[SEG_SS].selector, cases[i].ss);
        cr_assert_not(rig.cpu->nmi_blocked);
        rig_free(&rig);
    }
}

Test(iret, checks)
{
    static const struct {
        uint64_t ip;
        uint16_t cs, ss;
        uint8_t vector;
        uint16_t error;
    } cases[] = {
        { RIG_HANDLER, 0, SEL_DATA, VECTOR_GP, 0 },
        { RIG_HANDLER, SEL_BEYOND, SEL_DATA, VECTOR_GP, SEL_BEYOND },
        { RIG_HANDLER, SEL_DATA, SEL_DATA, VECTOR_GP, SEL_DATA },
        { RIG_HANDLER, SEL_USER_CODE64, SEL_DATA, VECTOR_GP, SEL_USER_CODE64 }, /* DPL != RPL */
        { 0x800000000000, SEL_CODE64, SEL_DATA, VECTOR_GP, 0 },
        { RIG_HANDLER, SEL_USER_CODE64 | 3, 0, VECTOR_GP, 0 },
        { RIG_HANDLER, SEL_USER_CODE64 | 3, SEL_DATA | 3, VECTOR_GP, SEL_DATA },
        { RIG_HANDLER, SEL_USER_CODE64 | 3, SEL_USER_DATA, VECTOR_GP, SEL_USER_DATA },
        { RIG_HANDLER, SEL_CODE64, SEL_ABSENT, VECTOR_SS, SEL_ABSENT },
    };
    struct rig rig;

    rig_init(&rig, "max", RIG_LONG);
    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        rig.cpu->gpr[REG_RSP] = RIG_KERNEL_STACK;
        PUSH(&rig, 8, cases[i].ss, RIG_USER_STACK, 2, cases[i].cs, cases[i].ip);
        ASSERT_FAULT(&rig, rig_execute(&rig, iretq, 2), cases[i].vector, cases[i].error);
        cr_assert_eq(rig.cpu->gpr[REG_RSP], RIG_KERNEL_STACK - 40, "case %u: nothing committed", i);
        cr_assert_eq(rig.cpu->segs[SEG_CS].selector, SEL_CODE64);
    }
    rig.cpu->rflags |= FLAG_NT;
    ASSERT_FAULT(&rig, rig_execute(&rig, iretq, 2), VECTOR_GP, 0);
    rig_free(&rig);
}

/* ---- JMP, CALL, RET far ---- */

Test(far, long_to_compatibility_and_back)
{
    struct rig rig;

    rig_init(&rig, "max", RIG_LONG);
    rig_write(&rig, 0xc000, RIG_HANDLER | (uint64_t)SEL_CODE32 << 32, 6);
    rig.cpu->gpr[REG_RAX] = 0xc000;
    cr_assert_eq(RIG_EXECUTE(&rig, 0xff, 0x28), STEP_BRANCH); /* jmp far [rax] */
    cr_assert_eq(rig.cpu->code_size, CODE32);
    cr_assert_eq(rig.cpu->cpu_rip, RIG_HANDLER);
    cr_assert_eq(RIG_EXECUTE(&rig, 0x9a, 0x00, 0x60, 0, 0, SEL_CODE64, 0), STEP_BRANCH); /* call 18:6000 */
    cr_assert_eq(rig.cpu->code_size, CODE64);
    cr_assert_eq(rig.cpu->gpr[REG_RSP], RIG_KERNEL_STACK - 8);
    cr_assert_eq(rig_read(&rig, RIG_KERNEL_STACK - 8, 8), (RIG_CODE + 7) | (uint64_t)SEL_CODE32 << 32);
    cr_assert_eq(rig_execute(&rig, retf, 1), STEP_BRANCH);
    cr_assert_eq(rig.cpu->code_size, CODE32);
    cr_assert_eq(rig.cpu->cpu_rip, RIG_CODE + 7);
    cr_assert_eq(rig.cpu->gpr[REG_RSP], RIG_KERNEL_STACK);
    rig_free(&rig);
}

Test(far, jump_checks)
{
    struct rig rig;

    rig_init(&rig, "max", RIG_PROTECTED);
    ASSERT_FAULT(&rig, RIG_EXECUTE(&rig, 0xea, 0, 0x60, 0, 0, 0, 0), VECTOR_GP, 0);
    ASSERT_FAULT(&rig, RIG_EXECUTE(&rig, 0xea, 0, 0x60, 0, 0, SEL_DATA, 0), VECTOR_GP, SEL_DATA);
    ASSERT_FAULT(&rig, RIG_EXECUTE(&rig, 0xea, 0, 0x60, 0, 0, SEL_USER_CODE32, 0), VECTOR_GP, SEL_USER_CODE32);
    ASSERT_FAULT(&rig, RIG_EXECUTE(&rig, 0xea, 0, 0x60, 0, 0, SEL_CODE32 | 3, 0), VECTOR_GP, SEL_CODE32);
    ASSERT_FAULT(&rig, RIG_EXECUTE(&rig, 0xea, 0, 0x60, 0, 0, SEL_TSS, 0), VECTOR_UD, 0); /* task switch: not yet */
    cr_assert_eq(rig.cpu->stats.unimplemented, 1);
    rig_set_user(&rig, false);
    cr_assert_eq(RIG_EXECUTE(&rig, 0xea, 0, 0x60, 0, 0, SEL_CONFORMING, 0), STEP_BRANCH);
    cr_assert_eq(rig.cpu->segs[SEG_CS].selector, SEL_CONFORMING | 3);
    rig_free(&rig);
}

Test(far, real_to_protected)
{
    struct rig rig;

    rig_init(&rig, "max", RIG_REAL);
    cr_assert_eq(RIG_EXECUTE(&rig, 0xea, 0x34, 0x12, 0x00, 0x20), STEP_BRANCH); /* jmp 2000:1234 */
    cr_assert_eq(rig.cpu->segs[SEG_CS].base, 0x20000);
    cr_assert_eq(rig.cpu->cpu_rip, 0x1234);
    rig_free(&rig);
}

Test(far, call_gate_to_inner_level)
{
    struct rig rig;

    rig_init(&rig, "max", RIG_PROTECTED);
    rig_set_user(&rig, false);
    /* two parameters, DPL 3, to 08:6000 */
    rig_write(&rig, RIG_GDT + SEL_GATE, RIG_HANDLER | SEL_CODE32 << 16 | 2ull << 32 | 0xecull << 40, 8);
    PUSH(&rig, 4, 0x11111111, 0x22222222);
    cr_assert_eq(RIG_EXECUTE(&rig, 0x9a, 0xff, 0xff, 0xff, 0xff, SEL_GATE | 3, 0), STEP_BRANCH);
    cr_assert_eq(rig.cpu->cpl, 0);
    cr_assert_eq(rig.cpu->cpu_rip, RIG_HANDLER);
    cr_assert_eq(rig.cpu->gpr[REG_RSP], RIG_INNER_STACK - 24);
    cr_assert_eq(rig_read(&rig, RIG_INNER_STACK - 12, 4), 0x11111111);
    cr_assert_eq(rig_read(&rig, RIG_INNER_STACK - 16, 4), 0x22222222);
    /* retf 8: back, with the parameters taken off both stacks */
    cr_assert_eq(RIG_EXECUTE(&rig, 0xca, 8, 0), STEP_BRANCH);
    cr_assert_eq(rig.cpu->cpl, 3);
    cr_assert_eq(rig.cpu->cpu_rip, RIG_CODE + 7);
    cr_assert_eq(rig.cpu->gpr[REG_RSP], RIG_USER_STACK);
    rig_free(&rig);
}

Test(far, call_gate_in_long_mode)
{
    struct rig rig;

    rig_init(&rig, "max", RIG_LONG);
    rig_set_user(&rig, true);
    rig_write(&rig, RIG_GDT + SEL_GATE, RIG_HANDLER | SEL_CODE64 << 16 | 0xecull << 40, 8);
    rig_write(&rig, RIG_GDT + SEL_GATE + 8, 0, 8);
    rig_write(&rig, 0xc000, (uint64_t)(SEL_GATE | 3) << 32, 6);
    rig.cpu->gpr[REG_RAX] = 0xc000;
    cr_assert_eq(RIG_EXECUTE(&rig, 0xff, 0x18), STEP_BRANCH); /* call far [rax] */
    cr_assert_eq(rig.cpu->cpl, 0);
    cr_assert_eq(rig.cpu->gpr[REG_RSP], RIG_INNER_STACK - 32);
    cr_assert_eq(rig_execute(&rig, retfq, 2), STEP_BRANCH);
    cr_assert_eq(rig.cpu->cpl, 3);
    cr_assert_eq(rig.cpu->gpr[REG_RSP], RIG_USER_STACK);
    rig_free(&rig);
}

/* ---- SYSCALL, SYSRET ---- */

Test(syscall, there_and_back)
{
    struct rig rig;
    struct cpu *cpu;

    rig_init(&rig, "max,vendor=GenuineIntel", RIG_LONG);
    cpu = rig.cpu;
    rig_set_user(&rig, true);
    cpu->msrs.star = (uint64_t)SEL_CODE64 << 32 | (uint64_t)(SEL_USER_CODE32 | 3) << 48;
    cpu->msrs.lstar = 0xffffffff81000000;
    cpu->msrs.fmask = FLAG_IF | FLAG_TF | FLAG_AC;
    cpu_set_rflags(cpu, FLAG_IF | FLAG_CF | FLAG_RF);
    cr_assert_eq(RIG_EXECUTE(&rig, 0x0f, 0x05), STEP_BRANCH);
    cr_assert_eq(cpu->cpu_rip, 0xffffffff81000000);
    cr_assert_eq(cpu->gpr[REG_RCX], RIG_CODE + 2);
    cr_assert_eq(cpu->gpr[REG_R11], FLAG_IF | FLAG_CF | 2);
    cr_assert_eq(cpu->rflags & ~FLAG_RF, FLAG_CF | 2);
    cr_assert_eq(cpu->cpl, 0);
    cr_assert_eq(cpu->segs[SEG_CS].selector, SEL_CODE64);
    cr_assert_eq(cpu->segs[SEG_SS].selector, SEL_CODE64 + 8);
    cr_assert_eq(cpu->gpr[REG_RSP], RIG_USER_STACK);
    cr_assert_eq(RIG_EXECUTE(&rig, 0x48, 0x0f, 0x07), STEP_BRANCH); /* sysretq */
    cr_assert_eq(cpu->cpl, 3);
    cr_assert_eq(cpu->code_size, CODE64);
    cr_assert_eq(cpu->cpu_rip, RIG_CODE + 2);
    cr_assert_eq(cpu->rflags, FLAG_IF | FLAG_CF | 2);
    cr_assert_eq(cpu->segs[SEG_CS].selector, (SEL_USER_CODE32 + 16) | 3);
    cr_assert_eq(cpu->segs[SEG_SS].selector, (SEL_USER_CODE32 + 8) | 3);
    ASSERT_FAULT(&rig, RIG_EXECUTE(&rig, 0x48, 0x0f, 0x07), VECTOR_GP, 0); /* CPL 3 */
    cpu->msrs.efer &= ~(uint64_t)EFER_SCE;
    ASSERT_FAULT(&rig, RIG_EXECUTE(&rig, 0x0f, 0x05), VECTOR_UD, 0);
    rig_free(&rig);
}

Test(syscall, sysret_to_compatibility_mode)
{
    struct rig rig;

    rig_init(&rig, "max", RIG_LONG);
    rig.cpu->msrs.star = (uint64_t)(SEL_USER_CODE32 | 3) << 48;
    rig.cpu->gpr[REG_RCX] = 0x1234567890;
    rig.cpu->gpr[REG_R11] = 2;
    cr_assert_eq(RIG_EXECUTE(&rig, 0x0f, 0x07), STEP_BRANCH);
    cr_assert_eq(rig.cpu->code_size, CODE32);
    cr_assert_eq(rig.cpu->cpu_rip, 0x34567890);
    cr_assert_eq(rig.cpu->segs[SEG_CS].selector, SEL_USER_CODE32 | 3);
    rig_free(&rig);
}

/* Where the vendors differ. */
Test(syscall, vendors)
{
    struct rig rig;

    rig_init(&rig, "max,vendor=GenuineIntel", RIG_LONG);
    rig.cpu->gpr[REG_RCX] = 0x800000000000;
    ASSERT_FAULT(&rig, RIG_EXECUTE(&rig, 0x48, 0x0f, 0x07), VECTOR_GP, 0);
    cr_assert_eq(rig.cpu->cpl, 0, "Intel faults before it leaves");
    rig.cpu->msrs.sysenter_cs = SEL_CODE64;
    cr_assert_eq(RIG_EXECUTE(&rig, 0x0f, 0x34), STEP_BRANCH);
    rig_set_user(&rig, false);
    ASSERT_FAULT(&rig, RIG_EXECUTE(&rig, 0x0f, 0x05), VECTOR_UD, 0);
    rig_free(&rig);

    rig_init(&rig, "max,vendor=AuthenticAMD", RIG_LONG);
    rig.cpu->gpr[REG_RCX] = 0x800000000000;
    cr_assert_eq(RIG_EXECUTE(&rig, 0x48, 0x0f, 0x07), STEP_BRANCH);
    cr_assert_eq(rig.cpu->cpl, 3, "on AMD the fetch will fault");
    rig_set_user(&rig, false);
    rig.cpu->msrs.cstar = 0xffffffff82000000;
    cr_assert_eq(RIG_EXECUTE(&rig, 0x0f, 0x05), STEP_BRANCH);
    cr_assert_eq(rig.cpu->cpu_rip, 0xffffffff82000000);
    rig.cpu->msrs.sysenter_cs = SEL_CODE64;
    ASSERT_FAULT(&rig, RIG_EXECUTE(&rig, 0x0f, 0x34), VECTOR_UD, 0);
    rig_free(&rig);
}

/* ---- SYSENTER, SYSEXIT ---- */

Test(sysenter, there_and_back)
{
    struct rig rig;
    struct cpu *cpu;

    rig_init(&rig, "max,vendor=GenuineIntel", RIG_LONG);
    cpu = rig.cpu;
    rig_set_user(&rig, false);
    ASSERT_FAULT(&rig, RIG_EXECUTE(&rig, 0x0f, 0x34), VECTOR_GP, 0); /* CS MSR is null */
    cpu->msrs.sysenter_cs = SEL_CODE64 | 3;
    cpu->msrs.sysenter_esp = 0xffff888000001000;
    cpu->msrs.sysenter_eip = 0xffffffff81000100;
    cpu_set_rflags(cpu, FLAG_IF);
    cr_assert_eq(RIG_EXECUTE(&rig, 0x0f, 0x34), STEP_BRANCH);
    cr_assert_eq(cpu->cpl, 0);
    cr_assert_eq(cpu->code_size, CODE64);
    cr_assert_eq(cpu->gpr[REG_RSP], 0xffff888000001000);
    cr_assert_eq(cpu->cpu_rip, 0xffffffff81000100);
    cr_assert_eq(cpu->rflags, 2);
    cpu->gpr[REG_RCX] = RIG_USER_STACK;
    cpu->gpr[REG_RDX] = RIG_HANDLER;
    cr_assert_eq(RIG_EXECUTE(&rig, 0x0f, 0x35), STEP_BRANCH);
    cr_assert_eq(cpu->cpl, 3);
    cr_assert_eq(cpu->code_size, CODE32);
    cr_assert_eq(cpu->segs[SEG_CS].selector, (SEL_CODE64 + 16) | 3);
    cr_assert_eq(cpu->gpr[REG_RSP], RIG_USER_STACK);
    cpu_set_cpl(cpu, 3);
    ASSERT_FAULT(&rig, RIG_EXECUTE(&rig, 0x0f, 0x35), VECTOR_GP, 0);
    rig_free(&rig);
}

Test(sysenter, exit_to_64_bits)
{
    struct rig rig;

    rig_init(&rig, "max,vendor=GenuineIntel", RIG_LONG);
    rig.cpu->msrs.sysenter_cs = SEL_CODE64;
    rig.cpu->gpr[REG_RCX] = RIG_USER_STACK;
    rig.cpu->gpr[REG_RDX] = 0x800000000000;
    ASSERT_FAULT(&rig, RIG_EXECUTE(&rig, 0x48, 0x0f, 0x35), VECTOR_GP, 0);
    rig.cpu->gpr[REG_RDX] = 0x7fffffffffff;
    cr_assert_eq(RIG_EXECUTE(&rig, 0x48, 0x0f, 0x35), STEP_BRANCH);
    cr_assert_eq(rig.cpu->code_size, CODE64);
    cr_assert_eq(rig.cpu->segs[SEG_CS].selector, (SEL_CODE64 + 32) | 3);
    rig_free(&rig);
}
