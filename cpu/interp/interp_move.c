/* Data movement: MOV, MOVZX, MOVSX, LEA with specialised forms; exchange, compare-exchange,
 * conditional moves, byte swaps. vCPU thread only. SDM Vol. 2, instruction pages. */
#include "cpu/interp/interp_fast.h"

/* ---- MOV ---- */

#define MOV_FORMS(bits)                                                                                                \
    static enum step mov_rr##bits(struct cpu *cpu, const struct iop *op)                                               \
    {                                                                                                                  \
        (void)cpu;                                                                                                     \
        WRITE_REG(bits, op, *(const uint##bits##_t *)op->src);                                                         \
        return STEP_NEXT;                                                                                              \
    }                                                                                                                  \
    static enum step mov_rm##bits(struct cpu *cpu, const struct iop *op)                                               \
    {                                                                                                                  \
        gva_t gva;                                                                                                     \
        uint##bits##_t value;                                                                                          \
        if (op_address(cpu, op, bits / 8, false, &gva) || load(cpu, gva, &value, bits / 8, op_uses_stack_segment(op))) \
            return STEP_FAULT;                                                                                         \
        WRITE_REG(bits, op, value);                                                                                    \
        return STEP_NEXT;                                                                                              \
    }                                                                                                                  \
    static enum step mov_mr##bits(struct cpu *cpu, const struct iop *op)                                               \
    {                                                                                                                  \
        gva_t gva;                                                                                                     \
        if (op_address(cpu, op, bits / 8, true, &gva) ||                                                               \
            store(cpu, gva, op->src, bits / 8, op_uses_stack_segment(op)))                                             \
            return STEP_FAULT;                                                                                         \
        return STEP_NEXT;                                                                                              \
    }
MOV_FORMS(8)
MOV_FORMS(16)
MOV_FORMS(32)
MOV_FORMS(64)

/* ---- MOVZX, MOVSX, MOVSXD: from a type, to 16, 32 or 64 bits ---- */

#define EXTEND(name, type, bits)                                                                                       \
    static enum step name##_r_##type##bits(struct cpu *cpu, const struct iop *op)                                      \
    {                                                                                                                  \
        (void)cpu;                                                                                                     \
        WRITE_REG(bits, op, (int64_t) * (const type *)op->src);                                                        \
        return STEP_NEXT;                                                                                              \
    }                                                                                                                  \
    static enum step name##_m_##type##bits(struct cpu *cpu, const struct iop *op)                                      \
    {                                                                                                                  \
        gva_t gva;                                                                                                     \
        type value;                                                                                                    \
        if (op_address(cpu, op, sizeof(value), false, &gva) ||                                                         \
            load(cpu, gva, &value, sizeof(value), op_uses_stack_segment(op)))                                          \
            return STEP_FAULT;                                                                                         \
        WRITE_REG(bits, op, (int64_t)value);                                                                           \
        return STEP_NEXT;                                                                                              \
    }
#define EXTEND_TO_ALL(type) EXTEND(extend, type, 16) EXTEND(extend, type, 32) EXTEND(extend, type, 64)
EXTEND_TO_ALL(uint8_t)
EXTEND_TO_ALL(uint16_t)
EXTEND_TO_ALL(int8_t)
EXTEND_TO_ALL(int16_t)
EXTEND_TO_ALL(int32_t)

/* ---- LEA: the offset, no access ---- */

static enum step lea16(struct cpu *cpu, const struct iop *op)
{
    WRITE_REG(16, op, iop_effective_address(cpu, op));
    return STEP_NEXT;
}
static enum step lea32(struct cpu *cpu, const struct iop *op)
{
    WRITE_REG(32, op, iop_effective_address(cpu, op));
    return STEP_NEXT;
}
static enum step lea64(struct cpu *cpu, const struct iop *op)
{
    WRITE_REG(64, op, iop_effective_address(cpu, op));
    return STEP_NEXT;
}

/* ---- Choice ---- */

static iop_fn *select_mov(const struct iop *op)
{
    static iop_fn *const forms[3][4] = {
        { mov_rr8, mov_rr16, mov_rr32, mov_rr64 },
        { mov_rm8, mov_rm16, mov_rm32, mov_rm64 },
        { mov_mr8, mov_mr16, mov_mr32, mov_mr64 },
    };
    const struct operand *o = op->insn.operands;
    unsigned form = o[0].kind == OPERAND_MEM ? 2 : o[1].kind == OPERAND_MEM ? 1 : 0;
    return forms[form][size_index(o[0].size)];
}

static iop_fn *select_extend(const struct iop *op, bool is_signed)
{
#define EXTEND_ROW(type)                                                                                               \
    {                                                                                                                  \
        { extend_r_##type##16, extend_r_##type##32, extend_r_##type##64 },                                             \
        {                                                                                                              \
            extend_m_##type##16, extend_m_##type##32, extend_m_##type##64                                              \
        }                                                                                                              \
    }
    static iop_fn *const forms[5][2][3] = {
        EXTEND_ROW(uint8_t), EXTEND_ROW(uint16_t), EXTEND_ROW(int8_t), EXTEND_ROW(int16_t), EXTEND_ROW(int32_t),
    };
    const struct operand *o = op->insn.operands;
    unsigned source = o[1].size == 4 ? 4 : (is_signed ? 2 : 0) + size_index(o[1].size);
    return forms[source][o[1].kind == OPERAND_MEM][size_index(o[0].size) - 1];
}

iop_fn *interp_select_move(const struct iop *op)
{
    const struct operand *o = op->insn.operands;
    switch (op->insn.row->handler) {
    case HANDLER_mov:
        return select_mov(op);
    case HANDLER_movzx:
        return select_extend(op, false);
    case HANDLER_movsx:
        return select_extend(op, true);
    case HANDLER_movsxd:
        /* without REX.W a plain move of 16 or 32 bits */
        return o[0].size == 8 ? select_extend(op, true) : select_mov(op);
    case HANDLER_lea:
        return o[0].size == 8 ? lea64 : o[0].size == 4 ? lea32 : lea16;
    default:
        return NULL;
    }
}

#define SELECTED(name)                                                                                                 \
    enum step interp_##name(struct cpu *cpu, const struct iop *op)                                                     \
    {                                                                                                                  \
        return interp_select_move(op)(cpu, op);                                                                        \
    }
SELECTED(mov)
SELECTED(movzx) SELECTED(movsx) SELECTED(movsxd) SELECTED(lea)

    /* ---- Exchange ---- */

    /* With memory, XCHG locks whether or not it says so. */
    enum step interp_xchg(struct cpu *cpu, const struct iop *op)
{
    const struct operand *o = op->insn.operands;
    if (o[0].kind != OPERAND_MEM && o[1].kind != OPERAND_MEM) {
        uint64_t first = gpr_read(cpu, &o[0]), second = gpr_read(cpu, &o[1]);
        gpr_write(cpu, &o[0], second);
        gpr_write(cpu, &o[1], first);
        return STEP_NEXT;
    }
    const struct operand *reg = o[0].kind == OPERAND_MEM ? &o[1] : &o[0];
    struct atomic_access access;
    if (op_atomic_begin(cpu, op, reg->size, &access))
        return STEP_FAULT;
    uint64_t value = gpr_read(cpu, reg), old;
    switch (reg->size) {
    case 1:
        old = __atomic_exchange_n((uint8_t *)access.host, (uint8_t)value, __ATOMIC_SEQ_CST);
        break;
    case 2:
        old = __atomic_exchange_n((uint16_t *)access.host, (uint16_t)value, __ATOMIC_SEQ_CST);
        break;
    case 4:
        old = __atomic_exchange_n((uint32_t *)access.host, (uint32_t)value, __ATOMIC_SEQ_CST);
        break;
    default:
        old = __atomic_exchange_n((uint64_t *)access.host, value, __ATOMIC_SEQ_CST);
        break;
    }
    if (op_atomic_end(cpu, &access, true))
        return STEP_FAULT;
    gpr_write(cpu, reg, old);
    return STEP_NEXT;
}

/* Flags of `a + b` and `a - b` at one size, from the host. */
#define FLAGS_OF(insn, a, b, size)                                                                                     \
    ({                                                                                                                 \
        uint64_t flags_, d_ = (a);                                                                                     \
        switch (size) {                                                                                                \
        case 1:                                                                                                        \
            __asm__(insn "b %b2, %b0; pushfq; popq %1" : "+r"(d_), "=r"(flags_) : "r"(b) : "cc");                      \
            break;                                                                                                     \
        case 2:                                                                                                        \
            __asm__(insn "w %w2, %w0; pushfq; popq %1" : "+r"(d_), "=r"(flags_) : "r"(b) : "cc");                      \
            break;                                                                                                     \
        case 4:                                                                                                        \
            __asm__(insn "l %k2, %k0; pushfq; popq %1" : "+r"(d_), "=r"(flags_) : "r"(b) : "cc");                      \
            break;                                                                                                     \
        default:                                                                                                       \
            __asm__(insn "q %2, %0; pushfq; popq %1" : "+r"(d_), "=r"(flags_) : "r"(b) : "cc");                        \
            break;                                                                                                     \
        }                                                                                                              \
        flags_;                                                                                                        \
    })

static uint64_t cell_read(const void *cell, unsigned size)
{
    uint64_t value = 0;
    memcpy(&value, cell, size);
    return value;
}

/* *cell: expected -> desired; true if it was expected. *expected gets what was there. */
static bool cell_compare_exchange(void *cell, unsigned size, uint64_t *expected, uint64_t desired)
{
#define CASE(bits)                                                                                                     \
    {                                                                                                                  \
        uint##bits##_t e = (uint##bits##_t) * expected;                                                                \
        bool done = __atomic_compare_exchange_n((uint##bits##_t *)cell, &e, (uint##bits##_t)desired, false,            \
                                                __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);                                   \
        *expected = e;                                                                                                 \
        return done;                                                                                                   \
    }
    switch (size) {
    case 1:
        CASE(8)
    case 2:
        CASE(16)
    case 4:
        CASE(32)
    default:
        CASE(64)
    }
#undef CASE
}

enum step interp_xadd(struct cpu *cpu, const struct iop *op)
{
    const struct operand *o = op->insn.operands;
    unsigned size = o[0].size;
    uint64_t add = gpr_read(cpu, &o[1]), old;
    if (o[0].kind != OPERAND_MEM) {
        old = gpr_read(cpu, &o[0]);
        set_flags(cpu, FLAGS_OF("add", old, add, size), FLAGS_ARITH);
        gpr_write(cpu, &o[1], old);
        gpr_write(cpu, &o[0], old + add);
        return STEP_NEXT;
    }
    struct atomic_access access;
    if (op_atomic_begin(cpu, op, size, &access))
        return STEP_FAULT;
    old = cell_read(access.host, size);
    while (!cell_compare_exchange(access.host, size, &old, old + add))
        ;
    if (op_atomic_end(cpu, &access, true))
        return STEP_FAULT;
    set_flags(cpu, FLAGS_OF("add", old, add, size), FLAGS_ARITH);
    gpr_write(cpu, &o[1], old);
    return STEP_NEXT;
}

/* The destination gets a write cycle even if the comparison fails. A failed 32-bit comparison
 * clears the upper half of RAX, a successful one leaves it (as the host does). */
enum step interp_cmpxchg(struct cpu *cpu, const struct iop *op)
{
    const struct operand *o = op->insn.operands;
    unsigned size = o[0].size;
    struct operand accumulator = { .kind = OPERAND_GPR, .reg = REG_RAX, .size = size };
    uint64_t expected = gpr_read(cpu, &accumulator), seen = expected, desired = gpr_read(cpu, &o[1]);
    bool equal;
    if (o[0].kind != OPERAND_MEM) {
        seen = gpr_read(cpu, &o[0]);
        equal = seen == expected;
        if (equal) /* else not even its upper half is touched */
            gpr_write(cpu, &o[0], desired);
    } else {
        struct atomic_access access;
        if (op_atomic_begin(cpu, op, size, &access))
            return STEP_FAULT;
        equal = cell_compare_exchange(access.host, size, &seen, desired);
        if (op_atomic_end(cpu, &access, true))
            return STEP_FAULT;
    }
    set_flags(cpu, FLAGS_OF("cmp", expected, seen, size), FLAGS_ARITH);
    if (!equal)
        gpr_write(cpu, &accumulator, seen);
    return STEP_NEXT;
}

static uint64_t register_pair(const struct cpu *cpu, unsigned high, unsigned low)
{
    return cpu->gpr[high] << 32 | (uint32_t)cpu->gpr[low];
}

enum step interp_cmpxchg8b(struct cpu *cpu, const struct iop *op)
{
    struct atomic_access access;
    if (op_atomic_begin(cpu, op, 8, &access))
        return STEP_FAULT;
    uint64_t seen = register_pair(cpu, REG_RDX, REG_RAX);
    bool equal = cell_compare_exchange(access.host, 8, &seen, register_pair(cpu, REG_RCX, REG_RBX));
    if (op_atomic_end(cpu, &access, true))
        return STEP_FAULT;
    set_flags(cpu, equal ? FLAG_ZF : 0, FLAG_ZF);
    if (!equal) {
        cpu->gpr[REG_RAX] = (uint32_t)seen;
        cpu->gpr[REG_RDX] = seen >> 32;
    }
    return STEP_NEXT;
}

enum step interp_cmpxchg16b(struct cpu *cpu, const struct iop *op)
{
    gva_t gva;
    if (op_address(cpu, op, 1, true, &gva)) /* alignment comes before what the address may raise in 64-bit mode */
        return STEP_FAULT;
    if (gva & 15)
        return step_fault(cpu, VECTOR_GP, 0);
    struct atomic_access access;
    if (op_atomic_begin(cpu, op, 16, &access))
        return STEP_FAULT;
    uint64_t low = cpu->gpr[REG_RAX], high = cpu->gpr[REG_RDX];
    bool equal;
    __asm__ volatile("lock cmpxchg16b %1"
                     : "=@ccz"(equal), "+m"(*(unsigned char(*)[16])access.host), "+a"(low), "+d"(high)
                     : "b"(cpu->gpr[REG_RBX]), "c"(cpu->gpr[REG_RCX])
                     : "memory");
    if (op_atomic_end(cpu, &access, true))
        return STEP_FAULT;
    set_flags(cpu, equal ? FLAG_ZF : 0, FLAG_ZF);
    cpu->gpr[REG_RAX] = low;
    cpu->gpr[REG_RDX] = high;
    return STEP_NEXT;
}

/* ---- Conditional ---- */

enum step interp_setcc(struct cpu *cpu, const struct iop *op)
{
    return operand_write(cpu, op, 0, condition(cpu->rflags, op->insn.opcode & 15)) ? STEP_FAULT : STEP_NEXT;
}

/* The source is read, and may fault, whatever the condition; a 32-bit destination is
 * zero-extended even if nothing is moved. */
enum step interp_cmovcc(struct cpu *cpu, const struct iop *op)
{
    uint64_t value;
    if (operand_read(cpu, op, 1, &value))
        return STEP_FAULT;
    const struct operand *o = &op->insn.operands[0];
    gpr_write(cpu, o, condition(cpu->rflags, op->insn.opcode & 15) ? value : gpr_read(cpu, o));
    return STEP_NEXT;
}

/* ---- Byte order, sign extension ---- */

static uint64_t swap_bytes(uint64_t value, unsigned size)
{
    return size == 8   ? __builtin_bswap64(value)
           : size == 4 ? __builtin_bswap32((uint32_t)value)
                       : __builtin_bswap16((uint16_t)value);
}

/* BSWAP of 16 bits is undefined; hosts clear the register's low word. */
enum step interp_bswap(struct cpu *cpu, const struct iop *op)
{
    const struct operand *o = &op->insn.operands[0];
    gpr_write(cpu, o, o->size == 2 ? 0 : swap_bytes(gpr_read(cpu, o), o->size));
    return STEP_NEXT;
}

enum step interp_movbe(struct cpu *cpu, const struct iop *op)
{
    uint64_t value;
    unsigned size = op->insn.operands[0].size;
    if (operand_read(cpu, op, 1, &value) || operand_write(cpu, op, 0, swap_bytes(value, size)))
        return STEP_FAULT;
    return STEP_NEXT;
}

enum step interp_movnti(struct cpu *cpu, const struct iop *op)
{
    uint64_t value;
    return operand_read(cpu, op, 1, &value) || operand_write(cpu, op, 0, value) ? STEP_FAULT : STEP_NEXT;
}

enum step interp_movdiri(struct cpu *cpu, const struct iop *op)
{
    return interp_movnti(cpu, op);
}

/* MOVDIR64B: 64 bytes from the memory operand to ES:[register], which must be 64-byte aligned. */
enum step interp_movdir64b(struct cpu *cpu, const struct iop *op)
{
    uint8_t data[64];
    gva_t target;
    uint64_t mask = op->insn.address_size == 8 ? ~0ull : op->insn.address_size == 4 ? 0xffffffffull : 0xffff;
    if (op_mem_read(cpu, op, data, 64) || mem_segment_linear(cpu, SEG_ES, cpu->gpr[op->insn.operands[0].reg] & mask, 64,
                                                             true, op->insn.code_size, &target))
        return STEP_FAULT;
    if (target & 63)
        return step_fault(cpu, VECTOR_GP, 0);
    return mem_write_linear(cpu, target, data, 64, cpu->privilege, false) ? STEP_FAULT : STEP_NEXT;
}

enum step interp_cbw(struct cpu *cpu, const struct iop *op)
{
    uint64_t *rax = &cpu->gpr[REG_RAX];
    switch (op->insn.operand_size) {
    case 2:
        *rax = (*rax & ~0xffffull) | (uint16_t)(int8_t)*rax;
        break;
    case 4:
        *rax = (uint32_t)(int16_t)*rax;
        break;
    default:
        *rax = (uint64_t)(int32_t)*rax;
        break;
    }
    return STEP_NEXT;
}

enum step interp_cwd(struct cpu *cpu, const struct iop *op)
{
    uint64_t rax = cpu->gpr[REG_RAX], *rdx = &cpu->gpr[REG_RDX];
    switch (op->insn.operand_size) {
    case 2:
        *rdx = (*rdx & ~0xffffull) | ((int16_t)rax < 0 ? 0xffff : 0);
        break;
    case 4:
        *rdx = (int32_t)rax < 0 ? 0xffffffffull : 0;
        break;
    default:
        *rdx = (int64_t)rax < 0 ? ~0ull : 0;
        break;
    }
    return STEP_NEXT;
}
