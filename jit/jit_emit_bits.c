/* BT, BTS, BTR and BTC of a bit string in memory: the bit's number is a signed register, and the access lies as many operands beyond
 * the address that the instruction names. The host's instruction is given that operand's address, and a number that stays in it: the access
 * is then of the operand's size, where it was checked, and atomic with LOCK.
 *
 * ZF is kept, so all but the checks does without flags (BMI2). SDM Vol. 2A BT. */
#include "jit/jit_translate.h"

#define SHIFT_OF(size) ((size) == 8 ? 6u : (size) == 4 ? 5u : 4u)

bool bits_are_inline(const struct translation *t, const struct tinsn *i)
{
    return t->jit->has_bmi2 && (i->insn.address_size == 8 || i->insn.mem.segment < SEG_FS);
}

/* How many operands the access lies behind the named one, into T0. */
static void emit_distance(struct translation *t, const struct tinsn *i)
{
    struct emitter *e = &t->jit->hot;
    unsigned size = i->insn.operands[0].size, guest = i->insn.operands[1].reg;
    unsigned number = emit_guest_register(t, guest, T0);

    if (size == 4) {
        emit_rr(e, true, 0x63, T0, number); /* movsxd */
    } else if (size == 2) {
        emit8(e, number & 8 ? 0x4d : 0x4c); /* movsx r11, r16 */
        emit_bytes(e, "\x0f\xbf", 2);
        emit8(e, 0xc0 | (T0 & 7) << 3 | (number & 7));
    }
    if (size != 8)
        number = T0;
    emit_mov_imm32(e, T1, SHIFT_OF(size));
    emit8(e, 0xc4); /* sarx r11, number, rcx */
    emit8(e, 0x42 | (number & 8 ? 0u : 0x20u));
    emit8(e, 0x80 | (~T1 & 15) << 3 | 2);
    emit8(e, 0xf7);
    emit8(e, 0xc0 | (T0 & 7) << 3 | (number & 7));
}

/* What the named address is, but for the distance, if one register and a constant are enough. */
static bool simple_address(struct translation *t, const struct tinsn *i, struct host_operand *m)
{
    const struct insn *insn = &i->insn;
    int64_t disp = insn->mem.disp;

    if (insn->address_size != 8 || insn->mem.index < 16 || insn->mem.segment >= SEG_FS)
        return false;
    if (insn->mem.base == REG_RIP)
        disp += i->page_offset + insn->length;
    if (disp != (int32_t)disp || (insn->mem.base != REG_RIP && insn->mem.base >= 16))
        return false;
    *m = host_base(T1, (int32_t)disp);
    if (insn->mem.base == REG_RIP)
        emit_load(&t->jit->hot, T1, host_at(&t->jit->vpage));
    else
        m->base = (uint8_t)emit_guest_register(t, insn->mem.base, T1);
    return true;
}

/* The address of the access into T0. */
static void emit_bit_address(struct translation *t, const struct tinsn *i)
{
    struct jit *jit = t->jit;
    struct emitter *e = &jit->hot;
    struct host_operand m;

    emit_distance(t, i);
    if (simple_address(t, i, &m)) {
        m.index = T0;
    } else {
        emit_store(e, host_at(&jit->tmp), T0);
        emit_address(t, i);
        emit_load(e, T1, host_at(&jit->tmp));
        m = host_base_index(T0, T1, 0);
    }
    m.scale = (uint8_t)(SHIFT_OF(i->insn.operands[0].size) - 3);
    if (i->insn.address_size == 4)
        emit_lea32(e, T0, m);
    else
        emit_lea(e, T0, m);
}

void emit_bits(struct translation *t, struct tinsn *i)
{
    struct emitter *e = &t->jit->hot;
    unsigned size = i->insn.operands[0].size;

    emit_bit_address(t, i);
    struct host_operand m = emit_checked_address(t, i);
    if (i->restore_flags)
        emit_flags_again(t, i->flags_source);
    unsigned number = emit_guest_register(t, i->insn.operands[1].reg, T1);
    emit_pext(e, T1, number, &t->jit->bit_masks[SHIFT_OF(size) - 4]);
    if (i->insn.lock)
        emit8(e, 0xf0);
    if (size == 2)
        emit8(e, 0x66);
    emit8(e, 0x40 | (size == 8 ? 8u : 0u) | host_operand_rex(&m));
    emit8(e, 0x0f);
    emit8(e, i->insn.opcode);
    emit_modrm_memory(e, T1, &m, 0);
}
