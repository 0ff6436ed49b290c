/* See minimise.h. Each attempt is a new guest, so that nothing is left over from the one before. The driver's thread. */
#include "tests/stress/minimise.h"

#include <stdlib.h>
#include <string.h>

#define TEXT_SIZE 16384

int oracle_try(const struct oracle *oracle, struct program *program, struct stress_case *test, char *text, size_t size)
{
    struct stress_results *ours;
    struct stress_guest *guest;
    unsigned where;
    int run;

    if (!program_check_flags(program, &where) || !program_assemble(program, test->code))
        return -1;
    ours = malloc(sizeof(*ours));
    if (!ours)
        abort();
    for (unsigned i = 0; i < test->runs; i++)
        test->state[i].rip = STRESS_CODE + program->start;
    memcpy(native_case(oracle->native, 0), test, sizeof(*test));
    native_start(oracle->native, 1);
    native_finish(oracle->native);
    guest = stress_guest_create(oracle->l1_entries);
    stress_guest_run(guest, test, ours);
    run = stress_compare(test, program, native_result(oracle->native, 0), ours, text, size);
    stress_guest_destroy(guest);
    free(ours);
    return run;
}

static bool differs(const struct oracle *oracle, struct program *program, struct stress_case *test)
{
    static char text[TEXT_SIZE];
    return oracle_try(oracle, program, test, text, sizeof(text)) >= 0;
}

/* Leaves out runs that are not needed. */
static void drop_runs(const struct oracle *oracle, struct program *program, struct stress_case *test)
{
    static struct stress_case smaller;

    for (unsigned i = test->runs; i-- > 0 && test->runs > 1;) {
        smaller = *test;
        memmove(&smaller.state[i], &smaller.state[i + 1], (smaller.runs - i - 1) * sizeof(smaller.state[0]));
        smaller.runs--;
        if (differs(oracle, program, &smaller))
            *test = smaller;
    }
}

/* An item, or its group, or as many items as `length`. */
static bool mark_dropped(struct program *program, unsigned first, unsigned length)
{
    bool any = false;

    for (unsigned i = first; i < MIN(first + length, program->count); i++) {
        struct item *item = &program->items[i];
        if (item->dropped || (item->length == 1 && item->bytes[0] == STRESS_FILLING))
            continue;
        any = item->dropped = true;
        for (unsigned j = 0; item->group && j < program->count; j++)
            if (program->items[j].group == item->group)
                program->items[j].dropped = true;
    }
    return any;
}

static bool drop_items(const struct oracle *oracle, struct program *program, struct stress_case *test, unsigned length)
{
    static struct program smaller;
    bool dropped = false;

    for (unsigned end = program->count; end > 0; end -= MIN(end, length)) {
        smaller = *program;
        if (!mark_dropped(&smaller, end - MIN(end, length), length) || !differs(oracle, &smaller, test))
            continue;
        *program = smaller;
        dropped = true;
    }
    return dropped;
}

bool minimise(const struct oracle *oracle, struct program *program, struct stress_case *test)
{
    if (!differs(oracle, program, test))
        return false;
    drop_runs(oracle, program, test);
    for (unsigned length = 16; length > 1; length /= 2)
        drop_items(oracle, program, test, length);
    while (drop_items(oracle, program, test, 1))
        ;
    drop_runs(oracle, program, test);
    differs(oracle, program, test); /* assembled once more: offsets and code are those of what is left */
    return true;
}
