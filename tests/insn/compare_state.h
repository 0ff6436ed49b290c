/* Differences between two machine states, in text: a line each. */
#ifndef EIDOLON_TESTS_INSN_COMPARE_STATE_H
#define EIDOLON_TESTS_INSN_COMPARE_STATE_H

#include "tests/insn/native.h"

struct report {
    char *text;
    size_t size, used;
    bool different;
};

void report_difference(struct report *r, const char *format, ...) printf_like(2, 3);
void compare_outcome(struct report *r, const struct outcome *native, const struct outcome *emulated);
/* `undefined`: RFLAGS bits that are not compared. */
void compare_registers(struct report *r, const struct machine_state *before, const struct machine_state *native,
                       const struct machine_state *emulated, uint64_t undefined);
void compare_vectors(struct report *r, const struct machine_state *before, const struct machine_state *native,
                     const struct machine_state *emulated);
extern const char *const gpr_names[16];

#endif
