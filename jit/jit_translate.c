/* Drives the translation of a block: decode, analyse, emit; then fills in its record.
 *
 * Hot code is one run of instructions; everything that is not usual (misses, links, exits) is cold code, which grows from
 * the other end of the region. vCPU thread only. */
#include "jit/jit_sabotage.h"
#include "jit/jit_translate.h"

/* -d jitstats: each instruction is counted where it begins; C takes it off if it begins again. */
static void emit_count(struct translation *t)
{
    struct emitter *e = &t->jit->hot;
    const uint8_t *start = e->p;

    if (!t->jit->has_stats)
        return;
    emit_add_to(e, &t->jit->executed, 1);
    forget_held(t);
    t->counting_bytes += (unsigned)(e->p - start);
}

/* -d exec: C prints a line. */
static void emit_entry_log(struct translation *t)
{
    struct jit *jit = t->jit;

    if (likely(!jit->logs_entries) || t->mode & MODE_SINGLE)
        return;
    t->current = 0;
    emit_jmp(&jit->hot, emit_stub(t, STUB_ENTERED, jit->thunk_slow));
    emit_jmp(&jit->cold, emit_here(&jit->hot));
}

/* For the lockstep engine: leaves if the budget is spent. */
static void emit_budget(struct translation *t)
{
    struct jit *jit = t->jit;
    struct emitter *e = &jit->hot;

    if (likely(!jit->slices) || t->mode & MODE_SINGLE)
        return;
    t->current = 0;
    /* It is entered behind what saves the flags, too. */
    const uint8_t *leave = emit_stub_poll(t, (int64_t)(t->gpa & ~PAGE_MASK), t->entry_window ? FLAGS_ENTRY : 0);
    emit_load(e, T1, host_at(&jit->budget));
    uint8_t *spent = emit_short(e, OPCODE_JRCXZ), *over = emit_short(e, OPCODE_JMP8);
    emit_short_here(e, spent);
    emit_jmp(e, leave);
    emit_short_here(e, over);
    emit_lea(e, T1, host_base(T1, -1));
    emit_store(e, host_at(&jit->budget), T1);
}

static void emit_save_flags(struct translation *t)
{
    struct emitter *e = &t->jit->hot;

    emit8(e, 0x9c); /* pushfq; pop [saved_flags]: clears flag_kind */
    emit_rm(e, false, 0x8f, 0, host_at(&t->jit->saved_flags));
}

static void emit_insn(struct translation *t, struct tinsn *i)
{
    if (i->save_flags)
        emit_save_flags(t);
    switch (i->kind) {
    case KIND_NATIVE:
        emit_native(t, i);
        return;
    case KIND_NOTHING:
        return;
    case KIND_LEA:
        if (i->restore_flags)
            emit_flags_again(t, i->flags_source);
        emit_lea_insn(t, i);
        return;
    case KIND_PUSH:
    case KIND_POP:
    case KIND_LEAVE:
        emit_stack(t, i);
        break;
    case KIND_SYSTEM:
        emit_system(t, i);
        break;
    case KIND_BITS:
        emit_bits(t, i);
        break;
    case KIND_HELPER:
    case KIND_HELPER_END:
        emit_helper(t, i);
        break;
    default:
        emit_control(t, i);
        break;
    }
    forget_held(t);
}

/* CMP and the branch behind it are one operation of the host if nothing lies between them: what tells the branch's target where
 * its flags come from goes before CMP. Nothing can ask in between, since the instruction touches registers only. */
static void emit_kind_early(struct translation *t)
{
    if (t->current + 1 >= t->count)
        return;
    const struct tinsn *i = &t->insns[t->current], *branch = i + 1;
    if (branch->kind == KIND_JCC && branch->exit_source == t->current + 1 && i->kind == KIND_NATIVE && !i->has_memory)
        emit_flag_kind(t, branch->exit_source, branch->exit_registers);
}

static void emit_block(struct translation *t)
{
    struct jit *jit = t->jit;
    struct emitter *e = &jit->hot;
    unsigned start = t->gpa & ~PAGE_MASK;

    t->link_count = t->call_count = 0;
    t->falling = false;
    t->hot_start = e->p;
    t->cold_start = jit->cold.p;
    t->replay_entry = NULL;
    t->replay_count = 0;
    t->kind_set = 0;
    t->counting_bytes = 0;
    emit_cold_header(t);
    if (t->entry_window) {
        emit_save_flags(t);
        t->replay_entry = e->p;
    }
    emit_entry_log(t);
    emit_budget(t);
    forget_held(t);
    for (t->current = 0; t->current < t->count; t->current++) {
        struct tinsn *i = &t->insns[t->current];
        t->marks[t->current] = (struct insn_mark){ .host = (uint16_t)(e->p - t->hot_start),
                                                   .offset = (uint8_t)(i->page_offset - start),
                                                   .flags_source = i->restore_flags ? 0 : i->flags_source };
        emit_count(t);
        emit_kind_early(t);
        emit_insn(t, i);
    }
    t->marks[t->count] =
        (struct insn_mark){ .host = (uint16_t)(e->p - t->hot_start), .offset = (uint8_t)t->guest_bytes };
    t->current = t->count - 1;
    t->falling = true;
    if (t->ends_in_branch)
        return;
    if (t->stale_at_end)
        emit_flags_again(t, t->stale_source);
    emit_flag_kind(t, t->end_source, t->end_registers);
    if (t->next_crosses)
        emit_exit_by_lookup(t, start + t->guest_bytes);
    else
        emit_exit_to(t, start + t->guest_bytes, false);
}

static void fill_links(const struct translation *t, struct jit_block *block)
{
    struct link *links = jit_links(block);

    for (unsigned n = 0; n < t->link_count; n++) {
        const struct exit_site *from = &t->links[n];
        links[n] = (struct link){ .patch = from->patch,
                                  .counter = from->counter,
                                  .page_offset = from->page_offset,
                                  .flag_registers = from->flag_registers,
                                  .far = from->compare,
                                  .no_groups = from->no_groups,
                                  .flags_elsewhere = from->flags_elsewhere };
        if (from->compare)
            links[n].compare = from->compare;
        else
            links[n].stub = from->stub;
    }
}

static void fill_replays(const struct translation *t, struct jit_block *block)
{
    struct replay *replays = jit_replays(block);

    for (unsigned n = 0; n < t->replay_count; n++) {
        const struct tinsn *i = &t->insns[t->replays[n]];
        replays[n].length = i->insn.length;
        memcpy(replays[n].bytes, i->bytes, MIN(i->insn.length, INSN_MAX_LENGTH));
    }
}

static void fill_block(struct translation *t, struct jit_block *block)
{
    struct jit *jit = t->jit;

    *block = (struct jit_block){
        .gpa = t->gpa,
        .mode = t->mode,
        .guest_bytes = (uint8_t)MAX(t->guest_bytes, 1u),
        .insn_count = (uint8_t)t->count,
        .link_count = (uint8_t)t->link_count,
        .call_count = (uint8_t)t->call_count,
        .replay_count = (uint8_t)t->replay_count,
        .valid = true,
        .loop_tried = t->unrolled,
        .hot = (uint32_t)(t->hot_start - jit->code.write),
        .hot_size = (uint16_t)(jit->hot.p - t->hot_start),
        .cold = (uint32_t)(t->cold_start - jit->code.write),
        .cold_size = (uint16_t)(jit->cold.p - t->cold_start),
        .replay_entry = t->replay_entry ? (uint16_t)(t->replay_entry - t->hot_start) : 0,
        .entry_writes = t->entry_writes,
    };
    memcpy(block->marks, t->marks, (t->count + 1) * sizeof(block->marks[0]));
    fill_links(t, block);
    memcpy(jit_continuations(block), t->continuations, t->call_count * sizeof(uint32_t));
    fill_replays(t, block);
    if (t->mode & MODE_CROSSING)
        *jit_crossing(block) = (struct crossing){ 0 };
}

const uint8_t *jit_indirect_entry(struct jit *jit, struct jit_block *block)
{
    struct emitter *e = &jit->cold;

    if (!block->indirect_entry) {
        block->indirect_entry = (uint32_t)(e->p - jit->code.write);
        emit_lea(e, T1, host_base(T0, -(int32_t)(block->gpa & ~PAGE_MASK)));
        emit_store(e, host_at(&jit->vpage), T1);
        emit_jmp(e, jit->code.execute + block->hot);
    }
    return jit->code.execute + block->indirect_entry;
}

static size_t record_size(const struct translation *t)
{
    size_t size = sizeof(struct jit_block) + (t->count + 1) * sizeof(struct insn_mark) + 4 +
                  t->link_count * sizeof(struct link) + t->call_count * sizeof(uint32_t) +
                  t->replay_count * sizeof(struct replay);

    return size + (t->mode & MODE_CROSSING ? sizeof(struct crossing) + 8 : 0);
}

static void begin(struct translation *t, gpa_t gpa, const uint8_t *host, size_t available, jit_mode_t mode)
{
    t->mode = mode;
    t->code64 = mode & MODE_CODE64;
    t->gpa = gpa;
    t->host = host;
    t->available = available;
}

static void count_block(struct translation *t, const struct jit_block *block, uint64_t start)
{
    struct jit *jit = t->jit;

    jit->stats.blocks++;
    jit->stats.guest_insns += t->count;
    for (unsigned n = 0; n < t->count; n++)
        jit->stats.guest_bytes += t->insns[n].insn.length;
    jit->stats.hot_bytes += block->hot_size - t->counting_bytes;
    jit->stats.cold_bytes += block->cold_size;
    if (unlikely(jit->op_stats.counts != NULL))
        for (unsigned n = 0; n < t->count; n++)
            if (t->insns[n].insn.row)
                jit->op_stats.counts[t->insns[n].insn.row - insn_rows].translated++;
    jit->stats.translate_cycles += __builtin_ia32_rdtsc() - start;
}

/* The decoded instructions become a block. */
static struct jit_block *finish_block(struct translation *t)
{
    struct jit *jit = t->jit;

    translation_analyse(t);
    if (unlikely(jit->sabotage != NULL))
        jit_sabotage(jit->sabotage, t);
    t->block_offset = (uint32_t)jit->arena_used;
    emit_block(t);
    if (t->mode & MODE_CROSSING) /* sets no flag_kind: the first is its bytes */
        t->replays[t->replay_count++] = 0;
    struct jit_block *block = jit_arena_take(jit, record_size(t));
    fill_block(t, block);
    return block;
}

struct jit_block *jit_translate(struct jit *jit, gpa_t gpa, const uint8_t *host, size_t available, jit_mode_t mode,
                                unsigned max_insns)
{
    struct translation *t = jit->translation;
    uint64_t start = __builtin_ia32_rdtsc();

    begin(t, gpa, host, available, mode);
    if (!translation_decode(t, MIN(max_insns, BLOCK_MAX_INSNS)))
        return NULL;
    struct jit_block *block = finish_block(t);
    count_block(t, block, start);
    return block;
}

struct jit_block *jit_translate_loop(struct jit *jit, gpa_t gpa, const uint8_t *host, jit_mode_t mode)
{
    struct translation *t = jit->translation;
    uint64_t start = __builtin_ia32_rdtsc();

    begin(t, gpa, host, PAGE_SIZE - (gpa & ~PAGE_MASK), mode);
    if (!translation_decode_loop(t))
        return NULL;
    struct jit_block *block = finish_block(t);
    count_block(t, block, start);
    jit->stats.loops++;
    return block;
}
