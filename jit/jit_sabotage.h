/* Bugs on purpose, for tests of the lockstep engine: EIDOLON_JIT_BREAK=NAME. */
#ifndef EIDOLON_JIT_JIT_SABOTAGE_H
#define EIDOLON_JIT_JIT_SABOTAGE_H

#include "base/error.h"
#include "jit/jit_translate.h"

struct jit_sabotage;

int jit_sabotage_create(struct jit_sabotage **sabotage, struct error *err); /* NULL: no bug is wanted */
void jit_sabotage_destroy(struct jit_sabotage *sabotage);                   /* may be NULL */
/* Falsifies what was analysed, before code is emitted. */
void jit_sabotage(struct jit_sabotage *sabotage, struct translation *t);

#endif
