/* Where a stack or a data segment ends: expand-down segments and non-canonical stacks (SDM Vol. 3A 3.4.5.1, 5.3,
 * 6.14.2 to 6.14.5). */
#include "rig.h"

/* ---- Expand-down segments ---- */

enum { EXPAND_DOWN16 = 0x97, EXPAND_DOWN32 = 0x4097 }; /* present, DPL 0, writable; offsets above the limit only */

/* mov eax, [eax] */
static enum step read_data(struct rig *rig, uint32_t offset)
{
    rig->cpu->gpr[REG_RAX] = offset;
    return RIG_EXECUTE(rig, 0x8b, 0x00);
}

/* mov [ebp], eax */
static enum step write_stack(struct rig *rig, uint32_t offset)
{
    rig->cpu->gpr[REG_RBP] = offset;
    return RIG_EXECUTE(rig, 0x89, 0x45, 0x00);
}

Test(stack, expand_down_segment_begins_above_its_limit)
{
    struct rig rig;

    rig_init(&rig, "max", RIG_PROTECTED);
    cpu_set_segment(rig.cpu, SEG_DS, SEL_DATA, 0, 0xbfff, EXPAND_DOWN32);
    cpu_set_segment(rig.cpu, SEG_SS, SEL_DATA, 0, 0xbfff, EXPAND_DOWN32);
    ASSERT_FAULT(&rig, read_data(&rig, 0xbffc), VECTOR_GP, 0);
    ASSERT_FAULT(&rig, read_data(&rig, 0xbfff), VECTOR_GP, 0);
    ASSERT_FAULT(&rig, read_data(&rig, 0), VECTOR_GP, 0);
    cr_assert_eq(read_data(&rig, 0xc000), STEP_NEXT);
    ASSERT_FAULT(&rig, write_stack(&rig, 0xbfff), VECTOR_SS, 0);
    cr_assert_eq(write_stack(&rig, 0xc000), STEP_NEXT);
    rig_free(&rig);
}

Test(stack, expand_down_segment_ends_by_its_size)
{
    struct rig rig;

    rig_init(&rig, "max", RIG_PROTECTED);
    cpu_set_segment(rig.cpu, SEG_DS, SEL_DATA, 0, 0xbfff, EXPAND_DOWN16);
    cr_assert_eq(read_data(&rig, 0xfffc), STEP_NEXT);
    ASSERT_FAULT(&rig, read_data(&rig, 0xfffd), VECTOR_GP, 0);
    ASSERT_FAULT(&rig, read_data(&rig, 0x10000), VECTOR_GP, 0);
    cpu_set_segment(rig.cpu, SEG_DS, SEL_DATA, 0, 0xbfff, EXPAND_DOWN32);
    cr_assert_eq(read_data(&rig, 0x10000), STEP_NEXT);
    rig_free(&rig);
}

/* EFLAGS, CS, EIP: the lowest of twelve bytes must be above the limit. */
Test(stack, interrupt_frame_on_an_expand_down_stack)
{
    struct rig rig;

    rig_init(&rig, "max", RIG_PROTECTED);
    rig_gate(&rig, 0x80, SYS_INT_GATE, 0, SEL_CODE32, RIG_HANDLER, 0);
    cpu_set_segment(rig.cpu, SEG_SS, SEL_DATA, 0, RIG_KERNEL_STACK - 12, EXPAND_DOWN32);
    ASSERT_FAULT(&rig, cpu_software_interrupt(rig.cpu, 0x80, RIG_CODE + 2), VECTOR_SS, 0);
    cr_assert_eq(rig.cpu->gpr[REG_RSP], RIG_KERNEL_STACK);
    cr_assert_eq(rig_read(&rig, RIG_KERNEL_STACK - 4, 4), 0, "nothing was written");
    cpu_set_segment(rig.cpu, SEG_SS, SEL_DATA, 0, RIG_KERNEL_STACK - 13, EXPAND_DOWN32);
    cr_assert_eq(cpu_software_interrupt(rig.cpu, 0x80, RIG_CODE + 2), STEP_BRANCH);
    cr_assert_eq(rig.cpu->gpr[REG_RSP], RIG_KERNEL_STACK - 12);
    rig_free(&rig);
}

/* ---- Non-canonical stacks ---- */

#define HOLE_START 0x0000800000000000ull
#define HOLE_END   0xffff800000000000ull

/* Maps the last 2 MiB below the hole of non-canonical addresses to 2 MiB, the first above it to 4 MiB. */
static void map_around_hole(struct rig *rig)
{
    gpa_t low = 0x110000, high = 0x112000;

    rig_write(rig, RIG_PAGES + 255 * 8, low | 7, 8);
    rig_write(rig, low + 511 * 8, (low + 0x1000) | 7, 8);
    rig_write(rig, low + 0x1000 + 511 * 8, 0x200087, 8);
    rig_write(rig, RIG_PAGES + 256 * 8, high | 7, 8);
    rig_write(rig, high, (high + 0x1000) | 7, 8);
    rig_write(rig, high + 0x1000, 0x400087, 8);
}

/* An interrupt finds a stack that is not canonical: #SS with EXT set, on a stack of its own. */
static void interrupt_on_bad_stack(uint64_t rsp)
{
    struct rig rig;

    rig_init(&rig, "max", RIG_LONG);
    map_around_hole(&rig);
    rig_gate(&rig, 0x30, SYS_INT_GATE, 0, SEL_CODE64, RIG_HANDLER, 0);
    rig_gate(&rig, VECTOR_SS, SYS_INT_GATE, 0, SEL_CODE64, RIG_HANDLER + 16, 1);
    rig.cpu->gpr[REG_RSP] = rsp;
    cr_assert_eq(cpu_deliver_interrupt(rig.cpu, 0x30), STEP_BRANCH);
    cr_assert_eq(rig.cpu->cpu_rip, RIG_HANDLER + 16, "RSP %llx", (unsigned long long)rsp);
    cr_assert_eq(rig.cpu->gpr[REG_RSP], RIG_IST_STACK - 48);
    cr_assert_eq(rig_read(&rig, RIG_IST_STACK - 48, 8), 1, "the error code is EXT");
    cr_assert_eq(rig_read(&rig, RIG_IST_STACK - 16, 8), rsp);
    rig_free(&rig);
}

Test(stack, interrupt_on_a_stack_that_is_not_canonical)
{
    interrupt_on_bad_stack(0x1234000000000000);
    interrupt_on_bad_stack(HOLE_START + 16); /* the upper words would be */
    interrupt_on_bad_stack(HOLE_END + 16);   /* the lower words would be */
}

/* RSP0 or an IST entry just above canonical memory: what is pushed would lie below it, yet the pointer is refused. */
Test(stack, pointers_in_the_tss_must_be_canonical)
{
    static const unsigned offsets[] = { 4, 36 }; /* RSP0, IST1 */

    for (unsigned i = 0; i < ARRAY_SIZE(offsets); i++) {
        struct rig rig;

        rig_init(&rig, "max", RIG_LONG);
        map_around_hole(&rig);
        rig_set_user(&rig, true);
        rig_gate(&rig, 0x80, SYS_INT_GATE, 3, SEL_CODE64, RIG_HANDLER, i);
        rig_write(&rig, RIG_TSS + offsets[i], HOLE_START, 8);
        ASSERT_FAULT(&rig, cpu_software_interrupt(rig.cpu, 0x80, RIG_CODE + 2), VECTOR_SS, 0);
        cr_assert_eq(rig.cpu->cpl, 3);
        rig_write(&rig, RIG_TSS + offsets[i], HOLE_START - 16, 8);
        cr_assert_eq(cpu_software_interrupt(rig.cpu, 0x80, RIG_CODE + 2), STEP_BRANCH, "offset %u", offsets[i]);
        cr_assert_eq(rig.cpu->gpr[REG_RSP], HOLE_START - 16 - 40);
        cr_assert_eq(rig_read(&rig, 0x400000 - 16 - 40, 8), RIG_CODE + 2);
        rig_free(&rig);
    }
}
