/* Stubs: the calls of thunks in a block's cold code, each behind a record that tells what it is about (jit_internal.h). The cold code
 * begins with the block's offset in the metadata arena; a record says how far back that is.
 *
 * Each function returns where the stub is entered: its call, behind the record. */
#include "jit/jit_translate.h"

void emit_cold_header(struct translation *t)
{
    emit32(&t->jit->cold, t->block_offset);
}

/* The end of every record, and the call; `over`: NULL, or the jump over the record, for what lies before it. */
static const uint8_t *finish(struct translation *t, unsigned kind, const uint8_t *thunk, uint8_t *over)
{
    struct emitter *e = &t->jit->cold;
    struct stub_info info = {
        .back = (uint16_t)(e->p - t->cold_start),
        .insn = (uint8_t)t->current,
        .kind = (uint8_t)(kind | (t->falling ? STUB_FALLING : 0)),
    };

    emit_bytes(e, &info, sizeof(info));
    const uint8_t *call = emit_here(e);
    if (over)
        emit_short_here(e, over);
    emit_call(e, thunk);
    return call;
}

const uint8_t *emit_stub(struct translation *t, enum stub_kind kind, const uint8_t *thunk)
{
    return finish(t, kind, thunk, NULL);
}

const uint8_t *emit_stub_inline(struct translation *t, enum stub_kind kind, const uint8_t *thunk)
{
    return finish(t, kind, thunk, emit_short(&t->jit->cold, OPCODE_JMP8));
}

const uint8_t *emit_stub_poll(struct translation *t, int64_t page_offset, unsigned flags_source)
{
    struct {
        int32_t distance;
        uint8_t flags_source;
    } __attribute__((packed)) info = { (int32_t)page_offset, (uint8_t)flags_source };

    _Static_assert(sizeof(info) + sizeof(struct stub_info) == sizeof(struct poll_info), "they are one");
    emit_bytes(&t->jit->cold, &info, sizeof(info));
    return finish(t, STUB_POLL_AT, t->jit->thunk_slow, NULL);
}

const uint8_t *emit_stub_link(struct translation *t, unsigned flags_source)
{
    emit8(&t->jit->cold, t->link_count);
    emit8(&t->jit->cold, flags_source);
    return finish(t, STUB_LINK, t->jit->thunk_slow, NULL);
}

const uint8_t *emit_stub_far_link(struct translation *t, int64_t page_offset, unsigned counter)
{
    emit32(&t->jit->cold, (uint32_t)(int32_t)page_offset);
    emit32(&t->jit->cold, counter);
    emit8(&t->jit->cold, t->link_count);
    return finish(t, STUB_FAR_LINK, t->jit->thunk_far, NULL);
}

const uint8_t *emit_stub_access(struct translation *t, const struct stub_access *access, bool is_inline)
{
    struct emitter *e = &t->jit->cold;
    const struct tinsn *i = &t->insns[t->current];
    uint8_t *over = is_inline ? emit_short(e, OPCODE_JMP8) : NULL;

    emit32(e, access->site);
    emit16(e, PAGE_SIZE - access->span);
    emit8(e, access->group_first);
    emit8(e, i->flags_source);
    return finish(t, access->kind, access->thunk, over);
}
