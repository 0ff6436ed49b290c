/* The smallest part of a failing sequence that still fails. */
#ifndef EIDOLON_TESTS_STRESS_MINIMISE_H
#define EIDOLON_TESTS_STRESS_MINIMISE_H

#include "tests/stress/stress.h"

struct oracle {
    struct native *native; /* a batch of at least one */
    unsigned l1_entries;
};

/* Runs it alone, on a new guest. The run that differs, or -1. */
int oracle_try(const struct oracle *oracle, struct program *program, struct stress_case *test, char *text, size_t size);
/* Changes *program and *test. False: alone, it does not differ at all (nothing is changed). */
bool minimise(const struct oracle *oracle, struct program *program, struct stress_case *test);

#endif
