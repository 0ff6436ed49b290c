/* System instructions without a call of C: interrupts on and off, SWAPGS, FS and GS bases, the time-stamp counter, PUSHF. None of them
 * touches the host's flags.
 *
 * RFLAGS.IF lives in jit->interrupts while translated code runs. STI only sets it: interrupts are looked at behind the
 * instruction that follows, with which the block ends. SDM Vol. 2. */
#include "jit/jit_translate.h"

bool system_is_inline(const struct translation *t, const struct tinsn *i)
{
    bool kernel = !(t->mode >> MODE_CPL_SHIFT & 3);

    switch (i->insn.row->handler) {
    case HANDLER_cli:
    case HANDLER_swapgs:
        return kernel;
    case HANDLER_sti:
        return kernel && !(t->mode & MODE_SINGLE);
    case HANDLER_rdtsc:
    case HANDLER_rdtscp:
        return (t->mode & MODE_TSC) && t->jit->has_bmi2;
    case HANDLER_rdfsbase:
    case HANDLER_rdgsbase:
        return t->mode & MODE_FSGSBASE;
    case HANDLER_mov_from_seg:
        return !i->has_memory && i->insn.operands[0].kind == OPERAND_GPR && i->insn.operands[0].size >= 4;
    default:
        return false;
    }
}

const uint8_t *system_thunk(const struct translation *t, const struct tinsn *i)
{
    unsigned cpl = t->mode >> MODE_CPL_SHIFT & 3, privilege = t->mode >> MODE_PRIVILEGE_SHIFT & 3;

    if (!t->code64 || t->mode & MODE_SINGLE || !t->jit->has_bmi2 || !i->insn.row)
        return NULL;
    if (i->insn.row->handler == HANDLER_syscall && cpl == 3)
        return t->jit->thunk_syscall;
    if (i->insn.row->handler == HANDLER_sysret && cpl == 0 && privilege == MMU_SUPERVISOR && i->insn.operand_size == 8)
        return t->jit->thunk_sysret;
    return NULL;
}

static void emit_swapgs(struct translation *t)
{
    struct emitter *e = &t->jit->hot;
    struct cpu *cpu = t->jit->cpu;

    emit_load(e, T0, host_at(&cpu->segs[SEG_GS].base));
    emit_load(e, T1, host_at(&cpu->msrs.kernel_gs_base));
    emit_store(e, host_at(&cpu->segs[SEG_GS].base), T1);
    emit_store(e, host_at(&cpu->msrs.kernel_gs_base), T0);
    emit_store8_imm(e, host_at(&cpu->segs[SEG_GS].flat), 0);
}

static void emit_rorx32(struct emitter *e, unsigned to, unsigned from) /* both below 8 */
{
    emit8(e, 0xc4);
    emit8(e, 0xe3);
    emit8(e, 0xfb); /* W = 1, F2 */
    emit8(e, 0xf0);
    emit8(e, 0xc0 | to << 3 | from);
    emit8(e, 32);
}

static void emit_tsc(struct translation *t, bool with_aux)
{
    struct emitter *e = &t->jit->hot;

    if (with_aux)
        emit_bytes(e, "\x0f\x01\xf9", 3); /* rdtscp: waits for what is before; its rcx is scratch here */
    else
        emit_bytes(e, "\x0f\x31", 2);
    emit_rorx32(e, HOST_RDX, HOST_RDX);
    emit_lea(e, HOST_RAX, host_base_index(HOST_RAX, HOST_RDX, 0));
    emit_load(e, T0, host_at(&t->jit->tsc_offset));
    emit_lea(e, HOST_RAX, host_base_index(HOST_RAX, T0, 0));
    emit_rorx32(e, HOST_RDX, HOST_RAX);
    emit_mov32_rr(e, HOST_RDX, HOST_RDX);
    emit_mov32_rr(e, HOST_RAX, HOST_RAX);
    if (with_aux)
        emit_load32(e, host_of_guest[REG_RCX], host_at(&t->jit->cpu->msrs.tsc_aux));
}

static void emit_read_base(struct translation *t, const struct tinsn *i, unsigned segment)
{
    struct emitter *e = &t->jit->hot;
    unsigned guest = i->insn.operands[0].reg, host = is_pinned(guest) ? host_of_guest[guest] : T0;
    struct host_operand base = host_at(&t->jit->cpu->segs[segment].base);

    if (i->insn.operands[0].size == 8)
        emit_load(e, host, base);
    else
        emit_load32(e, host, base);
    if (!is_pinned(guest))
        emit_store(e, guest_cell(t, guest), host);
}

static void emit_read_selector(struct translation *t, const struct tinsn *i)
{
    struct emitter *e = &t->jit->hot;
    unsigned guest = i->insn.operands[0].reg, host = is_pinned(guest) ? host_of_guest[guest] : T0;
    struct host_operand selector = host_at(&t->jit->cpu->segs[i->insn.operands[1].reg].selector);

    emit8(e, host & 8 ? 0x44 : 0x40); /* movzx r32, word [selector] */
    emit_bytes(e, "\x0f\xb7", 2);
    emit_modrm_memory(e, host, &selector, 0);
    if (!is_pinned(guest))
        emit_store(e, guest_cell(t, guest), host);
}

void emit_system(struct translation *t, struct tinsn *i)
{
    struct emitter *e = &t->jit->hot;

    if (i->restore_flags)
        emit_flags_again(t, i->flags_source);
    switch (i->insn.row->handler) {
    case HANDLER_cli:
        emit_store_imm(e, host_at(&t->jit->interrupts), 0);
        break;
    case HANDLER_sti:
        emit_store_imm(e, host_at(&t->jit->interrupts), FLAG_IF);
        break;
    case HANDLER_swapgs:
        emit_swapgs(t);
        break;
    case HANDLER_rdtsc:
        emit_tsc(t, false);
        break;
    case HANDLER_rdtscp:
        emit_tsc(t, true);
        break;
    case HANDLER_rdfsbase:
        emit_read_base(t, i, SEG_FS);
        break;
    case HANDLER_mov_from_seg:
        emit_read_selector(t, i);
        break;
    default:
        emit_read_base(t, i, SEG_GS);
        break;
    }
}

void emit_interrupt_check(struct translation *t, unsigned page_offset)
{
    struct emitter *e = &t->jit->hot;
    const uint8_t *poll = emit_stub_poll(t, page_offset, 0);

    emit_load32(e, T1, host_at(&t->jit->cpu->events));
    uint8_t *none = emit_short(e, OPCODE_JRCXZ);
    emit_jmp(e, poll);
    emit_short_here(e, none);
}

void emit_pushf_value(struct translation *t)
{
    struct jit *jit = t->jit;
    struct emitter *e = &jit->hot;

    emit_bytes(e, "\x9c\x59", 2); /* pushfq; pop rcx */
    emit_pext(e, T1, T1, &jit->arithmetic_mask);
    emit_vex_rm(e, 2, 3, true, 0xf5, T1, T1, host_at(&jit->arithmetic_mask)); /* pdep: the arithmetic flags alone */
    emit_load(e, T0, host_at(&jit->flags_base));
    emit_lea(e, T1, host_base_index(T1, T0, 0));
    emit_load(e, T0, host_at(&jit->interrupts));
    emit_lea(e, T1, host_base_index(T1, T0, 0));
}
