/* System instructions without a call of C: interrupts on and off, SWAPGS, FS and GS bases, selectors, control registers, the time-stamp
 * counter, protection keys, DF, PUSHF. None of them touches the host's flags. What is not as usual (a fault, an event that is
 * due) is left to the handler.
 *
 * RFLAGS.IF lives in jit->interrupts while translated code runs. STI only sets it if no event waits; one that comes later is noticed
 * where any is, behind the instruction that follows at the earliest: STI is never a block's last instruction. With an
 * event waiting the handler says when it is due. SDM Vol. 2. */
#include "jit/jit_translate.h"

/* STAC where AC is set, CLAC where it is not: nothing. Otherwise data accesses are those of another mode: system_thunk. */
static bool keeps_ac(const struct translation *t, bool set)
{
    return (t->mode >> MODE_PRIVILEGE_SHIFT & 3) == (set ? MMU_SUPERVISOR_AC : MMU_SUPERVISOR);
}

static bool is_simple_control_register(unsigned reg) /* CR8 is the APIC's */
{
    return reg == 0 || (reg >= 2 && reg <= 4);
}

bool system_is_inline(const struct translation *t, const struct tinsn *i)
{
    bool kernel = !(t->mode >> MODE_CPL_SHIFT & 3);

    switch (i->insn.row->handler) {
    case HANDLER_cli:
    case HANDLER_swapgs:
        return kernel;
    case HANDLER_sti:
        return kernel && !(t->mode & MODE_SINGLE);
    case HANDLER_stac:
    case HANDLER_clac:
        return kernel && keeps_ac(t, i->insn.row->handler == HANDLER_stac);
    case HANDLER_serialize:
        return !(t->mode & MODE_SINGLE);
    case HANDLER_cld:
    case HANDLER_std:
    case HANDLER_rdpkru:
    case HANDLER_wrpkru:
        return t->jit->has_bmi2;
    case HANDLER_rdtsc:
    case HANDLER_rdtscp:
        return (t->mode & MODE_TSC) && t->jit->has_bmi2;
    case HANDLER_rdfsbase:
    case HANDLER_rdgsbase:
        return t->mode & MODE_FSGSBASE;
    case HANDLER_wrfsbase:
    case HANDLER_wrgsbase:
        return (t->mode & MODE_FSGSBASE) && t->jit->has_bmi2;
    case HANDLER_mov_from_seg:
        return i->insn.operands[1].reg < SEG_COUNT;
    case HANDLER_mov_from_cr:
        return kernel && is_simple_control_register(i->insn.operands[1].reg);
    default:
        return false;
    }
}

/* Some may end in C after all, which wants the flags in their place. */
bool system_may_leave(const struct tinsn *i)
{
    switch (i->insn.row->handler) {
    case HANDLER_sti:
    case HANDLER_serialize:
    case HANDLER_rdpkru:
    case HANDLER_wrpkru:
    case HANDLER_wrfsbase:
    case HANDLER_wrgsbase:
        return true;
    default:
        return false;
    }
}

const uint8_t *system_thunk(const struct translation *t, const struct tinsn *i)
{
    unsigned cpl = t->mode >> MODE_CPL_SHIFT & 3, privilege = t->mode >> MODE_PRIVILEGE_SHIFT & 3;

    if (!t->code64 || t->mode & MODE_SINGLE || !t->jit->has_bmi2 || !i->insn.row)
        return NULL;
    if (!cpu_has(t->jit->cpu, i->insn.row->feature))
        return NULL;
    if (i->insn.row->handler == HANDLER_stac && cpl == 0)
        return t->jit->thunk_stac;
    if (i->insn.row->handler == HANDLER_clac && cpl == 0)
        return t->jit->thunk_clac;
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

/* The host register that a result goes to; store_result() puts it into the cell of one that is not pinned. */
static unsigned result_register(unsigned guest)
{
    return is_pinned(guest) ? host_of_guest[guest] : T0;
}

static void store_result(struct translation *t, unsigned guest)
{
    if (!is_pinned(guest))
        emit_store(&t->jit->hot, guest_cell(t, guest), T0);
}

static void emit_read(struct translation *t, const struct tinsn *i, struct host_operand from)
{
    struct emitter *e = &t->jit->hot;
    unsigned guest = i->insn.operands[0].reg;

    if (i->insn.operands[0].size == 8)
        emit_load(e, result_register(guest), from);
    else
        emit_load32(e, result_register(guest), from);
    store_result(t, guest);
}

static void emit_read_control(struct translation *t, const struct tinsn *i)
{
    struct cpu *cpu = t->jit->cpu;
    const uint64_t *const registers[] = { &cpu->cr0, NULL, &cpu->cr2, &cpu->cr3, &cpu->cr4 };

    emit_read(t, i, host_at(registers[i->insn.operands[1].reg]));
}

/* Where the handler executes the current instruction; goes on behind it. */
static const uint8_t *cold_handler(struct translation *t)
{
    t->kind_set = 0;
    return emit_stub(t, STUB_HELPER, t->jit->thunk_slow);
}

/* ---- Selectors ---- */

static void emit_load_selector(struct translation *t, const struct tinsn *i, unsigned host)
{
    struct emitter *e = &t->jit->hot;
    struct host_operand selector = host_at(&t->jit->cpu->segs[i->insn.operands[1].reg].selector);

    emit8(e, host & 8 ? 0x44 : 0x40); /* movzx r32, word [selector] */
    emit_bytes(e, "\x0f\xb7", 2);
    emit_modrm_memory(e, host, &selector, 0);
}

static void emit_read_selector(struct translation *t, struct tinsn *i)
{
    struct emitter *e = &t->jit->hot;
    unsigned guest = i->insn.operands[0].reg, host = result_register(guest);

    if (i->has_memory) {
        struct host_operand to = emit_memory(t, i, true);
        if (i->restore_flags)
            emit_flags_again(t, i->flags_source);
        emit_load_selector(t, i, T1);
        emit8(e, 0x66); /* mov [to], cx */
        emit_rm(e, false, 0x89, T1, to);
        return;
    }
    if (i->insn.operands[0].size >= 4) {
        emit_load_selector(t, i, host);
    } else {
        emit_load_selector(t, i, T1);
        if (!is_pinned(guest))
            emit_load(e, host, guest_cell(t, guest));
        emit8(e, 0x66); /* mov r16, cx */
        emit_rr(e, false, 0x8b, host, T1);
    }
    store_result(t, guest);
}

/* ---- FS and GS bases, written ---- */

/* T1 has to be 0: else the handler. */
static void require_zero(struct emitter *e, const uint8_t *handler)
{
    uint8_t *zero = emit_short(e, OPCODE_JRCXZ);
    emit_jmp(e, handler);
    emit_short_here(e, zero);
}

static void emit_write_base(struct translation *t, const struct tinsn *i, unsigned segment)
{
    struct jit *jit = t->jit;
    struct emitter *e = &jit->hot;
    struct segment_register *s = &jit->cpu->segs[segment];
    unsigned value = emit_guest_register(t, i->insn.operands[0].reg, T0);

    if (i->insn.operands[0].size == 8) {
        emit_canonical_check(e, value, &jit->half_space);
        require_zero(e, cold_handler(t));
    } else {
        emit_mov32_rr(e, T0, value);
        value = T0;
    }
    emit_store(e, host_at(&s->base), value);
    emit_store8_imm(e, host_at(&s->flat), 0);
}

/* ---- Flags ---- */

/* CLD, STD. The host's DF is always clear; the guest's is in cpu->rflags and in the copy that PUSHF uses. */
static void emit_direction(struct translation *t, bool set)
{
    struct jit *jit = t->jit;
    struct emitter *e = &jit->hot, *change = set ? e : &jit->cold;

    emit_load(e, T1, host_at(&jit->flags_base));
    emit_pext(e, T1, T1, &jit->direction_mask);
    uint8_t *clear = emit_short(e, OPCODE_JRCXZ);
    if (!set) /* seldom */
        emit_jmp(e, emit_here(change));
    uint8_t *over = set ? emit_short(e, OPCODE_JMP8) : NULL;
    if (set)
        emit_short_here(e, clear);
    emit_add_to(change, &jit->flags_base, set ? (int32_t)FLAG_DF : -(int32_t)FLAG_DF);
    emit_add_to(change, &jit->cpu->rflags, set ? (int32_t)FLAG_DF : -(int32_t)FLAG_DF);
    if (set) {
        emit_short_here(e, over);
    } else {
        emit_short_here(e, clear);
        emit_jmp(change, emit_here(e));
    }
}

static void emit_sti(struct translation *t)
{
    struct emitter *e = &t->jit->hot;

    emit_load32(e, T1, host_at(&t->jit->cpu->events));
    uint8_t *none = emit_short(e, OPCODE_JRCXZ);
    emit_jmp(e, cold_handler(t));
    emit_short_here(e, none);
    emit_store_imm(e, host_at(&t->jit->interrupts), FLAG_IF);
}

/* ---- The rest ---- */

/* RDPKRU, and WRPKRU of the value that is there already (at each return from a signal, or to another task). #UD without CR4.PKE, #GP
 * if ECX is not 0 (WRPKRU: or EDX), and other values: the handler's. */
static void emit_pkru(struct translation *t, bool write)
{
    struct jit *jit = t->jit;
    struct emitter *e = &jit->hot;
    const uint8_t *handler = cold_handler(t);

    emit_load(e, T1, host_at(&jit->cpu->cr4));
    emit_pext(e, T1, T1, &jit->pke_mask);
    emit_lea32(e, T1, host_base(T1, -1));
    require_zero(e, handler);
    emit_mov32_rr(e, T1, host_of_guest[REG_RCX]);
    require_zero(e, handler);
    if (write) {
        emit_mov32_rr(e, T1, HOST_RDX);
        require_zero(e, handler);
        emit_load32(e, T1, host_at(&jit->cpu->pkru));
        emit_bytes(e, "\xf7\xd1", 2);                        /* not ecx */
        emit_lea32(e, T1, host_base_index(T1, HOST_RAX, 1)); /* EAX - PKRU */
        require_zero(e, handler);
    } else {
        emit_load32(e, HOST_RAX, host_at(&jit->cpu->pkru));
        emit_mov_imm32(e, HOST_RDX, 0);
    }
}

/* What others have written to code is known to this CPU, or an event says that it will be: nothing else is fetched ahead. */
static void emit_serialize(struct translation *t, const struct tinsn *i)
{
    struct emitter *e = &t->jit->hot;

    t->falling = true; /* the instruction is over: the next address is not its concern */
    const uint8_t *poll = emit_stub_poll(t, (int64_t)i->page_offset + i->insn.length, 0);
    t->falling = false;
    emit_bytes(e, "\x0f\xae\xf0", 3); /* mfence: what was stored before is seen before what follows is loaded */
    emit_load32(e, T1, host_near(&t->jit->cpu->quiet));
    uint8_t *attention = emit_short(e, OPCODE_JRCXZ), *over = emit_short(e, OPCODE_JMP8);
    emit_short_here(e, attention);
    emit_jmp(e, poll);
    emit_short_here(e, over);
}

void emit_system(struct translation *t, struct tinsn *i)
{
    struct emitter *e = &t->jit->hot;
    struct cpu *cpu = t->jit->cpu;

    if (i->restore_flags && !i->has_memory)
        emit_flags_again(t, i->flags_source);
    switch (i->insn.row->handler) {
    case HANDLER_cli:
        emit_store_imm(e, host_at(&t->jit->interrupts), 0);
        break;
    case HANDLER_sti:
        emit_sti(t);
        break;
    case HANDLER_stac:
    case HANDLER_clac:
        break; /* it is so */
    case HANDLER_cld:
        emit_direction(t, false);
        break;
    case HANDLER_std:
        emit_direction(t, true);
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
        emit_read(t, i, host_at(&cpu->segs[SEG_FS].base));
        break;
    case HANDLER_rdgsbase:
        emit_read(t, i, host_at(&cpu->segs[SEG_GS].base));
        break;
    case HANDLER_wrfsbase:
        emit_write_base(t, i, SEG_FS);
        break;
    case HANDLER_wrgsbase:
        emit_write_base(t, i, SEG_GS);
        break;
    case HANDLER_mov_from_seg:
        emit_read_selector(t, i);
        break;
    case HANDLER_mov_from_cr:
        emit_read_control(t, i);
        break;
    case HANDLER_rdpkru:
        emit_pkru(t, false);
        break;
    case HANDLER_wrpkru:
        emit_pkru(t, true);
        break;
    default:
        emit_serialize(t, i);
        break;
    }
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
