/* What is compared: everything the instruction may have changed, except what the architecture leaves undefined
 * (the row's mask) and what differs by construction: RF in saved flags, the x87 instruction and data pointers. */
#include "cpu/decode/insn.h"
#include "tests/insn/compare_state.h"
#include "tests/insn/insn_test.h"

#include <string.h>

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
    if (!test->decoded || native->outcome.vector == OUTCOME_NONE)
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
        report_difference(r, "  memory %llx: before %02x, host %02x, ours %02x\n", (unsigned long long)DATA_BASE + i,
                          before[i], after[0][i], after[1][i]);
        shown++;
    }
}

bool compare_results(const struct insn_case *test, const struct insn_result *native, const struct insn_result *emulated,
                     char *text, size_t size)
{
    struct report r = { .text = text, .size = size };

    compare_outcome(&r, &native->outcome, &emulated->outcome);
    compare_registers(&r, &test->state, &native->state, &emulated->state, FLAG_RF | undefined_flags(test));
    compare_vectors(&r, &test->state, &native->state, &emulated->state);
    compare_memory(&r, test, native, emulated);
    return r.different;
}
