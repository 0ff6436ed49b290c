/* What is compared: everything the instruction may have changed, except what the architecture leaves undefined
 * (the row's mask) and what differs by construction: RF in saved flags, the x87 instruction and data pointers. */
#include "cpu/decode/insn.h"
#include "tests/insn/insn_test.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

struct report {
    char *text;
    size_t size, used;
    bool different;
};

static void printf_like(2, 3) difference(struct report *r, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    int n = vsnprintf(r->text + r->used, r->size - r->used, format, args);
    va_end(args);
    if (n > 0)
        r->used = MIN(r->size - 1, r->used + (size_t)n);
    r->different = true;
}

static const char *outcome(const struct insn_result *result, char *text, size_t size)
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

static void compare_outcome(struct report *r, const struct insn_result *native, const struct insn_result *emulated)
{
    char a[64], b[64];
    if (native->vector != emulated->vector || (has_error_code(native->vector) && native->error != emulated->error) ||
        native->cr2 != emulated->cr2)
        difference(r, "  outcome: host %s, ours %s\n", outcome(native, a, sizeof(a)), outcome(emulated, b, sizeof(b)));
}

static void compare_word(struct report *r, const char *name, uint64_t before, uint64_t native, uint64_t emulated)
{
    if (native != emulated)
        difference(r, "  %s: before %llx, host %llx, ours %llx\n", name, (unsigned long long)before,
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
        difference(r, "  %s%u %s ", name, number, labels[i]);
        for (unsigned j = size; j-- > 0;)
            difference(r, "%02x%s", values[i][j], j % 8 ? "" : " ");
        difference(r, "\n");
    }
}

/* The row's mask; of shifts and rotates it is what holds for any count. None changes a flag for a count of zero,
 * and for one OF is defined (SDM Vol. 2B RCL, SAL; SHLD). */
static uint32_t undefined_flags(const struct insn_case *test)
{
    const struct insn_row *row = test->decoded;
    struct insn insn;

    if (!row)
        return 0;
    if (row->handler < HANDLER_rol || row->handler > HANDLER_shrd || !row->flags_undefined)
        return row->flags_undefined;
    insn_decode(test->bytes, INSN_MAX_LENGTH, CODE64, &insn);
    uint64_t count = test->state.gpr[REG_RCX];
    for (unsigned i = 1; i < insn.operand_count; i++)
        if (insn.operands[i].kind == OPERAND_IMM)
            count = (uint64_t)insn.imm;
    count &= insn.operands[0].size == 8 ? 63 : 31;
    return !count ? 0 : count == 1 ? row->flags_undefined & ~FLAG_OF : row->flags_undefined;
}

static void compare_registers(struct report *r, const struct insn_case *test, const struct machine_state *native,
                              const struct machine_state *emulated)
{
    static const char *const names[] = { "rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
                                         "r8",  "r9",  "r10", "r11", "r12", "r13", "r14", "r15" };
    const struct machine_state *before = &test->state;
    uint64_t undefined = FLAG_RF | undefined_flags(test);

    for (unsigned i = 0; i < 16; i++)
        compare_word(r, names[i], before->gpr[i], native->gpr[i], emulated->gpr[i]);
    compare_word(r, "rip", before->rip, native->rip, emulated->rip);
    compare_word(r, "rflags", before->rflags & ~undefined, native->rflags & ~undefined, emulated->rflags & ~undefined);
    compare_word(r, "fs base", before->fs_base, native->fs_base, emulated->fs_base);
    compare_word(r, "gs base", before->gs_base, native->gs_base, emulated->gs_base);
}

static void compare_vectors(struct report *r, const struct insn_case *test, const struct machine_state *native,
                            const struct machine_state *emulated)
{
    const struct machine_state *before = &test->state;

    for (unsigned i = 0; i < 16; i++)
        compare_bytes(r, "ymm", i, before->ymm[i], native->ymm[i], emulated->ymm[i], 32);
    compare_word(r, "mxcsr", before->fx.mxcsr, native->fx.mxcsr, emulated->fx.mxcsr);
    compare_word(r, "fcw", before->fx.fcw, native->fx.fcw, emulated->fx.fcw);
    compare_word(r, "fsw", before->fx.fsw, native->fx.fsw, emulated->fx.fsw);
    compare_word(r, "ftw", before->fx.ftw, native->fx.ftw, emulated->fx.ftw);
    for (unsigned i = 0; i < 8; i++)
        compare_bytes(r, "st", i, before->fx.st[i], native->fx.st[i], emulated->fx.st[i], 10);
}

/* Parts of stored images that hold the x87 pointers: FIP, FDP, FOP and selectors. */
static void hide_pointers(const struct insn_case *test, uint8_t *memory)
{
    unsigned first = 0, last = 0;
    if (!test->decoded)
        return;
    switch (test->decoded->handler) {
    case HANDLER_fxsave:
        first = 6, last = 24;
        break;
    case HANDLER_fnsave:
    case HANDLER_fnstenv:
        first = 12, last = 28;
        break;
    default:
        return;
    }
    for (uint64_t at = test->operand_address + first; at < test->operand_address + last; at++)
        if (at - DATA_BASE < DATA_WRITABLE)
            memory[at - DATA_BASE] = 0;
}

/* What processors have already stored when they fault, although the instruction has no other effect yet: the return
 * address of a near call to where it cannot go, eight of the ten bytes of an extended real. We store nothing. */
static bool partial_stores(const struct insn_case *test, const struct insn_result *native)
{
    if (!test->decoded || native->vector == OUTCOME_NONE)
        return false;
    return test->decoded->handler == HANDLER_call_ind || test->decoded->handler == HANDLER_call ||
           (test->decoded->handler == HANDLER_x87 && test->decoded->operands[0].type == OT_Mt);
}

static void compare_memory(struct report *r, const struct insn_case *test, const struct insn_result *native,
                           const struct insn_result *emulated)
{
    static uint8_t before[DATA_SIZE], after[2][DATA_SIZE]; /* the driver has one thread */
    const struct insn_result *const results[2] = { native, emulated };
    unsigned shown = 0;

    if ((!native->change_size && !emulated->change_size) || partial_stores(test, native))
        return;
    memory_pattern(before);
    memory_patch_apply(test, before);
    for (unsigned i = 0; i < 2; i++) {
        memcpy(after[i], before, DATA_SIZE);
        memcpy(after[i] + results[i]->change_first, results[i]->change,
               MIN(results[i]->change_size, (uint32_t)CHANGE_MAX));
        hide_pointers(test, after[i]);
    }
    for (unsigned i = 0; i < DATA_WRITABLE && shown < 32; i++) {
        if (after[0][i] == after[1][i])
            continue;
        difference(r, "  memory %llx: before %02x, host %02x, ours %02x\n", (unsigned long long)DATA_BASE + i,
                   before[i], after[0][i], after[1][i]);
        shown++;
    }
}

bool compare_results(const struct insn_case *test, const struct insn_result *native, const struct insn_result *emulated,
                     char *text, size_t size)
{
    struct report r = { .text = text, .size = size };

    compare_outcome(&r, native, emulated);
    compare_registers(&r, test, &native->state, &emulated->state);
    compare_vectors(&r, test, &native->state, &emulated->state);
    compare_memory(&r, test, native, emulated);
    return r.different;
}

const char *row_excluded(const struct insn_row *row)
{
    static const struct {
        const char *mnemonic, *reason;
    } excluded[] = {
#define EXCLUDE(mnemonic, reason) { #mnemonic, reason },
#include "tests/insn/excluded.def"
#undef EXCLUDE
    };
    for (size_t i = 0; i < ARRAY_SIZE(excluded); i++)
        if (!strcmp(excluded[i].mnemonic, row->mnemonic))
            return excluded[i].reason;
    if (row->handler == HANDLER_jmp_far || row->handler == HANDLER_call_far)
        return "loads selectors of the host's GDT"; /* the near ones have the same mnemonics */
    if (row->handler == HANDLER_mov_to_seg || row->handler == HANDLER_pop_seg)
        return "loads selectors of the host's GDT";
    if (row->map >= MAP_EVEX_0F)
        return "EVEX: not run by the engine yet";
    if (row->handler == HANDLER_unimplemented)
        return "not implemented by the engine yet: #UD";
    return NULL;
}
