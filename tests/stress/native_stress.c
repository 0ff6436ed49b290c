/* What the child of tests/insn/native.c does with a case: memory as it is to be, each run, memory as it is then.
 * The variables at file scope are the child's alone. */
#include "tests/stress/stress.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define PATTERNS 4

static uint8_t *memory; /* all of it, at an address of the child's own */
static uint8_t *patterns[PATTERNS];

static void map(uint64_t address, size_t size, int protection, int fd, uint64_t offset)
{
    native_map_file(address, size, protection, fd, offset);
}

static void setup(void)
{
    const int write = PROT_READ | PROT_WRITE;
    int fd = memfd_create("stress", 0);

    if (fd < 0 || ftruncate(fd, STRESS_MEMORY))
        _exit(92);
    memory = mmap(NULL, STRESS_MEMORY, write, MAP_SHARED, fd, 0);
    if (memory == MAP_FAILED)
        _exit(92);
    for (unsigned i = 0; i < PATTERNS; i++) {
        if (!(patterns[i] = calloc(1, STRESS_MEMORY)))
            _exit(92);
        stress_memory(i, patterns[i]);
    }
    memcpy(memory, patterns[0], STRESS_MEMORY);
    map(STRESS_CODE, STRESS_CODE_SIZE, write | PROT_EXEC, fd, 0);
    map(STRESS_CODE_ALIAS, STRESS_CODE_SIZE, write, fd, 0);
    map(STRESS_DATA, STRESS_DATA_SIZE, write, fd, STRESS_DATA_OFFSET);
    map(STRESS_DATA + STRESS_DATA_SIZE, STRESS_CONST_SIZE, PROT_READ, fd, STRESS_CONST_OFFSET);
    map(STRESS_DATA_ALIAS, PAGE_SIZE, write, fd, STRESS_DATA_OFFSET + 2 * PAGE_SIZE);
    map(STRESS_DATA_ALIAS + PAGE_SIZE, PAGE_SIZE, write, fd, STRESS_DATA_OFFSET);
    for (unsigned page = 0; STRESS_HAS_HIGH && page < STRESS_DATA_SIZE; page += PAGE_SIZE)
        map(STRESS_DATA_HIGH + page, PAGE_SIZE, write, fd, STRESS_STACK_OFFSET - PAGE_SIZE - page);
    map(STRESS_STACK, STRESS_STACK_SIZE, write, fd, STRESS_STACK_OFFSET);
    map(STRESS_SLOTS, STRESS_SLOTS_SIZE, write, fd, STRESS_SLOTS_OFFSET);
    close(fd);
}

/* Only what is another. The bytes go where they are executed; that would do, but a serializing instruction costs little
 * (SDM Vol. 3A 8.3). */
static void load_code(const uint8_t *code)
{
    uint8_t *here = (uint8_t *)STRESS_CODE;
    uint32_t first = 0, last = STRESS_CODE_SIZE, a = 0, b, c = 0, d;

    while (first < last && here[first] == code[first])
        first++;
    while (first < last && here[last - 1] == code[last - 1])
        last--;
    if (first == last)
        return;
    memcpy(here + first, code + first, last - first);
    __asm__ volatile("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d) : : "memory");
}

static void run_case(const void *opaque_test, void *opaque_results)
{
    const struct stress_case *test = opaque_test;
    struct stress_results *results = opaque_results;

    for (unsigned i = 0; i < test->runs; i++) {
        struct stress_result *result = &results->run[i];
        load_code(test->code);
        memcpy(memory + STRESS_CODE_SIZE, patterns[test->pattern % PATTERNS] + STRESS_CODE_SIZE,
               STRESS_CHANGEABLE - STRESS_CODE_SIZE);
        native_execute(&test->state[i], &result->state, &result->outcome);
        memcpy(result->memory, memory, STRESS_CHANGEABLE);
    }
}

static void case_died(void *opaque_results)
{
    struct stress_results *results = opaque_results;

    memset(results, 0, sizeof(*results));
    for (unsigned i = 0; i < STRESS_RUNS; i++)
        results->run[i].outcome.vector = OUTCOME_DIED;
}

const struct native_job stress_native_job = {
    .case_size = sizeof(struct stress_case),
    .result_size = sizeof(struct stress_results),
    .code_base = STRESS_CODE,
    .code_size = STRESS_CODE_SIZE,
    .setup = setup,
    .run = run_case,
    .died = case_died,
};
