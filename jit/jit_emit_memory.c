/* Memory accesses: the guest address, the check, and the host address (design, section 2.2).
 *
 * With flags to spare:                        Keeping flags:
 *     lea  t0, [ea]                               lea  t0, [ea]
 *     mov  t1, [site]                             mov  t1, [site]
 *     xor  t0, [t1 + tag]                         mov  t1, [t1 + tag]
 *     cmp  t0, 4096 - size                        not  t1
 *     ja   miss                                   lea  t0, [t0 + t1 + 1]       ; address - tag
 *     mov  t1, [t1 + host]                        pext t1, t0, [mask]          ; page number; the same of the last byte
 *   joined:                                       jrcxz hit
 *     op   [t0 + t1]                              jmp  miss
 *                                             hit: mov t1, [site]
 *                                                 mov  t1, [t1 + host]
 * miss, out of line: t0 becomes the address again; thunk_access looks it up in the L1 TLB, or calls C; afterwards the site points at
 * an entry that matches, and the stub joins the fast path behind the check. */
#include <stddef.h>

#include "jit/jit_translate.h"

struct host_operand guest_cell(const struct translation *t, unsigned guest)
{
    return host_at(&t->jit->cpu->gpr[guest]);
}

unsigned emit_guest_register(struct translation *t, unsigned guest, unsigned scratch)
{
    if (is_pinned(guest))
        return host_of_guest[guest];
    emit_load(&t->jit->hot, scratch, guest_cell(t, guest));
    return scratch;
}

/* ---- Addresses ---- */

static void add_constant(struct emitter *e, unsigned reg, unsigned other, int64_t value)
{
    if (value == (int32_t)value) {
        if (value)
            emit_lea(e, reg, host_base(reg, (int32_t)value));
        return;
    }
    emit_mov_imm64(e, other, (uint64_t)value);
    emit_lea(e, reg, host_base_index(reg, other, 0));
}

/* base + index * scale + disp (+ adjust) into T0; T1 may be used. */
static void emit_register_address(struct translation *t, const struct insn *insn, int64_t disp)
{
    struct emitter *e = &t->jit->hot;
    struct host_operand m = { .base = HOST_NONE, .index = HOST_NONE, .scale = insn->mem.scale };
    bool fits = disp == (int32_t)disp, narrow = insn->address_size == 4;

    if (insn->mem.base < 16)
        m.base = (uint8_t)emit_guest_register(t, insn->mem.base, T0);
    if (insn->mem.index < 16)
        m.index = (uint8_t)emit_guest_register(t, insn->mem.index, T1);
    if (m.base == HOST_NONE && m.index == HOST_NONE) {
        emit_mov_imm64(e, T0, narrow ? (uint32_t)disp : (uint64_t)disp);
        return;
    }
    m.disp = fits ? (int32_t)disp : 0;
    if (narrow)
        emit_lea32(e, T0, m);
    else if (m.index == HOST_NONE && m.disp == 0)
        emit_mov_rr(e, T0, m.base);
    else
        emit_lea(e, T0, m);
    if (!fits)
        add_constant(e, T0, T1, disp);
}

/* The guest-virtual address of the operand, plus adjust, into T0. */
static void emit_operand_address(struct translation *t, const struct tinsn *i, int64_t adjust)
{
    struct emitter *e = &t->jit->hot;
    const struct insn *insn = &i->insn;

    if (insn->mem.base == REG_RIP) {
        emit_load(e, T0, host_at(&t->jit->vpage));
        add_constant(e, T0, T1, insn->mem.disp + i->page_offset + insn->length + adjust);
        if (insn->address_size == 4)
            emit_mov32_rr(e, T0, T0);
    } else {
        emit_register_address(t, insn, insn->mem.disp + adjust);
    }
    if (insn->mem.segment >= SEG_FS) {
        emit_load(e, T1, host_at(&t->jit->cpu->segs[insn->mem.segment].base));
        emit_lea(e, T0, host_base_index(T0, T1, 0));
    }
}

/* ---- Checks ---- */

/* A group that straddles a page goes on in a translation without groups, by a jump that is linked like any other, if the guest's flags are, or
 * can be put, in the host's register, or are those of the entry, which the other translation takes as this one did; else C finds the way. */
static bool group_has_alternative(const struct translation *t)
{
    const struct tinsn *i = &t->insns[t->current];

    if (t->mode & MODE_SINGLE || !links_left(t))
        return false;
    if (!i->flags_source || i->flags_source == FLAGS_SAVED)
        return true;
    return i->flags_source == FLAGS_ENTRY || can_execute_again(&t->insns[i->flags_source - 1]);
}

static void emit_alternative(struct translation *t)
{
    const struct tinsn *i = &t->insns[t->current];
    struct emitter *hot = &t->jit->hot, *cold = &t->jit->cold, saved = *hot;
    bool elsewhere = i->flags_source == FLAGS_ENTRY;

    if (i->flags_source && !elsewhere) { /* out of line this time */
        *hot = *cold;
        emit_flags_again(t, i->flags_source);
        *cold = *hot;
        *hot = saved;
    }
    if (t->jit->has_stats) /* the instruction begins again */
        emit_add_to(cold, &t->jit->executed, -1);
    emit8(cold, 0xe9);
    emit32(cold, 0);
    add_link(t, cold, i->page_offset, elsewhere ? FLAGS_ENTRY : 0);
    t->links[t->link_count - 1].no_groups = true;
    t->links[t->link_count - 1].flags_elsewhere = elsewhere;
    t->links[t->link_count - 1].flag_registers = 0;
}

struct check {
    unsigned span; /* bytes */
    bool write, keep_flags, group;
};

static void emit_flags_saved(struct translation *t, struct emitter *e)
{
    emit_store(e, host_at(&t->jit->flags_tmp), HOST_RAX);
    emit_flags_to_ax(e);
    emit_store(e, host_at(&t->jit->saved_ax), HOST_RAX);
    emit_load(e, HOST_RAX, host_at(&t->jit->flags_tmp));
}

static void emit_flags_restored(struct translation *t, struct emitter *e)
{
    emit_store(e, host_at(&t->jit->flags_tmp), HOST_RAX);
    emit_load(e, HOST_RAX, host_at(&t->jit->saved_ax));
    emit_flags_from_ax(e);
    emit_load(e, HOST_RAX, host_at(&t->jit->flags_tmp));
}

/* A store of the low bytes of a vector register, at any alignment: MOVUPS, MOVDQU, MOVSS, MOVQ and so on. */
static bool stores_vector(const struct tinsn *i)
{
    const struct insn *insn = &i->insn;

    if (i->kind != KIND_NATIVE || insn->row->map != MAP_0F || insn->operand_count != 2 ||
        i->memory_access != ACCESS_W || insn->operands[0].kind != OPERAND_MEM ||
        insn->operands[1].kind != OPERAND_VEC ||
        (insn->row->exception_class != EXC_SSE && insn->row->exception_class != EXC_VEX))
        return false;
    switch (insn->opcode) {
    case 0x11: /* MOVUPS, MOVUPD, MOVSS, MOVSD */
    case 0x13: /* MOVLPS, MOVLPD */
    case 0x7e: /* MOVD, MOVQ */
    case 0x7f: /* MOVDQU */
    case 0xd6: /* MOVQ */
        return true;
    default:
        return false;
    }
}

/* The call out of line; is_inline: code before it falls into it. */
static const uint8_t *emit_access_call(struct translation *t, const struct check *c, unsigned site,
                                       enum access_form form, bool is_inline)
{
    const struct tinsn *i = &t->insns[t->current];
    struct stub_access access = {
        .kind = c->group   ? (c->write ? STUB_GROUP_WRITE : STUB_GROUP_READ)
                : c->write ? STUB_WRITE
                           : STUB_READ,
        .site = site,
        .span = c->span,
        .thunk = t->jit->thunk_access[c->write][form][t->mode >> MODE_PRIVILEGE_SHIFT & 3],
    };

    if (c->group) {
        access.group_first = (unsigned)(i->group_offset - t->groups[i->group].low);
        access.kind |=
            (group_has_alternative(t) ? STUB_HAS_ALTERNATIVE : 0u) | (i->first_reads ? STUB_FIRST_READS : 0u);
    } else if (c->write && stores_vector(i)) {
        access.group_first = i->insn.operands[1].reg;
        access.kind |= STUB_STORES_VECTOR;
    }
    return emit_stub_access(t, &access, is_inline);
}

/* The cold half: `jumps` are the places of the hot branches' rel32. */
static void emit_miss(struct translation *t, const struct check *c, unsigned site, uint8_t *const *jumps,
                      unsigned jump_count, enum access_form form, const uint8_t *joined)
{
    struct jit *jit = t->jit;
    struct emitter *e = &jit->cold;
    const uint8_t *missed = emit_here(e);

    if (form == FORM_ADDRESS) { /* without flag-free checks: T1 is the entry still */
        emit_rm(e, true, 0x33, T0,
                host_base(T1, c->write ? offsetof(struct tlb_entry, tag_w) : offsetof(struct tlb_entry, tag_r)));
        emit_flags_restored(t, e);
        emit_access_call(t, c, site, form, true);
    } else {
        missed = emit_access_call(t, c, site, form, false); /* the hot branches lead straight to the call */
    }
    for (unsigned n = 0; n < jump_count; n++)
        emit_patch_rel32(jumps[n], jit->hot.delta, missed);
    emit_jmp(e, joined);
    if (c->group && group_has_alternative(t))
        emit_alternative(t);
}

static uint8_t *emit_jump_miss(struct emitter *e)
{
    uint8_t *hit = emit_short(e, OPCODE_JRCXZ);
    emit8(e, 0xe9);
    emit32(e, 0);
    emit_short_here(e, hit);
    return e->p - 4;
}

/* Sites that went wrong often take the entry by its index instead of a prediction. */
static bool is_hashed(const struct translation *t)
{
    gpa_t gpa = (t->gpa & PAGE_MASK) + t->insns[t->current].page_offset;

    return t->jit->is_low && jit_habits(t->jit, gpa) & HABIT_HASHED;
}

/* The entry that the site predicts into T1. */
static void emit_load_site(const struct jit *jit, struct emitter *e, unsigned site)
{
    if (jit->is_low)
        emit_load32(e, T1, host_near(&jit->sites[site]));
    else
        emit_load(e, T1, host_near(&jit->sites[site]));
}

/* T0: address of the first byte. Leaves T0: offset in the page, T1: the host page. */
static void emit_check(struct translation *t, const struct check *c)
{
    struct jit *jit = t->jit;
    struct emitter *e = &jit->hot;
    int32_t tag = c->write ? offsetof(struct tlb_entry, tag_w) : offsetof(struct tlb_entry, tag_r);
    int32_t host = c->write ? offsetof(struct tlb_entry, host_w) : offsetof(struct tlb_entry, host_r);
    unsigned site = jit->site_count++;
    uint8_t *misses[2];
    unsigned miss_count = 0;
    enum access_form form = FORM_XORED;
    bool saved = c->keep_flags && !jit->has_bmi2;

    jit->sites[site] = &jit->cpu->mmu.l1[t->mode >> MODE_PRIVILEGE_SHIFT & 3][0];
    jit->site_misses[site] = SITE_MISSES_START;
    jit->site_times[site] = (uint32_t)(__builtin_ia32_rdtsc() >> 8);
    if (saved)
        emit_flags_saved(t, e);
    if ((!c->keep_flags || saved) && is_hashed(t))
        jit_emit_l1_entry(jit, e, t->mode >> MODE_PRIVILEGE_SHIFT & 3);
    else
        emit_load_site(jit, e, site);
    if (!c->keep_flags || saved) {
        emit_rm(e, true, 0x33, T0, host_base(T1, tag));
        emit_cmp_imm(e, T0, (int32_t)(PAGE_SIZE - c->span));
        emit8(e, 0x0f);
        emit8(e, 0x80 | CC_A);
        emit32(e, 0);
        misses[miss_count++] = e->p - 4;
        emit_load(e, T1, host_base(T1, host));
        if (saved)
            emit_flags_restored(t, e);
    } else {
        form = FORM_OFFSET;
        emit_load(e, T1, host_base(T1, tag));
        emit_bytes(e, "\x48\xf7\xd1", 3); /* not rcx */
        emit_lea(e, T0, host_base_index(T0, T1, 1));
        /* Both ends in the page. */
        emit_pext(e, T1, T0, &jit->offset_mask);
        if (c->span > 1 && !t->uses_a0) {
            emit_lea(e, A0, host_base(T0, (int32_t)c->span - 1));
            emit_pext(e, A0, A0, &jit->offset_mask);
            emit_lea(e, T1, host_base_index(T1, A0, 0));
        }
        misses[miss_count++] = emit_jump_miss(e);
        if (c->span > 1 && t->uses_a0) {
            emit_lea(e, T1, host_base(T0, (int32_t)c->span - 1));
            emit_pext(e, T1, T1, &jit->offset_mask);
            misses[miss_count++] = emit_jump_miss(e);
        }
        emit_load_site(jit, e, site);
        emit_load(e, T1, host_base(T1, host));
    }
    const uint8_t *joined = emit_here(e);
    if (saved)
        form = FORM_ADDRESS;
    emit_miss(t, c, site, misses, miss_count, form, joined);
}

/* ---- Operands ---- */

static struct host_operand finish(struct translation *t, bool t1_free)
{
    if (!t1_free)
        return host_base_index(T0, T1, 0);
    emit_lea(&t->jit->hot, T0, host_base_index(T0, T1, 0));
    return host_base(T0, 0);
}

/* A member of a group whose leader has gone before. */
static struct host_operand group_operand(struct translation *t, const struct tinsn *i, bool t1_free)
{
    const struct group *g = &t->groups[i->group];

    if (g->slot == NO_SLOT)
        return host_base(A0, i->group_offset);
    unsigned reg = t1_free ? T0 : T1;
    emit_load(&t->jit->hot, reg, host_at(&t->jit->addends[g->slot]));
    return host_base(reg, i->group_offset);
}

/* T0: address of the access + (low - offset). */
static struct host_operand lead_group(struct translation *t, const struct tinsn *i, bool t1_free)
{
    struct emitter *e = &t->jit->hot;
    const struct group *g = &t->groups[i->group];
    struct check c = { (unsigned)(g->high - g->low), g->write, !i->can_clobber, true };
    struct host_operand value = { .base = T0, .index = T1, .disp = -g->low };

    emit_check(t, &c);
    if (g->slot == NO_SLOT) {
        emit_lea(e, A0, value);
        return host_base(A0, i->group_offset);
    }
    unsigned reg = t1_free ? T0 : T1;
    emit_lea(e, reg, value);
    emit_store(e, host_at(&t->jit->addends[g->slot]), reg);
    return host_base(reg, i->group_offset);
}

/* The address is in T0. */
static struct host_operand check_alone(struct translation *t, const struct tinsn *i, bool t1_free)
{
    struct check c = { i->memory_size, i->memory_access & ACCESS_W, !i->can_clobber, false };

    emit_check(t, &c);
    return finish(t, t1_free);
}

struct host_operand emit_memory(struct translation *t, struct tinsn *i, bool t1_free)
{
    if (i->group != NO_SLOT && !i->group_leader)
        return group_operand(t, i, t1_free);
    if (i->group != NO_SLOT) {
        emit_operand_address(t, i, t->groups[i->group].low - i->group_offset);
        return lead_group(t, i, t1_free);
    }
    emit_operand_address(t, i, 0);
    return check_alone(t, i, t1_free);
}

struct host_operand emit_stack_access(struct translation *t, struct tinsn *i, int32_t offset, unsigned size, bool write,
                                      bool t1_free)
{
    struct emitter *e = &t->jit->hot;
    unsigned base = host_of_guest[i->kind == KIND_LEAVE ? REG_RBP : REG_RSP];

    if (i->group != NO_SLOT && !i->group_leader)
        return group_operand(t, i, t1_free);
    if (i->group != NO_SLOT) {
        emit_lea(e, T0, host_base(base, offset + t->groups[i->group].low - i->group_offset));
        return lead_group(t, i, t1_free);
    }
    if (!t->code64)
        emit_lea32(e, T0, host_base(base, offset));
    else if (offset)
        emit_lea(e, T0, host_base(base, offset));
    else
        emit_mov_rr(e, T0, base);
    struct check c = { size, write, !i->can_clobber, false };
    emit_check(t, &c);
    return finish(t, t1_free);
}

void emit_address(struct translation *t, const struct tinsn *i)
{
    emit_operand_address(t, i, 0);
}

struct host_operand emit_checked_address(struct translation *t, const struct tinsn *i)
{
    return check_alone(t, i, true);
}
