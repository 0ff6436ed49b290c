/* Guest memory as the interpreter sees it: segmentation, canonical addresses, accesses that cross
 * pages, hit MMIO, the local APIC's page, pages with code in them, or watched addresses.
 *
 * Invariant: a write touches nothing until every page of it has been translated for writing, so an
 * instruction that faults has written nothing. vCPU thread only.
 * SDM Vol. 3A 3.4 (segments), 5.3 (limits), 3.3.7.1 (canonical addresses); Vol. 1 3.3.7. */
#include "cpu/interp/interp_fast.h"

#define MAX_PIECES 2 /* an access of at most 64 bytes crosses at most one page end */

struct piece {
    struct mmu_target target;
    unsigned size;
};

static int not_canonical(struct cpu *cpu, bool stack)
{
    return raise_fault(cpu, stack ? VECTOR_SS : VECTOR_GP, 0);
}

/* Flat 32-bit segments end at 4 GiB: predecoded accesses leave that check to the slow path. */
static bool passes_4gib(const struct cpu *cpu, gva_t gva, unsigned size)
{
    return cpu->code_size != CODE64 && gva <= 0xffffffff && gva + size - 1 > 0xffffffff &&
           (cpu_long_mode(cpu) || cpu->segs[SEG_DS].flat);
}

static gva_t next_page(const struct cpu *cpu, gva_t gva)
{
    gva_t next = (gva & PAGE_MASK) + PAGE_SIZE;
    return cpu_long_mode(cpu) ? next : (uint32_t)next;
}

/* What #AC is about (SDM Vol. 3A table 6-7): operands of 2, 4 and 8 bytes; vectors have rules of their own. */
static bool is_misaligned(gva_t gva, unsigned size)
{
    return size <= 8 && !(size & (size - 1)) && gva & (size - 1);
}

/* Splits [gva, gva + size) at the page end and translates both parts. Returns the number of
 * pieces or -1 with the fault. */
static int translate_pieces(struct cpu *cpu, gva_t gva, unsigned size, enum mmu_access access,
                            enum mmu_privilege privilege, bool stack, struct piece pieces[MAX_PIECES])
{
    int count = 0;
    bool long_mode = cpu_long_mode(cpu);
    /* The order is the host's: #GP for where the access begins, #AC, #GP for where it ends, #PF. */
    if (unlikely(long_mode && !is_canonical(gva)))
        return not_canonical(cpu, stack);
    if (unlikely(cpu->alignment_check) && privilege == MMU_USER && is_misaligned(gva, size))
        return raise_fault(cpu, VECTOR_AC, 0);
    if (unlikely(passes_4gib(cpu, gva, size) || (long_mode && !is_canonical(gva + size - 1))))
        return not_canonical(cpu, stack);
    while (size) {
        unsigned in_page = (unsigned)(PAGE_SIZE - (gva & ~PAGE_MASK));
        struct piece *piece = &pieces[count++];
        piece->size = MIN(size, in_page);
        if (mmu_translate(&cpu->mmu, gva, access, privilege, &piece->target, &cpu->fault))
            return -1;
        size -= piece->size;
        gva = next_page(cpu, gva);
    }
    return count;
}

static bool is_apic_page(const struct cpu *cpu, gpa_t gpa)
{
    return (gpa & PAGE_MASK) == cpu->mmu.apic_page && cpu->apic_ops;
}

static uint64_t mmio_read(struct cpu *cpu, gpa_t gpa, unsigned size)
{
    cpu_park_vectors(cpu);
    if (!is_apic_page(cpu, gpa))
        return physmem_mmio_read(cpu->physmem, gpa, size);
    return cpu_apic(cpu)->mmio_read(cpu->apic, (unsigned)(gpa & ~PAGE_MASK), size);
}

static void mmio_write(struct cpu *cpu, gpa_t gpa, unsigned size, uint64_t value)
{
    cpu_park_vectors(cpu);
    if (!is_apic_page(cpu, gpa))
        physmem_mmio_write(cpu->physmem, gpa, size, value);
    else
        cpu_apic(cpu)->mmio_write(cpu->apic, (unsigned)(gpa & ~PAGE_MASK), size, (uint32_t)value);
}

/* The largest power of two that divides the address and fits: how a wide access meets a device. */
static unsigned mmio_chunk(gpa_t gpa, unsigned size)
{
    unsigned chunk = 8;
    while (chunk > size || gpa & (chunk - 1))
        chunk >>= 1;
    return chunk;
}

static void read_piece(struct cpu *cpu, const struct piece *piece, uint8_t *buffer)
{
    if (piece->target.host) {
        /* common sizes with one access: the guest may rely on it being atomic */
        switch (piece->size) {
        case 2:
            memcpy(buffer, piece->target.host, 2);
            break;
        case 4:
            memcpy(buffer, piece->target.host, 4);
            break;
        case 8:
            memcpy(buffer, piece->target.host, 8);
            break;
        default:
            memcpy(buffer, piece->target.host, piece->size);
            break;
        }
        return;
    }
    for (unsigned done = 0; done < piece->size;) {
        unsigned chunk = mmio_chunk(piece->target.gpa + done, piece->size - done);
        uint64_t value = mmio_read(cpu, piece->target.gpa + done, chunk);
        memcpy(buffer + done, &value, chunk);
        done += chunk;
    }
}

static void write_piece(struct cpu *cpu, const struct piece *piece, const uint8_t *buffer)
{
    if (piece->target.host) {
        switch (piece->size) {
        case 2:
            memcpy(piece->target.host, buffer, 2);
            break;
        case 4:
            memcpy(piece->target.host, buffer, 4);
            break;
        case 8:
            memcpy(piece->target.host, buffer, 8);
            break;
        default:
            memcpy(piece->target.host, buffer, piece->size);
            break;
        }
        if (piece->target.notice)
            physmem_written(cpu->physmem, piece->target.gpa, piece->size);
        return;
    }
    for (unsigned done = 0; done < piece->size;) {
        unsigned chunk = mmio_chunk(piece->target.gpa + done, piece->size - done);
        uint64_t value = 0;
        memcpy(&value, buffer + done, chunk);
        mmio_write(cpu, piece->target.gpa + done, chunk, value);
        done += chunk;
    }
}

int mem_read_linear(struct cpu *cpu, gva_t gva, void *buffer, unsigned size, enum mmu_privilege privilege, bool stack)
{
    struct piece pieces[MAX_PIECES];
    int count = translate_pieces(cpu, gva, size, MMU_READ, privilege, stack, pieces);
    if (count < 0)
        return -1;
    uint8_t *bytes = buffer;
    for (int i = 0; i < count; i++, bytes += pieces[i - 1].size)
        read_piece(cpu, &pieces[i], bytes);
    if (unlikely(cpu->data_breakpoints))
        debug_check_data(cpu, gva, size, false);
    return 0;
}

int mem_write_linear(struct cpu *cpu, gva_t gva, const void *buffer, unsigned size, enum mmu_privilege privilege,
                     bool stack)
{
    struct piece pieces[MAX_PIECES];
    int count = translate_pieces(cpu, gva, size, MMU_WRITE, privilege, stack, pieces);
    if (count < 0)
        return -1;
    const uint8_t *bytes = buffer;
    for (int i = 0; i < count; i++, bytes += pieces[i - 1].size)
        write_piece(cpu, &pieces[i], bytes);
    if (unlikely(cpu->data_breakpoints))
        debug_check_data(cpu, gva, size, true);
    return 0;
}

int mem_probe_write_linear(struct cpu *cpu, gva_t gva, unsigned size, enum mmu_privilege privilege, bool stack)
{
    struct piece pieces[MAX_PIECES];
    return translate_pieces(cpu, gva, size, MMU_WRITE, privilege, stack, pieces) < 0 ? -1 : 0;
}

/* ---- Segmentation ---- */

static bool within_limit(const struct segment_register *seg, uint64_t offset, unsigned size)
{
    uint64_t last = offset + size - 1;
    bool expand_down = (seg->attributes & (SEG_ATTR_S | SEG_TYPE_CODE | SEG_TYPE_EXPAND_DOWN_OR_CONFORMING)) ==
                       (SEG_ATTR_S | SEG_TYPE_EXPAND_DOWN_OR_CONFORMING);
    if (!expand_down)
        return last <= seg->limit;
    uint64_t top = seg->attributes & SEG_ATTR_DB ? 0xffffffff : 0xffff;
    return offset > seg->limit && last <= top;
}

static bool type_allows(const struct cpu *cpu, const struct segment_register *seg, bool write)
{
    if (!cpu_protected(cpu) || cpu_v86(cpu))
        return true;
    if (seg->attributes & SEG_ATTR_UNUSABLE)
        return false;
    bool code = seg->attributes & SEG_TYPE_CODE, rw = seg->attributes & SEG_TYPE_RW;
    return write ? !code && rw : !code || rw;
}

int mem_segment_linear(struct cpu *cpu, enum segment seg, uint64_t offset, unsigned size, bool write, uint8_t code_size,
                       gva_t *gva)
{
    const struct segment_register *s = &cpu->segs[seg];
    if (code_size == CODE64) {
        *gva = offset + (seg >= SEG_FS ? s->base : 0);
        if (is_canonical(*gva) && is_canonical(*gva + size - 1))
            return 0;
    } else if (s->flat ? offset + size - 1 <= 0xffffffff
                       : type_allows(cpu, s, write) && within_limit(s, offset, size)) {
        *gva = (uint32_t)(s->base + offset);
        return 0;
    }
    return raise_fault(cpu, seg == SEG_SS ? VECTOR_SS : VECTOR_GP, 0);
}

int op_linear(struct cpu *cpu, const struct iop *op, unsigned size, bool write, gva_t *gva)
{
    return mem_segment_linear(cpu, op->insn.mem.segment, iop_effective_address(cpu, op), size, write,
                              op->insn.code_size, gva);
}

int op_mem_read(struct cpu *cpu, const struct iop *op, void *buffer, unsigned size)
{
    gva_t gva;
    if (op_address(cpu, op, size, false, &gva))
        return -1;
    const uint8_t *host = fast_read(cpu, gva, size);
    if (unlikely(!host))
        return mem_read_linear(cpu, gva, buffer, size, cpu->privilege, op_uses_stack_segment(op));
    memcpy(buffer, host, size);
    return 0;
}

int op_mem_write(struct cpu *cpu, const struct iop *op, const void *buffer, unsigned size)
{
    gva_t gva;
    if (op_address(cpu, op, size, true, &gva))
        return -1;
    uint8_t *host = fast_write(cpu, gva, size);
    if (unlikely(!host))
        return mem_write_linear(cpu, gva, buffer, size, cpu->privilege, op_uses_stack_segment(op));
    memcpy(host, buffer, size);
    return 0;
}

/* ---- Locked accesses ---- */

/* Page-crossing and MMIO read-modify-writes of all vCPUs take turns here. */
static pthread_mutex_t split_lock = PTHREAD_MUTEX_INITIALIZER;

int op_atomic_begin(struct cpu *cpu, const struct iop *op, unsigned size, struct atomic_access *access)
{
    if (op_address(cpu, op, size, true, &access->gva))
        return -1;
    access->size = (uint8_t)size;
    access->stack = op_uses_stack_segment(op);
    access->bounced = access->notice = false;
    access->host = fast_write(cpu, access->gva, size);
    if (likely(access->host))
        return 0;
    struct piece pieces[MAX_PIECES];
    int count = translate_pieces(cpu, access->gva, size, MMU_WRITE, cpu->privilege, access->stack, pieces);
    if (count < 0)
        return -1;
    if (count == 1 && pieces[0].target.host) {
        access->host = pieces[0].target.host;
        access->gpa = pieces[0].target.gpa;
        access->notice = pieces[0].target.notice;
        return 0;
    }
    access->bounced = true;
    access->host = access->bounce;
    cpu_park_vectors(cpu); /* for the lock, and for what op_atomic_end does with it */
    pthread_mutex_lock(&split_lock);
    if (!mem_read_linear(cpu, access->gva, access->bounce, size, cpu->privilege, access->stack))
        return 0;
    pthread_mutex_unlock(&split_lock);
    return -1;
}

int op_atomic_end(struct cpu *cpu, struct atomic_access *access, bool commit)
{
    int result = 0;
    if (access->bounced) {
        if (commit)
            result = mem_write_linear(cpu, access->gva, access->bounce, access->size, cpu->privilege, access->stack);
        pthread_mutex_unlock(&split_lock);
        return result;
    }
    if (access->notice)
        physmem_written(cpu->physmem, access->gpa, access->size);
    if (unlikely(cpu->data_breakpoints))
        debug_check_data(cpu, access->gva, access->size, true);
    return 0;
}

/* ---- Stack ---- */

static uint64_t stack_mask(const struct cpu *cpu)
{
    if (cpu->code_size == CODE64)
        return ~0ull;
    return cpu->segs[SEG_SS].attributes & SEG_ATTR_DB ? 0xffffffffull : 0xffffull;
}

static uint64_t stack_add(const struct cpu *cpu, uint64_t rsp, int64_t delta)
{
    uint64_t mask = stack_mask(cpu);
    return (rsp & ~mask) | ((rsp + (uint64_t)delta) & mask);
}

int stack_push(struct cpu *cpu, uint64_t *rsp, uint64_t value, unsigned size)
{
    uint64_t top = stack_add(cpu, *rsp, -(int64_t)size);
    gva_t gva;
    if (mem_segment_linear(cpu, SEG_SS, top & stack_mask(cpu), size, true, cpu->code_size, &gva) ||
        mem_write_linear(cpu, gva, &value, size, cpu->privilege, true))
        return -1;
    *rsp = top;
    return 0;
}

int stack_pop(struct cpu *cpu, uint64_t *rsp, uint64_t *value, unsigned size)
{
    gva_t gva;
    *value = 0;
    if (mem_segment_linear(cpu, SEG_SS, *rsp & stack_mask(cpu), size, false, cpu->code_size, &gva) ||
        mem_read_linear(cpu, gva, value, size, cpu->privilege, true))
        return -1;
    *rsp = stack_add(cpu, *rsp, size);
    return 0;
}

uint64_t stack_advance(const struct cpu *cpu, uint64_t rsp, int64_t delta)
{
    return stack_add(cpu, rsp, delta);
}

/* A 32-bit stack pointer zero-extends, a 16-bit one leaves the rest. */
void stack_commit(struct cpu *cpu, uint64_t rsp)
{
    uint64_t mask = stack_mask(cpu);
    cpu->gpr[REG_RSP] = mask == 0xffff ? (cpu->gpr[REG_RSP] & ~mask) | (rsp & mask) : rsp & mask;
}

/* ---- Operands ---- */

int operand_read(struct cpu *cpu, const struct iop *op, unsigned n, uint64_t *value)
{
    const struct operand *o = &op->insn.operands[n];
    switch (o->kind) {
    case OPERAND_GPR:
    case OPERAND_GPR_HIGH:
        *value = gpr_read(cpu, o);
        return 0;
    case OPERAND_MEM:
        *value = 0;
        return op_mem_read(cpu, op, value, o->size);
    default:
        *value = (uint64_t)op->insn.imm;
        if (o->size && o->size < 8)
            *value &= (1ull << o->size * 8) - 1;
        return 0;
    }
}

int operand_write(struct cpu *cpu, const struct iop *op, unsigned n, uint64_t value)
{
    const struct operand *o = &op->insn.operands[n];
    if (o->kind == OPERAND_MEM)
        return op_mem_write(cpu, op, &value, o->size);
    gpr_write(cpu, o, value);
    return 0;
}
