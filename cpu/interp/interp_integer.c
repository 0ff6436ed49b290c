/* Integer instructions without specialised forms: multiply, divide, bits, counts, double shifts,
 * BMI, flags, decimal. Arithmetic is done by the host's instruction of the same name where it sets
 * flags, so undefined ones are the host's. vCPU thread only. SDM Vol. 2. */

#include "cpu/interp/interp_fast.h"

static uint64_t size_mask(unsigned size)
{
    return size == 8 ? ~0ull : (1ull << size * 8) - 1;
}

static int64_t sign_extend(uint64_t value, unsigned size)
{
    unsigned shift = 64 - size * 8;
    return (int64_t)(value << shift) >> shift;
}

/* ---- Multiply ---- */

/* AX, DX:AX, EDX:EAX or RDX:RAX. */
static void write_double(struct cpu *cpu, unsigned size, uint64_t low, uint64_t high)
{
    struct operand a = { .kind = OPERAND_GPR, .reg = REG_RAX, .size = size };
    struct operand d = { .kind = OPERAND_GPR, .reg = REG_RDX, .size = size };
    if (size == 1) {
        a.size = 2;
        gpr_write(cpu, &a, low | high << 8);
        return;
    }
    gpr_write(cpu, &a, low);
    gpr_write(cpu, &d, high);
}

#define HOST_MULTIPLY(insn, a, d, source, size, flags)                                                                 \
    switch (size) {                                                                                                    \
    case 1:                                                                                                            \
        __asm__(insn "b %b3; pushfq; popq %1" : "+a"(a), "=r"(flags), "+d"(d) : "r"(source) : "cc");                   \
        d = a >> 8 & 0xff;                                                                                             \
        a &= 0xff;                                                                                                     \
        break;                                                                                                         \
    case 2:                                                                                                            \
        __asm__(insn "w %w3; pushfq; popq %1" : "+a"(a), "=r"(flags), "+d"(d) : "r"(source) : "cc");                   \
        break;                                                                                                         \
    case 4:                                                                                                            \
        __asm__(insn "l %k3; pushfq; popq %1" : "+a"(a), "=r"(flags), "+d"(d) : "r"(source) : "cc");                   \
        break;                                                                                                         \
    default:                                                                                                           \
        __asm__(insn "q %3; pushfq; popq %1" : "+a"(a), "=r"(flags), "+d"(d) : "r"(source) : "cc");                    \
        break;                                                                                                         \
    }

static const struct operand *explicit_operand(const struct iop *op)
{
    /* the accumulator is listed as an implicit operand: the explicit one is memory, or has ModRM */
    for (unsigned i = 0; i < op->insn.operand_count; i++)
        if (!op->insn.row->operands[i].implicit)
            return &op->insn.operands[i];
    return &op->insn.operands[0];
}

static int read_explicit(struct cpu *cpu, const struct iop *op, uint64_t *value, unsigned *size)
{
    const struct operand *o = explicit_operand(op);
    *size = o->size;
    return operand_read(cpu, op, (unsigned)(o - op->insn.operands), value);
}

enum step interp_mul(struct cpu *cpu, const struct iop *op)
{
    uint64_t source, flags = 0, a = cpu->gpr[REG_RAX], d = 0;
    unsigned size;
    if (read_explicit(cpu, op, &source, &size))
        return STEP_FAULT;
    HOST_MULTIPLY("mul", a, d, source, size, flags)
    write_double(cpu, size, a & size_mask(size), d & size_mask(size));
    set_flags(cpu, flags, FLAGS_ARITH);
    return STEP_NEXT;
}

enum step interp_imul1(struct cpu *cpu, const struct iop *op)
{
    uint64_t source, flags = 0, a = cpu->gpr[REG_RAX], d = 0;
    unsigned size;
    if (read_explicit(cpu, op, &source, &size))
        return STEP_FAULT;
    HOST_MULTIPLY("imul", a, d, source, size, flags)
    write_double(cpu, size, a & size_mask(size), d & size_mask(size));
    set_flags(cpu, flags, FLAGS_ARITH);
    return STEP_NEXT;
}

/* Two operands (op0 *= op1) or three (op0 = op1 * immediate). */
enum step interp_imul(struct cpu *cpu, const struct iop *op)
{
    const struct operand *o = op->insn.operands;
    bool three = op->insn.operand_count == 3;
    uint64_t a, b, flags;
    if (operand_read(cpu, op, 1, &b))
        return STEP_FAULT;
    a = three ? (uint64_t)op->insn.imm : gpr_read(cpu, &o[0]);
    switch (o[0].size) {
    case 2:
        __asm__("imulw %w2, %w0; pushfq; popq %1" : "+r"(b), "=r"(flags) : "r"(a) : "cc");
        break;
    case 4:
        __asm__("imull %k2, %k0; pushfq; popq %1" : "+r"(b), "=r"(flags) : "r"(a) : "cc");
        break;
    default:
        __asm__("imulq %2, %0; pushfq; popq %1" : "+r"(b), "=r"(flags) : "r"(a) : "cc");
        break;
    }
    gpr_write(cpu, &o[0], b);
    set_flags(cpu, flags, FLAGS_ARITH);
    return STEP_NEXT;
}

enum step interp_mulx(struct cpu *cpu, const struct iop *op)
{
    const struct operand *o = op->insn.operands;
    uint64_t source;
    if (operand_read(cpu, op, 2, &source))
        return STEP_FAULT;
    unsigned __int128 product =
        o[2].size == 8 ? (unsigned __int128)cpu->gpr[REG_RDX] * source : (uint64_t)(uint32_t)cpu->gpr[REG_RDX] * source;
    unsigned bits = o[2].size * 8;
    /* if both destinations are one register, it gets the high half */
    gpr_write(cpu, &o[1], (uint64_t)product);
    gpr_write(cpu, &o[0], (uint64_t)(product >> bits));
    return STEP_NEXT;
}

/* ---- Divide: #DE on zero and on a quotient that does not fit; checked here, so the host never traps ---- */

enum step interp_div(struct cpu *cpu, const struct iop *op)
{
    uint64_t divisor;
    unsigned size;
    if (read_explicit(cpu, op, &divisor, &size))
        return STEP_FAULT;
    uint64_t mask = size_mask(size);
    uint64_t low = size == 1 ? cpu->gpr[REG_RAX] & 0xff : cpu->gpr[REG_RAX] & mask;
    uint64_t high = size == 1 ? cpu->gpr[REG_RAX] >> 8 & 0xff : cpu->gpr[REG_RDX] & mask;
    if (high >= divisor)
        return step_fault(cpu, VECTOR_DE, 0);
    uint64_t quotient, remainder;
    if (size == 8) {
        __asm__("divq %4" : "=a"(quotient), "=d"(remainder) : "a"(low), "d"(high), "r"(divisor) : "cc");
    } else {
        uint64_t dividend = high << size * 8 | low;
        quotient = dividend / divisor;
        remainder = dividend % divisor;
    }
    write_double(cpu, size, quotient, remainder);
    return STEP_NEXT;
}

/* 128 by 64 bits, as magnitudes: the compiler's division of that width is a call of its library. False: the quotient does
 * not fit into 64 bits. */
static bool divide_signed(__int128 dividend, int64_t divisor, int64_t *quotient, int64_t *remainder)
{
    unsigned __int128 magnitude = dividend < 0 ? -(unsigned __int128)dividend : (unsigned __int128)dividend;
    uint64_t d = divisor < 0 ? -(uint64_t)divisor : (uint64_t)divisor, q, r;
    bool negative = (dividend < 0) != (divisor < 0);

    if ((uint64_t)(magnitude >> 64) >= d)
        return false;
    __asm__("divq %4" : "=a"(q), "=d"(r) : "a"((uint64_t)magnitude), "d"((uint64_t)(magnitude >> 64)), "r"(d) : "cc");
    if (q > BIT(63) - !negative)
        return false;
    *quotient = (int64_t)(negative ? -q : q);
    *remainder = (int64_t)(dividend < 0 ? -r : r);
    return true;
}

enum step interp_idiv(struct cpu *cpu, const struct iop *op)
{
    uint64_t raw;
    unsigned size;
    if (read_explicit(cpu, op, &raw, &size))
        return STEP_FAULT;
    int64_t divisor = sign_extend(raw, size);
    if (!divisor)
        return step_fault(cpu, VECTOR_DE, 0);
    uint64_t mask = size_mask(size);
    __int128 dividend;
    if (size == 1)
        dividend = (int16_t)cpu->gpr[REG_RAX];
    else if (size == 8)
        dividend = (__int128)((unsigned __int128)cpu->gpr[REG_RDX] << 64 | cpu->gpr[REG_RAX]);
    else
        dividend = sign_extend((cpu->gpr[REG_RDX] & mask) << size * 8 | (cpu->gpr[REG_RAX] & mask), size * 2);
    int64_t quotient, remainder;
    if (!divide_signed(dividend, divisor, &quotient, &remainder) || quotient != sign_extend((uint64_t)quotient, size))
        return step_fault(cpu, VECTOR_DE, 0);
    write_double(cpu, size, (uint64_t)quotient & mask, (uint64_t)remainder & mask);
    return STEP_NEXT;
}

/* ---- Double shifts ---- */

#define HOST_DOUBLE_SHIFT(insn, d, s, count, size, flags)                                                              \
    switch (size) {                                                                                                    \
    case 2:                                                                                                            \
        __asm__(insn "w %%cl, %w2, %w0; pushfq; popq %1" : "+r"(d), "=r"(flags) : "r"(s), "c"(count) : "cc");          \
        break;                                                                                                         \
    case 4:                                                                                                            \
        __asm__(insn "l %%cl, %k2, %k0; pushfq; popq %1" : "+r"(d), "=r"(flags) : "r"(s), "c"(count) : "cc");          \
        break;                                                                                                         \
    default:                                                                                                           \
        __asm__(insn "q %%cl, %2, %0; pushfq; popq %1" : "+r"(d), "=r"(flags) : "r"(s), "c"(count) : "cc");            \
        break;                                                                                                         \
    }

/* A destination that is read and written is looked up for writing at once: its #PF says so. */
static int probe_destination(struct cpu *cpu, const struct iop *op)
{
    const struct operand *o = op->insn.operands;
    gva_t gva;
    if (o[0].kind != OPERAND_MEM)
        return 0;
    if (op_address(cpu, op, o[0].size, true, &gva))
        return -1;
    return mem_probe_write_linear(cpu, gva, o[0].size, cpu->privilege, op_uses_stack_segment(op));
}

static enum step double_shift(struct cpu *cpu, const struct iop *op, bool left)
{
    const struct operand *o = op->insn.operands;
    uint64_t d, count, flags = 0, s = gpr_read(cpu, &o[1]);
    if (probe_destination(cpu, op) || operand_read(cpu, op, 2, &count) || operand_read(cpu, op, 0, &d))
        return STEP_FAULT;
    count &= o[0].size == 8 ? 63 : 31;
    if (!count) /* a 32-bit register is still written, hence zero-extended */
        return operand_write(cpu, op, 0, d) ? STEP_FAULT : STEP_NEXT;
    if (left) {
        HOST_DOUBLE_SHIFT("shld", d, s, count, o[0].size, flags)
    } else {
        HOST_DOUBLE_SHIFT("shrd", d, s, count, o[0].size, flags)
    }
    if (operand_write(cpu, op, 0, d))
        return STEP_FAULT;
    set_flags(cpu, flags, FLAGS_ARITH);
    return STEP_NEXT;
}

enum step interp_shld(struct cpu *cpu, const struct iop *op)
{
    return double_shift(cpu, op, true);
}

enum step interp_shrd(struct cpu *cpu, const struct iop *op)
{
    return double_shift(cpu, op, false);
}

/* ---- Bit tests ----
 * With a register offset and a memory operand the offset is signed and reaches outside the
 * operand: the address moves by whole operands (SDM BT). */

enum bit_action { BIT_TEST, BIT_SET, BIT_RESET, BIT_COMPLEMENT };

static uint64_t bit_apply(uint64_t value, uint64_t bit, enum bit_action action)
{
    return action == BIT_SET          ? value | bit
           : action == BIT_RESET      ? value & ~bit
           : action == BIT_COMPLEMENT ? value ^ bit
                                      : value;
}

static enum step bit_string(struct cpu *cpu, const struct iop *op, enum bit_action action)
{
    const struct operand *o = op->insn.operands;
    unsigned size = o[0].size, width = size * 8;
    int64_t offset = o[1].kind == OPERAND_IMM ? (op->insn.imm & (width - 1)) : sign_extend(gpr_read(cpu, &o[1]), size);
    uint64_t bit = 1ull << (offset & (width - 1)), old;
    if (o[0].kind != OPERAND_MEM) {
        old = gpr_read(cpu, &o[0]);
        if (action != BIT_TEST)
            gpr_write(cpu, &o[0], bit_apply(old, bit, action));
        set_flags(cpu, old & bit ? FLAG_CF : 0, FLAG_CF);
        return STEP_NEXT;
    }
    struct iop moved = *op;
    moved.disp += (offset >> (size == 8 ? 6 : size == 4 ? 5 : 4)) * (int64_t)size;
    if (action == BIT_TEST) {
        old = 0;
        if (op_mem_read(cpu, &moved, &old, size))
            return STEP_FAULT;
        set_flags(cpu, old & bit ? FLAG_CF : 0, FLAG_CF);
        return STEP_NEXT;
    }
    struct atomic_access access;
    if (op_atomic_begin(cpu, &moved, size, &access))
        return STEP_FAULT;
    /* atomic with and without LOCK: stronger than asked for does no harm */
    switch (size) {
    case 2: {
        uint16_t *cell = (uint16_t *)access.host;
        old = __atomic_load_n(cell, __ATOMIC_RELAXED);
        for (uint16_t seen = (uint16_t)old;
             !__atomic_compare_exchange_n(cell, &seen, (uint16_t)bit_apply(seen, bit, action), false, __ATOMIC_SEQ_CST,
                                          __ATOMIC_RELAXED);)
            old = seen;
        break;
    }
    case 4: {
        uint32_t *cell = (uint32_t *)access.host;
        old = action == BIT_SET     ? __atomic_fetch_or(cell, (uint32_t)bit, __ATOMIC_SEQ_CST)
              : action == BIT_RESET ? __atomic_fetch_and(cell, ~(uint32_t)bit, __ATOMIC_SEQ_CST)
                                    : __atomic_fetch_xor(cell, (uint32_t)bit, __ATOMIC_SEQ_CST);
        break;
    }
    default: {
        uint64_t *cell = (uint64_t *)access.host;
        old = action == BIT_SET     ? __atomic_fetch_or(cell, bit, __ATOMIC_SEQ_CST)
              : action == BIT_RESET ? __atomic_fetch_and(cell, ~bit, __ATOMIC_SEQ_CST)
                                    : __atomic_fetch_xor(cell, bit, __ATOMIC_SEQ_CST);
        break;
    }
    }
    if (op_atomic_end(cpu, &access, true))
        return STEP_FAULT;
    set_flags(cpu, old & bit ? FLAG_CF : 0, FLAG_CF);
    return STEP_NEXT;
}

enum step interp_bt(struct cpu *cpu, const struct iop *op)
{
    return bit_string(cpu, op, BIT_TEST);
}
enum step interp_bts(struct cpu *cpu, const struct iop *op)
{
    return bit_string(cpu, op, BIT_SET);
}
enum step interp_btr(struct cpu *cpu, const struct iop *op)
{
    return bit_string(cpu, op, BIT_RESET);
}
enum step interp_btc(struct cpu *cpu, const struct iop *op)
{
    return bit_string(cpu, op, BIT_COMPLEMENT);
}

/* ---- Counts and scans: destination op0, source op1; all from the host, so that the destination
 * of BSF and BSR with source 0 and the undefined flags are the host's ---- */

#define HOST_SCAN(name, mnemonic)                                                                                      \
    enum step interp_##name(struct cpu *cpu, const struct iop *op)                                                     \
    {                                                                                                                  \
        const struct operand *o = op->insn.operands;                                                                   \
        uint64_t source, flags, result = cpu->gpr[o[0].reg];                                                           \
        if (operand_read(cpu, op, 1, &source))                                                                         \
            return STEP_FAULT;                                                                                         \
        switch (o[0].size) {                                                                                           \
        case 2:                                                                                                        \
            __asm__(mnemonic "w %w2, %w0; pushfq; popq %1" : "+r"(result), "=r"(flags) : "r"(source) : "cc");          \
            break;                                                                                                     \
        case 4:                                                                                                        \
            __asm__(mnemonic "l %k2, %k0; pushfq; popq %1" : "+r"(result), "=r"(flags) : "r"(source) : "cc");          \
            break;                                                                                                     \
        default:                                                                                                       \
            __asm__(mnemonic "q %2, %0; pushfq; popq %1" : "+r"(result), "=r"(flags) : "r"(source) : "cc");            \
            break;                                                                                                     \
        }                                                                                                              \
        cpu->gpr[o[0].reg] = result;                                                                                   \
        set_flags(cpu, flags, FLAGS_ARITH);                                                                            \
        return STEP_NEXT;                                                                                              \
    }
HOST_SCAN(bsf, "bsf")
HOST_SCAN(bsr, "bsr")
HOST_SCAN(popcnt, "popcnt")

/* TZCNT and LZCNT in terms of what every x86-64 host has (without BMI1/ABM they would run as BSF/BSR). */
static void set_count_flags(struct cpu *cpu, uint64_t source, uint64_t result)
{
    set_flags(cpu, (source ? 0 : FLAG_CF) | (result ? 0 : FLAG_ZF), FLAG_CF | FLAG_ZF);
}

enum step interp_tzcnt(struct cpu *cpu, const struct iop *op)
{
    const struct operand *o = op->insn.operands;
    if (!cpu_has(cpu, FEATURE_BMI1))
        return interp_bsf(cpu, op);
    uint64_t source;
    if (operand_read(cpu, op, 1, &source))
        return STEP_FAULT;
    uint64_t result = source ? (uint64_t)__builtin_ctzll(source) : o[0].size * 8;
    gpr_write(cpu, &o[0], result);
    set_count_flags(cpu, source, result);
    return STEP_NEXT;
}

enum step interp_lzcnt(struct cpu *cpu, const struct iop *op)
{
    const struct operand *o = op->insn.operands;
    if (!cpu_has(cpu, FEATURE_LZCNT))
        return interp_bsr(cpu, op);
    uint64_t source, width = o[0].size * 8;
    if (operand_read(cpu, op, 1, &source))
        return STEP_FAULT;
    uint64_t result = source ? (uint64_t)__builtin_clzll(source) - (64 - width) : width;
    gpr_write(cpu, &o[0], result);
    set_count_flags(cpu, source, result);
    return STEP_NEXT;
}

/* CRC-32C, bit by bit over a 256-entry table would be state; the host has the instruction whenever the
 * guest may see it (CPUID gating), so use it. */
enum step interp_crc32(struct cpu *cpu, const struct iop *op)
{
    if (!cpu_has(cpu, FEATURE_SSE42))
        return step_fault(cpu, VECTOR_UD, 0);
    const struct operand *o = op->insn.operands;
    uint64_t source, crc = (uint32_t)cpu->gpr[o[0].reg];
    if (operand_read(cpu, op, 1, &source))
        return STEP_FAULT;
    switch (o[1].size) {
    case 1:
        __asm__("crc32b %b1, %k0" : "+r"(crc) : "r"(source));
        break;
    case 2:
        __asm__("crc32w %w1, %k0" : "+r"(crc) : "r"(source));
        break;
    case 4:
        __asm__("crc32l %k1, %k0" : "+r"(crc) : "r"(source));
        break;
    default:
        __asm__("crc32q %1, %0" : "+r"(crc) : "r"(source));
        break;
    }
    cpu->gpr[o[0].reg] = crc;
    return STEP_NEXT;
}

/* ---- Flags ---- */

enum step interp_lahf(struct cpu *cpu, const struct iop *op)
{
    if (op->insn.code_size == CODE64 && !cpu_has(cpu, FEATURE_LAHF_LM))
        return step_fault(cpu, VECTOR_UD, 0);
    cpu->gpr[REG_RAX] = (cpu->gpr[REG_RAX] & ~0xff00ull) | (cpu->rflags & 0xff) << 8;
    return STEP_NEXT;
}

enum step interp_sahf(struct cpu *cpu, const struct iop *op)
{
    if (op->insn.code_size == CODE64 && !cpu_has(cpu, FEATURE_LAHF_LM))
        return step_fault(cpu, VECTOR_UD, 0);
    set_flags(cpu, cpu->gpr[REG_RAX] >> 8, FLAG_SF | FLAG_ZF | FLAG_AF | FLAG_PF | FLAG_CF);
    return STEP_NEXT;
}

#define FLAG_HANDLER(name, statement)                                                                                  \
    enum step interp_##name(struct cpu *cpu, const struct iop *op)                                                     \
    {                                                                                                                  \
        (void)op;                                                                                                      \
        statement;                                                                                                     \
        return STEP_NEXT;                                                                                              \
    }
FLAG_HANDLER(clc, cpu->rflags &= ~(uint64_t)FLAG_CF)
FLAG_HANDLER(stc, cpu->rflags |= FLAG_CF)
FLAG_HANDLER(cmc, cpu->rflags ^= FLAG_CF)
FLAG_HANDLER(cld, cpu->rflags &= ~(uint64_t)FLAG_DF)
FLAG_HANDLER(std, cpu->rflags |= FLAG_DF)

/* ---- No effect, and ordering ---- */

FLAG_HANDLER(nop, (void)cpu)
FLAG_HANDLER(prefetch, (void)cpu)
FLAG_HANDLER(pause, (void)cpu)
FLAG_HANDLER(lfence, __asm__ volatile("lfence" ::: "memory"); (void)cpu)
FLAG_HANDLER(mfence, __atomic_thread_fence(__ATOMIC_SEQ_CST); (void)cpu)
FLAG_HANDLER(sfence, __asm__ volatile("sfence" ::: "memory"); (void)cpu)

enum step interp_serialize(struct cpu *cpu, const struct iop *op)
{
    (void)op;
    return cpu_has(cpu, FEATURE_SERIALIZE) ? STEP_END : step_fault(cpu, VECTOR_UD, 0);
}

/* CLFLUSH and kin fault as a byte load does; there is no cache to flush. */
enum step interp_clflush(struct cpu *cpu, const struct iop *op)
{
    uint8_t byte;
    return op_mem_read(cpu, op, &byte, 1) ? STEP_FAULT : STEP_NEXT;
}

/* ---- Random numbers: the host's generator; CF = 0 means try again ---- */

#define HOST_RANDOM(name, feature)                                                                                     \
    enum step interp_##name(struct cpu *cpu, const struct iop *op)                                                     \
    {                                                                                                                  \
        uint64_t value;                                                                                                \
        uint8_t ok;                                                                                                    \
        if (!cpu_has(cpu, feature)) /* the host may lack it too */                                                     \
            return step_fault(cpu, VECTOR_UD, 0);                                                                      \
        __asm__ volatile(#name " %0; setc %1" : "=r"(value), "=qm"(ok) : : "cc");                                      \
        gpr_write(cpu, &op->insn.operands[0], ok ? value : 0);                                                         \
        set_flags(cpu, ok ? FLAG_CF : 0, FLAGS_ARITH);                                                                 \
        return STEP_NEXT;                                                                                              \
    }
HOST_RANDOM(rdrand, FEATURE_RDRAND)
HOST_RANDOM(rdseed, FEATURE_RDSEED)

enum step interp_rdpid(struct cpu *cpu, const struct iop *op)
{
    if (!cpu_has(cpu, FEATURE_RDPID))
        return step_fault(cpu, VECTOR_UD, 0);
    gpr_write(cpu, &op->insn.operands[0], cpu->msrs.tsc_aux);
    return STEP_NEXT;
}

/* ---- ADX, BMI1, BMI2 ---- */

static enum step add_with(struct cpu *cpu, const struct iop *op, uint64_t flag)
{
    if (!cpu_has(cpu, FEATURE_ADX))
        return step_fault(cpu, VECTOR_UD, 0);
    const struct operand *o = &op->insn.operands[0];
    uint64_t source;
    if (operand_read(cpu, op, 1, &source))
        return STEP_FAULT;
    unsigned __int128 sum = (unsigned __int128)gpr_read(cpu, o) + source + !!(cpu->rflags & flag);
    gpr_write(cpu, o, (uint64_t)sum);
    set_flags(cpu, sum >> o->size * 8 & 1 ? flag : 0, flag);
    return STEP_NEXT;
}
enum step interp_adcx(struct cpu *cpu, const struct iop *op)
{
    return add_with(cpu, op, FLAG_CF);
}
enum step interp_adox(struct cpu *cpu, const struct iop *op)
{
    return add_with(cpu, op, FLAG_OF);
}

static uint64_t sign_zero_flags(uint64_t value, unsigned size)
{
    return (value ? 0 : FLAG_ZF) | (value >> (size * 8 - 1) & 1 ? FLAG_SF : 0);
}
/* OF is cleared; AF and PF are undefined and stay. */
#define FLAGS_BMI (FLAG_ZF | FLAG_SF | FLAG_CF | FLAG_OF)

enum step interp_andn(struct cpu *cpu, const struct iop *op)
{
    const struct operand *o = op->insn.operands;
    uint64_t source;
    if (check_exception_class(cpu, op->insn.row) || operand_read(cpu, op, 2, &source))
        return STEP_FAULT;
    uint64_t result = ~gpr_read(cpu, &o[1]) & source & size_mask(o[0].size);
    gpr_write(cpu, &o[0], result);
    set_flags(cpu, sign_zero_flags(result, o[0].size), FLAGS_BMI);
    return STEP_NEXT;
}

enum step interp_bextr(struct cpu *cpu, const struct iop *op)
{
    const struct operand *o = op->insn.operands;
    uint64_t source;
    if (check_exception_class(cpu, op->insn.row) || operand_read(cpu, op, 1, &source))
        return STEP_FAULT;
    uint64_t control = gpr_read(cpu, &o[2]);
    unsigned start = control & 0xff, length = control >> 8 & 0xff;
    uint64_t result = start < 64 ? source >> start : 0;
    if (length < 64)
        result &= (1ull << length) - 1;
    gpr_write(cpu, &o[0], result);
    set_flags(cpu, result ? 0 : FLAG_ZF, FLAG_ZF | FLAG_CF | FLAG_OF);
    return STEP_NEXT;
}

#define BLS(name, expression, carry)                                                                                   \
    enum step interp_##name(struct cpu *cpu, const struct iop *op)                                                     \
    {                                                                                                                  \
        const struct operand *o = op->insn.operands;                                                                   \
        uint64_t x;                                                                                                    \
        if (check_exception_class(cpu, op->insn.row) || operand_read(cpu, op, 1, &x))                                  \
            return STEP_FAULT;                                                                                         \
        uint64_t result = (expression)&size_mask(o[0].size);                                                           \
        gpr_write(cpu, &o[0], result);                                                                                 \
        set_flags(cpu, sign_zero_flags(result, o[0].size) | ((carry) ? FLAG_CF : 0), FLAGS_BMI);                       \
        return STEP_NEXT;                                                                                              \
    }
BLS(blsi, x & -x, x != 0)
BLS(blsmsk, x ^ (x - 1), x == 0)
BLS(blsr, x &(x - 1), x == 0)

enum step interp_bzhi(struct cpu *cpu, const struct iop *op)
{
    const struct operand *o = op->insn.operands;
    uint64_t source;
    if (check_exception_class(cpu, op->insn.row) || operand_read(cpu, op, 1, &source))
        return STEP_FAULT;
    unsigned index = gpr_read(cpu, &o[2]) & 0xff, width = o[0].size * 8;
    uint64_t result = index < width ? source & ((1ull << index) - 1) : source;
    gpr_write(cpu, &o[0], result);
    set_flags(cpu, sign_zero_flags(result, o[0].size) | (index >= width ? FLAG_CF : 0), FLAGS_BMI);
    return STEP_NEXT;
}

enum step interp_pdep(struct cpu *cpu, const struct iop *op)
{
    const struct operand *o = op->insn.operands;
    uint64_t mask, result = 0;
    if (check_exception_class(cpu, op->insn.row) || operand_read(cpu, op, 2, &mask))
        return STEP_FAULT;
    for (uint64_t source = gpr_read(cpu, &o[1]); mask; mask &= mask - 1, source >>= 1)
        if (source & 1)
            result |= mask & -mask;
    gpr_write(cpu, &o[0], result);
    return STEP_NEXT;
}

enum step interp_pext(struct cpu *cpu, const struct iop *op)
{
    const struct operand *o = op->insn.operands;
    uint64_t mask, result = 0, source = gpr_read(cpu, &o[1]);
    if (check_exception_class(cpu, op->insn.row) || operand_read(cpu, op, 2, &mask))
        return STEP_FAULT;
    for (uint64_t bit = 1; mask; mask &= mask - 1, bit <<= 1)
        if (source & mask & -mask)
            result |= bit;
    gpr_write(cpu, &o[0], result);
    return STEP_NEXT;
}

enum step interp_rorx(struct cpu *cpu, const struct iop *op)
{
    const struct operand *o = op->insn.operands;
    uint64_t source;
    if (check_exception_class(cpu, op->insn.row) || operand_read(cpu, op, 1, &source))
        return STEP_FAULT;
    unsigned width = o[0].size * 8, count = (unsigned)op->insn.imm & (width - 1);
    gpr_write(cpu, &o[0], count ? source >> count | source << (width - count) : source);
    return STEP_NEXT;
}

enum shift_x { SHIFT_SAR, SHIFT_SHL, SHIFT_SHR };
static enum step shift_x(struct cpu *cpu, const struct iop *op, enum shift_x kind)
{
    const struct operand *o = op->insn.operands;
    uint64_t source;
    if (check_exception_class(cpu, op->insn.row) || operand_read(cpu, op, 1, &source))
        return STEP_FAULT;
    unsigned count = gpr_read(cpu, &o[2]) & (o[0].size * 8 - 1);
    uint64_t result = kind == SHIFT_SHL   ? source << count
                      : kind == SHIFT_SHR ? source >> count
                                          : (uint64_t)(sign_extend(source, o[0].size) >> count);
    gpr_write(cpu, &o[0], result);
    return STEP_NEXT;
}
enum step interp_sarx(struct cpu *cpu, const struct iop *op)
{
    return shift_x(cpu, op, SHIFT_SAR);
}
enum step interp_shlx(struct cpu *cpu, const struct iop *op)
{
    return shift_x(cpu, op, SHIFT_SHL);
}
enum step interp_shrx(struct cpu *cpu, const struct iop *op)
{
    return shift_x(cpu, op, SHIFT_SHR);
}
