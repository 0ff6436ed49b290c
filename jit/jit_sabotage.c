/* Bugs on purpose: tests/lockstep asks for one by name (EIDOLON_JIT_BREAK) and expects the lockstep engine to report it.
 *
 * They are made where translators have theirs: what the analysis says of an instruction is falsified before code is emitted
 * from it. Nothing of this is there when no bug is asked for, but for one comparison with NULL per translation. */
#include "jit/jit_sabotage.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct jit_sabotage {
    void (*falsify)(struct jit_sabotage *sabotage, struct translation *t, unsigned n);
    uint8_t bytes[BLOCK_MAX_INSNS + 1][INSN_MAX_LENGTH]; /* of instructions that were replaced */
};

/* The flags that a check has clobbered are not made again before somebody reads them. */
static void flags_stale(struct jit_sabotage *sabotage, struct translation *t, unsigned n)
{
    (void)sabotage;
    t->insns[n].restore_flags = t->stale_at_end = false;
}

/* A check clobbers flags that are still needed. */
static void flags_clobbered(struct jit_sabotage *sabotage, struct translation *t, unsigned n)
{
    (void)sabotage;
    t->insns[n].can_clobber = true;
}

/* A block whose checks clobber the flags that it is entered with does not keep them. */
static void entry_flags(struct jit_sabotage *sabotage, struct translation *t, unsigned n)
{
    (void)sabotage;
    (void)n;
    t->entry_window = false;
}

/* A branch tells the next block that its flags are those of another instruction. */
static void handed_flags(struct jit_sabotage *sabotage, struct translation *t, unsigned n)
{
    (void)sabotage;
    if (t->insns[n].kind == KIND_JCC && t->insns[n].exit_source > 1)
        t->insns[n].exit_source--;
}

/* Accesses that share a check go eight bytes too far. */
static void group_displacement(struct jit_sabotage *sabotage, struct translation *t, unsigned n)
{
    (void)sabotage;
    if (t->insns[n].group != NO_SLOT && !t->insns[n].group_leader)
        t->insns[n].group_offset += 8;
}

/* Checks do not see that an access crosses the page's end. */
static void check_limit(struct jit_sabotage *sabotage, struct translation *t, unsigned n)
{
    struct tinsn *i = &t->insns[n];

    (void)sabotage;
    if (i->kind == KIND_NATIVE && i->has_memory && i->group == NO_SLOT)
        i->memory_size = 1;
}

/* Writes are checked like reads: no D bit, no notice of code that changes. */
static void write_as_read(struct jit_sabotage *sabotage, struct translation *t, unsigned n)
{
    struct tinsn *i = &t->insns[n];

    (void)sabotage;
    if (i->kind == KIND_NATIVE && i->has_memory && i->group == NO_SLOT)
        i->memory_access = ACCESS_R;
}

/* The upper half of an unpinned register stays as it was when its lower half is written. */
static void zero_extension(struct jit_sabotage *sabotage, struct translation *t, unsigned n)
{
    (void)sabotage;
    if (t->insns[n].size[ROLE_RM] == 4)
        t->insns[n].size[ROLE_RM] = 8;
}

/* What an instruction leaves in a scratch register does not get to the guest's. */
static void lost_result(struct jit_sabotage *sabotage, struct translation *t, unsigned n)
{
    (void)sabotage;
    for (unsigned role = 0; role < ROLE_COUNT; role++)
        if (t->insns[n].gpr[role] != NO_GPR && !is_pinned(t->insns[n].gpr[role]))
            t->insns[n].access[role] = ACCESS_R;
}

static void condition(struct jit_sabotage *sabotage, struct translation *t, unsigned n)
{
    (void)sabotage;
    if (t->insns[n].kind == KIND_JCC && (t->insns[n].insn.opcode & 14) == 6) /* JBE, JA */
        t->insns[n].insn.opcode ^= 1;
}

static void branch_target(struct jit_sabotage *sabotage, struct translation *t, unsigned n)
{
    (void)sabotage;
    if (t->insns[n].kind == KIND_CALL)
        t->insns[n].insn.imm++;
}

/* PUSH moves the stack pointer the other way, as POP does. */
static void stack_direction(struct jit_sabotage *sabotage, struct translation *t, unsigned n)
{
    struct tinsn *i = &t->insns[n];

    (void)sabotage;
    if (i->kind == KIND_PUSH && i->insn.operands[0].kind == OPERAND_GPR)
        i->kind = KIND_POP;
}

static void displacement(struct jit_sabotage *sabotage, struct translation *t, unsigned n)
{
    (void)sabotage;
    if (t->insns[n].has_memory && t->insns[n].insn.mem.base == REG_RIP)
        t->insns[n].insn.mem.disp--;
}

/* A comparison with memory stores its result there. The flags are right. */
static void stored_comparison(struct jit_sabotage *sabotage, struct translation *t, unsigned n)
{
    struct tinsn *i = &t->insns[n];

    if (i->kind != KIND_NATIVE || !i->has_memory || i->insn.row->handler != HANDLER_cmp || i->insn.opcode != 0x39)
        return;
    memcpy(sabotage->bytes[n], i->bytes, i->insn.length);
    for (unsigned at = 0; at < i->insn.length; at++) {
        if (sabotage->bytes[n][at] != 0x39)
            continue;
        sabotage->bytes[n][at] = 0x29; /* SUB */
        break;
    }
    i->bytes = sabotage->bytes[n];
}

static void lost_vector(struct jit_sabotage *sabotage, struct translation *t, unsigned n)
{
    (void)sabotage;
    if (t->insns[n].kind == KIND_NATIVE && t->insns[n].insn.row->handler == HANDLER_vec && !t->insns[n].has_memory)
        t->insns[n].kind = KIND_NOTHING;
}

/* UD2 and INT3 raise nothing. */
static void lost_exception(struct jit_sabotage *sabotage, struct translation *t, unsigned n)
{
    struct tinsn *i = &t->insns[n];

    (void)sabotage;
    if (i->insn.row && (i->insn.row->handler == HANDLER_ud || i->insn.row->handler == HANDLER_int3))
        i->kind = KIND_NOTHING;
}

/* The handler of a string instruction is not called. */
static void lost_handler(struct jit_sabotage *sabotage, struct translation *t, unsigned n)
{
    (void)sabotage;
    if (t->insns[n].kind == KIND_HELPER && t->insns[n].insn.row && t->insns[n].insn.row->handler == HANDLER_stos)
        t->insns[n].kind = KIND_NOTHING;
}

/* MOV of two registers becomes HLT: a fault that the guest's instruction does not have. */
static void host_fault(struct jit_sabotage *sabotage, struct translation *t, unsigned n)
{
    struct tinsn *i = &t->insns[n];

    if (i->kind != KIND_NATIVE || i->insn.row->handler != HANDLER_mov || i->insn.length != 2 || !native_is_identical(i))
        return;
    memcpy(sabotage->bytes[n], "\xf4\x90", 2);
    i->bytes = sabotage->bytes[n];
}

static const struct {
    const char *name;
    void (*falsify)(struct jit_sabotage *sabotage, struct translation *t, unsigned n);
} bugs[] = {
    { "flags-stale", flags_stale },
    { "flags-clobbered", flags_clobbered },
    { "entry-flags", entry_flags },
    { "handed-flags", handed_flags },
    { "group-displacement", group_displacement },
    { "check-limit", check_limit },
    { "write-as-read", write_as_read },
    { "zero-extension", zero_extension },
    { "lost-result", lost_result },
    { "condition", condition },
    { "branch-target", branch_target },
    { "stack-direction", stack_direction },
    { "displacement", displacement },
    { "stored-comparison", stored_comparison },
    { "lost-vector", lost_vector },
    { "lost-exception", lost_exception },
    { "lost-handler", lost_handler },
    { "host-fault", host_fault },
};

void jit_sabotage(struct jit_sabotage *sabotage, struct translation *t)
{
    for (unsigned n = 0; n < t->count; n++)
        sabotage->falsify(sabotage, t, n);
}

int jit_sabotage_create(struct jit_sabotage **sabotage, struct error *err)
{
    const char *name = getenv("EIDOLON_JIT_BREAK");

    *sabotage = NULL;
    if (!name)
        return 0;
    for (size_t i = 0; i < ARRAY_SIZE(bugs); i++) {
        if (strcmp(bugs[i].name, name) != 0)
            continue;
        *sabotage = calloc(1, sizeof(**sabotage));
        if (!*sabotage)
            return error_set(err, ENOMEM, "no memory for the translator");
        (*sabotage)->falsify = bugs[i].falsify;
        return 0;
    }
    return error_set(err, EINVAL, "EIDOLON_JIT_BREAK=%s: no such bug", name);
}

void jit_sabotage_destroy(struct jit_sabotage *sabotage)
{
    free(sabotage);
}
