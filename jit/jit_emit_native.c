/* Instructions that the host executes: copied as they are where every register is the host's of the same number and there is no memory
 * operand, else written again with other registers and a host memory operand. Opcode, prefixes that count, and immediates
 * stay byte for byte.
 *
 * SDM Vol. 2A chapter 2 (prefixes, REX, VEX). */
#include "jit/jit_translate.h"

/* ---- Encodings ---- */

static bool is_legacy_prefix(unsigned byte)
{
    switch (byte) {
    case 0x26:
    case 0x2e:
    case 0x36:
    case 0x3e:
    case 0x64:
    case 0x65:
    case 0x66:
    case 0x67:
    case 0xf0:
    case 0xf2:
    case 0xf3:
        return true;
    default:
        return false;
    }
}

static bool is_dropped_prefix(unsigned byte) /* segments and address size: worked into the operand already */
{
    return byte != 0x66 && byte != 0xf0 && byte != 0xf2 && byte != 0xf3;
}

/* Prefixes that count are written; returns the first byte behind them (REX is taken from insn->rex; one that another prefix
 * follows has no effect and is dropped). */
static const uint8_t *emit_prefixes(struct emitter *e, const struct insn *insn, const uint8_t *p)
{
    for (;;) {
        if (is_legacy_prefix(*p)) {
            if (!is_dropped_prefix(*p))
                emit8(e, *p);
        } else if (insn->code_size != CODE64 || (*p & 0xf0) != 0x40) {
            return p;
        }
        p++;
    }
}

struct fields {
    unsigned reg, rm; /* full register numbers */
    struct host_operand memory;
    bool rm_is_memory;
};

static void emit_modrm_fields(struct emitter *e, const struct fields *f, unsigned trailing)
{
    if (f->rm_is_memory)
        emit_modrm_memory(e, f->reg, &f->memory, trailing);
    else
        emit8(e, 0xc0 | (f->reg & 7) << 3 | (f->rm & 7));
}

static unsigned fields_rex(const struct fields *f)
{
    unsigned b = f->rm_is_memory ? host_operand_rex(&f->memory) : f->rm & 8 ? 1u : 0u;
    return b | (f->reg & 8 ? 4u : 0u);
}

static unsigned opcode_bytes(const struct insn *insn)
{
    switch (insn->row->map) {
    case MAP_0F:
        return 2;
    case MAP_0F38:
    case MAP_0F3A:
        return 3;
    default:
        return 1;
    }
}

/* INC and DEC 40..4f are REX prefixes in the host's mode; MOV with an absolute address has no ModRM. */
static bool emit_special_opcode(struct emitter *e, const struct insn *insn, const uint8_t *p, const struct rewrite *w)
{
    unsigned rex = insn->rex & 8 ? 8u : 0u;

    if (insn->row->map != MAP_ONEBYTE)
        return false;
    if (*p >= 0x40 && *p <= 0x4f) {
        if (w->opcode_reg & 8)
            emit8(e, 0x41);
        emit8(e, 0xff);
        emit8(e, 0xc0 | (*p & 8) | (w->opcode_reg & 7));
        return true;
    }
    if (*p >= 0xa0 && *p <= 0xa3 && w->rm_is_memory) {
        rex |= host_operand_rex(&w->memory);
        if (rex)
            emit8(e, 0x40 | rex);
        emit8(e, 0x88 | (*p & 1) | (*p & 2 ? 0u : 2u));
        emit_modrm_memory(e, HOST_RAX, &w->memory, 0);
        return true;
    }
    return false;
}

void emit_rewritten(struct emitter *e, const struct insn *insn, const uint8_t *bytes, const struct rewrite *w)
{
    const uint8_t *end = bytes + insn->length, *p = emit_prefixes(e, insn, bytes);
    unsigned map_bytes = opcode_bytes(insn);
    struct fields f = { .rm_is_memory = w->rm_is_memory, .memory = w->memory };

    if (emit_special_opcode(e, insn, p, w))
        return;
    const uint8_t *modrm = p + (insn->vex.kind == 2 ? 3 : insn->vex.kind == 3 ? 4 : map_bytes), *immediate = modrm;
    if (insn->has_modrm)
        immediate += 1 + insn->has_sib + (*modrm >> 6 != 3 ? insn->mem.disp_bytes : 0);
    unsigned trailing = (unsigned)(end - immediate);
    unsigned r = insn->rex & 4 ? 8 : 0, b = insn->rex & 1 ? 8 : 0;
    if (insn->vex.kind) {
        r = p[1] & 0x80 || insn->code_size != CODE64 ? 0 : 8;
        b = insn->vex.kind == 2 || (p[1] & 0x20) || insn->code_size != CODE64 ? 0 : 8;
    }
    f.reg = w->reg != 0xff ? w->reg : insn->has_modrm ? (*modrm >> 3 & 7) | r : 0;
    f.rm = w->rm != 0xff ? w->rm : insn->has_modrm ? (*modrm & 7) | b : 0;
    unsigned rex = insn->has_modrm ? fields_rex(&f) : 0;
    if (insn->vex.kind) {
        unsigned last = insn->vex.kind == 2 ? p[1] : p[2];
        unsigned vvvv = w->vvvv != 0xff ? ~(unsigned)w->vvvv & 15u : last >> 3 & 15;
        emit8(e, 0xc4);
        emit8(e, (rex & 4 ? 0u : 0x80u) | (rex & 2 ? 0u : 0x40u) | (rex & 1 ? 0u : 0x20u) |
                     (insn->vex.kind == 2 ? 1u : p[1] & 31u));
        /* outside 64-bit mode W and the top of vvvv are ignored where no GPR is wide: the host would mind */
        emit8(e, (insn->vex.kind == 2 ? 0u : last & 0x80) | vvvv << 3 | (last & 7));
        emit8(e, modrm[-1]);
    } else {
        if (w->opcode_reg != 0xff && w->opcode_reg & 8)
            rex |= 1;
        rex |= insn->rex & 8;
        if (rex || insn->rex)
            emit8(e, 0x40 | rex);
        emit_bytes(e, p, map_bytes - 1);
        unsigned opcode = p[map_bytes - 1];
        emit8(e, w->opcode_reg != 0xff ? (opcode & 0xf8) | (w->opcode_reg & 7) : opcode);
    }
    if (insn->has_modrm)
        emit_modrm_fields(e, &f, trailing);
    emit_bytes(e, immediate, trailing);
}

/* ---- Register operands ---- */

bool native_is_identical(const struct tinsn *i)
{
    if (i->has_memory || i->reads_rcx || i->writes_rcx || i->insn.code_size != CODE64)
        return false;
    for (unsigned role = 0; role < ROLE_COUNT; role++)
        if (i->gpr[role] != NO_GPR && host_of_guest[i->gpr[role]] != i->gpr[role])
            return false;
    return true;
}

void emit_verbatim(struct translation *t, const struct tinsn *i)
{
    emit_bytes(&t->jit->hot, i->bytes, i->insn.length);
}

/* ---- Unpinned registers that are in a scratch register at the moment ----
 *
 * What was loaded into T0 or T1, or stored from there, need not be loaded again by the next instruction: the store and the load
 * would cost five cycles where one instruction waits for another. The memory cell is always right, so nothing is lost when C looks,
 * or takes over. But C may also go on at the next instruction, behind one that it executed: behind those that it may
 * execute nothing is held. */

void forget_held(struct translation *t)
{
    t->held[0] = t->held[1] = NO_GPR;
}

static uint8_t *held_in(struct translation *t, unsigned host)
{
    return &t->held[host == T1];
}

/* The scratch register that has an unpinned register's value; HOST_NONE: none. */
static unsigned holder_of(struct translation *t, unsigned guest)
{
    return *held_in(t, T1) == guest ? T1 : *held_in(t, T0) == guest ? T0 : HOST_NONE;
}

static void forget_written(struct translation *t, const struct tinsn *i)
{
    for (unsigned n = 0; n < ARRAY_SIZE(t->held); n++)
        if (t->held[n] != NO_GPR && i->writes >> t->held[n] & 1)
            t->held[n] = NO_GPR;
}

struct scratch_use {
    uint8_t guest, host;
    bool written;
};

struct native_plan {
    struct rewrite w;
    struct scratch_use uses[2];
    unsigned use_count;
    unsigned free_count;
    uint8_t free[2];
    bool spare; /* more are free than the operands want: one that is held may stay where it is, too */
};

static bool needs_load(const struct tinsn *i, unsigned role)
{
    unsigned access = i->access[role];
    return access & (ACCESS_R | ACCESS_CW) || i->size[role] < 4;
}

/* The register operand may be the memory cell of an unpinned register itself. */
static bool cell_suffices(const struct tinsn *i)
{
    const struct insn_row *row = i->insn.row;
    unsigned handler = row->handler;

    if (i->has_memory || !i->rm_is_cell_sized || i->gpr[ROLE_REG] == i->gpr[ROLE_RM] || i->insn.vex.kind == 4 ||
        (row->modrm != MODRM_ANY && row->modrm != MODRM_EXT))
        return false;
    if (handler == HANDLER_bt || handler == HANDLER_bts || handler == HANDLER_btr || handler == HANDLER_btc ||
        handler == HANDLER_xchg || handler == HANDLER_xadd || handler == HANDLER_cmpxchg || handler == HANDLER_movbe)
        return false;
    if (i->high_byte) /* the address needs no REX, but keep it simple */
        return false;
    /* A narrow store into the cell would hold up the wide load that comes next. */
    return !(i->access[ROLE_RM] & (ACCESS_W | ACCESS_CW)) || i->size[ROLE_RM] == 8;
}

/* XOR or SUB of a register with itself: what was in it does not matter. */
static bool clears_register(const struct tinsn *i)
{
    unsigned handler = i->insn.row->handler;

    return (handler == HANDLER_xor || handler == HANDLER_sub) && i->gpr[ROLE_REG] != NO_GPR &&
           i->gpr[ROLE_REG] == i->gpr[ROLE_RM] && i->size[ROLE_RM] >= 4 && !i->has_memory;
}

/* One that is free: the one with the value, or, if it can be, one that holds none. */
static unsigned take_scratch(struct translation *t, struct native_plan *p, unsigned guest)
{
    unsigned best = p->free_count - 1u;

    for (unsigned n = 0; n < p->free_count; n++)
        if (guest != NO_GPR && *held_in(t, p->free[n]) == guest)
            best = n;
        else if (*held_in(t, p->free[best]) != NO_GPR && *held_in(t, p->free[best]) != guest &&
                 *held_in(t, p->free[n]) == NO_GPR)
            best = n;
    unsigned host = p->free[best];
    p->free[best] = p->free[--p->free_count];
    return host;
}

static unsigned use_scratch(struct translation *t, struct native_plan *p, const struct tinsn *i, unsigned role)
{
    unsigned guest = i->gpr[role];
    struct scratch_use *use = NULL;

    for (unsigned n = 0; n < p->use_count; n++)
        if (p->uses[n].guest == guest)
            use = &p->uses[n];
    if (!use) {
        bool load = false;
        for (unsigned other = 0; other < ROLE_COUNT; other++)
            load |= i->gpr[other] == guest && needs_load(i, other);
        if (clears_register(i))
            load = false;
        unsigned host = take_scratch(t, p, load ? guest : NO_GPR);
        use = &p->uses[p->use_count++];
        *use = (struct scratch_use){ .guest = (uint8_t)guest, .host = (uint8_t)host };
        load &= is_pinned(guest) || *held_in(t, host) != guest;
        *held_in(t, host) = is_pinned(guest) ? NO_GPR : (uint8_t)guest;
        if (load && is_pinned(guest))
            emit_mov_rr(&t->jit->hot, use->host, host_of_guest[guest]);
        else if (load)
            emit_load(&t->jit->hot, use->host, guest_cell(t, guest));
    }
    use->written |= !!(i->access[role] & (ACCESS_W | ACCESS_CW));
    return use->host;
}

/* May an operand whose cell would do be taken from a scratch register? */
static bool is_held_and_free(struct translation *t, const struct native_plan *p, unsigned guest)
{
    unsigned host = holder_of(t, guest);

    if (!p->spare)
        return false;
    for (unsigned n = 0; n < p->free_count; n++)
        if (p->free[n] == host)
            return true;
    return false;
}

static void resolve_role(struct translation *t, struct native_plan *p, const struct tinsn *i, unsigned role)
{
    uint8_t *field = role == ROLE_REG    ? &p->w.reg
                     : role == ROLE_RM   ? &p->w.rm
                     : role == ROLE_VVVV ? &p->w.vvvv
                                         : &p->w.opcode_reg;
    unsigned guest = i->gpr[role];

    if (guest == NO_GPR)
        return;
    if (is_pinned(guest) && !(i->high_byte && guest == REG_RCX)) {
        *field = host_of_guest[guest];
    } else if (role == ROLE_RM && !is_pinned(guest) && cell_suffices(i) && !is_held_and_free(t, p, guest)) {
        p->w.rm_is_memory = true;
        p->w.memory = guest_cell(t, guest);
    } else {
        *field = (uint8_t)use_scratch(t, p, i, role);
    }
    /* high bytes are numbered 4..7 */
    if (i->high_byte && i->size[role] == 1) {
        for (unsigned n = 0; n < i->insn.operand_count; n++) {
            const struct operand *o = &i->insn.operands[n];
            if (o->kind == OPERAND_GPR_HIGH && o->reg == guest &&
                ((role == ROLE_RM && (i->insn.modrm & 7) == guest + 4) ||
                 (role == ROLE_REG && (i->insn.modrm >> 3 & 7) == guest + 4) ||
                 (role == ROLE_OPCODE && (i->insn.opcode & 7) == guest + 4)))
                *field |= 4;
        }
    }
}

/* How many scratch registers the operands want besides those of the memory operand. */
static unsigned scratch_wanted(const struct tinsn *i)
{
    unsigned seen = 0, count = 0;

    for (unsigned role = 0; role < ROLE_COUNT; role++) {
        unsigned guest = i->gpr[role];
        if (guest == NO_GPR || (is_pinned(guest) && !(i->high_byte && guest == REG_RCX)))
            continue;
        if (role == ROLE_RM && !is_pinned(guest) && cell_suffices(i) && !(seen >> guest & 1))
            continue;
        count += !(seen >> guest & 1);
        seen |= 1u << guest;
    }
    return count;
}

bool native_is_possible(const struct tinsn *i)
{
    unsigned available = i->has_memory ? 1 : 2;
    bool rcx = i->reads_rcx || i->writes_rcx;
    unsigned wanted = scratch_wanted(i) + rcx;

    if (i->high_byte) {
        for (unsigned role = 0; role < ROLE_COUNT; role++) {
            unsigned guest = i->gpr[role];
            if (guest == NO_GPR)
                continue;
            if (guest == REG_RCX ? i->has_memory || rcx : host_of_guest[guest] != guest || guest >= 8)
                return false;
        }
    }
    return wanted <= available;
}

/* op pinned, unpinned: as op pinned, [cell], by the opcode of the other direction (ADD to CMP, MOV), or the same (TEST). */
static bool emit_from_cell(struct translation *t, const struct tinsn *i, const struct native_plan *p)
{
    const struct insn *insn = &i->insn;
    uint8_t bytes[INSN_MAX_LENGTH];
    unsigned at = insn->length - 2u, opcode = insn->opcode;
    bool moves = opcode == 0x88 || opcode == 0x89, alu = opcode < 0x40 && (opcode & 6) == 0;
    bool tests = opcode == 0x84 || opcode == 0x85;

    if (insn->row->map != MAP_ONEBYTE || i->has_memory || i->high_byte || (!moves && !alu && !tests))
        return false;
    if (i->gpr[ROLE_REG] == NO_GPR || i->gpr[ROLE_RM] == NO_GPR || is_pinned(i->gpr[ROLE_REG]) ||
        !is_pinned(i->gpr[ROLE_RM]) || !insn->has_modrm || insn->modrm >> 6 != 3 ||
        is_held_and_free(t, p, i->gpr[ROLE_REG]))
        return false;
    memcpy(bytes, i->bytes, insn->length);
    if (!tests)
        bytes[at] |= 2;
    struct rewrite w = { .rm_is_memory = true,
                         .reg = host_of_guest[i->gpr[ROLE_RM]],
                         .rm = 0xff,
                         .vvvv = 0xff,
                         .opcode_reg = 0xff,
                         .memory = guest_cell(t, i->gpr[ROLE_REG]) };
    emit_rewritten(&t->jit->hot, insn, bytes, &w);
    return true;
}

/* The instruction itself: its memory operand and the scratch registers that are free are in the plan. */
static void emit_operation(struct translation *t, const struct tinsn *i, struct native_plan *p)
{
    struct emitter *e = &t->jit->hot;

    p->spare = p->free_count > scratch_wanted(i);
    if (native_is_identical(i)) {
        emit_verbatim(t, i);
        return;
    }
    if (emit_from_cell(t, i, p)) {
        forget_written(t, i);
        return;
    }
    for (unsigned role = 0; role < ROLE_COUNT; role++)
        resolve_role(t, p, i, role);
    emit_rewritten(e, &i->insn, i->bytes, &p->w);
    forget_written(t, i);
    for (unsigned n = 0; n < p->use_count; n++) {
        if (!p->uses[n].written)
            continue;
        if (is_pinned(p->uses[n].guest)) {
            emit_mov_rr(e, host_of_guest[p->uses[n].guest], p->uses[n].host);
        } else {
            emit_store(e, guest_cell(t, p->uses[n].guest), p->uses[n].host);
            *held_in(t, p->uses[n].host) = p->uses[n].guest;
        }
    }
}

static bool uses(const struct host_operand *m, unsigned host)
{
    return m->base == host || m->index == host;
}

void emit_native(struct translation *t, struct tinsn *i)
{
    struct emitter *e = &t->jit->hot;
    struct native_plan p = { .w = { .reg = 0xff, .rm = 0xff, .vvvv = 0xff, .opcode_reg = 0xff } };
    bool rcx = i->reads_rcx || i->writes_rcx, wants = scratch_wanted(i) + rcx > 0;
    const uint8_t *start = e->p;

    if (i->has_memory) {
        p.w.memory = emit_memory(t, i, wants || i->high_byte);
        p.w.rm_is_memory = true;
        if (e->p != start || uses(&p.w.memory, T0) || uses(&p.w.memory, T1))
            forget_held(t);
        else
            p.free[p.free_count++] = T0;
        if (i->high_byte) { /* no REX: rcx alone can hold the address */
            emit_lea(e, HOST_RCX, p.w.memory);
            p.w.memory = host_base(HOST_RCX, 0);
        }
    } else {
        p.free[p.free_count++] = T0;
    }
    if (i->restore_flags)
        emit_flags_again(t, i->flags_source);
    if (rcx || i->high_byte)
        forget_held(t);
    if (rcx) {
        emit_mov_rr(e, HOST_RCX, host_of_guest[REG_RCX]);
    } else if (i->high_byte) {
        p.free[0] = T1;
        p.free_count = 1;
    } else {
        p.free[p.free_count++] = T1;
    }
    emit_operation(t, i, &p);
    if (i->writes_rcx)
        emit_mov_rr(e, host_of_guest[REG_RCX], HOST_RCX);
    if (may_be_seen_at(i))
        forget_held(t);
}

static void emit_saved_flags(struct translation *t)
{
    struct jit *jit = t->jit;
    struct emitter *e = &jit->hot;

    emit_store(e, host_at(&jit->rax), HOST_RAX);
    emit_load32(e, HOST_RAX, host_at(&jit->saved_flags));
    emit_bytes(e, "\x86\xe0\x24\x08\x04\x78\x9e", 7); /* xchg al, ah; and al, OF; add al, 0x78; sahf */
    emit_load(e, HOST_RAX, host_at(&jit->rax));
}

void emit_flags_again(struct translation *t, unsigned source)
{
    if (source == FLAGS_SAVED) {
        emit_saved_flags(t);
        return;
    }
    const struct tinsn *i = &t->insns[source - 1];
    struct native_plan p = { .w = { .reg = 0xff, .rm = 0xff, .vvvv = 0xff, .opcode_reg = 0xff } };
    struct emitter *e = &t->jit->hot;
    const struct operand *o = i->insn.operands;
    unsigned handler = i->insn.row->handler, host = host_of_guest[o[0].reg];

    if (handler == HANDLER_and || handler == HANDLER_or || handler == HANDLER_xor) {
        emit_rr(e, o[0].size == 8, 0x85, host, host); /* test */
        return;
    }
    if (handler == HANDLER_add || handler == HANDLER_sub) {
        struct host_operand before = host_base(host, (int32_t)(handler == HANDLER_add ? -i->insn.imm : i->insn.imm));
        if (o[0].size == 8)
            emit_lea(e, host, before);
        else
            emit_lea32(e, host, before);
    }
    if (native_is_identical(i)) {
        emit_verbatim(t, i);
        return;
    }
    for (unsigned role = 0; role < ROLE_COUNT; role++)
        resolve_role(t, &p, i, role);
    emit_rewritten(e, &i->insn, i->bytes, &p.w);
}

void emit_lea_insn(struct translation *t, struct tinsn *i)
{
    struct emitter *e = &t->jit->hot;
    const struct insn *insn = &i->insn;
    unsigned to = insn->operands[0].reg, size = insn->operands[0].size;
    unsigned host = is_pinned(to) && size >= 4 ? host_of_guest[to] : T0;
    struct host_operand m = { .base = HOST_NONE, .index = HOST_NONE, .scale = insn->mem.scale };
    int64_t disp = insn->mem.disp;

    if (insn->mem.base == REG_RIP) {
        disp += i->page_offset + insn->length;
        emit_load(e, T0, host_at(&t->jit->vpage));
        m.base = T0;
    } else if (insn->mem.base < 16) {
        m.base = (uint8_t)emit_guest_register(t, insn->mem.base, T0);
    }
    if (insn->mem.index < 16)
        m.index = (uint8_t)emit_guest_register(t, insn->mem.index, T1);
    if (disp != (int32_t)disp) { /* a RIP-relative one near the end of its range */
        emit_mov_imm64(e, T1, (uint64_t)disp);
        m.index = T1;
        disp = 0;
    }
    m.disp = (int32_t)disp;
    bool narrow = size == 4 || insn->address_size == 4;
    if (m.base == HOST_NONE && m.index == HOST_NONE)
        emit_mov_imm64(e, host, narrow ? (uint32_t)m.disp : (uint64_t)(int64_t)m.disp);
    else if (narrow)
        emit_lea32(e, host, m);
    else
        emit_lea(e, host, m);
    if (host == T0 || m.base == T0 || m.index == T1)
        forget_held(t);
    else
        forget_written(t, i);
    if (host != T0)
        return;
    if (size >= 4) {
        emit_store(e, guest_cell(t, to), T0);
    } else if (is_pinned(to)) {
        emit8(e, 0x66);
        emit_rr(e, false, 0x8b, host_of_guest[to], T0);
    } else {
        emit8(e, 0x66);
        emit_rm(e, false, 0x89, T0, guest_cell(t, to));
    }
}
