/* The guest's flags while the host's register holds those of a check: worked out from the instruction that set them (design,
 * 6a.10). Which instructions qualify is decided by replay_registers in jit_analyse.c.
 *
 * CMP and TEST have their operands still; AND, OR and XOR set flags by their result alone; of ADD and SUB the operand that
 * was overwritten is the result less, or plus, the other. vCPU thread. */
#include "jit/jit_internal.h"

#define FLAGS_BY(instruction, type, a, b)                                                                              \
    ({                                                                                                                 \
        uint64_t flags_;                                                                                               \
        type left_ = (type)(a), right_ = (type)(b);                                                                    \
        __asm__(instruction "\n\tpushfq\n\tpop %0" : "=r"(flags_), "+r"(left_) : "r"(right_) : "cc", "memory");        \
        flags_;                                                                                                        \
    })

/* Byte registers need constraint q; everything else is the same. */
#define FLAGS_BY_SIZE(mnemonic, size, a, b)                                                                            \
    ((size) == 8   ? FLAGS_BY(mnemonic "q %2, %1", uint64_t, a, b)                                                     \
     : (size) == 4 ? FLAGS_BY(mnemonic "l %k2, %k1", uint32_t, a, b)                                                   \
     : (size) == 2 ? FLAGS_BY(mnemonic "w %w2, %w1", uint16_t, a, b)                                                   \
                   : FLAGS_BY(mnemonic "b %b2, %b1", uint8_t, a, b))

uint64_t jit_replay_flags(const struct cpu *cpu, const struct insn *insn)
{
    const struct operand *o = insn->operands;
    unsigned size = o[0].size;
    uint64_t left = gpr_read(cpu, &o[0]);
    uint64_t right = o[1].kind == OPERAND_IMM ? (uint64_t)insn->imm : gpr_read(cpu, &o[1]), flags;

    switch (insn->row->handler) {
    case HANDLER_cmp:
        flags = FLAGS_BY_SIZE("cmp", size, left, right);
        break;
    case HANDLER_test:
        flags = FLAGS_BY_SIZE("test", size, left, right);
        break;
    case HANDLER_add:
        flags = FLAGS_BY_SIZE("add", size, left - right, right);
        break;
    case HANDLER_sub:
        flags = FLAGS_BY_SIZE("sub", size, left + right, right);
        break;
    default: /* and or xor: by the result */
        flags = FLAGS_BY_SIZE("test", size, left, left);
        break;
    }
    return flags & FLAGS_ARITH;
}
