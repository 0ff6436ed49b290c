/* The lockstep engine's blocks: the instructions from an address on that may be run twice, translated (unchained) and
 * predecoded for the interpreter.
 *
 * A block is cut before the first instruction that has to be run once: one with effects outside of CPU and RAM, or with a
 * result that is another the next time. That MMIO is such an effect is only found when it happens (jit_lockstep_watch.c).
 *
 * Plans live as long as their translations, which the code cache keeps coherent with memory. vCPU thread only. */
#include "jit/jit_lockstep.h"

#include <string.h>

/* ---- Decoding ---- */

static bool ends_plan(const struct insn_row *row)
{
    if (row->handler == HANDLER_jcc || row->handler == HANDLER_jcxz || row->handler == HANDLER_loop ||
        row->handler == HANDLER_loope || row->handler == HANDLER_loopne)
        return false;
    return row->attributes & (ATTR_BRANCH | ATTR_END);
}

/* Undefined flags are whatever each of the two makes of them. Between blocks they become the same; within one nobody may use them. */
static bool uses_undefined(const struct insn *insn, uint32_t *undefined)
{
    if (insn->row->flags_read & *undefined)
        return true;
    *undefined = (*undefined & ~insn->row->flags_written) | (insn->row->flags_undefined & FLAGS_ARITH);
    return false;
}

/* How many instructions may be run twice, from `bytes` on; *reason: why not even one. */
static unsigned count_instructions(const uint8_t *bytes, size_t available, enum code_size code_size, unsigned limit,
                                   enum lockstep_reason *reason)
{
    unsigned count = 0;
    uint32_t undefined = 0;
    size_t at = 0;

    *reason = REASON_NONE;
    while (count < limit) {
        struct insn insn = { 0 };
        enum decode_status status = insn_decode(bytes + at, available - at, code_size, &insn);
        if (status == DECODE_TRUNCATED)
            break;
        enum lockstep_reason once = lockstep_reason_of(&insn); /* of an invalid form, such as MOV from CR1, too */
        if (once != REASON_NONE) {
            if (!count)
                *reason = once;
            break;
        }
        if (status == DECODE_OK &&
            (uses_undefined(&insn, &undefined) || (count && lockstep_stores_x87_pointers(&insn))))
            break;
        count++;
        at += insn.length;
        if (status != DECODE_OK || ends_plan(insn.row))
            break;
    }
    return count;
}

/* A shift by CL may leave all flags as they were. */
static bool may_do_nothing(const struct insn *insn)
{
    unsigned handler = insn->row->handler;

    return handler >= HANDLER_rol && handler <= HANDLER_shrd && insn->operand_count && /* 0: raises #UD */
           insn->operands[insn->operand_count - 1].kind != OPERAND_IMM;
}

static bool is_repeated_comparison(const struct insn *insn)
{
    return insn->rep != REP_NONE && (insn->row->handler == HANDLER_cmps || insn->row->handler == HANDLER_scas);
}

static void note_flags(struct lockstep_op *op)
{
    const struct insn *insn = &op->iop.insn;

    op->leaves_undefined = op->defines = 0;
    if (!insn->row)
        return;
    op->leaves_undefined = insn->row->flags_undefined & FLAGS_ARITH;
    if (!may_do_nothing(insn) && !is_repeated_comparison(insn))
        op->defines = insn->row->flags_written & FLAGS_ARITH;
}

/* ---- The cache ---- */

static struct lockstep_plan **bucket_of(struct lockstep *ls, gpa_t gpa, jit_mode_t mode)
{
    return &ls->plans[(gpa ^ gpa >> 16 ^ (uint64_t)mode << 9) % LOCKSTEP_BUCKETS];
}

static void drop_all(struct lockstep *ls)
{
    jit_cache_flush(ls->jit);
    memset(ls->plans, 0, sizeof(ls->plans));
    ls->arena_used = 0;
}

static void make_room(struct lockstep *ls)
{
    size_t most = sizeof(struct lockstep_plan) + BLOCK_MAX_INSNS * sizeof(struct lockstep_op) + 64;

    if (!jit_cache_has_room(ls->jit) || ls->arena_used + most > ls->arena.size)
        drop_all(ls);
}

static bool is_current(const struct lockstep *ls, const struct lockstep_plan *plan)
{
    /* In another generation the block's record may be part of another one. */
    return plan->generation == ls->jit->generation && plan->block->valid;
}

/* Plans that are of no use any more are taken out on the way. */
static struct lockstep_plan *find(struct lockstep *ls, const struct lockstep_plan *key)
{
    struct lockstep_plan **link = bucket_of(ls, key->gpa, key->mode);

    while (*link) {
        struct lockstep_plan *plan = *link;
        if (!is_current(ls, plan)) {
            *link = plan->next;
            continue;
        }
        if (plan->gpa == key->gpa && plan->mode == key->mode && plan->limit == key->limit &&
            plan->second_page == key->second_page)
            return plan;
        link = &plan->next;
    }
    return NULL;
}

static bool build_ops(struct lockstep *ls, struct lockstep_plan *plan, const uint8_t *bytes, size_t available)
{
    for (unsigned i = 0; i < plan->count; i++) {
        unsigned offset = plan->block->marks[i].offset;
        if (!interp_build(ls->cpu, &plan->ops[i].iop, bytes + offset, available - offset))
            return false;
        note_flags(&plan->ops[i]);
    }
    return true;
}

/* key->count instructions. */
static struct lockstep_plan *build(struct lockstep *ls, const struct lockstep_plan *key, const uint8_t *bytes,
                                   size_t available)
{
    struct jit *jit = ls->jit;
    struct lockstep_plan **bucket = bucket_of(ls, key->gpa, key->mode);

    struct jit_block *block = jit_translate(jit, key->gpa, bytes, available, key->mode, key->count);
    if (!block)
        return NULL;
    if (key->second_page) {
        jit_crossing(block)->second_page = key->second_page;
    }
    jit_block_insert(jit, block);
    struct lockstep_plan *plan = (struct lockstep_plan *)((uint8_t *)ls->arena.base + ls->arena_used);
    *plan = *key;
    plan->block = block;
    plan->count = block->insn_count;
    plan->generation = jit->generation;
    ls->arena_used += ALIGN_UP(sizeof(*plan) + plan->count * sizeof(plan->ops[0]), 64);
    if (!build_ops(ls, plan, bytes, available))
        return NULL;
    plan->next = *bucket;
    *bucket = plan;
    return plan;
}

/* The instruction at cpu_rip lies in two pages. */
static struct lockstep_plan *find_crossing(struct lockstep *ls, struct lockstep_plan *key,
                                           const struct jit_fetched *first, enum lockstep_reason *reason)
{
    struct cpu *cpu = ls->cpu;
    gva_t next = (cpu->cpu_rip & PAGE_MASK) + PAGE_SIZE;
    size_t in_first = next - cpu->cpu_rip;
    struct jit_fetched second;
    uint8_t bytes[INSN_MAX_LENGTH];

    *reason = REASON_UNTRANSLATED;
    if (in_first >= INSN_MAX_LENGTH || (cpu->code_size != CODE64 && next > 0xffffffff))
        return NULL;
    if (!jit_fetch(cpu, next, &second)) {
        *reason = REASON_NONE;
        return NULL;
    }
    if (!second.host)
        return NULL;
    key->second_page = second.gpa;
    key->mode |= MODE_CROSSING;
    struct lockstep_plan *plan = find(ls, key);
    if (plan)
        return plan;
    make_room(ls);
    jit_page_acquire(ls->jit, first->gpa);
    jit_page_acquire(ls->jit, second.gpa);
    memcpy(bytes, first->host, in_first);
    memcpy(bytes + in_first, second.host, INSN_MAX_LENGTH - in_first);
    enum lockstep_reason once;
    key->count = (uint8_t)count_instructions(bytes, sizeof(bytes), cpu->code_size, 1, &once);
    if (key->count && (plan = build(ls, key, bytes, sizeof(bytes))))
        return plan;
    if (once != REASON_NONE)
        *reason = once;
    jit_page_release_if_empty(ls->jit, first->gpa);
    jit_page_release_if_empty(ls->jit, second.gpa);
    return NULL;
}

struct lockstep_plan *lockstep_plan_find(struct lockstep *ls, unsigned limit, jit_mode_t more,
                                         enum lockstep_reason *reason)
{
    struct cpu *cpu = ls->cpu;
    struct lockstep_plan key = { .mode = jit_current_mode(cpu) | MODE_SINGLE | more, .limit = (uint8_t)limit };
    struct jit_fetched f;

    if (ls->jit->flush_wanted)
        drop_all(ls);
    *reason = REASON_NONE;
    if (!jit_fetch(cpu, cpu->cpu_rip, &f))
        return NULL;
    *reason = REASON_MMIO;
    if (!f.host)
        return NULL;
    key.gpa = f.gpa;
    struct lockstep_plan *plan = find(ls, &key);
    if (plan)
        return plan;
    size_t available = PAGE_SIZE - (f.gpa & ~PAGE_MASK);
    make_room(ls);
    jit_page_acquire(ls->jit, f.gpa); /* before the bytes are read */
    key.count = (uint8_t)count_instructions(f.host, available, cpu->code_size, limit, reason);
    if (key.count && (plan = build(ls, &key, f.host, available)))
        return plan;
    jit_page_release_if_empty(ls->jit, f.gpa);
    if (*reason != REASON_NONE)
        return NULL;
    return find_crossing(ls, &key, &f, reason);
}
