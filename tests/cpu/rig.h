/* A CPU with 16 MiB of RAM, descriptor tables and stacks, in a mode of choice; no devices, no thread. */
#ifndef EIDOLON_TESTS_CPU_RIG_H
#define EIDOLON_TESTS_CPU_RIG_H

#include <criterion/criterion.h>

#include "cpu/debug.h"
#include "cpu/interp/interp_internal.h"
#include "cpu/system_internal.h"

/* Guest-physical layout; identity-mapped where there is paging. */
enum {
    RIG_GDT = 0x1000,
    RIG_IDT = 0x2000,
    RIG_TSS = 0x3000,
    RIG_LDT = 0x4000,
    RIG_CODE = 0x5000,
    RIG_HANDLER = 0x6000,
    RIG_KERNEL_STACK = 0x8000,
    RIG_IST_STACK = 0x9000,
    RIG_USER_STACK = 0xa000,
    RIG_INNER_STACK = 0xb000,
    RIG_PAGES = 0x100000,
    RIG_UNMAPPED = 0x40000000, /* first address that the page tables do not map */
};

/* Selectors of the GDT, RPL 0. */
enum {
    SEL_CODE32 = 0x08,
    SEL_DATA = 0x10,
    SEL_CODE64 = 0x18,
    SEL_USER_CODE32 = 0x20,
    SEL_USER_DATA = 0x28,
    SEL_USER_CODE64 = 0x30,
    SEL_TSS = 0x38,
    SEL_ABSENT = 0x48,
    SEL_CONFORMING = 0x50,
    SEL_GATE = 0x58,
    SEL_READ_ONLY = 0x68,
    SEL_LDT = 0x70,
    SEL_EXEC_ONLY = 0x80,
    SEL_BEYOND = 0x400,
};

struct rig {
    pthread_mutex_t lock;
    struct clock clock;
    struct physmem *mem;
    struct port_space *ports;
    struct cpuid_model *model;
    struct cpu *cpu;
};

enum rig_mode { RIG_REAL, RIG_PROTECTED, RIG_LONG };

void rig_init(struct rig *rig, const char *model, enum rig_mode mode);
void rig_free(struct rig *rig);
/* Puts the CPU at a privilege level, with that level's flat segments and stack. */
void rig_set_user(struct rig *rig, bool code64);

void rig_write(struct rig *rig, gpa_t gpa, uint64_t value, unsigned size);
uint64_t rig_read(struct rig *rig, gpa_t gpa, unsigned size);
/* A gate of the IDT; `ist` in long mode only. */
void rig_gate(struct rig *rig, unsigned vector, unsigned type, unsigned dpl, uint16_t selector, uint64_t offset,
              unsigned ist);
/* Executes bytes at RIG_CODE: one instruction, faults not delivered (STEP_FAULT: see cpu->fault). */
enum step rig_execute(struct rig *rig, const void *bytes, size_t size);
#define RIG_EXECUTE(rig, ...)                                                                                          \
    rig_execute(rig, (const uint8_t[]){ __VA_ARGS__ }, sizeof((const uint8_t[]){ __VA_ARGS__ }))

/* Asserts a fault that was raised, with its error code. */
#define ASSERT_FAULT(rig, result, wanted_vector, wanted_error)                                                         \
    do {                                                                                                               \
        cr_assert_eq((int)(result), (int)STEP_FAULT, "no fault");                                                      \
        cr_assert_eq((rig)->cpu->fault.vector, wanted_vector, "vector %u, wanted %u", (rig)->cpu->fault.vector,        \
                     (unsigned)(wanted_vector));                                                                       \
        cr_assert_eq((rig)->cpu->fault.error, (uint32_t)(wanted_error), "error %x, wanted %x",                         \
                     (rig)->cpu->fault.error, (unsigned)(wanted_error));                                               \
    } while (0)
#define ASSERT_RAISED(rig, call, vector, error) ASSERT_FAULT(rig, (call) < 0 ? STEP_FAULT : STEP_NEXT, vector, error)

#endif
