/* Copies struct boot_cpu_state (firmware/, which knows no CPU) into a CPU (which knows no boot protocol). The vCPU's
 * thread is not running it meanwhile. */
#include "frontend/boot_cpu.h"

static void set_segment(struct cpu *cpu, enum segment seg, const struct boot_segment *from)
{
    cpu_set_segment(cpu, seg, from->selector, from->base, from->limit, from->attributes);
}

void boot_cpu_apply(struct cpu *cpu, const struct boot_cpu_state *state)
{
    static const enum segment data_segments[] = { SEG_ES, SEG_SS, SEG_DS, SEG_FS, SEG_GS };

    cpu->gdtr = (struct table_register){ .base = state->gdt_base, .limit = state->gdt_limit };
    cpu->idtr = (struct table_register){ .base = state->idt_base, .limit = state->idt_limit };

    /* The order of a mode switch: LME and PAE before PG. */
    cpu_set_cr4(cpu, state->cr4);
    cpu_set_cr3(cpu, state->cr3, false);
    cpu_set_efer(cpu, state->efer);
    cpu_set_cr0(cpu, state->cr0);

    set_segment(cpu, SEG_CS, &state->cs);
    for (size_t i = 0; i < ARRAY_SIZE(data_segments); i++)
        set_segment(cpu, data_segments[i], &state->data);
    cpu->tr = (struct segment_register){
        .selector = state->tr.selector,
        .base = state->tr.base,
        .limit = state->tr.limit,
        .attributes = state->tr.attributes,
    };

    cpu->gpr[REG_RAX] = state->rax;
    cpu->gpr[REG_RBX] = state->rbx;
    cpu->gpr[REG_RCX] = state->rcx;
    cpu->gpr[REG_RDX] = state->rdx;
    cpu->gpr[REG_RSI] = state->rsi;
    cpu->gpr[REG_RDI] = state->rdi;
    cpu->gpr[REG_RBP] = state->rbp;
    cpu->gpr[REG_RSP] = state->rsp;
    cpu->cpu_rip = state->rip;
    cpu_set_rflags(cpu, state->rflags);
    cpu_set_cpl(cpu, 0);
    cpu_update_mode(cpu);
}
