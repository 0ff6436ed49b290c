/* Control registers and the privileged odds and ends: MOV CR, LMSW, XSETBV, INVPCID, FS/GS base, STAC, CLI, HLT. */
#include "rig.h"

/* mov crN, rax */
static enum step write_cr(struct rig *rig, unsigned n, uint64_t value)
{
    rig->cpu->gpr[REG_RAX] = value;
    if (n == 8)
        return RIG_EXECUTE(rig, 0x44, 0x0f, 0x22, 0xc0);
    return RIG_EXECUTE(rig, 0x0f, 0x22, (uint8_t)(0xc0 | n << 3));
}

Test(control, cr0_rules)
{
    struct rig rig;
    struct cpu *cpu;

    rig_init(&rig, "max", RIG_LONG);
    cpu = rig.cpu;
    ASSERT_FAULT(&rig, write_cr(&rig, 0, cpu->cr0 | BIT(32)), VECTOR_GP, 0);
    ASSERT_FAULT(&rig, write_cr(&rig, 0, cpu->cr0 & ~(uint64_t)CR0_PE), VECTOR_GP, 0);
    ASSERT_FAULT(&rig, write_cr(&rig, 0, cpu->cr0 | CR0_NW), VECTOR_GP, 0);
    ASSERT_FAULT(&rig, write_cr(&rig, 0, cpu->cr0 & ~CR0_PG), VECTOR_GP, 0); /* from 64-bit code */
    cr_assert_eq(write_cr(&rig, 0, cpu->cr0 | CR0_TS | BIT(10)), STEP_END);
    cr_assert(cpu->cr0 & CR0_TS);
    cr_assert_not(cpu->cr0 & BIT(10), "reserved bits below 32 are ignored");
    cr_assert_eq(RIG_EXECUTE(&rig, 0x0f, 0x06), STEP_END); /* clts */
    cr_assert_not(cpu->cr0 & CR0_TS);
    rig_set_user(&rig, true);
    ASSERT_FAULT(&rig, write_cr(&rig, 0, cpu->cr0), VECTOR_GP, 0);
    ASSERT_FAULT(&rig, RIG_EXECUTE(&rig, 0x0f, 0x06), VECTOR_GP, 0);
    rig_free(&rig);
}

/* The road from real mode to 64-bit mode, and what is missing on it. */
Test(control, long_mode_activation)
{
    struct rig rig;
    struct cpu *cpu;

    rig_init(&rig, "max", RIG_PROTECTED);
    cpu = rig.cpu;
    cpu_set_efer(cpu, EFER_LME);
    ASSERT_FAULT(&rig, write_cr(&rig, 0, cpu->cr0 | CR0_PG), VECTOR_GP, 0); /* no PAE */
    rig_write(&rig, RIG_PAGES, (RIG_PAGES + 0x1000) | 7, 8);
    rig_write(&rig, RIG_PAGES + 0x1000, 0x87, 8); /* 1 GiB page */
    cr_assert_eq(write_cr(&rig, 4, CR4_PAE), STEP_END);
    cr_assert_eq(write_cr(&rig, 3, RIG_PAGES), STEP_END);
    cpu->segs[SEG_CS].attributes |= SEG_ATTR_L;
    ASSERT_FAULT(&rig, write_cr(&rig, 0, cpu->cr0 | CR0_PG), VECTOR_GP, 0);
    cpu->segs[SEG_CS].attributes &= ~(uint32_t)SEG_ATTR_L;
    cr_assert_eq(write_cr(&rig, 0, cpu->cr0 | CR0_PG), STEP_END);
    cr_assert(cpu_long_mode(cpu));
    cr_assert_eq(cpu->code_size, CODE32);
    cr_assert_eq(RIG_EXECUTE(&rig, 0xea, 0, 0x60, 0, 0, SEL_CODE64, 0), STEP_BRANCH);
    cr_assert_eq(cpu->code_size, CODE64);
    ASSERT_FAULT(&rig, write_cr(&rig, 4, 0), VECTOR_GP, 0); /* PAE stays */
    rig_free(&rig);
}

Test(control, leaving_paging_clears_lma)
{
    struct rig rig;

    rig_init(&rig, "max", RIG_LONG);
    cpu_set_segment(rig.cpu, SEG_CS, SEL_CODE32, 0, 0xffffffff, 0xc09b);
    cr_assert_eq(write_cr(&rig, 0, rig.cpu->cr0 & ~CR0_PG), STEP_END);
    cr_assert_not(cpu_long_mode(rig.cpu));
    cr_assert(rig.cpu->msrs.efer & EFER_LME);
    rig_free(&rig);
}

Test(control, pae_pdptes)
{
    struct rig rig;
    struct cpu *cpu;

    rig_init(&rig, "max", RIG_PROTECTED);
    cpu = rig.cpu;
    cr_assert_eq(write_cr(&rig, 4, CR4_PAE), STEP_END);
    cr_assert_eq(write_cr(&rig, 3, RIG_PAGES), STEP_END);
    rig_write(&rig, RIG_PAGES, (RIG_PAGES + 0x1000) | 1 | 2, 8); /* bit 1 is reserved in a PDPTE */
    ASSERT_FAULT(&rig, write_cr(&rig, 0, cpu->cr0 | CR0_PG), VECTOR_GP, 0);
    rig_write(&rig, RIG_PAGES, (RIG_PAGES + 0x1000) | 1, 8);
    rig_write(&rig, RIG_PAGES + 0x1000, 0x87, 8);
    cr_assert_eq(write_cr(&rig, 0, cpu->cr0 | CR0_PG), STEP_END);
    cr_assert_eq(cpu->mmu.paging.pdpte[0], (RIG_PAGES + 0x1000) | 1);
    rig_write(&rig, RIG_PAGES + 8, 0x1e7, 8);
    ASSERT_FAULT(&rig, write_cr(&rig, 3, RIG_PAGES), VECTOR_GP, 0);
    rig_free(&rig);
}

Test(control, cr3_rules)
{
    struct rig rig;

    rig_init(&rig, "max", RIG_LONG);
    ASSERT_FAULT(&rig, write_cr(&rig, 3, RIG_PAGES | BIT(63)), VECTOR_GP, 0);
    ASSERT_FAULT(&rig, write_cr(&rig, 3, RIG_PAGES | BIT(40)), VECTOR_GP, 0); /* MAXPHYADDR is 40 here */
    cr_assert_eq(write_cr(&rig, 4, rig.cpu->cr4 | CR4_PCIDE), STEP_END);
    cr_assert_eq(write_cr(&rig, 3, RIG_PAGES | 5 | BIT(63)), STEP_END);
    cr_assert_eq(rig.cpu->cr3, RIG_PAGES | 5, "bit 63 is not kept");
    rig_free(&rig);
}

Test(control, cr4_rules)
{
    struct rig rig;
    struct cpu *cpu;

    rig_init(&rig, "max", RIG_LONG);
    cpu = rig.cpu;
    ASSERT_FAULT(&rig, write_cr(&rig, 4, cpu->cr4 | BIT(13)), VECTOR_GP, 0); /* VMXE */
    ASSERT_FAULT(&rig, write_cr(&rig, 4, cpu->cr4 | CR4_LA57), VECTOR_GP, 0);
    ASSERT_FAULT(&rig, write_cr(&rig, 4, cpu->cr4 | BIT(15)), VECTOR_GP, 0);
    ASSERT_FAULT(&rig, write_cr(&rig, 4, cpu->cr4 | BIT(32)), VECTOR_GP, 0);
    cpu_set_cr3(cpu, RIG_PAGES | 8, false);
    ASSERT_FAULT(&rig, write_cr(&rig, 4, cpu->cr4 | CR4_PCIDE), VECTOR_GP, 0); /* CR3[11:0] not zero */
    cpu_set_cr3(cpu, RIG_PAGES, false);
    cr_assert_eq(write_cr(&rig, 4, cpu->cr4 | CR4_PCIDE), STEP_END);
    cpu_set_segment(cpu, SEG_CS, SEL_CODE32, 0, 0xffffffff, 0xc09b);
    ASSERT_FAULT(&rig, write_cr(&rig, 0, cpu->cr0 & ~CR0_PG), VECTOR_GP, 0); /* PCIDE is set */
    rig_free(&rig);

    rig_init(&rig, "x86-64-v1", RIG_LONG);
    ASSERT_FAULT(&rig, write_cr(&rig, 4, rig.cpu->cr4 | CR4_SMEP), VECTOR_GP, 0);
    ASSERT_FAULT(&rig, write_cr(&rig, 4, rig.cpu->cr4 | CR4_OSXSAVE), VECTOR_GP, 0);
    rig_free(&rig);
}

struct tpr {
    unsigned writes;
    uint8_t value;
};

static void set_tpr(void *opaque, uint8_t value)
{
    struct tpr *tpr = opaque;

    tpr->writes++;
    tpr->value = value;
}

static uint64_t get_apic_base(void *opaque)
{
    (void)opaque;
    return 0xfee00900;
}

Test(control, cr8_rules)
{
    static const struct cpu_apic_ops apic_ops = { .set_tpr = set_tpr, .get_base = get_apic_base };
    struct tpr tpr = { 0 };
    struct rig rig;

    rig_init(&rig, "max", RIG_LONG);
    cpu_set_apic(rig.cpu, &tpr, &apic_ops);
    for (unsigned bit = 4; bit < 64; bit++)
        ASSERT_FAULT(&rig, write_cr(&rig, 8, BIT(bit) | 5), VECTOR_GP, 0);
    cr_assert_eq(tpr.writes, 0);
    cr_assert_eq(write_cr(&rig, 8, 15), STEP_END);
    cr_assert_eq(tpr.value, 0xf0, "the priority class");
    rig_set_user(&rig, true);
    ASSERT_FAULT(&rig, write_cr(&rig, 8, 0), VECTOR_GP, 0);
    cr_assert_eq(tpr.writes, 1);
    rig_free(&rig);
}

Test(control, lmsw)
{
    struct rig rig;

    rig_init(&rig, "max", RIG_REAL);
    rig.cpu->gpr[REG_RAX] = 0xb;
    cr_assert_eq(RIG_EXECUTE(&rig, 0x0f, 0x01, 0xf0), STEP_END);
    cr_assert(cpu_protected(rig.cpu));
    cr_assert_eq(rig.cpu->cpl, 0);
    rig.cpu->gpr[REG_RAX] = 0;
    cr_assert_eq(RIG_EXECUTE(&rig, 0x0f, 0x01, 0xf0), STEP_END);
    cr_assert(cpu_protected(rig.cpu), "LMSW cannot clear PE");
    cr_assert_not(rig.cpu->cr0 & CR0_TS);
    rig_free(&rig);
}

Test(control, xsetbv)
{
    struct rig rig;
    struct cpu *cpu;

    rig_init(&rig, "max", RIG_LONG);
    cpu = rig.cpu;
    cpu->gpr[REG_RAX] = 3;
    cpu->gpr[REG_RCX] = cpu->gpr[REG_RDX] = 0;
    ASSERT_FAULT(&rig, RIG_EXECUTE(&rig, 0x0f, 0x01, 0xd1), VECTOR_UD, 0); /* OSXSAVE clear */
    cpu_set_cr4(cpu, cpu->cr4 | CR4_OSXSAVE);
    cr_assert_eq(RIG_EXECUTE(&rig, 0x0f, 0x01, 0xd1), STEP_END);
    cr_assert_eq(cpu->xcr0, 3);
    for (unsigned bad = 0; bad < 4; bad++) {
        static const uint64_t values[] = { 2, 5, BIT(5) | 7, BIT(40) | 1 };

        cpu->gpr[REG_RAX] = (uint32_t)values[bad];
        cpu->gpr[REG_RDX] = values[bad] >> 32;
        ASSERT_FAULT(&rig, RIG_EXECUTE(&rig, 0x0f, 0x01, 0xd1), VECTOR_GP, 0);
    }
    cpu->gpr[REG_RAX] = 1;
    cpu->gpr[REG_RDX] = 0;
    cpu->gpr[REG_RCX] = 2;
    ASSERT_FAULT(&rig, RIG_EXECUTE(&rig, 0x0f, 0x01, 0xd1), VECTOR_GP, 0);
    rig_free(&rig);
}

Test(control, invpcid)
{
    struct rig rig;
    struct cpu *cpu;
    static const uint8_t invpcid[] = { 0x66, 0x0f, 0x38, 0x82, 0x01 }; /* invpcid rax, [rcx] */

    rig_init(&rig, "max", RIG_LONG);
    cpu = rig.cpu;
    cpu->gpr[REG_RCX] = 0xc000;
    rig_write(&rig, 0xc000, 0, 8);
    rig_write(&rig, 0xc008, 0x1000, 8);
    for (unsigned type = 0; type <= 4; type++) {
        cpu->gpr[REG_RAX] = type;
        if (type < 4)
            cr_assert_eq(rig_execute(&rig, invpcid, 5), STEP_END);
        else
            ASSERT_FAULT(&rig, rig_execute(&rig, invpcid, 5), VECTOR_GP, 0);
    }
    cpu->gpr[REG_RAX] = 0;
    rig_write(&rig, 0xc000, 1, 8);
    ASSERT_FAULT(&rig, rig_execute(&rig, invpcid, 5), VECTOR_GP, 0); /* PCID without PCIDE */
    rig_write(&rig, 0xc000, 0x1000, 8);
    ASSERT_FAULT(&rig, rig_execute(&rig, invpcid, 5), VECTOR_GP, 0);
    rig_write(&rig, 0xc000, 0, 8);
    rig_write(&rig, 0xc008, 0x800000000000, 8);
    ASSERT_FAULT(&rig, rig_execute(&rig, invpcid, 5), VECTOR_GP, 0);
    rig_free(&rig);
}

Test(control, segment_bases)
{
    static const uint8_t wrfsbase[] = { 0xf3, 0x48, 0x0f, 0xae, 0xd0 }, rdgsbase[] = { 0xf3, 0x48, 0x0f, 0xae, 0xc8 };
    static const uint8_t swapgs[] = { 0x0f, 0x01, 0xf8 };
    struct rig rig;
    struct cpu *cpu;

    rig_init(&rig, "max", RIG_LONG);
    cpu = rig.cpu;
    ASSERT_FAULT(&rig, rig_execute(&rig, wrfsbase, 5), VECTOR_UD, 0);
    cpu_set_cr4(cpu, cpu->cr4 | CR4_FSGSBASE);
    cpu->gpr[REG_RAX] = 0x7fff12345678;
    cr_assert_neq(rig_execute(&rig, wrfsbase, 5), STEP_FAULT);
    cr_assert_eq(cpu->segs[SEG_FS].base, 0x7fff12345678);
    cpu->gpr[REG_RAX] = 0x800000000000;
    ASSERT_FAULT(&rig, rig_execute(&rig, wrfsbase, 5), VECTOR_GP, 0);
    cpu->msrs.kernel_gs_base = 0xffff888000000000;
    cpu->segs[SEG_GS].base = 0x1000;
    cr_assert_neq(rig_execute(&rig, swapgs, 3), STEP_FAULT);
    cr_assert_eq(cpu->msrs.kernel_gs_base, 0x1000);
    cr_assert_neq(rig_execute(&rig, rdgsbase, 5), STEP_FAULT);
    cr_assert_eq(cpu->gpr[REG_RAX], 0xffff888000000000);
    rig_set_user(&rig, true);
    ASSERT_FAULT(&rig, rig_execute(&rig, swapgs, 3), VECTOR_GP, 0);
    rig_free(&rig);
}

Test(control, stac_clac)
{
    struct rig rig;

    rig_init(&rig, "max", RIG_LONG);
    cr_assert_neq(RIG_EXECUTE(&rig, 0x0f, 0x01, 0xcb), STEP_FAULT);
    cr_assert_eq(rig.cpu->privilege, MMU_SUPERVISOR_AC);
    cr_assert_neq(RIG_EXECUTE(&rig, 0x0f, 0x01, 0xca), STEP_FAULT);
    cr_assert_eq(rig.cpu->privilege, MMU_SUPERVISOR);
    rig_free(&rig);
}

Test(control, interrupt_flag)
{
    struct rig rig;

    rig_init(&rig, "max", RIG_LONG);
    cr_assert_eq(RIG_EXECUTE(&rig, 0xfb), STEP_END); /* sti */
    cr_assert(rig.cpu->interrupt_shadow);
    rig.cpu->interrupt_shadow = false;
    RIG_EXECUTE(&rig, 0xfb);
    cr_assert_not(rig.cpu->interrupt_shadow, "no shadow if IF was set");
    rig_set_user(&rig, true);
    ASSERT_FAULT(&rig, RIG_EXECUTE(&rig, 0xfa), VECTOR_GP, 0);
    ASSERT_FAULT(&rig, RIG_EXECUTE(&rig, 0xfb), VECTOR_GP, 0);
    rig.cpu->rflags |= FLAG_IOPL;
    cr_assert_neq(RIG_EXECUTE(&rig, 0xfa), STEP_FAULT);
    ASSERT_FAULT(&rig, RIG_EXECUTE(&rig, 0xf4), VECTOR_GP, 0); /* hlt */
    rig_free(&rig);
}

/* #UD or #GP for everybody: what is not offered, and what has no counters. */
Test(control, absent_instructions)
{
    struct rig rig;

    rig_init(&rig, "max", RIG_LONG);
    ASSERT_FAULT(&rig, RIG_EXECUTE(&rig, 0x0f, 0x01, 0xc8), VECTOR_UD, 0); /* monitor */
    ASSERT_FAULT(&rig, RIG_EXECUTE(&rig, 0x0f, 0x01, 0xc9), VECTOR_UD, 0); /* mwait */
    ASSERT_FAULT(&rig, RIG_EXECUTE(&rig, 0x0f, 0xaa), VECTOR_UD, 0);       /* rsm */
    ASSERT_FAULT(&rig, RIG_EXECUTE(&rig, 0x0f, 0x33), VECTOR_GP, 0);       /* rdpmc */
    rig.cpu->gpr[REG_RAX] = 5;
    cr_assert_neq(RIG_EXECUTE(&rig, 0x0f, 0x01, 0xc1), STEP_FAULT); /* vmcall */
    cr_assert_eq(rig.cpu->gpr[REG_RAX], (uint64_t)-1000);
    rig_free(&rig);
    rig_init(&rig, "max,kvm=off", RIG_LONG);
    ASSERT_FAULT(&rig, RIG_EXECUTE(&rig, 0x0f, 0x01, 0xc1), VECTOR_UD, 0);
    rig_free(&rig);
}

Test(control, tsc_disable)
{
    struct rig rig;

    rig_init(&rig, "max", RIG_LONG);
    cpu_set_cr4(rig.cpu, rig.cpu->cr4 | CR4_TSD);
    cr_assert_neq(RIG_EXECUTE(&rig, 0x0f, 0x31), STEP_FAULT);
    rig_set_user(&rig, true);
    ASSERT_FAULT(&rig, RIG_EXECUTE(&rig, 0x0f, 0x31), VECTOR_GP, 0);
    ASSERT_FAULT(&rig, RIG_EXECUTE(&rig, 0x0f, 0x01, 0xf9), VECTOR_GP, 0);
    rig_free(&rig);
}

Test(control, reset_state)
{
    struct rig rig;
    struct cpu *cpu;

    rig_init(&rig, "max", RIG_LONG);
    cpu = rig.cpu;
    cpu_reset(cpu);
    cr_assert_eq(cpu->cr0, 0x60000010);
    cr_assert_eq(cpu->segs[SEG_CS].base + cpu->cpu_rip, 0xfffffff0);
    cr_assert_eq(cpu->rflags, 2);
    cr_assert_eq(cpu->gpr[REG_RDX], cpu_cpuid(cpu, 1, 0).eax);
    cr_assert_eq(cpu->dr[6], 0xffff0ff0);
    cr_assert_eq(cpu->dr[7], 0x400);
    cr_assert_eq(cpu->code_size, CODE16);
    cr_assert_eq(cpu->xcr0, 1);
    cr_assert_eq(cpu->msrs.efer, 0);
    rig_free(&rig);
}
