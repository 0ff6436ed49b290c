/* Puts a CPU into the state that a boot protocol asks for. */
#ifndef EIDOLON_FRONTEND_BOOT_CPU_H
#define EIDOLON_FRONTEND_BOOT_CPU_H

#include "cpu/cpu.h"
#include "firmware/boot.h"

/* cpu: freshly reset. */
void boot_cpu_apply(struct cpu *cpu, const struct boot_cpu_state *state);

#endif
