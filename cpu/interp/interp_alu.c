/* Arithmetic and logic with specialised forms: the eight classic operations, TEST, the
 * unary ones, shifts and rotates. The host's own instruction computes result and
 * flags, so undefined flags are those of the host too, as they will be in translated code.
 *
 * Forms: destination register or memory, source register, immediate or memory; four
 * sizes; memory destinations with and without LOCK (a compare-and-swap loop on the host). Called
 * by the vCPU's thread only. SDM Vol. 2, instruction pages of the operations. */
#include "cpu/interp/interp_fast.h"

/* ---- Operations: value and flags from the host ---- */

#define HOST_OP(insn, suffix, d, s, flags)                                                                             \
    __asm__(insn suffix " %2, %0\n\tpushfq\n\tpopq %1" : "+r"(d), "=r"(flags) : "r"(s) : "cc")
#define HOST_OP_CARRY(insn, suffix, d, s, flags, old)                                                                  \
    __asm__("btq $0, %3\n\t" insn suffix " %2, %0\n\tpushfq\n\tpopq %1"                                                \
            : "+r"(d), "=&r"(flags)                                                                                    \
            : "r"(s), "r"(old)                                                                                         \
            : "cc")

#define BINARY(name, insn, bits, suffix)                                                                               \
    static inline uint##bits##_t alu_##name##bits(struct cpu *cpu, uint##bits##_t d, uint##bits##_t s)                 \
    {                                                                                                                  \
        uint64_t flags;                                                                                                \
        HOST_OP(insn, suffix, d, s, flags);                                                                            \
        set_flags(cpu, flags, FLAGS_ARITH);                                                                            \
        return d;                                                                                                      \
    }
#define BINARY_CARRY(name, insn, bits, suffix)                                                                         \
    static inline uint##bits##_t alu_##name##bits(struct cpu *cpu, uint##bits##_t d, uint##bits##_t s)                 \
    {                                                                                                                  \
        uint64_t flags;                                                                                                \
        HOST_OP_CARRY(insn, suffix, d, s, flags, cpu->rflags);                                                         \
        set_flags(cpu, flags, FLAGS_ARITH);                                                                            \
        return d;                                                                                                      \
    }
/* Unary: the source is not looked at. */
#define UNARY(name, insn, bits, suffix, mask)                                                                          \
    static inline uint##bits##_t alu_##name##bits(struct cpu *cpu, uint##bits##_t d, uint##bits##_t s)                 \
    {                                                                                                                  \
        uint64_t flags;                                                                                                \
        (void)s;                                                                                                       \
        __asm__(insn suffix " %0\n\tpushfq\n\tpopq %1" : "+r"(d), "=r"(flags) : : "cc");                               \
        set_flags(cpu, flags, mask);                                                                                   \
        return d;                                                                                                      \
    }
/* Shifts: a masked count of 0 changes nothing (SDM SAL/SAR/SHL/SHR). The count is the low byte. */
#define SHIFT(name, insn, bits, suffix, mask)                                                                          \
    static inline uint##bits##_t alu_##name##bits(struct cpu *cpu, uint##bits##_t d, uint##bits##_t s)                 \
    {                                                                                                                  \
        uint64_t flags;                                                                                                \
        uint8_t count = (uint8_t)s & (bits == 64 ? 63 : 31);                                                           \
        if (!count)                                                                                                    \
            return d;                                                                                                  \
        __asm__("btq $0, %3\n\t" insn suffix " %%cl, %0\n\tpushfq\n\tpopq %1"                                          \
                : "+r"(d), "=&r"(flags)                                                                                \
                : "c"(count), "r"(cpu->rflags)                                                                         \
                : "cc");                                                                                               \
        set_flags(cpu, flags, mask);                                                                                   \
        return d;                                                                                                      \
    }

#define FOUR_SIZES(M, name, insn, ...)                                                                                 \
    M(name, insn, 8, "b" __VA_OPT__(, ) __VA_ARGS__)                                                                   \
    M(name, insn, 16, "w" __VA_OPT__(, ) __VA_ARGS__)                                                                  \
    M(name, insn, 32, "l" __VA_OPT__(, ) __VA_ARGS__)                                                                  \
    M(name, insn, 64, "q" __VA_OPT__(, ) __VA_ARGS__)

#define FLAGS_ROTATE (FLAG_CF | FLAG_OF)
FOUR_SIZES(BINARY, add, "add")
FOUR_SIZES(BINARY, or, "or")
FOUR_SIZES(BINARY, and, "and")
FOUR_SIZES(BINARY, sub, "sub")
FOUR_SIZES(BINARY, xor, "xor")
FOUR_SIZES(BINARY_CARRY, adc, "adc")
FOUR_SIZES(BINARY_CARRY, sbb, "sbb")
FOUR_SIZES(BINARY, cmp, "cmp")
FOUR_SIZES(BINARY, test, "test")
FOUR_SIZES(UNARY, inc, "inc", FLAGS_ARITH & ~FLAG_CF)
FOUR_SIZES(UNARY, dec, "dec", FLAGS_ARITH & ~FLAG_CF)
FOUR_SIZES(UNARY, neg, "neg", FLAGS_ARITH)
FOUR_SIZES(UNARY, not, "not", 0)
FOUR_SIZES(SHIFT, rol, "rol", FLAGS_ROTATE)
FOUR_SIZES(SHIFT, ror, "ror", FLAGS_ROTATE)
FOUR_SIZES(SHIFT, rcl, "rcl", FLAGS_ROTATE)
FOUR_SIZES(SHIFT, rcr, "rcr", FLAGS_ROTATE)
FOUR_SIZES(SHIFT, shl, "shl", FLAGS_ARITH)
FOUR_SIZES(SHIFT, shr, "shr", FLAGS_ARITH)
FOUR_SIZES(SHIFT, sar, "sar", FLAGS_ARITH)

/* ---- Forms ----
 * r: register destination, source through op->src. m: memory destination. l: memory, LOCK.
 * s: register destination, memory source. A 32-bit register result clears the upper half. */

/* The shift count is one byte whatever the operand size. */
#define SOURCE(bits, op)    (*(const uint##bits##_t *)(op)->src)
#define COUNT(bits, op)     (*(const uint8_t *)(op)->src)
#define NO_SOURCE(bits, op) 0

#define FORM_R(name, bits, SRC)                                                                                        \
    static enum step name##_r##bits(struct cpu *cpu, const struct iop *op)                                             \
    {                                                                                                                  \
        uint##bits##_t value = alu_##name##bits(cpu, *(uint##bits##_t *)op->dst, SRC(bits, op));                       \
        WRITE_REG(bits, op, value);                                                                                    \
        return STEP_NEXT;                                                                                              \
    }
#define FORM_M(name, bits, SRC)                                                                                        \
    static enum step name##_m##bits(struct cpu *cpu, const struct iop *op)                                             \
    {                                                                                                                  \
        gva_t gva;                                                                                                     \
        if (op_address(cpu, op, bits / 8, true, &gva))                                                                 \
            return STEP_FAULT;                                                                                         \
        uint8_t *host = fast_write(cpu, gva, bits / 8);                                                                \
        if (likely(host)) {                                                                                            \
            uint##bits##_t *cell = (uint##bits##_t *)host;                                                             \
            *cell = alu_##name##bits(cpu, *cell, SRC(bits, op));                                                       \
            return STEP_NEXT;                                                                                          \
        }                                                                                                              \
        bool stack = op_uses_stack_segment(op);                                                                        \
        uint##bits##_t value;                                                                                          \
        if (mem_probe_write_linear(cpu, gva, bits / 8, cpu->privilege, stack) ||                                       \
            mem_read_linear(cpu, gva, &value, bits / 8, cpu->privilege, stack))                                        \
            return STEP_FAULT;                                                                                         \
        uint64_t saved = cpu->rflags;                                                                                  \
        value = alu_##name##bits(cpu, value, SRC(bits, op));                                                           \
        if (mem_write_linear(cpu, gva, &value, bits / 8, cpu->privilege, stack)) {                                     \
            cpu->rflags = saved;                                                                                       \
            return STEP_FAULT;                                                                                         \
        }                                                                                                              \
        return STEP_NEXT;                                                                                              \
    }
#define FORM_L(name, bits, SRC)                                                                                        \
    static enum step name##_l##bits(struct cpu *cpu, const struct iop *op)                                             \
    {                                                                                                                  \
        struct atomic_access access;                                                                                   \
        if (op_atomic_begin(cpu, op, bits / 8, &access))                                                               \
            return STEP_FAULT;                                                                                         \
        uint##bits##_t *cell = (uint##bits##_t *)access.host, value;                                                   \
        uint##bits##_t old = __atomic_load_n(cell, __ATOMIC_RELAXED);                                                  \
        const uint64_t rflags = cpu->rflags;                                                                           \
        do {                                                                                                           \
            cpu->rflags = rflags;                                                                                      \
            value = alu_##name##bits(cpu, old, SRC(bits, op));                                                         \
        } while (!__atomic_compare_exchange_n(cell, &old, value, false, __ATOMIC_SEQ_CST, __ATOMIC_RELAXED));          \
        if (op_atomic_end(cpu, &access, true)) {                                                                       \
            cpu->rflags = rflags;                                                                                      \
            return STEP_FAULT;                                                                                         \
        }                                                                                                              \
        return STEP_NEXT;                                                                                              \
    }
#define FORM_S(name, bits, SRC)                                                                                        \
    static enum step name##_s##bits(struct cpu *cpu, const struct iop *op)                                             \
    {                                                                                                                  \
        gva_t gva;                                                                                                     \
        uint##bits##_t source;                                                                                         \
        if (op_address(cpu, op, bits / 8, false, &gva) ||                                                              \
            load(cpu, gva, &source, bits / 8, op_uses_stack_segment(op)))                                              \
            return STEP_FAULT;                                                                                         \
        uint##bits##_t value = alu_##name##bits(cpu, *(uint##bits##_t *)op->dst, source);                              \
        WRITE_REG(bits, op, value);                                                                                    \
        return STEP_NEXT;                                                                                              \
    }
/* cmp and test: nothing is written. */
#define FORM_COMPARE_R(name, bits, SRC)                                                                                \
    static enum step name##_r##bits(struct cpu *cpu, const struct iop *op)                                             \
    {                                                                                                                  \
        alu_##name##bits(cpu, *(const uint##bits##_t *)op->dst, SRC(bits, op));                                        \
        return STEP_NEXT;                                                                                              \
    }
#define FORM_COMPARE_M(name, bits, SRC)                                                                                \
    static enum step name##_m##bits(struct cpu *cpu, const struct iop *op)                                             \
    {                                                                                                                  \
        gva_t gva;                                                                                                     \
        uint##bits##_t value;                                                                                          \
        if (op_address(cpu, op, bits / 8, false, &gva) || load(cpu, gva, &value, bits / 8, op_uses_stack_segment(op))) \
            return STEP_FAULT;                                                                                         \
        alu_##name##bits(cpu, value, SRC(bits, op));                                                                   \
        return STEP_NEXT;                                                                                              \
    }
#define FORM_COMPARE_S(name, bits, SRC)                                                                                \
    static enum step name##_s##bits(struct cpu *cpu, const struct iop *op)                                             \
    {                                                                                                                  \
        gva_t gva;                                                                                                     \
        uint##bits##_t source;                                                                                         \
        if (op_address(cpu, op, bits / 8, false, &gva) ||                                                              \
            load(cpu, gva, &source, bits / 8, op_uses_stack_segment(op)))                                              \
            return STEP_FAULT;                                                                                         \
        alu_##name##bits(cpu, *(const uint##bits##_t *)op->dst, source);                                               \
        return STEP_NEXT;                                                                                              \
    }

#define EACH_SIZE(FORM, name, SRC) FORM(name, 8, SRC) FORM(name, 16, SRC) FORM(name, 32, SRC) FORM(name, 64, SRC)
#define BINARY_FORMS(name)                                                                                             \
    EACH_SIZE(FORM_R, name, SOURCE)                                                                                    \
    EACH_SIZE(FORM_M, name, SOURCE)                                                                                    \
    EACH_SIZE(FORM_L, name, SOURCE)                                                                                    \
    EACH_SIZE(FORM_S, name, SOURCE)
#define COMPARE_FORMS(name)                                                                                            \
    EACH_SIZE(FORM_COMPARE_R, name, SOURCE)                                                                            \
    EACH_SIZE(FORM_COMPARE_M, name, SOURCE)                                                                            \
    EACH_SIZE(FORM_COMPARE_S, name, SOURCE)
#define UNARY_FORMS(name)                                                                                              \
    EACH_SIZE(FORM_R, name, NO_SOURCE)                                                                                 \
    EACH_SIZE(FORM_M, name, NO_SOURCE)                                                                                 \
    EACH_SIZE(FORM_L, name, NO_SOURCE)
#define SHIFT_FORMS(name)                                                                                              \
    EACH_SIZE(FORM_R, name, COUNT)                                                                                     \
    EACH_SIZE(FORM_M, name, COUNT)

BINARY_FORMS(add)
BINARY_FORMS(or)
BINARY_FORMS(adc)
BINARY_FORMS(sbb)
BINARY_FORMS(and)
BINARY_FORMS(sub)
BINARY_FORMS(xor)
COMPARE_FORMS(cmp)
COMPARE_FORMS(test)
UNARY_FORMS(inc)
UNARY_FORMS(dec)
UNARY_FORMS(neg)
UNARY_FORMS(not )
SHIFT_FORMS(rol)
SHIFT_FORMS(ror)
SHIFT_FORMS(rcl)
SHIFT_FORMS(rcr)
SHIFT_FORMS(shl)
SHIFT_FORMS(shr)
SHIFT_FORMS(sar)

/* ---- Choice ---- */

enum form { FORM_REG, FORM_MEM, FORM_LOCK, FORM_SRC_MEM, FORMS };
#define SIZES(name, form)                                                                                              \
    {                                                                                                                  \
        name##_##form##8, name##_##form##16, name##_##form##32, name##_##form##64                                      \
    }
#define ROW_BINARY(name)  [HANDLER_##name] = { SIZES(name, r), SIZES(name, m), SIZES(name, l), SIZES(name, s) }
#define ROW_COMPARE(name) [HANDLER_##name] = { SIZES(name, r), SIZES(name, m), { 0 }, SIZES(name, s) }
#define ROW_UNARY(name)   [HANDLER_##name] = { SIZES(name, r), SIZES(name, m), SIZES(name, l) }
#define ROW_SHIFT(name)   [HANDLER_##name] = { SIZES(name, r), SIZES(name, m) }

static iop_fn *const alu_handlers[HANDLER_sar + 1][FORMS][4] = {
    ROW_BINARY(add), ROW_BINARY(or),  ROW_BINARY(adc),  ROW_BINARY(sbb),   ROW_BINARY(and),
    ROW_BINARY(sub), ROW_BINARY(xor), ROW_COMPARE(cmp), ROW_COMPARE(test), ROW_UNARY(inc),
    ROW_UNARY(dec),  ROW_UNARY(neg),  ROW_UNARY(not ),  ROW_SHIFT(rol),    ROW_SHIFT(ror),
    ROW_SHIFT(rcl),  ROW_SHIFT(rcr),  ROW_SHIFT(shl),   ROW_SHIFT(shr),    ROW_SHIFT(sar),
};
_Static_assert(HANDLER_add < HANDLER_sar && HANDLER_not < HANDLER_sar, "the array covers all of them");

iop_fn *interp_select_alu(const struct iop *op)
{
    unsigned handler = op->insn.row->handler;
    if (handler > HANDLER_sar || !alu_handlers[handler][FORM_REG][0])
        return NULL;
    const struct operand *o = op->insn.operands;
    enum form form = o[0].kind == OPERAND_MEM   ? (op->insn.lock ? FORM_LOCK : FORM_MEM)
                     : o[1].kind == OPERAND_MEM ? FORM_SRC_MEM
                                                : FORM_REG;
    return alu_handlers[handler][form][size_index(o[0].size)];
}

/* The table's entries: for whoever calls a handler without having selected a form. */
#define SELECTED(name)                                                                                                 \
    enum step interp_##name(struct cpu *cpu, const struct iop *op)                                                     \
    {                                                                                                                  \
        return interp_select_alu(op)(cpu, op);                                                                         \
    }
SELECTED(add)
SELECTED(or) SELECTED(adc) SELECTED(sbb) SELECTED(and) SELECTED(sub) SELECTED(xor) SELECTED(cmp) SELECTED(test)
    SELECTED(inc) SELECTED(dec) SELECTED(neg) SELECTED(not ) SELECTED(rol) SELECTED(ror) SELECTED(rcl) SELECTED(rcr)
        SELECTED(shl) SELECTED(shr) SELECTED(sar)
