/* Wires CPUs and board together: the two layers never include each other, so their meeting point is here. */
#include "devices/irq/lapic.h"
#include "frontend/vm_internal.h"

static void set_intr(void *cpu, bool level)
{
    if (level)
        cpu_event_set(cpu, CPU_EVENT_INTR);
    else
        cpu_event_clear(cpu, CPU_EVENT_INTR);
}

static void nmi(void *cpu)
{
    cpu_event_set(cpu, CPU_EVENT_NMI);
}

static void init(void *cpu)
{
    cpu_event_set(cpu, CPU_EVENT_INIT);
}

static void sipi(void *cpu, uint8_t vector)
{
    cpu_sipi(cpu, vector);
}

static void smi(void *cpu)
{
    cpu_event_set(cpu, CPU_EVENT_SMI);
}

const struct board_cpu_ops vm_board_cpu_ops = {
    .set_intr = set_intr,
    .nmi = nmi,
    .init = init,
    .sipi = sipi,
    .smi = smi,
};

const struct cpu_apic_ops vm_cpu_apic_ops = {
    .acknowledge = lapic_acknowledge,
    .mmio_read = lapic_mmio_read,
    .mmio_write = lapic_mmio_write,
    .msr_read = lapic_msr_read,
    .msr_write = lapic_msr_write,
    .get_tpr = lapic_get_tpr,
    .set_tpr = lapic_set_tpr,
    .get_base = lapic_get_base,
};
