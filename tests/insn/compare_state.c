/* See compare_state.h. Any thread; no state. */
#include "tests/insn/compare_state.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

void report_difference(struct report *r, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    int n = vsnprintf(r->text + r->used, r->size - r->used, format, args);
    va_end(args);
    if (n > 0)
        r->used = MIN(r->size - 1, r->used + (size_t)n);
    r->different = true;
}

static const char *outcome_text(const struct outcome *result, char *text, size_t size)
{
    static const char *const names[] = { "#DE", "#DB", "NMI", "#BP", "#OF", "#BR", "#UD", "#NM", "#DF", "9",
                                         "#TS", "#NP", "#SS", "#GP", "#PF", "15",  "#MF", "#AC", "#MC", "#XM" };
    if (result->vector == OUTCOME_NONE)
        snprintf(text, size, "completed");
    else if (result->vector == OUTCOME_HANG)
        snprintf(text, size, "never ended");
    else if (result->vector == OUTCOME_DIED)
        snprintf(text, size, "killed the child");
    else if (result->vector < ARRAY_SIZE(names))
        snprintf(text, size, "%s(%x) cr2 %llx", names[result->vector], result->error, (unsigned long long)result->cr2);
    else
        snprintf(text, size, "vector %u", result->vector);
    return text;
}

static bool has_error_code(unsigned vector)
{
    return vector == 8 || (vector >= 10 && vector <= 14) || vector == 17;
}

void compare_outcome(struct report *r, const struct outcome *native, const struct outcome *emulated)
{
    char a[64], b[64];
    if (native->vector != emulated->vector || (has_error_code(native->vector) && native->error != emulated->error) ||
        native->cr2 != emulated->cr2)
        report_difference(r, "  outcome: host %s, ours %s\n", outcome_text(native, a, sizeof(a)),
                          outcome_text(emulated, b, sizeof(b)));
}

static void compare_word(struct report *r, const char *name, uint64_t before, uint64_t native, uint64_t emulated)
{
    if (native != emulated)
        report_difference(r, "  %s: before %llx, host %llx, ours %llx\n", name, (unsigned long long)before,
                          (unsigned long long)native, (unsigned long long)emulated);
}

static void compare_bytes(struct report *r, const char *name, unsigned number, const uint8_t *before,
                          const uint8_t *native, const uint8_t *emulated, unsigned size)
{
    if (!memcmp(native, emulated, size))
        return;
    const uint8_t *const values[3] = { before, native, emulated };
    static const char *const labels[3] = { "before", "  host", "  ours" };
    for (unsigned i = 0; i < 3; i++) {
        report_difference(r, "  %s%u %s ", name, number, labels[i]);
        for (unsigned j = size; j-- > 0;)
            report_difference(r, "%02x%s", values[i][j], j % 8 ? "" : " ");
        report_difference(r, "\n");
    }
}

const char *const gpr_names[16] = { "rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
                                    "r8",  "r9",  "r10", "r11", "r12", "r13", "r14", "r15" };

void compare_registers(struct report *r, const struct machine_state *before, const struct machine_state *native,
                       const struct machine_state *emulated, uint64_t undefined)
{
    for (unsigned i = 0; i < 16; i++)
        compare_word(r, gpr_names[i], before->gpr[i], native->gpr[i], emulated->gpr[i]);
    compare_word(r, "rip", before->rip, native->rip, emulated->rip);
    compare_word(r, "rflags", before->rflags & ~undefined, native->rflags & ~undefined, emulated->rflags & ~undefined);
    compare_word(r, "fs base", before->fs_base, native->fs_base, emulated->fs_base);
    compare_word(r, "gs base", before->gs_base, native->gs_base, emulated->gs_base);
}

void compare_vectors(struct report *r, const struct machine_state *before, const struct machine_state *native,
                     const struct machine_state *emulated)
{
    for (unsigned i = 0; i < 16; i++)
        compare_bytes(r, "ymm", i, before->ymm[i], native->ymm[i], emulated->ymm[i], 32);
    compare_word(r, "mxcsr", before->fx.mxcsr, native->fx.mxcsr, emulated->fx.mxcsr);
    compare_word(r, "fcw", before->fx.fcw, native->fx.fcw, emulated->fx.fcw);
    compare_word(r, "fsw", before->fx.fsw, native->fx.fsw, emulated->fx.fsw);
    compare_word(r, "ftw", before->fx.ftw, native->fx.ftw, emulated->fx.ftw);
    for (unsigned i = 0; i < 8; i++)
        compare_bytes(r, "st", i, before->fx.st[i], native->fx.st[i], emulated->fx.st[i], 10);
}
