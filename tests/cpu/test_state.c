/* Saved states that are damaged or of another CPU model: refused, or put right where there is only one right. */
#include <string.h>

#include "rig.h"

/* What `spoil` does to a CPU is saved and loaded into another one, whose model is `model`. The result of loading. */
static int reload(void (*spoil)(struct cpu *cpu), const char *model, struct rig *to)
{
    struct state_buffer buffer = { 0 };
    struct error err = { "" };
    struct rig from;
    int result;

    rig_init(&from, "max", RIG_LONG);
    rig_init(to, model, RIG_REAL);
    spoil(from.cpu);
    cr_assert_eq(state_save(&buffer, &cpu_state_table, from.cpu, &err), 0, "%s", err.text);
    result = state_load(&buffer, &cpu_state_table, to->cpu, &err);
    cr_assert_eq(result < 0, err.text[0] != 0, "%s", err.text);
    state_buffer_free(&buffer);
    rig_free(&from);
    return result;
}

static void spoil_nothing(struct cpu *cpu)
{
    cpu->gpr[REG_RAX] = 0x1234;
}

static void spoil_fixed_bits(struct cpu *cpu)
{
    memset(&cpu->nmi_blocked, 0x71, 1);
    memset(&cpu->interrupt_shadow, 0x80, 1);
    cpu->gpr[REG_NONE] = 0x1000;
    cpu->rflags = 0xffffffff00000000;
    cpu->dr[7] = ~0ull;
    cpu->vector.fx.mxcsr = 0xffffffff;
}

static void spoil_cpl(struct cpu *cpu)
{
    cpu->cpl = 4;
}

static void spoil_activity(struct cpu *cpu)
{
    cpu->activity = CPU_SHUTDOWN + 1;
}

static void spoil_cr0(struct cpu *cpu)
{
    cpu->cr0 &= ~(uint64_t)CR0_PE;
}

static void spoil_efer(struct cpu *cpu)
{
    cpu->msrs.efer &= ~(uint64_t)EFER_LME;
}

static void spoil_xcr0(struct cpu *cpu)
{
    cpu->xcr0 = BIT(63) | 1;
}

Test(saved_state, intact)
{
    struct rig rig;

    cr_assert_eq(reload(spoil_nothing, "max", &rig), 0);
    cr_assert_eq(rig.cpu->gpr[REG_RAX], 0x1234);
    cr_assert(cpu_long_mode(rig.cpu));
    rig_free(&rig);
}

Test(saved_state, fixed_bits_are_put_right)
{
    uint8_t raw;
    struct rig rig;

    cr_assert_eq(reload(spoil_fixed_bits, "max", &rig), 0);
    memcpy(&raw, &rig.cpu->nmi_blocked, 1);
    cr_assert_eq(raw, 1);
    memcpy(&raw, &rig.cpu->interrupt_shadow, 1);
    cr_assert_eq(raw, 1);
    cr_assert_eq(rig.cpu->gpr[REG_NONE], 0);
    cr_assert_eq(rig.cpu->rflags, 2);
    cr_assert_eq(rig.cpu->dr[7], 0xffff27ff);
    cr_assert_eq(rig.cpu->vector.fx.mxcsr & 0xffff0000, 0);
    rig_free(&rig);
}

/* A CPU that has refused a state is in the one that a reset leaves. */
Test(saved_state, impossible_states_are_refused)
{
    static void (*const spoilers[])(struct cpu * cpu) = {
        spoil_cpl, spoil_activity, spoil_cr0, spoil_efer, spoil_xcr0,
    };

    for (unsigned i = 0; i < ARRAY_SIZE(spoilers); i++) {
        struct rig rig;

        cr_assert_lt(reload(spoilers[i], "max", &rig), 0, "case %u", i);
        cr_assert_eq(rig.cpu->cpu_rip, 0xfff0);
        cr_assert_eq(rig.cpu->cpl, 0);
        cr_assert_not(cpu_protected(rig.cpu));
        rig_free(&rig);
    }
}

Test(saved_state, of_another_model)
{
    struct rig rig;

    cr_assert_lt(reload(spoil_nothing, "max,-nx", &rig), 0, "EFER.NXE");
    rig_free(&rig);
}
