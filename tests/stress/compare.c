/* What is compared: everything, except flags that may be undefined where a run ended, and what processors have stored
 * when an instruction faults half-way (tests/insn/compare.c). The driver's thread. */
#include "cpu/decode/insn.h"
#include "tests/insn/compare_state.h"
#include "tests/stress/stress.h"

#include <stdio.h>
#include <string.h>

#define SHOWN_BYTES 24
#define VSYSCALL    0xffffffffff600000ull /* a page of Linux's in every address space: what jumps there comes back */

static bool partial_stores(const struct stress_case *test, const struct stress_result *native)
{
    uint64_t offset = native->state.rip - STRESS_CODE;
    struct insn insn;

    if (native->outcome.vector == OUTCOME_NONE || offset >= STRESS_CODE_SIZE)
        return false;
    (void)test; /* the code as it is at the end */
    if (insn_decode(native->memory + offset, MIN((size_t)INSN_MAX_LENGTH, STRESS_CODE_SIZE - offset), CODE64, &insn) !=
        DECODE_OK)
        return false;
    return insn.row->handler == HANDLER_call_ind || insn.row->handler == HANDLER_call ||
           (insn.row->handler == HANDLER_x87 && insn.row->operands[0].type == OT_Mt);
}

static uint64_t address_of(unsigned offset)
{
    if (offset >= STRESS_SLOTS_OFFSET)
        return STRESS_SLOTS + offset - STRESS_SLOTS_OFFSET;
    if (offset >= STRESS_STACK_OFFSET)
        return STRESS_STACK + offset - STRESS_STACK_OFFSET;
    return offset >= STRESS_DATA_OFFSET ? STRESS_DATA + offset - STRESS_DATA_OFFSET : STRESS_CODE + offset;
}

static void compare_memory(struct report *r, const struct stress_case *test, const struct stress_result *native,
                           const struct stress_result *ours)
{
    unsigned shown = 0, differing = 0;

    if (!memcmp(native->memory, ours->memory, STRESS_CHANGEABLE) || partial_stores(test, native))
        return;
    for (unsigned i = 0; i < STRESS_CHANGEABLE; i++) {
        if (native->memory[i] == ours->memory[i])
            continue;
        differing++;
        if (shown++ < SHOWN_BYTES)
            report_difference(r, "  memory %llx: host %02x, ours %02x\n", (unsigned long long)address_of(i),
                              native->memory[i], ours->memory[i]);
    }
    report_difference(r, "  memory: %u bytes differ\n", differing);
}

static bool is_ours(uint64_t address)
{
    static const struct {
        uint64_t first, size;
    } ranges[] = {
        { STRESS_CODE, STRESS_CODE_SIZE },       { STRESS_DATA, STRESS_DATA_SIZE + STRESS_CONST_SIZE },
        { STRESS_STACK, STRESS_STACK_SIZE },     { STRESS_SLOTS, STRESS_SLOTS_SIZE },
        { STRESS_CODE_ALIAS, STRESS_CODE_SIZE }, { STRESS_DATA_ALIAS, 2 * PAGE_SIZE },
        { STRESS_DATA_HIGH, STRESS_DATA_SIZE },
    };
    for (size_t i = 0; i < ARRAY_SIZE(ranges); i++)
        if (address - ranges[i].first < ranges[i].size)
            return true;
    return false;
}

/* Whether something is there (P) where nothing of ours is, is the child's own affair: a sanitizer maps a lot. */
static struct outcome comparable(const struct outcome *outcome)
{
    struct outcome result = *outcome;

    if (result.vector == 14 && !is_ours(result.cr2))
        result.error &= ~1u;
    return result;
}

int stress_compare(const struct stress_case *test, const struct program *program, const struct stress_results *native,
                   const struct stress_results *ours, char *text, size_t size)
{
    for (unsigned i = 0; i < test->runs; i++) {
        const struct stress_result *host = &native->run[i], *engine = &ours->run[i];
        const struct item *item = program_find(program, host->state.rip);
        uint64_t undefined = FLAG_RF | (item ? item->undefined : program->undefined_anywhere);
        struct outcome a = comparable(&host->outcome), b = comparable(&engine->outcome);
        struct report r = { .text = text, .size = size };

        if (host->outcome.vector == OUTCOME_HANG && engine->outcome.vector == OUTCOME_HANG)
            continue; /* stopped at different times */
        if (engine->outcome.vector == 14 && engine->outcome.cr2 - VSYSCALL < PAGE_SIZE)
            continue;
        compare_outcome(&r, &a, &b);
        compare_registers(&r, &test->state[i], &host->state, &engine->state, undefined);
        compare_vectors(&r, &test->state[i], &host->state, &engine->state);
        compare_memory(&r, test, host, engine);
        if (r.different)
            return (int)i;
    }
    return -1;
}
