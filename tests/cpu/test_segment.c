/* Segment loads, LLDT, LTR, LAR, LSL, VERR, VERW, ARPL, UMIP, I/O permission. */
#include "rig.h"

Test(segment, data_loads)
{
    struct rig rig;
    struct cpu *cpu;

    rig_init(&rig, "max", RIG_PROTECTED);
    cpu = rig.cpu;
    cr_assert_eq(cpu_load_segment(cpu, SEG_DS, SEL_USER_DATA), 0);
    cr_assert(cpu->segs[SEG_DS].flat);
    cr_assert_eq(cpu->segs[SEG_DS].attributes, 0xc0f3);
    cr_assert_eq(cpu_load_segment(cpu, SEG_DS, 0), 0);
    cr_assert(cpu->segs[SEG_DS].attributes & SEG_ATTR_UNUSABLE);
    cr_assert_eq(cpu_load_segment(cpu, SEG_ES, SEL_READ_ONLY), 0);
    cr_assert_not(cpu->segs[SEG_ES].flat, "a read-only segment needs its checks");
    ASSERT_RAISED(&rig, cpu_load_segment(cpu, SEG_DS, SEL_BEYOND), VECTOR_GP, SEL_BEYOND);
    ASSERT_RAISED(&rig, cpu_load_segment(cpu, SEG_DS, SEL_TSS), VECTOR_GP, SEL_TSS);
    ASSERT_RAISED(&rig, cpu_load_segment(cpu, SEG_DS, SEL_EXEC_ONLY), VECTOR_GP, SEL_EXEC_ONLY);
    ASSERT_RAISED(&rig, cpu_load_segment(cpu, SEG_DS, SEL_ABSENT), VECTOR_NP, SEL_ABSENT);
    ASSERT_RAISED(&rig, cpu_load_segment(cpu, SEG_DS, SEL_DATA | 3), VECTOR_GP, SEL_DATA);
    ASSERT_RAISED(&rig, cpu_load_segment(cpu, SEG_DS, SEL_DATA | 4), VECTOR_GP, SEL_DATA | 4);
    rig_set_user(&rig, false);
    ASSERT_RAISED(&rig, cpu_load_segment(cpu, SEG_DS, SEL_DATA), VECTOR_GP, SEL_DATA);
    cr_assert_eq(cpu_load_segment(cpu, SEG_DS, SEL_CONFORMING | 3), 0);
    rig_free(&rig);
}

Test(segment, stack_loads)
{
    struct rig rig;
    struct cpu *cpu;

    rig_init(&rig, "max", RIG_PROTECTED);
    cpu = rig.cpu;
    cr_assert_eq(cpu_load_segment(cpu, SEG_SS, SEL_DATA), 0);
    ASSERT_RAISED(&rig, cpu_load_segment(cpu, SEG_SS, 0), VECTOR_GP, 0);
    ASSERT_RAISED(&rig, cpu_load_segment(cpu, SEG_SS, SEL_DATA | 1), VECTOR_GP, SEL_DATA);
    ASSERT_RAISED(&rig, cpu_load_segment(cpu, SEG_SS, SEL_USER_DATA), VECTOR_GP, SEL_USER_DATA);
    ASSERT_RAISED(&rig, cpu_load_segment(cpu, SEG_SS, SEL_CODE32), VECTOR_GP, SEL_CODE32);
    ASSERT_RAISED(&rig, cpu_load_segment(cpu, SEG_SS, SEL_ABSENT), VECTOR_SS, SEL_ABSENT);
    rig_free(&rig);

    rig_init(&rig, "max", RIG_LONG);
    cr_assert_eq(cpu_load_segment(rig.cpu, SEG_SS, 0), 0, "a null SS is legal in 64-bit mode");
    rig_set_user(&rig, true);
    ASSERT_RAISED(&rig, cpu_load_segment(rig.cpu, SEG_SS, 3), VECTOR_GP, 0);
    rig_free(&rig);
}

Test(segment, sets_accessed)
{
    struct rig rig;

    rig_init(&rig, "max", RIG_PROTECTED);
    rig_write(&rig, RIG_GDT + SEL_USER_DATA + 5, 0xf2, 1);
    cr_assert_eq(cpu_load_segment(rig.cpu, SEG_DS, SEL_USER_DATA), 0);
    cr_assert_eq(rig_read(&rig, RIG_GDT + SEL_USER_DATA + 5, 1), 0xf3);
    rig_free(&rig);
}

Test(segment, local_descriptor_table)
{
    struct rig rig;

    rig_init(&rig, "max", RIG_LONG);
    rig_write(&rig, RIG_LDT + 8, 0x00cff3000000ffff, 8);
    rig.cpu->gpr[REG_RAX] = SEL_LDT;
    cr_assert_neq(RIG_EXECUTE(&rig, 0x0f, 0x00, 0xd0), STEP_FAULT); /* lldt ax */
    cr_assert_eq(rig.cpu->ldtr.base, RIG_LDT);
    cr_assert_eq(cpu_load_segment(rig.cpu, SEG_FS, 8 | 4), 0);
    rig.cpu->gpr[REG_RAX] = SEL_DATA;
    ASSERT_FAULT(&rig, RIG_EXECUTE(&rig, 0x0f, 0x00, 0xd0), VECTOR_GP, SEL_DATA);
    rig.cpu->gpr[REG_RAX] = SEL_LDT | 4;
    ASSERT_FAULT(&rig, RIG_EXECUTE(&rig, 0x0f, 0x00, 0xd0), VECTOR_GP, SEL_LDT | 4);
    rig_free(&rig);
}

Test(segment, task_register)
{
    struct rig rig;

    rig_init(&rig, "max", RIG_LONG);
    rig.cpu->gpr[REG_RAX] = SEL_TSS;
    cr_assert_neq(RIG_EXECUTE(&rig, 0x0f, 0x00, 0xd8), STEP_FAULT); /* ltr ax */
    cr_assert_eq(rig_read(&rig, RIG_GDT + SEL_TSS + 5, 1), 0x8b);
    ASSERT_FAULT(&rig, RIG_EXECUTE(&rig, 0x0f, 0x00, 0xd8), VECTOR_GP, SEL_TSS); /* busy now */
    rig.cpu->gpr[REG_RAX] = 0;
    ASSERT_FAULT(&rig, RIG_EXECUTE(&rig, 0x0f, 0x00, 0xd8), VECTOR_GP, 0);
    rig_set_user(&rig, true);
    ASSERT_FAULT(&rig, RIG_EXECUTE(&rig, 0x0f, 0x00, 0xd8), VECTOR_GP, 0);
    rig_free(&rig);
    rig_init(&rig, "max", RIG_REAL);
    ASSERT_FAULT(&rig, RIG_EXECUTE(&rig, 0x0f, 0x00, 0xd8), VECTOR_UD, 0);
    rig_free(&rig);
}

Test(segment, lar_lsl_verr_verw)
{
    static const struct {
        uint16_t selector;
        bool user, lar, lsl, verr, verw;
    } cases[] = {
        { 0, false, false, false, false, false },
        { SEL_BEYOND, false, false, false, false, false },
        { SEL_DATA, false, true, true, true, true },
        { SEL_DATA, true, false, false, false, false },
        { SEL_USER_DATA | 3, true, true, true, true, true },
        { SEL_READ_ONLY, false, true, true, true, false },
        { SEL_EXEC_ONLY, false, true, true, false, false },
        { SEL_CODE64, false, true, true, true, false },
        { SEL_CONFORMING, true, true, true, true, false },
        { SEL_TSS, false, true, true, false, false },
        { SEL_LDT, false, true, true, false, false },
        { SEL_GATE, false, true, false, false, false },
    };

    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        struct rig rig;
        struct cpu *cpu;

        rig_init(&rig, "max", RIG_LONG);
        cpu = rig.cpu;
        rig_write(&rig, RIG_GDT + SEL_GATE + 5, 0x8c, 1);
        if (cases[i].user)
            rig_set_user(&rig, true);
        cpu->gpr[REG_RAX] = cases[i].selector;
        cpu->gpr[REG_RCX] = 0x1111;
        RIG_EXECUTE(&rig, 0x0f, 0x02, 0xc8); /* lar ecx, eax */
        cr_assert_eq(!!(cpu->rflags & FLAG_ZF), cases[i].lar, "LAR, case %u", i);
        if (!cases[i].lar)
            cr_assert_eq(cpu->gpr[REG_RCX], 0x1111);
        RIG_EXECUTE(&rig, 0x0f, 0x03, 0xc8); /* lsl ecx, eax */
        cr_assert_eq(!!(cpu->rflags & FLAG_ZF), cases[i].lsl, "LSL, case %u", i);
        RIG_EXECUTE(&rig, 0x0f, 0x00, 0xe0); /* verr ax */
        cr_assert_eq(!!(cpu->rflags & FLAG_ZF), cases[i].verr, "VERR, case %u", i);
        RIG_EXECUTE(&rig, 0x0f, 0x00, 0xe8); /* verw ax */
        cr_assert_eq(!!(cpu->rflags & FLAG_ZF), cases[i].verw, "VERW, case %u", i);
        rig_free(&rig);
    }
}

Test(segment, lar_and_lsl_values)
{
    struct rig rig;

    rig_init(&rig, "max", RIG_LONG);
    rig.cpu->gpr[REG_RAX] = SEL_USER_DATA;
    RIG_EXECUTE(&rig, 0x0f, 0x02, 0xc8);
    cr_assert_eq(rig.cpu->gpr[REG_RCX], 0xc0f300);
    RIG_EXECUTE(&rig, 0x0f, 0x03, 0xc8);
    cr_assert_eq(rig.cpu->gpr[REG_RCX], 0xffffffff);
    rig.cpu->gpr[REG_RAX] = SEL_TSS;
    RIG_EXECUTE(&rig, 0x0f, 0x03, 0xc8);
    cr_assert_eq(rig.cpu->gpr[REG_RCX], 0x67);
    rig_free(&rig);
}

Test(segment, umip)
{
    static const uint8_t code[][3] = {
        { 0x0f, 0x01, 0x00 }, { 0x0f, 0x01, 0x08 }, { 0x0f, 0x00, 0xc0 }, { 0x0f, 0x00, 0xc8 }, { 0x0f, 0x01, 0xe0 },
    }; /* sgdt, sidt, sldt, str, smsw */
    struct rig rig;

    rig_init(&rig, "max", RIG_LONG);
    rig_set_user(&rig, true);
    for (unsigned i = 0; i < ARRAY_SIZE(code); i++) {
        rig.cpu->gpr[REG_RAX] = 0xc000;
        cr_assert_eq(rig_execute(&rig, code[i], 3), STEP_NEXT, "case %u", i);
    }
    cpu_set_cr4(rig.cpu, rig.cpu->cr4 | CR4_UMIP);
    for (unsigned i = 0; i < ARRAY_SIZE(code); i++)
        ASSERT_FAULT(&rig, rig_execute(&rig, code[i], 3), VECTOR_GP, 0);
    rig_free(&rig);
}

Test(segment, shadow_after_ss)
{
    struct rig rig;

    rig_init(&rig, "max", RIG_LONG);
    rig.cpu->gpr[REG_RAX] = SEL_DATA;
    cr_assert_eq(RIG_EXECUTE(&rig, 0x8e, 0xd0), STEP_END); /* mov ss, eax */
    cr_assert(rig.cpu->interrupt_shadow);
    cr_assert(rig.cpu->debug_shadow);
    ASSERT_FAULT(&rig, RIG_EXECUTE(&rig, 0x8e, 0xc8), VECTOR_UD, 0); /* mov cs, eax */
    rig_free(&rig);
}

Test(segment, push_and_pop)
{
    struct rig rig;

    rig_init(&rig, "max", RIG_LONG);
    rig_write(&rig, RIG_KERNEL_STACK - 8, ~0ull, 8);
    cr_assert_neq(RIG_EXECUTE(&rig, 0x0f, 0xa0), STEP_FAULT); /* push fs */
    cr_assert_eq(rig_read(&rig, RIG_KERNEL_STACK - 8, 8), SEL_DATA);
    rig_write(&rig, RIG_KERNEL_STACK - 8, SEL_USER_DATA, 8);
    cr_assert_neq(RIG_EXECUTE(&rig, 0x0f, 0xa9), STEP_FAULT); /* pop gs */
    cr_assert_eq(rig.cpu->segs[SEG_GS].selector, SEL_USER_DATA);
    cr_assert_eq(rig.cpu->gpr[REG_RSP], RIG_KERNEL_STACK);
    rig_write(&rig, RIG_KERNEL_STACK, SEL_BEYOND, 8);
    ASSERT_FAULT(&rig, RIG_EXECUTE(&rig, 0x0f, 0xa9), VECTOR_GP, SEL_BEYOND);
    cr_assert_eq(rig.cpu->gpr[REG_RSP], RIG_KERNEL_STACK);
    rig_free(&rig);

    rig_init(&rig, "max", RIG_PROTECTED);
    rig_write(&rig, RIG_KERNEL_STACK - 4, 0xffffffff, 4);
    cr_assert_neq(RIG_EXECUTE(&rig, 0x1e), STEP_FAULT); /* push ds: two bytes are written */
    cr_assert_eq(rig_read(&rig, RIG_KERNEL_STACK - 4, 4), 0xffff0000 | SEL_DATA);
    cr_assert_eq(rig.cpu->gpr[REG_RSP], RIG_KERNEL_STACK - 4);
    rig_free(&rig);
}

Test(segment, far_pointer_load)
{
    struct rig rig;

    rig_init(&rig, "max", RIG_PROTECTED);
    rig_write(&rig, 0xc000, 0x12345678 | (uint64_t)SEL_USER_DATA << 32, 6);
    rig.cpu->gpr[REG_RCX] = 0xc000;
    cr_assert_neq(RIG_EXECUTE(&rig, 0xc5, 0x01), STEP_FAULT); /* lds eax, [ecx] */
    cr_assert_eq(rig.cpu->gpr[REG_RAX], 0x12345678);
    cr_assert_eq(rig.cpu->segs[SEG_DS].selector, SEL_USER_DATA);
    rig_free(&rig);
}

Test(segment, arpl)
{
    struct rig rig;

    rig_init(&rig, "max", RIG_PROTECTED);
    rig.cpu->gpr[REG_RAX] = 0x20;
    rig.cpu->gpr[REG_RCX] = 3;
    RIG_EXECUTE(&rig, 0x63, 0xc8); /* arpl ax, cx */
    cr_assert_eq(rig.cpu->gpr[REG_RAX], 0x23);
    cr_assert(rig.cpu->rflags & FLAG_ZF);
    RIG_EXECUTE(&rig, 0x63, 0xc8);
    cr_assert_not(rig.cpu->rflags & FLAG_ZF);
    rig_free(&rig);
}

Test(segment, io_permission)
{
    struct rig rig;

    rig_init(&rig, "max", RIG_LONG);
    cr_assert_eq(cpu_check_io(rig.cpu, 0x80, 1), 0);
    rig_set_user(&rig, true);
    rig_write(&rig, RIG_TSS + 102, 0x68, 2);
    ASSERT_RAISED(&rig, cpu_check_io(rig.cpu, 0x80, 1), VECTOR_GP, 0); /* the map is beyond the TSS */
    rig.cpu->tr.limit = 0x67 + 0x20;
    rig_write(&rig, RIG_TSS + 0x68 + 0x10, 0x04, 1); /* port 0x82 forbidden */
    cr_assert_eq(cpu_check_io(rig.cpu, 0x80, 2), 0);
    ASSERT_RAISED(&rig, cpu_check_io(rig.cpu, 0x80, 4), VECTOR_GP, 0);
    ASSERT_RAISED(&rig, cpu_check_io(rig.cpu, 0x82, 1), VECTOR_GP, 0);
    ASSERT_RAISED(&rig, cpu_check_io(rig.cpu, 0xffff, 1), VECTOR_GP, 0);
    rig.cpu->rflags |= FLAG_IOPL;
    cr_assert_eq(cpu_check_io(rig.cpu, 0x82, 1), 0);
    rig_free(&rig);
}
