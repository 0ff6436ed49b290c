/* The differences from Zydis that are meant. */
#ifndef EIDOLON_TESTS_DECODE_ZYDIS_JUSTIFIED_H
#define EIDOLON_TESTS_DECODE_ZYDIS_JUSTIFIED_H

#include "zydis_compare.h"

/* The reason, or NULL if the difference is a fault. */
const char *zydis_justification(const struct comparison *comparison);

#endif
