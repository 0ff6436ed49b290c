/* Stack and control flow (design, section 5: calls and returns, jumps, interrupts).
 *
 * Return stack: a call pushes ~(guest return address), then the host's return address; a guest RET leaves the address that it
 * popped in T0 and executes the host's RET. The continuation compares. Control leaves a block with the guest's flags in
 * the host's register, always.
 *
 * Exits: inside the page a jump to the target block, patched when it is first taken; else T0 = target and thunk_lookup. A0 says
 * which instruction jumped, for the fault of a target that is not canonical. */
#include "jit/jit_translate.h"

/* ---- Exits ---- */

void emit_flag_kind(struct translation *t, unsigned source, uint16_t registers)
{
    unsigned slot = 0;

    t->kind_registers = registers;
    if (source && source == t->kind_set)
        return;
    t->kind_set = 0;
    if (!source || t->mode & (MODE_SINGLE | MODE_CROSSING))
        return;
    while (slot < t->replay_count && t->replays[slot] != source - 1)
        slot++;
    if (slot == REPLAYS_MAX)
        return;
    if (slot == t->replay_count)
        t->replays[t->replay_count++] = (uint8_t)(source - 1);
    emit_store32_imm(&t->jit->hot, host_at(&t->jit->flag_kind), t->block_offset | slot);
    t->kind_set = (uint8_t)source;
}

static uint16_t kind_registers(const struct translation *t)
{
    return t->kind_set ? t->kind_registers : 0;
}

static bool in_page(int64_t page_offset)
{
    return page_offset >= 0 && page_offset < (int64_t)PAGE_SIZE;
}

/* Cold code that leaves for an address by lookup (or, unchained, leaves for good). */
static const uint8_t *cold_leave(struct translation *t, int64_t page_offset)
{
    struct emitter *e = &t->jit->cold;

    if (t->mode & MODE_SINGLE) {
        const uint8_t *start = emit_here(e);
        jit_emit_page_address(t->jit, e, page_offset, t->code64);
        emit_stub_inline(t, STUB_DONE, t->jit->thunk_slow);
        return start;
    }
    const uint8_t *start = emit_here(e);
    jit_emit_page_address(t->jit, e, page_offset, t->code64);
    jit_emit_jump_by_lookup(t->jit, e, t->falling ? 0 : t->block_offset | t->current);
    return start;
}

void add_link(struct translation *t, struct emitter *from, unsigned page_offset, unsigned flags_source)
{
    struct jit *jit = t->jit;
    uint8_t *patch = from->p - 4;
    const uint8_t *stub = emit_stub_link(t, flags_source);

    emit_patch_rel32(patch, from->delta, stub);
    t->links[t->link_count++] = (struct exit_site){ .patch = (uint32_t)(patch - jit->code.write),
                                                    .stub = (uint32_t)(stub - jit->code.execute),
                                                    .page_offset = (uint16_t)page_offset,
                                                    .flag_registers = kind_registers(t) };
}

static bool can_be_far(const struct translation *t, int64_t page_offset)
{
    return t->code64 && !(t->mode & MODE_SINGLE) && links_left(t) && page_offset == (int32_t)page_offset;
}

/* A direct jump to another page. It holds for one mode and address space: their number is compared, then the block is entered
 * with vpage moved on. In hot or cold code (`e`). `poll`: where to leave if attention is wanted, NULL: nobody looks. */
static void emit_far(struct translation *t, struct emitter *e, int64_t page_offset, const uint8_t *poll)
{
    struct jit *jit = t->jit;
    struct exit_site link = { .page_offset = (uint16_t)(page_offset & 0xfff), .flag_registers = kind_registers(t) };
    uint8_t *attention = NULL;

    link.counter = jit->site_count++;
    jit->sites[link.counter] = NULL;
    if (poll) {
        emit_load32(e, T1, host_near(&jit->cpu->quiet));
        attention = emit_short(e, OPCODE_JRCXZ);
    }
    emit_load32(e, T1, host_at(&jit->negative_number));
    emit8(e, 0x8d); /* lea ecx, [rcx + imm32] */
    emit8(e, 0x89);
    link.compare = (uint32_t)(e->p - jit->code.write);
    emit32(e, 0x80000000u);
    uint8_t *holds = emit_short(e, OPCODE_JRCXZ);
    emit8(e, 0xe9);
    emit32(e, 0);
    uint8_t *miss = e->p - 4;
    emit_short_here(e, holds);
    emit_load(e, T0, host_at(&jit->vpage));
    emit_lea(e, T0, host_base(T0, (int32_t)(page_offset & ~(int64_t)0xfff)));
    emit_store(e, host_at(&jit->vpage), T0);
    emit8(e, 0xe9);
    emit32(e, 0); /* not taken before it is patched */
    link.patch = (uint32_t)(e->p - 4 - jit->code.write);
    if (attention) {
        emit_short_here(e, attention);
        emit_jmp(e, poll);
    }
    emit_patch_rel32(miss, e->delta, emit_stub_far_link(t, page_offset, link.counter));
    t->links[t->link_count++] = link;
}

void emit_exit_to(struct translation *t, int64_t page_offset, bool poll)
{
    struct emitter *e = &t->jit->hot;

    if (t->mode & MODE_SINGLE || !links_left(t)) {
        emit_jmp(e, cold_leave(t, page_offset));
    } else if (!in_page(page_offset) && can_be_far(t, page_offset)) {
        emit_far(t, e, page_offset, poll ? emit_stub_poll(t, page_offset, 0) : NULL);
    } else if (!in_page(page_offset)) {
        emit_jmp(e, cold_leave(t, page_offset));
    } else if (!poll) {
        emit8(e, 0xe9);
        emit32(e, 0);
        add_link(t, e, (unsigned)page_offset, 0);
    } else {
        emit_load32(e, T1, host_near(&t->jit->cpu->quiet));
        uint8_t *attention = emit_short(e, OPCODE_JRCXZ);
        emit8(e, 0xe9);
        emit32(e, 0);
        add_link(t, e, (unsigned)page_offset, 0);
        emit_short_here(e, attention);
        emit_jmp(e, emit_stub_poll(t, page_offset, 0));
    }
}

void emit_exit_by_lookup(struct translation *t, unsigned page_offset)
{
    emit_jmp(&t->jit->hot, cold_leave(t, page_offset));
}

/* A far link in cold code; where it begins. */
static const uint8_t *cold_far(struct translation *t, int64_t page_offset, bool poll)
{
    const uint8_t *leave = poll ? emit_stub_poll(t, page_offset, 0) : NULL, *start = emit_here(&t->jit->cold);

    emit_far(t, &t->jit->cold, page_offset, leave);
    return start;
}

static int64_t branch_target(const struct tinsn *i)
{
    return (int64_t)i->page_offset + i->insn.length + i->insn.imm;
}

/* Where it goes if it leaves. */
static bool is_backward(const struct tinsn *i)
{
    return i->insn.imm < 0 && !i->again;
}

/* ---- Conditional branches ---- */

static void emit_conditional(struct translation *t, struct tinsn *i)
{
    struct emitter *e = &t->jit->hot;
    unsigned cc = (i->insn.opcode & 15) ^ i->again;
    int64_t target = i->again ? i->page_offset + i->insn.length : branch_target(i);

    if (!(t->mode & MODE_SINGLE) && in_page(target) && links_left(t)) {
        if (is_backward(i)) {
            uint8_t *not_taken = emit_short(e, 0x70 | (cc ^ 1));
            emit_exit_to(t, target, true);
            emit_short_here(e, not_taken);
        } else {
            emit8(e, 0x0f);
            emit8(e, 0x80 | cc);
            emit32(e, 0);
            add_link(t, e, (unsigned)target, 0);
        }
        return;
    }
    if (can_be_far(t, target)) {
        emit_jcc(e, cc, cold_far(t, target, is_backward(i)));
        return;
    }
    emit_jcc(e, cc, cold_leave(t, target));
}

/* LOOP, LOOPE, LOOPNE, JRCXZ: guest rcx counts. */
static void emit_loop(struct translation *t, struct tinsn *i)
{
    struct emitter *e = &t->jit->hot;
    unsigned counter = host_of_guest[REG_RCX];
    bool wide = i->insn.address_size == 8;
    unsigned handler = i->insn.row->handler;
    uint8_t *condition = NULL;

    if (handler != HANDLER_jcxz) {
        if (wide)
            emit_lea(e, counter, host_base(counter, -1));
        else
            emit_lea32(e, counter, host_base(counter, -1));
    }
    if (wide)
        emit_mov_rr(e, HOST_RCX, counter);
    else
        emit_mov32_rr(e, HOST_RCX, counter);
    uint8_t *zero = emit_short(e, OPCODE_JRCXZ);
    if (handler == HANDLER_jcxz) {
        uint8_t *not_zero = emit_short(e, OPCODE_JMP8);
        emit_short_here(e, zero);
        emit_exit_to(t, branch_target(i), is_backward(i));
        emit_short_here(e, not_zero);
        return;
    }
    if (handler != HANDLER_loop)
        condition = emit_short(e, handler == HANDLER_loope ? 0x75 : 0x74);
    emit_exit_to(t, branch_target(i), is_backward(i));
    emit_short_here(e, zero);
    if (condition)
        emit_short_here(e, condition);
}

/* ---- Calls and returns ---- */

static void emit_origin(struct translation *t)
{
    emit_mov_imm32(&t->jit->hot, A0, t->block_offset | t->current);
}

/* Pushes the guest's return address; leaves it in T1. */
static void push_return_address(struct translation *t, struct tinsn *i)
{
    struct emitter *e = &t->jit->hot;
    int32_t size = t->code64 ? 8 : 4, offset = (int32_t)(i->page_offset + i->insn.length);
    struct host_operand m = emit_stack_access(t, i, -size, (unsigned)size, true, true);
    unsigned rsp = host_of_guest[REG_RSP];

    if (i->restore_flags) /* while rsp is what it was: it may be an operand */
        emit_flags_again(t, i->flags_source);
    emit_load(e, T1, host_at(&t->jit->vpage));
    if (t->code64) {
        emit_lea(e, T1, host_base(T1, offset));
        emit_store(e, m, T1);
        emit_lea(e, rsp, host_base(rsp, -8));
    } else {
        emit_lea32(e, T1, host_base(T1, offset));
        emit_store32(e, m, T1);
        emit_lea32(e, rsp, host_base(rsp, -4));
    }
}

/* Where the callee's RET arrives with the guest's address in T0. */
static void emit_continuation(struct translation *t, const struct tinsn *i)
{
    struct jit *jit = t->jit;
    struct emitter *e = &jit->hot;

    t->kind_set = 0;
    t->continuations[t->call_count++] = (uint32_t)(e->p - jit->code.write);
    emit8(e, 0x59); /* pop rcx: ~expected */
    emit_lea(e, T1, host_base_index(T0, T1, 1));
    uint8_t *expected = emit_short(e, OPCODE_JRCXZ);
    emit_jmp(e, jit->thunk_lookup);
    emit_short_here(e, expected);
    emit_lea(e, T1, host_base(T0, -(int32_t)(i->page_offset + i->insn.length)));
    emit_store(e, host_at(&jit->vpage), T1);
}

static void push_expected(struct emitter *e)
{
    emit_bytes(e, "\x48\xf7\xd1\x51", 4); /* not rcx; push rcx */
}

static void emit_call_direct(struct translation *t, struct tinsn *i)
{
    struct jit *jit = t->jit;
    struct emitter *e = &jit->hot, *cold = &jit->cold;
    int64_t target = branch_target(i);

    push_return_address(t, i);
    if (t->mode & MODE_SINGLE) {
        emit_jmp(e, cold_leave(t, target));
        return;
    }
    emit_flag_kind(t, i->exit_source, i->exit_registers);
    push_expected(e);
    if (in_page(target) && links_left(t) && !is_backward(i)) {
        emit8(e, 0xe8);
        emit32(e, 0);
        add_link(t, e, (unsigned)target, 0);
    } else if (in_page(target) && links_left(t)) {
        const uint8_t *poll = emit_stub_poll(t, target, 0);
        emit_call(e, emit_here(cold));
        emit_load32(cold, T1, host_near(&jit->cpu->quiet));
        uint8_t *attention = emit_short(cold, OPCODE_JRCXZ);
        emit8(cold, 0xe9);
        emit32(cold, 0);
        add_link(t, cold, (unsigned)target, 0);
        emit_short_here(cold, attention);
        emit_jmp(cold, poll);
    } else if (!in_page(target) && can_be_far(t, target)) {
        const uint8_t *far = cold_far(t, target, is_backward(i));
        emit_call(e, far);
    } else {
        emit_call(e, cold_leave(t, target));
    }
    emit_continuation(t, i);
}

/* The target of an indirect jump or call into T0. */
static void load_target(struct translation *t, struct tinsn *i)
{
    struct emitter *e = &t->jit->hot;

    if (i->has_memory) {
        struct host_operand m = emit_memory(t, i, false);
        if (t->code64)
            emit_load(e, T0, m);
        else
            emit_load32(e, T0, m);
        return;
    }
    unsigned guest = i->insn.operands[0].reg;
    if (!is_pinned(guest))
        emit_load(e, T0, guest_cell(t, guest));
    else if (t->code64)
        emit_mov_rr(e, T0, host_of_guest[guest]);
    if (!t->code64)
        emit_mov32_rr(e, T0, is_pinned(guest) ? host_of_guest[guest] : T0);
}

/* T0: target. */
static void emit_leave_indirect(struct translation *t, bool call)
{
    struct jit *jit = t->jit;
    struct emitter *e = &jit->hot;

    if (t->mode & MODE_SINGLE) {
        const uint8_t *stub = emit_stub(t, STUB_DONE, jit->thunk_slow);
        emit_origin(t);
        emit_jmp(e, stub);
        return;
    }
    if (!jit_can_probe(jit)) {
        emit_origin(t);
        if (call)
            emit_call(e, jit->thunk_lookup);
        else
            emit_jmp(e, jit->thunk_lookup);
        return;
    }
    emit_store_imm(e, host_at(&jit->origin), t->block_offset | t->current);
    struct probe probe = jit_emit_probe(jit, e, t->code64);
    emit_rm(e, false, 0xff, call ? 2 : 4, jit_probe_target(jit));
    if (!call) {
        emit_patch_rel32(probe.missed, e->delta, jit->thunk_missed);
        emit_patch_rel32(probe.attention, e->delta, jit->thunk_poll);
        return;
    }
    /* Out of line, but called as well: what returns goes on behind the call. */
    struct emitter *cold = &jit->cold;
    emit_patch_rel32(probe.missed, e->delta, emit_here(cold));
    emit_call(cold, jit->thunk_missed);
    emit_jmp(cold, emit_here(e));
    emit_patch_rel32(probe.attention, e->delta, emit_here(cold));
    emit_call(cold, jit->thunk_poll);
    emit_jmp(cold, emit_here(e));
}

static void emit_call_indirect(struct translation *t, struct tinsn *i)
{
    struct jit *jit = t->jit;
    struct emitter *e = &jit->hot;

    load_target(t, i);
    emit_store(e, host_at(&jit->tmp), T0);
    push_return_address(t, i);
    emit_load(e, T0, host_at(&jit->tmp));
    if (!(t->mode & MODE_SINGLE))
        push_expected(e);
    emit_leave_indirect(t, true);
    if (!(t->mode & MODE_SINGLE))
        emit_continuation(t, i);
}

static void emit_ret(struct translation *t, struct tinsn *i)
{
    struct jit *jit = t->jit;
    struct emitter *e = &jit->hot;
    unsigned rsp = host_of_guest[REG_RSP], size = t->code64 ? 8 : 4;
    int32_t released = (int32_t)size + (i->insn.row->handler == HANDLER_ret_imm ? (int32_t)(uint16_t)i->insn.imm : 0);
    struct host_operand m = emit_stack_access(t, i, 0, size, false, false);

    if (i->restore_flags)
        emit_flags_again(t, i->flags_source);
    if (t->code64) {
        emit_load(e, T0, m);
        emit_lea(e, rsp, host_base(rsp, released));
    } else {
        emit_load32(e, T0, m);
        emit_lea32(e, rsp, host_base(rsp, released));
    }
    if (t->mode & MODE_SINGLE) {
        emit_leave_indirect(t, false);
        return;
    }
    emit_origin(t);
    emit8(e, 0xc3);
}

void emit_control(struct translation *t, struct tinsn *i)
{
    switch (i->kind) {
    case KIND_CALL:
        emit_call_direct(t, i);
        return;
    case KIND_CALL_INDIRECT:
        emit_call_indirect(t, i);
        return;
    case KIND_RET:
        emit_ret(t, i);
        return;
    case KIND_JMP_INDIRECT:
        load_target(t, i);
        if (i->restore_flags)
            emit_flags_again(t, i->flags_source);
        emit_leave_indirect(t, false);
        return;
    default:
        break;
    }
    if (i->restore_flags)
        emit_flags_again(t, i->flags_source);
    emit_flag_kind(t, i->exit_source, i->exit_registers);
    if (i->kind == KIND_JCC)
        emit_conditional(t, i);
    else if (i->kind == KIND_LOOP)
        emit_loop(t, i);
    else if (!i->again)
        emit_exit_to(t, branch_target(i), is_backward(i));
}

/* ---- Stack ---- */

static void move_rsp(struct translation *t, int32_t by)
{
    unsigned rsp = host_of_guest[REG_RSP];

    if (t->code64)
        emit_lea(&t->jit->hot, rsp, host_base(rsp, by));
    else
        emit_lea32(&t->jit->hot, rsp, host_base(rsp, by));
}

static void store_sized(struct translation *t, struct host_operand m, unsigned reg)
{
    if (t->code64)
        emit_store(&t->jit->hot, m, reg);
    else
        emit_store32(&t->jit->hot, m, reg);
}

static void emit_push(struct translation *t, struct tinsn *i)
{
    struct jit *jit = t->jit;
    struct emitter *e = &jit->hot;
    const struct operand *o = &i->insn.operands[0];
    int32_t size = t->code64 ? 8 : 4;

    if (o->kind == OPERAND_MEM) {
        struct host_operand from = emit_memory(t, i, false);
        if (t->code64)
            emit_load(e, T0, from);
        else
            emit_load32(e, T0, from);
        emit_store(e, host_at(&jit->tmp), T0);
    }
    struct host_operand m = emit_stack_access(t, i, -size, (unsigned)size, true, o->kind != OPERAND_IMM);
    if (i->restore_flags)
        emit_flags_again(t, i->flags_source);
    if (o->kind == OPERAND_IMM) {
        unsigned rex = (t->code64 ? 8u : 0u) | host_operand_rex(&m);
        if (rex)
            emit8(e, 0x40 | rex);
        emit8(e, 0xc7);
        emit_modrm_memory(e, 0, &m, 4);
        emit32(e, (uint32_t)i->insn.imm);
    } else if (o->kind == OPERAND_MEM) {
        emit_load(e, T1, host_at(&jit->tmp));
        store_sized(t, m, T1);
    } else if (o->kind == OPERAND_NONE) { /* PUSHF */
        emit_store(e, host_at(&jit->tmp), T0);
        emit_pushf_value(t);
        emit_load(e, T0, host_at(&jit->tmp));
        store_sized(t, m, T1);
    } else {
        store_sized(t, m, emit_guest_register(t, o->reg, T1));
    }
    move_rsp(t, -size);
}

static void emit_pop(struct translation *t, struct tinsn *i)
{
    struct emitter *e = &t->jit->hot;
    unsigned to = i->insn.operands[0].reg;
    int32_t size = t->code64 ? 8 : 4;
    struct host_operand m = emit_stack_access(t, i, 0, (unsigned)size, false, false);
    unsigned host = is_pinned(to) ? host_of_guest[to] : T0;

    if (i->restore_flags)
        emit_flags_again(t, i->flags_source);
    if (t->code64)
        emit_load(e, host, m);
    else
        emit_load32(e, host, m);
    if (!is_pinned(to))
        emit_store(e, guest_cell(t, to), host);
    if (to != REG_RSP)
        move_rsp(t, size);
}

static void emit_leave(struct translation *t, struct tinsn *i)
{
    struct emitter *e = &t->jit->hot;
    unsigned rsp = host_of_guest[REG_RSP], rbp = host_of_guest[REG_RBP];
    int32_t size = t->code64 ? 8 : 4;
    struct host_operand m = emit_stack_access(t, i, 0, (unsigned)size, false, false);

    if (i->restore_flags)
        emit_flags_again(t, i->flags_source);
    if (t->code64) {
        emit_load(e, T0, m);
        emit_lea(e, rsp, host_base(rbp, size));
    } else {
        emit_load32(e, T0, m);
        emit_lea32(e, rsp, host_base(rbp, size));
    }
    emit_mov_rr(e, rbp, T0);
}

void emit_stack(struct translation *t, struct tinsn *i)
{
    if (i->kind == KIND_PUSH)
        emit_push(t, i);
    else if (i->kind == KIND_POP)
        emit_pop(t, i);
    else
        emit_leave(t, i);
}

/* ---- Handlers ---- */

void emit_helper(struct translation *t, struct tinsn *i)
{
    struct jit *jit = t->jit;

    if (i->restore_flags)
        emit_flags_again(t, i->flags_source);
    t->kind_set = 0; /* C may go elsewhere meanwhile */
    const uint8_t *thunk = system_thunk(t, i), *string = jit_string_thunk(jit, &i->insn);
    const uint8_t *stub = emit_stub(t, STUB_HELPER, string ? string : jit->thunk_slow);
    if (thunk) {
        emit_load(&jit->hot, A0, host_at(&jit->vpage));
        emit_lea(&jit->hot, A0, host_base(A0, i->page_offset + i->insn.length));
        emit_lea(&jit->hot, T0, host_at(stub)); /* where it goes on if it is not as usual */
        emit_jmp(&jit->hot, thunk);
    } else {
        emit_jmp(&jit->hot, stub);
    }
    if (string)
        emit_jmp(&jit->cold, emit_here(&jit->hot));
}
