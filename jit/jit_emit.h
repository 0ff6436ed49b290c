/* Writing host instructions. Everything is 64-bit mode code of the host; operand order is Intel's. No checks for room: a
 * block's largest size is known before it is begun (jit_cache.c). SDM Vol. 2. */
#ifndef EIDOLON_JIT_JIT_EMIT_H
#define EIDOLON_JIT_JIT_EMIT_H

#include <string.h>

#include "base/types.h"

/* Host registers by encoding. */
enum {
    /* clang-format off */
    HOST_RAX, HOST_RCX, HOST_RDX, HOST_RBX, HOST_RSP, HOST_RBP, HOST_RSI, HOST_RDI,
    HOST_R8, HOST_R9, HOST_R10, HOST_R11, HOST_R12, HOST_R13, HOST_R14, HOST_R15,
    /* clang-format on */
    HOST_NONE = 0xff,
};

/* What no guest register lives in. */
#define T0 HOST_R11
#define T1 HOST_RCX /* jrcxz is the only branch that needs no flags */
#define A0 HOST_R15

struct emitter {
    uint8_t *p;      /* in the writable view */
    ptrdiff_t delta; /* executable view minus writable view */
};

/* A host memory operand: [base + index * 2^scale + disp], or `absolute` (within 2 GiB of the code, or below 2 GiB) if base is HOST_NONE. */
struct host_operand {
    uint8_t base, index, scale;
    int32_t disp;
    const void *absolute;
};

static inline struct host_operand host_base(unsigned base, int32_t disp)
{
    return (struct host_operand){ .base = (uint8_t)base, .index = HOST_NONE, .disp = disp };
}
static inline struct host_operand host_base_index(unsigned base, unsigned index, int32_t disp)
{
    return (struct host_operand){ .base = (uint8_t)base, .index = (uint8_t)index, .disp = disp };
}
static inline struct host_operand host_at(const void *absolute)
{
    return (struct host_operand){ .base = HOST_NONE, .index = HOST_NONE, .absolute = absolute };
}
/* The same relative to RIP, one byte shorter: for what is rarely written (a store is forwarded late to such a load). */
static inline struct host_operand host_near(const void *absolute)
{
    return (struct host_operand){ .base = HOST_NONE, .index = HOST_NONE, .absolute = absolute, .disp = 1 };
}

static inline const uint8_t *emit_here(const struct emitter *e) /* where the next byte will execute */
{
    return e->p + e->delta;
}
static inline void emit8(struct emitter *e, unsigned byte)
{
    *e->p++ = (uint8_t)byte;
}
static inline void emit16(struct emitter *e, unsigned value)
{
    uint16_t bytes = (uint16_t)value;
    memcpy(e->p, &bytes, 2);
    e->p += 2;
}
static inline void emit32(struct emitter *e, uint32_t value)
{
    memcpy(e->p, &value, 4);
    e->p += 4;
}
static inline void emit64(struct emitter *e, uint64_t value)
{
    memcpy(e->p, &value, 8);
    e->p += 8;
}
static inline void emit_bytes(struct emitter *e, const void *bytes, size_t size)
{
    memcpy(e->p, bytes, size);
    e->p += size;
}

/* REX.X and REX.B for a memory operand. */
static inline unsigned host_operand_rex(const struct host_operand *m)
{
    return (m->base != HOST_NONE && m->base & 8 ? 1u : 0u) | (m->index != HOST_NONE && m->index & 8 ? 2u : 0u);
}

/* ModRM, SIB and displacement. `trailing`: bytes of immediate that follow (a RIP-relative displacement counts from behind them). */
static inline void emit_modrm_memory(struct emitter *e, unsigned reg, const struct host_operand *m, unsigned trailing)
{
    unsigned reg_field = (reg & 7) << 3;

    if (m->base == HOST_NONE && m->index != HOST_NONE) { /* [index * scale + disp32] */
        emit8(e, reg_field | 4);
        emit8(e, (unsigned)m->scale << 6 | (m->index & 7u) << 3 | 5);
        emit32(e, (uint32_t)m->disp);
        return;
    }
    if (m->base == HOST_NONE && !m->disp && (uintptr_t)m->absolute < BIT(31)) { /* [disp32] */
        emit8(e, reg_field | 4);
        emit8(e, 0x25);
        emit32(e, (uint32_t)(uintptr_t)m->absolute);
        return;
    }
    if (m->base == HOST_NONE) {
        emit8(e, reg_field | 5);
        emit32(e, (uint32_t)((const uint8_t *)m->absolute - (emit_here(e) + 4 + trailing)));
        return;
    }
    bool short_disp = m->disp >= -128 && m->disp <= 127;
    unsigned mod = m->disp == 0 && (m->base & 7) != 5 ? 0 : short_disp ? 0x40 : 0x80;
    if (m->index != HOST_NONE) {
        emit8(e, mod | reg_field | 4);
        emit8(e, (unsigned)m->scale << 6 | (m->index & 7u) << 3 | (m->base & 7u));
    } else if ((m->base & 7) == 4) {
        emit8(e, mod | reg_field | 4);
        emit8(e, 0x24);
    } else {
        emit8(e, mod | reg_field | (m->base & 7u));
    }
    if (mod == 0x40)
        emit8(e, (unsigned)m->disp);
    else if (mod == 0x80)
        emit32(e, (uint32_t)m->disp);
}

/* opcode reg, rm for two registers; `wide`: REX.W. */
static inline void emit_rr(struct emitter *e, bool wide, unsigned opcode, unsigned reg, unsigned rm)
{
    unsigned rex = (wide ? 8u : 0u) | (reg & 8 ? 4u : 0u) | (rm & 8 ? 1u : 0u);
    if (rex)
        emit8(e, 0x40 | rex);
    emit8(e, opcode);
    emit8(e, 0xc0 | (reg & 7) << 3 | (rm & 7));
}
static inline void emit_rm(struct emitter *e, bool wide, unsigned opcode, unsigned reg, struct host_operand m)
{
    unsigned rex = (wide ? 8u : 0u) | (reg & 8 ? 4u : 0u) | host_operand_rex(&m);
    if (rex)
        emit8(e, 0x40 | rex);
    emit8(e, opcode);
    emit_modrm_memory(e, reg, &m, 0);
}

static inline void emit_mov_rr(struct emitter *e, unsigned to, unsigned from)
{
    if (to != from)
        emit_rr(e, true, 0x8b, to, from);
}
static inline void emit_mov32_rr(struct emitter *e, unsigned to, unsigned from)
{
    emit_rr(e, false, 0x8b, to, from);
}
static inline void emit_load(struct emitter *e, unsigned reg, struct host_operand m)
{
    emit_rm(e, true, 0x8b, reg, m);
}
static inline void emit_load32(struct emitter *e, unsigned reg, struct host_operand m)
{
    emit_rm(e, false, 0x8b, reg, m);
}
static inline void emit_store(struct emitter *e, struct host_operand m, unsigned reg)
{
    emit_rm(e, true, 0x89, reg, m);
}
static inline void emit_store32(struct emitter *e, struct host_operand m, unsigned reg)
{
    emit_rm(e, false, 0x89, reg, m);
}
static inline void emit_lea(struct emitter *e, unsigned reg, struct host_operand m)
{
    emit_rm(e, true, 0x8d, reg, m);
}
static inline void emit_lea32(struct emitter *e, unsigned reg, struct host_operand m)
{
    emit_rm(e, false, 0x8d, reg, m);
}
static inline void emit_mov_imm32(struct emitter *e, unsigned reg, uint32_t value) /* zero-extends */
{
    if (reg & 8)
        emit8(e, 0x41);
    emit8(e, 0xb8 | (reg & 7));
    emit32(e, value);
}
static inline void emit_mov_imm64(struct emitter *e, unsigned reg, uint64_t value)
{
    if (value <= 0xffffffff) {
        emit_mov_imm32(e, reg, (uint32_t)value);
        return;
    }
    emit8(e, 0x48 | (reg >> 3));
    emit8(e, 0xb8 | (reg & 7));
    emit64(e, value);
}
/* cmp reg, imm32 (64 bits, sign-extended) */
static inline void emit_cmp_imm(struct emitter *e, unsigned reg, int32_t value)
{
    emit8(e, 0x48 | (reg >> 3));
    if (reg == HOST_RAX) {
        emit8(e, 0x3d);
    } else {
        emit8(e, 0x81);
        emit8(e, 0xc0 | 7 << 3 | (reg & 7));
    }
    emit32(e, (uint32_t)value);
}
/* mov qword [m], imm32 (sign-extended); dword; cmp dword [m], imm8; mov byte [m], imm8 */
static inline void emit_store_imm(struct emitter *e, struct host_operand m, uint32_t value)
{
    emit8(e, 0x48);
    emit8(e, 0xc7);
    emit_modrm_memory(e, 0, &m, 4);
    emit32(e, value);
}
static inline void emit_store32_imm(struct emitter *e, struct host_operand m, uint32_t value)
{
    unsigned rex = host_operand_rex(&m);
    if (rex)
        emit8(e, 0x40 | rex);
    emit8(e, 0xc7);
    emit_modrm_memory(e, 0, &m, 4);
    emit32(e, value);
}
static inline void emit_cmp32_imm8(struct emitter *e, struct host_operand m, unsigned value)
{
    unsigned rex = host_operand_rex(&m);
    if (rex)
        emit8(e, 0x40 | rex);
    emit8(e, 0x83);
    emit_modrm_memory(e, 7, &m, 1);
    emit8(e, value);
}
static inline void emit_store8_imm(struct emitter *e, struct host_operand m, unsigned value)
{
    emit8(e, 0xc6);
    emit_modrm_memory(e, 0, &m, 1);
    emit8(e, value);
}

/* Three-byte VEX in map 0F38 or 0F3A: rorx, pext. pp: 0 none, 1 66, 2 F3, 3 F2. */
static inline void emit_vex_rm(struct emitter *e, unsigned map, unsigned pp, bool wide, unsigned opcode, unsigned reg,
                               unsigned vvvv, struct host_operand m)
{
    unsigned rex = host_operand_rex(&m);
    emit8(e, 0xc4);
    emit8(e, (reg & 8 ? 0u : 0x80u) | (rex & 2 ? 0u : 0x40u) | (rex & 1 ? 0u : 0x20u) | map);
    emit8(e, (wide ? 0x80u : 0u) | (~vvvv & 15) << 3 | pp);
    emit8(e, opcode);
    emit_modrm_memory(e, reg, &m, 0);
}
static inline void emit_pext(struct emitter *e, unsigned to, unsigned from, const void *mask)
{
    emit_vex_rm(e, 2, 2, true, 0xf5, to, from, host_near(mask));
}

/* Branches. The targets are execution addresses; forward ones are patched with emit_patch_here. */
static inline void emit_rel32(struct emitter *e, const uint8_t *target)
{
    emit32(e, (uint32_t)(target - (emit_here(e) + 4)));
}
static inline void emit_jmp(struct emitter *e, const uint8_t *target)
{
    emit8(e, 0xe9);
    emit_rel32(e, target);
}
static inline void emit_call(struct emitter *e, const uint8_t *target)
{
    emit8(e, 0xe8);
    emit_rel32(e, target);
}
static inline void emit_jcc(struct emitter *e, unsigned cc, const uint8_t *target)
{
    emit8(e, 0x0f);
    emit8(e, 0x80 | cc);
    emit_rel32(e, target);
}
static inline void emit_jmp_mem(struct emitter *e, struct host_operand m)
{
    emit_rm(e, false, 0xff, 4, m);
}
/* Short forward branches: returns the place of the byte to patch. */
static inline uint8_t *emit_short(struct emitter *e, unsigned opcode)
{
    emit8(e, opcode);
    emit8(e, 0);
    return e->p - 1;
}
#define OPCODE_JRCXZ 0xe3
#define OPCODE_JMP8  0xeb
static inline void emit_short_here(struct emitter *e, uint8_t *place)
{
    *place = (uint8_t)(e->p - (place + 1));
}
/* The rel32 at `place` (writable view) leads to target (execution address). Aligned or not, it is written by the vCPU's own
 * thread while that thread runs C code. */
static inline void emit_patch_rel32(uint8_t *place, ptrdiff_t delta, const uint8_t *target)
{
    uint32_t value = (uint32_t)(target - (place + delta + 4));
    memcpy(place, &value, 4);
}

enum { CC_O = 0, CC_NO, CC_B, CC_AE, CC_E, CC_NE, CC_BE, CC_A, CC_S, CC_NS, CC_P, CC_NP, CC_L, CC_GE, CC_LE, CC_G };

/* ---- Short sequences that several need. But where they say so, the flags stay as they are. ---- */

/* The flags as LAHF and SETO give them, into AX, and back; what is in RAX is the caller's affair. */
static inline void emit_flags_to_ax(struct emitter *e)
{
    emit_bytes(e, "\x9f\x0f\x90\xc0", 4); /* lahf; seto al */
}
static inline void emit_flags_from_ax(struct emitter *e)
{
    emit_bytes(e, "\x04\x7f\x9e", 3); /* add al, 127; sahf */
}

/* *cell += value, by T1. */
static inline void emit_add_to(struct emitter *e, const void *cell, int32_t value)
{
    emit_load(e, T1, host_at(cell));
    emit_lea(e, T1, host_base(T1, value));
    emit_store(e, host_at(cell), T1);
}

/* T1: 0 if the address in `reg` is canonical, which it is if bits 63:48 of its sum with 2^47 (*half_space) are 0. */
static inline void emit_canonical_check(struct emitter *e, unsigned reg, const uint64_t *half_space)
{
    emit_load(e, T1, host_near(half_space));
    emit_lea(e, T1, host_base_index(T1, reg, 0));
    emit_bytes(e, "\x48\x0f\xc9\x0f\xb7\xc9", 6); /* bswap rcx; movzx ecx, cx */
}

#endif
