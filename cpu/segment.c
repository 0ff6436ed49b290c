/* Descriptors and segment registers: reading descriptors from the GDT and LDT, the checks of segment loads, and the
 * I/O permission check. SDM Vol. 3A chapters 3 and 5; Vol. 2B MOV; Vol. 1 19.5.
 *
 * Every function checks first and commits last: with -1 returned, cpu->fault is filled and nothing has changed but,
 * possibly, an accessed bit in memory (which the architecture allows). vCPU thread only. */
#include "cpu/system_internal.h"

/* ---- Access to system tables ---- */

/* Outside long mode linear addresses have 32 bits. */
static gva_t table_address(const struct cpu *cpu, uint64_t base, uint64_t offset)
{
    uint64_t gva = base + offset;

    return cpu_long_mode(cpu) ? gva : (uint32_t)gva;
}

int system_read(struct cpu *cpu, gva_t gva, void *buffer, unsigned size)
{
    return mem_read_linear(cpu, gva, buffer, size, MMU_SUPERVISOR, false);
}

int system_write(struct cpu *cpu, gva_t gva, const void *buffer, unsigned size)
{
    return mem_write_linear(cpu, gva, buffer, size, MMU_SUPERVISOR, false);
}

int descriptor_read(struct cpu *cpu, uint16_t selector, bool wide, struct descriptor *d)
{
    uint64_t base = cpu->gdtr.base;
    uint32_t limit = cpu->gdtr.limit, offset = selector & 0xfff8u;
    unsigned size = wide ? 16 : 8;
    uint64_t words[2] = { 0, 0 };

    if (selector & 4) {
        if ((cpu->ldtr.attributes & SEG_ATTR_UNUSABLE) || !(cpu->ldtr.attributes & SEG_ATTR_P))
            return 1;
        base = cpu->ldtr.base;
        limit = cpu->ldtr.limit;
    }
    if (offset + size - 1 > limit)
        return 1;
    d->address = table_address(cpu, base, offset);
    if (system_read(cpu, d->address, words, size) < 0)
        return -1;
    d->low = words[0];
    d->high = words[1];
    return 0;
}

/* Sets one bit of the access-rights byte. The byte is written alone: other vCPUs may change other bits of the same
 * descriptor only by software convention, and setting a bit that is set already is harmless. */
static int descriptor_set_bit(struct cpu *cpu, struct descriptor *d, unsigned bit)
{
    uint8_t access;

    if (d->low >> bit & 1)
        return 0;
    access = (uint8_t)(d->low >> 40) | (uint8_t)(1u << (bit - 40));
    if (system_write(cpu, d->address + 5, &access, 1) < 0)
        return -1;
    d->low |= BIT(bit);
    return 0;
}

int descriptor_set_accessed(struct cpu *cpu, struct descriptor *d)
{
    return descriptor_set_bit(cpu, d, 40);
}

int descriptor_set_busy(struct cpu *cpu, struct descriptor *d)
{
    return descriptor_set_bit(cpu, d, 41);
}

/* ---- Fields ----
 *
 *  63      56 55 54 53 52 51   48 47 46 45 44 43  40 39             16 15            0
 * +----------+--+--+--+---+-------+--+-----+--+------+-----------------+---------------+
 * | base 31: | G|DB| L|AVL| limit | P| DPL | S| type |   base 23:0     |  limit 15:0   |
 * |    24    |  |  |  |   | 19:16 |  |     |  |      |                 |               |
 * +----------+--+--+--+---+-------+--+-----+--+------+-----------------+---------------+ */

uint32_t descriptor_limit(const struct descriptor *d)
{
    uint32_t limit = (uint32_t)((d->low & 0xffff) | (d->low >> 32 & 0xf0000));

    return d->low >> 55 & 1 ? limit << 12 | 0xfff : limit;
}

uint64_t descriptor_base(const struct descriptor *d)
{
    return (d->low >> 16 & 0xffffff) | (d->low >> 32 & 0xff000000) | d->high << 32;
}

uint32_t descriptor_attributes(const struct descriptor *d)
{
    return d->low >> 40 & 0xf0ff;
}

struct segment_register descriptor_segment(const struct descriptor *d, uint16_t selector)
{
    return (struct segment_register){
        .base = (uint32_t)descriptor_base(d),
        .limit = descriptor_limit(d),
        .attributes = descriptor_attributes(d),
        .selector = selector,
    };
}

struct segment_register segment_null(uint16_t selector, unsigned dpl)
{
    return (struct segment_register){
        .selector = selector,
        .attributes = SEG_ATTR_UNUSABLE | dpl << SEG_ATTR_DPL_SHIFT,
    };
}

bool segment_contains(const struct segment_register *seg, uint32_t offset, unsigned size)
{
    uint64_t last = (uint64_t)offset + size - 1;
    uint32_t attributes = seg->attributes;

    if (attributes & SEG_ATTR_UNUSABLE)
        return false;
    if ((attributes & SEG_ATTR_S) && !(attributes & SEG_TYPE_CODE) && (attributes & SEG_TYPE_EXPAND_DOWN_OR_CONFORMING))
        return offset > seg->limit && last <= (attributes & SEG_ATTR_DB ? 0xffffffffu : 0xffffu);
    return last <= seg->limit;
}

/* ---- Loads ---- */

void segment_load_real(struct cpu *cpu, enum segment seg, uint16_t selector)
{
    struct segment_register value = cpu->segs[seg];

    value.selector = selector;
    value.base = (uint32_t)selector << 4;
    if (value.attributes & SEG_ATTR_UNUSABLE) { /* a null selector from protected mode */
        value.attributes = SEG_TYPE_RW | SEG_TYPE_ACCESSED | SEG_ATTR_S | SEG_ATTR_P;
        value.limit = 0xffff;
    }
    segment_commit(cpu, seg, &value);
}

static int load_null(struct cpu *cpu, enum segment seg, uint16_t selector)
{
    struct segment_register value;

    if (seg == SEG_SS) {
        /* A null SS is legal in 64-bit mode below CPL 3, with RPL = CPL. */
        if (!code64(cpu) || cpu->cpl == 3 || (selector & 3) != cpu->cpl)
            return raise_fault(cpu, VECTOR_GP, 0);
    }
    value = segment_null(selector, cpu->cpl);
    segment_commit(cpu, seg, &value);
    return 0;
}

static int check_stack_segment(struct cpu *cpu, uint16_t selector, const struct descriptor *d)
{
    if ((selector & 3) != cpu->cpl || !descriptor_writable(d) || descriptor_dpl(d) != cpu->cpl)
        return raise_fault(cpu, VECTOR_GP, selector_error(selector, 0));
    if (!descriptor_present(d))
        return raise_fault(cpu, VECTOR_SS, selector_error(selector, 0));
    return 0;
}

static int check_data_segment(struct cpu *cpu, uint16_t selector, const struct descriptor *d)
{
    if (!descriptor_readable(d))
        return raise_fault(cpu, VECTOR_GP, selector_error(selector, 0));
    if (!(descriptor_is_code(d) && descriptor_conforming(d))) {
        unsigned dpl = descriptor_dpl(d);

        if ((selector & 3u) > dpl || cpu->cpl > dpl)
            return raise_fault(cpu, VECTOR_GP, selector_error(selector, 0));
    }
    if (!descriptor_present(d))
        return raise_fault(cpu, VECTOR_NP, selector_error(selector, 0));
    return 0;
}

int cpu_load_segment(struct cpu *cpu, enum segment seg, uint16_t selector)
{
    struct segment_register value;
    struct descriptor d;
    int result;

    if (!cpu_protected(cpu) || cpu_v86(cpu)) {
        segment_load_real(cpu, seg, selector);
        return 0;
    }
    if (!(selector & 0xfffc))
        return load_null(cpu, seg, selector);
    result = descriptor_read(cpu, selector, false, &d);
    if (result)
        return result < 0 ? -1 : raise_fault(cpu, VECTOR_GP, selector_error(selector, 0));
    if ((seg == SEG_SS ? check_stack_segment : check_data_segment)(cpu, selector, &d) < 0)
        return -1;
    if (descriptor_set_accessed(cpu, &d) < 0)
        return -1;
    value = descriptor_segment(&d, selector);
    segment_commit(cpu, seg, &value);
    return 0;
}

/* ---- I/O permission (SDM Vol. 1 19.5.2) ---- */

int cpu_check_io(struct cpu *cpu, uint16_t port, unsigned size)
{
    unsigned iopl = cpu->rflags >> 12 & 3, type = cpu->tr.attributes & SEG_ATTR_TYPE;
    uint32_t offset;
    uint16_t word;

    if (!cpu_protected(cpu) || (cpu->cpl <= iopl && !cpu_v86(cpu)))
        return 0;
    /* Only a 32-bit or 64-bit TSS has a bitmap; its offset is at 102. */
    if (!(cpu->tr.attributes & SEG_ATTR_P) || (type != SYS_TSS && type != SYS_TSS_BUSY) || cpu->tr.limit < 103)
        return raise_fault(cpu, VECTOR_GP, 0);
    if (system_read(cpu, table_address(cpu, cpu->tr.base, 102), &word, 2) < 0)
        return -1;
    /* Two bytes are always read, so that a port range may cross a byte of the map. */
    offset = (uint32_t)word + port / 8;
    if (offset + 1 > cpu->tr.limit)
        return raise_fault(cpu, VECTOR_GP, 0);
    if (system_read(cpu, table_address(cpu, cpu->tr.base, offset), &word, 2) < 0)
        return -1;
    if (word >> (port & 7) & ((1u << size) - 1))
        return raise_fault(cpu, VECTOR_GP, 0);
    return 0;
}
