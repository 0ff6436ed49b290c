/* What the child of native.c does with a case of tests/insn: puts the instruction into its page, memory into its initial
 * state, and looks at what has changed. The variables at file scope are the child's alone. */
#include "tests/insn/insn_test.h"

#include <string.h>
#include <sys/mman.h>

#define EXIT_THUNK (CODE_BASE - 0x10000)

static uint8_t *code, *data, pattern[DATA_SIZE];

static void write_exit_thunk(void)
{
    uint8_t *thunk = native_map(EXIT_THUNK, PAGE_SIZE, PROT_READ | PROT_WRITE);
    uint64_t target = (uintptr_t)native_exit;
    thunk[0] = 0xff; /* jmp *[rip + 2] */
    thunk[1] = 0x25;
    thunk[2] = 2; /* the pointer is aligned: POPF may have set AC */
    memset(thunk + 3, 0, 3);
    memcpy(thunk + 8, &target, 8);
    mprotect(thunk, PAGE_SIZE, PROT_READ | PROT_EXEC);
}

/* Puts the instruction, and a jump to the exit behind it if that is where it must end up. */
static void write_code(const struct insn_case *test)
{
    unsigned end = test->code_offset + test->length;
    memset(code, 0xcc, PAGE_SIZE);
    memcpy(code + test->code_offset, test->bytes, MIN(test->length, PAGE_SIZE - test->code_offset));
    if (!test->branches && test->decoded && end + 5 <= PAGE_SIZE) {
        int32_t distance = (int32_t)(EXIT_THUNK - (CODE_BASE + end + 5));
        code[end] = 0xe9;
        memcpy(code + end + 1, &distance, 4);
    }
}

static void run_case(const void *opaque_test, void *opaque_result)
{
    const struct insn_case *test = opaque_test;
    struct insn_result *result = opaque_result;
    struct machine_state *state = &result->state;
    struct outcome *outcome = &result->outcome;

    write_code(test);
    memcpy(data, pattern, DATA_WRITABLE);
    memory_patch_apply(test, data);
    native_execute(&test->state, state, outcome);
    uint64_t end = test->state.rip + test->length;
    if (outcome->vector == OUTCOME_NONE)
        state->rip = end;
    if (outcome->vector == 14 && state->rip == end && end == CODE_BASE + PAGE_SIZE) /* it was the last on its page */
        *outcome = (struct outcome){ .vector = OUTCOME_NONE };
    uint64_t offset = state->rip - 1 - CODE_BASE;
    if (outcome->vector == 3 && offset < PAGE_SIZE && code[offset] == 0xcc) { /* our filling: arrived there */
        *outcome = (struct outcome){ .vector = OUTCOME_NONE };
        state->rip--;
    }
    memory_find_change(test, pattern, data, result);
}

static void case_died(void *opaque_result)
{
    struct insn_result *result = opaque_result;
    memset(result, 0, sizeof(*result));
    result->outcome.vector = OUTCOME_DIED;
}

static void setup(void)
{
    memory_pattern(pattern);
    write_exit_thunk();
    code = native_map(CODE_BASE, PAGE_SIZE, PROT_READ | PROT_WRITE | PROT_EXEC);
    data = native_map(DATA_BASE, DATA_SIZE, PROT_READ | PROT_WRITE);
    memcpy(data, pattern, DATA_SIZE);
    mprotect(data + DATA_WRITABLE, DATA_SIZE - DATA_WRITABLE, PROT_READ);
}

const struct native_job insn_native_job = {
    .case_size = sizeof(struct insn_case),
    .result_size = sizeof(struct insn_result),
    .code_base = CODE_BASE,
    .code_size = PAGE_SIZE,
    .setup = setup,
    .run = run_case,
    .died = case_died,
};
