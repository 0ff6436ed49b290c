/* String instructions and port I/O. With REP, runs within pages are done as block moves; a part at a
 * time, so that interrupts, faults and single-stepping see exact registers at every element boundary.
 *
 * vCPU thread only. SDM Vol. 1 7.3.9, Vol. 2 MOVS, CMPS, SCAS, LODS, STOS, INS, OUTS, REP. */
#include "cpu/interp/interp_fast.h"

struct string_op {
    unsigned size; /* of an element */
    int64_t step;  /* +size or -size by DF */
    uint64_t mask; /* address size */
    enum segment source;
    uint64_t count; /* elements left; 1 without REP */
    bool repeated;
};

static struct string_op string_begin(const struct cpu *cpu, const struct iop *op)
{
    const struct insn *insn = &op->insn;
    struct string_op s = {
        .size = insn->operands[0].kind == OPERAND_MEM ? insn->operands[0].size : insn->operands[1].size,
        .mask = insn->address_size == 8   ? ~0ull
                : insn->address_size == 4 ? 0xffffffffull
                                          : 0xffff,
        .source = insn->segment_prefix ? (enum segment)(insn->segment_prefix - 1) : SEG_DS,
        .repeated = insn->rep != REP_NONE,
    };
    if (insn->code_size == CODE64 && s.source < SEG_FS)
        s.source = SEG_DS; /* such prefixes are ignored: #GP, not #SS */
    s.step = cpu->rflags & FLAG_DF ? -(int64_t)s.size : (int64_t)s.size;
    s.count = s.repeated ? cpu->gpr[REG_RCX] & s.mask : 1;
    return s;
}

/* 32-bit address size zero-extends the register, 16-bit leaves the upper part. */
static void set_masked(struct cpu *cpu, unsigned reg, uint64_t value, uint64_t mask)
{
    cpu->gpr[reg] = mask == 0xffff ? (cpu->gpr[reg] & ~mask) | (value & mask) : value & mask;
}

static void advance(struct cpu *cpu, const struct string_op *s, unsigned reg, uint64_t elements)
{
    set_masked(cpu, reg, cpu->gpr[reg] + (uint64_t)s->step * elements, s->mask);
}

static void count_down(struct cpu *cpu, struct string_op *s, uint64_t elements)
{
    s->count -= elements;
    if (s->repeated)
        set_masked(cpu, REG_RCX, s->count, s->mask);
}

/* With REP and 32-bit addresses Intel's processors zero-extend registers before they look at the count or the
 * first element: rCX, and the pointers too if `pointers` (MOVS, STOS). */
static void zero_extend(struct cpu *cpu, const struct string_op *s, bool pointers)
{
    if (!s->repeated || s->mask != 0xffffffff)
        return;
    cpu->gpr[REG_RCX] &= s->mask;
    if (pointers)
        cpu->gpr[REG_RDI] &= s->mask;
}

static int string_address(struct cpu *cpu, const struct iop *op, const struct string_op *s, unsigned reg,
                          enum segment seg, bool write, gva_t *gva)
{
    /* in 64-bit mode there is no limit: where the element ends is looked at by the access, after its alignment */
    unsigned size = op->insn.code_size == CODE64 ? 1 : s->size;
    return mem_segment_linear(cpu, seg, cpu->gpr[reg] & s->mask, size, write, op->insn.code_size, gva);
}

/* Elements from gva to the end of its page in the direction of travel. 0: the element crosses. */
static uint64_t elements_in_page(const struct string_op *s, gva_t gva)
{
    uint64_t offset = gva & ~PAGE_MASK;
    if (offset + s->size > PAGE_SIZE)
        return 0;
    return s->step > 0 ? (PAGE_SIZE - offset) / s->size : offset / s->size + 1;
}

/* How many elements may be done in one go from here: 1 when single-stepping, or if offsets could wrap or leave
 * a limit. (Segments with limits: element by element.) */
static uint64_t run_length(const struct cpu *cpu, const struct iop *op, const struct string_op *s, unsigned reg,
                           gva_t gva)
{
    if (op->segment_checked || cpu->rflags & FLAG_TF || cpu->checked_access)
        return 1;
    uint64_t offset = cpu->gpr[reg] & s->mask;
    uint64_t room = s->step > 0 ? (s->mask - offset) / s->size : offset / s->size;
    return MIN(MIN(elements_in_page(s, gva), s->count), room);
}

/* After each part: go on, or let the engine look at events (the instruction restarts). */
static bool must_leave(const struct cpu *cpu)
{
    return atomic_load_explicit(&cpu->events, memory_order_relaxed) || cpu->rflags & FLAG_TF || cpu->pending_debug;
}

static enum step leave(struct cpu *cpu, const struct iop *op, const struct string_op *s, bool done)
{
    if (done || !s->count)
        return STEP_NEXT;
    cpu->cpu_rip = iop_ip(cpu, op);
    cpu->rflags |= FLAG_RF; /* what an event between two iterations pushes (SDM Vol. 3B 18.3.1.1) */
    return STEP_REPEAT;
}

static void fill(uint8_t *host, const void *element, unsigned size, uint64_t count)
{
    uint64_t value = 0;
    memcpy(&value, element, size);
    switch (size) {
    case 1:
        memset(host, (int)value, count);
        return;
    case 2:
        for (uint64_t i = 0; i < count; i++)
            memcpy(host + i * 2, &value, 2);
        return;
    case 4:
        for (uint64_t i = 0; i < count; i++)
            memcpy(host + i * 4, &value, 4);
        return;
    default:
        for (uint64_t i = 0; i < count; i++)
            memcpy(host + i * 8, &value, 8);
        return;
    }
}

enum step interp_stos(struct cpu *cpu, const struct iop *op)
{
    struct string_op s = string_begin(cpu, op);
    zero_extend(cpu, &s, true);
    while (s.count) {
        gva_t gva;
        if (string_address(cpu, op, &s, REG_RDI, SEG_ES, true, &gva))
            return STEP_FAULT;
        uint64_t run = run_length(cpu, op, &s, REG_RDI, gva);
        uint64_t bytes = run * s.size;
        gva_t lowest = s.step > 0 ? gva : gva + s.size - bytes;
        uint8_t *host = run > 1 ? fast_write(cpu, lowest, (unsigned)bytes) : NULL;
        if (host) {
            fill(host, &cpu->gpr[REG_RAX], s.size, run);
        } else {
            run = 1;
            if (mem_write_linear(cpu, gva, &cpu->gpr[REG_RAX], s.size, cpu->privilege, false))
                return STEP_FAULT;
        }
        advance(cpu, &s, REG_RDI, run);
        count_down(cpu, &s, run);
        if (must_leave(cpu))
            break;
    }
    return leave(cpu, op, &s, false);
}

/* A forward move onto higher, overlapping bytes repeats the pattern: only then is the order of
 * elements visible. */
static bool order_matters(const uint8_t *to, const uint8_t *from, uint64_t bytes, int64_t step)
{
    return step > 0 ? to > from && to < from + bytes : to < from && from < to + bytes;
}

static void copy_elements(uint8_t *to, const uint8_t *from, const struct string_op *s, uint64_t run)
{
    int64_t offset = s->step > 0 ? 0 : (int64_t)((run - 1) * s->size);
    for (uint64_t i = 0; i < run; i++, offset += s->step) {
        uint64_t element = 0;
        memcpy(&element, from + offset, s->size);
        memcpy(to + offset, &element, s->size);
    }
}

/* A fault of the source comes before one of the destination, whose address is wrong. */
static enum step movs_bad_destination(struct cpu *cpu, const struct string_op *s, gva_t from)
{
    struct fault fault = cpu->fault;
    uint64_t element;
    if (!mem_read_linear(cpu, from, &element, s->size, cpu->privilege, s->source == SEG_SS))
        cpu->fault = fault;
    return STEP_FAULT;
}

enum step interp_movs(struct cpu *cpu, const struct iop *op)
{
    struct string_op s = string_begin(cpu, op);
    zero_extend(cpu, &s, true);
    if (s.repeated && s.mask == 0xffffffff)
        cpu->gpr[REG_RSI] &= s.mask;
    while (s.count) {
        gva_t from, to;
        if (string_address(cpu, op, &s, REG_RSI, s.source, false, &from))
            return STEP_FAULT;
        if (string_address(cpu, op, &s, REG_RDI, SEG_ES, true, &to))
            return movs_bad_destination(cpu, &s, from);
        uint64_t run = MIN(run_length(cpu, op, &s, REG_RSI, from), run_length(cpu, op, &s, REG_RDI, to));
        uint64_t bytes = run * s.size;
        uint64_t back = s.step > 0 ? 0 : bytes - s.size;
        const uint8_t *source = run > 1 ? fast_read(cpu, from - back, (unsigned)bytes) : NULL;
        uint8_t *target = source ? fast_write(cpu, to - back, (unsigned)bytes) : NULL;
        if (target && !order_matters(target, source, bytes, s.step)) {
            memmove(target, source, bytes);
        } else if (target) {
            copy_elements(target, source, &s, run);
        } else {
            uint64_t element = 0;
            run = 1;
            if (mem_read_linear(cpu, from, &element, s.size, cpu->privilege, s.source == SEG_SS) ||
                mem_write_linear(cpu, to, &element, s.size, cpu->privilege, false))
                return STEP_FAULT;
        }
        advance(cpu, &s, REG_RSI, run);
        advance(cpu, &s, REG_RDI, run);
        count_down(cpu, &s, run);
        if (must_leave(cpu))
            break;
    }
    return leave(cpu, op, &s, false);
}

enum step interp_lods(struct cpu *cpu, const struct iop *op)
{
    struct string_op s = string_begin(cpu, op);
    zero_extend(cpu, &s, false);
    while (s.count) {
        gva_t from;
        uint64_t element = 0;
        if (string_address(cpu, op, &s, REG_RSI, s.source, false, &from) ||
            mem_read_linear(cpu, from, &element, s.size, cpu->privilege, s.source == SEG_SS))
            return STEP_FAULT;
        struct operand accumulator = { .kind = OPERAND_GPR, .reg = REG_RAX, .size = (uint16_t)s.size };
        gpr_write(cpu, &accumulator, element);
        advance(cpu, &s, REG_RSI, 1);
        count_down(cpu, &s, 1);
        if (must_leave(cpu))
            break;
    }
    return leave(cpu, op, &s, false);
}

static uint64_t compare_flags(uint64_t a, uint64_t b, unsigned size)
{
    uint64_t flags;
    switch (size) {
    case 1:
        __asm__("cmpb %b2, %b1; pushfq; popq %0" : "=r"(flags) : "r"(a), "r"(b) : "cc");
        break;
    case 2:
        __asm__("cmpw %w2, %w1; pushfq; popq %0" : "=r"(flags) : "r"(a), "r"(b) : "cc");
        break;
    case 4:
        __asm__("cmpl %k2, %k1; pushfq; popq %0" : "=r"(flags) : "r"(a), "r"(b) : "cc");
        break;
    default:
        __asm__("cmpq %2, %1; pushfq; popq %0" : "=r"(flags) : "r"(a), "r"(b) : "cc");
        break;
    }
    return flags;
}

/* REPE goes on while equal (F3), REPNE while different (F2). */
static bool comparison_ends(const struct cpu *cpu, const struct iop *op)
{
    return op->insn.rep == REP_F3 ? !(cpu->rflags & FLAG_ZF) : op->insn.rep == REP_F2 && cpu->rflags & FLAG_ZF;
}

/* A fault in a repeated comparison leaves the flags of before the instruction (SDM Vol. 2B REP). */
static enum step comparison_faults(struct cpu *cpu, uint64_t rflags)
{
    set_flags(cpu, rflags, FLAGS_ARITH);
    return STEP_FAULT;
}

enum step interp_scas(struct cpu *cpu, const struct iop *op)
{
    struct string_op s = string_begin(cpu, op);
    uint64_t rflags = cpu->rflags;
    bool done = false;
    zero_extend(cpu, &s, false);
    while (s.count && !done) {
        gva_t at;
        uint64_t element = 0;
        if (string_address(cpu, op, &s, REG_RDI, SEG_ES, false, &at) ||
            mem_read_linear(cpu, at, &element, s.size, cpu->privilege, false))
            return comparison_faults(cpu, rflags);
        set_flags(cpu, compare_flags(cpu->gpr[REG_RAX], element, s.size), FLAGS_ARITH);
        advance(cpu, &s, REG_RDI, 1);
        count_down(cpu, &s, 1);
        done = comparison_ends(cpu, op);
        if (must_leave(cpu))
            break;
    }
    return leave(cpu, op, &s, done);
}

/* ES:rDI is read first, as processors do. */
enum step interp_cmps(struct cpu *cpu, const struct iop *op)
{
    struct string_op s = string_begin(cpu, op);
    uint64_t rflags = cpu->rflags;
    bool done = false;
    zero_extend(cpu, &s, false);
    while (s.count && !done) {
        gva_t first, second;
        uint64_t a = 0, b = 0;
        if (string_address(cpu, op, &s, REG_RDI, SEG_ES, false, &second) ||
            mem_read_linear(cpu, second, &b, s.size, cpu->privilege, false) ||
            string_address(cpu, op, &s, REG_RSI, s.source, false, &first) ||
            mem_read_linear(cpu, first, &a, s.size, cpu->privilege, s.source == SEG_SS))
            return comparison_faults(cpu, rflags);
        set_flags(cpu, compare_flags(a, b, s.size), FLAGS_ARITH);
        advance(cpu, &s, REG_RSI, 1);
        advance(cpu, &s, REG_RDI, 1);
        count_down(cpu, &s, 1);
        done = comparison_ends(cpu, op);
        if (must_leave(cpu))
            break;
    }
    return leave(cpu, op, &s, done);
}

/* ---- Ports ---- */

static uint32_t port_read(struct cpu *cpu, uint16_t port, unsigned size)
{
    if (unlikely(cpu->io_breakpoints))
        debug_check_io(cpu, port, size);
    cpu_park_vectors(cpu);
    return port_space_read(cpu->ports, port, size);
}

static void port_write(struct cpu *cpu, uint16_t port, unsigned size, uint32_t value)
{
    if (unlikely(cpu->io_breakpoints))
        debug_check_io(cpu, port, size);
    cpu_park_vectors(cpu);
    port_space_write(cpu->ports, port, size, value);
}

/* The destination is checked before the port is read: reading has effects. */
enum step interp_ins(struct cpu *cpu, const struct iop *op)
{
    struct string_op s = string_begin(cpu, op);
    uint16_t port = (uint16_t)cpu->gpr[REG_RDX];
    if (s.size > 4)
        s.size = 4;
    if (cpu_check_io(cpu, port, s.size))
        return STEP_FAULT;
    zero_extend(cpu, &s, false);
    while (s.count) {
        gva_t to;
        if (string_address(cpu, op, &s, REG_RDI, SEG_ES, true, &to) ||
            mem_probe_write_linear(cpu, to, s.size, cpu->privilege, false))
            return STEP_FAULT;
        uint32_t value = port_read(cpu, port, s.size);
        if (mem_write_linear(cpu, to, &value, s.size, cpu->privilege, false))
            return STEP_FAULT;
        advance(cpu, &s, REG_RDI, 1);
        count_down(cpu, &s, 1);
        if (must_leave(cpu))
            break;
    }
    return leave(cpu, op, &s, false);
}

enum step interp_outs(struct cpu *cpu, const struct iop *op)
{
    struct string_op s = string_begin(cpu, op);
    uint16_t port = (uint16_t)cpu->gpr[REG_RDX];
    if (cpu_check_io(cpu, port, s.size))
        return STEP_FAULT;
    zero_extend(cpu, &s, false);
    while (s.count) {
        gva_t from;
        uint32_t value = 0;
        if (string_address(cpu, op, &s, REG_RSI, s.source, false, &from) ||
            mem_read_linear(cpu, from, &value, s.size, cpu->privilege, s.source == SEG_SS))
            return STEP_FAULT;
        port_write(cpu, port, s.size, value);
        advance(cpu, &s, REG_RSI, 1);
        count_down(cpu, &s, 1);
        if (must_leave(cpu))
            break;
    }
    return leave(cpu, op, &s, false);
}

/* IN accumulator, port; OUT port, accumulator: the port is an immediate byte or DX. Ends the block, so that an
 * interrupt that the access caused is seen at once. */
static uint16_t port_of(struct cpu *cpu, const struct iop *op, unsigned n)
{
    return op->insn.operands[n].kind == OPERAND_IMM ? (uint8_t)op->insn.imm : (uint16_t)cpu->gpr[REG_RDX];
}

enum step interp_in(struct cpu *cpu, const struct iop *op)
{
    const struct operand *accumulator = &op->insn.operands[0];
    uint16_t port = port_of(cpu, op, 1);
    if (cpu_check_io(cpu, port, accumulator->size))
        return STEP_FAULT;
    gpr_write(cpu, accumulator, port_read(cpu, port, accumulator->size));
    return STEP_END;
}

enum step interp_out(struct cpu *cpu, const struct iop *op)
{
    const struct operand *accumulator = &op->insn.operands[1];
    uint16_t port = port_of(cpu, op, 0);
    if (cpu_check_io(cpu, port, accumulator->size))
        return STEP_FAULT;
    port_write(cpu, port, accumulator->size, (uint32_t)gpr_read(cpu, accumulator));
    return STEP_END;
}
