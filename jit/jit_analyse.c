/* Second pass of the translator: which accesses share a check, and where a check may clobber the host's flags.
 *
 * Groups. Values of registers are followed through the block as (name, offset): MOV, LEA, ADD, SUB, INC, DEC, PUSH and POP by
 * constants keep the name. Accesses at small distances of one named value form a group: the first of them checks that the
 * whole range lies in one page that the TLB has (for writing, if any of them writes), and keeps the host address of the
 * value; the others need no check. A check that fails leads to a translation without groups that starts at that
 * instruction, so a group never faults, nor sets D, for an access that comes later. Nothing that can change
 * a translation lies inside a group: calls, handlers and the end of the block end all groups (design, 6a.4).
 *
 * Flags. A check is XOR and CMP. Where the guest's flags are in the host's register and somebody could see them, a check may clobber them only
 * if they can be made again: by executing CMP or TEST once more, or, for a fault or interrupt only, by working them
 * out from operands that are still there (jit_flags.c). Otherwise the check is one that needs no flags (design, 6a.10). */
#include "jit/jit_translate.h"

/* ---- Values ---- */

enum { NAME_RIP = 16, NAME_FS, NAME_GS, NAME_ZERO, NAME_FIRST };

struct value {
    uint16_t name;
    int64_t offset;
};

/* Names of sums base + index * scale, while the parts keep theirs. */
#define SUMS_MAX 16
struct sum {
    uint16_t base, index, name;
    uint8_t scale;
};

struct values {
    struct value of[16];
    uint16_t next_name;
    struct sum sums[SUMS_MAX];
    unsigned sum_count;
};

static void value_new(struct values *v, unsigned reg)
{
    v->of[reg] = (struct value){ v->next_name++, 0 };
}

static void values_forget(struct values *v)
{
    for (unsigned reg = 0; reg < 16; reg++)
        value_new(v, reg);
}

static bool is_gpr64(const struct operand *o)
{
    return o->kind == OPERAND_GPR && o->size == 8;
}

/* What remains known of a register after the instruction; true if *result is the new value of operand 0. */
static bool value_of_result(const struct values *v, const struct tinsn *i, struct value *result)
{
    const struct insn *insn = &i->insn;
    const struct operand *o = insn->operands;

    if (!is_gpr64(&o[0]))
        return false;
    *result = v->of[o[0].reg];
    switch (insn->row->handler) {
    case HANDLER_mov:
        if (!is_gpr64(&o[1]))
            return false;
        *result = v->of[o[1].reg];
        return true;
    case HANDLER_lea:
        if (insn->mem.base >= 16 || insn->mem.index != REG_NONE || insn->address_size != 8)
            return false;
        *result = v->of[insn->mem.base];
        result->offset += insn->mem.disp;
        return true;
    case HANDLER_add:
    case HANDLER_sub:
        if (o[1].kind != OPERAND_IMM)
            return false;
        result->offset += insn->row->handler == HANDLER_add ? insn->imm : -insn->imm;
        return true;
    case HANDLER_inc:
        result->offset++;
        return true;
    case HANDLER_dec:
        result->offset--;
        return true;
    default:
        return false;
    }
}

/* Control that comes back, and handlers: registers and translations may be others behind them. SWAPGS, WRFSBASE, WRGSBASE: other bases. */
static bool ends_groups(const struct tinsn *i)
{
    unsigned handler = i->kind == KIND_SYSTEM ? i->insn.row->handler : HANDLER_nop;

    return i->kind >= KIND_CALL || handler == HANDLER_swapgs || handler == HANDLER_wrfsbase ||
           handler == HANDLER_wrgsbase;
}

static void values_step(struct values *v, const struct tinsn *i)
{
    struct value result;

    if (ends_groups(i)) {
        values_forget(v);
        return;
    }
    if ((i->kind == KIND_NATIVE || i->kind == KIND_LEA) && value_of_result(v, i, &result)) {
        v->of[i->insn.operands[0].reg] = result;
        return;
    }
    if (i->kind == KIND_LEAVE) {
        struct value frame = v->of[REG_RBP];
        value_new(v, REG_RBP);
        v->of[REG_RSP] = (struct value){ frame.name, frame.offset + 8 };
        return;
    }
    struct value stack = v->of[REG_RSP];
    for (unsigned writes = i->writes; writes; writes &= writes - 1)
        value_new(v, (unsigned)__builtin_ctz(writes));
    if (i->kind == KIND_PUSH)
        v->of[REG_RSP] = (struct value){ stack.name, stack.offset - 8 };
    else if (i->kind == KIND_POP && i->insn.operands[0].reg != REG_RSP)
        v->of[REG_RSP] = (struct value){ stack.name, stack.offset + 8 };
}

/* ---- Groups ---- */

#define GROUP_SPAN_MAX 256

static bool value_of_sum(struct values *v, const struct insn *insn, struct value *result)
{
    struct value base = insn->mem.base < 16 ? v->of[insn->mem.base] : (struct value){ NAME_ZERO, 0 };
    struct value index = v->of[insn->mem.index];

    *result = (struct value){ 0, base.offset + (int64_t)((uint64_t)index.offset << insn->mem.scale) + insn->mem.disp };
    for (unsigned n = 0; n < v->sum_count; n++) {
        const struct sum *sum = &v->sums[n];
        if (sum->base == base.name && sum->index == index.name && sum->scale == insn->mem.scale) {
            result->name = sum->name;
            return true;
        }
    }
    if (v->sum_count == SUMS_MAX)
        return false;
    v->sums[v->sum_count++] = (struct sum){ base.name, index.name, v->next_name, insn->mem.scale };
    result->name = v->next_name++;
    return true;
}

struct access {
    struct value value;
    unsigned size;
    bool write;
};

/* The access of an instruction that could share a check. */
static bool access_of(struct values *v, const struct tinsn *i, struct access *a)
{
    const struct insn *insn = &i->insn;

    switch (i->kind) {
    case KIND_PUSH:
        if (i->has_memory)
            return false; /* two accesses: the stack's is checked on its own */
        *a = (struct access){ v->of[REG_RSP], 8, true };
        a->value.offset -= 8;
        return true;
    case KIND_CALL:
        *a = (struct access){ v->of[REG_RSP], 8, true };
        a->value.offset -= 8;
        return true;
    case KIND_POP:
    case KIND_RET:
        *a = (struct access){ v->of[REG_RSP], 8, false };
        return true;
    case KIND_LEAVE:
        *a = (struct access){ v->of[REG_RBP], 8, false };
        return true;
    case KIND_NATIVE:
        break;
    default:
        return false;
    }
    if (!i->has_memory || insn->address_size != 8 || i->memory_size > 64)
        return false;
    *a = (struct access){ { 0, insn->mem.disp }, i->memory_size, i->memory_access & ACCESS_W };
    if (insn->mem.segment >= SEG_FS) {
        if (insn->mem.base != REG_NONE || insn->mem.index != REG_NONE)
            return false;
        a->value.name = insn->mem.segment == SEG_FS ? NAME_FS : NAME_GS;
    } else if (insn->mem.base == REG_RIP) {
        a->value.name = NAME_RIP;
        a->value.offset += i->page_offset + insn->length;
    } else if (insn->mem.index < 16) {
        if (!value_of_sum(v, insn, &a->value))
            return false;
    } else if (insn->mem.base < 16) {
        a->value = v->of[insn->mem.base];
        a->value.offset += insn->mem.disp;
    } else {
        return false;
    }
    return a->value.offset > INT32_MIN / 2 && a->value.offset < INT32_MAX / 2;
}

struct open_groups {
    struct {
        uint16_t name;
        uint8_t group;
    } of[BLOCK_MAX_INSNS];
    unsigned count;
    unsigned last_exit; /* behind it the block is not left */
};

/* A write may join a group that begins with a read if nothing between them leaves the block: then it will be made, and the page is
 * writable and dirty the next time. (Else the group's check would fail for ever on pages that are only read.) */
static bool joins(const struct group *g, const struct access *a, unsigned last_exit)
{
    int64_t low = MIN(g->low, a->value.offset), high = MAX(g->high, a->value.offset + a->size);
    return high - low <= GROUP_SPAN_MAX && (g->write || !a->write || g->first >= last_exit);
}

/* The access of instruction n joins an open group or opens one. */
static void join_group(struct translation *t, struct open_groups *open, unsigned n, const struct access *a)
{
    struct tinsn *i = &t->insns[n];
    unsigned k = 0;

    while (k < open->count &&
           !(open->of[k].name == a->value.name && joins(&t->groups[open->of[k].group], a, open->last_exit)))
        k++;
    if (k == open->count) {
        if (jit_habits(t->jit, (t->gpa & PAGE_MASK) + i->page_offset) & HABIT_ALONE)
            return;
        t->groups[t->group_count] = (struct group){ .low = (int32_t)a->value.offset,
                                                    .high = (int32_t)a->value.offset + (int32_t)a->size,
                                                    .first = (uint8_t)n,
                                                    .write = a->write };
        open->of[k].name = a->value.name;
        open->of[k].group = (uint8_t)t->group_count++;
        open->count++;
    }
    struct group *g = &t->groups[open->of[k].group];
    g->low = MIN(g->low, (int32_t)a->value.offset);
    g->high = MAX(g->high, (int32_t)a->value.offset + (int32_t)a->size);
    g->last = (uint8_t)n;
    g->count++;
    i->group = open->of[k].group;
    i->group_offset = (int32_t)a->value.offset;
    if (a->write && !g->write) {
        g->write = true;
        t->insns[g->first].first_reads = true;
    }
}

static void find_groups(struct translation *t)
{
    struct open_groups open;
    struct values v = { .next_name = NAME_FIRST };

    t->group_count = open.count = open.last_exit = 0;
    for (unsigned reg = 0; reg < 16; reg++)
        v.of[reg] = (struct value){ (uint16_t)reg, 0 };
    for (unsigned n = 0; n < t->count; n++) {
        const struct tinsn *i = &t->insns[n];
        struct access a;
        if (access_of(&v, i, &a))
            join_group(t, &open, n, &a);
        if (i->kind == KIND_JCC || i->kind == KIND_LOOP)
            open.last_exit = n + 1;
        values_step(&v, i);
        if (ends_groups(i))
            open.count = 0;
    }
}

static bool overlap(const struct group *a, const struct group *b)
{
    return a->first <= b->last && b->first <= a->last;
}

/* A0 goes to the groups with most accesses whose ranges do not overlap; others keep their address in memory, if that pays. */
static void place_groups(struct translation *t)
{
    uint8_t wanted[BLOCK_MAX_INSNS], in_a0[BLOCK_MAX_INSNS];
    unsigned wanted_count = 0, a0_count = 0, slots = 0;

    for (unsigned g = 0; g < t->group_count; g++)
        if (t->groups[g].count >= 2)
            wanted[wanted_count++] = (uint8_t)g;
    for (; wanted_count; wanted_count--) {
        unsigned best = 0;
        for (unsigned n = 1; n < wanted_count; n++)
            if (t->groups[wanted[n]].count > t->groups[wanted[best]].count)
                best = n;
        struct group *g = &t->groups[wanted[best]];
        bool free = true;
        for (unsigned n = 0; n < a0_count; n++)
            free &= !overlap(g, &t->groups[in_a0[n]]);
        g->slot = NO_SLOT;
        if (free)
            in_a0[a0_count++] = wanted[best];
        else if (slots < ADDEND_SLOTS)
            g->slot = (uint8_t)slots++;
        else
            g->count = 1;
        memmove(wanted + best, wanted + best + 1, wanted_count - best - 1); /* the order decides between equals */
    }
    t->uses_a0 = a0_count;
}

static void drop_single_groups(struct translation *t)
{
    for (unsigned n = 0; n < t->count; n++) {
        struct tinsn *i = &t->insns[n];
        if (i->group == NO_SLOT)
            continue;
        if (t->groups[i->group].count < 2)
            i->group = NO_SLOT;
        else
            i->group_leader = t->groups[i->group].first == n;
    }
}

/* ---- Flags ---- */

/* The registers from which the flags that the instruction left can be worked out as long as they are unchanged; 0: they cannot. */
static uint16_t replay_registers(const struct tinsn *i)
{
    const struct operand *o = i->insn.operands;

    if (i->kind != KIND_NATIVE || i->has_memory || o[0].kind != OPERAND_GPR)
        return 0;
    bool immediate = o[1].kind == OPERAND_IMM;
    switch (i->insn.row->handler) {
    case HANDLER_cmp:
    case HANDLER_test:
        if (!immediate && o[1].kind != OPERAND_GPR)
            return 0;
        return i->reads;
    case HANDLER_and:
    case HANDLER_or:
    case HANDLER_xor:
        return (uint16_t)(1u << o[0].reg);
    case HANDLER_add:
    case HANDLER_sub:
        if (immediate)
            return (uint16_t)(1u << o[0].reg);
        if (o[1].kind != OPERAND_GPR || o[1].reg == o[0].reg)
            return 0;
        return (uint16_t)(1u << o[0].reg | 1u << o[1].reg);
    default:
        return 0;
    }
}

/* AND, OR, XOR again as TEST of their result; ADD and SUB of a constant by taking it off and adding it again. */
bool can_execute_again(const struct tinsn *i)
{
    const struct operand *o = i->insn.operands;

    if (!replay_registers(i) || i->high_byte)
        return false;
    switch (i->insn.row->handler) {
    case HANDLER_cmp:
    case HANDLER_test:
        for (unsigned reg = 0; reg < 16; reg++)
            if ((i->reads >> reg & 1) && !is_pinned(reg))
                return false;
        return true;
    case HANDLER_and:
    case HANDLER_or:
    case HANDLER_xor:
        return is_pinned(o[0].reg) && o[0].size >= 4;
    default: /* ADD, SUB */
        return is_pinned(o[0].reg) && o[0].size >= 4 && o[1].kind == OPERAND_IMM && i->insn.imm != INT32_MIN;
    }
}

static bool needs_flags(const struct tinsn *i)
{
    if (i->flags_read || (i->flags_changed && i->flags_set != FLAGS_ARITH))
        return true;
    return i->kind >= KIND_JCC; /* exits, calls and handlers */
}

static bool has_own_check(const struct tinsn *i)
{
    enum {
        STACK_KINDS =
            1 << KIND_PUSH | 1 << KIND_POP | 1 << KIND_LEAVE | 1 << KIND_CALL | 1 << KIND_RET | 1 << KIND_CALL_INDIRECT
    };

    if (i->kind == KIND_HELPER || i->kind == KIND_HELPER_END)
        return false;
    if (i->has_memory && (i->kind == KIND_PUSH || i->kind == KIND_CALL_INDIRECT))
        return true;
    return (STACK_KINDS >> i->kind & 1 || i->has_memory) && (i->group == NO_SLOT || i->group_leader);
}

/* By what it computes, its accesses to memory apart. */
static bool may_fault(const struct tinsn *i)
{
    if (i->insn.row->handler == HANDLER_div || i->insn.row->handler == HANDLER_idiv)
        return true;
    switch (i->insn.row->exception_class) {
    case EXC_NONE:
    case EXC_VEX_GPR:
    case EXC_SSE: /* what CR0, CR4 and XCR0 forbid is not translated */
    case EXC_VEX:
    case EXC_VEX_ZEROUPPER:
        return false;
    case EXC_SSE_ALIGNED:
    case EXC_VEX_ALIGNED:
        return i->has_memory;
    default:
        return true;
    }
}

static void note_flag_uses(struct translation *t)
{
    unsigned next = t->count;

    t->flags_until[t->count] = (uint8_t)t->count;
    for (unsigned n = t->count; n-- > 0;) {
        struct tinsn *i = &t->insns[n];
        i->own_check = has_own_check(i);
        i->needs_flags = needs_flags(i);
        i->sets_flags = i->flags_set == FLAGS_ARITH;
        if (i->needs_flags || i->sets_flags)
            next = n;
        t->flags_until[n] = (uint8_t)next;
    }
}

/* Are flags at instruction `from` set again before anything can see them? */
static bool unseen_from(const struct translation *t, unsigned from)
{
    unsigned until = t->flags_until[from];

    if (until == t->count || t->insns[until].needs_flags)
        return false;
    for (unsigned n = from; n <= until; n++) {
        const struct tinsn *i = &t->insns[n];
        if (i->has_memory || (i->kind != KIND_NATIVE && i->kind != KIND_LEA && i->kind != KIND_NOTHING))
            return false;
        if (i->kind == KIND_NATIVE && may_fault(i))
            return false;
    }
    return true;
}

/* May a check before instruction `at` clobber the flags that `source` left? */
static bool clobber_allowed(const struct translation *t, unsigned at, unsigned source, uint16_t registers)
{
    if (can_execute_again(&t->insns[source]))
        return true;
    unsigned until = t->flags_until[at];
    for (unsigned n = at; n < until; n++)
        if (t->insns[n].writes & registers)
            return unseen_from(t, n + 1);
    return until < t->count && !t->insns[until].needs_flags;
}

/* What it costs, in instructions of the host's inner kind, to keep the flags through the checks from `at` to where they are next
 * set or needed: by checks that do not touch them, or by saving them once. */
enum { COST_KEEPING_CHECK = 8, COST_SAVE = 5, COST_RESTORE = 8 };

static bool saving_pays(const struct translation *t, unsigned at)
{
    unsigned checks = 0, until = t->flags_until[at];
    bool restore = until == t->count || t->insns[until].needs_flags;

    for (unsigned n = at; n < t->count && n <= until; n++)
        checks += t->insns[n].own_check;
    return COST_SAVE + (restore ? COST_RESTORE : 0) < checks * COST_KEEPING_CHECK;
}

bool may_be_seen_at(const struct tinsn *i)
{
    return i->own_check || may_fault(i);
}

/* The flags that the block is entered with may be clobbered from `at` on if nothing needs them before all are set. Which registers are written
 * while a fault could still ask for them (in the translation without groups, too, which goes on with the same flags): whoever enters with flags that
 * are to be worked out must not need those. */
static bool find_entry_window(struct translation *t, unsigned at)
{
    unsigned until = t->flags_until[at];
    uint16_t writes = 0;

    if (until == t->count || t->insns[until].needs_flags)
        return false;
    t->entry_writes = 0;
    for (unsigned n = 0; n <= until; n++) {
        const struct tinsn *i = &t->insns[n];
        if (may_be_seen_at(i) || i->group != NO_SLOT)
            t->entry_writes = writes;
        writes |= i->writes;
    }
    return true;
}

struct flag_plan {
    bool in_host;
    bool from_entry;   /* the flags are those of the entry */
    uint8_t elsewhere; /* FLAGS_SAVED, FLAGS_ENTRY: where they are if not in the host's register; 0: `source` */
    unsigned source;
    uint16_t registers; /* not 0: `source` can be worked out */
};

static void plan_check(struct translation *t, struct flag_plan *p, unsigned n)
{
    struct tinsn *i = &t->insns[n];

    if (!p->in_host) {
        i->can_clobber = true;
        return;
    }
    if (p->registers && clobber_allowed(t, n, p->source, p->registers)) {
        i->can_clobber = true;
    } else if (p->from_entry && find_entry_window(t, n)) {
        i->can_clobber = t->entry_window = true;
        p->elsewhere = FLAGS_ENTRY;
        p->registers = 0;
    } else if (saving_pays(t, n)) {
        i->can_clobber = i->save_flags = true;
        p->elsewhere = FLAGS_SAVED;
        p->registers = 0;
    }
    p->in_host = !i->can_clobber;
}

static void plan_flags(struct translation *t)
{
    struct flag_plan p = { .in_host = true, .from_entry = true };

    t->entry_window = false;
    for (unsigned n = 0; n < t->count; n++) {
        struct tinsn *i = &t->insns[n];
        if (i->own_check)
            plan_check(t, &p, n);
        i->flags_source = p.in_host ? 0 : p.elsewhere ? p.elsewhere : (uint8_t)(p.source + 1);
        bool lost = !i->sets_flags && (i->writes & p.registers) && !unseen_from(t, n + 1);
        if (!p.in_host && (i->needs_flags || lost)) {
            i->restore_flags = true;
            p.in_host = true;
            p.elsewhere = 0;
        }
        if (p.registers && !i->again && !(i->kind == KIND_CALL && (p.registers >> REG_RSP & 1)) &&
            i->kind != KIND_LOOP) {
            i->exit_source = (uint8_t)(p.source + 1);
            i->exit_registers = p.registers;
        }
        if (i->sets_flags) {
            p.in_host = true;
            p.elsewhere = 0;
            p.source = n;
            p.registers = replay_registers(i);
        } else if (i->flags_changed || i->kind >= KIND_CALL || (i->writes & p.registers)) {
            p.registers = 0;
        }
        p.from_entry = p.from_entry && !i->flags_changed && i->kind < KIND_CALL;
    }
    t->stale_at_end = !p.in_host;
    t->stale_source = p.elsewhere ? p.elsewhere : (uint8_t)(p.source + 1);
    t->end_source = p.registers ? (uint8_t)(p.source + 1) : 0;
    t->end_registers = p.registers;
}

void translation_analyse(struct translation *t)
{
    t->group_count = 0;
    t->uses_a0 = false;
    if (t->code64 && !(t->mode & MODE_NO_GROUPS)) {
        find_groups(t);
        place_groups(t);
        drop_single_groups(t);
    }
    note_flag_uses(t);
    plan_flags(t);
}
