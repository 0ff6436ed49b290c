/* SYSCALL and SYSRET between 64-bit user and kernel code, without C. What they do to segments, privilege, return stack and salt is
 * known beforehand (struct system_call); RFLAGS must hold nothing but IF and arithmetic flags, and the kernel must mask those
 * on entry. In all other cases the thunk goes to the stub in T0, which calls the handler: nothing has been changed then, flags included.
 *
 * STAC and CLAC, where they change something, lead from blocks of one privilege for data to those of the other: as in jit_sync_context
 * the return stack gets a barrier, or loses it, and the salt is the other's (struct access_switch).
 *
 * SDM Vol. 2 CLAC, STAC, SYSCALL, SYSRET; Vol. 3A 4.6, 5.8.8. The thunks run on the return stack; jit_system_call_prepare on the vCPU's
 * thread. */
#include <stddef.h>

#include "cpu/system_internal.h"
#include "jit/jit_internal.h"

/* From `attributes` on, with the selector and `flat` behind: eight bytes that differ between privilege levels. */
_Static_assert(offsetof(struct segment_register, selector) == offsetof(struct segment_register, attributes) + 4 &&
                   offsetof(struct segment_register, flat) == offsetof(struct segment_register, attributes) + 6,
               "system_call.kernel_code");
_Static_assert(offsetof(struct cpu, code_size) == offsetof(struct cpu, cpl) + 1 &&
                   offsetof(struct cpu, privilege) == offsetof(struct cpu, cpl) + 2 &&
                   offsetof(struct cpu, activity) == offsetof(struct cpu, cpl) + 3,
               "emit_level");
_Static_assert(sizeof(struct mode_salt) == 12, "emit_copy_salt");

#define SYSRET_KEEPS 0x3c7fd7u /* bits of R11 that SYSRET loads */

/* ---- C ---- */

static uint64_t segment_word(uint16_t selector, uint32_t attributes)
{
    return attributes | (uint64_t)selector << 32 | 1ull << 48;
}

void jit_system_call_prepare(struct jit *jit)
{
    struct cpu *cpu = jit->cpu;
    struct system_call *call = &jit->system_call;
    const uint32_t flat = SEG_ATTR_S | SEG_ATTR_P | SEG_ATTR_G, code = flat | 11 | SEG_ATTR_L,
                   data = flat | 3 | SEG_ATTR_DB, user = 3 << SEG_ATTR_DPL_SHIFT;
    uint16_t kernel = (uint16_t)(cpu->msrs.star >> 32 & 0xfffc), base = (uint16_t)(cpu->msrs.star >> 48);

    call->valid = 0;
    if (cpu->cpl || cpu->code_size != CODE64 || cpu->privilege != MMU_SUPERVISOR || jit->current.number == 0 ||
        (cpu->msrs.fmask & (FLAGS_ARITH | FLAG_IF)) != (FLAGS_ARITH | FLAG_IF) || !jit->has_bmi2)
        return;
    call->lstar = cpu->msrs.lstar;
    call->sentinel = (uint64_t)(uintptr_t)jit->thunk_return_empty;
    call->kernel_code = segment_word(kernel, code);
    call->kernel_stack = segment_word((uint16_t)(kernel + 8), data);
    call->user_code = segment_word((uint16_t)((base + 16) | 3), code | user);
    call->user_stack = segment_word((uint16_t)((base + 8) | 3), data | user);
    call->salt = jit->salt;
    call->negative_salt = jit->negative_salt;
    call->negative_number = jit->negative_number;
    call->kernel = jit->current;
    call->valid = 1;
}

/* ---- Pieces ---- */

#define FALLBACKS_MAX 8

struct fallbacks {
    uint8_t *places[FALLBACKS_MAX]; /* rel32 of jumps to the fallback */
    unsigned count;
};

static void fall_back_unless_zero(struct emitter *e, struct fallbacks *f) /* rcx */
{
    uint8_t *zero = emit_short(e, OPCODE_JRCXZ);

    emit8(e, 0xe9);
    emit32(e, 0);
    f->places[f->count++] = e->p - 4;
    emit_short_here(e, zero);
}

static void fall_back_if_zero(struct emitter *e, struct fallbacks *f)
{
    uint8_t *zero = emit_short(e, OPCODE_JRCXZ), *over = emit_short(e, OPCODE_JMP8);

    emit_short_here(e, zero);
    emit8(e, 0xe9);
    emit32(e, 0);
    f->places[f->count++] = e->p - 4;
    emit_short_here(e, over);
}

static void emit_fallback(struct emitter *e, const struct fallbacks *f)
{
    for (unsigned n = 0; n < f->count; n++)
        emit_patch_rel32(f->places[n], e->delta, emit_here(e));
    emit_bytes(e, "\x41\xff\xe3", 3); /* jmp r11 */
}

static void emit_copy(struct emitter *e, const void *to, const void *from)
{
    emit_load(e, T1, host_at(from));
    emit_store(e, host_at(to), T1);
}

static void emit_copy_salt(struct emitter *e, const struct mode_salt *to, const struct mode_salt *from)
{
    emit_copy(e, to, from);
    emit_load32(e, T1, host_at(&from->mode));
    emit_store32(e, host_at(&to->mode), T1);
}

/* cpl, code_size, privilege, activity */
static void emit_level(struct emitter *e, struct cpu *cpu, unsigned cpl, unsigned privilege)
{
    emit_store32_imm(e, host_at(&cpu->cpl), cpl | CODE64 << 8 | privilege << 16 | CPU_RUNNING << 24);
}

static void emit_plain_flags_check(struct jit *jit, struct emitter *e, struct fallbacks *f)
{
    emit_load(e, T1, host_at(&jit->system_call.valid));
    fall_back_if_zero(e, f);
    emit_load(e, T1, host_at(&jit->flags_base));
    emit_lea(e, T1, host_base(T1, -2)); /* bit 1 is always set */
    fall_back_unless_zero(e, f);
}

/* ---- SYSCALL: T0 fallback, A0 address of the next instruction ---- */

static void emit_syscall(struct jit *jit, struct emitter *e)
{
    struct cpu *cpu = jit->cpu;
    struct system_call *call = &jit->system_call;
    struct fallbacks f = { .count = 0 };

    jit->thunk_syscall = emit_here(e);
    emit_plain_flags_check(jit, e, &f);
    emit_bytes(e, "\x9c\x59", 2); /* pushfq; pop rcx */
    emit_pext(e, T1, T1, &jit->arithmetic_mask);
    emit_vex_rm(e, 2, 3, true, 0xf5, T1, T1, host_at(&jit->arithmetic_mask));
    emit_load(e, T0, host_at(&jit->interrupts));
    struct host_operand image = { .base = T0, .index = T1, .disp = 2 };
    emit_lea(e, T0, image);
    emit_store(e, host_at(&cpu->gpr[REG_R11]), T0);
    emit_mov_rr(e, host_of_guest[REG_RCX], A0);
    emit_store_imm(e, host_at(&jit->interrupts), 0);
    emit_copy(e, &cpu->segs[SEG_CS].attributes, &call->kernel_code);
    emit_copy(e, &cpu->segs[SEG_SS].attributes, &call->kernel_stack);
    emit_level(e, cpu, 0, MMU_SUPERVISOR);

    emit_copy_salt(e, &jit->user_stack.owner, &jit->current);
    emit_lea(e, T1, host_at(jit->return_stack + 16 * KIB));
    emit_rr(e, true, 0x3b, HOST_RSP, T1); /* cmp rsp, rcx */
    uint8_t *deep = emit_short(e, 0x73);  /* jae: there is room */
    emit_load(e, HOST_RSP, host_at(&jit->return_base));
    emit_short_here(e, deep);
    emit_store(e, host_at(&jit->user_stack.sp), HOST_RSP);
    emit_store_imm(e, host_at(&jit->outer_stack.sp), 0);
    emit_load(e, T1, host_at(&call->sentinel));
    emit_lea(e, HOST_RSP, host_base(HOST_RSP, -RETURN_FRAME));
    emit_store(e, host_base(HOST_RSP, 0), T1);
    emit_copy_salt(e, &jit->current, &call->kernel);
    emit_copy(e, &jit->salt, &call->salt);
    emit_copy(e, &jit->negative_salt, &call->negative_salt);
    emit_load32(e, T1, host_at(&call->negative_number));
    emit_store32(e, host_at(&jit->negative_number), T1);
    emit_load(e, T0, host_at(&call->lstar));
    emit_mov_imm32(e, T1, 1);
    emit_rr(e, false, 0x85, T1, T1); /* test ecx, ecx: clears all arithmetic flags */
    emit_jmp(e, jit->thunk_lookup_direct);
    emit_fallback(e, &f);
}

/* ---- SYSRET: T0 fallback ---- */

static void emit_sysret_flags(struct jit *jit, struct emitter *e)
{
    struct cpu *cpu = jit->cpu;

    emit_store(e, host_at(&jit->rax), HOST_RAX);
    emit_load(e, HOST_RAX, host_at(&cpu->gpr[REG_R11]));
    emit_mov_rr(e, T1, HOST_RAX);
    emit_bytes(e, "\x81\xe1", 2); /* and ecx, IF */
    emit32(e, FLAG_IF);
    emit_store(e, host_at(&jit->interrupts), T1);
    emit_bytes(e, "\x86\xe0", 2);         /* xchg al, ah: AH = bits 7:0, AL = bits 15:8 */
    emit_bytes(e, "\x24\x08\x04\x78", 4); /* and al, OF; add al, 0x78: overflows if it is set */
    emit8(e, 0x9e);                       /* sahf */
    emit_load(e, HOST_RAX, host_at(&jit->rax));
}

static void emit_sysret(struct jit *jit, struct emitter *e)
{
    struct cpu *cpu = jit->cpu;
    struct system_call *call = &jit->system_call;
    struct fallbacks f = { .count = 0 };

    jit->thunk_sysret = emit_here(e);
    emit_plain_flags_check(jit, e, &f);
    emit_load(e, T1, host_at(&jit->user_stack.sp));
    fall_back_if_zero(e, &f);
    emit_load32(e, T1, host_at(&cpu->events)); /* with IF set they would be due */
    fall_back_unless_zero(e, &f);
    emit_load(e, T1, host_at(&cpu->gpr[REG_R11]));
    emit_pext(e, T1, T1, &jit->sysret_flags_mask);
    fall_back_unless_zero(e, &f);
    emit_pext(e, T1, host_of_guest[REG_RCX], &jit->upper_half_mask);
    fall_back_unless_zero(e, &f);
    emit_load32(e, T1, host_at(&cpu->mmu.space));
    emit_bytes(e, "\x48\xf7\xd1", 3); /* not rcx */
    emit_load32(e, A0, host_at(&jit->user_stack.owner.space));
    emit_lea32(e, T1, host_base_index(A0, T1, 1));
    fall_back_unless_zero(e, &f);

    emit_copy(e, &cpu->segs[SEG_CS].attributes, &call->user_code);
    emit_copy(e, &cpu->segs[SEG_SS].attributes, &call->user_stack);
    emit_level(e, cpu, 3, MMU_USER);
    emit_load(e, HOST_RSP, host_at(&jit->user_stack.sp));
    emit_store_imm(e, host_at(&jit->user_stack.sp), 0);
    emit_store_imm(e, host_at(&jit->outer_stack.sp), 0);
    emit_copy_salt(e, &jit->current, &jit->user_stack.owner);
    emit_load32(e, A0, host_at(&jit->current.number));
    emit_bytes(e, "\x49\xc1\xe7\x30", 4); /* shl r15, 48 */
    emit_store(e, host_at(&jit->salt), A0);
    emit_bytes(e, "\x49\xf7\xdf", 3); /* neg r15 */
    emit_store(e, host_at(&jit->negative_salt), A0);
    emit_load32(e, A0, host_at(&jit->current.number));
    emit_bytes(e, "\x41\xf7\xdf", 3); /* neg r15d */
    emit_store32(e, host_at(&jit->negative_number), A0);
    emit_sysret_flags(jit, e);
    emit_mov_rr(e, T0, host_of_guest[REG_RCX]);
    emit_jmp(e, jit->thunk_lookup_direct);
    emit_fallback(e, &f);
}

/* ---- STAC, CLAC: T0 fallback, A0 address of the next instruction; the host's flags are kept ---- */

static void fall_back_unless_equal(struct emitter *e, struct fallbacks *f, const uint32_t *number,
                                   const uint32_t *negative)
{
    emit_load32(e, T1, host_at(number));
    emit_load32(e, A0, host_at(negative));
    emit_lea32(e, T1, host_base_index(T1, A0, 0));
    fall_back_unless_zero(e, f);
}

/* What was called with AC clear is not returned to with AC set: change_stack in jit_context.c. Where the push meets the guard page
 * the stack begins anew, and outer_stack is forgotten. */
static void emit_raise_barrier(struct jit *jit, struct emitter *e)
{
    emit_copy_salt(e, &jit->outer_stack.owner, &jit->current);
    emit_store(e, host_at(&jit->outer_stack.sp), HOST_RSP);
    emit_lea(e, T1, host_at(jit->thunk_return_empty));
    emit_lea(e, HOST_RSP, host_base(HOST_RSP, -RETURN_FRAME));
    emit_store(e, host_base(HOST_RSP, 0), T1);
}

static const uint8_t *emit_access_switch(struct jit *jit, struct emitter *e, bool set)
{
    const uint8_t *start = emit_here(e);
    const struct access_side *from = &jit->access_switch.sides[!set], *to = &jit->access_switch.sides[set];
    int32_t change = set ? (int32_t)FLAG_AC : -(int32_t)FLAG_AC;
    struct fallbacks f = { .count = 0 };

    emit_store(e, host_at(&jit->tmp), A0);
    fall_back_unless_equal(e, &f, &from->current.number, &jit->negative_number);
    if (!set) {
        emit_load(e, T1, host_at(&jit->outer_stack.sp));
        fall_back_if_zero(e, &f);
        fall_back_unless_equal(e, &f, &jit->outer_stack.owner.number, &to->negative_number);
    }
    emit_add_to(e, &jit->flags_base, change);
    emit_add_to(e, &jit->cpu->rflags, change);
    emit_store8_imm(e, host_at(&jit->cpu->privilege), set ? MMU_SUPERVISOR_AC : MMU_SUPERVISOR);
    if (set) {
        emit_raise_barrier(jit, e);
    } else {
        emit_load(e, HOST_RSP, host_at(&jit->outer_stack.sp));
        emit_store_imm(e, host_at(&jit->outer_stack.sp), 0);
    }
    emit_copy_salt(e, &jit->current, &to->current);
    emit_copy(e, &jit->salt, &to->salt);
    emit_copy(e, &jit->negative_salt, &to->negative_salt);
    emit_load32(e, T1, host_at(&to->negative_number));
    emit_store32(e, host_at(&jit->negative_number), T1);
    emit_load(e, T0, host_at(&jit->tmp));
    emit_jmp(e, jit->thunk_lookup_direct);
    emit_fallback(e, &f);
    return start;
}

void jit_system_thunks_create(struct jit *jit)
{
    jit->sysret_flags_mask = SYSRET_KEEPS & ~(uint64_t)(FLAGS_ARITH | FLAG_IF | 2);
    emit_syscall(jit, &jit->hot);
    emit_sysret(jit, &jit->hot);
    jit->thunk_stac = emit_access_switch(jit, &jit->hot, true);
    jit->thunk_clac = emit_access_switch(jit, &jit->hot, false);
}
